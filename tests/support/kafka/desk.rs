//! The smallest desk that orders can be judged at: an instrument with a price, and one account per shard.
//!
//! Invariant: each order has an id of its own, so what became of it is found by that id and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use ordergate::engine::Partitioner;
use ordergate::wire::frame::{self, Entry};
use serde_json::Value;

use super::client::NewRecord;
use super::cluster::Cluster;

/// One account per shard.
pub struct Desk {
    accounts: Vec<String>,
}

/// An entry of a ledger partition, in order.
pub struct LedgerEntry {
    pub partition: i32,
    pub offset: i64,
    pub entry: Entry,
}

impl Desk {
    /// Opens the accounts and sends one price.
    pub fn open(cluster: &Cluster, shards: i32) -> Self {
        let count = u32::try_from(shards).unwrap();
        let of_shard =
            |shard| (0..).map(|n| format!("ACC{n}")).find(|name| Partitioner::Murmur2.partition(name.as_bytes(), count) == shard);
        let desk = Self { accounts: (0..count).map(|shard| of_shard(shard).unwrap()).collect() };
        desk.control(cluster, "AAPL", r#"{"event":"instrument_defined","symbol":"AAPL"}"#);
        desk.control(cluster, "gate", r#"{"event":"gate_settings_set","max_intent_age_ms":0}"#);
        for account in &desk.accounts {
            let opened = format!(r#"{{"event":"account_opened","account":"{account}","owner":"u1","cash":"1000000000"}}"#);
            desk.control(cluster, account, &opened);
        }
        desk.price(cluster);
        desk
    }

    /// Sends one control record.
    pub fn control(&self, cluster: &Cluster, key: &str, payload: &str) {
        let record = NewRecord { partition: Some(0), key: Some(key.as_bytes()), value: payload.as_bytes(), headers: &[] };
        cluster.produce("gate.control", &[record]);
    }

    /// Waits until the ledgers hold all of the control topic.
    pub fn wait_for_control(&self, cluster: &Cluster) {
        let end = cluster.read("gate.control").last().map_or(0, |record| record.offset + 1);
        let (begun, shards) = (Instant::now(), self.accounts.len());
        loop {
            let ledger = cluster.ledger();
            let mut applied = BTreeMap::new();
            for entry in &ledger {
                let Entry::Frame(frame) = &entry.entry else { continue };
                let mark = frame.input_marks.iter().find(|mark| mark.topic == ordergate::domain::InputTopic::Control);
                applied.insert(entry.partition, mark.map_or(0, |mark| mark.next));
            }
            if applied.len() == shards && applied.values().all(|next| i64::try_from(*next).unwrap() >= end) {
                return;
            }
            assert!(begun.elapsed() < Duration::from_secs(30), "applied {applied:?} of {end} control records");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Sends a price of today.
    pub fn price(&self, cluster: &Cluster) {
        let value = br#"{"event":"trade","symbol":"AAPL","price":"100"}"#;
        cluster.produce("market.prices", &[NewRecord { partition: Some(0), key: Some(b"AAPL"), value, headers: &[] }]);
    }

    /// The account of a shard.
    pub fn account(&self, shard: i32) -> &str {
        &self.accounts[usize::try_from(shard).unwrap()]
    }

    /// An order of one share.
    pub fn order(&self, shard: i32, id: &str) -> String {
        let account = self.account(shard);
        format!(
            r#"{{"event":"order_intent","client_order_id":"{id}","account":"{account}","symbol":"AAPL","side":"buy","order_type":"limit","qty":"1","limit_price":"100"}}"#
        )
    }

    /// Sends orders `PREFIX-SHARD-N` to each of these shards.
    pub fn send(&self, cluster: &Cluster, shards: impl Iterator<Item = i32>, prefix: &str, count: usize) -> BTreeSet<String> {
        let mut sent = BTreeSet::new();
        for shard in shards {
            let ids: Vec<String> = (0..count).map(|n| format!("{prefix}-{shard}-{n}")).collect();
            let bodies: Vec<String> = ids.iter().map(|id| self.order(shard, id)).collect();
            let key = Some(self.account(shard).as_bytes());
            let records: Vec<NewRecord<'_>> =
                bodies.iter().map(|body| NewRecord { partition: Some(shard), key, value: body.as_bytes(), headers: &[] }).collect();
            cluster.produce("orders.intents", &records);
            sent.extend(ids);
        }
        sent
    }

    /// An event log line of an order, for a flow.
    pub fn line(&self, shard: i32, id: &str) -> String {
        format!(r#"{{"topic":"orders.intents","key":"{}","payload":{}}}"#, self.account(shard), self.order(shard, id))
    }
}

impl Cluster {
    /// The decision of every intent, by its id. Two that differ are a failure; the same one twice is allowed.
    pub fn decisions(&self) -> BTreeMap<String, Value> {
        let mut found: BTreeMap<String, Value> = BTreeMap::new();
        for record in self.read("gate.decisions") {
            let decision: Value = serde_json::from_slice(&record.value).unwrap();
            let id = decision["client_order_id"].as_str().unwrap().to_owned();
            let first = found.entry(id).or_insert_with(|| decision.clone());
            assert_eq!(*first, decision, "decided twice");
        }
        found
    }

    /// Waits until all of these are decided.
    pub fn wait_for_decisions(&self, ids: &BTreeSet<String>, within: Duration) -> BTreeMap<String, Value> {
        let begun = Instant::now();
        loop {
            let found = self.decisions();
            let missing: Vec<&String> = ids.iter().filter(|id| !found.contains_key(*id)).collect();
            if missing.is_empty() {
                return found;
            }
            assert!(
                begun.elapsed() < within,
                "{} of {} intents are not decided after {within:?}: {missing:.100?}",
                missing.len(),
                ids.len()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Everything in the ledgers, what does not count included.
    pub fn ledger(&self) -> Vec<LedgerEntry> {
        let entry = |record: super::client::Record| LedgerEntry {
            partition: record.partition,
            offset: record.offset,
            entry: frame::decode(&record.value).unwrap(),
        };
        self.read("gate.ledger").into_iter().map(entry).collect()
    }

    /// The claims, and how many frames with records in them come after a higher claim than their own: the work of an owner who did
    /// not know. (The empty one that closes a term may come late from anyone who is told to stop.)
    pub fn claims_and_late_frames(&self) -> (usize, usize) {
        let (mut claims, mut late) = (0, 0);
        let mut terms: BTreeMap<i32, u64> = BTreeMap::new();
        for LedgerEntry { partition, entry, .. } in self.ledger() {
            let term = terms.entry(partition).or_default();
            match entry {
                Entry::Claim(claim) => {
                    claims += 1;
                    *term = claim.term.max(*term);
                }
                Entry::Frame(frame) => late += usize::from(frame.term < *term && !frame.inputs.is_empty()),
            }
        }
        (claims, late)
    }
}
