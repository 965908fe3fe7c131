//! Indicators over bars, by TA-Lib's own Rust port.
//!
//! Invariant: every parameter is within its bounds before anything is computed, and a bar has a value or none: never a 0 that stands
//! for one that cannot be known yet. Deliberately absent: floats anywhere near money, and indicators of indicators.
//!
//! How far back each looks: averages with a window exactly their window; those that never forget (ema, rsi, macd, atr, adx) so far that
//! what lies before weighs less than the last bit of a float; obv from the oldest bar kept; vwap from the beginning of the exchange's day.

use ta_lib::{Core, MAType, OutRange, RetCode};

use crate::domain::Millis;

use super::bar::Bar;
use super::query::{drawn, drawn_volume};
use super::timeframe::{Days, Timeframe};

/// The longest period that may be asked for.
pub const PERIOD_MAX: u32 = 500;
/// `(1 - 2/(n+1))^(20 n)` is below 1e-17: after so many periods an exponential average has forgotten where it began.
const EMA_PERIODS: usize = 20;
/// Wilder's averages forget half as fast.
const WILDER_PERIODS: usize = 40;

/// An indicator with its parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Indicator {
    /// Simple moving average.
    Sma {
        /// Bars.
        period: u32,
    },
    /// Exponential moving average.
    Ema {
        /// Bars.
        period: u32,
    },
    /// Weighted moving average.
    Wma {
        /// Bars.
        period: u32,
    },
    /// Wilder's relative strength index.
    Rsi {
        /// Bars.
        period: u32,
    },
    /// Moving average convergence and divergence.
    Macd {
        /// Bars of the fast average.
        fast: u32,
        /// Bars of the slow average.
        slow: u32,
        /// Bars of the signal's average.
        signal: u32,
    },
    /// Bollinger bands around a simple average.
    Bbands {
        /// Bars.
        period: u32,
        /// Standard deviations (of the population) above and below.
        deviations: f64,
    },
    /// Wilder's average true range.
    Atr {
        /// Bars.
        period: u32,
    },
    /// Wilder's average directional index.
    Adx {
        /// Bars.
        period: u32,
    },
    /// The slow stochastic oscillator.
    Stoch {
        /// Bars of the range.
        k: u32,
        /// Bars that %K is smoothed over.
        smoothing: u32,
        /// Bars that %D is averaged over.
        d: u32,
    },
    /// On-balance volume.
    Obv,
    /// The volume-weighted average price of the exchange's day.
    Vwap,
}

/// A parameter that is not allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct BadParameter {
    /// Which.
    pub field: String,
    /// What is allowed.
    pub message: String,
}

impl BadParameter {
    fn new(field: &str, message: impl Into<String>) -> Self {
        Self { field: field.to_owned(), message: message.into() }
    }
}

/// The bars before a window that its values need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum History {
    /// So many.
    Bars(usize),
    /// Those of the same day.
    Day,
    /// All that are kept.
    All,
}

/// A line of an indicator: a value, or none, for each bar.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// Its name.
    pub name: &'static str,
    /// The values.
    pub values: Vec<Option<f64>>,
}

impl Indicator {
    /// The names.
    pub const NAMES: [&str; 11] = ["sma", "ema", "wma", "rsi", "macd", "bbands", "atr", "adx", "stoch", "obv", "vwap"];
    /// The parameters that some indicator has.
    pub const PARAMETERS: [&str; 8] = ["period", "fast", "slow", "signal", "deviations", "k", "smoothing", "d"];

