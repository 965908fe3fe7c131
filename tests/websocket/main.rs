//! The WebSocket of a real daemon on the embedded log: channels, resumption, refusals, ends.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test ends at what it did not expect")]

mod client;
#[path = "../daemon/mod.rs"]
mod daemon;
mod document;
mod people;

use std::time::{Duration, Instant};

use client::{Client, Heard, open, open_with};
use daemon::{Daemon, line, opening, order};
use serde_json::{Value, json};
use tempfile::TempDir;

fn gate(settings: &[(&str, &str)]) -> (TempDir, Daemon) {
    let dir = TempDir::new().unwrap();
    let gate = Daemon::start(dir.path(), settings);
    let (status, answer) = gate.records(&opening());
    assert_eq!(status, 200, "{answer}");
    eventually("the account", || gate.get("/api/v1/accounts/ACC1").0 == 200);
    (dir, gate)
}

fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what} does not come");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn client(gate: &Daemon) -> Client {
    open(&gate.http, "", &[]).expect("it opens")
}

fn decide(gate: &Daemon, ids: impl IntoIterator<Item = u32>) -> Vec<String> {
    let decided = ids.into_iter().map(|id| {
        let (status, decision) = gate.intent(&order(&format!("I-{id}")));
        assert_eq!(status, 200, "{decision}");
        decision["decision_id"].as_str().unwrap().to_owned()
    });
    decided.collect()
}

fn decision_ids(client: &mut Client, count: usize) -> (Vec<String>, String) {
    let mut position = String::new();
    let ids = (0..count).map(|_| {
        let event = client.of("event", "decisions");
        position = event["position"].as_str().unwrap().to_owned();
        event["data"]["decision_id"].as_str().unwrap().to_owned()
    });
    let ids = ids.collect();
    (ids, position)
}

/// A fill that nobody ordered: it always raises a notification.
fn stray_fill(id: &str) -> String {
    line(
        "orders.executions",
        "ACC1",
        &format!(
            r#"{{"event":"fill","exec_id":"{id}","client_order_id":"NOBODYS","account":"ACC1","symbol":"AAPL","side":"buy","qty":"1","price":"100"}}"#
        ),
    )
}

