//! The daemon: the log, the shard, the listeners, put together and taken apart in order.
//!
//! Invariant: on the way up nothing listens before the data directory is ours and it is known who may be let in; on the way down
//! nothing new enters first, then what entered is decided and committed, then a snapshot is taken,
//! then the log is closed. Deliberately absent: anything that decides.

mod charts;
mod control;
mod guarantees;
mod log_side;
mod moments;
mod notifications;
mod observer;
mod people;
mod replicas;
mod shards;
mod signals;
pub(crate) mod threads;
mod utilization;
mod vault;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use metrics::{counter, gauge};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::api::v1::ws::Live;
use crate::api::{Face, Limits, Listening, serve};
use crate::cli::{Exit, Failure, OrExit};
use crate::config::{Config, LogKind};
use crate::engine::{self, Claimant, Handle, NoSnapshots, Service, SnapshotStore, Status};
use crate::kafka::{Assignment, Cluster, KafkaShardLog, Membership};
use crate::market::calendar::tzdb_version;
use crate::snapshot::{self, SledSnapshots};
use crate::telemetry::{self, Recorder};

use control::ControlPlane;
use log_side::LogSide;
use moments::Moments;
use observer::{Metered, show_status};
use shards::{Keeper, Plan, Shards, Start};

pub use charts::chart_options;
pub use guarantees::{PRICE_PARTITIONS, topic_plan};
pub use log_side::{OpenLog, cluster, kafka_options, names_of, partitioner};
pub use notifications::{channels_of, options_of};
pub use signals::run_until_stopped;
pub use vault::vault_options;

/// How often it is looked whether the log acknowledges.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long tasks that were cut off may take to notice it.
const RUNTIME_END: Duration = Duration::from_secs(1);
/// A shard's part of the snapshots' cache is at least this many bytes.
const SNAPSHOT_CACHE_LEAST: u64 = 1 << 20;
/// What a frame needs beside its records: marks, hashes, lengths.
const FRAME_OVERHEAD_BYTES: usize = 48 * 1024;

/// A daemon that runs.
pub struct Daemon {
    runtime: Runtime,
    log: LogSide,
    shards: Arc<Shards>,
    keeper: Keeper,
    membership: Option<Membership>,
    servers: Vec<JoinHandle<()>>,
    control: ControlPlane,
    live: Arc<Live>,
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
    /// The data directory, the log or a port cannot be had.
    pub fn start(runtime: Runtime, config: &Config, recorder: Recorder) -> Result<Self, Failure> {
        let log = LogSide::open(config)?;
        let plan = plan(&log, config);
        show_shards(plan.count);
        let (shards, keeper) = Shards::new(plan)?;
        let started = ControlPlane::start(&runtime, &log, config, &shards);
        let mut control = match started {
            Ok(control) => control,
            Err(failure) => return Err(given_up(failure, keeper, None, &log)),
        };
        let (http, metrics) = match listeners(&runtime, config) {
            Ok(listeners) => listeners,
            Err(failure) => return Err(given_up(failure, keeper, Some((&control, &runtime)), &log)),
        };
        control.entrance.listens(http.1);
        let (limits, limits_seen) = watch::channel(Arc::new(limits_of(config)));
        let (stop, stop_seen) = watch::channel(false);
        let face = Face::new(log.topics(), shards.clone(), names_of(config), limits_seen.clone(), stop_seen.clone());
        let entrance = &control.entrance;
        let face = face.routed(log.verdicts()).forced(log.given_up()).behind(entrance.door.clone());
        let face = face.beside(control.replicas()).noting(entrance.desk.audit.clone()).answering(control.answered());
        let (http_at, metrics_at) = (http.1, metrics.as_ref().map(|(_, at)| *at));
        let live = control.live(limits_seen.clone(), stop_seen.clone());
        live.start(runtime.handle());
        let router = face.clone().router(&entrance.listening, Some(entrance.desk.clone()), control.areas(&live));
        let mut servers = vec![runtime.spawn(serve(http.0, router, entrance.tls.clone(), limits_seen.clone(), stop_seen.clone()))];
        if let Some((listener, at)) = metrics {
            let router = face.metrics_router(scrape(recorder.clone(), shards.clone(), config.data_dir.clone()), &Listening::plain(at));
            servers.push(runtime.spawn(serve(listener, router, None, limits_seen, stop_seen)));
        }
        control.upkeep(runtime.handle());
        runtime.spawn(upkeep(recorder, config.metrics.upkeep_seconds, shards.clone()));
        runtime.spawn(watch_commits(shards.clone(), Duration::from_millis(config.log.commit_stall_timeout_ms)));
        let membership = match membership(&log, &shards) {
            Ok(membership) => membership,
            Err(failure) => return Err(given_up(failure, keeper, Some((&control, &runtime)), &log)),
        };
        Ok(Self { runtime, log, shards, keeper, membership, servers, control, live, limits, stop, http: http_at, metrics: metrics_at })
    }

