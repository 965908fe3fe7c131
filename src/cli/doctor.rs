//! `ordergate doctor`: what is wrong with the cluster, the topics, the ledgers and this instance, in words or as JSON.
//!
//! Invariant: it changes nothing, and ends also when nothing answers. Exit 0: healthy; 1: something breaks; 4: no broker answers.

use std::path::Path;

use serde_json::{Value, json};

use super::settings::ConfigFile;
use super::topics::on_kafka;
use super::{Exit, Failure, say};
use crate::app::{cluster, topic_plan};
use crate::config::Config;
use crate::embedded::lock_directory;
use crate::kafka::{Broker, Clock, Diagnosis, Group, LedgerEnd, Permission, Problem, examine, findings_in_words};
use crate::log::LogError;
use crate::snapshot::{Inspected, inspect};

/// Arguments of `doctor`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    file: ConfigFile,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Examines, and says what was found.
pub fn run(args: &Args) -> Result<(), Failure> {
    let config = on_kafka(&args.file)?;
    let report = examine(&cluster(&config)?, &topic_plan(&config)).map_err(|failure| Failure::new(Exit::Usage, failure))?;
    let snapshots = snapshots(&config);
    if args.json {
        say(&format!("{:#}\n", as_json(&report, &snapshots)?))?;
    } else {
        say(&in_words(&report, &snapshots))?;
    }
    if !report.reachable || report.error.is_some() {
        return Err(Failure::new(Exit::Log, "the cluster does not answer"));
    }
    if report.is_broken() { Err(Failure::new(Exit::Wrong, "something is broken: see above")) } else { Ok(()) }
}

/// One line of the verdict, for scripts.
fn verdict(report: &Diagnosis) -> &'static str {
    if !report.reachable || report.error.is_some() {
        "unreachable"
    } else if report.is_broken() {
        "broken"
    } else {
        "healthy"
    }
}

fn as_json(report: &Diagnosis, snapshots: &Snapshots) -> Result<Value, Failure> {
    let mut value = serde_json::to_value(report).map_err(|error| Failure::new(Exit::Io, error))?;
    value["verdict"] = json!(verdict(report));
    value["snapshots"] = snapshots.as_json(report.at);
    Ok(value)
}

/// The snapshots of this instance's data directory.
struct Snapshots {
    dir: String,
    state: SnapshotState,
}

enum SnapshotState {
    /// There is no data directory.
    Absent,
    /// A daemon has it.
    InUse,
    /// It cannot be locked.
    Unreadable(LogError),
    /// Each shard's, or why they cannot be read.
    Read(Vec<(u32, Result<Vec<Inspected>, String>)>),
}

fn snapshots(config: &Config) -> Snapshots {
    let dir = config.snapshot_dir();
    let state = if config.data_dir.is_dir() {
        match lock_directory(&config.data_dir) {
            Ok(_lock) => SnapshotState::Read(read(&dir, config.shard.count)),
            Err(LogError::Locked { .. }) => SnapshotState::InUse,
            Err(error) => SnapshotState::Unreadable(error),
        }
    } else {
        SnapshotState::Absent
    };
    Snapshots { dir: dir.display().to_string(), state }
}

fn read(dir: &Path, shards: u32) -> Vec<(u32, Result<Vec<Inspected>, String>)> {
    let found = (0..shards).map(|shard| (shard, inspect(dir, shard).map_err(|error| error.to_string())));
    found.filter(|(_, found)| found.as_ref().is_err() || found.as_ref().is_ok_and(|found| !found.is_empty())).collect()
}

impl Snapshots {
    fn as_json(&self, at: i64) -> Value {
        let (state, shards) = match &self.state {
            SnapshotState::Absent => ("absent", Vec::new()),
            SnapshotState::InUse => ("in use", Vec::new()),
            SnapshotState::Unreadable(_) => ("unreadable", Vec::new()),
            SnapshotState::Read(shards) => ("read", shards.iter().map(|(shard, found)| shard_as_json(*shard, found, at)).collect()),
        };
        json!({"dir": self.dir, "state": state, "shards": shards})
    }

    fn in_words(&self, at: i64) -> String {
        let dir = &self.dir;
        match &self.state {
            SnapshotState::Absent => format!("snapshots: {dir}: no data directory here yet\n"),
            SnapshotState::InUse => format!("snapshots: {dir}: in use by a daemon, which says their age in its metrics\n"),
            SnapshotState::Unreadable(error) => format!("snapshots: {dir}: {error}\n"),
            SnapshotState::Read(shards) if shards.is_empty() => format!("snapshots: {dir}: none\n"),
            SnapshotState::Read(shards) => {
                let lines = shards.iter().map(|(shard, found)| match found {
                    Err(why) => format!("  shard {shard}: in doubt, will be moved aside: {why}\n"),
                    Ok(found) => found.iter().map(|one| snapshot_in_words(*shard, one, at)).collect(),
                });
                format!("snapshots: {dir}\n{}", lines.collect::<String>())
            }
        }
    }
}

