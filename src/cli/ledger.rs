//! `ordergate ledger`: the end or the whole of a shard's ledger, also while a daemon has it.
//!
//! Invariant: nothing here writes. A dump is an event log: replayed as the same shard, it gives the same decisions.

use std::io::{self, Write};

use clap::Subcommand;
use serde_json::json;

use super::place::{Place, ReadLog};
use super::range::{Range, Stand};
use super::{Exit, Failure, OrExit, say};
use crate::engine::{FoldError, Judgement, Sequence};
use crate::log::{Extent, Topic};
use crate::wire::frame::{self, Entry, Frame, FrameInput, Hash, Routing};
use crate::wire::write_any_line;

const ENTRIES_PER_READ: usize = 64;
/// How many entries at the end are looked at first, to find out which of them count.
const TAIL_ENTRIES: u64 = 256;

/// Arguments of `ledger`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Print where the ledger ends: term, sequence, hash
    Head(Place),
    /// Print what was applied, in order, as an event log that can be replayed
    Dump {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        range: Range,
        /// Print the entries themselves (claims and frames) instead of the records in them
        #[arg(long)]
        entries: bool,
    },
}

/// A ledger that cannot be folded.
pub fn fold_failure(error: FoldError) -> Failure {
    match error {
        FoldError::Log(error) => error.into(),
        FoldError::Entry { .. } | FoldError::Sequence(_) | FoldError::Drift { .. } => Failure::new(Exit::Wrong, error),
    }
}

/// Prints the end or the whole of a ledger.
pub fn run(args: &Args) -> Result<(), Failure> {
    match &args.action {
        Action::Head(place) => {
            let mut log = place.open()?;
            place.shards(&*log)?.into_iter().try_for_each(|shard| head(&mut *log, shard))
        }
        Action::Dump { place, range, entries } => {
            let mut log = place.open()?;
            let shard = place.one_shard(&*log)?;
            Dump::new(shard, range.clone(), *entries).run(&mut *log)
        }
    }
}

/// Where the ledger of a shard ends.
fn head(log: &mut dyn ReadLog, shard: u32) -> Result<(), Failure> {
    let (mut sequence, mut seq) = (entrance(log, shard)?.unwrap_or_default(), 0);
    loop {
        let entries = log.read(Topic::Ledger, shard, sequence.next_offset, ENTRIES_PER_READ)?;
        if entries.is_empty() {
            break;
        }
        for stored in entries {
            let entry = decoded(stored.offset, &stored.payload)?;
            let judgement = sequence.judge(stored.offset, &entry, &stored.payload);
            let counts = judgement.map_err(|error| fold_failure(FoldError::Sequence(error)))? == Judgement::Counts;
            if let (Entry::Frame(frame), true) = (&entry, counts) {
                seq = last_seq(frame);
            }
        }
    }
    let Sequence { term, n, head, next_offset, .. } = sequence;
    let hash = (n > 0).then(|| hex(&head));
    say(&format!("{}\n", json!({"shard": shard, "term": term, "entries": n, "offset": next_offset, "seq": seq, "head": hash})))
}

/// A place near the end of a ledger from which it can be told which entries count: before the first frame of the
/// highest term. None where the last entries hold no such frame: then the ledger is read from its beginning. An owner
/// that was replaced leaves no more frames behind than it had in flight, which is far less than is looked at.
fn entrance(log: &mut dyn ReadLog, shard: u32) -> Result<Option<Sequence>, Failure> {
    let Extent { first, next: end, .. } = log.extent(Topic::Ledger, shard)?;
    if end - first <= TAIL_ENTRIES {
        return Ok(None);
    }
    let (mut next, mut highest, mut found) = (end - TAIL_ENTRIES, 0, None);
    while next < end {
        let entries = log.read(Topic::Ledger, shard, next, ENTRIES_PER_READ)?;
        let Some(last) = entries.last() else { break };
        next = last.offset + 1;
        for stored in entries {
            let entry = decoded(stored.offset, &stored.payload)?;
            let term = match &entry {
                Entry::Claim(claim) => claim.term,
                Entry::Frame(frame) => frame.term,
            };
            if term > highest {
                (highest, found) = (term, None);
            }
            if let (Entry::Frame(frame), None) = (&entry, &found)
                && term == highest
            {
                let (n, head, next_offset) = (frame.n, frame.prev_hash, stored.offset);
                found = Some(Sequence { term, n, head, next_offset, ..Sequence::default() });
            }
        }
    }
    Ok(found)
}

