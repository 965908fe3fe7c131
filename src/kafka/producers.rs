//! A shard's two producers: its ledger's and its outputs'.
//!
//! Invariant: one shard's entries go through one idempotent producer in the order of the calls, and
//! each report names the offset of its own record. A failed report ends both: what was behind it may
//! have landed, and only the ledger can tell.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use metrics::gauge;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Message, OwnedHeaders, Timestamp};
use rdkafka::producer::{BaseRecord, Producer, PurgeConfig};

use crate::domain::Source;
use crate::log::{LogError, LogEvent, OutputRecord, OutputTag, OutputTopic, Topic};
use crate::telemetry;

use super::client::{Listener, Receiver};
use super::cluster::{Cluster, offset};
use super::error::{KafkaFailure, log_error};
use super::inbox::Inbox;
use super::polled::Polled;
use super::settings::Role;

/// The header of an output that says which it is: `SHARD-SEQ-INDEX`.
pub(super) const TAG_HEADER: &str = "output";

/// The header of a decision that says which intent it answers: `PARTITION-OFFSET`. The decision itself names the first intent of
/// its id; one that was sent again has only this to be told by.
pub(super) const INTENT_HEADER: &str = "intent";

/// Whom a delivery report is for.
struct Ticket {
    /// As given to the port.
    ticket: u64,
    /// The output topic; a ledger entry has none.
    topic: Option<OutputTopic>,
}

/// Whose reports they are: an inbox and its session.
struct Told {
    inbox: Arc<Inbox>,
    session: u64,
}

impl Listener for Told {
    fn useless(&self, why: &str) {
        self.inbox.tell(self.session, LogEvent::Failed { ticket: u64::MAX, error: LogError::Busy { detail: why.into() } });
    }
}

impl Receiver for Told {
    type Ticket = Ticket;

    fn reported(&self, report: &DeliveryResult<'_>, Ticket { ticket, topic }: Ticket) {
        let event = match report {
            Ok(record) => match topic {
                None => {
                    tell_skew(record.timestamp());
                    LogEvent::Appended { ticket, offset: offset(record.offset()) }
                }
                Some(topic) => LogEvent::Published { ticket, topic, offset: offset(record.offset()) },
            },
            Err((error, _)) => LogEvent::Failed { ticket, error: log_error(error, "writing a record") },
        };
        self.inbox.tell(self.session, event);
    }
}

/// How far our clock is from the broker's: by the way of the acknowledgement at most more.
fn tell_skew(stamped: Timestamp) {
    let Timestamp::LogAppendTime(theirs) = stamped else { return };
    let ours = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    gauge!(telemetry::CLOCK_SKEW).set(ours - theirs as f64 / 1e3);
}

/// The producers of one session.
pub(super) struct Producers {
    ledger: Arc<Polled<Told>>,
    outputs: Arc<Polled<Told>>,
}

impl Producers {
    /// New ones; they get ready in the background, so that their first record does not wait for that.
    pub(super) fn new(cluster: &Cluster, inbox: &Arc<Inbox>, session: u64) -> Result<Self, KafkaFailure> {
        let make = |role| -> Result<Arc<Polled<Told>>, KafkaFailure> {
            let told = cluster.context(Told { inbox: Arc::clone(inbox), session });
            Ok(Arc::new(Polled::new(cluster.options(), role, told)?))
        };
        let producers = Self { ledger: make(Role::Ledger)?, outputs: make(Role::Outputs)? };
        producers.warm_up(cluster);
        Ok(producers)
    }

    fn warm_up(&self, cluster: &Cluster) {
        let (ledger, outputs) = (Arc::downgrade(&self.ledger), Arc::downgrade(&self.outputs));
        let (patience, names) = (cluster.patience(), cluster.names().clone());
        let warm = move || {
            // What cannot be asked now is asked with the first record.
            if let Some(ledger) = ledger.upgrade() {
                let _ = ledger.client().fetch_metadata(Some(Topic::Ledger.name_in(&names)), patience);
            }
            for topic in OutputTopic::ALL {
                if let Some(outputs) = outputs.upgrade() {
                    let _ = outputs.client().fetch_metadata(Some(names.output(topic)), patience);
                }
            }
        };
        if let Err(error) = thread::Builder::new().name("kafka-warm-up".into()).spawn(warm) {
            tracing::debug!(%error, "the producers get ready with their first record");
        }
    }

