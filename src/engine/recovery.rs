//! Taking a shard over: what must be true of the topics before the first decision of a term.
//!
//! Invariant: whatever the ledger holds up to the claim is published, byte for byte, before anything
//! new is decided; sets are compared, not last values, since a dead owner's records can land late.
//! Deliberately absent: any repair of the ledger. Where it contradicts a topic, the shard refuses.

use std::collections::HashSet;

use crate::log::{LogError, OutputRecord, OutputTopic, ShardLog, ShardTopic, StoredRecord, Topic};
use crate::wire::frame::{self, InputMark};

use super::options::Planted;
use super::publisher::Publisher;
use super::replica::Replica;
use super::trouble::Trouble;

/// How many outputs are read at once.
const RECORDS_PER_READ: usize = 512;

/// A comparison of the output topics with the ledger, and the publication of what is absent.
#[derive(Debug)]
pub struct Repair {
    /// The topic that is read, and from where on; topics before it are done.
    reading: Option<(usize, u64)>,
    /// The end of each topic when it was read.
    ends: [u64; 4],
    present: HashSet<(u64, u32)>,
    /// What publishes the absent ones.
    pub publisher: Publisher,
    /// How many were absent.
    pub repaired: u64,
}

impl Repair {
    /// A repair that has looked at nothing.
    #[must_use]
    pub fn new(replica: &Replica) -> Self {
        let marks = replica.fold.output_marks;
        let ends = marks.map(|mark| mark.offset);
        Self { reading: Some((0, ends[0])), ends, present: HashSet::new(), publisher: Publisher::new(marks), repaired: 0 }
    }

    /// Reads on, or publishes when all is read. True when everything absent is handed over.
    ///
    /// # Errors
    /// A topic and the ledger contradict each other, or the log fails.
    pub fn advance<L: ShardLog>(&mut self, log: &mut L, replica: &Replica, planted: Option<Planted>) -> Result<bool, Trouble> {
        let Some((place, from)) = self.reading else { return Ok(true) };
        let topic = OutputTopic::ALL[place];
        let mark = replica.fold.output_marks[place];
        let folded = replica.fold.gate().seq();
        if mark.seq > folded {
            return Err(Trouble::OutputAhead { topic: Topic::Output(topic), offset: mark.offset, seq: mark.seq, ledger_seq: folded });
        }
        if from == mark.offset {
            let end = log.end(ShardTopic::Output(topic))?;
            if end < mark.offset {
                return Err(Trouble::OutputLost { topic, end, mark: mark.offset });
            }
        }
        let records = match log.read(ShardTopic::Output(topic), from, RECORDS_PER_READ) {
            Ok(records) => records,
            // What the topic no longer keeps counts as absent, and is published again.
            Err(LogError::OutOfRange { asked, first, next, .. }) if asked < first && first <= next => {
                tracing::warn!(topic = topic.as_str(), asked, first, "outputs that are not known to be published are no longer kept");
                self.ends[place] = self.ends[place].max(first);
                if planted == Some(Planted::TrustRetention) {
                    let deleted = replica.unpublished.iter().filter(|output| output.topic == topic);
                    self.present.extend(deleted.map(|output| (output.tag.seq, output.tag.index)));
                }
                self.reading = Some((place, first));
                return Ok(false);
            }
            Err(error) => return Err(error.into()),
        };
        if let Some(last) = records.last() {
            self.ends[place] = last.offset + 1;
            self.reading = Some((place, last.offset + 1));
            return records.iter().try_for_each(|record| self.compare(replica, topic, record, planted)).map(|()| false);
        }
        self.reading = self.ends.get(place + 1).map(|next| (place + 1, *next));
        if self.reading.is_none() {
            self.publish_absent(log, replica, planted)?;
        }
        Ok(self.reading.is_none())
    }

    fn compare(&mut self, replica: &Replica, topic: OutputTopic, record: &StoredRecord, planted: Option<Planted>) -> Result<(), Trouble> {
        let gate = replica.fold.gate();
        let Some(tag) = record.tag.filter(|tag| tag.shard == gate.shard()) else { return Ok(()) };
        let (topic_name, offset, seq) = (Topic::Output(topic), record.offset, tag.seq);
        if seq > gate.seq() {
            return Err(Trouble::OutputAhead { topic: topic_name, offset, seq, ledger_seq: gate.seq() });
        }
        if seq <= replica.fold.output_marks[topic.place()].seq {
            return Ok(());
        }
        let found = replica.unpublished.binary_search_by_key(&(seq, tag.index), |output| (output.tag.seq, output.tag.index));
        let expected = found.ok().and_then(|at| replica.unpublished.get(at));
        if !expected.is_some_and(|output| output.topic == topic && output.key == record.key && output.payload == record.payload) {
            return Err(Trouble::OutputDiffers { topic: topic_name, offset, seq });
        }
        self.present.insert((seq, tag.index));
        if planted == Some(Planted::RepairAfterLast) {
            let up_to = replica.unpublished.iter().take_while(|output| output.tag <= tag);
            self.present.extend(up_to.map(|output| (output.tag.seq, output.tag.index)));
        }
        Ok(())
    }

