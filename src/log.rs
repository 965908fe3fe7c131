//! The log port: what a shard needs of a log, whichever log it is.
//!
//! Invariant: everything here can be kept by Kafka, by one SQLite file and by a simulated world.
//! Appends and publications are acknowledged later, each with the offset of its own record, in the
//! order in which they were asked for; [`ShardLog::poll`] returns within the time that it is given.
//! Deliberately absent: transactions, locks, leases. Who owns a shard is decided by what the
//! ledger holds (`engine/ownership.rs`), never by this port.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};

use crate::domain::{InputTopic, Millis, Source};
use crate::wire::{self, TopicNames};

pub use crate::wire::OutputTopic;

/// Every topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Topic {
    /// One of the four that the gate reads.
    Input(InputTopic),
    /// `gate.ledger`
    Ledger,
    /// One of those that the gate writes.
    Output(OutputTopic),
    /// `gate.directory`
    Directory,
    /// `gate.audit`
    Audit,
}

impl Topic {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Input(InputTopic::Intents),
        Self::Input(InputTopic::Executions),
        Self::Input(InputTopic::Prices),
        Self::Input(InputTopic::Control),
        Self::Ledger,
        Self::Output(OutputTopic::Decisions),
        Self::Output(OutputTopic::Commands),
        Self::Output(OutputTopic::Notifications),
        Self::Output(OutputTopic::DeadLetter),
        Self::Directory,
        Self::Audit,
    ];

    /// Its default name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Input(topic) => topic.as_str(),
            Self::Ledger => "gate.ledger",
            Self::Output(topic) => topic.as_str(),
            Self::Directory => "gate.directory",
            Self::Audit => "gate.audit",
        }
    }

    /// Its name where this gate runs.
    #[must_use]
    pub fn name_in(self, names: &TopicNames) -> &str {
        match self {
            Self::Input(topic) => names.input(topic),
            Self::Ledger => &names.ledger,
            Self::Output(topic) => names.output(topic),
            Self::Directory | Self::Audit => self.name(),
        }
    }

    /// The topic of a name where this gate runs.
    #[must_use]
    pub fn find_in(names: &TopicNames, name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|topic| topic.name_in(names) == name)
    }

    /// The topic of a default name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|topic| topic.name() == name)
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which output this is: the same for every copy of it, whoever publishes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OutputTag {
    /// The shard.
    pub shard: u32,
    /// The ledger sequence of the record that caused it, from 1.
    pub seq: u64,
    /// Its place among all outputs of that record, from 0.
    pub index: u32,
}

/// A record as a log keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRecord {
    /// Its offset within its partition.
    pub offset: u64,
    /// Its timestamp.
    pub ts: Millis,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub payload: Vec<u8>,
    /// Which output it is; only in output topics (in Kafka a header).
    pub tag: Option<OutputTag>,
}

impl StoredRecord {
    /// Appends it as a line. The ledger's entries are no text and stand there as base64.
    pub fn write_line(&self, topic: Topic, name: &str, partition: u32, lines: &mut Vec<u8>) {
        let payload = match topic {
            Topic::Ledger => Cow::Owned(BASE64_STANDARD.encode(&self.payload).into_bytes()),
            Topic::Input(_) | Topic::Output(_) | Topic::Directory | Topic::Audit => Cow::Borrowed(self.payload.as_slice()),
        };
        wire::write_any_line(lines, name, partition, Some(self.offset), self.ts, self.key.as_deref(), &payload);
    }
}

/// A record of an input topic, as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputRecord {
    /// Where it stands.
    pub source: Source,
    /// Its log timestamp.
    pub ts: Millis,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub payload: Vec<u8>,
}

/// An output on its way to its topic, in the shard's partition of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputRecord {
    /// The topic.
    pub topic: OutputTopic,
    /// Which output it is.
    pub tag: OutputTag,
    /// The record that caused it. A decision that is published again has another one than the decision names.
    pub source: Source,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub payload: Vec<u8>,
}

