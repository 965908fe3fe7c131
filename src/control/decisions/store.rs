//! The blocks in sled, with how far each shard is indexed.
//!
//! Invariant: a block, its summary and the position that says so are written in one batch. Deliberately
//! absent: any repair; a doubt is an error, and the folder is moved aside.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use sled::{Batch, Db};

use super::block::{Block, Damaged, SEQS_PER_BLOCK, Summary, opened, sealed};
use crate::domain::Millis;

/// How long a folder's lock is waited for: sled's threads can hold it for a moment after a store was closed.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// Why the index cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// sled refused.
    #[error("sled: {0}")]
    Sled(#[from] sled::Error),
    /// sled panicked.
    #[error("sled panicked")]
    Panicked,
    /// Something in it is not what was written.
    #[error(transparent)]
    Damaged(#[from] Damaged),
    /// It does not belong to this ledger.
    #[error("the index belongs to another ledger")]
    OtherLedger,
    /// It could not be made anew; the next start tries again.
    #[error("the index is off: {0}")]
    Off(String),
    /// The thread that searched is gone.
    #[error("the search ended")]
    Ended,
}

/// How far a shard is indexed by its follower.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Indexed {
    /// The records.
    pub seq: u64,
    /// The next ledger offset.
    pub ledger_next: u64,
    /// The chain's hash there.
    pub head: [u8; 32],
}

/// Sequences before the follower's beginning that are still to be indexed: `after < seq <= to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// Done up to here.
    pub after: u64,
    /// To be done up to here.
    pub to: u64,
}

/// The store.
#[derive(Debug)]
pub struct Store {
    db: Db,
}

fn guarded<T>(work: impl FnOnce() -> Result<T, IndexError>) -> Result<T, IndexError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or(Err(IndexError::Panicked))
}

fn key(letter: u8, shard: u32, block: u64) -> [u8; 13] {
    let mut key = [letter; 13];
    key[1..5].copy_from_slice(&shard.to_be_bytes());
    key[5..].copy_from_slice(&block.to_be_bytes());
    key
}

const SUMMARY: u8 = b's';
const BLOCK: u8 = b'b';
const INDEXED: u8 = b'i';
const GAP: u8 = b'g';
const DROPPED: u8 = b'd';

impl Store {
    /// Opens or makes the store.
    pub fn open(dir: &Path, cache_bytes: u64) -> Result<Self, IndexError> {
        guarded(|| {
            let config = sled::Config::new().path(dir).cache_capacity(cache_bytes).flush_every_ms(Some(1_000));
            let patience_ends = Instant::now() + LOCK_PATIENCE;
            loop {
                match config.open() {
                    Err(sled::Error::Io(error)) if error.to_string().contains("lock") && Instant::now() < patience_ends => {
                        std::thread::sleep(Duration::from_millis(10));
                    }
                    opened => return Ok(Self { db: opened? }),
                }
            }
        })
    }

    fn value<T: for<'de> Deserialize<'de>>(&self, key: &[u8]) -> Result<Option<T>, IndexError> {
        let Some(bytes) = guarded(|| Ok(self.db.get(key)?))? else { return Ok(None) };
        let decoded = bincode::serde::decode_from_slice(opened(&bytes)?, bincode::config::standard());
        decoded.map(|(value, _)| Some(value)).map_err(|_| Damaged("a position does not decode").into())
    }

    /// How far a shard is indexed.
    pub fn indexed(&self, shard: u32) -> Result<Option<Indexed>, IndexError> {
        self.value(&key(INDEXED, shard, 0))
    }

    /// What is still to be indexed before that.
    pub fn gap(&self, shard: u32) -> Result<Option<Gap>, IndexError> {
        self.value(&key(GAP, shard, 0))
    }

    /// Notes what is still to be indexed.
    pub fn set_gap(&self, shard: u32, gap: Option<Gap>) -> Result<(), IndexError> {
        let mut batch = Batch::default();
        put_gap(&mut batch, shard, gap)?;
        guarded(|| Ok(self.db.apply_batch(batch)?))
    }

    /// A block.
    pub fn block(&self, shard: u32, number: u64) -> Result<Option<Block>, IndexError> {
        let bytes = guarded(|| Ok(self.db.get(key(BLOCK, shard, number))?))?;
        Ok(bytes.map(|bytes| Block::decode(&bytes)).transpose()?)
    }

    /// The summary of the last block at or below a number.
    pub fn summary_below(&self, shard: u32, number: u64) -> Result<Option<(u64, Summary)>, IndexError> {
        let found = guarded(|| Ok(self.db.range(key(SUMMARY, shard, 0)..=key(SUMMARY, shard, number)).next_back().transpose()?))?;
        let Some((key, bytes)) = found else { return Ok(None) };
        let number = key.last_chunk::<8>().map_or(0, |number| u64::from_be_bytes(*number));
        Ok(Some((number, Summary::decode(&bytes)?)))
    }

