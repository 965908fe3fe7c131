//! `/api/v1/auth`: who one is, and the proof of it.
//!
//! Invariant: a refresh token in a cookie is taken only with an `Origin` (the guard lets only ours pass) and a JSON body, which no
//! page of another site can send together. Nothing here tells an unknown name from a wrong password. Deliberately absent: making
//! the first user; only the command line does.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use zeroize::Zeroizing;

use super::json::{Json, OptionalJson, answer};
use super::people_desk::{Act, Desk};
use crate::api::caller::{Accounts, Address, Caller, now, people_problem};
use crate::api::problem::{ApiCode, Problem};
use crate::api::query::Query;
use crate::control::people::{Granted, Grants, PeopleError, Proof, Role, Scope};

/// The cookie that a browser keeps the refresh token in.
const COOKIE: &str = "__Host-ordergate-refresh";
/// As the document says it.
const REFRESH_TOKEN_CHARS_MAX: usize = 256;
/// How long a ticket is good, in seconds.
const TICKET_SECONDS: i64 = 30;
/// What the audit calls whoever gave a name that nobody has.
const NOBODY: &str = "?";

/// What anyone may ask.
pub fn public_routes() -> OpenApiRouter<Arc<Desk>> {
    OpenApiRouter::new().routes(routes!(login)).routes(routes!(refresh)).routes(routes!(logout))
}

/// What only someone may ask who proved who they are.
pub fn routes() -> OpenApiRouter<Arc<Desk>> {
    OpenApiRouter::new().routes(routes!(me)).routes(routes!(password)).routes(routes!(ws_ticket))
}

/// A name and its password.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Login {
    /// The user's name.
    #[schema(max_length = 64)]
    name: String,
    /// The password.
    #[schema(value_type = String, max_length = 256, format = Password)]
    password: Zeroizing<String>,
    /// Whether the refresh token goes into a cookie, as browsers need it, and not into the answer.
    #[serde(default)]
    cookie: bool,
}

/// A refresh token; in a browser the cookie holds it and the body is `{}`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Refresh {
    /// The refresh token of the last answer.
    #[serde(default)]
    #[schema(value_type = Option<String>, max_length = 256)]
    refresh_token: Option<Zeroizing<String>>,
}

impl Refresh {
    /// One that cannot be ours is refused also where it would not be looked at.
    fn checked(self) -> Result<Self, Problem> {
        let too_long = self.refresh_token.as_ref().is_some_and(|token| token.chars().count() > REFRESH_TOKEN_CHARS_MAX);
        let refused = || Problem::new(ApiCode::InvalidField, "a refresh token is no longer than 256 characters").field("refresh_token");
        if too_long { Err(refused()) } else { Ok(self) }
    }
}

/// SessionTokens of a session.
#[derive(Serialize, ToSchema)]
pub struct SessionTokens {
    /// For the `Authorization: Bearer` header.
    access_token: String,
    /// Always `Bearer`.
    token_type: &'static str,
    /// How long the access token lives, in seconds.
    expires_in: i64,
    /// To be exchanged for the next tokens, once; absent where the cookie holds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<String>,
    /// How long the session goes on without a refresh, in seconds.
    refresh_expires_in: i64,
}

/// Who asks.
#[derive(Serialize, ToSchema)]
pub struct Me {
    /// What records and the audit call them.
    name: String,
    /// What they may do at most.
    role: Role,
    /// What they may do by name.
    scopes: Vec<Scope>,
    /// The accounts granted to them, beside those that they own.
    accounts: Grants,
    /// How they proved who they are: `session`, `token`, or `open` where no users exist.
    proof: &'static str,
}

/// The old and the new password.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PasswordChange {
    /// The password now.
    #[schema(value_type = String, max_length = 256, format = Password)]
    current_password: Zeroizing<String>,
    /// The password from now on: at least 12 characters, none of the common ones.
    #[schema(value_type = String, min_length = 12, max_length = 256, format = Password)]
    new_password: Zeroizing<String>,
}

/// A ticket for the WebSocket.
#[derive(Serialize, ToSchema)]
pub struct Ticket {
    /// Goes into `?ticket=`; good once.
    ticket: String,
    /// How long it is good, in seconds.
    expires_in: i64,
}

