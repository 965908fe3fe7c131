//! The risk of one portfolio (SEMANTICS section 9): exposures, concentrations, results, tails, correlations.
//!
//! Invariant: money and percentages are exact and rounded once; what a missing mark or too short a
//! history leaves open is not known, never 0. Statistics are `f64`, as in `statistics.rs`. Deliberately
//! absent: rules, which the gate measures itself (`gate/uses.rs`), and any effect.

use super::correlation::{Counted, NoRho, Pairs, why_unknown};
use super::figures::{equity, symbol_value};
use super::measure::Amount;
use super::statistics::{self, Confidence, RETURNS_WINDOW, TailRisk};
use crate::book::{Account, Blind, Known, Position, SectorIx, SymbolIx};
use crate::domain::{Figure, Id, Millis, Money, Price};
use crate::market::bars::{Bars, RHO_ONE};
use crate::market::symbol::SymbolState;

/// The bars that returns and correlations are taken of.
const TIMEFRAME: &[u8] = b"1d";
/// How many bars of each symbol a correlation counts.
pub const CORRELATION_WINDOW: u32 = 60;
/// Fewer returns are too few.
pub const RETURNS_LEAST: usize = 20;

/// The risk of one account's portfolio.
#[derive(Clone, Debug, PartialEq)]
pub struct Portfolio {
    /// Its equity.
    pub equity: Known<Money>,
    /// Its cash.
    pub cash: Money,
    /// `G`: the sum of the worst-case values, working orders included.
    pub gross: Known<Money>,
    /// The filled long positions at mark.
    pub long: Known<Money>,
    /// The filled short positions at mark, below zero.
    pub short: Known<Money>,
    /// `long + short`.
    pub net: Known<Money>,
    /// `G / E`; infinite when `E <= 0`.
    pub leverage: Figure,
    /// What each open symbol is of it, in the order of symbol numbers.
    pub symbols: Vec<Share<SymbolIx>>,
    /// What each sector is of it, in the order of their first symbols.
    pub sectors: Vec<Share<SectorIx>>,
    /// The equity when the day began.
    pub sod: Money,
    /// The day's net external flows.
    pub flows: Money,
    /// `E - sod - flows`
    pub daily_pnl: Known<Money>,
    /// The same in percent of `sod + flows`.
    pub daily_pnl_percent: Figure,
    /// The high-water mark.
    pub hwm: Money,
    /// `hwm - E`, not below 0.
    pub drawdown: Known<Money>,
    /// The same in percent of `hwm`.
    pub drawdown_percent: Figure,
    /// What may be lost within a day; at both confidences, in the order of [`Confidence::ALL`].
    pub tails: Result<Tails, NoTails>,
    /// The symbols that are held, in the order of the matrix.
    pub held: Vec<SymbolIx>,
    /// The correlation of each with each, in units of 1e-9.
    pub correlations: Vec<Vec<Option<i64>>>,
    /// Held symbols, or ones with working orders, that have no mark.
    pub unmarked: Vec<SymbolIx>,
}

/// A symbol's or a sector's share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share<K> {
    /// Which.
    pub of: K,
    /// Its worst-case value `V`.
    pub value: Known<Money>,
    /// Its filled position at mark.
    pub net: Known<Money>,
    /// `V` in percent of the equity; unknown when that is not above zero.
    pub of_equity: Figure,
    /// `V` in percent of `G`.
    pub of_gross: Figure,
}

/// Losses of a day, from daily returns of what is held now.
#[derive(Clone, Debug, PartialEq)]
pub struct Tails {
    /// How many returns count.
    pub returns: usize,
    /// Of each confidence: historical value at risk and expected shortfall, and the parametric value
    /// at risk, as parts of the equity.
    pub at: [(TailRisk, f64); 2],
}

/// Why no loss is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoTails {
    /// A mark is missing, or a result leaves its type.
    Equity(Blind),
    /// There is nothing to lose a part of.
    EquityNotPositive,
    /// A held symbol has no daily bars.
    NoBars(SymbolIx),
    /// The held symbols have too few days in common.
    TooFewReturns(usize),
}

