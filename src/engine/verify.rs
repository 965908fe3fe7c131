//! Verification: a ledger is folded again and must give what it recorded.
//!
//! Invariant: it reads and publishes nothing, and stops at the first difference. What it proves:
//! every entry is whole, the hash chain is unbroken, terms grow, every record is applied once and in
//! the order of its partition, and the recorded outputs and state hashes come out again.

use crate::log::{LogError, StoredRecord};
use crate::wire::frame::Hash;

use super::ownership::Judgement;
use super::published::Publications;
use super::replica::{FoldError, Replica};

/// How many entries are read at once.
const ENTRIES_PER_READ: usize = 64;

/// What was verified.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Entries read.
    pub entries: u64,
    /// Those that do not count: of deposed owners, and repetitions.
    pub void_entries: u64,
    /// The last term.
    pub term: u64,
    /// The records applied.
    pub seq: u64,
    /// The outputs that came out as recorded.
    pub outputs: u64,
    /// The chain's hash.
    pub head: Hash,
    /// The hash of the state at the end.
    pub state_hash: Hash,
}

/// Folds a ledger from its beginning. `read` gives entries from an offset on, none at the end;
/// `publications` are told what it caused.
///
/// # Errors
/// The first difference, with its position.
pub fn verify(
    shard: u32,
    mut read: impl FnMut(u64, usize) -> Result<Vec<StoredRecord>, LogError>,
    mut publications: Option<&mut Publications>,
) -> Result<Verified, FoldError> {
    let mut replica = Replica::new(shard);
    let mut verified = Verified::default();
    loop {
        let entries = read(replica.sequence.next_offset, ENTRIES_PER_READ)?;
        if entries.is_empty() {
            break;
        }
        for entry in entries {
            verified.entries += 1;
            if replica.take(entry)? != Judgement::Counts {
                verified.void_entries += 1;
            }
            // A frame's marks are of earlier ones: all outputs of the entry are still at hand.
            for output in replica.unpublished.drain(..) {
                verified.outputs += 1;
                if let Some(publications) = &mut publications {
                    publications.expect(&output);
                }
            }
            if let Some(publications) = &mut publications {
                publications.note(replica.fold.output_marks, replica.fold.gate().seq());
            }
        }
    }
    (verified.term, verified.seq, verified.head) = (replica.sequence.term, replica.fold.gate().seq(), replica.sequence.head);
    verified.state_hash = replica.fold.state_hash();
    Ok(verified)
}
