//! A subscription: what has to be found out before it begins, and what ends with it.
//!
//! Invariant: nothing of a channel comes before the answer that says where it begins. Therefore whatever takes time is done first, by
//! [`prepare`], and [`Ready::join`] only takes locks. A subscription that is dropped ends everywhere. Deliberately absent: the socket.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::Utf8Bytes;
use metrics::gauge;
use tokio::time::timeout;

use super::Live;
use super::bars_feed::BarsFeed;
use super::books_feed::book;
use super::hub::{Book, Member, Read};
use super::inbox_feed::InboxFeed;
use super::position::{self, Heard};
use super::protocol::{Channel, event, subscribed};
use crate::api::caller::Caller;
use crate::api::problem::{ApiCode, Problem};
use crate::api::v1::books::{replica_problem, unknown_account};
use crate::chart::{BarView, Timeframe};
use crate::control::replica::ReplicaError;
use crate::domain::{AccountId, Symbol};
use crate::telemetry::WS_SUBSCRIPTIONS;

/// How long a subscription waits for what it needs.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is known before a subscription begins.
pub enum Ready {
    /// Decisions, from now on or behind these sequences.
    Decisions(Option<Vec<u64>>),
    /// Notifications, from now on or behind these.
    Notifications(Arc<InboxFeed>, Option<Heard>),
    /// The book as it is.
    Account {
        /// Its shard.
        shard: u32,
        /// The account.
        account: AccountId,
        /// The book.
        read: Read,
    },
    /// The bars of a chart, and whether it resumes.
    Bars {
        /// What tells of bars.
        feed: Arc<BarsFeed>,
        /// The chart.
        chart: (Symbol, Timeframe),
        /// Its bars.
        bars: Vec<BarView>,
        /// Whether all of them are sent.
        resumes: bool,
    },
    /// The state as it is, and its position.
    System(String, String),
}

/// A subscription that has begun.
pub struct Joined {
    /// What ends with it.
    pub held: Held,
    /// The answer, and what comes with it.
    pub said: Vec<Utf8Bytes>,
    /// The decisions up to these sequences are seen, and the rest has to be read.
    pub catching_up: Option<Vec<u64>>,
}

/// A subscription. Dropped, it ends.
pub struct Held {
    live: Arc<Live>,
    member: Arc<Member>,
    channel: Channel,
    /// Shard and place of an account.
    place: (u32, u32),
}

/// Finds out what a subscription begins with.
///
/// # Errors
/// There is no such thing for this caller, or not from that position on, or not now.
pub async fn prepare(live: Arc<Live>, caller: Arc<Caller>, channel: Channel, resume: Option<String>) -> Result<Ready, Problem> {
    let resume = resume.as_deref();
    match channel {
        Channel::Decisions => decisions(&live, resume).await,
        Channel::Notifications => {
            let inbox = live.inbox.clone();
            let heard = resume.map(Heard::read).transpose()?;
            let late = |_| Problem::new(ApiCode::NotReady, "the inboxes are being read from the log");
            timeout(PATIENCE, inbox.filled()).await.map_err(late)?;
            Ok(Ready::Notifications(inbox, heard))
        }
        Channel::Account(account) => of_account(&live, &caller, account, resume).await,
        Channel::Bars(symbol, timeframe) => {
            let feed = live.bars.clone().ok_or_else(|| Problem::new(ApiCode::ChartUnavailable, "charts are off here"))?;
            let (chart, resume) = ((symbol, timeframe), resume.map(position::bar).transpose()?);
            let bars = feed.begin(chart, resume).await?;
            Ok(Ready::Bars { feed, chart, bars, resumes: resume.is_some() })
        }
        Channel::System => {
            caller.require_admin()?;
            let shards = live.of.books.replicas.count() as usize;
            resume.map(|text| position::seqs(text, shards)).transpose()?;
            let (position, view) = live.system.now().await?;
            Ok(Ready::System(position, view))
        }
    }
}

async fn decisions(live: &Live, resume: Option<&str>) -> Result<Ready, Problem> {
    let replicas = &live.of.books.replicas;
    let seen = resume.map(|text| position::seqs(text, replicas.count() as usize)).transpose()?;
    for (shard, reached) in (0..).zip(replicas.position()) {
        if let Some(why) = reached.broken {
            return Err(replica_problem(ReplicaError::Broken { shard, why }));
        }
        // What a replica folds at a start are old decisions, and nobody's news.
        let current = replicas.ask(shard, |_| ()).await;
        current.map_err(replica_problem)?;
    }
    for (shard, seq) in (0..).zip(seen.iter().flatten()) {
        replicas.wait_for_seq(shard, *seq, PATIENCE).await.map_err(replica_problem)?;
    }
    Ok(Ready::Decisions(seen))
}

async fn of_account(live: &Live, caller: &Caller, account: AccountId, resume: Option<&str>) -> Result<Ready, Problem> {
    if !caller.may_read(account.as_str()) {
        return Err(unknown_account());
    }
    let books = &live.of.books;
    let shard = books.shard_of(account);
    if let Some(text) = resume {
        let seq = position::seq(text, shard)?;
        books.replicas.wait_for_seq(shard, seq, PATIENCE).await.map_err(replica_problem)?;
    }
    let read = books.ask_of(caller, account.as_str(), |gate, account| {
        let place = gate.accounts().iter().position(|other| other.id == account)?;
        book(gate, u32::try_from(place).ok()?, account)
    });
    Ok(Ready::Account { shard, account, read: read.await? })
}

impl Ready {
    /// Begins the subscription.
    ///
    /// # Errors
    /// What came since the position is not all there.
    pub fn join(self, live: &Arc<Live>, member: &Arc<Member>, channel: Channel) -> Result<Joined, Problem> {
        let (mut place, mut catching_up) = ((0, 0), None);
        let (position, events) = match self {
            Self::Decisions(None) => (live.of.hub.join_decisions(member), Vec::new()),
            Self::Decisions(Some(seen)) => {
                live.of.hub.expect_decisions();
                let position = position::of_seqs(&seen);
                catching_up = Some(seen);
                (position, Vec::new())
            }
            Self::Notifications(inbox, heard) => inbox.join(member, heard)?,
            Self::Account { shard, account, read: Read { place: at, seq, json } } => {
                place = (shard, at);
                live.of.hub.join_book(shard, at, account, member, Book::of(seq, &json));
                let position = position::of_seq(shard, seq);
                let event = event(channel, &position, &json);
                (position, vec![event])
            }
            Self::Bars { feed, chart, bars, resumes } => feed.join(chart, member, &bars, resumes),
            Self::System(position, view) => {
                live.system.join(member);
                let event = event(channel, &position, &view);
                (position, vec![event])
            }
        };
        gauge!(WS_SUBSCRIPTIONS, "channel" => channel.kind()).increment(1.0);
        let held = Held { live: live.clone(), member: member.clone(), channel, place };
        let said = std::iter::once(subscribed(channel, &position)).chain(events).collect();
        Ok(Joined { held, said, catching_up })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let (live, member) = (&self.live, self.member.id);
        match self.channel {
            Channel::Decisions => live.of.hub.leave_decisions(member),
            Channel::Notifications => live.inbox.leave(&self.member),
            Channel::Account(_) => live.of.hub.leave_book(self.place.0, self.place.1, member),
            Channel::Bars(symbol, timeframe) => live.bars.iter().for_each(|bars| bars.leave((symbol, timeframe), member)),
            Channel::System => live.system.leave(member),
        }
        gauge!(WS_SUBSCRIPTIONS, "channel" => self.channel.kind()).decrement(1.0);
    }
}
