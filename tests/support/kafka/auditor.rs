//! The auditor: a program in Python that shares no code with the gate, run over everything that the topics hold.

use std::process::Command;

use serde_json::Value;

use super::cluster::Cluster;
use super::source;

impl Cluster {
    /// Audits all topics and gives the figures and the violations, of which there may be some.
    pub fn audit(&self, arguments: &[&str]) -> Value {
        let output = Command::new(self.home().path().join("venv/bin/python"))
            .arg(source("audit.py"))
            .args(["--brokers", &self.brokers()])
            .args(arguments)
            .output()
            .unwrap();
        let code = output.status.code();
        assert!(matches!(code, Some(0 | 1)), "the auditor failed: {}", String::from_utf8_lossy(&output.stderr));
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let clean = report["violations"].as_array().unwrap().is_empty();
        assert_eq!(code, Some(i32::from(!clean)), "the exit code tells whether there are violations");
        report
    }

    /// Audits all topics, and panics at violations.
    pub fn audit_clean(&self, arguments: &[&str]) -> Value {
        let report = self.audit(arguments);
        assert!(report["violations"].as_array().unwrap().is_empty(), "{report:#}");
        report
    }
}
