//! Bars for those who watch a chart.
//!
//! Invariant: a client is sent every bar that is new or differs from what it was sent, among the newest [`SEEN`] that it knows; a chart
//! is read once a round for all its watchers. Deliberately absent: bars further back that a late trade or a split changes; REST has them.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::ws::Utf8Bytes;
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::hub::{Member, locked};
use super::protocol::{Channel, event};
use crate::api::caller::now;
use crate::api::problem::{ApiCode, Problem};
use crate::api::stopped;
use crate::api::v1::charts::{OhlcvBar, chart_problem};
use crate::chart::{BarView, ChartError, Charts, Timeframe, Window};
use crate::domain::{Millis, Symbol};

/// Bars that are held against what a client was sent.
const SEEN: usize = 16;
/// Bars that a client is sent at once.
const ROUND_MAX: usize = 128;
/// Bars that a resumption may ask for.
pub const RESUME_MAX: usize = 500;
/// A chart is read at most so often.
const REST: Duration = Duration::from_millis(100);
/// A bar also ends without a trade.
const LOOK_EVERY: Duration = Duration::from_secs(1);

type Chart = (Symbol, Timeframe);

struct Watcher {
    member: Arc<Member>,
    /// The newest that it was sent, oldest first.
    seen: Vec<BarView>,
}

/// The charts that somebody watches.
pub struct BarsFeed {
    charts: Arc<Charts>,
    watched: Mutex<HashMap<Chart, Vec<Watcher>>>,
}

/// A bar as it is sent.
#[derive(Serialize)]
struct Sent {
    symbol: String,
    timeframe: &'static str,
    bar: OhlcvBar,
}

fn message((symbol, timeframe): Chart, bar: &BarView, newest: Millis) -> Utf8Bytes {
    let sent = Sent { symbol: symbol.to_string(), timeframe: timeframe.as_str(), bar: OhlcvBar::from(bar) };
    let data = serde_json::to_string(&sent).unwrap_or_else(|_| "null".to_owned());
    event(Channel::Bars(symbol, timeframe), &newest.to_string(), &data)
}

impl BarsFeed {
    /// Nobody watches yet.
    #[must_use]
    pub fn new(charts: Arc<Charts>) -> Self {
        Self { charts, watched: Mutex::default() }
    }

    /// The bars that a subscription begins with: the newest, or all since one.
    ///
    /// # Errors
    /// There are none, or not all of them any more.
    pub async fn begin(&self, (symbol, timeframe): Chart, resume: Option<Millis>) -> Result<Vec<BarView>, Problem> {
        let window = match resume {
            None => Window { start: None, end: None, limit: SEEN, adjusted: true },
            Some(from) => Window { start: Some(from), end: None, limit: RESUME_MAX, adjusted: true },
        };
        let charts = self.charts.clone();
        let read = tokio::task::spawn_blocking(move || charts.bars(&symbol, timeframe, &window, now())).await;
        let page = read.map_err(|_| Problem::new(ApiCode::Internal, "the chart could not be read"))?;
        let page = page.map_err(|error| chart_problem(&error))?;
        // The bar of a position is kept as long as all that came after it.
        let is_kept = |from: Millis| from == 0 || page.bars.first().is_some_and(|first| first.start == from);
        if page.next.is_some() || resume.is_some_and(|from| !is_kept(from)) {
            let what = "the bars since then are too many or not kept any more: subscribe without resume, and read them from /chart";
            return Err(Problem::new(ApiCode::PositionNotKept, what).field("resume"));
        }
        Ok(page.bars)
    }

    /// A client that is told these bars hears of what changes from now on. Gives the position, and the messages of the bars: of a
    /// subscription that does not resume only the newest.
    pub fn join(&self, chart: Chart, member: &Arc<Member>, bars: &[BarView], resumes: bool) -> (String, Vec<Utf8Bytes>) {
        let newest = bars.last().map_or(0, |bar| bar.start);
        let told = if resumes { bars } else { &bars[bars.len().saturating_sub(1)..] };
        let messages = told.iter().map(|bar| message(chart, bar, bar.start)).collect();
        let seen = bars[bars.len().saturating_sub(SEEN)..].to_vec();
        locked(&self.watched).entry(chart).or_default().push(Watcher { member: member.clone(), seen });
        (newest.to_string(), messages)
    }

    /// Ends [`BarsFeed::join`].
    pub fn leave(&self, chart: Chart, member: u64) {
        let mut watched = locked(&self.watched);
        if let Some(watchers) = watched.get_mut(&chart) {
            watchers.retain(|watcher| watcher.member.id != member);
            if watchers.is_empty() {
                watched.remove(&chart);
            }
        }
    }

