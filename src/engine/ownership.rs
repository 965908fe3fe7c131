//! Who owns a shard, as the ledger tells it: terms, claims, and which entries count.
//!
//! Invariant: every reader of the same entries comes to the same answer, and only the owner's own
//! frames count, each once, in order. Deliberately absent: any clock, any lease, any other way to
//! become or to stay the owner.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::domain::Millis;
use crate::wire::frame::{self, Entry, Hash};

use super::snapshots::Standing;

/// The sequence of entries that count, as far as it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sequence {
    /// The term of the last claim that counts.
    pub term: u64,
    /// Who made it. `None` before the first, and after a snapshot that does not say so.
    pub owner: Option<Arc<Owner>>,
    /// Where that claim stands, if it was read and not taken from a snapshot.
    pub claim_offset: Option<u64>,
    /// The number that the next entry has.
    pub n: u64,
    /// The chain's hash.
    pub head: Hash,
    /// The chain's hash before the last entry that counts.
    pub head_before: Hash,
    /// Where the last entry that counts stands.
    pub last_offset: Option<u64>,
    /// The ledger offset to read next.
    pub next_offset: u64,
}

/// Who made the last claim that counts. Nothing is decided by it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The claimant's name, as its claim has it.
    pub name: String,
    /// The claimant's clock when it claimed.
    pub since: Millis,
}

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// It counts.
    Counts,
    /// A frame of an older term: its writer no longer was the owner.
    StaleTerm,
    /// A claim whose term was not higher: someone else's came first.
    LostClaim,
    /// A frame that stands in the ledger already: the log's late retry.
    Repeated,
    /// A frame of the term that does not follow the last one: what should lie between never landed.
    OutOfOrder,
}

/// What no honest writer leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SequenceError {
    /// An entry does not stand where the ledger goes on.
    #[error("the ledger goes on at offset {found}, and {expected} was expected: entries are missing")]
    Gap {
        /// Where it should go on.
        expected: u64,
        /// Where it goes on.
        found: u64,
    },
    /// An entry follows the last one that counts, and names another hash of it.
    #[error("ledger offset {offset}: the entry does not continue the hash chain: an entry before it was altered")]
    Chain {
        /// Where it stands.
        offset: u64,
    },
}

impl Sequence {
    /// The sequence as a snapshot knew it.
    #[must_use]
    pub fn at(standing: &Standing) -> Self {
        Self {
            term: standing.term,
            owner: standing.owner.clone(),
            claim_offset: None,
            n: standing.n,
            head: standing.head,
            head_before: standing.head_before,
            last_offset: standing.last_offset,
            next_offset: standing.next_offset,
        }
    }

    /// Judges the next entry of the ledger, and takes it in if it counts.
    ///
    /// # Errors
    /// It is not the next one, or breaks the chain.
    pub fn judge(&mut self, offset: u64, entry: &Entry, bytes: &[u8]) -> Result<Judgement, SequenceError> {
        if offset != self.next_offset {
            return Err(SequenceError::Gap { expected: self.next_offset, found: offset });
        }
        self.next_offset += 1;
        let judgement = self.judgement(entry);
        if judgement == Judgement::Counts {
            let (n, prev_hash) = match entry {
                Entry::Claim(claim) => (claim.n, claim.prev_hash),
                Entry::Frame(frame) => (frame.n, frame.prev_hash),
            };
            if n == self.n && prev_hash != self.head {
                return Err(SequenceError::Chain { offset });
            }
            if let Entry::Claim(claim) = entry {
                self.term = claim.term;
                self.owner = Some(Arc::new(Owner { name: claim.owner.clone(), since: claim.at }));
                self.claim_offset = Some(offset);
            }
            self.advance(offset, frame::link(&self.head, bytes));
        }
        Ok(judgement)
    }

    /// Takes in the owner's own next frame, acknowledged right behind everything that was read.
    pub fn take_own(&mut self, head: Hash) {
        let offset = self.next_offset;
        self.next_offset += 1;
        self.advance(offset, head);
    }

    fn advance(&mut self, offset: u64, head: Hash) {
        self.n += 1;
        self.head_before = std::mem::replace(&mut self.head, head);
        self.last_offset = Some(offset);
    }

    fn judgement(&self, entry: &Entry) -> Judgement {
        match entry {
            Entry::Claim(claim) if claim.term > self.term => Judgement::Counts,
            Entry::Claim(_) => Judgement::LostClaim,
            Entry::Frame(frame) if frame.term < self.term => Judgement::StaleTerm,
            Entry::Frame(frame) if frame.term == self.term && frame.n < self.n => Judgement::Repeated,
            Entry::Frame(frame) if frame.term == self.term && frame.n == self.n => Judgement::Counts,
            Entry::Frame(_) => Judgement::OutOfOrder,
        }
    }
}

