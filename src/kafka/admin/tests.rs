//! Every guarantee has a setting that breaks it, and every such setting is found.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::domain::InputTopic;
use crate::log::{OutputTopic, Topic};
use crate::wire::TopicNames;

const INTENTS: Topic = Topic::Input(InputTopic::Intents);
const PRICES: Topic = Topic::Input(InputTopic::Prices);
const CONTROL: Topic = Topic::Input(InputTopic::Control);
const DECISIONS: Topic = Topic::Output(OutputTopic::Decisions);
const COMMANDS: Topic = Topic::Output(OutputTopic::Commands);
const DEAD_LETTER: Topic = Topic::Output(OutputTopic::DeadLetter);

fn plan() -> Plan {
    Plan {
        shards: 8,
        price_partitions: 4,
        replication: None,
        producer_time: false,
        names: TopicNames::default(),
        brokers: "127.0.0.1:9092".into(),
        secured: false,
    }
}

/// A cluster of so many brokers with what `topics create` makes on it.
fn as_created(plan: &Plan, brokers: i32) -> Seen {
    let replicas = plan.replicas(usize::try_from(brokers).unwrap());
    let ids: Vec<i32> = (1..=i32::try_from(replicas).unwrap()).collect();
    let topic = |topic: Topic| {
        let partition = |id| SeenPartition { id, leader: 1, replicas: ids.clone(), in_sync: ids.clone() };
        let settings = plan.settings(topic, replicas).into_iter().map(|(name, value)| (name.to_owned(), value));
        let partitions = (0..i32::try_from(plan.partitions_made(topic)).unwrap()).map(partition).collect();
        (topic, SeenTopic { partitions, settings: Ok(settings.collect()) })
    };
    let brokers = (1..=brokers).map(|id| SeenBroker { id, host: "127.0.0.1".into(), port: 9092 }).collect();
    Seen { brokers, topics: Topic::ALL.into_iter().map(topic).collect() }
}

/// What is found when one setting of one topic on three brokers is changed.
fn with(topic: Topic, setting: &str, value: &str) -> Vec<Finding> {
    let mut seen = as_created(&plan(), 3);
    let settings = seen.topics.get_mut(&topic).unwrap().settings.as_mut().unwrap();
    assert!(settings.insert(setting.to_owned(), value.to_owned()).is_some(), "{setting} is no setting that is made");
    check(&plan(), &seen)
}

#[track_caller]
fn only(findings: &[Finding]) -> &Finding {
    assert_eq!(findings.len(), 1, "{findings:#?}");
    &findings[0]
}

#[track_caller]
fn breaks(topic: Topic, setting: &'static str, value: &str, guarantee: Guarantee) {
    let findings = with(topic, setting, value);
    let finding = only(&findings);
    assert_eq!((finding.topic.as_str(), finding.setting, finding.value.as_str()), (topic.name(), setting, value));
    assert_eq!((finding.severity, finding.guarantee), (Severity::Breaks, Some(guarantee)), "{finding:#?}");
    assert!(
        finding.mend.contains(&format!("--entity-name {} --add-config {setting}={}", topic.name(), finding.wanted)),
        "{}",
        finding.mend
    );
    assert!(with(topic, setting, &finding.wanted).is_empty(), "the wanted value is found wrong too");
}

#[track_caller]
fn advises(topic: Topic, setting: &'static str, value: &str) {
    let findings = with(topic, setting, value);
    let finding = only(&findings);
    assert_eq!((finding.topic.as_str(), finding.setting, finding.severity), (topic.name(), setting, Severity::Advice));
    assert!(with(topic, setting, &finding.wanted).is_empty(), "the wanted value is found wrong too");
}

fn on(topic: Topic, brokers: i32, change: impl Fn(&mut SeenTopic)) -> Vec<Finding> {
    let mut seen = as_created(&plan(), brokers);
    change(seen.topics.get_mut(&topic).unwrap());
    check(&plan(), &seen)
}

#[test]
fn what_is_created_is_found_right() {
    for brokers in [2, 3, 9] {
        for producer_time in [false, true] {
            let plan = Plan { producer_time, ..plan() };
            assert_eq!(check(&plan, &as_created(&plan, brokers)), [], "{brokers} brokers");
        }
    }
}

#[test]
fn one_broker_is_allowed_and_said() {
    let findings = check(&plan(), &as_created(&plan(), 1));
    assert_eq!(findings.len(), Topic::ALL.len());
    assert!(findings.iter().all(|finding| !finding.breaks() && finding.setting == "replicas"), "{findings:#?}");
}

