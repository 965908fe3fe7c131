//! Floor 0, the words: identifiers, exact numbers, events, decisions.
//!
//! Invariant: plain values; nothing here decides anything. Deliberately absent: wire formats, time
//! zones, clocks, and every other floor.

mod code;
mod control;
mod event;
mod number;
mod output;
mod print;
mod text;

pub use code::{Action, CommandKind, NotificationCode, NotificationType, Priority, ReasonCode, RefusalCode, Verdict};
pub use control::{
    AccountOpened, CollarMode, ControlEvent, InstrumentDefined, LatchReleased, Limits, Mode, OnMissing, Patch, RestrictedList, Rule,
    RuleScope, RuleType, Settings, StateScope, TradingState, TradingStateSet, Unit,
};
pub use event::{
    Bar, Event, Fill, InputTopic, OrderAmend, OrderCancel, OrderIntent, OrderPrices, OrderType, Quote, Record, Refused, Report, ReportKind,
    Side, Signal, SignalKind, Size, Source, TimeInForce, Trade, TradeBusted, TradeCorrected,
};
pub use number::{
    Factor, MAX_DECIMAL_LEN, MONEY_UNITS_PER_ONE, Millis, Money, Price, Qty, UNITS_PER_ONE, div_half_even, div_half_even_small,
    exact_value, format_scaled, times_multiplier, value,
};
pub use output::{
    CancelOrders, ClosePosition, DeadLetter, Decision, Effects, Field, Figure, IntentKind, Notification, NotificationData, Output, Reason,
    RuleCited,
};
pub use print::{BarPrint, Print, TradePrint};
pub use text::{AccountId, AmendId, ClientOrderId, Currency, ExecId, Id, ListId, OwnerId, RuleId, Sector, StrategyId, Symbol, Text};
