//! Writing one record's value as JSON.
//!
//! Invariant: names and texts are written as they are; the callers pass nothing that would need to
//! be escaped. Deliberately absent: nesting by the type system; `open` and `close` must pair.

use crate::domain::{MAX_DECIMAL_LEN, format_scaled};

use super::venue::Name;

/// A JSON object that is being written into memory that is used again.
#[derive(Debug, Default)]
pub(super) struct Payload {
    bytes: Vec<u8>,
}

impl Payload {
    /// Begins a record of the given event.
    pub(super) fn event(&mut self, event: &str) -> &mut Self {
        self.bytes.clear();
        self.bytes.push(b'{');
        self.text("event", event)
    }

    /// A text.
    pub(super) fn text(&mut self, name: &str, text: &str) -> &mut Self {
        self.name(name);
        self.quoted(text)
    }

    /// A text made of a prefix and a number.
    pub(super) fn id(&mut self, name: &str, prefix: &str, number: u64) -> &mut Self {
        self.name(name);
        self.bytes.push(b'"');
        self.bytes.extend_from_slice(prefix.as_bytes());
        self.digits(i128::from(number), 0);
        self.bytes.push(b'"');
        self
    }

    /// The name of an order, as its `client_order_id`.
    pub(super) fn named(&mut self, name: Name) -> &mut Self {
        match name {
            Name::Own(number) => self.id("client_order_id", "I-", number),
            Name::Command(shard, seq, index) => self.text("client_order_id", &format!("{shard}-{seq}-{index}")),
        }
    }

    /// A decimal in units of 1e-8, as a text.
    pub(super) fn decimal(&mut self, name: &str, units: i64) -> &mut Self {
        self.name(name);
        self.bytes.push(b'"');
        self.digits(i128::from(units), 8);
        self.bytes.push(b'"');
        self
    }

    /// A whole number.
    pub(super) fn number(&mut self, name: &str, number: i64) -> &mut Self {
        self.name(name);
        self.digits(i128::from(number), 0);
        self
    }

    /// A value that is JSON already.
    pub(super) fn json(&mut self, name: &str, json: &str) -> &mut Self {
        self.name(name);
        self.bytes.extend_from_slice(json.as_bytes());
        self
    }

    /// Members that are JSON already.
    pub(super) fn members(&mut self, json: &str) -> &mut Self {
        self.bytes.push(b',');
        self.bytes.extend_from_slice(json.as_bytes());
        self
    }

    /// Ends the record.
    pub(super) fn end(&mut self) {
        self.bytes.push(b'}');
    }

    /// Takes a value as it is.
    pub(super) fn replace(&mut self, value: &[u8]) {
        self.bytes.clear();
        self.bytes.extend_from_slice(value);
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn name(&mut self, name: &str) {
        if self.bytes.last() != Some(&b'{') {
            self.bytes.push(b',');
        }
        self.quoted(name);
        self.bytes.push(b':');
    }

    fn quoted(&mut self, text: &str) -> &mut Self {
        self.bytes.push(b'"');
        self.bytes.extend_from_slice(text.as_bytes());
        self.bytes.push(b'"');
        self
    }

    fn digits(&mut self, value: i128, scale: usize) {
        let mut buffer = [0; MAX_DECIMAL_LEN];
        self.bytes.extend_from_slice(format_scaled(&mut buffer, value, scale).as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_one_object() {
        let mut payload = Payload::default();
        payload.event("old").end();
        payload.event("fill").id("exec_id", "E-", 7).decimal("qty", 150_000_000).number("ts", -3).json("aon", "true").end();
        let expected = r#"{"event":"fill","exec_id":"E-7","qty":"1.5","ts":-3,"aon":true}"#;
        assert_eq!(payload.bytes(), expected.as_bytes());
    }
}
