//! The consumer of a shard's inputs, on a thread of its own, and whoever watches it.
//!
//! Invariant: it begins where the ledger says; a position that is not kept is an error, never
//! corrected; it does not stay silent where there is more to read, and neither does the owner's look at
//! the ledger. Deliberately absent: groups, commits.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use metrics::counter;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::statistics::Statistics;
use rdkafka::{Offset, TopicPartitionList};

use crate::domain::{InputTopic, Source};
use crate::log::{InputRecord, LogError, Topic};
use crate::telemetry;
use crate::wire::frame::PAYLOAD_BYTES_KEPT;

use super::client::{Context, Listener};
use super::cluster::{Cluster, is_absent, offset};
use super::error::log_error;
use super::inbox::Inbox;
use super::settings::Role;

/// How long a poll waits, and so how long an end takes at most.
const POLL: Duration = Duration::from_millis(100);
/// How often what is read is compared with what there is. A client can fall silent without an error (docs/KAFKA.md).
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// For so long the brokers may not tell where the ledger ends, before an owner who reads nothing in it knows nothing.
pub(super) const LEDGER_PATIENCE: Duration = Duration::from_secs(10);
/// An owner without frames on their way looks at the ledger more often than this.
const OWNER_LOOKS_WITHIN: Duration = Duration::from_secs(1);
/// Records that are handed over at once.
const BATCH: usize = 512;

/// What a shard reads: each partition and its next offset.
pub(super) type Starts = Vec<(InputTopic, u32, u64)>;

/// A running consumer.
pub(super) struct Inputs {
    inbox: Arc<Inbox>,
}

impl Inputs {
    /// Reads from these offsets on, for the owner of this shard.
    pub(super) fn start(cluster: &Cluster, inbox: &Arc<Inbox>, shard: u32, starts: Starts) -> Result<Self, LogError> {
        let run = inbox.begin_run();
        let mut topics: Vec<Topic> = starts.iter().map(|(topic, ..)| Topic::Input(*topic)).collect();
        topics.dedup();
        let consumer = cluster.consumer(Role::Inputs, Hearing { inbox: inbox.clone(), run }, &topics)?;
        let mut wanted = TopicPartitionList::with_capacity(starts.len());
        let doing = |error: KafkaError| log_error(&error, "going to the ledger's positions");
        for (topic, partition, next) in &starts {
            let at = Offset::Offset(i64::try_from(*next).unwrap_or(i64::MAX));
            let number = i32::try_from(*partition).unwrap_or(i32::MAX);
            wanted.add_partition_offset(cluster.name(Topic::Input(*topic)), number, at).map_err(doing)?;
        }
        consumer.assign(&wanted).map_err(doing)?;
        let watching = Watching { cluster: cluster.clone(), inbox: inbox.clone(), run, shard, starts: starts.clone() };
        let reading = Reading { cluster: cluster.clone(), consumer, inbox: inbox.clone(), run, starts };
        spawn("kafka-inputs", move || reading.run())?;
        spawn("kafka-watch", move || watching.run())?;
        Ok(Self { inbox: inbox.clone() })
    }
}

impl Drop for Inputs {
    fn drop(&mut self) {
        // A new run ends the old one; its thread closes its consumer by itself.
        self.inbox.begin_run();
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), LogError> {
    let spawned = thread::Builder::new().name(name.into()).spawn(work);
    spawned.map(drop).map_err(|error| LogError::Io { detail: error.to_string() })
}

/// Hears what the consumer says of itself.
struct Hearing {
    inbox: Arc<Inbox>,
    run: u64,
}

impl Listener for Hearing {
    fn statistics(&self, statistics: Statistics) {
        self.inbox.saw(self.run, statistics);
    }

    fn useless(&self, why: &str) {
        self.inbox.lose(self.run, LogError::Busy { detail: format!("reading the inputs: {why}") });
    }
}

struct Reading {
    cluster: Cluster,
    consumer: BaseConsumer<Context<Hearing>>,
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

/// Compares where a consumer stands with what there is: a question may take seconds, so it is asked
/// on a thread of its own.
struct Watching {
    cluster: Cluster,
    inbox: Arc<Inbox>,
    run: u64,
    shard: u32,
    starts: Starts,
}

impl Watching {
    fn run(self) {
        // Where each stood at the last look, if there was more to read.
        let mut stood = vec![None; self.starts.len()];
        let mut ledger_stood = None;
        while self.inbox.wait_in(self.run, LOOK_EVERY) {
            let at = self.owner_waits_at();
            if let Some(offset) = at
                && at == ledger_stood
            {
                return self.lose(Topic::Ledger, self.shard, offset);
            }
            ledger_stood = at;
            for (&(topic, partition, start), stood) in self.starts.iter().zip(&mut stood) {
                let at = self.waits_at(Topic::Input(topic), partition, start);
                if let Some(offset) = at
                    && at == *stood
                {
                    return self.lose(Topic::Input(topic), partition, offset);
                }
                *stood = at;
            }
        }
    }

    fn lose(&self, topic: Topic, partition: u32, offset: u64) {
        counter!(telemetry::KAFKA_CLIENTS_LOST).increment(1);
        let detail = format!("{topic} {partition} does not come from offset {offset} on");
        self.inbox.lose(self.run, LogError::Busy { detail });
    }

    /// Where the owner finds nothing in the ledger, when there is more.
    fn owner_waits_at(&self) -> Option<u64> {
        let end = self.cluster.extent(Topic::Ledger, self.shard).ok()?.next;
        self.inbox.ledger_told(self.run);
        self.inbox.ledger_ends_for_owner(OWNER_LOOKS_WITHIN).filter(|from| end > *from)
    }

    /// Where it stands, when there is more and the shard would take it.
    fn waits_at(&self, topic: Topic, partition: u32, start: u64) -> Option<u64> {
        let number = i32::try_from(partition).unwrap_or(i32::MAX);
        let at = self.inbox.position(self.cluster.name(topic), number).unwrap_or(start);
        let next = self.cluster.extent(topic, partition).ok()?.next;
        (next > at && !self.inbox.is_full()).then_some(at)
    }
}

/// What the ledger keeps of a value, and more than a legal one has.
fn kept(payload: &[u8]) -> &[u8] {
    payload.get(..PAYLOAD_BYTES_KEPT).unwrap_or(payload)
}
