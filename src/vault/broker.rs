//! Asking a broker whether a key is one: a signed, read-only request to Alpaca or Binance; of the others only the format is looked at.
//!
//! Invariant: nothing is sent but to the configured address of that broker and environment, over TLS unless that is this machine; no
//! redirect is followed, no proxy asked; every request ends within its time. What a broker answers is read only for its status and
//! its numeric code, since an error page can repeat what was sent. Deliberately absent: retries.

pub mod format;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::OnceLock;
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use reqwest::header::HeaderValue;
use reqwest::{Client, Response, StatusCode, Url};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use super::secrets::Secrets;
use super::stored::{Broker, Environment};

/// An error's body is read up to this.
const BODY_BYTES_MOST: usize = 16 * 1024;
/// How much older than the broker's clock a request may be.
const BINANCE_WINDOW_MS: u32 = 5_000;
const NO_CLIENT: &str = "this machine cannot ask brokers: it has no certificates of authorities";

/// What a verification rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// The broker was asked.
    Broker,
    /// Only the format was looked at.
    Format,
}

/// What came of a verification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The broker took it, or its format is as usual.
    Accepted,
    /// The broker did not take it.
    Refused,
    /// The format is not as usual.
    Unusual,
    /// The broker could not be asked, or answered neither yes nor no.
    Unknown,
}

/// What a verification says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checked {
    /// What it rests on.
    pub basis: Basis,
    /// What came of it.
    pub outcome: Outcome,
    /// Why, in our words.
    pub detail: String,
}

impl Checked {
    fn new(basis: Basis, outcome: Outcome, detail: impl Into<String>) -> Self {
        Self { basis, outcome, detail: detail.into() }
    }

    fn unknown(detail: impl Into<String>) -> Self {
        Self::new(Basis::Broker, Outcome::Unknown, detail)
    }
}

/// Where the brokers are and how long they may take.
#[derive(Clone, Debug)]
pub struct Options {
    /// Base addresses by name: `alpaca`, `alpaca_paper`, `binance`, `binance_paper`; what is not named has its usual one.
    pub urls: BTreeMap<String, String>,
    /// How long a request may take as a whole.
    pub timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { urls: BTreeMap::new(), timeout: Duration::from_secs(10) }
    }
}

/// Names and usual addresses.
const USUAL: [(&str, &str); 4] = [
    ("alpaca", "https://api.alpaca.markets"),
    ("alpaca_paper", "https://paper-api.alpaca.markets"),
    ("binance", "https://api.binance.com"),
    ("binance_paper", "https://testnet.binance.vision"),
];

/// The brokers cannot be asked as configured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BrokersError {
    /// No broker of this name is asked.
    #[error("{name} is no broker that is asked: alpaca, alpaca_paper, binance, binance_paper")]
    Name {
        /// The name.
        name: String,
    },
    /// No address to send a secret to.
    #[error("the address of {name} must be https://HOST, or http:// and an address of this machine, without user, query or fragment")]
    Address {
        /// The name.
        name: String,
    },
}

/// Whether secrets may be sent to this address: over TLS, or within this machine.
#[must_use]
pub fn may_be_asked(address: &str) -> bool {
    let Ok(url) = Url::parse(address) else { return false };
    let host = url.host_str().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let here = host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    let secure = url.scheme() == "https" || (url.scheme() == "http" && here);
    let plain = url.username().is_empty() && url.password().is_none() && url.query().is_none() && url.fragment().is_none();
    secure && plain && !host.is_empty()
}

/// Whether an address can be configured under this name.
#[must_use]
pub fn is_known(name: &str) -> bool {
    USUAL.iter().any(|(known, _)| *known == name)
}

/// Asks brokers.
pub struct Brokers {
    /// Made when it is first needed: a machine without certificates of authorities can do everything but this.
    client: OnceLock<Option<Client>>,
    timeout: Duration,
    urls: BTreeMap<&'static str, String>,
}

impl Brokers {
    /// A client of the brokers.
    ///
    /// # Errors
    /// A name or an address that cannot be.
    pub fn new(options: &Options) -> Result<Self, BrokersError> {
        if let Some(name) = options.urls.keys().find(|name| !is_known(name)) {
            return Err(BrokersError::Name { name: name.clone() });
        }
        let mut urls = BTreeMap::new();
        for (name, usual) in USUAL {
            let url = options.urls.get(name).map_or(usual, String::as_str);
            if !may_be_asked(url) {
                return Err(BrokersError::Address { name: name.to_owned() });
            }
            urls.insert(name, url.trim_end_matches('/').to_owned());
        }
        Ok(Self { client: OnceLock::new(), timeout: options.timeout, urls })
    }

