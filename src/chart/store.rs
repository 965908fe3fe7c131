//! The cache of bars in sled: chunks, one entry a symbol that says which chunks it has, and a manifest.
//!
//! Invariant: positions, bars and the list of chunks change in one batch, so the cache is always the state after some record. An entry
//! opens only when its checksum agrees, the manifest sums up the entries, each entry names its chunks with their checksums: what is
//! missing, old or flipped is found, at the latest when it is read. Deliberately absent: any repair, and any promise of durability.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use sled::{Batch, Db};
use thiserror::Error;

use crate::domain::Symbol;
use crate::market::calendar::tzdb_version;
use crate::snapshot::aside::text_of;

use super::bar::{Bar, decode_all, encode_all};
use super::codec::{Malformed, Reader, Writer};
use super::projection::{Bounds, ChunkPlace, Feed, Position, Projection, SymbolBars};
use super::series::{Chunk, Series};
use super::splits::Splits;
use super::timeframe::{Days, Timeframe};

/// The version of the encoding; each has a folder of its own.
pub const VERSION: u32 = 1;
const MANIFEST: &[u8] = b"m";
/// How long a folder's lock is waited for.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
/// A batch is handed to sled in one piece, so it is not made longer than this before it is sent.
pub(super) const UNSAVED_MAX: usize = 4_096;

/// Why the cache cannot be read or written.
#[derive(Debug, Error)]
pub enum StoreError {
    /// sled refused.
    #[error("sled: {0}")]
    Sled(#[from] sled::Error),
    /// sled panicked.
    #[error("sled panicked: {0}")]
    Panicked(String),
    /// Something is not as it was written.
    #[error("{what}: {error}")]
    Damaged {
        /// What.
        what: String,
        /// Why.
        error: Malformed,
    },
    /// Something that should be there is not, or another one is.
    #[error("{what} is missing or another one")]
    Missing {
        /// What.
        what: String,
    },
}

impl StoreError {
    /// Whether it is the machine's condition (no space, no permission, another process), which says nothing about what is stored.
    #[must_use]
    pub fn is_condition(&self) -> bool {
        use std::io::ErrorKind::{FileTooLarge, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull, WouldBlock};
        let Self::Sled(sled::Error::Io(error)) = self else { return false };
        let kinds = [FileTooLarge, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull, WouldBlock];
        kinds.contains(&error.kind()) || self.is_locked()
    }

    fn is_locked(&self) -> bool {
        matches!(self, Self::Sled(sled::Error::Io(error)) if error.to_string().contains("could not acquire lock"))
    }
}

/// The cache.
#[derive(Debug)]
pub struct Store {
    db: Db,
}

impl Store {
    /// Opens or makes the cache of a folder.
    ///
    /// # Errors
    /// sled cannot open it.
    pub fn open(dir: &Path, cache_bytes: u64) -> Result<Self, StoreError> {
        let config = sled::Config::new().path(dir).cache_capacity(cache_bytes).flush_every_ms(None);
        let patience_ends = Instant::now() + LOCK_PATIENCE;
        loop {
            // sled's threads can hold the lock for a moment after a store in this process was closed.
            match guarded(|| Ok(config.open()?)) {
                Err(error) if error.is_locked() && Instant::now() < patience_ends => std::thread::sleep(Duration::from_millis(5)),
                opened => return Ok(Self { db: opened? }),
            }
        }
    }

    /// The state that is kept. `None` when there is none, or one of other bounds or days, which only the log can turn into these.
    ///
    /// # Errors
    /// Something is not as it was written.
    pub fn load(&self, days: &Days, bounds: Bounds) -> Result<Option<Projection>, StoreError> {
        guarded(|| {
            let Some(manifest) = self.db.get(MANIFEST)? else { return Ok(None) };
            let damaged = |error| StoreError::Damaged { what: "the manifest".to_owned(), error };
            let mut text = Reader::unsealed(&manifest).map_err(damaged)?;
            if text.text().map_err(damaged)? != fingerprint(days, bounds).as_bytes() {
                return Ok(None);
            }
            let mut projection = Projection::new(days.clone(), bounds);
            let (symbols, sum) = read_manifest(&mut text, &mut projection).map_err(damaged)?;
            let mut found = 0_u64;
            for number in 0..symbols {
                let bars = self.symbol(number)?;
                found = found.wrapping_add(share(number, bars.checksum));
                let twice = || StoreError::Missing { what: format!("symbol {number}") };
                projection.add(bars).ok_or_else(twice)?;
            }
            if found == sum { Ok(Some(projection)) } else { Err(StoreError::Missing { what: "a symbol's entry".to_owned() }) }
        })
    }

