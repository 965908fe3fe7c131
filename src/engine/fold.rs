//! The fold: the gate, and how far each topic is applied. Live, recovering and replaying alike.
//!
//! Invariant: the state is a function of the records applied and their order. Deliberately absent:
//! the log, the clock, and any judgement of its own.

use std::collections::BTreeMap;

use crate::domain::{Effects, Event, InputTopic, Millis, Record, Source};
use crate::gate::Gate;
use crate::log::{InputRecord, OutputRecord, Position};
use crate::wire::frame::{self, Digest, Frame, FrameInput, Hash, InputMark, Outcome, OutputMark, Routing};
use crate::wire::{self, Origin};

use super::codec;
use super::routing::Router;
use super::snapshots::{Loaded, Standing};

/// The gate of a shard and its place in every topic.
#[derive(Debug)]
pub struct Fold {
    gate: Gate,
    effects: Effects,
    inputs: BTreeMap<(InputTopic, u32), (u64, Digest)>,
    /// How far each output topic is published, as the ledger says.
    pub output_marks: [OutputMark; 4],
    /// The latest clock reading in the ledger.
    pub received: Millis,
}

/// What is told of a record beside itself.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    /// Its log timestamp.
    pub ts: Millis,
    /// The frame's clock; `None` for records of a file that do not tell it.
    pub received: Option<Millis>,
    /// Another shard says what is to be said of it.
    pub quiet: bool,
}

/// A fold that comes to another result than the ledger recorded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Drift {
    /// A frame begins at another sequence.
    #[error("the frame begins at seq {recorded}, and the fold is at {folded}")]
    Seq {
        /// As recorded.
        recorded: u64,
        /// As folded.
        folded: u64,
    },
    /// A record causes other outputs.
    #[error("seq {seq} ({source_position}) caused {recorded} outputs when it was decided, and now {folded} or others")]
    Outputs {
        /// The record.
        seq: u64,
        /// Where it stood.
        source_position: String,
        /// The number of outputs as recorded.
        recorded: u32,
        /// The number of outputs as folded.
        folded: u32,
    },
    /// A record was applied twice, or before another of its partition.
    #[error("seq {seq} ({source_position}) does not lie behind the last record applied from its partition, which ends at {next}")]
    Order {
        /// The record.
        seq: u64,
        /// Where it stood.
        source_position: String,
        /// The offset that was to come at least.
        next: u64,
    },
    /// How far the inputs are applied differs.
    #[error("after seq {seq} the frame's input marks are others")]
    Marks {
        /// The last record of the frame.
        seq: u64,
    },
    /// The state differs.
    #[error("after seq {seq} the state's hash is another")]
    State {
        /// The last record of the frame.
        seq: u64,
    },
}

/// A decoded record on its way into the fold.
#[derive(Debug)]
pub struct Decoded {
    /// The record's bytes.
    pub record: InputRecord,
    /// Whose it is.
    pub routing: Routing,
    event: Event,
}

impl Decoded {
    /// Decodes a record of which it is known whose it is, cut to what the ledger keeps of it.
    #[must_use]
    pub fn of(mut record: InputRecord, routing: Routing) -> Self {
        let event = codec::routed(cut_and_decode(&mut record), routing);
        Self { record, routing, event }
    }

    /// Decodes a record that comes in, cut to what the ledger keeps of it, and finds out whose it is.
    #[must_use]
    pub fn live(mut record: InputRecord, router: &Router) -> Self {
        // What the key says is asked of the key as it came.
        let misrouted = router.is_misrouted(&record);
        let event = cut_and_decode(&mut record);
        let routing = if misrouted { Routing::Misrouted } else { router.routing(record.source, &event) };
        Self { record, routing, event: codec::routed(event, routing) }
    }
}

fn cut_and_decode(record: &mut InputRecord) -> Event {
    record.payload.truncate(frame::PAYLOAD_BYTES_KEPT);
    if let Some(key) = &mut record.key {
        key.truncate(frame::KEY_BYTES_KEPT);
    }
    wire::decode(record.source.topic, record.key.as_deref(), &record.payload)
}

impl Fold {
    /// Nothing applied.
    #[must_use]
    pub fn new(shard: u32) -> Self {
        Self::over(Gate::new(shard))
    }

    fn over(gate: Gate) -> Self {
        Self { gate, effects: Effects::default(), inputs: BTreeMap::new(), output_marks: Default::default(), received: Millis::MIN }
    }

    /// The fold as a snapshot knew it.
    #[must_use]
    pub fn restore(loaded: Loaded) -> Self {
        let mut fold = Self::over(Gate::restore(loaded.shared, loaded.accounts));
        fold.inputs = loaded.standing.inputs.iter().map(|mark| ((mark.topic, mark.partition), (mark.next, mark.last))).collect();
        fold.output_marks = loaded.standing.outputs;
        fold.received = loaded.standing.received;
        fold
    }

    /// The gate.
    #[must_use]
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// The accounts that changed since the last call.
    pub fn take_touched(&mut self) -> Vec<u32> {
        self.gate.take_touched()
    }

    /// What the last applied record caused.
    #[must_use]
    pub fn effects(&self) -> &Effects {
        &self.effects
    }

    /// How far each input partition is applied, in (topic, partition) order.
    #[must_use]
    pub fn input_marks(&self) -> Vec<InputMark> {
        self.inputs.iter().map(|(&(topic, partition), &(next, last))| InputMark { topic, partition, next, last }).collect()
    }

    /// Where to read the inputs on.
    #[must_use]
    pub fn positions(&self) -> Vec<Position> {
        self.inputs.iter().map(|(&(topic, partition), &(next, _))| Position { topic, partition, next }).collect()
    }

