//! A rule with its scope resolved, and whether the table of SEMANTICS section 5 allows it.

use serde::{Deserialize, Serialize};

use crate::book::{AccountIx, SectorIx, StrategyIx, SymbolIx};
use crate::domain::{Action, Factor, Mode, OnMissing, Rule, RuleCited, RuleType, Unit};

/// A scope whose names are numbers. Empty lists cover everything.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Scope {
    /// The only account, if one is named; one that is not open yet covers nothing.
    pub account: Option<Option<AccountIx>>,
    /// The only strategy, if one is named.
    pub strategy: Option<StrategyIx>,
    /// The symbols, sorted.
    pub symbols: Vec<SymbolIx>,
    /// The sectors, sorted.
    pub sectors: Vec<SectorIx>,
}

impl Scope {
    /// Whether it covers an account, as it does without an intent: strategies then match nothing.
    #[must_use]
    pub fn covers_account(&self, account: AccountIx) -> bool {
        self.strategy.is_none() && self.account.is_none_or(|only| only == Some(account))
    }

    /// Whether it covers a symbol of a sector.
    #[must_use]
    pub fn covers_symbol(&self, symbol: SymbolIx, sector: SectorIx) -> bool {
        (self.symbols.is_empty() || self.symbols.binary_search(&symbol).is_ok())
            && (self.sectors.is_empty() || self.sectors.binary_search(&sector).is_ok())
    }

    /// Whether it covers an intent.
    #[must_use]
    pub fn covers_intent(&self, account: AccountIx, strategy: StrategyIx, symbol: SymbolIx, sector: SectorIx) -> bool {
        self.account.is_none_or(|only| only == Some(account))
            && self.strategy.is_none_or(|only| only == strategy)
            && self.covers_symbol(symbol, sector)
    }
}

/// A rule in its place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RuleState {
    /// The rule.
    pub rule: Rule,
    /// Its scope.
    pub scope: Scope,
    /// It was written since the last boundary.
    pub fresh: bool,
}

impl RuleState {
    /// Whether it is evaluated and bites.
    #[must_use]
    pub const fn enforced(&self) -> bool {
        self.rule.active && matches!(self.rule.mode, Mode::Enforce)
    }

    /// Whether a breach of it closes positions.
    #[must_use]
    pub const fn closes(&self) -> bool {
        self.enforced() && self.rule.action.closes()
    }

    /// Whether it is a stop or a target.
    #[must_use]
    pub const fn watches_prices(&self) -> bool {
        matches!(self.rule.rule_type, RuleType::StopLoss | RuleType::TakeProfit)
    }

    /// Whether it is one of the five that are judged after an intent.
    #[must_use]
    pub const fn judged_after(&self) -> bool {
        judged_after(self.rule.rule_type)
    }

    /// What outputs cite of it.
    #[must_use]
    pub const fn cited(&self) -> RuleCited {
        RuleCited { id: self.rule.id, rule_type: self.rule.rule_type, action: self.rule.action, unit: self.rule.unit }
    }
}

const fn judged_after(rule_type: RuleType) -> bool {
    match rule_type {
        RuleType::MaxPositionSize | RuleType::MaxCorrelation | RuleType::MaxLeverage | RuleType::PositionLimit | RuleType::SectorLimit => {
            true
        }
        RuleType::MaxDailyLoss | RuleType::MaxDrawdown | RuleType::StopLoss | RuleType::TakeProfit => false,
    }
}

/// What is wrong with a rule, or `None`.
#[must_use]
pub fn objection(rule: &Rule) -> Option<(&'static str, &'static str)> {
    let unit_fits = match rule.rule_type {
        RuleType::MaxPositionSize => matches!(rule.unit, Unit::Percent | Unit::Dollars | Unit::Shares),
        RuleType::MaxDailyLoss | RuleType::MaxDrawdown | RuleType::StopLoss | RuleType::TakeProfit => {
            matches!(rule.unit, Unit::Percent | Unit::Dollars)
        }
        RuleType::MaxCorrelation | RuleType::MaxLeverage => rule.unit == Unit::Ratio,
        RuleType::PositionLimit => rule.unit == Unit::Count,
        RuleType::SectorLimit => matches!(rule.unit, Unit::Percent | Unit::Dollars | Unit::Count),
    };
    if !unit_fits {
        return Some(("unit", "this type of rule has no such unit"));
    }
    if rule.rule_type == RuleType::MaxDrawdown && rule.unit == Unit::Percent && rule.threshold >= Factor::whole(100) {
        return Some(("threshold", "a drawdown in percent must be below 100"));
    }
    if rule.rule_type == RuleType::MaxCorrelation && rule.threshold > Factor::ONE {
        return Some(("threshold", "a correlation must be at most 1"));
    }
    let watches = matches!(rule.rule_type, RuleType::StopLoss | RuleType::TakeProfit);
    if watches && rule.scope.strategy.is_some() {
        return Some(("scope", "stops and targets are of positions, which have no strategy"));
    }
    if rule.trailing && rule.rule_type != RuleType::StopLoss {
        return Some(("trailing", "only a stop_loss may trail"));
    }
    None
}

