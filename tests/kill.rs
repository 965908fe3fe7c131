//! kill -9 of the real daemon at random moments under load, some while it starts and while it snapshots.
//!
//! What must hold: every acknowledged record is in the ledger once, every decision id has one
//! content, the answers that clients got are the ledger's, and verification passes. `KILLS=300` for
//! the long run, `SEED=n` for other moments.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test ends at what it did not expect")]

mod daemon;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use daemon::{Daemon, line, opening, order, ordergate, spawn};
use serde_json::Value;
use tempfile::TempDir;

/// Snapshots all the time, so that some kills meet one.
const SETTINGS: &[(&str, &str)] = &[("snapshot.every_records", "50"), ("snapshot.every_seconds", "1")];

/// A small generator of our own: the moments must be repeatable.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// What clients were told.
#[derive(Default)]
struct Told {
    /// Decision by client order id, as it was answered.
    decisions: HashMap<String, Value>,
    /// Offset and key of each price that was acknowledged in a batch.
    prices: BTreeMap<u64, String>,
    /// Orders that were sent, answered or not.
    sent: u64,
}

/// Sends intents and batches until the daemon is gone.
fn load(at: &str, numbers: &Arc<AtomicU64>, running: &Arc<AtomicBool>) -> Vec<thread::JoinHandle<Told>> {
    let client = |batches: bool| {
        let (at, numbers, running) = (at.to_owned(), Arc::clone(numbers), Arc::clone(running));
        thread::spawn(move || send_until_gone(&at, &numbers, &running, batches))
    };
    (0..4).map(|place| client(place == 0)).collect()
}

fn send_until_gone(at: &str, numbers: &AtomicU64, running: &AtomicBool, batches: bool) -> Told {
    let agent: ureq::Agent =
        ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(Duration::from_secs(10))).build().into();
    let mut told = Told::default();
    while running.load(Ordering::Relaxed) {
        let number = numbers.fetch_add(1, Ordering::Relaxed);
        let id = format!("I-{number}");
        let (path, kind, body) = if batches {
            let price =
                |cents: u64| line("market.prices", "AAPL", &format!(r#"{{"event":"trade","symbol":"AAPL","price":"100.{cents:02}"}}"#));
            ("records", "application/x-ndjson", (0..20).map(|place| price((number + place) % 100)).collect())
        } else {
            ("intents", "application/json", order(&id))
        };
        let Ok(mut answer) = agent.post(format!("http://{at}/api/v1/{path}")).header("content-type", kind).send(body.as_str()) else {
            break;
        };
        told.sent += u64::from(!batches);
        let Ok(text) = answer.body_mut().read_to_string() else { break };
        if answer.status().as_u16() != 200 {
            continue;
        }
        let answer: Value = serde_json::from_str(&text).unwrap();
        if batches {
            let range = &answer["positions"]["market.prices"]["0"];
            let payloads = body.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["payload"].to_string());
            told.prices.extend((range[0].as_u64().unwrap()..).zip(payloads));
        } else {
            told.decisions.insert(id, answer);
        }
    }
    told
}

#[test]
fn nothing_acknowledged_is_lost_or_changed_by_kill_9() {
    let (kills, seed) = (setting("KILLS", 5), setting("SEED", 20_260_306));
    let dir = TempDir::new().unwrap();
    let mut random = Random(seed | 1);
    let numbers = Arc::new(AtomicU64::new(0));
    let (mut told, mut recoveries) = (Told::default(), Vec::new());
    Daemon::start(dir.path(), SETTINGS).records(&opening());
    for _ in 0..kills {
        if random.below(5) == 0 {
            kill_while_it_starts(dir.path(), &mut random);
        }
        let begun = Instant::now();
        let gate = Daemon::start(dir.path(), SETTINGS);
        recoveries.push(begun.elapsed());
        let running = Arc::new(AtomicBool::new(true));
        let clients = load(&gate.http, &numbers, &running);
        thread::sleep(Duration::from_millis(20 + random.below(400)));
        gate.kill();
        running.store(false, Ordering::Relaxed);
        for client in clients {
            let more = client.join().unwrap();
            told.decisions.extend(more.decisions);
            told.prices.extend(more.prices);
            told.sent += more.sent;
        }
    }
    let gate = Daemon::start(dir.path(), SETTINGS);
    check(&gate, &told);
    assert_eq!(gate.stop(), Some(0));
    check_ledger(dir.path(), &told);
    recoveries.sort();
    let (p50, max) = (recoveries[recoveries.len() / 2], recoveries[recoveries.len() - 1]);
    let (answered, prices) = (told.decisions.len(), told.prices.len());
    println!(
        "{kills} kills: {answered} answered intents, {prices} acknowledged prices, 0 lost, 0 changed; recovery p50 {p50:?}, max {max:?}"
    );
    assert!(answered > 0 && prices > 0, "there was no load");
}

