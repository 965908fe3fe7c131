//! The fold, and its laws: one winner for each version, and the same end whatever compaction took.

use proptest::prelude::*;

use super::*;

const HOUR: Millis = 60 * 60 * 1_000;

fn entity(kind: Kind, id: &str, version: u64, nonce: u64, at: Millis) -> Entity {
    Entity { kind, id: id.into(), version, nonce, at, actor: "t".into(), body: format!("{{\"n\":{nonce}}}").into_bytes().into() }
}

fn user(version: u64, nonce: u64) -> Entity {
    entity(Kind::User, "bob", version, nonce, 0)
}

fn erased(entity: Entity) -> Entity {
    Entity { body: [].into(), ..entity }
}

/// Folds states and tombstones, all at once by the clock.
fn folded(changes: &[Change]) -> (Directory, Vec<Outcome>) {
    let mut directory = Directory::default();
    let outcomes = (0..).zip(changes).map(|(offset, change)| directory.apply(offset, 0, change.clone())).collect();
    (directory, outcomes)
}

fn due(directory: &Directory, now: Millis) -> Vec<Key> {
    directory.due(now, 0, &|_| false).cloned().collect()
}

/// What one can ask of a directory.
fn seen(directory: &Directory) -> Vec<Entity> {
    let last = |kind: Kind| directory.entities.get(&kind).into_iter().flat_map(|of| of.values()).map(|held| held.entity.clone());
    Kind::ALL.into_iter().flat_map(last).collect()
}

#[test]
fn the_first_record_of_a_version_counts_and_the_others_are_told_so() {
    let (a, b, c) = (user(1, 1), user(1, 2), user(2, 3));
    let (directory, outcomes) = folded(&[a.clone(), b.clone(), c.clone(), user(2, 4), a.clone()].map(Change::State));
    let conflict = |current| Outcome::Conflict { current };
    assert_eq!(outcomes, [Outcome::Accepted, conflict(1), Outcome::Accepted, conflict(2), conflict(2)]);
    assert_eq!(directory.get(Kind::User, "bob"), Some(&c));
    assert_eq!(due(&directory, 0), [a.key(), b.key(), user(2, 4).key()]);
    assert_eq!((directory.len(), directory.next(), directory.garbage()), (1, 5, 3));
}

#[test]
fn the_same_record_twice_is_one_and_is_not_garbage() {
    let (directory, outcomes) = folded(&[user(1, 1), user(1, 1)].map(Change::State));
    assert_eq!(outcomes, [Outcome::Accepted, Outcome::Again]);
    assert_eq!(due(&directory, 0), []);
}

#[test]
fn an_erased_id_keeps_its_version_so_that_no_old_record_comes_back() {
    let changes = [user(1, 1), erased(user(2, 2)), user(1, 3), user(2, 4)].map(Change::State);
    let (mut directory, _) = folded(&changes);
    assert_eq!((directory.get(Kind::User, "bob"), directory.len()), (None, 0));
    assert_eq!(directory.last(Kind::User, "bob").map(|last| last.version), Some(2));
    assert_eq!(directory.list(Kind::User).count(), 0);
    assert_eq!(directory.apply(4, 0, Change::State(user(3, 5))), Outcome::Accepted);
    assert_eq!(directory.get(Kind::User, "bob"), Some(&user(3, 5)));
}

#[test]
fn what_waits_for_its_tombstone_is_due_when_it_has_settled_and_no_more_when_it_has_one() {
    let mut directory = Directory::default();
    directory.apply(0, 0, Change::State(user(1, 1)));
    directory.apply(1, 500, Change::State(user(2, 2)));
    assert_eq!(directory.due(1_499, 1_000, &|_| false).count(), 0);
    assert_eq!(directory.due(1_500, 1_000, &|_| false).collect::<Vec<_>>(), [&user(1, 1).key()]);
    assert_eq!(directory.due(1_500, 1_000, &|key| *key == user(1, 1).key()).count(), 0);
    assert_eq!(directory.apply(2, 600, Change::Tombstone(user(1, 1).key())), Outcome::Cleared);
    assert_eq!(due(&directory, Millis::MAX / 2), []);
    assert_eq!(directory.get(Kind::User, "bob"), Some(&user(2, 2)));
}

