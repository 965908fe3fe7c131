//! What operators do, at a real daemon on the embedded log: noted before it is done, done once, listed, and typed on a command line.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test ends at what it did not expect")]

mod daemon;

use std::path::Path;
use std::time::{Duration, Instant};

use daemon::{Daemon, line, opening, order, ordergate};
use serde_json::{Value, json};
use tempfile::TempDir;
use ureq::http::Request;

const GOOD: &str = "correct horse battery staple";

struct Answer {
    status: u16,
    body: Value,
    position: Option<String>,
}

fn ask(gate: &Daemon, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&Value>) -> Answer {
    let mut request = Request::builder().method(method).uri(format!("http://{}/api/v1{path}", gate.http));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut answer = match body {
        Some(body) => gate.agent.run(request.header("content-type", "application/json").body(body.to_string()).unwrap()).unwrap(),
        None => gate.agent.run(request.body(()).unwrap()).unwrap(),
    };
    let position = answer.headers().get("x-ordergate-position").map(|value| value.to_str().unwrap().to_owned());
    let text = answer.body_mut().read_to_string().unwrap();
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    Answer { status: answer.status().as_u16(), body, position }
}

fn get(gate: &Daemon, path: &str) -> Value {
    let answer = ask(gate, "GET", path, &[], None);
    assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    answer.body
}

fn post(gate: &Daemon, path: &str, body: &Value) -> Answer {
    ask(gate, "POST", path, &[], Some(body))
}

