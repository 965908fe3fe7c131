//! `/api/v1/api-keys`: broker keys.
//!
//! Invariant: who neither owns a key nor administers is told that there is none. Secrets come in here and leave by `reveal` alone,
//! which needs its scope and is in the audit trail before it answers. An update says which revision it saw. Deliberately absent: what
//! becomes of the secrets; the vault does that.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::api_key_views::{ApiKeyList, ApiKeyView, AuditEntry, AuditLog, Revealed, VerifiedView};
use super::json::answer;
use super::page::{Page, PathId};
use super::secret_body::{self, SecretJson, optional_secret, secret};
use super::{idempotency, versions};
use crate::api::caller::{Caller, Role, Scope, now};
use crate::api::problem::{ApiCode, Problem};
use crate::api::query::Query;
use crate::api::records::log_problem;
use crate::control::audit;
use crate::control::directory::{DirectoryService, WriteError};
use crate::directory::Kind;
use crate::log::Topics;
use crate::vault::{self, Broker, By, Change, Environment, Filter, Key, NewKey, Secrets, Status, Vault, VaultError};

/// What these handlers share.
pub struct VaultDesk {
    /// The vault.
    pub vault: Arc<Vault>,
    /// The log, for the audit trail.
    pub topics: Arc<dyn Topics>,
    /// Who there is.
    pub directory: Arc<DirectoryService>,
}

/// The paths.
pub fn routes() -> OpenApiRouter<Arc<VaultDesk>> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(get, change, remove))
        .routes(routes!(rotate))
        .routes(routes!(verify))
        .routes(routes!(reveal))
        .routes(routes!(audit_logs))
}

/// A new broker key. The secrets never come back but by `reveal`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ApiKeyCreate {
    /// Whose customer.
    broker: Broker,
    /// What you call it.
    #[schema(min_length = 1, max_length = 100)]
    name: String,
    /// Whether it moves money.
    environment: Environment,
    /// Whose it will be; yours when absent. Only administrators name somebody else.
    #[serde(default)]
    #[schema(max_length = 64)]
    owner: Option<String>,
    /// When it ends (RFC 3339).
    #[serde(default)]
    #[schema(format = DateTime)]
    expires_at: Option<String>,
    /// The key: key id, consumer key, API key.
    #[serde(deserialize_with = "secret")]
    #[schema(value_type = String, format = Password, write_only, min_length = 1, max_length = 512)]
    key: SecretString,
    /// The secret.
    #[serde(deserialize_with = "secret")]
    #[schema(value_type = String, format = Password, write_only, min_length = 1, max_length = 8192)]
    secret: SecretString,
    /// The passphrase or access token of brokers that have one.
    #[serde(default, deserialize_with = "optional_secret")]
    #[schema(value_type = Option<String>, format = Password, write_only, min_length = 1, max_length = 512)]
    passphrase: Option<SecretString>,
}

/// What a broker key becomes. All of it is given.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ApiKeyUpdate {
    /// What you call it.
    #[schema(min_length = 1, max_length = 100)]
    name: String,
    /// `active`, `inactive` or `revoked`, which is final and erases the secret.
    status: Status,
    /// When it ends (RFC 3339); null when never.
    #[serde(default)]
    #[schema(format = DateTime)]
    expires_at: Option<String>,
}

/// New secrets of a broker key.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ApiKeySecrets {
    /// The key: key id, consumer key, API key.
    #[serde(deserialize_with = "secret")]
    #[schema(value_type = String, format = Password, write_only, min_length = 1, max_length = 512)]
    key: SecretString,
    /// The secret.
    #[serde(deserialize_with = "secret")]
    #[schema(value_type = String, format = Password, write_only, min_length = 1, max_length = 8192)]
    secret: SecretString,
    /// The passphrase or access token of brokers that have one.
    #[serde(default, deserialize_with = "optional_secret")]
    #[schema(value_type = Option<String>, format = Password, write_only, min_length = 1, max_length = 512)]
    passphrase: Option<SecretString>,
}

