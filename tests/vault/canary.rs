//! A secret that goes through every path of the API, in right and in wrong requests, and then is looked for everywhere.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use crate::broker::Broker;
use crate::daemon::Daemon;
use crate::search::{Canary, files};
use crate::world::{MASTER, OTHER_MASTER, World};

const KEYS: &str = "/api/v1/api-keys";
/// What is read and written in buffers that go with their connections is gone by then.
const GIVEN_BACK: Duration = Duration::from_secs(40);

/// A key, a secret and a passphrase, none of which may be seen again but by `reveal`.
struct Secrets([Canary; 3]);

impl Secrets {
    fn new() -> Self {
        Self([24, 43, 20].map(Canary::new))
    }

    fn body(&self, broker: &str, environment: &str) -> Map<String, Value> {
        let Self([key, secret, passphrase]) = self;
        let body = json!({"broker": broker, "name": "main", "environment": environment, "key": key.text, "secret": secret.text,
                          "passphrase": passphrase.text});
        body.as_object().unwrap().clone()
    }

    fn count(&self, bytes: &[u8]) -> usize {
        self.0.iter().map(|canary| canary.count(bytes)).sum()
    }

    fn count_in_memory(&self, process: u32) -> [usize; 3] {
        [0, 1, 2].map(|at| self.0[at].count_in_memory(process))
    }
}

/// Requests that are not taken, each with the secrets in it.
fn wrong_bodies(secrets: &Secrets) -> Vec<String> {
    let whole = secrets.body("alpaca", "paper");
    let secret = &secrets.0[1].text;
    let mut bodies = Vec::new();
    for field in ["broker", "environment", "owner", "expires_at", "key", "secret", "passphrase", secret.as_str(), "other"] {
        for value in
            [json!({secret.as_str(): secret}), json!([secret]), json!(secret.repeat(400)), json!(7), json!(format!("{secret}\u{0}"))]
        {
            let mut body = whole.clone();
            body.insert(field.to_owned(), value);
            bodies.push(Value::Object(body).to_string());
        }
        let mut body = whole.clone();
        if body.remove(field).is_some() && field != "passphrase" {
            bodies.push(Value::Object(body).to_string());
        }
    }
    let good = Value::Object(whole).to_string();
    bodies.push(good[..good.len() - 1].to_owned());
    bodies.push(format!("{good}{secret}"));
    bodies.push(format!("[{good}]"));
    bodies.push(secret.clone());
    bodies.push(good.replace("\"name\"", "\"secret\""));
    bodies.push(good.replace("main", &"x".repeat(1 << 17)));
    bodies
}

/// Everything that one can do with a key, right and wrong.
fn drive_keys(world: &World, gate: &Daemon, secrets: &Secrets) -> Vec<String> {
    let mut ids = Vec::new();
    for broker in ["alpaca", "interactive_brokers", "td_ameritrade", "robinhood", "coinbase", "binance"] {
        for environment in ["paper", "live"] {
            let body = Value::Object(secrets.body(broker, environment)).to_string();
            let made = world.ask(gate, "POST", KEYS, &[("idempotency-key", &format!("k-{broker}-{environment}"))], &body);
            assert_eq!(made.status, 201, "{}", made.body);
            ids.push(made.body["id"].as_str().unwrap().to_owned());
            world.ask(gate, "POST", KEYS, &[("idempotency-key", &format!("k-{broker}-{environment}"))], &body);
        }
    }
    for body in wrong_bodies(secrets) {
        let refused = world.ask(gate, "POST", KEYS, &[], &body);
        assert!((400..500).contains(&refused.status), "{} {body}", refused.status);
    }
    let new = json!({"key": secrets.0[0].text, "secret": secrets.0[1].text, "passphrase": secrets.0[2].text}).to_string();
    for id in &ids {
        let path = format!("{KEYS}/{id}");
        let tag = world.ask(gate, "GET", &path, &[], "").tag;
        for (tag, body) in [("\"99\"", new.as_str()), ("x", &new), (&tag, "{"), (&tag, &new.replace("\"key\"", "\"kex\"")), (&tag, &new)] {
            world.ask(gate, "POST", &format!("{path}/rotate"), &[("if-match", tag)], body);
        }
        // Five times, since a broker answers each of them otherwise.
        for _ in 0..5 {
            assert_eq!(world.ask(gate, "POST", &format!("{path}/verify"), &[], "").status, 200);
        }
        let (revealed, text) = World::ask_quietly(gate, "POST", &format!("{path}/reveal"), &[], "");
        assert_eq!((revealed.status, secrets.count(text.as_bytes())), (200, 3), "what is revealed is found where it is");
        world.ask(gate, "GET", &format!("{path}/audit-logs"), &[], "");
    }
    for (headers, body) in [
        (vec![("content-type", "text/plain")], new.clone()),
        (vec![("content-encoding", "gzip")], new.clone()),
        (vec![("if-match", "\"1\"")], new.replace(':', "=")),
    ] {
        world.ask(gate, "POST", KEYS, &headers, &body);
        world.ask(gate, "POST", &format!("{KEYS}/{}/rotate", ids[0]), &headers, &body);
    }
    world.ask(gate, "POST", "/api/v1/vault/rotate", &[], "");
    world.ask(gate, "POST", "/api/v1/vault/verify", &[], "");
    let tag = world.ask(gate, "GET", &format!("{KEYS}/{}", ids[1]), &[], "").tag;
    world.ask(gate, "DELETE", &format!("{KEYS}/{}", ids[1]), &[("if-match", &tag)], "");
    ids
}

