//! `ordergate accounts`: accounts over the API: looked at, opened, paid in, halted, limited.
//!
//! Invariant: what moves money takes a key, under which it moves once. Deliberately absent: the kill switch, which is a command of its
//! own (`kill.rs`), so that nobody has to look for it.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};
use serde_json::{Map, Value, json};

use super::answers::{Asked, Once, object, print_list, print_one, segment};
use super::{Exit, Failure};

const PATH: &str = "/api/v1/accounts";
const COLUMNS: [&str; 8] = ["account", "owner", "currency", "cash", "equity", "state", "closed", "latches"];

/// Arguments of `accounts`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List the accounts that you may know of
    List {
        #[command(flatten)]
        asked: Asked,
    },
    /// Show an account
    Show {
        /// The account
        account: String,
        #[command(flatten)]
        asked: Asked,
    },
    /// Open an account
    Open {
        /// Its id
        account: String,
        /// The user that it belongs to
        #[arg(long, value_name = "NAME")]
        owner: String,
        /// What it starts with
        #[arg(long, value_name = "AMOUNT")]
        cash: String,
        /// Its currency [default: USD]
        #[arg(long, value_name = "CODE")]
        currency: Option<String>,
        /// When its trading day ends, as "HH:MM Zone" [default: 00:00 UTC]
        #[arg(long, value_name = "TIME")]
        day_roll: Option<String>,
        /// Its limits as a JSON object
        #[arg(long, value_name = "FILE")]
        limits: Option<PathBuf>,
        #[command(flatten)]
        once: Once,
        #[command(flatten)]
        asked: Asked,
    },
    /// Move money in (above zero) or out (below)
    Cash {
        /// The account
        account: String,
        /// How much
        #[arg(allow_hyphen_values = true)]
        amount: String,
        /// Why, for people
        #[arg(long, value_name = "TEXT")]
        reason: String,
        #[command(flatten)]
        once: Once,
        #[command(flatten)]
        asked: Asked,
    },
    /// Set the trading state of an account, or of one of its symbols or strategies
    State {
        /// The account
        account: String,
        /// The state
        #[arg(value_enum)]
        state: State,
        /// Why, for people
        #[arg(long, value_name = "TEXT")]
        reason: String,
        /// Only of this symbol
        #[arg(long, value_name = "SYMBOL")]
        symbol: Option<String>,
        /// Only of this strategy
        #[arg(long, value_name = "NAME")]
        strategy: Option<String>,
        /// Command a cancel of every working order in scope
        #[arg(long)]
        cancel_orders: bool,
        /// Command a close of every position in scope
        #[arg(long)]
        flatten: bool,
        #[command(flatten)]
        asked: Asked,
    },
    /// Show the limits of an account, or set some
    Limits {
        /// The account
        account: String,
        /// A limit to set, as max_order_qty=100; null turns it off, also a default (can be given again)
        #[arg(long = "set", value_name = "NAME=VALUE", value_parser = limit)]
        set: Vec<(String, Value)>,
        #[command(flatten)]
        asked: Asked,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum State {
    /// Everything
    Active,
    /// Only what strictly reduces
    #[value(name = "reduce_only")]
    ReduceOnly,
    /// Likewise, until somebody ends it
    Halted,
}

impl State {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::ReduceOnly => "reduce_only",
            Self::Halted => "halted",
        }
    }
}

/// Reads a limit; which ones there are, and which values they may have, the daemon says.
fn limit(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').ok_or("NAME=VALUE")?;
    let value = match (name, value) {
        (_, "null") => Value::Null,
        ("max_price_age_ms" | "order_rate_limit" | "order_rate_window_ms" | "duplicate_window_ms", number) => {
            number.parse::<i64>().map(Value::from).map_err(|_| format!("{name} is a whole number"))?
        }
        ("self_trade_prevention", truth) => truth.parse::<bool>().map(Value::from).map_err(|_| format!("{name} is true or false"))?,
        ("notify", list) => list.split(',').filter(|word| !word.is_empty()).map(Value::from).collect(),
        // Decimals are strings on the wire.
        (_, decimal) => decimal.into(),
    };
    Ok((name.to_owned(), value))
}

/// Does it.
pub fn run(args: &Args) -> Result<(), Failure> {
    match &args.action {
        Action::List { asked } => print_list(asked.output, asked.remote.client()?.list(PATH)?, &COLUMNS),
        Action::Show { account, asked } => print_one(asked.output, &asked.remote.client()?.send("GET", &at(account, ""), None)?),
        Action::Open { account, owner, cash, currency, day_roll, limits, once, asked } => {
            let mut body = json!({"account": account, "owner": owner, "cash": cash});
            for (field, value) in [("currency", currency), ("day_roll", day_roll)] {
                if let Some(value) = value {
                    body[field] = value.as_str().into();
                }
            }
            if let Some(file) = limits {
                body["limits"] = object(file)?;
            }
            post(asked, PATH, once, &body)
        }
        Action::Cash { account, amount, reason, once, asked } => {
            post(asked, &at(account, "/cash"), once, &json!({"amount": amount, "reason": reason}))
        }
        Action::State { account, state, reason, symbol, strategy, cancel_orders, flatten, asked } => {
            let mut body = json!({"state": state.as_str(), "reason": reason, "cancel_orders": cancel_orders, "flatten": flatten});
            for (field, value) in [("symbol", symbol), ("strategy", strategy)] {
                if let Some(value) = value {
                    body[field] = value.as_str().into();
                }
            }
            print_one(asked.output, &asked.remote.client()?.send("POST", &at(account, "/state"), Some(&body))?)
        }
        Action::Limits { account, set, asked } => {
            let client = asked.remote.client()?;
            if !set.is_empty() {
                let body: Map<String, Value> = set.iter().cloned().collect();
                if body.len() < set.len() {
                    return Err(Failure::new(Exit::Usage, "a limit is set twice"));
                }
                client.send("POST", &at(account, "/limits"), Some(&Value::Object(body)))?;
            }
            print_one(asked.output, &client.send("GET", &at(account, "/limits"), None)?)
        }
    }
}

fn post(asked: &Asked, path: &str, once: &Once, body: &Value) -> Result<(), Failure> {
    print_one(asked.output, &asked.remote.client()?.send_with("POST", path, &once.headers(), body)?)
}

fn at(account: &str, more: &str) -> String {
    format!("{PATH}/{}{more}", segment(account))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_has_the_type_that_the_wire_has_it_in() {
        for (text, value) in [
            ("max_order_qty=100", json!("100")),
            ("order_rate_limit=5", json!(5)),
            ("self_trade_prevention=true", json!(true)),
            ("notify=a,b", json!(["a", "b"])),
            ("max_order_value=null", Value::Null),
        ] {
            assert_eq!(limit(text).unwrap().1, value, "{text}");
        }
        for text in ["max_order_qty", "order_rate_limit=many", "self_trade_prevention=1"] {
            assert!(limit(text).is_err(), "{text}");
        }
    }
}
