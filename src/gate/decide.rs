//! One order decided: judged, its approved quantity reserved, and what it raises.
//!
//! Invariant: what is approved is reserved in the same step as the decision.

use super::Gate;
use super::desk::Desk;
use super::intent::ids_of;
use super::judge::{Court, Lists, Outcome};
use super::turn::Turn;
use crate::book::{AccountIx, Content, Entry, Orders, Position, StrategyIx, SymbolIx};
use crate::domain::{ClientOrderId, Field, IntentKind, Millis, OrderPrices, OrderType, Qty, ReasonCode, Side, Verdict};
use crate::risk::check::Amends;
use crate::risk::evaluate::{Finding, Findings};

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

impl Gate {
    /// Checks and judges an order that was found to be new, and says what came of it.
    pub(super) fn decide(&mut self, wanted: &Wanted, content: Content, age: Option<Millis>, turn: &mut Turn<'_>) {
        let first = turn.out.reasons.len();
        let mut findings = std::mem::take(&mut self.findings);
        let account = &self.accounts[wanted.ix as usize];
        let court = Court { shared: &self.shared, account, rules: &self.shared, at: turn.at, duplicates: true };
        let mut lists = Lists {
            findings: &mut findings,
            correlations: &mut self.correlations,
            exempt: &mut self.exempt,
            reasons: &mut turn.out.reasons,
        };
        let outcome = court.judge(wanted, age, &mut lists);
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
