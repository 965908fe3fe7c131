//! The bars of one symbol and timeframe: chunks in order, of which the newest and the changed are in memory and the rest in the cache.
//!
//! Invariant: chunks and the bars in them are in ascending order without overlap. A chunk is dropped only when as many newer bars are
//! kept as the bound says, so the newest bars up to the bound are the same whatever order pieces came in; only those are ever shown.
//! Deliberately absent: where cold chunks are kept. Whoever asks brings a [`Load`].

use crate::domain::Millis;

use super::bar::Bar;
use super::codec::{Malformed, Reader, Writer};

/// The most bars of a chunk.
pub const CHUNK_BARS: usize = 64;

/// Fetches the bars of a chunk that is not in memory.
pub type Load<'a, E> = &'a dyn Fn(&Chunk) -> Result<Vec<Bar>, E>;

/// A run of bars.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// Its name in the series.
    pub number: u32,
    /// Where its first bar begins.
    pub first: Millis,
    /// How many bars it has.
    pub count: usize,
    /// The checksum of its bytes in the cache; of no meaning while it is dirty.
    pub checksum: u32,
    /// The bars, when they are in memory.
    bars: Option<Vec<Bar>>,
    /// It is not in the cache as it is here.
    dirty: bool,
}

impl Chunk {
    fn of_one(number: u32, bar: Bar) -> Self {
        Self { number, first: bar.start, count: 1, checksum: 0, bars: Some(vec![bar]), dirty: true }
    }

    fn of(number: u32, bars: Vec<Bar>) -> Self {
        Self { number, first: bars.first().map_or(0, |bar| bar.start), count: bars.len(), checksum: 0, bars: Some(bars), dirty: true }
    }

    /// The bars of a chunk that the cache does not have yet.
    pub(super) fn unsaved(&self) -> Option<&[Bar]> {
        self.bars.as_deref().filter(|_| self.dirty)
    }

    fn seen<E>(&self, load: Load<'_, E>, each: &mut impl FnMut(&[Bar])) -> Result<(), E> {
        match &self.bars {
            Some(bars) => each(bars),
            None => each(&load(self)?),
        }
        Ok(())
    }
}

/// What became of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It began a bar.
    New,
    /// It joined a bar.
    Joined,
    /// It is older than everything that a full series keeps.
    TooOld,
}

/// The bars.
#[derive(Clone, Debug, Default)]
pub struct Series {
    chunks: Vec<Chunk>,
    count: usize,
    dirty: usize,
    /// Chunks that the cache still has and the series has not.
    dropped: Vec<u32>,
}

