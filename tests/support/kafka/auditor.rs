//! The auditor: a program in Python that shares no code with the gate, run over everything that the topics hold.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::cluster::Cluster;
use super::{Home, source};

impl Home {
    /// Runs the auditor and gives the figures and the violations, of which there may be some.
    fn audit(&self, arguments: &[&str]) -> Value {
        let python = self.path().join("venv/bin/python");
        let output = Command::new(python).arg(source("audit.py")).args(arguments).output().unwrap();
        let code = output.status.code();
        assert!(matches!(code, Some(0 | 1)), "the auditor failed: {}", String::from_utf8_lossy(&output.stderr));
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let clean = report["violations"].as_array().unwrap().is_empty();
        assert_eq!(code, Some(i32::from(!clean)), "the exit code tells whether there are violations");
        report
    }

    /// Audits the file of an embedded log.
    pub fn audit_file(&self, path: &Path) -> Value {
        self.audit(&["--drained", "--sqlite", path.to_str().unwrap()])
    }
}

impl Cluster {
    /// Audits all topics and gives the figures and the violations, of which there may be some.
    pub fn audit(&self, arguments: &[&str]) -> Value {
        let brokers = self.brokers();
        self.home().audit(&[&["--brokers", &brokers], arguments].concat())
    }

    /// Audits all topics, and panics at violations.
    pub fn audit_clean(&self, arguments: &[&str]) -> Value {
        let report = self.audit(arguments);
        assert!(report["violations"].as_array().unwrap().is_empty(), "{}, first {}", report["violation_counts"], report["violations"][0]);
        report
    }
}
