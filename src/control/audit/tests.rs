//! The trail on the real embedded log: what was removed, altered, swapped or inserted is found.

use tempfile::TempDir;

use super::*;
use crate::embedded::{EmbeddedLog, EmbeddedOptions};
use crate::log::{AppendDone, StoredRecord};

/// Offset, key, value.
type Record = (u64, Vec<u8>, Vec<u8>);

fn open(dir: &TempDir) -> EmbeddedLog {
    EmbeddedLog::open(EmbeddedOptions::new(dir.path())).unwrap()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
}

async fn record(audit: &Audit, object: &str) -> Result<u64, LogError> {
    audit.record("ann", "10.0.0.7", "token.created", object, json!({"scopes": ["decisions:read"], "n": 1.5}), "ok").await
}

fn records(topics: &dyn Topics) -> Vec<Record> {
    let of = |record: StoredRecord| (record.offset, record.key.unwrap(), record.payload);
    topics.read(Topic::Audit, 0, 0, 100_000).unwrap().into_iter().map(of).collect()
}

fn walked(records: &[Record], given: &[Head]) -> Result<(u64, u64, Vec<Head>), Fault> {
    let mut verifier = Verifier::new(given.to_vec(), false);
    records.iter().try_for_each(|(offset, key, value)| verifier.see(*offset, Some(key), value))?;
    verifier.finish()
}

/// A trail of two writers, the second of which has seen the first to its end.
fn trail() -> Vec<Record> {
    let dir = tempfile::tempdir().unwrap();
    let log = open(&dir);
    for writer in ["a", "b"] {
        let audit = Audit::start(Arc::new(log.clone())).unwrap();
        runtime().block_on(async {
            for number in 0..12 {
                record(&audit, &format!("{writer}{number}")).await.unwrap();
            }
        });
        audit.stop();
    }
    records(&log)
}

#[test]
fn what_is_recorded_is_in_the_log_when_it_is_answered_and_hangs_together() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(&dir);
    let audit = Audit::start(Arc::new(log.clone())).unwrap();
    let seq = runtime().block_on(record(&audit, "t1")).unwrap();
    assert_eq!(seq, 2, "a chain begins with the heads that it saw");
    let found = records(&log);
    let entry = Entry::decode(found[1].0, &found[1].2).unwrap();
    let Link { actor, address, action, object, result, .. } = &entry.link;
    assert_eq!([actor, address, action, object, result].map(String::as_str), ["ann", "10.0.0.7", "token.created", "t1", "ok"]);
    assert_eq!(found[1].1, entry.link.chain.to_string().into_bytes());
    // As the documentation says: the hash of what stands before `,"head":`.
    let text = String::from_utf8(found[1].2.clone()).unwrap();
    let (before, head) = text.split_once(",\"head\":\"").unwrap();
    assert_eq!(head, format!("{}\"}}", blake3::hash(before.as_bytes())));
    audit.stop();
    assert_eq!(runtime().block_on(record(&audit, "t2")), Err(LogError::Closed));
    let (count, repeated, heads) = walked(&records(&log), &[]).unwrap();
    assert_eq!((count, repeated, heads.len(), heads[0].seq), (3, 0, 1, 3));
}

#[test]
fn several_writers_at_once_each_have_a_chain_and_all_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(&dir);
    let audits: Vec<_> = (0..3).map(|_| Audit::start(Arc::new(log.clone())).unwrap()).collect();
    std::thread::scope(|scope| {
        for audit in &audits {
            scope.spawn(move || {
                runtime().block_on(async {
                    let all =
                        futures_util::future::join_all((0..150).map(|number| async move { record(audit, &number.to_string()).await }));
                    let mut seqs: Vec<u64> = all.await.into_iter().map(Result::unwrap).collect();
                    seqs.dedup();
                    assert!(seqs.len() == 150 && seqs.is_sorted());
                });
            });
        }
    });
    audits.iter().for_each(|audit| audit.stop());
    let (count, repeated, heads) = walked(&records(&log), &[]).unwrap();
    assert_eq!((repeated, heads.len()), (0, 3));
    // 150 records each, the first heads, those after every 100, and the last.
    assert!((3 * 152..=3 * 155).contains(&count), "{count}");
}

#[test]
fn a_quiet_chain_publishes_its_head_after_ten_seconds_and_once() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(&dir);
    let (audit, begun) = (Audit::start(Arc::new(log.clone())).unwrap(), Instant::now());
    runtime().block_on(record(&audit, "t1")).unwrap();
    let heads = || records(&log).iter().filter(|(.., value)| Entry::decode(0, value).unwrap().link.action == chain::HEADS).count();
    assert_eq!(heads(), 1, "it begins with those that it saw");
    while heads() == 1 {
        assert!(begun.elapsed() < HEADS_EVERY * 3, "it was not published");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(begun.elapsed() >= HEADS_EVERY);
    audit.stop();
    assert_eq!(heads(), 2, "a head that is published is not published again");
}

