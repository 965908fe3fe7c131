//! Connections that last, and those that do not: a stream ends with the rights of whom it was given to; what a client asked for is
//! done to its end, though he hangs up.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test ends at what it did not expect")]

mod daemon;
#[path = "identity/house.rs"]
#[expect(dead_code, reason = "each test binary uses its part of it")]
mod house;

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use daemon::{Daemon, line, opening};
use house::{House, ask, house};
use serde_json::{Value, json};

/// Far longer than a stream takes to notice.
const SOON: Duration = Duration::from_secs(20);

/// Follows a topic on a thread of its own: its lines, and then their end.
fn follow(house: &House, token: &str, topic: &str) -> Receiver<String> {
    let url = format!("http://{}/api/v1/topics/{topic}/records?from=earliest&follow=true", house.gate.http);
    let call = house.gate.agent.get(url).header("authorization", format!("Bearer {token}")).call();
    let mut stream = call.unwrap();
    assert_eq!(stream.status(), 200);
    let (tell, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stream.body_mut().as_reader()).lines().map_while(Result::ok) {
            let _ = tell.send(line);
        }
    });
    lines
}

/// Reads on until the stream ends; gives how many lines came.
fn until_the_end(lines: &Receiver<String>) -> usize {
    let mut count = 0;
    loop {
        match lines.recv_timeout(SOON) {
            Ok(_) => count += 1,
            Err(RecvTimeoutError::Disconnected) => return count,
            Err(RecvTimeoutError::Timeout) => panic!("the stream goes on"),
        }
    }
}

