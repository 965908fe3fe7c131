//! Sessions: a login, and the refresh tokens that follow one another.
//!
//! Invariant: of a family one refresh token is good. A second use of an older one means that somebody has a copy, and ends the
//! family for both. A user has at most 32 sessions; one more takes the place of the one that was not refreshed for longest.
//! Deliberately absent: a list of the tokens of before. Who knows a family's id knew a token of it.

use zeroize::Zeroizing;

use super::body::{Session, User};
use super::{People, PeopleError, Principal, Proof, Stored, random};
use crate::directory::Kind;
use crate::domain::Millis;

use super::access::Forged;

const SESSIONS_MAX: u32 = 32;
const PREFIX: &str = "ogr_";
/// Logins of one user at the same time that look for a place.
const TRIES: u32 = 8;

/// What a login or a refresh gives.
#[derive(Clone, Debug)]
pub struct Granted {
    /// The user.
    pub user: Stored<User>,
    /// The access token.
    pub access: String,
    /// How long it lives, in seconds.
    pub seconds: i64,
    /// The refresh token.
    pub refresh: Zeroizing<String>,
}

impl People {
    /// Begins a session of someone with this name and password.
    ///
    /// # Errors
    /// Not this name with this password, too many at once, or the log.
    pub async fn login(&self, name: &str, password: Zeroizing<String>, address: &str, now: Millis) -> Result<Granted, PeopleError> {
        let user = self.is_password(name, password).await?.ok_or(PeopleError::Unauthenticated)?;
        for _ in 0..TRIES {
            match self.begin(&user, address, now).await {
                // Another login of the same user took the place.
                Err(PeopleError::Conflict { .. }) => {}
                done => return done,
            }
        }
        Err(PeopleError::Busy)
    }

    pub(super) async fn begin(&self, user: &Stored<User>, address: &str, now: Millis) -> Result<Granted, PeopleError> {
        let (id, taken) = self.place(user, now);
        let (family, secret) = (random::id()?, random::secret()?);
        let session = Session {
            user: user.id.clone(),
            family: family.clone(),
            hash: random::hash(&secret),
            password_at: user.body.password_at,
            address: address.to_owned(),
            created_at: now,
            refreshed_at: now,
        };
        self.write(Kind::Session, taken.unwrap_or(0), &id, session, &user.id).await?;
        self.granted(user.clone(), &format!("{id}.{family}"), &secret, now)
    }

    /// Where the next session goes, and the version of what it replaces.
    fn place(&self, user: &Stored<User>, now: Millis) -> (String, Option<u64>) {
        let mut oldest: Option<(Millis, String, u64)> = None;
        for id in session_ids(&user.id) {
            let Some(session) = self.read::<Session>(Kind::Session, &id) else { return (id, None) };
            if !self.is_live(&session.body, user, now) {
                return (id, Some(session.version));
            }
            if oldest.as_ref().is_none_or(|(at, ..)| session.body.refreshed_at < *at) {
                oldest = Some((session.body.refreshed_at, id, session.version));
            }
        }
        oldest.map_or_else(|| (format!("{}~0", user.id), None), |(_, id, version)| (id, Some(version)))
    }

    fn granted(&self, user: Stored<User>, session: &str, secret: &str, now: Millis) -> Result<Granted, PeopleError> {
        let access = self.keys.as_ref().and_then(|keys| keys.sign(&user.id, session, now)).ok_or(PeopleError::NoSecret)?;
        Ok(Granted { user, access, seconds: self.access_seconds(), refresh: Zeroizing::new(format!("{PREFIX}{session}.{secret}")) })
    }

    /// Exchanges a refresh token for the next one.
    ///
    /// # Errors
    /// It is not good, or was used before, or the log.
    pub async fn refresh(&self, token: &str, now: Millis) -> Result<Granted, PeopleError> {
        let (session, secret) = parts_of(token).ok_or(PeopleError::Unauthenticated)?;
        let name = user_of(session).ok_or(PeopleError::Unauthenticated)?;
        let user = self.user(name).filter(|user| !user.body.disabled).ok_or(PeopleError::Unauthenticated)?;
        let old = self.live_session(session, &user, now).ok_or(PeopleError::Unauthenticated)?;
        if !random::is_of(secret, &old.body.hash) {
            self.logout(session).await?;
            return Err(PeopleError::Reused);
        }
        let next = random::secret()?;
        let body = Session { hash: random::hash(&next), refreshed_at: now, ..old.body };
        match self.write(Kind::Session, old.version, &old.id, body, &user.id).await {
            Ok(_) => self.granted(user, session, &next, now),
            // The same token at the same time: one of them goes on.
            Err(PeopleError::Conflict { .. }) => Err(PeopleError::Unauthenticated),
            Err(error) => Err(error),
        }
    }

