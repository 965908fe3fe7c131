//! The daemon's HTTP face, seen from a command.
//!
//! Invariant: what the daemon refused is told with its code and its words. Deliberately absent:
//! retries; a batch whose answer was lost may have been taken, and only the operator can say.

use std::time::Duration;

use serde_json::Value;
use ureq::http::Response;
use ureq::{Agent, Body};

use super::place::over_brokers;
use super::settings::ConfigFile;
use super::{Exit, Failure, OrExit};
use crate::app;
use crate::config::LogKind;
use crate::kafka::Cluster;

/// Where the daemon's API is when nothing else is said.
const HTTP_DEFAULT: &str = "127.0.0.1:8080";

/// Where to: a daemon, or a cluster.
#[derive(Debug, clap::Args)]
pub struct Target {
    /// Address of the daemon's API [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR", env = "ORDERGATE__HTTP__BIND", hide_env = true)]
    http: Option<String>,
    /// Kafka cluster to go to instead of a daemon (kafka.brokers); the other settings come from the configuration
    #[arg(long, value_name = "HOST:PORT")]
    brokers: Option<String>,
    #[command(flatten)]
    file: ConfigFile,
}

impl Target {
    /// The cluster: where brokers are named, or a configuration whose log is Kafka and no daemon.
    pub fn cluster(&self) -> Result<Option<Cluster>, Failure> {
        if self.brokers.is_none() && (self.http.is_some() || self.file.config.is_none()) {
            return Ok(None);
        }
        let config = self.file.load(&over_brokers(self.brokers.as_deref()))?;
        match config.log.kind {
            LogKind::Embedded => Ok(None),
            LogKind::Kafka => app::cluster(&config).map(Some),
        }
    }

    /// A client of the daemon.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::new(self.http.as_deref().unwrap_or(HTTP_DEFAULT))
    }
}

/// A connection to a daemon.
pub struct Client {
    agent: Agent,
    base: String,
}

impl Client {
    /// A client of the daemon at `address` (`host:port`).
    #[must_use]
    pub fn new(address: &str) -> Self {
        let config = Agent::config_builder().http_status_as_error(false).timeout_connect(Some(Duration::from_secs(5))).proxy(None).build();
        Self { agent: config.into(), base: format!("http://{address}") }
    }

    /// Posts a body and gives the answer's JSON, or the refusal.
    pub fn post(&self, path: &str, content_type: &str, body: &[u8]) -> Result<Value, Failure> {
        let sent = self.agent.post(format!("{}{path}", self.base)).header("content-type", content_type).send(body);
        let mut answer = self.checked(sent)?;
        let text = answer.body_mut().read_to_vec().or_exit(Exit::Daemon, || format!("{} did not answer to the end", self.base))?;
        serde_json::from_slice(&text).or_exit(Exit::Daemon, || format!("{} did not answer with JSON", self.base))
    }

    /// Gets a path; the answer's body is read as it comes.
    pub fn get(&self, path: &str) -> Result<Response<Body>, Failure> {
        self.checked(self.agent.get(format!("{}{path}", self.base)).call())
    }

    fn checked(&self, answer: Result<Response<Body>, ureq::Error>) -> Result<Response<Body>, Failure> {
        let mut answer = answer.or_exit(Exit::Daemon, || format!("cannot reach the daemon at {}", self.base))?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let body = answer.body_mut().read_to_string().unwrap_or_default();
        Err(Failure::new(Exit::Daemon, refusal(answer.status().as_u16(), &body)))
    }
}

/// A refusal in one line.
fn refusal(status: u16, body: &str) -> String {
    let problem: Value = serde_json::from_str(body).unwrap_or_default();
    let text = |name: &str| problem.get(name).and_then(Value::as_str).unwrap_or_default();
    let line = problem.get("line").and_then(Value::as_u64).map(|line| format!(" (line {line} of the batch)")).unwrap_or_default();
    format!("the daemon refused with {status} {}: {}{line}", text("code"), text("detail"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_with_its_code_its_words_and_its_line() {
        let told = refusal(400, r#"{"code":"LINE_INVALID","detail":"no topic","line":3}"#);
        assert_eq!(told, "the daemon refused with 400 LINE_INVALID: no topic (line 3 of the batch)");
    }
}
