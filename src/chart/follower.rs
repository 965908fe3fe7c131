//! The thread of the charts: reads the log, folds it, keeps the cache, and rebuilds it when in doubt.
//!
//! Invariant: readers wait for the fold of one batch at most, never for the log or for sled's disk. A log that cannot be read is asked
//! again, with what was drawn still there to see; a doubt about the cache, or a log that is another one, moves the folder aside and
//! begins at the log's first record. Deliberately absent: repairs.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use metrics::{counter, gauge};
use tokio::runtime::Runtime;
use tracing::{error, info, warn};

use crate::log::{LogError, Topics};
use crate::snapshot::aside::move_aside;
use crate::telemetry::{CHART_BARS, CHART_LAG_RECORDS, CHART_REBUILDS, CHART_RECORDS, CHART_UNAVAILABLE};

use super::projection::{Feed, Piece, Position, Projection, Tally, decode, hash_of};
use super::store::{Store, StoreError, UNSAVED_MAX, VERSION, saved};
use super::{Options, Shared, State};

/// Records of one read. Readers wait while as many are folded.
const BATCH_RECORDS: usize = 512;
/// The pause after everything was read: bars are at most about this old, and a busy log wakes nobody a thousand times a second.
const PAUSE: Duration = Duration::from_millis(25);
/// How long a stop may go unnoticed.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// What is new is saved after this long; a crash costs as much reading.
const SAVE_EVERY: Duration = Duration::from_secs(5);
/// How often the log is asked for all its partitions.
const MAP_EVERY: Duration = Duration::from_secs(60);
/// How often it is asked for the ends of the prices.
const SURVEY_EVERY: Duration = Duration::from_secs(2);
/// The pause after a failure of the log or the machine.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Folders of broken caches that are kept for a look.
const BROKEN_KEPT_MAX: usize = 1;
/// Below the shard's threads.
const NICENESS: i32 = 5;

/// Why following ended.
enum Broken {
    /// The log cannot be read now.
    Log(LogError),
    /// The cache cannot be used, or the log is not the one that it was made of.
    Doubt(String),
    /// The machine does not let us keep a cache now.
    Condition(StoreError),
    /// We are to stop.
    Stopped,
}

impl From<StoreError> for Broken {
    fn from(error: StoreError) -> Self {
        if error.is_condition() { Self::Condition(error) } else { Self::Doubt(error.to_string()) }
    }
}

impl From<LogError> for Broken {
    fn from(error: LogError) -> Self {
        Self::Log(error)
    }
}

/// Follows until it is stopped.
pub(super) fn run(topics: &Arc<dyn Topics>, options: &Options, shared: &Shared) {
    gauge!(CHART_UNAVAILABLE).set(1.0);
    if let Err(error) = rustix::process::nice(NICENESS) {
        tracing::debug!(%error, "the charts' thread runs at the priority of all");
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_time().build() {
        Ok(runtime) => runtime,
        Err(error) => return error!(%error, "charts cannot be followed"),
    };
    let mut follower = Follower::new(topics, options, shared, runtime);
    while !shared.stopping() {
        let Err(broken) = follower.follow();
        follower.recover(broken);
    }
    follower.close();
}

struct Follower<'a> {
    topics: &'a Arc<dyn Topics>,
    options: &'a Options,
    shared: &'a Shared,
    runtime: Runtime,
    dir: PathBuf,
    partitions: Vec<(Feed, u32)>,
    mapped: Option<Instant>,
    surveyed: Option<Instant>,
    saved: Instant,
    changed: bool,
}

/// There is no way out of following but a break.
enum Never {}

impl<'a> Follower<'a> {
    fn new(topics: &'a Arc<dyn Topics>, options: &'a Options, shared: &'a Shared, runtime: Runtime) -> Self {
        let dir = options.dir.join(format!("v{VERSION}"));
        let (partitions, saved) = (Vec::new(), Instant::now());
        Self { topics, options, shared, runtime, dir, partitions, mapped: None, surveyed: None, saved, changed: false }
    }

    /// Opens the cache and reads on from where it stands.
    fn follow(&mut self) -> Result<Never, Broken> {
        self.open()?;
        let mut changes = self.topics.changes();
        loop {
            // Marked as seen before it is read: what is committed in between wakes us again.
            changes.mark_unchanged();
            self.survey()?;
            let read = self.round()?;
            self.tend()?;
            if !read {
                std::thread::sleep(PAUSE);
                let waiting = async { tokio::time::timeout(LOOK_EVERY, changes.changed()).await };
                if matches!(self.runtime.block_on(waiting), Ok(Err(_))) {
                    return Err(Broken::Log(LogError::Closed));
                }
            }
        }
    }

