//! What holds for any bytes and any number.

use proptest::prelude::*;

use super::encode::{ORIGIN, decision, id};
use super::*;
use crate::domain::{Decision, Effects, Field, Figure, Money, Output, Price, Qty, Reason, ReasonCode, Verdict};
use crate::wire::decimal::units;
use crate::wire::read::Reader;
use crate::wire::{encode_output, parse_line};

const TOPICS: [InputTopic; 4] = [InputTopic::Intents, InputTopic::Executions, InputTopic::Prices, InputTopic::Control];

/// Records of every topic, to be spoilt.
const SEEDS: [&str; 6] = [
    r#"{"event":"order_intent","client_order_id":"I-1","account":"ACC1","symbol":"AAPL","side":"buy","order_type":"limit","qty":"100","limit_price":1.5e2,"ts":"2026-03-06T15:30:00.5Z"}"#,
    r#"{"event":"fill","exec_id":"E","client_order_id":"I-1","account":"ACC1","symbol":"AAPL","side":"buy","qty":"40","price":"99.98","fee":"-0.20","x":[1,{"y":null}]}"#,
    r#"{"event":"quote","symbol":"AAPL","bid":"100.01","ask":"100.03","bid_size":"200","ts":1772811000123}"#,
    r#"{"event":"rule_created","rule":{"id":"r","type":"max_leverage","threshold":2,"unit":"ratio","action":"block","scope":{"symbols":["A","B"]}}}"#,
    r#"{"event":"gate_settings_set","max_order_qty":null,"notify":["order_filled"],"valuation_grid_ms":1000}"#,
    r#"{"topic":"orders.intents","partition":0,"ts":5,"key":"\u0041","payload":{"event":"x"}}"#,
];

