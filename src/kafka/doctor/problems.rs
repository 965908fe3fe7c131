//! What is wrong, from everything that was learned.
//!
//! Invariant: a function of the report. Deliberately absent: what is wrong with the topics' settings (`admin/check.rs`).

use serde::Serialize;

use crate::log::Topic;

use super::super::admin::{Plan, Seen};
use super::{Diagnosis, LedgerEnd};

/// Clocks that differ by less do no harm.
const SKEW_MS_MAX: i64 = 1_000;
/// An append takes less, and so long the broker's time can be behind its writer's without any skew.
const APPEND_MS_MAX: i64 = 5_000;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Its stable name.
    pub code: &'static str,
    /// Whether something cannot work as it is; else it is worth a look.
    pub breaks: bool,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub mend: String,
}

fn problem(code: &'static str, breaks: bool, what: String, mend: &str) -> Problem {
    Problem { code, breaks, what, mend: mend.to_owned() }
}

/// Everything, what breaks something first.
pub(super) fn of(report: &Diagnosis) -> Vec<Problem> {
    let mut problems = report.problems.clone();
    named(report, &mut problems);
    brokers(report, &mut problems);
    permissions(report, &mut problems);
    report.shards.iter().for_each(|shard| ledger(shard, &mut problems));
    owners(report, &mut problems);
    clocks(report, &mut problems);
    problems.sort_by_key(|problem| !problem.breaks);
    problems
}

fn named(report: &Diagnosis, problems: &mut Vec<Problem>) {
    if let Some(why) = &report.error {
        problems.push(problem(
            "CLUSTER_UNREACHABLE",
            true,
            why.clone(),
            "start the brokers, or correct kafka.brokers and its TLS and SASL settings",
        ));
    }
    for named in &report.named {
        match &named.cluster_id {
            None => {
                let what = format!("{} (kafka.brokers) does not answer", named.address);
                problems.push(problem("BOOTSTRAP_SILENT", false, what, "start it, or take it out of kafka.brokers"));
            }
            Some(id) if report.cluster_id.as_ref() != Some(id) => {
                let first = report.cluster_id.as_deref().unwrap_or("none");
                let what = format!("kafka.brokers names two clusters: {} is of {id}, and others of {first}", named.address);
                problems.push(problem("CLUSTERS_DIFFER", true, what, "name the brokers of one cluster"));
            }
            Some(_) => {}
        }
    }
}

fn brokers(report: &Diagnosis, problems: &mut Vec<Problem>) {
    for broker in report.brokers.iter().filter(|broker| !broker.reachable) {
        let what = format!("broker {} says that it is at {}, and does not answer us there", broker.id, broker.address);
        problems.push(problem(
            "BROKER_UNREACHABLE",
            true,
            what,
            "start it, or correct its advertised.listeners, name service and firewall",
        ));
    }
}

fn permissions(report: &Diagnosis, problems: &mut Vec<Problem>) {
    for denied in report.permissions.iter().filter(|permission| permission.allowed == Some(false)) {
        let (kind, name) = denied.resource.split_once(' ').unwrap_or(("topic", &denied.resource));
        let mend = format!("kafka-acls.sh --add --allow-principal User:GATE --operation {} --{kind} {name}", acl_name(denied.operation));
        problems.push(problem("FORBIDDEN", denied.needed, format!("{} on {} is not allowed", denied.operation, denied.resource), &mend));
    }
}

/// An operation as kafka-acls.sh spells it.
fn acl_name(operation: &str) -> &str {
    match operation {
        "DESCRIBE_CONFIGS" => "DescribeConfigs",
        "READ" => "Read",
        "DESCRIBE" => "Describe",
        other => other,
    }
}

