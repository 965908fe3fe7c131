//! Access tokens: short-lived JWTs that an instance signs with its Ed25519 key.
//!
//! Invariant: a token is good only with the one algorithm, the one key, our issuer and audience, all claims present, none unknown,
//! within its time, and made for no longer than ten minutes. Time is an argument. Deliberately absent: what a user may do; that is
//! looked up with every request, so that it ends at once and not with the token.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, decode_header, encode};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::random;
use crate::domain::Millis;

/// No access token lives longer.
pub const SECONDS_MAX: i64 = 600;
/// How far clocks of instances may differ.
const SKEW_SECONDS: i64 = 5;
/// RFC 9068.
const TYPE: &str = "at+jwt";
const PEM_BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const PEM_END: &str = "-----END PRIVATE KEY-----";

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claims {
    /// Who made it.
    pub iss: String,
    /// For whom it is.
    pub aud: String,
    /// The user.
    pub sub: String,
    /// When it ends, in seconds.
    pub exp: i64,
    /// When it begins, in seconds.
    pub nbf: i64,
    /// When it was made, in seconds.
    pub iat: i64,
    /// Its own id.
    pub jti: String,
    /// The session that it belongs to: its id and its family.
    pub sid: String,
}

/// It is not one of ours, or not any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Forged {
    /// No token of ours: form, algorithm, key, signature, claims.
    #[error("the access token is not valid")]
    Invalid,
    /// It was one.
    #[error("the access token has expired")]
    Expired,
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file.
    #[error("the signing key {path} cannot be used: {error}")]
    File {
        /// Where it is.
        path: PathBuf,
        /// What is wrong.
        error: io::Error,
    },
    /// Anyone on the machine can read it.
    #[error("the signing key {path} can be read by everyone on this machine; `chmod 600` it, and make a new one")]
    Exposed {
        /// Where it is.
        path: PathBuf,
    },
    /// What is in it.
    #[error("the signing key {path} is no Ed25519 key in PEM (PKCS #8), as `openssl genpkey -algorithm ed25519` writes it")]
    NoKey {
        /// Where it is.
        path: PathBuf,
    },
    /// It cannot be made.
    #[error("a signing key cannot be made")]
    Failed,
}

/// Whose tokens, for whom, for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// `iss`
    pub issuer: String,
    /// `aud`
    pub audience: String,
    /// How long a token lives, in seconds; at most [`SECONDS_MAX`].
    pub seconds: i64,
}

/// The key that signs and checks.
pub struct Keys {
    signing: EncodingKey,
    checking: DecodingKey,
    id: String,
    terms: Terms,
}

impl Keys {
    /// The key of a file that an operator made.
    ///
    /// # Errors
    /// It cannot be read, anyone can read it, or it is no Ed25519 key.
    pub fn read(path: &Path, terms: Terms) -> Result<Self, KeyError> {
        let failed = |error| KeyError::File { path: path.to_owned(), error };
        if fs::metadata(path).map_err(failed)?.permissions().mode() & 0o007 != 0 {
            return Err(KeyError::Exposed { path: path.to_owned() });
        }
        let pem = Zeroizing::new(fs::read_to_string(path).map_err(failed)?);
        let no_key = || KeyError::NoKey { path: path.to_owned() };
        Self::of(&der_of(&pem).ok_or_else(no_key)?, terms).ok_or_else(no_key)
    }

    /// The key of a file, which is made when it is not there.
    ///
    /// # Errors
    /// As [`Keys::read`], or it cannot be made.
    pub fn read_or_make(path: &Path, terms: Terms) -> Result<Self, KeyError> {
        if !path.exists() {
            let pair = Ed25519KeyPair::generate().map_err(|_| KeyError::Failed)?;
            let der = pair.to_pkcs8v1().map_err(|_| KeyError::Failed)?;
            let pem = Zeroizing::new(format!("{PEM_BEGIN}\n{}\n{PEM_END}\n", BASE64_STANDARD.encode(der.as_ref())));
            write_private(path, &pem).map_err(|error| KeyError::File { path: path.to_owned(), error })?;
        }
        Self::read(path, terms)
    }

    /// The key of a PKCS #8 document.
    fn of(der: &[u8], terms: Terms) -> Option<Self> {
        let pair = Ed25519KeyPair::from_pkcs8(der).ok()?;
        let public = pair.public_key().as_ref().to_vec();
        let checking = DecodingKey::from_ed_components(&BASE64_URL_SAFE_NO_PAD.encode(&public)).ok()?;
        let id = blake3::hash(&public).to_hex()[..16].to_owned();
        Some(Self { signing: EncodingKey::from_ed_der(der), checking, id, terms })
    }

    /// The key's id, as `kid` names it.
    #[cfg(test)]
    fn id(&self) -> &str {
        &self.id
    }

