//! Books as readers see them: what `--state` and `GET /accounts/{account}` print.

use crate::domain::{AccountId, ClientOrderId, Figure, Money, Qty, Side, Symbol, TradingState};

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
