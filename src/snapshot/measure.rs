//! What a big store costs, measured on request: a million synthetic accounts of 20 positions.
//!
//! `cargo test --release --lib snapshot::measure -- --ignored --nocapture`; `ORDERGATE_ACCOUNTS` sets another number.

use std::collections::BTreeMap;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::load;
use super::store::Store;
use super::write::Job;
use crate::wire::snapshot::{Stamp, VERSION, decode_value, encode_value};

/// Shaped and sized as a book is: some 700 bytes encoded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Synthetic {
    id: String,
    owner: String,
    amounts: [i128; 8],
    positions: Vec<(u32, i64, i128, i128, i64)>,
    turn: u64,
}

fn synthetic(place: u32, turn: u64) -> Synthetic {
    let seed = u64::from(place).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ turn;
    let amount = |i: u64| i128::from(seed.rotate_left(i as u32 * 3) >> 20) * 10_000_000;
    let position = |i: u64| (i as u32, (seed >> 40) as i64 * 100_000_000, amount(i), amount(i + 1), 1_772_811_000_000 + i as i64);
    Synthetic {
        id: format!("ACC{place}"),
        owner: format!("u-{}", place / 3),
        amounts: std::array::from_fn(|i| amount(i as u64)),
        positions: (0..20).map(position).collect(),
        turn,
    }
}

fn job(n: u64, accounts: u32, touched: impl Iterator<Item = u32>, whole: bool) -> Job {
    let touched: BTreeMap<u32, Vec<u8>> = touched.map(|place| (place, encode_value(&synthetic(place, n)).unwrap())).collect();
    Job { stamp: Stamp { shard: 0, frame: n, head: [0; 32] }, standing: Vec::new(), shared: vec![1; 1 << 16], accounts, touched, whole }
}

fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0");
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) / 1024
}

#[test]
#[ignore = "takes a minute and two gigabytes; run it in release"]
fn a_million_accounts() {
    let accounts = std::env::var("ORDERGATE_ACCOUNTS").map_or(1_000_000, |text| text.parse().unwrap());
    let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let timed = |what: &str, work: &mut dyn FnMut() -> u64| {
        let begun = Instant::now();
        let bytes = work();
        println!("{what:<46} {:>7.3} s {:>8.1} MB  peak {} MiB", begun.elapsed().as_secs_f64(), bytes as f64 / 1e6, peak_mib());
    };
    let mut store = Store::open(dir.path(), 0, 64 << 20).unwrap();
    let whole = job(1, accounts, 0..accounts, true);
    timed("write, whole", &mut || store.write(&whole).unwrap());
    drop(whole);
    for (n, touched) in [(2, 10), (3, 1_000), (4, 20_000)] {
        let step = (accounts / touched).max(1);
        let some = job(n, accounts, (0..touched).map(|i| i * step), false);
        timed(&format!("write, {touched} accounts spread evenly"), &mut || store.write(&some).unwrap());
    }
    timed("close", &mut || {
        let Ok(closed) = Store::open(&dir.path().join("other"), 0, 1 << 20) else { return 0 };
        drop(std::mem::replace(&mut store, closed));
        0
    });
    timed("open", &mut || {
        store = Store::open(dir.path(), 0, 64 << 20).unwrap();
        0
    });
    let newest = store.generations().last().unwrap().manifest.clone();
    timed("load: read, check, sum, decode", &mut || {
        let loaded = load::accounts(&store, &newest, |_, bytes| decode_value::<Synthetic>(VERSION, bytes)).unwrap().accounts;
        assert_eq!(loaded.len(), accounts as usize);
        assert_eq!(loaded[7], synthetic(7, 1));
        0
    });
    let used: u64 = folder_bytes(dir.path());
    println!("on disk {:.1} MB", used as f64 / 1e6);
}

fn folder_bytes(dir: &std::path::Path) -> u64 {
    let entries = std::fs::read_dir(dir).unwrap().flatten();
    entries.map(|entry| if entry.path().is_dir() { folder_bytes(&entry.path()) } else { entry.metadata().map_or(0, |it| it.len()) }).sum()
}
