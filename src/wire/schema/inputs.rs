//! Documentation types of what producers, venues and feeds write. Nothing is decoded into them.
//!
//! Invariant: a record that decoding takes is valid by its schema; a test sends the same records
//! through both. Deliberately absent: control records, which are in their own file.

use schemars::JsonSchema;

use super::scalars::*;
use super::{EventSchema, input};
use crate::domain::InputTopic;

/// Adds the events of intents, executions and prices.
pub(super) fn add(events: &mut Vec<EventSchema>) {
    events.push(input::<OrderIntent>("order_intent", InputTopic::Intents));
    events.push(input::<OrderAmend>("order_amend", InputTopic::Intents));
    events.push(input::<OrderCancel>("order_cancel", InputTopic::Intents));
    events.push(input::<Signal>("signal", InputTopic::Intents));
    events.push(input::<Fill>("fill", InputTopic::Executions));
    events.push(input::<Accepted>("accepted", InputTopic::Executions));
    events.push(input::<Canceled>("canceled", InputTopic::Executions));
    events.push(input::<Rejected>("rejected", InputTopic::Executions));
    events.push(input::<Expired>("expired", InputTopic::Executions));
    events.push(input::<DoneForDay>("done_for_day", InputTopic::Executions));
    events.push(input::<TradeBusted>("trade_busted", InputTopic::Executions));
    events.push(input::<TradeCorrected>("trade_corrected", InputTopic::Executions));
    events.push(input::<Trade>("trade", InputTopic::Prices));
    events.push(input::<Quote>("quote", InputTopic::Prices));
    events.push(input::<Bar>("bar", InputTopic::Prices));
}

/// A new order asks to be allowed. Exactly one of `qty` and `notional` must be given, else the
/// decision is a block with `INVALID_ORDER`. Decimals have at most 8 fractional digits by value.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct OrderIntent {
    /// The name of the event.
    #[schemars(extend("const" = "order_intent"))]
    pub event: String,
    /// The producer's id of the order (FIX 11). Sent again with the same content it gets the same decision.
    pub client_order_id: IdText,
    /// The account (FIX 1). It is also the record's key.
    pub account: IdText,
    /// The strategy, for rules and states that are scoped to one.
    pub strategy: Option<IdText>,
    /// The symbol (FIX 55).
    pub symbol: SymbolText,
    /// The side (FIX 54).
    pub side: SideWord,
    /// The type (FIX 40).
    pub order_type: OrderTypeWord,
    /// How much, in units of the instrument; above 0, a multiple of its lot.
    pub qty: Option<PositiveDecimal>,
    /// How much, in money of the account's currency; above 0. Turned into a quantity, rounded down to the lot.
    pub notional: Option<PositiveDecimal>,
    /// The worst price, for limit and stop_limit.
    pub limit_price: Option<PositiveDecimal>,
    /// The price that triggers the order, for stop and stop_limit.
    pub stop_price: Option<PositiveDecimal>,
    /// The distance that a trailing_stop keeps, in price.
    pub trail_price: Option<PositiveDecimal>,
    /// The distance that a trailing_stop keeps, in percent.
    pub trail_percent: Option<PositiveDecimal>,
    /// How long the order works (FIX 59); default day.
    pub time_in_force: Option<TimeInForceWord>,
    /// Refuse the order unless it strictly reduces the position; default false.
    pub reduce_only: Option<bool>,
    /// The order may not be filled in part, nor resized; default false.
    pub all_or_none: Option<bool>,
    /// The order may work outside regular hours; default false.
    pub extended_hours: Option<bool>,
    /// The producer's own time. It is no part of the content and decides nothing.
    pub ts: Option<Time>,
}

/// A change of a working order asks to be allowed. At least one of the three values must be given,
/// else the decision is a block with `INVALID_ORDER`.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct OrderAmend {
    /// The name of the event.
    #[schemars(extend("const" = "order_amend"))]
    pub event: String,
    /// The order that is changed.
    pub client_order_id: IdText,
    /// The producer's id of this change, a space of its own.
    pub amend_id: IdText,
    /// The account. It is also the record's key.
    pub account: IdText,
    /// The new total quantity, what is filled included; above 0.
    pub qty: Option<PositiveDecimal>,
    /// The new limit price.
    pub limit_price: Option<PositiveDecimal>,
    /// The new stop price.
    pub stop_price: Option<PositiveDecimal>,
}

/// A cancel of a working order. It always passes if the order works; the reservation is released by
/// the venue's report.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct OrderCancel {
    /// The name of the event.
    #[schemars(extend("const" = "order_cancel"))]
    pub event: String,
    /// The order.
    pub client_order_id: IdText,
    /// The account. It is also the record's key.
    pub account: IdText,
}

/// What a strategy thinks. It is no order and changes nothing.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Signal {
    /// The name of the event.
    #[schemars(extend("const" = "signal"))]
    pub event: String,
    /// The account. It is also the record's key.
    pub account: IdText,
    /// The strategy.
    pub strategy: IdText,
    /// The symbol.
    pub symbol: SymbolText,
    /// What it thinks.
    pub signal: SignalWord,
    /// The strategy's own time. It decides nothing.
    pub ts: Option<Time>,
}

/// The venue filled an order, or a part of it (FIX 150=F). Other fields may be there.
#[derive(JsonSchema)]
pub struct Fill {
    /// The name of the event.
    #[schemars(extend("const" = "fill"))]
    pub event: String,
    /// The venue's id of this fill (FIX 17), unique within the account: the second one changes nothing.
    pub exec_id: IdText,
    /// The order, or the command that it carries out.
    pub client_order_id: IdText,
    /// The account. It is also the record's key.
    pub account: IdText,
    /// The symbol.
    pub symbol: SymbolText,
    /// The side.
    pub side: SideWord,
    /// The quantity filled now; above 0.
    pub qty: PositiveDecimal,
    /// The price, in the instrument's currency; above 0.
    pub price: PositiveDecimal,
    /// The fee, in money; a rebate is below 0; default 0.
    pub fee: Option<AnyDecimal>,
    /// The venue's own time. It decides nothing.
    pub ts: Option<Time>,
}

