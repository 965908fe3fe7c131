//! The one thread that writes: everything that waits goes into one transaction, then is acknowledged.
//!
//! Invariant: acknowledgements follow the commit, in the order of the appends; after a failure
//! nothing that the shard asked for before it learnt of it is written. Deliberately absent: reads.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, params};

use crate::domain::Millis;
use crate::log::{AppendDone, LogError, LogEvent, NewRecord, OutputRecord, Placed, Topic};

use super::compacted::Compaction;
use super::error::log_error;
use super::{Shared, Timestamps, locked, schema};

/// No more than this goes into one transaction.
const BATCH_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How often a log that cannot commit is tried again.
const PROBE_EVERY: Duration = Duration::from_millis(500);

/// Something to write.
pub(crate) enum Job {
    /// Records of anyone.
    Append { records: Vec<NewRecord>, done: AppendDone },
    /// A ledger entry of the shard.
    Entry { session: u64, ticket: u64, entry: Vec<u8> },
    /// An output of the shard.
    Output { session: u64, ticket: u64, output: OutputRecord },
    /// Nothing more comes.
    Close,
}

/// What the shard's side is told.
pub(crate) enum Signal {
    /// Something that it asked for.
    Event { session: u64, event: LogEvent },
    /// There are new inputs.
    Inputs,
    /// Someone wants its attention.
    Wake,
}

/// The writing side of the file.
pub(crate) struct Writer {
    connection: Connection,
    ends: [u64; 11],
    compaction: Compaction,
    timestamps: Timestamps,
    shared: Arc<Shared>,
    commits: u64,
    /// The shard's session that met a failure: the rest of it is not written.
    failed_session: Option<u64>,
    /// Held until the file is closed.
    _lock: File,
}

/// What is told after the commit.
enum Told {
    Append { done: AppendDone, placed: Vec<Placed>, count: usize },
    Shard { session: u64, event: LogEvent },
}

impl Writer {
    pub(super) fn new(
        connection: Connection,
        ends: [u64; 11],
        compaction: Compaction,
        timestamps: Timestamps,
        shared: Arc<Shared>,
        lock: File,
    ) -> Self {
        Self { connection, ends, compaction, timestamps, shared, commits: 0, failed_session: None, _lock: lock }
    }

