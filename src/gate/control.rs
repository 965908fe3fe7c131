//! Operators' records: accounts, instruments, limits, settings, lists, rules.
//!
//! Invariant: a record is taken whole, or it is a dead letter with a code and changes nothing.

use super::Gate;
use super::desk::Desk;
use super::shared::{RestrictedSymbols, Roll, SettingValues, Shared};
use super::turn::Turn;
use crate::book::{Account, AccountIx, DayCounts, FillMemory, Orders, Owner, RuleIx, Subject, SymbolIx};
use crate::domain::{
    AccountId, AccountOpened, ControlEvent, Currency, Factor, InstrumentDefined, LatchReleased, Limits, Money, Patch, Qty, RefusalCode,
    RestrictedList, Rule, RuleId, RuleType, Settings, TradingState, div_half_even,
};
use crate::market::calendar::DayRoll;
use crate::market::symbol::Instrument;
use crate::risk::figures::valuation;
use crate::risk::rule::{RuleState, Scope, objection};
use ethnum::I256;

/// Why a control record cannot be taken: code, field, message.
pub(super) type Refusal = (RefusalCode, Option<&'static str>, &'static str);

const UNKNOWN_ACCOUNT: Refusal = (RefusalCode::UnknownAccount, Some("account"), "the account is not open here");
const UNKNOWN_RULE: Refusal = (RefusalCode::UnknownRule, Some("rule_id"), "there is no such rule");

impl Gate {
    /// Takes an operator's record, or refuses it.
    pub(super) fn on_control(&mut self, event: &ControlEvent, turn: &mut Turn<'_>) {
        let taken = match event {
            ControlEvent::AccountOpened(opened) => self.open_account(opened, turn),
            ControlEvent::AccountClosed { account } => self.close_account(account, turn),
            ControlEvent::AccountLimitsSet { account, limits } => self.set_limits(account, limits, turn),
            ControlEvent::GateSettingsSet(settings) => self.set_settings(settings),
            ControlEvent::CashAdjusted { account, amount } => self.adjust_cash(account, *amount, turn),
            ControlEvent::InstrumentDefined(defined) => self.define_instrument(defined, turn),
            ControlEvent::Split { symbol, from, to } => self.split(symbol, from.0, to.0, turn),
            ControlEvent::RestrictedListSet(list) => self.set_restricted_list(list),
            ControlEvent::RuleCreated(rule) => self.create_rule(rule),
            ControlEvent::RuleUpdated(rule) => self.update_rule(rule, turn),
            ControlEvent::RuleDeleted { id } => self.delete_rule(id, turn),
            ControlEvent::TradingStateSet(set) => self.set_trading_state(set, turn),
            ControlEvent::LatchReleased(released) => self.release_latch(released, turn),
        };
        match taken {
            Ok(()) => {}
            // Books and prices object to a split, and every shard has its own of them.
            Err((code @ RefusalCode::InvalidSplit, field, message)) => turn.dead_letter(code, field, message),
            Err((code, field, message)) => turn.shared_dead_letter(code, field, message),
        }
    }

    pub(super) fn known_account(&self, account: &AccountId) -> Result<AccountIx, Refusal> {
        self.index.account(account, &self.accounts).ok_or(UNKNOWN_ACCOUNT)
    }

    fn open_account(&mut self, opened: &AccountOpened, turn: &mut Turn<'_>) -> Result<(), Refusal> {
        if self.known_account(&opened.account).is_ok() {
            return Err((RefusalCode::AccountExists, Some("account"), "the account was opened before"));
        }
        let text = opened.day_roll.as_deref().unwrap_or("00:00 UTC");
        let roll =
            DayRoll::parse(text).ok_or((RefusalCode::InvalidDayRoll, Some("day_roll"), "not HH:MM and a time zone that is known"))?;
        let ix = AccountIx::try_from(self.accounts.len()).unwrap_or(AccountIx::MAX);
        let roll = self.shared.roll_of(roll, turn.at);
        self.accounts.push(Account {
            id: opened.account,
            owner: opened.owner,
            currency: opened.currency.unwrap_or_else(default_currency),
            cash: opened.cash,
            sod: opened.cash,
            hwm: opened.cash,
            flows: Money::ZERO,
            limits: opened.limits.clone(),
            roll,
            missed_roll: None,
            closed: false,
            state: TradingState::Active,
            halts_when_flat: false,
            due: true,
            positions: Vec::new(),
            orders: Orders::default(),
            fills: FillMemory::default(),
            episodes: Vec::new(),
            closings: Vec::new(),
            closings_begun: 0,
            commands: Vec::new(),
            counts: DayCounts::default(),
        });
        self.is_due.push(false);
        self.is_touched.push(false);
        self.index.add_account(ix, &self.accounts);
        for state in self.shared.rules.iter_mut().flatten().filter(|state| state.rule.scope.account == Some(opened.account)) {
            state.scope.account = Some(Some(ix));
        }
        turn.touch(ix);
        Ok(())
    }

