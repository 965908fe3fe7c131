//! `ordergate`: a deterministic order gate with a log in front of it and a log behind it.
//!
//! The floors, lowest first; nothing imports upward (`tests/tidy.rs`). See `docs/ARCHITECTURE.md`.

#![warn(clippy::unwrap_used, clippy::expect_used)]

#[cfg(feature = "daemon")]
pub mod api;
#[cfg(feature = "daemon")]
pub mod app;
pub mod book;
#[cfg(feature = "daemon")]
pub mod chart;
#[cfg(feature = "daemon")]
pub mod cli;
#[cfg(feature = "daemon")]
pub mod config;
#[cfg(feature = "daemon")]
pub mod control;
pub mod directory;
pub mod domain;
#[cfg(feature = "daemon")]
pub mod embedded;
#[cfg(feature = "daemon")]
pub mod engine;
pub mod gate;
pub mod generate;
#[cfg(feature = "daemon")]
pub mod kafka;
#[cfg(feature = "daemon")]
pub mod log;
pub mod market;
#[cfg(feature = "daemon")]
pub mod notify;
pub mod risk;
#[cfg(feature = "daemon")]
pub mod snapshot;
#[cfg(feature = "daemon")]
pub mod telemetry;
#[cfg(feature = "daemon")]
pub mod vault;
pub mod wire;
