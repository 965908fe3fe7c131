//! The control plane as the daemon has it: people, replicas, the vault, notifications, and their paths of the API.
//!
//! Invariant: it follows the log and writes records, and holds up no decision; it is stopped before the log is closed. Deliberately absent:
//! what any of it does.

use std::sync::Arc;

use axum::middleware::from_fn_with_state;
use tokio::runtime::{Handle, Runtime};
use tokio::sync::watch;

use super::log_side::LogSide;
use super::people::{self, Entrance};
use super::replicas::Followers;
use super::{Shards, charts, notifications, vault};
use crate::api::Limits;
use crate::api::positions::{Answered, Inputs, Reader, arrived};
use crate::api::v1::ws::{self, Live, Sources};
use crate::api::v1::{Areas, audit_routes};
use crate::chart::Charts;
use crate::cli::Failure;
use crate::config::Config;
use crate::control::audit::Audit;
use crate::control::directory::DirectoryService;
use crate::control::replica::Replicas;
use crate::log::Topics;
use crate::notify::Notifier;

/// What everything that writes for people goes through.
#[derive(Clone)]
pub(super) struct Trails {
    pub(super) directory: Arc<DirectoryService>,
    pub(super) audit: Arc<Audit>,
}

impl Trails {
    fn start(topics: &Arc<dyn Topics>) -> Result<Self, Failure> {
        Ok(Self { directory: DirectoryService::start(topics.clone())?, audit: Audit::start(topics.clone())? })
    }

    /// Writes what waits, and follows no further.
    fn stop(&self) {
        self.audit.stop();
        self.directory.stop();
    }
}

/// All of it.
pub(super) struct ControlPlane {
    pub(super) entrance: Entrance,
    topics: Arc<dyn Topics>,
    trails: Trails,
    followers: Followers,
    notifier: Arc<Notifier>,
    charts: Option<Arc<Charts>>,
    answered: Arc<Answered>,
}

impl ControlPlane {
    /// Starts it, before anything listens. What was started is stopped again where something fails.
    ///
    /// # Errors
    /// Something of it is set up wrongly, or cannot be read.
    pub(super) fn start(runtime: &Runtime, log: &LogSide, config: &Config, shards: &Arc<Shards>) -> Result<Self, Failure> {
        let topics = log.topics();
        let trails = Trails::start(&topics)?;
        let followers = Followers::start(log, config, shards, &trails).inspect_err(|_| trails.stop())?;
        let stop = |_: &Failure| {
            followers.stop();
            trails.stop();
        };
        let entrance = Entrance::open(&trails, config, followers.replicas.clone()).inspect_err(stop)?;
        let (people, owners) = (&entrance.desk.people, followers.replicas.clone());
        let notifier = notifications::start(runtime.handle(), topics.clone(), people, owners, config).inspect_err(stop)?;
        let charts = charts::start(topics.clone(), config).inspect_err(stop)?;
        Ok(Self { entrance, topics, trails, followers, notifier, charts, answered: Arc::default() })
    }

    /// What is told over WebSockets: so many as the limits say, until the stop.
    pub(super) fn live(&self, limits: watch::Receiver<Arc<Limits>>, stop: watch::Receiver<bool>) -> Arc<Live> {
        Live::new(Sources {
            hub: self.followers.hub.clone(),
            books: self.followers.books.clone(),
            system: self.followers.system.clone(),
            notifier: self.notifier.clone(),
            charts: self.charts.clone(),
            door: self.entrance.door.clone(),
            limits,
            stop,
        })
    }

    /// The books as everyone may look at them.
    pub(super) fn replicas(&self) -> Arc<Replicas> {
        self.followers.replicas.clone()
    }

    /// What this process has answered: what is read here is not older.
    pub(super) fn answered(&self) -> Arc<Answered> {
        self.answered.clone()
    }

    /// Its paths of the API.
    pub(super) fn areas(&self, live: &Arc<Live>) -> Areas {
        let directory = &self.trails.directory;
        let mut areas = Areas {
            inside: self.followers.areas(self.answered()),
            in_directory: vec![vault::area(self.entrance.desk.vault.clone(), self.topics.clone(), directory.clone())],
            outside: vec![ws::routes().with_state(live.clone())],
            directory: Some(directory.clone()),
        };
        areas.inside.push(audit_routes().with_state(self.topics.clone()));
        let (inside, outside) = notifications::areas(&self.notifier, &self.trails);
        let inputs = Inputs::new(Reader::Inboxes(self.replicas(), self.followers.raising.clone(), self.notifier.clone()), self.answered());
        areas.in_directory.push(inside.layer(from_fn_with_state(inputs, arrived)));
        areas.outside.push(outside);
        areas.inside.extend(self.charts.clone().map(|charts| charts::area(charts, self.answered())));
        areas
    }

    /// What it does from time to time.
    pub(super) fn upkeep(&self, runtime: &Handle) {
        runtime.spawn(vault::upkeep(self.entrance.desk.vault.clone()));
        runtime.spawn(vault::remind(self.entrance.desk.vault.clone(), self.notifier.clone()));
        runtime.spawn(people::sweep(self.entrance.desk.people.clone()));
    }

    /// Ends it; what waits to be written is written.
    pub(super) fn stop(&self, runtime: &Runtime) {
        runtime.block_on(self.notifier.stop());
        if let Some(charts) = &self.charts {
            charts.stop();
        }
        self.followers.stop();
        self.trails.stop();
    }
}