    fn close_account(&mut self, account: &AccountId, turn: &mut Turn<'_>) -> Result<(), Refusal> {
        let ix = self.known_account(account)?;
        let account = &mut self.accounts[ix as usize];
        if account.closed {
            return Err((RefusalCode::AccountClosed, Some("account"), "the account was closed before"));
        }
        if !account.is_flat() {
            return Err((RefusalCode::AccountNotFlat, Some("account"), "something is held or working in the account"));
        }
        account.closed = true;
        turn.touch(ix);
        Ok(())
    }

    fn set_limits(&mut self, account: &AccountId, limits: &Limits, turn: &mut Turn<'_>) -> Result<(), Refusal> {
        let ix = self.known_account(account)?;
        merge_limits(&mut self.accounts[ix as usize].limits, limits);
        turn.touch(ix);
        Ok(())
    }

    #[expect(clippy::unnecessary_wraps, reason = "one of a family that the dispatch treats alike")]
    fn set_settings(&mut self, settings: &Settings) -> Result<(), Refusal> {
        let (values, built_in) = (&mut self.shared.settings, SettingValues::default());
        set(&mut values.max_intent_age_ms, settings.max_intent_age_ms, built_in.max_intent_age_ms);
        set(&mut values.valuation_grid_ms, settings.valuation_grid_ms, built_in.valuation_grid_ms);
        set(&mut values.id_memory_ms, settings.id_memory_ms, built_in.id_memory_ms);
        set(&mut values.command_timeout_ms, settings.command_timeout_ms, built_in.command_timeout_ms);
        set(&mut values.episode_quiet_ms, settings.episode_quiet_ms, built_in.episode_quiet_ms);
        set(&mut values.sizing_percent, settings.sizing_percent, built_in.sizing_percent);
        merge_limits(&mut self.shared.limits, &settings.limits);
        Ok(())
    }

    fn adjust_cash(&mut self, account: &AccountId, amount: Money, turn: &mut Turn<'_>) -> Result<(), Refusal> {
        let ix = self.known_account(account)?;
        let out_of_range = (RefusalCode::ValueOutOfRange, Some("amount"), "a result leaves its type");
        let account = &mut self.accounts[ix as usize];
        let before = valuation(account, &self.shared.symbols).ok_or(out_of_range)?;
        let after = before.plus(amount).ok_or(out_of_range)?;
        let cash = account.cash.plus(amount).ok_or(out_of_range)?;
        let flows = account.flows.plus(amount).ok_or(out_of_range)?;
        let hwm = if before <= Money::ZERO {
            after
        } else {
            let numerator = I256::from(account.hwm.0).checked_mul(I256::from(after.0)).ok_or(out_of_range)?;
            Money(div_half_even(numerator, I256::from(before.0)).ok_or(out_of_range)?)
        };
        (account.cash, account.flows, account.hwm) = (cash, flows, hwm);
        let mut desk = Desk { shared: &self.shared, account, ix, turn };
        desk.valuation_point(None);
        Ok(())
    }

    fn define_instrument(&mut self, defined: &InstrumentDefined, turn: &mut Turn<'_>) -> Result<(), Refusal> {
        let symbol = self.index.symbol_named(defined.symbol, &mut self.shared.symbols);
        let known = self.shared.symbols[symbol as usize].instrument.map(|instrument| instrument.multiplier);
        let multiplier = match (known, defined.multiplier) {
            (Some(known), Some(given)) if known != given => {
                return Err((RefusalCode::MultiplierChanged, Some("multiplier"), "a multiplier cannot change once defined"));
            }
            (Some(known), _) => known,
            (None, given) => given.unwrap_or(Factor::ONE),
        };
        let sector = defined.sector.map_or(0, |sector| self.shared.sector_named(sector));
        self.shared.symbols[symbol as usize].instrument = Some(Instrument {
            sector,
            multiplier,
            lot: defined.lot_size.unwrap_or(Qty::ONE),
            tick: defined.tick_size,
            currency: defined.currency.unwrap_or_else(default_currency),
            max_order_qty: defined.max_order_qty,
            max_order_value: defined.max_order_value,
        });
        for ix in self.shared.symbols[symbol as usize].holders.clone() {
            self.accounts[ix as usize].due = true;
            turn.touch(ix);
            turn.moved.push((ix, symbol, true));
        }
        Ok(())
    }

