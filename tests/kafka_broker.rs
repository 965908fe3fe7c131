//! The ground that the Kafka tests stand on: brokers that start, die and come back with what they acknowledged.

#[path = "support/kafka/mod.rs"]
mod kafka;

use std::process::Command;
use std::time::{Duration, Instant};

use kafka::Home;
use kafka::client::{NewRecord, Topic};
use kafka::cluster::Cluster;

fn values(first: usize, count: usize) -> Vec<String> {
    (first..first + count).map(|i| format!("value {i}")).collect()
}

fn produce(cluster: &Cluster, topic: &str, values: &[String]) -> Vec<(i32, i64)> {
    let headers: &[(&str, &[u8])] = &[("output", b"0-1-0")];
    let records: Vec<_> =
        values.iter().map(|value| NewRecord { key: Some(b"k"), value: value.as_bytes(), headers, ..NewRecord::default() }).collect();
    cluster.produce(topic, &records)
}

fn read(cluster: &Cluster, topic: &str) -> Vec<String> {
    cluster.read(topic).into_iter().map(|record| String::from_utf8(record.value).unwrap()).collect()
}

#[test]
fn a_killed_broker_comes_back_with_everything_it_acknowledged() {
    let Some(home) = Home::find() else { return };
    let mut cluster = Cluster::single(&home);
    cluster.create_topics(&[Topic { name: "t", partitions: 1, replicas: 1, settings: &[("message.timestamp.type", "LogAppendTime")] }]);
    let landed = produce(&cluster, "t", &values(0, 1000));
    assert_eq!(landed, (0..1000).map(|offset| (0, offset)).collect::<Vec<_>>());
    cluster.restart(0);
    produce(&cluster, "t", &values(1000, 10));
    assert_eq!(read(&cluster, "t"), values(0, 1010));
    let first = &cluster.read("t")[0];
    assert_eq!((first.key.as_deref(), first.headers.clone()), (Some(b"k".as_slice()), vec![("output".to_owned(), b"0-1-0".to_vec())]));
    assert!(first.ts_ms > 1_700_000_000_000, "{first:?}");
}

#[test]
fn a_frozen_broker_answers_nobody_until_it_is_thawed() {
    let Some(home) = Home::find() else { return };
    let mut cluster = Cluster::single(&home);
    cluster.create_topic("t", 1);
    cluster.freeze(0);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| produce(&cluster, "t", &values(0, 10)));
        std::thread::sleep(Duration::from_millis(700));
        assert!(!writer.is_finished(), "a frozen broker acknowledged");
        cluster.thaw(0);
        assert_eq!(writer.join().unwrap().len(), 10);
    });
    assert_eq!(read(&cluster, "t"), values(0, 10));
}

#[test]
fn of_three_brokers_any_one_may_die() {
    let Some(home) = Home::find() else { return };
    let mut cluster = Cluster::of_three(&home);
    cluster.create_topic("t", 3);
    let mut expected = Vec::new();
    for node in 0..3 {
        let more = values(expected.len(), 100);
        produce(&cluster, "t", &more);
        expected.extend(more);
        cluster.kill(node);
        let more = values(expected.len(), 100);
        produce(&cluster, "t", &more);
        expected.extend(more);
        cluster.start_node(node);
        cluster.wait();
    }
    assert_eq!(read(&cluster, "t"), expected);
}

#[test]
fn a_broker_ends_with_the_process_it_was_started_for() {
    let Some(home) = Home::find() else { return };
    let mut cluster = Cluster::single(&home);
    cluster.kill(0);
    let mut owner = Command::new("sleep").arg("100").spawn().unwrap();
    cluster.start_node_for(0, owner.id());
    cluster.wait();
    // Killed and not reaped: a zombie is gone too.
    owner.kill().unwrap();
    let begun = Instant::now();
    while !cluster.has_ended(0) {
        assert!(begun.elapsed() < Duration::from_secs(10), "it lives on");
        std::thread::sleep(Duration::from_millis(20));
    }
    owner.wait().unwrap();
}

#[test]
fn records_and_topics_that_are_deleted_are_gone_and_a_broker_stops_when_told() {
    let Some(home) = Home::find() else { return };
    let mut cluster = Cluster::single(&home);
    cluster.create_topic("t", 1);
    produce(&cluster, "t", &values(0, 10));
    cluster.delete_records_before("t", 0, 4);
    assert_eq!(read(&cluster, "t"), values(4, 6));
    assert_eq!(cluster.leader("t", 0), Some(0));
    cluster.stop(0);
    cluster.start_node(0);
    cluster.wait();
    assert_eq!(read(&cluster, "t"), values(4, 6));
    cluster.delete_topic("t");
    cluster.create_topic("t", 1);
    assert_eq!(produce(&cluster, "t", &values(0, 1)), [(0, 0)]);
    assert_eq!(read(&cluster, "t"), values(0, 1));
}
