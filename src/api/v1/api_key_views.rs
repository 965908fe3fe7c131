//! What `/api/v1/api-keys` shows.
//!
//! Invariant: no view but [`Revealed`] has a place for a secret.

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::users::moment;
use crate::control::audit::Entry;
use crate::vault::{Basis, Broker, Environment, Key, Outcome, Status, Verified};

/// A broker key, without its secrets.
#[derive(Serialize, ToSchema)]
#[schema(as = ApiKey)]
pub struct ApiKeyView {
    /// Its id.
    id: String,
    /// Whose it is.
    owner: String,
    /// Whose customer.
    broker: Broker,
    /// What its owner calls it.
    name: String,
    /// Whether it moves money.
    environment: Environment,
    /// What may be done with it.
    status: Status,
    /// When it ends (RFC 3339), if ever.
    expires_at: Option<String>,
    /// The last four characters of the key.
    last4: String,
    /// The version of the secret.
    secret_version: u64,
    /// The versions that the secret has had, the newest last.
    versions: Vec<VersionView>,
    /// When the secret was last opened for somebody (RFC 3339), to the minute.
    last_used_at: Option<String>,
    /// What the last verification of this version said.
    verified: Option<VerifiedView>,
    /// When it was made (RFC 3339).
    created_at: String,
    /// When somebody last changed it (RFC 3339).
    updated_at: String,
    /// The revision, as `ETag` has it.
    revision: u64,
}

/// One version of a secret.
#[derive(Serialize, ToSchema)]
#[schema(as = ApiKeyVersion)]
pub struct VersionView {
    /// From 1.
    version: u64,
    /// When it came (RFC 3339).
    created_at: String,
    /// Who brought it.
    created_by: String,
    /// When it was last opened for somebody (RFC 3339), to the minute.
    last_used_at: Option<String>,
}

/// What came of a verification.
#[derive(Serialize, ToSchema)]
#[schema(as = ApiKeyVerified)]
pub struct VerifiedView {
    /// What it rests on.
    checked: Basis,
    /// What came of it.
    outcome: Outcome,
    /// Why.
    detail: String,
    /// The version of the secret.
    secret_version: u64,
    /// When (RFC 3339).
    verified_at: String,
}

/// A page of keys, by id.
#[derive(Serialize, ToSchema)]
pub struct ApiKeyList {
    /// The keys.
    pub items: Vec<ApiKeyView>,
    /// The `cursor` of the next page; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// The secrets of a key.
#[derive(Serialize, ToSchema)]
#[schema(as = ApiKeyRevealed)]
pub struct Revealed<'a> {
    /// The key's id.
    pub id: &'a str,
    /// Whose customer.
    pub broker: Broker,
    /// The key.
    pub key: &'a str,
    /// The secret.
    pub secret: &'a str,
    /// The passphrase, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub passphrase: Option<&'a str>,
}

/// Something that was done with a key, or tried.
#[derive(Serialize, ToSchema)]
#[schema(as = ApiKeyAuditEntry)]
pub struct AuditEntry {
    /// When (RFC 3339).
    at: String,
    /// Who.
    actor: String,
    /// From where.
    address: String,
    /// What.
    action: String,
    /// What changed; never a secret.
    #[schema(value_type = Object)]
    changes: Value,
    /// `asked` before a change, then `ok` or why not.
    result: String,
    /// Where it stands in the audit trail.
    offset: u64,
}

/// A page of the audit trail.
#[derive(Serialize, ToSchema)]
#[schema(as = ApiKeyAuditLog)]
pub struct AuditLog {
    /// The entries, the newest first.
    pub items: Vec<AuditEntry>,
    /// The `cursor` of the next page; absent at the end. A page can be empty and have one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

impl From<Key> for ApiKeyView {
    fn from(key: Key) -> Self {
        let Key { id, stored, status } = key;
        let secret_version = stored.version();
        let versions = stored.versions.into_iter().map(|version| VersionView {
            version: version.version,
            created_at: moment(version.created_at),
            created_by: version.created_by,
            last_used_at: version.last_used_at.map(moment),
        });
        let versions: Vec<VersionView> = versions.collect();
        Self {
            id,
            owner: stored.owner,
            broker: stored.broker,
            name: stored.name,
            environment: stored.environment,
            status,
            expires_at: stored.expires_at.map(moment),
            last4: stored.last4,
            secret_version,
            last_used_at: versions.last().and_then(|version| version.last_used_at.clone()),
            versions,
            verified: stored.verified.map(VerifiedView::from),
            created_at: moment(stored.created_at),
            updated_at: moment(stored.changed_at),
            revision: stored.revision,
        }
    }
}

impl From<Verified> for VerifiedView {
    fn from(verified: Verified) -> Self {
        let Verified { checked, version, at } = verified;
        Self { checked: checked.basis, outcome: checked.outcome, detail: checked.detail, secret_version: version, verified_at: moment(at) }
    }
}

impl From<Entry> for AuditEntry {
    fn from(entry: Entry) -> Self {
        let Entry { link, offset, .. } = entry;
        let (actor, address, action) = (link.actor, link.address, link.action);
        Self { at: moment(link.at), actor, address, action, changes: link.changes, result: link.result, offset }
    }
}
