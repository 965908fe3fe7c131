//! Writing one snapshot: what was touched, as a delta over the groups, or folded into them when the deltas have grown.
//!
//! Invariant: blobs come before the manifest that names them, and both before anything is removed. What is written is in proportion
//! to what was touched: folding costs at most a rewrite of all groups, once for each eighth of their length. Deliberately absent:
//! changing a blob that is there.

use std::collections::BTreeMap;

use sled::Batch;

use super::load;
use super::store::{ACCOUNTS_PER_GROUP, GENERATIONS, Generation, Store, StoreError, UNSWEPT, blob_key, retire};
use crate::wire::snapshot::{
    AccountsHash, BlobKind, BlobRef, EncodeError, Manifest, Stamp, VERSION, accounts_in, checksum_of, encode_value, put_account, seal,
};

/// Deltas of this length are never folded into the groups, however short those are. They stay in memory and are read at each start: with
/// many small shards, this is what an instance grows by.
const DELTA_BYTES_MIN: u64 = if cfg!(test) { 4 << 10 } else { 1 << 20 };
/// Deltas are folded into the groups when they have grown to this part of their length.
const GROUPS_PER_DELTA: u64 = 8;
/// A delta is split into blobs of about this length.
const DELTA_BLOB_BYTES: usize = 1 << 20;
/// Blobs are handed to sled in batches of about this length.
const BATCH_BYTES: usize = 4 << 20;

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

impl Store {
    /// Writes a snapshot and makes it the newest. Gives the bytes written. After an error the store is to be closed.
    pub fn write(&mut self, job: &Job) -> Result<u64, StoreError> {
        let number = self.generations.last().map_or(1, |last| last.manifest.number + 1);
        let base = self.generations.last().filter(|_| !job.whole);
        if let Some(Generation { version, .. }) = base.filter(|base| base.version != VERSION) {
            return Err(StoreError::OtherVersion { version: *version });
        }
        let base = base.map(|base| base.manifest.clone());
        let (hashes, sum) = self.hashes_after(job, base.as_ref())?;
        self.db.insert(UNSWEPT, &[])?;
        let mut writing = Writing { store: self, number, stamp: job.stamp, batch: Batch::default(), pending: 0, written: 0 };
        let (groups, grouped, deltas) = writing.accounts(job, base)?;
        let shared = writing.put(BlobKind::Shared, 0, &job.shared)?;
        writing.send()?;
        let written = writing.written;
        let manifest = Manifest {
            number,
            accounts: job.accounts,
            accounts_per_group: ACCOUNTS_PER_GROUP,
            grouped,
            groups,
            deltas,
            shared,
            accounts_hash: sum.to_bytes(),
            standing: job.standing.clone(),
        };
        let bytes = self.commit(Generation { version: VERSION, stamp: job.stamp, manifest })?;
        self.hashes = Some(hashes);
        Ok(written + bytes)
    }

    /// The hash of each account after the job, and their sum.
    fn hashes_after(&mut self, job: &Job, base: Option<&Manifest>) -> Result<(Vec<AccountsHash>, AccountsHash), StoreError> {
        let (mut hashes, mut sum) = match (base, self.hashes.take()) {
            (None, _) => (Vec::new(), AccountsHash::default()),
            (Some(base), Some(hashes)) => (hashes, AccountsHash::from_bytes(&base.accounts_hash)),
            (Some(base), None) => (load::accounts(self, base, |_, _| Ok(()))?.hashes, AccountsHash::from_bytes(&base.accounts_hash)),
        };
        for (place, account) in &job.touched {
            let hash = AccountsHash::of(*place, account);
            let count = hashes.len();
            match hashes.get_mut(*place as usize) {
                Some(old) => sum.minus(std::mem::replace(old, hash)),
                None if count == *place as usize => hashes.push(hash),
                None => return Err(StoreError::Hole { place: *place, count: count_of(&hashes) }),
            }
            sum.plus(hash);
        }
        if hashes.len() != job.accounts as usize {
            return Err(StoreError::Hole { place: job.accounts, count: count_of(&hashes) });
        }
        Ok((hashes, sum))
    }

    /// Puts the manifest in place, and with it removes the snapshot that is one too many.
    fn commit(&mut self, newest: Generation) -> Result<u64, StoreError> {
        let blob = seal(BlobKind::Manifest, &newest.stamp, &encode_value(&newest.manifest)?);
        let bytes = blob.len() as u64;
        let mut batch = Batch::default();
        batch.insert(blob_key(BlobKind::Manifest, newest.manifest.number, 0), blob);
        batch.remove(UNSWEPT);
        let retired = (self.generations.len() + 1).saturating_sub(GENERATIONS);
        let nexts = self.generations.iter().skip(1).chain(std::iter::once(&newest));
        for (old, next) in self.generations.iter().zip(nexts).take(retired) {
            retire(&old.manifest, Some(&next.manifest), &mut batch);
        }
        self.db.flush()?;
        self.db.apply_batch(batch)?;
        self.db.flush()?;
        self.generations.drain(..retired);
        self.generations.push(newest);
        Ok(bytes)
    }
}