/// The name that a caller owns keys by.
fn own_name(caller: &Caller) -> &str {
    caller.user.as_deref().unwrap_or(&caller.name)
}

fn unknown() -> Problem {
    Problem::new(ApiCode::UnknownObject, "there is no such API key")
}

/// Who asks, for the directory and the audit trail.
pub(super) struct Asking(String, String);

impl Asking {
    pub(super) fn of(caller: &Caller) -> Self {
        Self(caller.name.clone(), caller.address.to_string())
    }

    pub(super) fn by(&self) -> By<'_> {
        By { actor: &self.0, address: &self.1 }
    }
}

/// The key, if the caller may know of it.
fn known(desk: &VaultDesk, caller: &Caller, id: &str) -> Result<Key, Problem> {
    let key = desk.vault.get(id, now()).map_err(|error| told(&error))?;
    if caller.is_admin() || key.stored.owner == own_name(caller) { Ok(key) } else { Err(unknown()) }
}

/// Viewers look and programs use; keys are brought by people, and by tokens of theirs that may write.
fn may_change(caller: &Caller) -> Result<(), Problem> {
    match caller.role {
        Role::Admin => caller.require_operator(),
        Role::User => caller.require_to_act(),
        Role::Viewer | Role::Service => Err(Problem::new(ApiCode::Forbidden, "this needs the role user or admin")),
    }
}

fn at(text: Option<String>) -> Result<Option<i64>, Problem> {
    let wrong = || Problem::new(ApiCode::InvalidField, "no RFC 3339 date and time").field("expires_at");
    text.map(|text| text.parse::<Timestamp>().map(Timestamp::as_millisecond).map_err(|_| wrong())).transpose()
}

fn shown(status: StatusCode, key: Key) -> Response {
    let revision = key.stored.revision;
    versions::tagged(answer(status, &ApiKeyView::from(key)), revision)
}

/// How a failure of the vault is told.
pub(super) fn told(error: &VaultError) -> Problem {
    let words = error.to_string();
    match error {
        VaultError::Locked(_) => Problem::new(ApiCode::VaultLocked, words),
        VaultError::Unknown => unknown(),
        VaultError::Revoked => Problem::new(ApiCode::KeyRevoked, words),
        VaultError::NotActive { status } => Problem::new(ApiCode::KeyNotActive, words).with("key_status", status.as_str()),
        VaultError::Changed { current } => Problem::new(ApiCode::PreconditionFailed, words).with("revision", *current),
        VaultError::Refused(refused) => Problem::new(ApiCode::InvalidField, refused.allowed).field(refused.field),
        VaultError::TooMany { .. } => Problem::new(ApiCode::TooManyKeys, words),
        VaultError::OtherRequest => Problem::new(ApiCode::IdempotencyKeyReused, words),
        VaultError::Damaged | VaultError::Unreadable => Problem::new(ApiCode::SecretDamaged, words),
        VaultError::TooOften { retry_after_s } => Problem::new(ApiCode::TooManyRequests, words).with("retry_after_seconds", *retry_after_s),
        VaultError::Rotating => Problem::new(ApiCode::VaultRotating, words),
        VaultError::Write(WriteError::Conflict { .. }) => Problem::new(ApiCode::Conflict, words),
        VaultError::Write(WriteError::Timeout) => Problem::new(ApiCode::AppendTimeout, words),
        VaultError::Write(WriteError::Log(error)) | VaultError::Audit(error) => log_problem(error),
        VaultError::Randomness(_) => Problem::new(ApiCode::Internal, words),
    }
}

