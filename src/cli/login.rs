//! `ordergate login`: a session for the commands that use the API.

use serde_json::json;

use super::remote::{Remote, keep};
use super::user::PasswordFrom;
use super::{Failure, say};

/// Arguments of `login`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The user
    name: String,
    #[command(flatten)]
    password: PasswordFrom,
    #[command(flatten)]
    remote: Remote,
}

/// Logs in, and keeps the tokens in the token file.
pub fn run(args: &Args) -> Result<(), Failure> {
    let (client, url) = args.remote.stranger()?;
    let password = args.password.read(false)?;
    let answer = client.send("POST", "/api/v1/auth/login", Some(&json!({"name": args.name, "password": *password})))?;
    let path = args.remote.kept_at();
    keep(&path, &url, &answer)?;
    say(&format!("logged in as {} at {url}; the session is in {}\n", args.name, path.display()))
}
