//! A real daemon whose receivers are all down for a while, and that is killed: who hears of what, how often, and what it costs.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::daemon::Daemon;
use crate::house::{House, ask, open_account, raise, refused, resident_kb};
use crate::receiver::Mood;
use crate::smtp;

/// How much, and how long.
struct Drill {
    count: u64,
    outage: Duration,
    patience: Duration,
}

fn arrived(house: &House, besides: &BTreeSet<String>) -> u64 {
    house.counts(besides).iter().map(|(_, counts)| counts.len() as u64).min().unwrap()
}

fn wait(what: &str, patience: Duration, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < patience, "{what} takes longer than {patience:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Raises notifications before, during and after an outage of every channel, kills the daemon in the outage and once more in the middle of
/// what comes after it, and counts what each receiver got.
fn drill(drill: &Drill) {
    let Drill { count, outage, patience } = *drill;
    let house = House::new();
    let gate = house.daemon();
    open_account(&gate);
    house.settle(&gate);
    let besides = house.ids();
    let begun = Instant::now();
    raise(&gate, 0..count * 3 / 10);
    wait("the first", patience, || arrived(&house, &besides) >= count / 20);
    house.mood(smtp::Mood::Silent, Mood::Hanging);
    let down = Instant::now();
    raise(&gate, count * 3 / 10..count * 6 / 10);
    std::thread::sleep(outage / 2);
    gate.kill();
    house.mood(smtp::Mood::Down, Mood::Status(503));
    let gate = house.daemon();
    raise(&gate, count * 6 / 10..count * 8 / 10);
    std::thread::sleep(outage.saturating_sub(down.elapsed()));
    let before = arrived(&house, &besides);
    house.mood(smtp::Mood::Well, Mood::Well);
    let up = Instant::now();
    wait("some after the outage", patience, || arrived(&house, &besides) >= before + count / 10);
    gate.kill();
    let gate = house.daemon();
    raise(&gate, count * 8 / 10..count);
    wait("everything", patience, || arrived(&house, &besides) >= count);
    println!(
        "{count} notifications over 4 channels: all {:.1} s after the outage of {:.1} s, {:.1} s in all, RSS {} kB",
        up.elapsed().as_secs_f64(),
        (up - down).as_secs_f64(),
        begun.elapsed().as_secs_f64(),
        resident_kb(&gate)
    );
    wait("the states", patience, || {
        let stats = ask(&gate, "GET", "/notifications/stats", None, 200);
        ["email", "push", "sms", "webhook"].iter().all(|channel| stats["by_channel"][channel].get("pending").is_none())
    });
    for (channel, counts) in house.counts(&besides) {
        let repeated = counts.values().filter(|times| **times > 1).count();
        let most = counts.values().max().copied().unwrap_or(0);
        println!("{channel}: {} ids, {repeated} came again, at most {most} times", counts.len());
        assert_eq!(counts.len() as u64, count, "{channel}: each is received under its own id, and no other id is");
        // Two kills, each with what was under way: one of them may be repeated once for each.
        assert!(most <= 3, "{channel}: one came {most} times");
        // What was under way, and what was sent within the moments that outcomes are gathered for.
        assert!(repeated <= 512, "{channel}: {repeated} came again");
    }
    assert_eq!(gate.stop(), Some(0));
}

#[test]
fn every_notification_arrives_through_an_outage_of_all_channels_and_two_kills() {
    drill(&Drill { count: 200, outage: Duration::from_secs(4), patience: Duration::from_secs(90) });
}

#[test]
#[ignore = "minutes: `cargo test --test notify -- --ignored ten_thousand --nocapture`"]
fn ten_thousand_notifications_arrive_through_an_outage_of_a_minute_of_all_channels_and_two_kills() {
    drill(&Drill { count: 10_000, outage: Duration::from_secs(60), patience: Duration::from_secs(900) });
}

/// How long each of these orders took to be decided, in microseconds.
fn decide(gate: &Daemon, ids: std::ops::Range<u64>) -> Vec<u64> {
    ids.map(|id| {
        let begun = Instant::now();
        let (status, answer) = gate.intent(&refused(id));
        assert!(status == 200 && answer["verdict"] == "block", "{status} {answer}");
        u64::try_from(begun.elapsed().as_micros()).unwrap()
    })
    .collect()
}

fn quantile(sorted: &[u64], percent: usize) -> u64 {
    sorted[(sorted.len() - 1) * percent / 100]
}

/// Orders that each raise a notification: in turns at a daemon all of whose deliveries fail, and at one that delivers nothing.
/// Gives p50 and p99 of both, in microseconds: failing, without.
fn compare(blocks: u64, block: u64) -> [[u64; 2]; 2] {
    let house = House::new();
    let failing = house.daemon();
    let folder = TempDir::new().unwrap();
    let without = Daemon::start(folder.path(), &[]);
    open_account(&failing);
    open_account(&without);
    house.settle(&failing);
    house.mood(smtp::Mood::Down, Mood::Status(503));
    let (mut slow, mut plain) = (Vec::new(), Vec::new());
    for number in 0..blocks {
        let ids = number * block..(number + 1) * block;
        let (first, second) = if number % 2 == 0 { (&failing, &without) } else { (&without, &failing) };
        let (one, two) = (decide(first, ids.clone()), decide(second, ids));
        let (of_failing, of_without) = if number % 2 == 0 { (one, two) } else { (two, one) };
        // The first block of each is where they warm up.
        if number > 0 {
            slow.extend(of_failing);
            plain.extend(of_without);
        }
    }
    let stats = ask(&failing, "GET", "/notifications/stats", None, 200);
    let pending = ["email", "push", "sms", "webhook"].map(|channel| stats["by_channel"][channel]["pending"].as_u64().unwrap_or(0));
    assert!(pending.iter().all(|pending| *pending > 0), "deliveries fail all the while: {stats}");
    let figures = [slow, plain].map(|mut all| {
        all.sort_unstable();
        [quantile(&all, 50), quantile(&all, 99)]
    });
    println!(
        "{} orders each, {pending:?} deliveries pending: failing p50 {} p99 {}, without p50 {} p99 {} microseconds",
        (blocks - 1) * block,
        figures[0][0],
        figures[0][1],
        figures[1][0],
        figures[1][1]
    );
    figures
}

#[test]
fn deliveries_that_fail_do_not_hold_up_decisions() {
    let [[failing, _], [without, _]] = compare(6, 50);
    assert!(failing <= without * 3 / 2, "{failing} and {without} microseconds");
}

#[test]
#[ignore = "a measurement: `cargo test --release --test notify -- --ignored five_percent --nocapture` on an idle machine"]
fn decisions_take_at_most_five_percent_longer_while_all_deliveries_fail() {
    let [[failing, _], [without, _]] = compare(41, 250);
    assert!(failing * 100 <= without * 105, "{failing} and {without} microseconds");
}
