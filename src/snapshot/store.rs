//! The sled store of one shard's snapshots: groups of encoded accounts, the shared part, manifests.
//!
//! Invariant: a snapshot exists when its manifest does, and the manifest comes last, in one batch with the removal of the snapshot
//! that it retires; at most [`GENERATIONS`] exist. Every blob that a manifest names is never changed and is removed only with the
//! last manifest that names it. Deliberately absent: threads, the fold's types, and any repair: a doubt is an error.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use sled::{Batch, Db, IVec};
use thiserror::Error;

use crate::wire::snapshot::{
    AccountsHash, BlobKind, BlobRef, DecodeError, EncodeError, Manifest, Stamp, VERSION, checksum_of, decode_group, decode_value,
    encode_group, encode_value, open, seal,
};

/// How many snapshots are kept.
pub const GENERATIONS: usize = 2;
/// How many accounts share a blob: a touched account rewrites this many, and a whole state of a million is 15,625 blobs.
pub const ACCOUNTS_PER_GROUP: u32 = 64;
/// How long a folder's lock is waited for.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
/// This key is there while blobs may be that no manifest names.
const UNSWEPT: &[u8] = b"u";
/// Blobs are written in batches of about this much.
const BATCH_BYTES: usize = 4 << 20;

/// Why a store cannot be read or written.
#[derive(Debug, Error)]
pub enum StoreError {
    /// sled refused.
    #[error("sled: {0}")]
    Sled(#[from] sled::Error),
    /// sled panicked.
    #[error("sled panicked: {0}")]
    Panicked(String),
    /// A blob did not open.
    #[error("{what}: {error}")]
    Blob {
        /// Which.
        what: String,
        /// Why.
        error: DecodeError,
    },
    /// A blob that a manifest names is not there, or another one is in its place.
    #[error("{what} is missing or another one")]
    Missing {
        /// Which.
        what: String,
    },
    /// The accounts are not those that the manifest sums up.
    #[error("the accounts are not those of the manifest")]
    AccountsHash,
    /// An account's place leaves a hole before it.
    #[error("account {place} comes before account {count}")]
    Hole {
        /// Its place.
        place: u32,
        /// The number of accounts before it.
        count: u32,
    },
    /// Something cannot be encoded.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The thread of the store is gone.
    #[error("the snapshot thread ended")]
    Ended,
}

impl StoreError {
    /// Whether a newer program wrote it: then it is left alone.
    #[must_use]
    pub fn is_newer(&self) -> bool {
        matches!(self, Self::Blob { error: DecodeError::Newer { .. }, .. })
    }

    /// Whether it is the machine's condition (no space, no permission, another process), which says nothing about what is stored.
    #[must_use]
    pub fn is_condition(&self) -> bool {
        use std::io::ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull, WouldBlock};
        let Self::Sled(sled::Error::Io(error)) = self else { return false };
        let kinds = [PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull, WouldBlock];
        kinds.contains(&error.kind()) || self.is_locked()
    }

    /// Whether another store holds the folder.
    fn is_locked(&self) -> bool {
        matches!(self, Self::Sled(sled::Error::Io(error)) if error.to_string().contains("could not acquire lock"))
    }
}

/// A snapshot to write. Everything is encoded already.
#[derive(Clone, Debug)]
pub struct Job {
    /// Where it stands.
    pub stamp: Stamp,
    /// What must be known beside the state.
    pub standing: Vec<u8>,
    /// The shared part.
    pub shared: Vec<u8>,
    /// How many accounts there are.
    pub accounts: u32,
    /// The accounts that changed since the last job, by place.
    pub touched: BTreeMap<u32, Vec<u8>>,
    /// `touched` is all of them, and nothing stored is built upon.
    pub whole: bool,
}

/// The store.
#[derive(Debug)]
pub struct Store {
    db: Db,
    shard: u32,
    /// Oldest first.
    generations: Vec<Generation>,
    doubt: Option<StoreError>,
}

