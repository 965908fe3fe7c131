//! What goes out: decisions, commands, notifications, dead letters, as values.
//!
//! Invariant: an output is complete in itself together with the [`Effects`] that hold its lists;
//! printing it needs no other state, no clock and no allocation.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::code::{Action, NotificationCode, NotificationType, Priority, ReasonCode, RefusalCode, Verdict};
use super::control::{RuleType, TradingState, Unit};
use super::event::{Side, Source};
use super::number::{Millis, Money, Price, Qty};
use super::text::{AccountId, AmendId, ClientOrderId, ExecId, OwnerId, RuleId, Sector, StrategyId, Symbol};

/// What one or more records caused, in output order. Cleared and used again.
#[derive(Clone, Debug, Default)]
pub struct Effects {
    /// The outputs.
    pub outputs: Vec<Output>,
    /// The reasons that decisions refer to.
    pub reasons: Vec<Reason>,
    /// The orders that cancels refer to.
    pub order_ids: Vec<ClientOrderId>,
    /// How many prices were of symbols that are not defined, and dropped.
    pub prices_dropped: u64,
}

impl Effects {
    /// Empties it and keeps its memory.
    pub fn clear(&mut self) {
        self.outputs.clear();
        self.reasons.clear();
        self.order_ids.clear();
        self.prices_dropped = 0;
    }

    /// The reasons of one decision.
    #[must_use]
    pub fn reasons_of(&self, decision: &Decision) -> &[Reason] {
        self.reasons.get(decision.reasons.clone()).unwrap_or_default()
    }

    /// The orders that one cancel names, oldest first.
    #[must_use]
    pub fn orders_of(&self, cancel: &CancelOrders) -> &[ClientOrderId] {
        self.order_ids.get(cancel.client_order_ids.clone()).unwrap_or_default()
    }
}

/// One output.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "decisions are the common ones, and boxing them would allocate on the hot path")]
pub enum Output {
    /// To `gate.decisions`.
    Decision(Decision),
    /// To `gate.commands`.
    CancelOrders(CancelOrders),
    /// To `gate.commands`.
    ClosePosition(ClosePosition),
    /// To `gate.notifications`.
    Notification(Notification),
    /// To `gate.dead-letter`; source, key and payload are those of the record at hand.
    DeadLetter(DeadLetter),
}

/// What was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum IntentKind {
    /// A new order.
    Order,
    /// A change of one.
    Amend,
    /// A cancel.
    Cancel,
}

impl IntentKind {
    /// The wire's word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Order => "order",
            Self::Amend => "amend",
            Self::Cancel => "cancel",
        }
    }
}

/// The answer to an intent, an amend or a cancel. `decision_id` is `shard-seq`.
///
/// In the decision of a record that could not be decoded everything but the ids is `None`.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// The order.
    pub client_order_id: ClientOrderId,
    /// The amendment.
    pub amend_id: Option<AmendId>,
    /// The account.
    pub account: AccountId,
    /// What was asked.
    pub intent: Option<IntentKind>,
    /// The symbol.
    pub symbol: Option<Symbol>,
    /// The side.
    pub side: Option<Side>,
    /// The answer.
    pub verdict: Verdict,
    /// What was asked for; of an amend the new total, of a cancel the leaves.
    pub requested_qty: Option<Qty>,
    /// What is approved.
    pub approved_qty: Qty,
    /// Why: a range of [`Effects::reasons`].
    pub reasons: Range<usize>,
    /// The account's equity; `None` when a mark is missing or it leaves its type.
    pub equity: Option<Money>,
    /// The shard.
    pub shard: u32,
    /// The ledger sequence.
    pub seq: u64,
    /// The record's time.
    pub at: Millis,
    /// Where the intent stood.
    pub source: Source,
}

/// A figure of a reason, rounded half to even at 8 decimals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Figure {
    /// Does not apply: the field is left out.
    #[default]
    Absent,
    /// `null`
    Unknown,
    /// `"inf"`
    Infinite,
    /// In units of 1e-8.
    Units(i128),
}

/// The rule that a reason cites.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleCited {
    /// Its id.
    pub id: RuleId,
    /// Its type.
    pub rule_type: RuleType,
    /// Its action.
    pub action: Action,
    /// The unit of its threshold.
    pub unit: Unit,
}

/// A field of an intent that a check refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "spelled as on the wire")]
pub enum Field {
    Qty,
    Notional,
    LimitPrice,
    StopPrice,
    TrailPrice,
    TrailPercent,
    ReduceOnly,
    Account,
    Symbol,
    ClientOrderId,
    AmendId,
}

impl Field {
    /// The wire's word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Qty => "qty",
            Self::Notional => "notional",
            Self::LimitPrice => "limit_price",
            Self::StopPrice => "stop_price",
            Self::TrailPrice => "trail_price",
            Self::TrailPercent => "trail_percent",
            Self::ReduceOnly => "reduce_only",
            Self::Account => "account",
            Self::Symbol => "symbol",
            Self::ClientOrderId => "client_order_id",
            Self::AmendId => "amend_id",
        }
    }
}

