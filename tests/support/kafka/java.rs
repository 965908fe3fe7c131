//! The test programs in Java: Apache Kafka's own client, run from source with the broker's jars.

use std::io::Write;
use std::process::{Command, Stdio};

use super::cluster::Cluster;
use super::source;

impl Cluster {
    /// Makes a user who proves by SCRAM-SHA-256 that the password is known.
    pub fn add_scram_user(&self, name: &str, password: &str) {
        let mut command = Command::new("java");
        command.args(["-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp"]).arg(self.home().path().join("libs/*"));
        let config = format!("SCRAM-SHA-256=[iterations=4096,password={password}]");
        command.args(["kafka.admin.ConfigCommand", "--bootstrap-server", &self.brokers(), "--alter", "--add-config", &config]);
        let output = command.args(["--entity-type", "users", "--entity-name", name]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Runs a program of `tests/kafka` with the brokers as its first argument, gives it lines, and returns the lines it prints.
    pub fn java(&self, program: &str, arguments: &[&str], lines: &str) -> Vec<String> {
        let mut command = Command::new("java");
        command.args(["-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp"]).arg(self.home().path().join("libs/*"));
        command.arg(source(program)).arg(self.brokers()).args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let lines = lines.to_owned();
        let writer = std::thread::spawn(move || stdin.write_all(lines.as_bytes()));
        let output = child.wait_with_output().unwrap();
        let written = writer.join().unwrap();
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
        written.unwrap();
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
    }
}
