//! Which partition a key belongs to (WIRE.md, Routing).
//!
//! Invariant: the same answers as Java's default partitioner, or as librdkafka's `crc32`.

use serde::{Deserialize, Serialize};

use crate::domain::{AccountId, ControlEvent, Event, InputTopic, Source};
use crate::log::InputRecord;
use crate::wire::frame::Routing;

/// How producers choose the partition of `orders.*`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Partitioner {
    /// Java's default: murmur2 (librdkafka: `murmur2_random`).
    #[default]
    Murmur2,
    /// librdkafka's default (`consistent_random`).
    Crc32,
}

impl Partitioner {
    /// The partition of a key among `partitions`.
    #[must_use]
    pub fn partition(self, key: &[u8], partitions: u32) -> u32 {
        let hash = match self {
            Self::Murmur2 => murmur2(key) & 0x7fff_ffff,
            Self::Crc32 => crc32fast::hash(key),
        };
        hash.checked_rem(partitions).unwrap_or(0)
    }

    /// Whether a record stands elsewhere than its key says. Without a key nothing says that it is right.
    #[must_use]
    pub fn misrouted(self, key: Option<&[u8]>, partition: u32, partitions: u32) -> bool {
        partitions > 1 && key.is_none_or(|key| self.partition(key, partitions) != partition)
    }
}

/// Where a shard stands among the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Router {
    /// How accounts are spread.
    pub partitioner: Partitioner,
    /// This shard.
    pub shard: u32,
    /// How many there are.
    pub shards: u32,
}

impl Router {
    /// Whether a record stands in another partition than its key says. Only `orders.*` are spread.
    #[must_use]
    pub fn is_misrouted(&self, record: &InputRecord) -> bool {
        match record.source.topic {
            InputTopic::Intents | InputTopic::Executions => {
                self.partitioner.misrouted(record.key.as_deref(), record.source.partition, self.shards)
            }
            InputTopic::Prices | InputTopic::Control => false,
        }
    }

    /// Whose a record is that stands where it belongs: of the topics that all shards read, an
    /// operator's record about one account is that account's shard's; of any other one shard, by its
    /// partition, says what is to be said.
    #[must_use]
    pub fn routing(&self, source: Source, event: &Event) -> Routing {
        if self.shards <= 1 {
            return Routing::Here;
        }
        match (source.topic, event) {
            (InputTopic::Intents | InputTopic::Executions, _) => Routing::Here,
            (InputTopic::Prices | InputTopic::Control, event) => match account_of(event) {
                Some(account) if self.partitioner.partition(account.as_bytes(), self.shards) == self.shard => Routing::Here,
                Some(_) => Routing::Elsewhere,
                None if source.partition % self.shards == self.shard => Routing::Here,
                None => Routing::Quiet,
            },
        }
    }
}

/// The one account that an operator's record is about.
fn account_of(event: &Event) -> Option<AccountId> {
    let Event::Control(control) = event else { return None };
    match &**control {
        ControlEvent::AccountOpened(opened) => Some(opened.account),
        ControlEvent::AccountClosed { account }
        | ControlEvent::AccountLimitsSet { account, .. }
        | ControlEvent::CashAdjusted { account, .. } => Some(*account),
        ControlEvent::TradingStateSet(set) => set.scope.account,
        ControlEvent::LatchReleased(released) => Some(released.account),
        ControlEvent::GateSettingsSet(_)
        | ControlEvent::InstrumentDefined(_)
        | ControlEvent::Split { .. }
        | ControlEvent::RestrictedListSet(_)
        | ControlEvent::RuleCreated(_)
        | ControlEvent::RuleUpdated(_)
        | ControlEvent::RuleDeleted { .. } => None,
    }
}

/// Kafka's murmur2: seed 0x9747b28c, 32 bits, little endian.
fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
    let mut h = 0x9747_b28c ^ length;
    let (words, rest) = data.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> 24;
        h = h.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !rest.is_empty() {
        for (i, byte) in rest.iter().enumerate() {
            h ^= u32::from(*byte) << (8 * i);
        }
        h = h.wrapping_mul(M);
    }
    h ^= h >> 13;
    h = h.wrapping_mul(M);
    h ^ (h >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From Apache Kafka's own `UtilsTest.testMurmur2`.
    #[test]
    fn hashes_as_kafka_does() {
        let cases: [(&str, i32); 6] = [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ];
        for (text, hash) in cases {
            assert_eq!(murmur2(text.as_bytes()), hash.cast_unsigned(), "{text}");
        }
    }

    #[test]
    fn one_partition_takes_everything_and_several_want_a_key() {
        assert!(!Partitioner::Murmur2.misrouted(None, 0, 1));
        assert!(Partitioner::Murmur2.misrouted(None, 0, 2));
        let right = Partitioner::Crc32.partition(b"ACC1", 8);
        assert!(!Partitioner::Crc32.misrouted(Some(b"ACC1"), right, 8));
        assert!(Partitioner::Crc32.misrouted(Some(b"ACC1"), (right + 1) % 8, 8));
    }
}
