//! The shard's side of the embedded log.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::time::{Duration, Instant};

use crate::domain::InputTopic;
use crate::log::{Layout, LogError, LogEvent, OutputRecord, Position, ShardLog, ShardTopic, StoredRecord, Topic, Topics, Waker};

use super::writer::{Job, Signal};
use super::{EmbeddedLog, schema};

const INPUTS: [InputTopic; 4] = [InputTopic::Intents, InputTopic::Executions, InputTopic::Prices, InputTopic::Control];
/// More inputs are not read at once.
const INPUTS_PER_READ: usize = 4096;

/// The embedded log as its one shard sees it.
pub struct EmbeddedShardLog {
    log: EmbeddedLog,
    signals: Sender<Signal>,
    inbox: Receiver<Signal>,
    session: u64,
    /// The id of the next input to look at; `None` before [`ShardLog::seek`].
    next_id: Option<i64>,
    next: BTreeMap<InputTopic, u64>,
    more: bool,
}

impl EmbeddedShardLog {
    pub(super) fn new(log: EmbeddedLog, signals: Sender<Signal>, inbox: Receiver<Signal>) -> Self {
        Self { log, signals, inbox, session: 0, next_id: None, next: BTreeMap::new(), more: false }
    }

    fn take(&mut self, signal: Signal, events: &mut Vec<LogEvent>) -> bool {
        match signal {
            Signal::Event { session, event } => {
                if session == self.session {
                    events.push(event);
                }
                false
            }
            Signal::Inputs => {
                self.more = true;
                false
            }
            Signal::Wake => true,
        }
    }

    /// Everything that is signalled already. True when someone wants attention.
    fn take_signals(&mut self, events: &mut Vec<LogEvent>) -> Result<bool, LogError> {
        let mut woken = false;
        loop {
            match self.inbox.try_recv() {
                Ok(signal) => woken |= self.take(signal, events),
                Err(TryRecvError::Empty) => return Ok(woken),
                Err(TryRecvError::Disconnected) => return Err(LogError::Closed),
            }
        }
    }

    fn read_inputs(&mut self, events: &mut Vec<LogEvent>, max_inputs: usize) -> Result<(), LogError> {
        let (Some(from), true) = (self.next_id, self.more && max_inputs > 0) else { return Ok(()) };
        let limit = max_inputs.min(INPUTS_PER_READ);
        // Cleared before the read: what is committed later signals again.
        self.more = false;
        let found = self.log.reading(|connection| schema::inputs(connection, from, limit))?;
        if let Some((last, _)) = found.last() {
            self.next_id = Some(last + 1);
            // A read may end at its bound in bytes, so only an empty one shows the end.
            self.more = true;
        }
        for (_, record) in found {
            let next = self.next.entry(record.source.topic).or_default();
            if record.source.offset >= *next {
                *next = record.source.offset + 1;
                events.push(LogEvent::Input(record));
            }
        }
        Ok(())
    }
}

impl ShardLog for EmbeddedShardLog {
    fn layout(&self) -> Layout {
        Layout { shard: 0, shards: 1, inputs: INPUTS.map(|topic| (topic, 0)).to_vec() }
    }

    fn waker(&self) -> Waker {
        let signals = std::sync::Mutex::new(self.signals.clone());
        Arc::new(move || drop(super::locked(&signals).send(Signal::Wake)))
    }

    fn seek(&mut self, positions: &[Position]) -> Result<(), LogError> {
        self.next = INPUTS.into_iter().map(|topic| (topic, 0)).collect();
        for &Position { topic, partition, next } in positions {
            let end = self.log.end_of(Topic::Input(topic));
            if next > end {
                return Err(LogError::OutOfRange { topic: Topic::Input(topic), partition, asked: next, first: 0, next: end });
            }
            self.next.insert(topic, next);
        }
        let next = &self.next;
        let first = self.log.reading(|connection| {
            let mut first = schema::next_id(connection)?;
            for (&topic, &offset) in next {
                first = schema::id_at(connection, topic, offset)?.map_or(first, |id| id.min(first));
            }
            Ok(first)
        })?;
        self.next_id = Some(first);
        self.more = true;
        Ok(())
    }

    fn poll(&mut self, events: &mut Vec<LogEvent>, max_inputs: usize, wait: Duration) -> Result<(), LogError> {
        let deadline = Instant::now() + wait;
        loop {
            let woken = self.take_signals(events)?;
            self.read_inputs(events, max_inputs)?;
            let left = deadline.saturating_duration_since(Instant::now());
            if woken || !events.is_empty() || left.is_zero() {
                return Ok(());
            }
            match self.inbox.recv_timeout(left) {
                Ok(signal) => {
                    if self.take(signal, events) {
                        return Ok(());
                    }
                }
                Err(RecvTimeoutError::Timeout) => return Ok(()),
                Err(RecvTimeoutError::Disconnected) => return Err(LogError::Closed),
            }
        }
    }

    fn append(&mut self, ticket: u64, entry: Vec<u8>) -> Result<(), LogError> {
        self.log.send(Job::Entry { session: self.session, ticket, entry })
    }

    fn publish(&mut self, ticket: u64, output: OutputRecord) -> Result<(), LogError> {
        self.log.send(Job::Output { session: self.session, ticket, output })
    }

    fn read(&mut self, topic: ShardTopic, from: u64, limit: usize) -> Result<Vec<StoredRecord>, LogError> {
        let (topic, partition) = topic_of(topic);
        let next = self.log.end_of(topic);
        if from > next {
            return Err(LogError::OutOfRange { topic, partition, asked: from, first: 0, next });
        }
        if from == next && partition == 0 {
            return Ok(Vec::new());
        }
        Topics::read(&self.log, topic, partition, from, limit)
    }

    fn end(&mut self, topic: ShardTopic) -> Result<u64, LogError> {
        Ok(self.log.end_of(topic_of(topic).0))
    }

    fn seen_end(&mut self, topic: ShardTopic) -> Option<u64> {
        Some(self.log.end_of(topic_of(topic).0))
    }

    fn abandon(&mut self) {
        self.session += 1;
    }
}

const fn topic_of(topic: ShardTopic) -> (Topic, u32) {
    match topic {
        ShardTopic::Input { topic, partition } => (Topic::Input(topic), partition),
        ShardTopic::Ledger => (Topic::Ledger, 0),
        ShardTopic::Output(topic) => (Topic::Output(topic), 0),
    }
}
