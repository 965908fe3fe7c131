//! Schemas: held to their files, to what decoding takes, and to what encoding writes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use jsonschema::Validator;
use serde_json::Value;

use super::encode::{ORIGIN, decision, full_data, id};
use super::*;
use crate::domain::{Decision, Effects, NotificationCode, Output, Reason, ReasonCode};
use crate::wire::schema::{self, Topic};
use crate::wire::{encode_output, parse_line};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn validators() -> BTreeMap<&'static str, (Topic, Validator)> {
    let build = |event: &schema::EventSchema| {
        let schema: Value = serde_json::from_str(&event.text).unwrap();
        assert!(jsonschema::meta::is_valid(&schema), "{}", event.name);
        (event.name, (event.topic, jsonschema::draft202012::new(&schema).unwrap()))
    };
    schema::events().iter().map(build).collect()
}

#[test]
fn the_files_in_schemas_are_what_the_types_say() {
    let folder = root().join("schemas");
    let update = std::env::var_os("UPDATE_SCHEMAS").is_some();
    let mut expected = BTreeSet::new();
    for (name, text) in schema::all() {
        let path = folder.join(&name);
        if update {
            fs::create_dir_all(&folder).unwrap();
            fs::write(&path, &text).unwrap();
        }
        let found = fs::read_to_string(&path).unwrap_or_default();
        assert!(found == text, "{name} differs from its type: run UPDATE_SCHEMAS=1 cargo test --lib wire::tests::schemas");
        assert!(expected.insert(name));
    }
    // Other floors may keep their own files here; each JSON file of ours must still have its type.
    let ours: BTreeSet<String> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert!(expected.is_subset(&ours));
}

/// Copied into the repository; before that, where they come from.
fn scenarios() -> Option<PathBuf> {
    let own = root().join("tests/vectors/scenarios");
    if own.is_dir() {
        return Some(own);
    }
    root().ancestors().map(|folder| folder.join("shared/vectors/scenarios")).find(|folder| folder.is_dir())
}

fn topic_of_name(name: &str) -> InputTopic {
    InputTopic::ALL.iter().copied().find(|topic| topic.as_str() == name).unwrap()
}

/// Whether the schema of the event that a value names takes it, on that topic.
fn schema_takes(validators: &BTreeMap<&'static str, (Topic, Validator)>, topic: InputTopic, value: &Value) -> bool {
    let event = value.get("event").and_then(Value::as_str).unwrap_or_default();
    validators.get(event).is_some_and(|(home, validator)| *home == Topic::Input(topic) && validator.is_valid(value))
}

#[test]
fn schemas_and_decoding_agree_on_every_record_of_the_scenarios() {
    let Some(folder) = scenarios() else {
        eprintln!("skipped: neither tests/vectors/scenarios nor ../shared/vectors/scenarios is there");
        return;
    };
    let validators = validators();
    let (mut taken, mut refused) = (0, 0);
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "jsonl") {
            continue;
        }
        for line in fs::read(&path).unwrap().split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let line = parse_line(line).unwrap();
            let topic = topic_of_name(&line.topic);
            // A schema does not see the key.
            let event = decode(topic, None, &line.payload);
            let whole: Option<Value> = serde_json::from_slice(&line.payload).ok();
            let by_schema = whole.as_ref().is_some_and(|value| schema_takes(&validators, topic, value));
            match &event {
                // What a schema cannot see: doubled fields, and digits counted by value.
                Event::Refused(why) => {
                    let unseen = why.message.contains("twice") || why.code == RefusalCode::ValueOutOfRange;
                    assert!(!by_schema || unseen, "{path:?} {:?}\n{why:?}", String::from_utf8_lossy(&line.payload));
                    refused += 1;
                }
                _ => {
                    assert!(by_schema, "{path:?} {:?}", String::from_utf8_lossy(&line.payload));
                    taken += 1;
                }
            }
        }
    }
    assert!(taken > 400 && refused > 10, "{taken} taken, {refused} refused");
}

