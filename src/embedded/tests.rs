//! The embedded log on its own: order, durability, refusals.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::*;
use crate::domain::{InputTopic, Source};
use crate::log::{LogEvent, OutputRecord, OutputTag, OutputTopic, Placed, Position, ShardLog, ShardTopic};

const INTENTS: Topic = Topic::Input(InputTopic::Intents);
const PRICES: Topic = Topic::Input(InputTopic::Prices);
const LONG: Duration = Duration::from_secs(30);

fn open(dir: &tempfile::TempDir) -> EmbeddedLog {
    EmbeddedLog::open(EmbeddedOptions::new(dir.path())).unwrap()
}

fn record(topic: Topic, payload: &str) -> NewRecord {
    NewRecord { topic, partition: None, ts: Some(77), key: Some(b"K".to_vec()), payload: payload.into() }
}

fn append(log: &EmbeddedLog, records: Vec<NewRecord>) -> Result<Vec<Placed>, LogError> {
    let (told, answer) = mpsc::channel();
    log.append(records, Box::new(move |result| told.send(result).unwrap()));
    answer.recv_timeout(LONG).unwrap()
}

fn poll_all(shard: &mut EmbeddedShardLog, count: usize) -> Vec<LogEvent> {
    let (mut events, deadline) = (Vec::new(), Instant::now() + LONG);
    // A poll may come back with nothing: somebody woke it for what it had given already.
    while events.len() < count {
        assert!(Instant::now() < deadline, "nothing more came");
        shard.poll(&mut events, 1000, LONG).unwrap();
    }
    events
}

fn payloads(events: &[LogEvent]) -> Vec<String> {
    let text = |event: &LogEvent| match event {
        LogEvent::Input(record) => Some(String::from_utf8(record.payload.clone()).unwrap()),
        LogEvent::Appended { .. } | LogEvent::Published { .. } | LogEvent::Failed { .. } => None,
    };
    events.iter().filter_map(text).collect()
}

#[test]
fn inputs_keep_the_order_of_their_appends_across_topics_and_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(&dir);
    let placed = append(&log, vec![record(INTENTS, "a"), record(PRICES, "b"), record(INTENTS, "c")]).unwrap();
    assert_eq!(placed.iter().map(|placed| placed.offset).collect::<Vec<_>>(), [0, 0, 1]);
    append(&log, vec![record(PRICES, "d")]).unwrap();
    log.close();
    let log = open(&dir);
    let mut shard = log.shard_log();
    shard.seek(&[]).unwrap();
    assert_eq!(payloads(&poll_all(&mut shard, 4)), ["a", "b", "c", "d"]);
    shard
        .seek(&[
            Position { topic: InputTopic::Intents, partition: 0, next: 1 },
            Position { topic: InputTopic::Prices, partition: 0, next: 1 },
        ])
        .unwrap();
    append(&log, vec![record(INTENTS, "e")]).unwrap();
    assert_eq!(payloads(&poll_all(&mut shard, 3)), ["c", "d", "e"]);
}

#[test]
fn a_second_opening_of_the_directory_is_refused_until_the_first_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(&dir);
    let refused = EmbeddedLog::open(EmbeddedOptions::new(dir.path())).err().unwrap();
    assert_eq!(refused.code(), "LOG_LOCKED");
    log.close();
    open(&dir).close();
}

#[test]
fn frames_and_outputs_are_acknowledged_in_order_with_their_own_offsets() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(&dir);
    let mut shard = log.shard_log();
    let tag = OutputTag { shard: 0, seq: 4, index: 1 };
    let source = Source { topic: InputTopic::Intents, partition: 0, offset: 3 };
    let output = OutputRecord { topic: OutputTopic::Commands, tag, source, key: None, payload: b"x".to_vec() };
    shard.append(7, b"one".to_vec()).unwrap();
    shard.publish(8, output).unwrap();
    shard.append(9, b"two".to_vec()).unwrap();
    let events = poll_all(&mut shard, 3);
    assert!(matches!(
        events[..],
        [
            LogEvent::Appended { ticket: 7, offset: 0 },
            LogEvent::Published { ticket: 8, topic: OutputTopic::Commands, offset: 0 },
            LogEvent::Appended { ticket: 9, offset: 1 }
        ]
    ));
    let stored = shard.read(ShardTopic::Output(OutputTopic::Commands), 0, 10).unwrap();
    assert_eq!((stored[0].tag, stored[0].payload.as_slice()), (Some(tag), b"x".as_slice()));
    assert_eq!(shard.end(ShardTopic::Ledger).unwrap(), 2);
    assert_eq!(shard.read(ShardTopic::Ledger, 1, 10).unwrap()[0].payload, b"two");
    assert_eq!(shard.read(ShardTopic::Ledger, 3, 10).unwrap_err().code(), "LOG_OUT_OF_RANGE");
}

