//! `ordergate topics`: makes the topics that the gate needs, and says what is wrong with those that are there.
//!
//! Invariant: a check changes nothing; a creation touches nothing that exists.

use clap::Subcommand;
use serde_json::json;

use super::settings::ConfigFile;
use super::{Exit, Failure, say};
use crate::app::{cluster, topic_plan};
use crate::config::{Config, LogKind};
use crate::kafka::{Admin, Creation, Finding, Plan, check_topics, findings_in_words};

/// Arguments of `topics`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make the topics that are missing, with the settings that the guarantees need
    Create(Create),
    /// Say what is wrong with the topics: exit 1 when a guarantee does not hold
    Check(Check),
}

/// Arguments of `topics create`.
#[derive(Debug, clap::Args)]
struct Create {
    #[command(flatten)]
    file: ConfigFile,
    /// Replicas of each topic [default: 3, or as many as there are brokers]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=32))]
    replication: Option<u16>,
    /// Partitions of market.prices
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=4_096))]
    price_partitions: u32,
    /// Ask the cluster whether it would, and make nothing
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Arguments of `topics check`.
#[derive(Debug, clap::Args)]
struct Check {
    #[command(flatten)]
    file: ConfigFile,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Makes or checks.
pub fn run(args: &Args) -> Result<(), Failure> {
    match &args.action {
        Action::Create(args) => create(args),
        Action::Check(args) => check(args),
    }
}

/// The configuration of a log that is a cluster.
pub fn on_kafka(file: &ConfigFile) -> Result<Config, Failure> {
    let config = file.load(&[])?;
    match config.log.kind {
        LogKind::Kafka => Ok(config),
        LogKind::Embedded => {
            let what = "log.kind is \"embedded\", and one file has no brokers and no topics: give --config FILE with log.kind = \"kafka\"";
            Err(Failure::new(Exit::Usage, what))
        }
    }
}

fn create(args: &Create) -> Result<(), Failure> {
    let config = on_kafka(&args.file)?;
    let plan = Plan { price_partitions: args.price_partitions, replication: args.replication.map(usize::from), ..topic_plan(&config) };
    let admin = Admin::new(&cluster(&config)?)?;
    let before = admin.look()?;
    let creations = admin.create(&plan, &before, args.dry_run)?;
    let findings = if args.dry_run { Vec::new() } else { check_topics(&plan, &admin.look_after(&creations)?) };
    if args.json {
        say(&format!(
            "{:#}\n",
            json!({"dry_run": args.dry_run, "brokers": before.brokers.len(), "topics": creations, "findings": findings})
        ))?;
    } else {
        say(&in_words(&creations, before.brokers.len()))?;
        say(&findings_in_words(&findings))?;
    }
    let refused = creations.iter().filter(|creation| creation.refused.is_some()).count();
    if refused > 0 {
        return Err(Failure::new(Exit::Log, format!("{refused} topics were not made")));
    }
    verdict(&findings)
}

fn check(args: &Check) -> Result<(), Failure> {
    let config = on_kafka(&args.file)?;
    let plan = topic_plan(&config);
    let findings = check_topics(&plan, &Admin::new(&cluster(&config)?)?.look()?);
    if args.json {
        let breaks = findings.iter().filter(|finding| finding.breaks()).count();
        say(&format!("{:#}\n", json!({"safe": breaks == 0, "breaks": breaks, "advice": findings.len() - breaks, "findings": findings})))?;
    } else if findings.is_empty() {
        say("all topics are as they must be\n")?;
    } else {
        say(&findings_in_words(&findings))?;
    }
    verdict(&findings)
}

fn verdict(findings: &[Finding]) -> Result<(), Failure> {
    match findings.iter().filter(|finding| finding.breaks()).count() {
        0 => Ok(()),
        1 => Err(Failure::new(Exit::Wrong, "1 setting breaks a guarantee")),
        broken => Err(Failure::new(Exit::Wrong, format!("{broken} settings break guarantees"))),
    }
}

fn in_words(creations: &[Creation], brokers: usize) -> String {
    let line = |creation: &Creation| {
        let Creation { topic, outcome, partitions, replicas, refused } = creation;
        let why = refused.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        let (partitions, replicas) = (count(u64::from(*partitions), "partition"), count(*replicas as u64, "replica"));
        format!("{outcome}: {topic} ({partitions}, {replicas}){why}\n")
    };
    let lines: String = creations.iter().map(line).collect();
    let few = if brokers < 3 && creations.iter().any(|creation| creation.outcome != "exists") {
        format!("the cluster has {brokers} of the 3 brokers that a topic of 3 replicas needs: it gets what is there\n")
    } else {
        String::new()
    };
    lines + &few
}

/// A number of things.
fn count(number: u64, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}
