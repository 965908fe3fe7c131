//! `GET /api/v1/topics/{topic}/records`: a topic's partition as lines, to its end or on and on.
//!
//! Invariant: lines come in offset order without a gap that the log does not have, and only what is
//! durable comes, and to nobody who may not read it any more. Deliberately absent: buffers. A reader that falls behind reads from the log; one
//! that does not read is cut off by the listener.

use std::convert::Infallible;
use std::time::Duration;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{Uri, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use metrics::gauge;
use tokio::sync::watch;

use super::Face;
use super::caller::{Caller, Scope};
use super::limits::Share;
use super::problem::{ApiCode, Problem};
use super::query::Query;
use super::records::log_problem;
use super::serve::stopped;
use super::v1::page::PathId;
use crate::log::{Extent, LogError, StoredRecord, Topic};
use crate::telemetry::HTTP_STREAMS;

const LIMIT_DEFAULT: usize = 1_000;
const CHUNK_RECORDS: usize = 512;
/// How often it is asked whether who follows may still do so, while nothing comes.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Reads a partition of a topic as lines, to its end or on and on.
#[utoipa::path(get, path = "/topics/{topic}/records", tag = "log", params(
    ("topic" = String, Path, description = "The topic's name"),
    ("partition" = Option<u32>, Query, description = "The partition; 0 unless said"),
    ("from" = Option<String>, Query, description = "`earliest`, `latest` or an offset"),
    ("limit" = Option<u64>, Query, description = "At most so many records", minimum = 1),
    ("follow" = Option<bool>, Query, description = "Whether to wait for what comes after the end"),
), responses((status = 200, description = "One record a line", body = String, content_type = "application/x-ndjson")))]
pub async fn get(
    State(face): State<Face>,
    Extension(caller): Extension<Caller>,
    PathId(topic): PathId,
    uri: Uri,
) -> Result<Response, Problem> {
    let query = Query::read(uri.query(), &["partition", "from", "limit", "follow"])?;
    caller.require(Scope::DecisionsRead)?;
    let known = Topic::find_in(&face.names, &topic).filter(|topic| is_shown(*topic, &caller));
    let topic = known.ok_or_else(|| unknown_topic(&face, &caller, &topic))?;
    let partition = query.number("partition", 0, u32::MAX, 0)?;
    let extent = extent(&face, topic, partition).await?;
    let next = first_offset(&query, &extent)?;
    let follow = query.flag("follow")?;
    let read_max = face.limits().read_max;
    let (limit_default, limit_max) = if follow { (usize::MAX, usize::MAX) } else { (LIMIT_DEFAULT.min(read_max), read_max) };
    let left = query.number("limit", 1, limit_max, limit_default)?;
    let slot = if follow { Some(follow_slot(&face)?) } else { None };
    let changes = face.topics.changes();
    let reading = Reading { face, caller, topic, partition, next, left, changes, slot, ended: false };
    let lines = stream::unfold(reading, |reading| async move {
        let (lines, reading) = reading.advance().await?;
        Some((Ok::<_, Infallible>(lines), reading))
    });
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response())
}

/// The directory holds hashes of passwords and sealed keys: nobody reads it through here. What was done is for administrators.
fn is_shown(topic: Topic, caller: &Caller) -> bool {
    match topic {
        Topic::Directory => false,
        Topic::Audit => caller.is_admin(),
        Topic::Input(_) | Topic::Ledger | Topic::Output(_) => true,
    }
}

fn unknown_topic(face: &Face, caller: &Caller, name: &str) -> Problem {
    let shown = Topic::ALL.into_iter().filter(|topic| is_shown(*topic, caller));
    let known: Vec<&str> = shown.map(|topic| topic.name_in(&face.names)).collect();
    Problem::new(ApiCode::UnknownTopic, format!("there is no topic {name}; topics: {}", known.join(", ")))
}

fn follow_slot(face: &Face) -> Result<Followed, Problem> {
    let (most, mut share) = (face.limits().streams_max, face.streams.share());
    if !share.grow(1, most) {
        return Err(Problem::new(ApiCode::TooBusy, format!("{most} streams are followed already")));
    }
    gauge!(HTTP_STREAMS).increment(1.0);
    Ok(Followed { _share: share })
}

/// A place among the streams.
struct Followed {
    _share: Share,
}

impl Drop for Followed {
    fn drop(&mut self) {
        gauge!(HTTP_STREAMS).decrement(1.0);
    }
}

async fn extent(face: &Face, topic: Topic, partition: u32) -> Result<Extent, Problem> {
    let topics = face.topics.clone();
    let extent = tokio::task::spawn_blocking(move || topics.extent(topic, partition)).await;
    let extent = extent.map_err(|_| Problem::new(ApiCode::Internal, "the log could not be asked"))?;
    extent.map_err(|error| match error {
        LogError::NoSuchPartition { .. } => {
            Problem::new(ApiCode::UnknownPartition, format!("{topic} has no partition {partition}")).field("partition")
        }
        error => log_problem(&error),
    })
}

fn first_offset(query: &Query, extent: &Extent) -> Result<u64, Problem> {
    match query.text("from") {
        None | Some("earliest") => Ok(extent.first),
        Some("latest") => Ok(extent.next),
        Some(text) => {
            let refused = || {
                let detail = format!("must be earliest, latest or an offset from {} to {}", extent.first, extent.next);
                Problem::new(ApiCode::InvalidParameter, detail).field("from")
            };
            let offset = text.parse::<u64>().map_err(|_| refused())?;
            if offset < extent.first || offset > extent.next { Err(refused()) } else { Ok(offset) }
        }
    }
}

/// A reader's place in a partition.
struct Reading {
    face: Face,
    caller: Caller,
    topic: Topic,
    partition: u32,
    next: u64,
    left: usize,
    changes: watch::Receiver<u64>,
    slot: Option<Followed>,
    ended: bool,
}

impl Reading {
    /// The next lines; `None` at the end.
    async fn advance(mut self) -> Option<(Bytes, Self)> {
        loop {
            if self.left == 0 || self.ended || !self.face.door.may_go_on(&self.caller) {
                return None;
            }
            // Marked as seen before it is read: what is committed in between wakes us again.
            self.changes.mark_unchanged();
            let records = self.read().await?;
            if !records.is_empty() {
                return Some((self.take(&records), self));
            }
            self.slot.as_ref()?;
            let mut stop = self.face.stop.clone();
            tokio::select! {
                changed = self.changes.changed() => changed.ok()?,
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = stopped(&mut stop) => return None,
            }
        }
    }

    async fn read(&self) -> Option<Vec<StoredRecord>> {
        let (topics, topic, partition, next) = (self.face.topics.clone(), self.topic, self.partition, self.next);
        let limit = self.left.min(CHUNK_RECORDS);
        let records = tokio::task::spawn_blocking(move || topics.read(topic, partition, next, limit)).await.ok()?;
        match records {
            Ok(records) => Some(records),
            Err(error) => {
                tracing::warn!(%error, topic = self.topic.name(), "a reader of a topic is cut off");
                None
            }
        }
    }

    fn take(&mut self, records: &[StoredRecord]) -> Bytes {
        let mut lines = Vec::with_capacity(records.len() * 512);
        for record in records {
            record.write_line(self.topic, self.topic.name_in(&self.face.names), self.partition, &mut lines);
            self.next = record.offset + 1;
        }
        self.left -= records.len();
        Bytes::from(lines)
    }
}
