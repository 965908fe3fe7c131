//! Where every shard's ledger ends, who claimed it, and how far its inputs are applied.
//!
//! Invariant: the last entries are judged as every reader judges them, from the first frame of the newest term
//! among them on; the claim is looked for by halves, since terms only grow. Deliberately absent: the fold, and
//! any proof about the entries before: when all but a claim of the last entries are void, the hash told is not the
//! chain's (`ordergate ledger head` and `verify` judge all).

use std::collections::BTreeMap;

use serde::Serialize;

use crate::domain::{InputTopic, Millis};
use crate::engine::{Judgement, Sequence};
use crate::log::{Extent, LogError, StoredRecord, Topic};
use crate::wire::frame::{self, Claim, Entry, Frame};

use super::super::reader::Reader;
use super::{Examination, described};

/// How many of the last entries are judged.
const WINDOW: u64 = 16;
/// So many waiting offsets are looked at one by one.
const COUNTED_MAX: u64 = 256;
/// How far a claim can be from the first frame of its term that was found: entries of its predecessor lie between.
const STALE_MAX: u64 = 64;

/// The end of one shard's ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LedgerEnd {
    /// The shard.
    pub shard: u32,
    /// The next offset of its ledger.
    pub offset: Option<u64>,
    /// The last entry that counts.
    pub head: Option<Head>,
    /// The claim of its term.
    pub claim: Option<Claimed>,
    /// How far its inputs are applied.
    pub sources: Vec<SourceLag>,
    /// The sum of what is not applied.
    pub lag: Option<u64>,
    /// What could not be learned, or is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// Whether that is a matter of the ledger, and not of who can be asked.
    #[serde(skip)]
    pub is_damaged: bool,
}

/// The last entry that counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Head {
    /// Its term.
    pub term: u64,
    /// Its number among those that count.
    pub n: u64,
    /// The sequence of the last record that was applied.
    pub seq: u64,
    /// Where it stands.
    pub offset: u64,
    /// The chain's hash after it.
    pub hash: String,
    /// The writer's clock.
    pub made_at: Millis,
    /// The record's timestamp: the broker's clock where the topic has LogAppendTime.
    pub appended_at: Millis,
}

/// Who owns a shard, as its ledger tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Claimed {
    /// Who: `kafka.instance` and its process.
    pub owner: String,
    /// The term.
    pub term: u64,
    /// Since when, by the claimant's clock.
    pub since: Millis,
    /// Where the claim stands.
    pub offset: u64,
    /// The program that claimed.
    pub program_version: String,
}

/// How far one input is applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SourceLag {
    /// The topic's default name.
    pub topic: &'static str,
    /// The partition.
    pub partition: u32,
    /// The offset to apply next; `null` when nothing of it was applied yet.
    pub applied: Option<u64>,
    /// The first offset that is kept.
    pub first: u64,
    /// Its end. The marks of transactions have offsets too.
    pub end: u64,
    /// The records between, as far as they are few; else the offsets.
    pub lag: u64,
}

impl SourceLag {
    /// Whether what is to be applied next is gone, or never was.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.applied.is_some_and(|applied| applied < self.first || applied > self.end)
    }
}

/// Why a ledger's end is not known.
#[derive(Debug, thiserror::Error)]
enum EndError {
    #[error("{}", described(.0))]
    Log(#[from] LogError),
    #[error("the entry at offset {offset} cannot be read: {error}; `ordergate verify` says whether more is damaged")]
    Entry { offset: u64, error: frame::FrameError },
    #[error("the last {entries} entries do not follow each other; `ordergate verify` judges all of them")]
    Sequence { entries: usize },
}

/// An entry with its record.
type Read = (StoredRecord, Entry);

/// Where partitions end, asked once each.
type Extents = BTreeMap<(InputTopic, u32), Extent>;

impl Examination {
    /// Every shard's.
    pub(super) fn ledgers(&mut self) -> Vec<LedgerEnd> {
        let mut ends = Vec::new();
        let mut extents = Extents::new();
        let mut reader = match Reader::of_ranges(&self.cluster) {
            Ok(reader) => reader,
            Err(failure) => {
                self.not_tried.push(format!("the ledgers: {failure}"));
                return ends;
            }
        };
        for shard in 0..self.plan.shards {
            if !self.is_led(Topic::Ledger, shard) {
                let trouble = Some("its ledger has no leader that answers us".to_owned());
                ends.push(LedgerEnd { shard, trouble, ..LedgerEnd::default() });
            } else if self.has_time_for(&format!("the ledger of shard {shard}")) {
                ends.push(self.ledger(shard, &mut reader, &mut extents));
            }
        }
        ends
    }

