//! What befalls topics: transactions, retention that was too short, deletion and re-creation, a ledger cut off, poison.
//!
//! What must hold: what cannot be read as it was is never guessed at. The shard that it concerns stops, names the reason by a code
//! on `/readyz`, and decides nothing; the others go on.

#[path = "support/kafka/mod.rs"]
mod kafka;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use kafka::Home;
use kafka::client::NewRecord;
use kafka::cluster::Cluster;
use kafka::desk::Desk;
use kafka::fleet::Fleet;
use ordergate::wire::frame::Entry;
use serde_json::Value;

const SOON: Duration = Duration::from_secs(30);

#[test]
fn aborted_transactions_of_a_java_producer_stay_unseen_and_leave_no_lag() {
    let Some(home) = Home::find() else { return };
    let _turn = kafka::turn();
    let mut cluster = Cluster::single(&home);
    cluster.create_gate_topics(1);
    let desk = Desk::open(&cluster, 1);
    let mut fleet = Fleet::new(&cluster, 1, 1, &[]);
    fleet.start(0);
    fleet.wait_until_all_decide(1);
    let line = |n: u32| format!("orders.intents\t0\t{}\t{}\n", desk.account(0), desk.order(0, &format!("tx-{n}")));
    let lines: String = (0..60).map(line).collect();
    // Ten transactions of six; each third is aborted, among them no last one.
    let printed = cluster.java("TransactionalProducer.java", &["desk", "6", "3"], &lines);
    let of = |kind: &str| -> BTreeSet<String> {
        let lines = printed.iter().filter_map(|line| line.strip_prefix(kind));
        let order = |line: &str| {
            serde_json::from_str::<Value>(line.rsplit('\t').next().unwrap()).unwrap()["client_order_id"].as_str().unwrap().to_owned()
        };
        lines.map(order).collect()
    };
    let (committed, aborted) = (of("committed"), of("aborted"));
    assert_eq!((committed.len(), aborted.len()), (42, 18));
    let decided = cluster.wait_for_decisions(&committed, SOON);
    assert!(aborted.iter().all(|id| !decided.contains_key(id)), "an aborted order was decided");
    // The last thing in the topic is the mark of a transaction, which nobody applies.
    let begun = Instant::now();
    while fleet.metric(0, "ordergate_source_lag_records") != Some(0.0) {
        let lag =
            |text: String| text.lines().filter(|line| line.starts_with("ordergate_source_lag_records")).collect::<Vec<_>>().join("; ");
        assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", fleet.get(0, "/metrics").map(|(_, text)| lag(text)));
        std::thread::sleep(Duration::from_millis(100));
    }
    fleet.wait_until_all_decide(1);
    // A restart compares the last record applied, and finds it before the gap.
    assert_eq!(fleet.stop(0), Some(0));
    fleet.start(0);
    fleet.wait_until_all_decide(1);
    let sent = desk.send(&cluster, 0..1, "after", 3);
    cluster.wait_for_decisions(&sent, SOON);
    fleet.stop_all();
    cluster.audit_clean(&["--drained"]);
}

/// Two shards, one instance, and so many orders decided by each.
fn two_shards_that_decided(home: &Home) -> (Cluster, Desk, Fleet) {
    let mut cluster = Cluster::single(home);
    cluster.create_gate_topics(2);
    let desk = Desk::open(&cluster, 2);
    let mut fleet = Fleet::new(&cluster, 1, 2, &[]);
    fleet.start(0);
    fleet.wait_until_all_decide(2);
    let sent = desk.send(&cluster, 0..2, "before", 10);
    cluster.wait_for_decisions(&sent, SOON);
    (cluster, desk, fleet)
}

/// Shard 1 refuses with one of these codes and decides nothing of what comes; shard 0 goes on.
fn expect_only_shard_1_to_refuse(cluster: &Cluster, desk: &Desk, fleet: &Fleet, code: &str) {
    fleet.wait_until_it_owns(0, 1, SOON);
    let said = fleet.wait_until_it_says(0, code, SOON);
    assert!(said.contains("shard 1") && !said.contains("shard 0"), "{said}");
    assert_eq!(fleet.get(0, "/readyz").map(|(status, _)| status), Some(503));
    let ledger = |cluster: &Cluster| cluster.ledger().iter().filter(|entry| entry.partition == 1).count();
    let before = ledger(cluster);
    let unheard = desk.send(cluster, 1..2, &format!("unheard-{code}"), 5);
    let heard = desk.send(cluster, 0..1, &format!("heard-{code}"), 5);
    let decided = cluster.wait_for_decisions(&heard, SOON);
    std::thread::sleep(Duration::from_secs(1));
    assert!(unheard.iter().all(|id| !decided.contains_key(id) && !cluster.decisions().contains_key(id)));
    assert_eq!(ledger(cluster), before, "a shard that refuses writes nothing");
    assert_eq!(fleet.metric(0, "ordergate_shard_owned"), Some(1.0));
    println!("{said}");
}

