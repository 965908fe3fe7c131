//! What owners, tokens and those who may not know of all may do and are told.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::UNLIMITED;
use crate::daemon::{Daemon, line};
use crate::house::{GOOD, House, house};

#[test]
fn an_owner_adds_so_many_rules_and_an_administrator_more() {
    let house = house(UNLIMITED);
    let (root, alice) = (house.token("root"), house.token("alice"));
    let account = json!({"account": "ALICE1", "owner": "alice", "cash": "100000"});
    assert_eq!(house.as_of(&root, "POST", "/api/v1/accounts", Some(&account)).status, 201);
    let add = |token: &str, id: &str| {
        let scope = json!({"account": "ALICE1"});
        let rule = json!({"id": id, "type": "max_leverage", "threshold": "9", "unit": "ratio", "action": "block", "scope": scope});
        house.as_of(token, "POST", "/api/v1/risk-rules", Some(&rule))
    };
    for number in 0..100 {
        let added = add(&alice, &format!("hers-{number}"));
        assert_eq!(added.status, 201, "{}", added.body);
    }
    let refused = add(&alice, "one-more");
    assert_eq!((refused.code(), refused.body["field"].as_str()), ((409, "TOO_MANY_RULES"), Some("scope.account")));
    let again = add(&alice, "hers-7");
    assert_ne!(again.code(), (409, "TOO_MANY_RULES"), "it is there already: {}", again.body);
    assert_eq!(add(&root, "his").status, 201);
}

#[test]
fn an_owner_sets_so_many_states_of_symbols_and_strategies_and_stops_the_account_all_the_same() {
    let house = house(UNLIMITED);
    let (root, alice) = (house.token("root"), house.token("alice"));
    let account = json!({"account": "ALICE1", "owner": "alice", "cash": "100000"});
    assert_eq!(house.as_of(&root, "POST", "/api/v1/accounts", Some(&account)).status, 201);
    let halt = |token: &str, strategy: Option<String>| {
        let mut body = json!({"state": "halted", "reason": "a drill"});
        body.as_object_mut().unwrap().extend(strategy.map(|strategy| ("strategy".to_owned(), strategy.into())));
        house.as_of(token, "POST", "/api/v1/accounts/ALICE1/state", Some(&body))
    };
    for number in 0..100 {
        let set = halt(&alice, Some(format!("S{number}")));
        assert_eq!(set.status, 200, "{}", set.body);
    }
    assert_eq!(halt(&alice, Some("S100".to_owned())).code(), (409, "TOO_MANY_STATES"));
    assert_eq!(halt(&alice, Some("S7".to_owned())).status, 200, "it is there already");
    assert_eq!(halt(&root, Some("S100".to_owned())).status, 200);
    assert_eq!(halt(&alice, None).status, 200);
    assert_eq!(house.as_of(&alice, "POST", "/api/v1/accounts/ALICE1/kill", Some(&json!({"reason": "a drill"}))).status, 202);
}

