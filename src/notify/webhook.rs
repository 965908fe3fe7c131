//! Webhooks, signed as Standard Webhooks say: `webhook-id`, `webhook-timestamp`, `webhook-signature`.
//!
//! Invariant: each webhook has a secret of its own that follows from the operator's key, the person, the URL and a counter, so none has
//! to be kept; whoever reads the log cannot sign. Only a webhook that has answered a signed challenge is used. `webhook-id` is the same in
//! every repeat. Deliberately absent: redirects, and addresses that are not public (`http.rs`).

use std::path::PathBuf;
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use reqwest::{Client, StatusCode, header};
use secrecy::{ExposeSecret, SecretBox};
use serde_json::json;

use super::delivery::Outcome;
use super::http::{self, ClientError, Guard};
use super::template::moment;

/// The operator's key is at least this long.
pub const KEY_BYTES_MIN: usize = 32;

/// How webhooks are sent.
#[derive(Clone)]
pub struct WebhookOptions {
    /// What secrets follow from.
    pub key: std::sync::Arc<SecretBox<[u8]>>,
    /// Where they may go.
    pub guard: Guard,
    /// How long a request may take.
    pub timeout: Duration,
    /// Certificates that are trusted beside the system's.
    pub ca_file: Option<PathBuf>,
}

/// The way to webhooks.
#[derive(Clone)]
pub struct Webhook {
    client: Client,
    options: WebhookOptions,
}

/// What a challenge met.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChallengeError {
    /// It was not reached, or did not take it.
    #[error("the webhook did not take the challenge: {0}")]
    Failed(String),
    /// It took it and did not answer as asked.
    #[error("the webhook has to answer 200 with the JSON object {{\"challenge\": ..}} that it was sent")]
    Wrong,
    /// No random numbers.
    #[error("no random number could be had")]
    Random,
}

impl Webhook {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// The client cannot be made.
    pub fn new(options: WebhookOptions) -> Result<Self, ClientError> {
        let client = http::client(Some(&options.guard), options.timeout, options.ca_file.as_deref())?;
        Ok(Self { client, options })
    }

    /// Where webhooks may go.
    #[must_use]
    pub fn guard(&self) -> &Guard {
        &self.options.guard
    }

    /// The secret of a webhook, as its owner needs it: `whsec_` and base64.
    #[must_use]
    pub fn secret(&self, user: &str, url: &str, generation: u64) -> String {
        format!("whsec_{}", BASE64_STANDARD.encode(self.key_of(user, url, generation)))
    }

    fn key_of(&self, user: &str, url: &str, generation: u64) -> hmac::Tag {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.options.key.expose_secret());
        let mut context = hmac::Context::with_key(&key);
        for part in ["ordergate webhook secret", user, url] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
        context.update(&generation.to_be_bytes());
        context.sign()
    }

    /// Sends one message.
    pub async fn send(&self, to: &Target<'_>, id: &str, body: Vec<u8>, now_s: i64) -> Outcome {
        match self.post(to, id, body, now_s).await {
            Ok(answer) if answer.status == StatusCode::GONE => Outcome::Gone { why: "HTTP 410: the webhook is gone".to_owned() },
            Ok(answer) => http::outcome(&answer),
            Err(outcome) => outcome,
        }
    }

    /// Asks a webhook whether it is its owner's: it has to send back what it was sent.
    ///
    /// # Errors
    /// See [`ChallengeError`].
    pub async fn challenge(&self, to: &Target<'_>, now_s: i64) -> Result<(), ChallengeError> {
        let mut random = [0; 24];
        aws_lc_rs::rand::fill(&mut random).map_err(|_| ChallengeError::Random)?;
        let challenge = BASE64_URL_SAFE_NO_PAD.encode(random);
        let body = json!({"type": "webhook.challenge", "timestamp": moment(now_s * 1_000), "data": {"challenge": challenge}});
        let answer = self.post(to, &format!("challenge_{challenge}"), body.to_string().into_bytes(), now_s).await;
        let answer = answer.map_err(|outcome| ChallengeError::Failed(why(&outcome)))?;
        if answer.status != StatusCode::OK {
            return Err(ChallengeError::Failed(format!("HTTP {}", answer.status)));
        }
        let said: Option<serde_json::Value> = serde_json::from_slice(&answer.body).ok();
        let said = said.as_ref().and_then(|said| said.get("challenge")?.as_str());
        if said == Some(&challenge) { Ok(()) } else { Err(ChallengeError::Wrong) }
    }

    async fn post(&self, to: &Target<'_>, id: &str, body: Vec<u8>, now_s: i64) -> Result<http::Answer, Outcome> {
        // Read anew: what was allowed when it was written may not be any more.
        let url = self.options.guard.read(to.url).map_err(Outcome::refused)?;
        let signature = sign(self.key_of(to.user, to.url, to.generation).as_ref(), id, now_s, &body);
        let request = self
            .client
            .post(url)
            .header(header::CONTENT_TYPE, "application/json")
            .header("webhook-id", id)
            .header("webhook-timestamp", now_s)
            .header("webhook-signature", signature)
            .body(body);
        http::send(request).await
    }
}

/// A webhook.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// Whose.
    pub user: &'a str,
    /// Where.
    pub url: &'a str,
    /// How often its secret was made anew.
    pub generation: u64,
}

/// `v1` of Standard Webhooks: HMAC-SHA256 over id, time and body.
fn sign(key: &[u8], id: &str, now_s: i64, body: &[u8]) -> String {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
    context.update(format!("{id}.{now_s}.").as_bytes());
    context.update(body);
    format!("v1,{}", BASE64_STANDARD.encode(context.sign()))
}

fn why(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Sent => String::new(),
        Outcome::Later { why, .. } | Outcome::Refused { why } | Outcome::Gone { why } | Outcome::Unwanted { why } => why.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_the_one_of_the_specification_s_example() {
        let key = BASE64_STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signature = sign(&key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn a_secret_depends_on_person_url_and_counter() {
        let options = |key: &[u8]| WebhookOptions {
            key: std::sync::Arc::new(SecretBox::new(key.to_vec().into_boxed_slice())),
            guard: Guard::new(true),
            timeout: Duration::from_secs(1),
            ca_file: None,
        };
        let webhook = Webhook::new(options(&[7; 32])).unwrap();
        let secret = webhook.secret("ann", "https://a.example/", 1);
        assert!(secret.starts_with("whsec_"));
        assert_eq!(secret, webhook.secret("ann", "https://a.example/", 1));
        let others = [
            webhook.secret("bob", "https://a.example/", 1),
            webhook.secret("ann", "https://b.example/", 1),
            webhook.secret("ann", "https://a.example/", 2),
            Webhook::new(options(&[8; 32])).unwrap().secret("ann", "https://a.example/", 1),
        ];
        assert!(others.iter().all(|other| *other != secret));
    }
}
