//! What a rule measured, held against its limit, without a division (SEMANTICS section 5).
//!
//! Invariant: comparisons are exact; only printing rounds. Numerators and denominators are integers
//! of up to 256 bits, and a product that would not fit compares as what it is: larger than any that does.

use ethnum::I256;

use crate::domain::{Factor, Figure, div_half_even, div_half_even_small};

/// An exact figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// Nothing measured.
    Unknown,
    /// Larger than anything.
    Infinite,
    /// A fraction; the denominator is not below 0. Over 0 it is infinite, unless it is not above 0 itself.
    Over(i128, i128),
    /// The same, where that does not fit.
    OverWide(I256, I256),
    /// `(a x b) / (c x d)`, not multiplied yet: most limits are far, and their lengths tell that.
    Products([i128; 4]),
}

impl Amount {
    /// `numerator / denominator`.
    #[must_use]
    pub const fn over(numerator: i128, denominator: i128) -> Self {
        Self::Over(numerator, denominator)
    }

    /// `(a x b) / (c x d)`.
    #[must_use]
    pub const fn of_products((a, b): (i128, i128), (c, d): (i128, i128)) -> Self {
        Self::Products([a, b, c, d])
    }

    /// The same amount, multiplied out: wide where it must be.
    fn multiplied(self) -> Self {
        let Self::Products([a, b, c, d]) = self else { return self };
        match (a.checked_mul(b), c.checked_mul(d)) {
            (Some(numerator), Some(denominator)) => Self::Over(numerator, denominator),
            (_, _) => Self::OverWide(I256::from(a) * I256::from(b), I256::from(c) * I256::from(d)),
        }
    }

    /// Whether it is surely below a quarter: the product of numbers of m and n bits has m + n bits, or one less.
    fn is_far_below_one(self) -> bool {
        let Self::Products(factors) = self else { return false };
        if factors.iter().any(|factor| *factor < 0) {
            return false;
        }
        let [a, b, c, d] = factors.map(|factor| 128 - factor.leading_zeros());
        c > 0 && d > 0 && a + b + 4 <= c + d
    }

    /// Rounded half to even at 8 decimals.
    #[must_use]
    pub fn figure(self) -> Figure {
        if let Self::Over(numerator, denominator) = self.multiplied()
            && let Some(units) = numerator.checked_mul(100_000_000).and_then(|scaled| div_half_even_small(scaled, denominator))
        {
            return Figure::Units(units);
        }
        let (numerator, denominator) = match self.multiplied() {
            Self::Unknown | Self::Products(_) => return Figure::Unknown,
            Self::Infinite => return Figure::Infinite,
            Self::Over(numerator, denominator) => (I256::from(numerator), I256::from(denominator)),
            Self::OverWide(numerator, denominator) => (numerator, denominator),
        };
        if denominator == I256::ZERO {
            return if numerator > I256::ZERO { Figure::Infinite } else { Figure::Units(0) };
        }
        let rounded = numerator.checked_mul(I256::new(100_000_000)).and_then(|scaled| div_half_even(scaled, denominator));
        rounded.map_or(Figure::Unknown, Figure::Units)
    }
}

/// A part of a limit, in units of 1e-12.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level(pub i128);

impl Level {
    /// All of the limit.
    pub const FULL: Self = Self(1_000_000_000_000);
    /// 0.95 of it: below, an episode ends.
    pub const CLEAR: Self = Self(950_000_000_000);

    /// `warn_at` percent of it.
    #[must_use]
    pub const fn warn(warn_at: Factor) -> Self {
        Self(warn_at.0 as i128 * 100)
    }

    /// 0.95 of `warn_at` percent of it: below, a warning may be raised again.
    #[must_use]
    pub const fn rearm(warn_at: Factor) -> Self {
        Self(warn_at.0 as i128 * 95)
    }
}

/// How a measure breaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Above its limit.
    Limit,
    /// At its threshold or beyond.
    Trigger,
    /// Not at all: nothing is added that would count.
    Barred,
}

/// A measure against its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measure {
    /// What was measured.
    pub current: Amount,
    /// What it is held against.
    pub limit: Amount,
    /// `current / limit`.
    pub utilization: Amount,
    /// How it breaches.
    pub kind: Kind,
}

impl Measure {
    /// Whether it breaches.
    #[must_use]
    pub fn breaches(&self) -> bool {
        match self.kind {
            Kind::Barred => false,
            Kind::Trigger => self.reaches(Level::FULL),
            Kind::Limit => self.exceeds(),
        }
    }

    /// The same, without the excuse that nothing is added.
    #[must_use]
    pub fn as_it_stands(self) -> Self {
        Self { kind: if self.kind == Kind::Barred { Kind::Limit } else { self.kind }, ..self }
    }

    /// Whether the utilisation is `level` or more.
    #[must_use]
    pub fn reaches(&self, level: Level) -> bool {
        if level.0 > Level::FULL.0 >> 2 && self.utilization.is_far_below_one() {
            return false;
        }
        match self.utilization.multiplied() {
            Amount::Unknown | Amount::Products(_) => false,
            Amount::Infinite => true,
            Amount::Over(numerator, 0) => numerator > 0,
            Amount::Over(numerator, _) if numerator <= 0 => level.0 <= 0,
            Amount::Over(numerator, denominator) => near(numerator, denominator, level)
                .unwrap_or_else(|| reaches_exactly(I256::from(numerator), I256::from(denominator), level)),
            Amount::OverWide(numerator, I256::ZERO) => numerator > I256::ZERO,
            Amount::OverWide(numerator, _) if numerator <= I256::ZERO => level.0 <= 0,
            Amount::OverWide(numerator, denominator) => reaches_exactly(numerator, denominator, level),
        }
    }