/// Records that both must refuse.
const FAULTS: &[(InputTopic, &str)] = {
    use InputTopic::{Control, Executions, Intents, Prices};
    &[
        (
            Intents,
            r#"{"event":"order_intent","client_order_id":"I","account":"A","symbol":"S","side":"buy","order_type":"limit","qty":"1","colour":1}"#,
        ),
        (
            Intents,
            r#"{"event":"order_intent","client_order_id":"I","account":"A","symbol":"S","side":"hold","order_type":"limit","qty":"1"}"#,
        ),
        (
            Intents,
            r#"{"event":"order_intent","client_order_id":"I","account":"A","symbol":"S","side":"buy","order_type":"limit","qty":"0"}"#,
        ),
        (
            Intents,
            r#"{"event":"order_intent","client_order_id":"I","account":"A","symbol":"S","side":"buy","order_type":"limit","qty":"+1"}"#,
        ),
        (
            Intents,
            r#"{"event":"order_intent","client_order_id":"I","account":"A","symbol":"S","side":"buy","order_type":"limit","qty":-1}"#,
        ),
        (
            Intents,
            r#"{"event":"order_intent","client_order_id":"I","account":"A","symbol":"S","side":"buy","order_type":"limit","qty":[1]}"#,
        ),
        (
            Intents,
            r#"{"event":"order_intent","client_order_id":"a b","account":"A","symbol":"S","side":"buy","order_type":"limit","qty":1}"#,
        ),
        (
            Intents,
            r#"{"event":"order_intent","client_order_id":"I","account":"A/B","symbol":"S","side":"buy","order_type":"limit","qty":1}"#,
        ),
        (Intents, r#"{"event":"order_intent","client_order_id":"I","account":"A","side":"buy","order_type":"limit","qty":1}"#),
        (
            Intents,
            r#"{"event":"order_intent","client_order_id":"I","account":"A","symbol":"S","side":"buy","order_type":"limit","qty":1,"ts":"noon"}"#,
        ),
        (
            Intents,
            r#"{"event":"order_intent","client_order_id":"I","account":"A","symbol":"S","side":"buy","order_type":"limit","qty":1,"reduce_only":"yes"}"#,
        ),
        (Intents, r#"{"event":"order_amend","client_order_id":"I","amend_id":null,"account":"A","qty":1}"#),
        (Intents, r#"{"event":"order_cancel","client_order_id":"I","account":"A","qty":1}"#),
        (Intents, r#"{"event":"order_cancel","client_order_id":"I","account":"A","ts":1}"#),
        (Intents, r#"{"event":"signal","account":"A","strategy":"s","symbol":"S","signal":"wait"}"#),
        (Intents, r#"{"event":"fill","exec_id":"E","client_order_id":"I","account":"A","symbol":"S","side":"buy","qty":1,"price":1}"#),
        (Executions, r#"{"event":"fill","exec_id":"E","client_order_id":"I","account":"A","symbol":"S","side":"buy","qty":1,"price":0}"#),
        (
            Executions,
            r#"{"event":"fill","exec_id":"E","client_order_id":"I","account":"A","symbol":"S","side":"buy","qty":1,"price":1,"fee":"free"}"#,
        ),
        (Executions, r#"{"event":"canceled","client_order_id":"I","account":"A","reason":7}"#),
        (Executions, r#"{"event":"trade_corrected","exec_id":"E","account":"A","qty":1}"#),
        (Prices, r#"{"event":"trade","symbol":"S","price":"NaN"}"#),
        (Prices, r#"{"event":"trade","symbol":"S","price":1,"size":-1}"#),
        (Prices, r#"{"event":"quote","symbol":"S"}"#),
        (Prices, r#"{"event":"quote","symbol":"S","bid":null}"#),
        (Prices, r#"{"event":"bar","symbol":"S","timeframe":"1d","open_time":1.5,"close":1}"#),
        (Control, r#"{"event":"account_opened","account":"A","owner":"u","cash":"1","limits":{"max_order_qty":0}}"#),
        (Control, r#"{"event":"account_opened","account":"A","owner":"u","cash":"1","limits":{"max":1}}"#),
        (Control, r#"{"event":"account_opened","account":"A","owner":"u","cash":"1","limits":[]}"#),
        (Control, r#"{"event":"account_limits_set","account":"A","order_rate_limit":0}"#),
        (Control, r#"{"event":"account_limits_set","account":"A","max_price_age_ms":-1}"#),
        (Control, r#"{"event":"account_limits_set","account":"A","notify":["all"]}"#),
        (Control, r#"{"event":"account_limits_set","account":"A","valuation_grid_ms":1000}"#),
        (Control, r#"{"event":"gate_settings_set","valuation_grid_ms":0}"#),
        (Control, r#"{"event":"gate_settings_set","colour":1}"#),
        (Control, r#"{"event":"cash_adjusted","account":"A","amount":1}"#),
        (Control, r#"{"event":"instrument_defined","symbol":"S","lot_size":"0"}"#),
        (Control, r#"{"event":"split","symbol":"S","from":1,"to":"-2"}"#),
        (Control, r#"{"event":"restricted_list_set","list":"l","symbols":"S"}"#),
        (Control, r#"{"event":"rule_created","rule":{"id":"r","type":"luck","threshold":1,"unit":"ratio","action":"block"}}"#),
        (
            Control,
            r#"{"event":"rule_created","rule":{"id":"r","type":"max_leverage","threshold":1,"unit":"ratio","action":"block","window":1}}"#,
        ),
        (
            Control,
            r#"{"event":"rule_created","rule":{"id":"r","type":"max_leverage","threshold":1,"unit":"ratio","action":"block","scope":{"symbol":"S"}}}"#,
        ),
        (Control, r#"{"event":"rule_updated"}"#),
        (Control, r#"{"event":"trading_state_set","scope":{},"state":"paused","actor":"o","reason":"r"}"#),
        (Control, r#"{"event":"trading_state_set","scope":null,"state":"halted","actor":"o","reason":"r"}"#),
        (Control, r#"{"event":"latch_released","account":"A","rule_id":"r","actor":"o","reason":null}"#),
        (Control, r#"{"event":"unheard_of"}"#),
        (Control, r#"{}"#),
    ]
};

#[test]
fn schemas_and_decoding_refuse_the_same_faults() {
    let validators = validators();
    for (topic, payload) in FAULTS {
        refusal(*topic, payload);
        assert!(!schema_takes(&validators, *topic, &serde_json::from_str(payload).unwrap()), "{payload}");
    }
}

#[test]
fn what_is_encoded_is_valid_by_its_schema() {
    let validators = validators();
    let check = |name: &str, output: &Output, effects: &Effects| {
        let mut out = Vec::new();
        encode_output(&mut out, output, effects, &ORIGIN);
        let value: Value = serde_json::from_slice(&out).unwrap();
        if let Err(error) = validators[name].1.validate(&value) {
            panic!("{error} at {}: {value}", error.instance_path);
        }
    };
    let effects = super::encode::every_reason();
    check("decision", &Output::Decision(Decision { reasons: 0..effects.reasons.len(), ..decision() }), &effects);
    let unread = Decision { intent: None, symbol: None, side: None, requested_qty: None, equity: None, reasons: 0..1, ..decision() };
    let reasons = vec![Reason { refused: Some(Box::new((None, "x".into()))), ..Reason::of(ReasonCode::Malformed) }];
    check("decision", &Output::Decision(unread), &Effects { reasons, ..Effects::default() });
    let amend = Decision { amend_id: Some(id("A")), ..decision() };
    check("decision", &Output::Decision(amend), &Effects::default());
    for output in super::encode::commands() {
        let name = if matches!(output, Output::CancelOrders(_)) { "cancel_orders" } else { "close_position" };
        check(name, &output, &Effects { order_ids: vec![id("I-1"), id("I-2")], ..Effects::default() });
    }
    for code in NotificationCode::ALL {
        for (account, data) in [(None, Default::default()), (Some(id("A")), full_data())] {
            let notification = crate::domain::Notification { code: *code, account, owner: account, data, ..super::encode::notification() };
            check("notification", &Output::Notification(notification), &Effects::default());
        }
    }
    check("dead_letter", &super::encode::dead_letter(Some("a.b")), &Effects::default());
    check("dead_letter", &super::encode::dead_letter(None), &Effects::default());
}
