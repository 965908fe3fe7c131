//! Bytes in JSON: base64, strictly.
//!
//! Invariant: one text for one value. Other alphabets, missing padding and stray bits are refused, so that an envelope has one spelling.

/// `#[serde(with = "base64_bytes")]` for arrays and vectors of bytes.
pub mod base64_bytes {
    use base64::Engine;
    use base64::prelude::BASE64_STANDARD;
    use serde::{Deserialize, Deserializer, Serializer, de};

    /// Writes base64.
    pub fn serialize<S: Serializer>(bytes: &impl AsRef<[u8]>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64_STANDARD.encode(bytes))
    }

    /// Reads base64 of the right length.
    pub fn deserialize<'de, D: Deserializer<'de>, T: TryFrom<Vec<u8>>>(deserializer: D) -> Result<T, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = BASE64_STANDARD.decode(text).map_err(|_| de::Error::custom("not base64"))?;
        T::try_from(bytes).map_err(|_| de::Error::custom("not of the right length"))
    }
}
