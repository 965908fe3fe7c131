//! The envelope of one secret: AES-256-GCM under a data key of its own, which is wrapped by the key-encryption key.
//!
//! Invariant: a data key seals one secret once. What is bound to a ciphertext and to a wrapped key (owner, key, version, algorithm,
//! and for the wrapped key its KEK version) is authenticated with it, each part with its length, so that no envelope and no part of
//! one opens in another's place. Deliberately absent: other algorithms, and any word of why one did not open.

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Key, Nonce};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::bytes::base64_bytes;
use super::kek::Kek;

/// The bytes of a data key and of a KEK.
pub const KEY_BYTES: usize = 32;
/// The bytes of a nonce.
pub const NONCE_BYTES: usize = 12;
/// The bytes of a wrapped data key: the key and the tag.
const WRAPPED_BYTES: usize = KEY_BYTES + 16;

/// What a ciphertext is, in its associated data.
const SECRET: &[u8] = b"ordergate.vault.secret.v1";
/// What a wrapped data key is, in its associated data.
const DATA_KEY: &[u8] = b"ordergate.vault.data-key.v1";

/// How a secret is sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Algorithm {
    /// AES-256 in Galois/Counter Mode, 96-bit nonces, 128-bit tags.
    #[serde(rename = "AES-256-GCM")]
    Aes256Gcm,
}

impl Algorithm {
    /// Its name, as stored and as authenticated.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Aes256Gcm => "AES-256-GCM",
        }
    }
}

/// Whose secret it is, and which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    /// The owner.
    pub owner: &'a str,
    /// The broker key's id.
    pub key_id: &'a str,
    /// The secret's version, from 1.
    pub version: u64,
}

/// One sealed secret, as the directory keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envelope {
    /// How both parts are sealed.
    pub algorithm: Algorithm,
    /// The version of the KEK that wraps the data key.
    pub kek: u32,
    /// The nonce of the wrapped key.
    #[serde(with = "base64_bytes")]
    pub wrap_nonce: [u8; NONCE_BYTES],
    /// The data key under the KEK.
    #[serde(with = "base64_bytes")]
    pub wrapped_key: [u8; WRAPPED_BYTES],
    /// The nonce of the ciphertext.
    #[serde(with = "base64_bytes")]
    pub nonce: [u8; NONCE_BYTES],
    /// The secret under the data key.
    #[serde(with = "base64_bytes")]
    pub ciphertext: Vec<u8>,
}

/// It was not made by us for this place and this KEK, or it is damaged. Which of them cannot be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the envelope does not open")]
pub struct DoesNotOpen;

/// The machine has no random numbers for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the machine gives no random numbers")]
pub struct NoRandomness;

/// Fills with random bytes of the operating system.
///
/// # Errors
/// There are none.
pub fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>, NoRandomness> {
    let mut bytes = Zeroizing::new([0; N]);
    getrandom::fill(bytes.as_mut_slice()).map_err(|_| NoRandomness)?;
    Ok(bytes)
}

/// What one sealing uses up: a data key and two nonces. Given from outside, so that a test can fix them; used once because it is moved.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Fresh {
    data_key: [u8; KEY_BYTES],
    nonce: [u8; NONCE_BYTES],
    wrap_nonce: [u8; NONCE_BYTES],
}

impl Fresh {
    /// Random ones.
    ///
    /// # Errors
    /// The machine gives no random numbers.
    pub fn random() -> Result<Self, NoRandomness> {
        let mut fresh = Self { data_key: [0; KEY_BYTES], nonce: [0; NONCE_BYTES], wrap_nonce: [0; NONCE_BYTES] };
        for part in [&mut fresh.data_key[..], &mut fresh.nonce[..], &mut fresh.wrap_nonce[..]] {
            getrandom::fill(part).map_err(|_| NoRandomness)?;
        }
        Ok(fresh)
    }
}

impl Envelope {
    /// Seals a secret for its place.
    ///
    /// # Errors
    /// The cipher takes no text of this length.
    pub fn seal(kek: &Kek, place: Place<'_>, secret: &[u8], fresh: Fresh) -> Result<Self, DoesNotOpen> {
        let algorithm = Algorithm::Aes256Gcm;
        let payload = Payload { msg: secret, aad: &secret_aad(place, algorithm) };
        let ciphertext = cipher(&fresh.data_key).encrypt(&Nonce::from(fresh.nonce), payload).map_err(|_| DoesNotOpen)?;
        let wrapped_key = wrap(kek, place, algorithm, &fresh.data_key, fresh.wrap_nonce)?;
        Ok(Self { algorithm, kek: kek.version(), wrap_nonce: fresh.wrap_nonce, wrapped_key, nonce: fresh.nonce, ciphertext })
    }

    /// The secret, if this was sealed for this place under this KEK.
    ///
    /// # Errors
    /// It does not open.
    pub fn open(&self, kek: &Kek, place: Place<'_>) -> Result<Zeroizing<Vec<u8>>, DoesNotOpen> {
        let data_key = self.unwrap_key(kek, place)?;
        let payload = Payload { msg: &self.ciphertext, aad: &secret_aad(place, self.algorithm) };
        let opened = cipher(&data_key).decrypt(&Nonce::from(self.nonce), payload);
        opened.map(Zeroizing::new).map_err(|_| DoesNotOpen)
    }