fn last_seq(frame: &Frame) -> u64 {
    (frame.first_seq + frame.inputs.len() as u64).saturating_sub(1)
}

fn decoded(offset: u64, payload: &[u8]) -> Result<Entry, Failure> {
    frame::decode(payload).map_err(|error| fold_failure(FoldError::Entry { offset, error }))
}

/// A hash as people read it.
pub fn hex(hash: &Hash) -> String {
    blake3::Hash::from_bytes(*hash).to_hex().to_string()
}

/// A ledger on standard output.
struct Dump {
    shard: u32,
    range: Range,
    entries: bool,
    sequence: Sequence,
    at: i64,
    lines: Vec<u8>,
}

impl Dump {
    fn new(shard: u32, range: Range, entries: bool) -> Self {
        Self { shard, range, entries, sequence: Sequence::default(), at: i64::MIN, lines: Vec::new() }
    }

    fn run(&mut self, log: &mut dyn ReadLog) -> Result<(), Failure> {
        loop {
            let entries = log.read(Topic::Ledger, self.shard, self.sequence.next_offset, ENTRIES_PER_READ)?;
            if entries.is_empty() {
                return Ok(());
            }
            for stored in entries {
                let entry = decoded(stored.offset, &stored.payload)?;
                let judgement = self.sequence.judge(stored.offset, &entry, &stored.payload);
                let judgement = judgement.map_err(|error| fold_failure(FoldError::Sequence(error)))?;
                if self.entries {
                    self.describe(stored.offset, &entry, judgement);
                } else if let (Entry::Frame(frame), Judgement::Counts) = (&entry, judgement)
                    && !self.records(frame)
                {
                    return self.flush();
                }
            }
            self.flush()?;
        }
    }

    /// The records of a frame as lines; false when the range is over.
    fn records(&mut self, frame: &Frame) -> bool {
        for (seq, input) in (frame.first_seq..).zip(&frame.inputs) {
            self.at = self.at.max(input.ts.min(frame.received));
            let stand = Stand { seq, at: self.at };
            if self.range.is_over(stand) {
                return false;
            }
            if self.range.has_begun(stand) {
                self.record(seq, frame.received, input);
            }
        }
        true
    }

    fn record(&mut self, seq: u64, received: i64, input: &FrameInput) {
        let mut line = Vec::new();
        let FrameInput { source, ts, routing, key, payload, .. } = input;
        let topic = Topic::Input(source.topic).name();
        write_any_line(&mut line, topic, source.partition, Some(source.offset), *ts, key.as_deref(), payload);
        let routing = if *routing == Routing::Here { String::new() } else { format!("\"routing\":\"{}\",", routing.as_str()) };
        self.lines.extend_from_slice(format!("{{\"seq\":{seq},\"received\":{received},{routing}").as_bytes());
        self.lines.extend_from_slice(line.strip_prefix(b"{").unwrap_or(&line));
    }

    fn describe(&mut self, offset: u64, entry: &Entry, judgement: Judgement) {
        let line = match entry {
            Entry::Claim(claim) => json!({
                "entry": "claim", "offset": offset, "counts": judgement == Judgement::Counts, "term": claim.term, "n": claim.n,
                "prev_hash": hex(&claim.prev_hash), "owner": claim.owner, "at": claim.at,
                "tzdb_version": claim.tzdb_version, "program_version": claim.program_version,
            }),
            Entry::Frame(frame) => json!({
                "entry": "frame", "offset": offset, "counts": judgement == Judgement::Counts, "term": frame.term, "n": frame.n,
                "prev_hash": hex(&frame.prev_hash), "first_seq": frame.first_seq, "last_seq": last_seq(frame), "received": frame.received,
                "outputs": frame.inputs.iter().map(|input| u64::from(input.outcome.outputs)).sum::<u64>(),
                "state_hash": frame.state_hash.as_ref().map(hex),
            }),
        };
        self.lines.extend_from_slice(format!("{line}\n").as_bytes());
    }

    fn flush(&mut self) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        let written = out.write_all(&self.lines).and_then(|()| out.flush());
        self.lines.clear();
        written.or_exit(Exit::Io, || "cannot write to standard output".to_owned())
    }
}
