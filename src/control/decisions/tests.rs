//! The index of decisions where the ledger does not matter. On ledgers that were really written: `tests/replicas.rs`.

use tempfile::TempDir;

use super::*;
use crate::domain::{InputTopic, Source};
use crate::embedded::{EmbeddedLog, EmbeddedOptions};
use crate::log::{OutputTag, OutputTopic};

fn decision(seq: u64) -> OutputRecord {
    let payload =
        format!(r#"{{"event":"decision","account":"ACC1","symbol":"AAPL","verdict":"allow","reasons":[],"seq":{seq},"at":{seq}}}"#);
    let source = Source { topic: InputTopic::Intents, partition: 0, offset: seq };
    OutputRecord {
        topic: OutputTopic::Decisions,
        tag: OutputTag { shard: 0, seq, index: 0 },
        source,
        key: None,
        payload: payload.into_bytes(),
    }
}

fn tell(index: &Decisions, seq: u64) {
    index.folded(0, &Reached { seq, ledger_next: seq, ..Reached::default() }, &[decision(seq)]);
}

#[test]
fn damage_that_a_search_meets_moves_the_folder_aside_and_what_comes_after_is_found() {
    let dir = TempDir::new().unwrap();
    let log = EmbeddedLog::open(EmbeddedOptions::new(dir.path())).unwrap();
    let index = Decisions::open(IndexOptions::new(dir.path().join("decisions"), 1), Arc::new(log));
    index.begins(0, &Reached::default());
    (1..=3_000).for_each(|seq| tell(&index, seq));
    assert_eq!(index.search(&Filter::default(), None, 500).unwrap().unwrap().decisions.len(), 500);
    index.store().unwrap().spoil(0, 1);
    assert!(index.find(0, 1_500).is_err(), "a block that is damaged is not believed");
    assert!(dir.path().join("decisions.broken-1").exists());
    assert_eq!(index.find(0, 1_500).unwrap(), None, "it is filled again from the ledger, which is empty here");
    (3_001..=3_010).for_each(|seq| tell(&index, seq));
    let page = index.search(&Filter::default(), None, 5).unwrap().unwrap();
    assert_eq!(page.decisions, (3_006..=3_010).rev().map(|seq| decision(seq).payload).collect::<Vec<_>>());
}

#[test]
fn a_time_is_found_without_a_look_at_every_block() {
    let dir = TempDir::new().unwrap();
    let log = EmbeddedLog::open(EmbeddedOptions::new(dir.path())).unwrap();
    let index = Decisions::open(IndexOptions::new(dir.path().join("decisions"), 1), Arc::new(log));
    index.begins(0, &Reached::default());
    (1..=9_000).step_by(3).for_each(|seq| tell(&index, seq));
    let store = index.store().unwrap();
    for to in [1, 2, 1_024, 1_025, 5_000, 8_191, 20_000] {
        let last = store.last_before(0, 100, to).unwrap();
        let page = index.search(&Filter { to: Some(to), ..Filter::default() }, None, 1).unwrap().unwrap();
        let newest = (1..=9_000).step_by(3).filter(|seq| *seq < to).max();
        let found = page.decisions.first().map(|json| serde_json::from_slice::<serde_json::Value>(json).unwrap()["at"].as_i64().unwrap());
        assert_eq!(found, newest, "before {to}, block {last}");
        assert!(newest.is_none_or(|newest| last >= block_of(newest.unsigned_abs())), "before {to}");
    }
}

/// The sequences that are given behind one, in pages, and how it ended.
fn onward(index: &Decisions, mut after: u64, up_to: u64, limit: usize) -> Result<Vec<u64>, Onward> {
    let mut seqs = Vec::new();
    while after < up_to {
        match index.after(0, after, up_to, limit).unwrap() {
            Onward::Found { decisions, reached } => {
                assert!(decisions.len() <= limit && reached > after, "it goes on");
                assert!(decisions.iter().all(|(seq, json)| *json == decision(*seq).payload));
                seqs.extend(decisions.into_iter().map(|(seq, _)| seq));
                after = reached;
            }
            ended @ (Onward::Filling | Onward::Dropped) => return Err(ended),
        }
    }
    Ok(seqs)
}

#[test]
fn onward_from_any_sequence_come_all_later_ones_out_of_memory_and_store_alike() {
    let dir = TempDir::new().unwrap();
    let log = EmbeddedLog::open(EmbeddedOptions::new(dir.path())).unwrap();
    let index = Decisions::open(IndexOptions::new(dir.path().join("decisions"), 1), Arc::new(log));
    index.begins(0, &Reached::default());
    (1..=5_000).step_by(7).for_each(|seq| tell(&index, seq));
    let last = (1..=5_000).step_by(7).max().unwrap();
    for after in [0, 1, 6, 7, 8, 1_023, 1_024, 1_025, 3_000, last - 1] {
        for (up_to, limit) in [(last, 3), (last, 10_000), (last - 500, 100)] {
            let wanted: Vec<u64> = (1..=5_000).step_by(7).filter(|seq| *seq > after && *seq <= up_to).collect();
            assert_eq!(onward(&index, after, up_to, limit), Ok(wanted), "{after} to {up_to}, {limit} at once");
        }
    }
    let beyond = index.after(0, last, last + 100, 10).unwrap();
    assert_eq!(beyond, Onward::Found { decisions: Vec::new(), reached: last }, "what is not indexed yet is not promised");
}

#[test]
fn what_was_dropped_for_newer_ones_is_told() {
    let dir = TempDir::new().unwrap();
    let log = EmbeddedLog::open(EmbeddedOptions::new(dir.path())).unwrap();
    let options = IndexOptions { decisions_max: 2_000, ..IndexOptions::new(dir.path().join("decisions"), 1) };
    let index = Decisions::open(options, Arc::new(log));
    index.begins(0, &Reached::default());
    (1..=5_000).for_each(|seq| tell(&index, seq));
    assert_eq!(onward(&index, 10, 5_000, 100), Err(Onward::Dropped));
    let first = index.store().unwrap().dropped_below(0).unwrap();
    assert!(first > 2_000, "{first}");
    assert_eq!(onward(&index, first - 1, 5_000, 100), Ok((first..=5_000).collect()), "the first that is kept");
    assert_eq!(onward(&index, first - 2, 5_000, 100), Err(Onward::Dropped));
}