/// The name of a field at fault that is none of [`Field`], and what is wrong, for people.
pub type Objection = (Option<Box<str>>, Box<str>);

/// Why a decision is what it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// What failed, or what is noted.
    pub code: ReasonCode,
    /// The rule, for breaches and notes of rules.
    pub rule: Option<RuleCited>,
    /// What was measured.
    pub current: Figure,
    /// What it was held against.
    pub limit: Figure,
    /// `current / limit`.
    pub utilization: Figure,
    /// It would have failed, but the order strictly reduces.
    pub exempt: bool,
    /// The rule only observes.
    pub observed: bool,
    /// The rule is latched.
    pub latched: bool,
    /// The field at fault.
    pub field: Option<Field>,
    /// The name of a field that is none of [`Field`], and what is wrong with it: of records that
    /// could not be decoded.
    pub refused: Option<Box<Objection>>,
}

impl Reason {
    /// A reason with only its code.
    #[must_use]
    pub const fn of(code: ReasonCode) -> Self {
        Self {
            code,
            rule: None,
            current: Figure::Absent,
            limit: Figure::Absent,
            utilization: Figure::Absent,
            exempt: false,
            observed: false,
            latched: false,
            field: None,
            refused: None,
        }
    }
}

/// A command to cancel orders. `command_id` is `shard-seq-index`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CancelOrders {
    /// Its number among the commands of its record.
    pub index: u32,
    /// The account.
    pub account: AccountId,
    /// The symbol; `None` when it is of the whole account.
    pub symbol: Option<Symbol>,
    /// The orders, oldest first: a range of [`Effects::order_ids`].
    pub client_order_ids: Range<usize>,
    /// The rule, unless an operator's record caused it.
    pub rule_id: Option<RuleId>,
    /// The shard.
    pub shard: u32,
    /// The ledger sequence.
    pub seq: u64,
    /// The record's time.
    pub at: Millis,
}

/// A command to close (part of) a position at the market. `command_id` is `shard-seq-index`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClosePosition {
    /// Its number among the commands of its record.
    pub index: u32,
    /// The account.
    pub account: AccountId,
    /// The symbol.
    pub symbol: Symbol,
    /// The side that reduces.
    pub side: Side,
    /// How much, above zero.
    pub qty: Qty,
    /// The rule, unless an operator's record caused it.
    pub rule_id: Option<RuleId>,
    /// The shard.
    pub shard: u32,
    /// The ledger sequence.
    pub seq: u64,
    /// The record's time.
    pub at: Millis,
}

/// A notification. `notification_id` is `shard-seq-nindex`; its type, title and message follow from the rest.
#[derive(Clone, Debug, PartialEq)]
pub struct Notification {
    /// Its number among the notifications of its record.
    pub index: u32,
    /// The account, unless it is about the whole shard.
    pub account: Option<AccountId>,
    /// The account's owner.
    pub owner: Option<OwnerId>,
    /// What it is about.
    pub kind: NotificationType,
    /// What it says.
    pub code: NotificationCode,
    /// How urgent it is.
    pub priority: Priority,
    /// What applies.
    pub data: NotificationData,
    /// The shard.
    pub shard: u32,
    /// The ledger sequence.
    pub seq: u64,
    /// The record's time.
    pub at: Millis,
}

/// What a notification tells, field by field; what does not apply is absent.
#[derive(Clone, Debug, Default, PartialEq)]
#[expect(missing_docs, reason = "spelled as on the wire")]
pub struct NotificationData {
    pub rule: Option<RuleCited>,
    pub symbol: Option<Symbol>,
    pub sector: Option<Sector>,
    pub strategy: Option<StrategyId>,
    pub client_order_id: Option<ClientOrderId>,
    pub exec_id: Option<ExecId>,
    pub reason: Option<ReasonCode>,
    pub side: Option<Side>,
    pub qty: Option<Qty>,
    pub price: Option<Price>,
    pub signal: Option<super::event::SignalKind>,
    pub current: Figure,
    pub limit: Figure,
    pub utilization: Figure,
    pub state: Option<TradingState>,
    pub previous_state: Option<TradingState>,
    /// The trading day, as `[year, month, day]`.
    pub day: Option<(i16, i8, i8)>,
    /// `Some(None)` is an equity that is not known.
    pub equity: Option<Option<Money>>,
    pub daily_pnl: Option<Option<Money>>,
    pub allowed: Option<u64>,
    pub reduced: Option<u64>,
    pub blocked: Option<u64>,
    pub fills: Option<u64>,
}

/// A record that was refused, beside what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Why.
    pub code: RefusalCode,
    /// The field at fault.
    pub field: Option<Box<str>>,
    /// What is wrong, for people.
    pub message: Box<str>,
}
