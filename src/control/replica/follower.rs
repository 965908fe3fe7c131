//! The thread that follows one ledger.
//!
//! Invariant: entries are folded in the order of the ledger, each once, and whoever listens is told of
//! each. A log that fails is asked again; a ledger that contradicts the fold is not. Deliberately
//! absent: publication, claims, and any other effect.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use metrics::{counter, gauge};
use tokio::sync::watch;

use super::{Listener, Reached, ReplicaOptions, Shard, locked};
use crate::domain::InputTopic;
use crate::engine::{FoldError, Offer, Replica, SnapshotStore, Standing};
use crate::log::{LogError, OutputRecord, OutputTopic, StoredRecord, Topic, Topics};
use crate::telemetry;
use crate::wire::frame;

/// How many ledger entries are read at once.
const ENTRIES_PER_READ: usize = 64;
/// How long it waits for a change before it looks all the same.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long a last snapshot may take.
const SNAPSHOT_END: Duration = Duration::from_secs(5);

/// The follower of one ledger.
pub(super) struct Follower {
    shard: Arc<Shard>,
    topics: Arc<dyn Topics>,
    store: Box<dyn SnapshotStore>,
    listeners: Arc<[Arc<dyn Listener>]>,
    options: ReplicaOptions,
    stop: Arc<AtomicBool>,
    /// The records that the last snapshot holds.
    kept_seq: u64,
    /// The accounts that changed since.
    touched: BTreeSet<u32>,
}

impl Follower {
    pub fn new(
        shard: Arc<Shard>,
        topics: Arc<dyn Topics>,
        store: Box<dyn SnapshotStore>,
        listeners: Arc<[Arc<dyn Listener>]>,
        options: ReplicaOptions,
        stop: Arc<AtomicBool>,
    ) -> Self {
        Self { shard, topics, store, listeners, options, stop, kept_seq: 0, touched: BTreeSet::new() }
    }

    /// Follows until it is told to stop.
    pub fn run(mut self) {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_time().build() {
            Ok(runtime) => runtime,
            Err(error) => return self.break_down(&format!("its thread cannot wait: {error}")),
        };
        let mut changes = self.topics.changes();
        self.begin();
        while !self.stopping() {
            changes.mark_unchanged();
            let looked = Instant::now();
            match self.read_on() {
                Ok(0) => {
                    self.has_all(looked);
                    runtime.block_on(changed(&mut changes, LOOK_EVERY));
                }
                Ok(_) => {}
                Err(FoldError::Log(error)) if !is_final(&error) => {
                    tracing::warn!(code = error.code(), %error, shard = self.shard.shard, "a replica cannot read its ledger; it is tried again");
                    self.wait(self.options.retry_after);
                }
                Err(error) => {
                    if matches!(error, FoldError::Drift { .. }) {
                        counter!(telemetry::REPLAY_DRIFT).increment(1);
                    }
                    return self.break_down(&error.to_string());
                }
            }
            self.snapshot_if_due();
        }
        for listener in &*self.listeners {
            listener.idle(self.shard.shard);
        }
        if self.reached().seq > self.kept_seq {
            self.offer_snapshot();
            self.store.finish(SNAPSHOT_END);
        }
    }

    fn stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    fn reached(&self) -> Reached {
        self.shard.reached.borrow().clone()
    }

    fn wait(&self, for_long: Duration) {
        let until = Instant::now() + for_long;
        while !self.stopping() && Instant::now() < until {
            std::thread::sleep(LOOK_EVERY.min(for_long));
        }
    }

    /// Begins at the newest snapshot that the ledger bears out, or at the beginning.
    fn begin(&mut self) {
        let mut candidate = self.store.load();
        while let Some(loaded) = candidate {
            let why = loop {
                match self.mismatch(&loaded.standing) {
                    Ok(why) => break why,
                    Err(error) if self.stopping() || is_final(&error) => break Some("the ledger cannot be asked"),
                    Err(_) => self.wait(self.options.retry_after),
                }
            };
            if why.is_none() {
                let seq = loaded.standing.seq;
                let replica = Replica::restore(loaded);
                if (replica.fold.gate().seq(), replica.fold.gate().shard()) == (seq, self.shard.shard) {
                    self.shard.learn_owners(replica.fold.gate());
                    *self.shard.replica.write().unwrap_or_else(PoisonError::into_inner) = replica;
                    self.kept_seq = seq;
                    break;
                }
            }
            let why = why.unwrap_or("its state is not the one of its place");
            tracing::warn!(why, shard = self.shard.shard, "a replica's snapshot does not fit the ledger");
            candidate = self.store.reject(why);
        }
        let reached = self.describe(None);
        for listener in &*self.listeners {
            listener.begins(self.shard.shard, &reached);
        }
        self.shard.reached.send_replace(reached);
    }