#[test]
fn a_token_writes_what_its_scopes_say_whoever_it_is_of() {
    let house = house(UNLIMITED);
    let (root, alice) = (house.token("root"), house.token("alice"));
    let account = json!({"account": "ALICE1", "owner": "alice", "cash": "100000"});
    assert_eq!(house.as_of(&root, "POST", "/api/v1/accounts", Some(&account)).status, 201);
    let token = |of: &str, scopes: &[&str]| {
        house.as_of(of, "POST", "/api/v1/api-tokens", Some(&json!({"name": "a program", "scopes": scopes}))).text("secret")
    };
    let reason = json!({"reason": "a drill"});
    let rule = |id: &str| {
        let scope = json!({"account": "ALICE1"});
        json!({"id": id, "type": "max_leverage", "threshold": "9", "unit": "ratio", "action": "block", "scope": scope})
    };
    let user = json!({"name": "mallory", "role": "admin", "password": GOOD});
    let tries = |token: &str, id: &str| {
        let ask = |path: &str, body: &Value| house.as_of(token, "POST", path, Some(body)).status;
        let state = json!({"scope": {"strategy": id}, "state": "halted", "reason": "a drill"});
        [
            ask("/api/v1/risk-rules", &rule(id)),
            ask("/api/v1/accounts/ALICE1/kill", &reason),
            ask("/api/v1/instruments", &json!({"symbol": id.to_uppercase()})),
            ask("/api/v1/trading-states", &state),
            ask("/api/v1/users", &user),
        ]
    };
    assert_eq!(tries(&token(&alice, &[]), "r1"), [403, 403, 403, 403, 403]);
    assert_eq!(tries(&token(&alice, &["intents:write"]), "r2"), [201, 202, 403, 403, 403]);
    let (bare, reads) = (token(&root, &[]), token(&root, &["decisions:read"]));
    for reader in [&bare, &reads] {
        assert_eq!(tries(reader, "r3"), [403, 403, 403, 403, 403]);
        assert_eq!(house.as_of(reader, "GET", "/api/v1/users", None).status, 200, "it reads what an administrator reads");
    }
    let refused = house.as_of(&bare, "POST", "/api/v1/users", Some(&user));
    assert_eq!((refused.code(), refused.body["scope"].as_str()), ((403, "FORBIDDEN"), Some("records:write")));
    assert_eq!(tries(&token(&root, &["intents:write"]), "r4"), [201, 202, 403, 403, 403]);
    assert_eq!(tries(&token(&root, &["records:write"]), "r5"), [201, 202, 201, 201, 201]);
}

#[test]
fn what_a_common_rule_did_to_all_is_told_to_those_who_may_know_of_all() {
    let house = house(UNLIMITED);
    let (root, alice) = (house.token("root"), house.token("alice"));
    let rule = |id: &str, scope: Value| json!({"id": id, "type": "max_leverage", "threshold": "9", "unit": "ratio", "action": "block", "scope": scope});
    let account = json!({"account": "ALICE1", "owner": "alice", "cash": "100000"});
    assert_eq!(house.as_of(&root, "POST", "/api/v1/accounts", Some(&account)).status, 201);
    for rule in [rule("common", json!({})), rule("hers", json!({"account": "ALICE1"}))] {
        assert_eq!(house.as_of(&root, "POST", "/api/v1/risk-rules", Some(&rule)).status, 201);
    }
    let shown = |token: &str, id: &str| house.as_of(token, "GET", &format!("/api/v1/risk-rules/{id}"), None).body;
    let counts = |token: &str, id: &str| {
        let rule = shown(token, id);
        (rule["breach_count"].clone(), rule["decision_count"].clone(), rule["count_reason"].clone())
    };
    assert_eq!(counts(&root, "common"), (json!(0), json!(0), Value::Null));
    assert_eq!(counts(&alice, "hers"), (json!(0), json!(0), Value::Null));
    assert_eq!(counts(&alice, "common"), (Value::Null, Value::Null, json!("OTHER_ACCOUNTS")));
}

