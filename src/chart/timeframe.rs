//! The timeframes of charts, and which interval an instant belongs to.
//!
//! Invariant: intervals are half-open, `[start, end)`, and every instant of the calendar lies in exactly one of each timeframe. Minutes
//! and hours are aligned to the epoch (UTC); a day is a day of the exchange's zone, of 23 or 25 hours where its clocks change.
//! Deliberately absent: sessions and holidays; an interval without trades is a gap.

use jiff::Timestamp;
use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;

use crate::domain::Millis;
use crate::market::calendar::parse_zone;

const MINUTE: Millis = 60_000;

/// How long a bar is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Timeframe {
    /// `1min`
    Minute,
    /// `5min`
    FiveMinutes,
    /// `15min`
    QuarterHour,
    /// `30min`
    HalfHour,
    /// `1hr`
    Hour,
    /// `4hr`
    FourHours,
    /// `1day`
    Day,
}

impl Timeframe {
    /// How many there are.
    pub const COUNT: usize = 7;
    /// All of them, shortest first.
    pub const ALL: [Self; Self::COUNT] =
        [Self::Minute, Self::FiveMinutes, Self::QuarterHour, Self::HalfHour, Self::Hour, Self::FourHours, Self::Day];

    /// The API's word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Minute => "1min",
            Self::FiveMinutes => "5min",
            Self::QuarterHour => "15min",
            Self::HalfHour => "30min",
            Self::Hour => "1hr",
            Self::FourHours => "4hr",
            Self::Day => "1day",
        }
    }

    /// The timeframe of the API's word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|timeframe| timeframe.as_str() == word)
    }

    /// The timeframe that a published bar names: the API's words, and the short ones that feeds use (`1m`, `4h`, `1d`).
    #[must_use]
    pub fn of_feed(word: &str) -> Option<Self> {
        let short = match word {
            "1m" => Some(Self::Minute),
            "5m" => Some(Self::FiveMinutes),
            "15m" => Some(Self::QuarterHour),
            "30m" => Some(Self::HalfHour),
            "1h" => Some(Self::Hour),
            "4h" => Some(Self::FourHours),
            "1d" => Some(Self::Day),
            _ => None,
        };
        short.or_else(|| Self::parse(word))
    }

    /// Its place in [`Timeframe::ALL`].
    #[must_use]
    pub const fn place(self) -> usize {
        self as usize
    }

    /// Its length, unless it is that of a day.
    const fn length(self) -> Option<Millis> {
        match self {
            Self::Minute => Some(MINUTE),
            Self::FiveMinutes => Some(5 * MINUTE),
            Self::QuarterHour => Some(15 * MINUTE),
            Self::HalfHour => Some(30 * MINUTE),
            Self::Hour => Some(60 * MINUTE),
            Self::FourHours => Some(240 * MINUTE),
            Self::Day => None,
        }
    }
}

/// `[start, end)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    /// The first millisecond.
    pub start: Millis,
    /// The millisecond after the last.
    pub end: Millis,
}

impl Interval {
    /// Whether the instant lies in it.
    #[must_use]
    pub const fn contains(self, at: Millis) -> bool {
        self.start <= at && at < self.end
    }
}

/// Where days begin.
#[derive(Clone, Debug)]
pub struct Days {
    zone: TimeZone,
}

impl Days {
    /// Days of the zone of this exact IANA name.
    #[must_use]
    pub fn of_zone(name: &str) -> Option<Self> {
        parse_zone(name).map(|zone| Self { zone })
    }

    /// The name of the zone.
    #[must_use]
    pub fn zone(&self) -> &str {
        self.zone.iana_name().unwrap_or("UTC")
    }

    /// The interval that the instant lies in; `None` outside the calendar.
    #[must_use]
    pub fn interval(&self, timeframe: Timeframe, at: Millis) -> Option<Interval> {
        let Some(length) = timeframe.length() else { return self.day(at) };
        let start = at.div_euclid(length).checked_mul(length)?;
        Some(Interval { start, end: start.checked_add(length)? })
    }

