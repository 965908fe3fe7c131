//! Replay: a file of records, or a ledger, folded silently; every output goes to the caller.
//!
//! Invariant: it publishes nothing anywhere, and the same input gives the same outputs. A record of a
//! file is never misrouted: where it stood is a matter of the log that it once was in.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::domain::{Effects, InputTopic, Millis, Source};
use crate::log::{LogError, OutputRecord, StoredRecord};
use crate::wire::frame::{self, Entry, Routing};
use crate::wire::{self, LineError, Origin, TopicNames};

use super::codec;
use super::fold::{Fold, Told};
use super::ownership::{Judgement, Sequence};
use super::replica::FoldError;

const READ_BUFFER_BYTES: usize = 256 * 1024;

/// One record that was applied.
pub struct Replayed<'a> {
    /// The fold after it.
    pub fold: &'a Fold,
    /// Where it stood.
    pub source: Source,
    /// Its log timestamp.
    pub ts: Millis,
    /// The gate's clock, where it is known.
    pub received: Option<Millis>,
    /// What it caused, as values.
    pub effects: &'a Effects,
    /// What it caused, as records, in output order.
    pub outputs: &'a [OutputRecord],
}

/// Who is told of every record: goes on or ends the replay early.
pub type Visit<'a> = dyn FnMut(&Replayed<'_>) -> io::Result<ControlFlow<()>> + 'a;

/// Why a replay ends before its end.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The file cannot be read.
    #[error("{file}: {error}")]
    Read {
        /// The file.
        file: String,
        /// What the system said.
        error: io::Error,
    },
    /// A line is no record.
    #[error("{file}:{line}: {error}")]
    Line {
        /// The file.
        file: String,
        /// The line, from 1.
        line: u64,
        /// What is wrong with it.
        error: LineError,
    },
    /// Whoever is told cannot go on.
    #[error("the output cannot be written: {0}")]
    Visit(io::Error),
    /// The ledger cannot be folded.
    #[error(transparent)]
    Ledger(#[from] FoldError),
}

/// An event log to read, unpacked by what it holds and not by its name.
pub struct EventLog {
    /// Its name in messages.
    pub name: String,
    /// Its lines.
    pub lines: Box<dyn BufRead>,
    /// Its length as it lies on the disk, where that is known.
    pub bytes: Option<u64>,
    /// How much of that is read.
    pub read: Arc<AtomicU64>,
}

impl EventLog {
    /// Opens a file, or standard input for `-`; gzip and zstd are recognised by their first bytes.
    ///
    /// # Errors
    /// [`ReplayError::Read`].
    pub fn open(path: &Path) -> Result<Self, ReplayError> {
        let is_stdin = path == Path::new("-");
        let name = if is_stdin { "<stdin>".to_owned() } else { path.display().to_string() };
        let open = || -> io::Result<Self> {
            if is_stdin {
                return Self::of(name.clone(), Box::new(io::stdin()), None);
            }
            let file = File::open(path)?;
            let bytes = file.metadata()?.len();
            Self::of(name.clone(), Box::new(file), Some(bytes))
        };
        open().map_err(|error| ReplayError::Read { file: name.clone(), error })
    }

    fn of(name: String, raw: Box<dyn Read>, bytes: Option<u64>) -> io::Result<Self> {
        let read = Arc::new(AtomicU64::new(0));
        let mut counted = BufReader::with_capacity(READ_BUFFER_BYTES, Counted { raw, read: Arc::clone(&read) });
        let head = counted.fill_buf()?;
        let lines: Box<dyn BufRead> = if head.starts_with(&[0x1f, 0x8b]) {
            Box::new(BufReader::with_capacity(READ_BUFFER_BYTES, flate2::bufread::MultiGzDecoder::new(counted)))
        } else if head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            Box::new(BufReader::with_capacity(READ_BUFFER_BYTES, zstd::Decoder::with_buffer(counted)?))
        } else {
            Box::new(counted)
        };
        Ok(Self { name, lines, bytes, read })
    }
}

