//! What changes accounts: opened, closed, paid in, limited, halted, killed, released.
//!
//! Invariant: each is one record of `gate.control`, answered when every shard has folded it, with its
//! position. Owners may stop their own accounts; to let one go on, to move its money and to loosen what
//! holds it needs an administrator.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::accounts::{AccountView, account_view, limits_value};
use super::books::{Books, by, written};
use super::json::{Json, answer, filled, optional_object};
use super::page::PathId;
use super::risk_rules::OWNERS_MAX;
use super::words::StateWord;
use crate::api::caller::Caller;
use crate::api::problem::{ApiCode, Problem};
use crate::api::query::Query;
use crate::control::commands::{Also, ControlRecord};
use crate::domain::{AccountId, Source, StateScope, StrategyId, Symbol, TradingState};
use crate::gate::Gate;

/// The paths.
pub fn routes() -> OpenApiRouter<Arc<Books>> {
    OpenApiRouter::new()
        .routes(routes!(open))
        .routes(routes!(close))
        .routes(routes!(cash))
        .routes(routes!(set_limits))
        .routes(routes!(set_state))
        .routes(routes!(kill, killing))
        .routes(routes!(release))
}

/// A field whose `null` says something else than its absence.
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<Option<T>>, D::Error> {
    Option::<T>::deserialize(deserializer).map(Some)
}

/// Limits: what is left out stays, `null` turns a limit off, also a default.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LimitsBody {
    /// Fat-finger limit of one order's quantity.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    max_order_qty: Option<Option<String>>,
    /// Fat-finger limit of one order's value.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    max_order_value: Option<Option<String>>,
    /// How much worse than the reference a limit price may be, in percent.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    price_collar_percent: Option<Option<String>>,
    /// `adverse` or `two_sided`.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    price_collar_mode: Option<Option<String>>,
    /// How old a mark may be; 0 = any age.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>)]
    max_price_age_ms: Option<Option<i64>>,
    /// How many intents a window may hold.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u32>)]
    order_rate_limit: Option<Option<u32>>,
    /// The window of the rate.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>)]
    order_rate_window_ms: Option<Option<i64>>,
    /// How long equal orders under other ids are refused.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>)]
    duplicate_window_ms: Option<Option<i64>>,
    /// Whether orders that would meet the account's own are refused.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<bool>)]
    self_trade_prevention: Option<Option<bool>>,
    /// The types of notification that are wanted besides those that always come.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    notify: Option<Option<Vec<String>>>,
}

/// A new account.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OpenBody {
    /// Its id.
    #[schema(min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9._:-]+$")]
    account: String,
    /// The user that it belongs to.
    #[schema(min_length = 1, max_length = 64)]
    owner: String,
    /// What it starts with.
    cash: String,
    /// Its currency; default USD.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    currency: Option<String>,
    /// When its trading day ends: `HH:MM Zone`; default `00:00 UTC`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    day_roll: Option<String>,
    /// Its limits.
    #[serde(default, deserialize_with = "optional_object", skip_serializing_if = "Option::is_none")]
    limits: Option<LimitsBody>,
}

/// Why something is done.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReasonBody {
    /// Why, for people.
    #[serde(deserialize_with = "filled")]
    #[schema(min_length = 1)]
    reason: String,
}

/// Money that comes or goes.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CashBody {
    /// Deposit above zero, withdrawal below.
    amount: String,
    /// Why, for people.
    #[serde(deserialize_with = "filled")]
    #[schema(min_length = 1)]
    reason: String,
}

/// A trading state.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StateBody {
    /// The state.
    state: StateWord,
    /// Only of this symbol.
    #[serde(default)]
    symbol: Option<String>,
    /// Only of this strategy.
    #[serde(default)]
    strategy: Option<String>,
    /// Why, for people.
    #[serde(deserialize_with = "filled")]
    #[schema(min_length = 1)]
    reason: String,
    /// Command a cancel of every working order in scope.
    #[serde(default)]
    cancel_orders: bool,
    /// Command a close of every position in scope.
    #[serde(default)]
    flatten: bool,
}

/// A latch is taken off.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReleaseBody {
    /// Why, for people.
    #[serde(deserialize_with = "filled")]
    #[schema(min_length = 1)]
    reason: String,
    /// Also measure the drawdown from here on.
    #[serde(default)]
    reset_hwm: bool,
}

