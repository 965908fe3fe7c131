//! The fold of the tape into bars: what was read, how far, and what came of it.
//!
//! Invariant: the bars shown are a function of the set of records read, not of the order in which partitions were read (`bar.rs`,
//! `series.rs`), except for which symbols find a place once there are more than may be. Deliberately absent: clocks, threads, and
//! quotes, which draw nothing.

use std::collections::BTreeMap;

use hashbrown::HashMap;

use crate::domain::{BarPrint, ControlEvent, Event, InputTopic, Millis, Print, Qty, Symbol, TradePrint};
use crate::log::{OutputTopic, StoredRecord, Topic};
use crate::wire;

use super::bar::{Bar, Origin, Stamp};
use super::series::{Chunk, Series, Taken};
use super::splits::Splits;
use super::timeframe::{Days, Interval, Timeframe};

/// The topics that charts are drawn from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Feed {
    /// `gate.control`, for splits.
    Control,
    /// `gate.dead-letter`, for splits that were refused.
    DeadLetter,
    /// `market.prices`
    Prices,
}

impl Feed {
    /// All of them, in the order in which they are read.
    pub const ALL: [Self; 3] = [Self::Control, Self::DeadLetter, Self::Prices];

    /// The topic.
    #[must_use]
    pub const fn topic(self) -> Topic {
        match self {
            Self::Control => Topic::Input(InputTopic::Control),
            Self::DeadLetter => Topic::Output(OutputTopic::DeadLetter),
            Self::Prices => Topic::Input(InputTopic::Prices),
        }
    }

    /// The feed of a topic.
    #[must_use]
    pub fn of(topic: Topic) -> Option<Self> {
        Self::ALL.into_iter().find(|feed| feed.topic() == topic)
    }
}

/// How far a partition was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// The next offset.
    pub next: u64,
    /// The last record read, and its hash: a topic that was made anew is noticed.
    pub last: Option<(u64, [u8; 16])>,
}

/// A record, decoded as far as charts need it.
#[derive(Clone, Copy, Debug)]
pub enum Piece {
    /// A trade or a published bar.
    Print(Print),
    /// A split.
    Split(Symbol, (Qty, Qty)),
    /// The gate refused this record of `gate.control`.
    Refusal(u64),
    /// Nothing to draw.
    Nothing,
    /// No record.
    Unreadable,
}

/// What became of records, for the metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Trades that were drawn.
    pub trades: u64,
    /// Published bars that were drawn.
    pub bars: u64,
    /// Older than what is kept.
    pub too_old: u64,
    /// Of one symbol too many.
    pub crowded: u64,
    /// A bar of a timeframe that charts do not have, or whose prices contradict each other, or a record that is none.
    pub ignored: u64,
}

/// Bounds of what is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Bars of each symbol and timeframe.
    pub bars_max: usize,
    /// Symbols.
    pub symbols_max: usize,
}

/// The bars of one symbol.
#[derive(Clone, Debug)]
pub struct SymbolBars {
    /// The symbol.
    pub symbol: Symbol,
    /// By [`Timeframe::place`].
    pub series: [Series; Timeframe::COUNT],
    /// The checksum of its entry in the cache.
    pub(super) checksum: u32,
}

impl SymbolBars {
    /// Whether the cache is behind.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        self.series.iter().any(Series::is_dirty)
    }
}

/// Where a chunk is.
#[derive(Clone, Copy, Debug)]
pub struct ChunkPlace {
    /// The symbol's number.
    pub symbol: u32,
    /// The timeframe.
    pub timeframe: Timeframe,
}

/// Fetches the bars of a chunk that is not in memory.
pub type LoadAt<'a, E> = &'a dyn Fn(ChunkPlace, &Chunk) -> Result<Vec<Bar>, E>;

/// The fold.
#[derive(Clone, Debug)]
pub struct Projection {
    pub(super) days: Days,
    pub(super) bounds: Bounds,
    pub(super) symbols: Vec<SymbolBars>,
    numbers: HashMap<Symbol, u32, foldhash::fast::RandomState>,
    pub(super) positions: BTreeMap<(Feed, u32), Position>,
    pub(super) splits: Splits,
    /// Of each timeframe, the interval of the last trade: the next one is mostly in it.
    recent: [Option<Interval>; Timeframe::COUNT],
}

