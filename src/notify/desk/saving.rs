//! What the desk has to save, what it gets back, and how deliveries come onto it.
//!
//! Invariant: segments of a partition are saved in the order of their numbers, since the newest one is the reader's position; a delivery
//! that is known already is not taken twice. Deliberately absent: the directory.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{CROWD_MS, Desk, Group, ItemRef, Told, Unit};
use crate::domain::Priority;
use crate::notify::delivery::{Dead, DeliveryId, Held, Place};
use crate::notify::notice::NO_SHARD;
use crate::notify::raised::Raised;
use crate::notify::schedule::Limits;
use crate::notify::segment::{Counted, ITEMS_FULL, Item, NOTICES_FULL, SegmentKey, State, Stored};

/// A position that has moved by so many offsets is saved though nothing else has changed.
const STEP_OFFSETS: u64 = 1_000;

/// A segment on the desk.
#[derive(Debug, Default)]
pub(super) struct Segment {
    pub(super) items: Vec<Item>,
    from: u64,
    next: u64,
    next_saved: u64,
    version: u64,
    pub(super) changes: u64,
    saved: u64,
}

/// A segment that has to be saved.
#[derive(Clone, Debug, PartialEq)]
pub struct Save {
    /// Which one.
    pub key: SegmentKey,
    /// The version that it replaces.
    pub version: u64,
    /// Up to which change it is this.
    pub changes: u64,
    /// Up to which offset it reaches.
    pub next: u64,
    /// Its content.
    pub body: Vec<u8>,
}

impl Desk {
    /// Takes a segment from the directory. Call [`Desk::open`] when all are there.
    pub fn load(&mut self, key: SegmentKey, version: u64, stored: Stored) {
        self.known.extend(stored.items.iter().map(Item::id));
        for item in stored.items.iter().filter(|item| !item.state.is_settled()) {
            self.pending += 1;
            let crowd = self.crowds.entry(item.place.clone()).or_default();
            crowd.count += 1;
        }
        self.written = self.written.max(stored.written);
        let Stored { from, next, items, .. } = stored;
        self.segments.insert(key, Segment { items, from, next, next_saved: next, version, changes: 0, saved: 0 });
    }

    /// The offsets of the notifications that have to be sent, by partition.
    #[must_use]
    pub fn wanted(&self) -> BTreeSet<(u32, u64)> {
        let open = |(key, item): (u32, &Item)| (!item.state.is_settled()).then_some((key, item.offset));
        let logged = self.segments.iter().filter(|(key, _)| key.partition != NO_SHARD);
        logged.flat_map(|(key, segment)| segment.items.iter().map(|item| (key.partition, item))).filter_map(open).collect()
    }

    /// Gives every delivery its notification, ends those that have none any more, and queues the others.
    pub fn open(&mut self, now: i64, content: impl Fn(u32, u64) -> Option<Arc<Raised>>) {
        self.seen = self.seen.max(now);
        self.remember_storms(now);
        let mut open = Vec::new();
        for (key, segment) in &mut self.segments {
            for (index, item) in segment.items.iter_mut().enumerate().filter(|(_, item)| !item.state.is_settled()) {
                if item.nobody_delivered(self.written, now) {
                    segment.changes += 1;
                }
                item.content = item.own.clone().or_else(|| content(key.partition, item.offset)).filter(|raised| raised.id == item.raised);
                open.push((ItemRef { segment: *key, index }, item.state, item.content.is_some()));
            }
        }
        for (at, state, is_there) in open {
            match state {
                State::Held { until, .. } if is_there => {
                    let ticket = self.next_ticket();
                    self.held.insert((until, ticket), at);
                    if let Some((place, counted)) = self.item(at).and_then(|item| Some((item.place.clone(), item.counted?))) {
                        let crowd = self.crowds.entry(place).or_default();
                        crowd.summaries.insert((counted.kind, counted.priority), at);
                    }
                }
                State::Waiting if is_there => self.enqueue(Unit::Single(at)),
                // A digest whose members are not all there any more is still the digest that may have been sent.
                State::Grouped { group, since, until, .. } => {
                    let found = self.groups.entry(group).or_insert_with(|| Group { members: Vec::new(), since, until, failures: 0 });
                    (found.since, found.until) = (found.since.max(since), found.until.max(until));
                    found.members.push(at);
                }
                State::Held { .. } | State::Waiting | State::Sent { .. } | State::Dead { .. } => {
                    self.settle(Unit::Single(at), now, Dead::Lost, "the log no longer has it");
                }
            }
        }
        let groups: Vec<DeliveryId> = self.groups.keys().copied().collect();
        for group in groups {
            if self.subject(Unit::Group(group)).is_some() {
                self.enqueue(Unit::Group(group));
            } else {
                self.settle(Unit::Group(group), now, Dead::Lost, "the log no longer has it");
            }
        }
    }

