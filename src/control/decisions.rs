//! The history of decisions: an index in sled that the ledger can always rebuild.
//!
//! Invariant: what is found is what was decided, byte for byte; what the index does not cover yet it says.
//! How far it has come stands in one batch with what it holds. Any doubt moves its folder aside and fills
//! a new one from the ledger, while what happens meanwhile is indexed as it comes. Deliberately absent:
//! any question to a deciding shard, and any answer whose memory grows with its range.

mod backfill;
mod block;
mod onward;
mod search;
mod store;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::replica::{Listener, Reached};
use crate::domain::{Millis, RuleId};
use crate::log::{OutputRecord, Topics};
use crate::snapshot::aside::move_aside;

use block::{Block, Summary, block_of};
use store::{Gap, Indexed, Progress, Store};

pub use block::Tally;
pub use onward::Onward;
pub use search::{Filter, Page};
pub use store::IndexError;

/// What is indexed is written at least this often.
const WRITE_EVERY: Duration = Duration::from_secs(1);

/// How the index is kept.
#[derive(Clone, Debug)]
pub struct IndexOptions {
    /// Its folder.
    pub dir: PathBuf,
    /// What sled may keep in memory.
    pub cache_bytes: u64,
    /// The oldest decisions beyond this are dropped.
    pub decisions_max: u64,
    /// How many broken folders are kept.
    pub broken_kept_max: usize,
    /// The number of shards.
    pub shards: u32,
}

impl IndexOptions {
    /// Defaults, in this folder.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>, shards: u32) -> Self {
        // The system caches the file as well.
        Self { dir: dir.into(), cache_bytes: 4 << 20, decisions_max: 20_000_000, broken_kept_max: 2, shards }
    }
}

/// What the follower of a shard has brought since the last write.
#[derive(Debug)]
struct Live {
    number: u64,
    block: Block,
    indexed: Indexed,
    /// Indexed already, before the follower began.
    skip_to: u64,
    /// Where the ledger must still turn out to be the one that was indexed.
    check: Option<Indexed>,
    written: Instant,
    dirty: bool,
}

/// What is known of a block that is stored.
#[derive(Clone, Debug, Default)]
struct Known {
    count: u64,
    tallies: BTreeMap<RuleId, Tally>,
}

/// How much of the history can be searched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// The decisions in it.
    pub decisions: u64,
    /// Everything that is kept is indexed.
    pub complete: bool,
    /// The bytes on the disk.
    pub bytes: u64,
    /// By shard, how many records are indexed.
    pub seqs: Vec<u64>,
}