    fn publish_absent<L: ShardLog>(&mut self, log: &mut L, replica: &Replica, planted: Option<Planted>) -> Result<(), LogError> {
        let absent = |output: &OutputRecord| {
            output.tag.seq > replica.fold.output_marks[output.topic.place()].seq
                && !self.present.contains(&(output.tag.seq, output.tag.index))
                && planted != Some(Planted::SkipRepair)
        };
        for output in replica.unpublished.iter().filter(|output| absent(output)) {
            self.repaired += 1;
            self.publisher.publish(log, output.clone())?;
        }
        Ok(())
    }

    /// Whether everything that was absent is acknowledged.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.reading.is_none() && self.publisher.waiting() == 0
    }

    /// The publisher of the term that begins: everything up to `seq` is published, and what comes
    /// later will lie behind what was read and what was repaired.
    #[must_use]
    pub fn into_publisher(self, seq: u64) -> Publisher {
        let acknowledged = self.publisher.acknowledged_to();
        let mut publisher = self.publisher;
        publisher.settled_at(seq, [0, 1, 2, 3].map(|place| acknowledged[place].max(self.ends[place])));
        publisher
    }
}

/// What contradicts our reading of the ledger may be a newer owner's work: then the ledger says so.
///
/// # Errors
/// The ledger cannot be read on.
pub fn unless_deposed<L: ShardLog>(log: &mut L, replica: &mut Replica, trouble: Trouble) -> Result<Trouble, Trouble> {
    let ours = replica.sequence.term;
    match trouble {
        Trouble::OutputAhead { .. } | Trouble::OutputDiffers { .. } => while replica.read_on(log)? > 0 {},
        Trouble::Log(_) | Trouble::Deposed { .. } | Trouble::Hole { .. } | Trouble::AppendOrder { .. } | Trouble::PublishOrder(_) => {}
        Trouble::Fold(_) | Trouble::Frame(_) | Trouble::OutputLost { .. } | Trouble::InputDiffers { .. } => {}
    }
    let term = replica.sequence.term;
    Ok(if term == ours { trouble } else { Trouble::Deposed { term } })
}

/// Holds the last record applied from each input against what stands there now.
///
/// # Errors
/// [`Trouble::InputDiffers`], or the log fails.
pub fn check_inputs<L: ShardLog>(log: &mut L, marks: &[InputMark]) -> Result<(), Trouble> {
    for mark in marks {
        let (topic, partition) = (mark.topic, mark.partition);
        let Some(offset) = mark.next.checked_sub(1) else { continue };
        let differs = Trouble::InputDiffers { topic: Topic::Input(topic), partition, offset };
        match log.read(ShardTopic::Input { topic, partition }, offset, 1) {
            Ok(records) if records.first().is_some_and(|record| record.offset == offset && digest_of(record) == mark.last) => {}
            Ok(_) => return Err(differs),
            // The topic no longer keeps that record, but lost none that is still to be read.
            Err(LogError::OutOfRange { first, next, .. }) if first <= mark.next && mark.next <= next => {
                tracing::warn!(topic = %Topic::Input(topic), partition, offset, "the record applied last is no longer kept, and cannot be compared");
            }
            // Retention was too short: what is still to be read is not all there.
            Err(LogError::OutOfRange { first, next, .. }) if first > mark.next => {
                return Err(LogError::OutOfRange { topic: Topic::Input(topic), partition, asked: mark.next, first, next }.into());
            }
            Err(LogError::OutOfRange { .. }) => return Err(differs),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn digest_of(record: &StoredRecord) -> frame::Digest {
    let kept = |bytes: &[u8], most: usize| bytes.len().min(most);
    let key = record.key.as_deref().map(|key| &key[..kept(key, frame::KEY_BYTES_KEPT)]);
    frame::record_digest(record.ts, key, &record.payload[..kept(&record.payload, frame::PAYLOAD_BYTES_KEPT)])
}
