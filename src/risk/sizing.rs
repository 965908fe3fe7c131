//! How many units to trade for a given risk (SEMANTICS section 8).
//!
//! Invariant: exact; the one rounding is down to a multiple of the lot. Zero is a legal answer.
//! Deliberately absent: the rules. The largest quantity that they allow is asked of the gate.

use ethnum::I256;

use crate::domain::{Factor, Money, Price, Qty};

/// What a position is sized from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SizingInput {
    /// The account's equity. Nothing is risked of an equity of zero or less.
    pub equity: Money,
    /// The price at which the position is opened, above zero.
    pub entry: Price,
    /// What may be lost of the equity, and where the loss is taken. `None` without a stop.
    pub stop: Option<Stop>,
    /// Percent of equity that the position may be worth when there is no stop, above zero.
    pub sizing_percent: Factor,
    /// Money per point of price, above zero.
    pub multiplier: Factor,
    /// The smallest step of a quantity, above zero.
    pub lot: Qty,
}

/// A stop and what may be lost at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stop {
    /// The price of the stop, above zero: below the entry for a long, above it for a short.
    pub price: Price,
    /// Percent of equity that may be lost there, above zero.
    pub risk_percent: Factor,
}

/// A size, or why there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sizing {
    /// A quantity, a multiple of the lot.
    Sized {
        /// How much.
        qty: Qty,
        /// The warning: nothing limits the loss, the quantity follows from `sizing_percent` alone.
        without_stop: bool,
    },
    /// The stop is the entry: no quantity would ever lose.
    StopIsEntry,
    /// Something that must be above zero is not.
    NotPositive,
    /// The quantity leaves its type.
    OutOfRange,
}

/// The largest multiple of the lot that loses at most `risk_percent` of equity between entry and
/// stop; without a stop, that is worth at most `sizing_percent` of it.
#[must_use]
pub fn size(input: &SizingInput) -> Sizing {
    let (distance, percent) = match input.stop {
        Some(stop) if stop.price.0 <= 0 => return Sizing::NotPositive,
        Some(stop) => (input.entry.0.abs_diff(stop.price.0), stop.risk_percent),
        None => (input.entry.0.unsigned_abs(), input.sizing_percent),
    };
    if [input.entry.0, percent.0, input.multiplier.0, input.lot.0].iter().any(|units| *units <= 0) {
        return Sizing::NotPositive;
    }
    if distance == 0 {
        return Sizing::StopIsEntry;
    }
    match lots_within(input.equity, percent, distance, input.multiplier, input.lot) {
        Some(qty) => Sizing::Sized { qty, without_stop: input.stop.is_none() },
        None => Sizing::OutOfRange,
    }
}

