//! `POST /api/v1/records`: a batch of records into the log, all or nothing.
//!
//! Invariant: either every line is durable, in the order of the lines, or none will ever be. Only
//! the lines are judged here; what is valid as a line but not as a record is the fold's to refuse.

use std::collections::BTreeMap;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use serde_json::json;
use tokio::sync::oneshot;

use super::caller::{Caller, Scope};
use super::health::json_answer;
use super::limits::Limits;
use super::noted::Operated;
use super::positions::positioned;
use super::problem::{ApiCode, Problem};
use super::query::Query;
use super::{Face, body, guard};
use crate::log::{LogError, NewRecord, Placed, Topic};
use crate::wire::{self, TopicNames};

/// Appends a batch of records of input topics, all or nothing: one JSON object a line.
#[utoipa::path(post, path = "/records", tag = "log",
    request_body(content_type = "application/x-ndjson", content = String, description = "Lines of `topic`, `key`, `payload`",
        example = json!("{\"topic\":\"market.prices\",\"key\":\"AAPL\",\"payload\":{\"event\":\"trade\",\"symbol\":\"AAPL\",\"price\":\"100\"}}\n")),
    responses((status = 200, description = "How many records are durable, and where", body = Object)))]
pub async fn post(
    State(face): State<Face>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    Query::read(uri.query(), &[])?;
    caller.require(Scope::RecordsWrite)?;
    guard::require_content_type(&headers, &["application/x-ndjson", "application/jsonl", "application/json"])?;
    face.refuse_when_stopping()?;
    let limits = face.limits();
    let body = body::read(&headers, body, &limits, &face.bodies).await?;
    let batch = read_batch(&body.bytes, &limits, &face.names)?;
    let noted = face.audit.as_ref().zip(Operated::of(&batch));
    if let Some((audit, operated)) = &noted {
        operated.begin(audit, &caller).await?;
    }
    let appended = face.append(batch).await;
    if let Some((audit, _)) = &noted {
        Operated::end(audit, &caller, &appended).await;
    }
    let placed = appended?;
    drop(body.share);
    let answer = json_answer(&json!({"records": placed.len(), "positions": positions(&placed, &face.names)}));
    Ok(positioned(answer, &face.answered.note(&placed)))
}

impl Face {
    /// Nothing new enters while the daemon drains.
    pub(super) fn refuse_when_stopping(&self) -> Result<(), Problem> {
        if *self.stop.borrow() { Err(Problem::new(ApiCode::ShuttingDown, "the daemon is stopping")) } else { Ok(()) }
    }

    /// Appends records and waits until they are durable.
    pub(super) async fn append(&self, records: Vec<NewRecord>) -> Result<Vec<Placed>, Problem> {
        let (told, durable) = oneshot::channel();
        // Nobody may be waiting any more; the records are durable all the same.
        self.topics.append(records, Box::new(move |placed| drop(told.send(placed))));
        match tokio::time::timeout(self.limits().request_timeout, durable).await {
            Ok(Ok(Ok(placed))) => Ok(placed),
            Ok(Ok(Err(error))) => Err(log_problem(&error)),
            Err(_) => Err(Problem::new(ApiCode::AppendTimeout, "the log did not commit in time; the records may still be taken")),
            Ok(Err(_)) => Err(Problem::new(ApiCode::ShuttingDown, "the daemon stopped; whether the records were taken is not known")),
        }
    }
}

/// How a failure of the log is told to a client.
pub fn log_problem(error: &LogError) -> Problem {
    let code = match error {
        LogError::Overloaded { .. } => ApiCode::TooBusy,
        LogError::TooLarge { .. } => ApiCode::LineTooLong,
        LogError::OutOfRange { .. } => ApiCode::InvalidParameter,
        LogError::NoSuchPartition { .. } => ApiCode::UnknownPartition,
        LogError::Locked { .. }
        | LogError::Busy { .. }
        | LogError::Corrupt { .. }
        | LogError::Full { .. }
        | LogError::ReadOnly { .. }
        | LogError::NewerVersion { .. }
        | LogError::Denied { .. }
        | LogError::Closed
        | LogError::Io { .. } => ApiCode::LogUnavailable,
    };
    Problem::new(code, format!("{error}; {}", error.advice())).with("log_code", error.code())
}

