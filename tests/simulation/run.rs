//! One seed: a world, its engines, its faults, then peace, then the checker.

mod scripts;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use ordergate::domain::{InputTopic, Millis, Source};
use ordergate::engine::{Answer, Claimant, Clock, Handle, NoObserver, Options, Partitioner, Phase, Planted, Router, Shard, state_hash};
use ordergate::log::InputRecord;
use tokio::sync::oneshot;

use crate::checker;
use crate::flow;
use crate::log::SimLog;
use crate::random::Random;
use crate::store::{DiskFault, SimStore};
use crate::world::{Life, World};

/// With peace, everything is to be done after this many steps.
const STEPS_TO_FINISH: u64 = 40_000;
/// An owner with nothing in flight notices another's claim within this many steps of its own.
const STEPS_TO_NOTICE: u64 = 50;

/// What a seed came to.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    pub seed: u64,
    pub violations: Vec<String>,
    pub counts: BTreeMap<&'static str, u64>,
    pub head: [u8; 32],
}

#[derive(Clone, Default)]
struct SimClock {
    wall: Arc<AtomicI64>,
    elapsed: Arc<AtomicU64>,
}

impl Clock for SimClock {
    fn wall_ms(&self) -> Millis {
        self.wall.load(Ordering::Relaxed)
    }

    fn elapsed(&self) -> Duration {
        Duration::from_millis(self.elapsed.load(Ordering::Relaxed))
    }
}

/// A machine that runs an engine, or is down.
struct Machine {
    name: String,
    store: SimStore,
    clock: SimClock,
    skew: Millis,
    /// Until this step it stands still: a long pause, after which it goes on where it was.
    asleep: u64,
    running: Option<Running>,
}

struct Running {
    shard: Shard<SimLog>,
    handle: Handle,
    life: u64,
    /// Steps in which it took itself for the owner after another's claim.
    deluded_steps: u64,
}

/// A client that waits for what became of its intent.
pub struct Asked {
    pub source: Source,
    pub answer: oneshot::Receiver<Answer>,
}

struct Simulation {
    random: Random,
    world: Rc<RefCell<World>>,
    machines: Vec<Machine>,
    asked: Vec<Asked>,
    planted: Option<Planted>,
    records_max: usize,
    /// Whether instances that lost the shard claim again by themselves.
    reclaim: bool,
    /// Until this step nobody sends anything.
    quiet: u64,
    /// Of 1000 steps, how many move the shard about.
    moves: u64,
}

/// Runs a seed.
pub fn run(seed: u64, planted: Option<Planted>) -> Outcome {
    let mut random = Random::new(seed);
    let machines = 2 + random.index(5) / 4;
    let mut simulation = Simulation::new(random.next(), planted, machines);
    simulation.records_max = 20 + random.index(80);
    let steps = 300 + random.below(900);
    (simulation.reclaim, simulation.moves) = (random.chance(75), if random.chance(50) { 40 } else { 4 });
    simulation.start(0);
    for _ in 0..steps {
        simulation.step_with_faults();
        if !simulation.world.borrow().violations.is_empty() {
            break;
        }
    }
    simulation.finish();
    let mut world = simulation.world.borrow_mut();
    let records = world.input_count() as u64;
    *world.counts.entry("(records)").or_default() += records;
    *world.counts.entry("(void ledger entries)").or_default() += world.judge.void;
    *world.counts.entry("(terms)").or_default() += world.judge.term;
    Outcome { seed, violations: world.violations.clone(), counts: world.counts.clone(), head: world.judge.head }
}

impl Simulation {
    fn new(seed: u64, planted: Option<Planted>, machines: usize) -> Self {
        let mut random = Random::new(seed);
        let world = Rc::new(RefCell::new(World::new(Random::new(random.next()))));
        let machine = |name: &str| Machine {
            name: name.into(),
            store: SimStore::default(),
            clock: SimClock::default(),
            skew: 0,
            asleep: 0,
            running: None,
        };
        let machines = ["a", "b", "c"][..machines].iter().map(|name| machine(name)).collect();
        Self { random, world, machines, asked: Vec::new(), planted, records_max: 0, reclaim: true, quiet: 0, moves: 0 }
    }

