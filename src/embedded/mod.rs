//! The embedded log: every topic in one SQLite file, for one process and one shard.
//!
//! Invariant: what is acknowledged is committed with `synchronous=FULL`; one thread writes, and an
//! exclusive lock on the data directory keeps every other process out. Inputs keep the order of their
//! appends across topics. Nothing is ever taken out but what a tombstone of `gate.directory` names, and that is gone for good.
//! Deliberately absent: retention, several partitions, several processes.

mod compacted;
mod error;
mod schema;
mod shard_log;
mod writer;

use std::fs::{DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use rusqlite::Connection;
use tokio::sync::watch;

use crate::log::{AppendDone, Extent, LogError, NewRecord, StoredRecord, Topic, Topics};
use crate::wire::frame::PAYLOAD_BYTES_KEPT;

pub use shard_log::EmbeddedShardLog;

use compacted::Compaction;
use error::{log_error, of_io};
use writer::{Job, Signal, Writer};

/// The file in the data directory.
const FILE: &str = "log.sqlite";
/// Read connections that are kept open.
const READERS_KEPT: usize = 8;

/// Which time a record gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Timestamps {
    /// That of the append.
    #[default]
    LogAppendTime,
    /// The producer's, where it gives one.
    Producer,
}

/// The embedded log's settings.
#[derive(Clone, Debug)]
pub struct EmbeddedOptions {
    /// The data directory; made when it is not there.
    pub dir: PathBuf,
    /// The time of records of input topics.
    pub timestamps: Timestamps,
    /// More records than this are not left waiting to be written.
    pub waiting_records_max: usize,
    /// How long to wait for another program that has the file locked, in ms.
    pub busy_timeout_ms: u64,
    /// The file is full at this size, before the disk is. `None` = the disk's size.
    pub file_bytes_max: Option<u64>,
}

impl EmbeddedOptions {
    /// Defaults, in this directory.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            timestamps: Timestamps::default(),
            waiting_records_max: 200_000,
            busy_timeout_ms: 2000,
            file_bytes_max: None,
        }
    }
}

/// The embedded log. Copies share one file.
#[derive(Clone)]
pub struct EmbeddedLog {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    jobs: Sender<Job>,
    shared: Arc<Shared>,
    readers: Mutex<Vec<Connection>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    options: EmbeddedOptions,
}

/// What the writer's thread and everyone else both see.
pub(crate) struct Shared {
    /// The next offset of each topic, in the order of [`Topic::ALL`].
    ends: Mutex<[u64; 11]>,
    refusing: Mutex<Option<LogError>>,
    waiting: AtomicUsize,
    changes: watch::Sender<u64>,
    shard: Mutex<Option<Sender<Signal>>>,
}

/// A lock whose holder panicked still guards plain values.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl EmbeddedLog {
    /// Opens the log of a data directory, or makes it.
    ///
    /// # Errors
    /// [`LogError::Locked`] when another process has it; else what is wrong with the directory or the file.
    pub fn open(options: EmbeddedOptions) -> Result<Self, LogError> {
        make_private(&options.dir).map_err(|e| of_io(&e))?;
        let lock = lock_directory(&options.dir)?;
        let path = options.dir.join(FILE);
        // SQLite would make it for everyone to read; those that it puts beside it have its mode.
        make_file(&path).map_err(|e| of_io(&e))?;
        let (connection, ends) = schema::open_for_writing(&path, options.busy_timeout_ms, options.file_bytes_max)?;
        let (jobs, inbox) = channel();
        let shared = Arc::new(Shared {
            ends: Mutex::new(ends),
            refusing: Mutex::new(None),
            waiting: AtomicUsize::new(0),
            changes: watch::channel(0).0,
            shard: Mutex::new(None),
        });
        let compaction = Compaction::of(&connection)?;
        let writer = Writer::new(connection, ends, compaction, options.timestamps, Arc::clone(&shared), lock);
        let thread = std::thread::Builder::new().name("log-writer".into()).spawn(move || writer.run(&inbox)).map_err(|e| of_io(&e))?;
        let inner = Inner { path, jobs, shared, readers: Mutex::new(Vec::new()), thread: Mutex::new(Some(thread)), options };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The shard's side. There is one shard: what an older one had in flight is not acknowledged any more.
    #[must_use]
    pub fn shard_log(&self) -> EmbeddedShardLog {
        let (signals, inbox) = channel();
        *locked(&self.inner.shared.shard) = Some(signals.clone());
        EmbeddedShardLog::new(self.clone(), signals, inbox)
    }

    /// The data directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.inner.options.dir
    }

    /// Writes what waits, closes the file and gives up the directory.
    pub fn close(&self) {
        if self.inner.jobs.send(Job::Close).is_ok()
            && let Some(thread) = locked(&self.inner.thread).take()
            && thread.join().is_err()
        {
            tracing::error!("the log's writer panicked");
        }
        locked(&self.inner.readers).clear();
    }

    pub(crate) fn send(&self, job: Job) -> Result<(), LogError> {
        self.inner.jobs.send(job).map_err(|_| LogError::Closed)
    }

    pub(crate) fn end_of(&self, topic: Topic) -> u64 {
        locked(&self.inner.shared.ends)[schema::place(topic)]
    }

    /// Lends a read connection.
    pub(crate) fn reading<R>(&self, read: impl FnOnce(&Connection) -> rusqlite::Result<R>) -> Result<R, LogError> {
        let kept = locked(&self.inner.readers).pop();
        let connection = match kept {
            Some(connection) => connection,
            None => schema::open_for_reading(&self.inner.path, self.inner.options.busy_timeout_ms)?,
        };
        let found = read(&connection).map_err(|e| log_error(&e));
        let mut readers = locked(&self.inner.readers);
        if found.is_ok() && readers.len() < READERS_KEPT {
            readers.push(connection);
        }
        found
    }

    fn refusal(&self, records: &[NewRecord]) -> Option<LogError> {
        if let Some(error) = self.refusing() {
            return Some(error);
        }
        let (waiting, limit) = (self.inner.shared.waiting.load(Ordering::Relaxed) + records.len(), self.inner.options.waiting_records_max);
        if waiting > limit {
            return Some(LogError::Overloaded { waiting, limit });
        }
        records.iter().find_map(|record| {
            let (bytes, limit) = (record.payload.len(), PAYLOAD_BYTES_KEPT);
            match record.partition {
                Some(partition) if partition != 0 => Some(LogError::NoSuchPartition { topic: record.topic, partition }),
                Some(_) | None => (bytes > limit).then_some(LogError::TooLarge { bytes, limit }),
            }
        })
    }
}

