//! From an intent's due time to its decision at a reader, through one real broker, next to an echo service: a program that does
//! nothing but consume an intent and produce a reply, with the gate's own client settings. Open loop: an intent is due at its time
//! whatever became of those before it. Gate and echo take turns, round by round, in one run; prints a table and gates on nothing.
//!
//! `RATES=100,1000,5000 SECONDS=5 ROUNDS=3 LIMIT=1 cargo bench --bench kafka_latency`; `LIMIT=1` also looks for the highest rate
//! that each holds with p99 < 50 ms, `SETTINGS=frame.in_flight_max=1` gives the gate settings. Needs `scripts/kafka-home`.

#[path = "../tests/support/kafka/mod.rs"]
mod kafka;

use std::collections::HashMap;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kafka::Home;
use kafka::client::NewRecord;
use kafka::cluster::Cluster;
use kafka::fleet::Fleet;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};

/// Many, so that no book fills up with orders that nobody ends.
const ACCOUNTS: u64 = 10_000;
const P99_MAX: Duration = Duration::from_millis(50);

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(place) = arguments.iter().position(|argument| argument == "--echo") {
        return echo(&arguments[place + 1]);
    }
    if !arguments.iter().any(|argument| argument == "--bench") {
        return println!("latency through Kafka is measured by: cargo bench --bench kafka_latency");
    }
    let Some(home) = Home::find() else { return };
    let mut cluster = Cluster::single(&home);
    cluster.create_gate_topics(1);
    cluster.create_topic("echo.in", 1);
    cluster.create_topic("echo.out", 1);
    let settings = std::env::var("SETTINGS").unwrap_or_default();
    let settings: Vec<(&str, &str)> = settings.split(',').filter_map(|setting| setting.split_once('=')).collect();
    let mut fleet = Fleet::new(&cluster, 1, 1, &settings);
    fleet.start(0);
    fleet.wait_until_all_decide(1);
    let mut echo = start_echo(&cluster);
    open_accounts(&cluster);
    let bench = Bench::new(&cluster);
    println!("{:>8} {:>6} {:>8} {:>8} {:>8} {:>8} {:>8}", "rate/s", "who", "p50 ms", "p99 ms", "p99.9", "max", "lost");
    for rate in numbers("RATES", &[100, 1_000, 5_000]) {
        bench.compare(rate, numbers("ROUNDS", &[3])[0]);
    }
    if std::env::var_os("LIMIT").is_some() {
        for who in [Who::Echo, Who::Gate] {
            println!("highest rate with p99 < 50 ms, {}: {}/s", who.name(), bench.limit(who));
        }
    }
    println!("of the gate: {}", shares(&fleet));
    echo.kill().unwrap();
    echo.wait().unwrap();
    fleet.stop_all();
}

fn numbers(name: &str, otherwise: &[u64]) -> Vec<u64> {
    let given = std::env::var(name).ok().map(|text| text.split(',').map(|part| part.parse().expect("a number")).collect());
    given.unwrap_or_else(|| otherwise.to_vec())
}

fn seconds() -> u64 {
    numbers("SECONDS", &[5])[0]
}

fn consumer_settings(config: &mut ClientConfig) -> &mut ClientConfig {
    config.set("group.id", "bench").set("enable.auto.commit", "false").set("enable.auto.offset.store", "false");
    config.set("isolation.level", "read_committed").set("check.crcs", "true").set("fetch.min.bytes", "1");
    config.set("fetch.wait.max.ms", "100").set("fetch.queue.backoff.ms", "1").set("queued.min.messages", "20000")
}

fn producer_settings<'a>(config: &'a mut ClientConfig, linger_ms: &str) -> &'a mut ClientConfig {
    config.set("enable.idempotence", "true").set("acks", "all").set("max.in.flight", "5").set("linger.ms", linger_ms)
}

// The echo service.

fn start_echo(cluster: &Cluster) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let mut child = command.args(["--echo", &cluster.brokers()]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.as_mut().unwrap()), &mut line).unwrap();
    child
}

fn echo(brokers: &str) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("socket.nagle.disable", "true");
    let producer: ThreadedProducer<DefaultProducerContext> = producer_settings(&mut config.clone(), "0.5").create().unwrap();
    let consumer = tail(config, "echo.in");
    producer.client().fetch_metadata(Some("echo.out"), Duration::from_secs(10)).unwrap();
    println!("ready");
    let padding = [b' '; 450];
    loop {
        let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) else { continue };
        let mut reply = message.payload().unwrap_or_default().to_vec();
        reply.extend_from_slice(&padding);
        let record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to("echo.out").partition(0).payload(&reply);
        let _ = producer.send(record.key(message.key().unwrap_or_default()));
    }
}

