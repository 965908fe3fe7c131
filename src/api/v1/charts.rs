//! `/api/v1/chart/{symbol}/..`: bars and indicators, in the form that lightweight-charts draws.
//!
//! Invariant: a page has at most 5,000 bars, pages of a window follow each other without a gap or a repeat, and what cannot be known
//! is absent, never 0. Prices are the market's: whoever is known to the daemon may see them all, so the router of these paths stands
//! behind the one that proves who asks, and asks nothing more. Deliberately absent: money; numbers here are floats, to be drawn.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::Uri;
use axum::response::Response;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::health::json_bytes;
use crate::api::problem::{ApiCode, Problem};
use crate::api::query::Query;
use crate::chart::indicators::{BadParameter, Indicator};
use crate::chart::{BarView, ChartError, Charts, Days, IndicatorPage, LinePoints, Page, Timeframe, Window};
use crate::domain::{Millis, Symbol};

/// Bars of a page unless asked otherwise.
const LIMIT: usize = 500;
/// Bars of a page at the most.
pub const LIMIT_MAX: usize = 5_000;
const MS_PER_SECOND: i64 = 1_000;
const WINDOW_PARAMETERS: [&str; 6] = ["timeframe", "start", "end", "limit", "cursor", "adjusted"];

/// The paths, below `/api/v1`.
pub fn routes() -> OpenApiRouter<Arc<Charts>> {
    OpenApiRouter::new().routes(routes!(ohlcv)).routes(routes!(indicators))
}