    fn start(&mut self, at: usize) {
        let life = {
            let mut world = self.world.borrow_mut();
            world.lives.push(Life::default());
            world.lives.len() as u64 - 1
        };
        let random = &mut self.random;
        let options = Options {
            claimant: Claimant { owner: self.machines[at].name.clone(), ..Claimant::default() },
            frame_records_max: 1 + random.index(4),
            inbox_records_max: 8,
            tail_every: Duration::from_millis(20),
            look_patience: Duration::from_millis(60),
            retry_after: Duration::from_millis(30),
            drain_max: Duration::from_millis(300 + random.below(2000)),
            reclaim: self.reclaim,
            snapshot_every: Duration::from_secs(5),
            snapshot_records: 3 + random.below(20),
            state_hash_frames: 3,
            planted: self.planted,
            ..Options::default()
        };
        let machine = &mut self.machines[at];
        let log = SimLog::new(Rc::clone(&self.world), life);
        let (clock, store) = (Box::new(machine.clock.clone()), Box::new(machine.store.clone()));
        let (shard, handle) = Shard::new(log, clock, store, Box::new(NoObserver), options);
        machine.running = Some(Running { shard, handle, life, deluded_steps: 0 });
    }

    fn crash(&mut self, at: usize) {
        if let Some(running) = self.machines[at].running.take() {
            self.world.borrow_mut().orphan(running.life);
        }
    }

    fn step_with_faults(&mut self) {
        self.tick();
        let at = self.random.index(self.machines.len());
        match self.random.below(1000) {
            0..8 => self.crash_or_start(at),
            8..14 => self.light_a_fuse(at),
            14..24 => self.jump_the_clock(at),
            24..34 => self.spoil_the_disk(at),
            34..40 => self.disturb_the_log(at),
            40..44 => self.stand_still(at),
            44..48 => self.delete_something(),
            48..51 => self.all_claim_at_once(),
            51..53 => self.quiet = self.world.borrow().step + 100 + self.random.below(200),
            53..93 if self.random.below(40) < self.moves => self.move_membership(at),
            53..160 => self.produce(),
            160..500 => self.world.borrow_mut().deliver(),
            _ => self.step_machine(at),
        }
    }

    fn tick(&mut self) {
        let passed = self.random.below(4);
        let mut world = self.world.borrow_mut();
        world.step += 1;
        world.now += i64::try_from(passed).unwrap();
        for machine in &mut self.machines {
            machine.clock.elapsed.fetch_add(passed, Ordering::Relaxed);
            machine.clock.wall.store(world.now + machine.skew, Ordering::Relaxed);
        }
    }

    fn crash_or_start(&mut self, at: usize) {
        if self.machines[at].running.is_none() {
            self.start(at);
        } else if self.random.chance(50) {
            self.world.borrow_mut().count("an instance is killed");
            self.crash(at);
        }
    }

    /// It dies at some call of the port to come, in the middle of whatever it does then.
    fn light_a_fuse(&mut self, at: usize) {
        let calls = self.random.below(25);
        if let Some(running) = &self.machines[at].running {
            let mut world = self.world.borrow_mut();
            world.life(running.life).fuse.get_or_insert(calls);
        }
    }

    fn jump_the_clock(&mut self, at: usize) {
        self.world.borrow_mut().count("a clock jumps");
        self.machines[at].skew = i64::try_from(self.random.below(20_000)).unwrap() - 10_000;
    }

    /// The group takes the shard from an instance, or gives it to one.
    fn move_membership(&mut self, at: usize) {
        let wanted = self.random.chance(60);
        if let Some(running) = &self.machines[at].running {
            self.world.borrow_mut().count("the group gives or takes the shard");
            running.handle.own(wanted);
        }
    }

