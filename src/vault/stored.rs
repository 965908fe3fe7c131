//! A broker key as the directory keeps it: what may be known of it, and its sealed secret.
//!
//! Invariant: what is not sealed here is no secret: of the key at most four characters. Revoked is final and holds no ciphertext.
//! Deliberately absent: `expired`; it follows from the time and is never stored, so that it needs no clock to become true.

use serde::{Deserialize, Serialize};

use super::broker::Checked;
use super::envelope::{Envelope, Place};
use super::reminder::Sent;

/// How many versions are remembered; older ones are forgotten.
pub const VERSIONS_KEPT: usize = 100;

// The words are `tt`: as `literal` they would come wrapped, and utoipa would not read them.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$about:meta])* $variant:ident = $word:tt,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
        pub enum $name { $($(#[$about])* #[serde(rename = $word)] $variant,)+ }

        impl $name {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// Its word on the wire.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }

            /// The one of this word.
            #[must_use]
            pub fn parse(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|one| one.as_str() == word)
            }
        }
    };
}

words! {
    /// Whose key it is a customer of.
    Broker {
        /// Alpaca.
        Alpaca = "alpaca",
        /// Interactive Brokers.
        InteractiveBrokers = "interactive_brokers",
        /// TD Ameritrade, now Schwab.
        TdAmeritrade = "td_ameritrade",
        /// Robinhood.
        Robinhood = "robinhood",
        /// Coinbase.
        Coinbase = "coinbase",
        /// Binance.
        Binance = "binance",
    }
}

words! {
    /// Whether the key moves money.
    Environment {
        /// It does not.
        Paper = "paper",
        /// It does.
        Live = "live",
    }
}

words! {
    /// What may be done with the key.
    Status {
        /// It may be used.
        Active = "active",
        /// Its owner has switched it off; it can come back.
        Inactive = "inactive",
        /// Its end has passed; a later end brings it back.
        Expired = "expired",
        /// Given up for good, its ciphertext erased.
        Revoked = "revoked",
    }
}

/// What its owner made of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It may be used until its end.
    Active,
    /// It may not be used now.
    Inactive,
    /// It will never be used again.
    Revoked,
}

/// One version of a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Version {
    /// From 1.
    pub version: u64,
    /// When it came in, in milliseconds since the epoch.
    pub created_at: i64,
    /// Who brought it.
    pub created_by: String,
    /// When it was last opened for someone, to the minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_at: Option<i64>,
}

/// What the last verification said, and of which version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verified {
    /// What it said.
    pub checked: Checked,
    /// The secret's version.
    pub version: u64,
    /// When, in milliseconds since the epoch.
    pub at: i64,
}

/// What a create under an idempotency key asked for, as far as it is no secret and may change afterwards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// What its owner called it.
    pub name: String,
    /// When it was to end, in milliseconds since the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<i64>,
}

/// The body of an `api_key` entity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stored {
    /// Who may use it. Never changes: the secret is sealed to it.
    pub owner: String,
    /// Whose customer. Never changes.
    pub broker: Broker,
    /// Whether it moves money. Never changes.
    pub environment: Environment,
    /// What its owner calls it.
    pub name: String,
    /// What its owner made of it.
    pub standing: Standing,
    /// When it ends, in milliseconds since the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<i64>,
    /// The last characters of the key.
    pub last4: String,
    /// Grows with every change that a user makes, and not with what the vault notes on its own: what `If-Match` compares.
    pub revision: u64,
    /// When it was made.
    pub created_at: i64,
    /// When a user last changed it.
    pub changed_at: i64,
    /// The versions that the secret has had, the newest last.
    pub versions: Vec<Version>,
    /// The newest version, sealed; nothing once revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed: Option<Envelope>,
    /// What the request asked for that made it, if it may come again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<Asked>,
    /// When it was deleted: it is then hidden, and only its trail is left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted_at: Option<i64>,
    /// The last reminder of its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reminded: Option<Sent>,
    /// The last verification.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified: Option<Verified>,
}

impl Stored {
    /// What may be done with it at `now`.
    #[must_use]
    pub fn status(&self, now: i64) -> Status {
        let ended = self.expires_at.is_some_and(|end| end <= now);
        match self.standing {
            Standing::Revoked => Status::Revoked,
            Standing::Active | Standing::Inactive if ended => Status::Expired,
            Standing::Active => Status::Active,
            Standing::Inactive => Status::Inactive,
        }
    }

    /// The version of the secret that is sealed now.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.versions.last().map_or(0, |version| version.version)
    }

    /// What the sealed secret is bound to.
    #[must_use]
    pub fn place<'a>(&'a self, key_id: &'a str) -> Place<'a> {
        Place { owner: &self.owner, key_id, version: self.version() }
    }

    /// Adds a version of the secret.
    pub(super) fn next_version(&mut self, created_by: &str, now: i64) {
        let version = self.version() + 1;
        self.versions.push(Version { version, created_at: now, created_by: created_by.to_owned(), last_used_at: None });
        let forgotten = self.versions.len().saturating_sub(VERSIONS_KEPT);
        self.versions.drain(..forgotten);
        self.verified = None;
    }

    /// Gives it up for good.
    pub(super) fn revoke(&mut self) {
        self.standing = Standing::Revoked;
        self.sealed = None;
    }
}
