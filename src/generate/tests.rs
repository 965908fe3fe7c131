//! The flow as a whole, heard by a gate that allows everything, or nothing.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::*;
use crate::domain::{Decision, Event, IntentKind, Qty, Source, Verdict};

/// Decides every intent in the same way, whatever it says.
struct Always {
    verdict: Verdict,
    seq: u64,
    working: BTreeMap<String, i64>,
    decided: BTreeMap<String, i64>,
}

impl Always {
    fn new(verdict: Verdict) -> Self {
        Self { verdict, seq: 0, working: BTreeMap::new(), decided: BTreeMap::new() }
    }

    fn decision(&self, value: &Value, kind: IntentKind, qty: i64) -> Decision {
        let id = |name: &str| value[name].as_str().and_then(|text| crate::domain::Id::parse(text.as_bytes()));
        Decision {
            client_order_id: id("client_order_id").unwrap(),
            amend_id: id("amend_id"),
            account: id("account").unwrap(),
            intent: Some(kind),
            symbol: None,
            side: None,
            verdict: self.verdict,
            requested_qty: None,
            approved_qty: Qty(if self.verdict == Verdict::Block { 0 } else { qty }),
            reasons: 0..0,
            equity: None,
            shard: 0,
            seq: self.seq,
            at: 0,
            source: Source { topic: InputTopic::Intents, partition: 0, offset: 0 },
        }
    }
}

fn units(value: &Value) -> i64 {
    let text = value.as_str().unwrap_or("1");
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    format!("{whole}{fraction:0<8}").parse().unwrap_or(0)
}

impl Decide for Always {
    fn decide(&mut self, record: &Generated<'_>, effects: &mut Effects) {
        self.seq += 1;
        if record.broken {
            return;
        }
        let value: Value = serde_json::from_slice(record.payload).unwrap();
        let id = value["client_order_id"].as_str().unwrap_or("").to_owned();
        let (kind, qty) = match value["event"].as_str().unwrap() {
            "order_intent" if !self.decided.contains_key(&id) => (IntentKind::Order, units(&value["qty"])),
            "order_amend" => (IntentKind::Amend, value.get("qty").map_or(self.decided[&id], units)),
            "order_cancel" => (IntentKind::Cancel, 0),
            _ => return,
        };
        if kind != IntentKind::Cancel && self.verdict != Verdict::Block {
            self.decided.insert(id.clone(), qty);
            self.working.insert(id, qty);
        }
        effects.outputs.push(Output::Decision(self.decision(&value, kind, qty)));
    }
}

fn plan(seed: u64, events: u64) -> Plan {
    Plan { seed, accounts: 12, symbols: 9, events, start: Plan::DEFAULT_START }
}