/// The next offset to read of one input partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Position {
    /// The topic.
    pub topic: InputTopic,
    /// The partition.
    pub partition: u32,
    /// The next offset. Offsets may have gaps; what is read is at or above it.
    pub next: u64,
}

/// A partition that belongs to the shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ShardTopic {
    /// A partition of an input topic.
    Input {
        /// The topic.
        topic: InputTopic,
        /// The partition.
        partition: u32,
    },
    /// The shard's ledger.
    Ledger,
    /// The shard's partition of an output topic.
    Output(OutputTopic),
}

/// What a shard reads, and how many shards there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// This shard.
    pub shard: u32,
    /// The number of shards: the partitions of `orders.*`.
    pub shards: u32,
    /// The input partitions that this shard reads.
    pub inputs: Vec<(InputTopic, u32)>,
}

/// What happened in the log since the last poll.
#[derive(Clone, Debug)]
pub enum LogEvent {
    /// The next record of an input partition, in offset order within it.
    Input(InputRecord),
    /// A ledger entry is durable.
    Appended {
        /// As given to [`ShardLog::append`].
        ticket: u64,
        /// Where it stands.
        offset: u64,
    },
    /// An output is durable.
    Published {
        /// As given to [`ShardLog::publish`].
        ticket: u64,
        /// The topic.
        topic: OutputTopic,
        /// Where it stands.
        offset: u64,
    },
    /// An append or a publication failed, and whether it landed is not known. What was asked for
    /// after it may have landed all the same: the owner calls [`ShardLog::abandon`], claims a new
    /// term and reads the ledger.
    Failed {
        /// As given to [`ShardLog::append`] or [`ShardLog::publish`].
        ticket: u64,
        /// What went wrong.
        error: LogError,
    },
}

/// Makes a waiting [`ShardLog::poll`] return early. Any thread may call it.
pub type Waker = Arc<dyn Fn() + Send + Sync>;

/// A shard's side of a log. One thread owns it.
pub trait ShardLog {
    /// What this shard reads.
    fn layout(&self) -> Layout;

    /// What wakes this shard's [`ShardLog::poll`].
    fn waker(&self) -> Waker;

    /// Delivers inputs from these positions on; of partitions not named, from their beginning.
    ///
    /// # Errors
    /// The log cannot be read, or no longer (or not yet) holds a position.
    fn seek(&mut self, positions: &[Position]) -> Result<(), LogError>;

    /// Adds what happened to `events`: at once when there is something, else after at most `wait`.
    /// `max_inputs` bounds the inputs (0: only acknowledgements are wanted now).
    ///
    /// # Errors
    /// The log is lost to this shard: nothing it asks for will be acknowledged any more.
    fn poll(&mut self, events: &mut Vec<LogEvent>, max_inputs: usize, wait: Duration) -> Result<(), LogError>;

    /// Inputs that were fetched and wait for [`ShardLog::poll`].
    fn fetched(&self) -> usize {
        0
    }

    /// Appends an entry to the shard's ledger; acknowledged by [`LogEvent::Appended`], in the order of the calls.
    ///
    /// # Errors
    /// It was not taken, and will not land.
    fn append(&mut self, ticket: u64, entry: Vec<u8>) -> Result<(), LogError>;

    /// Publishes an output; acknowledged by [`LogEvent::Published`], per topic in the order of the calls.
    ///
    /// # Errors
    /// It was not taken, and will not land.
    fn publish(&mut self, ticket: u64, output: OutputRecord) -> Result<(), LogError>;

    /// Reads up to `limit` records at or above `from`, as far as they are known to exist; empty at the end.
    ///
    /// # Errors
    /// The log cannot be read, or no longer holds `from`.
    fn read(&mut self, topic: ShardTopic, from: u64, limit: usize) -> Result<Vec<StoredRecord>, LogError>;

    /// The offset that the next record will have at least. Everything acknowledged to anyone before
    /// the call is below it.
    ///
    /// # Errors
    /// The log cannot be asked.
    fn end(&mut self, topic: ShardTopic) -> Result<u64, LogError>;

