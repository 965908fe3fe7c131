//! The log that the configuration names, opened and checked, and how it is closed.
//!
//! Invariant: nothing is started on a log that does not fit: another process has the directory, the
//! brokers are of several clusters or of another one than before, the shards are more or fewer than
//! the partitions, a topic's settings break a guarantee.

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cli::{Exit, Failure, OrExit};
use crate::config::{self, Config, LogKind};
use crate::domain::InputTopic;
use crate::embedded::{EmbeddedLog, EmbeddedOptions, Timestamps, lock_directory, make_private};
use crate::engine::Partitioner;
use crate::kafka::{Cluster, DecisionWatch, KafkaOptions, KafkaTopics};
use crate::log::{LogError, Topic, Topics, Verdicts};
use crate::wire::TopicNames;

use super::guarantees::{judged, topic_findings, topic_plan};

/// How long a start waits for its cluster.
const START_PATIENCE: Duration = Duration::from_secs(60);
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// The file in the data directory that says which cluster its snapshots are of.
const CLUSTER_FILE: &str = "CLUSTER";

/// The log that the daemon runs on.
pub enum LogSide {
    /// One SQLite file.
    Embedded(EmbeddedLog),
    /// A cluster.
    Kafka(OnKafka),
}

/// A cluster, and the directory that is ours.
pub struct OnKafka {
    /// The cluster.
    pub cluster: Cluster,
    /// Its topics.
    pub topics: Arc<KafkaTopics>,
    /// Its decisions.
    pub verdicts: Arc<DecisionWatch>,
    /// Guarantees that its topics do not hold, and that it runs without.
    pub given_up: Vec<String>,
    _lock: File,
}

impl LogSide {
    /// Opens the log.
    ///
    /// # Errors
    /// See the module.
    pub fn open(config: &Config) -> Result<Self, Failure> {
        match config.log.kind {
            LogKind::Embedded => Ok(Self::Embedded(EmbeddedLog::open(embedded_options(config))?)),
            LogKind::Kafka => OnKafka::open(config).map(Self::Kafka),
        }
    }

    /// The side of everyone but the shards.
    #[must_use]
    pub fn topics(&self) -> Arc<dyn Topics> {
        match self {
            Self::Embedded(log) => Arc::new(log.clone()),
            Self::Kafka(on) => on.topics.clone(),
        }
    }

    /// Where decisions of other instances are told, if there can be any.
    #[must_use]
    pub fn verdicts(&self) -> Option<Arc<dyn Verdicts>> {
        match self {
            Self::Embedded(_) => None,
            Self::Kafka(on) => Some(on.verdicts.clone()),
        }
    }

    /// Guarantees that it was told to run without.
    #[must_use]
    pub fn given_up(&self) -> Vec<String> {
        match self {
            Self::Embedded(_) => Vec::new(),
            Self::Kafka(on) => on.given_up.clone(),
        }
    }

    /// Closes it.
    pub fn close(&self) {
        match self {
            Self::Embedded(log) => log.close(),
            Self::Kafka(_) => {}
        }
    }
}

impl OnKafka {
    fn open(config: &Config) -> Result<Self, Failure> {
        let dir = &config.data_dir;
        make_private(dir).or_exit(Exit::Io, || format!("cannot make {}", dir.display()))?;
        let lock = lock_directory(dir)?;
        let cluster = cluster(config)?;
        one_cluster(&cluster, dir)?;
        let given_up = fits(&cluster, config)?;
        let topics = Arc::new(patiently(|| KafkaTopics::new(&cluster))?);
        let verdicts = Arc::new(patiently(|| DecisionWatch::start(&cluster))?);
        Ok(Self { cluster, topics, verdicts, given_up, _lock: lock })
    }
}

/// A log that a command writes to by itself: a new user, for one. It is closed when this goes.
pub struct OpenLog {
    topics: Arc<dyn Topics>,
    embedded: Option<EmbeddedLog>,
}

impl OpenLog {
    /// Opens the log of a configuration. An embedded one is made when it is not there, and is refused while a daemon has it.
    ///
    /// # Errors
    /// It cannot be opened; [`Exit::Locked`] while a daemon has it.
    pub fn open(config: &Config) -> Result<Self, Failure> {
        match config.log.kind {
            LogKind::Embedded => {
                let log = EmbeddedLog::open(embedded_options(config))?;
                Ok(Self { topics: Arc::new(log.clone()), embedded: Some(log) })
            }
            LogKind::Kafka => Ok(Self { topics: Arc::new(KafkaTopics::new(&cluster(config)?)?), embedded: None }),
        }
    }

    /// The side of everyone but the shards.
    #[must_use]
    pub fn topics(&self) -> Arc<dyn Topics> {
        self.topics.clone()
    }
}

impl Drop for OpenLog {
    fn drop(&mut self) {
        if let Some(log) = &self.embedded {
            log.close();
        }
    }
}

