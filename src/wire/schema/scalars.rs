//! The kinds of text and number that fields hold, as schemas.
//!
//! Invariant: each word that a field knows comes from the type that decodes or encodes it.
//! Deliberately absent: what a schema cannot say in reason (digits counted by value); the
//! descriptions say it.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::domain::{
    Action, CollarMode, InputTopic, Mode, NotificationCode, NotificationType, OnMissing, OrderType, Priority, ReasonCode, RefusalCode,
    RuleType, SignalKind, TimeInForce, TradingState, Unit, Verdict,
};

macro_rules! scalars {
    ($($(#[doc = $doc:literal])+ $name:ident = $schema:tt;)+) => {$(
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug)]
        pub struct $name;

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    )+};
}

macro_rules! word_lists {
    ($($(#[doc = $doc:literal])+ $name:ident = $source:ident;)+) => {$(
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug)]
        pub struct $name;

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                let words: Vec<&str> = $source::ALL.iter().map(|word| word.as_str()).collect();
                json_schema!({ "type": "string", "enum": words })
            }
        }
    )+};
}

const DECIMAL: &str = "^-?(0|[1-9][0-9]*)(\\.[0-9]+)?([eE][+-]?[0-9]+)?$";
const NOT_NEGATIVE: &str = "^(0|[1-9][0-9]*)(\\.[0-9]+)?([eE][+-]?[0-9]+)?$|^-0(\\.0+)?([eE][+-]?[0-9]+)?$";
const ABOVE_ZERO: &str = "^(?=[0-9.]*[1-9])(0|[1-9][0-9]*)(\\.[0-9]+)?([eE][+-]?[0-9]+)?$";
const PRINTED: &str = "^(0|-?[1-9][0-9]*|-?(0|[1-9][0-9]*)\\.[0-9]*[1-9])$";
const RFC3339: &str = "^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})$";

scalars! {
    /// An identifier.
    IdText = { "type": "string", "pattern": "^[A-Za-z0-9._:-]{1,64}$" };
    /// A symbol.
    SymbolText = { "type": "string", "pattern": "^[A-Za-z0-9._:/-]{1,32}$" };
    /// A decimal of any sign, with at most 8 fractional digits.
    AnyDecimal = { "anyOf": [{ "type": "string", "pattern": DECIMAL }, { "type": "number" }] };
    /// A decimal not below 0.
    NotNegativeDecimal = { "anyOf": [{ "type": "string", "pattern": NOT_NEGATIVE }, { "type": "number", "minimum": 0 }] };
    /// A decimal above 0.
    PositiveDecimal = { "anyOf": [{ "type": "string", "pattern": ABOVE_ZERO }, { "type": "number", "exclusiveMinimum": 0 }] };
    /// A time: RFC 3339, or integer milliseconds since the epoch.
    Time = { "anyOf": [{ "type": "string", "pattern": RFC3339 }, { "type": "integer" }] };
    /// A time in integer milliseconds since the epoch.
    EpochMs = { "type": "integer" };
    /// Milliseconds, not below 0.
    SpanMs = { "type": "integer", "minimum": 0 };
    /// Milliseconds, above 0.
    PositiveMs = { "type": "integer", "minimum": 1 };
    /// A side.
    SideWord = { "type": "string", "enum": ["buy", "sell"] };
    /// What was asked.
    IntentWord = { "type": "string", "enum": ["order", "amend", "cancel"] };
    /// A decimal as the gate prints it: plain, no exponent, no trailing zeros, no `-0`.
    PrintedDecimal = { "type": "string", "pattern": PRINTED };
    /// A figure as the gate prints it, rounded half to even at 8 decimals: `inf` = infinite, `null` = not known.
    PrintedFigure = { "anyOf": [{ "type": "string", "pattern": PRINTED }, { "const": "inf" }, { "type": "null" }] };
    /// The id of a decision: `shard-seq`.
    DecisionIdText = { "type": "string", "pattern": "^[0-9]+-[0-9]+$" };
    /// The id of a command: `shard-seq-i`. An intent that carries it out takes it as its `client_order_id`.
    CommandIdText = { "type": "string", "pattern": "^[0-9]+-[0-9]+-[0-9]+$" };
    /// The id of a notification: `shard-seq-ni`.
    NotificationIdText = { "type": "string", "pattern": "^[0-9]+-[0-9]+-n[0-9]+$" };
    /// A date, `YYYY-MM-DD`.
    DateText = { "type": "string", "pattern": "^-?[0-9]{4,}-[0-9]{2}-[0-9]{2}$" };
    /// Bytes in base64 (RFC 4648, padded).
    Base64Text = { "type": "string", "pattern": "^[A-Za-z0-9+/]*={0,2}$" };
}

word_lists! {
    /// FIX 40 OrdType.
    OrderTypeWord = OrderType;
    /// FIX 59 TimeInForce.
    TimeInForceWord = TimeInForce;
    /// What a strategy thinks.
    SignalWord = SignalKind;
    /// Which way a collar looks.
    CollarModeWord = CollarMode;
    /// Types of notification.
    NotificationTypeWord = NotificationType;
    /// Codes of notification.
    NotificationCodeWord = NotificationCode;
    /// How urgent a notification is.
    PriorityWord = Priority;
    /// The nine rules.
    RuleTypeWord = RuleType;
    /// What a threshold counts.
    UnitWord = Unit;
    /// What a breach does.
    ActionWord = Action;
    /// Whether a rule bites.
    ModeWord = Mode;
    /// What a missing correlation is.
    OnMissingWord = OnMissing;
    /// What may be traded.
    TradingStateWord = TradingState;
    /// The answer to an intent.
    VerdictWord = Verdict;
    /// Why a decision is what it is.
    ReasonCodeWord = ReasonCode;
    /// Why a record is a dead letter.
    RefusalCodeWord = RefusalCode;
    /// The topics that the gate reads, by their default names.
    InputTopicWord = InputTopic;
}
