//! What the control plane costs: dry runs, portfolio risk at 100 positions, searches over a million decisions, logins, a thousand WebSockets.
//!
//! Not run by default: `cargo test --release --test control_figures -- --ignored --nocapture`. Figures are printed, not judged.

#![expect(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

mod daemon;
#[path = "control_figures/live.rs"]
mod live;
#[path = "control_figures/load.rs"]
mod load;

use std::sync::Arc;
use std::time::{Duration, Instant};

use daemon::{Daemon, line};
use ordergate::control::decisions::{Decisions, Filter, IndexOptions};
use ordergate::control::replica::{Listener, Reached};
use ordergate::domain::{AccountId, InputTopic, ReasonCode, Source, Symbol, Verdict};
use ordergate::embedded::{EmbeddedLog, EmbeddedOptions};
use ordergate::log::{OutputRecord, OutputTag, OutputTopic};
use serde_json::{Value, json};
use tempfile::TempDir;

fn tell(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |part: usize| times[(times.len() * part / 100).min(times.len() - 1)].as_secs_f64() * 1e3;
    println!("{what}: p50 {:.2} ms, p99 {:.2} ms, {} times", at(50), at(99), times.len());
}

fn measure(what: &str, times: usize, mut work: impl FnMut(usize)) {
    let one = |number| {
        let begun = Instant::now();
        work(number);
        begun.elapsed()
    };
    tell(what, (0..times).map(one).collect());
}

