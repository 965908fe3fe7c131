//! The service surface under `/api/v1`, one file an area.

pub mod charts;
