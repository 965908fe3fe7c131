//! What befalls owners: killed at every point, paused while idle, doubled by mistake, named alike.
//!
//! What must hold each time: every intent has one decision, whoever made it; nothing of an owner that was replaced counts; the
//! auditor finds nothing. Deliberately absent: the broker's own faults (kafka_faults_broker.rs).

#[path = "support/kafka/mod.rs"]
mod kafka;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use kafka::Home;
use kafka::cluster::Cluster;
use kafka::desk::Desk;
use kafka::fleet::{Fleet, Flow};
use ordergate::engine::{Claimant, Handle, NoObserver, NoSnapshots, Options, Phase, Shard, SystemClock};
use ordergate::kafka::{Cluster as Brokers, KafkaOptions, KafkaShardLog};
use ordergate::wire::frame::Entry;
use serde_json::Value;

/// Short, so that what waits for it does not take the test's time; brokers must allow it.
const SESSION: Duration = Duration::from_secs(2);
const SOON: Duration = Duration::from_secs(30);

fn cluster(home: &Home, shards: i32) -> Cluster {
    let mut cluster = Cluster::start(home, 1, &[("group.min.session.timeout.ms", "1000")]);
    cluster.create_gate_topics(shards);
    cluster
}

fn fleet(cluster: &Cluster, count: usize, shards: i32) -> Fleet {
    let session = SESSION.as_millis().to_string();
    Fleet::new(cluster, count, shards, &[("kafka.session_timeout_ms", &session)])
}

/// Orders to all shards in turn, as the lines of a flow.
fn lines(desk: &Desk, shards: i32, count: usize) -> Vec<String> {
    (0..count).map(|n| desk.line(i32::try_from(n).unwrap() % shards, &format!("flow-{n}"))).collect()
}

fn flow_ids(sent: u64) -> BTreeSet<String> {
    (0..sent).map(|n| format!("flow-{n}")).collect()
}

#[test]
fn an_owner_killed_while_it_starts_takes_over_or_drains_leaves_nothing_undecided() {
    const SHARDS: i32 = 2;
    let Some(home) = Home::find() else { return };
    let _turn = kafka::turn();
    let cluster = cluster(&home, SHARDS);
    let desk = Desk::open(&cluster, SHARDS);
    let mut fleet = fleet(&cluster, 2, SHARDS);
    let flow = Flow::start(&cluster, lines(&desk, SHARDS, 100_000), 0, 200);

    fleet.start(0);
    fleet.wait_until_all_decide(SHARDS);
    fleet.kill(0);
    // It keeps its shards when it is back within the session: so each of these dies a little further on its way to deciding.
    for after_ms in [60, 150, 250, 350, 450, 600, 800, 1_000, 1_300] {
        fleet.start_and_kill(0, Duration::from_millis(after_ms));
    }
    for after_ms in [0, 5, 20, 80] {
        fleet.start(0);
        fleet.wait_until_all_decide(SHARDS);
        fleet.signal(0, "TERM");
        std::thread::sleep(Duration::from_millis(after_ms));
        fleet.kill(0);
    }
    // The one that takes over dies of it, again and again.
    for after_ms in [0, 200] {
        fleet.start(0);
        fleet.start(1);
        fleet.wait_until_all_decide(SHARDS);
        fleet.kill(0);
        std::thread::sleep(SESSION + Duration::from_millis(after_ms));
        fleet.kill(1);
    }
    fleet.start(0);
    fleet.start(1);
    fleet.wait_until_all_decide(SHARDS);
    let sent = flow.finish(true);
    let decided = cluster.wait_for_decisions(&flow_ids(sent), SOON);
    fleet.stop_all();
    assert_eq!(decided.len() as u64, sent);
    println!("{sent} intents, {} claims", cluster.claims_and_late_frames().0);
    cluster.audit_clean(&["--drained"]);
}

