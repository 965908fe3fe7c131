//! Loading one snapshot: groups are read in order on one thread, opened, covered by the deltas, summed and decoded on as many as the
//! machine has.
//!
//! Invariant: what is given is exactly what was written, or nothing: every blob's checksum, the manifest's references, every place
//! and the sum over all accounts have been held against each other. Deliberately absent: what an account is.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Mutex, MutexGuard, PoisonError};

use sled::IVec;

use super::aside::guarded;
use super::store::{Store, StoreError};
use crate::wire::snapshot::{AccountsHash, BlobKind, BlobRef, DecodeError, Manifest, accounts_in};

/// Groups that are read ahead of their decoding.
const AHEAD: usize = 4;

/// The accounts of a snapshot, in order of their places.
pub(super) struct Accounts<T> {
    /// Decoded.
    pub(super) accounts: Vec<T>,
    /// The hash of each.
    pub(super) hashes: Vec<AccountsHash>,
}

/// Accounts as they come, put in order.
struct Assembly<T> {
    done: Accounts<T>,
    next: u32,
    early: BTreeMap<u32, Accounts<T>>,
    failed: Option<StoreError>,
}

type Deltas = BTreeMap<u32, (u16, Vec<u8>)>;

/// All accounts of a snapshot, each decoded by `decode` from its bytes and the version that wrote them.
pub(super) fn accounts<T: Send>(
    store: &Store,
    manifest: &Manifest,
    decode: impl Fn(u16, &[u8]) -> Result<T, DecodeError> + Sync,
) -> Result<Accounts<T>, StoreError> {
    let deltas = store.deltas(manifest)?;
    let mut done = grouped(store, manifest, &deltas, &decode)?;
    for (place, (version, account)) in deltas.range(manifest.grouped..) {
        if *place as usize != done.accounts.len() {
            return Err(StoreError::Hole { place: *place, count: manifest.grouped });
        }
        done.hashes.push(AccountsHash::of(*place, account));
        done.accounts.push(decode(*version, account).map_err(|error| StoreError::Blob { what: format!("account {place}"), error })?);
    }
    let mut sum = AccountsHash::default();
    done.hashes.iter().for_each(|hash| sum.plus(*hash));
    let whole = done.accounts.len() == manifest.accounts as usize && sum.to_bytes() == manifest.accounts_hash;
    if whole { Ok(done) } else { Err(StoreError::AccountsHash) }
}

fn grouped<T: Send>(
    store: &Store,
    manifest: &Manifest,
    deltas: &Deltas,
    decode: &(impl Fn(u16, &[u8]) -> Result<T, DecodeError> + Sync),
) -> Result<Accounts<T>, StoreError> {
    let count = manifest.accounts as usize;
    let done = Accounts { accounts: Vec::with_capacity(count), hashes: Vec::with_capacity(count) };
    let assembly = Mutex::new(Assembly { done, next: 0, early: BTreeMap::new(), failed: None });
    let (sender, receiver) = sync_channel::<(BlobRef, IVec)>(AHEAD);
    let receiver = Mutex::new(receiver);
    std::thread::scope(|scope| {
        let sender = sender;
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some((named, blob)) = next_of(&receiver) {
                    let first = named.part.saturating_mul(manifest.accounts_per_group);
                    let decoded = guarded(|| group(store, named, first, &blob, deltas, decode));
                    locked(&assembly).place(named.part, decoded);
                }
            });
        }
        for named in &manifest.groups {
            match store.blob(BlobKind::Accounts, *named) {
                Ok(blob) => {
                    if locked(&assembly).failed.is_some() || sender.send((*named, blob)).is_err() {
                        break;
                    }
                }
                Err(error) => {
                    locked(&assembly).failed = Some(error);
                    break;
                }
            }
        }
    });
    let assembly = assembly.into_inner().unwrap_or_else(PoisonError::into_inner);
    assembly.failed.map_or(Ok(assembly.done), Err)
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn next_of(receiver: &Mutex<Receiver<(BlobRef, IVec)>>) -> Option<(BlobRef, IVec)> {
    locked(receiver).recv().ok()
}

fn group<T>(
    store: &Store,
    named: BlobRef,
    first: u32,
    blob: &[u8],
    deltas: &Deltas,
    decode: impl Fn(u16, &[u8]) -> Result<T, DecodeError>,
) -> Result<Accounts<T>, StoreError> {
    let blob_error = |error| StoreError::Blob { what: format!("group {}", named.part), error };
    let opened = store.opened(BlobKind::Accounts, named, blob)?;
    let inside = accounts_in(opened.payload).map_err(blob_error)?;
    let mut done = Accounts { accounts: Vec::with_capacity(inside.len()), hashes: Vec::with_capacity(inside.len()) };
    for (due, (place, account)) in (first..).zip(inside) {
        if place != due {
            return Err(StoreError::Hole { place, count: due });
        }
        let (version, account) = match deltas.get(&place) {
            Some((version, account)) => (*version, account.as_slice()),
            None => (opened.version, account),
        };
        done.hashes.push(AccountsHash::of(place, account));
        done.accounts.push(decode(version, account).map_err(blob_error)?);
    }
    Ok(done)
}

impl<T> Assembly<T> {
    fn place(&mut self, group: u32, decoded: Result<Accounts<T>, StoreError>) {
        match decoded {
            Ok(decoded) => drop(self.early.insert(group, decoded)),
            Err(error) => drop(self.failed.get_or_insert(error)),
        }
        while let Some(mut decoded) = self.early.remove(&self.next) {
            self.done.accounts.append(&mut decoded.accounts);
            self.done.hashes.append(&mut decoded.hashes);
            self.next += 1;
        }
    }
}
