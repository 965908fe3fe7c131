//! The hub: each decision and each changed book is read once, and handed to whoever subscribed.
//!
//! Invariant: it is told of every entry by the one follower of each shard; a decision is written out once however many hear of it, and
//! one that nobody subscribed to is not even looked at. Handing over never waits. Deliberately absent: what was before; `catch_up.rs` reads that.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use axum::extract::ws::Utf8Bytes;
use serde::Deserialize;
use tokio::sync::Notify;

use super::outbox::Outbox;
use super::position;
use super::protocol::{Channel, event};
use crate::api::caller::Caller;
use crate::control::replica::{Listener, Reached};
use crate::domain::AccountId;
use crate::log::{OutputRecord, OutputTopic};

/// Decisions that are kept for those who have almost caught up.
const RECENT_MAX: usize = 512;
/// The book of one account is sent at most so often.
pub const BOOK_EVERY: Duration = Duration::from_millis(50);

/// A client, as those see it who have something for it.
pub struct Member {
    /// Its number.
    pub id: u64,
    /// What waits to be written to it.
    pub outbox: Outbox,
    caller: RwLock<Arc<Caller>>,
}

impl Member {
    /// A client that somebody opened.
    #[must_use]
    pub fn new(id: u64, caller: Caller) -> Arc<Self> {
        Arc::new(Self { id, outbox: Outbox::default(), caller: RwLock::new(Arc::new(caller)) })
    }

    /// Who it is, with the rights that were looked up last.
    #[must_use]
    pub fn caller(&self) -> Arc<Caller> {
        self.caller.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Their rights have changed.
    pub fn renew(&self, caller: Caller) {
        *self.caller.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(caller);
    }
}

/// A lock whose holder panicked still guards whole values.
pub fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The two fields of a decision that it is handed on by.
#[derive(Deserialize)]
struct Face<'a> {
    account: &'a str,
    /// Of a decision that is published again, that of the first.
    seq: u64,
}

struct Recent {
    shard: usize,
    seq: u64,
    account: Box<str>,
    payload: Box<str>,
}

/// The decisions of all shards in the order in which they came here.
#[derive(Default)]
struct Stream {
    /// By shard, the records that were folded.
    seqs: Vec<u64>,
    members: Vec<Arc<Member>>,
    /// Those that subscribed, and those that catch up.
    wanted: usize,
    recent: VecDeque<Recent>,
    /// By shard, behind which sequence `recent` holds everything.
    recent_after: Vec<u64>,
}

impl Stream {
    fn take(&mut self, shard: usize, output: &OutputRecord) {
        let Ok(payload) = std::str::from_utf8(&output.payload) else { return };
        let Ok(face) = serde_json::from_str::<Face<'_>>(payload) else { return };
        if face.seq != output.tag.seq {
            return;
        }
        self.seqs[shard] = face.seq;
        let message = event(Channel::Decisions, &position::of_seqs(&self.seqs), payload);
        for member in self.members.iter().filter(|member| member.caller().may_read(face.account)) {
            member.outbox.push(message.clone());
        }
        if self.recent.len() >= RECENT_MAX
            && let Some(oldest) = self.recent.pop_front()
        {
            self.recent_after[oldest.shard] = oldest.seq;
        }
        self.recent.push_back(Recent { shard, seq: face.seq, account: face.account.into(), payload: payload.into() });
    }
}

/// An account that somebody watches.
struct Watched {
    account: AccountId,
    watchers: Vec<Watcher>,
    /// It may have changed since it was looked at.
    dirty: bool,
    looked: Option<Instant>,
}

struct Watcher {
    member: Arc<Member>,
    /// What it was shown last, and after how many records.
    shown: Book,
}

/// A book as it is sent: after so many records, and its content without that number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Book {
    seq: u64,
    content: u64,
}

impl Book {
    /// The book of [`crate::wire::encode_account`].
    #[must_use]
    pub fn of(seq: u64, json: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        json.split_once(',').map_or(json, |(_, content)| content).hash(&mut hasher);
        Self { seq, content: hasher.finish() }
    }
}

/// A book that was read.
pub struct Read {
    /// The account's place in its gate.
    pub place: u32,
    /// After how many records.
    pub seq: u64,
    /// It, as JSON.
    pub json: String,
}