impl Projection {
    /// Nothing read yet.
    #[must_use]
    pub fn new(days: Days, bounds: Bounds) -> Self {
        Self {
            days,
            bounds,
            symbols: Vec::new(),
            numbers: HashMap::default(),
            positions: BTreeMap::new(),
            splits: Splits::default(),
            recent: [None; Timeframe::COUNT],
        }
    }

    /// How far a partition was read.
    #[must_use]
    pub fn position(&self, feed: Feed, partition: u32) -> Position {
        self.positions.get(&(feed, partition)).copied().unwrap_or_default()
    }

    /// Skips what the log no longer has.
    pub fn skip_to(&mut self, feed: Feed, partition: u32, next: u64) {
        self.positions.insert((feed, partition), Position { next, last: None });
    }

    /// The number and the bars of a symbol.
    #[must_use]
    pub fn find(&self, symbol: &Symbol) -> Option<(u32, &SymbolBars)> {
        let number = *self.numbers.get(symbol)?;
        self.symbols.get(number as usize).map(|bars| (number, bars))
    }

    /// All symbols, in the order of their numbers.
    pub fn symbols(&self) -> impl Iterator<Item = (u32, &SymbolBars)> {
        (0..).zip(&self.symbols)
    }

    /// Bars that are kept.
    #[must_use]
    pub fn bars(&self) -> usize {
        self.symbols.iter().flat_map(|bars| &bars.series).map(Series::count).sum()
    }

    /// Chunks that wait to be saved.
    #[must_use]
    pub fn unsaved(&self) -> usize {
        self.symbols.iter().flat_map(|bars| &bars.series).map(Series::unsaved).sum()
    }

    /// Takes consecutive records of one partition, each with what [`decode`] made of it.
    ///
    /// # Errors
    /// A chunk cannot be loaded. The projection is then between two records and of no use any more.
    pub fn apply<E>(
        &mut self,
        (feed, partition): (Feed, u32),
        records: &[StoredRecord],
        pieces: &[Piece],
        load: LoadAt<'_, E>,
    ) -> Result<Tally, E> {
        let mut tally = Tally::default();
        for (record, piece) in records.iter().zip(pieces) {
            match *piece {
                Piece::Print(Print::Trade(trade)) => self.trade(&trade, partition, record, &mut tally, load)?,
                Piece::Print(Print::Bar(bar)) => self.bar(&bar, partition, record, &mut tally, load)?,
                Piece::Print(Print::Quote) | Piece::Nothing => {}
                Piece::Split(symbol, ratio) => self.splits.split(symbol, record.offset, record.ts, ratio),
                Piece::Refusal(offset) => self.splits.refuse(offset, self.position(Feed::Control, 0).next),
                Piece::Unreadable => tally.ignored += 1,
            }
        }
        if let Some(last) = records.last() {
            let position = Position { next: last.offset + 1, last: Some((last.offset, hash_of(last))) };
            self.positions.insert((feed, partition), position);
            if feed == Feed::Control {
                self.splits.forget_below(position.next);
            }
        }
        Ok(tally)
    }

    fn trade<E>(
        &mut self,
        trade: &TradePrint,
        partition: u32,
        record: &StoredRecord,
        tally: &mut Tally,
        load: LoadAt<'_, E>,
    ) -> Result<(), E> {
        let Some(number) = self.number_of(&trade.symbol) else {
            tally.crowded += 1;
            return Ok(());
        };
        let at = trade.ts.map_or(record.ts, |ts| ts.min(record.ts));
        let stamp = Stamp { at, partition, offset: record.offset };
        let mut drawn = false;
        for timeframe in Timeframe::ALL {
            if let Some(interval) = self.interval(timeframe, at) {
                let piece = Bar::of_trade(interval.start, trade.price, trade.size, stamp, record.ts);
                drawn |= self.take(number, timeframe, piece, load)? != Taken::TooOld;
            }
        }
        if drawn {
            tally.trades += 1;
        } else {
            tally.too_old += 1;
        }
        Ok(())
    }

    fn bar<E>(&mut self, print: &BarPrint, partition: u32, record: &StoredRecord, tally: &mut Tally, load: LoadAt<'_, E>) -> Result<(), E> {
        let stamp = Stamp { at: 0, partition, offset: record.offset };
        let Some((timeframe, piece)) = self.published(print, stamp, record.ts) else {
            tally.ignored += 1;
            return Ok(());
        };
        let Some(number) = self.number_of(&print.symbol) else {
            tally.crowded += 1;
            return Ok(());
        };
        match self.take(number, timeframe, piece, load)? {
            Taken::New | Taken::Joined => tally.bars += 1,
            Taken::TooOld => tally.too_old += 1,
        }
        Ok(())
    }

