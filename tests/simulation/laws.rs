//! Laws of snapshots, on the simulation's own order flow: what the engine relies on.

use ordergate::domain::{Millis, Source};
use ordergate::engine::{Decoded, Fold, Loaded, Partitioner, Router, Standing, state_hash};
use ordergate::gate::{Account, Gate};
use ordergate::log::InputRecord;
use ordergate::wire::frame::Routing;

use crate::flow;
use crate::random::Random;

fn records(seed: u64, count: usize) -> Vec<(InputRecord, Millis)> {
    let mut random = Random::new(seed);
    let mut now = 1_772_811_000_000;
    let record = |number: usize| {
        let ((topic, partition), key, value) =
            flow::record(&mut random, number, now, Router { partitioner: Partitioner::Murmur2, shard: 0, shards: 1 });
        now += i64::try_from(if random.chance(5) { random.below(100_000) } else { random.below(60) }).unwrap();
        let received = now + if random.chance(50) { 0 } else { i64::try_from(random.below(20_000)).unwrap() - 10_000 };
        let source = Source { topic, partition, offset: number as u64 };
        (InputRecord { source, ts: now, key: key.map(String::into_bytes), payload: value.into_bytes() }, received)
    };
    (0..count).map(record).collect()
}

fn apply(fold: &mut Fold, record: &(InputRecord, Millis)) {
    fold.apply(Decoded::of(record.0.clone(), Routing::Here), record.1, &mut Vec::new());
}

fn copy(fold: &Fold, accounts: &[Account]) -> Fold {
    let mut standing = Standing::default();
    fold.describe(&mut standing);
    Fold::restore(Loaded { standing, shared: fold.gate().shared().clone(), accounts: accounts.to_vec() })
}

/// The first account that a snapshot would keep otherwise than it is.
fn differing_account(gate: &Gate, accounts: &[Account]) -> Option<usize> {
    let bytes = |account: &Account| bincode::serde::encode_to_vec(account, bincode::config::standard()).unwrap();
    gate.accounts().iter().zip(accounts).position(|(live, kept)| bytes(live) != bytes(kept))
}

#[test]
fn the_accounts_that_are_touched_are_all_that_changed() {
    for seed in 0..400 {
        let mut fold = Fold::new(0);
        let (mut kept, mut random): (Vec<Account>, _) = (Vec::new(), Random::new(seed));
        for (number, record) in records(seed, 150).iter().enumerate() {
            apply(&mut fold, record);
            if !random.chance(30) {
                continue;
            }
            for place in fold.take_touched() {
                let account = fold.gate().accounts()[place as usize].clone();
                if (place as usize) < kept.len() { kept[place as usize] = account } else { kept.push(account) }
            }
            let differs = differing_account(fold.gate(), &kept);
            let shown = |accounts: &[Account]| differs.map(|at| format!("{:#?}", accounts[at]));
            let (live, stored) = (shown(fold.gate().accounts()), shown(&kept));
            let payload = String::from_utf8_lossy(&record.0.payload);
            assert_eq!(live, stored, "seed {seed}, record {number}: {payload}");
        }
    }
}

#[test]
fn a_snapshot_at_any_prefix_and_the_rest_give_the_whole() {
    for seed in 0..150 {
        let records = records(seed, 90);
        let mut whole = Fold::new(0);
        let mut at_prefix = Vec::new();
        for record in &records {
            at_prefix.push(copy(&whole, whole.gate().accounts()));
            apply(&mut whole, record);
        }
        for (prefix, mut fold) in at_prefix.into_iter().enumerate() {
            for record in &records[prefix..] {
                apply(&mut fold, record);
            }
            assert_eq!(state_hash(fold.gate()), state_hash(whole.gate()), "seed {seed}, snapshot after {prefix} records");
        }
    }
}
