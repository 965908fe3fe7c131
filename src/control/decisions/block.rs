//! Blocks of decisions: what a thousand ledger sequences decided, compressed, with a summary beside.
//!
//! Invariant: a block is a function of its sequences and what they caused, whoever writes it and how
//! often; a summary never denies what its block holds. Deliberately absent: where blocks are kept.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::domain::{AccountId, Millis, ReasonCode, RuleId, Symbol, Verdict};
use crate::log::{OutputRecord, OutputTopic};

/// How many ledger sequences share a block.
pub const SEQS_PER_BLOCK: u64 = 1_024;
const MAGIC: [u8; 4] = *b"OGDI";
const VERSION: u16 = 1;
const HEADER_BYTES: usize = 4 + 2 + 4;
/// No block is larger: each record causes one decision, and that repeats ids and reasons only.
const BLOCK_BYTES_MAX: usize = 256 << 20;

/// One decision as it was published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its ledger sequence.
    pub seq: u64,
    /// The time of its record.
    pub at: Millis,
    /// Its JSON.
    pub payload: Vec<u8>,
}

/// What rules did within a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// `RULE_BREACH` notifications.
    pub breaches: u64,
    /// The time of the last one.
    pub last_breach: Option<Millis>,
    /// Decisions that cite a breach of it, exempt ones left out.
    pub decisions: u64,
    /// The time of the last one.
    pub last_decision: Option<Millis>,
}

impl Tally {
    /// Adds another.
    pub fn plus(&mut self, other: &Self) {
        self.breaches += other.breaches;
        self.decisions += other.decisions;
        self.last_breach = self.last_breach.max(other.last_breach);
        self.last_decision = self.last_decision.max(other.last_decision);
    }
}

/// Decisions and breaches of the sequences of a block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Block {
    /// By sequence.
    pub kept: BTreeMap<u64, Kept>,
    /// Breaches that were notified, by sequence and number there: the rule and the time.
    pub breaches: BTreeMap<(u64, u32), (RuleId, Millis)>,
}

/// What may be in a block, without opening it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// How many decisions.
    pub count: u32,
    /// The earliest and the latest time.
    pub times: (Millis, Millis),
    verdicts: u8,
    codes: u64,
    accounts: Vec<u32>,
    symbols: Vec<u32>,
    /// What rules did, by rule.
    pub tallies: BTreeMap<RuleId, Tally>,
}

/// Why bytes are no block.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a part of the decisions' index is damaged: {0}")]
pub struct Damaged(pub &'static str);

/// The fields of a decision that are searched for.
#[derive(Debug, Deserialize)]
pub struct Face<'a> {
    /// Its account.
    #[serde(borrow)]
    pub account: &'a str,
    /// Its symbol.
    pub symbol: Option<&'a str>,
    /// Its verdict.
    pub verdict: &'a str,
    /// Its reasons.
    #[serde(borrow)]
    pub reasons: Vec<ReasonFace<'a>>,
    /// Its ledger sequence: of a repeat, that of the first.
    pub seq: u64,
    /// The time of its record.
    pub at: Millis,
}

/// The fields of a reason that are searched for.
#[derive(Debug, Deserialize)]
pub struct ReasonFace<'a> {
    /// Its code.
    pub code: &'a str,
    /// Its rule.
    pub rule_id: Option<&'a str>,
    /// It is only listed.
    #[serde(default)]
    pub exempt: bool,
}

#[derive(Deserialize)]
struct NoticeFace<'a> {
    code: &'a str,
    at: Millis,
    #[serde(borrow)]
    data: NoticeData<'a>,
}

#[derive(Deserialize)]
struct NoticeData<'a> {
    rule_id: Option<&'a str>,
}

/// The block of a ledger sequence.
#[must_use]
pub const fn block_of(seq: u64) -> u64 {
    seq / SEQS_PER_BLOCK
}

impl Block {
    /// Takes what a record caused, if it is a decision of its own or a breach.
    pub fn take(&mut self, output: &OutputRecord) {
        match output.topic {
            OutputTopic::Decisions => {
                let Ok(face) = serde_json::from_slice::<Face<'_>>(&output.payload) else { return };
                // A decision that is published again stands where it was made.
                if face.seq == output.tag.seq {
                    self.kept.insert(face.seq, Kept { seq: face.seq, at: face.at, payload: output.payload.clone() });
                }
            }
            OutputTopic::Notifications => {
                let Ok(face) = serde_json::from_slice::<NoticeFace<'_>>(&output.payload) else { return };
                let rule = face.data.rule_id.and_then(|id| RuleId::parse(id.as_bytes()));
                if let Some(rule) = rule.filter(|_| face.code == "RULE_BREACH") {
                    self.breaches.insert((output.tag.seq, output.tag.index), (rule, face.at));
                }
            }
            OutputTopic::Commands | OutputTopic::DeadLetter => {}
        }
    }

    /// Adds what another block of the same sequences has.
    pub fn merge(&mut self, other: Self) {
        self.kept.extend(other.kept);
        self.breaches.extend(other.breaches);
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty() && self.breaches.is_empty()
    }