    /// A published bar as it is: what it leaves out follows from what it says. `None` when it is none of ours, or contradicts itself.
    fn published(&self, print: &BarPrint, stamp: Stamp, logged: Millis) -> Option<(Timeframe, Bar)> {
        let timeframe = Timeframe::of_feed(print.timeframe.as_str())?;
        let interval = self.days.interval_published(timeframe, print.open_time)?;
        let open = print.open.unwrap_or(print.close);
        let bar = Bar {
            start: interval.start,
            open,
            high: print.high.unwrap_or(open.max(print.close)),
            low: print.low.unwrap_or(open.min(print.close)),
            close: print.close,
            volume: print.volume,
            trades: 0,
            logged,
            origin: Origin::Published(stamp),
        };
        bar.is_sound().then_some((timeframe, bar))
    }

    fn take<E>(&mut self, number: u32, timeframe: Timeframe, piece: Bar, load: LoadAt<'_, E>) -> Result<Taken, E> {
        let bars_max = self.bounds.bars_max;
        let place = ChunkPlace { symbol: number, timeframe };
        match self.symbols.get_mut(number as usize) {
            Some(bars) => bars.series[timeframe.place()].take(piece, bars_max, &|chunk| load(place, chunk)),
            None => Ok(Taken::TooOld),
        }
    }

    fn interval(&mut self, timeframe: Timeframe, at: Millis) -> Option<Interval> {
        let recent = &mut self.recent[timeframe.place()];
        if !recent.is_some_and(|interval| interval.contains(at)) {
            *recent = self.days.interval(timeframe, at);
        }
        *recent
    }

    fn number_of(&mut self, symbol: &Symbol) -> Option<u32> {
        if let Some(number) = self.numbers.get(symbol) {
            return Some(*number);
        }
        if self.symbols.len() >= self.bounds.symbols_max {
            return None;
        }
        self.add(SymbolBars { symbol: *symbol, series: Default::default(), checksum: 0 })
    }

    /// Gives a symbol the next number; `None` when it has one.
    pub(super) fn add(&mut self, bars: SymbolBars) -> Option<u32> {
        let number = u32::try_from(self.symbols.len()).ok()?;
        if self.numbers.insert(bars.symbol, number).is_some() {
            return None;
        }
        self.symbols.push(bars);
        Some(number)
    }
}

/// What a record says to a chart.
#[must_use]
pub fn decode(feed: Feed, record: &StoredRecord) -> Piece {
    match feed {
        Feed::Prices => wire::decode_print(record.key.as_deref(), &record.payload).map_or(Piece::Unreadable, Piece::Print),
        Feed::Control => split_in(record).map_or(Piece::Nothing, |(symbol, ratio)| Piece::Split(symbol, ratio)),
        Feed::DeadLetter => refused_control(&record.payload).map_or(Piece::Nothing, Piece::Refusal),
    }
}

fn split_in(record: &StoredRecord) -> Option<(Symbol, (Qty, Qty))> {
    let Event::Control(control) = wire::decode(InputTopic::Control, record.key.as_deref(), &record.payload) else { return None };
    if let ControlEvent::Split { symbol, from, to } = *control { Some((symbol, (from, to))) } else { None }
}

/// The offset of the control record that a dead letter is about.
fn refused_control(payload: &[u8]) -> Option<u64> {
    let letter: serde_json::Value = serde_json::from_slice(payload).ok()?;
    let source = letter.get("source")?;
    let of_control = source.get("topic")?.as_str()? == InputTopic::Control.as_str();
    source.get("offset")?.as_u64().filter(|_| of_control)
}

/// What tells a record from another one at its offset.
#[must_use]
pub fn hash_of(record: &StoredRecord) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&record.ts.to_le_bytes());
    let key = record.key.as_deref().unwrap_or_default();
    hasher.update(&(key.len() as u64).to_le_bytes());
    hasher.update(key);
    hasher.update(&record.payload);
    let mut hash = [0; 16];
    hasher.finalize_xof().fill(&mut hash);
    hash
}