    fn client(&self) -> Option<&Client> {
        let make = || {
            let made = Client::builder()
                .redirect(reqwest::redirect::Policy::none())
                .no_proxy()
                .referer(false)
                .connect_timeout(self.timeout / 2)
                .timeout(self.timeout)
                .user_agent(concat!("ordergate/", env!("CARGO_PKG_VERSION")))
                .build();
            made.inspect_err(|error| tracing::error!(%error, "the client of the brokers cannot be made")).ok()
        };
        self.client.get_or_init(make).as_ref()
    }

    /// Whether these are credentials of this broker, as far as can be told at `now_ms`.
    pub async fn check(&self, broker: Broker, environment: Environment, secrets: &Secrets, now_ms: i64) -> Checked {
        match broker {
            Broker::Alpaca => self.alpaca(environment, secrets).await,
            Broker::Binance => self.binance(environment, secrets, now_ms).await,
            Broker::InteractiveBrokers | Broker::TdAmeritrade | Broker::Robinhood | Broker::Coinbase => {
                let findings = format::findings(broker, environment, secrets);
                let told = findings.iter().map(|finding| format!("{} is usually {}", finding.field, finding.allowed)).collect::<Vec<_>>();
                let outcome = if told.is_empty() { Outcome::Accepted } else { Outcome::Unusual };
                let detail = if told.is_empty() { "the format is as usual; the broker was not asked".to_owned() } else { told.join("; ") };
                Checked::new(Basis::Format, outcome, detail)
            }
        }
    }

    async fn alpaca(&self, environment: Environment, secrets: &Secrets) -> Checked {
        let (Some(key), Some(secret)) = (header(&secrets.key), header(&secrets.secret)) else { return unsendable() };
        let url = format!("{}/v2/account", self.base("alpaca", "alpaca_paper", environment));
        let Some(client) = self.client() else { return Checked::unknown(NO_CLIENT) };
        match client.get(url).header("APCA-API-KEY-ID", key).header("APCA-API-SECRET-KEY", secret).send().await {
            Ok(answer) => judged(answer.status(), None, &[]),
            Err(error) => Checked::unknown(unreachable(&error)),
        }
    }

    async fn binance(&self, environment: Environment, secrets: &Secrets, now_ms: i64) -> Checked {
        let Some(key) = header(&secrets.key) else { return unsendable() };
        let asked = format!("recvWindow={BINANCE_WINDOW_MS}&timestamp={now_ms}");
        let Some(signature) = signature(&secrets.secret, &asked) else { return unsendable() };
        let url = format!("{}/api/v3/account?{asked}&signature={signature}", self.base("binance", "binance_paper", environment));
        let Some(client) = self.client() else { return Checked::unknown(NO_CLIENT) };
        match client.get(url).header("X-MBX-APIKEY", key).send().await {
            Ok(answer) => {
                let status = answer.status();
                let code = if status.is_success() { None } else { binance_code(answer).await };
                // Its documentation: -1022 invalid signature, -2008 no such key, -2014 bad format, -2015 key, address or permission.
                judged(status, code, &[-1022, -2008, -2014, -2015])
            }
            Err(error) => Checked::unknown(unreachable(&error)),
        }
    }

    fn base(&self, live: &'static str, paper: &'static str, environment: Environment) -> &str {
        let name = match environment {
            Environment::Live => live,
            Environment::Paper => paper,
        };
        self.urls.get(name).map_or("", String::as_str)
    }
}

/// The signature that Binance asks for: HMAC-SHA256 over the query, in hexadecimal.
fn signature(secret: &SecretString, query: &str) -> Option<String> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose_secret().as_bytes()).ok()?;
    mac.update(query.as_bytes());
    Some(mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A header that nothing prints.
fn header(secret: &SecretString) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(secret.expose_secret()).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn unsendable() -> Checked {
    Checked::new(Basis::Format, Outcome::Unusual, "a key and a secret of this broker have one line")
}

/// Without the address: it has the signature in it.
fn unreachable(error: &reqwest::Error) -> &'static str {
    if error.is_timeout() { "the broker did not answer in time" } else { "the broker could not be reached" }
}

fn judged(status: StatusCode, code: Option<i64>, refusing: &[i64]) -> Checked {
    let told = |word: &str| match code {
        Some(code) => format!("the broker {word} with {} and code {code}", status.as_u16()),
        None => format!("the broker {word} with {}", status.as_u16()),
    };
    let refused = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) || code.is_some_and(|code| refusing.contains(&code));
    if status == StatusCode::OK {
        return Checked::new(Basis::Broker, Outcome::Accepted, told("answered"));
    }
    if refused { Checked::new(Basis::Broker, Outcome::Refused, told("refused")) } else { Checked::unknown(told("answered")) }
}

/// The number in `{"code":-2014,"msg":".."}`.
async fn binance_code(mut answer: Response) -> Option<i64> {
    #[derive(Deserialize)]
    struct Said {
        code: i64,
    }
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = answer.chunk().await {
        body.extend_from_slice(&chunk);
        if body.len() > BODY_BYTES_MOST {
            return None;
        }
    }
    serde_json::from_slice::<Said>(&body).ok().map(|said| said.code)
}
