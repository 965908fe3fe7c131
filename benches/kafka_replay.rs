//! What it costs to replay from Kafka, next to bare consumption of the same topic that touches each byte: CPU of the whole process
//! (user and system, the client's threads too) and records per second. Both take turns, round by round, in one process; a ratio is the
//! median over rounds of the ratio within a round. Prints a table and gates on nothing.
//!
//! `RECORDS=300000 ROUNDS=7 FLOW=file.jsonl.gz cargo bench --bench kafka_replay`; without `FLOW` the flow is generated, a file is fed
//! again and again until there are so many records. Needs `scripts/kafka-home`.

#[path = "../tests/support/kafka/mod.rs"]
mod kafka;

use std::fs::File;
use std::io::{BufRead, BufWriter, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kafka::Home;
use kafka::client::{NewRecord, Topic};
use kafka::cluster::Cluster;
use kafka::fleet::Fleet;
use ordergate::domain::{InputTopic, Source};
use ordergate::engine::{Decoded, EventLog, Fold, Replica, replay_ledger};
use ordergate::generate::{Generator, OwnGate, Plan};
use ordergate::kafka::{KafkaOptions, Reader};
use ordergate::log::{InputRecord, LogError, StoredRecord, Topic as GateTopic};
use ordergate::wire::frame::{self, Entry, Routing};
use ordergate::wire::{TopicNames, parse_line};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::BorrowedMessage;
use rdkafka::{Message, Offset, TopicPartitionList};

/// All inputs in file order; the first byte of the key says which topic a record is of.
const INPUTS: &str = "bench.inputs";
const LEDGER: &str = "gate.ledger";
/// The unit of times in /proc/self/stat, as the kernel promises it to programs.
const TICK: Duration = Duration::from_millis(10);
const PRODUCED_AT_ONCE: usize = 20_000;

fn main() {
    if !std::env::args().any(|argument| argument == "--bench") {
        return println!("replay from Kafka is measured by: cargo bench --bench kafka_replay");
    }
    let Some(home) = Home::find() else { return };
    let (wanted, rounds) = (number("RECORDS", 300_000), number("ROUNDS", 7));
    let folder = tempfile::tempdir().expect("a folder");
    let flow = folder.path().join("flow.jsonl");
    let records = write_flow(&flow, wanted);
    let mut cluster = Cluster::single(&home);
    cluster.create_gate_topics(1);
    cluster.create_topics(&[Topic { name: INPUTS, partitions: 1, replicas: 1, settings: &[("compression.type", "producer")] }]);
    produce_inputs(&cluster, &flow);
    let frames = decide(&cluster, &flow, records);
    println!("{records} records, {frames} ledger entries, {rounds} rounds\n");
    println!("{:<46} {:>12} {:>12} {:>14} {:>10} {:>8}", "what", "raw CPU s", "CPU s", "records/s", "CPU ratio", "goal");

    let raw = || consume(&cluster, INPUTS, |message| touch(message.payload()));
    compare("JSON inputs: decode and fold", records, rounds, 1.6, raw, || fold_inputs(&cluster));
    let raw = || consume(&cluster, LEDGER, |message| touch(message.payload()));
    compare("ledger: a replica that verifies", records, rounds, 1.25, raw, || replicate(&cluster, records));
    compare("ledger: `ordergate replay` without printing", records, rounds, 1.25, raw, || replay(&cluster, records));
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().expect("a number"))
}

/// Writes the flow as a file of lines and says how many records it has.
fn write_flow(path: &Path, wanted: u64) -> u64 {
    let mut out = BufWriter::new(File::create(path).expect("a file"));
    let Some(source) = std::env::var_os("FLOW") else {
        let plan = Plan { seed: 1, accounts: 200, symbols: 40, events: wanted, start: Plan::DEFAULT_START };
        let (mut generator, mut line) = (Generator::new(plan, OwnGate::default()), Vec::new());
        while let Some(record) = generator.next_record() {
            line.clear();
            record.write_line(&mut line);
            out.write_all(&line).expect("written");
        }
        return wanted;
    };
    let mut written = 0;
    while written < wanted {
        let log = EventLog::open(Path::new(&source)).expect("the flow");
        for line in log.lines.lines() {
            writeln!(out, "{}", line.expect("text")).expect("written");
            written += 1;
        }
    }
    out.flush().expect("written");
    written
}

