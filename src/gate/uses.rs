//! How full every rule is of an account's book as it stands (SEMANTICS sections 5 and 9).
//!
//! Invariant: each figure is what the gate measures without an intent; what is not known is said to
//! be so, with the reason, and is never 0. Deliberately absent: any effect of a breach.

use super::ask::RuleList;
use super::judge::Rules;
use super::shared::Shared;
use super::{Gate, valuation};
use crate::book::{Account, Blind, RuleIx, SectorIx, Subject, SymbolIx};
use crate::domain::{AccountId, Figure, Mode, Money, RuleCited, RuleType, Sector, Side, Symbol};
use crate::risk::correlation::Pairs;
use crate::risk::evaluate::{Finding, worst_pair_of};
use crate::risk::figures::{Ask, Figures, equity};
use crate::risk::measure::Measure;
use crate::risk::rule::RuleState;
use crate::risk::{rules, stop};

/// Why a rule has no figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmeasured {
    /// A mark that it needs is missing.
    PriceUnavailable,
    /// A result leaves its type.
    ValueOutOfRange,
    /// Its scope names a strategy: it is evaluated on intents only.
    OnIntentsOnly,
    /// It is not active.
    Inactive,
    /// Nothing that it covers is held, so there is nothing to measure.
    NothingHeld,
    /// Too few common bars.
    CorrelationUnavailable,
}

impl Unmeasured {
    /// A stable name of it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PriceUnavailable => "PRICE_UNAVAILABLE",
            Self::ValueOutOfRange => "VALUE_OUT_OF_RANGE",
            Self::OnIntentsOnly => "ON_INTENTS_ONLY",
            Self::Inactive => "INACTIVE",
            Self::NothingHeld => "NOTHING_HELD",
            Self::CorrelationUnavailable => "CORRELATION_UNAVAILABLE",
        }
    }
}

impl From<Blind> for Unmeasured {
    fn from(blind: Blind) -> Self {
        match blind {
            Blind::Missing => Self::PriceUnavailable,
            Blind::Overflow => Self::ValueOutOfRange,
        }
    }
}

/// One rule about one subject.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleUse {
    /// The rule.
    pub rule: RuleCited,
    /// It only observes.
    pub observed: bool,
    /// The symbol that it is about, if it is about one.
    pub symbol: Option<Symbol>,
    /// The sector, likewise.
    pub sector: Option<Sector>,
    /// What was measured.
    pub current: Figure,
    /// What it is held against.
    pub limit: Figure,
    /// `current / limit`.
    pub utilization: Figure,
    /// It breaches.
    pub breach: bool,
    /// It breached before, and stays so.
    pub latched: bool,
    /// Why there are no figures.
    pub unmeasured: Option<Unmeasured>,
}

/// What subjects are called.
pub(super) struct Subjects<'a> {
    pub(super) shared: &'a Shared,
}

impl Subjects<'_> {
    fn of(&self, state: &RuleState, subject: Subject, measured: Result<Measure, Unmeasured>) -> RuleUse {
        let (symbol, sector) = match subject {
            Subject::Account => (None, None),
            Subject::Symbol(symbol) => (self.shared.symbol_name(symbol), None),
            Subject::Sector(sector) => (None, self.shared.sectors.get(sector as usize).copied()),
        };
        let unknown = (Figure::Unknown, Figure::Unknown, Figure::Unknown, false);
        let (current, limit, utilization, breach) = measured.map_or(unknown, |measure| {
            (measure.current.figure(), measure.limit.figure(), measure.utilization.figure(), measure.breaches())
        });
        RuleUse {
            rule: state.cited(),
            observed: state.rule.mode == Mode::Observe,
            symbol,
            sector,
            current,
            limit,
            utilization,
            breach,
            latched: false,
            unmeasured: measured.err(),
        }
    }

    /// What a rule found of an order; `None` when only a note was left to make.
    pub(super) fn of_finding(&self, state: &RuleState, finding: &Finding) -> Option<RuleUse> {
        let found = self.of(state, finding.subject, Ok(finding.measure?));
        Some(RuleUse { breach: finding.breach, latched: finding.latched, ..found })
    }
}

/// An account's book, looked at symbol by symbol once for all rules.
struct Standing<'a> {
    subjects: Subjects<'a>,
    account: &'a Account,
    equity: Result<Money, Blind>,
    open: Vec<(SymbolIx, SectorIx, Figures)>,
}

impl Gate {
    /// How full the rules are of an account's book as it stands, in the order of listing; the ones that
    /// do not cover the account are left out. `None` of an account that was never opened.
    #[must_use]
    pub fn uses(&self, account: AccountId, rules: &RuleList<'_>, pairs: &mut Pairs) -> Option<Vec<RuleUse>> {
        let ix = self.index.account(&account, &self.accounts)?;
        let (account, shared) = (&self.accounts[ix as usize], &self.shared);
        let open = account.positions.iter().filter(|position| position.is_open());
        let figures = |symbol| Ask::new(account, &shared.symbols, symbol, None).map(|ask| (symbol, shared.sector_of(symbol), ask.now()));
        let standing = Standing {
            subjects: Subjects { shared },
            account,
            equity: equity(account, &shared.symbols),
            open: open.filter_map(|position| figures(position.symbol)).collect(),
        };
        let mut uses = Vec::new();
        for (rule, state) in rules.in_order() {
            let scope = &state.scope;
            if scope.account.is_some_and(|only| only != Some(ix)) {
                continue;
            }
            let unmeasured =
                if !state.rule.active { Some(Unmeasured::Inactive) } else { scope.strategy.map(|_| Unmeasured::OnIntentsOnly) };
            match unmeasured {
                Some(why) => uses.push(standing.subjects.of(state, Subject::Account, Err(why))),
                None => standing.measure(rule, state, pairs, &mut uses),
            }
        }
        Some(uses)
    }
}

