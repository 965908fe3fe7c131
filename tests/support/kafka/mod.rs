//! Real Kafka brokers for integration tests, and the little that tests do with them by hand.
//!
//! Include it with `#[path = "support/kafka/mod.rs"] mod kafka;`. Invariant: a broker is its cluster's alone, in a folder of its
//! own and on ports that no other test process uses, and it does not outlive the process that started it. Deliberately absent: any
//! use of the gate's own Kafka adapter, and librdkafka's mock.

#![expect(dead_code, reason = "each test binary uses its part of it")]

mod auditor;
pub mod client;
pub mod cluster;
pub mod desk;
pub mod fleet;
mod gate;
mod java;
pub mod ports;
pub mod proxy;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What the script makes, the last of it last.
const COMPLETE: [&str; 3] = ["libs", "template", "venv/requirements.txt"];

/// The folder that `scripts/kafka-home` made.
#[derive(Clone, Debug)]
pub struct Home(PathBuf);

impl Home {
    /// The folder, or `None` where there is none: then the test says that it is skipped and returns. Where
    /// `ORDERGATE_REQUIRE_KAFKA=1`, as in CI, that is a failure.
    pub fn find() -> Option<Self> {
        let path = candidates().into_iter().find(|path| COMPLETE.iter().all(|part| path.join(part).exists()));
        if path.is_none() {
            let required = std::env::var("ORDERGATE_REQUIRE_KAFKA").is_ok_and(|value| value == "1");
            assert!(!required, "no Kafka, and it is required here: run scripts/kafka-home, or set ORDERGATE_KAFKA_HOME");
            eprintln!("SKIPPED: no Kafka for tests; scripts/kafka-home makes it");
        }
        path.map(Self)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

/// `ORDERGATE_KAFKA_HOME`, or `kafka-home` in cargo's target folder, where the script puts it.
fn candidates() -> Vec<PathBuf> {
    if let Some(path) = std::env::var_os("ORDERGATE_KAFKA_HOME") {
        return vec![path.into()];
    }
    let targets = [std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from), Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("target"))];
    targets.into_iter().flatten().map(|target| target.join("kafka-home")).collect()
}

/// One test of a binary at a time: two cores have no room for several brokers at once.
pub fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A file of `tests/kafka`.
fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kafka").join(name)
}
