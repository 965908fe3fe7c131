//! Floor 1, the market: marks and their age, price triggers, bars, extremes, the calendar.
//!
//! Invariant: a price costs the same whatever number of accounts holds its symbol.

pub mod bars;
pub mod calendar;
pub mod extremes;
pub mod mark;
pub mod symbol;
pub mod triggers;
