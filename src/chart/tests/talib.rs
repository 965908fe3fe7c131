//! Indicators against what TA-Lib's C library and hand-written formulas say (`tests/data/indicators`).

use serde_json::Value;

use super::tape::{PRICES, Tape};
use super::*;
use crate::chart::indicators::{Indicator, Line};
use crate::domain::Price;

const FIXTURE: &str = include_str!("../../../tests/data/indicators/talib.json");
const CENT: i64 = 1_000_000;

fn bar(start: Millis, cents: [i64; 4], volume: Option<i128>) -> Bar {
    let [open, high, low, close] = cents.map(|cents| Price(cents * CENT));
    let stamp = Stamp { at: start, partition: 0, offset: 0 };
    let volume = volume.map(|volume| volume * 100_000_000);
    Bar { open, high, low, close, volume, ..Bar::of_trade(start, open, None, stamp, start) }
}

/// The fixture's bars, the second day's from its place on.
fn bars(fixture: &Value) -> Vec<Bar> {
    let second_day = fixture["second_day_from"].as_i64().unwrap();
    let number = |value: &Value| value.as_i64().unwrap();
    let at = |i: i64| if i < second_day { T0 + i * MINUTE } else { T0 + 24 * 60 * MINUTE + i * MINUTE };
    let of = |(i, row): (i64, &Value)| {
        let cents = [0, 1, 2, 3].map(|place: usize| number(&row[place]));
        bar(at(i), cents, Some(i128::from(number(&row[4]))))
    };
    (0..).zip(fixture["bars"].as_array().unwrap()).map(of).collect()
}

fn parsed(name: &str, given: &[(&str, &str)]) -> Result<Indicator, String> {
    let find = |field: &str| given.iter().find(|(known, _)| *known == field).map(|(_, value)| *value);
    Indicator::parse(name, find).map_err(|bad| bad.field)
}

fn days() -> Days {
    Days::of_zone("America/New_York").unwrap()
}

#[test]
fn every_indicator_says_what_the_c_library_says_and_nothing_while_it_warms_up() {
    let fixture: Value = serde_json::from_str(FIXTURE).unwrap();
    let bars = bars(&fixture);
    let mut seen = Vec::new();
    for case in fixture["cases"].as_array().unwrap() {
        let name = case["indicator"].as_str().unwrap();
        let given: Vec<(String, String)> =
            case["parameters"].as_object().unwrap().iter().map(|(k, v)| (k.clone(), v.to_string())).collect();
        let given: Vec<(&str, &str)> = given.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let lines = parsed(name, &given).unwrap().lines(&bars, &days());
        let expected = case["lines"].as_object().unwrap();
        assert_eq!(lines.len(), expected.len(), "{name}");
        for Line { name: line, values } in lines {
            assert_eq!(values.len(), bars.len());
            for (i, (value, told)) in values.iter().zip(expected[line].as_array().unwrap()).enumerate() {
                let told = told.as_f64();
                assert_eq!(value.is_some(), told.is_some(), "{name} {line} at {i}");
                let (value, told) = (value.unwrap_or_default(), told.unwrap_or_default());
                assert!((value - told).abs() <= 1e-9 * told.abs().max(1.0), "{name} {line} at {i}: {value}, not {told}");
            }
        }
        seen.push(name.to_owned());
    }
    assert_eq!(seen, Indicator::NAMES);
}

#[test]
fn parameters_have_bounds_and_belong_to_their_indicator() {
    assert_eq!(parsed("sma", &[]), Ok(Indicator::Sma { period: 20 }));
    assert_eq!(parsed("macd", &[]), Ok(Indicator::Macd { fast: 12, slow: 26, signal: 9 }));
    assert_eq!(parsed("bbands", &[("deviations", "0.1")]), Ok(Indicator::Bbands { period: 20, deviations: 0.1 }));
    type Given = &'static [(&'static str, &'static str)];
    let wrong: &[(&str, Given, &str)] = &[
        ("", &[], "indicator"),
        ("SMA", &[], "indicator"),
        ("sma", &[("period", "0")], "period"),
        ("sma", &[("period", "501")], "period"),
        ("sma", &[("period", "-1")], "period"),
        ("sma", &[("period", "2.0")], "period"),
        ("sma", &[("period", "")], "period"),
        ("rsi", &[("period", "1")], "period"),
        ("sma", &[("fast", "3")], "fast"),
        ("obv", &[("period", "3")], "period"),
        ("macd", &[("fast", "26")], "slow"),
        ("macd", &[("slow", "501")], "slow"),
        ("macd", &[("signal", "0")], "signal"),
        ("bbands", &[("deviations", "0")], "deviations"),
        ("bbands", &[("deviations", "nan")], "deviations"),
        ("bbands", &[("deviations", "1e0")], "deviations"),
        ("stoch", &[("k", "0")], "k"),
        ("stoch", &[("smoothing", "0")], "smoothing"),
        ("stoch", &[("d", "x")], "d"),
    ];
    for (name, given, field) in wrong {
        assert_eq!(parsed(name, given), Err((*field).to_owned()), "{name} {given:?}");
    }
}

