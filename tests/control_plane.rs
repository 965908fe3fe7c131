//! The control plane over HTTP against a real daemon on the embedded log: rules, portfolio risk, the kill switch, decisions.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test ends at what it did not expect")]

mod daemon;

use std::time::{Duration, Instant};

use daemon::{Daemon, line, opening, order};
use serde_json::{Value, json};
use tempfile::TempDir;

/// An answer: status, body, position, ETag.
struct Answer {
    status: u16,
    body: Value,
    position: Option<String>,
    etag: Option<String>,
}

fn ask(gate: &Daemon, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&Value>) -> Answer {
    let url = format!("http://{}/api/v1{path}", gate.http);
    let mut request = ureq::http::Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut answer = match body {
        Some(body) => gate.agent.run(request.header("content-type", "application/json").body(body.to_string()).unwrap()).unwrap(),
        None => gate.agent.run(request.body(()).unwrap()).unwrap(),
    };
    let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let (position, etag) = (header("x-ordergate-position"), header("etag"));
    let text = answer.body_mut().read_to_string().unwrap();
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    Answer { status: answer.status().as_u16(), body, position, etag }
}

fn get(gate: &Daemon, path: &str) -> Value {
    let answer = ask(gate, "GET", path, &[], None);
    assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    answer.body
}

fn post(gate: &Daemon, path: &str, body: &Value) -> Answer {
    ask(gate, "POST", path, &[], Some(body))
}

/// Appends records and waits until the replica has applied them.
fn apply(gate: &Daemon, lines: &str) {
    let (status, answer) = gate.records(lines);
    assert_eq!(status, 200, "{answer}");
    for (topic, partitions) in answer["positions"].as_object().unwrap() {
        for (partition, range) in partitions.as_object().unwrap() {
            let position = format!("{topic}:{partition}:{}", range[1]);
            assert_eq!(ask(gate, "GET", "/instruments", &[("x-ordergate-position", &position)], None).status, 200);
        }
    }
}

fn rule(id: &str, kind: &str, threshold: &str, unit: &str, action: &str) -> Value {
    json!({"id": id, "type": kind, "threshold": threshold, "unit": unit, "action": action})
}

#[test]
fn a_rule_binds_the_very_next_intent_and_the_answer_says_where_its_record_stands() {
    let dir = TempDir::new().unwrap();
    let gate = Daemon::start(dir.path(), &[]);
    apply(&gate, &opening());
    for round in 0..20 {
        let id = format!("r-{round}");
        let (_, decision) = gate.intent(&order(&format!("A-{round}")));
        assert_eq!(decision["verdict"], "allow", "round {round}: {decision}");
        let made = post(&gate, "/risk-rules", &rule(&id, "max_leverage", "0.00001", "ratio", "block"));
        assert_eq!(made.status, 201, "{}", made.body);
        let (_, decision) = gate.intent(&order(&format!("B-{round}")));
        assert_eq!((&decision["verdict"], &decision["reasons"][0]["rule_id"]), (&json!("block"), &json!(id)), "{decision}");
        let position = made.position.expect("a write has a position");
        let offset: u64 = position.strip_prefix("gate.control:0:").unwrap().parse().unwrap();
        let record = &gate.topic("gate.control")[usize::try_from(offset).unwrap()];
        assert_eq!((&record["payload"]["event"], &record["payload"]["rule"]["id"]), (&json!("rule_created"), &json!(id)));
        let removed = ask(&gate, "DELETE", &format!("/risk-rules/{id}"), &[], None);
        assert_eq!(removed.status, 200, "{}", removed.body);
        assert_eq!(ask(&gate, "GET", &format!("/risk-rules/{id}"), &[], None).status, 404);
    }
}

