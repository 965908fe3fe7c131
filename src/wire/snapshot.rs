//! Snapshots as bytes: sealed blobs, encoded accounts, the manifest, and the hash of a state.
//!
//! Invariant: a blob opens only when its magic, kind, version, shard, length and checksum agree, so a torn or flipped blob is an
//! error and never a state. The structs of the fold are encoded as they are; they change only together with [`VERSION`], and each
//! retired version keeps a decoding step. Deliberately absent: where blobs are kept, and any choice of what to do with a bad one.

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use thiserror::Error;

use crate::gate::{Account, Gate, Shared};

/// The version of the encoding that this program writes.
pub const VERSION: u16 = 1;

const MAGIC: [u8; 8] = *b"OGATESNP";
const HEADER_LEN: usize = 8 + 2 + 1 + 4 + 8 + 32 + 8;
const CHECKSUM_LEN: usize = 4;
/// One decoded value may not claim more than this.
const DECODE_BYTES_MAX: usize = 1 << 30;

type Encoding = Configuration<LittleEndian, Varint, Limit<DECODE_BYTES_MAX>>;
const ENCODING: Encoding = bincode::config::standard().with_limit::<DECODE_BYTES_MAX>();

/// Where in a shard's ledger a blob belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// The shard.
    pub shard: u32,
    /// The last frame that the state contains.
    pub frame: u64,
    /// That frame's hash: the head of the ledger's chain.
    pub head: [u8; 32],
}

/// What a blob holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlobKind {
    /// The list of what belongs to one snapshot.
    Manifest,
    /// The state that belongs to no account.
    Shared,
    /// A group of neighbouring accounts.
    Accounts,
    /// Accounts that changed since their groups were written.
    Delta,
}

impl BlobKind {
    const fn byte(self) -> u8 {
        match self {
            Self::Manifest => 1,
            Self::Shared => 2,
            Self::Accounts => 3,
            Self::Delta => 4,
        }
    }
}

/// One snapshot: which blobs, written when, make it up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The number of this snapshot in its store; a later one is higher.
    pub number: u64,
    /// The number of accounts.
    pub accounts: u32,
    /// How many accounts a group holds.
    pub accounts_per_group: u32,
    /// How many accounts the groups hold; later ones are in the deltas.
    pub grouped: u32,
    /// The groups of accounts, in order.
    pub groups: Vec<BlobRef>,
    /// Accounts that changed since, oldest first: a later one covers an earlier one, and all cover the groups.
    pub deltas: Vec<BlobRef>,
    /// The shared part.
    pub shared: BlobRef,
    /// [`AccountsHash`] over all accounts.
    pub accounts_hash: [u8; 32],
    /// What must be known beside the state to go on from there, encoded by its owner.
    pub standing: Vec<u8>,
}

/// One blob of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobRef {
    /// The number of the snapshot that wrote it.
    pub number: u64,
    /// Which of its kind.
    pub part: u32,
    /// Its length.
    pub bytes: u32,
    /// The checksum that ends it.
    pub checksum: u32,
}

/// Why a value could not be encoded.
#[derive(Debug, Error)]
pub enum EncodeError {
    /// The encoder refused.
    #[error("cannot encode: {0}")]
    Encoder(#[from] bincode::error::EncodeError),
    /// A length leaves 32 bits.
    #[error("{bytes} bytes are too many for one account")]
    TooLong {
        /// The length.
        bytes: usize,
    },
}

/// Why bytes are no snapshot.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum DecodeError {
    /// Cut off.
    #[error("{bytes} bytes, at least {needed} needed")]
    TooShort {
        /// What is there.
        bytes: usize,
        /// What should be.
        needed: usize,
    },
    /// Other bytes than a snapshot's.
    #[error("not a snapshot (wrong magic bytes)")]
    Magic,
    /// Written by a newer program.
    #[error("snapshot version {found} is newer than {known}, the newest that this program knows")]
    Newer {
        /// Its version.
        found: u16,
        /// Ours.
        known: u16,
    },
    /// No version that ever was.
    #[error("snapshot version {found} does not exist")]
    UnknownVersion {
        /// Its version.
        found: u16,
    },
    /// A blob in another one's place.
    #[error("another kind of blob ({found})")]
    Kind {
        /// Its kind.
        found: u8,
    },
    /// Of another shard.
    #[error("shard {found} where {expected} is due")]
    Shard {
        /// The shard it names.
        found: u32,
        /// The shard asked for.
        expected: u32,
    },
    /// Its length is not the one that it names.
    #[error("{found} bytes of payload, {named} named")]
    Length {
        /// What is there.
        found: u64,
        /// What the header says.
        named: u64,
    },
    /// Changed since it was written.
    #[error("checksum {found:08x}, computed {computed:08x}")]
    Checksum {
        /// The one in the blob.
        found: u32,
        /// The one of its bytes.
        computed: u32,
    },
    /// The decoder refused.
    #[error("cannot decode: {0}")]
    Decoder(String),
    /// More bytes than the value.
    #[error("{bytes} bytes after the value")]
    Trailing {
        /// How many.
        bytes: usize,
    },
}

