//! Replicas of the shards: each ledger folded by the same gate, for everyone who wants to look.
//!
//! Invariant: a replica reads the log like any other reader. It takes no lock that a deciding shard
//! takes and asks it nothing, so that no question slows a decision down. What it derives otherwise than
//! it was recorded is an alarm, and from then on that replica answers nothing. Deliberately absent: any
//! way to change a book.

mod follower;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::timeout_at;

use crate::domain::{AccountId, InputTopic, Millis, OwnerId, Source};
use crate::engine::{Owner, Replica, SnapshotStore};
use crate::gate::Gate;
use crate::log::{OutputRecord, Position, Topics};

use follower::Follower;

/// Refusals of operators' records that are kept for those who wrote them.
const REFUSALS_KEPT: usize = 4_096;

/// How long a question waits for a replica that has only just begun.
const START_PATIENCE: Duration = Duration::from_secs(2);

/// How replicas are kept.
#[derive(Clone, Debug)]
pub struct ReplicaOptions {
    /// A snapshot at least after so many records.
    pub snapshot_records: u64,
    /// How long it waits after the log failed before it reads again.
    pub retry_after: Duration,
}

impl Default for ReplicaOptions {
    fn default() -> Self {
        Self { snapshot_records: 500_000, retry_after: Duration::from_millis(500) }
    }
}

/// Someone who is told what each entry of a ledger caused, in order, on the follower's thread.
pub trait Listener: Send + Sync {
    /// The follower of a shard begins behind this place.
    fn begins(&self, shard: u32, at: &Reached) {
        let _ = (shard, at);
    }

    /// An entry was folded, and caused these outputs.
    fn folded(&self, shard: u32, reached: &Reached, outputs: &[OutputRecord]);

    /// The same entry changed these accounts (places in [`Gate::accounts`]), ascending.
    fn touched(&self, shard: u32, accounts: &[u32]) {
        let _ = (shard, accounts);
    }

    /// The follower has read everything, or ends.
    fn idle(&self, shard: u32) {
        let _ = shard;
    }
}

/// How far a replica has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reached {
    /// The records applied.
    pub seq: u64,
    /// The term of the last claim that counts.
    pub term: u64,
    /// Who made that claim, if that is known.
    pub owner: Option<Arc<Owner>>,
    /// The time of the last record; 0 before the first.
    pub at: Millis,
    /// The gate's clock at the last frame.
    pub received: Millis,
    /// The next ledger offset to read.
    pub ledger_next: u64,
    /// The chain's hash.
    pub head: [u8; 32],
    /// Ledger entries that were read and did not count.
    pub void_entries: u64,
    /// The next offset of each input partition.
    pub inputs: Arc<[Position]>,
    /// It has read to the end of the ledger at least once.
    pub current: bool,
    /// Why it answers nothing any more.
    pub broken: Option<Arc<str>>,
}

impl Reached {
    /// Whether the record at a place is applied.
    #[must_use]
    pub fn has_passed(&self, source: Source) -> bool {
        let of = |position: &&Position| (position.topic, position.partition) == (source.topic, source.partition);
        self.inputs.iter().find(of).is_some_and(|position| position.next > source.offset)
    }
}

/// Why a replica does not answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplicaError {
    /// There are fewer shards.
    #[error("there is no shard {shard}")]
    NoSuchShard {
        /// The shard.
        shard: u32,
    },
    /// It has not read its ledger to the end yet.
    #[error("the replica of shard {shard} folds its ledger (seq {seq})")]
    Starting {
        /// The shard.
        shard: u32,
        /// How far it is.
        seq: u64,
    },
    /// It derived something else than what was recorded, or its ledger cannot be read.
    #[error("the replica of shard {shard} is broken: {why}")]
    Broken {
        /// The shard.
        shard: u32,
        /// What happened.
        why: Arc<str>,
    },
    /// It has not come that far in time.
    #[error("the replica of shard {shard} has not come that far in time")]
    Late {
        /// The shard.
        shard: u32,
    },
    /// The process stops.
    #[error("the replicas have stopped")]
    Stopped,
}

/// Why an operator's record was not taken, as its dead letter says.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
pub struct Refusal {
    /// The code.
    #[serde(rename = "reason")]
    pub code: String,
    /// The field at fault.
    #[serde(default)]
    pub field: Option<String>,
    /// What is wrong.
    pub message: String,
}

