//! JSON written straight into a caller's buffer.
//!
//! Invariant: nothing here allocates beyond the buffer's growth, and what is written is UTF-8.
//! Deliberately absent: anything that keeps a document well formed; the callers do.

use crate::domain::{Figure, MAX_DECIMAL_LEN, Money, format_scaled};

const UNIT_SCALE: usize = 8;
const MONEY_SCALE: usize = 16;

/// Appends text as it is.
#[inline(always)]
pub(super) fn raw(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
}

/// Appends `before`, then a text that needs no escapes (ids, symbols, words), then `after`.
#[inline(always)]
pub(super) fn plain(out: &mut Vec<u8>, before: &str, text: &[u8], after: &str) {
    out.extend_from_slice(before.as_bytes());
    out.extend_from_slice(text);
    out.extend_from_slice(after.as_bytes());
}

/// Appends an integer.
#[inline]
pub(super) fn integer(out: &mut Vec<u8>, value: i64) {
    if value < 0 {
        out.push(b'-');
    }
    natural(out, value.unsigned_abs());
}

/// All numbers of two digits.
static PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[0; 2]; 100];
    let mut i = 0;
    while i < 100 {
        pairs[i] = [b'0' + (i / 10) as u8, b'0' + (i % 10) as u8];
        i += 1;
    }
    pairs
};

/// Appends an integer that is not negative.
pub(super) fn natural(out: &mut Vec<u8>, value: u64) {
    if value < 10 {
        return out.push(b'0' + value as u8);
    }
    const LONGEST: usize = 20;
    let mut digits = [0; LONGEST];
    let mut at = LONGEST;
    let mut rest = value;
    while rest >= 10 {
        at -= 2;
        [digits[at], digits[at + 1]] = PAIRS[(rest % 100) as usize];
        rest /= 100;
    }
    if rest > 0 {
        at -= 1;
        digits[at] = b'0' + rest as u8;
    }
    out.extend_from_slice(&digits[at..]);
}

/// Appends `units / 1e8`, without quotes.
pub(super) fn units(out: &mut Vec<u8>, units: i128) {
    match i64::try_from(units) {
        Ok(units) => small(out, units),
        Err(_) => decimal(out, units, UNIT_SCALE),
    }
}

/// Appends an amount of money, without quotes.
pub(super) fn money(out: &mut Vec<u8>, money: Money) {
    // Amounts mostly have 8 fractional digits at most; one wide division finds out.
    const MONEY_PER_UNIT: i128 = 100_000_000;
    match i64::try_from(money.0 / MONEY_PER_UNIT) {
        Ok(units) if i128::from(units) * MONEY_PER_UNIT == money.0 => small(out, units),
        Ok(_) | Err(_) => decimal(out, money.0, MONEY_SCALE),
    }
}

/// Appends `units / 1e8` of 64 bits.
fn small(out: &mut Vec<u8>, units: i64) {
    const ONE: u64 = 100_000_000;
    if units < 0 {
        out.push(b'-');
    }
    let magnitude = units.unsigned_abs();
    natural(out, magnitude / ONE);
    let mut rest = magnitude % ONE;
    if rest == 0 {
        return;
    }
    let mut fraction = *b".00000000";
    for pair in [7, 5, 3, 1] {
        [fraction[pair], fraction[pair + 1]] = PAIRS[(rest % 100) as usize];
        rest /= 100;
    }
    let length = fraction.iter().rposition(|digit| *digit != b'0').map_or(0, |last| last + 1);
    out.extend_from_slice(&fraction[..length]);
}

#[cold]
fn decimal(out: &mut Vec<u8>, value: i128, scale: usize) {
    let mut buffer = [0; MAX_DECIMAL_LEN];
    raw(out, format_scaled(&mut buffer, value, scale));
}

/// Appends money as a string, or `null`.
pub(super) fn money_or_null(out: &mut Vec<u8>, amount: Option<Money>) {
    match amount {
        Some(amount) => {
            out.push(b'"');
            money(out, amount);
            out.push(b'"');
        }
        None => raw(out, "null"),
    }
}

