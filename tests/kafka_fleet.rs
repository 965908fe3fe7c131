//! Many shards on several instances, with instances that die, stand still and are restarted under a flow of orders: nothing is
//! lost, nothing is decided twice with different content, nothing of a deposed instance is visible, and the topics hold byte for
//! byte what the same ledgers give when they are folded offline.
//!
//! `TAKEOVERS=200 FLOW=file.jsonl.gz RATE=110 SEED=1 cargo test --release --test kafka_fleet -- --nocapture` runs the long form.

#[path = "support/kafka/mod.rs"]
mod kafka;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use kafka::Home;
use kafka::client::Record;
use kafka::cluster::Cluster;
use kafka::fleet::{Fleet, Flow, generated, lines_of};
use ordergate::engine::Replica;
use ordergate::log::{StoredRecord, Topic};
use ordergate::wire::frame::{self, Entry};

const SHARDS: i32 = 8;
const INSTANCES: usize = 3;
/// Short, so that what waits for it does not take the test's time; brokers must allow it.
const SESSION_MS: u64 = 3_000;

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().expect("a number"))
}

#[test]
fn no_fault_of_an_instance_loses_or_changes_a_decision() {
    let Some(home) = Home::find() else { return };
    let (takeovers, seed) = (number("TAKEOVERS", 24), number("SEED", 1));
    let mut cluster = Cluster::start(&home, 1, &[("group.min.session.timeout.ms", "1000")]);
    cluster.create_gate_topics_for_old_days(SHARDS);
    let session = SESSION_MS.to_string();
    let standby = number("STANDBY", seed % 2).to_string();
    let mut fleet = Fleet::new(
        &cluster,
        INSTANCES,
        SHARDS,
        &[("kafka.session_timeout_ms", &session), ("kafka.standby", &standby), ("log.timestamps", "producer")],
    );
    for place in 0..INSTANCES {
        fleet.start(place);
    }
    fleet.wait_until_all_decide(SHARDS);

    let (lines, first) = lines();
    let flow = Flow::start(&cluster, lines, first, number("RATE", 400));
    let faults = Faults { seed, count: BTreeMap::new() }.until(&cluster, &mut fleet, takeovers, &flow);
    let sent = flow.finish(std::env::var_os("FLOW").is_none());
    fleet.wait_until_all_decide(SHARDS);
    wait_until_applied(&cluster);
    fleet.stop_all();

    let report = cluster.audit_clean(&["--drained"]);
    let compared = compare_with_offline_fold(&cluster);
    let mut times = takeover_times(&cluster);
    times.sort_unstable();
    let at = |share: usize| times.get((times.len() * share / 100).min(times.len() - 1)).copied().unwrap_or_default();
    println!("{sent} records sent, faults {faults:?}, {compared} outputs as folded offline");
    println!("{} takeovers; outage in ms: p50 {} p99 {} max {}", times.len(), at(50), at(99), at(100));
    println!("{:#}", report["figures"]);
    assert!(times.len() as u64 >= takeovers, "{} takeovers", times.len());
}

/// The flow, and how many lines open the accounts.
fn lines() -> (Vec<String>, usize) {
    let lines = match std::env::var("FLOW") {
        Ok(path) => {
            // Ages are measured against the gate's clock, and these records are old.
            let settings =
                r#"{"topic":"gate.control","key":"gate","ts":1340285340000,"payload":{"event":"gate_settings_set","max_intent_age_ms":0}}"#;
            std::iter::once(settings.to_owned()).chain(lines_of(Path::new(&path))).collect()
        }
        Err(_) => generated(7, 60, 200_000),
    };
    let is_opening = |line: &String| !line.contains("orders.");
    let first = lines.iter().take_while(|line| is_opening(line)).count();
    (lines, first)
}

/// What is done to the fleet, drawn from a seed.
struct Faults {
    seed: u64,
    count: BTreeMap<&'static str, u32>,
}

impl Faults {
    fn below(&mut self, bound: u64) -> u64 {
        // Steele and Vigna's SplitMix64.
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    fn until(mut self, cluster: &Cluster, fleet: &mut Fleet, takeovers: u64, flow: &Flow) -> BTreeMap<&'static str, u32> {
        let begun = Instant::now();
        loop {
            let seen = takeovers_seen(cluster);
            if seen >= takeovers {
                return self.count;
            }
            assert!(!flow.has_ended(), "the flow ended after {seen} takeovers; give it a lower RATE");
            assert!(begun.elapsed() < Duration::from_secs(45 * 60), "{seen} takeovers");
            let place = usize::try_from(self.below(INSTANCES as u64)).unwrap();
            let name = match self.below(4) {
                0 => self.kill_and_restart(fleet, place),
                1 => self.pause(fleet, place),
                2 => self.restart(fleet, place),
                _ => self.kill_for_good_and_replace(fleet, place),
            };
            *self.count.entry(name).or_default() += 1;
            self.rest(800);
        }
    }

    fn rest(&mut self, most_ms: u64) {
        std::thread::sleep(Duration::from_millis(200 + self.below(most_ms)));
    }