/// What a kill switch has done, and what is still to do.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct KillView {
    account: String,
    /// The ledger sequence of the book that was looked at.
    seq: u64,
    /// The strictest state that covers the account.
    state: &'static str,
    /// Nothing is held, nothing works, and nothing new is allowed: the fills have proved it.
    done: bool,
    /// Positions are still being closed.
    flattening: bool,
    /// The venue has not confirmed a close: somebody must look.
    close_not_confirmed: bool,
    positions: Vec<KillPosition>,
    working: Vec<KillOrder>,
    commands: Vec<KillCommand>,
}

/// A position that is still open.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct KillPosition {
    symbol: String,
    qty: String,
    buy_leaves: String,
    sell_leaves: String,
    /// What neither working orders nor commands cover.
    uncovered: String,
}

/// An order that still works.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct KillOrder {
    client_order_id: String,
    symbol: String,
    side: &'static str,
    leaves: String,
}

/// A close command that is not over.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct KillCommand {
    command_id: String,
    symbol: String,
    side: &'static str,
    /// What executions have left of it.
    rest: String,
    /// When it was sent, in ms since the epoch.
    at: i64,
    /// Executions came under its id.
    answered: bool,
}

async fn shown(books: &Books, caller: &Caller, account: &str, source: Source, status: StatusCode) -> Result<Response, Problem> {
    let view: AccountView = books.ask_of(caller, account, |gate, id| gate.account(id).map(|account| account_view(gate, account))).await?;
    Ok(written(status, source, &view))
}

/// What the audit calls an account.
fn object(account: AccountId) -> String {
    format!("account:{account}")
}

/// The operation that an `Idempotency-Key` is of.
fn what(account: &str, does: &str) -> String {
    format!("POST /accounts/{account}/{does}")
}

/// Opens an account.
#[utoipa::path(post, path = "/accounts", tag = "accounts", request_body = OpenBody, params(
    ("Idempotency-Key" = Option<String>, Header, description = "The same key opens one account, once only", min_length = 1, max_length = 255),
), responses((status = 201, description = "The account", body = AccountView), (status = 422, description = "It exists, or is none")))]
async fn open(
    State(books): State<Arc<Books>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    uri: Uri,
    body: Json<OpenBody>,
) -> Result<Response, Problem> {
    Query::read(uri.query(), &[])?;
    caller.require_operator()?;
    let account = body.value.account.clone();
    let fields = serde_json::to_value(&body.value).unwrap_or_default();
    let begun = books.begin(&caller, "POST /accounts", &headers, &body.bytes, account.clone()).await?;
    let record = ControlRecord::new("account.open", format!("account:{account}"), "account_opened", fields);
    let source = books.write_once(&caller, &begun, None, record).await?;
    shown(&books, &caller, &account, source, StatusCode::CREATED).await
}

/// Closes an account that is flat with nothing working.
#[utoipa::path(post, path = "/accounts/{id}/close", tag = "accounts", request_body = ReasonBody, params(("id" = String, Path, description = "The account")),
    responses((status = 200, description = "The account", body = AccountView), (status = 422, description = "It is not flat")))]
async fn close(
    State(books): State<Arc<Books>>,
    Extension(caller): Extension<Caller>,
    PathId(id): PathId,
    uri: Uri,
    body: Json<ReasonBody>,
) -> Result<Response, Problem> {
    Query::read(uri.query(), &[])?;
    let account = administered(&books, &caller, &id).await?;
    let record = ControlRecord::new("account.close", object(account), "account_closed", json!({"account": id}));
    let source = books.write(&caller, Some(&body.value.reason), record).await?;
    shown(&books, &caller, &id, source, StatusCode::OK).await
}

/// The account, for an administrator; for everyone else it is unknown, or not theirs to change.
async fn administered(books: &Books, caller: &Caller, account: &str) -> Result<AccountId, Problem> {
    let known = books.ask_of(caller, account, |gate, id| gate.account(id).map(|account| account.id)).await?;
    caller.require_operator().map(|()| known)
}

