//! `/api/v1/instruments`, `/splits`, `/restricted-lists`, `/trading-states`, `/gate-settings`: what is of no single account.
//!
//! Invariant: each write is one record of `gate.control` by an administrator, answered when every shard
//! has folded it.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::accounts::limits_value;
use super::books::{Books, by, written};
use super::json::{Fields, Json, answer};
use super::page::{LIMIT, Page, PathId};
use super::words::StateWord;
use crate::api::caller::Caller;
use crate::api::problem::{ApiCode, Problem};
use crate::api::query::Query;
use crate::control::commands::{Also, ControlRecord};
use crate::domain::{Source, Symbol, TradingState};
use crate::gate::Gate;
use crate::market::symbol::SymbolState;

/// The paths.
pub fn routes() -> OpenApiRouter<Arc<Books>> {
    OpenApiRouter::new()
        .routes(routes!(list, define))
        .routes(routes!(get))
        .routes(routes!(split))
        .routes(routes!(restricted, restrict))
        .routes(routes!(states, set_state))
        .routes(routes!(settings, set_settings))
}

/// An instrument, or a new definition of one.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct InstrumentBody {
    /// Its symbol.
    #[schema(min_length = 1, max_length = 32)]
    symbol: String,
    /// Its sector; none = `UNKNOWN`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sector: Option<String>,
    /// Money per point of price; cannot change once defined. Default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    multiplier: Option<String>,
    /// The smallest step of a quantity; default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lot_size: Option<String>,
    /// The smallest step of a price; default none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tick_size: Option<String>,
    /// Its currency; default USD.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    currency: Option<String>,
    /// Fat-finger limit of one order's quantity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_order_qty: Option<String>,
    /// Fat-finger limit of one order's value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_order_value: Option<String>,
}

/// An instrument with its mark.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct InstrumentView {
    symbol: String,
    sector: String,
    multiplier: String,
    lot_size: String,
    tick_size: Option<String>,
    currency: String,
    max_order_qty: Option<String>,
    max_order_value: Option<String>,
    /// The mark; `null` where there is none.
    mark: Option<String>,
    /// The time that its age counts from, in ms since the epoch.
    mark_at: Option<i64>,
    /// How many bars are kept, by timeframe.
    #[schema(value_type = Object)]
    bars: Value,
}

/// A page of instruments, by symbol.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct InstrumentViews {
    items: Vec<InstrumentView>,
    /// The `cursor` of the next page; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// A split: each `from` units become `to`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SplitBody {
    /// The symbol.
    #[schema(min_length = 1, max_length = 32)]
    symbol: String,
    /// Units before.
    from: String,
    /// Units after.
    to: String,
}

/// A list of symbols that may not be traded, but to get out. Setting it again replaces it; no symbols remove it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RestrictedBody {
    /// Its id.
    #[schema(min_length = 1, max_length = 64)]
    list: String,
    /// Its symbols.
    symbols: Vec<String>,
    /// The accounts that it covers; left out: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    accounts: Option<Vec<String>>,
}

/// A page of restricted lists.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct RestrictedViews {
    items: Vec<RestrictedBody>,
    /// The `cursor` of the next page; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// What a trading state covers: all that is given must match; nothing = everything.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StateScopeBody {
    /// One account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    account: Option<String>,
    /// One strategy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    strategy: Option<String>,
    /// One symbol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    symbol: Option<String>,
}

/// A trading state of any scope.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ScopedStateBody {
    /// What it covers; `{}` = everything.
    #[serde(deserialize_with = "super::json::object")]
    scope: StateScopeBody,
    /// The state.
    state: StateWord,
    /// Why, for people.
    #[serde(deserialize_with = "super::json::filled")]
    #[schema(min_length = 1)]
    reason: String,
    /// Command a cancel of every working order in scope.
    #[serde(default)]
    cancel_orders: bool,
    /// Command a close of every position in scope.
    #[serde(default)]
    flatten: bool,
}

/// A trading state that was set, other than of an account alone.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct StateView {
    /// The shard that has it; what is global every shard has.
    shard: u32,
    scope: StateScopeBody,
    state: &'static str,
}

impl StateView {
    /// Where it stands in a list: no two have the same place, and names have no space.
    fn place(&self) -> String {
        let StateScopeBody { account, strategy, symbol } = &self.scope;
        let [account, strategy, symbol] = [account, strategy, symbol].map(|name| name.as_deref().unwrap_or_default());
        format!("{account} {strategy} {symbol} {:010}", self.shard)
    }
}

/// A page of trading states.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct StateViews {
    items: Vec<StateView>,
    /// The `cursor` of the next page; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

