//! The sample of order flow in `tests/vectors/flow`: what it is made from, and what it shows.
//!
//! Invariant: the file is exactly what its plan gives, on every machine. After a change of what the
//! gate decides, `ORDERGATE_BLESS=1 cargo test --test flow` writes it anew. Deliberately absent: the
//! decisions, which golden files hold.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use ordergate::domain::{Effects, Output};
use ordergate::generate::{Decide, Generated, Generator, OwnGate, Plan};

const SAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/flow/sample.jsonl.gz");
const PLAN: Plan = Plan { seed: 20_260_306, accounts: 6, symbols: 8, events: 2_000, start: Plan::DEFAULT_START };

/// Counts what comes out of the gate, by what it is.
#[derive(Default)]
struct Counted {
    gate: OwnGate,
    outputs: BTreeMap<&'static str, u32>,
}

impl Decide for Counted {
    fn decide(&mut self, record: &Generated<'_>, effects: &mut Effects) {
        self.gate.decide(record, effects);
        for output in &effects.outputs {
            let name = match output {
                Output::Decision(decision) => decision.verdict.as_str(),
                Output::CancelOrders(_) => "cancel_orders",
                Output::ClosePosition(_) => "close_position",
                Output::Notification(notification) => notification.code.as_str(),
                Output::DeadLetter(letter) => letter.code.as_str(),
            };
            *self.outputs.entry(name).or_default() += 1;
        }
    }
}

fn generated() -> (Vec<u8>, BTreeMap<&'static str, u32>) {
    let mut generator = Generator::new(PLAN, Counted::default());
    let mut lines = Vec::new();
    while let Some(record) = generator.next_record() {
        record.write_line(&mut lines);
    }
    (lines, generator.decider().outputs.clone())
}

#[test]
fn the_sample_is_what_its_plan_gives() {
    let (expected, _) = generated();
    if std::env::var_os("ORDERGATE_BLESS").is_some() {
        let mut encoder = GzEncoder::new(File::create(SAMPLE).unwrap(), Compression::best());
        encoder.write_all(&expected).unwrap();
        encoder.finish().unwrap();
    }
    let mut sample = Vec::new();
    GzDecoder::new(File::open(SAMPLE).unwrap()).read_to_end(&mut sample).unwrap();
    let first = sample.split(|byte| *byte == b'\n').zip(expected.split(|byte| *byte == b'\n')).position(|(a, b)| a != b);
    assert!(
        sample == expected,
        "the gate decides otherwise from line {first:?} on; if it should: ORDERGATE_BLESS=1 cargo test --test flow"
    );
}

#[test]
fn the_sample_shows_every_verdict_and_both_commands() {
    let (_, outputs) = generated();
    for name in ["allow", "allow_reduced", "block", "close_position", "cancel_orders", "RULE_BREACH", "RULE_WARNING", "MALFORMED"] {
        assert!(outputs.contains_key(name), "{name} is missing among {outputs:?}");
    }
}
