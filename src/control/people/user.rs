//! Users: made, changed, locked out, removed.
//!
//! Invariant: through here somebody who can log in as an admin always remains. Deliberately absent: the first user; an empty
//! directory gets one from the command line only.

use zeroize::Zeroizing;

use super::body::{GRANTS_MAX, Grants, Role, Scope, User, is_user_name};
use super::{People, PeopleError, Stored, password};
use crate::directory::Kind;
use crate::domain::{AccountId, Millis};

/// How often somebody is looked for who remains.
const TRIES: usize = 8;

/// What a new user is.
#[derive(Clone, Debug)]
pub struct NewUser {
    /// What they may do at most.
    pub role: Role,
    /// Scopes beyond those of the role.
    pub scopes: Vec<Scope>,
    /// Accounts granted.
    pub accounts: Grants,
    /// The password; programs have none.
    pub password: Option<Zeroizing<String>>,
}

/// What a user becomes; the password stays.
#[derive(Clone, Debug)]
pub struct UserChange {
    /// What they may do at most.
    pub role: Role,
    /// Scopes beyond those of the role.
    pub scopes: Vec<Scope>,
    /// Accounts granted.
    pub accounts: Grants,
    /// Whether they are locked out.
    pub disabled: bool,
}

impl People {
    /// A user.
    #[must_use]
    pub fn user(&self, name: &str) -> Option<Stored<User>> {
        self.read(Kind::User, name)
    }

    /// All users, by name.
    #[must_use]
    pub fn users(&self) -> Vec<Stored<User>> {
        self.read_all(Kind::User)
    }

    /// Makes a user.
    ///
    /// # Errors
    /// A field is wrong, the password is weak, the name is taken, or the log.
    pub async fn add_user(&self, name: &str, new: NewUser, actor: &str, now: Millis) -> Result<Stored<User>, PeopleError> {
        if !is_user_name(name) {
            return Err(PeopleError::Invalid { field: "name", why: "1 to 64 of [A-Za-z0-9._-], the first a letter or digit" });
        }
        check_rights(new.role, &new.scopes, &new.accounts)?;
        if new.password.is_none() && new.role != Role::Service {
            return Err(PeopleError::Invalid { field: "password", why: "only a service does without" });
        }
        if self.user(name).is_some() {
            return Err(PeopleError::Exists);
        }
        if new.role != Role::Admin && !self.has_users() {
            // From then on nobody is let in as nobody.
            return Err(PeopleError::Invalid { field: "role", why: "the first user is an admin, or nobody could administer" });
        }
        let hash = match new.password {
            Some(password) => Some(self.hashed(password, name).await?),
            None => None,
        };
        let NewUser { role, scopes, accounts, .. } = new;
        let user = User { role, scopes, accounts, disabled: false, password: hash, password_at: now, created_at: now };
        match self.write(Kind::User, 0, name, user, actor).await {
            Err(PeopleError::Conflict { .. }) => Err(PeopleError::Exists),
            made => made,
        }
    }

    /// Changes a user who has this version. Who is locked out has no session any more.
    ///
    /// # Errors
    /// Nobody of that name, another version, a wrong field, the last admin, or the log.
    pub async fn change_user(&self, name: &str, version: u64, change: UserChange, actor: &str) -> Result<Stored<User>, PeopleError> {
        check_rights(change.role, &change.scopes, &change.accounts)?;
        let old = self.user(name).ok_or(PeopleError::Unknown)?;
        if old.version != version {
            return Err(PeopleError::Conflict { current: old.version });
        }
        if change.disabled || change.role != Role::Admin {
            self.leaves_an_admin(&old, actor).await?;
        }
        let UserChange { role, scopes, accounts, disabled } = change;
        let new = User { role, scopes, accounts, disabled, ..old.body.clone() };
        let changed = self.write(Kind::User, version, name, new, actor).await?;
        if disabled {
            self.end_sessions(name, actor).await?;
        }
        Ok(changed)
    }

    /// Sets a password, whoever asks. All sessions of the user end.
    ///
    /// # Errors
    /// Nobody of that name, a weak password, a change at the same time, or the log.
    pub async fn set_password(
        &self,
        name: &str,
        password: Zeroizing<String>,
        actor: &str,
        now: Millis,
    ) -> Result<Stored<User>, PeopleError> {
        let old = self.user(name).ok_or(PeopleError::Unknown)?;
        let hash = self.hashed(password, name).await?;
        let at = now.max(old.body.password_at + 1);
        let user = User { password: Some(hash), password_at: at, ..old.body };
        let changed = self.write(Kind::User, old.version, name, user, actor).await?;
        self.end_sessions(name, actor).await?;
        Ok(changed)
    }

