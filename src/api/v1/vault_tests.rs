//! `/api-keys` and `/vault` over HTTP: what is shown, who may, and that secrets stay where they belong.

use std::io::Write;
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use axum::{Extension, Router};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::{VaultDesk, vault_routes};
use crate::api::caller::{Accounts, Caller, Role, Scope};
use crate::control::directory::DirectoryService;
use crate::directory::Kind;
use crate::telemetry;
use crate::vault::tests::world::{MemoryLog, masters, options, vault_with};
use crate::vault::{Masters, Options};

const CANARY: &str = "canaryTHATmustNOTsing0123456789";

struct World {
    log: Arc<MemoryLog>,
    desk: Arc<VaultDesk>,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("{} {}", self.status, self.text))
    }

    fn tag(&self) -> String {
        self.headers["etag"].to_str().unwrap().to_owned()
    }

    fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }
}

fn caller(name: &str, role: Role, scopes: &[Scope]) -> Caller {
    Caller {
        name: name.to_owned(),
        user: Some(name.to_owned()),
        role,
        scopes: scopes.to_vec(),
        accounts: Accounts::All,
        address: [127, 0, 0, 1].into(),
        proof: None,
    }
}

fn alice() -> Caller {
    caller("alice", Role::User, &[Scope::VaultReveal])
}

impl World {
    fn new(masters: Masters, options: Options) -> Self {
        Self::over(MemoryLog::new(), masters, options)
    }

    fn over(log: Arc<MemoryLog>, masters: Masters, options: Options) -> Self {
        let vault = Arc::new(vault_with(&log, masters, options));
        let directory = DirectoryService::start(log.clone()).unwrap();
        Self { desk: Arc::new(VaultDesk { vault, topics: log.clone(), directory }), log }
    }

    async fn ask(&self, caller: &Caller, method: &str, path: &str, tag: Option<&str>, body: Option<&str>) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(tag) = tag {
            request = request.header("if-match", tag);
        }
        let request = match body {
            Some(body) => request.header("content-type", "application/json").body(Body::from(body.to_owned())),
            None => request.body(Body::empty()),
        };
        let router: Router = vault_routes().with_state(self.desk.clone()).split_for_parts().0.layer(Extension(caller.clone()));
        let (parts, body) = router.oneshot(request.unwrap()).await.unwrap().into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        Answer { status: parts.status, headers: parts.headers, text: String::from_utf8(bytes.to_vec()).unwrap() }
    }

    async fn made(&self, caller: &Caller) -> (String, String) {
        let made = self.ask(caller, "POST", "/api-keys", None, Some(&new_key("a key"))).await;
        assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
        (made.json()["id"].as_str().unwrap().to_owned(), made.tag())
    }
}

fn new_key(name: &str) -> String {
    json!({"broker": "robinhood", "name": name, "environment": "paper", "key": "PKABCDEFGHIJ12345678", "secret": CANARY}).to_string()
}

fn run(test: impl AsyncFnOnce()) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test());
}

