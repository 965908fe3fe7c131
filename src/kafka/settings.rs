//! The settings of every client, and the ones that nobody may change.
//!
//! Invariant: what a guarantee rests on is set here and nowhere else; a property that would break one
//! is refused at start, with the reason. The figures behind the values are in docs/KAFKA.md.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use rdkafka::ClientConfig;

use super::KafkaOptions;
use super::error::KafkaFailure;

/// What a client is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Spreads the shards; reads nothing.
    Membership,
    /// Reads a shard's inputs.
    Inputs,
    /// Reads on at the end of a ledger, or through it.
    Tail,
    /// Hears the decisions that somebody waits for.
    Watch,
    /// Follows what others write, for people: many partitions, a few times a second.
    Follow,
    /// Reads a range now and then.
    Range,
    /// Appends ledger entries.
    Ledger,
    /// Publishes outputs.
    Outputs,
    /// Appends what came by HTTP, record by record.
    Ingress,
    /// Appends what came by HTTP, all or nothing.
    Batches,
    /// Sends an event log.
    Send,
    /// Asks and creates.
    Admin,
}

/// A property that is not passed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The property.
    pub property: String,
    /// Its value.
    pub value: String,
    /// Why, and what to do instead.
    pub why: &'static str,
}

/// Values that a guarantee rests on: the property, what it must be, and why.
const FIXED: &[(&str, &[&str], &str)] = &[
    ("enable.idempotence", &["true"], "without it a retry can put a ledger entry or an output out of order"),
    ("acks", &["all", "-1"], "with less an acknowledged frame can be lost with its leader"),
    ("request.required.acks", &["all", "-1"], "with less an acknowledged frame can be lost with its leader"),
    ("enable.gapless.guarantee", &["true"], "a frame behind a lost one does not count"),
    ("delivery.report.only.error", &["false"], "what is written would never be known to be there, and nothing would be decided"),
    ("message.timeout.ms", &["0"], "a message that times out leaves a hole, and may land all the same"),
    ("delivery.timeout.ms", &["0"], "a message that times out leaves a hole, and may land all the same"),
    ("enable.auto.commit", &["false"], "the positions are in the ledger, not in the group's offsets"),
    ("auto.commit.enable", &["false"], "the positions are in the ledger, not in the group's offsets"),
    ("enable.auto.offset.store", &["false"], "the positions are in the ledger, not in the group's offsets"),
    ("auto.offset.reset", &["error"], "a position that is gone must stop the shard: anything else skips or repeats orders"),
    ("topic.auto.offset.reset", &["error"], "a position that is gone must stop the shard: anything else skips or repeats orders"),
    ("isolation.level", &["read_committed"], "an aborted intent must not be decided"),
    ("allow.auto.create.topics", &["false"], "a topic made by accident has none of the settings it needs"),
    ("check.crcs", &["true"], "a record that was damaged on its way must not be decided"),
    ("group.protocol", &["classic"], "a killed static member would be refused for a whole session of the broker's choice"),
    ("partition.assignment.strategy", &["cooperative-sticky"], "the shards that stay must not stop while others move"),
];

/// Properties that have a key of their own, or none.
const OWNED: &[(&str, &str)] = &[
    ("bootstrap.servers", "set kafka.brokers"),
    ("metadata.broker.list", "set kafka.brokers"),
    ("group.id", "set kafka.group"),
    ("group.instance.id", "set kafka.instance"),
    ("session.timeout.ms", "set kafka.session_timeout_ms"),
    ("transactional.id", "the gate's own records are in no transaction"),
    ("enable.partition.eof", "the gate sets it where it needs it"),
    ("partitioner", "set shard.partitioner"),
    ("statistics.interval.ms", "the gate needs its own to know how far it lags and whether a client is of use"),
    ("max.in.flight", "set frame.in_flight_max"),
    ("max.in.flight.requests.per.connection", "set frame.in_flight_max"),
    ("queue.buffering.max.ms", "say linger.ms; the ledger's is 0, since a sixth frame that waits makes the client spin"),
    ("queue.buffering.max.messages", "what waits is bounded by the engine"),
    ("message.max.bytes", "the gate sets it to what its records need"),
    ("test.mock.num.brokers", "a mock keeps nothing"),
    ("test.mock.broker.rtt", "a mock keeps nothing"),
];

