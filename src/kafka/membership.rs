//! The group that spreads the shards over the instances.
//!
//! Invariant: it suggests and nothing more: a shard is ours when the ledger says so. A shard that is
//! taken away is finished before the group hears that it is free. Everything assigned is paused: this
//! consumer reads nothing. Deliberately absent: offsets.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer, Rebalance};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::domain::InputTopic;
use crate::log::Topic;

use super::client::{Context, Listener};
use super::cluster::Cluster;
use super::error::not_created;
use super::settings::{Role, client_config};
use super::unassigned;

/// How often the group is served.
const POLL: Duration = Duration::from_millis(100);
/// When it is tried again to join with another client.
const RETRY_AFTER: Duration = Duration::from_secs(1);

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
    watch: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Membership {
    /// Joins the group.
    ///
    /// # Errors
    /// [`GroupError`].
    pub fn join(cluster: &Cluster, assignment: Arc<dyn Assignment>) -> Result<Self, GroupError> {
        let joined = Arc::new(AtomicBool::new(false));
        let member = Member { assignment, joined: joined.clone(), fenced: Arc::default() };
        let consumer = consumer(cluster, member.clone())?;
        let stop = Arc::new(AtomicBool::new(false));
        let (served, watched, stopped) = (cluster.clone(), cluster.clone(), stop.clone());
        let serve = move || serve(&served, &member, consumer, &stopped);
        let thread = thread::Builder::new().name("kafka-group".into()).spawn(serve).map_err(GroupError::Thread)?;
        let (watching, stopped) = mpsc::channel();
        let mut joined = Self { stop, joined, thread: Some(thread), watch: None };
        let watch = move || unassigned::watch(&watched, &stopped);
        let watch = thread::Builder::new().name("kafka-unassigned".into()).spawn(watch).map_err(GroupError::Thread)?;
        joined.watch = Some((watching, watch));
        Ok(joined)
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
        let watch = self.watch.take().map(|(watching, watch)| {
            drop(watching);
            watch
        });
        for thread in [self.thread.take(), watch].into_iter().flatten() {
            if thread.join().is_err() {
                tracing::error!("a thread of the group panicked");
            }
        }
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.end();
    }
}

fn consumer(cluster: &Cluster, member: Member) -> Result<BaseConsumer<Context<Member>>, GroupError> {
    let made = client_config(cluster.options(), Role::Membership)?.create_with_context(cluster.context(member));
    let consumer: BaseConsumer<Context<Member>> = made.map_err(|error| not_created(&error))?;
    consumer.subscribe(&[cluster.name(Topic::Input(InputTopic::Intents))]).map_err(GroupError::Join)?;
    Ok(consumer)
}

fn serve(cluster: &Cluster, member: &Member, first: BaseConsumer<Context<Member>>, stop: &AtomicBool) {
    let mut kept = Some(first);
    while !stop.load(Ordering::Relaxed) {
        let Some(serving) = &kept else {
            match consumer(cluster, member.clone()) {
                Ok(other) => kept = Some(other),
                Err(error) => {
                    tracing::warn!(%error, "the group cannot be joined again yet");
                    thread::sleep(RETRY_AFTER);
                }
            }
            continue;
        };
        match serving.poll(POLL) {
            // Fetched before it was paused.
            Some(Ok(_)) | None => {}
            Some(Err(error)) => member.heard(&error),
        }
        // Whoever is fenced and joins again would fence the other.
        if serving.context().is_useless() && !member.fenced.load(Ordering::Relaxed) {
            // Its end takes the shards away, and the next one is given them again.
            kept = None;
        }
    }
}

/// Hears of assignments, on the thread that serves the group.
#[derive(Clone)]
struct Member {
    assignment: Arc<dyn Assignment>,
    joined: Arc<AtomicBool>,
    fenced: Arc<AtomicBool>,
}

impl Member {
    fn heard(&self, error: &KafkaError) {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::Fatal | RDKafkaErrorCode::FencedInstanceId) => {
                self.fenced.store(true, Ordering::Relaxed);
                self.assignment.fenced();
            }
            Some(_) | None => tracing::debug!(%error, "group"),
        }
    }
}

impl Listener for Member {
    fn error(&self, error: &KafkaError) {
        self.heard(error);
    }

    fn rebalancing(&self, consumer: &BaseConsumer<Context<Self>>, rebalance: &Rebalance<'_>) {
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

    fn rebalanced(&self, consumer: &BaseConsumer<Context<Self>>, rebalance: &Rebalance<'_>) {
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
