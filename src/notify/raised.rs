//! A notification as it stands in `gate.notifications`.
//!
//! Invariant: what cannot be read is told apart from what is read, and never stops the reader. Deliberately absent: `data` field by
//! field; it is passed on as it is.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::{Map, Value};

use crate::domain::{NotificationType, Priority};

/// Which notification: the ledger sequence of its record, and its place among that record's notifications.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RaisedId {
    /// The shard.
    pub shard: u32,
    /// The ledger sequence.
    pub seq: u64,
    /// Its place, from 0.
    pub index: u32,
}

impl RaisedId {
    /// Reads `shard-seq-nindex`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '-');
        let (shard, seq) = (number(parts.next()?)?, number(parts.next()?)?);
        let index = number(parts.next()?.strip_prefix('n')?)?;
        Some(Self { shard: shard.try_into().ok()?, seq, index: index.try_into().ok()? })
    }
}

/// Digits alone: neither a sign nor a leading zero, so that one id has one spelling.
fn number(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}

impl fmt::Display for RaisedId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-n{}", self.shard, self.seq, self.index)
    }
}

impl Serialize for RaisedId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RaisedId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| de::Error::custom("no notification id"))
    }
}

/// One notification.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Raised {
    /// Its id.
    #[serde(rename = "notification_id")]
    pub id: RaisedId,
    /// The account that it is about; absent when it is about all of the shard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// Its owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Its type.
    #[serde(rename = "type", with = "kind_word")]
    pub kind: NotificationType,
    /// What exactly it says.
    pub code: String,
    /// How urgent it is.
    #[serde(with = "priority_word")]
    pub priority: Priority,
    /// Its headline.
    pub title: String,
    /// Its sentence.
    pub message: String,
    /// The figures that apply.
    pub data: Map<String, Value>,
    /// The record's time, in ms.
    pub at: i64,
}

impl Raised {
    /// Reads a record of `gate.notifications`.
    ///
    /// # Errors
    /// It is none.
    pub fn read(payload: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(payload)
    }
}

macro_rules! as_word {
    ($module:ident, $word:ty) => {
        /// The wire's word of it.
        pub(super) mod $module {
            use serde::{Deserialize, Deserializer, Serializer, de};

            pub(in crate::notify) fn serialize<S: Serializer>(word: &$word, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(word.as_str())
            }

            pub(in crate::notify) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<$word, D::Error> {
                let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
                <$word>::parse(&text).ok_or_else(|| de::Error::custom(format!("unknown word {text:?}")))
            }
        }
    };
}

as_word!(kind_word, crate::domain::NotificationType);
as_word!(priority_word, crate::domain::Priority);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_wire_s_example() {
        let raised = Raised::read(
            br#"{"event":"notification","notification_id":"0-1842-n0","account":"ACC1","owner":"u-1","type":"stop_loss","code":"RULE_BREACH","priority":"urgent","title":"T","message":"M","data":{"rule_id":"r-2"},"shard":0,"seq":1842,"at":1772811000130}"#,
        )
        .unwrap();
        assert_eq!(
            (raised.id.to_string().as_str(), raised.priority, raised.kind),
            ("0-1842-n0", Priority::Urgent, NotificationType::StopLoss)
        );
        assert_eq!(raised.data["rule_id"], "r-2");
    }

    #[test]
    fn an_id_has_one_spelling() {
        assert_eq!(RaisedId::parse("3-12-n4"), Some(RaisedId { shard: 3, seq: 12, index: 4 }));
        for bad in
            ["", "0-1", "0-1-1", "0-1-nx", "00-1-n0", "0-01-n0", "0-+1-n0", "-0-1-n0", "0-1-n0 ", "0-1-n4294967296", "4294967296-1-n0"]
        {
            assert_eq!(RaisedId::parse(bad), None, "{bad}");
        }
    }
}
