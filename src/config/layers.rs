//! The layers of a configuration, one over another, each value checked as it comes.
//!
//! Invariant: whatever is wrong is noted and the rest is still looked at. Deliberately absent: guessing. A number in quotes in a
//! file is refused; in the environment and in flags, where everything is text, it is read.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;

use config::{File, FileFormat, Value, ValueKind};

use super::keys::{self, Allowed, Fallback, KEYS, Key};
use super::{Config, ConfigError, LogKind, Problem};
use crate::kafka::{Refusal, is_settled, refusals};
use crate::market::calendar::parse_zone;
use crate::vault::broker;

/// A value as it was given.
#[derive(Clone, Debug)]
pub(super) enum Given {
    /// In a file, typed.
    Typed(Value),
    /// In the environment or a flag: text.
    Spelled(String),
}

/// The layers so far.
pub(super) struct Layers {
    values: BTreeMap<&'static str, (Value, String)>,
    refused: BTreeSet<&'static str>,
    problems: Vec<Problem>,
}

impl Layers {
    /// The defaults.
    pub(super) fn of_defaults() -> Self {
        let default = |key: &Key| match key.default {
            Fallback::Whole(number) => Value::from(number),
            Fallback::Text(text) => Value::from(text),
            Fallback::Flag(flag) => Value::from(flag),
            Fallback::Empty => Value::from(Vec::<String>::new()),
            Fallback::EmptyTable => Value::from(config::Map::<String, Value>::new()),
        };
        let values = KEYS.iter().map(|key| (key.name, (default(key), "default".to_owned()))).collect();
        Self { values, refused: BTreeSet::new(), problems: Vec::new() }
    }

