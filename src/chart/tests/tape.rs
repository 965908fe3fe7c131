//! A log in memory with several partitions: a second implementation of the port, for what the embedded log does not have.

use std::collections::BTreeMap;
use std::sync::Mutex;

use tokio::sync::watch;

use crate::domain::{InputTopic, Millis};
use crate::log::{AppendDone, Extent, LogError, NewRecord, OutputTopic, Placed, StoredRecord, Topic, Topics};

pub const PRICES: Topic = Topic::Input(InputTopic::Prices);
pub const CONTROL: Topic = Topic::Input(InputTopic::Control);
pub const DEAD_LETTER: Topic = Topic::Output(OutputTopic::DeadLetter);

/// The log.
pub struct Tape {
    partitions: Mutex<BTreeMap<(Topic, u32), Vec<StoredRecord>>>,
    first: Mutex<u64>,
    down: Mutex<bool>,
    changes: watch::Sender<u64>,
}

impl Tape {
    pub fn new(prices: u32) -> Self {
        let mut partitions = BTreeMap::new();
        partitions.insert((CONTROL, 0), Vec::new());
        partitions.insert((DEAD_LETTER, 0), Vec::new());
        (0..prices).for_each(|partition| drop(partitions.insert((PRICES, partition), Vec::new())));
        Self { partitions: Mutex::new(partitions), first: Mutex::new(0), down: Mutex::new(false), changes: watch::channel(0).0 }
    }

    /// Appends a record that the log took at `ts`; gives its offset.
    pub fn put(&self, topic: Topic, partition: u32, ts: Millis, payload: &str) -> u64 {
        let mut partitions = self.partitions.lock().unwrap();
        let records = partitions.get_mut(&(topic, partition)).unwrap();
        let offset = records.len() as u64;
        records.push(StoredRecord { offset, ts, key: None, payload: payload.as_bytes().to_vec(), tag: None });
        drop(partitions);
        self.changes.send_modify(|count| *count += 1);
        offset
    }

    /// What retention leaves of every partition.
    pub fn keep_from(&self, first: u64) {
        *self.first.lock().unwrap() = first;
    }

    /// Whether the log answers.
    pub fn set_down(&self, down: bool) {
        *self.down.lock().unwrap() = down;
    }

    fn answers(&self) -> Result<(), LogError> {
        if *self.down.lock().unwrap() { Err(LogError::Busy { detail: "down".to_owned() }) } else { Ok(()) }
    }
}

impl Topics for Tape {
    fn append(&self, records: Vec<NewRecord>, done: AppendDone) {
        let mut placed = Vec::new();
        for record in records {
            let partition = record.partition.unwrap_or(0);
            let offset = self.put(record.topic, partition, record.ts.unwrap_or(0), std::str::from_utf8(&record.payload).unwrap());
            placed.push(Placed { topic: record.topic, partition, offset });
        }
        done(Ok(placed));
    }

    fn read(&self, topic: Topic, partition: u32, from: u64, limit: usize) -> Result<Vec<StoredRecord>, LogError> {
        self.answers()?;
        let extent = self.extent(topic, partition)?;
        if from < extent.first || from > extent.next {
            return Err(LogError::OutOfRange { topic, partition, asked: from, first: extent.first, next: extent.next });
        }
        let partitions = self.partitions.lock().unwrap();
        Ok(partitions[&(topic, partition)].iter().skip(from as usize).take(limit).cloned().collect())
    }

    fn extents(&self) -> Result<Vec<Extent>, LogError> {
        self.answers()?;
        let first = *self.first.lock().unwrap();
        let partitions = self.partitions.lock().unwrap();
        let extent = |((topic, partition), records): (&(Topic, u32), &Vec<StoredRecord>)| {
            let next = records.len() as u64;
            Extent { topic: *topic, partition: *partition, first: first.min(next), next }
        };
        Ok(partitions.iter().map(extent).collect())
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn refusing(&self) -> Option<LogError> {
        None
    }
}
