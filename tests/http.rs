//! The daemon from outside: what its HTTP face takes, refuses and answers, and how it comes and goes.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test ends at what it did not expect")]

mod daemon;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use daemon::{Daemon, line, opening, order, ordergate, read_some};
use tempfile::TempDir;

fn daemon(dir: &TempDir) -> Daemon {
    Daemon::start(dir.path(), &[])
}

/// Sends a request as it is and gives the whole answer.
fn raw(at: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    read_some(&mut stream, 1 << 20)
}

#[test]
fn a_batch_is_taken_whole_with_its_positions_or_not_at_all() {
    let dir = TempDir::new().unwrap();
    let gate = daemon(&dir);
    let broken = opening() + "{\"topic\":\"orders.intents\"}\n";
    let (status, problem) = gate.records(&broken);
    assert_eq!((status, &problem["code"], &problem["line"]), (400, &"LINE_INVALID".into(), &4.into()));
    assert!(gate.topic("gate.control").is_empty(), "nothing of a refused batch may be there");
    let (status, answer) = gate.records(&opening());
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["records"], 3);
    assert_eq!(answer["positions"], serde_json::json!({"gate.control": {"0": [0, 1]}, "market.prices": {"0": [0, 0]}}));
    let (status, problem) = gate.records(&line("gate.decisions", "ACC1", "{}"));
    assert_eq!((status, &problem["code"]), (400, &"TOPIC_NOT_INPUT".into()));
    assert_eq!(gate.records("").1["code"], "EMPTY_BATCH");
}

#[test]
fn an_intent_is_answered_with_its_decision_and_a_repeat_with_the_same_bytes() {
    let dir = TempDir::new().unwrap();
    let gate = daemon(&dir);
    gate.records(&opening());
    let (status, first) = gate.intent(&order("I-1"));
    assert_eq!((status, &first["verdict"], &first["client_order_id"]), (200, &"allow".into(), &"I-1".into()));
    let (_, again) = gate.intent(&order("I-1"));
    assert_eq!(first, again);
    let decisions = gate.topic_with("gate.decisions", 2);
    assert_eq!(decisions[0]["payload"], first);
    let (status, book) = gate.get("/api/v1/accounts/ACC1");
    let book: serde_json::Value = serde_json::from_str(&book).unwrap();
    assert_eq!((status, &book["working"][0]["client_order_id"]), (200, &"I-1".into()));
    let (status, unknown) = gate.intent(&order("I-2").replace("ACC1", "ACC9"));
    assert_eq!((status, &unknown["reasons"][0]["code"]), (200, &"UNKNOWN_ACCOUNT".into()));
}

