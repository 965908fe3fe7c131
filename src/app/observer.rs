//! The engine's facts as metrics and log lines.
//!
//! Invariant: it counts and returns; it runs on the shard's thread. Deliberately absent: labels whose
//! number grows with the accounts.

use std::sync::Arc;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use crate::domain::{DeadLetter, Effects, InputTopic, Millis, Output, Source};
use crate::engine::{Clock, Committed, Handle, Observer, Phase, SystemClock, position_text};
use crate::log::Topic;
use crate::telemetry as names;

use super::moments::Moments;
use super::utilization::Utilization;

/// Tells the metrics recorder what a shard does.
pub struct Metered {
    shard: u32,
    records: [Counter; 4],
    evaluation: Histogram,
    commit: Histogram,
    frame_records: Histogram,
    frame_bytes: Histogram,
    in_flight: Gauge,
    utilization: Utilization,
    moments: Arc<Moments>,
    at: Millis,
}

impl Metered {
    /// An observer of this shard.
    #[must_use]
    pub fn new(shard: u32, moments: Arc<Moments>) -> Self {
        let inputs = [InputTopic::Intents, InputTopic::Executions, InputTopic::Prices, InputTopic::Control];
        Self {
            shard,
            records: inputs.map(|topic| counter!(names::RECORDS, "topic" => Topic::Input(topic).name())),
            evaluation: histogram!(names::EVALUATION_SECONDS),
            commit: histogram!(names::COMMIT_SECONDS),
            frame_records: histogram!(names::FRAME_RECORDS),
            frame_bytes: histogram!(names::FRAME_BYTES),
            in_flight: gauge!(names::FRAMES_IN_FLIGHT, "shard" => shard.to_string()),
            utilization: Utilization::new(),
            moments,
            at: Millis::MIN,
        }
    }
}

const fn place(topic: InputTopic) -> usize {
    match topic {
        InputTopic::Intents => 0,
        InputTopic::Executions => 1,
        InputTopic::Prices => 2,
        InputTopic::Control => 3,
    }
}

impl Observer for Metered {
    fn applied(&mut self, source: Source, at: Millis, effects: &Effects, nanos: u64) {
        self.records[place(source.topic)].increment(1);
        self.evaluation.record(nanos as f64 / 1e9);
        self.at = at;
        if effects.prices_dropped > 0 {
            counter!(names::PRICES_DROPPED).increment(effects.prices_dropped);
        }
        if effects.outputs.is_empty() {
            return;
        }
        names::count_outputs(effects);
        self.utilization.hear(effects);
        for output in &effects.outputs {
            if let Output::DeadLetter(letter) = output {
                log_refused(source, letter);
            }
        }
    }

    fn committed(&mut self, frame: Committed) {
        self.commit.record(frame.commit_us as f64 / 1e6);
        self.frame_records.record(frame.records as f64);
        self.frame_bytes.record(frame.bytes as f64);
        self.in_flight.set(frame.in_flight as f64);
        self.utilization.show(self.at);
    }

    fn published(&mut self, repaired: bool) {
        if repaired {
            counter!(names::OUTPUTS_REPUBLISHED, "topic" => "any").increment(1);
        }
    }

    fn phase(&mut self, phase: &Phase) {
        match phase {
            Phase::Waiting { code, why } => tracing::warn!(shard = self.shard, code, why, "the shard waits and decides nothing"),
            Phase::Refusing { code, why } => tracing::error!(shard = self.shard, code, why, "the shard refuses to go on"),
            Phase::Following | Phase::Claiming | Phase::Repairing | Phase::Owning | Phase::Draining | Phase::Stopped => {
                tracing::info!(shard = self.shard, ?phase, "phase");
            }
        }
        if *phase == Phase::Owning {
            gauge!(names::RECOVERY_SECONDS, "shard" => self.shard.to_string()).set(self.moments.recovery_seconds());
            counter!(names::TAKEOVERS, "shard" => self.shard.to_string()).increment(1);
        }
        if *phase == Phase::Claiming {
            self.moments.claimed();
        }
        let refusing = f64::from(u8::from(matches!(phase, Phase::Refusing { .. })));
        gauge!(names::SHARD_REFUSING, "shard" => self.shard.to_string()).set(refusing);
        let owned = f64::from(u8::from(*phase == Phase::Owning));
        gauge!(names::OWNED, "shard" => self.shard.to_string()).set(owned);
    }

    fn drifted(&mut self, what: &str) {
        counter!(names::REPLAY_DRIFT).increment(1);
        tracing::error!(shard = self.shard, what, "the fold gives another result than the ledger recorded");
    }

    fn snapshot_offered(&mut self, seq: u64) {
        self.moments.snapshot();
        tracing::debug!(shard = self.shard, seq, "a snapshot is taken");
    }
}

fn log_refused(source: Source, letter: &DeadLetter) {
    let field = letter.field.as_deref();
    tracing::warn!(source = %position_text(source), code = letter.code.as_str(), field, message = %letter.message, "record refused");
}

/// A shard that is not here any more waits for nothing and lags behind nothing: an alarm on it would stay for ever.
pub fn show_nothing(handle: &Handle) {
    let status = handle.status();
    let shard = || status.shard.to_string();
    for name in [names::LEDGER_LAG, names::OUTPUT_WAITING, names::INPUT_QUEUE, names::SNAPSHOT_LAG_RECORDS, names::SNAPSHOT_AGE_SECONDS] {
        gauge!(name, "shard" => shard()).set(0.0);
    }
    for (topic, partition, _) in &status.lag {
        for name in [names::SOURCE_LAG_SECONDS, names::SOURCE_LAG_RECORDS] {
            gauge!(name, "shard" => shard(), "topic" => Topic::Input(*topic).name(), "partition" => partition.to_string()).set(0.0);
        }
    }
}

/// Sets the gauges that follow from what a shard says of itself.
pub fn show_status(handle: &Handle, moments: &Moments) {
    let status = handle.status();
    let shard = || status.shard.to_string();
    gauge!(names::LEDGER_SEQUENCE, "shard" => shard()).set(status.committed_seq as f64);
    gauge!(names::LEDGER_TERM, "shard" => shard()).set(status.term as f64);
    gauge!(names::LEDGER_FRAMES, "shard" => shard()).set(status.ledger_next as f64);
    gauge!(names::LEDGER_LAG, "shard" => shard()).set(status.ledger_lag as f64);
    gauge!(names::OUTPUT_WAITING, "shard" => shard()).set(status.output_waiting_ms as f64 / 1e3);
    gauge!(names::INPUT_QUEUE, "shard" => shard()).set(status.inputs_waiting as f64);
    gauge!(names::VOID_ENTRIES, "shard" => shard()).set(status.void_entries as f64);
    gauge!(names::SNAPSHOT_LAG_RECORDS, "shard" => shard()).set(status.committed_seq.saturating_sub(status.snapshot_seq) as f64);
    gauge!(names::SNAPSHOT_AGE_SECONDS, "shard" => shard()).set(moments.snapshot_age_seconds());
    let behind_seconds = SystemClock::new().wall_ms().saturating_sub(status.at).max(0) as f64 / 1e3;
    for (topic, partition, records) in &status.lag {
        let topic = Topic::Input(*topic).name();
        let seconds = if *records == 0 { 0.0 } else { behind_seconds };
        gauge!(names::SOURCE_LAG_SECONDS, "shard" => shard(), "topic" => topic, "partition" => partition.to_string()).set(seconds);
        gauge!(names::SOURCE_LAG_RECORDS, "shard" => shard(), "topic" => topic, "partition" => partition.to_string()).set(*records as f64);
    }
}
