//! All state of a shard that belongs to no account: the market, the rules, the settings, the names.

use serde::{Deserialize, Serialize};

use crate::book::{AccountIx, RuleIx, SectorIx, StrategyIx, SymbolIx};
use crate::domain::{AccountId, Factor, Id, Limits, ListId, Millis, Sector, StrategyId, Symbol, TradingState};
use crate::market::calendar::DayRoll;
use crate::market::symbol::SymbolState;
use crate::risk::rule::RuleState;

/// The gate's settings as they hold: the fields of `domain::Settings`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingValues {
    pub(crate) max_intent_age_ms: Millis,
    pub(crate) valuation_grid_ms: Millis,
    pub(crate) id_memory_ms: Millis,
    pub(crate) command_timeout_ms: Millis,
    pub(crate) episode_quiet_ms: Millis,
    pub(crate) sizing_percent: Factor,
}

impl Default for SettingValues {
    fn default() -> Self {
        Self {
            max_intent_age_ms: 5_000,
            valuation_grid_ms: 1_000,
            id_memory_ms: 172_800_000,
            command_timeout_ms: 10_000,
            episode_quiet_ms: 60_000,
            sizing_percent: Factor::whole(2),
        }
    }
}

/// A restricted list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RestrictedSymbols {
    /// Its id.
    pub list: ListId,
    /// Its symbols.
    pub symbols: Vec<SymbolIx>,
    /// The accounts that it covers; none = all.
    pub accounts: Vec<AccountId>,
}

/// A scope of a trading state, its names numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScopeKey {
    /// One account.
    pub account: Option<AccountIx>,
    /// One strategy.
    pub strategy: Option<StrategyIx>,
    /// One symbol.
    pub symbol: Option<SymbolIx>,
}

/// A trading state that a record (or an unreadable execution) set. Those of an account alone, or of
/// an account and symbol alone, are kept with the account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScopeState {
    /// What it covers.
    pub key: ScopeKey,
    /// The state.
    pub state: TradingState,
    /// An unreadable execution set it, in this shard alone.
    pub by_execution: bool,
}

/// A time at which trading days end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Roll {
    /// When.
    pub roll: DayRoll,
    /// The next one. `None` = the calendar ends before it.
    pub next: Option<Millis>,
}

/// All state of a shard that belongs to no account.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Shared {
    pub(crate) shard: u32,
    pub(crate) seq: u64,
    pub(crate) at: Millis,
    pub(crate) settings: SettingValues,
    pub(crate) limits: Limits,
    pub(crate) symbols: Vec<SymbolState>,
    pub(crate) strategies: Vec<StrategyId>,
    pub(crate) sectors: Vec<Sector>,
    pub(crate) rules: Vec<Option<RuleState>>,
    pub(crate) rule_order: Vec<RuleIx>,
    pub(crate) lists: Vec<RestrictedSymbols>,
    pub(crate) scopes: Vec<ScopeState>,
    /// Operators' states that flatten: the place of each, and an account that is not flat yet.
    pub(crate) flattening: Vec<(u32, AccountIx)>,
    pub(crate) rolls: Vec<Roll>,
}

impl Shared {
    pub(crate) fn new(shard: u32) -> Self {
        Self {
            shard,
            seq: 0,
            at: Millis::MIN,
            settings: SettingValues::default(),
            limits: Limits::default(),
            symbols: Vec::new(),
            strategies: Vec::new(),
            sectors: Sector::parse(b"UNKNOWN").into_iter().collect(),
            rules: Vec::new(),
            rule_order: Vec::new(),
            lists: Vec::new(),
            scopes: Vec::new(),
            flattening: Vec::new(),
            rolls: Vec::new(),
        }
    }

    /// The rules in the order of listing.
    pub(crate) fn ordered_rules(&self) -> impl Iterator<Item = (RuleIx, &RuleState)> {
        self.rule_order.iter().filter_map(|rule| Some((*rule, self.rule(*rule)?)))
    }

    pub(crate) fn rule(&self, rule: RuleIx) -> Option<&RuleState> {
        self.rules.get(rule as usize)?.as_ref()
    }

    /// The place of a rule in the order of listing.
    pub(crate) fn rank(&self, rule: RuleIx) -> usize {
        self.rule_order.iter().position(|other| *other == rule).unwrap_or(usize::MAX)
    }

    pub(crate) fn symbol_name(&self, symbol: SymbolIx) -> Option<Symbol> {
        self.symbols.get(symbol as usize).map(|state| state.symbol)
    }

    pub(crate) fn sector_of(&self, symbol: SymbolIx) -> SectorIx {
        self.symbols.get(symbol as usize).map_or(0, SymbolState::sector)
    }

    pub(crate) fn sector_named(&mut self, sector: Sector) -> SectorIx {
        place_or_push(&mut self.sectors, sector)
    }

    /// The strictest state that covers an order, those kept with the account left out.
    pub(crate) fn strictest(&self, account: AccountIx, strategy: StrategyIx, symbol: SymbolIx) -> TradingState {
        let covers = |scope: &&ScopeState| {
            scope.key.account.is_none_or(|only| only == account)
                && scope.key.strategy.is_none_or(|only| only == strategy)
                && scope.key.symbol.is_none_or(|only| only == symbol)
        };
        self.scopes.iter().filter(covers).map(|scope| scope.state).max().unwrap_or_default()
    }

    pub(crate) fn restricts(&self, account: AccountId, symbol: SymbolIx) -> bool {
        let covers = |list: &RestrictedSymbols| {
            list.symbols.binary_search(&symbol).is_ok() && (list.accounts.is_empty() || list.accounts.contains(&account))
        };
        self.lists.iter().any(covers)
    }
}

fn place_or_push(names: &mut Vec<Id>, name: Id) -> u32 {
    let place = names.iter().position(|other| *other == name).unwrap_or_else(|| {
        names.push(name);
        names.len() - 1
    });
    u32::try_from(place).unwrap_or(u32::MAX)
}
