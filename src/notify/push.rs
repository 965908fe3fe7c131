//! Web Push: RFC 8291 encryption (`aes128gcm`), RFC 8292 identification (VAPID), to the service that a browser named.
//!
//! Invariant: the push service sees only the id, the urgency and a length. The topic is the delivery's id: of messages that wait at the
//! service, a repeat takes the place of the first. 404 and 410 say that the subscription is gone. The service's address is one that a
//! person gave us and goes through the guard. Deliberately absent: payloads beyond one record; words are cut.

use std::fmt;
use std::time::Duration;

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::agreement::{self, ECDH_P256, PrivateKey, UnparsedPublicKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use reqwest::{Client, StatusCode, Url, header};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::delivery::Outcome;
use super::http::{self, ClientError, Guard};
use super::message::Message;
use crate::domain::Priority;

/// A record at the service has at most 4096 bytes: 86 of header, 17 of padding and tag.
pub const PLAIN_BYTES_MAX: usize = 4_096 - 86 - 17;
const SALT_BYTES: usize = 16;
const POINT_BYTES: usize = 65;
const AUTH_BYTES: usize = 16;
/// How long the service keeps it for a device that is off.
const TTL_SECONDS: u32 = 24 * 3_600;
/// How long the token that says who we are is good; 24 hours are the most.
const TOKEN_SECONDS: i64 = 12 * 3_600;

/// A browser's subscription.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscription {
    /// Its id: follows from the endpoint.
    pub id: String,
    /// Where to.
    pub endpoint: String,
    /// The browser's public key, base64url.
    pub p256dh: String,
    /// The browser's secret, base64url.
    pub auth: String,
    /// When it was made, in ms.
    pub created: i64,
}

/// What is wrong with a subscription or a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// The browser's public key.
    #[error("p256dh is no uncompressed point of P-256 in base64url")]
    PublicKey,
    /// The browser's secret.
    #[error("auth is not 16 bytes in base64url")]
    Secret,
    /// Our key.
    #[error("the key file holds no private key of P-256 in PEM (PKCS#8 or SEC 1)")]
    Key,
    /// The cipher.
    #[error("the message could not be encrypted")]
    Cipher,
}

/// The keys of a browser.
#[derive(Clone, Debug)]
pub struct Receiver {
    public: [u8; POINT_BYTES],
    auth: [u8; AUTH_BYTES],
}

impl Receiver {
    /// Reads its keys as a browser gives them.
    ///
    /// # Errors
    /// See [`PushError`].
    pub fn read(p256dh: &str, auth: &str) -> Result<Self, PushError> {
        let plain = |text: &str| BASE64_URL_SAFE_NO_PAD.decode(text.trim_end_matches('='));
        let public = plain(p256dh).ok().and_then(|bytes| <[u8; POINT_BYTES]>::try_from(bytes).ok()).ok_or(PushError::PublicKey)?;
        let auth = plain(auth).ok().and_then(|bytes| bytes.try_into().ok()).ok_or(PushError::Secret)?;
        // A point that is not on the curve is found out now and not when something has to be sent.
        let probe = PrivateKey::generate(&ECDH_P256).map_err(|_| PushError::Cipher)?;
        agree(&probe, &public).map_err(|_| PushError::PublicKey)?;
        Ok(Self { public, auth })
    }
}

fn agree(own: &PrivateKey, other: &[u8]) -> Result<Vec<u8>, PushError> {
    agreement::agree(own, UnparsedPublicKey::new(&ECDH_P256, other), PushError::Cipher, |shared| Ok(shared.to_vec()))
}

/// So many bytes out of a key derivation.
struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

fn derive<const N: usize>(salt: &[u8], secret: &[u8], info: &[u8]) -> Result<[u8; N], PushError> {
    let mut out = [0; N];
    let pseudo_random = Salt::new(HKDF_SHA256, salt).extract(secret);
    let infos = [info];
    let expanded = pseudo_random.expand(&infos, Length(N)).map_err(|_| PushError::Cipher)?;
    expanded.fill(&mut out).map_err(|_| PushError::Cipher)?;
    Ok(out)
}

/// Encrypts a message for a browser.
///
/// # Errors
/// It is too long, or no random numbers are to be had.
pub fn encrypt(receiver: &Receiver, plain: &[u8]) -> Result<Vec<u8>, PushError> {
    let mut salt = [0; SALT_BYTES];
    aws_lc_rs::rand::fill(&mut salt).map_err(|_| PushError::Cipher)?;
    let own = PrivateKey::generate(&ECDH_P256).map_err(|_| PushError::Cipher)?;
    encrypt_with(receiver, plain, &own, salt)
}

