//! What the whole surface promises, whatever is asked: headers, binds, rates, bodies, notes before deeds, a log that is down. At a real
//! daemon on the embedded log, whose file a second connection breaks and mends.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test ends at what it did not expect")]

#[path = "promises/commands.rs"]
mod commands;
mod daemon;
#[path = "identity/house.rs"]
mod house;
#[path = "promises/log_file.rs"]
mod log_file;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use daemon::{Daemon, line, opening, order, ordergate};
use house::{Answer, GOOD, House, add_user, ask, house};
use log_file::LogFile;
use serde_json::{Value, json};
use tempfile::TempDir;

const UNLIMITED: &[(&str, &str)] = &[("auth.logins_per_minute", "10000"), ("auth.requests_per_second", "1000000")];
const DATA_POLICY: &str = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; \
                           connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

/// Asserts every header that an answer has whatever it says.
fn is_protected(what: &str, answer: &Answer, policy: &str) {
    let fixed = [
        ("content-security-policy", policy),
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-resource-policy", "same-origin"),
        ("cross-origin-opener-policy", "same-origin"),
        // Nobody came over TLS.
        ("strict-transport-security", ""),
        ("server", ""),
        ("x-powered-by", ""),
    ];
    for (name, value) in fixed {
        assert_eq!(answer.header(name), value, "{what}: {name}");
        assert!(answer.headers.get_all(name).iter().count() <= 1, "{what}: {name} twice");
    }
    assert!(answer.header("x-request-id").len() >= 16, "{what}");
    assert!(!answer.header("cache-control").is_empty(), "{what}");
}

/// Status, method, path, headers, body.
type Case<'a> = (u16, &'a str, &'a str, &'a [(&'a str, &'a str)], Option<&'a Value>);

#[test]
fn every_answer_has_every_security_header_whatever_it_says() {
    let house = house(UNLIMITED);
    let root = format!("Bearer {}", house.token("root"));
    let (bearer, json_body) = (("authorization", root.as_str()), json!({}));
    let foreign = [("host", "evil.example")];
    let form = [bearer, ("content-type", "text/plain")];
    let signed = [bearer];
    let answers: Vec<Case<'_>> = vec![
        (200, "GET", "/healthz", &[], None),
        (200, "GET", "/readyz", &[], None),
        (200, "GET", "/api/openapi.json", &[], None),
        (200, "GET", "/api/v1/auth/me", &signed, None),
        (200, "GET", "/api/v1/topics/gate.audit/records", &signed, None),
        (400, "GET", "/api/v1/auth/me?x=1", &signed, None),
        (401, "GET", "/api/v1/auth/me", &[], None),
        (421, "GET", "/healthz", &foreign, None),
        (404, "GET", "/nothing", &[], None),
        (404, "GET", "/api/v1/users/nobody", &signed, None),
        (405, "DELETE", "/healthz", &[], None),
        (415, "POST", "/api/v1/users", &form, Some(&json_body)),
        (422, "POST", "/api/v1/users", &signed, Some(&json_body)),
        (404, "GET", "/api/docs/nothing.js", &[], None),
    ];
    for (status, method, path, headers, body) in answers {
        let answer = house.ask(method, path, headers, body);
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.body);
        is_protected(&format!("{method} {path}"), &answer, DATA_POLICY);
        if path.starts_with("/api/v1") {
            assert_eq!(answer.header("cache-control"), "no-store", "{method} {path}");
        }
    }
    let page = house.ask("GET", "/api/docs/", &[], None);
    assert_eq!(page.status, 200);
    is_protected("the page", &page, PAGE_POLICY);
    for metrics in ["/metrics", "/healthz", "/nothing"] {
        let answer = house.gate.agent.get(format!("http://{}{metrics}", house.gate.metrics)).call().unwrap();
        let answer = Answer { status: answer.status().as_u16(), headers: answer.headers().clone(), body: Value::Null };
        is_protected(metrics, &answer, DATA_POLICY);
    }
}

