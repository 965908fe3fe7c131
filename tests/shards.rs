//! One shard and four of them, on the same records: who decides, and who says it.
//!
//! Invariant: what becomes of an account does not depend on how many shards there are, and what is
//! about no account is said once. Deliberately absent: logs and crashes (`simulation`).

use std::collections::BTreeMap;

use ordergate::domain::{InputTopic, Millis, Source};
use ordergate::engine::{Decoded, Fold, Partitioner, Router};
use ordergate::generate::{Generator, OwnGate, Plan};
use ordergate::log::{InputRecord, OutputRecord, OutputTopic};
use ordergate::wire::frame::Routing;
use serde_json::Value;

const SHARDS: u32 = 4;
const PARTITIONER: Partitioner = Partitioner::Murmur2;

/// A fold of every record that a shard reads.
struct Shard {
    fold: Fold,
    replayed: Fold,
    router: Router,
    routings: BTreeMap<(InputTopic, u8), u64>,
}

impl Shard {
    fn new(shard: u32, shards: u32) -> Self {
        Self {
            fold: Fold::new(shard),
            replayed: Fold::new(shard),
            router: Router { partitioner: PARTITIONER, shard, shards },
            routings: BTreeMap::new(),
        }
    }

    fn apply(&mut self, record: InputRecord) -> Vec<OutputRecord> {
        let (topic, ts, mut outputs) = (record.source.topic, record.ts, Vec::new());
        let decoded = Decoded::live(record, &self.router);
        *self.routings.entry((topic, decoded.routing as u8)).or_default() += 1;
        let applied = self.fold.apply(decoded, ts, &mut outputs);
        // A replay knows of the record what the ledger says, and comes to the same.
        let recorded = InputRecord { source: applied.source, ts, key: applied.key, payload: applied.payload };
        let mut again = Vec::new();
        self.replayed.apply(Decoded::of(recorded, applied.routing), ts, &mut again);
        assert_eq!(again, outputs);
        outputs
    }
}

/// The same records to one shard and to four.
struct Both {
    alone: Shard,
    several: Vec<Shard>,
    /// Commands as the one shard calls them, and as theirs call them.
    commands: BTreeMap<String, String>,
    offset: u64,
    second: Millis,
    outputs: [u64; 4],
}

/// What an output says, without the names and numbers that depend on the shard.
fn said(output: &OutputRecord, commands: &BTreeMap<String, String>) -> (OutputTopic, Option<Vec<u8>>, Value) {
    let mut value: Value = serde_json::from_slice(&output.payload).unwrap();
    let fields = value.as_object_mut().unwrap();
    for name in ["seq", "shard", "decision_id", "command_id", "notification_id", "source", "payload"] {
        fields.remove(name);
    }
    (output.topic, output.key.clone(), serde_json::from_str(&renamed(&value.to_string(), commands)).unwrap())
}

/// The text with the one shard's names of commands as the others call them.
fn renamed(text: &str, commands: &BTreeMap<String, String>) -> String {
    let is_of_a_name = |byte: char| byte.is_ascii_alphanumeric() || byte == '-';
    let parts = text.split_inclusive(|byte| !is_of_a_name(byte));
    let parts = parts.map(|part| {
        let name = part.trim_end_matches(|byte| !is_of_a_name(byte));
        commands.get(name).map_or_else(|| part.to_owned(), |other| part.replacen(name, other, 1))
    });
    parts.collect()
}

fn command_id(output: &OutputRecord) -> Option<String> {
    let value: Value = serde_json::from_slice(&output.payload).unwrap();
    Some(value.get("command_id")?.as_str()?.to_owned())
}

fn account_of(output: &OutputRecord) -> Option<String> {
    let value: Value = serde_json::from_slice(&output.payload).unwrap();
    Some(value.get("account")?.as_str()?.to_owned())
}

impl Both {
    fn new() -> Self {
        let several = (0..SHARDS).map(|shard| Shard::new(shard, SHARDS)).collect();
        Self { alone: Shard::new(0, 1), several, commands: BTreeMap::new(), offset: 0, second: 0, outputs: [0; 4] }
    }

