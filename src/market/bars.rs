//! The closes of a symbol's bars of one timeframe, and the correlation of two such series.
//!
//! Invariant: closes are in ascending `open_time`, each `open_time` once, never more than the bound.
//! The only floating point of the fold is here: `f64`, sums in bar order, logarithms from `libm`, so
//! that every machine gets the same bits. Deliberately absent: opens, highs, lows, and marks.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::domain::{Millis, Price, div_half_even};

/// How many closes are kept unless a rule's window asks for more.
pub const DEFAULT_BOUND: usize = 1000;
/// Units of a correlation in one.
pub const RHO_ONE: i64 = 1_000_000_000;

/// `price x from / to`, rounded half to even: a price after a split in which each `from` units
/// became `to`. `None` when it would be 0 or leave its type.
#[must_use]
pub fn split_price(price: Price, from: i64, to: i64) -> Option<Price> {
    let numerator = i128::from(price.0) * i128::from(from);
    let scaled = div_half_even(numerator.into(), i128::from(to).into())?;
    i64::try_from(scaled).ok().filter(|units| *units > 0).map(Price)
}

/// Bar closes by their open time, the newest at the end, the oldest dropped beyond a bound.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bars {
    closes: VecDeque<(Millis, Price)>,
    bound: usize,
    revision: u64,
}

impl Default for Bars {
    fn default() -> Self {
        Self { closes: VecDeque::new(), bound: DEFAULT_BOUND, revision: 0 }
    }
}

impl Bars {
    /// Keeps at most `bound` closes from now on, but never fewer than [`DEFAULT_BOUND`].
    pub fn set_bound(&mut self, bound: usize) {
        self.bound = bound.max(DEFAULT_BOUND);
        while self.closes.len() > self.bound {
            self.closes.pop_front();
            self.revision = self.revision.wrapping_add(1);
        }
    }

    /// Takes a close. A known `open_time` is replaced; one older than everything in a full series is dropped.
    pub fn insert(&mut self, open_time: Millis, close: Price) {
        self.revision = self.revision.wrapping_add(1);
        let place = match self.closes.back() {
            Some(last) if last.0 >= open_time => self.closes.partition_point(|bar| bar.0 < open_time),
            Some(_) | None => self.closes.len(),
        };
        if let Some(known) = self.closes.get_mut(place).filter(|bar| bar.0 == open_time) {
            known.1 = close;
            return;
        }
        if self.closes.len() < self.bound {
            self.closes.insert(place, (open_time, close));
        } else if place > 0 {
            self.closes.pop_front();
            self.closes.insert(place - 1, (open_time, close));
        }
    }

    /// Whether [`Bars::scale`] would succeed.
    #[must_use]
    pub fn can_scale(&self, from: i64, to: i64) -> bool {
        self.closes.iter().all(|bar| split_price(bar.1, from, to).is_some())
    }

    /// Restates every close after a split, each rounded half to even. False, and nothing changed,
    /// when one of them would be 0 or leave its type.
    pub fn scale(&mut self, from: i64, to: i64) -> bool {
        if !self.can_scale(from, to) {
            return false;
        }
        self.revision = self.revision.wrapping_add(1);
        for bar in &mut self.closes {
            bar.1 = split_price(bar.1, from, to).unwrap_or(bar.1);
        }
        true
    }

    /// The last `n` closes, oldest first.
    pub fn last(&self, n: usize) -> impl Iterator<Item = (Millis, Price)> + Clone + '_ {
        self.closes.range(self.closes.len().saturating_sub(n)..).copied()
    }

    /// How many closes are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.closes.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.closes.is_empty()
    }

    /// Changes with every change of the closes, so that what is computed from them can be kept.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }
}

/// Pearson correlation of the log returns between consecutive common closes of each series' last
/// `window` bars, joined on `open_time` (SEMANTICS section 5, `rho`), in units of 1e-9, rounded half to even.
///
/// `None` with fewer than `min_observations` returns, or when one series does not vary.
#[must_use]
pub fn correlation(a: &Bars, b: &Bars, window: usize, min_observations: usize) -> Option<i64> {
    pearson(CommonReturns::new(a.last(window), b.last(window)), min_observations)
}

/// How many log returns two series have in common within a window, as [`correlation`] counts them.
#[must_use]
pub fn returns_in_common(a: &Bars, b: &Bars, window: usize) -> usize {
    CommonReturns::new(a.last(window), b.last(window)).count()
}

