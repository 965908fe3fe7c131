//! Reads a partition from any offset on: a range, or on and on at its end.
//!
//! Invariant: what it returns are the records from `from` on in offset order, and nothing means that
//! the end was reached, not that nothing has come yet. Deliberately absent: threads.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{Offset, TopicPartitionList};

use crate::domain::InputTopic;
use crate::log::{LogError, OutputTopic, StoredRecord, Topic};

use super::client::{Context, Nobody};
use super::cluster::{Cluster, is_absent, offset, unassign};
use super::error::{KafkaFailure, log_error};
use super::producers::{TAG_HEADER, tag_of};
use super::settings::Role;

/// How long one look at the client's queue takes.
const SLICE: Duration = Duration::from_millis(100);

/// A client keeps what it has fetched, and looks a thousand times a second whether it may fetch more: not for somebody who went away.
const LET_GO_AFTER: Duration = Duration::from_secs(1);

/// How many events of the client are heard in one go.
const SERVED_AT_ONCE: usize = 8;

/// What a take-over compares with the ledger, and what the control plane follows.
const READ_IN_RANGES: [Topic; 10] = [
    Topic::Output(OutputTopic::Decisions),
    Topic::Output(OutputTopic::Commands),
    Topic::Output(OutputTopic::Notifications),
    Topic::Output(OutputTopic::DeadLetter),
    Topic::Input(InputTopic::Intents),
    Topic::Input(InputTopic::Executions),
    Topic::Input(InputTopic::Prices),
    Topic::Input(InputTopic::Control),
    Topic::Directory,
    Topic::Audit,
];

/// A reader of one partition at a time.
pub struct Reader {
    cluster: Cluster,
    role: Role,
    consumer: BaseConsumer<Context<Nobody>>,
    place: Option<Place>,
    /// What was asked last, when it was at the end.
    asked: Option<(Topic, u32, u64)>,
    seen_end: Option<u64>,
    used: Instant,
    /// Whether something that is there did not come: perhaps the client is of no use any more.
    is_doubtful: bool,
}

/// Where a reader stands.
struct Place {
    topic: Topic,
    partition: u32,
    next: u64,
    at_end: bool,
}

impl Reader {
    /// A reader of ranges: it lets go of a partition when it has reached its end.
    ///
    /// # Errors
    /// The settings are refused.
    pub fn of_ranges(cluster: &Cluster) -> Result<Self, KafkaFailure> {
        Self::new(cluster, Role::Range)
    }

    /// A reader that stays at the end and waits for more.
    ///
    /// # Errors
    /// The settings are refused.
    pub fn of_tails(cluster: &Cluster) -> Result<Self, KafkaFailure> {
        Self::new(cluster, Role::Tail)
    }

    fn new(cluster: &Cluster, role: Role) -> Result<Self, KafkaFailure> {
        let consumer = consumer(cluster, role)?;
        let used = Instant::now();
        Ok(Self { cluster: cluster.clone(), role, consumer, place: None, asked: None, seen_end: None, used, is_doubtful: false })
    }

    /// Whether it stays where it is once it is at the end.
    fn stays(&self) -> bool {
        self.role == Role::Tail
    }

    /// The end of the partition that was read last, as far as it was seen.
    pub(super) const fn seen_end(&self) -> Option<u64> {
        self.seen_end
    }

    /// Up to `limit` records at or above `from`; none at the end.
    ///
    /// # Errors
    /// `from` is not kept (any more, or yet), or the cluster does not answer.
    pub fn read(&mut self, topic: Topic, partition: u32, from: u64, limit: usize) -> Result<Vec<StoredRecord>, LogError> {
        if self.is_doubtful || self.consumer.context().is_useless() {
            self.consumer = consumer(&self.cluster, self.role)?;
            (self.place, self.is_doubtful) = (None, false);
        }
        self.used = Instant::now();
        if !self.stands_at(topic, partition, from) && !self.go_to(topic, partition, from)? {
            return Ok(Vec::new());
        }
        let records = self.collect(limit);
        match &records {
            Ok(_) if self.stays() || !self.place.as_ref().is_some_and(|place| place.at_end) => {}
            Ok(_) | Err(_) => self.let_go(),
        }
        records
    }

    /// Whether what comes next is what stands there.
    pub(super) fn stands_at(&self, topic: Topic, partition: u32, from: u64) -> bool {
        self.place.as_ref().is_some_and(|place| (place.topic, place.partition, place.next) == (topic, partition, from))
    }

    /// Whether it stands nowhere.
    pub(super) const fn is_free(&self) -> bool {
        self.place.is_none()
    }

    /// How long nobody has read.
    pub(super) fn unused_for(&self) -> Duration {
        self.used.elapsed()
    }

