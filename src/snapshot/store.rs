//! The sled store of one shard's snapshots: groups of encoded accounts, deltas over them, the shared part, manifests.
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
    AccountsHash, BlobKind, BlobRef, DecodeError, EncodeError, Manifest, Opened, Stamp, accounts_in, checksum_of, decode_value, open,
};

/// How many snapshots are kept.
pub const GENERATIONS: usize = 2;
/// How many accounts share a blob: with 20 positions each, half a megabyte to one.
pub const ACCOUNTS_PER_GROUP: u32 = 512;
/// This key is there while blobs may be that no manifest names.
pub(super) const UNSWEPT: &[u8] = b"u";
/// How long a folder's lock is waited for.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);

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
    /// A snapshot of another version is not built upon.
    #[error("a snapshot of version {version} is followed by a whole one only")]
    OtherVersion {
        /// Its version.
        version: u16,
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
        use std::io::ErrorKind::{FileTooLarge, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull, WouldBlock};
        let Self::Sled(sled::Error::Io(error)) = self else { return false };
        let kinds = [FileTooLarge, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull, WouldBlock];
        kinds.contains(&error.kind()) || self.is_locked()
    }

    /// Whether another store holds the folder.
    fn is_locked(&self) -> bool {
        matches!(self, Self::Sled(sled::Error::Io(error)) if error.to_string().contains("could not acquire lock"))
    }
}

/// The store.
#[derive(Debug)]
pub struct Store {
    pub(super) db: Db,
    pub(super) shard: u32,
    /// Oldest first.
    pub(super) generations: Vec<Generation>,
    /// Of each account of the newest generation, once they are known.
    pub(super) hashes: Option<Vec<AccountsHash>>,
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
        let mut store = Self { db, shard, generations: Vec::new(), hashes: None, doubt: None };
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

    /// A blob that a manifest names, as it lies there.
    pub(super) fn blob(&self, kind: BlobKind, named: BlobRef) -> Result<IVec, StoreError> {
        let blob = self.db.get(blob_key(kind, named.number, named.part))?;
        let blob = blob.filter(|blob| checksum_of(blob) == named.checksum && blob.len() == named.bytes as usize);
        blob.ok_or_else(|| StoreError::Missing { what: what(kind, named) })
    }

    /// Opens a blob that a manifest names.
    pub(super) fn opened<'a>(&self, kind: BlobKind, named: BlobRef, blob: &'a [u8]) -> Result<Opened<'a>, StoreError> {
        open(kind, self.shard, blob).map_err(|error| StoreError::Blob { what: what(kind, named), error })
    }

    /// The shared part of a snapshot, with the version of its encoding.
    pub fn shared(&self, manifest: &Manifest) -> Result<(u16, Vec<u8>), StoreError> {
        let blob = self.blob(BlobKind::Shared, manifest.shared)?;
        let opened = self.opened(BlobKind::Shared, manifest.shared, &blob)?;
        Ok((opened.version, opened.payload.to_vec()))
    }

    /// The accounts of a snapshot's deltas, the latest of each, with the version of its encoding.
    pub(super) fn deltas(&self, manifest: &Manifest) -> Result<BTreeMap<u32, (u16, Vec<u8>)>, StoreError> {
        let mut accounts = BTreeMap::new();
        for named in &manifest.deltas {
            let blob = self.blob(BlobKind::Delta, *named)?;
            let opened = self.opened(BlobKind::Delta, *named, &blob)?;
            let inside = accounts_in(opened.payload).map_err(|error| StoreError::Blob { what: what(BlobKind::Delta, *named), error })?;
            accounts.extend(inside.into_iter().map(|(place, account)| (place, (opened.version, account.to_vec()))));
        }
        Ok(accounts)
    }

    /// Forgets the newest snapshot and what only it names.
    pub fn drop_newest(&mut self) -> Result<(), StoreError> {
        if let Some(newest) = self.generations.pop() {
            let mut batch = Batch::default();
            retire(&newest.manifest, self.generations.last().map(|older| &older.manifest), &mut batch);
            self.hashes = None;
            self.db.apply_batch(batch)?;
            self.db.flush()?;
        }
        Ok(())
    }

    /// Removes blobs that no manifest names: of a write that was cut off.
    fn sweep(&self) -> Result<(), StoreError> {
        let named: BTreeSet<Vec<u8>> = self.generations.iter().flat_map(|generation| keys_of(&generation.manifest)).collect();
        for key in self.db.iter().keys() {
            let key = key?;
            if !named.contains(key.as_ref()) {
                self.db.remove(&key)?;
            }
        }
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
    let groups = manifest.grouped.div_ceil(ACCOUNTS_PER_GROUP) as usize;
    let fits = manifest.number == number
        && manifest.accounts_per_group == ACCOUNTS_PER_GROUP
        && manifest.groups.len() == groups
        && manifest.grouped <= manifest.accounts;
    if !fits {
        return Err(StoreError::Missing { what: what() });
    }
    Ok(Generation { version: opened.version, stamp: opened.stamp, manifest })
}

/// Removes a snapshot, but for what its neighbour names too. No other one can name it: blobs are inherited from one to the next.
pub(super) fn retire(going: &Manifest, neighbour: Option<&Manifest>, batch: &mut Batch) {
    let kept: BTreeSet<Vec<u8>> = neighbour.into_iter().flat_map(keys_of).collect();
    for key in keys_of(going).filter(|key| !kept.contains(key)) {
        batch.remove(key);
    }
}

/// The keys of everything that belongs to a snapshot.
fn keys_of(manifest: &Manifest) -> impl Iterator<Item = Vec<u8>> {
    let of = |kind| move |named: &BlobRef| blob_key(kind, named.number, named.part);
    let own = [blob_key(BlobKind::Manifest, manifest.number, 0), of(BlobKind::Shared)(&manifest.shared)];
    own.into_iter().chain(manifest.groups.iter().map(of(BlobKind::Accounts))).chain(manifest.deltas.iter().map(of(BlobKind::Delta)))
}

/// A blob's key: its kind, its part, the snapshot that wrote it. Groups lie in the order in which they are loaded.
pub(super) fn blob_key(kind: BlobKind, number: u64, part: u32) -> Vec<u8> {
    let letter = match kind {
        BlobKind::Manifest => b'm',
        BlobKind::Shared => b's',
        BlobKind::Accounts => b'g',
        BlobKind::Delta => b'd',
    };
    [[letter].as_slice(), &part.to_be_bytes(), &number.to_be_bytes()].concat()
}

fn number_in(key: &[u8]) -> u64 {
    key.last_chunk::<8>().map_or(0, |number| u64::from_be_bytes(*number))
}

fn what(kind: BlobKind, named: BlobRef) -> String {
    let kind = match kind {
        BlobKind::Manifest => "manifest",
        BlobKind::Shared => "shared part",
        BlobKind::Accounts => "group",
        BlobKind::Delta => "delta",
    };
    format!("{kind} {} of snapshot {}", named.part, named.number)
}
