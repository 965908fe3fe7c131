//! The cache: what it saves, and that any doubt about it ends in the same bars, from the log.

use std::fs;

use super::tape::{PRICES, Tape};
use super::*;

/// A tape of two partitions with late trades, enough for many chunks.
fn tape() -> Arc<Tape> {
    let tape = Tape::new(2);
    put_more(&tape, 0, 1_500);
    Arc::new(tape)
}

fn put_more(tape: &Tape, from: i64, to: i64) {
    for i in from..to {
        let (name, partition) = if i % 3 == 0 { ("MSFT", 1) } else { ("AAPL", 0) };
        let late = if i % 50 == 0 { -97 * MINUTE } else { 0 };
        let price = format!("{}.{:02}", 100 + i % 7, i * 31 % 100);
        tape.put(PRICES, partition, LATER, &trade(name, &price, "2", T0 + i * MINUTE / 2 + late));
    }
}

fn small(dir: &Path) -> Options {
    Options { bounds: Bounds { bars_max: 300, symbols_max: 10 }, ..options(dir) }
}

fn of(tape: &Arc<Tape>) -> Arc<dyn Topics> {
    Arc::clone(tape) as Arc<dyn Topics>
}

/// What the log alone gives.
fn rebuilt(tape: &Arc<Tape>) -> BTreeMap<(String, &'static str), Vec<u8>> {
    let dir = tempfile::tempdir().unwrap();
    dump(&started(&of(tape), small(dir.path())))
}

fn saved_cache(tape: &Arc<Tape>, dir: &Path) {
    started(&of(tape), small(dir)).stop();
}

fn is_aside(dir: &Path) -> bool {
    dir.join("v1.broken-1").exists()
}

/// Damages a saved cache; the charts must come to what the log gives, `aside` the damage or not.
fn check(damage: impl FnOnce(&Store), aside: bool) {
    let (tape, dir) = (tape(), tempfile::tempdir().unwrap());
    saved_cache(&tape, dir.path());
    let store = Store::open(&dir.path().join("v1"), 1 << 20).unwrap();
    damage(&store);
    drop(store);
    let charts = started(&of(&tape), small(dir.path()));
    // A chunk is looked at when it is asked for: the first that asks may be told to come again.
    let deadline = Instant::now() + Duration::from_secs(60);
    let read_all = || {
        let asked = [("AAPL", 0), ("MSFT", 0)].into_iter().flat_map(|(name, _)| Timeframe::ALL.map(|timeframe| (name, timeframe)));
        asked.map(|(name, timeframe)| charts.bars(&symbol(name), timeframe, &window(), LATER)).collect::<Result<Vec<_>, _>>()
    };
    while read_all().is_err() {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(5));
    }
    drawn(&charts, &of(&tape));
    assert_eq!(dump(&charts), rebuilt(&tape));
    assert_eq!(is_aside(dir.path()), aside);
    assert_eq!(charts.status().rebuilds, u64::from(aside));
}

fn keys(store: &Store, first: u8) -> Vec<Vec<u8>> {
    store.db().scan_prefix([first]).keys().map(|key| key.unwrap().to_vec()).collect()
}

fn flip(store: &Store, key: &[u8], byte: usize) {
    let mut blob = store.db().get(key).unwrap().unwrap().to_vec();
    let place = byte % blob.len();
    blob[place] ^= 0x10;
    store.db().insert(key, blob).unwrap();
}

#[test]
fn a_restart_from_the_cache_gives_what_a_rebuild_from_the_log_gives_byte_for_byte() {
    let (tape, dir) = (tape(), tempfile::tempdir().unwrap());
    saved_cache(&tape, dir.path());
    put_more(&tape, 1_500, 1_700);
    let charts = started(&of(&tape), small(dir.path()));
    assert_eq!(dump(&charts), rebuilt(&tape));
    charts.stop();
    let again = started(&of(&tape), small(dir.path()));
    assert_eq!(dump(&again), rebuilt(&tape));
    assert!(!is_aside(dir.path()));
}

#[test]
fn what_was_read_is_not_read_again() {
    let (tape, dir) = (tape(), tempfile::tempdir().unwrap());
    saved_cache(&tape, dir.path());
    // Nothing but each partition's last record is left on the log: bars of before can only come from the cache.
    let whole = rebuilt(&tape);
    tape.keep_from(499);
    let charts = started(&of(&tape), small(dir.path()));
    assert_eq!(dump(&charts), whole);
}

#[test]
fn a_whole_cache_is_used() {
    check(|_| {}, false);
}

#[test]
fn flipped_and_missing_entries_are_found_and_the_bars_rebuilt() {
    check(|store| flip(store, b"m", 40), true);
    check(|store| flip(store, &keys(store, b's')[1], 25), true);
    check(|store| keys(store, b'c').iter().for_each(|key| flip(store, key, 33)), true);
    check(|store| drop(store.db().remove(&keys(store, b's')[0]).unwrap()), true);
    check(|store| keys(store, b'c').iter().for_each(|key| drop(store.db().remove(key).unwrap())), true);
}

#[test]
fn an_entry_of_before_is_found() {
    let (tape, dir) = (tape(), tempfile::tempdir().unwrap());
    saved_cache(&tape, dir.path());
    let path = dir.path().join("v1");
    let old = {
        let store = Store::open(&path, 1 << 20).unwrap();
        let key = keys(&store, b's')[0].clone();
        let blob = store.db().get(&key).unwrap().unwrap();
        (key, blob)
    };
    put_more(&tape, 1_500, 1_600);
    saved_cache(&tape, dir.path());
    drop(Store::open(&path, 1 << 20).unwrap().db().insert(old.0, old.1).unwrap());
    let charts = started(&of(&tape), small(dir.path()));
    assert_eq!(dump(&charts), rebuilt(&tape));
    assert!(is_aside(dir.path()));
}