    /// Lays a file over what is there.
    pub(super) fn add_file(&mut self, path: &Path) {
        let origin = format!("file {}", path.display());
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => return self.problem(&path.display().to_string(), "", "file", format!("cannot be read: {error}")),
        };
        let parsed = config::Config::builder().add_source(File::from_str(&text, FileFormat::Toml)).build();
        match parsed.map(|layer| layer.cache.kind) {
            Ok(ValueKind::Table(table)) => self.add_table("", table, &origin),
            Ok(_) => {}
            Err(error) => self.problem(&path.display().to_string(), "", "file", format!("is no TOML: {error}")),
        }
    }

    fn add_table(&mut self, prefix: &str, table: config::Map<String, Value>, origin: &str) {
        let sorted: BTreeMap<String, Value> = table.into_iter().collect();
        for (name, value) in sorted {
            let name = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
            let is_table = |key: &Key| matches!(key.default, Fallback::EmptyTable);
            match value.kind {
                ValueKind::Table(inner) if keys::key(&name).is_some_and(is_table) => self.add_table(&name, inner, origin),
                ValueKind::Table(inner) if keys::key(&name).is_none() && !inner.is_empty() => self.add_table(&name, inner, origin),
                _ => self.add(&name, Given::Typed(value), origin),
            }
        }
    }

    /// Lays one value over what is there.
    pub(super) fn add(&mut self, name: &str, given: Given, origin: &str) {
        let shown = match &given {
            Given::Typed(value) => show(&value.kind),
            Given::Spelled(text) => format!("\"{text}\""),
        };
        if let Some((table, entry)) = keys::entry(name) {
            return self.add_entry(table, entry, given, origin);
        }
        let Some(key) = keys::key(name) else {
            return self.problem(name, &shown, origin, unknown(name));
        };
        match accept(key, given) {
            Ok(value) => {
                self.refused.remove(key.name);
                self.values.insert(key.name, (value, origin.to_owned()));
            }
            Err(what) => {
                self.refused.insert(key.name);
                self.problem(name, &shown, origin, format!("{what}; allowed: {}", key.allowed.describe()));
            }
        }
    }

    /// Lays one entry of a table over what is there.
    fn add_entry(&mut self, table: &'static Key, entry: &str, given: Given, origin: &str) {
        let name = format!("{}.{entry}", table.name);
        let value = match text(given) {
            Ok(value) => value,
            Err(what) => return self.problem(&name, "", origin, format!("{what}; allowed: {}", table.allowed.describe())),
        };
        if matches!(table.allowed, Allowed::Files)
            && let Some(why) = is_settled(entry)
        {
            return self.problem(&name, &format!("\"{value}\""), origin, format!("refused: {why}"));
        }
        if matches!(table.allowed, Allowed::Properties) {
            let refused = refusals(&BTreeMap::from([(entry.to_owned(), value.clone())])).pop();
            if let Some(Refusal { value, why, .. }) = refused {
                return self.problem(&name, &format!("\"{value}\""), origin, format!("refused: {why}"));
            }
        }
        if matches!(table.allowed, Allowed::BrokerUrls) && !(broker::is_known(entry) && broker::may_be_asked(&value)) {
            return self.problem(&name, &format!("\"{value}\""), origin, format!("refused; allowed: {}", table.allowed.describe()));
        }
        let (held, from) =
            self.values.entry(table.name).or_insert_with(|| (Value::from(config::Map::<String, Value>::new()), String::new()));
        if let ValueKind::Table(entries) = &mut held.kind {
            entries.insert(entry.to_owned(), Value::from(value));
            origin.clone_into(from);
        }
    }

    /// The whole, or all that is wrong with it.
    pub(super) fn finish(mut self) -> Result<Config, ConfigError> {
        let mut builder = config::Config::builder();
        for (name, (value, _)) in &self.values {
            builder = builder.set_override(*name, value.clone()).map_err(|error| failed(&error))?;
        }
        let config: Config = builder.build().and_then(config::Config::try_deserialize).map_err(|error| failed(&error))?;
        self.combinations(&config);
        if self.problems.is_empty() { Ok(config) } else { Err(ConfigError { problems: self.problems }) }
    }

    fn combinations(&mut self, config: &Config) {
        let (http, metrics) = (&config.http, &config.metrics);
        let same_port = metrics.enabled && http.bind.port() != 0 && http.bind.port() == metrics.bind.port();
        self.impossible(same_port, "metrics.bind", "http.bind", "the API and the metrics listener cannot share a port");
        self.impossible(http.line_bytes_max > http.body_bytes_max, "http.line_bytes_max", "http.body_bytes_max", "a line fits into a body");
        let longer = http.decision_timeout_ms > http.decision_timeout_ms_max;
        self.impossible(longer, "http.decision_timeout_ms", "http.decision_timeout_ms_max", "the default is within the maximum");
        let outlives = http.decision_timeout_ms_max > http.request_timeout_ms;
        self.impossible(
            outlives,
            "http.decision_timeout_ms_max",
            "http.request_timeout_ms",
            "a decision's wait ends before its request does",
        );
        let many = config.log.kind == LogKind::Embedded && config.shard.count > 1;
        self.impossible(many, "shard.count", "log.kind", "the embedded log has one shard");
        let (bare, keyless) =
            (!http.bind.ip().is_loopback() && !config.has_tls() && !http.behind_proxy, config.tls.key_file.as_os_str().is_empty());
        self.impossible(bare, "http.bind", "tls.cert_file", "who is reached from other machines speaks TLS, or has http.behind_proxy");
        self.impossible(config.has_tls() == keyless, "tls.cert_file", "tls.key_file", "a certificate and its key go together");
        let nested = config.snapshot.dir == config.data_dir;
        self.impossible(nested, "snapshot.dir", "data_dir", "snapshots may be deleted at any time, the log never");
        self.same_topics();
    }

    fn same_topics(&mut self) {
        let names = KEYS.iter().map(|key| key.name).filter(|name| name.starts_with("topics.")).collect::<Vec<_>>();
        for (i, later) in names.iter().enumerate() {
            for earlier in &names[..i] {
                let text = |name| self.values.get(name).map(|(value, _)| show(&value.kind));
                let same = text(*later) == text(*earlier);
                self.impossible(same, later, earlier, "two topics cannot share a name");
            }
        }
    }

    /// Notes two keys that exclude each other, unless one of them was refused already.
    fn impossible(&mut self, is_so: bool, key: &str, other: &str, why: &str) {
        if !is_so || self.refused.contains(key) || self.refused.contains(other) {
            return;
        }
        let value_of = |name| self.values.get(name).map_or_else(Default::default, |(value, origin)| (show(&value.kind), origin.clone()));
        let ((value, origin), (other_value, _)) = (value_of(key), value_of(other));
        self.problem(key, &value, &origin, format!("impossible with {other} = {other_value}: {why}"));
    }

    fn problem(&mut self, key: &str, value: &str, origin: &str, message: String) {
        self.problems.push(Problem { key: key.to_owned(), value: value.to_owned(), origin: origin.to_owned(), message });
    }
}

fn failed(error: &config::ConfigError) -> ConfigError {
    let problem = Problem { key: "configuration".into(), value: String::new(), origin: "merged".into(), message: error.to_string() };
    ConfigError { problems: vec![problem] }
}

fn unknown(name: &str) -> String {
    let inside: Vec<&str> = KEYS.iter().map(|key| key.name).filter(|known| known.starts_with(&format!("{name}."))).collect();
    if !inside.is_empty() {
        return format!("is a section, not a key; allowed in it: {}", inside.join(", "));
    }
    match keys::nearest(name) {
        Some(near) => format!("unknown key; did you mean {near}?"),
        None => "unknown key; `ordergate config print` lists all".to_owned(),
    }
}

