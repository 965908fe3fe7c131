//! Floor 2, the judgement: checks, the nine rules, the approved quantity, sizing, portfolio risk.
//!
//! Invariant: a rule is a function of a book that is only read and returns a measure; nothing here
//! publishes or changes anything.

pub mod action;
pub mod check;
pub mod correlation;
pub mod evaluate;
pub mod figures;
pub mod measure;
pub mod portfolio;
pub mod rule;
pub mod rules;
pub mod sizing;
pub mod statistics;
pub mod stop;