/// Lists broker keys: your own, for administrators all.
#[utoipa::path(get, path = "/api-keys", tag = "api-keys", params(
    ("limit" = Option<u32>, Query, description = "At most so many", minimum = 1, maximum = 500),
    ("cursor" = Option<String>, Query, description = "Where the last page ended"),
    ("owner" = Option<String>, Query, description = "Of this owner"),
    ("broker" = Option<Broker>, Query, description = "Of this broker"),
    ("environment" = Option<Environment>, Query, description = "Of this environment"),
    ("status" = Option<Status>, Query, description = "With this status"),
), responses((status = 200, description = "Keys by id", body = ApiKeyList)))]
async fn list(State(desk): State<Arc<VaultDesk>>, Extension(caller): Extension<Caller>, uri: Uri) -> Result<Response, Problem> {
    let query = Query::read(uri.query(), &["limit", "cursor", "owner", "broker", "environment", "status"])?;
    let page = Page::read(&query)?;
    let mut filter = Filter {
        owner: query.text("owner").map(str::to_owned),
        broker: word(&query, "broker", Broker::parse)?,
        environment: word(&query, "environment", Environment::parse)?,
        status: word(&query, "status", Status::parse)?,
    };
    let own = own_name(&caller).to_owned();
    if !caller.is_admin() {
        if filter.owner.as_ref().is_some_and(|owner| *owner != own) {
            return Ok(answer(StatusCode::OK, &ApiKeyList { items: Vec::new(), next_cursor: None }));
        }
        filter.owner = Some(own);
    }
    // One more than asked for, so that the page knows whether there are more.
    let found = desk.vault.list(&filter, page.after.as_deref(), page.limit + 1, now());
    let (keys, next_cursor) = page.cut(found.keys, |key| &key.id);
    Ok(answer(StatusCode::OK, &ApiKeyList { items: keys.into_iter().map(ApiKeyView::from).collect(), next_cursor }))
}

fn word<T>(query: &Query, name: &str, parse: impl Fn(&str) -> Option<T>) -> Result<Option<T>, Problem> {
    let wrong = || Problem::new(ApiCode::InvalidParameter, "not one of its words").field(name);
    query.text(name).map(|text| parse(text).ok_or_else(wrong)).transpose()
}

/// Keeps a broker key. The same `Idempotency-Key` makes one key only.
#[utoipa::path(post, path = "/api-keys", tag = "api-keys", request_body = ApiKeyCreate, params(
    ("Idempotency-Key" = Option<String>, Header, description = "The same key makes one API key only", min_length = 1, max_length = 255),
), responses((status = 201, description = "The key, without its secrets", body = ApiKeyView)))]
async fn create(
    State(desk): State<Arc<VaultDesk>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    uri: Uri,
    body: SecretJson<ApiKeyCreate>,
) -> Result<Response, Problem> {
    Query::read(uri.query(), &[])?;
    may_change(&caller)?;
    let ApiKeyCreate { broker, name, environment, owner, expires_at, key, secret, passphrase } = body.0;
    let owner = owner.unwrap_or_else(|| own_name(&caller).to_owned());
    if !caller.is_admin() && owner != own_name(&caller) {
        return Err(Problem::new(ApiCode::Forbidden, "only administrators keep keys of others").field("owner"));
    }
    if owner.is_empty() || owner.len() > 64 || owner.chars().any(char::is_control) {
        return Err(Problem::new(ApiCode::InvalidField, "1 to 64 bytes without control characters").field("owner"));
    }
    // Nobody could use it, and whoever is called so one day would find it.
    if owner != own_name(&caller) && desk.directory.get(Kind::User, &owner).is_none() {
        return Err(Problem::new(ApiCode::InvalidField, "there is no such user").field("owner"));
    }
    let idempotency_key = idempotency::key_of(&headers)?.map(str::to_owned);
    let secrets = Secrets { key, secret, passphrase };
    let new = NewKey { owner, broker, environment, name, expires_at: at(expires_at)?, secrets, idempotency_key };
    let made = desk.vault.create(Asking::of(&caller).by(), new, now()).await.map_err(|error| told(&error))?;
    let location = HeaderValue::from_str(&format!("/api/v1/api-keys/{}", made.id));
    let mut response = shown(StatusCode::CREATED, made);
    if let Ok(location) = location {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// One broker key, without its secrets.
#[utoipa::path(get, path = "/api-keys/{id}", tag = "api-keys", params(("id" = String, Path, description = "The key's id")),
    responses((status = 200, description = "The key", body = ApiKeyView)))]