/// The hub.
pub struct Hub {
    stream: Mutex<Stream>,
    /// By shard, the watched accounts by their place in the gate.
    books: Vec<Mutex<HashMap<u32, Watched>>>,
    dirty: Notify,
}

impl Hub {
    /// A hub of so many shards.
    #[must_use]
    pub fn new(shards: u32) -> Arc<Self> {
        let zeros = vec![0; shards as usize];
        let stream = Stream { seqs: zeros.clone(), recent_after: zeros, ..Stream::default() };
        let books = (0..shards).map(|_| Mutex::default()).collect();
        Arc::new(Self { stream: Mutex::new(stream), books, dirty: Notify::new() })
    }

    /// By shard, the records that were folded.
    #[must_use]
    pub fn seqs(&self) -> Vec<u64> {
        locked(&self.stream).seqs.clone()
    }

    /// From now on every decision goes to a client. Gives the position behind which they begin.
    pub fn join_decisions(&self, member: &Arc<Member>) -> String {
        let mut stream = locked(&self.stream);
        want(&mut stream);
        stream.members.push(member.clone());
        position::of_seqs(&stream.seqs)
    }

    /// Somebody begins to catch up: what comes from now on is kept for a while.
    pub fn expect_decisions(&self) {
        want(&mut locked(&self.stream));
    }

    /// The same client has seen everything up to these sequences. Gives what it lacks, from where on every decision goes to it; `None` when
    /// that is too much, and it has to read on. Positions go on from what it has seen: of another shard that may be more than there was when
    /// the decision came here.
    pub fn catch_decisions(&self, member: &Arc<Member>, seen: &[u64]) -> Option<Vec<Utf8Bytes>> {
        let mut stream = locked(&self.stream);
        if seen.iter().zip(&stream.recent_after).any(|(seen, after)| seen < after) {
            return None;
        }
        let (caller, mut seen, mut lacking) = (member.caller(), seen.to_vec(), Vec::new());
        for Recent { shard, seq, account, payload } in &stream.recent {
            let Some(last) = seen.get_mut(*shard).filter(|last| **last < *seq) else { continue };
            *last = *seq;
            if caller.may_read(account) {
                lacking.push(event(Channel::Decisions, &position::of_seqs(&seen), payload));
            }
        }
        stream.members.push(member.clone());
        Some(lacking)
    }

    /// Ends what [`Hub::join_decisions`] or [`Hub::expect_decisions`] began.
    pub fn leave_decisions(&self, member: u64) {
        let mut stream = locked(&self.stream);
        stream.members.retain(|other| other.id != member);
        stream.wanted = stream.wanted.saturating_sub(1);
        if stream.wanted == 0 {
            stream.recent.clear();
        }
    }

    /// From now on the changes of an account's book go to a client, which was shown this one.
    pub fn join_book(&self, shard: u32, place: u32, account: AccountId, member: &Arc<Member>, shown: Book) {
        let Some(books) = self.books.get(shard as usize) else { return };
        let mut books = locked(books);
        let watched = books.entry(place).or_insert_with(|| Watched { account, watchers: Vec::new(), dirty: false, looked: None });
        watched.watchers.push(Watcher { member: member.clone(), shown });
        // It may have changed since that book was read, when nobody watched.
        watched.dirty = true;
        self.dirty.notify_one();
    }

    /// Ends [`Hub::join_book`].
    pub fn leave_book(&self, shard: u32, place: u32, member: u64) {
        let Some(books) = self.books.get(shard as usize) else { return };
        let mut books = locked(books);
        if let Some(watched) = books.get_mut(&place) {
            watched.watchers.retain(|watcher| watcher.member.id != member);
            if watched.watchers.is_empty() {
                books.remove(&place);
            }
        }
    }

    /// Comes back when a book may have changed.
    pub async fn changed(&self) {
        self.dirty.notified().await;
    }

    /// Has [`Hub::changed`] come back once more.
    pub fn look_again(&self) {
        self.dirty.notify_one();
    }

