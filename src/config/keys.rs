//! Every key of the configuration: its default, its unit, what is allowed, and what it is for.
//!
//! Invariant: this table and the structs of `config.rs` name the same keys (a test compares them), and `config/ordergate.toml` is
//! printed from it. Deliberately absent: reading anything.

/// One key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its dotted name.
    pub name: &'static str,
    /// Its value when nothing is said.
    pub default: Fallback,
    /// What it may be.
    pub allowed: Allowed,
    /// Whether SIGHUP takes it over.
    pub reloads: bool,
    /// What it is for, with its unit.
    pub about: &'static str,
}

/// A default.
#[derive(Clone, Copy, Debug)]
pub enum Fallback {
    /// A whole number.
    Whole(i64),
    /// A text.
    Text(&'static str),
    /// Yes or no.
    Flag(bool),
    /// An empty list.
    Empty,
    /// An empty table.
    EmptyTable,
}

/// What a key may be.
#[derive(Clone, Copy, Debug)]
pub enum Allowed {
    /// A whole number within bounds, of a unit.
    Whole {
        /// At least.
        min: i64,
        /// At most.
        max: i64,
        /// Of what.
        unit: &'static str,
    },
    /// One of these.
    Word(&'static [&'static str]),
    /// `true` or `false`.
    Flag,
    /// A folder.
    Folder,
    /// A folder, or empty for the one that the default derives.
    FolderOrEmpty,
    /// A Kafka topic's name.
    Topic,
    /// An address and port of this machine.
    Loopback,
    /// An address and port.
    Address,
    /// Names of hosts.
    Hosts,
    /// Origins of pages.
    Origins,
    /// Any text, empty or not.
    Text,
    /// The exact name of an IANA time zone.
    Zone,
    /// A path, or empty for none.
    PathOrEmpty,
    /// Properties of librdkafka and their values, as texts.
    Properties,
    /// Properties of librdkafka, each with the file that holds its value.
    Files,
    /// Brokers and their addresses.
    BrokerUrls,
}

const MS_MAX: i64 = 3_600_000;
const LEVELS: &[&str] = &["error", "warn", "info", "debug", "trace"];

const fn whole(name: &'static str, default: i64, bounds: (i64, i64), unit: &'static str, about: &'static str) -> Key {
    let (min, max) = bounds;
    Key { name, default: Fallback::Whole(default), allowed: Allowed::Whole { min, max, unit }, reloads: false, about }
}

const fn text(name: &'static str, default: &'static str, allowed: Allowed, about: &'static str) -> Key {
    Key { name, default: Fallback::Text(default), allowed, reloads: false, about }
}

const fn topic(name: &'static str, default: &'static str, about: &'static str) -> Key {
    text(name, default, Allowed::Topic, about)
}

const fn flag(name: &'static str, default: bool, about: &'static str) -> Key {
    Key { name, default: Fallback::Flag(default), allowed: Allowed::Flag, reloads: false, about }
}

const fn reloads(key: Key) -> Key {
    Key { reloads: true, ..key }
}

