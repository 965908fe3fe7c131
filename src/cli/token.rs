//! `ordergate token`: API tokens for programs, made, listed and revoked over the API.

use clap::Subcommand;
use serde_json::{Value, json};

use super::remote::{Output, Remote, table};
use super::user::scope;
use super::{Exit, Failure, say};
use crate::control::people::Scope;

/// Arguments of `token`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make a token; it is printed this once
    Create {
        /// What it is for
        name: String,
        /// Who it acts as; yourself when not said
        #[arg(long, value_name = "NAME")]
        user: Option<String>,
        /// What it may do of what its user may (can be given again)
        #[arg(long = "scope", value_name = "SCOPE", value_parser = scope)]
        scopes: Vec<Scope>,
        /// When it ends, as RFC 3339
        #[arg(long, value_name = "TIME")]
        expires_at: Option<String>,
        #[command(flatten)]
        remote: Remote,
        /// How to print; a table is the token alone
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
    /// List tokens: your own, for an admin all
    List {
        #[command(flatten)]
        remote: Remote,
        /// How to print
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
    /// Revoke a token for good
    Revoke {
        /// The token's id
        id: String,
        #[command(flatten)]
        remote: Remote,
    },
}

/// Does it.
pub fn run(args: &Args) -> Result<(), Failure> {
    match &args.action {
        Action::Create { name, user, scopes, expires_at, remote, output } => {
            let mut body = json!({"name": name, "scopes": scopes});
            for (field, value) in [("user", user), ("expires_at", expires_at)] {
                if let Some(value) = value {
                    body[field] = json!(value);
                }
            }
            created(&remote.client()?.send("POST", "/api/v1/api-tokens", Some(&body))?, *output)
        }
        Action::List { remote, output } => list(remote, *output),
        Action::Revoke { id, remote } => {
            if !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
                return Err(Failure::new(Exit::Usage, "the id of a token has letters and digits only"));
            }
            remote.client()?.send("DELETE", &format!("/api/v1/api-tokens/{id}"), None)?;
            say(&format!("token {id} revoked\n"))
        }
    }
}

fn created(answer: &Value, output: Output) -> Result<(), Failure> {
    match output {
        Output::Json => say(&format!("{answer:#}\n")),
        Output::Table => say(&format!("{}\n", answer.get("secret").and_then(Value::as_str).unwrap_or_default())),
    }
}

fn list(remote: &Remote, output: Output) -> Result<(), Failure> {
    let tokens = remote.client()?.list("/api/v1/api-tokens")?;
    if output == Output::Json {
        return say(&format!("{:#}\n", Value::Array(tokens)));
    }
    let cell = |token: &Value, field: &str| match token.get(field) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(items)) => items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(","),
        Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) | None => "-".to_owned(),
    };
    let fields = ["id", "user", "name", "scopes", "created_at", "expires_at", "last_used_at"];
    let rows: Vec<Vec<String>> = tokens.iter().map(|token| fields.iter().map(|field| cell(token, field)).collect()).collect();
    say(&table(&fields, &rows))
}
