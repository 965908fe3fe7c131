//! The vault: broker keys, sealed in the directory.
//!
//! Invariant: what the directory holds of a secret is an envelope that only the master key opens; without the right one nothing that
//! is sealed is ever overwritten, and the rest of the gate goes on. A secret is in memory only while it is sealed, asked about or
//! revealed, in types that are overwritten and that nothing prints. Deliberately absent: rights (the API checks them), plain secrets
//! on any disk, and a way to the secrets around the audit trail.

pub mod broker;
mod bytes;
pub mod envelope;
mod error;
pub mod kek;
pub mod keyring;
mod keys;
mod limit;
mod open;
mod reminder;
mod rotate;
mod secrets;
mod status;
mod stored;
#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;

use metrics::{counter, gauge};
use serde_json::Value;

use crate::control::audit::Audit;
use crate::control::directory::DirectoryService;
use crate::directory::{FORGET_AFTER_MS, Kind};
use crate::telemetry::{VAULT_LOCKED, VAULT_OPERATIONS};

pub use broker::{Basis, Brokers, BrokersError, Checked, Outcome};
pub use error::{Locked, VaultError};
pub use keyring::{Keyring, Masters};
pub use keys::{Change, Filter, Found, Key, NewKey};
pub use reminder::{Reminder, Sent, due};
pub use rotate::{Failed, Rotation};
pub use secrets::{Refused, Secrets};
pub use status::{Failure, KekStatus, ReminderDue, State, VaultStatus, Verification};
pub use stored::{Broker, Environment, Standing, Status, Stored, Verified, Version};

use kek::{Cost, Kek, KekRecord};
use limit::Rate;

/// How the vault behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// What new KEKs cost to derive.
    pub cost: Cost,
    /// How often a caller may have secrets revealed.
    pub reveals_per_minute: u32,
    /// How often a caller may have brokers asked.
    pub verifications_per_minute: u32,
    /// How many keys an owner may have.
    pub keys_per_owner: usize,
    /// How long a KEK record that nothing is sealed under any more is kept: a writer that was about to use it may be slow.
    pub retired_kept_ms: i64,
    /// Where the brokers are.
    pub brokers: broker::Options,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cost: Cost::STANDARD,
            reveals_per_minute: 10,
            verifications_per_minute: 10,
            keys_per_owner: 1_000,
            retired_kept_ms: FORGET_AFTER_MS,
            brokers: broker::Options::default(),
        }
    }
}

/// Who asks: what the directory and the audit trail say of it.
#[derive(Clone, Copy, Debug)]
pub struct By<'a> {
    /// The name.
    pub actor: &'a str,
    /// Where from.
    pub address: &'a str,
}

/// The vault over the directory.
pub struct Vault {
    directory: Arc<DirectoryService>,
    audit: Arc<Audit>,
    ring: Keyring,
    brokers: Brokers,
    options: Options,
    reveals: Rate,
    verifications: Rate,
    rotating: tokio::sync::Mutex<()>,
}

impl Vault {
    /// A vault. Nothing is derived and nothing written before somebody needs it.
    ///
    /// # Errors
    /// A broker's address that cannot be.
    pub fn new(directory: Arc<DirectoryService>, audit: Arc<Audit>, masters: Masters, options: Options) -> Result<Self, BrokersError> {
        let brokers = Brokers::new(&options.brokers)?;
        let (reveals, verifications) = (Rate::new(options.reveals_per_minute), Rate::new(options.verifications_per_minute));
        let ring = Keyring::new(masters, options.cost);
        Ok(Self { directory, audit, ring, brokers, options, reveals, verifications, rotating: tokio::sync::Mutex::default() })
    }

    /// The KEK records of the directory, by version.
    fn records(&self) -> Result<Vec<KekRecord>, Locked> {
        let mut records = Vec::new();
        for entity in self.directory.list(Kind::Kek) {
            let record = serde_json::from_slice::<KekRecord>(&entity.body).ok().filter(|record| kek_id(record.version) == entity.id);
            records.push(record.ok_or(Locked::KekDamaged { id: entity.id })?);
        }
        records.sort_by_key(|record| record.version);
        Ok(records)
    }

    /// Why there is no master key, if so.
    fn no_master(&self) -> Locked {
        self.ring.masters().trouble().map_or(Locked::NoMasterKey, |trouble| Locked::MasterKey(trouble.clone()))
    }

    /// The KEK of a record, or why the vault is locked.
    async fn open_kek(&self, record: &KekRecord) -> Result<Arc<Kek>, Locked> {
        if self.ring.masters().current().is_none() {
            return Err(self.no_master());
        }
        self.ring.open(record).await.ok_or(Locked::WrongMasterKey { version: record.version })
    }

    /// The newest KEK, under which everything new is sealed. Asked for after an entity was read, so that what a rotation has moved to
    /// a newer KEK is never sealed under an older one again: the rotation's KEK stands before it in the log.
    async fn newest(&self) -> Result<Option<Arc<Kek>>, VaultError> {
        let records = self.records()?;
        self.ring.retain(&records);
        match records.last() {
            Some(record) => {
                let opened = self.open_kek(record).await;
                gauge!(VAULT_LOCKED).set(if opened.is_ok() { 0.0 } else { 1.0 });
                Ok(Some(opened?))
            }
            None => Ok(None),
        }
    }

    /// The KEK of a version.
    async fn kek(&self, version: u32) -> Result<Arc<Kek>, VaultError> {
        let record = self.records()?.into_iter().find(|record| record.version == version);
        Ok(self.open_kek(&record.ok_or(Locked::KekMissing { version })?).await?)
    }

    /// Notes that somebody is about to change something: the trail may say more than was done, never less.
    async fn begun(&self, by: By<'_>, action: &'static str, object: &str, changes: &Value) -> Result<(), VaultError> {
        let recorded = self.audit.record(by.actor, by.address, action, object, changes.clone(), "begun").await;
        recorded.map(|_| ()).map_err(VaultError::Audit)
    }

    /// Notes how a change ended. That it was begun is noted already, so what cannot be noted now is told all the same.
    async fn ended<T>(
        &self,
        by: By<'_>,
        action: &'static str,
        object: &str,
        about: Value,
        done: Result<T, VaultError>,
    ) -> Result<T, VaultError> {
        let noted = self.noted(by, action, object, about, done.as_ref().map(|_| ()).map_err(Clone::clone)).await;
        if let Err(VaultError::Audit(error)) = noted {
            tracing::warn!(code = error.code(), action, object, "how it ended is not in the audit trail");
        }
        done
    }

    /// Notes in the audit trail and in the metrics how an operation ended. What cannot be noted is not told.
    async fn noted<T>(
        &self,
        by: By<'_>,
        action: &'static str,
        object: &str,
        changes: Value,
        done: Result<T, VaultError>,
    ) -> Result<T, VaultError> {
        let result = done.as_ref().map_or_else(VaultError::as_str, |_| "ok");
        counter!(VAULT_OPERATIONS, "operation" => action, "result" => result).increment(1);
        let recorded = self.audit.record(by.actor, by.address, action, object, changes, result).await;
        match (done, recorded) {
            (Err(error), _) => Err(error),
            (Ok(done), Ok(_)) => Ok(done),
            (Ok(_), Err(error)) => Err(VaultError::Audit(error)),
        }
    }
}

/// What the audit trail calls a broker key.
#[must_use]
pub fn object(id: &str) -> String {
    format!("api_key:{id}")
}

/// The id of a KEK record: versions in the order of their ids.
fn kek_id(version: u32) -> String {
    format!("{version:010}")
}