/// All keys, in the order in which they are printed.
pub const KEYS: &[Key] = &[
    text(
        "data_dir",
        "data",
        Allowed::Folder,
        "Where everything is kept: the log, the snapshots, the lock. Relative to the working directory.",
    ),
    text(
        "log.kind",
        "embedded",
        Allowed::Word(&["embedded", "kafka"]),
        "The log: one SQLite file in data_dir, or topics of an Apache Kafka cluster.",
    ),
    text(
        "log.timestamps",
        "append",
        Allowed::Word(&["append", "producer"]),
        "A record's time: that of its append, or the one that its producer gave.",
    ),
    whole("log.busy_timeout_ms", 5_000, (0, MS_MAX), "ms", "How long the log waits for another process that holds its file."),
    whole(
        "log.commit_stall_timeout_ms",
        5_000,
        (100, MS_MAX),
        "ms",
        "A frame that is not acknowledged within this stops the shard: it decides nothing that it cannot commit.",
    ),
    text("kafka.brokers", "127.0.0.1:9092", Allowed::Text, "Brokers to begin with: host:port, comma-separated."),
    text("kafka.group", "ordergate", Allowed::Topic, "The consumer group that spreads the shards over the instances."),
    text(
        "kafka.instance",
        "gate-1",
        Allowed::Topic,
        "This instance's name in the group: the same after every restart, and no other instance's. A restart within session_timeout_ms keeps its shards.",
    ),
    flag(
        "kafka.static_membership",
        true,
        "true: a restart within session_timeout_ms keeps its shards, and an instance that is stopped for good is waited for so long. false: it leaves when it stops, and others take over at once.",
    ),
    whole("kafka.standby", 0, (0, 1), "copies", "1: also fold the shards that others own, to take over without rebuilding. 0: do not."),
    whole(
        "kafka.session_timeout_ms",
        10_000,
        (1_000, MS_MAX),
        "ms",
        "How long the group waits for an instance that is silent before others take its shards.",
    ),
    whole("kafka.request_timeout_ms", 5_000, (100, MS_MAX), "ms", "How long one question to the cluster may take."),
    flag(
        "kafka.force_unsafe",
        false,
        "Run on topics whose settings break a guarantee. For development only: /readyz and the metrics say so.",
    ),
    text("kafka.token_file", "", Allowed::PathOrEmpty, "The file with the token (a JWT) for SASL OAUTHBEARER; read again for each token."),
    Key {
        name: "kafka.properties",
        default: Fallback::EmptyTable,
        allowed: Allowed::Properties,
        reloads: false,
        about: "Properties of librdkafka, passed to every client: TLS, SASL, timeouts, sizes.",
    },
    Key {
        name: "kafka.secret_files",
        default: Fallback::EmptyTable,
        allowed: Allowed::Files,
        reloads: false,
        about: "Properties whose values are secrets, such as sasl.password: each with the file that holds it.",
    },
    text("topics.intents", "orders.intents", Allowed::Topic, "Orders, amends, cancels, signals."),
    topic("topics.executions", "orders.executions", "What the brokers answer."),
    topic("topics.prices", "market.prices", "Trades, quotes, bars."),
    topic("topics.control", "gate.control", "Accounts, instruments, rules, states, settings."),
    topic("topics.ledger", "gate.ledger", "What was applied, in which order, with what outcome."),
    topic("topics.decisions", "gate.decisions", "Decisions."),
    topic("topics.commands", "gate.commands", "Cancels and closes."),
    topic("topics.notifications", "gate.notifications", "Notifications."),
    topic("topics.dead_letter", "gate.dead-letter", "Records that were refused."),
    whole(
        "shard.count",
        1,
        (1, 4_096),
        "shards",
        "The number of shards: the partitions of orders.intents. It cannot change later (docs/RUNBOOK.md). The embedded log has one.",
    ),
    text(
        "shard.partitioner",
        "murmur2",
        Allowed::Word(&["murmur2", "crc32"]),
        "How an account finds its shard: as Java's default partitioner does, or as librdkafka's.",
    ),
    whole("frame.records_max", 512, (1, 65_536), "records", "A frame holds at most this many records."),
    whole("frame.bytes_max", 524_288, (65_536, 524_288), "bytes", "A frame is at most this long."),
    whole("frame.in_flight_max", 5, (1, 5), "frames", "At most this many frames wait for their acknowledgement."),
    flag("snapshot.enabled", true, "Whether snapshots are taken. Without them every start refolds the whole ledger."),
    whole("snapshot.every_records", 100_000, (1, 1_000_000_000), "records", "A snapshot is due after this many records."),
    whole("snapshot.every_seconds", 60, (1, 86_400), "s", "A snapshot is due after this long, when anything changed."),
    text(
        "snapshot.dir",
        "",
        Allowed::FolderOrEmpty,
        "Where the snapshots are. Empty: `snapshots` in data_dir. They can be deleted at any time.",
    ),
    whole(
        "snapshot.cache_bytes",
        67_108_864,
        (1_048_576, 68_719_476_736),
        "bytes",
        "What the snapshot stores of all shards may keep in memory, in equal parts of at least 1 MiB.",
    ),
    whole("snapshot.broken_kept_max", 1, (0, 100), "folders", "How many folders of broken snapshots are kept for a look."),
    flag("chart.enabled", true, "Whether charts are drawn from the prices on the log."),
    whole("chart.bars_max", 10_000, (100, 1_000_000), "bars", "The newest bars of each symbol and timeframe that are kept."),
    whole("chart.symbols_max", 1_000, (1, 100_000), "symbols", "The most symbols that have charts; prices of further ones draw nothing."),
    text(
        "chart.day_zone",
        "America/New_York",
        Allowed::Zone,
        "The exchange's zone: where a bar of 1day begins and ends, and where the VWAP of a day begins.",
    ),
    whole(
        "chart.cache_bytes",
        33_554_432,
        (1_048_576, 68_719_476_736),
        "bytes",
        "What the charts' store may keep in memory. It is in `charts` in data_dir and can be deleted at any time.",
    ),
    text(
        "http.bind",
        "127.0.0.1:8080",
        Allowed::Address,
        "Where the API listens. Beyond this machine it needs users, and TLS or a proxy (http.behind_proxy).",
    ),
    flag(
        "http.behind_proxy",
        false,
        "A proxy of yours that speaks TLS stands before the API, and nothing else reaches it: the last entry of X-Forwarded-For is who asks.",
    ),
    reloads(whole("http.body_bytes_max", 16_777_216, (65_536, 1_073_741_824), "bytes", "The longest request body.")),
    reloads(whole("http.header_bytes_max", 16_384, (8_192, 1_048_576), "bytes", "The longest request head.")),
    reloads(whole("http.line_bytes_max", 524_288, (1_024, 16_777_216), "bytes", "The longest line of a batch.")),
    reloads(whole("http.batch_records_max", 10_000, (1, 1_000_000), "records", "The most records of a batch.")),
    reloads(whole("http.read_timeout_ms", 10_000, (100, MS_MAX), "ms", "How long a client may take to send its request.")),
    reloads(whole("http.request_timeout_ms", 60_000, (100, MS_MAX), "ms", "How long a request may take, streams excepted.")),
    reloads(whole(
        "http.decision_timeout_ms",
        2_000,
        (1, MS_MAX),
        "ms",
        "How long an intent waits for its decision, unless it says otherwise.",
    )),
    reloads(whole("http.decision_timeout_ms_max", 30_000, (1, MS_MAX), "ms", "The longest wait that an intent may ask for.")),
    reloads(whole("http.connections_max", 1_024, (1, 65_536), "connections", "The most connections at once.")),
    reloads(whole("http.streams_max", 64, (1, 65_536), "streams", "The most followers of topics at once.")),
    reloads(Key {
        name: "http.allowed_hosts",
        default: Fallback::Empty,
        allowed: Allowed::Hosts,
        reloads: false,
        about: "Names that a Host header may have beside the loopback ones.",
    }),
    reloads(Key {
        name: "http.cors_origins",
        default: Fallback::Empty,
        allowed: Allowed::Origins,
        reloads: false,
        about: "Origins whose pages may use the API. Without users that is all that protects it from them.",
    }),
    text("tls.cert_file", "", Allowed::PathOrEmpty, "The certificate chain (PEM) of the API's listener; read again on SIGHUP."),
    text("tls.key_file", "", Allowed::PathOrEmpty, "Its private key (PEM); read again on SIGHUP."),
    text("auth.issuer", "ordergate", Allowed::Text, "The issuer that access tokens name."),
    text("auth.audience", "ordergate-api", Allowed::Text, "The audience that access tokens name."),
    text(
        "auth.signing_key_file",
        "",
        Allowed::PathOrEmpty,
        "The Ed25519 key (PEM) that signs access tokens: the same at every instance. Empty: one of its own, made in data_dir.",
    ),
    whole("auth.access_ttl_seconds", 600, (60, 600), "s", "How long an access token lives."),
    whole("auth.session_idle_hours", 168, (1, 8_760), "hours", "A session ends when it was not refreshed for so long."),
    whole("auth.session_max_hours", 720, (1, 8_760), "hours", "A session ends after so long, however often it was refreshed."),
    whole(
        "auth.requests_per_second",
        1_000,
        (1, 1_000_000),
        "requests",
        "How often one user or API token may ask in a second, and half of how often one address may; not counted without users.",
    ),
    whole(
        "auth.logins_per_minute",
        10,
        (1, 10_000),
        "logins",
        "How often a password may be tried from one address in a minute, and a third of how often for one name.",
    ),
    flag("metrics.enabled", true, "Whether there is a metrics listener."),
    text("metrics.bind", "127.0.0.1:9464", Allowed::Loopback, "Where /metrics, /healthz and /readyz are served."),
    whole("metrics.upkeep_seconds", 5, (1, 60), "s", "How often histograms are folded; longer costs memory."),
    reloads(text("telemetry.log_level", "info", Allowed::Word(LEVELS), "What is logged to standard error.")),
    text("telemetry.log_format", "text", Allowed::Word(&["text", "json"]), "How it is logged."),
    Key {
        name: "vault.broker_urls",
        default: Fallback::EmptyTable,
        allowed: Allowed::BrokerUrls,
        reloads: false,
        about: "Where brokers are asked about their keys, when not at their usual addresses.",
    },
    whole("vault.broker_timeout_ms", 10_000, (100, 60_000), "ms", "How long a broker may take to answer."),
    whole("vault.reveals_per_minute", 10, (1, 10_000), "reveals", "How often a caller may have secrets revealed."),
    whole("vault.verifications_per_minute", 10, (1, 10_000), "verifications", "How often a caller may have keys verified."),
    whole("vault.keys_per_owner_max", 1_000, (1, 100_000), "keys", "The most broker keys of one owner."),
    flag("notify.enabled", false, "Whether notifications also go out over the channels below that are set up; the inbox always has them."),
    text("notify.public_url", "", Allowed::Text, "Where people reach this gate's API, for links in messages: https://gate.example.com."),
    text(
        "notify.templates_dir",
        "",
        Allowed::PathOrEmpty,
        "A folder with templates that take the place of the built-in ones of the same name.",
    ),
    whole("notify.storm_per_minute", 20, (1, 100_000), "messages", "More for one person within a minute go out as one digest."),
    whole(
        "notify.pending_max",
        100_000,
        (100, 10_000_000),
        "deliveries",
        "When so many are under way, or a fifth to one address or device, what comes further for it is counted in a summary.",
    ),
    whole(
        "notify.lease_ms",
        15_000,
        (3_000, 600_000),
        "ms",
        "With several instances on Kafka: the one that delivers is replaced after so long a silence.",
    ),
    text("notify.smtp.host", "", Allowed::Text, "The mail server. Empty: no e-mail."),
    whole("notify.smtp.port", 587, (1, 65_535), "port", "The mail server's port."),
    text(
        "notify.smtp.tls",
        "starttls",
        Allowed::Word(&["starttls", "tls", "none"]),
        "starttls: the server has to offer it. tls: from the start (port 465). none: only for a server on this machine.",
    ),
    text("notify.smtp.user", "", Allowed::Text, "Our name at the mail server. Empty: it asks for none."),
    text("notify.smtp.password_file", "", Allowed::PathOrEmpty, "The file that holds our password at the mail server."),
    text("notify.smtp.from", "", Allowed::Text, "Who mail is from: Order gate <gate@example.com>."),
    text(
        "notify.smtp.ca_file",
        "",
        Allowed::PathOrEmpty,
        "Certificates in PEM that the mail server's may be signed by, beside the system's.",
    ),
    whole("notify.smtp.timeout_ms", 15_000, (100, 300_000), "ms", "How long the mail server may take to answer."),
    whole("notify.smtp.connections_max", 4, (1, 100), "connections", "Connections to the mail server at once."),
    text(
        "notify.webhook.key_file",
        "",
        Allowed::PathOrEmpty,
        "The file with at least 32 random bytes that webhooks' signing secrets follow from. Empty: no webhooks. Another key: other secrets.",
    ),
    flag(
        "notify.webhook.allow_private",
        false,
        "Whether webhooks and push subscriptions may lead to this machine and to private networks, and use plain http.",
    ),
    whole("notify.webhook.timeout_ms", 10_000, (100, 300_000), "ms", "How long a webhook or a push service may take to answer."),
    text(
        "notify.push.key_file",
        "",
        Allowed::PathOrEmpty,
        "The private key of P-256 in PEM that push services know us by. Empty: no Web Push.",
    ),
    text("notify.push.subject", "", Allowed::Text, "Whom a push service may write to about us: mailto:ops@example.com."),
    text("notify.sms.url", "", Allowed::Text, "Where the provider's interface begins: https://api.twilio.com. Empty: no text messages."),
    text("notify.sms.account", "", Allowed::Text, "Our account at the provider."),
    text("notify.sms.token_file", "", Allowed::PathOrEmpty, "The file that holds the account's token."),
    text("notify.sms.from", "", Allowed::Text, "The number that text messages come from."),
    whole("shutdown.drain_timeout_ms", 10_000, (0, MS_MAX), "ms", "How long SIGTERM waits for open requests before it goes on."),
];

