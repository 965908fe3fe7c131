//! What the store keeps through damage, and what it never gives.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use super::store::{Generation, Store};
use super::write::Job;
use super::*;
use crate::domain::{AccountOpened, ControlEvent, Effects, Event, Id, InputTopic, Limits, Money, Record, Source};
use crate::engine::Standing;
use crate::gate::Gate;
use crate::wire::snapshot::{BlobRef, Stamp, checksum_of, state_hash};

const SHARD: u32 = 3;
type Book = Vec<Vec<u8>>;

fn open_store(dir: &Path) -> Result<Store, StoreError> {
    Store::open(dir, SHARD, 8 << 20)
}

fn stamp(n: u64) -> Stamp {
    Stamp { shard: SHARD, frame: n, head: [n as u8; 32] }
}

fn account(place: u32, turn: u64) -> Vec<u8> {
    let len = 40 + (u64::from(place) * 31 + turn * 17) % 90;
    (0..len).map(|i| (i + u64::from(place) + turn * 7) as u8).collect()
}

fn job(n: u64, book: &Book, touched: impl IntoIterator<Item = u32>, whole: bool) -> Job {
    let touched: BTreeMap<u32, Vec<u8>> = touched.into_iter().map(|place| (place, book[place as usize].clone())).collect();
    Job {
        stamp: stamp(n),
        standing: vec![n as u8],
        shared: format!("shared {n}").into_bytes(),
        accounts: book.len() as u32,
        touched,
        whole,
    }
}

fn whole(n: u64, book: &Book) -> Job {
    job(n, book, 0..book.len() as u32, true)
}

fn read(store: &Store, generation: &Generation) -> Result<(u64, Book), StoreError> {
    let shared = store.shared(&generation.manifest)?.1;
    let book = load::accounts(store, &generation.manifest, |_, bytes| Ok(bytes.to_vec()))?.accounts;
    assert_eq!(shared, format!("shared {}", generation.stamp.frame).into_bytes());
    Ok((generation.stamp.frame, book))
}

fn newest(store: &Store) -> (u64, Book) {
    read(store, store.generations().last().unwrap()).unwrap()
}

/// Writes turns of a book that grows and changes, incrementally; gives the book after each turn.
fn turns(store: &mut Store, count: u64) -> Vec<Book> {
    let mut book: Book = Vec::new();
    let mut books = Vec::new();
    for turn in 1..=count {
        let mut touched: Vec<u32> =
            (0..book.len() as u32).filter(|place| (u64::from(*place) * 2_654_435_761 + turn * 97) % 23 == 0).collect();
        touched.iter().for_each(|place| book[*place as usize] = account(*place, turn));
        for _ in 0..turn * 13 % 150 {
            touched.push(book.len() as u32);
            book.push(account(book.len() as u32, turn));
        }
        store.write(&job(turn, &book, touched, turn == 1)).unwrap();
        books.push(book.clone());
    }
    books
}

#[test]
fn gives_back_what_was_written_after_it_was_closed() {
    let dir = tempfile::tempdir().unwrap();
    let book: Book = (0..1_000).map(|place| account(place, 0)).collect();
    open_store(dir.path()).unwrap().write(&whole(7, &book)).unwrap();
    let store = open_store(dir.path()).unwrap();
    assert_eq!(newest(&store), (7, book));
    assert_eq!(store.generations().last().unwrap().manifest.standing, [7]);
    assert_eq!(store.generations().last().unwrap().stamp, stamp(7));
}

#[test]
fn increments_add_up_to_the_whole_and_two_generations_stay() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let books = turns(&mut open_store(dir.path()).unwrap(), 25);
    let store = open_store(dir.path()).unwrap();
    let kept: Vec<(u64, Book)> = store.generations().iter().map(|generation| read(&store, generation).unwrap()).collect();
    assert_eq!(kept, [(24, books[23].clone()), (25, books[24].clone())]);
    let mut full = open_store(other.path()).unwrap();
    full.write(&whole(25, &books[24])).unwrap();
    assert_eq!(store.generations()[1].manifest.accounts_hash, full.generations()[0].manifest.accounts_hash);
}

