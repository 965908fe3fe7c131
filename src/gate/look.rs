//! What readers look up: accounts, rules, symbols, and what a kill switch has still to do.
//!
//! Invariant: read-only, and nothing here is on the way of a record.

use super::Gate;
use super::shared::{RestrictedSymbols, ScopeKey, ScopeState, SettingValues};
use crate::book::{Account, CommandState, Owner, Position, StrategyIx};
use crate::domain::{
    AccountId, ClientOrderId, Limits, Millis, Qty, Rule, RuleId, Sector, Side, StateScope, StrategyId, Symbol, TradingState,
};
use crate::market::calendar::DayRoll;
use crate::market::symbol::SymbolState;
use crate::risk::rule::RuleState;

/// What a kill switch has done, and what is still to do, in one account.
#[derive(Clone, Debug, PartialEq)]
pub struct Killing {
    /// The strictest state of the account's own and of all scopes that cover the whole of it.
    pub state: TradingState,
    /// An operator's flattening lasts.
    pub flattening: bool,
    /// Nothing is held and nothing works.
    pub flat: bool,
    /// The venue has not confirmed a close in time, or too often not.
    pub not_confirmed: bool,
    /// What is still held or has working orders.
    pub positions: Vec<OpenPosition>,
    /// The working orders, the oldest first: id, symbol, side, leaves.
    pub working: Vec<(ClientOrderId, Symbol, Side, Qty)>,
    /// The close commands that are not over.
    pub commands: Vec<OpenCommand>,
}

/// A position that a kill switch has still to close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenPosition {
    /// The symbol.
    pub symbol: Symbol,
    /// What is held, short below zero.
    pub qty: Qty,
    /// The leaves of working buys.
    pub buy_leaves: Qty,
    /// The leaves of working sells.
    pub sell_leaves: Qty,
    /// What neither working orders nor commands cover.
    pub uncovered: Qty,
}

/// A close command that is not over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenCommand {
    /// The ledger sequence of its record, and its number there: with the shard its id.
    pub place: (u64, u32),
    /// The symbol.
    pub symbol: Symbol,
    /// The side that reduces.
    pub side: Side,
    /// What executions have left of it.
    pub rest: Qty,
    /// When it was sent.
    pub at: Millis,
    /// Executions came under its id.
    pub answered: bool,
}

impl Gate {
    /// An account, whether open or closed.
    #[must_use]
    pub fn account(&self, account: AccountId) -> Option<&Account> {
        self.index.account(&account, &self.accounts).map(|ix| &self.accounts[ix as usize])
    }

    /// The rules in the order of listing.
    pub fn rules(&self) -> impl Iterator<Item = &RuleState> {
        self.shared.ordered_rules().map(|(_, state)| state)
    }

    /// One rule.
    #[must_use]
    pub fn find_rule(&self, id: RuleId) -> Option<&Rule> {
        self.rules().map(|state| &state.rule).find(|rule| rule.id == id)
    }

    /// What is known of a symbol.
    #[must_use]
    pub fn symbol(&self, symbol: Symbol) -> Option<&SymbolState> {
        self.index.symbol(&symbol, &self.shared.symbols).map(|ix| &self.shared.symbols[ix as usize])
    }

    /// All symbols, in the order of their first mention.
    #[must_use]
    pub fn symbols(&self) -> &[SymbolState] {
        &self.shared.symbols
    }

    /// The names of the sectors by their numbers.
    #[must_use]
    pub fn sectors(&self) -> &[Sector] {
        &self.shared.sectors
    }

    /// The name of a strategy by its number.
    #[must_use]
    pub fn strategy(&self, strategy: StrategyIx) -> Option<StrategyId> {
        self.shared.strategies.get(strategy as usize).copied()
    }

    /// The restricted lists.
    #[must_use]
    pub fn restricted_lists(&self) -> &[RestrictedSymbols] {
        &self.shared.lists
    }

    /// The settings that hold.
    #[must_use]
    pub fn settings(&self) -> &SettingValues {
        &self.shared.settings
    }

    /// The defaults of every account's limits.
    #[must_use]
    pub fn default_limits(&self) -> &Limits {
        &self.shared.limits
    }