#[test]
fn a_record_that_is_removed_is_found_wherever_it_stood() {
    let trail = trail();
    assert!(walked(&trail, &[]).is_ok());
    for place in 0..trail.len() - 1 {
        let mut less = trail.clone();
        let (removed, ..) = less.remove(place);
        let fault = walked(&less, &[]).unwrap_err();
        let named = match fault {
            Fault::Gap { offset, .. } | Fault::Beginning { offset, .. } => offset,
            Fault::Missing { by: Witness::Record { offset }, .. } => offset,
            other => panic!("{other}"),
        };
        assert_eq!(named, removed + 1, "the one behind it");
    }
    // The first writer as a whole, and its end.
    let second = Entry::decode(0, &trail.last().unwrap().2).unwrap().link.chain.to_string().into_bytes();
    let begin = trail.iter().position(|(_, key, _)| *key == second).unwrap();
    for less in [trail[begin..].to_vec(), [&trail[..begin - 3], &trail[begin..]].concat()] {
        assert!(matches!(walked(&less, &[]), Err(Fault::Missing { by: Witness::Record { offset }, .. }) if offset == begin as u64));
    }
}

#[test]
fn the_end_of_the_trail_is_held_by_a_head_that_was_published() {
    let trail = trail();
    let (.., heads) = walked(&trail, &[]).unwrap();
    assert!(walked(&trail, &heads).is_ok());
    let less = &trail[..trail.len() - 1];
    assert!(walked(less, &[]).is_ok(), "nothing in the log is behind its end");
    assert!(matches!(walked(less, &heads), Err(Fault::Missing { by: Witness::Given, .. })));
    // A history that is made anew is whole in itself, and has other heads.
    let other = self::trail();
    assert!(walked(&other, &[]).is_ok() && walked(&other, &heads).is_err());
    // What retention took is vouched for by the head before it.
    let fourth = Entry::decode(0, &trail[3].2).unwrap();
    let before = Head { chain: fourth.link.chain, seq: 3, head: fourth.link.prev };
    assert!(matches!(walked(&trail[3..], &[]), Err(Fault::Beginning { offset: 3, seq: 4, .. })));
    assert!(walked(&trail[3..], &[before]).is_ok());
    assert!(walked(&trail[3..], &[Head { head: fourth.head, ..before }]).is_err());
}

#[test]
fn a_byte_that_is_altered_is_found_wherever_it_stands() {
    let trail = trail();
    for place in 0..trail.len() {
        for at in 0..trail[place].2.len() {
            let mut other = trail.clone();
            other[place].2[at] ^= 1;
            let fault = walked(&other, &[]).unwrap_err();
            assert!(matches!(fault, Fault::Altered { offset, .. } if offset == place as u64), "{place} {at}: {fault}");
        }
        let mut other = trail.clone();
        other[place].1[0] ^= 1;
        assert_eq!(walked(&other, &[]), Err(Fault::Altered { offset: place as u64, what: "its key is not its chain" }));
    }
}

#[test]
fn a_record_that_is_written_anew_with_its_hash_no_longer_fits_the_next() {
    let trail = trail();
    for place in 0..trail.len() - 1 {
        let mut link = Entry::decode(0, &trail[place].2).unwrap().link;
        link.actor = "eve".into();
        let mut other = trail.clone();
        other[place].2 = link.encode().unwrap().0;
        let fault = walked(&other, &[]).unwrap_err();
        let fits = match fault {
            Fault::Broken { offset, .. } | Fault::Missing { by: Witness::Record { offset }, .. } => offset == place as u64 + 1,
            _ => false,
        };
        assert!(fits, "{place}: {fault}");
    }
}

#[test]
fn records_that_are_swapped_or_inserted_are_found() {
    let trail = trail();
    for place in 1..11 {
        let mut other = trail.clone();
        let (one, two) = (trail[place].2.clone(), trail[place + 1].2.clone());
        (other[place].2, other[place + 1].2) = (two, one);
        assert!(matches!(walked(&other, &[]), Err(Fault::Gap { offset, .. }) if offset == place as u64));
        // One that someone thought up, hashed as it must be, at the end of the chain as it was then.
        let mut forged = Entry::decode(0, &trail[place].2).unwrap();
        (forged.link.seq, forged.link.prev) = (forged.link.seq + 1, forged.head);
        let mut other = trail.clone();
        other.insert(place + 1, (999, trail[place].1.clone(), forged.link.encode().unwrap().0));
        assert!(matches!(walked(&other, &[]), Err(Fault::Second { offset, .. }) if offset == place as u64 + 1));
        other[place + 1].2 = br#"{"action":"x"}"#.to_vec();
        assert!(matches!(walked(&other, &[]), Err(Fault::Altered { offset: 999, .. })));
    }
    // Word for word the same is no other history, as long as it is near.
    let mut again = trail.clone();
    again.splice(5..5, trail[3..5].to_vec());
    assert_eq!(walked(&again, &[]).unwrap().1, 2);
}

