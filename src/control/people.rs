//! People: who there is, what they may do, and how they prove who they are.
//!
//! Invariant: what a request may do is looked up in the directory with that request, so that a user who is locked out, a password
//! that is changed or a token that is revoked ends at once, whatever was handed out before. A record that cannot be read gives no
//! right. Deliberately absent: HTTP, and the clock; time is an argument.

mod access;
mod api_token;
mod body;
mod password;
mod random;
mod session;
mod ticket;
mod user;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::directory::{DirectoryService, WriteError};
use crate::directory::{Entity, Kind};
use crate::domain::Millis;
use crate::log::LogError;

pub use access::{Forged, KeyError, Terms};
pub use api_token::{NewToken, Shown};
pub use body::{ApiToken, GRANTS_MAX, Grants, Role, Scope, Session, User, is_user_name};
pub use password::{BYTES_MAX as PASSWORD_BYTES_MAX, CHARACTERS_MIN as PASSWORD_CHARACTERS_MIN, HashError, Weakness, hash_now};
pub use random::{NoRandom, id as random_id};
pub use session::Granted;
pub use user::{NewUser, UserChange};

use access::Keys;
use password::Hasher;
use ticket::Tickets;

/// How long things last, and where the key is.
#[derive(Clone, Debug)]
pub struct Options {
    /// What access tokens say, and how long they live.
    pub terms: Terms,
    /// A session ends when it was not refreshed for so long.
    pub session_idle_ms: Millis,
    /// A session ends after so long, however often it was refreshed.
    pub session_max_ms: Millis,
    /// The signing key that an operator made. It must be there.
    pub key_file: Option<PathBuf>,
    /// Where a signing key is made when nobody named one.
    pub own_key_file: PathBuf,
}

/// Why something about people was not done.
#[derive(Debug, thiserror::Error)]
pub enum PeopleError {
    /// Wrong name, password or token, or one that is over.
    #[error("the credentials are not valid")]
    Unauthenticated,
    /// An access token that was good.
    #[error("the access token has expired")]
    Expired,
    /// A refresh token that was used before; its family is over.
    #[error("the refresh token was used before; the session is over")]
    Reused,
    /// Too many passwords are being checked.
    #[error("too many passwords are being checked")]
    Busy,
    /// There is no such user, token or session.
    #[error("there is no such entry")]
    Unknown,
    /// There is one of that name.
    #[error("there is one of that name already")]
    Exists,
    /// Somebody changed it first.
    #[error("it was changed by somebody else; it has version {current}")]
    Conflict {
        /// Its version now.
        current: u64,
    },
    /// The password is not taken.
    #[error(transparent)]
    Weak(#[from] Weakness),
    /// A field that says what it may not.
    #[error("{field}: {why}")]
    Invalid {
        /// Which.
        field: &'static str,
        /// Why.
        why: &'static str,
    },
    /// Nobody could administer any more.
    #[error("it is the last admin who can log in")]
    LastAdmin,
    /// No random bits, or no signature.
    #[error("nothing secret can be made at the moment")]
    NoSecret,
    /// The log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The log did not answer in time; it may be done all the same.
    #[error("the directory did not answer in time")]
    Timeout,
}

impl From<WriteError> for PeopleError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Conflict { current } => Self::Conflict { current },
            WriteError::Log(error) => Self::Log(error),
            WriteError::Timeout => Self::Timeout,
        }
    }
}

impl From<HashError> for PeopleError {
    fn from(error: HashError) -> Self {
        match error {
            HashError::Busy => Self::Busy,
            HashError::Failed => Self::NoSecret,
        }
    }
}

impl From<NoRandom> for PeopleError {
    fn from(_: NoRandom) -> Self {
        Self::NoSecret
    }
}

/// An entity with its typed body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored<T> {
    /// Its id.
    pub id: String,
    /// Its version.
    pub version: u64,
    /// What it says.
    pub body: T,
}

/// By what someone proved who they are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Proof {
    /// A session: its id and its family.
    Session(String),
    /// An API token: its id.
    Token(String),
}

/// Someone who proved who they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// The user.
    pub user: Stored<User>,
    /// How they proved it.
    pub proof: Proof,
    /// What they may do now: of a token only what it was made for.
    pub scopes: Vec<Scope>,
}

/// The service.
pub struct People {
    directory: Arc<DirectoryService>,
    hasher: Hasher,
    /// Absent where nobody logs in, as in a command.
    keys: Option<Keys>,
    options: Options,
    /// Once there was a user, it is never open again while it runs.
    closed: AtomicBool,
    /// When tokens were last written to have been used.
    used: Mutex<HashMap<String, Millis>>,
    tickets: Tickets,
}

