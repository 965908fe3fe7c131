//! The control plane's side of the log on a real broker: two instances race in the directory, compaction takes what was tombstoned, a
//! third reads the rest; followers get each record once and in order, whatever the broker does meanwhile.

#[path = "support/kafka/mod.rs"]
mod kafka;

use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use kafka::Home;
use kafka::client::Topic;
use kafka::cluster::Cluster;
use ordergate::control::audit::{Verifier, record_once};
use ordergate::control::directory::{DirectoryService, Options, WriteError};
use ordergate::directory::{Directory, Entity, Kind};
use ordergate::domain::InputTopic;
use ordergate::kafka::{Cluster as Brokers, KafkaOptions, KafkaTopics};
use ordergate::log::{LogError, NewRecord, Topic as LogTopic, Topics};

const ENTITIES: usize = 4;
const WRITES: usize = 40;
/// A broker that compacts at once what it may.
const COMPACTED: &[(&str, &str)] = &[
    ("cleanup.policy", "compact"),
    ("retention.ms", "-1"),
    ("message.timestamp.type", "LogAppendTime"),
    ("segment.ms", "300"),
    ("min.cleanable.dirty.ratio", "0.001"),
    ("max.compaction.lag.ms", "500"),
];

fn topics(cluster: &Cluster) -> Arc<dyn Topics> {
    let options = KafkaOptions { brokers: cluster.brokers(), shards: 1, ..KafkaOptions::default() };
    Arc::new(KafkaTopics::new(&Brokers::new(options).unwrap()).unwrap())
}

