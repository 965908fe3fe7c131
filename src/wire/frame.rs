//! Ledger entries as bytes: claims and frames, with magic, version, length, checksum and chain.
//!
//! Invariant: every version that was ever written can be read, by an explicit step; a newer one is
//! an error that says so, never a guess. The structs here are the ledger's own and apart from the
//! JSON ones. Deliberately absent: which entries count (`engine/ownership.rs`).

use serde::{Deserialize, Serialize};

use crate::domain::{InputTopic, Millis, Source};

use super::OutputTopic;

/// The first bytes of every entry.
pub const MAGIC: [u8; 4] = *b"OGLE";
/// The version that is written.
pub const VERSION: u16 = 1;
/// The longest entry.
pub const ENTRY_BYTES_MAX: usize = 512 * 1024;
/// Magic, version, length of the body, checksum of the body.
const HEADER_BYTES: usize = 4 + 2 + 4 + 4;
/// What is kept of a value: far more than a record may have (WIRE.md), so that what is too long is still
/// seen whole, and little enough that any record fits in an entry.
pub const PAYLOAD_BYTES_KEPT: usize = 256 * 1024;
/// What is kept of a key. Legal ones are at most 64 bytes.
pub const KEY_BYTES_KEPT: usize = 256;

/// A blake3 hash.
pub type Hash = [u8; 32];
/// The first half of a blake3 hash.
pub type Digest = [u8; 16];

/// An entry of the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entry {
    /// A new owner begins a term.
    Claim(Claim),
    /// Records were applied.
    Frame(Frame),
}

/// A new owner begins a term.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The new term. It counts when it is higher than that of every entry before it that counts.
    pub term: u64,
    /// The next entry's number, as far as the claimant had read.
    pub n: u64,
    /// The chain's hash, as far as the claimant had read. Entries of the old owner may come between.
    pub prev_hash: Hash,
    /// Who claims.
    pub owner: String,
    /// The claimant's clock.
    pub at: Millis,
    /// The version of the time zone database that it is built with.
    pub tzdb_version: String,
    /// The version of the program.
    pub program_version: String,
}

/// Records were applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// The owner's term.
    pub term: u64,
    /// The number of this entry among those that count, from 0.
    pub n: u64,
    /// The chain's hash before it.
    pub prev_hash: Hash,
    /// The ledger sequence of its first input.
    pub first_seq: u64,
    /// The owner's clock when its inputs were sequenced; never earlier than in the frame before.
    pub received: Millis,
    /// What was applied, in order.
    pub inputs: Vec<FrameInput>,
    /// How far each input partition is applied with this frame.
    pub input_marks: Vec<InputMark>,
    /// How far each output topic was known to be published when it was made.
    pub output_marks: [OutputMark; 4],
    /// The state's hash after it, now and then.
    pub state_hash: Option<Hash>,
}

/// Whose a record is. Written down when it is applied, so that a replay asks neither for the number
/// of shards nor for the way in which keys are spread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Routing {
    /// This shard's: it applies it and says what is to be said of it.
    #[default]
    Here,
    /// It stood in another partition than its key says.
    Misrouted,
    /// An operator's record about an account of another shard: it moves the time, and that is all.
    Elsewhere,
    /// Every shard's, and another one says what is to be said of it for all.
    Quiet,
}

impl Routing {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Here, Self::Misrouted, Self::Elsewhere, Self::Quiet];

    /// Its name in a dump.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Here => "here",
            Self::Misrouted => "misrouted",
            Self::Elsewhere => "elsewhere",
            Self::Quiet => "quiet",
        }
    }
}

/// One applied record and its outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameInput {
    /// Where it stood.
    pub source: Source,
    /// Its log timestamp.
    pub ts: Millis,
    /// Whose it is.
    pub routing: Routing,
    /// Its key.
    #[serde(with = "optional_bytes")]
    pub key: Option<Vec<u8>>,
    /// Its value.
    #[serde(with = "bytes")]
    pub payload: Vec<u8>,
    /// What it caused.
    pub outcome: Outcome,
}

/// What a record caused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The number of its outputs.
    pub outputs: u32,
    /// The digest of their bytes; `None` when there are none.
    pub digest: Option<Digest>,
}

/// How far one input partition has been applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputMark {
    /// The topic.
    pub topic: InputTopic,
    /// The partition.
    pub partition: u32,
    /// The offset after the last record applied.
    pub next: u64,
    /// The digest of the last record applied: a topic that was made anew is noticed.
    pub last: Digest,
}

/// How far one output topic is known to hold what the ledger caused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputMark {
    /// Every output of the records up to this ledger sequence is published ..
    pub seq: u64,
    /// .. and every output of later ones is at or above this offset.
    pub offset: u64,
}