    /// Writes until there is no one left to write for.
    pub(super) fn run(mut self, inbox: &Receiver<Job>) {
        loop {
            let first = match inbox.recv_timeout(PROBE_EVERY) {
                Ok(job) => job,
                Err(RecvTimeoutError::Timeout) => {
                    self.probe();
                    self.compaction.tidy(&self.connection, true);
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let (batch, closing) = gather(first, inbox);
            self.write(batch);
            self.compaction.tidy(&self.connection, closing);
            if closing {
                // Dropping the inbox refuses what comes later; the connection closes with this thread.
                return;
            }
        }
    }

    fn write(&mut self, batch: Vec<Job>) {
        if batch.is_empty() {
            return;
        }
        let ends = self.ends;
        let mut told = Vec::with_capacity(batch.len());
        let wrote = self.insert(batch, &mut told);
        match wrote {
            Ok(()) => self.tell(told, ends),
            Err(error) => {
                self.ends = ends;
                self.fail(told, &error);
            }
        }
    }

    /// One transaction. Whatever fails, `told` has everyone who must be told.
    fn insert(&mut self, batch: Vec<Job>, told: &mut Vec<Told>) -> Result<(), LogError> {
        let now = wall_ms();
        let mut result = self.connection.execute_batch("BEGIN IMMEDIATE").map_err(|e| log_error(&e));
        for job in batch {
            let inserted = match job {
                Job::Append { records, done } => {
                    let count = records.len();
                    let (placed, inserted) = if result.is_ok() { self.insert_records(records, now) } else { (vec![], Ok(())) };
                    told.push(Told::Append { done, placed, count });
                    inserted
                }
                Job::Entry { session, ticket, .. } | Job::Output { session, ticket, .. } if self.failed_session == Some(session) => {
                    // Only the session is over: what others write in the same batch lands.
                    let error = LogError::Io { detail: "an append before this one failed".into() };
                    told.push(Told::Shard { session, event: LogEvent::Failed { ticket, error } });
                    Ok(())
                }
                Job::Entry { session, ticket, entry } => {
                    let offset = self.next(Topic::Ledger);
                    told.push(Told::Shard { session, event: LogEvent::Appended { ticket, offset } });
                    self.insert_of_shard(&result, |c| insert_output(c, Topic::Ledger, offset, now, None, &entry, None))
                }
                Job::Output { session, ticket, output } => {
                    let topic = Topic::Output(output.topic);
                    let offset = self.next(topic);
                    told.push(Told::Shard { session, event: LogEvent::Published { ticket, topic: output.topic, offset } });
                    let tag = Some(output.tag);
                    let (key, payload) = (output.key.as_deref(), output.payload.as_slice());
                    self.insert_of_shard(&result, |c| insert_output(c, topic, offset, now, key, payload, tag))
                }
                Job::Close => Ok(()),
            };
            result = result.and(inserted);
        }
        let result = result.and_then(|()| self.connection.execute_batch("COMMIT").map_err(|e| log_error(&e)));
        if result.is_err() && !self.connection.is_autocommit() {
            // Where even this fails, the next BEGIN says so.
            let _ = self.connection.execute_batch("ROLLBACK");
        }
        result
    }

    fn next(&mut self, topic: Topic) -> u64 {
        let end = &mut self.ends[schema::place(topic)];
        *end += 1;
        *end - 1
    }

    fn insert_of_shard(
        &self,
        so_far: &Result<(), LogError>,
        insert: impl FnOnce(&Connection) -> rusqlite::Result<()>,
    ) -> Result<(), LogError> {
        if so_far.is_err() {
            return Ok(());
        }
        insert(&self.connection).map_err(|e| log_error(&e))
    }

    fn insert_records(&mut self, records: Vec<NewRecord>, now: Millis) -> (Vec<Placed>, Result<(), LogError>) {
        let mut placed = Vec::with_capacity(records.len());
        for record in records {
            let offset = self.next(record.topic);
            placed.push(Placed { topic: record.topic, partition: 0, offset });
            let ts = match self.timestamps {
                Timestamps::LogAppendTime => now,
                Timestamps::Producer => record.ts.unwrap_or(now),
            };
            let (key, payload) = (record.key.as_deref(), record.payload.as_slice());
            let inserted = match record.topic {
                Topic::Input(_) => insert_input(&self.connection, record.topic, offset, ts, key, payload),
                Topic::Directory => self.compaction.insert(&self.connection, offset, ts, key, payload),
                Topic::Ledger | Topic::Output(_) | Topic::Audit => {
                    insert_output(&self.connection, record.topic, offset, ts, key, payload, None)
                }
            };
            if let Err(error) = inserted {
                return (placed, Err(log_error(&error)));
            }
        }
        (placed, Ok(()))
    }

    fn tell(&mut self, told: Vec<Told>, before: [u64; 11]) {
        *locked(&self.shared.ends) = self.ends;
        *locked(&self.shared.refusing) = None;
        let new_inputs = before[..4] != self.ends[..4];
        for told in told {
            match told {
                Told::Append { done, placed, count } => {
                    self.shared.waiting.fetch_sub(count, Ordering::Relaxed);
                    done(Ok(placed));
                }
                Told::Shard { session, event } => self.signal(Signal::Event { session, event }),
            }
        }
        if new_inputs {
            self.signal(Signal::Inputs);
        }
        self.commits += 1;
        self.shared.changes.send_replace(self.commits);
    }

    fn fail(&mut self, told: Vec<Told>, error: &LogError) {
        tracing::error!(code = error.code(), %error, advice = error.advice(), "the log cannot commit, and takes nothing until it can");
        *locked(&self.shared.refusing) = Some(error.clone());
        for told in told {
            match told {
                Told::Append { done, placed: _, count } => {
                    self.shared.waiting.fetch_sub(count, Ordering::Relaxed);
                    done(Err(error.clone()));
                }
                Told::Shard { session, event } => {
                    self.failed_session = Some(session);
                    let (LogEvent::Appended { ticket, .. } | LogEvent::Published { ticket, .. } | LogEvent::Failed { ticket, .. }) = event
                    else {
                        continue;
                    };
                    self.signal(Signal::Event { session, event: LogEvent::Failed { ticket, error: error.clone() } });
                }
            }
        }
    }

    fn signal(&self, signal: Signal) {
        if let Some(shard) = locked(&self.shared.shard).as_ref() {
            // A shard that is gone wants to know nothing.
            let _ = shard.send(signal);
        }
    }

    /// A log that could not commit takes records again when an empty write goes through.
    fn probe(&self) {
        if !matches!(*locked(&self.shared.refusing), Some(ref error) if !matches!(error, LogError::Corrupt { .. })) {
            return;
        }
        let probe = "BEGIN IMMEDIATE; UPDATE topic SET name = name; COMMIT";
        match self.connection.execute_batch(probe) {
            Ok(()) => {
                tracing::info!("the log commits again");
                *locked(&self.shared.refusing) = None;
            }
            Err(_) if !self.connection.is_autocommit() => {
                let _ = self.connection.execute_batch("ROLLBACK");
            }
            Err(_) => {}
        }
    }
}

/// What waits, up to a bound; and whether it ends there.
fn gather(first: Job, inbox: &Receiver<Job>) -> (Vec<Job>, bool) {
    let mut batch = Vec::new();
    let (mut next, mut bytes) = (Some(first), 0);
    while let Some(job) = next {
        if matches!(job, Job::Close) {
            return (batch, true);
        }
        bytes += size(&job);
        batch.push(job);
        next = if bytes < BATCH_BYTES_MAX { inbox.try_recv().ok() } else { None };
    }
    (batch, false)
}

fn size(job: &Job) -> usize {
    match job {
        Job::Append { records, .. } => records.iter().map(|record| record.payload.len() + 64).sum(),
        Job::Entry { entry, .. } => entry.len(),
        Job::Output { output, .. } => output.payload.len() + 64,
        Job::Close => 0,
    }
}

fn insert_input(
    connection: &Connection,
    topic: Topic,
    offset: u64,
    ts: Millis,
    key: Option<&[u8]>,
    payload: &[u8],
) -> rusqlite::Result<()> {
    let sql = "INSERT INTO input (topic, position, ts, key, payload) VALUES (?, ?, ?, ?, ?)";
    let values = params![schema::number(topic), schema::to_sql(offset), ts, key, payload];
    connection.prepare_cached(sql)?.execute(values).map(|_| ())
}

fn insert_output(
    connection: &Connection,
    topic: Topic,
    offset: u64,
    ts: Millis,
    key: Option<&[u8]>,
    payload: &[u8],
    tag: Option<crate::log::OutputTag>,
) -> rusqlite::Result<()> {
    let sql = "INSERT INTO output (topic, position, ts, key, payload, shard, seq, place) VALUES (?, ?, ?, ?, ?, ?, ?, ?)";
    let (shard, seq, place) = (tag.map(|tag| tag.shard), tag.map(|tag| schema::to_sql(tag.seq)), tag.map(|tag| tag.index));
    let values = params![schema::number(topic), schema::to_sql(offset), ts, key, payload, shard, seq, place];
    connection.prepare_cached(sql)?.execute(values).map(|_| ())
}

fn wall_ms() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis::try_from(since.as_millis()).unwrap_or(Millis::MAX)
}