#[test]
fn rules_are_listed_changed_by_who_saw_them_and_refused_with_the_gates_code() {
    let dir = TempDir::new().unwrap();
    let gate = Daemon::start(dir.path(), &[]);
    apply(&gate, &opening());
    assert_eq!(post(&gate, "/risk-rules", &rule("r-1", "max_leverage", "2", "ratio", "block")).status, 201);
    let mut of_account = rule("r-2", "max_position_size", "50", "percent", "reduce_size");
    of_account["scope"] = json!({"account": "ACC1", "symbols": ["AAPL"]});
    assert_eq!(post(&gate, "/risk-rules", &of_account).status, 201);
    let again = post(&gate, "/risk-rules", &rule("r-1", "max_leverage", "3", "ratio", "block"));
    assert_eq!(
        (again.status, &again.body["code"], &again.body["reason"], &again.body["field"]),
        (422, &json!("RECORD_REFUSED"), &json!("RULE_EXISTS"), &json!("id"))
    );
    let unit = post(&gate, "/risk-rules", &rule("r-3", "max_leverage", "3", "count", "block"));
    assert_eq!((unit.status, &unit.body["reason"], &unit.body["field"]), (422, &json!("INVALID_RULE"), &json!("unit")), "{}", unit.body);
    let records = gate.topic("gate.control").len();
    for (wrong, field) in [
        (rule("r 3", "max_leverage", "3", "ratio", "block"), "id"),
        (rule("r-3", "max_leverage", "0", "ratio", "block"), "threshold"),
        (rule("r-3", "leverage", "3", "ratio", "block"), "type"),
        (json!({"id": "r-3", "strange": 1}), "strange"),
    ] {
        let refused = post(&gate, "/risk-rules", &wrong);
        assert_eq!((refused.status, &refused.body["field"]), (422, &json!(field)), "{}", refused.body);
    }
    assert_eq!(gate.topic("gate.control").len(), records, "what is no rule never enters the log");
    let ids = |path: &str| {
        get(&gate, path)["items"].as_array().unwrap().iter().map(|it| it["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(ids("/risk-rules"), ["r-1", "r-2"]);
    assert_eq!(ids("/risk-rules?type=max_leverage"), ["r-1"]);
    assert_eq!(ids("/risk-rules?account=ACC1"), ["r-1", "r-2"]);
    assert_eq!(ids("/risk-rules?active=false"), [] as [&str; 0]);
    assert_eq!(ask(&gate, "GET", "/risk-rules?account=NOBODY", &[], None).status, 404);
    let page = get(&gate, "/risk-rules?limit=1");
    assert_eq!(ids(&format!("/risk-rules?limit=1&cursor={}", page["next_cursor"].as_str().unwrap())), ["r-2"]);
    let seen = ask(&gate, "GET", "/risk-rules/r-1", &[], None);
    let (etag, changed) = (seen.etag.unwrap(), rule("r-1", "max_leverage", "0.00001", "ratio", "block"));
    let put = |headers: &[(&str, &str)], body: &Value| ask(&gate, "PUT", "/risk-rules/r-1", headers, Some(body));
    assert_eq!(put(&[], &changed).status, 428);
    let done = put(&[("if-match", &etag)], &changed);
    assert_eq!((done.status, &done.body["threshold"]), (200, &json!("0.00001")), "{}", done.body);
    assert_eq!(put(&[("if-match", &etag)], &changed).status, 412, "somebody else was faster");
    let other_type = put(&[("if-match", &done.etag.unwrap())], &rule("r-1", "position_limit", "1", "count", "block"));
    assert_eq!((other_type.status, &other_type.body["field"]), (422, &json!("type")));
    let (_, decision) = gate.intent(&order("I-1"));
    assert_eq!(decision["verdict"], "block");
    let blocked = get(&gate, "/risk-rules/r-1");
    assert_eq!((&blocked["decision_count"], &blocked["breach_count"]), (&json!(1), &json!(1)), "{blocked}");
    assert_eq!((&blocked["utilization"]["account"], &blocked["utilization"]["utilization"]), (&json!("ACC1"), &json!("0")));
    assert_eq!(blocked["last_decision_at"], decision["at"]);
}

#[test]
fn a_request_waits_for_the_position_that_it_brings_and_no_longer_than_it_may() {
    let dir = TempDir::new().unwrap();
    let gate = Daemon::start(dir.path(), &[]);
    apply(&gate, &opening());
    let made = post(&gate, "/risk-rules", &rule("r-1", "max_leverage", "2", "ratio", "block"));
    let position = made.position.unwrap();
    assert_eq!(ask(&gate, "GET", "/risk-rules/r-1", &[("x-ordergate-position", &position)], None).status, 200);
    assert_eq!(ask(&gate, "GET", "/risk-rules/r-1", &[("x-ordergate-position", "nonsense")], None).status, 400);
    let begun = Instant::now();
    let never = ask(&gate, "GET", "/risk-rules/r-1", &[("x-ordergate-position", "gate.control:0:999")], None);
    assert_eq!((never.status, &never.body["code"]), (504, &json!("POSITION_NOT_REACHED")));
    assert!(begun.elapsed() < Duration::from_secs(20));
    // Writes too.
    let write = |position: &str| {
        let body = rule("r-2", "max_leverage", "2", "ratio", "block");
        ask(&gate, "POST", "/risk-rules", &[("x-ordergate-position", position)], Some(&body)).status
    };
    assert_eq!([write("nonsense"), write("gate.control:0:999"), write(&position)], [400, 504, 201]);
    // But what stops trading waits for nothing.
    let why = json!({"reason": "drill"});
    assert_eq!(ask(&gate, "POST", "/accounts/ACC1/kill", &[("x-ordergate-position", "gate.control:0:999")], Some(&why)).status, 202);
}

#[test]
fn a_dry_run_says_what_the_gate_then_decides_and_changes_nothing() {
    let dir = TempDir::new().unwrap();
    let gate = Daemon::start(dir.path(), &[]);
    apply(&gate, &opening());
    let mut sized = rule("r-1", "max_position_size", "5", "percent", "reduce_size");
    sized["scope"] = json!({"account": "ACC1"});
    assert_eq!(post(&gate, "/risk-rules", &sized).status, 201);
    let book = get(&gate, "/accounts/ACC1");
    let topics = ["orders.intents", "gate.control", "gate.decisions", "gate.dead-letter"];
    let before: Vec<usize> = topics.iter().map(|topic| gate.topic(topic).len()).collect();
    let intent = json!({"symbol": "AAPL", "side": "buy", "order_type": "limit", "qty": "80", "limit_price": "100"});
    let tried = post(&gate, "/risk-rules/test", &json!({"account": "ACC1", "intent": intent}));
    assert_eq!(tried.status, 200, "{}", tried.body);
    let tighter = post(
        &gate,
        "/risk-rules/test",
        &json!({"account": "ACC1", "intent": intent, "rule": rule("r-9", "max_position_size", "10", "shares", "block")}),
    );
    assert_eq!(tighter.body["decision"]["verdict"], "block", "{}", tighter.body);
    let only = post(&gate, "/risk-rules/test", &json!({"account": "ACC1", "intent": intent, "rule_id": "r-1"}));
    assert_eq!(only.body["decision"]["verdict"], "allow_reduced");
    let now = post(&gate, "/risk-rules/test", &json!({"account": "ACC1"}));
    assert_eq!((&now.body["decision"], &now.body["now"][0]["utilization"]), (&Value::Null, &json!("0")), "{}", now.body);
    for (wrong, status) in [
        (json!({"account": "NOBODY"}), 404),
        (json!({"account": "ACC1", "rule_id": "r-7"}), 404),
        (json!({"account": "ACC1", "rule_id": "r-1", "rule": sized}), 422),
        (json!({"account": "ACC1", "alone": true}), 422),
        (json!({"account": "ACC1", "intent": {"symbol": "AAPL", "side": "buy", "order_type": "limit", "qty": "x"}}), 422),
    ] {
        assert_eq!(post(&gate, "/risk-rules/test", &wrong).status, status, "{wrong}");
    }
    let after: Vec<usize> = topics.iter().map(|topic| gate.topic(topic).len()).collect();
    assert_eq!((after, get(&gate, "/accounts/ACC1")), (before, book), "a dry run left a trace");
    let real = order("I-1").replace(r#""qty":"1""#, r#""qty":"80""#);
    let (_, decision) = gate.intent(&real);
    let said = &tried.body["decision"];
    assert_eq!(decision["verdict"], "allow_reduced");
    for field in ["verdict", "requested_qty", "approved_qty", "reasons", "equity", "symbol", "side", "account", "intent"] {
        assert_eq!(said[field], decision[field], "{field}");
    }
}

#[test]
fn a_position_is_sized_by_its_stop_and_by_what_the_rules_leave() {
    let dir = TempDir::new().unwrap();
    let gate = Daemon::start(dir.path(), &[]);
    apply(&gate, &opening());
    let size = |more: Value| {
        let mut body = json!({"account": "ACC1", "symbol": "AAPL", "entry": "50"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        post(&gate, "/risk-rules/calculate-position-size", &body)
    };
    // V05: 1 % of 100000 over 2 a share.
    let sized = size(json!({"stop": "48", "risk_percent": "1"})).body;
    assert_eq!(
        (&sized["qty"], &sized["risk"], &sized["value"], &sized["side"]),
        (&json!("500"), &json!("1000"), &json!("25000"), &json!("buy")),
        "{sized}"
    );
    assert_eq!((&sized["max_allowed_qty"], &sized["binds"]), (&Value::Null, &Value::Null), "no rule, no limit");
    let short = size(json!({"stop": "52", "risk_percent": "1"})).body;
    assert_eq!((&short["qty"], &short["side"]), (&json!("500"), &json!("sell")));
    let without = size(json!({})).body;
    assert_eq!((&without["qty"], without["warning"].is_string()), (&json!("40"), true), "2 % of equity at 50: {without}");
    assert_eq!(size(json!({"stop": "48"})).status, 422);
    assert_eq!(size(json!({"stop": "50", "risk_percent": "1"})).status, 422);
    // At 100 a share (the mark is above the entry) 12 % of 100000 are 120 shares.
    assert_eq!(post(&gate, "/risk-rules", &rule("r-1", "max_position_size", "12", "percent", "block")).status, 201);
    let bound = size(json!({"stop": "48", "risk_percent": "1"})).body;
    assert_eq!((&bound["max_allowed_qty"], &bound["binds"]["rule_id"]), (&json!("120"), &json!("r-1")), "{bound}");
    let (_, fits) = gate.intent(&order("I-1").replace(r#""qty":"1","limit_price":"100""#, r#""qty":"121","limit_price":"50""#));
    assert_eq!(fits["verdict"], "block");
    let (_, fits) = gate.intent(&order("I-2").replace(r#""qty":"1","limit_price":"100""#, r#""qty":"120","limit_price":"50""#));
    assert_eq!(fits["verdict"], "allow");
}

#[test]
fn the_kill_switch_is_one_request_and_the_fills_prove_it_done() {
    let dir = TempDir::new().unwrap();
    let gate = Daemon::start(dir.path(), &[]);
    apply(&gate, &opening());
    gate.intent(&order("I-1").replace(r#""qty":"1""#, r#""qty":"60""#));
    gate.intent(&order("I-2").replace(r#""qty":"1""#, r#""qty":"10""#));
    let fill = |exec: &str, order: &str, side: &str, qty: &str| {
        line(
            "orders.executions",
            "ACC1",
            &format!(
                r#"{{"event":"fill","exec_id":"{exec}","client_order_id":"{order}","account":"ACC1","symbol":"AAPL","side":"{side}","qty":"{qty}","price":"100"}}"#
            ),
        )
    };
    apply(&gate, &fill("E-1", "I-1", "buy", "60"));
    assert_eq!(get(&gate, "/accounts/ACC1/kill")["done"], false);
    let killed = post(&gate, "/accounts/ACC1/kill", &json!({"reason": "drill"}));
    assert_eq!(killed.status, 202, "{}", killed.body);
    let offset: usize = killed.position.unwrap().rsplit(':').next().unwrap().parse().unwrap();
    let record = &gate.topic("gate.control")[offset]["payload"];
    assert_eq!(
        (&record["state"], &record["cancel_orders"], &record["flatten"], &record["reason"]),
        (&json!("halted"), &json!(true), &json!(true), &json!("drill"))
    );
    let open = &killed.body;
    assert_eq!((&open["state"], &open["done"], &open["flattening"]), (&json!("halted"), &json!(false), &json!(true)), "{open}");
    assert_eq!((&open["positions"][0]["qty"], &open["working"][0]["client_order_id"]), (&json!("60"), &json!("I-2")));
    let command = open["commands"][0].clone();
    assert_eq!((&command["side"], &command["rest"]), (&json!("sell"), &json!("60")));
    let commands = gate.topic_with("gate.commands", 2);
    assert_eq!(
        (&commands[0]["payload"]["event"], &commands[1]["payload"]["command_id"]),
        (&json!("cancel_orders"), &command["command_id"])
    );
    let (_, refused) = gate.intent(&order("I-3"));
    assert_eq!(refused["reasons"][0]["code"], "HALTED");
    let id = command["command_id"].as_str().unwrap();
    apply(&gate, &fill("E-2", id, "sell", "25"));
    let half = get(&gate, "/accounts/ACC1/kill");
    assert_eq!(
        (&half["done"], &half["positions"][0]["qty"], &half["commands"][0]["rest"]),
        (&json!(false), &json!("35"), &json!("35")),
        "{half}"
    );
    apply(&gate, &fill("E-3", id, "sell", "35"));
    assert_eq!(get(&gate, "/accounts/ACC1/kill")["done"], false, "an order still works");
    apply(&gate, &line("orders.executions", "ACC1", r#"{"event":"canceled","client_order_id":"I-2","account":"ACC1"}"#));
    let done = get(&gate, "/accounts/ACC1/kill");
    assert_eq!((&done["done"], &done["flattening"]), (&json!(true), &json!(false)), "{done}");
    assert_eq!(done["positions"], json!([]));
    let active = post(&gate, "/accounts/ACC1/state", &json!({"state": "active", "reason": "drill over"}));
    assert_eq!((active.status, &active.body["state"]), (200, &json!("active")));
    assert_eq!(gate.intent(&order("I-4")).1["verdict"], "allow");
    assert_eq!(post(&gate, "/accounts/NOBODY/kill", &json!({"reason": "x"})).status, 404);
}

#[test]
fn restricted_lists_and_trading_states_have_pages() {
    let dir = TempDir::new().unwrap();
    let gate = Daemon::start(dir.path(), &[]);
    apply(&gate, &opening());
    assert_eq!(post(&gate, "/restricted-lists", &json!({"list": "l1", "symbols": ["AAPL"]})).status, 201);
    assert_eq!(post(&gate, "/restricted-lists", &json!({"list": "l0", "symbols": ["AAPL"]})).status, 201);
    let first = get(&gate, "/restricted-lists?limit=1");
    let second = get(&gate, &format!("/restricted-lists?limit=1&cursor={}", first["next_cursor"].as_str().unwrap()));
    assert_eq!(
        (&first["items"][0]["list"], &second["items"][0]["list"], &second["next_cursor"]),
        (&json!("l0"), &json!("l1"), &Value::Null)
    );
    let of = |symbol: &str, state: &str| json!({"scope": {"symbol": symbol}, "state": state, "reason": "drill"});
    assert_eq!(post(&gate, "/trading-states", &of("BBB", "halted")).status, 201);
    assert_eq!(post(&gate, "/trading-states", &of("AAA", "reduce_only")).body["items"].as_array().unwrap().len(), 2);
    let first = get(&gate, "/trading-states?limit=1");
    let second = get(&gate, &format!("/trading-states?limit=1&cursor={}", first["next_cursor"].as_str().unwrap()));
    assert_eq!((&first["items"][0]["state"], &second["items"][0]["state"]), (&json!("reduce_only"), &json!("halted")));
    assert_eq!(second["next_cursor"], Value::Null);
}

#[test]
fn accounts_instruments_lists_states_and_settings_are_written_and_read() {
    let dir = TempDir::new().unwrap();
    let gate = Daemon::start(dir.path(), &[]);
    let made = post(&gate, "/instruments", &json!({"symbol": "AAPL", "sector": "TECH", "lot_size": "1", "tick_size": "0.01"}));
    assert_eq!((made.status, &made.body["sector"]), (201, &json!("TECH")), "{}", made.body);
    let opened = post(&gate, "/accounts", &json!({"account": "ACC1", "owner": "u1", "cash": "100000", "limits": {"max_order_qty": "500"}}));
    assert_eq!((opened.status, &opened.body["equity"]), (201, &json!("100000")), "{}", opened.body);
    let again = post(&gate, "/accounts", &json!({"account": "ACC1", "owner": "u1", "cash": "1"}));
    assert_eq!((again.status, &again.body["reason"]), (422, &json!("ACCOUNT_EXISTS")));
    let paid = post(&gate, "/accounts/ACC1/cash", &json!({"amount": "-2500.5", "reason": "fees"}));
    assert_eq!((paid.status, &paid.body["cash"]), (200, &json!("97499.5")));
    let limits =
        post(&gate, "/accounts/ACC1/limits", &json!({"max_order_qty": null, "order_rate_limit": 5, "price_collar_mode": "two_sided"}));
    assert_eq!(limits.status, 200, "{}", limits.body);
    assert_eq!(
        get(&gate, "/accounts/ACC1/limits")["own"],
        json!({"max_order_qty": null, "price_collar_mode": "two_sided", "order_rate_limit": 5})
    );
    let settings = post(&gate, "/gate-settings", &json!({"sizing_percent": "3", "max_price_age_ms": 5000}));
    assert_eq!(
        (settings.status, &settings.body["sizing_percent"], &settings.body["max_price_age_ms"]),
        (200, &json!("3"), &json!(5000)),
        "{}",
        settings.body
    );
    apply(&gate, &line("market.prices", "AAPL", r#"{"event":"trade","symbol":"AAPL","price":"100"}"#));
    assert_eq!(gate.intent(&order("I-1")).1["verdict"], "allow");
    let orders = get(&gate, "/accounts/ACC1/orders");
    assert_eq!((&orders["items"][0]["client_order_id"], &orders["items"][0]["leaves"]), (&json!("I-1"), &json!("1")));
    apply(
        &gate,
        &line(
            "orders.executions",
            "ACC1",
            r#"{"event":"fill","exec_id":"E-1","client_order_id":"I-1","account":"ACC1","symbol":"AAPL","side":"buy","qty":"1","price":"99"}"#,
        ),
    );
    let position = get(&gate, "/accounts/ACC1/positions")["items"][0].clone();
    assert_eq!((&position["qty"], &position["avg_price"], &position["unrealized"]), (&json!("1"), &json!("99"), &json!("1")), "{position}");
    assert_eq!(post(&gate, "/restricted-lists", &json!({"list": "l1", "symbols": ["AAPL"]})).status, 201);
    assert_eq!(gate.intent(&order("I-2")).1["reasons"][0]["code"], "RESTRICTED");
    assert_eq!(get(&gate, "/restricted-lists")["items"][0], json!({"list": "l1", "symbols": ["AAPL"]}));
    assert_eq!(post(&gate, "/restricted-lists", &json!({"list": "l1", "symbols": []})).status, 201);
    let halted = post(&gate, "/trading-states", &json!({"scope": {}, "state": "halted", "reason": "drill"}));
    assert_eq!((halted.status, &halted.body["items"][0]["state"]), (201, &json!("halted")), "{}", halted.body);
    assert_eq!(gate.intent(&order("I-3")).1["reasons"][0]["code"], "HALTED");
    assert_eq!(post(&gate, "/trading-states", &json!({"scope": {}, "state": "active", "reason": "over"})).body["items"], json!([]));
    let split = post(&gate, "/splits", &json!({"symbol": "AAPL", "from": "1", "to": "2"}));
    assert_eq!(split.status, 201, "{}", split.body);
    assert_eq!(get(&gate, "/accounts/ACC1/positions")["items"][0]["qty"], "2");
    assert_eq!(get(&gate, "/instruments/AAPL")["mark"], "50");
    let refused = post(&gate, "/splits", &json!({"symbol": "MSFT", "from": "1", "to": "2"}));
    assert_eq!((refused.status, &refused.body["code"]), (422, &json!("RECORD_REFUSED")), "{}", refused.body);
    let close = post(&gate, "/accounts/ACC1/close", &json!({"reason": "x"}));
    assert_eq!((close.status, &close.body["reason"]), (422, &json!("ACCOUNT_NOT_FLAT")));
    let accounts = get(&gate, "/accounts");
    assert_eq!((&accounts["items"][0]["account"], accounts["items"].as_array().unwrap().len()), (&json!("ACC1"), 1));
    let system = get(&gate, "/system");
    assert_eq!(
        (&system["shards"][0]["here"]["phase"], &system["shards"][0]["replica"]["current"]),
        (&json!("owning"), &json!(true)),
        "{system}"
    );
}

#[test]
fn a_latch_is_released_and_only_where_there_is_one() {
    let dir = TempDir::new().unwrap();
    let gate = Daemon::start(dir.path(), &[]);
    apply(&gate, &opening());
    assert_eq!(post(&gate, "/risk-rules", &rule("dd", "max_drawdown", "100", "dollars", "block")).status, 201);
    apply(
        &gate,
        &line(
            "orders.executions",
            "ACC1",
            r#"{"event":"fill","exec_id":"E-1","client_order_id":"X","account":"ACC1","symbol":"AAPL","side":"buy","qty":"10","price":"120"}"#,
        ),
    );
    let (_, blocked) = gate.intent(&order("I-1"));
    assert_eq!((&blocked["verdict"], &blocked["reasons"][0]["latched"]), (&json!("block"), &json!(true)), "{blocked}");
    assert_eq!(get(&gate, "/accounts")["items"][0]["latches"], json!(["dd"]));
    let wrong = post(&gate, "/accounts/ACC1/latches/none/release", &json!({"reason": "x"}));
    assert_eq!((wrong.status, &wrong.body["reason"]), (422, &json!("UNKNOWN_RULE")));
    let released = post(&gate, "/accounts/ACC1/latches/dd/release", &json!({"reason": "looked at", "reset_hwm": true}));
    assert_eq!((released.status, &released.body["latches"]), (200, &json!([])), "{}", released.body);
    assert_eq!(gate.intent(&order("I-2")).1["verdict"], "allow");
}

#[test]
fn decisions_are_found_by_what_they_say_and_shown_with_their_reasons_and_source() {
    let dir = TempDir::new().unwrap();
    let gate = Daemon::start(dir.path(), &[]);
    apply(&gate, &opening());
    let mut all = Vec::new();
    for number in 0..40 {
        let account = if number % 4 == 0 { "ACC9" } else { "ACC1" };
        all.push(gate.intent(&order(&format!("I-{number}")).replace("ACC1", account)).1);
    }
    all.reverse();
    let items = |path: &str| get(&gate, path)["items"].as_array().unwrap().clone();
    assert_eq!(items("/decisions?limit=500"), all);
    let blocked: Vec<Value> = all.iter().filter(|it| it["verdict"] == "block").cloned().collect();
    assert_eq!(items("/decisions?verdict=block&limit=500"), blocked);
    assert_eq!(items("/decisions?code=UNKNOWN_ACCOUNT&account=ACC9"), blocked);
    assert_eq!(items("/accounts/ACC1/decisions?verdict=block"), Vec::<Value>::new());
    assert_eq!(items("/accounts/ACC1/decisions").len(), 30);
    let middle = all[20]["at"].as_i64().unwrap();
    let older: Vec<Value> = all.iter().filter(|it| it["at"].as_i64().unwrap() < middle).cloned().collect();
    assert_eq!(items(&format!("/decisions?to={middle}")), older);
    let page = get(&gate, "/decisions?limit=7&symbol=AAPL");
    let next = page["next_cursor"].as_str().unwrap();
    assert_eq!(items(&format!("/decisions?limit=7&symbol=AAPL&cursor={next}")), all[7..14]);
    assert_eq!(ask(&gate, "GET", &format!("/decisions?limit=7&cursor={next}"), &[], None).status, 400, "a cursor of another search");
    let one = &all[5];
    assert_eq!(&get(&gate, &format!("/decisions/{}", one["decision_id"].as_str().unwrap())), one);
    for id in ["0-1", "0-99999", "1-5", "x", "0-05"] {
        assert_eq!(ask(&gate, "GET", &format!("/decisions/{id}"), &[], None).status, 404, "{id}");
    }
    assert_eq!(ask(&gate, "GET", "/decisions?verdict=maybe", &[], None).status, 400);
    assert_eq!(gate.stop(), Some(0));
    let gate = Daemon::start(dir.path(), &[]);
    assert_eq!(get(&gate, "/decisions?limit=500")["items"].as_array().unwrap().len(), 40);
}
