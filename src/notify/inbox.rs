//! The inbox: the newest notifications of each person, and what they have read or deleted.
//!
//! Invariant: notifications come from the log and marks from the directory, so neither is lost with this process; at most [`KEPT`] are
//! kept of a person, the newest by time, then by id. Deliberately absent: who may see which account; whoever asks says so.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use super::UserId;
use super::raised::{Raised, RaisedId};
use crate::domain::{NotificationType, Priority};

/// Notifications kept of each person.
pub const KEPT: usize = 1_000;

/// The inboxes of all.
#[derive(Debug, Default)]
pub struct Inboxes {
    /// Oldest first.
    users: HashMap<UserId, VecDeque<Arc<Raised>>>,
}

fn order(raised: &Raised) -> (i64, RaisedId) {
    (raised.at, raised.id)
}

impl Inboxes {
    /// Puts a notification into a person's inbox; false when it is there already, or too old for it.
    pub fn take(&mut self, user: &UserId, raised: &Arc<Raised>) -> bool {
        if !self.users.contains_key(user) {
            self.users.insert(user.clone(), VecDeque::new());
        }
        let Some(inbox) = self.users.get_mut(user) else { return false };
        let place = inbox.partition_point(|other| order(other) < order(raised));
        if inbox.get(place).is_some_and(|other| other.id == raised.id) || (place == 0 && inbox.len() >= KEPT) {
            return false;
        }
        inbox.insert(place, raised.clone());
        if inbox.len() > KEPT {
            inbox.pop_front();
        }
        true
    }

    /// A person's notifications, the newest first.
    #[must_use]
    pub fn of(&self, user: &str) -> Vec<Arc<Raised>> {
        self.users.get(user).map_or_else(Vec::new, |inbox| inbox.iter().rev().cloned().collect())
    }
}

/// What a person has read and deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marks {
    /// Read one by one.
    #[serde(default)]
    pub read: BTreeSet<RaisedId>,
    /// Deleted.
    #[serde(default)]
    pub deleted: BTreeSet<RaisedId>,
    /// By shard: all up to this ledger sequence are read.
    #[serde(default)]
    pub read_until: BTreeMap<u32, u64>,
}

impl Marks {
    /// Whether it is read.
    #[must_use]
    pub fn is_read(&self, id: RaisedId) -> bool {
        self.read.contains(&id) || self.read_until.get(&id.shard).is_some_and(|until| id.seq <= *until)
    }

    /// Marks all of these read.
    pub fn read_all<'a>(&mut self, inbox: impl IntoIterator<Item = &'a Raised>) {
        for raised in inbox {
            let until = self.read_until.entry(raised.id.shard).or_insert(raised.id.seq);
            *until = raised.id.seq.max(*until);
        }
    }

    /// Forgets marks of what is no longer in the inbox: it never comes back.
    pub fn prune(&mut self, inbox: &[Arc<Raised>]) {
        let kept: BTreeSet<RaisedId> = inbox.iter().map(|raised| raised.id).collect();
        // An inbox that is being read from the log again after a start holds less than it will.
        if kept.len() < KEPT {
            return;
        }
        let until = std::mem::take(&mut self.read_until);
        self.read.retain(|id| kept.contains(id) && until.get(&id.shard).is_none_or(|until| id.seq > *until));
        self.deleted.retain(|id| kept.contains(id));
        self.read_until = until;
    }
}

/// What is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of this type.
    pub kind: Option<NotificationType>,
    /// Of this priority.
    pub priority: Option<Priority>,
    /// Not read, or read.
    pub unread: Option<bool>,
}

/// A page.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// The newest first, each with whether it is read.
    pub items: Vec<(Arc<Raised>, bool)>,
    /// Where the next page begins.
    pub next: Option<Cursor>,
}

/// A place in an inbox: behind this notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor(i64, RaisedId);

impl Cursor {
    /// As text that nobody has to understand.
    #[must_use]
    pub fn to_text(self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(format!("{} {}", self.0, self.1))
    }

    /// Reads its text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let plain = String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
        let (at, id) = plain.split_once(' ')?;
        Some(Self(at.parse().ok()?, RaisedId::parse(id)?))
    }
}

/// A page of an inbox (the newest first): what the filter and `may` let through, after `from`.
#[must_use]
pub fn page(
    inbox: &[Arc<Raised>],
    marks: &Marks,
    filter: Filter,
    from: Option<Cursor>,
    limit: usize,
    may: impl Fn(&Raised) -> bool,
) -> Page {
    let wanted = |raised: &&Arc<Raised>| {
        from.is_none_or(|from| Cursor(raised.at, raised.id) < from)
            && !marks.deleted.contains(&raised.id)
            && filter.kind.is_none_or(|kind| kind == raised.kind)
            && filter.priority.is_none_or(|priority| priority == raised.priority)
            && filter.unread.is_none_or(|unread| unread != marks.is_read(raised.id))
            && may(raised)
    };
    let mut found = inbox.iter().filter(wanted);
    let items: Vec<_> = found.by_ref().take(limit).map(|raised| (raised.clone(), marks.is_read(raised.id))).collect();
    let more = found.next().is_some();
    let next = items.last().filter(|_| more).map(|(raised, _)| Cursor(raised.at, raised.id));
    Page { items, next }
}

/// How many of what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// All.
    pub total: usize,
    /// Not read.
    pub unread: usize,
    /// By type.
    pub by_type: BTreeMap<&'static str, usize>,
    /// By priority.
    pub by_priority: BTreeMap<&'static str, usize>,
}

