//! The configuration: defaults, then a file, then the environment, then flags.
//!
//! Invariant: a [`Config`] that exists is whole and allowed: every key known, of its type, within its bounds, and possible together
//! with the others. What is wrong is listed at once, each with its key, its value, where it came from and what is allowed.
//! Deliberately absent: secrets, and any fallback for a value that cannot be used.

mod keys;
mod layers;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use keys::{Allowed, Fallback, KEYS, Key, documented_toml};

use layers::{Given, Layers};

/// The prefix of variables that set keys: `ORDERGATE__HTTP__BIND`.
pub const ENVIRONMENT_PREFIX: &str = "ORDERGATE__";

macro_rules! section {
    ($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        #[expect(missing_docs, reason = "each key is documented in KEYS")]
        pub struct $name { $(pub $field: $type,)+ }
    };
}

macro_rules! choice {
    ($(#[$doc:meta])* $name:ident { $($variant:ident,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "lowercase")]
        #[expect(missing_docs, reason = "each word is documented in KEYS")]
        pub enum $name { $($variant,)+ }
    };
}

section! {
    /// Everything that can be configured.
    Config {
        data_dir: PathBuf,
        log: LogOptions,
        kafka: KafkaOptions,
        topics: TopicOptions,
        shard: ShardOptions,
        frame: FrameOptions,
        snapshot: SnapshotOptions,
        chart: ChartOptions,
        http: HttpOptions,
        tls: TlsOptions,
        auth: AuthOptions,
        metrics: MetricsOptions,
        telemetry: TelemetryOptions,
        vault: VaultOptions,
        notify: NotifyOptions,
        shutdown: ShutdownOptions,
    }
}
section! {
    /// The log.
    LogOptions { kind: LogKind, timestamps: Timestamps, busy_timeout_ms: u64, commit_stall_timeout_ms: u64, }
}
choice! {
    /// Which implementation of the log.
    LogKind { Embedded, Kafka, }
}
section! {
    /// The cluster, when the log is Kafka.
    KafkaOptions {
        brokers: String,
        group: String,
        instance: String,
        static_membership: bool,
        standby: u32,
        session_timeout_ms: u64,
        request_timeout_ms: u64,
        force_unsafe: bool,
        token_file: PathBuf,
        properties: BTreeMap<String, String>,
        secret_files: BTreeMap<String, PathBuf>,
    }
}
choice! {
    /// Whose time a record has.
    Timestamps { Append, Producer, }
}
section! {
    /// The topics' names.
    TopicOptions {
        intents: String,
        executions: String,
        prices: String,
        control: String,
        ledger: String,
        decisions: String,
        commands: String,
        notifications: String,
        dead_letter: String,
    }
}
section! {
    /// Shards and routing.
    ShardOptions { count: u32, partitioner: Partitioner, }
}
choice! {
    /// How an account finds its shard.
    Partitioner { Murmur2, Crc32, }
}
section! {
    /// Frames of the ledger.
    FrameOptions { records_max: usize, bytes_max: usize, in_flight_max: usize, }
}
section! {
    /// Snapshots.
    SnapshotOptions {
        enabled: bool,
        every_records: u64,
        every_seconds: u64,
        dir: PathBuf,
        cache_bytes: u64,
        broken_kept_max: usize,
    }
}
section! {
    /// Charts.
    ChartOptions { enabled: bool, bars_max: usize, symbols_max: usize, day_zone: String, cache_bytes: u64, }
}
section! {
    /// The API's listener and its limits.
    HttpOptions {
        bind: SocketAddr,
        behind_proxy: bool,
        body_bytes_max: usize,
        header_bytes_max: usize,
        line_bytes_max: usize,
        batch_records_max: usize,
        read_timeout_ms: u64,
        request_timeout_ms: u64,
        decision_timeout_ms: u64,
        decision_timeout_ms_max: u64,
        connections_max: usize,
        streams_max: usize,
        allowed_hosts: Vec<String>,
        cors_origins: Vec<String>,
    }
}
section! {
    /// The certificate of the API's listener.
    TlsOptions { cert_file: PathBuf, key_file: PathBuf, }
}
section! {
    /// People: tokens, sessions, how often they may ask.
    AuthOptions {
        issuer: String,
        audience: String,
        signing_key_file: PathBuf,
        access_ttl_seconds: u64,
        session_idle_hours: u64,
        session_max_hours: u64,
        requests_per_second: u32,
        logins_per_minute: u32,
    }
}
section! {
    /// The metrics listener.
    MetricsOptions { enabled: bool, bind: SocketAddr, upkeep_seconds: u64, }
}
section! {
    /// Logging.
    TelemetryOptions { log_level: LogLevel, log_format: LogFormat, }
}
choice! {
    /// What is logged.
    LogLevel { Error, Warn, Info, Debug, Trace, }
}
choice! {
    /// How it is logged.
    LogFormat { Text, Json, }
}
section! {
    /// The vault.
    VaultOptions {
        broker_urls: BTreeMap<String, String>,
        broker_timeout_ms: u64,
        reveals_per_minute: u32,
        verifications_per_minute: u32,
        keys_per_owner_max: usize,
    }
}
section! {
    /// Notifications on their way to people.
    NotifyOptions {
        enabled: bool,
        public_url: String,
        templates_dir: PathBuf,
        storm_per_minute: u32,
        pending_max: usize,
        lease_ms: u64,
        smtp: SmtpOptions,
        webhook: WebhookOptions,
        push: PushOptions,
        sms: SmsOptions,
    }
}
section! {
    /// E-mail.
    SmtpOptions {
        host: String,
        port: u16,
        tls: SmtpTls,
        user: String,
        password_file: PathBuf,
        from: String,
        ca_file: PathBuf,
        timeout_ms: u64,
        connections_max: u32,
    }
}
choice! {
    /// How the connection to the mail server is encrypted.
    SmtpTls { StartTls, Tls, None, }
}
section! {
    /// Webhooks, and what they share with push subscriptions.
    WebhookOptions { key_file: PathBuf, allow_private: bool, timeout_ms: u64, }
}
section! {
    /// Web Push.
    PushOptions { key_file: PathBuf, subject: String, }
}
section! {
    /// Text messages.
    SmsOptions { url: String, account: String, token_file: PathBuf, from: String, }
}
section! {
    /// The way down.
    ShutdownOptions { drain_timeout_ms: u64, }
}

impl LogLevel {
    /// As `tracing` spells it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// All that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// In the order of the layers: file, environment, flags, combinations.
    pub problems: Vec<Problem>,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key, or the file.
    pub key: String,
    /// Its value as given.
    pub value: String,
    /// Where it was given.
    pub origin: String,
    /// What is wrong, and what is allowed.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, value, origin, message } = self;
        if value.is_empty() { write!(f, "{key} ({origin}): {message}") } else { write!(f, "{key} = {value} ({origin}): {message}") }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the configuration is refused:")?;
        self.problems.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

/// A change that a reload meets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The key.
    pub key: String,
    /// Its value now, as TOML.
    pub from: String,
    /// Its value in the new configuration, as TOML.
    pub to: String,
}

/// What a reload would change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReloadDiff {
    /// What takes effect at once.
    pub taken: Vec<Change>,
    /// What needs a restart; it stays as it is until then.
    pub needs_restart: Vec<Change>,
}

