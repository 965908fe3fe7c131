//! The HTTP face of the daemon: records in, decisions out, topics and books to read (WIRE.md, "Over HTTP").
//!
//! Invariant: it decides nothing and holds nothing that the log does not hold; what it answers with
//! 200 is durable. Deliberately absent: identities, sessions, TLS. Until they exist it listens on
//! loopback only and answers only requests that name loopback as their host.

mod body;
pub mod caller;
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

use crate::engine::Handle;
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
    verdicts: Option<Arc<dyn Verdicts>>,
    given_up: Arc<[String]>,
    names: Arc<TopicNames>,
    limits: watch::Receiver<Arc<Limits>>,
    stop: watch::Receiver<bool>,
    bodies: Gauge,
    streams: Gauge,
    control: Option<Control>,
}

/// What the control plane's handlers ask.
#[derive(Clone)]
pub struct Control {
    /// The books, what writes operators' records, what was decided.
    pub books: Arc<v1::books::Books>,
    /// The system.
    pub system: Arc<v1::system::System>,
}

impl Control {
    /// The paths below `/api/v1`.
    #[must_use]
    pub fn routes(&self) -> utoipa_axum::router::OpenApiRouter {
        let books = utoipa_axum::router::OpenApiRouter::new()
            .merge(v1::risk_checks::routes())
            .merge(v1::portfolio_risk::routes())
            .merge(v1::risk_rules::routes())
            .merge(v1::accounts::routes())
            .merge(v1::account_writes::routes())
            .merge(v1::instruments::routes())
            .merge(v1::decisions::routes());
        books.with_state(self.books.clone()).merge(v1::system::routes().with_state(self.system.clone()))
    }
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
            control: None,
        }
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

    /// The same, with the control plane.
    #[must_use]
    pub fn controlled(self, control: Control) -> Self {
        Self { control: Some(control), ..self }
    }

    fn limits(&self) -> Arc<Limits> {
        self.limits.borrow().clone()
    }

    /// The daemon's paths, for the listener at `listener`.
    pub fn router(self, listener: SocketAddr) -> Router {
        let hosts = guard::Hosts { listener, limits: self.limits.clone() };
        let control = self.control.as_ref().map(|control| control.routes().split_for_parts().0);
        let control = control.unwrap_or_default().layer(axum::Extension(caller::Caller::open(std::net::IpAddr::from([127, 0, 0, 1]))));
        let routes = Router::new()
            .route("/api/v1/records", post(records::post))
            .route("/api/v1/intents", post(intents::post))
            .route("/api/v1/topics/{topic}/records", get(topics::get))
            .route("/healthz", get(health::healthz))
            .route("/readyz", get(health::readyz))
            .with_state(self)
            .nest("/api/v1", control);
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
