//! `/api/v1/accounts`: books to read.
//!
//! Invariant: a book is shown as it was between two records, and whoever may not know of it is told that
//! there is none. Deliberately absent: what changes a book (`account_writes.rs`).

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::books::Books;
use super::decisions::{DecisionPage, filter_of, found};
use super::json::answer;
use super::page::{Page, PathId};
use super::words::{figure, units_text};
use crate::api::caller::Caller;
use crate::api::health::json_bytes;
use crate::api::problem::Problem;
use crate::api::query::Query;
use crate::book::Position;
use crate::domain::{AccountId, Limits, Patch, Price};
use crate::gate::{Account, Gate};
use crate::risk::figures::{equity, unrealized};
use crate::wire;

/// The paths.
pub fn routes() -> OpenApiRouter<Arc<Books>> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(get))
        .routes(routes!(orders))
        .routes(routes!(positions))
        .routes(routes!(decisions))
        .routes(routes!(limits))
}

/// An account in a list.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct AccountView {
    account: String,
    owner: String,
    currency: String,
    cash: String,
    /// `null` when a mark is missing or it leaves its type.
    equity: Option<String>,
    /// Its own trading state.
    state: &'static str,
    closed: bool,
    /// The rules whose latches are tripped.
    latches: Vec<String>,
}

/// A page of accounts, by id.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct AccountViews {
    items: Vec<AccountView>,
    /// The `cursor` of the next page; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// A working order.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct OrderView {
    client_order_id: String,
    symbol: String,
    side: &'static str,
    order_type: &'static str,
    /// What is approved in total.
    qty: String,
    filled: String,
    leaves: String,
    limit_price: Option<String>,
    stop_price: Option<String>,
    trail_price: Option<String>,
    trail_percent: Option<String>,
    time_in_force: &'static str,
    strategy: Option<String>,
    /// The decision that let it work.
    decision_id: String,
    /// When that was, in ms since the epoch.
    at: i64,
}

/// A page of working orders, by id.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct OrderViews {
    items: Vec<OrderView>,
    /// The `cursor` of the next page; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// A position.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct PositionView {
    symbol: String,
    sector: String,
    /// Short below zero.
    qty: String,
    /// `null` when flat.
    avg_price: Option<String>,
    /// `null` where there is none.
    mark: Option<String>,
    /// At mark; short below zero.
    value: Option<String>,
    unrealized: Option<String>,
    realized: String,
    /// The leaves of working buys.
    buy_leaves: String,
    /// The leaves of working sells.
    sell_leaves: String,
    /// The trading state of this account and symbol.
    state: &'static str,
}

/// A page of positions, by symbol.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct PositionViews {
    items: Vec<PositionView>,
    /// The `cursor` of the next page; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// The limits of an account.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct LimitsView {
    /// What the account has set; `null` turns a default off.
    #[schema(value_type = Object)]
    own: Value,
    /// What holds for accounts that say nothing.
    #[schema(value_type = Object)]
    defaults: Value,
}

fn list_query(uri: &Uri) -> Result<Page, Problem> {
    Page::read(&Query::read(uri.query(), &["limit", "cursor"])?)
}

/// Lists accounts.
#[utoipa::path(get, path = "/accounts", tag = "accounts", params(
    ("limit" = Option<u32>, Query, description = "At most so many", minimum = 1, maximum = 500),
    ("cursor" = Option<String>, Query, description = "Where the last page ended"),
), responses((status = 200, description = "Accounts by id", body = AccountViews)))]
async fn list(State(books): State<Arc<Books>>, Extension(caller): Extension<Caller>, uri: Uri) -> Result<Response, Problem> {
    let page = list_query(&uri)?;
    let mut found: Vec<AccountView> = Vec::new();
    for shard in 0..books.replicas.count() {
        let (caller, page) = (caller.clone(), page.clone());
        found.extend(books.ask(shard, move |gate| first_of(gate, &caller, &page)).await?);
    }
    found.sort_by(|a, b| a.account.cmp(&b.account));
    let (items, next_cursor) = page.cut(found, |view| &view.account);
    Ok(answer(StatusCode::OK, &AccountViews { items, next_cursor }))
}

/// The first accounts of a shard behind a cursor, one more than the page holds.
fn first_of(gate: &Gate, caller: &Caller, page: &Page) -> Vec<AccountView> {
    let after = |id: &AccountId| page.after.as_deref().is_none_or(|after| id.as_str() > after);
    let mut known: Vec<&Account> =
        gate.accounts().iter().filter(|account| after(&account.id) && caller.may_read(account.id.as_str())).collect();
    if known.len() > page.limit + 1 {
        known.select_nth_unstable_by_key(page.limit, |account| account.id);
        known.truncate(page.limit + 1);
    }
    known.into_iter().map(|account| account_view(gate, account)).collect()
}

