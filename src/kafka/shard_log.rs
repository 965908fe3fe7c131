//! A shard's side of the log on Kafka.
//!
//! Invariant: everything that was asked for in a session is acknowledged in its order, or the session
//! fails; [`ShardLog::abandon`] drops the producers, so that nothing of an old session is sent later
//! by us. Deliberately absent: any opinion about who owns the shard.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::domain::InputTopic;
use crate::log::{
    Extent, Layout, LogError, LogEvent, OutputRecord, OutputTopic, Position, ShardLog, ShardTopic, StoredRecord, Topic, Waker,
};

use super::cluster::Cluster;
use super::error::KafkaFailure;
use super::inbox::Inbox;
use super::inputs::{Inputs, LEDGER_PATIENCE, Starts};
use super::producers::Producers;
use super::reader::Reader;

/// How long a stop waits for what is on its way.
const FLUSH: Duration = Duration::from_millis(500);

/// How often clients that nobody reads from are served.
const SERVE_EVERY: Duration = Duration::from_secs(1);

/// The log as one shard sees it.
pub struct KafkaShardLog {
    cluster: Cluster,
    layout: Layout,
    inbox: Arc<Inbox>,
    producers: Option<Producers>,
    inputs: Option<Inputs>,
    tail: Reader,
    ranges: Reader,
    served: Instant,
}

impl KafkaShardLog {
    /// The log of a shard. Its producers get ready at once.
    ///
    /// # Errors
    /// A topic is not there, the cluster cannot be asked, or the settings are refused.
    pub fn new(cluster: &Cluster, shard: u32) -> Result<Self, LogError> {
        let layout = Layout { shard, shards: cluster.options().shards, inputs: cluster.inputs_of(shard)? };
        let inbox = Arc::new(Inbox::default());
        let session = inbox.begin_session();
        Ok(Self {
            cluster: cluster.clone(),
            layout,
            producers: Some(Producers::new(cluster, &inbox, session)?),
            inputs: None,
            tail: Reader::of_tails(cluster)?,
            ranges: Reader::of_ranges(cluster)?,
            served: Instant::now(),
            inbox,
        })
    }

    /// The producers of this session.
    fn producers(&mut self) -> Result<&Producers, KafkaFailure> {
        let Self { cluster, inbox, producers, .. } = self;
        match producers {
            Some(producers) => Ok(producers),
            None => {
                let session = inbox.begin_session();
                Ok(producers.insert(Producers::new(cluster, inbox, session)?))
            }
        }
    }

    /// A client at the end says nothing when it gets nothing, not even that nobody answers it: that it is the end, the brokers must say.
    fn owner_found_nothing(&self, from: u64) -> Result<(), LogError> {
        let untold = self.inbox.ledger_looked(from);
        if untold < LEDGER_PATIENCE {
            return Ok(());
        }
        let name = self.cluster.name(Topic::Ledger);
        Err(LogError::Busy { detail: format!("where {name} {} ends was not told for {} ms", self.layout.shard, untold.as_millis()) })
    }

    fn partition_of(&self, topic: OutputTopic) -> u32 {
        match topic {
            OutputTopic::Decisions | OutputTopic::Commands | OutputTopic::Notifications => self.layout.shard,
            OutputTopic::DeadLetter => 0,
        }
    }

    fn place_of(&self, topic: ShardTopic) -> (Topic, u32) {
        match topic {
            ShardTopic::Input { topic, partition } => (Topic::Input(topic), partition),
            ShardTopic::Ledger => (Topic::Ledger, self.layout.shard),
            ShardTopic::Output(topic) => (Topic::Output(topic), self.partition_of(topic)),
        }
    }
}

fn number(partition: u32) -> i32 {
    i32::try_from(partition).unwrap_or(i32::MAX)
}

impl ShardLog for KafkaShardLog {
    fn layout(&self) -> Layout {
        self.layout.clone()
    }

