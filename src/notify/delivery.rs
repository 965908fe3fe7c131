//! One delivery: which notification, to whom, over which channel, and what became of it.
//!
//! Invariant: its id is a function of the notification and the place that it goes to, so every repeat of it, by whichever process,
//! carries the same one; a digest's id is a function of what is in it. Deliberately absent: the message; the log has it.

use std::fmt;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::raised::RaisedId;
use super::{Channel, UserId};

/// A delivery's id: 24 bytes, 32 characters in text, which is what the topic of Web Push may be.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeliveryId([u8; 24]);

impl DeliveryId {
    /// The id of a notification's delivery.
    #[must_use]
    pub fn of(raised: RaisedId, place: &Place) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("ordergate 2026 notify delivery");
        hasher.update(&raised.shard.to_be_bytes());
        hasher.update(&raised.seq.to_be_bytes());
        hasher.update(&raised.index.to_be_bytes());
        place.hash_into(&mut hasher);
        Self::first_of(&hasher)
    }

    /// The id of a digest of these deliveries, in whatever order they come.
    #[must_use]
    pub fn of_digest(place: &Place, mut members: Vec<Self>) -> Self {
        members.sort_unstable();
        let mut hasher = blake3::Hasher::new_derive_key("ordergate 2026 notify digest");
        place.hash_into(&mut hasher);
        for member in members {
            hasher.update(&member.0);
        }
        Self::first_of(&hasher)
    }

    fn first_of(hasher: &blake3::Hasher) -> Self {
        let mut id = [0; 24];
        id.copy_from_slice(&hasher.finalize().as_bytes()[..24]);
        Self(id)
    }

    /// Reads its text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Some(Self(BASE64_URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()?))
    }

    /// A number that is as good as random and always the same.
    #[must_use]
    pub fn seed(self) -> u64 {
        self.0.iter().take(8).fold(0, |seed, byte| seed << 8 | u64::from(*byte))
    }
}

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64_URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for DeliveryId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DeliveryId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).ok_or_else(|| de::Error::custom("no delivery id"))
    }
}

/// Where a delivery goes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Place {
    /// To whom.
    #[serde(rename = "u")]
    pub user: UserId,
    /// Over which channel.
    #[serde(rename = "c")]
    pub channel: Channel,
    /// Of several devices of the person, which one; empty where there is one address.
    #[serde(rename = "t", default, skip_serializing_if = "str::is_empty")]
    pub target: UserId,
}

impl Place {
    fn hash_into(&self, hasher: &mut blake3::Hasher) {
        for part in [&*self.user, self.channel.as_str(), &*self.target] {
            hasher.update(&(part.len() as u64).to_be_bytes());
            hasher.update(part.as_bytes());
        }
    }
}

/// Why something waits for a digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Held {
    /// The person's quiet hours.
    QuietHours,
    /// The person wants silence until some time.
    Snooze,
    /// More came within a minute than a person can read.
    Storm,
    /// It is old by now.
    Late,
}

impl Held {
    /// As words.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::QuietHours => "quiet hours",
            Self::Snooze => "snooze",
            Self::Storm => "too many at once",
            Self::Late => "delivery was interrupted",
        }
    }
}

/// Why a delivery ended without being sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dead {
    /// The receiver refused it for good.
    Refused,
    /// It could not be delivered in time.
    Expired,
    /// The person no longer wants it, or has no address for it any more.
    Unwanted,
    /// The log no longer has the notification.
    Lost,
}

impl Dead {
    /// Its word in metrics and answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Expired => "expired",
            Self::Unwanted => "unwanted",
            Self::Lost => "lost",
        }
    }
}

/// What became of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The receiver, or the next one on the way, has taken it.
    Sent,
    /// Not now. `everyone`: whatever was wrong is not about this message, others would fail too.
    Later {
        /// What was wrong.
        why: String,
        /// Whether others over the same way would fail too.
        everyone: bool,
        /// What the receiver asked us to wait.
        after: Option<Duration>,
    },
    /// Never.
    Refused {
        /// What was wrong.
        why: String,
    },
    /// Never, and the address is no address any more.
    Gone {
        /// What was wrong.
        why: String,
    },
    /// There is nobody to send it to any more.
    Unwanted {
        /// What is missing.
        why: String,
    },
}

impl Outcome {
    /// A failure that others over the same way would meet too.
    pub fn down(why: impl fmt::Display) -> Self {
        Self::Later { why: why.to_string(), everyone: true, after: None }
    }

    /// A failure of this message, for now.
    pub fn later(why: impl fmt::Display) -> Self {
        Self::Later { why: why.to_string(), everyone: false, after: None }
    }

    /// A failure for good.
    pub fn refused(why: impl fmt::Display) -> Self {
        Self::Refused { why: why.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(user: &str, channel: Channel, target: &str) -> Place {
        Place { user: user.into(), channel, target: target.into() }
    }

    #[test]
    fn an_id_depends_on_everything_that_it_is_made_of_and_on_nothing_else() {
        let raised = RaisedId { shard: 0, seq: 7, index: 1 };
        let id = DeliveryId::of(raised, &place("ann", Channel::Email, ""));
        assert_eq!(id, DeliveryId::of(raised, &place("ann", Channel::Email, "")));
        let others = [
            DeliveryId::of(RaisedId { shard: 1, ..raised }, &place("ann", Channel::Email, "")),
            DeliveryId::of(RaisedId { seq: 8, ..raised }, &place("ann", Channel::Email, "")),
            DeliveryId::of(RaisedId { index: 0, ..raised }, &place("ann", Channel::Email, "")),
            DeliveryId::of(raised, &place("an", Channel::Email, "n")),
            DeliveryId::of(raised, &place("ann", Channel::Sms, "")),
            DeliveryId::of_digest(&place("ann", Channel::Email, ""), vec![id]),
        ];
        assert!(others.iter().all(|other| *other != id));
    }

    #[test]
    fn a_digest_is_the_same_whatever_the_order() {
        let ids: Vec<_> = (0..3).map(|seq| DeliveryId::of(RaisedId { shard: 0, seq, index: 0 }, &place("a", Channel::Sms, ""))).collect();
        let turned = ids.iter().rev().copied().collect();
        assert_eq!(DeliveryId::of_digest(&place("a", Channel::Sms, ""), ids), DeliveryId::of_digest(&place("a", Channel::Sms, ""), turned));
    }

    #[test]
    fn its_text_is_32_characters_that_a_push_topic_may_have() {
        let id = DeliveryId::of(RaisedId { shard: 0, seq: 1, index: 0 }, &place("a", Channel::Push, "x"));
        let text = id.to_string();
        assert!(text.len() == 32 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'), "{text}");
        assert_eq!(DeliveryId::parse(&text), Some(id));
        assert_eq!(DeliveryId::parse("short"), None);
    }
}
