//! Splits: every quantity and price of a symbol is scaled, or none is.
//!
//! Invariant: no valuation point, no output; the first pass finds every objection, the second has none.

use super::Gate;
use super::control::Refusal;
use super::turn::Turn;
use crate::book::{Account, CommandState, SymbolIx, scale_quantity};
use crate::domain::{OrderPrices, Price, RefusalCode, Symbol};
use crate::market::bars::split_price;

/// Each `from` units become `to`.
#[derive(Clone, Copy, Debug)]
struct Ratio {
    from: i64,
    to: i64,
}

impl Ratio {
    /// A quantity after the split; `None` when one that was there is gone.
    fn quantity(self, units: i64) -> Option<i64> {
        scale_quantity(units, self.to, self.from).filter(|scaled| (*scaled == 0) == (units == 0))
    }

    fn price(self, price: Price) -> Option<Price> {
        split_price(price, self.from, self.to)
    }

    fn prices(self, prices: OrderPrices) -> Option<OrderPrices> {
        let scaled = |price: Option<Price>| price.map_or(Some(None), |price| self.price(price).map(Some));
        Some(OrderPrices {
            limit: scaled(prices.limit)?,
            stop: scaled(prices.stop)?,
            trail_price: scaled(prices.trail_price)?,
            trail_percent: prices.trail_percent,
        })
    }
}

const UNKNOWN: Refusal = (RefusalCode::UnknownInstrument, Some("symbol"), "the instrument is not defined");
const IMPOSSIBLE: Refusal = (RefusalCode::InvalidSplit, None, "the split would make a quantity or a price 0, or leave its type");

impl Gate {
    /// Splits a symbol, or refuses to.
    pub(super) fn split(&mut self, symbol: &Symbol, from: i64, to: i64, turn: &mut Turn<'_>) -> Result<(), Refusal> {
        let ratio = Ratio { from, to };
        let symbol = self.index.symbol(symbol, &self.shared.symbols).ok_or(UNKNOWN)?;
        if self.shared.symbols[symbol as usize].instrument.is_none() {
            return Err(UNKNOWN);
        }
        self.compact_extremes(symbol);
        let state = &self.shared.symbols[symbol as usize];
        let mark = state.mark.scaled(|price| ratio.price(price)).ok_or(IMPOSSIBLE)?;
        let market_scales = state.extremes.can_scale(from, to) && state.bars.iter().all(|(_, bars)| bars.can_scale(from, to));
        let books_scale = self.accounts.iter().all(|account| can_scale(account, symbol, ratio).is_some());
        if !(market_scales && books_scale) {
            return Err(IMPOSSIBLE);
        }
        let state = &mut self.shared.symbols[symbol as usize];
        state.mark = mark;
        state.extremes.scale(from, to);
        for (_, bars) in &mut state.bars {
            bars.scale(from, to);
        }
        self.correlations.clear();
        for (ix, account) in (0..).zip(&mut self.accounts) {
            if account.position(symbol).is_some() {
                scale(account, symbol, ratio);
                account.due = true;
                turn.touch(ix);
                turn.moved.push((ix, symbol, true));
            }
        }
        Ok(())
    }
}

fn can_scale(account: &Account, symbol: SymbolIx, ratio: Ratio) -> Option<()> {
    let Some(position) = account.position(symbol) else { return Some(()) };
    let qty = ratio.quantity(position.holding.qty)?;
    if position.holding.qty != 0 {
        ratio.price(position.opened_price)?;
    }
    let mut working = i128::from(qty).abs();
    for (_, entry) in account.orders.legs(position) {
        let (total, filled) = (ratio.quantity(entry.total)?, ratio.quantity(entry.filled)?);
        let leaves = total.checked_sub(filled).filter(|leaves| *leaves > 0)?;
        working += i128::from(leaves);
        ratio.prices(entry.prices)?;
    }
    for command in account.commands.iter().filter(|command| command.symbol == symbol && command.covers() > 0) {
        ratio.quantity(command.rest)?;
    }
    i64::try_from(working).ok().map(|_| ())
}

fn scale(account: &mut Account, symbol: SymbolIx, ratio: Ratio) {
    let place = account.place_or_new(symbol);
    let slots: Vec<u32> = account.orders.legs(&account.positions[place]).map(|(slot, _)| slot).collect();
    for slot in slots {
        let scaled = account
            .orders
            .get(slot)
            .and_then(|entry| Some((ratio.quantity(entry.total)?, ratio.quantity(entry.filled)?, ratio.prices(entry.prices)?)));
        if let Some((total, filled, prices)) = scaled {
            account.orders.rescale(&mut account.positions[place], slot, total, filled, prices);
        }
    }
    let position = &mut account.positions[place];
    position.holding.qty = ratio.quantity(position.holding.qty).unwrap_or(position.holding.qty);
    position.opened_price = ratio.price(position.opened_price).unwrap_or(position.opened_price);
    let open = |command: &&mut crate::book::Command| command.symbol == symbol && command.state != CommandState::Ended;
    for command in account.commands.iter_mut().filter(open) {
        command.rest = ratio.quantity(command.rest).unwrap_or(command.rest);
    }
    account.fills.merge(symbol);
}