/// A consumer at the end of partition 0.
fn tail(mut config: ClientConfig, topic: &str) -> BaseConsumer {
    let consumer: BaseConsumer = consumer_settings(&mut config).create().unwrap();
    let (_, end) = consumer.fetch_watermarks(topic, 0, Duration::from_secs(10)).unwrap();
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset(topic, 0, Offset::Offset(end)).unwrap();
    consumer.assign(&assignment).unwrap();
    consumer
}

// The load.

#[derive(Clone, Copy, PartialEq)]
enum Who {
    Gate,
    Echo,
}

impl Who {
    const fn name(self) -> &'static str {
        match self {
            Self::Gate => "gate",
            Self::Echo => "echo",
        }
    }

    const fn topics(self) -> (&'static str, &'static str) {
        match self {
            Self::Gate => ("orders.intents", "gate.decisions"),
            Self::Echo => ("echo.in", "echo.out"),
        }
    }
}

fn open_accounts(cluster: &Cluster) {
    let mut control = vec![
        r#"{"event":"instrument_defined","symbol":"AAPL"}"#.to_owned(),
        r#"{"event":"gate_settings_set","max_intent_age_ms":0,"max_price_age_ms":0}"#.to_owned(),
    ];
    for (id, kind, limit, unit) in
        [("r1", "max_leverage", "4", "ratio"), ("r2", "max_drawdown", "50000", "dollars"), ("r3", "max_position_size", "90", "percent")]
    {
        control.push(format!(
            r#"{{"event":"rule_created","rule":{{"id":"{id}","type":"{kind}","threshold":"{limit}","unit":"{unit}","action":"block"}}}}"#
        ));
    }
    for account in 0..ACCOUNTS {
        control.push(format!(r#"{{"event":"account_opened","account":"A{account}","owner":"u1","cash":"1000000"}}"#));
    }
    let records: Vec<_> =
        control.iter().map(|value| NewRecord { value: value.as_bytes(), key: Some(b"k"), ..NewRecord::default() }).collect();
    cluster.produce("gate.control", &records);
    cluster.produce(
        "market.prices",
        &[NewRecord { value: br#"{"event":"trade","symbol":"AAPL","price":"100"}"#, key: Some(b"AAPL"), ..NewRecord::default() }],
    );
    std::thread::sleep(Duration::from_secs(3));
}

/// When each intent was due, by its id, and how long it took.
#[derive(Default)]
struct Clock {
    due: HashMap<u64, Instant>,
    took: Vec<Duration>,
}

struct Bench {
    producer: ThreadedProducer<DefaultProducerContext>,
    clocks: [Arc<Mutex<Clock>>; 2],
    next_id: Mutex<u64>,
    stop: Arc<AtomicBool>,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Bench {
    fn new(cluster: &Cluster) -> Self {
        let producer: ThreadedProducer<DefaultProducerContext> = producer_settings(&mut cluster.client(), "0.2").create().unwrap();
        for who in [Who::Gate, Who::Echo] {
            producer.client().fetch_metadata(Some(who.topics().0), Duration::from_secs(10)).unwrap();
        }
        let stop = Arc::new(AtomicBool::new(false));
        let clocks = [Who::Gate, Who::Echo].map(|who| {
            let clock = Arc::new(Mutex::new(Clock::default()));
            let (heard, stopped, consumer) = (clock.clone(), stop.clone(), tail(cluster.client(), who.topics().1));
            std::thread::spawn(move || hear(&consumer, &heard, &stopped));
            clock
        });
        Self { producer, clocks, next_id: Mutex::new(0), stop }
    }

    fn compare(&self, rate: u64, rounds: u64) {
        let mut took: [Vec<Duration>; 2] = [Vec::new(), Vec::new()];
        let mut lost = [0, 0];
        for round in 0..=rounds {
            for who in [Who::Echo, Who::Gate] {
                let (times, missing) = self.round(who, rate);
                // The first round warms up.
                if round > 0 {
                    took[who as usize].extend(times);
                    lost[who as usize] += missing;
                }
            }
        }
        let mut medians = [0.0; 2];
        for who in [Who::Echo, Who::Gate] {
            let times = &mut took[who as usize];
            times.sort_unstable();
            medians[who as usize] = at(times, 500);
            let (p99, p999, max) = (at(times, 990), at(times, 999), at(times, 1000));
            println!(
                "{rate:>8} {:>6} {:>8.2} {p99:>8.2} {p999:>8.2} {max:>8.2} {:>8}",
                who.name(),
                medians[who as usize],
                lost[who as usize]
            );
        }
        println!("{rate:>8} p50 of the gate over the echo's: {:.2}", medians[0] / medians[1]);
    }

    /// One round; how long each intent took, and how many had no answer.
    fn round(&self, who: Who, rate: u64) -> (Vec<Duration>, usize) {
        let count = rate * seconds();
        let begun = Instant::now() + Duration::from_millis(20);
        let clock = &self.clocks[who as usize];
        for place in 0..count {
            let due = begun + Duration::from_nanos(place * 1_000_000_000 / rate);
            while let Some(left) = due.checked_duration_since(Instant::now()) {
                // A sleep is late by some 60 us; under a high rate several are due at once.
                std::thread::sleep(left);
            }
            let id = {
                let mut next = self.next_id.lock().unwrap();
                *next += 1;
                *next
            };
            clock.lock().unwrap().due.insert(id, due);
            let key = format!("A{}", id % ACCOUNTS);
            let payload = format!(
                r#"{{"event":"order_intent","client_order_id":"I-{id}","account":"{key}","symbol":"AAPL","side":"buy","order_type":"limit","qty":"1","limit_price":"100"}}"#
            );
            let record: BaseRecord<'_, str, str> = BaseRecord::to(who.topics().0).partition(0).key(key.as_str()).payload(payload.as_str());
            let _ = self.producer.send(record);
        }
        let patience = Instant::now() + Duration::from_secs(5);
        while !clock.lock().unwrap().due.is_empty() && Instant::now() < patience {
            std::thread::sleep(Duration::from_millis(20));
        }
        let mut clock = clock.lock().unwrap();
        let lost = clock.due.len();
        clock.due.clear();
        (std::mem::take(&mut clock.took), lost)
    }

    /// The highest rate of a ladder that holds the bound twice.
    fn limit(&self, who: Who) -> u64 {
        let mut held = 0;
        for rate in [2_000, 5_000, 8_000, 11_000, 14_000, 17_000, 20_000, 25_000, 30_000, 40_000, 50_000] {
            let holds = (0..2).all(|_| {
                let (mut times, lost) = self.round(who, rate);
                times.sort_unstable();
                lost == 0 && times.len() as u64 == rate * seconds() && at(&times, 990) < P99_MAX.as_secs_f64() * 1e3
            });
            if !holds {
                return held;
            }
            held = rate;
        }
        held
    }
}

/// Notes when each reply is heard.
fn hear(consumer: &BaseConsumer, clock: &Mutex<Clock>, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) else { continue };
        let now = Instant::now();
        let Some(id) = id_of(message.payload().unwrap_or_default()) else { continue };
        let mut clock = clock.lock().unwrap();
        if let Some(due) = clock.due.remove(&id) {
            clock.took.push(now - due);
        }
    }
}

/// The number in `"client_order_id":"I-N"`.
fn id_of(payload: &[u8]) -> Option<u64> {
    let needle = b"\"client_order_id\":\"I-";
    let start = payload.windows(needle.len()).position(|window| window == needle)? + needle.len();
    let digits = payload[start..].iter().take_while(|byte| byte.is_ascii_digit());
    Some(digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
}

/// The time that so many of a thousand do not exceed, in ms.
fn at(sorted: &[Duration], of_thousand: usize) -> f64 {
    let place = (sorted.len() * of_thousand / 1000).min(sorted.len().saturating_sub(1));
    sorted.get(place).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
}

/// Where the gate's time goes, from its own metrics.
fn shares(fleet: &Fleet) -> String {
    let mean = |name: &str| {
        let sum = fleet.metric(0, &format!("{name}_sum")).unwrap_or_default();
        let count = fleet.metric(0, &format!("{name}_count")).unwrap_or_default();
        if count > 0.0 { sum / count } else { 0.0 }
    };
    format!(
        "evaluation mean {:.1} us, frame from append to acknowledgement mean {:.2} ms, {:.1} records a frame",
        mean("ordergate_evaluation_seconds") * 1e6,
        mean("ordergate_commit_seconds") * 1e3,
        mean("ordergate_frame_records")
    )
}
