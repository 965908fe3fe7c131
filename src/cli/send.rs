//! `ordergate send`: an event log into a daemon, or straight into a cluster's topics, in batches.
//!
//! Invariant: lines go in file order; every line up to the printed position is durable. Over HTTP one batch goes after
//! another, and none after the position was taken unless an answer was lost.

mod cluster;

use std::path::PathBuf;

use serde_json::Value;

use super::client::{Client, Target};
use super::lines::Lines;
use super::{Exit, Failure, say};
use crate::wire;

/// Arguments of `send`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Event log as `kcat -J` writes it (.gz and .zst are read directly); - for standard input
    file: PathBuf,
    #[command(flatten)]
    target: Target,
    /// Lines per batch
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    batch: u64,
    /// Send to the partitions that the lines name, and not to those of their keys (a cluster only)
    #[arg(long)]
    keep_partitions: bool,
    /// First line to send: where an earlier run stopped
    #[arg(long, value_name = "LINE", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    from_line: u64,
}

const BATCH_BYTES_MAX: usize = 8 << 20;

/// Sends a file.
pub fn run(args: &Args) -> Result<(), Failure> {
    match args.target.cluster()? {
        Some(cluster) => cluster::run(args, &cluster),
        None if args.keep_partitions => {
            Err(Failure::new(Exit::Usage, "--keep-partitions is for a cluster: name it with --brokers or --config"))
        }
        None => to_daemon(args),
    }
}

fn to_daemon(args: &Args) -> Result<(), Failure> {
    let mut sender = Sender { client: args.target.client()?, batch: Vec::new(), lines: 0, first: 0, sent: 0 };
    let names = wire::TopicNames::default();
    let mut lines = Lines::open(&args.file)?;
    while lines.advance()? {
        if lines.number() < args.from_line {
            continue;
        }
        let line = wire::parse_line(lines.line()).map_err(|error| lines.wrong(error))?;
        if names.find_input(&line.topic).is_none() {
            continue;
        }
        sender.add(lines.number(), lines.line());
        if sender.lines == args.batch || sender.batch.len() >= BATCH_BYTES_MAX {
            sender.flush(lines.number())?;
        }
    }
    sender.flush(lines.number())?;
    say(&format!("sent {} records of {} lines\n", sender.sent, lines.number()))
}

struct Sender {
    client: Client,
    batch: Vec<u8>,
    lines: u64,
    first: u64,
    sent: u64,
}

impl Sender {
    fn add(&mut self, number: u64, line: &[u8]) {
        if self.lines == 0 {
            self.first = number;
        }
        self.batch.extend_from_slice(line);
        self.batch.push(b'\n');
        self.lines += 1;
    }

    /// Sends what is waiting; `last` is the file's line that it ends with.
    fn flush(&mut self, last: u64) -> Result<(), Failure> {
        if self.lines == 0 {
            return Ok(());
        }
        let answer = self.client.post("/api/v1/records", "application/x-ndjson", &self.batch);
        let answer = answer.map_err(|failure| failure.also(format!("resume with --from-line {}", self.first)))?;
        self.sent += answer.get("records").and_then(Value::as_u64).unwrap_or(0);
        let positions = answer.get("positions").cloned().unwrap_or_default();
        say(&format!("line {last} positions {positions}\n"))?;
        self.batch.clear();
        self.lines = 0;
        Ok(())
    }
}
