//! Intents and executions.

use super::*;
use crate::domain::{
    Factor, Id, Money, OrderAmend, OrderCancel, OrderIntent, OrderPrices, OrderType, Price, Qty, ReportKind, Side, Size, Symbol,
    TimeInForce,
};

const INTENTS: InputTopic = InputTopic::Intents;
const EXECUTIONS: InputTopic = InputTopic::Executions;
const MALFORMED: RefusalCode = RefusalCode::Malformed;
const OUT_OF_RANGE: RefusalCode = RefusalCode::ValueOutOfRange;

pub(super) const INTENT: [(&str, &str); 7] = [
    ("event", r#""order_intent""#),
    ("client_order_id", r#""I-1""#),
    ("account", r#""ACC1""#),
    ("symbol", r#""AAPL""#),
    ("side", r#""buy""#),
    ("order_type", r#""limit""#),
    ("qty", r#""100""#),
];

pub(super) const FILL: [(&str, &str); 8] = [
    ("event", r#""fill""#),
    ("exec_id", r#""E-1""#),
    ("client_order_id", r#""I-1""#),
    ("account", r#""ACC1""#),
    ("symbol", r#""AAPL""#),
    ("side", r#""sell""#),
    ("qty", "40"),
    ("price", "99.98"),
];

fn id(text: &str) -> Id {
    Id::parse(text.as_bytes()).unwrap()
}

fn symbol(text: &str) -> Symbol {
    Symbol::parse(text.as_bytes()).unwrap()
}

fn intent(payload: &str) -> OrderIntent {
    match takes(INTENTS, payload) {
        Event::Intent(intent) => intent,
        other => panic!("{other:?}"),
    }
}

#[test]
fn reads_every_field_of_an_intent() {
    let payload = r#" {"event":"order_intent","client_order_id":"I-1","account":"ACC1","strategy":"mean-rev","symbol":"BTC/USD",
        "side":"sell","order_type":"stop_limit","qty":"100","limit_price":"100.00","stop_price":101.5,"trail_price":1e-8,
        "trail_percent":"2.5E0","time_in_force":"gtc","reduce_only":true,"all_or_none":false,"extended_hours":true,
        "ts":"2026-03-06T15:30:00Z"} "#;
    let expected = OrderIntent {
        client_order_id: id("I-1"),
        account: id("ACC1"),
        strategy: Some(id("mean-rev")),
        symbol: symbol("BTC/USD"),
        side: Side::Sell,
        order_type: OrderType::StopLimit,
        size: Size::Qty(Qty::whole(100)),
        prices: OrderPrices {
            limit: Some(Price::whole(100)),
            stop: Some(Price(10_150_000_000)),
            trail_price: Some(Price(1)),
            trail_percent: Some(Factor(250_000_000)),
        },
        time_in_force: TimeInForce::Gtc,
        reduce_only: true,
        all_or_none: false,
        extended_hours: true,
    };
    assert_eq!(intent(payload), expected);
}

#[test]
fn null_is_as_good_as_absent() {
    let bare = intent(&object(&INTENT));
    for field in ["strategy", "notional", "limit_price", "stop_price", "trail_price", "time_in_force", "reduce_only", "ts"] {
        assert_eq!(intent(&with(&INTENT, field, "null")), bare, "{field}");
    }
    assert_eq!(bare.time_in_force, TimeInForce::Day);
}

#[test]
fn names_what_a_required_field_lacks() {
    for (field, _) in INTENT.iter().filter(|(field, _)| *field != "qty") {
        refuses(INTENTS, &with(&INTENT, field, ""), MALFORMED, field);
        refuses(INTENTS, &with(&INTENT, field, "null"), MALFORMED, field);
    }
    for (field, _) in FILL {
        refuses(EXECUTIONS, &with(&FILL, field, ""), MALFORMED, field);
        refuses(EXECUTIONS, &with(&FILL, field, "null"), MALFORMED, field);
    }
}

#[test]
fn an_unclear_size_is_kept_for_the_gate() {
    assert_eq!(intent(&with(&INTENT, "qty", "")).size, Size::Unclear(None, None));
    let both = intent(&with(&INTENT, "notional", "\"5\"")).size;
    assert_eq!(both, Size::Unclear(Some(Qty::whole(100)), Some(Money::whole(5))));
    let notional = with(&INTENT, "qty", "").replace('}', ",\"notional\":0.01}");
    assert_eq!(intent(&notional).size, Size::Notional(Money(100_000_000_000_000)));
}

#[test]
fn refuses_wrong_words_and_types_in_an_intent() {
    let cases = [
        ("side", "\"BUY\""),
        ("side", "1"),
        ("order_type", "\"iceberg\""),
        ("order_type", "[\"limit\"]"),
        ("time_in_force", "\"gtd\""),
        ("reduce_only", "\"true\""),
        ("all_or_none", "1"),
        ("extended_hours", "{}"),
        ("client_order_id", "\"\""),
        ("client_order_id", "7"),
        ("client_order_id", "\"a b\""),
        ("account", "\"A/B\""),
        ("symbol", "\"ABCDEFGHIJABCDEFGHIJABCDEFGHIJABC\""),
        ("strategy", "\"\""),
        ("qty", "[\"1\"]"),
        ("qty", "true"),
        ("qty", "{\"a\":1}"),
        ("limit_price", "\"ten\""),
        ("ts", "\"yesterday\""),
        ("ts", "1.5"),
        ("ts", "true"),
        ("event", "\"fill\""),
        ("event", "\"order\""),
        ("event", "1"),
        ("amend_id", "\"A-1\""),
        ("colour", "\"red\""),
        ("signal", "null"),
    ];
    for (field, value) in cases {
        refuses(INTENTS, &with(&INTENT, field, value), MALFORMED, field);
    }
}

#[test]
fn a_number_out_of_its_domain_is_refused_and_never_rounded() {
    let cases = [
        ("qty", "0"),
        ("qty", "\"-1\""),
        ("qty", "-0.0"),
        ("qty", "\"0.123456789\""),
        ("qty", "1e400"),
        ("qty", "1e-400"),
        ("qty", "92233720368.54775808"),
        ("limit_price", "\"-1\""),
        ("stop_price", "0"),
        ("trail_percent", "0"),
        ("notional", "0"),
        ("notional", "1e18"),
        ("notional", "\"0.000000001\""),
        ("ts", "9223372036854775808"),
    ];
    for (field, value) in cases {
        refuses(INTENTS, &with(&INTENT, field, value), OUT_OF_RANGE, field);
    }
    assert_eq!(intent(&with(&INTENT, "qty", "92233720368.54775807")).size, Size::Qty(Qty(i64::MAX)));
    assert_eq!(intent(&with(&INTENT, "qty", "\"1.000000000\"")).size, Size::Qty(Qty::whole(1)));
}

#[test]
fn what_is_malformed_outweighs_what_is_out_of_range_wherever_it_stands() {
    refuses(INTENTS, &with(&INTENT, "qty", "0").replace('}', ",\"colour\":1}"), MALFORMED, "colour");
    refuses(INTENTS, &with(&INTENT, "qty", "0").replace("\"buy\"", "\"hold\""), MALFORMED, "side");
    let event = decode(INTENTS, Some(b"ACC2"), with(&INTENT, "qty", "0").as_bytes());
    assert!(matches!(event, Event::Refused(refused) if refused.code == MALFORMED && refused.field.as_deref() == Some("account")));
}

#[test]
fn a_key_must_name_the_account() {
    let payload = object(&INTENT);
    for (key, taken) in [(None, true), (Some(&b"ACC1"[..]), true), (Some(b"ACC2"), false), (Some(b""), false), (Some(b"\xff"), false)] {
        let event = decode(INTENTS, key, payload.as_bytes());
        assert_eq!(matches!(event, Event::Intent(_)), taken, "{key:?}");
    }
    let event = decode(EXECUTIONS, Some(b"ACC2"), object(&FILL).as_bytes());
    assert!(matches!(event, Event::Refused(refused) if refused.account == Some(id("ACC1"))));
}

#[test]
fn reads_amends_cancels_and_signals() {
    let amend =
        r#"{"event":"order_amend","client_order_id":"I-1","amend_id":"A-1","account":"ACC1","qty":5,"limit_price":null,"stop_price":"7"}"#;
    let expected = OrderAmend {
        client_order_id: id("I-1"),
        amend_id: id("A-1"),
        account: id("ACC1"),
        qty: Some(Qty::whole(5)),
        limit_price: None,
        stop_price: Some(Price::whole(7)),
    };
    assert_eq!(takes(INTENTS, amend), Event::Amend(expected));
    refuses(INTENTS, &amend.replace("stop_price", "notional"), MALFORMED, "notional");
    let cancel = r#"{"event":"order_cancel","client_order_id":"I-1","account":"ACC1"}"#;
    assert_eq!(takes(INTENTS, cancel), Event::Cancel(OrderCancel { client_order_id: id("I-1"), account: id("ACC1") }));
    refuses(INTENTS, r#"{"event":"order_cancel","client_order_id":"I-1"}"#, MALFORMED, "account");
    let signal = r#"{"event":"signal","account":"ACC1","strategy":"s","symbol":"AAPL","signal":"hold","ts":-5}"#;
    assert!(matches!(takes(INTENTS, signal), Event::Signal(_)));
    refuses(INTENTS, &signal.replace("hold", "wait"), MALFORMED, "signal");
}

#[test]
fn reads_executions_and_passes_over_what_it_does_not_know() {
    let Event::Fill(fill) = takes(EXECUTIONS, &object(&FILL)) else { panic!("no fill") };
    assert_eq!((fill.fee, fill.price, fill.side), (Money::ZERO, Price(9_998_000_000), Side::Sell));
    let Event::Fill(fill) = takes(EXECUTIONS, &with(&FILL, "fee", "\"-0.20\"")) else { panic!("no fill") };
    assert_eq!(fill.fee, Money(-2_000_000_000_000_000));
    takes(EXECUTIONS, &with(&FILL, "liquidity", r#"{"a":[1,{"b":null}],"a":2}"#));
    takes(EXECUTIONS, &with(&FILL, "notional", "\"whatever\""));
    for (word, kind) in [
        ("accepted", ReportKind::Accepted),
        ("canceled", ReportKind::Canceled),
        ("rejected", ReportKind::Rejected),
        ("expired", ReportKind::Expired),
        ("done_for_day", ReportKind::DoneForDay),
    ] {
        let payload = format!(r#"{{"event":"{word}","client_order_id":"I-1","account":"ACC1","reason":"user","x":1}}"#);
        assert!(matches!(takes(EXECUTIONS, &payload), Event::Report(report) if report.kind == kind));
        refuses(EXECUTIONS, &payload.replace("\"user\"", "5"), MALFORMED, "reason");
    }
    assert!(matches!(takes(EXECUTIONS, r#"{"event":"trade_busted","account":"ACC1","exec_id":"E-1"}"#), Event::Busted(_)));
    let corrected = r#"{"event":"trade_corrected","exec_id":"E-1","account":"ACC1","qty":"40","price":"99.97","fee":"0.20"}"#;
    assert!(matches!(takes(EXECUTIONS, corrected), Event::Corrected(corrected) if corrected.price == Price(9_997_000_000)));
    refuses(EXECUTIONS, &corrected.replace("99.97", "-1"), OUT_OF_RANGE, "price");
}

#[test]
fn an_event_of_another_topic_is_malformed() {
    refuses(EXECUTIONS, &object(&INTENT), MALFORMED, "event");
    refuses(INTENTS, &object(&FILL), MALFORMED, "event");
    refuses(InputTopic::Prices, &object(&FILL), MALFORMED, "event");
    refuses(InputTopic::Control, &object(&FILL), MALFORMED, "event");
}

#[test]
fn a_refusal_names_the_order_and_account_that_can_be_read() {
    let cases = [
        (with(&INTENT, "side", "7"), Some("I-1"), Some("ACC1")),
        (with(&INTENT, "account", ""), Some("I-1"), None),
        (with(&INTENT, "account", "null"), Some("I-1"), None),
        (with(&INTENT, "client_order_id", "\"no good\""), None, Some("ACC1")),
        (object(&INTENT).replace('}', ",\"account\":\"ACC1\"}"), Some("I-1"), None),
        (object(&INTENT).replace('}', ",\"acc\\u006funt\":\"ACC1\"}"), Some("I-1"), None),
        (with(&INTENT, "side", "7").replace("\"ACC1\"", "\"ACC\\u0031\""), Some("I-1"), Some("ACC1")),
        (format!("{} ", object(&INTENT)).replace("} ", ", }"), None, None),
        (format!("{}{}", object(&INTENT), "{}"), None, None),
        (format!("[{}]", object(&INTENT)), None, None),
        (with(&INTENT, "qty", "NaN"), None, None),
        (with(&INTENT, "qty", "01"), None, None),
    ];
    for (payload, order, account) in cases {
        let refused = refusal(INTENTS, &payload);
        let names = (refused.client_order_id.map(|id| id.to_string()), refused.account.map(|id| id.to_string()));
        assert_eq!(names, (order.map(str::to_owned), account.map(str::to_owned)), "{payload}");
    }
}