    /// Reads and hands on until the daemon stops.
    pub async fn run(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let mut changes = self.charts.changes();
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stopped(&mut stop) => return,
                Ok(()) = changes.changed() => {}
                _ = ticks.tick() => {}
            }
            let wanted = self.wanted();
            if !wanted.is_empty() {
                let feed = self.clone();
                if tokio::task::spawn_blocking(move || feed.round(&wanted)).await.is_err() {
                    tracing::error!("watched charts could not be read");
                }
            }
            sleep(REST).await;
        }
    }

    /// The watched charts, each with the bar from which on they are to be read.
    fn wanted(&self) -> Vec<(Chart, Millis)> {
        let from = |watcher: &Watcher| watcher.seen.first().map_or(0, |bar| bar.start);
        let earliest = |watchers: &[Watcher]| watchers.iter().map(from).min().unwrap_or(0);
        locked(&self.watched).iter().map(|(chart, watchers)| (*chart, earliest(watchers))).collect()
    }

    fn round(&self, wanted: &[(Chart, Millis)]) {
        for (chart, from) in wanted {
            let window = Window { start: Some(*from), end: None, limit: RESUME_MAX, adjusted: true };
            match self.charts.bars(&chart.0, chart.1, &window, now()) {
                Ok(page) => self.show(*chart, &page.bars),
                // They come back when they are drawn again.
                Err(ChartError::UnknownSymbol | ChartError::Unavailable { .. }) => {}
            }
        }
    }

    fn show(&self, chart: Chart, bars: &[BarView]) {
        let mut watched = locked(&self.watched);
        let mut written: BTreeMap<(Millis, Millis), Utf8Bytes> = BTreeMap::new();
        for watcher in watched.get_mut(&chart).into_iter().flatten() {
            for (bar, newest) in unseen(&mut watcher.seen, bars) {
                let message = written.entry((bar.start, newest)).or_insert_with(|| message(chart, &bar, newest));
                watcher.member.outbox.push(message.clone());
            }
        }
    }
}

/// The bars that differ from what was seen, each with the newest bar's beginning after it; they are seen then. Of new ones only some at once.
fn unseen(seen: &mut Vec<BarView>, bars: &[BarView]) -> Vec<(BarView, Millis)> {
    let first = seen.first().map_or(Millis::MIN, |bar| bar.start);
    let mut newest = seen.last().map_or(Millis::MIN, |bar| bar.start);
    let mut sent = Vec::new();
    for bar in bars.iter().filter(|bar| bar.start >= first) {
        if sent.len() >= ROUND_MAX {
            break;
        }
        match seen.binary_search_by_key(&bar.start, |known| known.start) {
            Ok(place) if seen[place] == *bar => continue,
            Ok(place) => seen[place] = *bar,
            Err(place) => seen.insert(place, *bar),
        }
        newest = newest.max(bar.start);
        sent.push((*bar, newest));
    }
    let surplus = seen.len().saturating_sub(SEEN);
    seen.drain(..surplus);
    sent
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(start: Millis, close: f64) -> BarView {
        let (open, high, low) = (close, close, close);
        BarView { start, open, high, low, close, volume: None, trades: 1, published: false, in_progress: false }
    }

    fn starts(sent: &[(BarView, Millis)]) -> Vec<(Millis, Millis)> {
        sent.iter().map(|(bar, newest)| (bar.start, *newest)).collect()
    }

    #[test]
    fn what_changed_and_what_is_new_is_sent_once() {
        let mut seen = vec![bar(1, 1.0), bar(2, 1.0)];
        assert!(unseen(&mut seen, &[bar(1, 1.0), bar(2, 1.0)]).is_empty());
        let sent = unseen(&mut seen, &[bar(1, 1.5), bar(2, 2.0), bar(3, 1.0)]);
        assert_eq!(starts(&sent), [(1, 2), (2, 2), (3, 3)], "a late change has the position of the newest");
        assert!(unseen(&mut seen, &[bar(1, 1.5), bar(2, 2.0), bar(3, 1.0)]).is_empty());
    }

    #[test]
    fn a_history_comes_in_parts_and_whole() {
        let all: Vec<BarView> = (0..300).map(|start| bar(start, 1.0)).collect();
        let (mut seen, mut got) = (Vec::new(), Vec::new());
        for _ in 0..4 {
            got.extend(unseen(&mut seen, &all));
            assert!(seen.len() <= SEEN);
        }
        assert_eq!(got.iter().map(|(bar, _)| bar.start).collect::<Vec<_>>(), (0..300).collect::<Vec<_>>());
    }
}