    fn exceeds(&self) -> bool {
        if self.utilization.is_far_below_one() {
            return false;
        }
        match self.utilization.multiplied() {
            Amount::Unknown | Amount::Products(_) => false,
            Amount::Infinite => true,
            Amount::Over(numerator, denominator) => numerator > denominator,
            Amount::OverWide(numerator, denominator) => numerator > denominator,
        }
    }
}

/// `numerator / denominator >= level` from their first 60 bits, where these tell. Both are above 0.
fn near(numerator: i128, denominator: i128, level: Level) -> Option<bool> {
    if numerator <= denominator >> 3 && level.0 > Level::FULL.0 >> 2 {
        return Some(false);
    }
    let bits = 128 - (numerator | denominator).leading_zeros();
    let shift = bits.saturating_sub(60);
    let (left, right) = (numerator >> shift, denominator >> shift);
    let inexact = i128::from(shift > 0);
    let (low, high) = (left * Level::FULL.0, (left + inexact) * Level::FULL.0);
    if low >= (right + inexact).checked_mul(level.0)? {
        return Some(true);
    }
    if high < right.checked_mul(level.0)? || (inexact == 0) {
        return Some(false);
    }
    None
}

fn reaches_exactly(numerator: I256, denominator: I256, level: Level) -> bool {
    let Some(left) = numerator.checked_mul(I256::from(Level::FULL.0)) else { return true };
    denominator.checked_mul(I256::from(level.0)).is_some_and(|right| left >= right)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(numerator: i128, denominator: i128) -> Measure {
        let utilization = Amount::over(numerator, denominator);
        Measure { current: utilization, limit: utilization, utilization, kind: Kind::Limit }
    }

    #[test]
    fn a_limit_is_inclusive_and_a_trigger_fires_when_reached() {
        assert!(!used(10, 10).breaches());
        assert!(used(11, 10).breaches());
        assert!(Measure { kind: Kind::Trigger, ..used(10, 10) }.breaches());
        assert!(!Measure { kind: Kind::Barred, ..used(11, 10) }.breaches());
    }

    #[test]
    fn a_limit_of_nothing_is_breached_by_anything() {
        assert!(used(1, 0).breaches() && used(1, 0).reaches(Level::FULL));
        assert!(!used(0, 0).breaches() && !used(0, 0).reaches(Level::CLEAR));
        assert_eq!(used(1, 0).utilization.figure(), Figure::Infinite);
    }

    #[test]
    fn the_first_bits_never_tell_anything_else_than_all_of_them() {
        let mut state = 1_u128;
        let mut next = || {
            state = state.wrapping_mul(0x2360_ED05_1FC6_5DA4_4385_DF64_9FCC_F645).wrapping_add(0x5851_F42D_4C95_7F2D);
            (state >> 1) as i128 >> (state % 100)
        };
        for _ in 0..20_000 {
            let (numerator, level) = (next().max(1), Level(next().rem_euclid(2_000_000_000_000)));
            // Denominators for which the comparison is close, and any others.
            let close = (numerator / 3).max(1);
            for denominator in [next().max(1), close, close + 1, numerator] {
                let exact = reaches_exactly(I256::from(numerator), I256::from(denominator), level);
                assert_eq!(used(numerator, denominator).reaches(level), exact, "{numerator}/{denominator} {level:?}");
            }
        }
    }

    #[test]
    fn what_is_far_is_judged_as_if_it_were_multiplied_out() {
        let sizes = [0, 1, 2, 7, 8, 9, 1 << 40, (1 << 62) + 3, i128::MAX >> 3];
        for a in sizes {
            for b in sizes {
                for c in sizes {
                    for d in [1, 3, 100, 1 << 50] {
                        let lazy = used(0, 1);
                        let lazy = Measure { utilization: Amount::of_products((a, b), (c, d)), ..lazy };
                        let eager = Measure { utilization: lazy.utilization.multiplied(), ..lazy };
                        assert_eq!(lazy.breaches(), eager.breaches(), "{a}x{b}/{c}x{d}");
                        for level in [Level(300_000_000_000), Level::CLEAR, Level::FULL] {
                            assert_eq!(lazy.reaches(level), eager.reaches(level), "{a}x{b}/{c}x{d} {level:?}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn levels_are_inclusive() {
        assert!(used(80, 100).reaches(Level::warn(Factor::whole(80))));
        assert!(!used(7999, 10_000).reaches(Level::warn(Factor::whole(80))));
        assert!(used(76, 100).reaches(Level::rearm(Factor::whole(80))));
        assert!(!used(7599, 10_000).reaches(Level::rearm(Factor::whole(80))));
        assert!(used(95, 100).reaches(Level::CLEAR) && !used(949, 1000).reaches(Level::CLEAR));
    }
}