    fn waker(&self) -> Waker {
        let inbox = self.inbox.clone();
        Arc::new(move || inbox.wake())
    }

    fn seek(&mut self, positions: &[Position]) -> Result<(), LogError> {
        self.inputs = None;
        let known: BTreeMap<(InputTopic, u32), u64> =
            positions.iter().map(|position| ((position.topic, position.partition), position.next)).collect();
        let mut starts = Starts::new();
        for &(topic, partition) in &self.layout.inputs {
            let Extent { first, next, .. } = self.cluster.extent(Topic::Input(topic), partition)?;
            let asked = known.get(&(topic, partition)).copied().unwrap_or(first);
            if asked < first || asked > next {
                return Err(LogError::OutOfRange { topic: Topic::Input(topic), partition, asked, first, next });
            }
            starts.push((topic, partition, asked));
        }
        self.inputs = Some(Inputs::start(&self.cluster, &self.inbox, self.layout.shard, starts)?);
        Ok(())
    }

    fn poll(&mut self, events: &mut Vec<LogEvent>, max_inputs: usize, wait: Duration) -> Result<(), LogError> {
        if self.served.elapsed() >= SERVE_EVERY {
            self.tail.serve();
            self.ranges.serve();
            self.served = Instant::now();
        }
        self.inbox.take(events, max_inputs, wait)
    }

    fn fetched(&self) -> usize {
        self.inbox.waiting()
    }

    fn append(&mut self, ticket: u64, entry: Vec<u8>) -> Result<(), LogError> {
        // Standing at the end it would fetch all that we write.
        self.tail.let_go();
        let (name, shard) = (self.cluster.name(Topic::Ledger).to_owned(), number(self.layout.shard));
        self.producers()?.append(&name, shard, ticket, &entry)
    }

    fn publish(&mut self, ticket: u64, output: OutputRecord) -> Result<(), LogError> {
        let name = self.cluster.name(Topic::Output(output.topic)).to_owned();
        let partition = number(self.partition_of(output.topic));
        self.inbox.publishing();
        self.producers()?.publish(&name, partition, ticket, &output)
    }

    fn read(&mut self, topic: ShardTopic, from: u64, limit: usize) -> Result<Vec<StoredRecord>, LogError> {
        let (place, partition) = self.place_of(topic);
        let reader = match topic {
            ShardTopic::Ledger => &mut self.tail,
            ShardTopic::Input { .. } | ShardTopic::Output(_) => &mut self.ranges,
        };
        let records = reader.read(place, partition, from, limit)?;
        if records.is_empty() && topic == ShardTopic::Ledger && self.inputs.is_some() {
            self.owner_found_nothing(from)?;
        }
        Ok(records)
    }

    fn end(&mut self, topic: ShardTopic) -> Result<u64, LogError> {
        let (topic, partition) = self.place_of(topic);
        Ok(self.cluster.extent(topic, partition)?.next)
    }

    fn seen_end(&mut self, topic: ShardTopic) -> Option<u64> {
        match topic {
            ShardTopic::Ledger => self.tail.seen_end(),
            ShardTopic::Input { topic, partition } => self.inbox.seen_end(self.cluster.name(Topic::Input(topic)), topic, partition),
            // Nobody here reads outputs on.
            ShardTopic::Output(_) => None,
        }
    }

    fn abandon(&mut self) {
        self.inputs = None;
        // Whoever stands at the end hears nothing when the client has fallen silent; who goes there anew notices.
        self.tail.let_go();
        if let Some(producers) = self.producers.take() {
            producers.abandon();
        }
        // New ones get ready while the ledger is read again.
        if let Err(error) = self.producers() {
            tracing::error!(%error, "no producers");
        }
    }
}

impl Drop for KafkaShardLog {
    fn drop(&mut self) {
        if let Some(producers) = self.producers.take() {
            producers.flush(FLUSH);
            producers.abandon();
        }
    }
}
