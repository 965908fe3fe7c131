//! Laws of the state over every scenario of `tests/vectors`: what the gate says it touched is all that changed, and a snapshot at
//! any prefix with the rest gives the whole.
//!
//! Invariant: records are decoded from the scenarios' own lines. Deliberately absent: what the decisions should be (`tests/spec`).
#![expect(clippy::unwrap_used, reason = "a test's helpers fail by panicking")]

use std::path::PathBuf;

use ordergate::domain::{Effects, InputTopic, Record, Source};
use ordergate::gate::Gate;
use ordergate::wire::snapshot::{StateHasher, VERSION, decode_account, decode_shared, encode_account, encode_shared, state_hash};
use ordergate::wire::{decode, key_as_id, parse_line};

fn scenarios() -> Vec<(String, Vec<Record>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/scenarios");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
    paths.sort();
    assert!(paths.len() > 50, "{} scenarios", paths.len());
    let name = |path: &PathBuf| path.file_stem().unwrap().to_string_lossy().into_owned();
    paths.iter().map(|path| (name(path), records(&std::fs::read_to_string(path).unwrap()))).collect()
}

fn records(text: &str) -> Vec<Record> {
    let lines = text.lines().filter(|line| !line.trim().is_empty()).enumerate();
    lines.filter_map(|(place, line)| record(place as u64, line)).collect()
}

fn record(place: u64, line: &str) -> Option<Record> {
    let line = parse_line(line.as_bytes()).unwrap();
    let topic = InputTopic::parse(&line.topic)?;
    let key = line.key.as_deref();
    let source = Source { topic, partition: line.partition.unwrap_or(0), offset: line.offset.unwrap_or(place) };
    let event = decode(topic, key, &line.payload);
    Some(Record { source, ts: line.ts.unwrap(), received: line.received, key: key_as_id(key), event, quiet: false })
}

/// Applies a record; gives what it caused, as text.
fn apply(gate: &mut Gate, record: &Record) -> String {
    let mut effects = Effects::default();
    gate.apply(record, &mut effects);
    format!("{effects:?}")
}

fn through_bytes(gate: &Gate) -> Gate {
    let accounts = gate.accounts().iter().map(|account| {
        let mut bytes = Vec::new();
        encode_account(account, &mut bytes).unwrap();
        decode_account(VERSION, &bytes).unwrap()
    });
    let shared = decode_shared(VERSION, &encode_shared(gate.shared()).unwrap()).unwrap();
    Gate::restore(shared, accounts.collect())
}

#[test]
fn an_account_changes_only_when_the_gate_says_so() {
    let mut faults = Vec::new();
    for (name, records) in scenarios() {
        let mut gate = Gate::new(0);
        let mut hasher = StateHasher::default();
        for (place, record) in records.iter().enumerate() {
            apply(&mut gate, record);
            let touched = gate.take_touched();
            hasher.touch(&gate, &touched).unwrap();
            if hasher.hash(&gate).unwrap() != state_hash(&gate).unwrap() {
                faults.push(format!("{name}: record {place} changed an account that is not touched: {:?}", record.event));
                break;
            }
        }
    }
    assert!(faults.is_empty(), "{} scenarios:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn a_snapshot_at_any_prefix_and_the_rest_give_the_whole() {
    let mut faults = Vec::new();
    for (name, records) in scenarios() {
        let mut whole = Gate::new(0);
        let caused: Vec<String> = records.iter().map(|record| apply(&mut whole, record)).collect();
        let mut before = Gate::new(0);
        for cut in 0..records.len() {
            let mut restored = through_bytes(&before);
            let differs = records[cut..].iter().zip(&caused[cut..]).position(|(record, caused)| apply(&mut restored, record) != *caused);
            if let Some(after) = differs {
                faults.push(format!("{name}: restored before record {cut}, record {} causes something else", cut + after));
                break;
            }
            if state_hash(&restored).unwrap() != state_hash(&whole).unwrap() {
                faults.push(format!("{name}: restored before record {cut}, the state ends otherwise"));
                break;
            }
            apply(&mut before, &records[cut]);
        }
    }
    assert!(faults.is_empty(), "{} scenarios:\n{}", faults.len(), faults.join("\n"));
}
