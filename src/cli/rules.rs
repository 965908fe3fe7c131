//! `ordergate rules`: the rules that bind every order, over the API: looked at, made, changed, tried.
//!
//! Invariant: a change says which version of the rule its operator saw, so that of two operators one hears of the other. Deliberately absent: rules
//! as flags; a rule is a JSON object, as the API and `gate.control` have it, and lives in a file.

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::{Value, json};

use super::answers::{Asked, Once, cell, object, print_list, print_one, query, rows, segment};
use super::remote::Output;
use super::{Exit, Failure, say};

const PATH: &str = "/api/v1/risk-rules";
const COLUMNS: [&str; 9] =
    ["id", "type", "scope.account", "threshold", "unit", "action", "active", "breach_count", "utilization.utilization"];

/// Arguments of `rules`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List rules, with what they did and how full they are
    List {
        /// Rules that cover this account
        #[arg(long, value_name = "ACCOUNT")]
        account: Option<String>,
        /// Rules of this type
        #[arg(long = "type", value_name = "TYPE")]
        rule_type: Option<String>,
        /// Rules that are active, or are not
        #[arg(long, value_name = "BOOL")]
        active: Option<bool>,
        #[command(flatten)]
        asked: Asked,
    },
    /// Show a rule; which version it is goes to standard error
    Show {
        /// The rule's id
        id: String,
        #[command(flatten)]
        asked: Asked,
    },
    /// Make a rule; it binds the very next order
    Create {
        /// The rule as a JSON object; - for standard input
        file: PathBuf,
        #[command(flatten)]
        once: Once,
        #[command(flatten)]
        asked: Asked,
    },
    /// Change a rule: the file is the whole rule as it is to be
    Change {
        /// The rule's id
        id: String,
        /// The rule as a JSON object; - for standard input
        file: PathBuf,
        /// The version that you saw, as `rules show` tells it: if the rule is another one by now, nothing is done. Without it, the
        /// rule is shown on standard error as it is before it is changed
        #[arg(long, value_name = "VERSION", value_parser = tag)]
        if_match: Option<String>,
        #[command(flatten)]
        asked: Asked,
    },
    /// Delete a rule, with its latches
    Delete {
        /// The rule's id
        id: String,
        #[command(flatten)]
        asked: Asked,
    },
    /// Try rules on an account's book, now or after an order; nothing changes. Exit 1 when the order would be blocked
    Test {
        /// The account
        account: String,
        /// Only this rule
        #[arg(long, value_name = "ID", conflicts_with = "with")]
        rule: Option<String>,
        /// The rule of this file in place of the one with its id, or besides the others
        #[arg(long, value_name = "FILE")]
        with: Option<PathBuf>,
        /// Only the rule of the file
        #[arg(long, requires = "with")]
        alone: bool,
        /// An order (symbol, side, order_type, qty, ..) as a JSON object
        #[arg(long, value_name = "FILE")]
        intent: Option<PathBuf>,
        #[command(flatten)]
        asked: Asked,
    },
}