#[test]
fn an_increment_costs_what_was_touched() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open_store(dir.path()).unwrap();
    let mut book: Book = (0..20_000).map(|place| account(place, 0)).collect();
    let all = store.write(&whole(1, &book)).unwrap();
    book[777] = account(777, 9);
    let one = store.write(&job(2, &book, [777], false)).unwrap();
    assert!(one * 50 < all, "{one} bytes for one account, {all} for all");
    assert_eq!(newest(&store), (2, book));
}

#[test]
fn a_whole_snapshot_may_have_fewer_accounts_than_the_one_before() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open_store(dir.path()).unwrap();
    for (n, len) in [(1, 500), (2, 100), (3, 70), (4, 0), (5, 3)] {
        let book: Book = (0..len).map(|place| account(place, n)).collect();
        store.write(&whole(n, &book)).unwrap();
        assert_eq!(newest(&store), (n, book));
    }
    assert_eq!(keys(&store, b"g").len(), 1, "retired groups are gone");
}

#[test]
fn what_is_stored_is_what_the_manifests_name_also_after_one_was_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open_store(dir.path()).unwrap();
    let mut books = turns(&mut store, 12);
    store.drop_newest().unwrap();
    assert_eq!(newest(&store), (11, books[10].clone()));
    let book = &mut books[10];
    book[3] = account(3, 77);
    store.write(&job(50, book, [3], false)).unwrap();
    assert_eq!(newest(&store), (50, book.clone()));
    let manifests: Vec<_> = store.generations().iter().map(|generation| &generation.manifest).collect();
    let blobs = |of: fn(&crate::wire::snapshot::Manifest) -> &Vec<BlobRef>| {
        let named: std::collections::BTreeSet<_> =
            manifests.iter().flat_map(|manifest| of(manifest).iter().map(|blob| (blob.part, blob.number))).collect();
        named.len()
    };
    assert_eq!(keys(&store, b"g").len(), blobs(|manifest| &manifest.groups));
    assert_eq!(keys(&store, b"d").len(), blobs(|manifest| &manifest.deltas));
    assert_eq!((keys(&store, b"s").len(), keys(&store, b"m").len()), (2, 2));
}

#[test]
fn deltas_are_folded_into_the_groups_before_they_outgrow_them() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open_store(dir.path()).unwrap();
    let mut book: Book = (0..5_000).map(|place| account(place, 0)).collect();
    let all = store.write(&whole(1, &book)).unwrap();
    let (mut written, mut folds, mut deltas) = (0, 0, 0);
    for turn in 2..200 {
        let place = (turn * 37 % 5_000) as u32;
        let touched = [place, 4_999 - place, (place + 2_500) % 5_000];
        touched.iter().for_each(|place| book[*place as usize] = account(*place, turn));
        book.push(account(book.len() as u32, turn));
        let last = book.len() as u32 - 1;
        written += store.write(&job(turn, &book, touched.into_iter().chain([last]), false)).unwrap();
        let manifest = &store.generations().last().unwrap().manifest;
        folds += usize::from(manifest.deltas.is_empty());
        deltas = deltas.max(manifest.deltas.len());
    }
    assert!(folds >= 1 && deltas > 20, "{folds} folds, {deltas} deltas at most");
    assert!(written < 3 * all, "{written} bytes for 800 touched accounts, {all} for all");
    assert_eq!(newest(&store), (199, book));
}

#[test]
fn the_folder_does_not_grow_with_the_number_of_snapshots() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open_store(dir.path()).unwrap();
    let size = || folder_bytes(dir.path());
    let mut sizes = Vec::new();
    for n in 1..=40 {
        let book: Book = (0..12_000).map(|place| account(place, n)).collect();
        store.write(&whole(n, &book)).unwrap();
        sizes.push(size());
    }
    assert!(sizes[39] < sizes[14] * 2, "{sizes:?}");
}

fn folder_bytes(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).unwrap().flatten();
    let size = |path: std::path::PathBuf| if path.is_dir() { folder_bytes(&path) } else { fs::metadata(path).map_or(0, |it| it.len()) };
    entries.map(|entry| size(entry.path())).sum()
}

