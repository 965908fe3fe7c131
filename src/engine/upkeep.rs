//! The shard's upkeep: requests, snapshots, stopping, beginning again, and what it says of itself.
//!
//! Invariant: none of it decides anything, and a snapshot is taken only with nothing in flight.

use std::collections::VecDeque;
use std::time::Duration;

use crate::log::{OutputTopic, ShardLog, ShardTopic};
use crate::wire::frame::Frame;

use super::handle::{self, Phase, Request, Status};
use super::options::Planted;
use super::replica::FoldError;
use super::routing::Router;
use super::shard::{Draining, Shard, SnapshotClock, Stage, Then};
use super::snapshots::Offer;
use super::trouble::Trouble;

/// How often the status is brought up to date while its phase stays.
const REPORT_EVERY: Duration = Duration::from_millis(50);
/// How long a shard that cannot work sleeps before it looks at its requests again.
const NAP_MAX: Duration = Duration::from_millis(50);

impl<L: ShardLog> Shard<L> {
    /// Whether another frame may be made now.
    pub(super) fn may_sequence(&self) -> bool {
        let Stage::Owning(owner) = &self.stage else { return false };
        let room = owner.flight.len() < self.options.frames_in_flight_max && owner.publisher.waiting() < self.options.outputs_in_flight_max;
        room && !self.is_pausing()
    }

    /// Whether nothing more is taken in, so that what is under way comes to an end.
    pub(super) fn is_pausing(&self) -> bool {
        self.draining.is_some() || self.snapshot_due()
    }

    pub(super) fn snapshot_due(&self) -> bool {
        let Some(replica) = &self.replica else { return false };
        let since = replica.fold.gate().seq().saturating_sub(self.snapshot.from);
        let late = since > 0 && self.clock.elapsed().saturating_sub(self.snapshot.at) >= self.options.snapshot_every;
        (late || since >= self.options.snapshot_records) && self.store.ready()
    }

    /// Whether the next frame carries a hash of the state.
    pub(super) fn state_hash_due(&self) -> bool {
        let Some(replica) = &self.replica else { return false };
        let every = self.options.state_hash_frames;
        let due = every > 0 && replica.sequence.n.is_multiple_of(every);
        due && replica.fold.gate().accounts().len() <= self.options.state_hash_accounts_max
    }

    /// Where this shard stands among the others.
    pub(super) const fn router(&self) -> Router {
        Router { partitioner: self.options.partitioner, shard: self.layout.shard, shards: self.layout.shards }
    }

    /// With nothing in flight: a snapshot when it is due, the end of deciding when that is asked for.
    pub(super) fn snapshot_or_end(&mut self) -> Result<(), Trouble> {
        let Stage::Owning(owner) = &self.stage else { return Ok(()) };
        let idle = owner.flight.is_empty() && owner.publisher.waiting() == 0;
        if let Some(draining) = self.draining {
            let ahead = draining.then == Then::Follow && self.options.planted == Some(Planted::FollowAhead);
            return if idle || ahead { self.close(draining) } else { self.give_up_late(draining) };
        }
        if (idle || self.options.planted == Some(Planted::SnapshotInFlight)) && self.snapshot_due() {
            self.pass_over_others();
            self.offer_snapshot();
        }
        Ok(())
    }

    /// Dead letters are of all shards: those of the others need not be read at the next takeover. A log that does not say is asked again.
    fn pass_over_others(&mut self) {
        let Stage::Owning(owner) = &mut self.stage else { return };
        if let Ok(end) = self.log.end(ShardTopic::Output(OutputTopic::DeadLetter)) {
            owner.publisher.pass_over(OutputTopic::DeadLetter, end);
        }
    }

    pub(super) fn offer_snapshot(&mut self) {
        if let Some(offer) = self.snapshot_now() {
            self.store.offer(offer);
        }
    }

