//! Control records.

use super::*;
use crate::domain::{
    Action, CollarMode, ControlEvent, Factor, Id, Limits, Mode, Money, NotificationType, OnMissing, Patch, Qty, Rule, RuleScope, RuleType,
    StateScope, Symbol, TradingState, Unit,
};

const CONTROL: InputTopic = InputTopic::Control;
const MALFORMED: RefusalCode = RefusalCode::Malformed;
const OUT_OF_RANGE: RefusalCode = RefusalCode::ValueOutOfRange;

fn id(text: &str) -> Id {
    Id::parse(text.as_bytes()).unwrap()
}

fn symbol(text: &str) -> Symbol {
    Symbol::parse(text.as_bytes()).unwrap()
}

#[track_caller]
fn control(payload: &str) -> ControlEvent {
    match takes(CONTROL, payload) {
        Event::Control(event) => *event,
        other => panic!("{other:?}"),
    }
}

type Members = &'static [(&'static str, &'static str)];

/// Each control event with its fields, the required ones first, and how many those are.
const EVENTS: [(&str, usize, Members); 13] = [
    (
        "account_opened",
        3,
        &[
            ("account", "\"A\""),
            ("owner", "\"u\""),
            ("cash", "-5.5"),
            ("currency", "\"EUR\""),
            ("day_roll", "\"17:00 UTC\""),
            ("limits", "{}"),
        ],
    ),
    ("account_closed", 1, &[("account", "\"A\"")]),
    ("account_limits_set", 1, &[("account", "\"A\""), ("max_order_qty", "5"), ("notify", "[]")]),
    ("gate_settings_set", 0, &[("max_intent_age_ms", "0"), ("sizing_percent", "2"), ("max_price_age_ms", "0")]),
    ("cash_adjusted", 3, &[("account", "\"A\""), ("amount", "-1"), ("reason", "\"fee\"")]),
    (
        "instrument_defined",
        1,
        &[
            ("symbol", "\"A/B\""),
            ("sector", "\"TECH\""),
            ("multiplier", "50"),
            ("lot_size", "0.01"),
            ("tick_size", "\"0.25\""),
            ("currency", "\"USD\""),
            ("max_order_qty", "5"),
            ("max_order_value", "\"1e6\""),
        ],
    ),
    ("split", 3, &[("symbol", "\"A\""), ("from", "1"), ("to", "\"2\"")]),
    ("restricted_list_set", 2, &[("list", "\"l\""), ("symbols", "[\"A\",\"B/C\"]"), ("accounts", "[\"X\"]")]),
    ("rule_created", 1, &[("rule", r#"{"id":"r","type":"max_leverage","threshold":2,"unit":"ratio","action":"block"}"#)]),
    ("rule_updated", 1, &[("rule", r#"{"id":"r","type":"max_leverage","threshold":2,"unit":"ratio","action":"block"}"#)]),
    ("rule_deleted", 1, &[("id", "\"r\"")]),
    (
        "trading_state_set",
        4,
        &[
            ("scope", "{}"),
            ("state", "\"halted\""),
            ("actor", "\"op\""),
            ("reason", "\"\""),
            ("cancel_orders", "true"),
            ("flatten", "false"),
        ],
    ),
    ("latch_released", 4, &[("account", "\"A\""), ("rule_id", "\"r\""), ("actor", "\"op\""), ("reason", "\"ok\""), ("reset_hwm", "true")]),
];

#[test]
fn every_event_needs_its_required_fields_and_no_other() {
    for (event, required, fields) in EVENTS {
        let name = format!("\"{event}\"");
        let mut all = vec![("event", name.as_str())];
        all.extend_from_slice(fields);
        control(&object(&all));
        control(&object(&all[..=required]));
        for (field, _) in &fields[..required] {
            refuses(CONTROL, &with(&all, field, ""), MALFORMED, field);
            refuses(CONTROL, &with(&all, field, "null"), MALFORMED, field);
        }
        for (field, _) in &fields[required..] {
            control(&with(&all, field, "null"));
        }
        for (field, _) in fields {
            refuses(CONTROL, &with(&all, field, "[[]]"), MALFORMED, field);
        }
        refuses(CONTROL, &with(&all, "colour", "1"), MALFORMED, "colour");
        refuses(CONTROL, &with(&all, "bid", "null"), MALFORMED, "bid");
        refuses(CONTROL, &object(&all).replacen('{', "{\"event\":\"split\",", 1), MALFORMED, "event");
    }
    refuses(CONTROL, r#"{"event":"account_deleted","account":"A"}"#, MALFORMED, "event");
}

#[test]
fn limits_are_set_cleared_or_kept() {
    let payload = r#"{"event":"account_limits_set","account":"A","max_order_qty":"5","max_order_value":null,"price_collar_percent":2.5,
        "price_collar_mode":"two_sided","max_price_age_ms":0,"order_rate_limit":1,"order_rate_window_ms":1000,"duplicate_window_ms":null,
        "self_trade_prevention":true,"notify":["order_filled","daily_summary"]}"#;
    let limits = Limits {
        max_order_qty: Patch::Set(Qty::whole(5)),
        max_order_value: Patch::Clear,
        price_collar_percent: Patch::Set(Factor(250_000_000)),
        price_collar_mode: Patch::Set(CollarMode::TwoSided),
        max_price_age_ms: Patch::Set(0),
        order_rate_limit: Patch::Set(1),
        order_rate_window_ms: Patch::Set(1000),
        duplicate_window_ms: Patch::Clear,
        self_trade_prevention: Patch::Set(true),
        notify: Patch::Set([NotificationType::OrderFilled, NotificationType::DailySummary].into()),
    };
    assert_eq!(control(payload), ControlEvent::AccountLimitsSet { account: id("A"), limits: limits.clone() });
    let opened = payload.replace("account_limits_set", "account_opened");
    let opened = opened.replace("\"max_order_qty\":", "\"owner\":\"u\",\"cash\":1,\"limits\":{\"max_order_qty\":").replace("]}", "]}}");
    let ControlEvent::AccountOpened(opened) = control(&opened) else { panic!("not opened") };
    assert_eq!((opened.limits, opened.cash), (limits.clone(), Money::whole(1)));
    let ControlEvent::GateSettingsSet(settings) = control(
        &payload
            .replace("account_limits_set", "gate_settings_set")
            .replace("\"account\":\"A\"", "\"valuation_grid_ms\":1,\"id_memory_ms\":null"),
    ) else {
        panic!("no settings")
    };
    assert_eq!(settings.limits, limits);
    assert_eq!((settings.valuation_grid_ms, settings.id_memory_ms, settings.max_intent_age_ms), (Patch::Set(1), Patch::Clear, Patch::Keep));
}

#[test]
fn a_limit_that_makes_no_sense_is_refused() {
    let cases = [
        ("max_order_qty", "0", OUT_OF_RANGE),
        ("max_order_value", "\"-1\"", OUT_OF_RANGE),
        ("price_collar_percent", "0", OUT_OF_RANGE),
        ("price_collar_mode", "\"both\"", MALFORMED),
        ("max_price_age_ms", "-1", OUT_OF_RANGE),
        ("max_price_age_ms", "\"5\"", MALFORMED),
        ("max_price_age_ms", "1.5", MALFORMED),
        ("max_price_age_ms", "9223372036854775808", OUT_OF_RANGE),
        ("max_price_age_ms", "1e30", OUT_OF_RANGE),
        ("order_rate_limit", "0", OUT_OF_RANGE),
        ("order_rate_limit", "4294967296", OUT_OF_RANGE),
        ("order_rate_window_ms", "-5", OUT_OF_RANGE),
        ("duplicate_window_ms", "true", MALFORMED),
        ("self_trade_prevention", "\"yes\"", MALFORMED),
        ("notify", "\"order_filled\"", MALFORMED),
        ("notify", "[\"order_filled\",null]", MALFORMED),
        ("notify", "[\"ORDER_FILLED\"]", MALFORMED),
        ("valuation_grid_ms", "0", OUT_OF_RANGE),
        ("sizing_percent", "0", OUT_OF_RANGE),
    ];
    for (field, value, code) in cases {
        refuses(CONTROL, &format!(r#"{{"event":"gate_settings_set","{field}":{value}}}"#), code, field);
        if !["valuation_grid_ms", "sizing_percent"].contains(&field) {
            let opened = format!(r#"{{"event":"account_opened","account":"A","owner":"u","cash":0,"limits":{{"{field}":{value}}}}}"#);
            refuses(CONTROL, &opened, code, &format!("limits.{field}"));
        }
    }
    let Event::Control(event) = takes(CONTROL, r#"{"event":"gate_settings_set","max_price_age_ms":5e3}"#) else { panic!() };
    assert!(matches!(*event, ControlEvent::GateSettingsSet(settings) if settings.limits.max_price_age_ms == Patch::Set(5000)));
}

const RULE: [(&str, &str); 5] =
    [("id", "\"r-1\""), ("type", "\"max_correlation\""), ("threshold", "\"0.8\""), ("unit", "\"ratio\""), ("action", "\"block\"")];

fn rule_record(rule: &str) -> String {
    format!(r#"{{"event":"rule_created","rule":{rule}}}"#)
}

#[test]
fn a_rule_comes_with_its_defaults() {
    let expected = Rule {
        id: id("r-1"),
        name: "".into(),
        description: "".into(),
        rule_type: RuleType::MaxCorrelation,
        threshold: Factor(80_000_000),
        unit: Unit::Ratio,
        action: Action::Block,
        scope: RuleScope::default(),
        active: true,
        mode: Mode::Enforce,
        priority: 0,
        warn_at: Factor::whole(80),
        trailing: false,
        window: 60,
        timeframe: id("1d"),
        min_observations: 20,
        on_missing: OnMissing::Skip,
    };
    assert_eq!(control(&rule_record(&object(&RULE))), ControlEvent::RuleCreated(expected.clone()));
    let all = r#"{"id":"r-1","name":"caf\u00e9 \"x\"","description":"d","type":"stop_loss","threshold":5e0,"unit":"percent","action":"close_all",
        "scope":{"account":"A","strategy":"s","symbols":["X","Y/Z"],"sectors":["TECH"]},"active":false,"mode":"observe","priority":-3,
        "warn_at":"90.5","trailing":true,"window":2,"timeframe":"1h","min_observations":2,"on_missing":"block"}"#;
    let full = Rule {
        name: "caf\u{e9} \"x\"".into(),
        description: "d".into(),
        rule_type: RuleType::StopLoss,
        threshold: Factor::whole(5),
        unit: Unit::Percent,
        action: Action::CloseAll,
        scope: RuleScope {
            account: Some(id("A")),
            strategy: Some(id("s")),
            symbols: [symbol("X"), symbol("Y/Z")].into(),
            sectors: [id("TECH")].into(),
        },
        active: false,
        mode: Mode::Observe,
        priority: -3,
        warn_at: Factor(9_050_000_000),
        trailing: true,
        window: 2,
        timeframe: id("1h"),
        min_observations: 2,
        on_missing: OnMissing::Block,
        ..expected
    };
    assert_eq!(control(&rule_record(all)), ControlEvent::RuleCreated(full));
}

#[test]
fn a_rule_with_a_wrong_part_is_refused_with_its_path() {
    let cases = [
        ("id", "\"a/b\"", MALFORMED),
        ("type", "\"max_luck\"", MALFORMED),
        ("threshold", "0", OUT_OF_RANGE),
        ("threshold", "\"0.000000001\"", OUT_OF_RANGE),
        ("unit", "\"euros\"", MALFORMED),
        ("action", "\"panic\"", MALFORMED),
        ("name", "5", MALFORMED),
        ("active", "1", MALFORMED),
        ("mode", "\"off\"", MALFORMED),
        ("priority", "\"1\"", MALFORMED),
        ("warn_at", "0", OUT_OF_RANGE),
        ("trailing", "\"no\"", MALFORMED),
        ("window", "1", OUT_OF_RANGE),
        ("window", "4294967296", OUT_OF_RANGE),
        ("min_observations", "0", OUT_OF_RANGE),
        ("timeframe", "\"\"", MALFORMED),
        ("on_missing", "\"warn\"", MALFORMED),
        ("rule_type", "\"stop_loss\"", MALFORMED),
        ("scope", "[]", MALFORMED),
    ];
    for (field, value, code) in cases {
        refuses(CONTROL, &rule_record(&with(&RULE, field, value)), code, &format!("rule.{field}"));
    }
    for (field, _) in RULE {
        refuses(CONTROL, &rule_record(&with(&RULE, field, "")), MALFORMED, &format!("rule.{field}"));
    }
    let twice = object(&RULE).replace('}', ",\"unit\":\"ratio\"}");
    refuses(CONTROL, &rule_record(&twice), MALFORMED, "rule.unit");
    for (scope, path) in [
        (r#"{"symbol":"X"}"#, "rule.scope.symbol"),
        (r#"{"symbols":"X"}"#, "rule.scope.symbols"),
        (r#"{"symbols":["X",null]}"#, "rule.scope.symbols"),
        (r#"{"account":"A","account":"A"}"#, "rule.scope.account"),
        (r#"{"sectors":["A B"]}"#, "rule.scope.sectors"),
    ] {
        refuses(CONTROL, &rule_record(&with(&RULE, "scope", scope)), MALFORMED, path);
    }
    control(&rule_record(&with(&RULE, "scope", r#"{"symbols":[],"sectors":null}"#)));
}

#[test]
fn a_trading_state_names_its_scope() {
    let payload = r#"{"event":"trading_state_set","scope":{"account":"A","symbol":"X/Y"},"state":"reduce_only","actor":"op","reason":"r","flatten":true}"#;
    let ControlEvent::TradingStateSet(set) = control(payload) else { panic!("no state") };
    assert_eq!(set.scope, StateScope { account: Some(id("A")), strategy: None, symbol: Some(symbol("X/Y")) });
    assert_eq!((set.state, set.cancel_orders, set.flatten), (TradingState::ReduceOnly, false, true));
    refuses(CONTROL, &payload.replace("\"symbol\":", "\"symbols\":"), MALFORMED, "scope.symbols");
    refuses(CONTROL, &payload.replace("reduce_only", "paused"), MALFORMED, "state");
    refuses(CONTROL, &payload.replace("\"flatten\":true", "\"flatten\":\"true\""), MALFORMED, "flatten");
}

#[test]
fn the_key_of_a_control_record_is_not_checked() {
    let payload = br#"{"event":"account_closed","account":"A"}"#;
    assert!(matches!(decode(CONTROL, Some(b"\xff other"), payload), Event::Control(_)));
}
