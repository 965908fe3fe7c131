//! What outputs say to people: fixed sentences, filled with the output's own data.
//!
//! Invariant: the same output gives the same text, and no text needs escapes in JSON. Deliberately
//! absent: languages; who wants other words has the code and the data.

use crate::domain::{Figure, Notification, NotificationCode, NotificationType, ReasonCode};

use super::write;

/// What a check or note means.
pub(super) const fn of_reason(code: ReasonCode) -> &'static str {
    match code {
        ReasonCode::Malformed => "the record cannot be decoded",
        ReasonCode::Misrouted => "the record stands in another partition than its key maps to",
        ReasonCode::ValueOutOfRange => "a number does not fit its domain, or a result would leave it",
        ReasonCode::UnknownAccount => "the account was never opened, or is closed",
        ReasonCode::IntentIdConflict => "the id was used before with other content",
        ReasonCode::Expired => "the intent was too old when it was sequenced",
        ReasonCode::UnknownInstrument => "the instrument was never defined",
        ReasonCode::CurrencyMismatch => "the instrument has another currency than the account",
        ReasonCode::UnknownOrder => "the order is not working",
        ReasonCode::InvalidOrder => "the order contradicts itself, its instrument or its position",
        ReasonCode::Halted => "trading is halted",
        ReasonCode::ReduceOnly => "only strictly reducing orders may pass",
        ReasonCode::Restricted => "the symbol is on a restricted list",
        ReasonCode::PriceUnavailable => "a price that is needed is not known",
        ReasonCode::PriceStale => "the price is too old",
        ReasonCode::PriceCollar => "the limit price is too far from the market",
        ReasonCode::MaxOrderQty => "the quantity is above the limit of one order",
        ReasonCode::MaxOrderValue => "the value is above the limit of one order",
        ReasonCode::OrderRate => "too many orders within the window",
        ReasonCode::DuplicateOrder => "an equal order was allowed just before under another id",
        ReasonCode::SelfTrade => "the order would meet one of the account's own",
        ReasonCode::RuleBreach => "a risk rule is breached",
        ReasonCode::CorrelationUnavailable => "a correlation that the rule asks for is not known",
    }
}

/// A notification's headline.
pub(super) const fn title(notification: &Notification) -> &'static str {
    let stop = matches!(notification.kind, NotificationType::StopLoss);
    let target = matches!(notification.kind, NotificationType::ProfitTarget);
    match notification.code {
        NotificationCode::RuleBreach if stop => "Stop loss reached",
        NotificationCode::RuleBreach if target => "Profit target reached",
        NotificationCode::RuleBreach => "Risk rule breached",
        NotificationCode::RuleWarning if stop => "Stop loss is near",
        NotificationCode::RuleWarning if target => "Profit target is near",
        NotificationCode::RuleWarning => "Risk rule is near its limit",
        NotificationCode::RuleCleared => "Risk rule is within its limit again",
        NotificationCode::ExecutionUnreadable => "Execution could not be booked",
        NotificationCode::CloseNotConfirmed => "Close was not confirmed",
        NotificationCode::UnknownOrderFill => "Fill of an order without a reservation",
        NotificationCode::Overfill => "Order was filled beyond its quantity",
        NotificationCode::UnknownExecution => "Bust or correction of an unknown fill",
        NotificationCode::UnknownAccount => "Execution of an unknown account",
        NotificationCode::TradingStateChanged => "Trading state changed",
        NotificationCode::OrderRejected => "Order rejected",
        NotificationCode::OrderFilled => "Order filled",
        NotificationCode::OrderCancelled => "Order cancelled",
        NotificationCode::PositionOpened => "Position opened",
        NotificationCode::PositionClosed => "Position closed",
        NotificationCode::StrategySignal => "Strategy signal",
        NotificationCode::DailySummary => "Daily summary",
    }
}

