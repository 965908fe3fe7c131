//! Outputs as JSON, in the field order of docs/WIRE.md.
//!
//! Invariant: the same output gives the same bytes, always; nothing is allocated but the buffer's
//! growth. Deliberately absent: clocks, configuration and serde.

use crate::domain::{
    CancelOrders, ClosePosition, DeadLetter, Decision, Effects, Figure, Notification, Output, Reason, ReasonCode, RuleCited, Source,
};

use super::encode_text;
use super::topics::OutputTopic;
use super::write;

/// The record that caused an output, as far as dead letters repeat it.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// Where it stood.
    pub source: Source,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value.
    pub payload: &'a [u8],
}

/// Appends an output's JSON to `out`. `effects` holds the lists that the output refers to.
pub fn encode_output(out: &mut Vec<u8>, output: &Output, effects: &Effects, origin: &Origin<'_>) {
    match output {
        Output::Decision(decision) => encode_decision(out, decision, effects.reasons_of(decision)),
        Output::CancelOrders(cancel) => encode_cancel(out, cancel, effects),
        Output::ClosePosition(close) => encode_close(out, close),
        Output::Notification(notification) => encode_notification(out, notification),
        Output::DeadLetter(letter) => encode_dead_letter(out, letter, origin),
    }
}

/// The topic that an output goes to.
#[must_use]
pub fn topic_of(output: &Output) -> OutputTopic {
    match output {
        Output::Decision(_) => OutputTopic::Decisions,
        Output::CancelOrders(_) | Output::ClosePosition(_) => OutputTopic::Commands,
        Output::Notification(_) => OutputTopic::Notifications,
        Output::DeadLetter(_) => OutputTopic::DeadLetter,
    }
}

/// The key of an output's record: its account; of a dead letter, the key of what was refused.
#[must_use]
pub fn key_of<'a>(output: &'a Output, origin: &Origin<'a>) -> Option<&'a [u8]> {
    match output {
        Output::Decision(decision) => Some(decision.account.as_bytes()),
        Output::CancelOrders(cancel) => Some(cancel.account.as_bytes()),
        Output::ClosePosition(close) => Some(close.account.as_bytes()),
        Output::Notification(notification) => notification.account.as_ref().map(|account| account.as_bytes()),
        Output::DeadLetter(_) => origin.key,
    }
}

fn encode_decision(out: &mut Vec<u8>, decision: &Decision, reasons: &[Reason]) {
    write::raw(out, "{\"event\":\"decision\",\"decision_id\":\"");
    place(out, decision.shard, decision.seq);
    write::plain(out, "\",\"client_order_id\":\"", decision.client_order_id.as_bytes(), "\",\"account\":\"");
    write::plain(out, "", decision.account.as_bytes(), "\",\"intent\":");
    word_or_null(out, decision.intent.map(|intent| intent.as_str().as_bytes()));
    if let Some(amend_id) = &decision.amend_id {
        write::plain(out, ",\"amend_id\":\"", amend_id.as_bytes(), "\"");
    }
    write::raw(out, ",\"symbol\":");
    word_or_null(out, decision.symbol.as_ref().map(|symbol| symbol.as_bytes()));
    write::raw(out, ",\"side\":");
    word_or_null(out, decision.side.map(|side| side.as_str().as_bytes()));
    write::plain(out, ",\"verdict\":\"", decision.verdict.as_str().as_bytes(), "\",\"requested_qty\":");
    match decision.requested_qty {
        Some(qty) => {
            out.push(b'"');
            write::units(out, i128::from(qty.0));
            out.push(b'"');
        }
        None => write::raw(out, "null"),
    }
    write::raw(out, ",\"approved_qty\":\"");
    write::units(out, i128::from(decision.approved_qty.0));
    write::raw(out, "\",\"reasons\":[");
    for (at, reason) in reasons.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        encode_reason(out, reason);
    }
    write::raw(out, "],\"equity\":");
    write::money_or_null(out, decision.equity);
    write::raw(out, ",");
    stamp(out, decision.shard, decision.seq, decision.at);
    write::raw(out, ",\"source\":");
    encode_source(out, decision.source);
    out.push(b'}');
}

