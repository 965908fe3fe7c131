//! What comes and goes, one thing at a time: the cases that operators will ask about.
//!
//! Invariant: nothing else goes wrong in them. The seeds mix them with everything (`run.rs`).

mod topics;

use super::*;
use ordergate::log::OutputTopic;
use ordergate::wire::frame::Routing;

/// Enough for anything that is under way to come to its end.
const A_WHILE: u64 = 1_500;

/// A world without faults, its instances not started. Whoever starts wants the shard.
fn calm(machines: usize) -> Simulation {
    calm_but(None, machines)
}

fn calm_but(planted: Option<Planted>, machines: usize) -> Simulation {
    let mut simulation = Simulation::new(7, planted, machines);
    simulation.world.borrow_mut().faulty = false;
    (simulation.records_max, simulation.reclaim) = (usize::MAX, false);
    simulation
}

impl Simulation {
    fn phase(&self, at: usize) -> Phase {
        self.handle(at).status().phase
    }

    fn handle(&self, at: usize) -> &Handle {
        &self.machines[at].running.as_ref().unwrap().handle
    }

    /// Everyone steps and everything lands, for so many steps; gives the phases that an instance went through.
    fn go_on(&mut self, steps: u64, watched: usize) -> Vec<Phase> {
        let mut phases = Vec::new();
        for _ in 0..steps {
            self.tick();
            self.world.borrow_mut().deliver();
            for at in 0..self.machines.len() {
                self.step_machine(at);
            }
            let phase = self.machines[watched].running.as_ref().map(|running| running.handle.status().phase);
            phases.extend(phase.filter(|phase| phases.last() != Some(phase)));
        }
        assert_eq!(self.world.borrow().violations, Vec::<String>::new());
        phases
    }

    fn produce_some(&mut self, count: usize) {
        (0..count).for_each(|_| self.produce());
    }

    /// An owner, and the others following it.
    fn with_owner(machines: usize) -> Self {
        calm(machines).owned()
    }

    fn owned(self) -> Self {
        let mut simulation = self;
        let machines = simulation.machines.len();
        for at in 0..machines {
            simulation.start(at);
            simulation.handle(at).own(at == 0);
        }
        simulation.produce_some(40);
        simulation.go_on(A_WHILE, 0);
        assert_eq!((simulation.phase(0), simulation.decided()), (Phase::Owning, 40));
        simulation
    }

    fn decided(&self) -> u64 {
        self.world.borrow().judge.seq
    }

    fn void(&self) -> u64 {
        self.world.borrow().judge.void
    }

    fn published(&self) -> usize {
        self.world.borrow().outputs.iter().map(Vec::len).sum()
    }

    fn ledger_reads(&self, at: usize) -> u64 {
        let life = self.machines[at].running.as_ref().unwrap().life;
        self.world.borrow_mut().life(life).ledger_reads
    }

    /// Stops the owner, and checks everything.
    fn end(mut self, at: usize) {
        self.stop(at);
        assert_eq!(self.world.borrow().violations, Vec::<String>::new());
    }
}

#[test]
fn a_shard_is_handed_over_and_back_with_nothing_lost_void_or_doubled() {
    let mut simulation = Simulation::with_owner(2);
    simulation.produce_some(40);
    simulation.go_on(4, 0);
    simulation.handle(0).own(false);
    assert_eq!(simulation.go_on(A_WHILE, 0), [Phase::Draining, Phase::Following]);
    simulation.handle(1).own(true);
    simulation.go_on(A_WHILE, 1);
    assert_eq!((simulation.phase(1), simulation.decided()), (Phase::Owning, 80));
    // The first owner has gone on reading: it claims from where it is.
    let (before, ledger) = (simulation.ledger_reads(0), simulation.world.borrow().ledger.len() as u64);
    simulation.handle(1).own(false);
    simulation.go_on(A_WHILE, 1);
    simulation.handle(0).own(true);
    simulation.produce_some(20);
    simulation.go_on(A_WHILE, 0);
    assert_eq!((simulation.phase(0), simulation.decided(), simulation.void()), (Phase::Owning, 100, 0));
    assert!(simulation.ledger_reads(0) - before <= simulation.world.borrow().ledger.len() as u64 - ledger);
    let published = simulation.published();
    let outputs = {
        let mut world = simulation.world.borrow_mut();
        checker::refold(&mut world).unwrap().1.len()
    };
    assert_eq!(published, outputs, "something was published twice");
    simulation.end(0);
}

