//! What every client tells us besides its answers: logs, errors, statistics, and asks for a token.
//!
//! Invariant: nothing that a client says changes a verdict. Deliberately absent: secrets in the log.

use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use metrics::counter;
use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;
use rdkafka::statistics::Statistics;
use rdkafka::types::RDKafkaErrorCode;

use crate::telemetry;

/// Who listens to statistics and fatal errors.
pub(super) trait Listener: Send + Sync {
    /// Figures of the client, once a second.
    fn statistics(&self, statistics: Statistics);
    /// The client is of no use any more.
    fn fatal(&self, what: &str);
}

/// The context of our clients.
#[derive(Clone, Default)]
pub(super) struct Context {
    token_file: Option<PathBuf>,
    listener: Option<Arc<dyn Listener>>,
}

impl Context {
    pub(super) fn new(token_file: Option<PathBuf>) -> Self {
        Self { token_file, listener: None }
    }

    pub(super) fn told(self, listener: Arc<dyn Listener>) -> Self {
        Self { listener: Some(listener), ..self }
    }
}

impl ClientContext for Context {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        report(&error, reason);
        if is_fatal(&error)
            && let Some(listener) = &self.listener
        {
            listener.fatal(reason);
        }
    }

    fn stats(&self, statistics: Statistics) {
        if let Some(listener) = &self.listener {
            listener.statistics(statistics);
        }
    }

    fn generate_oauth_token(&self, _config: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        token(self.token_file.as_ref())
    }
}

impl ConsumerContext for Context {}

/// Whether the client cannot be used any more.
pub(super) fn is_fatal(error: &KafkaError) -> bool {
    error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal)
}

/// One log line of librdkafka.
pub(super) fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
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
pub(super) fn report(error: &KafkaError, reason: &str) {
    if error.rdkafka_error_code() == Some(RDKafkaErrorCode::PartitionEOF) {
        return;
    }
    let code = error.rdkafka_error_code().map_or_else(String::new, |code| format!("{code:?}"));
    counter!(telemetry::KAFKA_ERRORS, "code" => code.clone()).increment(1);
    tracing::warn!(code, reason, "kafka");
}

/// The token for SASL OAUTHBEARER, as the file holds it now: a JWT, whose claims tell its subject and end.
pub(super) fn token(file: Option<&PathBuf>) -> Result<OAuthToken, Box<dyn Error>> {
    let path = file.ok_or("set kafka.token_file for SASL OAUTHBEARER")?;
    let token = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?.trim().to_owned();
    let claims = token.split('.').nth(1).ok_or("the token is no JWT")?;
    let claims: serde_json::Value = serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(claims)?)?;
    let expires_s = claims.get("exp").and_then(serde_json::Value::as_i64).ok_or("the token names no end (exp)")?;
    let principal = claims.get("sub").and_then(serde_json::Value::as_str).unwrap_or("ordergate").to_owned();
    Ok(OAuthToken { token, principal_name: principal, lifetime_ms: expires_s.saturating_mul(1000) })
}