#[test]
fn refuses_an_increment_that_leaves_a_hole() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open_store(dir.path()).unwrap();
    let book: Book = (0..10).map(|place| account(place, 0)).collect();
    store.write(&whole(1, &book[..5].to_vec())).unwrap();
    assert!(matches!(store.write(&job(2, &book, [6], false)), Err(StoreError::Hole { place: 6, count: 5 })));
    assert!(matches!(store.write(&job(2, &book, [5], false)), Err(StoreError::Hole { place: 10, count: 6 })));
    assert_eq!(newest(&store), (1, book[..5].to_vec()));
}

fn keys(store: &Store, prefix: &[u8]) -> Vec<Vec<u8>> {
    store.db().scan_prefix(prefix).keys().map(|key| key.unwrap().to_vec()).collect()
}

#[test]
fn what_a_cut_off_write_left_is_swept_when_the_store_opens_again() {
    let dir = tempfile::tempdir().unwrap();
    let books = turns(&mut open_store(dir.path()).unwrap(), 6);
    {
        let store = open_store(dir.path()).unwrap();
        store.db().insert(b"u", &[]).unwrap();
        store.db().insert([b"g".as_slice(), &[0; 4], &[0, 0, 0, 0, 0, 0, 0, 99]].concat(), b"torn").unwrap();
        store.db().insert([b"s".as_slice(), &[9; 8]].concat(), b"torn").unwrap();
    }
    let store = open_store(dir.path()).unwrap();
    assert_eq!(newest(&store), (6, books[5].clone()));
    assert!(!keys(&store, b"g").iter().any(|key| key.last() == Some(&99)));
    assert_eq!((keys(&store, b"s").len(), keys(&store, b"u").len()), (2, 0));
}

#[test]
fn damage_to_any_stored_value_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    {
        let mut store = open_store(dir.path()).unwrap();
        let book = turns(&mut store, 9).pop().unwrap();
        store.write(&job(10, &book, [0, 3], false)).unwrap();
    }
    let all: Vec<Vec<u8>> = keys(&open_store(dir.path()).unwrap(), b"");
    let kinds: std::collections::BTreeSet<u8> = all.iter().map(|key| key[0]).collect();
    assert_eq!(kinds, [b'd', b'g', b'm', b's'].into(), "the damage reaches every kind of blob");
    for key in all {
        let copy = tempfile::tempdir().unwrap();
        copy_folder(dir.path(), copy.path());
        {
            let store = open_store(copy.path()).unwrap();
            let mut value = store.db().get(&key).unwrap().unwrap().to_vec();
            let middle = value.len() / 2;
            value[middle] ^= 1;
            store.db().insert(&key, value).unwrap();
        }
        let mut store = open_store(copy.path()).unwrap();
        let doubtful = store.take_doubt().is_some();
        let reads: Vec<bool> = store.generations().iter().map(|generation| read(&store, generation).is_ok()).collect();
        assert!(doubtful || reads.contains(&false), "key {key:?} changed without a word");
    }
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            // A file may vanish between the listing and the copy when its owner is at work.
            let _ = fs::copy(entry.path(), target);
        }
    }
}

/// Every snapshot that a folder still gives is one of `books`, by number; gives how many are whole.
fn only_what_was_written(dir: &Path, books: &[Book]) -> usize {
    let found = aside::guarded(|| {
        let store = open_store(dir)?;
        Ok(store.generations().iter().filter_map(|generation| read(&store, generation).ok()).collect::<Vec<_>>())
    });
    let found = found.unwrap_or_default();
    for (n, book) in &found {
        assert!(book == &books[*n as usize - 1], "generation {n} is not what was written");
    }
    found.len()
}