/// RFC 8291, section 3.4, and RFC 8188, section 2, in one record.
fn encrypt_with(receiver: &Receiver, plain: &[u8], own: &PrivateKey, salt: [u8; SALT_BYTES]) -> Result<Vec<u8>, PushError> {
    if plain.len() > PLAIN_BYTES_MAX {
        return Err(PushError::Cipher);
    }
    let own_public = own.compute_public_key().map_err(|_| PushError::Cipher)?;
    let own_public = own_public.as_ref();
    let shared = agree(own, &receiver.public)?;
    let info = [b"WebPush: info\0".as_slice(), &receiver.public, own_public].concat();
    let secret: [u8; 32] = derive(&receiver.auth, &shared, &info)?;
    let key: [u8; 16] = derive(&salt, &secret, b"Content-Encoding: aes128gcm\0")?;
    let nonce: [u8; NONCE_LEN] = derive(&salt, &secret, b"Content-Encoding: nonce\0")?;
    let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &key).map_err(|_| PushError::Cipher)?);
    // 2 ends the last record; zeros after it would hide the length.
    let mut sealed = [plain, &[2]].concat();
    key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut sealed).map_err(|_| PushError::Cipher)?;
    let mut out = Vec::with_capacity(SALT_BYTES + 5 + POINT_BYTES + sealed.len());
    out.extend_from_slice(&salt);
    out.extend_from_slice(&4_096_u32.to_be_bytes());
    out.push(u8::try_from(own_public.len()).map_err(|_| PushError::Cipher)?);
    out.extend_from_slice(own_public);
    out.extend_from_slice(&sealed);
    Ok(out)
}

/// The key by which push services know us.
pub struct VapidKey(EcdsaKeyPair);

impl fmt::Debug for VapidKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VapidKey({})", self.public())
    }
}

impl VapidKey {
    /// Reads a private key of P-256 in PEM.
    ///
    /// # Errors
    /// It is none.
    pub fn from_pem(pem: &str) -> Result<Self, PushError> {
        let lines = pem.lines().map(str::trim).skip_while(|line| !(line.starts_with("-----BEGIN") && line.ends_with("PRIVATE KEY-----")));
        let base64: String = lines.skip(1).take_while(|line| !line.starts_with("-----")).collect();
        let der = BASE64_STANDARD.decode(base64).map_err(|_| PushError::Key)?;
        let signing = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let pair = EcdsaKeyPair::from_pkcs8(signing, &der).or_else(|_| EcdsaKeyPair::from_private_key_der(signing, &der));
        pair.map(Self).map_err(|_| PushError::Key)
    }

    /// What a browser needs to subscribe: `applicationServerKey`.
    #[must_use]
    pub fn public(&self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(self.0.public_key().as_ref())
    }

    /// The token that says who we are to one service.
    fn token(&self, audience: &str, subject: &str, now_s: i64) -> Result<String, PushError> {
        let part = |value: serde_json::Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let head = part(json!({"typ": "JWT", "alg": "ES256"}));
        let claims = part(json!({"aud": audience, "exp": now_s + TOKEN_SECONDS, "sub": subject}));
        let signed = format!("{head}.{claims}");
        let signature = self.0.sign(&SystemRandom::new(), signed.as_bytes()).map_err(|_| PushError::Cipher)?;
        Ok(format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature.as_ref())))
    }
}

/// How pushes are sent.
pub struct PushOptions {
    /// Our key.
    pub key: VapidKey,
    /// Whom a service may write to about us: `mailto:` or `https:`.
    pub subject: String,
    /// Where they may go.
    pub guard: Guard,
    /// How long a request may take.
    pub timeout: Duration,
    /// Certificates that are trusted beside the system's.
    pub ca_file: Option<std::path::PathBuf>,
}

/// The way to push services.
pub struct Push {
    client: Client,
    options: PushOptions,
}

impl Push {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// The client cannot be made.
    pub fn new(options: PushOptions) -> Result<Self, ClientError> {
        let client = http::client(Some(&options.guard), options.timeout, options.ca_file.as_deref())?;
        Ok(Self { client, options })
    }

    /// Where pushes may go.
    #[must_use]
    pub fn guard(&self) -> &Guard {
        &self.options.guard
    }

    /// What a browser needs to subscribe.
    #[must_use]
    pub fn public_key(&self) -> String {
        self.options.key.public()
    }

