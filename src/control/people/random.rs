//! Secrets that are made here: random bits, and the hashes that are kept of them.
//!
//! Invariant: 256 bits from the operating system; a hash of so many needs no salt and no stretching.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// The operating system gives no random bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the operating system gives no random bits")]
pub struct NoRandom;

/// Random bytes.
///
/// # Errors
/// The operating system gives none.
pub fn bytes<const N: usize>() -> Result<[u8; N], NoRandom> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| NoRandom)?;
    Ok(bytes)
}

/// A new secret of 256 bits, as text.
///
/// # Errors
/// There are no random bits.
pub fn secret() -> Result<Zeroizing<String>, NoRandom> {
    Ok(Zeroizing::new(BASE64_URL_SAFE_NO_PAD.encode(*Zeroizing::new(bytes::<32>()?))))
}

/// A new public id of 80 bits, hexadecimal.
///
/// # Errors
/// There are no random bits.
pub fn id() -> Result<String, NoRandom> {
    Ok(hex(&bytes::<10>()?))
}

/// What is kept of a secret.
#[must_use]
pub fn hash(secret: &str) -> String {
    blake3::hash(secret.as_bytes()).to_hex().to_string()
}

/// Whether this is the secret of that hash, in constant time.
#[must_use]
pub fn is_of(secret: &str, kept: &str) -> bool {
    hash(secret).as_bytes().ct_eq(kept.as_bytes()).into()
}

/// Bytes in hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
