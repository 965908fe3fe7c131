//! The shard: one writer, one loop. [`Shard::turn`] is the way of one order from top to bottom.
//!
//! Invariant: nothing is decided before the claim is read, nothing leaves before its frame counts,
//! and whatever goes wrong ends the term and begins again from the ledger. Deliberately absent:
//! threads, clocks and logs of its own; it is stepped.

use std::collections::VecDeque;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::log::{InputRecord, Layout, LogEvent, OutputRecord, ShardLog, ShardTopic};
use crate::wire::frame::{self, Frame, FrameInput};

use super::clock::Clock;
use super::fold::Decoded;
use super::handle::{Desk, Handle, Phase, Request, Status};
use super::observer::{Committed, Observer};
use super::options::{Options, Planted};
use super::owner::{InFlight, Owner};
use super::recovery::{self, Repair};
use super::replica::Replica;
use super::snapshots::{Offer, SnapshotStore};
use super::trouble::Trouble;

/// Records taken at once: what they have in bytes is known only then.
const INPUTS_PER_POLL: usize = 1_024;

/// The engine of one shard.
pub struct Shard<L: ShardLog> {
    pub(super) log: L,
    pub(super) layout: Layout,
    pub(super) clock: Box<dyn Clock>,
    pub(super) store: Box<dyn SnapshotStore>,
    pub(super) observer: Box<dyn Observer>,
    pub(super) options: Options,
    pub(super) requests: Receiver<Request>,
    pub(super) status: watch::Sender<Status>,
    pub(super) desk: Desk,
    pub(super) replica: Option<Replica>,
    pub(super) stage: Stage,
    pub(super) inbox: VecDeque<InputRecord>,
    pub(super) inbox_bytes: usize,
    pub(super) acknowledgements: VecDeque<LogEvent>,
    pub(super) snapshot: SnapshotClock,
    /// A follower's, until all its outputs are known to be published.
    pub(super) held: Option<Offer>,
    pub(super) draining: Option<Draining>,
    pub(super) trouble: Option<Phase>,
    pub(super) reported: Duration,
    pub(super) wanted: bool,
    /// Where the ledger ended when the shard was wanted here: from there on it is claimed.
    pub(super) caught_up_at: Option<u64>,
    pub(super) last_commit: Duration,
    /// When an output was acknowledged, or none waited.
    pub(super) last_published: Duration,
}

/// What the shard is at.
pub(super) enum Stage {
    Following,
    Claiming { claim_at: Option<u64> },
    Repairing(Box<Repair>),
    Owning(Box<Owner>),
    Waiting { until: Duration },
    Refusing,
    Stopped,
}

/// An end of deciding that is under way.
#[derive(Clone, Copy)]
pub(super) struct Draining {
    pub(super) deadline: Duration,
    pub(super) closed: bool,
    pub(super) then: Then,
}

/// What comes after it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    /// Another instance decides, and this one follows.
    Follow,
    Stop,
}

/// When the next snapshot is due.
pub(super) struct SnapshotClock {
    pub(super) at: Duration,
    /// The records behind this one count towards the next. A new owner begins to count, so that its
    /// first decisions do not wait for a snapshot.
    pub(super) from: u64,
    /// The sequence of the last one.
    pub(super) seq: u64,
    pub(super) whole: bool,
}

impl<L: ShardLog> Shard<L> {
    /// A shard that has done nothing yet, and its handle.
    pub fn new(
        log: L,
        clock: Box<dyn Clock>,
        store: Box<dyn SnapshotStore>,
        observer: Box<dyn Observer>,
        options: Options,
    ) -> (Self, Handle) {
        let layout = log.layout();
        let (status, watched) = watch::channel(Status { shard: layout.shard, ..Status::default() });
        let (handle, requests) = Handle::new(log.waker(), watched);
        let snapshot = SnapshotClock { at: clock.elapsed(), from: 0, seq: 0, whole: true };
        let wanted = options.own;
        let shard = Self {
            log,
            layout,
            clock,
            store,
            observer,
            options,
            requests,
            status,
            desk: Desk::default(),
            replica: None,
            stage: Stage::Following,
            inbox: VecDeque::new(),
            inbox_bytes: 0,
            acknowledgements: VecDeque::new(),
            snapshot,
            held: None,
            draining: None,
            trouble: None,
            reported: Duration::ZERO,
            wanted,
            caught_up_at: None,
            last_commit: Duration::ZERO,
            last_published: Duration::ZERO,
        };
        (shard, handle)
    }

