//! `ordergate audit`: walks along the trail of what was done and says whether it is whole; also while daemons write to it. Or lists it,
//! over the API.
//!
//! Invariant: nothing here writes. Deliberately absent: repair. Whoever could mend a trail could forge one.

use clap::Subcommand;
use serde_json::json;

use super::answers::{Asked, print_list, query};
use super::place::{Place, ReadLog};
use super::remote::Output;
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
        /// How to print
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
    /// List what was done, the newest first (for administrators)
    List {
        #[command(flatten)]
        wanted: Wanted,
        #[command(flatten)]
        asked: Asked,
    },
}

/// Which entries.
#[derive(Debug, clap::Args)]
struct Wanted {
    /// By this one
    #[arg(long, value_name = "NAME")]
    actor: Option<String>,
    /// This action, as account.kill; with a dot at the end all that begin so
    #[arg(long, value_name = "ACTION")]
    action: Option<String>,
    /// To this object, as account:ACC1
    #[arg(long, value_name = "OBJECT")]
    object: Option<String>,
    /// Not earlier (RFC 3339, or ms since the epoch)
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Earlier than this
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

/// Walks.
pub fn run(args: &Args) -> Result<(), Failure> {
    match &args.action {
        Action::Verify { place, heads, output } => verify(&mut *place.open()?, heads.clone(), *output),
        Action::List { wanted, asked } => list(wanted, asked),
    }
}

fn list(wanted: &Wanted, asked: &Asked) -> Result<(), Failure> {
    let Wanted { actor, action, object, from, to, limit } = wanted;
    let filters = [("actor", actor), ("action", action), ("object", object), ("from", from), ("to", to)];
    let query = query(&filters.map(|(name, value)| (name, value.as_deref())));
    let entries = asked.remote.client()?.some("/api/v1/audit", &query, usize::try_from(*limit).unwrap_or(usize::MAX))?;
    print_list(asked.output, entries, &["at", "actor", "address", "action", "object", "result"])
}

fn verify(log: &mut dyn ReadLog, given: Vec<Head>, output: Output) -> Result<(), Failure> {
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
    if output == Output::Json {
        let heads: Vec<String> = heads.iter().map(ToString::to_string).collect();
        return say(&format!("{:#}\n", json!({"first": first, "records": records, "repeated": repeated, "heads": heads})));
    }
    if first > 0 {
        say(&format!("what stood before offset {first} is no longer kept\n"))?;
    }
    say(&format!("ok: {records} records ({repeated} repeated), {} chains\n", heads.len()))?;
    heads.into_iter().try_for_each(|head| say(&format!("head {head}\n")))
}
