//! A fold of an event log by the real code: lines in, outputs as the wire prints them.
//!
//! Invariant: nothing of the gate, of decoding or of printing is done here. Deliberately absent: any
//! double of our own code.

use ordergate::domain::{Effects, InputTopic, Output, Record, Source};
use ordergate::gate::{Account, Gate, Shared};
use ordergate::wire::{self, Origin};
use serde_json::{Value, json};

/// One output and the line (from 1) that caused it.
#[derive(Clone, Debug)]
pub struct Emitted {
    pub line: usize,
    pub topic: &'static str,
    pub bytes: Vec<u8>,
    pub value: Value,
}

/// A gate with all that it put out.
pub struct Run {
    pub emitted: Vec<Emitted>,
    pub gate: Gate,
    /// Lines with a dead letter.
    refused: Vec<usize>,
}

impl Run {
    /// Folds all records on a new gate.
    pub fn of(records: &[Record]) -> Self {
        Self::continued(Gate::new(0), records, 0)
    }

    /// Folds the records from place `from` on.
    pub fn continued(gate: Gate, records: &[Record], from: usize) -> Self {
        let mut run = Self { emitted: Vec::new(), gate, refused: Vec::new() };
        for (at, record) in records.iter().enumerate().skip(from) {
            run.apply(at + 1, record);
        }
        run
    }

    /// Applies one record, which stands at `line`.
    pub fn apply(&mut self, line: usize, record: &Record) {
        let mut effects = Effects::default();
        self.gate.apply(record, &mut effects);
        for output in &effects.outputs {
            let topic = match output {
                Output::Decision(_) => "gate.decisions",
                Output::CancelOrders(_) | Output::ClosePosition(_) => "gate.commands",
                Output::Notification(_) => "gate.notifications",
                Output::DeadLetter(_) => {
                    self.refused.push(line);
                    continue;
                }
            };
            let mut bytes = Vec::new();
            wire::encode_output(&mut bytes, output, &effects, &Origin { source: record.source, key: None, payload: &[] });
            let value = serde_json::from_slice(&bytes).expect("an output is JSON");
            self.emitted.push(Emitted { line, topic, bytes, value });
        }
    }

    /// The outputs of one topic.
    pub fn on<'a>(&'a self, topic: &'a str) -> impl Iterator<Item = &'a Emitted> {
        self.emitted.iter().filter(move |emitted| emitted.topic == topic)
    }

    /// The final books as `--state` prints them, by account.
    pub fn books(&self) -> Value {
        let mut bytes = Vec::new();
        wire::encode_state(&mut bytes, self.gate.seq(), self.gate.at(), "", self.gate.books());
        let mut state: Value = serde_json::from_slice(&bytes).expect("a state is JSON");
        state["accounts"].take()
    }

    /// Whether the line became a dead letter.
    pub fn is_refused(&self, line: usize) -> bool {
        self.refused.contains(&line)
    }

    /// Whether a second delivery of this line must change nothing: it used its id up.
    pub fn line_is_idempotent(&self, line: usize) -> bool {
        const NOT_USED_UP: [&str; 5] = ["MALFORMED", "MISROUTED", "VALUE_OUT_OF_RANGE", "UNKNOWN_ACCOUNT", "INTENT_ID_CONFLICT"];
        let keeps_no_id = |emitted: &Emitted| {
            let code = &emitted.value["reasons"][0]["code"];
            NOT_USED_UP.iter().any(|word| code == word)
        };
        !self.is_refused(line) && !self.emitted.iter().any(|emitted| emitted.line == line && keeps_no_id(emitted))
    }

    /// The decisions in the order of their first appearance: id, amendment, verdict, approved quantity and reasons.
    pub fn distinct_decisions(&self) -> Vec<String> {
        let mut seen = Vec::new();
        let mut distinct = Vec::new();
        for emitted in self.on("gate.decisions") {
            if !seen.contains(&&emitted.bytes) {
                seen.push(&emitted.bytes);
                let value = &emitted.value;
                let parts =
                    ["account", "client_order_id", "amend_id", "verdict", "approved_qty", "reasons", "equity"].map(|key| value.get(key));
                distinct.push(json!(parts).to_string());
            }
        }
        distinct
    }

    /// Prints everything.
    pub fn print(&self) {
        for emitted in &self.emitted {
            println!("line {} {} {}", emitted.line, emitted.topic, emitted.value);
        }
        println!("dead letters at lines {:?}", self.refused);
        println!("books {:#}", self.books());
    }
}

/// Reads a log. Panics at a line that is none.
pub fn records(name: &str, text: &str) -> Vec<Record> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines.map(|(at, line)| record(line, at as u64).unwrap_or_else(|error| panic!("{name}:{}: {error}", at + 1))).collect()
}

fn record(line: &str, place: u64) -> Result<Record, String> {
    let line = wire::parse_line(line.as_bytes()).map_err(|error| error.to_string())?;
    let topic = InputTopic::parse(&line.topic).ok_or_else(|| format!("{} is no input topic", line.topic))?;
    let source = Source { topic, partition: line.partition.unwrap_or(0), offset: line.offset.unwrap_or(place) };
    let key = line.key.as_deref();
    Ok(Record {
        source,
        ts: line.time().map_err(|error| error.to_string())?,
        received: line.received,
        key: wire::key_as_id(key),
        event: wire::decode(topic, key, &line.payload),
        quiet: false,
    })
}

/// The gate as a snapshot of it would come back.
pub fn restored(gate: &Gate) -> Gate {
    let config = bincode::config::standard();
    let bytes = bincode::serde::encode_to_vec((gate.shared(), gate.accounts()), config).expect("a snapshot can be written");
    let ((shared, accounts), _): ((Shared, Vec<Account>), usize) =
        bincode::serde::decode_from_slice(&bytes, config).expect("a snapshot can be read");
    Gate::restore(shared, accounts)
}

/// The first output that is not the same in both.
pub fn first_difference(a: &[Emitted], b: &[Emitted]) -> Vec<String> {
    let show = |emitted: Option<&Emitted>| emitted.map_or_else(|| "nothing".to_owned(), |e| format!("line {}: {}", e.line, e.value));
    let place = (0..a.len().max(b.len())).find(|&at| match (a.get(at), b.get(at)) {
        (Some(a), Some(b)) => a.bytes != b.bytes || a.line != b.line,
        _ => true,
    });
    place.map(|at| format!("  output {at}:\n    - {}\n    + {}", show(a.get(at)), show(b.get(at)))).into_iter().collect()
}
