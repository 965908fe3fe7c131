//! Records of `gate.directory`: the key `kind:id@version:nonce`, the value `{kind,id,version,nonce,at,actor,body}`.
//!
//! Invariant: whatever stands in the topic is a change or a named refusal; key and value say the same; what is encoded here is
//! decoded to the same. An empty value is a tombstone; `"body":null` says that the entity is erased, and is itself no tombstone.
//! Deliberately absent: what a body means. It is one JSON value, kept byte by byte.

use std::fmt;

use crate::directory::{ACTOR_BYTES_MAX, BODY_BYTES_MAX, Change, Entity, ID_BYTES_MAX, Key, Kind, VERSION_MAX};

use super::read::{Kind as JsonKind, Raw, Reader};
use super::write;

/// A value has at most so many bytes: a body, and an envelope in which every byte may be an escape.
pub const VALUE_BYTES_MAX: usize = BODY_BYTES_MAX + 6 * (ID_BYTES_MAX + ACTOR_BYTES_MAX) + 256;

/// Why a record of `gate.directory` is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DirectoryRefusal {
    /// It has no key.
    #[error("it has no key")]
    NoKey,
    /// Its key is not `kind:id@version:nonce`.
    #[error("its key is not kind:id@version:nonce: {what}")]
    Key {
        /// What is wrong with it.
        what: &'static str,
    },
    /// Its value is too long.
    #[error("its value has {bytes} bytes")]
    TooLarge {
        /// How long it is.
        bytes: usize,
    },
    /// Its value is no JSON object.
    #[error("its value is no JSON object: {what} at byte {at}")]
    NotJson {
        /// The place in the value.
        at: usize,
        /// What is wrong there.
        what: &'static str,
    },
    /// A field that it does not have.
    #[error("its value has a field that is not known")]
    Stranger,
    /// A field is there twice.
    #[error("`{field}` is given twice")]
    Twice {
        /// Its name.
        field: Field,
    },
    /// A field is missing.
    #[error("`{field}` is missing")]
    Missing {
        /// Its name.
        field: Field,
    },
    /// A field is not what it must be.
    #[error("`{field}` must be {what}")]
    Wrong {
        /// Its name.
        field: Field,
        /// What it must be.
        what: &'static str,
    },
    /// Key and value do not say the same.
    #[error("`{field}` is another one in the key")]
    Disagrees {
        /// Where they differ.
        field: Field,
    },
}

impl DirectoryRefusal {
    /// All that [`DirectoryRefusal::code`] says.
    pub const CODES: [&'static str; 9] = [
        "DIRECTORY_NO_KEY",
        "DIRECTORY_KEY",
        "DIRECTORY_TOO_LARGE",
        "DIRECTORY_NOT_JSON",
        "DIRECTORY_STRANGER",
        "DIRECTORY_TWICE",
        "DIRECTORY_MISSING",
        "DIRECTORY_WRONG",
        "DIRECTORY_DISAGREES",
    ];

    /// A stable name of it.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NoKey => "DIRECTORY_NO_KEY",
            Self::Key { .. } => "DIRECTORY_KEY",
            Self::TooLarge { .. } => "DIRECTORY_TOO_LARGE",
            Self::NotJson { .. } => "DIRECTORY_NOT_JSON",
            Self::Stranger => "DIRECTORY_STRANGER",
            Self::Twice { .. } => "DIRECTORY_TWICE",
            Self::Missing { .. } => "DIRECTORY_MISSING",
            Self::Wrong { .. } => "DIRECTORY_WRONG",
            Self::Disagrees { .. } => "DIRECTORY_DISAGREES",
        }
    }
}

/// A field of the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// `kind`
    Kind,
    /// `id`
    Id,
    /// `version`
    Version,
    /// `nonce`
    Nonce,
    /// `at`
    At,
    /// `actor`
    Actor,
    /// `body`
    Body,
}