/// Bars of a symbol.
#[derive(Serialize, ToSchema)]
pub struct Ohlcv {
    /// The symbol.
    symbol: String,
    /// The timeframe.
    #[schema(value_type = TimeframeWord)]
    timeframe: &'static str,
    /// The zone whose days bars of `1day` are.
    zone: String,
    /// The bars, oldest first. An interval without trades has none.
    bars: Vec<OhlcvBar>,
    /// Records of the log that were not drawn yet when it was last looked, every two seconds: 0 when charts were up to date. What this
    /// process has answered, or the request brings the position of, is drawn before it is answered.
    lag_records: u64,
    /// The `cursor` of the next page; absent at the end of the window.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// A bar. It covers `[time, end of the interval)`.
#[derive(Serialize, ToSchema)]
pub struct OhlcvBar {
    /// Where its interval begins, in seconds since the epoch.
    time: i64,
    /// The first price.
    open: f64,
    /// The highest price.
    high: f64,
    /// The lowest price.
    low: f64,
    /// The last price.
    close: f64,
    /// How much was traded; absent when nobody said.
    #[serde(skip_serializing_if = "Option::is_none")]
    volume: Option<f64>,
    /// How many trades made it; absent of a bar that somebody published.
    #[serde(skip_serializing_if = "Option::is_none")]
    trades: Option<u64>,
    /// `true` while its interval lasts: it still changes. Else absent.
    #[serde(skip_serializing_if = "is_false")]
    #[schema(required = false)]
    in_progress: bool,
}

/// An indicator over bars of a symbol.
#[derive(Serialize, ToSchema)]
pub struct Indicators {
    /// The symbol.
    symbol: String,
    /// The timeframe.
    #[schema(value_type = TimeframeWord)]
    timeframe: &'static str,
    /// The zone whose days `vwap` and bars of `1day` begin with.
    zone: String,
    /// The indicator.
    #[schema(value_type = IndicatorWord)]
    indicator: &'static str,
    /// Its parameters, the usual ones included.
    #[schema(value_type = std::collections::BTreeMap<String, f64>)]
    parameters: serde_json::Map<String, serde_json::Value>,
    /// Its lines, each ready for a series of its own.
    lines: Vec<IndicatorLine>,
    /// The bar that still changes, and the values at it, in seconds since the epoch; absent when it is not on the page.
    #[serde(skip_serializing_if = "Option::is_none")]
    in_progress: Option<i64>,
    /// Records of the log that were not drawn yet when it was last looked, every two seconds: 0 when charts were up to date. What this
    /// process has answered, or the request brings the position of, is drawn before it is answered.
    lag_records: u64,
    /// The `cursor` of the next page; absent at the end of the window.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// One line of an indicator.
#[derive(Serialize, ToSchema)]
pub struct IndicatorLine {
    /// Its name, such as `macd`, `signal`, `histogram`.
    name: &'static str,
    /// Its values, oldest first; a bar whose value cannot be known has none.
    values: Vec<IndicatorPoint>,
}

/// A value at a bar.
#[derive(Serialize, ToSchema)]
pub struct IndicatorPoint {
    /// Where the bar's interval begins, in seconds since the epoch.
    time: i64,
    /// The value.
    value: f64,
}

/// How long a bar is.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it only describes the words to the document; Timeframe reads them")]
enum TimeframeWord {
    #[schema(rename = "1min")]
    Minute,
    #[schema(rename = "5min")]
    FiveMinutes,
    #[schema(rename = "15min")]
    QuarterHour,
    #[schema(rename = "30min")]
    HalfHour,
    #[schema(rename = "1hr")]
    Hour,
    #[schema(rename = "4hr")]
    FourHours,
    #[schema(rename = "1day")]
    Day,
}

/// An indicator's name.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[expect(dead_code, reason = "it only describes the words to the document; Indicator reads them")]
enum IndicatorWord {
    Sma,
    Ema,
    Wma,
    Rsi,
    Macd,
    Bbands,
    Atr,
    Adx,
    Stoch,
    Obv,
    Vwap,
}

/// Bars of a symbol: those of `[start, end)`, oldest first, or without `start` the newest before `end`.
#[utoipa::path(get, path = "/chart/{symbol}/ohlcv", tag = "charts", params(
    ("symbol" = String, Path, description = "The symbol; a `/` in it is written `%2F`"),
    ("timeframe" = TimeframeWord, Query, description = "How long a bar is"),
    ("start" = Option<String>, Query, description = "Bars that begin here or later: RFC 3339, or milliseconds since the epoch"),
    ("end" = Option<String>, Query, description = "Bars that begin before this: RFC 3339, or milliseconds since the epoch"),
    ("limit" = Option<u32>, Query, description = "At most so many bars; 500 unless said", minimum = 1, maximum = 5000),
    ("cursor" = Option<String>, Query, description = "Where the last page ended, with the same `start`"),
    ("adjusted" = Option<bool>, Query, description = "Whether splits restate what was before them; true unless said"),
), responses(
    (status = 200, description = "The bars", body = Ohlcv),
    (status = 400, description = "A parameter is not valid"),
    (status = 404, description = "Nobody ever said anything of the symbol"),
    (status = 503, description = "`CHART_UNAVAILABLE`: their cache cannot be kept, or they are about to be rebuilt from the log"),
))]
async fn ohlcv(State(charts): State<Arc<Charts>>, symbol: Result<Path<String>, PathRejection>, uri: Uri) -> Result<Response, Problem> {
    let query = Query::read(uri.query(), &WINDOW_PARAMETERS)?;
    let (timeframe, window) = (timeframe_of(&query)?, window_of(&query)?);
    let symbol = symbol_of(symbol)?;
    asked(move || {
        let page = charts.bars(&symbol, timeframe, &window, now())?;
        Ok(written(&shown(&symbol, timeframe, charts.days(), page)))
    })
    .await
}