/// Does it.
pub fn run(args: &Args) -> Result<(), Failure> {
    match &args.action {
        Action::List { account, rule_type, active, asked } => {
            let active = active.map(|active| active.to_string());
            let query = query(&[("account", account.as_deref()), ("type", rule_type.as_deref()), ("active", active.as_deref())]);
            print_list(asked.output, asked.remote.client()?.some(PATH, &query, usize::MAX)?, &COLUMNS)
        }
        Action::Show { id, asked } => {
            let (rule, tag) = asked.remote.client()?.seen(&at(id))?;
            eprintln!("rule {id}, version {}", bare(&tag));
            print_one(asked.output, &rule)
        }
        Action::Create { file, once, asked } => {
            let rule = object(file)?;
            print_one(asked.output, &asked.remote.client()?.send_with("POST", PATH, &once.headers(), &rule)?)
        }
        Action::Change { id, file, if_match, asked } => {
            let (rule, client) = (object(file)?, asked.remote.client()?);
            let tag = match if_match {
                Some(tag) => tag.clone(),
                None => {
                    let (before, tag) = client.seen(&at(id))?;
                    eprintln!("rule {id}, version {}, was {before}", bare(&tag));
                    tag
                }
            };
            print_one(asked.output, &client.send_with("PUT", &at(id), &[("if-match", &tag)], &rule)?)
        }
        Action::Delete { id, asked } => {
            let deleted = asked.remote.client()?.send("DELETE", &at(id), None)?;
            match asked.output {
                Output::Json => say(&format!("{deleted:#}\n")),
                Output::Table => say(&format!("rule {id} deleted\n")),
            }
        }
        Action::Test { account, rule, with, alone, intent, asked } => {
            let mut body = json!({"account": account, "alone": alone});
            if let Some(id) = rule {
                body["rule_id"] = id.as_str().into();
            }
            for (field, file) in [("rule", with), ("intent", intent)] {
                if let Some(file) = file {
                    body[field] = object(file)?;
                }
            }
            tried(asked, &body)
        }
    }
}

fn at(id: &str) -> String {
    format!("{PATH}/{}", segment(id))
}

/// A version as people type it, as an `ETag`.
fn tag(text: &str) -> Result<String, String> {
    let version: u64 = bare(text).parse().map_err(|_| "a number, as `ordergate rules show` tells it".to_owned())?;
    Ok(format!("\"{version}\""))
}

/// An `ETag` without its quotation marks.
fn bare(tag: &str) -> &str {
    tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')).unwrap_or(tag)
}

fn tried(asked: &Asked, body: &Value) -> Result<(), Failure> {
    let answer = asked.remote.client()?.send("POST", &format!("{PATH}/test"), Some(body))?;
    match asked.output {
        Output::Json => say(&format!("{answer:#}\n"))?,
        Output::Table => say(&tried_table(&answer))?,
    }
    if cell(&answer, "decision.verdict") == "block" {
        return Err(Failure::new(Exit::Wrong, "the order would be blocked"));
    }
    Ok(())
}

fn tried_table(answer: &Value) -> String {
    let mut text = String::new();
    if answer.get("decision").is_some_and(Value::is_object) {
        let reasons = answer.pointer("/decision/reasons").and_then(Value::as_array).cloned().unwrap_or_default();
        text += &format!("verdict: {}\napproved: {}\n\n", cell(answer, "decision.verdict"), cell(answer, "decision.approved_qty"));
        if !reasons.is_empty() {
            text += &format!("{}\n", rows(&reasons, &["code", "rule_id", "message"]));
        }
    }
    let uses = answer.get("after").or_else(|| answer.get("now")).and_then(Value::as_array).cloned().unwrap_or_default();
    text + &rows(&uses, &["rule_id", "rule_type", "symbol", "current", "limit", "utilization", "breach"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_may_be_typed_with_and_without_its_quotation_marks() {
        assert_eq!((tag("7"), tag("\"7\"")), (Ok("\"7\"".to_owned()), Ok("\"7\"".to_owned())));
        assert!(tag("").is_err() && tag("seven").is_err() && tag("\"7").is_err());
    }

    #[test]
    fn a_try_is_told_with_its_verdict_and_every_rule_that_was_asked() {
        let used =
            json!({"rule_id": "r-1", "rule_type": "max_leverage", "current": "3", "limit": "2", "utilization": "1.5", "breach": true});
        let decision =
            json!({"verdict": "block", "approved_qty": "0", "reasons": [{"code": "RULE", "rule_id": "r-1", "message": "too much"}]});
        let told = tried_table(&json!({"decision": decision, "after": [used.clone()], "now": []}));
        assert!(told.starts_with("verdict: block\napproved: 0\n\ncode  rule_id  message\nRULE  r-1      too much\n"), "{told}");
        assert!(told.contains("r-1      max_leverage  -       3        2      1.5          yes"), "{told}");
        assert!(tried_table(&json!({"now": [used]})).starts_with("rule_id"));
    }
}
