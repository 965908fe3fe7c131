//! Event logs with their expected outcome (`tests/vectors/README.md`), folded by the real code.
//!
//! Invariant: every key of an expectation is compared completely, an unknown key is an error, and all
//! scenarios that differ are reported at once. `SCENARIO=name` runs one and prints all that it puts out.
//! Deliberately absent: any knowledge of how the fold comes to its results.

use std::path::{Path, PathBuf};

use ordergate::domain::{Event, Record};
use ordergate::gate::Gate;
use serde_json::Value;

use crate::expect;
use crate::fold::{self, Run};

struct Scenario {
    name: String,
    records: Vec<Record>,
    text: String,
    expected: Value,
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/scenarios")
}

fn scenarios() -> Vec<Scenario> {
    let wanted = std::env::var("SCENARIO").ok();
    let mut names: Vec<String> = std::fs::read_dir(directory())
        .expect("the directory of scenarios")
        .filter_map(|entry| entry.expect("an entry").file_name().into_string().ok())
        .filter_map(|name| name.strip_suffix(".jsonl").map(str::to_owned))
        .filter(|name| wanted.as_ref().is_none_or(|wanted| wanted == name))
        .collect();
    names.sort();
    assert!(!names.is_empty(), "no scenario of that name");
    names.into_iter().map(read).collect()
}

fn read(name: String) -> Scenario {
    let text = std::fs::read_to_string(directory().join(format!("{name}.jsonl"))).expect("a log");
    let expected = std::fs::read_to_string(directory().join(format!("{name}.expect.json"))).expect("an expectation");
    let expected = serde_json::from_str(&expected).unwrap_or_else(|error| panic!("{name}.expect.json: {error}"));
    Scenario { records: fold::records(&name, &text), name, text, expected }
}

/// Runs `check` on every scenario and fails with all complaints together.
fn for_each(check: impl Fn(&Scenario) -> Vec<String>) {
    let scenarios = scenarios();
    let mut report = String::new();
    let mut failed = 0;
    for scenario in &scenarios {
        let complaints = check(scenario);
        if !complaints.is_empty() {
            failed += 1;
            let why = scenario.expected["why"].as_str().unwrap_or_default();
            report.push_str(&format!("\n=== {}: {why}\n{}\n", scenario.name, complaints.join("\n")));
        }
    }
    assert!(failed == 0, "{failed} of {} scenarios differ\n{report}", scenarios.len());
}

#[test]
fn every_scenario_comes_out_as_derived_from_the_specification() {
    for_each(|scenario| {
        let run = Run::of(&scenario.records);
        if std::env::var_os("SCENARIO").is_some() {
            run.print();
        }
        expect::differences(&scenario.expected, &run)
    });
}

#[test]
fn the_same_log_gives_the_same_bytes() {
    for_each(|scenario| fold::first_difference(&Run::of(&scenario.records).emitted, &Run::of(&scenario.records).emitted));
}

#[test]
fn a_snapshot_at_any_prefix_and_the_rest_give_the_whole() {
    for_each(|scenario| {
        let whole = Run::of(&scenario.records);
        let mut gate = Gate::new(0);
        let mut complaints = Vec::new();
        for (taken, record) in scenario.records.iter().enumerate() {
            let rest = Run::continued(fold::restored(&gate), &scenario.records, taken);
            let tail: Vec<_> = whole.emitted.iter().filter(|emitted| emitted.line > taken).cloned().collect();
            let differs = fold::first_difference(&tail, &rest.emitted);
            complaints.extend(differs.into_iter().map(|what| format!("  restored after {taken} records: {what}")));
            if rest.books() != whole.books() {
                complaints.push(format!("  restored after {taken} records: the books differ"));
            }
            gate.apply(record, &mut ordergate::domain::Effects::default());
        }
        complaints.truncate(3);
        complaints
    });
}

/// Intents and fills carry ids, so that a second delivery changes nothing (SEMANTICS sections 2 and 4).
#[test]
fn intents_and_fills_delivered_twice_change_nothing() {
    for_each(|scenario| {
        // A log that cites decisions or commands by their sequence means other ones once lines are doubled.
        if scenario.text.contains("\"0-") {
            return Vec::new();
        }
        let once = Run::of(&scenario.records);
        let mut doubled = Vec::new();
        for (at, record) in scenario.records.iter().enumerate() {
            doubled.push(record.clone());
            if has_an_id(record) && once.line_is_idempotent(at + 1) {
                doubled.push(record.clone());
            }
        }
        let twice = Run::of(&doubled);
        let mut complaints = Vec::new();
        if once.books() != twice.books() {
            complaints.push(format!("  books differ:\n    once  {}\n    twice {}", once.books(), twice.books()));
        }
        for key in ["commands", "notifications", "urgent"] {
            let (a, b) = (expect::actual(key, &once), expect::actual(key, &twice));
            if a != b {
                complaints.push(format!("  {key} differ:\n    once  {a}\n    twice {b}"));
            }
        }
        let (a, b) = (once.distinct_decisions(), twice.distinct_decisions());
        if a != b {
            complaints.push(format!("  decisions differ:\n    once  {a:?}\n    twice {b:?}"));
        }
        complaints
    });
}

fn has_an_id(record: &Record) -> bool {
    matches!(record.event, Event::Intent(_) | Event::Amend(_) | Event::Fill(_))
}
