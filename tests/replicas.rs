//! Replicas and the index of decisions on a log that a real shard writes.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test ends at what it did not expect")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use ordergate::control::audit::Audit;
use ordergate::control::commands::{Also, By, CommandError, Commands, ControlRecord};
use ordergate::control::decisions::{Decisions, Filter, IndexOptions};
use ordergate::control::replica::{Listener, ReplicaError, ReplicaOptions, Replicas};
use ordergate::domain::{AccountId, InputTopic, Millis, ReasonCode, Symbol, Verdict};
use ordergate::embedded::{EmbeddedLog, EmbeddedOptions, Timestamps};
use ordergate::engine::{NoObserver, NoSnapshots, Options, Phase, Service, SnapshotStore, spawn, state_hash};
use ordergate::generate::{Generator, OwnGate, Plan};
use ordergate::log::{AppendDone, Extent, LogError, NewRecord, OutputTopic, StoredRecord, Topic, Topics};
use ordergate::snapshot::{self, SledSnapshots};
use ordergate::wire::frame::{self, Entry};
use serde_json::Value;
use tempfile::TempDir;

fn open(dir: &Path) -> (EmbeddedLog, Service) {
    let log = EmbeddedLog::open(EmbeddedOptions { timestamps: Timestamps::Producer, ..EmbeddedOptions::new(dir) }).unwrap();
    let service = spawn(log.shard_log(), Box::new(NoSnapshots), Box::new(NoObserver), Options::default()).unwrap();
    wait_until(|| service.handle.status().phase == Phase::Owning);
    (log, service)
}

fn wait_until(mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(60), "it takes too long");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn append(log: &EmbeddedLog, records: Vec<NewRecord>) {
    let (told, answer) = mpsc::channel();
    log.append(records, Box::new(move |result| drop(told.send(result))));
    answer.recv().unwrap().unwrap();
}

/// A made-up day of so many records; ages are not looked at, since it is replayed faster than it was.
fn flow(seed: u64, events: u64) -> Vec<NewRecord> {
    let plan = Plan { seed, accounts: 12, symbols: 6, events, start: Plan::DEFAULT_START };
    let mut generator = Generator::new(plan, OwnGate::default());
    let settings = br#"{"event":"gate_settings_set","max_intent_age_ms":0}"#;
    let control = Topic::Input(InputTopic::Control);
    let mut records =
        vec![NewRecord { topic: control, partition: None, ts: Some(Plan::DEFAULT_START - 1), key: None, payload: settings.to_vec() }];
    while let Some(record) = generator.next_record() {
        let key = Some(record.key.as_bytes().to_vec());
        let topic = Topic::Input(record.topic);
        records.push(NewRecord { topic, partition: None, ts: Some(record.ts), key, payload: record.payload.to_vec() });
    }
    records
}

fn feed(log: &EmbeddedLog, service: &Service, records: Vec<NewRecord>) {
    let before = service.handle.status().seq;
    let count = records.len() as u64;
    for chunk in records.chunks(500) {
        append(log, chunk.to_vec());
    }
    wait_until(|| service.handle.status().committed_seq == before + count);
}

fn topics(log: &EmbeddedLog) -> Arc<dyn Topics> {
    Arc::new(log.clone())
}

fn replicas(topics: &Arc<dyn Topics>, store: Box<dyn SnapshotStore>, listeners: Vec<Arc<dyn Listener>>) -> Arc<Replicas> {
    Replicas::start(topics, vec![store], listeners, &ReplicaOptions::default()).unwrap()
}

fn index(dir: &Path, log: &EmbeddedLog) -> Arc<Decisions> {
    Decisions::open(IndexOptions::new(dir.join("decisions"), 1), topics(log))
}

fn follow(dir: &Path, log: &EmbeddedLog) -> (Arc<Replicas>, Arc<Decisions>) {
    let index = index(dir, log);
    (replicas(&topics(log), Box::new(NoSnapshots), vec![index.clone()]), index)
}