/// A shard that moves belongs to nobody until its old owner has joined the group a second time. An owner that dies in between and comes back gets its
/// place again without a rebalance, since it has a name: without more, the shard would stay with nobody.
#[test]
fn shards_that_the_group_gave_to_nobody_are_given_again() {
    const SHARDS: i32 = 4;
    let Some(home) = Home::find() else { return };
    let _turn = kafka::turn();
    let cluster = cluster(&home, SHARDS);
    let desk = Desk::open(&cluster, SHARDS);
    let mut forced = 0.0;
    for attempt in 0..5 {
        let mut fleet = fleet(&cluster, 2, SHARDS);
        fleet.start(0);
        fleet.wait_until_all_decide(SHARDS);
        fleet.start(1);
        fleet.wait_until_it_logs(0, "takes shards away", SOON);
        fleet.kill(0);
        fleet.start(0);
        cluster.wait_for_decisions(&desk.send(&cluster, 0..SHARDS, &format!("attempt{attempt}"), 5), SOON);
        fleet.wait_until_all_decide(SHARDS);
        forced = (0..2).filter_map(|gate| fleet.metric(gate, "ordergate_kafka_rebalances_forced_total")).sum();
        fleet.stop_all();
        // It may have joined before it died.
        if forced > 0.0 {
            println!("{} attempts, {forced} rebalances forced", attempt + 1);
            break;
        }
    }
    assert!(forced > 0.0, "no shard was ever left to nobody");
    cluster.audit_clean(&["--drained"]);
}

#[test]
fn an_idle_owner_that_is_replaced_while_it_stands_still_notices_before_it_decides() {
    let Some(home) = Home::find() else { return };
    let _turn = kafka::turn();
    let cluster = cluster(&home, 1);
    let desk = Desk::open(&cluster, 1);
    let mut fleet = fleet(&cluster, 2, 1);
    fleet.start(0);
    fleet.wait_until_it_owns(0, 1, SOON);
    fleet.start(1);
    fleet.wait_until_all_decide(1);
    fleet.signal(0, "STOP");
    fleet.wait_until_it_owns(1, 1, SESSION + SOON);
    let (claims, _) = cluster.claims_and_late_frames();
    fleet.signal(0, "CONT");
    let begun = Instant::now();
    let noticed = loop {
        if fleet.metric(0, "ordergate_shard_owned").is_some_and(|owned| owned < 0.5) {
            break begun.elapsed();
        }
        assert!(begun.elapsed() < Duration::from_secs(5), "it still says that the shard is its own: {}", fleet.words(0));
    };
    let sent = desk.send(&cluster, 0..1, "after", 20);
    cluster.wait_for_decisions(&sent, SOON);
    fleet.wait_until_all_decide(1);
    fleet.stop_all();
    let (claims_after, late) = cluster.claims_and_late_frames();
    println!("it noticed after {noticed:?}");
    assert!(noticed < Duration::from_secs(2), "{noticed:?}");
    assert_eq!(late, 0, "an idle owner that looks before it decides appends nothing");
    assert!(claims_after <= claims + 1, "{claims_after} claims after {claims}");
    cluster.audit_clean(&["--drained"]);
}

