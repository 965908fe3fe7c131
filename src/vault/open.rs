//! Secrets opened for somebody: revealed, or shown to their broker.
//!
//! Invariant: a reveal is in the audit trail before its answer leaves this room; who cannot be audited gets nothing. Only active keys
//! are revealed. Deliberately absent: a cache of what was opened.

use serde_json::json;

use super::broker::Checked;
use super::keys::Lock;
use super::secrets::Secrets;
use super::stored::{Status, Stored, Verified};
use super::{By, Vault, VaultError, object};

/// A use is noted when the last one noted is older than this: not every reveal is worth a record of the directory, the audit trail
/// has them all.
const USE_STEP_MS: i64 = 60_000;

impl Vault {
    /// The secrets of an active key.
    ///
    /// # Errors
    /// Too often, the key is not active, the vault is locked, the secret does not open, or the audit trail cannot be written.
    pub async fn reveal(&self, by: By<'_>, id: &str, now: i64) -> Result<Secrets, VaultError> {
        let turn = self.reveals.take(by.actor, now).map_err(|retry_after_s| VaultError::TooOften { retry_after_s });
        let mut version = 0;
        let done = async {
            turn?;
            let (_, stored) = self.read(id)?;
            version = stored.version();
            match stored.status(now) {
                Status::Active => self.open_secrets(id, &stored).await,
                Status::Revoked => Err(VaultError::Revoked),
                status @ (Status::Inactive | Status::Expired) => Err(VaultError::NotActive { status }),
            }
        };
        let done = done.await;
        let secrets = self.noted(by, "api_key.reveal", &object(id), json!({"secret_version": version}), done).await?;
        self.used(by, id, version, None, now).await;
        Ok(secrets)
    }

    /// Notes that somebody who may not see secrets asked for one.
    pub async fn refused(&self, by: By<'_>, id: &str) {
        let recorded = self.audit.record(by.actor, by.address, "api_key.reveal", &object(id), json!({}), "FORBIDDEN").await;
        if let Err(error) = recorded {
            tracing::warn!(code = error.code(), id, "that a secret was asked for, and not told, is not in the audit trail");
        }
    }

    /// Opens the secrets and asks the broker about them, or looks at their format.
    ///
    /// # Errors
    /// As [`Vault::reveal`], but the key need not be active.
    pub async fn verify_key(&self, by: By<'_>, id: &str, now: i64) -> Result<Verified, VaultError> {
        let turn = self.verifications.take(by.actor, now).map_err(|retry_after_s| VaultError::TooOften { retry_after_s });
        let done = async {
            turn?;
            let (_, stored) = self.read(id)?;
            let secrets = self.open_secrets(id, &stored).await?;
            let checked = self.brokers.check(stored.broker, stored.environment, &secrets, now).await;
            Ok(Verified { checked, version: stored.version(), at: now })
        };
        let done: Result<Verified, VaultError> = done.await;
        let about =
            done.as_ref().map_or_else(|_| json!({}), |said| json!({"checked": said.checked.basis, "outcome": said.checked.outcome}));
        let verified = self.noted(by, "api_key.verify", &object(id), about, done).await?;
        self.used(by, id, verified.version, Some(verified.checked.clone()), now).await;
        Ok(verified)
    }

    /// What is sealed, in memory that is overwritten when the caller is done.
    pub(super) async fn open_secrets(&self, id: &str, stored: &Stored) -> Result<Secrets, VaultError> {
        let envelope = stored.sealed.as_ref().ok_or(VaultError::Revoked)?;
        let kek = self.kek(envelope.kek).await?;
        let opened = envelope.open(&kek, stored.place(id)).map_err(|_| VaultError::Damaged)?;
        Secrets::decode(&opened).ok_or(VaultError::Damaged)
    }

    /// Notes a use, and what a verification said. The operation has happened and is audited: a failure here is only logged.
    async fn used(&self, by: By<'_>, id: &str, version: u64, checked: Option<Checked>, now: i64) {
        let noted = self.update(id, None, by.actor, Lock::IsNothing, |stored, _| {
            if let Some(of) = stored.versions.iter_mut().find(|of| of.version == version)
                && of.last_used_at.is_none_or(|last| now - last >= USE_STEP_MS)
            {
                of.last_used_at = Some(now);
            }
            if let Some(checked) = checked.clone().filter(|_| stored.version() == version) {
                stored.verified = Some(Verified { checked, version, at: now });
            }
            Ok(())
        });
        if let Err(error) = noted.await {
            tracing::warn!(
                code = "VAULT_USE_NOT_NOTED",
                key = id,
                reason = error.as_str(),
                "the use of a key is not noted; the audit trail has it"
            );
        }
    }
}
