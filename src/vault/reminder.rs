//! When somebody is told that a broker key ends: 14, 3 and 0 days before.
//!
//! Invariant: a function of the time, the end and what was sent for that end; each reminder once, and only the most urgent of those
//! that are due. Deliberately absent: sending.

use serde::{Deserialize, Serialize};

const DAY_MS: i64 = 86_400_000;

/// How near the end is. The order is that of urgency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reminder {
    /// 14 days before.
    Days14,
    /// 3 days before.
    Days3,
    /// At the end.
    Days0,
}

impl Reminder {
    /// All of them, the least urgent first.
    pub const ALL: [Self; 3] = [Self::Days14, Self::Days3, Self::Days0];

    /// How many days before the end it is due.
    #[must_use]
    pub const fn days(self) -> i64 {
        match self {
            Self::Days14 => 14,
            Self::Days3 => 3,
            Self::Days0 => 0,
        }
    }
}

/// What was sent last, and for which end: another `expires_at` begins anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sent {
    /// The most urgent one that was sent.
    pub reminder: Reminder,
    /// The end that it was sent for, in milliseconds since the epoch.
    pub expires_at: i64,
}

/// The reminder that is due at `now`, if any. Times are milliseconds since the epoch.
#[must_use]
pub fn due(now: i64, expires_at: i64, sent: Option<Sent>) -> Option<Reminder> {
    let sent = sent.filter(|sent| sent.expires_at == expires_at).map(|sent| sent.reminder);
    let reached = |reminder: &Reminder| now >= expires_at.saturating_sub(reminder.days() * DAY_MS);
    Reminder::ALL.into_iter().rev().find(reached).filter(|reminder| sent.is_none_or(|sent| sent < *reminder))
}

#[cfg(test)]
mod tests {
    use super::*;

    const END: i64 = 1_800_000_000_000;

    fn sent(reminder: Reminder) -> Option<Sent> {
        Some(Sent { reminder, expires_at: END })
    }

    #[test]
    fn each_is_due_once_from_its_day_on() {
        assert_eq!(due(END - 14 * DAY_MS - 1, END, None), None);
        assert_eq!(due(END - 14 * DAY_MS, END, None), Some(Reminder::Days14));
        assert_eq!(due(END - 4 * DAY_MS, END, sent(Reminder::Days14)), None);
        assert_eq!(due(END - 3 * DAY_MS, END, sent(Reminder::Days14)), Some(Reminder::Days3));
        assert_eq!(due(END - 1, END, sent(Reminder::Days3)), None);
        assert_eq!(due(END, END, sent(Reminder::Days3)), Some(Reminder::Days0));
        assert_eq!(due(END + 400 * DAY_MS, END, sent(Reminder::Days0)), None);
    }

    #[test]
    fn after_an_outage_only_the_most_urgent_is_sent() {
        assert_eq!(due(END - DAY_MS, END, None), Some(Reminder::Days3));
        assert_eq!(due(END + DAY_MS, END, sent(Reminder::Days14)), Some(Reminder::Days0));
    }

    #[test]
    fn another_end_begins_anew() {
        assert_eq!(due(END - DAY_MS, END, Some(Sent { reminder: Reminder::Days0, expires_at: END - 1 })), Some(Reminder::Days3));
        assert_eq!(due(0, i64::MAX, sent(Reminder::Days0)), None);
        assert_eq!(due(0, i64::MIN, None), Some(Reminder::Days0));
    }

    #[test]
    fn whatever_the_moments_of_looking_each_reminder_goes_out_at_most_once_and_in_order() {
        for step in [1, 3, 7, 11, 24, 100, 1_000] {
            let (mut last, mut all) = (None, Vec::new());
            for hour in (0..40 * 24).step_by(step) {
                let now = END - 30 * DAY_MS + hour * 3_600_000;
                if let Some(reminder) = due(now, END, last) {
                    all.push(reminder);
                    last = sent(reminder);
                }
            }
            assert!(all.windows(2).all(|pair| pair[0] < pair[1]), "{all:?}");
            assert!(step > 72 || all == Reminder::ALL, "every {step} h: {all:?}");
        }
    }
}
