//! `GET /api/v1/risk-rules/portfolio-risk`: the risk of one account's portfolio (docs/SEMANTICS.md, section 9).
//!
//! Invariant: every figure is the gate's own, of one moment of the book; one that is not known is `null`
//! and has a reason, and is never 0.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::books::Books;
use super::json::answer;
use super::words::{Binds, RuleUseView, figure, known, statistic, units_text};
use crate::api::caller::{Caller, now};
use crate::api::problem::{ApiCode, Problem};
use crate::api::query::Query;
use crate::book::{Blind, SymbolIx};
use crate::domain::{AccountId, Figure, Millis, Money, Side, Symbol};
use crate::gate::{Asking, Gate, RuleList, Unmeasured};
use crate::risk::correlation::{NoRho, Pairs};
use crate::risk::portfolio::{self, NoTails, Portfolio, RETURNS_LEAST, Share, Tails};
use crate::risk::statistics::Confidence;

/// Symbols that a request may ask the headroom of beside those of the book.
const SYMBOLS_MAX: usize = 100;

/// The paths.
pub fn routes() -> OpenApiRouter<Arc<Books>> {
    OpenApiRouter::new().routes(routes!(get))
}

/// The risk of a portfolio. Money and ratios are decimals in strings; what is `null` has its reason in `unknown`.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct PortfolioView {
    account: String,
    /// The ledger sequence of the book that was looked at.
    seq: u64,
    /// The time of the last record, in ms since the epoch.
    at: Millis,
    equity: Option<String>,
    cash: String,
    /// The sum of the worst-case values of all symbols, working orders included: what leverage is taken of.
    gross_exposure: Option<String>,
    /// Filled long positions at mark.
    long_exposure: Option<String>,
    /// Filled short positions at mark, below zero.
    short_exposure: Option<String>,
    net_exposure: Option<String>,
    /// Gross exposure over equity; `inf` when nothing is left of that.
    leverage: Option<String>,
    symbols: Vec<ConcentrationView>,
    sectors: Vec<ConcentrationView>,
    /// The equity when the day began.
    start_of_day_equity: String,
    /// Deposits less withdrawals of the day.
    flows: String,
    daily_pnl: Option<String>,
    daily_pnl_percent: Option<String>,
    high_water_mark: String,
    drawdown: Option<String>,
    drawdown_percent: Option<String>,
    /// At 95 % and 99 %; `null` when it is not known.
    value_at_risk: Option<Vec<TailView>>,
    /// How many daily returns count.
    returns: Option<usize>,
    correlations: CorrelationsView,
    rules: Vec<RuleUseView>,
    headroom: Vec<HeadroomView>,
    /// Why a figure is `null`, by its name.
    unknown: BTreeMap<&'static str, String>,
}

/// What a symbol or a sector is of the portfolio.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ConcentrationView {
    name: String,
    /// Its worst-case value, working orders included.
    value: Option<String>,
    /// Its filled position at mark.
    net: Option<String>,
    percent_of_equity: Option<String>,
    percent_of_gross: Option<String>,
    /// Why a figure is `null`.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

/// Losses of a day at one confidence, as money and as part of the equity.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct TailView {
    /// In percent.
    confidence: u8,
    historical: Option<String>,
    historical_ratio: Option<String>,
    expected_shortfall: Option<String>,
    expected_shortfall_ratio: Option<String>,
    parametric: Option<String>,
    parametric_ratio: Option<String>,
}

/// The correlations of the symbols that are held, each with each.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct CorrelationsView {
    symbols: Vec<String>,
    /// Row by row; `null` where it is not known.
    matrix: Vec<Vec<Option<String>>>,
    /// Why what is `null` is so, each pair once.
    unknown: Vec<UncorrelatedView>,
}

/// Pairs whose correlation is not known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct UncorrelatedView {
    /// The one symbol.
    symbol: String,
    /// The others.
    with: Vec<String>,
    /// `HISTORY_UNAVAILABLE`: one has no daily bars. `HISTORY_TOO_SHORT`: they have fewer than 20 daily returns in common.
    /// `NO_VARIANCE`: one does not move.
    reason: &'static str,
}

/// The largest order that would be allowed now.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct HeadroomView {
    symbol: String,
    /// `buy` or `sell`.
    side: &'static str,
    /// The quantity of a market order; `null` when no limit does: `binds` is then `null` too, or `VALUE_OUT_OF_RANGE` where an order is
    /// refused only because its quantity or value cannot be held any more.
    qty: Option<String>,
    /// What keeps it from being larger.
    binds: Option<Binds>,
}