/// An indicator over bars of a symbol. Parameters that are not given have the usual value; see `parameters` in the answer.
#[utoipa::path(get, path = "/chart/{symbol}/indicators", tag = "charts", params(
    ("symbol" = String, Path, description = "The symbol; a `/` in it is written `%2F`"),
    ("timeframe" = TimeframeWord, Query, description = "How long a bar is"),
    ("indicator" = IndicatorWord, Query, description = "The indicator"),
    ("period" = Option<u32>, Query, description = "Bars: sma, ema, wma, bbands (20), rsi, atr, adx (14)", minimum = 1, maximum = 500),
    ("fast" = Option<u32>, Query, description = "Bars of macd's fast average (12)", minimum = 2, maximum = 500),
    ("slow" = Option<u32>, Query, description = "Bars of macd's slow average (26); longer than fast", minimum = 2, maximum = 500),
    ("signal" = Option<u32>, Query, description = "Bars of macd's signal (9)", minimum = 1, maximum = 500),
    ("deviations" = Option<f64>, Query, description = "Standard deviations of bbands (2)", minimum = 0.1, maximum = 10.0),
    ("k" = Option<u32>, Query, description = "Bars of stoch's range (14)", minimum = 1, maximum = 500),
    ("smoothing" = Option<u32>, Query, description = "Bars that stoch's %K is smoothed over (3)", minimum = 1, maximum = 500),
    ("d" = Option<u32>, Query, description = "Bars of stoch's %D (3)", minimum = 1, maximum = 500),
    ("start" = Option<String>, Query, description = "Bars that begin here or later: RFC 3339, or milliseconds since the epoch"),
    ("end" = Option<String>, Query, description = "Bars that begin before this: RFC 3339, or milliseconds since the epoch"),
    ("limit" = Option<u32>, Query, description = "At most so many bars; 500 unless said", minimum = 1, maximum = 5000),
    ("cursor" = Option<String>, Query, description = "Where the last page ended, with the same `start`"),
    ("adjusted" = Option<bool>, Query, description = "Whether splits restate what was before them; true unless said"),
), responses(
    (status = 200, description = "The lines", body = Indicators),
    (status = 400, description = "A parameter is not valid"),
    (status = 404, description = "Nobody ever said anything of the symbol"),
    (status = 503, description = "`CHART_UNAVAILABLE`: their cache cannot be kept, or they are about to be rebuilt from the log"),
))]
async fn indicators(State(charts): State<Arc<Charts>>, symbol: Result<Path<String>, PathRejection>, uri: Uri) -> Result<Response, Problem> {
    let known: Vec<&str> = WINDOW_PARAMETERS.into_iter().chain(["indicator"]).chain(Indicator::PARAMETERS).collect();
    let query = Query::read(uri.query(), &known)?;
    let (timeframe, window) = (timeframe_of(&query)?, window_of(&query)?);
    let indicator = Indicator::parse(query.text("indicator").unwrap_or_default(), |field| query.text(field));
    let indicator = indicator.map_err(|BadParameter { field, message }| invalid(&field, message))?;
    let symbol = symbol_of(symbol)?;
    asked(move || {
        let page = charts.indicator(&symbol, timeframe, &window, &indicator, now())?;
        Ok(written(&drawn(&symbol, timeframe, charts.days(), &indicator, page)))
    })
    .await
}

/// Charts read from a disk, so they are asked beside the threads that serve.
async fn asked(ask: impl FnOnce() -> Result<Result<Vec<u8>, Problem>, ChartError> + Send + 'static) -> Result<Response, Problem> {
    let answered = tokio::task::spawn_blocking(ask).await;
    let answered = answered.map_err(|_| Problem::new(ApiCode::Internal, "the chart could not be drawn"))?;
    answered.map_err(|error| chart_problem(&error))?.map(json_bytes)
}

fn written(answer: &impl Serialize) -> Result<Vec<u8>, Problem> {
    serde_json::to_vec(answer).map_err(|_| Problem::new(ApiCode::Internal, "the answer could not be written"))
}

pub(super) fn chart_problem(error: &ChartError) -> Problem {
    match error {
        ChartError::UnknownSymbol => Problem::new(ApiCode::UnknownSymbol, error.to_string()).field("symbol"),
        ChartError::Unavailable { .. } => Problem::new(ApiCode::ChartUnavailable, error.to_string()),
    }
}

fn shown(symbol: &Symbol, timeframe: Timeframe, days: &Days, page: Page) -> Ohlcv {
    Ohlcv {
        symbol: symbol.to_string(),
        timeframe: timeframe.as_str(),
        zone: days.zone().to_owned(),
        bars: page.bars.iter().map(OhlcvBar::from).collect(),
        lag_records: page.lag_records,
        next_cursor: page.next.map(cursor_at),
    }
}

