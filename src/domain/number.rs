//! Exact numbers: prices, quantities, money and factors as integers of a fixed scale.
//!
//! Invariant: nothing here wraps, saturates or passes through a float. Operations that can leave
//! their type return `None`, and the caller fails closed (SEMANTICS section 1).

use std::fmt;

use ethnum::I256;
use serde::{Deserialize, Serialize};

/// Milliseconds since the Unix epoch, or a span of them.
pub type Millis = i64;

/// Units of [`Price`], [`Qty`] and [`Factor`] in one.
pub const UNITS_PER_ONE: i64 = 100_000_000;
/// Units of [`Money`] in one.
pub const MONEY_UNITS_PER_ONE: i128 = 10_000_000_000_000_000;

macro_rules! scaled {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub i64);

        impl $name {
            /// One.
            pub const ONE: Self = Self(UNITS_PER_ONE);
            /// Zero.
            pub const ZERO: Self = Self(0);

            /// The whole number `n`, for constants and tests. Panics when it is out of range.
            #[must_use]
            pub const fn whole(n: i64) -> Self {
                Self(n * UNITS_PER_ONE)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt_scaled(f, i128::from(self.0), 8)
            }
        }
    };
}

scaled! {
    /// A price in units of 1e-8.
    Price
}
scaled! {
    /// A quantity in units of 1e-8; signed where it is a position, long above zero.
    Qty
}
scaled! {
    /// A multiplier, a threshold, or a percentage, in units of 1e-8.
    Factor
}

/// An amount of money in units of 1e-16.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Money(pub i128);

impl Money {
    /// Zero.
    pub const ZERO: Self = Self(0);

    /// The whole number `n`, for constants and tests.
    #[must_use]
    pub const fn whole(n: i64) -> Self {
        Self(n as i128 * MONEY_UNITS_PER_ONE)
    }

    /// The sum, or `None` when it leaves the type.
    #[must_use]
    pub fn plus(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    /// The difference, or `None` when it leaves the type.
    #[must_use]
    pub fn minus(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).map(Self)
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt_scaled(f, self.0, 16)
    }
}

/// Exact `qty x price` in money units, before the multiplier. Never leaves `i128`.
#[must_use]
pub fn exact_value(qty: i64, price: Price) -> i128 {
    i128::from(qty) * i128::from(price.0)
}

/// `amount x multiplier`, rounded half to even once. `None` when it leaves the type.
#[must_use]
pub fn times_multiplier(amount: i128, multiplier: Factor) -> Option<Money> {
    if multiplier == Factor::ONE {
        return Some(Money(amount));
    }
    if multiplier.0 % UNITS_PER_ONE == 0 {
        return amount.checked_mul(i128::from(multiplier.0 / UNITS_PER_ONE)).map(Money);
    }
    let numerator = I256::from(amount) * I256::from(multiplier.0);
    div_half_even(numerator, I256::from(UNITS_PER_ONE)).map(Money)
}

/// `qty x price x multiplier`, rounded half to even once. `None` when it leaves the type.
#[must_use]
pub fn value(qty: i64, price: Price, multiplier: Factor) -> Option<Money> {
    times_multiplier(exact_value(qty, price), multiplier)
}

/// `numerator / denominator`, rounded half to even. `None` for a zero denominator, or when the
/// result leaves `i128`.
#[must_use]
pub fn div_half_even(numerator: I256, denominator: I256) -> Option<i128> {
    if denominator == I256::ZERO {
        return None;
    }
    let (quotient, remainder) = (numerator / denominator, numerator % denominator);
    let twice = (remainder.unsigned_abs()).checked_mul(ethnum::U256::new(2))?;
    let up = match twice.cmp(&denominator.unsigned_abs()) {
        std::cmp::Ordering::Less => false,
        std::cmp::Ordering::Equal => quotient % I256::new(2) != I256::ZERO,
        std::cmp::Ordering::Greater => true,
    };
    let away = if (numerator < I256::ZERO) == (denominator < I256::ZERO) { I256::ONE } else { -I256::ONE };
    i128::try_from(if up { quotient + away } else { quotient }).ok()
}

