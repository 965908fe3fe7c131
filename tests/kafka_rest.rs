//! A gate at rest costs next to nothing: clients that nobody needs do not run in circles, and the one that hears decisions rests. Who
//! asks then is answered all the same.

#[path = "support/kafka/mod.rs"]
mod kafka;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use kafka::Home;
use kafka::client::NewRecord;
use kafka::cluster::Cluster;
use kafka::desk::Desk;
use kafka::fleet::Fleet;
use ordergate::kafka::{Cluster as Brokers, DecisionWatch, KafkaOptions};

/// More than a client fetches ahead: one that stands in the middle of them has a full queue.
const PRICES: usize = 6_000;
/// Longer than it takes until an unneeded client lets go, and the ear rests.
const REST: Duration = Duration::from_secs(7);
/// A client that looks a thousand times a second whether it may fetch more is far above; one that fetches every 25 ms is below.
const WAKES_MAX: u64 = 400;

/// How often each thread of a process that serves a broker has waited so far.
fn waits(pid: u32) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten() {
        let read = |name: &str| std::fs::read_to_string(task.path().join(name)).unwrap_or_default();
        if read("comm").starts_with("rdk:broker") {
            let count = read("status").lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")?.trim().parse().ok());
            found.insert(task.file_name().into_string().unwrap(), count.unwrap_or_default());
        }
    }
    found
}

#[test]
fn clients_at_rest_do_not_run_in_circles_and_who_asks_then_is_answered() {
    let Some(home) = Home::find() else { return };
    let mut cluster = Cluster::single(&home);
    cluster.create_gate_topics(1);
    let desk = Desk::open(&cluster, 1);
    let mut fleet = Fleet::new(&cluster, 2, 1, &[]);
    fleet.start(0);
    fleet.wait_until_all_decide(1);
    fleet.start(1);
    fleet.wait_until_all_decide(1);
    let price = br#"{"event":"trade","symbol":"AAPL","price":"100"}"#;
    let prices: Vec<_> = (0..PRICES).map(|_| NewRecord { partition: Some(0), key: Some(b"AAPL"), value: price, headers: &[] }).collect();
    cluster.produce("market.prices", &prices);
    // A look at the first of them, and nobody comes back for the rest.
    for place in 0..2 {
        let (status, page) = fleet.get(place, "/api/v1/topics/market.prices/records?from=0&limit=5").unwrap();
        assert_eq!((status, page.lines().count()), (200, 5), "{page}");
    }
    std::thread::sleep(REST);
    for place in 0..2 {
        let (before, begun) = (waits(fleet.pid(place)), Instant::now());
        std::thread::sleep(Duration::from_secs(3));
        let after = waits(fleet.pid(place));
        let seconds = begun.elapsed().as_secs().max(1);
        let most = after.iter().filter_map(|(task, count)| Some((count - before.get(task)?) / seconds)).max().unwrap();
        println!("gate-{}: {} threads, the busiest waits {most} times a second", place + 1, after.len());
        assert!(most < WAKES_MAX, "gate-{}: a thread waits {most} times a second", place + 1);
    }
    // The shard is gate-1's; gate-2 hears of its decisions from the topic.
    for round in 0..3 {
        let others = desk.send(&cluster, 0..1, &format!("others{round}"), 50);
        cluster.wait_for_decisions(&others, REST);
        for number in 0..5 {
            let id = format!("asked-{round}-{number}");
            let (status, answer) = fleet.post_intent(1, &desk.order(0, &id), 5_000).unwrap();
            assert_eq!((status, answer["client_order_id"].as_str()), (200, Some(id.as_str())), "{answer}");
        }
        std::thread::sleep(REST);
    }
    fleet.stop_all();
}

/// Of this process: how many listen to decisions.
fn listeners() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    tasks.filter(|task| std::fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.starts_with("kafka-decisions"))).count()
}

#[test]
fn who_hears_decisions_ends_with_the_last_who_may_ask_also_at_rest() {
    let Some(home) = Home::find() else { return };
    let mut cluster = Cluster::single(&home);
    cluster.create_gate_topics(1);
    let brokers = Brokers::new(KafkaOptions { brokers: cluster.brokers(), ..KafkaOptions::default() }).unwrap();
    let watch = DecisionWatch::start(&brokers).unwrap();
    std::thread::sleep(REST);
    assert_eq!(listeners(), 1);
    drop(watch);
    let begun = Instant::now();
    while listeners() > 0 {
        assert!(begun.elapsed() < Duration::from_secs(10), "it listens on for nobody");
        std::thread::sleep(Duration::from_millis(50));
    }
}
