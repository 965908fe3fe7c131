//! Loading one snapshot: groups are read in order on one thread, opened, summed and decoded on as many as the machine has.
//!
//! Invariant: what is given is exactly what was written, or nothing: every blob's checksum, the manifest's references and the sum
//! over all accounts have been held against each other. Deliberately absent: what an account is.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Mutex, PoisonError};

use sled::IVec;

use super::aside::guarded;
use super::store::{Store, StoreError};
use crate::wire::snapshot::{AccountsHash, BlobKind, DecodeError, Manifest, decode_group, open};

/// Groups that are read ahead of their decoding.
const AHEAD: usize = 32;

/// Accounts as they come, put in order.
struct Assembly<T> {
    accounts: Vec<T>,
    next: usize,
    early: BTreeMap<usize, Vec<T>>,
    sum: AccountsHash,
    failed: Option<StoreError>,
}

/// All accounts of a snapshot, each decoded by `decode` from its bytes and the version that wrote them.
pub(super) fn accounts<T: Send>(
    store: &Store,
    shard: u32,
    manifest: &Manifest,
    decode: impl Fn(u16, &[u8]) -> Result<T, DecodeError> + Sync,
) -> Result<Vec<T>, StoreError> {
    let assembly = Mutex::new(Assembly {
        accounts: Vec::with_capacity(manifest.accounts as usize),
        next: 0,
        early: BTreeMap::new(),
        sum: AccountsHash::default(),
        failed: None,
    });
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let (sender, receiver) = sync_channel::<(usize, IVec)>(AHEAD);
    let receiver = Mutex::new(receiver);
    std::thread::scope(|scope| {
        let sender = sender;
        let (receiver, assembly, decode) = (&receiver, &assembly, &decode);
        for _ in 0..workers {
            scope.spawn(move || {
                while let Some((group, blob)) = next_of(receiver) {
                    let first = u32::try_from(group).unwrap_or(u32::MAX).saturating_mul(manifest.accounts_per_group);
                    let decoded = guarded(|| group_accounts(shard, group, first, &blob, decode));
                    place(&mut assembly.lock().unwrap_or_else(PoisonError::into_inner), group, decoded);
                }
            });
        }
        for (group, named) in manifest.groups.iter().enumerate() {
            let read = store.group(group, *named);
            let mut state = assembly.lock().unwrap_or_else(PoisonError::into_inner);
            match read {
                Ok(_) if state.failed.is_some() => break,
                Ok(blob) => {
                    drop(state);
                    if sender.send((group, blob)).is_err() {
                        break;
                    }
                }
                Err(error) => {
                    state.failed = Some(error);
                    break;
                }
            }
        }
    });
    let done = assembly.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some(error) = done.failed {
        return Err(error);
    }
    let whole = done.accounts.len() == manifest.accounts as usize && done.sum.to_bytes() == manifest.accounts_hash;
    if whole { Ok(done.accounts) } else { Err(StoreError::AccountsHash) }
}

fn next_of(receiver: &Mutex<Receiver<(usize, IVec)>>) -> Option<(usize, IVec)> {
    receiver.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()
}

fn group_accounts<T>(
    shard: u32,
    group: usize,
    first: u32,
    blob: &[u8],
    decode: impl Fn(u16, &[u8]) -> Result<T, DecodeError>,
) -> Result<(Vec<T>, AccountsHash), StoreError> {
    let blob_error = |error| StoreError::Blob { what: format!("group {group}"), error };
    let opened = open(BlobKind::Accounts, shard, blob).map_err(blob_error)?;
    let mut sum = AccountsHash::default();
    let mut accounts = Vec::new();
    for (place, bytes) in (first..).zip(decode_group(opened.payload).map_err(blob_error)?) {
        sum.add(place, bytes);
        accounts.push(decode(opened.version, bytes).map_err(blob_error)?);
    }
    Ok((accounts, sum))
}

fn place<T>(assembly: &mut Assembly<T>, group: usize, decoded: Result<(Vec<T>, AccountsHash), StoreError>) {
    let (accounts, sum) = match decoded {
        Ok(decoded) => decoded,
        Err(error) => {
            assembly.failed.get_or_insert(error);
            return;
        }
    };
    assembly.sum.merge(sum);
    assembly.early.insert(group, accounts);
    while let Some(mut accounts) = assembly.early.remove(&assembly.next) {
        assembly.accounts.append(&mut accounts);
        assembly.next += 1;
    }
}
