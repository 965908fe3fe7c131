//! HTTP receivers on loopback: a webhook, a push service, a provider of text messages; each judges what comes with somebody else's code.
//!
//! Invariant: what does not verify or decrypt is counted as a defect and never as received. Deliberately absent: our own signing and
//! encryption.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use http_body_util::BodyExt;
use standardwebhooks::Webhook;
use tokio::net::TcpListener;
use web_push_native::Auth;
use web_push_native::p256::SecretKey;
use web_push_native::p256::elliptic_curve::sec1::ToEncodedPoint;

/// How it behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    Well,
    /// It answers with this status.
    Status(u16),
    /// It never answers.
    Hanging,
    /// It redirects to another place.
    Redirecting,
    /// It takes what comes, and answers 503 all the same.
    Forgetful,
}

/// What judges a request; it gives the id under which it came, and what it says.
type Judge = Arc<dyn Fn(&str, &HeaderMap, &Bytes) -> Result<Received, String> + Send + Sync>;

/// What was received.
#[derive(Clone, Debug, Default)]
pub struct Received {
    pub id: String,
    pub body: String,
    /// For the answer.
    pub answer: String,
}

#[derive(Default)]
struct Kept {
    received: Vec<Received>,
    defects: Vec<String>,
    requests: usize,
}

/// A receiver.
#[derive(Clone)]
pub struct Receiver {
    pub at: SocketAddr,
    mood: Arc<Mutex<Mood>>,
    kept: Arc<Mutex<Kept>>,
    judge: Arc<Mutex<Option<Judge>>>,
}

impl Receiver {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let receiver = Self {
            at: listener.local_addr().unwrap(),
            mood: Arc::new(Mutex::new(Mood::Well)),
            kept: Arc::default(),
            judge: Arc::default(),
        };
        let router = Router::new().fallback(take).with_state(receiver.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        receiver
    }

    pub fn judged_by(&self, judge: impl Fn(&str, &HeaderMap, &Bytes) -> Result<Received, String> + Send + Sync + 'static) {
        *self.judge.lock().unwrap() = Some(Arc::new(judge));
    }

