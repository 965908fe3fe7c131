//! `/api/v1/api-tokens`: secrets for programs.
//!
//! Invariant: the secret is in the answer that made it and nowhere else, also not in a repeat of that answer. People see their own
//! tokens, administrators all. Deliberately absent: changes; another token is made and the old one revoked.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::idempotency;
use super::json::{Json, answer};
use super::page::{Page, PathId};
use super::people_desk::Desk;
use super::users::moment;
use crate::api::caller::{Caller, now, people_problem};
use crate::api::problem::{ApiCode, Problem};
use crate::api::query::Query;
use crate::control::people::{ApiToken, NewToken, Proof, Scope, Stored, random_id};

/// The paths.
pub fn routes() -> OpenApiRouter<Arc<Desk>> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(get, revoke))
}

/// An API token, without its secret.
#[derive(Serialize, ToSchema)]
#[schema(as = ApiToken)]
pub struct TokenView {
    /// Its id, as it stands in the token too.
    id: String,
    /// Who it acts as.
    user: String,
    /// What it is for.
    name: String,
    /// What it may do of what its user may.
    scopes: Vec<Scope>,
    /// When it was made (RFC 3339).
    created_at: String,
    /// When it ends (RFC 3339), if ever.
    expires_at: Option<String>,
    /// When it was last used (RFC 3339), to the minute.
    last_used_at: Option<String>,
}

/// A token that was just made.
#[derive(Serialize, ToSchema)]
pub struct TokenCreated {
    /// What is kept of it.
    api_token: TokenView,
    /// The token, for the `Authorization: Bearer` header. It is shown this once; a repeat with the same `Idempotency-Key` has `null`.
    secret: Option<String>,
}

/// A page of tokens, by id.
#[derive(Serialize, ToSchema)]
pub struct ApiTokenList {
    /// The tokens.
    items: Vec<TokenView>,
    /// The `cursor` of the next page; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// A new token.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenCreate {
    /// Who it acts as; oneself when absent. Only administrators name somebody else.
    #[serde(default)]
    #[schema(max_length = 64)]
    user: Option<String>,
    /// What it is for.
    #[schema(min_length = 1, max_length = 100)]
    name: String,
    /// What it may do of what its user may.
    #[schema(max_items = 4)]
    scopes: Vec<Scope>,
    /// When it ends (RFC 3339).
    #[serde(default)]
    #[schema(format = DateTime)]
    expires_at: Option<String>,
}

impl From<Stored<ApiToken>> for TokenView {
    fn from(token: Stored<ApiToken>) -> Self {
        let Stored { id, body, .. } = token;
        let ApiToken { user, name, scopes, created_at, expires_at, last_used_at, .. } = body;
        let (expires_at, last_used_at) = (expires_at.map(moment), last_used_at.map(moment));
        Self { id, user, name, scopes, created_at: moment(created_at), expires_at, last_used_at }
    }
}

fn may_know(caller: &Caller, token: &Stored<ApiToken>) -> bool {
    caller.is_admin() || caller.user.as_deref() == Some(&token.body.user)
}

fn unknown() -> Problem {
    Problem::new(ApiCode::UnknownObject, "there is no such API token")
}

/// Lists API tokens: one's own, for administrators all.
#[utoipa::path(get, path = "/api-tokens", tag = "api-tokens", params(
    ("limit" = Option<u32>, Query, description = "At most so many", minimum = 1, maximum = 500),
    ("cursor" = Option<String>, Query, description = "Where the last page ended"),
), responses((status = 200, description = "Tokens by id", body = ApiTokenList)))]
async fn list(State(desk): State<Arc<Desk>>, Extension(caller): Extension<Caller>, uri: Uri) -> Result<Response, Problem> {
    let page = Page::read(&Query::read(uri.query(), &["limit", "cursor"])?)?;
    let known = desk.people.tokens().into_iter().filter(|token| may_know(&caller, token));
    let (tokens, next_cursor) = page.cut(known, |token| &token.id);
    Ok(answer(StatusCode::OK, &ApiTokenList { items: tokens.into_iter().map(TokenView::from).collect(), next_cursor }))
}

