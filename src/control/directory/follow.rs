//! The follower: reads `gate.directory` to its end and on, tells writers what became of their records, and writes tombstones.
//!
//! Invariant: offsets have gaps, and records may be gone before they are read here; what is folded is right all the same
//! (`directory/fold.rs`), as long as tombstones are not missed. So whoever was away for long, or is far behind, reads all of it anew.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use metrics::{counter, gauge};
use tokio::sync::watch;

use crate::directory::{Change, Directory, Key};
use crate::log::{Extent, LogError, StoredRecord, Topic};
use crate::telemetry;
use crate::wire::directory::{DirectoryRefusal, decode};

use super::super::{unique, wall_ms};
use super::{Shared, locked, record, runtime};

const RECORDS_PER_READ: usize = 512;
/// It is looked at least so often.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// The log is asked so often where the directory begins and ends; in between it is only read on.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// While nobody waits for a write, this much is gathered before a look: the log tells of every commit, also of others' topics.
const GATHER: Duration = Duration::from_millis(10);
/// How long a log that cannot be read is left alone.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// A log keeps a tombstone for a day or 10,000 records at least; whoever was away for as long may have missed some.
pub(super) const AWAY_MAX: Duration = Duration::from_secs(60 * 60);
const BEHIND_MAX: u64 = 5_000;
/// So many tombstones are on their way at once, and are sent again when they did not come back in time.
const TOMBSTONES_MAX: usize = 256;
const TOMBSTONE_PATIENCE: Duration = Duration::from_secs(30);
/// More refusals than this are only counted.
const REFUSALS_TOLD_MAX: u64 = 20;

/// The one who reads.
pub(super) struct Follower {
    shared: Arc<Shared>,
    changes: watch::Receiver<u64>,
    /// Tombstones on their way.
    sent: BTreeMap<Key, Instant>,
    /// Instances tombstone at different times, so that mostly one of them does.
    settle_ms: i64,
    refused: u64,
    begun: bool,
    failing: bool,
    asked: Option<Instant>,
}

impl Follower {
    pub fn new(shared: Arc<Shared>) -> Result<Self, LogError> {
        let settle_ms = i64::try_from(shared.options.settle.as_millis()).unwrap_or(i64::MAX / 2);
        let apart_ms = i64::try_from(unique() % 1_000).unwrap_or(0) * settle_ms / 2_000;
        let changes = shared.topics.changes();
        // increase() does not see a counter's first event, so that each is there before it.
        for code in DirectoryRefusal::CODES {
            counter!(telemetry::DIRECTORY_REFUSED, "code" => code).absolute(0);
        }
        Ok(Self {
            shared,
            changes,
            sent: BTreeMap::new(),
            settle_ms: settle_ms + apart_ms,
            refused: 0,
            begun: false,
            failing: false,
            asked: None,
        })
    }

    /// Reads on until it is told to stop.
    pub fn run(mut self, mut stopped: watch::Receiver<bool>) {
        let runtime = match runtime() {
            Ok(runtime) => runtime,
            Err(error) => return tracing::error!(%error, "the directory is not followed"),
        };
        runtime.block_on(async {
            while !*stopped.borrow_and_update() {
                // Marked as seen before it is read: what is committed in between wakes us again.
                self.changes.mark_unchanged();
                self.look();
                let pause = if self.failing { RETRY_AFTER } else { LOOK_EVERY };
                tokio::select! {
                    _ = stopped.changed() => {}
                    () = self.changed(), if !self.failing => {}
                    () = tokio::time::sleep(pause) => {}
                }
            }
        });
    }

    /// Waits for a change.
    async fn changed(&mut self) {
        if self.changes.changed().await.is_err() {
            // The log is gone: the pause goes on alone.
            std::future::pending::<()>().await;
        }
        if locked(&self.shared.waiting).is_empty() {
            tokio::time::sleep(GATHER).await;
        }
    }

