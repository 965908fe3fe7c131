//! Stops and targets: what they measure, and at which marks they must be looked at again.
//!
//! Invariant: `keys` may ask too early, never too late; the exact measure decides.

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
    // Both are below 2^126, so their difference fits.
    let gained = watched.sign() * (watched.held() * i128::from(mark.0) - basis);
    let (threshold, one) = (i128::from(rule.threshold.0), i128::from(UNITS_PER_ONE));
    let direction = if rule.rule_type == RuleType::StopLoss { -1 } else { 1 };
    let (current, utilization) = match rule.unit {
        Unit::Percent => {
            (Amount::of_products((gained, 100), (basis, 1)), Amount::of_products((direction * gained, 100 * one), (basis, threshold)))
        }
        Unit::Dollars | Unit::Shares | Unit::Ratio | Unit::Count => {
            let multiplier = i128::from(watched.multiplier.0);
            (
                Amount::of_products((gained, multiplier), (MONEY_UNITS_PER_ONE, one)),
                Amount::of_products((direction * gained, multiplier), (MONEY_UNITS_PER_ONE, threshold)),
            )
        }
    };
    Some(Measure { current, limit: Amount::over(direction * threshold, one), utilization, kind: Kind::Trigger })
}

/// Looked at with every mark.
const ALWAYS: (i64, i64) = (i64::MIN + 1, NEVER_FALL);

/// The marks (at or above the first, at or below the second) at which the rule must be looked at
/// again, given what is known of its episode.
#[must_use]
pub fn keys(rule: &Rule, watched: &Watched, episode: Option<&Episode>) -> (i64, i64) {
    let (open, warned) = episode.map_or((false, false), |episode| (episode.open, episode.warned));
    // A rule that began to close only after its breach acts with the next mark.
    if rule.action.closes() && episode.is_some_and(|episode| episode.open && !episode.closing_begun) {
        return ALWAYS;
    }
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
            best = slack(watched, mark, exact.0);
            ahead = Some(mark_at(rule, watched, level, best)?);
        } else {
            ahead = Some(exact);
        }
    }
    let behind = match back {
        Some(level) => Some(mark_at(rule, watched, level, watched.best)?),
        None => None,
    };
    // A loss of a long is below its basis, a gain above; of a short the other way round.
    let falls = (rule.rule_type == RuleType::StopLoss) == (watched.holding.qty > 0);
    let (below, above) = if falls { (ahead, behind) } else { (behind, ahead) };
    let mut rise = above.map_or(NEVER_RISE, |(at, early)| at.saturating_sub(early));
    let mut fall = below.map_or(NEVER_FALL, |(at, early)| at.saturating_add(early));
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

/// The mark at which the utilisation is `level`, and by how much it may be off, rounded generously:
/// three divisions that fit in 128 bits instead of one that does not. `None` when it leaves its type.
fn mark_at(rule: &Rule, watched: &Watched, level: Level, best: Price) -> Option<(i64, i64)> {
    let held = watched.held().max(1);
    let basis = if rule.trailing { i128::from(best.0) } else { watched.holding.cost / held };
    // A part of the threshold, in its units of 1e-8, at most one unit too small.
    let part = i128::from(rule.threshold.0).checked_mul(level.0)? / Level::FULL.0;
    let (distance, unit) = match rule.unit {
        Unit::Percent => {
            let hundred = 100 * i128::from(UNITS_PER_ONE);
            (basis.checked_mul(part)? / hundred, basis / hundred)
        }
        Unit::Dollars | Unit::Shares | Unit::Ratio | Unit::Count => {
            let per_point = held.checked_mul(i128::from(watched.multiplier.0.max(1)))?;
            (part.checked_mul(MONEY_UNITS_PER_ONE)? / per_point, MONEY_UNITS_PER_ONE / per_point)
        }
    };
    let falls = (rule.rule_type == RuleType::StopLoss) == (watched.holding.qty > 0);
    let at = if falls { basis.checked_sub(distance)? } else { basis.checked_add(distance)? };
    Some((i64::try_from(at).ok()?, i64::try_from(unit.checked_add(4)?).ok()?))
}
