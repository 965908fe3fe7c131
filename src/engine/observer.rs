//! What the engine tells of its work, for metrics and logs.
//!
//! Invariant: nothing that an observer does changes what the engine does.

use crate::domain::{Effects, Millis, Source};

use super::handle::Phase;

/// Facts about one frame that was committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The records in it.
    pub records: usize,
    /// Its length as an entry.
    pub bytes: usize,
    /// The outputs of its records.
    pub outputs: usize,
    /// From the append to the acknowledgement, in microseconds.
    pub commit_us: u64,
    /// Frames still in flight.
    pub in_flight: usize,
    /// The ledger sequence of its last record.
    pub seq: u64,
}

/// Someone who is told. Called on the shard's thread: it counts and returns.
pub trait Observer: Send {
    /// A record was applied live; it may yet not be committed. `nanos` is the time of the fold alone.
    fn applied(&mut self, source: Source, at: Millis, effects: &Effects, nanos: u64) {
        let _ = (source, at, effects, nanos);
    }

    /// A frame was committed.
    fn committed(&mut self, frame: Committed) {
        let _ = frame;
    }

    /// An output was published (`repaired`: it was absent after a take-over).
    fn published(&mut self, repaired: bool) {
        let _ = repaired;
    }

    /// The phase changed.
    fn phase(&mut self, phase: &Phase) {
        let _ = phase;
    }

    /// The fold of the ledger gave another result than was recorded.
    fn drifted(&mut self, what: &str) {
        let _ = what;
    }

    /// A snapshot was offered at this sequence.
    fn snapshot_offered(&mut self, seq: u64) {
        let _ = seq;
    }
}

/// Nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoObserver;

impl Observer for NoObserver {}