    fn ledger(&self, shard: u32, reader: &mut Reader, extents: &mut Extents) -> LedgerEnd {
        let mut end = LedgerEnd { shard, ..LedgerEnd::default() };
        if let Err(error) = self.read_end(&mut end, reader, extents) {
            end.is_damaged = !matches!(error, EndError::Log(_));
            end.trouble = Some(error.to_string());
        }
        end
    }

    fn read_end(&self, end: &mut LedgerEnd, reader: &mut Reader, extents: &mut Extents) -> Result<(), EndError> {
        let extent = self.cluster.extent(Topic::Ledger, end.shard)?;
        end.offset = Some(extent.next);
        let from = extent.first.max(extent.next.saturating_sub(WINDOW));
        let window = entries(reader, end.shard, from, extent.next)?;
        let judged = judge(&window)?;
        let last_frame = judged.last_frame.and_then(|place| Some((&window.get(place)?.0, frame_of(&window.get(place)?.1)?)));
        end.sources = self.sources(end.shard, last_frame.map(|(_, frame)| frame), reader, extents)?;
        end.lag = Some(end.sources.iter().map(|source| source.lag).sum());
        if let Some((record, entry)) = judged.last.and_then(|place| window.get(place)) {
            let seq = last_frame.map_or(0, |(_, frame)| (frame.first_seq + frame.inputs.len() as u64).saturating_sub(1));
            end.head = Some(head(&judged.sequence, record, entry, seq));
            end.claim = claim(reader, end.shard, judged.sequence.term, extent.first, &window)?;
        }
        Ok(())
    }

    /// How far the inputs of a shard are applied: as the last frame says, or not at all.
    fn sources(&self, shard: u32, last: Option<&Frame>, reader: &mut Reader, extents: &mut Extents) -> Result<Vec<SourceLag>, LogError> {
        let mut sources = Vec::new();
        for (topic, partition) in self.inputs_of(shard) {
            let extent = match extents.get(&(topic, partition)) {
                Some(extent) => *extent,
                None => self.cluster.extent(Topic::Input(topic), partition)?,
            };
            extents.insert((topic, partition), extent);
            let marks = last.map(|frame| frame.input_marks.as_slice()).unwrap_or_default();
            let applied = marks.iter().find(|mark| (mark.topic, mark.partition) == (topic, partition)).map(|mark| mark.next);
            let from = applied.unwrap_or(extent.first).max(extent.first);
            let lag = waiting(reader, &extent, from);
            sources.push(SourceLag { topic: topic.as_str(), partition, applied, first: extent.first, end: extent.next, lag });
        }
        Ok(sources)
    }

