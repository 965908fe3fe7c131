//! A term: the frames in flight, and the proof that the term goes on.
//!
//! Invariant: a frame is committed when the ledger's sequence counts it, never because the log said
//! yes. Deliberately absent: the fold and the inputs.

use std::collections::VecDeque;
use std::time::Duration;

use crate::domain::Source;
use crate::log::{OutputRecord, ShardLog, ShardTopic};
use crate::wire::frame::{self, Entry, Frame, Hash};

use super::options::Planted;
use super::ownership::Sequence;
use super::publisher::Publisher;
use super::replica::FoldError;
use super::trouble::Trouble;

/// What is known of the ledger's end when an entry is read between.
const ENTRIES_PER_READ: usize = 64;

/// A frame that waits for its acknowledgement.
#[derive(Debug)]
pub struct InFlight {
    /// Its number among the entries that count; also its ticket.
    pub n: u64,
    /// The chain's hash after it.
    pub head: Hash,
    /// The ledger sequence of its last record.
    pub last_seq: u64,
    /// Its records, in order.
    pub sources: Vec<Source>,
    /// What they caused, in order.
    pub outputs: Vec<OutputRecord>,
    /// Its length.
    pub bytes: usize,
    /// When it was appended.
    pub appended: Duration,
    acknowledged: bool,
}

/// A term of ours.
#[derive(Debug)]
pub struct Owner {
    /// The term.
    pub term: u64,
    /// Frames without a proof that they count, oldest first.
    pub flight: VecDeque<InFlight>,
    /// Outputs on their way.
    pub publisher: Publisher,
    /// The records whose frames are committed.
    pub committed_seq: u64,
    first_n: u64,
    next_n: u64,
    next_head: Hash,
    looked: Duration,
    /// When it last knew that the term goes on.
    sure: Duration,
    planted: Option<Planted>,
}

impl Owner {
    /// The owner of the term that the sequence is in.
    #[must_use]
    pub fn new(sequence: &Sequence, publisher: Publisher, seq: u64, now: Duration, planted: Option<Planted>) -> Self {
        Self {
            term: sequence.term,
            flight: VecDeque::new(),
            publisher,
            committed_seq: seq,
            first_n: sequence.n,
            next_n: sequence.n,
            next_head: sequence.head,
            looked: now,
            sure: now,
            planted,
        }
    }

    /// Appends a frame: fills in its place in the term.
    ///
    /// # Errors
    /// It cannot be written, or the log does not take it.
    pub fn append<L: ShardLog>(&mut self, log: &mut L, mut frame: Frame, outputs: Vec<OutputRecord>, now: Duration) -> Result<(), Trouble> {
        (frame.term, frame.n, frame.prev_hash) = (self.term, self.next_n, self.next_head);
        frame.output_marks = self.publisher.marks();
        let sources: Vec<Source> = frame.inputs.iter().map(|input| input.source).collect();
        let last_seq = frame.first_seq + sources.len() as u64 - 1;
        let entry = frame::encode(&Entry::Frame(frame))?;
        let (n, bytes) = (self.next_n, entry.len());
        self.next_head = frame::link(&self.next_head, &entry);
        self.next_n += 1;
        let in_flight = InFlight { n, head: self.next_head, last_seq, sources, outputs, bytes, appended: now, acknowledged: false };
        self.flight.push_back(in_flight);
        log.append(n, entry)?;
        Ok(())
    }

    /// A frame is durable at `offset`. Reads what lies between it and the last entry that is known.
    ///
    /// # Errors
    /// The term is over, or the log fails.
    pub fn acknowledged<L: ShardLog>(&mut self, log: &mut L, tail: &mut Sequence, ticket: u64, offset: u64) -> Result<(), Trouble> {
        if self.planted == Some(Planted::GoOnAfterFailure) {
            self.pass_over_failures(tail, ticket);
        }
        let Some(frame) = self.flight.iter_mut().find(|frame| !frame.acknowledged).filter(|frame| frame.n == ticket) else {
            return Err(Trouble::AppendOrder { ticket });
        };
        frame.acknowledged = true;
        if self.planted == Some(Planted::TrustEveryAck) {
            tail.next_offset = offset;
        }
        if offset == tail.next_offset && frame.n == tail.n {
            tail.take_own(frame.head);
        } else {
            self.read_between(log, tail, offset)?;
        }
        if tail.n <= ticket { Err(Trouble::Hole { n: ticket }) } else { Ok(()) }
    }

