//! docs/WEBSOCKET.md: its conversation is held with a real daemon, line by line.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::client::{Client, open};
use crate::daemon::{Daemon, line};
use crate::{eventually, gate};

/// Whether a text is that of a line, in which `..` stands for whatever is left out.
fn fits(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split("..");
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        match rest.split_once(part) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// Hears until the line's message has come; what else came stays for later lines.
fn expect(client: &mut Client, heard: &mut Vec<String>, pattern: &str) {
    if let Some(place) = heard.iter().position(|text| fits(pattern, text)) {
        heard.remove(place);
        return;
    }
    loop {
        let text = client.text_heard().unwrap_or_else(|| panic!("{pattern}\ndoes not come; this came:\n{}", heard.join("\n")));
        if fits(pattern, &text) {
            return;
        }
        heard.push(text);
    }
}

/// `POST path body` or `GET path`.
fn request(gate: &Daemon, asked: &str) -> (u16, Value) {
    match asked.strip_prefix("POST ").and_then(|rest| rest.split_once(' ')) {
        Some((path @ "/api/v1/records", body)) => gate.post(path, "application/x-ndjson", body),
        Some((path, body)) => gate.post(path, "application/json", body),
        None => panic!("{asked} is no request"),
    }
}

#[test]
fn the_conversation_of_the_document_is_held_as_it_stands_there() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/WEBSOCKET.md")).unwrap();
    let conversation = text.split("```text\n").nth(1).unwrap().split("```").next().unwrap();
    let (_dir, gate) = gate(&[]);
    let bar = r#"{"event":"trade","symbol":"MSFT","price":"400.5","ts":1772811005000}"#;
    assert_eq!(gate.records(&line("market.prices", "MSFT", bar)).0, 200);
    eventually("the chart", || gate.get("/api/v1/chart/MSFT/ohlcv?timeframe=1min").0 == 200);
    let (mut client, mut heard) = (open(&gate.http, "", &[]).expect("it opens"), Vec::new());
    let mut said = 0;
    for line in conversation.lines() {
        match line.split_at_checked(2) {
            Some(("> ", text)) => client.text(text),
            Some(("< ", pattern)) => {
                expect(&mut client, &mut heard, pattern);
                said += 1;
            }
            Some(("$ ", asked)) => assert_eq!(request(&gate, asked).0, 200, "{line}"),
            _ => panic!("{line}"),
        }
    }
    assert!(said > 10, "only {said} messages");
}

#[test]
fn a_line_fits_only_what_it_says() {
    assert!(fits("abc", "abc") && fits("a..c", "abc") && fits("a..c..e", "abcde") && fits("a..", "a"));
    assert!(!fits("abc", "abcd") && !fits("a..d", "abc") && !fits("b..c", "abc") && !fits("a..c..c", "abc"));
}
