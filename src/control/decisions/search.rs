//! Searching decisions: newest first, block by block.
//!
//! Invariant: memory and work of one answer are bounded whatever the range; an answer may hold fewer
//! decisions than asked for, and its cursor goes on exactly behind what was looked at. Deliberately
//! absent: counts of all that match.

use std::collections::BTreeSet;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use super::block::{Block, Face, Kept, SEQS_PER_BLOCK, Summary, block_of};
use super::store::{IndexError, Store};
use super::{Decisions, locked};
use crate::domain::{AccountId, Millis, ReasonCode, Symbol, Verdict};

/// How many blocks one answer may open.
const OPENED_MAX: usize = 400;
/// How many summaries it may look at.
const SEEN_MAX: usize = 40_000;

/// Which decisions are looked for: all that is given must match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// One of these accounts; `None` = any.
    pub accounts: Option<BTreeSet<AccountId>>,
    /// This verdict.
    pub verdict: Option<Verdict>,
    /// A reason with this code.
    pub code: Option<ReasonCode>,
    /// This symbol.
    pub symbol: Option<Symbol>,
    /// Not earlier than this.
    pub from: Option<Millis>,
    /// Earlier than this.
    pub to: Option<Millis>,
}

/// Some of the decisions that were looked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The decisions, newest first, each as its JSON.
    pub decisions: Vec<Vec<u8>>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<String>,
}

impl Filter {
    fn may_match(&self, summary: &Summary) -> bool {
        self.from.is_none_or(|from| summary.times.1 >= from)
            && self.to.is_none_or(|to| summary.times.0 < to)
            && self.verdict.is_none_or(|verdict| summary.has_verdict(verdict))
            && self.code.is_none_or(|code| summary.has_code(code))
            && self.symbol.is_none_or(|symbol| summary.may_have_symbol(&symbol))
            && self.accounts.as_ref().is_none_or(|accounts| accounts.iter().any(|account| summary.may_have_account(account)))
    }

    /// Whether a decision matches.
    #[must_use]
    pub fn matches(&self, payload: &[u8]) -> bool {
        let Ok(face) = serde_json::from_slice::<Face<'_>>(payload) else { return false };
        let account = AccountId::parse(face.account.as_bytes());
        self.from.is_none_or(|from| face.at >= from)
            && self.to.is_none_or(|to| face.at < to)
            && self.verdict.is_none_or(|verdict| face.verdict == verdict.as_str())
            && self.symbol.is_none_or(|symbol| face.symbol == Some(symbol.as_str()))
            && self.code.is_none_or(|code| face.reasons.iter().any(|reason| reason.code == code.as_str()))
            && self.accounts.as_ref().is_none_or(|accounts| account.is_some_and(|account| accounts.contains(&account)))
    }

    fn mark(&self) -> u32 {
        crc32fast::hash(format!("{self:?}").as_bytes())
    }
}

/// A place in the history: below which sequence each shard is still to be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Cursor {
    filter: u32,
    below: Vec<u64>,
}

impl Cursor {
    fn encode(&self) -> String {
        let mut bytes = self.filter.to_le_bytes().to_vec();
        self.below.iter().for_each(|seq| bytes.extend(seq.to_le_bytes()));
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    }

    fn decode(text: &str) -> Option<Self> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
        let (filter, below) = bytes.split_first_chunk::<4>()?;
        let (seqs, rest) = below.as_chunks::<8>();
        rest.is_empty()
            .then(|| Self { filter: u32::from_le_bytes(*filter), below: seqs.iter().map(|seq| u64::from_le_bytes(*seq)).collect() })
    }
}

/// What is left of one answer's work.
struct Budget {
    opened: usize,
    seen: usize,
}

/// One shard on the way back.
struct Walk {
    shard: u32,
    /// Everything at or above it was looked at.
    below: u64,
    /// What matched of the block that is open, the newest last.
    found: Vec<Kept>,
    open: Option<u64>,
    ended: bool,
}

impl Decisions {
    /// Some of the decisions that match, newest first. `None` for a cursor that is not one, or of another search.
    ///
    /// # Errors
    /// The index cannot be read; it is made anew.
    pub fn search(&self, filter: &Filter, cursor: Option<&str>, limit: usize) -> Result<Option<Page>, IndexError> {
        let count = self.options.shards as usize;
        let below = match cursor {
            None => vec![u64::MAX; count],
            Some(text) => match Cursor::decode(text).filter(|cursor| cursor.filter == filter.mark() && cursor.below.len() == count) {
                Some(cursor) => cursor.below,
                None => return Ok(None),
            },
        };
        let found = self.store().and_then(|store| self.walk(&store, filter, below, limit));
        if let Err(error) = &found {
            self.doubt(error);
        }
        found.map(Some)
    }

