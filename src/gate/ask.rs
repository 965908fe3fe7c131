//! Questions: what the gate would decide of an order, and how large an order may be.
//!
//! Invariant: nothing changes, and the answer comes from the code that decides (`gate/judge.rs`).
//! Deliberately absent: the move of time that a record brings; the books are as the last record left
//! them, and only the ages of prices and the windows of orders count from the time that is given.

use std::borrow::Cow;

use super::Gate;
use super::decide::Wanted;
use super::intent;
use super::judge::{Court, Lists, Rules};
use super::uses::{RuleUse, Subjects};
use crate::book::{AccountIx, NONE, OrderContent, RuleIx, StrategyIx, SymbolIx};
use crate::domain::{
    AccountId, Action, Field, Id, Millis, Money, OrderIntent, OrderPrices, OrderType, Price, Qty, Reason, ReasonCode, Rule, RuleId, Side,
    Size, Symbol, TimeInForce, Verdict,
};
use crate::risk::correlation::{Correlations, Pairs};
use crate::risk::evaluate::Findings;
use crate::risk::rule::{RuleState, Scope};

/// A place that nothing has: of names that no record mentioned.
const NOWHERE: u32 = NONE - 1;

/// Which rules a question is asked of.
#[derive(Clone, Copy, Debug)]
pub enum Asking<'a> {
    /// All, as they are.
    All,
    /// One of them alone.
    Only(RuleId),
    /// All, with this one in place of the one with its id, or besides them.
    With(&'a Rule),
    /// This one alone, whether it is there or not.
    OnlyWith(&'a Rule),
}

/// The rules that a question is asked of, in the order of listing.
#[derive(Clone, Debug)]
pub struct RuleList<'a> {
    list: Vec<(RuleIx, Cow<'a, RuleState>)>,
}

impl RuleList<'_> {
    /// Leaves only some of them.
    pub fn retain(&mut self, wanted: impl Fn(&Rule) -> bool) {
        self.list.retain(|(_, state)| wanted(&state.rule));
    }
}

impl Rules for RuleList<'_> {
    fn in_order(&self) -> impl Iterator<Item = (RuleIx, &RuleState)> {
        self.list.iter().map(|(place, state)| (*place, &**state))
    }

    fn rule(&self, rule: RuleIx) -> Option<&RuleState> {
        self.list.iter().find(|(place, _)| *place == rule).map(|(_, state)| &**state)
    }
}

/// What would be decided.
#[derive(Clone, Debug)]
pub struct Opinion {
    /// The answer.
    pub verdict: Verdict,
    /// What was asked for; `None` while a `notional` has no price.
    pub requested_qty: Option<Qty>,
    /// What would be approved.
    pub approved_qty: Qty,
    /// Why.
    pub reasons: Vec<Reason>,
    /// The equity; `None` when a mark is missing or it leaves its type.
    pub equity: Option<Money>,
    /// What every rule that covers the order measured, breached or not.
    pub rules: Vec<RuleUse>,
}

/// How large an order may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Headroom {
    /// The largest quantity that is allowed in full; `None` when no limit does.
    pub qty: Option<Qty>,
    /// Why one lot more is not. Without a limit it is `VALUE_OUT_OF_RANGE`, or nothing up to the largest quantity that there is.
    pub binds: Option<Reason>,
}

