//! `/api/v1/notification-preferences`: what one wants to hear, over which channel, and when.
//!
//! Invariant: one preference for a type (or all) and channel. All of a person's preferences have one version: an update says which one it
//! saw, so that of two that meet one hears 412. Deliberately absent: preferences for the inbox; it hears everything.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::json::{Json, answer, optional_object};
use super::notification_desk::NotifyDesk;
use super::notifications::{change_problem, own, word};
use super::page::{Page, PathId};
use super::versions;
use crate::api::caller::{Caller, now};
use crate::api::problem::{ApiCode, Problem};
use crate::api::query::Query;
use crate::domain::{NotificationType, Priority};
use crate::notify::preference::{Preference, Preferences, Quiet, SNOOZE_MS_MAX};
use crate::notify::template::moment;
use crate::notify::{Channel, Outcome, VerifyError};

/// The paths.
pub fn routes() -> OpenApiRouter<Arc<NotifyDesk>> {
    let all = OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(preview)).routes(routes!(test));
    all.routes(routes!(get, update, remove))
}

/// A preference.
#[derive(Serialize, ToSchema)]
#[schema(as = NotificationPreference)]
pub struct PreferenceView {
    /// Its id: type and channel.
    #[schema(example = "stop_loss-email")]
    id: String,
    /// The type; `null`: all types that have no preference of their own.
    #[serde(rename = "type")]
    kind: Option<&'static str>,
    /// The channel.
    channel: Channel,
    /// Whether anything is sent.
    enabled: bool,
    /// The least priority that is sent.
    min_priority: &'static str,
    /// When only what is urgent is sent at once.
    quiet_hours: Option<Quiet>,
    /// Until when nothing is sent (RFC 3339).
    snooze_until: Option<String>,
}

/// A page of one's preferences.
#[derive(Serialize, ToSchema)]
pub struct NotificationPreferences {
    /// By their ids.
    items: Vec<PreferenceView>,
    /// The `cursor` of the next page; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
    /// The channels that are set up on this gate.
    channels: Vec<Channel>,
}

/// A new preference.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PreferenceCreate {
    /// The type; absent: all types that have no preference of their own.
    #[serde(rename = "type", default)]
    #[schema(example = "stop_loss")]
    kind: Option<String>,
    /// The channel.
    channel: Channel,
    /// Whether anything is sent.
    enabled: bool,
    /// The least priority that is sent: `low`, `medium`, `high` or `urgent`.
    #[schema(pattern = "^(low|medium|high|urgent)$")]
    min_priority: String,
    /// When only what is urgent is sent at once.
    #[serde(default, deserialize_with = "optional_object")]
    quiet_hours: Option<Quiet>,
    /// Until when nothing is sent (RFC 3339), at most 30 days from now.
    #[serde(default)]
    #[schema(format = DateTime)]
    snooze_until: Option<String>,
}

/// What a preference becomes.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PreferenceUpdate {
    /// Whether anything is sent.
    enabled: bool,
    /// The least priority that is sent: `low`, `medium`, `high` or `urgent`.
    #[schema(pattern = "^(low|medium|high|urgent)$")]
    min_priority: String,
    /// When only what is urgent is sent at once.
    #[serde(default, deserialize_with = "optional_object")]
    quiet_hours: Option<Quiet>,
    /// Until when nothing is sent (RFC 3339), at most 30 days from now.
    #[serde(default)]
    #[schema(format = DateTime)]
    snooze_until: Option<String>,
}

/// Which channel to try.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TestRequest {
    /// The channel.
    channel: Channel,
}

/// What became of a test.
#[derive(Serialize, ToSchema)]
pub struct TestResult {
    /// For each place that one has on the channel.
    results: Vec<TestOutcome>,
}

/// What became of a test at one place.
#[derive(Serialize, ToSchema)]
pub struct TestOutcome {
    /// `sent`, `failed` for now, or `refused` for good.
    status: &'static str,
    /// What it met.
    #[serde(skip_serializing_if = "String::is_empty")]
    detail: String,
}