/// Connections that end, or turn to nonsense, in the middle of a secret.
fn drive_connections(gate: &Daemon, secrets: &Secrets) {
    let body = Value::Object(secrets.body("alpaca", "paper")).to_string();
    for (length, sent) in [(body.len() + 10, body.clone()), (body.len(), body[..body.len() - 30].to_owned()), (7, body)] {
        let mut stream = TcpStream::connect(&gate.http).unwrap();
        let head =
            format!("POST {KEYS} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n", gate.http);
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(sent.as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        // Whatever is answered, if anything.
        let _ = stream.read(&mut [0; 1_024]);
    }
}

/// Every operation that takes a body, with the secret where it does not belong, and as what one proves oneself by.
fn drive_others(world: &World, gate: &Daemon, secrets: &Secrets) -> usize {
    let secret = secrets.0[1].text.clone();
    let document = World::ask_quietly(gate, "GET", "/api/openapi.json", &[], "").0.body;
    let mut driven = 0;
    for (path, operations) in document["paths"].as_object().unwrap() {
        for method in operations.as_object().unwrap().keys().filter(|method| ["get", "put", "post", "delete"].contains(&method.as_str())) {
            let (method, path) = (method.to_ascii_uppercase(), path.replace(['{', '}'], ""));
            if path.ends_with("/ws") || path.ends_with("/vault/rotate") {
                continue;
            }
            driven += 1;
            let bearer = format!("Bearer {secret}");
            for (headers, body) in [
                (vec![("authorization", bearer.as_str())], String::new()),
                (vec![("cookie", secret.as_str())], json!({"not_a_field": secret}).to_string()),
                (vec![("if-match", "\"1\"")], format!("{{\"not_a_field\":\"{secret}")),
                (vec![("content-type", "text/plain")], secret.clone()),
            ] {
                let body = if method == "GET" || method == "DELETE" { String::new() } else { body };
                let answer = world.ask(gate, &method, &path, &headers, &body);
                assert!(answer.status < 500 || answer.status == 503, "{method} {path}: {} {}", answer.status, answer.body);
            }
        }
    }
    for body in [json!({"name": "root", "password": secret}), json!({"name": secret, "password": [secret]}), json!({"password": secret})] {
        world.ask(gate, "POST", "/api/v1/auth/login", &[], &body.to_string());
    }
    driven
}

/// What it must not be in: what was answered, the metrics, the topics, the daemon's log, its files.
fn look_everywhere(world: &World, gate: &Daemon, secrets: &Secrets) {
    assert_eq!(secrets.count(world.heard.borrow().as_bytes()), 0, "it was answered");
    let metrics = gate.get_from(&gate.metrics, "/metrics").1;
    assert!(metrics.contains("ordergate_vault"));
    assert_eq!(secrets.count(metrics.as_bytes()), 0, "it is in the metrics");
    for topic in ["gate.audit", "gate.control", "gate.decisions", "gate.notifications", "gate.dlq", "orders.intents", "gate.commands"] {
        let text = gate.get(&format!("/api/v1/topics/{topic}/records?limit=10000")).1;
        assert_eq!(secrets.count(text.as_bytes()), 0, "it is in {topic}");
    }
    look_in_files(world, secrets);
}

fn look_in_files(world: &World, secrets: &Secrets) {
    let all = files(world.folder.path());
    assert!(all.len() >= 3, "{all:?}");
    let mut bytes = 0;
    for path in all {
        // A file of the store that has just been folded into another.
        let Ok(text) = std::fs::read(&path) else { continue };
        bytes += text.len();
        assert_eq!(secrets.count(&text), 0, "it is in {}", path.display());
    }
    println!("{bytes} bytes of files and log looked through");
}

#[test]
fn a_secret_that_went_through_every_path_is_nowhere_but_where_it_was_revealed() {
    let broker = Broker::start();
    let world = World::new(&format!("http://{}", broker.at));
    let secrets = Secrets::new();
    let gate = world.daemon(MASTER);
    let ids = drive_keys(&world, &gate, &secrets);
    drive_connections(&gate, &secrets);
    let driven = drive_others(&world, &gate, &secrets);
    assert!(driven > 80 && broker.asked() >= 20, "{driven} operations, {} requests at the broker", broker.asked());
    look_everywhere(&world, &gate, &secrets);
    println!("{driven} operations, {} bytes of answers, {} requests at brokers", world.heard.borrow().len(), broker.asked());
    // What is left in memory of those who were heard last: other requests come over it. What somebody holds stays.
    let begun = Instant::now();
    let left = loop {
        for _ in 0..300 {
            gate.get("/readyz");
        }
        gate.signal("STOP");
        let left = secrets.count_in_memory(gate.child.id());
        if begun.elapsed() > GIVEN_BACK {
            secrets.0.iter().flat_map(|canary| canary.before_it_in_memory(gate.child.id())).for_each(|before| println!("{before}\n"));
        }
        gate.signal("CONT");
        println!("in the memory of the stopped process: {left:?} copies of key, secret, passphrase");
        if left == [0; 3] || begun.elapsed() > GIVEN_BACK {
            break left;
        }
        std::thread::sleep(Duration::from_secs(2));
    };
    assert_eq!(left, [0; 3], "something holds it");
    assert_eq!(gate.stop(), Some(0));
    // A locked vault takes as little of it.
    let gate = world.daemon(OTHER_MASTER);
    let body = Value::Object(secrets.body("alpaca", "paper")).to_string();
    assert_eq!(world.ask(&gate, "POST", KEYS, &[], &body).status, 503);
    assert_eq!(world.ask(&gate, "POST", &format!("{KEYS}/{}/reveal", ids[0]), &[], "").status, 503);
    look_everywhere(&world, &gate, &secrets);
    gate.kill();
    look_in_files(&world, &secrets);
}