    /// When an account's trading days end.
    #[must_use]
    pub fn day_roll(&self, account: &Account) -> Option<&DayRoll> {
        self.shared.rolls.get(account.roll as usize).map(|roll| &roll.roll)
    }

    /// The latches that are tripped in an account.
    pub fn latches(&self, account: &Account) -> impl Iterator<Item = &RuleState> {
        account.episodes.iter().filter(|episode| episode.latched).filter_map(|episode| self.shared.rule(episode.rule))
    }

    /// The trading states that were set, but for those of an account alone or of one of its symbols.
    pub fn scope_states(&self) -> impl Iterator<Item = (StateScope, TradingState)> + Clone {
        self.shared.scopes.iter().map(|scope| {
            let named = StateScope {
                account: scope.key.account.and_then(|ix| self.accounts.get(ix as usize)).map(|account| account.id),
                strategy: scope.key.strategy.and_then(|strategy| self.strategy(strategy)),
                symbol: scope.key.symbol.and_then(|symbol| self.shared.symbol_name(symbol)),
            };
            (named, scope.state)
        })
    }

    /// Whether the state of exactly this scope still closes positions: another record of the same scope would end that.
    #[must_use]
    pub fn is_flattening(&self, account: AccountId, symbol: Option<Symbol>) -> bool {
        let symbol = symbol.map(|symbol| self.index.symbol(&symbol, &self.shared.symbols));
        // A symbol that nobody knows has no positions.
        let (Some(ix), false) = (self.index.account(&account, &self.accounts), symbol == Some(None)) else { return false };
        let key = ScopeKey { account: Some(ix), strategy: None, symbol: symbol.flatten() };
        let is_it = |scope: u32| self.shared.scopes.get(scope as usize).is_some_and(|scope| scope.key == key);
        self.accounts[ix as usize].closings.iter().any(|closing| matches!(closing.owner, Owner::Scope(scope) if is_it(scope)))
    }

    /// What is still open of a kill switch in an account.
    #[must_use]
    pub fn killing(&self, account: AccountId) -> Option<Killing> {
        let ix = self.index.account(&account, &self.accounts)?;
        let account = &self.accounts[ix as usize];
        let covers = |key: &ScopeKey| key.account.is_none_or(|only| only == ix) && key.strategy.is_none() && key.symbol.is_none();
        let states = self.shared.scopes.iter().filter(|scope: &&ScopeState| covers(&scope.key)).map(|scope| scope.state);
        let flattens = |scope: u32| self.shared.scopes.get(scope as usize).is_some_and(|scope| covers(&scope.key));
        let legs = account.positions.iter().flat_map(|position| account.orders.legs(position));
        let mut working: Vec<_> = legs.map(|(_, entry)| entry).collect();
        working.sort_by_key(|entry| entry.leg);
        Some(Killing {
            state: states.max().unwrap_or_default().max(account.state),
            flattening: account.closings.iter().any(|closing| matches!(closing.owner, Owner::Scope(scope) if flattens(scope))),
            flat: account.is_flat(),
            not_confirmed: account.closings.iter().any(|closing| closing.unconfirmed),
            positions: account
                .positions
                .iter()
                .filter(|position| position.is_open())
                .filter_map(|it| self.open_position(account, it))
                .collect(),
            working: working
                .into_iter()
                .filter_map(|entry| Some((*entry.content.id(), self.shared.symbol_name(entry.symbol?)?, entry.side?, Qty(entry.leaves()))))
                .collect(),
            commands: account
                .commands
                .iter()
                .filter(|command| !command.is_over())
                .filter_map(|command| {
                    Some(OpenCommand {
                        place: (command.seq, command.index),
                        symbol: self.shared.symbol_name(command.symbol)?,
                        side: command.side,
                        rest: Qty(command.rest),
                        at: command.at,
                        answered: command.state == CommandState::Executing,
                    })
                })
                .collect(),
        })
    }

    fn open_position(&self, account: &Account, position: &Position) -> Option<OpenPosition> {
        Some(OpenPosition {
            symbol: self.shared.symbol_name(position.symbol)?,
            qty: Qty(position.holding.qty),
            buy_leaves: Qty(position.buy_leaves),
            sell_leaves: Qty(position.sell_leaves),
            uncovered: Qty(account.uncovered(position)),
        })
    }
}