#[test]
fn a_folder_that_sled_cannot_open_is_moved_aside() {
    let (tape, dir) = (tape(), tempfile::tempdir().unwrap());
    saved_cache(&tape, dir.path());
    for entry in fs::read_dir(dir.path().join("v1")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            fs::write(path, b"no sled at all").unwrap();
        }
    }
    let charts = started(&of(&tape), small(dir.path()));
    assert_eq!(dump(&charts), rebuilt(&tape));
}

#[test]
fn a_log_that_was_made_anew_or_ends_earlier_is_noticed() {
    for (from, to) in [(1, 1_501), (0, 300)] {
        let dir = tempfile::tempdir().unwrap();
        saved_cache(&tape(), dir.path());
        let other = Tape::new(2);
        put_more(&other, from, to);
        let other = Arc::new(other);
        let charts = started(&of(&other), small(dir.path()));
        // The first look can still be at the old bars' end.
        let deadline = Instant::now() + Duration::from_secs(60);
        while charts.status().rebuilds == 0 {
            assert!(Instant::now() < deadline);
            std::thread::sleep(Duration::from_millis(5));
        }
        drawn(&charts, &of(&other));
        assert_eq!(dump(&charts), rebuilt(&other), "from {from} to {to}");
        assert!(is_aside(dir.path()));
    }
}

#[test]
fn a_cache_of_other_bounds_or_days_is_made_anew_without_a_doubt() {
    let (tape, dir) = (tape(), tempfile::tempdir().unwrap());
    saved_cache(&tape, dir.path());
    let other = Options { days: Days::of_zone("Asia/Tokyo").unwrap(), ..small(dir.path()) };
    let charts = started(&of(&tape), other);
    let day = charts.bars(&symbol("AAPL"), Timeframe::Day, &window(), LATER).unwrap().bars[0].start;
    assert_eq!(day.rem_euclid(24 * 60 * MINUTE), 15 * 60 * MINUTE, "midnight in Tokyo");
    assert!(!is_aside(dir.path()));
    assert_eq!(charts.status().rebuilds, 0);
}

#[test]
fn records_that_the_log_no_longer_has_are_skipped() {
    let (tape, dir) = (tape(), tempfile::tempdir().unwrap());
    tape.keep_from(400);
    let charts = started(&of(&tape), small(dir.path()));
    assert!(!charts.bars(&symbol("AAPL"), Timeframe::Minute, &window(), LATER).unwrap().bars.is_empty());
    assert_eq!(charts.status().rebuilds, 0);
}

#[test]
fn while_the_log_is_away_what_was_drawn_stays_to_be_seen() {
    let (tape, dir) = (tape(), tempfile::tempdir().unwrap());
    let charts = started(&of(&tape), small(dir.path()));
    let before = dump(&charts);
    tape.set_down(true);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(dump(&charts), before);
    put_more(&tape, 1_500, 1_510);
    tape.set_down(false);
    drawn(&charts, &of(&tape));
    assert_eq!(dump(&charts), rebuilt(&tape));
}

#[test]
fn while_the_cache_cannot_be_kept_the_metrics_say_so_and_the_lag_goes_on() {
    let (tape, dir) = (tape(), tempfile::tempdir().unwrap());
    let cache = dir.path().join("charts");
    // A file where the folder should be: also root cannot make the folder.
    fs::write(&cache, b"in the way").unwrap();
    let (log, options) = (of(&tape), small(&cache));
    let shared = Arc::new(Shared::new(options.days.clone()));
    let recorder = crate::telemetry::local_recorder().unwrap();
    let shown = recorder.handle();
    let of_thread = Arc::clone(&shared);
    let follow = move || metrics::with_local_recorder(&recorder, || super::super::follower::run(&log, &options, &of_thread));
    let charts = Charts { shared, thread: Mutex::new(Some(std::thread::spawn(follow))) };
    let reads = |unavailable: u8, lag: u64| {
        let wanted = [format!("\nordergate_chart_unavailable {unavailable}\n"), format!("\nordergate_chart_lag_records {lag}\n")];
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let text = shown.render();
            if wanted.iter().all(|line| text.contains(line)) {
                return;
            }
            assert!(Instant::now() < deadline, "{wanted:?} is not among\n{text}");
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    let asked = || charts.bars(&symbol("AAPL"), Timeframe::Minute, &window(), LATER);
    reads(1, 1_500);
    assert!(matches!(asked(), Err(ChartError::Unavailable { .. })));
    put_more(&tape, 1_500, 1_700);
    reads(1, 1_700);
    fs::remove_file(&cache).unwrap();
    reads(0, 0);
    assert!(!asked().unwrap().bars.is_empty());
    // The same in the midst of it: what was read is not shown any more, so nothing of the log is.
    fs::rename(&cache, dir.path().join("elsewhere")).unwrap();
    fs::write(&cache, b"in the way").unwrap();
    charts.shared.doubts("a chunk is missing".to_owned());
    reads(1, 1_700);
    assert!(matches!(asked(), Err(ChartError::Unavailable { .. })));
    assert_eq!(charts.status().lag_records, 1_700);
}
