//! All rules that cover an intent, evaluated; none short-circuits another (SEMANTICS sections 5 and 6).

use super::correlation::Correlations;
use super::figures::{Ask, Figures};
use super::measure::Measure;
use super::rule::RuleState;
use super::{rules, stop};
use crate::book::{Account, AccountIx, Blind, Known, Leg, RuleIx, StrategyIx, Subject, SymbolIx};
use crate::domain::{Action, RuleType, Side};
use crate::market::symbol::SymbolState;

/// What an intent is, to the rules.
#[derive(Clone, Debug)]
pub struct Proposal<'a> {
    /// Its account.
    pub account: &'a Account,
    /// The account's place.
    pub ix: AccountIx,
    /// The market.
    pub market: &'a [SymbolState],
    /// Its book.
    pub ask: &'a Ask<'a>,
    /// Its symbol.
    pub symbol: SymbolIx,
    /// Its strategy.
    pub strategy: StrategyIx,
    /// What would work of it, at the requested quantity.
    pub leg: Leg,
    /// The position as its stops see it.
    pub watched: Option<stop::Watched>,
}

/// What one rule said.
#[derive(Clone, Copy, Debug)]
pub struct Finding {
    /// The rule.
    pub rule: RuleIx,
    /// What its episodes are about.
    pub subject: Subject,
    /// What it measured; `None` when only a note is left to make.
    pub measure: Option<Measure>,
    /// It breaches.
    pub breach: bool,
    /// It breached before, and stays so.
    pub latched: bool,
    /// The book breaches without the intent.
    pub stands: bool,
    /// A pair's correlation is not available.
    pub missing_pair: bool,
}

/// What all rules said.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// One for each rule that could be evaluated, in the order of listing.
    pub list: Vec<Finding>,
    /// An enforced rule with another action than alert needs a mark that is missing.
    pub blind: bool,
    /// A result of an enforced rule left its type.
    pub overflow: bool,
}

impl Findings {
    /// Empties it and keeps its memory.
    pub fn clear(&mut self) {
        self.list.clear();
        (self.blind, self.overflow) = (false, false);
    }

    /// Evaluates all active rules that cover the proposal.
    pub fn evaluate<'a>(
        &mut self,
        proposal: &Proposal<'_>,
        rules: impl Iterator<Item = (RuleIx, &'a RuleState)>,
        correlations: &mut Correlations,
    ) {
        self.clear();
        let Some(sector) = proposal.market.get(proposal.symbol as usize).map(SymbolState::sector) else { return };
        let after = proposal.ask.after(proposal.leg);
        for (rule, state) in rules {
            if !state.rule.active || !state.scope.covers_intent(proposal.ix, proposal.strategy, proposal.symbol, sector) {
                continue;
            }
            let subject = subject_of(state.rule.rule_type, proposal.symbol, sector);
            let mut finding = Finding { rule, subject, measure: None, breach: false, latched: false, stands: false, missing_pair: false };
            match measure(&mut finding, state, proposal, &after, correlations) {
                Ok(measure) => finding.measure = measure,
                Err(Blind::Missing) => self.blind |= state.enforced() && state.rule.action != Action::Alert,
                Err(Blind::Overflow) => self.overflow |= state.enforced(),
            }
            if let Some(measure) = finding.measure {
                finding.breach = measure.breaches();
                finding.latched = state.enforced() && proposal.account.episode(rule, subject).is_some_and(|episode| episode.latched);
                if finding.breach && state.closes() && state.judged_after() {
                    finding.stands = stands(state, &finding, proposal, correlations);
                }
            }
            if finding.measure.is_some() || finding.missing_pair {
                self.list.push(finding);
            }
        }
    }
}

fn subject_of(rule_type: RuleType, symbol: SymbolIx, sector: u32) -> Subject {
    match rule_type {
        RuleType::MaxPositionSize | RuleType::MaxCorrelation | RuleType::StopLoss | RuleType::TakeProfit => Subject::Symbol(symbol),
        RuleType::SectorLimit => Subject::Sector(sector),
        RuleType::MaxDailyLoss | RuleType::MaxDrawdown | RuleType::MaxLeverage | RuleType::PositionLimit => Subject::Account,
    }
}

