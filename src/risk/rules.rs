//! The rules of SEMANTICS section 5 but the stops: each a function of figures that returns a measure.
//!
//! Invariant: exact. Percent of a reference that is not above 0 has limit 0.

use super::figures::Figures;
use super::measure::{Amount, Kind, Measure};
use crate::book::{Blind, Known};
use crate::domain::{MONEY_UNITS_PER_ONE, Money, Rule, RuleType, UNITS_PER_ONE, Unit};

const ONE: i128 = UNITS_PER_ONE as i128;
const HUNDRED: i128 = 100;

/// Measures one of `max_position_size`, `max_leverage`, `position_limit` and `sector_limit`.
///
/// # Errors
/// When a mark that it needs is missing, or when a result leaves its type.
pub fn judged_after(rule: &Rule, figures: &Figures) -> Known<Measure> {
    match rule.rule_type {
        RuleType::MaxPositionSize => match rule.unit {
            Unit::Shares => Ok(shares(rule, figures.quantity?)),
            Unit::Percent | Unit::Dollars | Unit::Ratio | Unit::Count => money(rule, figures.value, figures.equity),
        },
        RuleType::MaxLeverage => leverage(rule, figures),
        RuleType::PositionLimit => Ok(count(rule, figures.count, figures.adds)),
        RuleType::SectorLimit => match rule.unit {
            Unit::Count => Ok(count(rule, figures.sector_count, figures.adds)),
            Unit::Percent | Unit::Dollars | Unit::Ratio | Unit::Shares => money(rule, figures.sector, figures.equity),
        },
        RuleType::MaxCorrelation | RuleType::MaxDailyLoss | RuleType::MaxDrawdown | RuleType::StopLoss | RuleType::TakeProfit => {
            Err(Blind::Missing)
        }
    }
}

/// `max_daily_loss`: `max(0, -(E - sod - flows))` against a part of `sod + flows`, or an amount.
///
/// # Errors
/// When a result leaves its type.
pub fn daily_loss(rule: &Rule, equity: Money, sod: Money, flows: Money) -> Known<Measure> {
    let reference = sod.plus(flows).ok_or(Blind::Overflow)?;
    let lost = reference.minus(equity).ok_or(Blind::Overflow)?.max(Money::ZERO);
    money(rule, Ok(lost), Ok(reference))
}

/// `max_drawdown`: the distance of `E` below the high-water mark, in percent of it, or as an amount.
///
/// # Errors
/// When a result leaves its type.
pub fn drawdown(rule: &Rule, equity: Money, hwm: Money) -> Known<Measure> {
    let lost = hwm.minus(equity).ok_or(Blind::Overflow)?.max(Money::ZERO);
    if rule.unit == Unit::Dollars {
        return money(rule, Ok(lost), Ok(hwm));
    }
    let limit = threshold(rule);
    if hwm <= Money::ZERO {
        let amount = if lost == Money::ZERO { Amount::over(0, 1) } else { Amount::Infinite };
        return Ok(Measure { current: amount, limit, utilization: amount, kind: Kind::Limit });
    }
    let utilization = Amount::of_products((lost.0, HUNDRED * ONE), (hwm.0, i128::from(rule.threshold.0)));
    Ok(Measure { current: Amount::of_products((lost.0, HUNDRED), (hwm.0, 1)), limit, utilization, kind: Kind::Limit })
}

/// `max_correlation`: a correlation in units of 1e-9.
#[must_use]
pub fn correlation(rule: &Rule, rho: i64) -> Measure {
    let utilization = Amount::over(i128::from(rho), i128::from(rule.threshold.0) * 10);
    Measure { current: Amount::over(i128::from(rho), 1_000_000_000), limit: threshold(rule), utilization, kind: Kind::Limit }
}

/// `max_correlation` where a pair is missing and that is a breach.
#[must_use]
pub fn correlation_missing(rule: &Rule) -> Measure {
    Measure { current: Amount::Unknown, limit: threshold(rule), utilization: Amount::Infinite, kind: Kind::Limit }
}

fn threshold(rule: &Rule) -> Amount {
    Amount::over(i128::from(rule.threshold.0), i128::from(UNITS_PER_ONE))
}

/// An amount against a part of a reference (percent), or against the threshold (dollars).
fn money(rule: &Rule, amount: Known<Money>, reference: Known<Money>) -> Known<Measure> {
    let amount = amount?.0;
    let threshold_units = i128::from(rule.threshold.0);
    let (limit, utilization) = if rule.unit == Unit::Percent {
        let reference = reference?.0.max(0);
        let share = Amount::of_products((reference, threshold_units), (MONEY_UNITS_PER_ONE, ONE * HUNDRED));
        (share, Amount::of_products((amount, ONE * HUNDRED), (reference, threshold_units)))
    } else {
        (threshold(rule), Amount::of_products((amount, 1), (threshold_units, ONE)))
    };
    Ok(Measure { current: Amount::over(amount, MONEY_UNITS_PER_ONE), limit, utilization, kind: Kind::Limit })
}

fn shares(rule: &Rule, quantity: i64) -> Measure {
    let current = Amount::over(i128::from(quantity), i128::from(UNITS_PER_ONE));
    let utilization = Amount::over(i128::from(quantity), i128::from(rule.threshold.0));
    Measure { current, limit: threshold(rule), utilization, kind: Kind::Limit }
}

fn count(rule: &Rule, symbols: u32, adds: bool) -> Measure {
    let utilization = Amount::over(i128::from(symbols) * i128::from(UNITS_PER_ONE), i128::from(rule.threshold.0));
    let kind = if adds { Kind::Limit } else { Kind::Barred };
    Measure { current: Amount::over(i128::from(symbols), 1), limit: threshold(rule), utilization, kind }
}

fn leverage(rule: &Rule, figures: &Figures) -> Known<Measure> {
    let (gross, equity) = (figures.gross?, figures.equity?);
    let limit = threshold(rule);
    if equity <= Money::ZERO {
        return Ok(Measure { current: Amount::Infinite, limit, utilization: Amount::Infinite, kind: Kind::Limit });
    }
    let utilization = Amount::of_products((gross.0, ONE), (equity.0, i128::from(rule.threshold.0)));
    Ok(Measure { current: Amount::over(gross.0, equity.0), limit, utilization, kind: Kind::Limit })
}
