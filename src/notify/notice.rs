//! Notices: what the daemon itself has to tell one person, other than what the gate raised; for instance that a broker key ends.
//!
//! Invariant: a notice is in the directory, and so in the inbox of its owner at every instance, before it goes out over any channel; what
//! went out is noted place by place. Of several instances one sends at a time. A crash between sending and noting repeats that one place,
//! under the same id. Deliberately absent: the log of the gate; nothing here raises anything there, and nothing there depends on this.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::delivery::{DeliveryId, Outcome, Place};
use super::inbox::KEPT;
use super::message::Message;
use super::people::{AddressBook, ChangeError, Kept};
use super::preference::{Preferences, Verdict};
use super::raised::{Raised, RaisedId};
use super::service::Notifier;
use super::{UserId, now_ms};
use crate::control::directory::{DirectoryService, WriteError};
use crate::directory::Kind;
use crate::domain::{NotificationType, Priority};

const PREFIX: &str = "notices~";
/// The shard that notices are of, which no gate has.
const NO_SHARD: u32 = u32::MAX;
/// Notices kept of one person; more as long as they are not over with.
const NOTICES_MAX: usize = 64;
/// But no more than these: a body of the directory has an end.
const WAITING_MAX: usize = 128;
/// An instance that sends is left alone for so long.
const LEASE_MS: i64 = 10 * 60_000;
/// A place that could not be reached for so long, since it was first tried, is given up.
const PATIENCE_MS: i64 = 24 * 3_600_000;

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
    /// The places that are over with.
    #[serde(default)]
    done: BTreeSet<DeliveryId>,
    /// Who sends it now.
    #[serde(default)]
    sender: String,
    /// Until when the sender is left alone.
    #[serde(default)]
    until: i64,
    /// When a place was first not reached, in ms.
    #[serde(default)]
    failed_at: Option<i64>,
    /// All places are over with.
    #[serde(default)]
    settled: bool,
}

/// What became of one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// It has the notice, or never will.
    Over,
    /// The person wants silence now.
    Held,
    /// It could not be reached.
    Failed,
}

/// What became of a round over all places.
#[derive(Clone, Debug, Default)]
struct Round {
    done: BTreeSet<DeliveryId>,
    held: bool,
    failed: bool,
}

impl Round {
    fn take(&mut self, id: DeliveryId, ended: Ended) {
        match ended {
            Ended::Over => drop(self.done.insert(id)),
            Ended::Held => self.held = true,
            Ended::Failed => self.failed = true,
        }
    }
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
    /// The notice for whoever may send it now; `None` while somebody else does.
    fn take(&mut self, notice: &Notice<'_>, sender: &str, now: i64) -> Option<Told> {
        let known = self.kept.iter().position(|told| told.key == notice.key);
        let at = known.unwrap_or_else(|| self.add(notice, now));
        let told = self.kept.get_mut(at)?;
        if told.sender != sender && told.until > now {
            return None;
        }
        (told.sender, told.until) = (sender.to_owned(), now + LEASE_MS);
        Some(told.clone())
    }

    fn add(&mut self, notice: &Notice<'_>, now: i64) -> usize {
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
        if self.kept.len() >= NOTICES_MAX {
            // What somebody has still to hear of is not thrown away for what is newer.
            let over = self.kept.iter().position(|told| told.settled);
            let oldest = over.or_else(|| (self.kept.len() >= WAITING_MAX).then_some(0));
            oldest.map(|at| self.kept.remove(at));
        }
        let (key, sender) = (notice.key.to_owned(), String::new());
        self.kept.push(Told { key, raised, done: BTreeSet::new(), sender, until: 0, failed_at: None, settled: false });
        self.kept.len() - 1
    }

    /// Notes what is over with, and that nobody sends any more. True when nothing is left to do.
    fn settle(&mut self, key: &str, round: &Round, now: i64) -> bool {
        let Some(told) = self.kept.iter_mut().find(|told| told.key == key) else { return true };
        told.done.extend(round.done.iter().copied());
        told.until = 0;
        // Silence that somebody asked for is no failure: its time is not counted.
        if !round.failed {
            told.failed_at = None;
        }
        let failing = round.failed.then(|| *told.failed_at.get_or_insert(now));
        let given_up = failing.is_none_or(|since| now - since >= PATIENCE_MS);
        told.settled = !round.held && given_up;
        told.settled
    }
}

impl Notifier {
    /// Tells one person something: in the inbox at once, and over the channels that they want. True when nothing is left to do; else
    /// tell it again later, and what went out already does not go out again.
    ///
    /// # Errors
    /// The directory does not take it: nobody was told, or that somebody was is not noted.
    pub async fn tell(&self, notice: &Notice<'_>) -> Result<bool, WriteError> {
        let (now, sender, place) = (now_ms(), self.instance(), place_of(notice.user));
        let taken = self
            .book()
            .change(&place, sender, None, |notices: &mut Notices| Ok::<_, std::convert::Infallible>(notices.take(notice, sender, now)));
        let Some(told) = written(taken.await)?.0 else { return Ok(false) };
        let user: UserId = notice.user.into();
        let raised = Arc::new(told.raised);
        let mut round = Round::default();
        for place in self.book().places(&user, raised.kind, raised.priority, now) {
            let id = DeliveryId::of(raised.id, &place);
            if told.done.contains(&id) {
                continue;
            }
            round.take(id, self.send_notice(&raised, &place, id, now).await);
        }
        let settled = self.book().change(&place, sender, None, |notices: &mut Notices| {
            Ok::<_, std::convert::Infallible>(notices.settle(notice.key, &round, now))
        });
        Ok(written(settled.await)?.0)
    }