async fn get(
    State(desk): State<Arc<VaultDesk>>,
    Extension(caller): Extension<Caller>,
    PathId(id): PathId,
    uri: Uri,
) -> Result<Response, Problem> {
    Query::read(uri.query(), &[])?;
    Ok(shown(StatusCode::OK, known(&desk, &caller, &id)?))
}

/// Changes name, status and end. Send the `ETag` that you saw as `If-Match`.
#[utoipa::path(put, path = "/api-keys/{id}", tag = "api-keys", request_body = ApiKeyUpdate, params(
    ("id" = String, Path, description = "The key's id"),
    ("If-Match" = String, Header, description = "The ETag of the key that you saw"),
), responses((status = 200, description = "The key", body = ApiKeyView)))]
async fn change(
    State(desk): State<Arc<VaultDesk>>,
    Extension(caller): Extension<Caller>,
    PathId(id): PathId,
    headers: HeaderMap,
    uri: Uri,
    body: SecretJson<ApiKeyUpdate>,
) -> Result<Response, Problem> {
    Query::read(uri.query(), &[])?;
    known(&desk, &caller, &id)?;
    may_change(&caller)?;
    let revision = versions::wanted(&headers)?;
    let ApiKeyUpdate { name, status, expires_at } = body.0;
    let change = Change { name, status, expires_at: at(expires_at)? };
    let changed = desk.vault.change(Asking::of(&caller).by(), &id, Some(revision), change, now()).await;
    Ok(shown(StatusCode::OK, changed.map_err(|error| told(&error))?))
}

/// Revokes the key and erases its secret for good. Send the `ETag` that you saw as `If-Match`.
#[utoipa::path(delete, path = "/api-keys/{id}", tag = "api-keys", params(
    ("id" = String, Path, description = "The key's id"),
    ("If-Match" = String, Header, description = "The ETag of the key that you saw"),
), responses((status = 204, description = "It is gone")))]
async fn remove(
    State(desk): State<Arc<VaultDesk>>,
    Extension(caller): Extension<Caller>,
    PathId(id): PathId,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Problem> {
    Query::read(uri.query(), &[])?;
    known(&desk, &caller, &id)?;
    may_change(&caller)?;
    let revision = versions::wanted(&headers)?;
    desk.vault.delete(Asking::of(&caller).by(), &id, Some(revision), now()).await.map_err(|error| told(&error))?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Gives the key new secrets: a new version; the old one is erased. Send the `ETag` that you saw as `If-Match`.
#[utoipa::path(post, path = "/api-keys/{id}/rotate", tag = "api-keys", request_body = ApiKeySecrets, params(
    ("id" = String, Path, description = "The key's id"),
    ("If-Match" = String, Header, description = "The ETag of the key that you saw"),
), responses((status = 200, description = "The key", body = ApiKeyView)))]
async fn rotate(
    State(desk): State<Arc<VaultDesk>>,
    Extension(caller): Extension<Caller>,
    PathId(id): PathId,
    headers: HeaderMap,
    uri: Uri,
    body: SecretJson<ApiKeySecrets>,
) -> Result<Response, Problem> {
    Query::read(uri.query(), &[])?;
    known(&desk, &caller, &id)?;
    may_change(&caller)?;
    let revision = versions::wanted(&headers)?;
    let ApiKeySecrets { key, secret, passphrase } = body.0;
    let secrets = Secrets { key, secret, passphrase };
    let replaced = desk.vault.replace(Asking::of(&caller).by(), &id, Some(revision), &secrets, now()).await;
    Ok(shown(StatusCode::OK, replaced.map_err(|error| told(&error))?))
}