/// Moves money in or out. It is neither profit nor loss.
#[utoipa::path(post, path = "/accounts/{id}/cash", tag = "accounts", request_body = CashBody, params(
    ("id" = String, Path, description = "The account"),
    ("Idempotency-Key" = Option<String>, Header, description = "The same key moves the money once only", min_length = 1, max_length = 255),
), responses((status = 200, description = "The account", body = AccountView)))]
async fn cash(
    State(books): State<Arc<Books>>,
    Extension(caller): Extension<Caller>,
    PathId(id): PathId,
    headers: HeaderMap,
    uri: Uri,
    body: Json<CashBody>,
) -> Result<Response, Problem> {
    Query::read(uri.query(), &[])?;
    let account = administered(&books, &caller, &id).await?;
    let begun = books.begin(&caller, &what(&id, "cash"), &headers, &body.bytes, id.clone()).await?;
    let CashBody { amount, reason } = body.value;
    let why = format!("{reason} ({})", caller.name);
    let record =
        ControlRecord::new("account.cash", object(account), "cash_adjusted", json!({"account": id, "amount": amount, "reason": why}));
    let source = books.write_once(&caller, &begun, Some(&reason), record).await?;
    shown(&books, &caller, &id, source, StatusCode::OK).await
}

/// Sets limits of an account.
#[utoipa::path(post, path = "/accounts/{id}/limits", tag = "accounts", request_body = LimitsBody, params(
    ("id" = String, Path, description = "The account"),
    ("Idempotency-Key" = Option<String>, Header, description = "The same key sets them once only", min_length = 1, max_length = 255),
), responses((status = 200, description = "The account", body = AccountView)))]
async fn set_limits(
    State(books): State<Arc<Books>>,
    Extension(caller): Extension<Caller>,
    PathId(id): PathId,
    headers: HeaderMap,
    uri: Uri,
    body: Json<LimitsBody>,
) -> Result<Response, Problem> {
    Query::read(uri.query(), &[])?;
    let account = administered(&books, &caller, &id).await?;
    let begun = books.begin(&caller, &what(&id, "limits"), &headers, &body.bytes, id.clone()).await?;
    let mut fields = serde_json::to_value(&body.value).unwrap_or_default();
    fields["account"] = id.as_str().into();
    let record = ControlRecord::new("account.limits", object(account), "account_limits_set", fields);
    let before = books.ask_of(&caller, &id, |gate, id| gate.account(id).map(|account| limits_value(&account.limits))).await?;
    let source = books.write_once(&caller, &begun, None, record.replacing(before)).await?;
    shown(&books, &caller, &id, source, StatusCode::OK).await
}

/// Sets the trading state of an account, or of one of its symbols or strategies.
#[utoipa::path(post, path = "/accounts/{id}/state", tag = "accounts", request_body = StateBody, params(
    ("id" = String, Path, description = "The account"),
    ("Idempotency-Key" = Option<String>, Header, description = "The same key sets it once only", min_length = 1, max_length = 255),
), responses((status = 200, description = "The account", body = AccountView)))]
async fn set_state(
    State(books): State<Arc<Books>>,
    Extension(caller): Extension<Caller>,
    PathId(id): PathId,
    headers: HeaderMap,
    uri: Uri,
    body: Json<StateBody>,
) -> Result<Response, Problem> {
    Query::read(uri.query(), &[])?;
    let StateBody { state, symbol, strategy, reason, cancel_orders, flatten } = body.value;
    let word = match state {
        StateWord::Active => TradingState::Active,
        StateWord::ReduceOnly => TradingState::ReduceOnly,
        StateWord::Halted => TradingState::Halted,
    };
    let stops = word == TradingState::Halted;
    let account = if stops { books.stoppable(&caller, &id).await? } else { books.writable(&caller, &id).await? };
    if !stops {
        caller.require_operator()?;
    } else if !caller.is_admin() && !flatten && strategy.is_none() {
        // To halt what is being closed would end the closing: whom a limit holds does not take it off.
        let only = symbol.as_deref().map(|symbol| Symbol::parse(symbol.as_bytes()));
        let question = move |gate: &Gate, account| Some(only != Some(None) && gate.is_flattening(account, only.flatten()));
        if books.ask_of(&caller, &id, question).await? {
            let what = "it is being flattened, which this would end: ask for `flatten` too, or an administrator";
            return Err(Problem::new(ApiCode::Forbidden, what).field("flatten"));
        }
    }
    if !caller.is_admin() && (symbol.is_some() || strategy.is_some()) {
        let scope = StateScope {
            account: Some(account),
            strategy: strategy.as_deref().and_then(|text| StrategyId::parse(text.as_bytes())),
            symbol: symbol.as_deref().and_then(|text| Symbol::parse(text.as_bytes())),
        };
        has_room(&books, scope).await?;
    }
    let mut scope = json!({"account": id});
    for (name, value) in [("symbol", symbol), ("strategy", strategy)] {
        if let Some(value) = value {
            scope[name] = value.into();
        }
    }
    let also = Also { cancel_orders, flatten };
    let record = ControlRecord::trading_state("state.set", object(account), scope, word.as_str(), also, &by(&caller, Some(&reason)));
    let begun = books.begin(&caller, &what(&id, "state"), &headers, &body.bytes, id.clone()).await?;
    let source = books.write_once(&caller, &begun, Some(&reason), record).await?;
    shown(&books, &caller, &id, source, StatusCode::OK).await
}