#[test]
fn who_wanted_what_they_may_not_is_in_the_audit_once() {
    let house = house(UNLIMITED);
    let (root, alice) = (house.token("root"), house.token("alice"));
    let account = json!({"account": "ROOT1", "owner": "root", "cash": "100000"});
    assert_eq!(house.as_of(&root, "POST", "/api/v1/accounts", Some(&account)).status, 201);
    let rule = json!({"id": "common", "type": "max_leverage", "threshold": "9", "unit": "ratio", "action": "block"});
    assert_eq!(house.as_of(&root, "POST", "/api/v1/risk-rules", Some(&rule)).status, 201);
    let user = json!({"name": "mallory", "role": "admin", "password": GOOD});
    let wanted = [
        ("POST", "/risk-rules", Some(&rule), "FORBIDDEN"),
        ("DELETE", "/risk-rules/common", None, "FORBIDDEN"),
        ("POST", "/accounts/ROOT1/cash", Some(&json!({"amount": "1", "reason": "hers"})), "UNKNOWN_ACCOUNT"),
        ("POST", "/accounts/ROOT1/kill", Some(&json!({"reason": "hers"})), "UNKNOWN_ACCOUNT"),
        ("POST", "/users", Some(&user), "FORBIDDEN"),
        ("DELETE", "/users/root", None, "UNKNOWN_OBJECT"),
    ];
    // A secret in the wrong place is not repeated.
    let secret = "s3cret".repeat(12);
    assert_eq!(house.as_of(&alice, "DELETE", &format!("/api/v1/api-tokens/{secret}"), None).status, 404);
    for (method, path, body, _) in &wanted {
        let refused = house.as_of(&alice, method, &format!("/api/v1{path}"), *body).status;
        assert!(refused == 403 || refused == 404, "{method} {path}: {refused}");
    }
    // A look at what one may not know of is no action, nor is a dry run.
    let dry = json!({"account": "ROOT1"});
    assert_eq!(house.as_of(&alice, "POST", "/api/v1/risk-rules/test", Some(&dry)).status, 404);
    assert_eq!(house.as_of(&alice, "GET", "/api/v1/accounts/ROOT1", None).status, 404);
    let listed = house.as_of(&root, "GET", "/api/v1/audit?actor=alice&action=access.refuse", None).body;
    let said = |entry: &Value| ["object", "result", "address"].map(|name| entry[name].as_str().unwrap_or_default().to_owned());
    let mut noted: Vec<[String; 3]> = listed["items"].as_array().unwrap().iter().map(said).collect();
    let mut expected: Vec<[String; 3]> =
        wanted.iter().map(|(method, path, _, code)| [format!("{method} {path}"), (*code).to_owned(), "127.0.0.1".to_owned()]).collect();
    expected.push(["DELETE /api-tokens/(long)", "UNKNOWN_OBJECT", "127.0.0.1"].map(str::to_owned));
    noted.sort();
    expected.sort();
    assert_eq!(noted, expected, "{listed}");
}

#[test]
fn whose_an_account_is_the_inbox_still_knows_after_a_restart() {
    // Nothing is taken from a snapshot: the ledger is folded anew, and the inboxes are filled meanwhile.
    let anew: Vec<(&str, &str)> = [UNLIMITED, &[("snapshot.enabled", "false")]].concat();
    let mut house = house(&anew);
    let root = house.token("root");
    let append = |lines: String| {
        let url = format!("http://{}/api/v1/records", house.gate.http);
        let request = house.gate.agent.post(url).header("content-type", "application/x-ndjson");
        assert_eq!(request.header("authorization", format!("Bearer {root}")).send(&lines).unwrap().status(), 200);
    };
    // It takes a while until the opening of the account is folded.
    let trade = line("market.prices", "AAPL", r#"{"event":"trade","symbol":"AAPL","price":"100"}"#);
    (0..3).for_each(|_| append(trade.repeat(10_000)));
    let account = json!({"account": "ALICE1", "owner": "alice", "cash": "100000"});
    assert_eq!(house.as_of(&root, "POST", "/api/v1/accounts", Some(&account)).status, 201);
    let fill = |n: usize| {
        let fill = format!(
            r#"{{"event":"fill","exec_id":"E-{n}","client_order_id":"X-{n}","account":"ALICE1","symbol":"AAPL","side":"buy","qty":"1","price":"100"}}"#
        );
        line("orders.executions", "ALICE1", &fill)
    };
    append((0..3_000).map(fill).collect());
    let held = |house: &House, name: &str| {
        let token = house.token(name);
        let begun = Instant::now();
        loop {
            let inbox = house.as_of(&token, "GET", "/api/v1/notifications?limit=5", None).body;
            if inbox["complete"] == true && inbox["items"][0]["id"] == "0-33001-n0" {
                return house.as_of(&token, "GET", "/api/v1/notifications/stats", None).body["total"].clone();
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "{inbox}");
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    assert_eq!((held(&house, "root"), held(&house, "alice")), (json!(1_000), json!(1_000)));
    for _ in 0..3 {
        let House { dir, gate } = house;
        assert_eq!(gate.stop(), Some(0));
        house = House { gate: Daemon::start(dir.path(), &anew), dir };
        assert_eq!((held(&house, "root"), held(&house, "alice")), (json!(1_000), json!(1_000)));
    }
}
