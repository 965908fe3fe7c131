//! Floor 5, order flow for demonstrations and load: what `ordergate generate` writes.
//!
//! Invariant: the same plan gives the same bytes on every machine: integers only, no clock, no
//! entropy, no iteration over hash maps. The executions are those of a venue that hears the
//! decisions, so that no order works that was not allowed.
//! Deliberately absent: real prices, and any claim that a market looks like this.

mod market;
mod odd;
mod opening;
mod payload;
mod random;
mod session;
#[cfg(test)]
mod tests;
mod traders;
mod venue;

use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::io::Write as _;

use crate::domain::{AccountId, Effects, InputTopic, Millis, Output, Record, Source, Symbol};
use crate::gate::Gate;
use crate::wire;

use market::Market;
use odd::Recent;
use opening::Opening;
use payload::Payload;
use random::Random;
use session::{Action, Due, Session};
use traders::{Asked, Trader};
use venue::{Name, Order};

/// What to generate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Other seeds give other flows.
    pub seed: u64,
    /// How many accounts there are, at least 1.
    pub accounts: u32,
    /// How many symbols there are, at least 1.
    pub symbols: u32,
    /// How many records to write.
    pub events: u64,
    /// The time of the first record.
    pub start: Millis,
}

impl Plan {
    /// When flows start unless they are told otherwise: Friday, 2026-03-06, 09:30 in New York. The
    /// clocks there change in the weekend that follows.
    pub const DEFAULT_START: Millis = 1_772_807_400_000;
}

/// One generated record.
#[derive(Clone, Copy, Debug)]
pub struct Generated<'a> {
    /// The topic.
    pub topic: InputTopic,
    /// Its place in the topic, from 0. All are of partition 0.
    pub offset: u64,
    /// Its timestamp.
    pub ts: Millis,
    /// Its key.
    pub key: &'a str,
    /// Its value: one JSON object unless it is broken.
    pub payload: &'a [u8],
    /// Whether the value is no JSON at all: such records belong to every flow.
    pub broken: bool,
}

impl Generated<'_> {
    /// Appends the record as a line of an event log, with its newline (WIRE.md, event logs as files).
    pub fn write_line(&self, out: &mut Vec<u8>) {
        let (topic, offset, ts, key) = (self.topic.as_str(), self.offset, self.ts, self.key);
        // Writing into memory does not fail.
        let _ = write!(out, "{{\"topic\":\"{topic}\",\"partition\":0,\"offset\":{offset},\"ts\":{ts},\"key\":\"{key}\",\"payload\":");
        if self.broken {
            out.push(b'"');
            for byte in self.payload {
                if matches!(byte, b'"' | b'\\') {
                    out.push(b'\\');
                }
                out.push(*byte);
            }
            out.push(b'"');
        } else {
            out.extend_from_slice(self.payload);
        }
        out.extend_from_slice(b"}\n");
    }
}

/// Who decides about the flow while it is generated.
pub trait Decide {
    /// Takes the next record and appends what it causes.
    fn decide(&mut self, record: &Generated<'_>, effects: &mut Effects);
}

/// A gate of our own: the records are decoded and applied as a replay of the flow would.
#[derive(Debug)]
pub struct OwnGate {
    gate: Gate,
}

impl Default for OwnGate {
    fn default() -> Self {
        Self { gate: Gate::new(0) }
    }
}

impl Decide for OwnGate {
    fn decide(&mut self, record: &Generated<'_>, effects: &mut Effects) {
        let key = record.key.as_bytes();
        let decided = Record {
            source: Source { topic: record.topic, partition: 0, offset: record.offset },
            ts: record.ts,
            received: None,
            key: wire::key_as_id(Some(key)),
            event: wire::decode(record.topic, Some(key), record.payload),
            quiet: false,
        };
        self.gate.apply(&decided, effects);
    }
}

/// A flow and the gate that it listens to.
#[derive(Debug)]
pub struct Generator<D> {
    flow: Flow,
    decider: D,
    effects: Effects,
}

impl<D: Decide> Generator<D> {
    /// A flow that has written nothing yet.
    pub fn new(plan: Plan, decider: D) -> Self {
        Self { flow: Flow::new(plan), decider, effects: Effects::default() }
    }

    /// Who decides.
    pub fn decider(&self) -> &D {
        &self.decider
    }

