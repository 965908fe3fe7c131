//! Catching up with the decisions since a position, a page at a time.
//!
//! Invariant: a client hears of each decision once, in the order of each shard, and of none twice when it has caught up; where something
//! between is not kept any more it is told so and hears nothing further. A page is read when the one before is written, so a slow client
//! slows down only itself. Deliberately absent: a thread or a reader of the log of its own; pages come out of the index.

use std::sync::Arc;

use axum::extract::ws::Utf8Bytes;
use tokio::task::JoinHandle;

use super::hub::{Hub, Member};
use super::position;
use super::protocol::{Channel, event};
use crate::api::problem::{ApiCode, Problem};
use crate::api::v1::books::index_problem;
use crate::control::decisions::{Decisions, Onward};

/// Decisions of a page, of each shard.
const PAGE: usize = 128;

/// A page.
pub struct Page {
    /// Its decisions, as far as the client may know of them.
    pub messages: Vec<Utf8Bytes>,
    /// By shard, up to where the client has then seen everything.
    pub seen: Vec<u64>,
    /// Whether that was everything when it was read.
    pub complete: bool,
}

/// Reads the page behind these sequences.
pub fn read(hub: &Arc<Hub>, decisions: &Arc<Decisions>, member: &Arc<Member>, seen: Vec<u64>) -> JoinHandle<Result<Page, Problem>> {
    let (hub, decisions, member) = (hub.clone(), decisions.clone(), member.clone());
    tokio::task::spawn_blocking(move || page(&hub, &decisions, &member, seen))
}

fn page(hub: &Hub, decisions: &Decisions, member: &Member, mut seen: Vec<u64>) -> Result<Page, Problem> {
    let (caller, up_to) = (member.caller(), hub.seqs());
    let mut messages = Vec::new();
    for (shard, up_to) in (0..).zip(&up_to) {
        let Some(after) = seen.get(shard as usize).copied().filter(|after| after < up_to) else { continue };
        let onward = decisions.after(shard, after, *up_to, PAGE).map_err(|error| index_problem(&error))?;
        let (found, reached) = match onward {
            Onward::Found { decisions, reached } => (decisions, reached),
            Onward::Filling => return Err(Problem::new(ApiCode::NotReady, "older decisions are still being indexed; ask again")),
            Onward::Dropped => {
                let what = "some of the decisions since then are not kept any more: subscribe without resume, and search what is kept";
                return Err(Problem::new(ApiCode::PositionNotKept, what).field("resume"));
            }
        };
        for (seq, payload) in found {
            seen[shard as usize] = seq;
            let Ok(payload) = String::from_utf8(payload) else { continue };
            let account = serde_json::from_str::<Face<'_>>(&payload).map(|face| face.account.to_owned());
            if account.is_ok_and(|account| caller.may_read(&account)) {
                messages.push(event(Channel::Decisions, &position::of_seqs(&seen), &payload));
            }
        }
        seen[shard as usize] = reached;
    }
    let complete = seen.iter().zip(&up_to).all(|(seen, up_to)| seen >= up_to);
    Ok(Page { messages, seen, complete })
}

#[derive(serde::Deserialize)]
struct Face<'a> {
    account: &'a str,
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::api::caller::Caller;
    use crate::control::decisions::IndexOptions;
    use crate::control::replica::{Listener, Reached};
    use crate::domain::{InputTopic, Source};
    use crate::embedded::{EmbeddedLog, EmbeddedOptions};
    use crate::log::{OutputRecord, OutputTag, OutputTopic};

    fn decision(seq: u64) -> OutputRecord {
        let payload = format!(
            r#"{{"event":"decision","decision_id":"0-{seq}","client_order_id":"I-{seq}","account":"ACC1","intent":"order","symbol":"AAPL","side":"buy","verdict":"allow","requested_qty":"1","approved_qty":"1","reasons":[],"equity":"1","shard":0,"seq":{seq},"at":{seq},"source":{{"topic":"orders.intents","partition":0,"offset":{seq}}}}}"#
        );
        let (tag, source) = (OutputTag { shard: 0, seq, index: 0 }, Source { topic: InputTopic::Intents, partition: 0, offset: seq });
        OutputRecord { topic: OutputTopic::Decisions, tag, source, key: None, payload: payload.into_bytes() }
    }

    #[test]
    fn what_the_index_dropped_is_told_as_not_kept_and_the_rest_comes_in_pages() {
        const ALL: u64 = 6_000;
        let dir = tempfile::tempdir().unwrap();
        let log = EmbeddedLog::open(EmbeddedOptions::new(dir.path())).unwrap();
        let options = IndexOptions { decisions_max: 2_000, ..IndexOptions::new(dir.path().join("index"), 1) };
        let (index, hub) = (Decisions::open(options, Arc::new(log)), Hub::new(1));
        let member = Member::new(1, Caller::open(IpAddr::from([127, 0, 0, 1])));
        hub.expect_decisions();
        index.begins(0, &Reached::default());
        for seq in 1..=ALL {
            let reached = Reached { seq, ledger_next: seq, current: true, ..Reached::default() };
            index.folded(0, &reached, &[decision(seq)]);
            hub.folded(0, &reached, &[decision(seq)]);
        }
        let refused = page(&hub, &index, &member, vec![10]).err().unwrap();
        assert_eq!(refused.code(), ApiCode::PositionNotKept);
        let (mut seen, mut told) = (vec![ALL - 300], 0);
        loop {
            let page = page(&hub, &index, &member, seen).unwrap();
            assert!(page.messages.len() <= PAGE);
            told += page.messages.len();
            seen = page.seen;
            if page.complete {
                break;
            }
        }
        assert_eq!((told, seen.as_slice()), (300, [ALL].as_slice()));
        assert!(hub.catch_decisions(&member, &seen).unwrap().is_empty());
        index.stop();
    }
}
