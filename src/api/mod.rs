//! The HTTP face of the daemon: records in, decisions out, topics and books to read (WIRE.md, "Over HTTP").
//!
//! Invariant: it decides nothing and holds nothing that the log does not hold; what it answers with
//! 200 is durable. Without users it listens on loopback only, and answers only requests that name
//! loopback as their host. Deliberately absent: what a right is; `control::people` knows.

mod body;
pub mod caller;
mod guard;
mod headers;
mod health;
mod intents;
mod limits;
mod measure;
mod noted;
pub mod positions;
mod problem;
mod query;
mod rate;
mod records;
mod serve;
pub mod tls;
mod to_the_end;
mod topics;
mod unread;
pub mod v1;

use std::sync::Arc;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::get;
use tokio::sync::watch;

use crate::control::audit::Audit;
use crate::control::replica::Replicas;
use crate::engine::Handle;
use crate::log::{Topics, Verdicts};
use crate::wire::TopicNames;

pub use health::Scrape;
pub use limits::Limits;
pub use problem::{ApiCode, Problem};
pub use rate::Rates;
pub use serve::{Listening, serve, stopped};

use caller::Door;
use limits::Gauge;
use positions::Answered;

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
    verdicts: Option<Arc<dyn Verdicts>>,
    given_up: Arc<[String]>,
    names: Arc<TopicNames>,
    limits: watch::Receiver<Arc<Limits>>,
    stop: watch::Receiver<bool>,
    bodies: Gauge,
    streams: Gauge,
    door: Door,
    replicas: Option<Arc<Replicas>>,
    audit: Option<Arc<Audit>>,
    answered: Arc<Answered>,
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
            verdicts: None,
            given_up: Arc::new([]),
            names: Arc::new(names),
            limits,
            stop,
            bodies: Gauge::default(),
            streams: Gauge::default(),
            door: Door::open(),
            replicas: None,
            audit: None,
            answered: Arc::default(),
        }
    }

    /// The same, behind a door that knows people.
    #[must_use]
    pub fn behind(self, door: Door) -> Self {
        Self { door, ..self }
    }

    /// The same, beside these replicas: `/readyz` tells what an operator should know of them.
    #[must_use]
    pub fn beside(self, replicas: Arc<Replicas>) -> Self {
        Self { replicas: Some(replicas), ..self }
    }

    /// The same, with an audit: operators' records that programs append are noted there.
    #[must_use]
    pub fn noting(self, audit: Arc<Audit>) -> Self {
        Self { audit: Some(audit), ..self }
    }

    /// The same, noting what it answers for those who read it.
    #[must_use]
    pub fn answering(self, answered: Arc<Answered>) -> Self {
        Self { answered, ..self }
    }

    /// The face of a log of several shards, some of which other instances own.
    #[must_use]
    pub fn routed(self, verdicts: Option<Arc<dyn Verdicts>>) -> Self {
        Self { verdicts, ..self }
    }

    /// The same, running without these guarantees: `/readyz` says so.
    #[must_use]
    pub fn forced(self, given_up: Vec<String>) -> Self {
        Self { given_up: given_up.into(), ..self }
    }

    fn limits(&self) -> Arc<Limits> {
        self.limits.borrow().clone()
    }

    /// The daemon's paths, for the listener at `at`; `more` are the areas of other rooms.
    pub fn router(self, at: &Listening, desk: Option<Arc<v1::Desk>>, more: v1::Areas) -> Router {
        let hosts = self.hosts(at);
        let health = Router::new().route("/healthz", get(health::healthz)).route("/readyz", get(health::readyz)).with_state(self.clone());
        let door = self.door.clone();
        guarded(v1::router(self, desk, &door, more).merge(health), hosts)
    }

    fn hosts(&self, at: &Listening) -> guard::Hosts {
        guard::Hosts { listening: at.clone(), limits: self.limits.clone() }
    }

    /// The paths of the metrics listener: `/metrics`, and health beside it.
    pub fn metrics_router(self, scrape: Scrape, at: &Listening) -> Router {
        let hosts = self.hosts(at);
        let metrics = Router::new().route("/metrics", get(health::metrics)).with_state(scrape);
        let health = Router::new().route("/healthz", get(health::healthz)).route("/readyz", get(health::readyz)).with_state(self);
        guarded(metrics.merge(health), hosts)
    }
}

fn guarded(routes: Router, hosts: guard::Hosts) -> Router {
    let tls = hosts.listening.tls;
    routes
        .fallback(guard::unknown_path)
        .method_not_allowed_fallback(guard::unknown_method)
        .layer(from_fn_with_state(hosts, guard::only_this_machine))
        .layer(from_fn_with_state(tls, headers::set))
        .layer(from_fn(unread::drain))
        .layer(from_fn(measure::requests))
}
