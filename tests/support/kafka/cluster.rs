//! Brokers as processes: started, killed, frozen and restarted one by one.
//!
//! Invariant: every broker is this process's own child, signalled and reaped by its id; `broker.sh` kills it too when this process
//! is gone without a word.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::metadata::Metadata;
use rdkafka::producer::{BaseProducer, Producer};
use tempfile::TempDir;

use super::ports::{self, Port};
use super::{Home, source};

/// How long a broker may take until it answers. Two cores may be busy with other tests.
const READY_WITHIN: Duration = Duration::from_secs(60);
const ATTEMPTS: usize = 3;

/// One broker or three, all on loopback. Dropped: killed, and their folder removed.
pub struct Cluster {
    home: Home,
    folder: TempDir,
    ports: Vec<(Port, Port)>,
    nodes: Vec<Option<Child>>,
}

impl Cluster {
    /// One broker.
    pub fn single(home: &Home) -> Self {
        Self::start(home, 1, &[])
    }

    /// Three brokers: replication factor 3, `min.insync.replicas=2`.
    pub fn of_three(home: &Home) -> Self {
        Self::start(home, 3, &[])
    }

    /// Brokers with further settings of `server.properties`, in which `{broker}` and `{controller}` stand for a node's ports; waits
    /// until they answer.
    pub fn start(home: &Home, nodes: usize, settings: &[(&str, &str)]) -> Self {
        for attempt in 1.. {
            let mut cluster = Self::prepare(home, nodes, settings);
            for node in 0..nodes {
                cluster.start_node(node);
            }
            match cluster.ready() {
                Ok(()) => return cluster,
                // Someone who takes no part in the reservation may have taken a port.
                Err(why) => assert!(attempt < ATTEMPTS, "no broker: {why}\n{}", cluster.words()),
            }
        }
        unreachable!("the last attempt returns or panics")
    }

    fn prepare(home: &Home, nodes: usize, settings: &[(&str, &str)]) -> Self {
        let folder = TempDir::with_prefix("ordergate-kafka-").unwrap();
        let extra: String = settings.iter().map(|(key, value)| format!("{key}={value}\n")).collect();
        let cluster = Self {
            home: home.clone(),
            folder,
            ports: (0..nodes).map(|_| (ports::reserve(), ports::reserve())).collect(),
            nodes: (0..nodes).map(|_| None).collect(),
        };
        for node in 0..nodes {
            fs::create_dir(cluster.dir(node)).unwrap();
            let (broker, controller) = &cluster.ports[node];
            let extra = extra.replace("{broker}", &broker.number.to_string()).replace("{controller}", &controller.number.to_string());
            fs::write(cluster.dir(node).join("extra.properties"), extra).unwrap();
        }
        cluster
    }

    fn dir(&self, node: usize) -> PathBuf {
        self.folder.path().join(format!("n{}", node + 1))
    }

    /// The home that it runs from.
    pub fn home(&self) -> &Home {
        &self.home
    }

    /// `bootstrap.servers` of it.
    pub fn brokers(&self) -> String {
        let each: Vec<String> = self.ports.iter().map(|(broker, _)| format!("127.0.0.1:{}", broker.number)).collect();
        each.join(",")
    }

