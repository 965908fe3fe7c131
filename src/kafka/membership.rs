//! The group that spreads the shards over the instances.
//!
//! Invariant: it suggests and nothing more: a shard is ours when the ledger says so. A shard that is
//! taken away is finished before the group hears that it is free. Everything assigned is paused: this
//! consumer reads nothing. Deliberately absent: offsets.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::statistics::Statistics;

use crate::domain::InputTopic;
use crate::log::Topic;

use super::client;
use super::cluster::Cluster;
use super::error::not_created;
use super::settings::{Role, client_config};

/// How often the group is served.
const POLL: Duration = Duration::from_millis(100);

/// Who is told which shards are this instance's.
pub trait Assignment: Send + Sync {
    /// These are ours from now on.
    fn assigned(&self, shards: &[u32]);

    /// These are ours no longer. Returns when they are finished, or will not be (`lost`: the group
    /// gave them away already).
    fn revoked(&self, shards: &[u32], lost: bool);

    /// Another instance has our name: the group will not have us any more.
    fn fenced(&self);
}

/// Why an instance cannot take part.
#[derive(Debug, thiserror::Error)]
pub enum GroupError {
    /// The settings are refused.
    #[error(transparent)]
    Settings(#[from] super::error::KafkaFailure),
    /// The thread cannot be started.
    #[error("cannot start the group's thread: {0}")]
    Thread(std::io::Error),
    /// The group cannot be joined.
    #[error("cannot join the group: {0}")]
    Join(KafkaError),
}

/// Membership in the group. Dropping it leaves.
pub struct Membership {
    stop: Arc<AtomicBool>,
    joined: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Membership {
    /// Joins the group.
    ///
    /// # Errors
    /// [`GroupError`].
    pub fn join(cluster: &Cluster, assignment: Arc<dyn Assignment>) -> Result<Self, GroupError> {
        let joined = Arc::new(AtomicBool::new(false));
        let member = Member { assignment, joined: joined.clone(), token_file: cluster.options().token_file.clone() };
        let config = client_config(cluster.options(), Role::Membership)?;
        let consumer: BaseConsumer<Member> = config.create_with_context(member).map_err(|error| not_created(&error))?;
        consumer.subscribe(&[cluster.name(Topic::Input(InputTopic::Intents))]).map_err(GroupError::Join)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let serve = move || serve(&consumer, &stopped);
        let thread = thread::Builder::new().name("kafka-group".into()).spawn(serve).map_err(GroupError::Thread)?;
        Ok(Self { stop, joined, thread: Some(thread) })
    }

    /// Whether the group has told what is ours, be it nothing.
    #[must_use]
    pub fn has_joined(&self) -> bool {
        self.joined.load(Ordering::Relaxed)
    }

    /// Leaves the group: what is still ours is finished first.
    pub fn leave(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the group's thread panicked");
        }
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.end();
    }
}

fn serve(consumer: &BaseConsumer<Member>, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        match consumer.poll(POLL) {
            // Fetched before it was paused.
            Some(Ok(_)) | None => {}
            Some(Err(error)) => consumer.context().heard(&error),
        }
    }
}

/// Hears of assignments, on the thread that serves the group.
struct Member {
    assignment: Arc<dyn Assignment>,
    joined: Arc<AtomicBool>,
    token_file: Option<std::path::PathBuf>,
}

impl Member {
    fn heard(&self, error: &KafkaError) {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::Fatal | RDKafkaErrorCode::FencedInstanceId) => self.assignment.fenced(),
            Some(_) | None => tracing::debug!(%error, "group"),
        }
    }
}

impl ClientContext for Member {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        client::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        client::report(&error, reason);
        self.heard(&error);
    }

    fn stats(&self, _statistics: Statistics) {}

    fn generate_oauth_token(&self, _config: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        client::token(self.token_file.as_ref())
    }
}

impl ConsumerContext for Member {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Revoke(partitions) => {
                let (shards, lost) = (shards(partitions), consumer.assignment_lost());
                tracing::info!(?shards, lost, "the group takes shards away");
                self.assignment.revoked(&shards, lost);
            }
            Rebalance::Error(error) => tracing::warn!(%error, "the group's rebalance failed"),
            Rebalance::Assign(_) => {}
        }
    }

    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let Rebalance::Assign(partitions) = rebalance else { return };
        if let Err(error) = consumer.pause(partitions) {
            tracing::warn!(%error, "the group's consumer could not be paused, and reads what it does not need");
        }
        let shards = shards(partitions);
        tracing::info!(?shards, "the group gives shards");
        self.joined.store(true, Ordering::Relaxed);
        self.assignment.assigned(&shards);
    }
}

fn shards(partitions: &TopicPartitionList) -> Vec<u32> {
    let mut shards: Vec<u32> = partitions.elements().iter().filter_map(|element| u32::try_from(element.partition()).ok()).collect();
    shards.sort_unstable();
    shards
}
