//! What WebSockets cost, and what all the control plane's work costs the gate: 1,000 clients with an account each at 1,000 decisions a second.
//!
//! Three phases take turns: the intents alone; the clients beside them; the clients and people's questions beside them. All of them run on
//! the daemon's machine, in this process; clients and questions, which would be on other machines, on threads that give way to others.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::protocol::Message;

use crate::daemon::{Daemon, line, ordergate};
use crate::load::{ACCOUNTS, Clock, Connection, intents, part, used};
use crate::{measure, positions};

const GOOD: &str = "correct horse battery staple";
const SETTINGS: &[(&str, &str)] =
    &[("auth.logins_per_minute", "10000"), ("auth.requests_per_second", "1000000"), ("http.connections_max", "2000")];

/// How much clients and questions give way.
const NICE: i32 = 10;

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

fn with_root(dir: &Path) -> Daemon {
    let password = dir.join("password");
    std::fs::write(&password, format!("{GOOD}\n")).unwrap();
    let (data, file) = (dir.to_str().unwrap(), password.to_str().unwrap());
    let (code, _, error) = ordergate(&["user", "add", "root", "--role", "admin", "--data-dir", data, "--password-file", file]);
    assert_eq!(code, Some(0), "{error}");
    Daemon::start(dir, SETTINGS)
}

fn login(gate: &Daemon, name: &str, password: &str) -> (u16, Value) {
    gate.post("/api/v1/auth/login", "application/json", &json!({"name": name, "password": password}).to_string())
}

#[test]
#[ignore = "figures, not judgement"]
fn logins() {
    let dir = TempDir::new().unwrap();
    let gate = with_root(dir.path());
    measure("POST /auth/login", 200, |_| assert_eq!(login(&gate, "root", GOOD).0, 200));
    measure("POST /auth/login, a wrong password", 200, |_| assert_eq!(login(&gate, "root", "wrong horse battery staple").0, 401));
    measure("POST /auth/login, a name that nobody has", 200, |_| assert_eq!(login(&gate, "nobody", GOOD).0, 401));
}

/// A token that does not end while this runs.
fn token(gate: &Daemon) -> String {
    let access = login(gate, "root", GOOD).1["access_token"].as_str().unwrap().to_owned();
    let body = json!({"name": "figures", "scopes": ["intents:write", "records:write", "decisions:read"]}).to_string();
    let url = format!("http://{}/api/v1/api-tokens", gate.http);
    let request = gate.agent.post(url).header("authorization", format!("Bearer {access}")).header("content-type", "application/json");
    let text = request.send(&body).unwrap().body_mut().read_to_string().unwrap();
    serde_json::from_str::<Value>(&text).unwrap()["secret"].as_str().expect("a token").to_owned()
}

