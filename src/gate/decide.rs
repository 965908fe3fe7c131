//! One order judged: checks, rules, the approved quantity, its reservation, what it raises.
//!
//! Invariant: what is approved is reserved in the same step as the decision.

use super::Gate;
use super::desk::Desk;
use super::intent::ids_of;
use super::turn::Turn;
use crate::book::{AccountIx, Content, Entry, Leg, Orders, Position, StrategyIx, SymbolIx};
use crate::domain::{
    ClientOrderId, Field, IntentKind, Millis, Mode, Money, OrderPrices, OrderType, Qty, Reason, ReasonCode, Side, TradingState, Verdict,
};
use crate::market::symbol::SymbolState;
use crate::risk::action;
use crate::risk::check::{self, Amends, Asked, EffectiveLimits};
use crate::risk::evaluate::{Finding, Findings, Proposal};
use crate::risk::figures::Ask;

/// An order as it would work if it were allowed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) ix: AccountIx,
    pub(super) symbol: SymbolIx,
    pub(super) strategy: StrategyIx,
    pub(super) side: Side,
    pub(super) order_type: OrderType,
    pub(super) prices: OrderPrices,
    /// The total quantity; `None` while a `notional` has no price.
    pub(super) qty: Option<i64>,
    pub(super) size_objection: Option<Field>,
    /// The quantity of a `notional` leaves its type.
    pub(super) overflows: bool,
    pub(super) reduce_only: bool,
    pub(super) resizable: bool,
    /// The slot of the order that it replaces, and what is filled of that.
    pub(super) replaces: Option<(u32, i64)>,
    pub(super) amends: Option<Amends>,
    /// An amendment that changes nothing but the quantity, downwards.
    pub(super) lowers: bool,
}

/// What the checks and rules left of it.
struct Outcome {
    verdict: Verdict,
    approved: i64,
    equity: Option<Money>,
    /// The rules were asked, and may be told.
    judged: bool,
    reducing: bool,
}

impl Gate {
    /// Checks and judges an order that was found to be new, and says what came of it.
    pub(super) fn decide(&mut self, wanted: &Wanted, content: Content, age: Option<Millis>, turn: &mut Turn<'_>) {
        let first = turn.out.reasons.len();
        let mut findings = std::mem::take(&mut self.findings);
        let outcome = self.judge(wanted, age, &mut findings, turn);
        let mut entry = Entry::new(content, turn.at, turn.seq, turn.source);
        (entry.symbol, entry.side) = (Some(wanted.symbol), Some(wanted.side));
        (entry.verdict, entry.requested_qty) = (outcome.verdict, wanted.qty.map(Qty));
        (entry.approved_qty, entry.equity) = (Qty(outcome.approved), outcome.equity);
        let reasons = first..turn.out.reasons.len();
        self.publish_and_remember(wanted.ix, entry, reasons, turn, |orders, positions, slot| {
            if outcome.approved > 0 {
                reserve(orders, positions, wanted, slot, outcome.approved);
            }
        });
        self.follow_intent(wanted, &content, &outcome, &findings, turn);
        self.findings = findings;
    }