    /// The inputs of a shard that someone who answers us leads.
    fn inputs_of(&self, shard: u32) -> Vec<(InputTopic, u32)> {
        let count = |topic| self.seen.topics.get(&Topic::Input(topic)).map_or(0, |found| found.partitions.len());
        let prices = (0..u32::try_from(count(InputTopic::Prices)).unwrap_or(0)).map(|partition| (InputTopic::Prices, partition));
        let own = [(InputTopic::Intents, shard), (InputTopic::Executions, shard), (InputTopic::Control, 0)];
        own.into_iter().chain(prices).filter(|(topic, partition)| self.is_led(Topic::Input(*topic), *partition)).collect()
    }
}

/// What waits to be applied. Few offsets are read, since marks of transactions are no records.
fn waiting(reader: &mut Reader, extent: &Extent, from: u64) -> u64 {
    let offsets = extent.next.saturating_sub(from);
    if offsets == 0 || offsets > COUNTED_MAX {
        return offsets;
    }
    let records = reader.read(extent.topic, extent.partition, from, COUNTED_MAX as usize);
    records.map_or(offsets, |records| records.len() as u64)
}

/// The entries from one offset up to another.
fn entries(reader: &mut Reader, shard: u32, from: u64, to: u64) -> Result<Vec<Read>, EndError> {
    let mut found = Vec::new();
    let mut next = from;
    while next < to {
        let limit = usize::try_from(to - next).unwrap_or(usize::MAX);
        let records = reader.read(Topic::Ledger, shard, next, limit)?;
        let Some(last) = records.last() else { break };
        next = last.offset + 1;
        for record in records {
            let entry = frame::decode(&record.payload).map_err(|error| EndError::Entry { offset: record.offset, error })?;
            found.push((record, entry));
        }
    }
    Ok(found)
}

/// The last entries of a ledger, judged: the places of the last that counts, and of the last frame that does.
#[derive(Debug, Default)]
struct Judged {
    sequence: Sequence,
    last: Option<usize>,
    last_frame: Option<usize>,
}

fn judge(window: &[Read]) -> Result<Judged, EndError> {
    let Some((start, sequence)) = start(window) else { return Ok(Judged::default()) };
    let mut judged = Judged { sequence, ..Judged::default() };
    let broken = || EndError::Sequence { entries: window.len() };
    for (place, (record, entry)) in window.iter().enumerate().skip(start) {
        let judgement = judged.sequence.judge(record.offset, entry, &record.payload).map_err(|_| broken())?;
        if judgement == Judgement::Counts {
            judged.last = Some(place);
            judged.last_frame = frame_of(entry).map(|_| place).or(judged.last_frame);
        }
    }
    if judged.last.is_none() { Err(broken()) } else { Ok(judged) }
}

/// Where to begin to judge, and what was before: the beginning of the ledger; or else the first frame of the newest term that
/// has one, unless a claim of a still higher term comes before it.
fn start(window: &[Read]) -> Option<(usize, Sequence)> {
    let (first, _) = window.first()?;
    if first.offset == 0 {
        return Some((0, Sequence::default()));
    }
    let newest = window.iter().filter_map(|(_, entry)| frame_of(entry)).map(|frame| frame.term).max();
    let begins = |(_, entry): &Read| match entry {
        Entry::Frame(frame) => Some(frame.term) == newest,
        Entry::Claim(claim) => newest.is_none_or(|newest| claim.term > newest),
    };
    let place = window.iter().position(begins)?;
    let (record, entry) = window.get(place)?;
    let (term, n, head) = match entry {
        Entry::Frame(frame) => (frame.term, frame.n, frame.prev_hash),
        Entry::Claim(claim) => (claim.term.saturating_sub(1), claim.n, claim.prev_hash),
    };
    Some((place, Sequence { term, n, head, next_offset: record.offset, ..Sequence::default() }))
}

fn head(sequence: &Sequence, record: &StoredRecord, entry: &Entry, seq: u64) -> Head {
    Head {
        term: sequence.term,
        n: sequence.n.saturating_sub(1),
        seq,
        offset: record.offset,
        hash: blake3::Hash::from_bytes(sequence.head).to_hex().to_string(),
        made_at: match entry {
            Entry::Frame(frame) => frame.received,
            Entry::Claim(claim) => claim.at,
        },
        appended_at: record.ts,
    }
}

/// The claim of a term: among the last entries, or found by halves before them.
fn claim(reader: &mut Reader, shard: u32, term: u64, first: u64, window: &[Read]) -> Result<Option<Claimed>, EndError> {
    if let Some(found) = claim_in(window, term) {
        return Ok(Some(found));
    }
    let Some((record, _)) = window.first() else { return Ok(None) };
    let (mut below, mut at) = (first, record.offset);
    while below < at {
        let middle = below + (at - below) / 2;
        match entries(reader, shard, middle, middle + 1)?.first() {
            Some((_, entry)) if term_of(entry) >= term => at = middle,
            Some(_) | None => below = middle + 1,
        }
    }
    let around = entries(reader, shard, first.max(at.saturating_sub(STALE_MAX)), (at + 1).min(record.offset + 1))?;
    Ok(claim_in(&around, term))
}

fn claim_in(entries: &[Read], term: u64) -> Option<Claimed> {
    let of = |(record, entry): &Read| match entry {
        Entry::Claim(claim) if claim.term == term => Some(claimed(claim, record.offset)),
        Entry::Claim(_) | Entry::Frame(_) => None,
    };
    entries.iter().find_map(of)
}

fn claimed(claim: &Claim, offset: u64) -> Claimed {
    Claimed { owner: claim.owner.clone(), term: claim.term, since: claim.at, offset, program_version: claim.program_version.clone() }
}

fn frame_of(entry: &Entry) -> Option<&Frame> {
    match entry {
        Entry::Frame(frame) => Some(frame),
        Entry::Claim(_) => None,
    }
}

const fn term_of(entry: &Entry) -> u64 {
    match entry {
        Entry::Frame(frame) => frame.term,
        Entry::Claim(claim) => claim.term,
    }
}

/// What the newest entries say about clocks.
pub(super) fn clock(shards: &[LedgerEnd], is_broker_time: bool, now: Millis) -> super::Clock {
    let newest =
        shards.iter().filter_map(|shard| shard.head.as_ref().map(|head| (head, shard.shard))).max_by_key(|(head, _)| head.appended_at);
    match newest {
        None => super::Clock { from: "no ledger has an entry: nothing tells the broker's clock".into(), ..super::Clock::default() },
        Some(_) if !is_broker_time => {
            let from = "the ledger's topic has its writers' time (message.timestamp.type): nothing tells the broker's clock".into();
            super::Clock { from, ..super::Clock::default() }
        }
        Some((head, shard)) => super::Clock {
            owner_minus_broker_ms: Some(head.made_at - head.appended_at),
            ours_behind_broker_ms_at_least: Some((head.appended_at - now).max(0)),
            from: format!(
                "the entry at offset {} of shard {shard}'s ledger: its writer's clock, and the broker's (LogAppendTime)",
                head.offset
            ),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Claimant;

    /// Entries as an honest writer makes them: `c` claims, `f` is a frame of one record, `v` a frame of the term before.
    fn ledger(kinds: &str) -> Vec<Read> {
        let mut sequence = Sequence::default();
        let mut found: Vec<Read> = Vec::new();
        for (offset, kind) in (0..).zip(kinds.chars()) {
            let owner = format!("gate-{}", sequence.term + 1);
            let frame = |term| {
                Entry::Frame(Frame {
                    term,
                    n: sequence.n,
                    prev_hash: sequence.head,
                    first_seq: offset,
                    received: 1_000 + i64::try_from(offset).unwrap(),
                    inputs: Vec::new(),
                    input_marks: Vec::new(),
                    output_marks: Default::default(),
                    state_hash: None,
                })
            };
            let entry = match kind {
                'c' => Claimant { owner, ..Claimant::default() }.claim(&sequence, 7),
                'v' => frame(sequence.term - 1),
                _ => frame(sequence.term),
            };
            let payload = frame::encode(&entry).unwrap();
            sequence.judge(offset, &entry, &payload).unwrap();
            found.push((StoredRecord { offset, ts: 2_000, key: None, payload, tag: None }, entry));
        }
        found
    }

    #[test]
    fn the_end_judged_from_the_last_entries_is_the_end_judged_from_all() {
        for kinds in ["c", "cf", "cffff", "cffcff", "cffcvvff", "cfffc", "cffcc", "cffcvv", "cffcvvvc"] {
            let all = ledger(kinds);
            let whole = judge(&all).unwrap();
            let mut sequence = Sequence::default();
            let mut judge_one = |(record, entry): &Read| sequence.judge(record.offset, entry, &record.payload).unwrap();
            let counts: Vec<u64> =
                all.iter().filter(|read| judge_one(read) == Judgement::Counts).map(|(record, _)| record.offset).collect();
            for from in 0..all.len() {
                let window = &all[from..];
                // What begins with void entries up to a claim does not tell that they are void.
                let counting = window.iter().position(|(record, _)| counts.contains(&record.offset));
                if counting.is_none_or(|place| place > 0 && matches!(window[place].1, Entry::Claim(_))) {
                    continue;
                }
                let judged = judge(window).unwrap();
                assert_eq!((judged.sequence.term, judged.sequence.head), (whole.sequence.term, whole.sequence.head), "{kinds} from {from}");
                assert_eq!(judged.last.map(|place| place + from), whole.last, "{kinds} from {from}");
            }
        }
    }

    #[test]
    fn an_empty_ledger_has_no_head() {
        let judged = judge(&[]).unwrap();
        assert!(judged.last.is_none() && judged.last_frame.is_none());
    }

    #[test]
    fn an_altered_entry_is_noticed() {
        let mut all = ledger("cffff");
        let Entry::Frame(frame) = &mut all[3].1 else { unreachable!() };
        frame.prev_hash = [9; 32];
        assert!(matches!(judge(&all[1..]), Err(EndError::Sequence { entries: 4 })));
    }

    #[test]
    fn the_claim_is_the_first_of_its_term() {
        let found = claim_in(&ledger("cffcff"), 2).unwrap();
        assert_eq!((found.owner.as_str(), found.offset), ("gate-2", 3));
        assert_eq!(claim_in(&ledger("cff"), 2), None);
    }

    #[test]
    fn clocks_are_compared_only_where_the_broker_gave_the_time() {
        let head = Head { term: 1, n: 1, seq: 1, offset: 4, hash: String::new(), made_at: 5_000, appended_at: 5_003 };
        let shards = [LedgerEnd { head: Some(head), ..LedgerEnd::default() }];
        let told = clock(&shards, true, 4_000);
        assert_eq!((told.owner_minus_broker_ms, told.ours_behind_broker_ms_at_least), (Some(-3), Some(1_003)));
        assert_eq!(clock(&shards, true, 9_000).ours_behind_broker_ms_at_least, Some(0));
        assert_eq!(clock(&shards, false, 4_000).owner_minus_broker_ms, None);
        assert_eq!(clock(&[], true, 4_000).owner_minus_broker_ms, None);
    }

    #[test]
    fn a_source_that_lost_its_place_is_told_from_one_that_lags() {
        let source = |applied, first, end| SourceLag { topic: "t", partition: 0, applied, first, end, lag: 0 };
        assert!(source(Some(3), 4, 9).is_lost() && source(Some(10), 4, 9).is_lost());
        assert!(!source(Some(4), 4, 9).is_lost() && !source(Some(9), 4, 9).is_lost() && !source(None, 4, 9).is_lost());
    }
}