impl Field {
    const ALL: [Self; 7] = [Self::Kind, Self::Id, Self::Version, Self::Nonce, Self::At, Self::Actor, Self::Body];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Kind => "kind",
            Self::Id => "id",
            Self::Version => "version",
            Self::Nonce => "nonce",
            Self::At => "at",
            Self::Actor => "actor",
            Self::Body => "body",
        }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The bytes of a key.
#[must_use]
pub fn encode_key(key: &Key) -> Vec<u8> {
    let Key { kind, id, version, nonce } = key;
    format!("{kind}:{id}@{version}:{nonce:016x}").into_bytes()
}

/// The value of an entity's record.
#[must_use]
pub fn encode_value(entity: &Entity) -> Vec<u8> {
    let mut out = Vec::with_capacity(entity.body.len() + entity.id.len() + entity.actor.len() + 160);
    write::plain(&mut out, "{\"kind\":\"", entity.kind.as_str().as_bytes(), "\",\"id\":");
    write::string(&mut out, &entity.id);
    write::raw(&mut out, ",\"version\":");
    write::natural(&mut out, entity.version);
    write::plain(&mut out, ",\"nonce\":\"", format!("{:016x}", entity.nonce).as_bytes(), "\",\"at\":");
    write::integer(&mut out, entity.at);
    write::raw(&mut out, ",\"actor\":");
    write::string(&mut out, &entity.actor);
    let body: &[u8] = if entity.is_erased() { b"null" } else { &entity.body };
    write::plain(&mut out, ",\"body\":", body, "}");
    out
}

/// What a record says.
///
/// # Errors
/// It says nothing that can be told.
pub fn decode(key: Option<&[u8]>, value: &[u8]) -> Result<Change, DirectoryRefusal> {
    let key = decode_key(key.ok_or(DirectoryRefusal::NoKey)?)?;
    if value.is_empty() {
        return Ok(Change::Tombstone(key));
    }
    let entity = decode_value(value)?;
    let disagrees = |field| Err(DirectoryRefusal::Disagrees { field });
    match entity.key() {
        of_value if of_value == key => Ok(Change::State(entity)),
        of_value if of_value.kind != key.kind => disagrees(Field::Kind),
        of_value if of_value.id != key.id => disagrees(Field::Id),
        of_value if of_value.version != key.version => disagrees(Field::Version),
        _ => disagrees(Field::Nonce),
    }
}

/// Reads a key. An id may hold what separates the others.
///
/// # Errors
/// It is none.
pub fn decode_key(key: &[u8]) -> Result<Key, DirectoryRefusal> {
    let wrong = |what| DirectoryRefusal::Key { what };
    let text = std::str::from_utf8(key).map_err(|_| wrong("not UTF-8"))?;
    let (kind, rest) = text.split_once(':').ok_or(wrong("no colon"))?;
    let (rest, nonce) = rest.rsplit_once(':').ok_or(wrong("no nonce"))?;
    let (id, version) = rest.rsplit_once('@').ok_or(wrong("no version"))?;
    let kind = Kind::parse(kind).ok_or(wrong("not a kind"))?;
    if id.len() > ID_BYTES_MAX {
        return Err(wrong("the id is too long"));
    }
    let version = version_of(version.as_bytes()).ok_or(wrong("not a version"))?;
    let nonce = nonce_of(nonce.as_bytes()).ok_or(wrong("the nonce is not 16 hex digits"))?;
    Ok(Key { kind, id: id.to_owned(), version, nonce })
}

