//! Correlations of pairs of symbols, remembered until one of their bars changes.
//!
//! Invariant: what is remembered is a function of the bars, so forgetting it changes nothing.

use std::collections::BTreeMap;

use crate::book::{RuleIx, SymbolIx};
use crate::domain::{Id, Rule};
use crate::market::bars::{Bars, correlation, returns_in_common};
use crate::market::symbol::SymbolState;

/// More pairs than these are forgotten together.
const PAIRS_MAX: usize = 1 << 20;

#[derive(Clone, Copy, Debug, Default)]
struct Remembered {
    /// How often the bars of the two had changed, plus 1; 0 = nothing is remembered.
    revisions: (u64, u64),
    rho: Option<i64>,
}

/// Correlations that were computed: by rule, then by the symbol that is asked for, then by the other.
#[derive(Clone, Debug, Default)]
pub struct Correlations {
    rows: Vec<Vec<Vec<Remembered>>>,
    pairs: usize,
    /// Where what is not remembered may be known from: readers' questions have it, decisions do not.
    told: Option<Pairs>,
}

impl Correlations {
    /// For a question: what earlier ones found is not computed again.
    #[must_use]
    pub fn knowing(told: Pairs) -> Self {
        Self { told: Some(told), ..Self::default() }
    }

    /// What is known for the next question.
    #[must_use]
    pub fn into_told(self) -> Pairs {
        self.told.unwrap_or_default()
    }

    /// Forgets all: a rule changed what it counts, or bars were scaled.
    pub fn clear(&mut self) {
        self.rows.clear();
        self.pairs = 0;
    }

    /// `rho` of two symbols as `rule` counts it, in units of 1e-9. `None` when too few bars are
    /// common or one does not move.
    pub fn rho(&mut self, place: RuleIx, rule: &Rule, a: (SymbolIx, &SymbolState), b: (SymbolIx, &SymbolState)) -> Option<i64> {
        let revisions = (a.1.bars_changed + 1, b.1.bars_changed + 1);
        let rows = self.rows.get(place as usize).and_then(|rows| rows.get(a.0 as usize));
        match rows.and_then(|row| row.get(b.0 as usize)) {
            Some(known) if known.revisions == revisions => known.rho,
            Some(_) | None => self.compute(place, rule, a, b, revisions),
        }
    }

    fn compute(
        &mut self,
        place: RuleIx,
        rule: &Rule,
        a: (SymbolIx, &SymbolState),
        b: (SymbolIx, &SymbolState),
        revisions: (u64, u64),
    ) -> Option<i64> {
        let counted = (rule.window, rule.min_observations, rule.timeframe);
        let rho = match &mut self.told {
            Some(told) => told.rho(counted, a, b),
            None => series_of(counted, a, b).and_then(|(one, other)| rho(counted, one, other)),
        };
        if self.pairs > PAIRS_MAX {
            self.clear();
        }
        let rows = at(&mut self.rows, place as usize);
        let row = at(rows, a.0 as usize);
        let known = row.len();
        *at(row, b.0 as usize) = Remembered { revisions, rho };
        self.pairs += row.len() - known;
        rho
    }
}

/// What a correlation counts: the window, the fewest returns, the bars.
pub type Counted = (u32, u32, Id);

/// The revisions of the bars of the two, and what they gave.
type Told = ((u64, u64), Option<i64>);

/// Correlations that readers ask for again and again. Unlike [`Correlations`] it outlives changes of rules, and knows of a split by the
/// revisions of the bars themselves.
#[derive(Clone, Debug, Default)]
pub struct Pairs {
    known: BTreeMap<(SymbolIx, SymbolIx, Counted), Told>,
}

impl Pairs {
    /// `rho` of two symbols, in units of 1e-9. `None` when too few bars are common or one does not move.
    pub fn rho(&mut self, counted: Counted, a: (SymbolIx, &SymbolState), b: (SymbolIx, &SymbolState)) -> Option<i64> {
        let (one, other) = series_of(counted, a, b)?;
        let (place, revisions) = ((a.0.min(b.0), a.0.max(b.0), counted), (one.revision(), other.revision()));
        if let Some((_, rho)) = self.known.get(&place).filter(|(known, _)| *known == revisions) {
            return *rho;
        }
        if self.known.len() > PAIRS_MAX {
            self.known.clear();
        }
        let rho = rho(counted, one, other);
        self.known.insert(place, (revisions, rho));
        rho
    }
}

/// Why a correlation is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NoRho {
    /// One has no bars.
    NoBars,
    /// Fewer returns are common than count.
    TooFewReturns,
    /// One does not move.
    NoVariance,
}

/// Why `rho` of two symbols, as it is counted, is not known.
#[must_use]
pub fn why_unknown(counted: Counted, a: (SymbolIx, &SymbolState), b: (SymbolIx, &SymbolState)) -> NoRho {
    match series_of(counted, a, b) {
        None => NoRho::NoBars,
        Some((one, other)) if returns_in_common(one, other, counted.0 as usize) < counted.1 as usize => NoRho::TooFewReturns,
        Some(_) => NoRho::NoVariance,
    }
}

/// The bars of both. Sums run in the same order whichever symbol is asked for.
fn series_of<'a>(counted: Counted, a: (SymbolIx, &'a SymbolState), b: (SymbolIx, &'a SymbolState)) -> Option<(&'a Bars, &'a Bars)> {
    let (first, second) = if a.0 < b.0 { (a.1, b.1) } else { (b.1, a.1) };
    let series = |state: &'a SymbolState| state.bars.iter().find(|(name, _)| *name == counted.2).map(|(_, bars)| bars);
    series(first).zip(series(second))
}

fn rho((window, min_observations, _): Counted, one: &Bars, other: &Bars) -> Option<i64> {
    correlation(one, other, window as usize, min_observations as usize)
}

/// The element in a place; the list grows to it.
fn at<T: Clone + Default>(list: &mut Vec<T>, place: usize) -> &mut T {
    if list.len() <= place {
        list.resize(place + 1, T::default());
    }
    &mut list[place]
}
