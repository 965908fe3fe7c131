//! What befalls topics: cut off, made anew, poisoned, or standing still for so long that orders grow old.
//!
//! Invariant: what cannot be read as it was is never guessed at. The same on real brokers: `kafka_faults_topics.rs` and `kafka_faults_broker.rs`.

use std::collections::BTreeMap;

use ordergate::log::OutputTag;

use super::*;

/// What the gate takes for old unless it is told otherwise.
const AGE_MAX_MS: i64 = 5_000;

fn crashed_owner() -> Simulation {
    let mut simulation = Simulation::with_owner(1);
    simulation.crash(0);
    simulation
}

/// It starts, refuses with this code, decides nothing and publishes nothing.
fn expect_refusal(mut simulation: Simulation, code: &str) {
    let before = (simulation.decided(), simulation.published());
    simulation.produce_some(20);
    simulation.start(0);
    simulation.go_on(A_WHILE, 0);
    let phase = simulation.phase(0);
    assert!(matches!(&phase, Phase::Refusing { code: found, .. } if *found == code), "{phase:?}");
    assert_eq!((simulation.decided(), simulation.published()), before);
}

#[test]
fn a_ledger_that_was_cut_off_behind_its_outputs_or_made_anew_is_refused() {
    for kept in [0, 1, 5] {
        let simulation = crashed_owner();
        {
            let mut world = simulation.world.borrow_mut();
            assert!(world.ledger.len() > kept + 2);
            world.ledger.truncate(kept);
        }
        expect_refusal(simulation, "OUTPUT_AHEAD_OF_LEDGER");
    }
}

#[test]
fn a_ledger_that_is_made_anew_under_its_owner_ends_the_term_and_is_refused() {
    let mut simulation = Simulation::with_owner(1);
    simulation.world.borrow_mut().ledger.clear();
    let published = simulation.published();
    simulation.produce_some(20);
    let phases = simulation.go_on(A_WHILE, 0);
    assert!(phases.iter().any(|phase| matches!(phase, Phase::Waiting { code: "LEDGER_HOLE", .. })), "{phases:?}");
    assert!(matches!(simulation.phase(0), Phase::Refusing { code: "OUTPUT_AHEAD_OF_LEDGER", .. }), "{phases:?}");
    assert_eq!(simulation.published(), published, "something of the new ledger was published");
}

#[test]
fn an_input_topic_that_was_made_anew_is_refused_however_many_records_it_has() {
    for topic in [InputTopic::Intents, InputTopic::Executions, InputTopic::Prices, InputTopic::Control] {
        for as_many in [false, true] {
            let simulation = crashed_owner();
            {
                let mut world = simulation.world.borrow_mut();
                let applied = |((found, _), records): &(&(InputTopic, u32), &mut Vec<InputRecord>)| *found == topic && !records.is_empty();
                let (_, records) = world.inputs.iter_mut().find(applied).unwrap();
                if as_many {
                    // The same offsets, and other records: their times are others.
                    records.iter_mut().for_each(|record| record.ts += 1);
                } else {
                    records.clear();
                }
            }
            expect_refusal(simulation, "INPUT_DIFFERS");
        }
    }
}

#[test]
fn an_output_topic_that_is_made_anew_under_its_owner_ends_the_term_and_is_refused() {
    let mut simulation = Simulation::with_owner(1);
    simulation.world.borrow_mut().outputs[OutputTopic::Decisions.place()].clear();
    simulation.produce_some(20);
    let phases = simulation.go_on(A_WHILE, 0);
    assert!(phases.iter().any(|phase| matches!(phase, Phase::Waiting { code: "LOG_ORDER", .. })), "{phases:?}");
    assert!(matches!(simulation.phase(0), Phase::Refusing { code: "OUTPUT_LOST", .. }), "{phases:?}");
    let decided = simulation.decided();
    simulation.produce_some(20);
    simulation.go_on(A_WHILE, 0);
    assert_eq!(simulation.decided(), decided, "it refuses and decides");
}

