//! Decimals in the grammar of a JSON number, read exactly.
//!
//! Invariant: a value is never rounded; what does not fit is refused (SEMANTICS section 1). It is
//! the value that counts, not the way in which it is written. Deliberately absent: floats.

use super::read::number_end;

/// Why a text gives no number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DecimalFault {
    /// It is not in the grammar.
    NotDecimal,
    /// It has more than 8 fractional digits, or 18 integer ones.
    OutOfRange,
}

/// Reads a decimal in units of 1e-8: at most 8 fractional digits, and a magnitude below 1e18.
pub(super) fn units(text: &[u8]) -> Result<i128, DecimalFault> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    match plain(digits) {
        Some((mantissa, power)) => {
            let magnitude = i128::from(mantissa) * i128::from(power);
            Ok(if negative { -magnitude } else { magnitude })
        }
        None if number_end(text, 0) == Some(text.len()) => long(text),
        None => Err(DecimalFault::NotDecimal),
    }
}

/// Reads a decimal as records have them, in units of 1e-8; `None` when it is none, or does not fit.
#[must_use]
pub fn parse_units(text: &[u8]) -> Option<i128> {
    units(text).ok()
}

const POWERS: [i64; 9] = [100_000_000, 10_000_000, 1_000_000, 100_000, 10_000, 1_000, 100, 10, 1];

/// The common case in one pass, if this is one: no sign, no exponent, few digits.
#[inline]
pub(super) fn small(text: &[u8]) -> Option<i64> {
    let (mantissa, power) = plain(text)?;
    i64::try_from(mantissa).ok()?.checked_mul(power)
}

/// The digits and the power of ten that makes units of them: at most 18 digits, 8 of them fractional.
#[inline]
fn plain(digits: &[u8]) -> Option<(u64, i64)> {
    if digits.len() > 19 || matches!(digits, [b'0', b'0'..=b'9', ..]) {
        return None;
    }
    let mut mantissa: u64 = 0;
    let mut point = digits.len();
    for (at, &byte) in digits.iter().enumerate() {
        let digit = byte.wrapping_sub(b'0');
        if digit < 10 {
            mantissa = mantissa.wrapping_mul(10).wrapping_add(u64::from(digit));
        } else if byte == b'.' && point == digits.len() {
            point = at;
        } else {
            return None;
        }
    }
    // A point must have digits on both sides; without one, 19 digits are too many.
    let fraction = match digits.len() - point {
        0 if point < 19 => 0,
        0 | 1 => return None,
        more => more - 1,
    };
    let power = POWERS.get(fraction).filter(|_| point > 0)?;
    Some((mantissa, *power))
}

/// Any other number: `digits x 10^exponent`, whose first and last digits are not zero.
fn long(text: &[u8]) -> Result<i128, DecimalFault> {
    let negative = text.first() == Some(&b'-');
    let (mantissa, exponent) = match text.iter().position(|byte| matches!(byte, b'e' | b'E')) {
        Some(at) => (&text[..at], exponent_of(&text[at + 1..])),
        None => (text, 0),
    };
    let fraction = mantissa.iter().position(|byte| *byte == b'.').map_or(0, |at| mantissa.len() - at - 1);
    let digits = || mantissa.iter().filter(|byte| byte.is_ascii_digit()).map(|byte| i128::from(byte - b'0'));
    let zeros_first = digits().take_while(|digit| *digit == 0).count();
    let count = digits().count();
    if zeros_first == count {
        return Ok(0);
    }
    let zeros_last = mantissa.iter().rev().filter(|byte| byte.is_ascii_digit()).take_while(|byte| **byte == b'0').count();
    let significant = count - zeros_first - zeros_last;
    // Lengths are below 2^32 and exponents are clamped, so none of this can overflow.
    let scale = exponent - fraction as i64 + zeros_last as i64;
    if scale < -8 || significant as i64 + scale > 18 {
        return Err(DecimalFault::OutOfRange);
    }
    let value = digits().skip(zeros_first).take(significant).fold(0, |sum, digit| sum * 10 + digit);
    let power = u32::try_from(scale + 8).map_err(|_| DecimalFault::OutOfRange)?;
    let magnitude = value * 10_i128.pow(power);
    Ok(if negative { -magnitude } else { magnitude })
}

/// The digits after an `e`, clamped to what no mantissa can make up for.
fn exponent_of(text: &[u8]) -> i64 {
    const ENDLESS: i64 = 1 << 40;
    let digits = text.iter().filter(|byte| byte.is_ascii_digit());
    let magnitude = digits.fold(0, |sum: i64, byte| (sum * 10 + i64::from(byte - b'0')).min(ENDLESS));
    if text.first() == Some(&b'-') { -magnitude } else { magnitude }
}