/// Each order of the account looks at its states: who is no administrator sets so many of symbols and strategies. The account itself can
/// be stopped whatever their number.
async fn has_room(books: &Books, scope: StateScope) -> Result<(), Problem> {
    let Some(account) = scope.account else { return Ok(()) };
    let of_account = move |gate: &Gate| {
        let states = gate.scope_states().filter(|(there, _)| there.account == scope.account);
        states.clone().any(|(there, _)| there == scope) || states.count() < OWNERS_MAX
    };
    match books.ask(books.shard_of(account), of_account).await {
        Ok(true) => return Ok(()),
        Ok(false) => {}
        // A replica that does not answer holds up nothing that stops.
        Err(problem) if problem.code() == ApiCode::NotReady => return Ok(()),
        Err(problem) => return Err(problem),
    }
    let what = format!("the account has {OWNERS_MAX} states of symbols and strategies: stop the account itself, or ask an administrator");
    Err(Problem::new(ApiCode::TooManyStates, what))
}

/// The kill switch: halts the account, cancels its orders and closes its positions, in one record.
#[utoipa::path(post, path = "/accounts/{id}/kill", tag = "accounts", request_body = ReasonBody, params(
    ("id" = String, Path, description = "The account"),
    ("Idempotency-Key" = Option<String>, Header, description = "The same key kills once only", min_length = 1, max_length = 255),
), responses((status = 202, description = "What is still open; ask again until it is done", body = KillView)))]
async fn kill(
    State(books): State<Arc<Books>>,
    Extension(caller): Extension<Caller>,
    PathId(id): PathId,
    headers: HeaderMap,
    uri: Uri,
    body: Json<ReasonBody>,
) -> Result<Response, Problem> {
    Query::read(uri.query(), &[])?;
    let account = books.stoppable(&caller, &id).await?;
    let also = Also { cancel_orders: true, flatten: true };
    let by = by(&caller, Some(&body.value.reason));
    let record = ControlRecord::trading_state("account.kill", object(account), json!({"account": id}), "halted", also, &by);
    let begun = books.begin(&caller, &what(&id, "kill"), &headers, &body.bytes, id.clone()).await?;
    let source = books.write_once(&caller, &begun, Some(&body.value.reason), record).await?;
    let view = books.ask_of(&caller, &id, kill_view).await?;
    Ok(written(StatusCode::ACCEPTED, source, &view))
}

/// Shows what a kill switch has still to do.
#[utoipa::path(get, path = "/accounts/{id}/kill", tag = "accounts", params(("id" = String, Path, description = "The account")),
    responses((status = 200, description = "What is still open", body = KillView)))]
async fn killing(
    State(books): State<Arc<Books>>,
    Extension(caller): Extension<Caller>,
    PathId(id): PathId,
    uri: Uri,
) -> Result<Response, Problem> {
    Query::read(uri.query(), &[])?;
    Ok(answer(StatusCode::OK, &books.ask_of(&caller, &id, kill_view).await?))
}

