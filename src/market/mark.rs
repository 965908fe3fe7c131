//! The mark of a symbol and its age (SEMANTICS section 2).
//!
//! Invariant: the mark is a function of the last trade and the quotes after it, in ledger order.

use serde::{Deserialize, Serialize};

use crate::domain::{Millis, Price, Side};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Touch {
    bid: Option<Price>,
    ask: Option<Price>,
    time: Millis,
}

/// The last prices of one symbol.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    trade: Option<(Price, Millis)>,
    quote: Option<Touch>,
    /// Whether the last quote came after the last trade.
    quote_is_later: bool,
    /// The last quote that had both sides, and its time.
    two_sided: Option<(Price, Price, Millis)>,
    price: Option<Price>,
}

impl Mark {
    /// The mark, if there is one.
    #[must_use]
    pub const fn price(&self) -> Option<Price> {
        self.price
    }

    /// The time that the mark's age counts from.
    #[must_use]
    pub fn time(&self) -> Option<Millis> {
        match (self.trade, self.quote) {
            (Some((_, traded)), Some(quote)) => Some(traded.max(quote.time)),
            (Some((_, traded)), None) => Some(traded),
            (None, _) => self.two_sided.map(|(_, _, quoted)| quoted),
        }
    }

    /// The best price of the other side that an order of `side` would meet.
    #[must_use]
    pub fn opposite_touch(&self, side: Side) -> Option<Price> {
        self.quote.and_then(|quote| match side {
            Side::Buy => quote.ask,
            Side::Sell => quote.bid,
        })
    }

    /// Takes a trade of the market.
    pub fn on_trade(&mut self, price: Price, time: Millis) {
        self.trade = Some((price, time));
        self.quote_is_later = false;
        self.price = Some(price);
    }

    /// Takes a quote of the market.
    pub fn on_quote(&mut self, bid: Option<Price>, ask: Option<Price>, time: Millis) {
        self.quote = Some(Touch { bid, ask, time });
        self.quote_is_later = true;
        if let (Some(bid), Some(ask)) = (bid, ask) {
            self.two_sided = Some((bid, ask, time));
        }
        self.price = self.compute();
    }

    /// The prices after a split, or `None` when one of them leaves its type or becomes 0.
    #[must_use]
    pub fn scaled(&self, scale: impl Fn(Price) -> Option<Price>) -> Option<Self> {
        let mut scaled = self.clone();
        if let Some((price, _)) = &mut scaled.trade {
            *price = scale(*price)?;
        }
        if let Some(quote) = &mut scaled.quote {
            for side in [&mut quote.bid, &mut quote.ask].into_iter().flatten() {
                *side = scale(*side)?;
            }
        }
        if let Some((bid, ask, _)) = &mut scaled.two_sided {
            (*bid, *ask) = (scale(*bid)?, scale(*ask)?);
        }
        scaled.price = scaled.compute();
        Some(scaled)
    }

    fn compute(&self) -> Option<Price> {
        let Some((trade, _)) = self.trade else { return self.two_sided.map(|(bid, ask, _)| middle(bid, ask)) };
        let Some(quote) = self.quote.filter(|_| self.quote_is_later) else { return Some(trade) };
        let outside = quote.bid.is_some_and(|bid| trade < bid) || quote.ask.is_some_and(|ask| trade > ask);
        if !outside {
            return Some(trade);
        }
        let distance = |price: &Price| price.0.abs_diff(trade.0);
        [quote.bid, quote.ask].into_iter().flatten().min_by_key(distance)
    }
}

/// The middle of two prices, half to even.
fn middle(bid: Price, ask: Price) -> Price {
    let sum = i128::from(bid.0) + i128::from(ask.0);
    let half = sum / 2;
    let rounded = if sum % 2 != 0 && half % 2 != 0 { half + 1 } else { half };
    Price(i64::try_from(rounded).unwrap_or(ask.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_quote_that_excludes_the_trade_moves_the_mark() {
        let mut mark = Mark::default();
        mark.on_trade(Price(100), 1);
        for (bid, ask, expected) in [(101, 102, 101), (99, 103, 100), (97, 98, 98)] {
            mark.on_quote(Some(Price(bid)), Some(Price(ask)), 2);
            assert_eq!(mark.price(), Some(Price(expected)));
        }
        mark.on_trade(Price(99), 3);
        assert_eq!(mark.price(), Some(Price(99)));
        mark.on_quote(None, Some(Price(98)), 4);
        assert_eq!(mark.price(), Some(Price(98)));
        assert_eq!(mark.time(), Some(4));
    }

    #[test]
    fn without_a_trade_the_middle_of_a_two_sided_quote_counts() {
        let mut mark = Mark::default();
        mark.on_quote(Some(Price(1)), None, 1);
        assert_eq!((mark.price(), mark.time()), (None, None));
        mark.on_quote(Some(Price(1)), Some(Price(4)), 2);
        assert_eq!((mark.price(), mark.time()), (Some(Price(2)), Some(2)));
        mark.on_quote(None, Some(Price(9)), 3);
        assert_eq!((mark.price(), mark.time()), (Some(Price(2)), Some(2)));
    }
}
