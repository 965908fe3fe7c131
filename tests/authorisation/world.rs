//! A daemon with everything on, people of every role, and receivers on this machine.
//!
//! Invariant: what a cell of the matrix destroys was made for it: accounts are opened anew, and whoever ends their own session is a
//! person of their own. Nothing leaves this machine.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;
use ureq::http::Request;

use crate::daemon::{Daemon, opening, ordergate};

pub const PASSWORD: &str = "correct horse battery staple";
/// An account of `zoe`, whom nobody in the matrix is, that everybody in it may look at.
pub const GRANTED: &str = "GRANTED";
/// What is nobody's business is called something with this in it.
pub const FOREIGN: &str = "FOREIGN";

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Column {
    Nobody,
    Viewer,
    User,
    Admin,
    Service,
    Bare,
}

impl Column {
    pub const ALL: [Self; 6] = [Self::Nobody, Self::Viewer, Self::User, Self::Admin, Self::Service, Self::Bare];

    /// Role and scopes.
    fn rights(self) -> (&'static str, &'static [&'static str]) {
        match self {
            Self::Nobody | Self::User => ("user", &["vault:reveal"]),
            Self::Viewer => ("viewer", &[]),
            Self::Admin => ("admin", &["vault:reveal"]),
            Self::Service => ("service", &["intents:write", "records:write", "decisions:read", "vault:reveal"]),
            Self::Bare => ("service", &[]),
        }
    }
}

/// A person or a program.
#[derive(Clone, Debug)]
pub struct Who {
    pub name: String,
    pub bearer: Option<String>,
    /// Programs have none.
    pub refresh: String,
    /// Of a program without a scope: a token of its user that has one, with which it gets what it then asks about.
    pub writing: Option<String>,
}

impl Who {
    /// The same one, who may write what is their own.
    pub fn writing(&self) -> Self {
        Self { bearer: self.writing.clone().or_else(|| self.bearer.clone()), ..self.clone() }
    }
}

pub struct Answer {
    pub status: u16,
    pub tag: Option<String>,
    pub challenge: Option<String>,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("{} {}", self.status, self.text))
    }

    pub fn text_of(&self, field: &str) -> String {
        self.json()[field].as_str().unwrap_or_else(|| panic!("{field}: {}", self.text)).to_owned()
    }
}

pub struct World {
    pub gate: Daemon,
    /// Who prepares what the others are asked about.
    pub keeper: Who,
    pub zoe: Who,
    /// Where webhooks of this world are.
    pub hook: String,
    people: BTreeMap<Column, Who>,
    count: Cell<u32>,
    _dir: TempDir,
}

impl World {
    pub fn new() -> Self {
        let dir = TempDir::new().unwrap();
        first_user(dir.path());
        let settings = settings(dir.path());
        let settings: Vec<(&str, &str)> = settings.iter().map(|(key, value)| (*key, value.as_str())).collect();
        let nobody = Who { name: "keeper".to_owned(), bearer: None, refresh: String::new(), writing: None };
        let mut world = Self {
            gate: Daemon::start(&dir.path().join("data"), &settings),
            keeper: nobody.clone(),
            zoe: nobody,
            hook: hook(),
            people: BTreeMap::new(),
            count: Cell::new(0),
            _dir: dir,
        };
        world.keeper = world.logged_in("keeper");
        world.made("/users", &json!({"name": "zoe", "role": "user", "password": PASSWORD}));
        world.zoe = world.logged_in("zoe");
        world.records(&opening());
        world.made("/instruments", &json!({"symbol": "SPLT"}));
        world.open(GRANTED, "zoe");
        world.open("FOREIGN-0", "zoe");
        world.made("/restricted-lists", &json!({"list": "FOREIGN-list", "symbols": ["SPLT"], "accounts": ["FOREIGN-0"]}));
        let scope = json!({"account": "FOREIGN-0", "strategy": "FOREIGN"});
        world.made("/trading-states", &json!({"scope": scope, "state": "reduce_only", "reason": "so that there is one"}));
        let wish = json!({"type": "daily_summary", "channel": "webhook", "enabled": true, "min_priority": "low"});
        let made = world.ask(&world.zoe, "POST", "/api/v1/notification-preferences", &[], Some(wish.to_string()));
        assert_eq!(made.status, 201, "{}", made.text);
        for column in Column::ALL {
            let who = world.person(column);
            world.people.insert(column, who);
        }
        world
    }