/// JSON's own letters, so that random texts get somewhere.
fn jsonish() -> impl Strategy<Value = String> {
    prop::collection::vec(
        prop::sample::select(vec![
            "{", "}", "[", "]", ",", ":", "\"", "\\", "\"a\"", "\"b\"", "0", "1", "-", ".", "e", "+", "true", "false", "null", " ", "\n",
            "\\u00", "\u{e9}", "\"a\":1", "{}", "[]", "\\\"",
        ]),
        0..24,
    )
    .prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_bytes_make_decoding_fail(bytes: Vec<u8>, key: Option<Vec<u8>>) {
        for topic in TOPICS {
            let _ = decode(topic, key.as_deref(), &bytes);
        }
        let _ = parse_line(&bytes);
    }

    #[test]
    fn a_spoilt_record_does_not_make_decoding_fail(seed in 0..SEEDS.len(), spots in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4), cut: prop::sample::Index) {
        let mut bytes = SEEDS[seed].as_bytes().to_vec();
        for (spot, byte) in spots {
            let at = spot.index(bytes.len());
            bytes[at] = byte;
        }
        let cut = cut.index(bytes.len());
        for text in [&bytes[..], &bytes[..cut], &bytes[cut..]] {
            for topic in TOPICS {
                let _ = decode(topic, None, text);
            }
            let _ = parse_line(text);
        }
    }

    #[test]
    fn the_reader_and_serde_json_agree_on_what_an_object_is(text in jsonish()) {
        let text = format!("{{\"x\":{text}}}");
        let ours = Reader::object(text.as_bytes(), |_, _| {}).is_ok();
        let theirs = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&text).is_ok();
        prop_assert_eq!(ours, theirs, "{}", text);
    }

    #[test]
    fn a_number_is_read_back_as_it_was_printed(value: i64, money in -99_999_999_999_999_999_999_999_999_i128..=99_999_999_999_999_999_999_999_999) {
        prop_assert_eq!(units(Price(value).to_string().as_bytes()), Ok(i128::from(value)));
        let amount = Money(money * 100_000_000);
        prop_assert_eq!(units(amount.to_string().as_bytes()), Ok(money));
    }

    #[test]
    fn an_exponent_moves_the_point_and_changes_no_value(digits in 1_u64..1_000_000_000, zeros in 0_usize..20, shift in 0_i32..8) {
        let plain = i128::from(digits) * 10_i128.pow(8 - shift as u32);
        prop_assert_eq!(units(format!("{digits}e-{shift}").as_bytes()), Ok(plain));
        let padded = format!("{digits}{}e-{}", "0".repeat(zeros), shift as usize + zeros);
        prop_assert_eq!(units(padded.as_bytes()), Ok(plain));
        let behind = format!("0.{}{digits}e{}", "0".repeat(zeros), zeros as i32 + digits.to_string().len() as i32 - shift);
        prop_assert_eq!(units(behind.as_bytes()), Ok(plain));
    }

    #[test]
    fn what_rust_decimal_reads_is_read_alike(text in "-?(0|[1-9][0-9]{0,10})(\\.[0-9]{1,8})?") {
        let theirs: rust_decimal::Decimal = text.parse().unwrap();
        prop_assert_eq!(units(text.as_bytes()), Ok(theirs.mantissa() * 10_i128.pow(8 - theirs.scale())));
    }

    #[test]
    fn any_decision_prints_as_json(qty: i64, money: i128, seq: u64, at: i64, figure: i128, texts in prop::collection::vec(".*", 2)) {
        let reasons = vec![
            Reason { current: Figure::Units(figure), field: Some(Field::Qty), ..Reason::of(ReasonCode::MaxOrderQty) },
            Reason { refused: Some(Box::new((Some(texts[0].as_str().into()), texts[1].as_str().into()))), ..Reason::of(ReasonCode::Malformed) },
        ];
        let decision = Decision { approved_qty: Qty(qty), equity: Some(Money(money)), seq, at, reasons: 0..2, verdict: Verdict::Block, ..decision() };
        let mut out = Vec::new();
        encode_output(&mut out, &Output::Decision(decision), &Effects { reasons, ..Effects::default() }, &ORIGIN);
        let json: serde_json::Value = serde_json::from_slice(&out).unwrap();
        prop_assert_eq!(json["approved_qty"].as_str().unwrap(), Qty(qty).to_string());
        prop_assert_eq!(json["equity"].as_str().unwrap(), Money(money).to_string());
        prop_assert_eq!(json["reasons"][0]["current"].as_str().unwrap(), Figures(figure).to_string());
        prop_assert_eq!(json["reasons"][1]["message"].as_str().unwrap(), texts[1].as_str());
        prop_assert_eq!(json["reasons"][1]["field"].as_str().unwrap(), texts[0].as_str());
        prop_assert_eq!(json["seq"].as_u64().unwrap(), seq);
        prop_assert_eq!(json["at"].as_i64().unwrap(), at);
    }

    #[test]
    fn an_intent_is_read_as_it_was_written(order in "[A-Za-z0-9._:-]{1,64}", qty in 1..=i64::MAX, price in 1..=i64::MAX, gap in "[ \n\t\r]{0,3}") {
        let payload = format!(
            "{gap}{{{gap}\"event\"{gap}:{gap}\"order_intent\"{gap},\"client_order_id\":\"{order}\",\"account\":\"A\",\"symbol\":\"S\",{gap}\"side\":\"buy\",\"order_type\":\"limit\",\"qty\":\"{}\"{gap},\"limit_price\":{}{gap}}}{gap}",
            Qty(qty), Price(price),
        );
        let Event::Intent(intent) = takes(InputTopic::Intents, &payload) else { panic!("no intent") };
        prop_assert_eq!((intent.client_order_id, intent.size, intent.prices.limit), (id(&order), crate::domain::Size::Qty(Qty(qty)), Some(Price(price))));
    }
}

/// Prints a figure in units of 1e-8.
struct Figures(i128);

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut buffer = [0; crate::domain::MAX_DECIMAL_LEN];
        f.write_str(crate::domain::format_scaled(&mut buffer, self.0, 8))
    }
}
