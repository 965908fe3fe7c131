//! `POST /api/v1/intents`: one order, amend or cancel in, its decision out.
//!
//! Invariant: the answer is the decision as it stands in `gate.decisions`, byte by byte, and it is
//! durable. A timeout says nothing about the verdict: the same body, sent again, gets the decision
//! that was made. What could get no decision at all is refused before it enters the log.

use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use tokio::sync::oneshot::error::RecvError;
use tokio::time::{Instant, timeout_at};

use super::caller::{Caller, Scope};
use super::health::json_bytes;
use super::positions::positioned;
use super::problem::{ApiCode, Problem};
use super::query::Query;
use super::{Face, body, guard};
use crate::domain::{AccountId, ClientOrderId, Event, InputTopic, Source};
use crate::engine::Answer;
use crate::log::{NewRecord, OutputTopic, Placed, Topic};
use crate::wire;

/// Asks for the decision on one order, amend or cancel.
#[utoipa::path(post, path = "/intents", tag = "log",
    request_body(content_type = "application/json", content = Object, description = "An order_intent, order_amend or order_cancel",
        example = json!({"event": "order_intent", "client_order_id": "I-1", "account": "ACC1", "symbol": "AAPL", "side": "buy",
                         "order_type": "limit", "qty": "1", "limit_price": "100"})),
    params(("timeout_ms" = Option<u64>, Query, description = "How long to wait for the decision")),
    responses((status = 200, description = "The decision, as it stands in gate.decisions", body = Object)))]
pub async fn post(
    State(face): State<Face>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let query = Query::read(uri.query(), &["timeout_ms"])?;
    let limits = face.limits();
    let timeout_ms = query.number("timeout_ms", 1, limits.decision_timeout_ms_max, limits.decision_timeout_ms)?;
    caller.require(Scope::IntentsWrite)?;
    guard::require_content_type(&headers, &["application/json"])?;
    face.refuse_when_stopping()?;
    let body = body::read(&headers, body, &limits, &face.bodies).await?;
    let (client_order_id, account) = ids(&body.bytes)?;
    refuse_foreign(&caller, account)?;
    let deadline = Instant::now() + Duration::from_millis(timeout_ms);
    let record = NewRecord {
        topic: Topic::Input(InputTopic::Intents),
        partition: None,
        ts: None,
        key: Some(account.as_bytes().to_vec()),
        payload: body.bytes,
    };
    let decided = timeout_at(deadline, decide(&face, record)).await;
    drop(body.share);
    match decided {
        Ok(decided) => decided
            .map(|(decision, source)| positioned(json_bytes(decision), &source))
            .map_err(|problem| problem.with("client_order_id", client_order_id.as_str())),
        Err(_) => Err(too_late(client_order_id, timeout_ms)),
    }
}

/// An account that the caller may not know of does not exist for them.
fn refuse_foreign(caller: &Caller, account: AccountId) -> Result<(), Problem> {
    if caller.may_write(account.as_str()) {
        Ok(())
    } else if caller.may_read(account.as_str()) {
        Err(Problem::new(ApiCode::Forbidden, "the account may be looked at only"))
    } else {
        Err(Problem::new(ApiCode::UnknownAccount, "the account was never opened").field("account"))
    }
}

/// The ids that a decision needs; without them the record could only be a dead letter.
fn ids(payload: &[u8]) -> Result<(ClientOrderId, AccountId), Problem> {
    match wire::decode(InputTopic::Intents, None, payload) {
        Event::Intent(intent) => Ok((intent.client_order_id, intent.account)),
        Event::Amend(amend) => Ok((amend.client_order_id, amend.account)),
        Event::Cancel(cancel) => Ok((cancel.client_order_id, cancel.account)),
        Event::Refused(refused) if refused.field.as_deref() == Some("event") || is_another_event(payload) => Err(no_intent()),
        Event::Refused(refused) => match (refused.client_order_id, refused.account) {
            (Some(id), Some(account)) => Ok((id, account)),
            (Some(_) | None, Some(_) | None) => {
                let problem = Problem::new(ApiCode::NotAnIntent, refused.message);
                Err(match refused.field {
                    Some(field) => problem.field(&field),
                    None => problem,
                })
            }
        },
        Event::Signal(_)
        | Event::Fill(_)
        | Event::Report(_)
        | Event::Busted(_)
        | Event::Corrected(_)
        | Event::Trade(_)
        | Event::Quote(_)
        | Event::Bar(_)
        | Event::Control(_)
        | Event::Elsewhere => Err(no_intent()),
    }
}

/// Whether a refused record says that it is something else.
fn is_another_event(payload: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Peek<'a> {
        event: &'a str,
    }
    let peek: Result<Peek<'_>, _> = serde_json::from_slice(payload);
    peek.is_ok_and(|peek| !matches!(peek.event, "order_intent" | "order_amend" | "order_cancel"))
}

fn no_intent() -> Problem {
    Problem::new(ApiCode::NotAnIntent, "send an order_intent, an order_amend or an order_cancel").field("event")
}

/// The decision, and where the record stands.
async fn decide(face: &Face, record: NewRecord) -> Result<(Vec<u8>, Vec<Source>), Problem> {
    // Before the append: the decision may come before we know where the intent stands.
    let expected = face.verdicts.as_ref().map(|verdicts| verdicts.expect());
    let placed = face.append(vec![record]).await?;
    let source = placed.first().and_then(source_of).ok_or_else(|| Problem::new(ApiCode::Internal, "the log named no place"))?;
    let decided = match (face.gates.shard(source.partition), expected) {
        (Some(shard), None) => told(shard.answer(source).await),
        (None, None) => Err(Problem::new(ApiCode::Internal, "no shard reads this partition")),
        (None, Some(expected)) => heard(expected.of(source).await),
        (Some(shard), Some(expected)) => {
            let (answer, decision) = (shard.answer(source), expected.of(source));
            tokio::pin!(decision);
            tokio::select! {
                // A shard that is not ours any more does not know; whoever owns it says so in the topic.
                Ok(answer) = answer => told(Ok(answer)),
                decision = &mut decision => heard(decision),
            }
        }
    };
    decided.map(|decision| (decision, face.answered.note(&placed)))
}

fn told(answer: Result<Answer, RecvError>) -> Result<Vec<u8>, Problem> {
    let answer = answer.map_err(|_| later())?;
    let decision = answer.outputs.iter().find(|output| output.topic == OutputTopic::Decisions);
    let none = || Problem::new(ApiCode::NoDecision, "the record was applied without a decision; see gate.dead-letter");
    decision.map(|decision| decision.payload.clone()).ok_or_else(none)
}

fn heard(decision: Result<Vec<u8>, RecvError>) -> Result<Vec<u8>, Problem> {
    decision.map_err(|_| later())
}

fn later() -> Problem {
    Problem::new(ApiCode::NotReady, "the intent is in the log and will be decided later: ask again with the same id")
}

fn source_of(placed: &Placed) -> Option<Source> {
    match placed.topic {
        Topic::Input(topic) => Some(Source { topic, partition: placed.partition, offset: placed.offset }),
        Topic::Ledger | Topic::Output(_) | Topic::Directory | Topic::Audit => None,
    }
}

fn too_late(client_order_id: ClientOrderId, timeout_ms: u64) -> Problem {
    let detail = format!("no decision within {timeout_ms} ms; it may still be made: ask again with the same id");
    Problem::new(ApiCode::DecisionTimeout, detail).with("client_order_id", client_order_id.as_str())
}