#[test]
fn a_key_goes_through_its_life_over_http() {
    run(async || {
        let world = World::new(masters(1), options());
        let alice = alice();
        let made = world.ask(&alice, "POST", "/api-keys", None, Some(&new_key("mine"))).await;
        assert_eq!((made.status, made.json()["last4"].as_str()), (StatusCode::CREATED, Some("5678")));
        let id = made.json()["id"].as_str().unwrap().to_owned();
        assert_eq!(made.headers["location"], format!("/api/v1/api-keys/{id}"));
        let path = format!("/api-keys/{id}");
        let got = world.ask(&alice, "GET", &path, None, None).await;
        assert_eq!((got.json(), got.tag()), (made.json(), "\"1\"".to_owned()));
        let update = json!({"name": "renamed", "status": "active", "expires_at": "2999-01-01T00:00:00Z"}).to_string();
        assert_eq!(world.ask(&alice, "PUT", &path, None, Some(&update)).await.code(), "PRECONDITION_REQUIRED");
        let changed = world.ask(&alice, "PUT", &path, Some("\"1\""), Some(&update)).await;
        assert_eq!((changed.json()["name"].as_str(), changed.tag()), (Some("renamed"), "\"2\"".to_owned()));
        assert_eq!(changed.json()["expires_at"], "2999-01-01T00:00:00Z");
        assert_eq!(world.ask(&alice, "PUT", &path, Some("\"1\""), Some(&update)).await.code(), "PRECONDITION_FAILED");
        let fresh = json!({"key": "PKABCDEFGHIJ99990000", "secret": "another", "passphrase": "p"}).to_string();
        let rotated = world.ask(&alice, "POST", &format!("{path}/rotate"), Some("\"2\""), Some(&fresh)).await;
        assert_eq!((rotated.json()["secret_version"].as_u64(), rotated.json()["last4"].as_str()), (Some(2), Some("0000")));
        let revealed = world.ask(&alice, "POST", &format!("{path}/reveal"), None, None).await;
        assert_eq!((revealed.json()["secret"].as_str(), revealed.json()["passphrase"].as_str()), (Some("another"), Some("p")));
        assert_eq!(revealed.headers["cache-control"], "no-store");
        let verified = world.ask(&alice, "POST", &format!("{path}/verify"), None, None).await;
        assert_eq!((verified.json()["checked"].as_str(), verified.json()["outcome"].as_str()), (Some("format"), Some("unusual")));
        let listed = world.ask(&alice, "GET", "/api-keys?broker=robinhood&status=active&limit=1", None, None).await;
        assert_eq!((listed.json()["items"].as_array().unwrap().len(), listed.json().get("next_cursor")), (1, None));
        assert_eq!(world.ask(&alice, "DELETE", &path, Some("\"2\""), None).await.code(), "PRECONDITION_FAILED");
        assert_eq!(world.ask(&alice, "DELETE", &path, Some("\"3\""), None).await.status, StatusCode::NO_CONTENT);
        assert_eq!(world.ask(&alice, "GET", &path, None, None).await.code(), "UNKNOWN_OBJECT");
        let trail = world.ask(&alice, "GET", &format!("{path}/audit-logs?limit=500"), None, None).await.json();
        let actions: Vec<String> = trail["items"]
            .as_array()
            .unwrap()
            .iter()
            .rev()
            .map(|item| format!("{} {}", item["action"].as_str().unwrap(), item["result"].as_str().unwrap()))
            .collect();
        for expected in [
            "api_key.create begun",
            "api_key.create ok",
            "api_key.change ok",
            "api_key.rotate ok",
            "api_key.reveal ok",
            "api_key.verify ok",
            "api_key.delete ok",
        ] {
            assert!(actions.iter().any(|action| action == expected), "{expected} in {actions:?}");
        }
    });
}

