//! A gate under steady order flow, as JSON: what the ratios and the allocations are measured on.
//!
//! Invariant: every intent is allowed and then cancelled, and its id forgotten two rounds later, so a round meets the same state as
//! the one before. No limit is near, and no boundary of the valuation grid falls into a round. Deliberately absent: clocks, timing.

use ordergate::domain::{Effects, Event, InputTopic, Output, Record, Source, Verdict};
use ordergate::gate::Gate;
use ordergate::wire::{self, Origin};

const START: i64 = 1_772_807_400_000;
const ROUND_MS: i64 = 2_000;

/// How large a desk is.
#[derive(Clone, Copy)]
pub struct Size {
    pub accounts: usize,
    /// Of each account.
    pub positions: usize,
    pub symbols: usize,
}

/// One order: who, what, and its id's number.
#[derive(Clone, Copy)]
pub struct Order {
    pub id: u64,
    pub account: usize,
    pub symbol: usize,
}

/// Orders of random accounts in symbols that they hold; the same seed gives the same orders.
pub struct Orders {
    size: Size,
    random: u64,
    next_id: u64,
}

impl Orders {
    pub fn new(size: Size) -> Self {
        Self { size, random: 0x9E37_79B9_7F4A_7C15, next_id: 0 }
    }

    fn below(&mut self, limit: usize) -> usize {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.random >> 33) as usize) % limit
    }

    pub fn batch(&mut self, count: usize) -> Vec<Order> {
        (0..count)
            .map(|_| {
                let account = self.below(self.size.accounts);
                let held = self.below(self.size.positions);
                self.next_id += 1;
                Order { id: self.next_id, account, symbol: (account + held) % self.size.symbols }
            })
            .collect()
    }
}

/// A gate, and the buffers that a shard keeps beside it.
pub struct Desk {
    pub gate: Gate,
    pub effects: Effects,
    pub out: Vec<u8>,
    pub now: i64,
    size: Size,
    offset: u64,
}

impl Desk {
    /// Opens accounts, gives each its positions by orders that are filled, and sets the rules. An id is forgotten before the
    /// account's next order, so the memory of ids has room for one.
    pub fn new(size: Size, rules: &[String]) -> Self {
        let mut desk =
            Self { gate: Gate::new(0), effects: Effects::default(), out: Vec::with_capacity(65_536), now: START, size, offset: 0 };
        desk.tell(InputTopic::Control, &format!(r#"{{"event":"gate_settings_set","id_memory_ms":{}}}"#, ROUND_MS - 1));
        for symbol in 0..size.symbols {
            desk.define(symbol);
        }
        for account in 0..size.accounts {
            desk.tell(
                InputTopic::Control,
                &format!(r#"{{"event":"account_opened","account":"A{account}","owner":"u","cash":"10000000"}}"#),
            );
        }
        for held in 0..size.positions {
            for account in 0..size.accounts {
                let order = Order { id: held as u64, account, symbol: (account + held) % size.symbols };
                desk.tell(InputTopic::Intents, &intent(order, "buy"));
                desk.tell(InputTopic::Executions, &fill(order, "buy"));
            }
            desk.next_round();
        }
        for (place, rule) in rules.iter().enumerate() {
            desk.tell(InputTopic::Control, &format!(r#"{{"event":"rule_created","rule":{{"id":"r{place}",{rule}}}}}"#));
        }
        for account in 0..size.accounts {
            desk.tell(InputTopic::Executions, &canceled(Order { id: u64::MAX, account, symbol: 0 }));
        }
        desk
    }

    /// An instrument with a mark and thirty bars without a pattern.
    fn define(&mut self, symbol: usize) {
        let sector = symbol % 10;
        self.tell(InputTopic::Control, &format!(r#"{{"event":"instrument_defined","symbol":"S{symbol}","sector":"X{sector}"}}"#));
        self.tell(InputTopic::Prices, &trade(symbol));
        let mut noise = symbol as u64 + 1;
        for day in 0..30 {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            self.tell(InputTopic::Prices, &bar(symbol, START - 86_400_000 * (40 - day), 9_000 + (noise >> 33) % 2_000));
        }
    }

    /// A record, decoded.
    pub fn record(&mut self, topic: InputTopic, payload: &[u8]) -> Record {
        self.offset += 1;
        let source = Source { topic, partition: 0, offset: self.offset };
        Record { source, ts: self.now, received: None, key: None, event: wire::decode(topic, None, payload), quiet: false }
    }

    pub fn apply(&mut self, record: &Record) {
        self.effects.clear();
        self.gate.apply(record, &mut self.effects);
    }

    pub fn encode(&mut self, record: &Record, payload: &[u8]) {
        self.out.clear();
        let origin = Origin { source: record.source, key: None, payload };
        for output in &self.effects.outputs {
            wire::encode_output(&mut self.out, output, &self.effects, &origin);
        }
    }

    /// Applies a record that leads up to a measurement.
    pub fn tell(&mut self, topic: InputTopic, payload: &str) {
        let record = self.record(topic, payload.as_bytes());
        assert!(!matches!(record.event, Event::Refused(_)), "{payload}: {:?}", record.event);
        self.apply(&record);
        for output in &self.effects.outputs {
            assert!(!matches!(output, Output::Decision(decision) if decision.verdict != Verdict::Allow), "{payload}: {:?}", self.effects);
        }
    }

    /// Time moves over some boundaries of the grid, and the prices are fresh again.
    pub fn next_round(&mut self) {
        self.now += ROUND_MS;
        for symbol in 0..self.size.symbols {
            self.tell(InputTopic::Prices, &trade(symbol));
        }
    }
}

/// A limit order, as producers write them.
pub fn intent(order: Order, side: &str) -> String {
    let Order { id, account, symbol } = order;
    let head =
        format!(r#"{{"event":"order_intent","client_order_id":"I-{id}","account":"A{account}","strategy":"mean-rev","symbol":"S{symbol}""#);
    format!(r#"{head},"side":"{side}","order_type":"limit","qty":"10","limit_price":"100.00","time_in_force":"day"}}"#)
}

pub fn fill(order: Order, side: &str) -> String {
    let Order { id, account, symbol } = order;
    let head = format!(r#"{{"event":"fill","exec_id":"E-{id}","client_order_id":"I-{id}","account":"A{account}","symbol":"S{symbol}""#);
    format!(r#"{head},"side":"{side}","qty":"10","price":"100","fee":"0.20"}}"#)
}

pub fn canceled(order: Order) -> String {
    let Order { id, account, .. } = order;
    format!(r#"{{"event":"canceled","client_order_id":"I-{id}","account":"A{account}"}}"#)
}

pub fn trade(symbol: usize) -> String {
    format!(r#"{{"event":"trade","symbol":"S{symbol}","price":"100","size":"1"}}"#)
}

pub fn bar(symbol: usize, open_time: i64, close: u64) -> String {
    let values = format!(r#""open":"1","high":"1","low":"1","close":"{close}","volume":"1""#);
    format!(r#"{{"event":"bar","symbol":"S{symbol}","timeframe":"1d","open_time":{open_time},{values}}}"#)
}
