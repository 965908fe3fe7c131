//! The fold: which of the records of an entity counts, and which are of no use any more.
//!
//! Invariant: an entity is the first of its records with the highest version. A writer asks for the version after the one that it has
//! folded, so in the whole log versions have no gaps; where compaction took the older ones, the next counts all the same. What counts
//! is never tombstoned, and stands before every loser of its version; so whatever subset of the tombstoned records is gone, with or
//! without their tombstones, the last state is the same. (In between it may differ: read to the end before you believe it.)
//! An erased id is forgotten by a tombstone of its last record, which is asked for only when everything before it is tombstoned.

use std::collections::{BTreeMap, BTreeSet};

use crate::domain::Millis;

use super::{Change, Entity, FORGET_AFTER_MS, Key, Kind, UNDER_WAY_MS_MAX};

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The entity is now what it says.
    Accepted,
    /// Another one had the version, or a higher one, before it.
    Conflict {
        /// The version that counts.
        current: u64,
    },
    /// It is the record that counts already, a second time.
    Again,
    /// It was under way for longer than [`UNDER_WAY_MS_MAX`]: void.
    Late,
    /// A tombstone: what it names is no garbage any more, and no entity.
    Cleared,
}

/// An entity with the log's time of its record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) entity: Entity,
    ts: Millis,
}

/// Everything that counts of `gate.directory` up to an offset.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    pub(super) entities: BTreeMap<Kind, BTreeMap<String, Held>>,
    /// Records that are of no use any more and not tombstoned, with the log's time of the record that made them so.
    garbage: BTreeMap<Key, Millis>,
    /// Erased ids that will be forgotten, by the log's time of their erasure.
    erased: BTreeSet<(Millis, Key)>,
    living: usize,
    bytes: usize,
    next: u64,
}

impl Directory {
    /// Folds the record at `offset`; `ts` is the log's time of it.
    pub fn apply(&mut self, offset: u64, ts: Millis, change: Change) -> Outcome {
        self.next = offset + 1;
        match change {
            Change::State(entity) => self.state(ts, entity),
            Change::Tombstone(key) => self.tombstone(&key),
        }
    }

    /// Passes a record that is none of the directory's.
    pub fn pass(&mut self, offset: u64) {
        self.next = offset + 1;
    }

    fn state(&mut self, ts: Millis, entity: Entity) -> Outcome {
        let key = entity.key();
        if ts.saturating_sub(entity.at) > UNDER_WAY_MS_MAX {
            self.garbage.insert(key, ts);
            return Outcome::Late;
        }
        let held = self.held(entity.kind, &entity.id).map(|held| (held.entity.version, held.entity.nonce));
        match held {
            Some((version, nonce)) if (version, nonce) == (entity.version, entity.nonce) => return Outcome::Again,
            Some((current, _)) if entity.version <= current => {
                self.garbage.insert(key, ts);
                return Outcome::Conflict { current };
            }
            Some(_) | None => {}
        }
        if let Some(before) = self.take(entity.kind, &entity.id) {
            self.garbage.insert(before.entity.key(), ts);
        }
        self.put(ts, entity);
        Outcome::Accepted
    }

    fn tombstone(&mut self, key: &Key) -> Outcome {
        self.garbage.remove(key);
        let names_what_counts = |held: &Held| (held.entity.version, held.entity.nonce) == (key.version, key.nonce);
        if self.held(key.kind, &key.id).is_some_and(names_what_counts) {
            self.take(key.kind, &key.id);
        }
        Outcome::Cleared
    }

    fn held(&self, kind: Kind, id: &str) -> Option<&Held> {
        self.entities.get(&kind)?.get(id)
    }

    fn put(&mut self, ts: Millis, entity: Entity) {
        if !entity.is_erased() {
            self.living += 1;
        } else if entity.kind.is_forgotten() {
            self.erased.insert((ts, entity.key()));
        }
        self.bytes += size(&entity);
        self.entities.entry(entity.kind).or_default().insert(entity.id.clone(), Held { entity, ts });
    }

