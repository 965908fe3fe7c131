//! Requests and answers in the documentation have the shapes of the served OpenAPI document: paths, parameters, bodies, statuses, fields.

#![expect(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

/// A request of the documentation and what is said to be its answer.
struct Shown {
    place: String,
    method: String,
    path: String,
    body: Option<Value>,
    status: Option<String>,
    answer: Option<Value>,
}

/// The fenced blocks of a text, each with the number of its first line.
fn blocks(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (number, line) in text.lines().enumerate() {
        match (&mut open, line.starts_with("```")) {
            (None, true) => open = Some((number + 2, String::new())),
            (Some(_), true) => found.extend(open.take()),
            (Some((_, block)), false) => *block += &format!("{line}\n"),
            (None, false) => {}
        }
    }
    found
}

/// The requests of a text, each with the block after it.
fn shown(file: &str, text: &str) -> Vec<Shown> {
    let blocks = blocks(text);
    let mut found = Vec::new();
    for (at, (number, block)) in blocks.iter().enumerate() {
        let (first, body) = block.split_once('\n').unwrap_or((block, ""));
        let mut words = first.split_whitespace();
        let (Some(method), Some(path)) = (words.next(), words.next()) else { continue };
        if !["GET", "POST", "PUT", "DELETE"].contains(&method) || !path.starts_with("/api/v1/") || path.contains('{') || path.contains("..")
        {
            continue;
        }
        let place = format!("{file}:{number}: {method} {path}");
        // Lines of records are no one JSON value.
        let lines = first.contains("ndjson");
        let read = |text: &str| serde_json::from_str(text).unwrap_or_else(|error| panic!("{place}: {error}: {text}"));
        let body = Some(body.trim()).filter(|body| !body.is_empty() && !lines).map(read);
        let next = blocks.get(at + 1).map_or("", |(_, block)| block.as_str());
        let (head, rest) = next.split_once('\n').unwrap_or((next, ""));
        let is_status = head.get(..3).is_some_and(|status| status.bytes().all(|byte| byte.is_ascii_digit()));
        let (status, answer) = if is_status { (Some(head[..3].to_owned()), rest) } else { (None, next) };
        let answer = Some(answer.trim()).filter(|answer| answer.starts_with('{')).map(read);
        found.push(Shown { place: place.clone(), method: method.to_lowercase(), path: path.to_owned(), body, status, answer });
    }
    found
}

/// The operation of a path with its ids in it.
fn operation<'a>(document: &'a Value, method: &str, path: &str) -> Option<&'a Value> {
    let asked: Vec<&str> = path.split('?').next().unwrap().split('/').collect();
    let fits = |template: &str| {
        let parts: Vec<&str> = template.split('/').collect();
        parts.len() == asked.len() && parts.iter().zip(&asked).all(|(part, word)| part.starts_with('{') || part == word)
    };
    let mut all: Vec<&String> = document["paths"].as_object()?.keys().filter(|template| fits(template)).collect();
    // A path that is written out goes before one with an id in that place.
    all.sort_by_key(|template| template.matches('{').count());
    all.iter().find_map(|template| document["paths"][template.as_str()].get(method))
}

fn faults(document: &Value, schema: &Value, value: &Value) -> Vec<String> {
    let mut schema = schema.clone();
    schema["components"] = document["components"].clone();
    let validator = jsonschema::validator_for(&schema).unwrap();
    validator.iter_errors(value).map(|error| format!("{} at {}", error, error.instance_path)).collect()
}

/// What of a request and its answer is not as the document says.
fn wrong(document: &Value, one: &Shown) -> Vec<String> {
    let Some(operation) = operation(document, &one.method, &one.path) else { return vec!["there is no such operation".to_owned()] };
    let mut found = Vec::new();
    let known: Vec<&str> = operation["parameters"].as_array().into_iter().flatten().filter_map(|known| known["name"].as_str()).collect();
    for name in one.path.split_once('?').map_or("", |(_, query)| query).split('&').filter_map(|pair| pair.split('=').next()) {
        if !name.is_empty() && !known.contains(&name) {
            found.push(format!("there is no parameter {name}"));
        }
    }
    let refused = one.status.as_deref().is_some_and(|status| status.starts_with('4') || status.starts_with('5'));
    if let Some(body) = one.body.as_ref().filter(|_| !refused) {
        found.extend(faults(document, &operation["requestBody"]["content"]["application/json"]["schema"], body));
    }
    let responses = &operation["responses"];
    let success = responses.as_object().unwrap().keys().find(|status| status.starts_with('2')).cloned().unwrap_or_default();
    let status = one.status.clone().unwrap_or(success);
    let class = format!("{}XX", &status[..1]);
    let content = [&responses[&status]["content"], &responses[&class]["content"]].into_iter().find(|content| content.is_object());
    match (content.and_then(|content| content.as_object()?.values().next()), &one.answer) {
        (Some(content), Some(answer)) => found.extend(faults(document, &content["schema"], answer)),
        (None, Some(_)) => found.push(format!("no answer is said to come with {status}")),
        (_, None) => {}
    }
    found
}

#[test]
fn what_the_documentation_shows_has_the_shapes_of_the_served_document() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let document: Value = serde_json::from_str(&fs::read_to_string(root.join("schemas/openapi.json")).unwrap()).unwrap();
    let (mut requests, mut answers, mut found) = (0, 0, Vec::new());
    for entry in fs::read_dir(root.join("docs")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        // Conversations, which `tests/websocket/document.rs` holds.
        if name == "WEBSOCKET.md" {
            continue;
        }
        for one in shown(&name, &fs::read_to_string(&path).unwrap()) {
            requests += 1;
            answers += usize::from(one.answer.is_some());
            found.extend(wrong(&document, &one).into_iter().map(|fault| format!("{}: {fault}", one.place)));
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
    assert!(requests >= 24 && answers >= 20, "{requests} requests, {answers} answers");
}

#[test]
fn sees_a_path_a_parameter_a_field_and_a_status_that_are_not_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let document: Value = serde_json::from_str(&fs::read_to_string(root.join("schemas/openapi.json")).unwrap()).unwrap();
    let faults = |text: &str| shown("x", text).iter().flat_map(|one| wrong(&document, one)).collect::<Vec<_>>();
    let of = |request: &str, answer: &str| format!("```\n{request}\n```\n```\n{answer}\n```\n");
    let split = json!({"symbol": "A", "from": "1", "to": "2"});
    assert_eq!(faults(&of(&format!("POST /api/v1/splits\n{split}"), &format!("201\n{split}"))), [] as [&str; 0]);
    for (request, answer) in [
        ("GET /api/v1/nothing".to_owned(), "200".to_owned()),
        ("GET /api/v1/decisions?colour=red".to_owned(), "200".to_owned()),
        (format!("POST /api/v1/splits\n{}", json!({"symbol": "A", "from": 1, "to": "2"})), format!("201\n{split}")),
        (format!("POST /api/v1/splits\n{split}"), format!("201\n{}", json!({"symbol": "A", "from": "1"}))),
        (format!("POST /api/v1/splits\n{split}"), format!("418\n{split}")),
    ] {
        assert!(!faults(&of(&request, &answer)).is_empty(), "{request}");
    }
}
