//! Outputs on their way, and how far each topic is known to hold what the ledger caused.
//!
//! Invariant: an output is handed over only after its frame counts; a mark covers a record only
//! when every output of it is acknowledged. Deliberately absent: retries. A failed publication ends
//! the term.

use std::collections::VecDeque;

use crate::log::{LogError, OutputRecord, OutputTopic, ShardLog};
use crate::wire::frame::OutputMark;

/// The publications of one owner.
#[derive(Debug)]
pub struct Publisher {
    lanes: [Lane; 4],
    next_ticket: u64,
    /// Records up to here have all their outputs handed over.
    handed_over: u64,
}

#[derive(Debug, Default)]
struct Lane {
    mark: OutputMark,
    /// The offset after the last acknowledged output. The mark follows when a record is complete.
    acknowledged_to: u64,
    /// (ticket, seq) of what is not acknowledged, oldest first.
    waiting: VecDeque<(u64, u64)>,
}

/// An acknowledgement that is none of the next ones: the log broke its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the log acknowledged publication {ticket} out of order")]
pub struct UnexpectedAck {
    /// The ticket.
    pub ticket: u64,
}

impl Publisher {
    /// A publisher that goes on from what the ledger says.
    #[must_use]
    pub fn new(marks: [OutputMark; 4]) -> Self {
        Self {
            lanes: marks.map(|mark| Lane { mark, acknowledged_to: mark.offset, waiting: VecDeque::new() }),
            next_ticket: 0,
            handed_over: 0,
        }
    }

    /// How far each topic is published.
    #[must_use]
    pub fn marks(&self) -> [OutputMark; 4] {
        [self.lanes[0].mark, self.lanes[1].mark, self.lanes[2].mark, self.lanes[3].mark]
    }

    /// The offset after the last acknowledged output of each topic.
    #[must_use]
    pub fn acknowledged_to(&self) -> [u64; 4] {
        [0, 1, 2, 3].map(|place| self.lanes[place].acknowledged_to)
    }

    /// How many publications are not acknowledged.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.lanes.iter().map(|lane| lane.waiting.len()).sum()
    }

    /// Hands over one output.
    ///
    /// # Errors
    /// The log does not take it.
    pub fn publish<L: ShardLog>(&mut self, log: &mut L, output: OutputRecord) -> Result<(), LogError> {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.lanes[output.topic.place()].waiting.push_back((ticket, output.tag.seq));
        log.publish(ticket, output)
    }

    /// All outputs of the records up to `seq` are handed over: topics with nothing waiting are done that far.
    pub fn handed_over(&mut self, seq: u64) {
        self.handed_over = self.handed_over.max(seq);
        for lane in &mut self.lanes {
            lane.settle(self.handed_over);
        }
    }

    /// An output is durable at `offset`.
    ///
    /// # Errors
    /// [`UnexpectedAck`].
    pub fn acknowledged(&mut self, ticket: u64, topic: OutputTopic, offset: u64) -> Result<(), UnexpectedAck> {
        let lane = &mut self.lanes[topic.place()];
        match lane.waiting.pop_front() {
            Some((expected, _)) if expected == ticket => {}
            Some(_) | None => return Err(UnexpectedAck { ticket }),
        }
        // A topic does not go back. One that did was truncated or made anew: beginning again compares it with the ledger.
        if offset < lane.acknowledged_to {
            return Err(UnexpectedAck { ticket });
        }
        lane.acknowledged_to = offset + 1;
        lane.settle(self.handed_over);
        Ok(())
    }

    /// A topic ends there, and nothing of ours is on its way to it: what comes later lies at or above this offset. Of a topic that other
    /// shards write to as well, a takeover then does not read what they wrote meanwhile.
    pub fn pass_over(&mut self, topic: OutputTopic, end: u64) {
        let lane = &mut self.lanes[topic.place()];
        if lane.waiting.is_empty() {
            lane.acknowledged_to = lane.acknowledged_to.max(end);
        }
    }

    /// After a recovery: everything up to `seq` is published, and what comes later lies at or above these offsets.
    pub fn settled_at(&mut self, seq: u64, offsets: [u64; 4]) {
        self.handed_over = seq;
        for (lane, offset) in self.lanes.iter_mut().zip(offsets) {
            lane.mark = OutputMark { seq, offset };
            lane.acknowledged_to = offset;
        }
    }
}

impl Lane {
    /// Everything before the oldest output that waits is published.
    fn settle(&mut self, handed_over: u64) {
        let seq = self.waiting.front().map_or(handed_over, |(_, seq)| seq - 1);
        if seq > self.mark.seq {
            self.mark = OutputMark { seq, offset: self.acknowledged_to };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_is_passed_over_only_with_nothing_of_ours_on_its_way() {
        let mut publisher = Publisher::new(Default::default());
        let topic = OutputTopic::DeadLetter;
        let mark = |publisher: &Publisher| publisher.marks()[topic.place()];
        publisher.lanes[topic.place()].waiting.push_back((0, 4));
        publisher.pass_over(topic, 900);
        publisher.handed_over(5);
        assert_eq!(mark(&publisher), OutputMark { seq: 3, offset: 0 }, "ours may stand before that end");
        publisher.acknowledged(0, topic, 700).unwrap();
        assert_eq!(mark(&publisher), OutputMark { seq: 5, offset: 701 });
        publisher.pass_over(topic, 900);
        publisher.pass_over(topic, 800);
        publisher.handed_over(6);
        assert_eq!(mark(&publisher), OutputMark { seq: 6, offset: 900 });
    }

    #[test]
    fn a_mark_covers_a_record_only_when_all_its_outputs_are_acknowledged() {
        let mut publisher = Publisher::new(Default::default());
        let topic = OutputTopic::Commands;
        let lane = &mut publisher.lanes[topic.place()];
        lane.waiting.extend([(0, 3), (1, 3), (2, 5)]);
        publisher.handed_over(6);
        let mark = |publisher: &Publisher| publisher.marks()[topic.place()];
        assert_eq!(mark(&publisher), OutputMark { seq: 2, offset: 0 });
        assert_eq!(publisher.marks()[0].seq, 6);
        publisher.acknowledged(0, topic, 10).unwrap();
        assert_eq!(mark(&publisher), OutputMark { seq: 2, offset: 0 });
        publisher.acknowledged(1, topic, 12).unwrap();
        assert_eq!(mark(&publisher), OutputMark { seq: 4, offset: 13 });
        publisher.acknowledged(2, topic, 13).unwrap();
        assert_eq!(mark(&publisher), OutputMark { seq: 6, offset: 14 });
        assert!(publisher.acknowledged(9, topic, 14).is_err());
    }

    #[test]
    fn a_topic_that_went_back_is_an_error() {
        let mut publisher = Publisher::new(Default::default());
        let topic = OutputTopic::Decisions;
        publisher.lanes[topic.place()].waiting.extend([(0, 3), (1, 4)]);
        publisher.acknowledged(0, topic, 10).unwrap();
        assert_eq!(publisher.acknowledged(1, topic, 0), Err(UnexpectedAck { ticket: 1 }));
    }
}