impl From<&BarView> for OhlcvBar {
    fn from(bar: &BarView) -> Self {
        let BarView { start, open, high, low, close, volume, trades, published, in_progress } = *bar;
        let trades = (!published).then_some(trades);
        Self { time: start.div_euclid(MS_PER_SECOND), open, high, low, close, volume, trades, in_progress }
    }
}

fn drawn(symbol: &Symbol, timeframe: Timeframe, days: &Days, indicator: &Indicator, page: IndicatorPage) -> Indicators {
    let point = |(start, value): (Millis, f64)| IndicatorPoint { time: start.div_euclid(MS_PER_SECOND), value };
    let line = |(name, points): (&'static str, LinePoints)| IndicatorLine { name, values: points.into_iter().map(point).collect() };
    Indicators {
        symbol: symbol.to_string(),
        timeframe: timeframe.as_str(),
        zone: days.zone().to_owned(),
        indicator: indicator.name(),
        parameters: indicator.parameters().into_iter().map(|(name, value)| (name.to_owned(), number(value))).collect(),
        lines: page.lines.into_iter().map(line).collect(),
        in_progress: page.in_progress.map(|start| start.div_euclid(MS_PER_SECOND)),
        lag_records: page.lag_records,
        next_cursor: page.next.map(cursor_at),
    }
}

/// A period as a whole number, as it was asked for.
fn number(value: f64) -> serde_json::Value {
    if value.fract() == 0.0 { serde_json::Value::from(value as i64) } else { serde_json::Value::from(value) }
}

fn is_false(flag: &bool) -> bool {
    !flag
}

fn invalid(field: &str, detail: impl Into<String>) -> Problem {
    Problem::new(ApiCode::InvalidParameter, detail).field(field)
}

fn symbol_of(path: Result<Path<String>, PathRejection>) -> Result<Symbol, Problem> {
    let unknown = || chart_problem(&ChartError::UnknownSymbol);
    let Path(text) = path.map_err(|_| invalid("symbol", "the path is not valid percent encoding of UTF-8"))?;
    Symbol::parse(text.as_bytes()).ok_or_else(unknown)
}

fn timeframe_of(query: &Query) -> Result<Timeframe, Problem> {
    let words = || Timeframe::ALL.map(Timeframe::as_str).join(", ");
    query.text("timeframe").and_then(Timeframe::parse).ok_or_else(|| invalid("timeframe", format!("must be one of {}", words())))
}

fn window_of(query: &Query) -> Result<Window, Problem> {
    let (mut start, end) = (time_of(query, "start")?, time_of(query, "end")?);
    if start.zip(end).is_some_and(|(start, end)| start > end) {
        return Err(invalid("end", "must not be before start"));
    }
    if let Some(cursor) = query.text("cursor") {
        let wrong = || invalid("cursor", "no cursor of this window");
        let after = place_of(cursor).ok_or_else(wrong)?;
        start = Some(start.filter(|start| *start <= after).map(|_| after).ok_or_else(wrong)?);
    }
    let adjusted = query.text("adjusted").is_none() || query.flag("adjusted")?;
    Ok(Window { start, end, limit: query.number("limit", 1, LIMIT_MAX, LIMIT)?, adjusted })
}

/// A time: RFC 3339, or milliseconds since the epoch, as everywhere on the wire.
fn time_of(query: &Query, field: &str) -> Result<Option<Millis>, Problem> {
    let Some(text) = query.text(field) else { return Ok(None) };
    let as_number = text.parse::<Millis>().ok();
    let as_text = || text.parse::<Timestamp>().ok().map(Timestamp::as_millisecond);
    let time = as_number.or_else(as_text);
    time.map(Some).ok_or_else(|| invalid(field, "must be a time as RFC 3339 writes it, or milliseconds since the epoch"))
}

fn cursor_at(start: Millis) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(start.to_be_bytes())
}

fn place_of(cursor: &str) -> Option<Millis> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(cursor).ok()?;
    bytes.try_into().ok().map(Millis::from_be_bytes)
}

fn now() -> Millis {
    Timestamp::now().as_millisecond()
}

#[cfg(test)]
mod tests;
