//! Charts as the daemon has them: their options, their paths of the API.

use std::sync::Arc;

use axum::middleware::from_fn_with_state;
use utoipa_axum::router::OpenApiRouter;

use crate::api::positions::{Answered, Inputs, Reader, arrived};
use crate::api::v1::charts;
use crate::chart::{Bounds, Charts, Days, Options};
use crate::cli::{Exit, Failure, OrExit};
use crate::config::Config;
use crate::log::Topics;

/// Where and how charts are kept; `None` when there are none.
#[must_use]
pub fn chart_options(config: &Config) -> Option<Options> {
    let chart = &config.chart;
    // A configuration that exists has a zone that exists.
    let days = Days::of_zone(&chart.day_zone)?;
    let bounds = Bounds { bars_max: chart.bars_max, symbols_max: chart.symbols_max };
    chart.enabled.then(|| Options { dir: config.chart_dir(), cache_bytes: chart.cache_bytes, bounds, days })
}

/// Starts them, if they are on.
pub(super) fn start(topics: Arc<dyn Topics>, config: &Config) -> Result<Option<Arc<Charts>>, Failure> {
    let Some(options) = chart_options(config) else { return Ok(None) };
    let charts = Charts::start(topics, options);
    Ok(Some(charts.or_exit(Exit::Io, || "cannot start the charts' thread".to_owned())?))
}

/// Their paths of the API.
pub(super) fn area(charts: Arc<Charts>, answered: Arc<Answered>) -> OpenApiRouter {
    let inputs = Inputs::new(Reader::Charts(charts.clone()), answered);
    charts::routes().layer(from_fn_with_state(inputs, arrived)).with_state(charts)
}