/// Wraps a payload: magic, version, kind, shard, frame, head, length, payload, CRC-32 of all before it.
#[must_use]
pub fn seal(kind: BlobKind, stamp: &Stamp, payload: &[u8]) -> Vec<u8> {
    let mut blob = Vec::with_capacity(HEADER_LEN + payload.len() + CHECKSUM_LEN);
    blob.extend_from_slice(&MAGIC);
    blob.extend_from_slice(&VERSION.to_le_bytes());
    blob.push(kind.byte());
    blob.extend_from_slice(&stamp.shard.to_le_bytes());
    blob.extend_from_slice(&stamp.frame.to_le_bytes());
    blob.extend_from_slice(&stamp.head);
    blob.extend_from_slice(&(payload.len() as u64).to_le_bytes());
    blob.extend_from_slice(payload);
    let checksum = crc32fast::hash(&blob);
    blob.extend_from_slice(&checksum.to_le_bytes());
    blob
}

/// The checksum that ends a blob; 0 of one that is cut off.
#[must_use]
pub fn checksum_of(blob: &[u8]) -> u32 {
    blob.last_chunk::<CHECKSUM_LEN>().map_or(0, |tail| u32::from_le_bytes(*tail))
}

/// A blob that opened.
#[derive(Clone, Copy, Debug)]
pub struct Opened<'a> {
    /// The version of its payload's encoding.
    pub version: u16,
    /// Where it belongs.
    pub stamp: Stamp,
    /// The payload.
    pub payload: &'a [u8],
}

/// Opens a blob of `kind` and `shard`.
///
/// The envelope (magic first, CRC-32 of all before it last) is the same in every version, so that a newer version is told apart
/// from a flipped bit in the version's field.
pub fn open(kind: BlobKind, shard: u32, blob: &[u8]) -> Result<Opened<'_>, DecodeError> {
    let too_short = || DecodeError::TooShort { bytes: blob.len(), needed: HEADER_LEN + CHECKSUM_LEN };
    let (body, tail) = blob.split_last_chunk::<CHECKSUM_LEN>().ok_or_else(too_short)?;
    let mut fields = Fields(body);
    if fields.take::<8>().ok_or_else(too_short)? != MAGIC {
        return Err(DecodeError::Magic);
    }
    let (found, computed) = (u32::from_le_bytes(*tail), crc32fast::hash(body));
    if found != computed {
        return Err(DecodeError::Checksum { found, computed });
    }
    let version = fields.take().map(u16::from_le_bytes).ok_or_else(too_short)?;
    known(version)?;
    let [found_kind] = fields.take().ok_or_else(too_short)?;
    let found_shard = fields.take().map(u32::from_le_bytes).ok_or_else(too_short)?;
    let frame = fields.take().map(u64::from_le_bytes).ok_or_else(too_short)?;
    let head = fields.take::<32>().ok_or_else(too_short)?;
    let named = fields.take().map(u64::from_le_bytes).ok_or_else(too_short)?;
    let payload = fields.0;
    if named != payload.len() as u64 {
        return Err(DecodeError::Length { found: payload.len() as u64, named });
    }
    if found_kind != kind.byte() {
        return Err(DecodeError::Kind { found: found_kind });
    }
    if found_shard != shard {
        return Err(DecodeError::Shard { found: found_shard, expected: shard });
    }
    Ok(Opened { version, stamp: Stamp { shard, frame, head }, payload })
}

