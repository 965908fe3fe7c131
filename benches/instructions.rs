//! What one record costs, in instructions and allocations (valgrind; needs `gungraun-runner`).
//!
//! Invariant: only the measured call is counted, not what leads up to it. Deliberately absent:
//! times, which are noise where this runs (`ratios` has them).

#![expect(missing_docs, reason = "the macros make modules without any")]

#[path = "instructions/baseline.rs"]
mod baseline;
#[path = "instructions/count.rs"]
mod count;
#[path = "shared/rules.rs"]
mod rules;
#[path = "instructions/stage.rs"]
mod stage;
#[path = "shared/table.rs"]
mod table;

use std::hint::black_box;
use std::process::ExitCode;

use gungraun::{Dhat, LibraryBenchmarkConfig, library_benchmark, library_benchmark_group, main};
use ordergate::domain::{Effects, Event, InputTopic, Millis, Output, Price, Source};
use ordergate::market::bars::{Bars, correlation};
use ordergate::wire::{self, Origin};

use stage::Stage;

#[library_benchmark]
#[bench::none(args = (0), setup = Stage::evaluation)]
#[bench::one(args = (1), setup = Stage::evaluation)]
#[bench::twenty(args = (20), setup = Stage::evaluation)]
#[bench::hundred(args = (100), setup = Stage::evaluation)]
#[bench::thousand(args = (1000), setup = Stage::evaluation)]
fn evaluate(mut stage: Box<Stage>) -> Box<Stage> {
    stage.take();
    stage
}

#[library_benchmark]
#[bench::none(args = (0), setup = Stage::ruled)]
#[bench::one(args = (1), setup = Stage::ruled)]
#[bench::ten(args = (10), setup = Stage::ruled)]
#[bench::hundred(args = (100), setup = Stage::ruled)]
fn evaluate_rules(mut stage: Box<Stage>) -> Box<Stage> {
    stage.take();
    stage
}

#[library_benchmark]
#[bench::one(args = (1), setup = Stage::filling)]
#[bench::twenty(args = (20), setup = Stage::filling)]
fn fill(mut stage: Box<Stage>) -> Box<Stage> {
    stage.take();
    stage
}

#[library_benchmark]
#[bench::one_holder(args = (1), setup = Stage::pricing)]
#[bench::hundred_thousand_holders(args = (100_000), setup = Stage::pricing)]
fn price(mut stage: Box<Stage>) -> Box<Stage> {
    stage.take();
    stage
}

const INTENT: &str = r#"{"event":"order_intent","client_order_id":"I-1","account":"ACC1","strategy":"mean-rev","symbol":"AAPL","side":"buy","order_type":"limit","qty":"100","limit_price":"100.00","time_in_force":"day"}"#;

#[library_benchmark]
#[bench::order_intent(InputTopic::Intents, INTENT)]
#[bench::order_amend(
    InputTopic::Intents,
    r#"{"event":"order_amend","client_order_id":"I-1","amend_id":"A-1","account":"ACC1","qty":"70","limit_price":"101.5"}"#
)]
#[bench::order_cancel(InputTopic::Intents, r#"{"event":"order_cancel","client_order_id":"I-1","account":"ACC1"}"#)]
#[bench::fill(InputTopic::Executions, r#"{"event":"fill","exec_id":"E-1","client_order_id":"I-1","account":"ACC1","symbol":"AAPL","side":"buy","qty":"40","price":"99.98","fee":"0.20","ts":"2026-03-06T15:30:00.123Z"}"#)]
#[bench::canceled(InputTopic::Executions, r#"{"event":"canceled","client_order_id":"I-1","account":"ACC1","reason":"user"}"#)]
#[bench::trade(InputTopic::Prices, r#"{"event":"trade","symbol":"AAPL","price":"100.02","size":"300","ts":1772811000123}"#)]
#[bench::quote(
    InputTopic::Prices,
    r#"{"event":"quote","symbol":"AAPL","bid":"100.01","ask":"100.03","bid_size":"200","ask_size":"100","ts":1772811000123}"#
)]
#[bench::bar(InputTopic::Prices, r#"{"event":"bar","symbol":"AAPL","timeframe":"1d","open_time":"2026-03-05T00:00:00Z","open":"99","high":"101","low":"98","close":"100","volume":"1200000"}"#)]
fn decode(topic: InputTopic, payload: &str) -> Event {
    black_box(wire::decode(topic, None, payload.as_bytes()))
}

