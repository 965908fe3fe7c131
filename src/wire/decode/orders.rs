//! The events of `orders.intents` and `orders.executions`.
//!
//! Invariant: an intent with a field too many is refused, an execution is not: it comes from others.
//! Deliberately absent: whether an order's prices suit its type; that is a check of the gate.

use crate::domain::{
    Event, Fill, Money, OrderAmend, OrderCancel, OrderIntent, OrderPrices, OrderType, Report, ReportKind, Side, Signal, SignalKind, Size,
    TimeInForce, TradeBusted, TradeCorrected,
};

use super::fields::Fields;
use super::value::Value;
use crate::wire::key::Key;

/// Reads a record of `orders.intents`.
pub(super) fn intent(fields: &mut Fields<'_>) -> Option<Event> {
    let event = match event_of(fields, IntentWord::from_bytes)? {
        IntentWord::Order => order_intent(fields).map(Event::Intent),
        IntentWord::Amend => order_amend(fields).map(Event::Amend),
        IntentWord::Cancel => order_cancel(fields).map(Event::Cancel),
        IntentWord::Signal => signal(fields).map(Event::Signal),
    };
    fields.refuse_strangers();
    event
}

/// Reads a record of `orders.executions`.
pub(super) fn execution(fields: &mut Fields<'_>) -> Option<Event> {
    match event_of(fields, ExecutionWord::from_bytes)? {
        ExecutionWord::Fill => fill(fields).map(Event::Fill),
        ExecutionWord::Report(kind) => report(fields, kind).map(Event::Report),
        ExecutionWord::Busted => busted(fields).map(Event::Busted),
        ExecutionWord::Corrected => corrected(fields).map(Event::Corrected),
    }
}

/// Reads the word that names the event.
pub(super) fn event_of<T>(fields: &mut Fields<'_>, parse: impl FnOnce(&[u8]) -> Option<T>) -> Option<T> {
    fields.required(Key::Event, |value| value.word(parse))
}

enum IntentWord {
    Order,
    Amend,
    Cancel,
    Signal,
}

impl IntentWord {
    fn from_bytes(word: &[u8]) -> Option<Self> {
        match word {
            b"order_intent" => Some(Self::Order),
            b"order_amend" => Some(Self::Amend),
            b"order_cancel" => Some(Self::Cancel),
            b"signal" => Some(Self::Signal),
            _ => None,
        }
    }
}

enum ExecutionWord {
    Fill,
    Report(ReportKind),
    Busted,
    Corrected,
}

impl ExecutionWord {
    fn from_bytes(word: &[u8]) -> Option<Self> {
        match word {
            b"fill" => Some(Self::Fill),
            b"trade_busted" => Some(Self::Busted),
            b"trade_corrected" => Some(Self::Corrected),
            _ => ReportKind::from_bytes(word).map(Self::Report),
        }
    }
}

fn side(value: Value<'_>) -> Result<Side, super::value::Bad> {
    value.word(|word| match word {
        b"buy" => Some(Side::Buy),
        b"sell" => Some(Side::Sell),
        _ => None,
    })
}

fn order_intent(fields: &mut Fields<'_>) -> Option<OrderIntent> {
    let client_order_id = fields.required(Key::ClientOrderId, Value::id);
    let account = fields.required(Key::Account, Value::id);
    let strategy = fields.optional(Key::Strategy, Value::id);
    let symbol = fields.required(Key::Symbol, Value::symbol);
    let side = fields.required(Key::Side, side);
    let order_type = fields.required(Key::OrderType, |value| value.word(OrderType::from_bytes));
    let size = match (fields.optional(Key::Qty, Value::qty), fields.optional(Key::Notional, Value::money_above_zero)) {
        (Some(qty), None) => Size::Qty(qty),
        (None, Some(notional)) => Size::Notional(notional),
        (qty, notional) => Size::Unclear(qty, notional),
    };
    let prices = OrderPrices {
        limit: fields.optional(Key::LimitPrice, Value::price),
        stop: fields.optional(Key::StopPrice, Value::price),
        trail_price: fields.optional(Key::TrailPrice, Value::price),
        trail_percent: fields.optional(Key::TrailPercent, Value::factor),
    };
    let time_in_force = fields.optional(Key::TimeInForce, |value| value.word(TimeInForce::from_bytes));
    let reduce_only = fields.optional(Key::ReduceOnly, Value::flag);
    let all_or_none = fields.optional(Key::AllOrNone, Value::flag);
    let extended_hours = fields.optional(Key::ExtendedHours, Value::flag);
    fields.optional(Key::Ts, Value::time);
    Some(OrderIntent {
        client_order_id: client_order_id?,
        account: account?,
        strategy,
        symbol: symbol?,
        side: side?,
        order_type: order_type?,
        size,
        prices,
        time_in_force: time_in_force.unwrap_or_default(),
        reduce_only: reduce_only.unwrap_or_default(),
        all_or_none: all_or_none.unwrap_or_default(),
        extended_hours: extended_hours.unwrap_or_default(),
    })
}

