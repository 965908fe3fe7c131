//! `/api/v1/notifications`: one's own inbox.
//!
//! Invariant: everyone sees their own inbox, and in it only what concerns accounts that they may know of now. A mark is in the directory
//! when it is answered. Deliberately absent: other people's inboxes, for administrators too.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::json::answer;
use super::notification_desk::NotifyDesk;
use super::page::{LIMIT, LIMIT_MAX, PathId};
use crate::api::caller::Caller;
use crate::api::problem::{ApiCode, Problem};
use crate::api::query::Query;
use crate::api::records::log_problem;
use crate::control::directory::WriteError;
use crate::domain::{NotificationType, Priority};
use crate::notify::inbox::{self, Cursor, Filter, Marks};
use crate::notify::people::ChangeError;
use crate::notify::states::Delivered;
use crate::notify::template::moment;
use crate::notify::{Notifier, Raised, RaisedId};

/// The paths.
pub fn routes() -> OpenApiRouter<Arc<NotifyDesk>> {
    let inbox = OpenApiRouter::new().routes(routes!(list)).routes(routes!(stats)).routes(routes!(read_all));
    inbox.routes(routes!(read)).routes(routes!(remove))
}

/// Whose inbox and wishes a caller's are.
pub(super) fn own(caller: &Caller) -> &str {
    caller.user.as_deref().unwrap_or(&caller.name)
}

/// A failure of the directory, told.
pub(super) fn write_problem(error: WriteError) -> Problem {
    match error {
        WriteError::Conflict { .. } => Problem::new(ApiCode::Conflict, "somebody else changed it: read it again"),
        WriteError::Log(error) => log_problem(&error),
        WriteError::Timeout => Problem::new(ApiCode::AppendTimeout, "the directory did not answer in time"),
    }
}

pub(super) fn change_problem(error: ChangeError<Problem>) -> Problem {
    match error {
        ChangeError::Refused(problem) => problem,
        ChangeError::Write(error) => write_problem(error),
    }
}

/// A word of one of our enums in a query.
pub(super) fn word<T>(query: &Query, name: &str, parse: impl Fn(&str) -> Option<T>) -> Result<Option<T>, Problem> {
    let known =
        |text: &str| parse(text).ok_or_else(|| Problem::new(ApiCode::InvalidParameter, format!("unknown word {text:?}")).field(name));
    query.text(name).map(known).transpose()
}

/// A notification.
#[derive(Serialize, ToSchema)]
pub struct Notification {
    /// Its id: shard, ledger sequence, place.
    #[schema(example = "0-1842-n0")]
    id: String,
    /// The account that it is about, if it is about one.
    account: Option<String>,
    /// Its type.
    #[serde(rename = "type")]
    kind: &'static str,
    /// What exactly it says.
    code: String,
    /// `low`, `medium`, `high` or `urgent`.
    priority: &'static str,
    /// Its headline.
    title: String,
    /// Its sentence.
    message: String,
    /// The figures that apply; decimals are strings.
    #[schema(value_type = Object)]
    data: Map<String, Value>,
    /// The record's time (RFC 3339).
    at: String,
    /// Whether it is marked read.
    read: bool,
    /// What became of it beside the inbox, as long as that is kept.
    deliveries: Vec<Delivery>,
}

/// What became of a notification over one channel.
#[derive(Serialize, ToSchema)]
#[schema(as = NotificationDelivery)]
pub struct Delivery {
    /// The channel.
    channel: &'static str,
    /// `pending`, `held`, `sent`, `summarised` (there were too many: a digest says how many, and none of its own was sent), or why it is
    /// dead: `refused`, `expired`, `unwanted`, `lost`.
    state: &'static str,
    /// Attempts so far.
    attempts: u32,
    /// What the last one met.
    #[serde(skip_serializing_if = "String::is_empty")]
    detail: String,
}

