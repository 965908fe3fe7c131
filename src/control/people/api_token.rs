//! API tokens: long secrets for programs, `og_ID_SECRET`.
//!
//! Invariant: the secret is told once, and only its hash is kept. When it was last used is written at most once a minute, and never
//! holds a request up. Deliberately absent: rights of its own; a token is its user with fewer scopes.

use std::sync::{Arc, PoisonError};

use zeroize::Zeroizing;

use super::body::{ApiToken, Scope};
use super::{People, PeopleError, Principal, Proof, Stored, random};
use crate::directory::Kind;
use crate::domain::Millis;

const PREFIX: &str = "og_";
const NAME_BYTES_MAX: usize = 100;
/// Tokens that made one another, one after the other.
const MAKERS_MAX: usize = 4;
/// A program that is used all the time is one record a minute.
const NOTED_EVERY_MS: Millis = 60_000;

/// What a new token is.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// Who it acts as.
    pub user: String,
    /// What it is for.
    pub name: String,
    /// What it may do of what its user may.
    pub scopes: Vec<Scope>,
    /// When it ends, if ever.
    pub expires_at: Option<Millis>,
    /// The token that makes it, where it is not someone who logged in.
    pub made_by: Option<String>,
}

/// A token that was just made.
#[derive(Clone, Debug)]
pub struct Shown {
    /// What is kept of it.
    pub token: Stored<ApiToken>,
    /// The token itself: told now and never again.
    pub secret: Zeroizing<String>,
}

impl People {
    /// A token.
    #[must_use]
    pub fn token(&self, id: &str) -> Option<Stored<ApiToken>> {
        self.read(Kind::Token, id)
    }

    /// All tokens, by id.
    #[must_use]
    pub fn tokens(&self) -> Vec<Stored<ApiToken>> {
        self.read_all(Kind::Token)
    }

    /// Makes a token with this id.
    ///
    /// # Errors
    /// A field is wrong, its user does not exist, the id is taken, or the log.
    pub async fn add_token(&self, id: &str, new: NewToken, actor: &str, now: Millis) -> Result<Shown, PeopleError> {
        let user = self.user(&new.user).ok_or(PeopleError::Invalid { field: "user", why: "there is no such user" })?;
        if new.name.is_empty() || new.name.len() > NAME_BYTES_MAX {
            return Err(PeopleError::Invalid { field: "name", why: "1 to 100 bytes" });
        }
        if new.scopes.iter().enumerate().any(|(place, scope)| new.scopes[..place].contains(scope)) {
            return Err(PeopleError::Invalid { field: "scopes", why: "a scope is named twice" });
        }
        let has = user.body.all_scopes();
        if !new.scopes.iter().all(|scope| has.contains(scope)) {
            return Err(PeopleError::Invalid { field: "scopes", why: "a token may do nothing that its user may not" });
        }
        if self.makers(new.made_by.as_deref()).count() > MAKERS_MAX {
            return Err(PeopleError::Invalid { field: "name", why: "tokens have made tokens that made tokens; log in to make one" });
        }
        if new.expires_at.is_some_and(|at| at <= now) {
            return Err(PeopleError::Invalid { field: "expires_at", why: "in the past" });
        }
        let secret = random::secret()?;
        // By a clock that may be behind the one of whoever made the user.
        let created_at = now.max(user.body.created_at);
        let NewToken { user, name, scopes, expires_at, made_by } = new;
        let hash = random::hash(&secret);
        let token = ApiToken { user, name, scopes, hash, created_at, expires_at, last_used_at: None, made_by };
        let token = match self.write(Kind::Token, 0, id, token, actor).await {
            Err(PeopleError::Conflict { .. }) => return Err(PeopleError::Exists),
            made => made?,
        };
        Ok(Shown { token, secret: Zeroizing::new(format!("{PREFIX}{id}_{}", *secret)) })
    }