/// One snapshot in the store.
#[derive(Clone, Debug)]
pub struct Generation {
    /// The version that encoded it.
    pub version: u16,
    /// Where it stands.
    pub stamp: Stamp,
    /// What it consists of.
    pub manifest: Manifest,
}

impl Store {
    /// Opens or creates a store and reads its manifests. Those that are not whole are left out; see [`Store::take_doubt`].
    pub fn open(dir: &Path, shard: u32, cache_bytes: u64) -> Result<Self, StoreError> {
        let db = open_db(&sled::Config::new().path(dir).cache_capacity(cache_bytes).flush_every_ms(None))?;
        let mut store = Self { db, shard, generations: Vec::new(), doubt: None };
        for entry in store.db.scan_prefix(b"m") {
            let (key, blob) = entry?;
            match generation(shard, number_in(&key), &blob) {
                Ok(generation) => store.generations.push(generation),
                // A newer program's is the one thing to know about a store, whatever else is wrong with it.
                Err(error) if error.is_newer() => store.doubt = Some(error),
                Err(error) => drop(store.doubt.get_or_insert(error)),
            }
        }
        if store.doubt.is_none() && store.db.contains_key(UNSWEPT)? {
            store.sweep()?;
        }
        Ok(store)
    }

    /// What was wrong when it was opened.
    pub fn take_doubt(&mut self) -> Option<StoreError> {
        self.doubt.take()
    }

    /// The snapshots, oldest first.
    #[must_use]
    pub fn generations(&self) -> &[Generation] {
        &self.generations
    }

    #[cfg(test)]
    pub(super) fn db(&self) -> &Db {
        &self.db
    }

    /// The blob of a group that a manifest names.
    pub fn group(&self, group: usize, named: BlobRef) -> Result<IVec, StoreError> {
        self.named(&group_key(group, named.number), named, || format!("group {group} of snapshot {}", named.number))
    }

    /// The shared part of a snapshot, with the version of its encoding.
    pub fn shared(&self, manifest: &Manifest) -> Result<(u16, Vec<u8>), StoreError> {
        let what = || format!("shared part of snapshot {}", manifest.number);
        let blob = self.named(&shared_key(manifest.shared.number), manifest.shared, what)?;
        let opened = open(BlobKind::Shared, self.shard, &blob).map_err(|error| StoreError::Blob { what: what(), error })?;
        Ok((opened.version, opened.payload.to_vec()))
    }

    fn named(&self, key: &[u8], named: BlobRef, what: impl Fn() -> String) -> Result<IVec, StoreError> {
        let blob = self.db.get(key)?.ok_or_else(|| StoreError::Missing { what: what() })?;
        if checksum_of(&blob) == named.checksum { Ok(blob) } else { Err(StoreError::Missing { what: what() }) }
    }

    /// Writes a snapshot and makes it the newest. Gives the bytes written.
    pub fn write(&mut self, job: &Job) -> Result<u64, StoreError> {
        let number = self.generations.last().map_or(1, |last| last.manifest.number + 1);
        let base = if job.whole { None } else { self.generations.last().map(|last| last.manifest.clone()) };
        self.db.insert(UNSWEPT, &[])?;
        let mut writing = Writing { store: self, number, stamp: job.stamp, batch: Batch::default(), pending: 0, written: 0 };
        let (groups, accounts_hash) = writing.groups(job, base)?;
        let shared = writing.put(&shared_key(number), BlobKind::Shared, &job.shared)?;
        writing.send()?;
        let written = writing.written;
        let manifest = Manifest {
            number,
            accounts: job.accounts,
            accounts_per_group: ACCOUNTS_PER_GROUP,
            groups,
            shared,
            accounts_hash: accounts_hash.to_bytes(),
            standing: job.standing.clone(),
        };
        let blob = seal(BlobKind::Manifest, &job.stamp, &encode_value(&manifest)?);
        let written = written + blob.len() as u64;
        let mut batch = Batch::default();
        batch.insert(manifest_key(number).to_vec(), blob);
        batch.remove(UNSWEPT);
        let newest = Generation { version: VERSION, stamp: job.stamp, manifest };
        let retired = (self.generations.len() + 1).saturating_sub(GENERATIONS);
        let nexts = self.generations.iter().skip(1).chain(std::iter::once(&newest));
        for (old, next) in self.generations.iter().zip(nexts).take(retired) {
            retire(&old.manifest, &next.manifest, &mut batch);
        }
        self.db.flush()?;
        self.db.apply_batch(batch)?;
        self.db.flush()?;
        self.generations.drain(..retired);
        self.generations.push(newest);
        Ok(written)
    }

