//! Notifications for those who watch their inbox.
//!
//! Invariant: whatever comes into an inbox after a subscription began goes to it once, as far as its owner may know of the account now;
//! when the notifier was faster than we, what was missed is read from the inbox. Deliberately absent: marks; reading them is REST's.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::extract::ws::Utf8Bytes;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;

use super::hub::{Member, locked};
use super::position::Heard;
use super::protocol::{Channel, event};
use crate::api::problem::{ApiCode, Problem};
use crate::api::stopped;
use crate::api::v1::notifications::{may, own, shown};
use crate::notify::inbox::{KEPT, Marks};
use crate::notify::{Notifier, Raised};

struct Watcher {
    member: Arc<Member>,
    heard: Heard,
}

impl Watcher {
    /// Goes on to a notification; gives its message, if the client may know of it.
    fn take(&mut self, raised: &Raised, read: bool) -> Option<Utf8Bytes> {
        if !self.heard.lacks(raised.id) {
            return None;
        }
        self.heard.take(raised.id);
        let caller = self.member.caller();
        if !may(&caller)(raised) {
            return None;
        }
        let data = serde_json::to_string(&shown(raised, read, Vec::new())).ok()?;
        Some(event(Channel::Notifications, &self.heard.text(), &data))
    }
}

/// The inboxes that somebody watches.
pub struct InboxFeed {
    notifier: Arc<Notifier>,
    watched: Mutex<HashMap<String, Vec<Watcher>>>,
}

impl InboxFeed {
    /// Nobody watches yet.
    #[must_use]
    pub fn new(notifier: Arc<Notifier>) -> Self {
        Self { notifier, watched: Mutex::default() }
    }

    /// Waits until the inboxes hold what the log holds.
    pub async fn filled(&self) {
        self.notifier.filled().await;
    }

    /// From now on a client hears of what comes into its inbox. Gives the position, and what came since the one that it resumes from.
    ///
    /// # Errors
    /// What came since may have left the inbox already.
    pub fn join(&self, member: &Arc<Member>, resume: Option<Heard>) -> Result<(String, Vec<Utf8Bytes>), Problem> {
        let user = own(&member.caller()).to_owned();
        // What comes meanwhile waits for the lock, and is then known to be heard already.
        let mut watched = locked(&self.watched);
        let (inbox, marks) = self.notifier.inbox(&user);
        let newest_first = inbox.as_slice();
        let (heard, since) = match resume {
            None => {
                let mut heard = Heard::default();
                newest_first.iter().for_each(|raised| heard.take(raised.id));
                (heard, Vec::new())
            }
            Some(heard) => {
                if !is_kept(newest_first, &heard) {
                    let what = "some of what came since is not in the inbox any more: subscribe without resume, and list the inbox";
                    return Err(Problem::new(ApiCode::PositionNotKept, what).field("resume"));
                }
                let since = since(newest_first, &heard);
                (heard, since)
            }
        };
        let position = heard.text();
        let mut watcher = Watcher { member: member.clone(), heard };
        let messages = since.iter().filter_map(|raised| message(&mut watcher, raised, &marks)).collect();
        watched.entry(user).or_default().push(watcher);
        Ok((position, messages))
    }

    /// Ends [`InboxFeed::join`].
    pub fn leave(&self, member: &Member) {
        let user = own(&member.caller()).to_owned();
        let mut watched = locked(&self.watched);
        if let Some(watchers) = watched.get_mut(&user) {
            watchers.retain(|watcher| watcher.member.id != member.id);
            if watchers.is_empty() {
                watched.remove(&user);
            }
        }
    }

    /// Hands on until the daemon stops.
    pub async fn run(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let mut live = self.notifier.subscribe();
        loop {
            let heard = tokio::select! {
                () = stopped(&mut stop) => return,
                heard = live.recv() => heard,
            };
            match heard {
                Ok((user, raised)) => {
                    for watcher in locked(&self.watched).get_mut(&*user).into_iter().flatten() {
                        if let Some(message) = watcher.take(&raised, false) {
                            watcher.member.outbox.push(message);
                        }
                    }
                }
                Err(RecvError::Lagged(_)) => self.read_again(),
                Err(RecvError::Closed) => return,
            }
        }
    }