/// Pearson correlation of pairs of returns, in two passes over them, clamped to [-1, 1] and rounded
/// half to even to units of 1e-9. `None` with fewer than `min_observations` pairs, or no variance.
#[must_use]
pub fn pearson(pairs: impl Iterator<Item = (f64, f64)> + Clone, min_observations: usize) -> Option<i64> {
    let (mean_x, mean_y) = means(pairs.clone(), min_observations)?;
    let (mut xx, mut yy, mut xy) = (0.0, 0.0, 0.0);
    for (x, y) in pairs {
        let (dx, dy) = (x - mean_x, y - mean_y);
        xx += dx * dx;
        yy += dy * dy;
        xy += dx * dy;
    }
    let rho = xy / (libm::sqrt(xx) * libm::sqrt(yy));
    if !rho.is_finite() {
        return None;
    }
    let rounded = libm::rint(rho.clamp(-1.0, 1.0) * RHO_ONE as f64);
    Some(rounded as i64)
}

/// The means, unless there are too few pairs or one side is the same everywhere. That is asked of
/// the values, since the rounding of a mean can make a constant series seem to vary.
fn means(mut pairs: impl Iterator<Item = (f64, f64)>, min_observations: usize) -> Option<(f64, f64)> {
    let first = pairs.next()?;
    let (mut x_sum, mut y_sum) = first;
    let (mut count, mut x_varies, mut y_varies) = (1_usize, false, false);
    for (x, y) in pairs {
        x_sum += x;
        y_sum += y;
        x_varies |= x != first.0;
        y_varies |= y != first.1;
        count += 1;
    }
    if count < min_observations || !x_varies || !y_varies {
        return None;
    }
    let n = count as f64;
    Some((x_sum / n, y_sum / n))
}

/// The log returns between consecutive closes that two ascending series have in common.
#[derive(Clone)]
struct CommonReturns<A, B> {
    a: A,
    b: B,
    last: Option<(f64, f64)>,
}

impl<A, B> CommonReturns<A, B>
where
    A: Iterator<Item = (Millis, Price)>,
    B: Iterator<Item = (Millis, Price)>,
{
    fn new(a: A, b: B) -> Self {
        let mut joined = Self { a, b, last: None };
        joined.last = joined.next_common();
        joined
    }

    fn next_common(&mut self) -> Option<(f64, f64)> {
        let (mut left, mut right) = (self.a.next()?, self.b.next()?);
        while left.0 != right.0 {
            if left.0 < right.0 {
                left = self.a.next()?;
            } else {
                right = self.b.next()?;
            }
        }
        Some((left.1.0 as f64, right.1.0 as f64))
    }
}

