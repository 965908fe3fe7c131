//! What comes in: the records of the four input topics, decoded.
//!
//! Invariant: an event that exists is within the domains of SEMANTICS section 1. What could not be
//! decoded is an event too, [`Event::Refused`], so that every record has its place in the ledger.

use serde::{Deserialize, Serialize};

use super::code::RefusalCode;
use super::control::ControlEvent;
use super::number::{Factor, Millis, Money, Price, Qty};
use super::text::{AccountId, AmendId, ClientOrderId, ExecId, Id, StrategyId, Symbol};

/// The topics that the gate reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum InputTopic {
    /// `orders.intents`
    Intents,
    /// `orders.executions`
    Executions,
    /// `market.prices`
    Prices,
    /// `gate.control`
    Control,
}

/// Where a record stood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Source {
    /// The topic.
    pub topic: InputTopic,
    /// The partition of it.
    pub partition: u32,
    /// The offset within the partition.
    pub offset: u64,
}

/// One record of an input topic, in ledger order.
#[derive(Clone, Debug)]
pub struct Record {
    /// Where it stood.
    pub source: Source,
    /// Its log timestamp.
    pub ts: Millis,
    /// The gate's clock when it was sequenced, if it was live.
    pub received: Option<Millis>,
    /// The account that its key names, if the key is a legal id. Only executions ask.
    pub key: Option<Id>,
    /// What it says.
    pub event: Event,
    /// Several shards apply it, and another one says what is to be said of it for all.
    pub quiet: bool,
}

/// What a record says.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A new order asks to be allowed.
    Intent(OrderIntent),
    /// A change of a working order asks to be allowed.
    Amend(OrderAmend),
    /// A cancel of a working order asks to be allowed.
    Cancel(OrderCancel),
    /// A strategy says what it thinks.
    Signal(Signal),
    /// The venue filled (part of) an order.
    Fill(Fill),
    /// The venue says what became of an order.
    Report(Report),
    /// The venue takes a fill back.
    Busted(TradeBusted),
    /// The venue changes a fill.
    Corrected(TradeCorrected),
    /// A trade of the market.
    Trade(Trade),
    /// A quote of the market.
    Quote(Quote),
    /// A bar of history.
    Bar(Bar),
    /// An operator's record.
    Control(Box<ControlEvent>),
    /// A record that could not be decoded, or that stood in the wrong partition.
    Refused(Box<Refused>),
    /// An operator's record about an account of another shard: it moves the time, and that is all.
    Elsewhere,
}

/// Why a record could not be decoded, and what of it could be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// `Malformed`, `Misrouted` or `ValueOutOfRange`.
    pub code: RefusalCode,
    /// The field at fault.
    pub field: Option<Box<str>>,
    /// What is wrong, for people.
    pub message: Box<str>,
    /// The client order id, where the value is one object that names it once and legally.
    pub client_order_id: Option<ClientOrderId>,
    /// The account, likewise.
    pub account: Option<AccountId>,
}

/// FIX 54 Side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Side {
    /// Buy.
    Buy,
    /// Sell.
    Sell,
}

impl Side {
    /// +1 for buy, -1 for sell.
    #[must_use]
    pub const fn sign(self) -> i64 {
        match self {
            Self::Buy => 1,
            Self::Sell => -1,
        }
    }

    /// The other side.
    #[must_use]
    pub const fn opposite(self) -> Self {
        match self {
            Self::Buy => Self::Sell,
            Self::Sell => Self::Buy,
        }
    }

    /// The wire's word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Buy => "buy",
            Self::Sell => "sell",
        }
    }
}

/// FIX 40 OrdType.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum OrderType {
    /// `market`
    Market,
    /// `limit`
    Limit,
    /// `stop`
    Stop,
    /// `stop_limit`
    StopLimit,
    /// `trailing_stop`
    TrailingStop,
}

/// FIX 59 TimeInForce.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TimeInForce {
    /// `day`, the default.
    #[default]
    Day,
    /// `gtc`: good till cancel.
    Gtc,
    /// `ioc`: immediate or cancel.
    Ioc,
    /// `fok`: fill or kill; may not be resized.
    Fok,
    /// `opg`: at the opening.
    Opg,
    /// `cls`: at the close.
    Cls,
}

/// What an order asks for, of which exactly one may be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Size {
    /// A quantity.
    Qty(Qty),
    /// An amount of money.
    Notional(Money),
    /// Neither or both were given: `INVALID_ORDER`. Both are kept, since a repeat is compared by content.
    Unclear(Option<Qty>, Option<Money>),
}