    /// The planted bug: what failed before this ticket is taken for durable.
    fn pass_over_failures(&mut self, tail: &mut Sequence, ticket: u64) {
        for frame in self.flight.iter_mut().filter(|frame| frame.n < ticket && !frame.acknowledged) {
            frame.acknowledged = true;
            (tail.n, tail.head) = (frame.n + 1, frame.head);
        }
    }

    /// With nothing in flight an owner would not notice a claim: it looks now and then. A log that
    /// cannot be read for a while is not looked at: what the owner appends then still has to count.
    ///
    /// # Errors
    /// The term is over, or the log fails for good.
    pub fn look<L: ShardLog>(&mut self, log: &mut L, tail: &mut Sequence, now: Duration, every: Duration) -> Result<(), Trouble> {
        if !self.flight.is_empty() {
            self.sure = now;
            return Ok(());
        }
        if now.saturating_sub(self.looked) < every || self.planted == Some(Planted::NeverTail) {
            return Ok(());
        }
        self.looked = now;
        match self.read_some(log, tail) {
            Ok(_) => self.sure = now,
            Err(trouble @ Trouble::Log(_)) if trouble.passes() => tracing::debug!(%trouble, "the ledger's end cannot be looked at"),
            Err(trouble) => return Err(trouble),
        }
        Ok(())
    }

    /// How long it has not known whether the term goes on.
    #[must_use]
    pub const fn unsure_for(&self, now: Duration) -> Duration {
        now.saturating_sub(self.sure)
    }

    /// Whether the record is in a frame that is not committed.
    #[must_use]
    pub fn holds(&self, source: Source) -> bool {
        self.flight.iter().any(|frame| frame.sources.contains(&source))
    }

    /// Whether this term has committed anything but its claim.
    #[must_use]
    pub const fn has_committed(&self) -> bool {
        self.next_n > self.first_n
    }

    /// The frames that are committed by now.
    pub fn take_committed(&mut self, tail: &Sequence) -> Vec<InFlight> {
        let counted = self.flight.iter().take_while(|frame| frame.n < tail.n).count();
        let committed: Vec<InFlight> = self.flight.drain(..counted).collect();
        if let Some(last) = committed.last() {
            self.committed_seq = last.last_seq;
        }
        committed
    }

    fn read_between<L: ShardLog>(&self, log: &mut L, tail: &mut Sequence, offset: u64) -> Result<(), Trouble> {
        while tail.next_offset <= offset {
            let before = tail.next_offset;
            if self.read_some(log, tail)? == 0 {
                // Acknowledged, and not to be read yet: nothing is known about the term, so nothing is decided.
                return Err(
                    crate::log::LogError::Busy { detail: format!("ledger offset {before} is acknowledged and cannot be read") }.into()
                );
            }
        }
        Ok(())
    }

    fn read_some<L: ShardLog>(&self, log: &mut L, tail: &mut Sequence) -> Result<usize, Trouble> {
        let entries = log.read(ShardTopic::Ledger, tail.next_offset, ENTRIES_PER_READ)?;
        for stored in &entries {
            let offset = stored.offset;
            let entry = frame::decode(&stored.payload).map_err(|error| FoldError::Entry { offset, error })?;
            tail.judge(offset, &entry, &stored.payload).map_err(FoldError::Sequence)?;
            if tail.term != self.term {
                return Err(Trouble::Deposed { term: tail.term });
            }
        }
        Ok(entries.len())
    }
}
