//! The master key, and the key-encryption keys (KEK) that are derived from it.
//!
//! Invariant: a KEK exists only when its derivation matched the key-check value of its record, so a wrong master key never seals
//! anything. Deliberately absent: storing any of this (the record holds a salt and a check, neither of which helps without the master
//! key), and derivation on an async thread: [`KekRecord::derive`] takes 64 MiB and a tenth of a second.

use std::path::Path;

use argon2::{Argon2, Params, Version};
use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use hkdf::Hkdf;
use secrecy::{ExposeSecret, SecretBox};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::bytes::base64_bytes;
use super::envelope::{KEY_BYTES, NoRandomness, random};

/// A master key has at least this many bytes.
pub const MASTER_BYTES_LEAST: usize = 32;
/// A master key has at most this many bytes.
const MASTER_BYTES_MOST: usize = 1_024;
/// Random bytes that repeat more than this are none.
const DISTINCT_LEAST: usize = 12;
/// The variable with the master key; with `_FILE` the one that names its file.
pub const MASTER_VARIABLE: &str = "ORDERGATE_MASTER_KEY";
/// The variable with the master key before, while the vault moves to another one.
pub const PREVIOUS_VARIABLE: &str = "ORDERGATE_MASTER_KEY_PREVIOUS";

const ROOT_BYTES: usize = 32;
const SALT_BYTES: usize = 32;
const WRAP_INFO: &[u8] = b"ordergate.vault.wrap.v1";
const CHECK_INFO: &[u8] = b"ordergate.vault.check.v1";

/// The operator's key, from which everything else is derived.
pub struct MasterKey(SecretBox<[u8]>);

/// Why a master key cannot be used. It never says what was given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MasterKeyError {
    /// It is no base64.
    #[error("the master key is not base64")]
    NotBase64,
    /// It is too short or too long.
    #[error(
        "the master key has {bytes} bytes; it needs {MASTER_BYTES_LEAST} to {MASTER_BYTES_MOST} random bytes, such as `openssl rand -base64 32` gives"
    )]
    Length {
        /// Its bytes.
        bytes: usize,
    },
    /// Its bytes repeat as random ones do not.
    #[error("the master key is not random; use one such as `openssl rand -base64 32` gives")]
    NotRandom,
    /// Its file cannot be read.
    #[error("the master key's file cannot be read: {kind}")]
    File {
        /// What the system said.
        kind: std::io::ErrorKind,
    },
    /// It is given twice.
    #[error("both {variable} and {variable}_FILE are set")]
    Twice {
        /// The variable.
        variable: &'static str,
    },
}

impl MasterKey {
    /// Reads base64, of either alphabet, padded or not.
    ///
    /// # Errors
    /// It is no base64, too short, or not random.
    pub fn parse(text: &str) -> Result<Self, MasterKeyError> {
        let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
        let decode = |alphabet| GeneralPurpose::new(alphabet, config).decode(text.trim()).map(Zeroizing::new);
        let bytes = decode(&alphabet::STANDARD).or_else(|_| decode(&alphabet::URL_SAFE)).map_err(|_| MasterKeyError::NotBase64)?;
        let bytes: SecretBox<[u8]> = SecretBox::new(bytes.as_slice().into());
        let length = bytes.expose_secret().len();
        if !(MASTER_BYTES_LEAST..=MASTER_BYTES_MOST).contains(&length) {
            return Err(MasterKeyError::Length { bytes: length });
        }
        let mut seen = Zeroizing::new([false; 256]);
        bytes.expose_secret().iter().for_each(|byte| seen[usize::from(*byte)] = true);
        if seen.iter().filter(|seen| **seen).count() < DISTINCT_LEAST {
            return Err(MasterKeyError::NotRandom);
        }
        Ok(Self(bytes))
    }

    /// Reads it from a file.
    ///
    /// # Errors
    /// It cannot be read, or is no master key.
    pub fn read(path: &Path) -> Result<Self, MasterKeyError> {
        let text = std::fs::read_to_string(path).map_err(|error| MasterKeyError::File { kind: error.kind() })?;
        Self::parse(&Zeroizing::new(text))
    }

    /// Reads it from a variable, or from the file that the variable with `_FILE` names; `None` when neither is set.
    ///
    /// # Errors
    /// It cannot be read, is no master key, or both are set.
    pub fn from_environment(variable: &'static str) -> Result<Option<Self>, MasterKeyError> {
        let value = std::env::var(variable).ok().filter(|value| !value.is_empty()).map(Zeroizing::new);
        let file = std::env::var_os(format!("{variable}_FILE")).filter(|file| !file.is_empty());
        match (value, file) {
            (Some(_), Some(_)) => Err(MasterKeyError::Twice { variable }),
            (Some(value), None) => Self::parse(&value).map(Some),
            (None, Some(file)) => Self::read(Path::new(&file)).map(Some),
            (None, None) => Ok(None),
        }
    }
}