/// What the follower's thread and everyone else both see of one shard.
struct Shard {
    shard: u32,
    replica: RwLock<Replica>,
    reached: watch::Sender<Reached>,
    refusals: Mutex<VecDeque<(Source, Refusal)>>,
    /// When it last knew that it had read everything.
    seen_all: Mutex<Option<Instant>>,
    /// Whose each account is: under a lock of its own, so that it may be asked while the gate is looked at.
    owners: RwLock<HashMap<AccountId, OwnerId>>,
}

/// The replicas of all shards.
pub struct Replicas {
    shards: Vec<Arc<Shard>>,
    stop: Arc<AtomicBool>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Replicas {
    /// Starts a follower for each store: one per shard, in order. They begin at the newest snapshot that the
    /// ledger bears out.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn start(
        topics: &Arc<dyn Topics>,
        stores: Vec<Box<dyn SnapshotStore>>,
        listeners: Vec<Arc<dyn Listener>>,
        options: &ReplicaOptions,
    ) -> io::Result<Arc<Self>> {
        let stop = Arc::new(AtomicBool::new(false));
        let listeners: Arc<[Arc<dyn Listener>]> = listeners.into();
        let (mut shards, mut threads) = (Vec::new(), Vec::new());
        for (number, store) in (0..).zip(stores) {
            let shard = Arc::new(Shard {
                shard: number,
                replica: RwLock::new(Replica::new(number)),
                reached: watch::channel(Reached::default()).0,
                refusals: Mutex::new(VecDeque::new()),
                seen_all: Mutex::new(None),
                owners: RwLock::default(),
            });
            let follower = Follower::new(shard.clone(), topics.clone(), store, listeners.clone(), options.clone(), stop.clone());
            threads.push(std::thread::Builder::new().name(format!("replica-{number}")).spawn(move || follower.run())?);
            shards.push(shard);
        }
        Ok(Arc::new(Self { shards, stop, threads: Mutex::new(threads) }))
    }

    /// The number of shards.
    #[must_use]
    pub fn count(&self) -> u32 {
        u32::try_from(self.shards.len()).unwrap_or(u32::MAX)
    }

    fn shard(&self, shard: u32) -> Result<&Arc<Shard>, ReplicaError> {
        self.shards.get(shard as usize).ok_or(ReplicaError::NoSuchShard { shard })
    }

    /// Looks at a shard's gate between two entries. The follower waits meanwhile, so look briefly.
    ///
    /// # Errors
    /// See [`ReplicaError`].
    pub fn read<R>(&self, shard: u32, question: impl FnOnce(&Gate) -> R) -> Result<R, ReplicaError> {
        self.shard(shard)?.read(question)
    }

