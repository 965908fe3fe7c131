//! Event logs as files: plain, gzip or zstd, from a path or standard input, line by line.
//!
//! Invariant: memory does not grow with the file, and an error knows its file and line.

use std::io::{self, BufRead, IsTerminal, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use indicatif::{ProgressBar, ProgressStyle};

use super::{Exit, Failure, OrExit};
use crate::engine::EventLog;

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
        let EventLog { name, lines: reader, bytes, read } = EventLog::open(path).map_err(|error| Failure::new(Exit::Io, error))?;
        let progress = Progress::new(bytes.unwrap_or(0), read);
        Ok(Self { name, reader, line: Vec::new(), number: 0, progress })
    }

    /// Goes to the next line that is not blank; false at the end.
    pub fn advance(&mut self) -> Result<bool, Failure> {
        loop {
            if !self.read_line()? {
                return Ok(false);
            }
            if !self.line.trim_ascii().is_empty() {
                return Ok(true);
            }
        }
    }

    fn read_line(&mut self) -> Result<bool, Failure> {
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

/// How far a file is read, shown only on a terminal.
struct Progress {
    bar: Option<ProgressBar>,
    done: Arc<AtomicU64>,
}

impl Progress {
    fn new(size: u64, done: Arc<AtomicU64>) -> Self {
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
