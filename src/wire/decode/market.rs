//! The events of `market.prices`.
//!
//! Invariant: prices are above zero; an [`Event`] and a [`Print`] are read of the same records, and of no others. Deliberately
//! absent from events: sizes and volumes, which are found sound and left out, since no decision needs them. Charts need them.

use crate::domain::{Bar, BarPrint, Event, Print, Quote, Trade, TradePrint};

use super::fields::Fields;
use super::orders::event_of;
use super::value::Value;
use crate::wire::key::Key;

enum Word {
    Trade,
    Quote,
    Bar,
}

impl Word {
    fn from_bytes(word: &[u8]) -> Option<Self> {
        match word {
            b"trade" => Some(Self::Trade),
            b"quote" => Some(Self::Quote),
            b"bar" => Some(Self::Bar),
            _ => None,
        }
    }
}

/// Reads a record of `market.prices`. It comes from others and may have more fields than we know.
pub(super) fn price(fields: &mut Fields<'_>) -> Option<Event> {
    match event_of(fields, Word::from_bytes)? {
        Word::Trade => trade(fields).map(Event::Trade),
        Word::Quote => quote(fields).map(Event::Quote),
        Word::Bar => bar(fields).map(Event::Bar),
    }
}

fn trade(fields: &mut Fields<'_>) -> Option<Trade> {
    let symbol = fields.required(Key::Symbol, Value::symbol);
    let price = fields.required(Key::Price, Value::price);
    fields.optional(Key::Size, Value::volume);
    let ts = fields.optional(Key::Ts, Value::time);
    Some(Trade { symbol: symbol?, price: price?, ts })
}

fn quote(fields: &mut Fields<'_>) -> Option<Quote> {
    let symbol = fields.required(Key::Symbol, Value::symbol);
    if fields.value(Key::Bid).is_none() && fields.value(Key::Ask).is_none() {
        fields.malformed(None, "a quote has a bid, an ask or both");
    }
    let bid = fields.optional(Key::Bid, Value::price);
    let ask = fields.optional(Key::Ask, Value::price);
    fields.optional(Key::BidSize, Value::volume);
    fields.optional(Key::AskSize, Value::volume);
    let ts = fields.optional(Key::Ts, Value::time);
    Some(Quote { symbol: symbol?, bid, ask, ts })
}

fn bar(fields: &mut Fields<'_>) -> Option<Bar> {
    let symbol = fields.required(Key::Symbol, Value::symbol);
    let timeframe = fields.required(Key::Timeframe, Value::id);
    let open_time = fields.required(Key::OpenTime, Value::time);
    let close = fields.required(Key::Close, Value::price);
    fields.optional(Key::Open, Value::price);
    fields.optional(Key::High, Value::price);
    fields.optional(Key::Low, Value::price);
    fields.optional(Key::Volume, Value::volume);
    Some(Bar { symbol: symbol?, timeframe: timeframe?, open_time: open_time?, close: close? })
}

/// Reads a record of `market.prices` with everything that a chart draws.
pub(super) fn print(fields: &mut Fields<'_>) -> Option<Print> {
    match event_of(fields, Word::from_bytes)? {
        Word::Trade => trade_print(fields).map(Print::Trade),
        Word::Quote => quote(fields).map(|_| Print::Quote),
        Word::Bar => bar_print(fields).map(Print::Bar),
    }
}

fn trade_print(fields: &mut Fields<'_>) -> Option<TradePrint> {
    let symbol = fields.required(Key::Symbol, Value::symbol);
    let price = fields.required(Key::Price, Value::price);
    let size = fields.optional(Key::Size, Value::amount);
    let ts = fields.optional(Key::Ts, Value::time);
    Some(TradePrint { symbol: symbol?, price: price?, size, ts })
}

fn bar_print(fields: &mut Fields<'_>) -> Option<BarPrint> {
    let symbol = fields.required(Key::Symbol, Value::symbol);
    let timeframe = fields.required(Key::Timeframe, Value::id);
    let open_time = fields.required(Key::OpenTime, Value::time);
    let close = fields.required(Key::Close, Value::price);
    let open = fields.optional(Key::Open, Value::price);
    let high = fields.optional(Key::High, Value::price);
    let low = fields.optional(Key::Low, Value::price);
    let volume = fields.optional(Key::Volume, Value::amount);
    Some(BarPrint { symbol: symbol?, timeframe: timeframe?, open_time: open_time?, open, high, low, close: close?, volume })
}