    /// While an owner writes, its newest outputs are never known to be published: a follower's snapshot is kept until the ledger says that
    /// all of it are.
    pub(super) fn offer_snapshot_when_published(&mut self) {
        if self.held.is_none() && self.snapshot_due() {
            self.held = self.snapshot_now();
        }
        let Some(replica) = &self.replica else { return };
        let is_published = |offer: &mut Offer| replica.unpublished.front().is_none_or(|output| output.tag.seq > offer.standing.seq);
        if let Some(mut offer) = self.held.take_if(is_published) {
            offer.standing.outputs = replica.fold.output_marks;
            self.store.offer(offer);
        }
    }

    /// Whoever ends following does not wait for that: what has changed since the last one that was stored is not known any more.
    pub(super) fn drop_held_snapshot(&mut self) {
        if self.held.take().is_some() {
            self.snapshot.whole = true;
        }
    }

    fn snapshot_now(&mut self) -> Option<Offer> {
        let replica = self.replica.as_mut()?;
        let mut standing = replica.standing();
        if let Stage::Owning(owner) = &self.stage {
            standing.outputs = owner.publisher.marks();
        }
        let whole = self.snapshot.whole || self.store.wants_whole();
        let touched = replica.fold.take_touched();
        let gate = replica.fold.gate();
        let accounts = gate.accounts();
        let places = if whole { (0..u32::try_from(accounts.len()).unwrap_or(u32::MAX)).collect() } else { touched };
        let touched = places.into_iter().filter_map(|place| Some((place, accounts.get(place as usize)?.clone()))).collect();
        let seq = standing.seq;
        let offer = Offer { standing, shared: gate.shared().clone(), accounts: accounts.len(), touched, whole };
        self.snapshot = SnapshotClock { at: self.clock.elapsed(), from: seq, seq, whole: false };
        self.observer.snapshot_offered(seq);
        Some(offer)
    }

    /// A closing frame with the state's hash, a snapshot, and the end of deciding.
    fn close(&mut self, draining: Draining) -> Result<(), Trouble> {
        let now = self.clock.elapsed();
        let (Some(replica), Stage::Owning(owner)) = (self.replica.as_mut(), &mut self.stage) else { return Ok(()) };
        let fold = &replica.fold;
        if !draining.closed && owner.has_committed() {
            self.draining = Some(Draining { closed: true, ..draining });
            let few = fold.gate().accounts().len() / 100 <= self.options.state_hash_accounts_max;
            let frame = Frame {
                term: 0,
                n: 0,
                prev_hash: [0; 32],
                first_seq: fold.gate().seq() + 1,
                received: fold.received,
                inputs: Vec::new(),
                input_marks: fold.input_marks(),
                output_marks: Default::default(),
                state_hash: few.then(|| fold.state_hash()),
            };
            return owner.append(&mut self.log, frame, Vec::new(), now);
        }
        let changed = self.snapshot.seq < fold.gate().seq() || draining.closed;
        match draining.then {
            Then::Stop => self.stop_closed(changed),
            Then::Follow => self.follow_on(changed),
        }
        Ok(())
    }

    fn stop_closed(&mut self, changed: bool) {
        let written = self.store.finish(self.options.drain_max);
        if self.store.ready() && changed {
            self.offer_snapshot();
            if !self.store.finish(self.options.drain_max) {
                tracing::warn!("the last snapshot was not written; the next start folds more of the ledger");
            }
        } else if !written {
            tracing::warn!("the snapshot under way was not written; the next start folds more of the ledger");
        }
        self.stage = Stage::Stopped;
    }

    /// Everything is committed and published: what was read goes on being true, for whoever claims next.
    fn follow_on(&mut self, changed: bool) {
        // One that is still being written is not waited for: what changed is kept for the next.
        if self.store.ready() && changed {
            self.offer_snapshot();
        }
        if let (Some(replica), Stage::Owning(owner)) = (self.replica.as_mut(), &self.stage) {
            replica.fold.output_marks = owner.publisher.marks();
            tracing::info!(shard = self.layout.shard, term = owner.term, seq = owner.committed_seq, "the shard is handed over");
        }
        self.forget_term();
        self.draining = None;
        self.stage = Stage::Following;
    }

    /// What belongs to a term and to no reading of the ledger.
    fn forget_term(&mut self) {
        self.log.abandon();
        self.desk.give_up();
        // With their room: after a backlog it is more than a follower ever needs.
        self.inbox = VecDeque::new();
        self.inbox_bytes = 0;
        self.acknowledgements = VecDeque::new();
    }