fn trade(price: &str, at: i64) -> String {
    line("market.prices", "AAPL", &format!(r#"{{"event":"trade","symbol":"AAPL","price":"{price}","ts":{at}}}"#))
}

fn now_ms() -> i64 {
    i64::try_from(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

#[test]
fn a_decision_comes_to_who_subscribed_as_it_was_answered() {
    let (_dir, gate) = gate(&[]);
    let (mut one, mut other) = (client(&gate), client(&gate));
    one.subscribe("decisions");
    other.subscribe("decisions");
    let (_, decision) = gate.intent(&order("I-1"));
    for client in [&mut one, &mut other] {
        let event = client.of("event", "decisions");
        assert_eq!(event["data"], decision);
        assert_eq!(event["position"], format!("0:{}", decision["seq"]));
    }
    one.text(r#"{"type":"unsubscribe","channel":"decisions"}"#);
    assert_eq!(one.said(), json!({"type": "unsubscribed", "channel": "decisions"}));
    decide(&gate, [2]);
    other.of("event", "decisions");
    assert!(one.is_silent(Duration::from_millis(300)), "who unsubscribed hears nothing");
    let again = one.subscribe("decisions");
    assert_eq!(decide(&gate, [3]), decision_ids(&mut one, 1).0, "after {again}");
}

#[test]
fn a_book_comes_at_once_and_whenever_it_changes_and_as_the_rest_api_shows_it() {
    let (_dir, gate) = gate(&[]);
    let mut client = client(&gate);
    client.subscribe("account:ACC1");
    let first = client.of("event", "account:ACC1");
    assert_eq!((&first["data"]["cash"], &first["data"]["working"]), (&json!("100000"), &json!([])), "{first}");
    decide(&gate, [1]);
    let changed = client.of("event", "account:ACC1");
    assert_eq!(changed["data"]["working"][0]["client_order_id"], "I-1", "{changed}");
    assert_eq!(changed["position"], format!("0:{}", changed["data"]["seq"]));
    let (_, shown) = gate.get("/api/v1/accounts/ACC1");
    let mut shown: Value = serde_json::from_str(&shown).unwrap();
    shown["seq"] = changed["data"]["seq"].clone();
    assert_eq!(changed["data"], shown);
    let fill = stray_fill("E-1").replace("NOBODYS", "I-1");
    assert_eq!(gate.records(&fill).0, 200);
    let filled = client.of("event", "account:ACC1");
    assert_eq!(filled["data"]["positions"]["AAPL"]["qty"], "1", "{filled}");
    // What a price moves comes within a second or two.
    gate.records(&trade("110", now_ms()));
    let moved = client.of("event", "account:ACC1");
    assert_ne!(moved["data"]["equity"], filled["data"]["equity"], "{moved}");
    let mut again = open(&gate.http, "", &[]).unwrap();
    again.resume("account:ACC1", moved["position"].as_str().unwrap());
    assert_eq!(again.of("event", "account:ACC1")["data"]["positions"], moved["data"]["positions"]);
    for (position, code) in [("0:99999", "NOT_APPLIED"), ("1:1", "INVALID_FIELD"), ("x", "INVALID_FIELD")] {
        assert_eq!(open(&gate.http, "", &[]).unwrap().refused_subscription("account:ACC1", Some(position)), code, "{position}");
    }
}

#[test]
fn who_resumes_hears_of_every_decision_once_in_order_and_then_of_what_comes() {
    let (dir, gate) = gate(&[]);
    let mut client = client(&gate);
    client.subscribe("decisions");
    let first = decide(&gate, 0..20);
    let (heard, position) = decision_ids(&mut client, 12);
    assert_eq!(heard, first[..12]);
    drop(client);
    let missed = decide(&gate, 20..320);
    let mut client = open(&gate.http, "", &[]).unwrap();
    assert_eq!(client.resume("decisions", &position), position);
    // More comes while it catches up.
    let more = decide(&gate, 320..340);
    let wanted: Vec<&String> = first[12..].iter().chain(&missed).chain(&more).collect();
    let (heard, position) = decision_ids(&mut client, wanted.len());
    assert_eq!(heard.iter().collect::<Vec<_>>(), wanted);
    assert_eq!(decide(&gate, [340]), decision_ids(&mut client, 1).0, "it is up to date");
    drop(client);
    // A position outlives a restart.
    assert_eq!(gate.stop(), Some(0));
    let gate = Daemon::start(dir.path(), &[]);
    let mut client = open(&gate.http, "", &[]).unwrap();
    client.resume("decisions", &position);
    assert_eq!(decision_ids(&mut client, 1).0.len(), 1, "the one after that position");
    assert_eq!(decide(&gate, [341]), decision_ids(&mut client, 1).0);
    for (position, code) in [("", "INVALID_FIELD"), ("0:1,1:1", "INVALID_FIELD"), ("0:x", "INVALID_FIELD"), ("0:9999999", "NOT_APPLIED")] {
        assert_eq!(open(&gate.http, "", &[]).unwrap().refused_subscription("decisions", Some(position)), code, "{position}");
    }
}

#[test]
fn notifications_come_as_they_are_raised_and_those_of_a_break_afterwards() {
    let (_dir, gate) = gate(&[]);
    let mut client = client(&gate);
    assert_eq!(client.subscribe("notifications"), "");
    gate.records(&stray_fill("E-1"));
    let event = client.of("event", "notifications");
    assert_eq!((&event["data"]["code"], &event["data"]["read"]), (&json!("UNKNOWN_ORDER_FILL"), &json!(false)), "{event}");
    assert_eq!(event["position"], event["data"]["id"]);
    drop(client);
    gate.records(&(stray_fill("E-2") + &stray_fill("E-3")));
    eventually("the inbox", || {
        let (_, page) = gate.get("/api/v1/notifications");
        serde_json::from_str::<Value>(&page).unwrap()["items"].as_array().unwrap().len() == 3
    });
    let mut client = open(&gate.http, "", &[]).unwrap();
    client.resume("notifications", event["position"].as_str().unwrap());
    let since: Vec<Value> = (0..2).map(|_| client.of("event", "notifications")).collect();
    gate.records(&stray_fill("E-4"));
    let last = client.of("event", "notifications");
    let seqs: Vec<u64> = since
        .iter()
        .chain([&last])
        .map(|event| event["data"]["id"].as_str().unwrap().split('-').nth(1).unwrap().parse().unwrap())
        .collect();
    assert!(seqs.is_sorted_by(|a, b| a < b), "{seqs:?}");
    assert_eq!(open(&gate.http, "", &[]).unwrap().refused_subscription("notifications", Some("0-1")), "INVALID_FIELD");
}

#[test]
fn who_was_away_for_more_than_an_inbox_holds_is_told_that_some_are_gone() {
    const KEPT: usize = 1_000;
    let (_dir, gate) = gate(&[]);
    let mut client = client(&gate);
    client.subscribe("notifications");
    gate.records(&stray_fill("E-first"));
    let first = client.of("event", "notifications")["position"].as_str().unwrap().to_owned();
    drop(client);
    let fills: String = (0..KEPT + 5).map(|n| stray_fill(&format!("E-{n}"))).collect();
    assert_eq!(gate.records(&fills).0, 200);
    let last = format!("\"exec_id\":\"E-{}\"", KEPT + 4);
    eventually("the last notification", || {
        let (_, page) = gate.get("/api/v1/notifications?limit=1");
        page.contains(&last)
    });
    let mut client = open(&gate.http, "", &[]).unwrap();
    assert_eq!(client.refused_subscription("notifications", Some(&first)), "POSITION_NOT_KEPT");
    assert_ne!(client.subscribe("notifications"), first, "without a position one hears of what comes");
    gate.records(&stray_fill("E-next"));
    assert_eq!(client.of("event", "notifications")["data"]["code"], "UNKNOWN_ORDER_FILL");
}

fn asked(gate: &Daemon, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
    let url = format!("http://{}/api/v1{path}", gate.http);
    let (body, kind) = body.map_or((String::new(), "text/plain"), |body| (body.to_string(), "application/json"));
    let request = ureq::http::Request::builder().method(method).uri(url).header("content-type", kind).body(body).unwrap();
    let mut answer = gate.agent.run(request).unwrap();
    let text = answer.body_mut().read_to_string().unwrap();
    (answer.status().as_u16(), serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

#[test]
fn the_inbox_and_wishes_are_there_without_any_setting_and_what_needs_a_channel_says_that_none_is_set_up() {
    let (_dir, gate) = gate(&[]);
    let ask = |method, path: &str, body: Option<&Value>| asked(&gate, method, path, body);
    let mut client = client(&gate);
    assert_eq!(client.subscribe("notifications"), "");
    gate.records(&stray_fill("E-1"));
    let id = client.of("event", "notifications")["data"]["id"].as_str().unwrap().to_owned();
    let (status, page) = ask("GET", "/notifications", None);
    assert_eq!((status, &page["items"][0]["id"], &page["items"][0]["deliveries"]), (200, &json!(id), &json!([])), "{page}");
    assert_eq!(ask("PUT", &format!("/notifications/{id}/read"), None).0, 204);
    let (_, stats) = ask("GET", "/notifications/stats", None);
    assert_eq!((&stats["unread"], &stats["by_channel"]), (&json!(0), &json!({"in_app": {"sent": 1}})), "no delivery is kept");
    assert_eq!(ask("PUT", "/notifications/read-all", None), (200, json!({"marked": 0})));
    let wish = json!({"channel": "email", "enabled": true, "min_priority": "low"});
    assert_eq!(ask("POST", "/notification-preferences", Some(&wish)).0, 201);
    let (_, wishes) = ask("GET", "/notification-preferences", None);
    assert_eq!((&wishes["items"][0]["id"], &wishes["channels"]), (&json!("all-email"), &json!([])));
    let (status, preview) = ask("GET", "/notification-preferences/preview?type=stop_loss&channel=email&priority=urgent", None);
    assert_eq!((status, &preview["at"]), (200, &Value::Null), "{preview}");
    assert_eq!(ask("GET", "/notification-contacts", None).1["items"], json!([]));
    let (status, browsers) = ask("GET", "/push-subscriptions", None);
    assert_eq!((status, &browsers["application_server_key"]), (200, &Value::Null));
    let (address, number, url) =
        (json!({"address": "ann@example.com"}), json!({"address": "+15550123"}), json!({"address": "https://a.example/"}));
    let browser = json!({"endpoint": "https://push.example/1", "keys": {"p256dh": "x", "auth": "x"}});
    let (code, test) = (json!({"code": "123456"}), json!({"channel": "webhook"}));
    let needing = [
        ("PUT", "/notification-contacts/email", Some(&address)),
        ("PUT", "/notification-contacts/sms", Some(&number)),
        ("PUT", "/notification-contacts/webhook", Some(&url)),
        ("POST", "/notification-contacts/email/verify", None),
        ("POST", "/notification-contacts/webhook/verify", None),
        ("POST", "/notification-contacts/sms/confirm", Some(&code)),
        ("POST", "/notification-preferences/test", Some(&test)),
        ("POST", "/push-subscriptions", Some(&browser)),
    ];
    for (method, path, body) in needing {
        let (status, refused) = ask(method, path, body);
        assert_eq!((status, &refused["code"]), (409, &json!("CHANNEL_NOT_SET_UP")), "{method} {path}: {refused}");
    }
    // Nobody is said anything of by a link that nobody sent.
    assert_eq!(ask("GET", "/notification-contacts/confirm?token=abc.def", None).0, 200);
    assert_eq!(ask("DELETE", &format!("/notifications/{id}"), None).0, 204);
}

#[test]
fn bars_come_as_trades_make_them_and_all_since_a_position() {
    let (_dir, gate) = gate(&[]);
    let begun = now_ms() - 3_600_000;
    let minute = begun - begun.rem_euclid(60_000);
    let at = |minutes: i64| minute + minutes * 60_000;
    gate.records(&(trade("100", at(0)) + &trade("101", at(1))));
    let drawn = format!("\"time\":{}", at(1) / 1_000);
    eventually("the chart", || gate.get("/api/v1/chart/AAPL/ohlcv?timeframe=1min").1.contains(&drawn));
    let mut client = client(&gate);
    assert_eq!(client.refused_subscription("bars:NOTHING:1min", None), "UNKNOWN_SYMBOL");
    client.subscribe("bars:AAPL:1min");
    client.of("event", "bars:AAPL:1min");
    let mut seen: Vec<(i64, f64)> = Vec::new();
    gate.records(&(trade("102", at(2)) + &trade("99", at(1)) + &trade("103", at(3))));
    while !seen.contains(&(at(3), 103.0)) || !seen.contains(&(at(2), 102.0)) {
        let event = client.of("event", "bars:AAPL:1min");
        let bar = &event["data"]["bar"];
        seen.push((bar["time"].as_i64().unwrap() * 1_000, bar["close"].as_f64().unwrap()));
    }
    let resumed = |from: i64| {
        let mut client = open(&gate.http, "", &[]).unwrap();
        client.resume("bars:AAPL:1min", &from.to_string());
        client
    };
    let mut again = resumed(at(1));
    for minutes in 1..=3 {
        assert_eq!(again.of("event", "bars:AAPL:1min")["data"]["bar"]["time"], at(minutes) / 1_000);
    }
    let mut gone = open(&gate.http, "", &[]).unwrap();
    assert_eq!(gone.refused_subscription("bars:AAPL:1min", Some(&(at(0) - 60_000).to_string())), "POSITION_NOT_KEPT");
    assert_eq!(gone.refused_subscription("bars:AAPL:1min", Some("x")), "INVALID_FIELD");
}

#[test]
fn the_system_is_shown_at_once_and_again_and_again() {
    let (_dir, gate) = gate(&[]);
    let mut client = client(&gate);
    client.subscribe("system");
    for _ in 0..2 {
        let event = client.of("event", "system");
        assert_eq!(event["data"]["shards"][0]["here"]["phase"], "owning", "{event}");
        assert!(event["position"].as_str().unwrap().starts_with("0:"));
    }
}

#[test]
fn messages_that_are_none_are_refused_with_a_code_and_do_no_harm() {
    let (_dir, gate) = gate(&[]);
    let mut client = client(&gate);
    client.subscribe("decisions");
    for (text, code) in [
        ("", "MALFORMED_BODY"),
        ("subscribe", "MALFORMED_BODY"),
        ("[1]", "MALFORMED_BODY"),
        (r#"{"type":"subscribe"}"#, "INVALID_FIELD"),
        (r#"{"type":"subscribe","channel":"system","strange":1}"#, "INVALID_FIELD"),
        (r#"{"type":"shout","channel":"system"}"#, "INVALID_FIELD"),
        (r#"{"type":"subscribe","channel":null}"#, "INVALID_FIELD"),
        (r#"{"type":"subscribe","channel":"everything"}"#, "UNKNOWN_CHANNEL"),
        (r#"{"type":"subscribe","channel":"decisions"}"#, "ALREADY_SUBSCRIBED"),
        (r#"{"type":"unsubscribe","channel":"system"}"#, "NOT_SUBSCRIBED"),
        (r#"{"type":"unsubscribe","channel":"decisions","resume":"0:1"}"#, "INVALID_FIELD"),
        (r#"{"type":"subscribe","channel":"account:NOBODY"}"#, "UNKNOWN_ACCOUNT"),
    ] {
        assert_eq!(client.refused(text), code, "{text}");
    }
    client.binary(b"\x00\x01");
    assert_eq!(client.said()["code"], "MALFORMED_BODY");
    assert_eq!(decide(&gate, [1]), decision_ids(&mut client, 1).0, "the subscription that there was goes on");
    let mut large = open(&gate.http, "", &[]).unwrap();
    large.text(&json!({"type": "subscribe", "channel": "x".repeat(20_000)}).to_string());
    assert_eq!(large.closed(), 1009);
    let mut flood = open(&gate.http, "", &[]).unwrap();
    (0..300).for_each(|_| flood.text("{}"));
    assert_eq!(flood.closed(), 1008);
}

#[test]
fn a_seventeenth_subscription_is_refused_until_one_ends() {
    let (_dir, gate) = gate(&[]);
    let lines: String = (0..17)
        .map(|n| {
            line("gate.control", &format!("A{n}"), &format!(r#"{{"event":"account_opened","account":"A{n}","owner":"u1","cash":"1"}}"#))
        })
        .collect();
    assert_eq!(gate.records(&lines).0, 200);
    eventually("the last account", || gate.get("/api/v1/accounts/A16").0 == 200);
    let mut client = client(&gate);
    for n in 0..16 {
        client.subscribe(&format!("account:A{n}"));
    }
    assert_eq!(client.refused_subscription("account:A16", None), "TOO_MANY_SUBSCRIPTIONS");
    client.text(r#"{"type":"unsubscribe","channel":"account:A3"}"#);
    client.of("unsubscribed", "account:A3");
    client.subscribe("account:A16");
}

#[test]
fn a_client_that_does_not_read_is_cut_off_and_told_so_and_the_others_hear_everything() {
    const ORDERS: usize = 16_000;
    let (_dir, gate) = gate(&[]);
    let mut slow = open_with(&gate.http, "", &[], Some(4_096)).unwrap();
    slow.subscribe("decisions");
    let ended = || gate.get_from(&gate.metrics, "/metrics").1.contains(r#"ordergate_ws_closed_total{reason="slow"} 1"#);
    let heard = std::thread::scope(|scope| {
        let mut good = open(&gate.http, "", &[]).unwrap();
        good.subscribe("decisions");
        let reader = scope.spawn(move || decision_ids(&mut good, ORDERS).0.len());
        let writer = scope.spawn(|| {
            for part in 0..ORDERS / 500 {
                let one = |n: usize| line("orders.intents", "ACC1", &order(&format!("S-{part}-{n}")).replace("AAPL", "NOPE"));
                assert_eq!(gate.records(&(0..500).map(one).collect::<String>()).0, 200);
            }
        });
        eventually("the end of the slow one", ended);
        // It does not come back before the listener has lost patience with whoever else does not read.
        std::thread::sleep(Duration::from_secs(12));
        assert_eq!(slow.closed(), 4008);
        writer.join().unwrap();
        reader.join().unwrap()
    });
    assert_eq!(heard, ORDERS, "who reads is not cut off");
    assert_eq!(gate.get("/readyz").0, 200);
}

#[test]
fn who_answers_pings_stays_and_who_says_nothing_for_forty_seconds_is_cut_off() {
    let (_dir, gate) = gate(&[]);
    let (mut alive, mut mute) = (client(&gate), client(&gate));
    alive.subscribe("decisions");
    assert!(alive.pings(Duration::from_secs(5)), "a client's ping is answered");
    assert!((0..2).all(|_| alive.is_pinged(Duration::from_secs(20))), "a ping comes every 15 s");
    eventually("the end of the mute one", || {
        gate.get_from(&gate.metrics, "/metrics").1.contains(r#"ordergate_ws_closed_total{reason="slow"} 1"#)
    });
    assert_eq!(mute.closed(), 4008);
    assert_eq!(decide(&gate, [1]), decision_ids(&mut alive, 1).0);
}

#[test]
fn a_stop_ends_every_websocket_with_going_away() {
    let (_dir, gate) = gate(&[]);
    let (mut idle, mut busy) = (client(&gate), client(&gate));
    busy.subscribe("decisions");
    busy.subscribe("account:ACC1");
    gate.signal("TERM");
    assert_eq!((idle.closed(), busy.closed()), (1001, 1001));
    assert_eq!(gate.wait(), Some(0));
}

#[test]
fn only_a_websocket_of_ours_is_opened_and_no_more_than_may_be() {
    let (_dir, gate) = gate(&[("http.connections_max", "4")]);
    let (status, body) = gate.get("/api/v1/ws");
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &body["code"]), (426, &json!("UPGRADE_REQUIRED")));
    let foreign = open(&gate.http, "", &[("origin", "http://evil.example")]).err().unwrap();
    assert_eq!((foreign.0, &foreign.1["code"]), (403, &json!("FOREIGN_ORIGIN")));
    let foreign = open(&gate.http, "", &[("host", "evil.example")]).err().unwrap();
    assert_eq!((foreign.0, &foreign.1["code"]), (421, &json!("FOREIGN_HOST")));
    assert_eq!(open(&gate.http, "?token=x", &[]).err().unwrap().1["code"], "UNKNOWN_PARAMETER");
    let own = format!("http://{}", gate.http);
    let mut open_ones: Vec<Client> = (0..4).map(|_| open(&gate.http, "", &[("origin", &own)]).unwrap()).collect();
    assert_eq!(open(&gate.http, "", &[]).err().unwrap().1["code"], "TOO_BUSY");
    open_ones.pop();
    eventually("a free place", || open(&gate.http, "", &[]).is_ok());
    open_ones[0].text("x");
    assert!(matches!(open_ones[0].heard(), Heard::Said(said) if said["code"] == "MALFORMED_BODY"));
}
