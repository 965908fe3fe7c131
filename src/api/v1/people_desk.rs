//! What the handlers about people share: the service, the limits, the audit.

use std::sync::Arc;

use serde_json::Value;

use crate::api::caller::Caller;
use crate::api::problem::{ApiCode, Problem};
use crate::api::rate::Rates;
use crate::control::audit::Audit;
use crate::control::people::People;
use crate::vault::{By, Vault};

use super::api_keys::told;

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

/// Something that was done, or tried.
pub struct Act<'a> {
    /// Who.
    pub actor: &'a str,
    /// From where.
    pub address: &'a str,
    /// What.
    pub action: &'static str,
    /// To what.
    pub object: &'a str,
}

impl Desk {
    /// Notes what was done; durable when it comes back.
    ///
    /// # Errors
    /// The log took it not.
    pub async fn note(&self, act: &Act<'_>, changes: Value, result: &str) -> Result<(), Problem> {
        let Act { actor, address, action, object } = act;
        let noted = self.audit.record(actor, address, action, object, changes, result).await;
        noted.map(drop).map_err(|error| {
            tracing::error!(%error, action, object, "an action could not be noted in the audit");
            Problem::new(ApiCode::LogUnavailable, "the audit could not be written, and what it does not say is not done")
        })
    }

    /// Notes that a caller begins something, does it, and notes how it ended. What could not be noted first is not done.
    ///
    /// # Errors
    /// What it ended with, or the log.
    pub async fn audited<T>(
        &self,
        caller: &Caller,
        (action, object): (&'static str, &str),
        changes: Value,
        done: impl Future<Output = Result<T, Problem>>,
    ) -> Result<T, Problem> {
        let address = caller.address.to_string();
        let act = Act { actor: &caller.name, address: &address, action, object };
        self.note(&act, changes, "begun").await?;
        let done = done.await;
        let result = done.as_ref().map_or_else(|problem| problem.code().as_str(), |_| "ok");
        // That it was begun is noted already; how it ended is told all the same.
        let _ = self.note(&act, Value::Object(serde_json::Map::new()), result).await;
        done
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
