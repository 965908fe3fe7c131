//! The API of a daemon, as somebody: where it is, with which token, and how answers are printed.
//!
//! Invariant: tokens come from files, never from arguments, which everyone on the machine can read. A session that `ordergate login`
//! wrote is refreshed when its access token has ended, and its file is replaced whole. Deliberately absent: plain HTTP beyond this
//! machine with a token, which anyone on the way could take.

use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::client::Client;
use super::{Exit, Failure, OrExit};
use crate::engine::{Clock, SystemClock};

const URL_DEFAULT: &str = "http://127.0.0.1:8080";
/// An access token that ends within this time is refreshed first.
const EARLY_MS: i64 = 10_000;

/// How to print.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    #[default]
    Table,
    /// For programs
    Json,
}

/// Which daemon, as whom.
#[derive(Debug, clap::Args)]
pub struct Remote {
    /// The daemon's API [default: http://127.0.0.1:8080]
    #[arg(long, value_name = "URL", env = "ORDERGATE_URL", hide_env = true)]
    url: Option<String>,
    /// File with an API token, or the session that `ordergate login` wrote [default: that of login, if it is there]
    #[arg(long, value_name = "FILE", env = "ORDERGATE_TOKEN_FILE", hide_env = true)]
    token_file: Option<PathBuf>,
    /// Certificates to trust (PEM) instead of the public ones
    #[arg(long, value_name = "FILE", env = "ORDERGATE_CA_FILE", hide_env = true)]
    ca_file: Option<PathBuf>,
}

/// What `ordergate login` keeps.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Session {
    url: String,
    access_token: Zeroizing<String>,
    expires_at_ms: i64,
    refresh_token: Zeroizing<String>,
}

impl Remote {
    /// The daemon at `url`.
    #[must_use]
    pub fn at(url: String, token_file: Option<PathBuf>, ca_file: Option<PathBuf>) -> Self {
        Self { url: Some(url), token_file, ca_file }
    }

    /// A client with the token, if there is one.
    pub fn client(&self) -> Result<Client, Failure> {
        let (path, named) = match &self.token_file {
            Some(path) => (path.clone(), true),
            None => (session_file(), false),
        };
        if !named && !path.exists() {
            return Client::at(&self.url(None), self.ca_file.as_deref());
        }
        let text = Zeroizing::new(std::fs::read_to_string(&path).or_exit(Exit::Io, || format!("cannot read {}", path.display()))?);
        let Ok(session) = serde_json::from_str::<Session>(&text) else {
            let url = self.url(None);
            refuse_in_clear(&url)?;
            return Ok(Client::at(&url, self.ca_file.as_deref())?.with_token(Zeroizing::new(text.trim().to_owned())));
        };
        let url = self.url(Some(&session.url));
        if url != session.url {
            let what = format!("{} is a session at {}, and not at {url}", path.display(), session.url);
            return Err(Failure::new(Exit::Usage, what));
        }
        refuse_in_clear(&url)?;
        let client = Client::at(&url, self.ca_file.as_deref())?;
        if session.expires_at_ms - SystemClock::new().wall_ms() > EARLY_MS {
            return Ok(client.with_token(session.access_token));
        }
        let answer = client.send("POST", "/api/v1/auth/refresh", Some(&json!({"refresh_token": *session.refresh_token})))?;
        Ok(client.with_token(keep(&path, &url, &answer)?))
    }

    /// A client without a token, for a login.
    pub fn stranger(&self) -> Result<(Client, String), Failure> {
        let url = self.url(None);
        refuse_in_clear(&url)?;
        Ok((Client::at(&url, self.ca_file.as_deref())?, url))
    }

    /// Where a login is kept.
    #[must_use]
    pub fn kept_at(&self) -> PathBuf {
        self.token_file.clone().unwrap_or_else(session_file)
    }

    fn url(&self, otherwise: Option<&str>) -> String {
        let url = self.url.as_deref().or(otherwise).unwrap_or(URL_DEFAULT);
        url.trim_end_matches('/').to_owned()
    }
}

/// Keeps the tokens of an answer, and gives the access token.
pub fn keep(path: &Path, url: &str, answer: &Value) -> Result<Zeroizing<String>, Failure> {
    let text = |name: &str| answer.get(name).and_then(Value::as_str).map(|text| Zeroizing::new(text.to_owned()));
    let (access, refresh) = (text("access_token"), text("refresh_token"));
    let (Some(access_token), Some(refresh_token)) = (access, refresh) else {
        return Err(Failure::new(Exit::Daemon, format!("{url} gave no tokens")));
    };
    let seconds = answer.get("expires_in").and_then(Value::as_i64).unwrap_or(0);
    let expires_at_ms = SystemClock::new().wall_ms() + seconds * 1_000;
    let session = Session { url: url.to_owned(), access_token: access_token.clone(), expires_at_ms, refresh_token };
    let json = Zeroizing::new(serde_json::to_string(&session).or_exit(Exit::Io, || "cannot write JSON".to_owned())?);
    write_private(path, &json).or_exit(Exit::Io, || format!("cannot write {}", path.display()))?;
    Ok(access_token)
}

fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        std::fs::create_dir_all(dir)?;
    }
    let fresh = path.with_extension(format!("new-{}", std::process::id()));
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&fresh, path)
}

fn session_file() -> PathBuf {
    let config = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).filter(|dir| dir.is_absolute());
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".config"));
    config.or_else(home).unwrap_or_default().join("ordergate").join("session.json")
}

/// A password or a token goes over TLS, or stays on this machine.
fn refuse_in_clear(url: &str) -> Result<(), Failure> {
    let Some(rest) = url.strip_prefix("http://") else { return Ok(()) };
    let authority = rest.split('/').next().unwrap_or(rest);
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if bare.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()) {
        return Ok(());
    }
    Err(Failure::new(Exit::Usage, format!("{url} is another machine, and would get the token in clear: use https")))
}

/// Rows under their headings.
#[must_use]
pub fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([headings[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    let line = |cells: Vec<&str>| {
        let padded: String = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}  ")).collect();
        format!("{}\n", padded.trim_end())
    };
    let head = line(headings.to_vec());
    rows.iter().fold(head, |text, row| text + &line(row.iter().map(String::as_str).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_goes_to_this_machine_or_over_tls() {
        for url in ["http://127.0.0.1:8080", "http://localhost", "http://[::1]:8080", "https://gate.example"] {
            assert!(refuse_in_clear(url).is_ok(), "{url}");
        }
        for url in ["http://gate.example", "http://10.0.0.1:8080", "http://127.0.0.1.evil.example"] {
            assert!(refuse_in_clear(url).is_err(), "{url}");
        }
    }

    #[test]
    fn rows_stand_under_their_headings() {
        let rows = [vec!["a".to_owned(), "long one".to_owned()], vec!["bcd".to_owned(), String::new()]];
        assert_eq!(table(&["id", "name"], &rows), "id   name\na    long one\nbcd\n");
    }
}
