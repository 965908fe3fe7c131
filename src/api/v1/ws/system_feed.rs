//! The system's state for those who watch it.
//!
//! Invariant: it is looked at once a second at most, for all watchers together, and not at all without any. Deliberately absent: rights;
//! only administrators come to watch.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use super::hub::{Hub, Member, locked};
use super::position;
use super::protocol::{Channel, event};
use crate::api::problem::{ApiCode, Problem};
use crate::api::stopped;
use crate::api::v1::system::System;

const EVERY: Duration = Duration::from_secs(1);

/// Those who watch the system.
pub struct SystemFeed {
    system: Arc<System>,
    hub: Arc<Hub>,
    members: Mutex<Vec<Arc<Member>>>,
}

impl SystemFeed {
    /// Nobody watches yet.
    #[must_use]
    pub fn new(system: Arc<System>, hub: Arc<Hub>) -> Self {
        Self { system, hub, members: Mutex::default() }
    }

    /// The state now, and its position.
    ///
    /// # Errors
    /// It cannot be written.
    pub async fn now(&self) -> Result<(String, String), Problem> {
        let position = position::of_seqs(&self.hub.seqs());
        let view = serde_json::to_string(&self.system.view().await);
        let view = view.map_err(|_| Problem::new(ApiCode::Internal, "the system's state could not be written"))?;
        Ok((position, view))
    }

    /// A client watches from now on.
    pub fn join(&self, member: &Arc<Member>) {
        locked(&self.members).push(member.clone());
    }

    /// It watches no more.
    pub fn leave(&self, member: u64) {
        locked(&self.members).retain(|other| other.id != member);
    }

    /// Looks and tells until the daemon stops.
    pub async fn run(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stopped(&mut stop) => return,
                _ = ticks.tick() => {}
            }
            if locked(&self.members).is_empty() {
                continue;
            }
            let Ok((position, view)) = self.now().await else { continue };
            let message = event(Channel::System, &position, &view);
            locked(&self.members).iter().for_each(|member| member.outbox.push(message.clone()));
        }
    }
}
