//! Price triggers: which watchers of a symbol must be looked at when its mark moves.
//!
//! A watcher waits until the mark is at or above its `rise`, or at or below its `fall`. Invariant:
//! [`Triggers::fire`] costs O(1) when nobody is due and O(log n) per watcher that is, and nothing is
//! allocated once the slabs have grown. Being looked at decides nothing: keys may be early, never late.

use hashbrown::HashTable;

/// Waits for nothing above.
pub const NEVER_RISE: i64 = i64::MAX;
/// Waits for nothing below.
pub const NEVER_FALL: i64 = i64::MIN;

#[derive(Clone, Copy, Debug)]
struct Watcher {
    account: u32,
    rule: u32,
    keys: [i64; 2],
    places: [u32; 2],
}

const RISE: usize = 0;
const FALL: usize = 1;

/// The watchers of one symbol.
#[derive(Clone, Debug, Default)]
pub struct Triggers {
    watchers: Vec<Watcher>,
    free: Vec<u32>,
    heaps: [Vec<u32>; 2],
    index: HashTable<u32>,
}

impl Triggers {
    /// Lets `rule` watch the position of `account`, or changes what it waits for.
    pub fn watch(&mut self, account: u32, rule: u32, rise: i64, fall: i64) {
        // Both heaps are min-heaps, so what waits below is kept negated.
        let keys = [rise, fall.checked_neg().unwrap_or(i64::MAX)];
        let slot = match self.find(account, rule) {
            Some(slot) => slot,
            None => self.insert(Watcher { account, rule, keys, places: [0, 0] }),
        };
        for heap in [RISE, FALL] {
            self.watchers[slot as usize].keys[heap] = keys[heap];
            let place = self.watchers[slot as usize].places[heap] as usize;
            self.sift_up(heap, place);
            self.sift_down(heap, self.watchers[slot as usize].places[heap] as usize);
        }
    }

