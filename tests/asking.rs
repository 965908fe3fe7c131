//! Questions to the gate: what it would decide is what it decides, and asking changes nothing.

#![expect(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

use ordergate::domain::{
    AccountId, Effects, Event, Figure, InputTopic, Millis, OrderIntent, Output, Price, Qty, ReasonCode, Record, Rule, Side, Size, Source,
    Symbol, Verdict,
};
use ordergate::engine::state_hash;
use ordergate::gate::{Asking, Gate, Unmeasured};
use ordergate::generate::{Generator, OwnGate, Plan};
use ordergate::risk::correlation::Pairs;
use ordergate::wire;

/// A gate that is told records one by one.
struct Desk {
    gate: Gate,
    effects: Effects,
    offset: u64,
}

impl Desk {
    fn new() -> Self {
        Self { gate: Gate::new(0), effects: Effects::default(), offset: 0 }
    }

    fn apply(&mut self, topic: InputTopic, ts: Millis, key: Option<&[u8]>, event: Event) {
        let source = Source { topic, partition: 0, offset: self.offset };
        self.offset += 1;
        self.effects.clear();
        let record = Record { source, ts, received: None, key: wire::key_as_id(key), event, quiet: false };
        self.gate.apply(&record, &mut self.effects);
    }

    fn tell(&mut self, topic: InputTopic, ts: Millis, payload: &str) {
        let event = wire::decode(topic, None, payload.as_bytes());
        assert!(!matches!(event, Event::Refused(_)), "{payload}: {event:?}");
        self.apply(topic, ts, None, event);
        let refused = self.effects.outputs.iter().find(|output| matches!(output, Output::DeadLetter(_)));
        assert!(refused.is_none(), "{payload}: {refused:?}");
    }
}

fn records(seed: u64, events: u64) -> Vec<(InputTopic, Millis, String, Vec<u8>)> {
    let plan = Plan { seed, accounts: 8, symbols: 6, events, start: Plan::DEFAULT_START };
    let mut generator = Generator::new(plan, OwnGate::default());
    let mut records = Vec::new();
    while let Some(record) = generator.next_record() {
        records.push((record.topic, record.ts, record.key.to_owned(), record.payload.to_vec()));
    }
    records
}

#[test]
fn what_would_be_decided_is_what_is_decided_and_asking_leaves_no_trace() {
    let (mut compared, mut reasons, mut blocked) = (0, 0, 0);
    for seed in 0..6 {
        let mut desk = Desk::new();
        for (topic, ts, key, payload) in records(seed, 4_000) {
            let event = wire::decode(topic, Some(key.as_bytes()), &payload);
            let Event::Intent(intent) = &event else {
                desk.apply(topic, ts, Some(key.as_bytes()), event);
                continue;
            };
            // Time moves first, whatever becomes of a record; a question does not move it.
            desk.apply(InputTopic::Prices, ts, None, Event::Elsewhere);
            let before = (compared % 50 == 0).then(|| state_hash(&desk.gate));
            let rules = desk.gate.rule_list(Asking::All).unwrap();
            let opinion = desk.gate.opinion(intent, &rules, ts);
            if let Some(before) = before {
                assert_eq!(state_hash(&desk.gate), before, "asking changed the state");
            }
            let intent = *intent;
            desk.apply(topic, ts, Some(key.as_bytes()), event);
            let mut decisions =
                desk.effects.outputs.iter().filter_map(|output| if let Output::Decision(it) = output { Some(it) } else { None });
            let decision = decisions.next_back().expect("an intent is answered");
            let reasons_said = desk.effects.reasons_of(decision);
            let Some(opinion) = opinion else {
                assert_eq!(reasons_said[0].code, ReasonCode::UnknownAccount);
                continue;
            };
            let again = decision.seq != desk.gate.seq() || reasons_said.iter().any(|it| it.code == ReasonCode::IntentIdConflict);
            if again {
                continue;
            }
            assert_eq!((opinion.verdict, opinion.approved_qty), (decision.verdict, decision.approved_qty), "{intent:?}");
            assert_eq!((opinion.requested_qty, opinion.equity), (decision.requested_qty, decision.equity), "{intent:?}");
            assert_eq!(opinion.reasons, reasons_said, "{intent:?}");
            compared += 1;
            reasons += reasons_said.len();
            blocked += usize::from(decision.verdict == Verdict::Block);
        }
    }
    assert!(compared > 1_000 && reasons > 100 && blocked > 50, "{compared} compared, {reasons} reasons, {blocked} blocked");
}