    fn give_up_late(&mut self, draining: Draining) -> Result<(), Trouble> {
        if self.clock.elapsed() < draining.deadline {
            return Ok(());
        }
        match draining.then {
            Then::Stop => {
                tracing::error!("stopped with frames unacknowledged: the log did not answer in time");
                self.stage = Stage::Stopped;
            }
            Then::Follow => {
                tracing::error!("handed over with frames unacknowledged: the log did not answer in time; it reads anew what landed");
                self.forget_term();
                self.replica = None;
                self.draining = None;
                self.stage = Stage::Following;
            }
        }
        Ok(())
    }

    /// The term is over, or never began. What was not committed is forgotten.
    pub(super) fn begin_again(&mut self, trouble: &Trouble) {
        let phase = trouble.phase();
        if let Trouble::Fold(FoldError::Drift { .. }) = trouble {
            self.observer.drifted(&trouble.to_string());
        }
        if let Trouble::Deposed { .. } = trouble {
            self.wanted = self.wanted && self.options.reclaim;
        }
        // An owner's fold is ahead of the ledger; one that only read is where it has read.
        let reads_on = !matches!(self.stage, Stage::Owning(_)) && trouble.passes() && trouble.leaves_the_replica();
        if self.draining.take().is_some_and(|draining| draining.then == Then::Stop) {
            tracing::warn!(code = trouble.code(), %trouble, "stopped with frames unacknowledged; the next start reads what landed");
            self.stage = Stage::Stopped;
        } else if trouble.passes() {
            tracing::warn!(code = trouble.code(), %trouble, advice = trouble.advice(), "the shard begins again");
            self.stage = Stage::Waiting { until: self.clock.elapsed() + self.options.retry_after };
        } else {
            tracing::error!(code = trouble.code(), %trouble, advice = trouble.advice(), "the shard refuses to go on");
            self.stage = Stage::Refusing;
        }
        self.forget_term();
        self.caught_up_at = None;
        if !reads_on {
            self.replica = None;
        }
        self.trouble = Some(phase);
    }

    pub(super) fn wait_to_retry(&mut self, wait: Duration) -> Result<(), Trouble> {
        if let Stage::Waiting { until } = self.stage
            && self.clock.elapsed() >= until
        {
            self.stage = Stage::Following;
            return Ok(());
        }
        nap(wait);
        Ok(())
    }

    /// A shard that refuses still answers requests.
    pub(super) fn refuse(&mut self, wait: Duration) {
        nap(wait);
    }

    /// Nothing to do: a wait that a request ends.
    pub(super) fn idle(&mut self, wait: Duration) -> Result<(), Trouble> {
        self.log.poll(&mut Vec::new(), 0, wait)?;
        Ok(())
    }

    pub(super) fn serve_requests(&mut self) {
        for request in handle::drain(&self.requests) {
            match request {
                Request::Own(wanted) => self.own(wanted),
                Request::Stop => self.stop(),
                Request::Query(query) => {
                    let Some(replica) = &self.replica else { continue };
                    let gate = replica.fold.gate();
                    let deliver = query(gate);
                    if matches!(&self.stage, Stage::Owning(owner) if !owner.flight.is_empty()) {
                        self.desk.deliver_at(gate.seq(), deliver);
                    } else {
                        deliver();
                    }
                }
                Request::Answer { source, reply } => {
                    let Some(replica) = &self.replica else { continue };
                    let in_flight = matches!(&self.stage, Stage::Owning(owner) if owner.holds(source));
                    let applied = source.offset < replica.fold.next_of(source.topic, source.partition);
                    self.desk.ask(source, reply, applied && !in_flight);
                }
            }
        }
    }