/// Shows the risk of an account's portfolio.
#[utoipa::path(get, path = "/risk-rules/portfolio-risk", tag = "risk-rules", params(
    ("account" = String, Query, description = "The account"),
    ("symbols" = Option<String>, Query, description = "Symbols with commas between, whose headroom is told beside those of the book"),
), responses((status = 200, description = "The risk", body = PortfolioView)))]
async fn get(State(books): State<Arc<Books>>, Extension(caller): Extension<Caller>, uri: Uri) -> Result<Response, Problem> {
    let query = Query::read(uri.query(), &["account", "symbols"])?;
    let missing = || Problem::new(ApiCode::InvalidParameter, "say which account").field("account");
    let account = query.text("account").ok_or_else(missing)?;
    let wrong = || Problem::new(ApiCode::InvalidParameter, format!("at most {SYMBOLS_MAX} symbols with commas between")).field("symbols");
    let symbols = query.text("symbols").unwrap_or_default().split(',').filter(|text| !text.is_empty());
    let symbols: Option<Vec<Symbol>> = symbols.map(|text| Symbol::parse(text.as_bytes())).collect();
    let symbols = symbols.filter(|symbols| symbols.len() <= SYMBOLS_MAX).ok_or_else(wrong)?;
    let (at, pairs) = (now(), books.pairs.clone());
    let view = books
        .compute_of(&caller, account, move |gate, account| {
            Books::with_pairs(&pairs, gate.shard(), |pairs| view(gate, account, &symbols, (at, pairs)))
        })
        .await?;
    Ok(answer(StatusCode::OK, &view))
}

fn view(gate: &Gate, account: AccountId, more: &[Symbol], (at, pairs): (Millis, &mut Pairs)) -> Option<PortfolioView> {
    let portfolio = portfolio::describe(gate.account(account)?, gate.symbols(), pairs);
    let rules = gate.rule_list(Asking::All)?;
    let mut symbols: Vec<Symbol> = portfolio.symbols.iter().filter_map(|share| symbol_of(gate, share.of)).collect();
    symbols.extend(more);
    symbols.sort_unstable();
    symbols.dedup();
    let unknown = unknown(gate, &portfolio);
    let tails = portfolio.tails.as_ref().ok();
    Some(PortfolioView {
        account: account.to_string(),
        seq: gate.seq(),
        at: gate.at(),
        equity: known(portfolio.equity),
        cash: portfolio.cash.to_string(),
        gross_exposure: known(portfolio.gross),
        long_exposure: known(portfolio.long),
        short_exposure: known(portfolio.short),
        net_exposure: known(portfolio.net),
        leverage: figure(portfolio.leverage),
        symbols: portfolio.symbols.iter().filter_map(|share| Some(concentration(share, symbol_of(gate, share.of)?.as_str()))).collect(),
        sectors: portfolio
            .sectors
            .iter()
            .filter_map(|share| Some(concentration(share, gate.sectors().get(share.of as usize)?.as_str())))
            .collect(),
        start_of_day_equity: portfolio.sod.to_string(),
        flows: portfolio.flows.to_string(),
        daily_pnl: known(portfolio.daily_pnl),
        daily_pnl_percent: figure(portfolio.daily_pnl_percent),
        high_water_mark: portfolio.hwm.to_string(),
        drawdown: known(portfolio.drawdown),
        drawdown_percent: figure(portfolio.drawdown_percent),
        returns: tails.map(|tails| tails.returns),
        value_at_risk: tails.zip(portfolio.equity.ok()).map(|(tails, equity)| tail_views(tails, equity)),
        correlations: correlations(gate, &portfolio),
        rules: gate.uses(account, &rules, pairs)?.iter().map(RuleUseView::from).collect(),
        headroom: symbols.iter().flat_map(|symbol| headroom(gate, account, *symbol, &rules, (at, pairs))).collect(),
        unknown,
    })
}

fn symbol_of(gate: &Gate, symbol: SymbolIx) -> Option<Symbol> {
    gate.symbols().get(symbol as usize).map(|state| state.symbol)
}

fn concentration<K>(share: &Share<K>, name: &str) -> ConcentrationView {
    let reason = match (share.value, share.of_equity) {
        (Err(blind), _) => Some(Unmeasured::from(blind).as_str()),
        (Ok(_), Figure::Unknown) => Some("EQUITY_UNKNOWN_OR_NOT_POSITIVE"),
        (Ok(_), Figure::Absent | Figure::Infinite | Figure::Units(_)) => None,
    };
    ConcentrationView {
        name: name.to_owned(),
        value: known(share.value),
        net: known(share.net),
        percent_of_equity: figure(share.of_equity),
        percent_of_gross: figure(share.of_gross),
        reason,
    }
}

fn tail_views(tails: &Tails, equity: Money) -> Vec<TailView> {
    // Money has units of 1e-16; a statistic of it is told to 8 decimals.
    let money = |ratio: f64| statistic(ratio * (equity.0 as f64 / 1e16));
    let view = |confidence: Confidence, (tail, parametric): &(crate::risk::statistics::TailRisk, f64)| TailView {
        confidence: match confidence {
            Confidence::P95 => 95,
            Confidence::P99 => 99,
        },
        historical: money(tail.value_at_risk),
        historical_ratio: statistic(tail.value_at_risk),
        expected_shortfall: money(tail.expected_shortfall),
        expected_shortfall_ratio: statistic(tail.expected_shortfall),
        parametric: money(*parametric),
        parametric_ratio: statistic(*parametric),
    };
    Confidence::ALL.into_iter().zip(&tails.at).map(|(confidence, at)| view(confidence, at)).collect()
}