#[test]
fn erased_ids_that_come_and_go_are_forgotten_and_the_others_never() {
    for (kind, is_forgotten) in Kind::ALL.map(|kind| (kind, kind.is_forgotten())) {
        let mut directory = Directory::default();
        let last = erased(entity(kind, "x", 2, 2, 0));
        directory.apply(0, 0, Change::State(entity(kind, "x", 1, 1, 0)));
        directory.apply(1, 0, Change::State(last.clone()));
        let first = entity(kind, "x", 1, 1, 0).key();
        assert_eq!(due(&directory, 10 * FORGET_AFTER_MS), std::slice::from_ref(&first), "not before all that it hides is gone");
        directory.apply(2, 0, Change::Tombstone(first));
        assert_eq!(due(&directory, FORGET_AFTER_MS - 1), []);
        assert_eq!(due(&directory, FORGET_AFTER_MS).is_empty(), !is_forgotten, "{kind}");
        assert_eq!(directory.fading(kind, "x", FORGET_AFTER_MS - HOUR).is_some(), is_forgotten);
        assert_eq!(directory.fading(kind, "x", HOUR), None);
        if is_forgotten {
            directory.apply(3, 0, Change::Tombstone(last.key()));
            assert_eq!((directory.last(kind, "x"), directory.bytes()), (None, 0));
        }
    }
}

#[test]
fn a_record_that_was_under_way_for_a_day_is_void_and_garbage() {
    let mut directory = Directory::default();
    assert_eq!(directory.apply(0, UNDER_WAY_MS_MAX + 1, Change::State(user(1, 1))), Outcome::Late);
    assert_eq!((directory.last(Kind::User, "bob"), due(&directory, UNDER_WAY_MS_MAX + 1)), (None, vec![user(1, 1).key()]));
    assert_eq!(directory.apply(1, UNDER_WAY_MS_MAX, Change::State(user(1, 2))), Outcome::Accepted);
}

#[test]
fn every_kind_has_a_name_of_its_own_and_secrets_are_not_printed() {
    for kind in Kind::ALL {
        assert_eq!(Kind::parse(kind.as_str()), Some(kind));
    }
    assert_eq!(Kind::parse("users"), None);
    assert!(!format!("{:?}", Change::State(user(1, 7))).contains("{\"n\""));
}

/// What happens next.
#[derive(Clone, Debug)]
enum Step {
    /// A writer reads some of what it has not read.
    Read { writer: usize, records: usize },
    /// A writer writes from what it has read; the record lands after some others.
    Write { writer: usize, id: usize, erase: bool, kind: Kind, after: usize },
    /// A record that is under way lands.
    Land { which: usize },
    /// A writer tombstones what is due.
    Sweep { writer: usize, most: usize },
    /// Time passes.
    Wait { ms: Millis },
}

fn step(kinds: &'static [Kind]) -> impl Strategy<Value = Step> {
    let kind = proptest::sample::select(kinds);
    prop_oneof![
        3 => (0..3_usize, 0..8_usize).prop_map(|(writer, records)| Step::Read { writer, records }),
        6 => (0..3_usize, 0..2_usize, proptest::bool::weighted(0.2), kind, 0..3_usize)
            .prop_map(|(writer, id, erase, kind, after)| Step::Write { writer, id, erase, kind, after }),
        3 => (0..4_usize).prop_map(|which| Step::Land { which }),
        2 => (0..3_usize, 1..5_usize).prop_map(|(writer, most)| Step::Sweep { writer, most }),
        2 => prop_oneof![0..1_000_i64, 0..30 * HOUR].prop_map(|ms| Step::Wait { ms }),
    ]
}

/// A log, three writers that read it when they like, and what is under way.
#[derive(Default)]
struct World {
    log: Vec<(Millis, Change)>,
    views: [Directory; 3],
    under_way: Vec<Entity>,
    now: Millis,
    nonce: u64,
}

impl World {
    fn read(&mut self, writer: usize, records: usize) {
        let view = &mut self.views[writer];
        for _ in 0..records {
            let offset = view.next();
            let Some((ts, change)) = self.log.get(usize::try_from(offset).unwrap()) else { return };
            view.apply(offset, *ts, change.clone());
        }
    }

    /// Nobody acts on what it has not looked at for an hour.
    fn look(&mut self, writer: usize) {
        let old = self.log.iter().filter(|(ts, _)| *ts <= self.now - HOUR).count();
        let behind = old.saturating_sub(usize::try_from(self.views[writer].next()).unwrap());
        self.read(writer, behind);
    }

    fn act(&mut self, step: &Step) {
        self.now += 1;
        match *step {
            Step::Read { writer, records } => self.read(writer, records),
            Step::Write { writer, id, erase, kind, after } => {
                self.look(writer);
                let id = ["a", "b"][id];
                let last = self.views[writer].last(kind, id);
                if erase && last.is_none_or(Entity::is_erased) || self.views[writer].fading(kind, id, self.now).is_some() {
                    return;
                }
                self.nonce += 1;
                let made = entity(kind, id, last.map_or(0, |last| last.version) + 1, self.nonce, self.now);
                let made = if erase { erased(made) } else { made };
                match after {
                    0 => self.log.push((self.now, Change::State(made))),
                    _ => self.under_way.push(made),
                }
            }
            Step::Land { which } if which < self.under_way.len() => {
                let landed = self.under_way.remove(which);
                self.log.push((self.now, Change::State(landed)));
            }
            Step::Land { .. } => {}
            Step::Sweep { writer, most } => {
                self.look(writer);
                let keys: Vec<Key> = self.views[writer].due(self.now, 0, &|_| false).take(most).cloned().collect();
                self.log.extend(keys.into_iter().map(|key| (self.now, Change::Tombstone(key))));
            }
            Step::Wait { ms } => self.now += ms,
        }
    }
}

