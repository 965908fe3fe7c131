//! Tables of what the wire takes and refuses. Each rule of docs/WIRE.md has its rows.

mod control;
mod encode;
mod orders;
mod prices;
mod properties;
mod schemas;
mod strictness;

use crate::domain::{Event, InputTopic, RefusalCode, Refused};

use super::{decode, decode_print};

/// Decodes without a key. What a chart takes of the prices is what the gate takes, here and in every test of this folder.
fn read(topic: InputTopic, payload: &str) -> Event {
    let event = decode(topic, None, payload.as_bytes());
    if topic == InputTopic::Prices {
        let print = decode_print(None, payload.as_bytes());
        assert_eq!(print.is_some(), !matches!(event, Event::Refused(_)), "{payload}");
    }
    event
}

/// Decodes what must be refused.
fn refusal(topic: InputTopic, payload: &str) -> Refused {
    match read(topic, payload) {
        Event::Refused(refused) => *refused,
        other => panic!("not refused: {payload}\n{other:?}"),
    }
}

/// Asserts that a payload is refused with a code, at a field (`""` = none).
#[track_caller]
fn refuses(topic: InputTopic, payload: &str, code: RefusalCode, field: &str) {
    let refused = refusal(topic, payload);
    assert_eq!((refused.code, refused.field.as_deref().unwrap_or_default()), (code, field), "{payload}\n{}", refused.message);
}

/// Asserts that a payload is taken.
#[track_caller]
fn takes(topic: InputTopic, payload: &str) -> Event {
    let event = read(topic, payload);
    assert!(!matches!(event, Event::Refused(_)), "{payload}\n{event:?}");
    event
}

/// An object's text with one field replaced (or added), or taken out with an empty value.
fn with(base: &[(&str, &str)], field: &str, value: &str) -> String {
    let mut fields: Vec<(&str, &str)> = base.iter().filter(|(name, _)| *name != field).copied().collect();
    if !value.is_empty() {
        fields.push((field, value));
    }
    object(&fields)
}

fn object(fields: &[(&str, &str)]) -> String {
    let members: Vec<String> = fields.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
    format!("{{{}}}", members.join(","))
}
