//! A look at the snapshots of a folder that no daemon has.
//!
//! Invariant: the caller has the data directory's lock, so nobody else opens what is opened here; a folder that
//! is not there is not made. Deliberately absent: loading the accounts, and moving anything aside.

use std::path::Path;

use crate::domain::Millis;
use crate::engine::Standing;

use super::aside::guarded;
use super::store::{Generation, Store, StoreError};

/// What sled may keep in memory for a look.
const CACHE_BYTES: u64 = 1024 * 1024;

/// One snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inspected {
    /// Its number.
    pub number: u64,
    /// The accounts in it.
    pub accounts: u32,
    /// The records that it contains.
    pub seq: u64,
    /// The ledger offset to go on from.
    pub next_offset: u64,
    /// The gate's clock when its last record was sequenced.
    pub received: Millis,
}

/// The snapshots of a shard, oldest first; none where there is no folder.
///
/// # Errors
/// The store cannot be opened, or there is a doubt about what it holds.
pub fn inspect(dir: &Path, shard: u32) -> Result<Vec<Inspected>, StoreError> {
    let dir = dir.join(format!("shard-{shard}"));
    if !dir.is_dir() {
        return Ok(Vec::new());
    }
    let mut store = guarded(|| Store::open(&dir, shard, CACHE_BYTES))?;
    match store.take_doubt() {
        Some(doubt) => Err(doubt),
        None => store.generations().iter().map(inspected).collect(),
    }
}

fn inspected(generation: &Generation) -> Result<Inspected, StoreError> {
    let manifest = &generation.manifest;
    let doubt = |error| StoreError::Blob { what: format!("standing of snapshot {}", manifest.number), error };
    let standing = Standing::of_bytes(generation.version, &manifest.standing).map_err(doubt)?;
    let Standing { seq, next_offset, received, .. } = standing;
    Ok(Inspected { number: manifest.number, accounts: manifest.accounts, seq, next_offset, received })
}
