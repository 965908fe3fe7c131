//! What the daemon does over HTTP on its embedded log, next to a bare loop of SQLite commits of the same bytes in the same run.
//!
//! `cargo bench --bench throughput`; `SECONDS=5` per line. Absolute figures belong to the machine; the ratio to the bare loop less so.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ureq::Agent;

const OPENING: &str = concat!(
    r#"{"topic":"gate.control","key":"AAPL","payload":{"event":"instrument_defined","symbol":"AAPL"}}"#,
    "\n",
    r#"{"topic":"gate.control","key":"gate","payload":{"event":"gate_settings_set","max_intent_age_ms":0,"max_price_age_ms":0}}"#,
    "\n",
    r#"{"topic":"market.prices","key":"AAPL","payload":{"event":"trade","symbol":"AAPL","price":"100"}}"#,
    "\n",
    r#"{"topic":"gate.control","key":"r","payload":{"event":"rule_created","rule":{"id":"r","type":"max_leverage","threshold":"4","unit":"ratio","action":"block"}}}"#,
    "\n",
);

/// Many, so that no book fills up with orders that nobody ends.
const ACCOUNTS: u64 = 1000;

fn opening() -> String {
    let open = |number: u64| {
        let payload = format!(r#"{{"event":"account_opened","account":"ACC{number}","owner":"u1","cash":"100000000"}}"#);
        format!(r#"{{"topic":"gate.control","key":"ACC{number}","payload":{payload}}}"#) + "\n"
    };
    OPENING.to_owned() + &(0..ACCOUNTS).map(open).collect::<String>()
}

fn intent(number: u64) -> String {
    let account = number % ACCOUNTS;
    format!(
        r#"{{"event":"order_intent","client_order_id":"T-{number}","account":"ACC{account}","strategy":"s1","symbol":"AAPL","side":"buy","order_type":"limit","qty":"1","limit_price":"100.00","time_in_force":"day"}}"#
    )
}

struct Gate {
    child: Child,
    at: String,
}

impl Gate {
    fn start(dir: &std::path::Path) -> Self {
        let program = std::env::var("ORDERGATE_BIN").unwrap_or_else(|_| env!("CARGO_BIN_EXE_ordergate").to_owned());
        let mut command = Command::new(program);
        command.args(["run", "--http", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--data-dir"]).arg(dir);
        let mut child = command.env("ORDERGATE__TELEMETRY__LOG_LEVEL", "error").stdout(Stdio::piped()).spawn().expect("the daemon starts");
        let line = BufReader::new(child.stdout.take().expect("piped")).lines().next().expect("it says where").expect("text");
        let at = line
            .split(" http=http://")
            .nth(1)
            .or_else(|| line.split("http=http://").nth(1))
            .and_then(|rest| rest.split([' ', '/']).next())
            .expect("an address")
            .to_owned();
        let gate = Self { child, at };
        let (agent, begun) = (agent(), Instant::now());
        while !agent.get(format!("http://{}/readyz", gate.at)).call().is_ok_and(|answer| answer.status() == 200) {
            assert!(begun.elapsed() < Duration::from_secs(30), "the daemon is not ready");
            std::thread::sleep(Duration::from_millis(5));
        }
        gate
    }

    fn post(&self, agent: &Agent, path: &str, kind: &str, body: &str) -> u16 {
        let sent = agent.post(format!("http://{}{path}", self.at)).header("content-type", kind).send(body);
        sent.map_or(0, |mut answer| {
            let _ = answer.body_mut().read_to_string();
            answer.status().as_u16()
        })
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn agent() -> Agent {
    Agent::config_builder().http_status_as_error(false).timeout_global(Some(Duration::from_secs(30))).build().into()
}

/// Synchronous intents by `clients` at once: intents per second, p50 and p99 in ms.
fn synchronous(gate: &Arc<Gate>, numbers: &Arc<AtomicU64>, clients: usize, time: Duration) -> (f64, f64, f64) {
    let all = Arc::new(Mutex::new(Vec::new()));
    let begun = Instant::now();
    let threads: Vec<_> = (0..clients)
        .map(|_| {
            let (gate, numbers, all) = (Arc::clone(gate), Arc::clone(numbers), Arc::clone(&all));
            std::thread::spawn(move || {
                let (agent, mut took) = (agent(), Vec::new());
                while begun.elapsed() < time {
                    let body = intent(numbers.fetch_add(1, Ordering::Relaxed));
                    let sent = Instant::now();
                    assert_eq!(gate.post(&agent, "/api/v1/intents?timeout_ms=20000", "application/json", &body), 200);
                    took.push(sent.elapsed().as_secs_f64() * 1e3);
                }
                all.lock().expect("no thread panicked").extend(took);
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("every intent was answered");
    }
    let elapsed = begun.elapsed().as_secs_f64();
    let mut took = all.lock().expect("no thread panicked").clone();
    took.sort_by(f64::total_cmp);
    let at = |part: f64| took[((took.len() - 1) as f64 * part) as usize];
    (took.len() as f64 / elapsed, at(0.5), at(0.99))
}

/// Batches of 1,000 intents, until the last is decided.
fn batches(gate: &Gate, numbers: &AtomicU64, count: u64) -> f64 {
    let agent = agent();
    let begun = Instant::now();
    for _ in 0..count {
        let lines: Vec<String> = (0..1000)
            .map(|_| format!(r#"{{"topic":"orders.intents","payload":{}}}"#, intent(numbers.fetch_add(1, Ordering::Relaxed))))
            .collect();
        assert_eq!(gate.post(&agent, "/api/v1/records", "application/x-ndjson", &(lines.join("\n") + "\n")), 200, "a batch");
    }
    let last = intent(numbers.fetch_add(1, Ordering::Relaxed));
    assert_eq!(gate.post(&agent, "/api/v1/intents?timeout_ms=20000", "application/json", &last), 200);
    count as f64 * 1000.0 / begun.elapsed().as_secs_f64()
}

/// Commits of the bytes of one intent, its frame and its decision, one after the other.
fn bare(dir: &std::path::Path, time: Duration) -> f64 {
    let log = rusqlite::Connection::open(dir.join("bare.sqlite")).expect("a file");
    log.execute_batch("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; CREATE TABLE r (id INTEGER PRIMARY KEY, v BLOB)")
        .expect("a table");
    let (begun, mut commits) = (Instant::now(), 0_u64);
    while begun.elapsed() < time {
        for size in [200, 450, 420] {
            log.execute("INSERT INTO r (v) VALUES (?1)", [vec![b'x'; size]]).map(drop).expect("written");
        }
        commits += 3;
    }
    commits as f64 / begun.elapsed().as_secs_f64()
}

fn main() {
    if !std::env::args().any(|argument| argument == "--bench") {
        return println!("throughput is measured by: cargo bench --bench throughput");
    }
    let seconds = std::env::var("SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(5);
    let time = Duration::from_secs(seconds);
    let dir = tempfile::tempdir().expect("a folder");
    println!("bare SQLite commits of one record each: {:.0}/s", bare(dir.path(), time));
    let gate = Arc::new(Gate::start(&dir.path().join("data")));
    assert_eq!(gate.post(&agent(), "/api/v1/records", "application/x-ndjson", &opening()), 200);
    let numbers = Arc::new(AtomicU64::new(0));
    for clients in [1, 8, 64] {
        let (rate, p50, p99) = synchronous(&gate, &numbers, clients, time);
        println!("{clients:>3} clients, synchronous: {rate:>8.0} intents/s, p50 {p50:.2} ms, p99 {p99:.2} ms");
    }
    println!("batches of 1,000: {:>8.0} intents/s until the last is decided", batches(&gate, &numbers, 30));
    println!("bare SQLite commits of one record each: {:.0}/s", bare(&dir.path().join("data"), time));
}
