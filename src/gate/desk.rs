//! One account's part of a record's turn: its book to change, the rest of the gate to read.
//!
//! Episodes, warnings and latches (SEMANTICS section 6). Invariant: only enforced rules come here,
//! and never for an intent that strictly reduces, so neither touches any of the three.

use super::shared::Shared;
use super::turn::Turn;
use crate::book::{Account, AccountIx, Episode, Owner, RuleIx, Subject, SymbolIx};
use crate::domain::{Action, Millis, NotificationCode, NotificationData, NotificationType, RuleType, TradingState};
use crate::risk::measure::{Level, Measure};

/// One account's part of a turn.
pub(crate) struct Desk<'a, 'b> {
    pub(crate) shared: &'a Shared,
    pub(crate) account: &'a mut Account,
    pub(crate) ix: AccountIx,
    pub(crate) turn: &'a mut Turn<'b>,
}

impl Desk<'_, '_> {
    /// Judges a measure of the book as it is: the loss rules, stops and targets.
    pub(crate) fn judge_standing(&mut self, rule: RuleIx, subject: Subject, measure: &Measure) {
        let Some(state) = self.shared.rule(rule) else { return };
        let (action, warn_at) = (state.rule.action, state.rule.warn_at);
        let latches = matches!(state.rule.rule_type, RuleType::MaxDailyLoss | RuleType::MaxDrawdown) && action != Action::Alert;
        let before = self.account.episode(rule, subject).copied();
        let mut episode = before.unwrap_or(Episode::new(rule, subject));
        if measure.breaches() {
            let begins = !episode.open;
            let closes = action.closes() && !episode.closing_begun;
            episode.latched |= latches;
            (episode.open, episode.warned) = (true, true);
            episode.closing_begun |= closes;
            self.keep(before, episode);
            if begins || closes {
                self.breach(rule, subject, measure, !begins, closes);
            }
            return;
        }
        if episode.open && !episode.latched && !measure.reaches(Level::CLEAR) {
            self.end_episode(rule, subject, Some(measure));
            episode.open = false;
            episode.closing_begun = false;
        }
        let warns = !episode.open && !episode.warned && measure.reaches(Level::warn(warn_at));
        episode.warned |= warns;
        if !warns && !episode.open && episode.warned && !measure.reaches(Level::rearm(warn_at)) {
            episode.warned = false;
        }
        self.keep(before, episode);
        if warns {
            self.notify_rule(NotificationCode::RuleWarning, rule, subject, Some(measure));
        }
    }

    /// Judges a measure of the book after an intent, or as it stands at a boundary (`now`). `stands`
    /// says whether the book breaches without the intent. What ends it is quiet, not a small measure.
    pub(crate) fn judge_asked(&mut self, rule: RuleIx, subject: Subject, measure: &Measure, stands: bool, now: Millis) {
        let Some(state) = self.shared.rule(rule) else { return };
        let (action, warn_at) = (state.rule.action, state.rule.warn_at);
        let before = self.account.episode(rule, subject).copied();
        let mut episode = before.unwrap_or(Episode::new(rule, subject));
        if measure.breaches() {
            let begins = !episode.open;
            (episode.open, episode.warned, episode.last_reached) = (true, true, now);
            self.keep(before, episode);
            let lasts = self.account.closings.iter().any(|closing| closing.owner == Owner::Rule(rule, subject));
            let closes = action.closes() && stands && !lasts && self.has_work(rule, subject);
            if begins || closes {
                self.breach(rule, subject, measure, !begins, closes);
            }
        } else if measure.reaches(Level::warn(warn_at)) {
            let warns = !episode.warned;
            (episode.warned, episode.last_reached) = (true, now);
            self.keep(before, episode);
            if warns {
                self.notify_rule(NotificationCode::RuleWarning, rule, subject, Some(measure));
            }
        }
    }

    /// Ends what asking began, once it has been quiet for long enough at a boundary.
    pub(crate) fn end_quiet_episodes(&mut self, rule: RuleIx, boundary: Millis) {
        let quiet = self.shared.settings.episode_quiet_ms;
        let over = |episode: &Episode| episode.rule == rule && boundary.saturating_sub(episode.last_reached) >= quiet;
        while let Some(episode) = self.account.episodes.iter().find(|episode| over(episode)).copied() {
            if episode.open {
                self.end_episode(rule, episode.subject, None);
            }
            self.account.episodes.retain(|other| other.rule != rule || other.subject != episode.subject);
            self.turn.touch(self.ix);
        }
    }