    /// Every boundary of the valuation grid is passed by a record that all shards read: a boundary is an
    /// account's when its shard hears of a later time, and prices between two of them make them two.
    fn apply(&mut self, topic: InputTopic, ts: Millis, key: Option<&str>, payload: &str) {
        if ts / 1000 != self.second {
            self.second = ts / 1000;
            self.apply_one(InputTopic::Prices, ts, None, r#"{"event":"trade","symbol":"CLOCK","price":"1"}"#);
        }
        self.apply_one(topic, ts, key, payload);
    }

    fn apply_one(&mut self, topic: InputTopic, ts: Millis, key: Option<&str>, payload: &str) {
        self.offset += 1;
        let record = |partition: u32, payload: &str| InputRecord {
            source: Source { topic, partition, offset: self.offset },
            ts,
            key: key.map(|key| key.as_bytes().to_vec()),
            payload: payload.as_bytes().to_vec(),
        };
        let spread = matches!(topic, InputTopic::Intents | InputTopic::Executions);
        let partition = if spread { PARTITIONER.partition(key.unwrap_or_default().as_bytes(), SHARDS) } else { 0 };
        let theirs = record(partition, &renamed(payload, &self.commands));
        let alone = self.alone.apply(record(0, payload));
        let mut several = Vec::new();
        for shard in self.several.iter_mut().filter(|shard| !spread || shard.router.shard == partition) {
            several.extend(shard.apply(theirs.clone()));
        }
        self.compare(&alone, &several, payload);
    }

    fn compare(&mut self, alone: &[OutputRecord], several: &[OutputRecord], payload: &str) {
        let by_account = |outputs: &[OutputRecord]| {
            let mut found: BTreeMap<Option<String>, Vec<OutputRecord>> = BTreeMap::new();
            for output in outputs {
                found.entry(account_of(output)).or_default().push(output.clone());
            }
            found
        };
        let (alone, several) = (by_account(alone), by_account(several));
        assert_eq!(alone.keys().collect::<Vec<_>>(), several.keys().collect::<Vec<_>>(), "{payload}");
        for (account, ours) in &alone {
            let theirs = &several[account];
            let names = ours.iter().zip(theirs).filter_map(|(ours, theirs)| Some((command_id(ours)?, command_id(theirs)?)));
            self.commands.extend(names);
            let all = |outputs: &[OutputRecord]| outputs.iter().map(|output| said(output, &self.commands)).collect::<Vec<_>>();
            assert_eq!(all(ours), all(theirs), "{account:?}: {payload}");
            for output in ours {
                self.outputs[output.topic.place()] += 1;
            }
        }
    }

    /// Every book is in one shard, in its own, and the same as in the one.
    fn compare_books(&self) {
        let mut theirs = BTreeMap::new();
        for shard in &self.several {
            assert_eq!(shard.fold.state_hash(), shard.replayed.state_hash());
            for book in shard.fold.gate().books() {
                assert_eq!(PARTITIONER.partition(book.account.as_bytes(), SHARDS), shard.router.shard);
                assert!(theirs.insert(book.account, format!("{book:?}")).is_none(), "two shards hold {}", book.account);
            }
        }
        let ours: BTreeMap<_, _> =
            self.alone.fold.gate().books().map(|book| (book.account, renamed(&format!("{book:?}"), &self.commands))).collect();
        assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>());
        for (account, book) in ours {
            assert_eq!(book, theirs[&account], "{account}");
        }
    }
}

#[test]
fn what_becomes_of_an_account_does_not_depend_on_the_number_of_shards() {
    for seed in 0..4 {
        let plan = Plan { seed, accounts: 12, symbols: 5, events: 6_000, start: Plan::DEFAULT_START };
        let mut generator = Generator::new(plan, OwnGate::default());
        let mut both = Both::new();
        while let Some(record) = generator.next_record() {
            both.apply(record.topic, record.ts, Some(record.key), &String::from_utf8_lossy(record.payload));
        }
        both.compare_books();
        assert!(both.outputs.iter().all(|count| *count > 0), "{:?}", both.outputs);
    }
}

/// Four accounts, one in each shard, by the place of their shard.
fn one_account_each() -> Vec<String> {
    let of = |shard| (0..).map(|n| format!("A{n}")).find(|id| PARTITIONER.partition(id.as_bytes(), SHARDS) == shard).unwrap();
    (0..SHARDS).map(of).collect()
}