/// What Argon2id costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

impl Cost {
    /// What new KEKs are derived with.
    pub const STANDARD: Self = Self { memory_kib: 65_536, passes: 3, lanes: 4 };
    /// More than this is no record of ours.
    const MOST: Self = Self { memory_kib: 1_048_576, passes: 64, lanes: 64 };
}

/// How a KEK is derived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Derivation {
    /// Argon2id, version 1.3, then HKDF-SHA256.
    #[serde(rename = "argon2id-hkdf-sha256")]
    Argon2idHkdf,
}

/// One KEK version, as the directory keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KekRecord {
    /// From 1.
    pub version: u32,
    /// How it is derived.
    pub derivation: Derivation,
    /// Argon2's memory in KiB.
    pub memory_kib: u32,
    /// Argon2's passes.
    pub passes: u32,
    /// Argon2's lanes.
    pub lanes: u32,
    /// Argon2's salt.
    #[serde(with = "base64_bytes")]
    pub salt: [u8; SALT_BYTES],
    /// What the right master key gives.
    #[serde(with = "base64_bytes")]
    pub check: [u8; KEY_BYTES],
    /// When it was made, in milliseconds since the epoch.
    pub created_at: i64,
}

/// A key-encryption key.
pub struct Kek {
    version: u32,
    wrapping: SecretBox<[u8; KEY_BYTES]>,
}

impl Kek {
    /// Its version.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.version
    }

    pub(super) fn wrapping_key(&self) -> &[u8; KEY_BYTES] {
        self.wrapping.expose_secret()
    }
}

/// Why a record gives no KEK.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeriveError {
    /// Its parameters are not ones that Argon2 takes, or cost more than any record of ours.
    #[error("the parameters of the derivation are out of range")]
    Parameters,
    /// The master key is another one, or the record is damaged.
    #[error("the key-check value does not match")]
    WrongKey,
    /// No salt can be had.
    #[error(transparent)]
    Randomness(#[from] NoRandomness),
}

impl KekRecord {
    /// A new version with a random salt, and its KEK. Takes as long as [`KekRecord::derive`].
    ///
    /// # Errors
    /// No randomness, or a cost that Argon2 does not take.
    pub fn create(version: u32, master: &MasterKey, cost: Cost, now: i64) -> Result<(Self, Kek), DeriveError> {
        let mut record = Self {
            version,
            derivation: Derivation::Argon2idHkdf,
            memory_kib: cost.memory_kib,
            passes: cost.passes,
            lanes: cost.lanes,
            salt: *random::<SALT_BYTES>()?,
            check: [0; KEY_BYTES],
            created_at: now,
        };
        let (kek, check) = record.keys(master)?;
        record.check = check;
        Ok((record, kek))
    }

    /// The KEK, if this is the master key that it was made with.
    ///
    /// # Errors
    /// The master key is another one, or the record is damaged.
    pub fn derive(&self, master: &MasterKey) -> Result<Kek, DeriveError> {
        let (kek, check) = self.keys(master)?;
        if bool::from(check.ct_eq(&self.check)) { Ok(kek) } else { Err(DeriveError::WrongKey) }
    }

    fn keys(&self, master: &MasterKey) -> Result<(Kek, [u8; KEY_BYTES]), DeriveError> {
        let most = Cost::MOST;
        if self.memory_kib > most.memory_kib || self.passes > most.passes || self.lanes > most.lanes {
            return Err(DeriveError::Parameters);
        }
        let argon = match self.derivation {
            Derivation::Argon2idHkdf => {
                let parameters = Params::new(self.memory_kib, self.passes, self.lanes, Some(ROOT_BYTES));
                Argon2::new(argon2::Algorithm::Argon2id, Version::V0x13, parameters.map_err(|_| DeriveError::Parameters)?)
            }
        };
        let mut root = Zeroizing::new([0; ROOT_BYTES]);
        argon.hash_password_into(master.0.expose_secret(), &self.salt, root.as_mut_slice()).map_err(|_| DeriveError::Parameters)?;
        let subkeys = Hkdf::<Sha256>::new(None, root.as_slice());
        let version = self.version.to_be_bytes();
        let mut wrapping = SecretBox::new(Box::new([0; KEY_BYTES]));
        let mut check = [0; KEY_BYTES];
        let into = secrecy::ExposeSecretMut::expose_secret_mut(&mut wrapping).as_mut_slice();
        subkeys.expand_multi_info(&[WRAP_INFO, &version], into).map_err(|_| DeriveError::Parameters)?;
        subkeys.expand_multi_info(&[CHECK_INFO, &version], &mut check).map_err(|_| DeriveError::Parameters)?;
        Ok((Kek { version: self.version, wrapping }, check))
    }
}
