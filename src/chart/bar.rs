//! One bar, and what two pieces of the same interval are together.
//!
//! Invariant: [`Bar::merge`] gives the same in whatever order and grouping pieces come, so that partitions may be read in any order,
//! late trades find their place, and a coarse bar is the sum of its fine ones. The open is the earliest trade and the close the latest
//! by the trades' own time, then by their place in the log. A published bar wins over trades, and a later published one over an
//! earlier. Deliberately absent: floats.

use crate::domain::{Millis, Price};

use super::codec::{Malformed, Reader, Writer};

/// When and where a piece of a bar was said: the order in which pieces are laid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp {
    /// A trade's own time; of a published bar, 0, since there only the place in the log counts.
    pub at: Millis,
    /// The partition.
    pub partition: u32,
    /// The offset in it.
    pub offset: u64,
}

/// Where a bar comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// From trades.
    Trades {
        /// The earliest.
        first: Stamp,
        /// The latest.
        last: Stamp,
    },
    /// Somebody published it.
    Published(Stamp),
}

/// What happened to a price within one interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bar {
    /// Where the interval begins.
    pub start: Millis,
    /// The first price.
    pub open: Price,
    /// The highest price.
    pub high: Price,
    /// The lowest price.
    pub low: Price,
    /// The last price.
    pub close: Price,
    /// How much was traded, in units of 1e-8; `None` when nobody said.
    pub volume: Option<i128>,
    /// How many trades made it; 0 of a published one.
    pub trades: u64,
    /// The latest log time of what made it: a split after that restates it.
    pub logged: Millis,
    /// Where it comes from.
    pub origin: Origin,
}

impl Bar {
    /// The bar of a single trade.
    #[must_use]
    pub const fn of_trade(start: Millis, price: Price, size: Option<i128>, stamp: Stamp, logged: Millis) -> Self {
        let origin = Origin::Trades { first: stamp, last: stamp };
        Self { start, open: price, high: price, low: price, close: price, volume: size, trades: 1, logged, origin }
    }

    /// What this and another piece of the same interval are together.
    #[must_use]
    pub fn merge(self, other: Self) -> Self {
        match (self.origin, other.origin) {
            (Origin::Published(ours), Origin::Published(theirs)) => {
                if ours >= theirs {
                    self
                } else {
                    other
                }
            }
            (Origin::Published(_), Origin::Trades { .. }) => self,
            (Origin::Trades { .. }, Origin::Published(_)) => other,
            (Origin::Trades { first: f, last: l }, Origin::Trades { first, last }) => Self {
                start: self.start.min(other.start),
                open: if f <= first { self.open } else { other.open },
                high: self.high.max(other.high),
                low: self.low.min(other.low),
                close: if l >= last { self.close } else { other.close },
                volume: sum(self.volume, other.volume),
                trades: self.trades.saturating_add(other.trades),
                logged: self.logged.max(other.logged),
                origin: Origin::Trades { first: f.min(first), last: l.max(last) },
            },
        }
    }

    /// Whether no price of it is above its high or below its low.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.low <= self.open.min(self.close) && self.high >= self.open.max(self.close)
    }

    /// Writes it after a bar that began at `before`.
    pub(super) fn write(&self, before: Millis, out: &mut Writer) {
        out.signed(self.start.wrapping_sub(before));
        out.unsigned(self.volume.map_or(0, |_| 1) | if matches!(self.origin, Origin::Published(_)) { 2 } else { 0 });
        out.signed(self.close.0);
        for price in [self.open, self.high, self.low] {
            out.signed(price.0.wrapping_sub(self.close.0));
        }
        if let Some(volume) = self.volume {
            out.large(volume.unsigned_abs());
        }
        out.unsigned(self.trades);
        out.signed(self.logged.wrapping_sub(self.start));
        let mut stamp = |stamp: Stamp| {
            out.signed(stamp.at.wrapping_sub(self.start));
            out.unsigned(u64::from(stamp.partition));
            out.unsigned(stamp.offset);
        };
        match self.origin {
            Origin::Trades { first, last } => {
                stamp(first);
                stamp(last);
            }
            Origin::Published(at) => stamp(at),
        }
    }

    /// Reads what [`Bar::write`] wrote.
    pub(super) fn read(before: Millis, text: &mut Reader<'_>) -> Result<Self, Malformed> {
        let start = before.wrapping_add(text.signed()?);
        let flags = text.unsigned()?;
        let close = text.signed()?;
        let mut price = || Ok(Price(close.wrapping_add(text.signed()?)));
        let (open, high, low) = (price()?, price()?, price()?);
        let volume = if flags & 1 == 0 { None } else { Some(i128::try_from(text.large()?).map_err(|_| Malformed)?) };
        let trades = text.unsigned()?;
        let logged = start.wrapping_add(text.signed()?);
        let mut stamp = || {
            let at = start.wrapping_add(text.signed()?);
            let partition = u32::try_from(text.unsigned()?).map_err(|_| Malformed)?;
            Ok(Stamp { at, partition, offset: text.unsigned()? })
        };
        let origin = match flags {
            0 | 1 => Origin::Trades { first: stamp()?, last: stamp()? },
            2 | 3 => Origin::Published(stamp()?),
            _ => return Err(Malformed),
        };
        Ok(Self { start, open, high, low, close: Price(close), volume, trades, logged, origin })
    }
}

fn sum(a: Option<i128>, b: Option<i128>) -> Option<i128> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.saturating_add(b)),
        (known, None) | (None, known) => known,
    }
}

/// Bars in order, as bytes.
pub(super) fn encode_all(bars: &[Bar]) -> Vec<u8> {
    let mut out = Writer::default();
    let mut before = 0;
    for bar in bars {
        bar.write(before, &mut out);
        before = bar.start;
    }
    out.into_bytes()
}

/// The bars of [`encode_all`]: `count` of them, in order, and nothing after them.
pub(super) fn decode_all(bytes: &[u8], count: usize) -> Result<Vec<Bar>, Malformed> {
    let mut text = Reader::new(bytes);
    let mut bars: Vec<Bar> = Vec::with_capacity(count.min(bytes.len()));
    for _ in 0..count {
        let bar = Bar::read(bars.last().map_or(0, |bar| bar.start), &mut text)?;
        if bars.last().is_some_and(|last| last.start >= bar.start) {
            return Err(Malformed);
        }
        bars.push(bar);
    }
    if text.is_empty() { Ok(bars) } else { Err(Malformed) }
}
