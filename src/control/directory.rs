//! The directory on the log: follows `gate.directory`, writes to it, and tombstones what is of no use any more.
//!
//! Invariant: a write that is answered with its entity is in the log, counts, and is folded here; one that is answered with a conflict
//! never counts. Whatever else happens, a timeout or an error of the log, tells nothing about it: read again. When the log cannot be
//! read the last state stays, and [`DirectoryService::age`] says how old it is.
//! Tombstones wait longer than any write does, so that no record is gone from the log before its writer has seen it.
//! Deliberately absent: locks that outlive a process, and any state that the log cannot rebuild.

mod follow;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};

use crate::directory::{Change, Directory, Entity, Key, Kind, Outcome};
use crate::log::{LogError, NewRecord, Topic, Topics};
use crate::wire::directory::{decode, encode_key, encode_value};

use super::{unique, wall_ms};

use follow::{AWAY_MAX, Follower};

/// How the service behaves.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// A write is answered within this time.
    pub write_timeout: Duration,
    /// What has been of no use for this long is tombstoned: longer than `write_timeout`, or a writer misses its own record.
    pub settle: Duration,
    /// More writes than this do not wait at once.
    pub writes_max: usize,
    /// No more entities than this are made.
    pub entities_max: usize,
    /// Nothing is made beyond about so many bytes.
    pub bytes_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            write_timeout: Duration::from_secs(10),
            settle: Duration::from_secs(30),
            writes_max: 1_024,
            entities_max: 1_000_000,
            bytes_max: 512 << 20,
        }
    }
}

/// Why a write did not happen, or is not known to have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// Someone else's state counts.
    #[error("it has version {current} by now")]
    Conflict {
        /// Its version; 0 when there is none.
        current: u64,
    },
    /// The log does not take it. After `LOG_BUSY`, `LOG_IO` and `LOG_CLOSED` it may be there all the same.
    #[error(transparent)]
    Log(#[from] LogError),
    /// It may or may not count: read again.
    #[error("the log did not confirm it in time")]
    Timeout,
}

/// The directory, as this instance has folded it.
pub struct DirectoryService {
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What the follower's thread and everyone else both see.
struct Shared {
    topics: Arc<dyn Topics>,
    options: Options,
    directory: RwLock<Directory>,
    /// Who waits for the outcome of which record.
    waiting: Mutex<HashMap<Key, oneshot::Sender<Outcome>>>,
    writes: AtomicUsize,
    /// The next offset to fold.
    folded: watch::Sender<u64>,
    /// How often the end was reached.
    looks: watch::Sender<u64>,
    read_at: Mutex<Instant>,
}

/// A lock whose holder panicked still guards whole values.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl DirectoryService {
    /// Reads the directory to its end, and follows it from then on.
    ///
    /// # Errors
    /// The log cannot be read, or has no such topic.
    pub fn start(topics: Arc<dyn Topics>) -> Result<Arc<Self>, LogError> {
        Self::start_with(topics, Options::default())
    }

    /// The same, with other options.
    ///
    /// # Errors
    /// See [`DirectoryService::start`].
    pub fn start_with(topics: Arc<dyn Topics>, options: Options) -> Result<Arc<Self>, LogError> {
        let shared = Arc::new(Shared {
            topics,
            options,
            directory: RwLock::default(),
            waiting: Mutex::default(),
            writes: AtomicUsize::new(0),
            folded: watch::channel(0).0,
            looks: watch::channel(0).0,
            read_at: Mutex::new(Instant::now()),
        });
        let (stop, stopped) = watch::channel(false);
        let mut follower = Follower::new(Arc::clone(&shared))?;
        follower.catch_up()?;
        let thread = std::thread::Builder::new().name("directory".into()).spawn(move || follower.run(stopped));
        let thread = Mutex::new(Some(thread.map_err(|error| LogError::Io { detail: error.to_string() })?));
        Ok(Arc::new(Self { shared, stop, thread }))
    }

    /// An entity; `None` when there is none, or none any more.
    #[must_use]
    pub fn get(&self, kind: Kind, id: &str) -> Option<Entity> {
        self.read(|directory| directory.get(kind, id).cloned())
    }

    /// The entities of a kind, by id.
    #[must_use]
    pub fn list(&self, kind: Kind) -> Vec<Entity> {
        self.read(|directory| directory.list(kind).cloned().collect())
    }

    /// Looks into the directory; nothing is folded meanwhile, so be short.
    pub fn read<R>(&self, look: impl FnOnce(&Directory) -> R) -> R {
        self.shared.read(look)
    }