    fn own(&mut self, wanted: bool) {
        self.wanted = wanted;
        match (&self.stage, wanted) {
            (Stage::Owning(_), false) => {
                let deadline = self.clock.elapsed() + self.options.drain_max;
                self.draining.get_or_insert(Draining { deadline, closed: false, then: Then::Follow });
            }
            // A term that was about to end goes on; a closing frame is a frame like any other.
            (Stage::Owning(_), true) => self.draining = self.draining.filter(|draining| draining.then == Then::Stop),
            (Stage::Claiming { .. } | Stage::Repairing(_), false) => {
                // What is in flight may land; whoever claims next reads it, and so does this replica.
                self.forget_term();
                self.stage = Stage::Following;
            }
            (Stage::Claiming { .. } | Stage::Repairing(_), true) => {}
            (Stage::Following | Stage::Waiting { .. } | Stage::Refusing | Stage::Stopped, _) => {}
        }
    }

    fn stop(&mut self) {
        let deadline = self.clock.elapsed() + self.options.drain_max;
        match &mut self.draining {
            Some(Draining { then: Then::Stop, .. }) => {}
            Some(draining) => (draining.then, draining.deadline) = (Then::Stop, deadline),
            None => self.draining = Some(Draining { deadline, closed: false, then: Then::Stop }),
        }
        if !matches!(self.stage, Stage::Owning(_)) {
            self.stage = Stage::Stopped;
        }
    }

    /// Brings the status up to date: at once when the phase changed, else now and then.
    pub(super) fn report(&mut self) {
        let phase = self.phase();
        let now = self.clock.elapsed();
        let changed = self.status.borrow().phase != phase;
        if !changed && now.saturating_sub(self.reported) < REPORT_EVERY {
            return;
        }
        self.reported = now;
        if changed {
            self.observer.phase(&phase);
        }
        self.desk.sweep();
        let status = self.describe(phase, now);
        self.status.send_replace(status);
    }

    fn phase(&self) -> Phase {
        match &self.stage {
            Stage::Following => self.trouble.clone().unwrap_or(Phase::Following),
            Stage::Claiming { .. } => Phase::Claiming,
            Stage::Repairing(_) => Phase::Repairing,
            Stage::Owning(_) if self.draining.is_some() => Phase::Draining,
            Stage::Owning(_) => Phase::Owning,
            Stage::Waiting { .. } | Stage::Refusing => self.trouble.clone().unwrap_or_default(),
            Stage::Stopped => Phase::Stopped,
        }
    }

    fn describe(&mut self, phase: Phase, now: Duration) -> Status {
        let mut status = Status { shard: self.layout.shard, phase, snapshot_seq: self.snapshot.seq, ..Status::default() };
        status.last_commit_ms = millis(self.last_commit);
        if let Stage::Owning(owner) = &self.stage {
            status.committed_seq = owner.committed_seq;
            status.frames_in_flight = owner.flight.len();
            status.outputs_in_flight = owner.publisher.waiting();
            let unsure = owner.unsure_for(now);
            status.blind_ms = if unsure > self.options.look_patience { millis(unsure) } else { 0 };
            if status.outputs_in_flight == 0 {
                self.last_published = now;
            }
            status.output_waiting_ms = millis(now.saturating_sub(self.last_published));
            status.waiting_ms = owner.flight.front().map_or(0, |frame| millis(now.saturating_sub(frame.appended)));
        }
        status.inputs_waiting = self.inbox.len() + self.log.fetched();
        let Some(replica) = &self.replica else { return status };
        let gate = replica.fold.gate();
        status.ledger_lag = self.log.seen_end(ShardTopic::Ledger).map_or(0, |end| end.saturating_sub(replica.sequence.next_offset));
        (status.seq, status.at, status.term) = (gate.seq(), gate.at(), replica.sequence.term);
        (status.ledger_next, status.head, status.void_entries) =
            (replica.sequence.next_offset, replica.sequence.head, replica.void_entries);
        if !matches!(self.stage, Stage::Owning(_)) {
            status.committed_seq = status.seq;
        }
        for &(topic, partition) in &self.layout.inputs {
            // The lag of a partition whose end was not seen yet is not listed.
            let Some(end) = self.log.seen_end(ShardTopic::Input { topic, partition }) else { continue };
            status.lag.push((topic, partition, end.saturating_sub(replica.fold.next_of(topic, partition))));
        }
        status
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn nap(wait: Duration) {
    if !wait.is_zero() {
        std::thread::sleep(wait.min(NAP_MAX));
    }
}
