//! What the vault can refuse or fail at.
//!
//! Invariant: no variant holds anything that a secret could be in: ids, fields' names, versions and fixed words only.

use super::envelope::NoRandomness;
use super::kek::MasterKeyError;
use super::secrets::Refused;
use super::stored::Status;
use crate::control::directory::WriteError;
use crate::log::LogError;

/// Why the vault is locked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Locked {
    /// There is no master key.
    #[error("there is no master key: set ORDERGATE_MASTER_KEY_FILE")]
    NoMasterKey,
    /// The master key cannot be used.
    #[error(transparent)]
    MasterKey(MasterKeyError),
    /// The master key is not the one that this KEK version was made with, or its record is damaged.
    #[error("the master key does not open KEK version {version}")]
    WrongMasterKey {
        /// The KEK version.
        version: u32,
    },
    /// A secret is sealed under a KEK version that the directory does not have.
    #[error("the directory has no KEK version {version}, and secrets are sealed under it")]
    KekMissing {
        /// The KEK version.
        version: u32,
    },
    /// A KEK record is no record of ours.
    #[error("the record of KEK {id} is damaged")]
    KekDamaged {
        /// Its id.
        id: String,
    },
}

/// Why an operation of the vault did not happen.
#[derive(Clone, Debug, thiserror::Error)]
pub enum VaultError {
    /// The vault is locked.
    #[error("the vault is locked: {0}")]
    Locked(#[from] Locked),
    /// There is no such key.
    #[error("there is no such key")]
    Unknown,
    /// The key is revoked, which is final.
    #[error("the key is revoked, which is final")]
    Revoked,
    /// The key may not be used now.
    #[error("the key is {}", .status.as_str())]
    NotActive {
        /// What it is instead.
        status: Status,
    },
    /// The key was changed since the caller looked.
    #[error("the key was changed meanwhile: its revision is {current}")]
    Changed {
        /// Its revision now.
        current: u64,
    },
    /// A field may not be so.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The owner has as many keys as one may have.
    #[error("an owner has at most {most} keys")]
    TooMany {
        /// The most.
        most: usize,
    },
    /// The idempotency key was used for another request, or its key is deleted since.
    #[error("the idempotency key was used for another request")]
    OtherRequest,
    /// The stored secret does not open: it is damaged, or was put there by someone else.
    #[error("the stored secret does not open")]
    Damaged,
    /// What is stored is no record of ours.
    #[error("what is stored of the key cannot be read")]
    Unreadable,
    /// Too often.
    #[error("too many requests; wait {retry_after_s} s")]
    TooOften {
        /// Seconds to wait.
        retry_after_s: u64,
    },
    /// A rotation of the KEK is under way here.
    #[error("the vault is being rotated")]
    Rotating,
    /// The directory could not be written.
    #[error("the directory could not be written: {0}")]
    Write(WriteError),
    /// The audit trail could not be written, so nothing is told.
    #[error("the audit trail could not be written: {0}")]
    Audit(LogError),
    /// No randomness, so nothing is sealed.
    #[error(transparent)]
    Randomness(#[from] NoRandomness),
}

impl VaultError {
    /// What is written of it in the audit trail and in metrics.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Locked(_) => "locked",
            Self::Unknown => "unknown",
            Self::Revoked => "revoked",
            Self::NotActive { .. } => "not_active",
            Self::Changed { .. } => "changed",
            Self::Refused(_) => "refused",
            Self::TooMany { .. } => "too_many",
            Self::OtherRequest => "other_request",
            Self::Damaged => "damaged",
            Self::Unreadable => "unreadable",
            Self::TooOften { .. } => "too_often",
            Self::Rotating => "rotating",
            Self::Write(_) => "not_written",
            Self::Audit(_) => "not_audited",
            Self::Randomness(_) => "no_randomness",
        }
    }
}