    /// Why a snapshot does not belong to this ledger, if it does not.
    fn mismatch(&self, standing: &Standing) -> Result<Option<&'static str>, LogError> {
        let shard = self.shard.shard;
        if self.topics.extent(Topic::Ledger, shard)?.next < standing.next_offset {
            return Ok(Some("it is ahead of the ledger"));
        }
        let Some(last) = standing.last_offset else { return Ok(None) };
        let entry = self.topics.read(Topic::Ledger, shard, last, 1)?.into_iter().find(|entry| entry.offset == last);
        let fits = entry.is_some_and(|entry| frame::link(&standing.head_before, &entry.payload) == standing.head);
        Ok((!fits).then_some("its last entry is another in the ledger"))
    }

    /// Reads on. Gives the number of entries read: none at the end.
    fn read_on(&mut self) -> Result<usize, FoldError> {
        let next = self.shard.reached.borrow().ledger_next;
        let entries = self.topics.read(Topic::Ledger, self.shard.shard, next, ENTRIES_PER_READ)?;
        let count = entries.len();
        for entry in entries {
            if self.stopping() {
                break;
            }
            self.take(entry)?;
        }
        Ok(count)
    }

    fn take(&mut self, entry: StoredRecord) -> Result<(), FoldError> {
        let (outputs, touched): (Vec<OutputRecord>, Vec<u32>) = {
            let mut replica = self.shard.replica.write().unwrap_or_else(PoisonError::into_inner);
            replica.take(entry)?;
            self.shard.learn_owners(replica.fold.gate());
            // A frame's marks are of earlier ones: all outputs of the entry are still at hand.
            (replica.unpublished.drain(..).collect(), replica.fold.take_touched())
        };
        self.touched.extend(&touched);
        let current = self.shard.reached.borrow().current;
        let reached = Reached { current, ..self.describe(None) };
        let refused = |output: &&OutputRecord| output.topic == OutputTopic::DeadLetter && output.source.topic == InputTopic::Control;
        outputs.iter().filter(refused).for_each(|output| self.shard.refused(output));
        for listener in &*self.listeners {
            listener.folded(self.shard.shard, &reached, &outputs);
            listener.touched(self.shard.shard, &touched);
        }
        self.shard.reached.send_replace(reached);
        Ok(())
    }

    fn describe(&self, broken: Option<Arc<str>>) -> Reached {
        let replica = self.shard.replica.read().unwrap_or_else(PoisonError::into_inner);
        let (sequence, gate) = (&replica.sequence, replica.fold.gate());
        Reached {
            seq: gate.seq(),
            term: sequence.term,
            owner: sequence.owner.clone(),
            at: gate.at(),
            received: replica.fold.received,
            ledger_next: sequence.next_offset,
            head: sequence.head,
            void_entries: replica.void_entries,
            inputs: replica.fold.positions().into(),
            current: false,
            broken,
        }
    }

    /// It has read everything that there was when it looked.
    fn has_all(&self, looked: Instant) {
        *locked(&self.shard.seen_all) = Some(looked);
        if !self.shard.reached.borrow().current {
            self.shard.reached.send_modify(|reached| reached.current = true);
            tracing::info!(shard = self.shard.shard, seq = self.shard.reached.borrow().seq, "the replica has read its ledger");
        }
        for listener in &*self.listeners {
            listener.idle(self.shard.shard);
        }
    }

    /// It answers nothing any more, and says so everywhere.
    fn break_down(&self, why: &str) {
        let shard = self.shard.shard;
        tracing::error!(code = "REPLICA_BROKEN", shard, why, "a replica does not follow its ledger any more; run `ordergate verify`");
        gauge!(telemetry::REPLICA_BROKEN, "shard" => shard.to_string()).set(1.0);
        self.shard.reached.send_modify(|reached| reached.broken = Some(why.into()));
    }

    fn snapshot_if_due(&mut self) {
        let seq = self.shard.reached.borrow().seq;
        if seq.saturating_sub(self.kept_seq) >= self.options.snapshot_records && self.store.ready() {
            self.offer_snapshot();
        }
    }

    fn offer_snapshot(&mut self) {
        let whole = self.kept_seq == 0 || self.store.wants_whole();
        let replica = self.shard.replica.read().unwrap_or_else(PoisonError::into_inner);
        let standing = replica.standing();
        let touched = std::mem::take(&mut self.touched);
        let gate = replica.fold.gate();
        let accounts = gate.accounts();
        let places: Vec<u32> =
            if whole { (0..u32::try_from(accounts.len()).unwrap_or(u32::MAX)).collect() } else { touched.into_iter().collect() };
        let touched = places.into_iter().filter_map(|place| Some((place, accounts.get(place as usize)?.clone()))).collect();
        self.kept_seq = standing.seq;
        let offer = Offer { standing, shared: gate.shared().clone(), accounts: accounts.len(), touched, whole };
        drop(replica);
        self.store.offer(offer);
    }
}

/// Comes back when the log changed, or after a while.
async fn changed(changes: &mut watch::Receiver<u64>, at_most: Duration) {
    // A log that is closed changes no more: it is looked at now and then all the same.
    if let Ok(Err(_)) = tokio::time::timeout(at_most, changes.changed()).await {
        tokio::time::sleep(at_most).await;
    }
}

/// Whether asking again cannot help.
const fn is_final(error: &LogError) -> bool {
    match error {
        LogError::Corrupt { .. } | LogError::NewerVersion { .. } | LogError::OutOfRange { .. } | LogError::NoSuchPartition { .. } => true,
        LogError::Locked { .. }
        | LogError::Busy { .. }
        | LogError::Full { .. }
        | LogError::ReadOnly { .. }
        | LogError::TooLarge { .. }
        | LogError::Overloaded { .. }
        | LogError::Denied { .. }
        | LogError::Closed
        | LogError::Io { .. } => false,
    }
}