#[test]
fn an_owner_that_is_given_the_shard_back_while_it_drains_stays_in_its_term() {
    let mut simulation = Simulation::with_owner(1);
    let term = simulation.handle(0).status().term;
    simulation.produce_some(20);
    simulation.go_on(3, 0);
    simulation.handle(0).own(false);
    simulation.go_on(1, 0);
    assert_eq!(simulation.phase(0), Phase::Draining);
    simulation.handle(0).own(true);
    simulation.go_on(A_WHILE, 0);
    assert_eq!((simulation.phase(0), simulation.decided()), (Phase::Owning, 60));
    assert_eq!(simulation.handle(0).status().term, term);
    simulation.end(0);
}

#[test]
fn a_hand_over_that_the_log_does_not_answer_ends_all_the_same_and_reads_what_landed() {
    let mut simulation = Simulation::with_owner(2);
    simulation.produce_some(20);
    let step = simulation.world.borrow().step;
    simulation.world.borrow_mut().slow = step + 5 * A_WHILE;
    simulation.go_on(20, 0);
    assert!(simulation.handle(0).status().frames_in_flight > 0);
    simulation.handle(0).own(false);
    assert_eq!(simulation.go_on(4 * A_WHILE, 0), [Phase::Draining, Phase::Following]);
    simulation.world.borrow_mut().slow = 0;
    simulation.handle(1).own(true);
    simulation.go_on(A_WHILE, 1);
    assert_eq!((simulation.phase(1), simulation.decided()), (Phase::Owning, 60));
    simulation.end(1);
}

#[test]
fn a_follower_stops_at_once() {
    let mut simulation = Simulation::with_owner(2);
    simulation.handle(1).stop();
    simulation.step_machine(1);
    assert_eq!(simulation.phase(1), Phase::Stopped);
}

#[test]
fn of_several_that_claim_at_once_one_owns_and_the_others_follow() {
    claim_at_once(Simulation::with_owner(3));
}

/// Their claims are the same, byte for byte: only the place in the ledger tells whose counts.
#[test]
fn of_two_with_one_name_that_claim_at_once_one_owns_and_the_other_follows() {
    let mut simulation = calm(3);
    simulation.machines[2].name = simulation.machines[1].name.clone();
    claim_at_once(simulation.owned());
}

fn claim_at_once(mut simulation: Simulation) {
    simulation.produce_some(10);
    simulation.crash(0);
    for at in [1, 2] {
        simulation.handle(at).own(true);
        while simulation.phase(at) != Phase::Claiming {
            simulation.step_machine(at);
        }
    }
    simulation.go_on(A_WHILE, 1);
    let phases = [simulation.phase(1), simulation.phase(2)];
    assert!(phases.contains(&Phase::Owning) && phases.contains(&Phase::Following), "{phases:?}");
    assert_eq!(simulation.decided(), 50);
    simulation.end(if phases[0] == Phase::Owning { 1 } else { 2 });
}

#[test]
fn an_owner_that_wakes_with_frames_in_flight_after_another_came_decides_nothing_more() {
    let mut simulation = Simulation::with_owner(2);
    simulation.produce_some(20);
    let step = simulation.world.borrow().step;
    simulation.world.borrow_mut().slow = step + 30;
    simulation.go_on(25, 0);
    assert!(simulation.handle(0).status().frames_in_flight > 0);
    simulation.machines[0].asleep = step + 2 * A_WHILE;
    // Its frames are with a broker that answers late; the other's claim goes before them.
    let held: Vec<_> = simulation.world.borrow_mut().lanes.drain(..).collect();
    simulation.handle(1).own(true);
    simulation.go_on(A_WHILE, 1);
    assert_eq!((simulation.phase(1), simulation.decided(), simulation.void()), (Phase::Owning, 60, 0));
    simulation.world.borrow_mut().lanes.extend(held);
    let phases = simulation.go_on(2 * A_WHILE, 0);
    assert_eq!(simulation.phase(0), Phase::Following, "{phases:?}");
    assert!(phases.iter().any(|phase| matches!(phase, Phase::Waiting { code: "DEPOSED", .. })), "{phases:?}");
    assert!(simulation.void() > 0);
    assert_eq!(simulation.decided(), 60);
    simulation.end(1);
}