/// The prices of an order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct OrderPrices {
    /// The worst price.
    pub limit: Option<Price>,
    /// The price that triggers it.
    pub stop: Option<Price>,
    /// The distance that a trailing stop keeps, in price.
    pub trail_price: Option<Price>,
    /// The distance that a trailing stop keeps, in percent.
    pub trail_percent: Option<Factor>,
}

/// A new order. Its `ts` is read and left out: it is no content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderIntent {
    /// Its id.
    pub client_order_id: ClientOrderId,
    /// Its account.
    pub account: AccountId,
    /// Its strategy.
    pub strategy: Option<StrategyId>,
    /// Its symbol.
    pub symbol: Symbol,
    /// Its side.
    pub side: Side,
    /// Its type.
    pub order_type: OrderType,
    /// What it asks for.
    pub size: Size,
    /// Its prices.
    pub prices: OrderPrices,
    /// How long it works.
    pub time_in_force: TimeInForce,
    /// Refuse it unless it strictly reduces.
    pub reduce_only: bool,
    /// It may not be filled in part, nor resized.
    pub all_or_none: bool,
    /// It may work outside regular hours.
    pub extended_hours: bool,
}

/// A change of a working order. What is absent stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderAmend {
    /// The order.
    pub client_order_id: ClientOrderId,
    /// The id of the amendment: a space of its own.
    pub amend_id: AmendId,
    /// The account.
    pub account: AccountId,
    /// The new total quantity, what is filled included.
    pub qty: Option<Qty>,
    /// The new limit price.
    pub limit_price: Option<Price>,
    /// The new stop price.
    pub stop_price: Option<Price>,
}

/// A cancel of a working order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrderCancel {
    /// The order.
    pub client_order_id: ClientOrderId,
    /// The account.
    pub account: AccountId,
}

/// What a strategy thinks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignalKind {
    /// `buy`
    Buy,
    /// `sell`
    Sell,
    /// `hold`
    Hold,
}

/// A strategy's signal: no order, and changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal {
    /// The account.
    pub account: AccountId,
    /// The strategy.
    pub strategy: StrategyId,
    /// The symbol.
    pub symbol: Symbol,
    /// What it thinks.
    pub signal: SignalKind,
}

/// FIX 150=F: one fill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    /// Its id, unique within the account.
    pub exec_id: ExecId,
    /// The order or command that it fills.
    pub client_order_id: ClientOrderId,
    /// The account.
    pub account: AccountId,
    /// The symbol.
    pub symbol: Symbol,
    /// The side.
    pub side: Side,
    /// The quantity, above zero.
    pub qty: Qty,
    /// The price, above zero.
    pub price: Price,
    /// The fee; a rebate is below zero.
    pub fee: Money,
}

/// What became of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ReportKind {
    /// `accepted`
    Accepted,
    /// `canceled`
    Canceled,
    /// `rejected`
    Rejected,
    /// `expired`
    Expired,
    /// `done_for_day`
    DoneForDay,
}

/// An execution report that is no fill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// What became of the order.
    pub kind: ReportKind,
    /// The order or command.
    pub client_order_id: ClientOrderId,
    /// The account.
    pub account: AccountId,
}

/// A fill is taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TradeBusted {
    /// The account.
    pub account: AccountId,
    /// The fill.
    pub exec_id: ExecId,
}

/// A fill has other values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TradeCorrected {
    /// The account.
    pub account: AccountId,
    /// The fill.
    pub exec_id: ExecId,
    /// The right quantity.
    pub qty: Qty,
    /// The right price.
    pub price: Price,
    /// The right fee.
    pub fee: Money,
}

/// A trade of the market.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trade {
    /// The symbol.
    pub symbol: Symbol,
    /// The price.
    pub price: Price,
    /// The feed's own time of it.
    pub ts: Option<Millis>,
}

/// A quote of the market, with one side at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quote {
    /// The symbol.
    pub symbol: Symbol,
    /// The best bid.
    pub bid: Option<Price>,
    /// The best ask.
    pub ask: Option<Price>,
    /// The feed's own time of it.
    pub ts: Option<Millis>,
}

/// A bar of history. Only its close takes part in decisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bar {
    /// The symbol.
    pub symbol: Symbol,
    /// The length of the bar, as the feed names it (`1d`).
    pub timeframe: Id,
    /// When it opened.
    pub open_time: Millis,
    /// Its last price.
    pub close: Price,
}