impl Standing<'_> {
    fn measure(&self, rule: RuleIx, state: &RuleState, pairs: &mut Pairs, uses: &mut Vec<RuleUse>) {
        let first = uses.len();
        let mut tell = |subject: Subject, measured: Result<Measure, Unmeasured>| {
            let latched = state.enforced() && self.account.episode(rule, subject).is_some_and(|episode| episode.latched);
            uses.push(RuleUse { latched, ..self.subjects.of(state, subject, measured) });
        };
        match state.rule.rule_type {
            RuleType::MaxPositionSize => {
                for (symbol, _, figures) in self.covered(state) {
                    tell(Subject::Symbol(*symbol), as_it_stands(state, figures));
                }
            }
            RuleType::SectorLimit => {
                let mut told: Vec<SectorIx> = Vec::new();
                for (_, sector, figures) in self.covered(state) {
                    if !told.contains(sector) {
                        told.push(*sector);
                        tell(Subject::Sector(*sector), as_it_stands(state, figures));
                    }
                }
            }
            RuleType::MaxLeverage | RuleType::PositionLimit => {
                let figures = self.open.first().map_or_else(|| self.nothing(), |(_, _, figures)| *figures);
                tell(Subject::Account, as_it_stands(state, &figures));
            }
            RuleType::MaxDailyLoss => {
                let lost = |equity| rules::daily_loss(&state.rule, equity, self.account.sod, self.account.flows);
                tell(Subject::Account, self.equity.and_then(lost).map_err(Unmeasured::from));
            }
            RuleType::MaxDrawdown => {
                let lost = |equity| rules::drawdown(&state.rule, equity, self.account.hwm);
                tell(Subject::Account, self.equity.and_then(lost).map_err(Unmeasured::from));
            }
            RuleType::MaxCorrelation => {
                for (symbol, _, _) in self.covered(state) {
                    if let Some(measured) = self.correlation(state, *symbol, pairs) {
                        tell(Subject::Symbol(*symbol), measured);
                    }
                }
            }
            RuleType::StopLoss | RuleType::TakeProfit => {
                for (symbol, _, _) in self.covered(state) {
                    if let Some(watched) = self.watched(*symbol) {
                        tell(Subject::Symbol(*symbol), stop::measure(&state.rule, &watched).ok_or(Unmeasured::PriceUnavailable));
                    }
                }
            }
        }
        if uses.len() == first {
            let nothing = match state.rule.rule_type {
                RuleType::MaxPositionSize | RuleType::SectorLimit => as_it_stands(state, &self.nothing()),
                RuleType::MaxLeverage | RuleType::PositionLimit | RuleType::MaxDailyLoss | RuleType::MaxDrawdown => return,
                RuleType::MaxCorrelation | RuleType::StopLoss | RuleType::TakeProfit => Err(Unmeasured::NothingHeld),
            };
            uses.push(self.subjects.of(state, Subject::Account, nothing));
        }
    }

    fn covered<'s>(&'s self, state: &'s RuleState) -> impl Iterator<Item = &'s (SymbolIx, SectorIx, Figures)> {
        self.open.iter().filter(|(symbol, sector, _)| state.scope.covers_symbol(*symbol, *sector))
    }

    /// The figures of a symbol that is neither held nor ordered.
    fn nothing(&self) -> Figures {
        let (zero, count) = (Ok(Money::ZERO), self.open.first().map_or(0, |(_, _, figures)| figures.count));
        let gross = self.open.first().map_or(zero, |(_, _, figures)| figures.gross);
        Figures { equity: self.equity, quantity: Ok(0), value: zero, gross, sector: zero, count, sector_count: 0, adds: false }
    }

    /// `None` when nothing is held in the symbol, or nothing in any other.
    fn correlation(&self, state: &RuleState, symbol: SymbolIx, pairs: &mut Pairs) -> Option<Result<Measure, Unmeasured>> {
        let side = match self.account.position(symbol)?.holding.qty {
            0 => return None,
            1.. => Side::Buy,
            _ => Side::Sell,
        };
        let counted = (state.rule.window, state.rule.min_observations, state.rule.timeframe);
        let market = &self.subjects.shared.symbols;
        let worst = worst_pair_of((self.account, market), symbol, side, |a, b| pairs.rho(counted, a, b));
        match worst.rho {
            Some(rho) => Some(Ok(rules::correlation(&state.rule, rho))),
            None => worst.missing.then_some(Err(Unmeasured::CorrelationUnavailable)),
        }
    }

    fn watched(&self, symbol: SymbolIx) -> Option<stop::Watched> {
        valuation::watched(self.account.position(symbol)?, self.subjects.shared.symbols.get(symbol as usize)?)
    }
}

fn as_it_stands(state: &RuleState, figures: &Figures) -> Result<Measure, Unmeasured> {
    rules::judged_after(&state.rule, figures).map(Measure::as_it_stands).map_err(Unmeasured::from)
}
