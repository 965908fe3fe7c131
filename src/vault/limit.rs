//! How often somebody may have a secret opened.
//!
//! Invariant: within any minute nobody has more than twice the rate, and over time not more than it; the memory for names is bounded.
//! Deliberately absent: other instances; each counts for itself, and the audit trail has them all.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

const MINUTE_MS: i64 = 60_000;
/// More names than this are not remembered while they can be forgotten.
const NAMES_MOST: usize = 10_000;

/// A rate per name, kept as the time until which each name has spent its share (the generic cell rate algorithm).
pub struct Rate {
    per_minute: i64,
    spent_until: Mutex<HashMap<String, i64>>,
}

impl Rate {
    /// So many per minute and name; all of them may come at once.
    #[must_use]
    pub fn new(per_minute: u32) -> Self {
        Self { per_minute: i64::from(per_minute.max(1)), spent_until: Mutex::default() }
    }

    /// Takes one for `name` at `now_ms`, or says for how many seconds there is none.
    ///
    /// # Errors
    /// The seconds to wait, at least 1.
    pub fn take(&self, name: &str, now_ms: i64) -> Result<(), u64> {
        let step = MINUTE_MS / self.per_minute;
        let mut spent = self.spent_until.lock().unwrap_or_else(PoisonError::into_inner);
        if spent.len() >= NAMES_MOST {
            spent.retain(|_, until| *until > now_ms);
        }
        // A clock that was set back must not lock anybody out for longer than a minute.
        let until = spent.get(name).copied().unwrap_or(now_ms).clamp(now_ms, now_ms + MINUTE_MS);
        let late_ms = until + step - now_ms - MINUTE_MS;
        if late_ms > 0 {
            spent.insert(name.to_owned(), until);
            return Err(u64::try_from(late_ms).unwrap_or(0).div_ceil(1_000).max(1));
        }
        spent.insert(name.to_owned(), until + step);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_its_rate_and_no_other_names() {
        let rate = Rate::new(3);
        for _ in 0..3 {
            rate.take("a", 0).unwrap();
        }
        assert_eq!(rate.take("a", 0), Err(20));
        assert_eq!(rate.take("a", 19_500), Err(1));
        rate.take("b", 0).unwrap();
        rate.take("a", 20_000).unwrap();
        assert!(rate.take("a", 20_000).is_err());
    }

    #[test]
    fn over_an_hour_nobody_has_more_than_the_rate_and_one_minute_at_once() {
        let rate = Rate::new(10);
        let taken = (0..3_600).filter(|second| rate.take("a", second * 1_000).is_ok()).count();
        assert!((600..=610).contains(&taken), "{taken}");
    }

    #[test]
    fn a_clock_that_was_set_back_locks_nobody_out() {
        let rate = Rate::new(2);
        rate.take("a", 10_000_000).unwrap();
        assert!(rate.take("a", 0).is_err());
        rate.take("a", 60_000).unwrap();
    }
}
