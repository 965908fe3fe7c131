//! A replica: the fold of what counts in a ledger, and the outputs that may not be published yet.
//!
//! Invariant: what it holds is a function of the ledger's entries up to where it has read.
//! Deliberately absent: any effect. An owner begins as a replica; a standby stays one.

use std::collections::VecDeque;

use crate::log::{LogError, OutputRecord, ShardLog, ShardTopic, StoredRecord};
use crate::wire::frame::{self, Entry, FrameError};

use super::fold::{Drift, Fold};
use super::ownership::{Judgement, Sequence, SequenceError};
use super::snapshots::{Loaded, SnapshotStore, Standing};

/// How many ledger entries are read at once.
const ENTRIES_PER_READ: usize = 64;

/// A fold of the ledger, with its place in it.
#[derive(Debug)]
pub struct Replica {
    /// Which entries count, as far as they were read.
    pub sequence: Sequence,
    /// What they amount to.
    pub fold: Fold,
    /// The outputs of records above their topic's mark, in order. No more than an owner has on their way
    /// at once, since its next frame says what is published by then.
    pub unpublished: VecDeque<OutputRecord>,
    /// How many entries were read that did not count.
    pub void_entries: u64,
}

/// Why a ledger cannot be folded. None of these goes away by trying again, but for `Log`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FoldError {
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// An entry is none.
    #[error("ledger offset {offset}: {error}")]
    Entry {
        /// Where it stands.
        offset: u64,
        /// What is wrong with it.
        error: FrameError,
    },
    /// Entries are missing or altered.
    #[error(transparent)]
    Sequence(#[from] SequenceError),
    /// The fold comes to another result than the ledger recorded.
    #[error("ledger offset {offset}: {drift}")]
    Drift {
        /// Where the frame stands.
        offset: u64,
        /// The difference.
        drift: Drift,
    },
}

impl Replica {
    /// A replica that has read nothing.
    #[must_use]
    pub fn new(shard: u32) -> Self {
        Self { sequence: Sequence::default(), fold: Fold::new(shard), unpublished: VecDeque::new(), void_entries: 0 }
    }

    /// A replica that begins at the newest snapshot that the ledger bears out, or at the beginning.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn open<L: ShardLog>(log: &mut L, store: &mut dyn SnapshotStore) -> Result<Self, LogError> {
        let shard = log.layout().shard;
        let mut candidate = store.load();
        while let Some(loaded) = candidate {
            let seq = loaded.standing.seq;
            let why = match mismatch(log, &loaded.standing)? {
                Some(why) => why,
                None => {
                    let replica = Self::restore(loaded);
                    let gate = replica.fold.gate();
                    if (gate.seq(), gate.shard()) == (seq, shard) {
                        return Ok(replica);
                    }
                    "its state is not the one of its place"
                }
            };
            tracing::warn!(why, seq, "the snapshot does not fit the ledger");
            candidate = store.reject(why);
        }
        Ok(Self::new(shard))
    }

    /// A replica that begins at a snapshot, whatever the ledger says.
    #[must_use]
    pub fn restore(loaded: Loaded) -> Self {
        let sequence = Sequence::at(&loaded.standing);
        Self { sequence, fold: Fold::restore(loaded), unpublished: VecDeque::new(), void_entries: 0 }
    }

    /// Reads on. Gives the number of entries read: none at the end.
    ///
    /// # Errors
    /// See [`FoldError`]; the replica is of no use afterwards.
    pub fn read_on<L: ShardLog>(&mut self, log: &mut L) -> Result<usize, FoldError> {
        let entries = log.read(ShardTopic::Ledger, self.sequence.next_offset, ENTRIES_PER_READ)?;
        let count = entries.len();
        for entry in entries {
            self.take(entry)?;
        }
        Ok(count)
    }

    /// Takes the next entry of the ledger.
    ///
    /// # Errors
    /// See [`FoldError`]; the replica is of no use afterwards.
    pub fn take(&mut self, stored: StoredRecord) -> Result<Judgement, FoldError> {
        let offset = stored.offset;
        let entry = frame::decode(&stored.payload).map_err(|error| FoldError::Entry { offset, error })?;
        let judgement = self.sequence.judge(offset, &entry, &stored.payload)?;
        match (judgement, entry) {
            (Judgement::Counts, Entry::Frame(frame)) => {
                let mut outputs = Vec::new();
                self.fold.apply_frame(frame, &mut outputs).map_err(|drift| FoldError::Drift { offset, drift })?;
                self.unpublished.extend(outputs);
                self.forget_published();
            }
            (Judgement::Counts, Entry::Claim(claim)) => tracing::debug!(claim.term, claim.owner, offset, "a claim counts"),
            (
                Judgement::StaleTerm | Judgement::LostClaim | Judgement::Repeated | Judgement::OutOfOrder,
                Entry::Claim(_) | Entry::Frame(_),
            ) => {
                self.void_entries += 1;
                tracing::debug!(?judgement, offset, "a ledger entry does not count");
            }
        }
        Ok(judgement)
    }

    /// Marks only grow, and outputs of all topics come in `seq` order: what every mark covers is dropped.
    fn forget_published(&mut self) {
        let marks = &self.fold.output_marks;
        while self.unpublished.front().is_some_and(|output| output.tag.seq <= marks[output.topic.place()].seq) {
            self.unpublished.pop_front();
        }
    }

    /// Where this replica stands.
    #[must_use]
    pub fn standing(&self) -> Standing {
        let sequence = &self.sequence;
        let mut standing = Standing {
            term: sequence.term,
            owner: sequence.owner.clone(),
            n: sequence.n,
            head: sequence.head,
            head_before: sequence.head_before,
            last_offset: sequence.last_offset,
            next_offset: sequence.next_offset,
            ..Standing::default()
        };
        self.fold.describe(&mut standing);
        standing
    }
}

/// Why a snapshot does not belong to this ledger, if it does not.
fn mismatch<L: ShardLog>(log: &mut L, standing: &Standing) -> Result<Option<&'static str>, LogError> {
    if log.end(ShardTopic::Ledger)? < standing.next_offset {
        return Ok(Some("it is ahead of the ledger"));
    }
    if let Some(last) = standing.last_offset {
        let entry = log.read(ShardTopic::Ledger, last, 1)?.into_iter().find(|entry| entry.offset == last);
        if entry.is_none_or(|entry| frame::link(&standing.head_before, &entry.payload) != standing.head) {
            return Ok(Some("its last entry is another in the ledger"));
        }
    }
    Ok(None)
}
