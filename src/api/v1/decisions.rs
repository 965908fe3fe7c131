//! `/api/v1/decisions`: what was decided, and why.
//!
//! Invariant: a decision is shown as it stands in `gate.decisions`; whoever may not know of its account
//! does not find it. An answer says when older decisions are still being indexed.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::books::{Books, index_problem, replica_problem, unknown_account};
use super::json::answer;
use super::page::{LIMIT, LIMIT_MAX, PathId};
use crate::api::caller::Caller;
use crate::api::problem::{ApiCode, Problem};
use crate::api::query::Query;
use crate::control::decisions::Filter;
use crate::domain::{AccountId, Millis, ReasonCode, Symbol, Verdict};

/// The paths.
pub fn routes() -> OpenApiRouter<Arc<Books>> {
    OpenApiRouter::new().routes(routes!(search)).routes(routes!(get))
}

/// A page of decisions, newest first. It may hold fewer than asked for, also none, and still have a next one.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct DecisionPage {
    /// The decisions (docs/WIRE.md, Outputs).
    #[schema(value_type = Vec<Object>)]
    pub items: Vec<Value>,
    /// The `cursor` of the next page; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
    /// All decisions that are kept are indexed; otherwise older ones are still on their way.
    pub complete: bool,
}

/// Reads the filters of a search.
pub(super) fn filter_of(query: &Query) -> Result<Filter, Problem> {
    let wrong = |field: &str, what: &str| Problem::new(ApiCode::InvalidParameter, what).field(field);
    let read = |field: &'static str, what: &'static str| query.text(field).map(|text| (text, wrong(field, what)));
    let verdict = read("verdict", "allow, allow_reduced or block").map(|(text, wrong)| Verdict::parse(text).ok_or(wrong)).transpose()?;
    let code = read("code", "no code of a reason").map(|(text, wrong)| ReasonCode::parse(text).ok_or(wrong)).transpose()?;
    let symbol = read("symbol", "no symbol").map(|(text, wrong)| Symbol::parse(text.as_bytes()).ok_or(wrong)).transpose()?;
    let time = "a time as RFC 3339 writes it, or milliseconds since the epoch";
    let from = read("from", time).map(|(text, wrong)| moment(text).ok_or(wrong)).transpose()?;
    let to = read("to", time).map(|(text, wrong)| moment(text).ok_or(wrong)).transpose()?;
    Ok(Filter { accounts: None, verdict, code, symbol, from, to })
}

pub(super) fn moment(text: &str) -> Option<Millis> {
    text.parse::<Millis>().ok().or_else(|| text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_millisecond))
}

/// Searches decisions.
#[utoipa::path(get, path = "/decisions", tag = "decisions", params(
    ("account" = Option<String>, Query, description = "Of this account"),
    ("verdict" = Option<String>, Query, description = "`allow`, `allow_reduced` or `block`"),
    ("code" = Option<String>, Query, description = "With a reason of this code"),
    ("symbol" = Option<String>, Query, description = "About this symbol"),
    ("from" = Option<String>, Query, description = "Not earlier (RFC 3339, or ms since the epoch)"),
    ("to" = Option<String>, Query, description = "Earlier than this"),
    ("limit" = Option<u32>, Query, description = "At most so many", minimum = 1, maximum = 500),
    ("cursor" = Option<String>, Query, description = "Where the last page ended"),
), responses((status = 200, description = "Decisions, newest first", body = DecisionPage)))]
async fn search(State(books): State<Arc<Books>>, Extension(caller): Extension<Caller>, uri: Uri) -> Result<Response, Problem> {
    let query = Query::read(uri.query(), &["account", "verdict", "code", "symbol", "from", "to", "limit", "cursor"])?;
    let mut filter = filter_of(&query)?;
    filter.accounts = match query.text("account") {
        Some(account) => {
            let account = AccountId::parse(account.as_bytes()).filter(|id| caller.may_read(id.as_str())).ok_or_else(unknown_account)?;
            Some(BTreeSet::from([account]))
        }
        None => visible(&books, &caller).await?,
    };
    found(&books, &query, filter).await
}

/// The accounts that a caller may know of; `None` of one who may know of all, also of such that were never opened.
async fn visible(books: &Arc<Books>, caller: &Caller) -> Result<Option<BTreeSet<AccountId>>, Problem> {
    if caller.is_admin() {
        return Ok(None);
    }
    let mut visible = BTreeSet::new();
    for shard in 0..books.replicas.count() {
        let caller = caller.clone();
        let ids = books.ask(shard, move |gate| {
            let ids = gate.accounts().iter().map(|account| account.id);
            ids.filter(|id| caller.may_read(id.as_str())).collect::<Vec<_>>()
        });
        visible.extend(ids.await?);
    }
    Ok(Some(visible))
}

/// The page of a search.
pub(super) async fn found(books: &Arc<Books>, query: &Query, filter: Filter) -> Result<Response, Problem> {
    let limit = query.number("limit", 1, LIMIT_MAX, LIMIT)?;
    books.freshen_all().await?;
    let cursor = query.text("cursor").map(str::to_owned);
    let index = books.decisions.clone();
    let search =
        move || Ok::<_, crate::control::decisions::IndexError>((index.search(&filter, cursor.as_deref(), limit)?, index.coverage()));
    let searched =
        tokio::task::spawn_blocking(search).await.map_err(|_| replica_problem(crate::control::replica::ReplicaError::Stopped))?;
    let (page, coverage) = searched.map_err(|error| index_problem(&error))?;
    let wrong = || Problem::new(ApiCode::InvalidParameter, "no cursor of this search").field("cursor");
    let page = page.ok_or_else(wrong)?;
    let items = page.decisions.iter().filter_map(|json| serde_json::from_slice(json).ok()).collect();
    Ok(answer(StatusCode::OK, &DecisionPage { items, next_cursor: page.next, complete: coverage.complete }))
}

/// Shows one decision, with all its reasons and the place of its intent.
#[utoipa::path(get, path = "/decisions/{id}", tag = "decisions", params(("id" = String, Path, description = "`decision_id`: SHARD-SEQ")),
    responses((status = 200, description = "The decision (docs/WIRE.md, Outputs)", body = Object)))]
async fn get(
    State(books): State<Arc<Books>>,
    Extension(caller): Extension<Caller>,
    PathId(id): PathId,
    uri: Uri,
) -> Result<Response, Problem> {
    Query::read(uri.query(), &[])?;
    let unknown = || Problem::new(ApiCode::UnknownObject, "there is no such decision, or it is not indexed yet");
    let plain = |text: &str| text == "0" || (!text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit()));
    let (shard, seq) = id.split_once('-').filter(|(shard, seq)| plain(shard) && plain(seq)).ok_or_else(unknown)?;
    let (Ok(shard), Ok(seq)) = (shard.parse::<u32>(), seq.parse::<u64>()) else { return Err(unknown()) };
    books.freshen_all().await?;
    let index = books.decisions.clone();
    let found = tokio::task::spawn_blocking(move || index.find(shard, seq)).await;
    let found =
        found.map_err(|_| replica_problem(crate::control::replica::ReplicaError::Stopped))?.map_err(|error| index_problem(&error))?;
    let decision: Value = found.and_then(|json| serde_json::from_slice(&json).ok()).ok_or_else(unknown)?;
    let known = decision["account"].as_str().is_some_and(|account| caller.may_read(account));
    if known { Ok(answer(StatusCode::OK, &decision)) } else { Err(unknown()) }
}
