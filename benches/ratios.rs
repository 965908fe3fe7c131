//! What one event costs against another, as ratios of times in the same run (no valgrind).
//!
//! Invariant: the variants take turns in one process, each round begins with another one, and a ratio is the median over rounds of
//! ratios within a round, so a slow moment hits both sides. Deliberately absent: absolute goals, which would depend on the machine.

#[path = "shared/desk.rs"]
mod desk;
#[path = "shared/rules.rs"]
mod rules;
#[path = "shared/table.rs"]
mod table;

use std::hint::black_box;
use std::time::Instant;

use ordergate::domain::InputTopic;

use desk::{Desk, Order, Orders, Size, canceled, intent};
use rules::in_turn;
use table::Table;

/// Intents of one turn.
const BATCH: usize = 256;

/// All 18 fields of an intent, owned.
#[derive(serde::Deserialize)]
#[expect(dead_code, reason = "only read from JSON")]
struct OwnedIntent {
    event: String,
    client_order_id: String,
    account: String,
    strategy: Option<String>,
    symbol: String,
    side: String,
    order_type: String,
    qty: Option<String>,
    notional: Option<String>,
    limit_price: Option<String>,
    stop_price: Option<String>,
    trail_price: Option<String>,
    trail_percent: Option<String>,
    time_in_force: Option<String>,
    reduce_only: Option<bool>,
    all_or_none: Option<bool>,
    extended_hours: Option<bool>,
    ts: Option<String>,
}

/// The same, borrowed: nothing is copied, nothing is allocated.
#[derive(serde::Deserialize)]
#[expect(dead_code, reason = "only read from JSON")]
struct BorrowedIntent<'a> {
    event: &'a str,
    client_order_id: &'a str,
    account: &'a str,
    strategy: Option<&'a str>,
    symbol: &'a str,
    side: &'a str,
    order_type: &'a str,
    qty: Option<&'a str>,
    notional: Option<&'a str>,
    limit_price: Option<&'a str>,
    stop_price: Option<&'a str>,
    trail_price: Option<&'a str>,
    trail_percent: Option<&'a str>,
    time_in_force: Option<&'a str>,
    reduce_only: Option<bool>,
    all_or_none: Option<bool>,
    extended_hours: Option<bool>,
    ts: Option<&'a str>,
}

/// What takes turns: nanoseconds per event of one batch.
type Variant = Box<dyn FnMut() -> f64>;

/// JSON in, decision JSON out.
fn answer<'a>(desk: &'a mut Desk, payload: &str) -> &'a [u8] {
    let record = desk.record(InputTopic::Intents, payload.as_bytes());
    desk.apply(&record);
    desk.encode(&record, payload.as_bytes());
    &desk.out
}

/// What was ordered is cancelled, and time moves on.
fn clean_up(desk: &mut Desk, orders: &[Order]) {
    for order in orders {
        desk.tell(InputTopic::Executions, &canceled(*order));
    }
    desk.next_round();
}

/// Orders go through a desk; only the way from JSON to JSON is timed.
fn through(size: Size, rules: &[String]) -> Variant {
    let (mut desk, mut orders) = (Desk::new(size, rules), Orders::new(size));
    Box::new(move || {
        let batch = orders.batch(BATCH);
        let payloads: Vec<String> = batch.iter().map(|order| intent(*order, "buy")).collect();
        let begun = Instant::now();
        for payload in &payloads {
            black_box(answer(&mut desk, payload));
        }
        let taken = begun.elapsed().as_nanos() as f64;
        clean_up(&mut desk, &batch);
        taken / BATCH as f64
    })
}

/// The same orders are only read, by `serde_json` into a struct.
fn read_by_serde_json(size: Size, read: fn(&str)) -> Variant {
    let mut orders = Orders::new(size);
    Box::new(move || {
        let payloads: Vec<String> = orders.batch(BATCH).iter().map(|order| intent(*order, "buy")).collect();
        let begun = Instant::now();
        for payload in &payloads {
            read(black_box(payload));
        }
        begun.elapsed().as_nanos() as f64 / BATCH as f64
    })
}

fn read_owned(payload: &str) {
    assert!(black_box(serde_json::from_slice::<OwnedIntent>(payload.as_bytes())).is_ok(), "{payload}");
}

