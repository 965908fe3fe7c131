//! Order flow for the simulation: small, and rich in records whose outcome depends on order and clock.

use ordergate::domain::{InputTopic, Millis};
use ordergate::engine::Router;

use crate::random::Random;

/// The names of four accounts. Among several shards three are the shard's own.
fn account(among: Router, place: u64) -> String {
    let here = |name: &String| among.partitioner.partition(name.as_bytes(), among.shards) == among.shard;
    let own = among.shards == 1 || place < 3;
    let nth = if own { place } else { 0 };
    (0..).map(|n| format!("A{n}")).filter(|name| here(name) == own).nth(usize::try_from(nth).unwrap()).unwrap()
}

/// The next record: its partition, key and value.
pub fn record(random: &mut Random, number: usize, now: Millis, among: Router) -> ((InputTopic, u32), Option<String>, String) {
    let shard = among.shard;
    let account = account(among, random.below(4));
    let symbol = format!("S{}", random.below(3));
    let control = |value: String| ((InputTopic::Control, 0), None, value);
    match number {
        0..4 => {
            let account = self::account(among, number as u64);
            return control(format!(r#"{{"event":"account_opened","account":"{account}","owner":"u","cash":"100000"}}"#));
        }
        4..7 => return control(format!(r#"{{"event":"instrument_defined","symbol":"S{}"}}"#, number - 4)),
        7 => {
            let rule = r#"{"id":"r-1","type":"max_position_size","threshold":"20","unit":"percent","action":"block"}"#;
            return control(format!(r#"{{"event":"rule_created","rule":{rule}}}"#));
        }
        _ => {}
    }
    let price = 90 + random.below(20);
    let id = random.below(40);
    let qty = 1 + random.below(150);
    let side = if random.chance(60) { "buy" } else { "sell" };
    match random.below(20) {
        0..4 => {
            let partition = u32::try_from(random.below(2)).unwrap();
            let value = format!(r#"{{"event":"trade","symbol":"{symbol}","price":"{price}","ts":{now}}}"#);
            ((InputTopic::Prices, partition), Some(symbol), value)
        }
        4..13 => {
            let value = format!(
                r#"{{"event":"order_intent","client_order_id":"I-{id}","account":"{account}","symbol":"{symbol}","side":"{side}","order_type":"limit","qty":"{qty}","limit_price":"{price}"}}"#
            );
            ((InputTopic::Intents, shard), Some(account), value)
        }
        13..15 => {
            let value = format!(r#"{{"event":"order_cancel","client_order_id":"I-{id}","account":"{account}"}}"#);
            ((InputTopic::Intents, shard), Some(account), value)
        }
        15..18 => {
            let value = format!(
                r#"{{"event":"fill","exec_id":"E-{number}","client_order_id":"I-{id}","account":"{account}","symbol":"{symbol}","side":"{side}","qty":"{qty}","price":"{price}"}}"#
            );
            ((InputTopic::Executions, shard), Some(account), value)
        }
        18 => control(format!(r#"{{"event":"cash_adjusted","account":"{account}","amount":"{price}","reason":"x"}}"#)),
        _ => ((InputTopic::Intents, shard), Some(account), format!("no record {number}")),
    }
}
