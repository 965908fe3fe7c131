//! One position by the average cost method (SEMANTICS section 2).
//!
//! Invariant: `cost` is 0 exactly when `qty` is, and never below 0. Fees and the multiplier are no
//! part of it.

use ethnum::I256;
use serde::{Deserialize, Serialize};

use super::account::SymbolIx;
use crate::domain::{Factor, Figure, Money, Price, Side, TradingState, UNITS_PER_ONE, div_half_even, exact_value, times_multiplier};

/// What is held of a symbol, and what it earned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holding {
    /// Signed quantity in units of 1e-8.
    pub qty: i64,
    /// Cost basis in units of 1e-16.
    pub cost: i128,
    /// Realised profit.
    pub realized: Money,
}

impl Holding {
    /// What it is after a fill, or `None` when a result leaves its type.
    #[must_use]
    pub fn after_fill(self, side: Side, qty: i64, price: Price, multiplier: Factor) -> Option<Self> {
        let signed = side.sign().checked_mul(qty)?;
        let after = self.qty.checked_add(signed)?;
        if self.qty == 0 || (self.qty > 0) == (signed > 0) {
            return Some(Self { qty: after, cost: self.cost.checked_add(exact_value(qty, price))?, ..self });
        }
        let held = self.qty.checked_abs()?;
        let closed = qty.min(held);
        let part = if closed == held { self.cost } else { part_of(self.cost, closed, held)? };
        let gained = exact_value(closed, price).checked_sub(part)?;
        let gained = if self.qty > 0 { gained } else { gained.checked_neg()? };
        let realized = self.realized.plus(times_multiplier(gained, multiplier)?)?;
        let opened = qty - closed;
        let cost = if opened > 0 { exact_value(opened, price) } else { self.cost - part };
        Some(Self { qty: after, cost, realized })
    }

    /// Its value at `mark`: short below zero. `None` when it leaves its type.
    #[must_use]
    pub fn value_at(&self, mark: Price, multiplier: Factor) -> Option<Money> {
        times_multiplier(exact_value(self.qty, mark), multiplier)
    }

    /// Its value at its average price.
    #[must_use]
    pub fn value_at_cost(&self, multiplier: Factor) -> Option<Money> {
        times_multiplier(if self.qty < 0 { self.cost.checked_neg()? } else { self.cost }, multiplier)
    }

    /// Profit at `mark` before the multiplier, in units of 1e-16.
    #[must_use]
    pub fn unrealized(&self, mark: Price) -> Option<i128> {
        let value = exact_value(self.qty, mark);
        if self.qty < 0 { value.checked_add(self.cost) } else { value.checked_sub(self.cost) }
    }

    /// The average price, rounded half to even at 8 decimals; unknown when flat.
    #[must_use]
    pub fn average_price(&self) -> Figure {
        match div_half_even(I256::from(self.cost), I256::from(self.qty.unsigned_abs())) {
            Some(units) => Figure::Units(units),
            None => Figure::Unknown,
        }
    }
}

/// `cost x closed / held`, half to even.
fn part_of(cost: i128, closed: i64, held: i64) -> Option<i128> {
    match cost.checked_mul(i128::from(closed)) {
        Some(product) if product % i128::from(held) == 0 => Some(product / i128::from(held)),
        _ => div_half_even(I256::from(cost) * I256::from(closed), I256::from(held)),
    }
}

/// The place of one symbol in one account's book.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// What is held.
    pub holding: Holding,
    /// The sum of the leaves of working buys.
    pub buy_leaves: i64,
    /// The sum of the leaves of working sells.
    pub sell_leaves: i64,
    /// The price of the fill that opened it: where a trailing reference begins.
    pub opened_price: Price,
    /// The place of the first mark after it was opened, among the symbol's marks.
    pub opened_index: u64,
    /// The symbol.
    pub symbol: SymbolIx,
    /// The oldest working leg.
    pub first_leg: u32,
    /// The newest working leg.
    pub last_leg: u32,
    /// The place in the symbol's list of holders. Rebuilt, not kept.
    #[serde(skip)]
    pub holder_place: u32,
    /// The trading state of this account and symbol.
    pub state: TradingState,
    /// The gate set that state and ends it when the position is flat with nothing working.
    pub ends_when_flat: bool,
    /// A command was rejected: nothing is commanded before the next boundary.
    pub waits_for_boundary: bool,
    /// Whether it was ever filled.
    pub ever_filled: bool,
}