/// Begins a session.
#[utoipa::path(post, path = "/auth/login", tag = "auth", request_body = Login, security(()), responses(
    (status = 200, description = "The session's tokens", body = SessionTokens),
))]
async fn login(
    State(desk): State<Arc<Desk>>,
    Extension(Address(address)): Extension<Address>,
    uri: Uri,
    body: Json<Login>,
) -> Result<Response, Problem> {
    Query::read(uri.query(), &[])?;
    let Login { name, password, cookie } = body.value;
    desk.rates.login(address, &name)?;
    let at = address.to_string();
    let granted = desk.people.login(&name, password, &at, now()).await;
    let result = if granted.is_ok() { "ok" } else { "refused" };
    // What is nobody's name may be a password in the wrong field, and the trail is for ever.
    let known = desk.people.user(&name).map_or(NOBODY, |_| &name);
    let act = Act { actor: known, address: &at, action: "auth.login", object: &format!("user:{known}") };
    if !matches!(granted, Err(PeopleError::Busy)) {
        desk.note(&act, json!({}), result).await?;
    }
    let granted = granted.map_err(|error| match error {
        PeopleError::Unauthenticated => Problem::new(ApiCode::Unauthenticated, "no such name with this password"),
        error => people_problem(error),
    })?;
    Ok(tokens(&desk, granted, cookie))
}

/// Exchanges a refresh token for the next tokens.
#[utoipa::path(post, path = "/auth/refresh", tag = "auth", request_body = Refresh, security((), ("cookie" = [])), responses(
    (status = 200, description = "The session's next tokens", body = SessionTokens),
))]
async fn refresh(
    State(desk): State<Arc<Desk>>,
    Extension(Address(address)): Extension<Address>,
    headers: HeaderMap,
    uri: Uri,
    body: Json<Refresh>,
) -> Result<Response, Problem> {
    Query::read(uri.query(), &[])?;
    let (token, from_cookie) = refresh_token(&headers, body.value.checked()?)?;
    match desk.people.refresh(&token, now()).await {
        Ok(granted) => Ok(tokens(&desk, granted, from_cookie)),
        Err(error) => {
            if matches!(error, PeopleError::Reused) {
                let at = address.to_string();
                let act = Act { actor: "?", address: &at, action: "auth.refresh_reused", object: "session" };
                desk.note(&act, json!({}), "session ended").await?;
            }
            let mut refused = people_problem(error).into_response();
            if from_cookie {
                set_cookie(&mut refused, "", 0);
            }
            Ok(refused)
        }
    }
}

/// Ends a session: that of the access token, or that of the refresh token.
#[utoipa::path(post, path = "/auth/logout", tag = "auth", request_body = Option<Refresh>, security((), ("bearer" = []), ("cookie" = [])), responses(
    (status = 204, description = "The session is over, if there was one"),
))]
async fn logout(
    State(desk): State<Arc<Desk>>,
    Extension(Address(address)): Extension<Address>,
    headers: HeaderMap,
    uri: Uri,
    OptionalJson(body): OptionalJson<Refresh>,
) -> Result<Response, Problem> {
    Query::read(uri.query(), &[])?;
    let body = body.checked()?;
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let session = match bearer {
        Some(token) => match desk.people.by_access(token, now()).map_err(people_problem)?.proof {
            Proof::Session(session) => Some(session),
            Proof::Token(_) => None,
        },
        None => {
            let (token, _) = refresh_token(&headers, body)?;
            desk.people.session_of_refresh(&token, now())
        }
    };
    if let Some(session) = session {
        desk.people.logout(&session).await.map_err(people_problem)?;
        let user = session.split('~').next().unwrap_or_default();
        let at = address.to_string();
        desk.note(&Act { actor: user, address: &at, action: "auth.logout", object: &format!("user:{user}") }, json!({}), "ok").await?;
    }
    let mut done = StatusCode::NO_CONTENT.into_response();
    set_cookie(&mut done, "", 0);
    Ok(done)
}

/// Says who asks.
#[utoipa::path(get, path = "/auth/me", tag = "auth", responses(
    (status = 200, description = "Who asks", body = Me),
))]
async fn me(State(desk): State<Arc<Desk>>, Extension(caller): Extension<Caller>, uri: Uri) -> Result<Response, Problem> {
    Query::read(uri.query(), &[])?;
    let user = caller.user.as_deref().and_then(|name| desk.people.user(name));
    let all = matches!(caller.accounts, Accounts::All);
    let accounts = user.map_or_else(Grants::default, |user| user.body.accounts);
    let proof = match caller.proof {
        Some(Proof::Session(_)) => "session",
        Some(Proof::Token(_)) => "token",
        None => "open",
    };
    let me = Me { name: caller.name, role: caller.role, scopes: caller.scopes, accounts: Grants { all, ..accounts }, proof };
    Ok(answer(StatusCode::OK, &me))
}

