//! The consumer of a shard's inputs, on a thread of its own.
//!
//! Invariant: it begins where the ledger says; a position that is not kept is an error, never
//! corrected. Deliberately absent: groups, commits.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{Offset, TopicPartitionList};

use crate::domain::{InputTopic, Source};
use crate::log::{InputRecord, LogError, Topic};
use crate::wire::frame::PAYLOAD_BYTES_KEPT;

use super::client::Context;
use super::cluster::{Cluster, is_absent, offset};
use super::error::log_error;
use super::inbox::Inbox;
use super::settings::Role;

/// How long a poll waits, and so how long an end takes at most.
const POLL: Duration = Duration::from_millis(100);
/// Records that are handed over at once.
const BATCH: usize = 512;

/// What a shard reads: each partition and its next offset.
pub(super) type Starts = Vec<(InputTopic, u32, u64)>;

/// A running consumer.
pub(super) struct Inputs {
    inbox: Arc<Inbox>,
    thread: Option<JoinHandle<()>>,
}

impl Inputs {
    /// Reads from these offsets on.
    pub(super) fn start(cluster: &Cluster, inbox: &Arc<Inbox>, starts: Starts) -> Result<Self, LogError> {
        let run = inbox.begin_run();
        let mut topics: Vec<Topic> = starts.iter().map(|(topic, ..)| Topic::Input(*topic)).collect();
        topics.dedup();
        let consumer = cluster.consumer(Role::Inputs, cluster.context().told(inbox.clone()), &topics)?;
        let mut wanted = TopicPartitionList::with_capacity(starts.len());
        let doing = |error: KafkaError| log_error(&error, "going to the ledger's positions");
        for (topic, partition, next) in &starts {
            let at = Offset::Offset(i64::try_from(*next).unwrap_or(i64::MAX));
            let number = i32::try_from(*partition).unwrap_or(i32::MAX);
            wanted.add_partition_offset(cluster.name(Topic::Input(*topic)), number, at).map_err(doing)?;
        }
        consumer.assign(&wanted).map_err(doing)?;
        let reading = Reading { cluster: cluster.clone(), consumer, inbox: inbox.clone(), run, starts };
        let thread = thread::Builder::new().name("kafka-inputs".into()).spawn(move || reading.run());
        let thread = thread.map_err(|error| LogError::Io { detail: error.to_string() })?;
        Ok(Self { inbox: inbox.clone(), thread: Some(thread) })
    }
}

impl Drop for Inputs {
    fn drop(&mut self) {
        // A new run ends the old one; its thread closes its consumer by itself.
        self.inbox.begin_run();
        drop(self.thread.take());
    }
}

struct Reading {
    cluster: Cluster,
    consumer: BaseConsumer<Context>,
    inbox: Arc<Inbox>,
    run: u64,
    starts: Starts,
}

impl Reading {
    fn run(self) {
        while self.inbox.wait_for_room(self.run) {
            let mut records = Vec::new();
            let mut polled = self.consumer.poll(POLL);
            while let Some(found) = polled {
                match found {
                    Ok(message) => records.extend(self.input(&message)),
                    Err(error) => {
                        if let Some(lost) = self.loss(&error) {
                            self.inbox.deliver(self.run, records.into_iter());
                            return self.inbox.lose(self.run, lost);
                        }
                    }
                }
                polled = if records.len() < BATCH { self.consumer.poll(Duration::ZERO) } else { None };
            }
            if !records.is_empty() {
                self.inbox.deliver(self.run, records.into_iter());
            }
        }
    }

    fn input(&self, message: &BorrowedMessage<'_>) -> Option<InputRecord> {
        let topic = self.cluster.names().find_input(message.topic())?;
        let source = Source { topic, partition: u32::try_from(message.partition()).ok()?, offset: offset(message.offset()) };
        Some(InputRecord {
            source,
            ts: message.timestamp().to_millis().unwrap_or(0),
            key: message.key().map(<[u8]>::to_vec),
            payload: kept(message.payload().unwrap_or_default()).to_vec(),
        })
    }

    /// What an error means for the shard; nothing, when the client goes on by itself.
    fn loss(&self, error: &KafkaError) -> Option<LogError> {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AutoOffsetReset) => Some(self.out_of_range()),
            // Deleted, and perhaps made anew: beginning again compares the last records.
            Some(code) if is_absent(code) => Some(LogError::Busy { detail: format!("an input topic is gone: {error}") }),
            Some(RDKafkaErrorCode::Fatal) => Some(log_error(error, "reading the inputs")),
            Some(_) | None => {
                tracing::debug!(%error, "reading the inputs");
                None
            }
        }
    }

    /// The error names no topic: the one whose extent no longer holds what was to be read.
    fn out_of_range(&self) -> LogError {
        let positions = self.consumer.position().ok();
        for &(topic, partition, start) in &self.starts {
            let topic = Topic::Input(topic);
            let number = i32::try_from(partition).unwrap_or(i32::MAX);
            let at = positions.as_ref().and_then(|all| all.find_partition(self.cluster.name(topic), number));
            let asked = match at.map(|at| at.offset()) {
                Some(Offset::Offset(at)) => offset(at),
                Some(_) | None => start,
            };
            match self.cluster.extent(topic, partition) {
                Ok(extent) if asked < extent.first || asked > extent.next => {
                    return LogError::OutOfRange { topic, partition, asked, first: extent.first, next: extent.next };
                }
                Ok(_) => {}
                Err(error) => return error,
            }
        }
        LogError::Busy { detail: "a position of an input is out of range".into() }
    }
}

/// What the ledger keeps of a value, and more than a legal one has.
fn kept(payload: &[u8]) -> &[u8] {
    payload.get(..PAYLOAD_BYTES_KEPT).unwrap_or(payload)
}
