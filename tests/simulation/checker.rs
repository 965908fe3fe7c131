//! What must hold when a seed has ended.

use std::collections::BTreeMap;

use ordergate::domain::InputTopic;
use ordergate::engine::{Loaded, Partitioner, Replica};
use ordergate::log::{InputRecord, OutputRecord, OutputTag, OutputTopic};

use ordergate::wire::frame::{self, FrameInput, Routing};

use crate::run::Asked;
use crate::world::World;

pub type Expected = BTreeMap<OutputTag, OutputRecord>;

/// Holds the topics against the ledger, the ledger against the inputs, and the live state against a refold.
pub fn check(world: &mut World, live_state: Option<[u8; 32]>, asked: &mut [Asked]) {
    let Some((replica, expected)) = refold(world) else { return };
    let found = [
        check_head(world, &replica),
        check_inputs(world),
        check_routings(world, &expected),
        check_outputs(world, &expected),
        check_marks(world, &expected),
        check_answers(world, &expected, asked),
        (live_state != Some(replica.fold.state_hash())).then(|| "the live state is not the refolded one".to_owned()),
    ];
    for what in found.into_iter().flatten() {
        world.violate(what);
    }
    *world.counts.entry("(outputs)").or_default() += expected.len() as u64;
}

/// A snapshot is what the ledger gives at its place.
pub fn check_snapshot(world: &mut World, snapshot: Loaded) {
    let (seq, head) = (snapshot.standing.seq, snapshot.standing.head);
    let mut replica = Replica::new(world.shard);
    for entry in world.ledger.clone() {
        if replica.sequence.head != head && replica.take(entry).is_err() {
            return;
        }
    }
    let kept = Replica::restore(snapshot);
    if replica.fold.gate().seq() != seq || replica.fold.state_hash() != kept.fold.state_hash() {
        world.violate(format!("the snapshot at seq {seq} is not the state of its place"));
    }
}

/// Folds the ledger from its beginning, and gives all outputs.
pub fn refold(world: &mut World) -> Option<(Replica, Expected)> {
    let mut replica = Replica::new(world.shard);
    let mut expected = Expected::new();
    for entry in world.ledger.clone() {
        if let Err(error) = replica.take(entry) {
            world.violate(format!("the refold fails: {error}"));
            return None;
        }
        expected.extend(replica.unpublished.drain(..).map(|output| (output.tag, output)));
    }
    Some((replica, expected))
}

fn check_head(world: &World, replica: &Replica) -> Option<String> {
    let (engine, auditor) = (&replica.sequence, &world.judge);
    let same = (engine.term, engine.n, engine.head) == (auditor.term, auditor.n, auditor.head);
    (!same).then(|| "the engine and the auditor do not count the same entries".into())
}

/// Every input is in the ledger once, in the order of its partition, with its own bytes.
fn check_inputs(world: &World) -> Option<String> {
    let mut applied: BTreeMap<(InputTopic, u32), Vec<InputRecord>> = world.inputs.keys().map(|&partition| (partition, vec![])).collect();
    for counted in &world.judge.counted {
        for input in &counted.frame.inputs {
            let record = InputRecord { source: input.source, ts: input.ts, key: input.key.clone(), payload: input.payload.clone() };
            applied.entry((input.source.topic, input.source.partition)).or_default().push(record);
        }
    }
    let is_applied = |partition: &(InputTopic, u32), records: &[InputRecord]| {
        applied.get(partition).is_some_and(|applied| applied.iter().cloned().eq(records.iter().map(as_kept)))
    };
    let differs = world.inputs.iter().find(|(partition, records)| !is_applied(partition, records));
    differs.map(|(partition, _)| format!("{partition:?} is not in the ledger record for record"))
}

/// A record as far as the ledger keeps it.
fn as_kept(record: &InputRecord) -> InputRecord {
    let mut kept = record.clone();
    kept.payload.truncate(frame::PAYLOAD_BYTES_KEPT);
    kept.key.iter_mut().for_each(|key| key.truncate(frame::KEY_BYTES_KEPT));
    kept
}

