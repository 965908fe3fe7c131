//! The desk where deliveries lie until they are settled: what is to be sent now, what waits and why, what has to be saved.
//!
//! Invariant: nothing is handed out before the directory has it, so that a restart knows what may have been sent; a digest's members are
//! saved before it goes out, so that it goes out again as the same one. What failed is tried again until it is dead, and what is settled
//! stays settled. Deliberately absent: clocks, tasks, the network: time is an argument, attempts and their outcomes are values.

#[cfg(test)]
mod crowd_tests;
mod day;
#[cfg(test)]
mod day_tests;
mod lane;
mod saving;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::delivery::{Dead, DeliveryId, Held, Outcome, Place};
use super::preference::Verdict;
use super::raised::Raised;
use super::schedule::{Limits, Storms};
use super::segment::{Item, SegmentKey, State};
use super::{Channel, UserId};
use lane::{Lane, LaneKey};
pub use saving::Save;
use saving::Segment;

use crate::domain::{NotificationType, Priority};

/// Old news are gathered for so long before they go out together.
const GATHER_MS: i64 = 2_000;

/// A digest that must not go out yet asks again so often.
const GROUP_ASKS_MS: i64 = 60_000;

/// Each failed attempt at something of so many deliveries is saved; at a larger digest the first, second, fourth and so on.
const ATTEMPTS_SAVED_MAX: usize = 1_000;

/// What is too much to be kept one by one is counted for so long before it may go out as a summary.
const CROWD_MS: i64 = 60_000;

/// What people want, as it is now.
pub trait Wishes {
    /// What becomes of a notification of this type and priority for this person over this channel.
    fn verdict(&self, user: &UserId, channel: Channel, kind: NotificationType, priority: Priority, now: i64) -> Verdict;
}

/// Which delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ItemRef {
    segment: SegmentKey,
    index: usize,
}

/// What is sent as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unit {
    /// A notification.
    Single(ItemRef),
    /// A digest.
    Group(DeliveryId),
}

/// One attempt.
#[derive(Clone, Debug)]
pub struct Job {
    /// What is sent.
    pub unit: Unit,
    /// Under which id.
    pub id: DeliveryId,
    /// Where to.
    pub place: Place,
    /// What is in it: the most urgent first, then in the order in which they came.
    pub contents: Vec<Arc<Raised>>,
    /// So many more that it stands for.
    pub more: u64,
    /// Whether it is a digest.
    pub digest: bool,
    /// Why it is one.
    pub reasons: Vec<Held>,
    /// When it began, in ms.
    pub begun: i64,
}

/// A digest under way.
#[derive(Debug)]
struct Group {
    members: Vec<ItemRef>,
    /// When its day begins.
    since: i64,
    /// Up to here the day was moved on for a hold.
    until: i64,
    failures: u32,
}

/// What a place has under way.
#[derive(Debug, Default)]
struct Crowd {
    count: usize,
    /// Of each type and priority the delivery with which further ones are counted, as long as it is held.
    summaries: HashMap<(NotificationType, Priority), ItemRef>,
}

/// What happened to some deliveries, for the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// Over which channel.
    pub channel: Channel,
    /// `sent`, `retried`, `held`, or why they are dead.
    pub what: &'static str,
    /// How many.
    pub count: usize,
    /// Of what was sent: how long it took since it was raised, in ms.
    pub took_ms: i64,
}

/// The desk.
pub struct Desk {
    limits: Limits,
    segments: BTreeMap<SegmentKey, Segment>,
    known: HashSet<DeliveryId>,
    groups: HashMap<DeliveryId, Group>,
    held: BTreeMap<(i64, u64), ItemRef>,
    crowds: HashMap<Place, Crowd>,
    unsaved: Vec<(Vec<(SegmentKey, u64)>, Unit)>,
    lanes: BTreeMap<LaneKey, Lane>,
    in_flight: BTreeMap<Channel, usize>,
    storms: Storms,
    pending: usize,
    ticket: u64,
    told: Vec<Told>,
    /// The latest time that it was told.
    seen: i64,
    /// When the newest segment that was loaded was written.
    written: i64,
}