/// Who claims, for the claim's record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claimant {
    /// The name of the instance.
    pub owner: String,
    /// The version of the time zone database.
    pub tzdb_version: String,
    /// The version of the program.
    pub program_version: String,
}

impl Claimant {
    /// A claim of the next term.
    #[must_use]
    pub fn claim(&self, sequence: &Sequence, at: Millis) -> Entry {
        Entry::Claim(frame::Claim {
            term: sequence.term + 1,
            n: sequence.n,
            prev_hash: sequence.head,
            owner: self.owner.clone(),
            at,
            tzdb_version: self.tzdb_version.clone(),
            program_version: self.program_version.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::frame::Frame;

    fn append(sequence: &mut Sequence, entry: &Entry) -> Judgement {
        let bytes = frame::encode(entry).unwrap();
        sequence.judge(sequence.next_offset, entry, &bytes).unwrap()
    }

    fn frame_of(sequence: &Sequence) -> Entry {
        Entry::Frame(Frame {
            term: sequence.term,
            n: sequence.n,
            prev_hash: sequence.head,
            first_seq: 1,
            received: 0,
            inputs: Vec::new(),
            input_marks: Vec::new(),
            output_marks: Default::default(),
            state_hash: None,
        })
    }

    #[test]
    fn the_owners_frames_count_once_and_in_order() {
        let mut ledger = Sequence::default();
        assert_eq!(append(&mut ledger, &Claimant::default().claim(&Sequence::default(), 0)), Judgement::Counts);
        let first = frame_of(&ledger);
        assert_eq!(append(&mut ledger, &first), Judgement::Counts);
        let second = frame_of(&ledger);
        assert_eq!(append(&mut ledger, &first), Judgement::Repeated);
        assert_eq!(append(&mut ledger, &second), Judgement::Counts);
        let mut skipped = ledger.clone();
        append(&mut skipped, &frame_of(&ledger));
        assert_eq!(append(&mut ledger, &frame_of(&skipped)), Judgement::OutOfOrder);
        assert_eq!((ledger.n, ledger.next_offset, ledger.last_offset), (3, 5, Some(3)));
    }

    #[test]
    fn a_higher_claim_voids_the_old_owners_frames() {
        let mut ledger = Sequence::default();
        append(&mut ledger, &Claimant::default().claim(&Sequence::default(), 0));
        let old = frame_of(&ledger);
        let (one, two) = (Claimant::default().claim(&ledger, 0), Claimant::default().claim(&ledger, 1));
        assert_eq!(append(&mut ledger, &one), Judgement::Counts);
        assert_eq!(append(&mut ledger, &two), Judgement::LostClaim);
        assert_eq!(append(&mut ledger, &old), Judgement::StaleTerm);
        let new = frame_of(&ledger);
        assert_eq!(append(&mut ledger, &new), Judgement::Counts);
        assert_eq!(ledger.claim_offset, Some(1));
    }

    #[test]
    fn the_old_owners_last_frames_may_come_between_reading_and_the_claim() {
        let mut ledger = Sequence::default();
        append(&mut ledger, &Claimant::default().claim(&Sequence::default(), 0));
        let claim = Claimant::default().claim(&ledger, 0);
        let late = frame_of(&ledger);
        assert_eq!(append(&mut ledger, &late), Judgement::Counts);
        assert_eq!(append(&mut ledger, &claim), Judgement::Counts);
    }

    #[test]
    fn a_missing_entry_is_an_error() {
        let entry = Claimant::default().claim(&Sequence::default(), 0);
        assert_eq!(Sequence::default().judge(4, &entry, &[]), Err(SequenceError::Gap { expected: 0, found: 4 }));
    }

    #[test]
    fn an_entry_that_was_altered_breaks_the_chain() {
        let mut ledger = Sequence::default();
        append(&mut ledger, &Claimant::default().claim(&Sequence::default(), 0));
        let honest = frame_of(&ledger);
        let mut altered = ledger.clone();
        append(&mut altered, &Entry::Frame(Frame { received: 1, ..frame_in(&honest) }));
        append(&mut ledger, &honest);
        for next in [frame_of(&ledger), Claimant::default().claim(&ledger, 0)] {
            let bytes = frame::encode(&next).unwrap();
            assert_eq!(altered.clone().judge(2, &next, &bytes), Err(SequenceError::Chain { offset: 2 }));
        }
    }

    fn frame_in(entry: &Entry) -> Frame {
        match entry {
            Entry::Frame(frame) => frame.clone(),
            Entry::Claim(_) => panic!("a claim"),
        }
    }
}
