//! Charts: bars and indicators of every symbol on the log, a projection of `market.prices`.
//!
//! Invariant: what is shown is a function of what the log holds; the cache only saves reading it again, and any doubt about it ends in
//! a rebuild. Reading the log and keeping the cache happen on one thread of their own at a lower priority, through the port that every
//! reader uses, so the shard never waits. Memory is bounded by symbols, bars and the cache's size. A chart is no ledger: prices are
//! exact inside and leave as floats. Deliberately absent: sessions, holidays, fills of gaps, and repeats of a trade (it has no id).

mod bar;
mod codec;
mod follower;
pub mod indicators;
mod projection;
mod query;
mod series;
mod splits;
mod store;
mod timeframe;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread::JoinHandle;

use tokio::sync::watch;

use crate::domain::Source;
use crate::log::{Topic, Topics};

pub use bar::{Bar, Origin, Stamp};
pub use projection::{Bounds, Feed};
pub use query::{BarView, IndicatorPage, LinePoints, Page, Window};
pub use timeframe::{Days, Interval, Timeframe};

use projection::Projection;
use store::Store;

/// Where and how bars are kept.
#[derive(Clone, Debug)]
pub struct Options {
    /// The folder of the cache.
    pub dir: PathBuf,
    /// What sled may keep in memory.
    pub cache_bytes: u64,
    /// What is kept.
    pub bounds: Bounds,
    /// Where days begin.
    pub days: Days,
}

/// Why a chart cannot be shown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChartError {
    /// Nothing was ever said of the symbol.
    #[error("there is no trade and no bar of this symbol")]
    UnknownSymbol,
    /// The bars cannot be had now.
    #[error("charts are not available: {why}")]
    Unavailable {
        /// Why.
        why: String,
    },
}

/// How the charts stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Symbols with bars.
    pub symbols: usize,
    /// Bars that are kept.
    pub bars: usize,
    /// Records of `market.prices` that were not read yet when it was last looked.
    pub lag_records: u64,
    /// Times that the cache was given up and rebuilt from the log, since the start.
    pub rebuilds: u64,
}

/// The charts. Dropping them ends their thread and saves the cache.
pub struct Charts {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Charts {
    /// Starts to follow the log. What the cache holds is there at once; what is new comes as it is read.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(topics: Arc<dyn Topics>, options: Options) -> std::io::Result<Arc<Self>> {
        let shared = Arc::new(Shared::new(options.days.clone()));
        let of_thread = Arc::clone(&shared);
        let run = move || follower::run(&topics, &options, &of_thread);
        let thread = std::thread::Builder::new().name("charts".to_owned()).spawn(run)?;
        Ok(Arc::new(Self { shared, thread: Mutex::new(Some(thread)) }))
    }

    /// How the charts stand.
    #[must_use]
    pub fn status(&self) -> Status {
        let (symbols, bars) = match &*self.shared.state() {
            State::Here { projection, .. } => (projection.symbols().count(), projection.bars()),
            State::Away { .. } => (0, 0),
        };
        let (lag_records, rebuilds) = (self.shared.lag.load(Ordering::Relaxed), self.shared.rebuilds.load(Ordering::Relaxed));
        Status { symbols, bars, lag_records, rebuilds }
    }

    /// Changes after every batch that drew something: wait for it, then ask.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    /// Waits until the record at a place is drawn, if it is one that charts read.
    pub async fn wait_for(&self, source: Source) {
        let Some(feed) = Feed::of(Topic::Input(source.topic)) else { return };
        let mut changes = self.changes();
        let is_drawn = |_: &u64| match &*self.shared.state() {
            State::Here { projection, .. } => projection.position(feed, source.partition).next > source.offset,
            // Whoever asks for them hears so.
            State::Away { .. } => true,
        };
        // It ends with the charts, and then they are not shown.
        let _ = changes.wait_for(is_drawn).await;
    }

    /// Where days begin.
    #[must_use]
    pub fn days(&self) -> &Days {
        &self.shared.days
    }

    /// Ends the thread and saves the cache.
    pub fn stop(&self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the charts' thread panicked; their cache is checked at the next start");
        }
    }
}

impl Drop for Charts {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What the thread and the readers both see.
struct Shared {
    state: RwLock<State>,
    days: Days,
    /// What a reader found wrong with the cache.
    doubt: Mutex<Option<String>>,
    lag: AtomicU64,
    rebuilds: AtomicU64,
    stop: AtomicBool,
    changes: watch::Sender<u64>,
}

/// The bars, when they can be had.
enum State {
    Here { projection: Box<Projection>, store: Store },
    Away { why: String },
}

impl Shared {
    fn new(days: Days) -> Self {
        let (changes, _) = watch::channel(0);
        Self {
            state: RwLock::new(State::Away { why: "the cache is being opened".to_owned() }),
            days,
            doubt: Mutex::new(None),
            lag: AtomicU64::new(0),
            rebuilds: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            changes,
        }
    }

    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn state_mut(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn take_doubt(&self) -> Option<String> {
        self.doubt.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn doubts(&self, why: String) {
        self.doubt.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
    }
}
