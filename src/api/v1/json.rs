//! JSON bodies, read strictly.
//!
//! Invariant: a body is an object of its type and nothing more; what is wrong is told with the field's path. serde would take arrays
//! for objects; here they are refused. Deliberately absent: bodies of any size; what is asked for here is small.

use std::fmt;
use std::marker::PhantomData;

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, Error, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::api::limits::{Gauge, Limits};
use crate::api::problem::{ApiCode, Problem};
use crate::api::{body, guard};

/// The longest body.
pub const BYTES_MAX: usize = 256 << 10;

/// A body that was read: what it says, and its bytes.
pub struct Json<T> {
    /// What it says.
    pub value: T,
    /// Its bytes, as they came.
    pub bytes: Vec<u8>,
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let bytes = bytes(request).await?;
        let value = parse(&bytes)?;
        Ok(Self { value, bytes })
    }
}

/// A body that may be left out: then it is as if it were `{}`.
pub struct OptionalJson<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for OptionalJson<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let bytes = read(&parts, body).await?;
        if bytes.is_empty() && !parts.headers.contains_key(header::CONTENT_TYPE) {
            return parse(b"{}").map(Self);
        }
        require_json(&parts)?;
        parse(&bytes).map(Self)
    }
}

/// The bytes of a small body that says it is JSON.
async fn bytes(request: Request) -> Result<Vec<u8>, Problem> {
    let (parts, body) = request.into_parts();
    require_json(&parts)?;
    read(&parts, body).await
}

fn require_json(parts: &Parts) -> Result<(), Problem> {
    guard::require_content_type(&parts.headers, &["application/json"])
}

async fn read(parts: &Parts, body: Body) -> Result<Vec<u8>, Problem> {
    small(parts, body, BYTES_MAX).await
}

/// A body of any type, of so many bytes at most.
pub(super) async fn small(parts: &Parts, body: Body, bytes_max: usize) -> Result<Vec<u8>, Problem> {
    let limits = Limits { body_bytes_max: bytes_max, ..Limits::of(&parts.extensions) };
    Ok(body::read(&parts.headers, body, &limits, &Gauge::default()).await?.bytes)
}

/// Reads an object. Straight from the bytes: whoever collects its fields first no longer sees which came twice.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let malformed = |why: &dyn fmt::Display| Problem::new(ApiCode::MalformedBody, format!("the body is no JSON object: {why}"));
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err(malformed(&"it does not begin with {"));
    }
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let read = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        if !is_of_types(error.inner(), bytes) {
            return malformed(error.inner());
        }
        let problem = Problem::new(ApiCode::InvalidField, error.inner().to_string());
        match field_at_fault(&error.path().to_string(), &error.inner().to_string()) {
            Some(field) => problem.field(&field),
            None => problem,
        }
    })?;
    reader.end().map_err(|error| malformed(&error))?;
    Ok(read)
}

/// Whether types are what is wrong, and not the JSON: the library also calls it wrong JSON where a word is asked for and a number stands.
pub(super) fn is_of_types(error: &serde_json::Error, bytes: &[u8]) -> bool {
    error.is_data() || serde_json::from_slice::<IgnoredAny>(bytes).is_ok()
}

/// The field that a refusal is about. Of one that is missing or comes twice, the path leads only to the object that should have it.
fn field_at_fault(path: &str, words: &str) -> Option<String> {
    let parent = if path == "." { "" } else { path };
    match (of_parent(words), parent) {
        (Some(name), "") => Some(name.to_owned()),
        (Some(name), parent) => Some(format!("{parent}.{name}")),
        (None, "") => None,
        (None, path) => Some(path.to_owned()),
    }
}

/// The field that the derived code says is missing or comes twice. Only that code says these words, and with a name of ours.
pub(super) fn of_parent(words: &str) -> Option<&str> {
    let rest = ["missing field `", "duplicate field `"].into_iter().find_map(|beginning| words.strip_prefix(beginning));
    rest?.split('`').next()
}

/// For fields that are objects themselves: `#[serde(deserialize_with = "object")]`.
///
/// # Errors
/// It is no object of its type.
pub fn object<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<T, D::Error> {
    deserializer.deserialize_map(OnlyMap(PhantomData))
}

/// The same for fields that may be absent or `null`.
///
/// # Errors
/// It is no object of its type.
pub fn optional_object<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<Option<T>, D::Error> {
    struct Object<T>(T);
    impl<'de, T: DeserializeOwned> Deserialize<'de> for Object<T> {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            object(deserializer).map(Self)
        }
    }
    Ok(Option::<Object<T>>::deserialize(deserializer)?.map(|Object(value)| value))
}

