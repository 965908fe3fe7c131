//! The engine on the embedded log, whole: records in, decisions out, restarts.

use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use ordergate::domain::{InputTopic, Source};
use ordergate::embedded::{EmbeddedLog, EmbeddedOptions};
use ordergate::engine::{Loaded, NoObserver, NoSnapshots, Offer, Options, Phase, Replica, Service, SnapshotStore, spawn, state_hash};
use ordergate::log::{LogError, NewRecord, OutputTopic, Placed, Topic, Topics};

const INTENTS: Topic = Topic::Input(InputTopic::Intents);

fn intent(id: u64) -> NewRecord {
    let payload = format!(
        r#"{{"event":"order_intent","client_order_id":"I-{id}","account":"ACC1","symbol":"AAPL","side":"buy","order_type":"market","qty":"1"}}"#
    );
    NewRecord { topic: INTENTS, partition: None, ts: None, key: Some(b"ACC1".to_vec()), payload: payload.into_bytes() }
}

fn append(log: &EmbeddedLog, records: Vec<NewRecord>) -> Vec<Placed> {
    try_append(log, records).unwrap()
}

fn try_append(log: &EmbeddedLog, records: Vec<NewRecord>) -> Result<Vec<Placed>, LogError> {
    let (told, answer) = mpsc::channel();
    log.append(records, Box::new(move |result| drop(told.send(result))));
    answer.recv().unwrap()
}

fn start(log: &EmbeddedLog) -> Service {
    let service = spawn(log.shard_log(), Box::new(NoSnapshots), Box::new(NoObserver), Options::default()).unwrap();
    wait_until(|| service.handle.status().phase == Phase::Owning);
    service
}

fn wait_until(mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(10), "it takes too long");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn source_of(placed: Placed) -> Source {
    Source { topic: InputTopic::Intents, partition: placed.partition, offset: placed.offset }
}

#[test]
fn an_intent_is_answered_with_its_decision_and_found_in_the_topic_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let log = EmbeddedLog::open(EmbeddedOptions::new(dir.path())).unwrap();
    let service = start(&log);
    let mut answers = Vec::new();
    for id in 0..50 {
        let placed = append(&log, vec![intent(id)]);
        answers.push(service.handle.answer(source_of(placed[0])).blocking_recv().unwrap());
    }
    assert_eq!(answers.iter().map(|answer| answer.seq).collect::<Vec<_>>(), (1..=50).collect::<Vec<_>>());
    assert!(service.stop());
    log.close();

    let log = EmbeddedLog::open(EmbeddedOptions::new(dir.path())).unwrap();
    let service = start(&log);
    assert_eq!(service.handle.query(|gate| gate.seq()).blocking_recv().unwrap(), 50);
    let placed = append(&log, vec![intent(51)]);
    assert_eq!(service.handle.answer(source_of(placed[0])).blocking_recv().unwrap().seq, 51);
    assert!(service.stop());
    let decisions = log.read(Topic::Output(OutputTopic::Decisions), 0, 0, 100).unwrap();
    let said: Vec<&[u8]> = answers.iter().flat_map(|answer| answer.outputs.iter()).map(|output| output.payload.as_slice()).collect();
    assert!(decisions.iter().map(|decision| decision.payload.as_slice()).take(said.len()).eq(said));
    let mut seen: Vec<_> = decisions.iter().filter_map(|decision| decision.tag).collect();
    seen.dedup();
    assert_eq!(seen.len(), decisions.len(), "a clean restart repeats nothing");
}

#[test]
fn records_in_bulk_are_all_applied_once_and_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let log = EmbeddedLog::open(EmbeddedOptions::new(dir.path())).unwrap();
    let service = start(&log);
    for batch in 0..20 {
        append(&log, (0..500).map(|i| intent(batch * 500 + i)).collect());
    }
    wait_until(|| service.handle.status().committed_seq == 10_000);
    assert!(service.stop());
}

