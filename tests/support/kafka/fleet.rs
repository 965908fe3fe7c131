//! Instances of the gate as processes on one cluster: started, killed, paused and restarted, under a flow of records.
//!
//! Invariant: every process is this one's own child, signalled and reaped by its id.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use tempfile::TempDir;

use super::cluster::Cluster;
pub use super::gate::program;

/// How long a fleet may take until all its shards decide.
const READY_WITHIN: Duration = Duration::from_secs(90);

/// Some instances, one data directory each.
pub struct Fleet {
    dir: TempDir,
    settings: Vec<(String, String)>,
    instances: Vec<Option<Instance>>,
    config: Option<PathBuf>,
    /// A limit of the shell for what is started: `ulimit -f 100`.
    limit: Option<String>,
}

struct Instance {
    child: Child,
    http: String,
    metrics: String,
}

impl Fleet {
    /// None of them runs yet.
    pub fn new(cluster: &Cluster, count: usize, shards: i32, settings: &[(&str, &str)]) -> Self {
        let mut all = cluster.gate_settings("", shards);
        all.extend(settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        let instances = (0..count).map(|_| None).collect();
        Self { dir: TempDir::with_prefix("ordergate-fleet-").unwrap(), settings: all, instances, config: None, limit: None }
    }

    /// A setting of the instances that are started from now on.
    pub fn set(&mut self, key: &str, value: &str) {
        self.settings.retain(|(known, _)| known != key);
        self.settings.push((key.to_owned(), value.to_owned()));
    }

    /// The configuration file of the instances that are started from now on.
    pub fn configure(&mut self, toml: &str) {
        let path = self.dir.path().join("config.toml");
        std::fs::write(&path, toml).unwrap();
        self.config = Some(path);
    }

    /// A limit of the shell that what is started from now on has: `ulimit -f 100`.
    pub fn limit(&mut self, limit: Option<&str>) {
        self.limit = limit.map(str::to_owned);
    }

    /// Where an instance keeps its snapshots.
    pub fn data_dir(&self, place: usize) -> PathBuf {
        self.dir.path().join(format!("gate-{}", place + 1))
    }

    /// Where an instance logs.
    pub fn log(&self, place: usize) -> PathBuf {
        self.dir.path().join(format!("gate-{}.log", place + 1))
    }

    /// Starts an instance that does not run, and waits until it listens.
    pub fn start(&mut self, place: usize) {
        self.start_as(place, &format!("gate-{}", place + 1));
    }

    /// The same under another name.
    pub fn start_as(&mut self, place: usize, name: &str) {
        let mut child = self.spawn(place, name);
        let line = BufReader::new(child.stdout.take().unwrap()).lines().next();
        let line = line.unwrap_or_else(|| panic!("it did not start: {}", self.words(place))).unwrap();
        let at = |name: &str| {
            let rest = line.split(&format!("{name}=http://")).nth(1).unwrap_or_else(|| panic!("{line}"));
            rest.split([' ', '/']).next().unwrap().to_owned()
        };
        self.instances[place] = Some(Instance { http: at("http"), metrics: at("metrics"), child });
    }

    fn spawn(&self, place: usize, name: &str) -> Child {
        assert!(self.instances[place].is_none(), "instance {place} runs");
        let log = File::options().create(true).append(true).open(self.log(place)).unwrap();
        let mut command = match &self.limit {
            None => Command::new(program()),
            Some(limit) => {
                let mut shell = Command::new("bash");
                shell.args(["-c", &format!("{limit}; exec \"$0\" \"$@\"")]).arg(program());
                shell
            }
        };
        command.args(["run", "--http", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--data-dir"]).arg(self.data_dir(place));
        if let Some(config) = &self.config {
            command.arg("--config").arg(config);
        }
        for (key, value) in &self.settings {
            command.env(format!("ORDERGATE__{}", key.to_uppercase().replace('.', "__")), value);
        }
        command.env("ORDERGATE__KAFKA__INSTANCE", name);
        command.stdout(Stdio::piped()).stderr(log).spawn().unwrap()
    }

    /// Starts an instance and kills it so much later, whether it listens or not.
    pub fn start_and_kill(&self, place: usize, after: Duration) {
        let mut child = self.spawn(place, &format!("gate-{}", place + 1));
        std::thread::sleep(after);
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Starts an instance that is to refuse, and gives its exit code and all that it logged.
    pub fn refusal(&self, place: usize, within: Duration) -> (Option<i32>, String) {
        let mut child = self.spawn(place, &format!("gate-{}", place + 1));
        let begun = Instant::now();
        let code = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status.code();
            }
            if begun.elapsed() > within {
                child.kill().unwrap();
                child.wait().unwrap();
                panic!("it runs on for {within:?}: {}", self.words(place));
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        (code, std::fs::read_to_string(self.log(place)).unwrap())
    }

    /// What became of an instance's process (Z: it has ended, whoever ended it), and the last lines that it logged.
    pub fn words(&self, place: usize) -> String {
        let status = self.instances[place].as_ref().map(|instance| format!("/proc/{}/status", instance.child.id()));
        let state = status.and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
        let state = state.lines().find(|line| line.starts_with("State:")).unwrap_or("State: gone").to_owned();
        let text = std::fs::read_to_string(self.log(place)).unwrap_or_default();
        let lines: Vec<&str> = text.lines().rev().take(15).collect();
        std::iter::once(state.as_str()).chain(lines.into_iter().rev()).collect::<Vec<_>>().join("\n")
    }

    pub fn runs(&self, place: usize) -> bool {
        self.instances[place].is_some()
    }

    fn instance(&self, place: usize) -> &Instance {
        self.instances[place].as_ref().expect("a running instance")
    }

    /// SIGKILL.
    pub fn kill(&mut self, place: usize) {
        let mut instance = self.instances[place].take().expect("a running instance");
        instance.child.kill().unwrap();
        instance.child.wait().unwrap();
    }

    /// SIGTERM, and its exit code.
    pub fn stop(&mut self, place: usize) -> Option<i32> {
        self.signal(place, "TERM");
        let mut instance = self.instances[place].take().expect("a running instance");
        instance.child.wait().unwrap().code()
    }

    /// The memory of an instance that is resident, in bytes.
    pub fn resident_bytes(&self, place: usize) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.instance(place).child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() * 1024
    }

    /// Sends a signal to one instance.
    pub fn signal(&self, place: usize, signal: &str) {
        let pid = self.instance(place).child.id();
        assert!(Command::new("sh").args(["-c", &format!("kill -{signal} {pid}")]).status().unwrap().success());
    }

    /// Where the API of an instance is.
    pub fn http(&self, place: usize) -> &str {
        &self.instance(place).http
    }

    /// A page of an instance; nothing when it does not answer.
    pub fn get(&self, place: usize, path: &str) -> Option<(u16, String)> {
        let instance = self.instance(place);
        let host = if path == "/metrics" { &instance.metrics } else { &instance.http };
        let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(Duration::from_secs(2))).build();
        let mut answer = ureq::Agent::from(config).get(format!("http://{host}{path}")).call().ok()?;
        Some((answer.status().as_u16(), answer.body_mut().read_to_string().ok()?))
    }

    /// Posts an intent: the status and the answer; nothing when the instance does not answer.
    pub fn post_intent(&self, place: usize, body: &str, timeout_ms: u64) -> Option<(u16, serde_json::Value)> {
        let url = format!("http://{}/api/v1/intents?timeout_ms={timeout_ms}", self.http(place));
        let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(Duration::from_secs(60))).build();
        let mut answer = ureq::Agent::from(config).post(url).header("content-type", "application/json").send(body).ok()?;
        let text = answer.body_mut().read_to_string().ok()?;
        Some((answer.status().as_u16(), serde_json::from_str(&text).unwrap_or(serde_json::Value::String(text))))
    }

    /// Waits until `/readyz` of an instance says this, and gives the whole of what it says.
    pub fn wait_until_it_says(&self, place: usize, what: &str, within: Duration) -> String {
        self.says(place, what, within).unwrap_or_else(|| {
            let said = self.get(place, "/readyz");
            panic!("gate-{} does not say {what}: {said:?}\n{}", place + 1, self.words(place))
        })
    }

    /// What `/readyz` says, if it comes to say this.
    pub fn says(&self, place: usize, what: &str, within: Duration) -> Option<String> {
        let begun = Instant::now();
        while begun.elapsed() < within {
            if let Some((_, text)) = self.get(place, "/readyz").filter(|(_, text)| text.contains(what)) {
                return Some(text);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        None
    }

    /// Waits until an instance's log says it.
    pub fn wait_until_it_logs(&self, place: usize, what: &str, within: Duration) {
        let begun = Instant::now();
        while !std::fs::read_to_string(self.log(place)).is_ok_and(|text| text.contains(what)) {
            assert!(begun.elapsed() < within, "gate-{} does not log {what}: {}", place + 1, self.words(place));
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits until an instance owns so many shards.
    pub fn wait_until_it_owns(&self, place: usize, shards: i32, within: Duration) {
        let begun = Instant::now();
        while self.metric(place, "ordergate_shard_owned").is_none_or(|owned| (owned - f64::from(shards)).abs() > 0.5) {
            assert!(begun.elapsed() < within, "gate-{} does not own {shards} shards: {}", place + 1, self.words(place));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The memory of an instance that is in use, in MiB.
    pub fn resident_mib(&self, place: usize) -> u64 {
        let pid = self.instance(place).child.id();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
    }

    /// The process of an instance.
    pub fn pid(&self, place: usize) -> u32 {
        self.instance(place).child.id()
    }

    /// The value of a metric, summed over its labels; nothing when the instance does not answer.
    pub fn metric(&self, place: usize, name: &str) -> Option<f64> {
        let (_, text) = self.get(place, "/metrics")?;
        let of = |line: &&str| line.starts_with(name) && matches!(line.as_bytes().get(name.len()), Some(b' ' | b'{'));
        Some(text.lines().filter(of).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
    }

    /// How many shards the instances own, those that answer.
    pub fn owned(&self) -> f64 {
        (0..self.instances.len()).filter(|place| self.runs(*place)).filter_map(|place| self.metric(place, "ordergate_shard_owned")).sum()
    }

    /// Waits until all shards have an owner and every instance is ready.
    pub fn wait_until_all_decide(&self, shards: i32) {
        let begun = Instant::now();
        let running: Vec<usize> = (0..self.instances.len()).filter(|place| self.runs(*place)).collect();
        loop {
            let not_ready = running.iter().find_map(|place| match self.get(*place, "/readyz") {
                Some((200, _)) => None,
                other => Some(format!("gate-{}: {other:?}", place + 1)),
            });
            let owned = self.owned();
            if not_ready.is_none() && (owned - f64::from(shards)).abs() < 0.5 {
                return;
            }
            let words: Vec<String> = running.iter().map(|place| self.words(*place)).collect();
            assert!(begun.elapsed() < READY_WITHIN, "{owned} of {shards} shards owned; {not_ready:?}\n{}", words.join("\n--\n"));
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Stops all that run.
    pub fn stop_all(&mut self) {
        for place in 0..self.instances.len() {
            if self.runs(place) {
                let code = self.stop(place);
                assert_eq!(code, Some(0), "gate-{}: {}", place + 1, self.words(place));
            }
        }
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for instance in self.instances.iter_mut().flatten() {
            // It may have ended by itself.
            let _ = instance.child.kill();
            let _ = instance.child.wait();
        }
        if std::thread::panicking() || std::env::var_os("KEEP_LOGS").is_some() {
            let kept = std::env::temp_dir().join(format!("ordergate-fleet-logs-{}", std::process::id()));
            std::fs::create_dir_all(&kept).unwrap();
            for place in 0..self.instances.len() {
                let _ = std::fs::copy(self.log(place), kept.join(format!("gate-{}.log", place + 1)));
            }
            eprintln!("logs kept in {}", kept.display());
        }
    }
}

/// A flow of records into the inputs at a steady pace, until it is stopped or its lines end.
pub struct Flow {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Flow {
    /// Sends the lines of an event log; `first` of them at once, and the others when those are applied.
    pub fn start(cluster: &Cluster, lines: Vec<String>, first: usize, per_second: u64) -> Self {
        Self::stream(cluster, lines.into_iter(), first, per_second)
    }

    /// The same from lines that come as they are needed.
    pub fn stream(cluster: &Cluster, mut lines: impl Iterator<Item = String> + Send + 'static, first: usize, per_second: u64) -> Self {
        let mut config = cluster.client();
        config.set("enable.idempotence", "true").set("partitioner", "murmur2_random").set("linger.ms", "1");
        let producer: ThreadedProducer<DefaultProducerContext> = config.create().unwrap();
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let thread = std::thread::spawn({
            let (stop, sent) = (stop.clone(), sent.clone());
            move || {
                // Accounts are open and instruments defined before the first order, as at any desk.
                lines.by_ref().take(first).for_each(|line| send(&producer, &line));
                producer.flush(Duration::from_secs(120)).unwrap();
                std::thread::sleep(Duration::from_secs(2));
                sent.fetch_add(first as u64, Ordering::Relaxed);
                let begun = Instant::now();
                for (place, line) in (0..).zip(lines) {
                    let due = Duration::from_micros(place * 1_000_000 / per_second.max(1));
                    while begun.elapsed() < due && !stop.load(Ordering::Relaxed) {
                        std::thread::sleep((due - begun.elapsed().min(due)).min(Duration::from_millis(20)));
                    }
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    send(&producer, &line);
                    sent.fetch_add(1, Ordering::Relaxed);
                }
                producer.flush(Duration::from_secs(120)).unwrap();
            }
        });
        Self { stop, sent, thread: Some(thread) }
    }

    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Stops, or waits for the end of the lines, and for all acknowledgements.
    pub fn finish(mut self, at_once: bool) -> u64 {
        self.stop.store(at_once, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
        self.sent()
    }
}

fn send(producer: &ThreadedProducer<DefaultProducerContext>, line: &str) {
    let value: serde_json::Value = serde_json::from_str(line).unwrap();
    let payload = value["payload"].to_string();
    let topic = value["topic"].as_str().unwrap();
    let mut record: BaseRecord<'_, str, str> = BaseRecord::to(topic).payload(&payload);
    record.key = value["key"].as_str();
    record.timestamp = value["ts"].as_i64();
    while let Err((error, back)) = producer.send(record) {
        assert_eq!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::QueueFull), "{error}");
        std::thread::sleep(Duration::from_millis(5));
        record = back;
    }
}

/// The lines of an event log, `.gz` or plain.
pub fn lines_of(path: &Path) -> Vec<String> {
    let bytes = std::fs::read(path).unwrap();
    let mut text = String::new();
    if path.extension().is_some_and(|extension| extension == "gz") {
        flate2::read::GzDecoder::new(bytes.as_slice()).read_to_string(&mut text).unwrap();
    } else {
        text = String::from_utf8(bytes).unwrap();
    }
    text.lines().map(str::to_owned).collect()
}

/// Order flow of the program's own generator, as it makes it.
pub fn generating(seed: u64, accounts: u32, events: u64) -> impl Iterator<Item = String> + Send {
    let numbers = [seed.to_string(), accounts.to_string(), events.to_string()];
    let args = ["generate", "--seed", &numbers[0], "--accounts", &numbers[1], "--symbols", "4", "--events", &numbers[2]];
    let child = Command::new(program()).args(args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let mut child = child.unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    Generating { child, lines }
}

struct Generating {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Iterator for Generating {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        self.lines.next()?.ok()
    }
}

impl Drop for Generating {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Order flow of the program's own generator.
pub fn generated(seed: u64, accounts: u32, events: u64) -> Vec<String> {
    let numbers = [seed.to_string(), accounts.to_string(), events.to_string()];
    let args = ["generate", "--seed", &numbers[0], "--accounts", &numbers[1], "--symbols", "4", "--events", &numbers[2]];
    let output = Command::new(program()).args(args).output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}