/// Two standbys that are stepped from here, so that both have sent their claim before either hears of one. Whose counts is the ledger's word alone.
#[test]
fn of_two_standbys_that_claim_at_the_same_moment_one_decides_and_the_other_follows() {
    let Some(home) = Home::find() else { return };
    let _turn = kafka::turn();
    let cluster = cluster(&home, 1);
    let desk = Desk::open(&cluster, 1);
    let brokers = Brokers::new(KafkaOptions { brokers: cluster.brokers(), ..KafkaOptions::default() }).unwrap();
    let mut sent = BTreeSet::new();
    for round in 0..3 {
        let mut standbys = [standby(&brokers, "one"), standby(&brokers, "two")];
        // Both have read the ledger to its end, and their producers are ready.
        let ready = Instant::now() + Duration::from_secs(2);
        while Instant::now() < ready {
            standbys.iter_mut().for_each(|(shard, _)| assert!(shard.step(Duration::from_millis(5))));
        }
        standbys.iter().for_each(|(_, handle)| handle.own(true));
        standbys.iter_mut().for_each(|(shard, _)| assert!(shard.step(Duration::ZERO)));
        let phases = || standbys.iter().map(|(_, handle)| handle.status().phase).collect::<Vec<_>>();
        assert_eq!(phases(), [Phase::Claiming, Phase::Claiming], "round {round}");
        let begun = Instant::now();
        let is_settled = |phases: &[Phase]| phases.contains(&Phase::Owning) && phases.contains(&Phase::Following);
        while !is_settled(&standbys.iter().map(|(_, handle)| handle.status().phase).collect::<Vec<_>>()) {
            standbys.iter_mut().for_each(|(shard, _)| assert!(shard.step(Duration::from_millis(5))));
            assert!(begun.elapsed() < SOON, "round {round}");
        }
        let [one, two] =
            standbys.map(|(mut shard, handle)| (std::thread::spawn(move || while shard.step(Duration::from_millis(5)) {}), handle));
        sent.append(&mut desk.send(&cluster, 0..1, &format!("round{round}"), 10));
        cluster.wait_for_decisions(&sent, SOON);
        for (thread, handle) in [one, two] {
            handle.stop();
            thread.join().unwrap();
        }
    }
    let lost = lost_claims(&cluster);
    println!("{lost} claims lost");
    assert!(lost > 0, "whoever came second had always read the first one's claim");
    cluster.audit_clean(&["--drained"]);
}

fn standby(brokers: &Brokers, name: &str) -> (Shard<KafkaShardLog>, Handle) {
    let claimant = Claimant { owner: name.to_owned(), ..Claimant::default() };
    let options = Options { claimant, own: false, reclaim: false, ..Options::default() };
    let log = KafkaShardLog::new(brokers, 0).unwrap();
    Shard::new(log, Box::new(SystemClock::new()), Box::new(NoSnapshots), Box::new(NoObserver), options)
}

/// Claims that came behind another one of their term.
fn lost_claims(cluster: &Cluster) -> usize {
    let (mut term, mut lost) = (0, 0);
    for it in cluster.ledger() {
        if let Entry::Claim(claim) = it.entry {
            lost += usize::from(claim.term <= term);
            term = term.max(claim.term);
        }
    }
    lost
}

/// Two groups are two deployments: each is given every shard, and claims what it finds claimed by the other, as soon as it has read
/// the ledger to its end. The ledger decides each time, so one decides at a time: they take turns, which costs time and nothing else.
/// (Under a steady stream the one that is behind never reaches the end, and the other keeps the shard: hence so few orders here.)
#[test]
fn a_deployment_doubled_by_mistake_takes_turns_and_contradicts_nothing() {
    const SHARDS: i32 = 4;
    let Some(home) = Home::find() else { return };
    let _turn = kafka::turn();
    let cluster = cluster(&home, SHARDS);
    let desk = Desk::open(&cluster, SHARDS);
    let mut fleet = fleet(&cluster, 2, SHARDS);
    let flow = Flow::start(&cluster, lines(&desk, SHARDS, 100_000), 0, 12);
    for place in 0..2 {
        fleet.set("kafka.group", &format!("deployment-{place}"));
        fleet.start(place);
    }
    let begun = Instant::now();
    while cluster.claims_and_late_frames().0 < 24 {
        assert!(begun.elapsed() < Duration::from_secs(60), "{} claims", cluster.claims_and_late_frames().0);
        std::thread::sleep(Duration::from_millis(500));
    }
    let sent = flow.finish(true);
    let decided = cluster.wait_for_decisions(&flow_ids(sent), SOON);
    fleet.stop_all();
    let (claims, late) = cluster.claims_and_late_frames();
    println!("{sent} intents; {claims} claims in {:?}; {late} frames came too late and do not count", begun.elapsed());
    assert_eq!(decided.len() as u64, sent);
    cluster.audit_clean(&["--drained"]);
}

