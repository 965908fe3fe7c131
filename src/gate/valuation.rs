//! Valuation points, the grid's boundaries, the end of trading days, and stops (SEMANTICS sections 2, 5, 6).
//!
//! Invariant: the high-water mark moves only here. Asking never does.

use super::desk::Desk;
use crate::book::{Blind, Command, CommandState, Episode, Position, RuleIx, Subject, SymbolIx};
use crate::domain::{Millis, Money, NotificationCode, NotificationData, NotificationType, RuleType, TradingState};
use crate::market::symbol::SymbolState;
use crate::risk::figures::{Ask, Figures, equity, valuation};
use crate::risk::measure::Measure;
use crate::risk::rule::RuleState;
use crate::risk::{rules, stop};

impl Desk<'_, '_> {
    /// The account's cash or positions changed; `filled` is the symbol whose stops are to be judged.
    pub(crate) fn valuation_point(&mut self, filled: Option<SymbolIx>) {
        self.account.due = true;
        self.turn.touch(self.ix);
        let equity = self.value();
        let shared = self.shared;
        for (rule, state) in shared.ordered_rules().filter(|(_, state)| state.enforced()) {
            match (filled, equity) {
                (Some(symbol), _) if state.watches_prices() => self.judge_stop(rule, symbol),
                (_, Some(equity)) => self.judge_loss(rule, state, equity),
                (_, None) => {}
            }
        }
    }

    /// A boundary of the valuation grid, with the prices before it.
    pub(crate) fn boundary(&mut self, boundary: Millis) {
        self.account.due = false;
        self.turn.touch(self.ix);
        if let Some(roll) = self.account.missed_roll {
            self.roll_day(roll);
        }
        let equity = self.value();
        let shared = self.shared;
        for (rule, state) in shared.ordered_rules().filter(|(_, state)| state.enforced()) {
            if let Some(equity) = equity {
                self.judge_loss(rule, state, equity);
                self.judge_now(rule, state, equity, boundary);
            }
            if state.fresh && state.watches_prices() {
                self.judge_stops(rule);
            }
            if state.judged_after() && !self.account.episodes.is_empty() {
                self.end_quiet_episodes(rule, boundary);
            }
        }
        self.follow_up_at_boundary(boundary);
        self.account.due |= self.waits();
    }

    /// A trading day ends. Waits until the equity is known.
    pub(crate) fn roll_day(&mut self, roll: Millis) {
        self.turn.touch(self.ix);
        let roll = *self.account.missed_roll.get_or_insert(roll);
        let Some(value) = valuation(self.account, &self.shared.symbols) else {
            self.account.due = true;
            return;
        };
        self.account.missed_roll = None;
        let known = equity(self.account, &self.shared.symbols).ok();
        let profit = known.and_then(|equity| equity.minus(self.account.sod)?.minus(self.account.flows));
        let counts = std::mem::take(&mut self.account.counts);
        let day = self.shared.rolls.get(self.account.roll as usize).map(|class| class.roll.day_ending_at(roll));
        let data = NotificationData {
            day,
            equity: Some(known),
            daily_pnl: Some(profit),
            allowed: Some(counts.allowed),
            reduced: Some(counts.reduced),
            blocked: Some(counts.blocked),
            fills: Some(counts.fills),
            ..NotificationData::default()
        };
        let (code, kind) = (NotificationCode::DailySummary, NotificationType::DailySummary);
        self.turn.notify(Some(self.account), &self.shared.limits, code, kind, data);
        (self.account.sod, self.account.flows) = (value, Money::ZERO);
        self.end_daily_episodes();
    }

    /// The equity; moves the high-water mark. When it leaves its type the account is halted.
    fn value(&mut self) -> Option<Money> {
        let value = valuation(self.account, &self.shared.symbols);
        match value {
            Some(equity) => self.account.hwm = self.account.hwm.max(equity),
            None => self.halt_overflow(),
        }
        value
    }

    /// A result left its type at a valuation point. Raised when it halts.
    fn halt_overflow(&mut self) {
        if self.account.state != TradingState::Halted {
            self.halt_unreadable(NotificationData::default());
        }
    }

    /// `EXECUTION_UNREADABLE`: the book is not known until an operator says that it is.
    pub(crate) fn halt_unreadable(&mut self, data: NotificationData) {
        self.halt(NotificationCode::ExecutionUnreadable, data);
    }

    /// Raises an alert and halts the account.
    pub(crate) fn halt(&mut self, code: NotificationCode, data: NotificationData) {
        self.turn.notify(Some(self.account), &self.shared.limits, code, NotificationType::SystemAlert, data);
        self.set_account_state(TradingState::Halted);
    }