impl Gate {
    /// The rules that a question is asked of; `None` when there is no such rule.
    #[must_use]
    pub fn rule_list(&self, asking: Asking<'_>) -> Option<RuleList<'_>> {
        let all = || self.shared.ordered_rules().map(|(place, state)| (place, Cow::Borrowed(state)));
        let mut list: Vec<_> = match asking {
            Asking::All => all().collect(),
            Asking::Only(id) => vec![all().find(|(_, state)| state.rule.id == id)?],
            Asking::With(rule) => all().filter(|(_, state)| state.rule.id != rule.id).collect(),
            Asking::OnlyWith(_) => Vec::new(),
        };
        if let Asking::With(rule) | Asking::OnlyWith(rule) = asking {
            let known = self.shared.ordered_rules().find(|(_, state)| state.rule.id == rule.id).map(|(place, _)| place);
            let place = known.unwrap_or_else(|| RuleIx::try_from(self.shared.rules.len()).unwrap_or(NOWHERE));
            list.push((place, Cow::Owned(RuleState { rule: rule.clone(), scope: self.scope_as_named(rule), fresh: true })));
            list.sort_by_key(|(_, state)| (state.rule.priority, state.rule.id));
        }
        Some(RuleList { list })
    }

    /// The scope of a rule that nobody wrote: names that are not known match nothing.
    fn scope_as_named(&self, rule: &Rule) -> Scope {
        let scope = &rule.scope;
        let symbol = |symbol: &Symbol| self.index.symbol(symbol, &self.shared.symbols).unwrap_or(NOWHERE);
        let sector = |sector: &Id| self.shared.sectors.iter().position(|other| other == sector).map_or(NOWHERE, place);
        let mut symbols: Vec<_> = scope.symbols.iter().map(symbol).collect();
        let mut sectors: Vec<_> = scope.sectors.iter().map(sector).collect();
        symbols.sort_unstable();
        sectors.sort_unstable();
        let strategy = |strategy| self.index.strategy(&strategy, &self.shared.strategies).unwrap_or(NOWHERE);
        Scope {
            account: scope.account.map(|account| self.index.account(&account, &self.accounts)),
            strategy: scope.strategy.map(strategy),
            symbols,
            sectors,
        }
    }

    /// What would be decided of a new order if it came at `at` under an id that is free; `None` of an
    /// account that was never opened.
    #[must_use]
    pub fn opinion(&self, order: &OrderIntent, rules: &RuleList<'_>, at: Millis) -> Option<Opinion> {
        let ix = self.index.account(&order.account, &self.accounts)?;
        let account = &self.accounts[ix as usize];
        let equity = crate::risk::figures::equity(account, &self.shared.symbols).ok();
        let blocked = |code, field| Opinion {
            verdict: Verdict::Block,
            requested_qty: asked_qty(order.size),
            approved_qty: Qty::ZERO,
            reasons: vec![Reason { field: Some(field), ..Reason::of(code) }],
            equity,
            rules: Vec::new(),
        };
        if account.closed {
            return Some(blocked(ReasonCode::UnknownAccount, Field::Account));
        }
        let Some(symbol) = self.index.symbol(&order.symbol, &self.shared.symbols) else {
            return Some(blocked(ReasonCode::UnknownInstrument, Field::Symbol));
        };
        let wanted = self.shared.wanted(ix, &intent::content(order, symbol, self.strategy_as_named(order)));
        let mut probe = Probe::new(self, rules, at, true);
        let (verdict, approved) = probe.judge(&wanted);
        let subjects = Subjects { shared: &self.shared };
        let rules = probe.findings.list.iter().filter_map(|finding| subjects.of_finding(rules.rule(finding.rule)?, finding)).collect();
        Some(Opinion {
            verdict,
            requested_qty: wanted.qty.map(Qty),
            approved_qty: Qty(approved),
            reasons: std::mem::take(&mut probe.reasons),
            equity,
            rules,
        })
    }

    fn strategy_as_named(&self, order: &OrderIntent) -> StrategyIx {
        order.strategy.map_or(NONE, |strategy| self.index.strategy(&strategy, &self.shared.strategies).unwrap_or(NOWHERE))
    }

    /// The largest order that would be allowed in full at `at`: a limit order at `price`, or a market
    /// order. Orders up to it that are multiples of the lot are allowed too. `None` of an account that
    /// was never opened. `pairs` has the correlations that were told before, and gets the others.
    #[must_use]
    pub fn headroom(
        &self,
        account: AccountId,
        (symbol, side): (Symbol, Side),
        price: Option<Price>,
        rules: &RuleList<'_>,
        (at, pairs): (Millis, &mut Pairs),
    ) -> Option<Headroom> {
        let ix = self.index.account(&account, &self.accounts)?;
        let refused = |code, field| Headroom { qty: Some(Qty::ZERO), binds: Some(Reason { field: Some(field), ..Reason::of(code) }) };
        if self.accounts[ix as usize].closed {
            return Some(refused(ReasonCode::UnknownAccount, Field::Account));
        }
        let Some(symbol) = self.index.symbol(&symbol, &self.shared.symbols) else {
            return Some(refused(ReasonCode::UnknownInstrument, Field::Symbol));
        };
        let mut probe = Probe::new(self, rules, at, false);
        probe.correlations = Correlations::knowing(std::mem::take(pairs));
        let found = probe.largest(self.probe_order(ix, symbol, side, price));
        *pairs = probe.correlations.into_told();
        Some(found)
    }

    fn probe_order(&self, ix: AccountIx, symbol: SymbolIx, side: Side, price: Option<Price>) -> Wanted {
        let content = OrderContent {
            client_order_id: self.accounts[ix as usize].id,
            symbol,
            strategy: NONE,
            side,
            order_type: if price.is_some() { OrderType::Limit } else { OrderType::Market },
            size: Size::Qty(Qty::ONE),
            prices: OrderPrices { limit: price, ..OrderPrices::default() },
            time_in_force: TimeInForce::Day,
            reduce_only: false,
            all_or_none: false,
            extended_hours: false,
        };
        self.shared.wanted(ix, &content)
    }
}

fn place(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(NOWHERE)
}

const fn asked_qty(size: Size) -> Option<Qty> {
    match size {
        Size::Qty(qty) => Some(qty),
        Size::Notional(_) => None,
        Size::Unclear(qty, _) => qty,
    }
}

/// Orders that are tried, one after the other, with lists of their own.
struct Probe<'a> {
    gate: &'a Gate,
    rules: &'a RuleList<'a>,
    at: Millis,
    duplicates: bool,
    findings: Findings,
    correlations: Correlations,
    exempt: Vec<Reason>,
    reasons: Vec<Reason>,
    judged: bool,
}