    /// Reads an indicator: its name, and its parameters as `given` spells them; what is not given has the usual value.
    ///
    /// # Errors
    /// The first parameter that is out of its bounds, or that this indicator does not have.
    pub fn parse<'a>(name: &str, given: impl Fn(&str) -> Option<&'a str>) -> Result<Self, BadParameter> {
        let period = |usual, least| whole("period", given("period"), usual, least);
        let (indicator, known): (Self, &[&str]) = match name {
            "sma" => (Self::Sma { period: period(20, 1)? }, &["period"]),
            "ema" => (Self::Ema { period: period(20, 1)? }, &["period"]),
            "wma" => (Self::Wma { period: period(20, 1)? }, &["period"]),
            "rsi" => (Self::Rsi { period: period(14, 2)? }, &["period"]),
            "macd" => {
                let number = |field, usual, least| whole(field, given(field), usual, least);
                let (fast, slow) = (number("fast", 12, 2)?, number("slow", 26, 2)?);
                if fast >= slow {
                    return Err(BadParameter::new("slow", format!("must be longer than fast, which is {fast}")));
                }
                (Self::Macd { fast, slow, signal: number("signal", 9, 1)? }, &["fast", "slow", "signal"])
            }
            "bbands" => {
                let deviations = decimal("deviations", given("deviations"), 2.0, (0.1, 10.0))?;
                (Self::Bbands { period: period(20, 2)?, deviations }, &["period", "deviations"])
            }
            "atr" => (Self::Atr { period: period(14, 1)? }, &["period"]),
            "adx" => (Self::Adx { period: period(14, 2)? }, &["period"]),
            "stoch" => {
                let number = |field, usual| whole(field, given(field), usual, 1);
                (Self::Stoch { k: number("k", 14)?, smoothing: number("smoothing", 3)?, d: number("d", 3)? }, &["k", "smoothing", "d"])
            }
            "obv" => (Self::Obv, &[]),
            "vwap" => (Self::Vwap, &[]),
            _ => return Err(BadParameter::new("indicator", format!("must be one of {}", Self::NAMES.join(", ")))),
        };
        match Self::PARAMETERS.iter().find(|field| given(field).is_some() && !known.contains(field)) {
            Some(field) => Err(BadParameter::new(field, format!("{name} has no such parameter"))),
            None => Ok(indicator),
        }
    }

    /// The API's word.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Sma { .. } => "sma",
            Self::Ema { .. } => "ema",
            Self::Wma { .. } => "wma",
            Self::Rsi { .. } => "rsi",
            Self::Macd { .. } => "macd",
            Self::Bbands { .. } => "bbands",
            Self::Atr { .. } => "atr",
            Self::Adx { .. } => "adx",
            Self::Stoch { .. } => "stoch",
            Self::Obv => "obv",
            Self::Vwap => "vwap",
        }
    }

    /// Its parameters as they count.
    #[must_use]
    pub fn parameters(&self) -> Vec<(&'static str, f64)> {
        match *self {
            Self::Sma { period }
            | Self::Ema { period }
            | Self::Wma { period }
            | Self::Rsi { period }
            | Self::Atr { period }
            | Self::Adx { period } => vec![("period", f64::from(period))],
            Self::Macd { fast, slow, signal } => {
                vec![("fast", f64::from(fast)), ("slow", f64::from(slow)), ("signal", f64::from(signal))]
            }
            Self::Bbands { period, deviations } => vec![("period", f64::from(period)), ("deviations", deviations)],
            Self::Stoch { k, smoothing, d } => vec![("k", f64::from(k)), ("smoothing", f64::from(smoothing)), ("d", f64::from(d))],
            Self::Obv | Self::Vwap => Vec::new(),
        }
    }

    /// What it needs of the bars before a window.
    #[must_use]
    pub fn history(&self) -> History {
        let bars = match *self {
            Self::Sma { period } | Self::Wma { period } | Self::Bbands { period, .. } => period as usize,
            Self::Ema { period } => (EMA_PERIODS + 1) * period as usize,
            Self::Rsi { period } | Self::Atr { period } => (WILDER_PERIODS + 1) * period as usize,
            Self::Adx { period } => (2 * WILDER_PERIODS + 2) * period as usize,
            Self::Macd { slow, signal, .. } => (EMA_PERIODS + 1) * (slow + signal) as usize,
            Self::Stoch { k, smoothing, d } => (k + smoothing + d) as usize,
            Self::Obv => return History::All,
            Self::Vwap => return History::Day,
        };
        History::Bars(bars)
    }

    /// Its lines over these bars, oldest first.
    #[must_use]
    pub fn lines(&self, bars: &[Bar], days: &Days) -> Vec<Line> {
        let prices = Prices::of(bars);
        let (high, low, close) = (&prices.high, &prices.low, &prices.close);
        let (core, n) = (Core::new(), bars.len());
        match *self {
            Self::Sma { period } => one("sma", n, |to, out| core.sma(0, to, close, int(period), out)),
            Self::Ema { period } => one("ema", n, |to, out| core.ema(0, to, close, int(period), out)),
            Self::Wma { period } => one("wma", n, |to, out| core.wma(0, to, close, int(period), out)),
            Self::Rsi { period } => one("rsi", n, |to, out| core.rsi(0, to, close, int(period), out)),
            Self::Macd { fast, slow, signal } => computed(["macd", "signal", "histogram"], n, |to, [macd, line, histogram]| {
                core.macd(0, to, close, int(fast), int(slow), int(signal), macd, line, histogram)
            }),
            Self::Bbands { period, deviations } => computed(["upper", "middle", "lower"], n, |to, [upper, middle, lower]| {
                core.bbands(0, to, close, int(period), deviations, deviations, MAType::SMA, upper, middle, lower)
            }),
            Self::Atr { period } => one("atr", n, |to, out| core.atr(0, to, high, low, close, int(period), out)),
            Self::Adx { period } => one("adx", n, |to, out| core.adx(0, to, high, low, close, int(period), out)),
            Self::Stoch { k, smoothing, d } => computed(["k", "d"], n, |to, [slow_k, slow_d]| {
                core.stoch(0, to, high, low, close, int(k), int(smoothing), MAType::SMA, int(d), MAType::SMA, slow_k, slow_d)
            }),
            Self::Obv => vec![Line { name: "obv", values: on_balance(&core, bars) }],
            Self::Vwap => vec![Line { name: "vwap", values: by_day(&core, bars, days) }],
        }
    }
}

fn int(period: u32) -> i32 {
    i32::try_from(period).unwrap_or(i32::MAX)
}