#[test]
fn the_producers_time_counts_only_where_it_is_configured() {
    for (timestamps, own) in [(Timestamps::Producer, true), (Timestamps::LogAppendTime, false)] {
        let dir = tempfile::tempdir().unwrap();
        let log = EmbeddedLog::open(EmbeddedOptions { timestamps, ..EmbeddedOptions::new(dir.path()) }).unwrap();
        append(&log, vec![record(INTENTS, "a")]).unwrap();
        assert_eq!(log.read(INTENTS, 0, 0, 1).unwrap()[0].ts == 77, own);
    }
}

#[test]
fn a_file_that_someone_else_holds_is_busy_and_takes_records_again_afterwards() {
    let dir = tempfile::tempdir().unwrap();
    let log = EmbeddedLog::open(EmbeddedOptions { busy_timeout_ms: 20, ..EmbeddedOptions::new(dir.path()) }).unwrap();
    let mut shard = log.shard_log();
    let other = Connection::open(dir.path().join("log.sqlite")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert_eq!(append(&log, vec![record(INTENTS, "lost")]).unwrap_err().code(), "LOG_BUSY");
    assert_eq!(log.refusing().unwrap().code(), "LOG_BUSY");
    shard.append(1, b"frame".to_vec()).unwrap();
    assert!(matches!(poll_all(&mut shard, 1)[..], [LogEvent::Failed { ticket: 1, .. }]));
    other.execute_batch("ROLLBACK").unwrap();
    shard.append(2, b"after".to_vec()).unwrap();
    assert!(matches!(poll_all(&mut shard, 1)[..], [LogEvent::Failed { ticket: 2, .. }]), "what follows a failure may not land");
    shard.abandon();
    shard.append(3, b"again".to_vec()).unwrap();
    assert!(matches!(poll_all(&mut shard, 1)[..], [LogEvent::Appended { ticket: 3, offset: 0 }]));
    assert_eq!(append(&log, vec![record(INTENTS, "kept")]).unwrap()[0].offset, 0);
}

#[test]
fn a_file_of_a_newer_version_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    open(&dir).close();
    Connection::open(dir.path().join("log.sqlite")).unwrap().pragma_update(None, "user_version", 3).unwrap();
    let refused = EmbeddedLog::open(EmbeddedOptions::new(dir.path())).err().unwrap();
    assert_eq!(refused, LogError::NewerVersion { found: 3, known: 2 });
}

#[test]
fn a_damaged_file_is_corrupt_and_nothing_is_written_to_it() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("log.sqlite"), vec![b'x'; 8192]).unwrap();
    let refused = EmbeddedLog::open(EmbeddedOptions::new(dir.path())).err().unwrap();
    assert_eq!(refused.code(), "LOG_CORRUPT");
    assert_eq!(std::fs::read(dir.path().join("log.sqlite")).unwrap(), vec![b'x'; 8192]);
}

#[test]
fn a_batch_with_a_record_that_is_too_large_is_refused_whole() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(&dir);
    let large = NewRecord { payload: vec![b'x'; PAYLOAD_BYTES_KEPT + 1], ..record(INTENTS, "") };
    assert_eq!(append(&log, vec![record(INTENTS, "a"), large]).unwrap_err().code(), "LOG_TOO_LARGE");
    assert_eq!(log.end_of(INTENTS), 0);
}

#[test]
fn a_reader_sees_what_a_daemon_commits_and_needs_no_lock() {
    let dir = tempfile::tempdir().unwrap();
    assert!(EmbeddedReader::open(dir.path()).is_err());
    let log = open(&dir);
    let reader = EmbeddedReader::open(dir.path()).unwrap();
    assert_eq!(reader.end(INTENTS).unwrap(), 0);
    append(&log, vec![record(INTENTS, "a")]).unwrap();
    assert_eq!(reader.read(INTENTS, 0, 9).unwrap()[0].payload, b"a");
    log.close();
    assert_eq!(EmbeddedReader::open(dir.path()).unwrap().end(INTENTS).unwrap(), 1);
}

fn of_directory(key: &str, payload: &[u8]) -> NewRecord {
    NewRecord { topic: Topic::Directory, partition: None, ts: None, key: Some(key.into()), payload: payload.to_vec() }
}