    /// Reads from the inboxes what the notifier told too fast.
    fn read_again(&self) {
        for (user, watchers) in &mut *locked(&self.watched) {
            let (inbox, marks) = self.notifier.inbox(user);
            for watcher in watchers {
                for raised in since(&inbox, &watcher.heard) {
                    if let Some(message) = message(watcher, &raised, &marks) {
                        watcher.member.outbox.push(message);
                    }
                }
            }
        }
    }
}

fn message(watcher: &mut Watcher, raised: &Raised, marks: &Marks) -> Option<Utf8Bytes> {
    if marks.deleted.contains(&raised.id) {
        watcher.heard.take(raised.id);
        return None;
    }
    watcher.take(raised, marks.is_read(raised.id))
}

/// What of an inbox, given the newest first, is behind a position: each shard in its order.
fn since(newest_first: &[Arc<Raised>], heard: &Heard) -> Vec<Arc<Raised>> {
    let mut lacking: Vec<Arc<Raised>> = newest_first.iter().filter(|raised| heard.lacks(raised.id)).cloned().collect();
    lacking.sort_by_key(|raised| (raised.id.seq, raised.id));
    lacking
}

/// Whether nothing behind a position has left an inbox for newer ones. They leave it in the order of time, which is that of a shard's
/// sequences: what left came before the oldest of its shard that is still there. When in doubt it has.
fn is_kept(newest_first: &[Arc<Raised>], heard: &Heard) -> bool {
    if newest_first.len() < KEPT {
        return true;
    }
    let mut oldest = HashMap::new();
    for raised in newest_first {
        oldest.insert(raised.id.shard, raised.id);
    }
    oldest.into_iter().all(|(shard, oldest)| heard.of(shard).is_some_and(|heard| heard >= oldest))
}

#[cfg(test)]
mod tests {
    use serde_json::Map;

    use super::*;
    use crate::domain::{NotificationType, Priority};
    use crate::notify::RaisedId;

    fn raised(shard: u32, seq: u64) -> Arc<Raised> {
        let (id, at) = (RaisedId { shard, seq, index: 0 }, i64::try_from(seq).unwrap());
        let (title, message, code) = ("T".to_owned(), "M".to_owned(), "RULE_BREACH".to_owned());
        let (kind, priority) = (NotificationType::StopLoss, Priority::High);
        Arc::new(Raised { id, account: None, owner: None, kind, code, priority, title, message, data: Map::new(), at })
    }

    fn ids(of: &[Arc<Raised>]) -> Vec<String> {
        of.iter().map(|raised| raised.id.to_string()).collect()
    }

    #[test]
    fn what_came_since_comes_in_each_shards_order() {
        let inbox = [raised(1, 9), raised(0, 8), raised(1, 7), raised(0, 6), raised(0, 2)];
        let heard = Heard::read("0-6-n0").unwrap();
        assert_eq!(ids(&since(&inbox, &heard)), ["1-7-n0", "0-8-n0", "1-9-n0"]);
        assert!(since(&inbox, &Heard::read("0-8-n0,1-9-n0").unwrap()).is_empty());
    }

    #[test]
    fn a_full_inbox_may_have_lost_what_an_old_position_lacks() {
        let full: Vec<Arc<Raised>> = (0..KEPT as u64).rev().map(|seq| raised(0, 100 + seq)).collect();
        assert!(is_kept(&full, &Heard::read("0-100-n0").unwrap()));
        assert!(!is_kept(&full, &Heard::read("0-99-n0").unwrap()));
        assert!(!is_kept(&full, &Heard::default()));
        assert!(is_kept(&full[1..], &Heard::default()), "an inbox with room lost nothing");
    }
}