    fn symbol(&self, number: u32) -> Result<SymbolBars, StoreError> {
        let what = || format!("symbol {number}");
        let blob = self.db.get(symbol_key(number))?.ok_or_else(|| StoreError::Missing { what: what() })?;
        read_symbol(&blob).map_err(|error| StoreError::Damaged { what: what(), error })
    }

    /// The bars of a chunk.
    ///
    /// # Errors
    /// They are not those that the list of chunks names.
    pub fn chunk(&self, place: ChunkPlace, chunk: &Chunk) -> Result<Vec<Bar>, StoreError> {
        let what = || format!("chunk {} of symbol {}, {}", chunk.number, place.symbol, place.timeframe.as_str());
        let missing = || StoreError::Missing { what: what() };
        let blob = guarded(|| Ok(self.db.get(chunk_key(place, chunk.number))?))?.ok_or_else(missing)?;
        if crc32fast::hash(&blob) != chunk.checksum {
            return Err(missing());
        }
        let bars = decode_all(&blob, chunk.count).map_err(|error| StoreError::Damaged { what: what(), error })?;
        if bars.first().is_some_and(|bar| bar.start == chunk.first) { Ok(bars) } else { Err(missing()) }
    }

    /// Saves what has changed. Gives the checksums to tell [`saved`] of.
    ///
    /// # Errors
    /// sled cannot write.
    pub fn commit(&self, projection: &Projection) -> Result<Vec<Saved>, StoreError> {
        let mut batch = Batch::default();
        let mut changed = Vec::new();
        let mut sum = 0_u64;
        for (number, bars) in projection.symbols() {
            let mut checksum = bars.checksum;
            if bars.is_dirty() || checksum == 0 {
                let saved = put_symbol(&mut batch, number, bars);
                checksum = saved.checksum;
                changed.push(saved);
            }
            sum = sum.wrapping_add(share(number, checksum));
        }
        batch.insert(MANIFEST, write_manifest(projection, sum));
        guarded(|| {
            self.db.apply_batch(batch)?;
            self.db.flush()?;
            Ok(())
        })?;
        Ok(changed)
    }

    #[cfg(test)]
    pub(super) const fn db(&self) -> &Db {
        &self.db
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // What cannot be flushed is read from the log again.
        if let Err(error) = guarded(|| Ok(self.db.flush()?)) {
            tracing::debug!(%error, "the charts' cache did not close cleanly");
        }
    }
}

/// What was saved of a symbol.
#[derive(Debug)]
pub struct Saved {
    number: u32,
    checksum: u32,
    chunks: [Vec<u32>; Timeframe::COUNT],
}

/// The projection is what the cache is now.
pub fn saved(projection: &mut Projection, changed: Vec<Saved>) {
    let mut changed = changed.into_iter().peekable();
    for (number, bars) in (0..).zip(&mut projection.symbols) {
        let of_symbol = changed.next_if(|saved| saved.number == number);
        let (checksum, chunks) = of_symbol.map_or((bars.checksum, Default::default()), |saved| (saved.checksum, saved.chunks));
        bars.checksum = checksum;
        bars.series.iter_mut().zip(chunks).for_each(|(series, checksums)| series.saved(checksums.into_iter()));
    }
}

/// Runs what touches sled, and turns a panic into an error.
fn guarded<T>(work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(StoreError::Panicked(text_of(panic.as_ref()))))
}

/// What a cache must have been made with to be of use.
fn fingerprint(days: &Days, bounds: Bounds) -> String {
    format!("{VERSION} {} {} {} {}", days.zone(), tzdb_version(), bounds.bars_max, bounds.symbols_max)
}