fn keyed(gate: &Daemon, path: &str, key: &str, body: &Value) -> Answer {
    ask(gate, "POST", path, &[("idempotency-key", key)], Some(body))
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

fn rule(id: &str) -> Value {
    json!({"id": id, "type": "max_leverage", "threshold": "2", "unit": "ratio", "action": "block"})
}

/// Who did what to what, and how it ended, the oldest first; the chain's own records left out.
fn acts(gate: &Daemon) -> Vec<[String; 3]> {
    let mut all: Vec<[String; 3]> = get(gate, "/audit?limit=500")["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|entry| entry["action"] != "audit.heads")
        .map(|entry| ["action", "object", "result"].map(|field| entry[field].as_str().unwrap().to_owned()))
        .collect();
    all.reverse();
    all
}

#[test]
fn every_write_of_an_operator_is_in_the_audit_before_it_is_done_and_with_how_it_ended() {
    let dir = TempDir::new().unwrap();
    let gate = Daemon::start(dir.path(), &[]);
    apply(&gate, &opening());
    let why = json!({"reason": "drill"});
    let writes: Vec<(&str, &str, Value, u16, [&str; 3])> = vec![
        ("POST", "/instruments", json!({"symbol": "MSFT"}), 201, ["instrument.define", "instrument:MSFT", "ok"]),
        ("POST", "/splits", json!({"symbol": "MSFT", "from": "1", "to": "2"}), 201, ["instrument.split", "instrument:MSFT", "ok"]),
        ("POST", "/restricted-lists", json!({"list": "L", "symbols": ["MSFT"]}), 201, ["restricted_list.set", "restricted_list:L", "ok"]),
        ("POST", "/accounts", json!({"account": "A", "owner": "u", "cash": "1"}), 201, ["account.open", "account:A", "ok"]),
        ("POST", "/accounts", json!({"account": "A", "owner": "u", "cash": "1"}), 422, ["account.open", "account:A", "ACCOUNT_EXISTS"]),
        ("POST", "/accounts/A/cash", json!({"amount": "5", "reason": "in"}), 200, ["account.cash", "account:A", "ok"]),
        ("POST", "/accounts/A/limits", json!({"order_rate_limit": 5}), 200, ["account.limits", "account:A", "ok"]),
        ("POST", "/accounts/A/state", json!({"state": "halted", "reason": "x"}), 200, ["state.set", "account:A", "ok"]),
        ("POST", "/accounts/A/kill", why.clone(), 202, ["account.kill", "account:A", "ok"]),
        ("POST", "/accounts/A/latches/r-1/release", why.clone(), 422, ["latch.release", "latch:A:r-1", ""]),
        ("POST", "/accounts/A/close", why, 200, ["account.close", "account:A", "ok"]),
        ("POST", "/risk-rules", rule("r-1"), 201, ["rule.create", "rule:r-1", "ok"]),
        ("DELETE", "/risk-rules/r-1", Value::Null, 200, ["rule.delete", "rule:r-1", "ok"]),
        ("POST", "/gate-settings", json!({"sizing_percent": "3"}), 200, ["settings.set", "settings:gate", "ok"]),
    ];
    for (method, path, body, status, [action, object, result]) in writes {
        let before = acts(&gate).len();
        let answer = ask(&gate, method, path, &[], Some(&body).filter(|body| !body.is_null()));
        assert_eq!(answer.status, status, "{path}: {}", answer.body);
        let noted = acts(&gate).split_off(before);
        assert_eq!(noted.len(), 2, "{path}: {noted:?}");
        assert_eq!(noted[0], [action, object, "begun"].map(str::to_owned), "{path}");
        let ended = if result.is_empty() { answer.body["reason"].as_str().unwrap() } else { result };
        assert_eq!(noted[1], [action, object, ended].map(str::to_owned), "{path}");
    }
    let before = acts(&gate).len();
    assert_eq!(post(&gate, "/risk-rules", &json!({"id": "r 2", "type": "max_leverage"})).status, 422);
    assert_eq!(acts(&gate).len(), before, "what is no record is not begun");
    let stopped = gate.stop();
    assert_eq!(stopped, Some(0));
    let (code, out, error) = ordergate(&["audit", "verify", "--data-dir", dir.path().to_str().unwrap()]);
    assert_eq!(code, Some(0), "{out}{error}");
    let (code, json, error) = ordergate(&["audit", "verify", "--data-dir", dir.path().to_str().unwrap(), "--output", "json"]);
    let told: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(code, Some(0), "{error}");
    assert!(out.starts_with(&format!("ok: {} records ({} repeated), ", told["records"], told["repeated"])), "{out}{json}");
    assert!(told["heads"].as_array().unwrap().iter().all(|head| out.contains(head.as_str().unwrap())), "{out}{json}");
}

#[test]
fn operators_records_that_a_program_appends_by_itself_are_noted_too_and_others_are_not() {
    let dir = TempDir::new().unwrap();
    let gate = Daemon::start(dir.path(), &[]);
    let control = line("gate.control", "AAPL", r#"{"event":"instrument_defined","symbol":"AAPL"}"#);
    apply(&gate, &(control.clone() + &control + &line("gate.control", "x", r#""not json""#)));
    let noted = get(&gate, "/audit?action=records.append")["items"].clone();
    assert_eq!(noted.as_array().unwrap().len(), 2);
    let (ended, begun) = (&noted[0], &noted[1]);
    assert_eq!((&begun["object"], &begun["actor"], &begun["result"]), (&json!("topic:gate.control"), &json!("local"), &json!("begun")));
    assert_eq!(begun["changes"], json!({"records": 3, "events": {"instrument_defined": 2, "unreadable": 1}}));
    assert_eq!(ended["changes"], json!({"position": "gate.control:0:0", "last_position": "gate.control:0:2"}));
    apply(&gate, &line("market.prices", "AAPL", r#"{"event":"trade","symbol":"AAPL","price":"100"}"#));
    assert_eq!(get(&gate, "/audit?action=records.append")["items"], noted, "prices are no operator's");
}

#[test]
fn an_entry_says_who_from_where_and_what_was_there_before_and_the_list_is_filtered_and_paged() {
    let dir = TempDir::new().unwrap();
    let gate = Daemon::start(dir.path(), &[]);
    apply(&gate, &opening());
    assert_eq!(post(&gate, "/risk-rules", &rule("r-1")).status, 201);
    for round in 0..5 {
        let paid = post(&gate, "/accounts/ACC1/cash", &json!({"amount": "1", "reason": format!("round {round}")}));
        assert_eq!(paid.status, 200, "{}", paid.body);
    }
    assert_eq!(ask(&gate, "DELETE", "/risk-rules/r-1", &[], None).status, 200);
    let deleted = &get(&gate, "/audit?action=rule.delete")["items"];
    let (ended, begun) = (&deleted[0], &deleted[1]);
    assert_eq!((&begun["actor"], &begun["address"], &begun["result"]), (&json!("local"), &json!("127.0.0.1"), &json!("begun")));
    assert_eq!((&begun["changes"]["before"]["threshold"], &begun["changes"]["record"]["id"]), (&json!("2"), &json!("r-1")), "{begun}");
    let offset = ended["changes"]["position"].as_str().unwrap().strip_prefix("gate.control:0:").unwrap();
    assert_eq!(gate.topic("gate.control")[offset.parse::<usize>().unwrap()]["payload"]["event"], "rule_deleted");
    let cash = get(&gate, "/audit?object=account:ACC1");
    assert_eq!(cash["items"].as_array().unwrap().len(), 10);
    assert_eq!(cash["items"][1]["changes"]["reason"], "round 4", "the newest first: {}", cash["items"][1]);
    assert_eq!(get(&gate, "/audit?action=account.")["items"], cash["items"]);
    assert_eq!(get(&gate, "/audit?actor=nobody")["items"], json!([]));
    let (mut paged, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = get(&gate, &format!("/audit?object=account:ACC1&limit=3{cursor}"));
        paged.extend(page["items"].as_array().unwrap().iter().cloned());
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(Value::Array(paged), cash["items"]);
    let at = |entry: &Value| entry["at"].as_str().unwrap().replace(':', "%3A");
    let (first, last) = (at(&cash["items"][9]), at(&cash["items"][0]));
    let since = get(&gate, &format!("/audit?object=account:ACC1&from={last}"))["items"].as_array().unwrap().len();
    assert!((1..10).contains(&since), "{since}");
    assert_eq!(get(&gate, &format!("/audit?object=account:ACC1&to={first}"))["items"], json!([]));
    for wrong in ["from=yesterday", "cursor=%21", "limit=0", "who=x"] {
        assert_eq!(ask(&gate, "GET", &format!("/audit?{wrong}"), &[], None).status, 400, "{wrong}");
    }
}

#[test]
fn money_and_splits_come_once_under_one_key_also_after_a_kill() {
    let dir = TempDir::new().unwrap();
    let gate = Daemon::start(dir.path(), &[]);
    apply(&gate, &opening());
    let deposit = json!({"amount": "100", "reason": "deposit"});
    let first = keyed(&gate, "/accounts/ACC1/cash", "k-1", &deposit);
    assert_eq!((first.status, &first.body["cash"]), (200, &json!("100100")), "{}", first.body);
    let again = keyed(&gate, "/accounts/ACC1/cash", "k-1", &deposit);
    assert_eq!((again.status, &again.body["cash"], again.position), (200, &json!("100100"), first.position.clone()));
    let other = keyed(&gate, "/accounts/ACC1/cash", "k-1", &json!({"amount": "200", "reason": "deposit"}));
    assert_eq!((other.status, &other.body["code"]), (422, &json!("IDEMPOTENCY_KEY_REUSED")));
    assert_eq!(keyed(&gate, "/accounts/ACC1/cash", "k-2", &deposit).body["cash"], "100200", "another key is another deposit");
    assert_eq!(post(&gate, "/accounts/ACC1/cash", &deposit).body["cash"], "100300", "without a key each is one");
    let unreadable = json!({"amount": "much", "reason": "x"});
    for _ in 0..2 {
        let refused = keyed(&gate, "/accounts/ACC1/cash", "k-5", &unreadable);
        assert_eq!((refused.status, &refused.body["field"]), (422, &json!("amount")), "{}", refused.body);
    }
    // What the books refused stays refused, also for a daemon that has not seen it.
    let taken = json!({"account": "ACC1", "owner": "u2", "cash": "1"});
    let refused = keyed(&gate, "/accounts", "k-3", &taken);
    assert_eq!((refused.status, &refused.body["reason"]), (422, &json!("ACCOUNT_EXISTS")), "{}", refused.body);
    assert_eq!(keyed(&gate, "/accounts", "k-3", &taken).body["position"], refused.body["position"]);
    apply(&gate, &line("market.prices", "AAPL", r#"{"event":"trade","symbol":"AAPL","price":"100"}"#));
    let split = json!({"symbol": "AAPL", "from": "1", "to": "2"});
    assert_eq!(keyed(&gate, "/splits", "k-4", &split).status, 201);
    gate.kill();
    let gate = Daemon::start(dir.path(), &[]);
    let after = keyed(&gate, "/accounts/ACC1/cash", "k-1", &deposit);
    assert_eq!((after.status, &after.body["cash"], after.position), (200, &json!("100300"), first.position));
    let still = keyed(&gate, "/accounts", "k-3", &taken);
    assert_eq!((still.status, &still.body["position"]), (422, &refused.body["position"]), "{}", still.body);
    assert_eq!(keyed(&gate, "/splits", "k-4", &split).status, 201);
    assert_eq!(get(&gate, "/instruments/AAPL")["mark"], "50", "split once");
    let count = |event: &str| gate.topic("gate.control").iter().filter(|record| record["payload"]["event"] == event).count();
    assert_eq!((count("cash_adjusted"), count("split")), (3, 1));
}

#[test]
fn a_key_is_remembered_however_many_others_its_caller_uses() {
    let dir = TempDir::new().unwrap();
    let gate = Daemon::start(dir.path(), &[]);
    apply(&gate, &opening());
    let list = |n: usize| json!({"list": format!("L{}", n % 3), "symbols": []});
    let positions = || -> Vec<Option<String>> {
        let answer = |n: usize| keyed(&gate, "/restricted-lists", &format!("k-{n}"), &list(n));
        (0..400).map(answer).inspect(|answer| assert_eq!(answer.status, 201, "{}", answer.body)).map(|answer| answer.position).collect()
    };
    let (first, records) = (positions(), gate.topic("gate.control").len());
    assert_eq!(positions(), first);
    assert_eq!(gate.topic("gate.control").len(), records, "none was done twice");
}

/// Remembers as many keys of `local` as are remembered of one caller, before a daemon has the log.
fn remember_all_keys(dir: &Path) {
    use ordergate::control::directory::DirectoryService;
    use ordergate::directory::Kind;
    use ordergate::embedded::{EmbeddedLog, EmbeddedOptions};
    let log = EmbeddedLog::open(EmbeddedOptions::new(dir)).unwrap();
    let directory = DirectoryService::start(std::sync::Arc::new(log.clone())).unwrap();
    let at = jiff::Timestamp::now().as_millisecond();
    let write = |number: usize| {
        let claim = json!({"key": number.to_string(), "body": "", "object": "", "at": at}).to_string();
        let (directory, id) = (directory.clone(), format!("local~{number}"));
        async move { directory.write(Kind::Idempotency, &id, 0, Some(claim.into_bytes()), "local").await.map(drop) }
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for thousand in 0..10 {
        let written = futures_util::future::join_all((thousand * 1_000..(thousand + 1) * 1_000).map(write));
        assert!(runtime.block_on(written).iter().all(Result::is_ok), "{thousand}");
    }
    directory.stop();
    log.close();
}

#[test]
fn who_has_used_all_keys_is_told_when_to_come_again_and_kills_all_the_same() {
    let dir = TempDir::new().unwrap();
    remember_all_keys(dir.path());
    let gate = Daemon::start(dir.path(), &[]);
    apply(&gate, &opening());
    let list = json!({"list": "L", "symbols": []});
    let refused = keyed(&gate, "/restricted-lists", "k-1", &list);
    assert_eq!((refused.status, &refused.body["code"]), (429, &json!("TOO_MANY_REQUESTS")), "{}", refused.body);
    let wait = refused.body["retry_after_seconds"].as_u64().unwrap();
    assert!((86_000..=86_400).contains(&wait), "{wait}");
    assert_eq!(post(&gate, "/restricted-lists", &list).status, 201, "without a key nothing is remembered");
    for _ in 0..2 {
        let killed = keyed(&gate, "/accounts/ACC1/kill", "k-2", &json!({"reason": "drill"}));
        assert_eq!((killed.status, &killed.body["state"]), (202, &json!("halted")), "{}", killed.body);
    }
}

#[test]
fn many_at_once_under_one_key_move_the_money_once() {
    let dir = TempDir::new().unwrap();
    let gate = Daemon::start(dir.path(), &[]);
    apply(&gate, &opening());
    let deposit = json!({"amount": "100", "reason": "deposit"});
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let ask = || keyed(&gate, "/accounts/ACC1/cash", "k-1", &deposit).status;
        let all: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert!(statuses.iter().all(|status| matches!(status, 200 | 503)), "{statuses:?}");
    assert!(statuses.contains(&200), "{statuses:?}");
    assert_eq!(get(&gate, "/accounts/ACC1")["cash"], "100100");
    let after = keyed(&gate, "/accounts/ACC1/cash", "k-1", &deposit);
    assert_eq!((after.status, &after.body["cash"]), (200, &json!("100100")));
}

#[test]
fn a_create_that_is_sent_again_makes_one_rule_account_instrument_list_and_kill() {
    let dir = TempDir::new().unwrap();
    let gate = Daemon::start(dir.path(), &[]);
    apply(&gate, &opening());
    let nameless = json!({"type": "max_leverage", "threshold": "2", "unit": "ratio", "action": "block"});
    let creates = [
        ("/risk-rules", nameless, 201),
        ("/accounts", json!({"account": "B", "owner": "u", "cash": "1"}), 201),
        ("/instruments", json!({"symbol": "MSFT"}), 201),
        ("/restricted-lists", json!({"list": "L", "symbols": ["MSFT"]}), 201),
        ("/accounts/ACC1/limits", json!({"order_rate_limit": 5}), 200),
        ("/accounts/ACC1/kill", json!({"reason": "drill"}), 202),
    ];
    for (path, body, status) in creates {
        let before = gate.topic("gate.control").len();
        let first = keyed(&gate, path, "k", &body);
        assert_eq!(first.status, status, "{path}: {}", first.body);
        let again = keyed(&gate, path, "k", &body);
        assert_eq!((again.status, again.position), (status, first.position), "{path}");
        assert_eq!(again.body.get("id"), first.body.get("id"), "{path}");
        assert_eq!(gate.topic("gate.control").len(), before + 1, "{path}: one record");
    }
    for (key, status) in [("", 400), (&*"x".repeat(256), 400)] {
        assert_eq!(keyed(&gate, "/risk-rules", key, &rule("r-9")).status, status);
    }
}

#[test]
fn the_owner_of_a_broker_key_that_ends_hears_of_it_once_also_after_restarts() {
    let dir = TempDir::new().unwrap();
    let master = "ORDERGATE_MASTER_KEY";
    let settings = [(master, "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="), ("notify.enabled", "true")];
    let gate = Daemon::start(dir.path(), &settings);
    let ends = jiff::Timestamp::now().saturating_add(jiff::SignedDuration::from_hours(48)).unwrap();
    let key = json!({"broker": "alpaca", "name": "main", "environment": "paper", "expires_at": ends.to_string(),
                     "key": "PKABCDEFGHIJKLMNOPQR", "secret": "abcdefghijklmnopqrstuvwxyz0123456789ABCD"});
    let made = post(&gate, "/api-keys", &key);
    assert_eq!(made.status, 201, "{}", made.body);
    assert_eq!(gate.stop(), Some(0));
    for round in 0..2 {
        let gate = Daemon::start(dir.path(), &settings);
        let begun = Instant::now();
        let found = loop {
            let inbox = get(&gate, "/notifications")["items"].as_array().unwrap().clone();
            if !inbox.is_empty() {
                break inbox;
            }
            assert!(begun.elapsed() < Duration::from_secs(10), "round {round}: nobody was told");
            std::thread::sleep(Duration::from_millis(20));
        };
        // A second one would have come with the same look at the start.
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(get(&gate, "/notifications")["items"].as_array().unwrap().len(), 1, "round {round}");
        let told = &found[0];
        assert_eq!((&told["code"], &told["priority"]), (&json!("API_KEY_EXPIRES"), &json!("high")), "{told}");
        assert_eq!((&told["data"]["api_key_id"], &told["data"]["days"]), (&made.body["id"], &json!(3)), "{told}");
        let read = format!("/notifications/{}/read", told["id"].as_str().unwrap());
        assert_eq!(ask(&gate, "PUT", &read, &[], None).status, 204);
        assert_eq!(get(&gate, "/notifications/stats")["unread"], 0);
        assert_eq!(gate.stop(), Some(0));
    }
}

/// A daemon with `root` (admin) and `alice` (user), and the file of each one's session.
struct Office {
    dir: TempDir,
    gate: Daemon,
}

impl Office {
    fn open() -> Self {
        let dir = TempDir::new().unwrap();
        let data = dir.path().join("data");
        for (name, role) in [("root", "admin"), ("alice", "user")] {
            let file = write(dir.path(), "password", GOOD);
            let (code, _, error) =
                ordergate(&["user", "add", name, "--role", role, "--data-dir", data.to_str().unwrap(), "--password-file", &file]);
            assert_eq!(code, Some(0), "{error}");
        }
        let gate =
            Daemon::start(&data, &[("auth.logins_per_minute", "1000"), ("auth.requests_per_second", "100000"), ("notify.enabled", "true")]);
        let office = Self { dir, gate };
        for name in ["root", "alice"] {
            let file = office.dir.path().join("password");
            let (code, _, error) = office.run(name, &["login", name, "--password-file", file.to_str().unwrap()]);
            assert_eq!(code, Some(0), "{error}");
        }
        office
    }

    /// A command of somebody's.
    fn run(&self, name: &str, args: &[&str]) -> (Option<i32>, String, String) {
        let (url, file) = (format!("http://{}", self.gate.http), self.dir.path().join(format!("{name}.session")));
        let mut all = args.to_vec();
        all.extend(["--url", &url, "--token-file", file.to_str().unwrap()]);
        ordergate(&all)
    }

    fn root(&self, args: &[&str]) -> String {
        let (code, out, error) = self.run("root", args);
        assert_eq!(code, Some(0), "{args:?}: {out}{error}");
        out
    }

    fn root_json(&self, args: &[&str]) -> Value {
        let out = self.root(&[args, &["--output", "json"]].concat());
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{args:?}: {error}: {out}"))
    }

    fn file(&self, name: &str, value: &Value) -> String {
        write(self.dir.path(), name, &value.to_string())
    }
}

fn write(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn rules_and_accounts_are_run_from_the_command_line() {
    let office = Office::open();
    assert_eq!(office.root_json(&["accounts", "open", "A-1", "--owner", "alice", "--cash", "1000"])["account"], "A-1");
    let (code, _, error) = office.run("alice", &["accounts", "open", "A-2", "--owner", "alice", "--cash", "1"]);
    assert!(code == Some(5) && error.contains("403 FORBIDDEN"), "{code:?} {error}");
    let cash = ["accounts", "cash", "A-1", "-250.5", "--reason", "fees", "--key", "k-1"];
    assert_eq!(office.root_json(&cash)["cash"], "749.5");
    assert_eq!(office.root_json(&cash)["cash"], "749.5", "the same key moves it once");
    let limits = office.root_json(&["accounts", "limits", "A-1", "--set", "order_rate_limit=5", "--set", "max_order_qty=10"]);
    assert_eq!(limits["own"], json!({"max_order_qty": "10", "order_rate_limit": 5}));
    assert!(office.root(&["accounts", "show", "A-1"]).contains("cash: 749.5\n"));
    let file = office.file("rule.json", &rule("r-1"));
    assert_eq!(office.root_json(&["rules", "create", &file])["id"], "r-1");
    let (code, _, error) = office.run("root", &["rules", "create", &file]);
    assert!(code == Some(5) && error.contains("422 RECORD_REFUSED"), "{code:?} {error}");
    let mut tighter = rule("r-1");
    tighter["threshold"] = json!("1.5");
    let file = office.file("tighter.json", &tighter);
    let version = |said: &str| said.strip_prefix("rule r-1, version ").unwrap().split([',', '\n']).next().unwrap().to_owned();
    let (_, _, said) = office.run("root", &["rules", "show", "r-1"]);
    let seen = version(&said);
    let (code, out, said) = office.run("root", &["rules", "change", "r-1", &file, "--output", "json"]);
    assert!(code == Some(0) && out.contains(r#""threshold": "1.5""#), "{out}{said}");
    assert!(version(&said) == seen && said.contains(r#", was {"#) && said.contains(r#""threshold":"2""#), "what it was is shown: {said}");
    let (code, _, said) = office.run("root", &["rules", "change", "r-1", &file, "--if-match", &seen]);
    assert!(code == Some(5) && said.contains("412 PRECONDITION_FAILED") && !said.contains(", was {"), "{code:?} {said}");
    let seen = version(&office.run("root", &["rules", "show", "r-1"]).2);
    let (code, out, said) = office.run("root", &["rules", "change", "r-1", &file, "--if-match", &seen]);
    assert!(code == Some(0) && said.is_empty(), "{code:?} {out}{said}");
    let listed = office.root(&["rules", "list", "--type", "max_leverage"]);
    let rows: Vec<Vec<&str>> = listed.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0][..3], ["id", "type", "account"]);
    assert_eq!(rows[1][..7], ["r-1", "max_leverage", "-", "1.5", "ratio", "block", "yes"], "{listed}");
    assert_eq!(office.root_json(&["rules", "test", "A-1", "--rule", "r-1"])["now"][0]["rule_id"], "r-1");
    let intent = json!({"symbol": "AAPL", "side": "buy", "order_type": "limit", "qty": "1", "limit_price": "100"});
    let file = office.file("intent.json", &intent);
    let (code, out, error) = office.run("root", &["rules", "test", "A-1", "--intent", &file]);
    assert!(code == Some(1) && out.starts_with("verdict: block\n") && error.contains("would be blocked"), "{code:?} {out}{error}");
    assert_eq!(office.root(&["rules", "delete", "r-1"]), "rule r-1 deleted\n");
    let (code, _, error) = office.run("root", &["rules", "show", "r-1"]);
    assert!(code == Some(5) && error.contains("404 UNKNOWN_OBJECT"), "{code:?} {error}");
    let mut own = rule("r-2");
    own["scope"] = json!({"account": "A-1"});
    let tell = |rule: &Value| office.file("own.json", rule);
    assert_eq!(office.run("alice", &["rules", "create", &tell(&own)]).0, Some(0), "owners may bind themselves");
    own["threshold"] = json!("1");
    assert_eq!(office.run("alice", &["rules", "change", "r-2", &tell(&own)]).0, Some(0), "and more tightly");
    own["threshold"] = json!("1.1");
    for args in [&["rules", "change", "r-2", &tell(&own)][..], &["rules", "delete", "r-2"]] {
        let (code, _, error) = office.run("alice", args);
        assert!(code == Some(5) && error.contains("403 FORBIDDEN"), "and not loosen what binds them: {code:?} {error}");
    }
    assert_eq!(office.root_json(&["rules", "show", "r-2"])["threshold"], "1");
    let seen = office.run("alice", &["accounts", "list"]).1;
    assert!(seen.starts_with("account  owner  currency  cash") && seen.contains("A-1"), "{seen}");
    let halted = office.root_json(&["accounts", "state", "A-1", "halted", "--reason", "drill"]);
    assert_eq!(halted["state"], "halted");
    let (code, _, _) = office.run("root", &["rules", "create", "/nowhere.json"]);
    assert_eq!(code, Some(6));
}

/// A daemon that answers nobody for a while ends no watch; one that does not come back does, in time.
fn watched_through_an_outage(office: &Office, send: &impl Fn(&str), fill: &impl Fn(&str, &str, &str) -> String) {
    let own = |text: String| text.replace("ACC1", "ACC2");
    send(&line("gate.control", "ACC2", r#"{"event":"account_opened","account":"ACC2","owner":"u1","cash":"100000"}"#));
    send(&own(line("orders.intents", "ACC1", &order("J-1"))));
    send(&own(fill("F-1", "J-1", "buy")));
    let killed = office.root_json(&["kill", "ACC2", "--reason", "drill"]);
    let command = killed["commands"][0]["command_id"].as_str().unwrap_or_else(|| panic!("{killed}")).to_owned();
    let watch = |timeout: &'static str| office.run("root", &["kill", "ACC2", "--reason", "drill", "--watch", "--timeout", timeout]);
    std::thread::scope(|scope| {
        let watching = scope.spawn(|| watch("3"));
        std::thread::sleep(Duration::from_millis(700));
        office.gate.signal("STOP");
        let (code, out, said) = watching.join().unwrap();
        office.gate.signal("CONT");
        assert!(
            code == Some(5) && out.contains("not done yet") && said.contains("after 3 s the account cannot be seen"),
            "{code:?} {out}{said}"
        );
        let watching = scope.spawn(|| watch("60"));
        std::thread::sleep(Duration::from_millis(700));
        office.gate.signal("STOP");
        std::thread::sleep(Duration::from_millis(6_000));
        office.gate.signal("CONT");
        send(&own(fill("F-2", &command, "sell")));
        let (code, out, said) = watching.join().unwrap();
        assert!(code == Some(0) && out.starts_with("account ACC2: done\n"), "{code:?} {out}{said}");
        assert!(said.contains("a look failed, and the account may be as it was: "), "{said}");
    });
}

#[test]
fn a_kill_is_watched_until_the_fills_prove_it_and_the_audit_lists_who_did_it() {
    let office = Office::open();
    let token = office.root(&["token", "create", "feed", "--scope", "records:write", "--scope", "intents:write"]);
    let bearer = format!("Bearer {}", token.trim());
    let send = |lines: &str| {
        let url = format!("http://{}/api/v1/records", office.gate.http);
        let request = office.gate.agent.post(url).header("content-type", "application/x-ndjson").header("authorization", &bearer);
        assert_eq!(request.send(lines).unwrap().status(), 200);
    };
    send(&opening());
    let intent = order("I-1");
    send(&line("orders.intents", "ACC1", &intent));
    let fill = |exec: &str, order: &str, side: &str| {
        let json = format!(
            r#"{{"event":"fill","exec_id":"{exec}","client_order_id":"{order}","account":"ACC1","symbol":"AAPL","side":"{side}","qty":"1","price":"100"}}"#
        );
        line("orders.executions", "ACC1", &json)
    };
    send(&fill("E-1", "I-1", "buy"));
    let killed = office.root_json(&["kill", "ACC1", "--reason", "drill"]);
    assert_eq!((&killed["done"], &killed["state"], &killed["positions"][0]["qty"]), (&json!(false), &json!("halted"), &json!("1")));
    let (code, out, error) = office.run("root", &["kill", "ACC1", "--reason", "drill", "--watch", "--timeout", "1"]);
    assert!(code == Some(1) && out.contains("not done yet") && error.contains("1 positions open"), "{code:?} {out}{error}");
    let command = killed["commands"][0]["command_id"].as_str().unwrap().to_owned();
    let watched = std::thread::scope(|scope| {
        let watch = scope.spawn(|| office.root(&["kill", "ACC1", "--reason", "drill", "--watch"]));
        std::thread::sleep(Duration::from_millis(300));
        send(&fill("E-2", &command, "sell"));
        watch.join().unwrap()
    });
    assert_eq!(watched, "account ACC1: done\nhalted: 0 positions open, 0 orders work\n");
    watched_through_an_outage(&office, &send, &fill);
    let listed = office.root_json(&["audit", "list", "--action", "account.kill", "--limit", "4"]);
    let entries = listed.as_array().unwrap();
    assert_eq!(entries.len(), 4);
    assert!(entries.iter().all(|entry| entry["actor"] == "root"), "{listed}");
    assert!(office.root(&["audit", "list"]).starts_with("at "));
    let (code, _, error) = office.run("alice", &["audit", "list"]);
    assert!(code == Some(5) && error.contains("403 FORBIDDEN"), "{code:?} {error}");
    let (code, _, error) = office.run("alice", &["kill", "ACC1"]);
    assert!(code == Some(5) && error.contains("404 UNKNOWN_ACCOUNT"), "what one may not know of: {code:?} {error}");
}

#[test]
fn who_is_removed_leaves_no_wishes_to_the_next_of_that_name() {
    let office = Office::open();
    let login = |name: &str| {
        let answer = post(&office.gate, "/auth/login", &json!({"name": name, "password": GOOD}));
        format!("Bearer {}", answer.body["access_token"].as_str().unwrap_or_else(|| panic!("{}", answer.body)))
    };
    let by = |token: &str, method: &str, path: &str, tag: &str, body: Option<&Value>| {
        let answer = ask(&office.gate, method, path, &[("authorization", token), ("if-match", tag)], body);
        (answer.status, answer.body)
    };
    let (root, alice) = (login("root"), login("alice"));
    let quiet = json!({"from": "22:00", "to": "06:00", "zone": "Asia/Tokyo"});
    let wish = json!({"channel": "email", "enabled": true, "min_priority": "low", "quiet_hours": quiet});
    let path = "/notification-preferences";
    assert_eq!(by(&alice, "POST", path, "\"0\"", Some(&wish)).0, 201);
    let version = by(&root, "GET", "/users/alice", "", None).1["version"].clone();
    assert_eq!(by(&root, "DELETE", "/users/alice", &format!("\"{version}\""), None).0, 204);
    assert_eq!(by(&alice, "GET", path, "", None).0, 401);
    let again = json!({"name": "alice", "role": "user", "password": GOOD});
    assert_eq!(by(&root, "POST", "/users", "", Some(&again)).0, 201);
    assert_eq!(by(&login("alice"), "GET", path, "", None).1["items"], json!([]));
    let Office { dir, gate } = office;
    assert_eq!(gate.stop(), Some(0));
    let log = rusqlite::Connection::open(dir.path().join("data/log.sqlite")).unwrap();
    let left = "SELECT count(*) FROM record WHERE topic = 'gate.directory' AND payload LIKE '%Asia/Tokyo%'";
    assert_eq!(log.query_row(left, [], |row| row.get::<_, i64>(0)).unwrap(), 0, "what is erased is not in the topic either");
}
