//! The chain: how records of `gate.audit` hang together, and how it is found out when they do not.
//!
//! Every writer has a chain of its own, with an id that it made up when it started, so that several append at once without asking each
//! other. A record's `head` is the BLAKE3 of its bytes before `,"head":`, and `prev` among them is the head before it. Now and then a
//! writer also writes down the heads of the others' chains that it has read: so the end of a chain cannot be cut off without breaking
//! another one, or the next one of the same instance.
//! Invariant: whatever stands in the topic is the next link of its chain, or word for word one of the last links again (a writer that is
//! not told what became of a record sends it again); anything else is a fault. Whoever can write to the topic can still make a whole
//! history anew: that is found with a head that was published elsewhere ([`Verifier::new`]).

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::domain::Millis;

/// The action of a record that says which heads its writer has seen.
pub(super) const HEADS: &str = "audit.heads";
/// The head before the first record.
const NONE: Hash = [0; 32];
/// `,"head":"`, 64 hex digits, `"}`.
const TAIL_BYTES: usize = 75;
/// A record may be repeated as long as so few came after it.
const REPEATED_WITHIN: u64 = 128;
/// Heads of a chain that are remembered.
const HEADS_KEPT: usize = 4_096;

type Hash = [u8; 32];

/// What was done, as it stands in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Where it stands.
    pub offset: u64,
    /// What it says.
    #[serde(flatten)]
    pub link: Link,
    /// Its hash.
    pub head: Digest,
}

/// A record but for its own hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// Its writer's chain.
    pub chain: ChainId,
    /// Its place in the chain, from 1.
    pub seq: u64,
    /// Its writer's time, in ms.
    pub at: Millis,
    /// Who did it.
    pub actor: String,
    /// From where.
    pub address: String,
    /// What was done.
    pub action: String,
    /// To what.
    pub object: String,
    /// What changed. Never a secret.
    pub changes: Value,
    /// How it ended.
    pub result: String,
    /// The head of the record before it in its chain.
    pub prev: Digest,
}

impl Link {
    /// Its bytes, with its head, which comes along.
    pub(super) fn encode(&self) -> Result<(Vec<u8>, Digest), serde_json::Error> {
        let mut bytes = serde_json::to_vec(self)?;
        bytes.pop();
        let head = Digest(*blake3::hash(&bytes).as_bytes());
        bytes.extend_from_slice(format!(",\"head\":\"{head}\"}}").as_bytes());
        Ok((bytes, head))
    }

    /// Reads a record and its head, and whether the head is its own.
    fn decode(payload: &[u8]) -> Result<(Self, Digest), &'static str> {
        let at = payload.len().checked_sub(TAIL_BYTES).ok_or("it is too short")?;
        let (bytes, tail) = payload.split_at(at);
        let head = tail.strip_prefix(b",\"head\":\"").and_then(|tail| tail.strip_suffix(b"\"}")).ok_or("it does not end with its head")?;
        let head = std::str::from_utf8(head).ok().and_then(|head| head.parse().ok()).ok_or("its head is not 64 hex digits")?;
        if bytes.first() != Some(&b'{') {
            return Err("it is no JSON object");
        }
        let link =
            serde_json::from_slice(&[bytes, b"}"].concat()).map_err(|_| "it is no JSON object with the fields of an audit record")?;
        if Digest(*blake3::hash(bytes).as_bytes()) == head { Ok((link, head)) } else { Err("its head is not the hash of what it says") }
    }
}

impl Entry {
    /// Reads a record of `gate.audit`.
    ///
    /// # Errors
    /// It is none, or is not what its writer wrote.
    pub fn decode(offset: u64, payload: &[u8]) -> Result<Self, &'static str> {
        Link::decode(payload).map(|(link, head)| Self { offset, link, head })
    }
}

/// A chain's id, 16 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ChainId(pub u64);

/// A hash, 64 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(pub Hash);

impl Digest {
    /// The head before the first record.
    pub(super) const NONE: Self = Self(NONE);

    /// Its first 48 bits, which a metric can hold exactly.
    #[must_use]
    pub fn short(self) -> u64 {
        self.0[..6].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
    }
}

impl fmt::Display for ChainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