    /// The watched accounts of a shard that are to be read now, and whether others have to wait: those that changed, or all.
    pub fn due(&self, shard: u32, all: bool) -> (Vec<(u32, AccountId)>, bool) {
        let (mut due, mut others_wait) = (Vec::new(), false);
        let Some(books) = self.books.get(shard as usize) else { return (due, others_wait) };
        for (place, watched) in &mut *locked(books) {
            let rested = watched.looked.is_none_or(|looked| looked.elapsed() >= BOOK_EVERY);
            if (watched.dirty && rested) || all {
                (watched.dirty, watched.looked) = (false, Some(Instant::now()));
                due.push((*place, watched.account));
            }
            others_wait |= watched.dirty;
        }
        (due, others_wait)
    }

    /// Hands books to those who have seen others.
    pub fn show(&self, shard: u32, read: Vec<Read>) {
        let Some(books) = self.books.get(shard as usize) else { return };
        let mut books = locked(books);
        for Read { place, seq, json } in read {
            let Some(watched) = books.get_mut(&place) else { continue };
            let book = Book::of(seq, &json);
            // Somebody who came meanwhile may have been shown a newer one already.
            let lack = |watcher: &&mut Watcher| watcher.shown.content != book.content && watcher.shown.seq <= book.seq;
            let mut message = None;
            for watcher in watched.watchers.iter_mut().filter(lack) {
                let message =
                    message.get_or_insert_with(|| event(Channel::Account(watched.account), &position::of_seq(shard, seq), &json)).clone();
                watcher.shown = book;
                watcher.member.outbox.push(message);
            }
        }
    }
}

fn want(stream: &mut Stream) {
    if stream.wanted == 0 {
        stream.recent.clear();
        stream.recent_after.clone_from(&stream.seqs);
    }
    stream.wanted += 1;
}

impl Listener for Hub {
    fn begins(&self, shard: u32, at: &Reached) {
        if let Some(seq) = locked(&self.stream).seqs.get_mut(shard as usize) {
            *seq = at.seq;
        }
    }

    fn folded(&self, shard: u32, reached: &Reached, outputs: &[OutputRecord]) {
        let shard = shard as usize;
        let mut stream = locked(&self.stream);
        if shard >= stream.seqs.len() {
            return;
        }
        if stream.wanted > 0 {
            outputs.iter().filter(|output| output.topic == OutputTopic::Decisions).for_each(|output| stream.take(shard, output));
        }
        stream.seqs[shard] = reached.seq;
    }

