//! What the vault does, over a directory in memory that can be cut off after any write.

mod brokers;
mod concurrency;
mod envelopes;
mod keks;
mod lifecycle;
mod locked;
mod memory;
mod names;
mod rotation;
pub mod world;
