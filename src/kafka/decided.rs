//! Decisions as they appear in `gate.decisions`, whoever makes them.
//!
//! Invariant: only what is in the topic is told. A decision answers the intent that its header names: one that repeats an earlier
//! decision has the earlier one's bytes, and those name the earlier intent. It listens while somebody waits: a decision that
//! comes before its intent's place is known is kept until then. Bounded: the oldest are forgotten. While nobody asks, it only notes
//! now and then where the partitions end, and begins there when somebody does: what he waits for comes behind.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::oneshot;

use crate::domain::{InputTopic, Source};
use crate::log::{Expected, LogError, OutputTopic, Topic, Verdicts};

use super::client::{Context, Nobody};
use super::cluster::{Cluster, offset, unassign};
use super::error::log_error;
use super::producers::{INTENT_HEADER, intent_of};
use super::settings::Role;

const POLL: Duration = Duration::from_millis(100);
/// How long it goes on listening when nobody waits any more.
const REST_AFTER: Duration = Duration::from_secs(5);
/// At rest: how often it notes where the partitions end.
const NOTE_EVERY: Duration = Duration::from_secs(1);
/// Decisions that are kept for those who do not know their intent's place yet.
const KEPT_MAX: usize = 65_536;
/// And for how long: an append is confirmed within this time, or fails. Where somebody always asks, all decisions of the cluster pass here.
const KEPT_FOR: Duration = Duration::from_secs(30);

/// A listener to `gate.decisions`.
#[derive(Clone)]
pub struct DecisionWatch {
    shared: Arc<Listened>,
}

#[derive(Default)]
struct Listened {
    state: Mutex<Shared>,
    /// Somebody begins to wait.
    asked: Condvar,
}

impl Listened {
    fn state(&self) -> MutexGuard<'_, Shared> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Default)]
struct Shared {
    /// How many requests are under way.
    active: usize,
    waiting: HashMap<(u32, u64), Vec<oneshot::Sender<Vec<u8>>>>,
    kept: HashMap<(u32, u64), Vec<u8>>,
    /// When each was heard, the oldest first.
    order: VecDeque<(Instant, (u32, u64))>,
}

impl DecisionWatch {
    /// Listens from now on.
    ///
    /// # Errors
    /// The cluster cannot be asked, or the settings are refused.
    pub fn start(cluster: &Cluster) -> Result<Self, LogError> {
        let ear = Ear::new(cluster)?;
        let shared = Arc::new(Listened::default());
        let listened = Arc::downgrade(&shared);
        let listen = move || ear.listen(&listened);
        let spawned = thread::Builder::new().name("kafka-decisions".into()).spawn(listen);
        spawned.map_err(|error| LogError::Io { detail: error.to_string() })?;
        Ok(Self { shared })
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.state()
    }
}

/// The consumer, and the next offset of each partition.
struct Ear {
    cluster: Cluster,
    consumer: BaseConsumer<Context<Nobody>>,
    next: BTreeMap<u32, u64>,
}

impl Ear {
    fn new(cluster: &Cluster) -> Result<Self, LogError> {
        let mut ear = Self { cluster: cluster.clone(), consumer: consumer(cluster)?, next: BTreeMap::new() };
        ear.go_on()?;
        Ok(ear)
    }

    /// Stands where it was, or at the end of a partition that it has not heard, or that no longer has that place.
    fn go_on(&mut self) -> Result<(), LogError> {
        let topic = Topic::Output(OutputTopic::Decisions);
        for partition in 0..self.cluster.partitions(topic)? {
            let extent = self.cluster.extent(topic, partition)?;
            let kept = self.next.get(&partition).copied().filter(|next| (extent.first..=extent.next).contains(next));
            self.next.insert(partition, kept.unwrap_or(extent.next));
        }
        self.resume()
    }

