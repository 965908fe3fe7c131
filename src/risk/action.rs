//! What breaches leave of an order: the approved quantity (SEMANTICS section 6).
//!
//! Invariant: never more than requested, and never less than 0.

use super::evaluate::{Finding, Proposal};
use super::rule::RuleState;
use super::rules;
use crate::book::Leg;
use crate::domain::{Action, Qty, RuleType, Unit};

/// The quantity that one breach of an enforced rule leaves. `lot` is above 0.
#[must_use]
pub fn approved(state: &RuleState, finding: &Finding, proposal: &Proposal<'_>, lot: Qty, resizable: bool) -> i64 {
    let requested = proposal.leg.qty;
    match state.rule.action {
        Action::Alert => requested,
        Action::Block | Action::ClosePosition | Action::CloseAll => 0,
        Action::ReduceSize if !resizable => 0,
        Action::ReduceSize => {
            let side = proposal.leg.side;
            let reducing = proposal.ask.position().reducible(side, proposal.ask.working(side)).min(requested);
            let sized = matches!(
                (state.rule.rule_type, state.rule.unit),
                (RuleType::MaxPositionSize | RuleType::MaxLeverage, _) | (RuleType::SectorLimit, Unit::Percent | Unit::Dollars)
            );
            if sized && !finding.latched { largest(state, proposal, lot.0.max(1), reducing) } else { reducing }
        }
    }
}

/// The largest multiple of the lot that does not breach, or strictly reduces. A larger order never
/// breaches less, so halving finds it.
fn largest(state: &RuleState, proposal: &Proposal<'_>, lot: i64, reducing: i64) -> i64 {
    let fits = |lots: i64| {
        let qty = lots * lot;
        let figures = proposal.ask.after(Leg { qty, ..proposal.leg });
        qty <= reducing || rules::judged_after(&state.rule, &figures).is_ok_and(|measure| !measure.breaches())
    };
    let (mut low, mut high) = (0, proposal.leg.qty / lot);
    while low < high {
        let middle = high - (high - low) / 2;
        if fits(middle) { low = middle } else { high = middle - 1 }
    }
    low * lot
}
