//! Floor 3, the machine: `apply(record) -> effects`, for one shard.
//!
//! Invariant: the state and the effects are functions of the records alone. `apply` does no I/O,
//! reads no clock, and does not fail: what cannot be taken is an effect. Deliberately absent: wire
//! formats, offsets that mean anything, threads.

mod ask;
mod closings;
mod control;
mod decide;
mod desk;
mod execution;
mod index;
mod intent;
mod judge;
mod look;
mod price;
mod shared;
mod split;
mod states;
mod time;
mod turn;
mod uses;
mod valuation;
mod view;

use crate::book::{AccountIx, Status, SymbolIx};
use crate::domain::{AccountId, ClientOrderId, Effects, Event, InputTopic, IntentKind, Millis, OwnerId, Reason, Record};
use crate::risk::check::EffectiveLimits;
use crate::risk::correlation::Correlations;
use crate::risk::evaluate::Findings;
use crate::risk::stop;
use index::Index;
use turn::Turn;

pub use crate::book::Account;
pub use ask::{Asking, Headroom, Opinion, RuleList};
pub use look::{Killing, OpenCommand, OpenPosition};
pub use shared::{RestrictedSymbols, SettingValues, Shared};
pub use uses::{RuleUse, Unmeasured};
pub use view::{BookView, PositionView, WorkingView};

/// The state machine of one shard: no clock, no I/O, no locks.
#[derive(Clone, Debug)]
pub struct Gate {
    shared: Shared,
    accounts: Vec<Account>,
    index: Index,
    correlations: Correlations,
    /// Accounts that the next boundary must look at, in no order, and whether an account is among them.
    due: Vec<AccountIx>,
    is_due: Vec<bool>,
    /// Symbols whose mark moved since the last boundary.
    moved_symbols: Vec<SymbolIx>,
    /// Accounts that changed since they were last taken, and whether an account is among them.
    touched: Vec<AccountIx>,
    is_touched: Vec<bool>,
    // Lists that are empty between records and keep their memory.
    findings: Findings,
    exempt: Vec<Reason>,
    reached: Vec<(AccountIx, u32)>,
    spare: Vec<AccountIx>,
    changed: Vec<AccountIx>,
    stale: Vec<(AccountIx, SymbolIx, bool)>,
}

impl Gate {
    /// A new gate for a shard: nothing applied, nothing known.
    #[must_use]
    pub fn new(shard: u32) -> Self {
        Self::restore(Shared::new(shard), Vec::new())
    }

    /// A gate as it was when `shared` and `accounts` were taken; indexes are rebuilt.
    #[must_use]
    pub fn restore(shared: Shared, accounts: Vec<Account>) -> Self {
        let horizon = shared.at.saturating_sub(shared.settings.id_memory_ms);
        let mut gate = Self {
            index: Index::rebuild(&accounts, &shared.symbols, &shared.strategies, horizon),
            correlations: Correlations::default(),
            due: (0..).zip(&accounts).filter(|(_, account)| account.due).map(|(ix, _)| ix).collect(),
            is_due: accounts.iter().map(|account| account.due).collect(),
            moved_symbols: (0..).zip(&shared.symbols).filter(|(_, state)| state.moved).map(|(ix, _)| ix).collect(),
            touched: Vec::new(),
            is_touched: vec![false; accounts.len()],
            findings: Findings::default(),
            exempt: Vec::new(),
            reached: Vec::new(),
            spare: Vec::new(),
            changed: Vec::new(),
            stale: Vec::new(),
            shared,
            accounts,
        };
        gate.hold_all();
        gate
    }

    /// Applies the next record of the ledger and appends what it causes to `effects`.
    pub fn apply(&mut self, record: &Record, effects: &mut Effects) {
        let before = self.shared.at;
        let stamped = record.received.map_or(record.ts, |received| record.ts.min(received));
        // The clock before the first record is not a time.
        let at = stamped.max(before).max(Millis::MIN + 1);
        self.shared.seq += 1;
        self.shared.at = at;
        let (mut changed, mut stale) = (std::mem::take(&mut self.changed), std::mem::take(&mut self.stale));
        let place = (self.shared.shard, self.shared.seq, at);
        let mut turn = Turn::new(effects, &mut changed, &mut stale, place, record.source);
        turn.quiet = record.quiet;
        self.move_time(before, &mut turn);
        self.settle(turn.moved);
        self.dispatch(record, &mut turn);
        if !self.shared.flattening.is_empty() && record.source.topic == InputTopic::Executions {
            self.end_finished_flattening(&mut turn);
        }
        self.settle(turn.moved);
        self.note_changes(&mut changed);
        (self.changed, self.stale) = (changed, stale);
    }