    /// Forgets the newest snapshot and what only it names.
    pub fn drop_newest(&mut self) -> Result<(), StoreError> {
        if let Some(newest) = self.generations.pop() {
            let mut batch = Batch::default();
            match self.generations.last() {
                Some(older) => retire(&newest.manifest, &older.manifest, &mut batch),
                None => batch.remove(manifest_key(newest.manifest.number).to_vec()),
            }
            self.db.apply_batch(batch)?;
            self.db.flush()?;
        }
        Ok(())
    }

    /// Removes blobs that no manifest names: of a write that was cut off.
    fn sweep(&self) -> Result<(), StoreError> {
        let mut named = BTreeSet::new();
        for Generation { manifest, .. } in &self.generations {
            named.insert(shared_key(manifest.shared.number).to_vec());
            named.extend(manifest.groups.iter().enumerate().map(|(group, blob)| group_key(group, blob.number).to_vec()));
        }
        for prefix in [b"g", b"s"] {
            for key in self.db.scan_prefix(prefix).keys() {
                let key = key?;
                if !named.contains(key.as_ref()) {
                    self.db.remove(&key)?;
                }
            }
        }
        self.db.remove(UNSWEPT)?;
        Ok(())
    }
}

/// Opens sled. Its threads can hold the lock for a moment after a store in this process was closed.
fn open_db(config: &sled::Config) -> Result<Db, StoreError> {
    let patience_ends = Instant::now() + LOCK_PATIENCE;
    loop {
        match config.open().map_err(StoreError::from) {
            Err(error) if error.is_locked() && Instant::now() < patience_ends => std::thread::sleep(Duration::from_millis(5)),
            opened => return opened,
        }
    }
}

fn generation(shard: u32, number: u64, blob: &[u8]) -> Result<Generation, StoreError> {
    let what = || format!("manifest {number}");
    let blob_error = |error| StoreError::Blob { what: what(), error };
    let opened = open(BlobKind::Manifest, shard, blob).map_err(blob_error)?;
    let manifest: Manifest = decode_value(opened.version, opened.payload).map_err(blob_error)?;
    let groups = manifest.accounts.div_ceil(ACCOUNTS_PER_GROUP) as usize;
    let fits = manifest.number == number && manifest.groups.len() == groups && manifest.accounts_per_group == ACCOUNTS_PER_GROUP;
    if !fits {
        return Err(StoreError::Missing { what: what() });
    }
    Ok(Generation { version: opened.version, stamp: opened.stamp, manifest })
}

/// A snapshot in the making.
struct Writing<'a> {
    store: &'a Store,
    number: u64,
    stamp: Stamp,
    batch: Batch,
    pending: usize,
    written: u64,
}