/// Why bytes are no entry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The header is cut short or has another magic.
    #[error("no ledger entry: {bytes} bytes that do not begin with its magic")]
    NotAnEntry {
        /// How many bytes there are.
        bytes: usize,
    },
    /// It was written by a newer version.
    #[error("the entry has format {found}, and this program knows up to {known}: start the newer program")]
    NewerVersion {
        /// The format found.
        found: u16,
        /// The newest format known.
        known: u16,
    },
    /// The header's length is not that of the body.
    #[error("the entry's body has {found} bytes, and its header says {expected}")]
    Length {
        /// As the header says.
        expected: usize,
        /// As found.
        found: usize,
    },
    /// The checksum does not match.
    #[error("the entry's checksum does not match")]
    Checksum,
    /// The body does not decode.
    #[error("the entry's body does not decode: {detail}")]
    Body {
        /// What the decoder said.
        detail: String,
    },
    /// It would be longer than an entry may be.
    #[error("the entry has {bytes} bytes, and {ENTRY_BYTES_MAX} are allowed")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
}

const fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<ENTRY_BYTES_MAX>()
}

/// The bytes of an entry.
///
/// # Errors
/// [`FrameError::TooLong`].
pub fn encode(entry: &Entry) -> Result<Vec<u8>, FrameError> {
    let mut bytes = vec![0; HEADER_BYTES];
    bincode::serde::encode_into_std_write(entry, &mut bytes, config()).map_err(|e| FrameError::Body { detail: e.to_string() })?;
    if bytes.len() > ENTRY_BYTES_MAX {
        return Err(FrameError::TooLong { bytes: bytes.len() });
    }
    let (header, body) = bytes.split_at_mut(HEADER_BYTES);
    let length = u32::try_from(body.len()).map_err(|_| FrameError::TooLong { bytes: body.len() })?;
    header[..4].copy_from_slice(&MAGIC);
    header[4..6].copy_from_slice(&VERSION.to_le_bytes());
    header[6..10].copy_from_slice(&length.to_le_bytes());
    header[10..14].copy_from_slice(&crc32fast::hash(body).to_le_bytes());
    Ok(bytes)
}

/// The entry of the bytes.
///
/// # Errors
/// The bytes are no entry, damaged, or of a newer version.
pub fn decode(bytes: &[u8]) -> Result<Entry, FrameError> {
    let Some((header, body)) = bytes.split_at_checked(HEADER_BYTES).filter(|(header, _)| header.starts_with(&MAGIC)) else {
        return Err(FrameError::NotAnEntry { bytes: bytes.len() });
    };
    let version = u16::from_le_bytes([header[4], header[5]]);
    if version > VERSION {
        return Err(FrameError::NewerVersion { found: version, known: VERSION });
    }
    let expected = u32::from_le_bytes([header[6], header[7], header[8], header[9]]) as usize;
    if expected != body.len() {
        return Err(FrameError::Length { expected, found: body.len() });
    }
    if crc32fast::hash(body) != u32::from_le_bytes([header[10], header[11], header[12], header[13]]) {
        return Err(FrameError::Checksum);
    }
    match version {
        1 => decode_v1(body),
        _ => Err(FrameError::NotAnEntry { bytes: bytes.len() }),
    }
}

fn decode_v1(body: &[u8]) -> Result<Entry, FrameError> {
    let (entry, read) =
        bincode::serde::decode_from_slice::<Entry, _>(body, config()).map_err(|e| FrameError::Body { detail: e.to_string() })?;
    if read != body.len() {
        return Err(FrameError::Body { detail: format!("{} bytes are left over", body.len() - read) });
    }
    Ok(entry)
}

/// The chain's hash after an entry that counts.
#[must_use]
pub fn link(head: &Hash, entry: &[u8]) -> Hash {
    *blake3::Hasher::new().update(head).update(entry).finalize().as_bytes()
}

/// The digest of a record as it is kept: timestamp, key and value.
#[must_use]
pub fn record_digest(ts: Millis, key: Option<&[u8]>, payload: &[u8]) -> Digest {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&ts.to_le_bytes());
    update_optional(&mut hasher, key);
    hasher.update(payload);
    first_half(&hasher)
}

/// The digest of the outputs of one record, each as (topic, key, value), in output order.
#[must_use]
pub fn outputs_digest<'a>(outputs: impl Iterator<Item = (OutputTopic, Option<&'a [u8]>, &'a [u8])>) -> Digest {
    let mut hasher = blake3::Hasher::new();
    for (topic, key, payload) in outputs {
        hasher.update(&[u8::try_from(topic.place()).unwrap_or(u8::MAX)]);
        update_optional(&mut hasher, key);
        hasher.update(&(payload.len() as u64).to_le_bytes());
        hasher.update(payload);
    }
    first_half(&hasher)
}