fn measure(
    finding: &mut Finding,
    state: &RuleState,
    proposal: &Proposal<'_>,
    after: &Figures,
    correlations: &mut Correlations,
) -> Known<Option<Measure>> {
    let rule = &state.rule;
    match rule.rule_type {
        RuleType::MaxPositionSize | RuleType::MaxLeverage | RuleType::PositionLimit | RuleType::SectorLimit => {
            rules::judged_after(rule, after).map(Some)
        }
        RuleType::MaxDailyLoss => rules::daily_loss(rule, after.equity?, proposal.account.sod, proposal.account.flows).map(Some),
        RuleType::MaxDrawdown => rules::drawdown(rule, after.equity?, proposal.account.hwm).map(Some),
        RuleType::MaxCorrelation => {
            let worst = worst_pair(finding.rule, state, proposal, proposal.leg.side, correlations);
            finding.missing_pair = worst.missing;
            let blocks = worst.missing && rule.on_missing == crate::domain::OnMissing::Block;
            Ok(match worst.rho.map(|rho| rules::correlation(rule, rho)) {
                Some(measure) if measure.breaches() || !blocks => Some(measure),
                _ => blocks.then(|| rules::correlation_missing(rule)),
            })
        }
        RuleType::StopLoss | RuleType::TakeProfit => match proposal.watched {
            Some(watched) if (watched.holding.qty > 0) == (proposal.leg.side == Side::Buy) => {
                stop::measure(rule, &watched).map(Some).ok_or(Blind::Missing)
            }
            Some(_) | None => Ok(None),
        },
    }
}

/// Whether the book breaches as it stands; for correlations, with the position held in the symbol.
fn stands(state: &RuleState, finding: &Finding, proposal: &Proposal<'_>, correlations: &mut Correlations) -> bool {
    if state.rule.rule_type != RuleType::MaxCorrelation {
        return rules::judged_after(&state.rule, &proposal.ask.now()).is_ok_and(|measure| measure.as_it_stands().breaches());
    }
    let side = match proposal.ask.position().holding.qty {
        0 => return false,
        1.. => Side::Buy,
        _ => Side::Sell,
    };
    let worst = worst_pair(finding.rule, state, proposal, side, correlations);
    worst.rho.is_some_and(|rho| rules::correlation(&state.rule, rho).breaches())
}

/// The pair that correlates most.
#[derive(Clone, Copy, Debug, Default)]
pub struct WorstPair {
    /// Its correlation, the sides counted, in units of 1e-9.
    pub rho: Option<i64>,
    /// That of some pair is not available.
    pub missing: bool,
}

fn worst_pair(place: RuleIx, state: &RuleState, proposal: &Proposal<'_>, side: Side, correlations: &mut Correlations) -> WorstPair {
    worst_pair_of((proposal.account, proposal.market), proposal.symbol, side, |a, b| correlations.rho(place, &state.rule, a, b))
}

/// The largest correlation of a side of a symbol with what an account holds in others; `rho` gives that of two symbols.
pub fn worst_pair_of<'a>(
    (account, market): (&Account, &'a [SymbolState]),
    symbol: SymbolIx,
    side: Side,
    mut rho: impl FnMut((SymbolIx, &'a SymbolState), (SymbolIx, &'a SymbolState)) -> Option<i64>,
) -> WorstPair {
    let mut worst = WorstPair::default();
    let Some(own) = market.get(symbol as usize) else { return worst };
    for position in account.positions.iter().filter(|position| position.holding.qty != 0 && position.symbol != symbol) {
        let Some(other) = market.get(position.symbol as usize) else { continue };
        match rho((symbol, own), (position.symbol, other)) {
            Some(rho) => {
                let effective = rho * side.sign() * position.holding.qty.signum();
                worst.rho = Some(worst.rho.map_or(effective, |rho| rho.max(effective)));
            }
            None => worst.missing = true,
        }
    }
    worst
}
