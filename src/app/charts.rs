//! What the configuration says of charts.

use crate::chart::{Bounds, Days, Options};
use crate::config::Config;

/// Where and how charts are kept; `None` when there are none.
#[must_use]
pub fn chart_options(config: &Config) -> Option<Options> {
    let chart = &config.chart;
    // A configuration that exists has a zone that exists.
    let days = Days::of_zone(&chart.day_zone)?;
    let bounds = Bounds { bars_max: chart.bars_max, symbols_max: chart.symbols_max };
    chart.enabled.then(|| Options { dir: config.chart_dir(), cache_bytes: chart.cache_bytes, bounds, days })
}