fn instrument_view(gate: &Gate, state: &SymbolState) -> Option<InstrumentView> {
    let instrument = state.instrument?;
    let bars =
        state.bars.iter().map(|(timeframe, bars)| (timeframe.to_string(), bars.len().into())).collect::<serde_json::Map<String, Value>>();
    Some(InstrumentView {
        symbol: state.symbol.to_string(),
        sector: gate.sectors().get(instrument.sector as usize)?.to_string(),
        multiplier: instrument.multiplier.to_string(),
        lot_size: instrument.lot.to_string(),
        tick_size: instrument.tick.map(|tick| tick.to_string()),
        currency: instrument.currency.to_string(),
        max_order_qty: instrument.max_order_qty.map(|qty| qty.to_string()),
        max_order_value: instrument.max_order_value.map(|value| value.to_string()),
        mark: state.mark.price().map(|mark| mark.to_string()),
        mark_at: state.mark.time(),
        bars: Value::Object(bars),
    })
}

/// Lists instruments.
#[utoipa::path(get, path = "/instruments", tag = "instruments", params(
    ("limit" = Option<u32>, Query, description = "At most so many", minimum = 1, maximum = 500),
    ("cursor" = Option<String>, Query, description = "Where the last page ended"),
), responses((status = 200, description = "Instruments by symbol", body = InstrumentViews)))]
async fn list(State(books): State<Arc<Books>>, uri: Uri) -> Result<Response, Problem> {
    let page = Page::read(&Query::read(uri.query(), &["limit", "cursor"])?)?;
    let (items, next_cursor) = books
        .ask(0, move |gate| {
            let mut known: Vec<&SymbolState> = gate.symbols().iter().filter(|state| state.instrument.is_some()).collect();
            known.sort_by_key(|state| state.symbol);
            let (states, next) = page.cut(known, |state| state.symbol.as_str());
            (states.into_iter().filter_map(|state| instrument_view(gate, state)).collect(), next)
        })
        .await?;
    Ok(answer(StatusCode::OK, &InstrumentViews { items, next_cursor }))
}

/// Shows an instrument. A `/` in its symbol is written `%2F`.
#[utoipa::path(get, path = "/instruments/{symbol}", tag = "instruments", params(("symbol" = String, Path, description = "The symbol")),
    responses((status = 200, description = "The instrument", body = InstrumentView)))]
async fn get(State(books): State<Arc<Books>>, PathId(symbol): PathId, uri: Uri) -> Result<Response, Problem> {
    Query::read(uri.query(), &[])?;
    let unknown = || Problem::new(ApiCode::UnknownObject, "the instrument was never defined");
    let symbol = Symbol::parse(symbol.as_bytes()).ok_or_else(unknown)?;
    let view = books.ask(0, move |gate| gate.symbol(symbol).and_then(|state| instrument_view(gate, state))).await?;
    Ok(answer(StatusCode::OK, &view.ok_or_else(unknown)?))
}

/// What an operation is asked with: by whom, under which `Idempotency-Key`, in which words.
struct Asked<'a> {
    caller: &'a Caller,
    what: &'a str,
    headers: &'a HeaderMap,
    bytes: &'a [u8],
    reason: Option<&'a str>,
}

async fn put(books: &Books, asked: Asked<'_>, record: ControlRecord) -> Result<Source, Problem> {
    let Asked { caller, what, headers, bytes, reason } = asked;
    caller.require_operator()?;
    let begun = books.begin(caller, what, headers, bytes, record.object.clone()).await?;
    books.write_once(caller, &begun, reason, record).await
}

/// Defines an instrument, or defines it anew.
#[utoipa::path(post, path = "/instruments", tag = "instruments", request_body = InstrumentBody, params(
    ("Idempotency-Key" = Option<String>, Header, description = "The same key defines it once only", min_length = 1, max_length = 255),
), responses((status = 201, description = "The instrument", body = InstrumentView), (status = 422, description = "Its multiplier cannot change")))]
async fn define(
    State(books): State<Arc<Books>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    uri: Uri,
    body: Json<InstrumentBody>,
) -> Result<Response, Problem> {
    Query::read(uri.query(), &[])?;
    let fields = serde_json::to_value(&body.value).unwrap_or_default();
    let record = ControlRecord::new("instrument.define", format!("instrument:{}", body.value.symbol), "instrument_defined", fields);
    let asked = Asked { caller: &caller, what: "POST /instruments", headers: &headers, bytes: &body.bytes, reason: None };
    let source = put(&books, asked, record).await?;
    let symbol = Symbol::parse(body.value.symbol.as_bytes());
    let view = books.ask(0, move |gate| gate.symbol(symbol?).and_then(|state| instrument_view(gate, state))).await?;
    Ok(written(StatusCode::CREATED, source, &view))
}