fn kill_while_it_starts(dir: &Path, random: &mut Random) {
    let mut child = spawn(dir, SETTINGS);
    thread::sleep(Duration::from_millis(random.below(60)));
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Holds what clients were told against what the daemon says now.
fn check(gate: &Daemon, told: &Told) {
    for (id, decision) in &told.decisions {
        let (status, again) = gate.intent(&order(id));
        assert_eq!((status, &again), (200, decision), "the answer for {id} has changed");
    }
}

/// Holds what clients were told against the ledger and the output topic.
fn check_ledger(dir: &Path, told: &Told) {
    let path = dir.to_str().unwrap();
    let (code, out, error) = ordergate(&["verify", "--data-dir", path]);
    assert_eq!(code, Some(0), "{out}{error}");
    let (_, dump, _) = ordergate(&["ledger", "dump", "--data-dir", path]);
    let (mut sources, mut prices) = (HashSet::new(), HashMap::new());
    for record in dump.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()) {
        let source = (record["topic"].to_string(), record["offset"].as_u64().unwrap());
        assert!(sources.insert(source.clone()), "{source:?} was applied twice");
        if source.0 == "\"market.prices\"" {
            prices.insert(source.1, record["payload"].to_string());
        }
    }
    for (offset, price) in &told.prices {
        assert_eq!(prices.get(offset), Some(price), "the acknowledged price at {offset}");
    }
    let (_, replayed, _) = ordergate(&["replay", "--data-dir", path]);
    let of_ledger = by_id(replayed.lines().map(|line| serde_json::from_str(line).unwrap()));
    let gate = Daemon::start(dir, SETTINGS);
    let published = by_id(all(&gate, "gate.decisions").into_iter());
    assert_eq!(of_ledger.len(), published.len(), "decisions of the ledger, and published ones");
    for (id, payloads) in &published {
        assert_eq!(payloads.len(), 1, "{id} has several contents");
        assert_eq!(Some(payloads), of_ledger.get(id), "{id} is not as the ledger has it");
    }
    assert_eq!(gate.stop(), Some(0));
}

/// The contents that each decision id has.
fn by_id(lines: impl Iterator<Item = Value>) -> HashMap<String, HashSet<String>> {
    let mut contents: HashMap<String, HashSet<String>> = HashMap::new();
    for line in lines.filter(|line| line["topic"] == "gate.decisions") {
        let payload = &line["payload"];
        contents.entry(payload["decision_id"].to_string()).or_default().insert(payload.to_string());
    }
    contents
}

fn all(gate: &Daemon, topic: &str) -> Vec<Value> {
    let mut records: Vec<Value> = Vec::new();
    loop {
        let (_, text) = gate.get(&format!("/api/v1/topics/{topic}/records?limit=10000&from={}", records.len()));
        if text.is_empty() {
            return records;
        }
        records.extend(text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()));
    }
}

#[test]
fn a_flow_gives_the_same_decisions_live_with_kills_as_replayed_from_its_file() {
    let (_, flow, _) = ordergate(&["generate", "--seed", "11", "--events", "3000"]);
    same_live_as_replayed(&flow, 4);
}

/// NASDAQ's order flow, where the folder beside the repository has it.
#[test]
fn the_real_flow_gives_the_same_decisions_live_with_ten_kills() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/aapl-2012-06-21-0930.jsonl.gz");
    let Ok(file) = std::fs::File::open(&path) else { return eprintln!("skipped: there is no {}", path.display()) };
    let mut flow = String::from(
        r#"{"topic":"gate.control","ts":1340285339999,"key":"gate","payload":{"event":"gate_settings_set","max_intent_age_ms":0}}"#,
    );
    flow.push('\n');
    flate2::read::GzDecoder::new(file).read_to_string(&mut flow).unwrap();
    same_live_as_replayed(&flow, 10);
}

/// Sends a flow in batches, kills the daemon after each of `kills` parts, and holds what it decided and its books to the file's.
fn same_live_as_replayed(flow: &str, kills: usize) {
    let dir = TempDir::new().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(dir.path().join("flow.jsonl"), flow).unwrap();
    let (code, replayed, error) = ordergate(&["replay", &path("flow.jsonl"), "--state", &path("replayed.json")]);
    assert_eq!(code, Some(0), "{error}");
    let settings = [SETTINGS, &[("log.timestamps", "producer")]].concat();
    let lines: Vec<&str> = flow.lines().collect();
    for part in lines.chunks(lines.len().div_ceil(kills)) {
        let gate = Daemon::start(&dir.path().join("data"), &settings);
        for batch in part.chunks(97) {
            let (status, answer) = gate.records(&(batch.join("\n") + "\n"));
            assert_eq!(status, 200, "{answer}");
        }
        gate.kill();
    }
    // What was acknowledged and not yet applied is applied after the restart; a stop would leave it for the next one.
    let gate = Daemon::start(&dir.path().join("data"), &settings);
    let account = flow.lines().find_map(|line| Some(line.split_once("\"account_opened\",\"account\":\"")?.1.split_once('"')?.0)).unwrap();
    let book = || gate.get(&format!("/api/v1/accounts/{account}")).1;
    let begun = Instant::now();
    while !book().starts_with(&format!("{{\"seq\":{},", lines.len())) {
        assert!(begun.elapsed() < Duration::from_secs(60), "{}", book());
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(gate.stop(), Some(0));
    let (code, live, error) = ordergate(&["replay", "--data-dir", &path("data"), "--state", &path("live.json")]);
    assert_eq!(code, Some(0), "{error}");
    assert!(live.lines().count() > 500 && live == replayed, "decisions differ");
    let state = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
    assert_eq!(state("live.json"), state("replayed.json"));
    assert_eq!(ordergate(&["verify", "--data-dir", &path("data")]).0, Some(0));
}
