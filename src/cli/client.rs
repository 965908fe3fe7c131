//! The daemon's HTTP face, seen from a command.
//!
//! Invariant: what the daemon refused is told with its code and its words. Deliberately absent:
//! retries; a batch whose answer was lost may have been taken, and only the operator can say.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use ureq::config::ConfigBuilder;
use ureq::http::{Request, Response, request};
use ureq::tls::{PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem};
use ureq::typestate::AgentScope;
use ureq::{Agent, Body};
use zeroize::Zeroizing;

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
    /// File with an API token, where the daemon has users
    #[arg(long, value_name = "FILE", env = "ORDERGATE_TOKEN_FILE", hide_env = true)]
    token_file: Option<PathBuf>,
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
    pub fn client(&self) -> Result<Client, Failure> {
        let client = Client::new(self.http.as_deref().unwrap_or(HTTP_DEFAULT));
        let Some(path) = &self.token_file else { return Ok(client) };
        let text = Zeroizing::new(std::fs::read_to_string(path).or_exit(Exit::Io, || format!("cannot read {}", path.display()))?);
        Ok(client.with_token(Zeroizing::new(text.trim().to_owned())))
    }
}

/// A connection to a daemon.
pub struct Client {
    agent: Agent,
    base: String,
    token: Option<Zeroizing<String>>,
}

impl Client {
    /// A client of the daemon at `address` (`host:port`) on this machine.
    #[must_use]
    pub fn new(address: &str) -> Self {
        Self { agent: settings().build().into(), base: format!("http://{address}"), token: None }
    }

    /// A client of the daemon at `url`. Over TLS it trusts the certificates of `trusted`, or the public ones.
    pub fn at(url: &str, trusted: Option<&Path>) -> Result<Self, Failure> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = TlsConfig::builder().provider(TlsProvider::Rustls).unversioned_rustls_crypto_provider(provider);
        let tls = match trusted {
            None => tls,
            Some(path) => tls.root_certs(roots(path)?),
        };
        let agent = settings().tls_config(tls.build()).build().into();
        Ok(Self { agent, base: url.to_owned(), token: None })
    }

    /// The same, sending this token.
    #[must_use]
    pub fn with_token(self, token: Zeroizing<String>) -> Self {
        Self { token: Some(token), ..self }
    }

    /// Posts a body and gives the answer's JSON, or the refusal.
    pub fn post(&self, path: &str, content_type: &str, body: &[u8]) -> Result<Value, Failure> {
        let request = Request::post(format!("{}{path}", self.base)).header("content-type", content_type);
        let answer = self.run(request, body)?;
        self.json(answer)
    }

    /// Sends JSON, or nothing, and gives the answer's JSON; `null` where it has none.
    pub fn send(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, Failure> {
        let request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        let answer = match body {
            Some(body) => self.run(request.header("content-type", "application/json"), body.to_string().as_bytes())?,
            None => self.run(request, &[])?,
        };
        if answer.status() == 204 { Ok(Value::Null) } else { self.json(answer) }
    }

    /// Sends JSON with headers and gives the answer's JSON.
    pub fn send_with(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &Value) -> Result<Value, Failure> {
        let request = Request::builder().method(method).uri(format!("{}{path}", self.base)).header("content-type", "application/json");
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let answer = self.run(request, body.to_string().as_bytes())?;
        self.json(answer)
    }

    /// Gets an object and the `ETag` that says which version of it was seen.
    pub fn seen(&self, path: &str) -> Result<(Value, String), Failure> {
        let answer = self.get(path)?;
        let tag = answer.headers().get("etag").and_then(|tag| tag.to_str().ok()).unwrap_or_default().to_owned();
        Ok((self.json(answer)?, tag))
    }

    /// Gets an object, and gives up after a while: for who looks again and again.
    pub fn look(&self, path: &str, patience: Duration) -> Result<Value, Failure> {
        let wrong = || format!("{} is no address to ask", self.base);
        let request = self.signed(Request::get(format!("{}{path}", self.base))).body(()).or_exit(Exit::Usage, wrong)?;
        let request = self.agent.configure_request(request).timeout_global(Some(patience)).build();
        let answer = self.checked(self.agent.run(request))?;
        self.json(answer)
    }

    /// All entries of a list, page by page.
    pub fn list(&self, path: &str) -> Result<Vec<Value>, Failure> {
        self.some(path, "", usize::MAX)
    }

    /// The first entries of a list that a query asks for, page by page.
    pub fn some(&self, path: &str, query: &str, most: usize) -> Result<Vec<Value>, Failure> {
        let (mut items, mut cursor) = (Vec::new(), String::new());
        let more = if query.is_empty() { String::new() } else { format!("&{query}") };
        loop {
            let limit = most.saturating_sub(items.len()).min(500);
            let page = self.send("GET", &format!("{path}?limit={limit}{more}{cursor}"), None)?;
            items.extend(page.get("items").and_then(Value::as_array).cloned().unwrap_or_default());
            match page.get("next_cursor").and_then(Value::as_str) {
                Some(next) if items.len() < most => cursor = format!("&cursor={next}"),
                Some(_) | None => return Ok(items),
            }
        }
    }

    /// Gets a path; the answer's body is read as it comes.
    pub fn get(&self, path: &str) -> Result<Response<Body>, Failure> {
        self.run(Request::get(format!("{}{path}", self.base)), &[])
    }

    fn signed(&self, request: request::Builder) -> request::Builder {
        match &self.token {
            Some(token) => request.header("authorization", format!("Bearer {}", token.as_str())),
            None => request,
        }
    }

    fn run(&self, request: request::Builder, body: &[u8]) -> Result<Response<Body>, Failure> {
        let request = self.signed(request);
        let wrong = || format!("{} is no address to ask", self.base);
        let answer = if body.is_empty() {
            self.agent.run(request.body(()).or_exit(Exit::Usage, wrong)?)
        } else {
            self.agent.run(request.body(body).or_exit(Exit::Usage, wrong)?)
        };
        self.checked(answer)
    }

    fn json(&self, mut answer: Response<Body>) -> Result<Value, Failure> {
        let text = answer.body_mut().read_to_vec().or_exit(Exit::Daemon, || format!("{} did not answer to the end", self.base))?;
        serde_json::from_slice(&text).or_exit(Exit::Daemon, || format!("{} did not answer with JSON", self.base))
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

fn settings() -> ConfigBuilder<AgentScope> {
    Agent::config_builder().http_status_as_error(false).timeout_connect(Some(Duration::from_secs(5))).proxy(None)
}

/// The certificates of a file.
fn roots(path: &Path) -> Result<RootCerts, Failure> {
    let doing = || format!("cannot read certificates from {}", path.display());
    let pem = std::fs::read(path).or_exit(Exit::Io, doing)?;
    let mut found = Vec::new();
    for item in parse_pem(&pem) {
        if let PemItem::Certificate(certificate) = item.or_exit(Exit::Usage, doing)? {
            found.push(certificate);
        }
    }
    if found.is_empty() { Err(Failure::new(Exit::Usage, doing())) } else { Ok(RootCerts::from(found)) }
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
