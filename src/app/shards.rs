//! The shards that run in this process: started, handed over and stopped as someone says.
//!
//! Invariant: one thread starts and reaps, so a shard never runs twice here; a shard that is taken
//! away is finished, or has had its time, before that is confirmed. Deliberately absent: any say in
//! who owns a shard: the ledger has it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use metrics::gauge;

use crate::api::Gates;
use crate::cli::{Exit, Failure, OrExit};
use crate::engine::{Handle, Phase, Service};
use crate::kafka::Assignment;
use crate::telemetry;

use super::moments::Moments;
use super::observer::show_nothing;

/// How often it is looked whether what should run runs.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How often a hand-over looks whether it is done.
const HAND_OVER_LOOK: Duration = Duration::from_millis(5);

/// Starts a shard; it follows until it is told that it is ours.
pub type Start = Box<dyn Fn(u32, Arc<Moments>) -> Result<Service, Failure> + Send + Sync>;

/// How the shards of an instance are run.
pub struct Plan {
    /// Starts one.
    pub start: Start,
    /// How many there are in all.
    pub count: u32,
    /// Whether those of others are folded too.
    pub standby: bool,
    /// How long a hand-over may take.
    pub hand_over_max: Duration,
}

/// The shards of this process.
pub struct Shards {
    plan: Plan,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    running: BTreeMap<u32, Running>,
    assigned: BTreeSet<u32>,
    /// Why some could not be started, the last time.
    failed: BTreeMap<u32, String>,
    fenced: bool,
    /// Whether anybody has said what is ours.
    told: bool,
    ending: bool,
    /// A shard ended though nobody had asked it to.
    broken: bool,
}

struct Running {
    service: Service,
    moments: Arc<Moments>,
    stopping: bool,
}

impl Shards {
    /// None yet, and the thread that runs them.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn new(plan: Plan) -> Result<(Arc<Self>, Keeper), Failure> {
        let shards = Arc::new(Self { plan, state: Mutex::default(), changed: Condvar::new() });
        let kept = shards.clone();
        let thread = thread::Builder::new().name("shards".into()).spawn(move || kept.keep());
        let thread = thread.or_exit(Exit::Io, || "cannot start the shards' thread".to_owned())?;
        Ok((shards.clone(), Keeper { shards, thread }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every shard that runs here, with what it notes.
    #[must_use]
    pub fn running(&self) -> Vec<(Handle, Arc<Moments>)> {
        self.state().running.values().map(|running| (running.service.handle.clone(), running.moments.clone())).collect()
    }

    /// Whether a shard ended on its own: nothing but a bug does that.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.state().broken
    }

    fn keep(&self) {
        let mut state = self.state();
        loop {
            state = self.look(state);
            if state.ending && state.running.is_empty() {
                return;
            }
            let soon = state.running.values().any(|running| running.stopping) || self.is_short(&state);
            let wait = if soon { HAND_OVER_LOOK } else { LOOK_EVERY };
            state = self.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Reaps what has ended, and starts what should run.
    fn look<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let ended: Vec<u32> = state.running.iter().filter(|(_, running)| running.service.is_finished()).map(|(shard, _)| *shard).collect();
        for shard in ended {
            if let Some(running) = state.running.remove(&shard) {
                state.broken |= !running.stopping;
                show_nothing(&running.service.handle);
                let ended_well = running.service.stop();
                tracing::info!(shard, ended_well, "the shard has ended");
                self.changed.notify_all();
            }
        }
        let State { running, assigned, .. } = &mut *state;
        for (shard, running) in running.iter().filter(|(shard, running)| assigned.contains(shard) && !running.stopping) {
            // It may have been deposed, or have followed so far; for an owner this says nothing new.
            let phase = running.service.handle.status().phase;
            if matches!(phase, Phase::Following | Phase::Waiting { .. }) {
                tracing::debug!(shard, "the shard should be ours");
                running.service.handle.own(true);
            }
        }
        self.start_missing(state)
    }

    /// Whether something that has not failed is still to be started.
    fn is_short(&self, state: &State) -> bool {
        let wanted = |shard: &u32| self.plan.standby || state.assigned.contains(shard);
        let startable = !(state.ending || state.fenced || state.broken);
        startable
            && (0..self.plan.count).any(|shard| wanted(&shard) && !state.running.contains_key(&shard) && !state.failed.contains_key(&shard))
    }

    /// Starts what is missing: what is ours first, each on a thread of its own, for a start asks the log.
    fn start_missing<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        if state.ending || state.fenced || state.broken {
            return state;
        }
        let missing = |own: bool| {
            let wanted = (0..self.plan.count).filter(|shard| state.assigned.contains(shard) == own && (own || self.plan.standby));
            wanted.filter(|shard| !state.running.contains_key(shard)).collect::<Vec<u32>>()
        };
        let ours = missing(true);
        let shards = if ours.is_empty() { missing(false) } else { ours };
        if shards.is_empty() {
            return state;
        }
        // Nobody should wait for the log to read a status.
        drop(state);
        let started = self.start(&shards);
        state = self.state();
        for (shard, started) in started {
            match started {
                Ok(mut running) => {
                    state.failed.remove(&shard);
                    // Meanwhile it may have been taken away.
                    let ours = state.assigned.contains(&shard);
                    if state.ending || state.fenced || !(ours || self.plan.standby) {
                        running.stopping = true;
                        running.service.handle.stop();
                    } else if ours {
                        running.service.handle.own(true);
                    }
                    state.running.insert(shard, running);
                }
                Err(failure) => {
                    tracing::warn!(shard, %failure, "the shard cannot be started; it is tried again");
                    state.failed.insert(shard, failure.to_string());
                }
            }
        }
        state
    }

    fn start(&self, shards: &[u32]) -> Vec<(u32, Result<Running, Failure>)> {
        let one = |shard: u32| {
            let moments = Arc::new(Moments::new());
            (self.plan.start)(shard, moments.clone()).map(|service| Running { service, moments, stopping: false })
        };
        let panicked = || Failure::new(Exit::Log, "the start panicked");
        thread::scope(|scope| {
            let starting: Vec<_> = shards.iter().map(|shard| (*shard, scope.spawn(move || one(*shard)))).collect();
            starting.into_iter().map(|(shard, thread)| (shard, thread.join().unwrap_or_else(|_| Err(panicked())))).collect()
        })
    }

    fn end(&self) {
        let mut state = self.state();
        state.ending = true;
        state.assigned.clear();
        for running in state.running.values_mut() {
            running.stopping = true;
            running.service.handle.stop();
        }
        self.changed.notify_all();
    }
}

/// The thread that keeps the shards.
pub struct Keeper {
    shards: Arc<Shards>,
    thread: JoinHandle<()>,
}

impl Keeper {
    /// Stops every shard and waits until they have. False when one ended badly.
    #[must_use]
    pub fn end(self) -> bool {
        self.shards.end();
        self.thread.join().is_ok() && !self.shards.is_broken()
    }
}

impl Assignment for Shards {
    fn assigned(&self, shards: &[u32]) {
        let mut state = self.state();
        state.told = true;
        for shard in shards {
            state.assigned.insert(*shard);
            gauge!(telemetry::ASSIGNED, "shard" => shard.to_string()).set(1.0);
            if let Some(running) = state.running.get_mut(shard).filter(|running| !running.stopping) {
                if matches!(running.service.handle.status().phase, Phase::Refusing { .. }) {
                    // What it refused as a follower may be mended by now: it is started anew.
                    running.stopping = true;
                    running.service.handle.stop();
                } else {
                    running.service.handle.own(true);
                }
            }
        }
        self.changed.notify_all();
    }

