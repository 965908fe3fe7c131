//! What the tape of the market says: trades and bars with everything that a chart draws.
//!
//! Invariant: within the domains of SEMANTICS section 1, like an [`super::Event`]. Deliberately absent from the fold: no decision
//! reads a size or a volume, so events do not carry them.

use super::number::{Millis, Price};
use super::text::{Id, Symbol};

/// A record of `market.prices`, for charts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Print {
    /// A trade.
    Trade(TradePrint),
    /// A quote, which draws nothing.
    Quote,
    /// A bar that somebody published.
    Bar(BarPrint),
}

/// A trade of the market.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TradePrint {
    /// The symbol.
    pub symbol: Symbol,
    /// The price.
    pub price: Price,
    /// How much, in units of 1e-8; it may leave the domain of quantities.
    pub size: Option<i128>,
    /// The feed's own time of it.
    pub ts: Option<Millis>,
}

/// A bar of history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BarPrint {
    /// The symbol.
    pub symbol: Symbol,
    /// The length of the bar, as the feed names it (`1d`).
    pub timeframe: Id,
    /// When it opened.
    pub open_time: Millis,
    /// Its first price.
    pub open: Option<Price>,
    /// Its highest price.
    pub high: Option<Price>,
    /// Its lowest price.
    pub low: Option<Price>,
    /// Its last price.
    pub close: Price,
    /// How much was traded, in units of 1e-8.
    pub volume: Option<i128>,
}