/// All records as `(topic, time, value)`, and their lines.
fn flow(plan: Plan, verdict: Verdict) -> (Vec<(InputTopic, Millis, Value)>, Vec<u8>) {
    let mut generator = Generator::new(plan, Always::new(verdict));
    let (mut records, mut lines) = (Vec::new(), Vec::new());
    while let Some(record) = generator.next_record() {
        record.write_line(&mut lines);
        records.push((record.topic, record.ts, serde_json::from_slice(record.payload).unwrap_or(Value::Null)));
    }
    (records, lines)
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_seed_others() {
    let first = flow(plan(5, 5000), Verdict::Allow).1;
    assert_eq!(first, flow(plan(5, 5000), Verdict::Allow).1);
    assert_ne!(first, flow(plan(6, 5000), Verdict::Allow).1);
}

#[test]
fn every_line_is_a_json_object_with_the_next_offset_of_its_topic() {
    let lines = flow(plan(1, 4000), Verdict::Allow).1;
    let mut offsets = BTreeMap::new();
    let mut count = 0;
    for line in lines.split_inclusive(|byte| *byte == b'\n') {
        let value: Value = serde_json::from_slice(line).unwrap();
        let offset = offsets.entry(value["topic"].to_string()).or_insert(0);
        assert_eq!(value["offset"], *offset);
        *offset += 1;
        count += 1;
    }
    assert_eq!((count, offsets.len()), (4000, 4));
}

#[test]
fn a_flow_has_every_kind_of_record() {
    let (records, _) = flow(plan(2, 40_000), Verdict::Allow);
    let seen: BTreeSet<&str> = records.iter().filter_map(|record| record.2["event"].as_str()).collect();
    let expected = [
        "gate_settings_set",
        "instrument_defined",
        "rule_created",
        "account_opened",
        "bar",
        "trade",
        "quote",
        "order_intent",
        "order_amend",
        "order_cancel",
        "signal",
        "accepted",
        "fill",
        "canceled",
        "rejected",
        "expired",
        "done_for_day",
        "trade_busted",
        "trade_corrected",
        "cash_adjusted",
        "restricted_list_set",
        "account_limits_set",
        "trading_state_set",
    ];
    for event in expected {
        assert!(seen.contains(event), "{event} is missing among {seen:?}");
    }
}

#[test]
fn time_never_goes_back_and_weekends_are_free() {
    let (records, _) = flow(plan(3, 20_000), Verdict::Allow);
    assert!(records.windows(2).all(|pair| pair[0].1 <= pair[1].1));
    let days: BTreeSet<i64> = records.iter().map(|record| record.1 / 86_400_000).collect();
    assert!(days.len() >= 3, "{days:?}");
    assert!(!days.iter().any(|day| is_free(*day)), "{days:?}");
}

/// Day 0 was a Thursday.
fn is_free(day: i64) -> bool {
    matches!(day % 7, 2 | 3)
}

#[test]
fn what_was_blocked_is_never_executed() {
    let (records, _) = flow(plan(4, 10_000), Verdict::Block);
    let executed = records.iter().filter(|record| record.0 == InputTopic::Executions && record.2["qty"] != "?").count();
    assert_eq!(executed, 0);
    assert!(records.iter().filter(|record| record.2["event"] == "order_intent").count() > 2000);
}

#[test]
fn no_order_is_filled_beyond_what_was_allowed() {
    let mut generator = Generator::new(plan(8, 30_000), Always::new(Verdict::Allow));
    let mut filled: BTreeMap<String, i64> = BTreeMap::new();
    let mut execs = BTreeSet::new();
    let mut fills = 0;
    while let Some(record) = generator.next_record() {
        let value: Value = serde_json::from_slice(record.payload).unwrap_or(Value::Null);
        if value["event"] != "fill" || value["qty"] == "?" || !execs.insert(value["exec_id"].to_string()) {
            continue;
        }
        fills += 1;
        let id = value["client_order_id"].as_str().unwrap().to_owned();
        let total = filled.entry(id.clone()).or_default();
        *total += units(&value["qty"]);
        let allowed = generator.decider.working[&id];
        assert!(*total <= allowed, "{id}: {total} of {allowed}");
    }
    assert!(fills > 1000, "{fills}");
}

#[test]
fn fills_are_never_worse_than_their_limit() {
    let (records, _) = flow(plan(9, 20_000), Verdict::Allow);
    let mut limits: BTreeMap<String, i64> = BTreeMap::new();
    let mut compared = 0;
    for (_, _, value) in &records {
        let id = value["client_order_id"].as_str().unwrap_or("").to_owned();
        match value["event"].as_str().unwrap_or("") {
            // A record that tells an id again changes nothing; an amend may be on its way: leave its order out.
            "order_intent" => {
                limits.entry(id).or_insert(value.get("limit_price").map_or(-1, units));
            }
            "order_amend" => {
                limits.insert(id, -1);
            }
            "fill" => {
                let (limit, price) = (limits.get(&id).copied().unwrap_or(-1), units(&value["price"]));
                let within = if value["side"] == "buy" { price <= limit } else { price >= limit };
                assert!(limit < 0 || within, "{value}");
                compared += usize::from(limit >= 0);
            }
            _ => {}
        }
    }
    assert!(compared > 200, "{compared}");
}

#[test]
fn only_what_is_meant_to_be_refused_is_refused_by_the_decoder() {
    let mut generator = Generator::new(plan(10, 20_000), Always::new(Verdict::Allow));
    let (mut refused, mut count) = (BTreeMap::new(), 0);
    while let Some(record) = generator.next_record() {
        count += 1;
        if let Event::Refused(why) = wire::decode(record.topic, Some(record.key.as_bytes()), record.payload) {
            assert!(record.topic == InputTopic::Intents || record.payload.ends_with(br#""qty":"?","price":"?"}"#), "{why:?}");
            *refused.entry(why.code).or_insert(0) += 1;
        }
    }
    let share: i32 = refused.values().sum();
    assert!(refused.len() == 2 && share > 20 && share < count / 50, "{refused:?}");
}

#[test]
fn a_replay_of_the_lines_is_the_flow_itself() {
    let mut generator = Generator::new(plan(11, 3000), Always::new(Verdict::Allow));
    let mut line = Vec::new();
    while let Some(record) = generator.next_record() {
        line.clear();
        record.write_line(&mut line);
        let read = wire::parse_line(&line).unwrap();
        assert_eq!((&*read.topic, read.offset, read.ts), (record.topic.as_str(), Some(record.offset), Some(record.ts)));
        assert_eq!((read.key.as_deref(), &*read.payload), (Some(record.key.as_bytes()), record.payload));
    }
}

/// Positions and working orders of every account, as the gate has them.
fn as_the_gate_says(generator: &Generator<OwnGate>) -> BTreeMap<String, String> {
    let books = generator.decider.gate.books();
    let mut said = BTreeMap::new();
    for book in books {
        for position in book.positions.iter().filter(|position| position.qty != Qty::ZERO) {
            said.insert(format!("{} {}", book.account, position.symbol), position.qty.to_string());
        }
        for order in &book.working {
            said.insert(format!("{} {}", book.account, order.client_order_id), format!("{} {}", order.symbol, order.leaves));
        }
    }
    said
}

/// The same, as the venue has them. Commands that it carries out itself are no orders of the gate.
fn as_the_venue_says(generator: &Generator<OwnGate>) -> BTreeMap<String, String> {
    let flow = &generator.flow;
    let symbol = |place: usize| flow.market.instruments[place].symbol.clone();
    let mut said = BTreeMap::new();
    for trader in &flow.traders {
        for (place, qty) in &trader.positions {
            said.insert(format!("{} {}", trader.account, symbol(*place)), Qty(*qty).to_string());
        }
    }
    for order in flow.orders.values().filter(|order| !order.direct) {
        let name = match order.name {
            Name::Own(number) => format!("I-{number}"),
            Name::Command(shard, seq, index) => format!("{shard}-{seq}-{index}"),
        };
        let leaves = Qty(order.qty - order.filled);
        said.insert(format!("{} {name}", flow.traders[order.trader].account), format!("{} {leaves}", symbol(order.place)));
    }
    said
}

#[test]
fn the_gate_and_the_venue_agree_about_every_position_and_order() {
    for seed in 0..4 {
        let mut generator = Generator::new(plan(seed, 12_000), OwnGate::default());
        let (mut count, mut compared) = (0, 0);
        while generator.next_record().is_some() {
            count += 1;
            if count % 500 == 0 {
                let (gate, venue) = (as_the_gate_says(&generator), as_the_venue_says(&generator));
                compared += gate.len();
                let differ: Vec<_> = gate.iter().filter(|entry| venue.get(entry.0) != Some(entry.1)).collect();
                let missing: Vec<_> = venue.iter().filter(|entry| !gate.contains_key(entry.0)).collect();
                assert!(differ.is_empty() && missing.is_empty(), "seed {seed}, record {count}: {differ:?}, {missing:?}");
            }
        }
        assert!(compared > 500, "{compared}");
    }
}