    /// The end of a partition as far as this log has seen it lately, told without asking anyone;
    /// `None` when it has seen nothing of it. Good for what is shown, never for what is decided.
    fn seen_end(&mut self, topic: ShardTopic) -> Option<u64>;

    /// Forgets everything in flight: no acknowledgement of it will be delivered any more, though it
    /// may still land.
    fn abandon(&mut self);
}

/// A record that someone appends to a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRecord {
    /// The topic.
    pub topic: Topic,
    /// The partition; the log chooses by the key when it is not given.
    pub partition: Option<u32>,
    /// The producer's time of it, which counts only where the topic is configured so.
    pub ts: Option<Millis>,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub payload: Vec<u8>,
}

/// Where an appended record stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Placed {
    /// The topic.
    pub topic: Topic,
    /// The partition.
    pub partition: u32,
    /// The offset.
    pub offset: u64,
}

/// Where a partition begins and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The topic.
    pub topic: Topic,
    /// The partition.
    pub partition: u32,
    /// The first offset that is still there.
    pub first: u64,
    /// The offset that the next record will have.
    pub next: u64,
}

/// What is told when an append is durable, or is not.
pub type AppendDone = Box<dyn FnOnce(Result<Vec<Placed>, LogError>) + Send>;

/// The side of a log for everyone but the shard: the HTTP face, tools, readers. Shared by threads.
pub trait Topics: Send + Sync {
    /// Appends all records or none of them and says where they stand once they are durable, in the
    /// same order. Never blocks; `done` is called exactly once, from the log's thread, and returns at once.
    fn append(&self, records: Vec<NewRecord>, done: AppendDone);

    /// Reads up to `limit` records at or above `from`, as far as they are durable.
    ///
    /// # Errors
    /// The log cannot be read, or has no such partition.
    fn read(&self, topic: Topic, partition: u32, from: u64, limit: usize) -> Result<Vec<StoredRecord>, LogError>;

    /// Where every partition begins and ends.
    ///
    /// # Errors
    /// The log cannot be asked.
    fn extents(&self) -> Result<Vec<Extent>, LogError>;

    /// Where one partition begins and ends.
    ///
    /// # Errors
    /// The log cannot be asked, or has no such partition.
    fn extent(&self, topic: Topic, partition: u32) -> Result<Extent, LogError> {
        let found = self.extents()?.into_iter().find(|extent| (extent.topic, extent.partition) == (topic, partition));
        found.ok_or(LogError::NoSuchPartition { topic, partition })
    }

    /// Changes after every commit: wait for it, then read.
    fn changes(&self) -> tokio::sync::watch::Receiver<u64>;

    /// Why the log takes nothing at the moment, if so.
    fn refusing(&self) -> Option<LogError>;
}

/// The decisions of a log that several instances decide on, whoever decided.
pub trait Verdicts: Send + Sync {
    /// Somebody is about to append an intent: decisions are kept from now on, until this is dropped.
    fn expect(&self) -> Box<dyn Expected>;
}

/// An intent that is being appended, or waits for its decision.
pub trait Expected: Send + Sync {
    /// The decision on the intent at this place, as it stands in its topic, when it comes or at once.
    fn of(&self, source: Source) -> tokio::sync::oneshot::Receiver<Vec<u8>>;
}

