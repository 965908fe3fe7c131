//! Identifiers: short inline texts that are built only by parsing.
//!
//! Invariant: unused bytes are zero and every used byte is a legal one, so that comparing the
//! arrays compares the texts, byte by byte. Deliberately absent: any way to build one from bytes
//! that were not checked, and any heap.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A text of 1 to `N` bytes of `[A-Za-z0-9._:-]`, and `/` where `SLASH`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Text<const N: usize, const SLASH: bool> {
    bytes: [u8; N],
    len: u8,
}

impl<const N: usize, const SLASH: bool> Text<N, SLASH> {
    /// Reads an identifier. `None` when it is empty, too long or has an illegal byte.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        if text.is_empty() || text.len() > N {
            return None;
        }
        let mut bytes = [0; N];
        for (place, b) in bytes.iter_mut().zip(text) {
            if !(LEGAL[usize::from(*b)] || (SLASH && *b == b'/')) {
                return None;
            }
            *place = *b;
        }
        let len = u8::try_from(text.len()).ok()?;
        Some(Self { bytes, len })
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    /// The text's bytes (all ASCII).
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

const LEGAL: [bool; 256] = {
    let mut table = [false; 256];
    let mut b = 0;
    while b < 256 {
        let c = b as u8;
        table[b] = c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b':' | b'-');
        b += 1;
    }
    table
};

impl<const N: usize, const SLASH: bool> fmt::Display for Text<N, SLASH> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl<const N: usize, const SLASH: bool> fmt::Debug for Text<N, SLASH> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl<const N: usize, const SLASH: bool> Serialize for Text<N, SLASH> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de, const N: usize, const SLASH: bool> Deserialize<'de> for Text<N, SLASH> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor<const N: usize, const SLASH: bool>;
        impl<const N: usize, const SLASH: bool> de::Visitor<'_> for Visitor<N, SLASH> {
            type Value = Text<N, SLASH>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "an identifier of 1 to {N} bytes")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                Text::parse(text.as_bytes()).ok_or_else(|| E::custom("not an identifier"))
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

/// An identifier of 1 to 64 bytes.
pub type Id = Text<64, false>;
/// FIX 1 Account: the account that an order is for.
pub type AccountId = Id;
/// FIX 11 ClOrdID: the producer's id of an order; also the id of a command that it carries out.
pub type ClientOrderId = Id;
/// FIX 17 ExecID: the venue's id of one fill, unique within its account.
pub type ExecId = Id;
/// The producer's id of one amendment.
pub type AmendId = Id;
/// The id of a risk rule.
pub type RuleId = Id;
/// The id of a restricted list.
pub type ListId = Id;
/// The id of a trading strategy.
pub type StrategyId = Id;
/// The person that an account belongs to.
pub type OwnerId = Id;
/// The name of an industry sector.
pub type Sector = Id;
/// FIX 15 Currency.
pub type Currency = Id;
/// FIX 55 Symbol: 1 to 32 bytes, `/` allowed.
pub type Symbol = Text<32, true>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_is_no_identifier() {
        assert!(Id::parse(b"").is_none());
        assert!(Id::parse(b"a b").is_none());
        assert!(Id::parse(b"a/b").is_none());
        assert!(Id::parse(&[b'a'; 65]).is_none());
        assert!(Symbol::parse(b"BTC/USD").is_some());
        assert!(Symbol::parse(&[b'A'; 33]).is_none());
    }

    #[test]
    fn orders_as_bytes_do() {
        let (a, b) = (Id::parse(b"A").unwrap(), Id::parse(b"A0").unwrap());
        assert!(a < b);
        assert_eq!(a.as_str(), "A");
    }
}