fn played(steps: &[Step]) -> World {
    let mut world = World::default();
    for step in steps {
        world.act(step);
    }
    world
}

/// Folds those of the records that are kept, at their offsets.
fn fold_of<'a>(log: impl Iterator<Item = (usize, &'a (Millis, Change))>) -> (Directory, Vec<Outcome>) {
    let mut directory = Directory::default();
    let outcomes = log.map(|(offset, (ts, change))| directory.apply(offset as u64, *ts, change.clone())).collect();
    (directory, outcomes)
}

/// Which records a compaction leaves: what has a later tombstone may be gone, and a tombstone when nothing of its key is before it.
fn compacted(log: &[(Millis, Change)], takes: &[u8]) -> Vec<bool> {
    let key = |change: &Change| match change {
        Change::State(entity) => entity.key(),
        Change::Tombstone(key) => key.clone(),
    };
    let wants = |place: usize| takes[place % takes.len()];
    let mut kept = vec![true; log.len()];
    for (place, (_, change)) in log.iter().enumerate() {
        let has_later = log[place + 1..].iter().any(|(_, later)| matches!(later, Change::Tombstone(of) if *of == key(change)));
        let is_free = match change {
            Change::State(_) => has_later,
            Change::Tombstone(of) => {
                !(0..place).any(|before| kept[before] && matches!(&log[before].1, Change::State(it) if it.key() == *of))
            }
        };
        let wanted = match change {
            Change::State(_) => wants(place) & 1 != 0,
            Change::Tombstone(_) => wants(place) & 2 != 0,
        };
        kept[place] = !(is_free && wanted);
    }
    kept
}

const LASTING: &[Kind] = &[Kind::User];
const ALL_SORTS: &[Kind] = &[Kind::User, Kind::Session];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn however_writers_interleave_each_version_has_one_winner_and_no_record_is_lost(steps in proptest::collection::vec(step(LASTING), 1..80)) {
        let world = played(&steps);
        let (directory, outcomes) = fold_of(world.log.iter().enumerate());
        for id in ["a", "b"] {
            let of = |wanted: fn(&Outcome) -> bool| -> Vec<u64> {
                let all = world.log.iter().zip(&outcomes);
                all.filter_map(|((_, change), outcome)| match change {
                    Change::State(entity) if entity.id == id && wanted(outcome) => Some(entity.version),
                    Change::State(_) | Change::Tombstone(_) => None,
                }).collect()
            };
            let won = of(|outcome| *outcome == Outcome::Accepted);
            prop_assert_eq!(&won, &(1..=won.len() as u64).collect::<Vec<_>>(), "versions without a gap, in order, once each");
            prop_assert_eq!(directory.last(Kind::User, id).map_or(0, |last| last.version), won.len() as u64);
            let all = of(|_| true).len();
            let told = of(|outcome| matches!(outcome, Outcome::Conflict { .. } | Outcome::Late)).len();
            prop_assert_eq!(all, won.len() + told);
        }
        // What counts is never due, and everything else is, or has its tombstone.
        let keys = due(&directory, world.now);
        let entombed = |key: &Key| world.log.iter().any(|(_, change)| matches!(change, Change::Tombstone(of) if of == key));
        for (_, change) in &world.log {
            let Change::State(entity) = change else { continue };
            let counts = directory.last(entity.kind, &entity.id).is_some_and(|last| last.key() == entity.key());
            prop_assert_eq!(counts, !keys.contains(&entity.key()) && !entombed(&entity.key()));
        }
    }

    #[test]
    fn whatever_compaction_took_the_end_is_the_same(
        steps in proptest::collection::vec(step(ALL_SORTS), 1..120),
        takes in proptest::collection::vec(any::<u8>(), 1..64),
    ) {
        let world = played(&steps);
        let (whole, _) = fold_of(world.log.iter().enumerate());
        for takes in [takes.as_slice(), &[1], &[3]] {
            let kept = compacted(&world.log, takes);
            let (left, _) = fold_of(world.log.iter().enumerate().filter(|(place, _)| kept[*place]));
            prop_assert_eq!(seen(&left), seen(&whole));
            prop_assert_eq!(left.len(), whole.len());
            prop_assert_eq!(left.bytes(), whole.bytes());
            // What one would tombstone next never counts in the other.
            for key in due(&left, world.now) {
                let last = whole.last(key.kind, &key.id);
                prop_assert!(last.is_none_or(|last| last.key() != key || last.is_erased()));
            }
        }
    }
}