/// The largest multiple of the lot with `qty x distance x multiplier <= equity x percent / 100`.
///
/// In units: equity 1e-16, the others 1e-8. The powers of ten cancel but for the 100 of the percent:
/// `qty = equity x percent / (100 x distance x multiplier)`, at most 2^190 over at least 100.
fn lots_within(equity: Money, percent: Factor, distance: u64, multiplier: Factor, lot: Qty) -> Option<Qty> {
    if equity <= Money::ZERO {
        return Some(Qty::ZERO);
    }
    let budget = I256::from(equity.0).checked_mul(I256::from(percent.0))?;
    let per_unit = I256::new(100).checked_mul(I256::from(distance))?.checked_mul(I256::from(multiplier.0))?;
    let lots = budget.checked_div(per_unit.checked_mul(I256::from(lot.0))?)?;
    let qty = lots.checked_mul(I256::from(lot.0))?;
    i64::try_from(qty).ok().map(Qty)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn units(text: &str) -> i64 {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        format!("{whole}{fraction:0<8}").parse().unwrap()
    }

    fn input(equity: i64, risk_percent: &str, entry: &str, stop: &str) -> SizingInput {
        SizingInput {
            equity: Money::whole(equity),
            entry: Price(units(entry)),
            stop: Some(Stop { price: Price(units(stop)), risk_percent: Factor(units(risk_percent)) }),
            sizing_percent: Factor::whole(2),
            multiplier: Factor::ONE,
            lot: Qty::ONE,
        }
    }

    fn with_stop(qty: &str) -> Sizing {
        Sizing::Sized { qty: Qty(units(qty)), without_stop: false }
    }

    #[test]
    fn vector_v05_risks_one_percent_down_to_the_stop() {
        assert_eq!(size(&input(100_000, "1", "50", "48")), with_stop("500"));
    }

    #[test]
    fn vector_v07_a_budget_below_one_share_is_zero() {
        assert_eq!(size(&input(1000, "0.1", "500", "480")), with_stop("0"));
    }

    #[test]
    fn vector_v08_rounds_down() {
        assert_eq!(size(&input(100_000, "1", "60", "57")), with_stop("333"));
    }

    #[test]
    fn a_short_is_sized_by_the_distance_too() {
        assert_eq!(size(&input(100_000, "1", "48", "50")), with_stop("500"));
    }

    #[test]
    fn the_quantity_is_a_multiple_of_the_lot() {
        let cases = [("1", "333"), ("100", "300"), ("0.1", "333.3"), ("0.00000001", "333.33333333"), ("400", "0")];
        for (lot, qty) in cases {
            let sized = size(&SizingInput { lot: Qty(units(lot)), ..input(100_000, "1", "60", "57") });
            assert_eq!(sized, with_stop(qty), "lot {lot}");
        }
    }

    #[test]
    fn the_multiplier_makes_each_unit_cost_more() {
        let future = SizingInput { multiplier: Factor::whole(50), ..input(1_000_000, "1", "5000", "4990") };
        assert_eq!(size(&future), with_stop("20"));
        let fractional = SizingInput { multiplier: Factor(units("0.1")), ..input(100_000, "1", "50", "48") };
        assert_eq!(size(&fractional), with_stop("5000"));
    }

    #[test]
    fn without_a_stop_the_value_is_limited_and_a_warning_given() {
        let plain = SizingInput { stop: None, ..input(100_000, "1", "60", "57") };
        assert_eq!(size(&plain), Sizing::Sized { qty: Qty::whole(33), without_stop: true });
        let exact = SizingInput { entry: Price::whole(50), ..plain };
        assert_eq!(size(&exact), Sizing::Sized { qty: Qty::whole(40), without_stop: true });
    }

    #[test]
    fn nothing_is_risked_of_an_equity_that_is_gone() {
        assert_eq!(size(&input(0, "1", "50", "48")), with_stop("0"));
        assert_eq!(size(&input(-100_000, "1", "50", "48")), with_stop("0"));
    }

    #[test]
    fn refuses_what_has_no_answer() {
        assert_eq!(size(&input(100_000, "1", "50", "50")), Sizing::StopIsEntry);
        assert_eq!(size(&input(100_000, "0", "50", "48")), Sizing::NotPositive);
        assert_eq!(size(&input(100_000, "1", "0", "48")), Sizing::NotPositive);
        assert_eq!(size(&input(100_000, "1", "50", "0")), Sizing::NotPositive);
        let no_lot = SizingInput { lot: Qty::ZERO, ..input(100_000, "1", "50", "48") };
        assert_eq!(size(&no_lot), Sizing::NotPositive);
    }

    #[test]
    fn a_quantity_beyond_its_type_is_refused_and_nothing_panics_at_the_extremes() {
        let max = SizingInput {
            equity: Money(i128::MAX),
            entry: Price(i64::MAX),
            stop: Some(Stop { price: Price(i64::MAX - 1), risk_percent: Factor(i64::MAX) }),
            sizing_percent: Factor(i64::MAX),
            multiplier: Factor(1),
            lot: Qty(1),
        };
        assert_eq!(size(&max), Sizing::OutOfRange);
        let largest = SizingInput { multiplier: Factor(i64::MAX), lot: Qty(i64::MAX), stop: None, ..max };
        assert!(matches!(size(&largest), Sizing::Sized { .. } | Sizing::OutOfRange));
        let least = SizingInput { equity: Money(i128::MIN), entry: Price(i64::MIN), ..max };
        assert_eq!(size(&least), Sizing::NotPositive);
    }

    proptest::proptest! {
        #[test]
        fn one_lot_more_would_be_too_much(
            equity in 1..10_i128.pow(24),
            percent in 1..10_i64.pow(11),
            distance in 1..10_i64.pow(13),
            multiplier in 1..10_i64.pow(11),
            lot in 1..10_i64.pow(11),
        ) {
            let entry = Price(distance + 1);
            let stop = Some(Stop { price: Price(1), risk_percent: Factor(percent) });
            let sizing = SizingInput {
                equity: Money(equity), entry, stop, sizing_percent: Factor::ONE, multiplier: Factor(multiplier), lot: Qty(lot),
            };
            if let Sizing::Sized { qty, .. } = size(&sizing) {
                let loss = |qty: i128| I256::from(qty) * I256::from(distance) * I256::from(multiplier) * I256::new(100);
                let budget = I256::from(equity) * I256::from(percent);
                proptest::prop_assert!(qty.0 % lot == 0);
                proptest::prop_assert!(loss(i128::from(qty.0)) <= budget);
                proptest::prop_assert!(loss(i128::from(qty.0) + i128::from(lot)) > budget);
            }
        }
    }
}