/// Appends a notification's sentence: the subject, what happened, and the figures that apply.
pub(super) fn message(out: &mut Vec<u8>, notification: &Notification) {
    let data = &notification.data;
    match &notification.account {
        Some(account) => write::plain(out, "Account ", account.as_bytes(), ": "),
        None => write::raw(out, "All accounts of the shard: "),
    }
    write::raw(out, happened(notification.code));
    if let Some(rule) = &data.rule {
        write::plain(out, "; rule ", rule.id.as_bytes(), " (");
        write::plain(out, rule.rule_type.as_str(), b", ", rule.action.as_str());
        write::raw(out, ")");
    }
    named(out, "; symbol ", data.symbol.as_ref().map(|id| id.as_bytes()));
    named(out, "; sector ", data.sector.as_ref().map(|id| id.as_bytes()));
    named(out, "; strategy ", data.strategy.as_ref().map(|id| id.as_bytes()));
    named(out, "; order ", data.client_order_id.as_ref().map(|id| id.as_bytes()));
    named(out, "; execution ", data.exec_id.as_ref().map(|id| id.as_bytes()));
    named(out, "; reason ", data.reason.map(|code| code.as_str().as_bytes()));
    named(out, "; signal ", data.signal.map(|signal| signal.as_str().as_bytes()));
    named(out, "; ", data.side.map(|side| side.as_str().as_bytes()));
    let qty = data.qty.map_or(Figure::Absent, |qty| Figure::Units(qty.0.into()));
    figure(out, if data.side.is_some() { " " } else { "; quantity " }, qty);
    figure(out, " at ", data.price.map_or(Figure::Absent, |price| Figure::Units(price.0.into())));
    figure(out, "; current ", data.current);
    figure(out, "; limit ", data.limit);
    if let (Some(rule), true) = (&data.rule, data.limit != Figure::Absent) {
        write::plain(out, " ", rule.unit.as_str().as_bytes(), "");
    }
    named(out, "; now ", data.state.map(|state| state.as_str().as_bytes()));
    named(out, ", before ", data.previous_state.map(|state| state.as_str().as_bytes()));
    summary(out, notification);
    write::raw(out, ".");
}

const fn happened(code: NotificationCode) -> &'static str {
    match code {
        NotificationCode::RuleBreach => "a risk rule is breached",
        NotificationCode::RuleWarning => "a risk rule is near its limit",
        NotificationCode::RuleCleared => "a risk rule is within its limit again",
        NotificationCode::ExecutionUnreadable => "an execution or a valuation could not be booked, so the book is not known",
        NotificationCode::CloseNotConfirmed => "a commanded close was not carried out",
        NotificationCode::UnknownOrderFill => "a fill came for an order that has no reservation",
        NotificationCode::Overfill => "a fill was larger than what was left of its order",
        NotificationCode::UnknownExecution => "a fill that is not remembered was busted or corrected",
        NotificationCode::UnknownAccount => "an execution came for an account that was never opened",
        NotificationCode::TradingStateChanged => "the trading state changed",
        NotificationCode::OrderRejected => "an order was rejected",
        NotificationCode::OrderFilled => "an order is filled",
        NotificationCode::OrderCancelled => "an order has ended unfilled",
        NotificationCode::PositionOpened => "a position was opened",
        NotificationCode::PositionClosed => "a position was closed",
        NotificationCode::StrategySignal => "a strategy gave a signal",
        NotificationCode::DailySummary => "the trading day ended",
    }
}

fn named(out: &mut Vec<u8>, before: &str, name: Option<&[u8]>) {
    if let Some(name) = name {
        write::plain(out, before, name, "");
    }
}

fn figure(out: &mut Vec<u8>, before: &str, figure: Figure) {
    match figure {
        Figure::Absent => {}
        Figure::Unknown => write::plain(out, before, b"unknown", ""),
        Figure::Infinite => write::plain(out, before, b"infinite", ""),
        Figure::Units(units) => {
            write::raw(out, before);
            write::units(out, units);
        }
    }
}

fn summary(out: &mut Vec<u8>, notification: &Notification) {
    let data = &notification.data;
    if let Some(date) = data.day {
        write::raw(out, "; day ");
        day(out, date);
    }
    for (name, amount) in [("; equity ", data.equity), ("; daily profit and loss ", data.daily_pnl)] {
        match amount {
            None => {}
            Some(None) => write::plain(out, name, b"unknown", ""),
            Some(Some(amount)) => {
                write::raw(out, name);
                write::money(out, amount);
            }
        }
    }
    let counts = [("; allowed ", data.allowed), ("; reduced ", data.reduced), ("; blocked ", data.blocked), ("; fills ", data.fills)];
    for (name, count) in counts {
        if let Some(count) = count {
            write::raw(out, name);
            write::natural(out, count);
        }
    }
}

/// Appends a date as `YYYY-MM-DD`.
pub(super) fn day(out: &mut Vec<u8>, (year, month, day): (i16, i8, i8)) {
    if year < 0 {
        out.push(b'-');
    }
    let year = u64::from(year.unsigned_abs());
    for _ in 0..3_usize.saturating_sub(year.checked_ilog10().unwrap_or(0) as usize) {
        out.push(b'0');
    }
    write::natural(out, year);
    for part in [month, day] {
        write::raw(out, if part < 10 { "-0" } else { "-" });
        write::natural(out, u64::from(part.unsigned_abs()));
    }
}
