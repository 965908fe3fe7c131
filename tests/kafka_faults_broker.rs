//! What befalls brokers: killed, restarted, frozen, forgetful, cut off between an append and its acknowledgement.
//!
//! What must hold each time: the gate goes on by itself within a stated time, every intent has one decision, the auditor finds
//! nothing. While nothing can be committed nothing is decided, memory stays bounded, and `/readyz` says why.

#[path = "support/kafka/mod.rs"]
mod kafka;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use kafka::Home;
use kafka::client::NewRecord;
use kafka::cluster::Cluster;
use kafka::desk::Desk;
use kafka::fleet::{Fleet, Flow};
use kafka::ports;
use kafka::proxy::Proxy;
use ordergate::engine::{Claimant, Replica};
use ordergate::log::StoredRecord;
use ordergate::wire::frame;
use rdkafka::consumer::{BaseConsumer, Consumer};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(30);
/// Shards of the gates whose clients forget their brokers: enough clients that some do.
const HIT: i32 = 4;

fn lines(desk: &Desk, shards: i32, count: usize) -> Vec<String> {
    (0..count).map(|n| desk.line(i32::try_from(n).unwrap() % shards, &format!("flow-{n}"))).collect()
}

/// One broker and what stands before it: clients begin at the broker, and are sent to the proxy by what it says of itself.
fn behind_a_proxy(home: &Home) -> (ports::Port, Proxy, Cluster) {
    let port = ports::reserve();
    let proxy = Proxy::listen(port.number);
    let advertised = format!("PLAINTEXT://127.0.0.1:{}", port.number);
    let cluster = Cluster::start(home, 1, &[("advertised.listeners", &advertised)]);
    proxy.forward_to(cluster.port(0));
    (port, proxy, cluster)
}

/// The ledger of the only shard, folded.
fn folded(cluster: &Cluster) -> Replica {
    let mut replica = Replica::new(0);
    for record in cluster.read("gate.ledger") {
        let (offset, payload) = (u64::try_from(record.offset).unwrap(), record.value);
        replica.take(StoredRecord { offset, ts: record.ts_ms, key: None, payload, tag: None }).unwrap();
    }
    replica
}

fn flow_ids(sent: u64) -> BTreeSet<String> {
    (0..sent).map(|n| format!("flow-{n}")).collect()
}

/// A broker forgets a producer that was silent for a while, a day by default, and with it the numbers that tell a retry from a
/// new record.
#[test]
fn an_owner_whose_producer_the_broker_has_forgotten_goes_on() {
    let Some(home) = Home::find() else { return };
    let _turn = kafka::turn();
    let settings = [("producer.id.expiration.ms", "1000"), ("producer.id.expiration.check.interval.ms", "200")];
    let mut cluster = Cluster::start(&home, 1, &settings);
    cluster.create_gate_topics(1);
    let desk = Desk::open(&cluster, 1);
    let mut fleet = Fleet::new(&cluster, 1, 1, &[]);
    fleet.start(0);
    fleet.wait_until_all_decide(1);
    for round in 0..2 {
        let sent = desk.send(&cluster, 0..1, &format!("round{round}"), 5);
        cluster.wait_for_decisions(&sent, Duration::from_secs(5));
        std::thread::sleep(Duration::from_millis(2_000));
    }
    fleet.stop_all();
    let (claims, late) = cluster.claims_and_late_frames();
    println!("{claims} claims, {late} late frames");
    assert_eq!(late, 0);
    cluster.audit_clean(&["--drained"]);
}

