//! Floor 4: bytes to types and back.

pub mod frame;
pub mod snapshot;
