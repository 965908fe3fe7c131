//! The audit trail: what was done, by whom, from where, to what, and how it ended; on `gate.audit`, chained (`chain.rs`).
//!
//! Invariant: what [`Audit::record`] answers is durable, and stands behind everything that it answered before. After an error the record
//! may be there all the same: it is sent again, word for word, until the log takes it, and what comes later waits for that. So the trail
//! may say more than was done, never less: record first, then act.
//! Deliberately absent: secrets. What changed is told by its names.

mod chain;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use metrics::{counter, gauge};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use crate::domain::Millis;
use crate::log::{Extent, LogError, NewRecord, Topic, Topics};
use crate::telemetry;

use super::{unique, wall_ms};

pub use chain::{ChainId, Digest, Entry, Fault, Head, Link, Malformed, Verifier, Witness};

/// More records do not wait.
const WAITING_MAX: usize = 1_024;
/// So many are appended at once.
const BATCH_MAX: usize = 64;
/// A record is answered within this time.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a log that took nothing is left alone.
const RETRY_AFTER: Duration = Duration::from_millis(300);
/// A stop waits for so long for what is under way.
const STOP_PATIENCE: Duration = Duration::from_secs(5);
/// Heads are published after so many records, or so long.
const HEADS_RECORDS: u64 = 100;
const HEADS_EVERY: Duration = Duration::from_secs(10);
/// So far back it is looked for other chains, and so many of them are named.
const LOOK_BACK_RECORDS: u64 = 10_000;
const OTHERS_MAX: usize = 64;
const RECORDS_PER_READ: usize = 1_000;
/// Clocks of instances differ by less.
const SKEW_MS: Millis = 10 * 60_000;
/// Longer texts are cut, and larger changes left out.
const TEXT_BYTES_MAX: usize = 512;
const CHANGES_BYTES_MAX: usize = 32 * 1024;

/// One writer of the trail.
pub struct Audit {
    jobs: Mutex<Option<mpsc::Sender<Job>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// A record that is not linked yet.
struct Job {
    link: Link,
    done: oneshot::Sender<Result<u64, LogError>>,
}

impl Audit {
    /// Begins a chain. What others wrote lately is read first, so that the chain can name it.
    ///
    /// # Errors
    /// The log cannot be read, or has no such topic.
    pub fn start(topics: Arc<dyn Topics>) -> Result<Arc<Self>, LogError> {
        // increase() does not see a counter's first event, so that it is there before it.
        counter!(telemetry::AUDIT_RECORDS, "result" => "failed").absolute(0);
        let mut writer = Writer::new(topics)?;
        writer.look_around()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let runtime = runtime.map_err(|error| LogError::Io { detail: error.to_string() })?;
        let (jobs, inbox) = mpsc::channel(WAITING_MAX);
        let thread = std::thread::Builder::new().name("audit".into()).spawn(move || runtime.block_on(writer.run(inbox)));
        let thread = thread.map_err(|error| LogError::Io { detail: error.to_string() })?;
        Ok(Arc::new(Self { jobs: Mutex::new(Some(jobs)), thread: Mutex::new(Some(thread)) }))
    }

    /// Records what `actor` does to `object` from `address`; gives its number in this writer's chain when it is durable. `changes` says
    /// what changes, never a secret.
    ///
    /// # Errors
    /// The log does not take it, or not in time: then do not act.
    pub async fn record(
        &self,
        actor: &str,
        address: &str,
        action: &'static str,
        object: &str,
        changes: Value,
        result: &str,
    ) -> Result<u64, LogError> {
        let (done, answer) = oneshot::channel();
        let link = draft([actor, address, action, object, result], changes);
        let sent = match &*self.jobs.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(jobs) => jobs.try_send(Job { link, done }),
            None => return Err(LogError::Closed),
        };
        sent.map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => LogError::Overloaded { waiting: WAITING_MAX, limit: WAITING_MAX },
            mpsc::error::TrySendError::Closed(_) => LogError::Closed,
        })?;
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(answer) => answer.unwrap_or(Err(LogError::Closed)),
            Err(_) => Err(LogError::Busy { detail: "the audit trail was not confirmed in time".into() }),
        }
    }

    /// Takes no more records, writes what waits, publishes the last head.
    pub fn stop(&self) {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take()
            && thread.join().is_err()
        {
            tracing::error!("the audit trail's thread panicked");
        }
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Records one thing where there is no daemon and no runtime, as a command does.
///
/// # Errors
/// See [`Audit::record`].
pub fn record_once(
    topics: Arc<dyn Topics>,
    actor: &str,
    action: &'static str,
    object: &str,
    changes: Value,
    result: &str,
) -> Result<u64, LogError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let runtime = runtime.map_err(|error| LogError::Io { detail: error.to_string() })?;
    runtime.block_on(Audit::start(topics)?.record(actor, "local", action, object, changes, result))
}

/// Some of the trail, the newest first.
#[derive(Clone, Debug)]
pub struct Page {
    /// What was found.
    pub entries: Vec<Entry>,
    /// Give it as `before` to go on; `None` at the beginning of the trail.
    pub next: Option<u64>,
}