    /// Ends the stops and targets of a position that was closed.
    pub(crate) fn end_position_episodes(&mut self, symbol: SymbolIx) {
        let subject = Subject::Symbol(symbol);
        if self.account.episodes.is_empty() {
            return;
        }
        let shared = self.shared;
        for (rule, _) in shared.ordered_rules().filter(|(_, state)| state.watches_prices()) {
            let Some(episode) = self.account.episode(rule, subject).copied() else { continue };
            if episode.open {
                self.end_episode(rule, subject, None);
            }
            self.account.episodes.retain(|other| other.rule != rule || other.subject != subject);
        }
    }

    /// Ends the daily losses of a day that is over.
    pub(crate) fn end_daily_episodes(&mut self) {
        let shared = self.shared;
        for (rule, _) in shared.ordered_rules().filter(|(_, state)| state.rule.rule_type == RuleType::MaxDailyLoss) {
            let Some(episode) = self.account.episode(rule, Subject::Account).copied() else { continue };
            if episode.open {
                self.end_episode(rule, Subject::Account, None);
            }
            self.account.episodes.retain(|other| other.rule != rule);
        }
    }

    /// `RULE_CLEARED`; closings end with their episode. The episode itself is the caller's to change.
    fn end_episode(&mut self, rule: RuleIx, subject: Subject, measure: Option<&Measure>) {
        self.account.closings.retain(|closing| closing.owner != Owner::Rule(rule, subject));
        self.notify_rule(NotificationCode::RuleCleared, rule, subject, measure);
    }

    /// `RULE_BREACH`, and the closing that begins with it.
    fn breach(&mut self, rule: RuleIx, subject: Subject, measure: &Measure, again: bool, closes: bool) {
        let place = self.notify_rule(NotificationCode::RuleBreach, rule, subject, Some(measure));
        let commands = self.turn.commands;
        if closes {
            self.begin_closing(rule, subject);
        }
        if again || self.turn.commands > commands {
            self.turn.make_urgent(place);
        }
    }

    fn keep(&mut self, before: Option<Episode>, episode: Episode) {
        if before == Some(episode) {
            return;
        }
        let place = self.account.episodes.iter().position(|other| other.rule == episode.rule && other.subject == episode.subject);
        let quiet = !episode.open && !episode.warned && !episode.latched;
        match place {
            Some(place) if quiet => {
                self.account.episodes.remove(place);
            }
            Some(place) => self.account.episodes[place] = episode,
            None if quiet => return,
            None => self.account.episodes.push(episode),
        }
        self.account.due = true;
        self.turn.touch(self.ix);
        if let Subject::Symbol(symbol) = episode.subject {
            self.turn.moved.push((self.ix, symbol, true));
        }
    }

    fn notify_rule(&mut self, code: NotificationCode, rule: RuleIx, subject: Subject, measure: Option<&Measure>) -> Option<usize> {
        let state = self.shared.rule(rule)?;
        let kind = match state.rule.rule_type {
            RuleType::StopLoss => NotificationType::StopLoss,
            RuleType::TakeProfit => NotificationType::ProfitTarget,
            RuleType::MaxPositionSize
            | RuleType::MaxDailyLoss
            | RuleType::MaxDrawdown
            | RuleType::MaxCorrelation
            | RuleType::MaxLeverage
            | RuleType::PositionLimit
            | RuleType::SectorLimit => NotificationType::RiskBreach,
        };
        let mut data = NotificationData { rule: Some(state.cited()), ..NotificationData::default() };
        match subject {
            Subject::Account => {}
            Subject::Symbol(symbol) => data.symbol = self.shared.symbol_name(symbol),
            Subject::Sector(sector) => data.sector = self.shared.sectors.get(sector as usize).copied(),
        }
        if let Some(measure) = measure {
            (data.current, data.limit, data.utilization) = (measure.current.figure(), measure.limit.figure(), measure.utilization.figure());
        }
        self.turn.notify(Some(self.account), &self.shared.limits, code, kind, data)
    }

    /// Sets the account's own state and says so if it differs.
    pub(crate) fn set_account_state(&mut self, state: TradingState) {
        let before = std::mem::replace(&mut self.account.state, state);
        self.say_state(before, state, None);
    }

    /// Sets the state of one of its symbols and says so if it differs.
    pub(crate) fn set_symbol_state(&mut self, symbol: SymbolIx, state: TradingState) {
        let place = self.account.place_or_new(symbol);
        let before = std::mem::replace(&mut self.account.positions[place].state, state);
        self.say_state(before, state, self.shared.symbol_name(symbol));
    }

    fn say_state(&mut self, before: TradingState, state: TradingState, symbol: Option<crate::domain::Symbol>) {
        self.turn.touch(self.ix);
        if before != state {
            let data = NotificationData { symbol, state: Some(state), previous_state: Some(before), ..NotificationData::default() };
            let (code, kind) = (NotificationCode::TradingStateChanged, NotificationType::SystemAlert);
            self.turn.notify(Some(self.account), &self.shared.limits, code, kind, data);
        }
    }
}