/// Which instance an instance says each shard is owned by, and whether that is itself.
fn owners(fleet: &Fleet, place: usize) -> Vec<(Option<String>, bool)> {
    let (status, text) = fleet.get(place, "/api/v1/system").unwrap();
    assert_eq!(status, 200, "{text}");
    let system: Value = serde_json::from_str(&text).unwrap();
    let owner = |shard: &Value| {
        let owner = &shard["owner"];
        (owner["instance"].as_str().map(str::to_owned), owner["is_here"] == true)
    };
    system["shards"].as_array().unwrap().iter().map(owner).collect()
}

/// Waits until these instances name as each shard's owner whoever exports that he owns it.
fn wait_until_all_name_the_owners(fleet: &Fleet, places: &[usize], shards: i32) -> Vec<String> {
    let begun = Instant::now();
    loop {
        let owns = |place: usize, shard: i32| fleet.metric(place, &format!("ordergate_shard_owned{{shard=\"{shard}\"}}")) == Some(1.0);
        let named = |shard: i32| places.iter().find(|place| owns(**place, shard)).map(|place| format!("gate-{}", place + 1));
        let true_ones: Option<Vec<String>> = (0..shards).map(named).collect();
        let told: Vec<_> = places.iter().map(|place| owners(fleet, *place)).collect();
        if let Some(all) = true_ones {
            let as_told_by =
                |place: usize| all.iter().map(|name| (Some(name.clone()), *name == format!("gate-{}", place + 1))).collect::<Vec<_>>();
            if places.iter().zip(&told).all(|(place, told)| *told == as_told_by(*place)) {
                return all;
            }
        }
        assert!(begun.elapsed() < SOON, "{told:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn every_instance_names_the_owners_of_all_shards_also_after_a_restart() {
    const SHARDS: i32 = 4;
    let Some(home) = Home::find() else { return };
    let _turn = kafka::turn();
    let cluster = cluster(&home, SHARDS);
    let _desk = Desk::open(&cluster, SHARDS);
    let mut fleet = fleet(&cluster, 2, SHARDS);
    fleet.start(0);
    fleet.wait_until_all_decide(SHARDS);
    assert!(wait_until_all_name_the_owners(&fleet, &[0], SHARDS).iter().all(|name| name == "gate-1"));
    fleet.start(1);
    fleet.wait_until_it_owns(1, 2, SOON);
    let spread = wait_until_all_name_the_owners(&fleet, &[0, 1], SHARDS);
    assert_eq!(spread.iter().filter(|name| *name == "gate-2").count(), 2, "{spread:?}");
    // It begins at its snapshots, behind the claims of the other, which claims nothing anew.
    assert_eq!(fleet.stop(1), Some(0));
    fleet.start(1);
    fleet.wait_until_all_decide(SHARDS);
    wait_until_all_name_the_owners(&fleet, &[0, 1], SHARDS);
    fleet.kill(1);
    fleet.wait_until_it_owns(0, SHARDS, SOON);
    assert!(wait_until_all_name_the_owners(&fleet, &[0], SHARDS).iter().all(|name| name == "gate-1"));
    fleet.stop_all();
}

#[test]
fn of_two_instances_with_one_name_the_first_is_fenced_and_decides_nothing_more() {
    let Some(home) = Home::find() else { return };
    let _turn = kafka::turn();
    let cluster = cluster(&home, 1);
    let desk = Desk::open(&cluster, 1);
    let mut fleet = fleet(&cluster, 2, 1);
    fleet.start_as(0, "gate-1");
    fleet.wait_until_all_decide(1);
    let before = desk.send(&cluster, 0..1, "before", 20);
    cluster.wait_for_decisions(&before, SOON);

    fleet.start_as(1, "gate-1");
    fleet.wait_until_it_says(0, "INSTANCE_FENCED", SOON);
    assert_eq!(fleet.get(0, "/readyz").map(|(status, _)| status), Some(503));
    fleet.wait_until_it_owns(1, 1, SOON);
    let entries = cluster.ledger().len();
    let after = desk.send(&cluster, 0..1, "after", 20);
    cluster.wait_for_decisions(&after, SOON);
    std::thread::sleep(SESSION);
    fleet.wait_until_it_owns(0, 0, SOON);
    fleet.wait_until_it_says(0, "INSTANCE_FENCED", SOON);
    fleet.stop_all();
    let (claims, late) = cluster.claims_and_late_frames();
    assert_eq!((claims, late), (2, 0), "one claim each, and nothing of the first after the second's; {entries} entries before");
    cluster.audit_clean(&["--drained"]);
}

#[test]
fn an_intent_by_http_is_answered_with_its_one_decision_wherever_the_shard_is() {
    const SHARDS: i32 = 2;
    let Some(home) = Home::find() else { return };
    let _turn = kafka::turn();
    let cluster = cluster(&home, SHARDS);
    let desk = Desk::open(&cluster, SHARDS);
    let mut fleet = fleet(&cluster, 2, SHARDS);
    fleet.start(0);
    fleet.start(1);
    fleet.wait_until_all_decide(SHARDS);
    let mut asked = BTreeSet::new();
    for n in 0..10 {
        for shard in 0..SHARDS {
            let id = format!("calm-{shard}-{n}");
            let answer = fleet.post_intent(0, &desk.order(shard, &id), 10_000);
            assert!(matches!(&answer, Some((200, decision)) if decision["client_order_id"] == id.as_str()), "{answer:?}");
            asked.insert(id);
        }
    }
    // The other instance dies with its shard; then it comes back and takes shards back.
    fleet.kill(1);
    let (answers, mut ids) = ask_until_all_are_decided(&fleet, &desk, SHARDS, "killed", SESSION + Duration::from_secs(2));
    asked.append(&mut ids);
    fleet.start(1);
    let (more, mut ids) = ask_until_all_are_decided(&fleet, &desk, SHARDS, "back", Duration::from_secs(2));
    asked.append(&mut ids);
    println!("while killed {answers:?}, while back {more:?}");
    let decided = cluster.wait_for_decisions(&asked, SOON);
    fleet.wait_until_all_decide(SHARDS);
    fleet.stop_all();
    assert_eq!(decided.len(), asked.len());
    cluster.audit_clean(&["--drained"]);
}

/// Posts one intent after another at the first instance for a while; each is asked again with its id until it is answered.
fn ask_until_all_are_decided(
    fleet: &Fleet,
    desk: &Desk,
    shards: i32,
    name: &str,
    time: Duration,
) -> (std::collections::BTreeMap<u16, u32>, BTreeSet<String>) {
    let (mut answers, mut ids) = (std::collections::BTreeMap::new(), BTreeSet::new());
    let begun = Instant::now();
    for n in 0.. {
        if begun.elapsed() > time && n % shards == 0 {
            return (answers, ids);
        }
        let shard = n % shards;
        let id = format!("{name}-{shard}-{n}");
        let body = desk.order(shard, &id);
        let asked = Instant::now();
        loop {
            let (status, answer) = fleet.post_intent(0, &body, 500).expect("it answers");
            *answers.entry(status).or_insert(0) += 1;
            match status {
                200 => break assert_eq!(answer["client_order_id"], id.as_str()),
                503 | 504 => assert!(asked.elapsed() < SESSION + SOON, "{answer}"),
                _ => panic!("{status}: {answer}"),
            }
        }
        ids.insert(id);
    }
    unreachable!("it returns")
}