    fn look(&mut self) {
        match self.catch_up() {
            Ok(()) => {
                if std::mem::take(&mut self.failing) {
                    tracing::info!("the directory is read again");
                }
                self.tombstone();
            }
            Err(error) => {
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!(code = error.code(), %error, "the directory cannot be read; what is known of it stays, and grows old");
                }
            }
        }
        gauge!(telemetry::DIRECTORY_AGE).set(locked(&self.shared.read_at).elapsed().as_secs_f64());
    }

    /// Reads to the end.
    pub fn catch_up(&mut self) -> Result<(), LogError> {
        if self.asked.is_some_and(|at| at.elapsed() < ASK_EVERY) {
            while self.read_on()? {}
        } else {
            let Extent { first, next: end, .. } = self.shared.topics.extent(Topic::Directory, 0)?;
            let next = self.shared.read(Directory::next);
            let was_away = locked(&self.shared.read_at).elapsed() > AWAY_MAX || next < first || end < next || end - next > BEHIND_MAX;
            if !self.begun || was_away {
                self.read_anew(first)?;
            } else {
                while self.read_on()? {}
            }
            self.asked = Some(Instant::now());
        }
        *locked(&self.shared.read_at) = Instant::now();
        self.shared.looks.send_modify(|looks| *looks += 1);
        Ok(())
    }

    /// Folds what comes next; false at the end.
    fn read_on(&mut self) -> Result<bool, LogError> {
        let next = self.shared.read(Directory::next);
        let records = self.shared.topics.read(Topic::Directory, 0, next, RECORDS_PER_READ)?;
        if records.is_empty() {
            return Ok(false);
        }
        let changes = self.decoded(records);
        let mut told = Vec::new();
        {
            let mut directory = self.shared.directory.write().unwrap_or_else(PoisonError::into_inner);
            let mut waiting = locked(&self.shared.waiting);
            for Decoded { offset, ts, change } in changes {
                let Some(change) = change else {
                    directory.pass(offset);
                    continue;
                };
                let key = key_of(&change);
                let outcome = directory.apply(offset, ts, change);
                told.extend(waiting.remove(&key).map(|told| (told, outcome)));
            }
        }
        // Whoever is told may read: what it is told of is folded. They are told before others see how far it is.
        for (told, outcome) in told {
            let _ = told.send(outcome);
        }
        self.show();
        Ok(true)
    }

    /// Folds all that there is; until that is done, what was folded before stays.
    fn read_anew(&mut self, first: u64) -> Result<(), LogError> {
        if self.begun {
            tracing::warn!("the directory is read anew: it was not read for long, or its topic is another one");
        }
        let mut fresh = Directory::default();
        fresh.begin_at(first);
        loop {
            let records = self.shared.topics.read(Topic::Directory, 0, fresh.next(), RECORDS_PER_READ)?;
            if records.is_empty() {
                break;
            }
            for Decoded { offset, ts, change } in self.decoded(records) {
                match change {
                    Some(change) => drop(fresh.apply(offset, ts, change)),
                    None => fresh.pass(offset),
                }
            }
        }
        *self.shared.directory.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        self.begun = true;
        self.sent.clear();
        self.show();
        Ok(())
    }

    fn show(&self) {
        let (next, entities, garbage) = self.shared.read(|directory| (directory.next(), directory.len(), directory.garbage()));
        gauge!(telemetry::DIRECTORY_ENTITIES).set(entities as f64);
        gauge!(telemetry::DIRECTORY_GARBAGE).set(garbage as f64);
        self.shared.folded.send_if_modified(|folded| std::mem::replace(folded, next) != next);
    }

    fn decoded(&mut self, records: Vec<StoredRecord>) -> Vec<Decoded> {
        let decoded = |record: StoredRecord| {
            let StoredRecord { offset, ts, key, payload, tag: _ } = record;
            let change = decode(key.as_deref(), &payload).map_err(|refusal| self.refuse(offset, &refusal)).ok();
            if let Some(Change::Tombstone(key)) = &change {
                self.sent.remove(key);
            }
            Decoded { offset, ts, change }
        };
        records.into_iter().map(decoded).collect()
    }

    /// It stays in the log, and counts for nothing. Its content may be a secret, and is not told.
    fn refuse(&mut self, offset: u64, refusal: &DirectoryRefusal) {
        counter!(telemetry::DIRECTORY_REFUSED, "code" => refusal.code()).increment(1);
        self.refused += 1;
        if self.refused <= REFUSALS_TOLD_MAX {
            tracing::warn!(code = refusal.code(), offset, %refusal, "a record of the directory is ignored");
        }
    }

    /// Sends the tombstones that are due. One that does not arrive is due again.
    fn tombstone(&mut self) {
        self.sent.retain(|_, at| at.elapsed() < TOMBSTONE_PATIENCE);
        let room = TOMBSTONES_MAX.saturating_sub(self.sent.len());
        if room == 0 || self.shared.topics.refusing().is_some() {
            return;
        }
        let (sent, now) = (&self.sent, wall_ms());
        let due: Vec<Key> =
            self.shared.read(|directory| directory.due(now, self.settle_ms, &|key| sent.contains_key(key)).take(room).cloned().collect());
        for key in due {
            let done = |placed: Result<_, LogError>| {
                if let Err(error) = placed {
                    tracing::debug!(code = error.code(), %error, "a tombstone was not taken, and is sent again");
                }
            };
            self.shared.topics.append(vec![record(&key, Vec::new())], Box::new(done));
            self.sent.insert(key, Instant::now());
        }
    }
}

/// A record with what it says; `None` when it says nothing.
struct Decoded {
    offset: u64,
    ts: i64,
    change: Option<Change>,
}

fn key_of(change: &Change) -> Key {
    match change {
        Change::State(entity) => entity.key(),
        Change::Tombstone(key) => key.clone(),
    }
}