    fn listen(mut self, shared: &Weak<Listened>) {
        let (mut is_lost, mut waited) = (false, Instant::now());
        loop {
            let polled = self.consumer.poll(POLL);
            let Some(shared) = shared.upgrade() else { return };
            match polled {
                Some(Ok(message)) => {
                    if let Ok(partition) = u32::try_from(message.partition()) {
                        self.next.insert(partition, offset(message.offset()) + 1);
                    }
                    if let Some(place) = intent(&message) {
                        shared.state().hear(place, message.payload().unwrap_or_default(), Instant::now());
                    }
                }
                // The topic was truncated or made anew: that partition is silent until it is assigned again.
                Some(Err(error)) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AutoOffsetReset) => is_lost = true,
                Some(Err(error)) => tracing::debug!(%error, "listening to the decisions"),
                None => {}
            }
            is_lost |= self.is_replaced();
            if shared.state().active > 0 {
                waited = Instant::now();
            } else if waited.elapsed() >= REST_AFTER && !is_lost {
                unassign(&self.consumer);
                let resting = Arc::downgrade(&shared);
                // It may be the last that is held, and then nobody will ever ask.
                drop(shared);
                if !self.rest(&resting) {
                    return;
                }
                (is_lost, waited) = (self.resume().is_err(), Instant::now());
            }
            if is_lost {
                is_lost = self.go_on().is_err();
            }
        }
    }

    /// Another consumer, if this one is of no use any more.
    fn is_replaced(&mut self) -> bool {
        if self.consumer.context().is_useless()
            && let Ok(other) = consumer(&self.cluster)
        {
            self.consumer = other;
            return true;
        }
        false
    }

    /// Until somebody waits. False when nobody will any more.
    fn rest(&mut self, shared: &Weak<Listened>) -> bool {
        loop {
            {
                let Some(shared) = shared.upgrade() else { return false };
                let state = shared.state();
                let waited = shared.asked.wait_timeout_while(state, NOTE_EVERY, |state| state.active == 0);
                if waited.unwrap_or_else(PoisonError::into_inner).0.active > 0 {
                    return true;
                }
            }
            while self.consumer.poll(Duration::ZERO).is_some() {}
            self.is_replaced();
            match (self.ends(), shared.upgrade()) {
                (_, None) => return false,
                (Ok(ends), Some(shared)) if shared.state().active == 0 => self.next.extend(ends),
                // What somebody waits for who began to while we asked may stand before these ends.
                (Ok(_), Some(_)) => {}
                (Err(error), Some(_)) => {
                    tracing::debug!(%error, "the decisions' ends are not known; what came since the last look is heard later");
                }
            }
        }
    }

    /// Where the partitions end: one question for all of them.
    fn ends(&self) -> Result<Vec<(u32, u64)>, LogError> {
        let doing = |error| log_error(&error, "asking for the decisions' ends");
        let ends = self.consumer.offsets_for_times(self.places(|_| Offset::End)?, self.cluster.patience()).map_err(doing)?;
        let found = ends.elements().into_iter().filter_map(|end| match (u32::try_from(end.partition()), end.offset(), end.error()) {
            (Ok(partition), Offset::Offset(at), Ok(())) => Some((partition, offset(at))),
            (_, _, _) => None,
        });
        Ok(found.collect())
    }

    /// Listens from the noted places on.
    fn resume(&self) -> Result<(), LogError> {
        let wanted = self.places(|next| Offset::Offset(i64::try_from(next).unwrap_or(i64::MAX)))?;
        self.consumer.assign(&wanted).map_err(|error| log_error(&error, "listening to the decisions again"))
    }

    fn places(&self, at: impl Fn(u64) -> Offset) -> Result<TopicPartitionList, LogError> {
        let name = self.cluster.name(Topic::Output(OutputTopic::Decisions));
        let mut places = TopicPartitionList::with_capacity(self.next.len());
        for (partition, next) in &self.next {
            let number = i32::try_from(*partition).unwrap_or(i32::MAX);
            places.add_partition_offset(name, number, at(*next)).map_err(|error| log_error(&error, "naming the decisions' places"))?;
        }
        Ok(places)
    }
}