    /// A token for a session; `None` when it cannot be signed.
    #[must_use]
    pub fn sign(&self, user: &str, session: &str, now: Millis) -> Option<String> {
        let now = now.div_euclid(1_000);
        let claims = Claims {
            iss: self.terms.issuer.clone(),
            aud: self.terms.audience.clone(),
            sub: user.to_owned(),
            exp: now + self.terms.seconds.min(SECONDS_MAX),
            nbf: now,
            iat: now,
            jti: random::id().ok()?,
            sid: session.to_owned(),
        };
        let mut header = Header::new(Algorithm::EdDSA);
        header.typ = Some(TYPE.to_owned());
        header.kid = Some(self.id.clone());
        encode(&header, &claims, &self.signing).ok()
    }

    /// What a token says, if it is ours and of now.
    ///
    /// # Errors
    /// It is not.
    pub fn verify(&self, token: &str, now: Millis) -> Result<Claims, Forged> {
        let header = decode_header(token).map_err(|_| Forged::Invalid)?;
        let ours = header.alg == Algorithm::EdDSA && header.kid.as_deref() == Some(&self.id) && header.typ.as_deref() == Some(TYPE);
        if !ours || says_critical(token) {
            return Err(Forged::Invalid);
        }
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_issuer(&[&self.terms.issuer]);
        validation.set_audience(&[&self.terms.audience]);
        validation.set_required_spec_claims(&["exp", "nbf", "iss", "aud", "sub"]);
        // The library would ask its own clock; ours is an argument.
        (validation.validate_exp, validation.validate_nbf) = (false, false);
        let claims = decode::<Claims>(token, &self.checking, &validation).map_err(|_| Forged::Invalid)?.claims;
        let now = now.div_euclid(1_000);
        let lasts = claims.exp.checked_sub(claims.iat).ok_or(Forged::Invalid)?;
        if claims.nbf > now + SKEW_SECONDS || claims.iat > now + SKEW_SECONDS || lasts > SECONDS_MAX {
            return Err(Forged::Invalid);
        }
        if claims.exp <= now { Err(Forged::Expired) } else { Ok(claims) }
    }
}

/// Whether a token's header names extensions that must be understood (RFC 7515, section 4.1.11): we understand none, and the library does
/// not look.
fn says_critical(token: &str) -> bool {
    let header = token.split('.').next().and_then(|part| BASE64_URL_SAFE_NO_PAD.decode(part).ok());
    let header = header.and_then(|json| serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&json).ok());
    header.is_none_or(|header| header.contains_key("crit"))
}

/// Writes a file that only its owner may read, whole or not at all.
fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let fresh = path.with_extension("new");
    if let Err(error) = fs::remove_file(&fresh)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&fresh, path)
}