/// The cluster of a configuration.
///
/// # Errors
/// Its settings are refused.
pub fn cluster(config: &Config) -> Result<Cluster, Failure> {
    Cluster::new(kafka_options(config)).map_err(|failure| Failure::new(Exit::Usage, failure))
}

/// The brokers belong to one cluster, and to the one that this directory's snapshots are of.
fn one_cluster(cluster: &Cluster, dir: &Path) -> Result<(), Failure> {
    let ids = patiently(|| cluster.ids())?;
    let Some((_, id)) = ids.first() else { return Err(Failure::new(Exit::Log, "no broker names its cluster")) };
    if let Some((broker, other)) = ids.iter().find(|(_, other)| other != id) {
        let first = &ids[0].0;
        let what = format!("CLUSTERS_DIFFER: kafka.brokers names two clusters: {first} is of {id}, {broker} of {other}");
        return Err(Failure::new(Exit::Usage, what));
    }
    let path = dir.join(CLUSTER_FILE);
    match fs::read_to_string(&path) {
        Ok(known) if known.trim() == id => Ok(()),
        Ok(known) => {
            let what = format!(
                "CLUSTER_CHANGED: {} belongs to cluster {}, and kafka.brokers to {id}; name another data_dir, or the cluster of before",
                dir.display(),
                known.trim()
            );
            Err(Failure::new(Exit::Usage, what))
        }
        Err(_) => fs::write(&path, id).or_exit(Exit::Io, || format!("cannot write {}", path.display())),
    }
}

/// The topics are there, as many partitions as shards, with settings that hold the guarantees. Gives those that it runs without.
fn fits(cluster: &Cluster, config: &Config) -> Result<Vec<String>, Failure> {
    let partitions = patiently(|| cluster.partitions(Topic::Input(InputTopic::Intents)))?;
    if partitions != config.shard.count {
        let name = cluster.name(Topic::Input(InputTopic::Intents));
        let what = format!(
            "SHARDS_DIFFER: {name} has {partitions} partitions, and shard.count is {}; `ordergate topics create` makes topics, \
             and docs/RUNBOOK.md says how to change the number of shards",
            config.shard.count
        );
        return Err(Failure::new(Exit::Usage, what));
    }
    let plan = topic_plan(config);
    judged(&patiently(|| topic_findings(cluster, &plan))?, config)
}

/// Asks again while the cluster does not answer.
fn patiently<T>(ask: impl Fn() -> Result<T, LogError>) -> Result<T, Failure> {
    let deadline = Instant::now() + START_PATIENCE;
    loop {
        match ask() {
            Ok(answer) => return Ok(answer),
            Err(error @ (LogError::Busy { .. } | LogError::Io { .. })) if Instant::now() < deadline => {
                tracing::warn!(code = error.code(), %error, "waiting for the cluster");
                std::thread::sleep(RETRY_AFTER);
            }
            Err(error) => return Err(error.into()),
        }
    }
}

fn embedded_options(config: &Config) -> EmbeddedOptions {
    EmbeddedOptions {
        timestamps: match config.log.timestamps {
            config::Timestamps::Append => Timestamps::LogAppendTime,
            config::Timestamps::Producer => Timestamps::Producer,
        },
        busy_timeout_ms: config.log.busy_timeout_ms,
        ..EmbeddedOptions::new(&config.data_dir)
    }
}

/// How a cluster is reached.
#[must_use]
pub fn kafka_options(config: &Config) -> KafkaOptions {
    let kafka = &config.kafka;
    KafkaOptions {
        brokers: kafka.brokers.clone(),
        group: kafka.group.clone(),
        instance: kafka.instance.clone(),
        is_static: kafka.static_membership,
        shards: config.shard.count,
        partitioner: partitioner(config),
        names: names_of(config),
        session_timeout_ms: kafka.session_timeout_ms,
        request_timeout_ms: kafka.request_timeout_ms,
        properties: kafka.properties.clone(),
        secret_files: kafka.secret_files.clone(),
        token_file: (!kafka.token_file.as_os_str().is_empty()).then(|| kafka.token_file.clone()),
    }
}

/// How an account finds its shard.
#[must_use]
pub const fn partitioner(config: &Config) -> Partitioner {
    match config.shard.partitioner {
        config::Partitioner::Murmur2 => Partitioner::Murmur2,
        config::Partitioner::Crc32 => Partitioner::Crc32,
    }
}

/// The topics' names.
#[must_use]
pub fn names_of(config: &Config) -> TopicNames {
    let topics = config.topics.clone();
    TopicNames {
        intents: topics.intents,
        executions: topics.executions,
        prices: topics.prices,
        control: topics.control,
        ledger: topics.ledger,
        decisions: topics.decisions,
        commands: topics.commands,
        notifications: topics.notifications,
        dead_letter: topics.dead_letter,
    }
}