    /// What may be in it.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let mut summary = Summary { count: u32::try_from(self.kept.len()).unwrap_or(u32::MAX), ..Summary::default() };
        let times = self.kept.values().map(|kept| kept.at);
        summary.times = (times.clone().min().unwrap_or_default(), times.max().unwrap_or_default());
        for kept in self.kept.values() {
            let Ok(face) = serde_json::from_slice::<Face<'_>>(&kept.payload) else { continue };
            summary.verdicts |= verdict_bit(Verdict::parse(face.verdict));
            summary.accounts.push(crc32fast::hash(face.account.as_bytes()));
            summary.symbols.extend(face.symbol.map(|symbol| crc32fast::hash(symbol.as_bytes())));
            for reason in &face.reasons {
                summary.codes |= code_bit(ReasonCode::parse(reason.code));
                let rule = reason.rule_id.filter(|_| reason.code == "RULE_BREACH" && !reason.exempt);
                if let Some(rule) = rule.and_then(|id| RuleId::parse(id.as_bytes())) {
                    let tally = summary.tallies.entry(rule).or_default();
                    tally.plus(&Tally { decisions: 1, last_decision: Some(face.at), ..Tally::default() });
                }
            }
        }
        for (rule, at) in self.breaches.values() {
            summary.tallies.entry(*rule).or_default().plus(&Tally { breaches: 1, last_breach: Some(*at), ..Tally::default() });
        }
        for hashes in [&mut summary.accounts, &mut summary.symbols] {
            hashes.sort_unstable();
            hashes.dedup();
        }
        summary
    }

    /// Its bytes.
    pub fn encode(&self) -> Result<Vec<u8>, Damaged> {
        let mut plain = Vec::new();
        let length = |count: usize| u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes();
        plain.extend(length(self.kept.len()));
        for kept in self.kept.values() {
            plain.extend(kept.seq.to_le_bytes());
            plain.extend(kept.at.to_le_bytes());
            plain.extend(length(kept.payload.len()));
            plain.extend_from_slice(&kept.payload);
        }
        plain.extend(length(self.breaches.len()));
        for ((seq, index), (rule, at)) in &self.breaches {
            plain.extend(seq.to_le_bytes());
            plain.extend(index.to_le_bytes());
            plain.extend(at.to_le_bytes());
            plain.extend(length(rule.as_bytes().len()));
            plain.extend_from_slice(rule.as_bytes());
        }
        zstd::bulk::compress(&plain, 1).map(|body| sealed(&body)).map_err(|_| Damaged("it cannot be compressed"))
    }

    /// The block of the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, Damaged> {
        let plain = zstd::stream::decode_all(opened(bytes)?).map_err(|_| Damaged("it does not decompress"))?;
        if plain.len() > BLOCK_BYTES_MAX {
            return Err(Damaged("it is too long"));
        }
        let (mut rest, mut block) = (Rest(&plain), Self::default());
        for _ in 0..rest.u32()? {
            let (seq, at) = (rest.u64()?, rest.u64()?.cast_signed());
            let length = rest.u32()? as usize;
            block.kept.insert(seq, Kept { seq, at, payload: rest.take(length)?.to_vec() });
        }
        for _ in 0..rest.u32()? {
            let (seq, index, at) = (rest.u64()?, rest.u32()?, rest.u64()?.cast_signed());
            let length = rest.u32()? as usize;
            let rule = RuleId::parse(rest.take(length)?).ok_or(Damaged("a rule has no id"))?;
            block.breaches.insert((seq, index), (rule, at));
        }
        if rest.0.is_empty() { Ok(block) } else { Err(Damaged("something is left over")) }
    }
}

impl Summary {
    /// Its bytes.
    pub fn encode(&self) -> Result<Vec<u8>, Damaged> {
        let body = bincode::serde::encode_to_vec(self, bincode::config::standard()).map_err(|_| Damaged("it cannot be encoded"))?;
        Ok(sealed(&body))
    }

    /// The summary of the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, Damaged> {
        let config = bincode::config::standard().with_limit::<{ 16 << 20 }>();
        let decoded = bincode::serde::decode_from_slice(opened(bytes)?, config);
        decoded.map(|(summary, _)| summary).map_err(|_| Damaged("a summary does not decode"))
    }

    /// Whether a decision of one of the accounts may be in the block.
    #[must_use]
    pub fn may_have_account(&self, account: &AccountId) -> bool {
        self.accounts.binary_search(&crc32fast::hash(account.as_bytes())).is_ok()
    }

    /// Whether a decision about the symbol may be.
    #[must_use]
    pub fn may_have_symbol(&self, symbol: &Symbol) -> bool {
        self.symbols.binary_search(&crc32fast::hash(symbol.as_bytes())).is_ok()
    }

    /// Whether one with the verdict is.
    #[must_use]
    pub fn has_verdict(&self, verdict: Verdict) -> bool {
        self.verdicts & verdict_bit(Some(verdict)) != 0
    }

    /// Whether one with the code is.
    #[must_use]
    pub fn has_code(&self, code: ReasonCode) -> bool {
        self.codes & code_bit(Some(code)) != 0
    }
}

