//! An event log straight into the topics of a cluster.
//!
//! Invariant: a record goes to the partition of its key, whatever partition its line names, unless that is asked for.
//! Memory does not grow with the file. What is said to operators (`gate.control`) waits for everything before it, and
//! everything behind it waits for it: an account is open before its orders come. Deliberately absent: any other order
//! between partitions; headers of the lines.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde_json::{Value, json};

use super::super::lines::Lines;
use super::super::{Exit, Failure, say};
use super::Args;
use crate::domain::InputTopic;
use crate::kafka::{Cluster, Sender};
use crate::log::{LogError, NewRecord, Placed, Topic};
use crate::wire::{self, TopicNames};

/// Records on their way at most.
const WAITING_RECORDS_MAX: usize = 20_000;
/// Batches on their way at most.
const WAITING_BATCHES_MAX: usize = 16;
/// How long we wait for an acknowledgement. The client tries again all the time.
const PATIENCE: Duration = Duration::from_secs(60);

/// Sends a file.
pub fn run(args: &Args, cluster: &Cluster) -> Result<(), Failure> {
    let sender = Sender::new(cluster).map_err(|failure| Failure::new(Exit::Usage, failure))?;
    let mut sending = Sending { sender, batches: VecDeque::new(), first_batch: 0, waiting: 0, sent: 0, lines_max: args.batch };
    let (configured, default) = (cluster.names(), TopicNames::default());
    let mut lines = Lines::open(&args.file)?;
    let mut after_control = None;
    while lines.advance()? {
        if lines.number() < args.from_line {
            continue;
        }
        let line = wire::parse_line(lines.line()).map_err(|error| sending.stopped(lines.wrong(error)))?;
        let Some(topic) = configured.find_input(&line.topic).or_else(|| default.find_input(&line.topic)) else { continue };
        let control = topic == InputTopic::Control;
        if after_control.replace(control).is_some_and(|before| before != control) {
            sending.settle(0)?;
        }
        let record = NewRecord {
            topic: Topic::Input(topic),
            partition: line.partition.filter(|_| args.keep_partitions),
            ts: line.ts,
            key: line.key.map(std::borrow::Cow::into_owned),
            payload: line.payload.into_owned(),
        };
        sending.send(lines.number(), &record).map_err(|failure| failure.also(format!("line {}", lines.number())))?;
    }
    sending.settle(0)?;
    say(&format!("sent {} records of {} lines\n", sending.sent, lines.number()))
}

/// Lines on their way, in batches that are told one after another.
struct Sending {
    sender: Sender,
    batches: VecDeque<Batch>,
    /// The number of the first of them.
    first_batch: u64,
    /// Records on their way.
    waiting: usize,
    sent: u64,
    lines_max: u64,
}

#[derive(Default)]
struct Batch {
    first_line: u64,
    last_line: u64,
    lines: u64,
    waiting: u64,
    positions: BTreeMap<(Topic, u32), (u64, u64)>,
}

impl Sending {
    fn send(&mut self, number: u64, record: &NewRecord) -> Result<(), Failure> {
        if self.batches.back().is_none_or(|batch| batch.lines >= self.lines_max) {
            self.settle_batches(WAITING_BATCHES_MAX - 1)?;
            self.batches.push_back(Batch { first_line: number, ..Batch::default() });
        }
        if self.waiting >= WAITING_RECORDS_MAX {
            self.settle(WAITING_RECORDS_MAX - 1)?;
        }
        let ticket = self.first_batch + self.batches.len() as u64 - 1;
        while !self.sender.send(record, ticket).map_err(|error| self.stopped(error.into()))? {
            // The client's queue is full of bytes before it is full of records.
            self.settle(self.waiting.saturating_sub(1))?;
        }
        self.waiting += 1;
        if let Some(batch) = self.batches.back_mut() {
            batch.last_line = number;
            batch.lines += 1;
            batch.waiting += 1;
        }
        self.take_reports()
    }

    /// Takes what was acknowledged meanwhile.
    fn take_reports(&mut self) -> Result<(), Failure> {
        while let Some(report) = self.sender.report(Duration::ZERO)? {
            self.take(report.ticket, report.placed)?;
        }
        Ok(())
    }

    /// Waits until no more records than this are on their way. With none, every batch is told, also one that is not full.
    fn settle(&mut self, waiting: usize) -> Result<(), Failure> {
        while self.waiting > waiting {
            self.wait()?;
        }
        if self.waiting == 0 {
            while !self.batches.is_empty() {
                self.tell()?;
            }
        }
        Ok(())
    }

    fn settle_batches(&mut self, batches: usize) -> Result<(), Failure> {
        while self.batches.len() > batches {
            if self.batches.front().is_some_and(|batch| batch.waiting == 0) {
                self.tell()?;
            } else {
                self.wait()?;
            }
        }
        Ok(())
    }

    fn wait(&mut self) -> Result<(), Failure> {
        match self.sender.report(PATIENCE)? {
            Some(report) => self.take(report.ticket, report.placed),
            None => {
                let detail = format!("no acknowledgement for {} s", PATIENCE.as_secs());
                Err(self.stopped(LogError::Busy { detail }.into()))
            }
        }
    }

    fn take(&mut self, ticket: u64, placed: Result<Placed, LogError>) -> Result<(), Failure> {
        let Placed { topic, partition, offset } = placed.map_err(|error| self.stopped(error.into()))?;
        self.waiting = self.waiting.saturating_sub(1);
        let place = usize::try_from(ticket - self.first_batch).unwrap_or(usize::MAX);
        let Some(batch) = self.batches.get_mut(place) else { return Ok(()) };
        batch.waiting = batch.waiting.saturating_sub(1);
        let (first, last) = batch.positions.entry((topic, partition)).or_insert((offset, offset));
        (*first, *last) = ((*first).min(offset), (*last).max(offset));
        self.sent += 1;
        while self.batches.front().is_some_and(|batch| batch.waiting == 0 && batch.lines >= self.lines_max) {
            self.tell()?;
        }
        Ok(())
    }

    /// Says where the first batch stands.
    fn tell(&mut self) -> Result<(), Failure> {
        let Some(batch) = self.batches.pop_front() else { return Ok(()) };
        self.first_batch += 1;
        let mut positions = serde_json::Map::new();
        for ((topic, partition), (first, last)) in batch.positions {
            let of_topic = positions.entry(topic.name()).or_insert_with(|| json!({}));
            if let Value::Object(of_topic) = of_topic {
                of_topic.insert(partition.to_string(), json!([first, last]));
            }
        }
        say(&format!("line {} positions {}\n", batch.last_line, Value::Object(positions)))
    }

    /// A failure, with the line to go on from.
    fn stopped(&self, failure: Failure) -> Failure {
        match self.batches.front() {
            Some(batch) => failure.also(format!("resume with --from-line {}; lines from there on may have landed", batch.first_line)),
            None => failure,
        }
    }
}
