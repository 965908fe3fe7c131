//! Gates as they stand before one record is measured.
//!
//! Invariant: everything gets there through records. No limit is near, no boundary of the valuation
//! grid is crossed, and each kind of record was applied before, so that what is measured is the
//! usual case after warm-up.

use ordergate::domain::{Effects, Event, InputTopic, Record, Source};
use ordergate::gate::Gate;
use ordergate::wire;

use super::rules::in_turn;

const START: i64 = 1_772_807_400_000;

/// A gate and the record that it takes next.
pub struct Stage {
    pub gate: Gate,
    pub effects: Effects,
    pub record: Record,
    offset: u64,
}

impl Stage {
    fn empty() -> Self {
        let record = record(InputTopic::Control, b"{}", 0);
        Self { gate: Gate::new(0), effects: Effects::default(), record, offset: 0 }
    }

    /// Sets what comes next.
    fn next(&mut self, topic: InputTopic, payload: &str) {
        self.offset += 1;
        self.record = record(topic, payload.as_bytes(), self.offset);
        assert!(!matches!(self.record.event, Event::Refused(_)), "{payload}: {:?}", self.record.event);
    }

    /// Applies a record.
    fn tell(&mut self, topic: InputTopic, payload: &str) {
        self.next(topic, payload);
        self.take();
    }

    /// Applies the next record: this is what is measured.
    pub fn take(&mut self) {
        self.effects.clear();
        self.gate.apply(&self.record, &mut self.effects);
    }

    fn rules(&mut self, count: usize) {
        for (place, rule) in in_turn(count).iter().enumerate() {
            self.tell(InputTopic::Control, &format!(r#"{{"event":"rule_created","rule":{{"id":"r{place}",{rule}}}}}"#));
        }
    }

    fn symbol(&mut self, place: usize) {
        let sector = place % 10;
        self.tell(InputTopic::Control, &format!(r#"{{"event":"instrument_defined","symbol":"S{place}","sector":"X{sector}"}}"#));
        self.trade(place, "100");
    }

    /// Thirty bars without a pattern, other ones for each symbol.
    fn bars(&mut self, place: usize) {
        let mut noise = place as u64 + 1;
        for day in 0..30 {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (close, open_time) = (9_000 + (noise >> 33) % 2_000, START - 86_400_000 * (40 - day));
            let values = format!(r#""open":"1","high":"1","low":"1","close":"{close}","volume":"1""#);
            let bar = format!(r#"{{"event":"bar","symbol":"S{place}","timeframe":"1d","open_time":{open_time},{values}}}"#);
            self.tell(InputTopic::Prices, &bar);
        }
    }

    fn trade(&mut self, place: usize, price: &str) {
        self.tell(InputTopic::Prices, &trade(place, price));
    }

    fn account(&mut self, place: usize) {
        let account = format!(r#"{{"event":"account_opened","account":"A{place}","owner":"u","cash":"10000000"}}"#);
        self.tell(InputTopic::Control, &account);
    }

    /// An account gets a position by an order that is filled.
    fn position(&mut self, account: usize, symbol: usize) {
        self.tell(InputTopic::Intents, &intent(&format!("P{account}.{symbol}"), account, symbol, 10));
        self.tell(InputTopic::Executions, &fill(&format!("P{account}.{symbol}"), account, symbol, 10));
    }

    /// An order that comes and goes, so that what is measured is not the first of its kind. Ten times: with 5 and 20 positions the tables
    /// of ids then have just grown, and do not grow in what is measured.
    fn warm_up(&mut self) {
        for n in 0..10 {
            self.tell(InputTopic::Intents, &intent(&format!("W{n}"), 0, 0, 10));
            self.tell(InputTopic::Executions, &fill(&format!("W{n}"), 0, 0, 5));
            let canceled = format!(r#"{{"event":"canceled","client_order_id":"W{n}","account":"A0"}}"#);
            self.tell(InputTopic::Executions, &canceled);
            self.trade(0, "100");
        }
    }

    /// One account with so many positions, under so many rules.
    fn positions(count: usize, rules: usize) -> Box<Self> {
        let mut stage = Self::empty();
        for place in 0..count.max(1) {
            stage.symbol(place);
            stage.bars(place);
        }
        stage.account(0);
        for place in 0..count {
            stage.position(0, place);
        }
        stage.rules(rules);
        if count > 0 {
            stage.warm_up();
        }
        Box::new(stage)
    }

    /// An intent of an account with so many positions comes next.
    pub fn evaluation(count: usize) -> Box<Self> {
        let mut stage = Self::positions(count, 9);
        stage.next(InputTopic::Intents, &intent("M", 0, 0, 10));
        stage
    }

    /// An intent of an account with five positions comes next, under so many rules that all cover it.
    pub fn ruled(rules: usize) -> Box<Self> {
        let mut stage = Self::positions(5, rules);
        stage.next(InputTopic::Intents, &intent("M", 0, 0, 10));
        stage
    }

    /// A fill of a working order comes next, in an account with so many positions.
    pub fn filling(count: usize) -> Box<Self> {
        let mut stage = Self::positions(count, 9);
        stage.tell(InputTopic::Intents, &intent("M", 0, 0, 10));
        stage.next(InputTopic::Executions, &fill("M", 0, 0, 5));
        stage
    }

    /// A trade of a symbol that so many accounts hold comes next; nobody's stop is near.
    pub fn pricing(holders: usize) -> Box<Self> {
        let mut stage = Self::empty();
        stage.symbol(0);
        stage.rules(9);
        for place in 0..holders {
            stage.account(place);
            stage.position(place, 0);
        }
        stage.trade(0, "101");
        stage.trade(0, "100");
        stage.next(InputTopic::Prices, &trade(0, "100.5"));
        Box::new(stage)
    }
}

fn record(topic: InputTopic, payload: &[u8], offset: u64) -> Record {
    let source = Source { topic, partition: 0, offset };
    Record { source, ts: START, received: None, key: None, event: wire::decode(topic, None, payload), quiet: false }
}

fn trade(place: usize, price: &str) -> String {
    format!(r#"{{"event":"trade","symbol":"S{place}","price":"{price}","size":"1"}}"#)
}

/// A limit order, as producers write them.
pub fn intent(id: &str, account: usize, symbol: usize, qty: usize) -> String {
    let head =
        format!(r#"{{"event":"order_intent","client_order_id":"{id}","account":"A{account}","strategy":"mean-rev","symbol":"S{symbol}""#);
    format!(r#"{head},"side":"buy","order_type":"limit","qty":"{qty}","limit_price":"100.00","time_in_force":"day"}}"#)
}

fn fill(id: &str, account: usize, symbol: usize, qty: usize) -> String {
    let head = format!(r#"{{"event":"fill","exec_id":"E-{id}","client_order_id":"{id}","account":"A{account}","symbol":"S{symbol}""#);
    format!(r#"{head},"side":"buy","qty":"{qty}","price":"100","fee":"0.20"}}"#)
}