    /// What went out one by one within the last minute counts towards a storm, whichever instance sent it.
    fn remember_storms(&mut self, now: i64) {
        for item in self.segments.values().flat_map(|segment| &segment.items) {
            if let State::Sent { at, digest: false } = item.state {
                self.storms.remember(&item.place.user, item.raised, at, now);
            }
        }
    }

    /// How far a partition was read.
    #[must_use]
    pub fn position(&self, partition: u32) -> Option<u64> {
        let of = |number| SegmentKey { partition, number };
        self.segments.range(of(0)..=of(u64::MAX)).map(|(_, segment)| segment.next).max()
    }

    /// Notes that a partition is read from here on.
    pub fn begin_at(&mut self, partition: u32, offset: u64) {
        let key = self.newest(partition).map_or(SegmentKey { partition, number: 0 }, |key| SegmentKey { number: key.number + 1, ..key });
        self.segments.insert(key, Segment { from: offset, next: offset, changes: 1, ..Segment::default() });
    }

    /// Takes a notification, to be sent to these places, and moves the position behind it.
    pub fn plan(&mut self, now: i64, partition: u32, offset: u64, raised: Option<&Arc<Raised>>, places: Vec<Place>) {
        self.seen = self.seen.max(now);
        let mut key = self.newest(partition).unwrap_or(SegmentKey { partition, number: 0 });
        let full = if partition == NO_SHARD { NOTICES_FULL } else { ITEMS_FULL };
        for place in places {
            let Some(raised) = raised else { break };
            let id = DeliveryId::of(raised.id, &place);
            // Notices are few.
            let is_crowded = partition != NO_SHARD && self.is_crowded(&place);
            let is_taken = self.known.contains(&id) || self.is_counted(&place, raised);
            if is_taken || (is_crowded && self.counts_with_others(key, &place, raised)) {
                continue;
            }
            self.known.insert(id);
            if self.segments.get(&key).is_some_and(|segment| segment.items.len() >= full) {
                key.number += 1;
            }
            let segment = self.segments.entry(key).or_insert_with(|| Segment { from: offset, next: offset, ..Segment::default() });
            let at = ItemRef { segment: key, index: segment.items.len() };
            segment.items.push(Item {
                raised: raised.id,
                offset,
                place: place.clone(),
                planned: now,
                attempts: 0,
                state: State::Waiting,
                note: String::new(),
                more: 0,
                counted: None,
                own: (partition == NO_SHARD).then(|| raised.clone()),
                content: Some(raised.clone()),
                released: false,
            });
            segment.changes += 1;
            self.pending += 1;
            let crowd = self.crowds.entry(place).or_default();
            crowd.count += 1;
            if is_crowded {
                crowd.summaries.insert((raised.kind, raised.priority), at);
                // What is urgent waits only where it is to be held.
                let wait = if raised.priority == Priority::Urgent { 0 } else { CROWD_MS };
                self.hold(at, (now, now.saturating_add(wait)), Held::Storm);
            } else {
                self.after_saving(Unit::Single(at), &[at]);
            }
        }
        let segment = self.segments.entry(key).or_insert_with(|| Segment { from: offset, ..Segment::default() });
        segment.next = offset + 1;
        if segment.next >= segment.next_saved + STEP_OFFSETS && segment.changes == segment.saved {
            segment.changes += 1;
        }
    }

    /// Takes a notice, which the log does not have, to be sent to these places.
    pub fn plan_notice(&mut self, now: i64, raised: &Arc<Raised>, places: Vec<Place>) {
        if !places.iter().all(|place| self.known.contains(&DeliveryId::of(raised.id, place))) {
            self.plan(now, NO_SHARD, self.position(NO_SHARD).unwrap_or(0), Some(raised), places);
        }
    }

    /// Whether all notices that were taken are saved.
    #[must_use]
    pub fn has_saved_notices(&self) -> bool {
        self.segments.iter().filter(|(key, _)| key.partition == NO_SHARD).all(|(_, segment)| segment.saved == segment.changes)
    }

    /// Whether so much is under way to a place that further ones are not kept one by one: nobody's deliveries keep those of others waiting.
    fn is_crowded(&self, place: &Place) -> bool {
        let count = self.crowds.get(place).map_or(0, |crowd| crowd.count);
        count >= self.limits.place_max() || (count >= Limits::FEW && self.pending >= self.limits.pending_max)
    }

    /// Whether one is counted with a summary already: it is read again after a kill before the position behind it was saved.
    fn is_counted(&self, place: &Place, raised: &Raised) -> bool {
        let summary = self.crowds.get(place).and_then(|crowd| crowd.summaries.get(&(raised.kind, raised.priority)));
        summary.and_then(|at| self.item(*at)).is_some_and(|item| item.counts(raised))
    }

