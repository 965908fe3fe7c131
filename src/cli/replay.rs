//! `ordergate replay`: an event log, or a shard's ledger, through a new gate, and what comes out of it.
//!
//! Invariant: the output is a function of the input; nothing is published anywhere. Deliberately
//! absent: the engine. A replay neither claims nor commits, it only folds.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use super::ledger::fold_failure;
use super::lines::Lines;
use super::place::{Place, ReadLog};
use super::range::{Range, Stand};
use super::{Exit, Failure, OrExit};
use crate::domain::{Effects, InputTopic, Millis, Output, Record, Source};
use crate::engine::{Fold, ReplayError, Replayed, Visit, event_of, replay_ledger, state_hash};
use crate::gate::Gate;
use crate::log::{OutputRecord, Topic};
use crate::wire::frame::Routing;
use crate::wire::{self, Line, Origin, OutputTopic, TopicNames};

/// Arguments of `replay`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Event log as `kcat -J` writes it (.gz and .zst are read directly); - for standard input
    #[arg(required_unless_present_any = ["data_dir", "brokers", "config"], conflicts_with_all = ["data_dir", "brokers"])]
    file: Option<PathBuf>,
    #[command(flatten)]
    place: Place,
    /// Write the shard's final books as JSON to this file
    #[arg(long, value_name = "PATH")]
    state: Option<PathBuf>,
    /// Print dead letters too
    #[arg(long)]
    dead_letter: bool,
    #[command(flatten)]
    range: Range,
}

const FLUSH_BYTES: usize = 256 * 1024;

/// Replays a file, or without one the ledger of a shard.
pub fn run(args: &Args) -> Result<(), Failure> {
    let Some(file) = &args.file else { return ledger(args) };
    let mut replay = Replay::new(args);
    replay.file(file, &args.place.names()?)?;
    replay.printer.flush()?;
    match &args.state {
        Some(path) => write_state(&replay.gate, path),
        None => Ok(()),
    }
}

/// Folds the ledger of a shard.
fn ledger(args: &Args) -> Result<(), Failure> {
    let mut log = args.place.open()?;
    let shard = args.place.one_shard(&*log)?;
    let mut printer = Printer::new(args);
    let (mut failed, mut last, mut over) = (None, 0, false);
    let mut fold = fold_ledger(&mut *log, shard, &mut |record| {
        let gate = record.fold.gate();
        let stand = Stand { seq: gate.seq(), at: gate.at() };
        over = args.range.is_over(stand);
        if over {
            return Ok(ControlFlow::Break(()));
        }
        last = stand.seq;
        printer.silent = !args.range.has_begun(stand);
        if let Err(failure) = printer.print_records(record.outputs, gate) {
            failed = Some(failure);
            return Ok(ControlFlow::Break(()));
        }
        Ok(ControlFlow::Continue(()))
    })?;
    if let Some(failure) = failed {
        return Err(failure);
    }
    printer.flush()?;
    let Some(path) = &args.state else { return Ok(()) };
    if over {
        // The range was seen to be over one record too late: the books are those before it.
        let until =
            |record: &Replayed<'_>| if record.fold.gate().seq() < last { ControlFlow::Continue(()) } else { ControlFlow::Break(()) };
        fold = if last == 0 { Fold::new(shard) } else { fold_ledger(&mut *log, shard, &mut |record| Ok(until(record)))? };
    }
    write_state(fold.gate(), path)
}

fn fold_ledger(log: &mut dyn ReadLog, shard: u32, visit: &mut Visit<'_>) -> Result<Fold, Failure> {
    let folded = replay_ledger(shard, |from, limit| log.read(Topic::Ledger, shard, from, limit), visit);
    folded.map_err(|error| match error {
        ReplayError::Ledger(error) => fold_failure(error),
        ReplayError::Read { .. } | ReplayError::Line { .. } | ReplayError::Visit(_) => Failure::new(Exit::Io, error),
    })
}

struct Replay {
    gate: Gate,
    effects: Effects,
    offsets: HashMap<(InputTopic, u32), u64>,
    range: Range,
    printer: Printer,
}

impl Replay {
    fn new(args: &Args) -> Self {
        let gate = Gate::new(args.place.named_shard().unwrap_or(0));
        Self { gate, effects: Effects::default(), offsets: HashMap::new(), range: args.range.clone(), printer: Printer::new(args) }
    }

