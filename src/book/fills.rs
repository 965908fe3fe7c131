//! The fills that an account remembers, so that one can be taken back as if it had never been.
//!
//! Invariant: `before` of each fill that counts is the holding that the older ones gave, so the
//! position is `before` of the newest plus that fill, and forgetting the oldest costs nothing.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::account::SymbolIx;
use super::position::Holding;
use crate::domain::{ClientOrderId, ExecId, Factor, Millis, Money, Price, Side};

/// What a fill was counted against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Filled {
    /// The order of its id.
    Order,
    /// The command of its id.
    Command,
    /// Neither is known.
    Nothing,
}

/// One fill.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RememberedFill {
    /// Its id.
    pub exec_id: ExecId,
    /// The order or command.
    pub client_order_id: ClientOrderId,
    /// Which of the two it was counted against.
    pub of: Filled,
    /// The symbol.
    pub symbol: SymbolIx,
    /// The side.
    pub side: Side,
    /// The quantity.
    pub qty: i64,
    /// The price.
    pub price: Price,
    /// The fee.
    pub fee: Money,
    /// When it came.
    pub at: Millis,
    /// The holding before it.
    pub before: Holding,
    /// It was taken back.
    pub busted: bool,
    /// A split made it part of the position: it can be taken back no more.
    pub merged: bool,
}

/// The values of a fill that a correction replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FillValues {
    /// The quantity.
    pub qty: i64,
    /// The price.
    pub price: Price,
}

/// The fills of one account, the oldest first, numbered from the first that ever was.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FillMemory {
    fills: VecDeque<RememberedFill>,
    forgotten: u64,
}

impl FillMemory {
    /// Remembers a fill; returns its number.
    pub fn push(&mut self, fill: RememberedFill) -> u64 {
        self.fills.push_back(fill);
        self.forgotten + self.fills.len() as u64 - 1
    }

    /// The fill of a number.
    #[must_use]
    pub fn get(&self, number: u64) -> Option<&RememberedFill> {
        self.fills.get(usize::try_from(number.checked_sub(self.forgotten)?).ok()?)
    }

    /// All of them with their numbers.
    pub fn numbered(&self) -> impl Iterator<Item = (u64, &RememberedFill)> {
        (self.forgotten..).zip(&self.fills)
    }

    fn numbered_from(&self, number: u64) -> impl Iterator<Item = (u64, &RememberedFill)> {
        let from = usize::try_from(number.saturating_sub(self.forgotten)).unwrap_or(usize::MAX).min(self.fills.len());
        (number..).zip(self.fills.range(from..))
    }

    /// Forgets what is older than `horizon`. `forget` is told of each. Returns whether anything changed.
    pub fn expire(&mut self, horizon: Millis, mut forget: impl FnMut(u64, &RememberedFill)) -> bool {
        let before = self.forgotten;
        while self.fills.front().is_some_and(|fill| fill.at < horizon) {
            if let Some(fill) = self.fills.pop_front() {
                forget(self.forgotten, &fill);
            }
            self.forgotten += 1;
        }
        self.forgotten != before
    }

    /// The holding that the symbol's remaining fills give, in order, when the fill of `number` has
    /// `values`, or never was, and the price of the fill that opened it. `None` when a result leaves
    /// its type.
    #[must_use]
    pub fn holding_with(&self, number: u64, values: Option<FillValues>, multiplier: Factor) -> Option<(Holding, Option<Price>)> {
        let changed = self.get(number)?;
        let mut holding = changed.before;
        let mut opened = None;
        for (other, fill) in self.numbered_from(number).filter(|(_, fill)| fill.symbol == changed.symbol) {
            let values = if other == number { values } else { (!fill.busted).then_some(FillValues { qty: fill.qty, price: fill.price }) };
            let Some(values) = values else { continue };
            let before = holding.qty;
            holding = holding.after_fill(fill.side, values.qty, values.price, multiplier)?;
            if holding.qty != 0 && (before == 0 || (before > 0) != (holding.qty > 0)) {
                opened = Some(values.price);
            }
        }
        Some((holding, opened))
    }

    /// Takes a fill back (`None`) or gives it other values. The caller knows from
    /// [`FillMemory::holding_with`] that nothing leaves its type.
    pub fn change(&mut self, number: u64, values: Option<(FillValues, Money)>, multiplier: Factor) {
        let Some(changed) = self.get(number) else { return };
        let (symbol, mut holding) = (changed.symbol, changed.before);
        let from = usize::try_from(number - self.forgotten).unwrap_or(usize::MAX);
        for (place, fill) in self.fills.iter_mut().enumerate().skip(from).filter(|(_, fill)| fill.symbol == symbol) {
            if place == from {
                fill.busted = values.is_none();
                if let Some((values, fee)) = values {
                    (fill.qty, fill.price, fill.fee) = (values.qty, values.price, fee);
                }
            }
            fill.before = holding;
            if !fill.busted {
                holding = holding.after_fill(fill.side, fill.qty, fill.price, multiplier).unwrap_or(holding);
            }
        }
    }

    /// Makes the symbol's fills part of its position: a split.
    pub fn merge(&mut self, symbol: SymbolIx) {
        for fill in self.fills.iter_mut().filter(|fill| fill.symbol == symbol) {
            fill.merged = true;
        }
    }
}
