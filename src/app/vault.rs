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
use crate::domain::Priority;
use crate::log::Topics;
use crate::notify::template::moment;
use crate::notify::{Notice, Notifier};
use crate::vault::{By, Masters, Options, Reminder, ReminderDue, State, Vault, broker};

/// How often a rotation that was cut off is looked for.
const UPKEEP_EVERY: Duration = Duration::from_secs(3_600);
/// What a reminder says.
const EXPIRES: &str = "API_KEY_EXPIRES";
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
pub(super) fn area(vault: Arc<Vault>, topics: Arc<dyn Topics>, directory: Arc<DirectoryService>) -> OpenApiRouter {
    vault_routes().with_state(Arc::new(VaultDesk { vault, topics, directory }))
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
        look(&vault).await;
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

/// The metrics follow: another instance may have made a key that ours does not open, and a secret that does not open is found before
/// somebody needs it.
async fn look(vault: &Vault) {
    if vault.status().await.state != State::Unlocked {
        return;
    }
    for failure in vault.verify().await.failed {
        tracing::error!(code = "SECRET_UNOPENED", key = failure.id, why = failure.why, "a secret of the vault does not open");
    }
}

/// Tells owners that their broker keys end, at the start and once an hour. Each reminder is noted when it is told, so that it comes once.
pub(super) async fn remind(vault: Arc<Vault>, notifier: Arc<Notifier>) {
    let mut ticks = tokio::time::interval(UPKEEP_EVERY);
    loop {
        ticks.tick().await;
        for due in vault.reminders(now()) {
            if tell(&notifier, &due).await
                && let Err(error) = vault.reminded(DAEMON.actor, &due).await
            {
                tracing::warn!(%error, key = due.id, "that a reminder was sent could not be noted; it is looked at again");
            }
        }
    }
}

/// Whether it is told: in the inbox for good, and on its way.
async fn tell(notifier: &Notifier, due: &ReminderDue) -> bool {
    match notifier.tell(&notice_of(due, &key_of(due))).await {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!(%error, key = due.id, "a reminder could not be written, and is tried again");
            false
        }
    }
}

fn key_of(due: &ReminderDue) -> String {
    format!("{}:{}:{}", due.id, due.reminder.days(), due.expires_at)
}

fn notice_of<'a>(due: &'a ReminderDue, key: &'a str) -> Notice<'a> {
    let ReminderDue { id, owner, name, broker, reminder, expires_at } = due;
    let (broker, at) = (broker.as_str(), moment(*expires_at));
    let (priority, title, verb) = match reminder {
        Reminder::Days14 => (Priority::Medium, "A broker key ends within 14 days", "ends"),
        Reminder::Days3 => (Priority::High, "A broker key ends within 3 days", "ends"),
        Reminder::Days0 => (Priority::High, "A broker key has ended", "has ended"),
    };
    let data = serde_json::json!({"api_key_id": id, "name": name, "broker": broker, "expires_at": at, "days": reminder.days()});
    Notice {
        key,
        user: owner,
        code: EXPIRES,
        priority,
        title: title.to_owned(),
        message: format!("The key {name:?} for {broker} {verb} at {at}. Rotate it, or give it another end."),
        data: data.as_object().cloned().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vault::Broker;
    use crate::vault::tests::world::{MemoryLog, filled, masters, runtime, vault};

    #[test]
    fn a_secret_that_does_not_open_is_found_before_somebody_needs_it() {
        let recorder = crate::telemetry::local_recorder().unwrap();
        let (shown, _recording) = (recorder.handle(), metrics::set_default_local_recorder(&recorder));
        runtime().block_on(async {
            let log = MemoryLog::new();
            let ids = filled(&vault(&log, masters(1)), 3).await;
            let mut records = log.records();
            for (_, record) in &mut records {
                let text = String::from_utf8(record.payload.clone()).unwrap();
                let is_it = String::from_utf8_lossy(record.key.as_deref().unwrap_or_default()).contains(&ids[1]);
                record.payload = if is_it { text.replace("\"owner\":\"alice\"", "\"owner\":\"mallory\"") } else { text }.into_bytes();
            }
            // A locked vault is told of by a metric of its own.
            look(&vault(&MemoryLog::holding(records.clone()), Masters::none())).await;
            assert!(!shown.render().contains("ordergate_vault_unopened_secrets"), "{}", shown.render());
            look(&vault(&MemoryLog::holding(records), masters(1))).await;
            assert!(shown.render().contains("\nordergate_vault_unopened_secrets 1\n"), "{}", shown.render());
        });
    }

    #[test]
    fn a_reminder_says_which_key_ends_when_and_another_reminder_is_another_notice() {
        let due = |reminder| ReminderDue {
            id: "key_1".to_owned(),
            owner: "ann".to_owned(),
            name: "main".to_owned(),
            broker: Broker::Alpaca,
            reminder,
            expires_at: 1_767_312_000_000,
        };
        let (first, last) = (due(Reminder::Days14), due(Reminder::Days0));
        assert_ne!(key_of(&first), key_of(&last));
        let key = key_of(&last);
        let notice = notice_of(&last, &key);
        assert_eq!((notice.user, notice.priority, notice.title.as_str()), ("ann", Priority::High, "A broker key has ended"));
        assert_eq!(notice.message, "The key \"main\" for alpaca has ended at 2026-01-02T00:00:00Z. Rotate it, or give it another end.");
        assert_eq!(notice.data["days"], 0);
    }
}
