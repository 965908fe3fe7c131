//! Operators' records: accounts, instruments, rules, states, settings.

use serde::{Deserialize, Serialize};

use super::code::{Action, NotificationType};
use super::number::{Factor, Millis, Money, Price, Qty};
use super::text::{AccountId, Currency, Id, ListId, OwnerId, RuleId, Sector, StrategyId, Symbol};

/// A field of a record that replaces settings: absent stays, `null` turns off or back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Patch<T> {
    /// Not given.
    #[default]
    Keep,
    /// `null`.
    Clear,
    /// Given.
    Set(T),
}

/// A record of `gate.control`.
#[derive(Clone, Debug, PartialEq)]
pub enum ControlEvent {
    /// `account_opened`
    AccountOpened(AccountOpened),
    /// `account_closed`
    AccountClosed {
        /// The account.
        account: AccountId,
    },
    /// `account_limits_set`
    AccountLimitsSet {
        /// The account.
        account: AccountId,
        /// What is given of them.
        limits: Limits,
    },
    /// `gate_settings_set`
    GateSettingsSet(Settings),
    /// `cash_adjusted`
    CashAdjusted {
        /// The account.
        account: AccountId,
        /// Deposit above zero, withdrawal below.
        amount: Money,
    },
    /// `instrument_defined`
    InstrumentDefined(InstrumentDefined),
    /// `split`: each `from` units become `to`.
    Split {
        /// The symbol.
        symbol: Symbol,
        /// Units before.
        from: Qty,
        /// Units after.
        to: Qty,
    },
    /// `restricted_list_set`
    RestrictedListSet(RestrictedList),
    /// `rule_created`
    RuleCreated(Rule),
    /// `rule_updated`
    RuleUpdated(Rule),
    /// `rule_deleted`
    RuleDeleted {
        /// The rule.
        id: RuleId,
    },
    /// `trading_state_set`
    TradingStateSet(TradingStateSet),
    /// `latch_released`
    LatchReleased(LatchReleased),
}

/// A new account.
#[derive(Clone, Debug, PartialEq)]
pub struct AccountOpened {
    /// Its id.
    pub account: AccountId,
    /// The person that it belongs to.
    pub owner: OwnerId,
    /// Its currency; default USD.
    pub currency: Option<Currency>,
    /// What it starts with.
    pub cash: Money,
    /// When its trading day ends, `HH:MM Zone`; default `00:00 UTC`.
    pub day_roll: Option<Box<str>>,
    /// Its limits.
    pub limits: Limits,
}

/// The limits of an account, or their defaults. All are off where nothing is set, but for the
/// greatest age of a price.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// Fat-finger limit of one order's quantity.
    pub max_order_qty: Patch<Qty>,
    /// Fat-finger limit of one order's value.
    pub max_order_value: Patch<Money>,
    /// How much worse than the reference a limit price may be, in percent.
    pub price_collar_percent: Patch<Factor>,
    /// Which way the collar looks.
    pub price_collar_mode: Patch<CollarMode>,
    /// How old a mark may be. 0 turns it off.
    pub max_price_age_ms: Patch<Millis>,
    /// How many allowed intents and amends a window may hold.
    pub order_rate_limit: Patch<u32>,
    /// The window of the rate.
    pub order_rate_window_ms: Patch<Millis>,
    /// How long equal orders under other ids are refused.
    pub duplicate_window_ms: Patch<Millis>,
    /// Whether orders that would meet the account's own are refused.
    pub self_trade_prevention: Patch<bool>,
    /// The types of notification that are wanted besides those that always come.
    pub notify: Patch<Box<[NotificationType]>>,
}

/// Which way a price collar looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum CollarMode {
    /// Only prices that are worse than the reference.
    #[default]
    Adverse,
    /// Better ones too.
    TwoSided,
}

/// Settings of the whole gate. `limits` are the defaults of every account.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// Older intents expire. Default 5000; 0 turns it off.
    pub max_intent_age_ms: Patch<Millis>,
    /// The distance of the valuation grid's boundaries, above 0. Default 1000.
    pub valuation_grid_ms: Patch<Millis>,
    /// How long ids are remembered. Default 172800000 (two days).
    pub id_memory_ms: Patch<Millis>,
    /// How long a command may stay unanswered. Default 10000.
    pub command_timeout_ms: Patch<Millis>,
    /// How long asking must be quiet to end an episode. Default 60000.
    pub episode_quiet_ms: Patch<Millis>,
    /// Percent of equity for sizing without a stop. Default 2.
    pub sizing_percent: Patch<Factor>,
    /// Defaults of every account's limits.
    pub limits: Limits,
}

