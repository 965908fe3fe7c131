//! Making the topics that are missing.
//!
//! Invariant: what exists stays as it is, whoever made it, also when someone makes it at the same time.

use std::thread;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminOptions, NewTopic, TopicReplication};
use rdkafka::error::RDKafkaErrorCode;
use serde::Serialize;

use crate::log::{LogError, Topic};

use super::super::error::log_error;
use super::look::{Seen, Unseen};
use super::wanted::Plan;
use super::{Admin, CREATE_PATIENCE};

/// How soon it is looked again.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// What became of a topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Creation {
    /// Its name in the cluster.
    pub topic: String,
    /// `exists`, `created`, `would be created`, or `refused`.
    pub outcome: &'static str,
    /// Its partitions, as they are or are made.
    pub partitions: u32,
    /// Its replicas, as they are or are made.
    pub replicas: usize,
    /// Why it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// Why a topic was not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotCreated {
    /// More replicas than brokers.
    #[error("{replicas} replicas are more than the {brokers} brokers that are there: start more, or give --replication {brokers}")]
    Replicas {
        /// Asked for.
        replicas: usize,
        /// As many as there are.
        brokers: usize,
    },
    /// The cluster does not know a setting, or not this value of it.
    #[error("the cluster refuses one of its settings ({settings}): it is older than Kafka 3.0, or not Kafka")]
    Settings {
        /// What was asked for.
        settings: String,
    },
    /// A policy of the cluster forbids it.
    #[error("a policy of the cluster (create.topic.policy.class.name) forbids it: have its operators make it with {settings}")]
    Policy {
        /// What was asked for.
        settings: String,
    },
    /// We may not.
    #[error(
        "the right CREATE on the topic or the cluster is missing: kafka-acls.sh --add --allow-principal User:YOU --operation Create --topic {topic}"
    )]
    Forbidden {
        /// Its name.
        topic: String,
    },
    /// The number of partitions is refused.
    #[error("the cluster refuses {partitions} partitions")]
    Partitions {
        /// Asked for.
        partitions: u32,
    },
    /// The name is refused.
    #[error("{topic} is no name for a topic there: set another one in [topics]")]
    Name {
        /// Its name.
        topic: String,
    },
    /// No answer in time: it may exist by now.
    #[error("the cluster did not say so in time; it may exist by now: ask again")]
    Late,
    /// Anything else.
    #[error("{code}")]
    Failed {
        /// What the cluster said.
        code: RDKafkaErrorCode,
    },
}