/// Appends `shard-seq`.
fn place(out: &mut Vec<u8>, shard: u32, seq: u64) {
    write::natural(out, u64::from(shard));
    out.push(b'-');
    write::natural(out, seq);
}

fn stamp(out: &mut Vec<u8>, shard: u32, seq: u64, at: i64) {
    write::raw(out, "\"shard\":");
    write::natural(out, u64::from(shard));
    write::raw(out, ",\"seq\":");
    write::natural(out, seq);
    write::raw(out, ",\"at\":");
    write::integer(out, at);
}

fn word_or_null(out: &mut Vec<u8>, word: Option<&[u8]>) {
    match word {
        Some(word) => write::plain(out, "\"", word, "\""),
        None => write::raw(out, "null"),
    }
}

fn encode_source(out: &mut Vec<u8>, source: Source) {
    write::plain(out, "{\"topic\":\"", source.topic.as_str().as_bytes(), "\",\"partition\":");
    write::natural(out, u64::from(source.partition));
    write::raw(out, ",\"offset\":");
    write::natural(out, source.offset);
    out.push(b'}');
}

/// A reason is a rule's, a rule's note, or a check's.
fn encode_reason(out: &mut Vec<u8>, reason: &Reason) {
    write::plain(out, "{\"code\":\"", reason.code.as_str().as_bytes(), "\"");
    match &reason.rule {
        Some(rule) if reason.code == ReasonCode::RuleBreach => encode_breach(out, reason, rule),
        Some(rule) if reason.code == ReasonCode::CorrelationUnavailable => encode_note(out, reason, rule),
        Some(_) | None => encode_check(out, reason),
    }
    out.push(b'}');
}

fn encode_breach(out: &mut Vec<u8>, reason: &Reason, rule: &RuleCited) {
    write::plain(out, ",\"rule_id\":\"", rule.id.as_bytes(), "\",\"rule_type\":\"");
    write::plain(out, rule.rule_type.as_str(), b"\",\"action\":\"", rule.action.as_str());
    out.push(b'"');
    write::figure(out, ",\"current\":", reason.current);
    write::figure(out, ",\"limit\":", reason.limit);
    write::plain(out, ",\"unit\":\"", rule.unit.as_str().as_bytes(), "\"");
    write::figure(out, ",\"utilization\":", reason.utilization);
    flag(out, ",\"exempt\":", reason.exempt);
    flag(out, ",\"observed\":", reason.observed);
    flag(out, ",\"latched\":", reason.latched);
}

fn encode_note(out: &mut Vec<u8>, reason: &Reason, rule: &RuleCited) {
    write::plain(out, ",\"rule_id\":\"", rule.id.as_bytes(), "\",\"rule_type\":\"");
    write::plain(out, rule.rule_type.as_str(), b"\",\"message\":\"", encode_text::of_reason(reason.code));
    out.push(b'"');
    if reason.exempt {
        write::raw(out, ",\"exempt\":true");
    }
    if reason.observed {
        write::raw(out, ",\"observed\":true");
    }
}

fn encode_check(out: &mut Vec<u8>, reason: &Reason) {
    match reason.refused.as_deref() {
        Some((field, message)) => {
            write::raw(out, ",\"message\":");
            write::string(out, message);
            if let Some(field) = field {
                write::raw(out, ",\"field\":");
                write::string(out, field);
            }
        }
        None => write::plain(out, ",\"message\":\"", encode_text::of_reason(reason.code).as_bytes(), "\""),
    }
    if let (Some(field), None) = (reason.field, &reason.refused) {
        write::plain(out, ",\"field\":\"", field.as_str().as_bytes(), "\"");
    }
    write::figure(out, ",\"current\":", reason.current);
    write::figure(out, ",\"limit\":", reason.limit);
    if reason.exempt {
        write::raw(out, ",\"exempt\":true");
    }
}