/// No leg, no place.
pub const NONE: u32 = u32::MAX;

impl Position {
    /// A flat one.
    #[must_use]
    pub fn new(symbol: SymbolIx) -> Self {
        Self {
            holding: Holding::default(),
            buy_leaves: 0,
            sell_leaves: 0,
            opened_price: Price::ZERO,
            opened_index: 0,
            symbol,
            first_leg: NONE,
            last_leg: NONE,
            holder_place: NONE,
            state: TradingState::Active,
            ends_when_flat: false,
            waits_for_boundary: false,
            ever_filled: false,
        }
    }

    /// The leaves working on `side`.
    #[must_use]
    pub const fn leaves(&self, side: Side) -> i64 {
        match side {
            Side::Buy => self.buy_leaves,
            Side::Sell => self.sell_leaves,
        }
    }

    /// The side that reduces it; `None` when flat.
    #[must_use]
    pub const fn reducing_side(&self) -> Option<Side> {
        match self.holding.qty {
            0 => None,
            1.. => Some(Side::Sell),
            _ => Some(Side::Buy),
        }
    }

    /// How much of an order on `side` would strictly reduce it, with what is working on that side
    /// (`leaves`) counted first. Never below 0.
    #[must_use]
    pub fn reducible(&self, side: Side, leaves: i64) -> i64 {
        if self.reducing_side() != Some(side) {
            return 0;
        }
        let held = i64::try_from(self.holding.qty.unsigned_abs()).unwrap_or(i64::MAX);
        held.saturating_sub(leaves).max(0)
    }

    /// Whether something is held or working.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.holding.qty != 0 || self.buy_leaves != 0 || self.sell_leaves != 0
    }
}

/// `units x numerator / denominator` toward zero, for quantities of a split.
#[must_use]
pub fn scale_quantity(units: i64, numerator: i64, denominator: i64) -> Option<i64> {
    let product = i128::from(units) * i128::from(numerator);
    i64::try_from(product.checked_div(i128::from(denominator))?).ok()
}

const _: () = assert!(UNITS_PER_ONE == 100_000_000);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Qty;

    #[test]
    fn reduces_at_average_cost_and_flips_at_the_fill_price() {
        let fill =
            |holding: Holding, side, qty, price| holding.after_fill(side, Qty::whole(qty).0, Price::whole(price), Factor::ONE).unwrap();
        let mut holding = fill(Holding::default(), Side::Buy, 100, 10);
        holding = fill(holding, Side::Buy, 50, 13);
        assert_eq!(holding.average_price(), Figure::Units(i128::from(Price::whole(11).0)));
        holding = fill(holding, Side::Sell, 60, 12);
        assert_eq!(holding.realized, Money::whole(60));
        holding = fill(holding, Side::Sell, 140, 11);
        assert_eq!((holding.qty, holding.realized), (Qty::whole(-50).0, Money::whole(60)));
        assert_eq!(holding.average_price(), Figure::Units(i128::from(Price::whole(11).0)));
    }

    #[test]
    fn a_short_earns_when_the_price_falls() {
        let holding = Holding::default().after_fill(Side::Sell, Qty::whole(10).0, Price::whole(100), Factor::whole(50)).unwrap();
        let holding = holding.after_fill(Side::Buy, Qty::whole(10).0, Price::whole(90), Factor::whole(50)).unwrap();
        assert_eq!((holding.qty, holding.cost, holding.realized), (0, 0, Money::whole(5000)));
    }
}
