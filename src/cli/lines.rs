//! Event logs as files: plain, gzip or zstd, from a path or standard input, line by line.
//!
//! Invariant: memory does not grow with the file, and an error knows its file and line.

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::bufread::MultiGzDecoder;
use indicatif::{ProgressBar, ProgressStyle};

use super::{Exit, Failure, OrExit};

const BUFFER_BYTES: usize = 1 << 20;
/// Far above any line with a value of 64 KiB; a file without line feeds must not fill the memory.
const LINE_BYTES_MAX: u64 = 16 << 20;

/// A file of lines.
pub struct Lines {
    name: String,
    reader: Box<dyn BufRead>,
    line: Vec<u8>,
    number: u64,
    progress: Progress,
}

impl Lines {
    /// Opens a path, or standard input for `-`. Compression is told by the first bytes.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let standard = path.as_os_str() == "-";
        let name = if standard { "-".to_owned() } else { path.display().to_string() };
        let (raw, size): (Box<dyn Read>, u64) = if standard {
            (Box::new(io::stdin().lock()), 0)
        } else {
            let file = File::open(path).or_exit(Exit::Io, || format!("cannot open {name}"))?;
            let size = file.metadata().map_or(0, |metadata| metadata.len());
            (Box::new(file), size)
        };
        let progress = Progress::new(size);
        let counted = Counted { inner: raw, count: progress.done.clone() };
        let reader = decompressed(BufReader::with_capacity(BUFFER_BYTES, counted)).or_exit(Exit::Io, || format!("cannot read {name}"))?;
        Ok(Self { name, reader, line: Vec::new(), number: 0, progress })
    }

    /// Goes to the next line; false at the end.
    pub fn advance(&mut self) -> Result<bool, Failure> {
        self.line.clear();
        let mut limited = (&mut self.reader).take(LINE_BYTES_MAX);
        // What cannot be decompressed is wrong input; what cannot be read is told the same way, with its place.
        let read = limited.read_until(b'\n', &mut self.line);
        let read = read.or_exit(Exit::Wrong, || format!("{}:{}: cannot read on", self.name, self.number + 1))?;
        if read == 0 {
            self.end();
            return Ok(false);
        }
        self.number += 1;
        self.progress.tick(self.number);
        if self.line.last() == Some(&b'\n') {
            self.line.pop();
        } else if self.line.len() as u64 == LINE_BYTES_MAX {
            return Err(self.wrong("the line is longer than 16 MiB"));
        }
        Ok(true)
    }

    /// Takes the progress off the terminal.
    pub fn end(&self) {
        self.progress.end();
    }

    /// The line that is at hand, without its line feed.
    #[must_use]
    pub fn line(&self) -> &[u8] {
        &self.line
    }

    /// The number of the line that is at hand, from 1.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// A failure of the line that is at hand.
    #[must_use]
    pub fn wrong(&self, what: impl std::fmt::Display) -> Failure {
        self.progress.end();
        Failure::new(Exit::Wrong, format!("{}:{}: {what}", self.name, self.number))
    }
}

fn decompressed(mut raw: BufReader<Counted>) -> io::Result<Box<dyn BufRead>> {
    let head = raw.fill_buf()?;
    if head.starts_with(&[0x1f, 0x8b]) {
        return Ok(Box::new(BufReader::with_capacity(BUFFER_BYTES, MultiGzDecoder::new(raw))));
    }
    if head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        return Ok(Box::new(BufReader::with_capacity(BUFFER_BYTES, zstd::Decoder::with_buffer(raw)?)));
    }
    Ok(Box::new(raw))
}

/// Counts what is read of a file, before it is decompressed.
struct Counted {
    inner: Box<dyn Read>,
    count: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buf)?;
        self.count.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

/// How far a file is read, shown only on a terminal.
struct Progress {
    bar: Option<ProgressBar>,
    done: Arc<AtomicU64>,
}

impl Progress {
    fn new(size: u64) -> Self {
        let done = Arc::new(AtomicU64::new(0));
        if !io::stderr().is_terminal() {
            return Self { bar: None, done };
        }
        let template = "{elapsed_precise} {wide_bar} {bytes}/{total_bytes} {msg}";
        let bar = if size == 0 { ProgressBar::new_spinner() } else { ProgressBar::new(size) };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self { bar: Some(bar), done }
    }

    fn tick(&self, line: u64) {
        if let Some(bar) = self.bar.as_ref().filter(|_| line.is_multiple_of(4096)) {
            bar.set_position(self.done.load(Ordering::Relaxed));
            bar.set_message(format!("{line} lines"));
        }
    }

    fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