    fn take(&mut self, kind: Kind, id: &str) -> Option<Held> {
        let held = self.entities.get_mut(&kind)?.remove(id)?;
        if !held.entity.is_erased() {
            self.living -= 1;
        } else if kind.is_forgotten() {
            self.erased.remove(&(held.ts, held.entity.key()));
        }
        self.bytes -= size(&held.entity);
        Some(held)
    }

    /// An entity; `None` when there is none, or none any more.
    #[must_use]
    pub fn get(&self, kind: Kind, id: &str) -> Option<&Entity> {
        self.last(kind, id).filter(|entity| !entity.is_erased())
    }

    /// The last state of an entity, also of one that is erased.
    #[must_use]
    pub fn last(&self, kind: Kind, id: &str) -> Option<&Entity> {
        self.held(kind, id).map(|held| &held.entity)
    }

    /// The entities of a kind, by id.
    pub fn list(&self, kind: Kind) -> impl Iterator<Item = &Entity> {
        self.entities.get(&kind).into_iter().flat_map(BTreeMap::values).map(|held| &held.entity).filter(|entity| !entity.is_erased())
    }

    /// How many entities of a kind have ids that begin so.
    #[must_use]
    pub fn count_of(&self, kind: Kind, prefix: &str) -> usize {
        let from = self.entities.get(&kind).into_iter().flat_map(|ids| ids.range(prefix.to_owned()..));
        from.take_while(|(id, _)| id.starts_with(prefix)).filter(|(_, held)| !held.entity.is_erased()).count()
    }

    /// The last record of an erased id that is about to be forgotten, or is already elsewhere: it is tombstoned before the id is made
    /// anew, so that everyone begins at the same version.
    #[must_use]
    pub fn fading(&self, kind: Kind, id: &str, now: Millis) -> Option<Key> {
        let held = self.held(kind, id).filter(|held| kind.is_forgotten() && held.entity.is_erased())?;
        let key = held.entity.key();
        (now.saturating_sub(held.ts) > FORGET_AFTER_MS / 4 * 3 && !self.has_garbage(&key)).then_some(key)
    }

    /// Records to tombstone at `now`: what has been of no use for `settle` ms by the log's time, and erased ids to be forgotten.
    /// Those that `skip` names are left out.
    pub fn due<'a>(&'a self, now: Millis, settle: Millis, skip: &'a dyn Fn(&Key) -> bool) -> impl Iterator<Item = &'a Key> {
        let useless = self.garbage.iter().filter(move |(_, since)| now.saturating_sub(**since) >= settle).map(|(key, _)| key);
        let old = self.erased.iter().take_while(move |(ts, _)| now.saturating_sub(*ts) >= FORGET_AFTER_MS).map(|(_, key)| key);
        useless.chain(old.filter(|key| !self.has_garbage(key))).filter(move |key| !skip(key))
    }

    /// Whether records of a key's entity wait for their tombstones.
    fn has_garbage(&self, key: &Key) -> bool {
        let first = Key { version: 0, nonce: 0, ..key.clone() };
        self.garbage.range(first..).next().is_some_and(|(other, _)| (other.kind, &other.id) == (key.kind, &key.id))
    }

    /// Whether a record waits for its tombstone.
    #[must_use]
    pub fn is_garbage(&self, key: &Key) -> bool {
        self.garbage.contains_key(key)
    }

    /// How many records wait for their tombstones.
    #[must_use]
    pub fn garbage(&self) -> usize {
        self.garbage.len()
    }

    /// How many entities there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.living
    }

    /// Whether there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.living == 0
    }

    /// About how many bytes the entities have.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The next offset to fold.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Goes on from this offset: what is before it is gone.
    pub fn begin_at(&mut self, offset: u64) {
        self.next = self.next.max(offset);
    }
}

/// About what an entity takes.
fn size(entity: &Entity) -> usize {
    const OVERHEAD: usize = 256;
    entity.body.len() + 2 * entity.id.len() + entity.actor.len() + OVERHEAD
}
