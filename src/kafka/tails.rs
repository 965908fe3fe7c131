//! The ends of the partitions that somebody follows: one client per topic fetches what comes, and keeps it until it is asked for.
//!
//! Invariant: what it gives are the records from the asked offset on, in offset order; that there are no more it says only where the
//! brokers said so within the last second. Whoever asks for another place than the one where he was left, or takes too long, is sent
//! away and reads in ranges. Only the thread that polls changes what is assigned: what it has polled is never of another assignment than
//! the one that it knows. Deliberately absent: bulk reading, and followers that share a partition.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{Offset, TopicPartitionList};

use crate::log::{LogError, StoredRecord, Topic};

use super::client::{Context, Nobody};
use super::cluster::{Cluster, is_absent, offset};
use super::error::log_error;
use super::reader::stored;
use super::settings::Role;

/// How long a poll waits, and so how long an end, or a new partition, takes at most.
const POLL: Duration = Duration::from_millis(20);
/// How many events are heard before those who wait are woken.
const HEARD_AT_ONCE: usize = 500;
/// How long the brokers' word that there is no more is taken for true.
const CONFIRMED_FOR: Duration = Duration::from_secs(1);
/// How long a follower waits for what the client is about to fetch, before he reads it himself.
const PATIENCE: Duration = Duration::from_millis(500);
/// A partition that nobody has asked for is followed no longer.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(10);
/// What is kept of one partition; who is slower reads in ranges.
const BYTES_KEPT: usize = 4 << 20;

/// What a follower finds.
pub(super) enum Found {
    /// What came.
    Records(Vec<StoredRecord>),
    /// Nothing, and there is no more.
    End,
    /// Nothing, but the brokers should be asked: then it ended here, if they said.
    Unconfirmed(Option<u64>),
    /// Nobody stands there.
    Elsewhere,
}

/// The followed ends of a cluster.
pub(super) struct Tails {
    cluster: Cluster,
    topics: Mutex<BTreeMap<Topic, Arc<Tail>>>,
}

impl Tails {
    pub(super) const fn new(cluster: Cluster) -> Self {
        Self { cluster, topics: Mutex::new(BTreeMap::new()) }
    }

    /// What stands in a partition from an offset on, if somebody was left there.
    pub(super) fn read(&self, topic: Topic, partition: u32, from: u64, limit: usize) -> Found {
        let tail = locked(&self.topics).get(&topic).cloned();
        tail.map_or(Found::Elsewhere, |tail| tail.read(partition, from, limit))
    }

    /// Stays at an offset, behind which the brokers have nothing: the partition ends at `end`.
    ///
    /// # Errors
    /// The settings are refused.
    pub(super) fn stay(&self, topic: Topic, partition: u32, from: u64, end: u64) -> Result<(), LogError> {
        let tail = {
            let mut topics = locked(&self.topics);
            if let Some(lost) = topics.get(&topic).filter(|tail| tail.is_ended()).cloned() {
                lost.end();
                topics.remove(&topic);
            }
            match topics.get(&topic) {
                Some(tail) => tail.clone(),
                None => topics.entry(topic).or_insert(Tail::start(&self.cluster, topic)?).clone(),
            }
        };
        tail.stay(partition, from, end);
        Ok(())
    }
}

impl Drop for Tails {
    fn drop(&mut self) {
        for tail in locked(&self.topics).values() {
            tail.end();
        }
    }
}

/// The followed partitions of one topic.
struct Tail {
    name: String,
    consumer: BaseConsumer<Context<Nobody>>,
    places: Mutex<Places>,
    arrived: Condvar,
    ended: AtomicBool,
}

/// Who stands where.
#[derive(Default)]
struct Places {
    of: BTreeMap<u32, Place>,
    /// Partitions that are still assigned, and nobody's.
    left: Vec<u32>,
}

/// Where a follower was left.
struct Place {
    /// The client fetches for it.
    assigned: bool,
    /// What he asks for next.
    next: u64,
    /// What is fetched next.
    fetches: u64,
    fetched: VecDeque<StoredRecord>,
    bytes: usize,
    /// Behind what was fetched there was no more.
    at_end: bool,
    /// Where the partition ended when the brokers were asked; marks of transactions may stand before it.
    end: Option<u64>,
    confirmed: Instant,
    asked: Instant,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Tail {
    fn start(cluster: &Cluster, topic: Topic) -> Result<Arc<Self>, LogError> {
        let tail = Arc::new(Self {
            name: cluster.name(topic).to_owned(),
            consumer: cluster.consumer(Role::Follow, Nobody, &[topic])?,
            places: Mutex::default(),
            arrived: Condvar::new(),
            ended: AtomicBool::new(false),
        });
        let fetching = tail.clone();
        let spawned = thread::Builder::new().name("kafka-tail".into()).spawn(move || fetching.fetch());
        spawned.map_err(|error| LogError::Io { detail: error.to_string() })?;
        Ok(tail)
    }

    fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }

