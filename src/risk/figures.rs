//! The figures of a book that rules measure: equity, exposure, counts, after an intent or now.
//!
//! Invariant: one pass over the positions per intent; another quantity of the same intent costs only
//! its own symbol. A missing mark or an overflow spoils only the figures that need it.

use crate::book::{Account, Blind, Known, Leg, Position, SectorIx, SymbolIx, worst_case_quantity, worst_case_value};
use crate::domain::{Money, Price, Side};
use crate::market::symbol::SymbolState;

/// What the five rules judged "after" measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figures {
    /// The account's equity.
    pub equity: Known<Money>,
    /// `W` of the symbol.
    pub quantity: Known<i64>,
    /// `V` of the symbol.
    pub value: Known<Money>,
    /// `G`, the sum of all `V`.
    pub gross: Known<Money>,
    /// The sum of `V` over the symbol's sector.
    pub sector: Known<Money>,
    /// Symbols with `W > 0`.
    pub count: u32,
    /// Those of the symbol's sector.
    pub sector_count: u32,
    /// The symbol has `W > 0`, and had not without the intent.
    pub adds: bool,
}

/// Sums over all positions but one.
#[derive(Clone, Copy, Debug)]
struct Others {
    equity: Known<Money>,
    gross: Known<Money>,
    sector: Known<Money>,
    count: u32,
    sector_count: u32,
}

/// One symbol of a book, with an order that may be asked for in it.
#[derive(Clone, Debug)]
pub struct Ask<'a> {
    account: &'a Account,
    state: &'a SymbolState,
    position: Position,
    others: Others,
    without: Option<u32>,
}

impl<'a> Ask<'a> {
    /// Looks at `symbol` in the book. `without` is the slot of an order that an amendment replaces.
    #[must_use]
    pub fn new(account: &'a Account, market: &'a [SymbolState], symbol: SymbolIx, without: Option<u32>) -> Option<Self> {
        let state = market.get(symbol as usize)?;
        let position = account.position(symbol).copied().unwrap_or_else(|| Position::new(symbol));
        let others = Others::sum(account, market, symbol, state.sector());
        Some(Self { account, state, position, others, without })
    }

    /// The position as it stands.
    #[must_use]
    pub const fn position(&self) -> &Position {
        &self.position
    }

    /// The account's equity.
    pub const fn equity(&self) -> Known<Money> {
        self.others.equity
    }

    /// The figures as the book stands, an amended order in its old form.
    #[must_use]
    pub fn now(&self) -> Figures {
        self.figures(None, None)
    }

    /// The figures with `leg` added to the working orders.
    #[must_use]
    pub fn after(&self, leg: Leg) -> Figures {
        self.figures(self.without, Some(leg))
    }

    /// The leaves already working on a side, an amended order's left out.
    #[must_use]
    pub fn working(&self, side: Side) -> i64 {
        let replaced = self.without.and_then(|slot| self.account.orders.get(slot)).filter(|order| order.side == Some(side));
        self.position.leaves(side) - replaced.map_or(0, |order| order.leaves())
    }

    fn figures(&self, without: Option<u32>, leg: Option<Leg>) -> Figures {
        let orders = &self.account.orders;
        let quantity = worst_case_quantity(&self.position, orders, without, leg);
        let value = worst_case_value(&self.position, orders, self.state.mark.price(), self.state.multiplier(), without, leg);
        let open = u32::from(quantity.is_ok_and(|quantity| quantity > 0));
        let was_open = leg.is_none() || worst_case_quantity(&self.position, orders, None, None).is_ok_and(|quantity| quantity > 0);
        Figures {
            equity: self.others.equity,
            quantity,
            value,
            gross: plus(self.others.gross, value),
            sector: plus(self.others.sector, value),
            count: self.others.count + open,
            sector_count: self.others.sector_count + open,
            adds: open == 1 && !was_open,
        }
    }
}

