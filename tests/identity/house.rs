//! A daemon with people, and how its tests ask it.

use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;
use ureq::http::{HeaderMap, Request};

use crate::daemon::{Daemon, ordergate};

pub const GOOD: &str = "correct horse battery staple";

/// A daemon with users: `root` (admin), `alice` (user), `bob` (user), `eye` (viewer of ALICE1), `bot` (service).
pub struct House {
    pub dir: TempDir,
    pub gate: Daemon,
}

pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Answer {
    pub fn code(&self) -> (u16, &str) {
        (self.status, self.body["code"].as_str().unwrap_or_default())
    }

    pub fn text(&self, name: &str) -> String {
        self.body[name].as_str().unwrap_or_else(|| panic!("{name}: {}", self.body)).to_owned()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

pub fn add_user(data: &Path, name: &str, role: &str, more: &[&str]) {
    let file = data.join("password");
    std::fs::create_dir_all(data).unwrap();
    std::fs::write(&file, format!("{GOOD}\n")).unwrap();
    let (data, file) = (data.to_str().unwrap(), file.to_str().unwrap());
    let mut args = vec!["user", "add", name, "--role", role, "--data-dir", data];
    if !more.contains(&"--no-password") {
        args.extend(["--password-file", file]);
    }
    args.extend(more);
    let (code, out, error) = ordergate(&args);
    assert_eq!((code, out.as_str()), (Some(0), &*format!("user {name} added\n")), "{error}");
}

pub fn house(settings: &[(&str, &str)]) -> House {
    let dir = TempDir::new().unwrap();
    add_user(dir.path(), "root", "admin", &[]);
    add_user(dir.path(), "alice", "user", &[]);
    add_user(dir.path(), "bob", "user", &[]);
    add_user(dir.path(), "eye", "viewer", &["--view", "ALICE1"]);
    add_user(dir.path(), "bot", "service", &["--no-password", "--scope", "records:write", "--scope", "decisions:read"]);
    let gate = Daemon::start(dir.path(), settings);
    House { dir, gate }
}

impl House {
    pub fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&Value>) -> Answer {
        ask(&self.gate, method, path, headers, body)
    }

    pub fn as_of(&self, token: &str, method: &str, path: &str, body: Option<&Value>) -> Answer {
        self.ask(method, path, &[("authorization", &format!("Bearer {token}"))], body)
    }

    pub fn login(&self, name: &str) -> Answer {
        self.ask("POST", "/api/v1/auth/login", &[], Some(&json!({"name": name, "password": GOOD})))
    }

    pub fn token(&self, name: &str) -> String {
        let answer = self.login(name);
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.text("access_token")
    }
}

pub fn ask(gate: &Daemon, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&Value>) -> Answer {
    let mut request = Request::builder().method(method).uri(format!("http://{}{path}", gate.http));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = match body {
        Some(body) => {
            if !headers.iter().any(|(name, _)| *name == "content-type") {
                request = request.header("content-type", "application/json");
            }
            gate.agent.run(request.body(body.to_string()).unwrap())
        }
        None => gate.agent.run(request.body(()).unwrap()),
    };
    let mut answer = answer.unwrap();
    let text = answer.body_mut().read_to_string().unwrap();
    Answer {
        status: answer.status().as_u16(),
        headers: answer.headers().clone(),
        body: serde_json::from_str(&text).unwrap_or(Value::String(text)),
    }
}
