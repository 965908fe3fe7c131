//! One order judged: checks, rules, and what they leave of it.
//!
//! Invariant: nothing changes but the lists that the caller lends, so to ask what would be decided
//! (`gate/ask.rs`) runs the same code as to decide. Deliberately absent: reservations, episodes, ids.

use super::decide::Wanted;
use super::shared::Shared;
use crate::book::{Account, Entry, Leg, Orders, RuleIx};
use crate::domain::{Millis, Mode, Money, Qty, Reason, ReasonCode, TradingState, Verdict};
use crate::market::symbol::SymbolState;
use crate::risk::action;
use crate::risk::check::{self, Asked, EffectiveLimits};
use crate::risk::correlation::Correlations;
use crate::risk::evaluate::{Findings, Proposal};
use crate::risk::figures::Ask;
use crate::risk::rule::RuleState;

/// The rules that an order is held against.
pub(super) trait Rules {
    /// All of them, in the order of listing.
    fn in_order(&self) -> impl Iterator<Item = (RuleIx, &RuleState)>;

    /// The one in a place.
    fn rule(&self, rule: RuleIx) -> Option<&RuleState>;
}

impl Rules for Shared {
    fn in_order(&self) -> impl Iterator<Item = (RuleIx, &RuleState)> {
        self.ordered_rules()
    }

    fn rule(&self, rule: RuleIx) -> Option<&RuleState> {
        Self::rule(self, rule)
    }
}

/// What the checks and rules left of an order.
pub(super) struct Outcome {
    pub(super) verdict: Verdict,
    pub(super) approved: i64,
    pub(super) equity: Option<Money>,
    /// The rules were asked, and may be told.
    pub(super) judged: bool,
    pub(super) reducing: bool,
}

/// Where an order is judged: the book and the market, which are only read.
pub(super) struct Court<'a, R> {
    pub(super) shared: &'a Shared,
    pub(super) account: &'a Account,
    pub(super) rules: &'a R,
    pub(super) at: Millis,
    /// Equal orders shortly after each other are refused, where the account says so.
    pub(super) duplicates: bool,
}

/// What a judgement is written on. `exempt` is empty before and after.
pub(super) struct Lists<'a> {
    pub(super) findings: &'a mut Findings,
    pub(super) correlations: &'a mut Correlations,
    pub(super) exempt: &'a mut Vec<Reason>,
    pub(super) reasons: &'a mut Vec<Reason>,
}

/// What the gate knows of the place that an order would take.
struct Place {
    limits: EffectiveLimits,
    trading: TradingState,
    restricted: bool,
    max_age: Millis,
}