/// The records of a body of lines.
fn read_batch(bytes: &[u8], limits: &Limits, names: &TopicNames) -> Result<Vec<NewRecord>, Problem> {
    let mut records = Vec::new();
    for (number, line) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
        if line.trim_ascii().is_empty() {
            continue;
        }
        if records.len() == limits.lines_max {
            return Err(Problem::new(ApiCode::TooManyLines, format!("a batch has at most {} lines", limits.lines_max)).line(number));
        }
        if line.len() > limits.line_bytes_max {
            return Err(Problem::new(ApiCode::LineTooLong, format!("a line has at most {} bytes", limits.line_bytes_max)).line(number));
        }
        records.push(read_record(line, names).map_err(|problem| problem.line(number))?);
    }
    if records.is_empty() {
        return Err(Problem::new(ApiCode::EmptyBatch, "send at least one line"));
    }
    Ok(records)
}

fn read_record(line: &[u8], topics: &TopicNames) -> Result<NewRecord, Problem> {
    let line = wire::parse_line(line).map_err(|error| Problem::new(ApiCode::LineInvalid, error.to_string()))?;
    let topic = Topic::find_in(topics, &line.topic).filter(|topic| matches!(topic, Topic::Input(_)));
    let Some(topic) = topic else {
        return Err(Problem::new(ApiCode::TopicNotInput, format!("{} is no input topic", line.topic)).field("topic"));
    };
    let key = line.key.map(std::borrow::Cow::into_owned);
    Ok(NewRecord { topic, partition: None, ts: line.ts, key, payload: line.payload.into_owned() })
}

/// First and last offset by topic and partition.
fn positions<'a>(placed: &[Placed], topics: &'a TopicNames) -> BTreeMap<&'a str, BTreeMap<u32, (u64, u64)>> {
    let mut positions: BTreeMap<&str, BTreeMap<u32, (u64, u64)>> = BTreeMap::new();
    for place in placed {
        let range =
            positions.entry(place.topic.name_in(topics)).or_default().entry(place.partition).or_insert((place.offset, place.offset));
        *range = (range.0.min(place.offset), range.1.max(place.offset));
    }
    positions
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(body: &str) -> (ApiCode, Option<u64>) {
        let limits = Limits { lines_max: 3, line_bytes_max: 200, ..Limits::default() };
        let problem = read_batch(body.as_bytes(), &limits, &TopicNames::default()).unwrap_err();
        (problem.code(), problem.body()["line"].as_u64())
    }

    const GOOD: &str = r#"{"topic":"market.prices","key":"A","payload":{"event":"trade","symbol":"A","price":"1"}}"#;

    #[test]
    fn takes_lines_with_and_without_a_last_line_feed() {
        for body in [GOOD.to_owned(), format!("{GOOD}\n"), format!("{GOOD}\r\n{GOOD}\r\n")] {
            let records = read_batch(body.as_bytes(), &Limits::default(), &TopicNames::default()).unwrap();
            assert_eq!(records[0].key.as_deref(), Some(&b"A"[..]));
            assert_eq!(records[0].payload, br#"{"event":"trade","symbol":"A","price":"1"}"#);
        }
    }

    #[test]
    fn says_which_line_is_wrong_and_how() {
        assert_eq!(refusal(""), (ApiCode::EmptyBatch, None));
        assert_eq!(refusal("\n \r\n"), (ApiCode::EmptyBatch, None));
        assert_eq!(refusal(&format!("{GOOD}\n[]\n")), (ApiCode::LineInvalid, Some(2)));
        assert_eq!(refusal(&format!("{GOOD}\n\n{{\n{GOOD}\n")), (ApiCode::LineInvalid, Some(3)));
        let output = r#"{"topic":"gate.decisions","payload":"x"}"#;
        assert_eq!(refusal(output), (ApiCode::TopicNotInput, Some(1)));
        assert_eq!(refusal(&format!("{GOOD}\n{GOOD}\n{GOOD}\n{GOOD}")), (ApiCode::TooManyLines, Some(4)));
        assert_eq!(refusal(&format!("{GOOD}{}", " ".repeat(200))), (ApiCode::LineTooLong, Some(1)));
    }

    #[test]
    fn a_payload_that_is_no_record_is_still_a_line() {
        let body = r#"{"topic":"orders.intents","payload":"not json"}"#;
        assert_eq!(read_batch(body.as_bytes(), &Limits::default(), &TopicNames::default()).unwrap()[0].payload, b"not json");
    }
}
