//! Comparison of a run with an expectation, key by key, as `tests/vectors/README.md` says.
//!
//! Invariant: texts are compared as texts; a list is compared whole. Deliberately absent: tolerance.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::fold::{Emitted, Run};

/// All differences, each with what was expected and what came.
pub fn differences(expected: &Value, run: &Run) -> Vec<String> {
    let expected = expected.as_object().expect("an object");
    let mut complaints = Vec::new();
    for (key, wanted) in expected {
        match key.as_str() {
            "why" => {}
            "decisions" => decisions(wanted, run, &mut complaints),
            "same_decision_id" => same_decision_id(wanted, run, &mut complaints),
            "books" => books(wanted, &run.books(), &mut complaints),
            "notified" => notified(wanted, run, &mut complaints),
            "commands" | "command_ids" | "notifications" | "notification_ids" | "urgent" => {
                list(key, wanted, &actual(key, run), &mut complaints);
            }
            other => complaints.push(format!("  unknown key {other}")),
        }
    }
    complaints
}

/// What a run has for one of the keys that are plain lists.
pub fn actual(key: &str, run: &Run) -> Value {
    let texts: Vec<String> = match key {
        "commands" => run.on("gate.commands").map(|emitted| command(&emitted.value)).collect(),
        "command_ids" => run.on("gate.commands").map(|emitted| text(&emitted.value["command_id"])).collect(),
        "notification_ids" => run.on("gate.notifications").map(|emitted| text(&emitted.value["notification_id"])).collect(),
        "notifications" => run.on("gate.notifications").map(|emitted| notification(&emitted.value)).collect(),
        "urgent" => run
            .on("gate.notifications")
            .filter(|emitted| emitted.value["priority"] == "urgent")
            .map(|emitted| notification(&emitted.value))
            .collect(),
        other => panic!("no list: {other}"),
    };
    json!(texts)
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn or_dash(value: Option<&Value>) -> String {
    value.filter(|value| !value.is_null()).map_or_else(|| "-".to_owned(), text)
}

fn command(value: &Value) -> String {
    let rest = match value["event"].as_str() {
        Some("cancel_orders") => {
            let ids = value["client_order_ids"].as_array().expect("client_order_ids");
            ids.iter().map(text).collect::<Vec<_>>().join(",")
        }
        _ => format!("{} {}", text(&value["side"]), text(&value["qty"])),
    };
    let [account, symbol, rule] = ["account", "symbol", "rule_id"].map(|name| or_dash(value.get(name)));
    format!("{} {account} {symbol} {rule} {rest}", text(&value["event"]))
}

fn notification(value: &Value) -> String {
    let head = format!("{} {}", text(&value["code"]), or_dash(value.get("account")));
    match value["data"].get("rule_id").filter(|rule| !rule.is_null()) {
        Some(rule) => format!("{head} {}", text(rule)),
        None => head,
    }
}

fn list(key: &str, wanted: &Value, got: &Value, complaints: &mut Vec<String>) {
    if wanted == got {
        return;
    }
    let empty = Vec::new();
    let (wanted, got) = (wanted.as_array().unwrap_or(&empty), got.as_array().unwrap_or(&empty));
    complaints.push(format!("  {key}:"));
    for at in 0..wanted.len().max(got.len()) {
        let (a, b) = (wanted.get(at), got.get(at));
        if a == b {
            complaints.push(format!("      {}", or_dash(a)));
        } else {
            complaints.extend(a.map(|a| format!("    - {}", text(a))));
            complaints.extend(b.map(|b| format!("    + {}", text(b))));
        }
    }
}

/// A decision in the form of the expectation, with the optional fields that `wanted` has.
fn decision(value: &Value, wanted: Option<&Value>) -> Value {
    let empty = Vec::new();
    let reasons = value["reasons"].as_array().unwrap_or(&empty);
    let mut shown = Map::new();
    shown.insert("id".into(), value["client_order_id"].clone());
    shown.insert("verdict".into(), value["verdict"].clone());
    shown.insert("approved".into(), value["approved_qty"].clone());
    shown.insert("codes".into(), reasons.iter().map(code).collect());
    if wanted.is_some_and(|wanted| wanted.get("equity").is_some()) {
        shown.insert("equity".into(), value["equity"].clone());
    }
    if let Some(Value::Object(rules)) = wanted.and_then(|wanted| wanted.get("current")) {
        let of = |rule: &String| {
            let reason = reasons.iter().find(|reason| reason["rule_id"] == rule.as_str());
            (rule.clone(), reason.map_or(Value::Null, |reason| reason["current"].clone()))
        };
        shown.insert("current".into(), Value::Object(rules.keys().map(of).collect()));
    }
    Value::Object(shown)
}

fn code(reason: &Value) -> Value {
    let mut words = text(&reason["code"]);
    if let Some(rule) = reason.get("rule_id").filter(|rule| !rule.is_null()) {
        words = format!("{words} {}", text(rule));
    }
    for flag in ["exempt", "observed"] {
        if reason[flag] == true {
            words = format!("{words} {flag}");
        }
    }
    Value::String(words)
}

fn decisions(wanted: &Value, run: &Run, complaints: &mut Vec<String>) {
    let wanted = wanted.as_array().expect("a list of decisions");
    let got: Vec<&Emitted> = run.on("gate.decisions").collect();
    for at in 0..wanted.len().max(got.len()) {
        let a = wanted.get(at);
        let b = got.get(at).map(|emitted| decision(&emitted.value, a));
        if a.map(sorted) != b.as_ref().map(sorted) {
            complaints.push(format!("  decision {at}:"));
            complaints.extend(a.map(|a| format!("    - {a}")));
            complaints.extend(b.map(|b| format!("    + {b} (line {})", got[at].line)));
        }
    }
}

/// Objects compare by content, whatever the order of their fields.
fn sorted(value: &Value) -> BTreeMap<String, String> {
    value.as_object().expect("an object").iter().map(|(key, value)| (key.clone(), value.to_string())).collect()
}

fn same_decision_id(wanted: &Value, run: &Run, complaints: &mut Vec<String>) {
    let got: Vec<&Emitted> = run.on("gate.decisions").collect();
    let places: Vec<usize> = wanted.as_array().expect("places").iter().filter_map(|at| at.as_u64()?.try_into().ok()).collect();
    for pair in places.windows(2) {
        let [a, b] = [pair[0], pair[1]].map(|at| got.get(at).map(|emitted| &emitted.bytes));
        if a.is_none() || a != b {
            complaints.push(format!("  decisions {} and {} are not the same bytes", pair[0], pair[1]));
        }
    }
}

fn notified(wanted: &Value, run: &Run, complaints: &mut Vec<String>) {
    for (code, count) in wanted.as_object().expect("codes with counts") {
        let got = run.on("gate.notifications").filter(|emitted| emitted.value["code"] == code.as_str()).count();
        if *count != json!(got) {
            complaints.push(format!("  notified {code}: expected {count}, got {got}"));
        }
    }
}

fn books(wanted: &Value, got: &Value, complaints: &mut Vec<String>) {
    for (account, fields) in wanted.as_object().expect("accounts") {
        for (field, wanted) in fields.as_object().expect("fields") {
            let got = &got[account][field];
            match field.as_str() {
                "positions" => positions(account, wanted, got, complaints),
                "working" => {
                    let leaves: BTreeMap<String, &Value> =
                        got.as_array().into_iter().flatten().map(|order| (text(&order["client_order_id"]), &order["leaves"])).collect();
                    same(&format!("{account} working"), &sorted(wanted), &sorted(&json!(leaves)), complaints);
                }
                _ => same(&format!("{account} {field}"), wanted, got, complaints),
            }
        }
    }
}

fn positions(account: &str, wanted: &Value, got: &Value, complaints: &mut Vec<String>) {
    for (symbol, fields) in wanted.as_object().expect("symbols") {
        for (field, wanted) in fields.as_object().expect("fields") {
            same(&format!("{account} {symbol} {field}"), wanted, &got[symbol][field], complaints);
        }
    }
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, wanted: &T, got: &T, complaints: &mut Vec<String>) {
    if wanted != got {
        complaints.push(format!("  book {what}: expected {wanted:?}, got {got:?}"));
    }
}
