//! A bounded soak: a steady flow through eight shards on three instances, with a rolling restart of the gates and of the broker
//! again and again. Memory stays flat, decisions come in time outside the restarts, and the auditor finds nothing.
//!
//! `SOAK_SECONDS=900 RATE=2500 cargo test --release --test kafka_soak -- --nocapture`; without the variable, nothing runs.

#[path = "support/kafka/mod.rs"]
mod kafka;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use kafka::Home;
use kafka::client::NewRecord;
use kafka::cluster::Cluster;
use kafka::fleet::{Fleet, Flow, generating};
use ordergate::engine::Partitioner;

const SHARDS: i32 = 8;
const INSTANCES: usize = 3;
/// How often everything is restarted.
const RESTART_EVERY: Duration = Duration::from_secs(120);
/// The flow was made before it is decided: of an order that its own gate refused and this one allows, it knows nothing, and it would work
/// for ever. A venue ends such orders.
const VENUE_ENDS_EVERY: Duration = Duration::from_secs(20);
const VENUE_ENDS_AFTER_MS: i64 = 30_000;
const ACCOUNTS: u32 = 200;

#[test]
fn memory_stays_flat_and_decisions_come_in_time() {
    let Some(seconds) = std::env::var("SOAK_SECONDS").ok().map(|text| text.parse().expect("a number")) else {
        eprintln!("SKIPPED: SOAK_SECONDS=900 soaks for a quarter of an hour");
        return;
    };
    let Some(home) = Home::find() else { return };
    let rate: u64 = std::env::var("RATE").map_or(1_000, |text| text.parse().expect("a number"));
    let mut cluster = Cluster::start(&home, 1, &[("group.min.session.timeout.ms", "1000")]);
    cluster.create_gate_topics(SHARDS);
    let mut fleet = Fleet::new(&cluster, INSTANCES, SHARDS, &[("kafka.standby", "1"), ("snapshot.every_seconds", "20")]);
    for place in 0..INSTANCES {
        fleet.start(place);
    }
    fleet.wait_until_all_decide(SHARDS);
    let lines = generating(11, ACCOUNTS, (seconds + 60) * rate);
    let flow = Flow::stream(&cluster, lines, 1_000, rate);
    std::thread::sleep(Duration::from_secs(3));
    // Ids are forgotten soon, so that what is remembered does not grow with the length of the run.
    let settings = br#"{"event":"gate_settings_set","id_memory_ms":20000}"#;
    cluster.produce("gate.control", &[NewRecord { key: Some(b"gate"), value: settings, ..NewRecord::default() }]);

    let (begun, mut ended) = (Instant::now(), 0);
    let mut venue = Instant::now();
    let (mut resident, mut heap, mut restarts) = (Vec::new(), Vec::new(), Vec::new());
    let every = std::env::var("RESTART_SECONDS").map_or(RESTART_EVERY, |text| Duration::from_secs(text.parse().expect("a number")));
    let mut next = every / 2;
    while begun.elapsed() < Duration::from_secs(seconds) {
        assert!(!flow.has_ended(), "the flow ended early");
        std::thread::sleep(Duration::from_secs(5));
        resident.push((begun.elapsed().as_secs(), (0..INSTANCES).map(|place| fleet.resident_bytes(place) >> 20).collect::<Vec<_>>()));
        heap.push(heap_mib(&fleet));
        if venue.elapsed() > VENUE_ENDS_EVERY {
            ended += end_old_orders(&cluster, &fleet);
            venue = Instant::now();
        }
        if begun.elapsed() > next {
            next += every;
            let from = now_ms();
            // The last one is never restarted: on it a leak would show.
            for place in 0..INSTANCES - 1 {
                assert_eq!(fleet.stop(place), Some(0), "{}", fleet.words(place));
                fleet.start(place);
                fleet.wait_until_all_decide(SHARDS);
            }
            cluster.stop(0);
            cluster.start_node(0);
            cluster.wait();
            fleet.wait_until_all_decide(SHARDS);
            // What waited meanwhile is decided late, and counts as part of the restart.
            std::thread::sleep(Duration::from_secs(5));
            restarts.push((from, now_ms()));
        }
    }
    let sent = flow.finish(true);
    fleet.wait_until_all_decide(SHARDS);
    wait_until_all_is_applied(&fleet);
    fleet.stop_all();
    println!("{ended} orders that worked for longer than {VENUE_ENDS_AFTER_MS} ms were ended by the venue");
    println!("MiB (alive, taken) of the heap of the instance that was never restarted: {heap:?}");
    report(&cluster, sent, &resident, &restarts);
    cluster.audit_clean(&["--drained", "--timeout", "1500"]);
}

