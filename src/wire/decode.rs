//! Records of the input topics, from bytes to [`Event`]s.
//!
//! Invariant: total. Whatever the bytes are there is one event, [`Event::Refused`] if need be; a
//! malformed field anywhere outweighs a number out of range. Deliberately absent: everything that
//! needs state, such as whether an account exists or a rule makes sense.

mod control;
mod fields;
mod market;
mod orders;
mod rules;
mod value;

use crate::domain::{Event, Id, InputTopic, Print, RefusalCode, Refused};

use super::key::Key;
use fields::{Fault, Fields};

/// The longest value of a record, in bytes.
pub const MAX_PAYLOAD_BYTES: usize = 64 * 1024;

/// Decodes a record of `topic`. Where there is a `key`, it must name the account (of `orders.*`) or
/// the symbol (of `market.prices`).
#[must_use]
pub fn decode(topic: InputTopic, key: Option<&[u8]>, payload: &[u8]) -> Event {
    let mut fields = Fields::new(payload);
    if let Err(fault) = fields.read() {
        return refused(RefusalCode::Malformed, fault, None);
    }
    let event = match topic {
        InputTopic::Intents => orders::intent(&mut fields),
        InputTopic::Executions => orders::execution(&mut fields),
        InputTopic::Prices => market::price(&mut fields),
        InputTopic::Control => control::control(&mut fields),
    };
    check_key(topic, key, &mut fields);
    if payload.len() > MAX_PAYLOAD_BYTES {
        fields.malformed(None, "longer than 64 KiB");
    }
    match (event, fields.take_fault()) {
        (Some(event), None) => event,
        (_, Some((code, fault))) => refused(code, fault, Some(&fields)),
        // A reader that gives nothing has said why; should one not have, the record is refused all the same.
        (None, None) => refused(RefusalCode::Malformed, Fault::new(None, "not a record of this topic"), Some(&fields)),
    }
}

/// Decodes a record of `market.prices` with its sizes and volumes, for charts. `None` for what [`decode`] refuses.
#[must_use]
pub fn decode_print(key: Option<&[u8]>, payload: &[u8]) -> Option<Print> {
    if payload.len() > MAX_PAYLOAD_BYTES {
        return None;
    }
    let mut fields = Fields::new(payload);
    fields.read().ok()?;
    let print = market::print(&mut fields);
    check_key(InputTopic::Prices, key, &mut fields);
    print.filter(|_| fields.take_fault().is_none())
}

/// The id that a record's key spells, if it spells one.
#[must_use]
pub fn key_as_id(key: Option<&[u8]>) -> Option<Id> {
    key.and_then(Id::parse)
}

fn check_key(topic: InputTopic, key: Option<&[u8]>, fields: &mut Fields<'_>) {
    let named = match topic {
        InputTopic::Intents | InputTopic::Executions => Key::Account,
        InputTopic::Prices => Key::Symbol,
        InputTopic::Control => return,
    };
    if let Some(key) = key
        && !fields.value(named).is_some_and(|value| value.is_text(key))
    {
        fields.malformed(Some(named), "the record's key is another");
    }
}

#[cold]
fn refused(code: RefusalCode, fault: Fault, fields: Option<&Fields<'_>>) -> Event {
    let id = |key| fields.and_then(|fields| fields.value(key)?.id().ok());
    Event::Refused(Box::new(Refused {
        code,
        client_order_id: id(Key::ClientOrderId),
        account: id(Key::Account),
        field: fault.field,
        message: fault.message.into(),
    }))
}
