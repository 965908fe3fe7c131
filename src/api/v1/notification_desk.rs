//! What the handlers about notifications share: the notifier, and the audit of what people change.
//!
//! Invariant: a preference, an address or a subscription is changed when the audit says so. Deliberately absent: marks in the inbox,
//! which are nobody else's business; and of addresses and subscriptions all but the channel and the id.

use std::ops::Deref;
use std::sync::Arc;

use axum::http::HeaderMap;
use serde_json::Value;

use super::acts;
use super::idempotency::{self, Begun};
use super::notifications::own;
use crate::api::caller::Caller;
use crate::api::problem::Problem;
use crate::control::audit::Audit;
use crate::control::directory::DirectoryService;
use crate::notify::Notifier;

/// The state of the handlers about notifications.
pub struct NotifyDesk {
    /// The notifier.
    pub notifier: Arc<Notifier>,
    /// Where `Idempotency-Key`s are kept.
    pub directory: Arc<DirectoryService>,
    /// What was done.
    pub audit: Arc<Audit>,
}

impl Deref for NotifyDesk {
    type Target = Notifier;

    fn deref(&self) -> &Notifier {
        &self.notifier
    }
}

impl NotifyDesk {
    /// Changes something of the caller's own, and notes it.
    ///
    /// # Errors
    /// What it ended with, or the log.
    pub async fn audited<T>(
        &self,
        caller: &Caller,
        (action, thing): (&'static str, &str),
        changes: Value,
        done: impl Future<Output = Result<T, Problem>>,
    ) -> Result<T, Problem> {
        let object = format!("user:{}/{thing}", own(caller));
        acts::audited_of(&self.audit, caller, (action, &object), changes, done).await
    }

    /// Binds a request's key, if it has one, to what it makes.
    ///
    /// # Errors
    /// The key is none, came with another body, or the log.
    pub async fn begin(&self, caller: &Caller, what: &str, headers: &HeaderMap, body: &[u8], id: String) -> Result<Begun, Problem> {
        idempotency::begin(&self.directory, caller, what, headers, body, id).await
    }
}