/// A page of notifications, the newest first.
#[derive(Serialize, ToSchema)]
pub struct Notifications {
    /// The notifications.
    items: Vec<Notification>,
    /// The `cursor` of the next page; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
    /// False while the inbox is read from the log after a start.
    complete: bool,
}

/// How many of what.
#[derive(Serialize, ToSchema)]
pub struct NotificationStats {
    /// All in the inbox.
    total: usize,
    /// Those that are not read.
    unread: usize,
    /// By type.
    by_type: BTreeMap<&'static str, usize>,
    /// By priority.
    by_priority: BTreeMap<&'static str, usize>,
    /// By channel and delivery state; `in_app` is the inbox itself.
    by_channel: BTreeMap<&'static str, BTreeMap<&'static str, usize>>,
}

/// How many were marked.
#[derive(Serialize, ToSchema)]
pub struct Marked {
    /// So many were not read before.
    marked: usize,
}

impl Delivery {
    fn of(delivered: Delivered) -> Self {
        let Delivered { channel, state, attempts, note } = delivered;
        Self { channel: channel.as_str(), state, attempts, detail: note }
    }
}

pub(super) fn shown(raised: &Raised, read: bool, deliveries: Vec<Delivered>) -> Notification {
    Notification {
        id: raised.id.to_string(),
        account: raised.account.clone(),
        kind: raised.kind.as_str(),
        code: raised.code.clone(),
        priority: raised.priority.as_str(),
        title: raised.title.clone(),
        message: raised.message.clone(),
        data: raised.data.clone(),
        at: moment(raised.at),
        read,
        deliveries: deliveries.into_iter().map(Delivery::of).collect(),
    }
}

/// What came into an inbox stays hidden from who may no longer know of its account.
pub(super) fn may(caller: &Caller) -> impl Fn(&Raised) -> bool + '_ {
    // What is of no account is for operators, or for whom it is about.
    |raised| match &raised.account {
        Some(account) => caller.may_read(account),
        None => caller.is_admin() || raised.owner.as_deref() == Some(own(caller)),
    }
}

fn unknown() -> Problem {
    Problem::new(ApiCode::UnknownObject, "there is no such notification in the inbox")
}

/// Lists one's notifications, the newest first.
#[utoipa::path(get, path = "/notifications", tag = "notifications", params(
    ("limit" = Option<u32>, Query, description = "At most so many", minimum = 1, maximum = 500),
    ("cursor" = Option<String>, Query, description = "Where the last page ended"),
    ("type" = Option<String>, Query, description = "Of this type only"),
    ("priority" = Option<String>, Query, description = "Of this priority only: low, medium, high, urgent"),
    ("unread" = Option<bool>, Query, description = "true: only what is not read; false: only what is"),
), responses((status = 200, description = "Notifications", body = Notifications)))]
async fn list(State(notifier): State<Arc<NotifyDesk>>, Extension(caller): Extension<Caller>, uri: Uri) -> Result<Response, Problem> {
    let query = Query::read(uri.query(), &["limit", "cursor", "type", "priority", "unread"])?;
    let limit = query.number("limit", 1, LIMIT_MAX, LIMIT)?;
    let from = word(&query, "cursor", Cursor::parse)?;
    let filter = Filter {
        kind: word(&query, "type", NotificationType::parse)?,
        priority: word(&query, "priority", Priority::parse)?,
        unread: query.text("unread").map(|_| query.flag("unread")).transpose()?,
    };
    let user = own(&caller);
    let (inbox, marks) = notifier.inbox(user);
    let page = inbox::page(&inbox, &marks, filter, from, limit, may(&caller));
    let mut deliveries = notifier.deliveries(user);
    let items = page.items.iter().map(|(raised, read)| shown(raised, *read, deliveries.remove(&raised.id).unwrap_or_default())).collect();
    let next_cursor = page.next.map(Cursor::to_text);
    Ok(answer(StatusCode::OK, &Notifications { items, next_cursor, complete: notifier.is_filled() }))
}

