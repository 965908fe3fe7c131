//! Lines of event logs, in the form that `kcat -J` writes: one JSON object a line.
//!
//! Invariant: an object that is given as the payload keeps its bytes. Fields that we do not know are
//! passed over, since kcat writes some. Deliberately absent: which topics are inputs, and files.

use std::borrow::Cow;

use crate::domain::Millis;

use super::frame::Routing;
use super::key::Key;
use super::read::{Kind, Raw, Reader};
use super::write;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// The topic, as the line names it.
    pub topic: Cow<'a, str>,
    /// The partition, if it is given.
    pub partition: Option<u32>,
    /// The offset, if it is given.
    pub offset: Option<u64>,
    /// The record's timestamp in ms. A replay needs it; HTTP does not.
    pub ts: Option<Millis>,
    /// The gate's clock when the record was sequenced.
    pub received: Option<Millis>,
    /// What it was to the shard that applied it, as a dump of a ledger tells.
    pub routing: Routing,
    /// The record's key; `None` also when it is `null`.
    pub key: Option<Cow<'a, [u8]>>,
    /// The record's value; empty when it is `null`.
    pub payload: Cow<'a, [u8]>,
}

impl Line<'_> {
    /// The record's timestamp, or what is wrong without one.
    pub fn time(&self) -> Result<Millis, LineError> {
        self.ts.ok_or(LineError::Missing { field: "ts" })
    }
}

/// Why a line is no record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// It is not one JSON object.
    #[error("not a JSON object: {what} at byte {at}")]
    NotJson {
        /// The place in the line.
        at: usize,
        /// What is wrong there.
        what: &'static str,
    },
    /// A field is not there.
    #[error("`{field}` is missing")]
    Missing {
        /// Its name.
        field: &'static str,
    },
    /// A field is there twice.
    #[error("`{field}` is given twice")]
    Twice {
        /// Its name.
        field: &'static str,
    },
    /// A field is not what it should be.
    #[error("`{field}` must be {what}")]
    Wrong {
        /// Its name.
        field: &'static str,
        /// What it should be.
        what: &'static str,
    },
}

impl LineError {
    /// The field at fault, where one is.
    #[must_use]
    pub fn field(&self) -> Option<&'static str> {
        match self {
            Self::NotJson { .. } => None,
            Self::Missing { field } | Self::Twice { field } | Self::Wrong { field, .. } => Some(field),
        }
    }
}

const FIELDS: usize = 8;

/// Reads a line (without its newline, or with it).
pub fn parse_line(line: &[u8]) -> Result<Line<'_>, LineError> {
    let mut found = [Raw::default(); FIELDS];
    let mut twice = None;
    let members = |name: Raw, value: Raw| {
        let Some((key, place)) = name.text(line).and_then(|name| Key::find(&name)).and_then(|key| Some((key, place_of(key)?))) else {
            return;
        };
        if found[place].kind() == Kind::Absent {
            found[place] = value;
        } else {
            twice = Some(key.as_str());
        }
    };
    Reader::object(line, members).map_err(|error| LineError::NotJson { at: error.at, what: error.what })?;
    if let Some(field) = twice {
        return Err(LineError::Twice { field });
    }
    let [topic, partition, offset, ts, received, routing, key, payload] = found;
    Ok(Line {
        topic: topic_text(line, topic)?,
        partition: number(line, partition, "partition", "an integer from 0 to 4294967295")?,
        offset: number(line, offset, "offset", "an integer not below 0")?,
        ts: number(line, ts, "ts", "milliseconds since the epoch")?,
        received: number(line, received, "received", "milliseconds since the epoch")?,
        routing: routing_of(line, routing)?,
        key: key_bytes(line, key)?,
        payload: payload_bytes(line, payload)?,
    })
}

fn place_of(key: Key) -> Option<usize> {
    const ORDER: [Key; FIELDS] = [Key::Topic, Key::Partition, Key::Offset, Key::Ts, Key::Received, Key::Routing, Key::Keyed, Key::Payload];
    ORDER.iter().position(|known| *known == key)
}

