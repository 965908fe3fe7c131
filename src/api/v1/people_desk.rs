//! What the handlers about people share: the service, the limits, the audit.

use std::sync::Arc;

use serde_json::Value;

use crate::api::caller::Caller;
use crate::api::problem::{ApiCode, Problem};
use crate::api::rate::Rates;
use crate::control::audit::Audit;
use crate::control::people::People;

/// The state of the handlers about people.
pub struct Desk {
    /// The people.
    pub people: Arc<People>,
    /// How often one may try.
    pub rates: Arc<Rates>,
    /// What was done.
    pub audit: Arc<Audit>,
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
    /// The log took it not: what cannot be noted is not said to be done.
    pub async fn note(&self, act: &Act<'_>, changes: Value, result: &str) -> Result<(), Problem> {
        let Act { actor, address, action, object } = act;
        let noted = self.audit.record(actor, address, action, object, changes, result).await;
        noted.map(drop).map_err(|error| {
            tracing::error!(%error, action, object, "an action could not be noted in the audit");
            Problem::new(ApiCode::LogUnavailable, "the audit could not be written; the action may be done all the same")
        })
    }

    /// The same, of a caller.
    ///
    /// # Errors
    /// As [`Desk::note`].
    pub async fn note_of(&self, caller: &Caller, action: &'static str, object: &str, changes: Value, result: &str) -> Result<(), Problem> {
        let address = caller.address.to_string();
        self.note(&Act { actor: &caller.name, address: &address, action, object }, changes, result).await
    }
}