    fn judge(&mut self, wanted: &Wanted, age: Option<Millis>, findings: &mut Findings, turn: &mut Turn<'_>) -> Outcome {
        let account = &self.accounts[wanted.ix as usize];
        let (shared, symbols) = (&self.shared, &self.shared.symbols);
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
            Some(_) => findings.evaluate(&proposal, shared.ordered_rules(), &mut self.correlations),
            None => findings.clear(),
        }
        let asked = asked(self.place_of(wanted), wanted, &proposal, (reducing, findings.blind, age), turn.at);
        if let Err(reason) = check::run(&asked, &mut self.exempt) {
            self.exempt.clear();
            turn.out.reasons.push(*reason);
            return nothing(equity);
        }
        let added = leg.qty - wanted.replaces.and_then(|(slot, _)| account.orders.get(slot)).map_or(0, Entry::leaves);
        if !reducing && (findings.overflow || !Orders::fits(&position, wanted.side, added)) {
            self.exempt.clear();
            turn.out.reasons.push(Reason::of(ReasonCode::ValueOutOfRange));
            return nothing(equity);
        }
        turn.out.reasons.append(&mut self.exempt);
        let approved = self.approve(wanted, &proposal, findings, reducing, turn);
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
    fn approve(&self, wanted: &Wanted, proposal: &Proposal<'_>, findings: &Findings, reducing: bool, turn: &mut Turn<'_>) -> i64 {
        let instrument = self.shared.symbols.get(wanted.symbol as usize).and_then(|state| state.instrument);
        let lot = instrument.map_or(Qty::ONE, |instrument| instrument.lot);
        let mut approved = proposal.leg.qty;
        for finding in &findings.list {
            let Some(state) = self.shared.rule(finding.rule) else { continue };
            let observed = state.rule.mode == Mode::Observe;
            let breach = finding.breach || finding.latched;
            if breach {
                let Some(measure) = finding.measure else { continue };
                turn.out.reasons.push(Reason {
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
                turn.out.reasons.push(Reason { rule: Some(state.cited()), observed, ..Reason::of(ReasonCode::CorrelationUnavailable) });
            }
        }
        approved
    }

    /// What the gate knows of the place that an order would take.
    fn place_of(&self, wanted: &Wanted) -> Place {
        let account = &self.accounts[wanted.ix as usize];
        let own = account.position(wanted.symbol).map_or(account.state, |position| account.state.max(position.state));
        Place {
            limits: EffectiveLimits::of(&account.limits, &self.shared.limits),
            trading: own.max(self.shared.strictest(wanted.ix, wanted.strategy, wanted.symbol)),
            restricted: self.shared.restricts(account.id, wanted.symbol),
            max_age: self.shared.settings.max_intent_age_ms,
        }
    }

    /// What a decision raises beside itself: rejections, commands taken over, episodes.
    fn follow_intent(&mut self, wanted: &Wanted, content: &Content, outcome: &Outcome, findings: &Findings, turn: &mut Turn<'_>) {
        let blocked = outcome.verdict == Verdict::Block;
        let account = &mut self.accounts[wanted.ix as usize];
        let mut desk = Desk { shared: &self.shared, account, ix: wanted.ix, turn };
        let code = desk.turn.out.reasons.last().filter(|_| blocked).map(|reason| reason.code);
        let uses_id = code != Some(ReasonCode::ValueOutOfRange);
        if content.kind() == IntentKind::Order && uses_id {
            desk.answer_command(content.id(), wanted.symbol, wanted.side, blocked);
        }
        if blocked {
            let code = code.filter(|_| !outcome.judged).unwrap_or(ReasonCode::RuleBreach);
            self.say_rejected(wanted.ix, ids_of(content).0, code, turn);
        }
        if !outcome.judged || outcome.reducing {
            return;
        }
        let mut desk = Desk { shared: &self.shared, account: &mut self.accounts[wanted.ix as usize], ix: wanted.ix, turn };
        for finding in &findings.list {
            desk.tell(finding);
        }
    }
}

impl Desk<'_, '_> {
    /// Tells the episodes what a rule found of an intent that does not strictly reduce.
    fn tell(&mut self, finding: &Finding) {
        let Some((state, measure)) = self.shared.rule(finding.rule).filter(|state| state.enforced()).zip(finding.measure.as_ref()) else {
            return;
        };
        if state.judged_after() {
            let at = self.turn.at;
            self.judge_asked(finding.rule, finding.subject, measure, finding.stands, at);
        } else {
            self.judge_standing(finding.rule, finding.subject, measure);
        }
    }

    /// An intent with a command's id takes it over, or, if it is blocked, counts as its rejection.
    fn answer_command(&mut self, id: &ClientOrderId, symbol: SymbolIx, side: Side, blocked: bool) {
        use crate::book::CommandState::{Ended, Executing, TakenOver, Unanswered};
        let Some(place) = self.command_named(id) else { return };
        let command = &mut self.account.commands[place];
        match command.state {
            TakenOver | Ended => {}
            Unanswered | Executing if blocked => self.command_rejected(place),
            Unanswered | Executing => {
                let carries_out = command.symbol == symbol && command.side == side;
                command.state = if carries_out { TakenOver } else { Ended };
                self.turn.touch(self.ix);
            }
        }
    }
}

/// What the gate knows of the place that an order would take.
struct Place {
    limits: EffectiveLimits,
    trading: TradingState,
    restricted: bool,
    max_age: Millis,
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

fn reserve(orders: &mut Orders, positions: &mut [Position], wanted: &Wanted, slot: u32, approved: i64) {
    let Some(position) = positions.iter_mut().find(|position| position.symbol == wanted.symbol) else { return };
    match wanted.replaces {
        Some((replaced, _)) => {
            orders.release(position, replaced);
            orders.reserve(position, replaced, approved, wanted.prices);
        }
        None => orders.reserve(position, slot, approved, wanted.prices),
    }
}