/// Whose a record is follows from its key or from the account that it names, and stands in the ledger.
fn check_routings(world: &World, outputs: &Expected) -> Option<String> {
    let shard_of = |id: &[u8]| Partitioner::Murmur2.partition(id, world.shards);
    let expected = |input: &FrameInput| {
        let spread = matches!(input.source.topic, InputTopic::Intents | InputTopic::Executions);
        let account = || serde_json::from_slice::<serde_json::Value>(&input.payload).ok()?.get("account")?.as_str().map(str::to_owned);
        let about = if spread { None } else { account() };
        match (spread, about) {
            _ if world.shards == 1 => Routing::Here,
            (true, _) if input.key.as_deref().map(shard_of) == Some(world.shard) => Routing::Here,
            (true, _) => Routing::Misrouted,
            (false, Some(account)) if shard_of(account.as_bytes()) == world.shard => Routing::Here,
            (false, Some(_)) => Routing::Elsewhere,
            (false, None) if input.source.partition == world.shard => Routing::Here,
            (false, None) => Routing::Quiet,
        }
    };
    let mut inputs = world.judge.counted.iter().flat_map(|counted| (counted.frame.first_seq..).zip(&counted.frame.inputs));
    let dead_letter_of = |seq: u64| outputs.values().any(|output| output.tag.seq == seq && output.topic == OutputTopic::DeadLetter);
    let wrong = inputs.find(|(seq, input)| {
        let silent = matches!(input.routing, Routing::Elsewhere | Routing::Quiet);
        input.routing != expected(input) || (silent && dead_letter_of(*seq))
    });
    wrong.map(|(_, input)| format!("{:?} is {:?}, or says more than it may", input.source, input.routing))
}

/// Every output of the ledger is in its topic, and nothing else is.
fn check_outputs(world: &World, expected: &Expected) -> Option<String> {
    let mut present: BTreeMap<OutputTag, u64> = BTreeMap::new();
    for topic in OutputTopic::ALL {
        for landed in &world.outputs[topic.place()] {
            let Some(tag) = landed.record.tag else { return Some("an output has no tag".into()) };
            let fits = |output: &&OutputRecord| {
                (output.topic, &output.key, &output.payload) == (topic, &landed.record.key, &landed.record.payload)
            };
            if expected.get(&tag).filter(fits).is_none() {
                return Some(format!("{tag:?} in {} is not what the ledger gives", topic.as_str()));
            }
            *present.entry(tag).or_default() += 1;
        }
    }
    let absent = expected.keys().find(|tag| !present.contains_key(tag));
    absent.map(|tag| format!("{tag:?} was never published"))
}

/// What each frame says of the output topics was so when it was appended.
fn check_marks(world: &World, expected: &Expected) -> Option<String> {
    let mut first: BTreeMap<OutputTag, (u64, u64)> = BTreeMap::new();
    for landed in OutputTopic::ALL.iter().flat_map(|topic| &world.outputs[topic.place()]) {
        if let Some(tag) = landed.record.tag {
            first.entry(tag).or_insert((landed.record.offset, landed.at_step));
        }
    }
    for counted in &world.judge.counted {
        for (tag, output) in expected {
            let Some(&(offset, at_step)) = first.get(tag) else { continue };
            let mark = counted.frame.output_marks[output.topic.place()];
            if tag.seq <= mark.seq && at_step > counted.landed {
                return Some(format!("frame {} says that {tag:?} is published, and it was not", counted.frame.n));
            }
            if tag.seq > mark.seq && offset < mark.offset {
                return Some(format!(
                    "frame {} says that {tag:?} lies at or above {}, and it lies at {offset}",
                    counted.frame.n, mark.offset
                ));
            }
        }
    }
    None
}

/// Nobody was told anything else than what the ledger holds.
fn check_answers(world: &World, expected: &Expected, asked: &mut [Asked]) -> Option<String> {
    let places: BTreeMap<u64, _> = world
        .judge
        .counted
        .iter()
        .flat_map(|counted| (counted.frame.first_seq..).zip(&counted.frame.inputs))
        .map(|(seq, input)| (seq, input.source))
        .collect();
    let shard = world.shard;
    for asked in asked {
        let Ok(answer) = asked.answer.try_recv() else { continue };
        let given = answer.outputs.iter();
        let right = expected.range(OutputTag { shard, seq: answer.seq, index: 0 }..=OutputTag { shard, seq: answer.seq, index: u32::MAX });
        if places.get(&answer.seq) != Some(&asked.source) || !given.eq(right.map(|(_, output)| output)) {
            return Some(format!("someone was told something else about {:?} than what the ledger holds", asked.source));
        }
    }
    None
}
