//! `GET /risk-rules/portfolio-risk` against arithmetic of its own, from the records that were sent.
//!
//! Invariant: nothing of the crate computes anything here; money is counted by hand, statistics are written out.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test ends at what it did not expect")]

mod daemon;

use daemon::{Daemon, line};
use serde_json::{Value, json};
use tempfile::TempDir;

const DAYS: i64 = 80;
const DAY_MS: i64 = 86_400_000;
const FIRST_DAY: i64 = 1_760_000_000_000 / DAY_MS * DAY_MS;
/// The index future has no bar of this day.
const MISSING: i64 = 30;

/// Closes by an integer recipe, in cents.
fn close(symbol: &str, day: i64) -> i64 {
    let (base, a, b) = match symbol {
        "AAPL" => (10_000, 37, 11),
        "XOM" => (6_000, 53, 7),
        _ => (400_000, 41, 19),
    };
    let swing = base / 40;
    base + (day * day * a + day * b) % (2 * swing + 1) - swing
}

fn closes(symbol: &str) -> Vec<(i64, f64)> {
    let days = (0..DAYS).filter(|day| symbol != "ES" || *day != MISSING);
    days.map(|day| (day, close(symbol, day) as f64 / 100.0)).collect()
}

fn send(gate: &Daemon) {
    let mut lines = String::new();
    for (symbol, sector, multiplier) in [("AAPL", "TECH", "1"), ("XOM", "ENERGY", "1"), ("ES", "INDEX", "50")] {
        let defined = format!(r#"{{"event":"instrument_defined","symbol":"{symbol}","sector":"{sector}","multiplier":"{multiplier}"}}"#);
        lines += &line("gate.control", symbol, &defined);
        for (day, close) in closes(symbol) {
            let open_time = FIRST_DAY + day * DAY_MS;
            let bar = format!(r#"{{"event":"bar","symbol":"{symbol}","timeframe":"1d","open_time":{open_time},"close":"{close}"}}"#);
            lines += &line("market.prices", symbol, &bar);
        }
    }
    lines += &line("gate.control", "ACC1", r#"{"event":"account_opened","account":"ACC1","owner":"u1","cash":"1000000"}"#);
    for (symbol, price) in [("AAPL", "100"), ("XOM", "60"), ("ES", "4000")] {
        lines += &line("market.prices", symbol, &format!(r#"{{"event":"trade","symbol":"{symbol}","price":"{price}"}}"#));
    }
    for (number, symbol, side, qty, price, fee) in
        [(1, "AAPL", "buy", 1000, 100, 1), (2, "XOM", "sell", 500, 60, 0), (3, "ES", "buy", 2, 4000, 0)]
    {
        let fill = format!(
            r#"{{"event":"fill","exec_id":"E-{number}","client_order_id":"X-{number}","account":"ACC1","symbol":"{symbol}","side":"{side}","qty":"{qty}","price":"{price}","fee":"{fee}"}}"#
        );
        lines += &line("orders.executions", "ACC1", &fill);
    }
    lines += &line("gate.control", "ACC1", r#"{"event":"cash_adjusted","account":"ACC1","amount":"10000","reason":"deposit"}"#);
    for (symbol, price) in [("ES", "3980"), ("XOM", "61"), ("AAPL", "101")] {
        lines += &line("market.prices", symbol, &format!(r#"{{"event":"trade","symbol":"{symbol}","price":"{price}"}}"#));
    }
    for rule in [
        r#"{"id":"lev","type":"max_leverage","threshold":"2","unit":"ratio","action":"block"}"#,
        r#"{"id":"tech","type":"sector_limit","threshold":"40","unit":"percent","action":"alert","scope":{"sectors":["TECH"]}}"#,
        r#"{"id":"day","type":"max_daily_loss","threshold":"5000","unit":"dollars","action":"block"}"#,
        r#"{"id":"dd","type":"max_drawdown","threshold":"10","unit":"percent","action":"block"}"#,
        r#"{"id":"rho","type":"max_correlation","threshold":"0.95","unit":"ratio","action":"alert"}"#,
    ] {
        lines += &line("gate.control", "rule", &format!(r#"{{"event":"rule_created","rule":{rule}}}"#));
    }
    let (status, answer) = gate.records(&lines);
    assert_eq!(status, 200, "{answer}");
    let intent = r#"{"event":"order_intent","client_order_id":"I-1","account":"ACC1","symbol":"AAPL","side":"buy","order_type":"limit","qty":"100","limit_price":"102"}"#;
    assert_eq!(gate.intent(intent).1["verdict"], "allow");
}

fn number(value: &Value) -> f64 {
    value.as_str().unwrap_or_else(|| panic!("{value} is no decimal")).parse().unwrap()
}

fn close_to(value: &Value, expected: f64, tolerance: f64, what: &str) {
    assert!((number(value) - expected).abs() <= tolerance, "{what}: {value} is not {expected}");
}

// cash: 1000000 - 100000 - 1 + 30000 - 400000 + 10000
const CASH: f64 = 539_999.0;
const AAPL: f64 = 101_000.0;
const XOM: f64 = -30_500.0;
const ES: f64 = 398_000.0;
const EQUITY: f64 = CASH + AAPL + XOM + ES;
/// The working order adds 100 at its limit of 102.
const V_AAPL: f64 = AAPL + 10_200.0;
const GROSS: f64 = V_AAPL + 30_500.0 + ES;

#[test]
fn every_number_is_that_of_arithmetic_by_hand() {
    let dir = TempDir::new().unwrap();
    let gate = Daemon::start(dir.path(), &[]);
    send(&gate);
    let (status, text) = gate.get("/api/v1/risk-rules/portfolio-risk?account=ACC1");
    assert_eq!(status, 200, "{text}");
    let risk: Value = serde_json::from_str(&text).unwrap();
    for (field, exact) in [
        ("cash", "539999"),
        ("equity", "1008499"),
        ("gross_exposure", "539700"),
        ("long_exposure", "499000"),
        ("short_exposure", "-30500"),
        ("net_exposure", "468500"),
        ("start_of_day_equity", "1000000"),
        ("flows", "10000"),
        ("daily_pnl", "-1501"),
    ] {
        assert_eq!(risk[field], exact, "{field}: {risk}");
    }
    assert_eq!((EQUITY, GROSS), (1_008_499.0, 539_700.0));
    assert_eq!(risk["unknown"], json!({}));
    close_to(&risk["leverage"], GROSS / EQUITY, 1e-8, "leverage");
    close_to(&risk["daily_pnl_percent"], -1_501.0 / 1_010_000.0 * 100.0, 1e-8, "daily P&L");
    // The deposit scales the mark of 1000000 by 1009999 / 999999.
    let hwm = 1_000_000.0 * 1_009_999.0 / 999_999.0;
    close_to(&risk["high_water_mark"], hwm, 1e-6, "high-water mark");
    close_to(&risk["drawdown"], hwm - EQUITY, 1e-6, "drawdown");
    close_to(&risk["drawdown_percent"], (hwm - EQUITY) / hwm * 100.0, 1e-8, "drawdown");
    concentrations(&risk);
    tails(&risk);
    correlations(&risk);
    rules(&risk, hwm);
    headroom(&risk);
}

fn concentrations(risk: &Value) {
    for (list, names) in [("symbols", ["AAPL", "XOM", "ES"]), ("sectors", ["TECH", "ENERGY", "INDEX"])] {
        for (name, value, net) in [(names[0], V_AAPL, AAPL), (names[1], 30_500.0, XOM), (names[2], ES, ES)] {
            let share = risk[list].as_array().unwrap().iter().find(|share| share["name"] == name).expect("it is there");
            close_to(&share["value"], value, 0.0, name);
            close_to(&share["net"], net, 0.0, name);
            close_to(&share["percent_of_equity"], value / EQUITY * 100.0, 1e-8, name);
            close_to(&share["percent_of_gross"], value / GROSS * 100.0, 1e-8, name);
        }
    }
}

/// What the portfolio would have returned, day by day, on the days that all three have.
fn returns() -> Vec<f64> {
    let days: Vec<i64> = (0..DAYS).filter(|day| *day != MISSING).collect();
    let change = |symbol: &str, pair: &[i64]| close(symbol, pair[1]) as f64 / close(symbol, pair[0]) as f64 - 1.0;
    days.windows(2).map(|pair| (AAPL * change("AAPL", pair) + XOM * change("XOM", pair) + ES * change("ES", pair)) / EQUITY).collect()
}

fn tails(risk: &Value) {
    let returns = returns();
    assert_eq!(risk["returns"], returns.len());
    let mut sorted = returns.clone();
    sorted.sort_by(f64::total_cmp);
    let count = returns.len() as f64;
    let mean = returns.iter().sum::<f64>() / count;
    let deviation = (returns.iter().map(|it| (it - mean).powi(2)).sum::<f64>() / (count - 1.0)).sqrt();
    for (place, confidence, tail, normal) in [(0, 95, 0.05, 1.644_853_626_951_472_7), (1, 99, 0.01, 2.326_347_874_040_840_8)] {
        let at = tail * (count - 1.0);
        let (low, part) = (at.floor() as usize, at.fract());
        let quantile = sorted[low] + (sorted[low + 1] - sorted[low]) * part;
        let worse: Vec<f64> = sorted.iter().copied().filter(|it| *it <= quantile).collect();
        let shortfall = -worse.iter().sum::<f64>() / worse.len() as f64;
        let parametric = normal * deviation - mean;
        let told = &risk["value_at_risk"][place];
        assert_eq!(told["confidence"], confidence);
        for (field, ratio) in [("historical", -quantile), ("expected_shortfall", shortfall), ("parametric", parametric)] {
            close_to(&told[format!("{field}_ratio")], ratio, 1e-8, field);
            close_to(&told[field], ratio * EQUITY, 1e-5, field);
        }
    }
}

/// Pearson's correlation of log returns between consecutive common closes of each one's last 60 bars.
fn rho(a: &str, b: &str) -> f64 {
    let last = |symbol: &str| closes(symbol).split_off(closes(symbol).len() - 60);
    let (a, b) = (last(a), last(b));
    let common: Vec<(f64, f64)> = a.iter().filter_map(|(day, x)| b.iter().find(|(other, _)| other == day).map(|(_, y)| (*x, *y))).collect();
    let logs: Vec<(f64, f64)> = common.windows(2).map(|pair| ((pair[1].0 / pair[0].0).ln(), (pair[1].1 / pair[0].1).ln())).collect();
    let count = logs.len() as f64;
    let (mx, my) = (logs.iter().map(|it| it.0).sum::<f64>() / count, logs.iter().map(|it| it.1).sum::<f64>() / count);
    let sum = |f: fn(f64, f64) -> f64| logs.iter().map(|(x, y)| f(x - mx, y - my)).sum::<f64>();
    sum(|x, y| x * y) / (sum(|x, _| x * x).sqrt() * sum(|_, y| y * y).sqrt())
}

fn correlations(risk: &Value) {
    let names: Vec<&str> = risk["correlations"]["symbols"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    assert_eq!(names.len(), 3);
    for (row, a) in names.iter().enumerate() {
        for (column, b) in names.iter().enumerate() {
            let told = &risk["correlations"]["matrix"][row][column];
            close_to(told, if a == b { 1.0 } else { rho(a, b) }, 2e-9, &format!("{a} {b}"));
        }
    }
}

fn rules(risk: &Value, hwm: f64) {
    let used = |id: &str, symbol: Option<&str>| {
        let of = |rule: &&Value| rule["rule_id"] == id && symbol.is_none_or(|symbol| rule["symbol"] == symbol);
        number(&risk["rules"].as_array().unwrap().iter().find(of).expect("it is measured")["utilization"])
    };
    let near = |told: f64, expected: f64| assert!((told - expected).abs() < 2e-8, "{told} is not {expected}");
    near(used("lev", None), GROSS / EQUITY / 2.0);
    near(used("tech", None), V_AAPL / (EQUITY * 0.4));
    near(used("day", None), 1_501.0 / 5_000.0);
    near(used("dd", None), (hwm - EQUITY) / hwm * 10.0);
    let worst = |symbol: &str, sign: f64, others: [(&str, f64); 2]| {
        others.iter().map(|(other, side)| rho(symbol, other) * sign * side).fold(f64::MIN, f64::max) / 0.95
    };
    near(used("rho", Some("AAPL")), worst("AAPL", 1.0, [("XOM", -1.0), ("ES", 1.0)]));
    near(used("rho", Some("XOM")), worst("XOM", -1.0, [("AAPL", 1.0), ("ES", 1.0)]));
}

fn headroom(risk: &Value) {
    let room = 2.0 * EQUITY - GROSS;
    let told = |symbol: &str, side: &str| {
        let of = |room: &&Value| room["symbol"] == symbol && room["side"] == side;
        let found = risk["headroom"].as_array().unwrap().iter().find(of).expect("it is there");
        assert_eq!(found["binds"]["rule_id"], "lev", "{found}");
        number(&found["qty"])
    };
    let floor = |amount: f64, price: f64| (amount / price).floor();
    assert_eq!(told("AAPL", "buy"), floor(room, 101.0));
    assert_eq!(told("ES", "buy"), floor(room, 3_980.0 * 50.0));
    assert_eq!(told("XOM", "sell"), floor(room, 61.0));
    // What is short is bought back at no cost; beyond it the other side must exceed what it is worth now.
    assert_eq!(told("XOM", "buy"), 500.0 + floor(room + 30_500.0, 61.0));
    assert_eq!(told("AAPL", "sell"), 1_000.0 + floor(room + V_AAPL, 101.0));
}

/// Every pair that is `null`, with its reason.
fn reasons(risk: &Value) -> Vec<(String, String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let mut told = Vec::new();
    for group in risk["correlations"]["unknown"].as_array().unwrap_or_else(|| panic!("{risk}")) {
        told.extend(group["with"].as_array().unwrap().iter().map(|other| (text(&group["symbol"]), text(other), text(&group["reason"]))));
    }
    let names: Vec<String> = risk["correlations"]["symbols"].as_array().unwrap().iter().map(text).collect();
    let mut missing = Vec::new();
    for (row, a) in names.iter().enumerate() {
        let of = names.iter().enumerate().skip(row + 1).filter(|(column, _)| risk["correlations"]["matrix"][row][column].is_null());
        missing.extend(of.map(|(_, b)| (a.clone(), b.clone())));
    }
    let pairs: Vec<(String, String)> = told.iter().map(|(a, b, _)| (a.clone(), b.clone())).collect();
    assert_eq!(pairs, missing, "each pair that is null is told once, and no other");
    told
}

fn uncorrelated<S>(gate: &Daemon, without: &Value, settle: &impl Fn(&str) -> S, read: &impl Fn() -> Value) {
    let all_for = |risk: &Value, reason: &str| {
        let told = reasons(risk);
        assert_eq!(told.len(), 3, "{risk}");
        assert!(told.iter().all(|(a, b, why)| (a == "NEW" || b == "NEW") && why == reason), "{told:?}");
    };
    all_for(without, "HISTORY_UNAVAILABLE");
    let bars = |days: std::ops::Range<i64>| {
        let bar = |day: i64| {
            let open_time = FIRST_DAY + day * DAY_MS;
            line(
                "market.prices",
                "NEW",
                &format!(r#"{{"event":"bar","symbol":"NEW","timeframe":"1d","open_time":{open_time},"close":"10"}}"#),
            )
        };
        assert_eq!(gate.records(&days.map(bar).collect::<String>()).0, 200);
        settle("NONE");
        read()
    };
    all_for(&bars(0..10), "HISTORY_TOO_SHORT");
    all_for(&bars(10..DAYS), "NO_VARIANCE");
}

#[test]
fn a_headroom_that_only_what_can_be_held_ends_says_so() {
    let dir = TempDir::new().unwrap();
    let gate = Daemon::start(dir.path(), &[]);
    let fill =
        r#"{"event":"fill","exec_id":"E-1","client_order_id":"X","account":"ACC1","symbol":"HELD","side":"buy","qty":"5","price":"1"}"#;
    let lines = line("gate.control", "HELD", r#"{"event":"instrument_defined","symbol":"HELD"}"#)
        + &line("gate.control", "NONE", r#"{"event":"instrument_defined","symbol":"NONE"}"#)
        + &line("gate.control", "ACC1", r#"{"event":"account_opened","account":"ACC1","owner":"u1","cash":"1000"}"#)
        + &line("market.prices", "HELD", r#"{"event":"trade","symbol":"HELD","price":"1"}"#)
        + &line("market.prices", "NONE", r#"{"event":"trade","symbol":"NONE","price":"1"}"#)
        + &line("orders.executions", "ACC1", fill);
    assert_eq!(gate.records(&lines).0, 200);
    gate.intent(r#"{"event":"order_cancel","client_order_id":"NONE","account":"ACC1"}"#);
    let (status, text) = gate.get("/api/v1/risk-rules/portfolio-risk?account=ACC1&symbols=HELD,NONE");
    assert_eq!(status, 200, "{text}");
    let risk: Value = serde_json::from_str(&text).unwrap();
    let told: Vec<[&Value; 4]> = risk["headroom"]
        .as_array()
        .unwrap()
        .iter()
        .map(|room| [&room["symbol"], &room["side"], &room["qty"], room.pointer("/binds/code").unwrap_or(&Value::Null)])
        .collect();
    // Five are held, and with the largest quantity that there is they could not be counted any more.
    let ends = |symbol: &str, why: Value| ["buy", "sell"].map(|side| json!([symbol, side, null, why]));
    let expected = [ends("HELD", json!("VALUE_OUT_OF_RANGE")), ends("NONE", Value::Null)].concat();
    assert_eq!(json!(told), json!(expected), "{risk}");
}

#[test]
fn what_is_not_known_is_null_with_its_reason_and_never_nothing() {
    let dir = TempDir::new().unwrap();
    let gate = Daemon::start(dir.path(), &[]);
    send(&gate);
    let defined = line("gate.control", "NEW", r#"{"event":"instrument_defined","symbol":"NEW"}"#);
    let fill =
        r#"{"event":"fill","exec_id":"E-9","client_order_id":"X-9","account":"ACC1","symbol":"NEW","side":"buy","qty":"1","price":"10"}"#;
    assert_eq!(gate.records(&(defined + &line("orders.executions", "ACC1", fill))).0, 200);
    // An intent's decision says that what lies before it is applied.
    let settle = |id: &str| gate.intent(&format!(r#"{{"event":"order_cancel","client_order_id":"{id}","account":"ACC1"}}"#));
    settle("NONE");
    let read = || serde_json::from_str::<Value>(&gate.get("/api/v1/risk-rules/portfolio-risk?account=ACC1").1).unwrap();
    let blind = read();
    for field in [
        "equity",
        "gross_exposure",
        "net_exposure",
        "leverage",
        "daily_pnl",
        "daily_pnl_percent",
        "drawdown",
        "drawdown_percent",
        "value_at_risk",
        "returns",
    ] {
        assert_eq!(blind[field], Value::Null, "{field}");
        let why = blind["unknown"][field].as_str().unwrap_or_else(|| panic!("{field} has no reason: {blind}"));
        assert!(why.contains("PRICE_UNAVAILABLE") && why.contains("NEW"), "{field}: {why}");
    }
    assert_eq!(blind["cash"], "539989");
    let lev = blind["rules"].as_array().unwrap().iter().find(|rule| rule["rule_id"] == "lev").unwrap();
    assert_eq!((&lev["utilization"], &lev["reason"]), (&Value::Null, &json!("PRICE_UNAVAILABLE")));
    gate.records(&line("market.prices", "NEW", r#"{"event":"trade","symbol":"NEW","price":"10"}"#));
    settle("NONE");
    let seen = read();
    assert_eq!((&seen["equity"], &seen["value_at_risk"]), (&json!("1008499"), &Value::Null));
    assert!(seen["unknown"]["value_at_risk"].as_str().unwrap().contains("HISTORY_UNAVAILABLE: no 1d bars of NEW"), "{seen}");
    uncorrelated(&gate, &seen, &settle, &read);
    let (status, _) = gate.get("/api/v1/risk-rules/portfolio-risk?account=NOBODY");
    assert_eq!(status, 404);
    assert_eq!(gate.get("/api/v1/risk-rules/portfolio-risk").0, 400);
}