fn decode_value(value: &[u8]) -> Result<Entity, DirectoryRefusal> {
    if value.len() > VALUE_BYTES_MAX {
        return Err(DirectoryRefusal::TooLarge { bytes: value.len() });
    }
    let found = Found::read(value)?;
    let (kind, id) = (found.text(Field::Kind)?, found.text(Field::Id)?);
    let kind = Kind::parse(&kind).ok_or(wrong(Field::Kind, "a kind that is known"))?;
    let actor = found.text(Field::Actor)?;
    if id.len() > ID_BYTES_MAX {
        return Err(wrong(Field::Id, "at most 512 bytes long"));
    }
    if actor.len() > ACTOR_BYTES_MAX {
        return Err(wrong(Field::Actor, "at most 512 bytes long"));
    }
    let version = version_of(found.number(Field::Version)?).ok_or(wrong(Field::Version, "an integer from 1 to 2^53 - 1"))?;
    let nonce = nonce_of(found.text(Field::Nonce)?.as_bytes()).ok_or(wrong(Field::Nonce, "16 hex digits in lower case"))?;
    let at = std::str::from_utf8(found.number(Field::At)?).ok().and_then(|text| text.parse().ok());
    let at = at.ok_or(wrong(Field::At, "milliseconds since the epoch"))?;
    Ok(Entity { kind, id, version, nonce, at, actor, body: found.body()?.into() })
}

const fn wrong(field: Field, what: &'static str) -> DirectoryRefusal {
    DirectoryRefusal::Wrong { field, what }
}

/// From 1 to [`VERSION_MAX`], without signs and leading zeros.
fn version_of(text: &[u8]) -> Option<u64> {
    if !matches!(text.first(), Some(b'1'..=b'9')) || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok().filter(|version| *version <= VERSION_MAX)
}

/// 16 hex digits in lower case, so that there is one spelling.
fn nonce_of(text: &[u8]) -> Option<u64> {
    let is_ours = |digit: &u8| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
    if text.len() != 16 || !text.iter().all(is_ours) {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(text).ok()?, 16).ok()
}

/// The fields of a value, each once.
struct Found<'a> {
    text: &'a [u8],
    fields: [Raw; Field::ALL.len()],
}

impl<'a> Found<'a> {
    fn read(text: &'a [u8]) -> Result<Self, DirectoryRefusal> {
        let mut fields = [Raw::default(); Field::ALL.len()];
        let mut odd = None;
        let member = |name: Raw, value: Raw| {
            let name = name.text(text).unwrap_or_default();
            match Field::ALL.iter().position(|field| field.as_str().as_bytes() == name.as_ref()) {
                Some(place) if fields[place].kind() == JsonKind::Absent => fields[place] = value,
                Some(place) => odd = odd.take().or(Some(DirectoryRefusal::Twice { field: Field::ALL[place] })),
                None => odd = odd.take().or(Some(DirectoryRefusal::Stranger)),
            }
        };
        Reader::object(text, member).map_err(|error| DirectoryRefusal::NotJson { at: error.at, what: error.what })?;
        if let Some(odd) = odd {
            return Err(odd);
        }
        let absent = Field::ALL.into_iter().find(|field| fields[*field as usize].kind() == JsonKind::Absent);
        absent.map_or(Ok(Self { text, fields }), |field| Err(DirectoryRefusal::Missing { field }))
    }

    fn text(&self, field: Field) -> Result<String, DirectoryRefusal> {
        let text = self.fields[field as usize].text(self.text).ok_or(wrong(field, "a string"))?;
        String::from_utf8(text.into_owned()).map_err(|_| wrong(field, "a string"))
    }

