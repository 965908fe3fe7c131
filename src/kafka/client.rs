//! What every client tells us besides its answers: logs, errors, statistics, and asks for a token.
//!
//! Invariant: nothing that a client says changes a verdict, and a client that is of no use any more is
//! noticed: one that knows no broker stays silent for ever (docs/KAFKA.md), so whoever uses it makes
//! another. Deliberately absent: secrets in the log.

use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use metrics::counter;
use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, ConsumerContext, Rebalance};
use rdkafka::error::KafkaError;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::ProducerContext;
use rdkafka::statistics::{Broker, Statistics};
use rdkafka::types::RDKafkaErrorCode;

use crate::telemetry;

use super::error::denies;

/// Statistics in a row without a broker, after which a client is given up: between a cluster that says
/// that it has no brokers and a client that asks those of its settings again there may be one.
const LOOKS_WITHOUT_BROKER: u32 = 2;

/// Who hears what a client has to say.
pub(super) trait Listener: Send + Sync + Sized + 'static {
    /// An error. Most pass: the client goes on trying.
    fn error(&self, _error: &KafkaError) {}

    /// Figures of the client.
    fn statistics(&self, _statistics: Statistics) {}

    /// The client is of no use any more: librdkafka gave up, or lost all its brokers.
    fn useless(&self, _why: &str) {}

    /// The group gives or takes, before it counts and after.
    fn rebalancing(&self, _consumer: &BaseConsumer<Context<Self>>, _what: &Rebalance<'_>) {}
    fn rebalanced(&self, _consumer: &BaseConsumer<Context<Self>>, _what: &Rebalance<'_>) {}
}

/// Who hears what became of records.
pub(super) trait Receiver: Listener {
    /// What a report says of its record besides.
    type Ticket: Send + Sync + 'static;

    fn reported(&self, report: &DeliveryResult<'_>, ticket: Self::Ticket);
}

/// Hears nothing.
pub(super) struct Nobody;

impl Listener for Nobody {}

impl Receiver for Nobody {
    type Ticket = ();

    fn reported(&self, _report: &DeliveryResult<'_>, (): ()) {}
}

/// The context of every client.
pub(super) struct Context<L = Nobody> {
    listener: L,
    token_file: Option<PathBuf>,
    /// What the broker said when it refused us, the last time.
    denial: Mutex<Option<String>>,
    without_broker: AtomicU32,
    is_useless: AtomicBool,
}

impl<L: Listener> Context<L> {
    pub(super) fn new(token_file: Option<PathBuf>, listener: L) -> Self {
        Self { listener, token_file, denial: Mutex::default(), without_broker: AtomicU32::new(0), is_useless: AtomicBool::new(false) }
    }

    /// What the broker said when it refused us, if it did.
    pub(super) fn denial(&self) -> Option<String> {
        self.denial.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether another client must take its place.
    pub(super) fn is_useless(&self) -> bool {
        self.is_useless.load(Ordering::Relaxed)
    }

    fn denied(&self, what: &str) {
        *self.denial.lock().unwrap_or_else(PoisonError::into_inner) = Some(what.to_owned());
    }

    fn give_up(&self, why: &str) {
        if !self.is_useless.swap(true, Ordering::Relaxed) {
            counter!(telemetry::KAFKA_CLIENTS_LOST).increment(1);
            tracing::warn!(why, "a client is of no use any more: another takes its place");
        }
        // Who does not need it now may not listen, and need it later: it is told at every look.
        self.listener.useless(why);
    }
}

impl<L: Listener> ClientContext for Context<L> {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
        // A broker that is shown no certificate it trusts hangs up, and says nothing more.
        if facility == "SSL" {
            self.denied(message);
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        report(&error, reason);
        if error.rdkafka_error_code().is_some_and(denies) {
            self.denied(reason);
        }
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal) {
            self.give_up(&format!("librdkafka gave up: {reason}"));
        }
        self.listener.error(&error);
    }

    fn stats(&self, statistics: Statistics) {
        if statistics.brokers.values().any(is_broker) {
            self.without_broker.store(0, Ordering::Relaxed);
        } else if self.without_broker.fetch_add(1, Ordering::Relaxed) + 1 >= LOOKS_WITHOUT_BROKER {
            self.give_up(&format!("{} has forgotten its brokers", statistics.name));
        }
        self.listener.statistics(statistics);
    }

    fn generate_oauth_token(&self, _config: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        token(self.token_file.as_ref())
    }
}

impl<L: Listener> ConsumerContext for Context<L> {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, what: &Rebalance<'_>) {
        self.listener.rebalancing(consumer, what);
    }

    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, what: &Rebalance<'_>) {
        self.listener.rebalanced(consumer, what);
    }
}

impl<L: Receiver> ProducerContext for Context<L> {
    type DeliveryOpaque = Box<L::Ticket>;

    fn delivery(&self, report: &DeliveryResult<'_>, ticket: Box<L::Ticket>) {
        self.listener.reported(report, *ticket);
    }
}

/// Whether it is a way to the cluster: the coordinator's place is none, it points to one.
fn is_broker(broker: &Broker) -> bool {
    matches!(broker.source.as_str(), "learned" | "configured")
}

/// One log line of librdkafka.
fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    use RDKafkaLogLevel as L;
    match level {
        // A property of consumers is no news to a producer.
        L::Warning if facility == "CONFWARN" => tracing::debug!(facility, message, "librdkafka"),
        L::Emerg | L::Alert | L::Critical | L::Error | L::Warning => tracing::warn!(facility, message, "librdkafka"),
        L::Notice | L::Info => tracing::info!(facility, message, "librdkafka"),
        L::Debug => tracing::debug!(facility, message, "librdkafka"),
    }
}

/// One error of librdkafka. Most of them pass: it goes on trying.
fn report(error: &KafkaError, reason: &str) {
    if error.rdkafka_error_code() == Some(RDKafkaErrorCode::PartitionEOF) {
        return;
    }
    let code = error.rdkafka_error_code().map_or_else(String::new, |code| format!("{code:?}"));
    counter!(telemetry::KAFKA_ERRORS, "code" => code.clone()).increment(1);
    tracing::warn!(code, reason, "kafka");
}

/// The token for SASL OAUTHBEARER, as the file holds it now: a JWT, whose claims tell its subject and end.
fn token(file: Option<&PathBuf>) -> Result<OAuthToken, Box<dyn Error>> {
    let path = file.ok_or("set kafka.token_file for SASL OAUTHBEARER")?;
    let token = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?.trim().to_owned();
    let claims = token.split('.').nth(1).ok_or("the token is no JWT")?;
    let claims: serde_json::Value = serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(claims)?)?;
    let expires_s = claims.get("exp").and_then(serde_json::Value::as_i64).ok_or("the token names no end (exp)")?;
    let principal = claims.get("sub").and_then(serde_json::Value::as_str).unwrap_or("ordergate").to_owned();
    Ok(OAuthToken { token, principal_name: principal, lifetime_ms: expires_s.saturating_mul(1000) })
}
