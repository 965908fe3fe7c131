//! The side of the log for everyone but a shard: the HTTP face, tools, readers.
//!
//! Invariant: reads what is committed; a record without a partition goes to the one that its key maps
//! to. Deliberately absent: a cache.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

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

/// The topics of a cluster.
pub struct KafkaTopics {
    cluster: Cluster,
    ingress: Ingress,
    readers: Mutex<Vec<Reader>>,
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
        let ticking = Arc::downgrade(&changes);
        let tick = move || {
            while let Some(changes) = ticking.upgrade() {
                if changes.receiver_count() > 0 {
                    changes.send_modify(|count| *count += 1);
                }
                drop(changes);
                thread::sleep(LOOK_EVERY);
            }
        };
        let spawned = thread::Builder::new().name("kafka-changes".into()).spawn(tick);
        spawned.map_err(|error| LogError::Io { detail: error.to_string() })?;
        let prices = cluster.partitions(Topic::Input(InputTopic::Prices))?;
        let (readers, tails) = (Mutex::new(Vec::new()), Tails::new(cluster.clone()));
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
        let mut reader = self.reader()?;
        let records = reader.read(topic, partition, from, limit);
        let mut kept = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < READERS_KEPT {
            kept.push(reader);
        }
        records
    }

    fn reader(&self) -> Result<Reader, KafkaFailure> {
        let kept = self.readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        kept.map_or_else(|| Reader::of_ranges(&self.cluster), Ok)
    }
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