impl<R: Rules> Court<'_, R> {
    /// Judges an order; why goes to the reasons.
    pub(super) fn judge(&self, wanted: &Wanted, age: Option<Millis>, lists: &mut Lists<'_>) -> Outcome {
        let (account, symbols) = (self.account, &self.shared.symbols);
        let nothing = |equity| Outcome { verdict: Verdict::Block, approved: 0, equity, judged: false, reducing: false };
        let Some(ask) = Ask::new(account, symbols, wanted.symbol, wanted.replaces.map(|(slot, _)| slot)) else { return nothing(None) };
        let equity = ask.equity().ok();
        let filled = wanted.replaces.map_or(0, |(_, filled)| filled);
        let leg_qty = wanted.qty.and_then(|qty| qty.checked_sub(filled)).filter(|qty| *qty > 0);
        let position = *ask.position();
        let reducing = leg_qty.is_some_and(|qty| wanted.lowers || qty <= position.reducible(wanted.side, ask.working(wanted.side)));
        let leg = Leg { side: wanted.side, qty: leg_qty.unwrap_or(0), price_cap: wanted.prices.limit.max(wanted.prices.stop) };
        let proposal = Proposal {
            account,
            ix: wanted.ix,
            market: symbols,
            ask: &ask,
            symbol: wanted.symbol,
            strategy: wanted.strategy,
            leg,
            watched: symbols.get(wanted.symbol as usize).and_then(|state| super::valuation::watched(&position, state)),
        };
        match leg_qty {
            Some(_) => lists.findings.evaluate(&proposal, self.rules.in_order(), lists.correlations),
            None => lists.findings.clear(),
        }
        let asked = asked(self.place_of(wanted), wanted, &proposal, (reducing, lists.findings.blind, age), self.at);
        if let Err(reason) = check::run(&asked, lists.exempt) {
            lists.exempt.clear();
            lists.reasons.push(*reason);
            return nothing(equity);
        }
        let added = leg.qty - wanted.replaces.and_then(|(slot, _)| account.orders.get(slot)).map_or(0, Entry::leaves);
        if !reducing && (lists.findings.overflow || !Orders::fits(&position, wanted.side, added)) {
            lists.exempt.clear();
            lists.reasons.push(Reason::of(ReasonCode::ValueOutOfRange));
            return nothing(equity);
        }
        lists.reasons.append(lists.exempt);
        let approved = self.approve(wanted, &proposal, reducing, lists);
        let total = wanted.qty.unwrap_or(0);
        let verdict = match approved {
            0 => Verdict::Block,
            part if part == leg.qty => Verdict::Allow,
            _ => Verdict::AllowReduced,
        };
        let approved = if verdict == Verdict::Allow { total } else { approved };
        Outcome { verdict, approved, equity, judged: true, reducing }
    }

    /// Lists what the rules found and returns what they leave of the leg.
    fn approve(&self, wanted: &Wanted, proposal: &Proposal<'_>, reducing: bool, lists: &mut Lists<'_>) -> i64 {
        let instrument = self.shared.symbols.get(wanted.symbol as usize).and_then(|state| state.instrument);
        let lot = instrument.map_or(Qty::ONE, |instrument| instrument.lot);
        let mut approved = proposal.leg.qty;
        for finding in &lists.findings.list {
            let Some(state) = self.rules.rule(finding.rule) else { continue };
            let observed = state.rule.mode == Mode::Observe;
            let breach = finding.breach || finding.latched;
            if breach {
                let Some(measure) = finding.measure else { continue };
                lists.reasons.push(Reason {
                    rule: Some(state.cited()),
                    current: measure.current.figure(),
                    limit: measure.limit.figure(),
                    utilization: measure.utilization.figure(),
                    exempt: reducing,
                    observed,
                    latched: finding.latched,
                    ..Reason::of(ReasonCode::RuleBreach)
                });
                if !reducing && !observed {
                    approved = approved.min(action::approved(state, finding, proposal, lot, wanted.resizable));
                }
            }
            if finding.missing_pair && !reducing {
                lists.reasons.push(Reason { rule: Some(state.cited()), observed, ..Reason::of(ReasonCode::CorrelationUnavailable) });
            }
        }
        approved
    }

    fn place_of(&self, wanted: &Wanted) -> Place {
        let account = self.account;
        let own = account.position(wanted.symbol).map_or(account.state, |position| account.state.max(position.state));
        let mut limits = EffectiveLimits::of(&account.limits, &self.shared.limits);
        if !self.duplicates {
            limits.duplicate_window_ms = None;
        }
        Place {
            limits,
            trading: own.max(self.shared.strictest(wanted.ix, wanted.strategy, wanted.symbol)),
            restricted: self.shared.restricts(account.id, wanted.symbol),
            max_age: self.shared.settings.max_intent_age_ms,
        }
    }
}

fn asked<'a>(
    place: Place,
    wanted: &Wanted,
    proposal: &'a Proposal<'_>,
    (reducing, blind, age): (bool, bool, Option<Millis>),
    at: Millis,
) -> Asked<'a> {
    Asked {
        account: proposal.account,
        currency: proposal.account.currency,
        state: proposal.market.get(wanted.symbol as usize).filter(|state: &&SymbolState| state.instrument.is_some()),
        position: proposal.ask.position(),
        limits: place.limits,
        side: wanted.side,
        order_type: wanted.order_type,
        prices: wanted.prices,
        qty: wanted.qty,
        size_objection: wanted.size_objection,
        overflows: wanted.overflows,
        reducing,
        reduce_only: wanted.reduce_only,
        amends: wanted.amends,
        age,
        max_age: place.max_age,
        trading: place.trading,
        restricted: place.restricted,
        rules_are_blind: blind,
        at,
    }
}