/// Counts one's notifications.
#[utoipa::path(get, path = "/notifications/stats", tag = "notifications", responses(
    (status = 200, description = "How many of what", body = NotificationStats),
))]
async fn stats(State(notifier): State<Arc<NotifyDesk>>, Extension(caller): Extension<Caller>, uri: Uri) -> Result<Response, Problem> {
    Query::read(uri.query(), &[])?;
    let user = own(&caller);
    let (inbox, marks) = notifier.inbox(user);
    let inbox::Counts { total, unread, by_type, by_priority } = inbox::count(&inbox, &marks, may(&caller));
    let mut by_channel = notifier.delivery_counts(user);
    by_channel.insert("in_app", [("sent", total)].into());
    Ok(answer(StatusCode::OK, &NotificationStats { total, unread, by_type, by_priority, by_channel }))
}

/// The id in a path, if it is of something in the inbox that the caller may know of.
fn known(notifier: &Notifier, caller: &Caller, id: &str) -> Result<RaisedId, Problem> {
    let id = RaisedId::parse(id).ok_or_else(unknown)?;
    let (inbox, marks) = notifier.inbox(own(caller));
    let found = inbox.iter().any(|raised| raised.id == id && may(caller)(raised) && !marks.deleted.contains(&id));
    if found { Ok(id) } else { Err(unknown()) }
}

async fn mark<R>(notifier: &Notifier, caller: &Caller, mut make: impl FnMut(&mut Marks) -> R) -> Result<R, Problem> {
    let user = own(caller);
    // Looked at before the inbox: one that is still being read from the log may be full of old ones, and its newest marks are to stay.
    let is_whole = notifier.is_filled();
    let (inbox, _) = notifier.inbox(user);
    let changed = notifier.book().change(user, &caller.name, None, |marks: &mut Marks| {
        let made = make(marks);
        if is_whole {
            marks.prune(&inbox);
        }
        Ok::<_, Problem>(made)
    });
    Ok(changed.await.map_err(change_problem)?.0)
}

/// Marks one notification read.
#[utoipa::path(put, path = "/notifications/{id}/read", tag = "notifications", params(("id" = String, Path, description = "Its id")),
    responses((status = 204, description = "It is marked")))]
async fn read(
    State(notifier): State<Arc<NotifyDesk>>,
    Extension(caller): Extension<Caller>,
    PathId(id): PathId,
    uri: Uri,
) -> Result<Response, Problem> {
    Query::read(uri.query(), &[])?;
    let id = known(&notifier, &caller, &id)?;
    if !notifier.inbox(own(&caller)).1.is_read(id) {
        mark(&notifier, &caller, |marks| marks.read.insert(id)).await?;
    }
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Marks all of one's notifications read that are there now.
#[utoipa::path(put, path = "/notifications/read-all", tag = "notifications", responses(
    (status = 200, description = "How many were marked", body = Marked),
))]
async fn read_all(State(notifier): State<Arc<NotifyDesk>>, Extension(caller): Extension<Caller>, uri: Uri) -> Result<Response, Problem> {
    Query::read(uri.query(), &[])?;
    let (inbox, _) = notifier.inbox(own(&caller));
    let marked = mark(&notifier, &caller, |marks| {
        let unread = inbox::count(&inbox, marks, may(&caller)).unread;
        marks.read_all(inbox.iter().map(Arc::as_ref));
        unread
    });
    Ok(answer(StatusCode::OK, &Marked { marked: marked.await? }))
}

/// Deletes one notification from one's inbox.
#[utoipa::path(delete, path = "/notifications/{id}", tag = "notifications", params(("id" = String, Path, description = "Its id")),
    responses((status = 204, description = "It is deleted")))]
async fn remove(
    State(notifier): State<Arc<NotifyDesk>>,
    Extension(caller): Extension<Caller>,
    PathId(id): PathId,
    uri: Uri,
) -> Result<Response, Problem> {
    Query::read(uri.query(), &[])?;
    let id = known(&notifier, &caller, &id)?;
    mark(&notifier, &caller, |marks| marks.deleted.insert(id)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
