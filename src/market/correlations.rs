//! Correlations that were computed before, so that an intent does not compute them again.
//!
//! Invariant: an answer is that of [`correlation`], always: it is kept only as long as neither
//! series changes. A memo, no state: a new one gives the same answers, so no snapshot holds it.
//! Deliberately absent: any way to list what is kept.

use std::hash::{BuildHasherDefault, Hasher};

use hashbrown::HashMap;

use super::bars::{Bars, correlation};

/// More pairs than these are forgotten together: 48 MB.
const PAIRS_MAX: usize = 1 << 20;

/// The correlations under one rule, of symbols that are named by dense numbers. Make a new one when
/// the rule's timeframe, window or minimum changes.
#[derive(Clone, Debug)]
pub struct Correlations {
    window: usize,
    min_observations: usize,
    known: HashMap<u64, Known, BuildHasherDefault<PairHasher>>,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    revisions: (u64, u64),
    rho: Option<i64>,
}

impl Correlations {
    /// Knows nothing yet.
    #[must_use]
    pub fn new(window: usize, min_observations: usize) -> Self {
        Self { window, min_observations, known: HashMap::default() }
    }

    /// The correlation of two symbols, whichever comes first, in units of 1e-9.
    pub fn rho(&mut self, one: (u32, &Bars), other: (u32, &Bars)) -> Option<i64> {
        let ((low, a), (high, b)) = if one.0 <= other.0 { (one, other) } else { (other, one) };
        let pair = (u64::from(high) << 32) | u64::from(low);
        let revisions = (a.revision(), b.revision());
        if let Some(known) = self.known.get(&pair).filter(|known| known.revisions == revisions) {
            return known.rho;
        }
        let rho = correlation(a, b, self.window, self.min_observations);
        if self.known.len() >= PAIRS_MAX {
            self.known.clear();
        }
        self.known.insert(pair, Known { revisions, rho });
        rho
    }
}

/// Spreads a pair of small numbers over 64 bits. Nobody outside chooses the numbers.
#[derive(Clone, Copy, Debug, Default)]
struct PairHasher(u64);

impl Hasher for PairHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        let product = u128::from(self.0 ^ number ^ 0x9e37_79b9_7f4a_7c15) * 0xd6e8_feb8_6659_fd93;
        self.0 = (product as u64) ^ (product >> 64) as u64;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::Price;

    #[test]
    fn spreads_neighbours_over_all_bits() {
        let hash = |number: u64| {
            let mut hasher = PairHasher::default();
            hasher.write_u64(number);
            hasher.finish()
        };
        let mut top: Vec<u64> = (0..128).map(|low| hash((7 << 32) | low) >> 57).collect();
        top.sort_unstable();
        top.dedup();
        assert!(top.len() > 64, "{}", top.len());
    }

    proptest! {
        #[test]
        fn answers_as_the_computation_does_whatever_happens_between(
            steps in prop::collection::vec((0_usize..4, 0_i64..12, 1_i64..200, 0_u32..4, 0_u32..4), 1..120),
        ) {
            let mut series = [(); 4].map(|()| Bars::default());
            let mut memo = Correlations::new(8, 3);
            for (place, day, close, a, b) in steps {
                if close % 17 == 0 {
                    series[place].scale(3, 2);
                } else {
                    series[place].insert(day, Price::whole(close));
                }
                let (x, y) = (&series[a as usize], &series[b as usize]);
                prop_assert_eq!(memo.rho((a, x), (b, y)), correlation(x, y, 8, 3));
                prop_assert_eq!(memo.rho((b, y), (a, x)), correlation(x, y, 8, 3));
            }
        }
    }
}
