//! When something is tried again, and how much is too much.
//!
//! Invariant: the same delivery waits the same time after the same attempt, whoever counts; different deliveries do not wait alike, so
//! that what failed together does not come back together. Deliberately absent: clocks.

use std::collections::HashMap;
use std::time::Duration;

use super::UserId;
use super::delivery::DeliveryId;
use super::raised::RaisedId;

/// Waits that grow: `first` doubled each time, at most `most`, each a quarter more or less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// After the first failure.
    pub first: Duration,
    /// At most.
    pub most: Duration,
}

impl Backoff {
    /// The wait after failure `failures` (from 1), in ms.
    #[must_use]
    pub fn wait_ms(&self, failures: u32, id: DeliveryId) -> i64 {
        let first = u64::try_from(self.first.as_millis()).unwrap_or(u64::MAX);
        let most = u64::try_from(self.most.as_millis()).unwrap_or(u64::MAX);
        let doubled = first.saturating_mul(1_u64.checked_shl(failures.saturating_sub(1).min(40)).unwrap_or(u64::MAX)).min(most);
        let jitter = mixed(id.seed() ^ u64::from(failures)) % (doubled / 2).max(1);
        i64::try_from(doubled - doubled / 4 + jitter).unwrap_or(i64::MAX)
    }
}

/// splitmix64: neighbours come out far apart.
const fn mixed(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// How much, how often, how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Waits between attempts.
    pub backoff: Backoff,
    /// What could not be delivered within this is dead.
    pub dead_after: Duration,
    /// What was raised longer ago than this is no news any more and goes out in a digest.
    pub news_for: Duration,
    /// Notifications to one person within a minute; the rest go out in one digest.
    pub storm_per_minute: u32,
    /// Attempts at the same time over one channel.
    pub channel_in_flight: usize,
    /// Attempts at the same time at one person's webhook or device.
    pub place_in_flight: usize,
    /// Deliveries under way. Beyond them, what comes for a place that has [`Limits::FEW`] is counted in a summary of that place.
    pub pending_max: usize,
    /// Segments of which everything is settled that are kept to be shown.
    pub settled_kept: usize,
}

impl Limits {
    /// A place that has no more than these under way is heard of one by one, however much others have.
    pub const FEW: usize = 100;

    /// Deliveries under way to one place; what comes beyond them is counted in a summary.
    #[must_use]
    pub const fn place_max(&self) -> usize {
        self.pending_max / 5
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            backoff: Backoff { first: Duration::from_secs(2), most: Duration::from_secs(900) },
            dead_after: Duration::from_secs(24 * 3_600),
            news_for: Duration::from_secs(3_600),
            storm_per_minute: 20,
            channel_in_flight: 8,
            place_in_flight: 2,
            pending_max: 100_000,
            settled_kept: 400,
        }
    }
}

/// How long a storm is watched.
const WINDOW_MS: i64 = 60_000;

/// A person's minute: when it began, and over how many ways each notification of it went.
type Minute = (i64, HashMap<RaisedId, u32>);

/// Notifications per person and minute. One that goes out over several channels counts once.
#[derive(Debug, Default)]
pub struct Storms {
    minutes: HashMap<UserId, Minute>,
}

impl Storms {
    /// Counts a notification to a person.
    ///
    /// # Errors
    /// There were `most` others in this minute; it ends then, in ms.
    pub fn count(&mut self, user: &UserId, id: RaisedId, most: u32, now: i64) -> Result<(), i64> {
        let (begun, ways) = match self.minutes.get_mut(user) {
            Some(minute) => minute,
            None => self.minutes.entry(user.clone()).or_insert_with(|| (now, HashMap::new())),
        };
        if now - *begun >= WINDOW_MS {
            (*begun, *ways) = (now, HashMap::new());
        }
        if ways.len() >= most as usize && !ways.contains_key(&id) {
            return Err(*begun + WINDOW_MS);
        }
        *ways.entry(id).or_default() += 1;
        Ok(())
    }