fn flag(out: &mut Vec<u8>, name: &str, value: bool) {
    write::plain(out, name, if value { b"true" } else { b"false" }, "");
}

fn command_id(out: &mut Vec<u8>, event: &str, (shard, seq, index): (u32, u64, u32)) {
    write::plain(out, "{\"event\":\"", event.as_bytes(), "\",\"command_id\":\"");
    place(out, shard, seq);
    out.push(b'-');
    write::natural(out, u64::from(index));
}

fn encode_cancel(out: &mut Vec<u8>, cancel: &CancelOrders, effects: &Effects) {
    command_id(out, "cancel_orders", (cancel.shard, cancel.seq, cancel.index));
    write::plain(out, "\",\"account\":\"", cancel.account.as_bytes(), "\"");
    if let Some(symbol) = &cancel.symbol {
        write::plain(out, ",\"symbol\":\"", symbol.as_bytes(), "\"");
    }
    write::raw(out, ",\"client_order_ids\":[");
    for (at, id) in effects.orders_of(cancel).iter().enumerate() {
        write::plain(out, if at > 0 { ",\"" } else { "\"" }, id.as_bytes(), "\"");
    }
    write::raw(out, "],");
    if let Some(rule_id) = &cancel.rule_id {
        write::plain(out, "\"rule_id\":\"", rule_id.as_bytes(), "\",");
    }
    stamp(out, cancel.shard, cancel.seq, cancel.at);
    out.push(b'}');
}

fn encode_close(out: &mut Vec<u8>, close: &ClosePosition) {
    command_id(out, "close_position", (close.shard, close.seq, close.index));
    write::plain(out, "\",\"account\":\"", close.account.as_bytes(), "\",\"symbol\":\"");
    write::plain(out, "", close.symbol.as_bytes(), "\",\"side\":\"");
    write::plain(out, close.side.as_str(), b"\",\"qty\":\"", "");
    write::units(out, i128::from(close.qty.0));
    write::raw(out, "\",\"order_type\":\"market\",\"reduce_only\":true,");
    if let Some(rule_id) = &close.rule_id {
        write::plain(out, "\"rule_id\":\"", rule_id.as_bytes(), "\",");
    }
    stamp(out, close.shard, close.seq, close.at);
    out.push(b'}');
}

fn encode_notification(out: &mut Vec<u8>, notification: &Notification) {
    write::raw(out, "{\"event\":\"notification\",\"notification_id\":\"");
    place(out, notification.shard, notification.seq);
    write::raw(out, "-n");
    write::natural(out, u64::from(notification.index));
    write::raw(out, "\"");
    if let Some(account) = &notification.account {
        write::plain(out, ",\"account\":\"", account.as_bytes(), "\"");
    }
    if let Some(owner) = &notification.owner {
        write::plain(out, ",\"owner\":\"", owner.as_bytes(), "\"");
    }
    write::plain(out, ",\"type\":\"", notification.kind.as_str().as_bytes(), "\",\"code\":\"");
    write::plain(out, notification.code.as_str(), b"\",\"priority\":\"", notification.priority.as_str());
    write::plain(out, "\",\"title\":\"", encode_text::title(notification).as_bytes(), "\",\"message\":\"");
    encode_text::message(out, notification);
    write::raw(out, "\",\"data\":{");
    encode_data(out, notification);
    write::raw(out, "},");
    stamp(out, notification.shard, notification.seq, notification.at);
    out.push(b'}');
}