#[test]
fn poison_and_records_beyond_the_limits_stop_nothing_on_any_topic() {
    let simulation = calm(1);
    simulation.world.borrow_mut().become_shard(0, 1);
    let mut simulation = simulation.owned();
    let (long, deep) = (vec![b'x'; 200_000], format!("{}1{}", "[".repeat(30_000), "]".repeat(30_000)));
    let values: [&[u8]; 8] = [b"", b"\0\xff\xfe", b"{}", b"null", b"[]", deep.as_bytes(), &long, br#"{"event":"fill"}"#];
    let keys = [Some(b"A0".to_vec()), None, Some(b"\xff\0".to_vec()), Some(long[..70_000].to_vec())];
    {
        let mut world = simulation.world.borrow_mut();
        let now = world.now;
        for (&(topic, partition), records) in &mut world.inputs {
            for (value, key) in values.iter().flat_map(|value| keys.iter().map(move |key| (value, key))) {
                let offset = records.last().map_or(0, |last| last.source.offset + 1);
                let source = Source { topic, partition, offset };
                records.push(InputRecord { source, ts: now, key: key.clone(), payload: value.to_vec() });
            }
        }
    }
    simulation.produce_some(20);
    simulation.go_on(3 * A_WHILE, 0);
    let all = simulation.world.borrow().input_count() as u64;
    assert_eq!((simulation.phase(0), simulation.decided()), (Phase::Owning, all));
    // Whoever comes next compares the last of them, and refolds all.
    simulation.crash(0);
    simulation.start(0);
    simulation.produce_some(20);
    simulation.go_on(3 * A_WHILE, 0);
    assert_eq!((simulation.phase(0), simulation.decided()), (Phase::Owning, all + 20));
    simulation.end(0);
}

#[test]
fn orders_that_waited_while_nothing_was_acknowledged_expire_and_are_not_approved_late() {
    const STANDSTILL: u64 = 6_000;
    let mut simulation = Simulation::with_owner(1);
    let (step, now) = (simulation.world.borrow().step, simulation.world.borrow().now);
    simulation.world.borrow_mut().slow = step + STANDSTILL;
    simulation.produce_some(100);
    simulation.go_on(STANDSTILL, 0);
    assert!(simulation.world.borrow().now - now > AGE_MAX_MS);
    assert!(simulation.decided() < 70, "what is not acknowledged is in flight, and no more than that");
    simulation.go_on(A_WHILE, 0);
    assert_eq!((simulation.phase(0), simulation.decided()), (Phase::Owning, 140));
    let (mut expired, mut late) = (0, Vec::new());
    {
        let mut world = simulation.world.borrow_mut();
        let (_, outputs) = checker::refold(&mut world).unwrap();
        let ages = ages_of_intents(&world);
        for (OutputTag { seq, .. }, output) in outputs.iter().filter(|(_, output)| output.topic == OutputTopic::Decisions) {
            let decision: serde_json::Value = serde_json::from_slice(&output.payload).unwrap();
            let is_repeat = decision["seq"] != *seq;
            if is_repeat || decision["intent"] == "cancel" || ages[seq] <= AGE_MAX_MS {
                continue;
            }
            let said = decision["reasons"].as_array().unwrap().iter().find(|reason| reason["code"] == "EXPIRED");
            expired += usize::from(said.is_some());
            // What only reduces a position passes, and lists what it would have failed.
            if decision["verdict"] != "block" && said.is_none_or(|reason| reason["exempt"] != true) {
                late.push(decision);
            }
        }
    }
    assert_eq!(late, Vec::<serde_json::Value>::new());
    assert!(expired > 5, "{expired} expired");
    simulation.end(0);
}

/// By sequence, how old each intent was when it was sequenced.
fn ages_of_intents(world: &World) -> BTreeMap<u64, i64> {
    let frames = world.judge.counted.iter().map(|counted| &counted.frame);
    let inputs = frames.flat_map(|frame| (frame.first_seq..).zip(&frame.inputs).map(|(seq, input)| (seq, frame.received, input)));
    let intents = inputs.filter(|(_, _, input)| input.source.topic == InputTopic::Intents);
    intents.map(|(seq, received, input)| (seq, received - input.ts)).collect()
}
