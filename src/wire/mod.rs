//! Bytes to types and back.

pub mod snapshot;
