//! A message: one notification or a digest of several, on its way to one place.
//!
//! Invariant: the same delivery gives the same message each time it is tried, but for signatures and times of sending.
//! Deliberately absent: words; the templates have them.

use std::sync::Arc;

use serde_json::{Value, json};

use super::UserId;
use super::delivery::{DeliveryId, Held};
use super::raised::Raised;
use super::template::moment;
use crate::domain::Priority;

/// What a program is told of a digest one by one.
const ITEMS_MAX: usize = 100;
/// And by their ids.
const IDS_MAX: usize = 1_000;

/// A message.
#[derive(Clone, Debug)]
pub struct Message {
    /// Under which id.
    pub id: DeliveryId,
    /// To whom.
    pub user: UserId,
    /// What it holds, in order; never empty.
    pub contents: Vec<Arc<Raised>>,
    /// So many more that it stands for; they were too many to be kept one by one.
    pub more: u64,
    /// Whether it is a digest.
    pub digest: bool,
    /// Why it is one.
    pub reasons: Vec<Held>,
    /// Whether somebody tries the channel only.
    pub test: bool,
}

impl Message {
    /// The most urgent that it holds.
    #[must_use]
    pub fn priority(&self) -> Priority {
        self.contents.iter().map(|raised| raised.priority).max().unwrap_or(Priority::Low)
    }

    /// How many notifications it stands for.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.more.saturating_add(self.contents.len() as u64)
    }

    /// For programs: `type`, `timestamp` and `data`, as Standard Webhooks have it.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let at = self.contents.iter().map(|raised| raised.at).max().unwrap_or(0);
        let (kind, data) = match self.contents.as_slice() {
            [only] if !self.digest => (format!("notification.{}", only.kind.as_str()), json!(only.as_ref())),
            all => {
                let items: Vec<&Raised> = all.iter().take(ITEMS_MAX).map(Arc::as_ref).collect();
                let reasons: Vec<&str> = self.reasons.iter().map(|why| why.as_str()).collect();
                let ids: Vec<String> = all.iter().take(IDS_MAX).map(|raised| raised.id.to_string()).collect();
                (
                    "notification.digest".to_owned(),
                    json!({"total": self.total(), "reasons": reasons, "notification_ids": ids, "items": items}),
                )
            }
        };
        let mut whole = json!({"type": kind, "timestamp": moment(at), "user": &*self.user, "data": data});
        if self.test {
            whole["test"] = true.into();
        }
        whole
    }

    /// One that is made up, to try templates.
    #[must_use]
    pub fn sample(contents: Vec<Arc<Raised>>) -> Self {
        let place = super::Place { user: "ann".into(), channel: super::Channel::Email, target: "".into() };
        let (digest, id) = (contents.len() > 1, DeliveryId::of_digest(&place, Vec::new()));
        Self { id, user: place.user, contents, more: 0, digest, reasons: vec![Held::QuietHours], test: false }
    }
}
