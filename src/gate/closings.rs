//! Closings: how a breach becomes commands, and how they are followed until nothing is left
//! (SEMANTICS sections 6 and 10).
//!
//! Invariant: commands reserve nothing, and no quantity is commanded that working orders or earlier
//! commands already cover.

use super::desk::Desk;
use crate::book::{Closing, Command, CommandState, Owner, Position, RuleIx, Subject, SymbolIx};
use crate::domain::{
    Action, ClientOrderId, Millis, Money, NotificationCode, NotificationData, NotificationType, Qty, RuleId, RuleType, Side, Symbol,
    TradingState,
};
use crate::risk::figures::{symbol_value, unrealized};

/// Commands per rule, symbol and closing.
const MAX_COMMANDS: u32 = 10;

impl Desk<'_, '_> {
    /// Whether a closing of the rule would have something to close or to cancel.
    pub(crate) fn has_work(&self, rule: RuleIx, subject: Subject) -> bool {
        match self.target(rule, subject) {
            None => false,
            Some(Some(symbol)) => self
                .account
                .position(symbol)
                .is_some_and(|position| self.account.uncovered(position) > 0 || self.increasing_orders(position).next().is_some()),
            Some(None) => self
                .account
                .positions
                .iter()
                .any(|position| self.account.uncovered(position) > 0 || position.buy_leaves > 0 || position.sell_leaves > 0),
        }
    }

    /// Begins the closing of a rule: tightens the state, cancels, closes.
    pub(crate) fn begin_closing(&mut self, rule: RuleIx, subject: Subject) {
        let Some(target) = self.target(rule, subject) else { return };
        let rule_id = self.shared.rule(rule).map(|state| state.rule.id);
        let owner = Owner::Rule(rule, subject);
        match target {
            Some(symbol) => self.restrict_symbol(symbol),
            None => {
                self.account.halts_when_flat = !self.account.is_flat();
                let state = if self.account.halts_when_flat { TradingState::ReduceOnly } else { TradingState::Halted };
                if state > self.account.state {
                    self.set_account_state(state);
                }
            }
        }
        self.cancel(target, rule_id);
        self.open_closing(owner, target);
        self.drop_finished_closings();
    }

    /// Begins to flatten what an operator's state covers. It lasts until the whole scope is flat.
    pub(crate) fn begin_flattening(&mut self, scope: u32, symbol: Option<SymbolIx>) {
        self.open_closing(Owner::Scope(scope), symbol);
    }

    fn open_closing(&mut self, owner: Owner, symbol: Option<SymbolIx>) {
        let number = self.account.closings_begun;
        self.account.closings_begun += 1;
        self.account.closings.push(Closing { owner, symbol, number, sent: Vec::new(), unconfirmed: false });
        self.account.due = true;
        self.turn.touch(self.ix);
        self.command_uncovered(self.account.closings.len() - 1, false);
    }

    fn restrict_symbol(&mut self, symbol: SymbolIx) {
        let place = self.account.place_or_new(symbol);
        if self.account.positions[place].state < TradingState::ReduceOnly {
            self.account.positions[place].ends_when_flat = true;
            self.set_symbol_state(symbol, TradingState::ReduceOnly);
        }
    }

    /// What a rule's closing closes: one symbol, everything (`Some(None)`), or nothing.
    fn target(&self, rule: RuleIx, subject: Subject) -> Option<Option<SymbolIx>> {
        let state = self.shared.rule(rule)?;
        if state.rule.action == Action::CloseAll {
            return Some(None);
        }
        if let Subject::Symbol(symbol) = subject {
            return Some(Some(symbol));
        }
        let worth = |position: &&Position| -> Option<(Money, SymbolIx)> {
            let market = self.shared.symbols.get(position.symbol as usize)?;
            if !state.scope.covers_symbol(position.symbol, market.sector()) {
                return None;
            }
            match (state.rule.rule_type, subject) {
                (RuleType::MaxDailyLoss | RuleType::MaxDrawdown, _) => {
                    let lost = unrealized(position, market).filter(|gain| *gain < Money::ZERO)?;
                    Some((Money(lost.0.checked_neg()?), position.symbol))
                }
                (_, Subject::Sector(sector)) if market.sector() != sector => None,
                _ => Some((symbol_value(self.account, position, market).ok()?, position.symbol)),
            }
        };
        let open = self.account.positions.iter().filter(|position| position.is_open());
        let worths = open.filter_map(|position| worth(&position));
        let best = worths.max_by(|a, b| a.0.cmp(&b.0).then_with(|| self.shared.symbol_name(b.1).cmp(&self.shared.symbol_name(a.1))))?;
        Some(Some(best.1))
    }

