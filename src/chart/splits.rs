//! Splits, and what they make of older bars.
//!
//! Invariant: bars are kept as they were said and restated when they are shown, so a split that the gate refuses after all leaves no
//! trace. What was in the log before a split is restated by it, what came later is not, as the gate does with its closes; a bar with
//! trades of both sides of a split stays as it is. Deliberately absent: dividends.

use std::collections::{BTreeMap, BTreeSet};

use ethnum::I256;

use crate::domain::{Millis, Qty, Symbol, div_half_even};
use crate::market::bars::split_price;

use super::bar::Bar;
use super::codec::{Malformed, Reader, Writer};

/// Each `from` units became `to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Split {
    offset: u64,
    at: Millis,
    from: Qty,
    to: Qty,
}

/// The splits of all symbols.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Splits {
    of: BTreeMap<Symbol, Vec<Split>>,
    /// Control records that the gate refused before we had read them.
    refused: BTreeSet<u64>,
}

impl Splits {
    /// An operator says that a symbol was split.
    pub fn split(&mut self, symbol: Symbol, offset: u64, at: Millis, (from, to): (Qty, Qty)) {
        if !self.refused.remove(&offset) && from.0 > 0 && to.0 > 0 {
            let splits = self.of.entry(symbol).or_default();
            splits.retain(|known| known.offset != offset);
            splits.push(Split { offset, at, from, to });
            splits.sort_by_key(|split| split.offset);
        }
    }

    /// The gate refused this record of `gate.control`; `read` is the next one that we shall read.
    pub fn refuse(&mut self, offset: u64, read: u64) {
        if offset >= read {
            self.refused.insert(offset);
            return;
        }
        self.of.values_mut().for_each(|splits| splits.retain(|split| split.offset != offset));
        self.of.retain(|_, splits| !splits.is_empty());
    }

    /// Records of `gate.control` below this have been read.
    pub fn forget_below(&mut self, read: u64) {
        self.refused = self.refused.split_off(&read);
    }

    /// Restates bars; one that cannot be stated in our numbers is left out.
    pub fn restate(&self, symbol: &Symbol, bars: &mut Vec<Bar>) {
        let Some(splits) = self.of.get(symbol) else { return };
        let restated = |bar: Bar| splits.iter().filter(|split| bar.logged < split.at).try_fold(bar, |bar, split| split.restate(bar));
        *bars = bars.drain(..).filter_map(restated).collect();
    }

    pub(super) fn write(&self, out: &mut Writer) {
        out.unsigned(self.of.len() as u64);
        for (symbol, splits) in &self.of {
            out.text(symbol.as_bytes());
            out.unsigned(splits.len() as u64);
            for split in splits {
                out.unsigned(split.offset);
                [split.at, split.from.0, split.to.0].into_iter().for_each(|number| out.signed(number));
            }
        }
        out.unsigned(self.refused.len() as u64);
        self.refused.iter().for_each(|offset| out.unsigned(*offset));
    }

    pub(super) fn read(text: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut found = Self::default();
        for _ in 0..text.length()? {
            let symbol = Symbol::parse(text.text()?).ok_or(Malformed)?;
            for _ in 0..text.length()? {
                let offset = text.unsigned()?;
                let (at, from, to) = (text.signed()?, Qty(text.signed()?), Qty(text.signed()?));
                found.of.entry(symbol).or_default().push(Split { offset, at, from, to });
            }
        }
        for _ in 0..text.length()? {
            found.refused.insert(text.unsigned()?);
        }
        Ok(found)
    }
}

impl Split {
    fn restate(self, bar: Bar) -> Option<Bar> {
        let price = |price| split_price(price, self.from.0, self.to.0);
        let volume = match bar.volume {
            Some(volume) => Some(div_half_even(I256::from(volume) * I256::from(self.to.0), I256::from(self.from.0))?),
            None => None,
        };
        Some(Bar { open: price(bar.open)?, high: price(bar.high)?, low: price(bar.low)?, close: price(bar.close)?, volume, ..bar })
    }
}
