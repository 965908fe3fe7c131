//! The instruments and their prices: walks in whole ticks around which quotes stand.
//!
//! Invariant: integers only; every price is a positive multiple of its tick, the bid below the ask.
//! Symbols of a sector move together in part, so that correlations have something to find.

use crate::domain::{Millis, UNITS_PER_ONE};

use super::random::Random;

/// Deviation of a day's return, in millionths.
const DAILY_PPM: i64 = 28_000;
/// How many sectors there are.
const SECTORS: [&str; 6] = ["TECH", "ENERGY", "FINANCE", "HEALTH", "INDEX", "CRYPTO"];

/// Symbol, sector, first price in cents, tick and lot in units, multiplier. Others are made up.
type Listing = (&'static str, usize, i64, i64, i64, i64);

const CENT: i64 = UNITS_PER_ONE / 100;
const KNOWN: [Listing; 20] = [
    ("AAPL", 0, 22_800, CENT, UNITS_PER_ONE, 1),
    ("MSFT", 0, 41_500, CENT, UNITS_PER_ONE, 1),
    ("XOM", 1, 10_900, CENT, UNITS_PER_ONE, 1),
    ("JPM", 2, 24_100, CENT, UNITS_PER_ONE, 1),
    ("NVDA", 0, 13_400, CENT, UNITS_PER_ONE, 1),
    ("BTC/USD", 5, 6_410_000, CENT, UNITS_PER_ONE / 10_000, 1),
    ("CVX", 1, 15_300, CENT, UNITS_PER_ONE, 1),
    ("ESM6", 4, 580_000, UNITS_PER_ONE / 4, UNITS_PER_ONE, 50),
    ("PFE", 3, 2_620, CENT, UNITS_PER_ONE * 10, 1),
    ("GS", 2, 51_700, CENT, UNITS_PER_ONE, 1),
    ("AMZN", 0, 19_800, CENT, UNITS_PER_ONE, 1),
    ("JNJ", 3, 15_200, CENT, UNITS_PER_ONE, 1),
    ("COP", 1, 9_700, CENT, UNITS_PER_ONE, 1),
    ("BAC", 2, 4_310, CENT, UNITS_PER_ONE, 1),
    ("GOOGL", 0, 17_300, CENT, UNITS_PER_ONE, 1),
    ("ETH/USD", 5, 242_000, CENT, UNITS_PER_ONE / 1000, 1),
    ("MRK", 3, 9_900, CENT, UNITS_PER_ONE, 1),
    ("SPY", 4, 57_900, CENT, UNITS_PER_ONE, 1),
    ("SLB", 1, 4_120, CENT, UNITS_PER_ONE, 1),
    ("META", 0, 58_200, CENT, UNITS_PER_ONE, 1),
];

/// One instrument.
#[derive(Debug)]
pub(super) struct Instrument {
    pub symbol: Box<str>,
    sector: usize,
    pub tick: i64,
    pub lot: i64,
    pub multiplier: i64,
    /// The price, finer than a tick.
    exact: i64,
    /// The level of its sector when it last moved.
    sector_seen: i64,
    pub bid: i64,
    pub ask: i64,
    /// When a price of it was last told.
    pub priced_at: Millis,
    pub day: Day,
    /// The working orders of it, oldest first.
    pub resting: Vec<u64>,
}

/// What a bar tells.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Day {
    pub open: i64,
    pub high: i64,
    pub low: i64,
    pub close: i64,
    pub volume: i64,
}

impl Instrument {
    pub(super) fn sector_name(&self) -> &'static str {
        SECTORS[self.sector]
    }

    /// The middle, as a multiple of the tick.
    pub(super) fn middle(&self) -> i64 {
        (self.exact / self.tick).max(10) * self.tick
    }

    /// Moves the price by millionths and sets the touch around it.
    fn move_by(&mut self, ppm: i64, random: &mut Random) {
        let moved = i128::from(self.exact) + i128::from(self.exact) * i128::from(ppm) / 1_000_000;
        let ceiling = 1_000_000 * UNITS_PER_ONE;
        self.exact = i64::try_from(moved).unwrap_or(ceiling).clamp(20 * self.tick, ceiling);
        let half = random.between(1, 2) * self.tick;
        (self.bid, self.ask) = (self.middle() - half, self.middle() + half);
    }

    /// Takes a traded price into the day.
    pub(super) fn traded(&mut self, price: i64, qty: i64) {
        if self.day.open == 0 {
            self.day = Day { open: price, high: price, low: price, close: price, volume: 0 };
        }
        let day = &mut self.day;
        (day.high, day.low, day.close) = (day.high.max(price), day.low.min(price), price);
        day.volume = day.volume.saturating_add(qty);
    }
}

