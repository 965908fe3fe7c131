//! Allocations per event after warm-up, and bytes per account, by a counting allocator.
//!
//! Invariant: decoding, applying and encoding are counted apart, and nothing else is. A program of its own, so that counting slows no
//! time that is compared (`ratios`). Deliberately absent: times.

#[path = "shared/desk.rs"]
mod desk;
#[path = "shared/rules.rs"]
mod rules;
#[path = "shared/table.rs"]
mod table;

use std::alloc::System;

use ordergate::domain::InputTopic;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, Stats, StatsAlloc};

use desk::{Desk, Order, Orders, Size, bar, canceled, fill, intent, trade};
use rules::in_turn;
use table::Table;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Rounds that are not counted, and those that are.
const WARM_UP: usize = 1_000;
const COUNTED: usize = 200;
const BATCH: usize = 100;

/// Calls of the allocator that gave memory, by step.
#[derive(Clone, Copy, Default)]
struct Seen {
    events: usize,
    decode: usize,
    apply: usize,
    encode: usize,
}

fn given(stats: Stats) -> usize {
    stats.allocations + stats.reallocations
}

impl Seen {
    fn step(&mut self, desk: &mut Desk, topic: InputTopic, payload: &str) {
        let region = Region::new(ALLOCATOR);
        let record = desk.record(topic, payload.as_bytes());
        let decoded = given(region.change());
        desk.apply(&record);
        let applied = given(region.change());
        desk.encode(&record, payload.as_bytes());
        let encoded = given(region.change());
        self.events += 1;
        self.decode += decoded;
        self.apply += applied - decoded;
        self.encode += encoded - applied;
    }
}

const KINDS: [&str; 8] = ["order_intent", "order_amend", "order_cancel", "fill", "canceled", "trade", "quote", "bar"];

/// One round of every kind of record: what is bought in one round is sold in the next.
fn round(desk: &mut Desk, orders: &mut Orders, number: usize, seen: &mut [Seen; 8]) {
    let side = if number.is_multiple_of(2) { "buy" } else { "sell" };
    let batch = orders.batch(BATCH);
    for (place, order) in batch.iter().enumerate() {
        seen[0].step(desk, InputTopic::Intents, &intent(*order, side));
        seen[1].step(desk, InputTopic::Intents, &amend(*order));
        seen[2].step(desk, InputTopic::Intents, &cancel(*order));
        if place.is_multiple_of(4) {
            seen[3].step(desk, InputTopic::Executions, &fill(*order, side));
        }
        seen[4].step(desk, InputTopic::Executions, &canceled(*order));
        seen[5].step(desk, InputTopic::Prices, &trade(order.symbol));
        seen[6].step(desk, InputTopic::Prices, &quote(order.symbol));
    }
    for symbol in 0..20 {
        seen[7].step(desk, InputTopic::Prices, &bar(symbol, desk.now + 86_400_000 * number as i64, 9_000 + number as u64));
    }
    desk.next_round();
}

fn amend(order: Order) -> String {
    let Order { id, account, .. } = order;
    format!(
        r#"{{"event":"order_amend","client_order_id":"I-{id}","amend_id":"M-{id}","account":"A{account}","qty":"20","limit_price":"101"}}"#
    )
}

fn cancel(order: Order) -> String {
    let Order { id, account, .. } = order;
    format!(r#"{{"event":"order_cancel","client_order_id":"I-{id}","account":"A{account}"}}"#)
}

fn quote(symbol: usize) -> String {
    format!(r#"{{"event":"quote","symbol":"S{symbol}","bid":"99.99","ask":"100.01","bid_size":"200","ask_size":"100"}}"#)
}

fn per_event(table: &mut Table) {
    let size = Size { accounts: 50, positions: 20, symbols: 20 };
    let (mut desk, mut orders) = (Desk::new(size, &in_turn(9)), Orders::new(size));
    // A symbol keeps 1,000 bars.
    for day in 0..1_000 {
        for symbol in 0..size.symbols {
            desk.tell(InputTopic::Prices, &bar(symbol, desk.now - 86_400_000 * (1_100 - day), 9_000 + day as u64 % 7));
        }
    }
    let mut unseen = [Seen::default(); 8];
    for number in 0..WARM_UP {
        round(&mut desk, &mut orders, number, &mut unseen);
    }
    let mut seen = [Seen::default(); 8];
    for number in WARM_UP..WARM_UP + COUNTED {
        round(&mut desk, &mut orders, number, &mut seen);
    }
    for (kind, seen) in KINDS.iter().zip(seen) {
        let each = |count: usize| count as f64 / seen.events as f64;
        table.row(&format!("{kind}: allocations per event, decode"), each(seen.decode), 4, Some(0.0));
        table.row(&format!("{kind}: allocations per event, apply"), each(seen.apply), 4, Some(0.0));
        table.row(&format!("{kind}: allocations per event, encode"), each(seen.encode), 4, Some(0.0));
    }
}

fn held(region: &Region<'_, System>) -> f64 {
    let stats = region.change();
    stats.bytes_allocated as f64 - stats.bytes_deallocated as f64
}

/// A desk, and the bytes that each of its accounts holds on the heap: indexes and triggers included, the market too.
fn weighed(positions: usize, rules: usize) -> (Desk, f64) {
    let region = Region::new(ALLOCATOR);
    let desk = Desk::new(Size { accounts: ACCOUNTS, positions, symbols: 20 }, &in_turn(rules));
    let each = held(&region) / ACCOUNTS as f64;
    (desk, each)
}

const ACCOUNTS: usize = 2_000;

fn per_account(table: &mut Table) {
    let (mut desk, full) = weighed(20, 9);
    table.row("bytes per account of 20 positions, 9 rules: as it grew", full, 0, Some(640.0));
    let region = Region::new(ALLOCATOR);
    let copy = desk.gate.clone();
    table.row("bytes per account of 20 positions, 9 rules: a copy, without spare room", held(&region) / ACCOUNTS as f64, 0, None);
    drop(copy);
    let ((_, without), (_, bare)) = (weighed(20, 0), weighed(0, 0));
    table.row("bytes per account of 20 positions, no rules: as it grew", without, 0, None);
    table.row("bytes per account without positions, no rules", bare, 0, None);
    let region = Region::new(ALLOCATOR);
    for id in 1_000..1_016 {
        for account in 0..ACCOUNTS {
            let order = Order { id, account, symbol: account % 20 };
            desk.tell(InputTopic::Intents, &intent(order, "buy"));
            desk.tell(InputTopic::Executions, &fill(order, "buy"));
        }
    }
    table.row("bytes per remembered order with one fill, spare room included", held(&region) / (16 * ACCOUNTS) as f64, 0, None);
}

/// Counts only under `cargo bench`; `cargo test --all-targets` gives no `--bench`.
fn main() {
    if !std::env::args().any(|argument| argument == "--bench") {
        return println!("allocations are counted by: cargo bench --bench allocations");
    }
    let mut table = Table::new("allocations");
    per_event(&mut table);
    per_account(&mut table);
    table.print();
}
