//! The engine from outside: questions to the shard's thread, and what it says of itself.
//!
//! Invariant: whatever is answered is committed. Deliberately absent: any way to change the state;
//! that is a record's business.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use crate::domain::{InputTopic, Millis, Source};
use crate::gate::Gate;
use crate::log::{OutputRecord, Waker};

/// How many answers are kept for those who ask late: between an append and its acknowledgement, so for milliseconds. What is
/// older is in `gate.decisions`.
const ANSWERS_KEPT: usize = 2_048;

/// What became of one input record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its ledger sequence.
    pub seq: u64,
    /// Its outputs, in order: of an intent the decision among them.
    pub outputs: Arc<[OutputRecord]>,
}

/// What a shard is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// It folds the ledger and decides nothing.
    #[default]
    Following,
    /// It has claimed, and reads up to its claim.
    Claiming,
    /// It compares the output topics with the ledger and publishes what is absent.
    Repairing,
    /// It decides.
    Owning,
    /// It takes no more inputs and finishes what is under way.
    Draining,
    /// The log failed or another owner came: it begins again after a while.
    Waiting {
        /// A stable name of the reason.
        code: &'static str,
        /// The reason.
        why: String,
    },
    /// It cannot go on until someone looks.
    Refusing {
        /// A stable name of the reason.
        code: &'static str,
        /// The reason.
        why: String,
    },
    /// It has stopped.
    Stopped,
}

/// What a shard says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The shard.
    pub shard: u32,
    /// What it is doing.
    pub phase: Phase,
    /// The term of the last claim that counts.
    pub term: u64,
    /// The records applied.
    pub seq: u64,
    /// The records whose frame is committed.
    pub committed_seq: u64,
    /// The time of the last record.
    pub at: Millis,
    /// Frames that are not acknowledged.
    pub frames_in_flight: usize,
    /// Outputs that are not acknowledged.
    pub outputs_in_flight: usize,
    /// How long the last frame took to be acknowledged, in ms.
    pub last_commit_ms: u64,
    /// How long the oldest frame in flight has waited, in ms. 0 when there is none.
    pub waiting_ms: u64,
    /// How long an owner with nothing in flight could not see whether its term goes on, in ms. 0 within
    /// `Options::look_patience`.
    pub blind_ms: u64,
    /// The next ledger offset to read.
    pub ledger_next: u64,
    /// The chain's hash.
    pub head: [u8; 32],
    /// Ledger entries that were read and did not count.
    pub void_entries: u64,
    /// Ledger entries that are there, as far as the log has seen lately, and not folded.
    pub ledger_lag: u64,
    /// Inputs that were fetched and are not applied.
    pub inputs_waiting: usize,
    /// How long outputs have waited without any acknowledgement, in ms. 0 when none waits.
    pub output_waiting_ms: u64,
    /// The records behind each input partition's end that are not applied.
    pub lag: Vec<(InputTopic, u32, u64)>,
    /// The sequence of the last snapshot that was offered.
    pub snapshot_seq: u64,
}

impl Status {
    /// Whether it decides, and the log keeps up: nothing in flight for longer than `patience`, and the
    /// ledger can be read.
    #[must_use]
    pub fn is_ready(&self, patience: Duration) -> bool {
        self.phase == Phase::Owning && self.blind_ms == 0 && u128::from(self.waiting_ms) < patience.as_millis().max(1)
    }
}

/// Sends what a query found, once everything that it saw is committed.
pub type Deliver = Box<dyn FnOnce() + Send>;
/// A question to the gate.
pub type Query = Box<dyn FnOnce(&Gate) -> Deliver + Send>;

/// What the outside asks of the shard's thread.
pub(super) enum Request {
    Answer { source: Source, reply: oneshot::Sender<Answer> },
    Query(Query),
    Own(bool),
    Stop,
}

/// A shard's engine, from any thread.
#[derive(Clone)]
pub struct Handle {
    requests: Sender<Request>,
    status: watch::Receiver<Status>,
    wake: Waker,
}

impl Handle {
    pub(super) fn new(wake: Waker, status: watch::Receiver<Status>) -> (Self, Receiver<Request>) {
        let (requests, inbox) = channel();
        (Self { requests, status, wake }, inbox)
    }

    /// What becomes of the intent at this place of `orders.intents`, when it is committed: at once if
    /// it was lately. The receiver fails when the shard stops, loses its term, or has forgotten it:
    /// then the decision is in `gate.decisions`, or will be.
    #[must_use]
    pub fn answer(&self, source: Source) -> oneshot::Receiver<Answer> {
        let (reply, answer) = oneshot::channel();
        self.send(Request::Answer { source, reply });
        answer
    }