    #[expect(clippy::unnecessary_wraps, reason = "one of a family that the dispatch treats alike")]
    fn set_restricted_list(&mut self, set: &RestrictedList) -> Result<(), Refusal> {
        let mut symbols: Vec<SymbolIx> =
            set.symbols.iter().map(|symbol| self.index.symbol_named(*symbol, &mut self.shared.symbols)).collect();
        self.shared.lists.retain(|list| list.list != set.list);
        if !symbols.is_empty() {
            let accounts = set.accounts.as_deref().unwrap_or_default().to_vec();
            symbols.sort_unstable();
            self.shared.lists.push(RestrictedSymbols { list: set.list, symbols, accounts });
        }
        Ok(())
    }

    fn create_rule(&mut self, rule: &Rule) -> Result<(), Refusal> {
        if self.rule_named(&rule.id).is_some() {
            return Err((RefusalCode::RuleExists, Some("rule.id"), "there is a rule with this id"));
        }
        refuse_objectionable(rule)?;
        let state = RuleState { rule: rule.clone(), scope: self.resolve(rule), fresh: true };
        let place = self.shared.rules.iter().position(Option::is_none).unwrap_or_else(|| {
            self.shared.rules.push(None);
            self.shared.rules.len() - 1
        });
        self.shared.rules[place] = Some(state);
        self.rules_changed();
        Ok(())
    }

    fn update_rule(&mut self, rule: &Rule, turn: &mut Turn<'_>) -> Result<(), Refusal> {
        let place = self.rule_named(&rule.id).ok_or(UNKNOWN_RULE)?;
        refuse_objectionable(rule)?;
        if self.shared.rule(place).is_some_and(|state| state.rule.rule_type != rule.rule_type) {
            return Err((RefusalCode::InvalidRule, Some("rule.type"), "the type of a rule cannot change"));
        }
        let state = RuleState { rule: rule.clone(), scope: self.resolve(rule), fresh: true };
        if !state.closes() {
            self.drop_of_rule(place, false, turn);
        }
        self.shared.rules[place as usize] = Some(state);
        self.rules_changed();
        Ok(())
    }

    fn delete_rule(&mut self, id: &RuleId, turn: &mut Turn<'_>) -> Result<(), Refusal> {
        let place = self.rule_named(id).ok_or((RefusalCode::UnknownRule, Some("id"), "there is no such rule"))?;
        self.drop_of_rule(place, true, turn);
        self.shared.rules[place as usize] = None;
        self.rules_changed();
        for state in &mut self.shared.symbols {
            for ix in &state.holders {
                state.triggers.unwatch(*ix, place);
            }
        }
        Ok(())
    }

    /// Ends the closings of a rule, and, where it is deleted, its episodes, latches and warnings.
    fn drop_of_rule(&mut self, rule: RuleIx, episodes: bool, turn: &mut Turn<'_>) {
        for (ix, account) in (0..).zip(&mut self.accounts) {
            let kept = (account.closings.len(), account.episodes.len());
            account.closings.retain(|closing| !matches!(closing.owner, Owner::Rule(owner, _) if owner == rule));
            if episodes {
                account.episodes.retain(|episode| episode.rule != rule);
            } else if kept.0 != account.closings.len() {
                // If it closes again one day, its breach begins another closing.
                for episode in account.episodes.iter_mut().filter(|episode| episode.rule == rule) {
                    episode.closing_begun = false;
                }
            }
            if kept != (account.closings.len(), account.episodes.len()) {
                turn.touch(ix);
            }
        }
    }

    fn rule_named(&self, id: &RuleId) -> Option<RuleIx> {
        let place = self.shared.rules.iter().position(|state| state.as_ref().is_some_and(|state| state.rule.id == *id))?;
        RuleIx::try_from(place).ok()
    }

    fn resolve(&mut self, rule: &Rule) -> Scope {
        let scope = &rule.scope;
        let mut symbols: Vec<_> = scope.symbols.iter().map(|symbol| self.index.symbol_named(*symbol, &mut self.shared.symbols)).collect();
        let mut sectors: Vec<_> = scope.sectors.iter().map(|sector| self.shared.sector_named(*sector)).collect();
        symbols.sort_unstable();
        sectors.sort_unstable();
        Scope {
            account: scope.account.map(|account| self.index.account(&account, &self.accounts)),
            strategy: scope.strategy.map(|strategy| self.index.strategy_named(strategy, &mut self.shared.strategies)),
            symbols,
            sectors,
        }
    }