    /// Does the next piece of work, waiting at most `wait` where there is none. False once stopped.
    pub fn step(&mut self, wait: Duration) -> bool {
        self.serve_requests();
        let done = match &self.stage {
            Stage::Following => self.follow(wait),
            Stage::Claiming { .. } => self.await_claim(wait),
            Stage::Repairing(_) => self.repair(wait),
            Stage::Owning(_) => self.turn(wait),
            Stage::Waiting { .. } => self.wait_to_retry(wait),
            Stage::Refusing => {
                self.refuse(wait);
                Ok(())
            }
            Stage::Stopped => Ok(()),
        };
        if let Err(trouble) = done {
            self.begin_again(&trouble);
        }
        self.report();
        !matches!(self.stage, Stage::Stopped)
    }

    // The way of one order.

    /// One turn of an owner: records in, decisions out.
    fn turn(&mut self, wait: Duration) -> Result<(), Trouble> {
        self.poll(wait)?;
        let decoded = self.decode();
        let (applied, outputs) = self.apply(decoded);
        self.append(applied, outputs)?;
        let committed = self.settle()?;
        self.publish(committed)?;
        self.snapshot_or_end()
    }

    /// 1. Takes what the log has: records into the inbox, acknowledgements beside it.
    fn poll(&mut self, wait: Duration) -> Result<(), Trouble> {
        let full = self.is_pausing() || self.inbox_bytes >= self.options.inbox_bytes_max;
        let room = if full { 0 } else { self.options.inbox_records_max.saturating_sub(self.inbox.len()).min(INPUTS_PER_POLL) };
        let busy = self.may_sequence() && !self.inbox.is_empty();
        let mut events = Vec::new();
        self.log.poll(&mut events, room, if busy { Duration::ZERO } else { wait })?;
        for event in events {
            match event {
                LogEvent::Input(record) => {
                    self.inbox_bytes += record.payload.len();
                    self.inbox.push_back(record);
                }
                LogEvent::Appended { .. } | LogEvent::Published { .. } => self.acknowledgements.push_back(event),
                LogEvent::Failed { .. } if self.options.planted == Some(Planted::GoOnAfterFailure) => {}
                LogEvent::Failed { error, .. } => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// 2. Decodes a batch of the inbox, as much as one frame holds.
    fn decode(&mut self) -> Vec<Decoded> {
        let mut batch = Vec::new();
        if !self.may_sequence() {
            return batch;
        }
        let (router, mut bytes) = (self.router(), 0);
        while let Some(record) = self.inbox.front() {
            let size = record.payload.len().min(frame::PAYLOAD_BYTES_KEPT)
                + record.key.as_ref().map_or(0, Vec::len).min(frame::KEY_BYTES_KEPT)
                + 64;
            if batch.len() >= self.options.frame_records_max || (bytes + size > self.options.frame_bytes_max && !batch.is_empty()) {
                break;
            }
            bytes += size;
            if let Some(record) = self.inbox.pop_front() {
                self.inbox_bytes = self.inbox_bytes.saturating_sub(record.payload.len());
                batch.push(Decoded::live(record, &router));
            }
        }
        batch
    }

    /// 3. to 5. Applies the batch in order: `Gate::apply` judges and reserves.
    fn apply(&mut self, batch: Vec<Decoded>) -> (Vec<FrameInput>, Vec<OutputRecord>) {
        let mut outputs = Vec::new();
        let Some(replica) = self.replica.as_mut().filter(|_| !batch.is_empty()) else { return (Vec::new(), outputs) };
        let fold = &mut replica.fold;
        let clock = self.clock.wall_ms();
        let received = if self.options.planted == Some(Planted::ClockGoesBack) { clock } else { clock.max(fold.received) };
        let mut applied = Vec::with_capacity(batch.len());
        for decoded in batch {
            let source = decoded.record.source;
            let known = fold.next_of(source.topic, source.partition);
            if source.offset < known && self.options.planted != Some(Planted::SeekToBeginning) {
                tracing::warn!(?source, known, "the log delivered a record again");
                continue;
            }
            let begun = Instant::now();
            applied.push(fold.apply(decoded, received, &mut outputs));
            let nanos = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
            self.observer.applied(source, fold.gate().at(), fold.effects(), nanos);
        }
        fold.end_frame(&applied, received);
        if self.options.planted == Some(Planted::ClockGoesBack) {
            fold.received = received;
        }
        (applied, outputs)
    }

    /// 6. Appends the frame. Nothing of it leaves yet.
    fn append(&mut self, inputs: Vec<FrameInput>, outputs: Vec<OutputRecord>) -> Result<(), Trouble> {
        let hash_due = self.state_hash_due();
        let (Some(replica), Stage::Owning(owner)) = (self.replica.as_mut().filter(|_| !inputs.is_empty()), &mut self.stage) else {
            return Ok(());
        };
        let fold = &replica.fold;
        let frame = Frame {
            term: 0,
            n: 0,
            prev_hash: [0; 32],
            first_seq: fold.gate().seq() + 1 - inputs.len() as u64,
            received: fold.received,
            inputs,
            input_marks: fold.input_marks(),
            output_marks: Default::default(),
            state_hash: hash_due.then(|| fold.state_hash()),
        };
        if self.options.planted == Some(Planted::PublishBeforeAck) {
            for output in outputs.iter().cloned() {
                owner.publisher.publish(&mut self.log, output)?;
            }
        }
        owner.append(&mut self.log, frame, outputs, self.clock.elapsed())
    }

    /// 6., later. What the acknowledgements prove: the frames that count.
    fn settle(&mut self) -> Result<Vec<InFlight>, Trouble> {
        let (Some(replica), Stage::Owning(owner)) = (self.replica.as_mut(), &mut self.stage) else { return Ok(Vec::new()) };
        while let Some(event) = self.acknowledgements.pop_front() {
            match event {
                LogEvent::Appended { ticket, offset } => owner.acknowledged(&mut self.log, &mut replica.sequence, ticket, offset)?,
                LogEvent::Published { ticket, topic, offset } => {
                    owner.publisher.acknowledged(ticket, topic, offset)?;
                    self.observer.published(false);
                    self.last_published = self.clock.elapsed();
                }
                LogEvent::Input(_) | LogEvent::Failed { .. } => {}
            }
        }
        owner.look(&mut self.log, &mut replica.sequence, self.clock.elapsed(), self.options.tail_every)?;
        Ok(owner.take_committed(&replica.sequence))
    }

    /// 7. Hands over what the committed frames caused, and answers who waits for it.
    fn publish(&mut self, committed: Vec<InFlight>) -> Result<(), Trouble> {
        let now = self.clock.elapsed();
        let Stage::Owning(owner) = &mut self.stage else { return Ok(()) };
        let in_flight = owner.flight.len();
        for frame in committed {
            self.last_commit = now.saturating_sub(frame.appended);
            let commit_us = u64::try_from(self.last_commit.as_micros()).unwrap_or(u64::MAX);
            let (records, outputs) = (frame.sources.len(), frame.outputs.len());
            self.observer.committed(Committed { records, bytes: frame.bytes, outputs, commit_us, in_flight, seq: frame.last_seq });
            self.desk.answer_all(&frame.sources, frame.last_seq, &frame.outputs);
            if self.options.planted != Some(Planted::PublishBeforeAck) {
                for output in frame.outputs {
                    owner.publisher.publish(&mut self.log, output)?;
                }
            }
            owner.publisher.handed_over(frame.last_seq);
            self.desk.committed(frame.last_seq);
        }
        Ok(())
    }

    // Becoming the owner.

    /// Folds the ledger; claims at its end, if it should.
    fn follow(&mut self, wait: Duration) -> Result<(), Trouble> {
        let replica = match &mut self.replica {
            Some(replica) => replica,
            None => {
                // What changed since the stored snapshots was forgotten with the old replica.
                let opened = open_replica(&mut self.log, self.store.as_mut(), self.options.planted)?;
                let seq = opened.fold.gate().seq();
                self.snapshot = SnapshotClock { whole: true, from: seq, seq, ..self.snapshot };
                self.held = None;
                self.replica.insert(opened)
            }
        };
        let read = replica.read_on(&mut self.log)?;
        if self.wanted {
            // An owner that still writes would keep us from the end for ever: what it had written when we were called is enough.
            let caught_up_at = match self.caught_up_at {
                Some(at) => at,
                None => *self.caught_up_at.insert(self.log.end(ShardTopic::Ledger)?),
            };
            if read > 0 && replica.sequence.next_offset < caught_up_at {
                return Ok(());
            }
            (self.trouble, self.caught_up_at) = (None, None);
            let mut basis = replica.sequence.clone();
            if self.options.planted == Some(Planted::ClaimSameTerm) && basis.term > 0 {
                basis.term -= 1;
            }
            let claim = frame::encode(&self.options.claimant.claim(&basis, self.clock.wall_ms()))?;
            self.log.append(u64::MAX, claim)?;
            self.stage = Stage::Claiming { claim_at: None };
            self.drop_held_snapshot();
            return Ok(());
        }
        self.caught_up_at = None;
        self.offer_snapshot_when_published();
        if read > 0 {
            return Ok(());
        }
        self.trouble = None;
        self.idle(wait)
    }

    /// Waits until the claim is durable, and folds everything up to it.
    fn await_claim(&mut self, wait: Duration) -> Result<(), Trouble> {
        let mut events = Vec::new();
        let (Stage::Claiming { claim_at }, Some(replica)) = (&mut self.stage, &mut self.replica) else { return Ok(()) };
        if claim_at.is_none() {
            self.log.poll(&mut events, 0, wait)?;
            for event in events {
                match event {
                    LogEvent::Appended { offset, .. } => *claim_at = Some(offset),
                    LogEvent::Failed { error, .. } => return Err(error.into()),
                    LogEvent::Input(_) | LogEvent::Published { .. } => {}
                }
            }
        }
        let Some(offset) = *claim_at else { return Ok(()) };
        let careless = matches!(self.options.planted, Some(Planted::DecideBeforeClaimIsRead));
        if !careless && replica.sequence.next_offset <= offset {
            replica.read_on(&mut self.log)?;
            return Ok(());
        }
        let same_term = self.options.planted == Some(Planted::ClaimSameTerm);
        if !careless && !same_term && replica.sequence.claim_offset != Some(offset) {
            return Err(Trouble::Deposed { term: replica.sequence.term });
        }
        self.stage = Stage::Repairing(Box::new(Repair::new(replica)));
        Ok(())
    }

    /// Publishes what the ledger holds and the output topics lack, then takes up the inputs.
    fn repair(&mut self, wait: Duration) -> Result<(), Trouble> {
        let (Stage::Repairing(repair), Some(replica)) = (&mut self.stage, &mut self.replica) else { return Ok(()) };
        match repair.advance(&mut self.log, replica, self.options.planted) {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(trouble) => return Err(recovery::unless_deposed(&mut self.log, replica, trouble)?),
        }
        if !repair.is_done() {
            let mut events = Vec::new();
            self.log.poll(&mut events, 0, wait)?;
            for event in events {
                match event {
                    LogEvent::Published { ticket, topic, offset } => {
                        repair.publisher.acknowledged(ticket, topic, offset)?;
                        self.observer.published(true);
                    }
                    LogEvent::Failed { error, .. } => return Err(error.into()),
                    LogEvent::Input(_) | LogEvent::Appended { .. } => {}
                }
            }
            return Ok(());
        }
        recovery::check_inputs(&mut self.log, &replica.fold.input_marks())?;
        let mut positions = replica.fold.positions();
        match self.options.planted {
            Some(Planted::SeekTooFar) => positions.iter_mut().for_each(|position| position.next += 1),
            Some(Planted::SeekToBeginning) => positions.clear(),
            Some(_) | None => {}
        }
        self.log.seek(&positions)?;
        self.become_owner();
        Ok(())
    }

    fn become_owner(&mut self) {
        let Stage::Repairing(repair) = std::mem::replace(&mut self.stage, Stage::Following) else { return };
        let Some(replica) = &mut self.replica else { return };
        replica.unpublished.clear();
        if self.options.planted == Some(Planted::ForgetTouched) {
            replica.fold.take_touched();
        }
        let (seq, term, repaired) = (replica.fold.gate().seq(), replica.sequence.term, repair.repaired);
        let now = self.clock.elapsed();
        let owner = Owner::new(&replica.sequence, repair.into_publisher(seq), seq, now, self.options.planted);
        tracing::info!(shard = self.layout.shard, term, seq, repaired, "the shard is ours");
        self.inbox.clear();
        self.inbox_bytes = 0;
        self.acknowledgements.clear();
        (self.snapshot.at, self.snapshot.from) = (now, seq);
        self.trouble = None;
        self.stage = Stage::Owning(Box::new(owner));
    }
}

/// A replica to begin with.
fn open_replica<L: ShardLog>(log: &mut L, store: &mut dyn SnapshotStore, planted: Option<Planted>) -> Result<Replica, Trouble> {
    if planted == Some(Planted::TrustSnapshots)
        && let Some(loaded) = store.load()
    {
        return Ok(Replica::restore(loaded));
    }
    Ok(Replica::open(log, store)?)
}