    /// The interval of a bar that somebody published. A day that is said to open at midnight UTC means its date, since feeds write
    /// dates like that; anything else lies where it lies.
    #[must_use]
    pub fn interval_published(&self, timeframe: Timeframe, open_time: Millis) -> Option<Interval> {
        const DAY: Millis = 24 * 60 * MINUTE;
        if timeframe == Timeframe::Day && open_time.rem_euclid(DAY) == 0 {
            let date = TimeZone::UTC.to_datetime(Timestamp::from_millisecond(open_time).ok()?).date();
            return self.day_of(date);
        }
        self.interval(timeframe, open_time)
    }

    fn day(&self, at: Millis) -> Option<Interval> {
        let date = self.zone.to_datetime(Timestamp::from_millisecond(at).ok()?).date();
        self.day_of(date).filter(|day| day.contains(at))
    }

    /// A day begins at its first instant, also where midnight does not exist, and ends where the next begins.
    fn day_of(&self, date: Date) -> Option<Interval> {
        Some(Interval { start: self.first_instant(date)?, end: self.first_instant(date.tomorrow().ok()?)? })
    }

    fn first_instant(&self, date: Date) -> Option<Millis> {
        let midnight = date.to_datetime(Time::midnight());
        let first = self.zone.to_ambiguous_timestamp(midnight).compatible().ok()?;
        Some(first.as_millisecond())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(text: &str) -> Millis {
        text.parse::<Timestamp>().unwrap().as_millisecond()
    }

    fn check(zone: &str, timeframe: Timeframe, at: &str, start: &str, end: &str) {
        let interval = Days::of_zone(zone).unwrap().interval(timeframe, ms(at)).unwrap();
        assert_eq!(interval, Interval { start: ms(start), end: ms(end) }, "{zone} {} {at}", timeframe.as_str());
    }

    #[test]
    fn minutes_and_hours_are_aligned_to_utc_whatever_the_zone() {
        for zone in ["UTC", "America/New_York", "Asia/Kathmandu"] {
            let at = "2026-03-06T15:47:59.999Z";
            check(zone, Timeframe::Minute, at, "2026-03-06T15:47:00Z", "2026-03-06T15:48:00Z");
            check(zone, Timeframe::FiveMinutes, at, "2026-03-06T15:45:00Z", "2026-03-06T15:50:00Z");
            check(zone, Timeframe::QuarterHour, at, "2026-03-06T15:45:00Z", "2026-03-06T16:00:00Z");
            check(zone, Timeframe::HalfHour, at, "2026-03-06T15:30:00Z", "2026-03-06T16:00:00Z");
            check(zone, Timeframe::Hour, at, "2026-03-06T15:00:00Z", "2026-03-06T16:00:00Z");
            check(zone, Timeframe::FourHours, at, "2026-03-06T12:00:00Z", "2026-03-06T16:00:00Z");
        }
        check("UTC", Timeframe::Minute, "2026-03-06T15:48:00Z", "2026-03-06T15:48:00Z", "2026-03-06T15:49:00Z");
        check("UTC", Timeframe::FourHours, "1969-12-31T23:59:59Z", "1969-12-31T20:00:00Z", "1970-01-01T00:00:00Z");
    }

    #[test]
    fn a_day_has_23_hours_when_clocks_go_forward_and_25_when_they_go_back() {
        let day = Timeframe::Day;
        check("America/New_York", day, "2026-03-07T12:00:00Z", "2026-03-07T05:00:00Z", "2026-03-08T05:00:00Z");
        check("America/New_York", day, "2026-03-08T12:00:00Z", "2026-03-08T05:00:00Z", "2026-03-09T04:00:00Z");
        check("America/New_York", day, "2026-11-01T12:00:00Z", "2026-11-01T04:00:00Z", "2026-11-02T05:00:00Z");
        check("America/New_York", day, "2026-03-09T03:59:59.999Z", "2026-03-08T05:00:00Z", "2026-03-09T04:00:00Z");
        check("Asia/Tokyo", day, "2026-03-06T15:00:00Z", "2026-03-06T15:00:00Z", "2026-03-07T15:00:00Z");
        check("UTC", day, "2026-03-06T23:59:59.999Z", "2026-03-06T00:00:00Z", "2026-03-07T00:00:00Z");
    }

    #[test]
    fn a_day_begins_at_its_first_instant_where_midnight_is_skipped_or_comes_twice() {
        // Havana's clocks went from 00:00 to 01:00 on 10 March 2024 and from 01:00 back to 00:00 on 3 November.
        check("America/Havana", Timeframe::Day, "2024-03-10T12:00:00Z", "2024-03-10T05:00:00Z", "2024-03-11T04:00:00Z");
        check("America/Havana", Timeframe::Day, "2024-11-03T05:30:00Z", "2024-11-03T04:00:00Z", "2024-11-04T05:00:00Z");
        // Apia had no 30 December 2011.
        check("Pacific/Apia", Timeframe::Day, "2011-12-30T09:59:59Z", "2011-12-29T10:00:00Z", "2011-12-30T10:00:00Z");
        check("Pacific/Apia", Timeframe::Day, "2011-12-30T10:00:00Z", "2011-12-30T10:00:00Z", "2011-12-31T10:00:00Z");
    }

    #[test]
    fn every_instant_of_a_year_lies_in_its_interval_and_intervals_follow_each_other() {
        for zone in ["America/New_York", "America/Havana", "Australia/Lord_Howe", "Asia/Kathmandu", "America/Sao_Paulo", "UTC"] {
            let days = Days::of_zone(zone).unwrap();
            for timeframe in Timeframe::ALL {
                let mut at = ms("2018-01-01T00:00:00Z");
                for _ in 0..400 {
                    let interval = days.interval(timeframe, at).unwrap();
                    assert!(interval.contains(at), "{zone} {at}");
                    assert_eq!(days.interval(timeframe, interval.start), Some(interval));
                    assert_eq!(days.interval(timeframe, interval.end - 1), Some(interval));
                    at = interval.end;
                }
            }
        }
    }

    #[test]
    fn a_published_day_at_midnight_utc_means_its_date() {
        let days = Days::of_zone("America/New_York").unwrap();
        let fifth = Interval { start: ms("2026-03-05T05:00:00Z"), end: ms("2026-03-06T05:00:00Z") };
        for open_time in ["2026-03-05T00:00:00Z", "2026-03-05T05:00:00Z", "2026-03-05T14:30:00Z"] {
            assert_eq!(days.interval_published(Timeframe::Day, ms(open_time)), Some(fifth), "{open_time}");
        }
        let hour = days.interval_published(Timeframe::Hour, ms("2026-03-05T00:00:00Z")).unwrap();
        assert_eq!(hour.start, ms("2026-03-05T00:00:00Z"));
    }

    #[test]
    fn words_are_read_exactly() {
        for timeframe in Timeframe::ALL {
            assert_eq!(Timeframe::parse(timeframe.as_str()), Some(timeframe));
            assert_eq!(Timeframe::ALL[timeframe.place()], timeframe);
        }
        assert_eq!(Timeframe::of_feed("1d"), Some(Timeframe::Day));
        for word in ["", "1M", "1D", "2min", "1mins", "1w"] {
            assert_eq!((Timeframe::parse(word), Timeframe::of_feed(word)), (None, None), "{word}");
        }
        assert!(Days::of_zone("Mars/Olympus").is_none());
    }

    #[test]
    fn outside_the_calendar_there_is_no_day() {
        let days = Days::of_zone("America/New_York").unwrap();
        assert_eq!(days.interval(Timeframe::Day, Millis::MAX), None);
        assert_eq!(days.interval(Timeframe::Minute, Millis::MAX), None);
        assert_eq!(days.interval(Timeframe::FourHours, Millis::MIN), None);
    }
}
