//! A new KEK version: every data key is wrapped anew.
//!
//! Invariant: at every moment every secret opens with KEKs that are in the directory; so a rotation may end anywhere and is taken up
//! by whoever asks next, here or on another instance. An old KEK is erased only when nothing is sealed under it, and no earlier than
//! any record can still be under way that was sealed under it. Deliberately absent: a record of the rotation itself. That some are
//! sealed under an older KEK than the newest says all.

use std::collections::BTreeMap;

use metrics::counter;
use serde::Deserialize;
use serde_json::json;

use super::envelope::random;
use super::kek::{Kek, KekRecord};
use super::stored::Stored;
use super::{By, Locked, Vault, VaultError, kek_id};
use crate::control::directory::WriteError;
use crate::directory::Kind;
use crate::telemetry::VAULT_REWRAPPED;

/// How often all keys are looked through for such as came while it went on.
const PASSES: usize = 16;
/// How often one key's rewrapping is tried against other writers.
const TRIES: usize = 8;

/// What a rotation did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// The KEK version under which everything is now.
    pub to: u32,
    /// Whether it took up one that had begun.
    pub resumed: bool,
    /// How many were wrapped anew.
    pub rewrapped: u64,
    /// Those that do not open and stay as they are, with the KEK that they are under.
    pub failed: Vec<Failed>,
    /// The KEK versions that were erased.
    pub erased: Vec<u32>,
}

impl Rotation {
    /// Whether everything is under the newest KEK.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.failed.is_empty()
    }
}

/// A key that could not be moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// Its id.
    pub id: String,
    /// Why, as [`VaultError::as_str`].
    pub why: &'static str,
}

impl Vault {
    /// Takes up a rotation that has not ended, or else makes a new KEK version and moves everything under it.
    ///
    /// # Errors
    /// A KEK that something is sealed under does not open, a rotation is under way here, or the directory cannot be written.
    pub async fn rotate(&self, by: By<'_>, now: i64) -> Result<Rotation, VaultError> {
        self.begun(by, "vault.rotate", "vault", &json!({})).await?;
        let done = self.rotate_from_here(by, now).await;
        let about = done.as_ref().map_or_else(
            |_| json!({}),
            |done| json!({"to": done.to, "resumed": done.resumed, "rewrapped": done.rewrapped, "failed": done.failed.len()}),
        );
        self.ended(by, "vault.rotate", "vault", about, done).await
    }

    /// What a daemon does now and then: ends a rotation that was cut off, and erases KEKs that nothing needs any more.
    ///
    /// # Errors
    /// As [`Vault::rotate`]. Of a vault without secrets or without its master key nothing is done, which is no error.
    pub async fn upkeep(&self, by: By<'_>, now: i64) -> Result<Option<Rotation>, VaultError> {
        let records = self.records()?;
        let Some(newest) = records.last() else { return Ok(None) };
        let unfinished = self.uses().keys().any(|version| *version < newest.version);
        if self.ring.masters().current().is_none() || (!unfinished && records.len() < 2) {
            return Ok(None);
        }
        if unfinished {
            return self.rotate(by, now).await.map(Some);
        }
        let Ok(_alone) = self.rotating.try_lock() else { return Ok(None) };
        self.erase_unused(by, &records, now).await?;
        Ok(None)
    }

    async fn rotate_from_here(&self, by: By<'_>, now: i64) -> Result<Rotation, VaultError> {
        let _alone = self.rotating.try_lock().map_err(|_| VaultError::Rotating)?;
        let (uses, records) = (self.uses(), self.records()?);
        for version in uses.keys() {
            self.kek(*version).await?;
        }
        let newest = records.last().map_or(0, |record| record.version);
        let resumed = uses.keys().any(|version| *version < newest);
        if !resumed {
            self.add_kek(by, newest + 1, now).await?;
        }
        let to = self.newest().await?.ok_or(Locked::KekMissing { version: newest + 1 })?;
        let mut rotation = Rotation { to: to.version(), resumed, rewrapped: 0, failed: Vec::new(), erased: Vec::new() };
        self.move_all(by, &to, &mut rotation).await?;
        if rotation.is_complete() {
            rotation.erased = self.erase_unused(by, &self.records()?, now).await?;
        }
        Ok(rotation)
    }