fn offsets(log: &EmbeddedLog) -> Vec<u64> {
    Topics::read(log, Topic::Directory, 0, 0, 1_000).unwrap().iter().map(|record| record.offset).collect()
}

#[test]
fn a_tombstone_takes_what_has_its_key_out_and_offsets_go_on_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(&dir);
    append(&log, vec![of_directory("a", b"1"), of_directory("b", b"2"), of_directory("a", b"3"), of_directory("a", b"")]).unwrap();
    assert_eq!(offsets(&log), [1, 3], "the tombstone itself stays for those who have not seen it");
    append(&log, vec![record(Topic::Audit, "kept"), NewRecord { payload: Vec::new(), ..record(Topic::Audit, "") }]).unwrap();
    assert_eq!(Topics::read(&log, Topic::Audit, 0, 0, 9).unwrap().len(), 2, "no other topic is compacted");
    log.close();
    let log = open(&dir);
    assert_eq!((offsets(&log), log.end_of(Topic::Directory)), (vec![1, 3], 4));
    assert_eq!(append(&log, vec![of_directory("b", b"")]).unwrap()[0].offset, 4);
    assert_eq!(append(&log, vec![of_directory("b", b"")]).unwrap()[0].offset, 5);
    log.close();
    let log = open(&dir);
    assert_eq!((offsets(&log), log.end_of(Topic::Directory)), (vec![3, 5], 6));
    assert_eq!(Topics::read(&log, Topic::Directory, 0, 4, 9).unwrap()[0].offset, 5, "a read may begin in a gap");
    assert_eq!(log.extent(Topic::Directory, 0).unwrap().next, 6);
}

#[test]
fn a_file_of_format_1_is_read_and_gets_its_directory_when_it_is_opened_for_writing() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(&dir);
    append(&log, vec![record(INTENTS, "a")]).unwrap();
    log.close();
    Connection::open(dir.path().join("log.sqlite")).unwrap().execute_batch("DROP TABLE directory; PRAGMA user_version = 1").unwrap();
    let reader = EmbeddedReader::open(dir.path()).unwrap();
    assert_eq!((reader.end(Topic::Directory).unwrap(), reader.read(Topic::Directory, 0, 9).unwrap().len()), (0, 0));
    assert_eq!(reader.end(INTENTS).unwrap(), 1);
    drop(reader);
    let log = open(&dir);
    append(&log, vec![of_directory("a", b"1")]).unwrap();
    assert_eq!(EmbeddedReader::open(dir.path()).unwrap().end(Topic::Directory).unwrap(), 1);
    assert_eq!(Topics::read(&log, INTENTS, 0, 0, 9).unwrap()[0].payload, b"a");
}

/// All bytes of the files of a log.
fn all_bytes(dir: &tempfile::TempDir) -> Vec<u8> {
    std::fs::read_dir(dir.path()).unwrap().flat_map(|entry| std::fs::read(entry.unwrap().path()).unwrap()).collect()
}

#[test]
fn what_a_tombstone_took_is_in_no_byte_of_the_files_once_nothing_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(&dir);
    let secret = |number: u64| blake3::hash(&number.to_le_bytes()).to_hex().to_string();
    let (mut random, mut living, mut erased) = (7_u64, Vec::new(), Vec::new());
    let mut below = |bound: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from(random >> 33).unwrap() % bound
    };
    for batch in 0..50_u64 {
        let mut records = vec![record(Topic::Ledger, "between")];
        for number in 30 * batch..30 * (batch + 1) {
            // Some fit many to a page, some fill several.
            let payload = secret(number).repeat([2, 3, 9, 30, 200][below(5)]);
            records.push(of_directory(&format!("k{number}"), payload.as_bytes()));
            living.push(number);
            if below(3) > 0 {
                let number = living.swap_remove(below(living.len()));
                records.push(of_directory(&format!("k{number}"), b""));
                erased.push(number);
            }
        }
        append(&log, records).unwrap();
    }
    let begun = std::time::Instant::now();
    while std::fs::metadata(dir.path().join("log.sqlite-wal")).unwrap().len() > 0 {
        assert!(begun.elapsed() < LONG, "the write-ahead log is not emptied");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert!(erased.len() > 800 && living.len() > 400);
    let found = |numbers: &[u64]| -> usize {
        let bytes = all_bytes(&dir);
        numbers.iter().filter(|number| memchr::memmem::find(&bytes, secret(**number).as_bytes()).is_some()).count()
    };
    assert_eq!((found(&erased), found(&living)), (0, living.len()));
    log.close();
    assert_eq!((found(&erased), found(&living)), (0, living.len()));
}