/// Counts what is in an inbox and not deleted.
#[must_use]
pub fn count(inbox: &[Arc<Raised>], marks: &Marks, may: impl Fn(&Raised) -> bool) -> Counts {
    let mut counts = Counts::default();
    for raised in inbox.iter().filter(|raised| !marks.deleted.contains(&raised.id) && may(raised)) {
        counts.total += 1;
        counts.unread += usize::from(!marks.is_read(raised.id));
        *counts.by_type.entry(raised.kind.as_str()).or_default() += 1;
        *counts.by_priority.entry(raised.priority.as_str()).or_default() += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raised(seq: u64, at: i64) -> Arc<Raised> {
        let (kind, priority) = if seq.is_multiple_of(2) { ("stop_loss", "urgent") } else { ("order_filled", "low") };
        let json = serde_json::json!({
            "notification_id": format!("0-{seq}-n0"), "account": format!("ACC{}", seq % 3), "type": kind, "code": "RULE_BREACH",
            "priority": priority, "title": "t", "message": "m", "data": {}, "at": at,
        });
        Arc::new(Raised::read(json.to_string().as_bytes()).unwrap())
    }

    fn filled(count: u64) -> Vec<Arc<Raised>> {
        let mut inboxes = Inboxes::default();
        for seq in 1..=count {
            inboxes.take(&"ann".into(), &raised(seq, 1_000 + seq as i64));
        }
        inboxes.of("ann")
    }

    fn id(seq: u64) -> RaisedId {
        RaisedId { shard: 0, seq, index: 0 }
    }

    fn seqs(page: &Page) -> Vec<u64> {
        page.items.iter().map(|(raised, _)| raised.id.seq).collect()
    }

    #[test]
    fn keeps_the_newest_thousand_whatever_the_order_and_each_once() {
        let mut inboxes = Inboxes::default();
        let ann: UserId = "ann".into();
        for seq in (1..=1_200).rev() {
            inboxes.take(&ann, &raised(seq, 1_000 + seq as i64));
        }
        assert!(!inboxes.take(&ann, &raised(1_200, 2_200)), "it is there already");
        assert!(!inboxes.take(&ann, &raised(3, 1_003)), "it is older than all that is kept");
        let kept = inboxes.of("ann");
        assert_eq!((kept.len(), kept[0].id.seq, kept[999].id.seq), (KEPT, 1_200, 201));
        assert!(inboxes.of("bob").is_empty());
    }

    #[test]
    fn pages_neither_repeat_nor_leave_out_also_when_more_comes_meanwhile() {
        let (inbox, marks) = (filled(25), Marks::default());
        let first = page(&inbox, &marks, Filter::default(), None, 10, |_| true);
        assert_eq!(seqs(&first), (16..=25).rev().collect::<Vec<_>>());
        let inbox = filled(30);
        let cursor = Cursor::parse(&first.next.unwrap().to_text());
        let second = page(&inbox, &marks, Filter::default(), cursor, 10, |_| true);
        assert_eq!(seqs(&second), (6..=15).rev().collect::<Vec<_>>());
        let third = page(&inbox, &marks, Filter::default(), second.next, 5, |_| true);
        assert_eq!((seqs(&third), third.next), ((1..=5).rev().collect::<Vec<_>>(), None));
        assert_eq!(Cursor::parse("no cursor"), None);
    }

    #[test]
    fn filters_by_type_priority_unread_and_right() {
        let inbox = filled(12);
        let mut marks = Marks { read: [id(12), id(10)].into(), ..Marks::default() };
        let of = |filter: Filter, marks: &Marks| seqs(&page(&inbox, marks, filter, None, 100, |_| true));
        assert_eq!(of(Filter { kind: Some(NotificationType::StopLoss), ..Filter::default() }, &marks), [12, 10, 8, 6, 4, 2]);
        assert_eq!(of(Filter { priority: Some(Priority::Low), ..Filter::default() }, &marks), [11, 9, 7, 5, 3, 1]);
        assert_eq!(of(Filter { unread: Some(true), kind: Some(NotificationType::StopLoss), ..Filter::default() }, &marks), [8, 6, 4, 2]);
        marks.deleted.insert(id(8));
        assert_eq!(of(Filter { unread: Some(true), kind: Some(NotificationType::StopLoss), ..Filter::default() }, &marks), [6, 4, 2]);
        assert_eq!(of(Filter { unread: Some(false), ..Filter::default() }, &marks), [12, 10]);
        let own = page(&inbox, &marks, Filter::default(), None, 100, |raised| raised.account.as_deref() == Some("ACC1"));
        assert_eq!(seqs(&own), [10, 7, 4, 1]);
    }

    #[test]
    fn read_all_reads_what_is_there_and_not_what_comes() {
        let mut marks = Marks::default();
        marks.read_all(filled(5).iter().map(Arc::as_ref));
        let counts = count(&filled(7), &marks, |_| true);
        assert_eq!((counts.total, counts.unread), (7, 2));
        assert_eq!(counts.by_type, [("order_filled", 4), ("stop_loss", 3)].into());
        assert_eq!(counts.by_priority, [("low", 4), ("urgent", 3)].into());
    }

    #[test]
    fn marks_of_what_is_gone_are_forgotten_and_they_read_back() {
        let mut marks =
            Marks { read: [id(1), id(900), id(1_500)].into(), deleted: [id(2), id(1_400)].into(), read_until: [(0, 900)].into() };
        let text = serde_json::to_string(&marks).unwrap();
        assert_eq!(serde_json::from_str::<Marks>(&text).unwrap(), marks);
        let before = marks.clone();
        marks.prune(&filled(10));
        assert_eq!(marks, before, "an inbox that is not full may still be filling");
        marks.prune(&filled(1_600));
        assert_eq!((marks.read, marks.deleted), ([id(1_500)].into(), [id(1_400)].into()));
    }
}