fn reach(replicas: &Replicas, seq: u64) {
    wait_until(|| replicas.position()[0].seq >= seq && replicas.position()[0].current);
}

#[test]
fn a_replicas_book_is_the_shards_book_at_every_moment() {
    let dir = TempDir::new().unwrap();
    let (log, service) = open(dir.path());
    let replicas = replicas(&topics(&log), Box::new(NoSnapshots), Vec::new());
    let mut compared = 0;
    for chunk in flow(3, 6_000).chunks(300) {
        append(&log, chunk.to_vec());
        // Asked in the middle of it: whatever moment the shard shows, the replica has shown, or will.
        let (seq, hash) = service.handle.query(|gate| (gate.seq(), state_hash(gate))).blocking_recv().unwrap();
        wait_until(|| replicas.position()[0].seq >= seq);
        let (at, copy) = replicas.read(0, |gate| (gate.seq(), state_hash(gate))).unwrap_or_default();
        if at == seq {
            assert_eq!(copy, hash, "seq {seq}");
            compared += 1;
        }
    }
    wait_until(|| service.handle.status().committed_seq == 6_001);
    reach(&replicas, 6_001);
    let hash = service.handle.query(state_hash).blocking_recv().unwrap();
    assert_eq!(replicas.read(0, state_hash).unwrap(), hash);
    assert!(compared > 0, "no moment was compared");
    assert!(replicas.age().unwrap() < Duration::from_secs(5));
    assert!(replicas.notes().is_empty());
    assert_eq!(replicas.read(1, |_| ()), Err(ReplicaError::NoSuchShard { shard: 1 }));
    assert!(service.stop());
}

#[test]
fn a_replica_begins_at_its_snapshot_and_refolds_when_that_does_not_fit() {
    let dir = TempDir::new().unwrap();
    let (log, service) = open(dir.path());
    feed(&log, &service, flow(5, 3_000));
    let store = |log_dir: &Path| {
        let options = snapshot::Options { dir: log_dir.join("replicas"), shard: 0, cache_bytes: 1 << 20, broken_kept_max: 2 };
        Box::new(SledSnapshots::start(options).unwrap())
    };
    let first = replicas(&topics(&log), store(dir.path()), Vec::new());
    reach(&first, 3_001);
    first.stop();
    drop(first);
    let begun: Arc<Begun> = Arc::default();
    let second = replicas(&topics(&log), store(dir.path()), vec![begun.clone()]);
    reach(&second, 3_001);
    assert_eq!(*begun.0.lock().unwrap(), Some(3_001), "it did not begin at its snapshot");
    let hash = service.handle.query(state_hash).blocking_recv().unwrap();
    assert_eq!(second.read(0, state_hash).unwrap(), hash);
    second.stop();
    // Another log, the same snapshots: they do not fit, and the other ledger is folded whole.
    let other = TempDir::new().unwrap();
    let (other_log, other_service) = open(other.path());
    feed(&other_log, &other_service, flow(6, 4_000));
    let begun: Arc<Begun> = Arc::default();
    let third = replicas(&topics(&other_log), store(dir.path()), vec![begun.clone()]);
    reach(&third, 4_001);
    assert_eq!(*begun.0.lock().unwrap(), Some(0));
    let hash = other_service.handle.query(state_hash).blocking_recv().unwrap();
    assert_eq!(third.read(0, state_hash).unwrap(), hash);
    assert!(service.stop() && other_service.stop());
}

/// Where a follower began.
#[derive(Default)]
struct Begun(std::sync::Mutex<Option<u64>>);

impl Listener for Begun {
    fn begins(&self, _: u32, at: &ordergate::control::replica::Reached) {
        *self.0.lock().unwrap() = Some(at.seq);
    }

    fn folded(&self, _: u32, _: &ordergate::control::replica::Reached, _: &[ordergate::log::OutputRecord]) {}
}

/// A log whose ledger was tampered with: the outcome of one record is another. And that cannot be read so many times.
struct Tampered {
    log: EmbeddedLog,
    offset: Option<u64>,
    refusals: AtomicU32,
}

