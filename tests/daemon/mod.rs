//! The daemon as a process, for tests: started on free loopback ports, ended by its own id.

#![expect(dead_code, reason = "each test binary uses its part of it")]

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use ureq::Agent;

/// The program: cargo's, or another build of it.
pub fn program() -> String {
    std::env::var("ORDERGATE_BIN").unwrap_or_else(|_| env!("CARGO_BIN_EXE_ordergate").to_owned())
}

/// A running daemon. It is killed when it is dropped.
pub struct Daemon {
    pub child: Child,
    pub http: String,
    pub metrics: String,
    pub agent: Agent,
}

/// Starts a daemon and does not wait for anything.
pub fn spawn(dir: &Path, settings: &[(&str, &str)]) -> Child {
    command(dir, settings).spawn().unwrap()
}

/// The same, keeping what it says on standard error.
pub fn spawn_with_errors(dir: &Path, settings: &[(&str, &str)]) -> Child {
    command(dir, settings).stderr(Stdio::piped()).spawn().unwrap()
}

/// A daemon, once it says where its API listens.
pub fn listening(mut child: Child) -> (Child, String) {
    let line = BufReader::new(child.stdout.take().unwrap()).lines().next().expect("it says where it listens").unwrap();
    let http = line.split("://").nth(1).unwrap_or_else(|| panic!("{line}"));
    let at = http.split([' ', '/']).next().unwrap().to_owned();
    (child, at)
}

fn command(dir: &Path, settings: &[(&str, &str)]) -> Command {
    let mut command = Command::new(program());
    command.args(["run", "--http", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--data-dir"]).arg(dir);
    command.env("ORDERGATE__TELEMETRY__LOG_LEVEL", "error");
    // No test asks a real broker.
    for broker in ["ALPACA", "ALPACA_PAPER", "BINANCE", "BINANCE_PAPER"] {
        command.env(format!("ORDERGATE__VAULT__BROKER_URLS__{broker}"), "http://127.0.0.1:9");
    }
    for (key, value) in settings {
        // A key of the configuration, or a variable that is none.
        let is_variable = key.starts_with("ORDERGATE_");
        command.env(if is_variable { (*key).to_owned() } else { format!("ORDERGATE__{}", key.to_uppercase().replace('.', "__")) }, value);
    }
    command.stdout(Stdio::piped());
    command
}

impl Daemon {
    /// Starts a daemon and waits until it decides.
    pub fn start(dir: &Path, settings: &[(&str, &str)]) -> Self {
        let mut child = spawn(dir, settings);
        let line = BufReader::new(child.stdout.take().unwrap()).lines().next().expect("it says where it listens").unwrap();
        let at = |name: &str| {
            let rest = line.split(&format!("{name}=http://")).nth(1).unwrap_or_else(|| panic!("{line}"));
            rest.split([' ', '/']).next().unwrap().to_owned()
        };
        let config = Agent::config_builder().http_status_as_error(false).timeout_global(Some(Duration::from_secs(30))).build();
        let daemon = Self { http: at("http"), metrics: at("metrics"), child, agent: config.into() };
        let begun = Instant::now();
        while daemon.get("/readyz").0 != 200 {
            assert!(begun.elapsed() < Duration::from_secs(30), "not ready: {:?}", daemon.get("/readyz"));
            std::thread::sleep(Duration::from_millis(5));
        }
        daemon
    }

    pub fn get(&self, path: &str) -> (u16, String) {
        self.get_from(&self.http, path)
    }

    pub fn get_from(&self, host: &str, path: &str) -> (u16, String) {
        let mut answer = self.agent.get(format!("http://{host}{path}")).call().unwrap();
        (answer.status().as_u16(), answer.body_mut().read_to_string().unwrap())
    }

    pub fn post(&self, path: &str, content_type: &str, body: &str) -> (u16, Value) {
        let url = format!("http://{}{path}", self.http);
        let mut answer = self.agent.post(url).header("content-type", content_type).send(body).unwrap();
        let text = answer.body_mut().read_to_string().unwrap();
        (answer.status().as_u16(), serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    /// Posts lines.
    pub fn records(&self, lines: &str) -> (u16, Value) {
        self.post("/api/v1/records", "application/x-ndjson", lines)
    }

    /// Posts one intent.
    pub fn intent(&self, body: &str) -> (u16, Value) {
        self.post("/api/v1/intents", "application/json", body)
    }

    /// All records of a topic, as lines.
    pub fn topic(&self, topic: &str) -> Vec<Value> {
        let (status, text) = self.get(&format!("/api/v1/topics/{topic}/records?limit=10000"));
        assert_eq!(status, 200, "{text}");
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// All records of a topic, once there are so many: outputs leave after their frame is committed.
    pub fn topic_with(&self, topic: &str, records: usize) -> Vec<Value> {
        let begun = Instant::now();
        loop {
            let found = self.topic(topic);
            if found.len() >= records {
                assert_eq!(found.len(), records);
                return found;
            }
            assert!(begun.elapsed() < Duration::from_secs(10), "{} of {records} records in {topic}", found.len());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Sends a signal to this daemon alone.
    pub fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &id]).status().unwrap().success());
    }

    /// Waits for its end, and says how it was.
    pub fn wait(mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    /// SIGTERM, and its exit code.
    pub fn stop(self) -> Option<i32> {
        self.signal("TERM");
        self.wait()
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a command of the program to its end.
pub fn ordergate(args: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(program()).args(args).output().unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
}

/// One line of an event log.
pub fn line(topic: &str, key: &str, payload: &str) -> String {
    format!("{{\"topic\":\"{topic}\",\"key\":\"{key}\",\"payload\":{payload}}}\n")
}

/// An instrument with a price and an account, so that orders can be judged.
pub fn opening() -> String {
    line("gate.control", "AAPL", r#"{"event":"instrument_defined","symbol":"AAPL"}"#)
        + &line("gate.control", "ACC1", r#"{"event":"account_opened","account":"ACC1","owner":"u1","cash":"100000"}"#)
        + &line("market.prices", "AAPL", r#"{"event":"trade","symbol":"AAPL","price":"100"}"#)
}

/// An order of one share.
pub fn order(id: &str) -> String {
    format!(
        r#"{{"event":"order_intent","client_order_id":"{id}","account":"ACC1","symbol":"AAPL","side":"buy","order_type":"limit","qty":"1","limit_price":"100"}}"#
    )
}

/// Reads a stream until it ends or so many bytes came.
pub fn read_some(reader: &mut impl Read, bytes: usize) -> String {
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    while text.len() < bytes {
        match reader.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(read) => text.extend_from_slice(&buffer[..read]),
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}
