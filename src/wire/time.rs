//! Times as RFC 3339 writes them, in milliseconds since the epoch.
//!
//! Invariant: the proleptic Gregorian calendar, no time zone but the written offset; fractions of a
//! millisecond are dropped. Deliberately absent: clocks and zone names.

use crate::domain::Millis;

/// Reads `YYYY-MM-DDTHH:MM:SS[.fraction](Z|+HH:MM|-HH:MM)`. A leap second is the second after it.
pub(super) fn rfc3339(text: &[u8]) -> Option<Millis> {
    let (head, rest) = text.split_at_checked(19)?;
    let &[y0, y1, y2, y3, b'-', m0, m1, b'-', d0, d1, b'T' | b't', h0, h1, b':', n0, n1, b':', s0, s1] = head else {
        return None;
    };
    let year = pair(y0, y1)? * 100 + pair(y2, y3)?;
    let (month, day) = (pair(m0, m1)?, pair(d0, d1)?);
    let (hour, minute, second) = (pair(h0, h1)?, pair(n0, n1)?, pair(s0, s1)?);
    if !(1..=12).contains(&month) || day < 1 || day > days_in(year, month) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (ms, zone) = fraction(rest)?;
    let seconds = ((days_before(year, month, day) * 24 + hour) * 60 + minute - offset(zone)?) * 60 + second;
    Some(seconds * 1000 + ms)
}

fn pair(tens: u8, ones: u8) -> Option<i64> {
    let digit = |byte: u8| byte.is_ascii_digit().then(|| i64::from(byte - b'0'));
    Some(digit(tens)? * 10 + digit(ones)?)
}

/// The milliseconds of an optional fraction, and what follows it.
fn fraction(text: &[u8]) -> Option<(i64, &[u8])> {
    let [b'.', digits @ ..] = text else {
        return Some((0, text));
    };
    let count = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, rest) = digits.split_at_checked(count).filter(|_| count > 0)?;
    let ms = [100, 10, 1].iter().zip(digits).map(|(unit, byte)| unit * i64::from(byte - b'0')).sum();
    Some((ms, rest))
}

/// Minutes east of Greenwich.
fn offset(text: &[u8]) -> Option<i64> {
    match *text {
        [b'Z' | b'z'] => Some(0),
        [sign @ (b'+' | b'-'), h0, h1, b':', m0, m1] => {
            let (hours, minutes) = (pair(h0, h1)?, pair(m0, m1)?);
            let east = (hours <= 23 && minutes <= 59).then_some(hours * 60 + minutes)?;
            Some(if sign == b'-' { -east } else { east })
        }
        _ => None,
    }
}

const fn days_in(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days from the epoch to a date; years begin in March here, so that a leap day is the last.
const fn days_before(year: i64, month: i64, day: i64) -> i64 {
    let shifted = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (shifted.div_euclid(400), shifted.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_rfc_3339_allows() {
        let cases = [
            ("1970-01-01T00:00:00Z", 0),
            ("2026-03-06T15:30:00.123Z", 1_772_811_000_123),
            ("2026-03-06t15:30:00.123999z", 1_772_811_000_123),
            ("2026-03-06T16:30:00.1+01:00", 1_772_811_000_100),
            ("2026-03-06T09:30:00-06:00", 1_772_811_000_000),
            ("2024-02-29T00:00:00Z", 1_709_164_800_000),
            ("2016-12-31T23:59:60Z", 1_483_228_800_000),
            ("1969-12-31T23:59:59.999Z", -1),
            ("0000-01-01T00:00:00Z", -62_167_219_200_000),
            ("9999-12-31T23:59:59.999Z", 253_402_300_799_999),
        ];
        for (text, ms) in cases {
            assert_eq!(rfc3339(text.as_bytes()), Some(ms), "{text}");
        }
    }

    #[test]
    fn agrees_with_jiff_on_every_tenth_day_of_four_centuries() {
        let mut day = jiff::civil::date(1890, 1, 1);
        while day.year() < 2300 {
            let text = format!("{day}T12:34:56.789Z");
            let expected = text.parse::<jiff::Timestamp>().unwrap().as_millisecond();
            assert_eq!(rfc3339(text.as_bytes()), Some(expected), "{text}");
            day = day.checked_add(jiff::Span::new().days(10)).unwrap();
        }
    }

    #[test]
    fn refuses_what_is_no_time() {
        let cases = [
            "",
            "2026-03-06",
            "2026-03-06T15:30:00",
            "2026-03-06 15:30:00Z",
            "2026-13-06T15:30:00Z",
            "2026-02-29T15:30:00Z",
            "2100-02-29T15:30:00Z",
            "2026-04-31T15:30:00Z",
            "2026-03-00T15:30:00Z",
            "2026-03-06T24:00:00Z",
            "2026-03-06T15:60:00Z",
            "2026-03-06T15:30:61Z",
            "2026-03-06T15:30:00.Z",
            "2026-03-06T15:30:00+0100",
            "2026-03-06T15:30:00+24:00",
            "2026-03-06T15:30:00Zx",
            "+026-03-06T15:30:00Z",
        ];
        for text in cases {
            assert_eq!(rfc3339(text.as_bytes()), None, "{text}");
        }
    }
}