#[test]
fn records_that_retention_removed_before_they_were_applied_stop_their_shard_alone() {
    let Some(home) = Home::find() else { return };
    let _turn = kafka::turn();
    let (cluster, desk, mut fleet) = two_shards_that_decided(&home);
    assert_eq!(fleet.stop(0), Some(0));
    let lost = desk.send(&cluster, 1..2, "lost", 5);
    let end = cluster.read("orders.intents").iter().filter(|record| record.partition == 1).map(|record| record.offset + 1).max().unwrap();
    cluster.delete_records_before("orders.intents", 1, end);
    fleet.start(0);
    expect_only_shard_1_to_refuse(&cluster, &desk, &fleet, "LOG_OUT_OF_RANGE");
    assert!(lost.iter().all(|id| !cluster.decisions().contains_key(id)));
    fleet.stop_all();
    // The auditor holds the ledger against what the inputs still keep, and does not know what is gone.
    cluster.audit_clean(&[]);
}

#[test]
fn records_that_retention_removes_while_a_shard_is_behind_stop_it_alone() {
    let Some(home) = Home::find() else { return };
    let _turn = kafka::turn();
    let (cluster, desk, mut fleet) = two_shards_that_decided(&home);
    // Behind: it stands still while the records come and go. A request that waits at the broker when it stops would still fetch them,
    // and then they are applied in time: the broker answers it empty first (`fetch.wait.max.ms` is 100).
    fleet.signal(0, "STOP");
    std::thread::sleep(Duration::from_secs(1));
    desk.send(&cluster, 1..2, "lost", 5);
    let end = cluster.read("orders.intents").iter().filter(|record| record.partition == 1).map(|record| record.offset + 1).max().unwrap();
    desk.send(&cluster, 1..2, "kept", 5);
    cluster.delete_records_before("orders.intents", 1, end);
    fleet.signal(0, "CONT");
    expect_only_shard_1_to_refuse(&cluster, &desk, &fleet, "LOG_OUT_OF_RANGE");
    fleet.stop_all();
    cluster.audit_clean(&[]);
}

/// The settings of a gate's input topic.
const INPUT: &[(&str, &str)] = &[
    ("message.timestamp.type", "LogAppendTime"),
    ("retention.ms", "-1"),
    ("min.insync.replicas", "1"),
    ("unclean.leader.election.enable", "false"),
];

/// Deletes a topic and makes it anew, with records in it that were never applied.
fn make_anew(cluster: &mut Cluster, name: &str, partitions: i32) {
    cluster.delete_topic(name);
    let settings = INPUT;
    let begun = Instant::now();
    while cluster.leader(name, 0).is_some() {
        assert!(begun.elapsed() < SOON, "{name} is still there");
        std::thread::sleep(Duration::from_millis(50));
    }
    cluster.create_topics(&[kafka::client::Topic { name, partitions, replicas: 1, settings }]);
}

#[test]
fn topics_deleted_and_made_anew_while_the_gates_are_down_are_noticed_at_start() {
    let Some(home) = Home::find() else { return };
    let _turn = kafka::turn();
    let mut cluster = Cluster::single(&home);
    for (topic, partitions, code) in [
        ("orders.intents", 1, "INPUT_DIFFERS"),
        ("gate.control", 1, "INPUT_DIFFERS"),
        ("gate.decisions", 1, "OUTPUT_LOST"),
        ("gate.ledger", 1, "OUTPUT_AHEAD_OF_LEDGER"),
    ] {
        cluster.delete_all_topics();
        cluster.create_gate_topics(1);
        let desk = Desk::open(&cluster, 1);
        let mut fleet = Fleet::new(&cluster, 1, 1, &[]);
        fleet.start(0);
        fleet.wait_until_all_decide(1);
        let sent = desk.send(&cluster, 0..1, "before", 10);
        cluster.wait_for_decisions(&sent, SOON);
        assert_eq!(fleet.stop(0), Some(0));
        make_anew(&mut cluster, topic, partitions);
        if topic == "orders.intents" {
            // As many as before: offsets alone would tell nothing.
            desk.send(&cluster, 0..1, "another", 30);
        }
        let before = (cluster.read("gate.ledger").len(), cluster.read("gate.decisions").len());
        fleet.start(0);
        let said = fleet.wait_until_it_says(0, code, SOON);
        std::thread::sleep(Duration::from_millis(500));
        let after =
            (cluster.ledger().iter().filter(|entry| matches!(entry.entry, Entry::Frame(_))).count(), cluster.read("gate.decisions").len());
        println!("{topic}: {said}");
        assert_eq!(after.1, before.1, "{topic}: nothing is published");
        assert!(after.0 <= before.0, "{topic}: nothing is decided");
        fleet.stop_all();
    }
}

