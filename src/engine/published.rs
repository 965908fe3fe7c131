//! What the output topics hold, against what the ledger caused.
//!
//! Invariant: every output that the ledger says is published stands in its topic with the bytes that
//! the fold gives, and nothing else stands there. A repetition with the same bytes is none of these
//! faults: a new owner publishes again what it cannot know to be there. Costs 40 bytes an output.

use std::fmt;

use crate::log::{OutputRecord, OutputTag, OutputTopic, StoredRecord};
use crate::wire::frame::{self, Digest, OutputMark};

/// The outputs of one shard: what should be there, and what was found of it.
#[derive(Debug)]
pub struct Publications {
    shard: u32,
    shards: u32,
    topics: [Expectation; OutputTopic::ALL.len()],
    marks: [OutputMark; OutputTopic::ALL.len()],
    last_seq: u64,
}

/// Of one topic.
#[derive(Debug, Default)]
struct Expectation {
    outputs: Vec<Expected>,
    /// The first offset that the topic keeps.
    first: u64,
    /// Outputs of records up to this sequence may be older than what the topic keeps.
    expired_seq: Option<u64>,
}

#[derive(Debug)]
struct Expected {
    seq: u64,
    index: u32,
    digest: Digest,
    seen: bool,
}

/// What is wrong with an output topic.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A record that no gate wrote there.
    #[error("{place}: the record names no output of this shard's ledger: somebody else wrote it")]
    Foreign {
        /// Where it stands.
        place: OutputPlace,
    },
    /// A record of an output that the ledger did not cause.
    #[error("{place}: the ledger caused no output {}", named(.tag))]
    Unknown {
        /// Where it stands.
        place: OutputPlace,
        /// Which it says it is.
        tag: OutputTag,
    },
    /// A record of an input that the ledger does not hold: the ledger lost its end.
    #[error("{place}: output {} is ahead of the ledger, which ends at seq {last_seq}", named(.tag))]
    Ahead {
        /// Where it stands.
        place: OutputPlace,
        /// Which it says it is.
        tag: OutputTag,
        /// The ledger's last sequence.
        last_seq: u64,
    },
    /// A record with other bytes than the ledger caused.
    #[error("{place}: output {} has another key or value than the ledger caused", named(.tag))]
    Altered {
        /// Where it stands.
        place: OutputPlace,
        /// Which it says it is.
        tag: OutputTag,
    },
    /// An output that the ledger says is published, and is not there.
    #[error("{}: output {} is missing, and the ledger says that it was published", .topic.as_str(), named(.tag))]
    Missing {
        /// Where it should be.
        topic: OutputTopic,
        /// Which it is.
        tag: OutputTag,
    },
}

/// Where an output stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputPlace {
    /// The topic.
    pub topic: OutputTopic,
    /// The partition.
    pub partition: u32,
    /// The offset.
    pub offset: u64,
}

impl fmt::Display for OutputPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.topic.as_str(), self.partition, self.offset)
    }
}

fn named(tag: &OutputTag) -> String {
    format!("{}-{}-{}", tag.shard, tag.seq, tag.index)
}

/// What was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Outputs that are there as the ledger caused them.
    pub published: u64,
    /// Those that are not there yet, and that nobody said are.
    pub waiting: u64,
    /// Those that are older than what their topic keeps.
    pub expired: u64,
}

/// What a record in an output topic is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// An output, for the first time.
    First,
    /// An output once more, with the same bytes.
    Again,
    /// Another shard's, or one that came after the ledger was read.
    Elsewhere,
}

impl Publications {
    /// Nothing expected yet of this one of so many shards. `firsts`: the first offset that each output topic keeps.
    #[must_use]
    pub fn new(shard: u32, shards: u32, firsts: [u64; OutputTopic::ALL.len()]) -> Self {
        let topics = firsts.map(|first| Expectation { first, expired_seq: (first == 0).then_some(0), ..Expectation::default() });
        Self { shard, shards, topics, marks: Default::default(), last_seq: 0 }
    }

    /// The ledger caused this. Outputs come in their order.
    pub fn expect(&mut self, output: &OutputRecord) {
        let OutputTag { seq, index, .. } = output.tag;
        let digest = digest_of(output.topic, output.key.as_deref(), &output.payload);
        self.topics[output.topic.place()].outputs.push(Expected { seq, index, digest, seen: false });
    }

    /// The ledger says how far its outputs are published, and how far it goes.
    pub fn note(&mut self, marks: [OutputMark; OutputTopic::ALL.len()], seq: u64) {
        self.marks = marks;
        self.last_seq = seq;
        for (topic, mark) in self.topics.iter_mut().zip(marks) {
            // Every output of later records is at or above the mark's offset.
            if topic.expired_seq.is_none() && mark.offset >= topic.first {
                topic.expired_seq = Some(mark.seq);
            }
        }
    }

