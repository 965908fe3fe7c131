//! What is wrong with the topics, from what the cluster says of them.
//!
//! Invariant: a function of the plan and of what was seen. What cannot be seen counts as wrong. A
//! setting breaks a guarantee where the cluster could hold it and does not; what a cluster of one broker
//! cannot give is advice, since nobody is deceived about it.

use crate::domain::InputTopic;
use crate::log::{OutputTopic, Topic};

use super::finding::{Finding, Guarantee, Severity};
use super::look::{Seen, SeenTopic, Unseen};
use super::wanted::{
    BATCH_BYTES, COMPACTION_LAG_MS_MOST, IN_SYNC, Plan, REPLICAS, RETENTION_MS_LEAST, TOMBSTONE_MS_LEAST, batch_bytes, cleanup,
    compression, is_compacted, is_ours, is_precious, retention_ms,
};

/// Where it is said how the number of shards changes.
const RUNBOOK: &str = "docs/RUNBOOK.md, 'How many shards'";

/// Everything that is wrong, what breaks a guarantee first.
#[must_use]
pub fn check(plan: &Plan, seen: &Seen) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (topic, found) in &seen.topics {
        let mut look = Look { plan, seen, topic: *topic, found, findings: &mut findings };
        look.topic();
    }
    findings.sort_by_key(|finding| finding.severity);
    findings
}

/// One topic under the lens.
struct Look<'a> {
    plan: &'a Plan,
    seen: &'a Seen,
    topic: Topic,
    found: &'a SeenTopic,
    findings: &'a mut Vec<Finding>,
}