/// Puts the flow into one partition, in its order.
fn produce_inputs(cluster: &Cluster, flow: &Path) {
    let names = TopicNames::default();
    let mut waiting: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    let produce = |waiting: &mut Vec<(Vec<u8>, Vec<u8>)>| {
        let records: Vec<_> = waiting.iter().map(|(key, value)| NewRecord { key: Some(key), value, ..NewRecord::default() }).collect();
        cluster.produce_with(INPUTS, &records, &[("linger.ms", "20"), ("compression.type", "lz4")]);
        waiting.clear();
    };
    for text in EventLog::open(flow).expect("the flow").lines.lines() {
        let text = text.expect("text");
        let line = parse_line(text.as_bytes()).expect("a line");
        let Some(topic) = names.find_input(&line.topic) else { continue };
        let mut key = vec![b'0' + place(topic)];
        key.extend_from_slice(line.key.as_deref().unwrap_or_default());
        waiting.push((key, line.payload.into_owned()));
        if waiting.len() == PRODUCED_AT_ONCE {
            produce(&mut waiting);
        }
    }
    produce(&mut waiting);
}

const TOPICS: [InputTopic; 4] = [InputTopic::Intents, InputTopic::Executions, InputTopic::Prices, InputTopic::Control];

fn place(topic: InputTopic) -> u8 {
    u8::try_from(TOPICS.iter().position(|known| *known == topic).expect("known")).expect("small")
}

