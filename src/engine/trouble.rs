//! What can stop a shard, and whether it begins again by itself.

use crate::log::{LogError, OutputTopic, Topic};
use crate::wire::frame::FrameError;

use super::fold::Drift;
use super::handle::Phase;
use super::publisher::UnexpectedAck;
use super::replica::FoldError;

/// Why a shard does not go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// The log failed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Another owner came.
    #[error("term {term} belongs to another owner")]
    Deposed {
        /// The other's term.
        term: u64,
    },
    /// A frame of ours was acknowledged and does not count: one before it never landed.
    #[error("entry {n} of this term is acknowledged and does not follow the ledger's last entry that counts")]
    Hole {
        /// The number of the entry.
        n: u64,
    },
    /// The log acknowledged an append out of order.
    #[error("the log acknowledged append {ticket} out of order")]
    AppendOrder {
        /// The ticket.
        ticket: u64,
    },
    /// The log acknowledged a publication out of order.
    #[error(transparent)]
    PublishOrder(#[from] UnexpectedAck),
    /// The ledger cannot be folded.
    #[error(transparent)]
    Fold(#[from] FoldError),
    /// A frame cannot be written.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The ledger lost data.
    #[error("{topic} offset {offset} holds an output of seq {seq}, and the ledger ends at {ledger_seq}")]
    OutputAhead {
        /// The topic.
        topic: Topic,
        /// Where the output stands.
        offset: u64,
        /// Its ledger sequence.
        seq: u64,
        /// The ledger's.
        ledger_seq: u64,
    },
    /// What was published is not what the ledger gives.
    #[error("{topic} offset {offset} holds other bytes for seq {seq} than the ledger gives")]
    OutputDiffers {
        /// The topic.
        topic: Topic,
        /// Where the output stands.
        offset: u64,
        /// Its ledger sequence.
        seq: u64,
    },
    /// An output topic lost records.
    #[error("{topic} ends at offset {end}, and was published up to {mark}", topic = Topic::Output(*topic))]
    OutputLost {
        /// The topic.
        topic: OutputTopic,
        /// Its end.
        end: u64,
        /// How far the ledger says that it was published.
        mark: u64,
    },
    /// An input topic is not the one that was read before.
    #[error("{topic} partition {partition} does not hold the record at offset {offset} that was applied last")]
    InputDiffers {
        /// The topic.
        topic: Topic,
        /// The partition.
        partition: u32,
        /// Where the record stood.
        offset: u64,
    },
}

impl Trouble {
    /// A stable name of it.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Log(error) | Self::Fold(FoldError::Log(error)) => error.code(),
            Self::Deposed { .. } => "DEPOSED",
            Self::Hole { .. } => "LEDGER_HOLE",
            Self::AppendOrder { .. } | Self::PublishOrder(_) => "LOG_ORDER",
            Self::Fold(FoldError::Entry { error: FrameError::NewerVersion { .. }, .. }) => "LEDGER_NEWER_VERSION",
            Self::Fold(FoldError::Entry { .. }) => "LEDGER_CORRUPT",
            Self::Fold(FoldError::Sequence(_)) => "LEDGER_BROKEN",
            Self::Fold(FoldError::Drift { drift: Drift::Order { .. } | Drift::Seq { .. } | Drift::Marks { .. }, .. }) => {
                "LEDGER_INCONSISTENT"
            }
            Self::Fold(FoldError::Drift { drift: Drift::Outputs { .. } | Drift::State { .. }, .. }) => "REPLAY_DRIFT",
            Self::Frame(_) => "FRAME_UNWRITABLE",
            Self::OutputAhead { .. } => "OUTPUT_AHEAD_OF_LEDGER",
            Self::OutputDiffers { .. } => "OUTPUT_DIFFERS",
            Self::OutputLost { .. } => "OUTPUT_LOST",
            Self::InputDiffers { .. } => "INPUT_DIFFERS",
        }
    }

    /// What an operator does about it.
    #[must_use]
    pub const fn advice(&self) -> &'static str {
        match self {
            Self::Log(error) | Self::Fold(FoldError::Log(error)) => error.advice(),
            Self::Deposed { .. } => "nothing, if another instance took the shard over; else look for one that was forgotten",
            Self::Hole { .. } | Self::AppendOrder { .. } | Self::PublishOrder(_) => {
                "nothing: it claims again; if it happens often, look at the broker"
            }
            Self::Fold(FoldError::Entry { error: FrameError::NewerVersion { .. }, .. }) => "start the newer program again",
            Self::Fold(FoldError::Entry { .. } | FoldError::Sequence(_)) => "restore the ledger from a backup; run `ordergate verify`",
            Self::Fold(FoldError::Drift { .. }) => "run `ordergate verify`; start the program version that wrote the ledger",
            Self::Frame(_) => "report it with the record at hand",
            Self::OutputAhead { .. } | Self::OutputDiffers { .. } => "the ledger lost data that was published: restore it from a backup",
            Self::OutputLost { .. } => "restore the output topic, or begin a new ledger and new topics together",
            Self::InputDiffers { .. } => "the topic was deleted and made anew: restore it, or begin a new ledger and new topics together",
        }
    }

    /// Whether it may be gone when the shard begins again.
    #[must_use]
    pub const fn passes(&self) -> bool {
        match self {
            Self::Log(error) | Self::Fold(FoldError::Log(error)) => match error {
                LogError::Busy { .. } | LogError::Full { .. } | LogError::ReadOnly { .. } | LogError::Overloaded { .. } => true,
                LogError::Closed | LogError::Io { .. } | LogError::Denied { .. } => true,
                LogError::Locked { .. } | LogError::Corrupt { .. } | LogError::NewerVersion { .. } => false,
                LogError::OutOfRange { .. } | LogError::NoSuchPartition { .. } | LogError::TooLarge { .. } => false,
            },
            Self::Deposed { .. } | Self::Hole { .. } | Self::AppendOrder { .. } | Self::PublishOrder(_) => true,
            Self::Fold(FoldError::Entry { .. } | FoldError::Sequence(_) | FoldError::Drift { .. }) | Self::Frame(_) => false,
            Self::OutputAhead { .. } | Self::OutputDiffers { .. } | Self::OutputLost { .. } | Self::InputDiffers { .. } => false,
        }
    }

    /// Whether a replica that was only read is as good as before.
    #[must_use]
    pub const fn leaves_the_replica(&self) -> bool {
        match self {
            Self::Log(_) | Self::Fold(FoldError::Log(_)) | Self::Deposed { .. } => true,
            Self::Hole { .. } | Self::AppendOrder { .. } | Self::PublishOrder(_) | Self::Frame(_) => false,
            Self::Fold(FoldError::Entry { .. } | FoldError::Sequence(_) | FoldError::Drift { .. }) => false,
            Self::OutputAhead { .. } | Self::OutputDiffers { .. } | Self::OutputLost { .. } | Self::InputDiffers { .. } => false,
        }
    }

    /// The phase of a shard that has it.
    #[must_use]
    pub fn phase(&self) -> Phase {
        let (code, why) = (self.code(), format!("{self}: {}", self.advice()));
        if self.passes() { Phase::Waiting { code, why } } else { Phase::Refusing { code, why } }
    }
}