impl<A, B> Iterator for CommonReturns<A, B>
where
    A: Iterator<Item = (Millis, Price)>,
    B: Iterator<Item = (Millis, Price)>,
{
    type Item = (f64, f64);

    fn next(&mut self) -> Option<(f64, f64)> {
        let before = self.last?;
        self.last = self.next_common();
        let now = self.last?;
        Some((libm::log(now.0 / before.0), libm::log(now.1 / before.1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bars(closes: &[(Millis, i64)]) -> Bars {
        let mut bars = Bars::default();
        for (open_time, close) in closes {
            bars.insert(*open_time, Price::whole(*close));
        }
        bars
    }

    fn content(bars: &Bars) -> Vec<(Millis, i64)> {
        bars.last(usize::MAX).map(|(open_time, close)| (open_time, close.0 / Price::ONE.0)).collect()
    }

    #[test]
    fn closes_are_kept_in_order_and_a_known_open_time_is_replaced() {
        let mut series = bars(&[(3, 30), (1, 10), (2, 20), (3, 33), (1, 11)]);
        assert_eq!(content(&series), [(1, 11), (2, 20), (3, 33)]);
        assert_eq!(series.last(2).count(), 2);
        let before = series.revision();
        series.insert(2, Price::whole(21));
        assert_ne!(series.revision(), before);
    }

    #[test]
    fn a_full_series_drops_its_oldest() {
        let mut series = Bars::default();
        for i in 0..1005 {
            series.insert(i, Price::whole(1 + i));
        }
        assert_eq!((series.len(), series.last(usize::MAX).next()), (1000, Some((5, Price::whole(6)))));
        series.insert(2, Price::whole(1));
        assert_eq!(series.last(usize::MAX).next(), Some((5, Price::whole(6))), "older than all of a full series");
        series.insert(-1, Price::whole(1));
        assert_eq!(series.len(), 1000);
        series.set_bound(1001);
        series.insert(2, Price::whole(1));
        assert_eq!((series.len(), series.last(usize::MAX).next()), (1001, Some((2, Price::whole(1)))));
        series.set_bound(1);
        assert_eq!(series.len(), DEFAULT_BOUND, "never fewer than the default");
    }

    #[test]
    fn a_late_bar_finds_its_place_in_a_full_series() {
        let mut series = Bars::default();
        for i in 0..1000 {
            series.insert(i * 10, Price::whole(1));
        }
        series.insert(15, Price::whole(2));
        let first: Vec<_> = series.last(usize::MAX).take(3).collect();
        assert_eq!(first, [(10, Price::whole(1)), (15, Price::whole(2)), (20, Price::whole(1))]);
        assert_eq!(series.len(), 1000);
    }

    #[test]
    fn vector_v04_joins_on_the_time_and_not_on_the_place() {
        let a = [(1, 0.01), (2, -0.02), (3, 0.015), (4, 0.005), (5, -0.01), (6, 0.02)];
        let b = [(1, 0.012), (2, -0.018), (4, 0.007), (5, -0.012), (6, 0.017), (7, 0.03)];
        let joined: Vec<(f64, f64)> = a.iter().filter_map(|(t, x)| b.iter().find(|(u, _)| u == t).map(|(_, y)| (*x, *y))).collect();
        assert_eq!(joined.len(), 5);
        // numpy 2.4.6: np.corrcoef(x, y)[0, 1] = 0.9881295890993387
        assert_eq!(pearson(joined.iter().copied(), 5), Some(988_129_589));
        let positional = a.iter().zip(b).map(|((_, x), (_, y))| (*x, y));
        assert_eq!(pearson(positional, 5).map(|rho| (rho + 500) / 1000), Some(600_492));
        assert_eq!(pearson(joined.into_iter(), 6), None, "too few");
    }

    #[test]
    fn closes_are_joined_on_their_open_time() {
        let a = bars(&[(1, 100), (2, 110), (3, 500), (4, 99), (5, 120)]);
        let b = bars(&[(1, 10), (2, 11), (4, 9), (5, 13), (6, 1)]);
        let same = bars(&[(1, 100), (2, 110), (4, 99), (5, 120)]);
        let rho = correlation(&a, &b, 60, 3).unwrap();
        assert_eq!(correlation(&same, &b, 60, 3), Some(rho), "what is not common takes no part");
        assert_eq!(correlation(&b, &a, 60, 3), Some(rho));
        assert_eq!(correlation(&a, &b, 60, 4), None, "four common closes are three returns");
    }

    #[test]
    fn only_the_last_bars_of_each_series_take_part() {
        let a = bars(&[(1, 7), (2, 100), (3, 110), (4, 99), (5, 120)]);
        let b = bars(&[(1, 90), (2, 10), (3, 11), (4, 9), (5, 13)]);
        let tail = |series: &Bars| bars(&content(series)[1..]);
        assert_eq!(correlation(&a, &b, 4, 3), correlation(&tail(&a), &tail(&b), 60, 3));
        assert_ne!(correlation(&a, &b, 4, 3), correlation(&a, &b, 5, 3));
    }

    #[test]
    fn the_same_series_correlates_fully_and_its_inverse_not_at_all() {
        let a = bars(&[(1, 100), (2, 110), (3, 95), (4, 120)]);
        let mut scaled = a.clone();
        assert!(scaled.scale(1, 2));
        assert_eq!(correlation(&a, &scaled, 60, 3), Some(RHO_ONE));
        let inverse = bars(&[(1, 1_000_000 / 100), (2, 1_000_000 / 110), (3, 1_000_000 / 95), (4, 1_000_000 / 120)]);
        assert!(correlation(&a, &inverse, 60, 3).unwrap() < -999_000_000);
    }

    #[test]
    fn a_series_without_variance_has_no_correlation() {
        let varied = bars(&[(1, 100), (2, 110), (3, 95), (4, 120)]);
        let flat = bars(&[(1, 5), (2, 5), (3, 5), (4, 5)]);
        let steady = bars(&[(1, 1000), (2, 1100), (3, 1210), (4, 1331)]);
        assert_eq!(correlation(&varied, &flat, 60, 1), None);
        assert_eq!(correlation(&steady, &varied, 60, 1), None, "10 % each time, though its mean is rounded");
        assert_eq!(correlation(&Bars::default(), &varied, 60, 0), None);
    }

    #[test]
    fn a_split_scales_all_closes_or_none() {
        let mut series = bars(&[(1, 101), (2, 200)]);
        assert!(series.scale(Price::whole(1).0, Price::whole(10).0));
        let closes: Vec<_> = series.last(9).map(|bar| bar.1.to_string()).collect();
        assert_eq!(closes, ["10.1", "20"]);
        series.insert(3, Price(1));
        let before = series.clone();
        assert!(!series.scale(1, 10), "a close would be 0");
        assert!(!series.scale(i64::MAX, 1), "a close would leave its type");
        assert!(!series.scale(1, 0));
        assert_eq!(series, before);
    }

    #[test]
    fn halves_go_to_the_even_side_in_a_split() {
        assert_eq!(split_price(Price(5), 1, 2), Some(Price(2)));
        assert_eq!(split_price(Price(7), 1, 2), Some(Price(4)));
        assert_eq!(split_price(Price(1), 1, 2), None);
        assert_eq!(split_price(Price(i64::MAX), i64::MAX, i64::MAX), Some(Price(i64::MAX)));
    }
}