    fn file(&mut self, path: &Path, names: &TopicNames) -> Result<(), Failure> {
        let mut lines = Lines::open(path)?;
        while lines.advance()? {
            let line = wire::parse_line(lines.line()).map_err(|error| lines.wrong(error))?;
            let Some(topic) = names.find_input(&line.topic) else { continue };
            let ts = line.time().map_err(|error| lines.wrong(error))?;
            let source = self.source(topic, &line);
            if !self.take(source, ts, &line)? {
                break;
            }
        }
        lines.end();
        Ok(())
    }

    /// Where the record stands: as the line says, else after the one before it.
    fn source(&mut self, topic: InputTopic, line: &Line<'_>) -> Source {
        let partition = line.partition.unwrap_or(0);
        let next = self.offsets.entry((topic, partition)).or_insert(0);
        let offset = line.offset.unwrap_or(*next);
        *next = offset.saturating_add(1);
        Source { topic, partition, offset }
    }

    /// Applies one record and prints what it causes; false when the range is over.
    fn take(&mut self, source: Source, ts: Millis, line: &Line<'_>) -> Result<bool, Failure> {
        let stand = Stand { seq: self.gate.seq() + 1, at: line.received.map_or(ts, |received| ts.min(received)).max(self.gate.at()) };
        if self.range.is_over(stand) {
            return Ok(false);
        }
        let key = line.key.as_deref();
        let event = event_of(source.topic, key, &line.payload, line.routing);
        let quiet = line.routing == Routing::Quiet;
        let record = Record { source, ts, received: line.received, key: wire::key_as_id(key), event, quiet };
        self.effects.clear();
        self.gate.apply(&record, &mut self.effects);
        if !self.effects.outputs.is_empty() {
            let origin = Origin { source, key, payload: &line.payload };
            self.printer.silent = !self.range.has_begun(stand);
            self.printer.print(&self.effects, &origin, &self.gate)?;
        }
        Ok(true)
    }
}

fn write_state(gate: &Gate, path: &Path) -> Result<(), Failure> {
    let doing = || format!("cannot write {}", path.display());
    let mut state = Vec::new();
    let hash = blake3::Hash::from_bytes(state_hash(gate)).to_hex();
    wire::encode_state(&mut state, gate.seq(), gate.at(), &hash, gate.books());
    state.push(b'\n');
    let mut file = BufWriter::new(File::create(path).or_exit(Exit::Io, doing)?);
    file.write_all(&state).and_then(|()| file.flush()).or_exit(Exit::Io, doing)
}

/// Outputs as lines on standard output.
#[derive(Default)]
struct Printer {
    dead_letter: bool,
    /// Count outputs and do not print them.
    silent: bool,
    /// Go on when nobody reads any more: something else is wanted of the run.
    whole: bool,
    deaf: bool,
    buffer: Vec<u8>,
    payload: Vec<u8>,
    offsets: [u64; OutputTopic::ALL.len()],
}

impl Printer {
    fn new(args: &Args) -> Self {
        Self { dead_letter: args.dead_letter, whole: args.state.is_some(), ..Self::default() }
    }

    fn print(&mut self, effects: &Effects, origin: &Origin<'_>, gate: &Gate) -> Result<(), Failure> {
        for output in &effects.outputs {
            let topic = wire::topic_of(output);
            let offset = self.offsets[topic.place()];
            self.offsets[topic.place()] += 1;
            if self.silent || matches!(output, Output::DeadLetter(_)) && !self.dead_letter {
                continue;
            }
            self.payload.clear();
            wire::encode_output(&mut self.payload, output, effects, origin);
            let key = wire::key_of(output, origin);
            wire::write_line(&mut self.buffer, topic.as_str(), gate.shard(), Some(offset), gate.at(), key, &self.payload);
        }
        self.flush_when_full()
    }

    fn print_records(&mut self, outputs: &[OutputRecord], gate: &Gate) -> Result<(), Failure> {
        for output in outputs {
            let offset = self.offsets[output.topic.place()];
            self.offsets[output.topic.place()] += 1;
            if self.silent || output.topic == OutputTopic::DeadLetter && !self.dead_letter {
                continue;
            }
            let key = output.key.as_deref();
            wire::write_line(&mut self.buffer, output.topic.as_str(), gate.shard(), Some(offset), gate.at(), key, &output.payload);
        }
        self.flush_when_full()
    }

    fn flush_when_full(&mut self) -> Result<(), Failure> {
        if self.buffer.len() >= FLUSH_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), Failure> {
        if self.deaf {
            self.buffer.clear();
            return Ok(());
        }
        let mut out = io::stdout().lock();
        let written = out.write_all(&self.buffer).and_then(|()| out.flush());
        self.buffer.clear();
        match written {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe && self.whole => self.deaf = true,
            written => written.or_exit(Exit::Io, || "cannot write to standard output".to_owned())?,
        }
        Ok(())
    }
}