    fn touched(&self, shard: u32, accounts: &[u32]) {
        let Some(books) = self.books.get(shard as usize) else { return };
        let mut books = locked(books);
        if books.is_empty() {
            return;
        }
        let mut any = false;
        for place in accounts {
            if let Some(watched) = books.get_mut(place) {
                watched.dirty = true;
                any = true;
            }
        }
        drop(books);
        if any {
            self.dirty.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use serde_json::Value;

    use super::*;
    use crate::domain::{InputTopic, Source};
    use crate::log::OutputTag;

    fn member(id: u64) -> Arc<Member> {
        Member::new(id, Caller::open(IpAddr::from([127, 0, 0, 1])))
    }

    fn reached(seq: u64) -> Reached {
        Reached { seq, current: true, ..Reached::default() }
    }

    fn decision(shard: u32, seq: u64, first: u64) -> OutputRecord {
        let payload = format!(r#"{{"event":"decision","account":"ACC1","reasons":[],"seq":{first},"at":1}}"#).into_bytes();
        let source = Source { topic: InputTopic::Intents, partition: shard, offset: seq };
        OutputRecord { topic: OutputTopic::Decisions, tag: OutputTag { shard, seq, index: 0 }, source, key: None, payload }
    }

    /// The positions of what waits for a client.
    fn positions(member: &Member) -> Vec<String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let batch = async { tokio::time::timeout(Duration::ZERO, member.outbox.next()).await };
        let batch = runtime.block_on(batch).map_or_else(|_| Vec::new(), Result::unwrap);
        let position = |text: &str| serde_json::from_str::<Value>(text).unwrap()["position"].as_str().unwrap().to_owned();
        batch.iter().map(|waiting| position(waiting.message.as_str())).collect()
    }

    #[test]
    fn a_position_holds_all_shards_and_a_repeat_is_not_told_again() {
        let (hub, client) = (Hub::new(2), member(1));
        hub.begins(0, &reached(10));
        hub.folded(1, &reached(3), &[decision(1, 3, 3)]);
        assert_eq!(hub.join_decisions(&client), "0:10,1:3");
        hub.folded(0, &reached(13), &[decision(0, 11, 11), decision(0, 12, 7), decision(0, 13, 13)]);
        hub.folded(1, &reached(4), &[decision(1, 4, 4)]);
        assert_eq!(positions(&client), ["0:11,1:3", "0:13,1:3", "0:13,1:4"]);
        hub.leave_decisions(1);
        hub.folded(1, &reached(5), &[decision(1, 5, 5)]);
        assert!(positions(&client).is_empty());
        assert_eq!(hub.seqs(), [13, 5]);
    }

    #[test]
    fn who_catches_up_gets_what_came_meanwhile_once_and_then_what_comes() {
        let (hub, client) = (Hub::new(1), member(1));
        hub.folded(0, &reached(5), &[]);
        hub.expect_decisions();
        assert!(hub.catch_decisions(&client, &[4]).is_none(), "what was before it asked is not here");
        hub.folded(0, &reached(7), &[decision(0, 6, 6), decision(0, 7, 7)]);
        assert_eq!(hub.catch_decisions(&client, &[6]).unwrap().len(), 1);
        hub.folded(0, &reached(8), &[decision(0, 8, 8)]);
        assert_eq!(positions(&client), ["0:8"]);
        hub.leave_decisions(1);
        hub.expect_decisions();
        for seq in 9..=9 + RECENT_MAX as u64 {
            hub.folded(0, &reached(seq), &[decision(0, seq, seq)]);
        }
        assert!(hub.catch_decisions(&client, &[8]).is_none(), "more came than is kept");
        assert!(hub.catch_decisions(&client, &[9]).is_some());
    }

    #[test]
    fn positions_never_go_back_while_one_catches_up() {
        let (hub, client) = (Hub::new(2), member(1));
        hub.expect_decisions();
        hub.folded(1, &reached(1), &[decision(1, 1, 1)]);
        hub.folded(0, &reached(7), &[decision(0, 7, 7)]);
        hub.folded(0, &reached(8), &[decision(0, 8, 8)]);
        let lacking = hub.catch_decisions(&client, &[7, 0]).unwrap();
        let of = |message: &Utf8Bytes| serde_json::from_str::<Value>(message).unwrap()["position"].as_str().unwrap().to_owned();
        assert_eq!(lacking.iter().map(of).collect::<Vec<_>>(), ["0:7,1:1", "0:8,1:1"]);
    }

    #[test]
    fn a_book_goes_to_those_who_have_not_seen_it_and_never_back_in_time() {
        let (hub, old, new) = (Hub::new(1), member(1), member(2));
        let account = AccountId::parse(b"ACC1").unwrap();
        let json = |seq: u64, cash: &str| format!(r#"{{"seq":{seq},"account":"ACC1","cash":"{cash}"}}"#);
        hub.join_book(0, 4, account, &old, Book::of(5, &json(5, "10")));
        assert_eq!(hub.due(0, false), (vec![(4, account)], false));
        hub.show(0, vec![Read { place: 4, seq: 6, json: json(6, "10") }]);
        assert!(positions(&old).is_empty(), "only its number changed");
        hub.join_book(0, 4, account, &new, Book::of(9, &json(9, "30")));
        hub.show(0, vec![Read { place: 4, seq: 8, json: json(8, "20") }]);
        assert_eq!((positions(&old), positions(&new)), (vec!["0:8".to_owned()], vec![]));
        hub.touched(0, &[1, 4]);
        assert_eq!(hub.due(0, false), (vec![], true), "it rests between two looks");
        std::thread::sleep(BOOK_EVERY);
        assert_eq!(hub.due(0, false).0.len(), 1);
        hub.show(0, vec![Read { place: 4, seq: 9, json: json(9, "30") }]);
        assert_eq!((positions(&old), positions(&new)), (vec!["0:9".to_owned()], vec![]));
        hub.leave_book(0, 4, 1);
        hub.leave_book(0, 4, 2);
        hub.touched(0, &[4]);
        assert_eq!(hub.due(0, true), (vec![], false));
    }
}