#[test]
fn a_flipped_bit_anywhere_in_the_files_gives_nothing_that_was_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let mut books = vec![(0..2_000).map(|place| account(place, 0)).collect::<Book>()];
    books.push(books[0].iter().enumerate().map(|(place, old)| if place < 64 { account(place as u32, 1) } else { old.clone() }).collect());
    {
        let mut store = open_store(dir.path()).unwrap();
        store.write(&whole(1, &books[0])).unwrap();
        store.write(&job(2, &books[1], 0..64, false)).unwrap();
    }
    let file = dir.path().join("db");
    let bytes = fs::read(&file).unwrap();
    let used: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
    let control = tempfile::tempdir().unwrap();
    copy_folder(dir.path(), control.path());
    assert_eq!(only_what_was_written(control.path(), &books), GENERATIONS, "an undamaged copy is whole");
    let mut lost = 0;
    for step in 0..150 {
        let copy = tempfile::tempdir().unwrap();
        copy_folder(dir.path(), copy.path());
        let mut flipped = bytes.clone();
        flipped[used[used.len() * step / 150]] ^= 1 << (step % 8);
        fs::write(copy.path().join("db"), flipped).unwrap();
        lost += usize::from(only_what_was_written(copy.path(), &books) < GENERATIONS);
    }
    eprintln!("{lost} of 150 flips were felt");
    assert!(lost > 20, "only {lost} of 150 flips were felt: the test does not reach the data");
}

#[test]
fn a_truncated_file_gives_nothing_that_was_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let books = turns(&mut open_store(dir.path()).unwrap(), 8);
    let bytes = fs::read(dir.path().join("db")).unwrap();
    let mut lost = 0;
    for step in 0..40 {
        let copy = tempfile::tempdir().unwrap();
        copy_folder(dir.path(), copy.path());
        fs::write(copy.path().join("db"), &bytes[..bytes.len() * step / 40]).unwrap();
        lost += usize::from(only_what_was_written(copy.path(), &books) < GENERATIONS);
    }
    assert!(lost > 0, "no cut was felt");
}

#[test]
fn a_folder_copied_while_it_is_written_gives_nothing_that_was_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let over = AtomicBool::new(false);
    let (books, copies) = std::thread::scope(|scope| {
        let writing = scope.spawn(|| {
            let books = turns(&mut open_store(dir.path()).unwrap(), 120);
            over.store(true, Ordering::SeqCst);
            books
        });
        let mut copies = Vec::new();
        while !over.load(Ordering::SeqCst) {
            let copy = tempfile::tempdir().unwrap();
            copy_folder(dir.path(), copy.path());
            copies.push(copy);
            std::thread::sleep(Duration::from_millis(25));
        }
        (writing.join().unwrap(), copies)
    });
    let whole: usize = copies.iter().map(|copy| only_what_was_written(copy.path(), &books)).sum();
    eprintln!("{} copies, {whole} whole generations in them", copies.len());
    assert!(copies.len() > 3, "{} copies", copies.len());
}

fn gate(accounts: u64) -> Gate {
    let mut gate = Gate::new(SHARD);
    grow(&mut gate, accounts);
    gate
}

fn grow(gate: &mut Gate, accounts: u64) {
    let mut effects = Effects::default();
    for _ in 0..accounts {
        let offset = gate.seq();
        let id = |kind: &str| Id::parse(format!("{kind}{offset}").as_bytes()).unwrap();
        let event = ControlEvent::AccountOpened(AccountOpened {
            account: id("ACC"),
            owner: id("u"),
            currency: None,
            cash: Money::whole(offset as i64),
            day_roll: None,
            limits: Limits::default(),
        });
        let source = Source { topic: InputTopic::Control, partition: 0, offset };
        gate.apply(
            &Record { source, ts: 1_772_811_000_000, received: None, key: None, event: Event::Control(Box::new(event)), quiet: false },
            &mut effects,
        );
        effects.clear();
    }
}

fn offer(gate: &mut Gate, whole: bool) -> Offer {
    let mut touched = gate.take_touched();
    if whole {
        touched = (0..gate.accounts().len() as u32).collect();
    }
    Offer {
        standing: Standing { n: gate.seq(), seq: gate.seq(), head: [gate.seq() as u8; 32], ..Standing::default() },
        shared: gate.shared().clone(),
        accounts: gate.accounts().len(),
        touched: touched.into_iter().map(|place| (place, gate.accounts()[place as usize].clone())).collect(),
        whole,
    }
}

fn keep(dir: &Path) -> SledSnapshots {
    SledSnapshots::start(Options { dir: dir.to_owned(), shard: SHARD, cache_bytes: 8 << 20, broken_kept_max: 2 }).unwrap()
}

const WAIT: Duration = Duration::from_secs(30);