/// Properties whose values nobody should find in a file of settings.
pub const SECRETS: &[&str] = &[
    "sasl.password",
    "ssl.key.password",
    "ssl.keystore.password",
    "ssl.key.pem",
    "sasl.oauthbearer.client.secret",
    "sasl.oauthbearer.config",
    "sasl.oauthbearer.assertion.private.key.passphrase",
    "sasl.oauthbearer.assertion.private.key.pem",
];

/// What may not be passed on.
#[must_use]
pub fn refusals(properties: &BTreeMap<String, String>) -> Vec<Refusal> {
    let why = |property: &str, value: &str| {
        if SECRETS.contains(&property) {
            return Some("it is a secret: put it into a file and name that in kafka.secret_files");
        }
        let owned = OWNED.iter().find(|(name, _)| *name == property).map(|(_, why)| *why);
        owned.or_else(|| FIXED.iter().find(|(name, allowed, _)| *name == property && !allowed.contains(&value)).map(|(.., why)| *why))
    };
    let refused = |(property, value): (&String, &String)| {
        why(property, value).map(|why| Refusal {
            property: property.clone(),
            value: if SECRETS.contains(&property.as_str()) { "***".into() } else { value.clone() },
            why,
        })
    };
    properties.iter().filter_map(refused).collect()
}

/// Whether a property has its value from elsewhere, so that no file may hold it either.
#[must_use]
pub fn is_settled(property: &str) -> Option<&'static str> {
    let owned = OWNED.iter().find(|(name, _)| *name == property).map(|(_, why)| *why);
    owned.or_else(|| FIXED.iter().find(|(name, ..)| *name == property).map(|(.., why)| *why))
}

/// A client's configuration. Ours comes last: nothing passed through can undo it.
pub(super) fn client_config(options: &KafkaOptions, role: Role) -> Result<ClientConfig, KafkaFailure> {
    let mut config = ClientConfig::new();
    for (name, value) in COMMON {
        config.set(*name, *value);
    }
    for (name, value) in tunable(role) {
        config.set(*name, *value);
    }
    for (name, value) in &options.properties {
        config.set(name, value);
    }
    for (name, path) in &options.secret_files {
        config.set(name, secret(name, path)?);
    }
    config.set("bootstrap.servers", &options.brokers);
    config.set("client.id", options.client_id());
    let readers: &[(&str, &str)] =
        if matches!(role, Role::Inputs | Role::Tail | Role::Watch | Role::Follow | Role::Range) { READER } else { &[] };
    for (name, value) in readers.iter().chain(guarantees(role)) {
        config.set(*name, *value);
    }
    config.set("statistics.interval.ms", statistics_ms(role));
    match role {
        Role::Membership => {
            config.set("group.id", &options.group);
            config.set("session.timeout.ms", options.session_timeout_ms.to_string());
            if options.is_static {
                config.set("group.instance.id", &options.instance);
            }
        }
        Role::Inputs | Role::Tail | Role::Watch | Role::Follow | Role::Range => {
            config.set("group.id", &options.group);
        }
        Role::Batches => {
            config.set("transactional.id", format!("{}-{}-http", options.group, options.instance));
        }
        Role::Ledger | Role::Outputs | Role::Ingress | Role::Send | Role::Admin => {}
    }
    Ok(config)
}

/// Statistics tell how far a client lags, and whether it still knows a broker. A client keeps those that nobody fetches: one that is
/// not served all the time has none.
const fn statistics_ms(role: Role) -> &'static str {
    match role {
        Role::Inputs => "1000",
        Role::Membership
        | Role::Tail
        | Role::Watch
        | Role::Follow
        | Role::Ledger
        | Role::Outputs
        | Role::Ingress
        | Role::Send
        | Role::Admin => "2000",
        Role::Range | Role::Batches => "0",
    }
}