    /// Who stands in a column.
    pub fn who(&self, column: Column) -> &Who {
        &self.people[&column]
    }

    /// Somebody new with the rights of a column.
    pub fn person(&self, column: Column) -> Who {
        let name = format!("{column:?}-{}", self.number()).to_lowercase();
        let (role, scopes) = column.rights();
        let has = if column == Column::Bare { &["intents:write"] } else { scopes };
        let password = (role != "service").then_some(PASSWORD);
        let accounts = json!({"view": [GRANTED]});
        self.made("/users", &json!({"name": name, "role": role, "scopes": has, "accounts": accounts, "password": password}));
        if role != "service" {
            return self.logged_in(&name);
        }
        let token =
            |scopes: &[&str]| self.made("/api-tokens", &json!({"user": name, "name": "its own", "scopes": scopes})).text_of("secret");
        let writing = (column == Column::Bare).then(|| token(has));
        Who { bearer: Some(token(scopes)), name, refresh: "ogr_none~0.none".to_owned(), writing }
    }

    fn logged_in(&self, name: &str) -> Who {
        let body = json!({"name": name, "password": PASSWORD}).to_string();
        let nobody = Who { name: String::new(), bearer: None, refresh: String::new(), writing: None };
        let answer = self.ask(&nobody, "POST", "/api/v1/auth/login", &[], Some(body));
        assert_eq!(answer.status, 200, "{}", answer.text);
        Who { name: name.to_owned(), bearer: Some(answer.text_of("access_token")), refresh: answer.text_of("refresh_token"), writing: None }
    }

    /// A number that was not given before.
    pub fn number(&self) -> u32 {
        self.count.set(self.count.get() + 1);
        self.count.get()
    }

    /// Asks as somebody. A body is JSON unless a header says otherwise.
    pub fn ask(&self, who: &Who, method: &str, path: &str, headers: &[(&str, &str)], body: Option<String>) -> Answer {
        let mut request = Request::builder().method(method).uri(format!("http://{}{path}", self.gate.http));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(bearer) = &who.bearer {
            request = request.header("authorization", format!("Bearer {bearer}"));
        }
        if body.is_some() && !headers.iter().any(|(name, _)| *name == "content-type") {
            request = request.header("content-type", "application/json");
        }
        let answer = match body {
            Some(body) => self.gate.agent.run(request.body(body).unwrap()),
            None if matches!(method, "POST" | "PUT") => self.gate.agent.run(request.body("").unwrap()),
            None => self.gate.agent.run(request.body(()).unwrap()),
        };
        let mut answer = answer.unwrap();
        let header = |name: &str| answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        let (tag, challenge) = (header("etag"), header("www-authenticate"));
        let text = answer.body_mut().read_to_string().unwrap();
        Answer { status: answer.status().as_u16(), tag, challenge, text }
    }

    /// A ticket for a WebSocket.
    pub fn ticket(&self, who: &Who) -> String {
        let answer = self.ask(who, "POST", "/api/v1/auth/ws-ticket", &[], None);
        assert_eq!(answer.status, 201, "{}", answer.text);
        answer.text_of("ticket")
    }

    /// Asks for a WebSocket, for which no token counts, and reads how it is answered.
    pub fn ask_for_a_websocket(&self, path: &str) -> Answer {
        let mut stream = TcpStream::connect(&self.gate.http).unwrap();
        let upgrade =
            "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==";
        write!(stream, "GET {path} HTTP/1.1\r\nhost: {}\r\n{upgrade}\r\n\r\n", self.gate.http).unwrap();
        let head: Vec<String> = BufReader::new(stream).lines().map(Result::unwrap).take_while(|line| !line.is_empty()).collect();
        let status = head[0].split(' ').nth(1).unwrap().parse().unwrap();
        let challenge = head.iter().filter_map(|line| line.split_once(": "));
        let challenge =
            challenge.filter(|(name, _)| name.eq_ignore_ascii_case("www-authenticate")).map(|(_, value)| value.to_owned()).next();
        Answer { status, tag: None, challenge, text: head.join(" ") }
    }

