//! What is asked of charts: a window of bars, and an indicator over one.
//!
//! Invariant: a window is half-open and its pages follow each other without a gap or a repeat. An indicator is computed from so many
//! bars before the window that its values do not depend on where the window begins. The bar in the making is marked, by the clock that
//! is given. Deliberately absent: HTTP, and a clock of its own.

use crate::domain::{Millis, Symbol, UNITS_PER_ONE};

use super::bar::{Bar, Origin};
use super::indicators::{History, Indicator, Line};
use super::projection::{ChunkPlace, Projection};
use super::series::Series;
use super::store::{Store, StoreError};
use super::timeframe::Timeframe;
use super::{ChartError, Charts, Shared, State};

/// The part of a series that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Bars that begin here or later. Without it: the newest ones.
    pub start: Option<Millis>,
    /// Bars that begin before this.
    pub end: Option<Millis>,
    /// At most so many bars.
    pub limit: usize,
    /// Whether splits restate what was before them.
    pub adjusted: bool,
}

/// A bar as it is shown.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BarView {
    /// Where the interval begins.
    pub start: Millis,
    /// The first price.
    pub open: f64,
    /// The highest price.
    pub high: f64,
    /// The lowest price.
    pub low: f64,
    /// The last price.
    pub close: f64,
    /// How much was traded; `None` when nobody said.
    pub volume: Option<f64>,
    /// How many trades made it; 0 of a published one.
    pub trades: u64,
    /// Whether somebody published it; else it is made of trades.
    pub published: bool,
    /// Whether its interval has not ended yet.
    pub in_progress: bool,
}

/// Bars, oldest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// The bars.
    pub bars: Vec<BarView>,
    /// Where the next page of the window begins, if there is one.
    pub next: Option<Millis>,
    /// Records of the log that are not drawn yet.
    pub lag_records: u64,
}

/// The points of one line: time and value, without those that have none.
pub type LinePoints = Vec<(Millis, f64)>;

/// An indicator's lines over a page of bars.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct IndicatorPage {
    /// Each line's name and points.
    pub lines: Vec<(&'static str, LinePoints)>,
    /// The bar that has not ended yet, if it is on the page: values at it still change.
    pub in_progress: Option<Millis>,
    /// Where the next page of the window begins, if there is one.
    pub next: Option<Millis>,
    /// Records of the log that are not drawn yet.
    pub lag_records: u64,
}

impl Charts {
    /// The bars of a window; those whose interval contains `now` or lies after it are in the making.
    ///
    /// # Errors
    /// Nobody ever said anything of the symbol, or the bars cannot be had now.
    pub fn bars(&self, symbol: &Symbol, timeframe: Timeframe, window: &Window, now: Millis) -> Result<Page, ChartError> {
        let shared = &*self.shared;
        shared.reading(symbol, timeframe, |reading| {
            let (bars, next) = reading.page(window)?;
            let bars = bars.iter().map(|bar| shared.view(bar, timeframe, now)).collect();
            Ok(Page { bars, next, lag_records: shared.lag() })
        })
    }

    /// The newest bar, if there is one.
    ///
    /// # Errors
    /// As [`Charts::bars`].
    pub fn newest(&self, symbol: &Symbol, timeframe: Timeframe, now: Millis) -> Result<Option<BarView>, ChartError> {
        let window = Window { start: None, end: None, limit: 1, adjusted: true };
        Ok(self.bars(symbol, timeframe, &window, now)?.bars.pop())
    }

    /// An indicator over a window of bars.
    ///
    /// # Errors
    /// As [`Charts::bars`].
    pub fn indicator(
        &self,
        symbol: &Symbol,
        timeframe: Timeframe,
        window: &Window,
        indicator: &Indicator,
        now: Millis,
    ) -> Result<IndicatorPage, ChartError> {
        let shared = &*self.shared;
        let gathered = shared.reading(symbol, timeframe, |reading| {
            let (page, next) = reading.page(window)?;
            let before = match page.first() {
                Some(first) => reading.history(first.start, indicator.history(), window.adjusted)?,
                None => Vec::new(),
            };
            Ok((before, page, next))
        });
        // Computed when the bars are let go of, so that nothing waits for it.
        let (mut bars, page, next) = gathered?;
        let skip = bars.len();
        bars.extend(&page);
        let lines = indicator.lines(&bars, &shared.days).into_iter().map(|line| points_of(&line, &bars, skip)).collect();
        let newest = page.last().map(|bar| shared.view(bar, timeframe, now));
        let in_progress = newest.filter(|bar| bar.in_progress).map(|bar| bar.start);
        Ok(IndicatorPage { lines, in_progress, next, lag_records: shared.lag() })
    }
}