    /// Sends a notice to one place, unless the person wants silence now.
    async fn send_notice(&self, raised: &Arc<Raised>, place: &Place, id: DeliveryId, now: i64) -> Ended {
        let preferences = self.book().get::<Preferences>(&place.user).0;
        match preferences.of(raised.kind, place.channel).verdict(raised.priority, now) {
            Verdict::Now => {}
            Verdict::Hold { .. } => return Ended::Held,
            Verdict::Never(_) => return Ended::Over,
        }
        let message = Message {
            id,
            user: place.user.clone(),
            contents: vec![raised.clone()],
            more: 0,
            digest: false,
            reasons: Vec::new(),
            test: false,
        };
        match self.channels().send(self.book(), &message, place, now).await {
            Outcome::Sent | Outcome::Unwanted { .. } => Ended::Over,
            Outcome::Refused { why } | Outcome::Gone { why } => {
                tracing::warn!(user = %place.user, channel = %place.channel, why, "a notice was refused");
                Ended::Over
            }
            Outcome::Later { why, .. } => {
                tracing::debug!(user = %place.user, channel = %place.channel, why, "a notice has to wait");
                Ended::Failed
            }
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
    fn one_instance_sends_a_notice_at_a_time_and_what_went_out_is_remembered() {
        let mut notices = Notices::default();
        let told = notices.take(&notice("k"), "one", 1_000).unwrap();
        assert_eq!(told.raised.owner.as_deref(), Some("ann"));
        assert!(notices.take(&notice("k"), "two", 2_000).is_none(), "the first one sends");
        let place = Place { user: "ann".into(), channel: super::super::Channel::Email, target: "".into() };
        let id = DeliveryId::of(told.raised.id, &place);
        let round = Round { done: BTreeSet::from([id]), held: true, failed: false };
        assert!(!notices.settle("k", &round, 2_500), "another place waits");
        let told = notices.take(&notice("k"), "two", 3_000).unwrap();
        assert!(told.done.contains(&id) && told.raised.at == 1_000);
        assert!(notices.take(&notice("k"), "one", 3_001 + LEASE_MS).is_some(), "one that died is replaced");
        assert_eq!(notices.kept.len(), 1);
    }

    #[test]
    fn the_newest_are_kept_and_stand_in_the_inbox_by_time() {
        let mut notices = Notices::default();
        for at in 0..i64::try_from(NOTICES_MAX).unwrap() + 3 {
            notices.take(&notice(&at.to_string()), "one", at);
            assert!(notices.settle(&at.to_string(), &Round::default(), at));
        }
        assert_eq!((notices.kept.len(), notices.kept[0].key.as_str()), (NOTICES_MAX, "3"));
        let all: Vec<Arc<Raised>> = notices.kept.into_iter().map(|told| Arc::new(told.raised)).collect();
        let (early, late) = (vec![all[0].clone()], vec![all[1].clone()]);
        let shown = among(early, late);
        assert!(shown[0].at > shown[1].at);
    }

    #[test]
    fn silence_is_not_failure_and_a_failure_has_its_day() {
        let mut notices = Notices::default();
        let (held, failed) = (Round { held: true, ..Round::default() }, Round { failed: true, ..Round::default() });
        for days in 0..5 {
            let now = 1_000 + days * PATIENCE_MS;
            notices.take(&notice("k"), "one", now);
            assert!(!notices.settle("k", &held, now), "it is held for {days} days");
        }
        assert!(!notices.settle("k", &failed, 900 + 5 * PATIENCE_MS));
        assert!(!notices.settle("k", &held, 950 + 5 * PATIENCE_MS), "a failure before a silence is not counted with one after it");
        let begun = 1_000 + 7 * PATIENCE_MS;
        assert!(!notices.settle("k", &failed, begun));
        assert!(!notices.settle("k", &Round { held: true, failed: true, ..Round::default() }, begun + PATIENCE_MS), "one place is held");
        assert!(!notices.settle("k", &failed, begun + PATIENCE_MS - 1));
        assert!(notices.settle("k", &failed, begun + PATIENCE_MS));
    }

    #[test]
    fn what_waits_is_kept_beyond_what_is_over() {
        let mut notices = Notices::default();
        let (held, over) = (Round { held: true, ..Round::default() }, Round::default());
        for at in 0..100 {
            let key = at.to_string();
            notices.take(&notice(&key), "one", at);
            notices.settle(&key, if at % 2 == 0 { &held } else { &over }, at);
        }
        assert!((0..100).step_by(2).all(|at| notices.kept.iter().any(|told| told.key == at.to_string())), "none that waits is gone");
        for at in 100..1_000 {
            notices.take(&notice(&at.to_string()), "one", at);
        }
        assert_eq!(notices.kept.len(), WAITING_MAX);
    }
}
