//! A real daemon with all four channels set up, and a person who has proved every address through its API.
//!
//! Invariant: the daemon is a process, which can be killed; the receivers are this test's and outlive it. Deliberately absent: our own code
//! in anything that judges what arrives.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use ureq::http::Request;

use crate::daemon::{Daemon, line};
use crate::receiver::{self, Browser, Mood, Receiver};
use crate::smtp::{self, Smtp};

/// How long a receiver may take before it counts as hanging.
const TIMEOUT_MS: &str = "1500";

/// The receivers, and where the daemon keeps its things.
pub struct House {
    pub folder: TempDir,
    /// What the receivers run in.
    _runtime: Runtime,
    pub smtp: Smtp,
    pub webhook: Receiver,
    pub push: Receiver,
    pub sms: Receiver,
    secrets: Arc<Mutex<HashMap<String, String>>>,
    browser: (String, String),
}

impl House {
    pub fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let folder = TempDir::new().unwrap();
        let smtp = runtime.block_on(Smtp::start(folder.path()));
        let [webhook, push, sms] = [(); 3].map(|()| runtime.block_on(Receiver::start()));
        let secrets = Arc::new(Mutex::new(HashMap::new()));
        webhook.judged_by(receiver::webhook(secrets.clone()));
        let browser = Browser::new(7);
        let keys = (browser.p256dh.clone(), browser.auth.clone());
        push.judged_by(browser.judge());
        sms.judged_by(receiver::twilio());
        let house = Self { folder, _runtime: runtime, smtp, webhook, push, sms, secrets, browser: keys };
        house.file("webhook.key", &"9".repeat(32));
        house.file("vapid.pem", &ordergate::notify::push::generate_key().unwrap());
        house.file("smtp.password", "secret\n");
        house.file("sms.token", "token\n");
        house
    }

    fn file(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts the daemon with its channels.
    pub fn daemon(&self) -> Daemon {
        let (port, sms) = (self.smtp.at.port().to_string(), format!("http://{}", self.sms.at));
        let [ca, password, webhook, vapid, token] =
            ["ca.pem", "smtp.password", "webhook.key", "vapid.pem", "sms.token"].map(|name| self.path(name).to_str().unwrap().to_owned());
        let settings = [
            ("notify.enabled", "true"),
            ("notify.public_url", "http://gate.test"),
            ("notify.storm_per_minute", "100000"),
            ("notify.smtp.host", "localhost"),
            ("notify.smtp.port", &port),
            ("notify.smtp.user", "gate"),
            ("notify.smtp.password_file", &password),
            ("notify.smtp.from", "Order gate <gate@example.com>"),
            ("notify.smtp.ca_file", &ca),
            ("notify.smtp.timeout_ms", TIMEOUT_MS),
            ("notify.smtp.connections_max", "8"),
            ("notify.webhook.key_file", &webhook),
            ("notify.webhook.allow_private", "true"),
            ("notify.webhook.timeout_ms", TIMEOUT_MS),
            ("notify.push.key_file", &vapid),
            ("notify.push.subject", "mailto:ops@example.com"),
            ("notify.sms.url", &sms),
            ("notify.sms.account", "AC1"),
            ("notify.sms.token_file", &token),
            ("notify.sms.from", "+15550001"),
        ];
        Daemon::start(&self.path("data"), &settings)
    }

    /// How all receivers behave.
    pub fn mood(&self, smtp: smtp::Mood, others: Mood) {
        self.smtp.mood(smtp);
        [&self.webhook, &self.push, &self.sms].iter().for_each(|receiver| receiver.mood(others));
    }

    /// Proves an address on every channel as its owner would, asks for everything, and leaves nothing behind that would be counted.
    pub fn settle(&self, gate: &Daemon) {
        ask(gate, "PUT", "/notification-contacts/email", Some(&json!({"address": "ann@example.com"})), 200);
        let mail = self.until("the mail", || self.smtp.mails().pop());
        let text = mail.text.replace("=\n", "").replace("=3D", "=");
        let token = text.split("confirm?token=").nth(1).unwrap().split(|c: char| c.is_whitespace() || c == '"').next().unwrap();
        let url = format!("http://{}/api/v1/notification-contacts/confirm", gate.http);
        let page = gate.agent.get(format!("{url}?token={token}")).call().unwrap();
        let policy = page.headers()["content-security-policy"].to_str().unwrap();
        assert!(policy.contains("form-action 'self'"), "a browser would not send the form: {policy}");
        assert_eq!(page.headers()["referrer-policy"], "same-origin", "a browser would send the form with Origin: null");
        let form = gate
            .agent
            .post(url)
            .header("content-type", "application/x-www-form-urlencoded")
            .header("origin", format!("http://{}", gate.http));
        assert_eq!(form.send(format!("token={token}")).unwrap().status(), 200);
        ask(gate, "PUT", "/notification-contacts/sms", Some(&json!({"address": "+491511234567"})), 200);
        let form = self.until("the text message", || self.sms.received().pop()).body;
        let message = form.split("Body=").nth(1).unwrap().split('&').next().unwrap();
        let code = message.split(|c: char| !c.is_ascii_digit()).find(|word| word.len() == 6).unwrap();
        ask(gate, "POST", "/notification-contacts/sms/confirm", Some(&json!({"code": code})), 200);
        // The first challenge comes before its owner has had the secret; so it is asked once more.
        self.webhook.mood(Mood::Status(500));
        let url = format!("http://{}/ann", self.webhook.at);
        let set = ask(gate, "PUT", "/notification-contacts/webhook", Some(&json!({"address": url})), 200);
        self.secrets.lock().unwrap().insert("/ann".to_owned(), set["secret"].as_str().unwrap().to_owned());
        self.webhook.mood(Mood::Well);
        assert_eq!(ask(gate, "POST", "/notification-contacts/webhook/verify", None, 200)["verified"], true);
        let browser =
            json!({"endpoint": format!("http://{}/ann", self.push.at), "keys": {"p256dh": self.browser.0, "auth": self.browser.1}});
        ask(gate, "POST", "/push-subscriptions", Some(&browser), 201);
        for channel in ["email", "push", "sms", "webhook"] {
            let wish = json!({"channel": channel, "enabled": true, "min_priority": "low"});
            ask(gate, "POST", "/notification-preferences", Some(&wish), 201);
        }
        for item in ask(gate, "GET", "/notification-contacts", None, 200)["items"].as_array().unwrap() {
            assert_eq!(item["verified"], true, "{item}");
        }
    }

    fn until<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        let begun = Instant::now();
        loop {
            if let Some(found) = look() {
                return found;
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "{what} does not come");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// How often each id came, by channel; `besides` came before.
    pub fn counts(&self, besides: &BTreeSet<String>) -> [(&'static str, HashMap<String, usize>); 4] {
        let mut mails: HashMap<String, usize> = HashMap::new();
        self.smtp.mails().into_iter().for_each(|mail| *mails.entry(mail.id).or_default() += 1);
        let all = [("email", mails), ("webhook", self.webhook.counts()), ("push", self.push.counts()), ("sms", self.sms.counts())];
        all.map(|(channel, mut counts)| {
            counts.retain(|id, _| !besides.contains(id));
            (channel, counts)
        })
    }

    /// The ids that came so far.
    pub fn ids(&self) -> BTreeSet<String> {
        self.counts(&BTreeSet::new()).into_iter().flat_map(|(_, counts)| counts.into_keys()).collect()
    }
}

/// Asks the API, as whoever it is open to.
pub fn ask(gate: &Daemon, method: &str, path: &str, body: Option<&Value>, status: u16) -> Value {
    let request = Request::builder().method(method).uri(format!("http://{}/api/v1{path}", gate.http));
    let mut answer = match body {
        Some(body) => gate.agent.run(request.header("content-type", "application/json").body(body.to_string()).unwrap()).unwrap(),
        None => gate.agent.run(request.body(()).unwrap()).unwrap(),
    };
    let text = answer.body_mut().read_to_string().unwrap();
    assert_eq!(answer.status().as_u16(), status, "{method} {path}: {text}");
    serde_json::from_str(&text).unwrap_or(Value::String(text))
}

/// An account whose orders are all refused, and that wants to hear of each.
pub fn open_account(gate: &Daemon) {
    let account = r#"{"event":"account_opened","account":"ACC1","owner":"ann","cash":"100000","limits":{"max_order_qty":"1","notify":["order_rejected"]}}"#;
    let lines = line("gate.control", "AAPL", r#"{"event":"instrument_defined","symbol":"AAPL"}"#)
        + &line("gate.control", "ACC1", account)
        + &line("market.prices", "AAPL", r#"{"event":"trade","symbol":"AAPL","price":"100"}"#);
    let (status, answer) = gate.records(&lines);
    assert_eq!(status, 200, "{answer}");
}

/// An order that is refused, and so raises one notification.
pub fn refused(id: u64) -> String {
    format!(
        r#"{{"event":"order_intent","client_order_id":"I-{id}","account":"ACC1","symbol":"AAPL","side":"buy","order_type":"limit","qty":"2","limit_price":"100"}}"#
    )
}

/// Raises so many notifications.
pub fn raise(gate: &Daemon, ids: std::ops::Range<u64>) {
    let ids: Vec<u64> = ids.collect();
    for some in ids.chunks(500) {
        let lines: String = some.iter().map(|id| line("orders.intents", "ACC1", &refused(*id))).collect();
        let (status, answer) = gate.records(&lines);
        assert_eq!(status, 200, "{answer}");
    }
}

/// The bytes of a process that are its own, in kB.
pub fn resident_kb(gate: &Daemon) -> u64 {
    let status = std::fs::read_to_string(Path::new("/proc").join(gate.child.id().to_string()).join("status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
