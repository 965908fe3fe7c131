//! The golden vectors of `tests/vectors/decisions.json`: books that are reached through events, one intent,
//! and the decision that must come.
//!
//! Invariant: no back door. A book's start of day, high-water mark and flows come from opening the account,
//! paying in or out and trading another symbol; its positions from fills at their average price while the
//! mark stands there; rules are created last. Deliberately absent: vectors of other systems and of
//! notification delivery (`NOT_NORMATIVE`), and those that scenarios show (`tests/vectors/README.md`).

use std::collections::BTreeSet;

use rust_decimal::Decimal;
use serde_json::{Map, Value, json};

use crate::fold::{self, Run};

/// Formulas of other systems, for comparison, and quiet hours, which are delivery.
const NOT_NORMATIVE: [&str; 4] = ["V17", "V18", "V19", "V22"];
/// Shown by the functions of sizing, statistics and bars (`numeric.rs`).
const NUMERIC: [&str; 6] = ["V01", "V02", "V04", "V05", "V07", "V08"];
/// Short histories, each a scenario.
const SCENARIOS: [(&str, &str); 11] = [
    ("V10", "reservation-prevents-double-spend"),
    ("V11", "same-id-same-content"),
    ("V13", "amend-replaces"),
    ("V14", "vector-v14-amend-keeps-its-price-for-the-collar"),
    ("V16", "price-collar"),
    ("V20", "daily-loss-latch-and-roll"),
    ("V23", "trailing-stop-peak-per-unit"),
    ("V25", "split-leaves-equity"),
    ("V26", "vector-v26-stale-price"),
    ("V28", "self-trade"),
    ("V29", "duplicate-order"),
];

pub fn vectors() -> Vec<Value> {
    let file: Value = serde_json::from_str(include_str!("../vectors/decisions.json")).expect("JSON");
    file["vectors"].as_array().expect("a list").clone()
}

pub fn number(value: &Value) -> Decimal {
    value.as_str().expect("a decimal as text").parse().expect("a decimal")
}

/// An event log in the making; a line each ms, so that all of it lies before the first boundary of the grid.
#[derive(Default)]
struct Log {
    lines: Vec<String>,
}

impl Log {
    fn add(&mut self, topic: &str, payload: Value) {
        let ts = 1_772_800_000_001_i64 + self.lines.len() as i64;
        assert!(ts < 1_772_800_001_000, "a book must not need a boundary");
        self.lines.push(json!({"topic": topic, "ts": ts, "payload": payload}).to_string());
    }

    fn control(&mut self, payload: Value) {
        self.add("gate.control", payload);
    }

    fn trade(&mut self, symbol: &str, price: &Value) {
        self.add("market.prices", json!({"event": "trade", "symbol": symbol, "price": price}));
    }

    fn fill(&mut self, symbol: &str, qty: Decimal, price: Decimal) {
        let side = if qty.is_sign_negative() { "sell" } else { "buy" };
        let exec_id = format!("E{}", self.lines.len());
        self.add(
            "orders.executions",
            json!({"event": "fill", "exec_id": exec_id, "client_order_id": "ELSEWHERE", "account": "ACC1", "symbol": symbol,
                "side": side, "qty": qty.abs().to_string(), "price": price.to_string()}),
        );
    }

    /// Gains (or loses) an amount by a round trip in a symbol that no vector names.
    fn earn(&mut self, amount: Decimal) {
        let (bought, sold) =
            if amount.is_sign_negative() { (Decimal::ONE - amount, Decimal::ONE) } else { (Decimal::ONE, Decimal::ONE + amount) };
        if !amount.is_zero() {
            self.fill("ROUNDTRIP", Decimal::ONE, bought);
            self.fill("ROUNDTRIP", -Decimal::ONE, sold);
        }
    }

    fn run(&self) -> Run {
        Run::of(&fold::records("vector", &self.lines.join("\n")))
    }
}

fn object(value: &Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap_or_default()
}