impl People {
    /// The people of a directory.
    ///
    /// # Errors
    /// There is no signing key and none can be made, or there are no random bits.
    pub fn new(directory: Arc<DirectoryService>, options: Options) -> Result<Self, KeyError> {
        let keys = match &options.key_file {
            Some(path) => Keys::read(path, options.terms.clone())?,
            None => Keys::read_or_make(&options.own_key_file, options.terms.clone())?,
        };
        Self::with(directory, Some(keys), options)
    }

    /// The people of a directory, for a command that only reads and changes them: nobody logs in.
    ///
    /// # Errors
    /// There are no random bits.
    pub fn to_administer(directory: Arc<DirectoryService>) -> Result<Self, KeyError> {
        let terms = Terms { issuer: String::new(), audience: String::new(), seconds: 0 };
        let options = Options { terms, session_idle_ms: 0, session_max_ms: 0, key_file: None, own_key_file: PathBuf::new() };
        Self::with(directory, None, options)
    }

    fn with(directory: Arc<DirectoryService>, keys: Option<Keys>, options: Options) -> Result<Self, KeyError> {
        let hasher = Hasher::new().map_err(|_| KeyError::Failed)?;
        let (closed, used, tickets) = (AtomicBool::new(false), Mutex::default(), Tickets::default());
        Ok(Self { directory, hasher, keys, options, closed, used, tickets })
    }

    /// The directory that it reads and writes.
    #[must_use]
    pub fn directory(&self) -> &Arc<DirectoryService> {
        &self.directory
    }

    /// Whether there are users. Without any, whoever can reach us may do everything.
    #[must_use]
    pub fn has_users(&self) -> bool {
        if self.closed.load(Ordering::Acquire) {
            return true;
        }
        let any = self.directory.read(|directory| directory.list(Kind::User).next().is_some());
        if any {
            self.closed.store(true, Ordering::Release);
        }
        any
    }

    /// How long an access token lives, in seconds.
    #[must_use]
    pub fn access_seconds(&self) -> i64 {
        self.options.terms.seconds
    }

    /// How long a session may stay unused, in seconds.
    #[must_use]
    pub fn session_seconds(&self) -> i64 {
        self.options.session_idle_ms.min(self.options.session_max_ms) / 1_000
    }

    /// Who this proof is of, if it still is good. Everything about rights is decided here.
    fn principal(&self, name: &str, proof: Proof, now: Millis) -> Result<Principal, PeopleError> {
        let user = self.user(name).filter(|user| !user.body.disabled).ok_or(PeopleError::Unauthenticated)?;
        let scopes = match &proof {
            Proof::Session(session) => {
                self.live_session(session, &user, now).ok_or(PeopleError::Unauthenticated)?;
                user.body.all_scopes()
            }
            Proof::Token(token) => {
                let token = self.live_token(token, now).filter(|token| token.body.user == name).ok_or(PeopleError::Unauthenticated)?;
                user.body.all_scopes().into_iter().filter(|scope| token.body.scopes.contains(scope)).collect()
            }
        };
        Ok(Principal { user, proof, scopes })
    }

    /// Someone who proved who they are before, if the proof is still good.
    #[must_use]
    pub fn still(&self, name: &str, proof: &Proof, now: Millis) -> Option<Principal> {
        self.principal(name, proof.clone(), now).ok()
    }

    fn read<T: DeserializeOwned>(&self, kind: Kind, id: &str) -> Option<Stored<T>> {
        self.directory.get(kind, id).and_then(|entity| typed(&entity))
    }

    fn read_all<T: DeserializeOwned>(&self, kind: Kind) -> Vec<Stored<T>> {
        self.directory.list(kind).iter().filter_map(typed).collect()
    }

    async fn write<T: Serialize>(&self, kind: Kind, old: u64, id: &str, body: T, actor: &str) -> Result<Stored<T>, PeopleError> {
        let json = serde_json::to_vec(&body).map_err(|_| PeopleError::NoSecret)?;
        let entity = self.directory.write(kind, id, old, Some(json), actor).await?;
        Ok(Stored { id: entity.id, version: entity.version, body })
    }

    async fn erase(&self, kind: Kind, id: &str, version: u64, actor: &str) -> Result<(), PeopleError> {
        self.directory.write(kind, id, version, None, actor).await?;
        Ok(())
    }
}

/// The typed body of an entity. One that cannot be read is as if it were not there, and somebody has to look.
fn typed<T: DeserializeOwned>(entity: &Entity) -> Option<Stored<T>> {
    match serde_json::from_slice(&entity.body) {
        Ok(body) => Some(Stored { id: entity.id.clone(), version: entity.version, body }),
        Err(error) => {
            tracing::error!(kind = ?entity.kind, id = entity.id, %error, "a record of the directory cannot be read and gives no right");
            None
        }
    }
}

#[cfg(test)]
mod tests;
