//! Where a shard's clients leave what happened, and the shard picks it up: one place to wait at.
//!
//! Invariant: bounded. Inputs wait in the client, and there in the broker, when the shard does not
//! take them; acknowledgements are as many as the shard asked for. What belongs to an abandoned
//! session is dropped.

use std::collections::{HashMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::statistics::{Partition, Statistics};

use crate::domain::InputTopic;
use crate::log::{InputRecord, LogError, LogEvent};

/// With more than this waiting, nothing more is taken from the client.
const INPUTS_MAX: usize = 8_192;
/// The same in bytes.
const INPUT_BYTES_MAX: usize = 8 << 20;
/// A record's share beside its key and value.
const RECORD_BYTES: usize = 128;

/// A shard's inbox.
#[derive(Default)]
pub(super) struct Inbox {
    post: Mutex<Post>,
    news: Condvar,
    room: Condvar,
}

#[derive(Default)]
struct Post {
    session: u64,
    /// Which run of the input consumer is listened to.
    run: u64,
    inputs: VecDeque<InputRecord>,
    input_bytes: usize,
    events: VecDeque<LogEvent>,
    /// Outputs whose acknowledgement is still to come.
    publishing: usize,
    lost: Option<LogError>,
    woken: bool,
    /// The ends of partitions as the consumers saw them lately.
    ends: HashMap<(String, i32), SeenEnd>,
    /// Behind the last record of each partition that this run delivered.
    delivered: HashMap<(InputTopic, u32), u64>,
    /// Where the consumer of this run stands, as it said lately.
    positions: HashMap<(String, i32), u64>,
    /// When the brokers last told where the ledger ends, in this run.
    ledger_told: Option<Instant>,
    /// From where on the ledger had nothing for its owner, and when he looked.
    ledger_looked: Option<(u64, Instant)>,
}

/// Where a partition ends for a reader of committed records.
#[derive(Clone, Copy, Debug, PartialEq)]
enum SeenEnd {
    /// There, and not all before it was read.
    At(u64),
    /// Where this reader stands.
    AllRead,
}

impl Post {
    fn is_full(&self) -> bool {
        self.inputs.len() >= INPUTS_MAX || self.input_bytes >= INPUT_BYTES_MAX
    }
}

impl Inbox {
    fn post(&self) -> MutexGuard<'_, Post> {
        // Plain values: a holder that panicked leaves nothing half done that matters.
        self.post.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a waiting [`Inbox::take`] return.
    pub(super) fn wake(&self) {
        self.post().woken = true;
        self.news.notify_all();
    }

    /// A new session: what an older one still hears is dropped.
    pub(super) fn begin_session(&self) -> u64 {
        let mut post = self.post();
        post.session += 1;
        post.events.clear();
        post.publishing = 0;
        post.session
    }

    /// A new run of the consumer: what an older one still reads is dropped.
    pub(super) fn begin_run(&self) -> u64 {
        let mut post = self.post();
        post.run += 1;
        // With its room: after a backlog it is more than a follower ever needs.
        post.inputs = VecDeque::new();
        post.input_bytes = 0;
        post.lost = None;
        post.positions.clear();
        post.delivered.clear();
        (post.ledger_told, post.ledger_looked) = (Some(Instant::now()), None);
        self.room.notify_all();
        post.run
    }

    /// The brokers told where the ledger ends.
    pub(super) fn ledger_told(&self, run: u64) {
        let mut post = self.post();
        if post.run == run {
            post.ledger_told = Some(Instant::now());
        }
    }

    /// The owner looked, and the ledger had nothing from this offset on. Gives how long the brokers have not told where it ends.
    pub(super) fn ledger_looked(&self, from: u64) -> Duration {
        let mut post = self.post();
        post.ledger_looked = Some((from, Instant::now()));
        post.ledger_told.map_or(Duration::ZERO, |told| told.elapsed())
    }

    /// From where on the ledger has nothing for its owner, if he looked within this time: he does not while he has frames on their way.
    pub(super) fn ledger_ends_for_owner(&self, within: Duration) -> Option<u64> {
        self.post().ledger_looked.filter(|(_, looked)| looked.elapsed() < within).map(|(from, _)| from)
    }

    /// Something was acknowledged, or failed.
    pub(super) fn tell(&self, session: u64, event: LogEvent) {
        let mut post = self.post();
        if post.session != session {
            return;
        }
        // Nothing hurries after a single output: the shard hears of them with what comes next, or when the last is there.
        let is_output = matches!(event, LogEvent::Published { .. });
        post.publishing -= usize::from(is_output).min(post.publishing);
        post.events.push_back(event);
        if !is_output || post.publishing == 0 {
            self.news.notify_all();
        }
    }

    /// An output was sent.
    pub(super) fn publishing(&self) {
        self.post().publishing += 1;
    }

    /// Delivers inputs, in order.
    pub(super) fn deliver(&self, run: u64, records: impl Iterator<Item = InputRecord>) {
        let mut post = self.post();
        if post.run != run {
            return;
        }
        for record in records {
            post.input_bytes += bytes_of(&record);
            post.delivered.insert((record.source.topic, record.source.partition), record.source.offset + 1);
            post.inputs.push_back(record);
        }
        self.news.notify_all();
    }

    /// Waits until there is room for inputs. False when this run is over.
    pub(super) fn wait_for_room(&self, run: u64) -> bool {
        let mut post = self.post();
        while post.run == run && post.is_full() {
            post = self.room.wait(post).unwrap_or_else(PoisonError::into_inner);
        }
        post.run == run
    }

    /// Waits this long, or until the run is over. False when it is over.
    pub(super) fn wait_in(&self, run: u64, long: Duration) -> bool {
        let deadline = Instant::now() + long;
        let mut post = self.post();
        while post.run == run {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            post = self.room.wait_timeout(post, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        false
    }

    /// Whether the reader waits for the shard, and not the shard for the reader.
    pub(super) fn is_full(&self) -> bool {
        self.post().is_full()
    }

    /// The inputs of this run cannot be read on.
    pub(super) fn lose(&self, run: u64, error: LogError) {
        let mut post = self.post();
        if post.run == run {
            post.lost = Some(error);
            self.news.notify_all();
        }
    }

    /// Takes what is there: at once when there is something, else after at most `wait`.
    ///
    /// # Errors
    /// The inputs are lost, once what came before is taken.
    pub(super) fn take(&self, events: &mut Vec<LogEvent>, max_inputs: usize, wait: Duration) -> Result<(), LogError> {
        let deadline = Instant::now() + wait;
        let mut post = self.post();
        loop {
            events.extend(post.events.drain(..));
            let count = max_inputs.min(post.inputs.len());
            for record in post.inputs.drain(..count).collect::<Vec<_>>() {
                post.input_bytes = post.input_bytes.saturating_sub(bytes_of(&record));
                events.push(LogEvent::Input(record));
            }
            if count > 0 {
                self.room.notify_all();
            }
            if let Some(error) = post.lost.clone().filter(|_| events.is_empty() && post.inputs.is_empty()) {
                return Err(error);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if std::mem::take(&mut post.woken) || !events.is_empty() || left.is_zero() {
                return Ok(());
            }
            post = self.news.wait_timeout(post, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// How many inputs wait here.
    pub(super) fn waiting(&self) -> usize {
        self.post().inputs.len()
    }

    /// What the consumer says of itself.
    pub(super) fn saw(&self, run: u64, statistics: Statistics) {
        let mut post = self.post();
        if post.run != run {
            return;
        }
        for topic in statistics.topics.into_values() {
            for partition in topic.partitions.into_values() {
                let place = (topic.topic.clone(), partition.partition);
                if let Some(seen) = seen_end(&partition) {
                    post.ends.insert(place.clone(), seen);
                }
                if let Ok(position) = u64::try_from(partition.next_offset.max(partition.app_offset)) {
                    post.positions.insert(place, position);
                }
            }
        }
    }

    /// Where this run's consumer stands, as it said lately.
    pub(super) fn position(&self, topic: &str, partition: i32) -> Option<u64> {
        self.post().positions.get(&(topic.to_owned(), partition)).copied()
    }

    /// The end of a partition as it was seen lately; where everything was read, behind the last record of this run. Behind that there
    /// may be the marks of transactions, which nobody will ever apply: who has read everything lags by nothing.
    pub(super) fn seen_end(&self, name: &str, topic: InputTopic, partition: u32) -> Option<u64> {
        let post = self.post();
        Some(match *post.ends.get(&(name.to_owned(), i32::try_from(partition).ok()?))? {
            SeenEnd::At(end) => end,
            SeenEnd::AllRead => post.delivered.get(&(topic, partition)).copied().unwrap_or_default(),
        })
    }
}

fn seen_end(partition: &Partition) -> Option<SeenEnd> {
    let end = u64::try_from(if partition.ls_offset >= 0 { partition.ls_offset } else { partition.hi_offset }).ok()?;
    let read = u64::try_from(partition.next_offset.max(partition.eof_offset)).unwrap_or_default();
    Some(if read >= end && partition.fetchq_cnt == 0 { SeenEnd::AllRead } else { SeenEnd::At(end) })
}

fn bytes_of(record: &InputRecord) -> usize {
    record.payload.len() + record.key.as_ref().map_or(0, Vec::len) + RECORD_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Source;

    fn record(offset: u64) -> InputRecord {
        InputRecord { source: Source { topic: InputTopic::Intents, partition: 0, offset }, ts: 0, key: None, payload: vec![0; 10] }
    }

    #[test]
    fn who_has_read_all_lags_by_nothing_whatever_marks_lie_behind() {
        let inbox = Inbox::default();
        let run = inbox.begin_run();
        let saw = |next: i64, waiting: u64| {
            let partition = Partition {
                partition: 0,
                ls_offset: 10,
                next_offset: next,
                app_offset: next,
                fetchq_cnt: waiting as i64,
                ..Partition::default()
            };
            let topic = rdkafka::statistics::Topic {
                topic: "orders.intents".to_owned(),
                partitions: HashMap::from([(0, partition)]),
                ..Default::default()
            };
            inbox.saw(run, Statistics { topics: HashMap::from([("orders.intents".to_owned(), topic)]), ..Statistics::default() });
            inbox.seen_end("orders.intents", InputTopic::Intents, 0)
        };
        assert_eq!(inbox.seen_end("orders.intents", InputTopic::Intents, 0), None);
        assert_eq!(saw(4, 0), Some(10));
        assert_eq!((saw(10, 0), saw(10, 1)), (Some(0), Some(10)));
        inbox.deliver(run, [record(8)].into_iter());
        assert_eq!(saw(10, 0), Some(9), "offset 9 is the mark of a transaction");
    }

    #[test]
    fn what_an_older_run_or_session_hears_is_dropped() {
        let inbox = Inbox::default();
        let (old_run, old_session) = (inbox.begin_run(), inbox.begin_session());
        let (run, session) = (inbox.begin_run(), inbox.begin_session());
        inbox.deliver(old_run, [record(1)].into_iter());
        inbox.tell(old_session, LogEvent::Appended { ticket: 1, offset: 1 });
        inbox.deliver(run, [record(7)].into_iter());
        inbox.tell(session, LogEvent::Appended { ticket: 2, offset: 2 });
        let mut events = Vec::new();
        inbox.take(&mut events, 10, Duration::ZERO).unwrap();
        assert_eq!(events.len(), 2);
        assert!(matches!(events[0], LogEvent::Appended { ticket: 2, .. }));
        assert!(matches!(&events[1], LogEvent::Input(record) if record.source.offset == 7));
    }

    #[test]
    fn a_full_inbox_holds_its_reader_until_something_is_taken() {
        let inbox = std::sync::Arc::new(Inbox::default());
        let run = inbox.begin_run();
        inbox.deliver(run, (0..INPUTS_MAX as u64).map(record));
        let reader = std::thread::spawn({
            let inbox = inbox.clone();
            move || inbox.wait_for_room(run)
        });
        std::thread::sleep(Duration::from_millis(30));
        assert!(!reader.is_finished());
        let mut events = Vec::new();
        inbox.take(&mut events, 1, Duration::ZERO).unwrap();
        assert!(reader.join().unwrap());
        inbox.begin_run();
        assert_eq!(inbox.post().inputs.capacity(), 0, "a backlog that is over takes memory");
    }

    #[test]
    fn lost_inputs_are_told_after_what_came_before() {
        let inbox = Inbox::default();
        let run = inbox.begin_run();
        inbox.deliver(run, [record(1)].into_iter());
        inbox.lose(run, LogError::Closed);
        let mut events = Vec::new();
        assert_eq!(inbox.take(&mut events, 10, Duration::ZERO), Ok(()));
        events.clear();
        assert_eq!(inbox.take(&mut events, 10, Duration::ZERO), Err(LogError::Closed));
    }
}