    /// Whether this is the user's password; of somebody unknown or locked out it takes as long to say no.
    ///
    /// # Errors
    /// Too many are being checked.
    pub async fn is_password(&self, name: &str, password: Zeroizing<String>) -> Result<Option<Stored<User>>, PeopleError> {
        let user = self.user(name).filter(|user| !user.body.disabled);
        let hash = user.as_ref().and_then(|user| user.body.password.as_deref());
        let same = self.hasher.verify(password, hash).await?;
        Ok(user.filter(|_| same))
    }

    /// Removes a user with all tokens and sessions. What they own is nobody's then.
    ///
    /// # Errors
    /// Nobody of that name, another version, the last admin, or the log.
    pub async fn remove_user(&self, name: &str, version: u64, actor: &str) -> Result<(), PeopleError> {
        let old = self.user(name).ok_or(PeopleError::Unknown)?;
        if old.version != version {
            return Err(PeopleError::Conflict { current: old.version });
        }
        self.leaves_an_admin(&old, actor).await?;
        self.erase(Kind::User, name, version, actor).await?;
        // What is left serves nobody, also whoever is given the name again: tokens and sessions are of the user who was there then.
        for token in self.tokens().into_iter().filter(|token| token.body.user == name) {
            if let Err(error) = self.revoke_token(&token.id, actor).await {
                tracing::warn!(%error, user = name, token = token.id, "a token of a user who is removed stays, and is good for nothing");
            }
        }
        if let Err(error) = self.end_sessions(name, actor).await {
            tracing::warn!(%error, user = name, "sessions of a user who is removed stay, and are good for nothing");
        }
        Ok(())
    }

    async fn hashed(&self, password: Zeroizing<String>, name: &str) -> Result<String, PeopleError> {
        password::check(&password, name)?;
        Ok(self.hasher.hash(password).await?)
    }

    /// Makes sure that another admin is there, and will be when this one is not any more.
    ///
    /// On several instances each of two admins may be locked out at once, and each leaves the other. So who is to remain is written anew
    /// first, as he is: then the log takes no change of him that was begun before. Of changes that would leave nobody one does not come
    /// through, wherever their writers end: along who was to remain for whom, each was written later than the one before, so there is no circle.
    async fn leaves_an_admin(&self, without: &Stored<User>, actor: &str) -> Result<(), PeopleError> {
        if !is_admin(&without.body) {
            return Ok(());
        }
        let mut tries = TRIES;
        loop {
            let another = self.users().into_iter().find(|user| user.id != without.id && is_admin(&user.body));
            let remains = another.ok_or(PeopleError::LastAdmin)?;
            tries -= 1;
            match self.write(Kind::User, remains.version, &remains.id, remains.body, actor).await {
                // Somebody changed him meanwhile: perhaps he is none any more.
                Err(PeopleError::Conflict { .. }) if tries > 0 => {}
                written => return written.map(|_| ()),
            }
        }
    }
}

/// Whether this is somebody who can log in as an admin.
const fn is_admin(user: &User) -> bool {
    matches!(user.role, Role::Admin) && !user.disabled && user.password.is_some()
}

/// Scopes that the role may have, once each; accounts that can be, not too many.
fn check_rights(role: Role, scopes: &[Scope], accounts: &Grants) -> Result<(), PeopleError> {
    let twice = scopes.iter().enumerate().any(|(place, scope)| scopes[..place].contains(scope));
    if twice {
        return Err(PeopleError::Invalid { field: "scopes", why: "a scope is named twice" });
    }
    if !scopes.iter().all(|scope| role.may_have(*scope)) {
        return Err(PeopleError::Invalid { field: "scopes", why: "the role may not have a scope" });
    }
    if accounts.own.len() > GRANTS_MAX || accounts.view.len() > GRANTS_MAX {
        return Err(PeopleError::Invalid { field: "accounts", why: "a list has at most 1000 accounts" });
    }
    let mut named = accounts.own.iter().chain(&accounts.view);
    if !named.all(|account| AccountId::parse(account.as_bytes()).is_some()) {
        return Err(PeopleError::Invalid { field: "accounts", why: "an account is no account's id" });
    }
    if role == Role::Viewer && !accounts.own.is_empty() {
        return Err(PeopleError::Invalid { field: "accounts.own", why: "a viewer looks only: name accounts in `view`" });
    }
    Ok(())
}
