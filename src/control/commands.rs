//! Operators' records: written to `gate.control`, answered when every shard has folded them.
//!
//! Invariant: what decoding would refuse is never appended, so that a slip of a client leaves nothing in
//! the log; what the books refuse is a dead letter, and is told with its code. Whoever asked, and why,
//! stands in the record where it has a place for that, and in the audit always: before the record, and with
//! how it ended. What the audit does not take is not written, but for what stops trading. Deliberately
//! absent: any judgement of what may be written; the fold has the only one.

mod search;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};

use super::audit::Audit;
use super::replica::{Refusal, ReplicaError, Replicas};
use crate::domain::{ControlEvent, Event, InputTopic, Millis, Source};
use crate::log::{LogError, NewRecord, Topic, Topics};
use crate::wire;

/// What stops trading waits for the audit at most so long.
const STOP_NOTE_PATIENCE: Duration = Duration::from_secs(1);

/// The text of a record's position in the `X-Ordergate-Position` header: `gate.control:PARTITION:OFFSET`.
#[must_use]
pub fn position_text(source: Source) -> String {
    format!("{}:{}:{}", source.topic.as_str(), source.partition, source.offset)
}

/// The same of a record of the directory.
#[must_use]
pub fn directory_text(offset: u64) -> String {
    format!("{}:0:{offset}", Topic::Directory.name())
}

/// The positions that a request brings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Positions {
    /// Those of inputs.
    pub inputs: Vec<Source>,
    /// The furthest of the directory.
    pub directory: Option<u64>,
}

impl Positions {
    /// Reads a header's: several with commas between. Those of topics that nobody waits for are passed over.
    ///
    /// # Errors
    /// What is no position.
    pub fn read(&mut self, text: &str) -> Result<(), String> {
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let mut words = part.rsplitn(3, ':');
            let (offset, partition, topic) = (words.next(), words.next(), words.next());
            let numbers = offset.and_then(|text| text.parse().ok()).zip(partition.and_then(|text| text.parse().ok()));
            let (Some((offset, partition)), Some(topic)) = (numbers, topic) else { return Err(part.to_owned()) };
            if topic == Topic::Directory.name() {
                self.directory = self.directory.max(Some(offset));
            } else if let Some(topic) = InputTopic::parse(topic) {
                self.inputs.push(Source { topic, partition, offset });
            }
        }
        Ok(())
    }
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
    /// What it takes the place of, for the audit.
    before: Option<Value>,
    /// What it is found by again, if it may be asked for again.
    mark: Option<String>,
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
        Self { action, object: object.into(), value: Value::Object(value), before: None, mark: None }
    }

    /// The same, in place of what was there.
    #[must_use]
    pub fn replacing(self, before: Value) -> Self {
        Self { before: Some(before), ..self }
    }

    /// The same, to be found again by this mark ([`Commands::find`]).
    #[must_use]
    pub fn marked(self, mark: impl Into<String>) -> Self {
        Self { mark: Some(mark.into()), ..self }
    }

    /// Whether it stops trading: then nothing holds it up that need not.
    #[must_use]
    pub fn stops(&self) -> bool {
        self.value.get("state").and_then(Value::as_str) == Some("halted")
    }

    /// Whether once more is not the same as once: money comes twice, and units double twice.
    #[must_use]
    pub fn adds(&self) -> bool {
        matches!(self.value.get("event").and_then(Value::as_str), Some("cash_adjusted" | "split"))
    }

    /// What the audit says that it changes.
    fn changes(&self, by: &By) -> Value {
        let mut changes = Map::new();
        changes.insert("record".to_owned(), self.value.clone());
        if let Some(before) = &self.before {
            changes.insert("before".to_owned(), before.clone());
        }
        if !by.reason.is_empty() {
            changes.insert("reason".to_owned(), by.reason.as_str().into());
        }
        Value::Object(changes)
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
    /// The audit did not take it, and what it does not say is not done.
    #[error("the audit could not be written, and what it does not say is not done")]
    Unaudited(LogError),
}