/// Reads what is read from a map from nothing else. The fields' paths go on into it.
struct OnlyMap<T>(PhantomData<T>);

impl<'de, T: DeserializeOwned> Visitor<'de> for OnlyMap<T> {
    type Value = T;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map))
    }
}

/// An object whose fields somebody else judges: each comes once.
#[derive(Debug)]
pub struct Fields(pub Map<String, Value>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EachOnce)
    }
}

struct EachOnce;

impl<'de> Visitor<'de> for EachOnce {
    type Value = Fields;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
        let mut fields = Map::new();
        while let Some((name, value)) = map.next_entry::<String, Value>()? {
            if fields.contains_key(&name) {
                return Err(A::Error::custom(format_args!("duplicate field `{name}`")));
            }
            fields.insert(name, value);
        }
        Ok(Fields(fields))
    }
}

/// For texts that may not be empty: `#[serde(deserialize_with = "filled")]`.
///
/// # Errors
/// It is empty, or no text.
pub fn filled<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty() { Err(D::Error::custom("may not be empty")) } else { Ok(text) }
}

/// An answer in JSON.
pub fn answer(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(json) => (status, [(header::CONTENT_TYPE, "application/json")], json).into_response(),
        Err(_) => Problem::new(ApiCode::Internal, "the answer could not be written").into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        name: String,
        #[serde(deserialize_with = "object")]
        inner: Inner,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        number: u32,
        #[serde(default)]
        word: Option<Word>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Word {
        Up,
    }

    #[test]
    fn takes_objects_and_refuses_arrays_unknown_fields_and_wrong_types_with_their_path() {
        assert_eq!(
            parse::<Outer>(br#"{"name":"a","inner":{"number":1}}"#).unwrap(),
            Outer { name: "a".into(), inner: Inner { number: 1, word: None } }
        );
        for (body, code, field) in [
            (&br#"["a",[1]]"#[..], ApiCode::MalformedBody, None),
            (br#"{"name":"a","inner":[1]}"#, ApiCode::InvalidField, Some("inner")),
            (br#"{"name":1,"inner":{"number":1}}"#, ApiCode::InvalidField, Some("name")),
            (br#"{"name":"a","inner":{"number":1,"x":2}}"#, ApiCode::InvalidField, Some("inner.x")),
            (br#"{"name":"a","inner":{"number":1},"x":1}"#, ApiCode::InvalidField, Some("x")),
            (br#"{"inner":{"number":1}}"#, ApiCode::InvalidField, Some("name")),
            (br#"{"name":"a","inner":{}}"#, ApiCode::InvalidField, Some("inner.number")),
            (br#"{"name":"a","name":"b","inner":{"number":1}}"#, ApiCode::InvalidField, Some("name")),
            (br#"{"name":"a","inner":{"number":1,"number":1}}"#, ApiCode::InvalidField, Some("inner.number")),
            (br#"{"name":"a","inner":{"number":1}} {}"#, ApiCode::MalformedBody, None),
            (br#"{"name":"a","inner":{"number":1,"word":1}}"#, ApiCode::InvalidField, Some("inner.word")),
            (br#"{"name":"a","inner":{"number":1,"word":["up"]}}"#, ApiCode::InvalidField, Some("inner.word")),
            (br#"{"name":"a","inner":{"number":1,"word":1}"#, ApiCode::MalformedBody, None),
            (b"{", ApiCode::MalformedBody, None),
            (b"\"\xff\"", ApiCode::MalformedBody, None),
            (b"", ApiCode::MalformedBody, None),
        ] {
            let problem = parse::<Outer>(body).unwrap_err();
            let said = problem.body();
            assert_eq!((problem.code(), said.get("field").and_then(Value::as_str)), (code, field), "{said}");
        }
        let word = Inner { number: 1, word: Some(Word::Up) };
        assert_eq!(parse::<Outer>(br#"{"name":"a","inner":{"number":1,"word":"up"}}"#).unwrap().inner, word);
        assert_eq!(parse::<Fields>(br#"{"a":1,"b":null}"#).unwrap().0.len(), 2);
        assert_eq!(parse::<Fields>(br#"{"a":1,"b":2,"a":1}"#).unwrap_err().body()["field"], "a");
    }
}
