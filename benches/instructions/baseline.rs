//! The baseline of instruction counts: its text, and what counts as worse.
//!
//! Invariant: a count that is not in the baseline, one that grew by more than 2 %, and any further allocation are faults; nothing
//! else is. Deliberately absent: files and processes (count.rs has them).

use std::collections::BTreeMap;
use std::fmt::Write;

/// What a count may grow by, in percent.
pub const GROWTH_MAX_PERCENT: u64 = 2;

/// What one benchmark cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    pub instructions: u64,
    pub allocations: u64,
}

/// Costs by the benchmark's name.
pub type Costs = BTreeMap<String, Cost>;

/// A comparison: what to print, and what is wrong.
#[derive(Debug, Default)]
pub struct Comparison {
    pub table: String,
    pub faults: Vec<String>,
}

/// Reads a baseline: `name instructions allocations` in each line that is not a comment.
///
/// # Errors
/// The line that is none.
pub fn parse(text: &str) -> Result<Costs, String> {
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    lines.map(|line| parse_line(line).ok_or_else(|| format!("`{line}` is not `name instructions allocations`"))).collect()
}

fn parse_line(line: &str) -> Option<(String, Cost)> {
    let mut words = line.split_whitespace();
    let name = words.next()?.to_owned();
    let cost = Cost { instructions: words.next()?.parse().ok()?, allocations: words.next()?.parse().ok()? };
    words.next().is_none().then_some((name, cost))
}

/// The text of a baseline.
pub fn render(costs: &Costs, rust: &str, arch: &str) -> String {
    let mut text = format!(
        "# Instructions and allocations by `cargo bench --no-default-features --bench instructions`. Rewritten by `ORDERGATE_BLESS=1 cargo bench --no-default-features --bench instructions`.\n\
         # Rust {rust}, {arch}. Another compiler, target CPU or libc counts otherwise; see docs/PERFORMANCE.md.\n"
    );
    for (name, cost) in costs {
        _ = writeln!(text, "{name} {} {}", cost.instructions, cost.allocations);
    }
    text
}

/// Compares what was counted with the baseline. `all` = every benchmark ran, so what is missing is gone.
pub fn compare(old: &Costs, new: &Costs, all: bool) -> Comparison {
    let mut found =
        Comparison { table: format!("{:<44} {:>12} {:>12} {:>9}\n", "instructions", "baseline", "now", "change"), ..Default::default() };
    for (name, now) in new {
        let Some(was) = old.get(name) else {
            _ = writeln!(found.table, "{name:<44} {:>12} {:>12}", "none", now.instructions);
            found.faults.push(format!("{name}: not in the baseline"));
            continue;
        };
        let change = percent(was.instructions, now.instructions);
        _ = writeln!(found.table, "{name:<44} {:>12} {:>12} {change:>+8.2}%", was.instructions, now.instructions);
        if u128::from(now.instructions) * 100 > u128::from(was.instructions) * u128::from(100 + GROWTH_MAX_PERCENT) {
            found.faults.push(format!("{name}: {} instructions, were {} ({change:+.2}%)", now.instructions, was.instructions));
        }
        if now.allocations > was.allocations {
            found.faults.push(format!("{name}: {} allocations, were {}", now.allocations, was.allocations));
        }
    }
    if all {
        let gone = old.keys().filter(|name| !new.contains_key(*name));
        found.faults.extend(gone.map(|name| format!("{name}: in the baseline, but not counted any more")));
    }
    found
}

fn percent(was: u64, now: u64) -> f64 {
    (now as f64 / was as f64 - 1.0) * 100.0
}