/// A folder with two snapshots; gives the states' hashes.
fn two_snapshots(dir: &Path) -> [[u8; 32]; 2] {
    let mut snapshots = keep(dir);
    assert!(snapshots.load().is_none());
    assert!(snapshots.wants_whole() && snapshots.ready());
    let mut gate = gate(200);
    snapshots.offer(offer(&mut gate, true));
    assert!(snapshots.finish(WAIT));
    let older = state_hash(&gate).unwrap();
    assert!(!snapshots.wants_whole());
    grow(&mut gate, 30);
    snapshots.offer(offer(&mut gate, false));
    assert!(snapshots.finish(WAIT) && snapshots.ready());
    [older, state_hash(&gate).unwrap()]
}

fn hash_of(loaded: &Loaded) -> [u8; 32] {
    state_hash(&Gate::restore(loaded.shared.clone(), loaded.accounts.clone())).unwrap()
}

fn in_store(dir: &Path, change: impl FnOnce(&Store)) {
    change(&open_store(&dir.join(format!("shard-{SHARD}"))).unwrap());
}

fn folders(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_restart_loads_the_newest_state_and_goes_on_incrementally() {
    let dir = tempfile::tempdir().unwrap();
    let [older, newer] = two_snapshots(dir.path());
    assert_ne!(older, newer);
    let mut snapshots = keep(dir.path());
    let loaded = snapshots.load().unwrap();
    assert_eq!((hash_of(&loaded), loaded.standing.seq), (newer, 230));
    assert!(!snapshots.wants_whole());
    let mut gate = Gate::restore(loaded.shared, loaded.accounts);
    grow(&mut gate, 5);
    snapshots.offer(offer(&mut gate, false));
    assert!(snapshots.finish(WAIT));
    drop(snapshots);
    assert_eq!(hash_of(&keep(dir.path()).load().unwrap()), state_hash(&gate).unwrap());
}

/// It would if the store were closed between two of them: what sled takes back, it takes back while it is open.
#[test]
fn the_folder_of_a_shard_does_not_grow_with_the_number_of_snapshots() {
    let dir = tempfile::tempdir().unwrap();
    let mut snapshots = keep(dir.path());
    assert!(snapshots.load().is_none());
    let mut gate = gate(3_000);
    let mut after = Vec::new();
    for turn in 0..120 {
        grow(&mut gate, 1);
        let everything = Offer { whole: turn == 0, ..offer(&mut gate, true) };
        snapshots.offer(everything);
        assert!(snapshots.finish(WAIT));
        after.push(folder_bytes(dir.path()));
    }
    assert!(after[119] < after[39] * 3 / 2, "{} bytes after 40 snapshots, {} after 120", after[39], after[119]);
}

#[test]
fn falls_back_to_the_older_generation_and_moves_the_folder_aside() {
    for prefix in [b"s", b"m"] {
        let dir = tempfile::tempdir().unwrap();
        let [older, _] = two_snapshots(dir.path());
        in_store(dir.path(), |store| {
            let key = keys(store, prefix).pop().unwrap();
            let mut damaged = store.db().get(&key).unwrap().unwrap().to_vec();
            damaged[20] ^= 4;
            store.db().insert(key, damaged).unwrap();
        });
        let mut snapshots = keep(dir.path());
        let loaded = snapshots.load().unwrap();
        assert_eq!(hash_of(&loaded), older);
        assert!(snapshots.wants_whole(), "what is in doubt is not built upon");
        assert_eq!(folders(dir.path()), ["shard-3.broken-1"]);
        let mut gate = gate(10);
        snapshots.offer(offer(&mut gate, true));
        assert!(snapshots.finish(WAIT));
        drop(snapshots);
        assert_eq!(hash_of(&keep(dir.path()).load().unwrap()), state_hash(&gate).unwrap());
    }
}

#[test]
fn a_missing_blob_of_both_generations_leaves_nothing_to_load() {
    let dir = tempfile::tempdir().unwrap();
    two_snapshots(dir.path());
    in_store(dir.path(), |store| {
        for key in keys(store, b"s") {
            store.db().remove(key).unwrap();
        }
    });
    let mut snapshots = keep(dir.path());
    assert!(snapshots.load().is_none());
    assert_eq!(folders(dir.path()), ["shard-3.broken-1"]);
    assert!(snapshots.ready() && snapshots.wants_whole());
}

#[test]
fn a_rejected_snapshot_gives_way_to_the_older_one_and_then_to_none() {
    let dir = tempfile::tempdir().unwrap();
    let [older, newer] = two_snapshots(dir.path());
    let mut snapshots = keep(dir.path());
    assert_eq!(hash_of(&snapshots.load().unwrap()), newer);
    assert_eq!(hash_of(&snapshots.reject("another head").unwrap()), older);
    assert!(snapshots.reject("another head again").is_none());
    assert_eq!(folders(dir.path()), ["shard-3.broken-1"]);
    assert!(snapshots.wants_whole());
}

#[test]
fn a_newer_programs_snapshot_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    two_snapshots(dir.path());
    in_store(dir.path(), |store| {
        let key = keys(store, b"m").pop().unwrap();
        let mut blob = store.db().get(&key).unwrap().unwrap().to_vec();
        blob[8] = 2;
        let end = blob.len() - 4;
        let checksum = crc32fast::hash(&blob[..end]);
        blob[end..].copy_from_slice(&checksum.to_le_bytes());
        assert_eq!(checksum_of(&blob), checksum);
        store.db().insert(key, blob).unwrap();
    });
    let contents = || {
        let mut all = Vec::new();
        in_store(dir.path(), |store| all.extend(store.db().iter().map(|entry| entry.unwrap())));
        all
    };
    let before = contents();
    let mut snapshots = keep(dir.path());
    let _ = snapshots.load();
    assert!(!snapshots.ready(), "nothing is written over it");
    drop(snapshots);
    assert_eq!(folders(dir.path()), ["shard-3"]);
    assert!(contents() == before);
}

