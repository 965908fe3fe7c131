//! docs/CONTROL.md: every row names a test that exists, or says that there is none.

use std::fs;
use std::path::Path;

/// What is not in order about one row, by the sources that `read` gives.
fn faults_of(row: &str, read: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let proof = row.trim_end().trim_end_matches('|').rsplit('|').next().unwrap_or_default();
    let named: Vec<(&str, &str)> = proof.split('`').filter_map(|part| part.split_once("::")).collect();
    let scripts: Vec<&str> = proof.split('`').filter(|part| part.starts_with("scripts/")).collect();
    let missing = |(file, test): &(&str, &str)| match read(file) {
        None => Some(format!("{file} is not there")),
        Some(source) => (!is_test(&source, test)).then(|| format!("{file} has no test {test}")),
    };
    let mut faults: Vec<String> = named.iter().filter_map(missing).collect();
    faults.extend(scripts.iter().filter(|script| read(script).is_none()).map(|script| format!("{script} is not there")));
    if named.is_empty() && scripts.is_empty() && !proof.contains("**no test**") {
        faults.push(format!("neither a test nor `**no test**`: {row}"));
    }
    faults
}

/// Whether a source has a function of that name right below a `#[test]` of some kind.
fn is_test(source: &str, name: &str) -> bool {
    source.match_indices(&format!("fn {name}(")).any(|(at, _)| {
        let before = source[..at].trim_end().trim_end_matches("async").trim_end();
        let attributes = before.lines().rev().take_while(|line| line.trim_start().starts_with("#["));
        attributes.into_iter().any(|line| line.contains("test"))
    })
}

#[test]
fn every_row_names_a_test_that_is_there_or_says_that_there_is_none() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("docs/CONTROL.md")).unwrap();
    let is_row = |line: &&str| line.starts_with("| ") && !line.starts_with("| what holds ");
    let held = text.split("\n## Figures\n").next().unwrap();
    let rows: Vec<&str> = held.lines().filter(is_row).collect();
    let read = |file: &str| fs::read_to_string(root.join(file)).ok();
    let faults: Vec<String> = rows.iter().flat_map(|row| faults_of(row, read)).collect();
    let without = rows.iter().filter(|row| row.contains("**no test**")).count();
    println!("{} rows, {without} without a test", rows.len());
    assert!(rows.len() > 60, "only {} rows found", rows.len());
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn sees_a_test_that_is_gone_a_row_without_one_and_a_function_that_is_none() {
    let source = |_: &str| Some("#[test]\nfn one() {}\n\n#[tokio::test]\n#[ignore]\nasync fn two() {}\n\nfn three() {}\n".to_owned());
    assert!(faults_of("| a | b | `x.rs::one`, `x.rs::two` |", source).is_empty());
    assert!(faults_of("| a | b | **no test** |", source).is_empty());
    assert_eq!(faults_of("| a | b | `x.rs::three` |", source), ["x.rs has no test three"]);
    assert_eq!(faults_of("| a | b | `x.rs::one` |", |_| None), ["x.rs is not there"]);
    assert_eq!(faults_of("| a | b | |", source).len(), 1);
}