    /// Sends a ledger entry.
    pub(super) fn append(&self, name: &str, partition: i32, ticket: u64, entry: &[u8]) -> Result<(), LogError> {
        let record = BaseRecord::<[u8], [u8], _>::with_opaque_to(name, Box::new(Ticket { ticket, topic: None }));
        let sent = self.ledger.send(record.partition(partition).payload(entry));
        sent.map_err(|(error, _)| not_taken(&error, entry.len()))
    }

    /// Sends an output.
    pub(super) fn publish(&self, name: &str, partition: i32, ticket: u64, output: &OutputRecord) -> Result<(), LogError> {
        let tag = tag_text(output.tag);
        let mut headers = OwnedHeaders::new_with_capacity(2).insert(Header { key: TAG_HEADER, value: Some(&tag) });
        if output.topic == OutputTopic::Decisions {
            let intent = intent_text(output.source);
            headers = headers.insert(Header { key: INTENT_HEADER, value: Some(&intent) });
        }
        let opaque = Box::new(Ticket { ticket, topic: Some(output.topic) });
        let mut record = BaseRecord::<[u8], [u8], _>::with_opaque_to(name, opaque);
        record = record.partition(partition).payload(&output.payload).headers(headers);
        if let Some(key) = &output.key {
            record = record.key(key);
        }
        self.outputs.send(record).map_err(|(error, _)| not_taken(&error, output.payload.len()))
    }

    /// Drops what is queued and ends, in the background: an end waits for what is on its way.
    pub(super) fn abandon(self) {
        // At once, whoever else still holds them.
        for producer in [&self.ledger, &self.outputs] {
            producer.purge(PurgeConfig::default().queue().inflight());
        }
        let end = move || drop(self);
        if let Err(error) = thread::Builder::new().name("kafka-end".into()).spawn(end) {
            tracing::warn!(%error, "the producers ended in the foreground");
        }
    }

    /// Waits until everything sent is reported, at most this long.
    pub(super) fn flush(&self, patience: Duration) {
        let _ = self.ledger.flush(patience);
        let _ = self.outputs.flush(patience);
    }
}

fn not_taken(error: &KafkaError, bytes: usize) -> LogError {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::MessageSizeTooLarge) => LogError::TooLarge { bytes, limit: 1_000_000 },
        Some(_) | None => log_error(error, "sending a record"),
    }
}

/// A tag as the header has it.
fn tag_text(tag: OutputTag) -> String {
    format!("{}-{}-{}", tag.shard, tag.seq, tag.index)
}

/// The place of an intent as the header has it.
fn intent_text(source: Source) -> String {
    format!("{}-{}", source.partition, source.offset)
}

/// The partition and offset of the intent that a decision answers, if the header is one of ours.
pub(super) fn intent_of(value: &[u8]) -> Option<(u32, u64)> {
    let (partition, offset) = std::str::from_utf8(value).ok()?.split_once('-')?;
    Some((partition.parse().ok()?, offset.parse().ok()?))
}

/// The tag that a header tells, if it is one of ours.
pub(super) fn tag_of(value: &[u8]) -> Option<OutputTag> {
    let mut parts = std::str::from_utf8(value).ok()?.split('-');
    let tag = OutputTag { shard: parts.next()?.parse().ok()?, seq: parts.next()?.parse().ok()?, index: parts.next()?.parse().ok()? };
    parts.next().is_none().then_some(tag)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::InputTopic;

    #[test]
    fn the_place_of_an_intent_is_read_as_it_was_written() {
        let source = Source { topic: InputTopic::Intents, partition: 7, offset: 911 };
        assert_eq!(intent_of(intent_text(source).as_bytes()), Some((7, 911)));
        for other in ["", "7", "7-1-2", "a-b", "-1"] {
            assert_eq!(intent_of(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn a_tag_is_read_as_it_was_written() {
        let tag = OutputTag { shard: 7, seq: 1842, index: 3 };
        assert_eq!(tag_of(tag_text(tag).as_bytes()), Some(tag));
        for other in ["", "7", "7-1", "7-1-2-3", "a-b-c", "-1-2-3"] {
            assert_eq!(tag_of(other.as_bytes()), None, "{other}");
        }
    }
}
