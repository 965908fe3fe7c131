//! The auditor against a real broker: content with two gates, one of which is killed; not with what is planted afterwards.

mod daemon;
#[path = "support/kafka/mod.rs"]
mod kafka;

use std::path::Path;
use std::time::{Duration, Instant};

use daemon::{Daemon, ordergate, spawn};
use kafka::Home;
use kafka::client::NewRecord;
use kafka::cluster::Cluster;
use serde_json::Value;
use tempfile::TempDir;

const SHARDS: i32 = 2;
const SESSION_MS: &str = "1500";

fn settings(owned: &[(String, String)]) -> Vec<(&str, &str)> {
    let mut settings: Vec<_> = owned.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    settings.push(("kafka.session_timeout_ms", SESSION_MS));
    settings
}

/// The flow of a small day, as lines.
fn flow(dir: &Path) -> Vec<String> {
    let path = dir.join("flow.ndjson");
    let (code, text, error) = ordergate(&["generate", "--events", "3000"]);
    assert_eq!(code, Some(0), "{error}");
    std::fs::write(&path, &text).unwrap();
    text.lines().map(str::to_owned).collect()
}

fn send(gate: &Daemon, lines: &[String]) {
    for batch in lines.chunks(200) {
        let (status, answer) = gate.records(&format!("{}\n", batch.join("\n")));
        assert_eq!(status, 200, "{answer}");
    }
}

/// The intents among the lines by Apache Kafka's own transactional producer, every third transaction aborted; the rest as ever.
/// Gives how many were aborted.
fn send_in_transactions(cluster: &Cluster, gate: &Daemon, lines: &[String]) -> usize {
    let is_intent = |line: &&String| line.contains("\"topic\":\"orders.intents\"");
    let (intents, rest): (Vec<&String>, Vec<&String>) = lines.iter().partition(is_intent);
    let tabbed = intents.iter().map(|line| {
        let line: Value = serde_json::from_str(line).unwrap();
        let payload = line["payload"].as_str().map_or_else(|| line["payload"].to_string(), str::to_owned);
        format!("orders.intents\t-\t{}\t{}\n", line["key"].as_str().unwrap_or_default(), payload.replace(['\n', '\r', '\t'], " "))
    });
    let printed = cluster.java("TransactionalProducer.java", &["writer", "10", "3"], &tabbed.collect::<String>());
    assert_eq!(printed.len(), intents.len());
    send(gate, &rest.into_iter().cloned().collect::<Vec<_>>());
    printed.iter().filter(|line| line.starts_with("aborted")).count()
}

/// Waits until all inputs are applied and all outputs published.
fn drained(audit: impl Fn() -> Value) -> Value {
    let begun = Instant::now();
    loop {
        let report = audit();
        let counts = &report["violation_counts"];
        let behind = ["pending", "missing_output"].iter().any(|kind| counts[kind].is_u64());
        if !behind || begun.elapsed() > Duration::from_secs(60) {
            return report;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn two_gates_pass_the_audit_through_a_kill_and_a_planted_contradiction_does_not() {
    let Some(home) = Home::find() else { return };
    let mut cluster = Cluster::start(&home, 1, &[("group.min.session.timeout.ms", "1000")]);
    cluster.create_gate_topics(SHARDS);
    let dir = TempDir::new().unwrap();
    let lines = flow(dir.path());
    let (first, second) = (cluster.gate_settings("one", SHARDS), cluster.gate_settings("two", SHARDS));
    let one = Daemon::start(&dir.path().join("one"), &settings(&first));
    let mut two = spawn(&dir.path().join("two"), &settings(&second));
    send(&one, &lines[..1500]);
    // Until the second one owns a shard, its death is no takeover.
    let begun = Instant::now();
    while cluster.audit(&["--allow-tail"])["figures"]["takeovers"] == 0 {
        assert!(begun.elapsed() < Duration::from_secs(30), "the shards are not spread");
    }
    send(&one, &lines[1500..2200]);
    two.kill().unwrap();
    two.wait().unwrap();
    let aborted = send_in_transactions(&cluster, &one, &lines[2200..]);
    assert!(aborted > 30, "{aborted}");
    let report = drained(|| cluster.audit(&["--drained"]));
    println!("{:#}", report["figures"]);
    assert_eq!(report["violation_counts"], serde_json::json!({}), "{}", report["violations"][0]);
    assert!(report["figures"]["takeovers"].as_u64() >= Some(2), "{:#}", report["figures"]);
    assert!(report["figures"]["intents"].as_u64() > Some(500), "{:#}", report["figures"]);

    let decision = cluster.read("gate.decisions").pop().unwrap();
    let value = String::from_utf8(decision.value).unwrap().replacen("\"equity\":", "\"equity\":\"1\",\"was\":", 1);
    let headers: Vec<(&str, &[u8])> = decision.headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
    // An output that was published already, with another content.
    let planted =
        NewRecord { partition: Some(decision.partition), key: decision.key.as_deref(), value: value.as_bytes(), headers: &headers };
    cluster.produce("gate.decisions", &[planted]);
    let report = cluster.audit(&["--drained"]);
    assert_eq!(report["violation_counts"], serde_json::json!({"contradiction": 1, "decided_differently": 1}));
}

#[test]
fn an_embedded_log_passes_the_audit_and_a_changed_decision_in_it_does_not() {
    let Some(home) = Home::find() else { return };
    let dir = TempDir::new().unwrap();
    let lines = flow(dir.path());
    let data = dir.path().join("data");
    let gate = Daemon::start(&data, &[]);
    send(&gate, &lines);
    let file = data.join("log.sqlite");
    let report = drained(|| home.audit_file(&file));
    assert_eq!(gate.stop(), Some(0));
    assert_eq!(report["violation_counts"], serde_json::json!({}), "{}", report["violations"][0]);
    assert!(report["figures"]["intents"].as_u64() > Some(500), "{:#}", report["figures"]);
    let log = rusqlite::Connection::open(&file).unwrap();
    let change = "UPDATE output SET payload = CAST(replace(CAST(payload AS TEXT), '\"approved_qty\":\"', '\"approved_qty\":\"1') AS BLOB)
                  WHERE topic = (SELECT number FROM topic WHERE name = 'gate.decisions') AND position = 17";
    assert_eq!(log.execute(change, []).unwrap(), 1);
    drop(log);
    let counts = home.audit_file(&file)["violation_counts"].clone();
    assert_eq!(counts, serde_json::json!({"tampered_output": 1}));
}
