//! The service on the real embedded log, and on one that fails.

use std::sync::Mutex;

use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::*;
use crate::embedded::{EmbeddedLog, EmbeddedOptions};
use crate::log::{AppendDone, Extent, StoredRecord};

/// Tombstones at once, and answers soon.
const BRISK: Options =
    Options { write_timeout: Duration::from_millis(1_500), settle: Duration::ZERO, writes_max: 4, entities_max: 3, bytes_max: 1 << 20 };

struct Ground {
    dir: TempDir,
    log: EmbeddedLog,
    runtime: Runtime,
}

impl Ground {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = EmbeddedLog::open(EmbeddedOptions::new(dir.path())).unwrap();
        Self { dir, log, runtime: tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap() }
    }

    fn start(&self, options: Options) -> Arc<DirectoryService> {
        DirectoryService::start_with(Arc::new(self.log.clone()), options).unwrap()
    }

    fn write(&self, service: &DirectoryService, id: &str, expected: u64, body: Option<&str>) -> Result<Entity, WriteError> {
        let body = body.map(|body| body.as_bytes().to_vec());
        self.runtime.block_on(service.write(Kind::User, id, expected, body, "test"))
    }

    fn append(&self, key: &str, value: &str) -> u64 {
        let (told, answer) = std::sync::mpsc::channel();
        let (key, payload) = (Some(key.into()), value.into());
        let record = NewRecord { topic: Topic::Directory, partition: None, ts: None, key, payload };
        self.log.append(vec![record], Box::new(move |placed| told.send(placed).unwrap()));
        answer.recv().unwrap().unwrap()[0].offset
    }

    fn records(&self) -> Vec<StoredRecord> {
        self.log.read(Topic::Directory, 0, 0, 1_000).unwrap()
    }
}

