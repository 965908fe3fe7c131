//! What every topic must be: partitions, replicas, settings.
//!
//! Invariant: what `topics create` makes, `topics check` finds nothing wrong with (a test holds them
//! against each other).

use crate::domain::InputTopic;
use crate::log::Topic;
use crate::wire::{OutputTopic, TopicNames};

/// The number of copies that survive a broker at work and another one that is lost.
pub const REPLICAS: usize = 3;
/// Of those, how many have a record before it is acknowledged.
pub const IN_SYNC: usize = 2;
/// The longest batch that our producers send (librdkafka's `message.max.bytes` and `batch.size`), with its head. A ledger entry is at
/// most 512 KiB, but several short ones can share a batch.
pub const BATCH_BYTES: i64 = 1_000_000 + 1_024;
/// The same of commands, one of which may name every working order of an account (`OUTPUT_BYTES_MAX` of the settings).
const COMMAND_BATCH_BYTES: i64 = 8_388_608 + 1_024;
/// What topics are made with: Kafka's own default.
const MESSAGE_BYTES: i64 = 1_048_588;
/// The same of an output.
const OUTPUT_BYTES: i64 = 9_437_184;
const DAY_MS: i64 = 24 * 60 * 60 * 1_000;
/// What is erased is gone from a compacted topic after this time, or little more.
const COMPACTION_LAG_MS: i64 = DAY_MS;
/// Readers that were away for less than this find every tombstone.
pub const TOMBSTONE_MS_LEAST: i64 = DAY_MS;
/// What is erased should not stay for longer than this.
pub const COMPACTION_LAG_MS_MOST: i64 = 7 * DAY_MS;
/// Less than this is gone before a team is back from its weekend or its incident.
pub const RETENTION_MS_LEAST: i64 = DAY_MS;

/// What the deployment says about its topics.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The number of shards.
    pub shards: u32,
    /// The number of partitions that market data is made with; any number will do later.
    pub price_partitions: u32,
    /// The number of replicas to make; as many as the cluster can have, up to three, when it is not given.
    pub replication: Option<usize>,
    /// The records' times are their producers' (`log.timestamps`).
    pub producer_time: bool,
    /// The topics' names.
    pub names: TopicNames,
    /// The brokers, for the commands that mend.
    pub brokers: String,
    /// Whether those commands need a file with TLS or SASL settings.
    pub secured: bool,
}

impl Plan {
    /// The partitions that a topic must have; `None` where any number will do.
    #[must_use]
    pub const fn partitions(&self, topic: Topic) -> Option<u32> {
        match topic {
            Topic::Input(InputTopic::Intents | InputTopic::Executions) | Topic::Ledger => Some(self.shards),
            Topic::Output(OutputTopic::Decisions | OutputTopic::Commands | OutputTopic::Notifications) => Some(self.shards),
            Topic::Input(InputTopic::Prices) => None,
            Topic::Input(InputTopic::Control) | Topic::Output(OutputTopic::DeadLetter) | Topic::Directory | Topic::Audit => Some(1),
        }
    }

    /// The partitions that a topic is made with.
    #[must_use]
    pub fn partitions_made(&self, topic: Topic) -> u32 {
        self.partitions(topic).unwrap_or(self.price_partitions)
    }

    /// The replicas that a topic should have in a cluster of so many brokers.
    #[must_use]
    pub fn replicas(&self, brokers: usize) -> usize {
        self.replication.unwrap_or(REPLICAS.min(brokers)).max(1)
    }

    /// Whether a topic's times are its producers'.
    #[must_use]
    pub const fn has_producer_time(&self, topic: Topic) -> bool {
        self.producer_time && matches!(topic, Topic::Input(_))
    }