#[test]
fn a_folder_that_sled_cannot_open_is_moved_aside_and_the_oldest_such_removed() {
    let dir = tempfile::tempdir().unwrap();
    for round in 1..=3 {
        two_snapshots(dir.path());
        let file = dir.path().join("shard-3/conf");
        fs::write(&file, b"no configuration").unwrap();
        let mut snapshots = keep(dir.path());
        assert!(snapshots.load().is_none(), "round {round}");
    }
    assert_eq!(folders(dir.path()), ["shard-3.broken-2", "shard-3.broken-3"]);
}

#[test]
fn a_store_that_another_process_holds_is_not_moved_aside() {
    let dir = tempfile::tempdir().unwrap();
    two_snapshots(dir.path());
    in_store(dir.path(), |_held| {
        let mut snapshots = keep(dir.path());
        assert!(snapshots.load().is_none());
        let mut gate = gate(3);
        snapshots.offer(offer(&mut gate, true));
        assert!(!snapshots.finish(WAIT));
        assert!(!snapshots.ready(), "it pauses after a failure");
    });
    assert_eq!(folders(dir.path()), ["shard-3"]);
    assert!(keep(dir.path()).load().is_some());
}

/// `mount -t tmpfs -o size=6m none DIR; ORDERGATE_SMALL_DISK=DIR cargo test --lib snapshot:: -- --ignored a_full_disk`
#[test]
#[ignore = "needs a small file system in ORDERGATE_SMALL_DISK"]
fn a_full_disk_costs_the_snapshot_and_nothing_else() {
    let dir = std::path::PathBuf::from(std::env::var_os("ORDERGATE_SMALL_DISK").unwrap()).join("snapshots");
    let small: Book = (0..100).map(|place| account(place, 0)).collect();
    let big: Book = (0..200_000).map(|place| account(place, 0)).collect();
    let mut store = open_store(&dir).unwrap();
    store.write(&whole(1, &small)).unwrap();
    let full = aside::guarded(|| store.write(&whole(2, &big))).expect_err("the disk is too big for this test");
    eprintln!("full: {full}, condition: {}", full.is_condition());
    let _ = aside::guarded(|| {
        drop(store);
        Ok(())
    });
    let left = only_what_was_written(&dir, &[small, big]);
    eprintln!("left: {left} generations");
}
