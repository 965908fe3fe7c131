//! Outputs, byte by byte.

use super::*;
use crate::domain::{
    Action, CancelOrders, ClosePosition, DeadLetter, Decision, Effects, Field, Figure, Id, IntentKind, Money, Notification,
    NotificationCode, NotificationData, NotificationType, Output, Price, Priority, Qty, Reason, ReasonCode, RuleCited, RuleType, Side,
    SignalKind, Source, Symbol, TradingState, Unit, Verdict,
};
use crate::wire::{Origin, OutputTopic, encode_output, key_of, topic_of};

pub(super) fn id(text: &str) -> Id {
    Id::parse(text.as_bytes()).unwrap()
}

const SOURCE: Source = Source { topic: InputTopic::Intents, partition: 0, offset: 911 };
pub(super) const ORIGIN: Origin<'_> = Origin { source: SOURCE, key: Some(b"ACC1"), payload: b"{\"a\":" };
const AT: i64 = 1_772_811_000_130;

fn cited(id_text: &str) -> RuleCited {
    RuleCited { id: id(id_text), rule_type: RuleType::MaxPositionSize, action: Action::ReduceSize, unit: Unit::Percent }
}

fn encoded(output: &Output, effects: &Effects) -> String {
    let mut out = Vec::new();
    encode_output(&mut out, output, effects, &ORIGIN);
    let text = String::from_utf8(out).unwrap();
    serde_json::from_str::<serde_json::Value>(&text).unwrap();
    text
}

pub(super) fn decision() -> Decision {
    Decision {
        client_order_id: id("I-1"),
        amend_id: None,
        account: id("ACC1"),
        intent: Some(IntentKind::Order),
        symbol: Symbol::parse(b"AAPL"),
        side: Some(Side::Buy),
        verdict: Verdict::AllowReduced,
        requested_qty: Some(Qty::whole(100)),
        approved_qty: Qty::whole(40),
        reasons: 0..0,
        equity: Some(Money::whole(100_000)),
        shard: 0,
        seq: 1842,
        at: AT,
        source: SOURCE,
    }
}

fn decided(reasons: Vec<Reason>) -> String {
    let decision = Decision { reasons: 0..reasons.len(), ..decision() };
    encoded(&Output::Decision(decision), &Effects { reasons, ..Effects::default() })
}

#[test]
fn a_decision_is_printed_as_the_contract_shows_it() {
    let reason = Reason {
        rule: Some(cited("r-1")),
        current: Figure::Units(1_600_000_000_000),
        limit: Figure::Units(1_000_000_000_000),
        utilization: Figure::Units(160_000_000),
        ..Reason::of(ReasonCode::RuleBreach)
    };
    let expected = concat!(
        r#"{"event":"decision","decision_id":"0-1842","client_order_id":"I-1","account":"ACC1","intent":"order","symbol":"AAPL","side":"buy","verdict":"allow_reduced","#,
        r#""requested_qty":"100","approved_qty":"40","reasons":[{"code":"RULE_BREACH","rule_id":"r-1","rule_type":"max_position_size","action":"reduce_size","#,
        r#""current":"16000","limit":"10000","unit":"percent","utilization":"1.6","exempt":false,"observed":false,"latched":false}],"#,
        r#""equity":"100000","shard":0,"seq":1842,"at":1772811000130,"source":{"topic":"orders.intents","partition":0,"offset":911}}"#,
    );
    assert_eq!(decided(vec![reason]), expected);
}

