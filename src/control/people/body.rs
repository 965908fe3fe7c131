//! What the directory holds of people: users, API tokens, sessions, as JSON.
//!
//! Invariant: no secret is in here that could be used: passwords are Argon2id hashes, tokens are hashes of 256 random bits. Unknown
//! fields are refused, so that a record of a newer version is not read as less than it says. Deliberately absent: contact details
//! and preferences; other rooms own them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::{Millis, OwnerId};

/// What a person or a program may do at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Everything, save what needs a scope of its own.
    Admin,
    /// Own accounts.
    User,
    /// Reads the accounts granted to it.
    Viewer,
    /// A program: its scopes, on the accounts granted to it.
    Service,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Admin, Self::User, Self::Viewer, Self::Service];

    /// Its name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::User => "user",
            Self::Viewer => "viewer",
            Self::Service => "service",
        }
    }

    /// The scopes that come with it. `vault:reveal` comes with none: who may see a broker's key was told so by name.
    #[must_use]
    pub const fn scopes(self) -> &'static [Scope] {
        match self {
            Self::Admin => &[Scope::IntentsWrite, Scope::RecordsWrite, Scope::DecisionsRead],
            Self::User => &[Scope::IntentsWrite],
            Self::Viewer | Self::Service => &[],
        }
    }

    /// Whether such a person may be given this scope beyond those of the role.
    #[must_use]
    pub const fn may_have(self, scope: Scope) -> bool {
        match self {
            Self::Admin | Self::User | Self::Service => true,
            Self::Viewer => matches!(scope, Scope::DecisionsRead),
        }
    }
}

/// A right that is given by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
pub enum Scope {
    /// Orders, amends, cancels into `orders.intents`, of accounts that one may write.
    #[serde(rename = "intents:write")]
    IntentsWrite,
    /// Any record of any input topic, of any account.
    #[serde(rename = "records:write")]
    RecordsWrite,
    /// The topics, whole, of all accounts.
    #[serde(rename = "decisions:read")]
    DecisionsRead,
    /// The secret of a broker key that one may see.
    #[serde(rename = "vault:reveal")]
    VaultReveal,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::IntentsWrite, Self::RecordsWrite, Self::DecisionsRead, Self::VaultReveal];

    /// Its name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::IntentsWrite => "intents:write",
            Self::RecordsWrite => "records:write",
            Self::DecisionsRead => "decisions:read",
            Self::VaultReveal => "vault:reveal",
        }
    }
}

/// The accounts that were granted to someone, beside those whose `owner` they are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Grants {
    /// All accounts, also those that are opened later.
    #[serde(default)]
    pub all: bool,
    /// Accounts as if they were the owner's.
    #[serde(default)]
    #[schema(max_items = 1000)]
    pub own: Vec<String>,
    /// Accounts to look at.
    #[serde(default)]
    #[schema(max_items = 1000)]
    pub view: Vec<String>,
}

/// The most accounts in one list of [`Grants`].
pub const GRANTS_MAX: usize = 1_000;

/// Kind `user`; the id is the name to log in with, and the `owner` of accounts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// What they may do at most.
    pub role: Role,
    /// Scopes beyond those of the role.
    pub scopes: Vec<Scope>,
    /// Accounts granted.
    pub accounts: Grants,
    /// Whether they are locked out; what they own stays theirs.
    pub disabled: bool,
    /// The password's hash as a PHC string. Without one they cannot log in: programs have tokens only.
    pub password: Option<String>,
    /// When the password was set: which one it is. Sessions that began with another one are over.
    pub password_at: Millis,
    /// When they were created.
    pub created_at: Millis,
}

impl User {
    /// All that they may do: what the role brings and what was given.
    #[must_use]
    pub fn all_scopes(&self) -> Vec<Scope> {
        let given = |scope: &Scope| self.role.scopes().contains(scope) || self.scopes.contains(scope);
        Scope::ALL.into_iter().filter(|scope| given(scope) && (self.role.scopes().contains(scope) || self.role.may_have(*scope))).collect()
    }
}

/// Kind `token`: an API token for a program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiToken {
    /// Who it acts as.
    pub user: String,
    /// What it is for.
    pub name: String,
    /// What it may do of what its user may.
    pub scopes: Vec<Scope>,
    /// The hash of its secret, hexadecimal.
    pub hash: String,
    /// When it was made.
    pub created_at: Millis,
    /// When it ends, if ever.
    pub expires_at: Option<Millis>,
    /// When it was last used, to the minute.
    pub last_used_at: Option<Millis>,
    /// The token that made it: it is good as long as that one is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_by: Option<String>,
}

/// Kind `session`: a family of refresh tokens, of which one is good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Session {
    /// Whose.
    pub user: String,
    /// Tells this session from an older one that had the same id.
    pub family: String,
    /// The hash of the refresh token that is good, hexadecimal.
    pub hash: String,
    /// With which password it began.
    pub password_at: Millis,
    /// From where it began.
    pub address: String,
    /// When it began.
    pub created_at: Millis,
    /// When it was last refreshed.
    pub refreshed_at: Millis,
}

/// Whether this may be the name of a user: an id that can own accounts, without `:` and not starting with a mark.
#[must_use]
pub fn is_user_name(name: &str) -> bool {
    OwnerId::parse(name.as_bytes()).is_some() && !name.contains(':') && name.starts_with(|first: char| first.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_may_reveal_who_was_not_told_so_by_name() {
        let user = |role, scopes: &[Scope]| User {
            role,
            scopes: scopes.to_vec(),
            accounts: Grants::default(),
            disabled: false,
            password: None,
            password_at: 0,
            created_at: 0,
        };
        for role in Role::ALL {
            assert!(!user(role, &[]).all_scopes().contains(&Scope::VaultReveal), "{role:?}");
        }
        assert!(user(Role::Admin, &[Scope::VaultReveal]).all_scopes().contains(&Scope::VaultReveal));
        assert_eq!(user(Role::Viewer, &Scope::ALL).all_scopes(), [Scope::DecisionsRead]);
        assert_eq!(user(Role::Service, &[Scope::IntentsWrite]).all_scopes(), [Scope::IntentsWrite]);
    }

    #[test]
    fn names_can_own_accounts_and_hold_no_separator() {
        for name in ["u1", "alice", "A.b-c_d", "0"] {
            assert!(is_user_name(name), "{name}");
        }
        for name in ["", "a:b", "a b", ".a", "-a", "ä", "a/b", "a@b", &"x".repeat(65)] {
            assert!(!is_user_name(name), "{name}");
        }
    }

    #[test]
    fn a_record_with_an_unknown_field_is_refused() {
        let json = r#"{"role":"admin","scopes":[],"accounts":{},"disabled":false,"password":null,"password_at":0,"created_at":0}"#;
        assert!(serde_json::from_str::<User>(json).is_ok());
        assert!(serde_json::from_str::<User>(&json.replacen('{', r#"{"owner":1,"#, 1)).is_err());
        assert!(serde_json::from_str::<User>(&json.replace("admin", "root")).is_err());
    }
}