    /// The next offset to fold: what stands before it is folded.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.folded.subscribe()
    }

    /// How long ago the directory was read to its end.
    #[must_use]
    pub fn age(&self) -> Duration {
        locked(&self.shared.read_at).elapsed()
    }

    /// Writes an entity's next state, or erases it for good (`None`), and answers when it is folded. `expected` is the version that it
    /// has, 0 of one that is to be made; an erased id goes on from its version.
    ///
    /// # Errors
    /// See [`WriteError`]. A body that is no JSON, or is `null`, and a machine whose clock is a day from the log's, are
    /// [`LogError::Denied`].
    pub async fn write(&self, kind: Kind, id: &str, expected: u64, body: Option<Vec<u8>>, actor: &str) -> Result<Entity, WriteError> {
        let _slot = self.shared.slot()?;
        let age = self.age();
        if age > AWAY_MAX {
            // What it would build on may be forgotten by now (`directory/fold.rs`).
            return Err(LogError::Busy { detail: format!("the directory was last read {} s ago", age.as_secs()) }.into());
        }
        let write = self.shared.write(kind, id, expected, body, actor);
        tokio::time::timeout(self.shared.options.write_timeout, write).await.unwrap_or(Err(WriteError::Timeout))
    }

    /// Reads the directory no further. What was read stays.
    pub fn stop(&self) {
        self.stop.send_replace(true);
        if let Some(thread) = locked(&self.thread).take()
            && thread.join().is_err()
        {
            tracing::error!("the directory's thread panicked");
        }
    }
}

impl Drop for DirectoryService {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Does something with the directory where there is no daemon and no runtime, as a command does: reads it, acts, stops.
///
/// # Errors
/// The log cannot be read.
pub fn once<R>(topics: Arc<dyn Topics>, act: impl AsyncFnOnce(&DirectoryService) -> R) -> Result<R, LogError> {
    let runtime = runtime()?;
    let service = DirectoryService::start(topics)?;
    Ok(runtime.block_on(act(&service)))
}

/// [`once`], with one write.
///
/// # Errors
/// See [`DirectoryService::write`].
pub fn write_once(
    topics: Arc<dyn Topics>,
    kind: Kind,
    id: &str,
    expected: u64,
    body: Option<Vec<u8>>,
    actor: &str,
) -> Result<Entity, WriteError> {
    once(topics, async |service| service.write(kind, id, expected, body, actor).await)?
}

/// A small runtime for one thread.
fn runtime() -> Result<tokio::runtime::Runtime, LogError> {
    let made = tokio::runtime::Builder::new_current_thread().enable_time().build();
    made.map_err(|error| LogError::Io { detail: error.to_string() })
}

/// On what a write builds.
enum Base {
    /// On this version.
    Version(u64),
    /// On a version that is not folded here.
    Unknown { current: u64 },
    /// On none: this one counts.
    Conflict { current: u64 },
}

/// A place among the writes.
struct Slot<'a>(&'a AtomicUsize);

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A writer's place among those who wait.
struct Waiting<'a> {
    shared: &'a Shared,
    key: Key,
    outcome: oneshot::Receiver<Outcome>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        locked(&self.shared.waiting).remove(&self.key);
    }
}

