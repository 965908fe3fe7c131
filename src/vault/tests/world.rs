//! A log in memory that can die at any write, and vaults over it.

use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use secrecy::ExposeSecret;
use tokio::sync::watch;

use crate::control::audit::Audit;
use crate::control::directory::{self, DirectoryService};
use crate::log::{AppendDone, Extent, LogError, NewRecord, Placed, StoredRecord, Topic, Topics};
use crate::vault::kek::{Cost, MasterKey};
use crate::vault::{Broker, By, Environment, Key, Masters, NewKey, Options, Secrets, Vault};

pub const NOW: i64 = 1_790_000_000_000;
pub const BY: By<'static> = By { actor: "alice", address: "127.0.0.1" };
/// As little as Argon2 takes: what it costs is no concern of these tests.
pub const CHEAP: Cost = Cost { memory_kib: 8, passes: 1, lanes: 1 };

/// How a log dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// The record never landed.
    Before,
    /// It landed, and nobody was told.
    After,
}

#[derive(Default)]
struct Inside {
    records: Vec<(Topic, StoredRecord)>,
    /// How many states of the directory are still taken, and how the log dies then.
    dies: Option<(usize, Death)>,
    dead: bool,
}

/// A log in memory.
pub struct MemoryLog {
    inside: Mutex<Inside>,
    commits: watch::Sender<u64>,
}

const TOPICS: [Topic; 2] = [Topic::Directory, Topic::Audit];

impl MemoryLog {
    pub fn new() -> Arc<Self> {
        Self::holding(Vec::new())
    }

    /// A log that holds what another one held.
    pub fn holding(records: Vec<(Topic, StoredRecord)>) -> Arc<Self> {
        Arc::new(Self { inside: Mutex::new(Inside { records, ..Inside::default() }), commits: watch::channel(0).0 })
    }

    pub fn records(&self) -> Vec<(Topic, StoredRecord)> {
        self.inside.lock().unwrap().records.clone()
    }

    /// The records of the directory.
    pub fn directory(&self) -> Vec<StoredRecord> {
        self.records().into_iter().filter(|(topic, _)| *topic == Topic::Directory).map(|(_, record)| record).collect()
    }

    /// The directory's states: what is no tombstone.
    pub fn states(&self) -> usize {
        self.directory().iter().filter(|record| !record.payload.is_empty()).count()
    }

    /// What compaction leaves of the directory: the last value of each key, and no tombstones.
    pub fn compacted(&self) -> Vec<StoredRecord> {
        let all = self.directory();
        let is_last = |at: usize| all[at + 1..].iter().all(|later| later.key != all[at].key);
        all.iter().enumerate().filter(|(at, record)| !record.payload.is_empty() && is_last(*at)).map(|(_, record)| record.clone()).collect()
    }

    /// Dies at the directory's state after `states` more.
    pub fn die_after(&self, states: usize, death: Death) {
        self.inside.lock().unwrap().dies = Some((states, death));
    }

    /// Dies at once.
    pub fn die(&self) {
        self.inside.lock().unwrap().dead = true;
    }

    fn take(inside: &mut Inside, record: &NewRecord) -> Option<Placed> {
        if inside.dead {
            return None;
        }
        let mut lands = true;
        if let Some((left, death)) = &mut inside.dies
            && record.topic == Topic::Directory
            && !record.payload.is_empty()
        {
            inside.dead = *left == 0;
            lands = *left > 0 || *death == Death::After;
            *left = left.saturating_sub(1);
        }
        let offset = inside.records.iter().filter(|(topic, _)| *topic == record.topic).map(|(_, last)| last.offset + 1).max().unwrap_or(0);
        if lands {
            let ts = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64;
            let stored = StoredRecord { offset, ts, key: record.key.clone(), payload: record.payload.clone(), tag: None };
            inside.records.push((record.topic, stored));
        }
        (!inside.dead).then_some(Placed { topic: record.topic, partition: 0, offset })
    }
}