#[test]
fn a_lone_broker_that_is_killed_and_restarted_loses_no_decision() {
    const SHARDS: i32 = 2;
    let Some(home) = Home::find() else { return };
    let _turn = kafka::turn();
    let mut cluster = Cluster::single(&home);
    cluster.create_gate_topics(SHARDS);
    let desk = Desk::open(&cluster, SHARDS);
    let mut fleet = Fleet::new(&cluster, 2, SHARDS, &[]);
    fleet.start(0);
    fleet.start(1);
    fleet.wait_until_all_decide(SHARDS);
    let flow = Flow::start(&cluster, lines(&desk, SHARDS, 100_000), 0, 200);
    std::thread::sleep(Duration::from_secs(2));
    cluster.restart(0);
    let back = Instant::now();
    let sent = desk.send(&cluster, 0..SHARDS, "back", 1);
    cluster.wait_for_decisions(&sent, Duration::from_secs(15));
    println!("decided {:?} after the broker came back", back.elapsed());
    let sent = flow.finish(true);
    cluster.wait_for_decisions(&flow_ids(sent), SOON);
    fleet.wait_until_all_decide(SHARDS);
    fleet.stop_all();
    cluster.audit_clean(&["--drained"]);
}

/// Each of the three is killed in turn: with it goes the leader of a third of the partitions, once the controller, once the
/// group's coordinator.
#[test]
fn three_brokers_killed_in_turn_hold_no_decision_up_for_long() {
    const SHARDS: i32 = 3;
    let Some(home) = Home::find() else { return };
    let _turn = kafka::turn();
    let mut cluster = Cluster::of_three(&home);
    cluster.create_gate_topics(SHARDS);
    let desk = Desk::open(&cluster, SHARDS);
    let mut fleet = Fleet::new(&cluster, 2, SHARDS, &[]);
    fleet.start(0);
    fleet.start(1);
    fleet.wait_until_all_decide(SHARDS);
    let flow = Flow::start(&cluster, lines(&desk, SHARDS, 100_000), 0, 100);
    let coordinator = cluster.leader("__consumer_offsets", 0).expect("the group has a coordinator");
    println!(
        "ledgers led by {:?}, group by {coordinator}",
        (0..SHARDS).map(|shard| cluster.leader("gate.ledger", shard)).collect::<Vec<_>>()
    );
    for node in [coordinator, (coordinator + 1) % 3, (coordinator + 2) % 3] {
        std::thread::sleep(Duration::from_secs(1));
        cluster.kill(node);
        let killed = Instant::now();
        let sent = desk.send(&cluster, 0..SHARDS, &format!("without{node}"), 1);
        let produced = killed.elapsed();
        cluster.wait_for_decisions(&sent, Duration::from_secs(20));
        println!("node {node} killed: the orders were in after {produced:?}, decided after {:?}", killed.elapsed());
        if node != (coordinator + 2) % 3 {
            cluster.start_node(node);
            cluster.wait();
            wait_until_in_sync(&cluster);
        }
    }
    let sent = flow.finish(true);
    cluster.wait_for_decisions(&flow_ids(sent), SOON);
    fleet.wait_until_all_decide(SHARDS);
    fleet.stop_all();
    cluster.audit_clean(&["--drained"]);
}

