//! The vault as it is configured.

use std::time::Duration;

use crate::config::Config;
use crate::vault::{Options, broker};

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
