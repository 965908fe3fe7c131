//! Services of the control plane that follow the log: replicas of the shards and what they have decided, the directory of people and secrets,
//! the chain of what was done.
//!
//! Invariant: nothing here decides; what changes a verdict is a record on `gate.control`. They know the log by its port only, so they work on
//! one SQLite file and on a cluster alike; each has threads of its own and holds up nobody else. Deliberately absent: HTTP.

pub mod audit;
pub mod commands;
pub mod decisions;
pub mod directory;
pub mod people;
pub mod replica;

use std::hash::{BuildHasher, RandomState};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::domain::Millis;

/// This machine's time.
fn wall_ms() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis::try_from(since.as_millis()).unwrap_or(Millis::MAX)
}

/// A number that no other call gives, here or elsewhere. It is no secret: who sees some may guess others.
fn unique() -> u64 {
    RandomState::new().hash_one((SystemTime::now(), std::process::id()))
}
