//! What a rule measured, held against its limit, without a division (SEMANTICS section 5).
//!
//! Invariant: comparisons are exact; only printing rounds. Numerators and denominators are integers
//! of up to 256 bits, and a product that would not fit compares as what it is: larger than any that does.

use ethnum::I256;

use crate::domain::{Factor, Figure, div_half_even};

/// An exact figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// Nothing measured.
    Unknown,
    /// Larger than anything.
    Infinite,
    /// A fraction; the denominator is not below 0. Over 0 it is infinite, unless it is not above 0 itself.
    Over(I256, I256),
}

impl Amount {
    /// `numerator / denominator` of small integers.
    #[must_use]
    pub fn over(numerator: i128, denominator: i128) -> Self {
        Self::Over(I256::from(numerator), I256::from(denominator))
    }

    /// Rounded half to even at 8 decimals.
    #[must_use]
    pub fn figure(self) -> Figure {
        let Self::Over(numerator, denominator) = self else {
            return if self == Self::Unknown { Figure::Unknown } else { Figure::Infinite };
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
        let Amount::Over(numerator, denominator) = self.utilization else { return self.utilization == Amount::Infinite };
        if denominator == I256::ZERO {
            return numerator > I256::ZERO;
        }
        if numerator <= I256::ZERO {
            return level.0 <= 0;
        }
        let Some(left) = numerator.checked_mul(I256::from(Level::FULL.0)) else { return true };
        denominator.checked_mul(I256::from(level.0)).is_some_and(|right| left >= right)
    }

    fn exceeds(&self) -> bool {
        match self.utilization {
            Amount::Unknown => false,
            Amount::Infinite => true,
            Amount::Over(numerator, denominator) => numerator > denominator,
        }
    }
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
    fn levels_are_inclusive() {
        assert!(used(80, 100).reaches(Level::warn(Factor::whole(80))));
        assert!(!used(7999, 10_000).reaches(Level::warn(Factor::whole(80))));
        assert!(used(76, 100).reaches(Level::rearm(Factor::whole(80))));
        assert!(!used(7599, 10_000).reaches(Level::rearm(Factor::whole(80))));
        assert!(used(95, 100).reaches(Level::CLEAR) && !used(949, 1000).reaches(Level::CLEAR));
    }
}