#[test]
fn an_input_topic_deleted_and_made_anew_under_a_running_gate_is_refused() {
    let Some(home) = Home::find() else { return };
    let _turn = kafka::turn();
    let mut cluster = Cluster::single(&home);
    cluster.create_gate_topics(1);
    let desk = Desk::open(&cluster, 1);
    let mut fleet = Fleet::new(&cluster, 1, 1, &[]);
    fleet.start(0);
    fleet.wait_until_all_decide(1);
    let sent = desk.send(&cluster, 0..1, "before", 10);
    cluster.wait_for_decisions(&sent, SOON);
    let frames = |cluster: &Cluster| {
        cluster.ledger().iter().filter(|entry| matches!(&entry.entry, Entry::Frame(frame) if !frame.inputs.is_empty())).count()
    };
    let before = frames(&cluster);
    make_anew(&mut cluster, "orders.intents", 1);
    let unheard = desk.send(&cluster, 0..1, "another", 30);
    // What it meets first, an end before its place or another record there, is chance.
    let said = fleet.wait_until_it_says(0, "restore it", SOON);
    assert!(said.contains("INPUT_DIFFERS") || said.contains("LOG_OUT_OF_RANGE"), "{said}");
    println!("{said}");
    let decided = cluster.decisions();
    assert!(unheard.iter().all(|id| !decided.contains_key(id)), "something of the new topic was decided");
    assert_eq!(frames(&cluster), before);
    fleet.stop_all();
}

#[test]
fn a_ledger_or_an_output_topic_made_anew_under_a_running_gate_is_refused() {
    let Some(home) = Home::find() else { return };
    let _turn = kafka::turn();
    let mut cluster = Cluster::single(&home);
    for topic in ["gate.decisions", "gate.ledger"] {
        cluster.delete_all_topics();
        cluster.create_gate_topics(1);
        let desk = Desk::open(&cluster, 1);
        let mut fleet = Fleet::new(&cluster, 1, 1, &[]);
        fleet.start(0);
        fleet.wait_until_all_decide(1);
        let sent = desk.send(&cluster, 0..1, "before", 10);
        cluster.wait_for_decisions(&sent, SOON);
        make_anew(&mut cluster, topic, 1);
        // It may notice by itself, or when it writes there; what it writes before that is its own and true.
        desk.send(&cluster, 0..1, "between", 3);
        // A gate that looks just while there is none says that.
        let said = fleet.says(0, "restore", SOON).unwrap_or_else(|| fleet.wait_until_it_says(0, "LOG_NO_SUCH_PARTITION", SOON));
        println!("{topic}: {said}");
        assert_eq!(fleet.get(0, "/readyz").map(|(status, _)| status), Some(503));
        let frames = cluster.ledger().len();
        let unheard = desk.send(&cluster, 0..1, "after", 3);
        std::thread::sleep(Duration::from_millis(500));
        assert!(unheard.iter().all(|id| !cluster.decisions().contains_key(id)), "{topic}: something was decided");
        assert_eq!(cluster.ledger().len(), frames, "{topic}: something was decided");
        fleet.stop_all();
    }
}