    fn increasing_orders<'a>(&'a self, position: &'a Position) -> impl Iterator<Item = ClientOrderId> + 'a {
        let reducing = position.reducing_side();
        self.account.orders.legs(position).filter(move |(_, entry)| entry.side != reducing).map(|(_, entry)| *entry.content.id())
    }

    /// Commands a cancel of what increases a symbol's position, or of everything.
    fn cancel(&mut self, symbol: Option<SymbolIx>, rule_id: Option<RuleId>) {
        match symbol {
            Some(symbol) => {
                let Some(position) = self.account.position(symbol).copied() else { return };
                let orders: Vec<_> = self.increasing_orders(&position).collect();
                let name = self.shared.symbol_name(symbol);
                self.turn.cancel_orders(self.account, name, orders.into_iter(), rule_id);
            }
            None => {
                let orders = self.working_orders(|_| true);
                self.turn.cancel_orders(self.account, None, orders.into_iter(), rule_id);
            }
        }
    }

    /// The working orders, the oldest first.
    pub(crate) fn working_orders(&self, wanted: impl Fn(&crate::book::Entry) -> bool) -> Vec<ClientOrderId> {
        let legs = self.account.positions.iter().flat_map(|position| self.account.orders.legs(position));
        let mut orders: Vec<_> = legs.filter(|(_, entry)| wanted(entry)).map(|(_, entry)| (entry.leg, *entry.content.id())).collect();
        orders.sort_unstable_by_key(|(leg, _)| *leg);
        orders.into_iter().map(|(_, id)| id).collect()
    }

    /// The symbols that a closing is about and that are held, in the order of their names.
    fn held(&self, symbol: Option<SymbolIx>) -> Vec<(Symbol, SymbolIx)> {
        let held = self.account.positions.iter().filter(|position| position.holding.qty != 0);
        let wanted = held.filter(|position| symbol.is_none_or(|only| only == position.symbol));
        let mut names: Vec<_> = wanted.filter_map(|position| Some((self.shared.symbol_name(position.symbol)?, position.symbol))).collect();
        names.sort_unstable();
        names
    }

    /// Commands what is uncovered of a closing's symbols: of those that wait for a boundary, or of the others.
    fn command_uncovered(&mut self, closing: usize, waiting: bool) {
        for (name, symbol) in self.held(self.account.closings[closing].symbol) {
            let Some(position) = self.account.position(symbol).filter(|position| position.waits_for_boundary == waiting) else { continue };
            let uncovered = self.account.uncovered(position);
            let Some(side) = position.reducing_side().filter(|_| uncovered > 0) else { continue };
            let sent = self.account.closings[closing].sent.iter_mut().find(|(other, _)| *other == symbol);
            match sent {
                Some((_, count)) if *count >= MAX_COMMANDS => {
                    self.not_confirmed(closing, symbol);
                    continue;
                }
                Some((_, count)) => *count += 1,
                None => self.account.closings[closing].sent.push((symbol, 1)),
            }
            self.command_close(closing, (name, symbol), side, uncovered);
        }
    }

    fn command_close(&mut self, closing: usize, (name, symbol): (Symbol, SymbolIx), side: Side, rest: i64) {
        let (owner, number) = (self.account.closings[closing].owner, self.account.closings[closing].number);
        let index = self.turn.close_position(self.account, name, side, Qty(rest), self.rule_id(owner));
        let (seq, at) = (self.turn.seq, self.turn.at);
        self.account.commands.push(Command { seq, index, closing: number, symbol, side, rest, at, state: CommandState::Unanswered });
        self.account.due = true;
        self.turn.touch(self.ix);
    }

    fn rule_id(&self, owner: Owner) -> Option<RuleId> {
        match owner {
            Owner::Rule(rule, _) => self.shared.rule(rule).map(|state| state.rule.id),
            Owner::Scope(_) => None,
        }
    }

    fn not_confirmed(&mut self, closing: usize, symbol: SymbolIx) {
        if std::mem::replace(&mut self.account.closings[closing].unconfirmed, true) {
            return;
        }
        let rule = match self.account.closings[closing].owner {
            Owner::Rule(rule, _) => self.shared.rule(rule).map(crate::risk::rule::RuleState::cited),
            Owner::Scope(_) => None,
        };
        let data = NotificationData { rule, symbol: self.shared.symbol_name(symbol), ..NotificationData::default() };
        let (code, kind) = (NotificationCode::CloseNotConfirmed, NotificationType::SystemAlert);
        self.turn.notify(Some(self.account), &self.shared.limits, code, kind, data);
        self.turn.touch(self.ix);
    }