/// All instruments.
#[derive(Debug)]
pub(super) struct Market {
    pub instruments: Vec<Instrument>,
    /// The levels of the sectors, in millionths.
    levels: [i64; SECTORS.len()],
    /// The root of how many symbols each has: each of them moves the level, together as much as one would.
    roots: [i64; SECTORS.len()],
    /// Deviation of the return from one price event of a symbol to its next, in millionths.
    step_ppm: i64,
}

impl Market {
    /// The first `count` instruments. `moves` is how often each one moves in a session.
    pub(super) fn new(count: usize, moves: u64, random: &mut Random) -> Self {
        let instruments: Vec<Instrument> = (0..count).map(|place| list(place, random)).collect();
        let root = moves.max(1).isqrt() as i64;
        let mut roots = [0; SECTORS.len()];
        for instrument in &instruments {
            roots[instrument.sector] += 1;
        }
        let roots = roots.map(|count: i64| count.isqrt().max(1));
        Self { instruments, levels: [0; SECTORS.len()], roots, step_ppm: (DAILY_PPM / root).clamp(30, DAILY_PPM) }
    }

    /// One step of a symbol's price; once in a thousand a jump.
    pub(super) fn step(&mut self, place: usize, random: &mut Random) {
        let jump = if random.per_mille(1) { random.normal(DAILY_PPM) } else { 0 };
        let deviation = self.step_ppm;
        self.walk(place, deviation, jump, random);
    }

    /// The move from one session to the next, and of one bar of history.
    pub(super) fn daily_move(&mut self, place: usize, random: &mut Random) {
        self.walk(place, DAILY_PPM, 0, random);
    }

    fn walk(&mut self, place: usize, deviation: i64, jump: i64, random: &mut Random) {
        let Some(instrument) = self.instruments.get_mut(place) else { return };
        let level = &mut self.levels[instrument.sector];
        *level += random.normal(deviation * 6 / 10 / self.roots[instrument.sector]);
        let together = *level - instrument.sector_seen;
        instrument.sector_seen = *level;
        let own = random.normal(deviation * 8 / 10) + jump;
        instrument.move_by((own + together).clamp(-300_000, 300_000), random);
    }
}

fn list(place: usize, random: &mut Random) -> Instrument {
    let made_up = || {
        let letters: String = [17_576, 676, 26, 1].iter().map(|power| char::from(b'A' + (place / power % 26) as u8)).collect();
        format!("{letters}.X").into_boxed_str()
    };
    let (symbol, sector, cents, tick, lot, multiplier) = match KNOWN.get(place) {
        Some(listing) => (listing.0.into(), listing.1, listing.2, listing.3, listing.4, listing.5),
        None => (made_up(), place % 4, random.between(500, 40_000), CENT, UNITS_PER_ONE, 1),
    };
    let mut instrument = Instrument {
        symbol,
        sector,
        tick,
        lot,
        multiplier,
        exact: cents * CENT,
        sector_seen: 0,
        bid: 0,
        ask: 0,
        priced_at: 0,
        day: Day::default(),
        resting: Vec::new(),
    };
    instrument.move_by(0, random);
    instrument
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_stay_positive_multiples_of_their_tick() {
        let mut random = Random::new(3);
        let mut market = Market::new(30, 100, &mut random);
        for i in 0..30_000 {
            market.step(i % 30, &mut random);
            let instrument = &market.instruments[i % 30];
            assert!(0 < instrument.bid && instrument.bid < instrument.ask);
            assert_eq!((instrument.bid % instrument.tick, instrument.ask % instrument.tick), (0, 0));
        }
    }

    #[test]
    fn every_symbol_has_its_own_name() {
        let market = Market::new(1000, 1, &mut Random::new(1));
        let mut names: Vec<_> = market.instruments.iter().map(|instrument| instrument.symbol.clone()).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 1000);
    }
}