fn read_borrowed(payload: &str) {
    assert!(black_box(serde_json::from_slice::<BorrowedIntent<'_>>(payload.as_bytes())).is_ok(), "{payload}");
}

/// Lets variants take turns. Gives each one's times, round by round.
fn alternate(variants: &mut [Variant], rounds: usize) -> Vec<Vec<f64>> {
    const WARM_UP: usize = 20;
    let mut times = vec![vec![0.0; rounds]; variants.len()];
    for round in 0..WARM_UP + rounds {
        for turn in 0..variants.len() {
            let place = (round + turn) % variants.len();
            let time = variants[place]();
            if let Some(round) = round.checked_sub(WARM_UP) {
                times[place][round] = time;
            }
        }
    }
    times
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The median over rounds of one variant's time over another's.
fn ratio(of: &[f64], to: &[f64]) -> f64 {
    median(of.iter().zip(to).map(|(of, to)| of / to).collect())
}

fn against_serde_json(table: &mut Table) {
    let full = Size { accounts: 100, positions: 20, symbols: 20 };
    let light = Size { accounts: 100, positions: 1, symbols: 20 };
    let mut variants = [
        through(full, &in_turn(9)),
        through(light, &in_turn(9)),
        through(light, &[]),
        read_by_serde_json(full, read_owned),
        read_by_serde_json(full, read_borrowed),
    ];
    let times = alternate(&mut variants, 600);
    let ours = [
        ("JSON to decision JSON, 9 rules, 20 positions", Some(1.0)),
        ("JSON to decision JSON, 9 rules, 1 position", None),
        ("JSON to decision JSON, no rules, 1 position", None),
    ];
    for (place, (what, goal)) in ours.into_iter().enumerate() {
        table.row(&format!("{what}: ns"), median(times[place].clone()), 0, None);
        table.row(&format!("{what} / serde_json into 18 `String` fields"), ratio(&times[place], &times[3]), 2, goal);
        table.row(&format!("{what} / serde_json into 18 `&str` fields"), ratio(&times[place], &times[4]), 2, None);
    }
    table.row("serde_json into 18 `String` fields: ns", median(times[3].clone()), 0, None);
    table.row("serde_json into 18 `&str` fields: ns", median(times[4].clone()), 0, None);
}

/// `ORDERGATE_BENCH_ACCOUNTS_MAX` leaves out the larger desks where memory is short (1,000,000 need about 5 GB).
fn by_accounts(table: &mut Table) {
    let most = std::env::var("ORDERGATE_BENCH_ACCOUNTS_MAX").ok().and_then(|text| text.parse().ok()).unwrap_or(1_000_000);
    let sizes: Vec<usize> = [1_000, 10_000, 100_000, 1_000_000].into_iter().filter(|accounts| *accounts <= most).collect();
    let desk = |accounts: &usize| through(Size { accounts: *accounts, positions: 3, symbols: 50 }, &in_turn(9));
    let times = alternate(&mut sizes.iter().map(desk).collect::<Vec<_>>(), 300);
    for (accounts, time) in sizes.iter().zip(&times) {
        table.row(&format!("{accounts} accounts of 3 positions, random ones, 9 rules: ns"), median(time.clone()), 0, None);
        if *accounts > 1_000 {
            table.row(&format!("{accounts} accounts / 1000 accounts"), ratio(time, &times[0]), 2, Some(2.0));
        }
    }
}

/// So many rules, of which the first few cover what is ordered and the others are for one account in a hundred.
fn scoped(count: usize, covering: usize) -> Vec<String> {
    let scope = |place: usize| if place < covering { "" } else { r#","scope":{"account":"A0"}"# };
    (0..).zip(in_turn(count)).map(|(place, rule)| rule + scope(place)).collect()
}

fn by_rules(table: &mut Table) {
    let size = Size { accounts: 100, positions: 5, symbols: 20 };
    let counts = [(1, 1), (10, 10), (100, 100), (100, 10)];
    let times = alternate(&mut counts.map(|(count, covering)| through(size, &scoped(count, covering))), 400);
    for ((count, covering), time) in counts.into_iter().zip(&times) {
        let what = format!("{count} rules, {covering} of them cover the order");
        table.row(&format!("{what}, 5 positions: ns"), median(time.clone()), 0, None);
        if count > 1 {
            table.row(&format!("{what} / 1 rule"), ratio(time, &times[0]), 2, (count == 100).then_some(3.5));
        }
    }
}

/// Measures only under `cargo bench`; `cargo test --all-targets` gives no `--bench`.
fn main() {
    if !std::env::args().any(|argument| argument == "--bench") {
        return println!("ratios are measured by: cargo bench --bench ratios");
    }
    let mut table = Table::new("ratios");
    against_serde_json(&mut table);
    by_rules(&mut table);
    by_accounts(&mut table);
    table.print();
}