    /// Stands at this offset. False when it is the end, and there is nothing to stand there for.
    fn go_to(&mut self, topic: Topic, partition: u32, from: u64) -> Result<bool, LogError> {
        let extent = self.cluster.extent(topic, partition)?;
        if from < extent.first || from > extent.next {
            self.let_go();
            return Err(LogError::OutOfRange { topic, partition, asked: from, first: extent.first, next: extent.next });
        }
        self.seen_end = Some(extent.next);
        let at_end = from == extent.next;
        if at_end && (!self.stays() || self.asked.replace((topic, partition, from)) != Some((topic, partition, from))) {
            return Ok(false);
        }
        let mut wanted = TopicPartitionList::with_capacity(1);
        let number = i32::try_from(partition).unwrap_or(i32::MAX);
        let at = Offset::Offset(i64::try_from(from).unwrap_or(i64::MAX));
        let doing = |error| log_error(&error, "going to an offset");
        wanted.add_partition_offset(self.cluster.name(topic), number, at).map_err(doing)?;
        self.consumer.assign(&wanted).map_err(doing)?;
        self.place = Some(Place { topic, partition, next: from, at_end });
        Ok(true)
    }

    /// Hears what the client has to say while nobody reads: it would keep it.
    pub(super) fn serve(&mut self) {
        if self.unused_for() >= LET_GO_AFTER {
            self.let_go();
        }
        if self.place.is_none() {
            for _ in 0..SERVED_AT_ONCE {
                drop(self.consumer.poll(Duration::ZERO));
            }
        }
    }

    /// Reads nothing any more, until it is asked again.
    pub(super) fn let_go(&mut self) {
        if self.place.take().is_some() {
            unassign(&self.consumer);
        }
    }

    /// What comes from where it stands: until the limit, the end, or nothing more is at hand.
    fn collect(&mut self, limit: usize) -> Result<Vec<StoredRecord>, LogError> {
        let Self { cluster, consumer, place: Some(place), seen_end, is_doubtful, .. } = self else { return Ok(Vec::new()) };
        let deadline = Instant::now() + cluster.patience();
        let (mut records, mut nothing) = (Vec::new(), 0);
        while records.len() < limit {
            let waits = if records.is_empty() && !place.at_end { SLICE } else { Duration::ZERO };
            match consumer.poll(waits) {
                Some(Ok(message)) => {
                    // Of an older assignment: it was on its way already.
                    if !is_of(&message, cluster.name(place.topic), place) {
                        continue;
                    }
                    place.next = offset(message.offset()) + 1;
                    place.at_end = false;
                    *seen_end = (*seen_end).max(Some(place.next));
                    records.push(stored(&message));
                }
                Some(Err(KafkaError::PartitionEOF(_))) => place.at_end = true,
                Some(Err(error)) => failure(&error, cluster, place)?,
                // An event of the client's own looks like nothing.
                None if nothing < 2 && place.at_end => nothing += 1,
                None if place.at_end || !records.is_empty() => return Ok(records),
                None if Instant::now() >= deadline => {
                    *is_doubtful = true;
                    let detail = format!("{} {} does not come", cluster.name(place.topic), place.partition);
                    return Err(LogError::Busy { detail });
                }
                None => {}
            }
        }
        Ok(records)
    }
}

fn consumer(cluster: &Cluster, role: Role) -> Result<BaseConsumer<Context<Nobody>>, KafkaFailure> {
    let topics: &[Topic] = if role == Role::Tail { &[Topic::Ledger] } else { &READ_IN_RANGES };
    cluster.consumer(role, Nobody, topics)
}

/// Whether an error of the consumer ends the reading.
fn failure(error: &KafkaError, cluster: &Cluster, place: &Place) -> Result<(), LogError> {
    let (topic, partition) = (place.topic, place.partition);
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::AutoOffsetReset) => {
            let extent = cluster.extent(topic, partition)?;
            Err(LogError::OutOfRange { topic, partition, asked: place.next, first: extent.first, next: extent.next })
        }
        Some(code) if is_absent(code) => Err(cluster.absence(topic, partition)),
        // The client goes on trying; the deadline says when we do not.
        Some(_) | None => {
            tracing::debug!(%error, %topic, partition, "reading");
            Ok(())
        }
    }
}

fn is_of(message: &BorrowedMessage<'_>, name: &str, place: &Place) -> bool {
    message.topic() == name && u32::try_from(message.partition()) == Ok(place.partition) && offset(message.offset()) >= place.next
}

pub(super) fn stored(message: &BorrowedMessage<'_>) -> StoredRecord {
    let tag = message.headers().and_then(|headers| headers.iter().find(|header| header.key == TAG_HEADER)?.value.and_then(tag_of));
    StoredRecord {
        offset: offset(message.offset()),
        ts: message.timestamp().to_millis().unwrap_or(0),
        key: message.key().map(<[u8]>::to_vec),
        payload: message.payload().unwrap_or_default().to_vec(),
        tag,
    }
}