/// What can be wrong with a log. [`LogError::code`] names it, [`LogError::advice`] says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// Another process has the data directory.
    #[error("the data directory {path} is in use by another process")]
    Locked {
        /// The directory.
        path: String,
    },
    /// The log cannot be reached or answers too late.
    #[error("the log is busy: {detail}")]
    Busy {
        /// What it said.
        detail: String,
    },
    /// What is stored is damaged.
    #[error("the log is corrupt: {detail}")]
    Corrupt {
        /// What is damaged.
        detail: String,
    },
    /// No space is left.
    #[error("the log's disk is full: {detail}")]
    Full {
        /// What it said.
        detail: String,
    },
    /// It may not be written.
    #[error("the log is read-only: {detail}")]
    ReadOnly {
        /// What it said.
        detail: String,
    },
    /// It was written by a newer version.
    #[error("the log has format {found}, and this program knows up to {known}")]
    NewerVersion {
        /// The format found.
        found: u32,
        /// The newest format known.
        known: u32,
    },
    /// A position that the log does not hold.
    #[error("{topic} partition {partition} holds offsets {first} to {next}, and {asked} was asked for")]
    OutOfRange {
        /// The topic.
        topic: Topic,
        /// The partition.
        partition: u32,
        /// The offset asked for.
        asked: u64,
        /// The first offset held.
        first: u64,
        /// The end.
        next: u64,
    },
    /// A topic or partition that the log does not have.
    #[error("there is no partition {partition} of {topic}")]
    NoSuchPartition {
        /// The topic.
        topic: Topic,
        /// The partition.
        partition: u32,
    },
    /// A record that the log does not take.
    #[error("a record of {bytes} bytes is above the limit of {limit}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// More is waiting than the log takes.
    #[error("{waiting} records are waiting to be written, and the limit is {limit}")]
    Overloaded {
        /// How many are waiting.
        waiting: usize,
        /// The limit.
        limit: usize,
    },
    /// It knows us, and does not let us, or does not know us.
    #[error("the log refuses us: {detail}")]
    Denied {
        /// What it said.
        detail: String,
    },
    /// The log is shut down, or stopped after an error.
    #[error("the log is closed")]
    Closed,
    /// Any other failure of the operating system or the broker.
    #[error("the log failed: {detail}")]
    Io {
        /// What it said.
        detail: String,
    },
}

impl LogError {
    /// A stable name of it.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Locked { .. } => "LOG_LOCKED",
            Self::Busy { .. } => "LOG_BUSY",
            Self::Corrupt { .. } => "LOG_CORRUPT",
            Self::Full { .. } => "LOG_FULL",
            Self::ReadOnly { .. } => "LOG_READ_ONLY",
            Self::NewerVersion { .. } => "LOG_NEWER_VERSION",
            Self::OutOfRange { .. } => "LOG_OUT_OF_RANGE",
            Self::NoSuchPartition { .. } => "LOG_NO_SUCH_PARTITION",
            Self::TooLarge { .. } => "LOG_TOO_LARGE",
            Self::Overloaded { .. } => "LOG_OVERLOADED",
            Self::Denied { .. } => "LOG_DENIED",
            Self::Closed => "LOG_CLOSED",
            Self::Io { .. } => "LOG_IO",
        }
    }

    /// What an operator does about it.
    #[must_use]
    pub const fn advice(&self) -> &'static str {
        match self {
            Self::Locked { .. } => "stop the other ordergate, or give this one another data directory",
            Self::Busy { .. } => "look for another program that has the file open, or at the broker; it is tried again",
            Self::Corrupt { .. } => "stop, keep a copy of the data directory, restore the last backup, then run `ordergate verify`",
            Self::Full { .. } => "free space on the disk of the data directory; nothing acknowledged is lost",
            Self::ReadOnly { .. } => "give the daemon's user the right to write to the data directory, and look at the file system's state",
            Self::NewerVersion { .. } => "start the newer ordergate again, or another data directory",
            Self::OutOfRange { .. } => {
                "what was to be read next is gone: retention was too short, or the topic was truncated or made anew; restore it, the ledger still needs it"
            }
            Self::NoSuchPartition { .. } => "create the topic with the configured number of partitions",
            Self::TooLarge { .. } => "send a smaller record",
            Self::Overloaded { .. } => "send again later",
            Self::Denied { .. } => "look at kafka.properties, kafka.secret_files, the certificates, and the broker's users and ACLs",
            Self::Closed => "look at the error before this one, then restart",
            Self::Io { .. } => "look at the operating system's log; nothing acknowledged is lost",
        }
    }
}
