//! Documentation types of `gate.control`. Nothing is decoded into them.
//!
//! Invariant: no control record has fields that are not listed. Deliberately absent: what only the
//! gate can refuse, with a code of its own (which unit suits which rule).

use schemars::JsonSchema;

use super::scalars::*;
use super::{EventSchema, input};
use crate::domain::InputTopic;

/// Adds the events of `gate.control`.
pub(super) fn add(events: &mut Vec<EventSchema>) {
    const CONTROL: InputTopic = InputTopic::Control;
    events.push(input::<AccountOpened>("account_opened", CONTROL));
    events.push(input::<AccountClosed>("account_closed", CONTROL));
    events.push(input::<AccountLimitsSet>("account_limits_set", CONTROL));
    events.push(input::<GateSettingsSet>("gate_settings_set", CONTROL));
    events.push(input::<CashAdjusted>("cash_adjusted", CONTROL));
    events.push(input::<InstrumentDefined>("instrument_defined", CONTROL));
    events.push(input::<Split>("split", CONTROL));
    events.push(input::<RestrictedListSet>("restricted_list_set", CONTROL));
    events.push(input::<RuleCreated>("rule_created", CONTROL));
    events.push(input::<RuleUpdated>("rule_updated", CONTROL));
    events.push(input::<RuleDeleted>("rule_deleted", CONTROL));
    events.push(input::<TradingStateSet>("trading_state_set", CONTROL));
    events.push(input::<LatchReleased>("latch_released", CONTROL));
}

/// The limits of an account. A field that is given replaces, one that is absent stays, and `null`
/// turns the limit off (of an account: its default from the gate's settings too).
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Limits {
    /// The largest quantity of one order; above 0. Default off.
    pub max_order_qty: Option<PositiveDecimal>,
    /// The largest value of one order, in money; above 0. Default off.
    pub max_order_value: Option<PositiveDecimal>,
    /// How much worse than the reference a limit price may be, in percent; above 0. Default off.
    pub price_collar_percent: Option<PositiveDecimal>,
    /// Which way the collar looks. Default adverse.
    pub price_collar_mode: Option<CollarModeWord>,
    /// How old a mark may be. Default 60000; 0 turns it off.
    pub max_price_age_ms: Option<SpanMs>,
    /// How many allowed intents and amends the window may hold; 1 or more. Default off.
    #[schemars(range(min = 1))]
    pub order_rate_limit: Option<u32>,
    /// The window of the rate. Without one there is no rate check.
    pub order_rate_window_ms: Option<SpanMs>,
    /// How long an equal order under another id is refused. Default off.
    pub duplicate_window_ms: Option<SpanMs>,
    /// Whether orders that would meet the account's own are refused. Default false.
    pub self_trade_prevention: Option<bool>,
    /// The types of notification that are wanted besides those that always come. Default none.
    pub notify: Option<Vec<NotificationTypeWord>>,
}

/// A new account. Its `cash` becomes its start-of-day equity and high-water mark.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct AccountOpened {
    /// The name of the event.
    #[schemars(extend("const" = "account_opened"))]
    pub event: String,
    /// Its id.
    pub account: IdText,
    /// The person that it belongs to.
    pub owner: IdText,
    /// Its currency; default USD.
    pub currency: Option<IdText>,
    /// What it starts with, in money of its currency.
    pub cash: AnyDecimal,
    /// When its trading day ends, as `HH:MM Zone`; default `00:00 UTC`.
    pub day_roll: Option<String>,
    /// Its limits.
    pub limits: Option<Limits>,
}

/// An account is closed; refused unless it is flat with nothing working.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct AccountClosed {
    /// The name of the event.
    #[schemars(extend("const" = "account_closed"))]
    pub event: String,
    /// The account.
    pub account: IdText,
}

/// An account's limits change.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct AccountLimitsSet {
    /// The name of the event.
    #[schemars(extend("const" = "account_limits_set"))]
    pub event: String,
    /// The account.
    pub account: IdText,
    /// The limits.
    #[schemars(flatten)]
    pub limits: Limits,
}

/// Settings of the whole gate, and the defaults of every account's limits. A field that is given
/// replaces, one that is absent stays, and `null` puts a setting back or turns a limit off.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct GateSettingsSet {
    /// The name of the event.
    #[schemars(extend("const" = "gate_settings_set"))]
    pub event: String,
    /// Older intents are refused with EXPIRED. Default 5000; 0 turns it off.
    pub max_intent_age_ms: Option<SpanMs>,
    /// The distance of the valuation grid's boundaries. Default 1000.
    pub valuation_grid_ms: Option<PositiveMs>,
    /// How long ids of intents and fills are remembered. Default 172800000.
    pub id_memory_ms: Option<SpanMs>,
    /// How long a command may stay unanswered before CLOSE_NOT_CONFIRMED. Default 10000.
    pub command_timeout_ms: Option<SpanMs>,
    /// How long asking must be quiet to end an episode. Default 60000.
    pub episode_quiet_ms: Option<SpanMs>,
    /// Percent of equity for sizing without a stop; above 0. Default 2.
    pub sizing_percent: Option<PositiveDecimal>,
    /// The defaults of every account's limits.
    #[schemars(flatten)]
    pub limits: Limits,
}

/// A deposit or withdrawal: neither profit nor loss.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct CashAdjusted {
    /// The name of the event.
    #[schemars(extend("const" = "cash_adjusted"))]
    pub event: String,
    /// The account.
    pub account: IdText,
    /// Money: a deposit above 0, a withdrawal below.
    pub amount: AnyDecimal,
    /// Why.
    pub reason: String,
}