/// Describes an account's portfolio as its book stands.
#[must_use]
pub fn describe(account: &Account, market: &[SymbolState], pairs: &mut Pairs) -> Portfolio {
    let state = |symbol: SymbolIx| market.get(symbol as usize);
    let equity = equity(account, market);
    let mut shares: Vec<(Share<SymbolIx>, SectorIx)> = Vec::new();
    for position in account.positions.iter().filter(|position| position.is_open()) {
        let Some(state) = state(position.symbol) else { continue };
        let (value, net) = (symbol_value(account, position, state), net_value(position, state));
        shares.push((Share { of: position.symbol, value, net, of_equity: Figure::Unknown, of_gross: Figure::Unknown }, state.sector()));
    }
    let gross = sum(shares.iter().map(|(share, _)| share.value));
    let side =
        |wanted: fn(Money) -> bool| sum(shares.iter().map(|(share, _)| share.net.map(|net| if wanted(net) { net } else { Money::ZERO })));
    let (long, short) = (side(|net| net > Money::ZERO), side(|net| net < Money::ZERO));
    let daily_pnl = equity.and_then(|equity| equity.minus(account.sod).and_then(|gain| gain.minus(account.flows)).ok_or(Blind::Overflow));
    let base = account.sod.plus(account.flows);
    let drawdown = equity.and_then(|equity| account.hwm.minus(equity).ok_or(Blind::Overflow)).map(|lost| lost.max(Money::ZERO));
    let held: Vec<SymbolIx> =
        account.positions.iter().filter(|position| position.holding.qty != 0).map(|position| position.symbol).collect();
    Portfolio {
        equity,
        cash: account.cash,
        gross,
        long,
        short,
        net: plus(long, short),
        leverage: leverage(gross, equity),
        sectors: by_sector(&shares, gross, equity),
        symbols: shares.iter().map(|(share, _)| weighed(*share, gross, equity)).collect(),
        sod: account.sod,
        flows: account.flows,
        daily_pnl,
        daily_pnl_percent: base.map_or(Figure::Unknown, |base| percent(daily_pnl, Ok(base))),
        hwm: account.hwm,
        drawdown,
        drawdown_percent: drawdown_percent(drawdown, account.hwm),
        tails: tails(account, market, equity),
        correlations: correlations(&held, market, pairs),
        unmarked: shares
            .iter()
            .map(|(share, _)| share.of)
            .filter(|symbol| state(*symbol).is_some_and(|it| it.mark.price().is_none()))
            .collect(),
        held,
    }
}

/// As the rule `max_correlation` counts by default.
fn counted() -> Option<Counted> {
    Id::parse(TIMEFRAME).map(|timeframe| (CORRELATION_WINDOW, RETURNS_LEAST as u32, timeframe))
}

/// Why the correlation of two symbols that are held is not known.
#[must_use]
pub fn why_uncorrelated(a: SymbolIx, b: SymbolIx, market: &[SymbolState]) -> NoRho {
    let found = counted().zip(market.get(a as usize)).zip(market.get(b as usize));
    found.map_or(NoRho::NoBars, |((counted, one), other)| why_unknown(counted, (a, one), (b, other)))
}

/// Each with each.
fn correlations(held: &[SymbolIx], market: &[SymbolState], pairs: &mut Pairs) -> Vec<Vec<Option<i64>>> {
    let counted = counted();
    let mut rho = |a: SymbolIx, b: SymbolIx| {
        if a == b {
            return Some(RHO_ONE);
        }
        pairs.rho(counted?, (a, market.get(a as usize)?), (b, market.get(b as usize)?))
    };
    held.iter().map(|a| held.iter().map(|b| rho(*a, *b)).collect()).collect()
}

fn net_value(position: &Position, state: &SymbolState) -> Known<Money> {
    if position.holding.qty == 0 {
        return Ok(Money::ZERO);
    }
    let mark = state.mark.price().ok_or(Blind::Missing)?;
    position.holding.value_at(mark, state.multiplier()).ok_or(Blind::Overflow)
}

fn plus(a: Known<Money>, b: Known<Money>) -> Known<Money> {
    match (a, b) {
        (Ok(a), Ok(b)) => a.plus(b).ok_or(Blind::Overflow),
        (Err(Blind::Overflow), _) | (_, Err(Blind::Overflow)) => Err(Blind::Overflow),
        (Err(Blind::Missing), _) | (_, Err(Blind::Missing)) => Err(Blind::Missing),
    }
}

fn sum(amounts: impl Iterator<Item = Known<Money>>) -> Known<Money> {
    amounts.fold(Ok(Money::ZERO), plus)
}

fn leverage(gross: Known<Money>, equity: Known<Money>) -> Figure {
    match (gross, equity) {
        (Ok(_), Ok(equity)) if equity <= Money::ZERO => Figure::Infinite,
        (Ok(gross), Ok(equity)) => Amount::over(gross.0, equity.0).figure(),
        (Err(_), _) | (_, Err(_)) => Figure::Unknown,
    }
}

/// Percent of something that is above zero.
fn percent(part: Known<Money>, of: Known<Money>) -> Figure {
    match (part, of) {
        (Ok(part), Ok(of)) if of > Money::ZERO => Amount::of_products((part.0, 100), (of.0, 1)).figure(),
        (Ok(_), Ok(_)) | (Err(_), _) | (_, Err(_)) => Figure::Unknown,
    }
}

