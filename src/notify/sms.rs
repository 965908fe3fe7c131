//! Text messages by an HTTP interface as Twilio has it.
//!
//! Invariant: the account's token is in the request's header and nowhere else. The interface knows no id of ours; `Idempotency-Key` has it
//! for those that do. Deliberately absent: receipts of the networks; taken by the provider is sent.

use std::time::Duration;

use reqwest::{Client, Url};
use secrecy::{ExposeSecret, SecretString};

use super::delivery::Outcome;
use super::http::{self, ClientError};

/// What is sent of a long message: two parts in the alphabet of telephones.
const CHARS_MAX: usize = 306;

/// A provider of text messages.
#[derive(Clone, Debug)]
pub struct SmsOptions {
    /// Where its interface begins: `https://api.twilio.com`.
    pub url: Url,
    /// Our account.
    pub account: String,
    /// Its token.
    pub token: SecretString,
    /// The number or name that messages come from.
    pub from: String,
    /// How long a request may take.
    pub timeout: Duration,
}

/// The way to the provider.
#[derive(Clone, Debug)]
pub struct Sms {
    client: Client,
    endpoint: Url,
    options: SmsOptions,
}

/// What is wrong with a provider's settings.
#[derive(Debug, thiserror::Error)]
pub enum SmsError {
    /// The URL.
    #[error("notify.sms.url has to be https, or http to this machine")]
    Url,
    /// The client.
    #[error(transparent)]
    Client(#[from] ClientError),
}

impl Sms {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// See [`SmsError`].
    pub fn new(options: SmsOptions) -> Result<Self, SmsError> {
        let host = options.url.host_str().unwrap_or_default();
        let here = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
        if options.url.scheme() != "https" && !(options.url.scheme() == "http" && here) {
            return Err(SmsError::Url);
        }
        let path = format!("{}/2010-04-01/Accounts/{}/Messages.json", options.url.path().trim_end_matches('/'), options.account);
        let mut endpoint = options.url.clone();
        endpoint.set_path(&path);
        // The operator gave the address: it may lie in their own network.
        Ok(Self { client: http::client(None, options.timeout, None)?, endpoint, options })
    }

    /// Sends one message.
    pub async fn send(&self, to: &str, id: &str, text: &str) -> Outcome {
        let text: String = text.chars().take(CHARS_MAX).collect();
        let form = [("To", to), ("From", self.options.from.as_str()), ("Body", text.as_str())];
        let request = self
            .client
            .post(self.endpoint.clone())
            .basic_auth(&self.options.account, Some(self.options.token.expose_secret()))
            .header("Idempotency-Key", id)
            .form(&form);
        match http::send(request).await {
            Ok(answer) => outcome(&answer),
            Err(outcome) => outcome,
        }
    }
}

/// The provider's own code goes into the note: it tells a number that is none from an account that is empty.
fn outcome(answer: &http::Answer) -> Outcome {
    let said: Option<serde_json::Value> = serde_json::from_slice(&answer.body).ok();
    let code = said.and_then(|said| said.get("code")?.as_i64());
    match (http::outcome(answer), code) {
        (Outcome::Refused { why }, Some(code)) => Outcome::Refused { why: format!("{why}, code {code}") },
        (outcome, _) => outcome,
    }
}

/// A number as it is kept: `+` and up to 15 digits (E.164).
#[must_use]
pub fn read_number(text: &str) -> Option<String> {
    let digits = text.strip_prefix('+')?;
    let fine = (7..=15).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
    fine.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_international() {
        assert_eq!(read_number("+4915112345678").as_deref(), Some("+4915112345678"));
        for bad in ["", "+", "015112345678", "+0151123456", "+49 151 1234", "+123456", "+1234567890123456", "+49151x234567"] {
            assert_eq!(read_number(bad), None, "{bad}");
        }
    }
}