/// The key of this name.
#[must_use]
pub fn key(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// The table that a dotted name lies in, and the rest of the name: `kafka.properties` and `sasl.mechanism`.
#[must_use]
pub fn entry(name: &str) -> Option<(&'static Key, &str)> {
    let tables = KEYS.iter().filter(|key| matches!(key.default, Fallback::EmptyTable));
    tables.filter_map(|key| Some((key, name.strip_prefix(key.name)?.strip_prefix('.')?))).find(|(_, rest)| !rest.is_empty())
}

/// The known name that is nearest to an unknown one, when it is near.
#[must_use]
pub fn nearest(name: &str) -> Option<&'static str> {
    let last = |name: &str| name.rsplit('.').next().map(str::to_owned);
    let ranked = KEYS.iter().map(|key| (distance(key.name, name), key.name));
    let near = ranked.min().filter(|(distance, known)| *distance * 2 <= known.len()).map(|(_, known)| known);
    near.or_else(|| KEYS.iter().find(|key| last(key.name) == last(name)).map(|key| key.name))
}

/// The number of single-byte edits between two names.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

impl Allowed {
    /// What is allowed, for people.
    #[must_use]
    pub fn describe(self) -> String {
        match self {
            Self::Whole { min, max, unit } => format!("a whole number of {unit} from {min} to {max}"),
            Self::Word(words) => words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(" or "),
            Self::Flag => "true or false".to_owned(),
            Self::Folder => "a folder's path".to_owned(),
            Self::FolderOrEmpty => "a folder's path, or empty".to_owned(),
            Self::Topic => "a topic's name: 1 to 249 of [A-Za-z0-9._-]".to_owned(),
            Self::Loopback => "an address and port of this machine, such as 127.0.0.1:8080".to_owned(),
            Self::Address => "an address and port, such as 127.0.0.1:8080".to_owned(),
            Self::Hosts => "a list of host names".to_owned(),
            Self::Origins => "a list of origins, such as https://console.example".to_owned(),
            Self::Text => "a text".to_owned(),
            Self::Zone => "the exact name of an IANA time zone, such as America/New_York, or UTC".to_owned(),
            Self::PathOrEmpty => "a file's path, or empty".to_owned(),
            Self::Properties => {
                "a table of librdkafka's properties with texts as values, but none that a guarantee rests on, and no secret".to_owned()
            }
            Self::Files => "a table of librdkafka's properties with paths of files as values".to_owned(),
            Self::BrokerUrls => {
                "a table of alpaca, alpaca_paper, binance, binance_paper with https:// addresses, or http:// ones of this machine"
                    .to_owned()
            }
        }
    }
}