impl Shared {
    fn read<R>(&self, look: impl FnOnce(&Directory) -> R) -> R {
        look(&self.directory.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn slot(&self) -> Result<Slot<'_>, WriteError> {
        let slot = Slot(&self.writes);
        let (before, limit) = (self.writes.fetch_add(1, Ordering::Relaxed), self.options.writes_max);
        if before >= limit { Err(LogError::Overloaded { waiting: before, limit }.into()) } else { Ok(slot) }
    }

    async fn write(&self, kind: Kind, id: &str, expected: u64, body: Option<Vec<u8>>, actor: &str) -> Result<Entity, WriteError> {
        let is_erasure = body.is_none();
        let version = match self.base(kind, id, expected, is_erasure) {
            Base::Version(version) => version,
            Base::Conflict { current } => return Err(WriteError::Conflict { current }),
            Base::Unknown { .. } => {
                // Another instance may have made it: what is in the log by now will tell.
                self.look_again().await;
                match self.base(kind, id, expected, is_erasure) {
                    Base::Version(version) => version,
                    Base::Conflict { current } | Base::Unknown { current } => return Err(WriteError::Conflict { current }),
                }
            }
        };
        let version = if self.forget(kind, id).await? { 0 } else { version };
        if version == 0 {
            self.has_room()?;
        }
        let entity = Entity {
            kind,
            id: id.to_owned(),
            version: version + 1,
            nonce: unique(),
            at: wall_ms(),
            actor: actor.to_owned(),
            body: body.unwrap_or_default().into(),
        };
        self.append(entity, is_erasure).await
    }

    fn base(&self, kind: Kind, id: &str, expected: u64, is_erasure: bool) -> Base {
        let (current, lives) = self.read(|directory| directory.last(kind, id).map_or((0, false), |last| (last.version, !last.is_erased())));
        match expected {
            0 if lives || is_erasure => Base::Conflict { current },
            0 => Base::Version(current),
            _ if expected > current => Base::Unknown { current },
            _ if expected < current || (is_erasure && !lives) => Base::Conflict { current },
            _ => Base::Version(current),
        }
    }

    /// Waits for a look at the log that begins after now.
    async fn look_again(&self) {
        let mut looks = self.looks.subscribe();
        let wanted = *looks.borrow_and_update() + 2;
        // It ends with the service, and then the write cannot be confirmed either.
        let _ = looks.wait_for(|done| *done >= wanted).await;
    }

    fn has_room(&self) -> Result<(), WriteError> {
        let Options { entities_max: limit, bytes_max, .. } = self.options;
        let (waiting, bytes) = self.read(|directory| (directory.len(), directory.bytes()));
        if waiting >= limit || bytes >= bytes_max { Err(LogError::Overloaded { waiting, limit }.into()) } else { Ok(()) }
    }

    /// Sees to it that everyone has forgotten an erased id that some may have forgotten. True when it was so.
    async fn forget(&self, kind: Kind, id: &str) -> Result<bool, WriteError> {
        let Some(key) = self.read(|directory| directory.fading(kind, id, wall_ms())) else { return Ok(false) };
        let mut folded = self.folded.subscribe();
        let placed = self.place(&key, Vec::new()).await?;
        // It ends with the service, as above.
        let _ = folded.wait_for(|next| *next > placed).await;
        Ok(true)
    }

    async fn append(&self, entity: Entity, is_erasure: bool) -> Result<Entity, WriteError> {
        let (key, value) = (entity.key(), encode_value(&entity));
        if entity.is_erased() != is_erasure || decode(Some(&encode_key(&key)), &value) != Ok(Change::State(entity.clone())) {
            return Err(LogError::Denied { detail: "a record of the directory that nobody could read back".into() }.into());
        }
        let mut folded = self.folded.subscribe();
        let (told, outcome) = oneshot::channel();
        locked(&self.waiting).insert(key.clone(), told);
        let mut waiting = Waiting { shared: self, key, outcome };
        let offset = self.place(&waiting.key, value).await?;
        let outcome = tokio::select! {
            biased;
            outcome = &mut waiting.outcome => outcome.ok(),
            _ = folded.wait_for(|next| *next > offset) => waiting.outcome.try_recv().ok(),
        };
        let counts = || self.read(|directory| directory.last(entity.kind, &entity.id) == Some(&entity));
        match outcome {
            Some(Outcome::Accepted | Outcome::Again) => Ok(entity),
            Some(Outcome::Conflict { current }) => Err(WriteError::Conflict { current }),
            Some(Outcome::Late) => Err(LogError::Denied { detail: "this machine's clock is a day behind the log's".into() }.into()),
            // All was read anew meanwhile.
            Some(Outcome::Cleared) | None if counts() => Ok(entity),
            Some(Outcome::Cleared) | None => Err(WriteError::Timeout),
        }
    }

    /// Appends one record, and says where it stands when it is durable.
    fn place(&self, key: &Key, payload: Vec<u8>) -> impl Future<Output = Result<u64, LogError>> + use<> {
        let (told, placed) = oneshot::channel();
        self.topics.append(vec![record(key, payload)], Box::new(move |placed| drop(told.send(placed))));
        async move {
            let placed = placed.await.map_err(|_| LogError::Closed)??;
            placed.first().map(|placed| placed.offset).ok_or_else(|| LogError::Io { detail: "an append without its place".into() })
        }
    }
}

/// A record of the directory; without a value, a tombstone.
fn record(key: &Key, payload: Vec<u8>) -> NewRecord {
    NewRecord { topic: Topic::Directory, partition: Some(0), ts: None, key: Some(encode_key(key)), payload }
}