/// An instrument, or a new definition of it.
#[derive(Clone, Debug, PartialEq)]
pub struct InstrumentDefined {
    /// Its symbol.
    pub symbol: Symbol,
    /// Its sector; none = `UNKNOWN`.
    pub sector: Option<Sector>,
    /// Money per point of price; absent keeps what is known, default 1.
    pub multiplier: Option<Factor>,
    /// The smallest step of a quantity; default 1.
    pub lot_size: Option<Qty>,
    /// The smallest step of a price; default none.
    pub tick_size: Option<Price>,
    /// Its currency; default USD.
    pub currency: Option<Currency>,
    /// Fat-finger limit of one order's quantity.
    pub max_order_qty: Option<Qty>,
    /// Fat-finger limit of one order's value.
    pub max_order_value: Option<Money>,
}

/// A list of symbols that may not be traded, but to get out.
#[derive(Clone, Debug, PartialEq)]
pub struct RestrictedList {
    /// Its id; setting it again replaces it.
    pub list: ListId,
    /// Its symbols.
    pub symbols: Box<[Symbol]>,
    /// The accounts that it covers; none given = all.
    pub accounts: Option<Box<[AccountId]>>,
}

/// The nine kinds of rule (SEMANTICS section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each is a row of the table in docs/SEMANTICS.md and spelled as on the wire")]
pub enum RuleType {
    MaxPositionSize,
    MaxDailyLoss,
    MaxDrawdown,
    MaxCorrelation,
    MaxLeverage,
    PositionLimit,
    SectorLimit,
    StopLoss,
    TakeProfit,
}

/// What a threshold counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[expect(missing_docs, reason = "spelled as on the wire")]
pub enum Unit {
    Percent,
    Dollars,
    Shares,
    Ratio,
    Count,
}

/// Whether a rule bites.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Mode {
    /// It does.
    #[default]
    Enforce,
    /// It is evaluated and listed and changes nothing.
    Observe,
}

/// What a missing correlation is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum OnMissing {
    /// Noted.
    #[default]
    Skip,
    /// A breach.
    Block,
}

/// What a rule covers: all that is given must match; nothing given = everything.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RuleScope {
    /// One account.
    pub account: Option<AccountId>,
    /// One strategy: then the rule is evaluated on intents only.
    pub strategy: Option<StrategyId>,
    /// Any of these symbols. Empty = not given.
    pub symbols: Box<[Symbol]>,
    /// Any of these sectors. Empty = not given.
    pub sectors: Box<[Sector]>,
}

/// A risk rule, with its defaults filled in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    /// Its id.
    pub id: RuleId,
    /// Its name; default empty.
    pub name: Box<str>,
    /// What it is for; default empty.
    pub description: Box<str>,
    /// Which of the nine.
    pub rule_type: RuleType,
    /// Its threshold, above zero.
    pub threshold: Factor,
    /// What the threshold counts.
    pub unit: Unit,
    /// What a breach does.
    pub action: Action,
    /// What it covers.
    pub scope: RuleScope,
    /// Whether it is evaluated at all; default true.
    pub active: bool,
    /// Whether it bites; default enforce.
    pub mode: Mode,
    /// Order of listing, then the id; default 0.
    pub priority: i64,
    /// Percent of the limit that warns; default 80.
    pub warn_at: Factor,
    /// `stop_loss` only: measured from the best mark since the position was opened.
    pub trailing: bool,
    /// `max_correlation` only: how many of the last bars count; default 60.
    pub window: u32,
    /// `max_correlation` only: which bars; default `1d`.
    pub timeframe: Id,
    /// `max_correlation` only: fewer returns are too few; default 20.
    pub min_observations: u32,
    /// `max_correlation` only: what a missing pair is.
    pub on_missing: OnMissing,
}

/// What a trading state covers: all that is given must match; nothing = everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StateScope {
    /// One account.
    pub account: Option<AccountId>,
    /// One strategy.
    pub strategy: Option<StrategyId>,
    /// One symbol.
    pub symbol: Option<Symbol>,
}

/// What may be traded, the strictest last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TradingState {
    /// Everything.
    #[default]
    Active,
    /// Only what strictly reduces.
    ReduceOnly,
    /// Likewise; and no rule ends it by itself.
    Halted,
}

/// A trading state, set by a record.
#[derive(Clone, Debug, PartialEq)]
pub struct TradingStateSet {
    /// What it covers.
    pub scope: StateScope,
    /// The state.
    pub state: TradingState,
    /// Who set it.
    pub actor: Box<str>,
    /// Why.
    pub reason: Box<str>,
    /// Command a cancel of every working order in scope.
    pub cancel_orders: bool,
    /// Command a close of every position in scope.
    pub flatten: bool,
}

/// A latch is taken off.
#[derive(Clone, Debug, PartialEq)]
pub struct LatchReleased {
    /// The account.
    pub account: AccountId,
    /// The rule.
    pub rule_id: RuleId,
    /// Who released it.
    pub actor: Box<str>,
    /// Why.
    pub reason: Box<str>,
    /// Also measure from here on.
    pub reset_hwm: bool,
}
