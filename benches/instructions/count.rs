//! Counting under valgrind, and holding the counts against `benches/baseline.txt`.
//!
//! Invariant: only what this run counted is looked at; an earlier run's files are removed first. Deliberately absent: the comparison
//! itself (baseline.rs).

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use serde_json::Value;

use super::baseline::{self, Cost, Costs};
use super::table::Table;

/// Where the runner leaves its files. Set for the run that counts, which is this program once more.
const HOME: &str = "GUNGRAUN_HOME";
/// Marks that run.
pub const COUNTING: &str = "ORDERGATE_COUNTING";

const BASELINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/baseline.txt");
/// What is printed and held to nothing: how `serde_json` is inlined depends on the rest of the program, and what the
/// first order's lists cost depends on where the allocator puts them.
const NOT_HELD: [&str; 2] = ["decode_by_serde_json", "evaluate.none"];
const TOOLCHAIN: &str = include_str!("../../rust-toolchain.toml");

/// Runs the counts in a process of their own, then compares or rewrites the baseline.
pub fn run() -> ExitCode {
    match count() {
        Ok(costs) if costs.is_empty() => fail("nothing was counted"),
        Ok(mut costs) => {
            tabulate(&costs).print();
            costs.retain(|name, _| !NOT_HELD.iter().any(|other| name.starts_with(other)));
            judge(&costs)
        }
        Err(error) => fail(&error),
    }
}

fn fail(message: &str) -> ExitCode {
    eprintln!("instruction counts: {message}");
    ExitCode::FAILURE
}

fn count() -> Result<Costs, String> {
    let home = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("instructions");
    if home.exists() {
        fs::remove_dir_all(&home).map_err(|error| format!("{}: {error}", home.display()))?;
    }
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut command = Command::new(program);
    command.args(std::env::args_os().skip(1)).env(HOME, &home).env(COUNTING, "1").env("GUNGRAUN_SAVE_SUMMARY", "json");
    let status = command.status().map_err(|error| error.to_string())?;
    if !status.success() {
        return Err(format!(
            "the run under valgrind failed ({status}); it needs valgrind and gungraun-runner, which scripts/test installs"
        ));
    }
    let mut costs = Costs::new();
    collect(&home, &mut costs)?;
    Ok(costs)
}

/// Reads all `summary.json` below a folder.
fn collect(folder: &Path, costs: &mut Costs) -> Result<(), String> {
    let told = |error: std::io::Error| format!("{}: {error}", folder.display());
    for entry in fs::read_dir(folder).map_err(told)? {
        let path = entry.map_err(told)?.path();
        if path.is_dir() {
            collect(&path, costs)?;
        } else if path.file_name() == Some(OsStr::new("summary.json")) {
            let text = fs::read_to_string(&path).map_err(told)?;
            let (name, cost) = summary(&text).ok_or_else(|| format!("{}: not a summary that is understood", path.display()))?;
            costs.insert(name, cost);
        }
    }
    Ok(())
}

fn summary(text: &str) -> Option<(String, Cost)> {
    let summary: Value = serde_json::from_str(text).ok()?;
    let name = format!("{}.{}", summary["function_name"].as_str()?, summary["id"].as_str()?);
    let metric = |tool: &str, metric: &str| {
        let totals = summary["profiles"].as_array()?.iter().map(|profile| &profile["summaries"]["total"]["summary"][tool][metric]);
        totals.filter_map(|found| found["metrics"]["Left"]["Int"].as_u64()).next()
    };
    Some((name, Cost { instructions: metric("Callgrind", "Ir")?, allocations: metric("Dhat", "TotalBlocks")? }))
}

/// A benchmark was left out when cargo's arguments name some.
fn ran_all() -> bool {
    std::env::args().skip(1).all(|argument| argument.starts_with("--")) && std::env::var_os("GUNGRAUN_FILTER").is_none()
}

fn judge(costs: &Costs) -> ExitCode {
    if std::env::var_os("ORDERGATE_BLESS").is_some() {
        return bless(costs);
    }
    let text = match fs::read_to_string(BASELINE) {
        Ok(text) => text,
        Err(error) => return fail(&format!("{BASELINE}: {error}")),
    };
    if !text.contains(std::env::consts::ARCH) {
        println!("the baseline is of another architecture than {}: nothing is compared", std::env::consts::ARCH);
        return ExitCode::SUCCESS;
    }
    let old = match baseline::parse(&text) {
        Ok(old) => old,
        Err(error) => return fail(&format!("{BASELINE}: {error}")),
    };
    let found = baseline::compare(&old, costs, ran_all());
    println!("\n{}", found.table);
    if found.faults.is_empty() {
        println!("no count is more than {} % over the baseline", baseline::GROWTH_MAX_PERCENT);
        return ExitCode::SUCCESS;
    }
    fail(&format!(
        "worse than benches/baseline.txt:\n  {}\nIf that is meant, commit the new baseline with it: ORDERGATE_BLESS=1 cargo bench --no-default-features --bench instructions",
        found.faults.join("\n  ")
    ))
}

/// Rewrites the baseline; what did not run keeps its lines.
fn bless(costs: &Costs) -> ExitCode {
    let mut kept = Costs::new();
    if !ran_all() {
        kept = fs::read_to_string(BASELINE).ok().and_then(|text| baseline::parse(&text).ok()).unwrap_or_default();
    }
    kept.extend(costs.iter().map(|(name, cost)| (name.clone(), *cost)));
    let rust = TOOLCHAIN.lines().find_map(|line| line.strip_prefix("channel = ")).unwrap_or("?").trim_matches('"');
    match fs::write(BASELINE, baseline::render(&kept, rust, std::env::consts::ARCH)) {
        Ok(()) => {
            println!("wrote {BASELINE}");
            ExitCode::SUCCESS
        }
        Err(error) => fail(&format!("{BASELINE}: {error}")),
    }
}

/// The counts beside their goals.
fn tabulate(costs: &Costs) -> Table {
    let mut table = Table::new("instructions");
    for (name, cost) in costs {
        let goal = (name == "evaluate.twenty").then_some(2_000.0);
        table.row(&format!("{name}: instructions"), cost.instructions as f64, 0, goal);
    }
    let of = |name: &str| costs.get(name).map(|cost| cost.instructions as f64);
    if let (Some(twenty), Some(thousand)) = (of("evaluate.twenty"), of("evaluate.thousand")) {
        table.row("evaluate: instructions per further position, 20 to 1,000", (thousand - twenty) / 980.0, 1, Some(70.0));
    }
    if let (Some(one), Some(hundred)) = (of("evaluate_rules.one"), of("evaluate_rules.hundred")) {
        table.row("evaluate, 5 positions: 100 rules / 1 rule, all cover the order", hundred / one, 2, Some(3.5));
    }
    if let (Some(one), Some(many)) = (of("price.one_holder"), of("price.hundred_thousand_holders")) {
        table.row("price: 100,000 holders / 1 holder", many / one, 3, Some(1.02));
    }
    table
}