    /// The same from a task: on a thread that may wait.
    ///
    /// # Errors
    /// See [`ReplicaError`].
    pub async fn ask<R: Send + 'static>(&self, shard: u32, question: impl FnOnce(&Gate) -> R + Send + 'static) -> Result<R, ReplicaError> {
        let shard = self.shard(shard)?.clone();
        if !shard.reached.borrow().current {
            // At the start: a book that is half folded is nobody's, and most ledgers are folded within a moment.
            let began = shard.wait(|reached| reached.current, tokio::time::Instant::now() + START_PATIENCE).await;
            if let Err(error @ (ReplicaError::Broken { .. } | ReplicaError::Stopped)) = began {
                return Err(error);
            }
        }
        tokio::task::spawn_blocking(move || shard.read(question)).await.map_err(|_| ReplicaError::Stopped)?
    }

    /// Whose an account is, if any shard has opened it. It may be asked within [`Replicas::read`].
    #[must_use]
    pub fn owner(&self, account: &AccountId) -> Option<OwnerId> {
        let of = |shard: &Arc<Shard>| shard.owners.read().unwrap_or_else(PoisonError::into_inner).get(account).copied();
        self.shards.iter().find_map(of)
    }

    /// How far each has come, by shard.
    #[must_use]
    pub fn position(&self) -> Vec<Reached> {
        self.shards.iter().map(|shard| shard.reached.borrow().clone()).collect()
    }

    /// Follows how far one has come.
    ///
    /// # Errors
    /// There is no such shard.
    pub fn watch(&self, shard: u32) -> Result<watch::Receiver<Reached>, ReplicaError> {
        Ok(self.shard(shard)?.reached.subscribe())
    }

    /// When the replica that is furthest behind last knew that it had read everything. `None` when one never has.
    #[must_use]
    pub fn seen_all(&self) -> Option<Instant> {
        self.shards.iter().try_fold(Instant::now(), |oldest, shard| Some(oldest.min((*locked(&shard.seen_all))?)))
    }

    /// How old the oldest answer may be: the time since then.
    #[must_use]
    pub fn age(&self) -> Option<Duration> {
        self.seen_all().map(|seen| seen.elapsed())
    }

    /// Waits until a shard has applied so many records.
    ///
    /// # Errors
    /// See [`ReplicaError`].
    pub async fn wait_for_seq(&self, shard: u32, seq: u64, patience: Duration) -> Result<(), ReplicaError> {
        self.shard(shard)?.wait(|reached| reached.seq >= seq, tokio::time::Instant::now() + patience).await
    }

    /// Waits until a shard's ledger is folded up to an offset.
    ///
    /// # Errors
    /// See [`ReplicaError`].
    pub async fn wait_for_ledger(&self, shard: u32, next: u64, patience: Duration) -> Result<(), ReplicaError> {
        self.shard(shard)?.wait(|reached| reached.ledger_next >= next, tokio::time::Instant::now() + patience).await
    }

    /// Waits until every shard that reads it has applied the record at a place.
    ///
    /// # Errors
    /// See [`ReplicaError`].
    pub async fn wait_for(&self, source: Source, patience: Duration) -> Result<(), ReplicaError> {
        let deadline = tokio::time::Instant::now() + patience;
        for shard in self.shards.iter().filter(|shard| shard.reads(source)) {
            shard.wait(|reached| reached.has_passed(source), deadline).await?;
        }
        Ok(())
    }

    /// Why the operator's record at a place was not taken, if a shard refused it lately.
    #[must_use]
    pub fn refusal(&self, source: Source) -> Option<Refusal> {
        let of =
            |shard: &Arc<Shard>| locked(&shard.refusals).iter().rev().find(|(at, _)| *at == source).map(|(_, refusal)| refusal.clone());
        self.shards.iter().find_map(of)
    }

    /// What an operator should know of them, for `/readyz`.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let broken = |shard: &Arc<Shard>| {
            let why = shard.reached.borrow().broken.clone()?;
            Some(format!("REPLICA_BROKEN: shard {}: {why}", shard.shard))
        };
        self.shards.iter().filter_map(broken).collect()
    }

    /// Ends the followers; each takes a last snapshot.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        for thread in locked(&self.threads).drain(..) {
            if thread.join().is_err() {
                tracing::error!("a replica's thread panicked");
            }
        }
    }
}

impl Drop for Replicas {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}

impl Shard {
    fn read<R>(&self, question: impl FnOnce(&Gate) -> R) -> Result<R, ReplicaError> {
        {
            let reached = self.reached.borrow();
            if let Some(why) = reached.broken.clone() {
                return Err(ReplicaError::Broken { shard: self.shard, why });
            }
            if !reached.current {
                return Err(ReplicaError::Starting { shard: self.shard, seq: reached.seq });
            }
        }
        let replica = self.replica.read().unwrap_or_else(PoisonError::into_inner);
        Ok(question(replica.fold.gate()))
    }

    /// Whether the shard applies the record at a place.
    fn reads(&self, source: Source) -> bool {
        match source.topic {
            InputTopic::Intents | InputTopic::Executions => source.partition == self.shard,
            InputTopic::Prices | InputTopic::Control => true,
        }
    }

    async fn wait(&self, until: impl Fn(&Reached) -> bool, deadline: tokio::time::Instant) -> Result<(), ReplicaError> {
        let mut reached = self.reached.subscribe();
        let shard = self.shard;
        match timeout_at(deadline, reached.wait_for(|reached| until(reached) || reached.broken.is_some())).await {
            Err(_) => Err(ReplicaError::Late { shard }),
            Ok(Err(_)) => Err(ReplicaError::Stopped),
            Ok(Ok(reached)) => match reached.broken.clone() {
                Some(why) => Err(ReplicaError::Broken { shard, why }),
                None => Ok(()),
            },
        }
    }

    /// Notes the owners of accounts that were opened. Accounts never go, and keep their owners.
    fn learn_owners(&self, gate: &Gate) {
        let known = self.owners.read().unwrap_or_else(PoisonError::into_inner).len();
        if let Some(new) = gate.accounts().get(known..).filter(|new| !new.is_empty()) {
            self.owners.write().unwrap_or_else(PoisonError::into_inner).extend(new.iter().map(|account| (account.id, account.owner)));
        }
    }

    fn refused(&self, output: &OutputRecord) {
        match serde_json::from_slice::<Refusal>(&output.payload) {
            Ok(refusal) => {
                let mut refusals = locked(&self.refusals);
                if refusals.len() >= REFUSALS_KEPT {
                    refusals.pop_front();
                }
                refusals.push_back((output.source, refusal));
            }
            Err(error) => tracing::error!(%error, "a dead letter of ours cannot be read"),
        }
    }
}
