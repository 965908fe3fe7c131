//! Floor 5: the single-writer loop of a shard, and everything that folds a ledger.
//!
//! Invariant: what the engine decides it has committed before anyone learns of it, and the log
//! alone says whether it may decide. Deliberately absent: any particular log, store or clock.

mod snapshots;

pub use snapshots::{Loaded, NoSnapshots, Offer, SnapshotStore, Standing};