fn kill_view(gate: &Gate, account: AccountId) -> Option<KillView> {
    let killing = gate.killing(account)?;
    Some(KillView {
        account: account.to_string(),
        seq: gate.seq(),
        state: killing.state.as_str(),
        done: killing.flat && killing.state == TradingState::Halted,
        flattening: killing.flattening,
        close_not_confirmed: killing.not_confirmed,
        positions: killing
            .positions
            .iter()
            .map(|open| KillPosition {
                symbol: open.symbol.to_string(),
                qty: open.qty.to_string(),
                buy_leaves: open.buy_leaves.to_string(),
                sell_leaves: open.sell_leaves.to_string(),
                uncovered: open.uncovered.to_string(),
            })
            .collect(),
        working: killing
            .working
            .iter()
            .map(|(id, symbol, side, leaves)| KillOrder {
                client_order_id: id.to_string(),
                symbol: symbol.to_string(),
                side: side.as_str(),
                leaves: leaves.to_string(),
            })
            .collect(),
        commands: killing
            .commands
            .iter()
            .map(|command| KillCommand {
                command_id: format!("{}-{}-{}", gate.shard(), command.place.0, command.place.1),
                symbol: command.symbol.to_string(),
                side: command.side.as_str(),
                rest: command.rest.to_string(),
                at: command.at,
                answered: command.answered,
            })
            .collect(),
    })
}

/// Takes the latch of a loss rule off.
#[utoipa::path(post, path = "/accounts/{id}/latches/{rule}/release", tag = "accounts", request_body = ReleaseBody, params(
    ("id" = String, Path, description = "The account"),
    ("rule" = String, Path, description = "The rule's id"),
), responses((status = 200, description = "The account", body = AccountView), (status = 422, description = "There is no such latch")))]
async fn release(
    State(books): State<Arc<Books>>,
    Extension(caller): Extension<Caller>,
    path: Result<Path<(String, String)>, axum::extract::rejection::PathRejection>,
    uri: Uri,
    body: Json<ReleaseBody>,
) -> Result<Response, Problem> {
    Query::read(uri.query(), &[])?;
    let broken = |_| Problem::new(ApiCode::InvalidParameter, "the path is not valid percent encoding of UTF-8");
    let Path((id, rule)) = path.map_err(broken)?;
    let account = administered(&books, &caller, &id).await?;
    let ReleaseBody { reason, reset_hwm } = body.value;
    let fields: Value = json!({"account": id, "rule_id": rule, "actor": caller.name, "reason": reason, "reset_hwm": reset_hwm});
    let record = ControlRecord::new("latch.release", format!("latch:{account}:{rule}"), "latch_released", fields);
    let source = books.write(&caller, Some(&reason), record).await?;
    shown(&books, &caller, &id, source, StatusCode::OK).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::v1::instances_world::World;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_replica_that_does_not_answer_holds_up_no_kill() {
        let world = World::new();
        let reason = json!({"reason": "a drill"});
        for account in ["A1", "A2"] {
            assert_eq!(
                world.ask(0, "POST", "/accounts", None, &json!({"account": account, "owner": "u1", "cash": "1"})).await.0,
                StatusCode::CREATED
            );
        }
        world.break_the_first_replica().await;
        for (path, body) in [("/accounts/A1/kill", &reason), ("/accounts/A2/state", &json!({"state": "halted", "reason": "a drill"}))] {
            let (status, _, told) = world.ask(0, "POST", path, None, body).await;
            assert_eq!((status, told["code"].as_str()), (StatusCode::GATEWAY_TIMEOUT, Some("NOT_APPLIED")), "{told}");
            assert!(told["position"].as_str().is_some_and(|place| place.starts_with("gate.control:0:")), "{told}");
        }
        let (status, _, told) = world.ask(0, "POST", "/accounts/A1/state", None, &json!({"state": "active", "reason": "a drill"})).await;
        assert_eq!(
            (status, told["code"].as_str()),
            (StatusCode::SERVICE_UNAVAILABLE, Some("NOT_READY")),
            "only what stops goes on: {told}"
        );
        let foreign = world.ask(0, "POST", "/accounts/no%20account/kill", None, &reason).await;
        assert_ne!(foreign.0, StatusCode::GATEWAY_TIMEOUT, "what is no account is not killed");
        // The shard has decided, and the other instance shows it.
        for account in ["A1", "A2"] {
            let begun = std::time::Instant::now();
            while world.ask(1, "GET", &format!("/accounts/{account}"), None, &Value::Null).await.2["state"] != "halted" {
                assert!(begun.elapsed().as_secs() < 10, "{account} goes on");
            }
        }
        world.stop();
    }
}