    /// How the API is spoken to.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        if self.control.entrance.tls.is_some() { "https" } else { "http" }
    }

    /// What the first shard says of itself.
    #[must_use]
    pub fn status(&self) -> Status {
        self.shards.running().first().map(|(shard, _)| shard.status()).unwrap_or_default()
    }

    /// Takes over what may change while the daemon runs.
    pub fn reload(&self, config: &Config) {
        self.limits.send_replace(Arc::new(limits_of(config)));
        self.control.entrance.reload();
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
            let patience = self.limits.borrow().drain_timeout;
            self.live.ended(patience).await;
        });
        let ended_well = self.keeper.end();
        if let Some(membership) = self.membership {
            membership.leave();
        }
        self.control.stop(&self.runtime);
        self.log.close();
        self.runtime.shutdown_timeout(RUNTIME_END);
        if ended_well {
            tracing::info!("stopped");
            return Ok(());
        }
        Err(Failure::new(Exit::Log, "a shard's thread panicked; restart, and run `ordergate verify`"))
    }
}

/// How the shards of this log are run.
fn plan(log: &LogSide, config: &Config) -> Plan {
    let (count, standby) = match log {
        LogSide::Embedded(_) => (1, false),
        LogSide::Kafka(_) => (config.shard.count, config.kafka.standby > 0),
    };
    let hand_over_max = Duration::from_millis(config.shutdown.drain_timeout_ms);
    Plan { start: start(log, config), count, standby, hand_over_max }
}

fn start(log: &LogSide, config: &Config) -> Start {
    let config = config.clone();
    match log {
        LogSide::Embedded(log) => {
            let log = log.clone();
            Box::new(move |shard, moments| spawn(log.shard_log(), shard, moments, &config, engine_options(&config)))
        }
        LogSide::Kafka(on) => {
            let cluster: Cluster = on.cluster.clone();
            Box::new(move |shard, moments| {
                let options = engine::Options { own: false, reclaim: false, ..engine_options(&config) };
                spawn(KafkaShardLog::new(&cluster, shard)?, shard, moments, &config, options)
            })
        }
    }
}

fn spawn<L: crate::log::ShardLog + Send + 'static>(
    log: L,
    shard: u32,
    moments: Arc<Moments>,
    config: &Config,
    options: engine::Options,
) -> Result<Service, Failure> {
    let observer = Box::new(Metered::new(shard, moments));
    let spawned = engine::spawn(log, snapshots(config, shard)?, observer, options);
    spawned.or_exit(Exit::Io, || "cannot start the shard's thread".to_owned())
}

/// The group says which shards are ours; the embedded log's one always is.
fn membership(log: &LogSide, shards: &Arc<Shards>) -> Result<Option<Membership>, Failure> {
    match log {
        LogSide::Embedded(_) => {
            shards.assigned(&[0]);
            Ok(None)
        }
        LogSide::Kafka(on) => {
            let joined = Membership::join(&on.cluster, shards.clone());
            Ok(Some(joined.map_err(|error| Failure::new(Exit::Log, error.to_string()))?))
        }
    }
}

/// Takes apart again what was put together before something failed.
fn given_up(failure: Failure, keeper: Keeper, control: Option<(&ControlPlane, &Runtime)>, log: &LogSide) -> Failure {
    let _ = keeper.end();
    if let Some((control, runtime)) = control {
        control.stop(runtime);
    }
    log.close();
    failure
}

/// A socket, and where it is.
type Bound = (TcpListener, SocketAddr);

/// Where the API and the metrics are: bound when it is known who may be let in.
fn listeners(runtime: &Runtime, config: &Config) -> Result<(Bound, Option<Bound>), Failure> {
    let http = listen(runtime, config.http.bind)?;
    let metrics = config.metrics.enabled.then(|| listen(runtime, config.metrics.bind)).transpose()?;
    Ok((http, metrics))
}

fn listen(runtime: &Runtime, at: SocketAddr) -> Result<Bound, Failure> {
    let bound = runtime.block_on(async {
        let listener = TcpListener::bind(at).await?;
        let address = listener.local_addr()?;
        Ok::<_, std::io::Error>((listener, address))
    });
    bound.or_exit(Exit::Io, || format!("cannot listen on {at}"))
}