#[test]
fn a_ledger_cut_off_behind_its_outputs_is_refused() {
    let Some(home) = Home::find() else { return };
    let _turn = kafka::turn();
    let mut cluster = Cluster::single(&home);
    cluster.create_gate_topics(1);
    let desk = Desk::open(&cluster, 1);
    let mut fleet = Fleet::new(&cluster, 1, 1, &[]);
    fleet.start(0);
    fleet.wait_until_all_decide(1);
    for round in 0..5 {
        let sent = desk.send(&cluster, 0..1, &format!("before{round}"), 3);
        cluster.wait_for_decisions(&sent, SOON);
    }
    assert_eq!(fleet.stop(0), Some(0));
    let whole = cluster.read("gate.ledger");
    let decisions = cluster.read("gate.decisions").len();
    make_anew(&mut cluster, "gate.ledger", 1);
    let kept: Vec<NewRecord<'_>> = whole[..whole.len() - 3]
        .iter()
        .map(|record| NewRecord { partition: Some(0), key: None, value: &record.value, headers: &[] })
        .collect();
    cluster.produce("gate.ledger", &kept);
    fleet.start(0);
    let said = fleet.wait_until_it_says(0, "OUTPUT_AHEAD_OF_LEDGER", SOON);
    println!("{said}");
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(cluster.read("gate.decisions").len(), decisions, "nothing is published");
    fleet.stop_all();
}

#[test]
fn records_larger_than_the_limits_and_poison_stop_nothing() {
    let Some(home) = Home::find() else { return };
    let _turn = kafka::turn();
    let settings = [("message.max.bytes", "2000000")];
    let mut cluster = Cluster::start(&home, 1, &settings);
    cluster.create_gate_topics(1);
    let desk = Desk::open(&cluster, 1);
    let mut fleet = Fleet::new(&cluster, 1, 1, &[]);
    fleet.start(0);
    fleet.wait_until_all_decide(1);
    let large = vec![b'x'; 900_000];
    let long =
        format!(r#"{{"event":"order_intent","client_order_id":"L-1","account":"{}","symbol":"{}"}}"#, desk.account(0), "A".repeat(900_000));
    let deep = format!("{}1{}", "[".repeat(30_000), "]".repeat(30_000));
    let key = desk.account(0).as_bytes();
    for topic in ["orders.intents", "orders.executions", "market.prices", "gate.control"] {
        let values: [&[u8]; 7] = [&large, long.as_bytes(), b"", b"\0\xff\xfe", b"{}", b"null", deep.as_bytes()];
        let mut records: Vec<NewRecord<'_>> =
            values.iter().map(|value| NewRecord { partition: Some(0), key: Some(key), value, headers: &[] }).collect();
        records.push(NewRecord { partition: Some(0), key: None, value: b"{}", headers: &[] });
        records.push(NewRecord { partition: Some(0), key: Some(&large[..500_000]), value: b"{}", headers: &[] });
        records.push(NewRecord { partition: Some(0), key: Some(b"\xff\0"), value: b"{}", headers: &[("h", b"\xff")] });
        cluster.produce_with(topic, &records, &[("message.max.bytes", "2000000")]);
        cluster.produce_null(topic, 0, Some(key));
        cluster.produce_null(topic, 0, None);
    }
    // An execution that nobody can read may have been a fill: its account is halted until an operator has looked.
    let sent = desk.send(&cluster, 0..1, "halted", 3);
    let decided = cluster.wait_for_decisions(&sent, SOON);
    assert!(sent.iter().all(|id| decided[id]["reasons"][0]["code"] == "HALTED"), "{decided:?}");
    // One without a key may have been anybody's, so the whole shard is.
    for scope in [format!(r#"{{"account":"{}"}}"#, desk.account(0)), "{}".to_owned()] {
        let active = format!(r#"{{"event":"trading_state_set","scope":{scope},"state":"active","actor":"op","reason":"looked"}}"#);
        desk.control(&cluster, "gate", &active);
    }
    desk.wait_for_control(&cluster);
    let sent = desk.send(&cluster, 0..1, "after", 3);
    let decided = cluster.wait_for_decisions(&sent, SOON);
    assert!(sent.iter().all(|id| decided[id]["verdict"] == "allow"), "{decided:?}");
    let dead = cluster.read("gate.dead-letter");
    println!("{} dead letters, {} decisions", dead.len(), decided.len());
    for topic in ["orders.intents", "orders.executions", "market.prices", "gate.control"] {
        let of_it =
            dead.iter().filter(|record| serde_json::from_slice::<Value>(&record.value).unwrap()["source"]["topic"] == topic).count();
        println!("{topic}: {of_it} dead letters of 12 poison records");
        assert!(of_it >= 8, "{topic}: {of_it} dead letters");
    }
    fleet.wait_until_all_decide(1);
    fleet.stop_all();
    cluster.audit_clean(&["--drained"]);
}
