//! Deliveries as the directory keeps them: some hundred together, with the stretch of the log that they come from.
//!
//! Invariant: a segment covers the offsets from `from` to before `next` of one partition: every delivery of a notification in them is in
//! this segment or an earlier one. So the newest segment also is the reader's position, and one record moves both.
//! Deliberately absent: what the notifications say; the log has it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::delivery::{Dead, DeliveryId, Held, Place};
use super::raised::{Raised, RaisedId, kind_word, priority_word};
use crate::domain::{NotificationType, Priority};

/// A segment begins after the one that has reached this many deliveries.
pub const ITEMS_FULL: usize = 256;
/// Or this many, when what they say is in it too.
pub const NOTICES_FULL: usize = 32;
/// What is kept of an error's text.
const NOTE_BYTES_MAX: usize = 200;

/// Which segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentKey {
    /// The partition of `gate.notifications`.
    pub partition: u32,
    /// Its number, from 0.
    pub number: u64,
}

impl SegmentKey {
    /// Its id in the directory.
    #[must_use]
    pub fn entity(self) -> String {
        format!("segment-{}-{}", self.partition, self.number)
    }

    /// Reads its id.
    #[must_use]
    pub fn parse(id: &str) -> Option<Self> {
        let (partition, number) = id.strip_prefix("segment-")?.split_once('-')?;
        Some(Self { partition: partition.parse().ok()?, number: number.parse().ok()? })
    }
}

/// A segment as it is stored.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stored {
    /// The first offset that it covers.
    pub from: u64,
    /// The first that it does not cover any more.
    pub next: u64,
    /// When it was written, in ms: an instance delivered then. 0: not known.
    #[serde(rename = "at", default)]
    pub written: i64,
    /// Its deliveries.
    pub items: Vec<Item>,
}

/// One delivery.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Item {
    /// Of which notification.
    #[serde(rename = "n")]
    pub raised: RaisedId,
    /// Where it stands in its partition.
    #[serde(rename = "o")]
    pub offset: u64,
    /// Where it goes.
    #[serde(flatten)]
    pub place: Place,
    /// When its day to be sent in begins, in ms; moved on by all time in which it could not go.
    #[serde(rename = "p")]
    pub planned: i64,
    /// Attempts so far.
    #[serde(rename = "a", default, skip_serializing_if = "is_zero")]
    pub attempts: u32,
    /// What became of it.
    #[serde(flatten)]
    pub state: State,
    /// What the last attempt met.
    #[serde(rename = "w", default, skip_serializing_if = "String::is_empty")]
    pub note: String,
    /// So many further ones of its place are counted with it: there were too many to be kept one by one.
    #[serde(rename = "m", default, skip_serializing_if = "is_none_more")]
    pub more: u64,
    /// Which these are.
    #[serde(rename = "y", default, skip_serializing_if = "Option::is_none")]
    pub counted: Option<Counted>,
    /// What it says, as long as it has to be sent, when the log does not have it.
    #[serde(rename = "r", default, skip_serializing_if = "Option::is_none")]
    pub own: Option<Arc<Raised>>,
    /// What it says, as long as it has to be sent.
    #[serde(skip)]
    pub content: Option<Arc<Raised>>,
    /// It has waited for a digest and was alone in it.
    #[serde(skip)]
    pub released: bool,
}

/// What is counted with a delivery: all of one type and priority that came after it, up to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// The last one.
    #[serde(rename = "l")]
    pub last: RaisedId,
    /// Their type.
    #[serde(rename = "t", with = "kind_word")]
    pub kind: NotificationType,
    /// Their priority.
    #[serde(rename = "p", with = "priority_word")]
    pub priority: Priority,
}

const fn is_false(word: &bool) -> bool {
    !*word
}

const fn is_zero(count: &u32) -> bool {
    *count == 0
}

const fn is_none_more(count: &u64) -> bool {
    *count == 0
}

/// How far a delivery is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "s", rename_all = "snake_case")]
pub enum State {
    /// It has to be sent.
    Waiting,
    /// It waits for a digest.
    Held {
        /// Until then, in ms.
        until: i64,
        /// Why.
        why: Held,
    },
    /// It has to be sent with others.
    Grouped {
        /// The digest.
        group: DeliveryId,
        /// When its day to be sent in begins, in ms; moved on by all time in which it could not go.
        since: i64,
        /// Up to here it was moved on for a hold, in ms.
        #[serde(default)]
        until: i64,
        /// Why it waited for it.
        why: Held,
    },
    /// It was taken.
    Sent {
        /// When, in ms.
        at: i64,
        /// With others.
        #[serde(default, skip_serializing_if = "is_false")]
        digest: bool,
    },
    /// It will not be sent any more.
    Dead {
        /// When that was clear, in ms.
        at: i64,
        /// Why.
        why: Dead,
    },
}

