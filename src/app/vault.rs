//! The vault as the daemon has it: its options, its paths of the API, its upkeep.
//!
//! Invariant: a missing or wrong master key is told in the log and on the vault's paths, and stops nothing else.

use std::sync::Arc;
use std::time::Duration;

use utoipa_axum::router::OpenApiRouter;

use crate::api::caller::now;
use crate::api::v1::{VaultDesk, vault_routes};
use crate::cli::{Exit, Failure, OrExit};
use crate::config::Config;
use crate::control::audit::Audit;
use crate::control::directory::DirectoryService;
use crate::log::Topics;
use crate::vault::{By, Masters, Options, State, Vault, broker};

/// How often a rotation that was cut off is looked for.
const UPKEEP_EVERY: Duration = Duration::from_secs(3_600);
/// What the directory and the audit trail call the daemon.
const DAEMON: By<'static> = By { actor: "ordergate", address: "" };

/// The vault's options.
#[must_use]
pub fn vault_options(config: &Config) -> Options {
    let vault = &config.vault;
    let timeout = Duration::from_millis(vault.broker_timeout_ms);
    Options {
        reveals_per_minute: vault.reveals_per_minute,
        verifications_per_minute: vault.verifications_per_minute,
        keys_per_owner: vault.keys_per_owner_max,
        brokers: broker::Options { urls: vault.broker_urls.clone(), timeout },
        ..Options::default()
    }
}

/// The vault over the directory that people are in.
pub(super) fn open(directory: Arc<DirectoryService>, audit: Arc<Audit>, config: &Config) -> Result<Arc<Vault>, Failure> {
    let vault = Vault::new(directory, audit, Masters::from_environment(), vault_options(config));
    Ok(Arc::new(vault.or_exit(Exit::Usage, || "the vault cannot be opened".to_owned())?))
}

/// Its paths of the API.
pub(super) fn area(vault: Arc<Vault>, topics: Arc<dyn Topics>) -> OpenApiRouter {
    vault_routes().with_state(Arc::new(VaultDesk { vault, topics }))
}

/// Says once how the vault is, and ends from time to time what was cut off.
pub(super) async fn upkeep(vault: Arc<Vault>) {
    let status = vault.status().await;
    match (status.state, status.reason) {
        (State::Locked, Some(reason)) => tracing::warn!(code = "VAULT_LOCKED", %reason, secrets = status.secrets, "the vault is locked"),
        (state, _) => tracing::info!(state = state.as_str(), secrets = status.secrets, "the vault"),
    }
    let mut ticks = tokio::time::interval(UPKEEP_EVERY);
    loop {
        ticks.tick().await;
        match vault.upkeep(DAEMON, now()).await {
            Ok(None) => {}
            Ok(Some(rotation)) => {
                let (to, moved, failed) = (rotation.to, rotation.rewrapped, rotation.failed.len());
                tracing::info!(to, moved, failed, "a rotation of the vault that was cut off was taken up");
            }
            Err(error) => tracing::warn!(reason = error.as_str(), %error, "the vault's upkeep did not go through, and is tried again"),
        }
    }
}
