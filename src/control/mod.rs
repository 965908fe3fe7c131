//! Services of the control plane that follow the log: replicas of the shards, what they are told, what they have decided.
//!
//! Invariant: nothing here decides. What changes a verdict is a record on `gate.control`. Deliberately absent: HTTP.

pub mod commands;
pub mod decisions;
pub mod replica;