impl CommandError {
    /// How the audit says that it ended.
    fn result(&self) -> &str {
        match self {
            Self::Unreadable { code, .. } => code,
            Self::Refused { refusal, .. } => &refusal.code,
            Self::Log(error) | Self::Unaudited(error) => error.code(),
            Self::NotDurable => "NOT_DURABLE",
            Self::NotApplied { .. } => "NOT_APPLIED",
        }
    }

    /// Where the record stands, if it is known to be in the log.
    fn place(&self) -> Option<Source> {
        match self {
            Self::Refused { place, .. } | Self::NotApplied { place, .. } => Some(*place),
            Self::Unreadable { .. } | Self::Log(_) | Self::NotDurable | Self::Unaudited(_) => None,
        }
    }
}

/// Writes operators' records.
pub struct Commands {
    topics: Arc<dyn Topics>,
    replicas: Arc<Replicas>,
    patience: Duration,
    audit: Option<Arc<Audit>>,
}

impl Commands {
    /// A writer that waits at most `patience` for the log and the shards together.
    #[must_use]
    pub fn new(topics: Arc<dyn Topics>, replicas: Arc<Replicas>, patience: Duration) -> Self {
        Self { topics, replicas, patience, audit: None }
    }

    /// The same, with an audit.
    #[must_use]
    pub fn audited(self, audit: Arc<Audit>) -> Self {
        Self { audit: Some(audit), ..self }
    }

