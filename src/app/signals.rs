//! A daemon until a signal ends it.
//!
//! Invariant: signals are listened for before anything is opened, so that a stop during a long start
//! is a clean stop too.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cli::{Exit, Failure, OrExit};
use crate::config::{Config, ConfigError, LogFormat, LogLevel};
use crate::telemetry::{self, LogControl, Recorder};

use super::{Daemon, threads};

/// How often it is looked whether the shard still runs.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Reads the configuration, again on SIGHUP.
pub type Load<'a> = dyn Fn() -> Result<Config, ConfigError> + 'a;

/// Runs a daemon until SIGTERM or SIGINT. `started` is told when it listens.
///
/// # Errors
/// It cannot start, or its shard ended on its own.
pub fn run_until_stopped(load: &Load<'_>, started: impl FnOnce(&Daemon)) -> Result<(), Failure> {
    let mut config = load().map_err(|error| Failure::new(Exit::Usage, error))?;
    let json = config.telemetry.log_format == LogFormat::Json;
    let logging = telemetry::init_logging(level(config.telemetry.log_level), json);
    let logging = logging.or_exit(Exit::Io, || "cannot log".to_owned())?;
    let recorder = Recorder::install().or_exit(Exit::Io, || "cannot measure".to_owned())?;
    let runtime = threads::start().or_exit(Exit::Io, || "cannot start threads".to_owned())?;
    let mut signals = runtime.block_on(Signals::listen())?;
    let daemon = Daemon::start(runtime, &config, recorder)?;
    tracing::info!(http = %daemon.http, metrics = ?daemon.metrics, data_dir = %config.data_dir.display(), "listening");
    started(&daemon);
    loop {
        match daemon.runtime.block_on(signals.next(&daemon)) {
            Event::Reload => config = reload(&daemon, &logging, &config, load),
            Event::Stop(name) => {
                tracing::info!(signal = name, "asked to stop");
                return daemon.stop();
            }
            Event::ShardEnded => {
                daemon.stop()?;
                return Err(Failure::new(Exit::Log, "a shard stopped on its own"));
            }
        }
    }
}

/// What ends the wait.
enum Event {
    Reload,
    Stop(&'static str),
    ShardEnded,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    async fn listen() -> Result<Self, Failure> {
        let on = |kind| signal(kind).or_exit(Exit::Io, || "cannot listen for signals".to_owned());
        Ok(Self { terminate: on(SignalKind::terminate())?, interrupt: on(SignalKind::interrupt())?, hang_up: on(SignalKind::hangup())? })
    }

    async fn next(&mut self, daemon: &Daemon) -> Event {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return Event::Stop("SIGTERM"),
                _ = self.interrupt.recv() => return Event::Stop("SIGINT"),
                _ = self.hang_up.recv() => return Event::Reload,
                () = tokio::time::sleep(LOOK_EVERY) => {
                    if daemon.shards.is_broken() {
                        return Event::ShardEnded;
                    }
                }
            }
        }
    }
}

/// Takes over what can be taken over; a configuration that is refused changes nothing.
fn reload(daemon: &Daemon, logging: &LogControl, old: &Config, load: &Load<'_>) -> Config {
    let new = match load() {
        Ok(new) => new,
        Err(error) => {
            tracing::error!(%error, "the configuration is refused; the old one stays");
            return old.clone();
        }
    };
    let diff = old.reloadable_diff(&new);
    for change in &diff.taken {
        tracing::info!(key = change.key, from = change.from, to = change.to, "reloaded");
    }
    for change in &diff.needs_restart {
        tracing::warn!(key = change.key, from = change.from, to = change.to, "takes effect with the next start");
    }
    let config = old.reloaded(&new);
    daemon.reload(&config);
    if let Err(error) = logging.set_level(level(config.telemetry.log_level)) {
        tracing::error!(%error, "the log level stays");
    }
    config
}

const fn level(level: LogLevel) -> tracing::Level {
    match level {
        LogLevel::Error => tracing::Level::ERROR,
        LogLevel::Warn => tracing::Level::WARN,
        LogLevel::Info => tracing::Level::INFO,
        LogLevel::Debug => tracing::Level::DEBUG,
        LogLevel::Trace => tracing::Level::TRACE,
    }
}
