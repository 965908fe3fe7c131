//! Documentation types of what the gate writes. Nothing is encoded from them.
//!
//! Invariant: what encoding writes is valid by these; a test holds it. A field that is skipped when
//! it does not apply is never `null`. Deliberately absent: the ledger, which is not JSON.

use schemars::JsonSchema;

use super::scalars::*;
use super::{EventSchema, output};
use crate::wire::topics::OutputTopic;

/// Adds what the gate writes.
pub(super) fn add(events: &mut Vec<EventSchema>) {
    events.push(output::<Decision>("decision", OutputTopic::Decisions));
    events.push(output::<CancelOrders>("cancel_orders", OutputTopic::Commands));
    events.push(output::<ClosePosition>("close_position", OutputTopic::Commands));
    events.push(output::<Notification>("notification", OutputTopic::Notifications));
    events.push(output::<DeadLetter>("dead_letter", OutputTopic::DeadLetter));
}

/// Where a record stood.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Source {
    /// The topic, by its default name.
    pub topic: InputTopicWord,
    /// The partition.
    pub partition: u32,
    /// The offset within the partition.
    pub offset: u64,
}

/// Why a decision is what it is: a check that failed, a rule that is breached, or a note.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Reason {
    /// What failed, or what is noted.
    pub code: ReasonCodeWord,
    /// What the check means, in words; of rules only notes have one.
    #[schemars(skip_serializing_if = "absent")]
    pub message: String,
    /// The field at fault.
    #[schemars(skip_serializing_if = "absent")]
    pub field: String,
    /// The rule.
    #[schemars(skip_serializing_if = "absent")]
    pub rule_id: IdText,
    /// Its type.
    #[schemars(skip_serializing_if = "absent")]
    pub rule_type: RuleTypeWord,
    /// Its action.
    #[schemars(skip_serializing_if = "absent")]
    pub action: ActionWord,
    /// What was measured, at the requested quantity; rounded half to even at 8 decimals.
    #[schemars(skip_serializing_if = "absent")]
    pub current: PrintedFigure,
    /// What it was held against; rounded likewise.
    #[schemars(skip_serializing_if = "absent")]
    pub limit: PrintedFigure,
    /// The unit of the rule's threshold.
    #[schemars(skip_serializing_if = "absent")]
    pub unit: UnitWord,
    /// `current / limit`; rounded likewise.
    #[schemars(skip_serializing_if = "absent")]
    pub utilization: PrintedFigure,
    /// It would have failed, but the order strictly reduces. Of checks only there when true.
    #[schemars(skip_serializing_if = "absent")]
    pub exempt: bool,
    /// The rule only observes.
    #[schemars(skip_serializing_if = "absent")]
    pub observed: bool,
    /// The rule is latched.
    #[schemars(skip_serializing_if = "absent")]
    pub latched: bool,
}

/// The answer to an intent, an amend or a cancel. In the answer to a record that could not be
/// decoded everything but the ids is `null`.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Decision {
    /// The name of the event.
    #[schemars(extend("const" = "decision"))]
    pub event: String,
    /// Its id: `shard-seq`. A repeated decision has the same id and the same bytes.
    pub decision_id: DecisionIdText,
    /// The order.
    pub client_order_id: IdText,
    /// The account. It is also the record's key.
    pub account: IdText,
    /// What was asked.
    pub intent: Option<IntentWord>,
    /// The amendment, of amends only.
    #[schemars(skip_serializing_if = "absent")]
    pub amend_id: IdText,
    /// The symbol.
    pub symbol: Option<SymbolText>,
    /// The side.
    pub side: Option<SideWord>,
    /// The answer: allow if `approved_qty` is what was requested, allow_reduced if it is less, block if it is 0.
    pub verdict: VerdictWord,
    /// What was asked for; of an amend the new total, of a cancel what is left of the order.
    pub requested_qty: Option<PrintedDecimal>,
    /// What is approved.
    pub approved_qty: PrintedDecimal,
    /// Why: checks in the order of evaluation, then rules by priority and id.
    pub reasons: Vec<Reason>,
    /// The account's equity, in money; `null` when a mark is missing.
    pub equity: Option<PrintedDecimal>,
    /// The shard.
    pub shard: u32,
    /// The ledger sequence of the intent.
    pub seq: u64,
    /// The intent's time, in ms.
    pub at: EpochMs,
    /// Where the intent stood.
    pub source: Source,
}

/// A command to cancel orders.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct CancelOrders {
    /// The name of the event.
    #[schemars(extend("const" = "cancel_orders"))]
    pub event: String,
    /// Its id: `shard-seq-i`.
    pub command_id: CommandIdText,
    /// The account. It is also the record's key.
    pub account: IdText,
    /// The symbol; absent when it is of the whole account.
    #[schemars(skip_serializing_if = "absent")]
    pub symbol: SymbolText,
    /// The orders, oldest first.
    pub client_order_ids: Vec<IdText>,
    /// The rule; absent when an operator caused it.
    #[schemars(skip_serializing_if = "absent")]
    pub rule_id: IdText,
    /// The shard.
    pub shard: u32,
    /// The ledger sequence of the record that caused it.
    pub seq: u64,
    /// That record's time, in ms.
    pub at: EpochMs,
}