struct Counted {
    raw: Box<dyn Read>,
    read: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.raw.read(buffer)?;
        self.read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

/// Folds the lines of an event log in file order, and returns the fold.
///
/// # Errors
/// The first line that is no record of the form; nothing of it is applied.
pub fn replay_lines(log: EventLog, names: &TopicNames, visit: &mut Visit<'_>) -> Result<Fold, ReplayError> {
    let EventLog { name: file, mut lines, .. } = log;
    let mut fold = Fold::new(0);
    let mut next: BTreeMap<(InputTopic, u32), u64> = BTreeMap::new();
    let (mut text, mut number, mut outputs) = (Vec::new(), 0, Vec::new());
    loop {
        text.clear();
        let read = lines.read_until(b'\n', &mut text).map_err(|error| ReplayError::Read { file: file.clone(), error })?;
        if read == 0 {
            return Ok(fold);
        }
        number += 1;
        if text.trim_ascii().is_empty() {
            continue;
        }
        let at_fault = |error| ReplayError::Line { file: file.clone(), line: number, error };
        let line = wire::parse_line(&text).map_err(at_fault)?;
        let Some(topic) = names.find_input(&line.topic) else { continue };
        let ts = line.time().map_err(at_fault)?;
        let partition = line.partition.unwrap_or(0);
        let end = next.entry((topic, partition)).or_default();
        let source = Source { topic, partition, offset: line.offset.unwrap_or(*end) };
        *end = source.offset.saturating_add(1);
        outputs.clear();
        let event = codec::event_of(topic, line.key.as_deref(), &line.payload, Routing::Here);
        let bytes = Origin { source, key: line.key.as_deref(), payload: &line.payload };
        fold.apply_event(&bytes, Told { ts, received: line.received, quiet: false }, event, &mut outputs);
        let replayed = Replayed { fold: &fold, source, ts, received: line.received, effects: fold.effects(), outputs: &outputs };
        if visit(&replayed).map_err(ReplayError::Visit)?.is_break() {
            return Ok(fold);
        }
    }
}

/// Folds the records of a ledger that count, and returns the fold. Unlike verification it does not
/// hold the outcome against what was recorded.
///
/// # Errors
/// The ledger cannot be read, is damaged, or entries are missing.
pub fn replay_ledger(
    shard: u32,
    mut read: impl FnMut(u64, usize) -> Result<Vec<StoredRecord>, LogError>,
    visit: &mut Visit<'_>,
) -> Result<Fold, ReplayError> {
    let mut fold = Fold::new(shard);
    let mut sequence = Sequence::default();
    let mut outputs = Vec::new();
    loop {
        let entries = read(sequence.next_offset, 64).map_err(FoldError::Log)?;
        if entries.is_empty() {
            return Ok(fold);
        }
        for stored in entries {
            let offset = stored.offset;
            let entry = frame::decode(&stored.payload).map_err(|error| FoldError::Entry { offset, error })?;
            let counts = sequence.judge(offset, &entry, &stored.payload).map_err(FoldError::Sequence)? == Judgement::Counts;
            let Entry::Frame(frame) = entry else { continue };
            let received = Some(frame.received);
            for input in frame.inputs.iter().filter(|_| counts) {
                outputs.clear();
                let (source, ts, key) = (input.source, input.ts, input.key.as_deref());
                let event = codec::event_of(source.topic, key, &input.payload, input.routing);
                let told = Told { ts, received, quiet: input.routing == Routing::Quiet };
                fold.apply_event(&Origin { source, key, payload: &input.payload }, told, event, &mut outputs);
                let replayed = Replayed { fold: &fold, source, ts, received, effects: fold.effects(), outputs: &outputs };
                if visit(&replayed).map_err(ReplayError::Visit)?.is_break() {
                    return Ok(fold);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const LINES: &str = concat!(
        r#"{"topic":"market.prices","ts":1,"payload":{"event":"trade","symbol":"AAPL","price":"1"}}"#,
        "\n\n",
        r#"{"topic":"gate.decisions","ts":1,"payload":{}}"#,
        "\n",
        r#"{"topic":"market.prices","partition":2,"offset":9,"ts":3,"received":4,"key":"AAPL","payload":"no record"}"#,
    );

    type Seen = (u32, u64, Millis, Option<Millis>);

    fn replayed(bytes: Vec<u8>) -> Result<Vec<Seen>, ReplayError> {
        let log = EventLog::of("x.jsonl".into(), Box::new(io::Cursor::new(bytes)), None).unwrap();
        let mut seen = Vec::new();
        replay_lines(log, &TopicNames::default(), &mut |record| {
            seen.push((record.source.partition, record.source.offset, record.ts, record.received));
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(seen)
    }

    #[test]
    fn plain_gzip_and_zstd_files_are_told_apart_by_what_they_hold() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(LINES.as_bytes()).unwrap();
        let zstd = zstd::encode_all(LINES.as_bytes(), 1).unwrap();
        for bytes in [LINES.as_bytes().to_vec(), gzip.finish().unwrap(), zstd] {
            assert_eq!(replayed(bytes).unwrap(), [(0, 0, 1, None), (2, 9, 3, Some(4))]);
        }
    }

    #[test]
    fn a_line_that_is_no_record_ends_the_run_with_its_place() {
        let error = replayed(b"{\"topic\":\"market.prices\",\"ts\":1,\"payload\":{}}\nnonsense\n".to_vec()).unwrap_err();
        assert!(error.to_string().starts_with("x.jsonl:2: "), "{error}");
        let error = replayed(b"{\"topic\":\"market.prices\",\"payload\":{}}".to_vec()).unwrap_err();
        assert_eq!(error.to_string(), "x.jsonl:1: `ts` is missing");
    }
}