    /// What was drawn before stays to be seen while the log is away, so the cache is opened once.
    fn open(&mut self) -> Result<(), Broken> {
        if matches!(&*self.shared.state(), State::Here { .. }) {
            return Ok(());
        }
        if let Err(error) = std::fs::create_dir_all(&self.options.dir) {
            return Err(Broken::Condition(StoreError::Sled(sled::Error::Io(error))));
        }
        let store = Store::open(&self.dir, self.options.cache_bytes)?;
        let loaded = store.load(&self.options.days, self.options.bounds)?;
        let (projection, store) = match loaded {
            Some(projection) => {
                self.verify(&projection)?;
                info!(symbols = projection.symbols().count(), bars = projection.bars(), "charts read from their cache");
                (projection, store)
            }
            None => (Projection::new(self.options.days.clone(), self.options.bounds), self.emptied(store)?),
        };
        *self.shared.state_mut() = State::Here { projection: Box::new(projection), store };
        gauge!(CHART_UNAVAILABLE).set(0.0);
        (self.mapped, self.surveyed, self.saved) = (None, None, Instant::now());
        Ok(())
    }

    /// A cache of other bounds or days is of no use, and no doubt either.
    fn emptied(&self, store: Store) -> Result<Store, Broken> {
        drop(store);
        if let Err(error) = std::fs::remove_dir_all(&self.dir) {
            return Err(Broken::Condition(StoreError::Sled(sled::Error::Io(error))));
        }
        Ok(Store::open(&self.dir, self.options.cache_bytes)?)
    }

    /// The log still holds what the cache was made of, as far as it holds so old records at all.
    fn verify(&self, projection: &Projection) -> Result<(), Broken> {
        for ((feed, partition), Position { next, last }) in &projection.positions {
            let extent = match self.topics.extent(feed.topic(), *partition) {
                Err(LogError::NoSuchPartition { .. }) => return Err(Broken::Doubt(format!("{} lost partition {partition}", feed.topic()))),
                extent => extent?,
            };
            if *next > extent.next {
                return Err(Broken::Doubt(format!("{} ends at {} and {next} was read", feed.topic(), extent.next)));
            }
            let Some((offset, hash)) = last.filter(|(offset, _)| *offset >= extent.first) else { continue };
            let found = self.topics.read(feed.topic(), *partition, offset, 1)?;
            if found.first().is_none_or(|record| record.offset != offset || hash_of(record) != hash) {
                return Err(Broken::Doubt(format!("{} has another record at {offset}", feed.topic())));
            }
        }
        Ok(())
    }

    /// Learns which partitions there are, and how far behind we are.
    fn survey(&mut self) -> Result<(), Broken> {
        if self.mapped.is_none_or(|at| at.elapsed() >= MAP_EVERY) {
            let extents = self.topics.extents()?;
            self.partitions = extents.iter().filter_map(|extent| Some((Feed::of(extent.topic)?, extent.partition))).collect();
            self.partitions.sort_unstable();
            self.mapped = Some(Instant::now());
        }
        if self.surveyed.is_some_and(|at| at.elapsed() < SURVEY_EVERY) {
            return Ok(());
        }
        let mut lag = 0_u64;
        for (feed, partition) in self.partitions.iter().filter(|(feed, _)| *feed == Feed::Prices) {
            let extent = self.topics.extent(feed.topic(), *partition)?;
            lag += extent.next.saturating_sub(self.position(*feed, *partition).max(extent.first));
        }
        let bars = match &*self.shared.state() {
            State::Here { projection, .. } => projection.bars(),
            State::Away { .. } => 0,
        };
        self.shared.lag.store(lag, Ordering::Relaxed);
        gauge!(CHART_BARS).set(bars as f64);
        gauge!(CHART_LAG_RECORDS).set(lag as f64);
        self.surveyed = Some(Instant::now());
        Ok(())
    }

    /// The next offset to read.
    fn position(&self, feed: Feed, partition: u32) -> u64 {
        match &*self.shared.state() {
            State::Here { projection, .. } => projection.position(feed, partition).next,
            State::Away { .. } => 0,
        }
    }

    /// One batch of each partition; whether there was anything.
    fn round(&mut self) -> Result<bool, Broken> {
        let mut read = 0;
        for (feed, partition) in self.partitions.clone() {
            if self.shared.stopping() {
                return Err(Broken::Stopped);
            }
            read += self.batch(feed, partition)?;
        }
        if read > 0 {
            self.changed = true;
            self.shared.changes.send_modify(|count| *count += 1);
            // What was behind is being made good: the lag is not to read high until the next survey.
            let lag = self.shared.lag.load(Ordering::Relaxed);
            self.shared.lag.store(lag.saturating_sub(read as u64), Ordering::Relaxed);
        }
        Ok(read > 0)
    }

