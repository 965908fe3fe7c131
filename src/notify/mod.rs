//! Notifications on their way to people: who hears them, over which channel, when, and what became of it.
//!
//! Invariant: the fold raises notifications (SEMANTICS section 11) and nothing here can hold it up: this room only reads
//! `gate.notifications` and keeps its own state in the directory. A delivery goes out at least once, under an id that every repeat of
//! it carries. `preference`, `schedule`, `desk`, `inbox` and `segment` are pure: time is their argument.
//! Deliberately absent: guesses about who hears what ([`Audience`] says so), and any secret in the directory or in a log line.

pub mod address;
pub mod channels;
pub mod contact;
mod courier;
mod delivery;
mod desk;
pub mod email;
mod follow;
pub mod http;
pub mod inbox;
pub mod message;
mod notice;
pub mod people;
pub mod preference;
pub mod push;
pub mod quiet;
pub mod raised;
mod schedule;
mod segment;
mod service;
pub mod sms;
pub mod states;
pub mod template;
mod verify;
pub mod webhook;

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use serde::{Deserialize, Serialize};

pub use delivery::{Dead, DeliveryId, Held, Outcome, Place};
pub use notice::Notice;
pub use raised::{Raised, RaisedId};
pub use schedule::{Backoff, Limits};
pub use service::{Notifier, Options};
pub use verify::VerifyError;

/// A user's id, as the directory has it.
pub type UserId = Arc<str>;

/// Who hears what. Whoever may read an account hears of it.
pub trait Audience: Send + Sync {
    /// Everyone who hears of an account.
    fn hears(&self, account: &str) -> Vec<UserId>;

    /// Everyone who hears of what concerns no single account.
    fn operators(&self) -> Vec<UserId>;

    /// Whether it is known by now who hears of something that was read from the log at that moment. Whose an account is, the ledger says,
    /// and who follows it may be behind.
    fn knows(&self, raised: &Raised, read_at: Instant) -> bool {
        let _ = (raised, read_at);
        true
    }
}

/// A way to a person beside the inbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Channel {
    /// E-mail over SMTP.
    Email,
    /// Web Push to browsers and devices.
    Push,
    /// Text messages.
    Sms,
    /// An HTTP request, signed as Standard Webhooks say.
    Webhook,
}

impl Channel {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Email, Self::Push, Self::Sms, Self::Webhook];

    /// Its word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Email => "email",
            Self::Push => "push",
            Self::Sms => "sms",
            Self::Webhook => "webhook",
        }
    }

    /// Reads its word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|channel| channel.as_str() == word)
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The machine's clock, in milliseconds since the epoch.
pub(crate) fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}
