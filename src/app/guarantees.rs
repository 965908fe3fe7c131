//! Whether the topics hold what the gate promises, asked before anything runs on them.
//!
//! Invariant: a daemon that runs on topics that break a guarantee was told to (`kafka.force_unsafe`), and
//! says so in its log, its metrics and `/readyz`. What it cannot do without is not forced.

use metrics::gauge;

use crate::cli::{Exit, Failure};
use crate::config::{Config, Timestamps};
use crate::kafka::{Admin, Cluster, Finding, Plan, check_topics, findings_in_words};
use crate::log::LogError;
use crate::telemetry;

use super::log_side::names_of;

/// Partitions of market data: four keep the readers of a shard busy, and any number is allowed.
pub const PRICE_PARTITIONS: u32 = 4;

/// What the configuration says about the topics.
#[must_use]
pub fn topic_plan(config: &Config) -> Plan {
    let kafka = &config.kafka;
    Plan {
        shards: config.shard.count,
        price_partitions: PRICE_PARTITIONS,
        replication: None,
        producer_time: config.log.timestamps == Timestamps::Producer,
        names: names_of(config),
        brokers: kafka.brokers.clone(),
        secured: kafka.properties.contains_key("security.protocol"),
    }
}

/// What is wrong with the topics of a cluster.
///
/// # Errors
/// The cluster cannot be asked.
pub fn topic_findings(cluster: &Cluster, plan: &Plan) -> Result<Vec<Finding>, LogError> {
    Ok(check_topics(plan, &Admin::new(cluster)?.look()?))
}

/// Lets a daemon run on these topics, or not. Gives what is broken all the same.
pub fn judged(findings: &[Finding], config: &Config) -> Result<Vec<String>, Failure> {
    let (broken, advice): (Vec<Finding>, Vec<Finding>) = findings.iter().cloned().partition(|finding| finding.breaks());
    if !advice.is_empty() {
        tracing::info!("the topics could be better:\n{}", findings_in_words(&advice));
    }
    gauge!(telemetry::UNSAFE).set(if broken.is_empty() { 0.0 } else { 1.0 });
    if broken.iter().any(|finding| !finding.forcible) || (!broken.is_empty() && !config.kafka.force_unsafe) {
        return Err(refusal(&broken));
    }
    Ok(broken.iter().map(forced).collect())
}

fn refusal(broken: &[Finding]) -> Failure {
    let forcible = broken.iter().all(|finding| finding.forcible);
    let force = if forcible { "; for development only, kafka.force_unsafe = true runs all the same" } else { "" };
    let what = format!(
        "TOPICS_UNSAFE: a guarantee does not hold on these topics (`ordergate topics check` says it again){force}:\n{}",
        findings_in_words(broken).trim_end()
    );
    Failure::new(Exit::Usage, what)
}

/// A guarantee that is given up, in the log and for `/readyz`.
fn forced(finding: &Finding) -> String {
    let Finding { topic, setting, value, wanted, why, mend, .. } = finding;
    tracing::error!(code = "TOPICS_UNSAFE", topic, setting, value, wanted, why, mend, "kafka.force_unsafe: runs without a guarantee");
    let guarantee = finding.guarantee.map_or("", |guarantee| guarantee.describe());
    format!("{topic}: {setting} is {value}, wanted {wanted}: not held: {guarantee}")
}
