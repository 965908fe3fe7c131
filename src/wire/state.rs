//! Books as JSON: `--state` and `GET /accounts/{account}`.
//!
//! Invariant: the same books give the same bytes. Deliberately absent: how the state hash is made.

use crate::domain::{Figure, Millis};
use crate::gate::{BookView, PositionView, WorkingView};

use super::write;

/// Appends all books as one object. `state_hash` is hexadecimal text.
pub fn encode_state(out: &mut Vec<u8>, seq: u64, at: Millis, state_hash: &str, books: impl Iterator<Item = BookView>) {
    write::raw(out, "{\"seq\":");
    write::natural(out, seq);
    write::raw(out, ",\"at\":");
    write::integer(out, at);
    write::raw(out, ",\"state_hash\":");
    write::string(out, state_hash);
    write::raw(out, ",\"accounts\":{");
    for (place, book) in books.enumerate() {
        write::plain(out, if place > 0 { ",\"" } else { "\"" }, book.account.as_bytes(), "\":{");
        encode_book(out, &book);
        out.push(b'}');
    }
    write::raw(out, "}}");
}

/// Appends one account's book as an object of its own, as it was after `seq` records.
pub fn encode_account(out: &mut Vec<u8>, seq: u64, book: &BookView) {
    write::raw(out, "{\"seq\":");
    write::natural(out, seq);
    write::plain(out, ",\"account\":\"", book.account.as_bytes(), "\",");
    encode_book(out, book);
    out.push(b'}');
}

fn encode_book(out: &mut Vec<u8>, book: &BookView) {
    write::raw(out, "\"cash\":");
    write::money_or_null(out, Some(book.cash));
    write::raw(out, ",\"equity\":");
    write::money_or_null(out, book.equity);
    for (name, amount) in [(",\"sod\":", book.sod), (",\"hwm\":", book.hwm), (",\"flows\":", book.flows)] {
        write::raw(out, name);
        write::money_or_null(out, Some(amount));
    }
    write::plain(out, ",\"state\":\"", book.state.as_str().as_bytes(), "\",\"positions\":{");
    for (place, position) in book.positions.iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        encode_position(out, position);
    }
    write::raw(out, "},\"working\":[");
    for (place, order) in book.working.iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        encode_working(out, order);
    }
    out.push(b']');
}

fn encode_position(out: &mut Vec<u8>, position: &PositionView) {
    write::plain(out, "\"", position.symbol.as_bytes(), "\":{\"qty\":\"");
    write::units(out, i128::from(position.qty.0));
    let average = match position.avg_price {
        Figure::Absent => Figure::Unknown,
        Figure::Unknown | Figure::Infinite | Figure::Units(_) => position.avg_price,
    };
    write::figure(out, "\",\"avg_price\":", average);
    write::raw(out, ",\"realized\":");
    write::money_or_null(out, Some(position.realized));
    write::plain(out, ",\"state\":\"", position.state.as_str().as_bytes(), "\"}");
}

fn encode_working(out: &mut Vec<u8>, order: &WorkingView) {
    write::plain(out, "{\"client_order_id\":\"", order.client_order_id.as_bytes(), "\",\"symbol\":\"");
    write::plain(out, "", order.symbol.as_bytes(), "\",\"side\":\"");
    write::plain(out, order.side.as_str(), b"\",\"leaves\":\"", "");
    write::units(out, i128::from(order.leaves.0));
    write::raw(out, "\"}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Id, Money, Qty, Side, Symbol, TradingState};

    #[test]
    fn a_state_is_printed_as_the_contract_shows_it() {
        let book = BookView {
            account: Id::parse(b"ACC1").unwrap(),
            cash: Money::whole(94_000),
            equity: None,
            sod: Money::whole(100_000),
            hwm: Money::whole(100_000),
            flows: Money::ZERO,
            state: TradingState::Active,
            positions: vec![
                PositionView {
                    symbol: Symbol::parse(b"AAPL").unwrap(),
                    qty: Qty::whole(60),
                    avg_price: Figure::Units(10_000_000_000),
                    realized: Money::ZERO,
                    state: TradingState::ReduceOnly,
                },
                PositionView {
                    symbol: Symbol::parse(b"MSFT").unwrap(),
                    qty: Qty::ZERO,
                    avg_price: Figure::Unknown,
                    realized: Money(-5_000_000_000_000_000),
                    state: TradingState::Active,
                },
            ],
            working: vec![WorkingView {
                client_order_id: Id::parse(b"I-1").unwrap(),
                symbol: Symbol::parse(b"AAPL").unwrap(),
                side: Side::Buy,
                leaves: Qty::whole(35),
            }],
        };
        let inside = concat!(
            r#""cash":"94000","equity":null,"sod":"100000","hwm":"100000","flows":"0","state":"active","#,
            r#""positions":{"AAPL":{"qty":"60","avg_price":"100","realized":"0","state":"reduce_only"},"#,
            r#""MSFT":{"qty":"0","avg_price":null,"realized":"-0.5","state":"active"}},"#,
            r#""working":[{"client_order_id":"I-1","symbol":"AAPL","side":"buy","leaves":"35"}]"#,
        );
        let mut out = Vec::new();
        encode_account(&mut out, 7, &book);
        assert_eq!(String::from_utf8(out).unwrap(), format!(r#"{{"seq":7,"account":"ACC1",{inside}}}"#));
        let mut out = Vec::new();
        encode_state(&mut out, 44337, -5, "ab", [book.clone(), book].into_iter());
        let accounts = format!(r#""ACC1":{{{inside}}},"ACC1":{{{inside}}}"#);
        let expected = format!(r#"{{"seq":44337,"at":-5,"state_hash":"ab","accounts":{{{accounts}}}}}"#);
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
