//! `/api/v1/users`: people, for administrators.
//!
//! Invariant: hashes never leave; an update says which version it saw; a create with the same `Idempotency-Key` makes one user.
//! Who does not administer sees nobody but themselves. Deliberately absent: names that change; accounts name their owner.

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
use zeroize::Zeroizing;

use super::json::{Json, answer, object};
use super::page::{Page, PathId};
use super::people_desk::Desk;
use super::{idempotency, versions};
use crate::api::caller::{Caller, now, people_problem};
use crate::api::problem::{ApiCode, Problem};
use crate::api::query::Query;
use crate::control::people::{Grants, NewUser, Role, Scope, Stored, User, UserChange};
use crate::domain::Millis;

/// The paths.
pub fn routes() -> OpenApiRouter<Arc<Desk>> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(get, change, remove)).routes(routes!(set_password))
}

/// A user.
#[derive(Serialize, ToSchema)]
#[schema(as = User)]
pub struct UserView {
    /// The name to log in with, and the `owner` of accounts.
    name: String,
    /// What they may do at most.
    role: Role,
    /// Scopes beyond those of the role.
    scopes: Vec<Scope>,
    /// Accounts granted, beside those that they own.
    accounts: Grants,
    /// Whether they are locked out.
    disabled: bool,
    /// Whether they can log in; programs have tokens only.
    has_password: bool,
    /// When they were created (RFC 3339).
    created_at: String,
    /// The version, as `ETag` has it.
    version: u64,
}

/// A page of users, by name.
#[derive(Serialize, ToSchema)]
pub struct UserList {
    /// The users.
    items: Vec<UserView>,
    /// The `cursor` of the next page; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// A new user.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UserCreate {
    /// The name: 1 to 64 of `[A-Za-z0-9._-]`, the first a letter or digit.
    #[schema(min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    name: String,
    /// What they may do at most.
    role: Role,
    /// Scopes beyond those of the role.
    #[serde(default)]
    #[schema(max_items = 4)]
    scopes: Vec<Scope>,
    /// Accounts granted, beside those that they own.
    #[serde(default, deserialize_with = "object")]
    accounts: Grants,
    /// The password; a service does without.
    #[serde(default)]
    #[schema(value_type = Option<String>, min_length = 12, max_length = 256, format = Password)]
    password: Option<Zeroizing<String>>,
}

/// What a user becomes.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UserUpdate {
    /// What they may do at most.
    role: Role,
    /// Scopes beyond those of the role.
    #[schema(max_items = 4)]
    scopes: Vec<Scope>,
    /// Accounts granted, beside those that they own.
    #[serde(deserialize_with = "object")]
    accounts: Grants,
    /// Whether they are locked out. Their sessions end.
    disabled: bool,
}

/// A password that an administrator sets.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PasswordSet {
    /// At least 12 characters, none of the common ones.
    #[schema(value_type = String, min_length = 12, max_length = 256, format = Password)]
    password: Zeroizing<String>,
}

/// A moment as the API writes it.
pub fn moment(at: Millis) -> String {
    Timestamp::from_millisecond(at).map(|at| at.to_string()).unwrap_or_default()
}

impl From<Stored<User>> for UserView {
    fn from(user: Stored<User>) -> Self {
        let Stored { id: name, version, body } = user;
        let User { role, scopes, accounts, disabled, password, created_at, .. } = body;
        Self { name, role, scopes, accounts, disabled, has_password: password.is_some(), created_at: moment(created_at), version }
    }
}

fn shown(status: StatusCode, user: Stored<User>) -> Response {
    let version = user.version;
    versions::tagged(answer(status, &UserView::from(user)), version)
}

fn unknown() -> Problem {
    Problem::new(ApiCode::UnknownObject, "there is no such user")
}

/// Lists users.
#[utoipa::path(get, path = "/users", tag = "users", params(
    ("limit" = Option<u32>, Query, description = "At most so many", minimum = 1, maximum = 500),
    ("cursor" = Option<String>, Query, description = "Where the last page ended"),
), responses((status = 200, description = "Users by name", body = UserList)))]
async fn list(State(desk): State<Arc<Desk>>, Extension(caller): Extension<Caller>, uri: Uri) -> Result<Response, Problem> {
    let page = Page::read(&Query::read(uri.query(), &["limit", "cursor"])?)?;
    caller.require_admin()?;
    let (users, next_cursor) = page.cut(desk.people.users(), |user| &user.id);
    Ok(answer(StatusCode::OK, &UserList { items: users.into_iter().map(UserView::from).collect(), next_cursor }))
}