impl Writing<'_> {
    /// Writes the groups that changed; gives all groups, and the sum over all accounts.
    fn groups(&mut self, job: &Job, base: Option<Manifest>) -> Result<(Vec<BlobRef>, AccountsHash), StoreError> {
        let (mut groups, mut count, mut sum) = match base {
            Some(base) => (base.groups, base.accounts, AccountsHash::from_bytes(&base.accounts_hash)),
            None => (Vec::new(), 0, AccountsHash::default()),
        };
        let mut touched = job.touched.iter().peekable();
        while let Some((place, _)) = touched.peek() {
            let group = (**place / ACCOUNTS_PER_GROUP) as usize;
            let first = **place - **place % ACCOUNTS_PER_GROUP;
            let old = groups.get(group).map(|named| self.store.group(group, *named)).transpose()?;
            let mut accounts = match &old {
                Some(blob) => self.accounts_of(group, blob)?,
                None => Vec::new(),
            };
            while let Some((place, account)) = touched.next_if(|(place, _)| **place / ACCOUNTS_PER_GROUP == first / ACCOUNTS_PER_GROUP) {
                let index = (*place - first) as usize;
                if let Some(old) = accounts.get_mut(index) {
                    sum.remove(*place, old);
                    *old = account;
                } else if *place == count {
                    accounts.push(account);
                    count += 1;
                } else {
                    return Err(StoreError::Hole { place: *place, count });
                }
                sum.add(*place, account);
            }
            let payload = encode_group(&accounts)?;
            let named = self.put(&group_key(group, self.number), BlobKind::Accounts, &payload)?;
            match groups.get_mut(group) {
                Some(place) => *place = named,
                None => groups.push(named),
            }
        }
        if count == job.accounts { Ok((groups, sum)) } else { Err(StoreError::Hole { place: job.accounts, count }) }
    }

    fn accounts_of<'b>(&self, group: usize, blob: &'b [u8]) -> Result<Vec<&'b [u8]>, StoreError> {
        let blob_error = |error| StoreError::Blob { what: format!("group {group}"), error };
        let opened = open(BlobKind::Accounts, self.store.shard, blob).map_err(blob_error)?;
        decode_group(opened.payload).map_err(blob_error)
    }

    fn put(&mut self, key: &[u8], kind: BlobKind, payload: &[u8]) -> Result<BlobRef, StoreError> {
        let blob = seal(kind, &self.stamp, payload);
        let named = BlobRef { number: self.number, checksum: checksum_of(&blob) };
        self.pending += blob.len();
        self.written += blob.len() as u64;
        self.batch.insert(key.to_vec(), blob);
        if self.pending >= BATCH_BYTES {
            self.send()?;
        }
        Ok(named)
    }

    fn send(&mut self) -> Result<(), StoreError> {
        self.pending = 0;
        self.store.db.apply_batch(std::mem::take(&mut self.batch))?;
        Ok(())
    }
}

/// Removes the oldest or the newest snapshot: what its neighbour does not name either. No other one can name it.
fn retire(old: &Manifest, next: &Manifest, batch: &mut Batch) {
    batch.remove(manifest_key(old.number).to_vec());
    if old.shared != next.shared {
        batch.remove(shared_key(old.shared.number).to_vec());
    }
    for (group, named) in old.groups.iter().enumerate() {
        if next.groups.get(group) != Some(named) {
            batch.remove(group_key(group, named.number).to_vec());
        }
    }
}

fn manifest_key(number: u64) -> [u8; 9] {
    keyed(b'm', number)
}

fn shared_key(number: u64) -> [u8; 9] {
    keyed(b's', number)
}

fn keyed(kind: u8, number: u64) -> [u8; 9] {
    let mut key = [kind; 9];
    key[1..].copy_from_slice(&number.to_be_bytes());
    key
}

fn group_key(group: usize, number: u64) -> [u8; 17] {
    let mut key = [b'g'; 17];
    key[1..9].copy_from_slice(&(group as u64).to_be_bytes());
    key[9..].copy_from_slice(&number.to_be_bytes());
    key
}

fn number_in(key: &[u8]) -> u64 {
    key.last_chunk::<8>().map_or(0, |number| u64::from_be_bytes(*number))
}