fn shard_as_json(shard: u32, found: &Result<Vec<Inspected>, String>, at: i64) -> Value {
    let one = |found: &Inspected| {
        let Inspected { number, accounts, seq, next_offset, received } = found;
        json!({"generation": number, "seq": seq, "accounts": accounts, "next_offset": next_offset, "age_ms": at - received})
    };
    match found {
        Ok(found) => json!({"shard": shard, "generations": found.iter().map(one).collect::<Vec<_>>()}),
        Err(why) => json!({"shard": shard, "generations": [], "doubt": why}),
    }
}

fn snapshot_in_words(shard: u32, found: &Inspected, at: i64) -> String {
    let Inspected { number, accounts, seq, next_offset, received } = found;
    let age = ago(at, *received);
    format!("  shard {shard}: generation {number}: seq {seq}, {accounts} accounts, goes on at ledger offset {next_offset}, of {age}\n")
}

fn in_words(report: &Diagnosis, snapshots: &Snapshots) -> String {
    let client = &report.client;
    let mut text = format!("ordergate {}, librdkafka {}\n", client.ordergate, client.librdkafka);
    for named in &report.named {
        let said = named.cluster_id.as_ref().map_or("does not answer".to_owned(), |id| format!("cluster {id}"));
        text.push_str(&format!("named {}: {said}\n", named.address));
    }
    text.extend(report.brokers.iter().map(broker));
    if report.error.is_none() && report.reachable {
        text.push_str(&group(report.group.as_ref()));
        text.extend(report.shards.iter().map(|shard| shard_in_words(shard, report.at)));
        text.push_str(&clock(&report.clock));
        text.push_str(&permissions(&report.permissions));
    }
    text.push_str(&snapshots.in_words(report.at));
    text.push_str(&findings_in_words(&report.topics));
    text.extend(report.problems.iter().map(problem));
    text.extend(report.not_knowable.iter().map(|what| format!("not knowable: {what}\n")));
    text.extend(report.not_tried.iter().map(|what| format!("not tried: {what}\n")));
    text + &format!("verdict: {}\n", verdict(report))
}

fn broker(broker: &Broker) -> String {
    let Broker { id, address, reachable, took_ms } = broker;
    let answer = if *reachable { format!("answers in {took_ms} ms") } else { "does not answer us".to_owned() };
    format!("broker {id} at {address}: {answer}\n")
}

fn group(group: Option<&Group>) -> String {
    let Some(group) = group else { return "group: the cluster does not know it yet: no instance ever joined\n".to_owned() };
    let members = group.members.iter().map(|member| {
        let shards = member.shards.as_ref().map_or("is being told its shards".to_owned(), |shards| format!("shards {shards:?}"));
        format!("  {} ({}): {shards}\n", member.client, member.host)
    });
    let kind = if group.protocol.is_empty() { String::new() } else { format!(", {}", group.protocol) };
    format!("group {}: {}{kind}\n{}", group.name, group.state, members.collect::<String>())
}

fn shard_in_words(shard: &LedgerEnd, at: i64) -> String {
    let number = shard.shard;
    if let Some(trouble) = &shard.trouble {
        return format!("shard {number}: {trouble}\n");
    }
    let Some(head) = &shard.head else { return format!("shard {number}: its ledger is empty\n") };
    let mut text = format!(
        "shard {number}: term {}, entry {} at offset {}, seq {}, of {}, head {}\n",
        head.term,
        head.n,
        head.offset,
        head.seq,
        ago(at, head.made_at),
        head.hash
    );
    let claim =
        shard.claim.as_ref().map(|claim| format!("{} (ordergate {}) since {}", claim.owner, claim.program_version, ago(at, claim.since)));
    text.push_str(&format!("  claimed by {}\n", claim.as_deref().unwrap_or("someone whose claim was not found")));
    for source in shard.sources.iter().filter(|source| source.lag > 0) {
        text.push_str(&format!("  behind by {} in {} {}\n", source.lag, source.topic, source.partition));
    }
    text
}

/// How long before `at` a moment was.
fn ago(at: i64, then: i64) -> String {
    match at - then {
        ahead if ahead < 0 => format!("{} ms in our future", -ahead),
        ms if ms < 10_000 => format!("{ms} ms ago"),
        ms if ms < 600_000 => format!("{} s ago", ms / 1_000),
        ms => format!("{} min ago", ms / 60_000),
    }
}

fn clock(clock: &Clock) -> String {
    match (clock.owner_minus_broker_ms, clock.ours_behind_broker_ms_at_least) {
        (Some(owner), Some(ours)) => {
            format!("clocks: owner minus broker {owner} ms, ours behind the broker's by at least {ours} ms; from {}\n", clock.from)
        }
        (Some(_) | None, Some(_) | None) => format!("clocks: {}\n", clock.from),
    }
}

/// Only what is not as it should be; the rest is a number.
fn permissions(permissions: &[Permission]) -> String {
    let allowed = permissions.iter().filter(|permission| permission.allowed == Some(true)).count();
    let unknown = permissions.iter().filter(|permission| permission.allowed.is_none());
    let lines = unknown.map(|permission| format!("  {} on {}: {}\n", permission.operation, permission.resource, permission.how));
    format!("rights: {allowed} of {} shown\n{}", permissions.len(), lines.collect::<String>())
}

fn problem(problem: &Problem) -> String {
    let Problem { code, breaks, what, mend } = problem;
    format!("{}: {code}: {what}\n  mend: {mend}\n", if *breaks { "breaks" } else { "advice" })
}