fn count_of(hashes: &[AccountsHash]) -> u32 {
    u32::try_from(hashes.len()).unwrap_or(u32::MAX)
}

fn length_of(blobs: &[BlobRef]) -> u64 {
    blobs.iter().map(|blob| u64::from(blob.bytes)).sum()
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
    /// Writes the accounts that changed. Gives the groups, how many accounts they hold, and the deltas.
    fn accounts(&mut self, job: &Job, base: Option<Manifest>) -> Result<(Vec<BlobRef>, u32, Vec<BlobRef>), StoreError> {
        let Some(mut base) = base else {
            return Ok((self.groups(Vec::new(), &job.touched)?, job.accounts, Vec::new()));
        };
        let touched: u64 = job.touched.values().map(|account| account.len() as u64).sum();
        let room = DELTA_BYTES_MIN.max(length_of(&base.groups) / GROUPS_PER_DELTA);
        if length_of(&base.deltas) + touched <= room {
            self.delta(&mut base.deltas, &job.touched)?;
            return Ok((base.groups, base.grouped, base.deltas));
        }
        let earlier = self.store.deltas(&base)?;
        let mut changed: BTreeMap<u32, Vec<u8>> = earlier.into_iter().map(|(place, (_, account))| (place, account)).collect();
        changed.extend(job.touched.iter().map(|(place, account)| (*place, account.clone())));
        Ok((self.groups(base.groups, &changed)?, job.accounts, Vec::new()))
    }

    fn delta(&mut self, deltas: &mut Vec<BlobRef>, touched: &BTreeMap<u32, Vec<u8>>) -> Result<(), StoreError> {
        let (mut part, mut payload) = (0, Vec::new());
        for (place, account) in touched {
            put_account(&mut payload, *place, account)?;
            if payload.len() >= DELTA_BLOB_BYTES {
                deltas.push(self.put(BlobKind::Delta, part, &payload)?);
                payload.clear();
                part += 1;
            }
        }
        if !payload.is_empty() {
            deltas.push(self.put(BlobKind::Delta, part, &payload)?);
        }
        Ok(())
    }

    /// Writes the groups that `changed` falls into anew. Its places leave no hole.
    fn groups(&mut self, mut groups: Vec<BlobRef>, changed: &BTreeMap<u32, Vec<u8>>) -> Result<Vec<BlobRef>, StoreError> {
        let mut next = changed.keys().next().copied();
        while let Some(place) = next {
            let (group, first) = (place / ACCOUNTS_PER_GROUP, place - place % ACCOUNTS_PER_GROUP);
            let end = first.saturating_add(ACCOUNTS_PER_GROUP);
            let old = groups.get(group as usize).map(|named| self.store.blob(BlobKind::Accounts, *named)).transpose()?;
            let mut accounts: BTreeMap<u32, &[u8]> = BTreeMap::new();
            if let (Some(blob), Some(named)) = (&old, groups.get(group as usize)) {
                let opened = self.store.opened(BlobKind::Accounts, *named, blob)?;
                let blob_error = |error| StoreError::Blob { what: format!("group {group}"), error };
                accounts.extend(accounts_in(opened.payload).map_err(blob_error)?);
            }
            accounts.extend(changed.range(first..end).map(|(place, account)| (*place, account.as_slice())));
            let mut payload = Vec::new();
            accounts.iter().try_for_each(|(place, account)| put_account(&mut payload, *place, account))?;
            let named = self.put(BlobKind::Accounts, group, &payload)?;
            match groups.get_mut(group as usize) {
                Some(place) => *place = named,
                None => groups.push(named),
            }
            next = changed.range(end..).next().map(|(place, _)| *place);
        }
        Ok(groups)
    }

    fn put(&mut self, kind: BlobKind, part: u32, payload: &[u8]) -> Result<BlobRef, StoreError> {
        let blob = seal(kind, &self.stamp, payload);
        let bytes = u32::try_from(blob.len()).map_err(|_| EncodeError::TooLong { bytes: blob.len() })?;
        let named = BlobRef { number: self.number, part, bytes, checksum: checksum_of(&blob) };
        self.pending += blob.len();
        self.written += u64::from(bytes);
        self.batch.insert(blob_key(kind, self.number, part), blob);
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