    fn number(&self, field: Field) -> Result<&'a [u8], DirectoryRefusal> {
        let raw = self.fields[field as usize];
        if raw.kind() == JsonKind::Number { Ok(raw.of(self.text)) } else { Err(wrong(field, "an integer")) }
    }

    /// The body's bytes as they stand; none of one that is erased.
    fn body(&self) -> Result<&'a [u8], DirectoryRefusal> {
        let raw = self.fields[Field::Body as usize];
        let body = match raw.kind() {
            JsonKind::Null => &[],
            JsonKind::Object | JsonKind::Array | JsonKind::Number | JsonKind::True | JsonKind::False => raw.of(self.text),
            // The span is what the quotes enclose.
            JsonKind::Text | JsonKind::Escaped => &self.text[raw.start() - 1..raw.start() + raw.len() + 1],
            JsonKind::Absent | JsonKind::Twice => return Err(wrong(Field::Body, "a value")),
        };
        if body.len() > BODY_BYTES_MAX { Err(wrong(Field::Body, "at most 192 KiB long")) } else { Ok(body) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entity() -> Entity {
        let body = br#"{"name":"Bo","n":[1,2.50]}"#.as_slice().into();
        Entity { kind: Kind::User, id: "bob".into(), version: 3, nonce: 0xab, at: 1_772_811_000_123, actor: "cli".into(), body }
    }

    const KEY: &[u8] = b"user:bob@3:00000000000000ab";

    #[track_caller]
    fn refused(key: &[u8], value: &str) -> String {
        decode(Some(key), value.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn a_record_is_written_as_the_contract_says() {
        assert_eq!(encode_key(&entity().key()), KEY);
        let value = String::from_utf8(encode_value(&entity())).unwrap();
        let wanted = r#"{"kind":"user","id":"bob","version":3,"nonce":"00000000000000ab","at":1772811000123,"actor":"cli","body":{"name":"Bo","n":[1,2.50]}}"#;
        assert_eq!(value, wanted);
        let erased = Entity { body: [].into(), ..entity() };
        assert!(encode_value(&erased).ends_with(b",\"body\":null}"));
        assert_eq!(decode(Some(KEY), &encode_value(&erased)), Ok(Change::State(erased)));
        assert_eq!(decode(Some(KEY), b""), Ok(Change::Tombstone(entity().key())));
    }

    #[test]
    fn an_id_may_hold_what_separates_the_others() {
        for id in ["", ":", "@", "a@7:b", "user:a@1:00000000000000ab", "Zoë \"x\"\n\u{1}"] {
            let entity = Entity { id: id.into(), ..entity() };
            assert_eq!(decode(Some(&encode_key(&entity.key())), &encode_value(&entity)), Ok(Change::State(entity)), "{id}");
        }
    }

    #[test]
    fn says_what_is_wrong_with_a_key() {
        let cases: [(&[u8], &str); 10] = [
            (b"", "no colon"),
            (b"user", "no colon"),
            (b"user:bob", "no nonce"),
            (b"user:bob:00000000000000ab", "no version"),
            (b"usr:bob@3:00000000000000ab", "not a kind"),
            (b"user:bob@0:00000000000000ab", "not a version"),
            (b"user:bob@03:00000000000000ab", "not a version"),
            (b"user:bob@9007199254740992:00000000000000ab", "not a version"),
            (b"user:bob@3:00000000000000AB", "the nonce is not 16 hex digits"),
            (b"user:\xff@3:00000000000000ab", "not UTF-8"),
        ];
        for (key, what) in cases {
            assert_eq!(decode(Some(key), b""), Err(DirectoryRefusal::Key { what }), "{}", String::from_utf8_lossy(key));
        }
        assert_eq!(decode(None, b""), Err(DirectoryRefusal::NoKey));
        let long = format!("user:{}@3:00000000000000ab", "x".repeat(ID_BYTES_MAX + 1));
        assert_eq!(decode(Some(long.as_bytes()), b""), Err(DirectoryRefusal::Key { what: "the id is too long" }));
    }

    #[test]
    fn says_what_is_wrong_with_a_value() {
        let good = String::from_utf8(encode_value(&entity())).unwrap();
        let with = |what: &str, by: &str| {
            assert!(good.contains(what), "{what}");
            good.replace(what, by)
        };
        let cases = [
            ("[]".to_owned(), "its value is no JSON object: expected an object at byte 0"),
            (good[..good.len() - 1].to_owned(), "its value is no JSON object: expected a comma or the end at byte 131"),
            (with(r#""actor":"cli","#, ""), "`actor` is missing"),
            (with(r#""actor":"cli","#, r#""actor":"cli","actor":"cli","#), "`actor` is given twice"),
            (with(r#""actor":"cli","#, r#""actor":"cli","x":1,"#), "its value has a field that is not known"),
            (with(r#""actor":"cli","#, r#""actor":7,"#), "`actor` must be a string"),
            (with(r#""actor":"cli","#, r#""actor":null,"#), "`actor` must be a string"),
            (with(r#""kind":"user""#, r#""kind":"usr""#), "`kind` must be a kind that is known"),
            (with(r#""kind":"user""#, r#""kind":"kek""#), "`kind` is another one in the key"),
            (with(r#""id":"bob""#, r#""id":"bo""#), "`id` is another one in the key"),
            (with(r#""version":3"#, r#""version":4"#), "`version` is another one in the key"),
            (with("0000ab", "0000ac"), "`nonce` is another one in the key"),
            (with("0000ab", "0000AB"), "`nonce` must be 16 hex digits in lower case"),
            (with(r#""version":3"#, r#""version":"3""#), "`version` must be an integer"),
            (with(r#""version":3"#, r#""version":3.0"#), "`version` must be an integer from 1 to 2^53 - 1"),
            (with(r#""version":3"#, r#""version":-3"#), "`version` must be an integer from 1 to 2^53 - 1"),
            (with("1772811000123", "1e9"), "`at` must be milliseconds since the epoch"),
            (with("1772811000123", "99999999999999999999"), "`at` must be milliseconds since the epoch"),
        ];
        for (value, what) in cases {
            assert_eq!(refused(KEY, &value), what, "{value}");
        }
        let long = Entity { body: format!("\"{}\"", "x".repeat(BODY_BYTES_MAX - 1)).into_bytes().into(), ..entity() };
        assert_eq!(decode(Some(KEY), &encode_value(&long)), Err(wrong(Field::Body, "at most 192 KiB long")));
        let huge = vec![b' '; VALUE_BYTES_MAX + 1];
        assert_eq!(decode(Some(KEY), &huge), Err(DirectoryRefusal::TooLarge { bytes: huge.len() }));
    }

    #[test]
    fn any_json_value_is_a_body_but_null() {
        for body in [r#"{"a":{"b":[]}}"#, "[]", "\"\"", "\"a\\u00e9\\\"\"", "-0.5e7", "true", "false"] {
            let entity = Entity { body: body.as_bytes().into(), ..entity() };
            assert_eq!(decode(Some(KEY), &encode_value(&entity)), Ok(Change::State(entity)), "{body}");
        }
        for body in ["", " ", "null", "x", "{}{}", "{},\"body\":1", "\"\n\""] {
            let entity = Entity { body: body.as_bytes().into(), ..entity() };
            let decoded = decode(Some(KEY), &encode_value(&entity));
            assert_eq!(decoded.ok() == Some(Change::State(entity)), body.is_empty(), "{body}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics_and_what_is_decoded_is_encoded_to_what_decodes_alike(key: Vec<u8>, value: Vec<u8>, id: String, actor: String, version in 1..=VERSION_MAX, nonce: u64, at: i64) {
            let _ = decode(Some(&key), &value);
            let _ = decode(Some(KEY), &value);
            let entity = Entity { id, version, nonce, at, actor, ..entity() };
            let decoded = decode(Some(&encode_key(&entity.key())), &encode_value(&entity));
            prop_assert_eq!(decoded, Ok(Change::State(entity)));
        }

        #[test]
        fn a_value_with_one_byte_changed_is_the_same_or_refused_or_says_something_else(at in 0_usize..131, byte: u8) {
            let mut value = encode_value(&entity());
            let place = at % value.len();
            let was = std::mem::replace(&mut value[place], byte);
            if let Ok(Change::State(decoded)) = decode(Some(KEY), &value) {
                // Only the time, the actor and the body can be changed without the key.
                prop_assert_eq!(decoded.key(), entity().key());
                prop_assert!(was == byte || decoded != entity() || byte.is_ascii_whitespace() || was.is_ascii_whitespace());
            }
        }
    }
}