/// An account as lists show it.
pub(super) fn account_view(gate: &Gate, account: &Account) -> AccountView {
    AccountView {
        account: account.id.to_string(),
        owner: account.owner.to_string(),
        currency: account.currency.to_string(),
        cash: account.cash.to_string(),
        equity: equity(account, gate.symbols()).ok().map(|equity| equity.to_string()),
        state: account.state.as_str(),
        closed: account.closed,
        latches: gate.latches(account).map(|state| state.rule.id.to_string()).collect(),
    }
}

/// Shows an account's book.
#[utoipa::path(get, path = "/accounts/{id}", tag = "accounts", params(("id" = String, Path, description = "The account")),
    responses((status = 200, description = "The book (docs/WIRE.md, Over HTTP)", body = Object)))]
async fn get(
    State(books): State<Arc<Books>>,
    Extension(caller): Extension<Caller>,
    PathId(id): PathId,
    uri: Uri,
) -> Result<Response, Problem> {
    Query::read(uri.query(), &[])?;
    let book = books.ask_of(&caller, &id, |gate, account| {
        let mut json = Vec::new();
        wire::encode_account(&mut json, gate.seq(), &gate.book(account)?);
        Some(json)
    });
    Ok(json_bytes(book.await?))
}

/// Lists the working orders of an account.
#[utoipa::path(get, path = "/accounts/{id}/orders", tag = "accounts", params(
    ("id" = String, Path, description = "The account"),
    ("limit" = Option<u32>, Query, description = "At most so many", minimum = 1, maximum = 500),
    ("cursor" = Option<String>, Query, description = "Where the last page ended"),
), responses((status = 200, description = "Working orders by id", body = OrderViews)))]
async fn orders(
    State(books): State<Arc<Books>>,
    Extension(caller): Extension<Caller>,
    PathId(id): PathId,
    uri: Uri,
) -> Result<Response, Problem> {
    let page = list_query(&uri)?;
    let mut orders = books.ask_of(&caller, &id, |gate, account| Some(orders_of(gate, gate.account(account)?))).await?;
    orders.sort_by(|a, b| a.client_order_id.cmp(&b.client_order_id));
    let (items, next_cursor) = page.cut(orders, |order| &order.client_order_id);
    Ok(answer(StatusCode::OK, &OrderViews { items, next_cursor }))
}

fn orders_of(gate: &Gate, account: &Account) -> Vec<OrderView> {
    let text = |price: Option<Price>| price.map(|price| price.to_string());
    let legs = account.positions.iter().flat_map(|position| account.orders.legs(position));
    let view = |entry: &crate::book::Entry| {
        let order = entry.order()?;
        Some(OrderView {
            client_order_id: order.client_order_id.to_string(),
            symbol: gate.symbols().get(order.symbol as usize)?.symbol.to_string(),
            side: order.side.as_str(),
            order_type: order.order_type.as_str(),
            qty: units_text(entry.total.into()),
            filled: units_text(entry.filled.into()),
            leaves: units_text(entry.leaves().into()),
            limit_price: text(entry.prices.limit),
            stop_price: text(entry.prices.stop),
            trail_price: text(entry.prices.trail_price),
            trail_percent: entry.prices.trail_percent.map(|percent| percent.to_string()),
            time_in_force: order.time_in_force.as_str(),
            strategy: gate.strategy(order.strategy).map(|strategy| strategy.to_string()),
            decision_id: format!("{}-{}", gate.shard(), entry.seq),
            at: entry.at,
        })
    };
    legs.filter_map(|(_, entry)| view(entry)).collect()
}

/// Lists the positions of an account: every symbol ever filled.
#[utoipa::path(get, path = "/accounts/{id}/positions", tag = "accounts", params(
    ("id" = String, Path, description = "The account"),
    ("limit" = Option<u32>, Query, description = "At most so many", minimum = 1, maximum = 500),
    ("cursor" = Option<String>, Query, description = "Where the last page ended"),
), responses((status = 200, description = "Positions by symbol", body = PositionViews)))]
async fn positions(
    State(books): State<Arc<Books>>,
    Extension(caller): Extension<Caller>,
    PathId(id): PathId,
    uri: Uri,
) -> Result<Response, Problem> {
    let page = list_query(&uri)?;
    let positions = books.ask_of(&caller, &id, |gate, account| {
        let shown = gate.account(account)?.positions.iter().filter(|position| position.ever_filled || position.is_open());
        Some(shown.filter_map(|position| position_view(gate, position)).collect::<Vec<_>>())
    });
    let mut positions = positions.await?;
    positions.sort_by(|a, b| a.symbol.cmp(&b.symbol));
    let (items, next_cursor) = page.cut(positions, |position| &position.symbol);
    Ok(answer(StatusCode::OK, &PositionViews { items, next_cursor }))
}