/// What in `after` holds less than `before` did, by its field; `None` when it holds at least as much. A lower threshold holds more, of every
/// type; whatever is covered otherwise or measured otherwise could hold less.
#[must_use]
pub fn loosened(before: &Rule, after: &Rule) -> Option<&'static str> {
    let same_or = |is_same: bool, holds_more: bool| is_same || holds_more;
    let held = [
        ("type", before.rule_type == after.rule_type),
        ("unit", before.unit == after.unit),
        ("scope", before.scope == after.scope),
        ("threshold", after.threshold <= before.threshold),
        ("action", same_or(before.action == after.action, before.action == Action::Alert)),
        ("active", same_or(before.active == after.active, after.active)),
        ("mode", same_or(before.mode == after.mode, after.mode == Mode::Enforce)),
        ("warn_at", after.warn_at <= before.warn_at),
        ("trailing", same_or(before.trailing == after.trailing, after.trailing)),
        ("window", before.window == after.window),
        ("timeframe", before.timeframe == after.timeframe),
        ("min_observations", before.min_observations == after.min_observations),
        ("on_missing", same_or(before.on_missing == after.on_missing, after.on_missing == OnMissing::Block)),
    ];
    held.into_iter().find(|(_, holds)| !holds).map(|(field, _)| field)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{ControlEvent, Event, InputTopic};

    fn rule(fields: &[(&str, serde_json::Value)]) -> Rule {
        let mut rule = serde_json::json!({"id": "r-1", "type": "max_leverage", "threshold": "2", "unit": "ratio", "action": "block"});
        for (name, value) in fields {
            rule[*name] = value.clone();
        }
        let record = serde_json::json!({"event": "rule_created", "rule": rule}).to_string();
        match crate::wire::decode(InputTopic::Control, None, record.as_bytes()) {
            Event::Control(event) => match *event {
                ControlEvent::RuleCreated(rule) => rule,
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_tightens_or_only_says_otherwise_is_no_loosening() {
        let before = rule(&[]);
        for (name, value) in [
            ("threshold", "1.5".into()),
            ("name", "other".into()),
            ("description", "d".into()),
            ("priority", 7.into()),
            ("warn_at", "70".into()),
        ] {
            assert_eq!(loosened(&before, &rule(&[(name, value)])), None, "{name}");
        }
        assert_eq!(loosened(&rule(&[("action", "alert".into())]), &before), None);
        assert_eq!(loosened(&rule(&[("active", false.into())]), &before), None);
        assert_eq!(loosened(&rule(&[("mode", "observe".into())]), &before), None);
    }

    #[test]
    fn what_holds_less_is_told_by_its_field() {
        let before = rule(&[]);
        for (name, value) in [
            ("threshold", "2.01".into()),
            ("action", "alert".into()),
            ("action", "reduce_size".into()),
            ("active", false.into()),
            ("mode", "observe".into()),
            ("warn_at", "90".into()),
            ("scope", serde_json::json!({"symbols": ["AAPL"]})),
        ] {
            assert_eq!(loosened(&before, &rule(&[(name, value)])), Some(name));
        }
        let stop = |more: &[(&str, serde_json::Value)]| {
            rule(&[&[("type", "stop_loss".into()), ("unit", "percent".into()), ("action", "close_position".into())], more].concat())
        };
        assert_eq!(loosened(&stop(&[("trailing", true.into())]), &stop(&[])), Some("trailing"));
        assert_eq!(loosened(&stop(&[]), &stop(&[("trailing", true.into())])), None);
        assert_eq!(loosened(&stop(&[]), &stop(&[("unit", "dollars".into())])), Some("unit"));
    }
}
