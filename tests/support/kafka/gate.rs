//! What a gate needs of a cluster: its topics, and the settings that point at it.

use std::process::Command;

use super::cluster::Cluster;

/// The program: cargo's, or another build of it.
pub fn program() -> String {
    std::env::var("ORDERGATE_BIN").unwrap_or_else(|_| env!("CARGO_BIN_EXE_ordergate").to_owned())
}

impl Cluster {
    /// Makes the gate's topics for so many shards, by the gate's own command, as an operator does.
    pub fn create_gate_topics(&mut self, shards: i32) {
        let mut command = Command::new(program());
        command.args(["topics", "create"]);
        for (key, value) in self.gate_settings("topics", shards) {
            command.env(format!("ORDERGATE__{}", key.to_uppercase().replace('.', "__")), value);
        }
        let output = command.output().unwrap();
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