/// Records before an offset that `keep` wants, the newest first: `limit` at most, and fewer where they are far apart. What is no
/// record is passed over; `ordergate audit verify` finds it.
///
/// # Errors
/// The log cannot be read.
pub fn page(topics: &dyn Topics, before: Option<u64>, limit: usize, keep: &dyn Fn(&Entry) -> bool) -> Result<Page, LogError> {
    page_since(topics, before, None, limit, keep)
}

/// The same, and it ends where all is older than `since`.
///
/// # Errors
/// The log cannot be read.
pub fn page_since(
    topics: &dyn Topics,
    before: Option<u64>,
    since: Option<Millis>,
    limit: usize,
    keep: &dyn Fn(&Entry) -> bool,
) -> Result<Page, LogError> {
    const READS_MAX: usize = 20;
    let Extent { first, next, .. } = topics.extent(Topic::Audit, 0)?;
    let (mut end, mut entries) = (before.map_or(next, |before| before.min(next)), Vec::new());
    for _ in 0..READS_MAX {
        let begin = end.saturating_sub(RECORDS_PER_READ as u64).max(first);
        let mut found = between(topics, begin, end)?;
        found.reverse();
        let newest = found.iter().map(|entry| entry.link.at).max();
        let is_over = newest.zip(since).is_some_and(|(newest, since)| newest < since.saturating_sub(SKEW_MS));
        for entry in found.into_iter().filter(keep) {
            if entries.len() == limit {
                let next = entries.last().map(|last: &Entry| last.offset);
                return Ok(Page { entries, next });
            }
            entries.push(entry);
        }
        end = begin;
        if end <= first || is_over {
            return Ok(Page { entries, next: None });
        }
    }
    Ok(Page { entries, next: Some(end) })
}

fn between(topics: &dyn Topics, begin: u64, end: u64) -> Result<Vec<Entry>, LogError> {
    let (mut from, mut entries) = (begin, Vec::new());
    while from < end {
        let records = topics.read(Topic::Audit, 0, from, RECORDS_PER_READ)?;
        let Some(last) = records.last() else { break };
        from = last.offset + 1;
        entries.extend(records.iter().filter(|record| record.offset < end).filter_map(|it| Entry::decode(it.offset, &it.payload).ok()));
    }
    Ok(entries)
}

fn draft([actor, address, action, object, result]: [&str; 5], changes: Value) -> Link {
    let is_too_large = serde_json::to_vec(&changes).map_or(true, |bytes| bytes.len() > CHANGES_BYTES_MAX);
    Link {
        chain: ChainId(0),
        seq: 0,
        at: wall_ms(),
        actor: cut(actor),
        address: cut(address),
        action: cut(action),
        object: cut(object),
        changes: if is_too_large { json!({"left_out": "too large"}) } else { changes },
        result: cut(result),
        prev: Digest::NONE,
    }
}

fn cut(text: &str) -> String {
    let fits = |end: &usize| *end <= TEXT_BYTES_MAX;
    let end = text.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(fits).last().unwrap_or(0);
    text[..end].to_owned()
}

/// The one who links and appends.
struct Writer {
    topics: Arc<dyn Topics>,
    head: Head,
    /// The heads of the other chains that were seen lately, with the offset of each.
    others: BTreeMap<ChainId, (u64, Head)>,
    /// The next offset to read.
    next: u64,
    published: (u64, Instant),
}

impl Writer {
    fn new(topics: Arc<dyn Topics>) -> Result<Self, LogError> {
        let Extent { first, next, .. } = topics.extent(Topic::Audit, 0)?;
        let head = Head { chain: ChainId(unique()), seq: 0, head: Digest::NONE };
        let next = next.saturating_sub(LOOK_BACK_RECORDS).max(first);
        Ok(Self { topics, head, others: BTreeMap::new(), next, published: (0, Instant::now()) })
    }

    async fn run(mut self, mut inbox: mpsc::Receiver<Job>) {
        let mut waiting = Vec::new();
        loop {
            let left = (self.published.0 < self.head.seq).then(|| HEADS_EVERY.saturating_sub(self.published.1.elapsed()));
            let received = tokio::select! {
                received = inbox.recv_many(&mut waiting, BATCH_MAX) => Some(received),
                () = tokio::time::sleep(left.unwrap_or_default()), if left.is_some() => None,
            };
            let is_last = received == Some(0);
            let begins = self.head.seq == 0 && !waiting.is_empty();
            let jobs: Vec<Job> = waiting.drain(..).filter(|job| !job.done.is_closed()).collect();
            // A chain begins with what it saw of the others.
            let mut links: Vec<(Link, Option<Job>)> = if begins { vec![(self.heads(), None)] } else { Vec::new() };
            links.extend(jobs.into_iter().map(|job| (job.link.clone(), Some(job))));
            if !self.append(links, &inbox).await {
                return;
            }
            let unpublished = self.head.seq - self.published.0;
            if unpublished >= HEADS_RECORDS || unpublished > 0 && (is_last || received.is_none()) {
                self.publish(&inbox).await;
            }
            if is_last {
                return;
            }
        }
    }