    /// It comes back before the group misses it.
    fn kill_and_restart(&mut self, fleet: &mut Fleet, place: usize) -> &'static str {
        fleet.kill(place);
        self.rest(500);
        fleet.start(place);
        "killed and restarted"
    }

    /// Its shards are given to others; then it goes on where it stood.
    fn pause(&mut self, fleet: &mut Fleet, place: usize) -> &'static str {
        fleet.signal(place, "STOP");
        std::thread::sleep(Duration::from_millis(SESSION_MS + 500 + self.below(2_500)));
        fleet.signal(place, "CONT");
        "paused beyond the session"
    }

    fn restart(&mut self, fleet: &mut Fleet, place: usize) -> &'static str {
        assert_eq!(fleet.stop(place), Some(0), "{}", fleet.words(place));
        self.rest(500);
        fleet.start(place);
        "restarted"
    }

    /// The group misses it before it comes back.
    fn kill_for_good_and_replace(&mut self, fleet: &mut Fleet, place: usize) -> &'static str {
        fleet.kill(place);
        std::thread::sleep(Duration::from_millis(SESSION_MS + 500 + self.below(1_000)));
        fleet.start(place);
        "killed and missed"
    }
}

fn entries(cluster: &Cluster) -> BTreeMap<i32, Vec<Record>> {
    let mut shards: BTreeMap<i32, Vec<Record>> = BTreeMap::new();
    for record in cluster.read("gate.ledger") {
        shards.entry(record.partition).or_default().push(record);
    }
    shards
}

fn stored(record: &Record) -> StoredRecord {
    let offset = u64::try_from(record.offset).unwrap();
    StoredRecord { offset, ts: record.ts_ms, key: None, payload: record.value.clone(), tag: None }
}

/// The takeovers in all ledgers: claims that count and decided something.
fn takeovers_seen(cluster: &Cluster) -> u64 {
    takeover_times(cluster).len() as u64
}

/// Waits until every ledger has applied its inputs to their ends.
fn wait_until_applied(cluster: &Cluster) {
    let begun = Instant::now();
    let mut ends: BTreeMap<(String, u32), u64> = BTreeMap::new();
    for topic in ["orders.intents", "orders.executions", "market.prices", "gate.control"] {
        for record in cluster.read(topic) {
            ends.insert((topic.to_owned(), u32::try_from(record.partition).unwrap()), u64::try_from(record.offset).unwrap() + 1);
        }
    }
    loop {
        let mut behind = Vec::new();
        let ledgers = entries(cluster);
        for shard in 0..SHARDS {
            let marks = ledgers.get(&shard).and_then(|entries| entries.iter().rev().find_map(marks_of)).unwrap_or_default();
            let applied: BTreeMap<(String, u32), u64> =
                marks.into_iter().map(|mark| ((Topic::Input(mark.topic).name().to_owned(), mark.partition), mark.next)).collect();
            let shared = |topic: &str| !topic.starts_with("orders.");
            for (place, end) in ends.iter().filter(|((topic, partition), _)| shared(topic) || *partition == u32::try_from(shard).unwrap()) {
                if applied.get(place).is_none_or(|next| next < end) {
                    behind.push((shard, place.clone(), *end, applied.get(place).copied()));
                }
            }
        }
        if behind.is_empty() {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(120), "behind: {behind:?}");
        std::thread::sleep(Duration::from_millis(500));
    }
}

fn marks_of(record: &Record) -> Option<Vec<frame::InputMark>> {
    match frame::decode(&record.value).unwrap() {
        Entry::Frame(frame) => Some(frame.input_marks),
        Entry::Claim(_) => None,
    }
}

/// An output's topic and tag.
type Named = (String, String);
/// Its key and value.
type Content = (Option<Vec<u8>>, Vec<u8>);

/// Folds every ledger offline and holds every output in the topics against it, byte for byte.
fn compare_with_offline_fold(cluster: &Cluster) -> usize {
    let mut expected: BTreeMap<Named, Content> = BTreeMap::new();
    for (shard, entries) in entries(cluster) {
        let mut replica = Replica::new(u32::try_from(shard).unwrap());
        for entry in &entries {
            replica.take(stored(entry)).unwrap();
            for output in replica.unpublished.drain(..) {
                let tag = format!("{}-{}-{}", output.tag.shard, output.tag.seq, output.tag.index);
                expected.insert((Topic::Output(output.topic).name().to_owned(), tag), (output.key, output.payload));
            }
        }
    }
    let mut seen = 0;
    for topic in ["gate.decisions", "gate.commands", "gate.notifications", "gate.dead-letter"] {
        for record in cluster.read(topic) {
            let tag = record.headers.iter().find(|(name, _)| name == "output").map(|(_, value)| String::from_utf8(value.clone()).unwrap());
            let place = (topic.to_owned(), tag.expect("every output says which it is"));
            let (key, payload) = expected.get(&place).unwrap_or_else(|| panic!("{place:?} is in the topic and not in the ledger"));
            assert_eq!((key, payload), (&record.key, &record.value), "{place:?}");
            seen += 1;
        }
    }
    assert!(seen >= expected.len(), "{seen} outputs of {}", expected.len());
    seen
}

/// For each claim that took a shard over: the time between the last frame of the term before it and the first of its own,
/// both as the broker stamped them. With a steady flow that is how long the shard decided nothing.
fn takeover_times(cluster: &Cluster) -> Vec<i64> {
    let mut times = Vec::new();
    for entries in entries(cluster).into_values() {
        let (mut term, mut last, mut open) = (0, None, None);
        for record in entries {
            match frame::decode(&record.value).unwrap() {
                Entry::Claim(claim) if claim.term > term => {
                    // A claim that another one follows before it decided anything took nothing over: the outage goes on.
                    if term > 0 && open.is_none() {
                        open = Some(last.unwrap_or(record.ts_ms));
                    }
                    term = claim.term;
                }
                Entry::Frame(frame) if frame.term == term && !frame.inputs.is_empty() => {
                    if let Some(before) = open.take() {
                        times.push(record.ts_ms - before);
                    }
                    last = Some(record.ts_ms);
                }
                Entry::Claim(_) | Entry::Frame(_) => {}
            }
        }
    }
    times
}