    /// The settings that every client of it needs.
    pub fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.brokers());
        config.set("reconnect.backoff.ms", "20").set("reconnect.backoff.max.ms", "200").set("socket.nagle.disable", "true");
        config
    }

    /// Starts a node that does not run, and does not wait. Nodes count from 0; Kafka's ids from 1.
    pub fn start_node(&mut self, node: usize) {
        self.start_node_for(node, std::process::id());
    }

    /// Starts a node that ends with another process than this one.
    pub fn start_node_for(&mut self, node: usize, owner: u32) {
        assert!(self.nodes[node].is_none(), "node {node} runs");
        let ports: Vec<String> = self.ports.iter().map(|(broker, controller)| format!("{}:{}", broker.number, controller.number)).collect();
        let mut command = Command::new(source("broker.sh"));
        command.arg("run").arg(self.dir(node)).args([ports.join(","), self.nodes.len().to_string(), (node + 1).to_string()]);
        command.env("HOME_", self.home.path()).env("OWNER", owner.to_string());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        self.nodes[node] = Some(command.spawn().unwrap());
    }

    /// SIGKILL: nothing is flushed, nobody is told.
    pub fn kill(&mut self, node: usize) {
        let mut child = self.nodes[node].take().expect("a running node");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// SIGTERM, and waits: leaderships are handed over first.
    pub fn stop(&mut self, node: usize) {
        self.signal(node, "TERM");
        let mut child = self.nodes[node].take().expect("a running node");
        let begun = Instant::now();
        while child.try_wait().unwrap().is_none() {
            assert!(begun.elapsed() < READY_WITHIN, "node {node} does not stop");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Whether a node that was started has ended by itself.
    pub fn has_ended(&mut self, node: usize) -> bool {
        self.nodes[node].as_mut().is_some_and(|child| child.try_wait().unwrap().is_some())
    }

    /// SIGSTOP: connections stay and nothing answers.
    pub fn freeze(&self, node: usize) {
        self.signal(node, "STOP");
    }

    /// SIGCONT.
    pub fn thaw(&self, node: usize) {
        self.signal(node, "CONT");
    }

    fn signal(&self, node: usize, signal: &str) {
        let pid = self.nodes[node].as_ref().expect("a running node").id();
        assert!(Command::new("sh").args(["-c", &format!("kill -{signal} {pid}")]).status().unwrap().success());
    }

    /// Kills and starts again, on the same ports and data; waits until it answers.
    pub fn restart(&mut self, node: usize) {
        self.kill(node);
        self.start_node(node);
        self.wait();
    }

    /// Waits until every node that runs answers, and all partitions have leaders.
    pub fn wait(&mut self) {
        if let Err(why) = self.ready() {
            panic!("the brokers do not answer: {why}\n{}", self.words());
        }
    }

    fn ready(&mut self) -> Result<(), String> {
        let producer: BaseProducer = self.client().create().unwrap();
        let begun = Instant::now();
        loop {
            if let Some(status) = self.nodes.iter_mut().flatten().find_map(|child| child.try_wait().unwrap()) {
                return Err(format!("a broker ended: {status}"));
            }
            let running = self.nodes.iter().flatten().count();
            let why = match producer.client().fetch_metadata(None, Duration::from_secs(1)) {
                Ok(metadata) if metadata.brokers().len() != running => format!("{} brokers of {running}", metadata.brokers().len()),
                Ok(metadata) if !all_led(&metadata) => "a partition has no leader".to_owned(),
                Ok(_) => return Ok(()),
                Err(error) => error.to_string(),
            };
            if begun.elapsed() > READY_WITHIN {
                return Err(why);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The node that leads a partition.
    pub fn leader(&self, topic: &str, partition: i32) -> Option<usize> {
        let producer: BaseProducer = self.client().create().unwrap();
        let metadata = producer.client().fetch_metadata(Some(topic), Duration::from_secs(10)).unwrap();
        let partition = metadata.topics().first()?.partitions().iter().find(|found| found.id() == partition)?;
        usize::try_from(partition.leader() - 1).ok()
    }

    /// Whether every replica of every partition is in sync.
    pub fn all_in_sync(&self) -> bool {
        let producer: BaseProducer = self.client().create().unwrap();
        let Ok(metadata) = producer.client().fetch_metadata(None, Duration::from_secs(10)) else { return false };
        let mut partitions = metadata.topics().iter().flat_map(|topic| topic.partitions());
        partitions.all(|partition| partition.isr().len() == partition.replicas().len())
    }

    /// The port that a node listens on for clients.
    pub fn port(&self, node: usize) -> u16 {
        self.ports[node].0.number
    }

    /// The last words of the brokers, for a failed test.
    fn words(&self) -> String {
        let each = (0..self.nodes.len()).map(|node| {
            let text = fs::read_to_string(self.dir(node).join("kafka.log")).unwrap_or_default();
            let lines: Vec<&str> = text.lines().rev().take(5).collect();
            format!("node {node}: {}", lines.into_iter().rev().collect::<Vec<_>>().join("\n"))
        });
        each.collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.nodes.iter_mut().flatten() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn all_led(metadata: &Metadata) -> bool {
    let known: Vec<i32> = metadata.brokers().iter().map(|broker| broker.id()).collect();
    metadata.topics().iter().flat_map(|topic| topic.partitions()).all(|partition| known.contains(&partition.leader()))
}