/// An account with a hundred positions, a year of bars for each, and a rule of each kind.
fn positions(account: &str) -> Vec<String> {
    let opened = format!(r#"{{"event":"account_opened","account":"{account}","owner":"u1","cash":"10000000"}}"#);
    let (mut parts, mut lines) = (Vec::new(), line("gate.control", account, &opened));
    for number in 0..100 {
        let symbol = format!("S{number}");
        let sector = number % 10;
        lines +=
            &line("gate.control", &symbol, &format!(r#"{{"event":"instrument_defined","symbol":"{symbol}","sector":"SECTOR{sector}"}}"#));
        for day in 0..260_i64 {
            let close = 10_000 + (day * day * (37 + number) + day * 11) % 501;
            let open_time = 1_740_000_000_000_i64 + day * 86_400_000;
            let close = format!("{}.{:02}", close / 100, close % 100);
            let bar = format!(r#"{{"event":"bar","symbol":"{symbol}","timeframe":"1d","open_time":{open_time},"close":"{close}"}}"#);
            lines += &line("market.prices", &symbol, &bar);
        }
        lines += &line("market.prices", &symbol, &format!(r#"{{"event":"trade","symbol":"{symbol}","price":"100"}}"#));
        let fill = format!(
            r#"{{"event":"fill","exec_id":"E-{number}","client_order_id":"X-{number}","account":"{account}","symbol":"{symbol}","side":"buy","qty":"100","price":"99"}}"#
        );
        lines += &line("orders.executions", account, &fill);
        if lines.len() > 1 << 20 {
            parts.push(std::mem::take(&mut lines));
        }
    }
    for (number, (kind, threshold, unit)) in [
        ("max_position_size", "9", "percent"),
        ("max_leverage", "9", "ratio"),
        ("position_limit", "500", "count"),
        ("sector_limit", "9", "percent"),
        ("max_daily_loss", "9", "percent"),
        ("max_drawdown", "9", "percent"),
        ("max_correlation", "0.99", "ratio"),
        ("stop_loss", "9", "percent"),
        ("take_profit", "9", "percent"),
    ]
    .into_iter()
    .enumerate()
    {
        let rule = format!(
            r#"{{"event":"rule_created","rule":{{"id":"r{number}","type":"{kind}","threshold":"{threshold}","unit":"{unit}","action":"block"}}}}"#
        );
        lines += &line("gate.control", "rule", &rule);
    }
    parts.push(lines);
    parts
}

#[test]
#[ignore = "figures, not judgement"]
fn dry_runs_and_portfolio_risk_at_a_hundred_positions() {
    let dir = TempDir::new().unwrap();
    let gate = Daemon::start(dir.path(), &[]);
    for lines in positions("ACC1") {
        assert_eq!(gate.records(&lines).0, 200);
    }
    gate.intent(r#"{"event":"order_cancel","client_order_id":"NONE","account":"ACC1"}"#);
    let intent = json!({"symbol": "S1", "side": "buy", "order_type": "limit", "qty": "10", "limit_price": "100"});
    let body = json!({"account": "ACC1", "intent": intent}).to_string();
    assert_eq!(gate.get("/api/v1/risk-rules/portfolio-risk?account=ACC1").0, 200);
    measure("GET /healthz", 300, |_| drop(gate.get("/healthz")));
    measure("POST /risk-rules/test, 100 positions, 9 rules", 300, |_| {
        assert_eq!(gate.post("/api/v1/risk-rules/test", "application/json", &body).0, 200);
    });
    measure("GET /risk-rules/portfolio-risk, 100 positions, 9 rules", 100, |_| {
        assert_eq!(gate.get("/api/v1/risk-rules/portfolio-risk?account=ACC1").0, 200);
    });
}

fn decision(seq: u64) -> OutputRecord {
    let (account, symbol) = (seq * 7 % 1000, seq * 13 % 200);
    let (verdict, reasons) = match seq % 10 {
        0 => (
            "block",
            r#"{"code":"RULE_BREACH","rule_id":"r-1","rule_type":"max_leverage","action":"block","current":"2.1","limit":"2","unit":"ratio","utilization":"1.05","exempt":false,"observed":false,"latched":false}"#,
        ),
        1 if seq.is_multiple_of(100_001) => ("block", r#"{"code":"SELF_TRADE","message":"the order would trade with the account's own"}"#),
        _ => ("allow", ""),
    };
    let at = 1_772_811_000_000 + seq;
    let payload = format!(
        r#"{{"event":"decision","decision_id":"0-{seq}","client_order_id":"I-{seq}","account":"ACC{account}","intent":"order","symbol":"SYM{symbol}","side":"buy","verdict":"{verdict}","requested_qty":"100","approved_qty":"100","reasons":[{reasons}],"equity":"1000000.5","shard":0,"seq":{seq},"at":{at},"source":{{"topic":"orders.intents","partition":0,"offset":{seq}}}}}"#
    );
    let source = Source { topic: InputTopic::Intents, partition: 0, offset: seq };
    OutputRecord {
        topic: OutputTopic::Decisions,
        tag: OutputTag { shard: 0, seq, index: 0 },
        source,
        key: None,
        payload: payload.into_bytes(),
    }
}

#[test]
#[ignore = "figures, not judgement"]
fn searches_over_a_million_decisions() {
    let count: u64 = std::env::var("ORDERGATE_DECISIONS").ok().and_then(|text| text.parse().ok()).unwrap_or(1_000_000);
    let dir = TempDir::new().unwrap();
    let log = EmbeddedLog::open(EmbeddedOptions::new(dir.path())).unwrap();
    let index = Decisions::open(IndexOptions::new(dir.path().join("decisions"), 1), Arc::new(log.clone()));
    index.begins(0, &Reached::default());
    let begun = Instant::now();
    for first in (1..=count).step_by(100) {
        let outputs: Vec<OutputRecord> = (first..(first + 100).min(count + 1)).map(decision).collect();
        let reached = Reached { seq: first + outputs.len() as u64 - 1, ledger_next: first / 100 + 1, ..Reached::default() };
        index.folded(0, &reached, &outputs);
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "indexed {count} decisions in {seconds:.1} s: {:.0} a second, {} bytes on the disk",
        count as f64 / seconds,
        index.coverage().bytes
    );
    let account = |number: usize| Filter {
        accounts: Some([AccountId::parse(format!("ACC{number}").as_bytes()).unwrap()].into()),
        ..Filter::default()
    };
    let search = |filter: &Filter, limit| index.search(filter, None, limit).unwrap().unwrap().decisions.len();
    measure("the newest 50", 200, |_| assert_eq!(search(&Filter::default(), 50), 50));
    measure("50 of one account of 1000", 100, |number| assert!(search(&account(number * 7 % 1000), 50) > 0));
    let blocked = Filter { verdict: Some(Verdict::Block), symbol: Symbol::parse(b"SYM10"), ..Filter::default() };
    measure("50 blocks of one symbol of 200", 50, |_| assert!(search(&blocked, 50) > 0));
    let rare = Filter { code: Some(ReasonCode::SelfTrade), ..Filter::default() };
    measure("a code that is there 10 times", 50, |_| assert!(search(&rare, 50) <= 50));
    let middle = 1_772_811_000_000 + (count / 2).cast_signed();
    let past = Filter { from: Some(middle), to: Some(middle + 1_000), ..Filter::default() };
    measure("50 of a second in the middle", 100, |_| assert_eq!(search(&past, 50), 50));
    measure("nothing", 50, |_| assert_eq!(search(&account(5_000), 50), 0));
    measure("one by its id", 200, |number| assert!(index.find(0, 1 + number as u64 * 37).unwrap().is_some()));
    index.stop();
}

#[test]
#[ignore = "figures, not judgement"]
fn searches_over_http_of_a_daemon_with_a_million_decisions() {
    let count: u64 = std::env::var("ORDERGATE_DECISIONS").ok().and_then(|text| text.parse().ok()).unwrap_or(1_000_000);
    let dir = TempDir::new().unwrap();
    let gate = Daemon::start(dir.path(), &[]);
    let mut lines = line("gate.control", "gate", r#"{"event":"gate_settings_set","max_intent_age_ms":0,"max_price_age_ms":0}"#);
    lines += &line("gate.control", "AAPL", r#"{"event":"instrument_defined","symbol":"AAPL"}"#);
    lines += &line("market.prices", "AAPL", r#"{"event":"trade","symbol":"AAPL","price":"100"}"#);
    for account in 0..load::ACCOUNTS {
        let opened = format!(r#"{{"event":"account_opened","account":"ACC{account}","owner":"u1","cash":"100000000"}}"#);
        lines += &line("gate.control", "account", &opened);
    }
    // One in ten is allowed; the others are of a symbol that there is not.
    let intent = |number: u64| if number % 10 == 3 { load::intent(number) } else { load::intent(number).replace("AAPL", "NOPE") };
    let begun = Instant::now();
    for first in (0..count).step_by(1_000) {
        lines.extend(
            (first..first + 1_000).map(|number| line("orders.intents", &format!("ACC{}", number % load::ACCOUNTS), &intent(number))),
        );
        assert_eq!(gate.records(&std::mem::take(&mut lines)).0, 200);
    }
    // The last one waits for all before it, and may ask again.
    let last = loop {
        let (status, decision) = gate.intent(&load::intent(count));
        if status == 200 {
            break decision;
        }
    };
    let seconds = begun.elapsed().as_secs_f64();
    let (id, at) = (last["decision_id"].as_str().unwrap(), last["at"].as_i64().unwrap());
    let indexed = || gate.get(&format!("/api/v1/decisions/{id}")).0 == 200;
    while !indexed() {
        std::thread::sleep(Duration::from_millis(10));
    }
    let (caught_up, (_, resident)) = (begun.elapsed().as_secs_f64(), load::used(gate.child.id()));
    println!("{count} intents decided in {seconds:.0} s, indexed after {caught_up:.0} s; {resident:.0} MiB");
    let middle = at - (seconds * 500.0) as i64;
    for (what, query) in [
        ("the newest 50", "limit=50".to_owned()),
        ("50 of one account of 1000", "account=ACC13&limit=50".to_owned()),
        ("50 allowed", "verdict=allow&limit=50".to_owned()),
        ("50 of a symbol, allowed, of one account", "account=ACC13&verdict=allow&symbol=AAPL&limit=50".to_owned()),
        ("50 of a second in the middle", format!("from={middle}&to={}&limit=50", middle + 1_000)),
        ("a code that there is not", "code=SELF_TRADE&limit=50".to_owned()),
    ] {
        measure(&format!("GET /decisions, {what}"), 100, |_| {
            let (status, body) = gate.get(&format!("/api/v1/decisions?{query}"));
            assert_eq!(status, 200, "{body}");
            let found = serde_json::from_str::<Value>(&body).unwrap()["items"].as_array().unwrap().len();
            assert_eq!(found, if query.starts_with("code") { 0 } else { 50 }, "{what}: {last}");
        });
    }
    measure("GET /decisions/{id}", 200, |number| {
        let seq = last["seq"].as_u64().unwrap() - number as u64 * 4_001;
        assert_eq!(gate.get(&format!("/api/v1/decisions/0-{seq}")).0, 200);
    });
}
