//! The log on Apache Kafka: the port of `log.rs` by librdkafka, and what belongs to it.
//!
//! Invariant: an acknowledgement names the offset of its own record; what is consumed is committed
//! (`read_committed`) and begins where the ledger says, never where a group's offsets say. Which
//! instance runs a shard is the group's suggestion ([`Membership`]); whose decisions count is said by
//! the ledger alone. Deliberately absent: transactions around the gate's own records, and any
//! automatic reset of a position.

mod admin;
mod client;
mod cluster;
mod decided;
mod doctor;
mod error;
mod group;
mod inbox;
mod ingress;
mod inputs;
mod membership;
mod polled;
mod producers;
mod reader;
mod sender;
mod settings;
mod shard_log;
mod tails;
mod topics;
mod unassigned;

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::engine::Partitioner;
use crate::wire::TopicNames;

pub use admin::{
    Admin, Creation, Finding, Guarantee, NotCreated, Plan, Seen, SeenBroker, SeenPartition, SeenTopic, Severity, Unseen,
    check as check_topics, in_words as findings_in_words,
};
pub use cluster::Cluster;
pub use decided::DecisionWatch;
pub use doctor::{Broker, Claimed, Clock, Diagnosis, Head, LedgerEnd, Named, Permission, Problem, SourceLag, examine};
pub use group::{Group, Member};
pub use membership::{Assignment, GroupError, Membership};
pub use reader::Reader;
pub use sender::Sender;
pub use settings::{Refusal, is_settled, refusals};
pub use shard_log::KafkaShardLog;
pub use topics::KafkaTopics;

/// How to reach a cluster, and as whom.
#[derive(Clone, Debug)]
pub struct KafkaOptions {
    /// `host:port`, comma-separated.
    pub brokers: String,
    /// The consumer group that spreads the shards.
    pub group: String,
    /// This instance's name in it: stable over restarts, and no other instance's.
    pub instance: String,
    /// Whether a restart keeps its place in the group, instead of giving it up at once.
    pub is_static: bool,
    /// The number of shards: the partitions of `orders.*`.
    pub shards: u32,
    /// How producers choose the partition of `orders.*`.
    pub partitioner: Partitioner,
    /// The topics' names.
    pub names: TopicNames,
    /// How long the group waits for an instance that is silent, in ms.
    pub session_timeout_ms: u64,
    /// How long one question to the cluster may take, in ms.
    pub request_timeout_ms: u64,
    /// Properties of librdkafka, for every client.
    pub properties: BTreeMap<String, String>,
    /// Properties whose values are secrets, each with the file that holds it.
    pub secret_files: BTreeMap<String, PathBuf>,
    /// Where the token for SASL OAUTHBEARER is; read again whenever one is needed.
    pub token_file: Option<PathBuf>,
}

impl KafkaOptions {
    /// As what its clients are known to the brokers.
    fn client_id(&self) -> String {
        format!("{}-{}", self.group, self.instance)
    }

    /// Whether it shows a token (SASL OAUTHBEARER).
    #[must_use]
    pub fn uses_tokens(&self) -> bool {
        let names = ["sasl.mechanism", "sasl.mechanisms"];
        names.iter().filter_map(|name| self.properties.get(*name)).any(|mechanism| mechanism.eq_ignore_ascii_case("OAUTHBEARER"))
    }
}

impl Default for KafkaOptions {
    fn default() -> Self {
        Self {
            brokers: "127.0.0.1:9092".into(),
            group: "ordergate".into(),
            instance: "gate-1".into(),
            is_static: true,
            shards: 1,
            partitioner: Partitioner::default(),
            names: TopicNames::default(),
            session_timeout_ms: 10_000,
            request_timeout_ms: 5_000,
            properties: BTreeMap::new(),
            secret_files: BTreeMap::new(),
            token_file: None,
        }
    }
}
