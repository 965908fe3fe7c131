//! What the handlers about people share: the service, the limits, the audit.

use std::sync::Arc;

use serde_json::Value;

use crate::api::caller::Caller;
use crate::api::problem::Problem;
use crate::api::rate::Rates;
use crate::control::audit::Audit;
use crate::control::people::People;
use crate::vault::{By, Vault};

use super::acts;
use super::api_keys::told;

pub use super::acts::Act;

/// The state of the handlers about people.
pub struct Desk {
    /// The people.
    pub people: Arc<People>,
    /// How often one may try.
    pub rates: Arc<Rates>,
    /// What was done.
    pub audit: Arc<Audit>,
    /// What people have in the vault.
    pub vault: Arc<Vault>,
}

impl Desk {
    /// Notes what was done; durable when it comes back.
    ///
    /// # Errors
    /// The log took it not.
    pub async fn note(&self, act: &Act<'_>, changes: Value, result: &str) -> Result<(), Problem> {
        acts::note(&self.audit, act, changes, result).await
    }

    /// Notes that a caller begins something, does it, and notes how it ended. What could not be noted first is not done.
    ///
    /// # Errors
    /// What it ended with, or the log.
    pub async fn audited<T>(
        &self,
        caller: &Caller,
        what: (&'static str, &str),
        changes: Value,
        done: impl Future<Output = Result<T, Problem>>,
    ) -> Result<T, Problem> {
        acts::audited_of(&self.audit, caller, what, changes, done).await
    }

    /// Erases the broker keys of someone who is gone.
    ///
    /// # Errors
    /// Some are still there; making a user of that name erases them first.
    pub async fn erase_keys(&self, caller: &Caller, owner: &str) -> Result<(), Problem> {
        let address = caller.address.to_string();
        let erased = self.vault.erase_owner(By { actor: &caller.name, address: &address }, owner).await;
        erased.map(drop).map_err(|error| told(&error))
    }
}
