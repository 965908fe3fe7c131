//! Books as readers see them: what `--state` and `GET /accounts/{account}` print.

use super::shared::Shared;
use crate::book::{Account, Entry, Position};
use crate::domain::{AccountId, ClientOrderId, Figure, Money, Qty, Side, Symbol, TradingState};
use crate::risk::figures::equity;

/// One account's book.
#[derive(Clone, Debug, PartialEq)]
pub struct BookView {
    /// The account.
    pub account: AccountId,
    /// Its cash.
    pub cash: Money,
    /// Its equity; `None` when a mark is missing or it leaves its type.
    pub equity: Option<Money>,
    /// Its equity when the day began.
    pub sod: Money,
    /// Its high-water mark.
    pub hwm: Money,
    /// Its net external flows of the day.
    pub flows: Money,
    /// Its own trading state.
    pub state: TradingState,
    /// Every symbol ever filled, in symbol order.
    pub positions: Vec<PositionView>,
    /// The working orders, oldest first.
    pub working: Vec<WorkingView>,
}

/// One position.
#[derive(Clone, Debug, PartialEq)]
pub struct PositionView {
    /// The symbol.
    pub symbol: Symbol,
    /// The quantity, short below zero.
    pub qty: Qty,
    /// The average price, rounded half to even at 8 decimals; unknown when flat.
    pub avg_price: Figure,
    /// The realised profit.
    pub realized: Money,
    /// The trading state of this account and symbol.
    pub state: TradingState,
}

/// One working order.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkingView {
    /// Its id.
    pub client_order_id: ClientOrderId,
    /// Its symbol.
    pub symbol: Symbol,
    /// Its side.
    pub side: Side,
    /// What is left of it.
    pub leaves: Qty,
}

/// What readers see of an account.
pub(super) fn of(account: &Account, shared: &Shared) -> BookView {
    let filled = account.positions.iter().filter(|position| position.ever_filled);
    let mut positions: Vec<_> = filled.filter_map(|position| position_of(position, shared)).collect();
    positions.sort_by_key(|position| position.symbol);
    let legs = account.positions.iter().flat_map(|position| account.orders.legs(position));
    let mut working: Vec<_> = legs.filter_map(|(_, entry)| Some((entry.leg, working_of(entry, shared)?))).collect();
    working.sort_by_key(|(leg, _)| *leg);
    BookView {
        account: account.id,
        cash: account.cash,
        equity: equity(account, &shared.symbols).ok(),
        sod: account.sod,
        hwm: account.hwm,
        flows: account.flows,
        state: account.state,
        positions,
        working: working.into_iter().map(|(_, order)| order).collect(),
    }
}

fn position_of(position: &Position, shared: &Shared) -> Option<PositionView> {
    Some(PositionView {
        symbol: shared.symbol_name(position.symbol)?,
        qty: Qty(position.holding.qty),
        avg_price: position.holding.average_price(),
        realized: position.holding.realized,
        state: position.state,
    })
}

fn working_of(entry: &Entry, shared: &Shared) -> Option<WorkingView> {
    let symbol = shared.symbol_name(entry.symbol?)?;
    Some(WorkingView { client_order_id: *entry.content.id(), symbol, side: entry.side?, leaves: Qty(entry.leaves()) })
}
