//! JSON bodies with secrets in them.
//!
//! Invariant: the bytes are overwritten when the request is done, secrets go straight into memory that is, and a refusal names a field
//! of ours or a place in the body, never what stands there: what serde says repeats values and the names of unknown fields.
//! Deliberately absent: what the HTTP library keeps in its own buffers for as long as the connection lives.

use std::fmt;

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::header;
use http_body_util::BodyExt;
use secrecy::SecretString;
use serde::de::{DeserializeOwned, Error, Visitor};
use serde::{Deserializer, Serialize};
use zeroize::Zeroizing;

use super::json::{is_of_types, of_parent};
use crate::api::body::announced;
use crate::api::guard;
use crate::api::limits::Limits;
use crate::api::problem::{ApiCode, Problem};

/// The longest body: the longest secrets, with every byte escaped, and the rest.
pub const BYTES_MAX: usize = 64 << 10;

/// A body that was read.
pub struct SecretJson<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for SecretJson<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        guard::require_content_type(&parts.headers, &["application/json"])?;
        if parts.headers.get(header::CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
            return Err(Problem::new(ApiCode::UnsupportedMediaType, "send the body without a Content-Encoding"));
        }
        if announced(&parts.headers).is_some_and(|length| length > BYTES_MAX) {
            return Err(too_large());
        }
        let patience = Limits::of(&parts.extensions).read_timeout;
        let late = || Problem::new(ApiCode::BodyTimeout, format!("the body must arrive within {} ms", patience.as_millis()));
        let bytes = tokio::time::timeout(patience, collect(body)).await.unwrap_or_else(|_| Err(late()))?;
        parse(&bytes).map(Self)
    }
}

async fn collect(mut body: Body) -> Result<Zeroizing<Vec<u8>>, Problem> {
    // The whole at once: a vector that grows leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(BYTES_MAX));
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Problem::new(ApiCode::BodyUnreadable, "the body ended early"))?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > BYTES_MAX {
            return Err(too_large());
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

fn too_large() -> Problem {
    Problem::new(ApiCode::BodyTooLarge, format!("a body has at most {BYTES_MAX} bytes"))
}

/// Reads an object, and says of what is wrong only what is ours.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    // serde would take an array for an object.
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err(Problem::new(ApiCode::MalformedBody, "the body is no JSON object"));
    }
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let read = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        refused(&path, error.inner(), bytes)
    })?;
    reader.end().map_err(|error| refused("", &error, bytes))?;
    Ok(read)
}

fn refused(path: &str, error: &serde_json::Error, bytes: &[u8]) -> Problem {
    let at = format!("line {}, column {}", error.line(), error.column());
    if !is_of_types(error, bytes) {
        return Problem::new(ApiCode::MalformedBody, format!("the body is no JSON object: {at}"));
    }
    let words = error.to_string();
    if let Some(field) = of_parent(&words) {
        let what = if words.starts_with("missing") { "it is missing" } else { "it is given twice" };
        return Problem::new(ApiCode::InvalidField, what).field(field);
    }
    // Of the words about a field that is not known, those behind the last comma are ours, and name the ones that are.
    match words.strip_prefix("unknown field `").and_then(|rest| rest.rsplit_once("`, expected ")) {
        Some((_, known)) => {
            let known = known.split(" at line ").next().unwrap_or_default();
            Problem::new(ApiCode::InvalidField, format!("a field that is not known: {at}; expected {known}"))
        }
        None => Problem::new(ApiCode::InvalidField, format!("not of its type, or not one of its words: {at}")).field(path),
    }
}

/// For fields that are secrets: `#[serde(deserialize_with = "secret")]`.
///
/// # Errors
/// It is no text.
pub fn secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SecretString, D::Error> {
    deserializer.deserialize_str(Text)
}

/// For secrets that may be absent or null.
///
/// # Errors
/// It is no text.
pub fn optional_secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SecretString>, D::Error> {
    deserializer.deserialize_option(Optional)
}

struct Text;

impl Visitor<'_> for Text {
    type Value = SecretString;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<SecretString, E> {
        Ok(SecretString::from(Box::<str>::from(text)))
    }
}

struct Optional;

impl<'de> Visitor<'de> for Optional {
    type Value = Option<SecretString>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, or null")
    }

    fn visit_none<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        secret(deserializer).map(Some)
    }
}

/// Writes an answer that holds secrets into memory that is overwritten when it was sent, and that nobody on the way keeps.
pub fn answer(value: &impl Serialize) -> Result<axum::response::Response, Problem> {
    use axum::response::IntoResponse;
    let failed = |_| Problem::new(ApiCode::Internal, "the answer could not be written");
    let mut json = Zeroizing::new(Vec::with_capacity(BYTES_MAX));
    serde_json::to_writer(&mut *json, value).map_err(failed)?;
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store"), (header::PRAGMA, "no-cache")];
    Ok((headers, Body::from(axum::body::Bytes::from_owner(json))).into_response())
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Given {
        name: String,
        #[serde(deserialize_with = "secret")]
        secret: SecretString,
        #[serde(default, deserialize_with = "optional_secret")]
        passphrase: Option<SecretString>,
    }

    #[test]
    fn secrets_are_read_with_their_escapes() {
        let given: Given = parse(br#" {"name":"n","secret":"a\u0041\n\"","passphrase":null}"#).unwrap();
        assert_eq!((given.name.as_str(), given.secret.expose_secret(), given.passphrase.is_none()), ("n", "aA\n\"", true));
        assert_eq!(parse::<Given>(br#"{"name":"n","secret":"a","passphrase":"p"}"#).unwrap().passphrase.unwrap().expose_secret(), "p");
    }

    #[test]
    fn no_refusal_repeats_anything_of_the_body() {
        for (body, code, field) in [
            ("canary", ApiCode::MalformedBody, None),
            (r#"["canary"]"#, ApiCode::MalformedBody, None),
            (r#"{"name":"n","secret":"canary""#, ApiCode::MalformedBody, None),
            (r#"{"name":"n","secret":"canary"} canary"#, ApiCode::MalformedBody, None),
            (r#"{"name":"n","secret":"canary\x"}"#, ApiCode::MalformedBody, None),
            (r#"{"name":"n","canary":"canary"}"#, ApiCode::InvalidField, None),
            (r#"{"name":"n","missing field `canary`":"canary"}"#, ApiCode::InvalidField, None),
            (r#"{"name":"n","x`, expected `canary`":1}"#, ApiCode::InvalidField, None),
            (r#"{"name":["canary"],"secret":"canary"}"#, ApiCode::InvalidField, Some("name")),
            (r#"{"name":"n","secret":{"canary":1}}"#, ApiCode::InvalidField, Some("secret")),
            (r#"{"name":"n","secret":"canary","passphrase":["canary"]}"#, ApiCode::InvalidField, Some("passphrase")),
            (r#"{"name":"n","secret":"canary","secret":"canary"}"#, ApiCode::InvalidField, Some("secret")),
            (r#"{"secret":"canary"}"#, ApiCode::InvalidField, Some("name")),
            (r#"{"name":"n"}"#, ApiCode::InvalidField, Some("secret")),
        ] {
            let problem = parse::<Given>(body.as_bytes()).err().unwrap();
            let said = problem.body().to_string();
            assert!(!said.contains("canary"), "{said}");
            let lists = said.contains("not known");
            assert!(!lists || said.contains("expected one of `name`, `secret`, `passphrase`\""), "{said}");
            assert_eq!((problem.code(), problem.body()["field"].as_str()), (code, field), "{body}: {said}");
        }
    }
}