/// The metrics, with the gauges that follow from the shards' status brought up to date.
fn scrape(recorder: Recorder, shards: Arc<Shards>, data_dir: PathBuf) -> crate::api::Scrape {
    Arc::new(move || {
        show_disk(&data_dir);
        for (shard, moments) in shards.running() {
            show_status(&shard, &moments);
        }
        recorder.render()
    })
}

/// An alarm on a shard that nobody owns needs every instance to say so of every shard.
fn show_shards(count: u32) {
    gauge!(telemetry::SHARDS).set(f64::from(count));
    for shard in 0..count {
        gauge!(telemetry::OWNED, "shard" => shard.to_string()).set(0.0);
    }
}

fn show_disk(dir: &Path) {
    match rustix::fs::statvfs(dir) {
        Ok(disk) => {
            gauge!(telemetry::DATA_DIR_FREE).set(disk.f_bavail as f64 * disk.f_frsize as f64);
            gauge!(telemetry::DATA_DIR_SIZE).set(disk.f_blocks as f64 * disk.f_frsize as f64);
        }
        Err(error) => tracing::debug!(%error, "the data directory's disk cannot be asked"),
    }
}

/// Histograms gather measurements until someone folds them.
async fn upkeep(recorder: Recorder, every_seconds: u64, shards: Arc<Shards>) {
    let mut ticks = tokio::time::interval(Duration::from_secs(every_seconds));
    loop {
        ticks.tick().await;
        recorder.run_upkeep();
        let mut accounts = 0;
        for (shard, _) in shards.running() {
            let counted = tokio::time::timeout(Duration::from_secs(1), shard.query(|gate| gate.accounts().len())).await;
            accounts += counted.ok().and_then(Result::ok).unwrap_or(0);
        }
        gauge!(telemetry::ACCOUNTS).set(accounts as f64);
    }
}

/// Tells when a frame waits too long for its acknowledgement; nothing is decided meanwhile.
async fn watch_commits(shards: Arc<Shards>, patience: Duration) {
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    let mut stalled: Vec<u32> = Vec::new();
    loop {
        ticks.tick().await;
        let late = |shard: &Handle| Some(shard.status()).filter(|status| Duration::from_millis(status.waiting_ms) >= patience);
        let now: Vec<_> = shards.running().iter().filter_map(|(shard, _)| late(shard)).collect();
        for status in now.iter().filter(|status| !stalled.contains(&status.shard)) {
            let (shard, waited_ms) = (status.shard, status.waiting_ms);
            counter!(telemetry::COMMIT_STALLS).increment(1);
            tracing::error!(code = "COMMIT_STALLED", shard, waited_ms, "the log does not acknowledge; look at its disk or its brokers");
        }
        stalled = now.iter().map(|status| status.shard).collect();
    }
}

fn snapshots(config: &Config, shard: u32) -> Result<Box<dyn SnapshotStore>, Failure> {
    if !config.snapshot.enabled {
        return Ok(Box::new(NoSnapshots));
    }
    let options = snapshot::Options {
        dir: config.snapshot_dir(),
        shard,
        cache_bytes: (config.snapshot.cache_bytes / u64::from(config.shard.count)).max(SNAPSHOT_CACHE_LEAST),
        broken_kept_max: config.snapshot.broken_kept_max,
    };
    let store = SledSnapshots::start(options).or_exit(Exit::Io, || "cannot start the snapshots' thread".to_owned())?;
    Ok(Box::new(store))
}

/// What claims of this process call it: its instance, and the number of the process.
fn claimant_of(config: &Config) -> String {
    let instance = match config.log.kind {
        LogKind::Embedded => "embedded",
        LogKind::Kafka => config.kafka.instance.as_str(),
    };
    format!("{instance}-{}", std::process::id())
}

fn engine_options(config: &Config) -> engine::Options {
    engine::Options {
        claimant: Claimant {
            owner: claimant_of(config),
            tzdb_version: tzdb_version().to_owned(),
            program_version: env!("CARGO_PKG_VERSION").to_owned(),
        },
        partitioner: partitioner(config),
        frames_in_flight_max: config.frame.in_flight_max,
        frame_records_max: config.frame.records_max,
        frame_bytes_max: config.frame.bytes_max.saturating_sub(FRAME_OVERHEAD_BYTES),
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
        cors_origins: http.cors_origins.clone(),
        ..Limits::default()
    }
}
