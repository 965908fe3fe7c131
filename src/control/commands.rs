//! Operators' records: written to `gate.control`, answered when every shard has folded them.
//!
//! Invariant: what decoding would refuse is never appended, so that a slip of a client leaves nothing in
//! the log; what the books refuse is a dead letter, and is told with its code. Whoever asked, and why,
//! stands in the record where it has a place for that, and in the audit always. Deliberately absent: any
//! judgement of what may be written; the fold has the only one.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::sync::{Mutex, MutexGuard, oneshot};
use tokio::time::{Instant, timeout_at};

use super::replica::{Refusal, ReplicaError, Replicas};
use crate::domain::{ControlEvent, Event, InputTopic, Source};
use crate::log::{LogError, NewRecord, Topic, Topics};
use crate::wire;

/// The text of a record's position in the `X-Ordergate-Position` header: `gate.control:PARTITION:OFFSET`.
#[must_use]
pub fn position_text(source: Source) -> String {
    format!("{}:{}:{}", source.topic.as_str(), source.partition, source.offset)
}

/// The positions in a header: several with commas between. Those of topics that no shard reads are passed over.
///
/// # Errors
/// What is no position.
pub fn parse_positions(text: &str) -> Result<Vec<Source>, String> {
    let mut found = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let mut words = part.rsplitn(3, ':');
        let (offset, partition, topic) = (words.next(), words.next(), words.next());
        let numbers = offset.and_then(|text| text.parse().ok()).zip(partition.and_then(|text| text.parse().ok()));
        let (Some((offset, partition)), Some(topic)) = (numbers, topic) else { return Err(part.to_owned()) };
        if let Some(topic) = InputTopic::parse(topic) {
            found.push(Source { topic, partition, offset });
        }
    }
    Ok(found)
}

/// Who asks for a record, from where, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct By {
    /// The name.
    pub actor: String,
    /// The address.
    pub address: IpAddr,
    /// Why, for people.
    pub reason: String,
}

/// A record of `gate.control` on its way.
#[derive(Clone, Debug, PartialEq)]
pub struct ControlRecord {
    /// What is done, for the audit: `rule.create`.
    pub action: &'static str,
    /// What it is done to.
    pub object: String,
    /// The record.
    pub value: Value,
}

impl ControlRecord {
    /// A record of an event with these fields.
    #[must_use]
    pub fn new(action: &'static str, object: impl Into<String>, event: &str, fields: Value) -> Self {
        let mut value = Map::new();
        value.insert("event".to_owned(), event.into());
        if let Value::Object(fields) = fields {
            value.extend(fields);
        }
        Self { action, object: object.into(), value: Value::Object(value) }
    }

    /// Account, symbol or rule that is killed, changed, released: a trading state with all that it can do.
    #[must_use]
    pub fn trading_state(action: &'static str, object: impl Into<String>, scope: Value, state: &str, also: Also, by: &By) -> Self {
        let fields = json!({
            "scope": scope, "state": state, "actor": by.actor, "reason": by.reason,
            "cancel_orders": also.cancel_orders, "flatten": also.flatten,
        });
        Self::new(action, object, "trading_state_set", fields)
    }
}

/// What a trading state does beside being one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Also {
    /// Commands a cancel of every working order in scope.
    pub cancel_orders: bool,
    /// Commands a close of every position in scope.
    pub flatten: bool,
}

/// What became of a record, for the audit.
#[derive(Clone, Debug)]
pub struct Audited {
    /// Who.
    pub by: By,
    /// What was done.
    pub action: &'static str,
    /// To what.
    pub object: String,
    /// The record.
    pub changes: Value,
    /// `accepted`, or the code for which it was not.
    pub result: String,
}

/// Keeps the audit; comes back when it is durable.
pub type AuditTrail = Arc<dyn Fn(Audited) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// Why a record has not become what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// It is no record. Nothing was appended.
    #[error("{message}")]
    Unreadable {
        /// `MALFORMED` or `VALUE_OUT_OF_RANGE`.
        code: &'static str,
        /// The field at fault.
        field: Option<String>,
        /// What is wrong.
        message: String,
    },
    /// The books refused it. It is in the log and changed nothing.
    #[error("{}", refusal.message)]
    Refused {
        /// Why.
        refusal: Refusal,
        /// Where it stands.
        place: Source,
    },
    /// The log did not take it.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Whether the log took it is not known.
    #[error("the log did not commit in time; the record may still be taken")]
    NotDurable,
    /// It is in the log, and not applied by every shard yet.
    #[error("the record is in the log and will be applied: {why}")]
    NotApplied {
        /// Where it stands.
        place: Source,
        /// What keeps it.
        why: ReplicaError,
    },
}

/// Writes operators' records.
pub struct Commands {
    topics: Arc<dyn Topics>,
    replicas: Arc<Replicas>,
    patience: Duration,
    audit: Option<AuditTrail>,
    turn: Mutex<()>,
}

impl Commands {
    /// A writer that waits at most `patience` for the log and the shards together.
    #[must_use]
    pub fn new(topics: Arc<dyn Topics>, replicas: Arc<Replicas>, patience: Duration) -> Self {
        Self { topics, replicas, patience, audit: None, turn: Mutex::new(()) }
    }

