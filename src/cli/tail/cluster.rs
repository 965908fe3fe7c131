//! A topic of a cluster, as lines.
//!
//! Invariant: within a partition in offset order, and only what is committed. Deliberately absent: order between
//! partitions; a topic without `--follow` is printed partition by partition.

use std::io::{self, Write};
use std::thread;
use std::time::Duration;

use super::super::place::{OnCluster, ReadLog};
use super::super::{Exit, Failure, OrExit};
use super::{Args, Form};
use crate::kafka::Cluster;
use crate::log::{Extent, LogError, StoredRecord, Topic};

const RECORDS_PER_READ: u64 = 1_000;
/// How long a follower waits where nothing came.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Prints a topic.
pub fn run(args: &Args, cluster: &Cluster) -> Result<(), Failure> {
    let topic = Topic::find_in(cluster.names(), &args.topic).or_else(|| Topic::parse(&args.topic));
    let known = || Topic::ALL.map(|topic| cluster.name(topic).to_owned()).join(", ");
    let topic = topic.ok_or_else(|| Failure::new(Exit::Usage, format!("{} is no topic of the gate: {}", args.topic, known())))?;
    let mut printer = Printer { topic, name: cluster.name(topic).to_owned(), form: args.form, left: args.limit, text: Vec::new() };
    let mut places = places(args, cluster, topic)?;
    if args.follow {
        return follow(&mut places, &mut printer);
    }
    for place in &mut places {
        while !printer.is_done() && place.print(&mut printer)? {}
    }
    Ok(())
}

/// Prints what comes, until the limit is reached or we are interrupted.
fn follow(places: &mut [Place], printer: &mut Printer) -> Result<(), Failure> {
    loop {
        let mut idle = true;
        for place in &mut *places {
            if printer.is_done() {
                return Ok(());
            }
            idle &= !place.print(printer)?;
        }
        if idle {
            thread::sleep(LOOK_EVERY);
        }
    }
}

/// Where to begin, per partition.
fn places(args: &Args, cluster: &Cluster, topic: Topic) -> Result<Vec<Place>, Failure> {
    let count = cluster.partitions(topic)?;
    let partitions = match args.partition {
        _ if count == 0 => return Err(LogError::NoSuchPartition { topic, partition: 0 }.into()),
        Some(partition) => partition..partition.saturating_add(1),
        None => 0..count,
    };
    let place = |partition| {
        let log = OnCluster::open(cluster)?;
        let next = first_offset(&args.from, &log.extent(topic, partition)?)?;
        Ok(Place { log, partition, next })
    };
    partitions.map(place).collect()
}

fn first_offset(from: &str, extent: &Extent) -> Result<u64, Failure> {
    let Extent { first, next, .. } = *extent;
    match from {
        "earliest" => Ok(first),
        "latest" => Ok(next),
        text => text.parse().ok().filter(|offset| (first..=next).contains(offset)).ok_or_else(|| {
            let Extent { topic, partition, .. } = extent;
            let what = format!("--from {text}: {topic} {partition} takes earliest, latest or an offset from {first} to {next}");
            Failure::new(Exit::Usage, what)
        }),
    }
}

/// How far a partition is printed.
struct Place {
    log: OnCluster,
    partition: u32,
    next: u64,
}

impl Place {
    /// Prints on; false when nothing is there.
    fn print(&mut self, printer: &mut Printer) -> Result<bool, Failure> {
        let limit = usize::try_from(printer.left.map_or(RECORDS_PER_READ, |left| left.min(RECORDS_PER_READ))).unwrap_or(usize::MAX);
        let records = self.log.read(printer.topic, self.partition, self.next, limit)?;
        let Some(last) = records.last() else { return Ok(false) };
        self.next = last.offset + 1;
        printer.print(self.partition, &records)?;
        Ok(true)
    }
}

/// Records on standard output.
struct Printer {
    topic: Topic,
    name: String,
    form: Form,
    left: Option<u64>,
    text: Vec<u8>,
}

impl Printer {
    fn is_done(&self) -> bool {
        self.left == Some(0)
    }

    fn print(&mut self, partition: u32, records: &[StoredRecord]) -> Result<(), Failure> {
        self.text.clear();
        for record in records {
            match self.form {
                Form::Lines => record.write_line(self.topic, &self.name, partition, &mut self.text),
                Form::Keyed => self.keyed(partition, record)?,
            }
        }
        self.left = self.left.map(|left| left.saturating_sub(records.len() as u64));
        let mut out = io::stdout().lock();
        let written = out.write_all(&self.text).and_then(|()| out.flush());
        written.or_exit(Exit::Io, || "cannot write to standard output".to_owned())
    }

    /// Key, tab, value. What cannot be told apart again so is refused.
    fn keyed(&mut self, partition: u32, record: &StoredRecord) -> Result<(), Failure> {
        let key = record.key.as_deref().unwrap_or_default();
        if key.iter().any(|byte| matches!(byte, b'\t' | b'\n')) || record.payload.contains(&b'\n') || self.topic == Topic::Ledger {
            let what = format!("{} {partition} {}: not to be told apart by a tab and a line feed; print lines", self.name, record.offset);
            return Err(Failure::new(Exit::Wrong, what));
        }
        self.text.extend_from_slice(key);
        self.text.push(b'\t');
        self.text.extend_from_slice(&record.payload);
        self.text.push(b'\n');
        Ok(())
    }
}