impl Others {
    fn sum(account: &Account, market: &[SymbolState], except: SymbolIx, sector: SectorIx) -> Self {
        let mut sums = Self { equity: Ok(account.cash), gross: Ok(Money::ZERO), sector: Ok(Money::ZERO), count: 0, sector_count: 0 };
        for position in account.positions.iter().filter(|position| position.is_open()) {
            let Some(state) = market.get(position.symbol as usize) else { continue };
            let held = holding_value(position, state);
            sums.equity = plus(sums.equity, held);
            if position.symbol == except {
                continue;
            }
            let (value, open) = if position.buy_leaves == 0 && position.sell_leaves == 0 {
                (held.and_then(|money| money.0.checked_abs().map(Money).ok_or(Blind::Overflow)), 1)
            } else {
                let quantity = worst_case_quantity(position, &account.orders, None, None);
                (symbol_value(account, position, state), quantity.map_or(1, |quantity| u32::from(quantity > 0)))
            };
            sums.gross = plus(sums.gross, value);
            sums.count += open;
            if state.sector() == sector {
                sums.sector = plus(sums.sector, value);
                sums.sector_count += open;
            }
        }
        sums
    }
}

fn holding_value(position: &Position, state: &SymbolState) -> Known<Money> {
    if position.holding.qty == 0 {
        return Ok(Money::ZERO);
    }
    let mark = state.mark.price().ok_or(Blind::Missing)?;
    position.holding.value_at(mark, state.multiplier()).ok_or(Blind::Overflow)
}

/// `V` of a position as it stands.
///
/// # Errors
/// When a mark is needed and missing, or when it leaves its type.
pub fn symbol_value(account: &Account, position: &Position, state: &SymbolState) -> Known<Money> {
    worst_case_value(position, &account.orders, state.mark.price(), state.multiplier(), None, None)
}

/// The equity by marks.
///
/// # Errors
/// When a held symbol has no mark, or when it leaves its type.
pub fn equity(account: &Account, market: &[SymbolState]) -> Known<Money> {
    let mut sum = Ok(account.cash);
    for position in account.positions.iter().filter(|position| position.holding.qty != 0) {
        // All are looked at, since an overflow outweighs a mark that is missing before it.
        sum = plus(sum, market.get(position.symbol as usize).map_or(Err(Blind::Missing), |state| holding_value(position, state)));
    }
    sum
}

/// The equity for `sod`, `hwm` and valuation points: a held symbol without a mark counts at its
/// average price. `None` when it leaves its type.
#[must_use]
pub fn valuation(account: &Account, market: &[SymbolState]) -> Option<Money> {
    let mut sum = account.cash;
    for position in account.positions.iter().filter(|position| position.holding.qty != 0) {
        let state = market.get(position.symbol as usize)?;
        let value = match state.mark.price() {
            Some(mark) => position.holding.value_at(mark, state.multiplier()),
            None => position.holding.value_at_cost(state.multiplier()),
        };
        sum = sum.plus(value?)?;
    }
    Some(sum)
}

/// The unrealised profit of a position, for choosing among positions. `None` when it is not known.
#[must_use]
pub fn unrealized(position: &Position, state: &SymbolState) -> Option<Money> {
    let mark: Price = state.mark.price()?;
    crate::domain::times_multiplier(position.holding.unrealized(mark)?, state.multiplier())
}

/// Adds two figures. An overflow outweighs a missing mark: it cannot be mended by a price.
fn plus(a: Known<Money>, b: Known<Money>) -> Known<Money> {
    match (a, b) {
        (Ok(a), Ok(b)) => a.plus(b).ok_or(Blind::Overflow),
        (Err(Blind::Overflow), _) | (_, Err(Blind::Overflow)) => Err(Blind::Overflow),
        (Err(Blind::Missing), _) | (_, Err(Blind::Missing)) => Err(Blind::Missing),
    }
}