    /// Forgets a watcher. Nothing happens if there is none.
    pub fn unwatch(&mut self, account: u32, rule: u32) {
        let Some(slot) = self.find(account, rule) else { return };
        for heap in [RISE, FALL] {
            self.remove_at(heap, self.watchers[slot as usize].places[heap] as usize);
        }
        let hash = hash_of(account, rule);
        if let Ok(entry) = self.index.find_entry(hash, |other| *other == slot) {
            entry.remove();
        }
        self.free.push(slot);
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Puts every watcher that `mark` reaches into `due`, as (account, rule), and makes it wait for
    /// nothing until it is told anew.
    pub fn fire(&mut self, mark: i64, due: &mut Vec<(u32, u32)>) {
        for (heap, reached) in [(RISE, mark), (FALL, mark.checked_neg().unwrap_or(i64::MAX))] {
            while let Some(top) = self.heaps[heap].first().copied() {
                let watcher = self.watchers[top as usize];
                if watcher.keys[heap] > reached || watcher.keys[heap] == i64::MAX {
                    break;
                }
                due.push((watcher.account, watcher.rule));
                self.watch(watcher.account, watcher.rule, NEVER_RISE, NEVER_FALL);
            }
        }
    }

    fn find(&self, account: u32, rule: u32) -> Option<u32> {
        let same = |slot: &u32| {
            let watcher = &self.watchers[*slot as usize];
            watcher.account == account && watcher.rule == rule
        };
        self.index.find(hash_of(account, rule), same).copied()
    }

    fn insert(&mut self, watcher: Watcher) -> u32 {
        let slot = match self.free.pop() {
            Some(slot) => {
                self.watchers[slot as usize] = watcher;
                slot
            }
            None => {
                self.watchers.push(watcher);
                u32::try_from(self.watchers.len() - 1).unwrap_or(u32::MAX)
            }
        };
        for heap in [RISE, FALL] {
            let place = u32::try_from(self.heaps[heap].len()).unwrap_or(u32::MAX);
            self.heaps[heap].push(slot);
            self.watchers[slot as usize].places[heap] = place;
        }
        let watchers = &self.watchers;
        let rehash = |slot: &u32| hash_of(watchers[*slot as usize].account, watchers[*slot as usize].rule);
        self.index.insert_unique(hash_of(watcher.account, watcher.rule), slot, rehash);
        slot
    }

    fn key(&self, heap: usize, place: usize) -> i64 {
        self.watchers[self.heaps[heap][place] as usize].keys[heap]
    }

    fn swap(&mut self, heap: usize, a: usize, b: usize) {
        self.heaps[heap].swap(a, b);
        for place in [a, b] {
            let slot = self.heaps[heap][place] as usize;
            self.watchers[slot].places[heap] = u32::try_from(place).unwrap_or(u32::MAX);
        }
    }

    fn sift_up(&mut self, heap: usize, mut place: usize) {
        while place > 0 {
            let parent = (place - 1) / 2;
            if self.key(heap, parent) <= self.key(heap, place) {
                return;
            }
            self.swap(heap, place, parent);
            place = parent;
        }
    }

    fn sift_down(&mut self, heap: usize, mut place: usize) {
        loop {
            let children = [2 * place + 1, 2 * place + 2];
            let len = self.heaps[heap].len();
            let Some(child) = children.into_iter().filter(|child| *child < len).min_by_key(|child| self.key(heap, *child)) else { return };
            if self.key(heap, place) <= self.key(heap, child) {
                return;
            }
            self.swap(heap, place, child);
            place = child;
        }
    }

    fn remove_at(&mut self, heap: usize, place: usize) {
        let last = self.heaps[heap].len() - 1;
        self.swap(heap, place, last);
        self.heaps[heap].pop();
        if place < last {
            self.sift_up(heap, place);
            self.sift_down(heap, place);
        }
    }
}

fn hash_of(account: u32, rule: u32) -> u64 {
    let mixed = (u64::from(account) << 32 | u64::from(rule)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed ^ (mixed >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fired(triggers: &mut Triggers, mark: i64) -> Vec<(u32, u32)> {
        let mut due = Vec::new();
        triggers.fire(mark, &mut due);
        due.sort_unstable();
        due
    }

    #[test]
    fn fires_what_the_mark_reaches_once() {
        let mut triggers = Triggers::default();
        triggers.watch(0, 0, 110, 90);
        triggers.watch(1, 0, NEVER_RISE, 95);
        triggers.watch(2, 0, 105, NEVER_FALL);
        assert_eq!(fired(&mut triggers, 100), []);
        assert_eq!(fired(&mut triggers, 95), [(1, 0)]);
        assert_eq!(fired(&mut triggers, 95), []);
        assert_eq!(fired(&mut triggers, 110), [(0, 0), (2, 0)]);
        triggers.watch(1, 0, NEVER_RISE, 95);
        triggers.unwatch(1, 0);
        assert_eq!(fired(&mut triggers, 1), []);
    }

    #[test]
    fn agrees_with_a_list_that_is_searched() {
        let mut triggers = Triggers::default();
        let mut list: Vec<Option<(i64, i64)>> = vec![None; 64];
        let mut state = 7_u64;
        let mut next = |n: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % n
        };
        for _ in 0..20_000 {
            let who = next(64) as u32;
            match next(4) {
                0 => {
                    triggers.unwatch(who, 1);
                    list[who as usize] = None;
                }
                1 => {
                    let mark = next(1000) as i64;
                    let reached = |keys: &Option<(i64, i64)>| keys.is_some_and(|(rise, fall)| mark >= rise || mark <= fall);
                    let expected: Vec<_> = (0..64).filter(|who| reached(&list[*who as usize])).map(|who| (who, 1)).collect();
                    assert_eq!(fired(&mut triggers, mark), expected);
                    for (who, _) in expected {
                        list[who as usize] = Some((NEVER_RISE, NEVER_FALL));
                    }
                }
                _ => {
                    let (rise, fall) = (500 + next(500) as i64, next(500) as i64);
                    triggers.watch(who, 1, rise, fall);
                    list[who as usize] = Some((rise, fall));
                }
            }
        }
    }
}