/// When the next one would be sent.
#[derive(Serialize, ToSchema)]
pub struct NotificationPreview {
    /// When (RFC 3339); `null`: never.
    at: Option<String>,
    /// Why.
    reason: String,
    /// The preference that says so; `null`: the channel's default.
    preference: Option<String>,
}

impl From<&Preference> for PreferenceView {
    fn from(preference: &Preference) -> Self {
        Self {
            id: preference.id(),
            kind: preference.kind.map(NotificationType::as_str),
            channel: preference.channel,
            enabled: preference.enabled,
            min_priority: preference.min_priority.as_str(),
            quiet_hours: preference.quiet_hours.clone(),
            snooze_until: preference.snooze_until.map(moment),
        }
    }
}

fn invalid(field: &str, why: impl std::fmt::Display) -> Problem {
    Problem::new(ApiCode::InvalidField, why.to_string()).field(field)
}

fn unknown() -> Problem {
    Problem::new(ApiCode::UnknownObject, "there is no such preference")
}

/// What was asked for, if it can be.
fn preference(kind: Option<NotificationType>, channel: Channel, wish: PreferenceUpdate, at: i64) -> Result<Preference, Problem> {
    let PreferenceUpdate { enabled, min_priority, quiet_hours, snooze_until } = wish;
    let min_priority = Priority::parse(&min_priority).ok_or_else(|| invalid("min_priority", "low, medium, high or urgent"))?;
    if let Some(quiet) = &quiet_hours {
        quiet.hours().map_err(|error| invalid(error.field(), error))?;
    }
    let moment = |text: String| text.parse::<Timestamp>().map(Timestamp::as_millisecond);
    let snooze_until = snooze_until.map(moment).transpose().map_err(|_| invalid("snooze_until", "no RFC 3339 date and time"))?;
    if snooze_until.is_some_and(|until| until.saturating_sub(at) > SNOOZE_MS_MAX) {
        return Err(invalid("snooze_until", "at most 30 days from now"));
    }
    Ok(Preference { kind, channel, enabled, min_priority, quiet_hours, snooze_until })
}

fn shown(status: StatusCode, preference: &Preference, version: u64) -> Response {
    versions::tagged(answer(status, &PreferenceView::from(preference)), version)
}

/// Lists one's preferences.
#[utoipa::path(get, path = "/notification-preferences", tag = "notification-preferences", params(
    ("limit" = Option<u32>, Query, description = "At most so many", minimum = 1, maximum = 500),
    ("cursor" = Option<String>, Query, description = "Where the last page ended"),
), responses(
    (status = 200, description = "Preferences; their version is in `ETag`", body = NotificationPreferences),
))]
async fn list(State(notifier): State<Arc<NotifyDesk>>, Extension(caller): Extension<Caller>, uri: Uri) -> Result<Response, Problem> {
    let page = Page::read(&Query::read(uri.query(), &["limit", "cursor"])?)?;
    let (held, version) = notifier.book().get::<Preferences>(own(&caller));
    let mut all: Vec<_> = held.preferences.iter().map(PreferenceView::from).collect();
    all.sort_by(|a, b| a.id.cmp(&b.id));
    let (items, next_cursor) = page.cut(all, |view| &view.id);
    let channels = notifier.channels().ready();
    Ok(versions::tagged(answer(StatusCode::OK, &NotificationPreferences { items, next_cursor, channels }), version))
}

