//! One cluster: questions about its topics, asked on a connection of their own.
//!
//! Invariant: never asked of a client that fetches, since the answer would wait behind its long poll.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::Producer;

use crate::domain::InputTopic;
use crate::log::{Extent, LogError, Topic};
use crate::wire::TopicNames;

use super::KafkaOptions;
use super::client::{Context, Listener, Nobody};
use super::error::{KafkaFailure, log_error, not_created};
use super::polled::Polled;
use super::settings::{Role, client_config};

/// How long a new consumer is served, so that it asks for its token.
const TOKEN_WAIT: Duration = Duration::from_millis(20);

/// The client that asks.
pub(super) type Asking = Polled<Nobody>;

/// A cluster as the gate uses it. Copies share one connection.
#[derive(Clone)]
pub struct Cluster {
    inner: Arc<Inner>,
}

struct Inner {
    options: KafkaOptions,
    /// Served by a thread of its own: errors and tokens wait for that.
    admin: Mutex<Arc<Asking>>,
}

impl Cluster {
    /// A cluster that nothing was asked of yet.
    ///
    /// # Errors
    /// The settings are refused, or a secret cannot be read.
    pub fn new(options: KafkaOptions) -> Result<Self, KafkaFailure> {
        let admin = Mutex::new(Arc::new(asking(&options)?));
        Ok(Self { inner: Arc::new(Inner { options, admin }) })
    }

    /// How it is reached.
    #[must_use]
    pub fn options(&self) -> &KafkaOptions {
        &self.inner.options
    }

    /// How long one question may take.
    #[must_use]
    pub fn patience(&self) -> Duration {
        Duration::from_millis(self.inner.options.request_timeout_ms)
    }

    /// Where a topic is called what it is called here.
    #[must_use]
    pub fn name(&self, topic: Topic) -> &str {
        topic.name_in(&self.inner.options.names)
    }

    /// The id of the cluster of each broker that is named and answers.
    ///
    /// # Errors
    /// None answers, or the settings are refused.
    pub fn ids(&self) -> Result<Vec<(String, String)>, LogError> {
        let (mut ids, mut denial) = (Vec::new(), None);
        for broker in self.options().brokers.split(',').map(str::trim).filter(|broker| !broker.is_empty()) {
            let alone = KafkaOptions { brokers: broker.to_owned(), ..self.options().clone() };
            let asked = Self::new(alone)?;
            let admin = asked.admin();
            match admin.client().fetch_cluster_id(asked.patience()) {
                Some(id) => ids.push((broker.to_owned(), id)),
                None => {
                    tracing::warn!(broker, "the broker does not answer");
                    denial = admin.context().denial().or(denial);
                }
            }
        }
        match denial {
            Some(detail) if ids.is_empty() => Err(LogError::Denied { detail }),
            None if ids.is_empty() => Err(LogError::Busy { detail: format!("no broker of {} answers", self.options().brokers) }),
            Some(_) | None => Ok(ids),
        }
    }

    /// The number of partitions of a topic; 0 where there is no such topic.
    ///
    /// # Errors
    /// The cluster cannot be asked.
    pub fn partitions(&self, topic: Topic) -> Result<u32, LogError> {
        let name = self.name(topic);
        let metadata = self.admin().client().fetch_metadata(Some(name), self.patience());
        let metadata = metadata.map_err(|error| log_error(&error, &format!("asking for {name}")))?;
        let Some(found) = metadata.topics().iter().find(|found| found.name() == name) else { return Ok(0) };
        match found.error().map(RDKafkaErrorCode::from) {
            None => Ok(u32::try_from(found.partitions().len()).unwrap_or(0)),
            Some(code) if is_absent(code) => Ok(0),
            Some(code) => Err(log_error(&KafkaError::MetadataFetch(code), &format!("asking for {name}"))),
        }
    }

