//! A steady load over HTTP/1.1 on kept connections, and what the daemon's process uses meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

/// Intents that may be under way at once.
const WORKERS: usize = 64;
pub const ACCOUNTS: u64 = 1_000;

/// When each order was sent and answered, in microseconds since the beginning; 0: not yet.
pub struct Clock {
    begun: Instant,
    sent: Vec<AtomicU64>,
    answered: Vec<AtomicU64>,
    next: AtomicU64,
}

impl Clock {
    pub fn of(orders: usize) -> Arc<Self> {
        let zeros = || (0..orders).map(|_| AtomicU64::new(0)).collect();
        Arc::new(Self { begun: Instant::now(), sent: zeros(), answered: zeros(), next: AtomicU64::new(0) })
    }

    pub fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_micros()).unwrap()
    }

    /// When an order was sent and answered.
    pub fn of_order(&self, number: u64) -> (u64, u64) {
        let at = |times: &[AtomicU64]| times[usize::try_from(number).unwrap()].load(Ordering::Relaxed);
        (at(&self.sent), at(&self.answered))
    }
}

pub fn intent(number: u64) -> String {
    let account = number % ACCOUNTS;
    format!(
        r#"{{"event":"order_intent","client_order_id":"T-{number}","account":"ACC{account}","symbol":"AAPL","side":"buy","order_type":"limit","qty":"1","limit_price":"100"}}"#
    )
}

fn canceled(number: u64) -> String {
    let account = number % ACCOUNTS;
    format!(
        r#"{{"topic":"orders.executions","key":"ACC{account}","payload":{{"event":"canceled","client_order_id":"T-{number}","account":"ACC{account}","reason":"user"}}}}"#
    ) + "\n"
}

/// A kept connection.
pub struct Connection {
    stream: TcpStream,
    head: String,
    answer: Vec<u8>,
}

impl Connection {
    pub async fn open(http: &str, token: &str) -> Self {
        let stream = TcpStream::connect(http).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, head: format!("Host: {http}\r\nAuthorization: Bearer {token}\r\n"), answer: Vec::new() }
    }

    /// The body of the answer, whose status has to be a good one.
    pub async fn ask(&mut self, method: &str, path: &str, kind: &str, body: &str) -> &[u8] {
        let (head, length) = (&self.head, body.len());
        let request = format!("{method} {path} HTTP/1.1\r\n{head}Content-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{body}");
        self.stream.write_all(request.as_bytes()).await.unwrap();
        self.answer.clear();
        loop {
            assert_ne!(self.stream.read_buf(&mut self.answer).await.unwrap(), 0, "it was closed");
            let Some(end) = self.answer.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
            let head = String::from_utf8_lossy(&self.answer[..end]).to_lowercase();
            let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()).expect("a length");
            if self.answer.len() >= end + 4 + length.parse::<usize>().unwrap() {
                assert!(head.starts_with("http/1.1 2"), "{}", String::from_utf8_lossy(&self.answer));
                return &self.answer[end + 4..];
            }
        }
    }
}

/// Intents at a rate, each in its time whatever became of those before, for so long; every order is canceled about a second later. Gives how
/// long each took to be answered, from when it was due, in ms.
pub async fn intents(clock: &Arc<Clock>, http: &str, token: &str, rate: u64, time: Duration) -> Vec<f64> {
    let (orders, waiting) = mpsc::unbounded_channel::<(u64, Instant)>();
    let waiting = Arc::new(tokio::sync::Mutex::new(waiting));
    let mut workers = Vec::new();
    for _ in 0..WORKERS {
        let (waiting, clock, mut connection) = (waiting.clone(), clock.clone(), Connection::open(http, token).await);
        workers.push(tokio::spawn(async move {
            let mut took = Vec::new();
            loop {
                let next = waiting.lock().await.recv().await;
                let Some((number, due)) = next else { return took };
                let place = usize::try_from(number).unwrap();
                clock.sent[place].store(clock.now(), Ordering::Relaxed);
                connection.ask("POST", "/api/v1/intents", "application/json", &intent(number)).await;
                clock.answered[place].store(clock.now(), Ordering::Relaxed);
                took.push(due.elapsed().as_secs_f64() * 1e3);
            }
        }));
    }
    let first = clock.next.load(Ordering::Relaxed);
    let (begun, count) = (Instant::now(), rate * u64::try_from(time.as_millis()).unwrap() / 1_000);
    let mut desk = Connection::open(http, token).await;
    let mut ended = first;
    let mut end = async |desk: &mut Connection, up_to: u64| {
        let lines: String = (ended..up_to).map(canceled).collect();
        if !lines.is_empty() {
            desk.ask("POST", "/api/v1/records", "application/x-ndjson", &lines).await;
        }
        ended = ended.max(up_to);
    };
    let mut given = 0;
    while given < count {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let due = u64::try_from(begun.elapsed().as_micros()).unwrap() * rate / 1_000_000;
        for number in given..due.min(count) {
            orders.send((first + number, begun + Duration::from_micros(number * 1_000_000 / rate))).unwrap();
        }
        // A hundred at a time.
        if due / 100 > given / 100 {
            end(&mut desk, first + (due / 100 * 100).saturating_sub(rate)).await;
        }
        given = due.min(count);
    }
    drop(orders);
    let mut all = Vec::new();
    for worker in workers {
        all.extend(worker.await.unwrap());
    }
    end(&mut desk, first + count).await;
    clock.next.store(first + count, Ordering::Relaxed);
    all
}

/// What a process used until now: seconds of CPU, and MiB that are resident now.
pub fn used(process: u32) -> (f64, f64) {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kilobytes: f64 = resident.trim().trim_end_matches(" kB").parse().unwrap();
    (ticks / 100.0, kilobytes / 1024.0)
}

/// A part of the sorted.
pub fn part(sorted: &[f64], part: f64) -> f64 {
    sorted.get(((sorted.len().max(1) - 1) as f64 * part) as usize).copied().unwrap_or(f64::NAN)
}