impl Topics for Tampered {
    fn append(&self, records: Vec<NewRecord>, done: AppendDone) {
        Topics::append(&self.log, records, done);
    }

    fn read(&self, topic: Topic, partition: u32, from: u64, limit: usize) -> Result<Vec<StoredRecord>, LogError> {
        if topic == Topic::Ledger && self.refusals.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
            return Err(LogError::Busy { detail: "for a while".to_owned() });
        }
        let mut records = Topics::read(&self.log, topic, partition, from, limit)?;
        for record in records.iter_mut().filter(|record| topic == Topic::Ledger && Some(record.offset) == self.offset) {
            if let Entry::Frame(mut frame) = frame::decode(&record.payload).unwrap() {
                frame.inputs.last_mut().unwrap().outcome.outputs += 1;
                record.payload = frame::encode(&Entry::Frame(frame)).unwrap();
            }
        }
        Ok(records)
    }

    fn extents(&self) -> Result<Vec<Extent>, LogError> {
        self.log.extents()
    }

    fn changes(&self) -> tokio::sync::watch::Receiver<u64> {
        self.log.changes()
    }

    fn refusing(&self) -> Option<LogError> {
        self.log.refusing()
    }
}

#[test]
fn a_replica_that_derives_something_else_than_was_recorded_says_so_and_answers_nothing() {
    let dir = TempDir::new().unwrap();
    let (log, service) = open(dir.path());
    feed(&log, &service, flow(1, 500));
    let tampered: Arc<dyn Topics> = Arc::new(Tampered { log: log.clone(), offset: Some(1), refusals: AtomicU32::new(0) });
    let replicas = replicas(&tampered, Box::new(NoSnapshots), Vec::new());
    wait_until(|| replicas.position()[0].broken.is_some());
    let Err(ReplicaError::Broken { why, .. }) = replicas.read(0, |_| ()) else { panic!("it answered") };
    assert!(why.contains("outputs"), "{why}");
    assert_eq!(replicas.notes().len(), 1);
    assert!(service.stop(), "the shard does not mind");
}

#[test]
fn a_replica_whose_ledger_cannot_be_read_for_a_while_goes_on_when_it_can() {
    let dir = TempDir::new().unwrap();
    let (log, service) = open(dir.path());
    feed(&log, &service, flow(1, 200));
    let failing = Arc::new(Tampered { log: log.clone(), offset: None, refusals: AtomicU32::new(3) });
    let topics: Arc<dyn Topics> = failing.clone();
    let replicas = replicas(&topics, Box::new(NoSnapshots), Vec::new());
    let end = Topics::extent(&log, Topic::Ledger, 0).unwrap().next;
    wait_until(|| replicas.position()[0].ledger_next >= end);
    assert_eq!(failing.refusals.load(Ordering::Relaxed), 0);
    assert!(replicas.read(0, |_| ()).is_ok());
    assert!(service.stop());
}

#[test]
fn what_the_audit_does_not_take_is_not_written_though_the_log_would_unless_it_stops_trading() {
    let dir = TempDir::new().unwrap();
    let (log, service) = open(dir.path());
    let topics: Arc<dyn Topics> = Arc::new(log.clone());
    let audit = Audit::start(topics.clone()).unwrap();
    let commands = Commands::new(topics.clone(), replicas(&topics, Box::new(NoSnapshots), Vec::new()), Duration::from_secs(30));
    let commands = commands.audited(audit.clone());
    let by = By { actor: "root".to_owned(), address: [127, 0, 0, 1].into(), reason: "drill".to_owned() };
    let define = |symbol: &str| {
        let fields = serde_json::json!({"symbol": symbol});
        ControlRecord::new("instrument.define", format!("instrument:{symbol}"), "instrument_defined", fields)
    };
    let records = || Topics::extent(&log, Topic::Input(InputTopic::Control), 0).unwrap().next;
    let runtime = tokio::runtime::Runtime::new().unwrap();
    assert!(runtime.block_on(commands.write(define("A"), &by)).is_ok());
    assert_eq!(records(), 1);
    audit.stop();
    let refused = runtime.block_on(commands.write(define("B"), &by));
    assert!(matches!(refused, Err(CommandError::Unaudited(_))), "{refused:?}");
    let state = |word| ControlRecord::trading_state("state.set", "scope:{}", serde_json::json!({}), word, Also::default(), &by);
    let refused = runtime.block_on(commands.write(state("reduce_only"), &by));
    assert!(matches!(refused, Err(CommandError::Unaudited(_))), "{refused:?}");
    assert_eq!(records(), 1, "the log would have taken both");
    assert!(runtime.block_on(commands.write(state("halted"), &by)).is_ok(), "what stops trading waits for nobody");
    assert_eq!(records(), 2);
    assert!(service.stop());
}