    fn batch(&self, feed: Feed, partition: u32) -> Result<usize, Broken> {
        let next = self.position(feed, partition);
        let records = match self.topics.read(feed.topic(), partition, next, BATCH_RECORDS) {
            Err(LogError::OutOfRange { first, asked, .. }) if asked < first => {
                warn!(topic = %feed.topic(), partition, asked, first, "charts skip what the log no longer has");
                if let State::Here { projection, .. } = &mut *self.shared.state_mut() {
                    projection.skip_to(feed, partition, first);
                }
                return Ok(1);
            }
            Err(error @ LogError::OutOfRange { .. }) => return Err(Broken::Doubt(error.to_string())),
            records => records?,
        };
        if records.is_empty() {
            return Ok(0);
        }
        let pieces: Vec<Piece> = records.iter().map(|record| decode(feed, record)).collect();
        let State::Here { projection, store } = &mut *self.shared.state_mut() else { return Ok(0) };
        let tally = projection.apply((feed, partition), &records, &pieces, &|place, chunk| store.chunk(place, chunk))?;
        count(&tally);
        Ok(records.len())
    }

    /// Saves what is due, and listens to readers who found something wrong.
    fn tend(&mut self) -> Result<(), Broken> {
        if let Some(doubt) = self.shared.take_doubt() {
            return Err(Broken::Doubt(doubt));
        }
        let full = match &*self.shared.state() {
            State::Here { projection, .. } => projection.unsaved() >= UNSAVED_MAX,
            State::Away { .. } => false,
        };
        if full || (self.changed && self.saved.elapsed() >= SAVE_EVERY) {
            self.save()?;
        }
        Ok(())
    }

    /// Nobody else changes the projection, so it is encoded and written while others read it.
    fn save(&mut self) -> Result<(), Broken> {
        let changed = match &*self.shared.state() {
            State::Here { projection, store } => store.commit(projection)?,
            State::Away { .. } => return Ok(()),
        };
        if let State::Here { projection, .. } = &mut *self.shared.state_mut() {
            saved(projection, changed);
        }
        (self.changed, self.saved) = (false, Instant::now());
        Ok(())
    }

    fn recover(&mut self, broken: Broken) {
        match broken {
            Broken::Stopped => {}
            Broken::Log(error) => {
                warn!(code = error.code(), %error, "charts wait for the log");
                self.wait();
            }
            Broken::Condition(error) => {
                error!(%error, dir = %self.dir.display(), "charts cannot be kept for now; decisions are not affected");
                self.away(error.to_string());
                self.measure();
                self.wait();
            }
            Broken::Doubt(why) => {
                self.away("they are being rebuilt from the log".to_owned());
                self.measure();
                self.shared.rebuilds.fetch_add(1, Ordering::Relaxed);
                counter!(CHART_REBUILDS).increment(1);
                self.set_aside(&why);
            }
        }
    }

    fn set_aside(&self, why: &str) {
        match move_aside(Path::new(&self.dir), BROKEN_KEPT_MAX) {
            Ok(Some(to)) => warn!(why, to = %to.display(), "the charts' cache is in doubt and moved aside; they are rebuilt from the log"),
            Ok(None) => warn!(why, "charts are rebuilt from the log"),
            Err(error) => {
                error!(%error, dir = %self.dir.display(), "a doubtful cache of charts cannot be moved aside: remove the folder");
                self.wait();
            }
        }
    }

    fn away(&mut self, why: String) {
        // The old state, and with it the store, ends here, before its folder is touched.
        *self.shared.state_mut() = State::Away { why };
        gauge!(CHART_UNAVAILABLE).set(1.0);
        self.shared.take_doubt();
        self.changed = false;
    }

    /// Says how much is not drawn while nothing can be: all that the log has.
    fn measure(&mut self) {
        self.surveyed = None;
        if let Err(Broken::Log(error)) = self.survey() {
            warn!(code = error.code(), %error, "charts cannot tell how far behind they are");
        }
    }

    /// Waits before the next try, unless it is time to stop.
    fn wait(&self) {
        let until = Instant::now() + RETRY_AFTER;
        while Instant::now() < until && !self.shared.stopping() {
            std::thread::sleep(PAUSE);
        }
    }

    fn close(&mut self) {
        if self.changed
            && let Err(Broken::Condition(_) | Broken::Doubt(_)) = self.save()
        {
            warn!("the charts' cache could not be saved; what is missing is read from the log again");
        }
        self.away("the daemon is stopping".to_owned());
    }
}

fn count(tally: &Tally) {
    let Tally { trades, bars, too_old, crowded, ignored } = *tally;
    for (result, records) in [("trade", trades), ("bar", bars), ("too_old", too_old), ("crowded", crowded), ("ignored", ignored)] {
        if records > 0 {
            counter!(CHART_RECORDS, "result" => result).increment(records);
        }
    }
}