/// The value as the key's type, within its bounds; else what is wrong with it.
fn accept(key: &Key, given: Given) -> Result<Value, String> {
    match key.allowed {
        Allowed::Whole { min, max, .. } => {
            let number = whole(given)?;
            if (min..=max).contains(&number) { Ok(Value::from(number)) } else { Err("out of range".to_owned()) }
        }
        Allowed::Flag => flag(given).map(Value::from),
        Allowed::Hosts => hosts(given).map(Value::from),
        Allowed::Origins => origins(given).map(Value::from),
        Allowed::Word(words) => {
            let word = text(given)?;
            if words.contains(&word.as_str()) { Ok(Value::from(word)) } else { Err("unknown word".to_owned()) }
        }
        Allowed::Folder => text(given).and_then(|path| if path.is_empty() { Err("empty".to_owned()) } else { Ok(Value::from(path)) }),
        Allowed::FolderOrEmpty | Allowed::PathOrEmpty | Allowed::Text => text(given).map(Value::from),
        Allowed::Properties | Allowed::Files | Allowed::BrokerUrls => Err("not a table".to_owned()),
        Allowed::Topic => text(given).and_then(topic).map(Value::from),
        Allowed::Zone => text(given).and_then(zone).map(Value::from),
        Allowed::Loopback => text(given).and_then(loopback).map(Value::from),
        Allowed::Address => text(given).and_then(address).map(Value::from),
    }
}

fn zone(name: String) -> Result<String, String> {
    if parse_zone(&name).is_some() { Ok(name) } else { Err("no such time zone".to_owned()) }
}

fn whole(given: Given) -> Result<i64, String> {
    match given {
        Given::Spelled(text) => text.trim().parse().map_err(|_| "not a whole number".to_owned()),
        Given::Typed(Value { kind: ValueKind::I64(number), .. }) => Ok(number),
        Given::Typed(Value { kind: ValueKind::U64(number), .. }) => i64::try_from(number).map_err(|_| "out of range".to_owned()),
        Given::Typed(value) => Err(format!("{}, not a whole number", type_of(&value.kind))),
    }
}

fn flag(given: Given) -> Result<bool, String> {
    match given {
        Given::Spelled(text) if text == "true" => Ok(true),
        Given::Spelled(text) if text == "false" => Ok(false),
        Given::Spelled(_) => Err("neither true nor false".to_owned()),
        Given::Typed(Value { kind: ValueKind::Boolean(flag), .. }) => Ok(flag),
        Given::Typed(value) => Err(format!("{}, not true or false", type_of(&value.kind))),
    }
}

fn text(given: Given) -> Result<String, String> {
    match given {
        Given::Spelled(text) | Given::Typed(Value { kind: ValueKind::String(text), .. }) => Ok(text),
        Given::Typed(value) => Err(format!("{}, not a text", type_of(&value.kind))),
    }
}

fn list(given: Given) -> Result<Vec<String>, String> {
    match given {
        Given::Spelled(text) => Ok(text.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect()),
        Given::Typed(Value { kind: ValueKind::Array(items), .. }) => items.into_iter().map(|item| text(Given::Typed(item))).collect(),
        Given::Typed(value) => Err(format!("{}, not a list", type_of(&value.kind))),
    }
}

fn hosts(given: Given) -> Result<Vec<String>, String> {
    let names = list(given)?;
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-');
    match names.iter().find(|name| name.is_empty() || !name.bytes().all(legal)) {
        Some(bad) => Err(format!("\"{bad}\" is no host name")),
        None => Ok(names),
    }
}

fn origins(given: Given) -> Result<Vec<String>, String> {
    let origins = list(given)?;
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b':' | b'[' | b']');
    let is_one = |origin: &String| {
        let host = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
        host.is_some_and(|host| !host.is_empty() && host.bytes().all(legal))
    };
    match origins.iter().find(|origin| !is_one(origin)) {
        Some(bad) => Err(format!("\"{bad}\" is no origin")),
        None => Ok(origins),
    }
}

fn topic(name: String) -> Result<String, String> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let fine = (1..=249).contains(&name.len()) && name.bytes().all(legal) && name != "." && name != "..";
    if fine { Ok(name) } else { Err("no topic's name".to_owned()) }
}

fn address(address: String) -> Result<String, String> {
    let parsed: Result<SocketAddr, _> = address.parse();
    parsed.map(|_| address).map_err(|_| "not an address and port".to_owned())
}

fn loopback(given: String) -> Result<String, String> {
    let address = address(given)?;
    let parsed: SocketAddr = address.parse().map_err(|_| "not an address and port".to_owned())?;
    if parsed.ip().is_loopback() { Ok(address) } else { Err("reachable from other machines".to_owned()) }
}

fn type_of(kind: &ValueKind) -> &'static str {
    match kind {
        ValueKind::Nil => "nothing",
        ValueKind::Boolean(_) => "true or false",
        ValueKind::I64(_) | ValueKind::I128(_) | ValueKind::U64(_) | ValueKind::U128(_) => "a whole number",
        ValueKind::Float(_) => "a number with a fraction",
        ValueKind::String(_) => "a text",
        ValueKind::Table(_) => "a table",
        ValueKind::Array(_) => "a list",
    }
}

fn show(kind: &ValueKind) -> String {
    match kind {
        ValueKind::String(text) => format!("\"{text}\""),
        ValueKind::Array(items) => format!("[{}]", items.iter().map(|item| show(&item.kind)).collect::<Vec<_>>().join(", ")),
        ValueKind::Table(_) => "{ .. }".to_owned(),
        other => other.to_string(),
    }
}
