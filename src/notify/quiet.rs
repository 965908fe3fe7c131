//! Quiet hours: from a local time to another, in a zone, day after day.
//!
//! Invariant: the beginning belongs to them and the end does not; an end at or before the beginning is on the next day. Local times that
//! a clock change skips or repeats are read as RFC 5545 says: skipped, with the offset before the change; repeated, the first. So the
//! hours begin and end once a day, however the clocks change. Deliberately absent: hours that begin and end at the same time; nobody
//! could tell whether that is never or always.

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

/// What quiet hours may not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuietError {
    /// The beginning is not `HH:MM`.
    #[error("a time is HH:MM, from 00:00 to 23:59")]
    From,
    /// The end is not.
    #[error("a time is HH:MM, from 00:00 to 23:59")]
    To,
    /// Not in the time zone database.
    #[error("the zone is not in the IANA time zone database")]
    Zone,
    /// They begin when they end.
    #[error("quiet hours begin and end at different times")]
    Empty,
}

impl QuietError {
    /// The field at fault.
    #[must_use]
    pub const fn field(self) -> &'static str {
        match self {
            Self::From => "quiet_hours.from",
            Self::To => "quiet_hours.to",
            Self::Zone => "quiet_hours.zone",
            Self::Empty => "quiet_hours",
        }
    }
}

/// Quiet hours.
#[derive(Clone, Debug, PartialEq)]
pub struct QuietHours {
    from: Time,
    to: Time,
    zone: TimeZone,
}

impl QuietHours {
    /// Reads them.
    ///
    /// # Errors
    /// One of the three is not what it has to be.
    pub fn parse(from: &str, to: &str, zone: &str) -> Result<Self, QuietError> {
        let (from, to) = (time(from).ok_or(QuietError::From)?, time(to).ok_or(QuietError::To)?);
        if from == to {
            return Err(QuietError::Empty);
        }
        // The database also finds names of other spelling; what is kept has to be a name of it all the same.
        let zone = TimeZone::get(zone).map_err(|_| QuietError::Zone)?;
        if zone.iana_name().is_none() {
            return Err(QuietError::Zone);
        }
        Ok(Self { from, to, zone })
    }

    /// When the quiet hours that `now` lies in end; `None` outside of them.
    #[must_use]
    pub fn end_after(&self, now: Timestamp) -> Option<Timestamp> {
        let today = self.zone.to_datetime(now).date();
        let yesterday = today.checked_sub(1.day()).unwrap_or(today);
        [yesterday, today].into_iter().find_map(|day| {
            let (begin, end) = self.on(day)?;
            (begin <= now && now < end).then_some(end)
        })
    }

    /// The hours that begin on a day.
    fn on(&self, day: Date) -> Option<(Timestamp, Timestamp)> {
        let last = if self.to <= self.from { day.checked_add(1.day()).ok()? } else { day };
        Some((self.instant(day, self.from)?, self.instant(last, self.to)?))
    }

    fn instant(&self, day: Date, time: Time) -> Option<Timestamp> {
        self.zone.to_ambiguous_timestamp(DateTime::from_parts(day, time)).compatible().ok()
    }
}