/// Creates a user.
#[utoipa::path(post, path = "/users", tag = "users", request_body = UserCreate, params(
    ("Idempotency-Key" = Option<String>, Header, description = "The same key makes one user only", min_length = 1, max_length = 255),
), responses((status = 201, description = "The user", body = UserView)))]
async fn create(
    State(desk): State<Arc<Desk>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    uri: Uri,
    body: Json<UserCreate>,
) -> Result<Response, Problem> {
    Query::read(uri.query(), &[])?;
    caller.require_operator()?;
    if caller.user.is_none() {
        let what = "the first user is made with `ordergate user add NAME --role admin`, so that nobody else can be faster";
        return Err(Problem::new(ApiCode::Forbidden, what));
    }
    let UserCreate { name, role, scopes, accounts, password } = body.value;
    // A hash of the whole body, kept with the key, would be a fast hash of the password.
    let told = json!([name, role, scopes, accounts]).to_string();
    let begun = idempotency::begin(desk.people.directory(), &caller, "POST /users", &headers, told.as_bytes(), name.clone()).await?;
    let there = || desk.people.user(&name).filter(|user| begun.again && user.body.created_at >= begun.at);
    let user = match there() {
        Some(user) => user,
        None => {
            let new = NewUser { role, scopes: scopes.clone(), accounts: accounts.clone(), password };
            let changes = json!({"role": role, "scopes": scopes, "accounts": accounts});
            let act = async {
                // What a former bearer of the name could not be rid of is not inherited.
                if desk.people.user(&name).is_none() {
                    desk.erase_left(&caller, &name).await?;
                }
                desk.people.add_user(&name, new, &caller.name, now()).await.map_err(people_problem)
            };
            match desk.audited(&caller, ("user.create", &format!("user:{name}")), changes, act).await {
                // The same request at the same time was faster.
                Err(problem) if problem.code() == ApiCode::AlreadyExists => there().ok_or_else(|| problem.field("name"))?,
                made => made?,
            }
        }
    };
    let mut response = shown(StatusCode::CREATED, user);
    if let Ok(location) = HeaderValue::from_str(&format!("/api/v1/users/{name}")) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// Shows a user.
#[utoipa::path(get, path = "/users/{name}", tag = "users", params(("name" = String, Path, description = "The user's name")),
    responses((status = 200, description = "The user", body = UserView)))]
async fn get(
    State(desk): State<Arc<Desk>>,
    Extension(caller): Extension<Caller>,
    PathId(name): PathId,
    uri: Uri,
) -> Result<Response, Problem> {
    Query::read(uri.query(), &[])?;
    if !caller.is_admin() && caller.user.as_deref() != Some(&name) {
        return Err(unknown());
    }
    desk.people.user(&name).map(|user| shown(StatusCode::OK, user)).ok_or_else(unknown)
}

/// Changes a user. Send the `ETag` that you saw as `If-Match`.
#[utoipa::path(put, path = "/users/{name}", tag = "users", request_body = UserUpdate, params(
    ("name" = String, Path, description = "The user's name"),
    ("If-Match" = String, Header, description = "The ETag of the user that you saw"),
), responses((status = 200, description = "The user", body = UserView)))]
async fn change(
    State(desk): State<Arc<Desk>>,
    Extension(caller): Extension<Caller>,
    PathId(name): PathId,
    headers: HeaderMap,
    uri: Uri,
    body: Json<UserUpdate>,
) -> Result<Response, Problem> {
    Query::read(uri.query(), &[])?;
    let old = known(&desk, &caller, &name)?;
    let version = versions::wanted(&headers)?;
    let UserUpdate { role, scopes, accounts, disabled } = body.value;
    let changes = json!({"role": [old.body.role, role], "scopes": [old.body.scopes, scopes],
                         "accounts": [old.body.accounts, accounts], "disabled": [old.body.disabled, disabled]});
    let change = UserChange { role, scopes, accounts, disabled };
    let act = async {
        let changed = desk.people.change_user(&name, version, change, &caller.name).await;
        changed.map_err(|error| versions::refused(people_problem(error)))
    };
    let changed = desk.audited(&caller, ("user.change", &format!("user:{name}")), changes, act).await?;
    Ok(shown(StatusCode::OK, changed))
}

/// Removes a user with all sessions, API tokens, broker keys, preferences and addresses. Send the `ETag` that you saw as `If-Match`.
#[utoipa::path(delete, path = "/users/{name}", tag = "users", params(
    ("name" = String, Path, description = "The user's name"),
    ("If-Match" = String, Header, description = "The ETag of the user that you saw"),
), responses((status = 204, description = "The user is gone")))]
async fn remove(
    State(desk): State<Arc<Desk>>,
    Extension(caller): Extension<Caller>,
    PathId(name): PathId,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Problem> {
    Query::read(uri.query(), &[])?;
    known(&desk, &caller, &name)?;
    let version = versions::wanted(&headers)?;
    let act = async {
        let removed = desk.people.remove_user(&name, version, &caller.name).await;
        removed.map_err(|error| versions::refused(people_problem(error)))?;
        desk.erase_left(&caller, &name).await
    };
    desk.audited(&caller, ("user.remove", &format!("user:{name}")), json!({}), act).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Sets a user's password. All sessions of the user end.
#[utoipa::path(put, path = "/users/{name}/password", tag = "users", request_body = PasswordSet,
    params(("name" = String, Path, description = "The user's name")),
    responses((status = 204, description = "The password is set")))]
async fn set_password(
    State(desk): State<Arc<Desk>>,
    Extension(caller): Extension<Caller>,
    PathId(name): PathId,
    uri: Uri,
    body: Json<PasswordSet>,
) -> Result<Response, Problem> {
    Query::read(uri.query(), &[])?;
    known(&desk, &caller, &name)?;
    let act = async { desk.people.set_password(&name, body.value.password, &caller.name, now()).await.map_err(people_problem) };
    desk.audited(&caller, ("user.password", &format!("user:{name}")), json!({}), act).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// A user whom the caller may change. Others than administrators know of nobody but themselves.
fn known(desk: &Desk, caller: &Caller, name: &str) -> Result<Stored<User>, Problem> {
    if !caller.is_admin() {
        let is_self = caller.user.as_deref() == Some(name);
        return Err(if is_self { Problem::new(ApiCode::Forbidden, "this needs the role admin") } else { unknown() });
    }
    let user = desk.people.user(name).ok_or_else(unknown)?;
    caller.require_operator().map(|()| user)
}