#[test]
fn what_can_have_no_decision_is_refused_before_it_enters_the_log() {
    let dir = TempDir::new().unwrap();
    let gate = daemon(&dir);
    for body in [
        "",
        "[]",
        "{}",
        r#"{"event":"trade","symbol":"AAPL","price":"1"}"#,
        r#"{"event":"order_cancel","account":"ACC1"}"#,
        r#"{"event":"fill","client_order_id":"I-1","account":"ACC1"}"#,
        r#"{"event":"nonsense","client_order_id":"I-1","account":"ACC1"}"#,
        r#"{"client_order_id":"I-1","account":"ACC1"}"#,
        r#"{"event":"signal","client_order_id":"I-1","account":"ACC1"}"#,
    ] {
        let (status, problem) = gate.intent(body);
        assert_eq!((status, &problem["code"]), (422, &"NOT_AN_INTENT".into()), "{body}");
    }
    assert!(gate.topic("orders.intents").is_empty());
    let (status, decision) = gate.intent(&order("I-1").replace(r#""qty":"1""#, r#""qty":"one""#));
    assert_eq!((status, &decision["reasons"][0]["code"]), (200, &"MALFORMED".into()));
}

#[test]
fn a_decision_that_takes_too_long_is_a_504_with_the_id_to_ask_again() {
    let dir = TempDir::new().unwrap();
    let gate = daemon(&dir);
    gate.records(&opening());
    let mut late = None;
    for number in 0..200 {
        let (status, answer) = gate.post("/api/v1/intents?timeout_ms=1", "application/json", &order(&format!("I-{number}")));
        if status == 504 {
            late = Some((number, answer));
            break;
        }
    }
    let (number, problem) = late.expect("some commit takes more than a millisecond");
    assert_eq!((&problem["code"], &problem["client_order_id"]), (&"DECISION_TIMEOUT".into(), &format!("I-{number}").into()));
    let (status, decision) = gate.intent(&order(&format!("I-{number}")));
    assert_eq!((status, &decision["verdict"]), (200, &"allow".into()));
}

#[test]
fn strangers_pages_and_strange_requests_are_refused() {
    let dir = TempDir::new().unwrap();
    let gate = daemon(&dir);
    let ask = |head: &str| raw(&gate.http, &format!("GET /healthz HTTP/1.1\r\n{head}connection: close\r\n\r\n"));
    let own = format!("host: {}\r\n", gate.http);
    assert!(ask(&own).starts_with("HTTP/1.1 200"), "{}", ask(&own));
    for (head, code) in [
        ("host: evil.example\r\n".to_owned(), "FOREIGN_HOST"),
        ("host: 127.0.0.1:1\r\n".to_owned(), "FOREIGN_HOST"),
        (format!("{own}origin: http://evil.example\r\n"), "FOREIGN_ORIGIN"),
        (format!("{own}origin: null\r\n"), "FOREIGN_ORIGIN"),
    ] {
        let answer = ask(&head);
        assert!(answer.contains(code) && answer.contains("application/problem+json"), "{head}: {answer}");
    }
    let many: String = (0..200).map(|number| format!("x-{number}: 1\r\n")).collect();
    assert!(ask(&format!("{own}{many}")).starts_with("HTTP/1.1 431"));
    assert!(ask(&format!("{own}x: {}\r\n", "y".repeat(100_000))).starts_with("HTTP/1.1 431"));
    for (status, code, answer) in [
        (404, "NOT_FOUND", gate.get("/api/v2/records")),
        (405, "METHOD_NOT_ALLOWED", gate.get("/api/v1/records")),
        (400, "UNKNOWN_PARAMETER", gate.get("/healthz?x=1")),
        (404, "UNKNOWN_TOPIC", gate.get("/api/v1/topics/nope/records")),
        (404, "UNKNOWN_PARTITION", gate.get("/api/v1/topics/gate.control/records?partition=1")),
        (400, "INVALID_PARAMETER", gate.get("/api/v1/topics/gate.control/records?from=7")),
        (400, "UNKNOWN_PARAMETER", gate.get("/api/v1/topics/gate.control/records?form=0")),
        (404, "UNKNOWN_ACCOUNT", gate.get("/api/v1/accounts/NOBODY")),
    ] {
        assert_eq!(answer.0, status, "{}", answer.1);
        assert!(answer.1.contains(code), "{code}: {}", answer.1);
    }
    assert_eq!(gate.post("/api/v1/records", "text/plain", &opening()).1["code"], "UNSUPPORTED_MEDIA_TYPE");
}

#[test]
fn bodies_lines_and_slow_senders_have_their_limits() {
    let dir = TempDir::new().unwrap();
    let small = [
        ("http.body_bytes_max", "65536"),
        ("http.line_bytes_max", "1024"),
        ("http.batch_records_max", "5"),
        ("http.read_timeout_ms", "400"),
    ];
    let gate = Daemon::start(dir.path(), &small);
    let (status, problem) = gate.records(&"x".repeat(70_000));
    assert_eq!((status, &problem["code"]), (413, &"BODY_TOO_LARGE".into()));
    let (status, problem) = gate.records(&(opening() + &opening()));
    assert_eq!((status, &problem["code"], &problem["line"]), (413, &"TOO_MANY_LINES".into(), &6.into()));
    let long = line("market.prices", "AAPL", &format!("\"{}\"", "y".repeat(2000)));
    assert_eq!(gate.records(&long).1["code"], "LINE_TOO_LONG");
    let begun = Instant::now();
    let head = format!(
        "POST /api/v1/records HTTP/1.1\r\nhost: {}\r\ncontent-type: application/x-ndjson\r\ncontent-length: 10\r\n\r\nabc",
        gate.http
    );
    let answer = raw(&gate.http, &head);
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("BODY_TIMEOUT"), "{answer}");
    let silent = raw(&gate.http, "GET /healthz HTTP/1.1\r\nhost");
    assert!(!silent.starts_with("HTTP/1.1 200"), "{silent}");
    assert!(begun.elapsed() < Duration::from_secs(8));
    assert!(gate.topic("market.prices").is_empty());
}

/// Sends a head, and nothing more until an answer comes: it, and after how long it came.
fn head(at: &str, path: &str, kind: &str, more: &str) -> (String, Duration) {
    let begun = Instant::now();
    let answer = raw(at, &format!("POST {path} HTTP/1.1\r\nhost: {at}\r\ncontent-type: {kind}\r\n{more}\r\n"));
    (answer, begun.elapsed())
}

#[test]
fn a_body_that_is_too_long_is_refused_by_its_length_and_not_asked_for() {
    let dir = TempDir::new().unwrap();
    let gate = daemon(&dir);
    let json = "application/json";
    let paths = [
        ("/api/v1/records", "application/x-ndjson"),
        ("/api/v1/intents", json),
        ("/api/v1/instruments", json),
        ("/api/v1/auth/login", json),
        ("/api/v1/api-keys", json),
        ("/api/v1/notification-contacts/confirm", "application/x-www-form-urlencoded"),
    ];
    for (path, kind) in paths {
        for more in ["content-length: 999999999999\r\n", "content-length: 20000000\r\nexpect: 100-continue\r\n"] {
            let (answer, after) = head(&gate.http, path, kind, more);
            assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("BODY_TOO_LARGE"), "{path} {more}: {answer}");
            assert!(after < Duration::from_secs(5), "{path} {more}: {after:?}");
        }
    }
    // Nor does its end have to come: one that does not say its length is refused as soon as it is too long.
    let chunk = format!("40000\r\n{}\r\n", "x".repeat(0x40000));
    let begun = Instant::now();
    let chunked = raw(
        &gate.http,
        &format!(
            "POST /api/v1/instruments HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n{chunk}{chunk}",
            gate.http
        ),
    );
    assert!(chunked.starts_with("HTTP/1.1 413") && begun.elapsed() < Duration::from_secs(5), "{:?} {chunked}", begun.elapsed());
    // Who sends all of it without asking hears it all the same.
    let mut stream = TcpStream::connect(&gate.http).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let head = format!(
        "POST /api/v1/records HTTP/1.1\r\nhost: {}\r\ncontent-type: application/x-ndjson\r\ncontent-length: 20000000\r\n\r\n",
        gate.http
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&vec![b'x'; 20_000_000]).unwrap();
    let answer = read_some(&mut stream, 1 << 20);
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert_eq!(gate.get("/readyz").0, 200);
}