fn order(account: AccountId, symbol: Symbol, side: Side, qty: Qty) -> OrderIntent {
    let side = side.as_str();
    let text = format!(
        r#"{{"event":"order_intent","client_order_id":"asked","account":"{account}","symbol":"{symbol}","side":"{side}","order_type":"market","qty":"{qty}"}}"#
    );
    let Event::Intent(intent) = wire::decode(InputTopic::Intents, None, text.as_bytes()) else { panic!("{text}") };
    intent
}

#[test]
fn the_headroom_is_allowed_and_a_lot_more_is_not() {
    let (mut bounded, mut by_rules, mut none) = (0, 0, 0);
    for seed in 10..14 {
        let mut desk = Desk::new();
        for (topic, ts, key, payload) in records(seed, 3_000) {
            let event = wire::decode(topic, Some(key.as_bytes()), &payload);
            desk.apply(topic, ts, Some(key.as_bytes()), event);
        }
        let gate = &desk.gate;
        let rules = gate.rule_list(Asking::All).unwrap();
        let accounts: Vec<AccountId> = gate.accounts().iter().map(|account| account.id).collect();
        // What is known of pairs goes from question to question; each opinion below computes its own.
        let mut pairs = Pairs::default();
        for account in accounts {
            for state in gate.symbols().iter().filter(|state| state.instrument.is_some()) {
                for side in [Side::Buy, Side::Sell] {
                    let headroom = gate.headroom(account, (state.symbol, side), None, &rules, (gate.at(), &mut pairs)).unwrap();
                    let verdict = |qty: Qty| {
                        let intent = order(account, state.symbol, side, qty);
                        assert!(matches!(intent.size, Size::Qty(_)));
                        gate.opinion(&intent, &rules, gate.at()).unwrap()
                    };
                    let Some(qty) = headroom.qty else {
                        none += 1;
                        continue;
                    };
                    if qty > Qty::ZERO {
                        assert_eq!(verdict(qty).verdict, Verdict::Allow, "{account} {} {side:?} {qty}", state.symbol);
                    }
                    let lot = state.instrument.unwrap().lot;
                    let more = Qty((qty.0 / lot.0 + 1) * lot.0);
                    let refused = verdict(more);
                    assert_ne!(refused.verdict, Verdict::Allow, "{account} {} {side:?} {more}", state.symbol);
                    let binds = headroom.binds.expect("what is bounded is bound by something");
                    assert!(refused.reasons.iter().any(|reason| (reason.code, reason.rule) == (binds.code, binds.rule)));
                    bounded += 1;
                    by_rules += usize::from(binds.code == ReasonCode::RuleBreach);
                }
            }
        }
    }
    assert!(bounded > 50 && by_rules > 10, "{bounded} bounded, {by_rules} by rules, {none} by nothing");
}

const T0: Millis = 1_772_811_000_000;

