//! `GET /api/v1/audit`: what was done, by whom, from where, to what, and how it ended. For administrators.
//!
//! Invariant: the newest first, out of the trail itself, a bounded number of records at a time; a page can be empty and have a cursor.
//! Deliberately absent: whether the trail is whole; `ordergate audit verify` proves that against heads that were published elsewhere.

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

use super::decisions::moment as read_moment;
use super::json::answer;
use super::page::Page;
use super::users::moment;
use crate::api::caller::Caller;
use crate::api::problem::{ApiCode, Problem};
use crate::api::query::Query;
use crate::api::records::log_problem;
use crate::control::audit::{self, Entry};
use crate::domain::Millis;
use crate::log::Topics;

/// The paths.
pub fn routes() -> OpenApiRouter<Arc<dyn Topics>> {
    OpenApiRouter::new().routes(routes!(list))
}

/// Something that was done.
#[derive(Serialize, ToSchema)]
#[schema(as = AuditEntry)]
pub struct EntryView {
    /// When (RFC 3339).
    at: String,
    /// Who.
    #[schema(example = "root")]
    actor: String,
    /// From where.
    address: String,
    /// What.
    #[schema(example = "rule.create")]
    action: String,
    /// To what.
    #[schema(example = "rule:r-1")]
    object: String,
    /// What changes; never a secret.
    #[schema(value_type = Object)]
    changes: Value,
    /// `begun` before it is done; then, in an entry of its own, `ok` or the code for which it was not.
    result: String,
    /// The chain of the instance that wrote it.
    chain: String,
    /// Its place in the chain.
    seq: u64,
    /// Its hash, which the next of its chain names.
    head: String,
    /// Where it stands in `gate.audit`.
    offset: u64,
}

/// A page of the audit trail.
#[derive(Serialize, ToSchema)]
#[schema(as = AuditPage)]
pub struct EntryViews {
    /// The entries, the newest first.
    items: Vec<EntryView>,
    /// The `cursor` of the next page; absent at the end. A page can be empty and have one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

impl From<Entry> for EntryView {
    fn from(entry: Entry) -> Self {
        let Entry { offset, link, head } = entry;
        Self {
            at: moment(link.at),
            actor: link.actor,
            address: link.address,
            action: link.action,
            object: link.object,
            changes: link.changes,
            result: link.result,
            chain: link.chain.to_string(),
            seq: link.seq,
            head: head.to_string(),
            offset,
        }
    }
}

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Wanted {
    actor: Option<String>,
    action: Option<String>,
    object: Option<String>,
    from: Option<Millis>,
    to: Option<Millis>,
}

impl Wanted {
    fn read(query: &Query) -> Result<Self, Problem> {
        let text = |name: &str| query.text(name).map(str::to_owned);
        let wrong = |name: &str| Problem::new(ApiCode::InvalidParameter, "an RFC 3339 date and time, or ms since the epoch").field(name);
        let time = |name: &str| query.text(name).map(|text| read_moment(text).ok_or_else(|| wrong(name))).transpose();
        Ok(Self { actor: text("actor"), action: text("action"), object: text("object"), from: time("from")?, to: time("to")? })
    }

    fn takes(&self, entry: &Entry) -> bool {
        let link = &entry.link;
        // `account.` asks for all that is done to accounts.
        let of_action = |wanted: &String| link.action == *wanted || (wanted.ends_with('.') && link.action.starts_with(wanted.as_str()));
        self.actor.as_ref().is_none_or(|actor| link.actor == *actor)
            && self.action.as_ref().is_none_or(of_action)
            && self.object.as_ref().is_none_or(|object| link.object == *object)
            && self.from.is_none_or(|from| link.at >= from)
            && self.to.is_none_or(|to| link.at < to)
    }
}

/// Lists what was done, the newest first.
#[utoipa::path(get, path = "/audit", tag = "audit", params(
    ("actor" = Option<String>, Query, description = "By this one"),
    ("action" = Option<String>, Query, description = "This action, as `account.kill`; with a dot at the end all that begin so, as `account.`"),
    ("object" = Option<String>, Query, description = "To this object, as `account:A-1`"),
    ("from" = Option<String>, Query, description = "Not earlier (RFC 3339, or ms since the epoch)"),
    ("to" = Option<String>, Query, description = "Earlier than this"),
    ("limit" = Option<u32>, Query, description = "At most so many", minimum = 1, maximum = 500),
    ("cursor" = Option<String>, Query, description = "Where the last page ended"),
), responses((status = 200, description = "Entries, the newest first", body = EntryViews)))]
async fn list(State(topics): State<Arc<dyn Topics>>, Extension(caller): Extension<Caller>, uri: Uri) -> Result<Response, Problem> {
    let query = Query::read(uri.query(), &["actor", "action", "object", "from", "to", "limit", "cursor"])?;
    let (page, wanted) = (Page::read(&query)?, Wanted::read(&query)?);
    caller.require_admin()?;
    let wrong = || Problem::new(ApiCode::InvalidParameter, "no cursor of ours").field("cursor");
    let before = page.after.as_deref().map(|text| text.parse::<u64>().map_err(|_| wrong())).transpose()?;
    let read = move || audit::page_since(&*topics, before, wanted.from, page.limit, &|entry| wanted.takes(entry));
    let found = tokio::task::spawn_blocking(read).await;
    let found = found.map_err(|_| Problem::new(ApiCode::Internal, "the audit trail could not be read"))?;
    let found = found.map_err(|error| log_problem(&error))?;
    let next_cursor = found.next.map(|offset| Page::cursor(&offset.to_string()));
    Ok(answer(StatusCode::OK, &EntryViews { items: found.entries.into_iter().map(EntryView::from).collect(), next_cursor }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(text: &str) -> Result<Wanted, Problem> {
        Wanted::read(&Query::read(Some(text), &["actor", "action", "object", "from", "to"])?)
    }

    #[test]
    fn times_are_read_as_dates_or_milliseconds_and_nothing_else() {
        let read = wanted("from=2026-01-02T00:00:00Z&to=1767312000001").unwrap();
        assert_eq!((read.from, read.to), (Some(1_767_312_000_000), Some(1_767_312_000_001)));
        assert_eq!(wanted("").unwrap(), Wanted::default());
        for text in ["from=yesterday", "to="] {
            assert_eq!(wanted(text).unwrap_err().code(), ApiCode::InvalidParameter, "{text}");
        }
    }
}
