//! What the paths answer, on a real embedded log.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::Value;
use tower::ServiceExt;

use super::*;
use crate::chart::{Bounds, Options};
use crate::domain::InputTopic;
use crate::embedded::{EmbeddedLog, EmbeddedOptions};
use crate::log::{NewRecord, Topic, Topics};

const T0: i64 = 1_772_811_000_000;
const MINUTE: i64 = 60_000;

struct Desk {
    router: Router,
    charts: Arc<Charts>,
    log: EmbeddedLog,
    _dir: tempfile::TempDir,
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.charts.stop();
        self.log.close();
    }
}

/// Charts of one symbol with `minutes` bars of 1min.
fn desk(minutes: i64) -> Desk {
    let dir = tempfile::tempdir().unwrap();
    let log = EmbeddedLog::open(EmbeddedOptions::new(dir.path())).unwrap();
    let record = |i: i64| {
        let payload = format!(r#"{{"event":"trade","symbol":"BTC/USD","price":"{}.5","size":"2","ts":{}}}"#, 100 + i % 9, T0 + i * MINUTE);
        let topic = Topic::Input(InputTopic::Prices);
        NewRecord { topic, partition: None, ts: None, key: None, payload: payload.into_bytes() }
    };
    let (told, done) = std::sync::mpsc::channel();
    Topics::append(&log, (0..minutes).map(record).collect(), Box::new(move |placed| told.send(placed.is_ok()).unwrap()));
    assert!(done.recv().unwrap());
    let options = Options {
        dir: dir.path().join("charts"),
        cache_bytes: 1 << 20,
        bounds: Bounds { bars_max: 10_000, symbols_max: 10 },
        days: Days::of_zone("America/New_York").unwrap(),
    };
    let charts = Charts::start(Arc::new(log.clone()), options).unwrap();
    let symbol = Symbol::parse(b"BTC/USD").unwrap();
    let newest = || charts.newest(&symbol, Timeframe::Minute, T0).ok().flatten().map(|bar| bar.start);
    while newest() != Some(T0 + (minutes - 1) * MINUTE) {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let (router, _) = routes().split_for_parts();
    Desk { router: router.with_state(Arc::clone(&charts)), charts, log, _dir: dir }
}

impl Desk {
    async fn get(&self, path: &str) -> (StatusCode, Value) {
        let request = Request::get(format!("/chart/{path}")).body(Body::empty()).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap())
    }

    async fn refused(&self, path: &str) -> (u16, String, String) {
        let (status, body) = self.get(path).await;
        let text = |member: &str| body[member].as_str().unwrap_or_default().to_owned();
        (status.as_u16(), text("code"), text("field"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bars_are_numbers_that_lightweight_charts_draws() {
    let desk = desk(3);
    let (status, body) = desk.get("BTC%2FUSD/ohlcv?timeframe=1min&start=0").await;
    assert_eq!(status, StatusCode::OK);
    let bar =
        serde_json::json!({"time": T0 / 1000, "open": 100.5, "high": 100.5, "low": 100.5, "close": 100.5, "volume": 2.0, "trades": 1});
    assert_eq!(body["bars"][0], bar);
    assert_eq!((&body["symbol"], &body["timeframe"], &body["zone"]), (&"BTC/USD".into(), &"1min".into(), &"America/New_York".into()));
    assert_eq!(body["bars"].as_array().unwrap().len(), 3);
    assert!(body.get("next_cursor").is_none());
    let (_, window) = desk.get("BTC%2FUSD/ohlcv?timeframe=1min&start=2026-03-06T15:31:00Z&end=2026-03-06T15:32:00Z").await;
    assert_eq!(window["bars"].as_array().unwrap().len(), 1);
    assert_eq!(window["bars"][0]["time"], T0 / 1000 + 60);
    let (_, day) = desk.get("BTC%2FUSD/ohlcv?timeframe=1day").await;
    assert_eq!(day["bars"][0]["volume"], 6.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn cursors_lead_through_more_than_a_page_can_have() {
    let desk = desk(5_200);
    let (_, page) = desk.get("BTC%2FUSD/ohlcv?timeframe=1min&start=0&limit=5000").await;
    assert_eq!(page["bars"].as_array().unwrap().len(), 5_000);
    let cursor = page["next_cursor"].as_str().unwrap();
    let (_, rest) = desk.get(&format!("BTC%2FUSD/ohlcv?timeframe=1min&start=0&limit=5000&cursor={cursor}")).await;
    assert_eq!(rest["bars"].as_array().unwrap().len(), 200);
    assert_eq!(rest["bars"][0]["time"], T0 / 1000 + 5_000 * 60);
    assert!(rest.get("next_cursor").is_none());
    let (_, lines) = desk.get(&format!("BTC%2FUSD/indicators?timeframe=1min&start=0&indicator=sma&period=3&cursor={cursor}")).await;
    assert_eq!(lines["lines"][0]["values"].as_array().unwrap().len(), 200, "the page before warms it up");
    let (_, newest) = desk.get("BTC%2FUSD/ohlcv?timeframe=1min").await;
    assert_eq!(newest["bars"].as_array().unwrap().len(), 500);
    assert_eq!(newest["bars"][499]["time"], T0 / 1000 + 5_199 * 60);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_indicator_says_its_parameters_and_has_no_value_while_it_warms_up() {
    let desk = desk(40);
    let (status, body) = desk.get("BTC%2FUSD/indicators?timeframe=1min&start=0&indicator=bbands&period=10&deviations=1.5").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(body["parameters"], serde_json::json!({"period": 10, "deviations": 1.5}));
    let names: Vec<_> = body["lines"].as_array().unwrap().iter().map(|line| line["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["upper", "middle", "lower"]);
    let values = body["lines"][1]["values"].as_array().unwrap();
    assert_eq!((values.len(), &values[0]["time"]), (31, &(T0 / 1000 + 9 * 60).into()));
    assert_eq!(values[0]["value"], 104.1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_told_with_its_field() {
    let desk = desk(1);
    for (path, expected) in [
        ("BTC%2FUSD/ohlcv", (400, "INVALID_PARAMETER", "timeframe")),
        ("BTC%2FUSD/ohlcv?timeframe=2min", (400, "INVALID_PARAMETER", "timeframe")),
        ("BTC%2FUSD/ohlcv?timeframe=1min&start=yesterday", (400, "INVALID_PARAMETER", "start")),
        ("BTC%2FUSD/ohlcv?timeframe=1min&end=1.5", (400, "INVALID_PARAMETER", "end")),
        ("BTC%2FUSD/ohlcv?timeframe=1min&start=2&end=1", (400, "INVALID_PARAMETER", "end")),
        ("BTC%2FUSD/ohlcv?timeframe=1min&limit=5001", (400, "INVALID_PARAMETER", "limit")),
        ("BTC%2FUSD/ohlcv?timeframe=1min&limit=0", (400, "INVALID_PARAMETER", "limit")),
        ("BTC%2FUSD/ohlcv?timeframe=1min&adjusted=yes", (400, "INVALID_PARAMETER", "adjusted")),
        ("BTC%2FUSD/ohlcv?timeframe=1min&start=5&cursor=AAAA", (400, "INVALID_PARAMETER", "cursor")),
        ("BTC%2FUSD/ohlcv?timeframe=1min&start=5&cursor=AAAAAAAAAAA", (400, "INVALID_PARAMETER", "cursor")),
        ("BTC%2FUSD/ohlcv?timeframe=1min&cursor=AAAAAAAAAAA", (400, "INVALID_PARAMETER", "cursor")),
        ("BTC%2FUSD/ohlcv?timeframe=1min&period=5", (400, "UNKNOWN_PARAMETER", "period")),
        ("BTC%2FUSD/indicators?timeframe=1min", (400, "INVALID_PARAMETER", "indicator")),
        ("BTC%2FUSD/indicators?timeframe=1min&indicator=sma&period=0", (400, "INVALID_PARAMETER", "period")),
        ("BTC%2FUSD/indicators?timeframe=1min&indicator=obv&period=5", (400, "INVALID_PARAMETER", "period")),
        ("BTC%2FUSD/indicators?timeframe=1min&indicator=macd&fast=9&slow=9", (400, "INVALID_PARAMETER", "slow")),
        ("MSFT/ohlcv?timeframe=1min", (404, "UNKNOWN_SYMBOL", "symbol")),
        ("M%20SFT/ohlcv?timeframe=1min", (404, "UNKNOWN_SYMBOL", "symbol")),
        ("%ff/ohlcv?timeframe=1min", (400, "INVALID_PARAMETER", "symbol")),
    ] {
        let (status, code, field) = desk.refused(path).await;
        assert_eq!((status, code.as_str(), field.as_str()), expected, "{path}");
    }
    desk.charts.stop();
    for path in ["BTC%2FUSD/ohlcv?timeframe=1min", "BTC%2FUSD/indicators?timeframe=1min&indicator=obv"] {
        let (status, code, _) = desk.refused(path).await;
        assert_eq!((status, code.as_str()), (503, "CHART_UNAVAILABLE"), "{path}");
    }
}

#[test]
fn times_are_rfc_3339_or_milliseconds() {
    let read = |text: &str| time_of(&Query::read(Some(&format!("start={text}")), &["start"]).unwrap(), "start").ok().flatten();
    assert_eq!(read("1772811000000"), Some(T0));
    assert_eq!(read("-1"), Some(-1));
    assert_eq!(read("2026-03-06T15:30:00Z"), Some(T0));
    assert_eq!(read("2026-03-06T10:30:00-05:00"), Some(T0));
    for wrong in ["", "2026-03-06", "now", "1e3", "99999999999999999999"] {
        assert_eq!(read(wrong), None, "{wrong}");
    }
}

#[test]
fn the_document_has_both_paths_and_their_words() {
    let (_, document) = routes().split_for_parts();
    let json = serde_json::to_value(&document).unwrap();
    assert!(json["paths"]["/chart/{symbol}/ohlcv"]["get"].is_object() && json["paths"]["/chart/{symbol}/indicators"]["get"].is_object());
    let text = json.to_string();
    for timeframe in Timeframe::ALL {
        assert!(text.contains(&format!("\"{}\"", timeframe.as_str())));
    }
    for name in Indicator::NAMES {
        assert!(text.contains(&format!("\"{name}\"")));
    }
}
