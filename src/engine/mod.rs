//! Floor 5: the single-writer loop of a shard, and everything that folds a ledger.
//!
//! Invariant: what the engine decides it has committed before anyone learns of it, and the log
//! alone says whether it may decide. Deliberately absent: any particular log, store or clock.

mod clock;
mod codec;
mod fold;
mod handle;
mod observer;
mod options;
mod owner;
mod ownership;
mod published;
mod publisher;
mod recovery;
mod replay;
mod replica;
mod routing;
mod service;
mod shard;
mod snapshots;
mod trouble;
mod upkeep;
mod verify;

pub use clock::{Clock, SystemClock};
pub use codec::event_of;
pub use fold::{Decoded, Drift, Fold, Told, position_text, state_hash};
pub use handle::{Answer, Handle, Phase, Status};
pub use observer::{Committed, NoObserver, Observer};
pub use options::{ALL_PLANTED, Options, Planted};
pub use ownership::{Claimant, Judgement, Owner, Sequence, SequenceError};
pub use published::{Fault, Found, OutputPlace, Publications, Sight};
pub use replay::{EventLog, ReplayError, Replayed, Visit, replay_ledger, replay_lines};
pub use replica::{FoldError, Replica};
pub use routing::{Partitioner, Router};
pub use service::{Service, spawn};
pub use shard::Shard;
pub use snapshots::{Loaded, NoSnapshots, Offer, SnapshotStore, Standing};
pub use trouble::Trouble;
pub use verify::{Verified, verify};
