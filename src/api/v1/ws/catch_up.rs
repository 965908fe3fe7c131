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
use crate::api::v1::books::{Books, index_problem};
use crate::control::decisions::Onward;

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
pub fn read(hub: &Arc<Hub>, books: &Arc<Books>, member: &Arc<Member>, seen: Vec<u64>) -> JoinHandle<Result<Page, Problem>> {
    let (hub, books, member) = (hub.clone(), books.clone(), member.clone());
    tokio::task::spawn_blocking(move || page(&hub, &books, &member, seen))
}

fn page(hub: &Hub, books: &Books, member: &Member, mut seen: Vec<u64>) -> Result<Page, Problem> {
    let (caller, up_to) = (member.caller(), hub.seqs());
    let mut messages = Vec::new();
    for (shard, up_to) in (0..).zip(&up_to) {
        let Some(after) = seen.get(shard as usize).copied().filter(|after| after < up_to) else { continue };
        let onward = books.decisions.after(shard, after, *up_to, PAGE).map_err(|error| index_problem(&error))?;
        let (decisions, reached) = match onward {
            Onward::Found { decisions, reached } => (decisions, reached),
            Onward::Filling => return Err(Problem::new(ApiCode::NotReady, "older decisions are still being indexed; ask again")),
            Onward::Dropped => {
                let what = "some of the decisions since then are not kept any more: subscribe without resume, and search what is kept";
                return Err(Problem::new(ApiCode::PositionNotKept, what).field("resume"));
            }
        };
        for (seq, payload) in decisions {
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
