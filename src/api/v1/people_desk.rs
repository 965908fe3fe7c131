//! What the handlers about people share: the service, the limits, the audit.

use std::sync::Arc;

use serde_json::Value;

use crate::api::caller::{Caller, people_problem};
use crate::api::problem::Problem;
use crate::api::rate::Rates;
use crate::control::audit::Audit;
use crate::control::people::People;
use crate::notify;
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

    /// Erases what someone leaves who is gone: broker keys, preferences, addresses, subscriptions, marks and notices in the inbox.
    ///
    /// # Errors
    /// Some of it is still there; making a user of that name erases it first.
    pub async fn erase_left(&self, caller: &Caller, name: &str) -> Result<(), Problem> {
        let address = caller.address.to_string();
        let erased = self.vault.erase_owner(By { actor: &caller.name, address: &address }, name).await;
        erased.map_err(|error| told(&error))?;
        let erased = notify::people::erase(self.people.directory(), name, &caller.name).await;
        erased.map_err(|error| people_problem(error.into()))
    }
}