#[test]
fn settings_that_lose_an_acknowledged_record_break_a_guarantee() {
    for topic in Topic::ALL.into_iter().filter(|topic| *topic != PRICES) {
        breaks(topic, "min.insync.replicas", "1", Guarantee::AcknowledgedIsDurable);
        breaks(topic, "unclean.leader.election.enable", "true", Guarantee::AcknowledgedIsDurable);
    }
    advises(PRICES, "min.insync.replicas", "1");
    advises(PRICES, "unclean.leader.election.enable", "true");
    advises(Topic::Ledger, "min.insync.replicas", "3");
}

#[test]
fn one_copy_where_the_cluster_could_keep_more_breaks_a_guarantee() {
    let alone = |found: &mut SeenTopic| found.partitions.iter_mut().for_each(|partition| partition.replicas.truncate(1));
    for brokers in [2, 3] {
        let findings = on(Topic::Ledger, brokers, alone);
        let finding = findings.iter().find(|finding| finding.setting == "replicas").unwrap();
        assert_eq!(finding.guarantee, Some(Guarantee::AcknowledgedIsDurable));
        assert!(finding.mend.contains(r#"{"topic":"gate.ledger","partition":0,"replicas":[1,2"#), "{}", finding.mend);
        assert!(on(PRICES, brokers, alone).iter().all(|finding| !finding.breaks()));
    }
    let two = |found: &mut SeenTopic| found.partitions.iter_mut().for_each(|partition| partition.replicas.truncate(2));
    assert!(!only(&on(Topic::Ledger, 3, two)).breaks());
}

#[test]
fn a_broker_that_is_away_makes_nothing_look_worse_or_better() {
    let mut seen = as_created(&plan(), 3);
    seen.brokers.truncate(1);
    assert_eq!(check(&plan(), &seen), []);
    seen.topics.get_mut(&Topic::Ledger).unwrap().partitions.iter_mut().for_each(|partition| partition.replicas.truncate(1));
    assert!(check(&plan(), &seen).iter().any(Finding::breaks), "the replicas of the other topics show that there are three brokers");
}

#[test]
fn min_insync_above_one_copy_is_advice_since_the_cluster_does_not_hold_to_it() {
    let findings = on(Topic::Ledger, 1, |found| {
        found.settings.as_mut().unwrap().insert("min.insync.replicas".into(), "2".into());
    });
    let finding = findings.iter().find(|finding| finding.setting == "min.insync.replicas").unwrap();
    assert!(!finding.breaks() && finding.why.contains("does not hold to it"));
}

#[test]
fn a_ledger_that_is_not_kept_whole_breaks_a_guarantee() {
    for (setting, value) in [("retention.ms", "604800000"), ("retention.bytes", "1073741824")] {
        breaks(Topic::Ledger, setting, value, Guarantee::LedgerIsWhole);
        breaks(CONTROL, setting, value, Guarantee::InputsAreRead);
        breaks(Topic::Directory, setting, value, Guarantee::InputsAreRead);
        advises(Topic::Audit, setting, value);
        advises(DEAD_LETTER, setting, value);
    }
    for policy in ["compact", "compact,delete"] {
        breaks(Topic::Ledger, "cleanup.policy", policy, Guarantee::LedgerIsWhole);
        breaks(INTENTS, "cleanup.policy", policy, Guarantee::InputsAreRead);
        breaks(DECISIONS, "cleanup.policy", policy, Guarantee::OutputsStay);
        breaks(Topic::Audit, "cleanup.policy", policy, Guarantee::OutputsStay);
    }
}

#[test]
fn a_directory_that_keeps_what_was_erased_breaks_a_guarantee() {
    for policy in ["delete", "compact,delete"] {
        breaks(Topic::Directory, "cleanup.policy", policy, Guarantee::ErasedIsGone);
    }
    advises(Topic::Directory, "max.compaction.lag.ms", "9223372036854775807");
    let findings = on(Topic::Directory, 3, |found| {
        found.settings.as_mut().unwrap().insert("delete.retention.ms".into(), "60000".into());
    });
    assert!(!only(&findings).breaks() && only(&findings).setting == "delete.retention.ms");
}

#[test]
fn short_retention_of_what_is_applied_soon_is_advice() {
    advises(INTENTS, "retention.ms", "3600000");
    advises(DECISIONS, "retention.ms", "3600000");
    advises(INTENTS, "retention.bytes", "1000000");
    assert_eq!(with(INTENTS, "retention.ms", "-1"), []);
    assert_eq!(with(INTENTS, "retention.ms", "86400000"), []);
}

#[test]
fn producers_that_choose_their_time_break_a_guarantee_unless_that_is_wanted() {
    breaks(INTENTS, "message.timestamp.type", "CreateTime", Guarantee::TimeIsTheLogs);
    breaks(PRICES, "message.timestamp.type", "CreateTime", Guarantee::TimeIsTheLogs);
    advises(Topic::Ledger, "message.timestamp.type", "CreateTime");
    let wanted = Plan { producer_time: true, ..plan() };
    let findings = check(&wanted, &as_created(&plan(), 3));
    assert_eq!(findings.len(), 4);
    assert!(findings.iter().all(|finding| !finding.breaks() && finding.wanted == "CreateTime"));
}

#[test]
fn a_topic_that_refuses_what_the_gate_writes_breaks_a_guarantee() {
    for topic in [Topic::Ledger, DECISIONS, DEAD_LETTER, COMMANDS] {
        breaks(topic, "max.message.bytes", "600000", Guarantee::WritesFit);
    }
    // Kafka's default takes every batch of short records, and not one command about very many orders.
    advises(COMMANDS, "max.message.bytes", "1048588");
    let longest: i64 = super::super::settings::OUTPUT_BYTES_MAX.parse().unwrap();
    assert!(longest < wanted::batch_bytes(COMMANDS).0 && wanted::batch_bytes(COMMANDS).0 <= wanted::batch_bytes(COMMANDS).1);
    advises(INTENTS, "max.message.bytes", "600000");
    assert!(i64::try_from(crate::wire::frame::ENTRY_BYTES_MAX).unwrap() < wanted::BATCH_BYTES);
}

#[test]
fn other_codecs_on_the_ledger_are_advice() {
    advises(Topic::Ledger, "compression.type", "gzip");
    assert_eq!(with(Topic::Ledger, "compression.type", "producer"), []);
}

#[test]
fn another_number_of_partitions_breaks_a_guarantee_and_is_not_forced() {
    for (topic, count) in [(INTENTS, 9), (Topic::Ledger, 4), (CONTROL, 2), (DEAD_LETTER, 8)] {
        let findings = on(topic, 3, |found| {
            let first = found.partitions[0].clone();
            found.partitions = vec![first; count];
        });
        let finding = only(&findings);
        assert_eq!((finding.setting, finding.guarantee, finding.forcible), ("partitions", Some(Guarantee::EveryRecordHasItsShard), false));
        assert!(finding.mend.contains("docs/RUNBOOK.md"), "{}", finding.mend);
    }
    assert_eq!(on(PRICES, 3, |found| found.partitions.truncate(1)), []);
}

#[test]
fn a_missing_topic_breaks_a_guarantee_where_it_is_used() {
    let gone = |found: &mut SeenTopic| *found = SeenTopic { partitions: Vec::new(), settings: Ok(BTreeMap::new()) };
    for topic in Topic::ALL {
        let findings = on(topic, 3, gone);
        let finding = only(&findings);
        assert_eq!((finding.value.as_str(), finding.mend.as_str()), ("missing", "ordergate topics create"));
        assert!(finding.breaks(), "{topic}");
        assert!(!finding.forcible || !finding.breaks());
    }
}

#[test]
fn what_may_not_be_seen_counts_as_wrong() {
    for why in [Unseen::Forbidden, Unseen::Failed { code: rdkafka::types::RDKafkaErrorCode::Unknown }] {
        let findings = on(Topic::Ledger, 3, |found| found.settings = Err(why.clone()));
        assert_eq!(only(&findings).guarantee, Some(Guarantee::SettingsAreKnown));
    }
    // Metadata leaves out what we may not see: that is no missing topic, and is not made.
    let hidden = |found: &mut SeenTopic| *found = SeenTopic { partitions: Vec::new(), settings: Err(Unseen::Forbidden) };
    assert_eq!(only(&on(Topic::Ledger, 3, hidden)).value, "hidden");
    let untold = on(Topic::Ledger, 3, |found| found.settings = Ok(BTreeMap::new()));
    assert!(only(&untold).breaks());
}

#[test]
fn every_guarantee_can_be_broken() {
    let mut broken = BTreeSet::new();
    for (topic, setting, value) in [
        (Topic::Ledger, "retention.ms", "1"),
        (INTENTS, "cleanup.policy", "compact"),
        (DECISIONS, "cleanup.policy", "compact"),
        (Topic::Directory, "cleanup.policy", "delete"),
        (INTENTS, "min.insync.replicas", "1"),
        (INTENTS, "message.timestamp.type", "CreateTime"),
        (DECISIONS, "max.message.bytes", "1"),
    ] {
        broken.extend(with(topic, setting, value).into_iter().filter_map(|finding| finding.guarantee));
    }
    broken.extend(on(INTENTS, 3, |found| found.partitions.clear()).into_iter().filter_map(|finding| finding.guarantee));
    broken.extend(on(INTENTS, 3, |found| found.settings = Err(Unseen::Forbidden)).into_iter().filter_map(|finding| finding.guarantee));
    assert_eq!(broken, Guarantee::ALL.into());
}

#[test]
fn the_same_fault_of_several_topics_is_said_once() {
    let text = in_words(&check(&plan(), &as_created(&plan(), 1)));
    assert_eq!(text.matches("why:").count(), 1, "{text}");
    assert!(Topic::ALL.iter().all(|topic| text.contains(topic.name())));
}
