//! `ordergate verify` and `ordergate ledger`: the ledger of a data directory, also while a daemon has it.
//!
//! Invariant: nothing here writes. A dump is an event log: replayed, it gives the same decisions.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::json;

use super::range::{Range, Stand};
use super::settings::ConfigFile;
use super::{Exit, Failure, OrExit, say};
use crate::embedded::EmbeddedReader;
use crate::engine::{FoldError, Judgement, Sequence, verify};
use crate::log::Topic;
use crate::wire::frame::{self, Entry, Frame, FrameInput, Hash};
use crate::wire::write_any_line;

/// The embedded log has one shard.
const SHARD: u32 = 0;
const ENTRIES_PER_READ: usize = 64;

/// Which ledger.
#[derive(Debug, clap::Args)]
pub struct Place {
    #[command(flatten)]
    file: ConfigFile,
    /// Directory of the log (data_dir)
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

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

impl Place {
    /// A reader of the log, and the directory it is in.
    pub fn open(&self) -> Result<EmbeddedReader, Failure> {
        let flag = self.data_dir.as_ref().map(|dir| ("data_dir".to_owned(), dir.display().to_string()));
        let config = self.file.load(&flag.into_iter().collect::<Vec<_>>())?;
        open(&config.data_dir)
    }
}

/// A reader of the log in a directory.
pub fn open(dir: &Path) -> Result<EmbeddedReader, Failure> {
    if !dir.is_dir() {
        return Err(Failure::new(Exit::Log, format!("there is no data directory {}; --data-dir or data_dir names it", dir.display())));
    }
    Ok(EmbeddedReader::open(dir)?)
}

/// Folds the whole ledger again and holds it against what it recorded.
pub fn run_verify(place: &Place) -> Result<(), Failure> {
    let reader = place.open()?;
    let read = |from, limit| reader.read(Topic::Ledger, from, limit);
    let (verified, _) = verify(SHARD, read, |_| ()).map_err(fold_failure)?;
    say(&format!(
        "ok: {} entries ({} void), term {}, seq {}, {} outputs as recorded\nhead {}\nstate {}\n",
        verified.entries,
        verified.void_entries,
        verified.term,
        verified.seq,
        verified.outputs,
        hex(&verified.head),
        hex(&verified.state_hash),
    ))
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
        Action::Head(place) => head(&place.open()?),
        Action::Dump { place, range, entries } => Dump::new(range.clone(), *entries).run(&place.open()?),
    }
}

fn head(reader: &EmbeddedReader) -> Result<(), Failure> {
    let end = reader.end(Topic::Ledger)?;
    let (mut seq, mut last) = (0, None);
    for offset in (0..end).rev() {
        let Some(stored) = reader.read(Topic::Ledger, offset, 1)?.pop() else { continue };
        let entry = decoded(offset, &stored.payload)?;
        let (term, n, prev_hash) = match &entry {
            Entry::Claim(claim) => (claim.term, claim.n, claim.prev_hash),
            Entry::Frame(frame) => (frame.term, frame.n, frame.prev_hash),
        };
        last.get_or_insert((term, n, frame::link(&prev_hash, &stored.payload)));
        if let Entry::Frame(frame) = &entry {
            seq = last_seq(frame);
            break;
        }
    }
    let (term, entries, hash) = last.map_or((0, 0, None), |(term, n, hash)| (term, n + 1, Some(hex(&hash))));
    say(&format!("{}\n", json!({"shard": SHARD, "term": term, "entries": entries, "offset": end, "seq": seq, "head": hash})))
}

fn last_seq(frame: &Frame) -> u64 {
    (frame.first_seq + frame.inputs.len() as u64).saturating_sub(1)
}

fn decoded(offset: u64, payload: &[u8]) -> Result<Entry, Failure> {
    frame::decode(payload).map_err(|error| fold_failure(FoldError::Entry { offset, error }))
}

fn hex(hash: &Hash) -> String {
    blake3::Hash::from_bytes(*hash).to_hex().to_string()
}

/// A ledger on standard output.
struct Dump {
    range: Range,
    entries: bool,
    sequence: Sequence,
    at: i64,
    lines: Vec<u8>,
}

impl Dump {
    fn new(range: Range, entries: bool) -> Self {
        Self { range, entries, sequence: Sequence::default(), at: i64::MIN, lines: Vec::new() }
    }

    fn run(&mut self, reader: &EmbeddedReader) -> Result<(), Failure> {
        loop {
            let entries = reader.read(Topic::Ledger, self.sequence.next_offset, ENTRIES_PER_READ)?;
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
        let FrameInput { source, ts, key, payload, .. } = input;
        let topic = Topic::Input(source.topic).name();
        write_any_line(&mut line, topic, source.partition, Some(source.offset), *ts, key.as_deref(), payload);
        self.lines.extend_from_slice(format!("{{\"seq\":{seq},\"received\":{received},").as_bytes());
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