const fn known(version: u16) -> Result<(), DecodeError> {
    match version {
        VERSION => Ok(()),
        0 => Err(DecodeError::UnknownVersion { found: 0 }),
        found => Err(DecodeError::Newer { found, known: VERSION }),
    }
}

struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }
}

/// Appends one account's bytes.
pub fn encode_account(account: &Account, bytes: &mut Vec<u8>) -> Result<(), EncodeError> {
    encode(account, bytes)
}

/// Reads one account that was written by `version`.
pub fn decode_account(version: u16, bytes: &[u8]) -> Result<Account, DecodeError> {
    match version {
        VERSION => decode_borrowed(bytes),
        found => Err(known(found).err().unwrap_or(DecodeError::UnknownVersion { found })),
    }
}

/// The bytes of the shared part.
pub fn encode_shared(shared: &Shared) -> Result<Vec<u8>, EncodeError> {
    encode_value(shared)
}

/// Reads a shared part that was written by `version`.
pub fn decode_shared(version: u16, bytes: &[u8]) -> Result<Shared, DecodeError> {
    match version {
        VERSION => decode_borrowed(bytes),
        found => Err(known(found).err().unwrap_or(DecodeError::UnknownVersion { found })),
    }
}

/// The bytes of anything else that a snapshot holds: its manifest, its standing.
pub fn encode_value<T: Serialize>(value: &T) -> Result<Vec<u8>, EncodeError> {
    let mut bytes = Vec::new();
    encode(value, &mut bytes)?;
    Ok(bytes)
}

/// Reads what [`encode_value`] of `version` wrote.
pub fn decode_value<T: DeserializeOwned>(version: u16, bytes: &[u8]) -> Result<T, DecodeError> {
    match version {
        VERSION => decode_borrowed(bytes),
        found => Err(known(found).err().unwrap_or(DecodeError::UnknownVersion { found })),
    }
}

/// Appends one encoded account to a payload: its place, its length, its bytes.
pub fn put_account(payload: &mut Vec<u8>, place: u32, account: &[u8]) -> Result<(), EncodeError> {
    let len = u32::try_from(account.len()).map_err(|_| EncodeError::TooLong { bytes: account.len() })?;
    payload.extend_from_slice(&place.to_le_bytes());
    payload.extend_from_slice(&len.to_le_bytes());
    payload.extend_from_slice(account);
    Ok(())
}

/// The encoded accounts of a payload, with their places.
pub fn accounts_in(payload: &[u8]) -> Result<Vec<(u32, &[u8])>, DecodeError> {
    let mut accounts = Vec::new();
    let mut fields = Fields(payload);
    while !fields.0.is_empty() {
        let short = DecodeError::TooShort { bytes: fields.0.len(), needed: 8 };
        let (Some(place), Some(len)) = (fields.take(), fields.take()) else { return Err(short) };
        let needed = u32::from_le_bytes(len) as usize;
        let (account, rest) = fields.0.split_at_checked(needed).ok_or(DecodeError::TooShort { bytes: fields.0.len(), needed })?;
        accounts.push((u32::from_le_bytes(place), account));
        fields.0 = rest;
    }
    Ok(accounts)
}

fn encode<T: Serialize>(value: &T, bytes: &mut Vec<u8>) -> Result<(), EncodeError> {
    bincode::serde::encode_into_std_write(value, bytes, ENCODING)?;
    Ok(())
}

/// Borrowing, because identifiers are read from `&str`: the owned decoder allocates a `String` for each.
fn decode_borrowed<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, DecodeError> {
    let (value, used) =
        bincode::serde::borrow_decode_from_slice(bytes, ENCODING).map_err(|error| DecodeError::Decoder(error.to_string()))?;
    if used == bytes.len() { Ok(value) } else { Err(DecodeError::Trailing { bytes: bytes.len() - used }) }
}