#[test]
fn a_slow_body_has_the_time_that_the_settings_give_it_wherever_it_goes() {
    let dir = TempDir::new().unwrap();
    let gate = Daemon::start(dir.path(), &[("http.read_timeout_ms", "400")]);
    let paths = ["/api/v1/instruments", "/api/v1/auth/login", "/api/v1/api-keys", "/api/v1/notification-contacts/confirm"];
    for path in paths {
        let (answer, after) = head(&gate.http, path, "application/json", "content-length: 10\r\n");
        assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("within 400 ms"), "{path}: {answer}");
        assert!(after < Duration::from_secs(8), "{path}: {after:?}");
    }
}

#[test]
fn a_topic_is_followed_as_it_grows_and_the_stream_ends_with_the_daemon() {
    let dir = TempDir::new().unwrap();
    let gate = daemon(&dir);
    gate.records(&opening());
    let url = format!("http://{}/api/v1/topics/gate.control/records?from=1&follow=true", gate.http);
    let mut stream = gate.agent.get(url).call().unwrap();
    let mut lines = BufReader::new(stream.body_mut().as_reader()).lines();
    assert!(lines.next().unwrap().unwrap().contains("account_opened"));
    gate.records(&line("gate.control", "MSFT", r#"{"event":"instrument_defined","symbol":"MSFT"}"#));
    let next = lines.next().unwrap().unwrap();
    assert!(next.contains("MSFT") && next.contains("\"offset\":2"), "{next}");
    gate.signal("TERM");
    assert!(lines.next().is_none());
    drop(lines);
    assert_eq!(gate.wait(), Some(0));
}

#[test]
fn a_second_process_is_refused_and_a_restart_goes_on() {
    let dir = TempDir::new().unwrap();
    let gate = daemon(&dir);
    gate.records(&opening());
    let (_, first) = gate.intent(&order("I-1"));
    let path = dir.path().to_str().unwrap();
    let (code, _, error) = ordergate(&["run", "--http", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--data-dir", path]);
    assert_eq!(code, Some(3), "{error}");
    assert!(error.contains("LOG_LOCKED"), "{error}");
    assert_eq!(ordergate(&["verify", "--data-dir", path]).0, Some(0), "a ledger can be read beside its daemon");
    assert_eq!(gate.stop(), Some(0));
    let gate = daemon(&dir);
    let (_, again) = gate.intent(&order("I-1"));
    assert_eq!(first, again);
    let (_, second) = gate.intent(&order("I-2"));
    assert_eq!(second["seq"], 6);
    assert_eq!(gate.stop(), Some(0));
    let (code, out, error) = ordergate(&["verify", "--data-dir", path]);
    assert_eq!(code, Some(0), "{error}");
    assert!(out.starts_with("ok: ") && out.contains("\noutputs ok: ") && out.contains(" 0 not yet, 0 expired, 0 repeated"), "{out}");
    verify_finds_an_altered_and_a_missing_output(dir.path());
}

fn verify_finds_an_altered_and_a_missing_output(dir: &Path) {
    let log = rusqlite::Connection::open(dir.join("log.sqlite")).unwrap();
    let path = dir.to_str().unwrap();
    assert_eq!(log.execute("UPDATE output SET payload = x'7b7d' WHERE seq = 4 AND place = 0", []), Ok(1));
    let (code, _, error) = ordergate(&["verify", "--data-dir", path]);
    assert_eq!(code, Some(1), "{error}");
    assert!(error.contains("output 0-4-0 has another key or value than the ledger caused"), "{error}");
    assert_eq!(log.execute("DELETE FROM output WHERE seq = 4 AND place = 0", []), Ok(1));
    let (code, _, error) = ordergate(&["verify", "--data-dir", path]);
    assert_eq!(code, Some(1), "{error}");
    assert!(error.contains("output 0-4-0 is missing, and the ledger says that it was published"), "{error}");
    assert_eq!(ordergate(&["verify", "--data-dir", path, "--ledger-only"]).0, Some(0));
}

#[test]
fn a_reload_takes_new_limits_and_refuses_a_wrong_file() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("gate.toml");
    let write = |text: &str| std::fs::write(&file, text).unwrap();
    write("[http]\nbatch_records_max = 2\n");
    let gate = Daemon::start(&dir.path().join("data"), &[]);
    drop(gate);
    let mut child = std::process::Command::new(daemon::program())
        .args(["run", "--http", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--config"])
        .arg(&file)
        .arg("--data-dir")
        .arg(dir.path().join("data"))
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    let at = line.split("http://").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
    let send = || {
        raw(
            &at,
            &format!(
                "POST /api/v1/records HTTP/1.1\r\nhost: {at}\r\ncontent-type: application/x-ndjson\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{}",
                opening().len(),
                opening()
            ),
        )
    };
    assert!(send().contains("TOO_MANY_LINES"));
    let hang_up = || assert!(std::process::Command::new("kill").args(["-HUP", &child.id().to_string()]).status().unwrap().success());
    write("[http]\nbatch_records_max = 0\n");
    hang_up();
    std::thread::sleep(Duration::from_millis(300));
    assert!(send().contains("TOO_MANY_LINES"));
    write("[http]\nbatch_records_max = 10\n");
    hang_up();
    let begun = Instant::now();
    while !send().starts_with("HTTP/1.1 200") {
        assert!(begun.elapsed() < Duration::from_secs(5));
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let mut log = String::new();
    child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    assert!(log.contains("the configuration is refused") && log.contains("http.batch_records_max"), "{log}");
}

#[test]
fn metrics_and_health_are_on_their_own_listener() {
    let dir = TempDir::new().unwrap();
    let gate = daemon(&dir);
    gate.records(&opening());
    gate.intent(&order("I-1"));
    let (status, text) = gate.get_from(&gate.metrics, "/metrics");
    assert_eq!(status, 200);
    assert!(text.contains("ordergate_decisions_total{verdict=\"allow\",code=\"NONE\"} 1"), "{text}");
    assert!(text.contains("ordergate_http_requests_total{method=\"POST\",path=\"/api/v1/intents\",status=\"200\"} 1"), "{text}");
    assert_eq!(gate.get_from(&gate.metrics, "/readyz").0, 200);
    assert_eq!(gate.get_from(&gate.metrics, "/healthz").0, 200);
    assert_eq!(gate.get("/metrics").0, 404);
}

#[test]
fn the_demo_shows_decisions_books_a_reason_and_the_metrics_and_ends_cleanly() {
    let args = ["demo", "--seconds", "3", "--rate", "600", "--http", "127.0.0.1:0", "--metrics", "127.0.0.1:0"];
    let (code, out, error) = ordergate(&args);
    assert_eq!(code, Some(0), "{out}{error}");
    for wanted in ["/metrics", "ALLOW", "BLOCK", "why was", "against", "books at seq", "equity"] {
        assert!(out.contains(wanted), "{wanted}: {out}");
    }
    assert_eq!(error, "");
}
