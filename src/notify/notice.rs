//! Notices: what the daemon itself has to tell one person, other than what the gate raised; for instance that a broker key ends.
//!
//! Invariant: a notice is in the directory, and so in the inbox of its owner at every instance, before it goes out over any channel. Who
//! delivers lays it on the desk among what the gate raised, with what it says, so it is held, gathered, counted and tried again as that
//! is; only when the desk has it in the directory it is noted as handed over. Deliberately absent: the log of the gate; nothing here
//! raises anything there, and nothing there depends on this.

use std::collections::HashMap;
use std::sync::Arc;

use metrics::counter;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::inbox::KEPT;
use super::people::{AddressBook, ChangeError, Kept};
use super::raised::{Raised, RaisedId};
use super::service::Notifier;
use super::{UserId, now_ms};
use crate::control::directory::{DirectoryService, WriteError};
use crate::directory::Kind;
use crate::domain::{NotificationType, Priority};
use crate::telemetry::NOTIFY_DELIVERIES;

const PREFIX: &str = "notices~";
/// The shard that notices are of, and their partition on the desk, which no gate has.
pub(super) const NO_SHARD: u32 = u32::MAX;
/// Notices kept of one person; more as long as they are not handed over.
const NOTICES_MAX: usize = 64;
/// But no more than these: a body of the directory has an end.
const WAITING_MAX: usize = 128;

/// What is to be told.
#[derive(Clone, Debug)]
pub struct Notice<'a> {
    /// What it is about: the same notice is told once.
    pub key: &'a str,
    /// To whom.
    pub user: &'a str,
    /// What exactly it says.
    pub code: &'a str,
    /// How urgent it is.
    pub priority: Priority,
    /// Its headline.
    pub title: String,
    /// Its sentence.
    pub message: String,
    /// The figures that apply.
    pub data: Map<String, Value>,
}

/// A person's notices.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Notices {
    /// The number of the next one.
    #[serde(default)]
    next: u64,
    /// The oldest first.
    #[serde(default)]
    kept: Vec<Told>,
}

/// A notice as the directory has it.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Told {
    key: String,
    raised: Raised,
    /// The desk has it, or nobody delivers.
    #[serde(default)]
    settled: bool,
}

impl Kept for Notices {
    const KIND: Kind = Kind::Inbox;
}

/// Where a person's notices are. No name of a person has a `~`.
pub(super) fn place_of(user: &str) -> String {
    format!("{PREFIX}{user}")
}

/// A person's notices as notifications.
pub(super) fn of(book: &AddressBook, user: &str) -> Vec<Arc<Raised>> {
    let (notices, _) = book.get::<Notices>(&place_of(user));
    notices.kept.into_iter().map(|told| Arc::new(told.raised)).collect()
}

/// Who has to hear of what: the notices that are not handed over yet. An entity that had none is looked at again when it has changed.
#[derive(Debug, Default)]
pub(super) struct Waiting(HashMap<String, u64>);

impl Waiting {
    /// Those of all people, the oldest of each first.
    pub(super) fn look(&mut self, directory: &DirectoryService) -> Vec<(UserId, Arc<Raised>)> {
        let (mut none, mut found) = (HashMap::new(), Vec::new());
        directory.read(|directory| {
            for entity in directory.list(Notices::KIND) {
                let Some(user) = entity.id.strip_prefix(PREFIX) else { continue };
                let before = found.len();
                if self.0.get(user) != Some(&entity.version) {
                    let notices: Notices = serde_json::from_slice(&entity.body).unwrap_or_default();
                    let owner: UserId = user.into();
                    let waiting = notices.kept.into_iter().filter(|told| !told.settled);
                    found.extend(waiting.map(|told| (owner.clone(), Arc::new(told.raised))));
                }
                if found.len() == before {
                    none.insert(user.to_owned(), entity.version);
                }
            }
        });
        self.0 = none;
        found
    }
}

/// Notes that a person's notices are on the desk for good.
pub(super) async fn handed_over(book: &AddressBook, user: &str, ids: &[RaisedId], actor: &str) -> Result<(), WriteError> {
    let place = place_of(user);
    let noted = book.change(&place, actor, None, |notices: &mut Notices| {
        notices.kept.iter_mut().filter(|told| ids.contains(&told.raised.id)).for_each(|told| told.settled = true);
        Ok::<_, std::convert::Infallible>(())
    });
    written(noted.await).map(drop)
}

/// What was seen of everybody's notices.
#[derive(Debug, Default)]
pub(super) struct Seen(HashMap<String, (u64, u64)>);

impl Seen {
    /// The notices that came since the last look, whichever instance wrote them, each with whose it is.
    pub(super) fn look(&mut self, directory: &DirectoryService) -> Vec<(UserId, Arc<Raised>)> {
        let (mut now, mut fresh) = (HashMap::new(), Vec::new());
        directory.read(|directory| {
            for entity in directory.list(Notices::KIND) {
                let Some(user) = entity.id.strip_prefix(PREFIX) else { continue };
                let (version, next) = self.0.get(user).copied().unwrap_or_default();
                let seen = if version == entity.version {
                    (version, next)
                } else {
                    let notices: Notices = serde_json::from_slice(&entity.body).unwrap_or_default();
                    let owner: UserId = user.into();
                    let news = notices.kept.into_iter().filter(|told| told.raised.id.seq >= next);
                    fresh.extend(news.map(|told| (owner.clone(), Arc::new(told.raised))));
                    (entity.version, notices.next)
                };
                now.insert(user.to_owned(), seen);
            }
        });
        self.0 = now;
        fresh
    }
}

