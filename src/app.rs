//! The daemon: the log, the shard, the listeners, put together and taken apart in order.
//!
//! Invariant: on the way up nothing listens before the data directory is ours; on the way down
//! nothing new enters first, then what entered is decided and committed, then a snapshot is taken,
//! then the log is closed. Deliberately absent: anything that decides.

mod moments;
mod observer;
mod signals;
mod utilization;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use metrics::{counter, gauge};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::api::{Face, Limits, serve};
use crate::cli::{Exit, Failure, OrExit};
use crate::config::{self, Config};
use crate::embedded::{EmbeddedLog, EmbeddedOptions, Timestamps};
use crate::engine::{self, Claimant, Handle, NoSnapshots, Partitioner, Service, SnapshotStore};
use crate::market::calendar::tzdb_version;
use crate::snapshot::{self, SledSnapshots};
use crate::telemetry::{self, Recorder};
use crate::wire::TopicNames;

use moments::Moments;
use observer::{Metered, show_status};
pub use signals::run_until_stopped;

/// The embedded log has one shard.
const SHARD: u32 = 0;
/// How often it is looked whether the log acknowledges.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long tasks that were cut off may take to notice it.
const RUNTIME_END: Duration = Duration::from_secs(1);

/// A daemon that runs.
pub struct Daemon {
    runtime: Runtime,
    log: EmbeddedLog,
    service: Service,
    servers: Vec<JoinHandle<()>>,
    limits: watch::Sender<Arc<Limits>>,
    stop: watch::Sender<bool>,
    /// Where the API listens.
    pub http: SocketAddr,
    /// Where the metrics are, if they are anywhere.
    pub metrics: Option<SocketAddr>,
}

impl Daemon {
    /// Starts a daemon in `runtime`: it listens when this comes back, and may not be ready yet.
    ///
    /// # Errors
    /// The data directory or a port cannot be had.
    pub fn start(runtime: Runtime, config: &Config, recorder: Recorder) -> Result<Self, Failure> {
        let log = EmbeddedLog::open(log_options(config))?;
        match Self::start_on(runtime, config, recorder, log.clone()) {
            Ok(daemon) => Ok(daemon),
            Err(failure) => {
                log.close();
                Err(failure)
            }
        }
    }

    fn start_on(runtime: Runtime, config: &Config, recorder: Recorder, log: EmbeddedLog) -> Result<Self, Failure> {
        let http = listen(&runtime, config.http.bind)?;
        let metrics = config.metrics.enabled.then(|| listen(&runtime, config.metrics.bind)).transpose()?;
        let moments = Arc::new(Moments::new());
        let observer = Box::new(Metered::new(SHARD, moments.clone()));
        let service = engine::spawn(log.shard_log(), snapshots(config)?, observer, engine_options(config))
            .or_exit(Exit::Io, || "cannot start the shard's thread".to_owned())?;
        let (limits, limits_seen) = watch::channel(Arc::new(limits_of(config)));
        let (stop, stop_seen) = watch::channel(false);
        let shards: Arc<[Handle]> = Arc::from([service.handle.clone()]);
        let face = Face::new(Arc::new(log.clone()), shards, names_of(config), limits_seen.clone(), stop_seen.clone());
        let (http_at, metrics_at) = (http.1, metrics.as_ref().map(|(_, at)| *at));
        let mut servers = vec![runtime.spawn(serve(http.0, face.clone().router(http_at), limits_seen.clone(), stop_seen.clone()))];
        if let Some((listener, at)) = metrics {
            let router = face.metrics_router(scrape(recorder.clone(), service.handle.clone(), moments), at);
            servers.push(runtime.spawn(serve(listener, router, limits_seen, stop_seen)));
        }
        runtime.spawn(upkeep(recorder, config.metrics.upkeep_seconds, service.handle.clone()));
        runtime.spawn(watch_commits(service.handle.clone(), Duration::from_millis(config.log.commit_stall_timeout_ms)));
        Ok(Self { runtime, log, service, servers, limits, stop, http: http_at, metrics: metrics_at })
    }

    /// The shard, to ask.
    #[must_use]
    pub fn shard(&self) -> &Handle {
        &self.service.handle
    }

    /// Takes over what may change while the daemon runs.
    pub fn reload(&self, config: &Config) {
        self.limits.send_replace(Arc::new(limits_of(config)));
    }

    /// Drains, commits, snapshots, closes.
    ///
    /// # Errors
    /// The shard's thread panicked; what was acknowledged is in the log all the same.
    pub fn stop(self) -> Result<(), Failure> {
        tracing::info!("stopping: no new requests");
        self.stop.send_replace(true);
        self.runtime.block_on(async {
            for server in self.servers {
                if let Err(error) = server.await {
                    tracing::error!(%error, "a listener ended badly");
                }
            }
        });
        let ended_well = self.service.stop();
        self.log.close();
        self.runtime.shutdown_timeout(RUNTIME_END);
        if ended_well {
            tracing::info!("stopped");
            return Ok(());
        }
        Err(Failure::new(Exit::Log, "the shard's thread panicked; restart, and run `ordergate verify`"))
    }
}