    /// The next record, decided already. `None` when all are written.
    pub fn next_record(&mut self) -> Option<Generated<'_>> {
        if !self.flow.write_next() {
            return None;
        }
        self.effects.clear();
        self.decider.decide(&self.flow.record(), &mut self.effects);
        self.flow.hear(&self.effects);
        Some(self.flow.record())
    }
}

/// Topic and key of the record that was written last.
#[derive(Debug)]
struct Head {
    topic: InputTopic,
    key: String,
    broken: bool,
}

impl Head {
    fn set(&mut self, topic: InputTopic, key: &str) {
        self.topic = topic;
        self.key.clear();
        self.key.push_str(key);
        self.broken = false;
    }
}

/// The numbers of the ids that come next.
#[derive(Debug, Default)]
struct Counters {
    intent: u64,
    order: u64,
    exec: u64,
    amend: u64,
    due: u64,
}

/// Everything that the next record follows from.
#[derive(Debug)]
struct Flow {
    plan: Plan,
    written: u64,
    now: Millis,
    offsets: [u64; 4],
    head: Head,
    payload: Payload,
    random: Random,
    opening: Opening,
    history_days: u64,
    session: Session,
    due: BinaryHeap<Due>,
    counters: Counters,
    market: Market,
    places: HashMap<Symbol, usize>,
    traders: Vec<Trader>,
    orders: BTreeMap<u64, Order>,
    numbers: BTreeMap<Name, u64>,
    asked: Asked,
    recent: Recent,
    /// The symbol that an operator made reduce-only.
    tightened: Option<usize>,
}

impl Flow {
    fn new(plan: Plan) -> Self {
        let mut random = Random::new(plan.seed);
        let session = Session::new(&plan);
        let symbols = plan.symbols.max(1);
        // Two in five records are prices.
        let moves = session.events * 2 / 5 / u64::from(symbols);
        let market = Market::new(symbols as usize, moves, &mut random);
        let symbol = |text: &str| Symbol::parse(text.as_bytes());
        let places = market.instruments.iter().enumerate().filter_map(|(place, known)| Some((symbol(&known.symbol)?, place))).collect();
        let traders = (0..plan.accounts.max(1)).map(|place| Trader::new(place, &mut random)).collect();
        Self {
            plan,
            written: 0,
            now: plan.start,
            offsets: [0; 4],
            head: Head { topic: InputTopic::Control, key: String::new(), broken: false },
            payload: Payload::default(),
            random,
            opening: Opening::Settings,
            history_days: (plan.events / 5 / u64::from(symbols)).min(30),
            session,
            due: BinaryHeap::new(),
            counters: Counters::default(),
            market,
            places,
            traders,
            orders: BTreeMap::new(),
            numbers: BTreeMap::new(),
            asked: Asked::Nothing,
            recent: Recent::default(),
            tightened: None,
        }
    }

    fn record(&self) -> Generated<'_> {
        let offset = self.offsets[self.head.topic as usize].saturating_sub(1);
        let Head { topic, ref key, broken } = self.head;
        Generated { topic, offset, ts: self.now, key, payload: self.payload.bytes(), broken }
    }

    /// Writes the next record into `head` and `payload`. False when all are written.
    fn write_next(&mut self) -> bool {
        if self.written == self.plan.events {
            return false;
        }
        self.written += 1;
        self.asked = Asked::Nothing;
        if !self.open_next() {
            self.flow_next();
        }
        self.offsets[self.head.topic as usize] += 1;
        true
    }

    /// Hears what the last record caused.
    fn hear(&mut self, effects: &Effects) {
        for output in &effects.outputs {
            match output {
                Output::Decision(decision) => self.hear_decision(decision),
                Output::CancelOrders(cancel) => {
                    for id in effects.orders_of(cancel) {
                        self.cancel_soon(id.as_str());
                    }
                }
                Output::ClosePosition(close) => self.hear_close(close),
                Output::Notification(notification) => self.hear_notification(notification),
                Output::DeadLetter(_) => {}
            }
        }
    }

    /// Puts off an action for some milliseconds.
    fn later(&mut self, delay: i64, action: Action) {
        self.counters.due += 1;
        self.due.push(Due { at: self.now.saturating_add(delay), number: self.counters.due, action });
    }

    fn trader_of(&self, account: AccountId) -> Option<usize> {
        let place: usize = account.as_str().strip_prefix("ACC")?.parse().ok()?;
        place.checked_sub(1).filter(|place| *place < self.traders.len())
    }
}