impl Look<'_> {
    fn topic(&mut self) {
        if self.found.partitions.is_empty() {
            return self.absent();
        }
        self.partitions();
        self.replicas();
        match &self.found.settings {
            Ok(settings) if settings.is_empty() => self.unknown("unknown", "the cluster told no settings of it; ask again".into()),
            Ok(_) => self.settings(),
            Err(why) => self.unseen(&why.clone()),
        }
    }

    fn settings(&mut self) {
        self.in_sync();
        self.elections();
        self.cleanup();
        self.compaction();
        self.retention();
        self.sizes();
        self.timestamps();
        self.compression();
    }

    fn absent(&mut self) {
        if self.found.settings == Err(Unseen::Forbidden) {
            return self.unseen(&Unseen::Forbidden);
        }
        let (guarantee, why) =
            (Some(Guarantee::EveryRecordHasItsShard), "the gate reads or writes it; a write to a missing topic waits for ever");
        let wanted = match self.plan.partitions_made(self.topic) {
            1 => "1 partition".to_owned(),
            several => format!("{several} partitions"),
        };
        self.add("topic", ("missing".into(), wanted), guarantee, why.into(), "ordergate topics create".into());
    }

    fn partitions(&mut self) {
        let count = self.found.partitions.len();
        let Some(wanted) = self.plan.partitions(self.topic).filter(|wanted| usize::try_from(*wanted).is_ok_and(|wanted| wanted != count))
        else {
            return;
        };
        let is_of_shards = !matches!(self.topic, Topic::Input(InputTopic::Control) | Topic::Directory | Topic::Audit)
            && self.topic != Topic::Output(OutputTopic::DeadLetter);
        let (why, mend) = if is_of_shards {
            let why = "an account's partition follows from their number: with another one its intents, its fills and its ledger part ways. \
                       The number of shards is not changed by adding partitions";
            (why, format!("set shard.count to what the ledger has, or follow {RUNBOOK}"))
        } else {
            let why = "only partition 0 is read and written: records in the others are never seen";
            (
                why,
                format!(
                    "delete the topic if it is empty, then `ordergate topics create`; else copy its records into a new one ({RUNBOOK})"
                ),
            )
        };
        self.add("partitions", (count.to_string(), wanted.to_string()), Some(Guarantee::EveryRecordHasItsShard), why.into(), mend);
    }

    fn replicas(&mut self) {
        let brokers = self.seen.broker_ids().len();
        let found = self.found_replicas();
        if found >= self.plan.replicas(brokers) && found > 1 {
            return;
        }
        let wanted = if brokers < 2 { REPLICAS } else { self.plan.replicas(brokers).max(2) };
        let values = (found.to_string(), wanted.to_string());
        if found > 1 || brokers < 2 {
            let why = if brokers < 2 {
                "the cluster has one broker, so there is one copy of every record: whoever loses its disk loses the gate's memory. \
                 Good for development; in production have three brokers"
            } else {
                "two copies survive the loss of one, and then nothing is acknowledged until it is back; three go on"
            };
            return self.add("replicas", values, None, why.into(), self.reassignment(wanted));
        }
        let guarantee = is_precious(self.topic).then_some(Guarantee::AcknowledgedIsDurable);
        let why = "there is one copy of every record although the cluster could keep more: a lost disk loses what was acknowledged";
        self.add("replicas", values, guarantee, why.into(), self.reassignment(wanted));
    }

    fn in_sync(&mut self) {
        let replicas = self.found_replicas();
        let Some(found) = self.number("min.insync.replicas") else { return };
        let wanted = i64::try_from(IN_SYNC.min(replicas)).unwrap_or(1);
        if found < wanted {
            let guarantee = is_precious(self.topic).then_some(Guarantee::AcknowledgedIsDurable);
            let why = "a record is acknowledged while one broker alone has it, and is lost with that broker";
            self.setting("min.insync.replicas", &wanted.to_string(), guarantee, why);
        } else if found > 1 && replicas == 1 {
            let why = "with one replica the cluster does not hold to it: writes are acknowledged with one copy";
            self.setting("min.insync.replicas", "1", None, why);
        } else if replicas > IN_SYNC && found >= i64::try_from(replicas).unwrap_or(i64::MAX) {
            let why = "every broker has to be there: the loss of any of them stops the gate";
            self.setting("min.insync.replicas", &wanted.to_string(), None, why);
        }
    }

    fn elections(&mut self) {
        if self.value("unclean.leader.election.enable") == Some("true") {
            let guarantee = (is_precious(self.topic) && self.found_replicas() > 1).then_some(Guarantee::AcknowledgedIsDurable);
            let why = "a replica that lacks acknowledged records may become the leader, and they are gone";
            self.setting("unclean.leader.election.enable", "false", guarantee, why);
        }
    }

    fn cleanup(&mut self) {
        let wanted = cleanup(self.topic);
        if self.value("cleanup.policy").is_none_or(|value| value == wanted) {
            return;
        }
        let (guarantee, why) = match self.topic {
            Topic::Ledger => {
                (Guarantee::LedgerIsWhole, "its entries have no key, and every one of them is needed: a compacted topic refuses them")
            }
            Topic::Input(_) => {
                (Guarantee::InputsAreRead, "a later record of the same key removes an earlier one that may not be applied yet")
            }
            Topic::Output(_) => {
                (Guarantee::OutputsStay, "a later record of an account removes its earlier ones, and a takeover finds them absent")
            }
            Topic::Audit => (Guarantee::OutputsStay, "every record of it is a link of a chain, and all records of a chain have one key"),
            Topic::Directory => {
                let why = "old passwords' hashes, deleted people and old ciphertexts leave it by compaction alone, and only what is \
                           tombstoned may leave it";
                (Guarantee::ErasedIsGone, why)
            }
        };
        self.setting("cleanup.policy", wanted, Some(guarantee), why);
    }

    fn compaction(&mut self) {
        if !is_compacted(self.topic) {
            return;
        }
        if self.number("max.compaction.lag.ms").is_some_and(|value| value > COMPACTION_LAG_MS_MOST) {
            let why = "what is erased stays until the broker finds it worth a compaction, which may be never";
            self.setting("max.compaction.lag.ms", "86400000", None, why);
        }
        if self.number("delete.retention.ms").is_some_and(|value| value < TOMBSTONE_MS_LEAST) {
            let why = "a reader that was away for longer does not learn what was erased";
            self.setting("delete.retention.ms", "86400000", None, why);
        }
    }

    fn retention(&mut self) {
        let endless = retention_ms(self.topic) < 0;
        let guarantee = match self.topic {
            Topic::Ledger => Some((
                Guarantee::LedgerIsWhole,
                "the ledger is the only memory of the gate: what is deleted of it cannot be rebuilt or proved",
            )),
            Topic::Input(InputTopic::Control) => Some((
                Guarantee::InputsAreRead,
                "a shard that begins reads all of it: without its first records it knows no account and no rule",
            )),
            Topic::Directory => Some((Guarantee::InputsAreRead, "people and their rights are the fold of all of it")),
            Topic::Input(_) | Topic::Output(_) | Topic::Audit => None,
        };
        if let Some((guarantee, why)) = guarantee {
            for setting in ["retention.ms", "retention.bytes"] {
                if self.number(setting).is_some_and(|value| value >= 0) {
                    self.setting(setting, "-1", Some(guarantee), why);
                }
            }
            return;
        }
        if self.number("retention.bytes").is_some_and(|value| value >= 0) {
            self.setting("retention.bytes", "-1", None, "how long a record is kept follows from the traffic, and is short when it matters");
        }
        let Some(found) = self.number("retention.ms").filter(|value| *value >= 0) else { return };
        let wanted = retention_ms(self.topic).to_string();
        if endless {
            let why = "every shard has its place in it, and one that comes back to it late finds its place gone and refuses to start";
            self.setting("retention.ms", &wanted, None, why);
        } else if found < RETENTION_MS_LEAST {
            let why = "less than a day: a shard that is down for longer finds its place gone and refuses to start";
            self.setting("retention.ms", &wanted, None, why);
        }
    }

    fn sizes(&mut self) {
        let (needed, wanted) = batch_bytes(self.topic);
        if let Some(value) = self.number("max.message.bytes").filter(|value| *value < needed) {
            let (guarantee, why) = if !is_ours(self.topic) {
                let why =
                    "a batch of records has up to 1 MB with librdkafka's and Java's defaults; larger ones are refused to their producers";
                (None, why)
            } else if value < BATCH_BYTES {
                let why = "an entry of the ledger has up to 512 KiB, a batch of records up to 1 MB: one that is refused stops its shard";
                (Some(Guarantee::WritesFit), why)
            } else {
                // Kafka's own default: it holds for all but accounts with some 15,000 working orders.
                let why = "one command may name every working order of an account: one that is refused is published again and again, \
                           and its shard decides nothing more";
                (None, why)
            };
            self.setting("max.message.bytes", &wanted.to_string(), guarantee, why);
        }
    }

    fn timestamps(&mut self) {
        let Some(found) = self.value("message.timestamp.type") else { return };
        let wanted = if self.plan.has_producer_time(self.topic) { "CreateTime" } else { "LogAppendTime" };
        if found == wanted {
            return;
        }
        let (guarantee, why) = match self.topic {
            Topic::Input(_) if wanted == "LogAppendTime" => {
                let why = "producers could give any time: what is old passes as fresh, and expired intents as young. \
                           Set log.timestamps = \"producer\" if that is what you want";
                (Some(Guarantee::TimeIsTheLogs), why)
            }
            Topic::Input(_) => (None, "log.timestamps is \"producer\", and the topic puts the time of the append in its place"),
            Topic::Ledger | Topic::Output(_) | Topic::Directory | Topic::Audit => {
                (None, "nothing is decided by it, but `ordergate doctor` compares the clocks with it, and readers see the writer's clock")
            }
        };
        self.setting("message.timestamp.type", wanted, guarantee, why);
    }

    fn compression(&mut self) {
        let wanted = compression(self.topic);
        if self.topic == Topic::Ledger && self.value("compression.type").is_some_and(|found| found != wanted && found != "producer") {
            self.setting("compression.type", wanted, None, "lz4 is read again twice as fast, and other codecs make the broker recompress");
        }
    }

    fn unseen(&mut self, why: &Unseen) {
        if *why == Unseen::NoToken {
            // To refuse would be to refuse every cluster of this kind.
            let mend = "ordergate topics check, as a user of SCRAM or TLS".to_owned();
            return self.add("settings", ("hidden".into(), "known".into()), None, why.to_string(), mend);
        }
        self.unknown("hidden", why.to_string());
    }

    fn unknown(&mut self, value: &str, why: String) {
        let name = self.name();
        let mend = format!(
            "kafka-acls.sh --bootstrap-server {}{} --add --allow-principal User:GATE --operation Describe --operation DescribeConfigs --topic {name}",
            self.plan.brokers,
            self.client_file()
        );
        self.add("settings", (value.into(), "known".into()), Some(Guarantee::SettingsAreKnown), why, mend);
    }

    /// A setting with another value than the wanted one, and the command that sets it.
    fn setting(&mut self, setting: &'static str, wanted: &str, guarantee: Option<Guarantee>, why: &str) {
        let value = self.value(setting).unwrap_or("unknown").to_owned();
        let mend = format!(
            "kafka-configs.sh --bootstrap-server {}{} --alter --entity-type topics --entity-name {} --add-config {setting}={wanted}",
            self.plan.brokers,
            self.client_file(),
            self.name()
        );
        self.add(setting, (value, wanted.to_owned()), guarantee, why.to_owned(), mend);
    }

    fn add(&mut self, setting: &'static str, (value, wanted): (String, String), guarantee: Option<Guarantee>, why: String, mend: String) {
        let severity = if guarantee.is_some() { Severity::Breaks } else { Severity::Advice };
        let forcible = guarantee != Some(Guarantee::EveryRecordHasItsShard);
        let topic = self.name().to_owned();
        self.findings.push(Finding { topic, setting, value, wanted, severity, guarantee, why, mend, forcible });
    }

    /// The command that gives every partition so many replicas: those it has, then brokers in turn.
    fn reassignment(&self, wanted: usize) -> String {
        let brokers: Vec<i32> = self.seen.broker_ids().into_iter().collect();
        if brokers.len() < wanted {
            return "add brokers to the cluster, and ask again".into();
        }
        let partitions = self.found.partitions.iter().enumerate().map(|(place, partition)| {
            let mut replicas = partition.replicas.clone();
            let others = brokers.iter().cycle().skip(place).take(brokers.len());
            replicas.extend(others.filter(|broker| !partition.replicas.contains(broker)));
            replicas.truncate(wanted);
            let list: Vec<String> = replicas.iter().map(i32::to_string).collect();
            format!(r#"{{"topic":"{}","partition":{},"replicas":[{}]}}"#, self.name(), partition.id, list.join(","))
        });
        format!(
            "echo '{{\"version\":1,\"partitions\":[{}]}}' > replicas.json && kafka-reassign-partitions.sh --bootstrap-server {}{} \
             --reassignment-json-file replicas.json --execute",
            partitions.collect::<Vec<_>>().join(","),
            self.plan.brokers,
            self.client_file()
        )
    }

    /// The fewest replicas that a partition has.
    fn found_replicas(&self) -> usize {
        self.found.partitions.iter().map(|partition| partition.replicas.len()).min().unwrap_or(0)
    }

    fn value(&self, setting: &str) -> Option<&str> {
        self.found.settings.as_ref().ok()?.get(setting).map(String::as_str)
    }

    fn number(&self, setting: &str) -> Option<i64> {
        self.value(setting)?.parse().ok()
    }

    fn name(&self) -> &str {
        self.topic.name_in(&self.plan.names)
    }

    const fn client_file(&self) -> &'static str {
        if self.plan.secured { " --command-config client.properties" } else { "" }
    }
}
