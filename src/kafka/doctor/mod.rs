//! What can be learned about a cluster, its topics, its ledgers and its clients, without changing any of them.
//!
//! Invariant: nothing is written, joined or altered, and every question has an end: what is down is said, and
//! the rest is told all the same. Deliberately absent: any repair, and anything only a write could show.

mod brokers;
mod ledger;
mod permissions;
mod problems;

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::domain::Millis;
use crate::log::{LogError, Topic};

use super::admin::{Admin, Finding, Plan, Seen, check};
use super::cluster::Cluster;
use super::error::KafkaFailure;
use super::group::Group;

pub use brokers::{Broker, Named};
pub use ledger::{Claimed, Head, LedgerEnd, SourceLag};
pub use permissions::Permission;
pub use problems::Problem;

/// How long all questions may take.
const IN_ALL: Duration = Duration::from_secs(45);
/// How long one question may take: less than a client that works would wait.
const PATIENCE_MS: u64 = 3_000;
/// How long a cluster of which a broker answers is asked for its topics: for as long as their session lasts (9 s by
/// default) the others name one that died, also as the one to ask.
const LOOK_FOR: Duration = Duration::from_secs(12);
/// How long until it is asked again.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// What is not to be learned, and why.
const NOT_KNOWABLE: &[&str] = &[
    "the brokers' versions: librdkafka speaks ApiVersions for itself and does not tell the answer (kafka-broker-api-versions.sh does)",
    "the controller: KRaft brokers name any broker in its place, and the client does not tell it (kafka-metadata-quorum.sh does)",
];
/// What is not tried, since trying it would leave something behind.
const NOT_TRIED: &[&str] = &[
    "WRITE on the topics: only a record would show it",
    "READ on the group: only joining would show it, and would move shards",
    "WRITE and DESCRIBE on the transactional id of POST /api/v1/records (GROUP-INSTANCE-http): asking for it would fence a running daemon",
    "CREATE on topics: `ordergate topics create --dry-run` tries it",
];

/// What was learned.
#[derive(Debug, Serialize)]
pub struct Diagnosis {
    /// When, by our clock, in ms since the epoch.
    pub at: Millis,
    /// What asks.
    pub client: Client,
    /// Whether any broker answers.
    pub reachable: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The cluster's id.
    pub cluster_id: Option<String>,
    /// What `kafka.brokers` names, and what each said.
    pub named: Vec<Named>,
    /// The brokers that the cluster tells, and whether each answers us.
    pub brokers: Vec<Broker>,
    /// What is wrong with the topics.
    pub topics: Vec<Finding>,
    /// What we may do, as far as it can be tried.
    pub permissions: Vec<Permission>,
    /// Every shard's ledger: its head, its claim, how far its inputs are applied.
    pub shards: Vec<LedgerEnd>,
    /// The consumer group.
    pub group: Option<Group>,
    /// What the clocks say.
    pub clock: Clock,
    /// What cannot be learned.
    pub not_knowable: &'static [&'static str],
    /// What was not tried.
    pub not_tried: Vec<String>,
    /// Everything that is wrong beside the topics' settings.
    pub problems: Vec<Problem>,
}

/// The program that asks.
#[derive(Debug, Serialize)]
pub struct Client {
    /// Its version.
    pub ordergate: &'static str,
    /// That of its Kafka client.
    pub librdkafka: String,
}

/// What the ledgers' timestamps say about clocks. A broker's clock cannot be asked for by itself.
#[derive(Debug, Default, Serialize)]
pub struct Clock {
    /// The owner's clock when it made the newest frame, minus the broker's when it appended it. A little below 0
    /// is the way to the broker.
    pub owner_minus_broker_ms: Option<Millis>,
    /// How much our clock is behind the broker's at least: by how much its newest entry lies in our future.
    pub ours_behind_broker_ms_at_least: Option<Millis>,
    /// From what this follows.
    pub from: String,
}

impl Diagnosis {
    /// Whether a guarantee does not hold, or nothing can work as it is.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.topics.iter().any(Finding::breaks) || self.problems.iter().any(|problem| problem.breaks)
    }
}

/// Who asks, and until when.
struct Examination {
    cluster: Cluster,
    plan: Plan,
    until: Instant,
    not_tried: Vec<String>,
    /// Brokers that do not answer us: what they lead is not asked for.
    silent: BTreeSet<i32>,
    seen: Seen,
}

