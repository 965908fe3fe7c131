//! The directory on the real embedded log: two services race, the process "dies" in between, and what is erased is nowhere.

#![expect(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ordergate::control::audit::record_once;
use ordergate::control::directory::{DirectoryService, Options, WriteError};
use ordergate::directory::{Entity, Kind};
use ordergate::embedded::{EmbeddedLog, EmbeddedOptions};
use ordergate::log::{Topic, Topics};
use tempfile::TempDir;
use tokio::runtime::Runtime;

const ENTITIES: usize = 10;
const THREADS: usize = 4;
/// Over both services, in each of four lives.
const WRITES: usize = 250;

/// Longer than any write, so that nobody misses its own record.
const OPTIONS: Options = Options {
    write_timeout: Duration::from_secs(10),
    settle: Duration::from_secs(11),
    writes_max: 1_024,
    entities_max: 1_000,
    bytes_max: 1 << 30,
};

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
}

fn wait_until(mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(60), "it takes too long");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What became of one writer's attempts: the entities that it made, and how often it was told of a conflict.
type Made = (Vec<Entity>, usize);

/// Writes to all entities in turn, each time on what it sees; some it erases.
fn race(service: &DirectoryService, writer: usize, writes: usize) -> Made {
    let runtime = runtime();
    let (mut made, mut conflicts) = (Vec::new(), 0);
    for number in 0..writes {
        let id = format!("e{}", (number * (writer + 3)) % ENTITIES);
        let expected = service.get(Kind::User, &id).map_or(0, |entity| entity.version);
        let body = (expected == 0 || number % 17 > 0).then(|| format!(r#"{{"writer":{writer},"number":{number}}}"#).into_bytes());
        match runtime.block_on(service.write(Kind::User, &id, expected, body, &format!("w{writer}"))) {
            Ok(entity) => made.push(entity),
            Err(WriteError::Conflict { current }) => {
                assert!(current > expected, "{id}: {current} is no conflict with {expected}");
                conflicts += 1;
            }
            Err(other) => panic!("{other}"),
        }
    }
    (made, conflicts)
}

/// A life of a process with two services on one log. It ends without a word to the services, as a kill would.
fn life(dir: &Path, life: usize) -> Vec<Made> {
    let log = EmbeddedLog::open(EmbeddedOptions::new(dir)).unwrap();
    let services: Vec<_> = (0..2).map(|_| DirectoryService::start_with(Arc::new(log.clone()), OPTIONS).unwrap()).collect();
    let made = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let service = &services[thread % 2];
                scope.spawn(move || race(service, 10 * life + thread, WRITES / THREADS))
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    wait_until(|| all(&services[0]) == all(&services[1]));
    log.close();
    made
}

fn all(service: &DirectoryService) -> Vec<Entity> {
    service.read(|directory| (0..ENTITIES).filter_map(|number| directory.last(Kind::User, &format!("e{number}")).cloned()).collect())
}

#[test]
fn of_writers_that_race_each_success_is_exactly_one_version_also_over_restarts() {
    let dir = TempDir::new().unwrap();
    let (mut won, mut conflicts) = (BTreeMap::<String, Vec<(u64, u64)>>::new(), 0);
    for number in 0..4 {
        for (made, lost) in life(dir.path(), number) {
            conflicts += lost;
            for entity in made {
                won.entry(entity.id.clone()).or_default().push((entity.version, entity.nonce));
            }
        }
    }
    let total: usize = won.values().map(Vec::len).sum();
    assert_eq!(total + conflicts, 4 * (WRITES / THREADS) * THREADS);
    assert!(conflicts > 20, "{conflicts} conflicts: the writers did not race");
    let log = EmbeddedLog::open(EmbeddedOptions::new(dir.path())).unwrap();
    let service = DirectoryService::start_with(Arc::new(log.clone()), Options { settle: Duration::ZERO, ..OPTIONS }).unwrap();
    for entity in all(&service) {
        let versions = won.get_mut(&entity.id).unwrap();
        versions.sort_unstable();
        let numbers: Vec<u64> = versions.iter().map(|(version, _)| *version).collect();
        assert_eq!(numbers, (1..=entity.version).collect::<Vec<_>>(), "{}: one success for each version, and none is lost", entity.id);
        assert_eq!(versions.last(), Some(&(entity.version, entity.nonce)), "{}: the last success counts", entity.id);
    }
    // What is left when all is tombstoned says the same to whoever reads it first.
    wait_until(|| service.read(|directory| directory.garbage()) == 0);
    let records = log.read(Topic::Directory, 0, 0, usize::MAX).unwrap();
    assert_eq!(records.iter().filter(|record| !record.payload.is_empty()).count(), ENTITIES);
    let fresh = DirectoryService::start_with(Arc::new(log), OPTIONS).unwrap();
    assert_eq!(all(&fresh), all(&service));
    println!("{total} successes, {conflicts} conflicts");
}

/// Where bytes stand in the files of a data directory.
fn files_with(dir: &Path, what: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let bytes = std::fs::read(entry.path()).unwrap();
        if bytes.windows(what.len()).any(|window| window == what.as_bytes()) {
            found.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    found
}

#[test]
fn after_compaction_no_byte_of_a_replaced_or_erased_body_is_in_the_files() {
    let dir = TempDir::new().unwrap();
    let log = EmbeddedLog::open(EmbeddedOptions::new(dir.path())).unwrap();
    let service = DirectoryService::start_with(Arc::new(log.clone()), Options { settle: Duration::ZERO, ..OPTIONS }).unwrap();
    let runtime = runtime();
    // A ciphertext as the vault would seal it: nothing of it may be guessed, nothing of it may stay.
    let sealed = |key: usize, version: usize| blake3::hash(format!("{key} {version}").as_bytes()).to_hex().to_string();
    let body = |key, version, size: usize| Some(format!(r#"{{"sealed":"{}"}}"#, sealed(key, version).repeat(size)).into_bytes());
    let write = |key: usize, expected: u64, body| {
        runtime.block_on(service.write(Kind::ApiKey, &format!("key{key}"), expected, body, "vault")).unwrap();
    };
    for key in 0..60 {
        write(key, 0, body(key, 0, 1 + key % 5 * 40));
    }
    for key in 0..60 {
        write(key, 1, body(key, 1, 1 + key % 7 * 20));
    }
    for key in 0..30 {
        write(key, 2, None);
    }
    wait_until(|| service.read(|directory| directory.garbage()) == 0);
    wait_until(|| std::fs::metadata(dir.path().join("log.sqlite-wal")).unwrap().len() == 0);
    let is_there = |key: usize, version: usize| !files_with(dir.path(), &sealed(key, version)).is_empty();
    let check = || {
        for key in 0..60 {
            assert!(!is_there(key, 0), "the replaced version of key{key} is in {:?}", files_with(dir.path(), &sealed(key, 0)));
            assert_eq!(is_there(key, 1), key >= 30, "key{key}");
        }
    };
    check();
    service.stop();
    log.close();
    check();
    // Nor does it come back with the next process.
    let log = EmbeddedLog::open(EmbeddedOptions::new(dir.path())).unwrap();
    let service = DirectoryService::start(Arc::new(log)).unwrap();
    assert_eq!(service.list(Kind::ApiKey).len(), 30);
    check();
}

/// Runs the command, and gives its exit code and what it said on both sides.
fn verify(dir: &Path, flags: &[&str]) -> (Option<i32>, String, String) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_ordergate"));
    let output = command.args(["audit", "verify", "--data-dir"]).arg(dir).args(flags).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn the_command_walks_along_the_trail_and_ends_with_1_at_the_first_broken_record() {
    let dir = TempDir::new().unwrap();
    let log = EmbeddedLog::open(EmbeddedOptions::new(dir.path())).unwrap();
    assert_eq!(verify(dir.path(), &[]).1, "ok: 0 records (0 repeated), 0 chains\n");
    for user in ["ann", "bob", "cid"] {
        let changes = serde_json::json!({"role": "admin"});
        record_once(Arc::new(log.clone()), "root", "user.added", user, changes, "ok").unwrap();
    }
    let (code, said, _) = verify(dir.path(), &[]);
    assert_eq!(code, Some(0), "also while a daemon has the log");
    assert!(said.starts_with("ok: 9 records (0 repeated), 3 chains\nhead ") && said.lines().count() == 4, "{said}");
    let heads: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("head ")).flat_map(|head| ["--head", head]).collect();
    assert_eq!(verify(dir.path(), &heads).0, Some(0));
    assert_eq!(verify(dir.path(), &["--head", "x"]).0, Some(2));
    log.close();

    let file = rusqlite::Connection::open(dir.path().join("log.sqlite")).unwrap();
    file.execute("UPDATE output SET payload = CAST(replace(CAST(payload AS TEXT), 'bob', 'eve') AS BLOB) WHERE topic = 10", []).unwrap();
    let (code, nothing, why) = verify(dir.path(), &[]);
    assert_eq!((code, nothing.as_str()), (Some(1), ""));
    assert!(why.contains("the record at offset 4 is not what a writer wrote: its head is not the hash of what it says"), "{why}");
    file.execute("UPDATE output SET payload = CAST(replace(CAST(payload AS TEXT), 'eve', 'bob') AS BLOB) WHERE topic = 10", []).unwrap();
    assert_eq!(verify(dir.path(), &heads).0, Some(0));
    file.execute("DELETE FROM output WHERE topic = 10 AND position = 8", []).unwrap();
    assert_eq!(verify(dir.path(), &[]).0, Some(0), "nothing in the log knows of its end");
    let (code, _, why) = verify(dir.path(), &heads);
    assert!(code == Some(1) && why.contains("which was given: its end was removed, or all of it written anew"), "{why}");
    file.execute("DELETE FROM output WHERE topic = 10 AND position = 5", []).unwrap();
    let (code, _, why) = verify(dir.path(), &[]);
    assert!(code == Some(1) && why.contains("which the record at offset 6 had seen"), "{why}");
}
