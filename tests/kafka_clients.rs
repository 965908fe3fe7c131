//! Other clients' ways, against ours: where Java and librdkafka put a key, and what a transactional writer leaves behind.

#[path = "support/kafka/mod.rs"]
mod kafka;

use kafka::Home;
use kafka::client::NewRecord;
use kafka::cluster::Cluster;
use ordergate::engine::Partitioner;

const KEYS: usize = 2_000;
const PARTITIONS: [u32; 4] = [1, 3, 8, 13];

/// Keys of every length from 1 to 64, over all that an id may hold, and some beyond ASCII.
fn keys() -> Vec<String> {
    const LEGAL: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:-";
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % 1_000_003).unwrap()
    };
    let mut word = |length: usize| -> String { (0..length).map(|_| char::from(LEGAL[next() % LEGAL.len()])).collect() };
    let mut keys: Vec<String> = (0..KEYS - 3).map(|i| word(1 + i % 64)).collect();
    keys.extend(["ACC1", "Zürich", "東京"].map(str::to_owned));
    keys
}

fn ours(partitioner: Partitioner, keys: &[String], partitions: u32) -> Vec<i32> {
    keys.iter().map(|key| i32::try_from(partitioner.partition(key.as_bytes(), partitions)).unwrap()).collect()
}

fn librdkafka(cluster: &Cluster, topic: &str, keys: &[String], settings: &[(&str, &str)]) -> Vec<i32> {
    let records: Vec<_> = keys.iter().map(|key| NewRecord { key: Some(key.as_bytes()), value: b"x", ..NewRecord::default() }).collect();
    cluster.produce_with(topic, &records, settings).into_iter().map(|(partition, _)| partition).collect()
}

fn java(cluster: &Cluster, topic: &str, keys: &[String]) -> Vec<i32> {
    let lines = cluster.java("DefaultPartitionerProducer.java", &[topic], &keys.join("\n"));
    let (printed, partitions): (Vec<_>, Vec<_>) = lines.iter().map(|line| line.rsplit_once('\t').unwrap()).unzip();
    assert_eq!(printed, keys);
    partitions.into_iter().map(|partition| partition.parse().unwrap()).collect()
}

#[test]
fn our_partitioners_agree_with_java_and_with_librdkafka() {
    let Some(home) = Home::find() else { return };
    let mut cluster = Cluster::single(&home);
    let keys = keys();
    for partitions in PARTITIONS {
        let topic = format!("p{partitions}");
        cluster.create_topic(&topic, i32::try_from(partitions).unwrap());
        let murmur2 = ours(Partitioner::Murmur2, &keys, partitions);
        assert_eq!(java(&cluster, &topic, &keys), murmur2, "Java, {partitions} partitions");
        assert_eq!(librdkafka(&cluster, &topic, &keys, &[("partitioner", "murmur2_random")]), murmur2, "murmur2_random, {partitions}");
        let crc32 = ours(Partitioner::Crc32, &keys, partitions);
        assert_eq!(librdkafka(&cluster, &topic, &keys, &[]), crc32, "consistent_random, {partitions} partitions");
        assert!(partitions == 1 || murmur2 != crc32, "the two would not be told apart");
    }
}

#[test]
fn a_committed_reader_sees_nothing_of_an_aborted_transaction() {
    let Some(home) = Home::find() else { return };
    let mut cluster = Cluster::single(&home);
    cluster.create_topic("a", 2);
    cluster.create_topic("b", 1);
    let lines: Vec<String> = (0..100).map(|i| if i % 3 == 0 { format!("b\t0\tk{i}\tv{i}") } else { format!("a\t-\tk{i}\tv{i}") }).collect();
    let printed = cluster.java("TransactionalProducer.java", &["writer", "7", "3"], &lines.join("\n"));
    assert_eq!(printed.len(), 100);
    let (mut committed, mut aborted) = (Vec::new(), Vec::new());
    for line in &printed {
        let fields: Vec<&str> = line.split('\t').collect();
        let at = (fields[1].to_owned(), fields[2].parse::<i32>().unwrap(), fields[3].parse::<i64>().unwrap(), fields[4].to_owned());
        if fields[0] == "committed" { committed.push(at) } else { aborted.push(at) }
    }
    // Fifteen transactions, the last of two records; the 3rd, 6th, 9th, 12th and the last are aborted.
    assert_eq!(aborted.len(), 4 * 7 + 2);
    let read = |settings: &[(&str, &str)]| {
        let of = |topic: &str| {
            let each = cluster.read_with(topic, settings).into_iter();
            each.map(|record| (topic.to_owned(), record.partition, record.offset, String::from_utf8(record.value).unwrap())).collect()
        };
        let mut all: Vec<_> = of("a");
        all.extend::<Vec<_>>(of("b"));
        all
    };
    committed.sort();
    assert_eq!(sorted(read(&[("isolation.level", "read_committed")])), committed);
    committed.extend(aborted);
    committed.sort();
    assert_eq!(sorted(read(&[("isolation.level", "read_uncommitted")])), committed, "the aborted ones are in the log");
}

fn sorted<T: Ord>(mut values: Vec<T>) -> Vec<T> {
    values.sort();
    values
}