/// A text that is no id, hash or head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {0}")]
pub struct Malformed(&'static str);

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

impl FromStr for ChainId {
    type Err = Malformed;
    fn from_str(text: &str) -> Result<Self, Malformed> {
        let id = is_hex(text, 16).then(|| u64::from_str_radix(text, 16).ok()).flatten();
        id.map(Self).ok_or(Malformed("a chain's id, 16 hex digits"))
    }
}

impl FromStr for Digest {
    type Err = Malformed;
    fn from_str(text: &str) -> Result<Self, Malformed> {
        let hash = is_hex(text, 64).then(|| blake3::Hash::from_hex(text).ok()).flatten();
        hash.map(|hash| Self(*hash.as_bytes())).ok_or(Malformed("a hash, 64 hex digits"))
    }
}

impl TryFrom<String> for ChainId {
    type Error = Malformed;
    fn try_from(text: String) -> Result<Self, Malformed> {
        text.parse()
    }
}

impl TryFrom<String> for Digest {
    type Error = Malformed;
    fn try_from(text: String) -> Result<Self, Malformed> {
        text.parse()
    }
}

impl From<ChainId> for String {
    fn from(id: ChainId) -> Self {
        id.to_string()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

/// How far a chain is: `CHAIN:SEQ:HASH`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The chain.
    pub chain: ChainId,
    /// Its last record.
    pub seq: u64,
    /// The hash of that.
    pub head: Digest,
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.chain, self.seq, self.head)
    }
}

impl FromStr for Head {
    type Err = Malformed;
    fn from_str(text: &str) -> Result<Self, Malformed> {
        let mut parts = text.split(':');
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(chain), Some(seq), Some(head), None) => {
                let seq = seq.parse().map_err(|_| Malformed("CHAIN:SEQ:HASH"))?;
                Ok(Self { chain: chain.parse()?, seq, head: head.parse()? })
            }
            _ => Err(Malformed("CHAIN:SEQ:HASH")),
        }
    }
}

/// The heads that a record of [`HEADS`] names.
pub(super) fn heads_in(link: &Link) -> Vec<Head> {
    let texts = if link.action == HEADS { link.changes.get("heads").and_then(Value::as_array) } else { None };
    texts.into_iter().flatten().filter_map(|text| text.as_str()?.parse().ok()).collect()
}

/// What is wrong with the topic, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A record that is none, or was altered.
    #[error("the record at offset {offset} is not what a writer wrote: {what}")]
    Altered {
        /// Where it stands.
        offset: u64,
        /// What is wrong with it.
        what: &'static str,
    },
    /// Records before it are not there, or stand behind it.
    #[error("the record at offset {offset} is number {seq} of chain {chain}, and number {expected} was to come: removed, or out of order")]
    Gap {
        /// Where it stands.
        offset: u64,
        /// Its chain.
        chain: ChainId,
        /// Its number.
        seq: u64,
        /// The number that was to come.
        expected: u64,
    },
    /// The chain does not begin.
    #[error(
        "the record at offset {offset} is number {seq} of chain {chain}, of which nothing stands before it: removed, unless retention did it (then give the head before it)"
    )]
    Beginning {
        /// Where it stands.
        offset: u64,
        /// Its chain.
        chain: ChainId,
        /// Its number.
        seq: u64,
    },
    /// It does not follow the one before it.
    #[error("the record at offset {offset}, number {seq} of chain {chain}, does not follow number {} before it: one of them was altered", .seq - 1)]
    Broken {
        /// Where it stands.
        offset: u64,
        /// Its chain.
        chain: ChainId,
        /// Its number.
        seq: u64,
    },
    /// There is another one with its number.
    #[error("the record at offset {offset} is a second number {seq} of chain {chain}: one of them was inserted")]
    Second {
        /// Where it stands.
        offset: u64,
        /// Its chain.
        chain: ChainId,
        /// Its number.
        seq: u64,
    },
    /// A head that was seen or published is not there.
    #[error("chain {} does not come to number {} with the head {}, which {by}: its end was removed, or all of it written anew", .head.chain, .head.seq, .head.head)]
    Missing {
        /// The head.
        head: Head,
        /// Who says so.
        by: Witness,
    },
}

/// Who says that a chain has a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Witness {
    /// Another record.
    Record {
        /// Where it stands.
        offset: u64,
    },
    /// Whoever asked.
    Given,
}

impl fmt::Display for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Record { offset } => write!(f, "the record at offset {offset} had seen"),
            Self::Given => f.write_str("was given"),
        }
    }
}

/// A chain as far as it was read.
#[derive(Debug, Default)]
struct Chain {
    seq: u64,
    /// The last heads, by number.
    heads: VecDeque<(u64, Digest)>,
}

