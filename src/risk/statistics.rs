//! Statistics of a portfolio for people: value at risk, expected shortfall, drawdown, correlations.
//!
//! Invariant: no decision depends on anything here, which is why `f64` is allowed. What goes out is
//! rounded once, by [`to_units`]. Deliberately absent: where the returns come from.

use ethnum::I256;

use crate::domain::{Figure, Money, UNITS_PER_ONE, div_half_even};
use crate::market::bars::{Bars, RHO_ONE, correlation};

/// How many daily returns count, the last ones (SEMANTICS section 9).
pub const RETURNS_WINDOW: usize = 250;

/// How sure a value at risk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confidence {
    /// 95 %
    P95,
    /// 99 %
    P99,
}

impl Confidence {
    /// Both.
    pub const ALL: [Self; 2] = [Self::P95, Self::P99];

    /// The probability of a worse return.
    #[must_use]
    pub const fn tail(self) -> f64 {
        match self {
            Self::P95 => 0.05,
            Self::P99 => 0.01,
        }
    }

    /// The quantile of the standard normal distribution (scipy `norm.ppf`, Wichura's AS 241).
    #[must_use]
    pub const fn normal_quantile(self) -> f64 {
        match self {
            Self::P95 => 1.644_853_626_951_471_5,
            Self::P99 => 2.326_347_874_040_840_8,
        }
    }
}

/// The lower tail of returns. Losses are above zero; times equity, they are money.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TailRisk {
    /// The loss that is not exceeded at the confidence.
    pub value_at_risk: f64,
    /// The mean loss of the returns that are at it or worse.
    pub expected_shortfall: f64,
}

/// Historical value at risk and expected shortfall of the last [`RETURNS_WINDOW`] returns: linear
/// interpolation between order statistics (numpy's default, type 7 of Hyndman and Fan 1996).
///
/// `None` without returns, or when one is not finite.
#[must_use]
pub fn historical(returns: &[f64], confidence: Confidence) -> Option<TailRisk> {
    let mut sorted = in_window(returns)?.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let quantile = interpolated(&sorted, confidence.tail())?;
    let worse = &sorted[..sorted.partition_point(|value| *value <= quantile)];
    let expected_shortfall = -mean(worse)?;
    Some(TailRisk { value_at_risk: -quantile, expected_shortfall })
}

/// Parametric value at risk of the last [`RETURNS_WINDOW`] returns, as if they were normal: the
/// quantile times the sample deviation (n - 1), less the mean. `None` with fewer than two returns.
#[must_use]
pub fn parametric_var(returns: &[f64], confidence: Confidence) -> Option<f64> {
    let window = in_window(returns)?;
    if window.len() < 2 {
        return None;
    }
    let mean = mean(window)?;
    let squares: f64 = window.iter().map(|value| (value - mean) * (value - mean)).sum();
    let deviation = libm::sqrt(squares / (window.len() - 1) as f64);
    Some(confidence.normal_quantile() * deviation - mean)
}

/// A value in units of 1e-8, rounded half to even. `None` when it is not finite or beyond 1e18.
#[must_use]
pub fn to_units(value: f64) -> Option<i128> {
    let units = libm::rint(value * UNITS_PER_ONE as f64);
    (units.is_finite() && units.abs() <= 1e26).then_some(units as i128)
}

/// How far an equity curve fell below its highest value so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drawdown {
    /// The highest value.
    pub hwm: Money,
    /// The last value's distance from it.
    pub current: Money,
    /// The same in percent of it; infinite below a high-water mark that is not above zero.
    pub current_percent: Figure,
    /// The largest distance ever.
    pub max: Money,
    /// The largest percentage ever, which need not be of the same day.
    pub max_percent: Figure,
}

/// The drawdowns of an equity curve, oldest first. Exact; percentages are rounded half to even at 8
/// decimals. `None` for an empty curve, or when a difference leaves its type.
#[must_use]
pub fn drawdown(curve: &[Money]) -> Option<Drawdown> {
    let first = *curve.first()?;
    let none = Figure::Units(0);
    let mut seen = Drawdown { hwm: first, current: Money::ZERO, current_percent: none, max: Money::ZERO, max_percent: none };
    for equity in curve {
        seen.hwm = seen.hwm.max(*equity);
        seen.current = seen.hwm.minus(*equity)?;
        seen.current_percent = percent_below(seen.hwm, seen.current);
        seen.max = seen.max.max(seen.current);
        seen.max_percent = larger(seen.max_percent, seen.current_percent);
    }
    Some(seen)
}