    /// Every account is looked at by the next boundary, every stop by the next price.
    fn rules_changed(&mut self) {
        self.shared.order_rules();
        self.correlations.clear();
        let bound = self.shared.bars_kept();
        for (_, bars) in self.shared.symbols.iter_mut().flat_map(|state| &mut state.bars) {
            bars.set_bound(bound);
        }
        for (ix, account) in (0..).zip(&mut self.accounts) {
            account.due = true;
            if !std::mem::replace(&mut self.is_due[ix as usize], true) {
                self.due.push(ix);
            }
            // `due` is part of what a snapshot keeps.
            if !std::mem::replace(&mut self.is_touched[ix as usize], true) {
                self.touched.push(ix);
            }
        }
        self.watch_all();
    }

    fn release_latch(&mut self, released: &LatchReleased, turn: &mut Turn<'_>) -> Result<(), Refusal> {
        let ix = self.known_account(&released.account)?;
        let rule = self.rule_named(&released.rule_id).ok_or(UNKNOWN_RULE)?;
        let latches = |state: &RuleState| matches!(state.rule.rule_type, RuleType::MaxDailyLoss | RuleType::MaxDrawdown);
        if !self.shared.rule(rule).is_some_and(latches) {
            return Err((RefusalCode::UnknownLatch, Some("rule_id"), "this type of rule has no latch"));
        }
        let account = &mut self.accounts[ix as usize];
        if released.reset_hwm {
            let out_of_range = (RefusalCode::ValueOutOfRange, Some("reset_hwm"), "the equity leaves its type");
            account.hwm = valuation(account, &self.shared.symbols).ok_or(out_of_range)?;
        }
        for episode in account.episodes.iter_mut().filter(|episode| episode.rule == rule && episode.subject == Subject::Account) {
            episode.latched = false;
        }
        account.due = true;
        turn.touch(ix);
        Ok(())
    }
}

impl Shared {
    fn order_rules(&mut self) {
        let mut order: Vec<RuleIx> = (0..).zip(&self.rules).filter(|(_, state)| state.is_some()).map(|(place, _)| place).collect();
        order.sort_by_key(|place| self.rule(*place).map(|state| (state.rule.priority, state.rule.id)));
        self.rule_order = order;
    }

    /// The place of a time at which days end.
    fn roll_of(&mut self, roll: DayRoll, at: crate::domain::Millis) -> u32 {
        let place = self.rolls.iter().position(|known| known.roll == roll).unwrap_or_else(|| {
            let next = roll.next_after(at);
            self.rolls.push(Roll { roll, next });
            self.rolls.len() - 1
        });
        u32::try_from(place).unwrap_or(u32::MAX)
    }

    /// How many bars of a series are kept.
    pub(super) fn bars_kept(&self) -> usize {
        let windows = self.rules.iter().flatten().map(|state| state.rule.window as usize + 1);
        windows.max().unwrap_or(0).max(1000)
    }
}

fn refuse_objectionable(rule: &Rule) -> Result<(), Refusal> {
    objection(rule).map_or(Ok(()), |(field, message)| Err((RefusalCode::InvalidRule, Some(field), message)))
}

fn default_currency() -> Currency {
    const USD: &[u8] = b"USD";
    Currency::parse(USD).unwrap_or_else(|| unreachable!("USD is an identifier"))
}

fn set<T: Copy>(value: &mut T, patch: Patch<T>, built_in: T) {
    match patch {
        Patch::Keep => {}
        Patch::Clear => *value = built_in,
        Patch::Set(given) => *value = given,
    }
}

fn merge<T: Clone>(own: &mut Patch<T>, given: &Patch<T>) {
    match given {
        Patch::Keep => {}
        Patch::Clear | Patch::Set(_) => *own = given.clone(),
    }
}

fn merge_limits(own: &mut Limits, given: &Limits) {
    merge(&mut own.max_order_qty, &given.max_order_qty);
    merge(&mut own.max_order_value, &given.max_order_value);
    merge(&mut own.price_collar_percent, &given.price_collar_percent);
    merge(&mut own.price_collar_mode, &given.price_collar_mode);
    merge(&mut own.max_price_age_ms, &given.max_price_age_ms);
    merge(&mut own.order_rate_limit, &given.order_rate_limit);
    merge(&mut own.order_rate_window_ms, &given.order_rate_window_ms);
    merge(&mut own.duplicate_window_ms, &given.duplicate_window_ms);
    merge(&mut own.self_trade_prevention, &given.self_trade_prevention);
    merge(&mut own.notify, &given.notify);
}