fn update_optional(hasher: &mut blake3::Hasher, bytes: Option<&[u8]>) {
    let length = bytes.map_or(u64::MAX, |bytes| bytes.len() as u64);
    hasher.update(&length.to_le_bytes());
    hasher.update(bytes.unwrap_or_default());
}

fn first_half(hasher: &blake3::Hasher) -> Digest {
    let mut digest = [0; 16];
    digest.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    digest
}

/// Byte strings in one piece; serde's own way takes them byte by byte.
mod bytes {
    use std::fmt;

    use serde::{Deserializer, Serializer, de};

    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        deserializer.deserialize_byte_buf(Visitor)
    }

    pub struct Visitor;

    impl de::Visitor<'_> for Visitor {
        type Value = Vec<u8>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("bytes")
        }

        fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
            Ok(bytes.to_vec())
        }

        fn visit_byte_buf<E: de::Error>(self, bytes: Vec<u8>) -> Result<Self::Value, E> {
            Ok(bytes)
        }
    }
}

/// Likewise, where there may be none.
mod optional_bytes {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize)]
    struct Borrowed<'a>(#[serde(serialize_with = "super::bytes::serialize")] &'a [u8]);

    #[derive(Deserialize)]
    struct Owned(#[serde(deserialize_with = "super::bytes::deserialize")] Vec<u8>);

    pub fn serialize<S: Serializer>(bytes: &Option<Vec<u8>>, serializer: S) -> Result<S::Ok, S::Error> {
        bytes.as_deref().map(Borrowed).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<u8>>, D::Error> {
        Ok(Option::<Owned>::deserialize(deserializer)?.map(|owned| owned.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame() -> Entry {
        let source = Source { topic: InputTopic::Prices, partition: 3, offset: 9 };
        let outcome = Outcome { outputs: 2, digest: Some([7; 16]) };
        let input =
            FrameInput { source, ts: -5, routing: Routing::Misrouted, key: Some(b"AAPL".to_vec()), payload: b"{}".to_vec(), outcome };
        let bare = FrameInput { key: None, payload: Vec::new(), outcome: Outcome::default(), ..input.clone() };
        Entry::Frame(Frame {
            term: 2,
            n: 7,
            prev_hash: [1; 32],
            first_seq: 40,
            received: 1_772_811_000_130,
            inputs: vec![input, bare],
            input_marks: vec![InputMark { topic: InputTopic::Prices, partition: 3, next: 10, last: [2; 16] }],
            output_marks: [OutputMark { seq: 39, offset: 4 }; 4],
            state_hash: Some([9; 32]),
        })
    }

    #[test]
    fn an_entry_comes_back_as_it_was() {
        let claim = Entry::Claim(Claim {
            term: u64::MAX,
            n: 0,
            prev_hash: [0; 32],
            owner: "a".into(),
            at: 1,
            tzdb_version: "2025b".into(),
            program_version: "0.1.0".into(),
        });
        for entry in [frame(), claim] {
            assert_eq!(decode(&encode(&entry).unwrap()), Ok(entry));
        }
    }

    #[test]
    fn any_flipped_bit_and_any_cut_is_noticed() {
        let bytes = encode(&frame()).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&damaged).is_err(), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert!(decode(&bytes[..length]).is_err(), "cut to {length}");
        }
    }

    #[test]
    fn a_newer_version_is_an_error_that_says_so() {
        let mut bytes = encode(&frame()).unwrap();
        bytes[4] = 2;
        assert_eq!(decode(&bytes), Err(FrameError::NewerVersion { found: 2, known: 1 }));
    }

    #[test]
    fn the_bytes_of_version_1_are_frozen() {
        let bytes = encode(&frame()).unwrap();
        assert_eq!(blake3::hash(&bytes).to_hex().as_str(), "65ac2bca5107454c75dcb1afbae3af84bf1cd4a57688fa5e9b55b3d88c19a937");
    }

    #[test]
    fn each_routing_has_a_byte_of_its_own_for_good() {
        let bytes = |routing: Routing| bincode::serde::encode_to_vec(routing, config()).unwrap();
        let all = Routing::ALL;
        assert_eq!(all.map(bytes), [[0], [1], [2], [3]]);
    }

    #[test]
    fn an_entry_above_the_limit_is_refused() {
        let Entry::Frame(mut frame) = frame() else { unreachable!() };
        frame.inputs[0].payload = vec![0; ENTRY_BYTES_MAX];
        assert!(encode(&Entry::Frame(frame)).is_err());
    }

    #[test]
    fn an_absent_key_and_an_empty_one_have_other_digests() {
        assert_ne!(record_digest(1, None, b"x"), record_digest(1, Some(b""), b"x"));
    }
}