    /// Calls fail for a while, or reads, or the ledger seems to end, or nothing lands, or something lands again.
    fn disturb_the_log(&mut self, at: usize) {
        let until = self.world.borrow().step + self.random.below(300);
        let kind = self.random.below(5);
        let mut world = self.world.borrow_mut();
        let life = self.machines[at].running.as_ref().map(|running| running.life);
        match (kind, life) {
            (0, Some(life)) => {
                world.count("every call fails for a while");
                world.life(life).cut_off = until;
            }
            (1, Some(life)) => {
                world.count("every read fails for a while");
                world.life(life).blind = until;
            }
            (2, Some(life)) => {
                world.count("nothing is read in the ledger for a while");
                world.life(life).deaf = until;
            }
            (3, _) => {
                world.count("nothing lands for a while");
                world.slow = until;
            }
            (_, _) => world.repeat_late(),
        }
    }

    /// A pause of the whole machine, for longer than anyone's patience; what it sent goes its way.
    fn stand_still(&mut self, at: usize) {
        let mut world = self.world.borrow_mut();
        world.count("an instance stands still");
        self.machines[at].asleep = world.step + self.random.below(500);
    }

    fn delete_something(&mut self) {
        let mut world = self.world.borrow_mut();
        if self.random.chance(60) { world.delete_outputs() } else { world.delete_inputs() }
    }

    /// Everyone reads to the end and claims before anyone's claim lands.
    fn all_claim_at_once(&mut self) {
        self.world.borrow_mut().count("all claim at once");
        for machine in &self.machines {
            machine.running.iter().for_each(|running| running.handle.own(true));
        }
        for _ in 0..self.random.below(12) {
            for at in 0..self.machines.len() {
                self.step_machine(at);
            }
        }
    }

    fn spoil_the_disk(&mut self, at: usize) {
        if self.random.chance(40) {
            let mut disk = self.machines[at].store.0.lock().unwrap();
            (disk.full, disk.busy) = (self.random.chance(40), self.random.chance(30));
            self.world.borrow_mut().count("a disk is full or busy, or is not any more");
            return;
        }
        let faults = [DiskFault::Lost, DiskFault::Stale, DiskFault::Foreign];
        let fault = faults[self.random.index(faults.len())];
        self.world.borrow_mut().count("a snapshot is lost, stale or foreign");
        self.machines[at].store.0.lock().unwrap().fault = fault;
    }

    fn produce(&mut self) {
        let mut world = self.world.borrow_mut();
        let number = world.input_count();
        if number >= self.records_max || self.quiet > world.step {
            return;
        }
        let (now, among) = (world.now, Router { partitioner: Partitioner::Murmur2, shard: world.shard, shards: world.shards });
        let ((topic, partition), key, value) = flow::record(&mut self.random, number, now, among);
        let records = world.inputs.get_mut(&(topic, partition)).unwrap();
        let gap = if self.random.chance(10) { 1 + self.random.below(3) } else { 0 };
        let offset = records.last().map_or(0, |last| last.source.offset + 1) + gap;
        let source = Source { topic, partition, offset };
        records.push(InputRecord { source, ts: now, key: key.map(String::into_bytes), payload: value.into_bytes() });
        let running: Vec<&Running> = self.machines.iter().filter_map(|machine| machine.running.as_ref()).collect();
        if topic == InputTopic::Intents && !running.is_empty() {
            let handle = &running[self.random.index(running.len())].handle;
            self.asked.push(Asked { source, answer: handle.answer(source) });
        }
    }