    /// After an execution record: what is uncovered again is commanded again, then states end.
    pub(crate) fn follow_up(&mut self) {
        if !self.account.closings.is_empty() {
            self.drop_finished_closings();
            self.command_all_uncovered(false);
        }
        self.end_states();
    }

    /// At a boundary: commands that nobody answered in time, and what waited for it.
    pub(crate) fn follow_up_at_boundary(&mut self, boundary: Millis) {
        let timeout = self.shared.settings.command_timeout_ms;
        for place in 0..self.account.commands.len() {
            let command = &self.account.commands[place];
            if command.state != CommandState::Unanswered || boundary.saturating_sub(command.at) < timeout {
                continue;
            }
            let (symbol, number) = (command.symbol, command.closing);
            match self.account.closings.iter().position(|closing| closing.number == number) {
                Some(closing) => self.not_confirmed(closing, symbol),
                None => {
                    self.account.commands[place].state = CommandState::Ended;
                    self.await_boundary(symbol);
                }
            }
        }
        if self.account.positions.iter().any(|position| position.waits_for_boundary) {
            self.command_all_uncovered(true);
            for position in &mut self.account.positions {
                position.waits_for_boundary = false;
            }
        }
    }

    /// Nothing more is commanded of a symbol before the next boundary, or the one at hand.
    fn await_boundary(&mut self, symbol: SymbolIx) {
        if let Ok(place) = self.account.place(symbol) {
            self.account.positions[place].waits_for_boundary = true;
        }
    }

    fn command_all_uncovered(&mut self, waiting: bool) {
        let rank = |owner: Owner| match owner {
            Owner::Rule(rule, subject) => (self.shared.rank(rule), Some(subject)),
            Owner::Scope(scope) => (usize::MAX, Some(Subject::Sector(scope))),
        };
        let mut order: Vec<usize> = (0..self.account.closings.len()).collect();
        order.sort_by_key(|closing| rank(self.account.closings[*closing].owner));
        for closing in order {
            self.command_uncovered(closing, waiting);
        }
    }

    /// Forgets the closings of rules that have nothing left to close.
    pub(crate) fn drop_finished_closings(&mut self) {
        let account = &mut *self.account;
        let flat = account.is_flat();
        let positions = &account.positions;
        let is_open = |symbol: SymbolIx| positions.iter().any(|position| position.symbol == symbol && position.is_open());
        account.closings.retain(|closing| matches!(closing.owner, Owner::Scope(_)) || closing.symbol.map_or(!flat, is_open));
    }

    /// States that the gate set until a position, or the account, is flat with nothing working.
    fn end_states(&mut self) {
        for place in 0..self.account.positions.len() {
            let position = &mut self.account.positions[place];
            if position.ends_when_flat && !position.is_open() {
                position.ends_when_flat = false;
                let symbol = position.symbol;
                self.set_symbol_state(symbol, TradingState::Active);
            }
        }
        if self.account.halts_when_flat && self.account.is_flat() {
            self.account.halts_when_flat = false;
            self.set_account_state(TradingState::Halted);
        }
    }

    /// The place of the command that a client order id names.
    pub(crate) fn command_named(&self, id: &ClientOrderId) -> Option<usize> {
        let (seq, index) = parse_command_id(id.as_str(), self.turn.shard)?;
        self.account.commands.iter().position(|command| command.seq == seq && command.index == index)
    }

    /// A command was refused: it is over, and its position waits for the next boundary.
    pub(crate) fn command_rejected(&mut self, command: usize) {
        let symbol = self.account.commands[command].symbol;
        self.account.commands[command].state = CommandState::Ended;
        self.await_boundary(symbol);
        self.account.due = true;
        self.turn.touch(self.ix);
    }
}

/// Reads `shard-seq-index` as the gate writes it, and nothing else.
fn parse_command_id(id: &str, shard: u32) -> Option<(u64, u32)> {
    let mut parts = id.split('-');
    let (first, seq, index) = (parts.next()?, parts.next()?, parts.next()?);
    let plain = |text: &str| text == "0" || (!text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit()));
    if parts.next().is_some() || ![first, seq, index].into_iter().all(plain) || first.parse() != Ok(shard) {
        return None;
    }
    Some((seq.parse().ok()?, index.parse().ok()?))
}
