//! Stops and targets: what they measure, and at which marks they must be looked at again.
//!
//! Invariant: `keys` may ask too early, never too late; the exact measure decides.

use ethnum::I256;

use super::measure::{Amount, Kind, Level, Measure};
use crate::book::{Episode, Holding};
use crate::domain::{Factor, MONEY_UNITS_PER_ONE, Price, Rule, RuleType, UNITS_PER_ONE, Unit};
use crate::market::triggers::{NEVER_FALL, NEVER_RISE};

/// A position as its stops see it.
#[derive(Clone, Copy, Debug)]
pub struct Watched {
    /// What is held: not flat.
    pub holding: Holding,
    /// The mark, if there is one.
    pub mark: Option<Price>,
    /// The best mark since it was opened.
    pub best: Price,
    /// Money per point of price.
    pub multiplier: Factor,
}

impl Watched {
    fn sign(&self) -> i128 {
        if self.holding.qty < 0 { -1 } else { 1 }
    }

    fn held(&self) -> i128 {
        i128::from(self.holding.qty).abs()
    }

    /// What the position cost, or would have at the trailing reference, in units of 1e-16.
    fn basis(&self, rule: &Rule, best: Price) -> i128 {
        if rule.trailing { self.held() * i128::from(best.0) } else { self.holding.cost }
    }
}

/// Measures a stop or target; `None` without a mark.
#[must_use]
pub fn measure(rule: &Rule, watched: &Watched) -> Option<Measure> {
    let mark = watched.mark?;
    let basis = watched.basis(rule, watched.best);
    let gained = I256::from(watched.sign()) * (I256::from(watched.held() * i128::from(mark.0)) - I256::from(basis));
    let threshold = I256::from(rule.threshold.0);
    let (numerator, denominator, per_one) = match rule.unit {
        Unit::Percent => (gained * I256::new(100), I256::from(basis), I256::ONE),
        Unit::Dollars | Unit::Shares | Unit::Ratio | Unit::Count => {
            let one = I256::new(MONEY_UNITS_PER_ONE) * I256::new(i128::from(UNITS_PER_ONE));
            (gained * I256::from(watched.multiplier.0), one, one)
        }
    };
    // threshold / 1e8 against numerator / denominator; `per_one` keeps the dollars' scale small.
    let reach = if per_one == I256::ONE { denominator * threshold } else { I256::new(MONEY_UNITS_PER_ONE) * threshold };
    let scaled = if per_one == I256::ONE { numerator * I256::new(i128::from(UNITS_PER_ONE)) } else { numerator };
    let direction = if rule.rule_type == RuleType::StopLoss { -I256::ONE } else { I256::ONE };
    Some(Measure {
        current: Amount::Over(numerator, denominator),
        limit: Amount::Over(direction * threshold, I256::new(i128::from(UNITS_PER_ONE))),
        utilization: Amount::Over(direction * scaled, reach),
        kind: Kind::Trigger,
    })
}

/// Looked at with every mark.
const ALWAYS: (i64, i64) = (i64::MIN + 1, NEVER_FALL);

/// The marks (at or above the first, at or below the second) at which the rule must be looked at
/// again, given what is known of its episode.
#[must_use]
pub fn keys(rule: &Rule, watched: &Watched, episode: Option<&Episode>) -> (i64, i64) {
    let (open, warned) = episode.map_or((false, false), |episode| (episode.open, episode.warned));
    let (beyond, back) = match (open, warned) {
        (true, _) => (None, Some(Level::CLEAR)),
        (false, true) => (Some(Level::FULL), Some(Level::rearm(rule.warn_at))),
        (false, false) => (Some(Level(Level::warn(rule.warn_at).0.min(Level::FULL.0))), None),
    };
    keys_between(rule, watched, beyond, back).unwrap_or(ALWAYS)
}

fn keys_between(rule: &Rule, watched: &Watched, beyond: Option<Level>, back: Option<Level>) -> Option<(i64, i64)> {
    let mark = watched.mark?;
    let mut best = watched.best;
    let mut ahead = None;
    if let Some(level) = beyond {
        let exact = mark_at(rule, watched, level, best)?;
        if rule.trailing {
            best = slack(watched, mark, exact);
        }
        ahead = Some(mark_at(rule, watched, level, best)?);
    }
    let behind = back.map(|level| mark_at(rule, watched, level, watched.best).ok_or(())).transpose().ok()?;
    // A loss of a long is below its basis, a gain above; of a short the other way round.
    let falls = (rule.rule_type == RuleType::StopLoss) == (watched.holding.qty > 0);
    let (below, above) = if falls { (ahead, behind) } else { (behind, ahead) };
    let mut rise = above.map_or(NEVER_RISE, |at| at.saturating_sub(2));
    let mut fall = below.map_or(NEVER_FALL, |at| at.saturating_add(2));
    if rule.trailing && watched.holding.qty > 0 {
        rise = rise.min(best.0.saturating_add(1));
    } else if rule.trailing {
        fall = fall.max(best.0.saturating_sub(1));
    }
    Some((rise, fall))
}

/// How far the best mark may move before the rule is looked at again: half of the way that the mark
/// has to go, so that each look is paid for by a move.
fn slack(watched: &Watched, mark: Price, trigger: i64) -> Price {
    let gap = mark.0.saturating_sub(trigger).saturating_abs() / 2;
    if watched.holding.qty > 0 { Price(watched.best.0.saturating_add(gap)) } else { Price(watched.best.0.saturating_sub(gap).max(1)) }
}

/// The mark at which the utilisation is `level`, to within one unit. `None` when it leaves its type.
fn mark_at(rule: &Rule, watched: &Watched, level: Level, best: Price) -> Option<i64> {
    let basis = I256::from(watched.basis(rule, best));
    let part = I256::from(rule.threshold.0).checked_mul(I256::from(level.0))?;
    let (amount, per_one) = match rule.unit {
        Unit::Percent => (basis, I256::new(100 * i128::from(UNITS_PER_ONE))),
        Unit::Dollars | Unit::Shares | Unit::Ratio | Unit::Count => (I256::new(MONEY_UNITS_PER_ONE), I256::from(watched.multiplier.0)),
    };
    let distance = amount.checked_mul(part)? / I256::new(Level::FULL.0) / per_one;
    let falls = (rule.rule_type == RuleType::StopLoss) == (watched.holding.qty > 0);
    let value = if falls { basis.checked_sub(distance)? } else { basis.checked_add(distance)? };
    i64::try_from(value / I256::from(watched.held().max(1))).ok()
}