impl<'a> Probe<'a> {
    fn new(gate: &'a Gate, rules: &'a RuleList<'a>, at: Millis, duplicates: bool) -> Self {
        Self {
            gate,
            rules,
            at: at.max(gate.at()),
            duplicates,
            findings: Findings::default(),
            correlations: Correlations::default(),
            exempt: Vec::new(),
            reasons: Vec::new(),
            judged: false,
        }
    }

    /// The verdict and the approved quantity; why is in the reasons.
    fn judge(&mut self, wanted: &Wanted) -> (Verdict, i64) {
        self.reasons.clear();
        let account = &self.gate.accounts[wanted.ix as usize];
        let court = Court { shared: &self.gate.shared, account, rules: self.rules, at: self.at, duplicates: self.duplicates };
        let mut lists = Lists {
            findings: &mut self.findings,
            correlations: &mut self.correlations,
            exempt: &mut self.exempt,
            reasons: &mut self.reasons,
        };
        let outcome = court.judge(wanted, None, &mut lists);
        self.judged = outcome.judged;
        (outcome.verdict, outcome.approved)
    }

    fn allows(&mut self, order: &Wanted, qty: i64) -> bool {
        self.judge(&Wanted { qty: Some(qty), ..*order }).0 == Verdict::Allow
    }

    /// What strictly reduces always passes; beyond it, a larger order is never allowed where a smaller
    /// one is not, so halving finds the largest.
    fn largest(&mut self, order: Wanted) -> Headroom {
        let gate = self.gate;
        let position = gate.accounts[order.ix as usize].position(order.symbol);
        let reducible = position.map_or(0, |position| position.reducible(order.side, position.leaves(order.side)));
        let instrument = gate.shared.symbols.get(order.symbol as usize).and_then(|state| state.instrument);
        let lot = instrument.map_or(Qty::ONE, |instrument| instrument.lot).0.max(1);
        let least = if reducible > 0 && self.allows(&order, reducible) { reducible } else { 0 };
        let (mut low, mut high) = (least / lot, i64::MAX / lot);
        // Most limits lie near: doubling reaches them sooner than halving all that there is.
        let mut step = 1_i64;
        while low < high {
            let next = low.saturating_add(step).min(high);
            if self.allows(&order, next.saturating_mul(lot)) {
                (low, step) = (next, step.saturating_mul(8));
            } else {
                high = next - 1;
                break;
            }
        }
        while low < high {
            let middle = high - (high - low) / 2;
            if self.allows(&order, middle * lot) { low = middle } else { high = middle - 1 }
        }
        self.headroom(&order, (low * lot).max(least), low.saturating_add(1).checked_mul(lot))
    }

    fn headroom(&mut self, order: &Wanted, qty: i64, more: Option<i64>) -> Headroom {
        let Some(more) = more else { return Headroom { qty: None, binds: None } };
        self.judge(&Wanted { qty: Some(more), ..*order });
        let binds = if self.judged { self.reasons.iter().find(|reason| bites(reason)) } else { self.reasons.last() };
        match binds {
            // Only what can be held of a quantity or a value ends it.
            Some(reason) if reason.code == ReasonCode::ValueOutOfRange => Headroom { qty: None, binds: Some(reason.clone()) },
            binds => Headroom { qty: Some(Qty(qty)), binds: binds.cloned() },
        }
    }
}

/// Whether a rule's reason takes something from an order.
fn bites(reason: &Reason) -> bool {
    let alerts = reason.rule.is_some_and(|rule| rule.action == Action::Alert);
    reason.code == ReasonCode::RuleBreach && !reason.observed && !reason.exempt && !alerts
}