    /// A record that stands in an output topic. `late`: it was written after the ledger was read.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn see(&mut self, topic: OutputTopic, partition: u32, record: &StoredRecord, late: bool) -> Result<Sight, Fault> {
        let place = OutputPlace { topic, partition, offset: record.offset };
        let tag = record.tag.ok_or(Fault::Foreign { place })?;
        if tag.shard != self.shard {
            let others = topic == OutputTopic::DeadLetter && tag.shard < self.shards;
            return if others { Ok(Sight::Elsewhere) } else { Err(Fault::Foreign { place }) };
        }
        if tag.seq > self.last_seq {
            return if late { Ok(Sight::Elsewhere) } else { Err(Fault::Ahead { place, tag, last_seq: self.last_seq }) };
        }
        let outputs = &mut self.topics[topic.place()].outputs;
        let at = outputs.binary_search_by_key(&(tag.seq, tag.index), |output| (output.seq, output.index));
        let expected = at.ok().and_then(|at| outputs.get_mut(at)).ok_or(Fault::Unknown { place, tag })?;
        if expected.digest != digest_of(topic, record.key.as_deref(), &record.payload) {
            return Err(Fault::Altered { place, tag });
        }
        Ok(if std::mem::replace(&mut expected.seen, true) { Sight::Again } else { Sight::First })
    }

    /// What was found, and what is missing. Everything that stands in the topics has been seen.
    pub fn finish(&self, mut missing: impl FnMut(Fault)) -> Found {
        let mut found = Found::default();
        for topic in OutputTopic::ALL {
            let Expectation { outputs, expired_seq, .. } = &self.topics[topic.place()];
            let mark = self.marks[topic.place()];
            for &Expected { seq, index, seen, .. } in outputs {
                if seen {
                    found.published += 1;
                } else if seq > mark.seq {
                    found.waiting += 1;
                } else if expired_seq.is_none_or(|expired| seq <= expired) {
                    found.expired += 1;
                } else {
                    missing(Fault::Missing { topic, tag: OutputTag { shard: self.shard, seq, index } });
                }
            }
        }
        found
    }
}

fn digest_of(topic: OutputTopic, key: Option<&[u8]>, payload: &[u8]) -> Digest {
    frame::outputs_digest(std::iter::once((topic, key, payload)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{InputTopic, Source};

    const TOPIC: OutputTopic = OutputTopic::Decisions;

    fn output(seq: u64) -> OutputRecord {
        let tag = OutputTag { shard: 1, seq, index: 0 };
        let source = Source { topic: InputTopic::Intents, partition: 1, offset: seq };
        OutputRecord { topic: TOPIC, tag, source, key: Some(b"A".to_vec()), payload: format!("{{{seq}}}").into_bytes() }
    }

    fn stored(offset: u64, output: OutputRecord) -> StoredRecord {
        StoredRecord { offset, ts: 0, key: output.key, payload: output.payload, tag: Some(output.tag) }
    }

    fn expecting(seqs: std::ops::RangeInclusive<u64>, first: u64, mark: OutputMark) -> Publications {
        let mut publications = Publications::new(1, 2, [first; 4]);
        let last = *seqs.end();
        seqs.for_each(|seq| publications.expect(&output(seq)));
        publications.note([mark, OutputMark::default(), OutputMark::default(), OutputMark::default()], last);
        publications
    }

    fn missing(publications: &Publications) -> (Found, Vec<String>) {
        let mut faults = Vec::new();
        let found = publications.finish(|fault| faults.push(fault.to_string()));
        (found, faults)
    }

    #[test]
    fn what_is_there_once_or_more_often_in_any_order_is_as_it_should_be() {
        let mut publications = expecting(1..=3, 0, OutputMark { seq: 2, offset: 2 });
        for (offset, seq, sight) in [(0, 2, Sight::First), (1, 1, Sight::First), (2, 2, Sight::Again)] {
            assert_eq!(publications.see(TOPIC, 1, &stored(offset, output(seq)), false), Ok(sight));
        }
        assert_eq!(missing(&publications), (Found { published: 2, waiting: 1, expired: 0 }, Vec::new()));
    }

    #[test]
    fn every_kind_of_fault_is_told_with_its_place() {
        let mut publications = expecting(1..=3, 0, OutputMark { seq: 3, offset: 3 });
        let mut told = |record: StoredRecord| publications.see(TOPIC, 1, &record, false).unwrap_err().to_string();
        let altered = OutputRecord { payload: b"{9}".to_vec(), ..output(1) };
        assert_eq!(told(stored(0, altered)), "gate.decisions 1 0: output 1-1-0 has another key or value than the ledger caused");
        assert!(told(StoredRecord { tag: None, ..stored(1, output(1)) }).contains("somebody else wrote it"));
        assert!(told(stored(2, output(9))).contains("1-9-0 is ahead of the ledger, which ends at seq 3"));
        let unknown = OutputRecord { tag: OutputTag { shard: 1, seq: 2, index: 7 }, ..output(2) };
        assert!(told(stored(3, unknown)).contains("the ledger caused no output 1-2-7"));
        let other = OutputRecord { tag: OutputTag { shard: 0, seq: 2, index: 0 }, ..output(2) };
        assert!(told(stored(4, other)).contains("names no output of this shard's ledger"));
        let (found, faults) = missing(&publications);
        assert_eq!((found.published, faults.len()), (0, 3));
        assert_eq!(faults[0], "gate.decisions: output 1-1-0 is missing, and the ledger says that it was published");
    }

    #[test]
    fn what_the_topic_no_longer_keeps_is_not_missed() {
        let mut publications = expecting(1..=2, 5, OutputMark { seq: 2, offset: 7 });
        publications.expect(&output(3));
        publications.note([OutputMark { seq: 3, offset: 8 }; 4], 3);
        let (found, faults) = missing(&publications);
        assert_eq!((found.expired, faults.len()), (2, 1), "{faults:?}");
    }

    #[test]
    fn what_came_while_we_read_is_no_fault() {
        let mut publications = expecting(1..=1, 0, OutputMark::default());
        assert_eq!(publications.see(TOPIC, 1, &stored(5, output(2)), true), Ok(Sight::Elsewhere));
    }
}