/// Splits an instrument: positions, orders, prices and bars follow.
#[utoipa::path(post, path = "/splits", tag = "instruments", request_body = SplitBody, params(
    ("Idempotency-Key" = Option<String>, Header, description = "The same key splits once only", min_length = 1, max_length = 255),
), responses((status = 201, description = "It is split", body = SplitBody), (status = 422, description = "Something would become 0, or the symbol is unknown")))]
async fn split(
    State(books): State<Arc<Books>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    uri: Uri,
    body: Json<SplitBody>,
) -> Result<Response, Problem> {
    Query::read(uri.query(), &[])?;
    let fields = serde_json::to_value(&body.value).unwrap_or_default();
    let record = ControlRecord::new("instrument.split", format!("instrument:{}", body.value.symbol), "split", fields);
    let asked = Asked { caller: &caller, what: "POST /splits", headers: &headers, bytes: &body.bytes, reason: None };
    let source = put(&books, asked, record).await?;
    Ok(written(StatusCode::CREATED, source, &body.value))
}

/// Lists the restricted lists. Of the accounts that they cover, those that you may know of.
#[utoipa::path(get, path = "/restricted-lists", tag = "instruments", params(
    ("limit" = Option<u32>, Query, description = "At most so many", minimum = 1, maximum = 500),
    ("cursor" = Option<String>, Query, description = "Where the last page ended"),
), responses((status = 200, description = "Lists by id", body = RestrictedViews)))]
async fn restricted(State(books): State<Arc<Books>>, Extension(caller): Extension<Caller>, uri: Uri) -> Result<Response, Problem> {
    let page = Page::read(&Query::read(uri.query(), &["limit", "cursor"])?)?;
    let items = books.ask(0, move |gate| {
        let name = |symbol: &u32| gate.symbols().get(*symbol as usize).map(|state| state.symbol.to_string());
        let view = |list: &crate::gate::RestrictedSymbols| {
            let covered = list.accounts.iter().map(ToString::to_string).filter(|account| caller.may_read(account));
            let accounts: Option<Vec<String>> = (!list.accounts.is_empty()).then(|| covered.collect());
            if accounts.as_ref().is_some_and(Vec::is_empty) {
                return None;
            }
            let mut symbols: Vec<String> = list.symbols.iter().filter_map(name).collect();
            symbols.sort_unstable();
            Some(RestrictedBody { list: list.list.to_string(), symbols, accounts })
        };
        let mut items: Vec<RestrictedBody> = gate.restricted_lists().iter().filter_map(view).collect();
        items.sort_by(|a, b| a.list.cmp(&b.list));
        items
    });
    let (items, next_cursor) = page.cut(items.await?, |it| it.list.as_str());
    Ok(answer(StatusCode::OK, &RestrictedViews { items, next_cursor }))
}

/// Sets a restricted list.
#[utoipa::path(post, path = "/restricted-lists", tag = "instruments", request_body = RestrictedBody, params(
    ("Idempotency-Key" = Option<String>, Header, description = "The same key sets it once only", min_length = 1, max_length = 255),
), responses((status = 201, description = "The list", body = RestrictedBody)))]
async fn restrict(
    State(books): State<Arc<Books>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    uri: Uri,
    body: Json<RestrictedBody>,
) -> Result<Response, Problem> {
    Query::read(uri.query(), &[])?;
    let fields = serde_json::to_value(&body.value).unwrap_or_default();
    let record = ControlRecord::new("restricted_list.set", format!("restricted_list:{}", body.value.list), "restricted_list_set", fields);
    let asked = Asked { caller: &caller, what: "POST /restricted-lists", headers: &headers, bytes: &body.bytes, reason: None };
    let source = put(&books, asked, record).await?;
    Ok(written(StatusCode::CREATED, source, &body.value))
}

/// Lists the trading states that hold more than one account, or one with a strategy.
#[utoipa::path(get, path = "/trading-states", tag = "instruments", params(
    ("limit" = Option<u32>, Query, description = "At most so many", minimum = 1, maximum = 500),
    ("cursor" = Option<String>, Query, description = "Where the last page ended"),
), responses((status = 200, description = "The states other than active", body = StateViews)))]
async fn states(State(books): State<Arc<Books>>, Extension(caller): Extension<Caller>, uri: Uri) -> Result<Response, Problem> {
    let page = Page::read(&Query::read(uri.query(), &["limit", "cursor"])?)?;
    Ok(answer(StatusCode::OK, &states_page(&books, &caller, &page).await?))
}