/// All decisions of the topic, each once, newest first.
fn all_decisions(log: &EmbeddedLog) -> Vec<Value> {
    let mut all: BTreeMap<(Millis, u64), Value> = BTreeMap::new();
    let mut from = 0;
    loop {
        let records = Topics::read(log, Topic::Output(OutputTopic::Decisions), 0, from, 5_000).unwrap();
        let Some(last) = records.last() else { break };
        from = last.offset + 1;
        for record in records {
            let value: Value = serde_json::from_slice(&record.payload).unwrap();
            all.insert((value["at"].as_i64().unwrap(), value["seq"].as_u64().unwrap()), value);
        }
    }
    all.into_values().rev().collect()
}

fn matches(filter: &Filter, value: &Value) -> bool {
    let at = value["at"].as_i64().unwrap();
    let has = |code: ReasonCode| value["reasons"].as_array().unwrap().iter().any(|reason| reason["code"] == code.as_str());
    let of = |accounts: &BTreeSet<AccountId>| accounts.iter().any(|account| value["account"] == account.as_str());
    filter.from.is_none_or(|from| at >= from)
        && filter.to.is_none_or(|to| at < to)
        && filter.verdict.is_none_or(|verdict| value["verdict"] == verdict.as_str())
        && filter.symbol.is_none_or(|symbol| value["symbol"] == symbol.as_str())
        && filter.code.is_none_or(has)
        && filter.accounts.as_ref().is_none_or(of)
}

fn found(index: &Decisions, filter: &Filter, limit: usize) -> Vec<Value> {
    let (mut all, mut cursor) = (Vec::new(), None::<String>);
    loop {
        let page = index.search(filter, cursor.as_deref(), limit).unwrap().expect("a cursor of ours");
        assert!(page.decisions.len() <= limit);
        all.extend(page.decisions.iter().map(|json| serde_json::from_slice::<Value>(json).unwrap()));
        cursor = page.next;
        if cursor.is_none() {
            return all;
        }
    }
}

/// Every combination of filters that the history has something for, and some that it has nothing for.
fn filters(all: &[Value]) -> Vec<Filter> {
    let accounts: BTreeSet<&str> = all.iter().filter_map(|value| value["account"].as_str()).collect();
    let symbols: BTreeSet<&str> = all.iter().filter_map(|value| value["symbol"].as_str()).collect();
    let codes: BTreeSet<&str> =
        all.iter().flat_map(|value| value["reasons"].as_array().unwrap()).filter_map(|it| it["code"].as_str()).collect();
    let id = |text: &str| AccountId::parse(text.as_bytes()).unwrap();
    let some_accounts: Vec<Option<BTreeSet<AccountId>>> = vec![
        None,
        Some(BTreeSet::new()),
        Some(BTreeSet::from([id("NOBODY")])),
        accounts.first().map(|account| BTreeSet::from([id(account)])),
        Some(accounts.iter().take(3).map(|account| id(account)).collect()),
    ];
    let some_symbols: Vec<Option<Symbol>> = vec![None, symbols.last().and_then(|symbol| Symbol::parse(symbol.as_bytes()))];
    let some_codes: Vec<Option<ReasonCode>> =
        [None, Some(ReasonCode::Misrouted)].into_iter().chain(codes.iter().map(|code| ReasonCode::parse(code))).collect();
    let verdicts = [None, Some(Verdict::Allow), Some(Verdict::AllowReduced), Some(Verdict::Block)];
    let (first, last) = (all.last().unwrap()["at"].as_i64().unwrap(), all[0]["at"].as_i64().unwrap());
    let third = (last - first) / 3;
    let ranges =
        [(None, None), (Some(first + third), Some(last - third)), (Some(last), None), (None, Some(first)), (None, Some(first + third))];
    let mut filters = Vec::new();
    for accounts in &some_accounts {
        for symbol in &some_symbols {
            for code in &some_codes {
                for verdict in verdicts {
                    for (from, to) in ranges {
                        filters.push(Filter { accounts: accounts.clone(), verdict, code: *code, symbol: *symbol, from, to });
                    }
                }
            }
        }
    }
    filters
}

