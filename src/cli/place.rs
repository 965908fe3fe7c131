//! Which log a command reads: the embedded one of a directory, or a cluster.
//!
//! Invariant: commands see one [`ReadLog`] and do not know which it is; nothing here writes, and a
//! daemon may have the log at the same time. Deliberately absent: any position that is kept.

use std::path::{Path, PathBuf};

use super::settings::ConfigFile;
use super::{Exit, Failure};
use crate::app;
use crate::config::{Config, LogKind};
use crate::embedded::EmbeddedReader;
use crate::kafka::{Cluster, Reader};
use crate::log::{Extent, LogError, StoredRecord, Topic};
use crate::wire::TopicNames;

/// Which log, and which part of it.
#[derive(Clone, Debug, clap::Args)]
pub struct Place {
    #[command(flatten)]
    file: ConfigFile,
    /// Directory of the embedded log (data_dir)
    #[arg(long, value_name = "DIR", conflicts_with = "brokers")]
    data_dir: Option<PathBuf>,
    /// Kafka cluster that holds the log (kafka.brokers); the other settings come from the configuration
    #[arg(long, value_name = "HOST:PORT")]
    brokers: Option<String>,
    /// Shard; where there are several and the command takes one, it must be named
    #[arg(long, value_name = "N")]
    shard: Option<u32>,
}

/// A log to read from.
pub trait ReadLog {
    /// The number of partitions of a topic; 0 where there is no such topic.
    fn partitions(&self, topic: Topic) -> Result<u32, LogError>;

    /// Where a partition begins and ends.
    fn extent(&self, topic: Topic, partition: u32) -> Result<Extent, LogError>;

    /// Up to `limit` records at or above `from`; none at the end.
    fn read(&mut self, topic: Topic, partition: u32, from: u64, limit: usize) -> Result<Vec<StoredRecord>, LogError>;
}

impl Place {
    /// The log, to be read.
    pub fn open(&self) -> Result<Box<dyn ReadLog>, Failure> {
        let config = self.config()?;
        match config.log.kind {
            LogKind::Embedded => Ok(Box::new(open_directory(&config.data_dir)?)),
            LogKind::Kafka => Ok(Box::new(OnCluster::open(&app::cluster(&config)?)?)),
        }
    }

    /// The configuration with what was named laid over it.
    pub fn config(&self) -> Result<Config, Failure> {
        let mut over = over_brokers(self.brokers.as_deref());
        if let Some(dir) = &self.data_dir {
            over.extend([("log.kind".to_owned(), "embedded".to_owned()), ("shard.count".to_owned(), "1".to_owned())]);
            over.push(("data_dir".to_owned(), dir.display().to_string()));
        }
        self.file.load(&over)
    }

    /// What topics are called in a file: as configured, where a configuration is named.
    pub fn names(&self) -> Result<TopicNames, Failure> {
        if self.file.config.is_none() { Ok(TopicNames::default()) } else { Ok(app::names_of(&self.config()?)) }
    }

    /// The shard that was named.
    #[must_use]
    pub fn named_shard(&self) -> Option<u32> {
        self.shard
    }

    /// The shards that are meant: the one named, or all of them.
    pub fn shards(&self, log: &dyn ReadLog) -> Result<Vec<u32>, Failure> {
        let count = log.partitions(Topic::Ledger)?;
        match self.shard {
            _ if count == 0 => Err(LogError::NoSuchPartition { topic: Topic::Ledger, partition: 0 }.into()),
            Some(shard) if shard >= count => Err(LogError::NoSuchPartition { topic: Topic::Ledger, partition: shard }.into()),
            Some(shard) => Ok(vec![shard]),
            None => Ok((0..count).collect()),
        }
    }

    /// The one shard that is meant.
    pub fn one_shard(&self, log: &dyn ReadLog) -> Result<u32, Failure> {
        match self.shards(log)?[..] {
            [shard] => Ok(shard),
            ref several => {
                let what = format!("there are {} shards, each with a ledger of its own: name one with --shard", several.len());
                Err(Failure::new(Exit::Usage, what))
            }
        }
    }
}

/// What naming brokers says about the configuration.
pub fn over_brokers(brokers: Option<&str>) -> Vec<(String, String)> {
    let kafka = |brokers: &str| [("log.kind".to_owned(), "kafka".to_owned()), ("kafka.brokers".to_owned(), brokers.to_owned())];
    brokers.map(kafka).into_iter().flatten().collect()
}

/// A reader of the log in a directory.
fn open_directory(dir: &Path) -> Result<EmbeddedReader, Failure> {
    if !dir.is_dir() {
        let what = format!("there is no data directory {}; --data-dir or data_dir names it, --brokers a cluster", dir.display());
        return Err(Failure::new(Exit::Log, what));
    }
    Ok(EmbeddedReader::open(dir)?)
}

impl ReadLog for EmbeddedReader {
    fn partitions(&self, _topic: Topic) -> Result<u32, LogError> {
        Ok(1)
    }

    fn extent(&self, topic: Topic, partition: u32) -> Result<Extent, LogError> {
        if partition > 0 {
            return Err(LogError::NoSuchPartition { topic, partition });
        }
        Ok(Extent { topic, partition, first: 0, next: self.end(topic)? })
    }

    fn read(&mut self, topic: Topic, partition: u32, from: u64, limit: usize) -> Result<Vec<StoredRecord>, LogError> {
        if partition > 0 {
            return Err(LogError::NoSuchPartition { topic, partition });
        }
        Self::read(self, topic, from, limit)
    }
}

/// A cluster, and a reader of it.
pub struct OnCluster {
    cluster: Cluster,
    reader: Reader,
}

impl OnCluster {
    /// A reader of this cluster.
    pub fn open(cluster: &Cluster) -> Result<Self, Failure> {
        let reader = Reader::of_tails(cluster).map_err(|failure| Failure::new(Exit::Usage, failure))?;
        Ok(Self { cluster: cluster.clone(), reader })
    }
}

impl ReadLog for OnCluster {
    fn partitions(&self, topic: Topic) -> Result<u32, LogError> {
        self.cluster.partitions(topic)
    }

    fn extent(&self, topic: Topic, partition: u32) -> Result<Extent, LogError> {
        self.cluster.extent(topic, partition)
    }

    fn read(&mut self, topic: Topic, partition: u32, from: u64, limit: usize) -> Result<Vec<StoredRecord>, LogError> {
        self.reader.read(topic, partition, from, limit)
    }
}