/// An instrument, or its new definition. Another multiplier is refused, an absent one kept.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct InstrumentDefined {
    /// The name of the event.
    #[schemars(extend("const" = "instrument_defined"))]
    pub event: String,
    /// Its symbol.
    pub symbol: SymbolText,
    /// Its sector; without one, UNKNOWN.
    pub sector: Option<IdText>,
    /// Money per point of price; above 0. Default 1.
    pub multiplier: Option<PositiveDecimal>,
    /// The smallest step of a quantity; above 0. Default 1.
    pub lot_size: Option<PositiveDecimal>,
    /// The smallest step of a price; above 0. Default none.
    pub tick_size: Option<PositiveDecimal>,
    /// Its currency; default USD.
    pub currency: Option<IdText>,
    /// The largest quantity of one order; above 0.
    pub max_order_qty: Option<PositiveDecimal>,
    /// The largest value of one order, in money; above 0.
    pub max_order_value: Option<PositiveDecimal>,
}

/// A split: each `from` units become `to`.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Split {
    /// The name of the event.
    #[schemars(extend("const" = "split"))]
    pub event: String,
    /// The symbol.
    pub symbol: SymbolText,
    /// Units before; above 0.
    pub from: PositiveDecimal,
    /// Units after; above 0.
    pub to: PositiveDecimal,
}

/// A list of symbols that may not be traded, but to get out. Set again, it is replaced.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct RestrictedListSet {
    /// The name of the event.
    #[schemars(extend("const" = "restricted_list_set"))]
    pub event: String,
    /// The list's id.
    pub list: IdText,
    /// Its symbols.
    pub symbols: Vec<SymbolText>,
    /// The accounts that it covers; not given = all.
    pub accounts: Option<Vec<IdText>>,
}

/// What a rule covers: all that is given must match; nothing given, or empty, = everything.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct RuleScope {
    /// One account.
    pub account: Option<IdText>,
    /// One strategy: then the rule is evaluated on intents only.
    pub strategy: Option<IdText>,
    /// Any of these symbols.
    pub symbols: Option<Vec<SymbolText>>,
    /// Any of these sectors.
    pub sectors: Option<Vec<IdText>>,
}

/// A risk rule.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Rule {
    /// Its id.
    pub id: IdText,
    /// Its name; default empty.
    pub name: Option<String>,
    /// What it is for; default empty.
    pub description: Option<String>,
    /// Which of the nine. It cannot change later.
    #[schemars(rename = "type")]
    pub rule_type: RuleTypeWord,
    /// Its threshold, in `unit`; above 0. Limits are inclusive.
    pub threshold: PositiveDecimal,
    /// What the threshold counts; the type allows some.
    pub unit: UnitWord,
    /// What a breach does.
    pub action: ActionWord,
    /// What it covers; default everything.
    pub scope: Option<RuleScope>,
    /// Whether it is evaluated; default true.
    pub active: Option<bool>,
    /// Whether it bites; default enforce.
    pub mode: Option<ModeWord>,
    /// Order of listing, then the id; default 0.
    pub priority: Option<i64>,
    /// Percent of the limit that warns; above 0. Default 80.
    pub warn_at: Option<PositiveDecimal>,
    /// stop_loss only: measured from the best mark since the position was opened; default false.
    pub trailing: Option<bool>,
    /// max_correlation only: how many of the last bars count; 2 or more. Default 60.
    #[schemars(range(min = 2))]
    pub window: Option<u32>,
    /// max_correlation only: which bars; default `1d`.
    pub timeframe: Option<IdText>,
    /// max_correlation only: fewer returns are too few; 2 or more. Default 20.
    #[schemars(range(min = 2))]
    pub min_observations: Option<u32>,
    /// max_correlation only: what a missing correlation is; default skip.
    pub on_missing: Option<OnMissingWord>,
}

/// A new rule.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct RuleCreated {
    /// The name of the event.
    #[schemars(extend("const" = "rule_created"))]
    pub event: String,
    /// The rule.
    pub rule: Rule,
}

/// A rule is replaced; it keeps its latches and episodes.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct RuleUpdated {
    /// The name of the event.
    #[schemars(extend("const" = "rule_updated"))]
    pub event: String,
    /// The rule, whole.
    pub rule: Rule,
}

/// A rule is deleted, with its latches and episodes.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct RuleDeleted {
    /// The name of the event.
    #[schemars(extend("const" = "rule_deleted"))]
    pub event: String,
    /// The rule.
    pub id: IdText,
}

/// What a trading state covers: all that is given must match; `{}` = everything.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct StateScope {
    /// One account.
    pub account: Option<IdText>,
    /// One strategy.
    pub strategy: Option<IdText>,
    /// One symbol.
    pub symbol: Option<SymbolText>,
}

/// A trading state is set; with `cancel_orders` and `flatten` it is the kill switch.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct TradingStateSet {
    /// The name of the event.
    #[schemars(extend("const" = "trading_state_set"))]
    pub event: String,
    /// What it covers.
    pub scope: StateScope,
    /// The state.
    pub state: TradingStateWord,
    /// Who set it.
    pub actor: String,
    /// Why.
    pub reason: String,
    /// Command a cancel of every working order in scope; default false.
    pub cancel_orders: Option<bool>,
    /// Command a close of every position in scope; default false. Not with a strategy in the scope.
    pub flatten: Option<bool>,
}

/// A latch of a loss or drawdown rule is taken off.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct LatchReleased {
    /// The name of the event.
    #[schemars(extend("const" = "latch_released"))]
    pub event: String,
    /// The account.
    pub account: IdText,
    /// The rule.
    pub rule_id: IdText,
    /// Who released it.
    pub actor: String,
    /// Why.
    pub reason: String,
    /// Also set the high-water mark to the equity now; default false.
    pub reset_hwm: Option<bool>,
}