/// A topic to make.
struct Wanted {
    name: String,
    partitions: u32,
    replicas: usize,
    settings: Vec<(&'static str, String)>,
}

impl Admin {
    /// Makes what is missing, or says what it would make.
    ///
    /// # Errors
    /// The cluster cannot be asked. What it refuses is in the answer.
    pub fn create(&self, plan: &Plan, seen: &Seen, dry_run: bool) -> Result<Vec<Creation>, LogError> {
        let wanted: Vec<Wanted> =
            Topic::ALL.into_iter().filter(|topic| is_missing(seen, *topic)).map(|topic| wanted(plan, seen, topic)).collect();
        let mut creations: Vec<Creation> = Topic::ALL.into_iter().filter_map(|topic| existing(plan, seen, topic)).collect();
        if wanted.is_empty() {
            return Ok(creations);
        }
        let topics: Vec<NewTopic<'_>> = wanted.iter().map(Wanted::as_new).collect();
        let options = AdminOptions::new().request_timeout(Some(CREATE_PATIENCE)).operation_timeout(Some(CREATE_PATIENCE));
        let answer = self.waits.block_on(self.client.create_topics(&topics, &options.validate_only(dry_run)));
        let answer = answer.map_err(|error| log_error(&error, "making topics"))?;
        creations.extend(wanted.iter().zip(answer).map(|(wanted, told)| {
            let failed = told.err().map(|(_, code)| code);
            wanted.creation(failed, dry_run, seen.brokers.len())
        }));
        Ok(creations)
    }
}

impl Admin {
    /// What the cluster says once it knows of everything that was made: brokers hear of a topic a moment after it is made.
    ///
    /// # Errors
    /// The cluster cannot be asked.
    pub fn look_after(&self, creations: &[Creation]) -> Result<Seen, LogError> {
        let deadline = Instant::now() + CREATE_PATIENCE;
        loop {
            let seen = self.look()?;
            let is_known = |topic: Topic| {
                seen.topics.get(&topic).is_some_and(|found| found.is_led() && found.settings.as_ref().is_ok_and(|told| !told.is_empty()))
            };
            let made = |topic: &Topic| creations.iter().any(|made| made.topic == self.cluster.name(*topic) && made.outcome == "created");
            if Instant::now() >= deadline || Topic::ALL.into_iter().filter(made).all(is_known) {
                return Ok(seen);
            }
            thread::sleep(LOOK_AGAIN);
        }
    }
}

fn is_missing(seen: &Seen, topic: Topic) -> bool {
    seen.topics.get(&topic).is_none_or(|found| found.partitions.is_empty() && found.settings != Err(Unseen::Forbidden))
}

fn existing(plan: &Plan, seen: &Seen, topic: Topic) -> Option<Creation> {
    let found = seen.topics.get(&topic).filter(|_| !is_missing(seen, topic))?;
    Some(Creation {
        topic: topic.name_in(&plan.names).to_owned(),
        outcome: "exists",
        partitions: u32::try_from(found.partitions.len()).unwrap_or(u32::MAX),
        replicas: found.partitions.iter().map(|partition| partition.replicas.len()).min().unwrap_or(0),
        refused: None,
    })
}

fn wanted(plan: &Plan, seen: &Seen, topic: Topic) -> Wanted {
    let replicas = plan.replicas(seen.brokers.len());
    let name = topic.name_in(&plan.names).to_owned();
    Wanted { name, partitions: plan.partitions_made(topic), replicas, settings: plan.settings(topic, replicas) }
}

impl Wanted {
    fn as_new(&self) -> NewTopic<'_> {
        let partitions = i32::try_from(self.partitions).unwrap_or(i32::MAX);
        let replicas = i32::try_from(self.replicas).unwrap_or(i32::MAX);
        let new = NewTopic::new(&self.name, partitions, TopicReplication::Fixed(replicas));
        self.settings.iter().fold(new, |new, (name, value)| new.set(name, value))
    }

    fn creation(&self, failed: Option<RDKafkaErrorCode>, dry_run: bool, brokers: usize) -> Creation {
        let outcome = match failed {
            None if dry_run => "would be created",
            None => "created",
            // Someone was faster.
            Some(RDKafkaErrorCode::TopicAlreadyExists) => "exists",
            Some(_) => "refused",
        };
        let refused = failed.filter(|_| outcome == "refused").map(|code| self.refusal(code, brokers).to_string());
        Creation { topic: self.name.clone(), outcome, partitions: self.partitions, replicas: self.replicas, refused }
    }

    /// What an error of the cluster means for this topic.
    fn refusal(&self, code: RDKafkaErrorCode, brokers: usize) -> NotCreated {
        use RDKafkaErrorCode as C;
        match code {
            C::InvalidReplicationFactor | C::InvalidReplicaAssignment => NotCreated::Replicas { replicas: self.replicas, brokers },
            C::InvalidConfig | C::InvalidRequest => NotCreated::Settings { settings: self.spelled() },
            C::PolicyViolation => NotCreated::Policy { settings: self.spelled() },
            C::TopicAuthorizationFailed | C::ClusterAuthorizationFailed => NotCreated::Forbidden { topic: self.name.clone() },
            C::InvalidPartitions => NotCreated::Partitions { partitions: self.partitions },
            C::InvalidTopic => NotCreated::Name { topic: self.name.clone() },
            C::RequestTimedOut | C::OperationTimedOut => NotCreated::Late,
            code => NotCreated::Failed { code },
        }
    }

    fn spelled(&self) -> String {
        let each: Vec<String> = self.settings.iter().map(|(name, value)| format!("{name}={value}")).collect();
        each.join(",")
    }
}
