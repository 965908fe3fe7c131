//! Trading states of every scope, and the kill switch (SEMANTICS section 10).

use super::Gate;
use super::control::Refusal;
use super::desk::Desk;
use super::shared::{ScopeKey, ScopeState};
use super::turn::Turn;
use crate::book::{Account, AccountIx, Owner};
use crate::domain::{InputTopic, NotificationCode, NotificationData, NotificationType, RefusalCode, TradingState, TradingStateSet};

impl Gate {
    /// Sets a state; cancels and flattens what it covers, in one step.
    pub(super) fn set_trading_state(&mut self, set: &TradingStateSet, turn: &mut Turn<'_>) -> Result<(), Refusal> {
        if set.flatten && set.scope.strategy.is_some() {
            return Err((RefusalCode::InvalidScope, Some("flatten"), "positions have no strategy: nothing can be flattened by one"));
        }
        let account = set.scope.account.map(|account| self.known_account(&account)).transpose()?;
        let key = ScopeKey {
            account,
            strategy: set.scope.strategy.map(|strategy| self.index.strategy_named(strategy, &mut self.shared.strategies)),
            symbol: set.scope.symbol.map(|symbol| self.index.symbol_named(symbol, &mut self.shared.symbols)),
        };
        self.end_flattening(key, turn);
        self.set_scope_state(key, set.state, turn);
        let covered = match account {
            Some(ix) => ix..ix + 1,
            None => 0..AccountIx::try_from(self.accounts.len()).unwrap_or(AccountIx::MAX),
        };
        if set.cancel_orders || set.flatten {
            let scope = self.scope_place(key);
            for ix in covered {
                self.kill(ix, key, (set.cancel_orders, set.flatten), scope, turn);
            }
            if set.flatten {
                self.shared.flattening.push((scope, 0));
                self.end_finished_flattening(turn);
            }
        }
        Ok(())
    }

    /// Sets the state of a scope and says so if it differs.
    pub(super) fn set_scope_state(&mut self, key: ScopeKey, state: TradingState, turn: &mut Turn<'_>) {
        if let (Some(ix), None) = (key.account, key.strategy) {
            let mut desk = Desk { shared: &self.shared, account: &mut self.accounts[ix as usize], ix, turn };
            return desk.set_by_operator(key, state);
        }
        let place = self.scope_place(key) as usize;
        let scope = &mut self.shared.scopes[place];
        let before = std::mem::replace(&mut scope.state, state);
        let alone = scope.by_execution;
        scope.by_execution = turn.source.topic == InputTopic::Executions && (alone || before != state);
        // What this shard alone had halted it also says alone.
        if before != state && (alone || !turn.quiet) {
            let data = NotificationData {
                symbol: key.symbol.and_then(|symbol| self.shared.symbol_name(symbol)),
                strategy: key.strategy.and_then(|strategy| self.shared.strategies.get(strategy as usize).copied()),
                state: Some(state),
                previous_state: Some(before),
                ..NotificationData::default()
            };
            let account = key.account.map(|ix| &self.accounts[ix as usize]);
            let (code, kind) = (NotificationCode::TradingStateChanged, NotificationType::SystemAlert);
            turn.notify(account, &self.shared.limits, code, kind, data);
        }
    }

    fn scope_place(&mut self, key: ScopeKey) -> u32 {
        let place = self.shared.scopes.iter().position(|scope| scope.key == key).unwrap_or_else(|| {
            self.shared.scopes.push(ScopeState { key, state: TradingState::Active, by_execution: false });
            self.shared.scopes.len() - 1
        });
        u32::try_from(place).unwrap_or(u32::MAX)
    }

    /// A later record of the same scope ends what an earlier one flattens.
    fn end_flattening(&mut self, key: ScopeKey, turn: &mut Turn<'_>) {
        let Some(place) = self.shared.scopes.iter().position(|scope| scope.key == key).and_then(|place| u32::try_from(place).ok()) else {
            return;
        };
        if self.shared.flattening.iter().any(|(scope, _)| *scope == place) {
            self.drop_flattening(place, turn);
        }
    }

    /// Ends what is flattened where nothing is held and nothing works in the scope any more. Each
    /// keeps an account that is not flat, so that all are looked at only when that one is.
    pub(super) fn end_finished_flattening(&mut self, turn: &mut Turn<'_>) {
        for place in (0..self.shared.flattening.len()).rev() {
            let (scope, witness) = self.shared.flattening[place];
            let Some(key) = self.shared.scopes.get(scope as usize).map(|scope| scope.key) else { continue };
            if self.accounts.get(witness as usize).is_some_and(|account| is_open_in(account, witness, key)) {
                continue;
            }
            match (0..).zip(&self.accounts).find(|(ix, account)| is_open_in(account, *ix, key)) {
                Some((ix, _)) => self.shared.flattening[place].1 = ix,
                None => self.drop_flattening(scope, turn),
            }
        }
    }

    fn drop_flattening(&mut self, scope: u32, turn: &mut Turn<'_>) {
        self.shared.flattening.retain(|(other, _)| *other != scope);
        for (ix, account) in (0..).zip(&mut self.accounts) {
            let before = account.closings.len();
            account.closings.retain(|closing| closing.owner != Owner::Scope(scope));
            if account.closings.len() != before {
                turn.touch(ix);
            }
        }
    }

    fn kill(&mut self, ix: AccountIx, key: ScopeKey, (cancel, flatten): (bool, bool), scope: u32, turn: &mut Turn<'_>) {
        let mut desk = Desk { shared: &self.shared, account: &mut self.accounts[ix as usize], ix, turn };
        if cancel {
            let orders = desk.working_orders(|entry| {
                key.symbol.is_none_or(|only| entry.symbol == Some(only))
                    && key.strategy.is_none_or(|only| entry.order().is_some_and(|order| order.strategy == only))
            });
            let name = key.symbol.and_then(|symbol| desk.shared.symbol_name(symbol));
            desk.turn.cancel_orders(desk.account, name, orders.into_iter(), None);
        }
        if flatten {
            desk.begin_flattening(scope, key.symbol);
        }
    }
}

/// Whether something is held or works in an account and scope.
fn is_open_in(account: &Account, ix: AccountIx, key: ScopeKey) -> bool {
    key.account.is_none_or(|only| only == ix)
        && account.positions.iter().any(|position| position.is_open() && key.symbol.is_none_or(|only| only == position.symbol))
}

impl Desk<'_, '_> {
    /// An operator sets the account's own state, or that of one of its symbols.
    fn set_by_operator(&mut self, key: ScopeKey, state: TradingState) {
        self.account.due = true;
        if state == TradingState::Active {
            self.account.closings.retain(|closing| matches!(closing.owner, Owner::Scope(_)) || closing.symbol != key.symbol);
        }
        match key.symbol {
            None => {
                self.account.halts_when_flat &= state != TradingState::Active;
                self.set_account_state(state);
            }
            Some(symbol) => {
                let place = self.account.place_or_new(symbol);
                self.account.positions[place].ends_when_flat = false;
                self.set_symbol_state(symbol, state);
            }
        }
    }
}
