//! The highest and the lowest mark of a symbol since any earlier one, for trailing stops.
//!
//! Invariant: both lists are in ascending position, the highs strictly falling and the lows strictly
//! rising, so that the first entry from a position on is the extreme since it. A mark is pushed in
//! amortised constant time and asked about in logarithmic time. Deliberately absent: the marks
//! between the extremes, and the positions that ask.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::bars::split_price;
use crate::domain::Price;

/// An entry: a mark and its position among the marks of its symbol.
type Entry = (u64, Price);

/// The extremes of one symbol's marks.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Extremes {
    highs: VecDeque<Entry>,
    lows: VecDeque<Entry>,
    position: u64,
}

impl Extremes {
    /// Takes the next mark.
    pub fn push(&mut self, mark: Price) {
        while self.highs.back().is_some_and(|high| high.1 <= mark) {
            self.highs.pop_back();
        }
        self.highs.push_back((self.position, mark));
        while self.lows.back().is_some_and(|low| low.1 >= mark) {
            self.lows.pop_back();
        }
        self.lows.push_back((self.position, mark));
        self.position = self.position.wrapping_add(1);
    }

    /// The position of the next mark: what to remember in order to ask about the marks from now on.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The highest mark at `position` or later. `None` when there was none.
    #[must_use]
    pub fn high_since(&self, position: u64) -> Option<Price> {
        first_since(&self.highs, position).map(|high| high.1)
    }

    /// The lowest mark at `position` or later. `None` when there was none.
    #[must_use]
    pub fn low_since(&self, position: u64) -> Option<Price> {
        first_since(&self.lows, position).map(|low| low.1)
    }

    /// How many entries are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.highs.len() + self.lows.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.highs.is_empty() && self.lows.is_empty()
    }

    /// Drops what nobody asks about any more. `used` has the positions that are still asked about, in
    /// ascending order; besides these, only [`Extremes::position`] and later ones may be asked about
    /// from now on. At most two entries for each are left.
    pub fn compact(&mut self, used: &[u64]) {
        keep_answers(&mut self.highs, used);
        keep_answers(&mut self.lows, used);
    }

    /// Whether [`Extremes::scale`] would succeed. Compact first, or a mark that nobody asks about can refuse.
    #[must_use]
    pub fn can_scale(&self, from: i64, to: i64) -> bool {
        self.highs.iter().chain(&self.lows).all(|entry| split_price(entry.1, from, to).is_some())
    }

    /// Restates all marks after a split in which each `from` units became `to`, rounded half to even.
    /// False, and nothing changed, when one of them would be 0 or leave its type.
    pub fn scale(&mut self, from: i64, to: i64) -> bool {
        if !self.can_scale(from, to) {
            return false;
        }
        scale_entries(&mut self.highs, from, to);
        scale_entries(&mut self.lows, from, to);
        true
    }
}

fn first_since(entries: &VecDeque<Entry>, position: u64) -> Option<Entry> {
    let place = entries.partition_point(|entry| entry.0 < position);
    entries.get(place).copied()
}

/// Keeps the first entry at or after each of the used positions.
fn keep_answers(entries: &mut VecDeque<Entry>, used: &[u64]) {
    let mut asked = used.iter().copied().peekable();
    entries.retain(|entry| {
        let mut answers = false;
        while asked.next_if(|position| *position <= entry.0).is_some() {
            answers = true;
        }
        answers
    });
}

