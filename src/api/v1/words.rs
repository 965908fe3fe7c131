//! Figures, words and rules as the API writes and reads them.
//!
//! Invariant: decimals are strings, printed as the gate prints them; `null` is what is not known, `"inf"`
//! what is infinite. Deliberately absent: judgement; a word that the gate does not know it refuses itself.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::json::optional_object;
use crate::domain::{Figure, Money, Reason, Rule};
use crate::gate::RuleUse;
use crate::risk::statistics::to_units;

/// A figure; `null` when it is not known.
#[must_use]
pub fn figure(figure: Figure) -> Option<String> {
    match figure {
        Figure::Absent | Figure::Unknown => None,
        Figure::Infinite => Some("inf".to_owned()),
        Figure::Units(units) => Some(units_text(units)),
    }
}

/// Units of 1e-8.
#[must_use]
pub fn units_text(units: i128) -> String {
    let mut buffer = [0; crate::domain::MAX_DECIMAL_LEN];
    crate::domain::format_scaled(&mut buffer, units, 8).to_owned()
}

/// Money that may not be known.
#[must_use]
pub fn known(amount: Result<Money, crate::book::Blind>) -> Option<String> {
    amount.ok().map(|amount| amount.to_string())
}

/// A statistic, rounded half to even at 8 decimals.
#[must_use]
pub fn statistic(value: f64) -> Option<String> {
    to_units(value).map(units_text)
}

/// The wire's words of an enum.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $($(#[$vdoc])* $variant,)+ }
    };
}

words! {
    /// Which of the nine rules.
    #[expect(missing_docs, reason = "each is a row of the table in docs/SEMANTICS.md")]
    RuleTypeWord { MaxPositionSize, MaxDailyLoss, MaxDrawdown, MaxCorrelation, MaxLeverage, PositionLimit, SectorLimit, StopLoss, TakeProfit, }
}
words! {
    /// What a threshold counts.
    #[expect(missing_docs, reason = "spelled as on the wire")]
    UnitWord { Percent, Dollars, Shares, Ratio, Count, }
}
words! {
    /// What a breach does.
    #[expect(missing_docs, reason = "spelled as on the wire")]
    ActionWord { Alert, ReduceSize, Block, ClosePosition, CloseAll, }
}
words! {
    /// Whether a rule bites.
    #[expect(missing_docs, reason = "spelled as on the wire")]
    ModeWord { Enforce, Observe, }
}
words! {
    /// What a missing correlation is.
    #[expect(missing_docs, reason = "spelled as on the wire")]
    OnMissingWord { Skip, Block, }
}
words! {
    /// Which side.
    #[expect(missing_docs, reason = "spelled as on the wire")]
    SideWord { Buy, Sell, }
}
words! {
    /// What may be traded.
    #[expect(missing_docs, reason = "spelled as on the wire")]
    StateWord { Active, ReduceOnly, Halted, }
}

impl From<SideWord> for crate::domain::Side {
    fn from(side: SideWord) -> Self {
        match side {
            SideWord::Buy => Self::Buy,
            SideWord::Sell => Self::Sell,
        }
    }
}

/// What a rule covers: all that is given must match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ScopeBody {
    /// One account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 64)]
    pub account: Option<String>,
    /// One strategy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 64)]
    pub strategy: Option<String>,
    /// Any of these symbols.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub symbols: Vec<String>,
    /// Any of these sectors.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sectors: Vec<String>,
}

/// A risk rule (docs/SEMANTICS.md, section 5). Decimals are strings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RuleBody {
    /// Its id; one is made when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9._:-]+$")]
    pub id: Option<String>,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Which of the nine.
    #[serde(rename = "type")]
    pub rule_type: RuleTypeWord,
    /// Its threshold, above zero.
    pub threshold: String,
    /// What the threshold counts.
    pub unit: UnitWord,
    /// What a breach does.
    pub action: ActionWord,
    /// What it covers; everything when it is left out.
    #[serde(default, deserialize_with = "optional_object", skip_serializing_if = "Option::is_none")]
    pub scope: Option<ScopeBody>,
    /// Whether it is evaluated at all; default true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active: Option<bool>,
    /// Whether it bites; default `enforce`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<ModeWord>,
    /// Order of listing, then the id; default 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<i64>,
    /// Percent of the limit that warns; default 80.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warn_at: Option<String>,
    /// `stop_loss` only: measured from the best mark since the position was opened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trailing: Option<bool>,
    /// `max_correlation` only: how many of the last bars count; default 60.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 2)]
    pub window: Option<u32>,
    /// `max_correlation` only: which bars; default `1d`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeframe: Option<String>,
    /// `max_correlation` only: fewer returns are too few; default 20.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 2)]
    pub min_observations: Option<u32>,
    /// `max_correlation` only: what a missing pair is; default `skip`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_missing: Option<OnMissingWord>,
}

