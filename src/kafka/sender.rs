//! Sends an event log to its topics.
//!
//! Invariant: one idempotent producer, acknowledged by all replicas, never a message that times out: what goes to one
//! partition lands in the order of the calls and once. What is on its way is bounded by the client's queue.
//! Deliberately absent: order between partitions; [`Sender::report`] lets the caller wait.

use std::collections::BTreeMap;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseRecord, Producer};

use crate::log::{LogError, NewRecord, Placed, Topic};

use super::client::{Listener, Receiver};
use super::cluster::{Cluster, offset};
use super::error::{KafkaFailure, log_error};
use super::polled::Polled;
use super::settings::Role;

/// What became of a record.
#[derive(Debug)]
pub struct Report {
    /// As given to [`Sender::send`].
    pub ticket: u64,
    /// Where it stands.
    pub placed: Result<Placed, LogError>,
}

/// A producer for a tool.
pub struct Sender {
    cluster: Cluster,
    producer: Polled<Told>,
    reports: mpsc::Receiver<Report>,
    partitions: BTreeMap<Topic, u32>,
}

impl Sender {
    /// A sender to this cluster.
    ///
    /// # Errors
    /// The settings are refused.
    pub fn new(cluster: &Cluster) -> Result<Self, KafkaFailure> {
        let (tell, reports) = mpsc::channel();
        let told = cluster.context(Told { tell });
        let producer = Polled::new(cluster.options(), Role::Send, told)?;
        Ok(Self { cluster: cluster.clone(), producer, reports, partitions: BTreeMap::new() })
    }

    /// The partition that a key maps to among those that the topic has.
    ///
    /// # Errors
    /// There is no such topic, or the cluster cannot be asked.
    pub fn partition_of(&mut self, topic: Topic, key: Option<&[u8]>) -> Result<u32, LogError> {
        let count = self.count(topic)?;
        Ok(key.map_or(0, |key| self.cluster.options().partitioner.partition(key, count)))
    }

    fn count(&mut self, topic: Topic) -> Result<u32, LogError> {
        if let Some(count) = self.partitions.get(&topic) {
            return Ok(*count);
        }
        match self.cluster.partitions(topic)? {
            0 => Err(LogError::NoSuchPartition { topic, partition: 0 }),
            count => {
                self.partitions.insert(topic, count);
                Ok(count)
            }
        }
    }

    /// Sends a record, to the partition of its key when it names none. False: the queue is full, wait for reports.
    ///
    /// # Errors
    /// It was not taken, and will not land.
    pub fn send(&mut self, record: &NewRecord, ticket: u64) -> Result<bool, LogError> {
        let (topic, key) = (record.topic, record.key.as_deref());
        let partition = match record.partition {
            Some(partition) if partition >= self.count(topic)? => return Err(LogError::NoSuchPartition { topic, partition }),
            Some(partition) => partition,
            None => self.partition_of(topic, key)?,
        };
        let whom = Box::new(Whom { ticket, topic, partition });
        let mut message = BaseRecord::<[u8], [u8], _>::with_opaque_to(self.cluster.name(topic), whom);
        message = message.partition(i32::try_from(partition).unwrap_or(i32::MAX)).payload(&record.payload);
        message.key = key;
        message.timestamp = record.ts;
        match self.producer.send(message) {
            Ok(()) => Ok(true),
            Err((error, _)) => match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::QueueFull) => Ok(false),
                Some(RDKafkaErrorCode::MessageSizeTooLarge) => Err(LogError::TooLarge { bytes: record.payload.len(), limit: 1_000_000 }),
                Some(_) | None => Err(log_error(&error, "sending a record")),
            },
        }
    }

    /// The next report: one that is there, or the first that comes within `wait`.
    ///
    /// # Errors
    /// The client is gone, or of no use any more: what was not reported may have landed, or not.
    pub fn report(&self, wait: Duration) -> Result<Option<Report>, LogError> {
        if self.producer.context().is_useless() {
            return Err(LogError::Io { detail: "the client is of no use any more; the log says why".into() });
        }
        match self.reports.recv_timeout(wait) {
            Ok(report) => Ok(Some(report)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(LogError::Closed),
        }
    }
}

/// Whom a report is for.
struct Whom {
    ticket: u64,
    topic: Topic,
    partition: u32,
}

struct Told {
    tell: mpsc::Sender<Report>,
}

impl Listener for Told {}

impl Receiver for Told {
    type Ticket = Whom;

    fn reported(&self, report: &DeliveryResult<'_>, Whom { ticket, topic, partition }: Whom) {
        let placed = match report {
            Ok(record) => Ok(Placed { topic, partition, offset: offset(record.offset()) }),
            Err((error, _)) => Err(log_error(error, "writing a record")),
        };
        // Whoever sent it may have given up.
        let _ = self.tell.send(Report { ticket, placed });
    }
}