/// A sum over accounts that does not depend on the order in which they are added: BLAKE3 of each account's place and bytes, added as
/// 256-bit integers that wrap. One account's change costs one subtraction and one addition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AccountsHash([u64; 4]);

impl AccountsHash {
    /// The hash that [`AccountsHash::to_bytes`] gave.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        let mut limbs = [0; 4];
        for (limb, chunk) in limbs.iter_mut().zip(bytes.chunks_exact(8)) {
            *limb = chunk.try_into().map_or(0, u64::from_le_bytes);
        }
        Self(limbs)
    }

    /// As bytes, lowest first.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for (chunk, limb) in bytes.chunks_exact_mut(8).zip(self.0) {
            chunk.copy_from_slice(&limb.to_le_bytes());
        }
        bytes
    }

    /// Of the account at `place` alone.
    #[must_use]
    pub fn of(place: u32, account: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&place.to_le_bytes());
        hasher.update(account);
        Self::from_bytes(hasher.finalize().as_bytes())
    }

    /// Adds other accounts.
    pub fn plus(&mut self, other: Self) {
        let mut carry = false;
        for (limb, add) in self.0.iter_mut().zip(other.0) {
            let (sum, over) = limb.overflowing_add(add);
            let (sum, over_again) = sum.overflowing_add(u64::from(carry));
            (*limb, carry) = (sum, over || over_again);
        }
    }

    /// Takes accounts away that were added.
    pub fn minus(&mut self, other: Self) {
        let mut borrow = false;
        for (limb, take) in self.0.iter_mut().zip(other.0) {
            let (difference, under) = limb.overflowing_sub(take);
            let (difference, under_again) = difference.overflowing_sub(u64::from(borrow));
            (*limb, borrow) = (difference, under || under_again);
        }
    }
}

/// The hash of a whole state: of the sum over its accounts, their number, and the shared part.
#[must_use]
pub fn combine(accounts: AccountsHash, account_count: u32, shared: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"ordergate state 1");
    hasher.update(&accounts.to_bytes());
    hasher.update(&account_count.to_le_bytes());
    hasher.update(shared);
    *hasher.finalize().as_bytes()
}

/// The hash of a gate's state, from nothing: every account is encoded and hashed.
pub fn state_hash(gate: &Gate) -> Result<[u8; 32], EncodeError> {
    StateHasher::of(gate)?.hash(gate)
}

/// The hash of a state, kept while it changes: costs what was touched, not what there is. 32 bytes for each account.
#[derive(Clone, Debug, Default)]
pub struct StateHasher {
    sum: AccountsHash,
    accounts: Vec<AccountsHash>,
    scratch: Vec<u8>,
}

impl StateHasher {
    /// Of a gate as it is.
    pub fn of(gate: &Gate) -> Result<Self, EncodeError> {
        let mut hasher = Self::default();
        for place in 0..gate.accounts().len() {
            hasher.rehash(gate, place)?;
        }
        Ok(hasher)
    }

    /// Takes in the accounts that changed since the last call ([`Gate::take_touched`]).
    pub fn touch(&mut self, gate: &Gate, touched: &[u32]) -> Result<(), EncodeError> {
        touched.iter().try_for_each(|place| self.rehash(gate, *place as usize))
    }

    /// The state's hash; all that changed must have been taken in.
    pub fn hash(&self, gate: &Gate) -> Result<[u8; 32], EncodeError> {
        let count = u32::try_from(self.accounts.len()).unwrap_or(u32::MAX);
        Ok(combine(self.sum, count, &encode_shared(gate.shared())?))
    }

    fn rehash(&mut self, gate: &Gate, place: usize) -> Result<(), EncodeError> {
        let Some(account) = gate.accounts().get(place) else { return Ok(()) };
        self.scratch.clear();
        encode(account, &mut self.scratch)?;
        let new = AccountsHash::of(u32::try_from(place).unwrap_or(u32::MAX), &self.scratch);
        if self.accounts.len() <= place {
            self.accounts.resize(place + 1, AccountsHash::default());
        }
        self.sum.minus(self.accounts[place]);
        self.sum.plus(new);
        self.accounts[place] = new;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