    fn dispatch(&mut self, record: &Record, turn: &mut Turn<'_>) {
        let age = record.received.map(|received| received.saturating_sub(turn.at));
        match &record.event {
            Event::Intent(intent) => self.on_intent(intent, age, turn),
            Event::Amend(amend) => self.on_amend(amend, age, turn),
            Event::Cancel(cancel) => self.on_cancel(cancel, turn),
            Event::Signal(signal) => self.on_signal(signal, turn),
            Event::Fill(fill) => self.on_fill(fill, record.key, turn),
            Event::Report(report) => self.on_report(report, turn),
            Event::Busted(bust) => self.on_bust(bust, turn),
            Event::Corrected(correction) => self.on_correction(correction, turn),
            Event::Trade(trade) => self.on_trade(trade, turn),
            Event::Quote(quote) => self.on_quote(quote, turn),
            Event::Bar(bar) => self.on_bar(bar, turn),
            Event::Control(event) => self.on_control(event, turn),
            Event::Refused(refused) => match record.source.topic {
                InputTopic::Intents => self.on_refused_intent(refused, turn),
                InputTopic::Executions => self.on_refused_execution(refused, record.key, turn),
                InputTopic::Prices | InputTopic::Control => {
                    turn.shared_dead_letter(refused.code, refused.field.as_deref(), &refused.message)
                }
            },
            Event::Elsewhere => {}
        }
    }

    /// Forgets the ids, fills and commands of an account that are older than the memory.
    fn forget_old(&mut self, ix: AccountIx, turn: &mut Turn<'_>) {
        let memory = self.shared.settings.id_memory_ms;
        let (account, index) = (&mut self.accounts[ix as usize], &mut self.index);
        // What the windows of the checks still count stays beyond the memory of its id.
        let windows = EffectiveLimits::of(&account.limits, &self.shared.limits).longest_window_ms();
        let horizon = turn.at.saturating_sub(memory);
        let mut forgot =
            account.orders.expire(turn.at.saturating_sub(memory.max(windows)), |slot, entry| index.forget_id(ix, slot, &entry.content));
        forgot |= account.fills.expire(horizon, |number, fill| index.forget_fill(ix, number, &fill.exec_id));
        while account.commands.first().is_some_and(|command| command.is_over() && command.at < horizon) {
            account.commands.remove(0);
            forgot = true;
        }
        if forgot {
            turn.touch(ix);
        }
    }

    /// The slot of an id that is remembered at this record's time.
    fn remembered(&self, kind: IntentKind, ix: AccountIx, id: &ClientOrderId) -> Option<u32> {
        let horizon = self.shared.at.saturating_sub(self.shared.settings.id_memory_ms);
        let slot = self.index.id(kind, ix, id, &self.accounts)?;
        let entry = self.accounts[ix as usize].orders.get(slot)?;
        (entry.status == Status::Working || entry.at >= horizon).then_some(slot)
    }

    /// Brings holders and triggers up to date with positions that changed.
    fn settle(&mut self, stale: &mut Vec<(AccountIx, SymbolIx, bool)>) {
        for (ix, symbol, retold) in stale.drain(..) {
            self.hold(ix, symbol);
            if retold {
                self.watch(ix, symbol);
            }
        }
    }

    /// Keeps the list of a symbol's holders.
    fn hold(&mut self, ix: AccountIx, symbol: SymbolIx) {
        let Some(state) = self.shared.symbols.get_mut(symbol as usize) else { return };
        let Ok(place) = self.accounts[ix as usize].place(symbol) else { return };
        let position = &mut self.accounts[ix as usize].positions[place];
        let held = position.holder_place as usize;
        let listed = state.holders.get(held) == Some(&ix);
        if position.is_open() && !listed {
            position.holder_place = u32::try_from(state.holders.len()).unwrap_or(u32::MAX);
            state.holders.push(ix);
        } else if !position.is_open() && listed {
            position.holder_place = crate::book::NONE;
            state.holders.swap_remove(held);
            if let Some(moved) = state.holders.get(held).copied() {
                let place = self.accounts[moved as usize].place_or_new(symbol);
                self.accounts[moved as usize].positions[place].holder_place = u32::try_from(held).unwrap_or(u32::MAX);
            }
        }
    }

