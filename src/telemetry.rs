//! Metrics and logging: every metric's name, kind, unit and meaning, the recorder behind `/metrics`, and the log on standard error.
//!
//! Invariant: a metric that is not in [`METRICS`] does not exist; names follow Prometheus's conventions (a test lints them and what
//! is rendered). Deliberately absent: an HTTP server (the API renders), the fold (it knows no metrics), and secrets.

use std::collections::BTreeMap;
use std::io::IsTerminal;

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use thiserror::Error;
use tikv_jemalloc_ctl as jemalloc;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, reload};

use crate::domain::{Decision, Effects, Output};

/// What kind of metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MetricKind {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
    /// A distribution, with the upper bounds of its buckets.
    Histogram(&'static [f64]),
}

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// Its kind.
    pub kind: MetricKind,
    /// Its unit.
    pub unit: Unit,
    /// What it tells, with its labels.
    pub about: &'static str,
}

const FAST: &[f64] = &[1e-6, 2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 1e-2, 0.1];
const SLOW: &[f64] = &[5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0];
const COUNTS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];
const SIZES: &[f64] = &[256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262_144.0, 524_288.0, 1_048_576.0];

macro_rules! metrics {
    ($($constant:ident = $name:literal, $kind:expr, $unit:ident, $about:literal;)+) => {
        $(#[doc = concat!("`", $name, "`: ", $about)] pub const $constant: &str = $name;)+

        /// Every metric of ours, beside those of the process.
        pub const METRICS: &[Metric] = &[$(Metric { name: $constant, kind: $kind, unit: Unit::$unit, about: $about },)+];
    };
}

use MetricKind::{Counter, Gauge, Histogram};

metrics! {
    BUILD_INFO = "ordergate_build_info", Gauge, Count, "Always 1; labels: version.";
    RECORDS = "ordergate_records_total", Counter, Count, "Records applied; labels: topic.";
    DECISIONS = "ordergate_decisions_total", Counter, Count, "Decisions; labels: verdict, code (of the first reason, or NONE).";
    REASONS = "ordergate_decision_reasons_total", Counter, Count, "Reasons that decisions cite; labels: code.";
    COMMANDS = "ordergate_commands_total", Counter, Count, "Commands sent; labels: command.";
    NOTIFICATIONS = "ordergate_notifications_total", Counter, Count, "Notifications raised; labels: code, priority.";
    DEAD_LETTERS = "ordergate_dead_letters_total", Counter, Count, "Records refused; labels: code.";
    PRICES_DROPPED = "ordergate_prices_dropped_total", Counter, Count, "Prices of undefined symbols, dropped.";
    EVALUATION_SECONDS = "ordergate_evaluation_seconds", Histogram(FAST), Seconds, "The time to apply one record.";
    COMMIT_SECONDS = "ordergate_commit_seconds", Histogram(SLOW), Seconds, "The time from a frame's append to its acknowledgement.";
    FRAME_RECORDS = "ordergate_frame_records", Histogram(COUNTS), Count, "Records in a frame.";
    FRAME_BYTES = "ordergate_frame_size_bytes", Histogram(SIZES), Bytes, "The length of a frame.";
    FRAMES_IN_FLIGHT = "ordergate_frames_in_flight", Gauge, Count, "Frames that wait for their acknowledgement; labels: shard.";
    COMMIT_STALLS = "ordergate_commit_stalls_total", Counter, Count, "Times that a frame was not acknowledged in time.";
    SOURCE_LAG_RECORDS = "ordergate_source_lag_records", Gauge, Count, "Records not yet applied; labels: shard, topic, partition.";
    SOURCE_LAG_SECONDS = "ordergate_source_lag_seconds", Gauge, Seconds, "The age of the last record applied; labels: shard, topic, partition.";
    RULE_UTILIZATION = "ordergate_rule_utilization_ratio", Gauge, Percent,
        "How much of its limit a rule measures, of accounts that are over warn_at; labels: account, rule.";
    ACCOUNTS = "ordergate_accounts", Gauge, Count, "Accounts that were opened.";
    LEDGER_SEQUENCE = "ordergate_ledger_sequence", Gauge, Count, "The number of records applied; labels: shard.";
    LEDGER_TERM = "ordergate_ledger_term", Gauge, Count, "The term of the last claim; labels: shard.";
    LEDGER_FRAMES = "ordergate_ledger_frames", Gauge, Count, "The number of frames that count; labels: shard.";
    OWNED = "ordergate_shard_owned", Gauge, Count, "1 while this process owns the shard; labels: shard.";
    SHARDS = "ordergate_shards", Gauge, Count, "The number of shards: the partitions of orders.intents.";
    LEDGER_LAG = "ordergate_ledger_lag_frames", Gauge, Count, "Ledger entries that are not folded yet; labels: shard.";
    OUTPUT_WAITING = "ordergate_output_waiting_seconds", Gauge, Seconds, "How long outputs have waited without any acknowledgement; 0 when none waits; labels: shard.";
    INPUT_QUEUE = "ordergate_input_queue_records", Gauge, Count, "Records that were fetched and are not applied yet; labels: shard.";
    CLOCK_SKEW = "ordergate_clock_skew_seconds", Gauge, Seconds, "This machine's clock less the brokers', as the last append told it.";
    DATA_DIR_FREE = "ordergate_data_dir_free_bytes", Gauge, Bytes, "Bytes that are free on the data directory's disk.";
    DATA_DIR_SIZE = "ordergate_data_dir_size_bytes", Gauge, Bytes, "The size of the data directory's disk.";
    ASSIGNED = "ordergate_shard_assigned", Gauge, Count, "1 while the group gives the shard to this process; labels: shard.";
    TAKEOVERS = "ordergate_takeovers_total", Counter, Count, "Times that this process became a shard's owner; labels: shard.";
    SHARD_REFUSING = "ordergate_shard_refusing", Gauge, Count, "1 while the shard refuses to go on until someone looks; labels: shard.";
    VOID_ENTRIES = "ordergate_ledger_void_entries", Gauge, Count, "Ledger entries that were read and do not count, since the start; labels: shard.";
    UNSAFE = "ordergate_unsafe_mode", Gauge, Count, "1 when it runs on topics whose settings break a guarantee.";
    REPLAY_DRIFT = "ordergate_replay_drift_total", Counter, Count, "Decisions that a refold derived otherwise than recorded. Anything but 0 is an alarm.";
    OUTPUTS_REPUBLISHED = "ordergate_outputs_republished_total", Counter, Count, "Outputs that a recovery found missing and published; labels: topic.";
    RECOVERY_SECONDS = "ordergate_recovery_seconds", Gauge, Seconds, "How long the last recovery took, from the claim to the first decision; labels: shard.";
    SNAPSHOT_AGE_SECONDS = "ordergate_snapshot_age_seconds", Gauge, Seconds, "The time since the last snapshot; labels: shard.";
    SNAPSHOT_LAG_RECORDS = "ordergate_snapshot_lag_records", Gauge, Count, "Records applied since the last snapshot; labels: shard.";
    SNAPSHOTS = "ordergate_snapshots_total", Counter, Count, "Snapshots; labels: result.";
    SNAPSHOT_SECONDS = "ordergate_snapshot_seconds", Histogram(SLOW), Seconds, "The time to write a snapshot.";
    SNAPSHOT_BYTES = "ordergate_snapshot_written_bytes_total", Counter, Bytes, "Bytes written to snapshots.";
    SNAPSHOTS_BROKEN = "ordergate_snapshots_broken_total", Counter, Count, "Snapshot folders that were moved aside.";
    CHART_BARS = "ordergate_chart_bars", Gauge, Count, "Bars of charts that are kept.";
    CHART_LAG_RECORDS = "ordergate_chart_lag_records", Gauge, Count, "Records of market.prices that charts have not read yet; all of them while charts cannot be shown.";
    CHART_UNAVAILABLE = "ordergate_chart_unavailable", Gauge, Count, "1 while charts cannot be shown (503), as when their cache cannot be kept.";
    CHART_RECORDS = "ordergate_chart_records_total", Counter, Count,
        "Records that charts read; labels: result (trade, bar: drawn; too_old, crowded, ignored: not).";
    CHART_REBUILDS = "ordergate_chart_rebuilds_total", Counter, Count, "Times that the charts' cache was given up and rebuilt from the log.";
    KAFKA_CLIENTS_LOST = "ordergate_kafka_clients_lost_total", Counter, Count, "Kafka clients that had forgotten their brokers, fallen silent or failed for good.";
    KAFKA_REBALANCES_FORCED = "ordergate_kafka_rebalances_forced_total", Counter, Count, "Times that shards which the group had given to nobody made it assign anew.";
    KAFKA_ERRORS = "ordergate_kafka_errors_total", Counter, Count, "Errors that Kafka clients told; labels: code.";
    REPLICA_BROKEN = "ordergate_replica_broken", Gauge, Count, "1 when the replica derived something else than what was recorded, or cannot read its ledger; labels: shard.";
    NOTIFY_DELIVERIES = "ordergate_notify_deliveries_total", Counter, Count, "Deliveries of notifications; labels: channel, result (sent, retried, held, refused, expired, unwanted, lost, dropped).";
    NOTIFY_DELIVERY_SECONDS = "ordergate_notify_delivery_seconds", Histogram(SLOW), Seconds, "The time from a notification's record to its delivery; labels: channel.";
    NOTIFY_PENDING = "ordergate_notify_pending_deliveries", Gauge, Count, "Deliveries that are not settled, held ones included.";
    NOTIFY_HELD = "ordergate_notify_held_deliveries", Gauge, Count, "Deliveries that wait for a digest.";
    NOTIFY_DOWN = "ordergate_notify_down_receivers", Gauge, Count, "Servers, webhooks and devices that the last attempt found down; labels: channel.";
    DIRECTORY_ENTITIES = "ordergate_directory_entities", Gauge, Count, "Entities of the directory: users, tokens, keys and the like.";
    DIRECTORY_GARBAGE = "ordergate_directory_garbage_records", Gauge, Count, "Records of gate.directory that are of no use and not tombstoned.";
    DIRECTORY_AGE = "ordergate_directory_age_seconds", Gauge, Seconds, "The time since gate.directory was read to its end.";
    DIRECTORY_REFUSED = "ordergate_directory_refused_total", Counter, Count, "Records of gate.directory that are none; labels: code.";
    AUDIT_RECORDS = "ordergate_audit_records_total", Counter, Count, "Records appended to gate.audit; labels: result.";
    AUDIT_SEQUENCE = "ordergate_audit_sequence", Gauge, Count, "The sequence of the head that was published last; labels: chain.";
    AUDIT_HEAD = "ordergate_audit_head", Gauge, Count, "The first 48 bits of the head that was published last, as a number; labels: chain.";
    HTTP_REQUESTS = "ordergate_http_requests_total", Counter, Count, "Requests answered; labels: method, path, status.";
    HTTP_REQUEST_SECONDS = "ordergate_http_request_seconds", Histogram(SLOW), Seconds, "The time to answer a request; labels: path.";
    HTTP_CONNECTIONS = "ordergate_http_connections", Gauge, Count, "Open connections; labels: listener (its port).";
    HEAP_ALLOCATED = "ordergate_heap_allocated_bytes", Gauge, Bytes, "Bytes that live on the heap, of Rust and C alike.";
    HEAP_RESIDENT = "ordergate_heap_resident_bytes", Gauge, Bytes, "Bytes of memory that the heap takes, with what it keeps to give again.";
    HTTP_STREAMS = "ordergate_http_streams", Gauge, Count, "Followers of topics.";
    WS_CONNECTIONS = "ordergate_ws_connections", Gauge, Count, "Open WebSockets.";
    WS_SUBSCRIPTIONS = "ordergate_ws_subscriptions", Gauge, Count, "Subscriptions over WebSockets; labels: channel (its kind).";
    WS_MESSAGES = "ordergate_ws_messages_total", Counter, Count, "Messages written to WebSockets.";
    WS_DELIVERY_SECONDS = "ordergate_ws_delivery_seconds", Histogram(SLOW), Seconds, "The time from an event's arrival at the hub until it is written to a WebSocket.";
    WS_CLOSED = "ordergate_ws_closed_total", Counter, Count, "WebSockets that ended; labels: reason (client: it left by itself).";
    VAULT_LOCKED = "ordergate_vault_locked", Gauge, Count, "1 while the master key does not open the newest key-encryption key, or is none.";
    VAULT_UNOPENED = "ordergate_vault_unopened_secrets", Gauge, Count, "Secrets that did not open when all were last opened, once an hour or by `vault verify`.";
    VAULT_OPERATIONS = "ordergate_vault_operations_total", Counter, Count, "Operations on broker keys; labels: operation, result.";
    VAULT_REWRAPPED = "ordergate_vault_rewrapped_total", Counter, Count, "Secrets moved under a newer key-encryption key.";
}

/// Describes every metric to the recorder in place.
pub fn describe_all() {
    for metric in METRICS {
        match metric.kind {
            Counter => describe_counter!(metric.name, metric.unit, metric.about),
            Gauge => describe_gauge!(metric.name, metric.unit, metric.about),
            Histogram(_) => describe_histogram!(metric.name, metric.unit, metric.about),
        }
    }
    gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    // An alarm on a counter that never was is blind: the ones that should stay 0 exist from the start.
    for name in [REPLAY_DRIFT, COMMIT_STALLS, SNAPSHOTS_BROKEN, PRICES_DROPPED, CHART_REBUILDS] {
        counter!(name).absolute(0);
    }
}

/// Why metrics or logging could not be set up.
#[derive(Debug, Error)]
pub enum TelemetryError {
    /// There is a recorder already, or its settings are wrong.
    #[error("cannot set up metrics: {0}")]
    Recorder(#[from] BuildError),
    /// There is a logger already.
    #[error("cannot set up logging: {0}")]
    Logger(#[from] tracing_subscriber::util::TryInitError),
    /// The logger is gone.
    #[error("cannot change the log level: {0}")]
    Level(#[from] reload::Error),
}

/// What `/metrics` renders.
#[derive(Clone, Debug)]
pub struct Recorder {
    handle: PrometheusHandle,
    process: metrics_process::Collector,
}

impl Recorder {
    /// Puts the recorder in place for the whole process.
    pub fn install() -> Result<Self, TelemetryError> {
        let handle = builder()?.install_recorder()?;
        Ok(Self::of(handle))
    }

    fn of(handle: PrometheusHandle) -> Self {
        let process = metrics_process::Collector::default();
        process.describe();
        describe_all();
        Self { handle, process }
    }

    /// The metrics in Prometheus's text format; content type `text/plain; version=0.0.4`.
    #[must_use]
    pub fn render(&self) -> String {
        self.process.collect();
        show_heap();
        self.handle.render()
    }

    /// Folds what histograms have gathered. Call it every few seconds, or memory grows with every measurement.
    pub fn run_upkeep(&self) {
        self.handle.run_upkeep();
    }
}

/// What the heap holds: growth of the first is a leak, growth of the second alone is memory that was not given back.
fn show_heap() {
    // The allocator's figures stand still until they are asked to move.
    if jemalloc::epoch::advance().is_err() {
        return;
    }
    for (name, bytes) in [(HEAP_ALLOCATED, jemalloc::stats::allocated::read()), (HEAP_RESIDENT, jemalloc::stats::resident::read())] {
        if let Ok(bytes) = bytes {
            gauge!(name).set(bytes as f64);
        }
    }
}

/// A recorder that is not in place, for tests: `metrics::with_local_recorder`.
pub fn local_recorder() -> Result<PrometheusRecorder, TelemetryError> {
    Ok(builder()?.build_recorder())
}

fn builder() -> Result<PrometheusBuilder, BuildError> {
    METRICS.iter().try_fold(PrometheusBuilder::new(), |builder, metric| match metric.kind {
        Histogram(bounds) => builder.set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), bounds),
        Counter | Gauge => Ok(builder),
    })
}

/// Counts the outputs of a frame that was committed.
pub fn count_outputs(effects: &Effects) {
    for output in &effects.outputs {
        match output {
            Output::Decision(decision) => count_decision(decision, effects),
            Output::CancelOrders(_) => counter!(COMMANDS, "command" => "cancel_orders").increment(1),
            Output::ClosePosition(_) => counter!(COMMANDS, "command" => "close_position").increment(1),
            Output::Notification(it) => {
                counter!(NOTIFICATIONS, "code" => it.code.as_str(), "priority" => it.priority.as_str()).increment(1);
            }
            Output::DeadLetter(letter) => counter!(DEAD_LETTERS, "code" => letter.code.as_str()).increment(1),
        }
    }
}

fn count_decision(decision: &Decision, effects: &Effects) {
    let reasons = effects.reasons_of(decision);
    let code = reasons.iter().find(|reason| !reason.observed && !reason.exempt).map_or("NONE", |reason| reason.code.as_str());
    counter!(DECISIONS, "verdict" => decision.verdict.as_str(), "code" => code).increment(1);
    for reason in reasons {
        counter!(REASONS, "code" => reason.code.as_str()).increment(1);
    }
}

/// The gauges of rules over their warning: those that fall below it read 0.
#[derive(Debug, Default)]
pub struct UtilizationGauges {
    shown: BTreeMap<(String, String), f64>,
}

impl UtilizationGauges {
    /// At most this many pairs of account and rule are shown, the fullest first.
    pub const SHOWN_MAX: usize = 1_000;

    /// Shows these, as (account, rule, utilisation).
    pub fn show(&mut self, over: impl IntoIterator<Item = (String, String, f64)>) {
        let mut over: Vec<_> = over.into_iter().collect();
        over.sort_by(|a, b| b.2.total_cmp(&a.2).then_with(|| (&a.0, &a.1).cmp(&(&b.0, &b.1))));
        over.truncate(Self::SHOWN_MAX);
        let now: BTreeMap<_, _> = over.into_iter().map(|(account, rule, value)| ((account, rule), value)).collect();
        for (account, rule) in self.shown.keys().filter(|pair| !now.contains_key(*pair)) {
            gauge!(RULE_UTILIZATION, "account" => account.clone(), "rule" => rule.clone()).set(0.0);
        }
        for ((account, rule), value) in &now {
            gauge!(RULE_UTILIZATION, "account" => account.clone(), "rule" => rule.clone()).set(*value);
        }
        self.shown = now;
    }
}

/// Changes the log level of a running process.
#[derive(Clone, Debug)]
pub struct LogControl(reload::Handle<LevelFilter, Registry>);

impl LogControl {
    /// Logs `level` and above from now on.
    pub fn set_level(&self, level: tracing::Level) -> Result<(), TelemetryError> {
        self.0.reload(LevelFilter::from_level(level))?;
        Ok(())
    }
}

/// Starts logging to standard error: `level` and above, one JSON object a line when `json`.
pub fn init_logging(level: tracing::Level, json: bool) -> Result<LogControl, TelemetryError> {
    let (filter, handle) = reload::Layer::new(LevelFilter::from_level(level));
    let lines = if json {
        tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(std::io::stderr).boxed()
    } else {
        let colours = std::io::stderr().is_terminal();
        tracing_subscriber::fmt::layer().with_ansi(colours).with_writer(std::io::stderr).boxed()
    };
    tracing_subscriber::registry().with(filter).with(lines).try_init()?;
    Ok(LogControl(handle))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use metrics::histogram;

    use super::*;

    fn rendered(record: impl FnOnce()) -> String {
        let recorder = local_recorder().unwrap();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, || {
            let ours = Recorder::of(handle);
            for metric in METRICS {
                match metric.kind {
                    Counter => counter!(metric.name).increment(1),
                    Gauge => gauge!(metric.name).set(1.0),
                    Histogram(_) => histogram!(metric.name).record(0.001),
                }
            }
            record();
            ours.run_upkeep();
            ours.render()
        })
    }

    #[test]
    fn names_follow_the_conventions() {
        let mut seen = BTreeSet::new();
        for Metric { name, kind, unit, about } in METRICS {
            assert!(seen.insert(name), "{name} twice");
            assert!(name.starts_with("ordergate_") && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
            assert_eq!(name.ends_with("_total"), *kind == Counter, "{name}");
            assert!(about.ends_with('.') && about.len() > 10, "{name}");
            let base = name.trim_end_matches("_total");
            assert_eq!(base.ends_with("_seconds"), *unit == Unit::Seconds, "{name}");
            assert_eq!(base.ends_with("_bytes"), *unit == Unit::Bytes, "{name}");
            for word in name.split('_') {
                let forbidden = [
                    "ms",
                    "millis",
                    "milliseconds",
                    "us",
                    "minutes",
                    "kb",
                    "mb",
                    "gauge",
                    "counter",
                    "histogram",
                    "summary",
                    "count",
                    "sum",
                    "bucket",
                ];
                assert!(!forbidden.contains(&word), "{name}");
            }
        }
    }

    #[test]
    fn everything_that_is_rendered_has_help_and_type_once() {
        let text = rendered(|| {});
        for Metric { name, kind, .. } in METRICS {
            let kind = match kind {
                Counter => "counter",
                Gauge => "gauge",
                Histogram(_) => "histogram",
            };
            assert_eq!(text.matches(&format!("# TYPE {name} {kind}\n")).count(), 1, "{name}\n{text}");
            assert_eq!(text.matches(&format!("# HELP {name} ")).count(), 1, "{name}");
        }
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let name = line.split(['{', ' ']).next().unwrap();
            let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
            assert!(text.contains(&format!("# HELP {name} ")) || text.contains(&format!("# HELP {family} ")), "{line}");
        }
        assert!(text.contains("process_resident_memory_bytes "));
    }

    #[test]
    fn promtool_finds_nothing_where_it_is_installed() {
        use std::io::Write;
        let Ok(mut tool) = std::process::Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
        else {
            eprintln!("promtool is not installed: only our own lint ran");
            return;
        };
        tool.stdin.take().unwrap().write_all(rendered(|| {}).as_bytes()).unwrap();
        let said = tool.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr);
        assert!(said.status.success() && text.trim().is_empty(), "{text}");
    }

    #[test]
    fn a_rule_that_falls_below_its_warning_reads_zero() {
        let text = rendered(|| {
            let mut gauges = UtilizationGauges::default();
            gauges.show([("A".to_owned(), "r-1".to_owned(), 0.9), ("B".to_owned(), "r-1".to_owned(), 1.5)]);
            gauges.show([("B".to_owned(), "r-1".to_owned(), 1.25)]);
        });
        assert!(text.contains("ordergate_rule_utilization_ratio{account=\"A\",rule=\"r-1\"} 0\n"), "{text}");
        assert!(text.contains("ordergate_rule_utilization_ratio{account=\"B\",rule=\"r-1\"} 1.25\n"));
    }

    #[test]
    fn only_the_fullest_rules_are_shown() {
        let mut gauges = UtilizationGauges::default();
        let recorder = local_recorder().unwrap();
        metrics::with_local_recorder(&recorder, || gauges.show((0..2_000).map(|i| (format!("A{i}"), "r".to_owned(), f64::from(i)))));
        assert_eq!(gauges.shown.len(), UtilizationGauges::SHOWN_MAX);
        assert!(gauges.shown.values().all(|value| *value >= 1_000.0));
    }
}
