//! The engine's settings. None of them changes a verdict.

use std::time::Duration;

use super::ownership::Claimant;
use super::routing::Partitioner;

/// The engine's settings.
#[derive(Clone, Debug)]
pub struct Options {
    /// Who claims.
    pub claimant: Claimant,
    /// How producers choose the partition of `orders.*`.
    pub partitioner: Partitioner,
    /// How many frames may wait for their acknowledgement. librdkafka allows at most 5.
    pub frames_in_flight_max: usize,
    /// How many records one frame may hold.
    pub frame_records_max: usize,
    /// How many bytes of records one frame may hold; less than an entry may have.
    pub frame_bytes_max: usize,
    /// How many records may be read ahead.
    pub inbox_records_max: usize,
    /// With more bytes than this read ahead, nothing more is read.
    pub inbox_bytes_max: usize,
    /// With more outputs than this unacknowledged nothing more is decided.
    pub outputs_in_flight_max: usize,
    /// How often an owner with nothing in flight looks whether someone else has claimed.
    pub tail_every: Duration,
    /// How long looking may fail before the shard says that it is not ready.
    pub look_patience: Duration,
    /// How long it waits before it begins again after it lost its log or its term.
    pub retry_after: Duration,
    /// Whether it claims as soon as it has read everything. Otherwise it follows until it is told to.
    pub own: bool,
    /// Whether it claims again after another owner came. Where a group spreads the shards, the group says.
    pub reclaim: bool,
    /// A snapshot at least this often, if anything was applied.
    pub snapshot_every: Duration,
    /// A snapshot at least after so many records.
    pub snapshot_records: u64,
    /// A state hash in every n-th frame; 0 = none but the closing one.
    pub state_hash_frames: u64,
    /// No state hash with more accounts than this (a closing frame: a hundred times as many): it
    /// costs as much as writing them all.
    pub state_hash_accounts_max: usize,
    /// How long stopping, or handing over, may wait for acknowledgements.
    pub drain_max: Duration,
    /// A planted bug, for the simulation to find.
    #[doc(hidden)]
    pub planted: Option<Planted>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            claimant: Claimant::default(),
            partitioner: Partitioner::default(),
            frames_in_flight_max: 5,
            frame_records_max: 4096,
            frame_bytes_max: 200 * 1024,
            inbox_records_max: 16_384,
            inbox_bytes_max: 16 << 20,
            outputs_in_flight_max: 65_536,
            tail_every: Duration::from_millis(100),
            look_patience: Duration::from_secs(5),
            retry_after: Duration::from_secs(1),
            own: true,
            reclaim: true,
            snapshot_every: Duration::from_secs(30),
            snapshot_records: 100_000,
            state_hash_frames: 1000,
            state_hash_accounts_max: 1_000,
            drain_max: Duration::from_secs(20),
            planted: None,
        }
    }
}

/// Bugs that can be planted, one per kind of fault: a checker that does not find them checks nothing.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// Outputs leave before their frame is acknowledged.
    PublishBeforeAck,
    /// An acknowledgement counts wherever it says that the frame stands.
    TrustEveryAck,
    /// A frame or output that failed is passed over, and what is acknowledged behind it counts.
    GoOnAfterFailure,
    /// A new owner decides before it has read up to its claim.
    DecideBeforeClaimIsRead,
    /// A new owner claims with the term that it found.
    ClaimSameTerm,
    /// A recovery publishes nothing.
    SkipRepair,
    /// A recovery takes the last output that is present for the highest.
    RepairAfterLast,
    /// A recovery begins to read the inputs one record too late.
    SeekTooFar,
    /// A recovery begins to read the inputs at the beginning, and nothing notices records applied before.
    SeekToBeginning,
    /// A snapshot is believed without a look at the ledger.
    TrustSnapshots,
    /// A snapshot is taken while frames are in flight.
    SnapshotInFlight,
    /// `received` follows the clock back.
    ClockGoesBack,
    /// An owner that has nothing to append does not look at the ledger.
    NeverTail,
    /// What an output topic no longer keeps is taken for published.
    TrustRetention,
    /// A shard is handed over with frames in flight, and the fold that is ahead of the ledger is kept.
    FollowAhead,
    /// What changed while it followed is not in the next snapshot.
    ForgetTouched,
}

/// All that seeds find soon. `ForgetTouched` has a script of its own.
#[doc(hidden)]
pub const ALL_PLANTED: [Planted; 15] = [
    Planted::PublishBeforeAck,
    Planted::TrustEveryAck,
    Planted::GoOnAfterFailure,
    Planted::DecideBeforeClaimIsRead,
    Planted::ClaimSameTerm,
    Planted::SkipRepair,
    Planted::RepairAfterLast,
    Planted::SeekTooFar,
    Planted::SeekToBeginning,
    Planted::TrustSnapshots,
    Planted::SnapshotInFlight,
    Planted::ClockGoesBack,
    Planted::NeverTail,
    Planted::TrustRetention,
    Planted::FollowAhead,
];