    /// Counts one more with the summary of its place, type and priority (it is told, held and ended as that is), if there is one that has
    /// not begun to go out and is saved together with the position that moves behind this one: in the segment that is being filled.
    fn counts_with_others(&mut self, filling: SegmentKey, place: &Place, raised: &Raised) -> bool {
        let summary = self.crowds.get(place).and_then(|crowd| crowd.summaries.get(&(raised.kind, raised.priority)));
        let Some(at) = summary.copied().filter(|at| at.segment == filling) else { return false };
        if !self.item(at).is_some_and(|item| matches!(item.state, State::Held { .. }) && item.attempts == 0) {
            return false;
        }
        if let Some(item) = self.change(at) {
            item.more = item.more.saturating_add(1);
            item.counted = Some(Counted { last: raised.id, kind: raised.kind, priority: raised.priority });
        }
        self.told.push(Told { channel: place.channel, what: "held", count: 1, took_ms: 0 });
        true
    }

    fn newest(&self, partition: u32) -> Option<SegmentKey> {
        let of = |number| SegmentKey { partition, number };
        self.segments.range(of(0)..=of(u64::MAX)).next_back().map(|(key, _)| *key)
    }

    /// An item that is about to change.
    pub(super) fn change(&mut self, at: ItemRef) -> Option<&mut Item> {
        let segment = self.segments.get_mut(&at.segment)?;
        segment.changes += 1;
        segment.items.get_mut(at.index)
    }

    /// Queues a unit once these items are saved as they are now.
    pub(super) fn after_saving(&mut self, unit: Unit, items: &[ItemRef]) {
        let keys: BTreeSet<SegmentKey> = items.iter().map(|at| at.segment).collect();
        let needs = keys.into_iter().filter_map(|key| Some((key, self.segments.get(&key)?.changes))).collect();
        self.unsaved.push((needs, unit));
    }

    /// What has to be saved, in this order.
    #[must_use]
    pub fn to_save(&self) -> Vec<Save> {
        let changed = self.segments.iter().filter(|(_, segment)| segment.changes > segment.saved);
        changed.filter_map(|(key, segment)| save_of(*key, segment, self.seen)).collect()
    }

    /// Whether anything has to be saved.
    #[must_use]
    pub fn has_changes(&self) -> bool {
        self.segments.values().any(|segment| segment.changes > segment.saved)
    }

    /// What has to be saved before the desk is left, positions included.
    #[must_use]
    pub fn to_save_at_the_end(&self) -> Vec<Save> {
        let changed = self.segments.iter().filter(|(_, segment)| segment.changes > segment.saved || segment.next > segment.next_saved);
        changed.filter_map(|(key, segment)| save_of(*key, segment, self.seen)).collect()
    }

    /// A segment is in the directory; what waited for that may go.
    pub fn saved(&mut self, save: &Save, version: u64) {
        let Some(segment) = self.segments.get_mut(&save.key) else { return };
        segment.saved = segment.saved.max(save.changes);
        segment.version = version;
        segment.next_saved = segment.next_saved.max(save.next);
        let segments = &self.segments;
        let is_saved = |(key, changes): &(SegmentKey, u64)| segments.get(key).is_none_or(|segment| segment.saved >= *changes);
        let (ready, waiting) = std::mem::take(&mut self.unsaved).into_iter().partition(|(needs, _)| needs.iter().all(is_saved));
        self.unsaved = waiting;
        let ready: Vec<(Vec<(SegmentKey, u64)>, Unit)> = ready;
        for (_, unit) in ready {
            self.enqueue(unit);
        }
    }

    /// A segment is in the directory in this version, though not as it is now.
    pub fn adopt(&mut self, key: SegmentKey, version: u64) {
        if let Some(segment) = self.segments.get_mut(&key) {
            segment.version = version;
        }
    }

    /// Segments of which all is settled, beyond those that are kept: the oldest, with their versions.
    #[must_use]
    pub fn outlived(&self) -> Vec<(SegmentKey, u64)> {
        let is_done = |segment: &Segment| segment.saved == segment.changes && segment.items.iter().all(|item| item.state.is_settled());
        let newest = |key: &SegmentKey| self.newest(key.partition) == Some(*key);
        let mut done: Vec<_> = self.segments.iter().filter(|(key, segment)| is_done(segment) && !newest(key)).collect();
        done.sort_by_key(|(key, _)| (key.number, key.partition));
        let over = done.len().saturating_sub(self.limits.settled_kept);
        done.into_iter().take(over).map(|(key, segment)| (*key, segment.version)).collect()
    }

    /// A segment is no longer in the directory.
    pub fn forgotten(&mut self, key: SegmentKey) {
        if let Some(segment) = self.segments.remove(&key) {
            for item in segment.items {
                self.known.remove(&item.id());
            }
        }
    }
}

fn save_of(key: SegmentKey, segment: &Segment, written: i64) -> Option<Save> {
    let stored = Stored { from: segment.from, next: segment.next, written, items: segment.items.clone() };
    let body = serde_json::to_vec(&stored).ok()?;
    Some(Save { key, version: segment.version, changes: segment.changes, next: segment.next, body })
}
