//! The operators' commands against a real cluster: what they read is what the topics hold, what they send is what was asked,
//! `verify` sees what nobody should have written, and kcat understands us and we it.

#[path = "daemon/mod.rs"]
mod daemon;
#[path = "support/kafka/mod.rs"]
mod kafka;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use daemon::{ordergate, program};
use kafka::Home;
use kafka::client::{NewRecord, Record};
use kafka::cluster::Cluster;
use kafka::fleet::Fleet;
use ordergate::engine::Partitioner;
use ordergate::wire::parse_line;
use serde_json::Value;

const SHARDS: u32 = 2;
const OUTPUTS: [&str; 3] = ["gate.decisions", "gate.commands", "gate.notifications"];

/// Runs a program with this standard input; its standard output, where it ends well.
fn pipe(program: &str, args: &[&str], input: &[u8]) -> String {
    let mut command = Command::new(program);
    let mut child = command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let output = std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input).unwrap());
        child.wait_with_output().unwrap()
    });
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A command of ours that ends well.
fn said(args: &[&str]) -> String {
    pipe(&program(), args, b"")
}

fn values(lines: &str) -> Vec<Value> {
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A cluster on which a flow was sent by `send` and decided by one instance, which has stopped.
struct Ground {
    cluster: Cluster,
    brokers: String,
    config: tempfile::NamedTempFile,
    lines: Vec<Value>,
}

impl Ground {
    fn prepare(home: &Home) -> Self {
        let mut cluster = Cluster::single(home);
        // A generated day is long past, and what its producers' times say is old would be deleted: these topics keep everything.
        cluster.create_gate_topics_for_old_days(SHARDS.try_into().unwrap());
        let brokers = cluster.brokers();
        let config = tempfile::NamedTempFile::new().unwrap();
        let text = format!(
            "log = {{ kind = \"kafka\", timestamps = \"producer\" }}\nshard = {{ count = {SHARDS} }}\nkafka = {{ brokers = \"{brokers}\" }}\n"
        );
        std::fs::write(config.path(), text).unwrap();
        // One broker keeps one copy.
        let settings = [("log.timestamps", "producer"), ("kafka.force_unsafe", "true")];
        let mut fleet = Fleet::new(&cluster, 1, SHARDS.try_into().unwrap(), &settings);
        fleet.start(0);
        fleet.wait_until_all_decide(SHARDS.try_into().unwrap());
        let flow = said(&["generate", "--events", "3000", "--accounts", "6", "--symbols", "4"]);
        let told = pipe(&program(), &["send", "-", "--brokers", &brokers, "--batch", "700"], flow.as_bytes());
        assert!(told.ends_with("sent 3000 records of 3000 lines\n"), "{told}");
        let ground = Self { cluster, brokers, config, lines: values(&flow) };
        ground.check_positions(&told);
        ground.wait_until_applied();
        fleet.stop_all();
        ground
    }

    /// What `send` said is where the records stand: the last of each partition, and as many as the file has.
    fn check_positions(&self, told: &str) {
        let mut last: BTreeMap<(String, String), u64> = BTreeMap::new();
        for line in told.lines().filter(|line| line.starts_with("line ")) {
            let positions: Value = serde_json::from_str(line.split_once(" positions ").unwrap().1).unwrap();
            for (topic, partitions) in positions.as_object().unwrap() {
                for (partition, range) in partitions.as_object().unwrap() {
                    let (first, end) = (range[0].as_u64().unwrap(), range[1].as_u64().unwrap());
                    let before = last.insert((topic.clone(), partition.clone()), end);
                    assert_eq!(first, before.map_or(0, |before| before + 1), "{line}");
                }
            }
        }
        assert_eq!(last.values().map(|last| last + 1).sum::<u64>(), 3000);
        for topic in ["orders.intents", "orders.executions"] {
            for record in self.cluster.read(topic) {
                let wanted = Partitioner::Murmur2.partition(record.key.as_deref().unwrap(), SHARDS);
                assert_eq!(u32::try_from(record.partition), Ok(wanted), "{record:?}");
            }
        }
    }

    /// The records that a shard applies: its part of the orders, and all prices and control.
    fn records_of(&self, shard: u32) -> u64 {
        let is_its = |line: &&Value| match line["topic"].as_str().unwrap() {
            "orders.intents" | "orders.executions" => {
                Partitioner::Murmur2.partition(line["key"].as_str().unwrap().as_bytes(), SHARDS) == shard
            }
            _ => true,
        };
        self.lines.iter().filter(is_its).count() as u64
    }

    fn heads(&self) -> Vec<Value> {
        values(&said(&["ledger", "head", "--brokers", &self.brokers]))
    }

    fn wait_until_applied(&self) {
        let begun = Instant::now();
        let wanted: Vec<u64> = (0..SHARDS).map(|shard| self.records_of(shard)).collect();
        loop {
            let seqs: Vec<u64> = self.heads().iter().map(|head| head["seq"].as_u64().unwrap()).collect();
            if seqs == wanted {
                return;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "{seqs:?} of {wanted:?}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// A command with `--brokers` and a shard.
    fn of_shard(&self, command: &[&str], shard: u32, more: &[&str]) -> String {
        let shard = shard.to_string();
        said(&[command, &["--brokers", &self.brokers, "--shard", &shard], more].concat())
    }

    /// The records of a shard in an output topic, as the topic has them.
    fn outputs(&self, topic: &str, shard: u32) -> Vec<Record> {
        let prefix = format!("{shard}-");
        let is_its = |record: &Record| record.headers.iter().any(|(_, value)| value.starts_with(prefix.as_bytes()));
        self.cluster.read(topic).into_iter().filter(is_its).collect()
    }
}

/// Whether a line has the key and the value of a record, byte for byte.
fn is_record(line: &str, record: &Record) -> bool {
    let line = parse_line(line.as_bytes()).unwrap();
    line.key.as_deref() == record.key.as_deref() && *line.payload == record.value
}

fn is_of(line: &str, topic: &str) -> bool {
    parse_line(line.as_bytes()).unwrap().topic == topic
}

/// The last part is the one that writes where only a gate should.
#[test]
fn every_command_works_on_a_cluster_as_on_a_directory() {
    let Some(home) = Home::find() else { return };
    let ground = Ground::prepare(&home);
    a_head_tells_the_end_of_each_ledger(&ground);
    a_replay_gives_what_the_topics_hold(&ground);
    a_dump_replayed_gives_the_same(&ground);
    tail_prints_what_the_topics_hold(&ground);
    what_is_not_there_is_told_with_its_exit_code(&ground);
    kcat_reads_us_and_we_read_kcat(&ground);
    send_keeps_partitions_when_asked(&ground);
    verify_finds_what_no_gate_wrote(&ground);
}

fn a_head_tells_the_end_of_each_ledger(ground: &Ground) {
    for (shard, head) in (0..SHARDS).zip(ground.heads()) {
        let entries = ground.cluster.read("gate.ledger").iter().filter(|entry| u32::try_from(entry.partition) == Ok(shard)).count();
        assert_eq!(head["shard"], shard);
        assert_eq!((head["offset"].as_u64(), head["seq"].as_u64()), (Some(entries as u64), Some(ground.records_of(shard))));
        let told = ground.of_shard(&["verify"], shard, &[]);
        assert!(told.contains(&format!("head {}\n", head["head"].as_str().unwrap())), "{told} {head}");
        assert!(told.contains("outputs ok: ") && told.contains(" 0 not yet, 0 expired, 0 repeated"), "{told}");
    }
    let all = said(&["verify", "--brokers", &ground.brokers]);
    assert!(all.contains("shard 0\nok: ") && all.contains("shard 1\nok: "), "{all}");
}

fn a_replay_gives_what_the_topics_hold(ground: &Ground) {
    let mut accounts = BTreeSet::new();
    for shard in 0..SHARDS {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state.json");
        let lines = ground.of_shard(&["replay"], shard, &["--dead-letter", "--state", state.to_str().unwrap()]);
        for topic in OUTPUTS.into_iter().chain(["gate.dead-letter"]) {
            let records = ground.outputs(topic, shard);
            let folded: Vec<&str> = lines.lines().filter(|line| is_of(line, topic)).collect();
            assert_eq!(folded.len(), records.len(), "{topic} of shard {shard}");
            assert!(folded.iter().zip(&records).all(|(line, record)| is_record(line, record)), "{topic} of shard {shard}");
        }
        assert!(lines.lines().any(|line| is_of(line, "gate.decisions")));
        accounts.extend(books(&state).into_iter().map(|account| (account, shard)));
    }
    assert_eq!(accounts.len(), 6, "each account is in one shard's books: {accounts:?}");
    let whole = values(&ground.of_shard(&["replay"], 0, &[]));
    // How the topics mix in the ledger is not the same each time: a range is taken where the shard decided.
    let decided: Vec<u64> =
        whole.iter().filter(|line| line["topic"] == "gate.decisions").map(|line| line["payload"]["seq"].as_u64().unwrap()).collect();
    let (from, to) = (decided[decided.len() / 4], decided[decided.len() / 2]);
    let part = values(&ground.of_shard(&["replay"], 0, &["--from", &from.to_string(), "--to", &to.to_string()]));
    let is_in_range = |line: &&Value| line["payload"]["seq"].as_u64().is_some_and(|seq| (from..=to).contains(&seq));
    let decisions = |lines: &[Value]| lines.iter().filter(|line| line["topic"] == "gate.decisions").filter(is_in_range).count();
    assert!(from < to && part.len() < whole.len(), "{from} to {to}: {} of {} lines", part.len(), whole.len());
    assert_eq!(decisions(&part), decisions(&whole), "{from} to {to}");
    for line in &part {
        assert!(
            whole.contains(line) && line["payload"]["seq"].as_u64().is_none_or(|seq| (from..=to).contains(&seq)),
            "{from} to {to}: {line}"
        );
    }
}

/// The accounts in a file of `--state`.
fn books(state: &Path) -> Vec<String> {
    let state: Value = serde_json::from_slice(&std::fs::read(state).unwrap()).unwrap();
    state["accounts"].as_object().unwrap().keys().cloned().collect()
}

fn a_dump_replayed_gives_the_same(ground: &Ground) {
    for shard in 0..SHARDS {
        let dump = ground.of_shard(&["ledger", "dump"], shard, &[]);
        assert_eq!(dump.lines().count() as u64, ground.records_of(shard));
        let again = pipe(&program(), &["replay", "-", "--dead-letter", "--shard", &shard.to_string()], dump.as_bytes());
        let direct = ground.of_shard(&["replay"], shard, &["--dead-letter"]);
        assert!(again == direct, "the dump of shard {shard} replays to something else");
        let entries = values(&ground.of_shard(&["ledger", "dump", "--entries"], shard, &[]));
        assert_eq!(entries[0]["entry"], "claim");
    }
}

fn tail_prints_what_the_topics_hold(ground: &Ground) {
    let tail = |args: &[&str]| values(&said(&[&["tail", "--brokers", &ground.brokers], args].concat()));
    for topic in ["orders.intents", "market.prices", "gate.decisions"] {
        let (text, records) = (said(&["tail", topic, "--brokers", &ground.brokers]), ground.cluster.read(topic));
        assert_eq!(text.lines().count(), records.len());
        for (text, record) in text.lines().zip(&records) {
            let line: Value = serde_json::from_str(text).unwrap();
            let place = (line["partition"].as_i64().unwrap(), line["offset"].as_i64().unwrap(), line["ts"].as_i64().unwrap());
            assert_eq!(place, (i64::from(record.partition), record.offset, record.ts_ms));
            assert!(is_record(text, record), "{text}");
        }
    }
    let some = tail(&["gate.decisions", "--partition", "1", "--from", "3", "--limit", "2"]);
    let places: Vec<_> = some.iter().map(|line| (line["partition"].as_u64().unwrap(), line["offset"].as_u64().unwrap())).collect();
    assert_eq!(places, [(1, 3), (1, 4)]);
    assert_eq!(tail(&["gate.control", "--follow", "--limit", "3"]).len(), 3);
    assert!(tail(&["gate.decisions", "--from", "latest"]).is_empty());
    assert!(tail(&["gate.ledger", "--limit", "1"])[0]["payload"].as_str().unwrap().starts_with("T0dMRQ"), "base64 of the magic");
    let configured = values(&said(&["tail", "--config", ground.config.path().to_str().unwrap(), "gate.control"]));
    assert_eq!(configured, tail(&["gate.control"]));
}

fn what_is_not_there_is_told_with_its_exit_code(ground: &Ground) {
    let refused = |args: &[&str], exit: i32, word: &str| {
        let (code, said, why) = ordergate(args);
        assert_eq!((code, said.as_str()), (Some(exit), ""), "{args:?}: {why}");
        assert!(why.contains(word), "{args:?}: {why}");
    };
    let brokers = ground.brokers.as_str();
    refused(&["replay", "--brokers", brokers], 2, "there are 2 shards, each with a ledger of its own: name one with --shard");
    refused(&["ledger", "dump", "--brokers", brokers], 2, "--shard");
    refused(&["verify", "--brokers", brokers, "--shard", "7"], 4, "LOG_NO_SUCH_PARTITION");
    refused(&["tail", "orders.intent", "--brokers", brokers], 2, "is no topic of the gate");
    refused(&["tail", "gate.decisions", "--brokers", brokers, "--from", "999999"], 2, "takes earliest, latest or an offset");
    refused(&["ledger", "head", "--brokers", "127.0.0.1:1"], 4, "LOG_");
    let line = br#"{"topic":"orders.intents","partition":9,"key":"A","payload":{}}"#;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), line).unwrap();
    refused(&["send", file.path().to_str().unwrap(), "--brokers", brokers, "--keep-partitions"], 4, "LOG_NO_SUCH_PARTITION");
}

fn send_keeps_partitions_when_asked(ground: &Ground) {
    let count = |partition: i32| ground.cluster.read("orders.intents").iter().filter(|record| record.partition == partition).count();
    let before = (count(0), count(1));
    let right = Partitioner::Murmur2.partition(b"KEPT", SHARDS);
    let wrong = 1 - right;
    let line = format!("{{\"topic\":\"orders.intents\",\"partition\":{wrong},\"ts\":5,\"key\":\"KEPT\",\"payload\":{{}}}}\n");
    pipe(&program(), &["send", "-", "--brokers", &ground.brokers], line.as_bytes());
    pipe(&program(), &["send", "-", "--brokers", &ground.brokers, "--keep-partitions"], line.as_bytes());
    assert_eq!((count(0), count(1)), (before.0 + 1, before.1 + 1));
}

fn kcat_reads_us_and_we_read_kcat(ground: &Ground) {
    let known = Command::new("kcat").arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !known.is_ok_and(|status| status.success()) {
        return eprintln!("SKIPPED: no kcat (apt-get install kcat)");
    }
    let ours = |topic: &str, more: &[&str]| said(&[&["tail", topic, "--brokers", &ground.brokers, "--partition", "0"], more].concat());
    let kcats =
        |topic: &str| pipe("kcat", &["-C", "-q", "-b", &ground.brokers, "-t", topic, "-p", "0", "-o", "beginning", "-e", "-J"], b"");
    let replayed = |lines: &str| pipe(&program(), &["replay", "-", "--dead-letter"], lines.as_bytes());

    // Its lines and ours say the same to us. It writes tstype, broker and more that we pass over.
    for topic in ["orders.intents", "gate.control"] {
        let (its, our) = (kcats(topic), ours(topic, &[]));
        assert!(its.contains("\"tstype\":\"create\"") && its.lines().count() > 10, "{its}");
        assert!(!replayed(&its).is_empty() && replayed(&its) == replayed(&our), "{topic}");
    }

    // Its producer takes what we print with a key, a tab and a value; records without a key keep none (-Z).
    for topic in ["gate.directory", "gate.audit"] {
        let source = if topic == "gate.audit" { "gate.notifications" } else { "orders.intents" };
        let keyed = ours(source, &["--form", "keyed"]);
        pipe("kcat", &["-P", "-Z", "-b", &ground.brokers, "-t", topic, "-p", "0", "-K", "\\t"], keyed.as_bytes());
        let of = |topic: &str| -> Vec<_> {
            let records = ground.cluster.read(topic).into_iter().filter(|record| record.partition == 0);
            records.map(|record| (record.key.filter(|key| !key.is_empty()), record.value)).collect()
        };
        assert!(of(topic) == of(source), "{source} came through kcat as something else");
    }

    // And what kcat printed can be sent: the same keys and bytes, each in the partition of its key.
    let before = ground.cluster.read("orders.intents");
    pipe(&program(), &["send", "-", "--brokers", &ground.brokers], kcats("orders.intents").as_bytes());
    let of_first = |records: &[Record]| -> Vec<(Option<Vec<u8>>, Vec<u8>, i64)> {
        let its = records.iter().filter(|record| record.partition == 0);
        its.map(|record| (record.key.clone(), record.value.clone(), record.ts_ms)).collect()
    };
    let (before, after) = (of_first(&before), of_first(&ground.cluster.read("orders.intents")));
    assert!(after.len() == 2 * before.len() && after[before.len()..] == before);
}

fn verify_finds_what_no_gate_wrote(ground: &Ground) {
    let original = ground.outputs("gate.decisions", 0).remove(0);
    let tag = original.headers[0].1.clone();
    let verify = || ordergate(&["verify", "--brokers", &ground.brokers, "--shard", "0"]);
    let write = |value: &[u8], tag: Option<&[u8]>| {
        let headers: Vec<(&str, &[u8])> = tag.map(|tag| ("output", tag)).into_iter().collect();
        let record = NewRecord { partition: Some(0), key: original.key.as_deref(), value, headers: &headers };
        ground.cluster.produce("gate.decisions", &[record]);
    };

    // The same once more is what a new owner may leave behind.
    write(&original.value, Some(&tag));
    let (code, said, why) = verify();
    assert_eq!(code, Some(0), "{why}");
    assert!(said.contains(" 1 repeated"), "{said}");

    write(b"{}", None);
    write(b"{}", Some(&tag));
    write(b"{}", Some(b"0-99999999-0"));
    write(&original.value, Some(b"1-1-0"));
    let (code, said, why) = verify();
    assert_eq!(code, Some(1), "{said}");
    for (word, count) in
        [("somebody else wrote it", 2), ("has another key or value than the ledger caused", 1), ("is ahead of the ledger", 1)]
    {
        assert_eq!(why.matches(word).count(), count, "{word}: {why}");
    }
    assert!(why.contains("4 records of the output topics are not what the ledger caused"), "{why}");

    // The ledger alone is still whole, and so is the other shard, of which the oldest decisions are no longer kept.
    ground.cluster.delete_records_before("gate.decisions", 1, 3);
    let (code, _, why) = ordergate(&["verify", "--brokers", &ground.brokers, "--shard", "0", "--ledger-only"]);
    assert_eq!(code, Some(0), "{why}");
    let (code, said, why) = ordergate(&["verify", "--brokers", &ground.brokers]);
    assert_eq!(code, Some(1), "{why}");
    assert!(said.contains("shard 1\nok: ") && said.contains(" 3 expired, 0 repeated") && why.contains("wrong: shard 0\n"), "{said} {why}");
}