    /// The ids of the tokens that made one, the nearest first.
    fn makers<'a>(&'a self, made_by: Option<&str>) -> impl Iterator<Item = String> + 'a {
        let first = made_by.map(str::to_owned);
        std::iter::successors(first, |id| self.token(id)?.body.made_by).take(MAKERS_MAX + 1)
    }

    /// Ends a token for good, and those that it made.
    ///
    /// # Errors
    /// There is none, or the log.
    pub async fn revoke_token(&self, id: &str, actor: &str) -> Result<(), PeopleError> {
        // None of them is good without it; they are erased so that nobody is shown them.
        let made_by_it = |token: &Stored<ApiToken>| self.makers(token.body.made_by.as_deref()).any(|maker| maker == id);
        let made: Vec<String> = self.tokens().into_iter().filter(made_by_it).map(|token| token.id).collect();
        self.erase_token(id, actor).await?;
        for id in made {
            match self.erase_token(&id, actor).await {
                Ok(()) | Err(PeopleError::Unknown) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Ends a token, and erases none of those that it made.
    pub(super) async fn erase_token(&self, id: &str, actor: &str) -> Result<(), PeopleError> {
        loop {
            let token = self.directory.get(Kind::Token, id).ok_or(PeopleError::Unknown)?;
            match self.erase(Kind::Token, id, token.version, actor).await {
                // Its last use was written meanwhile.
                Err(PeopleError::Conflict { .. }) => {}
                done => return done,
            }
        }
    }

    /// Whether a bearer's text looks like an API token.
    #[must_use]
    pub fn is_api_token(text: &str) -> bool {
        text.starts_with(PREFIX)
    }

    /// Who an API token is of.
    ///
    /// # Errors
    /// It is not good, or not any more.
    pub fn by_token(self: &Arc<Self>, text: &str, now: Millis) -> Result<Principal, PeopleError> {
        let (id, secret) = text.strip_prefix(PREFIX).and_then(|rest| rest.split_once('_')).ok_or(PeopleError::Unauthenticated)?;
        let token = self.live_token(id, now).filter(|token| random::is_of(secret, &token.body.hash));
        let token = token.ok_or(PeopleError::Unauthenticated)?;
        let principal = self.principal(&token.body.user, Proof::Token(token.id.clone()), now)?;
        self.note_use(token, now);
        Ok(principal)
    }

    pub(super) fn live_token(&self, id: &str, now: Millis) -> Option<Stored<ApiToken>> {
        let token = self.token(id).filter(|token| token.body.expires_at.is_none_or(|at| now < at))?;
        // One of an earlier user of that name may have been written while that one was removed.
        let user = self.user(&token.body.user)?;
        if token.body.created_at < user.body.created_at {
            return None;
        }
        // Whatever ends a token ends what it made: a leaked one leaves nothing behind.
        match &token.body.made_by {
            Some(maker) => self.live_token(maker, now).map(|_| token),
            None => Some(token),
        }
    }

    /// Writes that a token was used, behind the request's back.
    fn note_use(self: &Arc<Self>, token: Stored<ApiToken>, now: Millis) {
        let due = |last: Millis| now.saturating_sub(last) >= NOTED_EVERY_MS;
        {
            let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
            let last = used.get(&token.id).copied().max(token.body.last_used_at);
            if last.is_some_and(|last| !due(last)) {
                return;
            }
            used.retain(|_, last| !due(*last));
            used.insert(token.id.clone(), now);
        }
        let people = self.clone();
        tokio::spawn(async move {
            let Stored { id, version, body } = token;
            let user = body.user.clone();
            let used = ApiToken { last_used_at: Some(now), ..body };
            match people.write(Kind::Token, version, &id, used, &user).await {
                // Another instance wrote it, or the token was revoked.
                Ok(_) | Err(PeopleError::Conflict { .. }) => {}
                Err(error) => tracing::debug!(%error, token = id, "the use of a token was not written"),
            }
        });
    }
}