/// The book of a vector as events.
fn book(vector: &Value) -> Log {
    let state = &vector["state"];
    let mut log = Log::default();
    instruments(&mut log, vector);
    let [cash, start, peak] = ["cash", "sod_equity", "hwm"].map(|name| number(&state[name]));
    let flows = state.get("net_flows_today").map_or(Decimal::ZERO, number);
    log.control(json!({"event": "account_opened", "account": "ACC1", "owner": "u1", "cash": start.to_string()}));
    if !flows.is_zero() {
        log.control(json!({"event": "cash_adjusted", "account": "ACC1", "amount": flows.to_string(), "reason": "vector"}));
    }
    let paid: Decimal = object(&state["positions"])
        .iter()
        .map(|(symbol, held)| number(&held["qty"]) * number(&held["avg"]) * multiplier(state, symbol))
        .sum();
    let rise = (peak - start - flows).max(Decimal::ZERO);
    log.earn(rise);
    log.earn(cash + paid - start - flows - rise);
    positions(&mut log, state);
    correlations(&mut log, state);
    for (symbol, price) in object(&state["marks"]) {
        log.trade(&symbol, &price);
    }
    for order in state["open_orders"].as_array().into_iter().flatten() {
        log.add(
            "orders.intents",
            json!({"event": "order_intent", "client_order_id": order["id"], "account": "ACC1", "symbol": order["sym"], "side": order["side"],
                "order_type": "limit", "qty": order["leaves"], "limit_price": order["px"]}),
        );
    }
    for rule in vector["rules"].as_array().into_iter().flatten() {
        log.control(json!({"event": "rule_created", "rule": rule}));
    }
    log
}

fn multiplier(state: &Value, symbol: &str) -> Decimal {
    state["multipliers"].get(symbol).map_or(Decimal::ONE, number)
}

fn instruments(log: &mut Log, vector: &Value) {
    let (state, intent) = (&vector["state"], &vector["intent"]);
    let mut symbols: BTreeSet<String> =
        ["marks", "sectors", "positions"].iter().flat_map(|name| object(&state[*name])).map(|(symbol, _)| symbol).collect();
    symbols.extend(["ROUNDTRIP".to_owned(), intent["symbol"].as_str().expect("a symbol").to_owned()]);
    for symbol in symbols {
        let mut definition = json!({"event": "instrument_defined", "symbol": symbol, "sector": state["sectors"].get(&symbol)});
        definition["multiplier"] = state["multipliers"].get(&symbol).cloned().unwrap_or_default();
        if intent["symbol"] == symbol {
            definition["lot_size"] = intent["lot"].clone();
        }
        log.control(definition);
    }
}

/// Fills at the average price while the mark, if there is one, stands there: no fill moves the equity.
fn positions(log: &mut Log, state: &Value) {
    for (symbol, held) in object(&state["positions"]) {
        if state["marks"].get(&symbol).is_some() {
            log.trade(&symbol, &held["avg"]);
        }
        log.fill(&symbol, number(&held["qty"]), number(&held["avg"]));
    }
}

/// Bars of two symbols whose returns correlate as given: `r`, and `rho r + sqrt(1 - rho^2) s` with `s`
/// orthogonal to `r`, both alternating.
fn correlations(log: &mut Log, state: &Value) {
    for (pair, rho) in object(&state["corr"]) {
        let (a, b) = pair.split_once('|').expect("A|B");
        let rho: f64 = rho.as_str().expect("a decimal").parse().expect("a decimal");
        let (mut log_a, mut log_b) = (0.0_f64, 0.0_f64);
        for step in 0..25_i32 {
            for (symbol, level) in [(a, log_a), (b, log_b)] {
                let close = format!("{:.8}", 100.0 * level.exp());
                let open_time = i64::from(step) * 86_400_000;
                log.add(
                    "market.prices",
                    json!({"event": "bar", "symbol": symbol, "timeframe": "1d", "open_time": open_time, "open": close, "high": close, "low": close, "close": close}),
                );
            }
            let r = if step % 2 == 0 { 0.01 } else { -0.01 };
            let s = if step % 4 < 2 { 0.01 } else { -0.01 };
            log_a += r;
            log_b += rho * r + (1.0 - rho * rho).sqrt() * s;
        }
    }
}

/// Equal, or equal once rounded to the digits that the vector gives.
fn same_number(wanted: &Value, got: &Value) -> bool {
    match (wanted.as_str().map(str::parse::<Decimal>), got.as_str().map(str::parse::<Decimal>)) {
        (Some(Ok(wanted)), Some(Ok(got))) => wanted == got || wanted == got.round_dp(wanted.scale()),
        _ => wanted == got,
    }
}