fn ledger(shard: &LedgerEnd, problems: &mut Vec<Problem>) {
    if let Some(trouble) = &shard.trouble {
        let code = if shard.is_damaged { "LEDGER_DAMAGED" } else { "LEDGER_SILENT" };
        let mend = "docs/RUNBOOK.md, 'Read a ledger'; nothing is decided on this shard until its ledger can be read";
        problems.push(problem(code, true, format!("shard {}: {trouble}", shard.shard), mend));
    }
    for source in shard.sources.iter().filter(|source| source.is_lost()) {
        let what = format!(
            "shard {}: {} {} holds offsets {} to {}, and {} is to be applied next",
            shard.shard,
            source.topic,
            source.partition,
            source.first,
            source.end,
            source.applied.unwrap_or_default()
        );
        problems.push(problem("SOURCE_LOST", true, what, "the topic was truncated or made anew: docs/RUNBOOK.md, LOG_OUT_OF_RANGE"));
    }
}

fn owners(report: &Diagnosis, problems: &mut Vec<Problem>) {
    if !report.reachable || report.error.is_some() {
        return;
    }
    let members = report.group.as_ref().map(|group| group.members.as_slice()).unwrap_or_default();
    if members.is_empty() {
        let waiting: u64 = report.shards.iter().filter_map(|shard| shard.lag).sum();
        let what = format!("the group has no members: no instance runs, and {waiting} records wait");
        return problems.push(problem("NOBODY_DECIDES", false, what, "ordergate run"));
    }
    let given = |shard: u32| members.iter().any(|member| member.shards.as_ref().is_none_or(|shards| shards.contains(&shard)));
    for shard in report.shards.iter().filter(|shard| !given(shard.shard)) {
        let what = format!("no member of the group has shard {}", shard.shard);
        problems.push(problem("SHARD_UNASSIGNED", false, what, "wait for the rebalance; if it stays, look at the instances' logs"));
    }
}

fn clocks(report: &Diagnosis, problems: &mut Vec<Problem>) {
    if let Some(skew) = report.clock.owner_minus_broker_ms.filter(|skew| *skew > SKEW_MS_MAX || *skew < -APPEND_MS_MAX) {
        let way = if skew > 0 { "" } else { " (or the append took that long)" };
        let what = format!("the clock of a shard's owner minus the broker's is {skew} ms{way}");
        problems.push(problem(
            "CLOCK_SKEW",
            false,
            what,
            "run a time daemon (chrony, ntpd) on both: ages of prices and expiries are measured",
        ));
    }
    if let Some(behind) = report.clock.ours_behind_broker_ms_at_least.filter(|behind| *behind > SKEW_MS_MAX) {
        let what = format!("our clock is at least {behind} ms behind the broker's");
        problems.push(problem("CLOCK_SKEW", false, what, "run a time daemon (chrony, ntpd) here and there"));
    }
}

