//! Random numbers that are the same on every machine.
//!
//! Invariant: integers only; the numbers follow from the seed and the order of the calls alone.
//! Deliberately absent: any entropy.

/// Xoshiro256** (Blackman and Vigna 2018), seeded by SplitMix64.
#[derive(Clone, Debug)]
pub(super) struct Random {
    state: [u64; 4],
}

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        let mut x = seed;
        let state = [(); 4].map(|()| {
            x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        });
        Self { state }
    }

    pub(super) fn next(&mut self) -> u64 {
        let s = &mut self.state;
        let result = s[1].wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// A number from 0 to `n - 1`; 0 when `n` is 0.
    pub(super) fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(n)) >> 64) as u64
    }

    /// A place in a list of `len`, and 0 for an empty one.
    pub(super) fn place(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    /// A number from `low` to `high`, both included.
    pub(super) fn between(&mut self, low: i64, high: i64) -> i64 {
        let span = high.saturating_sub(low).max(0).unsigned_abs();
        low.saturating_add(self.below(span.saturating_add(1)) as i64)
    }

    /// True `n` times in a thousand.
    pub(super) fn per_mille(&mut self, n: u64) -> bool {
        self.below(1000) < n
    }

    /// A number around 0 of the given deviation: nearly normal, and never beyond 3.5 deviations.
    pub(super) fn normal(&mut self, deviation: i64) -> i64 {
        let bits = self.next();
        let sum: u64 = (0..4).map(|lane| (bits >> (16 * lane)) & 0xffff).sum();
        // The sum of four uniform 16-bit numbers has the mean 131070 and the deviation 37837.
        (sum as i64 - 131_070) * deviation / 37_837
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_the_published_generator() {
        // Reference C code (prng.di.unimi.it), SplitMix64 from 0: the first outputs of xoshiro256**.
        let mut random = Random::new(0);
        assert_eq!(random.state[0], 0xe220_a839_7b1d_cdaf);
        assert_eq!(random.next(), 0x99ec_5f36_cb75_f2b4);
        assert_eq!(random.next(), 0xbf6e_1f78_4956_452a);
    }

    #[test]
    fn stays_in_range_and_reaches_both_ends() {
        let mut random = Random::new(7);
        let seen: Vec<i64> = (0..1000).map(|_| random.between(-2, 2)).collect();
        assert_eq!((seen.iter().min(), seen.iter().max()), (Some(&-2), Some(&2)));
        assert_eq!(random.below(0), 0);
    }

    #[test]
    fn the_normal_numbers_have_their_deviation() {
        let mut random = Random::new(1);
        let squares: i64 = (0..10_000).map(|_| random.normal(1000).pow(2)).sum();
        assert!((980_000..1_020_000).contains(&(squares / 10_000)), "{squares}");
    }
}