impl Config {
    /// Reads the configuration: defaults, `file`, the process's environment, then `overrides` (dotted key, value as text).
    pub fn load(file: Option<&Path>, overrides: &[(String, String)]) -> Result<Self, ConfigError> {
        let environment: Vec<(String, String)> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())))
            .collect();
        Self::load_from(file, &environment, overrides)
    }

    /// As [`Config::load`], from a given environment.
    pub fn load_from(file: Option<&Path>, environment: &[(String, String)], overrides: &[(String, String)]) -> Result<Self, ConfigError> {
        let mut layers = Layers::of_defaults();
        if let Some(path) = file {
            layers.add_file(path);
        }
        for (name, value) in environment {
            if let Some(rest) = name.strip_prefix(ENVIRONMENT_PREFIX) {
                layers.add(&rest.to_ascii_lowercase().replace("__", "."), Given::Spelled(value.clone()), &format!("variable {name}"));
            }
        }
        for (key, value) in overrides {
            layers.add(key, Given::Spelled(value.clone()), "flag");
        }
        layers.finish()
    }

    /// The defaults alone.
    pub fn defaults() -> Result<Self, ConfigError> {
        Layers::of_defaults().finish()
    }

    /// Every key with its value.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let values = self.values();
        let mut text = String::new();
        let mut section = "";
        for key in KEYS {
            if let Some((name, _)) = key.name.rsplit_once('.')
                && name != section
            {
                section = name;
                text.push_str(&format!("\n[{section}]\n"));
            }
            let leaf = key.name.rsplit('.').next().unwrap_or(key.name);
            text.push_str(&format!("{leaf} = {}\n", values.get(key.name).map_or("", String::as_str)));
        }
        text
    }

    /// The folder of the snapshots.
    #[must_use]
    pub fn snapshot_dir(&self) -> PathBuf {
        if self.snapshot.dir.as_os_str().is_empty() { self.data_dir.join("snapshots") } else { self.snapshot.dir.clone() }
    }

    /// Whether the API's listener speaks TLS.
    #[must_use]
    pub fn has_tls(&self) -> bool {
        !self.tls.cert_file.as_os_str().is_empty()
    }

    /// The folder of the charts' cache.
    #[must_use]
    pub fn chart_dir(&self) -> PathBuf {
        self.data_dir.join("charts")
    }

    /// What changes when `new` takes this one's place while the daemon runs.
    #[must_use]
    pub fn reloadable_diff(&self, new: &Self) -> ReloadDiff {
        let (now, then) = (self.values(), new.values());
        let mut diff = ReloadDiff::default();
        for key in KEYS {
            let (from, to) = (now.get(key.name).cloned().unwrap_or_default(), then.get(key.name).cloned().unwrap_or_default());
            if from != to {
                let change = Change { key: key.name.to_owned(), from, to };
                if key.reloads { diff.taken.push(change) } else { diff.needs_restart.push(change) }
            }
        }
        diff
    }

    /// This configuration with the reloadable keys of `new`.
    #[must_use]
    pub fn reloaded(&self, new: &Self) -> Self {
        Self {
            http: HttpOptions { bind: self.http.bind, behind_proxy: self.http.behind_proxy, ..new.http.clone() },
            telemetry: TelemetryOptions { log_level: new.telemetry.log_level, ..self.telemetry },
            ..self.clone()
        }
    }

    /// Every key's value as TOML.
    fn values(&self) -> BTreeMap<String, String> {
        let mut values = BTreeMap::new();
        if let Ok(toml::Value::Table(table)) = toml::Value::try_from(self) {
            flatten("", &table, &mut |name, value| {
                values.insert(name, value.to_string());
            });
        }
        values
    }
}

fn flatten(prefix: &str, table: &toml::Table, each: &mut impl FnMut(String, &toml::Value)) {
    for (name, value) in table {
        let name = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        match value {
            toml::Value::Table(inner) if keys::key(&name).is_none() => flatten(&name, inner, each),
            leaf => each(name, leaf),
        }
    }
}