/// Makes a preference.
#[utoipa::path(post, path = "/notification-preferences", tag = "notification-preferences", request_body = PreferenceCreate, params(
    ("Idempotency-Key" = Option<String>, Header, description = "The same key makes it once only", min_length = 1, max_length = 255),
), responses(
    (status = 201, description = "The preference", body = PreferenceView),
))]
async fn create(
    State(notifier): State<Arc<NotifyDesk>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    uri: Uri,
    body: Json<PreferenceCreate>,
) -> Result<Response, Problem> {
    Query::read(uri.query(), &[])?;
    let PreferenceCreate { kind, channel, enabled, min_priority, quiet_hours, snooze_until } = body.value;
    let wish = PreferenceUpdate { enabled, min_priority, quiet_hours, snooze_until };
    let known = |word: String| NotificationType::parse(&word).ok_or_else(|| invalid("type", "no type of notification"));
    let made = preference(kind.map(known).transpose()?, channel, wish, now())?;
    let begun = notifier.begin(&caller, "POST /notification-preferences", &headers, &body.bytes, made.id()).await?;
    let (held, version) = notifier.book().get::<Preferences>(own(&caller));
    if let Some(there) = held.preferences.iter().find(|there| begun.again && there.id() == made.id()) {
        return Ok(shown(StatusCode::CREATED, there, version));
    }
    let changed = notifier.book().change(own(&caller), &caller.name, None, |held: &mut Preferences| {
        if held.preferences.iter().any(|other| other.id() == made.id()) {
            return Err(Problem::new(ApiCode::AlreadyExists, format!("there is a preference {} already", made.id())));
        }
        held.preferences.push(made.clone());
        Ok(())
    });
    let act = async { changed.await.map_err(change_problem) };
    let changes = json!({"preference": made});
    let ((), version) = notifier.audited(&caller, ("preference.create", &format!("preference:{}", made.id())), changes, act).await?;
    Ok(shown(StatusCode::CREATED, &made, version))
}

/// Gives one preference.
#[utoipa::path(get, path = "/notification-preferences/{id}", tag = "notification-preferences",
    params(("id" = String, Path, description = "Its id")),
    responses((status = 200, description = "The preference; the version is in `ETag`", body = PreferenceView)))]
async fn get(
    State(notifier): State<Arc<NotifyDesk>>,
    Extension(caller): Extension<Caller>,
    PathId(id): PathId,
    uri: Uri,
) -> Result<Response, Problem> {
    Query::read(uri.query(), &[])?;
    let (held, version) = notifier.book().get::<Preferences>(own(&caller));
    let found = held.preferences.iter().find(|preference| preference.id() == id).ok_or_else(unknown)?;
    Ok(shown(StatusCode::OK, found, version))
}

/// Changes a preference.
#[utoipa::path(put, path = "/notification-preferences/{id}", tag = "notification-preferences", request_body = PreferenceUpdate,
    params(("id" = String, Path, description = "Its id"), ("If-Match" = String, Header, description = "The `ETag` that was seen")),
    responses((status = 200, description = "The preference", body = PreferenceView)))]
async fn update(
    State(notifier): State<Arc<NotifyDesk>>,
    Extension(caller): Extension<Caller>,
    PathId(id): PathId,
    headers: HeaderMap,
    uri: Uri,
    body: Json<PreferenceUpdate>,
) -> Result<Response, Problem> {
    Query::read(uri.query(), &[])?;
    let (held, _) = notifier.book().get::<Preferences>(own(&caller));
    let old = held.preferences.iter().find(|preference| preference.id() == id).ok_or_else(unknown)?;
    let expected = versions::wanted(&headers)?;
    let made = preference(old.kind, old.channel, body.value, now())?;
    let changed = notifier.book().change(own(&caller), &caller.name, Some(expected), |held: &mut Preferences| {
        let slot = held.preferences.iter_mut().find(|preference| preference.id() == id).ok_or_else(unknown)?;
        *slot = made.clone();
        Ok(())
    });
    let act = async { changed.await.map_err(|error| versions::refused(change_problem(error))) };
    let changes = json!({"before": old, "preference": made});
    let ((), version) = notifier.audited(&caller, ("preference.change", &format!("preference:{id}")), changes, act).await?;
    Ok(shown(StatusCode::OK, &made, version))
}

