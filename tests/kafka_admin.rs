//! `topics` and `doctor` on real brokers: what is made is right, what is changed is found, what breaks a guarantee stops the daemon.

#[path = "support/kafka/mod.rs"]
mod kafka;

#[path = "daemon/mod.rs"]
mod daemon;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use daemon::{Daemon, opening, order, ordergate};
use kafka::Home;
use kafka::client::block_on;
use kafka::cluster::Cluster;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ConfigSource, NewPartitions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use serde_json::Value;

const SHARDS: i32 = 2;

/// A configuration of an instance on this cluster.
fn configuration(dir: &Path, brokers: &str) -> PathBuf {
    let path = dir.join("gate.toml");
    let data = dir.join("data");
    let text = format!(
        "data_dir = {:?}\n[log]\nkind = \"kafka\"\n[kafka]\nbrokers = \"{brokers}\"\nrequest_timeout_ms = 2000\n[shard]\ncount = {SHARDS}\n\
         [http]\nbind = \"127.0.0.1:0\"\n[metrics]\nbind = \"127.0.0.1:0\"\n",
        data.display().to_string()
    );
    std::fs::write(&path, text).unwrap();
    path
}

/// Runs a command with this configuration: its exit code and its JSON.
fn json(config: &Path, command: &[&str]) -> (Option<i32>, Value) {
    let (code, out, err) = ordergate(&[command, &["--json", "--config", config.to_str().unwrap()]].concat());
    let value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{command:?}: {error}: {out}{err}"));
    (code, value)
}

/// The findings of `topics check` that break a guarantee: topic, setting, value, guarantee.
fn broken(config: &Path) -> Vec<[String; 4]> {
    let (code, report) = json(config, &["topics", "check"]);
    let findings = report["findings"].as_array().unwrap();
    let breaks = findings.iter().filter(|finding| finding["severity"] == "breaks");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let found: Vec<_> = breaks.map(|finding| ["topic", "setting", "value", "guarantee"].map(|field| text(&finding[field]))).collect();
    assert_eq!(code, Some(i32::from(!found.is_empty())), "{report:#}");
    found
}

#[track_caller]
fn only(found: &[[String; 4]], expected: [&str; 4]) {
    assert_eq!(found, [expected.map(str::to_owned)]);
}

fn admin(cluster: &Cluster) -> AdminClient<DefaultClientContext> {
    cluster.client().create().unwrap()
}

