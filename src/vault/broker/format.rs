//! What each broker's credentials look like, as far as the brokers and their clients' authors say.
//!
//! Invariant: a finding names a field and what is usual there, never what was given. Deliberately absent: refusing to keep what looks
//! odd; brokers change their formats without asking us, so this only tells.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use crate::vault::secrets::{Refused, Secrets};
use crate::vault::stored::{Broker, Environment};

/// Everything about these credentials that is not as this broker makes them.
#[must_use]
pub fn findings(broker: Broker, environment: Environment, secrets: &Secrets) -> Vec<Refused> {
    let (key, secret) = (secrets.key.expose_secret(), secrets.secret.expose_secret());
    let passphrase = secrets.passphrase.as_ref().map(SecretString::expose_secret);
    let mut found = Findings(Vec::new());
    match broker {
        Broker::Alpaca => alpaca(&mut found, environment, key, secret),
        Broker::InteractiveBrokers => {
            found.unless("key", consumer_key(key), "a consumer key of 9 capital letters or a hexadecimal one of 25 characters");
            found.unless("secret", base64_of(secret, 16..=512), "an access token secret: base64 of 16 to 512 bytes");
            let token = passphrase.is_none_or(|token| token.len() == 20 && token.bytes().all(|byte| byte.is_ascii_hexdigit()));
            found.unless("passphrase", token, "an access token of 20 hexadecimal digits");
        }
        Broker::TdAmeritrade => {
            let bare = key.strip_suffix("@AMER.OAUTHAP").unwrap_or(key);
            found.unless("key", matches!(bare.len(), 32 | 48) && alphanumeric(bare), "an app key of 32 or 48 letters and digits");
            found.unless("secret", matches!(secret.len(), 16 | 64) && alphanumeric(secret), "an app secret of 16 or 64 letters and digits");
        }
        Broker::Robinhood => {
            found.unless("key", key.strip_prefix("rh-api-").is_some_and(uuid), "rh-api- and a UUID");
            let ed25519 = base64_of(secret, 32..=32) || base64_of(secret, 64..=64);
            found.unless("secret", ed25519, "an Ed25519 private key: base64 of 32 or 64 bytes");
        }
        Broker::Coinbase => {
            found.unless("key", cdp_name(key) || uuid(key), "organizations/{UUID}/apiKeys/{UUID}, or a UUID");
            let known = base64_of(secret, 64..=64) || pem(secret, "EC PRIVATE KEY") || pem(secret, "PRIVATE KEY");
            found.unless("secret", known, "an EC private key in PEM, or base64 of an Ed25519 key of 64 bytes");
        }
        Broker::Binance => {
            found.unless("key", key.len() == 64 && alphanumeric(key), "64 letters and digits");
            found.unless("secret", secret.len() == 64 && alphanumeric(secret), "64 letters and digits (an HMAC key)");
        }
    }
    if matches!(broker, Broker::Alpaca | Broker::TdAmeritrade | Broker::Robinhood | Broker::Binance) {
        found.unless("passphrase", passphrase.is_none(), "none: this broker has no passphrases");
    }
    found.0
}

struct Findings(Vec<Refused>);

impl Findings {
    fn unless(&mut self, field: &'static str, fine: bool, allowed: &'static str) {
        if !fine {
            self.0.push(Refused { field, allowed });
        }
    }
}

/// Paper keys begin with PK, live ones with AK, those of the broker API with CK.
fn alpaca(found: &mut Findings, environment: Environment, key: &str, secret: &str) {
    let shape = (20..=26).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit());
    found.unless("key", shape, "20 to 26 capital letters and digits");
    let fits = match environment {
        Environment::Paper => key.starts_with("PK") || key.starts_with("CK"),
        Environment::Live => key.starts_with("AK") || key.starts_with("CK"),
    };
    found.unless("key", fits, "PK.. in the paper environment, AK.. in the live one");
    let shape = (40..=44).contains(&secret.len()) && secret.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'+'));
    found.unless("secret", shape, "40 to 44 letters and digits");
}