    /// The same secret with its data key under another KEK. The ciphertext stays as it is, which is why its associated data does not
    /// name the KEK; that the whole opens, before and after, is tried before anything takes the old one's place.
    ///
    /// # Errors
    /// It does not open.
    pub fn rewrap(&self, from: &Kek, to: &Kek, place: Place<'_>, wrap_nonce: [u8; NONCE_BYTES]) -> Result<Self, DoesNotOpen> {
        let secret = self.open(from, place)?;
        let data_key = self.unwrap_key(from, place)?;
        let wrapped_key = wrap(to, place, self.algorithm, &data_key, wrap_nonce)?;
        let rewrapped = Self { kek: to.version(), wrap_nonce, wrapped_key, ..self.clone() };
        if *rewrapped.open(to, place)? == *secret { Ok(rewrapped) } else { Err(DoesNotOpen) }
    }

    fn unwrap_key(&self, kek: &Kek, place: Place<'_>) -> Result<Zeroizing<[u8; KEY_BYTES]>, DoesNotOpen> {
        let aad = wrap_aad(place, self.kek, self.algorithm);
        let payload = Payload { msg: &self.wrapped_key, aad: &aad };
        let opened = Zeroizing::new(cipher(kek.wrapping_key()).decrypt(&Nonce::from(self.wrap_nonce), payload).map_err(|_| DoesNotOpen)?);
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        if opened.len() != KEY_BYTES || self.kek != kek.version() {
            return Err(DoesNotOpen);
        }
        key.copy_from_slice(&opened);
        Ok(key)
    }
}

fn cipher(key: &[u8; KEY_BYTES]) -> Aes256Gcm {
    let key: &Key<Aes256Gcm> = key.into();
    Aes256Gcm::new(key)
}

fn wrap(
    kek: &Kek,
    place: Place<'_>,
    algorithm: Algorithm,
    data_key: &[u8; KEY_BYTES],
    nonce: [u8; NONCE_BYTES],
) -> Result<[u8; WRAPPED_BYTES], DoesNotOpen> {
    let aad = wrap_aad(place, kek.version(), algorithm);
    let payload = Payload { msg: data_key, aad: &aad };
    let wrapped = cipher(kek.wrapping_key()).encrypt(&Nonce::from(nonce), payload).map_err(|_| DoesNotOpen)?;
    wrapped.try_into().map_err(|_| DoesNotOpen)
}

fn secret_aad(place: Place<'_>, algorithm: Algorithm) -> Vec<u8> {
    joined(&[SECRET, place.owner.as_bytes(), place.key_id.as_bytes(), &place.version.to_be_bytes(), algorithm.as_str().as_bytes()])
}

fn wrap_aad(place: Place<'_>, kek: u32, algorithm: Algorithm) -> Vec<u8> {
    joined(&[
        DATA_KEY,
        place.owner.as_bytes(),
        place.key_id.as_bytes(),
        &place.version.to_be_bytes(),
        &kek.to_be_bytes(),
        algorithm.as_str().as_bytes(),
    ])
}

/// Each part after its length, so that two different lists never join to the same bytes.
fn joined(parts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in parts {
        bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
        bytes.extend_from_slice(part);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::super::kek::{Cost, KekRecord, MasterKey};
    use super::*;

    #[test]
    fn what_was_sealed_under_the_name_of_another_algorithm_or_context_does_not_open() {
        let master = MasterKey::parse("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").unwrap();
        let kek = KekRecord::create(1, &master, Cost { memory_kib: 8, passes: 1, lanes: 1 }, 0).unwrap().1;
        let place = Place { owner: "alice", key_id: "key_1", version: 3 };
        let good = Envelope::seal(&kek, place, b"secret", Fresh::random().unwrap()).unwrap();
        let key = good.unwrap_key(&kek, place).unwrap();
        let sealed = |aad: &[u8]| cipher(&key).encrypt(&Nonce::from(good.nonce), Payload { msg: b"secret", aad }).unwrap();
        let version = 3_u64.to_be_bytes();
        let parts = |context: &'static [u8], algorithm: &'static [u8]| joined(&[context, b"alice", b"key_1", &version, algorithm]);
        assert_eq!(sealed(&parts(SECRET, b"AES-256-GCM")), good.ciphertext);
        for aad in [parts(SECRET, b"AES-128-GCM"), parts(SECRET, b"AES-256-GCM-SIV"), parts(DATA_KEY, b"AES-256-GCM"), Vec::new()] {
            let other = Envelope { ciphertext: sealed(&aad), ..good.clone() };
            assert!(other.open(&kek, place).is_err());
        }
        for name in ["AES-128-GCM", "aes-256-gcm", "", "none"] {
            let text = serde_json::to_string(&good).unwrap().replace("AES-256-GCM", name);
            assert!(serde_json::from_str::<Envelope>(&text).is_err(), "{name}");
        }
    }

    #[test]
    fn what_one_sealing_uses_up_is_overwritten() {
        fn overwrites_itself<T: ZeroizeOnDrop>() {}
        overwrites_itself::<Fresh>();
        overwrites_itself::<Zeroizing<Vec<u8>>>();
        let mut fresh = Fresh::random().unwrap();
        assert!(fresh.data_key != [0; KEY_BYTES]);
        fresh.zeroize();
        assert_eq!((fresh.data_key, fresh.nonce, fresh.wrap_nonce), ([0; 32], [0; 12], [0; 12]));
    }
}
