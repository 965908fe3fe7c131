//! The directory: what people, programs and secrets need, as the fold of `gate.directory`.
//!
//! Invariant: the log decides conflicts. Of the records of one entity the first with a higher version than all before it counts, so
//! whoever folds the same log has the same directory; and so has whoever folds what compaction left of it (`fold.rs` says why). An
//! erased id keeps its version, so that no older record comes back to life.
//! Deliberately absent: what a body means (that is the business of the room that owns its kind), bytes, clocks, the log.

mod fold;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use crate::domain::Millis;

pub use fold::{Directory, Outcome};

/// An id has at most so many bytes.
pub const ID_BYTES_MAX: usize = 512;
/// A body has at most so many bytes: with its envelope it fits the embedded log's records.
pub const BODY_BYTES_MAX: usize = 192 * 1024;
/// An actor's name has at most so many bytes.
pub const ACTOR_BYTES_MAX: usize = 512;
/// JSON's numbers are exact up to here.
pub const VERSION_MAX: u64 = (1 << 53) - 1;
/// A record that reaches the log so long after its writer's time for it is void. Whatever is remembered for longer than this needs
/// no defence against records that were under way. A writer's clock may be off by as much, and is then told so.
pub const UNDER_WAY_MS_MAX: Millis = 24 * 60 * 60 * 1_000;
/// After this time an erased id whose kind allows it is forgotten.
pub const FORGET_AFTER_MS: Millis = 2 * UNDER_WAY_MS_MAX;

/// What kind of entity. The order is the order of keys, and the names are in every log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A person, or a program with a name.
    User,
    /// An API token.
    Token,
    /// A family of refresh tokens.
    Session,
    /// What a user wants to be told, and how.
    Preference,
    /// A browser's push subscription.
    Push,
    /// A sealed broker key.
    ApiKey,
    /// A version of the key-encryption key.
    Kek,
    /// What of the inbox was read or deleted.
    Inbox,
    /// How far the delivery of a notification is.
    Delivery,
    /// A verified address.
    Contact,
    /// The answer to a request with an `Idempotency-Key`.
    Idempotency,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::User,
        Self::Token,
        Self::Session,
        Self::Preference,
        Self::Push,
        Self::ApiKey,
        Self::Kek,
        Self::Inbox,
        Self::Delivery,
        Self::Contact,
        Self::Idempotency,
    ];

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Token => "token",
            Self::Session => "session",
            Self::Preference => "preference",
            Self::Push => "push",
            Self::ApiKey => "api_key",
            Self::Kek => "kek",
            Self::Inbox => "inbox",
            Self::Delivery => "delivery",
            Self::Contact => "contact",
            Self::Idempotency => "idempotency",
        }
    }

    /// The kind of a name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }

    /// Whether an erased id is forgotten after [`FORGET_AFTER_MS`]: ids of these kinds come and go without end, and are made up anew.
    /// The others are few, and their erased ids are remembered for ever.
    #[must_use]
    pub const fn is_forgotten(self) -> bool {
        match self {
            Self::Token | Self::Session | Self::Push | Self::Inbox | Self::Delivery | Self::Idempotency => true,
            Self::User | Self::Preference | Self::ApiKey | Self::Kek | Self::Contact => false,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which record: no two have the same, whoever writes them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The entity's kind.
    pub kind: Kind,
    /// The entity's id.
    pub id: String,
    /// The version that it makes.
    pub version: u64,
    /// What tells it from another writer's record of the same version.
    pub nonce: u64,
}

/// An entity as it is.
#[derive(Clone, PartialEq, Eq)]
pub struct Entity {
    /// What kind.
    pub kind: Kind,
    /// Its id, unique within its kind.
    pub id: String,
    /// Counts its states from 1.
    pub version: u64,
    /// What tells the record from another writer's one of the same version.
    pub nonce: u64,
    /// When its writer wrote it, in ms.
    pub at: Millis,
    /// Who wrote it.
    pub actor: String,
    /// What it is, as JSON; empty of one that is erased.
    pub body: Arc<[u8]>,
}

impl Entity {
    /// The key of its record.
    #[must_use]
    pub fn key(&self) -> Key {
        Key { kind: self.kind, id: self.id.clone(), version: self.version, nonce: self.nonce }
    }

    /// Whether this is all that is left of it.
    #[must_use]
    pub fn is_erased(&self) -> bool {
        self.body.is_empty()
    }
}

/// Bodies hold secrets: they are not printed.
impl fmt::Debug for Entity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, id, version, nonce, at, actor, body } = self;
        write!(f, "{kind}:{id}@{version}:{nonce:016x} at {at} by {actor}, {} bytes", body.len())
    }
}

/// What a record of `gate.directory` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The whole new state of an entity; with an empty body: it is erased.
    State(Entity),
    /// The record with this key is of no use any more.
    Tombstone(Key),
}