    /// Links and appends records, and tells whoever waits. False when it was given up.
    async fn append(&mut self, links: Vec<(Link, Option<Job>)>, inbox: &mpsc::Receiver<Job>) -> bool {
        let (mut records, mut told) = (Vec::with_capacity(links.len()), Vec::new());
        for (mut link, job) in links {
            (link.chain, link.seq, link.prev) = (self.head.chain, self.head.seq + 1, self.head.head);
            let (payload, head) = match link.encode() {
                Ok(encoded) => encoded,
                Err(error) => {
                    tracing::error!(%error, "an audit record cannot be written");
                    continue;
                }
            };
            self.head = Head { seq: link.seq, head, ..self.head };
            let key = Some(link.chain.to_string().into_bytes());
            records.push(NewRecord { topic: Topic::Audit, partition: Some(0), ts: None, key, payload });
            told.extend(job.map(|job| (link.seq, job.done)));
        }
        let landed = self.land(records, &mut told, inbox).await;
        for (seq, done) in told {
            let _ = done.send(if landed { Ok(seq) } else { Err(LogError::Closed) });
        }
        landed
    }

    /// Appends until the log says that all are durable: together, or one by one where that fails.
    async fn land(
        &mut self,
        mut records: Vec<NewRecord>,
        told: &mut Vec<(u64, oneshot::Sender<Result<u64, LogError>>)>,
        inbox: &mpsc::Receiver<Job>,
    ) -> bool {
        let (mut together, mut closed_at) = (records.len(), None);
        while !records.is_empty() {
            match append(&*self.topics, records[..together.min(records.len())].to_vec()).await {
                Ok(()) => {
                    records.drain(..together.min(records.len()));
                    counter!(telemetry::AUDIT_RECORDS, "result" => "ok").increment(together as u64);
                }
                Err(error) => {
                    counter!(telemetry::AUDIT_RECORDS, "result" => "failed").increment(1);
                    if !told.is_empty() {
                        tracing::error!(code = error.code(), %error, "the audit trail is not written; what it would record is refused");
                    }
                    for (_, done) in told.drain(..) {
                        let _ = done.send(Err(error.clone()));
                    }
                    if inbox.is_closed() && closed_at.get_or_insert_with(Instant::now).elapsed() > STOP_PATIENCE {
                        return false;
                    }
                    together = 1;
                    tokio::time::sleep(RETRY_AFTER).await;
                }
            }
        }
        true
    }

    /// Publishes how far the chain is: to the log, to the operators' log, as a metric.
    async fn publish(&mut self, inbox: &mpsc::Receiver<Job>) {
        if let Err(error) = self.look_around() {
            tracing::debug!(code = error.code(), %error, "the heads of other chains are not known");
        }
        let heads = self.heads();
        if self.append(vec![(heads, None)], inbox).await {
            let Head { chain, seq, head } = self.head;
            tracing::info!(%chain, seq, %head, "audit head {}", self.head);
            gauge!(telemetry::AUDIT_SEQUENCE, "chain" => chain.to_string()).set(seq as f64);
            gauge!(telemetry::AUDIT_HEAD, "chain" => chain.to_string()).set(head.short() as f64);
        }
        self.published = (self.head.seq, Instant::now());
    }

    /// A record of the heads that were seen.
    fn heads(&self) -> Link {
        let heads: Vec<String> = self.others.values().map(|(_, head)| head.to_string()).collect();
        draft(["ordergate", "", chain::HEADS, "gate.audit", "ok"], json!({ "heads": heads }))
    }

    /// Reads what others wrote, up to the end.
    fn look_around(&mut self) -> Result<(), LogError> {
        let end = self.topics.extent(Topic::Audit, 0)?.next;
        while self.next < end {
            let records = self.topics.read(Topic::Audit, 0, self.next, RECORDS_PER_READ)?;
            let Some(last) = records.last() else { break };
            self.next = last.offset + 1;
            for record in &records {
                if let Ok(Entry { link, head, offset }) = Entry::decode(record.offset, &record.payload)
                    && link.chain != self.head.chain
                {
                    self.see(offset, Head { chain: link.chain, seq: link.seq, head });
                }
            }
        }
        Ok(())
    }

    fn see(&mut self, offset: u64, head: Head) {
        // A repetition says nothing new.
        if self.others.get(&head.chain).is_some_and(|(_, known)| known.seq >= head.seq) {
            return;
        }
        self.others.insert(head.chain, (offset, head));
        if self.others.len() > OTHERS_MAX
            && let Some(oldest) = self.others.iter().min_by_key(|(_, (offset, _))| *offset).map(|(chain, _)| *chain)
        {
            self.others.remove(&oldest);
        }
    }
}

async fn append(topics: &dyn Topics, records: Vec<NewRecord>) -> Result<(), LogError> {
    let (told, placed) = oneshot::channel();
    topics.append(records, Box::new(move |placed| drop(told.send(placed))));
    placed.await.map_err(|_| LogError::Closed)?.map(|_| ())
}