fn opened() -> (Both, Vec<String>) {
    let (mut both, accounts) = (Both::new(), one_account_each());
    for account in &accounts {
        let payload = format!(r#"{{"event":"account_opened","account":"{account}","owner":"u","cash":"100000"}}"#);
        both.apply(InputTopic::Control, 1, None, &payload);
    }
    both.apply(InputTopic::Control, 1, None, r#"{"event":"instrument_defined","symbol":"S"}"#);
    (both, accounts)
}

#[test]
fn every_refused_record_of_operators_and_of_the_market_is_one_dead_letter() {
    let (mut both, accounts) = opened();
    let (first, last) = (&accounts[0], &accounts[3]);
    let refused = [
        (InputTopic::Control, "no record".to_owned()),
        (InputTopic::Prices, "no record".to_owned()),
        (InputTopic::Control, r#"{"event":"instrument_defined","symbol":"S","multiplier":"2"}"#.into()),
        (InputTopic::Control, r#"{"event":"rule_deleted","id":"r-1"}"#.into()),
        (InputTopic::Control, r#"{"event":"split","symbol":"T","from":"1","to":"2"}"#.into()),
        (InputTopic::Control, r#"{"event":"account_closed","account":"NOBODY"}"#.into()),
        (InputTopic::Control, format!(r#"{{"event":"account_opened","account":"{first}","owner":"u","cash":"1"}}"#)),
        (InputTopic::Control, format!(r#"{{"event":"account_opened","account":"{last}","owner":"u","cash":"1"}}"#)),
        (InputTopic::Control, format!(r#"{{"event":"latch_released","account":"{last}","rule_id":"r","actor":"a","reason":"b"}}"#)),
        (InputTopic::Control, format!(r#"{{"event":"account_limits_set","account":"{last}","limits":{{"max":"1"}}}}"#)),
    ];
    for (number, (topic, payload)) in (1..).zip(&refused) {
        both.apply(*topic, 2, None, payload);
        assert_eq!(both.outputs[OutputTopic::DeadLetter.place()], number, "{payload}");
    }
}

#[test]
fn rules_and_lists_that_name_an_account_of_another_shard_are_taken_in_all() {
    let (mut both, accounts) = opened();
    let intent = |n: u64, account: &str| {
        format!(
            r#"{{"event":"order_intent","client_order_id":"I-{n}","account":"{account}","symbol":"S","side":"buy","order_type":"limit","qty":"500","limit_price":"100"}}"#
        )
    };
    both.apply(InputTopic::Prices, 2, None, r#"{"event":"trade","symbol":"S","price":"100"}"#);
    let rule = format!(
        r#"{{"event":"rule_created","rule":{{"id":"r-1","scope":{{"account":"{}"}},"type":"max_position_size","threshold":"20","unit":"percent","action":"block"}}}}"#,
        accounts[1]
    );
    both.apply(InputTopic::Control, 2, None, &rule);
    let list = format!(r#"{{"event":"restricted_list_set","list":"l","symbols":["S"],"accounts":["{}"]}}"#, accounts[2]);
    both.apply(InputTopic::Control, 2, None, &list);
    for (n, account) in (0..).zip(&accounts) {
        both.apply(InputTopic::Intents, 2, Some(account), &intent(n, account));
    }
    // Dead letters: none. Decisions: one each, two of them blocks, the same as in one shard.
    assert_eq!(both.outputs, [4, 0, both.outputs[2], 0]);
}

#[test]
fn a_kill_switch_is_told_once_and_commands_in_every_shard() {
    let (mut both, accounts) = opened();
    both.apply(InputTopic::Prices, 2, None, r#"{"event":"trade","symbol":"S","price":"100"}"#);
    for (n, account) in (0..).zip(&accounts) {
        let fill = format!(
            r#"{{"event":"fill","exec_id":"E-{n}","client_order_id":"X","account":"{account}","symbol":"S","side":"buy","qty":"5","price":"100"}}"#
        );
        both.apply(InputTopic::Executions, 2, Some(account), &fill);
    }
    let before = both.outputs;
    let kill = r#"{"event":"trading_state_set","scope":{},"state":"halted","actor":"a","reason":"b","flatten":true}"#;
    both.apply(InputTopic::Control, 3, None, kill);
    let [decisions, commands, notifications, dead_letters] = both.outputs;
    assert_eq!((decisions, commands, notifications, dead_letters), (before[0], 4, before[2] + 1, 0));
    for scope in [r#"{"symbol":"S"}"#, r#"{"strategy":"x"}"#] {
        let told = both.outputs[2];
        let set = format!(r#"{{"event":"trading_state_set","scope":{scope},"state":"reduce_only","actor":"a","reason":"b"}}"#);
        both.apply(InputTopic::Control, 3, None, &set);
        assert_eq!(both.outputs[2], told + 1, "{scope}");
    }
}

#[test]
fn what_one_shard_alone_had_halted_it_alone_says_when_it_ends() {
    let (mut both, _) = opened();
    let key = "not an id!";
    let shard = PARTITIONER.partition(key.as_bytes(), SHARDS);
    assert_ne!(shard, 0, "the speaker for operators' records");
    both.apply(InputTopic::Executions, 2, Some(key), "no record");
    let told = both.outputs[2];
    assert_eq!((told, both.outputs[3]), (2, 1));
    both.apply(InputTopic::Control, 3, None, r#"{"event":"trading_state_set","scope":{},"state":"active","actor":"a","reason":"b"}"#);
    assert_eq!(both.outputs[2], told + 1);
    // Again: nothing changes anywhere.
    both.apply(InputTopic::Control, 4, None, r#"{"event":"trading_state_set","scope":{},"state":"active","actor":"a","reason":"b"}"#);
    assert_eq!(both.outputs[2], told + 1);
}

#[test]
fn a_split_that_the_books_of_one_shard_refuse_is_refused_there_and_said_there() {
    let (mut both, accounts) = opened();
    both.apply(InputTopic::Prices, 2, None, r#"{"event":"trade","symbol":"S","price":"100"}"#);
    let fill = format!(
        r#"{{"event":"fill","exec_id":"E","client_order_id":"X","account":"{}","symbol":"S","side":"buy","qty":"0.00000001","price":"100"}}"#,
        accounts[2]
    );
    both.apply(InputTopic::Executions, 2, Some(&accounts[2]), &fill);
    // The dead letter of the one shard and that of shard 2 are the same.
    both.apply(InputTopic::Control, 3, None, r#"{"event":"split","symbol":"S","from":"1000","to":"1"}"#);
    assert_eq!(both.outputs[3], 1);
}

#[test]
fn a_record_in_the_wrong_partition_is_refused_and_nothing_is_booked() {
    let (mut both, accounts) = opened();
    let (wrong, account) = (&mut both.several[0], &accounts[1]);
    let at = |topic, payload: String| InputRecord {
        source: Source { topic, partition: 0, offset: 9 },
        ts: 5,
        key: Some(account.clone().into_bytes()),
        payload: payload.into_bytes(),
    };
    let fill = format!(
        r#"{{"event":"fill","exec_id":"E","client_order_id":"X","account":"{account}","symbol":"S","side":"buy","qty":"5","price":"100"}}"#
    );
    let codes = |outputs: &[OutputRecord]| -> Vec<String> {
        let value = |output: &OutputRecord| serde_json::from_slice::<Value>(&output.payload).unwrap();
        let of = |value: Value| value.get("reason").or(value.get("code")).or(value.pointer("/reasons/0/code")).map(|code| code.to_string());
        outputs.iter().filter_map(|output| of(value(output))).collect()
    };
    let outputs = wrong.apply(at(InputTopic::Executions, fill));
    assert_eq!(codes(&outputs), [r#""MISROUTED""#, r#""UNKNOWN_ACCOUNT""#]);
    let cancel = format!(r#"{{"event":"order_cancel","client_order_id":"I-1","account":"{account}"}}"#);
    let outputs = wrong.apply(at(InputTopic::Intents, cancel));
    assert_eq!(codes(&outputs), [r#""MISROUTED""#, r#""MISROUTED""#]);
    assert_eq!(wrong.routings[&(InputTopic::Intents, Routing::Misrouted as u8)], 1);
}