    fn judge_loss(&mut self, rule: RuleIx, state: &RuleState, equity: Money) {
        if !state.scope.covers_account(self.ix) {
            return;
        }
        let measure = match state.rule.rule_type {
            RuleType::MaxDailyLoss => rules::daily_loss(&state.rule, equity, self.account.sod, self.account.flows),
            RuleType::MaxDrawdown => rules::drawdown(&state.rule, equity, self.account.hwm),
            RuleType::MaxPositionSize
            | RuleType::MaxCorrelation
            | RuleType::MaxLeverage
            | RuleType::PositionLimit
            | RuleType::SectorLimit
            | RuleType::StopLoss
            | RuleType::TakeProfit => return,
        };
        match measure {
            Ok(measure) => self.judge_standing(rule, Subject::Account, &measure),
            Err(_) => self.halt_overflow(),
        }
    }

    /// The rules judged "after" whose breach closes are held against the book as it stands.
    fn judge_now(&mut self, rule: RuleIx, state: &RuleState, equity: Money, boundary: Millis) {
        if !state.closes() || !state.scope.covers_account(self.ix) {
            return;
        }
        match state.rule.rule_type {
            RuleType::MaxPositionSize => self.judge_each(rule, state, equity, boundary, |symbol, _| Subject::Symbol(symbol)),
            RuleType::SectorLimit => self.judge_each(rule, state, equity, boundary, |_, sector| Subject::Sector(sector)),
            RuleType::MaxLeverage | RuleType::PositionLimit => self.judge_each(rule, state, equity, boundary, |_, _| Subject::Account),
            RuleType::MaxCorrelation | RuleType::MaxDailyLoss | RuleType::MaxDrawdown | RuleType::StopLoss | RuleType::TakeProfit => {}
        }
    }

    fn judge_each(
        &mut self,
        rule: RuleIx,
        state: &RuleState,
        equity: Money,
        boundary: Millis,
        subject_of: impl Fn(SymbolIx, u32) -> Subject,
    ) {
        let shared = self.shared;
        let mut judged: Vec<Subject> = Vec::new();
        for place in 0..self.account.positions.len() {
            let position = self.account.positions[place];
            let sector = shared.sector_of(position.symbol);
            let subject = subject_of(position.symbol, sector);
            let lasts = self.account.episode(rule, subject).is_some_and(|episode| episode.open);
            if !(position.is_open() || lasts) || judged.contains(&subject) || !state.scope.covers_symbol(position.symbol, sector) {
                continue;
            }
            judged.push(subject);
            let Some(ask) = Ask::new(self.account, &shared.symbols, position.symbol, None) else { continue };
            let figures = Figures { equity: Ok(equity), ..ask.now() };
            match rules::judged_after(&state.rule, &figures) {
                Ok(measure) => {
                    let measure = measure.as_it_stands();
                    let breaches = measure.breaches();
                    self.judge_asked(rule, subject, &measure, breaches, boundary);
                }
                Err(Blind::Overflow) => self.halt_overflow(),
                Err(Blind::Missing) => {}
            }
        }
    }

    /// Judges one stop or target on all positions that it covers.
    fn judge_stops(&mut self, rule: RuleIx) {
        for place in 0..self.account.positions.len() {
            let symbol = self.account.positions[place].symbol;
            self.judge_stop(rule, symbol);
        }
    }

    /// Judges one stop or target on one position, if it covers it and there is a mark.
    pub(crate) fn judge_stop(&mut self, rule: RuleIx, symbol: SymbolIx) {
        let Some(state) = self.shared.rule(rule).filter(|state| state.enforced()) else { return };
        if let Some(measure) = self.measure_stop(state, symbol) {
            self.judge_standing(rule, Subject::Symbol(symbol), &measure);
        }
        self.turn.moved.push((self.ix, symbol, true));
    }

    /// What a stop or target measures on a position that it covers.
    pub(crate) fn measure_stop(&self, state: &RuleState, symbol: SymbolIx) -> Option<Measure> {
        let market = self.shared.symbols.get(symbol as usize)?;
        let position = self.account.position(symbol)?;
        let covered = state.scope.covers_account(self.ix) && state.scope.covers_symbol(symbol, market.sector());
        stop::measure(&state.rule, &watched(position, market).filter(|_| covered)?)
    }

    /// Whether something is left for the next boundary.
    fn waits(&self) -> bool {
        let unanswered = |command: &Command| command.state == CommandState::Unanswered;
        let timed = |episode: &Episode| self.shared.rule(episode.rule).is_some_and(|rule| rule.enforced() && rule.judged_after());
        self.account.missed_roll.is_some() || self.account.commands.iter().any(unanswered) || self.account.episodes.iter().any(timed)
    }
}

/// A position as its stops see it; `None` when flat.
pub(crate) fn watched(position: &Position, market: &SymbolState) -> Option<stop::Watched> {
    let qty = position.holding.qty;
    let seen = match qty {
        0 => return None,
        1.. => market.extremes.high_since(position.opened_index).map(|high| high.max(position.opened_price)),
        _ => market.extremes.low_since(position.opened_index).map(|low| low.min(position.opened_price)),
    };
    Some(stop::Watched {
        holding: position.holding,
        mark: market.mark.price(),
        best: seen.unwrap_or(position.opened_price),
        multiplier: market.multiplier(),
    })
}