fn points_of(line: &Line, bars: &[Bar], skip: usize) -> (&'static str, LinePoints) {
    let shown = bars.iter().zip(&line.values).skip(skip);
    (line.name, shown.filter_map(|(bar, value)| Some((bar.start, (*value)?))).collect())
}

/// A number of ours as a chart draws it.
pub(super) fn drawn(units: i64) -> f64 {
    units as f64 / UNITS_PER_ONE as f64
}

/// A volume of ours as a chart draws it.
pub(super) fn drawn_volume(units: i128) -> f64 {
    units as f64 / UNITS_PER_ONE as f64
}

impl Shared {
    fn lag(&self) -> u64 {
        self.lag.load(std::sync::atomic::Ordering::Relaxed)
    }

    fn view(&self, bar: &Bar, timeframe: Timeframe, now: Millis) -> BarView {
        let interval = self.days.interval(timeframe, bar.start);
        BarView {
            start: bar.start,
            open: drawn(bar.open.0),
            high: drawn(bar.high.0),
            low: drawn(bar.low.0),
            close: drawn(bar.close.0),
            volume: bar.volume.map(drawn_volume),
            trades: bar.trades,
            published: matches!(bar.origin, Origin::Published(_)),
            in_progress: interval.is_none_or(|interval| interval.end > now),
        }
    }

    /// Lends the series of a symbol. What is found damaged on the way is told to the thread, which rebuilds.
    fn reading<T>(
        &self,
        symbol: &Symbol,
        timeframe: Timeframe,
        read: impl FnOnce(&Reading<'_>) -> Result<T, StoreError>,
    ) -> Result<T, ChartError> {
        let state = self.state();
        let (projection, store) = match &*state {
            State::Away { why } => return Err(ChartError::Unavailable { why: why.clone() }),
            State::Here { projection, store } => (projection, store),
        };
        let (number, bars) = projection.find(symbol).ok_or(ChartError::UnknownSymbol)?;
        let place = ChunkPlace { symbol: number, timeframe };
        let reading = Reading { projection, store, symbol, place, series: &bars.series[timeframe.place()] };
        read(&reading).map_err(|error| {
            self.doubts(error.to_string());
            ChartError::Unavailable { why: "they are being rebuilt from the log".to_owned() }
        })
    }
}

/// A series that is lent.
struct Reading<'a> {
    projection: &'a Projection,
    store: &'a Store,
    symbol: &'a Symbol,
    place: ChunkPlace,
    series: &'a Series,
}

impl Reading<'_> {
    /// The bars of a window, and where its next page begins.
    fn page(&self, window: &Window) -> Result<(Vec<Bar>, Option<Millis>), StoreError> {
        let end = window.end.unwrap_or(Millis::MAX);
        let Some(start) = window.start else {
            return Ok((self.last_before(end, window.limit, window.adjusted)?, None));
        };
        let most = window.limit.saturating_add(1);
        let mut bars =
            self.series.range((start, end), most, self.projection.bounds.bars_max, &|chunk| self.store.chunk(self.place, chunk))?;
        let next = bars.get(window.limit).map(|bar| bar.start);
        bars.truncate(window.limit);
        self.restate(&mut bars, window.adjusted);
        Ok((bars, next))
    }

    /// What an indicator needs of the bars before `start`.
    fn history(&self, start: Millis, history: History, adjusted: bool) -> Result<Vec<Bar>, StoreError> {
        match history {
            History::Bars(count) => self.last_before(start, count, adjusted),
            History::All => self.last_before(start, usize::MAX, adjusted),
            History::Day => {
                let day = self.projection.days.interval(Timeframe::Day, start).map_or(start, |day| day.start);
                let bars_max = self.projection.bounds.bars_max;
                let mut bars = self.series.range((day, start), usize::MAX, bars_max, &|chunk| self.store.chunk(self.place, chunk))?;
                self.restate(&mut bars, adjusted);
                Ok(bars)
            }
        }
    }

    fn last_before(&self, end: Millis, count: usize, adjusted: bool) -> Result<Vec<Bar>, StoreError> {
        let bars_max = self.projection.bounds.bars_max;
        let mut bars = self.series.last_before(end, count, bars_max, &|chunk| self.store.chunk(self.place, chunk))?;
        self.restate(&mut bars, adjusted);
        Ok(bars)
    }

    fn restate(&self, bars: &mut Vec<Bar>, adjusted: bool) {
        if adjusted {
            self.projection.splits.restate(self.symbol, bars);
        }
    }
}