    /// The replicas that are waited for.
    #[must_use]
    pub fn replicas(&self) -> &Arc<Replicas> {
        &self.replicas
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

    /// Notes a record in the audit, appends it and waits until every shard has folded it. Gives its place.
    ///
    /// # Errors
    /// See [`CommandError`].
    pub async fn write(&self, record: ControlRecord, by: &By) -> Result<Source, CommandError> {
        Self::read(&record.value)?;
        let Some(audit) = &self.audit else { return self.append(&record).await };
        begin(audit, by, (record.action, &record.object), record.changes(by), record.stops()).await?;
        let written = self.append(&record).await;
        let (result, place) = written.as_ref().map_or_else(|error| (error.result(), error.place()), |place| ("ok", Some(*place)));
        let changes = place.map_or_else(|| json!({}), |place| json!({"position": position_text(place)}));
        if let Err(error) = audit.record(&by.actor, &by.address.to_string(), record.action, &record.object, changes, result).await {
            // That it was begun is noted already, and what it came to stands in the log itself.
            tracing::error!(%error, action = record.action, object = record.object, result, "how an action ended could not be noted");
        }
        written
    }

    async fn append(&self, record: &ControlRecord) -> Result<Source, CommandError> {
        let deadline = Instant::now() + self.patience;
        let new = NewRecord {
            topic: Topic::Input(InputTopic::Control),
            partition: None,
            ts: None,
            key: Some(record.mark.as_ref().unwrap_or(&record.object).as_bytes().to_vec()),
            payload: record.value.to_string().into_bytes(),
        };
        let (told, durable) = oneshot::channel();
        self.topics.append(vec![new], Box::new(move |placed| drop(told.send(placed))));
        let placed = timeout_at(deadline, durable).await.map_err(|_| CommandError::NotDurable)?;
        let placed = placed.map_err(|_| CommandError::NotDurable)??;
        let Some(place) = placed.first() else { return Err(CommandError::NotDurable) };
        let source = Source { topic: InputTopic::Control, partition: place.partition, offset: place.offset };
        self.applied(source, deadline.saturating_duration_since(Instant::now())).await?;
        match self.replicas.refusal(source) {
            Some(refusal) => Err(CommandError::Refused { refusal, place: source }),
            None => Ok(source),
        }
    }

    async fn applied(&self, place: Source, patience: Duration) -> Result<(), CommandError> {
        self.replicas.wait_for(place, patience).await.map_err(|why| CommandError::NotApplied { place, why })
    }

    /// Where the record with a mark stands, if it came to the log since.
    ///
    /// # Errors
    /// The log cannot be read.
    pub async fn find(&self, mark: &str, since: Millis) -> Result<Option<Source>, CommandError> {
        let (topics, mark) = (self.topics.clone(), mark.as_bytes().to_vec());
        let looked = tokio::task::spawn_blocking(move || search::marked(&*topics, &mark, since)).await;
        Ok(looked.unwrap_or(Err(LogError::Closed))?)
    }

    /// Where the newest record of operators stands, if there is one.
    ///
    /// # Errors
    /// The log cannot be read.
    pub async fn newest(&self) -> Result<Option<Source>, CommandError> {
        let topics = self.topics.clone();
        let looked = tokio::task::spawn_blocking(move || search::newest(&*topics)).await;
        Ok(looked.unwrap_or(Err(LogError::Closed))?)
    }

    /// What became of a record that [`Self::find`] has found.
    ///
    /// # Errors
    /// As when it was written.
    pub async fn became(&self, place: Source, since: Millis) -> Result<Source, CommandError> {
        self.applied(place, self.patience).await?;
        if let Some(refusal) = self.replicas.refusal(place) {
            return Err(CommandError::Refused { refusal, place });
        }
        // Replicas remember the latest refusals only, and none from before they began.
        let topics = self.topics.clone();
        let looked = tokio::task::spawn_blocking(move || search::refused(&*topics, place, since)).await;
        match looked.unwrap_or(Err(LogError::Closed))? {
            Some(refusal) => Err(CommandError::Refused { refusal, place }),
            None => Ok(place),
        }
    }
}

/// Notes that something is about to be written. What stops trading waits for that for a moment only: the note is on its way all the same.
///
/// # Errors
/// The audit did not take it: then do not write.
pub async fn begin(
    audit: &Arc<Audit>,
    by: &By,
    (action, object): (&'static str, &str),
    changes: Value,
    stops: bool,
) -> Result<(), CommandError> {
    let (trail, actor, address, noted_object) = (audit.clone(), by.actor.clone(), by.address.to_string(), object.to_owned());
    let note = tokio::spawn(async move { trail.record(&actor, &address, action, &noted_object, changes, "begun").await.map(drop) });
    let noted = if stops {
        timeout(STOP_NOTE_PATIENCE, note).await.unwrap_or_else(|_| Ok(Err(LogError::Busy { detail: "the audit trail is late".into() })))
    } else {
        note.await
    };
    match noted.unwrap_or(Err(LogError::Closed)) {
        Ok(()) => Ok(()),
        Err(error) if stops => {
            tracing::error!(%error, action, object, actor = by.actor, "trading is stopped though the audit is not written");
            Ok(())
        }
        Err(error) => Err(CommandError::Unaudited(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_reads_as_it_is_written_and_others_are_passed_over() {
        let source = Source { topic: InputTopic::Control, partition: 0, offset: 17 };
        assert_eq!((position_text(source).as_str(), directory_text(4).as_str()), ("gate.control:0:17", "gate.directory:0:4"));
        let read = |text: &str| {
            let mut found = Positions::default();
            found.read(text).map(|()| (found.inputs, found.directory))
        };
        assert_eq!(read("gate.control:0:17"), Ok((vec![source], None)));
        assert_eq!(read(" gate.control:0:17 , gate.directory:0:4,gate.directory:0:2, gate.audit:0:1"), Ok((vec![source], Some(4))));
        assert_eq!(read(""), Ok((vec![], None)));
        for wrong in ["17", "gate.control:0", "gate.control:x:1", "gate.control:0:-1", "gate.control:0:1;"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_stops_trading_and_what_adds_are_told_by_the_record_itself() {
        let by = By { actor: "root".to_owned(), address: IpAddr::from([127, 0, 0, 1]), reason: "why".to_owned() };
        let state = |word| ControlRecord::trading_state("state.set", "A", json!({"account": "A"}), word, Also::default(), &by);
        assert!(state("halted").stops() && !state("active").stops() && !state("reduce_only").stops());
        assert!(ControlRecord::new("account.cash", "A", "cash_adjusted", json!({})).adds());
        assert!(ControlRecord::new("instrument.split", "A", "split", json!({})).adds() && !state("halted").adds());
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
