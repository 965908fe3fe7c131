//! The HTTP face of the daemon: records in, decisions out, topics and books to read (WIRE.md, "Over HTTP").
//!
//! Invariant: it decides nothing and holds nothing that the log does not hold; what it answers with
//! 200 is durable. Deliberately absent: identities, sessions, TLS. Until they exist it listens on
//! loopback only and answers only requests that name loopback as their host.

mod accounts;
mod body;
mod guard;
mod health;
mod intents;
mod limits;
mod measure;
mod problem;
mod query;
mod records;
mod serve;
mod topics;
pub mod v1;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{get, post};
use tokio::sync::watch;

use crate::engine::{Handle, Partitioner};
use crate::log::{Topics, Verdicts};
use crate::wire::TopicNames;

pub use health::Scrape;
pub use limits::Limits;
pub use problem::{ApiCode, Problem};
pub use serve::{serve, stopped};

use limits::Gauge;

/// The shards of this process.
pub trait Gates: Send + Sync {
    /// A shard that runs here, whether it decides or follows.
    fn shard(&self, shard: u32) -> Option<Handle>;

    /// Those that should decide here.
    fn here(&self) -> Vec<Handle>;

    /// All that run here.
    fn all(&self) -> Vec<Handle>;

    /// Why nothing is decided here, beside what the shards say of themselves.
    fn not_ready(&self) -> Vec<String>;
}

/// What every request sees.
#[derive(Clone)]
pub struct Face {
    topics: Arc<dyn Topics>,
    gates: Arc<dyn Gates>,
    partitioner: Partitioner,
    shards: u32,
    verdicts: Option<Arc<dyn Verdicts>>,
    given_up: Arc<[String]>,
    names: Arc<TopicNames>,
    limits: watch::Receiver<Arc<Limits>>,
    stop: watch::Receiver<bool>,
    bodies: Gauge,
    streams: Gauge,
}

impl Face {
    /// The face of a log of one shard. `limits` may change; `stop` ends the streams that follow.
    #[must_use]
    pub fn new(
        topics: Arc<dyn Topics>,
        gates: Arc<dyn Gates>,
        names: TopicNames,
        limits: watch::Receiver<Arc<Limits>>,
        stop: watch::Receiver<bool>,
    ) -> Self {
        Self {
            topics,
            gates,
            partitioner: Partitioner::default(),
            shards: 1,
            verdicts: None,
            given_up: Arc::new([]),
            names: Arc::new(names),
            limits,
            stop,
            bodies: Gauge::default(),
            streams: Gauge::default(),
        }
    }

    /// The face of a log of several shards, some of which other instances own.
    #[must_use]
    pub fn routed(self, partitioner: Partitioner, shards: u32, verdicts: Option<Arc<dyn Verdicts>>) -> Self {
        Self { partitioner, shards, verdicts, ..self }
    }

    /// The same, running without these guarantees: `/readyz` says so.
    #[must_use]
    pub fn forced(self, given_up: Vec<String>) -> Self {
        Self { given_up: given_up.into(), ..self }
    }

    fn limits(&self) -> Arc<Limits> {
        self.limits.borrow().clone()
    }

    /// The daemon's paths, for the listener at `listener`.
    pub fn router(self, listener: SocketAddr) -> Router {
        let hosts = guard::Hosts { listener, limits: self.limits.clone() };
        let routes = Router::new()
            .route("/api/v1/records", post(records::post))
            .route("/api/v1/intents", post(intents::post))
            .route("/api/v1/topics/{topic}/records", get(topics::get))
            .route("/api/v1/accounts/{account}", get(accounts::get))
            .route("/healthz", get(health::healthz))
            .route("/readyz", get(health::readyz))
            .with_state(self);
        guarded(routes, hosts)
    }

    /// The paths of the metrics listener: `/metrics`, and health beside it.
    pub fn metrics_router(self, scrape: Scrape, listener: SocketAddr) -> Router {
        let hosts = guard::Hosts { listener, limits: self.limits.clone() };
        let metrics = Router::new().route("/metrics", get(health::metrics)).with_state(scrape);
        let health = Router::new().route("/healthz", get(health::healthz)).route("/readyz", get(health::readyz)).with_state(self);
        guarded(metrics.merge(health), hosts)
    }
}

fn guarded(routes: Router, hosts: guard::Hosts) -> Router {
    routes
        .fallback(guard::unknown_path)
        .method_not_allowed_fallback(guard::unknown_method)
        .layer(from_fn_with_state(hosts, guard::only_this_machine))
        .layer(from_fn(measure::requests))
}