impl Series {
    /// How many bars are kept; up to a chunk more than the bound.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.count
    }

    /// How many chunks wait to be saved.
    #[must_use]
    pub const fn unsaved(&self) -> usize {
        self.dirty
    }

    /// Whether the cache is behind.
    #[must_use]
    pub const fn is_dirty(&self) -> bool {
        self.dirty > 0 || !self.dropped.is_empty()
    }

    pub(super) fn chunks(&self) -> &[Chunk] {
        &self.chunks
    }

    pub(super) fn dropped(&self) -> &[u32] {
        &self.dropped
    }

    /// Lays a piece of a bar to what is there.
    ///
    /// # Errors
    /// The chunk that it belongs to cannot be loaded; nothing has changed.
    pub fn take<E>(&mut self, piece: Bar, bars_max: usize, load: Load<'_, E>) -> Result<Taken, E> {
        let Some(place) = self.place_of(piece.start) else {
            if self.count >= bars_max {
                return Ok(Taken::TooOld);
            }
            self.insert_first(piece, load)?;
            return Ok(Taken::New);
        };
        self.warm(place, load)?;
        let chunk = &mut self.chunks[place];
        let bars = chunk.bars.get_or_insert_default();
        self.dirty += usize::from(!chunk.dirty);
        chunk.dirty = true;
        let at = match bars.last() {
            Some(last) if last.start < piece.start => bars.len(),
            Some(_) | None => bars.partition_point(|bar| bar.start < piece.start),
        };
        if let Some(known) = bars.get_mut(at).filter(|bar| bar.start == piece.start) {
            *known = known.merge(piece);
            return Ok(Taken::Joined);
        }
        self.count += 1;
        if bars.len() < CHUNK_BARS {
            bars.insert(at, piece);
            chunk.count += 1;
        } else if at == bars.len() {
            self.insert_chunk(place + 1, vec![piece]);
        } else {
            bars.insert(at, piece);
            let upper = bars.split_off(CHUNK_BARS / 2);
            chunk.count = bars.len();
            self.insert_chunk(place + 1, upper);
        }
        self.drop_oldest(bars_max);
        Ok(Taken::New)
    }

    /// The last chunk that begins at or before `start`.
    fn place_of(&self, start: Millis) -> Option<usize> {
        match self.chunks.last() {
            Some(last) if last.first <= start => Some(self.chunks.len() - 1),
            Some(_) => self.chunks.partition_point(|chunk| chunk.first <= start).checked_sub(1),
            None => None,
        }
    }

    /// Takes a bar that is older than all others.
    fn insert_first<E>(&mut self, bar: Bar, load: Load<'_, E>) -> Result<(), E> {
        if self.chunks.first().is_none_or(|chunk| chunk.count >= CHUNK_BARS) {
            let number = self.next_number();
            self.chunks.insert(0, Chunk::of_one(number, bar));
            self.dirty += 1;
        } else {
            self.warm(0, load)?;
            let chunk = &mut self.chunks[0];
            chunk.bars.get_or_insert_default().insert(0, bar);
            chunk.first = bar.start;
            chunk.count += 1;
            self.dirty += usize::from(!chunk.dirty);
            chunk.dirty = true;
        }
        self.count += 1;
        Ok(())
    }

    fn insert_chunk(&mut self, place: usize, bars: Vec<Bar>) {
        let number = self.next_number();
        self.chunks.insert(place, Chunk::of(number, bars));
        self.dirty += 1;
    }

    fn next_number(&self) -> u32 {
        self.chunks.iter().map(|chunk| chunk.number).max().map_or(0, |number| number.wrapping_add(1))
    }

    fn drop_oldest(&mut self, bars_max: usize) {
        while let Some(oldest) = self.chunks.first()
            && self.chunks.len() > 1
            && self.count - oldest.count >= bars_max
        {
            self.count -= oldest.count;
            self.dirty -= usize::from(oldest.dirty);
            self.dropped.push(oldest.number);
            self.chunks.remove(0);
        }
    }

    fn warm<E>(&mut self, place: usize, load: Load<'_, E>) -> Result<(), E> {
        let chunk = &mut self.chunks[place];
        if chunk.bars.is_none() {
            chunk.bars = Some(load(chunk)?);
        }
        Ok(())
    }

    /// Shows the first `most` bars that begin in `[from, to)`, oldest first, of the newest `bars_max` ones.
    ///
    /// # Errors
    /// A chunk cannot be loaded.
    pub fn range<E>(&self, (from, to): (Millis, Millis), most: usize, bars_max: usize, load: Load<'_, E>) -> Result<Vec<Bar>, E> {
        let mut hidden = self.count.saturating_sub(bars_max);
        let mut found = Vec::new();
        for (place, chunk) in self.chunks.iter().enumerate() {
            let skip = hidden.min(chunk.count);
            hidden -= skip;
            let next = self.chunks.get(place + 1).map_or(Millis::MAX, |next| next.first);
            if next <= from || skip == chunk.count {
                continue;
            }
            if chunk.first >= to || found.len() >= most {
                break;
            }
            let mut gather = |bars: &[Bar]| found.extend(bars.iter().skip(skip).filter(|bar| bar.start >= from && bar.start < to));
            chunk.seen(load, &mut gather)?;
        }
        found.truncate(most);
        Ok(found)
    }

    /// The last `count` bars that begin before `to`, oldest first, of the newest `bars_max` ones.
    ///
    /// # Errors
    /// A chunk cannot be loaded.
    pub fn last_before<E>(&self, to: Millis, count: usize, bars_max: usize, load: Load<'_, E>) -> Result<Vec<Bar>, E> {
        let before = self.chunks.partition_point(|chunk| chunk.first < to);
        let (mut first, mut have) = (before, 0);
        // The last one may hold bars at and after `to`, so it is not counted on.
        while first > 0 && (have < count || first == before) {
            first -= 1;
            have += if first + 1 == before { 0 } else { self.chunks[first].count };
        }
        let from = self.chunks.get(first).map_or(to, |chunk| chunk.first);
        let mut found = self.range((from, to), usize::MAX, bars_max, load)?;
        found.drain(..found.len().saturating_sub(count));
        Ok(found)
    }

    /// The cache has everything now: cold chunks leave memory, the newest stays. `checksums` are those of the dirty ones, in order.
    pub(super) fn saved(&mut self, mut checksums: impl Iterator<Item = u32>) {
        let newest = self.chunks.len().saturating_sub(1);
        for (place, chunk) in self.chunks.iter_mut().enumerate() {
            let was_dirty = std::mem::take(&mut chunk.dirty);
            if was_dirty {
                chunk.checksum = checksums.next().unwrap_or_default();
            }
            if place != newest || !was_dirty {
                chunk.bars = None;
            }
        }
        self.dirty = 0;
        self.dropped.clear();
    }

    /// Writes where its chunks are; the dirty ones' checksums are those given, in order.
    pub(super) fn write(&self, mut checksums: impl Iterator<Item = u32>, out: &mut Writer) {
        out.unsigned(self.chunks.len() as u64);
        let mut before = 0;
        for chunk in &self.chunks {
            let checksum = if chunk.dirty { checksums.next().unwrap_or_default() } else { chunk.checksum };
            out.unsigned(u64::from(chunk.number));
            out.signed(chunk.first.wrapping_sub(before));
            out.unsigned(chunk.count as u64);
            out.unsigned(u64::from(checksum));
            before = chunk.first;
        }
    }

    /// Reads what [`Series::write`] wrote: all of it cold.
    pub(super) fn read(text: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut series = Self::default();
        let mut before = 0_i64;
        for place in 0..text.length()? {
            let number = text.small()?;
            let first = before.wrapping_add(text.signed()?);
            let (count, checksum) = (text.length()?, text.small()?);
            if count == 0 || count > CHUNK_BARS || (place > 0 && first <= before) {
                return Err(Malformed);
            }
            series.count += count;
            series.chunks.push(Chunk { number, first, count, checksum, bars: None, dirty: false });
            before = first;
        }
        Ok(series)
    }
}