fn verdict_bit(verdict: Option<Verdict>) -> u8 {
    verdict.map_or(0, |verdict| 1 << (verdict as u32))
}

fn code_bit(code: Option<ReasonCode>) -> u64 {
    code.map_or(0, |code| 1 << (code as u32))
}

/// A body behind its magic, version and checksum.
pub fn sealed(body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
    bytes.extend(MAGIC);
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend(crc32fast::hash(body).to_le_bytes());
    bytes.extend_from_slice(body);
    bytes
}

/// The body of sealed bytes.
pub fn opened(bytes: &[u8]) -> Result<&[u8], Damaged> {
    let (header, body) = bytes.split_at_checked(HEADER_BYTES).ok_or(Damaged("it is cut short"))?;
    if header[..4] != MAGIC || header[4..6] != VERSION.to_le_bytes() {
        return Err(Damaged("it is of another format"));
    }
    if header[6..] == crc32fast::hash(body).to_le_bytes() { Ok(body) } else { Err(Damaged("its checksum does not match")) }
}

struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], Damaged> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Damaged("it is cut short"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn u32(&mut self) -> Result<u32, Damaged> {
        self.take(4)?.try_into().map(u32::from_le_bytes).map_err(|_| Damaged("it is cut short"))
    }

    fn u64(&mut self) -> Result<u64, Damaged> {
        self.take(8)?.try_into().map(u64::from_le_bytes).map_err(|_| Damaged("it is cut short"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{InputTopic, Source};
    use crate::log::OutputTag;

    fn output(topic: OutputTopic, seq: u64, payload: &str) -> OutputRecord {
        let source = Source { topic: InputTopic::Intents, partition: 0, offset: seq };
        OutputRecord { topic, tag: OutputTag { shard: 0, seq, index: 0 }, source, key: None, payload: payload.as_bytes().to_vec() }
    }

    fn decision(seq: u64, account: &str, code: &str) -> String {
        format!(
            r#"{{"event":"decision","account":"{account}","symbol":"AAPL","verdict":"block","reasons":[{{"code":"{code}","rule_id":"r-1","exempt":false}}],"seq":{seq},"at":{}}}"#,
            seq * 10
        )
    }

    #[test]
    fn a_block_comes_back_as_it_was_and_its_summary_denies_nothing_that_it_holds() {
        let mut block = Block::default();
        block.take(&output(OutputTopic::Decisions, 5, &decision(5, "ACC1", "RULE_BREACH")));
        block.take(&output(OutputTopic::Decisions, 6, &decision(6, "ACC2", "HALTED")));
        block.take(&output(OutputTopic::Decisions, 7, &decision(5, "ACC1", "RULE_BREACH")));
        block.take(&output(OutputTopic::Notifications, 6, r#"{"code":"RULE_BREACH","at":60,"data":{"rule_id":"r-1"}}"#));
        block.take(&output(OutputTopic::Notifications, 6, r#"{"code":"RULE_WARNING","at":60,"data":{"rule_id":"r-1"}}"#));
        assert_eq!(block.kept.keys().copied().collect::<Vec<_>>(), [5, 6], "a repeat stands where it was made");
        assert_eq!(Block::decode(&block.encode().unwrap()).unwrap(), block);
        let summary = block.summary();
        assert_eq!(Summary::decode(&summary.encode().unwrap()).unwrap(), summary);
        assert_eq!((summary.count, summary.times), (2, (50, 60)));
        let account = |name: &str| AccountId::parse(name.as_bytes()).unwrap();
        assert!(summary.may_have_account(&account("ACC1")) && summary.may_have_account(&account("ACC2")));
        assert!(!summary.may_have_account(&account("ACC3")));
        assert!(summary.has_verdict(Verdict::Block) && !summary.has_verdict(Verdict::Allow));
        assert!(summary.has_code(ReasonCode::Halted) && !summary.has_code(ReasonCode::PriceStale));
        let tally = summary.tallies[&account("r-1")];
        assert_eq!((tally.breaches, tally.decisions, tally.last_breach, tally.last_decision), (1, 1, Some(60), Some(50)));
    }

    #[test]
    fn damage_anywhere_is_noticed() {
        let mut block = Block::default();
        block.take(&output(OutputTopic::Decisions, 5, &decision(5, "ACC1", "HALTED")));
        let bytes = block.encode().unwrap();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(Block::decode(&damaged).is_err(), "byte {at}");
            assert!(Block::decode(&bytes[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn every_code_and_verdict_has_a_bit_of_its_own() {
        let codes = ReasonCode::ALL.iter().fold(0, |bits, code| bits | code_bit(Some(*code)));
        assert_eq!(codes.count_ones() as usize, ReasonCode::ALL.len());
        let verdicts = Verdict::ALL.iter().fold(0, |bits, verdict| bits | verdict_bit(Some(*verdict)));
        assert_eq!(verdicts.count_ones() as usize, Verdict::ALL.len());
    }
}
