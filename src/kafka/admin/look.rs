//! What the cluster says of its brokers and of our topics.
//!
//! Invariant: a topic that is not there is told from one that may not be seen. Metadata is asked for
//! all topics at once: asking for one by name could make it where brokers make topics by themselves.

use std::collections::{BTreeMap, BTreeSet};

use rdkafka::admin::{ConfigResource, OwnedResourceSpecifier, ResourceSpecifier};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::metadata::{Metadata, MetadataTopic};
use rdkafka::producer::Producer;

use crate::log::{LogError, Topic};

use super::super::cluster::is_absent;
use super::super::error::log_error;
use super::Admin;

/// A broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenBroker {
    /// Its number.
    pub id: i32,
    /// Where clients find it.
    pub host: String,
    /// And at which port.
    pub port: i32,
}

/// A partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeenPartition {
    /// Its number.
    pub id: i32,
    /// The broker that leads it; below 0 when none does.
    pub leader: i32,
    /// The brokers that should have it.
    pub replicas: Vec<i32>,
    /// Those that have all of it.
    pub in_sync: Vec<i32>,
}

/// Why something about a topic is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unseen {
    /// We may not.
    #[error("the cluster does not let us: the right DESCRIBE_CONFIGS (and DESCRIBE) on the topic is missing")]
    Forbidden,
    /// The client library's admin client takes no token (SASL OAUTHBEARER).
    #[error("they cannot be asked for with a token: the admin client of this library takes none")]
    NoToken,
    /// It failed otherwise.
    #[error("{code}")]
    Failed {
        /// What the cluster said.
        code: RDKafkaErrorCode,
    },
}

/// A topic's settings in effect, empty where there is no such topic; or why they are not known.
pub type Told = Result<BTreeMap<String, String>, Unseen>;

/// A topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenTopic {
    /// Its partitions; none where there is no such topic, or where it may not be seen.
    pub partitions: Vec<SeenPartition>,
    /// Its settings in effect.
    pub settings: Told,
}

impl SeenTopic {
    /// Whether it is there, and every partition has a leader.
    #[must_use]
    pub fn is_led(&self) -> bool {
        !self.partitions.is_empty() && self.partitions.iter().all(|partition| partition.leader >= 0)
    }
}

/// What the cluster says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The brokers that are there now.
    pub brokers: Vec<SeenBroker>,
    /// Our topics.
    pub topics: BTreeMap<Topic, SeenTopic>,
}

impl Seen {
    /// The brokers that can have replicas: those there now, and those that have some.
    #[must_use]
    pub fn broker_ids(&self) -> BTreeSet<i32> {
        let partitions = self.topics.values().flat_map(|topic| &topic.partitions);
        let holders = partitions.flat_map(|partition| partition.replicas.iter().copied());
        self.brokers.iter().map(|broker| broker.id).chain(holders).collect()
    }
}

impl Admin {
    /// Asks for everything.
    ///
    /// # Errors
    /// The cluster cannot be asked.
    pub fn look(&self) -> Result<Seen, LogError> {
        let metadata = self.cluster.admin().client().fetch_metadata(None, self.cluster.patience());
        let metadata = metadata.map_err(|error| log_error(&error, "asking for the topics"))?;
        let settings = self.settings()?;
        let brokers =
            metadata.brokers().iter().map(|broker| SeenBroker { id: broker.id(), host: broker.host().into(), port: broker.port() });
        let brokers = brokers.collect();
        let seen = |(topic, settings)| (topic, SeenTopic { partitions: partitions(&metadata, self.cluster.name(topic)), settings });
        Ok(Seen { brokers, topics: settings.into_iter().map(seen).collect() })
    }

    fn settings(&self) -> Result<BTreeMap<Topic, Told>, LogError> {
        if self.cluster.options().uses_tokens() {
            return Ok(Topic::ALL.into_iter().map(|topic| (topic, Err(Unseen::NoToken))).collect());
        }
        let wanted: Vec<_> = Topic::ALL.iter().map(|topic| ResourceSpecifier::Topic(self.cluster.name(*topic))).collect();
        let answer = self.waits.block_on(self.client.describe_configs(&wanted, &self.options()));
        let answer = answer.map_err(|error| log_error(&error, "asking for the topics' settings"))?;
        Ok(Topic::ALL.into_iter().zip(answer).map(|(topic, told)| (topic, self.told(topic, told))).collect())
    }

    fn told(&self, topic: Topic, told: Result<ConfigResource, RDKafkaErrorCode>) -> Told {
        match told {
            Ok(resource) => {
                // Answers come in the order of the questions; one of another topic is no answer.
                if resource.specifier != OwnedResourceSpecifier::Topic(self.cluster.name(topic).to_owned()) {
                    return Err(Unseen::Failed { code: RDKafkaErrorCode::BadMessage });
                }
                Ok(resource.entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?))).collect())
            }
            Err(code) if is_absent(code) => Ok(BTreeMap::new()),
            Err(RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::ClusterAuthorizationFailed) => Err(Unseen::Forbidden),
            Err(code) => Err(Unseen::Failed { code }),
        }
    }
}

fn partitions(metadata: &Metadata, name: &str) -> Vec<SeenPartition> {
    let found = metadata.topics().iter().find(|topic| topic.name() == name);
    let mut partitions: Vec<_> = found.map(MetadataTopic::partitions).unwrap_or_default().iter().map(partition).collect();
    partitions.sort_by_key(|partition| partition.id);
    partitions
}

fn partition(partition: &rdkafka::metadata::MetadataPartition) -> SeenPartition {
    SeenPartition {
        id: partition.id(),
        leader: partition.leader(),
        replicas: partition.replicas().to_vec(),
        in_sync: partition.isr().to_vec(),
    }
}
