//! The table that `cargo bench` prints: each bench leaves its rows in a file, the last one prints those of all.
//!
//! Invariant: a row says what was seen and what was wanted, and whether it is. Deliberately absent: anything that fails a build; that
//! is the baseline's part (benches/instructions/baseline.rs).

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// The benches, in the order in which cargo runs them.
const BENCHES: [&str; 3] = ["allocations", "instructions", "ratios"];

/// The rows of one bench.
pub struct Table {
    bench: &'static str,
    rows: String,
}

impl Table {
    pub fn new(bench: &'static str) -> Self {
        Self { bench, rows: String::new() }
    }

    /// A figure, with its goal (at most) if it has one.
    pub fn row(&mut self, what: &str, value: f64, decimals: usize, goal_max: Option<f64>) {
        let (goal, verdict) = match goal_max {
            Some(goal) => (format!("<= {}", figure(goal, decimals)), if value <= goal { "met" } else { "MISSED" }),
            None => (String::new(), ""),
        };
        self.rows += &format!("{what}\t{}\t{goal}\t{verdict}\n", figure(value, decimals));
    }

    /// Keeps the rows, and prints everything that is known: of benches that ran earlier as well.
    pub fn print(&self) {
        if let Err(error) = fs::create_dir_all(folder()).and_then(|()| fs::write(path(self.bench), &self.rows)) {
            eprintln!("the rows cannot be kept in {}: {error}", folder().display());
        }
        println!("\n{:<78} {:>12} {:>12}  ", "what", "seen", "goal");
        for bench in BENCHES {
            let rows = if bench == self.bench { Some(self.rows.clone()) } else { fs::read_to_string(path(bench)).ok() };
            let Some(rows) = rows else { continue };
            println!("-- {bench}{}", if bench == self.bench { String::new() } else { age_of(bench) });
            for row in rows.lines() {
                let mut cells = row.split('\t');
                let mut cell = || cells.next().unwrap_or("");
                println!("{:<78} {:>12} {:>12}  {}", cell(), cell(), cell(), cell());
            }
        }
    }
}

/// A figure with its thousands apart.
fn figure(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut grouped = String::new();
    for (place, digit) in whole.chars().enumerate() {
        if place > 0 && (whole.len() - place) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped + rest
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("bench-tables")
}

fn path(bench: &str) -> PathBuf {
    folder().join(format!("{bench}.tsv"))
}

/// How old the rows of another bench are, when that is worth saying.
fn age_of(bench: &str) -> String {
    let age = fs::metadata(path(bench)).and_then(|data| data.modified()).ok().and_then(|at| at.elapsed().ok()).unwrap_or(Duration::ZERO);
    if age < Duration::from_secs(3600) { String::new() } else { format!(" (of {} hours ago)", age.as_secs() / 3600) }
}