impl State {
    /// Whether nothing more happens to it.
    #[must_use]
    pub const fn is_settled(self) -> bool {
        match self {
            Self::Waiting | Self::Held { .. } | Self::Grouped { .. } => false,
            Self::Sent { .. } | Self::Dead { .. } => true,
        }
    }

    /// Its word in answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting | Self::Grouped { .. } => "pending",
            Self::Held { .. } => "held",
            Self::Sent { .. } => "sent",
            Self::Dead { why, .. } => why.as_str(),
        }
    }
}

impl Item {
    /// It is held until then: so much of its day is not counted. What an earlier hold had moved it on beyond `now` is taken back.
    pub fn put_off(&mut self, now: i64, until: i64) {
        let moved_to = if let State::Held { until, .. } = self.state { until.max(now) } else { now };
        self.planned = self.planned.saturating_add(until.saturating_sub(moved_to));
    }

    /// Nobody delivered between these times: what of it lies behind a hold that it had is not counted. Whether that is worth a record.
    pub fn nobody_delivered(&mut self, from: i64, to: i64) -> bool {
        const RESTART_MS: i64 = 60_000;
        let from = match self.state {
            State::Held { until, .. } | State::Grouped { until, .. } => from.max(until),
            State::Waiting | State::Sent { .. } | State::Dead { .. } => from,
        };
        let gap = to.saturating_sub(from);
        if from == 0 || gap < RESTART_MS {
            return false;
        }
        match &mut self.state {
            State::Grouped { since, .. } => *since = since.saturating_add(gap),
            State::Held { .. } | State::Waiting | State::Sent { .. } | State::Dead { .. } => {
                self.planned = self.planned.saturating_add(gap)
            }
        }
        true
    }

    /// Whether that one is counted with it.
    #[must_use]
    pub fn counts(&self, raised: &Raised) -> bool {
        self.counted.is_some_and(|Counted { last, kind, priority }| {
            (kind, priority, last.shard) == (raised.kind, raised.priority, raised.id.shard) && self.raised < raised.id && raised.id <= last
        })
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> DeliveryId {
        DeliveryId::of(self.raised, &self.place)
    }

    /// Notes what went wrong.
    pub fn remark(&mut self, note: &str) {
        let end = (0..=note.len().min(NOTE_BYTES_MAX)).rev().find(|at| note.is_char_boundary(*at)).unwrap_or(0);
        note[..end].clone_into(&mut self.note);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::Channel;

    #[test]
    fn it_reads_back_what_it_wrote() {
        let place = Place { user: "ann".into(), channel: Channel::Push, target: "s-1".into() };
        let group = DeliveryId::of_digest(&place, Vec::new());
        let states = [
            State::Waiting,
            State::Held { until: 5, why: Held::Storm },
            State::Grouped { group, since: 6, until: 7, why: Held::Late },
            State::Sent { at: 7, digest: true },
            State::Dead { at: 8, why: Dead::Refused },
        ];
        let items = states.map(|state| Item {
            raised: RaisedId { shard: 0, seq: 7, index: 1 },
            offset: 12,
            place: place.clone(),
            planned: 3,
            attempts: 2,
            state,
            note: "550 no".into(),
            more: 0,
            counted: None,
            own: None,
            content: None,
            released: false,
        });
        let stored = Stored { from: 10, next: 20, written: 30, items: items.to_vec() };
        let text = serde_json::to_string(&stored).unwrap();
        assert!(text.contains(r#"{"n":"0-7-n1","o":12,"u":"ann","c":"push","t":"s-1","p":3,"a":2,"s":"waiting","w":"550 no"}"#), "{text}");
        assert_eq!(serde_json::from_str::<Stored>(&text).unwrap(), stored);
    }

    #[test]
    fn a_long_error_is_cut_between_characters() {
        let mut item: Item = serde_json::from_str(r#"{"n":"0-7-n1","o":1,"u":"a","c":"sms","p":3,"s":"waiting"}"#).unwrap();
        item.remark(&"ä".repeat(150));
        assert_eq!(item.note.chars().count(), 100);
        assert_eq!(SegmentKey::parse(&SegmentKey { partition: 3, number: 12 }.entity()), Some(SegmentKey { partition: 3, number: 12 }));
        assert_eq!(SegmentKey::parse("leader"), None);
    }
}
