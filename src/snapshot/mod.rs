//! Snapshots in sled: a cache of the shard's state that the ledger can always rebuild.
//!
//! Invariant: nothing is loaded that is not whole, and nothing doubtful stays where it would be found again: its folder is moved
//! aside (`*.broken-N`), the newest whole generation in it is still used, and the next snapshot is a whole one. Snapshots of a newer
//! program are left alone. Deliberately absent: any promise. Losing every snapshot costs a refold, never a record.

pub(crate) mod aside;
mod inspect;
mod load;
mod store;
mod write;
mod writer;

#[cfg(test)]
mod measure;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::{error, warn};

use crate::engine::{Loaded, Offer, SnapshotStore};

pub use inspect::{Inspected, inspect};
pub use store::{ACCOUNTS_PER_GROUP, GENERATIONS, StoreError};

use writer::{Request, Writer};

/// How long a load is waited for: many times what the biggest state takes, and less than for ever.
const LOAD_PATIENCE: Duration = Duration::from_secs(300);
/// How long the end waits for a snapshot that is being written.
const CLOSE_WAIT: Duration = Duration::from_secs(10);

/// Where and how snapshots are kept.
#[derive(Clone, Debug)]
pub struct Options {
    /// The folder of all shards' snapshots.
    pub dir: PathBuf,
    /// The shard.
    pub shard: u32,
    /// What sled may keep in memory.
    pub cache_bytes: u64,
    /// How many broken folders are kept.
    pub broken_kept_max: usize,
}

/// One shard's snapshots, written by a thread of their own.
#[derive(Debug)]
pub struct SledSnapshots {
    requests: Option<SyncSender<Request>>,
    ended: Receiver<()>,
    shared: Arc<Shared>,
}

/// What the shard's thread and the writer's both look at.
#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    idle: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// A snapshot is being written.
    busy: bool,
    /// The next one has to be whole.
    wants_whole: bool,
    /// Why the last one was not written.
    failed: bool,
    /// No snapshot is taken before this.
    not_before: Option<Instant>,
    /// No snapshot is taken at all: a newer program's are there.
    off: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SledSnapshots {
    /// Starts the thread that keeps the snapshots. Nothing is read yet.
    pub fn start(options: Options) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        shared.state().wants_whole = true;
        let (requests, receiver) = sync_channel(1);
        let (running, ended) = sync_channel(0);
        let writer = Writer::new(options, Arc::clone(&shared));
        std::thread::Builder::new().name("snapshots".to_owned()).spawn(move || {
            writer.serve(&receiver);
            drop(running);
        })?;
        Ok(Self { requests: Some(requests), ended, shared })
    }

    fn ask(&mut self, request: impl FnOnce(SyncSender<Option<Loaded>>) -> Request) -> Option<Loaded> {
        let (answer, answered) = sync_channel(1);
        self.requests.as_ref()?.send(request(answer)).ok()?;
        match answered.recv_timeout(LOAD_PATIENCE) {
            Ok(loaded) => loaded,
            Err(_) => {
                error!("the snapshot store does not answer; the state is folded from the ledger, and no snapshots are taken");
                self.requests = None;
                self.shared.state().off = true;
                None
            }
        }
    }
}

impl SnapshotStore for SledSnapshots {
    fn load(&mut self) -> Option<Loaded> {
        self.ask(Request::Load)
    }

    fn reject(&mut self, why: &str) -> Option<Loaded> {
        self.ask(|answer| Request::Reject(why.to_owned(), answer))
    }

    fn ready(&self) -> bool {
        let state = self.shared.state();
        !state.busy && !state.off && state.not_before.is_none_or(|at| at <= Instant::now())
    }

    fn wants_whole(&self) -> bool {
        self.shared.state().wants_whole
    }

    fn offer(&mut self, offer: Offer) {
        let Some(requests) = &self.requests else { return };
        self.shared.state().busy = true;
        if requests.try_send(Request::Write(Box::new(offer))).is_err() {
            // What was touched is lost with the offer, so only a whole one can follow.
            let mut state = self.shared.state();
            (state.busy, state.wants_whole, state.failed) = (false, true, true);
            warn!("a snapshot was offered while another was being written; it is left out, and the next one is whole");
        }
    }

    fn finish(&mut self, wait: Duration) -> bool {
        let state = self.shared.state();
        let (state, _) = self.shared.idle.wait_timeout_while(state, wait, |state| state.busy).unwrap_or_else(PoisonError::into_inner);
        !state.busy && !state.failed
    }
}

impl Drop for SledSnapshots {
    fn drop(&mut self) {
        self.requests = None;
        // The thread ends when its requests do; one that hangs in sled is left behind rather than waited for.
        let _ = self.ended.recv_timeout(CLOSE_WAIT);
    }
}
