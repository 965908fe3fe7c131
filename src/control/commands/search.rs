//! Whether a record came to the log before, and what became of it: looked up in the log itself.
//!
//! Invariant: reads from the end backwards, a bounded number of records at a time, and stops where all are older than what is looked
//! for. Deliberately absent: an index; who asks again does so seldom, and operators' records are few.

use serde::Deserialize;

use crate::control::replica::Refusal;
use crate::domain::{InputTopic, Millis, Source};
use crate::log::{Extent, LogError, OutputTopic, StoredRecord, Topic, Topics};

/// Records looked at together.
const AT_ONCE: u64 = 512;
/// Clocks of brokers and instances differ by less.
const SKEW_MS: Millis = 10 * 60_000;

/// Where an operator's record with a mark stands.
///
/// # Errors
/// The log cannot be read.
pub(super) fn marked(topics: &dyn Topics, mark: &[u8], since: Millis) -> Result<Option<Source>, LogError> {
    command(topics, since, |record| record.key.as_deref() == Some(mark))
}

/// Where the newest of operators' records stands.
///
/// # Errors
/// The log cannot be read.
pub(super) fn newest(topics: &dyn Topics) -> Result<Option<Source>, LogError> {
    command(topics, Millis::MIN, |_| true)
}

fn command(topics: &dyn Topics, since: Millis, is_it: impl Fn(&StoredRecord) -> bool) -> Result<Option<Source>, LogError> {
    let found = backwards(topics, Topic::Input(InputTopic::Control), since, is_it)?;
    Ok(found.map(|(partition, record)| Source { topic: InputTopic::Control, partition, offset: record.offset }))
}

/// A dead letter says what it is of.
#[derive(Deserialize)]
struct Letter {
    source: Place,
}

#[derive(Deserialize)]
struct Place {
    topic: String,
    partition: u32,
    offset: u64,
}

/// Why the record at a place was refused, if it was.
///
/// # Errors
/// The log cannot be read.
pub(super) fn refused(topics: &dyn Topics, of: Source, since: Millis) -> Result<Option<Refusal>, LogError> {
    let is_it = |record: &StoredRecord| {
        let letter = serde_json::from_slice::<Letter>(&record.payload);
        letter.is_ok_and(|Letter { source }| {
            InputTopic::parse(&source.topic) == Some(of.topic) && (source.partition, source.offset) == (of.partition, of.offset)
        })
    };
    let found = backwards(topics, Topic::Output(OutputTopic::DeadLetter), since, is_it)?;
    Ok(found.and_then(|(_, record)| serde_json::from_slice(&record.payload).ok()))
}

/// The newest record that `is_it`, of all partitions, as far back as `since`. An older one with the same mark is of another request.
fn backwards(
    topics: &dyn Topics,
    topic: Topic,
    since: Millis,
    is_it: impl Fn(&StoredRecord) -> bool,
) -> Result<Option<(u32, StoredRecord)>, LogError> {
    let oldest = since.saturating_sub(SKEW_MS);
    for Extent { partition, first, next, .. } in topics.extents()?.into_iter().filter(|extent| extent.topic == topic) {
        let mut end = next;
        while end > first {
            let begin = end.saturating_sub(AT_ONCE).max(first);
            let records = between(topics, topic, partition, begin, end)?;
            if let Some(found) = records.iter().rev().find(|record| record.ts >= oldest && is_it(record)) {
                return Ok(Some((partition, found.clone())));
            }
            if records.iter().map(|record| record.ts).max().is_some_and(|newest| newest < oldest) {
                break;
            }
            end = begin;
        }
    }
    Ok(None)
}

fn between(topics: &dyn Topics, topic: Topic, partition: u32, begin: u64, end: u64) -> Result<Vec<StoredRecord>, LogError> {
    let (mut from, mut found) = (begin, Vec::new());
    while from < end {
        let limit = usize::try_from(end - from).unwrap_or(usize::MAX);
        let records = topics.read(topic, partition, from, limit)?;
        let Some(last) = records.last() else { break };
        from = last.offset + 1;
        found.extend(records.into_iter().filter(|record| record.offset < end));
    }
    Ok(found)
}