#[test]
fn an_idle_owner_notices_that_it_is_replaced() {
    let mut simulation = Simulation::with_owner(2);
    simulation.handle(1).own(true);
    simulation.go_on(A_WHILE, 0);
    assert_eq!([simulation.phase(0), simulation.phase(1)], [Phase::Following, Phase::Owning]);
    simulation.end(1);
}

#[test]
fn an_idle_owner_that_cannot_read_keeps_its_term_and_is_not_ready_meanwhile() {
    let mut simulation = Simulation::with_owner(1);
    let (term, step) = (simulation.handle(0).status().term, simulation.world.borrow().step);
    let life = simulation.machines[0].running.as_ref().unwrap().life;
    assert!(simulation.handle(0).status().is_ready(Duration::from_secs(1)));
    simulation.world.borrow_mut().life(life).blind = step + 300;
    let phases = simulation.go_on(299, 0);
    let status = simulation.handle(0).status();
    assert_eq!((phases, status.term), (vec![Phase::Owning], term));
    assert!(status.blind_ms > 60 && !status.is_ready(Duration::from_secs(3600)), "{status:?}");
    simulation.go_on(100, 0);
    let status = simulation.handle(0).status();
    assert!(status.is_ready(Duration::from_secs(1)) && status.term == term, "{status:?}");
    simulation.end(0);
}

/// What the owner published and did not come to say so, deleted before the next one looks.
#[test]
fn outputs_that_retention_deleted_before_they_were_known_are_published_again() {
    let mut simulation = Simulation::with_owner(1);
    // No frame after the last one has said what was published; a crash, and nobody ever will.
    simulation.crash(0);
    let decisions = OutputTopic::Decisions.place();
    let (before, mark) = {
        let mut world = simulation.world.borrow_mut();
        let len = world.outputs[decisions].len();
        world.outputs_kept[decisions] = len as u64;
        (len, world.judge.counted.last().unwrap().frame.output_marks[decisions])
    };
    simulation.start(0);
    simulation.go_on(A_WHILE, 0);
    assert_eq!(simulation.phase(0), Phase::Owning);
    let world = simulation.world.borrow();
    let again = &world.outputs[decisions][before..];
    let missed = world.outputs[decisions][..before].iter().filter(|landed| landed.record.tag.unwrap().seq > mark.seq);
    let bytes = |landed: &crate::world::Landed| (landed.record.tag, landed.record.key.clone(), landed.record.payload.clone());
    let missed: Vec<_> = missed.map(bytes).collect();
    assert!(!missed.is_empty());
    assert_eq!(again.iter().map(bytes).collect::<Vec<_>>(), missed);
}

#[test]
fn an_output_topic_that_ends_before_what_was_published_is_refused() {
    let mut simulation = Simulation::with_owner(1);
    simulation.crash(0);
    simulation.world.borrow_mut().outputs[OutputTopic::Decisions.place()].truncate(1);
    simulation.start(0);
    simulation.go_on(A_WHILE, 0);
    assert!(matches!(simulation.phase(0), Phase::Refusing { code: "OUTPUT_LOST", .. }), "{:?}", simulation.phase(0));
}

#[test]
fn inputs_that_are_gone_before_they_were_applied_are_refused_and_nothing_is_decided() {
    for lost in [InputTopic::Intents, InputTopic::Control, InputTopic::Prices] {
        let mut simulation = Simulation::with_owner(1);
        simulation.crash(0);
        let step = simulation.world.borrow().step;
        simulation.produce_some(200);
        {
            let mut world = simulation.world.borrow_mut();
            let (partition, first) = world.first_not_applied(lost);
            world.inputs_kept.insert(partition, first + 1);
        }
        simulation.start(0);
        simulation.go_on(A_WHILE, 0);
        let phase = simulation.phase(0);
        assert!(matches!(phase, Phase::Refusing { code: "INPUT_DIFFERS" | "LOG_OUT_OF_RANGE", .. }), "{lost:?}: {phase:?}, step {step}");
        assert_eq!(simulation.decided(), 40);
    }
}

