//! What every body of the API is refused for, over HTTP: what serde by itself would let pass, and which field a refusal names.
//!
//! Invariant: the bodies come from the document that the daemon serves, so that a new one is looked at too.

#![expect(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

mod daemon;

use daemon::Daemon;
use serde_json::{Value, json};

fn send(gate: &Daemon, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> (u16, Value) {
    let url = format!("http://{}{path}", gate.http);
    let request = ureq::http::Request::builder().method(method).uri(url).header("content-type", "application/json");
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    let mut answer = gate.agent.run(request.body(body.to_owned()).unwrap()).unwrap();
    let text = answer.body_mut().read_to_string().unwrap();
    (answer.status().as_u16(), serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

/// The schema behind a reference, `null` beside it left out.
fn resolved<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    let schema = schema["oneOf"].as_array().and_then(|any| any.iter().find(|one| one["type"] != "null")).unwrap_or(schema);
    match schema["$ref"].as_str() {
        Some(name) => &document["components"]["schemas"][name.rsplit('/').next().unwrap()],
        None => schema,
    }
}

/// Method, path and schema of every body that is an object of ours.
fn bodies(document: &Value) -> Vec<(String, String, Value)> {
    let mut found = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let schema = resolved(document, &operation["requestBody"]["content"]["application/json"]["schema"]);
            if schema["properties"].is_object() {
                let path = path.split('/').map(|part| if part.starts_with('{') { "x" } else { part }).collect::<Vec<_>>().join("/");
                found.push((method.to_uppercase(), path, schema.clone()));
            }
        }
    }
    found
}