#[test]
fn a_search_finds_what_a_scan_of_the_topic_finds_with_every_filter() {
    let dir = TempDir::new().unwrap();
    let (log, service) = open(dir.path());
    feed(&log, &service, flow(11, 8_000));
    let (replicas, index) = follow(dir.path(), &log);
    reach(&replicas, 8_001);
    let all = all_decisions(&log);
    assert!(all.len() > 1_000, "only {} decisions", all.len());
    let filters = filters(&all);
    let mut matching = 0;
    // All of them take minutes; a step that divides none of the lists meets every value of each.
    for (number, filter) in filters.iter().enumerate().step_by(7) {
        let wanted: Vec<&Value> = all.iter().filter(|value| matches(filter, value)).collect();
        let limit = [7, 50, 500][number % 3];
        let got = found(&index, filter, limit);
        assert_eq!(got.iter().collect::<Vec<_>>(), wanted, "{filter:?}");
        matching += usize::from(!wanted.is_empty());
    }
    assert!(matching > 30, "only {matching} of {} filters match anything", filters.len());
    for value in all.iter().step_by(97) {
        let found = index.find(0, value["seq"].as_u64().unwrap()).unwrap().expect("it is there");
        assert_eq!(&serde_json::from_slice::<Value>(&found).unwrap(), value);
    }
    assert_eq!(index.find(0, 1 << 40).unwrap(), None);
    assert_eq!(index.find(7, 1).unwrap(), None);
    let page = index.search(&Filter::default(), None, 10).unwrap().unwrap();
    let other = Filter { verdict: Some(Verdict::Block), ..Filter::default() };
    assert_eq!(index.search(&other, page.next.as_deref(), 10).unwrap(), None, "a cursor of another search");
    assert_eq!(index.search(&other, Some("x"), 10).unwrap(), None);
    tallies_are_those_of_the_topics(&log, &index);
    assert!(service.stop());
}

fn tallies_are_those_of_the_topics(log: &EmbeddedLog, index: &Decisions) {
    let mut breaches: BTreeMap<String, u64> = BTreeMap::new();
    let notices = Topics::read(log, Topic::Output(OutputTopic::Notifications), 0, 0, 1_000_000).unwrap();
    for notice in notices {
        let value: Value = serde_json::from_slice(&notice.payload).unwrap();
        if value["code"] == "RULE_BREACH" {
            *breaches.entry(value["data"]["rule_id"].as_str().unwrap().to_owned()).or_default() += 1;
        }
    }
    let mut decisions: BTreeMap<String, u64> = BTreeMap::new();
    for value in all_decisions(log) {
        for reason in value["reasons"].as_array().unwrap() {
            if reason["code"] == "RULE_BREACH" && reason["exempt"] == false {
                *decisions.entry(reason["rule_id"].as_str().unwrap().to_owned()).or_default() += 1;
            }
        }
    }
    assert!(!breaches.is_empty() && !decisions.is_empty());
    let tallies = index.tallies();
    let told = |count: fn(&ordergate::control::decisions::Tally) -> u64| {
        let told = tallies.iter().map(|(rule, tally)| (rule.to_string(), count(tally)));
        told.filter(|(_, count)| *count > 0).collect::<BTreeMap<String, u64>>()
    };
    assert_eq!(told(|tally| tally.breaches), breaches);
    assert_eq!(told(|tally| tally.decisions), decisions);
}