fn der_of(pem: &str) -> Option<Zeroizing<Vec<u8>>> {
    let (_, rest) = pem.split_once(PEM_BEGIN)?;
    let (body, _) = rest.split_once(PEM_END)?;
    let body: Zeroizing<String> = Zeroizing::new(body.split_whitespace().collect());
    BASE64_STANDARD.decode(body.as_str()).ok().map(Zeroizing::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Millis = 1_700_000_000_000;

    fn terms() -> Terms {
        Terms { issuer: "ordergate".into(), audience: "ordergate-api".into(), seconds: 600 }
    }

    fn keys() -> (tempfile::TempDir, Keys) {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keys::read_or_make(&dir.path().join("key.pem"), terms()).unwrap();
        (dir, keys)
    }

    fn part(json: &str) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(json)
    }

    #[test]
    fn a_token_is_good_for_ten_minutes_and_for_its_session() {
        let (_dir, keys) = keys();
        let token = keys.sign("alice", "alice~0.f", NOW).unwrap();
        let claims = keys.verify(&token, NOW + 599_999).unwrap();
        assert_eq!((claims.sub.as_str(), claims.sid.as_str(), claims.exp - claims.iat), ("alice", "alice~0.f", 600));
        assert_eq!(keys.verify(&token, NOW + 600_000), Err(Forged::Expired));
        assert_eq!(keys.verify(&token, NOW - 5_000).map(|claims| claims.nbf), Ok(NOW / 1_000));
        assert_eq!(keys.verify(&token, NOW - 6_000), Err(Forged::Invalid), "not before its time");
        assert_ne!(claims.jti, keys.verify(&keys.sign("alice", "alice~0.f", NOW).unwrap(), NOW).unwrap().jti);
    }

    #[test]
    fn refuses_other_algorithms_keys_issuers_audiences_and_changed_claims() {
        let (_dir, keys) = keys();
        let (_other_dir, others) = self::keys();
        let token = keys.sign("alice", "alice~0.f", NOW).unwrap();
        let parts: Vec<&str> = token.split('.').collect();
        let none = part(&format!(r#"{{"typ":"at+jwt","alg":"none","kid":"{}"}}"#, keys.id()));
        let elevated = part(&String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(parts[1]).unwrap()).unwrap().replace("alice", "admin"));
        for forged in [
            format!("{none}.{}.", parts[1]),
            format!("{none}.{}.{}", parts[1], parts[2]),
            format!("{}.{elevated}.{}", parts[0], parts[2]),
            format!("{}.{}.", parts[0], parts[1]),
            format!("{}.{}", parts[0], parts[1]),
            format!("{token}A"),
            others.sign("alice", "alice~0.f", NOW).unwrap(),
            String::new(),
            "a.b.c".to_owned(),
        ] {
            assert_eq!(keys.verify(&forged, NOW), Err(Forged::Invalid), "{forged}");
        }
        let elsewhere = |change: fn(&mut Terms)| {
            let mut other = terms();
            change(&mut other);
            Keys { signing: keys.signing.clone(), checking: keys.checking.clone(), id: keys.id.clone(), terms: other }
        };
        assert_eq!(elsewhere(|terms| terms.issuer = "x".into()).verify(&token, NOW), Err(Forged::Invalid));
        assert_eq!(elsewhere(|terms| terms.audience = "x".into()).verify(&token, NOW), Err(Forged::Invalid));
    }

    #[test]
    fn refuses_what_must_be_understood_and_is_not() {
        let (_dir, keys) = keys();
        let token = keys.sign("alice", "alice~0.f", NOW).unwrap();
        let claims = token.split('.').nth(1).unwrap();
        let signed = |more: &str| {
            let header = part(&format!(r#"{{"typ":"{TYPE}","alg":"EdDSA","kid":"{}"{more}}}"#, keys.id()));
            let message = format!("{header}.{claims}");
            let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &keys.signing, Algorithm::EdDSA).unwrap();
            format!("{message}.{signature}")
        };
        assert!(keys.verify(&signed(""), NOW).is_ok());
        for more in [r#","crit":["x"],"x":1"#, r#","crit":[]"#, r#","crit":["exp"]"#] {
            assert_eq!(keys.verify(&signed(more), NOW), Err(Forged::Invalid), "{more}");
        }
    }

    #[test]
    fn refuses_the_public_key_as_a_secret_of_hs256() {
        let (_dir, keys) = keys();
        let token = keys.sign("alice", "alice~0.f", NOW).unwrap();
        let claims = keys.verify(&token, NOW).unwrap();
        let mut header = Header::new(Algorithm::HS256);
        header.kid = Some(keys.id().to_owned());
        header.typ = Some(TYPE.to_owned());
        let public = keys.checking.try_get_as_bytes().unwrap().to_vec();
        for secret in [public.clone(), BASE64_STANDARD.encode(&public).into_bytes(), BASE64_URL_SAFE_NO_PAD.encode(&public).into_bytes()] {
            let forged = encode(&header, &claims, &EncodingKey::from_secret(&secret)).unwrap();
            assert_eq!(keys.verify(&forged, NOW), Err(Forged::Invalid));
        }
    }

    #[test]
    fn refuses_our_own_signature_on_claims_that_are_absent_unknown_or_too_long() {
        let (_dir, keys) = keys();
        let whole = serde_json::to_value(keys.verify(&keys.sign("alice", "s", NOW).unwrap(), NOW).unwrap()).unwrap();
        let sign = |claims: &serde_json::Value| {
            let mut header = Header::new(Algorithm::EdDSA);
            header.kid = Some(keys.id().to_owned());
            header.typ = Some(TYPE.to_owned());
            encode(&header, claims, &keys.signing).unwrap()
        };
        assert!(keys.verify(&sign(&whole), NOW).is_ok());
        for name in ["iss", "aud", "sub", "exp", "nbf", "iat", "jti", "sid"] {
            let mut claims = whole.clone();
            claims.as_object_mut().unwrap().remove(name);
            assert_eq!(keys.verify(&sign(&claims), NOW), Err(Forged::Invalid), "without {name}");
        }
        let mut long = whole.clone();
        long["exp"] = (NOW / 1_000 + 601).into();
        assert_eq!(keys.verify(&sign(&long), NOW), Err(Forged::Invalid));
        let mut more = whole;
        more["role"] = "admin".into();
        assert_eq!(keys.verify(&sign(&more), NOW), Err(Forged::Invalid));
    }

    #[test]
    fn the_key_is_made_once_for_its_owner_only_and_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.pem");
        let first = Keys::read_or_make(&path, terms()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let again = Keys::read_or_make(&path, terms()).unwrap();
        assert!(again.verify(&first.sign("alice", "s", NOW).unwrap(), NOW).is_ok());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(Keys::read(&path, terms()), Err(KeyError::Exposed { .. })));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "no key").unwrap();
        assert!(matches!(Keys::read_or_make(&path, terms()), Err(KeyError::NoKey { .. })));
    }

    /// Made by `openssl genpkey -algorithm ed25519`; the public key by `openssl pkey -pubout`.
    #[test]
    fn reads_a_key_that_openssl_made() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.pem");
        write_private(&path, OPENSSL).unwrap();
        let keys = Keys::read(&path, terms()).unwrap();
        assert_eq!(random::hex(keys.checking.try_get_as_bytes().unwrap()), OPENSSL_PUBLIC);
    }

    const OPENSSL: &str =
        "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIO6xiIGUL2HlBpC9V0uEN1CEJ9daNPKv7niwBcGqnefd\n-----END PRIVATE KEY-----\n";
    const OPENSSL_PUBLIC: &str = "313382db6287afa540b68601e61a81a122c922acd892d5be93c2e2bbb4ab4d48";
}