#[test]
fn the_decision_of_what_could_not_be_read_has_only_its_ids() {
    let refused = Decision {
        intent: None,
        symbol: None,
        side: None,
        verdict: Verdict::Block,
        requested_qty: None,
        approved_qty: Qty::ZERO,
        reasons: 0..1,
        equity: None,
        ..decision()
    };
    let reason =
        Reason { refused: Some(Box::new((Some("col\"our".into()), "no\nsuch field".into()))), ..Reason::of(ReasonCode::Malformed) };
    let expected = concat!(
        r#"{"event":"decision","decision_id":"0-1842","client_order_id":"I-1","account":"ACC1","intent":null,"symbol":null,"side":null,"verdict":"block","#,
        r#""requested_qty":null,"approved_qty":"0","reasons":[{"code":"MALFORMED","message":"no\nsuch field","field":"col\"our"}],"#,
        r#""equity":null,"shard":0,"seq":1842,"at":1772811000130,"source":{"topic":"orders.intents","partition":0,"offset":911}}"#,
    );
    assert_eq!(encoded(&Output::Decision(refused), &Effects { reasons: vec![reason], ..Effects::default() }), expected);
}

#[test]
fn an_amend_names_itself() {
    let amend = Decision { amend_id: Some(id("A-1")), intent: Some(IntentKind::Amend), ..decision() };
    assert!(encoded(&Output::Decision(amend), &Effects::default()).contains(r#""intent":"amend","amend_id":"A-1","symbol":"AAPL""#));
}

/// Effects with a reason of every kind.
pub(super) fn every_reason() -> Effects {
    let reasons = vec![
        Reason { field: Some(Field::LimitPrice), ..Reason::of(ReasonCode::InvalidOrder) },
        Reason {
            current: Figure::Units(6_100_000_000_000),
            limit: Figure::Units(6_000_000_000_000),
            exempt: true,
            ..Reason::of(ReasonCode::PriceStale)
        },
        Reason { rule: Some(cited("r-2")), observed: true, ..Reason::of(ReasonCode::CorrelationUnavailable) },
        Reason {
            rule: Some(cited("r-3")),
            current: Figure::Infinite,
            limit: Figure::Units(-1),
            utilization: Figure::Unknown,
            exempt: true,
            observed: true,
            latched: true,
            ..Reason::of(ReasonCode::RuleBreach)
        },
    ];
    Effects { reasons, ..Effects::default() }
}

#[test]
fn reasons_have_the_fields_of_their_kind() {
    let expected = concat!(
        r#""reasons":[{"code":"INVALID_ORDER","message":"the order contradicts itself, its instrument or its position","field":"limit_price"},"#,
        r#"{"code":"PRICE_STALE","message":"the price is too old","current":"61000","limit":"60000","exempt":true},"#,
        r#"{"code":"CORRELATION_UNAVAILABLE","rule_id":"r-2","rule_type":"max_position_size","message":"a correlation that the rule asks for is not known","observed":true},"#,
        r#"{"code":"RULE_BREACH","rule_id":"r-3","rule_type":"max_position_size","action":"reduce_size","current":"inf","limit":"-0.00000001","unit":"percent","#,
        r#""utilization":null,"exempt":true,"observed":true,"latched":true}],"#,
    );
    let text = decided(every_reason().reasons);
    assert!(text.contains(expected), "{text}");
}

/// A cancel of a symbol and one of an account, a close by a rule and one by an operator.
pub(super) fn commands() -> [Output; 4] {
    let cancel = CancelOrders {
        index: 0,
        account: id("ACC1"),
        symbol: Symbol::parse(b"AAPL"),
        client_order_ids: 1..2,
        rule_id: Some(id("r-2")),
        shard: 0,
        seq: 1842,
        at: AT,
    };
    let close = ClosePosition {
        index: 1,
        account: id("ACC1"),
        symbol: Symbol::parse(b"AAPL").unwrap(),
        side: Side::Sell,
        qty: Qty::whole(60),
        rule_id: Some(id("r-2")),
        shard: 0,
        seq: 1842,
        at: AT,
    };
    [
        Output::CancelOrders(cancel.clone()),
        Output::CancelOrders(CancelOrders { symbol: None, client_order_ids: 0..2, rule_id: None, index: 1, ..cancel }),
        Output::ClosePosition(close.clone()),
        Output::ClosePosition(ClosePosition { rule_id: None, ..close }),
    ]
}

#[test]
fn commands_are_printed_as_the_contract_shows_them() {
    let effects = Effects { order_ids: vec![id("I-6"), id("I-7")], ..Effects::default() };
    let close = r#"{"event":"close_position","command_id":"0-1842-1","account":"ACC1","symbol":"AAPL","side":"sell","qty":"60","order_type":"market","reduce_only":true,"rule_id":"r-2","shard":0,"seq":1842,"at":1772811000130}"#;
    let bare = close.replace(r#""rule_id":"r-2","#, "");
    let expected = [
        r#"{"event":"cancel_orders","command_id":"0-1842-0","account":"ACC1","symbol":"AAPL","client_order_ids":["I-7"],"rule_id":"r-2","shard":0,"seq":1842,"at":1772811000130}"#,
        r#"{"event":"cancel_orders","command_id":"0-1842-1","account":"ACC1","client_order_ids":["I-6","I-7"],"shard":0,"seq":1842,"at":1772811000130}"#,
        close,
        &bare,
    ];
    for (command, expected) in commands().iter().zip(expected) {
        assert_eq!(encoded(command, &effects), expected);
    }
}

pub(super) fn notification() -> Notification {
    let rule = RuleCited { id: id("r-2"), rule_type: RuleType::StopLoss, action: Action::ClosePosition, unit: Unit::Percent };
    Notification {
        index: 0,
        account: Some(id("ACC1")),
        owner: Some(id("u-1")),
        kind: NotificationType::StopLoss,
        code: NotificationCode::RuleBreach,
        priority: Priority::Urgent,
        data: NotificationData {
            rule: Some(rule),
            symbol: Symbol::parse(b"AAPL"),
            current: Figure::Units(-500_000_000),
            limit: Figure::Units(-500_000_000),
            ..NotificationData::default()
        },
        shard: 0,
        seq: 1842,
        at: AT,
    }
}

#[test]
fn a_notification_says_what_happened_in_words_and_figures() {
    let expected = concat!(
        r#"{"event":"notification","notification_id":"0-1842-n0","account":"ACC1","owner":"u-1","type":"stop_loss","code":"RULE_BREACH","priority":"urgent","#,
        r#""title":"Stop loss reached","message":"Account ACC1: a risk rule is breached; rule r-2 (stop_loss, close_position); symbol AAPL; current -5; limit -5 percent.","#,
        r#""data":{"rule_id":"r-2","rule_type":"stop_loss","action":"close_position","unit":"percent","symbol":"AAPL","current":"-5","limit":"-5"},"#,
        r#""shard":0,"seq":1842,"at":1772811000130}"#,
    );
    assert_eq!(encoded(&Output::Notification(notification()), &Effects::default()), expected);
    let bare = Notification {
        account: None,
        owner: None,
        code: NotificationCode::ExecutionUnreadable,
        kind: NotificationType::SystemAlert,
        data: NotificationData::default(),
        index: 3,
        ..notification()
    };
    let expected = concat!(
        r#"{"event":"notification","notification_id":"0-1842-n3","type":"system_alert","code":"EXECUTION_UNREADABLE","priority":"urgent","#,
        r#""title":"Execution could not be booked","message":"All accounts of the shard: an execution or a valuation could not be booked, so the book is not known.","#,
        r#""data":{},"shard":0,"seq":1842,"at":1772811000130}"#,
    );
    assert_eq!(encoded(&Output::Notification(bare), &Effects::default()), expected);
}

/// Data with every field filled.
pub(super) fn full_data() -> NotificationData {
    NotificationData {
        rule: Some(cited("r-9")),
        symbol: Symbol::parse(b"A/B"),
        sector: Some(id("TECH")),
        strategy: Some(id("s")),
        client_order_id: Some(id("I-1")),
        exec_id: Some(id("E-1")),
        reason: Some(ReasonCode::Halted),
        side: Some(Side::Buy),
        qty: Some(Qty(150_000_000)),
        price: Some(Price(1)),
        signal: Some(SignalKind::Hold),
        current: Figure::Infinite,
        limit: Figure::Unknown,
        utilization: Figure::Units(95_000_000),
        state: Some(TradingState::Halted),
        previous_state: Some(TradingState::Active),
        day: Some((987, 3, 12)),
        equity: Some(None),
        daily_pnl: Some(Some(Money(-2_500_000_000_000_000))),
        allowed: Some(1),
        reduced: Some(0),
        blocked: Some(2),
        fills: Some(3),
    }
}

#[test]
fn a_notification_prints_all_that_applies() {
    let text = encoded(&Output::Notification(Notification { data: full_data(), ..notification() }), &Effects::default());
    let data = concat!(
        r#""data":{"rule_id":"r-9","rule_type":"max_position_size","action":"reduce_size","unit":"percent","symbol":"A/B","sector":"TECH","strategy":"s","#,
        r#""client_order_id":"I-1","exec_id":"E-1","reason":"HALTED","side":"buy","qty":"1.5","price":"0.00000001","signal":"hold","current":"inf","limit":null,"#,
        r#""utilization":"0.95","state":"halted","previous_state":"active","day":"0987-03-12","equity":null,"daily_pnl":"-0.25","allowed":1,"reduced":0,"blocked":2,"fills":3}"#,
    );
    assert!(text.contains(data), "{text}");
    let message = "symbol A/B; sector TECH; strategy s; order I-1; execution E-1; reason HALTED; signal hold; buy 1.5 at 0.00000001; \
                   current infinite; limit unknown percent; now halted, before active; day 0987-03-12; equity unknown; \
                   daily profit and loss -0.25; allowed 1; reduced 0; blocked 2; fills 3.";
    assert!(text.contains(message), "{text}");
}

pub(super) fn dead_letter(field: Option<&str>) -> Output {
    let message = "unexpected end at byte 5".into();
    Output::DeadLetter(DeadLetter { code: RefusalCode::Malformed, field: field.map(Into::into), message })
}

#[test]
fn a_dead_letter_keeps_the_record_as_it_came() {
    let expected = concat!(
        r#"{"reason":"MALFORMED","message":"unexpected end at byte 5","source":{"topic":"orders.intents","partition":0,"offset":911},"#,
        r#""key":"ACC1","payload":"eyJhIjo="}"#,
    );
    assert_eq!(encoded(&dead_letter(None), &Effects::default()), expected);
    assert!(encoded(&dead_letter(Some("x\\y")), &Effects::default()).starts_with(r#"{"reason":"MALFORMED","field":"x\\y","message":"#));
    let mut out = Vec::new();
    encode_output(&mut out, &dead_letter(None), &Effects::default(), &Origin { key: None, payload: b"", ..ORIGIN });
    assert!(String::from_utf8(out).unwrap().ends_with(r#""key":null,"payload":""}"#));
}

#[test]
fn outputs_go_to_their_topics_under_their_accounts() {
    let decision = Output::Decision(decision());
    assert_eq!((topic_of(&decision), key_of(&decision, &ORIGIN)), (OutputTopic::Decisions, Some(b"ACC1".as_slice())));
    let lonely = Output::Notification(Notification { account: None, ..notification() });
    assert_eq!((topic_of(&lonely), key_of(&lonely, &ORIGIN)), (OutputTopic::Notifications, None));
    let letter = Output::DeadLetter(DeadLetter { code: RefusalCode::Malformed, field: None, message: "".into() });
    let origin = Origin { key: Some(b"\xff"), ..ORIGIN };
    assert_eq!((topic_of(&letter), key_of(&letter, &origin)), (OutputTopic::DeadLetter, Some(b"\xff".as_slice())));
}

#[test]
fn every_code_has_words_of_its_own_and_prints_as_json() {
    let mut seen = std::collections::BTreeSet::new();
    for code in ReasonCode::ALL {
        assert!(seen.insert(decided(vec![Reason::of(*code)])), "{code:?}");
    }
    for code in NotificationCode::ALL {
        for kind in NotificationType::ALL {
            encoded(&Output::Notification(Notification { code: *code, kind: *kind, ..notification() }), &Effects::default());
        }
    }
}