/// Makes an API token. Its secret is in this answer and never again.
#[utoipa::path(post, path = "/api-tokens", tag = "api-tokens", request_body = TokenCreate, params(
    ("Idempotency-Key" = Option<String>, Header, description = "The same key makes one token only", min_length = 1, max_length = 255),
), responses((status = 201, description = "The token with its secret", body = TokenCreated)))]
async fn create(
    State(desk): State<Arc<Desk>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    uri: Uri,
    body: Json<TokenCreate>,
) -> Result<Response, Problem> {
    Query::read(uri.query(), &[])?;
    let TokenCreate { user, name, scopes, expires_at } = body.value;
    let user = user.or_else(|| caller.user.clone()).ok_or_else(|| Problem::new(ApiCode::InvalidField, "say whose").field("user"))?;
    if !caller.is_admin() && caller.user.as_deref() != Some(&user) {
        return Err(Problem::new(ApiCode::Forbidden, "only administrators make tokens of others").field("user"));
    }
    if matches!(caller.proof, Some(Proof::Token(_))) && !scopes.iter().all(|scope| caller.has(*scope)) {
        return Err(Problem::new(ApiCode::Forbidden, "a token makes no token that may do more").field("scopes"));
    }
    let at = |text: String| text.parse::<Timestamp>().map(Timestamp::as_millisecond);
    let expires_at = expires_at.map(at).transpose();
    let expires_at = expires_at.map_err(|_| Problem::new(ApiCode::InvalidField, "no RFC 3339 date and time").field("expires_at"))?;
    caller.require_to_act()?;
    let made_by = match &caller.proof {
        Some(Proof::Token(id)) => Some(id.clone()),
        Some(_) | None => None,
    };
    let own_end = made_by.as_deref().and_then(|id| desk.people.token(id)?.body.expires_at);
    if own_end.is_some_and(|own_end| expires_at.is_none_or(|at| at > own_end)) {
        return Err(Problem::new(ApiCode::Forbidden, "a token makes no token that outlives it").field("expires_at"));
    }
    let fresh = random_id().map_err(|error| people_problem(error.into()))?;
    let begun = idempotency::begin(desk.people.directory(), &caller, "POST /api-tokens", &headers, &body.bytes, fresh).await?;
    if let Some(token) = desk.people.token(&begun.id).filter(|_| begun.again) {
        return Ok(created(token, None));
    }
    let changes = json!({"user": user, "name": name, "scopes": scopes, "expires_at": expires_at});
    let new = NewToken { user, name, scopes, expires_at, made_by };
    let act = async { desk.people.add_token(&begun.id, new, &caller.name, now()).await.map_err(people_problem) };
    match desk.audited(&caller, ("token.create", &format!("token:{}", begun.id)), changes, act).await {
        Ok(shown) => Ok(created(shown.token, Some(shown.secret.to_string()))),
        Err(problem) => match desk.people.token(&begun.id).filter(|_| problem.code() == ApiCode::AlreadyExists) {
            // The same request at the same time was faster.
            Some(token) => Ok(created(token, None)),
            None => Err(problem),
        },
    }
}

fn created(token: Stored<ApiToken>, secret: Option<String>) -> Response {
    let location = HeaderValue::from_str(&format!("/api/v1/api-tokens/{}", token.id));
    let mut response = answer(StatusCode::CREATED, &TokenCreated { api_token: token.into(), secret });
    if let Ok(location) = location {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

/// Shows an API token.
#[utoipa::path(get, path = "/api-tokens/{id}", tag = "api-tokens", params(("id" = String, Path, description = "The token's id")),
    responses((status = 200, description = "The token, without its secret", body = TokenView)))]
async fn get(
    State(desk): State<Arc<Desk>>,
    Extension(caller): Extension<Caller>,
    PathId(id): PathId,
    uri: Uri,
) -> Result<Response, Problem> {
    Query::read(uri.query(), &[])?;
    let token = desk.people.token(&id).filter(|token| may_know(&caller, token)).ok_or_else(unknown)?;
    Ok(answer(StatusCode::OK, &TokenView::from(token)))
}

/// Revokes an API token for good, and those that were made with it.
#[utoipa::path(delete, path = "/api-tokens/{id}", tag = "api-tokens", params(("id" = String, Path, description = "The token's id")),
    responses((status = 204, description = "The token is good for nothing any more")))]
async fn revoke(
    State(desk): State<Arc<Desk>>,
    Extension(caller): Extension<Caller>,
    PathId(id): PathId,
    uri: Uri,
) -> Result<Response, Problem> {
    Query::read(uri.query(), &[])?;
    desk.people.token(&id).filter(|token| may_know(&caller, token)).ok_or_else(unknown)?;
    if !matches!(&caller.proof, Some(Proof::Token(own)) if *own == id) {
        caller.require_to_act()?;
    }
    let act = async { desk.people.revoke_token(&id, &caller.name).await.map_err(people_problem) };
    desk.audited(&caller, ("token.revoke", &format!("token:{id}")), json!({}), act).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
