//! The check that instruction counts do not grow unnoticed can fail.

#[path = "../benches/instructions/baseline.rs"]
mod baseline;

use baseline::{Cost, Costs, compare, parse, render};

fn costs(list: &[(&str, u64, u64)]) -> Costs {
    list.iter()
        .map(|(name, instructions, allocations)| ((*name).to_owned(), Cost { instructions: *instructions, allocations: *allocations }))
        .collect()
}

#[test]
fn a_growth_of_two_percent_passes_and_more_does_not() {
    let old = costs(&[("a.b", 1_000, 0)]);
    assert_eq!(compare(&old, &costs(&[("a.b", 1_020, 0)]), true).faults, [""; 0]);
    assert_eq!(compare(&old, &costs(&[("a.b", 1_021, 0)]), true).faults, ["a.b: 1021 instructions, were 1000 (+2.10%)"]);
    assert_eq!(compare(&old, &costs(&[("a.b", 10, 0)]), true).faults, [""; 0]);
}

#[test]
fn one_more_allocation_is_a_fault() {
    let old = costs(&[("a.b", 1_000, 0)]);
    assert_eq!(compare(&old, &costs(&[("a.b", 1_000, 1)]), true).faults, ["a.b: 1 allocations, were 0"]);
}

#[test]
fn a_benchmark_without_a_baseline_is_a_fault_and_so_is_a_baseline_without_its_benchmark() {
    let (old, new) = (costs(&[("gone", 1, 0)]), costs(&[("new", 1, 0)]));
    assert_eq!(compare(&old, &new, true).faults, ["new: not in the baseline", "gone: in the baseline, but not counted any more"]);
    assert_eq!(compare(&old, &new, false).faults, ["new: not in the baseline"]);
}

#[test]
fn the_committed_baseline_reads_back_as_it_was_written() {
    let text = include_str!("../benches/baseline.txt");
    let costs = parse(text).unwrap();
    assert!(!costs.is_empty());
    assert_eq!(render(&costs, "1.95.0", "x86_64"), text);
    assert!(parse("a.b 12").is_err());
}