/// Asks everything that can be asked.
///
/// # Errors
/// The settings are refused. Whatever does not answer is in the report.
pub fn examine(cluster: &Cluster, plan: &Plan) -> Result<Diagnosis, KafkaFailure> {
    let options =
        super::KafkaOptions { request_timeout_ms: cluster.options().request_timeout_ms.min(PATIENCE_MS), ..cluster.options().clone() };
    let cluster = Cluster::new(options)?;
    let until = Instant::now() + IN_ALL;
    let named = brokers::named(&cluster);
    let mut report = Diagnosis::new(named);
    match look(&cluster, report.reachable) {
        Ok(seen) => report.of_cluster(cluster, plan, seen, until),
        Err(error) => report.error = Some(described(&error)),
    }
    report.problems = problems::of(&report);
    Ok(report)
}

/// The topics as the cluster tells them; asked for more than once where a broker answers.
fn look(cluster: &Cluster, reachable: bool) -> Result<Seen, LogError> {
    let until = Instant::now() + LOOK_FOR;
    loop {
        let seen = Admin::new(cluster).and_then(|admin| admin.look());
        if seen.is_ok() || !reachable || Instant::now() >= until {
            return seen;
        }
        thread::sleep(LOOK_AGAIN);
    }
}

impl Diagnosis {
    fn new(named: Vec<Named>) -> Self {
        Self {
            at: now(),
            client: Client { ordergate: env!("CARGO_PKG_VERSION"), librdkafka: rdkafka::util::get_rdkafka_version().1 },
            reachable: named.iter().any(|named| named.cluster_id.is_some()),
            error: None,
            cluster_id: named.iter().find_map(|named| named.cluster_id.clone()),
            named,
            brokers: Vec::new(),
            topics: Vec::new(),
            permissions: Vec::new(),
            shards: Vec::new(),
            group: None,
            clock: Clock::default(),
            not_knowable: NOT_KNOWABLE,
            not_tried: NOT_TRIED.iter().map(|what| (*what).to_owned()).collect(),
            problems: Vec::new(),
        }
    }

    fn of_cluster(&mut self, cluster: Cluster, plan: &Plan, seen: Seen, until: Instant) {
        self.reachable = true;
        self.topics = check(plan, &seen);
        self.brokers = brokers::asked(&cluster, &seen);
        let silent = self.brokers.iter().filter(|broker| !broker.reachable).map(|broker| broker.id).collect();
        let mut examination = Examination { cluster, plan: plan.clone(), until, not_tried: Vec::new(), silent, seen };
        self.permissions = examination.permissions();
        match examination.cluster.group() {
            Ok(group) => self.group = group,
            Err(error) => examination.not_tried.push(format!("the group {}: {error}", examination.cluster.options().group)),
        }
        self.shards = examination.ledgers();
        self.clock = ledger::clock(&self.shards, examination.ledger_has_broker_time(), now());
        self.problems = problems::of_partitions(&examination.seen, &examination.plan);
        self.not_tried.append(&mut examination.not_tried);
    }
}

impl Examination {
    /// Whether there is time for more; else it is said what was left out.
    fn has_time_for(&mut self, what: &str) -> bool {
        let has = Instant::now() < self.until;
        if !has {
            self.not_tried.push(format!("{what}: the time was up"));
        }
        has
    }

    /// Whether someone who answers us leads this partition.
    fn is_led(&self, topic: Topic, partition: u32) -> bool {
        let partitions = self.seen.topics.get(&topic).map(|topic| topic.partitions.as_slice()).unwrap_or_default();
        let found = partitions.iter().find(|found| u32::try_from(found.id) == Ok(partition));
        found.is_some_and(|found| found.leader >= 0 && !self.silent.contains(&found.leader))
    }

    fn ledger_has_broker_time(&self) -> bool {
        let settings = self.seen.topics.get(&Topic::Ledger).and_then(|topic| topic.settings.as_ref().ok());
        settings.and_then(|settings| settings.get("message.timestamp.type")).is_some_and(|kind| kind == "LogAppendTime")
    }
}

/// An error with its code and its advice.
fn described(error: &LogError) -> String {
    format!("{}: {error}; {}", error.code(), error.advice())
}

fn now() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis::try_from(since.as_millis()).unwrap_or(Millis::MAX)
}