fn consumer(cluster: &Cluster) -> Result<BaseConsumer<Context<Nobody>>, LogError> {
    Ok(cluster.consumer(Role::Watch, Nobody, &[Topic::Output(OutputTopic::Decisions)])?)
}

/// The intent that a decision answers.
fn intent(decision: &BorrowedMessage<'_>) -> Option<(u32, u64)> {
    decision.headers()?.iter().find(|header| header.key == INTENT_HEADER)?.value.and_then(intent_of)
}

impl Shared {
    fn hear(&mut self, place: (u32, u64), payload: &[u8], now: Instant) {
        if self.active == 0 {
            return;
        }
        for waiting in self.waiting.remove(&place).unwrap_or_default() {
            // Nobody may be waiting any more.
            let _ = waiting.send(payload.to_vec());
        }
        // Two for one, so that what is old goes, and nobody waits for thousands to go.
        for _ in 0..2 {
            let is_over = |(heard, _): &(Instant, (u32, u64))| now.saturating_duration_since(*heard) >= KEPT_FOR;
            if (self.order.len() >= KEPT_MAX || self.order.front().is_some_and(is_over))
                && let Some((_, oldest)) = self.order.pop_front()
            {
                self.kept.remove(&oldest);
            }
        }
        if self.kept.insert(place, payload.to_vec()).is_none() {
            self.order.push_back((now, place));
        }
    }

    fn end_one(&mut self) {
        self.active -= 1;
        self.waiting.retain(|_, waiting| {
            waiting.retain(|waiting| !waiting.is_closed());
            !waiting.is_empty()
        });
        if self.active == 0 {
            *self = Self::default();
        }
    }
}

impl Verdicts for DecisionWatch {
    fn expect(&self) -> Box<dyn Expected> {
        self.shared().active += 1;
        self.shared.asked.notify_one();
        Box::new(One { watch: self.clone() })
    }
}

/// One request under way.
struct One {
    watch: DecisionWatch,
}

impl Expected for One {
    fn of(&self, source: Source) -> oneshot::Receiver<Vec<u8>> {
        let (told, decision) = oneshot::channel();
        let mut shared = self.watch.shared();
        if source.topic == InputTopic::Intents {
            let place = (source.partition, source.offset);
            match shared.kept.get(&place) {
                Some(payload) => drop(told.send(payload.clone())),
                None => shared.waiting.entry(place).or_default().push(told),
            }
        }
        decision
    }
}

impl Drop for One {
    fn drop(&mut self) {
        self.watch.shared().end_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_is_kept_for_who_learns_late_where_his_intent_stands_and_no_longer_than_that() {
        let (mut shared, begun) = (Shared { active: 1, ..Shared::default() }, Instant::now());
        for offset in 0..1_000 {
            shared.hear((0, offset), b"{}", begun);
        }
        shared.hear((0, 1_000), b"{}", begun + KEPT_FOR / 2);
        assert_eq!((shared.kept.len(), shared.order.len()), (1_001, 1_001));
        for offset in 2_000..3_000 {
            shared.hear((0, offset), b"{}", begun + KEPT_FOR);
        }
        assert!(!shared.kept.contains_key(&(0, 999)) && shared.kept.contains_key(&(0, 1_000)));
        assert_eq!((shared.kept.len(), shared.order.len()), (1_001, 1_001));
        for offset in 0..KEPT_MAX as u64 {
            shared.hear((1, offset), b"{}", begun + KEPT_FOR);
        }
        assert!(shared.kept.len() <= KEPT_MAX && shared.kept.len() == shared.order.len());
    }

    #[test]
    fn nothing_is_kept_while_nobody_asks() {
        let mut shared = Shared::default();
        shared.hear((0, 1), b"{}", Instant::now());
        assert!(shared.kept.is_empty() && shared.order.is_empty());
    }
}
