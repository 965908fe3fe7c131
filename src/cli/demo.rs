//! `ordergate demo`: a daemon, order flow through its front door, and what becomes of it.
//!
//! Invariant: nothing is staged. The flow goes in by HTTP and what is shown is read back by HTTP, as
//! any user would; the numbers are the daemon's. Deliberately absent: a broker, real prices.

mod show;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};

use super::client::Client;
use super::{Exit, Failure, OrExit, say};
use crate::app::{Daemon, threads};
use crate::config::Config;
use crate::domain::InputTopic;
use crate::generate::{Generator, OwnGate, Plan};
use crate::telemetry::{self, Recorder};

use show::Show;

/// Arguments of `demo`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Keep the data in this directory instead of a temporary one
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Where the API listens
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    http: SocketAddr,
    /// Where /metrics is served
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9464")]
    metrics: SocketAddr,
    /// Stop after so many seconds; 0 = when interrupted
    #[arg(long, value_name = "N", default_value_t = 0)]
    seconds: u64,
    /// Records per second, once the accounts are open
    #[arg(long, value_name = "N", default_value_t = 40, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    rate: u64,
    /// Another seed, another day
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
}

/// How often records are sent and decisions shown.
const TICK: Duration = Duration::from_millis(250);
const READY_WAIT: Duration = Duration::from_secs(20);
const ACCOUNTS: u32 = 20;

/// Shows the gate at work until it is interrupted.
pub fn run(args: &Args) -> Result<(), Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, stop.clone()).or_exit(Exit::Io, || "cannot listen for signals".to_owned())?;
    }
    let home = Home::new(args.data_dir.as_deref());
    let daemon = start(args, &home)?;
    let shown = show(args, &daemon, &stop);
    say("\nstopping: what was taken is decided, committed and in a snapshot\n").and(shown).and(daemon.stop())?;
    home.say_goodbye()
}

/// The data directory; a temporary one goes when the demo ends.
struct Home {
    dir: PathBuf,
    is_temporary: bool,
}

impl Home {
    fn new(given: Option<&Path>) -> Self {
        let temporary = || std::env::temp_dir().join(format!("ordergate-demo-{}", std::process::id()));
        Self { dir: given.map_or_else(temporary, Path::to_path_buf), is_temporary: given.is_none() }
    }

    fn say_goodbye(&self) -> Result<(), Failure> {
        if self.is_temporary {
            return say("the data directory was a temporary one and is gone; keep one with --data-dir DIR\n");
        }
        let dir = self.dir.display();
        say(&format!("the ledger stays: try `ordergate verify --data-dir {dir}` and `ordergate ledger dump --data-dir {dir}`\n"))
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if self.is_temporary && self.dir.exists() && std::fs::remove_dir_all(&self.dir).is_err() {
            eprintln!("ordergate: cannot remove {}", self.dir.display());
        }
    }
}

fn start(args: &Args, home: &Home) -> Result<Daemon, Failure> {
    let overrides = [
        ("data_dir", home.dir.display().to_string()),
        ("http.bind", args.http.to_string()),
        ("metrics.bind", args.metrics.to_string()),
        // The flow has its own day, and its prices are as old as its orders.
        ("log.timestamps", "producer".to_owned()),
    ];
    let overrides: Vec<_> = overrides.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    let config = Config::load_from(None, &[], &overrides).map_err(|error| Failure::new(Exit::Usage, error))?;
    // Refused records belong to every flow, and are shown; only what is wrong with the daemon is logged.
    telemetry::init_logging(tracing::Level::ERROR, false).or_exit(Exit::Io, || "cannot log".to_owned())?;
    let recorder = Recorder::install().or_exit(Exit::Io, || "cannot measure".to_owned())?;
    let daemon = Daemon::start(threads::start().or_exit(Exit::Io, || "cannot start threads".to_owned())?, &config, recorder)?;
    wait_until_ready(&daemon)?;
    Ok(daemon)
}

fn wait_until_ready(daemon: &Daemon) -> Result<(), Failure> {
    let begun = Instant::now();
    while !daemon.status().is_ready(READY_WAIT) {
        if begun.elapsed() > READY_WAIT {
            return Err(Failure::new(Exit::Log, format!("the daemon is not ready: {:?}", daemon.status().phase)));
        }
        sleep(Duration::from_millis(10));
    }
    Ok(())
}

fn show(args: &Args, daemon: &Daemon, stop: &AtomicBool) -> Result<(), Failure> {
    let client = Client::new(&daemon.http.to_string());
    let mut show = Show::begin(&client, daemon, ACCOUNTS)?;
    let plan = Plan { seed: args.seed, accounts: ACCOUNTS, symbols: 8, events: u64::MAX, start: Plan::DEFAULT_START };
    let mut flow = Flow { generator: Generator::new(plan, OwnGate::default()), batch: Vec::new() };
    let begun = Instant::now();
    let mut ticks: u32 = 0;
    while !stop.load(Ordering::Relaxed) && (args.seconds == 0 || begun.elapsed().as_secs() < args.seconds) {
        flow.fill(args.rate * TICK.as_millis() as u64 / 1000 + 1);
        client.post("/api/v1/records", "application/x-ndjson", &flow.batch)?;
        ticks += 1;
        sleep((TICK * ticks).saturating_sub(begun.elapsed()));
        show.tick(ticks)?;
    }
    show.end()
}

struct Flow {
    generator: Generator<OwnGate>,
    batch: Vec<u8>,
}

impl Flow {
    /// The next records; what opens the day (accounts, rules, history) counts for nothing.
    fn fill(&mut self, records: u64) {
        self.batch.clear();
        let mut left = records;
        while left > 0 {
            let Some(record) = self.generator.next_record() else { return };
            record.write_line(&mut self.batch);
            let opens = record.topic == InputTopic::Control || record.payload.starts_with(b"{\"event\":\"bar\"");
            left -= u64::from(!opens);
        }
    }
}