/// As the rule `max_drawdown` counts it.
fn drawdown_percent(drawdown: Known<Money>, hwm: Money) -> Figure {
    match drawdown {
        Ok(Money::ZERO) => Figure::Units(0),
        Ok(_) if hwm <= Money::ZERO => Figure::Infinite,
        Ok(lost) => percent(Ok(lost), Ok(hwm)),
        Err(_) => Figure::Unknown,
    }
}

fn weighed<K>(share: Share<K>, gross: Known<Money>, equity: Known<Money>) -> Share<K> {
    Share { of_equity: percent(share.value, equity), of_gross: percent(share.value, gross), ..share }
}

fn by_sector(shares: &[(Share<SymbolIx>, SectorIx)], gross: Known<Money>, equity: Known<Money>) -> Vec<Share<SectorIx>> {
    let mut sectors: Vec<Share<SectorIx>> = Vec::new();
    for (share, sector) in shares {
        match sectors.iter_mut().find(|other| other.of == *sector) {
            Some(known) => (known.value, known.net) = (plus(known.value, share.value), plus(known.net, share.net)),
            None => sectors.push(Share {
                of: *sector,
                value: share.value,
                net: share.net,
                of_equity: Figure::Unknown,
                of_gross: Figure::Unknown,
            }),
        }
    }
    sectors.into_iter().map(|sector| weighed(sector, gross, equity)).collect()
}

fn daily_bars(state: &SymbolState) -> Option<&Bars> {
    let timeframe = Id::parse(TIMEFRAME)?;
    state.bars.iter().find(|(name, _)| *name == timeframe).map(|(_, bars)| bars)
}

fn tails(account: &Account, market: &[SymbolState], equity: Known<Money>) -> Result<Tails, NoTails> {
    let equity = equity.map_err(NoTails::Equity)?;
    if !account.positions.iter().any(|position| position.holding.qty != 0) {
        let nothing = TailRisk { value_at_risk: 0.0, expected_shortfall: 0.0 };
        return Ok(Tails { returns: 0, at: [(nothing, 0.0); 2] });
    }
    if equity <= Money::ZERO {
        return Err(NoTails::EquityNotPositive);
    }
    let returns = daily_returns(account, market, equity)?;
    let too_few = NoTails::TooFewReturns(returns.len());
    if returns.len() < RETURNS_LEAST {
        return Err(too_few);
    }
    let at = |confidence| statistics::historical(&returns, confidence).zip(statistics::parametric_var(&returns, confidence)).ok_or(too_few);
    let [first, second] = Confidence::ALL;
    Ok(Tails { returns: returns.len(), at: [at(first)?, at(second)?] })
}

/// What the portfolio as it is now would have returned on each of the last days that all of its symbols
/// have in common: each symbol's close over the one before, times its share of the equity, summed.
///
/// # Errors
/// A symbol has no daily bars, or its mark is missing.
pub fn daily_returns(account: &Account, market: &[SymbolState], equity: Money) -> Result<Vec<f64>, NoTails> {
    let mut parts: Vec<(f64, &Bars)> = Vec::new();
    for position in account.positions.iter().filter(|position| position.holding.qty != 0) {
        let state = market.get(position.symbol as usize).ok_or(NoTails::NoBars(position.symbol))?;
        let value = net_value(position, state).map_err(NoTails::Equity)?;
        let bars = daily_bars(state).filter(|bars| !bars.is_empty()).ok_or(NoTails::NoBars(position.symbol))?;
        parts.push((value.0 as f64 / equity.0 as f64, bars));
    }
    let days = common_days(parts.iter().map(|(_, bars)| *bars));
    let mut returns = vec![0.0; days.len().saturating_sub(1)];
    for (weight, bars) in parts {
        let mut before: Option<Price> = None;
        let closes = bars.last(bars.len()).filter(|(day, _)| days.binary_search(day).is_ok());
        for (place, (_, close)) in closes.enumerate() {
            if let Some(before) = before {
                returns[place - 1] += weight * (close.0 as f64 / before.0 as f64 - 1.0);
            }
            before = Some(close);
        }
    }
    Ok(returns)
}

/// The last days that all series have, ascending: as many as the window's returns need.
fn common_days<'a>(mut series: impl Iterator<Item = &'a Bars>) -> Vec<Millis> {
    let Some(first) = series.next() else { return Vec::new() };
    let mut days: Vec<Millis> = first.last(first.len()).map(|(day, _)| day).collect();
    for bars in series {
        let mut others = bars.last(bars.len()).map(|(day, _)| day).peekable();
        days.retain(|day| {
            while others.peek().is_some_and(|other| other < day) {
                others.next();
            }
            others.peek() == Some(day)
        });
    }
    days.split_off(days.len().saturating_sub(RETURNS_WINDOW + 1))
}
