//! A rule with its scope resolved, and whether the table of SEMANTICS section 5 allows it.

use serde::{Deserialize, Serialize};

use crate::book::{AccountIx, SectorIx, StrategyIx, SymbolIx};
use crate::domain::{Factor, Mode, Rule, RuleCited, RuleType, Unit};

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