fn listen(runtime: &Runtime, at: SocketAddr) -> Result<(TcpListener, SocketAddr), Failure> {
    let bound = runtime.block_on(async {
        let listener = TcpListener::bind(at).await?;
        let address = listener.local_addr()?;
        Ok::<_, std::io::Error>((listener, address))
    });
    bound.or_exit(Exit::Io, || format!("cannot listen on {at}"))
}

/// The metrics, with the gauges that follow from the shard's status brought up to date.
fn scrape(recorder: Recorder, shard: Handle, moments: Arc<Moments>) -> crate::api::Scrape {
    Arc::new(move || {
        show_status(&shard, &moments);
        recorder.render()
    })
}

/// Histograms gather measurements until someone folds them.
async fn upkeep(recorder: Recorder, every_seconds: u64, shard: Handle) {
    let mut ticks = tokio::time::interval(Duration::from_secs(every_seconds));
    loop {
        ticks.tick().await;
        recorder.run_upkeep();
        let counted = tokio::time::timeout(Duration::from_secs(1), shard.query(|gate| gate.accounts().len())).await;
        if let Ok(Ok(accounts)) = counted {
            gauge!(telemetry::ACCOUNTS).set(accounts as f64);
        }
    }
}

/// Tells when a frame waits too long for its acknowledgement; nothing is decided meanwhile.
async fn watch_commits(shard: Handle, patience: Duration) {
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    let mut stalled = false;
    loop {
        ticks.tick().await;
        let waited = Duration::from_millis(shard.status().waiting_ms);
        if waited >= patience && !stalled {
            counter!(telemetry::COMMIT_STALLS).increment(1);
            tracing::error!(
                code = "COMMIT_STALLED",
                waited_ms = shard.status().waiting_ms,
                "the log does not acknowledge; look at its disk"
            );
        }
        stalled = waited >= patience;
    }
}

fn snapshots(config: &Config) -> Result<Box<dyn SnapshotStore>, Failure> {
    if !config.snapshot.enabled {
        return Ok(Box::new(NoSnapshots));
    }
    let options = snapshot::Options {
        dir: config.snapshot_dir(),
        shard: SHARD,
        cache_bytes: config.snapshot.cache_bytes,
        broken_kept_max: config.snapshot.broken_kept_max,
    };
    let store = SledSnapshots::start(options).or_exit(Exit::Io, || "cannot start the snapshots' thread".to_owned())?;
    Ok(Box::new(store))
}

fn log_options(config: &Config) -> EmbeddedOptions {
    EmbeddedOptions {
        timestamps: match config.log.timestamps {
            config::Timestamps::Append => Timestamps::LogAppendTime,
            config::Timestamps::Producer => Timestamps::Producer,
        },
        busy_timeout_ms: config.log.busy_timeout_ms,
        ..EmbeddedOptions::new(&config.data_dir)
    }
}

fn engine_options(config: &Config) -> engine::Options {
    engine::Options {
        claimant: Claimant {
            owner: format!("embedded-{}", std::process::id()),
            tzdb_version: tzdb_version().to_owned(),
            program_version: env!("CARGO_PKG_VERSION").to_owned(),
        },
        partitioner: match config.shard.partitioner {
            config::Partitioner::Murmur2 => Partitioner::Murmur2,
            config::Partitioner::Crc32 => Partitioner::Crc32,
        },
        frames_in_flight_max: config.frame.in_flight_max,
        frame_records_max: config.frame.records_max,
        frame_bytes_max: config.frame.bytes_max,
        snapshot_every: Duration::from_secs(config.snapshot.every_seconds),
        snapshot_records: config.snapshot.every_records,
        drain_max: Duration::from_millis(config.shutdown.drain_timeout_ms),
        ..engine::Options::default()
    }
}

fn limits_of(config: &Config) -> Limits {
    let http = &config.http;
    Limits {
        connections_max: http.connections_max,
        header_bytes_max: http.header_bytes_max,
        read_timeout: Duration::from_millis(http.read_timeout_ms),
        request_timeout: Duration::from_millis(http.request_timeout_ms),
        drain_timeout: Duration::from_millis(config.shutdown.drain_timeout_ms),
        body_bytes_max: http.body_bytes_max,
        bodies_bytes_max: http.body_bytes_max.saturating_mul(16),
        line_bytes_max: http.line_bytes_max,
        lines_max: http.batch_records_max,
        decision_timeout_ms: http.decision_timeout_ms,
        decision_timeout_ms_max: http.decision_timeout_ms_max,
        streams_max: http.streams_max,
        commit_stall: Duration::from_millis(config.log.commit_stall_timeout_ms),
        allowed_hosts: http.allowed_hosts.clone(),
        ..Limits::default()
    }
}

fn names_of(config: &Config) -> TopicNames {
    let topics = config.topics.clone();
    TopicNames {
        intents: topics.intents,
        executions: topics.executions,
        prices: topics.prices,
        control: topics.control,
        ledger: topics.ledger,
        decisions: topics.decisions,
        commands: topics.commands,
        notifications: topics.notifications,
        dead_letter: topics.dead_letter,
    }
}
