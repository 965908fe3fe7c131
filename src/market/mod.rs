//! Floor 1, the market as the fold knows it: trading days, bars, extremes of marks.

pub mod bars;
pub mod calendar;
pub mod extremes;
