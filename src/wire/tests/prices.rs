//! Trades, quotes and bars.

use super::*;
use crate::domain::{BarPrint, Id, Price, Print, Symbol, TradePrint};

const PRICES: InputTopic = InputTopic::Prices;
const MALFORMED: RefusalCode = RefusalCode::Malformed;
const OUT_OF_RANGE: RefusalCode = RefusalCode::ValueOutOfRange;

#[test]
fn reads_a_trade() {
    let payload = r#"{"event":"trade","symbol":"AAPL","price":"100.02","size":"300","ts":1772811000123,"venue":"XNAS"}"#;
    let Event::Trade(trade) = takes(PRICES, payload) else { panic!("no trade") };
    assert_eq!((trade.price, trade.ts), (Price(10_002_000_000), Some(1_772_811_000_123)));
    for (from, to, code, field) in [
        ("\"100.02\"", "0", OUT_OF_RANGE, "price"),
        ("\"100.02\"", "null", MALFORMED, "price"),
        ("\"300\"", "-1", OUT_OF_RANGE, "size"),
        ("\"300\"", "\"many\"", MALFORMED, "size"),
        ("AAPL", "A APL", MALFORMED, "symbol"),
        ("1772811000123", "\"1772811000123\"", MALFORMED, "ts"),
        ("\"XNAS\"", "\"XNAS\",\"venue\":1", MALFORMED, "venue"),
    ] {
        refuses(PRICES, &payload.replace(from, to), code, field);
    }
    takes(PRICES, &payload.replace("\"300\"", "0"));
    takes(PRICES, &payload.replace("1772811000123", "-1"));
}

#[test]
fn a_quote_needs_one_side() {
    let Event::Quote(quote) = takes(PRICES, r#"{"event":"quote","symbol":"AAPL","bid":100.01,"ask":null,"bid_size":0}"#) else {
        panic!("no quote")
    };
    assert_eq!((quote.bid, quote.ask, quote.ts), (Some(Price(10_001_000_000)), None, None));
    refuses(PRICES, r#"{"event":"quote","symbol":"AAPL"}"#, MALFORMED, "");
    refuses(PRICES, r#"{"event":"quote","symbol":"AAPL","bid":null,"ask":null}"#, MALFORMED, "");
    refuses(PRICES, r#"{"event":"quote","symbol":"AAPL","bid":1,"bid":2}"#, MALFORMED, "bid");
    refuses(PRICES, r#"{"event":"quote","symbol":"AAPL","bid":0,"ask":1}"#, OUT_OF_RANGE, "bid");
}

#[test]
fn reads_a_bar() {
    let payload = r#"{"event":"bar","symbol":"AAPL","timeframe":"1d","open_time":"2026-03-05T00:00:00Z","open":"99","high":"101","low":"98","close":"100","volume":"1200000"}"#;
    let Event::Bar(bar) = takes(PRICES, payload) else { panic!("no bar") };
    assert_eq!((bar.timeframe, bar.open_time, bar.close), (Id::parse(b"1d").unwrap(), 1_772_668_800_000, Price::whole(100)));
    for field in ["symbol", "timeframe", "open_time", "close"] {
        refuses(PRICES, &payload.replace(field, "other"), MALFORMED, field);
    }
    refuses(PRICES, &payload.replace("\"98\"", "0"), OUT_OF_RANGE, "low");
    refuses(PRICES, &payload.replace("\"1200000\"", "-1"), OUT_OF_RANGE, "volume");
    takes(PRICES, &payload.replace("\"1200000\"", "0"));
}

#[test]
fn a_print_has_the_sizes_and_volumes_that_an_event_leaves_out() {
    let trade = r#"{"event":"trade","symbol":"AAPL","price":"100.02","size":"300.5","ts":1772811000123}"#;
    let (symbol, ts) = (Symbol::parse(b"AAPL").unwrap(), Some(1_772_811_000_123));
    let print = TradePrint { symbol, price: Price(10_002_000_000), size: Some(30_050_000_000), ts };
    assert_eq!(decode_print(Some(b"AAPL"), trade.as_bytes()), Some(Print::Trade(print)));
    assert_eq!(decode_print(Some(b"MSFT"), trade.as_bytes()), None, "the key names another");
    let huge = trade.replace("300.5", "500000000000000");
    let Some(Print::Trade(huge)) = decode_print(None, huge.as_bytes()) else { panic!("no trade") };
    assert_eq!(huge.size, Some(50_000_000_000_000_000_000_000), "more than a quantity of ours can be");
    let bar = r#"{"event":"bar","symbol":"AAPL","timeframe":"1d","open_time":5,"open":"99","high":"101","close":"100","volume":7}"#;
    let (open, high, low, close) = (Some(Price::whole(99)), Some(Price::whole(101)), None, Price::whole(100));
    let timeframe = Id::parse(b"1d").unwrap();
    let print = BarPrint { symbol, timeframe, open_time: 5, open, high, low, close, volume: Some(700_000_000) };
    assert_eq!(decode_print(None, bar.as_bytes()), Some(Print::Bar(print)));
    assert_eq!(decode_print(None, br#"{"event":"quote","symbol":"AAPL","bid":1}"#), Some(Print::Quote));
}

#[test]
fn a_key_must_name_the_symbol() {
    let payload = br#"{"event":"trade","symbol":"BTC/USD","price":"1"}"#;
    assert!(matches!(decode(PRICES, Some(b"BTC/USD"), payload), Event::Trade(_)));
    assert!(matches!(decode(PRICES, Some(b"BTC"), payload), Event::Refused(refused) if refused.field.as_deref() == Some("symbol")));
}