macro_rules! reports {
    ($($(#[doc = $doc:literal])+ $name:ident = $event:literal;)+) => {$(
        $(#[doc = $doc])+
        ///
        /// Other fields may be there.
        #[derive(JsonSchema)]
        pub struct $name {
            /// The name of the event.
            #[schemars(extend("const" = $event))]
            pub event: String,
            /// The order or command.
            pub client_order_id: IdText,
            /// The account. It is also the record's key.
            pub account: IdText,
            /// The symbol.
            pub symbol: Option<SymbolText>,
            /// The side.
            pub side: Option<SideWord>,
            /// Why, in the venue's words.
            pub reason: Option<String>,
            /// The venue's own time. It decides nothing.
            pub ts: Option<Time>,
        }
    )+};
}

reports! {
    /// The venue has taken the order.
    Accepted = "accepted";
    /// The order was canceled: its reservation is released.
    Canceled = "canceled";
    /// The venue refused the order: its reservation is released.
    Rejected = "rejected";
    /// The order has expired: its reservation is released.
    Expired = "expired";
    /// The order is done for the day: the reservation is released unless it is good till cancel.
    DoneForDay = "done_for_day";
}

/// The venue takes a fill back. The position becomes as if it had never been. Other fields may be there.
#[derive(JsonSchema)]
pub struct TradeBusted {
    /// The name of the event.
    #[schemars(extend("const" = "trade_busted"))]
    pub event: String,
    /// The account. It is also the record's key.
    pub account: IdText,
    /// The fill.
    pub exec_id: IdText,
    /// The symbol.
    pub symbol: Option<SymbolText>,
    /// The side.
    pub side: Option<SideWord>,
    /// Why, in the venue's words.
    pub reason: Option<String>,
    /// The venue's own time. It decides nothing.
    pub ts: Option<Time>,
}

/// The venue changes a fill, which keeps its place among the others. Other fields may be there.
#[derive(JsonSchema)]
pub struct TradeCorrected {
    /// The name of the event.
    #[schemars(extend("const" = "trade_corrected"))]
    pub event: String,
    /// The account. It is also the record's key.
    pub account: IdText,
    /// The fill.
    pub exec_id: IdText,
    /// The right quantity; above 0.
    pub qty: PositiveDecimal,
    /// The right price; above 0.
    pub price: PositiveDecimal,
    /// The right fee; default 0.
    pub fee: Option<AnyDecimal>,
    /// The symbol.
    pub symbol: Option<SymbolText>,
    /// The side.
    pub side: Option<SideWord>,
    /// Why, in the venue's words.
    pub reason: Option<String>,
    /// The venue's own time. It decides nothing.
    pub ts: Option<Time>,
}

/// A trade of the market: the new mark. Other fields may be there.
#[derive(JsonSchema)]
pub struct Trade {
    /// The name of the event.
    #[schemars(extend("const" = "trade"))]
    pub event: String,
    /// The symbol. It is also the record's key.
    pub symbol: SymbolText,
    /// The price; above 0.
    pub price: PositiveDecimal,
    /// How much was traded; not below 0. Nothing depends on it.
    pub size: Option<NotNegativeDecimal>,
    /// The feed's own time of it, from which the mark's age counts; without one, the record's.
    pub ts: Option<Time>,
}

/// A quote of the market, with a bid, an ask or both. Other fields may be there.
#[derive(JsonSchema)]
#[schemars(extend("anyOf" = [
    { "required": ["bid"], "properties": { "bid": { "not": { "type": "null" } } } },
    { "required": ["ask"], "properties": { "ask": { "not": { "type": "null" } } } },
]))]
pub struct Quote {
    /// The name of the event.
    #[schemars(extend("const" = "quote"))]
    pub event: String,
    /// The symbol. It is also the record's key.
    pub symbol: SymbolText,
    /// The best bid; above 0.
    pub bid: Option<PositiveDecimal>,
    /// The best ask; above 0.
    pub ask: Option<PositiveDecimal>,
    /// How much is bid for; not below 0. Nothing depends on it.
    pub bid_size: Option<NotNegativeDecimal>,
    /// How much is asked for; not below 0. Nothing depends on it.
    pub ask_size: Option<NotNegativeDecimal>,
    /// The feed's own time of it; without one, the record's.
    pub ts: Option<Time>,
}

/// A bar of history, for correlations, value at risk and charts. It never moves a mark. Other fields may be there.
#[derive(JsonSchema)]
pub struct Bar {
    /// The name of the event.
    #[schemars(extend("const" = "bar"))]
    pub event: String,
    /// The symbol. It is also the record's key.
    pub symbol: SymbolText,
    /// The length of the bar, as the feed names it, such as `1d`.
    pub timeframe: IdText,
    /// When it opened. A bar with a known open time replaces it.
    pub open_time: Time,
    /// The first price; above 0.
    pub open: Option<PositiveDecimal>,
    /// The highest price; above 0.
    pub high: Option<PositiveDecimal>,
    /// The lowest price; above 0.
    pub low: Option<PositiveDecimal>,
    /// The last price; above 0. Only this takes part in decisions.
    pub close: PositiveDecimal,
    /// How much was traded; not below 0.
    pub volume: Option<NotNegativeDecimal>,
}