/// Appends `before` and a figure, unless it is absent.
#[inline]
pub(super) fn figure(out: &mut Vec<u8>, before: &str, figure: Figure) {
    match figure {
        Figure::Absent => {}
        Figure::Unknown => plain(out, before, b"null", ""),
        Figure::Infinite => plain(out, before, b"\"inf\"", ""),
        Figure::Units(value) => {
            plain(out, before, b"\"", "");
            units(out, value);
            out.push(b'"');
        }
    }
}

/// Appends a string with its quotes, escaped where it must be.
pub(super) fn string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let mut done = 0;
    let bytes = text.as_bytes();
    for (at, &byte) in bytes.iter().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.extend_from_slice(&bytes[done..at]);
        done = at + 1;
        match byte {
            b'"' => raw(out, "\\\""),
            b'\\' => raw(out, "\\\\"),
            b'\n' => raw(out, "\\n"),
            b'\r' => raw(out, "\\r"),
            b'\t' => raw(out, "\\t"),
            control => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                raw(out, "\\u00");
                out.push(HEX[usize::from(control >> 4)]);
                out.push(HEX[usize::from(control & 15)]);
            }
        }
    }
    out.extend_from_slice(&bytes[done..]);
    out.push(b'"');
}

/// Appends bytes as base64 (RFC 4648, with padding), without quotes.
pub(super) fn base64(out: &mut Vec<u8>, bytes: &[u8]) {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for three in bytes.chunks(3) {
        let at = |place: usize| three.get(place).map_or(0, |byte| u32::from(*byte));
        let word = at(0) << 16 | at(1) << 8 | at(2);
        for place in 0..4 {
            let letter = ALPHABET[(word >> (18 - 6 * place) & 63) as usize];
            out.push(if place <= three.len() as u32 { letter } else { b'=' });
        }
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;

    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    proptest! {
        #[test]
        fn base64_is_what_the_standard_says(bytes: Vec<u8>) {
            prop_assert_eq!(written(|out| base64(out, &bytes)), STANDARD.encode(&bytes));
        }

        #[test]
        fn any_string_can_be_read_back(text in "\\PC*|[\\x00-\\x7f]*") {
            prop_assert_eq!(serde_json::from_str::<String>(&written(|out| string(out, &text))).unwrap(), text);
        }

        #[test]
        fn money_is_printed_as_domain_prints_it(value: i128, whole: i64) {
            prop_assert_eq!(written(|out| money(out, Money(value))), Money(value).to_string());
            prop_assert_eq!(written(|out| money(out, Money::whole(whole))), Money::whole(whole).to_string());
            let cents = Money(i128::from(whole) * 100_000_000_000_000);
            prop_assert_eq!(written(|out| money(out, cents)), cents.to_string());
        }

        #[test]
        fn units_are_printed_as_domain_prints_them(value: i64, zeros in 0_u32..9) {
            let value = value / 10_i64.pow(zeros) * 10_i64.pow(zeros);
            prop_assert_eq!(written(|out| units(out, value.into())), crate::domain::Price(value).to_string());
            prop_assert_eq!(written(|out| money(out, Money(i128::from(value) * 100_000_000))), crate::domain::Price(value).to_string());
        }

        #[test]
        fn integers_are_printed_as_rust_prints_them(value: i64) {
            prop_assert_eq!(written(|out| integer(out, value)), value.to_string());
        }
    }

    #[test]
    fn the_ends_of_the_types_are_printed() {
        for value in (0..2_000).chain([9_999, 10_000, 99_999, 100_000]) {
            assert_eq!(written(|out| natural(out, value)), value.to_string());
        }
        assert_eq!(written(|out| units(out, i64::MIN.into())), "-92233720368.54775808");
        assert_eq!(written(|out| integer(out, i64::MIN)), i64::MIN.to_string());
        assert_eq!(written(|out| money(out, Money(i128::MIN))), Money(i128::MIN).to_string());
        assert_eq!(written(|out| natural(out, u64::MAX)), u64::MAX.to_string());
    }
}