fn correlations(gate: &Gate, portfolio: &Portfolio) -> CorrelationsView {
    let symbols = portfolio.held.iter().filter_map(|symbol| symbol_of(gate, *symbol)).map(|symbol| symbol.to_string()).collect();
    // Correlations have units of 1e-9; one more digit than other figures, and they are told whole.
    let text = |rho: i64| {
        let mut buffer = [0; crate::domain::MAX_DECIMAL_LEN];
        crate::domain::format_scaled(&mut buffer, i128::from(rho), 9).to_owned()
    };
    let matrix = portfolio.correlations.iter().map(|row| row.iter().map(|rho| rho.map(text)).collect()).collect();
    CorrelationsView { symbols, matrix, unknown: uncorrelated(gate, portfolio) }
}

/// Each pair that is not known under the first of the two, by reason.
fn uncorrelated(gate: &Gate, portfolio: &Portfolio) -> Vec<UncorrelatedView> {
    let mut found = Vec::new();
    for (row, one) in portfolio.held.iter().enumerate() {
        let mut others: BTreeMap<NoRho, Vec<String>> = BTreeMap::new();
        let rhos = portfolio.correlations.get(row).into_iter().flatten();
        for (other, _) in portfolio.held.iter().zip(rhos).skip(row + 1).filter(|(_, rho)| rho.is_none()) {
            let why = portfolio::why_uncorrelated(*one, *other, gate.symbols());
            others.entry(why).or_default().extend(symbol_of(gate, *other).map(|symbol| symbol.to_string()));
        }
        let Some(symbol) = symbol_of(gate, *one) else { continue };
        found.extend(others.into_iter().map(|(why, with)| {
            let reason = match why {
                NoRho::NoBars => "HISTORY_UNAVAILABLE",
                NoRho::TooFewReturns => "HISTORY_TOO_SHORT",
                NoRho::NoVariance => "NO_VARIANCE",
            };
            UncorrelatedView { symbol: symbol.to_string(), with, reason }
        }));
    }
    found
}

fn headroom(gate: &Gate, account: AccountId, symbol: Symbol, rules: &RuleList<'_>, (at, pairs): (Millis, &mut Pairs)) -> Vec<HeadroomView> {
    let mut of = |side: Side| {
        let found = gate.headroom(account, (symbol, side), None, rules, (at, pairs))?;
        Some(HeadroomView {
            symbol: symbol.to_string(),
            side: side.as_str(),
            qty: found.qty.map(|qty| units_text(i128::from(qty.0))),
            binds: found.binds.as_ref().map(Binds::from),
        })
    };
    [Side::Buy, Side::Sell].into_iter().filter_map(&mut of).collect()
}

/// Why figures are `null`.
fn unknown(gate: &Gate, portfolio: &Portfolio) -> BTreeMap<&'static str, String> {
    let name = |symbol: SymbolIx| symbol_of(gate, symbol).map_or_else(String::new, |symbol| symbol.to_string());
    let unmarked = portfolio.unmarked.iter().map(|symbol| name(*symbol)).collect::<Vec<_>>().join(", ");
    let why = |blind: Blind| match blind {
        Blind::Missing => format!("PRICE_UNAVAILABLE: no mark of {unmarked}"),
        Blind::Overflow => "VALUE_OUT_OF_RANGE: a result leaves its type".to_owned(),
    };
    let mut unknown = BTreeMap::new();
    let amounts = [
        ("equity", portfolio.equity),
        ("gross_exposure", portfolio.gross),
        ("long_exposure", portfolio.long),
        ("short_exposure", portfolio.short),
        ("net_exposure", portfolio.net),
        ("daily_pnl", portfolio.daily_pnl),
        ("drawdown", portfolio.drawdown),
    ];
    unknown.extend(amounts.into_iter().filter_map(|(field, amount)| Some((field, why(amount.err()?)))));
    let ratios = [
        ("leverage", portfolio.leverage, portfolio.gross.and(portfolio.equity)),
        ("daily_pnl_percent", portfolio.daily_pnl_percent, portfolio.daily_pnl),
        ("drawdown_percent", portfolio.drawdown_percent, portfolio.drawdown),
    ];
    let no_reference = || "NO_REFERENCE: what it is taken of is not above zero".to_owned();
    let ratios = ratios.into_iter().filter(|(_, ratio, _)| *ratio == Figure::Unknown);
    unknown.extend(ratios.map(|(field, _, of)| (field, of.map_or_else(&why, |_| no_reference()))));
    if let Err(tails) = portfolio.tails {
        let why = match tails {
            NoTails::Equity(blind) => why(blind),
            NoTails::EquityNotPositive => "EQUITY_NOT_POSITIVE: there is nothing to lose a part of".to_owned(),
            NoTails::NoBars(symbol) => format!("HISTORY_UNAVAILABLE: no 1d bars of {}", name(symbol)),
            NoTails::TooFewReturns(count) => format!("HISTORY_TOO_SHORT: {count} common daily returns, and {RETURNS_LEAST} are needed"),
        };
        unknown.extend([("value_at_risk", why.clone()), ("returns", why)]);
    }
    unknown
}