#[test]
fn no_array_is_an_object_and_no_field_comes_twice_in_any_body_of_the_document() {
    let dir = tempfile::tempdir().unwrap();
    let gate = Daemon::start(dir.path(), &[("notify.enabled", "true")]);
    let document: Value = serde_json::from_str(&gate.get("/api/openapi.json").1).unwrap();
    let bodies = bodies(&document);
    assert!(bodies.len() > 25, "{}", bodies.len());
    let (mut nested, mut words, mut faults) = (0, 0, Vec::new());
    let mut expect = |method: &str, path: &str, body: &str, field: &str| {
        let (status, said) = send(&gate, method, path, &[], body);
        let named = said["field"].as_str().unwrap_or_default();
        if status != 422 || said["code"] != "INVALID_FIELD" || named != field {
            faults.push(format!("{method} {path} {body}: {status} {said}"));
        }
    };
    for (method, path, schema) in &bodies {
        for (name, property) in schema["properties"].as_object().unwrap() {
            let inner = resolved(&document, property);
            if inner["type"] == "object" || inner["properties"].is_object() {
                nested += 1;
                expect(method, path, &format!(r#"{{"{name}":[]}}"#), name);
                expect(method, path, &format!(r#"{{"{name}":["x"]}}"#), name);
            }
            let kinds =
                |kind: &str| inner["type"] == kind || inner["type"].as_array().is_some_and(|kinds| kinds.iter().any(|is| is == kind));
            let is_text = kinds("string") && inner["enum"].is_null();
            if inner["enum"].is_array() {
                words += 1;
                expect(method, path, &format!(r#"{{"{name}":7}}"#), name);
                expect(method, path, &format!(r#"{{"{name}":[]}}"#), name);
            }
            if is_text {
                expect(method, path, &format!(r#"{{"{name}":"x","{name}":"x"}}"#), name);
                expect(method, path, &format!(r#"{{"{name}":{{}}}}"#), name);
            }
        }
        for name in schema["required"].as_array().into_iter().flatten().take(1) {
            let (status, said) = send(&gate, method, path, &[], "{}");
            assert_eq!(status, 422, "{method} {path}: {said}");
            let required = schema["required"].as_array().unwrap();
            assert!(required.contains(&said["field"]), "{method} {path} lacks {name}: {said}");
        }
    }
    assert!(nested >= 8 && words >= 10, "{nested} {words}");
    assert_eq!(faults, [] as [&str; 0], "{}", faults.join("\n"));
    gate.stop();
}

#[test]
fn a_refusal_names_the_field_as_the_body_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let gate = Daemon::start(dir.path(), &[]);
    let rule = json!({"id": "r", "type": "max_position_size", "threshold": "10", "unit": "percent", "action": "block"});
    for (field, wrong) in [
        ("threshold", json!("0")),
        ("warn_at", json!("-1")),
        ("window", json!(1)),
        ("id", json!("not an id")),
        ("scope.account", json!({"account": "not an id"})),
    ] {
        let mut body = rule.clone();
        body[field.split('.').next().unwrap()] = wrong;
        let (status, said) = send(&gate, "POST", "/api/v1/risk-rules", &[], &body.to_string());
        assert_eq!((status, said["field"].as_str()), (422, Some(field)), "{said}");
        let (status, said) = send(&gate, "POST", "/api/v1/risk-rules/test", &[], &json!({"account": "A", "rule": body}).to_string());
        assert_eq!((status, said["field"].as_str()), (422, Some(format!("rule.{field}").as_str())), "{said}");
    }
    let (status, said) = send(&gate, "POST", "/api/v1/gate-settings", &[], r#"{"sizing_percent":"1","sizing_percent":"2"}"#);
    assert_eq!((status, said["field"].as_str()), (422, Some("sizing_percent")), "{said}");
    gate.stop();
}

#[test]
fn a_rule_is_deleted_only_as_it_was_seen_where_the_request_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let gate = Daemon::start(dir.path(), &[]);
    let rule = json!({"id": "r", "type": "max_position_size", "threshold": "10", "unit": "percent", "action": "block"});
    assert_eq!(send(&gate, "POST", "/api/v1/risk-rules", &[], &rule.to_string()).0, 201);
    let delete = |tag: &[(&str, &str)]| {
        let request = ureq::http::Request::builder().method("DELETE").uri(format!("http://{}/api/v1/risk-rules/r", gate.http));
        let request = tag.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        gate.agent.run(request.body(()).unwrap()).unwrap().status().as_u16()
    };
    assert_eq!(delete(&[("if-match", "\"123\"")]), 412);
    assert_eq!(delete(&[("if-match", "no tag")]), 412);
    assert_eq!(gate.get("/api/v1/risk-rules/r").0, 200, "it is still there");
    let seen = gate.agent.get(format!("http://{}/api/v1/risk-rules/r", gate.http)).call().unwrap();
    let tag = seen.headers().get("etag").unwrap().to_str().unwrap().to_owned();
    assert_eq!(delete(&[("if-match", &tag)]), 200);
    assert_eq!(delete(&[]), 404);
    gate.stop();
}

#[test]
fn what_quiet_hours_may_not_be_is_told_of_the_one_of_three_that_is_at_fault() {
    let dir = tempfile::tempdir().unwrap();
    let gate = Daemon::start(dir.path(), &[]);
    for (field, quiet) in [
        ("quiet_hours.from", json!({"from": "24:00", "to": "07:00", "zone": "UTC"})),
        ("quiet_hours.to", json!({"from": "22:00", "to": "7", "zone": "UTC"})),
        ("quiet_hours.zone", json!({"from": "22:00", "to": "07:00", "zone": "Nowhere/At_All"})),
        ("quiet_hours", json!({"from": "22:00", "to": "22:00", "zone": "UTC"})),
        ("quiet_hours.zone", json!({"from": "22:00", "to": "07:00"})),
    ] {
        let wish = json!({"type": "order_filled", "channel": "email", "enabled": true, "min_priority": "low", "quiet_hours": quiet});
        let (status, said) = send(&gate, "POST", "/api/v1/notification-preferences", &[], &wish.to_string());
        assert_eq!((status, said["field"].as_str()), (422, Some(field)), "{said}");
    }
    gate.stop();
}
