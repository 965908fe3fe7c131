//! What was answered can be read, and every write says where it stands.

#![expect(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

mod daemon;

use std::time::Instant;

use daemon::{Daemon, line, opening, order};
use serde_json::{Value, json};

const ROUNDS: usize = 60;

/// Status, `X-Ordergate-Position`, body.
fn send(gate: &Daemon, path: &str, kind: &str, body: &str) -> (u16, Option<String>, Value) {
    let mut answer = gate.agent.post(format!("http://{}{path}", gate.http)).content_type(kind).send(body).unwrap();
    let position = answer.headers().get("x-ordergate-position").map(|value| value.to_str().unwrap().to_owned());
    let text = answer.body_mut().read_to_string().unwrap();
    (answer.status().as_u16(), position, serde_json::from_str(&text).unwrap_or_default())
}

fn read(gate: &Daemon, path: &str) -> Value {
    let (status, text) = gate.get(path);
    assert_eq!(status, 200, "{path}: {text}");
    serde_json::from_str(&text).unwrap()
}

#[test]
fn what_was_appended_is_in_what_is_read_next_books_charts_and_the_inbox() {
    let dir = tempfile::tempdir().unwrap();
    let gate = Daemon::start(dir.path(), &[]);
    let (status, position, answer) = send(&gate, "/api/v1/records", "application/x-ndjson", &opening());
    assert_eq!(status, 200, "{answer}");
    let position = position.unwrap();
    assert!(position.contains("gate.control:0:") && position.contains("market.prices:0:"), "{position}");
    let mut stale = Vec::new();
    let begun = Instant::now();
    for round in 0..ROUNDS {
        let price = format!("{}", 100 + round % 7);
        let trade = line("market.prices", "AAPL", &format!(r#"{{"event":"trade","symbol":"AAPL","price":"{price}","size":"1"}}"#));
        let cash = line("gate.control", "ACC1", r#"{"event":"cash_adjusted","account":"ACC1","amount":"1","reason":"test"}"#);
        let (status, position, answer) = send(&gate, "/api/v1/records", "application/x-ndjson", &format!("{trade}\n{cash}\n"));
        assert_eq!(status, 200, "{answer}");
        assert_eq!(position.unwrap().split(',').count(), 2);
        // What was paid in, and paid for what the fills of every fourth round bought.
        let wanted = format!("{}", 100_000 + round + 1 - 100 * ((round + 1) / 4));
        let seen = match round % 4 {
            0 => ("mark", read(&gate, "/api/v1/instruments/AAPL")["mark"].clone(), json!(price)),
            1 => ("cash", read(&gate, "/api/v1/accounts/ACC1")["cash"].clone(), json!(wanted)),
            2 => {
                // Of an order that nobody knows: whoever may look at the account hears of it.
                let fill = format!(
                    r#"{{"event":"fill","exec_id":"E-{round}","client_order_id":"X-{round}","account":"ACC1","symbol":"AAPL","side":"buy","qty":"1","price":"100"}}"#
                );
                assert_eq!(gate.records(&line("orders.executions", "ACC1", &fill)).0, 200);
                let newest = read(&gate, "/api/v1/notifications?limit=5").to_string();
                ("notification", json!(newest.contains(&format!("X-{round}"))), json!(true))
            }
            _ => {
                let bars = read(&gate, "/api/v1/chart/AAPL/ohlcv?timeframe=1day");
                ("close", bars["bars"][0]["close"].clone(), json!(price.parse::<f64>().unwrap()))
            }
        };
        if seen.1 != seen.2 {
            stale.push(format!("{round}: {} is {}, not {}", seen.0, seen.1, seen.2));
        }
    }
    assert_eq!(stale, [] as [&str; 0], "{} of {ROUNDS} in {:?}", stale.len(), begun.elapsed());
    gate.stop();
}

#[test]
fn every_write_says_where_it_stands() {
    let dir = tempfile::tempdir().unwrap();
    let gate = Daemon::start(dir.path(), &[("notify.enabled", "true")]);
    assert_eq!(gate.records(&opening()).0, 200);
    let json = "application/json";
    let (status, position, _) = send(&gate, "/api/v1/intents", json, &order("I-1"));
    assert_eq!((status, position.as_deref()), (200, Some("orders.intents:0:0")));
    let rule = r#"{"type":"max_leverage","threshold":"2","unit":"ratio","action":"block"}"#;
    let (status, position, _) = send(&gate, "/api/v1/risk-rules", json, rule);
    assert!(status == 201 && position.unwrap().starts_with("gate.control:0:"));
    let asked = r#"{"account":"ACC1"}"#;
    let (status, position, answer) = send(&gate, "/api/v1/risk-rules/test", json, asked);
    assert_eq!((status, position), (200, None), "nothing was written: {answer}");
    gate.stop();
}