#[test]
fn inputs_that_are_gone_after_they_were_applied_are_not_missed() {
    let mut simulation = Simulation::with_owner(1);
    simulation.crash(0);
    {
        let mut world = simulation.world.borrow_mut();
        let partitions: Vec<_> = world.inputs.keys().copied().collect();
        for partition in partitions {
            let applied = world.judge.next_of(partition);
            world.inputs_kept.insert(partition, applied);
        }
    }
    simulation.produce_some(20);
    simulation.start(0);
    simulation.go_on(A_WHILE, 0);
    assert_eq!((simulation.phase(0), simulation.decided()), (Phase::Owning, 60));
}

#[test]
fn snapshots_that_cannot_be_written_are_made_up_for_by_a_whole_one() {
    let mut simulation = Simulation::with_owner(1);
    simulation.machines[0].store.0.lock().unwrap().full = true;
    simulation.produce_some(60);
    simulation.go_on(A_WHILE, 0);
    simulation.machines[0].store.0.lock().unwrap().full = false;
    simulation.produce_some(60);
    simulation.go_on(A_WHILE, 0);
    let newest = simulation.machines[0].store.honest().pop().unwrap().standing.seq;
    assert!(newest > 100, "{newest}");
    simulation.check_disks();
    simulation.end(0);
}

#[test]
fn a_shard_among_several_refuses_what_is_misrouted_and_leaves_alone_what_is_elsewhere() {
    let mut simulation = calm(2);
    simulation.world.borrow_mut().become_shard(2, 4);
    simulation.start(0);
    simulation.produce_some(200);
    simulation.go_on(4 * A_WHILE, 0);
    assert_eq!((simulation.phase(0), simulation.decided()), (Phase::Owning, 200));
    {
        let mut world = simulation.world.borrow_mut();
        let (replica, outputs) = checker::refold(&mut world).unwrap();
        let inputs = || world.judge.counted.iter().flat_map(|counted| &counted.frame.inputs);
        let count = |routing: Routing| inputs().filter(|input| input.routing == routing).count();
        let misrouted = outputs
            .values()
            .filter(|output| output.topic == OutputTopic::DeadLetter && output.payload.windows(9).any(|bytes| bytes == b"MISROUTED"));
        assert_eq!(misrouted.count(), count(Routing::Misrouted));
        let all = [Routing::Here, Routing::Misrouted, Routing::Elsewhere, Routing::Quiet].map(count);
        assert!(all.iter().all(|count| *count > 0), "{all:?}");
        let opened = inputs().filter(|input| input.routing == Routing::Here && input.payload.starts_with(br#"{"event":"account_opened"#));
        assert_eq!(replica.fold.gate().accounts().len(), opened.count());
    }
    simulation.end(0);
}

/// An owner that had followed for a while, and its snapshot on stopping: what is wrong with it.
fn first_snapshot_after_following(planted: Option<Planted>) -> Vec<String> {
    // Less than a second for all of it: the next boundary looks at every account, and so touches it.
    const SHORTLY: u64 = 120;
    let mut simulation = calm_but(planted, 2).owned();
    for (from, to) in [(0, 1), (1, 0)] {
        simulation.handle(from).own(false);
        simulation.go_on(SHORTLY, from);
        simulation.handle(to).own(true);
        simulation.go_on(SHORTLY, to);
        // It takes no snapshots while it follows.
        simulation.machines[0].store.0.lock().unwrap().busy = to == 1;
        // What comes while the second one owns changes accounts that the first one only reads of.
        simulation.produce_some(if to == 1 { 8 } else { 1 });
        simulation.go_on(SHORTLY, to);
    }
    assert_eq!((simulation.phase(0), simulation.decided()), (Phase::Owning, 49));
    simulation.stop(0);
    simulation.world.borrow().violations.clone()
}

#[test]
fn the_first_snapshot_of_an_owner_that_followed_holds_what_changed_meanwhile() {
    assert_eq!(first_snapshot_after_following(None), Vec::<String>::new());
    let found = first_snapshot_after_following(Some(Planted::ForgetTouched));
    assert!(found.iter().any(|what| what.contains("is not the state of its place")), "{found:?}");
}