    fn revoked(&self, shards: &[u32], lost: bool) {
        let mut state = self.state();
        for shard in shards {
            state.assigned.remove(shard);
            gauge!(telemetry::ASSIGNED, "shard" => shard.to_string()).set(0.0);
            if let Some(running) = state.running.get_mut(shard) {
                if self.plan.standby {
                    running.service.handle.own(false);
                } else {
                    running.stopping = true;
                    running.service.handle.stop();
                }
            }
        }
        // Out of the group's reach nothing is known about what is ours, not even that it is nothing.
        state.told &= !lost;
        self.changed.notify_all();
        if lost {
            return;
        }
        let deadline = Instant::now() + self.plan.hand_over_max;
        let busy = |state: &State, shard: &u32| state.running.get(shard).is_some_and(|running| decides(&running.service.handle));
        while shards.iter().any(|shard| busy(&state, shard)) && Instant::now() < deadline {
            state = self.changed.wait_timeout(state, HAND_OVER_LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn fenced(&self) {
        let mut state = self.state();
        if !std::mem::replace(&mut state.fenced, true) {
            tracing::error!(
                code = "INSTANCE_FENCED",
                "another instance has this one's name (kafka.instance): nothing is decided here until one of them gets another name and this one is restarted"
            );
            state.assigned.clear();
            for running in state.running.values_mut() {
                running.stopping = true;
                running.service.handle.stop();
            }
            self.changed.notify_all();
        }
    }
}

fn decides(handle: &Handle) -> bool {
    matches!(handle.status().phase, Phase::Claiming | Phase::Repairing | Phase::Owning | Phase::Draining)
}

impl Gates for Shards {
    fn shard(&self, shard: u32) -> Option<Handle> {
        self.state().running.get(&shard).map(|running| running.service.handle.clone())
    }

    fn here(&self) -> Vec<Handle> {
        let state = self.state();
        let ours = state.running.iter().filter(|(shard, _)| state.assigned.contains(shard));
        ours.map(|(_, running)| running.service.handle.clone()).collect()
    }

    fn all(&self) -> Vec<Handle> {
        self.running().into_iter().map(|(handle, _)| handle).collect()
    }

    fn not_ready(&self) -> Vec<String> {
        let state = self.state();
        let mut reasons = Vec::new();
        if state.fenced {
            reasons.push("INSTANCE_FENCED: another instance has this one's name (kafka.instance)".to_owned());
        } else if !state.told {
            reasons.push("JOINING: the group has not said which shards are ours".to_owned());
        }
        for shard in state.assigned.iter().filter(|shard| !state.running.contains_key(shard)) {
            let why = state.failed.get(shard).map_or("it is being started", String::as_str);
            reasons.push(format!("STARTING: shard {shard}: {why}"));
        }
        reasons
    }
}
