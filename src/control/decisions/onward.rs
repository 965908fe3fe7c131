//! Reading decisions onward: for who has seen them up to a sequence and wants what came since.
//!
//! Invariant: what is given is everything after one sequence up to another, in order and without a gap; where the index cannot promise
//! that, it says why instead. The work of one answer is bounded. Deliberately absent: filters; whoever asks may not see all of it, and knows that.

use super::block::{Block, Kept, block_of};
use super::store::IndexError;
use super::{Decisions, locked};

/// What came since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Onward {
    /// Decisions by ascending sequence, each with its JSON, and the sequence up to which that is all.
    Found {
        /// The decisions.
        decisions: Vec<(u64, Vec<u8>)>,
        /// Nothing up to here is left out.
        reached: u64,
    },
    /// They are still being indexed.
    Filling,
    /// Some of them were dropped for newer ones.
    Dropped,
}

impl Decisions {
    /// Up to `limit` decisions of a shard with `after < seq <= up_to`, oldest first.
    ///
    /// # Errors
    /// The index cannot be read; it is made anew.
    pub fn after(&self, shard: u32, after: u64, up_to: u64, limit: usize) -> Result<Onward, IndexError> {
        let found = self.read_onward(shard, after, up_to, limit);
        if let Err(error) = &found {
            self.doubt(error);
        }
        found
    }

    fn read_onward(&self, shard: u32, after: u64, up_to: u64, limit: usize) -> Result<Onward, IndexError> {
        let store = self.store()?;
        let Some(live) = self.shards.get(shard as usize) else { return Ok(Onward::Found { decisions: Vec::new(), reached: up_to }) };
        // Taken before the store is read: a block that is written meanwhile is then in both, and one that was written before is in the store.
        let (live_number, live_block, to) = {
            let live = locked(live);
            (live.number, live.block.clone(), live.indexed.seq.min(up_to))
        };
        if store.gap(shard)?.is_some_and(|gap| after < gap.to && gap.after < up_to) {
            return Ok(Onward::Filling);
        }
        if after.saturating_add(1) < store.dropped_below(shard)? {
            return Ok(Onward::Dropped);
        }
        let mut decisions: Vec<(u64, Vec<u8>)> = Vec::new();
        let (mut number, last) = (block_of(after.saturating_add(1)), block_of(to));
        while number <= last {
            let stored = store.block_from(shard, number, last)?;
            let live = Some(&live_block).filter(|block| (number..=last).contains(&live_number) && !block.is_empty());
            let Some((at, block)) = earlier(stored, live.map(|block| (live_number, block))) else { break };
            for Kept { seq, payload, .. } in block.kept.into_values().filter(|kept| kept.seq > after && kept.seq <= to) {
                if decisions.len() >= limit {
                    let reached = decisions.last().map_or(after, |(seq, _)| *seq);
                    return Ok(Onward::Found { decisions, reached });
                }
                decisions.push((seq, payload));
            }
            number = at + 1;
        }
        Ok(Onward::Found { decisions, reached: to.max(after) })
    }
}

/// The earlier of a stored block and the one in memory; both together where they are the same one.
fn earlier(stored: Option<(u64, Block)>, live: Option<(u64, &Block)>) -> Option<(u64, Block)> {
    match (stored, live) {
        (Some((at, stored)), Some((number, live))) if at == number => {
            let mut whole = live.clone();
            whole.merge(stored);
            Some((at, whole))
        }
        (Some((at, _)), Some((number, live))) if number < at => Some((number, live.clone())),
        (Some(stored), _) => Some(stored),
        (None, live) => live.map(|(number, block)| (number, block.clone())),
    }
}
