//! The side of the log for everyone but a shard: the HTTP face, tools, readers.
//!
//! Invariant: reads what is committed; a record without a partition goes to the one that its key maps
//! to. Deliberately absent: a cache.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::domain::InputTopic;
use crate::log::{AppendDone, Extent, LogError, NewRecord, StoredRecord, Topic, Topics};

use super::cluster::Cluster;
use super::error::KafkaFailure;
use super::ingress::{Ingress, Routed};
use super::reader::Reader;
use super::tails::{Found, Tails};

/// How often a follower looks for more.
const LOOK_EVERY: Duration = Duration::from_millis(25);
/// Readers that are kept for the next read.
const READERS_KEPT: usize = 32;
/// How often they are served.
const SERVE_EVERY: Duration = Duration::from_millis(500);
/// A reader that nobody has needed for so long is a client too many.
const UNUSED_MAX: Duration = Duration::from_secs(30);

/// The topics of a cluster.
pub struct KafkaTopics {
    cluster: Cluster,
    ingress: Ingress,
    readers: Arc<Mutex<Vec<Reader>>>,
    tails: Tails,
    changes: Arc<watch::Sender<u64>>,
    prices: u32,
}

impl KafkaTopics {
    /// The topics of a cluster.
    ///
    /// # Errors
    /// The settings are refused, or the cluster cannot be asked.
    pub fn new(cluster: &Cluster) -> Result<Self, LogError> {
        let changes = Arc::new(watch::channel(0).0);
        let readers: Arc<Mutex<Vec<Reader>>> = Arc::default();
        let (ticking, served) = (Arc::downgrade(&changes), readers.clone());
        let tick = move || {
            let mut last = Instant::now();
            while let Some(changes) = ticking.upgrade() {
                if changes.receiver_count() > 0 {
                    changes.send_modify(|count| *count += 1);
                }
                drop(changes);
                if last.elapsed() >= SERVE_EVERY {
                    serve(&served);
                    last = Instant::now();
                }
                thread::sleep(LOOK_EVERY);
            }
        };
        let spawned = thread::Builder::new().name("kafka-changes".into()).spawn(tick);
        spawned.map_err(|error| LogError::Io { detail: error.to_string() })?;
        let prices = cluster.partitions(Topic::Input(InputTopic::Prices))?;
        let tails = Tails::new(cluster.clone());
        Ok(Self { cluster: cluster.clone(), ingress: Ingress::new(cluster)?, readers, tails, changes, prices })
    }

    /// The cluster.
    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    fn route(&self, record: NewRecord) -> Result<Routed, LogError> {
        let count = match record.topic {
            Topic::Input(InputTopic::Intents | InputTopic::Executions) => self.cluster.options().shards,
            Topic::Input(InputTopic::Prices) => self.prices,
            Topic::Input(InputTopic::Control) | Topic::Ledger | Topic::Output(_) | Topic::Directory | Topic::Audit => 1,
        };
        let by_key = || record.key.as_deref().map_or(0, |key| self.cluster.options().partitioner.partition(key, count));
        let partition = record.partition.unwrap_or_else(by_key);
        if partition >= count {
            return Err(LogError::NoSuchPartition { topic: record.topic, partition });
        }
        Ok(Routed { record, partition })
    }

    fn read_range(&self, topic: Topic, partition: u32, from: u64, limit: usize) -> Result<Vec<StoredRecord>, LogError> {
        let mut reader = self.reader(topic, partition, from)?;
        let records = reader.read(topic, partition, from, limit);
        let mut kept = locked(&self.readers);
        if kept.len() < READERS_KEPT {
            kept.push(reader);
        }
        records
    }

    /// A reader that is free, if possible the one that has fetched already what is asked for.
    fn reader(&self, topic: Topic, partition: u32, from: u64) -> Result<Reader, KafkaFailure> {
        let mut kept = locked(&self.readers);
        let standing = kept.iter().position(|reader| reader.stands_at(topic, partition, from));
        let place = standing.or_else(|| kept.iter().position(Reader::is_free));
        let reader = place.map(|place| kept.swap_remove(place)).or_else(|| kept.pop());
        drop(kept);
        reader.map_or_else(|| Reader::of_ranges(&self.cluster), Ok)
    }
}

/// Lets readers go that nobody needs.
fn serve(readers: &Mutex<Vec<Reader>>) {
    let mut unused = Vec::new();
    let mut kept = locked(readers);
    for place in (0..kept.len()).rev() {
        if kept[place].unused_for() >= UNUSED_MAX {
            unused.push(kept.swap_remove(place));
        } else {
            kept[place].serve();
        }
    }
    // To close a client takes a while.
    drop(kept);
    drop(unused);
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Topics for KafkaTopics {
    fn append(&self, records: Vec<NewRecord>, done: AppendDone) {
        match records.into_iter().map(|record| self.route(record)).collect() {
            Ok(routed) => self.ingress.write(routed, done),
            Err(error) => done(Err(error)),
        }
    }

    fn read(&self, topic: Topic, partition: u32, from: u64, limit: usize) -> Result<Vec<StoredRecord>, LogError> {
        let ended_at = match self.tails.read(topic, partition, from, limit) {
            Found::Records(records) => return Ok(records),
            Found::End => return Ok(Vec::new()),
            Found::Unconfirmed(end) => end,
            Found::Elsewhere => None,
        };
        let end = self.cluster.extent(topic, partition)?.next;
        // Between the end that he saw and where he stands there are only marks of transactions.
        let records = if end == from || ended_at == Some(end) { Vec::new() } else { self.read_range(topic, partition, from, limit)? };
        if records.is_empty() {
            // Who asks at the end asks again and again.
            self.tails.stay(topic, partition, from, end)?;
        }
        Ok(records)
    }

    fn extents(&self) -> Result<Vec<Extent>, LogError> {
        let mut extents = Vec::new();
        for topic in Topic::ALL {
            for partition in 0..self.cluster.partitions(topic)? {
                extents.push(self.cluster.extent(topic, partition)?);
            }
        }
        Ok(extents)
    }

    fn extent(&self, topic: Topic, partition: u32) -> Result<Extent, LogError> {
        self.cluster.extent(topic, partition)
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn refusing(&self) -> Option<LogError> {
        None
    }
}