    /// The first offset that is kept and the next one of a partition.
    ///
    /// # Errors
    /// The cluster cannot be asked, or there is no such partition.
    pub fn extent(&self, topic: Topic, partition: u32) -> Result<Extent, LogError> {
        let name = self.name(topic);
        let number = i32::try_from(partition).unwrap_or(i32::MAX);
        match self.admin().client().fetch_watermarks(name, number, self.patience()) {
            Ok((first, next)) => Ok(Extent { topic, partition, first: offset(first), next: offset(next) }),
            Err(error) => match error.rdkafka_error_code() {
                Some(code) if is_absent(code) => Err(self.absence(topic, partition)),
                Some(_) | None => Err(log_error(&error, &format!("asking for the ends of {name} {partition}"))),
            },
        }
    }

    /// Why a partition is not to be found: librdkafka says the same of one that has no leader just now.
    pub(super) fn absence(&self, topic: Topic, partition: u32) -> LogError {
        match self.partitions(topic) {
            Ok(count) if partition < count => LogError::Busy { detail: format!("{} {partition} has no leader", self.name(topic)) },
            Ok(_) => LogError::NoSuchPartition { topic, partition },
            Err(error) => error,
        }
    }

    /// What a shard reads.
    ///
    /// # Errors
    /// The cluster cannot be asked, or a topic is not there.
    pub fn inputs_of(&self, shard: u32) -> Result<Vec<(InputTopic, u32)>, LogError> {
        let mut inputs = vec![(InputTopic::Intents, shard), (InputTopic::Executions, shard)];
        let count = self.partitions(Topic::Input(InputTopic::Prices))?;
        if count == 0 {
            return Err(LogError::NoSuchPartition { topic: Topic::Input(InputTopic::Prices), partition: 0 });
        }
        inputs.extend((0..count).map(|partition| (InputTopic::Prices, partition)));
        inputs.push((InputTopic::Control, 0));
        Ok(inputs)
    }

    /// A consumer for these topics. It learns their leaders now: a partition of a topic that it does
    /// not know yet would wait for its next look around, up to a second.
    pub(super) fn consumer<L: Listener>(
        &self,
        role: Role,
        listener: L,
        topics: &[Topic],
    ) -> Result<BaseConsumer<Context<L>>, KafkaFailure> {
        let made = client_config(self.options(), role)?.create_with_context(self.context(listener));
        let made: BaseConsumer<Context<L>> = made.map_err(|error| not_created(&error))?;
        if self.options().uses_tokens() {
            // Its first token is asked for here; without one it knows nobody.
            drop(made.poll(TOKEN_WAIT));
        }
        for topic in topics {
            if let Err(error) = made.fetch_metadata(Some(self.name(*topic)), self.patience()) {
                tracing::debug!(%error, %topic, "a new consumer does not know the topic yet");
                break;
            }
        }
        Ok(made)
    }

    /// The context of a client of ours.
    pub(super) fn context<L: Listener>(&self, listener: L) -> Context<L> {
        Context::new(self.inner.options.token_file.clone(), listener)
    }

    /// The client that only asks.
    pub(super) fn admin(&self) -> Arc<Asking> {
        let mut admin = self.inner.admin.lock().unwrap_or_else(PoisonError::into_inner);
        if admin.context().is_useless()
            && let Ok(other) = asking(&self.inner.options)
        {
            *admin = Arc::new(other);
        }
        admin.clone()
    }

    /// The topics' names.
    #[must_use]
    pub fn names(&self) -> &TopicNames {
        &self.inner.options.names
    }
}

fn asking(options: &KafkaOptions) -> Result<Asking, KafkaFailure> {
    let context = Context::new(options.token_file.clone(), Nobody);
    Polled::new(options, Role::Admin, context)
}

/// An offset as we count them.
pub(super) fn offset(offset: i64) -> u64 {
    u64::try_from(offset).unwrap_or(0)
}

/// Whether a topic or a partition is not there.
pub(super) fn is_absent(code: rdkafka::types::RDKafkaErrorCode) -> bool {
    use rdkafka::types::RDKafkaErrorCode as C;
    matches!(code, C::UnknownTopicOrPartition | C::UnknownTopic | C::UnknownPartition | C::UnknownTopicId)
}

/// Asks a consumer to keep nothing assigned.
pub(super) fn unassign<L: Listener>(consumer: &BaseConsumer<Context<L>>) {
    if let Err(error) = consumer.unassign() {
        tracing::debug!(%error, "a consumer keeps its assignment");
    }
}