fn complaints(vector: &Value) -> Vec<String> {
    let mut log = book(vector);
    let intent = &vector["intent"];
    let order_type = if intent["limit"].is_null() { "market" } else { "limit" };
    log.add(
        "orders.intents",
        json!({"event": "order_intent", "client_order_id": "ASKED", "account": "ACC1", "symbol": intent["symbol"], "side": intent["side"],
            "order_type": order_type, "qty": intent["qty"], "limit_price": intent["limit"]}),
    );
    let run = log.run();
    let line = log.lines.len();
    let earlier: Vec<_> = run.emitted.iter().filter(|emitted| emitted.line < line && emitted.topic == "gate.commands").collect();
    let mut complaints: Vec<String> = earlier.iter().map(|emitted| format!("  a command before the intent: {}", emitted.value)).collect();
    let Some(decision) = run.on("gate.decisions").find(|emitted| emitted.line == line) else {
        complaints.push("  no decision".into());
        return complaints;
    };
    compare_decision(&vector["expect"], &decision.value, &mut complaints);
    compare_commands(&vector["expect"], &run, &mut complaints);
    complaints
}

fn compare_decision(expected: &Value, decision: &Value, complaints: &mut Vec<String>) {
    let reasons = decision["reasons"].as_array().cloned().unwrap_or_default();
    if decision["verdict"] != expected["decision"] || !same_number(&expected["approved_qty"], &decision["approved_qty"]) {
        complaints.push(format!("  expected {} {}, got {decision}", expected["decision"], expected["approved_qty"]));
    }
    if expected.get("equity").is_some_and(|equity| !same_number(equity, &decision["equity"])) {
        complaints.push(format!("  equity: expected {}, got {}", expected["equity"], decision["equity"]));
    }
    if let Some(code) = expected.get("reason")
        && reasons.iter().map(|reason| &reason["code"]).ne([code])
    {
        complaints.push(format!("  reason: expected {code}, got {reasons:?}"));
    }
    let breaches: Vec<&Value> = reasons.iter().filter(|reason| reason["code"] == "RULE_BREACH").collect();
    let wanted = expected["breaches"].as_array().cloned().unwrap_or_default();
    let same = |wanted: &Value, got: &Value| {
        let words = [("rule", "rule_id"), ("type", "rule_type"), ("action", "action"), ("exempt_reducing", "exempt")];
        words.iter().all(|(a, b)| wanted[*a] == got[*b]) && ["current", "limit"].iter().all(|name| same_number(&wanted[*name], &got[*name]))
    };
    if wanted.len() != breaches.len() || !wanted.iter().zip(&breaches).all(|(wanted, got)| same(wanted, got)) {
        complaints.push(format!("  breaches: expected {wanted:?}\n            got      {breaches:?}"));
    }
}

fn compare_commands(expected: &Value, run: &Run, complaints: &mut Vec<String>) {
    let Some(wanted) = expected["commands"].as_array() else { return };
    let got: Vec<Value> = run
        .on("gate.commands")
        .map(|emitted| match emitted.value["event"].as_str() {
            Some("cancel_orders") if emitted.value.get("symbol").is_none() => json!({"cmd": "cancel_all_orders"}),
            Some(event) => {
                json!({"cmd": event, "symbol": emitted.value["symbol"], "side": emitted.value["side"], "qty": emitted.value["qty"],
                "reduce_only": emitted.value["reduce_only"]})
            }
            None => emitted.value.clone(),
        })
        .collect();
    let is_state = |command: &&Value| command["cmd"] == "set_state";
    if wanted.iter().filter(|command| !is_state(command)).ne(&got) {
        complaints.push(format!("  commands: expected {wanted:?}\n            got      {got:?}"));
    }
    for state in wanted.iter().filter(is_state) {
        let word = state["state"].as_str().unwrap_or_default().to_lowercase();
        if run.books()["ACC1"]["state"] != word {
            complaints.push(format!("  state: expected {word}, got {}", run.books()["ACC1"]["state"]));
        }
    }
}

#[test]
fn every_intent_vector_is_decided_as_given() {
    let mut report = String::new();
    for vector in vectors().iter().filter(|vector| vector["kind"] == "intent") {
        let complaints = complaints(vector);
        if !complaints.is_empty() {
            report.push_str(&format!("\n=== {} {}\n{}", vector["id"], vector["why"], complaints.join("\n")));
        }
    }
    assert!(report.is_empty(), "{report}");
}

#[test]
fn every_value_vector_has_its_place() {
    for vector in vectors().iter().filter(|vector| vector["kind"] == "value") {
        let id = vector["id"].as_str().expect("an id");
        let scenario = SCENARIOS.iter().find(|(vector, _)| *vector == id).map(|(_, scenario)| scenario);
        let has_log = scenario.is_some_and(|name| {
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/vectors/scenarios/{name}.jsonl")).exists()
        });
        assert!(has_log || NUMERIC.contains(&id) || NOT_NORMATIVE.contains(&id), "{id} is nowhere");
    }
}