/// The embedded log, which says of every third append that it failed: half of those land all the same.
struct Doubtful {
    log: EmbeddedLog,
    appends: std::sync::atomic::AtomicU64,
}

impl Topics for Doubtful {
    fn append(&self, records: Vec<NewRecord>, done: AppendDone) {
        let failed = LogError::Busy { detail: "who knows".into() };
        match self.appends.fetch_add(1, std::sync::atomic::Ordering::Relaxed) % 6 {
            1 => self.log.append(records, Box::new(move |_| done(Err(failed)))),
            4 => done(Err(failed)),
            _ => self.log.append(records, done),
        }
    }
    fn read(&self, topic: Topic, partition: u32, from: u64, limit: usize) -> Result<Vec<StoredRecord>, LogError> {
        self.log.read(topic, partition, from, limit)
    }
    fn extents(&self) -> Result<Vec<Extent>, LogError> {
        self.log.extents()
    }
    fn changes(&self) -> tokio::sync::watch::Receiver<u64> {
        self.log.changes()
    }
    fn refusing(&self) -> Option<LogError> {
        None
    }
}

#[test]
fn what_the_log_does_not_confirm_is_refused_and_sent_again_and_the_chain_stays_whole() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(&dir);
    let audit = Audit::start(Arc::new(Doubtful { log: log.clone(), appends: 0.into() })).unwrap();
    let (mut taken, mut refused) = (0, 0);
    runtime().block_on(async {
        for number in 0..20 {
            match record(&audit, &number.to_string()).await {
                Ok(_) => taken += 1,
                Err(LogError::Busy { .. }) => refused += 1,
                Err(other) => panic!("{other}"),
            }
        }
    });
    audit.stop();
    assert!(taken > 3 && refused > 3, "{taken} taken, {refused} refused");
    let (count, repeated, heads) = walked(&records(&log), &[]).unwrap();
    assert!(repeated > 0 && count - repeated == heads[0].seq && heads[0].seq >= 20, "{count} {repeated} {heads:?}");
}

#[test]
fn pages_go_back_from_the_end_and_long_texts_are_cut() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(&dir);
    let audit = Audit::start(Arc::new(log.clone())).unwrap();
    runtime().block_on(async {
        for number in 0..30 {
            record(&audit, &number.to_string()).await.unwrap();
        }
        audit.record(&"é".repeat(2_000), "", "x", "long", json!({"a": "x".repeat(40_000)}), "ok").await.unwrap();
    });
    audit.stop();
    let all = |entry: &Entry| entry.link.action == "token.created";
    let (mut before, mut objects) = (None, Vec::new());
    loop {
        let page = page(&log, before, 7, &all).unwrap();
        objects.extend(page.entries.iter().map(|entry| entry.link.object.clone()));
        before = page.next;
        if before.is_none() {
            break;
        }
    }
    assert_eq!(objects, (0..30).rev().map(|number| number.to_string()).collect::<Vec<_>>());
    let long = page(&log, None, 1, &|entry| entry.link.object == "long").unwrap().entries.remove(0);
    assert_eq!((long.link.actor.len(), long.link.changes), (512, json!({"left_out": "too large"})));
}

#[test]
fn one_thing_is_recorded_without_a_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(&dir);
    assert_eq!(record_once(Arc::new(log.clone()), "root", "user.added", "bob", json!({}), "ok"), Ok(2));
    assert_eq!(walked(&records(&log), &[]).unwrap().2.len(), 1);
}

#[test]
fn a_head_is_read_as_it_is_printed() {
    let head = Head { chain: ChainId(0xab), seq: 7, head: Digest(*blake3::hash(b"x").as_bytes()) };
    assert_eq!(head.to_string().parse(), Ok(head));
    assert_eq!(head.head.short(), u64::from_str_radix(&head.head.to_string()[..12], 16).unwrap());
    for text in ["", "1:2:3", "00000000000000ab:x:", "00000000000000AB:7:00"] {
        assert!(text.parse::<Head>().is_err(), "{text}");
    }
}