fn order_amend(fields: &mut Fields<'_>) -> Option<OrderAmend> {
    let client_order_id = fields.required(Key::ClientOrderId, Value::id);
    let amend_id = fields.required(Key::AmendId, Value::id);
    let account = fields.required(Key::Account, Value::id);
    let qty = fields.optional(Key::Qty, Value::qty);
    let limit_price = fields.optional(Key::LimitPrice, Value::price);
    let stop_price = fields.optional(Key::StopPrice, Value::price);
    Some(OrderAmend { client_order_id: client_order_id?, amend_id: amend_id?, account: account?, qty, limit_price, stop_price })
}

fn order_cancel(fields: &mut Fields<'_>) -> Option<OrderCancel> {
    let client_order_id = fields.required(Key::ClientOrderId, Value::id);
    let account = fields.required(Key::Account, Value::id);
    Some(OrderCancel { client_order_id: client_order_id?, account: account? })
}

fn signal(fields: &mut Fields<'_>) -> Option<Signal> {
    let account = fields.required(Key::Account, Value::id);
    let strategy = fields.required(Key::Strategy, Value::id);
    let symbol = fields.required(Key::Symbol, Value::symbol);
    let signal = fields.required(Key::Signal, |value| value.word(SignalKind::from_bytes));
    fields.optional(Key::Ts, Value::time);
    Some(Signal { account: account?, strategy: strategy?, symbol: symbol?, signal: signal? })
}

fn fill(fields: &mut Fields<'_>) -> Option<Fill> {
    let exec_id = fields.required(Key::ExecId, Value::id);
    let client_order_id = fields.required(Key::ClientOrderId, Value::id);
    let account = fields.required(Key::Account, Value::id);
    let symbol = fields.required(Key::Symbol, Value::symbol);
    let side = fields.required(Key::Side, side);
    let qty = fields.required(Key::Qty, Value::qty);
    let price = fields.required(Key::Price, Value::price);
    let fee = fields.optional(Key::Fee, Value::money);
    fields.optional(Key::Ts, Value::time);
    Some(Fill {
        exec_id: exec_id?,
        client_order_id: client_order_id?,
        account: account?,
        symbol: symbol?,
        side: side?,
        qty: qty?,
        price: price?,
        fee: fee.unwrap_or(Money::ZERO),
    })
}

fn report(fields: &mut Fields<'_>, kind: ReportKind) -> Option<Report> {
    let client_order_id = fields.required(Key::ClientOrderId, Value::id);
    let account = fields.required(Key::Account, Value::id);
    annotations(fields);
    Some(Report { kind, client_order_id: client_order_id?, account: account? })
}

fn busted(fields: &mut Fields<'_>) -> Option<TradeBusted> {
    let account = fields.required(Key::Account, Value::id);
    let exec_id = fields.required(Key::ExecId, Value::id);
    annotations(fields);
    Some(TradeBusted { account: account?, exec_id: exec_id? })
}

fn corrected(fields: &mut Fields<'_>) -> Option<TradeCorrected> {
    let account = fields.required(Key::Account, Value::id);
    let exec_id = fields.required(Key::ExecId, Value::id);
    let qty = fields.required(Key::Qty, Value::qty);
    let price = fields.required(Key::Price, Value::price);
    let fee = fields.optional(Key::Fee, Value::money);
    annotations(fields);
    Some(TradeCorrected { account: account?, exec_id: exec_id?, qty: qty?, price: price?, fee: fee.unwrap_or(Money::ZERO) })
}

/// What an execution other than a fill may say besides, and nobody needs.
fn annotations(fields: &mut Fields<'_>) {
    fields.optional(Key::Symbol, Value::symbol);
    fields.optional(Key::Side, side);
    fields.optional(Key::Reason, Value::any_text);
    fields.optional(Key::Ts, Value::time);
}
