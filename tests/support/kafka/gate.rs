//! What a gate needs of a cluster: its topics, and the settings that point at it.

use super::client::Topic;
use super::cluster::Cluster;

/// A topic, and how its partitions are counted: by shard, or one.
const TOPICS: [(&str, bool); 11] = [
    ("orders.intents", true),
    ("orders.executions", true),
    ("market.prices", false),
    ("gate.control", false),
    ("gate.ledger", true),
    ("gate.decisions", true),
    ("gate.commands", true),
    ("gate.notifications", true),
    ("gate.dead-letter", false),
    ("gate.directory", false),
    ("gate.audit", false),
];

impl Cluster {
    /// Makes the gate's topics for so many shards, as docs/RUNBOOK.md wants them.
    pub fn create_gate_topics(&mut self, shards: i32) {
        self.create_gate_topics_timed(shards, "LogAppendTime");
    }

    /// The same with `message.timestamp.type` of the inputs: whose time a record has.
    pub fn create_gate_topics_timed(&mut self, shards: i32, timestamps: &str) {
        let replicas = i32::try_from(self.brokers().split(',').count()).unwrap();
        let in_sync = if replicas > 1 { "2" } else { "1" };
        let common = [
            ("min.insync.replicas", in_sync),
            ("unclean.leader.election.enable", "false"),
            ("cleanup.policy", "delete"),
            ("message.timestamp.type", "LogAppendTime"),
        ];
        let inputs = [&common[..3], &[("message.timestamp.type", timestamps), ("retention.ms", "-1")]].concat();
        let kept = [common.as_slice(), &[("retention.ms", "-1"), ("compression.type", "lz4")]].concat();
        let topic = |&(name, sharded): &(&'static str, bool)| {
            let settings = match name {
                "gate.ledger" | "gate.directory" | "gate.audit" => kept.as_slice(),
                "orders.intents" | "orders.executions" | "market.prices" | "gate.control" => inputs.as_slice(),
                _ => &common,
            };
            Topic { name, partitions: if sharded { shards } else { 1 }, replicas, settings }
        };
        self.create_topics(&TOPICS.iter().map(topic).collect::<Vec<_>>());
    }

    /// The settings of an instance on this cluster.
    pub fn gate_settings(&self, instance: &str, shards: i32) -> Vec<(String, String)> {
        let settings = [
            ("log.kind", "kafka".to_owned()),
            ("kafka.brokers", self.brokers()),
            ("kafka.instance", instance.to_owned()),
            ("shard.count", shards.to_string()),
        ];
        settings.map(|(key, value)| (key.to_owned(), value)).to_vec()
    }
}