    /// Tells the triggers of a symbol what an account's stops wait for.
    fn watch(&mut self, ix: AccountIx, symbol: SymbolIx) {
        let account = &self.accounts[ix as usize];
        let mut orders = std::mem::take(&mut self.shared.rule_order);
        for rule in &orders {
            let Some(state) = self.shared.rule(*rule).filter(|state| state.watches_prices()) else { continue };
            let Some(market) = self.shared.symbols.get(symbol as usize) else { continue };
            let covered = state.enforced() && state.scope.covers_account(ix) && state.scope.covers_symbol(symbol, market.sector());
            let watched = account.position(symbol).and_then(|position| valuation::watched(position, market)).filter(|_| covered);
            let keys =
                watched.map(|watched| stop::keys(&state.rule, &watched, account.episode(*rule, crate::book::Subject::Symbol(symbol))));
            let triggers = &mut self.shared.symbols[symbol as usize].triggers;
            match keys {
                Some((rise, fall)) => triggers.watch(ix, *rule, rise, fall),
                None => triggers.unwatch(ix, *rule),
            }
        }
        std::mem::swap(&mut self.shared.rule_order, &mut orders);
    }

    /// Tells all triggers anew: a rule changed.
    fn watch_all(&mut self) {
        for symbol in 0..SymbolIx::try_from(self.shared.symbols.len()).unwrap_or(SymbolIx::MAX) {
            for place in 0..self.shared.symbols[symbol as usize].holders.len() {
                let ix = self.shared.symbols[symbol as usize].holders[place];
                self.watch(ix, symbol);
            }
        }
    }

    /// Builds the lists of holders, and the triggers, from the books.
    fn hold_all(&mut self) {
        for ix in 0..AccountIx::try_from(self.accounts.len()).unwrap_or(AccountIx::MAX) {
            for place in 0..self.accounts[ix as usize].positions.len() {
                self.accounts[ix as usize].positions[place].holder_place = crate::book::NONE;
                let symbol = self.accounts[ix as usize].positions[place].symbol;
                self.hold(ix, symbol);
            }
        }
        self.watch_all();
    }

    fn note_changes(&mut self, changed: &mut Vec<AccountIx>) {
        for ix in changed.drain(..) {
            if self.accounts[ix as usize].due && !std::mem::replace(&mut self.is_due[ix as usize], true) {
                self.due.push(ix);
            }
            if !std::mem::replace(&mut self.is_touched[ix as usize], true) {
                self.touched.push(ix);
            }
        }
    }

    fn on_signal(&mut self, signal: &crate::domain::Signal, turn: &mut Turn<'_>) {
        use crate::domain::{NotificationCode, NotificationData, NotificationType, RefusalCode};
        let known = self.index.account(&signal.account, &self.accounts).map(|ix| &self.accounts[ix as usize]);
        let Some(account) = known.filter(|account| !account.closed) else {
            return turn.dead_letter(RefusalCode::UnknownAccount, Some("account"), "the account is not open here");
        };
        let data = NotificationData {
            strategy: Some(signal.strategy),
            symbol: Some(signal.symbol),
            signal: Some(signal.signal),
            ..NotificationData::default()
        };
        let (code, kind) = (NotificationCode::StrategySignal, NotificationType::StrategySignal);
        turn.notify(Some(account), &self.shared.limits, code, kind, data);
    }

    /// The number of records applied.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.shared.seq
    }

    /// The time of the last record; 0 before the first.
    #[must_use]
    pub fn at(&self) -> Millis {
        if self.shared.at == Millis::MIN { 0 } else { self.shared.at }
    }

    /// The shard.
    #[must_use]
    pub fn shard(&self) -> u32 {
        self.shared.shard
    }

    /// What a snapshot keeps beside the accounts.
    #[must_use]
    pub fn shared(&self) -> &Shared {
        &self.shared
    }

    /// The accounts, in the order in which they were opened. An account never moves.
    #[must_use]
    pub fn accounts(&self) -> &[Account] {
        &self.accounts
    }

    /// The accounts (places in [`Gate::accounts`]) that records changed since the last call, ascending.
    pub fn take_touched(&mut self) -> Vec<u32> {
        let mut touched = std::mem::take(&mut self.touched);
        for ix in &touched {
            self.is_touched[*ix as usize] = false;
        }
        touched.sort_unstable();
        touched
    }

    /// All books, in the order in which the accounts were opened.
    pub fn books(&self) -> impl Iterator<Item = BookView> + '_ {
        self.accounts.iter().map(|account| view::of(account, &self.shared))
    }

    /// One account's book.
    #[must_use]
    pub fn book(&self, account: AccountId) -> Option<BookView> {
        let ix = self.index.account(&account, &self.accounts)?;
        Some(view::of(&self.accounts[ix as usize], &self.shared))
    }

    /// Whose an account is. It stays theirs for ever.
    #[must_use]
    pub fn owner(&self, account: AccountId) -> Option<OwnerId> {
        let ix = self.index.account(&account, &self.accounts)?;
        Some(self.accounts[ix as usize].owner)
    }
}