/// Partitions that nobody leads, or that lack copies.
pub(super) fn of_partitions(seen: &Seen, plan: &Plan) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (topic, found) in &seen.topics {
        let name = Topic::name_in(*topic, &plan.names);
        let numbers = |wanted: &dyn Fn(&&super::super::admin::SeenPartition) -> bool| -> Vec<String> {
            found.partitions.iter().filter(|partition| wanted(partition)).map(|partition| partition.id.to_string()).collect()
        };
        let leaderless = numbers(&|partition| partition.leader < 0);
        if !leaderless.is_empty() {
            let what = format!("{name}: nobody leads partitions {}", leaderless.join(", "));
            problems.push(problem("NO_LEADER", true, what, "start the brokers that have them: kafka-topics.sh --describe says which"));
        }
        let lacking = numbers(&|partition| partition.in_sync.len() < partition.replicas.len());
        if !lacking.is_empty() {
            let what = format!("{name}: not every replica of partitions {} has everything", lacking.join(", "));
            problems.push(problem("REPLICAS_BEHIND", false, what, "a broker is down or slow: with one more away, writes stop"));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::super::super::group::{Group, Member};
    use super::super::{Broker, Clock, Named, Permission, SourceLag};
    use super::*;

    /// Two shards that one instance owns, and nothing wrong.
    fn healthy() -> Diagnosis {
        let named = Named { address: "a:1".into(), cluster_id: Some("c".into()) };
        let member = Member { id: "m".into(), client: "m".into(), host: "h".into(), shards: Some(vec![0, 1]) };
        let group = Group { name: "g".into(), state: "Stable".into(), protocol: "p".into(), members: vec![member] };
        let shards = [0, 1].map(|shard| LedgerEnd { shard, lag: Some(0), ..LedgerEnd::default() });
        let clock = Clock { owner_minus_broker_ms: Some(-3), ours_behind_broker_ms_at_least: Some(0), from: String::new() };
        Diagnosis { reachable: true, group: Some(group), shards: shards.into(), clock, ..Diagnosis::new(vec![named]) }
    }

    #[track_caller]
    fn finds(code: &str, breaks: bool, change: impl Fn(&mut Diagnosis)) {
        let mut diagnosis = healthy();
        change(&mut diagnosis);
        let found: Vec<_> = of(&diagnosis).iter().map(|problem| (problem.code, problem.breaks)).collect();
        assert_eq!(found, [(code, breaks)]);
    }

    #[test]
    fn a_healthy_cluster_has_no_problems() {
        assert_eq!(of(&healthy()), []);
    }

    #[test]
    fn each_fault_is_found_with_its_code() {
        finds("CLUSTER_UNREACHABLE", true, |diagnosis| diagnosis.error = Some("no answer".into()));
        finds("BOOTSTRAP_SILENT", false, |diagnosis| diagnosis.named.push(Named { address: "b:1".into(), cluster_id: None }));
        finds("CLUSTERS_DIFFER", true, |diagnosis| diagnosis.named.push(Named { address: "b:1".into(), cluster_id: Some("d".into()) }));
        finds("BROKER_UNREACHABLE", true, |diagnosis| {
            diagnosis.brokers.push(Broker { id: 1, address: "a:1".into(), reachable: false, took_ms: 3_000 });
        });
        finds("NOBODY_DECIDES", false, |diagnosis| diagnosis.group = None);
        finds("SHARD_UNASSIGNED", false, |diagnosis| diagnosis.shards.push(LedgerEnd { shard: 2, ..LedgerEnd::default() }));
        finds("LEDGER_SILENT", true, |diagnosis| diagnosis.shards[0].trouble = Some("no leader".into()));
        finds("LEDGER_DAMAGED", true, |diagnosis| {
            diagnosis.shards[0].trouble = Some("checksum".into());
            diagnosis.shards[0].is_damaged = true;
        });
    }

    #[test]
    fn a_place_that_is_gone_is_a_fault_and_a_lag_is_not() {
        let source = |applied| SourceLag { topic: "orders.intents", partition: 0, applied: Some(applied), first: 5, end: 9, lag: 4 };
        finds("SOURCE_LOST", true, |diagnosis| diagnosis.shards[0].sources.push(source(4)));
        finds("SOURCE_LOST", true, |diagnosis| diagnosis.shards[0].sources.push(source(10)));
        let mut lags = healthy();
        lags.shards[0].sources.push(source(5));
        assert_eq!(of(&lags), []);
    }

    #[test]
    fn a_clock_ahead_is_skew_and_a_slow_append_is_not() {
        finds("CLOCK_SKEW", false, |diagnosis| diagnosis.clock.owner_minus_broker_ms = Some(1_500));
        finds("CLOCK_SKEW", false, |diagnosis| diagnosis.clock.owner_minus_broker_ms = Some(-6_000));
        finds("CLOCK_SKEW", false, |diagnosis| diagnosis.clock.ours_behind_broker_ms_at_least = Some(1_500));
        let mut slow = healthy();
        slow.clock.owner_minus_broker_ms = Some(-3_000);
        assert_eq!(of(&slow), []);
    }

    #[test]
    fn a_missing_right_breaks_what_needs_it() {
        for needed in [true, false] {
            let right = Permission { resource: "topic t".into(), operation: "READ", needed, allowed: Some(false), how: String::new() };
            finds("FORBIDDEN", needed, |diagnosis| diagnosis.permissions.push(right.clone()));
        }
    }
}