/// Deletes a preference: what holds for all types, or the default, holds again.
#[utoipa::path(delete, path = "/notification-preferences/{id}", tag = "notification-preferences",
    params(("id" = String, Path, description = "Its id"), ("If-Match" = String, Header, description = "The `ETag` that was seen")),
    responses((status = 204, description = "It is deleted")))]
async fn remove(
    State(notifier): State<Arc<NotifyDesk>>,
    Extension(caller): Extension<Caller>,
    PathId(id): PathId,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Problem> {
    Query::read(uri.query(), &[])?;
    let (held, _) = notifier.book().get::<Preferences>(own(&caller));
    held.preferences.iter().find(|preference| preference.id() == id).ok_or_else(unknown)?;
    let expected = versions::wanted(&headers)?;
    let changed = notifier.book().change(own(&caller), &caller.name, Some(expected), |held: &mut Preferences| {
        held.preferences.retain(|preference| preference.id() != id);
        Ok::<(), Problem>(())
    });
    let act = async { changed.await.map_err(|error| versions::refused(change_problem(error))) };
    notifier.audited(&caller, ("preference.remove", &format!("preference:{id}")), json!({}), act).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Says when the next notification of a type and priority would be sent over a channel, and why.
#[utoipa::path(get, path = "/notification-preferences/preview", tag = "notification-preferences", params(
    ("type" = String, Query, description = "Its type"),
    ("channel" = String, Query, description = "The channel", pattern = "^(email|push|sms|webhook)$"),
    ("priority" = String, Query, description = "Its priority", pattern = "^(low|medium|high|urgent)$"),
), responses((status = 200, description = "When and why", body = NotificationPreview)))]
async fn preview(State(notifier): State<Arc<NotifyDesk>>, Extension(caller): Extension<Caller>, uri: Uri) -> Result<Response, Problem> {
    let query = Query::read(uri.query(), &["type", "channel", "priority"])?;
    let needed = |name: &'static str| move || Problem::new(ApiCode::InvalidParameter, "is needed").field(name);
    let kind = word(&query, "type", NotificationType::parse)?.ok_or_else(needed("type"))?;
    let channel = word(&query, "channel", Channel::parse)?.ok_or_else(needed("channel"))?;
    let priority = word(&query, "priority", Priority::parse)?.ok_or_else(needed("priority"))?;
    let user = own(&caller);
    let (held, _) = notifier.book().get::<Preferences>(user);
    let found = held.preview(kind, channel, priority, now());
    let (at, reason) = if !notifier.channels().ready().contains(&channel) {
        (None, "never: the channel is not set up on this gate".to_owned())
    } else if notifier.book().places_of(&user.into(), channel).is_empty() {
        (None, "never: there is no verified address or subscription".to_owned())
    } else {
        (found.at, found.why)
    };
    Ok(answer(StatusCode::OK, &NotificationPreview { at: at.map(moment), reason, preference: found.preference }))
}

/// Sends a test over a channel, now, whatever the preferences say.
#[utoipa::path(post, path = "/notification-preferences/test", tag = "notification-preferences", request_body = TestRequest, responses(
    (status = 200, description = "What became of it", body = TestResult),
))]
async fn test(
    State(notifier): State<Arc<NotifyDesk>>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
    body: Json<TestRequest>,
) -> Result<Response, Problem> {
    Query::read(uri.query(), &[])?;
    let outcomes = notifier.test(own(&caller), body.value.channel).await;
    let outcomes = outcomes.map_err(|error| match error {
        VerifyError::Unknown => invalid("channel", "there is no verified address or subscription to send to"),
        error => super::notification_contacts::verify_problem(error),
    })?;
    let results = outcomes.into_iter().map(|outcome| match outcome {
        Outcome::Sent => TestOutcome { status: "sent", detail: String::new() },
        Outcome::Later { why, .. } => TestOutcome { status: "failed", detail: why },
        Outcome::Refused { why } | Outcome::Gone { why } | Outcome::Unwanted { why } => TestOutcome { status: "refused", detail: why },
    });
    Ok(answer(StatusCode::OK, &TestResult { results: results.collect() }))
}
