//! `ordergate kill`: the kill switch of an account: halted, orders cancelled, positions closed; with `--watch`, until nothing is left.
//!
//! Invariant: the switch is thrown by the first request; watching adds nothing and may be ended at any time. A look that fails is told, and
//! the next one follows until the time is over. Deliberately absent: a question whether one is sure.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::answers::{Asked, Once, cell, rows, segment};
use super::remote::Output;
use super::{Exit, Failure, say};

const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A look that takes longer has failed.
const LOOK_PATIENCE: Duration = Duration::from_secs(5);

/// Arguments of `kill`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The account
    account: String,
    /// Why, for people
    #[arg(long, value_name = "TEXT", default_value = "ordergate kill")]
    reason: String,
    /// Wait until nothing is held and nothing works: exit 1 when that is not so in time
    #[arg(long)]
    watch: bool,
    /// How long to wait at most, looks that fail included
    #[arg(long, value_name = "SECONDS", default_value_t = 300, requires = "watch")]
    timeout: u64,
    #[command(flatten)]
    once: Once,
    #[command(flatten)]
    asked: Asked,
}

/// Throws the switch.
pub fn run(args: &Args) -> Result<(), Failure> {
    let client = args.asked.remote.client()?;
    let path = format!("/api/v1/accounts/{}/kill", segment(&args.account));
    let mut view = client.send_with("POST", &path, &args.once.headers(), &json!({"reason": args.reason}))?;
    let (begun, patience) = (Instant::now(), Duration::from_secs(args.timeout));
    let mut failed = None;
    while args.watch && !is_done(&view) && begun.elapsed() < patience {
        if failed.is_none() {
            eprintln!("{}", progress(&view));
        }
        std::thread::sleep(LOOK_EVERY);
        // A session may end meanwhile: each look takes what is kept of it, and refreshes it.
        match args.asked.remote.client().and_then(|client| client.look(&path, LOOK_PATIENCE)) {
            Ok(seen) => (view, failed) = (seen, None),
            Err(failure) => {
                eprintln!("a look failed, and the account may be as it was: {failure}");
                failed = Some(failure);
            }
        }
    }
    match args.asked.output {
        Output::Json => say(&format!("{view:#}\n"))?,
        Output::Table => say(&told(&view))?,
    }
    if let Some(failure) = failed {
        let what = format!("after {} s the account cannot be seen; the switch was thrown, and then: {}", args.timeout, progress(&view));
        return Err(Failure::new(Exit::Daemon, format!("{what}; {failure}")));
    }
    if args.watch && !is_done(&view) {
        return Err(Failure::new(Exit::Wrong, format!("after {} s: {}", args.timeout, progress(&view))));
    }
    Ok(())
}

fn is_done(view: &Value) -> bool {
    view.get("done").and_then(Value::as_bool) == Some(true)
}

fn items<'a>(view: &'a Value, name: &str) -> &'a [Value] {
    view.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn progress(view: &Value) -> String {
    let count = |name: &str| items(view, name).len();
    let (state, positions, working) = (cell(view, "state"), count("positions"), count("working"));
    let look = if view.get("close_not_confirmed").and_then(Value::as_bool) == Some(true) {
        "; the venue has not confirmed a close: somebody must look"
    } else {
        ""
    };
    format!("{state}: {positions} positions open, {working} orders work{look}")
}

fn told(view: &Value) -> String {
    let done = if is_done(view) { "done" } else { "not done yet" };
    let mut text = format!("account {}: {done}\n{}\n", cell(view, "account"), progress(view));
    for (name, columns) in [
        ("positions", &["symbol", "qty", "uncovered"][..]),
        ("working", &["client_order_id", "symbol", "side", "leaves"][..]),
        ("commands", &["command_id", "symbol", "side", "rest", "answered"][..]),
    ] {
        let found = items(view, name);
        if !found.is_empty() {
            text += &format!("\n{}", rows(found, columns));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_still_open_is_told_and_that_somebody_must_look() {
        let position = json!({"symbol": "AAPL", "qty": "5", "uncovered": "0"});
        let open =
            json!({"account": "A", "state": "halted", "done": false, "close_not_confirmed": true, "positions": [position], "working": []});
        assert_eq!(progress(&open), "halted: 1 positions open, 0 orders work; the venue has not confirmed a close: somebody must look");
        assert!(told(&open).contains("\nsymbol  qty  uncovered\nAAPL    5    0\n"), "{}", told(&open));
        let over = json!({"account": "A", "state": "halted", "done": true, "positions": [], "working": []});
        assert_eq!(told(&over), "account A: done\nhalted: 0 positions open, 0 orders work\n");
    }
}