    /// Sends one message to one browser.
    pub async fn send(&self, to: &Subscription, id: &str, urgency: Priority, plain: &[u8], now_s: i64) -> Outcome {
        let request = match self.request(to, id, urgency, plain, now_s) {
            Ok(request) => request,
            Err(why) => return Outcome::Refused { why },
        };
        match http::send(request).await {
            Ok(answer) if matches!(answer.status, StatusCode::NOT_FOUND | StatusCode::GONE) => {
                Outcome::Gone { why: format!("HTTP {}: the subscription is gone", answer.status) }
            }
            Ok(answer) => http::outcome(&answer),
            Err(outcome) => outcome,
        }
    }

    fn request(&self, to: &Subscription, id: &str, urgency: Priority, plain: &[u8], now_s: i64) -> Result<reqwest::RequestBuilder, String> {
        let told = |error: &dyn fmt::Display| error.to_string();
        let url = self.options.guard.read(&to.endpoint).map_err(|error| told(&error))?;
        let receiver = Receiver::read(&to.p256dh, &to.auth).map_err(|error| told(&error))?;
        let body = encrypt(&receiver, plain).map_err(|error| told(&error))?;
        let token = self.options.key.token(&origin(&url), &self.options.subject, now_s).map_err(|error| told(&error))?;
        let urgency = match urgency {
            Priority::Urgent | Priority::High => "high",
            Priority::Medium => "normal",
            Priority::Low => "low",
        };
        let request = self.client.post(url).header(header::CONTENT_ENCODING, "aes128gcm").header("Urgency", urgency);
        let request = request.header("TTL", TTL_SECONDS).header("Topic", id).header(header::CONTENT_TYPE, "application/octet-stream");
        Ok(request.header(header::AUTHORIZATION, format!("vapid t={token}, k={}", self.public_key())).body(body))
    }
}

fn origin(url: &Url) -> String {
    url.origin().ascii_serialization()
}

/// What a browser is sent: enough to show, cut until it fits.
#[must_use]
pub fn payload(message: &Message, title: &str, body: &str, url: &str) -> Vec<u8> {
    let mut chars = body.chars().count();
    loop {
        let cut: String = body.chars().take(chars).collect();
        let title: String = title.chars().take(200).collect();
        let json = json!({
            "id": message.id, "title": title, "body": cut, "priority": message.priority().as_str(), "url": url,
            "notification_id": message.contents.first().map(|raised| raised.id), "total": message.total(), "digest": message.digest,
        });
        let bytes = json.to_string().into_bytes();
        if bytes.len() <= PLAIN_BYTES_MAX || chars == 0 {
            return bytes;
        }
        chars /= 2;
    }
}

/// A key for tests and for operators who have none: PKCS#8 in PEM.
///
/// # Errors
/// No random numbers are to be had.
pub fn generate_key() -> Result<String, PushError> {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(|_| PushError::Cipher)?;
    let document = pair.to_pkcs8v1().map_err(|_| PushError::Cipher)?;
    Ok(format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", BASE64_STANDARD.encode(document.as_ref())))
}

/// The id of a subscription.
#[must_use]
pub fn id_of(endpoint: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(&blake3::hash(endpoint.as_bytes()).as_bytes()[..12])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encrypts_the_example_of_rfc_8291() {
        let bytes = |text: &str| BASE64_URL_SAFE_NO_PAD.decode(text).unwrap();
        let receiver = Receiver::read(
            "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4",
            "BTBZMqHH6r4Tts7J_aSIgg",
        )
        .unwrap();
        let own = PrivateKey::from_private_key(&ECDH_P256, &bytes("yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw")).unwrap();
        let salt = bytes("DGv6ra1nlYgDCS1FRnbzlw").try_into().unwrap();
        let sealed = encrypt_with(&receiver, b"When I grow up, I want to be a watermelon", &own, salt).unwrap();
        let expected = "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN";
        assert_eq!(BASE64_URL_SAFE_NO_PAD.encode(sealed), expected);
    }

    #[test]
    fn refuses_keys_that_are_none() {
        let good = ("BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4", "BTBZMqHH6r4Tts7J_aSIgg");
        assert!(Receiver::read(good.0, good.1).is_ok());
        assert_eq!(Receiver::read("AAAA", good.1).err(), Some(PushError::PublicKey));
        let off_the_curve = BASE64_URL_SAFE_NO_PAD.encode([[4_u8].as_slice(), &[7; 64]].concat());
        assert_eq!(Receiver::read(&off_the_curve, good.1).err(), Some(PushError::PublicKey));
        assert_eq!(Receiver::read(good.0, "AAAA").err(), Some(PushError::Secret));
        for bad in [
            "",
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----",
            "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----",
        ] {
            assert_eq!(VapidKey::from_pem(bad).err(), Some(PushError::Key));
        }
        assert!(VapidKey::from_pem(&generate_key().unwrap()).is_ok());
    }
}