/// The index.
pub struct Decisions {
    options: IndexOptions,
    topics: Arc<dyn Topics>,
    store: RwLock<Result<Arc<Store>, String>>,
    shards: Vec<Mutex<Live>>,
    known: Mutex<BTreeMap<(u32, u64), Known>>,
    /// Of blocks: one writer at a time.
    writing: Mutex<()>,
    /// A new one with every folder, so that what fills an old one ends.
    generation: AtomicU64,
    stop: AtomicBool,
    threads: Mutex<Vec<JoinHandle<()>>>,
    itself: std::sync::Weak<Self>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Decisions {
    /// Opens the index. One that cannot be opened is moved aside and made anew.
    #[must_use]
    pub fn open(options: IndexOptions, topics: Arc<dyn Topics>) -> Arc<Self> {
        let live = || {
            Mutex::new(Live {
                number: 0,
                block: Block::default(),
                indexed: Indexed::default(),
                skip_to: 0,
                check: None,
                written: Instant::now(),
                dirty: false,
            })
        };
        let index = Arc::new_cyclic(|itself| Self {
            topics,
            store: RwLock::new(Err("it is not open yet".to_owned())),
            shards: (0..options.shards).map(|_| live()).collect(),
            known: Mutex::default(),
            writing: Mutex::default(),
            generation: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            threads: Mutex::default(),
            itself: itself.clone(),
            options,
        });
        if let Err(error) = index.open_store() {
            index.doubt(&error);
        }
        index
    }

    fn open_store(&self) -> Result<(), IndexError> {
        let store = Arc::new(Store::open(&self.options.dir, self.options.cache_bytes)?);
        let mut known = BTreeMap::new();
        for shard in 0..self.options.shards {
            let mut number = u64::MAX;
            while let Some((found, summary)) = store.summary_below(shard, number)? {
                known.insert((shard, found), known_of(&summary));
                let Some(next) = found.checked_sub(1) else { break };
                number = next;
            }
        }
        *locked(&self.known) = known;
        *self.store.write().unwrap_or_else(PoisonError::into_inner) = Ok(store);
        Ok(())
    }

    fn store(&self) -> Result<Arc<Store>, IndexError> {
        self.store.read().unwrap_or_else(PoisonError::into_inner).clone().map_err(IndexError::Off)
    }

    /// The index cannot be trusted: its folder is moved aside, and a new one is filled from the ledger.
    fn doubt(&self, error: &IndexError) {
        if matches!(error, IndexError::Off(_) | IndexError::Ended) {
            return;
        }
        let writing = locked(&self.writing);
        tracing::warn!(%error, "the index of decisions is doubtful; it is moved aside and filled again from the ledger");
        self.generation.fetch_add(1, Ordering::AcqRel);
        *self.store.write().unwrap_or_else(PoisonError::into_inner) = Err("it is made anew".to_owned());
        let moved = move_aside(&self.options.dir, self.options.broken_kept_max).map_err(|error| IndexError::Sled(sled::Error::Io(error)));
        if let Err(error) = moved.and_then(|_| self.open_store()) {
            tracing::error!(%error, "the index of decisions is off until the next start");
            *self.store.write().unwrap_or_else(PoisonError::into_inner) = Err(error.to_string());
            return;
        }
        drop(writing);
        for shard in 0..self.options.shards {
            let to = {
                let mut live = locked(&self.shards[shard as usize]);
                (live.skip_to, live.check, live.dirty) = (0, None, true);
                live.indexed.seq
            };
            self.begin_backfill(shard, Gap { after: 0, to }, None);
        }
    }

    /// Notes what is missing and begins to fill it, if anything is.
    fn begin_backfill(&self, shard: u32, gap: Gap, check: Option<Indexed>) {
        if gap.after >= gap.to {
            return;
        }
        let noted = self.store().and_then(|store| store.set_gap(shard, Some(gap)));
        if let Err(error) = noted {
            tracing::error!(%error, shard, "the index of decisions cannot note what it lacks");
            return;
        }
        let (Some(itself), generation) = (self.itself.upgrade(), self.generation.load(Ordering::Acquire)) else { return };
        let fill = move || itself.backfill(shard, gap, check, generation);
        match std::thread::Builder::new().name(format!("decisions-{shard}")).spawn(fill) {
            Ok(thread) => locked(&self.threads).push(thread),
            Err(error) => tracing::error!(%error, shard, "older decisions cannot be indexed"),
        }
    }

    /// Writes a block together with what is stored of it.
    fn write(&self, shard: u32, block: Option<(u64, &Block)>, progress: &Progress) -> Result<(), IndexError> {
        let store = self.store()?;
        let _one = locked(&self.writing);
        let Some((number, block)) = block.filter(|(_, block)| !block.is_empty()) else { return store.write(shard, None, progress) };
        let mut whole = block.clone();
        if let Some(stored) = store.block(shard, number)? {
            whole.merge(stored);
        }
        let summary = whole.summary();
        store.write(shard, Some((number, &whole, &summary)), progress)?;
        locked(&self.known).insert((shard, number), known_of(&summary));
        self.drop_oldest(shard, &store)
    }

    fn drop_oldest(&self, shard: u32, store: &Store) -> Result<(), IndexError> {
        let most = self.options.decisions_max / u64::from(self.options.shards.max(1));
        let mut known = locked(&self.known);
        let of_shard = (shard, 0)..=(shard, u64::MAX);
        let mut total: u64 = known.range(of_shard.clone()).map(|(_, known)| known.count).sum();
        while total > most {
            let Some((oldest, count)) = known.range(of_shard.clone()).next().map(|(place, known)| (*place, known.count)) else { break };
            store.drop_block(shard, oldest.1)?;
            known.remove(&oldest);
            total -= count;
        }
        Ok(())
    }

    fn take(&self, shard: u32, reached: &Reached, outputs: &[OutputRecord]) -> Result<(), IndexError> {
        let Some(live) = self.shards.get(shard as usize) else { return Ok(()) };
        let mut live = locked(live);
        let live = &mut *live;
        if let Some(check) = live.check.filter(|check| reached.ledger_next >= check.ledger_next) {
            live.check = None;
            if (reached.ledger_next, reached.head) != (check.ledger_next, check.head) {
                return Err(IndexError::OtherLedger);
            }
        }
        let skip_to = live.skip_to;
        for output in outputs.iter().filter(|output| output.tag.seq > skip_to) {
            let number = block_of(output.tag.seq);
            if number != live.number {
                self.write_live(shard, live)?;
                (live.number, live.block) = (number, Block::default());
            }
            live.block.take(output);
        }
        let (seq, ledger_next, head) = (reached.seq, reached.ledger_next, reached.head);
        live.indexed = Indexed { seq, ledger_next, head };
        live.dirty |= seq > live.skip_to;
        if live.dirty && live.written.elapsed() >= WRITE_EVERY {
            self.write_live(shard, live)?;
        }
        Ok(())
    }

    fn write_live(&self, shard: u32, live: &mut Live) -> Result<(), IndexError> {
        if live.indexed.seq >= live.skip_to && live.check.is_none() {
            self.write(shard, Some((live.number, &live.block)), &Progress::Indexed(live.indexed))?;
        }
        (live.written, live.dirty) = (Instant::now(), false);
        Ok(())
    }

    fn settle(&self, shard: u32) -> Result<(), IndexError> {
        let Some(live) = self.shards.get(shard as usize) else { return Ok(()) };
        let mut live = locked(live);
        if live.check.is_some() {
            // It has read everything, and the ledger does not go as far as the index.
            return Err(IndexError::OtherLedger);
        }
        if live.dirty && live.written.elapsed() >= WRITE_EVERY {
            self.write_live(shard, &mut live)?;
        }
        Ok(())
    }

    fn start_of(&self, shard: u32, at: &Reached) -> Result<(), IndexError> {
        let Some(live) = self.shards.get(shard as usize) else { return Ok(()) };
        let store = self.store()?;
        let stored = store.indexed(shard)?.unwrap_or_default();
        let gap = store.gap(shard)?;
        let here = Indexed { seq: at.seq, ledger_next: at.ledger_next, head: at.head };
        if stored.ledger_next == here.ledger_next && stored.head != here.head {
            return Err(IndexError::OtherLedger);
        }
        let mut live = locked(live);
        live.indexed = here;
        if stored.seq >= here.seq {
            live.skip_to = stored.seq;
            live.check = (stored.ledger_next > here.ledger_next).then_some(stored);
            drop(live);
            if let Some(gap) = gap {
                self.begin_backfill(shard, gap, None);
            }
            return Ok(());
        }
        drop(live);
        let after = gap.map_or(stored.seq, |gap| gap.after.min(stored.seq));
        self.begin_backfill(shard, Gap { after, to: here.seq }, Some(stored).filter(|stored| stored.seq > 0));
        Ok(())
    }

    /// What each rule did, as far as it is kept.
    #[must_use]
    pub fn tallies(&self) -> BTreeMap<RuleId, Tally> {
        let mut sum: BTreeMap<RuleId, Tally> = BTreeMap::new();
        let mut add = |tallies: &BTreeMap<RuleId, Tally>| {
            for (rule, tally) in tallies {
                sum.entry(*rule).or_default().plus(tally);
            }
        };
        // What is in memory stands in for what is stored of its block, which it may only add to.
        let mut fresh: Vec<(u32, u64)> = Vec::new();
        for (shard, live) in (0..).zip(&self.shards) {
            let (number, block) = {
                let live = locked(live);
                (live.number, live.block.clone())
            };
            if let Ok(Some(block)) = self.whole(shard, number, block).map(|block| Some(block).filter(|block| !block.is_empty())) {
                add(&block.summary().tallies);
                fresh.push((shard, number));
            }
        }
        let known = locked(&self.known);
        known.iter().filter(|(place, _)| !fresh.contains(place)).for_each(|(_, known)| add(&known.tallies));
        sum
    }

    /// A block in memory with what is stored of it.
    fn whole(&self, shard: u32, number: u64, mut block: Block) -> Result<Block, IndexError> {
        if let Some(stored) = self.store()?.block(shard, number)? {
            block.merge(stored);
        }
        Ok(block)
    }

    /// How much of the history can be searched.
    #[must_use]
    pub fn coverage(&self) -> Coverage {
        let Ok(store) = self.store() else { return Coverage::default() };
        let complete = (0..self.options.shards).all(|shard| matches!(store.gap(shard), Ok(None)));
        let seqs = self.shards.iter().map(|live| locked(live).indexed.seq).collect();
        let decisions = locked(&self.known).values().map(|known| known.count).sum();
        Coverage { decisions, complete, bytes: store.bytes(), seqs }
    }

    /// Writes what is in memory and ends what fills the index.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        for (shard, live) in (0..).zip(&self.shards) {
            let written = self.write_live(shard, &mut locked(live));
            if let Err(error) = written {
                tracing::warn!(%error, shard, "the index of decisions could not be written; the next start reads on from before");
            }
        }
        let threads: Vec<_> = locked(&self.threads).drain(..).collect();
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread that fills the index of decisions panicked");
            }
        }
        if let Ok(store) = self.store()
            && let Err(error) = store.flush()
        {
            tracing::warn!(%error, "the index of decisions could not be flushed");
        }
    }

    /// The time of the oldest decision that is kept.
    pub fn oldest(&self) -> Result<Option<Millis>, IndexError> {
        let store = self.store()?;
        let mut oldest = None;
        for shard in 0..self.options.shards {
            if let Some(first) = store.first(shard)?
                && let Some((_, summary)) = store.summary_below(shard, first)?
            {
                oldest = Some(oldest.map_or(summary.times.0, |oldest: Millis| oldest.min(summary.times.0)));
            }
        }
        Ok(oldest)
    }
}

fn known_of(summary: &Summary) -> Known {
    Known { count: u64::from(summary.count), tallies: summary.tallies.clone() }
}

impl Listener for Decisions {
    fn begins(&self, shard: u32, at: &Reached) {
        if let Err(error) = self.start_of(shard, at) {
            if let Some(live) = self.shards.get(shard as usize) {
                locked(live).indexed = Indexed { seq: at.seq, ledger_next: at.ledger_next, head: at.head };
            }
            self.doubt(&error);
        }
    }

    fn folded(&self, shard: u32, reached: &Reached, outputs: &[OutputRecord]) {
        if let Err(error) = self.take(shard, reached, outputs) {
            self.doubt(&error);
        }
    }

    fn idle(&self, shard: u32) {
        if let Err(error) = self.settle(shard) {
            self.doubt(&error);
        }
    }
}