    /// Counts one that was sent at a time that is not long ago.
    pub fn remember(&mut self, user: &UserId, id: RaisedId, at: i64, now: i64) {
        if now.saturating_sub(at) < WINDOW_MS {
            let (begun, ways) = self.minutes.entry(user.clone()).or_insert_with(|| (at, HashMap::new()));
            *begun = at.min(*begun);
            *ways.entry(id).or_default() += 1;
        }
    }

    /// Takes one back: it was not delivered.
    pub fn uncount(&mut self, user: &UserId, id: RaisedId) {
        if let Some((_, ways)) = self.minutes.get_mut(user)
            && let Some(count) = ways.get_mut(&id)
        {
            *count -= 1;
            if *count == 0 {
                ways.remove(&id);
            }
        }
    }

    /// Forgets minutes that are over.
    pub fn forget(&mut self, now: i64) {
        self.minutes.retain(|_, (begun, _)| now - *begun < WINDOW_MS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::{Channel, Place};

    fn place(user: &str) -> Place {
        Place { user: user.into(), channel: Channel::Email, target: "".into() }
    }

    fn id(seq: u64) -> DeliveryId {
        DeliveryId::of(RaisedId { shard: 0, seq, index: 0 }, &place("a"))
    }

    #[test]
    fn waits_double_up_to_their_most_within_a_quarter() {
        let backoff = Backoff { first: Duration::from_secs(2), most: Duration::from_secs(900) };
        for (failures, seconds) in [(1, 2), (2, 4), (3, 8), (9, 512), (10, 900), (11, 900), (500, 900), (u32::MAX, 900)] {
            for seq in 0..50 {
                let wait = backoff.wait_ms(failures, id(seq));
                assert!((seconds * 750..=seconds * 1_250).contains(&wait), "{failures}: {wait}");
            }
        }
    }

    #[test]
    fn what_failed_together_does_not_come_back_together_and_waits_the_same_again() {
        let backoff = Backoff { first: Duration::from_secs(100), most: Duration::from_secs(900) };
        let waits: Vec<_> = (0..100).map(|seq| backoff.wait_ms(1, id(seq))).collect();
        assert_eq!(waits, (0..100).map(|seq| backoff.wait_ms(1, id(seq))).collect::<Vec<_>>());
        let mut different = waits.clone();
        different.sort_unstable();
        different.dedup();
        assert!(different.len() > 95, "{}", different.len());
        let (least, most) = (different[0], different[different.len() - 1]);
        assert!(most - least > 40_000, "the waits lie within {} ms", most - least);
    }

    #[test]
    fn a_minute_has_its_share_and_the_next_one_a_new_one() {
        let (mut storms, raised) = (Storms::default(), |seq| RaisedId { shard: 0, seq, index: 0 });
        let (ann, bob): (UserId, UserId) = ("a".into(), "b".into());
        for (seq, at) in [(0, 1_000), (1, 1_001), (2, 60_999)] {
            assert_eq!(storms.count(&ann, raised(seq), 3, at), Ok(()));
        }
        assert_eq!(storms.count(&ann, raised(3), 3, 60_999), Err(61_000));
        assert_eq!(storms.count(&ann, raised(1), 3, 60_999), Ok(()), "over another channel it is the same one");
        assert_eq!(storms.count(&bob, raised(3), 3, 60_999), Ok(()), "another person has a share of their own");
        storms.uncount(&ann, raised(1));
        assert_eq!(storms.count(&ann, raised(3), 3, 60_999), Err(61_000), "one channel has it");
        storms.uncount(&ann, raised(1));
        assert_eq!(storms.count(&ann, raised(3), 3, 60_999), Ok(()));
        assert_eq!(storms.count(&ann, raised(4), 3, 61_000), Ok(()));
        storms.forget(200_000);
        assert!(storms.minutes.is_empty());
    }
}