/// The states of all shards, by scope.
async fn states_page(books: &Arc<Books>, caller: &Caller, page: &Page) -> Result<StateViews, Problem> {
    let mut named = Vec::new();
    for shard in 0..books.replicas.count() {
        let caller = caller.clone();
        named.extend(books.ask(shard, move |gate| states_of(gate, &caller)).await?.into_iter().map(|state| (state.place(), state)));
    }
    named.sort_by(|(a, _), (b, _)| a.cmp(b));
    let (named, next_cursor) = page.cut(named, |(place, _)| place.as_str());
    Ok(StateViews { items: named.into_iter().map(|(_, state)| state).collect(), next_cursor })
}

fn states_of(gate: &Gate, caller: &Caller) -> Vec<StateView> {
    let view = |(scope, state): (crate::domain::StateScope, TradingState)| StateView {
        shard: gate.shard(),
        scope: StateScopeBody {
            account: scope.account.map(|id| id.to_string()),
            strategy: scope.strategy.map(|id| id.to_string()),
            symbol: scope.symbol.map(|symbol| symbol.to_string()),
        },
        state: state.as_str(),
    };
    let known = |scope: &crate::domain::StateScope| scope.account.is_none_or(|account| caller.may_read(account.as_str()));
    gate.scope_states().filter(|(scope, state)| known(scope) && *state != TradingState::Active).map(view).collect()
}

/// Sets a trading state of any scope: of everything, a symbol, a strategy, an account.
#[utoipa::path(post, path = "/trading-states", tag = "instruments", request_body = ScopedStateBody, params(
    ("Idempotency-Key" = Option<String>, Header, description = "The same key sets it once only", min_length = 1, max_length = 255),
), responses((status = 201, description = "The first page of the states other than active", body = StateViews)))]
async fn set_state(
    State(books): State<Arc<Books>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    uri: Uri,
    body: Json<ScopedStateBody>,
) -> Result<Response, Problem> {
    Query::read(uri.query(), &[])?;
    let ScopedStateBody { scope, state, reason, cancel_orders, flatten } = body.value;
    let word = match state {
        StateWord::Active => TradingState::Active,
        StateWord::ReduceOnly => TradingState::ReduceOnly,
        StateWord::Halted => TradingState::Halted,
    };
    let scope = serde_json::to_value(&scope).unwrap_or_default();
    let also = Also { cancel_orders, flatten };
    let object = format!("scope:{scope}");
    let record = ControlRecord::trading_state("state.set", object, scope, word.as_str(), also, &by(&caller, Some(&reason)));
    let asked = Asked { caller: &caller, what: "POST /trading-states", headers: &headers, bytes: &body.bytes, reason: Some(&reason) };
    let source = put(&books, asked, record).await?;
    let first = Page { limit: LIMIT, after: None };
    Ok(written(StatusCode::CREATED, source, &states_page(&books, &caller, &first).await?))
}

/// Shows the settings of the gate, and the limits that hold for accounts that say nothing.
#[utoipa::path(get, path = "/gate-settings", tag = "instruments", responses((status = 200, description = "The settings", body = Object)))]
async fn settings(State(books): State<Arc<Books>>, uri: Uri) -> Result<Response, Problem> {
    Query::read(uri.query(), &[])?;
    Ok(answer(StatusCode::OK, &books.ask(0, settings_value).await?))
}

fn settings_value(gate: &Gate) -> Value {
    let values = gate.settings();
    let mut fields = json!({
        "max_intent_age_ms": values.max_intent_age_ms, "valuation_grid_ms": values.valuation_grid_ms, "id_memory_ms": values.id_memory_ms,
        "command_timeout_ms": values.command_timeout_ms, "episode_quiet_ms": values.episode_quiet_ms,
        "sizing_percent": values.sizing_percent.to_string(),
    });
    if let (Value::Object(fields), Value::Object(limits)) = (&mut fields, limits_value(gate.default_limits())) {
        fields.extend(limits);
    }
    fields
}

/// Sets settings of the gate, and limits as defaults of every account: what is left out stays, `null` puts it back.
#[utoipa::path(post, path = "/gate-settings", tag = "instruments", request_body = Object, responses((status = 200, description = "The settings", body = Object)))]
async fn set_settings(
    State(books): State<Arc<Books>>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
    body: Json<Fields>,
) -> Result<Response, Problem> {
    Query::read(uri.query(), &[])?;
    let Fields(fields) = body.value;
    if fields.contains_key("event") {
        return Err(Problem::new(ApiCode::InvalidField, "no setting").field("event"));
    }
    caller.require_operator()?;
    let record = ControlRecord::new("settings.set", "settings:gate", "gate_settings_set", Value::Object(fields));
    let record = record.replacing(books.ask(0, settings_value).await?);
    let source = books.write(&caller, None, record).await?;
    Ok(written(StatusCode::OK, source, &books.ask(0, settings_value).await?))
}