    /// Makes something as the keeper.
    pub fn made(&self, path: &str, body: &Value) -> Answer {
        let answer = self.ask(&self.keeper, "POST", &format!("/api/v1{path}"), &[], Some(body.to_string()));
        assert!(matches!(answer.status, 200 | 201), "{path} {body}: {} {}", answer.status, answer.text);
        answer
    }

    /// Opens an account.
    pub fn open(&self, account: &str, owner: &str) {
        self.made("/accounts", &json!({"account": account, "owner": owner, "cash": "100000"}));
    }

    /// Appends records and waits until the books have applied them.
    pub fn records(&self, lines: &str) {
        let headers = [("content-type", "application/x-ndjson")];
        let answer = self.ask(&self.keeper, "POST", "/api/v1/records", &headers, Some(lines.to_owned()));
        assert_eq!(answer.status, 200, "{}", answer.text);
        let positions = answer.json()["positions"].clone();
        let partitions = positions.as_object().unwrap().iter().flat_map(|(topic, partitions)| {
            partitions.as_object().unwrap().iter().map(move |(partition, range)| format!("{topic}:{partition}:{}", range[1]))
        });
        let at = partitions.collect::<Vec<_>>().join(",");
        let arrived = self.ask(&self.keeper, "GET", "/api/v1/instruments", &[("x-ordergate-position", &at)], None);
        assert_eq!(arrived.status, 200, "{}", arrived.text);
    }
}

fn first_user(dir: &Path) {
    let (data, password) = (dir.join("data"), dir.join("password"));
    std::fs::create_dir_all(&data).unwrap();
    std::fs::write(&password, PASSWORD).unwrap();
    let (data, password) = (data.to_str().unwrap(), password.to_str().unwrap());
    let (code, _, error) = ordergate(&["user", "add", "keeper", "--role", "admin", "--data-dir", data, "--password-file", password]);
    assert_eq!(code, Some(0), "{error}");
}

/// Everything on, and nobody held up for asking often.
fn settings(dir: &Path) -> Vec<(&'static str, String)> {
    let file = |name: &str, content: &str| {
        let path = dir.join(name);
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let word = str::to_owned;
    vec![
        ("ORDERGATE_MASTER_KEY_FILE", file("master.key", &BASE64_STANDARD.encode("0123456789abcdef0123456789abcdef"))),
        ("auth.logins_per_minute", word("10000")),
        ("auth.requests_per_second", word("1000000")),
        ("vault.reveals_per_minute", word("10000")),
        ("vault.verifications_per_minute", word("10000")),
        ("notify.enabled", word("true")),
        ("notify.webhook.allow_private", word("true")),
        ("notify.webhook.key_file", file("webhook.key", &"k".repeat(64))),
        ("notify.push.key_file", file("vapid.pem", &ordergate::notify::push::generate_key().unwrap())),
        ("notify.push.subject", word("mailto:ops@example.com")),
    ]
}

/// A webhook that answers every challenge.
fn hook() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = format!("http://{}/hook", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut length = 0;
            for line in reader.by_ref().lines().map_while(Result::ok).take_while(|line| !line.is_empty()) {
                if let Some((_, value)) = line.split_once(':').filter(|(name, _)| name.eq_ignore_ascii_case("content-length")) {
                    length = value.trim().parse().unwrap();
                }
            }
            let mut body = vec![0; length];
            let whole = reader.read_exact(&mut body).is_ok();
            let body: Value = serde_json::from_slice(&body).unwrap_or_default();
            let answer = json!({"challenge": body["data"]["challenge"]}).to_string();
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                answer.len()
            );
            if whole {
                // Who does not wait for the answer is not missed.
                let _ = stream.write_all((head + &answer).as_bytes());
            }
        }
    });
    at
}