    pub fn mood(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    pub fn received(&self) -> Vec<Received> {
        let kept = self.kept.lock().unwrap();
        assert!(kept.defects.is_empty(), "{:?}", kept.defects);
        kept.received.clone()
    }

    pub fn requests(&self) -> usize {
        self.kept.lock().unwrap().requests
    }

    /// How often each id was received.
    pub fn counts(&self) -> HashMap<String, usize> {
        let mut counts = HashMap::new();
        for received in self.received() {
            *counts.entry(received.id).or_default() += 1;
        }
        counts
    }
}

async fn take(State(receiver): State<Receiver>, request: Request) -> Response {
    let mood = *receiver.mood.lock().unwrap();
    receiver.kept.lock().unwrap().requests += 1;
    match mood {
        Mood::Hanging => tokio::time::sleep(Duration::from_secs(3_600)).await,
        Mood::Redirecting => return (StatusCode::FOUND, [(header::LOCATION, "http://127.0.0.1:1/")]).into_response(),
        Mood::Status(status) => return StatusCode::from_u16(status).unwrap().into_response(),
        Mood::Well | Mood::Forgetful => {}
    }
    let (parts, body) = request.into_parts();
    let Ok(body) = body.collect().await else { return StatusCode::BAD_REQUEST.into_response() };
    let body = body.to_bytes();
    let judge = receiver.judge.lock().unwrap().clone().expect("nobody judges");
    let judged = judge(parts.uri.path(), &parts.headers, &body);
    let mut kept = receiver.kept.lock().unwrap();
    match judged {
        Ok(received) => {
            let answer = received.answer.clone();
            // A challenge is no notification.
            if !received.id.is_empty() {
                kept.received.push(received);
            }
            let status = if mood == Mood::Forgetful { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
            (status, [(header::CONTENT_TYPE, "application/json")], answer).into_response()
        }
        Err(defect) => {
            kept.defects.push(defect);
            StatusCode::BAD_REQUEST.into_response()
        }
    }
}

fn text(headers: &HeaderMap, name: &str) -> String {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}

/// Verifies with the library of Standard Webhooks, and answers challenges. Each path has its own secret.
pub fn webhook(secrets: Arc<Mutex<HashMap<String, String>>>) -> impl Fn(&str, &HeaderMap, &Bytes) -> Result<Received, String> {
    move |path, headers, body| {
        let secret = secrets.lock().unwrap().get(path).cloned().ok_or_else(|| format!("nobody's path {path}"))?;
        let verifier = Webhook::new(&secret).map_err(|error| error.to_string())?;
        verifier.verify(body, headers).map_err(|error| error.to_string())?;
        let json: serde_json::Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        if json["type"] == "webhook.challenge" {
            let answer = serde_json::json!({"challenge": json["data"]["challenge"]}).to_string();
            return Ok(Received { answer, ..Received::default() });
        }
        Ok(Received { id: text(headers, "webhook-id"), body: String::from_utf8_lossy(body).into_owned(), answer: "{}".into() })
    }
}

/// A browser: its keys, and what decrypts for it.
pub struct Browser {
    pub p256dh: String,
    pub auth: String,
    secret: SecretKey,
    auth_bytes: [u8; 16],
}

impl Browser {
    pub fn new(seed: u8) -> Self {
        let secret = SecretKey::from_slice(&[seed.max(1); 32]).unwrap();
        let auth_bytes = [seed; 16];
        let p256dh = BASE64_URL_SAFE_NO_PAD.encode(secret.public_key().to_encoded_point(false).as_bytes());
        Self { p256dh, auth: BASE64_URL_SAFE_NO_PAD.encode(auth_bytes), secret, auth_bytes }
    }

    /// Decrypts with the library `web-push-native`, and looks at what a push service looks at.
    pub fn judge(self) -> impl Fn(&str, &HeaderMap, &Bytes) -> Result<Received, String> {
        move |_, headers, body| {
            let (topic, encoding) = (text(headers, "topic"), text(headers, "content-encoding"));
            if topic.len() > 32 || encoding != "aes128gcm" || text(headers, "ttl").parse::<u32>().is_err() {
                return Err(format!("topic {topic}, encoding {encoding}"));
            }
            verify_vapid(&text(headers, "authorization"))?;
            let auth = Auth::clone_from_slice(&self.auth_bytes);
            let plain = web_push_native::decrypt(body.to_vec(), &self.secret, &auth).map_err(|error| format!("{error:?}"))?;
            let json: serde_json::Value = serde_json::from_slice(&plain).map_err(|error| error.to_string())?;
            if json["id"] != topic.as_str() {
                return Err("the message has another id than its topic".into());
            }
            Ok(Received { id: topic, body: String::from_utf8_lossy(&plain).into_owned(), answer: String::new() })
        }
    }
}

/// `vapid t=.., k=..`, verified with the library `jsonwebtoken`.
fn verify_vapid(header: &str) -> Result<(), String> {
    let (token, key) = header.strip_prefix("vapid t=").and_then(|rest| rest.split_once(", k=")).ok_or("no vapid")?;
    let point = BASE64_URL_SAFE_NO_PAD.decode(key).map_err(|error| error.to_string())?;
    if point.len() != 65 {
        return Err("the key is no point".into());
    }
    let half = |range: std::ops::Range<usize>| BASE64_URL_SAFE_NO_PAD.encode(&point[range]);
    let key = jsonwebtoken::DecodingKey::from_ec_components(&half(1..33), &half(33..65)).map_err(|error| error.to_string())?;
    let mut validation = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::ES256);
    validation.validate_aud = false;
    let claims = jsonwebtoken::decode::<serde_json::Value>(token, &key, &validation).map_err(|error| error.to_string())?.claims;
    let aud = claims["aud"].as_str().unwrap_or_default();
    if !aud.starts_with("http://127.0.0.1:") || claims["sub"] != "mailto:ops@example.com" {
        return Err(format!("claims {claims}"));
    }
    Ok(())
}

/// What Twilio looks at.
pub fn twilio() -> impl Fn(&str, &HeaderMap, &Bytes) -> Result<Received, String> {
    |path, headers, body| {
        let login = format!("Basic {}", BASE64_STANDARD.encode("AC1:token"));
        if path != "/2010-04-01/Accounts/AC1/Messages.json" || text(headers, "authorization") != login {
            return Err(format!("{path} {}", text(headers, "authorization")));
        }
        let form = String::from_utf8_lossy(body).into_owned();
        if !form.contains("To=%2B491511234567") || !form.contains("From=%2B15550001") || !form.contains("Body=") {
            return Err(form);
        }
        Ok(Received { id: text(headers, "idempotency-key"), body: form, answer: r#"{"sid":"SM1","status":"queued"}"#.into() })
    }
}