    /// The offset after the last record applied from a partition.
    #[must_use]
    pub fn next_of(&self, topic: InputTopic, partition: u32) -> u64 {
        self.inputs.get(&(topic, partition)).map_or(0, |(next, _)| *next)
    }

    /// Fills in what a snapshot must know of the fold.
    pub fn describe(&self, standing: &mut Standing) {
        standing.received = self.received;
        standing.seq = self.gate.seq();
        standing.inputs = self.input_marks();
        standing.outputs = self.output_marks;
    }

    /// Applies a record and appends its outputs to `out`.
    pub fn apply_event(&mut self, bytes: &Origin<'_>, told: Told, event: Event, out: &mut Vec<OutputRecord>) {
        let Told { ts, received, quiet } = told;
        let source = bytes.source;
        self.effects.clear();
        self.gate.apply(&Record { source, ts, received, key: wire::key_as_id(bytes.key), event, quiet }, &mut self.effects);
        codec::encode_outputs(&self.effects, self.gate.shard(), self.gate.seq(), bytes, out);
        self.inputs.entry((source.topic, source.partition)).or_default().0 = source.offset.saturating_add(1);
    }

    /// Applies a record as part of a frame. [`Fold::end_frame`] follows.
    pub fn apply(&mut self, decoded: Decoded, received: Millis, out: &mut Vec<OutputRecord>) -> FrameInput {
        let Decoded { record: InputRecord { source, ts, key, payload }, routing, event } = decoded;
        let first = out.len();
        let bytes = Origin { source, key: key.as_deref(), payload: &payload };
        self.apply_event(&bytes, Told { ts, received: Some(received), quiet: routing == Routing::Quiet }, event, out);
        let outcome = outcome_of(&out[first..]);
        FrameInput { source, ts, routing, key, payload, outcome }
    }

    /// Notes what a frame's last record of each partition was, and its clock.
    pub fn end_frame(&mut self, inputs: &[FrameInput], received: Millis) {
        let mut noted: Vec<(InputTopic, u32)> = Vec::new();
        for input in inputs.iter().rev() {
            let partition = (input.source.topic, input.source.partition);
            if !noted.contains(&partition) {
                noted.push(partition);
                self.inputs.entry(partition).or_default().1 = frame::record_digest(input.ts, input.key.as_deref(), &input.payload);
            }
        }
        self.received = self.received.max(received);
    }

    /// Applies a frame of the ledger, holds what it gives against what was recorded, and appends the
    /// outputs to `out`.
    ///
    /// # Errors
    /// The first difference. The fold is of no use afterwards.
    pub fn apply_frame(&mut self, frame: Frame, out: &mut Vec<OutputRecord>) -> Result<(), Drift> {
        if frame.first_seq != self.gate.seq() + 1 {
            return Err(Drift::Seq { recorded: frame.first_seq, folded: self.gate.seq() + 1 });
        }
        let received = frame.received;
        let mut applied = Vec::with_capacity(frame.inputs.len());
        for input in frame.inputs {
            applied.push(self.apply_recorded(input, received, out)?);
        }
        self.end_frame(&applied, received);
        let seq = self.gate.seq();
        if self.input_marks() != frame.input_marks {
            return Err(Drift::Marks { seq });
        }
        for (mark, recorded) in self.output_marks.iter_mut().zip(frame.output_marks) {
            if recorded.seq > mark.seq {
                *mark = recorded;
            }
        }
        match frame.state_hash {
            Some(hash) if hash != self.state_hash() => Err(Drift::State { seq }),
            Some(_) | None => Ok(()),
        }
    }

    fn apply_recorded(&mut self, input: FrameInput, received: Millis, out: &mut Vec<OutputRecord>) -> Result<FrameInput, Drift> {
        let FrameInput { source, ts, routing, key, payload, outcome } = input;
        let next = self.next_of(source.topic, source.partition);
        if source.offset < next {
            return Err(Drift::Order { seq: self.gate.seq() + 1, source_position: position_text(source), next });
        }
        let decoded = Decoded::of(InputRecord { source, ts, key, payload }, routing);
        let applied = self.apply(decoded, received, out);
        if applied.outcome == outcome {
            return Ok(applied);
        }
        let (seq, folded) = (self.gate.seq(), applied.outcome.outputs);
        Err(Drift::Outputs { seq, source_position: position_text(source), recorded: outcome.outputs, folded })
    }

    /// A hash of the gate's whole state. Costs as much as writing it.
    #[must_use]
    pub fn state_hash(&self) -> Hash {
        state_hash(&self.gate)
    }
}

/// A hash of a gate's whole state. Costs as much as writing it.
#[must_use]
pub fn state_hash(gate: &Gate) -> Hash {
    let mut hasher = blake3::Hasher::new();
    hash_value(&mut hasher, gate.shared());
    for account in gate.accounts() {
        hash_value(&mut hasher, account);
    }
    *hasher.finalize().as_bytes()
}

fn hash_value<T: serde::Serialize>(hasher: &mut blake3::Hasher, value: &T) {
    // What cannot be encoded leaves its mark too: both sides of a comparison fail alike.
    if let Err(error) = bincode::serde::encode_into_std_write(value, hasher, bincode::config::standard()) {
        hasher.update(error.to_string().as_bytes());
    }
}

fn outcome_of(outputs: &[OutputRecord]) -> Outcome {
    let digest = (!outputs.is_empty())
        .then(|| frame::outputs_digest(outputs.iter().map(|output| (output.topic, output.key.as_deref(), output.payload.as_slice()))));
    Outcome { outputs: u32::try_from(outputs.len()).unwrap_or(u32::MAX), digest }
}

/// A source position as people read it.
#[must_use]
pub fn position_text(source: Source) -> String {
    format!("{} {} {}", crate::log::Topic::Input(source.topic), source.partition, source.offset)
}