fn position_view(gate: &Gate, position: &Position) -> Option<PositionView> {
    let state = gate.symbols().get(position.symbol as usize)?;
    let mark = state.mark.price();
    let holding = &position.holding;
    Some(PositionView {
        symbol: state.symbol.to_string(),
        sector: gate.sectors().get(state.sector() as usize)?.to_string(),
        qty: units_text(holding.qty.into()),
        avg_price: figure(holding.average_price()),
        mark: mark.map(|mark| mark.to_string()),
        value: mark.and_then(|mark| holding.value_at(mark, state.multiplier())).map(|value| value.to_string()),
        unrealized: unrealized(position, state).map(|gain| gain.to_string()),
        realized: holding.realized.to_string(),
        buy_leaves: units_text(position.buy_leaves.into()),
        sell_leaves: units_text(position.sell_leaves.into()),
        state: position.state.as_str(),
    })
}

/// Searches the decisions of an account.
#[utoipa::path(get, path = "/accounts/{id}/decisions", tag = "accounts", params(
    ("id" = String, Path, description = "The account"),
    ("verdict" = Option<String>, Query, description = "`allow`, `allow_reduced` or `block`"),
    ("code" = Option<String>, Query, description = "With a reason of this code"),
    ("symbol" = Option<String>, Query, description = "About this symbol"),
    ("from" = Option<String>, Query, description = "Not earlier (RFC 3339, or ms since the epoch)"),
    ("to" = Option<String>, Query, description = "Earlier than this"),
    ("limit" = Option<u32>, Query, description = "At most so many", minimum = 1, maximum = 500),
    ("cursor" = Option<String>, Query, description = "Where the last page ended"),
), responses((status = 200, description = "Decisions, newest first", body = DecisionPage)))]
async fn decisions(
    State(books): State<Arc<Books>>,
    Extension(caller): Extension<Caller>,
    PathId(id): PathId,
    uri: Uri,
) -> Result<Response, Problem> {
    let query = Query::read(uri.query(), &["verdict", "code", "symbol", "from", "to", "limit", "cursor"])?;
    let mut filter = filter_of(&query)?;
    let account = books.ask_of(&caller, &id, |gate, account| gate.account(account).map(|account| account.id)).await?;
    filter.accounts = Some(BTreeSet::from([account]));
    found(&books, &query, filter).await
}

/// Shows the limits of an account.
#[utoipa::path(get, path = "/accounts/{id}/limits", tag = "accounts", params(("id" = String, Path, description = "The account")),
    responses((status = 200, description = "Its limits, and the defaults", body = LimitsView)))]
async fn limits(
    State(books): State<Arc<Books>>,
    Extension(caller): Extension<Caller>,
    PathId(id): PathId,
    uri: Uri,
) -> Result<Response, Problem> {
    Query::read(uri.query(), &[])?;
    let view = books.ask_of(&caller, &id, |gate, account| {
        Some(LimitsView { own: limits_value(&gate.account(account)?.limits), defaults: limits_value(gate.default_limits()) })
    });
    Ok(answer(StatusCode::OK, &view.await?))
}

/// Limits as records have them: what is not given is absent, what is turned off `null`.
pub(super) fn limits_value(limits: &Limits) -> Value {
    fn put<T>(fields: &mut Value, name: &str, patch: &Patch<T>, text: impl Fn(&T) -> Value) {
        match patch {
            Patch::Keep => {}
            Patch::Clear => fields[name] = Value::Null,
            Patch::Set(value) => fields[name] = text(value),
        }
    }
    let mut fields = json!({});
    put(&mut fields, "max_order_qty", &limits.max_order_qty, |qty| qty.to_string().into());
    put(&mut fields, "max_order_value", &limits.max_order_value, |money| money.to_string().into());
    put(&mut fields, "price_collar_percent", &limits.price_collar_percent, |percent| percent.to_string().into());
    put(&mut fields, "price_collar_mode", &limits.price_collar_mode, |mode| mode.as_str().into());
    put(&mut fields, "max_price_age_ms", &limits.max_price_age_ms, |ms| (*ms).into());
    put(&mut fields, "order_rate_limit", &limits.order_rate_limit, |count| (*count).into());
    put(&mut fields, "order_rate_window_ms", &limits.order_rate_window_ms, |ms| (*ms).into());
    put(&mut fields, "duplicate_window_ms", &limits.duplicate_window_ms, |ms| (*ms).into());
    put(&mut fields, "self_trade_prevention", &limits.self_trade_prevention, |on| (*on).into());
    put(&mut fields, "notify", &limits.notify, |types| types.iter().map(|kind| kind.as_str()).collect::<Vec<_>>().into());
    fields
}