#[test]
fn a_full_log_refuses_with_a_code_and_keeps_what_it_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let full = EmbeddedOptions { file_bytes_max: Some(600_000), ..EmbeddedOptions::new(dir.path()) };
    let log = EmbeddedLog::open(full).unwrap();
    let service = start(&log);
    let mut taken = 0;
    let refused = loop {
        match try_append(&log, (0..50).map(|i| intent(taken + i)).collect()) {
            Ok(placed) => taken += placed.len() as u64,
            Err(error) => break error,
        }
    };
    assert_eq!(refused.code(), "LOG_FULL");
    assert!(service.stop());
    log.close();

    let log = EmbeddedLog::open(EmbeddedOptions::new(dir.path())).unwrap();
    let service = start(&log);
    wait_until(|| service.handle.status().committed_seq == taken);
    assert_eq!(append(&log, vec![intent(taken)])[0].offset, taken);
    assert!(service.stop());
}

#[test]
fn a_shard_that_is_taken_away_follows_and_decides_what_came_meanwhile_when_it_is_given_back() {
    let dir = tempfile::tempdir().unwrap();
    let log = EmbeddedLog::open(EmbeddedOptions::new(dir.path())).unwrap();
    let service = start(&log);
    let placed = append(&log, vec![intent(1)]);
    service.handle.answer(source_of(placed[0])).blocking_recv().unwrap();
    let term = service.handle.status().term;
    service.handle.own(false);
    wait_until(|| service.handle.status().phase == Phase::Following);
    append(&log, vec![intent(2), intent(3)]);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(service.handle.status().seq, 1);
    service.handle.own(true);
    wait_until(|| service.handle.status().committed_seq == 3);
    let status = service.handle.status();
    assert_eq!((status.phase, status.term), (Phase::Owning, term + 1));
    assert!(service.stop());
    log.close();
}

/// Keeps what it is offered, and begins with nothing.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<Offer>>>);

impl SnapshotStore for Kept {
    fn load(&mut self) -> Option<Loaded> {
        None
    }

    fn reject(&mut self, _why: &str) -> Option<Loaded> {
        None
    }

    fn ready(&self) -> bool {
        true
    }

    fn wants_whole(&self) -> bool {
        true
    }

    fn offer(&mut self, offer: Offer) {
        self.0.lock().unwrap().push(offer);
    }

    fn finish(&mut self, _wait: Duration) -> bool {
        true
    }
}

/// The newest outputs of an owner that writes are never known to be published, and a standby takes snapshots all the same.
#[test]
fn a_follower_of_an_owner_that_never_rests_takes_snapshots_that_lead_to_the_same_state() {
    let dir = tempfile::tempdir().unwrap();
    let log = EmbeddedLog::open(EmbeddedOptions::new(dir.path())).unwrap();
    let kept = Kept::default();
    let options = Options { own: false, snapshot_every: Duration::from_millis(20), ..Options::default() };
    let follower = spawn(log.shard_log(), Box::new(kept.clone()), Box::new(NoObserver), options).unwrap();
    // The embedded log tells the side that was asked for last of what arrives.
    let owner = start(&log);
    let mut id = 0;
    wait_until(|| {
        id += 1;
        append(&log, vec![intent(id)]);
        kept.0.lock().unwrap().len() >= 3
    });
    wait_until(|| follower.handle.status().seq == id);
    assert!(follower.stop());
    assert!(owner.stop());
    let offers = std::mem::take(&mut *kept.0.lock().unwrap());
    let mut reader = log.shard_log();
    let mut whole = Replica::new(0);
    while whole.read_on(&mut reader).unwrap() > 0 {}
    for Offer { standing, shared, touched, .. } in offers {
        let published = standing.outputs[OutputTopic::Decisions.place()].seq;
        assert!(published >= standing.seq, "outputs to {published} are published, and the snapshot stands at {}", standing.seq);
        let accounts = touched.into_iter().map(|(_, account)| account).collect();
        let mut restored = Replica::restore(Loaded { standing, shared, accounts });
        while restored.read_on(&mut reader).unwrap() > 0 {}
        assert_eq!(state_hash(restored.fold.gate()), state_hash(whole.fold.gate()));
        assert_eq!(restored.unpublished, whole.unpublished);
    }
    log.close();
}