    /// The same, with an audit.
    #[must_use]
    pub fn audited(self, trail: AuditTrail) -> Self {
        Self { audit: Some(trail), ..self }
    }

    /// The replicas that are waited for.
    #[must_use]
    pub fn replicas(&self) -> &Arc<Replicas> {
        &self.replicas
    }

    /// Whoever changes what they have just read takes a turn until it is written: of two that read the
    /// same on this instance, one sees what the other has made of it.
    pub async fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// Reads a record as the gate will.
    ///
    /// # Errors
    /// [`CommandError::Unreadable`]
    pub fn read(value: &Value) -> Result<ControlEvent, CommandError> {
        match wire::decode(InputTopic::Control, None, value.to_string().as_bytes()) {
            Event::Control(event) => Ok(*event),
            Event::Refused(refused) => Err(CommandError::Unreadable {
                code: refused.code.as_str(),
                field: refused.field.map(Into::into),
                message: refused.message.into(),
            }),
            Event::Intent(_)
            | Event::Amend(_)
            | Event::Cancel(_)
            | Event::Signal(_)
            | Event::Fill(_)
            | Event::Report(_)
            | Event::Busted(_)
            | Event::Corrected(_)
            | Event::Trade(_)
            | Event::Quote(_)
            | Event::Bar(_)
            | Event::Elsewhere => Err(CommandError::Unreadable {
                code: "MALFORMED",
                field: Some("event".to_owned()),
                message: "no record of gate.control".to_owned(),
            }),
        }
    }

    /// Appends a record and waits until every shard has folded it. Gives its place.
    ///
    /// # Errors
    /// See [`CommandError`].
    pub async fn write(&self, record: ControlRecord, by: &By) -> Result<Source, CommandError> {
        let written = self.append(&record).await;
        if let Some(trail) = &self.audit {
            let result = match &written {
                Ok(_) => "accepted".to_owned(),
                Err(CommandError::Unreadable { code, .. }) => (*code).to_owned(),
                Err(CommandError::Refused { refusal, .. }) => refusal.code.clone(),
                Err(CommandError::Log(error)) => error.code().to_owned(),
                Err(CommandError::NotDurable) => "NOT_DURABLE".to_owned(),
                Err(CommandError::NotApplied { .. }) => "NOT_APPLIED".to_owned(),
            };
            let ControlRecord { action, object, mut value } = record;
            if let Value::Object(fields) = &mut value {
                fields.insert("reason".to_owned(), by.reason.as_str().into());
            }
            trail(Audited { by: by.clone(), action, object, changes: value, result }).await;
        }
        written
    }

    async fn append(&self, record: &ControlRecord) -> Result<Source, CommandError> {
        Self::read(&record.value)?;
        let deadline = Instant::now() + self.patience;
        let new = NewRecord {
            topic: Topic::Input(InputTopic::Control),
            partition: None,
            ts: None,
            key: Some(record.object.as_bytes().to_vec()),
            payload: record.value.to_string().into_bytes(),
        };
        let (told, durable) = oneshot::channel();
        self.topics.append(vec![new], Box::new(move |placed| drop(told.send(placed))));
        let placed = timeout_at(deadline, durable).await.map_err(|_| CommandError::NotDurable)?;
        let placed = placed.map_err(|_| CommandError::NotDurable)??;
        let Some(place) = placed.first() else { return Err(CommandError::NotDurable) };
        let source = Source { topic: InputTopic::Control, partition: place.partition, offset: place.offset };
        let applied = self.replicas.wait_for(source, deadline.saturating_duration_since(Instant::now())).await;
        applied.map_err(|why| CommandError::NotApplied { place: source, why })?;
        match self.replicas.refusal(source) {
            Some(refusal) => Err(CommandError::Refused { refusal, place: source }),
            None => Ok(source),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_reads_as_it_is_written_and_others_are_passed_over() {
        let source = Source { topic: InputTopic::Control, partition: 0, offset: 17 };
        assert_eq!(position_text(source), "gate.control:0:17");
        assert_eq!(parse_positions("gate.control:0:17"), Ok(vec![source]));
        assert_eq!(parse_positions(" gate.control:0:17 , gate.directory:0:4"), Ok(vec![source]));
        assert_eq!(parse_positions(""), Ok(vec![]));
        for wrong in ["17", "gate.control:0", "gate.control:x:1", "gate.control:0:-1", "gate.control:0:1;"] {
            assert!(parse_positions(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_the_gate_could_not_read_is_refused_with_the_field() {
        let wrong = json!({"event": "rule_created", "rule": {"id": "r", "type": "max_leverage", "threshold": "0", "unit": "ratio", "action": "block"}});
        let Err(CommandError::Unreadable { code, field, .. }) = Commands::read(&wrong) else { panic!("it was taken") };
        assert_eq!((code, field.as_deref()), ("VALUE_OUT_OF_RANGE", Some("rule.threshold")));
        let strange = json!({"event": "rule_deleted", "id": "r", "why": "x"});
        let Err(CommandError::Unreadable { code, field, .. }) = Commands::read(&strange) else { panic!("it was taken") };
        assert_eq!((code, field.as_deref()), ("MALFORMED", Some("why")));
    }
}