/// A rule as it holds, its defaults filled in.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Rule)]
pub struct RuleShown {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// Which of the nine.
    #[serde(rename = "type")]
    #[schema(value_type = RuleTypeWord)]
    pub rule_type: &'static str,
    /// Its threshold.
    pub threshold: String,
    /// What the threshold counts.
    #[schema(value_type = UnitWord)]
    pub unit: &'static str,
    /// What a breach does.
    #[schema(value_type = ActionWord)]
    pub action: &'static str,
    /// What it covers; `{}` is everything.
    pub scope: ScopeBody,
    /// Whether it is evaluated at all.
    pub active: bool,
    /// Whether it bites.
    #[schema(value_type = ModeWord)]
    pub mode: &'static str,
    /// Order of listing, then the id.
    pub priority: i64,
    /// Percent of the limit that warns.
    pub warn_at: String,
    /// `stop_loss` only: measured from the best mark since the position was opened.
    pub trailing: bool,
    /// `max_correlation` only: how many of the last bars count.
    pub window: u32,
    /// `max_correlation` only: which bars.
    pub timeframe: String,
    /// `max_correlation` only: fewer returns are too few.
    pub min_observations: u32,
    /// `max_correlation` only: what a missing pair is.
    #[schema(value_type = OnMissingWord)]
    pub on_missing: &'static str,
}

/// A rule as it holds.
#[must_use]
pub fn rule_shown(rule: &Rule) -> RuleShown {
    let scope = ScopeBody {
        account: rule.scope.account.map(|id| id.to_string()),
        strategy: rule.scope.strategy.map(|id| id.to_string()),
        symbols: rule.scope.symbols.iter().map(ToString::to_string).collect(),
        sectors: rule.scope.sectors.iter().map(ToString::to_string).collect(),
    };
    RuleShown {
        id: rule.id.to_string(),
        name: rule.name.to_string(),
        description: rule.description.to_string(),
        rule_type: rule.rule_type.as_str(),
        threshold: rule.threshold.to_string(),
        unit: rule.unit.as_str(),
        action: rule.action.as_str(),
        scope,
        active: rule.active,
        mode: rule.mode.as_str(),
        priority: rule.priority,
        warn_at: rule.warn_at.to_string(),
        trailing: rule.trailing,
        window: rule.window,
        timeframe: rule.timeframe.as_str().to_owned(),
        min_observations: rule.min_observations,
        on_missing: rule.on_missing.as_str(),
    }
}

/// One rule about one subject: what it measures now, or after an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct RuleUseView {
    /// The rule.
    pub rule_id: String,
    /// Its type.
    pub rule_type: &'static str,
    /// What a breach does.
    pub action: &'static str,
    /// The unit of its threshold.
    pub unit: &'static str,
    /// It only observes.
    pub observed: bool,
    /// The symbol that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub symbol: Option<String>,
    /// The sector that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sector: Option<String>,
    /// What was measured; `null` when it is not known.
    pub current: Option<String>,
    /// What it is held against.
    pub limit: Option<String>,
    /// `current / limit`.
    pub utilization: Option<String>,
    /// It breaches.
    pub breach: bool,
    /// It breached before, and stays so.
    pub latched: bool,
    /// Why there are no figures.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
}

impl From<&RuleUse> for RuleUseView {
    fn from(used: &RuleUse) -> Self {
        Self {
            rule_id: used.rule.id.to_string(),
            rule_type: used.rule.rule_type.as_str(),
            action: used.rule.action.as_str(),
            unit: used.rule.unit.as_str(),
            observed: used.observed,
            symbol: used.symbol.map(|symbol| symbol.to_string()),
            sector: used.sector.map(|sector| sector.to_string()),
            current: figure(used.current),
            limit: figure(used.limit),
            utilization: figure(used.utilization),
            breach: used.breach,
            latched: used.latched,
            reason: used.unmeasured.map(crate::gate::Unmeasured::as_str),
        }
    }
}

/// What keeps an order from being larger: a rule, or a check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Binds {
    /// `RULE_BREACH`, or the code of the check.
    pub code: &'static str,
    /// The rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule_id: Option<String>,
    /// Its type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule_type: Option<&'static str>,
}

impl From<&Reason> for Binds {
    fn from(reason: &Reason) -> Self {
        Self {
            code: reason.code.as_str(),
            rule_id: reason.rule.map(|rule| rule.id.to_string()),
            rule_type: reason.rule.map(|rule| rule.rule_type.as_str()),
        }
    }
}
