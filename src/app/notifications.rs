//! Notifications as the daemon has them: who hears of what, and the configuration's `notify` section as channels, with keys and passwords from their files.
//!
//! Invariant: whatever is wrong stops the start and names the key; a channel whose first key is empty is off. Deliberately absent: secrets in
//! the configuration itself, and in what is said about a file that cannot be read.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use secrecy::{SecretBox, SecretString};
use tokio::runtime::Handle;
use utoipa_axum::router::OpenApiRouter;

use super::control::Trails;
use crate::api::caller::{OPEN, Owners};
use crate::api::v1::{NotifyDesk, notify_public_routes, notify_routes};
use crate::cli::{Exit, Failure};
use crate::config::{Config, LogKind, NotifyOptions, SmtpTls};
use crate::control::people::{People, Role, Stored, User};
use crate::control::replica::Replicas;
use crate::log::Topics;
use crate::notify::channels::Channels;
use crate::notify::email::{Email, EmailOptions, Encryption};
use crate::notify::http::Guard;
use crate::notify::push::{Push, PushOptions, VapidKey};
use crate::notify::raised::Raised;
use crate::notify::sms::{Sms, SmsOptions};
use crate::notify::template::Templates;
use crate::notify::webhook::{KEY_BYTES_MIN, Webhook, WebhookOptions};
use crate::notify::{self, Audience, Limits, Notifier, UserId};

/// Who may look at an account hears of it; admins hear of what concerns no single one.
struct Readers {
    people: Arc<People>,
    replicas: Arc<Replicas>,
}

impl Readers {
    fn those(&self, may: impl Fn(&Stored<User>) -> bool) -> Vec<UserId> {
        let users = self.people.users();
        // Without users there is one person, who may do everything.
        if users.is_empty() {
            return vec![OPEN.into()];
        }
        users.into_iter().filter(|user| !user.body.disabled && may(user)).map(|user| user.id.into()).collect()
    }
}

impl Audience for Readers {
    fn hears(&self, account: &str) -> Vec<UserId> {
        let owner = Owners::owner(&*self.replicas, account);
        let named = |names: &[String]| names.iter().any(|name| name == account);
        self.those(|Stored { id, body, .. }| {
            body.role == Role::Admin
                || body.accounts.all
                || named(&body.accounts.own)
                || named(&body.accounts.view)
                || owner.is_some_and(|owner| owner.as_str() == id)
        })
    }

    fn operators(&self) -> Vec<UserId> {
        self.those(|user| user.body.role == Role::Admin)
    }

    fn knows(&self, raised: &Raised, read_at: Instant) -> bool {
        let Some(account) = &raised.account else { return true };
        if Owners::owner(&*self.replicas, account).is_some() {
            return true;
        }
        // The record that raised it stood in the ledger before it was read: a replica that has passed it, or has read all since then, knows
        // of every account that there was. One that is broken will never know.
        let passed = self.replicas.position().get(raised.id.shard as usize).is_none_or(|at| at.seq >= raised.id.seq || at.broken.is_some());
        passed || self.replicas.seen_all().is_some_and(|seen| seen >= read_at)
    }
}

/// Starts the notifier: the inboxes always, deliveries beside them if they are on.
///
/// # Errors
/// A channel is not set up as it has to be.
pub(super) fn start(
    runtime: &Handle,
    topics: Arc<dyn Topics>,
    people: &Arc<People>,
    replicas: Arc<Replicas>,
    config: &Config,
) -> Result<Arc<Notifier>, Failure> {
    let audience = Arc::new(Readers { people: people.clone(), replicas });
    let channels = channels_of(&config.notify)?;
    Ok(Notifier::start(runtime, topics, people.directory().clone(), audience, channels, options_of(config)))
}

/// Its paths of the API: for those who proved who they are, and for anyone.
pub(super) fn areas(notifier: &Arc<Notifier>, trails: &Trails) -> (OpenApiRouter, OpenApiRouter) {
    let Trails { directory, audit } = trails.clone();
    let desk = Arc::new(NotifyDesk { notifier: notifier.clone(), directory, audit });
    (notify_routes().with_state(desk.clone()), notify_public_routes().with_state(desk))
}

fn wrong(key: &str, why: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Usage, format!("{key}: {why}"))
}

/// How the notifier behaves.
#[must_use]
pub fn options_of(config: &Config) -> notify::Options {
    let notify = &config.notify;
    let limits = Limits { storm_per_minute: notify.storm_per_minute, pending_max: notify.pending_max, ..Limits::default() };
    let lease = match config.log.kind {
        LogKind::Embedded => None,
        LogKind::Kafka => Some(Duration::from_millis(notify.lease_ms)),
    };
    notify::Options { limits, lease, ..notify::Options::default() }
}