    fn walk(&self, store: &Store, filter: &Filter, below: Vec<u64>, limit: usize) -> Result<Page, IndexError> {
        let mut budget = Budget { opened: OPENED_MAX, seen: SEEN_MAX };
        let mut walks: Vec<Walk> =
            (0..).zip(below).map(|(shard, below)| Walk { shard, below, found: Vec::new(), open: None, ended: below == 0 }).collect();
        for walk in walks.iter_mut().filter(|walk| !walk.ended) {
            if let Some(to) = filter.to {
                let last = store.last_before(walk.shard, block_of(walk.below - 1), to)?;
                walk.below = walk.below.min((last + 1).saturating_mul(SEQS_PER_BLOCK));
            }
        }
        let mut decisions = Vec::new();
        let out_of_breath = loop {
            for walk in &mut walks {
                self.look(store, filter, walk, &mut budget)?;
            }
            if walks.iter().any(|walk| walk.found.is_empty() && !walk.ended) {
                break true;
            }
            if decisions.len() == limit {
                break false;
            }
            let newest = walks.iter_mut().filter(|walk| !walk.found.is_empty());
            let newest = newest.max_by_key(|walk| walk.found.last().map(|kept| (kept.at, walk.shard, kept.seq)));
            let Some((walk, kept)) = newest.and_then(|walk| walk.found.pop().map(|kept| (walk, kept))) else { break false };
            walk.below = kept.seq;
            decisions.push(kept.payload);
        };
        let more = out_of_breath || walks.iter().any(|walk| !walk.found.is_empty() || !walk.ended);
        let below = walks.iter().map(Walk::next).collect();
        Ok(Page { decisions, next: more.then(|| Cursor { filter: filter.mark(), below }.encode()) })
    }

    /// Goes back until something matches, the beginning is reached, or the budget is.
    fn look(&self, store: &Store, filter: &Filter, walk: &mut Walk, budget: &mut Budget) -> Result<(), IndexError> {
        while walk.found.is_empty() && !walk.ended {
            if let Some(number) = walk.open.take() {
                walk.go_below(number);
                continue;
            }
            if budget.opened == 0 || budget.seen == 0 {
                break;
            }
            budget.seen -= 1;
            let last = block_of(walk.below - 1);
            let stored = store.summary_below(walk.shard, last)?;
            let live = self.in_memory(walk.shard, last).filter(|(live, _)| stored.as_ref().is_none_or(|(stored, _)| stored <= live));
            match (live, stored) {
                (Some((number, block)), _) => {
                    walk.open(number, self.whole(walk.shard, number, block)?, filter);
                }
                (None, Some((number, summary))) => {
                    if summary.count > 0 && filter.from.is_some_and(|from| summary.times.1 < from) {
                        walk.end();
                    } else if filter.may_match(&summary) {
                        budget.opened -= 1;
                        walk.open(number, store.block(walk.shard, number)?.unwrap_or_default(), filter);
                    } else {
                        walk.go_below(number);
                    }
                }
                (None, None) => walk.end(),
            }
        }
        Ok(())
    }

    /// The block that is being filled, if it is at or below a number.
    fn in_memory(&self, shard: u32, number: u64) -> Option<(u64, Block)> {
        let live = locked(self.shards.get(shard as usize)?);
        (live.number <= number && !live.block.is_empty()).then(|| (live.number, live.block.clone()))
    }

    /// One decision.
    ///
    /// # Errors
    /// The index cannot be read; it is made anew.
    pub fn find(&self, shard: u32, seq: u64) -> Result<Option<Vec<u8>>, IndexError> {
        let number = block_of(seq);
        let find = || {
            let Some(live) = self.shards.get(shard as usize) else { return Ok(None) };
            if let Some(kept) = locked(live).block.kept.get(&seq) {
                return Ok(Some(kept.payload.clone()));
            }
            let block = self.store()?.block(shard, number)?;
            Ok(block.and_then(|mut block| block.kept.remove(&seq)).map(|kept| kept.payload))
        };
        let found = find();
        if let Err(error) = &found {
            self.doubt(error);
        }
        found
    }
}

impl Walk {
    fn open(&mut self, number: u64, block: Block, filter: &Filter) {
        let below = self.below;
        self.open = Some(number);
        self.found = block.kept.into_values().filter(|kept| kept.seq < below && filter.matches(&kept.payload)).collect();
    }

    fn go_below(&mut self, number: u64) {
        self.below = number.saturating_mul(SEQS_PER_BLOCK);
        self.ended = self.below == 0;
    }

    fn end(&mut self) {
        (self.below, self.ended) = (0, true);
    }

    /// Below which sequence the next page looks.
    fn next(&self) -> u64 {
        self.found.last().map_or(self.below, |kept| kept.seq + 1)
    }
}