/// Accounts for the load, and BIG with a hundred positions for questions.
fn opening() -> Vec<String> {
    let mut parts = vec![String::new()];
    for number in 0..ACCOUNTS {
        let payload = format!(r#"{{"event":"account_opened","account":"ACC{number}","owner":"u1","cash":"1000000"}}"#);
        parts[0] += &line("gate.control", &format!("ACC{number}"), &payload);
    }
    parts[0] += &line("gate.control", "AAPL", r#"{"event":"instrument_defined","symbol":"AAPL"}"#);
    parts[0] += &line("market.prices", "AAPL", r#"{"event":"trade","symbol":"AAPL","price":"100"}"#);
    parts[0] += &line("gate.control", "gate", r#"{"event":"gate_settings_set","max_intent_age_ms":0,"max_price_age_ms":0}"#);
    parts.extend(positions("BIG"));
    parts
}

/// What clients heard: the number of an order, and when its account's book came.
type Seen = Arc<Mutex<Vec<(u64, u64)>>>;

/// The newest order in a book.
fn newest(text: &str) -> Option<u64> {
    let ids = text.split("\"client_order_id\":\"T-").skip(1);
    ids.filter_map(|rest| rest.split('"').next()?.parse().ok()).max()
}

struct Clients {
    tasks: Vec<JoinHandle<u64>>,
    stop: Arc<AtomicBool>,
    seen: Seen,
}

impl Clients {
    async fn open(count: u64, clock: Arc<Clock>, http: String, token: String) -> Self {
        let (stop, seen, mut tasks) = (Arc::new(AtomicBool::new(false)), Seen::default(), Vec::new());
        let mut desk = Connection::open(&http, &token).await;
        for account in 0..count {
            let answer = desk.ask("POST", "/api/v1/auth/ws-ticket", "application/json", "").await;
            let ticket = serde_json::from_slice::<Value>(answer).unwrap()["ticket"].as_str().unwrap().to_owned();
            let stream = tokio::net::TcpStream::connect(&http).await.unwrap();
            let (mut socket, _) = client_async(format!("ws://{http}/api/v1/ws?ticket={ticket}"), stream).await.unwrap();
            let subscribe = json!({"type": "subscribe", "channel": format!("account:ACC{account}")}).to_string();
            socket.send(Message::Text(subscribe.into())).await.unwrap();
            let (clock, stop, seen) = (clock.clone(), stop.clone(), seen.clone());
            tasks.push(tokio::spawn(async move {
                let (mut last, mut heard) = (None, 0);
                loop {
                    match tokio::time::timeout(Duration::from_millis(500), socket.next()).await {
                        Err(_) if stop.load(Ordering::Relaxed) => break,
                        Err(_) => {}
                        Ok(Some(Ok(Message::Text(text)))) => {
                            heard += 1;
                            let order = newest(text.as_str());
                            if order > last {
                                last = order;
                                seen.lock().unwrap().extend(order.map(|order| (order, clock.now())));
                            }
                        }
                        Ok(Some(Ok(_))) => {}
                        Ok(ended) => panic!("a client was cut off: {ended:?}"),
                    }
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                }
                drop(socket.close(None).await);
                heard
            }));
        }
        Self { tasks, stop, seen }
    }

    /// How many messages came, and what was seen.
    async fn close(self) -> (u64, Vec<(u64, u64)>) {
        // What is on its way comes.
        tokio::time::sleep(Duration::from_millis(500)).await;
        self.stop.store(true, Ordering::Relaxed);
        let mut heard = 0;
        for task in self.tasks {
            heard += task.await.unwrap();
        }
        (heard, std::mem::take(&mut *self.seen.lock().unwrap()))
    }
}

/// People's questions: of each kind so many a second, one after the other.
fn questions(crowd: &Runtime, http: &str, token: &str, stop: &Arc<AtomicBool>) -> Vec<JoinHandle<String>> {
    let order = json!({"symbol": "S1", "side": "buy", "order_type": "limit", "qty": "10", "limit_price": "100"});
    let dry_run = json!({"account": "BIG", "intent": order}).to_string();
    let login = json!({"name": "root", "password": GOOD}).to_string();
    let kinds = [
        ("POST", "/api/v1/risk-rules/test", dry_run, 10),
        ("GET", "/api/v1/risk-rules/portfolio-risk?account=BIG", String::new(), 2),
        ("GET", "/api/v1/decisions?account=ACC7", String::new(), 5),
        ("GET", "/api/v1/system", String::new(), 1),
        ("POST", "/api/v1/auth/login", login, 1),
    ];
    let ask = |(method, path, body, rate): (&'static str, &'static str, String, u64)| {
        let (http, token, stop) = (http.to_owned(), token.to_owned(), stop.clone());
        crowd.spawn(async move {
            let mut connection = Connection::open(&http, &token).await;
            let mut took = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let begun = Instant::now();
                connection.ask(method, path, "application/json", &body).await;
                took.push(begun.elapsed().as_secs_f64() * 1e3);
                tokio::time::sleep(Duration::from_millis(1_000 / rate).saturating_sub(begun.elapsed())).await;
            }
            took.sort_by(f64::total_cmp);
            format!("    {} times {path}: p50 {:.1} ms, p99 {:.1} ms", took.len(), part(&took, 0.5), part(&took, 0.99))
        })
    };
    kinds.into_iter().map(ask).collect()
}

/// What was measured in a phase.
struct Figures {
    p50: f64,
    p99: f64,
    /// Of one core.
    cpu: f64,
    resident: f64,
    /// Of it what is allocated.
    heap: f64,
    evaluation: f64,
    commit: f64,
    heard: u64,
    /// From the sending of an order, and from its answer, until a client has the book with it.
    from_sent: Vec<f64>,
    from_answered: Vec<f64>,
}

/// The mean of a histogram between two looks at it: sum and count.
fn histogram(gate: &Daemon, name: &str) -> (f64, f64) {
    let (_, text) = gate.get_from(&gate.metrics, "/metrics");
    let of = |suffix: &str| {
        let lines = text.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(suffix)));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    };
    (of("_sum"), of("_count"))
}

fn gauge(gate: &Daemon, name: &str) -> f64 {
    let (_, text) = gate.get_from(&gate.metrics, "/metrics");
    let value = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok();
    text.lines().find_map(value).unwrap_or(f64::NAN)
}

struct Stage {
    gate: Daemon,
    token: String,
    clock: Arc<Clock>,
    clients: u64,
    rate: u64,
    time: Duration,
    /// Where clients and questions run.
    crowd: Runtime,
}

/// Threads that give way to others.
fn crowd() -> Runtime {
    let give_way = || assert!(rustix::process::nice(NICE).is_ok());
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().on_thread_start(give_way).build().unwrap()
}

impl Stage {
    async fn phase(&self, with_clients: bool, with_questions: bool) -> Figures {
        let (http, token) = (self.gate.http.as_str(), self.token.as_str());
        let clients = if with_clients {
            let opened = Clients::open(self.clients, self.clock.clone(), http.to_owned(), token.to_owned());
            Some(self.crowd.spawn(opened).await.unwrap())
        } else {
            None
        };
        let stop = Arc::new(AtomicBool::new(false));
        let asking = if with_questions { questions(&self.crowd, http, token, &stop) } else { Vec::new() };
        // Connections and what they made the daemon do are behind us.
        intents(&self.clock, http, token, self.rate, Duration::from_secs(2)).await;
        let look = || {
            let (gate, name) = (&self.gate, "ordergate_evaluation_seconds");
            (used(gate.child.id()), histogram(gate, name), histogram(gate, "ordergate_commit_seconds"), Instant::now())
        };
        let before = look();
        let mut took = intents(&self.clock, http, token, self.rate, self.time).await;
        let after = look();
        stop.store(true, Ordering::Relaxed);
        for task in asking {
            println!("{}", task.await.unwrap());
        }
        let (heard, seen) = match clients {
            Some(clients) => clients.close().await,
            None => (0, Vec::new()),
        };
        took.sort_by(f64::total_cmp);
        let mean = |(sum, count): (f64, f64), (old_sum, old_count): (f64, f64)| (sum - old_sum) / (count - old_count) * 1e6;
        let since = |at: fn((u64, u64)) -> u64| {
            let delay = |(order, came): &(u64, u64)| came.saturating_sub(at(self.clock.of_order(*order))) as f64 / 1e3;
            let mut delays: Vec<f64> = seen.iter().map(delay).collect();
            delays.sort_by(f64::total_cmp);
            delays
        };
        let seconds = (after.3 - before.3).as_secs_f64();
        Figures {
            p50: part(&took, 0.5),
            p99: part(&took, 0.99),
            cpu: (after.0.0 - before.0.0) / seconds,
            resident: after.0.1,
            heap: gauge(&self.gate, "ordergate_heap_allocated_bytes") / 1_048_576.0,
            evaluation: mean(after.1, before.1),
            commit: mean(after.2, before.2),
            heard,
            from_sent: since(|(sent, _)| sent),
            from_answered: since(|(_, answered)| answered),
        }
    }
}

fn told(name: &str, figures: &Figures) {
    let Figures { p50, p99, cpu, resident, heap, evaluation, commit, heard, from_sent, from_answered } = figures;
    println!(
        "{name}: intent p50 {p50:.2} ms, p99 {p99:.2} ms; evaluation {evaluation:.1} us, commit {commit:.0} us (mean); {:.0} % of a core, {resident:.0} MiB resident, {heap:.0} allocated",
        cpu * 100.0
    );
    if !from_sent.is_empty() {
        println!(
            "    {heard} messages; {} orders seen: p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms after it was sent; p50 {:.1} ms, p99 {:.1} ms after its answer",
            from_sent.len(),
            part(from_sent, 0.5),
            part(from_sent, 0.99),
            part(from_sent, 1.0),
            part(from_answered, 0.5),
            part(from_answered, 0.99)
        );
    }
}

fn median(of: impl Iterator<Item = f64>) -> f64 {
    let mut all: Vec<f64> = of.collect();
    all.sort_by(f64::total_cmp);
    part(&all, 0.5)
}

#[test]
#[ignore = "figures, not judgement"]
fn a_thousand_websockets_at_a_thousand_decisions_a_second() {
    let (rounds, seconds) = (number("ROUNDS", 6), number("SECONDS", 10));
    let (clients, rate) = (number("CLIENTS", ACCOUNTS), number("RATE", 1_000));
    let dir = TempDir::new().unwrap();
    let gate = with_root(dir.path());
    let token = token(&gate);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let orders = usize::try_from(rate * (seconds + 4) * 3 * (rounds + 1)).unwrap();
    let stage = Stage { gate, token, clock: Clock::of(orders), clients, rate, time: Duration::from_secs(seconds), crowd: crowd() };
    let mut all: [Vec<Figures>; 3] = Default::default();
    runtime.block_on(async {
        let mut desk = Connection::open(&stage.gate.http, &stage.token).await;
        for lines in opening() {
            desk.ask("POST", "/api/v1/records", "application/x-ndjson", &lines).await;
        }
        println!("before: {:.0} MiB", used(stage.gate.child.id()).1);
        for round in 0..=rounds {
            for (kind, name) in ["intents alone", "with clients", "with clients and questions"].into_iter().enumerate() {
                let figures = stage.phase(kind > 0, kind > 1).await;
                // The first round warms up.
                if round > 0 {
                    told(name, &figures);
                    all[kind].push(figures);
                }
            }
        }
    });
    println!("medians of {rounds} rounds of {seconds} s, {clients} clients, {rate} intents a second:");
    for (figures, name) in all.iter().zip(["intents alone", "with clients", "with clients and questions"]) {
        let of = |what: fn(&Figures) -> f64| median(figures.iter().map(what));
        let than_alone = |what: fn(&Figures) -> f64| median(figures.iter().zip(&all[0]).map(|(with, alone)| what(with) / what(alone)));
        println!(
            "{name}: p50 {:.2} ms ({:.3} of alone), p99 {:.2} ms ({:.3}), evaluation {:.1} us ({:.3}), commit {:.0} us ({:.3}), CPU {:.0} %, {:.0} MiB",
            of(|it| it.p50),
            than_alone(|it| it.p50),
            of(|it| it.p99),
            than_alone(|it| it.p99),
            of(|it| it.evaluation),
            than_alone(|it| it.evaluation),
            of(|it| it.commit),
            than_alone(|it| it.commit),
            of(|it| it.cpu * 100.0),
            of(|it| it.resident)
        );
    }
}