    fn is_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire) || self.consumer.context().is_useless()
    }

    fn read(&self, partition: u32, from: u64, limit: usize) -> Found {
        let deadline = Instant::now() + PATIENCE;
        let mut places = locked(&self.places);
        loop {
            let Some(place) = places.of.get_mut(&partition) else { return Found::Elsewhere };
            let waits = deadline.saturating_duration_since(Instant::now());
            if place.next != from || self.is_ended() || (waits.is_zero() && place.is_waiting()) {
                places.leave(partition);
                return Found::Elsewhere;
            }
            place.asked = Instant::now();
            if !place.is_waiting() {
                return place.found(limit);
            }
            places = self.arrived.wait_timeout(places, waits).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn stay(&self, partition: u32, from: u64, end: u64) {
        let mut places = locked(&self.places);
        match places.of.get_mut(&partition).filter(|place| place.next == from) {
            // What came while the brokers were asked is there for the next read.
            Some(place) if !place.fetched.is_empty() => {}
            Some(place) => (place.end, place.confirmed) = (Some(end), Instant::now()),
            None => {
                places.leave(partition);
                places.of.insert(partition, Place::at_end(from, end));
            }
        }
    }

    /// Fetches for whom stands somewhere, and for nobody else.
    fn settle(&self) {
        let mut places = locked(&self.places);
        let Places { of, left } = &mut *places;
        for partition in left.drain(..) {
            let unassigned = self.partition(partition, None).map(|partition| self.consumer.incremental_unassign(&partition));
            if let Ok(Err(error)) = unassigned {
                tracing::debug!(%error, topic = self.name, "a client keeps a partition");
            }
        }
        of.retain(|partition, place| {
            if !place.assigned {
                let assigned = self.partition(*partition, Some(place.next)).map(|at| self.consumer.incremental_assign(&at));
                place.assigned = matches!(assigned, Ok(Ok(())));
            }
            place.assigned
        });
    }

    fn partition(&self, partition: u32, from: Option<u64>) -> Result<TopicPartitionList, LogError> {
        let mut list = TopicPartitionList::with_capacity(1);
        let number = i32::try_from(partition).unwrap_or(i32::MAX);
        let at = from.map_or(Offset::Invalid, |from| Offset::Offset(i64::try_from(from).unwrap_or(i64::MAX)));
        list.add_partition_offset(&self.name, number, at).map_err(|error| log_error(&error, "staying at an end"))?;
        Ok(list)
    }

    /// Fetches until it is of no use any more.
    fn fetch(&self) {
        let mut swept = Instant::now();
        while !self.is_ended() {
            self.settle();
            // One fetch brings records and ends of many partitions: who waits is woken once for all of them.
            let (mut waits, mut heard) = (POLL, 0);
            while heard < HEARD_AT_ONCE
                && let Some(event) = self.consumer.poll(waits)
            {
                match event {
                    Ok(message) => self.came(&message),
                    Err(KafkaError::PartitionEOF(partition)) => self.ended_at(partition),
                    Err(error) => self.failed(&error),
                }
                (waits, heard) = (Duration::ZERO, heard + 1);
            }
            if heard > 0 {
                self.arrived.notify_all();
            }
            if swept.elapsed() >= CONFIRMED_FOR {
                self.forget();
                swept = Instant::now();
            }
        }
        // Who waits reads in ranges.
        locked(&self.places).of.clear();
        self.arrived.notify_all();
    }

    fn came(&self, message: &BorrowedMessage<'_>) {
        let (Ok(partition), at) = (u32::try_from(message.partition()), offset(message.offset())) else { return };
        let mut places = locked(&self.places);
        // A place that is not assigned yet has nothing to do with what is still fetched for the one before.
        let Some(place) = places.of.get_mut(&partition).filter(|place| place.assigned && place.fetches <= at) else { return };
        place.take(stored(message));
        if place.bytes > BYTES_KEPT {
            places.leave(partition);
        }
    }

    fn ended_at(&self, partition: i32) {
        let Ok(partition) = u32::try_from(partition) else { return };
        if let Some(place) = locked(&self.places).of.get_mut(&partition).filter(|place| place.assigned) {
            (place.at_end, place.confirmed) = (true, Instant::now());
        }
    }

    /// An error names no partition: each follower asks for himself.
    fn failed(&self, error: &KafkaError) {
        tracing::debug!(%error, topic = self.name, "following");
        let code = error.rdkafka_error_code();
        if code.is_some_and(|code| code == RDKafkaErrorCode::AutoOffsetReset || is_absent(code)) {
            self.leave_all(|_| true);
        }
    }

    fn forget(&self) {
        self.leave_all(|place| place.asked.elapsed() >= FORGOTTEN_AFTER);
    }

    fn leave_all(&self, which: impl Fn(&Place) -> bool) {
        let mut places = locked(&self.places);
        let left: Vec<u32> = places.of.iter().filter(|(_, place)| which(place)).map(|(partition, _)| *partition).collect();
        for partition in left {
            places.leave(partition);
        }
        drop(places);
        self.arrived.notify_all();
    }
}

impl Places {
    fn leave(&mut self, partition: u32) {
        if self.of.remove(&partition).is_some_and(|place| place.assigned) {
            self.left.push(partition);
        }
    }
}

impl Place {
    fn at_end(from: u64, end: u64) -> Self {
        let (fetched, now) = (VecDeque::new(), Instant::now());
        Self { assigned: false, next: from, fetches: from, fetched, bytes: 0, at_end: true, end: Some(end), confirmed: now, asked: now }
    }

    /// Whether it is not known yet what comes, or that nothing does.
    fn is_waiting(&self) -> bool {
        self.fetched.is_empty() && !self.at_end
    }

    fn found(&mut self, limit: usize) -> Found {
        if self.fetched.is_empty() {
            return if self.confirmed.elapsed() < CONFIRMED_FOR { Found::End } else { Found::Unconfirmed(self.end) };
        }
        let records: Vec<StoredRecord> = self.fetched.drain(..limit.min(self.fetched.len())).collect();
        self.bytes = self.fetched.iter().map(size).sum();
        self.next = records.last().map_or(self.next, |record| record.offset + 1);
        Found::Records(records)
    }

    fn take(&mut self, record: StoredRecord) {
        (self.fetches, self.at_end, self.end) = (record.offset + 1, false, None);
        self.bytes += size(&record);
        self.fetched.push_back(record);
    }
}

fn size(record: &StoredRecord) -> usize {
    record.payload.len() + record.key.as_ref().map_or(0, Vec::len)
}