/// An inbox (the newest first) with notices among it.
pub(super) fn among(mut inbox: Vec<Arc<Raised>>, notices: Vec<Arc<Raised>>) -> Vec<Arc<Raised>> {
    if notices.is_empty() {
        return inbox;
    }
    inbox.extend(notices);
    inbox.sort_by_key(|raised| std::cmp::Reverse((raised.at, raised.id)));
    inbox.truncate(KEPT);
    inbox
}

impl Notices {
    /// Puts a notice among them, unless it is there. Gives what had to go for it though nobody was told of it yet.
    fn add(&mut self, notice: &Notice<'_>, delivered: bool, now: i64) -> Option<Raised> {
        if self.kept.iter().any(|told| told.key == notice.key) {
            return None;
        }
        // Of somebody of the same name who was removed there may be deliveries still: a number does not come twice.
        self.next = self.next.max(u64::try_from(now).unwrap_or(0));
        let raised = Raised {
            id: RaisedId { shard: NO_SHARD, seq: self.next, index: 0 },
            account: None,
            owner: Some(notice.user.to_owned()),
            kind: NotificationType::SystemAlert,
            code: notice.code.to_owned(),
            priority: notice.priority,
            title: notice.title.clone(),
            message: notice.message.clone(),
            data: notice.data.clone(),
            at: now,
        };
        self.next += 1;
        let mut gone = None;
        if self.kept.len() >= NOTICES_MAX {
            // What somebody has still to hear of is not thrown away for what is newer.
            let over = self.kept.iter().position(|told| told.settled);
            let oldest = over.or_else(|| (self.kept.len() >= WAITING_MAX).then_some(0));
            gone = oldest.map(|at| self.kept.remove(at)).filter(|told| !told.settled).map(|told| told.raised);
        }
        self.kept.push(Told { key: notice.key.to_owned(), raised, settled: !delivered });
        gone
    }
}

impl Notifier {
    /// Tells one person something, once: in the inbox at once, and over the channels that they want as whatever the gate raises.
    ///
    /// # Errors
    /// The directory does not take it: nobody was told.
    pub async fn tell(&self, notice: &Notice<'_>) -> Result<(), WriteError> {
        let (now, place, delivered) = (now_ms(), place_of(notice.user), !self.channels().ready().is_empty());
        let added = self.book().change(&place, self.instance(), None, |notices: &mut Notices| {
            Ok::<_, std::convert::Infallible>(notices.add(notice, delivered, now))
        });
        if let Some(gone) = written(added.await)?.0 {
            self.dropped(notice.user, &gone, now);
        }
        Ok(())
    }

    /// A notice went for newer ones before anybody delivered it.
    fn dropped(&self, user: &str, gone: &Raised, now: i64) {
        tracing::error!(user, id = %gone.id, "a notice that nobody delivered went for newer ones");
        for place in self.book().places(&user.into(), gone.kind, gone.priority, now) {
            counter!(NOTIFY_DELIVERIES, "channel" => place.channel.as_str(), "result" => "dropped").increment(1);
        }
    }
}

fn written<R>(changed: Result<R, ChangeError<std::convert::Infallible>>) -> Result<R, WriteError> {
    changed.map_err(|error| match error {
        ChangeError::Refused(never) => match never {},
        ChangeError::Write(error) => error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice(key: &str) -> Notice<'_> {
        Notice {
            key,
            user: "ann",
            code: "API_KEY_EXPIRES",
            priority: Priority::High,
            title: "T".to_owned(),
            message: "M".to_owned(),
            data: Map::new(),
        }
    }

    #[test]
    fn a_notice_is_added_once_and_a_number_does_not_come_twice() {
        let mut notices = Notices::default();
        notices.add(&notice("k"), true, 1_000);
        notices.add(&notice("k"), true, 2_000);
        notices.add(&notice("l"), true, 500);
        let all: Vec<_> = notices.kept.iter().map(|told| (told.raised.owner.as_deref(), told.raised.id.seq)).collect();
        assert_eq!(all, [(Some("ann"), 1_000), (Some("ann"), 1_001)]);
        let mut next_of_that_name = Notices::default();
        next_of_that_name.add(&notice("k"), true, 3_000);
        assert!(next_of_that_name.kept[0].raised.id.seq > 1_001);
    }

    #[test]
    fn the_newest_are_kept_and_stand_in_the_inbox_by_time() {
        let mut notices = Notices::default();
        for at in 0..i64::try_from(NOTICES_MAX).unwrap() + 3 {
            assert!(notices.add(&notice(&at.to_string()), false, at).is_none());
        }
        assert_eq!((notices.kept.len(), notices.kept[0].key.as_str()), (NOTICES_MAX, "3"));
        let all: Vec<Arc<Raised>> = notices.kept.into_iter().map(|told| Arc::new(told.raised)).collect();
        let (early, late) = (vec![all[0].clone()], vec![all[1].clone()]);
        let shown = among(early, late);
        assert!(shown[0].at > shown[1].at);
    }

    #[test]
    fn what_waits_is_kept_beyond_what_is_over_and_what_goes_all_the_same_is_told() {
        let mut notices = Notices::default();
        for at in 0..100 {
            assert!(notices.add(&notice(&at.to_string()), at % 2 == 0, at).is_none());
        }
        assert!((0..100).step_by(2).all(|at| notices.kept.iter().any(|told| told.key == at.to_string())), "none that waits is gone");
        let gone = (100..1_000).filter_map(|at| notices.add(&notice(&at.to_string()), true, at)).count();
        assert_eq!((notices.kept.len(), gone), (WAITING_MAX, 50 + 900 - WAITING_MAX));
    }
}