fn topic_text(line: &[u8], raw: Raw) -> Result<Cow<'_, str>, LineError> {
    const WRONG: LineError = LineError::Wrong { field: "topic", what: "a string" };
    match raw.text(line) {
        Some(Cow::Borrowed(text)) => std::str::from_utf8(text).map(Cow::Borrowed).map_err(|_| WRONG),
        Some(Cow::Owned(text)) => String::from_utf8(text).map(Cow::Owned).map_err(|_| WRONG),
        None if raw.kind() == Kind::Absent || raw.kind() == Kind::Null => Err(LineError::Missing { field: "topic" }),
        None => Err(WRONG),
    }
}

fn number<T: std::str::FromStr>(line: &[u8], raw: Raw, field: &'static str, what: &'static str) -> Result<Option<T>, LineError> {
    match raw.kind() {
        Kind::Absent | Kind::Null => Ok(None),
        Kind::Number => {
            let number = std::str::from_utf8(raw.of(line)).ok().and_then(|digits| digits.parse().ok());
            number.map(Some).ok_or(LineError::Wrong { field, what })
        }
        Kind::Twice | Kind::True | Kind::False | Kind::Text | Kind::Escaped | Kind::Object | Kind::Array => {
            Err(LineError::Wrong { field, what })
        }
    }
}

fn routing_of(line: &[u8], raw: Raw) -> Result<Routing, LineError> {
    const WRONG: LineError = LineError::Wrong { field: "routing", what: "here, misrouted, elsewhere or quiet" };
    match raw.text(line) {
        Some(text) => Routing::ALL.into_iter().find(|routing| routing.as_str().as_bytes() == text.as_ref()).ok_or(WRONG),
        None if raw.kind() == Kind::Absent || raw.kind() == Kind::Null => Ok(Routing::Here),
        None => Err(WRONG),
    }
}

fn key_bytes(line: &[u8], raw: Raw) -> Result<Option<Cow<'_, [u8]>>, LineError> {
    match raw.text(line) {
        Some(text) => Ok(Some(text)),
        None if raw.kind() == Kind::Absent || raw.kind() == Kind::Null => Ok(None),
        None => Err(LineError::Wrong { field: "key", what: "a string" }),
    }
}

fn payload_bytes(line: &[u8], raw: Raw) -> Result<Cow<'_, [u8]>, LineError> {
    match raw.kind() {
        Kind::Object => Ok(Cow::Borrowed(raw.of(line))),
        Kind::Null => Ok(Cow::Borrowed(b"")),
        Kind::Text | Kind::Escaped => Ok(raw.text(line).unwrap_or_default()),
        Kind::Absent => Err(LineError::Missing { field: "payload" }),
        Kind::Twice | Kind::True | Kind::False | Kind::Number | Kind::Array => {
            Err(LineError::Wrong { field: "payload", what: "a string or an object" })
        }
    }
}

/// Appends any record as a line: a payload that is one JSON object on one line as that object, any
/// other as a string, in which bytes that are not UTF-8 are replaced.
pub fn write_any_line(out: &mut Vec<u8>, topic: &str, partition: u32, offset: Option<u64>, ts: Millis, key: Option<&[u8]>, payload: &[u8]) {
    if !payload.contains(&b'\n') && Reader::object(payload, |_, _| {}).is_ok() {
        return write_line(out, topic, partition, offset, ts, key, payload);
    }
    let mut quoted = Vec::with_capacity(payload.len() + 2);
    write::string(&mut quoted, &String::from_utf8_lossy(payload));
    write_line(out, topic, partition, offset, ts, key, &quoted);
}