fn secret(name: &str, path: &PathBuf) -> Result<String, KafkaFailure> {
    let text = fs::read_to_string(path).map_err(|error| KafkaFailure::Secret {
        property: name.into(),
        path: path.clone(),
        detail: error.to_string(),
    })?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

const COMMON: &[(&str, &str)] = &[
    ("socket.nagle.disable", "true"),
    ("socket.timeout.ms", "3000"),
    ("reconnect.backoff.ms", "50"),
    ("reconnect.backoff.max.ms", "500"),
    ("socket.keepalive.enable", "true"),
    ("log.connection.close", "false"),
    ("topic.metadata.refresh.interval.ms", "60000"),
];

/// Defaults that an operator may change.
const fn tunable(role: Role) -> &'static [(&'static str, &'static str)] {
    match role {
        Role::Membership => &[("heartbeat.interval.ms", "500")],
        Role::Inputs => &[
            ("fetch.min.bytes", "1"),
            ("fetch.wait.max.ms", "100"),
            ("fetch.error.backoff.ms", "10"),
            ("fetch.queue.backoff.ms", "1"),
            ("queued.min.messages", "20000"),
            ("queued.max.messages.kbytes", "65536"),
        ],
        Role::Tail | Role::Watch | Role::Follow | Role::Range => &[("fetch.error.backoff.ms", "10"), ("fetch.queue.backoff.ms", "1")],
        Role::Ledger => &[("request.timeout.ms", "2000"), ("retry.backoff.ms", "20"), ("compression.type", "lz4")],
        Role::Outputs => &[("request.timeout.ms", "2000"), ("retry.backoff.ms", "20"), ("linger.ms", "0.5")],
        Role::Ingress => &[("request.timeout.ms", "2000"), ("retry.backoff.ms", "20"), ("linger.ms", "0.5")],
        Role::Batches => &[("request.timeout.ms", "2000"), ("retry.backoff.ms", "20"), ("transaction.timeout.ms", "5000")],
        Role::Send => &[
            ("request.timeout.ms", "2000"),
            ("retry.backoff.ms", "20"),
            ("linger.ms", "5"),
            ("compression.type", "lz4"),
            ("queue.buffering.max.kbytes", "65536"),
        ],
        Role::Admin => &[],
    }
}

/// Of everyone who reads records.
const READER: &[(&str, &str)] = &[
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("isolation.level", "read_committed"),
    ("check.crcs", "true"),
    ("allow.auto.create.topics", "false"),
    ("auto.offset.reset", "error"),
];

/// The longest output; `topics create` gives the topics the same.
pub(super) const OUTPUT_BYTES_MAX: &str = "8388608";