impl Fallback {
    /// As TOML.
    #[must_use]
    pub fn to_toml(self) -> String {
        match self {
            Self::Whole(number) => number.to_string(),
            Self::Text(text) => format!("\"{text}\""),
            Self::Flag(flag) => flag.to_string(),
            Self::Empty => "[]".to_owned(),
            Self::EmptyTable => "{}".to_owned(),
        }
    }
}

/// The documented configuration file: every key with its default, what is allowed, and what it is for.
#[must_use]
pub fn documented_toml() -> String {
    let mut text = String::from(HEADER);
    let mut section = "";
    for key in KEYS {
        if let Some((name, _)) = key.name.rsplit_once('.')
            && name != section
        {
            section = name;
            text.push_str(&format!("\n[{section}]\n"));
        }
        let reload = if key.reloads { " Reloads on SIGHUP." } else { "" };
        let leaf = key.name.rsplit('.').next().unwrap_or(key.name);
        text.push_str(&format!("# {}\n# Allowed: {}.{reload}\n", key.about, key.allowed.describe()));
        text.push_str(&format!("{leaf} = {}\n", key.default.to_toml()));
    }
    text
}

const HEADER: &str = "\
# The configuration of ordergate: every key, with its default.
#
# Defaults < this file (`--config FILE`) < the environment (`ORDERGATE__HTTP__BIND=127.0.0.1:8081`) < flags.
# A key that is not listed here is refused, and so is a value that is not allowed; `ordergate config check` lists all that is wrong.

";