#[test]
fn too_few_bars_give_no_value_and_no_bar_gives_no_line_a_length() {
    for name in Indicator::NAMES {
        let indicator = parsed(name, &[]).unwrap();
        assert!(indicator.lines(&[], &days()).iter().all(|line| line.values.is_empty()), "{name}");
        let one = [bar(T0, [100, 110, 90, 105], None)];
        assert!(indicator.lines(&one, &days()).iter().all(|line| line.values == [None]), "{name}: a bar of unknown volume");
        assert_eq!(indicator.name(), name);
    }
}

#[test]
fn a_bar_without_volume_has_no_obv_and_takes_no_part_in_it() {
    let row = |i: i64, close, volume| bar(T0 + i * MINUTE, [close, close, close, close], volume);
    let bars = [row(0, 100, Some(5)), row(1, 110, None), row(2, 120, Some(3)), row(3, 90, Some(2))];
    let values = |name| parsed(name, &[]).unwrap().lines(&bars, &days()).remove(0).values;
    assert_eq!(values("obv"), [Some(5.0), None, Some(8.0), Some(6.0)]);
    let nano = |value: f64| (value * 1e9).round() as i64;
    let vwap: Vec<_> = values("vwap").into_iter().map(|value| value.map(nano)).collect();
    assert_eq!(vwap, [Some(1_000_000_000), None, Some(1_075_000_000), Some(1_040_000_000)]);
}

/// Charts of one symbol with a long random walk.
fn walked() -> (tempfile::TempDir, Arc<Charts>) {
    let tape = Tape::new(1);
    let (mut price, mut seed) = (100_000_i64, 42_u64);
    for i in 0..6_000 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        price += (seed >> 33) as i64 % 101 - 50;
        let text = format!("{}.{:02}", price / 100, price % 100);
        tape.put(PRICES, 0, LATER, &trade("AAPL", &text, &((seed >> 20) % 1_000 + 1).to_string(), T0 + i * MINUTE / 2));
    }
    let (dir, log): (_, Arc<dyn Topics>) = (tempfile::tempdir().unwrap(), Arc::new(tape));
    let charts = started(&log, options(dir.path()));
    (dir, charts)
}

#[test]
fn values_do_not_depend_on_where_the_window_begins() {
    let (_dir, charts) = walked();
    for name in Indicator::NAMES {
        let indicator = parsed(name, &[]).unwrap();
        let ask = |window| charts.indicator(&symbol("AAPL"), Timeframe::Minute, &window, &indicator, LATER).unwrap();
        let whole = ask(window());
        for first in [1, 500, 1_777, 2_990] {
            let start = T0 + first * MINUTE;
            let part = ask(Window { start: Some(start), ..window() });
            for ((line, expected), (_, values)) in whole.lines.iter().zip(&part.lines) {
                let expected: Vec<_> = expected.iter().filter(|(at, _)| *at >= start).collect();
                assert_eq!(expected.len(), values.len(), "{name} {line} from {first}");
                for ((at, told), (also_at, value)) in expected.into_iter().zip(values) {
                    assert_eq!(at, also_at);
                    assert!((told - value).abs() <= 1e-9 * told.abs().max(1.0), "{name} {line} from {first}: {told} or {value}");
                }
            }
        }
    }
}

#[test]
fn pages_of_an_indicator_are_the_whole_and_the_bar_in_the_making_is_told() {
    let (_dir, charts) = walked();
    let indicator = parsed("ema", &[("period", "5")]).unwrap();
    let ask = |start, limit, now| {
        let window = Window { start: Some(start), limit, ..window() };
        charts.indicator(&symbol("AAPL"), Timeframe::Minute, &window, &indicator, now).unwrap()
    };
    let (mut seen, mut from) = (Vec::new(), Some(0));
    while let Some(start) = from {
        let page = ask(start, 700, LATER);
        seen.extend(page.lines[0].1.clone());
        from = page.next;
    }
    let whole = ask(0, 5_000, LATER);
    assert_eq!(seen.len(), whole.lines[0].1.len());
    assert_eq!(seen.len(), 3_000 - 4);
    assert_eq!(whole.in_progress, None);
    assert_eq!(ask(0, 5_000, T0 + 3_000 * MINUTE - 1).in_progress, Some(T0 + 2_999 * MINUTE));
}