/// Opens the secret and asks the broker about it (Alpaca, Binance), or looks at its format.
#[utoipa::path(post, path = "/api-keys/{id}/verify", tag = "api-keys", params(("id" = String, Path, description = "The key's id")),
    responses((status = 200, description = "What came of it", body = VerifiedView)))]
async fn verify(
    State(desk): State<Arc<VaultDesk>>,
    Extension(caller): Extension<Caller>,
    PathId(id): PathId,
    uri: Uri,
) -> Result<Response, Problem> {
    Query::read(uri.query(), &[])?;
    known(&desk, &caller, &id)?;
    may_change(&caller)?;
    let verified = desk.vault.verify_key(Asking::of(&caller).by(), &id, now()).await.map_err(|error| told(&error))?;
    Ok(answer(StatusCode::OK, &VerifiedView::from(verified)))
}

/// The secrets of an active key. Needs the scope `vault:reveal`, has a rate, and is in the audit trail before it answers.
#[utoipa::path(post, path = "/api-keys/{id}/reveal", tag = "api-keys", params(("id" = String, Path, description = "The key's id")),
    responses((status = 200, description = "The secrets", body = Revealed)))]
async fn reveal(
    State(desk): State<Arc<VaultDesk>>,
    Extension(caller): Extension<Caller>,
    PathId(id): PathId,
    uri: Uri,
) -> Result<Response, Problem> {
    Query::read(uri.query(), &[])?;
    let key = known(&desk, &caller, &id)?;
    if let Err(problem) = caller.require(Scope::VaultReveal) {
        desk.vault.refused(Asking::of(&caller).by(), &id).await;
        return Err(problem);
    }
    let secrets = desk.vault.reveal(Asking::of(&caller).by(), &id, now()).await.map_err(|error| told(&error))?;
    let passphrase = secrets.passphrase.as_ref().map(SecretString::expose_secret);
    let (key_text, secret) = (secrets.key.expose_secret(), secrets.secret.expose_secret());
    secret_body::answer(&Revealed { id: &id, broker: key.stored.broker, key: key_text, secret, passphrase })
}

/// What was done with the key, the newest first; also after it was deleted.
#[utoipa::path(get, path = "/api-keys/{id}/audit-logs", tag = "api-keys", params(
    ("id" = String, Path, description = "The key's id"),
    ("limit" = Option<u32>, Query, description = "At most so many", minimum = 1, maximum = 500),
    ("cursor" = Option<String>, Query, description = "Where the last page ended"),
), responses((status = 200, description = "Entries, the newest first", body = AuditLog)))]
async fn audit_logs(
    State(desk): State<Arc<VaultDesk>>,
    Extension(caller): Extension<Caller>,
    PathId(id): PathId,
    uri: Uri,
) -> Result<Response, Problem> {
    let page = Page::read(&Query::read(uri.query(), &["limit", "cursor"])?)?;
    let owner = desk.vault.owner_of(&id).ok_or_else(unknown)?;
    if !caller.is_admin() && owner != own_name(&caller) {
        return Err(unknown());
    }
    let wrong = || Problem::new(ApiCode::InvalidParameter, "no cursor of ours").field("cursor");
    let before = page.after.as_deref().map(|text| text.parse::<u64>().map_err(|_| wrong())).transpose()?;
    let (topics, object) = (desk.topics.clone(), vault::object(&id));
    let looked = tokio::task::spawn_blocking(move || audit::page(&*topics, before, page.limit, &|entry| entry.link.object == object)).await;
    let found = looked.map_err(|_| Problem::new(ApiCode::Internal, "the audit trail could not be read"))?;
    let found = found.map_err(|error| log_problem(&error))?;
    let next_cursor = found.next.map(|offset| Page::cursor(&offset.to_string()));
    Ok(answer(StatusCode::OK, &AuditLog { items: found.entries.into_iter().map(AuditEntry::from).collect(), next_cursor }))
}