    fn step_machine(&mut self, at: usize) {
        if self.machines[at].asleep > self.world.borrow().step {
            return;
        }
        let Some(running) = &mut self.machines[at].running else { return };
        let life = running.life;
        running.shard.step(Duration::ZERO);
        let status = running.handle.status();
        let idle = status.phase == Phase::Owning && status.frames_in_flight == 0;
        let sees = self.world.borrow().sees(life);
        if status.blind_ms > 0 && status.is_ready(Duration::MAX) {
            self.world.borrow_mut().violate("it is ready, and cannot see its ledger".into());
        }
        let deluded = idle && sees && status.term < self.world.borrow().judge.term;
        running.deluded_steps = if deluded { running.deluded_steps + 1 } else { 0 };
        if running.deluded_steps > STEPS_TO_NOTICE {
            self.world.borrow_mut().violate(format!("an owner does not notice that term {} is over", status.term));
        }
        if self.world.borrow_mut().life(life).crashed {
            self.world.borrow_mut().count("an instance dies within a step");
            self.crash(at);
        }
    }

    /// Peace: one instance, no more faults, until everything is decided and published.
    fn finish(&mut self) {
        if !self.world.borrow().violations.is_empty() {
            return;
        }
        let survivor = self.random.index(self.machines.len());
        for at in 0..self.machines.len() {
            if at != survivor {
                self.crash(at);
            }
        }
        self.world.borrow_mut().calm();
        for machine in &mut self.machines {
            machine.asleep = 0;
            let mut disk = machine.store.0.lock().unwrap();
            (disk.full, disk.busy) = (false, false);
        }
        match &self.machines[survivor].running {
            Some(running) => {
                self.world.borrow_mut().life(running.life).fuse = None;
                running.handle.own(true);
            }
            None => self.start(survivor),
        }
        self.step_machine(survivor);
        for step in 0..STEPS_TO_FINISH {
            self.tick();
            if let (0, Some(running)) = (step % 1000, &self.machines[survivor].running) {
                // A claim may still land that was sent in time; the group gives the shard again.
                running.handle.own(true);
            }
            match self.random.below(2) {
                0 => self.world.borrow_mut().deliver(),
                _ => self.step_machine(survivor),
            }
            if self.is_done(survivor) {
                self.stop(survivor);
                return;
            }
            if !self.world.borrow().violations.is_empty() {
                return;
            }
        }
        let phase = self.machines[survivor].running.as_ref().map(|running| running.handle.status().phase);
        self.check_disks();
        let mut world = self.world.borrow_mut();
        let (seq, records) = (world.judge.seq, world.input_count());
        world.violate(format!("with peace it does not finish: {seq} of {records} records are decided, {phase:?}"));
    }

    fn is_done(&self, at: usize) -> bool {
        let world = self.world.borrow();
        let Some(running) = &self.machines[at].running else { return false };
        let status = running.handle.status();
        world.judge.seq == world.input_count() as u64
            && world.lanes.iter().all(|lane| lane.messages.is_empty())
            && world.lives[usize::try_from(running.life).unwrap()].acknowledgements.is_empty()
            && (status.phase, status.committed_seq) == (Phase::Owning, world.judge.seq)
            && (status.frames_in_flight, status.outputs_in_flight) == (0, 0)
    }

    /// A clean stop; then the checker.
    fn stop(&mut self, at: usize) {
        let Some(mut running) = self.machines[at].running.take() else { return };
        let mut live = running.handle.query(state_hash);
        running.shard.step(Duration::ZERO);
        let live = live.try_recv().ok();
        running.handle.stop();
        let mut stopped = false;
        for _ in 0..STEPS_TO_FINISH {
            self.tick();
            self.world.borrow_mut().deliver();
            if !running.shard.step(Duration::ZERO) {
                stopped = true;
                break;
            }
        }
        let mut world = self.world.borrow_mut();
        if !stopped {
            world.violate("with peace it does not stop".into());
        }
        checker::check(&mut world, live, &mut self.asked);
        drop(world);
        self.check_disks();
    }

    fn check_disks(&self) {
        let mut world = self.world.borrow_mut();
        for machine in &self.machines {
            for snapshot in machine.store.honest() {
                checker::check_snapshot(&mut world, snapshot);
            }
        }
    }
}
