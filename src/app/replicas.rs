//! The replicas behind the API, and what is fed by them.
//!
//! Invariant: they read the log like anyone else; they are stopped before the log is closed.

use std::sync::Arc;
use std::time::Duration;

use axum::middleware::from_fn_with_state;
use utoipa_axum::router::OpenApiRouter;

use super::Shards;
use super::claimant_of;
use super::control::Trails;
use super::log_side::{LogSide, partitioner};
use crate::api::Gates;
use crate::api::positions::{Answered, Inputs, Raising, Reader, arrived};
use crate::api::v1::books::{Books, Committed, aged};
use crate::api::v1::books_routes;
use crate::api::v1::system::{self, System};
use crate::api::v1::turns::Turns;
use crate::api::v1::ws::hub::Hub;
use crate::cli::{Exit, Failure, OrExit};
use crate::config::Config;
use crate::control::commands::Commands;
use crate::control::decisions::{Decisions, IndexOptions};
use crate::control::replica::{Listener, ReplicaOptions, Replicas};
use crate::engine::{NoSnapshots, SnapshotStore};
use crate::log::{Topic, Topics};
use crate::snapshot::{self, SledSnapshots};

/// What a replica's snapshots may keep in memory.
const SNAPSHOT_CACHE_BYTES: u64 = 1 << 20;

/// The replicas, and what is fed by them.
#[derive(Clone)]
pub struct Followers {
    pub replicas: Arc<Replicas>,
    decisions: Arc<Decisions>,
    pub books: Arc<Books>,
    pub system: Arc<System>,
    pub hub: Arc<Hub>,
    pub raising: Arc<Raising>,
}

impl Followers {
    /// Starts them.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn start(log: &LogSide, config: &Config, shards: &Arc<Shards>, trails: &Trails) -> Result<Self, Failure> {
        let topics = log.topics();
        let count = config.shard.count;
        let stores = (0..count).map(|shard| store(config, shard)).collect::<Result<Vec<_>, Failure>>()?;
        let decisions = Decisions::open(IndexOptions::new(config.data_dir.join("decisions"), count), topics.clone());
        let hub = Hub::new(count);
        let raising = Raising::new(count);
        // The index is told first: what the hub has told of can be read there.
        let listeners: Vec<Arc<dyn Listener>> = vec![decisions.clone(), hub.clone(), raising.clone()];
        let replicas = Replicas::start(&topics, stores, listeners, &ReplicaOptions::default());
        let replicas = replicas.or_exit(Exit::Io, || "cannot start the replicas' threads".to_owned())?;
        let patience = Duration::from_millis(config.http.request_timeout_ms);
        let commands = Arc::new(Commands::new(topics.clone(), replicas.clone(), patience).audited(trails.audit.clone()));
        let books = Arc::new(Books {
            replicas: replicas.clone(),
            commands,
            decisions: decisions.clone(),
            directory: trails.directory.clone(),
            pairs: Arc::new((0..count).map(|_| std::sync::Mutex::default()).collect()),
            partitioner: partitioner(config),
            turns: Turns::of_this_machine(),
            committed: committed(log, topics, shards.clone()),
        });
        let (instance, claimant) = (config.kafka.instance.clone(), claimant_of(config));
        let system = Arc::new(System { books: books.clone(), gates: shards.clone(), instance, claimant });
        Ok(Self { replicas, decisions, books, system, hub, raising })
    }

    /// Their paths of the API.
    pub fn areas(&self, answered: Arc<Answered>) -> Vec<OpenApiRouter> {
        let inputs = Inputs::new(Reader::Books(self.replicas.clone()), answered);
        let books = books_routes().layer(from_fn_with_state(self.books.clone(), aged));
        let books = books.layer(from_fn_with_state(inputs, arrived)).with_state(self.books.clone());
        vec![books, system::routes().with_state(self.system.clone())]
    }

    /// Stops them.
    pub fn stop(&self) {
        self.replicas.stop();
        self.decisions.stop();
    }
}

fn store(config: &Config, shard: u32) -> Result<Box<dyn SnapshotStore>, Failure> {
    if !config.snapshot.enabled {
        return Ok(Box::new(NoSnapshots));
    }
    let options = snapshot::Options {
        dir: config.data_dir.join("replicas"),
        shard,
        cache_bytes: SNAPSHOT_CACHE_BYTES,
        broken_kept_max: config.snapshot.broken_kept_max,
    };
    Ok(Box::new(SledSnapshots::start(options).or_exit(Exit::Io, || "cannot start a replica's snapshots".to_owned())?))
}

/// The embedded log knows its end at once; of a cluster, only what our own shards have seen is known without asking it.
fn committed(log: &LogSide, topics: Arc<dyn Topics>, shards: Arc<Shards>) -> Committed {
    match log {
        LogSide::Embedded(_) => Arc::new(move |shard| topics.extent(Topic::Ledger, shard).ok().map(|extent| extent.next)),
        LogSide::Kafka(_) => Arc::new(move |shard| shards.shard(shard).map(|handle| handle.status().ledger_next)),
    }
}