#[track_caller]
fn wait_until(mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(10), "it takes too long");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_write_is_answered_when_it_can_be_read_and_the_next_one_needs_its_version() {
    let ground = Ground::new();
    let service = ground.start(Options { settle: Duration::from_secs(60), ..BRISK });
    let made = ground.write(&service, "bob", 0, Some(r#"{"role":"admin"}"#)).unwrap();
    assert_eq!((made.version, made.actor.as_str(), service.get(Kind::User, "bob")), (1, "test", Some(made.clone())));
    assert_eq!(ground.write(&service, "bob", 0, Some("{}")), Err(WriteError::Conflict { current: 1 }));
    assert_eq!(ground.write(&service, "bob", 1, Some("{}")).unwrap().version, 2);
    assert_eq!(ground.write(&service, "bob", 1, Some("{}")), Err(WriteError::Conflict { current: 2 }));
    assert_eq!(ground.write(&service, "bob", 7, Some("{}")), Err(WriteError::Conflict { current: 2 }), "a version that nobody made");
    assert_eq!(*service.changes().borrow(), 2);
    let erased = ground.write(&service, "bob", 2, None).unwrap();
    assert!(erased.is_erased() && service.get(Kind::User, "bob").is_none() && service.list(Kind::User).is_empty());
    assert_eq!(ground.write(&service, "bob", 3, None), Err(WriteError::Conflict { current: 3 }), "what is erased cannot be erased");
    assert_eq!(ground.write(&service, "eve", 0, None), Err(WriteError::Conflict { current: 0 }));
    assert_eq!(ground.write(&service, "bob", 0, Some("{}")).unwrap().version, 4, "an erased id goes on from its version");
    let again = ground.start(BRISK);
    assert_eq!((again.get(Kind::User, "bob"), again.age() < Duration::from_secs(5)), (service.get(Kind::User, "bob"), true));
}

#[test]
fn a_record_of_someone_else_is_seen_and_decides_conflicts() {
    let ground = Ground::new();
    let service = ground.start(Options { settle: Duration::from_secs(60), ..BRISK });
    let other = ground.start(Options { settle: Duration::from_secs(60), ..BRISK });
    ground.write(&other, "bob", 0, Some("1")).unwrap();
    // What it expects is not folded here yet, perhaps: it looks again before it judges.
    assert_eq!(ground.write(&service, "bob", 1, Some("2")).unwrap().version, 2);
    wait_until(|| other.get(Kind::User, "bob").unwrap().version == 2);
    let mut changes = service.changes();
    let next = *changes.borrow_and_update();
    ground.write(&other, "bob", 2, Some("3")).unwrap();
    let folded = ground.runtime.block_on(async { *changes.wait_for(|folded| *folded > next).await.unwrap() });
    assert_eq!((folded, service.get(Kind::User, "bob").unwrap().version), (3, 3));
}

#[test]
fn whatever_stands_in_the_topic_is_passed_and_what_is_of_no_use_is_tombstoned() {
    let ground = Ground::new();
    for (key, value) in [("", "x"), ("user:bob", "{}"), ("user:bob@1:00000000000000aa", "{"), ("robot:x@1:00000000000000aa", "")] {
        ground.append(key, value);
    }
    let service = ground.start(BRISK);
    assert_eq!((service.read(|it| it.next()), service.list(Kind::User).len()), (4, 0));
    let first = ground.write(&service, "bob", 0, Some(r#""first""#)).unwrap();
    // A loser, as another instance would have written it.
    let loser = Entity { nonce: 7, body: b"\"loser\"".as_slice().into(), ..first.clone() };
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    ground.append(&text(encode_key(&loser.key())), &text(encode_value(&loser)));
    let second = ground.write(&service, "bob", 1, Some(r#""second""#)).unwrap();
    wait_until(|| service.read(Directory::garbage) == 0);
    let left: Vec<_> = ground.records().into_iter().filter(|record| record.offset >= 4 && !record.payload.is_empty()).collect();
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(decode(left[0].key.as_deref(), &left[0].payload), Ok(Change::State(second.clone())));
    let odd = ground.records().iter().filter(|record| record.offset < 4).count();
    assert_eq!(odd, 4, "what is not understood is left alone: a newer version may");
    service.stop();
    ground.log.close();
    let log = EmbeddedLog::open(EmbeddedOptions::new(ground.dir.path())).unwrap();
    let service = DirectoryService::start(Arc::new(log)).unwrap();
    assert_eq!(service.get(Kind::User, "bob"), Some(second));
}

#[test]
fn tombstones_wait_until_every_writer_has_had_its_answer() {
    let ground = Ground::new();
    let service = ground.start(Options { settle: Duration::from_secs(3), ..BRISK });
    ground.write(&service, "bob", 0, Some("1")).unwrap();
    ground.write(&service, "bob", 1, Some("2")).unwrap();
    std::thread::sleep(Duration::from_millis(700));
    assert_eq!((ground.records().len(), service.read(Directory::garbage)), (2, 1));
    wait_until(|| service.read(Directory::garbage) == 0);
}

#[test]
fn nothing_is_written_that_nobody_could_read_back_or_that_is_too_much() {
    let ground = Ground::new();
    let service = ground.start(BRISK);
    for body in ["", "null", "{", "{} ", "{},\"x\":1"] {
        let refused = ground.write(&service, "bob", 0, Some(body)).unwrap_err();
        assert!(matches!(refused, WriteError::Log(LogError::Denied { .. })), "{body}: {refused}");
    }
    let huge = format!("\"{}\"", "x".repeat(crate::directory::BODY_BYTES_MAX));
    assert!(matches!(ground.write(&service, "bob", 0, Some(&huge)), Err(WriteError::Log(LogError::Denied { .. }))));
    assert_eq!(ground.records().len(), 0);
    for id in ["a", "b", "c"] {
        ground.write(&service, id, 0, Some("1")).unwrap();
    }
    assert_eq!(ground.write(&service, "d", 0, Some("1")), Err(LogError::Overloaded { waiting: 3, limit: 3 }.into()));
    ground.write(&service, "a", 1, Some("2")).unwrap();
    ground.write(&service, "b", 1, None).unwrap();
    ground.write(&service, "d", 0, Some("1")).unwrap();
}

#[test]
fn a_command_writes_without_a_daemon() {
    let ground = Ground::new();
    let topics: Arc<dyn Topics> = Arc::new(ground.log.clone());
    let made = write_once(topics.clone(), Kind::User, "bob", 0, Some(b"{}".to_vec()), "cli").unwrap();
    assert_eq!(write_once(topics.clone(), Kind::User, "bob", 0, Some(b"{}".to_vec()), "cli"), Err(WriteError::Conflict { current: 1 }));
    assert_eq!(once(topics, async |service| service.get(Kind::User, "bob")).unwrap(), Some(made));
}

/// The embedded log with a switch: reads and appends fail, or appends are never answered.
struct Faulty {
    log: EmbeddedLog,
    fault: Mutex<Fault>,
}

#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    Down,
    Mute,
}

impl Faulty {
    fn is(&self, fault: Fault) -> bool {
        *self.fault.lock().unwrap() == fault
    }

    fn asked(&self) -> Result<(), LogError> {
        if self.is(Fault::Down) { Err(LogError::Busy { detail: "down".into() }) } else { Ok(()) }
    }
}

impl Topics for Faulty {
    fn append(&self, records: Vec<NewRecord>, done: AppendDone) {
        match self.asked() {
            // It lands, and nobody is told.
            Ok(()) if self.is(Fault::Mute) => self.log.append(records, Box::new(move |_| std::mem::forget(done))),
            Ok(()) => self.log.append(records, done),
            Err(error) => done(Err(error)),
        }
    }
    fn read(&self, topic: Topic, partition: u32, from: u64, limit: usize) -> Result<Vec<StoredRecord>, LogError> {
        self.asked().and_then(|()| self.log.read(topic, partition, from, limit))
    }
    fn extents(&self) -> Result<Vec<Extent>, LogError> {
        self.asked().and_then(|()| self.log.extents())
    }
    fn changes(&self) -> watch::Receiver<u64> {
        self.log.changes()
    }
    fn refusing(&self) -> Option<LogError> {
        None
    }
}

#[test]
fn while_the_log_is_down_writes_are_refused_and_reads_go_on_and_say_how_old_they_are() {
    let ground = Ground::new();
    let log = Arc::new(Faulty { log: ground.log.clone(), fault: Mutex::new(Fault::None) });
    let service = DirectoryService::start_with(log.clone(), BRISK).unwrap();
    let made = ground.write(&service, "bob", 0, Some("1")).unwrap();
    *log.fault.lock().unwrap() = Fault::Down;
    let refused = ground.write(&service, "bob", 1, Some("2")).unwrap_err();
    assert_eq!(refused, WriteError::Log(LogError::Busy { detail: "down".into() }));
    wait_until(|| service.age() > Duration::from_millis(900));
    assert_eq!(service.get(Kind::User, "bob"), Some(made));
    *log.fault.lock().unwrap() = Fault::None;
    wait_until(|| service.age() < Duration::from_millis(300));
    assert_eq!(ground.write(&service, "bob", 1, Some("2")).unwrap().version, 2);
    assert!(DirectoryService::start(Arc::new(Faulty { log: ground.log.clone(), fault: Mutex::new(Fault::Down) })).is_err());
}

#[test]
fn a_write_whose_append_is_not_confirmed_is_no_success_and_may_count_all_the_same() {
    let ground = Ground::new();
    let log = Arc::new(Faulty { log: ground.log.clone(), fault: Mutex::new(Fault::Mute) });
    let service = DirectoryService::start_with(log.clone(), BRISK).unwrap();
    assert_eq!(ground.write(&service, "bob", 0, Some("1")), Err(WriteError::Timeout));
    wait_until(|| service.get(Kind::User, "bob").is_some());
    let all = ground.runtime.block_on(async {
        let write = |id| service.write(Kind::Token, id, 0, Some(b"1".to_vec()), "t");
        let (a, b, c, d, e) = tokio::join!(write("1"), write("2"), write("3"), write("4"), write("5"));
        [a, b, c, d, e]
    });
    assert_eq!(all[4], Err(LogError::Overloaded { waiting: 4, limit: 4 }.into()), "{all:?}");
    assert!(all[..4].iter().all(|told| *told == Err(WriteError::Timeout)), "{all:?}");
    *log.fault.lock().unwrap() = Fault::None;
    assert_eq!(ground.write(&service, "bob", 0, Some("1")), Err(WriteError::Conflict { current: 1 }));
}
