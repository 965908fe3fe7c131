//! `ordergate vault`: how the vault is, whether every secret opens, a new key-encryption key.
//!
//! Invariant: goes over the API, as an administrator. The daemon has the master key, follows the directory and may be one of several;
//! against the embedded log itself nothing could be done while it runs, and a second copy of the master key would be needed where the
//! operator sits. Deliberately absent: secrets, in any output.

use std::time::Duration;

use clap::Subcommand;
use serde_json::Value;

use super::remote::{Output, Remote, table};
use super::{Exit, Failure, say};

/// How often a rotation that goes on is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Arguments of `vault`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Say whether the vault is locked, and what is sealed under which key-encryption key: exit 1 when it is locked
    Status(Asked),
    /// Open every secret: exit 1 when one does not open
    Verify(Asked),
    /// Make a new key-encryption key and wrap all secrets anew, or end such a rotation that was cut off
    Rotate(Asked),
}

/// Of which daemon, and how to print.
#[derive(Debug, clap::Args)]
struct Asked {
    #[command(flatten)]
    remote: Remote,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Does it.
pub fn run(args: &Args) -> Result<(), Failure> {
    match &args.action {
        Action::Status(asked) => {
            let status = asked.remote.client()?.send("GET", "/api/v1/vault/status", None)?;
            print(asked.output, &status, status_table)?;
            let reason = text(&status, "reason");
            if text(&status, "state") == "locked" {
                Err(Failure::new(Exit::Wrong, format!("the vault is locked: {reason}")))
            } else {
                Ok(())
            }
        }
        Action::Verify(asked) => {
            let verified = asked.remote.client()?.send("POST", "/api/v1/vault/verify", None)?;
            print(asked.output, &verified, |verified| format!("{} secrets open\n{}", number(verified, "opened"), failures(verified)))?;
            whole(&verified)
        }
        Action::Rotate(asked) => rotate(asked),
    }
}

fn rotate(asked: &Asked) -> Result<(), Failure> {
    let client = asked.remote.client()?;
    let rotated = client.send("POST", "/api/v1/vault/rotate", None)?;
    if rotated.get("ended").and_then(Value::as_bool) == Some(true) {
        print(asked.output, &rotated, rotation_table)?;
        return whole(&rotated);
    }
    loop {
        std::thread::sleep(LOOK_EVERY);
        let status = client.send("GET", "/api/v1/vault/status", None)?;
        if status.get("rotating").and_then(Value::as_bool) == Some(false) {
            print(asked.output, &status, status_table)?;
            let left = number(&status, "to_rewrap");
            let cut_off = || {
                Failure::new(
                    Exit::Wrong,
                    format!("{left} secrets are still under an older key: look at `ordergate vault verify`, then rotate again"),
                )
            };
            return if left == 0 { Ok(()) } else { Err(cut_off()) };
        }
        eprintln!("{} of {} secrets to go", number(&status, "to_rewrap"), number(&status, "secrets"));
    }
}

fn print(output: Output, answer: &Value, table: impl Fn(&Value) -> String) -> Result<(), Failure> {
    match output {
        Output::Json => say(&format!("{answer:#}\n")),
        Output::Table => say(&table(answer)),
    }
}

fn text<'a>(answer: &'a Value, name: &str) -> &'a str {
    answer.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn number(answer: &Value, name: &str) -> u64 {
    answer.get(name).and_then(Value::as_u64).unwrap_or_default()
}

fn items<'a>(answer: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    answer.get(name).and_then(Value::as_array).into_iter().flatten()
}

fn status_table(status: &Value) -> String {
    let opens = |kek: &Value| if kek.get("opens").and_then(Value::as_bool) == Some(true) { "yes" } else { "no" };
    let rows: Vec<Vec<String>> = items(status, "keks")
        .map(|kek| {
            let (version, secrets) = (number(kek, "version").to_string(), number(kek, "secrets").to_string());
            vec![version, text(kek, "created_at").to_owned(), opens(kek).to_owned(), secrets]
        })
        .collect();
    let head =
        format!("state: {}\nsecrets: {}\nto rewrap: {}\n", text(status, "state"), number(status, "secrets"), number(status, "to_rewrap"));
    if rows.is_empty() { head } else { format!("{head}\n{}", table(&["kek", "created_at", "opens", "secrets"], &rows)) }
}

fn rotation_table(rotated: &Value) -> String {
    let resumed = if rotated.get("resumed").and_then(Value::as_bool) == Some(true) { " (taken up)" } else { "" };
    let (moved, to) = (number(rotated, "rewrapped"), number(rotated, "to"));
    format!("{moved} secrets are under key-encryption key {to}{resumed}\n{}", failures(rotated))
}

fn failures(answer: &Value) -> String {
    let rows: Vec<Vec<String>> =
        items(answer, "failed").map(|failed| vec![text(failed, "id").to_owned(), text(failed, "why").to_owned()]).collect();
    if rows.is_empty() { String::new() } else { table(&["api key", "does not open"], &rows) }
}

/// Exit 1 when something does not open.
fn whole(answer: &Value) -> Result<(), Failure> {
    match items(answer, "failed").count() {
        0 => Ok(()),
        failed => Err(Failure::new(Exit::Wrong, format!("{failed} secrets do not open"))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_printed_for_people_has_what_is_in_the_answer() {
        let kek = json!({"version": 2, "created_at": "2026-01-01T00:00:00Z", "opens": true, "secrets": 7});
        let status = json!({"state": "unlocked", "reason": null, "keks": [kek], "secrets": 7, "to_rewrap": 0, "rotating": false});
        let shown = status_table(&status);
        assert!(shown.starts_with("state: unlocked\nsecrets: 7\nto rewrap: 0\n\nkek"), "{shown}");
        assert!(shown.contains("2    2026-01-01T00:00:00Z  yes    7"), "{shown}");
        let rotated = json!({"ended": true, "to": 3, "resumed": true, "rewrapped": 6, "failed": [{"id": "key_1", "why": "damaged"}]});
        assert!(rotation_table(&rotated).starts_with("6 secrets are under key-encryption key 3 (taken up)\napi key"));
        assert!(whole(&rotated).is_err() && whole(&json!({"failed": []})).is_ok());
    }
}
