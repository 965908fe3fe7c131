//! Prices: marks, bars, and the stops and targets that a mark reaches.
//!
//! Invariant: a price does not look at the holders of its symbol, only at those whose triggers it reaches.

use super::Gate;
use super::desk::Desk;
use super::turn::Turn;
use crate::book::SymbolIx;
use crate::domain::{Bar, Millis, Quote, Symbol, Trade};
use crate::market::bars::Bars;

/// Marks that are kept for trailing stops before those that nobody asks for are dropped.
const EXTREMES_KEPT: usize = 1024;

impl Gate {
    /// A trade of the market.
    pub(super) fn on_trade(&mut self, trade: &Trade, turn: &mut Turn<'_>) {
        let Some(symbol) = self.priced(&trade.symbol, turn) else { return };
        let time = time_of(trade.ts, turn.at);
        self.shared.symbols[symbol as usize].mark.on_trade(trade.price, time);
        self.on_mark(symbol, turn);
    }

    /// A quote of the market.
    pub(super) fn on_quote(&mut self, quote: &Quote, turn: &mut Turn<'_>) {
        let Some(symbol) = self.priced(&quote.symbol, turn) else { return };
        let time = time_of(quote.ts, turn.at);
        self.shared.symbols[symbol as usize].mark.on_quote(quote.bid, quote.ask, time);
        self.on_mark(symbol, turn);
    }

    /// A bar of history: it never moves a mark.
    pub(super) fn on_bar(&mut self, bar: &Bar, turn: &mut Turn<'_>) {
        let Some(symbol) = self.priced(&bar.symbol, turn) else { return };
        let bound = self.shared.bars_kept();
        self.shared.symbols[symbol as usize].bars_changed += 1;
        let series = &mut self.shared.symbols[symbol as usize].bars;
        let place = series.iter().position(|(timeframe, _)| *timeframe == bar.timeframe).unwrap_or_else(|| {
            let mut bars = Bars::default();
            bars.set_bound(bound);
            series.push((bar.timeframe, bars));
            series.len() - 1
        });
        series[place].1.insert(bar.open_time, bar.close);
    }

    /// The place of a symbol that is defined; a price of another is counted and dropped.
    fn priced(&self, symbol: &Symbol, turn: &mut Turn<'_>) -> Option<SymbolIx> {
        let known = self.index.symbol(symbol, &self.shared.symbols);
        let defined = known.filter(|symbol| self.shared.symbols[*symbol as usize].instrument.is_some());
        if defined.is_none() {
            turn.out.prices_dropped += 1;
        }
        defined
    }

    fn on_mark(&mut self, symbol: SymbolIx, turn: &mut Turn<'_>) {
        let state = &mut self.shared.symbols[symbol as usize];
        let Some(mark) = state.mark.price() else { return };
        if !std::mem::replace(&mut state.moved, true) {
            self.moved_symbols.push(symbol);
        }
        state.extremes.push(mark);
        let mut reached = std::mem::take(&mut self.reached);
        state.triggers.fire(mark.0, &mut reached);
        if state.extremes.len() > EXTREMES_KEPT.max(4 * state.holders.len()) {
            self.compact_extremes(symbol);
        }
        reached.sort_unstable_by_key(|(account, rule)| (*account, self.shared.rank(*rule)));
        for (ix, rule) in reached.drain(..) {
            let account = &mut self.accounts[ix as usize];
            Desk { shared: &self.shared, account, ix, turn }.judge_stop(rule, symbol);
        }
        self.reached = reached;
    }

    /// Drops the marks that no position asks for.
    pub(super) fn compact_extremes(&mut self, symbol: SymbolIx) {
        let holders = &self.shared.symbols[symbol as usize].holders;
        let positions = holders.iter().filter_map(|ix| self.accounts[*ix as usize].position(symbol));
        let mut used: Vec<u64> = positions.filter(|position| position.holding.qty != 0).map(|position| position.opened_index).collect();
        used.sort_unstable();
        self.shared.symbols[symbol as usize].extremes.compact(&used);
    }
}

/// A price's own time, not later than its record's.
fn time_of(ts: Option<Millis>, at: Millis) -> Millis {
    ts.map_or(at, |ts| ts.min(at))
}