impl Topics for MemoryLog {
    fn append(&self, records: Vec<NewRecord>, done: AppendDone) {
        let placed: Option<Vec<Placed>> = {
            let mut inside = self.inside.lock().unwrap();
            records.iter().map(|record| Self::take(&mut inside, record)).collect()
        };
        self.commits.send_modify(|commits| *commits += 1);
        done(placed.ok_or(LogError::Closed));
    }

    fn read(&self, topic: Topic, _: u32, from: u64, limit: usize) -> Result<Vec<StoredRecord>, LogError> {
        let inside = self.inside.lock().unwrap();
        let of_topic = inside.records.iter().filter(|(of, record)| *of == topic && record.offset >= from);
        Ok(of_topic.take(limit).map(|(_, record)| record.clone()).collect())
    }

    fn extents(&self) -> Result<Vec<Extent>, LogError> {
        let inside = self.inside.lock().unwrap();
        let next = |topic| inside.records.iter().filter(|(of, _)| *of == topic).map(|(_, record)| record.offset + 1).max().unwrap_or(0);
        Ok(TOPICS.iter().map(|topic| Extent { topic: *topic, partition: 0, first: 0, next: next(*topic) }).collect())
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.commits.subscribe()
    }

    fn refusing(&self) -> Option<LogError> {
        None
    }
}

/// The text of the master key number `n`.
pub fn master_text(n: u8) -> String {
    let bytes: Vec<u8> = (0..32_u8).map(|i| i.wrapping_mul(37).wrapping_add(n)).collect();
    BASE64_STANDARD.encode(bytes)
}

pub fn master(n: u8) -> MasterKey {
    MasterKey::parse(&master_text(n)).unwrap()
}

/// The master key number `n` alone.
pub fn masters(n: u8) -> Masters {
    Masters::new(master(n), None)
}

pub fn options() -> Options {
    Options { cost: CHEAP, reveals_per_minute: 1_000_000, verifications_per_minute: 1_000_000, ..Options::default() }
}

/// A vault over a log.
pub fn vault(log: &Arc<MemoryLog>, masters: Masters) -> Vault {
    vault_with(log, masters, options())
}

pub fn vault_with(log: &Arc<MemoryLog>, masters: Masters, options: Options) -> Vault {
    let timing = directory::Options { write_timeout: std::time::Duration::from_secs(5), ..directory::Options::default() };
    let directory = DirectoryService::start_with(log.clone(), timing).unwrap();
    Vault::new(directory, Audit::start(log.clone()).unwrap(), masters, options).unwrap()
}

/// Lets go of a vault whose log is dead. It still tries to write its last words, which nobody waits for.
pub fn killed(vault: Vault) {
    std::thread::spawn(move || drop(vault));
}

pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// The secrets number `n`.
pub fn secrets(n: usize) -> Secrets {
    let passphrase = n.is_multiple_of(3).then(|| format!("passphrase {n}").into());
    Secrets { key: format!("PKABCDEFGH{n:010}").into(), secret: format!("secret-{n}-{}", "x".repeat(n % 50)).into(), passphrase }
}

pub fn new_key(owner: &str, n: usize) -> NewKey {
    NewKey {
        owner: owner.to_owned(),
        broker: Broker::ALL[n % Broker::ALL.len()],
        environment: Environment::ALL[n % 2],
        name: format!("key {n}"),
        expires_at: None,
        secrets: secrets(n),
        idempotency_key: None,
    }
}

/// A vault with so many keys; the ids are in the order of their numbers.
pub async fn filled(vault: &Vault, count: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for n in 0..count {
        ids.push(vault.create(BY, new_key("alice", n), NOW).await.unwrap().id);
    }
    ids
}

/// Whether every key reveals what was put in.
pub async fn all_readable(vault: &Vault, ids: &[String]) {
    for (n, id) in ids.iter().enumerate() {
        let Key { stored, .. } = vault.get(id, NOW).unwrap();
        let opened = vault.open_secrets(id, &stored).await.unwrap_or_else(|error| panic!("{id}: {error}"));
        assert!(opened.same_as(&secrets(n)), "{id} holds something else");
        assert_eq!(opened.key.expose_secret(), secrets(n).key.expose_secret());
    }
}