/// Ends the orders that have worked for long; says how many.
fn end_old_orders(cluster: &Cluster, fleet: &Fleet) -> usize {
    let (mut ended, now) = (Vec::new(), now_ms());
    for number in 1..=ACCOUNTS {
        let account = format!("ACC{number:04}");
        let Some((200, page)) = fleet.get(INSTANCES - 1, &format!("/api/v1/accounts/{account}/orders?limit=500")) else { continue };
        let page: serde_json::Value = serde_json::from_str(&page).unwrap();
        let old = page["items"].as_array().unwrap().iter().filter(|order| order["at"].as_i64().unwrap() < now - VENUE_ENDS_AFTER_MS);
        ended.extend(old.map(|order| {
            let id = order["client_order_id"].as_str().unwrap();
            (account.clone(), format!(r#"{{"event":"canceled","client_order_id":"{id}","account":"{account}"}}"#))
        }));
    }
    let shard = |account: &str| i32::try_from(Partitioner::Murmur2.partition(account.as_bytes(), SHARDS.unsigned_abs())).unwrap();
    let records: Vec<_> = (ended.iter())
        .map(|(account, report)| {
            let (partition, key) = (Some(shard(account)), Some(account.as_bytes()));
            NewRecord { partition, key, value: report.as_bytes(), headers: &[] }
        })
        .collect();
    if !records.is_empty() {
        cluster.produce("orders.executions", &records);
    }
    records.len()
}

/// What lives on the heap of the last instance, and what the heap takes.
fn heap_mib(fleet: &Fleet) -> (u64, u64) {
    let mib = |name: &str| fleet.metric(INSTANCES - 1, name).unwrap_or_default() as u64 >> 20;
    (mib("ordergate_heap_allocated_bytes"), mib("ordergate_heap_resident_bytes"))
}

/// The auditor counts what is not decided at the end: it would find a shard that fell silent.
fn wait_until_all_is_applied(fleet: &Fleet) {
    let begun = Instant::now();
    let lag = || (0..INSTANCES).map(|place| fleet.metric(place, "ordergate_source_lag_records").unwrap_or(f64::MAX)).sum::<f64>();
    while lag() > 0.0 && begun.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(500));
    }
    std::thread::sleep(Duration::from_secs(5));
    println!("applied {:?} after the flow's end", begun.elapsed());
}

fn now_ms() -> i64 {
    i64::try_from(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// From an intent's append to its decision's, both as the broker stamped them.
fn report(cluster: &Cluster, sent: u64, resident: &[(u64, Vec<u64>)], restarts: &[(i64, i64)]) {
    let intents: HashMap<(i32, i64), i64> =
        cluster.read("orders.intents").into_iter().map(|record| ((record.partition, record.offset), record.ts_ms)).collect();
    let (mut outside, mut during) = (Vec::new(), Vec::new());
    for record in cluster.read("gate.decisions") {
        let decision: serde_json::Value = serde_json::from_slice(&record.value).unwrap();
        let source = &decision["source"];
        let place = (i32::try_from(source["partition"].as_i64().unwrap()).unwrap(), source["offset"].as_i64().unwrap());
        let came = intents[&place];
        let is_during = restarts.iter().any(|(from, to)| came >= *from && came <= *to);
        if is_during {
            during.push(record.ts_ms - came)
        } else {
            outside.push(record.ts_ms - came)
        };
    }
    println!("{sent} records sent; resident MiB by second: {resident:?}");
    for (name, times) in [("outside restarts", &mut outside), ("during restarts", &mut during)] {
        times.sort_unstable();
        let at = |of_thousand: usize| times.get((times.len() * of_thousand / 1000).min(times.len().saturating_sub(1))).copied();
        println!("{name}: {} decisions, ms p50 {:?} p99 {:?} p99.9 {:?} max {:?}", times.len(), at(500), at(990), at(999), at(1000));
    }
    let third = resident.len() / 3;
    let (early, late) = (steady(&resident[third..2 * third]), steady(&resident[2 * third..]));
    println!("resident MiB of the instance that was never restarted: {early} in the second third, {late} in the last");
    assert!(late <= early + early / 10, "memory grows: {early} MiB, then {late} MiB");
    let p99 = outside.get(outside.len() * 99 / 100).copied().unwrap_or_default();
    assert!(p99 < 1_000, "p99 outside the restarts: {p99} ms");
}

/// The median of the last instance.
fn steady(samples: &[(u64, Vec<u64>)]) -> u64 {
    let mut of_last: Vec<u64> = samples.iter().filter_map(|(_, each)| each.last().copied()).collect();
    of_last.sort_unstable();
    of_last.get(of_last.len() / 2).copied().unwrap_or_default()
}