    /// Ends a session.
    ///
    /// # Errors
    /// The log.
    pub async fn logout(&self, session: &str) -> Result<(), PeopleError> {
        for _ in 0..TRIES {
            let Some(old) = self.session(session) else { return Ok(()) };
            match self.erase(Kind::Session, &old.id, old.version, &old.body.user).await {
                // Somebody refreshes it at this moment: once more, so that it ends.
                Err(PeopleError::Conflict { .. }) => {}
                done => return done,
            }
        }
        Err(PeopleError::Busy)
    }

    /// The session that a refresh token is of, if the token is good now.
    #[must_use]
    pub fn session_of_refresh(&self, token: &str, now: Millis) -> Option<String> {
        let (session, secret) = parts_of(token)?;
        let user = self.user(user_of(session)?)?;
        let live = self.live_session(session, &user, now)?;
        random::is_of(secret, &live.body.hash).then(|| session.to_owned())
    }

    /// Ends all sessions of a user.
    pub(super) async fn end_sessions(&self, name: &str, actor: &str) -> Result<(), PeopleError> {
        for id in session_ids(name) {
            let Some(session) = self.directory.get(Kind::Session, &id) else { continue };
            match self.erase(Kind::Session, &id, session.version, actor).await {
                // It is refreshed or ended at this moment; `password_at` and `disabled` hold for it all the same.
                Ok(()) | Err(PeopleError::Conflict { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Erases the sessions that are over.
    ///
    /// # Errors
    /// The log.
    pub async fn sweep_sessions(&self, now: Millis) -> Result<usize, PeopleError> {
        let mut swept = 0;
        for session in self.read_all::<Session>(Kind::Session) {
            let live = self.user(&session.body.user).is_some_and(|user| self.is_live(&session.body, &user, now));
            if !live && self.erase(Kind::Session, &session.id, session.version, "ordergate").await.is_ok() {
                swept += 1;
            }
        }
        Ok(swept)
    }

    /// Who an access token is of.
    ///
    /// # Errors
    /// It is not good, or not any more.
    pub fn by_access(&self, token: &str, now: Millis) -> Result<Principal, PeopleError> {
        let keys = self.keys.as_ref().ok_or(PeopleError::Unauthenticated)?;
        let claims = keys.verify(token, now).map_err(|error| match error {
            Forged::Invalid => PeopleError::Unauthenticated,
            Forged::Expired => PeopleError::Expired,
        })?;
        self.principal(&claims.sub, Proof::Session(claims.sid), now)
    }

    fn session(&self, session: &str) -> Option<Stored<Session>> {
        let (id, family) = session.split_once('.')?;
        self.read::<Session>(Kind::Session, id).filter(|session| session.body.family == family)
    }

    /// A session (its id and family) that goes on.
    pub(super) fn live_session(&self, session: &str, user: &Stored<User>, now: Millis) -> Option<Stored<Session>> {
        self.session(session).filter(|session| session.body.user == user.id && self.is_live(&session.body, user, now))
    }

    fn is_live(&self, session: &Session, user: &Stored<User>, now: Millis) -> bool {
        let idle = now.saturating_sub(session.refreshed_at) < self.options.session_idle_ms;
        let young = now.saturating_sub(session.created_at) < self.options.session_max_ms;
        idle && young && session.password_at == user.body.password_at
    }
}

fn session_ids(user: &str) -> impl Iterator<Item = String> {
    (0..SESSIONS_MAX).map(move |place| format!("{user}~{place}"))
}

/// The session and the secret of `ogr_USER~PLACE.FAMILY.SECRET`.
fn parts_of(token: &str) -> Option<(&str, &str)> {
    token.strip_prefix(PREFIX)?.rsplit_once('.')
}

fn user_of(session: &str) -> Option<&str> {
    session.split_once('~').map(|(user, _)| user)
}
