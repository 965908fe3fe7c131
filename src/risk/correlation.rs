//! Correlations of pairs of symbols, remembered until one of their bars changes.
//!
//! Invariant: what is remembered is a function of the bars, so forgetting it changes nothing.

use hashbrown::HashTable;

use crate::book::{RuleIx, SymbolIx};
use crate::domain::Rule;
use crate::market::bars::{Bars, correlation};
use crate::market::symbol::SymbolState;

/// More pairs than these are forgotten together.
const PAIRS_MAX: usize = 1 << 20;

#[derive(Clone, Copy, Debug)]
struct Remembered {
    key: (RuleIx, SymbolIx, SymbolIx),
    revisions: (u64, u64),
    rho: Option<i64>,
}

/// Correlations that were computed.
#[derive(Clone, Debug, Default)]
pub struct Correlations {
    pairs: HashTable<Remembered>,
}

impl Correlations {
    /// Forgets all: a rule changed what it counts, or bars were scaled.
    pub fn clear(&mut self) {
        self.pairs.clear();
    }

    /// `rho` of two symbols as `rule` counts it, in units of 1e-9. `None` when too few bars are
    /// common or one does not move.
    pub fn rho(&mut self, place: RuleIx, rule: &Rule, a: (SymbolIx, &SymbolState), b: (SymbolIx, &SymbolState)) -> Option<i64> {
        let ((first, a), (second, b)) = if a.0 < b.0 { (a, b) } else { (b, a) };
        let (bars_a, bars_b) = (bars_of(a, rule)?, bars_of(b, rule)?);
        let key = (place, first, second);
        let revisions = (bars_a.revision(), bars_b.revision());
        let hash = hash_of(key);
        if let Some(known) = self.pairs.find(hash, |known| known.key == key)
            && known.revisions == revisions
        {
            return known.rho;
        }
        let rho = correlation(bars_a, bars_b, rule.window as usize, rule.min_observations as usize);
        let fresh = Remembered { key, revisions, rho };
        match self.pairs.find_mut(hash, |known| known.key == key) {
            Some(known) => *known = fresh,
            None => {
                if self.pairs.len() >= PAIRS_MAX {
                    self.pairs.clear();
                }
                self.pairs.insert_unique(hash, fresh, |known| hash_of(known.key));
            }
        }
        rho
    }
}

fn bars_of<'a>(state: &'a SymbolState, rule: &Rule) -> Option<&'a Bars> {
    state.bars.iter().find(|(timeframe, _)| *timeframe == rule.timeframe).map(|(_, bars)| bars)
}

fn hash_of((rule, a, b): (u32, u32, u32)) -> u64 {
    let mixed = (u64::from(a) << 32 | u64::from(b)).wrapping_add(u64::from(rule) << 20).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed ^ (mixed >> 29)
}
