//! What the vault says of itself: whether it is locked, what is sealed under which KEK, what does not open, what ends soon.
//!
//! Invariant: reads only, but for the notes that a reminder was sent and that somebody verified. Deliberately absent: secrets, even
//! opened ones; a verification forgets each before it opens the next.

use metrics::gauge;
use serde_json::json;

use super::keys::Lock;
use super::reminder::{Reminder, Sent, due};
use super::stored::{Broker, Standing, Stored};
use super::{By, Locked, Vault, VaultError};
use crate::directory::Kind;
use crate::telemetry::{VAULT_LOCKED, VAULT_UNOPENED};

/// After so many a verification lets others run.
const BREATH: usize = 64;

/// Whether the vault can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It can.
    Unlocked,
    /// It can; nothing was ever sealed.
    Empty,
    /// The master key is missing or not the right one.
    Locked,
}

impl State {
    /// Its word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unlocked => "unlocked",
            Self::Empty => "empty",
            Self::Locked => "locked",
        }
    }
}

/// One KEK version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KekStatus {
    /// Its version.
    pub version: u32,
    /// When it was made, in milliseconds since the epoch.
    pub created_at: i64,
    /// Whether the master key opens it.
    pub opens: bool,
    /// How many secrets are sealed under it.
    pub secrets: u64,
}

/// How the vault is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VaultStatus {
    /// Whether it can be used.
    pub state: State,
    /// Why not.
    pub reason: Option<Locked>,
    /// The KEK versions.
    pub keks: Vec<KekStatus>,
    /// Secrets that are sealed.
    pub secrets: u64,
    /// Secrets that a rotation has still to move.
    pub to_rewrap: u64,
    /// Whether a rotation goes on here.
    pub rotating: bool,
}

/// A secret that does not open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The key's id.
    pub id: String,
    /// Why, as [`VaultError::as_str`].
    pub why: &'static str,
}

/// What opening everything showed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verification {
    /// How many open.
    pub opened: u64,
    /// Those that do not.
    pub failed: Vec<Failure>,
}

/// A reminder that is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReminderDue {
    /// The key's id.
    pub id: String,
    /// Whom to tell.
    pub owner: String,
    /// What its owner calls it.
    pub name: String,
    /// Whose customer.
    pub broker: Broker,
    /// Which one.
    pub reminder: Reminder,
    /// The end that it is about, in milliseconds since the epoch.
    pub expires_at: i64,
}

impl Vault {
    /// How the vault is. Derives KEKs that were not tried yet.
    pub async fn status(&self) -> VaultStatus {
        let status = self.looked_at().await;
        // Where nothing was ever sealed nobody misses the master key, unless there was to be one.
        let is_wanted = status.secrets > 0 || !status.keks.is_empty() || matches!(status.reason, Some(Locked::MasterKey(_)));
        let is_missed = status.state == State::Locked && is_wanted;
        gauge!(VAULT_LOCKED).set(if is_missed { 1.0 } else { 0.0 });
        status
    }

    async fn looked_at(&self) -> VaultStatus {
        let uses = self.uses();
        let rotating = self.rotating.try_lock().is_err();
        let secrets = uses.values().sum();
        let locked = |reason| VaultStatus { state: State::Locked, reason: Some(reason), keks: Vec::new(), secrets, to_rewrap: 0, rotating };
        let records = match self.records() {
            Ok(records) => records,
            Err(reason) => return locked(reason),
        };
        if records.is_empty() {
            return match (self.ring.masters().current(), uses.keys().next()) {
                (None, _) => locked(self.no_master()),
                (Some(_), Some(version)) => locked(Locked::KekMissing { version: *version }),
                (Some(_), None) => VaultStatus { state: State::Empty, reason: None, ..locked(Locked::NoMasterKey) },
            };
        }
        let (mut keks, mut trouble) = (Vec::new(), None);
        for record in &records {
            let opened = self.open_kek(record).await;
            let secrets = uses.get(&record.version).copied().unwrap_or(0);
            keks.push(KekStatus { version: record.version, created_at: record.created_at, opens: opened.is_ok(), secrets });
            trouble = opened.err();
        }
        let newest = records.last().map_or(0, |record| record.version);
        let to_rewrap = uses.iter().filter(|(version, _)| **version < newest).map(|(_, secrets)| secrets).sum();
        let state = if trouble.is_some() { State::Locked } else { State::Unlocked };
        VaultStatus { state, reason: trouble, keks, secrets, to_rewrap, rotating }
    }

    /// Opens every secret for somebody, and notes that in the audit trail.
    ///
    /// # Errors
    /// The audit trail cannot be written.
    pub async fn verify_for(&self, by: By<'_>) -> Result<Verification, VaultError> {
        let verification = self.verify().await;
        let about = json!({"opened": verification.opened, "failed": verification.failed.len()});
        self.noted(by, "vault.verify", "vault", about, Ok(verification)).await
    }

    /// Opens every secret and says which do not open. Nothing is written.
    pub async fn verify(&self) -> Verification {
        let mut verification = Verification::default();
        for (at, entity) in self.directory.list(Kind::ApiKey).into_iter().enumerate() {
            if at % BREATH == BREATH - 1 {
                tokio::task::yield_now().await;
            }
            match serde_json::from_slice::<Stored>(&entity.body) {
                Ok(stored) if stored.sealed.is_none() => {}
                Ok(stored) => match self.open_secrets(&entity.id, &stored).await {
                    Ok(_) => verification.opened += 1,
                    Err(error) => verification.failed.push(Failure { id: entity.id, why: error.as_str() }),
                },
                Err(_) => verification.failed.push(Failure { id: entity.id, why: VaultError::Unreadable.as_str() }),
            }
        }
        gauge!(VAULT_UNOPENED).set(verification.failed.len() as f64);
        verification
    }

    /// The reminders that are due: of keys that are in use, and of such as have just ended.
    #[must_use]
    pub fn reminders(&self, now: i64) -> Vec<ReminderDue> {
        let mut all = Vec::new();
        for entity in self.directory.list(Kind::ApiKey) {
            let Ok(stored) = serde_json::from_slice::<Stored>(&entity.body) else { continue };
            let Some(expires_at) = stored.expires_at else { continue };
            // By what its owner made of it: one that was switched off does not come back by ending.
            let in_use = match stored.standing {
                Standing::Active => stored.deleted_at.is_none(),
                Standing::Inactive | Standing::Revoked => false,
            };
            if let Some(reminder) = due(now, expires_at, stored.reminded).filter(|_| in_use) {
                let Stored { owner, name, broker, .. } = stored;
                all.push(ReminderDue { id: entity.id, owner, name, broker, reminder, expires_at });
            }
        }
        all
    }

    /// Notes that a reminder is on its way for good, so that no other comes for the same.
    ///
    /// # Errors
    /// The directory cannot be written: the reminder is due again.
    pub async fn reminded(&self, actor: &str, sent: &ReminderDue) -> Result<(), VaultError> {
        let noted = Sent { reminder: sent.reminder, expires_at: sent.expires_at };
        let done = self.update(&sent.id, None, actor, Lock::IsNothing, |stored, _| {
            if stored.expires_at == Some(sent.expires_at) {
                stored.reminded = Some(noted);
            }
            Ok(())
        });
        match done.await {
            Err(VaultError::Unknown) => Ok(()),
            done => done,
        }
    }
}
