//! A way along which deliveries go one after another: a channel's server, or one person's webhook or device.
//!
//! Invariant: while a way is down, one delivery at a time asks whether it is up again, and the others wait without being tried. What is
//! more urgent goes first, then what waited longer. Deliberately absent: what the deliveries are.

use std::collections::BTreeMap;

use super::Unit;
use crate::notify::delivery::Place;
use crate::notify::{Backoff, Channel, DeliveryId};

/// The longest pause of a way that is down: asking is cheap, and who waits wants to know.
const PAUSE_MS_MAX: i64 = 60_000;

/// Which way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct LaneKey {
    pub(super) channel: Channel,
    /// Of channels without a server that all share.
    pub(super) place: Option<Place>,
}

impl LaneKey {
    pub(super) fn of(place: &Place) -> Self {
        let own = match place.channel {
            Channel::Email | Channel::Sms => None,
            Channel::Push | Channel::Webhook => Some(place.clone()),
        };
        Self { channel: place.channel, place: own }
    }
}

/// One way.
#[derive(Debug, Default)]
pub(super) struct Lane {
    /// Most urgent first, then in the order of arrival.
    ready: BTreeMap<(u8, u64), Unit>,
    /// By the time at which they are ready.
    later: BTreeMap<(i64, u64), (u8, Unit)>,
    in_flight: usize,
    failures: u32,
    failed_at: i64,
    open_at: i64,
}

impl Lane {
    pub(super) fn ready(&mut self, rank: u8, ticket: u64, unit: Unit) {
        self.ready.insert((rank, ticket), unit);
    }

    pub(super) fn later(&mut self, due: i64, rank: u8, ticket: u64, unit: Unit) {
        self.later.insert((due, ticket), (rank, unit));
    }

    /// The next one to try; the caller then says [`Lane::begin`], or takes the next one.
    pub(super) fn next(&mut self, now: i64, most: usize) -> Option<Unit> {
        while let Some(entry) = self.later.first_entry().filter(|entry| entry.key().0 <= now) {
            let ((_, ticket), (rank, unit)) = entry.remove_entry();
            self.ready.insert((rank, ticket), unit);
        }
        if self.in_flight >= self.room(most) || now < self.open_at {
            return None;
        }
        self.ready.pop_first().map(|(_, unit)| unit)
    }

    const fn room(&self, most: usize) -> usize {
        if self.failures > 0 { 1 } else { most }
    }

    pub(super) fn begin(&mut self) {
        self.in_flight += 1;
    }

    /// An attempt met something that is alive.
    pub(super) fn up(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
        (self.failures, self.open_at) = (0, 0);
    }

    /// An attempt that began at `begun` found the way down. Those that were under way together are one failure.
    pub(super) fn down(&mut self, now: i64, begun: i64, backoff: Backoff, id: DeliveryId, at_least_ms: i64) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if self.failures == 0 || begun >= self.failed_at {
            self.failures = self.failures.saturating_add(1);
            self.failed_at = now;
            self.open_at = now.saturating_add(backoff.wait_ms(self.failures, id).min(PAUSE_MS_MAX));
        }
        self.open_at = self.open_at.max(now.saturating_add(at_least_ms));
    }

    /// When [`Lane::next`] may have something.
    pub(super) fn wakes_at(&self, most: usize) -> Option<i64> {
        let ready = (!self.ready.is_empty() && self.in_flight < self.room(most)).then_some(self.open_at);
        let later = self.later.first_key_value().map(|((due, _), _)| *due);
        [ready, later].into_iter().flatten().min()
    }

    /// What waits for its turn.
    pub(super) fn waiting(&self) -> impl Iterator<Item = Unit> + '_ {
        self.ready.values().copied().chain(self.later.values().map(|(_, unit)| *unit))
    }

    /// Takes out what `is_over` says.
    pub(super) fn take_out(&mut self, mut is_over: impl FnMut(&Unit) -> bool) -> Vec<Unit> {
        let mut over = Vec::new();
        let mut keep = |unit: &Unit| {
            let ends = is_over(unit);
            if ends {
                over.push(*unit);
            }
            !ends
        };
        self.ready.retain(|_, unit| keep(unit));
        self.later.retain(|_, (_, unit)| keep(unit));
        over
    }

    pub(super) fn is_idle(&self) -> bool {
        self.ready.is_empty() && self.later.is_empty() && self.in_flight == 0 && self.failures == 0
    }

    /// Whether nothing goes along it any more and its pause is over.
    pub(super) fn is_over(&self, now: i64) -> bool {
        self.ready.is_empty() && self.later.is_empty() && self.in_flight == 0 && now >= self.open_at
    }

    /// Whether the last attempt found it down.
    pub(super) const fn is_down(&self) -> bool {
        self.failures > 0
    }
}
