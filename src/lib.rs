//! `ordergate`: a deterministic order gate with a log in front of it and a log behind it.
//!
//! The floors, lowest first; nothing imports upward (`tests/tidy.rs`). See `docs/ARCHITECTURE.md`.

#![warn(clippy::unwrap_used, clippy::expect_used)]

pub mod api;
pub mod app;
pub mod book;
pub mod chart;
pub mod cli;
pub mod config;
pub mod control;
pub mod directory;
pub mod domain;
pub mod embedded;
pub mod engine;
pub mod gate;
pub mod generate;
pub mod kafka;
pub mod log;
pub mod market;
pub mod notify;
pub mod risk;
pub mod snapshot;
pub mod telemetry;
pub mod vault;
pub mod wire;
