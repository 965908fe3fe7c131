//! Snapshots as the engine sees them: something to start from instead of the ledger's beginning.
//!
//! Invariant: a snapshot is offered only when every frame of it is acknowledged and every output of
//! it is published, so nothing that a recovery needs lies before it (its output marks may lie behind it). It is a hint: recovery holds
//! its [`Standing`] against the ledger and refolds when they disagree. Deliberately absent: where
//! and how it is kept (`snapshot/`).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::domain::Millis;
use crate::gate::{Account, Shared};
use crate::wire::frame::{Hash, InputMark, OutputMark};

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