fn opened() -> Desk {
    let mut desk = Desk::new();
    for (topic, payload) in [
        (InputTopic::Control, r#"{"event":"instrument_defined","symbol":"AAPL","sector":"TECH"}"#),
        (InputTopic::Control, r#"{"event":"instrument_defined","symbol":"MSFT","sector":"TECH"}"#),
        (InputTopic::Control, r#"{"event":"account_opened","account":"ACC1","owner":"u1","cash":"100000"}"#),
        (InputTopic::Prices, r#"{"event":"trade","symbol":"AAPL","price":"100"}"#),
        (
            InputTopic::Executions,
            r#"{"event":"fill","exec_id":"E-1","client_order_id":"X","account":"ACC1","symbol":"AAPL","side":"buy","qty":"200","price":"100"}"#,
        ),
    ] {
        desk.tell(topic, T0, payload);
    }
    desk
}

fn rule(text: &str) -> Rule {
    let text = format!(r#"{{"event":"rule_created","rule":{text}}}"#);
    let Event::Control(event) = wire::decode(InputTopic::Control, None, text.as_bytes()) else { panic!("{text}") };
    let ordergate::domain::ControlEvent::RuleCreated(rule) = *event else { panic!("{text}") };
    rule
}

fn account() -> AccountId {
    AccountId::parse(b"ACC1").unwrap()
}

#[test]
fn a_rule_is_tried_before_it_is_written_alone_or_with_the_others_or_in_place_of_its_old_self() {
    let mut desk = opened();
    let leverage = r#"{"id":"lev","type":"max_leverage","threshold":"1","unit":"ratio","action":"block"}"#;
    desk.tell(InputTopic::Control, T0, &format!(r#"{{"event":"rule_created","rule":{leverage}}}"#));
    let gate = &desk.gate;
    let buy = order(account(), Symbol::parse(b"AAPL").unwrap(), Side::Buy, Qty::whole(100));
    let verdict = |asking| gate.opinion(&buy, &gate.rule_list(asking).unwrap(), T0).unwrap().verdict;
    let tighter = rule(r#"{"id":"size","type":"max_position_size","threshold":"25000","unit":"dollars","action":"block"}"#);
    let changed = rule(r#"{"id":"lev","type":"max_leverage","threshold":"0.25","unit":"ratio","action":"block"}"#);
    assert_eq!(verdict(Asking::All), Verdict::Allow);
    assert_eq!(verdict(Asking::With(&tighter)), Verdict::Block);
    assert_eq!(verdict(Asking::With(&changed)), Verdict::Block);
    assert_eq!(verdict(Asking::OnlyWith(&tighter)), Verdict::Block);
    assert_eq!(verdict(Asking::Only(changed.id)), Verdict::Allow);
    assert!(gate.rule_list(Asking::Only(tighter.id)).is_none(), "it was only tried");
    let nobodys = rule(
        r#"{"id":"n","type":"max_leverage","threshold":"0.001","unit":"ratio","action":"block","scope":{"account":"ACC9","symbols":["NONE"]}}"#,
    );
    assert_eq!(verdict(Asking::With(&nobodys)), Verdict::Allow, "names that nobody mentioned match nothing");
}

fn used(gate: &Gate, text: &str) -> (Figure, Figure, Figure, Option<Unmeasured>) {
    let rule = rule(text);
    let uses = gate.uses(account(), &gate.rule_list(Asking::OnlyWith(&rule)).unwrap(), &mut Pairs::default()).unwrap();
    let [used] = &uses[..] else { panic!("{uses:?}") };
    (used.current, used.limit, used.utilization, used.unmeasured)
}

const ONE: i128 = 100_000_000;

#[test]
fn every_rule_is_measured_of_the_book_as_it_stands() {
    let mut desk = opened();
    desk.tell(InputTopic::Prices, T0 + 100, r#"{"event":"trade","symbol":"AAPL","price":"95"}"#);
    // 200 at 95 = 19000; equity 80000 + 19000 = 99000; lost 1000 of 100000.
    let gate = &desk.gate;
    let figures = |current: i128, limit: i128, utilization: i128| {
        (Figure::Units(current), Figure::Units(limit), Figure::Units(utilization), None::<Unmeasured>)
    };
    let of = |kind: &str, threshold: &str, unit: &str| {
        used(gate, &format!(r#"{{"id":"r","type":"{kind}","threshold":"{threshold}","unit":"{unit}","action":"alert"}}"#))
    };
    assert_eq!(of("max_position_size", "38000", "dollars"), figures(19_000 * ONE, 38_000 * ONE, ONE / 2));
    assert_eq!(of("max_position_size", "20", "percent"), figures(19_000 * ONE, 19_800 * ONE, 95_959_596));
    assert_eq!(of("max_position_size", "400", "shares"), figures(200 * ONE, 400 * ONE, ONE / 2));
    assert_eq!(of("max_daily_loss", "2000", "dollars"), figures(1_000 * ONE, 2_000 * ONE, ONE / 2));
    assert_eq!(of("max_drawdown", "4", "percent"), figures(ONE, 4 * ONE, ONE / 4));
    assert_eq!(of("max_leverage", "1", "ratio"), figures(19_191_919, ONE, 19_191_919));
    assert_eq!(of("position_limit", "4", "count"), figures(ONE, 4 * ONE, ONE / 4));
    assert_eq!(of("sector_limit", "38000", "dollars"), figures(19_000 * ONE, 38_000 * ONE, ONE / 2));
    assert_eq!(of("stop_loss", "10", "percent"), figures(-5 * ONE, -10 * ONE, ONE / 2));
    assert_eq!(of("take_profit", "4000", "dollars"), figures(-1_000 * ONE, 4_000 * ONE, -ONE / 4));
}

#[test]
fn what_cannot_be_measured_has_a_reason_and_no_figure() {
    let mut desk = opened();
    let fill =
        r#"{"event":"fill","exec_id":"E-2","client_order_id":"Y","account":"ACC1","symbol":"MSFT","side":"sell","qty":"10","price":"50"}"#;
    desk.tell(InputTopic::Executions, T0 + 1, fill);
    let unknown = |why| (Figure::Unknown, Figure::Unknown, Figure::Unknown, Some(why));
    let gate = &desk.gate;
    let of = |kind: &str, unit: &str, more: &str| {
        used(gate, &format!(r#"{{"id":"r","type":"{kind}","threshold":"1","unit":"{unit}","action":"alert"{more}}}"#))
    };
    assert_eq!(of("max_leverage", "ratio", ""), unknown(Unmeasured::PriceUnavailable));
    assert_eq!(of("max_daily_loss", "dollars", ""), unknown(Unmeasured::PriceUnavailable));
    assert_eq!(of("max_daily_loss", "dollars", r#","active":false"#), unknown(Unmeasured::Inactive));
    assert_eq!(of("max_leverage", "ratio", r#","scope":{"strategy":"s"}"#), unknown(Unmeasured::OnIntentsOnly));
    assert_eq!(of("stop_loss", "percent", r#","scope":{"symbols":["MSFT"]}"#), unknown(Unmeasured::PriceUnavailable));
    assert_eq!(of("stop_loss", "percent", r#","scope":{"symbols":["NONE"]}"#), unknown(Unmeasured::NothingHeld));
    assert_eq!(of("max_correlation", "ratio", r#","scope":{"symbols":["AAPL"]}"#), unknown(Unmeasured::CorrelationUnavailable));
    let portfolio = ordergate::risk::portfolio::describe(gate.account(account()).unwrap(), gate.symbols(), &mut Pairs::default());
    assert!(portfolio.equity.is_err() && portfolio.gross.is_err() && portfolio.daily_pnl.is_err() && portfolio.tails.is_err());
    assert_eq!((portfolio.leverage, portfolio.drawdown_percent), (Figure::Unknown, Figure::Unknown));
    assert_eq!(portfolio.unmarked.len(), 1);
}

#[test]
fn nothing_limits_a_book_without_rules_and_a_halted_one_only_shrinks() {
    let mut desk = opened();
    let aapl = Symbol::parse(b"AAPL").unwrap();
    let room = |desk: &Desk, side| {
        let gate = &desk.gate;
        gate.headroom(account(), (aapl, side), None, &gate.rule_list(Asking::All).unwrap(), (T0, &mut Pairs::default())).unwrap()
    };
    // The book holds some: with the largest quantity that there is it could not be counted any more.
    let unlimited = room(&desk, Side::Buy);
    assert_eq!((unlimited.qty, unlimited.binds.map(|reason| reason.code)), (None, Some(ReasonCode::ValueOutOfRange)));
    desk.tell(
        InputTopic::Control,
        T0,
        r#"{"event":"trading_state_set","scope":{"account":"ACC1"},"state":"halted","actor":"a","reason":"r"}"#,
    );
    let (buy, sell) = (room(&desk, Side::Buy), room(&desk, Side::Sell));
    assert_eq!((buy.qty, buy.binds.map(|reason| reason.code)), (Some(Qty::ZERO), Some(ReasonCode::Halted)));
    assert_eq!((sell.qty, sell.binds.map(|reason| reason.code)), (Some(Qty::whole(200)), Some(ReasonCode::Halted)));
    let gate = &desk.gate;
    let at_a_price = gate.headroom(
        account(),
        (aapl, Side::Sell),
        Some(Price::whole(90)),
        &gate.rule_list(Asking::All).unwrap(),
        (T0, &mut Pairs::default()),
    );
    assert_eq!(at_a_price.unwrap().qty, Some(Qty::whole(200)));
}