/// `HH:MM`, and nothing else.
fn time(text: &str) -> Option<Time> {
    let two = |part: &str| (part.len() == 2 && part.bytes().all(|b| b.is_ascii_digit())).then(|| part.parse::<i8>().ok()).flatten();
    let (hours, minutes) = text.split_once(':')?;
    Time::new(two(hours)?, two(minutes)?, 0, 0).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether it is quiet, and until when.
    fn check(hours: (&str, &str, &str), rows: &[(&str, Option<&str>)]) {
        let quiet = QuietHours::parse(hours.0, hours.1, hours.2).unwrap();
        for (now, until) in rows {
            let end = quiet.end_after(now.parse().unwrap());
            assert_eq!(end, until.map(|until| until.parse().unwrap()), "{hours:?} at {now}");
        }
    }

    #[test]
    fn the_beginning_is_quiet_and_the_end_is_not() {
        check(
            ("12:00", "13:30", "UTC"),
            &[
                ("2026-06-01T11:59:59.999Z", None),
                ("2026-06-01T12:00:00Z", Some("2026-06-01T13:30:00Z")),
                ("2026-06-01T13:29:59.999Z", Some("2026-06-01T13:30:00Z")),
                ("2026-06-01T13:30:00Z", None),
            ],
        );
    }

    #[test]
    fn hours_may_wrap_midnight() {
        check(
            ("22:00", "07:00", "Europe/Berlin"),
            &[
                ("2026-06-01T19:59:59Z", None),
                ("2026-06-01T20:00:00Z", Some("2026-06-02T05:00:00Z")),
                ("2026-06-01T22:30:00Z", Some("2026-06-02T05:00:00Z")),
                ("2026-06-02T04:59:59Z", Some("2026-06-02T05:00:00Z")),
                ("2026-06-02T05:00:00Z", None),
            ],
        );
    }

    #[test]
    fn midnight_is_a_time() {
        check(
            ("00:00", "06:00", "UTC"),
            &[("2026-06-01T23:59:59Z", None), ("2026-06-02T00:00:00Z", Some("2026-06-02T06:00:00Z")), ("2026-06-02T06:00:00Z", None)],
        );
        check(
            ("18:00", "00:00", "UTC"),
            &[
                ("2026-06-01T23:59:59Z", Some("2026-06-02T00:00:00Z")),
                ("2026-06-02T00:00:00Z", None),
                ("2026-06-02T17:59:59Z", None),
                ("2026-06-02T18:00:00Z", Some("2026-06-03T00:00:00Z")),
            ],
        );
    }

    #[test]
    fn a_night_in_which_the_clocks_go_forward_is_an_hour_shorter() {
        // Berlin, 2026-03-29: 02:00 CET is 03:00 CEST.
        check(
            ("22:00", "07:00", "Europe/Berlin"),
            &[
                ("2026-03-28T21:00:00Z", Some("2026-03-29T05:00:00Z")),
                ("2026-03-29T04:59:59Z", Some("2026-03-29T05:00:00Z")),
                ("2026-03-29T05:00:00Z", None),
            ],
        );
        // Both ends are skipped: 02:15 and 02:45 are 03:15 and 03:45 by the new clock.
        check(
            ("02:15", "02:45", "Europe/Berlin"),
            &[
                ("2026-03-29T01:14:59Z", None),
                ("2026-03-29T01:15:00Z", Some("2026-03-29T01:45:00Z")),
                ("2026-03-29T01:45:00Z", None),
                ("2026-03-30T00:15:00Z", Some("2026-03-30T00:45:00Z")),
            ],
        );
        // The beginning is skipped and lands at or after the end: nothing is quiet that day.
        check(("02:30", "03:15", "Europe/Berlin"), &[("2026-03-29T01:00:00Z", None), ("2026-03-29T01:30:00Z", None)]);
    }

    #[test]
    fn a_night_in_which_the_clocks_go_back_is_an_hour_longer_and_ends_once() {
        // New York, 2026-11-01: 02:00 EDT is 01:00 EST.
        check(
            ("22:00", "07:00", "America/New_York"),
            &[
                ("2026-11-01T02:00:00Z", Some("2026-11-01T12:00:00Z")),
                ("2026-11-01T11:59:59Z", Some("2026-11-01T12:00:00Z")),
                ("2026-11-01T12:00:00Z", None),
            ],
        );
        // 01:30 comes twice: the first one ends them, the first one begins them.
        check(
            ("00:30", "01:30", "America/New_York"),
            &[("2026-11-01T04:30:00Z", Some("2026-11-01T05:30:00Z")), ("2026-11-01T05:30:00Z", None), ("2026-11-01T06:15:00Z", None)],
        );
        check(
            ("01:30", "02:00", "America/New_York"),
            &[
                ("2026-11-01T05:29:59Z", None),
                ("2026-11-01T05:30:00Z", Some("2026-11-01T07:00:00Z")),
                ("2026-11-01T06:45:00Z", Some("2026-11-01T07:00:00Z")),
                ("2026-11-01T07:00:00Z", None),
            ],
        );
    }

    #[test]
    fn zones_with_odd_offsets_and_changes_of_half_an_hour() {
        check(
            ("22:00", "06:00", "Asia/Kathmandu"),
            &[("2026-06-01T16:14:59Z", None), ("2026-06-01T16:15:00Z", Some("2026-06-02T00:15:00Z"))],
        );
        // Lord Howe, 2026-10-04: 02:00 (+10:30) is 02:30 (+11).
        check(
            ("22:00", "06:00", "Australia/Lord_Howe"),
            &[("2026-10-03T11:30:00Z", Some("2026-10-03T19:00:00Z")), ("2026-10-03T19:00:00Z", None)],
        );
    }

    #[test]
    fn refuses_what_is_no_time_no_zone_or_no_span() {
        for bad in ["", "7:00", "24:00", "07:60", "07:0", "07:00:00", "+7:00", "07-00", " 07:00", "０７:00"] {
            assert_eq!(QuietHours::parse(bad, "08:00", "UTC"), Err(QuietError::From), "{bad}");
        }
        for bad in ["", "Mars/Olympus", "+02:00", "CEST"] {
            assert_eq!(QuietHours::parse("07:00", "08:00", bad), Err(QuietError::Zone), "{bad}");
        }
        assert_eq!(QuietHours::parse("07:00", "8:00", "UTC"), Err(QuietError::To));
        assert_eq!(QuietHours::parse("07:00", "07:00", "UTC"), Err(QuietError::Empty));
    }
}