/// Rounding keeps the order but can make neighbours equal: the later one answers for both.
fn scale_entries(entries: &mut VecDeque<Entry>, from: i64, to: i64) {
    let mut kept = 0;
    for place in 0..entries.len() {
        let (position, mark) = entries[place];
        let scaled = (position, split_price(mark, from, to).unwrap_or(mark));
        if kept > 0 && entries[kept - 1].1 == scaled.1 {
            kept -= 1;
        }
        entries[kept] = scaled;
        kept += 1;
    }
    entries.truncate(kept);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(marks: &[i64]) -> Extremes {
        let mut extremes = Extremes::default();
        for mark in marks {
            extremes.push(Price(*mark));
        }
        extremes
    }

    #[test]
    fn vector_v23_the_peak_is_that_of_the_price() {
        let mut extremes = of(&[90]);
        let opened = extremes.position();
        assert_eq!(extremes.high_since(opened), None, "no mark yet");
        for (mark, peak) in [(100, 100), (120, 120), (118, 120), (114, 120)] {
            extremes.push(Price(mark));
            assert_eq!(extremes.high_since(opened), Some(Price(peak)));
        }
        assert_eq!(extremes.low_since(opened), Some(Price(100)));
        assert_eq!(extremes.low_since(0), Some(Price(90)));
        assert_eq!(extremes.low_since(opened + 1), Some(Price(114)));
    }

    #[test]
    fn a_walk_that_only_rises_or_falls_keeps_one_end_short() {
        let rising = of(&(1..=1000).collect::<Vec<_>>());
        assert_eq!((rising.highs.len(), rising.lows.len()), (1, 1000));
        let flat = of(&[5; 1000]);
        assert_eq!(flat.len(), 2);
    }

    #[test]
    fn a_split_merges_marks_that_become_equal() {
        let mut extremes = of(&[104, 103, 102, 101, 90]);
        assert!(extremes.scale(1, 100));
        assert_eq!(extremes.highs, [(4, Price(1))], "1.04, 1.03, 1.02, 1.01 and 0.9 are all 1");
        let mut refused = of(&[100, 1]);
        let before = refused.clone();
        assert!(!refused.scale(1, 100));
        assert_eq!(refused, before);
    }

    #[test]
    fn compacting_with_nobody_asking_leaves_nothing() {
        let mut extremes = of(&[5, 4, 3]);
        extremes.compact(&[extremes.position()]);
        assert!(extremes.is_empty());
        extremes.push(Price(1));
        assert_eq!((extremes.high_since(3), extremes.position()), (Some(Price(1)), 4));
    }

    #[test]
    fn survives_a_round_trip_of_its_content() {
        let extremes = of(&[3, 1, 2]);
        let text = serde_json::to_string(&extremes).unwrap();
        assert_eq!(serde_json::from_str::<Extremes>(&text).unwrap(), extremes);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push(i64),
        Open,
        Compact(u8),
        Scale(i64, i64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            12 => (1_i64..400).prop_map(Step::Push),
            3 => Just(Step::Open),
            2 => any::<u8>().prop_map(Step::Compact),
            1 => (1_i64..5, 1_i64..5).prop_map(|(from, to)| Step::Scale(from, to)),
        ];
        prop::collection::vec(step, 0..200)
    }

    /// The marks as a plain list, and the positions that are still asked about.
    #[derive(Default)]
    struct Naive {
        marks: Vec<Price>,
        asked: Vec<u64>,
    }

    fn take(step: &Step, extremes: &mut Extremes, naive: &mut Naive) {
        match step {
            Step::Push(mark) => {
                extremes.push(Price(*mark));
                naive.marks.push(Price(*mark));
            }
            Step::Open => naive.asked.push(extremes.position()),
            Step::Compact(mask) => {
                let mut n = 0_u32;
                naive.asked.retain(|_| {
                    n += 1;
                    mask & (1 << (n % 8)) != 0
                });
                extremes.compact(&naive.asked);
                assert!(extremes.len() <= 2 * naive.asked.len());
            }
            Step::Scale(from, to) => {
                let scaled: Option<Vec<_>> = naive.marks.iter().map(|mark| split_price(*mark, *from, *to)).collect();
                // Marks that nobody asks about can refuse a split of the plain list alone.
                if let Some(scaled) = scaled {
                    assert!(extremes.scale(*from, *to));
                    naive.marks = scaled;
                }
            }
        }
    }

    proptest! {
        #[test]
        fn answers_as_a_plain_list_of_marks_would(steps in steps()) {
            let (mut extremes, mut naive) = (Extremes::default(), Naive::default());
            for step in &steps {
                take(step, &mut extremes, &mut naive);
                prop_assert_eq!(extremes.position(), naive.marks.len() as u64);
                for position in &naive.asked {
                    let since = &naive.marks[*position as usize..];
                    prop_assert_eq!(extremes.high_since(*position), since.iter().max().copied());
                    prop_assert_eq!(extremes.low_since(*position), since.iter().min().copied());
                }
            }
        }
    }
}