#[test]
fn a_followed_topic_ends_with_the_session_and_with_the_rights_of_who_follows() {
    let house = house(&[]);
    let (root, left) = (house.token("root"), house.token("root"));
    let change = |scopes: &[&str]| {
        let user = house.as_of(&root, "GET", "/api/v1/users/alice", None);
        let etag = format!("\"{}\"", user.body["version"]);
        let body = json!({"role": "user", "scopes": scopes, "accounts": {}, "disabled": false});
        let headers = [("authorization", &*format!("Bearer {root}")), ("if-match", &*etag)];
        let changed = house.ask("PUT", "/api/v1/users/alice", &headers, Some(&body));
        assert_eq!(changed.status, 200, "{}", changed.body);
    };
    change(&["decisions:read"]);
    let alice = house.token("alice");
    let put = |body: &str| {
        let url = format!("http://{}/api/v1/records", house.gate.http);
        let call = house.gate.agent.post(url).header("authorization", format!("Bearer {root}"));
        assert_eq!(call.content_type("application/x-ndjson").send(body).unwrap().status(), 200);
    };
    put(&opening());
    let (kept, ended, hers) =
        (follow(&house, &root, "gate.control"), follow(&house, &left, "gate.control"), follow(&house, &alice, "market.prices"));
    assert!(ended.recv_timeout(SOON).unwrap().contains("instrument_defined"));
    // At rest: nothing comes that could make it look.
    assert_eq!(house.as_of(&left, "POST", "/api/v1/auth/logout", Some(&json!({}))).status, 204);
    until_the_end(&ended);

    // While records come.
    let price = line("market.prices", "AAPL", r#"{"event":"trade","symbol":"AAPL","price":"101"}"#);
    put(&price);
    assert!(hers.recv_timeout(SOON).is_ok());
    change(&[]);
    for _ in 0..20 {
        put(&price);
    }
    assert!(until_the_end(&hers) < 20, "she read on without the right to");
    // Who may go on does.
    put(&line("gate.control", "MSFT", r#"{"event":"instrument_defined","symbol":"MSFT"}"#));
    while !kept.recv_timeout(SOON).unwrap().contains("MSFT") {}
}

/// Asks for something, and goes away before there is an answer.
fn asks_and_hangs_up(house: &House, token: &str, path: &str, body: &Value) {
    let body = body.to_string();
    let head = format!("POST /api/v1{path} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {token}", house.gate.http);
    let text = format!("{head}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    TcpStream::connect(&house.gate.http).unwrap().write_all(text.as_bytes()).unwrap();
}

#[test]
fn what_was_asked_for_is_done_though_the_client_hangs_up() {
    let house = house(&[]);
    let root = house.token("root");
    let names: Vec<String> = (0..4).map(|number| format!("new{number}")).collect();
    for name in &names {
        // The password is hashed for long enough: nobody listens any more when the user is written.
        asks_and_hangs_up(
            &house,
            &root,
            "/users",
            &json!({"name": name, "role": "user", "password": house::GOOD, "scopes": [], "accounts": {}}),
        );
    }
    let begun = Instant::now();
    for name in &names {
        while house.as_of(&root, "GET", &format!("/api/v1/users/{name}"), None).status != 200 {
            assert!(begun.elapsed() < SOON, "{name} is not made");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

#[test]
fn what_was_asked_for_is_done_though_its_end_came_with_it() {
    let house = house(&[("auth.requests_per_second", "100000")]);
    let root = house.token("root");
    // So many that the daemon finds most of them with the client's end right behind.
    let count = 100;
    for number in 0..count {
        asks_and_hangs_up(&house, &root, "/instruments", &json!({"symbol": format!("S{number}")}));
    }
    let made = || house.as_of(&root, "GET", "/api/v1/instruments?limit=500", None).body["items"].as_array().unwrap().len();
    let begun = Instant::now();
    while made() < count {
        assert!(begun.elapsed() < SOON, "{} of {count} are made", made());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The notes in the audit about an object, oldest first.
fn notes_about(gate: &Daemon, token: &str, object: &str) -> Vec<String> {
    let path = format!("/api/v1/audit?object={object}");
    let answer = ask(gate, "GET", &path, &[("authorization", &format!("Bearer {token}"))], None);
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body["items"].as_array().unwrap().iter().rev().map(|note| note["result"].as_str().unwrap().to_owned()).collect()
}

/// From now on the record of a user takes its time until it is in the log: some millions of steps.
fn slow_down(house: &House, user: &str) {
    let file = rusqlite::Connection::open(house.dir.path().join("log.sqlite")).unwrap();
    file.busy_timeout(SOON).unwrap();
    let steps: Vec<String> = (0..200).map(|step| format!("({step})")).collect();
    let when = format!("CAST(NEW.key AS TEXT) LIKE 'user:{user}@%'");
    let count = "SELECT sum(a.step + b.step * c.step) FROM steps a, steps b, steps c";
    let trigger = format!("CREATE TRIGGER slow_down BEFORE INSERT ON directory WHEN {when} BEGIN {count}; END");
    let steps = format!("CREATE TABLE steps (step INTEGER NOT NULL); INSERT INTO steps VALUES {}; {trigger}", steps.join(","));
    file.execute_batch(&steps).unwrap();
}

#[test]
fn a_stop_waits_for_what_a_client_asked_for_who_hung_up() {
    let house = house(&[("shutdown.drain_timeout_ms", "60000"), ("notify.enabled", "false")]);
    let root = house.token("root");
    slow_down(&house, "late");
    asks_and_hangs_up(&house, &root, "/users", &json!({"name": "late", "role": "service", "scopes": [], "accounts": {}}));
    let begun = Instant::now();
    while notes_about(&house.gate, &root, "user:late") != ["begun"] {
        assert!(begun.elapsed() < SOON, "it is not begun: {:?}", notes_about(&house.gate, &root, "user:late"));
        std::thread::sleep(Duration::from_millis(2));
    }
    // The deed is under way, and nobody's connection is there that the stop could wait for.
    let House { dir, gate } = house;
    assert_eq!(gate.stop(), Some(0));
    let gate = Daemon::start(dir.path(), &[]);
    let login = ask(&gate, "POST", "/api/v1/auth/login", &[], Some(&json!({"name": "root", "password": house::GOOD})));
    let root = login.text("access_token");
    let late = ask(&gate, "GET", "/api/v1/users/late", &[("authorization", &format!("Bearer {root}"))], None);
    assert_eq!(late.status, 200, "{}", late.body);
    assert_eq!(notes_about(&gate, &root, "user:late"), ["begun", "ok"]);
}