/// Appends the members of `data` that apply. Each is written with a comma after it; the last one goes.
fn encode_data(out: &mut Vec<u8>, notification: &Notification) {
    let data = &notification.data;
    let begin = out.len();
    let word = |out: &mut Vec<u8>, before: &str, word: Option<&[u8]>| {
        if let Some(word) = word {
            write::plain(out, before, word, "\",");
        }
    };
    if let Some(rule) = &data.rule {
        write::plain(out, "\"rule_id\":\"", rule.id.as_bytes(), "\",\"rule_type\":\"");
        write::plain(out, rule.rule_type.as_str(), b"\",\"action\":\"", rule.action.as_str());
        write::plain(out, "\",\"unit\":\"", rule.unit.as_str().as_bytes(), "\",");
    }
    word(out, "\"symbol\":\"", data.symbol.as_ref().map(|id| id.as_bytes()));
    word(out, "\"sector\":\"", data.sector.as_ref().map(|id| id.as_bytes()));
    word(out, "\"strategy\":\"", data.strategy.as_ref().map(|id| id.as_bytes()));
    word(out, "\"client_order_id\":\"", data.client_order_id.as_ref().map(|id| id.as_bytes()));
    word(out, "\"exec_id\":\"", data.exec_id.as_ref().map(|id| id.as_bytes()));
    word(out, "\"reason\":\"", data.reason.map(|code| code.as_str().as_bytes()));
    word(out, "\"side\":\"", data.side.map(|side| side.as_str().as_bytes()));
    figure(out, "\"qty\":", data.qty.map_or(Figure::Absent, |qty| Figure::Units(qty.0.into())));
    figure(out, "\"price\":", data.price.map_or(Figure::Absent, |price| Figure::Units(price.0.into())));
    word(out, "\"signal\":\"", data.signal.map(|signal| signal.as_str().as_bytes()));
    figure(out, "\"current\":", data.current);
    figure(out, "\"limit\":", data.limit);
    figure(out, "\"utilization\":", data.utilization);
    word(out, "\"state\":\"", data.state.map(|state| state.as_str().as_bytes()));
    word(out, "\"previous_state\":\"", data.previous_state.map(|state| state.as_str().as_bytes()));
    if let Some(day) = data.day {
        write::raw(out, "\"day\":\"");
        encode_text::day(out, day);
        write::raw(out, "\",");
    }
    for (name, amount) in [("\"equity\":", data.equity), ("\"daily_pnl\":", data.daily_pnl)] {
        if let Some(amount) = amount {
            write::raw(out, name);
            write::money_or_null(out, amount);
            out.push(b',');
        }
    }
    let counts =
        [("\"allowed\":", data.allowed), ("\"reduced\":", data.reduced), ("\"blocked\":", data.blocked), ("\"fills\":", data.fills)];
    for (name, count) in counts {
        if let Some(count) = count {
            write::raw(out, name);
            write::natural(out, count);
            out.push(b',');
        }
    }
    if out.len() > begin {
        out.pop();
    }
}

/// Appends a member and a comma after it, unless it is absent.
fn figure(out: &mut Vec<u8>, name: &str, value: Figure) {
    let begin = out.len();
    write::figure(out, name, value);
    if out.len() > begin {
        out.push(b',');
    }
}

fn encode_dead_letter(out: &mut Vec<u8>, letter: &DeadLetter, origin: &Origin<'_>) {
    write::plain(out, "{\"reason\":\"", letter.code.as_str().as_bytes(), "\"");
    if let Some(field) = &letter.field {
        write::raw(out, ",\"field\":");
        write::string(out, field);
    }
    write::raw(out, ",\"message\":");
    write::string(out, &letter.message);
    write::raw(out, ",\"source\":");
    encode_source(out, origin.source);
    write::raw(out, ",\"key\":");
    match origin.key {
        Some(key) => write::string(out, &String::from_utf8_lossy(key)),
        None => write::raw(out, "null"),
    }
    write::raw(out, ",\"payload\":\"");
    write::base64(out, origin.payload);
    write::raw(out, "\"}");
}
