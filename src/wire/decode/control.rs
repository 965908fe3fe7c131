//! The events of `gate.control`.
//!
//! Invariant: no field is strange, in nested objects neither. Deliberately absent: what needs the
//! books (unknown accounts, changed multipliers) and whether a rule's parts suit each other.

use crate::domain::{
    AccountOpened, CollarMode, ControlEvent, Event, InstrumentDefined, LatchReleased, Limits, NotificationType, RestrictedList, Settings,
    StateScope, TradingState, TradingStateSet,
};

use super::fields::Fields;
use super::orders::event_of;
use super::rules::rule;
use super::value::Value;
use crate::wire::key::Key;

/// Reads a record of `gate.control`.
pub(super) fn control(fields: &mut Fields<'_>) -> Option<Event> {
    let read = event_of(fields, reader_of)?;
    let event = read(fields);
    fields.refuse_strangers();
    Some(Event::Control(Box::new(event?)))
}

type Read = fn(&mut Fields<'_>) -> Option<ControlEvent>;

fn reader_of(word: &[u8]) -> Option<Read> {
    let read: Read = match word {
        b"account_opened" => account_opened,
        b"account_closed" => |fields| Some(ControlEvent::AccountClosed { account: fields.required(Key::Account, Value::id)? }),
        b"account_limits_set" => account_limits_set,
        b"gate_settings_set" => |fields| Some(ControlEvent::GateSettingsSet(settings(fields))),
        b"cash_adjusted" => cash_adjusted,
        b"instrument_defined" => instrument_defined,
        b"split" => split,
        b"restricted_list_set" => restricted_list_set,
        b"rule_created" => |fields| required_rule(fields).map(ControlEvent::RuleCreated),
        b"rule_updated" => |fields| required_rule(fields).map(ControlEvent::RuleUpdated),
        b"rule_deleted" => |fields| Some(ControlEvent::RuleDeleted { id: fields.required(Key::Id, Value::id)? }),
        b"trading_state_set" => trading_state_set,
        b"latch_released" => latch_released,
        _ => return None,
    };
    Some(read)
}

fn required_rule(fields: &mut Fields<'_>) -> Option<crate::domain::Rule> {
    fields.require_object(Key::Rule);
    fields.object(Key::Rule, rule)
}

fn account_opened(fields: &mut Fields<'_>) -> Option<ControlEvent> {
    let account = fields.required(Key::Account, Value::id);
    let owner = fields.required(Key::Owner, Value::id);
    let currency = fields.optional(Key::Currency, Value::id);
    let cash = fields.required(Key::Cash, Value::money);
    let day_roll = fields.optional(Key::DayRoll, Value::prose);
    let limits = fields.object(Key::Limits, |inner| Some(limits(inner))).unwrap_or_default();
    Some(ControlEvent::AccountOpened(AccountOpened { account: account?, owner: owner?, currency, cash: cash?, day_roll, limits }))
}

fn account_limits_set(fields: &mut Fields<'_>) -> Option<ControlEvent> {
    let account = fields.required(Key::Account, Value::id);
    let limits = limits(fields);
    Some(ControlEvent::AccountLimitsSet { account: account?, limits })
}

fn limits(fields: &mut Fields<'_>) -> Limits {
    Limits {
        max_order_qty: fields.patch(Key::MaxOrderQty, Value::qty),
        max_order_value: fields.patch(Key::MaxOrderValue, Value::money_above_zero),
        price_collar_percent: fields.patch(Key::PriceCollarPercent, Value::factor),
        price_collar_mode: fields.patch(Key::PriceCollarMode, |value| value.word(CollarMode::from_bytes)),
        max_price_age_ms: fields.patch(Key::MaxPriceAgeMs, |value| value.at_least(0)),
        order_rate_limit: fields.patch(Key::OrderRateLimit, |value| value.count(1)),
        order_rate_window_ms: fields.patch(Key::OrderRateWindowMs, |value| value.at_least(0)),
        duplicate_window_ms: fields.patch(Key::DuplicateWindowMs, |value| value.at_least(0)),
        self_trade_prevention: fields.patch(Key::SelfTradePrevention, Value::flag),
        notify: fields.patch(Key::Notify, |value| value.list(|element| element.word(NotificationType::from_bytes))),
    }
}

fn settings(fields: &mut Fields<'_>) -> Settings {
    Settings {
        max_intent_age_ms: fields.patch(Key::MaxIntentAgeMs, |value| value.at_least(0)),
        valuation_grid_ms: fields.patch(Key::ValuationGridMs, |value| value.at_least(1)),
        id_memory_ms: fields.patch(Key::IdMemoryMs, |value| value.at_least(0)),
        command_timeout_ms: fields.patch(Key::CommandTimeoutMs, |value| value.at_least(0)),
        episode_quiet_ms: fields.patch(Key::EpisodeQuietMs, |value| value.at_least(0)),
        sizing_percent: fields.patch(Key::SizingPercent, Value::factor),
        limits: limits(fields),
    }
}

fn cash_adjusted(fields: &mut Fields<'_>) -> Option<ControlEvent> {
    let account = fields.required(Key::Account, Value::id);
    let amount = fields.required(Key::Amount, Value::money);
    fields.required(Key::Reason, Value::any_text);
    Some(ControlEvent::CashAdjusted { account: account?, amount: amount? })
}

fn instrument_defined(fields: &mut Fields<'_>) -> Option<ControlEvent> {
    let symbol = fields.required(Key::Symbol, Value::symbol);
    let sector = fields.optional(Key::Sector, Value::id);
    let multiplier = fields.optional(Key::Multiplier, Value::factor);
    let lot_size = fields.optional(Key::LotSize, Value::qty);
    let tick_size = fields.optional(Key::TickSize, Value::price);
    let currency = fields.optional(Key::Currency, Value::id);
    let max_order_qty = fields.optional(Key::MaxOrderQty, Value::qty);
    let max_order_value = fields.optional(Key::MaxOrderValue, Value::money_above_zero);
    Some(ControlEvent::InstrumentDefined(InstrumentDefined {
        symbol: symbol?,
        sector,
        multiplier,
        lot_size,
        tick_size,
        currency,
        max_order_qty,
        max_order_value,
    }))
}

fn split(fields: &mut Fields<'_>) -> Option<ControlEvent> {
    let symbol = fields.required(Key::Symbol, Value::symbol);
    let from = fields.required(Key::From, Value::qty);
    let to = fields.required(Key::To, Value::qty);
    Some(ControlEvent::Split { symbol: symbol?, from: from?, to: to? })
}

fn restricted_list_set(fields: &mut Fields<'_>) -> Option<ControlEvent> {
    let list = fields.required(Key::List, Value::id);
    let symbols = fields.required(Key::Symbols, |value| value.list(Value::symbol));
    let accounts = fields.optional(Key::Accounts, |value| value.list(Value::id));
    Some(ControlEvent::RestrictedListSet(RestrictedList { list: list?, symbols: symbols?, accounts }))
}

fn trading_state_set(fields: &mut Fields<'_>) -> Option<ControlEvent> {
    fields.require_object(Key::Scope);
    let scope = fields.object(Key::Scope, |inner| {
        Some(StateScope {
            account: inner.optional(Key::Account, Value::id),
            strategy: inner.optional(Key::Strategy, Value::id),
            symbol: inner.optional(Key::Symbol, Value::symbol),
        })
    });
    let state = fields.required(Key::State, |value| value.word(TradingState::from_bytes));
    let actor = fields.required(Key::Actor, Value::prose);
    let reason = fields.required(Key::Reason, Value::prose);
    let cancel_orders = fields.optional(Key::CancelOrders, Value::flag).unwrap_or_default();
    let flatten = fields.optional(Key::Flatten, Value::flag).unwrap_or_default();
    Some(ControlEvent::TradingStateSet(TradingStateSet {
        scope: scope?,
        state: state?,
        actor: actor?,
        reason: reason?,
        cancel_orders,
        flatten,
    }))
}

fn latch_released(fields: &mut Fields<'_>) -> Option<ControlEvent> {
    let account = fields.required(Key::Account, Value::id);
    let rule_id = fields.required(Key::RuleId, Value::id);
    let actor = fields.required(Key::Actor, Value::prose);
    let reason = fields.required(Key::Reason, Value::prose);
    let reset_hwm = fields.optional(Key::ResetHwm, Value::flag).unwrap_or_default();
    Some(ControlEvent::LatchReleased(LatchReleased { account: account?, rule_id: rule_id?, actor: actor?, reason: reason?, reset_hwm }))
}