impl Chain {
    fn head_at(&self, seq: u64) -> Option<Digest> {
        let (first, _) = self.heads.front()?;
        let place = usize::try_from(seq.checked_sub(*first)?).ok()?;
        self.heads.get(place).map(|(_, head)| *head)
    }

    fn push(&mut self, seq: u64, head: Digest) {
        self.seq = seq;
        if self.heads.len() >= HEADS_KEPT {
            self.heads.pop_front();
        }
        self.heads.push_back((seq, head));
    }
}

/// Walks along the topic.
#[derive(Debug, Default)]
pub struct Verifier {
    chains: BTreeMap<ChainId, Chain>,
    /// Heads that must come.
    given: Vec<Head>,
    /// What is no longer kept cannot be missed.
    is_partial: bool,
    records: u64,
    repeated: u64,
}

impl Verifier {
    /// A verifier for the whole topic. Each of the heads given must be in it, or be the one before the first record of its chain. Of a
    /// topic whose beginning is no longer kept (`is_partial`), chains may be gone as a whole.
    #[must_use]
    pub fn new(given: Vec<Head>, is_partial: bool) -> Self {
        Self { given, is_partial, ..Self::default() }
    }

    /// Takes the next record.
    ///
    /// # Errors
    /// It is not what must come.
    pub fn see(&mut self, offset: u64, key: Option<&[u8]>, payload: &[u8]) -> Result<(), Fault> {
        let (link, head) = Link::decode(payload).map_err(|what| Fault::Altered { offset, what })?;
        let Link { chain, seq, .. } = link;
        if key != Some(chain.to_string().as_bytes()) {
            return Err(Fault::Altered { offset, what: "its key is not its chain" });
        }
        self.records += 1;
        let known = self.chains.entry(chain).or_default();
        if seq <= known.seq && known.seq > 0 {
            let is_again = known.seq - seq < REPEATED_WITHIN && known.head_at(seq) == Some(head);
            self.repeated += u64::from(is_again);
            return if is_again { Ok(()) } else { Err(Fault::Second { offset, chain, seq }) };
        }
        let before = match known.seq {
            0 => self.given.iter().find(|given| given.chain == chain && given.seq + 1 == seq).map(|given| given.head),
            last if seq == last + 1 => known.head_at(last),
            last => return Err(Fault::Gap { offset, chain, seq, expected: last + 1 }),
        };
        let before = match before {
            Some(before) => before,
            None if seq == 1 => Digest::NONE,
            None => return Err(Fault::Beginning { offset, chain, seq }),
        };
        if link.prev != before {
            return Err(Fault::Broken { offset, chain, seq });
        }
        known.push(seq, head);
        self.given_heads(Head { chain, seq, head }, link.prev)?;
        heads_in(&link).into_iter().try_for_each(|seen| self.witnessed(offset, seen))
    }

    /// Heads that were given are ticked off as they are passed.
    fn given_heads(&mut self, Head { chain, seq, head }: Head, prev: Digest) -> Result<(), Fault> {
        let fits = |given: &Head| (given.seq, given.head) == (seq, head) || (given.seq + 1, given.head) == (seq, prev);
        self.given.retain(|given| given.chain != chain || !fits(given));
        let missed = self.given.iter().find(|given| given.chain == chain && given.seq <= seq);
        missed.map_or(Ok(()), |given| Err(Fault::Missing { head: *given, by: Witness::Given }))
    }

    /// What a writer had read stands before what it wrote then.
    fn witnessed(&self, offset: u64, seen: Head) -> Result<(), Fault> {
        let missing = Err(Fault::Missing { head: seen, by: Witness::Record { offset } });
        match self.chains.get(&seen.chain) {
            Some(chain) if chain.seq < seen.seq => missing,
            // What is too old to be remembered was compared when it was younger.
            Some(chain) => chain.head_at(seen.seq).map_or(Ok(()), |head| if head == seen.head { Ok(()) } else { missing }),
            None if self.is_partial => Ok(()),
            None => missing,
        }
    }

    /// Ends: the number of records, of those that are repeated, and how far each chain is.
    ///
    /// # Errors
    /// A head that was given did not come.
    pub fn finish(self) -> Result<(u64, u64, Vec<Head>), Fault> {
        if let Some(given) = self.given.first() {
            return Err(Fault::Missing { head: *given, by: Witness::Given });
        }
        let head =
            |(chain, known): (&ChainId, &Chain)| known.heads.back().map(|(seq, head)| Head { chain: *chain, seq: *seq, head: *head });
        let heads = self.chains.iter().filter_map(head).collect();
        Ok((self.records, self.repeated, heads))
    }
}