    /// Asks the gate something between two records, and answers when what it saw is committed.
    #[must_use]
    pub fn query<R: Send + 'static>(&self, question: impl FnOnce(&Gate) -> R + Send + 'static) -> oneshot::Receiver<R> {
        let (reply, answer) = oneshot::channel();
        self.send(Request::Query(Box::new(move |gate| {
            let found = question(gate);
            Box::new(move || drop(reply.send(found)))
        })));
        answer
    }

    /// Whether this instance should own the shard, as far as group membership says. An owner that should
    /// not any more finishes what is under way, and then follows with all that it has read.
    pub fn own(&self, wanted: bool) {
        self.send(Request::Own(wanted));
    }

    /// Asks the shard to finish what is under way, snapshot and stop.
    pub fn stop(&self) {
        self.send(Request::Stop);
    }

    /// What the shard says of itself at the moment.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// Follows what the shard says of itself.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// A request that nobody takes any more answers itself: its reply channel is dropped.
    fn send(&self, request: Request) {
        if self.requests.send(request).is_ok() {
            (self.wake)();
        }
    }
}

/// The requests that wait for something to be committed.
#[derive(Default)]
pub(super) struct Desk {
    wanted: HashMap<Source, Vec<oneshot::Sender<Answer>>>,
    kept: HashMap<Source, Answer>,
    order: VecDeque<Source>,
    /// (seq that must be committed, what to do then).
    deliveries: VecDeque<(u64, Deliver)>,
}

impl Desk {
    pub fn ask(&mut self, source: Source, reply: oneshot::Sender<Answer>, already_applied: bool) {
        match self.kept.get(&source) {
            Some(answer) => drop(reply.send(answer.clone())),
            // Dropping the reply tells that the answer is not kept.
            None if already_applied => {}
            None => self.wanted.entry(source).or_default().push(reply),
        }
    }

    pub fn deliver_at(&mut self, seq: u64, deliver: Deliver) {
        self.deliveries.push_back((seq, deliver));
    }

    fn answered(&mut self, source: Source, answer: Answer) {
        for reply in self.wanted.remove(&source).unwrap_or_default() {
            let _ = reply.send(answer.clone());
        }
        if self.order.len() >= ANSWERS_KEPT
            && let Some(oldest) = self.order.pop_front()
        {
            self.kept.remove(&oldest);
        }
        self.order.push_back(source);
        self.kept.insert(source, answer);
    }

    /// A frame is committed: its intents are answered.
    pub fn answer_all(&mut self, sources: &[Source], last_seq: u64, outputs: &[OutputRecord]) {
        let first_seq = last_seq + 1 - sources.len() as u64;
        for (seq, source) in (first_seq..).zip(sources).filter(|(_, source)| source.topic == InputTopic::Intents) {
            let from = outputs.partition_point(|output| output.tag.seq < seq);
            let to = outputs.partition_point(|output| output.tag.seq <= seq);
            self.answered(*source, Answer { seq, outputs: outputs[from..to].into() });
        }
    }

    pub fn committed(&mut self, seq: u64) {
        while self.deliveries.front().is_some_and(|(at, _)| *at <= seq) {
            if let Some((_, deliver)) = self.deliveries.pop_front() {
                deliver();
            }
        }
    }

    /// The term is over: whoever waits for something uncommitted is told so, by a closed channel. What was answered is in
    /// `gate.decisions`; kept here, it would take memory for every shard that was ever ours.
    pub fn give_up(&mut self) {
        *self = Self::default();
    }

    /// Forgets requesters who do not wait any more.
    pub fn sweep(&mut self) {
        self.wanted.retain(|_, replies| {
            replies.retain(|reply| !reply.is_closed());
            !replies.is_empty()
        });
    }
}

/// All requests that are there.
pub(super) fn drain(inbox: &Receiver<Request>) -> Vec<Request> {
    let mut requests = Vec::new();
    loop {
        match inbox.try_recv() {
            Ok(request) => requests.push(request),
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => return requests,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_kept_up_to_a_bound_and_not_beyond_their_term() {
        let mut desk = Desk::default();
        let source = |offset| Source { topic: InputTopic::Intents, partition: 0, offset };
        for seq in 1..=ANSWERS_KEPT as u64 + 10 {
            desk.answer_all(&[source(seq)], seq, &[]);
        }
        assert_eq!((desk.kept.len(), desk.order.len()), (ANSWERS_KEPT, ANSWERS_KEPT));
        let (reply, mut late) = oneshot::channel();
        desk.ask(source(ANSWERS_KEPT as u64), reply, true);
        assert_eq!(late.try_recv().map(|answer| answer.seq), Ok(ANSWERS_KEPT as u64));
        desk.give_up();
        assert_eq!((desk.kept.capacity(), desk.order.capacity()), (0, 0), "what is over takes memory");
        let (reply, mut late) = oneshot::channel();
        desk.ask(source(ANSWERS_KEPT as u64), reply, true);
        assert!(late.try_recv().is_err());
    }
}