/// A symbol's share of the manifest's sum.
const fn share(number: u32, checksum: u32) -> u64 {
    ((number as u64 + 1) << 32 | checksum as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn symbol_key(number: u32) -> [u8; 5] {
    let mut key = [b's'; 5];
    key[1..].copy_from_slice(&number.to_be_bytes());
    key
}

fn chunk_key(place: ChunkPlace, number: u32) -> [u8; 10] {
    let mut key = [b'c'; 10];
    key[1..5].copy_from_slice(&place.symbol.to_be_bytes());
    key[5] = place.timeframe as u8;
    key[6..].copy_from_slice(&number.to_be_bytes());
    key
}

fn put_symbol(batch: &mut Batch, number: u32, bars: &SymbolBars) -> Saved {
    let mut chunks: [Vec<u32>; Timeframe::COUNT] = Default::default();
    let mut out = Writer::default();
    out.text(bars.symbol.as_bytes());
    for (timeframe, (series, checksums)) in Timeframe::ALL.into_iter().zip(bars.series.iter().zip(&mut chunks)) {
        let place = ChunkPlace { symbol: number, timeframe };
        series.dropped().iter().for_each(|dropped| batch.remove(&chunk_key(place, *dropped)));
        for chunk in series.chunks() {
            if let Some(bars) = chunk.unsaved() {
                let blob = encode_all(bars);
                checksums.push(crc32fast::hash(&blob));
                batch.insert(&chunk_key(place, chunk.number), blob);
            }
        }
        series.write(checksums.iter().copied(), &mut out);
    }
    let blob = out.sealed();
    let checksum = checksum_of(&blob);
    batch.insert(&symbol_key(number), blob);
    Saved { number, checksum, chunks }
}

fn read_symbol(blob: &[u8]) -> Result<SymbolBars, Malformed> {
    let mut text = Reader::unsealed(blob)?;
    let symbol = Symbol::parse(text.text()?).ok_or(Malformed)?;
    let mut series: [Series; Timeframe::COUNT] = Default::default();
    for series in &mut series {
        *series = Series::read(&mut text)?;
    }
    if text.is_empty() { Ok(SymbolBars { symbol, series, checksum: checksum_of(blob) }) } else { Err(Malformed) }
}

/// The checksum that ends a blob. 0 stands for one that is not saved, so it is never told.
fn checksum_of(blob: &[u8]) -> u32 {
    blob.last_chunk::<4>().map_or(1, |tail| u32::from_le_bytes(*tail).max(1))
}

fn write_manifest(projection: &Projection, sum: u64) -> Vec<u8> {
    let mut out = Writer::default();
    out.text(fingerprint(&projection.days, projection.bounds).as_bytes());
    out.unsigned(projection.symbols.len() as u64);
    out.unsigned(sum);
    out.unsigned(projection.positions.len() as u64);
    for ((feed, partition), position) in &projection.positions {
        out.unsigned(*feed as u64);
        out.unsigned(u64::from(*partition));
        out.unsigned(position.next);
        match position.last {
            Some((offset, hash)) => {
                out.text(&hash);
                out.unsigned(offset);
            }
            None => out.text(&[]),
        }
    }
    projection.splits.write(&mut out);
    out.sealed()
}

/// Reads positions and splits into the projection; gives the number of symbols and the sum of their entries.
fn read_manifest(text: &mut Reader<'_>, projection: &mut Projection) -> Result<(u32, u64), Malformed> {
    let (symbols, sum) = (text.small()?, text.unsigned()?);
    for _ in 0..text.length()? {
        let feed = Feed::ALL.get(text.length()?).copied().ok_or(Malformed)?;
        let (partition, next) = (text.small()?, text.unsigned()?);
        let last = match text.text()? {
            [] => None,
            hash => {
                let hash = hash.try_into().map_err(|_| Malformed)?;
                Some((text.unsigned()?, hash))
            }
        };
        projection.positions.insert((feed, partition), Position { next, last });
    }
    projection.splits = Splits::read(text)?;
    if text.is_empty() { Ok((symbols, sum)) } else { Err(Malformed) }
}