/// The channels that are set up: none while deliveries are off, and then nothing of theirs is read.
///
/// # Errors
/// A key's file cannot be read or does not hold what it has to.
pub fn channels_of(notify: &NotifyOptions) -> Result<Channels, Failure> {
    if !notify.enabled {
        return Ok(Channels::none(Templates::load(None, "").map_err(|error| wrong("notify", error))?));
    }
    let folder = Some(notify.templates_dir.as_path()).filter(|folder| !folder.as_os_str().is_empty());
    let templates = Templates::load(folder, &notify.public_url).map_err(|error| wrong("notify.templates_dir", error))?;
    Ok(Channels { email: email(notify)?, push: push(notify)?, sms: sms(notify)?, webhook: webhook(notify)?, templates })
}

fn email(notify: &NotifyOptions) -> Result<Option<Email>, Failure> {
    let smtp = &notify.smtp;
    if smtp.host.is_empty() {
        return Ok(None);
    }
    if notify.public_url.is_empty() {
        return Err(wrong("notify.public_url", "e-mail needs it: addresses are verified by a link"));
    }
    let login =
        if smtp.user.is_empty() { None } else { Some((smtp.user.clone(), secret("notify.smtp.password_file", &smtp.password_file)?)) };
    let options = EmailOptions {
        host: smtp.host.clone(),
        port: smtp.port,
        encryption: match smtp.tls {
            SmtpTls::Tls => Encryption::Tls,
            SmtpTls::StartTls => Encryption::StartTls,
            SmtpTls::None => Encryption::None,
        },
        login,
        from: smtp.from.clone(),
        ca_file: Some(smtp.ca_file.clone()).filter(|path| !path.as_os_str().is_empty()),
        timeout: Duration::from_millis(smtp.timeout_ms),
        connections_max: smtp.connections_max,
    };
    Email::new(&options).map(Some).map_err(|error| wrong("notify.smtp", error))
}

fn webhook(notify: &NotifyOptions) -> Result<Option<Webhook>, Failure> {
    let webhook = &notify.webhook;
    if webhook.key_file.as_os_str().is_empty() {
        return Ok(None);
    }
    let key = bytes("notify.webhook.key_file", &webhook.key_file)?;
    if key.len() < KEY_BYTES_MIN {
        return Err(wrong("notify.webhook.key_file", format!("{} bytes, at least {KEY_BYTES_MIN} are needed", key.len())));
    }
    let key = Arc::new(SecretBox::new(key.into_boxed_slice()));
    let options =
        WebhookOptions { key, guard: Guard::new(webhook.allow_private), timeout: Duration::from_millis(webhook.timeout_ms), ca_file: None };
    Webhook::new(options).map(Some).map_err(|error| wrong("notify.webhook", error))
}

fn push(notify: &NotifyOptions) -> Result<Option<Push>, Failure> {
    let push = &notify.push;
    if push.key_file.as_os_str().is_empty() {
        return Ok(None);
    }
    if !push.subject.starts_with("mailto:") && !push.subject.starts_with("https://") {
        return Err(wrong("notify.push.subject", "it begins with mailto: or https://"));
    }
    let pem = bytes("notify.push.key_file", &push.key_file)?;
    let pem = String::from_utf8(pem).map_err(|_| wrong("notify.push.key_file", "is no PEM"))?;
    let options = PushOptions {
        key: VapidKey::from_pem(&pem).map_err(|error| wrong("notify.push.key_file", error))?,
        subject: push.subject.clone(),
        guard: Guard::new(notify.webhook.allow_private),
        timeout: Duration::from_millis(notify.webhook.timeout_ms),
        ca_file: None,
    };
    Push::new(options).map(Some).map_err(|error| wrong("notify.push", error))
}

fn sms(notify: &NotifyOptions) -> Result<Option<Sms>, Failure> {
    let sms = &notify.sms;
    if sms.url.is_empty() {
        return Ok(None);
    }
    for (key, value) in [("notify.sms.account", &sms.account), ("notify.sms.from", &sms.from)] {
        if value.is_empty() {
            return Err(wrong(key, "is empty"));
        }
    }
    let options = SmsOptions {
        url: sms.url.parse().map_err(|error| wrong("notify.sms.url", error))?,
        account: sms.account.clone(),
        token: secret("notify.sms.token_file", &sms.token_file)?,
        from: sms.from.clone(),
        timeout: Duration::from_millis(notify.webhook.timeout_ms),
    };
    Sms::new(options).map(Some).map_err(|error| wrong("notify.sms.url", error))
}

fn bytes(key: &str, path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|error| wrong(key, format!("{} cannot be read: {error}", path.display())))
}

/// A secret, without the line break that editors leave at the end.
fn secret(key: &str, path: &Path) -> Result<SecretString, Failure> {
    let text = String::from_utf8(bytes(key, path)?).map_err(|_| wrong(key, "is no text"))?;
    Ok(SecretString::from(text.trim_end_matches(['\r', '\n']).to_owned()))
}