/// What a guarantee rests on.
const fn guarantees(role: Role) -> &'static [(&'static str, &'static str)] {
    match role {
        Role::Membership => &[
            ("group.protocol", "classic"),
            ("partition.assignment.strategy", "cooperative-sticky"),
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            ("allow.auto.create.topics", "false"),
            // It reads nothing: every partition is paused as soon as it is assigned.
            ("auto.offset.reset", "latest"),
            ("queued.min.messages", "1"),
            ("queued.max.messages.kbytes", "64"),
        ],
        Role::Inputs => &[],
        // A standby is a little behind all the same: one fetch for what came within 50 ms, not one for each frame.
        Role::Tail => &[
            ("enable.partition.eof", "true"),
            ("fetch.min.bytes", "1048576"),
            ("fetch.wait.max.ms", "50"),
            ("queued.min.messages", "20000"),
            ("queued.max.messages.kbytes", "8192"),
        ],
        Role::Watch => &[
            ("enable.partition.eof", "true"),
            ("fetch.min.bytes", "1"),
            ("fetch.wait.max.ms", "100"),
            ("queued.min.messages", "20000"),
            ("queued.max.messages.kbytes", "8192"),
        ],
        Role::Follow => &[
            ("enable.partition.eof", "true"),
            // One fetch for all that came within 25 ms: a fetch for each record would take the brokers' time from the decisions.
            ("fetch.min.bytes", "1048576"),
            ("fetch.wait.max.ms", "25"),
            ("queued.min.messages", "2000"),
            ("queued.max.messages.kbytes", "8192"),
        ],
        Role::Range => &[
            ("enable.partition.eof", "true"),
            // The next range waits behind an empty fetch of the last one.
            ("fetch.min.bytes", "1"),
            ("fetch.wait.max.ms", "5"),
            ("queued.min.messages", "2000"),
            ("queued.max.messages.kbytes", "8192"),
        ],
        Role::Ledger => &[
            ("enable.idempotence", "true"),
            ("acks", "all"),
            ("max.in.flight", "5"),
            ("enable.gapless.guarantee", "true"),
            ("message.timeout.ms", "0"),
            ("linger.ms", "0"),
        ],
        Role::Outputs | Role::Send => &[
            ("enable.idempotence", "true"),
            ("acks", "all"),
            ("max.in.flight", "5"),
            ("enable.gapless.guarantee", "true"),
            ("message.timeout.ms", "0"),
            // One kill switch can cause more outputs than any bound; the engine waits for them before it goes on.
            ("queue.buffering.max.messages", "0"),
            // One cancel_orders names every working order of an account.
            ("message.max.bytes", OUTPUT_BYTES_MAX),
        ],
        // A client that waits is told after a while; it sends again with the same id.
        Role::Ingress => &[("enable.idempotence", "true"), ("acks", "all"), ("max.in.flight", "5"), ("message.timeout.ms", "30000")],
        Role::Batches => &[("enable.idempotence", "true"), ("acks", "all")],
        Role::Admin => &[("allow.auto.create.topics", "false")],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(name: &str, value: &str) -> Option<&'static str> {
        let properties = BTreeMap::from([(name.to_owned(), value.to_owned())]);
        refusals(&properties).first().map(|refusal| refusal.why)
    }

    #[test]
    fn refuses_what_would_break_a_guarantee_and_says_why() {
        for (name, value) in [
            ("enable.idempotence", "false"),
            ("acks", "1"),
            ("enable.auto.commit", "true"),
            ("auto.offset.reset", "latest"),
            ("isolation.level", "read_uncommitted"),
            ("message.timeout.ms", "5000"),
            ("delivery.report.only.error", "true"),
            ("group.id", "other"),
            ("sasl.password", "x"),
            ("sasl.oauthbearer.assertion.private.key.pem", "x"),
            ("transactional.id", "t"),
        ] {
            assert!(refused(name, value).is_some(), "{name} = {value}");
        }
        for (name, value) in [("acks", "all"), ("linger.ms", "5"), ("security.protocol", "SASL_SSL"), ("ssl.ca.location", "/ca.pem")] {
            assert_eq!(refused(name, value), None, "{name} = {value}");
        }
    }

    #[test]
    fn a_secret_is_never_shown() {
        let properties = BTreeMap::from([("sasl.password".to_owned(), "hunter2".to_owned())]);
        assert_eq!(refusals(&properties)[0].value, "***");
    }

    #[test]
    fn nothing_passed_through_undoes_a_guarantee() {
        let properties = BTreeMap::from([("linger.ms".to_owned(), "50".to_owned()), ("fetch.wait.max.ms".to_owned(), "7".to_owned())]);
        let options = KafkaOptions { properties, ..KafkaOptions::default() };
        let value = |role, name: &str| client_config(&options, role).unwrap().get(name).map(str::to_owned);
        assert_eq!(value(Role::Ledger, "linger.ms").as_deref(), Some("0"));
        assert_eq!(value(Role::Outputs, "linger.ms").as_deref(), Some("50"));
        assert_eq!(value(Role::Inputs, "fetch.wait.max.ms").as_deref(), Some("7"));
        assert_eq!(value(Role::Range, "fetch.wait.max.ms").as_deref(), Some("5"));
        // What config/kafka.toml says of inputs is not what a standby fetches by.
        assert_eq!(value(Role::Tail, "fetch.wait.max.ms").as_deref(), Some("50"));
        assert_eq!(value(Role::Inputs, "auto.offset.reset").as_deref(), Some("error"));
    }
}