/// [`div_half_even`] where both fit in 128 bits, many times faster. `None` for a zero denominator.
#[must_use]
pub fn div_half_even_small(numerator: i128, denominator: i128) -> Option<i128> {
    let (quotient, remainder) = (numerator.checked_div(denominator)?, numerator.checked_rem(denominator)?);
    let (rest, whole) = (remainder.unsigned_abs(), denominator.unsigned_abs());
    // `rest` against `whole - rest` is `2 x rest` against `whole`, without the product.
    let up = match rest.cmp(&(whole - rest)) {
        std::cmp::Ordering::Less => false,
        std::cmp::Ordering::Equal => quotient % 2 != 0,
        std::cmp::Ordering::Greater => true,
    };
    let away = if (numerator < 0) == (denominator < 0) { 1 } else { -1 };
    Some(if up { quotient + away } else { quotient })
}

/// Prints `value / 10^scale` plainly: no exponent, no trailing zeros, no `-0`.
fn fmt_scaled(f: &mut fmt::Formatter<'_>, value: i128, scale: usize) -> fmt::Result {
    let mut buffer = [0; MAX_DECIMAL_LEN];
    f.write_str(format_scaled(&mut buffer, value, scale))
}

/// The longest text of [`format_scaled`]: 39 digits, a sign, a point and a leading zero.
pub const MAX_DECIMAL_LEN: usize = 48;

/// Writes `value / 10^scale` plainly into `buffer` and returns the text. No allocation.
#[must_use]
pub fn format_scaled(buffer: &mut [u8; MAX_DECIMAL_LEN], value: i128, scale: usize) -> &str {
    let mut at = MAX_DECIMAL_LEN;
    let mut digits = 0;
    let mut seen = false;
    let mut rest = value.unsigned_abs();
    loop {
        // Most values fit in 64 bits after a few steps, and those divide much faster.
        let digit = match u64::try_from(rest) {
            Ok(small) => {
                rest = u128::from(small / 10);
                (small % 10) as u8
            }
            Err(_) => {
                let digit = (rest % 10) as u8;
                rest /= 10;
                digit
            }
        };
        let fraction = digits < scale;
        seen |= digit != 0 || !fraction;
        if seen {
            at -= 1;
            buffer[at] = b'0' + digit;
        }
        digits += 1;
        if digits == scale && seen {
            at -= 1;
            buffer[at] = b'.';
        }
        if rest == 0 && digits > scale {
            break;
        }
    }
    if value < 0 {
        at -= 1;
        buffer[at] = b'-';
    }
    std::str::from_utf8(&buffer[at..]).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_plainly() {
        let cases = [
            (0, "0"),
            (1, "0.00000001"),
            (-1, "-0.00000001"),
            (150_000_000, "1.5"),
            (-12_300_000_000, "-123"),
            (i64::MAX, "92233720368.54775807"),
            (i64::MIN, "-92233720368.54775808"),
        ];
        for (units, text) in cases {
            assert_eq!(Price(units).to_string(), text);
        }
        assert_eq!(Money(i128::MIN).to_string(), "-17014118346046923173168.7303715884105728");
        assert_eq!(Money::whole(94_500).to_string(), "94500");
    }

    #[test]
    fn rounds_half_to_even() {
        let cases = [(5, 10, 0), (15, 10, 2), (25, 10, 2), (-5, 10, 0), (-15, 10, -2), (26, 10, 3), (-26, -10, 3), (1, 3, 0)];
        for (n, d, expected) in cases {
            assert_eq!(div_half_even(I256::new(n), I256::new(d)), Some(expected), "{n}/{d}");
            assert_eq!(div_half_even_small(n, d), Some(expected), "{n}/{d}");
        }
        assert_eq!((div_half_even(I256::ONE, I256::ZERO), div_half_even_small(1, 0)), (None, None));
        assert_eq!(div_half_even_small(i128::MIN, -1), None);
    }

    #[test]
    fn a_value_that_leaves_its_type_is_none() {
        assert_eq!(value(i64::MAX, Price(i64::MAX), Factor::whole(1_000_000)), None);
        assert_eq!(value(Qty::whole(2).0, Price::whole(4000), Factor::whole(50)), Some(Money::whole(400_000)));
    }
}