/// Lets a gate decide the flow, for a real ledger; says how many entries that has.
fn decide(cluster: &Cluster, flow: &Path, records: u64) -> usize {
    let mut fleet = Fleet::new(cluster, 1, 1, &[("kafka.force_unsafe", "true")]);
    fleet.start(0);
    fleet.wait_until_all_decide(1);
    let program = std::env::var("ORDERGATE_BIN").unwrap_or_else(|_| env!("CARGO_BIN_EXE_ordergate").to_owned());
    let mut send = Command::new(program);
    send.arg("send").arg(flow).args(["--brokers", &cluster.brokers(), "--batch", "10000"]).stdout(Stdio::null());
    assert!(send.status().expect("it runs").success());
    let begun = Instant::now();
    loop {
        let entries = cluster.read(LEDGER);
        let last = entries.iter().rev().find_map(|entry| match frame::decode(&entry.value) {
            Ok(Entry::Frame(frame)) => Some(frame.first_seq + frame.inputs.len() as u64 - 1),
            Ok(Entry::Claim(_)) | Err(_) => None,
        });
        if last == Some(records) {
            fleet.stop_all();
            return cluster.read(LEDGER).len();
        }
        assert!(begun.elapsed() < Duration::from_secs(600), "{last:?} of {records} records are decided");
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// The settings that the gate's own readers have.
fn consumer(cluster: &Cluster) -> BaseConsumer {
    let mut config = cluster.client();
    config.set("group.id", "bench").set("enable.auto.commit", "false").set("enable.auto.offset.store", "false");
    config.set("isolation.level", "read_committed").set("check.crcs", "true").set("auto.offset.reset", "error");
    config.set("fetch.min.bytes", "1").set("fetch.wait.max.ms", "100").set("fetch.queue.backoff.ms", "1");
    config.set("queued.min.messages", "20000").set("queued.max.messages.kbytes", "32768").set("enable.partition.eof", "true");
    config.create().expect("a consumer")
}

/// Reads a topic's first partition from its beginning to its end.
fn consume(cluster: &Cluster, topic: &str, mut each: impl FnMut(&BorrowedMessage<'_>) -> u64) -> u64 {
    let consumer = consumer(cluster);
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset(topic, 0, Offset::Beginning).expect("an offset");
    consumer.assign(&assignment).expect("assigned");
    let mut sum = 0_u64;
    loop {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => sum = sum.wrapping_add(each(&message)),
            Some(Err(KafkaError::PartitionEOF(_))) => return sum,
            Some(Err(error)) => panic!("{topic}: {error}"),
            None => {}
        }
    }
}

fn touch(payload: Option<&[u8]>) -> u64 {
    payload.unwrap_or_default().iter().map(|byte| u64::from(*byte)).sum()
}

fn fold_inputs(cluster: &Cluster) -> u64 {
    let (mut fold, mut outputs) = (Fold::new(0), Vec::new());
    let mut next = [0_u64; TOPICS.len()];
    consume(cluster, INPUTS, |message| {
        let (which, key) = message.key().and_then(<[u8]>::split_first).expect("a key");
        let place = usize::from(which - b'0');
        let source = Source { topic: TOPICS[place], partition: 0, offset: next[place] };
        next[place] += 1;
        let ts = message.timestamp().to_millis().unwrap_or(0);
        let payload = message.payload().unwrap_or_default().to_vec();
        let record = InputRecord { source, ts, key: (!key.is_empty()).then(|| key.to_vec()), payload };
        outputs.clear();
        fold.apply(Decoded::of(record, Routing::Here), ts, &mut outputs);
        outputs.len() as u64
    })
}

fn ledger_reader(cluster: &Cluster) -> impl FnMut(u64, usize) -> Result<Vec<StoredRecord>, LogError> {
    let options = KafkaOptions { brokers: cluster.brokers(), ..KafkaOptions::default() };
    let ours = ordergate::kafka::Cluster::new(options).expect("settings");
    let mut reader = Reader::of_tails(&ours).expect("settings");
    move |from, limit| reader.read(GateTopic::Ledger, 0, from, limit)
}

fn replicate(cluster: &Cluster, records: u64) -> u64 {
    let (mut read, mut replica, mut outputs) = (ledger_reader(cluster), Replica::new(0), 0);
    loop {
        let entries = read(replica.sequence.next_offset, 64).expect("read");
        if entries.is_empty() {
            assert_eq!(replica.fold.gate().seq(), records);
            return outputs;
        }
        for entry in entries {
            replica.take(entry).expect("an honest ledger");
            outputs += replica.unpublished.drain(..).count() as u64;
        }
    }
}

fn replay(cluster: &Cluster, records: u64) -> u64 {
    let mut outputs = 0;
    let fold = replay_ledger(0, ledger_reader(cluster), &mut |record| {
        outputs += record.outputs.len() as u64;
        Ok(std::ops::ControlFlow::Continue(()))
    });
    assert_eq!(fold.expect("an honest ledger").gate().seq(), records);
    outputs
}

/// CPU and wall time of one run.
fn measured(run: &mut impl FnMut() -> u64) -> (f64, f64) {
    let (cpu, begun) = (cpu_time(), Instant::now());
    std::hint::black_box(run());
    ((cpu_time() - cpu).as_secs_f64(), begun.elapsed().as_secs_f64())
}

/// User and system time of this process, all threads.
fn cpu_time() -> Duration {
    let text = std::fs::read_to_string("/proc/self/stat").expect("procfs");
    let fields: Vec<&str> = text.rsplit_once(") ").expect("its form").1.split(' ').collect();
    let ticks = |place: usize| fields[place].parse::<u32>().expect("a number");
    TICK * (ticks(11) + ticks(12))
}

fn compare(what: &str, records: u64, rounds: u64, goal: f64, mut raw: impl FnMut() -> u64, mut ours: impl FnMut() -> u64) {
    let (mut raws, mut own, mut ratios, mut rates) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..=rounds {
        let (bare, gate) = if round % 2 == 0 {
            let bare = measured(&mut raw);
            (bare, measured(&mut ours))
        } else {
            let gate = measured(&mut ours);
            (measured(&mut raw), gate)
        };
        // The first round warms the page cache and the connections.
        if round > 0 {
            raws.push(bare.0);
            own.push(gate.0);
            ratios.push(gate.0 / bare.0);
            rates.push(records as f64 / gate.1);
        }
    }
    let (raw, own, ratio, rate) = (median(raws), median(own), median(ratios), median(rates));
    println!("{what:<46} {raw:>12.2} {own:>12.2} {rate:>14.0} {ratio:>10.2} {:>8}", format!("<= {goal}"));
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
