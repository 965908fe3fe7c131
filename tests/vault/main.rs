//! The vault in a real daemon: a secret that is looked for everywhere, and rotations that are killed.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test ends at what it did not expect")]

mod broker;
mod canary;
#[path = "../daemon/mod.rs"]
mod daemon;
mod rotation;
mod search;
mod world;