fn options(settle: Duration) -> Options {
    Options { settle, ..Options::default() }
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(90), "{what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// What one writer made.
fn race(service: &DirectoryService, writer: usize) -> Vec<(String, u64)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let mut made = Vec::new();
    for number in 0..WRITES {
        let id = format!("e{}", number % ENTITIES);
        let expected = service.get(Kind::User, &id).map_or(0, |entity| entity.version);
        let body = Some(format!(r#"{{"writer":{writer},"number":{number}}}"#).into_bytes());
        match runtime.block_on(service.write(Kind::User, &id, expected, body, "t")) {
            Ok(Entity { version, .. }) => made.push((id, version)),
            Err(WriteError::Conflict { current }) => assert!(current > expected),
            Err(other) => panic!("{other}"),
        }
    }
    made
}

#[test]
fn instances_that_race_agree_and_compaction_changes_nothing_that_counts() {
    let Some(home) = Home::find() else { return };
    let mut cluster = Cluster::start(&home, 1, &[("log.cleaner.backoff.ms", "200")]);
    cluster.create_topics(&[Topic { name: "gate.directory", partitions: 1, replicas: 1, settings: COMPACTED }]);
    cluster.create_gate_topics(1);
    let settle = Duration::from_secs(1);
    let services: Vec<_> = (0..2).map(|_| DirectoryService::start_with(topics(&cluster), options(settle)).unwrap()).collect();
    let begun = Instant::now();
    let mut made: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = services.iter().enumerate().map(|(writer, service)| scope.spawn(move || race(service, writer))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    println!("{} of {} writes won, {:?}", made.len(), 2 * WRITES, begun.elapsed());
    made.sort();
    wait_until("they do not agree", || services[0].list(Kind::User) == services[1].list(Kind::User));
    let wanted = services[0].list(Kind::User);
    let versions = wanted.iter().flat_map(|entity| (1..=entity.version).map(|version| (entity.id.clone(), version)));
    assert_eq!(made, versions.collect::<Vec<_>>(), "one success for each version");
    wait_until("not all is tombstoned", || services[0].read(Directory::garbage) == 0);

    // A segment is compacted when another one is begun.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let mut version = 0;
    wait_until("nothing is compacted", || {
        version = runtime.block_on(services[0].write(Kind::Kek, "k", version, Some(b"1".to_vec()), "t")).unwrap().version;
        let left = cluster.read("gate.directory").into_iter().filter(|record| record.value.starts_with(b"{\"kind\":\"user\""));
        left.count() == ENTITIES
    });
    let fresh = DirectoryService::start_with(topics(&cluster), options(settle)).unwrap();
    assert_eq!(fresh.list(Kind::User), wanted);

    // Three writers of the trail, one after the other.
    for user in ["ann", "bob", "cid"] {
        record_once(topics(&cluster), "root", "user.added", user, serde_json::json!({}), "ok").unwrap();
    }
    let mut verifier = Verifier::new(Vec::new(), false);
    for record in topics(&cluster).read(LogTopic::Audit, 0, 0, 1_000).unwrap() {
        verifier.see(record.offset, record.key.as_deref(), &record.payload).unwrap();
    }
    let (records, repeated, heads) = verifier.finish().unwrap();
    assert_eq!((records, repeated, heads.len()), (9, 0, 3));
}

const FOLLOWED: LogTopic = LogTopic::Input(InputTopic::Prices);
/// Reads at the end that have to be answered within [`AT_REST`]: far more than a broker answers in that time.
const READS_AT_REST: usize = 50_000;
const AT_REST: Duration = Duration::from_secs(5);

fn append(topics: &dyn Topics, numbers: std::ops::Range<usize>) {
    for number in numbers {
        let (told, answer) = mpsc::channel();
        let record = NewRecord { topic: FOLLOWED, partition: Some(0), ts: None, key: None, payload: number.to_string().into_bytes() };
        topics.append(vec![record], Box::new(move |result| told.send(result).unwrap()));
        answer.recv_timeout(Duration::from_secs(60)).unwrap().unwrap();
    }
}

/// Follows until it has so many records; gives them and the errors on the way.
fn follow(topics: &dyn Topics, count: usize) -> (Vec<usize>, usize) {
    let (mut next, mut found, mut errors, begun) = (0, Vec::new(), 0, Instant::now());
    while found.len() < count {
        assert!(begun.elapsed() < Duration::from_secs(90), "{} of {count} came", found.len());
        match topics.read(FOLLOWED, 0, next, 64) {
            Ok(records) if records.is_empty() => std::thread::sleep(Duration::from_millis(10)),
            Ok(records) => {
                next = records.last().unwrap().offset + 1;
                found.extend(records.iter().map(|record| String::from_utf8(record.payload.clone()).unwrap().parse::<usize>().unwrap()));
            }
            Err(LogError::Busy { .. }) => {
                errors += 1;
                std::thread::sleep(Duration::from_millis(50));
            }
            Err(other) => panic!("{other}"),
        }
    }
    (found, errors)
}

#[test]
fn followers_get_each_record_once_in_order_and_ask_nobody_at_rest() {
    let Some(home) = Home::find() else { return };
    let mut cluster = Cluster::start(&home, 1, &[]);
    cluster.create_gate_topics(1);
    let (shared, other) = (topics(&cluster), topics(&cluster));
    let wanted: Vec<usize> = (0..600).collect();
    std::thread::scope(|scope| {
        // Two of one instance stand in each other's way, and a third reads alone.
        let followers: Vec<_> = [&shared, &shared, &other].map(|topics| scope.spawn(|| follow(topics.as_ref(), wanted.len()))).into();
        append(shared.as_ref(), 0..200);
        // Longer than the brokers' word is taken for true.
        std::thread::sleep(Duration::from_millis(1_500));
        append(shared.as_ref(), 200..400);
        cluster.kill(0);
        let down = scope.spawn(|| {
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_secs(20) && other.read(FOLLOWED, 0, 400, 1).is_ok() {
                std::thread::sleep(Duration::from_millis(50));
            }
            other.read(FOLLOWED, 0, 400, 1)
        });
        assert!(matches!(down.join().unwrap(), Err(LogError::Busy { .. })), "brokers that are gone are no end");
        cluster.start_node(0);
        cluster.wait();
        append(shared.as_ref(), 400..600);
        for follower in followers {
            let (found, errors) = follower.join().unwrap();
            assert_eq!(found, wanted);
            println!("{errors} errors on the way");
        }
    });
    let end = other.extent(FOLLOWED, 0).unwrap().next;
    let begun = Instant::now();
    for _ in 0..READS_AT_REST {
        assert_eq!(other.read(FOLLOWED, 0, end, 64).unwrap(), []);
    }
    assert!(begun.elapsed() < AT_REST, "{:?}: a follower at rest asks the brokers", begun.elapsed());
}
