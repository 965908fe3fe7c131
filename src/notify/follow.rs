//! Reading `gate.notifications`, all its partitions, in the order of each.
//!
//! Invariant: every offset that the log has comes once; what is no notification comes as a gap that is told and counted. When retention
//! has taken what was to be read next, reading goes on with what is left, and that is told as an error. Deliberately absent: keeping the
//! position; whoever reads does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::Audience;
use super::raised::Raised;
use crate::log::{Extent, LogError, OutputTopic, StoredRecord, Topic, Topics};

const TOPIC: Topic = Topic::Output(OutputTopic::Notifications);
/// The log is looked at again after this also when it did not say that anything came.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Who has read to the end reads again no earlier than this: on the embedded log every decision is a commit or two, and each would wake us.
const REST: Duration = Duration::from_millis(50);

/// What was read of one partition.
#[derive(Debug)]
pub struct Batch {
    /// The partition.
    pub partition: u32,
    /// In order; `None` is a record that is no notification.
    pub records: Vec<(u64, Option<Arc<Raised>>)>,
}

/// A reader.
pub struct Follower {
    topics: Arc<dyn Topics>,
    positions: BTreeMap<u32, u64>,
    /// The partition that was read last: the others come first.
    last: u32,
    changes: watch::Receiver<u64>,
    rests_until: Instant,
    audience: Arc<dyn Audience>,
    /// Since when partitions begin with something of which it is not known who hears of it.
    held: BTreeMap<u32, std::time::Instant>,
}

impl Follower {
    /// A reader from these positions on.
    #[must_use]
    pub fn new(topics: Arc<dyn Topics>, positions: BTreeMap<u32, u64>, audience: Arc<dyn Audience>) -> Self {
        let changes = topics.changes();
        Self { topics, positions, last: u32::MAX, changes, rests_until: Instant::now(), audience, held: BTreeMap::new() }
    }

    /// Whether there is more of which it is not known yet who hears of it.
    #[must_use]
    pub fn is_held(&self) -> bool {
        !self.held.is_empty()
    }

    /// Up to `limit` records of the next partition that has any; `None` at the end of all, or of what it is known who hears of it.
    pub async fn next(&mut self, limit: usize) -> Result<Option<Batch>, LogError> {
        // Marked as seen before it is read: what is committed in between wakes us again.
        self.changes.mark_unchanged();
        let last = self.last;
        let mut turn: Vec<(&u32, &mut u64)> = self.positions.iter_mut().collect();
        turn.sort_by_key(|(partition, _)| (**partition <= last && last != u32::MAX, **partition));
        for (partition, position) in turn {
            let records = match read(&self.topics, *partition, *position, limit).await {
                Ok(records) => records,
                Err(LogError::OutOfRange { first, .. }) if first > *position => {
                    let lost = first - *position;
                    tracing::error!(partition, lost, "notifications were taken by retention before they were read");
                    *position = first;
                    read(&self.topics, *partition, first, limit).await?
                }
                Err(error) => return Err(error),
            };
            if records.is_empty() {
                continue;
            }
            let read_at = self.held.get(partition).copied().unwrap_or_else(std::time::Instant::now);
            let known = |raised: &Option<Arc<Raised>>| raised.as_ref().is_none_or(|raised| self.audience.knows(raised, read_at));
            let records = records.iter().map(|record| (record.offset, decode(*partition, record)));
            let records: Vec<_> = records.take_while(|(_, raised)| known(raised)).collect();
            let Some((newest, _)) = records.last() else {
                self.held.insert(*partition, read_at);
                continue;
            };
            *position = newest + 1;
            self.last = *partition;
            self.held.remove(partition);
            return Ok(Some(Batch { partition: *partition, records }));
        }
        self.rests_until = Instant::now() + REST;
        Ok(None)
    }

    /// Waits until there may be more.
    pub async fn wait(&mut self) {
        tokio::time::sleep_until(self.rests_until).await;
        if self.is_held() {
            return;
        }
        match tokio::time::timeout(LOOK_EVERY, self.changes.changed()).await {
            Ok(Ok(())) | Err(_) => {}
            // The log is closed: it is asked now and then, and says so.
            Ok(Err(_)) => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}

fn decode(partition: u32, record: &StoredRecord) -> Option<Arc<Raised>> {
    match Raised::read(&record.payload) {
        Ok(raised) => Some(Arc::new(raised)),
        Err(error) => {
            tracing::error!(%error, partition, offset = record.offset, "a record of gate.notifications is no notification");
            None
        }
    }
}

/// Reads without holding up the runtime.
pub async fn read(topics: &Arc<dyn Topics>, partition: u32, from: u64, limit: usize) -> Result<Vec<StoredRecord>, LogError> {
    let topics = topics.clone();
    blocking(move || topics.read(TOPIC, partition, from, limit)).await
}

/// Where the partitions begin and end.
pub async fn extents(topics: &Arc<dyn Topics>) -> Result<Vec<Extent>, LogError> {
    let topics = topics.clone();
    let all = blocking(move || topics.extents()).await?;
    Ok(all.into_iter().filter(|extent| extent.topic == TOPIC).collect())
}

async fn blocking<R: Send + 'static>(ask: impl FnOnce() -> Result<R, LogError> + Send + 'static) -> Result<R, LogError> {
    // It fails only when the runtime ends.
    tokio::task::spawn_blocking(ask).await.unwrap_or(Err(LogError::Closed))
}

/// The notifications at these places, as far as the log still has them.
pub async fn fetch(
    topics: &Arc<dyn Topics>,
    wanted: &std::collections::BTreeSet<(u32, u64)>,
) -> Result<BTreeMap<(u32, u64), Arc<Raised>>, LogError> {
    const AT_ONCE: usize = 256;
    let mut found = BTreeMap::new();
    let mut left = wanted.iter().copied().peekable();
    while let Some((partition, offset)) = left.next() {
        let records = match read(topics, partition, offset, AT_ONCE).await {
            Ok(records) => records,
            Err(LogError::OutOfRange { .. }) => continue,
            Err(error) => return Err(error),
        };
        let end = records.last().map_or(offset, |record| record.offset);
        for record in records.iter().filter(|record| wanted.contains(&(partition, record.offset))) {
            found.extend(decode(partition, record).map(|raised| ((partition, record.offset), raised)));
        }
        while left.peek().is_some_and(|(next, at)| *next == partition && *at <= end) {
            left.next();
        }
    }
    Ok(found)
}
