//! Risk rules within control records.
//!
//! Invariant: a rule comes out with its defaults filled in. Deliberately absent: whether the unit,
//! threshold and scope are ones that the type allows; the gate refuses those with a code of its own.

use crate::domain::{Action, Factor, Id, Mode, OnMissing, Rule, RuleScope, RuleType, Unit};

use super::fields::Fields;
use super::value::Value;
use crate::wire::key::Key;

/// The bars that correlations are taken of where a rule does not say.
const DEFAULT_TIMEFRAME: &[u8] = b"1d";
const DEFAULT_WARN_AT: Factor = Factor::whole(80);
const DEFAULT_WINDOW: u32 = 60;
const DEFAULT_MIN_OBSERVATIONS: u32 = 20;

/// Reads the object that describes a rule.
pub(super) fn rule(fields: &mut Fields<'_>) -> Option<Rule> {
    let id = fields.required(Key::Id, Value::id);
    let name = fields.optional(Key::Name, Value::prose).unwrap_or_default();
    let description = fields.optional(Key::Description, Value::prose).unwrap_or_default();
    let rule_type = fields.required(Key::Type, |value| value.word(RuleType::from_bytes));
    let threshold = fields.required(Key::Threshold, Value::factor);
    let unit = fields.required(Key::Unit, |value| value.word(Unit::from_bytes));
    let action = fields.required(Key::Action, |value| value.word(Action::from_bytes));
    let scope = fields.object(Key::Scope, |inner| Some(scope(inner))).unwrap_or_default();
    let active = fields.optional(Key::Active, Value::flag).unwrap_or(true);
    let mode = fields.optional(Key::Mode, |value| value.word(Mode::from_bytes)).unwrap_or_default();
    let priority = fields.optional(Key::Priority, Value::integer).unwrap_or_default();
    let warn_at = fields.optional(Key::WarnAt, Value::factor).unwrap_or(DEFAULT_WARN_AT);
    let trailing = fields.optional(Key::Trailing, Value::flag).unwrap_or_default();
    let window = fields.optional(Key::Window, |value| value.count(2)).unwrap_or(DEFAULT_WINDOW);
    let timeframe = fields.optional(Key::Timeframe, Value::id).or_else(|| Id::parse(DEFAULT_TIMEFRAME));
    let min_observations = fields.optional(Key::MinObservations, |value| value.count(2)).unwrap_or(DEFAULT_MIN_OBSERVATIONS);
    let on_missing = fields.optional(Key::OnMissing, |value| value.word(OnMissing::from_bytes)).unwrap_or_default();
    Some(Rule {
        id: id?,
        name,
        description,
        rule_type: rule_type?,
        threshold: threshold?,
        unit: unit?,
        action: action?,
        scope,
        active,
        mode,
        priority,
        warn_at,
        trailing,
        window,
        timeframe: timeframe?,
        min_observations,
        on_missing,
    })
}

fn scope(fields: &mut Fields<'_>) -> RuleScope {
    RuleScope {
        account: fields.optional(Key::Account, Value::id),
        strategy: fields.optional(Key::Strategy, Value::id),
        symbols: fields.optional(Key::Symbols, |value| value.list(Value::symbol)).unwrap_or_default(),
        sectors: fields.optional(Key::Sectors, |value| value.list(Value::id)).unwrap_or_default(),
    }
}
