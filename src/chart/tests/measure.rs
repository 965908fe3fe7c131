//! What charts cost: `cargo test --release --lib chart::tests::measure -- --ignored --nocapture`.

use super::tape::{PRICES, Tape};
use super::*;
use crate::chart::indicators::Indicator;

const RECORDS: i64 = 1_000_000;
const SYMBOLS: i64 = 100;
const ASKED: usize = 300;

fn quantiles(name: &str, mut took: Vec<Duration>) {
    took.sort();
    println!("{name}: p50 {:?}, p99 {:?} of {}", took[took.len() / 2], took[took.len() * 99 / 100], took.len());
}

#[test]
#[ignore = "measures"]
fn what_reading_and_asking_cost() {
    let tape = Tape::new(4);
    for i in 0..RECORDS {
        let name = format!("SYM{}", i % SYMBOLS);
        let price = format!("{}.{:02}", 100 + i % 17, i * 31 % 100);
        tape.put(PRICES, (i % SYMBOLS % 4) as u32, LATER, &trade(&name, &price, "100", T0 + i / SYMBOLS * MINUTE));
    }
    let (dir, log): (_, Arc<dyn Topics>) = (tempfile::tempdir().unwrap(), Arc::new(tape));
    let begun = Instant::now();
    let charts = started(&log, options(dir.path()));
    let took = begun.elapsed();
    println!(
        "{RECORDS} trades of {SYMBOLS} symbols in {took:?}: {:.0} records/s, {:?}",
        RECORDS as f64 / took.as_secs_f64(),
        charts.status()
    );
    charts.stop();
    let begun = Instant::now();
    let charts = started(&log, options(dir.path()));
    println!("from the cache in {:?}", begun.elapsed());
    let ask = |i: usize, asked: &dyn Fn(&Symbol, &Window)| {
        let begun = Instant::now();
        asked(&symbol(&format!("SYM{}", i % SYMBOLS as usize)), &Window { start: Some(T0 + 2_000 * MINUTE), ..window() });
        begun.elapsed()
    };
    let bars = |symbol: &Symbol, window: &Window| {
        assert_eq!(charts.bars(symbol, Timeframe::Minute, window, LATER).unwrap().bars.len(), 5_000);
    };
    quantiles("5,000 bars", (0..ASKED).map(|i| ask(i, &bars)).collect());
    for name in ["sma", "adx", "vwap"] {
        let indicator = Indicator::parse(name, |_| None).unwrap();
        let line = |symbol: &Symbol, window: &Window| drop(charts.indicator(symbol, Timeframe::Minute, window, &indicator, LATER).unwrap());
        quantiles(&format!("{name} of 5,000 bars"), (0..ASKED).map(|i| ask(i, &line)).collect());
    }
}