fn alphanumeric(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

fn consumer_key(text: &str) -> bool {
    let capitals = text.len() == 9 && text.bytes().all(|byte| byte.is_ascii_uppercase());
    capitals || (text.len() == 25 && text.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

fn base64_of(text: &str, bytes: std::ops::RangeInclusive<usize>) -> bool {
    BASE64_STANDARD.decode(text).map(Zeroizing::new).is_ok_and(|decoded| bytes.contains(&decoded.len()))
}

fn uuid(text: &str) -> bool {
    let dashes = [8, 13, 18, 23];
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| if dashes.contains(&at) { byte == b'-' } else { byte.is_ascii_hexdigit() })
}

fn cdp_name(text: &str) -> bool {
    let parts = text.strip_prefix("organizations/").and_then(|rest| rest.split_once("/apiKeys/"));
    parts.is_some_and(|(organization, key)| uuid(organization) && uuid(key))
}

/// A PEM block of this label around base64. Pasted keys often have `\n` spelled out; that is how Coinbase's JSON shows them.
fn pem(text: &str, label: &str) -> bool {
    let inside = text.trim().strip_prefix(&format!("-----BEGIN {label}-----"));
    let inside = inside.and_then(|rest| rest.strip_suffix(&format!("-----END {label}-----")));
    let inside = inside.map(|inside| Zeroizing::new(inside.replace("\\n", "").replace(['\n', '\r', ' '], "")));
    inside.is_some_and(|inside| base64_of(&inside, 32..=4_096))
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "6148effc-c0b1-486c-8940-a1d099456be6";

    fn fields(broker: Broker, environment: Environment, key: &str, secret: &str, passphrase: Option<&str>) -> Vec<&'static str> {
        let secrets = Secrets { key: key.into(), secret: secret.into(), passphrase: passphrase.map(Into::into) };
        findings(broker, environment, &secrets).into_iter().map(|finding| finding.field).collect()
    }

    #[test]
    fn takes_what_each_broker_gives_out() {
        use Environment::{Live, Paper};
        let pem = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIIrYSSNQFaA2Hwf1duRSxKtLYX5CB04fSeQ6tF1aY/PuoAoGCCqGSM49\n-----END EC PRIVATE KEY-----\n";
        let cdp = format!("organizations/{UUID}/apiKeys/{UUID}");
        let cases = [
            (Broker::Alpaca, Paper, "PKABCDEFGHIJ12345678", "a".repeat(40), None),
            (Broker::Alpaca, Live, "AKABCDEFGHIJ12345678901234", "B7/".repeat(14), None),
            (Broker::InteractiveBrokers, Live, "ABCDEFGHI", BASE64_STANDARD.encode([7; 256]), Some("0123456789abcdef0123")),
            (Broker::TdAmeritrade, Live, &"A1".repeat(16), "s".repeat(16), None),
            (Broker::Robinhood, Live, &format!("rh-api-{UUID}"), BASE64_STANDARD.encode([7; 32]), None),
            (Broker::Coinbase, Live, &cdp, pem.to_owned(), None),
            (Broker::Coinbase, Live, &cdp, pem.replace('\n', "\\n").trim_end_matches("\\n").to_owned(), None),
            (Broker::Coinbase, Live, UUID, BASE64_STANDARD.encode([7; 64]), None),
            (Broker::Binance, Paper, &"x9".repeat(32), "Y8".repeat(32), None),
        ];
        for (broker, environment, key, secret, passphrase) in cases {
            assert!(fields(broker, environment, key, &secret, passphrase).is_empty(), "{broker:?} {key}");
        }
    }

    #[test]
    fn says_which_field_is_odd() {
        use Environment::{Live, Paper};
        assert_eq!(fields(Broker::Alpaca, Live, "PKABCDEFGHIJ12345678", &"a".repeat(40), None), ["key"]);
        assert_eq!(fields(Broker::Alpaca, Paper, "pk", "short", Some("x")), ["key", "key", "secret", "passphrase"]);
        assert_eq!(fields(Broker::InteractiveBrokers, Live, "TESTCONS", "?", Some("x")), ["key", "secret", "passphrase"]);
        assert_eq!(fields(Broker::TdAmeritrade, Live, "x", "y", None), ["key", "secret"]);
        assert_eq!(fields(Broker::Robinhood, Live, UUID, &BASE64_STANDARD.encode([7; 33]), None), ["key", "secret"]);
        assert_eq!(fields(Broker::Coinbase, Live, "organizations/1/apiKeys/2", "-----BEGIN EC PRIVATE KEY-----", None), ["key", "secret"]);
        assert_eq!(fields(Broker::Binance, Live, &"x9".repeat(31), &"-".repeat(64), None), ["key", "secret"]);
    }
}
