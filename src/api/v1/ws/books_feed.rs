//! The task that reads changed books out of the replicas for all who watch them.
//!
//! Invariant: a book that changed is read soon, one whose value only moved with prices within [`LOOK_EVERY`]; each is read once for all
//! its watchers, on a thread that may wait. Deliberately absent: rights; who may not read an account never comes to watch it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::hub::{Hub, Read};
use crate::api::stopped;
use crate::control::replica::Replicas;
use crate::domain::AccountId;
use crate::gate::Gate;
use crate::wire;

/// All watched books are looked at this often: prices move their equity.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Changes within this are read together.
const GATHER: Duration = Duration::from_millis(2);
/// Books that changed again too soon are looked at after this.
const REST: Duration = Duration::from_millis(10);

/// Reads and hands on until the daemon stops.
pub async fn run(hub: Arc<Hub>, replicas: Arc<Replicas>, mut stop: watch::Receiver<bool>) {
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let all = tokio::select! {
            () = stopped(&mut stop) => return,
            () = hub.changed() => false,
            _ = ticks.tick() => true,
        };
        sleep(GATHER).await;
        let mut others_wait = false;
        for shard in 0..replicas.count() {
            let (due, wait) = hub.due(shard, all);
            others_wait |= wait;
            if due.is_empty() {
                continue;
            }
            match replicas.ask(shard, move |gate| books(gate, &due)).await {
                Ok(read) => hub.show(shard, read),
                // A replica that is broken says so in the log and in /readyz; sessions look at that.
                Err(error) => tracing::debug!(%error, shard, "watched books cannot be read"),
            }
        }
        if others_wait {
            sleep(REST).await;
            hub.look_again();
        }
    }
}

fn books(gate: &Gate, due: &[(u32, AccountId)]) -> Vec<Read> {
    due.iter().filter_map(|(place, account)| book(gate, *place, *account)).collect()
}

/// The book of an account at its place, as it is sent.
#[must_use]
pub fn book(gate: &Gate, place: u32, account: AccountId) -> Option<Read> {
    let mut json = Vec::new();
    wire::encode_account(&mut json, gate.seq(), &gate.book(account)?);
    Some(Read { place, seq: gate.seq(), json: String::from_utf8(json).ok()? })
}
