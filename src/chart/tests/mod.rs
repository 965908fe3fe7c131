//! Charts against what they should be.

mod cache;
mod drawing;
mod measure;
mod real_data;
mod talib;
mod tape;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::bar::encode_all;
use super::projection::{Projection, decode};
use super::store::StoreError;
use super::*;
use crate::domain::{Millis, Symbol};
use crate::log::StoredRecord;

pub const MINUTE: Millis = 60_000;
/// 2026-03-06T15:30:00Z
pub const T0: Millis = 1_772_811_000_000;
/// Long after everything.
pub const LATER: Millis = T0 + 1_000 * 86_400_000;

pub fn symbol(name: &str) -> Symbol {
    Symbol::parse(name.as_bytes()).unwrap()
}

pub fn options(dir: &Path) -> Options {
    Options {
        dir: dir.to_path_buf(),
        cache_bytes: 4 << 20,
        bounds: Bounds { bars_max: 10_000, symbols_max: 100 },
        days: Days::of_zone("America/New_York").unwrap(),
    }
}

pub fn trade(symbol: &str, price: &str, size: &str, ts: Millis) -> String {
    format!(r#"{{"event":"trade","symbol":"{symbol}","price":"{price}","size":"{size}","ts":{ts}}}"#)
}

pub fn window() -> Window {
    Window { start: Some(0), end: None, limit: 5_000, adjusted: true }
}

/// Waits until everything on the log is drawn and saves nothing by itself.
pub fn drawn(charts: &Charts, log: &Arc<dyn Topics>) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let State::Here { projection, .. } = &*charts.shared.state() {
            let behind = |extent: &crate::log::Extent| {
                Feed::of(extent.topic).is_some_and(|feed| projection.position(feed, extent.partition).next < extent.next)
            };
            if !log.extents().unwrap().iter().any(behind) {
                return;
            }
        }
        assert!(Instant::now() < deadline, "charts do not come to the log's end");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Starts charts and waits until all is drawn.
pub fn started(log: &Arc<dyn Topics>, options: Options) -> Arc<Charts> {
    let charts = Charts::start(Arc::clone(log), options).unwrap();
    drawn(&charts, log);
    charts
}

/// Every bar that is shown, as bytes, by symbol and timeframe.
pub fn dump(charts: &Charts) -> BTreeMap<(String, &'static str), Vec<u8>> {
    match &*charts.shared.state() {
        State::Here { projection, store } => dump_of(projection, &|place, chunk| store.chunk(place, chunk)).unwrap(),
        State::Away { why } => panic!("{why}"),
    }
}

fn dump_of(
    projection: &Projection,
    load: projection::LoadAt<'_, StoreError>,
) -> Result<BTreeMap<(String, &'static str), Vec<u8>>, StoreError> {
    let mut all = BTreeMap::new();
    for (number, bars) in projection.symbols() {
        for timeframe in Timeframe::ALL {
            let place = projection::ChunkPlace { symbol: number, timeframe };
            let series = &bars.series[timeframe.place()];
            let shown = series.range((Millis::MIN, Millis::MAX), usize::MAX, projection.bounds.bars_max, &|chunk| load(place, chunk))?;
            all.insert((bars.symbol.to_string(), timeframe.as_str()), encode_all(&shown));
        }
    }
    Ok(all)
}

/// A projection of records of one partition after another, without a cache.
pub fn projected(bounds: Bounds, batches: &[(u32, Vec<StoredRecord>)]) -> Projection {
    let mut projection = Projection::new(Days::of_zone("America/New_York").unwrap(), bounds);
    for (partition, records) in batches {
        let pieces: Vec<_> = records.iter().map(|record| decode(Feed::Prices, record)).collect();
        projection.apply::<StoreError>((Feed::Prices, *partition), records, &pieces, &|_, _| panic!("nothing is cold")).unwrap();
    }
    projection
}

pub fn dump_warm(projection: &Projection) -> BTreeMap<(String, &'static str), Vec<u8>> {
    dump_of(projection, &|_, _| panic!("nothing is cold")).unwrap()
}

pub fn record(offset: u64, ts: Millis, payload: &str) -> StoredRecord {
    StoredRecord { offset, ts, key: None, payload: payload.as_bytes().to_vec(), tag: None }
}