/// A command to close a position, or a part of it, at the market.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct ClosePosition {
    /// The name of the event.
    #[schemars(extend("const" = "close_position"))]
    pub event: String,
    /// Its id: `shard-seq-i`, the `client_order_id` of the order that carries it out.
    pub command_id: CommandIdText,
    /// The account. It is also the record's key.
    pub account: IdText,
    /// The symbol.
    pub symbol: SymbolText,
    /// The side that reduces.
    pub side: SideWord,
    /// How much; above 0.
    pub qty: PrintedDecimal,
    /// Always market.
    #[schemars(extend("const" = "market"))]
    pub order_type: String,
    /// Always true.
    #[schemars(extend("const" = true))]
    pub reduce_only: bool,
    /// The rule; absent when an operator caused it.
    #[schemars(skip_serializing_if = "absent")]
    pub rule_id: IdText,
    /// The shard.
    pub shard: u32,
    /// The ledger sequence of the record that caused it.
    pub seq: u64,
    /// That record's time, in ms.
    pub at: EpochMs,
}

/// What applies to a notification.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct NotificationData {
    /// The rule.
    #[schemars(skip_serializing_if = "absent")]
    pub rule_id: IdText,
    /// Its type.
    #[schemars(skip_serializing_if = "absent")]
    pub rule_type: RuleTypeWord,
    /// Its action.
    #[schemars(skip_serializing_if = "absent")]
    pub action: ActionWord,
    /// The unit of its threshold.
    #[schemars(skip_serializing_if = "absent")]
    pub unit: UnitWord,
    /// The symbol.
    #[schemars(skip_serializing_if = "absent")]
    pub symbol: SymbolText,
    /// The sector.
    #[schemars(skip_serializing_if = "absent")]
    pub sector: IdText,
    /// The strategy.
    #[schemars(skip_serializing_if = "absent")]
    pub strategy: IdText,
    /// The order or command.
    #[schemars(skip_serializing_if = "absent")]
    pub client_order_id: IdText,
    /// The fill.
    #[schemars(skip_serializing_if = "absent")]
    pub exec_id: IdText,
    /// Why an order was blocked.
    #[schemars(skip_serializing_if = "absent")]
    pub reason: ReasonCodeWord,
    /// The side.
    #[schemars(skip_serializing_if = "absent")]
    pub side: SideWord,
    /// The quantity.
    #[schemars(skip_serializing_if = "absent")]
    pub qty: PrintedDecimal,
    /// The price.
    #[schemars(skip_serializing_if = "absent")]
    pub price: PrintedDecimal,
    /// What the strategy thinks.
    #[schemars(skip_serializing_if = "absent")]
    pub signal: SignalWord,
    /// What was measured; rounded half to even at 8 decimals.
    #[schemars(skip_serializing_if = "absent")]
    pub current: PrintedFigure,
    /// What it was held against; rounded likewise.
    #[schemars(skip_serializing_if = "absent")]
    pub limit: PrintedFigure,
    /// `current / limit`; rounded likewise.
    #[schemars(skip_serializing_if = "absent")]
    pub utilization: PrintedFigure,
    /// The trading state now.
    #[schemars(skip_serializing_if = "absent")]
    pub state: TradingStateWord,
    /// The trading state before.
    #[schemars(skip_serializing_if = "absent")]
    pub previous_state: TradingStateWord,
    /// The trading day that ended.
    #[schemars(skip_serializing_if = "absent")]
    pub day: DateText,
    /// The equity at its end, in money; `null` when it is not known.
    #[schemars(skip_serializing_if = "absent")]
    pub equity: Option<PrintedDecimal>,
    /// The day's profit or loss, in money; `null` when it is not known.
    #[schemars(skip_serializing_if = "absent")]
    pub daily_pnl: Option<PrintedDecimal>,
    /// Intents allowed that day.
    #[schemars(skip_serializing_if = "absent")]
    pub allowed: u64,
    /// Intents allowed with less than they asked for.
    #[schemars(skip_serializing_if = "absent")]
    pub reduced: u64,
    /// Intents blocked.
    #[schemars(skip_serializing_if = "absent")]
    pub blocked: u64,
    /// Fills booked.
    #[schemars(skip_serializing_if = "absent")]
    pub fills: u64,
}

/// Something that people should know.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Notification {
    /// The name of the event.
    #[schemars(extend("const" = "notification"))]
    pub event: String,
    /// Its id: `shard-seq-ni`.
    pub notification_id: NotificationIdText,
    /// The account, and the record's key; absent when it is about the whole shard.
    #[schemars(skip_serializing_if = "absent")]
    pub account: IdText,
    /// The account's owner.
    #[schemars(skip_serializing_if = "absent")]
    pub owner: IdText,
    /// What it is about.
    #[schemars(rename = "type")]
    pub kind: NotificationTypeWord,
    /// What exactly it says.
    pub code: NotificationCodeWord,
    /// How urgent it is.
    pub priority: PriorityWord,
    /// A headline.
    pub title: String,
    /// A sentence with the figures of `data`.
    pub message: String,
    /// What applies.
    pub data: NotificationData,
    /// The shard.
    pub shard: u32,
    /// The ledger sequence of the record that caused it.
    pub seq: u64,
    /// That record's time, in ms.
    pub at: EpochMs,
}

/// A record that was refused, as it came.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct DeadLetter {
    /// Why.
    pub reason: RefusalCodeWord,
    /// The field at fault; a path with dots within nested objects.
    #[schemars(skip_serializing_if = "absent")]
    pub field: String,
    /// What is wrong, in words.
    pub message: String,
    /// Where it stood.
    pub source: Source,
    /// Its key, as text; `null` without one. It is also the key of this record.
    pub key: Option<String>,
    /// Its value.
    pub payload: Base64Text,
}