    /// The settings that a topic is made with.
    #[must_use]
    pub fn settings(&self, topic: Topic, replicas: usize) -> Vec<(&'static str, String)> {
        let time = if self.has_producer_time(topic) { "CreateTime" } else { "LogAppendTime" };
        let mut settings = vec![
            ("cleanup.policy", cleanup(topic).into()),
            ("compression.type", compression(topic).into()),
            ("max.message.bytes", message_bytes(topic).to_string()),
            ("message.timestamp.type", time.into()),
            ("min.insync.replicas", IN_SYNC.min(replicas).to_string()),
            ("retention.bytes", "-1".into()),
            ("retention.ms", retention_ms(topic).to_string()),
            ("unclean.leader.election.enable", "false".into()),
        ];
        if is_compacted(topic) {
            settings.push(("max.compaction.lag.ms", COMPACTION_LAG_MS.to_string()));
        }
        settings
    }
}

/// How a topic is cleaned up.
#[must_use]
pub const fn cleanup(topic: Topic) -> &'static str {
    if is_compacted(topic) { "compact" } else { "delete" }
}

/// Whether the last record of each key is enough of a topic: the keys of the directory name single records, so that this is those
/// which are not tombstoned.
#[must_use]
pub const fn is_compacted(topic: Topic) -> bool {
    match topic {
        Topic::Directory => true,
        Topic::Input(_) | Topic::Ledger | Topic::Output(_) | Topic::Audit => false,
    }
}

/// The longest batch that a topic takes. One command may name every working order of an account.
const fn message_bytes(topic: Topic) -> i64 {
    match topic {
        Topic::Output(_) => OUTPUT_BYTES,
        Topic::Input(_) | Topic::Ledger | Topic::Directory | Topic::Audit => MESSAGE_BYTES,
    }
}

/// The longest batch that a topic must take, and what to set where it does not.
#[must_use]
pub const fn batch_bytes(topic: Topic) -> (i64, i64) {
    match topic {
        Topic::Output(OutputTopic::Commands) => (COMMAND_BATCH_BYTES, OUTPUT_BYTES),
        Topic::Output(OutputTopic::Decisions | OutputTopic::Notifications | OutputTopic::DeadLetter) => (BATCH_BYTES, MESSAGE_BYTES),
        Topic::Input(_) | Topic::Ledger | Topic::Directory | Topic::Audit => (BATCH_BYTES, MESSAGE_BYTES),
    }
}

/// How a topic is kept: lz4 doubles the rate at which a ledger is read again.
#[must_use]
pub const fn compression(topic: Topic) -> &'static str {
    match topic {
        Topic::Ledger => "lz4",
        Topic::Input(_) | Topic::Output(_) | Topic::Directory | Topic::Audit => "producer",
    }
}

/// How long a topic's records are kept; -1 for ever.
#[must_use]
pub const fn retention_ms(topic: Topic) -> i64 {
    match topic {
        Topic::Ledger | Topic::Input(InputTopic::Control) | Topic::Directory | Topic::Audit => -1,
        Topic::Input(InputTopic::Intents | InputTopic::Executions | InputTopic::Prices) => 7 * DAY_MS,
        Topic::Output(OutputTopic::Decisions | OutputTopic::Commands | OutputTopic::Notifications) => 30 * DAY_MS,
        // All shards share it: one that refuses nothing would find its place in it gone.
        Topic::Output(OutputTopic::DeadLetter) => -1,
    }
}

/// Whether a shard writes to a topic by itself, so that a refused record stops it.
#[must_use]
pub const fn is_ours(topic: Topic) -> bool {
    match topic {
        Topic::Ledger | Topic::Output(_) => true,
        Topic::Input(_) | Topic::Directory | Topic::Audit => false,
    }
}

/// Whether the loss of an acknowledged record of a topic is more than a price that the next one replaces.
#[must_use]
pub const fn is_precious(topic: Topic) -> bool {
    match topic {
        Topic::Input(InputTopic::Prices) => false,
        Topic::Input(InputTopic::Intents | InputTopic::Executions | InputTopic::Control) => true,
        Topic::Ledger | Topic::Output(_) | Topic::Directory | Topic::Audit => true,
    }
}