/// The embedded log of a data directory, to read from only: also while a daemon has it.
pub struct EmbeddedReader {
    connection: Connection,
    format: u32,
}

impl EmbeddedReader {
    /// Opens the log of a data directory.
    ///
    /// # Errors
    /// There is none, or it cannot be read.
    pub fn open(dir: &Path) -> Result<Self, LogError> {
        schema::open_to_look(&dir.join(FILE)).map(|(connection, format)| Self { connection, format })
    }

    /// Reads up to `limit` records at or above `from`; none at the end.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read(&self, topic: Topic, from: u64, limit: usize) -> Result<Vec<StoredRecord>, LogError> {
        if self.lacks(topic) {
            return Ok(Vec::new());
        }
        schema::read(&self.connection, topic, from, limit).map_err(|e| log_error(&e))
    }

    /// The offset that the next record of a topic will have.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn end(&self, topic: Topic) -> Result<u64, LogError> {
        if self.lacks(topic) {
            return Ok(0);
        }
        schema::end(&self.connection, topic).map_err(|e| log_error(&e))
    }

    /// A file that no newer program has opened for writing has no directory.
    fn lacks(&self, topic: Topic) -> bool {
        topic == Topic::Directory && self.format < schema::FORMAT
    }
}

impl Topics for EmbeddedLog {
    fn append(&self, records: Vec<NewRecord>, done: AppendDone) {
        if let Some(error) = self.refusal(&records) {
            return done(Err(error));
        }
        let count = records.len();
        self.inner.shared.waiting.fetch_add(count, Ordering::Relaxed);
        if let Err(unsent) = self.inner.jobs.send(Job::Append { records, done }) {
            self.inner.shared.waiting.fetch_sub(count, Ordering::Relaxed);
            if let Job::Append { done, .. } = unsent.0 {
                done(Err(LogError::Closed));
            }
        }
    }

    fn read(&self, topic: Topic, partition: u32, from: u64, limit: usize) -> Result<Vec<StoredRecord>, LogError> {
        if partition != 0 {
            return Err(LogError::NoSuchPartition { topic, partition });
        }
        self.reading(|connection| schema::read(connection, topic, from, limit))
    }

    fn extents(&self) -> Result<Vec<Extent>, LogError> {
        Ok(Topic::ALL.into_iter().map(|topic| Extent { topic, partition: 0, first: 0, next: self.end_of(topic) }).collect())
    }

    fn extent(&self, topic: Topic, partition: u32) -> Result<Extent, LogError> {
        if partition != 0 {
            return Err(LogError::NoSuchPartition { topic, partition });
        }
        Ok(Extent { topic, partition, first: 0, next: self.end_of(topic) })
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.inner.shared.changes.subscribe()
    }

    fn refusing(&self) -> Option<LogError> {
        locked(&self.inner.shared.refusing).clone()
    }
}

/// Makes a data directory, where there is none: for its owner alone, since hashes of passwords and sealed keys lie in it. One that is
/// there is left as it is.
///
/// # Errors
/// It cannot be made.
pub fn make_private(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Makes a file for its owner alone, where there is none. One that is there is not touched: closing it would end SQLite's locks on it.
fn make_file(path: &Path) -> io::Result<()> {
    match File::options().create_new(true).write(true).mode(0o600).open(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Takes a data directory for this process, as long as the file is open. The kernel gives it back when the process ends, however it ends.
///
/// # Errors
/// [`LogError::Locked`] when another process has it.
pub fn lock_directory(dir: &Path) -> Result<File, LogError> {
    let path = dir.join("LOCK");
    let file = File::options().create(true).truncate(false).write(true).mode(0o600).open(path).map_err(|e| of_io(&e))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(LogError::Locked { path: dir.display().to_string() }),
        Err(TryLockError::Error(error)) => Err(of_io(&error)),
    }
}

#[cfg(test)]
mod tests;