    /// Moves every key, and looks again for such as came meanwhile, until there is none.
    async fn move_all(&self, by: By<'_>, to: &Kek, rotation: &mut Rotation) -> Result<(), VaultError> {
        for _ in 0..PASSES {
            rotation.failed.clear();
            let mut moved = 0;
            for entity in self.directory.list(Kind::ApiKey) {
                match self.rewrap(&entity.id, to, by.actor).await {
                    Ok(true) => moved += 1,
                    // Deleted meanwhile, or moved already.
                    Ok(false) | Err(VaultError::Unknown) => {}
                    // The directory is not to be had: the next one takes it up from here.
                    Err(error @ VaultError::Write(_)) => return Err(error),
                    Err(error) => rotation.failed.push(Failed { id: entity.id, why: error.as_str() }),
                }
            }
            rotation.rewrapped += moved;
            counter!(VAULT_REWRAPPED).increment(moved);
            if moved == 0 {
                break;
            }
        }
        Ok(())
    }

    /// Wraps one key's data key under a newer KEK; whether it was under an older one.
    pub(super) async fn rewrap(&self, id: &str, to: &Kek, actor: &str) -> Result<bool, VaultError> {
        for last in (0..TRIES).rev() {
            let entity = self.entity(id).ok_or(VaultError::Unknown)?;
            let mut stored: Stored = serde_json::from_slice(&entity.body).map_err(|_| VaultError::Unreadable)?;
            let Some(envelope) = stored.sealed.as_ref().filter(|sealed| sealed.kek < to.version()) else { return Ok(false) };
            let from = self.kek(envelope.kek).await?;
            let rewrapped = envelope.rewrap(&from, to, stored.place(id), *random()?).map_err(|_| VaultError::Damaged)?;
            stored.sealed = Some(rewrapped);
            match self.put(id, entity.version, &stored, actor).await {
                Err(VaultError::Write(WriteError::Conflict { .. })) if last > 0 => {}
                written => return written.map(|_| true),
            }
        }
        Ok(false)
    }

    /// Erases KEKs that nothing is sealed under, once nothing can be under way that is.
    async fn erase_unused(&self, by: By<'_>, records: &[KekRecord], now: i64) -> Result<Vec<u32>, VaultError> {
        let Some(newest) = records.last() else { return Ok(Vec::new()) };
        // Who sealed under an old KEK did so before it had folded the newest one's record.
        if now - newest.created_at < self.options.retired_kept_ms {
            return Ok(Vec::new());
        }
        let (uses, mut erased) = (self.uses(), Vec::new());
        for old in records.iter().filter(|record| record.version < newest.version && !uses.contains_key(&record.version)) {
            let Some(entity) = self.directory.get(Kind::Kek, &kek_id(old.version)).filter(|entity| !entity.is_erased()) else { continue };
            let (object, about) = (format!("kek:{}", old.version), json!({"version": old.version}));
            self.begun(by, "vault.kek_erase", &object, &about).await?;
            let done = match self.directory.write(Kind::Kek, &entity.id, entity.version, None, by.actor).await {
                // Another instance was faster.
                Ok(_) | Err(WriteError::Conflict { .. }) => Ok(()),
                Err(error) => Err(VaultError::Write(error)),
            };
            self.ended(by, "vault.kek_erase", &object, json!({}), done).await?;
            erased.push(old.version);
        }
        Ok(erased)
    }

    /// How many secrets are sealed under each KEK version.
    pub(super) fn uses(&self) -> BTreeMap<u32, u64> {
        #[derive(Deserialize)]
        struct Sealed {
            sealed: Option<Under>,
        }
        #[derive(Deserialize)]
        struct Under {
            kek: u32,
        }
        let mut uses = BTreeMap::new();
        for entity in self.directory.list(Kind::ApiKey) {
            let sealed = serde_json::from_slice::<Sealed>(&entity.body).ok().and_then(|body| body.sealed);
            if let Some(under) = sealed {
                *uses.entry(under.kek).or_insert(0) += 1;
            }
        }
        uses
    }
}