fn complete(index: &Decisions) {
    wait_until(|| index.coverage().complete);
}

#[test]
fn the_index_goes_on_after_a_restart_is_filled_where_it_was_away_and_rebuilt_when_in_doubt() {
    let dir = TempDir::new().unwrap();
    let (log, service) = open(dir.path());
    let records = flow(21, 9_000);
    feed(&log, &service, records[..3_000].to_vec());
    let store = || {
        let options = snapshot::Options { dir: dir.path().join("replicas"), shard: 0, cache_bytes: 1 << 20, broken_kept_max: 2 };
        Box::new(SledSnapshots::start(options).unwrap())
    };
    let same = |index: &Decisions, what: &str| {
        complete(index);
        assert_eq!(found(index, &Filter::default(), 500), all_decisions(&log), "{what}");
    };
    let first = index(dir.path(), &log);
    let follower = replicas(&topics(&log), store(), vec![first.clone()]);
    reach(&follower, 3_000);
    same(&first, "from the beginning");
    follower.stop();
    first.stop();
    drop((follower, first));
    // The replica goes on alone: the index is away meanwhile.
    feed(&log, &service, records[3_000..6_000].to_vec());
    let follower = replicas(&topics(&log), store(), Vec::new());
    reach(&follower, 6_000);
    follower.stop();
    drop(follower);
    feed(&log, &service, records[6_000..].to_vec());
    let second = index(dir.path(), &log);
    let follower = replicas(&topics(&log), store(), vec![second.clone()]);
    reach(&follower, 9_001);
    same(&second, "a gap that is filled");
    follower.stop();
    second.stop();
    drop((follower, second));
    // Somebody has deleted it.
    let folder = dir.path().join("decisions");
    std::fs::remove_dir_all(&folder).unwrap();
    let third = index(dir.path(), &log);
    let follower = replicas(&topics(&log), store(), vec![third.clone()]);
    reach(&follower, 9_001);
    same(&third, "made anew");
    follower.stop();
    third.stop();
    drop((follower, third));
    // An index of another ledger.
    let other = TempDir::new().unwrap();
    let (other_log, other_service) = open(other.path());
    feed(&other_log, &other_service, flow(22, 4_000));
    let foreign = Decisions::open(IndexOptions::new(folder, 1), topics(&other_log));
    let follower = replicas(&topics(&other_log), Box::new(NoSnapshots), vec![foreign.clone()]);
    reach(&follower, 4_001);
    wait_until(|| dir.path().join("decisions.broken-1").exists());
    complete(&foreign);
    assert_eq!(found(&foreign, &Filter::default(), 500), all_decisions(&other_log));
    follower.stop();
    assert!(service.stop() && other_service.stop());
}

#[test]
fn no_more_decisions_are_kept_than_asked_for() {
    let dir = TempDir::new().unwrap();
    let (log, service) = open(dir.path());
    feed(&log, &service, flow(31, 8_000));
    let index = Decisions::open(IndexOptions { decisions_max: 1_000, ..IndexOptions::new(dir.path().join("decisions"), 1) }, topics(&log));
    let replicas = replicas(&topics(&log), Box::new(NoSnapshots), vec![index.clone()]);
    reach(&replicas, 8_001);
    replicas.stop();
    index.stop();
    let all = all_decisions(&log);
    let kept = found(&index, &Filter::default(), 100);
    assert!(kept.len() <= 1_000 && kept.len() > 200, "{}", kept.len());
    assert_eq!(kept[..], all[..kept.len()], "the newest are kept");
    assert!(service.stop());
}