/// Sets one setting of a topic and keeps its others: the request replaces all of them.
fn alter(cluster: &Cluster, topic: &str, setting: &str, value: &str) {
    let (admin, options) = (admin(cluster), AdminOptions::new());
    let told = block_on(admin.describe_configs(&[ResourceSpecifier::Topic(topic)], &options)).unwrap();
    let entries = &told[0].as_ref().unwrap().entries;
    let mut altered = AlterConfig::new(ResourceSpecifier::Topic(topic));
    for entry in entries.iter().filter(|entry| entry.source == ConfigSource::DynamicTopic) {
        altered = altered.set(&entry.name, entry.value.as_deref().unwrap());
    }
    let results = block_on(admin.alter_configs(&[altered.set(setting, value)], &options)).unwrap();
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    let begun = Instant::now();
    while told_of(&admin, topic, setting).as_deref() != Some(value) {
        assert!(begun.elapsed() < Duration::from_secs(30), "{topic}: {setting} does not become {value}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn told_of(admin: &AdminClient<DefaultClientContext>, topic: &str, setting: &str) -> Option<String> {
    let told = block_on(admin.describe_configs(&[ResourceSpecifier::Topic(topic)], &AdminOptions::new())).unwrap();
    told[0].as_ref().unwrap().get(setting)?.value.clone()
}

/// What a daemon says that does not start: its exit code and its words.
fn refused(config: &Path, flags: &[&str]) -> (Option<i32>, String) {
    let (code, _, err) = ordergate(&[&["run", "--config", config.to_str().unwrap()], flags].concat());
    (code, err)
}

/// A daemon on this cluster, with the data directory of the configuration.
fn run(cluster: &Cluster, dir: &Path, settings: &[(&str, &str)]) -> Daemon {
    let brokers = cluster.brokers();
    let on = [("log.kind", "kafka"), ("kafka.brokers", brokers.as_str()), ("shard.count", "2")];
    Daemon::start(&dir.join("data"), &[&on, settings].concat())
}

#[test]
fn what_is_made_is_right_and_what_is_changed_is_found_and_stops_the_daemon() {
    let Some(home) = Home::find() else { return };
    let mut cluster = Cluster::single(&home);
    let dir = tempfile::tempdir().unwrap();
    let config = configuration(dir.path(), &cluster.brokers());

    nothing_is_there(&config);
    topics_are_made(&config);
    every_change_is_found(&cluster, &config);
    a_daemon_refuses_and_is_forced(&cluster, &config, dir.path());
    cluster.wait();
    shards_are_not_added(&cluster, &config);
}

fn nothing_is_there(config: &Path) {
    let missing = broken(config);
    assert_eq!(missing.len(), 11, "{missing:?}");
    assert!(missing.iter().all(|[_, setting, value, _]| setting == "topic" && value == "missing"));
    let (code, err) = refused(config, &["--force-unsafe"]);
    assert!(code == Some(2) && err.contains("topics create"), "a daemon cannot be forced to run on nothing: {err}");
    let (code, dry) = json(config, &["topics", "create", "--dry-run"]);
    assert_eq!(code, Some(0));
    assert!(dry["topics"].as_array().unwrap().iter().all(|topic| topic["outcome"] == "would be created"), "{dry:#}");
    assert_eq!(broken(config).len(), 11, "a dry run makes nothing");
    let (code, asked) = json(config, &["topics", "create", "--replication", "2"]);
    assert_eq!(code, Some(4));
    let why = asked["topics"][0]["refused"].as_str().unwrap();
    assert!(why.contains("2 replicas are more than the 1 brokers"), "{why}");
}

fn topics_are_made(config: &Path) {
    for outcome in ["created", "exists"] {
        let (code, made) = json(config, &["topics", "create", "--price-partitions", "3"]);
        assert_eq!(code, Some(0), "{made:#}");
        let topics = made["topics"].as_array().unwrap();
        assert_eq!(topics.len(), 11);
        assert!(topics.iter().all(|topic| topic["outcome"] == outcome), "{made:#}");
        let prices = topics.iter().find(|topic| topic["topic"] == "market.prices").unwrap();
        assert_eq!(prices["partitions"], 3);
    }
    let (code, report) = json(config, &["topics", "check"]);
    assert_eq!((code, &report["safe"], &report["breaks"]), (Some(0), &Value::Bool(true), &Value::from(0)));
    let advice = report["findings"].as_array().unwrap();
    assert!(advice.iter().all(|finding| finding["setting"] == "replicas" && finding["severity"] == "advice"), "{report:#}");
}

fn every_change_is_found(cluster: &Cluster, config: &Path) {
    for (topic, setting, wrong, right, guarantee) in [
        ("gate.ledger", "retention.ms", "604800000", "-1", "LEDGER_IS_WHOLE"),
        ("gate.ledger", "retention.bytes", "1073741824", "-1", "LEDGER_IS_WHOLE"),
        ("gate.ledger", "max.message.bytes", "262144", "1048588", "WRITES_FIT"),
        ("gate.control", "retention.ms", "604800000", "-1", "INPUTS_ARE_READ"),
        ("orders.intents", "message.timestamp.type", "CreateTime", "LogAppendTime", "TIME_IS_THE_LOGS"),
        ("orders.executions", "cleanup.policy", "compact", "delete", "INPUTS_ARE_READ"),
        ("gate.decisions", "cleanup.policy", "compact", "delete", "OUTPUTS_STAY"),
        ("gate.directory", "cleanup.policy", "delete", "compact", "ERASED_IS_GONE"),
    ] {
        alter(cluster, topic, setting, wrong);
        only(&broken(config), [topic, setting, wrong, guarantee]);
        alter(cluster, topic, setting, right);
        assert_eq!(broken(config), [[""; 4]; 0], "{topic} {setting}");
    }
}

fn a_daemon_refuses_and_is_forced(cluster: &Cluster, config: &Path, dir: &Path) {
    alter(cluster, "gate.ledger", "retention.ms", "604800000");
    let (code, err) = refused(config, &[]);
    assert_eq!(code, Some(2), "{err}");
    assert!(err.contains("TOPICS_UNSAFE") && err.contains("--add-config retention.ms=-1"), "{err}");
    let forced = run(cluster, dir, &[("kafka.force_unsafe", "true")]);
    let ready: Value = serde_json::from_str(&forced.get("/readyz").1).unwrap();
    let said = ready["unsafe"][0].as_str().unwrap();
    assert!(said.contains("gate.ledger: retention.ms is 604800000") && said.contains("the ledger alone rebuilds the state"), "{said}");
    assert!(forced.get_from(&forced.metrics, "/metrics").1.contains("ordergate_unsafe_mode 1"));
    assert_eq!(forced.stop(), Some(0));
    alter(cluster, "gate.ledger", "retention.ms", "-1");
    let safe = run(cluster, dir, &[]);
    let ready: Value = serde_json::from_str(&safe.get("/readyz").1).unwrap();
    assert_eq!((&ready["status"], &ready["unsafe"]), (&Value::from("ready"), &Value::Null));
    assert!(safe.get_from(&safe.metrics, "/metrics").1.contains("ordergate_unsafe_mode 0"));
    assert_eq!(safe.stop(), Some(0));
}

fn shards_are_not_added(cluster: &Cluster, config: &Path) {
    let more = NewPartitions::new("gate.ledger", 3);
    let results = block_on(admin(cluster).create_partitions(&[more], &AdminOptions::new())).unwrap();
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    only(&eventually_broken(config), ["gate.ledger", "partitions", "3", "EVERY_RECORD_HAS_ITS_SHARD"]);
    let (code, err) = refused(config, &["--force-unsafe"]);
    assert!(code == Some(2) && err.contains("docs/RUNBOOK.md"), "the number of shards cannot be forced: {err}");
    cluster.delete_topic("gate.ledger");
    std::thread::sleep(Duration::from_millis(200));
    only(&eventually_broken(config), ["gate.ledger", "topic", "missing", "EVERY_RECORD_HAS_ITS_SHARD"]);
}

/// What is broken, as soon as the brokers' metadata tell of anything.
fn eventually_broken(config: &Path) -> Vec<[String; 4]> {
    let begun = Instant::now();
    loop {
        let found = broken(config);
        if !found.is_empty() || begun.elapsed() > Duration::from_secs(30) {
            return found;
        }
    }
}

#[test]
fn three_brokers_hold_more_and_must() {
    let Some(home) = Home::find() else { return };
    let mut cluster = Cluster::of_three(&home);
    let dir = tempfile::tempdir().unwrap();
    let config = configuration(dir.path(), &cluster.brokers());
    let (code, made) = json(&config, &["topics", "create"]);
    assert_eq!(code, Some(0), "{made:#}");
    assert!(made["topics"].as_array().unwrap().iter().all(|topic| topic["replicas"] == 3));
    cluster.wait();
    let (code, report) = json(&config, &["topics", "check"]);
    assert_eq!((code, report["findings"].as_array().unwrap().len()), (Some(0), 0), "{report:#}");
    cluster.wait();

    alter(&cluster, "gate.ledger", "min.insync.replicas", "1");
    only(&broken(&config), ["gate.ledger", "min.insync.replicas", "1", "ACKNOWLEDGED_IS_DURABLE"]);
    alter(&cluster, "gate.ledger", "min.insync.replicas", "2");
    alter(&cluster, "orders.intents", "unclean.leader.election.enable", "true");
    only(&broken(&config), ["orders.intents", "unclean.leader.election.enable", "true", "ACKNOWLEDGED_IS_DURABLE"]);
    alter(&cluster, "orders.intents", "unclean.leader.election.enable", "false");

    cluster.delete_topic("gate.commands");
    cluster.create_topics(&[kafka::client::Topic {
        name: "gate.commands",
        partitions: SHARDS,
        replicas: 1,
        settings: &[("message.timestamp.type", "LogAppendTime")],
    }]);
    only(&broken(&config), ["gate.commands", "replicas", "1", "ACKNOWLEDGED_IS_DURABLE"]);

    cluster.kill(2);
    let begun = Instant::now();
    let (code, report) = json(&config, &["doctor"]);
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    assert_eq!((code, &report["verdict"], &report["reachable"]), (Some(1), &Value::from("broken"), &Value::Bool(true)));
    assert_eq!(report["named"].as_array().unwrap().iter().filter(|named| named["cluster_id"].is_null()).count(), 1, "{report:#}");
    assert_eq!(report["topics"].as_array().unwrap().iter().filter(|finding| finding["severity"] == "breaks").count(), 1);
}

#[test]
fn the_doctor_tells_heads_claims_members_and_lag_and_changes_nothing() {
    let Some(home) = Home::find() else { return };
    let cluster = Cluster::single(&home);
    let dir = tempfile::tempdir().unwrap();
    let config = configuration(dir.path(), &cluster.brokers());
    assert_eq!(json(&config, &["topics", "create"]).0, Some(0));
    let running = run(&cluster, dir.path(), &[]);
    assert_eq!(running.records(&opening()).0, 200);
    let account = (0..50).find_map(|i| {
        let (status, answer) = running.intent(&order(&format!("I-{i}")));
        (status == 200).then_some(answer)
    });
    let decided = account.expect("a decision");

    let (code, report) = json(&config, &["doctor"]);
    assert_eq!((code, &report["verdict"]), (Some(0), &Value::from("healthy")), "{report:#}");
    assert_eq!(report["snapshots"]["state"], "in use");
    assert_eq!((&report["brokers"][0]["reachable"], report["brokers"].as_array().unwrap().len()), (&Value::Bool(true), 1));
    assert!(report["permissions"].as_array().unwrap().iter().all(|permission| permission["allowed"] == true), "{report:#}");
    let member = &report["group"]["members"][0];
    assert_eq!((&member["client"], &member["shards"]), (&Value::from("ordergate-gate-1"), &serde_json::json!([0, 1])));
    let shard = usize::try_from(decided["shard"].as_u64().unwrap()).unwrap();
    let ledger = &report["shards"][shard];
    assert!(ledger["head"]["seq"].as_u64() >= decided["seq"].as_u64(), "{ledger:#}");
    assert!(ledger["claim"]["owner"].as_str().unwrap().starts_with("gate-1-"), "{ledger:#}");
    assert_eq!((&ledger["claim"]["term"], &ledger["lag"]), (&ledger["head"]["term"], &Value::from(0)), "{ledger:#}");
    let skew = report["clock"]["owner_minus_broker_ms"].as_i64().unwrap();
    assert!((-60_000..=1_000).contains(&skew), "one machine has one clock: {skew}");
    assert_eq!(running.stop(), Some(0));

    let (code, after) = json(&config, &["doctor"]);
    assert_eq!((code, &after["snapshots"]["state"]), (Some(0), &Value::from("read")), "{after:#}");
    let generations = after["snapshots"]["shards"][shard]["generations"].as_array().unwrap();
    assert_eq!(generations.last().unwrap()["seq"], after["shards"][shard]["head"]["seq"], "{after:#}");
    let (_, again) = json(&config, &["doctor"]);
    assert_eq!(after["shards"], again["shards"], "a look changes nothing");
}

#[test]
fn the_doctor_says_that_nothing_answers_and_ends() {
    let dir = tempfile::tempdir().unwrap();
    let config = configuration(dir.path(), "127.0.0.1:1");
    let begun = Instant::now();
    let (code, report) = json(&config, &["doctor"]);
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    assert_eq!((code, &report["verdict"], &report["reachable"]), (Some(4), &Value::from("unreachable"), &Value::Bool(false)));
    assert_eq!(report["problems"][0]["code"], "CLUSTER_UNREACHABLE");
    assert_eq!(report["snapshots"]["state"], "absent");
}
