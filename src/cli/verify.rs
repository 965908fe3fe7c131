//! `ordergate verify`: ledgers folded again and held against what they recorded, and the output topics against them.
//!
//! Invariant: nothing here writes. A daemon may go on meanwhile: what it adds while we read is no fault. Deliberately
//! absent: repair. A ledger is never changed.

use super::ledger::{fold_failure, hex};
use super::place::{Place, ReadLog};
use super::{Exit, Failure, say};
use crate::engine::{Fault, Found, Publications, Sight, verify};
use crate::log::{OutputTopic, Topic};

/// Arguments of `verify`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    place: Place,
    /// Fold the ledger only, and do not hold the output topics against it
    #[arg(long)]
    ledger_only: bool,
}

const RECORDS_PER_READ: usize = 1_000;
/// More faults than this are only counted.
const FAULTS_TOLD_MAX: usize = 20;

/// Verifies every shard that is meant, also behind one that is wrong.
pub fn run(args: &Args) -> Result<(), Failure> {
    let mut log = args.place.open()?;
    let count = log.partitions(Topic::Ledger)?;
    let shards = args.place.shards(&*log)?;
    let mut wrong = Vec::new();
    for &shard in &shards {
        if shards.len() > 1 {
            say(&format!("shard {shard}\n"))?;
        }
        match one(&mut *log, shard, count, args.ledger_only) {
            Ok(()) => {}
            Err(failure) if failure.exit() == Exit::Wrong && shards.len() > 1 => {
                eprintln!("ordergate: shard {shard}: {failure}");
                wrong.push(shard.to_string());
            }
            Err(failure) => return Err(failure),
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(Failure::new(Exit::Wrong, format!("wrong: shard {}", wrong.join(", ")))) }
}

fn one(log: &mut dyn ReadLog, shard: u32, shards: u32, ledger_only: bool) -> Result<(), Failure> {
    let mut outputs = if ledger_only { None } else { Some(Outputs::before(log, shard, shards)?) };
    let publications = outputs.as_mut().map(|outputs| &mut outputs.publications);
    let verified = verify(shard, |from, limit| log.read(Topic::Ledger, shard, from, limit), publications).map_err(fold_failure)?;
    say(&format!(
        "ok: {} entries ({} void), term {}, seq {}, {} outputs as recorded\nhead {}\nstate {}\n",
        verified.entries,
        verified.void_entries,
        verified.term,
        verified.seq,
        verified.outputs,
        hex(&verified.head),
        hex(&verified.state_hash),
    ))?;
    outputs.map_or(Ok(()), |outputs| outputs.judge(log))
}

/// The output topics of a shard.
struct Outputs {
    publications: Publications,
    shard: u32,
    /// Where each topic began and ended before the ledger was read: everything below is caused by what the ledger holds.
    extents: [(u64, u64); OutputTopic::ALL.len()],
    again: u64,
    faults: Vec<Fault>,
    faulty: u64,
}

impl Outputs {
    fn before(log: &dyn ReadLog, shard: u32, shards: u32) -> Result<Self, Failure> {
        let mut extents = [(0, 0); OutputTopic::ALL.len()];
        for topic in OutputTopic::ALL {
            let extent = log.extent(Topic::Output(topic), partition_of(topic, shard))?;
            extents[topic.place()] = (extent.first, extent.next);
        }
        let publications = Publications::new(shard, shards, extents.map(|(first, _)| first));
        Ok(Self { publications, shard, extents, again: 0, faults: Vec::new(), faulty: 0 })
    }

    /// Reads the topics to their ends of now, which are behind everything that the ledger says is published.
    fn judge(mut self, log: &mut dyn ReadLog) -> Result<(), Failure> {
        for topic in OutputTopic::ALL {
            self.read(log, topic)?;
        }
        let (faults, faulty) = (&mut self.faults, &mut self.faulty);
        let found = self.publications.finish(|fault| note(faults, faulty, fault));
        let Found { published, waiting, expired } = found;
        let told = format!("{published} outputs published as recorded, {waiting} not yet, {expired} expired, {} repeated", self.again);
        if self.faulty == 0 {
            return say(&format!("outputs ok: {told}\n"));
        }
        for fault in &self.faults {
            eprintln!("ordergate: {fault}");
        }
        let what = format!("{} records of the output topics are not what the ledger caused ({told})", self.faulty);
        Err(Failure::new(Exit::Wrong, what))
    }

    fn read(&mut self, log: &mut dyn ReadLog, topic: OutputTopic) -> Result<(), Failure> {
        let partition = partition_of(topic, self.shard);
        let (mut next, known) = self.extents[topic.place()];
        let end = log.extent(Topic::Output(topic), partition)?.next;
        while next < end {
            let records = log.read(Topic::Output(topic), partition, next, RECORDS_PER_READ)?;
            let Some(last) = records.last() else { return Ok(()) };
            next = last.offset + 1;
            for record in &records {
                match self.publications.see(topic, partition, record, record.offset >= known) {
                    Ok(Sight::First | Sight::Elsewhere) => {}
                    Ok(Sight::Again) => self.again += 1,
                    Err(fault) => note(&mut self.faults, &mut self.faulty, fault),
                }
            }
        }
        Ok(())
    }
}

fn note(faults: &mut Vec<Fault>, faulty: &mut u64, fault: Fault) {
    *faulty += 1;
    if faults.len() < FAULTS_TOLD_MAX {
        faults.push(fault);
    }
}

/// Dead letters of all shards are in one partition.
fn partition_of(topic: OutputTopic, shard: u32) -> u32 {
    match topic {
        OutputTopic::Decisions | OutputTopic::Commands | OutputTopic::Notifications => shard,
        OutputTopic::DeadLetter => 0,
    }
}
