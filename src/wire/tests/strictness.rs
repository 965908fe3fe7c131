//! What is one JSON object, and what is a decimal.

use super::*;
use crate::wire::decimal::{DecimalFault, units};
use crate::wire::{MAX_PAYLOAD_BYTES, key_as_id};

const MALFORMED: RefusalCode = RefusalCode::Malformed;

/// A trade with a strange field of this text as its value: prices may have those.
fn with_stranger(value: &str) -> String {
    format!(r#"{{"event":"trade","symbol":"A","price":1,"x":{value}}}"#)
}

#[test]
fn takes_every_kind_of_json_in_a_field_that_it_does_not_know() {
    let deep = format!("{}{}", "[".repeat(20_000), "]".repeat(20_000));
    let cases = [
        "{}",
        "[]",
        "[[]]",
        "[{}]",
        "{\"a\":{}}",
        "[1,2]",
        " [ 1 , { \"a\" : [ ] , \"b\":null } , true ] ",
        "0",
        "-0",
        "1e5",
        "1E+5",
        "-1.50e-05",
        "123456789012345678901234567890",
        "\"\"",
        "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\"",
        "\"\\ud83d\\ude00\"",
        "\"\u{e9}\u{1F600}\"",
        "\"\u{7f}\"",
        "true",
        "false",
        "null",
        &deep,
    ];
    for value in cases {
        takes(InputTopic::Prices, &with_stranger(value));
        assert!(serde_json::from_str::<serde_json::Value>(value).is_ok() || value == deep, "{value}");
    }
}

#[test]
fn refuses_what_is_no_json() {
    let cases = [
        "",
        "{",
        "}",
        "[",
        "]",
        "[1,]",
        "[,1]",
        "[1 2]",
        "[1}",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{a:1}",
        "{1:1}",
        "{\"a\":1 \"b\":2}",
        "01",
        "-",
        "+1",
        ".5",
        "1.",
        "1e",
        "1e+",
        "0x1",
        "--1",
        "NaN",
        "Infinity",
        "-Infinity",
        "nul",
        "True",
        "'a'",
        "\"",
        "\"\\\"",
        "\"\\x\"",
        "\"\\u12g4\"",
        "\"\\ud800\"",
        "\"\\udc00\"",
        "\"\\ud800\\u0041\"",
        "\"\n\"",
        "\"\u{1}\"",
        "1/**/",
        "\u{feff}1",
        "\u{a0}1",
    ];
    for value in cases {
        let refused = refusal(InputTopic::Prices, &with_stranger(value));
        assert_eq!(refused.code, MALFORMED, "{value}");
        assert!(refused.account.is_none());
        assert!(serde_json::from_str::<serde_json::Value>(value).is_err(), "{value}");
    }
}

#[test]
fn refuses_a_value_that_is_not_one_object() {
    let trade = with_stranger("1");
    let listed = format!("[{trade}]");
    let doubled = format!("{trade}{trade}");
    for payload in [
        "",
        " ",
        "[]",
        "null",
        "1",
        "\"{}\"",
        "{",
        &listed,
        &doubled,
        &format!("{trade},"),
        &format!("\u{feff}{trade}"),
        &format!("{trade}\0"),
    ] {
        refuses(InputTopic::Prices, payload, MALFORMED, "");
    }
    takes(InputTopic::Prices, &format!(" \n\t\r{trade} \n"));
    let event = decode(InputTopic::Prices, None, b"{\"event\":\"trade\",\"symbol\":\"A\",\"price\":1,\"x\":\"\xff\"}");
    assert!(matches!(event, Event::Refused(refused) if refused.message.contains("UTF-8")));
}

#[test]
fn a_field_may_stand_only_once_however_it_is_spelled() {
    let cases = [
        (r#"{"event":"trade","symbol":"A","price":1,"price":1}"#, "price"),
        (r#"{"event":"trade","symbol":"A","price":1,"pric\u0065":1}"#, "price"),
        (r#"{"event":"trade","symbol":"A","price":null,"price":1}"#, "price"),
        (r#"{"event":"trade","symbol":"A","price":1,"x":1,"x":2}"#, "x"),
        (r#"{"event":"trade","symbol":"A","price":1,"x":1,"\u0078":2}"#, "x"),
        (r#"{"event":"trade","symbol":"A","price":1,"\u0078":1,"x":2}"#, "x"),
        (r#"{"event":"trade","symbol":"A","price":1,"":1,"":2}"#, ""),
        (r#"{"event":"trade","event":"trade","symbol":"A","price":1}"#, "event"),
    ];
    for (payload, field) in cases {
        refuses(InputTopic::Prices, payload, MALFORMED, field);
    }
    let strangers = |names: &[usize]| {
        let members: Vec<String> = names.iter().map(|name| format!(",\"x{name}\":0")).collect();
        with_stranger("1").replace('}', &format!("{}}}", members.concat()))
    };
    let many: Vec<usize> = (0..40).collect();
    takes(InputTopic::Prices, &strangers(&many));
    for again in [0, 7, 8, 20, 39] {
        let names: Vec<usize> = many.iter().copied().chain([again]).collect();
        refuses(InputTopic::Prices, &strangers(&names), MALFORMED, &format!("x{again}"));
    }
}

#[test]
fn a_name_may_be_spelled_with_escapes() {
    takes(InputTopic::Prices, r#"{"\u0065vent":"tra\u0064e","symbol":"\u0041","price":"\u0031"}"#);
}

#[test]
fn a_value_may_be_64_kib_long_and_no_longer() {
    let base = with_stranger("\"\"");
    let fits = with_stranger(&format!("\"{}\"", "y".repeat(MAX_PAYLOAD_BYTES - base.len())));
    assert_eq!(fits.len(), MAX_PAYLOAD_BYTES);
    takes(InputTopic::Prices, &fits);
    refuses(InputTopic::Prices, &format!("{fits} "), MALFORMED, "");
}

#[test]
fn reads_decimals_by_their_value() {
    const ONE: i128 = 100_000_000;
    let cases: [(&str, i128); 28] = [
        ("0", 0),
        ("-0", 0),
        ("0.0", 0),
        ("0e999999999999999999999", 0),
        ("0.000e-999", 0),
        ("1", ONE),
        ("-1", -ONE),
        ("1.5", 150_000_000),
        ("1.000000000", ONE),
        ("1.00000000000000000000000000000000000000000000", ONE),
        ("0.00000001", 1),
        ("-0.00000001", -1),
        ("1e-8", 1),
        ("10e-9", 1),
        ("100000000000000000000e-28", 1),
        ("1E2", 100 * ONE),
        ("1e+2", 100 * ONE),
        ("1.25e1", 1_250_000_000),
        ("0.125e1", 125_000_000),
        ("0.0000000000000000001e19", ONE),
        ("123456789.12345678", 12_345_678_912_345_678),
        ("92233720368.54775807", 9_223_372_036_854_775_807),
        ("999999999999999999", 999_999_999_999_999_999 * ONE),
        ("999999999999999999.99999999", 99_999_999_999_999_999_999_999_999),
        ("-999999999999999999.99999999", -99_999_999_999_999_999_999_999_999),
        ("1e17", 100_000_000_000_000_000 * ONE),
        ("12345678901234567.8", 1_234_567_890_123_456_780_000_000),
        ("00000000000000000000e0", 0),
    ];
    for (text, expected) in cases.iter().take(27) {
        assert_eq!(units(text.as_bytes()), Ok(*expected), "{text}");
    }
    assert_eq!(units(cases[27].0.as_bytes()), Err(DecimalFault::NotDecimal));
}

#[test]
fn a_decimal_that_does_not_fit_is_out_of_range() {
    let long = "9".repeat(5_000);
    let cases = [
        "1e18",
        "1000000000000000000",
        "-1e18",
        "9999999999999999999",
        "1e400",
        "1e99999999999999999999",
        "1e-9",
        "0.123456789",
        "1e-99999999999999999999",
        "0.000000001",
        "123456789012345678901234567890",
        "1.0000000000000000000000000000001",
        &long,
    ];
    for text in cases {
        assert_eq!(units(text.as_bytes()), Err(DecimalFault::OutOfRange), "{text}");
    }
}

#[test]
fn what_json_would_not_call_a_number_is_no_decimal() {
    let cases = [
        "",
        "-",
        "+1",
        ".5",
        "5.",
        "01",
        "-01",
        "00",
        "1e",
        "1e+",
        "1.e5",
        "1..2",
        "1.2.3",
        "1 ",
        " 1",
        "1,0",
        "0x10",
        "NaN",
        "nan",
        "inf",
        "Infinity",
        "-Infinity",
        "1_000",
        "--1",
        "1-1",
        "1e5.0",
        "\u{661}",
        "abc",
        "1a",
    ];
    for text in cases {
        assert_eq!(units(text.as_bytes()), Err(DecimalFault::NotDecimal), "{text}");
    }
}

#[test]
fn a_key_is_an_id_or_nothing() {
    assert_eq!(key_as_id(Some(b"ACC1")).map(|id| id.to_string()).as_deref(), Some("ACC1"));
    assert_eq!(key_as_id(Some(b"A/B")), None);
    assert_eq!(key_as_id(Some(b"")), None);
    assert_eq!(key_as_id(None), None);
}
