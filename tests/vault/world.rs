//! A daemon with a vault, what it says on standard error kept, and everything that it answers.

use std::cell::RefCell;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use ureq::Agent;
use ureq::http::Request;

use crate::daemon::{Daemon, program};

/// 32 bytes that look random, in base64.
pub const MASTER: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
pub const OTHER_MASTER: &str = "ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA=";

/// Where a daemon keeps its things, and what it said.
pub struct World {
    pub folder: TempDir,
    /// All answers but those that are asked not to be kept, headers and all.
    pub heard: RefCell<String>,
    /// Where the brokers are.
    pub broker: String,
}

/// An answer.
pub struct Answer {
    pub status: u16,
    pub tag: String,
    pub body: Value,
}

impl World {
    pub fn new(broker: &str) -> Self {
        Self { folder: TempDir::new().unwrap(), heard: RefCell::default(), broker: broker.to_owned() }
    }

    /// What the daemons wrote on standard error.
    pub fn log(&self) -> PathBuf {
        self.folder.path().join("stderr")
    }

    /// Starts a daemon that tells all that it can tell.
    pub fn daemon(&self, master: &str) -> Daemon {
        let mut command = Command::new(program());
        command.args(["run", "--http", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--data-dir"]).arg(self.folder.path().join("data"));
        command.env("ORDERGATE_MASTER_KEY", master).env("ORDERGATE__TELEMETRY__LOG_LEVEL", "trace").env("RUST_BACKTRACE", "full");
        for name in ["REVEALS_PER_MINUTE", "VERIFICATIONS_PER_MINUTE"] {
            command.env(format!("ORDERGATE__VAULT__{name}"), "10000");
        }
        command.env("ORDERGATE__VAULT__BROKER_TIMEOUT_MS", "1000");
        for name in ["ALPACA", "ALPACA_PAPER", "BINANCE", "BINANCE_PAPER"] {
            command.env(format!("ORDERGATE__VAULT__BROKER_URLS__{name}"), &self.broker);
        }
        // What is freed is overwritten, or, beyond 14 KiB, which jemalloc does not overwrite, given back at once: what is found in memory then
        // is what something still holds.
        command.env("MALLOC_CONF", "junk:free,dirty_decay_ms:0,muzzy_decay_ms:0,tcache_max:8192");
        let log = File::options().create(true).append(true).open(self.log()).unwrap();
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let line = BufReader::new(child.stdout.take().unwrap()).lines().next().expect("it says where it listens").unwrap();
        let at = |name: &str| line.split(&format!("{name}=http://")).nth(1).unwrap().split([' ', '/']).next().unwrap().to_owned();
        // Each request has a connection of its own: one that was kept may be closed as it is used again.
        let agent = Agent::config_builder().http_status_as_error(false).max_idle_connections(0);
        let agent = agent.timeout_global(Some(Duration::from_secs(30))).build();
        let daemon = Daemon { http: at("http"), metrics: at("metrics"), child, agent: agent.into() };
        let begun = Instant::now();
        while daemon.get("/readyz").0 != 200 {
            assert!(begun.elapsed() < Duration::from_secs(30), "not ready");
            std::thread::sleep(Duration::from_millis(5));
        }
        daemon
    }

    /// Asks, and keeps what is answered.
    pub fn ask(&self, gate: &Daemon, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let (answer, text) = Self::ask_quietly(gate, method, path, headers, body);
        self.heard.borrow_mut().push_str(&text);
        answer
    }

    /// Asks, and gives the answer as it came beside what it says.
    pub fn ask_quietly(gate: &Daemon, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> (Answer, String) {
        let mut request = Request::builder().method(method).uri(format!("http://{}{path}", gate.http));
        if !body.is_empty() && !headers.iter().any(|(name, _)| *name == "content-type") {
            request = request.header("content-type", "application/json");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut answer = if body.is_empty() && method != "POST" && method != "PUT" {
            gate.agent.run(request.body(()).unwrap()).unwrap()
        } else {
            gate.agent.run(request.body(body.to_owned()).unwrap()).unwrap()
        };
        let text = answer.body_mut().read_to_string().unwrap_or_default();
        let tag = answer.headers().get("etag").map_or_else(String::new, |tag| tag.to_str().unwrap().to_owned());
        let whole = format!("{} {:?}\n{text}\n", answer.status(), answer.headers());
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        (Answer { status: answer.status().as_u16(), tag, body }, whole)
    }
}
