//! Half an hour of AAPL of 21 June 2012, against sorting and grouping of the lines themselves.

use std::io::Read;

use super::tape::{PRICES, Tape};
use super::*;

const FILE: &str = "shared/data/aapl-2012-06-21-0930.jsonl.gz";

/// (own time, price, size) of each trade, as floats out of the JSON, and the payloads.
fn trades() -> Option<Vec<(i64, f64, f64, String)>> {
    let places = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().map(|place| place.join(FILE));
    let Some(file) = places.filter_map(|path| std::fs::File::open(path).ok()).next() else {
        eprintln!("SKIPPED: there is no {FILE} beside this folder or above it");
        return None;
    };
    let mut text = String::new();
    flate2::read::GzDecoder::new(file).read_to_string(&mut text).unwrap();
    let prices = text.lines().filter(|line| line.contains(r#""topic":"market.prices""#));
    let of = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let payload = &line["payload"];
        let number = |field: &str| payload[field].as_str().unwrap().parse::<f64>().unwrap();
        (payload["ts"].as_i64().unwrap(), number("price"), number("size"), payload.to_string())
    };
    Some(prices.map(of).collect())
}

#[test]
fn the_minutes_of_a_real_half_hour_are_what_sorting_and_grouping_gives() {
    let Some(trades) = trades() else { return };
    assert_eq!(trades.len(), 3_203);
    let (dir, tape) = (tempfile::tempdir().unwrap(), Tape::new(1));
    for (_, _, _, payload) in &trades {
        tape.put(PRICES, 0, LATER, payload);
    }
    let log: Arc<dyn Topics> = Arc::new(tape);
    let charts = started(&log, options(dir.path()));
    for (timeframe, seconds, bars) in [(Timeframe::Minute, 60, 30), (Timeframe::FiveMinutes, 300, 6), (Timeframe::HalfHour, 1_800, 1)] {
        let page = charts.bars(&symbol("AAPL"), timeframe, &window(), LATER).unwrap();
        let mut sorted: Vec<_> = trades.iter().collect();
        sorted.sort_by_key(|trade| trade.0);
        let groups: Vec<_> = sorted.chunk_by(|a, b| a.0 / 1_000 / seconds == b.0 / 1_000 / seconds).collect();
        assert_eq!((groups.len(), page.bars.len()), (bars, bars));
        for (group, bar) in groups.iter().zip(&page.bars) {
            let prices = || group.iter().map(|trade| trade.1);
            assert_eq!(bar.start, group[0].0 / 1_000 / seconds * seconds * 1_000);
            assert_eq!((bar.open, bar.close), (group[0].1, group[group.len() - 1].1));
            assert_eq!((bar.high, bar.low), (prices().fold(f64::MIN, f64::max), prices().fold(f64::MAX, f64::min)));
            assert_eq!(bar.volume, Some(group.iter().map(|trade| trade.2).sum()));
            assert_eq!((bar.trades, bar.in_progress), (group.len() as u64, false));
        }
    }
}
