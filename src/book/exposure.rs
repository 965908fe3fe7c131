//! Worst-case quantity and value of a position and its working orders (SEMANTICS section 2).
//!
//! Invariant: an order on the other side, which may not fill first, gives no credit.

use super::orders::Orders;
use super::position::Position;
use crate::domain::{Factor, Money, Price, Side, exact_value, times_multiplier};

/// Why a figure is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blind {
    /// A mark is missing.
    Missing,
    /// A result leaves its type.
    Overflow,
}

/// A figure, or why it is not known.
pub type Known<T> = Result<T, Blind>;

/// An order that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leg {
    /// Its side.
    pub side: Side,
    /// What would work of it.
    pub qty: i64,
    /// The larger of its limit and stop price.
    pub price_cap: Option<Price>,
}

/// `W = max(qty + B, S - qty)`, without the order in slot `without` and with `leg`.
///
/// # Errors
/// When it leaves its type.
pub fn worst_case_quantity(position: &Position, orders: &Orders, without: Option<u32>, leg: Option<Leg>) -> Known<i64> {
    let mut buys = i128::from(position.buy_leaves);
    let mut sells = i128::from(position.sell_leaves);
    if let Some(old) = without.and_then(|slot| orders.get(slot)) {
        match old.side {
            Some(Side::Buy) => buys -= i128::from(old.leaves()),
            Some(Side::Sell) => sells -= i128::from(old.leaves()),
            None => {}
        }
    }
    match leg {
        Some(Leg { side: Side::Buy, qty, .. }) => buys += i128::from(qty),
        Some(Leg { side: Side::Sell, qty, .. }) => sells += i128::from(qty),
        None => {}
    }
    let qty = i128::from(position.holding.qty);
    i64::try_from((qty + buys).max(sells - qty)).map_err(|_| Blind::Overflow)
}

/// `V`: the larger side at mark, or at what its working legs may cost, times the multiplier.
///
/// # Errors
/// When a mark is needed and missing, or when it leaves its type.
pub fn worst_case_value(
    position: &Position,
    orders: &Orders,
    mark: Option<Price>,
    multiplier: Factor,
    without: Option<u32>,
    leg: Option<Leg>,
) -> Known<Money> {
    let qty = position.holding.qty;
    let held = if qty == 0 { 0 } else { exact_value(qty, mark.ok_or(Blind::Missing)?) };
    let mut sides = SideValues {
        mark,
        sums: [held.max(0), held.checked_neg().ok_or(Blind::Overflow)?.max(0)],
        offsets: [qty.min(0).saturating_neg(), qty.max(0)],
    };
    for (slot, entry) in orders.legs(position) {
        if Some(slot) != without
            && let Some(side) = entry.side
        {
            sides.add(Leg { side, qty: entry.leaves(), price_cap: entry.price_cap() })?;
        }
    }
    if let Some(leg) = leg {
        sides.add(leg)?;
    }
    times_multiplier(sides.sums[0].max(sides.sums[1]), multiplier).ok_or(Blind::Overflow)
}

struct SideValues {
    mark: Option<Price>,
    /// Buy side, sell side, in units of 1e-16 before the multiplier.
    sums: [i128; 2],
    /// What is left of the opposite filled position for legs to offset.
    offsets: [i64; 2],
}

impl SideValues {
    fn add(&mut self, leg: Leg) -> Known<()> {
        let side = usize::from(leg.side == Side::Sell);
        let offset = leg.qty.min(self.offsets[side]);
        self.offsets[side] -= offset;
        let rest = leg.qty - offset;
        if rest > 0 {
            let price = self.mark.max(leg.price_cap).ok_or(Blind::Missing)?;
            self.sums[side] = self.sums[side].checked_add(exact_value(rest, price)).ok_or(Blind::Overflow)?;
        }
        Ok(())
    }
}
