//! The specification as tests: event logs and vectors whose outcome was derived by hand.
//!
//! Invariant: the real code is folded, through its public face only. Deliberately absent: any knowledge of
//! how the fold comes to its results.
#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]

mod expect;
mod fold;
mod laws;
mod numeric;
mod scenarios;
mod vectors;