#[test]
fn who_asked_for_a_secret_and_was_not_told_is_in_the_trail_too() {
    run(async || {
        let world = World::new(masters(1), Options { reveals_per_minute: 1, verifications_per_minute: 1, ..options() });
        let (id, _) = world.made(&alice()).await;
        let path = format!("/api-keys/{id}");
        for what in ["reveal", "reveal", "verify", "verify"] {
            world.ask(&alice(), "POST", &format!("{path}/{what}"), None, None).await;
        }
        let without = caller("alice", Role::User, &[]);
        assert_eq!(world.ask(&without, "POST", &format!("{path}/reveal"), None, None).await.code(), "FORBIDDEN");
        let trail = world.ask(&alice(), "GET", &format!("{path}/audit-logs?limit=500"), None, None).await.json();
        let ends = |action: &str| -> Vec<String> {
            let of = trail["items"].as_array().unwrap().iter().rev().filter(|item| item["action"] == action);
            of.map(|item| item["result"].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!((ends("api_key.reveal"), ends("api_key.verify")), (words("ok too_often FORBIDDEN"), words("ok too_often")));
    });
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

#[test]
fn pages_of_keys_and_of_the_trail_follow_one_another() {
    run(async || {
        let world = World::new(masters(1), options());
        let mut ids = Vec::new();
        for _ in 0..7 {
            ids.push(world.made(&alice()).await.0);
        }
        ids.sort();
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = world.ask(&alice(), "GET", &format!("/api-keys?limit=3{cursor}"), None, None).await.json();
            seen.extend(page["items"].as_array().unwrap().iter().map(|key| key["id"].as_str().unwrap().to_owned()));
            let Some(next) = page["next_cursor"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        assert_eq!(seen, ids);
        let (mut entries, mut cursor) = (0, String::new());
        loop {
            let page = world.ask(&alice(), "GET", &format!("/api-keys/{}/audit-logs?limit=1{cursor}", ids[0]), None, None).await.json();
            entries += page["items"].as_array().unwrap().len();
            let Some(next) = page["next_cursor"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        assert_eq!(entries, 2);
        assert_eq!(
            world.ask(&alice(), "GET", &format!("/api-keys/{}/audit-logs?cursor=YQ", ids[0]), None, None).await.code(),
            "INVALID_PARAMETER"
        );
    });
}

// Who may do what with whose key is in the matrix: `tests/authorisation.rs`.
#[test]
fn a_reveal_needs_its_scope_whatever_the_role_and_lists_show_ones_own_keys() {
    run(async || {
        let world = World::new(masters(1), options());
        let admin = caller("root", Role::Admin, &[Scope::VaultReveal]);
        let id = world.made(&alice()).await.0;
        let path = format!("/api-keys/{id}/reveal");
        for (who, expected) in [
            (caller("alice", Role::User, &[]), 403),
            (caller("root", Role::Admin, &[Scope::IntentsWrite, Scope::RecordsWrite, Scope::DecisionsRead]), 403),
            (alice(), 200),
            (admin.clone(), 200),
        ] {
            assert_eq!(world.ask(&who, "POST", &path, None, None).await.status.as_u16(), expected, "{} {:?}", who.name, who.scopes);
        }
        let others = new_key("n").replace("{\"broker\"", "{\"owner\":\"carol\",\"broker\"");
        let nobodys = world.ask(&admin, "POST", "/api-keys", None, Some(&others)).await;
        assert_eq!(
            (nobodys.status.as_u16(), nobodys.code().as_str()),
            (422, "INVALID_FIELD"),
            "whoever is called so one day would find it"
        );
        assert_eq!(nobodys.json()["field"], "owner");
        world.desk.directory.write(Kind::User, "carol", 0, Some(b"{}".to_vec()), "root").await.unwrap();
        assert_eq!(world.ask(&admin, "POST", "/api-keys", None, Some(&others)).await.status, StatusCode::CREATED);
        world.made(&caller("bob", Role::User, &[])).await;
        let owners = async |who: &Caller, query: &str| {
            let page = world.ask(who, "GET", &format!("/api-keys{query}"), None, None).await.json();
            page["items"].as_array().unwrap().iter().map(|key| key["owner"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(owners(&caller("bob", Role::User, &[]), "?limit=500").await, ["bob"]);
        assert_eq!(owners(&alice(), "?owner=bob").await, [] as [&str; 0]);
        assert_eq!(owners(&admin, "?owner=carol").await, ["carol"]);
    });
}

/// Everything that the code logs, at the finest level.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_canary_secret_is_in_no_answer_but_the_reveal_and_in_no_log_line_metric_or_record() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || writer.clone()).finish();
    let _logged = tracing::subscriber::set_default(subscriber);
    tracing::trace!("the log is heard");
    let recorder = telemetry::local_recorder().unwrap();
    let _measured = metrics::set_default_local_recorder(&recorder);
    run(async || {
        let log = drive_the_canary().await;
        for (topic, record) in log.records() {
            assert!(!String::from_utf8_lossy(&record.payload).contains(CANARY), "{topic}");
        }
    });
    let heard = String::from_utf8_lossy(&lines.0.lock().unwrap()).into_owned();
    assert!(heard.contains("the log is heard") && !heard.contains(CANARY), "{heard}");
    let measured = recorder.handle().render();
    assert!(measured.contains("ordergate_vault_operations_total{") && !measured.contains(CANARY));
}

fn body(broker: &str, key: &str, secret: &str, more: &str) -> String {
    format!(r#"{{"broker":"{broker}","name":"n","environment":"live","key":"{key}","secret":"{secret}"{more}}}"#)
}

/// Bodies of a create that are all refused.
fn bad_bodies() -> Vec<String> {
    let long = CANARY.repeat(400);
    let huge = CANARY.repeat(4_000);
    vec![
        body("nobroker", CANARY, CANARY, ""),
        body("alpaca", "", CANARY, ""),
        body("alpaca", CANARY, "", ""),
        body("alpaca", &format!("{CANARY} {CANARY}"), CANARY, ""),
        body("alpaca", CANARY, &format!(r"{CANARY}\u0007"), ""),
        body("alpaca", &long, CANARY, ""),
        body("alpaca", CANARY, &long, ""),
        body("alpaca", CANARY, &huge, ""),
        body("alpaca", CANARY, CANARY, &format!(r#","passphrase":["{CANARY}"]"#)),
        body("alpaca", CANARY, CANARY, &format!(r#","{CANARY}":1"#)),
        body("alpaca", CANARY, CANARY, &format!(r#","secret":"{CANARY}""#)),
        body("alpaca", CANARY, CANARY, &format!(r#","expires_at":"{CANARY}""#)),
        body("alpaca", CANARY, CANARY, r#","expires_at":"2001-01-01T00:00:00Z""#),
        body("alpaca", CANARY, CANARY, ",").replace(",}", ","),
        format!("\"{CANARY}\""),
        format!("[\"{CANARY}\"]"),
        CANARY.to_owned(),
    ]
}

async fn drive_the_canary() -> Arc<MemoryLog> {
    let world = World::new(masters(1), Options { reveals_per_minute: 2, keys_per_owner: 3, ..options() });
    let (id, _) = world.made(&alice()).await;
    let mut answers = Vec::new();
    for body in &bad_bodies() {
        let answer = world.ask(&alice(), "POST", "/api-keys", None, Some(body)).await;
        assert!(answer.status.is_client_error(), "{} {body:.200}", answer.status);
        answers.push(answer);
        answers.push(world.ask(&alice(), "POST", &format!("/api-keys/{id}/rotate"), Some("\"9\""), Some(body)).await);
        answers.push(world.ask(&alice(), "PUT", &format!("/api-keys/{id}"), Some("\"1\""), Some(body)).await);
    }
    let good = json!({"key": CANARY, "secret": CANARY, "passphrase": CANARY}).to_string();
    answers.push(world.ask(&alice(), "POST", &format!("/api-keys/{id}/rotate"), Some("\"1\""), Some(&good)).await);
    for path in ["verify", "audit-logs"] {
        let method = if path == "verify" { "POST" } else { "GET" };
        answers.push(world.ask(&alice(), method, &format!("/api-keys/{id}/{path}"), None, None).await);
    }
    let revealed = world.ask(&alice(), "POST", &format!("/api-keys/{id}/reveal"), None, None).await;
    assert_eq!(revealed.text.matches(CANARY).count(), 3, "the reveal is the way out");
    for _ in 0..3 {
        answers.push(world.ask(&caller("alice", Role::User, &[]), "POST", &format!("/api-keys/{id}/reveal"), None, None).await);
    }
    for _ in 0..4 {
        answers.push(world.ask(&alice(), "POST", "/api-keys", None, Some(&body("binance", CANARY, CANARY, ""))).await);
    }
    let admin = caller("root", Role::Admin, &[Scope::VaultReveal]);
    for (method, path) in [("GET", "/vault/status"), ("POST", "/vault/verify"), ("POST", "/vault/rotate"), ("GET", "/api-keys")] {
        answers.push(world.ask(&admin, method, path, None, None).await);
    }
    let wrong = World::over(world.log.clone(), masters(2), options());
    for (method, path) in [("POST", "reveal"), ("POST", "verify")] {
        let answer = wrong.ask(&alice(), method, &format!("/api-keys/{id}/{path}"), None, None).await;
        assert_eq!(answer.code(), "VAULT_LOCKED");
        answers.push(answer);
    }
    answers.push(wrong.ask(&alice(), "POST", "/api-keys", None, Some(&body("binance", CANARY, CANARY, ""))).await);
    answers.push(world.ask(&alice(), "DELETE", &format!("/api-keys/{id}"), Some("\"2\""), None).await);
    world.log.die();
    answers.push(wrong.ask(&admin, "POST", "/api-keys", None, Some(&body("binance", CANARY, CANARY, ""))).await);
    for answer in &answers {
        assert!(!answer.text.contains(&CANARY[..CANARY.len() - 4]), "{}", answer.text);
        assert!(!format!("{:?}", answer.headers).contains(CANARY));
        assert!(!answer.status.is_server_error() || answer.status == StatusCode::SERVICE_UNAVAILABLE, "{}", answer.text);
    }
    println!("{} answers", answers.len());
    let log = world.log.clone();
    for world in [world, wrong] {
        std::thread::spawn(move || drop(world));
    }
    log
}
