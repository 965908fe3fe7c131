//! All that is known of one symbol: its definition, its prices, who holds it, who watches it.

use serde::{Deserialize, Serialize};

use super::bars::Bars;
use super::extremes::Extremes;
use super::mark::Mark;
use super::triggers::Triggers;
use crate::domain::{Currency, Factor, Id, Money, Price, Qty, Symbol};

/// What `instrument_defined` said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instrument {
    /// Its sector, by number.
    pub sector: u32,
    /// Money per point of price.
    pub multiplier: Factor,
    /// The smallest step of a quantity.
    pub lot: Qty,
    /// The smallest step of a price.
    pub tick: Option<Price>,
    /// Its currency.
    pub currency: Currency,
    /// Fat-finger limit of one order's quantity.
    pub max_order_qty: Option<Qty>,
    /// Fat-finger limit of one order's value.
    pub max_order_value: Option<Money>,
}

/// One symbol.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SymbolState {
    /// Its name.
    pub symbol: Symbol,
    /// Its definition, if there is one. What is only named (by an intent, a list, a rule) has none.
    pub instrument: Option<Instrument>,
    /// Its mark.
    pub mark: Mark,
    /// Its marks since any position was opened.
    pub extremes: Extremes,
    /// Its bars by timeframe.
    pub bars: Vec<(Id, Bars)>,
    /// How often they changed. Only tells whether what was computed from them still holds; not kept.
    #[serde(skip)]
    pub bars_changed: u64,
    /// The mark moved since the last boundary.
    pub moved: bool,
    /// The accounts with something held or working in it, in no order. Rebuilt, not kept.
    #[serde(skip)]
    pub holders: Vec<u32>,
    /// Stops and targets. Rebuilt, not kept.
    #[serde(skip)]
    pub triggers: Triggers,
}

impl SymbolState {
    /// A symbol that is only named.
    #[must_use]
    pub fn named(symbol: Symbol) -> Self {
        Self {
            symbol,
            instrument: None,
            mark: Mark::default(),
            extremes: Extremes::default(),
            bars: Vec::new(),
            bars_changed: 0,
            moved: false,
            holders: Vec::new(),
            triggers: Triggers::default(),
        }
    }

    /// Money per point of price; 1 where it is not defined.
    #[must_use]
    pub fn multiplier(&self) -> Factor {
        self.instrument.map_or(Factor::ONE, |instrument| instrument.multiplier)
    }

    /// The sector by number; that of `UNKNOWN` where it is not defined.
    #[must_use]
    pub fn sector(&self) -> u32 {
        self.instrument.map_or(0, |instrument| instrument.sector)
    }
}