impl Desk {
    /// An empty desk.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            segments: BTreeMap::new(),
            known: HashSet::new(),
            groups: HashMap::new(),
            held: BTreeMap::new(),
            crowds: HashMap::new(),
            unsaved: Vec::new(),
            lanes: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            storms: Storms::default(),
            pending: 0,
            ticket: 0,
            told: Vec::new(),
            seen: 0,
            written: 0,
        }
    }

    /// Deliveries that are not settled.
    #[must_use]
    pub const fn pending(&self) -> usize {
        self.pending
    }

    /// Deliveries that wait for a digest.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Ways that are down, by channel.
    pub fn down(&self) -> impl Iterator<Item = Channel> + '_ {
        self.lanes.iter().filter(|(_, lane)| lane.is_down()).map(|(key, _)| key.channel)
    }

    /// What happened since it was last asked.
    pub fn told(&mut self) -> Vec<Told> {
        std::mem::take(&mut self.told)
    }

    /// Attempts that may begin now.
    pub fn take(&mut self, now: i64, wishes: &dyn Wishes) -> Vec<Job> {
        self.seen = self.seen.max(now);
        self.release(now, wishes);
        let mut jobs = Vec::new();
        let keys: Vec<LaneKey> = self.lanes.iter().filter(|(_, lane)| !lane.is_idle()).map(|(key, _)| key.clone()).collect();
        let begin = usize::try_from(self.ticket).unwrap_or(0) % keys.len().max(1);
        let mut turn: Vec<&LaneKey> = keys[begin..].iter().chain(&keys[..begin]).collect();
        // One from each way in turn, so that a long queue does not keep the others waiting.
        while !turn.is_empty() {
            turn.retain(|key| match self.next_of(key, now, wishes) {
                Some(job) => {
                    jobs.push(job);
                    true
                }
                None => false,
            });
        }
        jobs
    }

    fn next_of(&mut self, key: &LaneKey, now: i64, wishes: &dyn Wishes) -> Option<Job> {
        loop {
            if self.in_flight.get(&key.channel).copied().unwrap_or(0) >= self.limits.channel_in_flight {
                return None;
            }
            let most = self.room_of(key);
            let unit = self.lanes.get_mut(key)?.next(now, most)?;
            if !self.may_go(unit, now, wishes) {
                continue;
            }
            let Some(job) = self.job(unit, now) else { continue };
            self.lanes.entry(key.clone()).or_default().begin();
            *self.in_flight.entry(key.channel).or_default() += 1;
            return Some(job);
        }
    }

    const fn room_of(&self, key: &LaneKey) -> usize {
        if key.place.is_some() { self.limits.place_in_flight } else { self.limits.channel_in_flight }
    }

    /// Whether it may go now; else it has been put where it belongs.
    fn may_go(&mut self, unit: Unit, now: i64, wishes: &dyn Wishes) -> bool {
        let Some((place, kind, priority, at)) = self.subject(unit) else {
            self.settle(unit, now, Dead::Lost, "");
            return false;
        };
        match wishes.verdict(&place.user, place.channel, kind, priority, now) {
            Verdict::Now => self.put_off(unit, (now, now)),
            Verdict::Hold { until, why } => {
                self.wait_for(unit, (now, until), why, &place, priority);
                return false;
            }
            Verdict::Never(why) => {
                self.settle(unit, now, Dead::Unwanted, why.as_str());
                return false;
            }
        }
        if self.is_over(unit, now) {
            self.settle(unit, now, Dead::Expired, "");
            return false;
        }
        let Unit::Single(item) = unit else { return true };
        let old = now.saturating_sub(at) >= ms(self.limits.news_for) && !self.item(item).is_some_and(|item| item.released);
        if old {
            self.hold(item, (now, now + GATHER_MS), Held::Late);
            return false;
        }
        let counted = self.item(item).map(|item| item.raised);
        match counted.map_or(Ok(()), |id| self.storms.count(&place.user, id, self.limits.storm_per_minute, now)) {
            Ok(()) => true,
            Err(until) => {
                self.hold(item, (now, until), Held::Storm);
                false
            }
        }
    }

    fn wait_for(&mut self, unit: Unit, (now, until): (i64, i64), why: Held, place: &Place, priority: Priority) {
        match unit {
            Unit::Single(item) => self.hold(item, (now, until), why),
            Unit::Group(_) => {
                let ticket = self.next_ticket();
                // It asks again: they may be taken back meanwhile.
                let due = until.min(now.saturating_add(GROUP_ASKS_MS));
                self.put_off(unit, (now, until));
                self.lanes.entry(LaneKey::of(place)).or_default().later(due, rank(priority), ticket, unit);
            }
        }
    }

    fn hold(&mut self, at: ItemRef, (now, until): (i64, i64), why: Held) {
        let ticket = self.next_ticket();
        if let Some(item) = self.change(at) {
            // As of a digest.
            item.put_off(now, until);
            item.state = State::Held { until, why };
            let channel = item.place.channel;
            self.told.push(Told { channel, what: "held", count: 1, took_ms: 0 });
            self.held.insert((until, ticket), at);
        }
    }

    /// Makes digests of what has waited long enough.
    fn release(&mut self, now: i64, wishes: &dyn Wishes) {
        let mut by_place: BTreeMap<Place, Vec<ItemRef>> = BTreeMap::new();
        while let Some(entry) = self.held.first_entry().filter(|entry| entry.key().0 <= now) {
            let at = entry.remove();
            let Some((place, kind, priority, _)) = self.subject(Unit::Single(at)) else {
                self.settle(Unit::Single(at), now, Dead::Lost, "");
                continue;
            };
            match wishes.verdict(&place.user, place.channel, kind, priority, now) {
                Verdict::Now => {
                    // It may have been taken back.
                    if let Some(item) = self.change(at) {
                        item.put_off(now, now);
                    }
                    by_place.entry(place).or_default().push(at);
                }
                Verdict::Hold { until, why } => self.hold(at, (now, until), why),
                Verdict::Never(why) => self.settle(Unit::Single(at), now, Dead::Unwanted, why.as_str()),
            }
        }
        for (place, members) in by_place {
            self.group(&place, &members, now);
        }
    }

    fn group(&mut self, place: &Place, members: &[ItemRef], now: i64) {
        let unit = if let [alone] = members {
            if let Some(item) = self.change(*alone) {
                (item.state, item.released) = (State::Waiting, true);
            }
            Unit::Single(*alone)
        } else {
            let ids = members.iter().filter_map(|at| self.item(*at).map(Item::id)).collect();
            let group = DeliveryId::of_digest(place, ids);
            for at in members {
                if let Some(item) = self.change(*at) {
                    let why = if let State::Held { why, .. } = item.state { why } else { Held::Late };
                    item.state = State::Grouped { group, since: now, until: now, why };
                }
            }
            self.groups.insert(group, Group { members: members.to_vec(), since: now, until: now, failures: 0 });
            Unit::Group(group)
        };
        self.after_saving(unit, members);
    }

    /// What became of an attempt.
    pub fn done(&mut self, now: i64, job: &Job, outcome: &Outcome) {
        self.seen = self.seen.max(now);
        let key = LaneKey::of(&job.place);
        if let Some(count) = self.in_flight.get_mut(&key.channel) {
            *count = count.saturating_sub(1);
        }
        let backoff = self.limits.backoff;
        let ticket = self.next_ticket();
        let failures = self.failures_after(job.unit, outcome);
        let rank = job.contents.iter().map(|raised| rank(raised.priority)).min().unwrap_or(u8::MAX);
        let lane = self.lanes.entry(key).or_default();
        match outcome {
            Outcome::Later { everyone: true, after, .. } => {
                lane.down(now, job.begun, backoff, job.id, after.map_or(0, ms));
                lane.ready(rank, ticket, job.unit);
            }
            Outcome::Later { everyone: false, after, .. } => {
                lane.up();
                let wait = backoff.wait_ms(failures, job.id).max(after.map_or(0, ms));
                lane.later(now.saturating_add(wait), rank, ticket, job.unit);
            }
            Outcome::Sent | Outcome::Refused { .. } | Outcome::Gone { .. } | Outcome::Unwanted { .. } => lane.up(),
        }
        match outcome {
            Outcome::Sent => self.sent(job, now),
            Outcome::Later { .. } => {
                if let Unit::Single(at) = job.unit
                    && let Some(id) = self.item(at).map(|item| item.raised)
                {
                    self.storms.uncount(&job.place.user, id);
                }
                self.told.push(Told { channel: job.place.channel, what: "retried", count: 1, took_ms: 0 });
            }
            Outcome::Refused { why } | Outcome::Gone { why } => self.settle(job.unit, now, Dead::Refused, why),
            Outcome::Unwanted { why } => self.settle(job.unit, now, Dead::Unwanted, why),
        }
    }

    /// Counts an attempt and notes what it met; how many have failed so far.
    fn failures_after(&mut self, unit: Unit, outcome: &Outcome) -> u32 {
        let note = match outcome {
            Outcome::Sent => "",
            Outcome::Later { why, .. } | Outcome::Refused { why } | Outcome::Gone { why } | Outcome::Unwanted { why } => why,
        };
        let members = self.members(unit);
        let attempts = members.iter().filter_map(|at| self.item(*at)).map(|item| item.attempts).max().unwrap_or(0).saturating_add(1);
        let is_saved = members.len() <= ATTEMPTS_SAVED_MAX || attempts.is_power_of_two();
        for at in members {
            let Some(segment) = self.segments.get_mut(&at.segment) else { continue };
            segment.changes += u64::from(is_saved);
            if let Some(item) = segment.items.get_mut(at.index) {
                item.attempts = item.attempts.saturating_add(1);
                item.remark(note);
            }
        }
        match unit {
            Unit::Single(_) => attempts,
            Unit::Group(group) => self.groups.get_mut(&group).map_or(1, |group| {
                group.failures = group.failures.saturating_add(1);
                group.failures
            }),
        }
    }

    fn sent(&mut self, job: &Job, now: i64) {
        let members = self.members(job.unit);
        let took_ms = job.contents.iter().map(|raised| now.saturating_sub(raised.at)).max().unwrap_or(0).max(0);
        self.told.push(Told {
            channel: job.place.channel,
            what: "sent",
            count: members.len().saturating_add(usize::try_from(job.more).unwrap_or(usize::MAX)),
            took_ms,
        });
        self.close(job.unit, State::Sent { at: now, digest: matches!(job.unit, Unit::Group(_)) }, None);
    }

    fn settle(&mut self, unit: Unit, now: i64, why: Dead, note: &str) {
        let members = self.members(unit);
        if let Some(channel) = members.first().and_then(|at| self.item(*at)).map(|item| item.place.channel) {
            let more = members.iter().filter_map(|at| self.item(*at)).map(|item| item.more).sum::<u64>();
            let count = members.len().saturating_add(usize::try_from(more).unwrap_or(usize::MAX));
            self.told.push(Told { channel, what: why.as_str(), count, took_ms: 0 });
        }
        self.close(unit, State::Dead { at: now, why }, Some(note));
    }

    fn close(&mut self, unit: Unit, state: State, note: Option<&str>) {
        for at in self.members(unit) {
            let Some(item) = self.change(at) else { continue };
            let was_open = !item.state.is_settled();
            item.state = state;
            (item.content, item.own) = (None, None);
            if let Some(note) = note.filter(|note| !note.is_empty()) {
                item.remark(note);
            }
            if was_open {
                let place = item.place.clone();
                self.pending -= 1;
                self.uncrowd(&place);
            }
        }
        if let Unit::Group(group) = unit {
            self.groups.remove(&group);
        }
    }

    /// One less is under way to a place.
    fn uncrowd(&mut self, place: &Place) {
        if let Some(crowd) = self.crowds.get_mut(place) {
            crowd.count = crowd.count.saturating_sub(1);
            if crowd.count == 0 {
                self.crowds.remove(place);
            }
        }
    }

    /// Lets go what is held for quiet hours or a snooze that are over before they were to be: whoever ends them wants to hear it.
    pub fn look_again(&mut self, now: i64, wishes: &dyn Wishes) {
        let mut asked: HashMap<(&Place, NotificationType, Priority), bool> = HashMap::new();
        let is_over = |(key, at): (&(i64, u64), &ItemRef)| {
            let item = self.segments.get(&at.segment)?.items.get(at.index)?;
            let (State::Held { why: Held::QuietHours | Held::Snooze, .. }, Some(raised)) = (item.state, &item.content) else { return None };
            let over = asked.entry((&item.place, raised.kind, raised.priority)).or_insert_with_key(|(place, kind, priority)| {
                !matches!(wishes.verdict(&place.user, place.channel, *kind, *priority, now), Verdict::Hold { .. })
            });
            over.then_some(*key)
        };
        let over: Vec<(i64, u64)> = self.held.range((now, u64::MAX)..).filter_map(is_over).collect();
        for key in over {
            if let Some(at) = self.held.remove(&key) {
                self.held.insert((now, key.1), at);
            }
        }
    }

    /// When [`Desk::take`] may have something.
    #[must_use]
    pub fn wakes_at(&self) -> Option<i64> {
        let free = |channel| self.in_flight.get(&channel).copied().unwrap_or(0) < self.limits.channel_in_flight;
        let lanes = self.lanes.iter().filter(|(key, _)| free(key.channel)).filter_map(|(key, lane)| lane.wakes_at(self.room_of(key)));
        lanes.chain(self.held.first_key_value().map(|((until, _), _)| *until)).min()
    }

    /// Where a unit goes, and the type, priority and time of what is most urgent in it.
    fn subject(&self, unit: Unit) -> Option<(Place, NotificationType, Priority, i64)> {
        let contents = self.members(unit).into_iter().filter_map(|at| self.item(at)?.content.as_ref().map(|raised| (at, raised.clone())));
        let (at, raised) = contents.max_by_key(|(_, raised)| raised.priority)?;
        Some((self.item(at)?.place.clone(), raised.kind, raised.priority, raised.at))
    }

    fn job(&mut self, unit: Unit, now: i64) -> Option<Job> {
        let members = self.members(unit);
        let first = self.item(*members.first()?)?;
        let (place, own_id) = (first.place.clone(), first.id());
        let mut contents: Vec<Arc<Raised>> = members.iter().filter_map(|at| self.item(*at)?.content.clone()).collect();
        contents.sort_by_key(|raised| rank(raised.priority));
        let more = members.iter().filter_map(|at| self.item(*at)).map(|item| item.more).sum();
        let (id, digest) = match unit {
            Unit::Single(_) => (own_id, more > 0),
            Unit::Group(group) => (group, true),
        };
        let why = members.iter().filter_map(|at| if let State::Grouped { why, .. } = self.item(*at)?.state { Some(why) } else { None });
        let reasons = why.chain((more > 0).then_some(Held::Storm)).collect::<BTreeSet<Held>>().into_iter().collect();
        Some(Job { unit, id, place, contents, more, digest, reasons, begun: now })
    }

    fn members(&self, unit: Unit) -> Vec<ItemRef> {
        match unit {
            Unit::Single(item) => vec![item],
            Unit::Group(group) => self.groups.get(&group).map_or_else(Vec::new, |group| group.members.clone()),
        }
    }

    fn item(&self, at: ItemRef) -> Option<&Item> {
        self.segments.get(&at.segment)?.items.get(at.index)
    }

    fn next_ticket(&mut self) -> u64 {
        self.ticket += 1;
        self.ticket
    }

    /// Puts a unit into its queue.
    fn enqueue(&mut self, unit: Unit) {
        let Some((place, _, priority, _)) = self.subject(unit) else { return };
        let ticket = self.next_ticket();
        self.lanes.entry(LaneKey::of(&place)).or_default().ready(rank(priority), ticket, unit);
    }
}

/// The most urgent first.
const fn rank(priority: Priority) -> u8 {
    match priority {
        Priority::Urgent => 0,
        Priority::High => 1,
        Priority::Medium => 2,
        Priority::Low => 3,
    }
}

fn ms(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