/// Appends a record as a line, with its newline. The payload must be JSON without line breaks, as outputs are.
pub fn write_line(out: &mut Vec<u8>, topic: &str, partition: u32, offset: Option<u64>, ts: Millis, key: Option<&[u8]>, payload: &[u8]) {
    write::raw(out, "{\"topic\":");
    write::string(out, topic);
    write::raw(out, ",\"partition\":");
    write::natural(out, u64::from(partition));
    if let Some(offset) = offset {
        write::raw(out, ",\"offset\":");
        write::natural(out, offset);
    }
    write::raw(out, ",\"ts\":");
    write::integer(out, ts);
    if let Some(key) = key {
        write::raw(out, ",\"key\":");
        write::string(out, &String::from_utf8_lossy(key));
    }
    write::plain(out, ",\"payload\":", payload, "}\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Line<'_> {
        parse_line(line.as_bytes()).unwrap()
    }

    #[test]
    fn reads_what_kcat_writes() {
        let line = r#"{"topic":"orders.intents","partition":3,"offset":17,"tstype":"create","ts":1772811000123,"broker":1,"headers":["a","b"],"key":"ACC1","payload":"{\"a\":1}"}"#;
        let line = read(line);
        assert_eq!(
            (line.topic.as_ref(), line.partition, line.offset, line.ts),
            ("orders.intents", Some(3), Some(17), Some(1_772_811_000_123))
        );
        assert_eq!(line.key.as_deref(), Some(b"ACC1".as_slice()));
        assert_eq!(line.payload.as_ref(), br#"{"a":1}"#);
        assert_eq!(line.received, None);
    }

    #[test]
    fn keeps_the_bytes_of_an_object_and_takes_null_for_nothing() {
        let line = read(r#"{"topic":"t","ts":-1,"received":5,"key":null,"payload": { "a" : [ 1 , 2.50 ] } }"#);
        assert_eq!(line.payload, Cow::Borrowed(br#"{ "a" : [ 1 , 2.50 ] }"#.as_slice()));
        assert_eq!((line.key.clone(), line.time(), line.received), (None, Ok(-1), Some(5)));
        assert_eq!(read(r#"{"topic":"t","payload":null}"#).payload.as_ref(), b"");
        assert_eq!(line.routing, Routing::Here);
        assert_eq!(read(r#"{"topic":"t","routing":"quiet","payload":{}}"#).routing, Routing::Quiet);
    }

    #[test]
    fn says_what_is_wrong_with_a_line() {
        let cases = [
            ("", "not a JSON object: expected an object at byte 0"),
            ("[]", "not a JSON object: expected an object at byte 0"),
            (r#"{"topic":"t","payload":{}"#, "not a JSON object: expected a comma or the end at byte 25"),
            (r#"{"topic":"t","payload":{}} x"#, "not a JSON object: bytes after the value at byte 27"),
            (r#"{"payload":{}}"#, "`topic` is missing"),
            (r#"{"topic":"t"}"#, "`payload` is missing"),
            (r#"{"topic":1,"payload":{}}"#, "`topic` must be a string"),
            (r#"{"topic":"t","payload":[]}"#, "`payload` must be a string or an object"),
            (r#"{"topic":"t","payload":7}"#, "`payload` must be a string or an object"),
            (r#"{"topic":"t","payload":{},"payload":{}}"#, "`payload` is given twice"),
            (r#"{"topic":"t","payload":{},"ts":"7"}"#, "`ts` must be milliseconds since the epoch"),
            (r#"{"topic":"t","payload":{},"ts":7.5}"#, "`ts` must be milliseconds since the epoch"),
            (r#"{"topic":"t","payload":{},"partition":-1}"#, "`partition` must be an integer from 0 to 4294967295"),
            (r#"{"topic":"t","payload":{},"key":{}}"#, "`key` must be a string"),
            (r#"{"topic":"t","payload":{},"routing":"x"}"#, "`routing` must be here, misrouted, elsewhere or quiet"),
        ];
        for (line, message) in cases {
            assert_eq!(parse_line(line.as_bytes()).unwrap_err().to_string(), message, "{line}");
        }
        assert_eq!(parse_line(b"{\"\xff\":1}").unwrap_err(), LineError::NotJson { at: 2, what: "not UTF-8" });
        assert_eq!(read(r#"{"topic":"t","payload":{}}"#).time(), Err(LineError::Missing { field: "ts" }));
    }

    #[test]
    fn what_is_written_is_read_back() {
        for payload in [r#"{"a":"\u00e9\""}"#, "no json", "{\n}", "", "{} {}", r#"[1]"#] {
            let mut out = Vec::new();
            write_any_line(&mut out, "t.\"x", 2, Some(9), -4, Some(b"K\n"), payload.as_bytes());
            assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), 1);
            let line = parse_line(&out).unwrap();
            assert_eq!(line.payload.as_ref(), payload.as_bytes());
            assert_eq!((line.topic.as_ref(), line.partition, line.offset, line.ts), ("t.\"x", Some(2), Some(9), Some(-4)));
            assert_eq!(line.key.as_deref(), Some(b"K\n".as_slice()));
        }
    }
}