fn sh(dir: &TempDir, script: &str) -> String {
    let output = Command::new("sh").args(["-c", script]).current_dir(dir.path()).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A certificate and its key, and the settings that name them.
fn certificate(dir: &TempDir) -> [(&'static str, String); 2] {
    sh(dir, "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=gate -days 2 -keyout tls.key -out tls.pem");
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    [("tls.cert_file", path("tls.pem")), ("tls.key_file", path("tls.key"))]
}

#[test]
fn who_comes_over_tls_is_told_to_stay_there() {
    let dir = TempDir::new().unwrap();
    let data = dir.path().join("data");
    add_user(&data, "root", "admin", &[]);
    let tls = certificate(&dir);
    let settings: Vec<(&str, &str)> = tls.iter().map(|(key, value)| (*key, value.as_str())).collect();
    let (mut child, at) = daemon::listening(daemon::spawn(&data, &settings));
    let told = sh(
        &dir,
        &format!(
            "(printf 'GET /healthz HTTP/1.1\\r\\nHost: {at}\\r\\nConnection: close\\r\\n\\r\\n'; sleep 1) | openssl s_client -quiet -connect {at} 2>/dev/null || true"
        ),
    );
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(told.starts_with("HTTP/1.1 200"), "{told}");
    assert!(told.contains("\r\nstrict-transport-security: max-age=31536000\r\n"), "{told}");
}

/// Runs a daemon that is to listen at `bind` until it ends; gives its exit code, and what it said on both outputs.
fn ends(data: &std::path::Path, bind: &str, settings: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let mut command = Command::new(daemon::program());
    command.args(["run", "--http", bind, "--metrics", "127.0.0.1:0", "--data-dir"]).arg(data);
    for (key, value) in settings {
        command.env(format!("ORDERGATE__{}", key.to_uppercase().replace('.', "__")), value);
    }
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let begun = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begun.elapsed() > Duration::from_secs(20) {
            child.kill().unwrap();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let output = child.wait_with_output().unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn without_users_every_bind_but_loopback_is_refused_before_anything_is_answered() {
    let dir = TempDir::new().unwrap();
    let tls = certificate(&dir);
    let tls: Vec<(&str, &str)> = tls.iter().map(|(key, value)| (*key, value.as_str())).collect();
    let proxied = [("http.behind_proxy", "true")];
    for bind in ["0.0.0.0:0", "[::]:0"] {
        for settings in [&tls[..], &proxied[..]] {
            let (code, out, error) = ends(&dir.path().join("open"), bind, settings);
            let fine = code == Some(2) && out.is_empty() && error.contains("OPEN_BEYOND_LOOPBACK") && error.contains("ordergate user add");
            assert!(fine, "{bind} {settings:?}: {code:?} {out}{error}");
        }
        let (code, out, error) = ends(&dir.path().join("open"), bind, &[]);
        assert!(code == Some(2) && out.is_empty() && error.contains("http.bind"), "{bind}: {code:?} {out}{error}");
    }
    // Nothing is bound before: what the machine would refuse is not even asked for. 192.0.2.0/24 is nobody's, and the port is taken.
    let holds = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = format!("0.0.0.0:{}", holds.local_addr().unwrap().port());
    for bind in ["192.0.2.1:0", &taken] {
        for settings in [&tls[..], &proxied[..]] {
            let (code, out, error) = ends(&dir.path().join("open"), bind, settings);
            assert!(code == Some(2) && out.is_empty() && error.contains("OPEN_BEYOND_LOOPBACK"), "{bind}: {code:?} {out}{error}");
        }
    }
    let data = dir.path().join("users");
    add_user(&data, "root", "admin", &[]);
    // With users, only the machine refuses it.
    for bind in ["192.0.2.1:0", &taken] {
        let (code, _, error) = ends(&data, bind, &tls);
        assert!(code == Some(6) && !error.contains("OPEN_BEYOND"), "{bind}: {code:?} {error}");
    }
}

#[test]
fn who_asks_too_often_hears_429_and_when_to_come_again_and_nobody_else_does() {
    let house = house(&[("auth.logins_per_minute", "10000"), ("auth.requests_per_second", "10")]);
    let (alice, bob) = (house.token("alice"), house.token("bob"));
    std::thread::sleep(Duration::from_millis(1_500));
    let me = |token: &str| house.as_of(token, "GET", "/api/v1/auth/me", None);
    let begun = Instant::now();
    let refused = loop {
        let answer = me(&alice);
        if answer.status != 200 {
            break answer;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "no limit");
    };
    assert_eq!(refused.code(), (429, "TOO_MANY_REQUESTS"));
    assert!(refused.text("detail").contains("of this identity"), "{}", refused.body);
    assert_eq!(refused.body["retry_after_seconds"].to_string(), refused.header("retry-after"));
    assert_eq!(refused.header("content-type"), "application/problem+json");
    assert_eq!(me(&bob).status, 200, "another identity of the same address");
    let wait: u64 = refused.header("retry-after").parse().unwrap();
    assert!((1..=2).contains(&wait), "{wait}");
    std::thread::sleep(Duration::from_secs(wait));
    assert_eq!(me(&alice).status, 200, "who waits as told is served");
    // An API token is its user: several programs of one identity share its rate.
    std::thread::sleep(Duration::from_millis(1_500));
    let made = house.as_of(&alice, "POST", "/api/v1/api-tokens", Some(&json!({"name": "t", "scopes": []})));
    let program = made.text("secret");
    let begun = Instant::now();
    while me(&alice).status == 200 {
        assert!(begun.elapsed() < Duration::from_secs(20), "no limit");
    }
    let program = me(&program);
    assert!(program.status == 200 || program.text("detail").contains("identity"), "{}", program.body);
    // Who proves nothing is counted by the address, before anybody looks at the proof.
    let begun = Instant::now();
    let stranger = loop {
        let answer = me("og_0123_secret");
        if answer.status != 401 {
            break answer;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "no limit");
    };
    assert_eq!((stranger.code(), stranger.text("detail").contains("this address")), ((429, "TOO_MANY_REQUESTS"), true));
}

/// The objects in a body, by their paths.
fn objects(document: &Value, schema: &Value, path: &str, depth: usize, found: &mut Vec<(String, Value)>) {
    let schema = match schema["$ref"].as_str() {
        Some(reference) => document.pointer(reference.trim_start_matches('#')).unwrap(),
        None => schema,
    };
    assert!(depth < 10, "{path}");
    for variant in ["oneOf", "anyOf", "allOf"].iter().flat_map(|name| schema[*name].as_array().into_iter().flatten()) {
        objects(document, variant, path, depth + 1, found);
    }
    if let Some(properties) = schema["properties"].as_object() {
        found.push((path.to_owned(), schema.clone()));
        for (name, of) in properties {
            objects(document, of, &format!("{path}/{name}"), depth + 1, found);
        }
    }
    if schema["items"].is_object() {
        objects(document, &schema["items"], &format!("{path}/0"), depth + 1, found);
    }
}

#[test]
fn a_field_that_nobody_knows_is_refused_with_its_path_however_deep_it_stands() {
    let dir = TempDir::new().unwrap();
    let gate = Daemon::start(dir.path(), &[("notify.enabled", "true")]);
    gate.records(&opening());
    let document = ask(&gate, "GET", "/api/openapi.json", &[], None).body;
    let mut nested = Vec::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
            let mut found = Vec::new();
            if !schema.is_null() {
                objects(&document, schema, "", 0, &mut found);
            }
            nested.extend(found.into_iter().filter(|(at, _)| !at.is_empty()).map(|(at, of)| (method.clone(), path.clone(), at, of)));
        }
    }
    assert!(nested.len() >= 12, "{} nested objects", nested.len());
    for (method, path, at, schema) in &nested {
        assert_eq!(schema["additionalProperties"], false, "{method} {path} {at}: the document allows what is refused");
    }
    let scope = json!({"symbols": ["AAPL"], "strange": 1});
    let rule = json!({"id": "r-1", "type": "max_leverage", "threshold": "2", "unit": "ratio", "action": "block", "scope": scope});
    let plain = json!({"id": "r-1", "type": "max_leverage", "threshold": "2", "unit": "ratio", "action": "block", "strange": 1});
    let intent = json!({"symbol": "AAPL", "side": "buy", "order_type": "market", "qty": "1", "strange": 1});
    let quiet = json!({"from": "22:00", "to": "06:00", "zone": "UTC", "strange": 1});
    let bodies = [
        ("/api/v1/risk-rules", rule.clone(), "scope.strange"),
        ("/api/v1/risk-rules/test", json!({"account": "ACC1", "rule": rule}), "rule.scope.strange"),
        ("/api/v1/risk-rules/test", json!({"account": "ACC1", "rule": plain}), "rule.strange"),
        ("/api/v1/risk-rules/test", json!({"account": "ACC1", "intent": intent}), "intent.strange"),
        ("/api/v1/accounts", json!({"account": "A", "owner": "u", "cash": "1", "limits": {"strange": 1}}), "limits.strange"),
        ("/api/v1/trading-states", json!({"scope": {"strange": 1}, "state": "halted", "reason": "x"}), "scope.strange"),
        ("/api/v1/users", json!({"name": "u", "role": "user", "accounts": {"strange": 1}}), "accounts.strange"),
        ("/api/v1/notification-preferences", json!({"channel": "email", "quiet_hours": quiet}), "quiet_hours.strange"),
        (
            "/api/v1/push-subscriptions",
            json!({"endpoint": "https://push.example/1", "keys": {"p256dh": "x", "auth": "x", "strange": 1}}),
            "keys.strange",
        ),
        ("/api/v1/gate-settings", json!({"sizing_percent": "3", "strange": 1}), "strange"),
        ("/api/v1/accounts/ACC1/limits", json!({"order_rate_limit": 5, "strange": 1}), "strange"),
    ];
    let records = gate.topic("gate.control").len();
    for (path, body, field) in bodies {
        let refused = ask(&gate, "POST", path, &[], Some(&body));
        assert_eq!((refused.status, refused.body["field"].as_str()), (422, Some(field)), "{path}: {}", refused.body);
    }
    assert_eq!(gate.topic("gate.control").len(), records, "nothing of it came to the log");
    let mut unknown: Value = serde_json::from_str(&order("I-1")).unwrap();
    unknown["strange"] = json!(1);
    let refused = ask(&gate, "POST", "/api/v1/intents", &[], Some(&unknown));
    assert!(refused.status == 422 || refused.body["verdict"] == "block", "{}", refused.body);
}

/// The only shard is this daemon's, as the claim in its ledger says.
fn names_this_daemon_as_owner(dir: &TempDir, gate: &Daemon, system: &Value) {
    let (code, dump, error) = ordergate(&["ledger", "dump", "--entries", "--data-dir", dir.path().to_str().unwrap()]);
    assert_eq!(code, Some(0), "{error}");
    let (shard, claimant) = (&system["shards"][0], format!("embedded-{}", gate.child.id()));
    let owner = &shard["owner"];
    let expected = (&system["instance"], &json!(true), &shard["here"]["term"], &json!(claimant));
    assert_eq!((&owner["instance"], &owner["is_here"], &owner["term"], &owner["claimant"]), expected, "{system}");
    assert!(owner["since"].as_i64().unwrap() <= shard["replica"]["at"].as_i64().unwrap(), "{system}");
    assert!(dump.contains(&claimant), "{dump}");
}

#[test]
fn the_system_says_how_far_each_shard_lags_and_where_its_ledger_ends() {
    let dir = TempDir::new().unwrap();
    let gate = Daemon::start(dir.path(), &[]);
    let many: String = (0..20).map(|n| line("orders.intents", "ACC1", &order(&format!("I-{n}")))).collect();
    assert_eq!(gate.records(&(opening() + &many)).0, 200);
    gate.topic_with("gate.decisions", 20);
    let system = || ask(&gate, "GET", "/api/v1/system", &[], None).body;
    let begun = Instant::now();
    let at_rest = loop {
        let seen = system();
        if seen["shards"][0]["replica"]["current"] == true && seen["shards"][0]["here"]["committed_seq"] == 23 {
            break seen;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{seen}");
        std::thread::sleep(Duration::from_millis(20));
    };
    let (code, head, error) = ordergate(&["ledger", "head", "--data-dir", dir.path().to_str().unwrap()]);
    assert_eq!(code, Some(0), "{error}");
    let head: Value = serde_json::from_str(&head).unwrap();
    let (here, replica) = (&at_rest["shards"][0]["here"], &at_rest["shards"][0]["replica"]);
    assert_eq!((&here["phase"], &here["term"], &here["seq"]), (&json!("owning"), &head["term"], &json!(23)), "{at_rest}");
    assert_eq!(
        (&replica["term"], &replica["seq"], &replica["ledger_next"], &replica["ledger_head"]),
        (&head["term"], &json!(23), &head["offset"], &head["head"]),
        "{at_rest} {head}"
    );
    names_this_daemon_as_owner(&dir, &gate, &at_rest);
    let lag = |seen: &Value, topic: &str| {
        let of = seen["shards"][0]["here"]["lag"].as_array().unwrap().clone();
        of.iter().find(|one| one["topic"] == topic).map(|one| (one["partition"].clone(), one["records"].as_u64().unwrap()))
    };
    for topic in ["orders.intents", "orders.executions", "market.prices", "gate.control"] {
        assert_eq!(lag(&at_rest, topic), Some((json!(0), 0)), "{topic}: {at_rest}");
    }
    assert_eq!((&at_rest["version"], at_rest["shards"].as_array().unwrap().len()), (&json!(env!("CARGO_PKG_VERSION")), 1));
    // What the ledger does not take is not applied, and what comes meanwhile is behind.
    let file = LogFile::open(dir.path());
    file.refuse("output", "NEW.topic = 4");
    let begun = Instant::now();
    let behind = loop {
        let _ = gate.records(&line("market.prices", "AAPL", r#"{"event":"trade","symbol":"AAPL","price":"101"}"#));
        let seen = system();
        if lag(&seen, "market.prices").is_some_and(|(_, records)| records > 0) {
            break seen;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "nothing is behind: {seen}");
        std::thread::sleep(Duration::from_millis(50));
    };
    let here = &behind["shards"][0]["here"];
    assert!(here["phase"] != "owning" && here["why"].as_str().is_some_and(|why| why.starts_with("LOG_IO")), "{behind}");
    assert_eq!(behind["shards"][0]["replica"]["ledger_head"], replica["ledger_head"], "{behind}");
    file.mend();
    let begun = Instant::now();
    loop {
        let seen = system();
        let caught_up = lag(&seen, "market.prices").is_some_and(|(_, records)| records == 0);
        if caught_up && seen["shards"][0]["here"]["phase"] == "owning" && seen["shards"][0]["replica"]["current"] == true {
            assert_ne!(seen["shards"][0]["replica"]["ledger_head"], replica["ledger_head"], "{seen}");
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{seen}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// What an administrator can write: method, path, body, and the status of success.
fn writes() -> Vec<(&'static str, String, Value, u16)> {
    let rule = json!({"id": "r-1", "type": "max_leverage", "threshold": "2", "unit": "ratio", "action": "block"});
    let state = json!({"state": "reduce_only", "reason": "drill"});
    let at = |path: &str| format!("/api/v1{path}");
    vec![
        ("POST", at("/instruments"), json!({"symbol": "MSFT"}), 201),
        ("POST", at("/splits"), json!({"symbol": "MSFT", "from": "1", "to": "2"}), 201),
        ("POST", at("/restricted-lists"), json!({"list": "L", "symbols": ["MSFT"]}), 201),
        ("POST", at("/accounts"), json!({"account": "A", "owner": "alice", "cash": "1"}), 201),
        ("POST", at("/accounts/A/cash"), json!({"amount": "5", "reason": "in"}), 200),
        ("POST", at("/accounts/A/limits"), json!({"order_rate_limit": 5}), 200),
        ("POST", at("/accounts/A/state"), state, 200),
        ("POST", at("/risk-rules"), rule, 201),
        ("POST", at("/gate-settings"), json!({"sizing_percent": "3"}), 200),
        ("POST", at("/trading-states"), json!({"scope": {"symbol": "MSFT"}, "state": "reduce_only", "reason": "x"}), 201),
        ("DELETE", at("/risk-rules/r-1"), Value::Null, 200),
        ("POST", at("/accounts/A/close"), json!({"reason": "x"}), 200),
        ("POST", at("/users"), json!({"name": "carol", "role": "user", "password": GOOD}), 201),
        ("PUT", at("/users/carol/password"), json!({"password": "another horse, another battery"}), 204),
        ("POST", at("/api-tokens"), json!({"user": "carol", "name": "t", "scopes": []}), 201),
        ("POST", at("/notification-preferences"), json!({"channel": "email", "enabled": true, "min_priority": "low"}), 201),
        (
            "POST",
            at("/api-keys"),
            json!({"broker": "robinhood", "name": "main", "environment": "paper", "key": "rh-api-1", "secret": "secret number 1"}),
            201,
        ),
    ]
}

/// A house whose vault is open.
fn vaulted() -> House {
    house(&[UNLIMITED, &[("ORDERGATE_MASTER_KEY", "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="), ("notify.enabled", "true")]].concat())
}

fn written(house: &House, root: &str, (method, path, body, _): &(&str, String, Value, u16)) -> Answer {
    house.as_of(root, method, path, Some(body).filter(|body| !body.is_null()))
}

/// All writes that need no other before them, at the same time.
fn all_at_once(house: &House, root: &str) -> Vec<(String, Answer)> {
    let all = writes();
    let first = all.iter().filter(|(_, path, ..)| !["/A/", "/r-1", "/carol/"].iter().any(|made| path.contains(made)));
    std::thread::scope(|scope| {
        let asked: Vec<_> = first.map(|write| scope.spawn(move || (write.1.clone(), written(house, root, write)))).collect();
        asked.into_iter().map(|one| one.join().unwrap()).collect()
    })
}

#[test]
fn the_log_gets_the_note_of_every_deed_before_the_deed() {
    let house = vaulted();
    let root = house.token("root");
    let file = LogFile::open(house.dir.path());
    // The file itself refuses a record that no note has come before.
    file.demand_notes();
    for write in writes() {
        let (before, answer) = (file.let_through(), written(&house, &root, &write));
        assert_eq!(answer.status, write.3, "{} {}: {}", write.0, write.1, answer.body);
        assert!(file.let_through() > before, "{} {}: no record was looked at", write.0, write.1);
    }
    let url = format!("http://{}/api/v1/records", house.gate.http);
    let control = line("gate.control", "X", r#"{"event":"instrument_defined","symbol":"X"}"#);
    let request =
        house.gate.agent.post(url).header("content-type", "application/x-ndjson").header("authorization", format!("Bearer {root}"));
    assert_eq!(request.send(&control).unwrap().status(), 200, "what programs append themselves is noted too");
}

#[test]
fn what_the_audit_does_not_take_is_not_done() {
    let house = vaulted();
    let root = house.token("root");
    let file = LogFile::open(house.dir.path());
    let records = || (file.count("input", "topic = 3"), file.count("directory", &LogFile::deeds()));
    let before = records();
    file.refuse("output", "NEW.topic = 10");
    // Each waits for the trail as long as it may, so all do at once.
    for (path, answer) in all_at_once(&house, &root) {
        assert_eq!(answer.code(), (503, "LOG_UNAVAILABLE"), "{path}: {}", answer.body);
    }
    assert_eq!(records(), before);
    file.mend();
    file.until_it_commits(&house.gate);
    for write in writes() {
        let answer = written(&house, &root, &write);
        assert_eq!(answer.status, write.3, "{} {}: {}", write.0, write.1, answer.body);
    }
}

#[test]
fn while_the_log_is_down_writes_hear_log_unavailable_and_reads_go_on() {
    let house = vaulted();
    let root = house.token("root");
    let bearer = format!("Bearer {root}");
    let records = |lines: &str| {
        let url = format!("http://{}/api/v1/records", house.gate.http);
        let request = house.gate.agent.post(url).header("content-type", "application/x-ndjson").header("authorization", &bearer);
        let mut answer = request.send(lines).unwrap();
        let body: Value = serde_json::from_str(&answer.body_mut().read_to_string().unwrap()).unwrap();
        (answer.status().as_u16(), body)
    };
    assert_eq!(records(&opening()).0, 200);
    let intent = |id: &str| house.as_of(&root, "POST", "/api/v1/intents", Some(&serde_json::from_str(&order(id)).unwrap()));
    assert_eq!(intent("I-1").body["verdict"], "allow");
    let file = LogFile::open(house.dir.path());
    for table in ["input", "output", "directory"] {
        file.refuse(table, "1");
    }
    file.refuse_probes();
    let (status, body) = records(&line("market.prices", "AAPL", r#"{"event":"trade","symbol":"AAPL","price":"101"}"#));
    assert_eq!((status, &body["code"]), (503, &json!("LOG_UNAVAILABLE")), "{body}");
    assert_eq!(intent("I-2").code(), (503, "LOG_UNAVAILABLE"));
    for (path, answer) in all_at_once(&house, &root) {
        assert_eq!(answer.code(), (503, "LOG_UNAVAILABLE"), "{path}: {}", answer.body);
        assert!(!answer.header("retry-after").is_empty(), "{path}: {:?}", answer.headers);
    }
    for path in ["/accounts/ACC1", "/risk-rules", "/decisions", "/users", "/auth/me", "/system"] {
        let answer = house.as_of(&root, "GET", &format!("/api/v1{path}"), None);
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    }
    assert_eq!(house.gate.get("/readyz").0, 503);
    file.mend();
    let begun = Instant::now();
    while house.gate.get("/readyz").0 != 200 {
        assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", house.gate.get("/readyz"));
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(records(&line("market.prices", "AAPL", r#"{"event":"trade","symbol":"AAPL","price":"101"}"#)).0, 200);
    assert_eq!(intent("I-3").body["verdict"], "allow");
}

#[test]
fn answers_out_of_books_say_how_old_they_are() {
    let dir = TempDir::new().unwrap();
    let gate = Daemon::start(dir.path(), &[]);
    assert_eq!(gate.records(&opening()).0, 200);
    let asked = |path: &str| ask(&gate, "GET", &format!("/api/v1{path}"), &[], None);
    let age_ms = |path: &str| {
        let answer = asked(path);
        assert!(answer.status == 200 || answer.status == 404, "{path}: {}", answer.body);
        answer.header("x-ordergate-age-ms").parse::<u64>().unwrap_or_else(|error| panic!("{path}: {error}: {:?}", answer.headers))
    };
    let reads = |until: &dyn Fn(u64) -> bool| {
        let begun = Instant::now();
        while !until(age_ms("/accounts/ACC1")) {
            assert!(begun.elapsed() < Duration::from_secs(30), "{} ms", age_ms("/accounts/ACC1"));
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    reads(&|age_ms| age_ms < 500);
    for path in ["/accounts", "/accounts/nobody", "/risk-rules", "/instruments", "/decisions"] {
        age_ms(path);
    }
    // What is not out of books has no age.
    assert_eq!(asked("/system").header("x-ordergate-age-ms"), "");
    // A ledger that cannot be read: the books stay as they are, and grow older.
    let file = LogFile::open(dir.path());
    let begun = Instant::now();
    file.hide_outputs();
    reads(&|age_ms| age_ms > 1_500);
    assert!(begun.elapsed() > Duration::from_millis(1_000), "an age that is not the time that has passed");
    assert!(asked("/system").body["replica_age_ms"].as_u64().unwrap() > 1_500);
    file.show_outputs();
    reads(&|age_ms| age_ms < 500);
}
