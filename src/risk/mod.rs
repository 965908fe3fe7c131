//! Floor 2, what is computed from books and markets.

pub mod sizing;
pub mod statistics;