/// The same intent read by `serde_json` into a plain struct, for comparison.
#[derive(serde::Deserialize)]
#[expect(dead_code, reason = "only read from JSON")]
struct PlainIntent<'a> {
    event: &'a str,
    client_order_id: &'a str,
    account: &'a str,
    strategy: Option<&'a str>,
    symbol: &'a str,
    side: &'a str,
    order_type: &'a str,
    qty: Option<&'a str>,
    limit_price: Option<&'a str>,
    time_in_force: Option<&'a str>,
}

#[library_benchmark]
#[bench::order_intent(INTENT)]
fn decode_by_serde_json(payload: &'static str) -> Option<PlainIntent<'static>> {
    black_box(serde_json::from_str(payload).ok())
}

/// A stage whose intent has been decided.
fn decided(positions: usize) -> (Box<Stage>, Vec<u8>) {
    let mut stage = Stage::evaluation(positions);
    stage.take();
    assert!(matches!(stage.effects.outputs.first(), Some(Output::Decision(_))), "{:?}", stage.effects.outputs);
    (stage, Vec::with_capacity(4096))
}

#[library_benchmark]
#[bench::decision(args = (1), setup = decided)]
fn encode((stage, mut out): (Box<Stage>, Vec<u8>)) -> (Box<Stage>, Vec<u8>) {
    encode_all(&stage.effects, &mut out);
    (stage, out)
}

fn encode_all(effects: &Effects, out: &mut Vec<u8>) {
    let source = Source { topic: InputTopic::Intents, partition: 0, offset: 0 };
    let origin = Origin { source, key: None, payload: b"" };
    for output in &effects.outputs {
        wire::encode_output(out, output, effects, &origin);
    }
}

fn series(_: usize) -> (Bars, Bars) {
    let (mut a, mut b) = (Bars::default(), Bars::default());
    for day in 0..60 {
        let noise = |factor: i64| Price(10_000_000_000 + (day * factor) % 997 * 1_000_000);
        a.insert(day as Millis, noise(7919));
        b.insert(day as Millis, noise(6007));
    }
    (a, b)
}

#[library_benchmark]
#[bench::sixty_bars(args = (60), setup = series)]
fn correlate((a, b): (Bars, Bars)) -> (Option<i64>, Bars, Bars) {
    (black_box(correlation(&a, &b, 60, 20)), a, b)
}

library_benchmark_group!(name = gate, benchmarks = [evaluate, evaluate_rules, fill, price]);
library_benchmark_group!(name = bytes, benchmarks = [decode, decode_by_serde_json, encode]);
library_benchmark_group!(name = market, benchmarks = [correlate]);

/// What the macro makes, out of the way of our own `main`.
mod harness {
    use super::*;

    main!(config = LibraryBenchmarkConfig::default().tool(Dhat::default()), library_benchmark_groups = [gate, bytes, market]);

    pub fn run() {
        main();
    }
}

/// Counts only under `cargo bench`, which says `--bench`; the runner starts this again for each
/// benchmark with `--gungraun-run`. `cargo test --all-targets` says neither, and unoptimised counts
/// would mean nothing.
fn main() -> ExitCode {
    let asked = std::env::args().any(|argument| argument == "--bench");
    if std::env::args().nth(1).as_deref() == Some("--gungraun-run") || (asked && std::env::var_os(count::COUNTING).is_some()) {
        harness::run();
        ExitCode::SUCCESS
    } else if asked {
        count::run()
    } else {
        println!("instructions are counted by: cargo bench --no-default-features --bench instructions");
        ExitCode::SUCCESS
    }
}