/// With two of three in sync a further kill would leave one, and writes would wait.
fn wait_until_in_sync(cluster: &Cluster) {
    let begun = Instant::now();
    while !cluster.all_in_sync() {
        assert!(begun.elapsed() < Duration::from_secs(60), "not in sync");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn an_acknowledgement_lost_after_the_append_decides_nothing_twice() {
    let Some(home) = Home::find() else { return };
    let _turn = kafka::turn();
    let (_port, proxy, mut cluster) = behind_a_proxy(&home);
    cluster.create_gate_topics(1);
    let desk = Desk::open(&cluster, 1);
    let mut fleet = Fleet::new(&cluster, 1, 1, &[]);
    fleet.start(0);
    fleet.wait_until_all_decide(1);
    let mut sent = BTreeSet::new();
    for round in 0..5 {
        sent.append(&mut desk.send(&cluster, 0..1, &format!("calm{round}"), 3));
        // Whose answers these are is chance: the test's own producer, the ledger's, the outputs'. So there are many rounds.
        proxy.lose_answers(2 + round);
        sent.append(&mut desk.send(&cluster, 0..1, &format!("cut{round}"), 20));
        cluster.wait_for_decisions(&sent, SOON);
    }
    proxy.lose_answers(0);
    fleet.wait_until_all_decide(1);
    fleet.stop_all();
    println!("{} answers lost, {:?} claims and late frames", proxy.lost(), cluster.claims_and_late_frames());
    assert!(proxy.lost() >= 10, "{} answers lost", proxy.lost());
    cluster.audit_clean(&["--drained"]);
}

/// A broker that is about to stop may answer that the cluster has topics and no brokers. A client that believes it forgets all it knew, and stays silent
/// for ever (librdkafka's issue 5301). Each of ours may be hit: the inputs', the ledger's, the outputs', the group's.
#[test]
fn clients_that_forget_their_brokers_are_replaced() {
    let Some(home) = Home::find() else { return };
    let _turn = kafka::turn();
    let (_port, proxy, mut cluster) = behind_a_proxy(&home);
    cluster.create_gate_topics(HIT);
    let desk = Desk::open(&cluster, HIT);
    // As it is, most find their way back, and how many depends on the machine's threads. This way none does.
    let mut fleet = Fleet::new(&cluster, 2, HIT, &[("kafka.standby", "1"), ("kafka.properties.metadata.recovery.strategy", "none")]);
    fleet.start(0);
    fleet.start(1);
    fleet.wait_until_all_decide(HIT);
    let mut sent = BTreeSet::new();
    let (mut lost, mut round) = (0.0, 0);
    while lost < 10.0 {
        assert!(round < 20, "{} answers without brokers, and {lost} clients were lost", proxy.hidden());
        proxy.hide_brokers(true);
        proxy.hang_up();
        std::thread::sleep(Duration::from_millis(700));
        proxy.hide_brokers(false);
        sent.append(&mut desk.send(&cluster, 0..HIT, &format!("round{round}"), 10));
        cluster.wait_for_decisions(&sent, SOON);
        fleet.wait_until_all_decide(HIT);
        lost = (0..2).filter_map(|gate| fleet.metric(gate, "ordergate_kafka_clients_lost_total")).sum();
        round += 1;
    }
    println!("{round} rounds, {} answers without brokers, {lost} clients replaced", proxy.hidden());
    fleet.stop_all();
    cluster.audit_clean(&["--drained"]);
}

/// A client that gets nothing says nothing. That there is more to read is known from elsewhere.
#[test]
fn inputs_that_fall_silent_are_noticed_and_read_again() {
    let Some(home) = Home::find() else { return };
    let _turn = kafka::turn();
    let (_port, proxy, mut cluster) = behind_a_proxy(&home);
    cluster.create_gate_topics(1);
    let desk = Desk::open(&cluster, 1);
    let mut fleet = Fleet::new(&cluster, 1, 1, &[]);
    fleet.start(0);
    fleet.wait_until_all_decide(1);
    let mut sent = desk.send(&cluster, 0..1, "before", 5);
    cluster.wait_for_decisions(&sent, SOON);
    proxy.starve(true);
    let begun = Instant::now();
    sent.append(&mut desk.send(&cluster, 0..1, "silent", 5));
    fleet.wait_until_it_says(0, "orders.intents 0 does not come from offset 5 on", Duration::from_secs(25));
    println!("noticed {:?} after the first order that did not come", begun.elapsed());
    assert_eq!(fleet.get(0, "/readyz").map(|(status, _)| status), Some(503));
    proxy.starve(false);
    cluster.wait_for_decisions(&sent, SOON);
    fleet.wait_until_all_decide(1);
    fleet.stop_all();
    cluster.audit_clean(&["--drained"]);
}

/// An owner with nothing to append learns from its ledger alone that it still is one. While that is silent it does not say that it is ready.
#[test]
fn an_idle_owner_that_hears_nothing_of_its_ledger_is_not_ready_and_keeps_its_term() {
    let Some(home) = Home::find() else { return };
    let _turn = kafka::turn();
    let mut cluster = Cluster::single(&home);
    cluster.create_gate_topics(1);
    let desk = Desk::open(&cluster, 1);
    let mut fleet = Fleet::new(&cluster, 1, 1, &[("kafka.session_timeout_ms", "45000")]);
    fleet.start(0);
    fleet.wait_until_all_decide(1);
    let mut sent = desk.send(&cluster, 0..1, "before", 5);
    cluster.wait_for_decisions(&sent, SOON);
    std::thread::sleep(Duration::from_secs(2));
    cluster.freeze(0);
    let frozen = Instant::now();
    let said = fleet.wait_until_it_says(0, "COMMIT_STALLED", SOON);
    println!("not ready {:?} after the broker froze: {said}", frozen.elapsed());
    assert_eq!(fleet.get(0, "/readyz").map(|(status, _)| status), Some(503));
    cluster.thaw(0);
    fleet.wait_until_all_decide(1);
    sent.append(&mut desk.send(&cluster, 0..1, "after", 5));
    cluster.wait_for_decisions(&sent, SOON);
    assert_eq!(cluster.claims_and_late_frames(), (1, 0), "it went on in its term");
    fleet.stop_all();
    cluster.audit_clean(&["--drained"]);
}

/// The same of a client that gets nothing: that there is more in the ledger, a claim perhaps, is known from elsewhere.
#[test]
fn an_idle_owner_whose_ledger_falls_silent_notices_what_it_did_not_hear() {
    let Some(home) = Home::find() else { return };
    let _turn = kafka::turn();
    let (_port, proxy, mut cluster) = behind_a_proxy(&home);
    cluster.create_gate_topics(1);
    let desk = Desk::open(&cluster, 1);
    let mut fleet = Fleet::new(&cluster, 1, 1, &[]);
    fleet.start(0);
    fleet.wait_until_all_decide(1);
    let mut sent = desk.send(&cluster, 0..1, "before", 5);
    cluster.wait_for_decisions(&sent, SOON);
    std::thread::sleep(Duration::from_secs(2));
    let replica = folded(&cluster);
    let claim = Claimant { owner: "another".to_owned(), ..Claimant::default() }.claim(&replica.sequence, 0);
    proxy.starve(true);
    std::thread::sleep(Duration::from_secs(1));
    let value = frame::encode(&claim).unwrap();
    cluster.produce("gate.ledger", &[NewRecord { partition: Some(0), key: None, value: &value, headers: &[] }]);
    let begun = Instant::now();
    let silent = format!("gate.ledger 0 does not come from offset {} on", replica.sequence.next_offset);
    fleet.wait_until_it_says(0, &silent, SOON);
    println!("noticed {:?} after the claim that it did not hear of", begun.elapsed());
    proxy.starve(false);
    sent.append(&mut desk.send(&cluster, 0..1, "after", 5));
    cluster.wait_for_decisions(&sent, SOON);
    fleet.wait_until_all_decide(1);
    fleet.stop_all();
    assert_eq!(folded(&cluster).sequence.term, replica.sequence.term + 2, "the other's claim counts, and ours after it");
    cluster.audit_clean(&["--drained"]);
}

/// `STANDSTILL_S=60` makes it a minute. The broker stands still, and stands still again and again, and then for long: what waits meanwhile waits in the broker.
#[test]
fn a_broker_that_stands_still_costs_time_and_no_memory_and_late_orders_expire() {
    let Some(home) = Home::find() else { return };
    let _turn = kafka::turn();
    let standstill_s = std::env::var("STANDSTILL_S").map_or(8, |text| text.parse().unwrap());
    let mut cluster = Cluster::single(&home);
    cluster.create_gate_topics(1);
    let desk = Desk::open(&cluster, 1);
    desk.control(&cluster, "gate", r#"{"event":"gate_settings_set","max_intent_age_ms":3000}"#);
    let mut fleet = Fleet::new(&cluster, 1, 1, &[("log.commit_stall_timeout_ms", "2000")]);
    fleet.start(0);
    fleet.wait_until_all_decide(1);

    let flow = Flow::start(&cluster, lines(&desk, 1, 200_000), 0, 500);
    for _ in 0..10 {
        cluster.freeze(0);
        std::thread::sleep(Duration::from_millis(300));
        cluster.thaw(0);
        std::thread::sleep(Duration::from_millis(200));
    }
    let slow = flow.finish(true);
    let decided = cluster.wait_for_decisions(&flow_ids(slow), SOON);
    let allowed = decided.values().filter(|decision| decision["verdict"] == "allow").count();
    println!("{slow} orders while it was slow, {allowed} allowed; {} MiB", fleet.resident_mib(0));

    // A backlog in the broker, since the gate stood still for a moment, and orders on their way while it does not move.
    let before = fleet.resident_mib(0);
    let flow = Flow::start(&cluster, stale_lines(&desk, 200_000), 0, 400);
    std::thread::sleep(Duration::from_secs(2));
    // It stalls over what it had fetched by then; on a busy machine that may be nothing.
    let said = (0..4).find_map(|_| {
        fleet.signal(0, "STOP");
        expect_backlog(&cluster, 300);
        cluster.freeze(0);
        fleet.signal(0, "CONT");
        let said = fleet.says(0, "COMMIT_STALLED", Duration::from_secs(6));
        if said.is_none() {
            cluster.thaw(0);
            fleet.wait_until_all_decide(1);
        }
        said
    });
    let said = said.expect("it never stalled");
    std::thread::sleep(Duration::from_secs(standstill_s));
    let during = fleet.resident_mib(0);
    assert_eq!(fleet.get(0, "/readyz").map(|(status, _)| status), Some(503), "{said}");
    let answer = fleet.post_intent(0, &desk.order(0, "waits-1"), 1_000).expect("an answer");
    assert!(matches!(answer.0, 503 | 504), "{answer:?}");
    cluster.thaw(0);
    let thawed = Instant::now();
    let sent = flow.finish(true);
    let ids: BTreeSet<String> = (0..sent).map(|n| format!("stale-{n}")).collect();
    let decided = cluster.wait_for_decisions(&ids, Duration::from_secs(60));
    fleet.wait_until_all_decide(1);
    let after = fleet.resident_mib(0);
    println!(
        "{sent} orders around the standstill, all decided {:?} after it; {before} MiB before, {during} during, {after} after",
        thawed.elapsed()
    );
    assert!(after < before + 150 && during < before + 150, "{before} MiB before, {during} during, {after} after");
    fleet.stop_all();
    expect_no_late_approval(&cluster, &decided);
    cluster.audit_clean(&["--drained"]);
}

/// Waits until the broker has taken so many more orders.
fn expect_backlog(cluster: &Cluster, more: i64) {
    let client: BaseConsumer = cluster.client().create().unwrap();
    let taken = || client.fetch_watermarks("orders.intents", 0, Duration::from_secs(10)).unwrap().1;
    let (before, begun) = (taken(), Instant::now());
    while taken() < before + more {
        assert!(begun.elapsed() < Duration::from_secs(30), "the flow has ended");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn stale_lines(desk: &Desk, count: usize) -> Vec<String> {
    (0..count).map(|n| desk.line(0, &format!("stale-{n}"))).collect()
}

/// What was decided later than `max_intent_age_ms` after the broker took it in was refused as expired.
fn expect_no_late_approval(cluster: &Cluster, decided: &BTreeMap<String, Value>) {
    let times: BTreeMap<i64, i64> = cluster.read("orders.intents").iter().map(|record| (record.offset, record.ts_ms)).collect();
    let by_offset: BTreeMap<u64, &Value> =
        decided.values().filter_map(|decision| Some((decision["source"]["offset"].as_u64()?, decision))).collect();
    let (mut expired, mut allowed) = (0, 0);
    for entry in cluster.ledger() {
        let ordergate::wire::frame::Entry::Frame(frame) = entry.entry else { continue };
        for input in &frame.inputs {
            let source = input.source;
            if source.topic != ordergate::domain::InputTopic::Intents {
                continue;
            }
            let age = frame.received - times[&i64::try_from(source.offset).unwrap()];
            let Some(decision) = by_offset.get(&source.offset) else { continue };
            let is_allowed = decision["verdict"] == "allow";
            assert!(!is_allowed || age <= 3_000, "an order of {age} ms was allowed: {decision}");
            expired += i32::from(!is_allowed);
            allowed += i32::from(is_allowed);
        }
    }
    println!("{expired} of the orders looked at were refused, {allowed} allowed");
    assert!(expired > 0, "nothing waited so long");
}
