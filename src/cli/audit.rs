//! `ordergate audit`: walks along the trail of what was done and says whether it is whole; also while daemons write to it.
//!
//! Invariant: nothing here writes. Deliberately absent: repair. Whoever could mend a trail could forge one.

use clap::Subcommand;

use super::place::{Place, ReadLog};
use super::{Exit, Failure, say};
use crate::control::audit::{Head, Verifier};
use crate::log::{Extent, LogError, Topic};

const RECORDS_PER_READ: usize = 1_000;

/// Arguments of `audit`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Prove that no record of gate.audit was removed, altered, inserted or moved
    Verify {
        #[command(flatten)]
        place: Place,
        /// A head that was published (in the daemon's log, or by an earlier verify) and must be there; may be repeated
        #[arg(long = "head", value_name = "CHAIN:SEQ:HASH")]
        heads: Vec<Head>,
    },
}

/// Walks.
pub fn run(args: &Args) -> Result<(), Failure> {
    let Action::Verify { place, heads } = &args.action;
    verify(&mut *place.open()?, heads.clone())
}

fn verify(log: &mut dyn ReadLog, given: Vec<Head>) -> Result<(), Failure> {
    if log.partitions(Topic::Audit)? == 0 {
        return Err(LogError::NoSuchPartition { topic: Topic::Audit, partition: 0 }.into());
    }
    let Extent { first, next: end, .. } = log.extent(Topic::Audit, 0)?;
    let mut verifier = Verifier::new(given, first > 0);
    let mut next = first;
    while next < end {
        let records = log.read(Topic::Audit, 0, next, RECORDS_PER_READ)?;
        let Some(last) = records.last() else { break };
        next = last.offset + 1;
        for record in records {
            let seen = verifier.see(record.offset, record.key.as_deref(), &record.payload);
            seen.map_err(|fault| Failure::new(Exit::Wrong, format!("gate.audit: {fault}")))?;
        }
    }
    let (records, repeated, heads) = verifier.finish().map_err(|fault| Failure::new(Exit::Wrong, format!("gate.audit: {fault}")))?;
    if first > 0 {
        say(&format!("what stood before offset {first} is no longer kept\n"))?;
    }
    say(&format!("ok: {records} records ({repeated} repeated), {} chains\n", heads.len()))?;
    heads.into_iter().try_for_each(|head| say(&format!("head {head}\n")))
}