    /// The last number at or below another whose block begins before a time: blocks lie in the order of time.
    pub fn last_before(&self, shard: u32, number: u64, to: Millis) -> Result<u64, IndexError> {
        let begins_before =
            |number| Ok::<_, IndexError>(self.summary_below(shard, number)?.is_none_or(|(_, summary)| summary.times.0 < to));
        if begins_before(number)? {
            return Ok(number);
        }
        let Some((last, _)) = self.summary_below(shard, number)? else { return Ok(number) };
        let (mut low, mut high) = (0, last);
        while low < high {
            let middle = high - (high - low) / 2;
            if begins_before(middle)? { low = middle } else { high = middle - 1 }
        }
        Ok(low)
    }

    /// The number of the first block.
    pub fn first(&self, shard: u32) -> Result<Option<u64>, IndexError> {
        let found = guarded(|| Ok(self.db.range(key(SUMMARY, shard, 0)..=key(SUMMARY, shard, u64::MAX)).next().transpose()?))?;
        Ok(found.and_then(|(key, _)| key.last_chunk::<8>().map(|number| u64::from_be_bytes(*number))))
    }

    /// Writes a block, unless it is empty, and the position that comes with it.
    pub fn write(&self, shard: u32, block: Option<(u64, &Block, &Summary)>, position: &Progress) -> Result<(), IndexError> {
        let mut batch = Batch::default();
        if let Some((number, block, summary)) = block {
            batch.insert(&key(BLOCK, shard, number), block.encode()?);
            batch.insert(&key(SUMMARY, shard, number), summary.encode()?);
        }
        match position {
            Progress::Indexed(indexed) => batch.insert(&key(INDEXED, shard, 0), sealed(&bytes_of(indexed)?)),
            Progress::Gap(gap) => put_gap(&mut batch, shard, *gap)?,
        }
        guarded(|| Ok(self.db.apply_batch(batch)?))
    }

    /// The first block from a number on, up to another.
    pub fn block_from(&self, shard: u32, number: u64, last: u64) -> Result<Option<(u64, Block)>, IndexError> {
        let found = guarded(|| Ok(self.db.range(key(BLOCK, shard, number)..=key(BLOCK, shard, last)).next().transpose()?))?;
        let Some((key, bytes)) = found else { return Ok(None) };
        let number = key.last_chunk::<8>().map_or(0, |number| u64::from_be_bytes(*number));
        Ok(Some((number, Block::decode(&bytes)?)))
    }

    /// Sequences below this one were dropped; 0 when none were.
    pub fn dropped_below(&self, shard: u32) -> Result<u64, IndexError> {
        Ok(self.value(&key(DROPPED, shard, 0))?.unwrap_or(0))
    }

    /// Drops a block, the oldest one, and notes that it was there.
    pub fn drop_block(&self, shard: u32, number: u64) -> Result<(), IndexError> {
        let mut batch = Batch::default();
        let below = number.saturating_add(1).saturating_mul(SEQS_PER_BLOCK);
        batch.insert(&key(DROPPED, shard, 0), sealed(&bytes_of(&below)?));
        batch.remove(&key(BLOCK, shard, number));
        batch.remove(&key(SUMMARY, shard, number));
        guarded(|| Ok(self.db.apply_batch(batch)?))
    }

    /// Makes what is written survive the process.
    pub fn flush(&self) -> Result<(), IndexError> {
        guarded(|| self.db.flush().map(drop).map_err(IndexError::from))
    }

    /// The bytes that it takes on the disk.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.db.size_on_disk().unwrap_or(0)
    }

    #[cfg(test)]
    pub fn spoil(&self, shard: u32, number: u64) {
        self.db.insert(key(BLOCK, shard, number), b"spoilt").unwrap();
        self.db.insert(key(SUMMARY, shard, number), b"spoilt").unwrap();
        self.db.flush().unwrap();
    }
}

/// Which position a write moves.
#[derive(Clone, Copy, Debug)]
pub enum Progress {
    /// The follower's.
    Indexed(Indexed),
    /// That of what comes before.
    Gap(Option<Gap>),
}

fn bytes_of<T: Serialize>(value: &T) -> Result<Vec<u8>, IndexError> {
    bincode::serde::encode_to_vec(value, bincode::config::standard()).map_err(|_| Damaged("a position cannot be encoded").into())
}

fn put_gap(batch: &mut Batch, shard: u32, gap: Option<Gap>) -> Result<(), IndexError> {
    match gap {
        Some(gap) => batch.insert(&key(GAP, shard, 0), sealed(&bytes_of(&gap)?)),
        None => batch.remove(&key(GAP, shard, 0)),
    }
    Ok(())
}