/// The correlation of every series with every other, row by row, in units of 1e-9. A series
/// correlates fully with itself; `None` where there are too few common bars or nothing varies.
#[must_use]
pub fn correlation_matrix(series: &[&Bars], window: usize, min_observations: usize) -> Vec<Vec<Option<i64>>> {
    let mut matrix = vec![vec![Some(RHO_ONE); series.len()]; series.len()];
    for (row, a) in series.iter().enumerate() {
        for (column, b) in series.iter().enumerate().skip(row + 1) {
            let rho = correlation(a, b, window, min_observations);
            matrix[row][column] = rho;
            matrix[column][row] = rho;
        }
    }
    matrix
}

fn in_window(returns: &[f64]) -> Option<&[f64]> {
    let window = &returns[returns.len().saturating_sub(RETURNS_WINDOW)..];
    window.iter().all(|value| value.is_finite()).then_some(window)
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// The quantile `p` of ascending values.
fn interpolated(sorted: &[f64], p: f64) -> Option<f64> {
    let place = sorted.len().checked_sub(1)? as f64 * p;
    let below = libm::floor(place);
    let low = *sorted.get(below as usize)?;
    let high = sorted.get(below as usize + 1).copied().unwrap_or(low);
    let (step, part) = (high - low, place - below);
    // From the nearer end, as numpy does: at the ends the values themselves come out.
    Some(if part < 0.5 { low + step * part } else { high - step * (1.0 - part) })
}

fn percent_below(hwm: Money, below: Money) -> Figure {
    if below == Money::ZERO {
        return Figure::Units(0);
    }
    if hwm <= Money::ZERO {
        return Figure::Infinite;
    }
    let numerator = I256::from(below.0) * I256::new(100 * i128::from(UNITS_PER_ONE));
    div_half_even(numerator, I256::from(hwm.0)).map_or(Figure::Unknown, Figure::Units)
}

fn larger(a: Figure, b: Figure) -> Figure {
    match (a, b) {
        (Figure::Units(a), Figure::Units(b)) => Figure::Units(a.max(b)),
        (Figure::Infinite, _) | (_, Figure::Infinite) => Figure::Infinite,
        (Figure::Absent | Figure::Unknown, other) | (other, Figure::Absent | Figure::Unknown) => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Price;

    const V01: [f64; 20] = [
        -0.031, -0.022, -0.018, -0.012, -0.009, -0.004, -0.001, 0.0, 0.001, 0.002, 0.003, 0.004, 0.006, 0.007, 0.009, 0.010, 0.012, 0.015,
        0.019, 0.024,
    ];

    /// Returns by an integer recipe, so that numpy can be asked about the same ones.
    fn recipe(n: i64) -> Vec<f64> {
        (0..n).map(|i| ((i * i * 37 + i * 11) % 2001 - 1000) as f64 / 50_000.0).collect()
    }

    fn units(value: f64) -> i128 {
        to_units(value).unwrap()
    }

    #[test]
    fn vector_v01_interpolates_between_order_statistics() {
        let tail = historical(&V01, Confidence::P95).unwrap();
        assert_eq!(units(tail.value_at_risk), 2_245_000);
        assert_eq!(units(tail.value_at_risk * 250_000.0), 5612_50000000);
        assert_eq!(units(tail.expected_shortfall), 3_100_000);
    }

    #[test]
    fn historical_tails_are_those_of_numpy() {
        // numpy 2.4.6: v = -np.quantile(r, a); -r[r <= -v].mean()
        let cases = [
            (V01.to_vec(), Confidence::P99, 0.02929, 0.031),
            (recipe(250), Confidence::P95, 0.017746, 0.01882769230769231),
            (recipe(250), Confidence::P99, 0.0193048, 0.019846666666666665),
        ];
        for (returns, confidence, value_at_risk, expected_shortfall) in cases {
            let tail = historical(&returns, confidence).unwrap();
            assert!((tail.value_at_risk - value_at_risk).abs() < 1e-15, "{tail:?}");
            assert!((tail.expected_shortfall - expected_shortfall).abs() < 1e-15, "{tail:?}");
        }
    }

    #[test]
    fn only_the_last_250_returns_count() {
        // numpy 2.4.6: -np.quantile(r[-250:], 0.05) = 0.018151 of 300 returns
        let tail = historical(&recipe(300), Confidence::P95).unwrap();
        assert_eq!(units(tail.value_at_risk), 1_815_100);
    }

    #[test]
    fn parametric_var_is_that_of_numpy() {
        // numpy 2.4.6 and statistics.NormalDist: inv_cdf(c) * r.std(ddof=1) - r.mean()
        let cases = [
            (V01.to_vec(), Confidence::P95, 0.021896820545740082),
            (V01.to_vec(), Confidence::P99, 0.03127983047677666),
            (recipe(250), Confidence::P95, 0.018601215561380162),
            (recipe(250), Confidence::P99, 0.02644816028464238),
        ];
        for (returns, confidence, expected) in cases {
            let value_at_risk = parametric_var(&returns, confidence).unwrap();
            assert!((value_at_risk - expected).abs() < 1e-15, "{value_at_risk} {expected}");
        }
    }

    #[test]
    fn too_few_or_broken_returns_have_no_tail() {
        assert_eq!(historical(&[], Confidence::P95), None);
        assert_eq!(historical(&[0.1, f64::NAN], Confidence::P95), None);
        assert_eq!(parametric_var(&[0.1], Confidence::P95), None);
        assert_eq!(parametric_var(&[0.1, f64::INFINITY], Confidence::P99), None);
        let single = TailRisk { value_at_risk: 0.02, expected_shortfall: 0.02 };
        assert_eq!(historical(&[-0.02], Confidence::P99), Some(single));
    }

    #[test]
    fn vector_v02_follows_an_equity_curve() {
        let curve = [100_000, 104_000, 101_920, 99_840, 103_000, 110_000, 104_500, 99_000, 105_600].map(Money::whole);
        let expected = Drawdown {
            hwm: Money::whole(110_000),
            current: Money::whole(4_400),
            current_percent: Figure::Units(4 * i128::from(UNITS_PER_ONE)),
            max: Money::whole(11_000),
            max_percent: Figure::Units(10 * i128::from(UNITS_PER_ONE)),
        };
        assert_eq!(drawdown(&curve), Some(expected));
    }

    #[test]
    fn the_largest_percentage_and_the_largest_amount_may_be_of_different_days() {
        let curve = [100, 50, 1000, 900].map(Money::whole);
        let seen = drawdown(&curve).unwrap();
        assert_eq!(seen.max, Money::whole(100));
        assert_eq!(seen.max_percent, Figure::Units(50 * i128::from(UNITS_PER_ONE)));
    }

    #[test]
    fn below_a_mark_that_is_not_positive_the_percentage_is_infinite() {
        let seen = drawdown(&[Money::whole(0), Money::whole(-5), Money::whole(3)]).unwrap();
        assert_eq!((seen.max_percent, seen.current_percent), (Figure::Infinite, Figure::Units(0)));
        assert_eq!(drawdown(&[]), None);
        assert_eq!(drawdown(&[Money(i128::MAX), Money(i128::MIN)]), None, "the difference leaves its type");
        assert_eq!(drawdown(&[Money(i128::MAX), Money(0)]).unwrap().max, Money(i128::MAX));
    }

    #[test]
    fn the_matrix_is_that_of_numpy() {
        let series = |closes: [i64; 5]| {
            let mut bars = Bars::default();
            for (day, close) in closes.into_iter().enumerate() {
                bars.insert(day as i64, Price::whole(close));
            }
            bars
        };
        let (a, b, c) = (series([100, 110, 95, 120, 118]), series([10, 11, 9, 13, 12]), series([50, 49, 51, 48, 47]));
        // numpy 2.4.6: np.round(np.corrcoef(np.diff(np.log([a, b, c]))), 9)
        let expected = [[1.0, 0.98661282, -0.94455368], [0.98661282, 1.0, -0.90269922], [-0.94455368, -0.90269922, 1.0]];
        let matrix = correlation_matrix(&[&a, &b, &c], 60, 4);
        for (row, values) in matrix.iter().zip(expected) {
            for (rho, value) in row.iter().zip(values) {
                assert_eq!(rho.map(|units| (units + units.signum() * 5) / 10), Some((value * 1e8_f64).round() as i64));
            }
        }
        assert_eq!(correlation_matrix(&[&a, &b], 60, 5)[0][1], None, "too few");
    }

    #[test]
    fn rounds_what_goes_out_half_to_even() {
        assert_eq!(to_units(1.0 / 512.0), Some(195_312), "195312.5");
        assert_eq!(to_units(3.0 / 512.0), Some(585_938), "585937.5");
        assert_eq!(to_units(-2.25), Some(-225_000_000));
        assert_eq!(to_units(f64::NAN), None);
        assert_eq!(to_units(1e300), None);
    }
}
