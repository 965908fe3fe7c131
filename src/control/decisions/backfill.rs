//! Filling the index with what was decided before its follower began.
//!
//! Invariant: it folds the ledger from its beginning with a replica of its own, works at most half of the
//! time, and what it writes twice it writes alike. Deliberately absent: any hurry.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Decisions;
use super::block::{Block, block_of};
use super::store::{Gap, IndexError, Indexed, Progress};
use crate::engine::{FoldError, Replica};
use crate::log::{LogError, Topic};

const ENTRIES_PER_READ: usize = 16;
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// Why filling ended early.
enum Ended {
    /// Nobody wants it any more.
    Unwanted,
    /// The ledger cannot be folded.
    Ledger(FoldError),
    /// The index cannot be written.
    Index(IndexError),
}

impl Decisions {
    /// Indexes the sequences of a gap. `check` is where the index said that the ledger was another time.
    pub(super) fn backfill(&self, shard: u32, gap: Gap, check: Option<Indexed>, generation: u64) {
        tracing::info!(shard, from = gap.after, to = gap.to, "older decisions are indexed from the ledger");
        match self.fill(shard, gap, check, generation) {
            Ok(()) => tracing::info!(shard, to = gap.to, "all decisions are indexed"),
            Err(Ended::Unwanted) => {}
            Err(Ended::Ledger(error)) => tracing::error!(%error, shard, "older decisions cannot be indexed"),
            Err(Ended::Index(error)) => self.doubt(&error),
        }
    }

    fn is_wanted(&self, generation: u64) -> bool {
        !self.stop.load(Ordering::Acquire) && self.generation.load(Ordering::Acquire) == generation
    }

    fn fill(&self, shard: u32, gap: Gap, mut check: Option<Indexed>, generation: u64) -> Result<(), Ended> {
        let mut replica = Replica::new(shard);
        let (mut number, mut block, mut done) = (block_of(gap.after + 1), Block::default(), gap.after);
        while done < gap.to {
            if !self.is_wanted(generation) {
                return Err(Ended::Unwanted);
            }
            let begun = Instant::now();
            let entries = match self.topics.read(Topic::Ledger, shard, replica.sequence.next_offset, ENTRIES_PER_READ) {
                Ok(entries) if entries.is_empty() => return Err(Ended::Ledger(FoldError::Log(LogError::Closed))),
                Ok(entries) => entries,
                Err(error @ (LogError::Corrupt { .. } | LogError::OutOfRange { .. })) => return Err(Ended::Ledger(error.into())),
                Err(_) => {
                    std::thread::sleep(RETRY_AFTER);
                    continue;
                }
            };
            for entry in entries {
                replica.take(entry).map_err(Ended::Ledger)?;
                let reached = (replica.sequence.next_offset, replica.sequence.head);
                if let Some(stored) = check.filter(|stored| reached.0 >= stored.ledger_next) {
                    check = None;
                    if reached != (stored.ledger_next, stored.head) {
                        return Err(Ended::Index(IndexError::OtherLedger));
                    }
                }
                for output in replica.unpublished.drain(..).filter(|output| output.tag.seq > gap.after && output.tag.seq <= gap.to) {
                    let next = block_of(output.tag.seq);
                    if next != number {
                        let progress = Progress::Gap(Some(Gap { after: output.tag.seq - 1, ..gap }));
                        self.write(shard, Some((number, &block)), &progress).map_err(Ended::Index)?;
                        (number, block) = (next, Block::default());
                    }
                    block.take(&output);
                }
                done = replica.fold.gate().seq();
            }
            std::thread::sleep(begun.elapsed());
        }
        if !self.is_wanted(generation) {
            return Err(Ended::Unwanted);
        }
        self.write(shard, Some((number, &block)), &Progress::Gap(None)).map_err(Ended::Index)
    }
}
