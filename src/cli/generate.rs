//! `ordergate generate`: deterministic order flow as an event log.

use std::io::{self, Write};

use super::{Exit, Failure, OrExit};
use crate::generate::{Generator, OwnGate, Plan};

/// Arguments of `generate`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Other seeds give other flows, the same one the same bytes
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Accounts
    #[arg(long, value_name = "A", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    accounts: u32,
    /// Symbols
    #[arg(long, value_name = "Y", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    symbols: u32,
    /// Records
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    events: u64,
}

const FLUSH_BYTES: usize = 256 * 1024;

/// Writes a flow to standard output.
pub fn run(args: &Args) -> Result<(), Failure> {
    let Args { seed, accounts, symbols, events } = *args;
    let plan = Plan { seed, accounts, symbols, events, start: Plan::DEFAULT_START };
    let mut generator = Generator::new(plan, OwnGate::default());
    let mut out = io::stdout().lock();
    let mut lines = Vec::with_capacity(FLUSH_BYTES + 4096);
    while let Some(record) = generator.next_record() {
        record.write_line(&mut lines);
        if lines.len() >= FLUSH_BYTES {
            write(&mut out, &mut lines)?;
        }
    }
    write(&mut out, &mut lines)
}

fn write(out: &mut impl Write, lines: &mut Vec<u8>) -> Result<(), Failure> {
    let written = out.write_all(lines).and_then(|()| out.flush());
    lines.clear();
    written.or_exit(Exit::Io, || "cannot write to standard output".to_owned())
}
