//! The day that a delivery has to be sent in: time in which it was not to go is none of it.
//!
//! Invariant: a hold moves the day on to its end when it begins, and back when it is taken back, and that is saved; so it counts whoever
//! delivers then, and also when nobody does. Deliberately absent: who wants what.

use std::collections::{BTreeMap, HashMap};

use super::lane::Lane;
use super::saving::Segment;
use super::{Desk, Group, Unit, Wishes, ms};
use crate::domain::{NotificationType, Priority};
use crate::notify::delivery::{Dead, DeliveryId, Held, Place};
use crate::notify::preference::Verdict;
use crate::notify::segment::{SegmentKey, State};

impl Desk {
    /// The time in which a digest is held is none in which it could have been sent: its day is moved on to the hold's end, at once, so
    /// that it is known whoever delivers then; and back to `now` when the hold is taken back.
    pub(super) fn put_off(&mut self, unit: Unit, (now, until): (i64, i64)) {
        let Unit::Group(id) = unit else { return };
        let Some(group) = self.groups.get_mut(&id) else { return };
        let moved = until.saturating_sub(group.until.max(now));
        if moved == 0 {
            return;
        }
        (group.since, group.until) = (group.since.saturating_add(moved), until);
        self.note_since(id);
    }

    /// Notes the day of a digest with its members.
    fn note_since(&mut self, id: DeliveryId) {
        let Some(group) = self.groups.get(&id) else { return };
        let (members, begins, held) = (group.members.clone(), group.since, group.until);
        for at in members {
            if let Some(State::Grouped { since, until, .. }) = self.change(at).map(|item| &mut item.state) {
                (*since, *until) = (begins, held);
            }
        }
    }

    /// Holds what waits behind a way that is down and is to be held by now, ends what could not be delivered in time though it was never
    /// its turn, and forgets what is of no use any more.
    pub fn sweep(&mut self, now: i64, wishes: &dyn Wishes) {
        self.seen = self.seen.max(now);
        self.hold_those_that_wait(now, wishes);
        let dead_after = ms(self.limits.dead_after);
        let (segments, groups) = (&self.segments, &self.groups);
        let over = |unit: &Unit| since(segments, groups, *unit).is_none_or(|since| now.saturating_sub(since) >= dead_after);
        let ended: Vec<Unit> = self.lanes.values_mut().flat_map(|lane| lane.take_out(over)).collect();
        for unit in ended {
            self.settle(unit, now, Dead::Expired, "");
        }
        // A way that was down and that nothing waits for is not asked again: nobody would ever find it up.
        self.lanes.retain(|_, lane| !lane.is_over(now));
        self.storms.forget(now);
    }

    /// What waits for its turn is held as what has it: it does not expire of time in which it was not to go.
    fn hold_those_that_wait(&mut self, now: i64, wishes: &dyn Wishes) {
        let mut asked: HashMap<(Place, NotificationType, Priority), Verdict> = HashMap::new();
        let mut verdicts: HashMap<Unit, (i64, Held)> = HashMap::new();
        let mut taken_back = Vec::new();
        for unit in self.lanes.values().flat_map(Lane::waiting) {
            let Some((place, kind, priority, _)) = self.subject(unit) else { continue };
            let verdict = asked
                .entry((place, kind, priority))
                .or_insert_with_key(|(place, kind, priority)| wishes.verdict(&place.user, place.channel, *kind, *priority, now));
            match *verdict {
                Verdict::Hold { until, why } => drop(verdicts.insert(unit, (until, why))),
                Verdict::Now => taken_back.push(unit),
                Verdict::Never(_) => {}
            }
        }
        taken_back.into_iter().for_each(|unit| self.put_off(unit, (now, now)));
        let is_single = |unit: &Unit| matches!(unit, Unit::Single(_)) && verdicts.contains_key(unit);
        let singles: Vec<Unit> = self.lanes.values_mut().flat_map(|lane| lane.take_out(is_single)).collect();
        for unit in singles {
            if let (Unit::Single(at), Some((until, why))) = (unit, verdicts.remove(&unit)) {
                self.hold(at, (now, until), why);
            }
        }
        // A digest keeps its place in the queue and asks again when it is its turn.
        for (unit, (until, _)) in verdicts {
            self.put_off(unit, (now, until));
        }
    }

    pub(super) fn is_over(&self, unit: Unit, now: i64) -> bool {
        since(&self.segments, &self.groups, unit).is_some_and(|since| now.saturating_sub(since) >= ms(self.limits.dead_after))
    }
}

/// Since when a unit has to be sent.
fn since(segments: &BTreeMap<SegmentKey, Segment>, groups: &HashMap<DeliveryId, Group>, unit: Unit) -> Option<i64> {
    match unit {
        Unit::Single(at) => Some(segments.get(&at.segment)?.items.get(at.index)?.planned),
        Unit::Group(group) => groups.get(&group).map(|group| group.since),
    }
}
