//! The topics as the cluster has them: made where they are missing, and held against what they must be.
//!
//! Invariant: nothing that exists is altered. What is wrong is told, with the command that mends it, and
//! an operator decides. Deliberately absent: deleting, more partitions, any change of a setting.

mod check;
mod create;
mod finding;
mod look;
mod wanted;

#[cfg(test)]
mod tests;

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions};
use tokio::runtime::Runtime;

use crate::log::LogError;

use super::client::{Context, Nobody};
use super::cluster::Cluster;
use super::error::not_created;
use super::settings::{Role, client_config};

pub use check::check;
pub use create::{Creation, NotCreated};
pub use finding::{Finding, Guarantee, Severity, in_words};
pub use look::{Seen, SeenBroker, SeenPartition, SeenTopic, Unseen};
pub use wanted::Plan;

/// How long the cluster may take to make topics.
const CREATE_PATIENCE: Duration = Duration::from_secs(30);

/// The side of a cluster that makes topics and tells their settings.
pub struct Admin {
    cluster: Cluster,
    client: AdminClient<Context>,
    waits: Runtime,
}

impl Admin {
    /// Nothing is asked yet.
    ///
    /// # Errors
    /// The settings are refused.
    pub fn new(cluster: &Cluster) -> Result<Self, LogError> {
        let config = client_config(cluster.options(), Role::Admin)?;
        let client = config.create_with_context(cluster.context(Nobody)).map_err(|error| not_created(&error))?;
        let waits = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let waits = waits.map_err(|error| LogError::Io { detail: error.to_string() })?;
        Ok(Self { cluster: cluster.clone(), client, waits })
    }

    fn options(&self) -> AdminOptions {
        let patience = self.cluster.patience();
        AdminOptions::new().request_timeout(Some(patience)).operation_timeout(Some(patience))
    }
}