fn whole(field: &str, given: Option<&str>, usual: u32, least: u32) -> Result<u32, BadParameter> {
    let Some(text) = given else { return Ok(usual) };
    let number = text.parse::<u32>().ok().filter(|number| (least..=PERIOD_MAX).contains(number));
    number.ok_or_else(|| BadParameter::new(field, format!("must be a whole number from {least} to {PERIOD_MAX}")))
}

fn decimal(field: &str, given: Option<&str>, usual: f64, (least, most): (f64, f64)) -> Result<f64, BadParameter> {
    let Some(text) = given else { return Ok(usual) };
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let number = text.parse::<f64>().ok().filter(|number| plain && (least..=most).contains(number));
    number.ok_or_else(|| BadParameter::new(field, format!("must be a number from {least} to {most}")))
}

/// Bars as TA-Lib wants them.
struct Prices {
    high: Vec<f64>,
    low: Vec<f64>,
    close: Vec<f64>,
}

impl Prices {
    fn of<'a>(bars: impl IntoIterator<Item = &'a Bar>) -> Self {
        let mut prices = Self { high: Vec::new(), low: Vec::new(), close: Vec::new() };
        for bar in bars {
            prices.high.push(drawn(bar.high.0));
            prices.low.push(drawn(bar.low.0));
            prices.close.push(drawn(bar.close.0));
        }
        prices
    }
}

fn one(name: &'static str, n: usize, run: impl FnOnce(usize, &mut [f64]) -> Result<OutRange, RetCode>) -> Vec<Line> {
    computed([name], n, |to, [out]| run(to, out))
}

/// Runs one of TA-Lib's functions up to the last of `n` bars and puts what it gives beside the bars that it belongs to.
fn computed<const LINES: usize>(
    names: [&'static str; LINES],
    n: usize,
    run: impl FnOnce(usize, [&mut [f64]; LINES]) -> Result<OutRange, RetCode>,
) -> Vec<Line> {
    let mut buffers = names.map(|_| vec![0.0; n]);
    let range = match n.checked_sub(1) {
        Some(last) => run(last, buffers.each_mut().map(Vec::as_mut_slice)),
        None => Ok(OutRange { beg_idx: 0, count: 0 }),
    };
    // Parameters were checked, so a refusal is a defect of ours: there is no value rather than a wrong one.
    let range = range.unwrap_or_else(|code| {
        tracing::error!(?code, indicator = names.first(), "TA-Lib refuses what was checked");
        OutRange { beg_idx: 0, count: 0 }
    });
    let line = |(name, buffer): (&'static str, &Vec<f64>)| {
        let mut values = vec![None; n];
        for (place, value) in values.iter_mut().skip(range.beg_idx).take(range.count).zip(buffer) {
            *place = Some(*value).filter(|value| value.is_finite());
        }
        Line { name, values }
    };
    names.into_iter().zip(&buffers).map(line).collect()
}

/// On-balance volume of the bars whose volume is known; the others have no value.
fn on_balance(core: &Core, bars: &[Bar]) -> Vec<Option<f64>> {
    let known: Vec<(usize, f64)> = bars.iter().enumerate().filter_map(|(at, bar)| Some((at, drawn_volume(bar.volume?)))).collect();
    let close: Vec<f64> = known.iter().map(|(at, _)| drawn(bars[*at].close.0)).collect();
    let volume: Vec<f64> = known.iter().map(|(_, volume)| *volume).collect();
    let lines = one("obv", known.len(), |to, out| core.obv(0, to, &close, &volume, out));
    spread(bars.len(), &known, lines)
}

/// The volume-weighted price of each day, from the first bar of it that traded anything.
fn by_day(core: &Core, bars: &[Bar], days: &Days) -> Vec<Option<f64>> {
    let mut values = Vec::with_capacity(bars.len());
    let day_of = |at: Millis| days.interval(Timeframe::Day, at).map(|day| day.start);
    for day in bars.chunk_by(|a, b| day_of(a.start) == day_of(b.start)) {
        let traded = |(at, bar): (usize, &Bar)| Some((at, drawn_volume(bar.volume.filter(|volume| *volume > 0)?)));
        let known: Vec<(usize, f64)> = day.iter().enumerate().filter_map(traded).collect();
        let prices = Prices::of(known.iter().map(|(at, _)| &day[*at]));
        let volume: Vec<f64> = known.iter().map(|(_, volume)| *volume).collect();
        let run = |to, out: &mut [f64]| core.vwap(0, to, &prices.high, &prices.low, &prices.close, &volume, out);
        values.extend(spread(day.len(), &known, one("vwap", known.len(), run)));
    }
    values
}

/// Puts a line of some bars back beside all of them.
fn spread(n: usize, known: &[(usize, f64)], lines: Vec<Line>) -> Vec<Option<f64>> {
    let mut values = vec![None; n];
    for ((at, _), value) in known.iter().zip(lines.into_iter().flat_map(|line| line.values)) {
        values[*at] = value;
    }
    values
}
