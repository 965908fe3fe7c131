//! What a gate needs of a cluster: its topics, and the settings that point at it.

use std::process::Command;

use super::client::Topic;
use super::cluster::Cluster;

/// The topics that the gate reads, and whether they are spread over the shards.
const INPUTS: [(&str, bool); 4] =
    [("orders.intents", true), ("orders.executions", true), ("market.prices", false), ("gate.control", false)];
/// How their records have their producers' times, and stay: those of an old day would be beyond any retention at once.
const OLD_DAYS: [(&str, &str); 2] = [("message.timestamp.type", "CreateTime"), ("retention.ms", "-1")];

/// The program: cargo's, or another build of it.
pub fn program() -> String {
    std::env::var("ORDERGATE_BIN").unwrap_or_else(|_| env!("CARGO_BIN_EXE_ordergate").to_owned())
}

impl Cluster {
    /// Makes the gate's topics for so many shards, by the gate's own command, as an operator does.
    pub fn create_gate_topics(&mut self, shards: i32) {
        self.create_missing_topics(shards, "append");
    }

    /// The same for inputs that have their producers' times (`log.timestamps = "producer"`), such as those of a recorded day.
    pub fn create_gate_topics_for_old_days(&mut self, shards: i32) {
        let replicas = i32::try_from(self.brokers().split(',').count()).unwrap();
        let topic = |&(name, spread): &(&'static str, bool)| {
            let partitions = if spread { shards } else { 1 };
            Topic { name, partitions, replicas, settings: &OLD_DAYS }
        };
        self.create_topics(&INPUTS.iter().map(topic).collect::<Vec<_>>());
        self.create_missing_topics(shards, "producer");
    }

    fn create_missing_topics(&mut self, shards: i32, timestamps: &str) {
        let mut command = Command::new(program());
        command.args(["topics", "create"]).env("ORDERGATE__LOG__TIMESTAMPS", timestamps);
        for (key, value) in self.gate_settings("topics", shards) {
            command.env(format!("ORDERGATE__{}", key.to_uppercase().replace('.', "__")), value);
        }
        let mut output = command.output().unwrap();
        if !output.status.success() {
            // It made them, and looked before the brokers all knew of them; the second time there is nothing to make.
            self.wait();
            output = command.output().unwrap();
        }
        assert!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        self.wait();
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
