//! Snapshots as the engine sees them: something to start from instead of the ledger's beginning.
//!
//! Invariant: a snapshot is offered only when every frame of it is acknowledged and every output of
//! it is published, so nothing that a recovery needs lies before it (its output marks may lie behind it). It is a hint: recovery holds
//! its [`Standing`] against the ledger and refolds when they disagree. Deliberately absent: where
//! and how it is kept (`snapshot/`).

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::domain::Millis;
use crate::gate::{Account, Shared};
use crate::wire::frame::{Hash, InputMark, OutputMark};
use crate::wire::snapshot::{DecodeError, EncodeError, decode_value, encode_value};

use super::ownership::Owner;

/// A place in the ledger, and everything beside the gate's state that must be known to go on from there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// The term of the last claim.
    pub term: u64,
    /// The number that the next entry has: entries that count, claims included, from 0.
    pub n: u64,
    /// The chain's hash after the last entry that counts.
    pub head: Hash,
    /// The chain's hash before it, so that the entry can be checked on its own.
    pub head_before: Hash,
    /// The ledger offset of the last entry that counts; `None` when there is none.
    pub last_offset: Option<u64>,
    /// The ledger offset to read next.
    pub next_offset: u64,
    /// The latest `received` of all frames: the gate's clock never goes back behind it.
    pub received: Millis,
    /// The records applied.
    pub seq: u64,
    /// How far each input partition has been applied, in (topic, partition) order.
    pub inputs: Vec<InputMark>,
    /// How far each output topic is published, in the order of `OutputTopic::ALL`.
    pub outputs: [OutputMark; 4],
    /// Who made the last claim, if that is known. Snapshots keep it behind everything else: older ones have none.
    #[serde(skip)]
    pub owner: Option<Arc<Owner>>,
}

impl Standing {
    /// As it is kept: itself, and who made the last claim.
    ///
    /// # Errors
    /// The encoder refuses.
    pub fn to_bytes(&self) -> Result<Vec<u8>, EncodeError> {
        encode_value(&(self, self.owner.as_deref()))
    }

    /// Reads what [`Standing::to_bytes`] wrote, also before it named who claimed.
    ///
    /// # Errors
    /// It is neither.
    pub fn of_bytes(version: u16, bytes: &[u8]) -> Result<Self, DecodeError> {
        match decode_value::<(Self, Option<Owner>)>(version, bytes) {
            Ok((standing, owner)) => Ok(Self { owner: owner.map(Arc::new), ..standing }),
            Err(error) => decode_value(version, bytes).map_err(|_| error),
        }
    }
}

/// A snapshot that was loaded.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// Where it stands.
    pub standing: Standing,
    /// The state that belongs to no account.
    pub shared: Shared,
    /// All accounts, in the order in which they were opened.
    pub accounts: Vec<Account>,
}

/// What has changed since the last offer that was taken.
#[derive(Clone, Debug)]
pub struct Offer {
    /// Where it stands.
    pub standing: Standing,
    /// The state that belongs to no account.
    pub shared: Shared,
    /// How many accounts there are by now.
    pub accounts: usize,
    /// The accounts that changed: the place of each and its state. All of them when `whole`.
    pub touched: Vec<(u32, Account)>,
    /// It is complete in itself: what is stored is superseded, not added to.
    pub whole: bool,
}

/// A store of snapshots. Called on the shard's thread, so nothing here may wait for a disk but
/// [`SnapshotStore::load`] and [`SnapshotStore::finish`].
pub trait SnapshotStore: Send {
    /// The newest snapshot that is whole, or `None`. Doubtful ones are moved aside, never returned.
    /// Called at start and after the engine has lost its state.
    fn load(&mut self) -> Option<Loaded>;

    /// The snapshot last loaded does not fit the ledger: move it aside and return the next older one.
    fn reject(&mut self, why: &str) -> Option<Loaded>;

    /// Whether an offer would be taken now (the last one is written, or failed).
    fn ready(&self) -> bool;

    /// Whether the next offer has to be whole: nothing is stored yet, or the last offer failed.
    fn wants_whole(&self) -> bool;

    /// Takes a snapshot to write in the background.
    fn offer(&mut self, offer: Offer);

    /// Waits until the last offer is written, at most this long. False when it is not.
    fn finish(&mut self, wait: Duration) -> bool;
}

/// No snapshots: every start folds the whole ledger.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoSnapshots;

impl SnapshotStore for NoSnapshots {
    fn load(&mut self) -> Option<Loaded> {
        None
    }

    fn reject(&mut self, _why: &str) -> Option<Loaded> {
        None
    }

    fn ready(&self) -> bool {
        false
    }

    fn wants_whole(&self) -> bool {
        false
    }

    fn offer(&mut self, _offer: Offer) {}

    fn finish(&mut self, _wait: Duration) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::snapshot::VERSION;

    #[test]
    fn a_standing_keeps_who_claimed_and_one_of_before_is_read_all_the_same() {
        let owner = Some(Arc::new(Owner { name: "gate-1-17".to_owned(), since: 1_795_434_726_221 }));
        let before = Standing { term: 3, n: 70, seq: 900, next_offset: 81, ..Standing::default() };
        for standing in [before.clone(), Standing { owner, ..before.clone() }] {
            let bytes = standing.to_bytes().unwrap();
            assert_eq!(Standing::of_bytes(VERSION, &bytes), Ok(standing));
            for cut in 0..bytes.len() - 1 {
                // Whole without its end is only what was written before there was one.
                let read = Standing::of_bytes(VERSION, &bytes[..cut]);
                assert!(read.is_err() || read.as_ref() == Ok(&before), "{cut}: {read:?}");
            }
        }
        assert_eq!(Standing::of_bytes(VERSION, &encode_value(&before).unwrap()), Ok(before.clone()));
        assert!(Standing::of_bytes(VERSION + 1, &before.to_bytes().unwrap()).is_err());
    }
}
