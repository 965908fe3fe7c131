//! What a broker gives its customer: the secrets themselves, as long as they must be in memory.
//!
//! Invariant: these types have no `Debug`, `Display`, `Serialize` or `Clone`, and are overwritten when dropped; a refusal names the
//! field and what is allowed, never what was given. Deliberately absent: serde; the sealed form is written by hand into memory that
//! is overwritten as well.

use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

/// The first byte of the sealed form.
const FORM: u8 = 1;
/// How many bytes a length takes.
const LENGTH_BYTES: usize = 4;
/// The longest key and passphrase.
pub const KEY_BYTES_MOST: usize = 512;
/// The longest secret: a private key in PEM fits.
pub const SECRET_BYTES_MOST: usize = 8_192;
/// A key shorter than this shows none of its characters.
const SHOWN_FROM: usize = 8;

/// The secrets of one broker key.
pub struct Secrets {
    /// The key, which the broker calls key id, consumer key or API key.
    pub key: SecretString,
    /// What proves that it is ours.
    pub secret: SecretString,
    /// What some brokers ask for beside them.
    pub passphrase: Option<SecretString>,
}

/// A field that may not be so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {allowed}")]
pub struct Refused {
    /// The field.
    pub field: &'static str,
    /// What is allowed.
    pub allowed: &'static str,
}

impl Secrets {
    /// Whether these can be kept at all; what each broker's look like is another question (`broker::format`).
    ///
    /// # Errors
    /// A field is empty, too long, or holds what no broker gives out.
    pub fn check(&self) -> Result<(), Refused> {
        let graphic = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
        let lines = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic() || matches!(byte, b' ' | b'\n' | b'\r'));
        let (key, secret) = (self.key.expose_secret(), self.secret.expose_secret());
        if key.is_empty() || key.len() > KEY_BYTES_MOST || !graphic(key) {
            return Err(Refused { field: "key", allowed: "1 to 512 printable ASCII characters without blanks" });
        }
        if secret.trim().is_empty() || secret.len() > SECRET_BYTES_MOST || !lines(secret) {
            return Err(Refused { field: "secret", allowed: "1 to 8192 printable ASCII characters; lines as in PEM are fine" });
        }
        let passphrase = self.passphrase.as_ref().map(SecretString::expose_secret);
        if passphrase.is_some_and(|text| text.is_empty() || text.len() > KEY_BYTES_MOST || text.chars().any(char::is_control)) {
            return Err(Refused { field: "passphrase", allowed: "1 to 512 bytes without control characters, or left out" });
        }
        Ok(())
    }

    /// The last four characters of the key; nothing of one that is so short that they would tell much of it.
    #[must_use]
    pub fn last4(&self) -> String {
        let key = self.key.expose_secret();
        if key.len() < SHOWN_FROM { String::new() } else { key.chars().skip(key.chars().count() - 4).collect() }
    }

    /// Whether both hold the same, looked at in full whatever differs.
    #[must_use]
    pub fn same_as(&self, other: &Self) -> bool {
        use subtle::ConstantTimeEq;
        bool::from(self.encode().as_slice().ct_eq(other.encode().as_slice()))
    }

    /// The form that is sealed: a byte for the form, then each part with its length; the passphrase, if there is one, is last.
    #[must_use]
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let parts = [Some(&self.key), Some(&self.secret), self.passphrase.as_ref()];
        let parts = parts.into_iter().flatten().map(|part| part.expose_secret().as_bytes());
        // The whole length at once: a vector that grows leaves copies behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(1 + parts.clone().map(|part| LENGTH_BYTES + part.len()).sum::<usize>()));
        bytes.push(FORM);
        for part in parts {
            bytes.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
            bytes.extend_from_slice(part);
        }
        bytes
    }

    /// Reads [`Secrets::encode`]; `None` of anything else.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes.strip_prefix(&[FORM])?;
        let mut parts = Vec::with_capacity(3);
        while !rest.is_empty() {
            let (length, after) = rest.split_first_chunk::<LENGTH_BYTES>()?;
            let (part, after) = after.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
            parts.push(SecretString::from(Box::<str>::from(std::str::from_utf8(part).ok()?)));
            rest = after;
        }
        let mut parts = parts.into_iter();
        let secrets = Self { key: parts.next()?, secret: parts.next()?, passphrase: parts.next() };
        parts.next().is_none().then_some(secrets)
    }
}
