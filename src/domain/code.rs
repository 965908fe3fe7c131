//! Frozen words: verdicts, codes, actions, notifications, each with its text on the wire.
//!
//! Invariant: the order of [`ReasonCode`] is the order of evaluation (SEMANTICS section 4).

use serde::{Deserialize, Serialize};

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name { $($(#[$vdoc])* #[doc = concat!("`", $text, "`")] $variant,)+ }

        impl $name {
            /// All of them, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The wire's word.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            /// Reads the wire's word.
            #[must_use]
            pub fn parse(word: &str) -> Option<Self> {
                Self::from_bytes(word.as_bytes())
            }

            /// Reads the wire's word from bytes.
            #[must_use]
            #[inline]
            pub fn from_bytes(word: &[u8]) -> Option<Self> {
                $(if word == $text.as_bytes() { return Some(Self::$variant); })+
                None
            }
        }
    };
}

words! {
    /// What a decision says.
    Verdict {
        Allow = "allow",
        AllowReduced = "allow_reduced",
        Block = "block",
    }
}

words! {
    /// Why: the checks in the order of evaluation, then the rules and notes.
    ReasonCode {
        Malformed = "MALFORMED",
        Misrouted = "MISROUTED",
        ValueOutOfRange = "VALUE_OUT_OF_RANGE",
        UnknownAccount = "UNKNOWN_ACCOUNT",
        IntentIdConflict = "INTENT_ID_CONFLICT",
        Expired = "EXPIRED",
        UnknownInstrument = "UNKNOWN_INSTRUMENT",
        CurrencyMismatch = "CURRENCY_MISMATCH",
        UnknownOrder = "UNKNOWN_ORDER",
        InvalidOrder = "INVALID_ORDER",
        Halted = "HALTED",
        ReduceOnly = "REDUCE_ONLY",
        Restricted = "RESTRICTED",
        PriceUnavailable = "PRICE_UNAVAILABLE",
        PriceStale = "PRICE_STALE",
        PriceCollar = "PRICE_COLLAR",
        MaxOrderQty = "MAX_ORDER_QTY",
        MaxOrderValue = "MAX_ORDER_VALUE",
        OrderRate = "ORDER_RATE",
        DuplicateOrder = "DUPLICATE_ORDER",
        SelfTrade = "SELF_TRADE",
        RuleBreach = "RULE_BREACH",
        CorrelationUnavailable = "CORRELATION_UNAVAILABLE",
    }
}

words! {
    /// Why a record is a dead letter.
    RefusalCode {
        Malformed = "MALFORMED",
        Misrouted = "MISROUTED",
        ValueOutOfRange = "VALUE_OUT_OF_RANGE",
        UnknownAccount = "UNKNOWN_ACCOUNT",
        ExecutionUnreadable = "EXECUTION_UNREADABLE",
        UnknownExecution = "UNKNOWN_EXECUTION",
        AccountExists = "ACCOUNT_EXISTS",
        AccountClosed = "ACCOUNT_CLOSED",
        AccountNotFlat = "ACCOUNT_NOT_FLAT",
        InvalidDayRoll = "INVALID_DAY_ROLL",
        InvalidSettings = "INVALID_SETTINGS",
        UnknownInstrument = "UNKNOWN_INSTRUMENT",
        MultiplierChanged = "MULTIPLIER_CHANGED",
        InvalidSplit = "INVALID_SPLIT",
        InvalidRule = "INVALID_RULE",
        RuleExists = "RULE_EXISTS",
        UnknownRule = "UNKNOWN_RULE",
        InvalidScope = "INVALID_SCOPE",
        UnknownLatch = "UNKNOWN_LATCH",
    }
}

words! {
    /// What a breach does, the least severe first (SEMANTICS section 6).
    Action {
        Alert = "alert",
        ReduceSize = "reduce_size",
        Block = "block",
        ClosePosition = "close_position",
        CloseAll = "close_all",
    }
}

impl Action {
    /// Whether a breach closes positions.
    #[must_use]
    pub const fn closes(self) -> bool {
        matches!(self, Self::ClosePosition | Self::CloseAll)
    }
}

words! {
    /// Which command a gate sends.
    CommandKind {
        CancelOrders = "cancel_orders",
        ClosePosition = "close_position",
    }
}

words! {
    /// What a notification is about.
    NotificationType {
        RiskBreach = "risk_breach",
        StopLoss = "stop_loss",
        ProfitTarget = "profit_target",
        SystemAlert = "system_alert",
        OrderRejected = "order_rejected",
        OrderFilled = "order_filled",
        OrderCancelled = "order_cancelled",
        PositionOpened = "position_opened",
        PositionClosed = "position_closed",
        StrategySignal = "strategy_signal",
        DailySummary = "daily_summary",
    }
}

words! {
    /// What exactly a notification says.
    NotificationCode {
        RuleBreach = "RULE_BREACH",
        RuleWarning = "RULE_WARNING",
        RuleCleared = "RULE_CLEARED",
        ExecutionUnreadable = "EXECUTION_UNREADABLE",
        CloseNotConfirmed = "CLOSE_NOT_CONFIRMED",
        UnknownOrderFill = "UNKNOWN_ORDER_FILL",
        Overfill = "OVERFILL",
        UnknownExecution = "UNKNOWN_EXECUTION",
        UnknownAccount = "UNKNOWN_ACCOUNT",
        TradingStateChanged = "TRADING_STATE_CHANGED",
        OrderRejected = "ORDER_REJECTED",
        OrderFilled = "ORDER_FILLED",
        OrderCancelled = "ORDER_CANCELLED",
        PositionOpened = "POSITION_OPENED",
        PositionClosed = "POSITION_CLOSED",
        StrategySignal = "STRATEGY_SIGNAL",
        DailySummary = "DAILY_SUMMARY",
    }
}

words! {
    /// How urgent a notification is.
    Priority {
        Low = "low",
        Medium = "medium",
        High = "high",
        Urgent = "urgent",
    }
}

macro_rules! spelled {
    ($name:ty { $($variant:ident = $text:literal,)+ }) => {
        impl $name {
            /// All of them, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The wire's word.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            /// Reads the wire's word.
            #[must_use]
            pub fn parse(word: &str) -> Option<Self> {
                Self::from_bytes(word.as_bytes())
            }

            /// Reads the wire's word from bytes.
            #[must_use]
            #[inline]
            pub fn from_bytes(word: &[u8]) -> Option<Self> {
                $(if word == $text.as_bytes() { return Some(Self::$variant); })+
                None
            }
        }
    };
}

spelled! { super::control::RuleType {
    MaxPositionSize = "max_position_size",
    MaxDailyLoss = "max_daily_loss",
    MaxDrawdown = "max_drawdown",
    MaxCorrelation = "max_correlation",
    MaxLeverage = "max_leverage",
    PositionLimit = "position_limit",
    SectorLimit = "sector_limit",
    StopLoss = "stop_loss",
    TakeProfit = "take_profit",
} }
spelled! { super::control::Unit {
    Percent = "percent",
    Dollars = "dollars",
    Shares = "shares",
    Ratio = "ratio",
    Count = "count",
} }
spelled! { super::control::Mode {
    Enforce = "enforce",
    Observe = "observe",
} }
spelled! { super::control::OnMissing {
    Skip = "skip",
    Block = "block",
} }
spelled! { super::control::TradingState {
    Active = "active",
    ReduceOnly = "reduce_only",
    Halted = "halted",
} }
spelled! { super::control::CollarMode {
    Adverse = "adverse",
    TwoSided = "two_sided",
} }
spelled! { super::event::OrderType {
    Market = "market",
    Limit = "limit",
    Stop = "stop",
    StopLimit = "stop_limit",
    TrailingStop = "trailing_stop",
} }
spelled! { super::event::TimeInForce {
    Day = "day",
    Gtc = "gtc",
    Ioc = "ioc",
    Fok = "fok",
    Opg = "opg",
    Cls = "cls",
} }
spelled! { super::event::SignalKind {
    Buy = "buy",
    Sell = "sell",
    Hold = "hold",
} }
spelled! { super::event::ReportKind {
    Accepted = "accepted",
    Canceled = "canceled",
    Rejected = "rejected",
    Expired = "expired",
    DoneForDay = "done_for_day",
} }
spelled! { super::event::InputTopic {
    Intents = "orders.intents",
    Executions = "orders.executions",
    Prices = "market.prices",
    Control = "gate.control",
} }