/// Changes one's own password. All sessions of the user end.
#[utoipa::path(post, path = "/auth/password", tag = "auth", request_body = PasswordChange, responses(
    (status = 204, description = "The password is changed; log in again"),
))]
async fn password(
    State(desk): State<Arc<Desk>>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
    body: Json<PasswordChange>,
) -> Result<Response, Problem> {
    Query::read(uri.query(), &[])?;
    let (Some(name), Some(Proof::Session(_))) = (&caller.user, &caller.proof) else {
        return Err(Problem::new(ApiCode::Forbidden, "only someone who logged in changes a password here"));
    };
    let PasswordChange { current_password, new_password } = body.value;
    desk.rates.login(caller.address, name)?;
    let act = async {
        let is_theirs = desk.people.is_password(name, current_password).await.map_err(people_problem)?.is_some();
        if !is_theirs {
            return Err(Problem::new(ApiCode::InvalidField, "not the password").field("current_password"));
        }
        desk.people.set_password(name, new_password, name, now()).await.map_err(|error| match people_problem(error) {
            problem if problem.code() == ApiCode::WeakPassword => problem.field("new_password"),
            problem => problem,
        })
    };
    desk.audited(&caller, ("auth.password", &format!("user:{name}")), json!({}), act).await?;
    let mut done = StatusCode::NO_CONTENT.into_response();
    set_cookie(&mut done, "", 0);
    Ok(done)
}

/// Gives a ticket for the WebSocket, good once within 30 seconds.
#[utoipa::path(post, path = "/auth/ws-ticket", tag = "auth", responses(
    (status = 201, description = "The ticket", body = Ticket),
))]
async fn ws_ticket(State(desk): State<Arc<Desk>>, Extension(caller): Extension<Caller>, uri: Uri) -> Result<Response, Problem> {
    Query::read(uri.query(), &[])?;
    let of = caller.user.as_deref().zip(caller.proof.as_ref());
    let ticket = desk.people.ticket(of, now()).map_err(people_problem)?;
    Ok(answer(StatusCode::CREATED, &Ticket { ticket: ticket.to_string(), expires_in: TICKET_SECONDS }))
}

fn tokens(desk: &Desk, granted: Granted, cookie: bool) -> Response {
    let Granted { access, seconds, refresh, .. } = granted;
    let tokens = SessionTokens {
        access_token: access,
        token_type: "Bearer",
        expires_in: seconds,
        refresh_token: (!cookie).then(|| refresh.to_string()),
        refresh_expires_in: desk.people.session_seconds(),
    };
    let mut response = answer(StatusCode::OK, &tokens);
    if cookie {
        set_cookie(&mut response, &refresh, desk.people.session_seconds());
    }
    response
}

fn set_cookie(response: &mut Response, value: &str, seconds: i64) {
    let cookie = format!("{COOKIE}={value}; Path=/; Max-Age={seconds}; HttpOnly; Secure; SameSite=Strict");
    if let Ok(mut cookie) = HeaderValue::from_str(&cookie) {
        cookie.set_sensitive(true);
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
}

/// The refresh token of the body or of the cookie, and whether it was the cookie's.
fn refresh_token(headers: &HeaderMap, body: Refresh) -> Result<(Zeroizing<String>, bool), Problem> {
    if let Some(token) = body.refresh_token {
        return Ok((token, false));
    }
    let token = cookie_of(headers).ok_or_else(|| Problem::new(ApiCode::Unauthenticated, "send a refresh token, or its cookie"))?;
    if headers.get(header::ORIGIN).is_none() {
        // What the guard let pass is our own; what has none does not come from a page.
        return Err(Problem::new(ApiCode::ForeignOrigin, "a cookie is taken with an Origin header only"));
    }
    Ok((Zeroizing::new(token.to_owned()), true))
}

fn cookie_of(headers: &HeaderMap) -> Option<&str> {
    let lists = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    lists
        .flat_map(|list| list.split(';'))
        .find_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('='))
        .filter(|token| !token.is_empty())
}
