//! The desk, step by step: time is a number, the directory is a list, receivers are outcomes.

use std::time::Duration;

use serde_json::Map;

use super::*;
use crate::notify::preference::Never;
use crate::notify::segment::Stored;
use crate::notify::{Backoff, RaisedId};

pub(super) const T0: i64 = 1_780_000_000_000;
pub(super) const MINUTE: i64 = 60_000;
pub(super) const HOUR: i64 = 60 * MINUTE;

/// Everybody wants everything, but for one verdict that may be set.
pub(super) struct Want(pub(super) Verdict);

impl Wishes for Want {
    fn verdict(&self, _: &UserId, _: Channel, _: NotificationType, _: Priority, _: i64) -> Verdict {
        self.0
    }
}

pub(super) const NOW: Want = Want(Verdict::Now);

pub(super) fn limits() -> Limits {
    let backoff = Backoff { first: Duration::from_secs(2), most: Duration::from_secs(900) };
    Limits { backoff, storm_per_minute: 1_000, channel_in_flight: 3, place_in_flight: 2, settled_kept: 1, ..Limits::default() }
}

pub(super) fn raised(seq: u64, priority: Priority, at: i64) -> Arc<Raised> {
    Arc::new(Raised {
        id: RaisedId { shard: 0, seq, index: 0 },
        account: Some("A".into()),
        owner: None,
        kind: NotificationType::RiskBreach,
        code: "RULE_BREACH".into(),
        priority,
        title: "t".into(),
        message: "m".into(),
        data: Map::new(),
        at,
    })
}

pub(super) fn place(user: &str, channel: Channel) -> Place {
    Place { user: user.into(), channel, target: "".into() }
}

/// The directory: the last state of every segment.
#[derive(Default)]
pub(super) struct Shelf(pub(super) BTreeMap<SegmentKey, (u64, Vec<u8>)>);

impl Shelf {
    pub(super) fn save(&mut self, desk: &mut Desk) {
        for save in desk.to_save() {
            let held = self.0.get(&save.key).map_or(0, |(version, _)| *version);
            assert_eq!(save.version, held, "each state replaces the one before");
            self.0.insert(save.key, (held + 1, save.body.clone()));
            desk.saved(&save, held + 1);
        }
    }

    pub(super) fn reopen(&self, now: i64, limits: Limits, content: impl Fn(u32, u64) -> Option<Arc<Raised>>) -> Desk {
        let mut desk = Desk::new(limits);
        for (key, (version, body)) in &self.0 {
            desk.load(*key, *version, serde_json::from_slice::<Stored>(body).unwrap());
        }
        desk.open(now, content);
        desk
    }
}

pub(super) fn planned(desk: &mut Desk, shelf: &mut Shelf, count: u64, user: &str, channel: Channel) {
    for seq in 0..count {
        desk.plan(T0, 0, seq, Some(&raised(seq, Priority::High, T0)), vec![place(user, channel)]);
    }
    shelf.save(desk);
}

pub(super) fn words(desk: &mut Desk) -> Vec<(&'static str, usize)> {
    let mut counts: BTreeMap<&'static str, usize> = BTreeMap::new();
    for told in desk.told() {
        *counts.entry(told.what).or_default() += told.count;
    }
    counts.into_iter().collect()
}

#[test]
fn nothing_goes_out_before_it_is_saved() {
    let (mut desk, mut shelf) = (Desk::new(limits()), Shelf::default());
    desk.plan(T0, 0, 4, Some(&raised(1, Priority::High, T0)), vec![place("ann", Channel::Email)]);
    assert!(desk.take(T0, &NOW).is_empty());
    shelf.save(&mut desk);
    let jobs = desk.take(T0, &NOW);
    assert_eq!(jobs.len(), 1);
    desk.done(T0 + 5, &jobs[0], &Outcome::Sent);
    assert_eq!((desk.pending(), words(&mut desk)), (0, vec![("sent", 1)]));
    assert_eq!(desk.position(0), Some(5));
    assert!(desk.take(T0 + HOUR, &NOW).is_empty());
}

#[test]
fn a_notification_that_comes_twice_is_sent_once_also_after_a_restart() {
    let (mut desk, mut shelf) = (Desk::new(limits()), Shelf::default());
    let one = raised(1, Priority::High, T0);
    desk.plan(T0, 0, 4, Some(&one), vec![place("ann", Channel::Email)]);
    desk.plan(T0, 0, 5, Some(&one), vec![place("ann", Channel::Email)]);
    assert_eq!(desk.pending(), 1);
    shelf.save(&mut desk);
    let mut again = shelf.reopen(T0, limits(), |_, _| Some(one.clone()));
    again.plan(T0, 0, 6, Some(&one), vec![place("ann", Channel::Email)]);
    assert_eq!(again.pending(), 1);
}

#[test]
fn what_may_have_been_sent_before_a_kill_is_sent_again_under_the_same_id_and_what_was_confirmed_is_not() {
    let (mut desk, mut shelf) = (Desk::new(limits()), Shelf::default());
    planned(&mut desk, &mut shelf, 3, "ann", Channel::Email);
    let jobs = desk.take(T0, &NOW);
    assert_eq!(jobs.len(), 3);
    desk.done(T0, &jobs[0], &Outcome::Sent);
    shelf.save(&mut desk);
    desk.done(T0, &jobs[1], &Outcome::Sent); // not saved: killed here
    let mut again = shelf.reopen(T0 + 1, limits(), |_, offset| Some(raised(offset, Priority::High, T0)));
    assert_eq!(again.pending(), 2);
    let repeated: Vec<_> = again.take(T0 + 1, &NOW).iter().map(|job| job.id).collect();
    assert_eq!(repeated, [jobs[1].id, jobs[2].id]);
    assert_eq!(again.position(0), Some(3));
}

#[test]
fn a_way_that_is_down_is_asked_by_one_at_a_time_and_then_all_go() {
    let (mut desk, mut shelf) = (Desk::new(limits()), Shelf::default());
    planned(&mut desk, &mut shelf, 10, "ann", Channel::Email);
    let jobs = desk.take(T0, &NOW);
    assert_eq!(jobs.len(), 3, "the channel's share");
    for job in &jobs {
        desk.done(T0 + 10, job, &Outcome::down("refused"));
    }
    assert!(desk.take(T0 + 10, &NOW).is_empty());
    let wakes = desk.wakes_at().unwrap();
    assert!((T0 + 1_510..=T0 + 2_510).contains(&wakes), "three that failed together are one failure: {}", wakes - T0);
    let probe = desk.take(wakes, &NOW);
    assert_eq!(probe.len(), 1);
    desk.done(wakes, &probe[0], &Outcome::down("refused"));
    let wakes = desk.wakes_at().unwrap();
    let probe = desk.take(wakes, &NOW);
    assert_eq!(probe.len(), 1);
    desk.done(wakes, &probe[0], &Outcome::Sent);
    assert_eq!(desk.take(wakes, &NOW).len(), 3);
    assert_eq!(desk.down().count(), 0);
}

#[test]
fn the_pause_of_a_way_grows_to_a_minute_and_heeds_what_the_server_asks() {
    let (mut desk, mut shelf) = (Desk::new(limits()), Shelf::default());
    planned(&mut desk, &mut shelf, 1, "ann", Channel::Sms);
    let mut now = T0;
    for _ in 0..12 {
        let job = desk.take(now, &NOW).remove(0);
        desk.done(now, &job, &Outcome::down("503"));
        now = desk.wakes_at().unwrap().max(now);
    }
    let job = desk.take(now, &NOW).remove(0);
    desk.done(now, &job, &Outcome::down("503"));
    assert_eq!(desk.wakes_at(), Some(now + 60_000));
    now += 60_000;
    let job = desk.take(now, &NOW).remove(0);
    desk.done(now, &job, &Outcome::Later { why: "429".into(), everyone: true, after: Some(Duration::from_secs(120)) });
    assert_eq!(desk.wakes_at(), Some(now + 120_000));
}

#[test]
fn every_attempt_that_failed_is_saved_for_who_asks() {
    let (mut desk, mut shelf) = (Desk::new(limits()), Shelf::default());
    planned(&mut desk, &mut shelf, 1, "ann", Channel::Webhook);
    for attempts in 1..=3 {
        let now = desk.wakes_at().unwrap().max(T0);
        let job = desk.take(now, &NOW).remove(0);
        desk.done(now, &job, &Outcome::down("HTTP 500"));
        shelf.save(&mut desk);
        let (_, body) = &shelf.0[&SegmentKey { partition: 0, number: 0 }];
        let item = serde_json::from_slice::<Stored>(body).unwrap().items.remove(0);
        assert_eq!((item.attempts, &*item.note), (attempts, "HTTP 500"));
    }
}

#[test]
fn a_message_that_is_put_off_waits_alone() {
    let (mut desk, mut shelf) = (Desk::new(limits()), Shelf::default());
    planned(&mut desk, &mut shelf, 2, "ann", Channel::Email);
    let jobs = desk.take(T0, &NOW);
    desk.done(T0, &jobs[0], &Outcome::later("451 greylisted"));
    desk.done(T0, &jobs[1], &Outcome::Sent);
    assert!(desk.take(T0 + 1_000, &NOW).is_empty());
    let again = desk.take(T0 + 3_000, &NOW);
    assert_eq!(again.iter().map(|job| job.id).collect::<Vec<_>>(), [jobs[0].id]);
}

#[test]
fn a_refusal_ends_one_and_a_day_ends_all() {
    let (mut desk, mut shelf) = (Desk::new(limits()), Shelf::default());
    planned(&mut desk, &mut shelf, 5, "ann", Channel::Email);
    let jobs = desk.take(T0, &NOW);
    desk.done(T0, &jobs[0], &Outcome::refused("550 no such user"));
    desk.done(T0, &jobs[1], &Outcome::down("x"));
    desk.done(T0, &jobs[2], &Outcome::later("451"));
    assert_eq!(words(&mut desk), [("refused", 1), ("retried", 2)]);
    desk.sweep(T0 + 24 * HOUR - 1, &NOW);
    assert_eq!(desk.pending(), 4);
    desk.sweep(T0 + 24 * HOUR, &NOW);
    assert_eq!((desk.pending(), words(&mut desk)), (0, vec![("expired", 4)]));
    shelf.save(&mut desk);
    let again = shelf.reopen(T0, limits(), |_, _| None);
    assert_eq!(again.pending(), 0);
}

#[test]
fn quiet_hours_end_in_one_digest() {
    let (mut desk, mut shelf) = (Desk::new(limits()), Shelf::default());
    planned(&mut desk, &mut shelf, 4, "ann", Channel::Email);
    let quiet = Want(Verdict::Hold { until: T0 + 7 * HOUR, why: Held::QuietHours });
    assert!(desk.take(T0, &quiet).is_empty());
    assert_eq!((desk.held(), desk.wakes_at()), (4, Some(T0 + 7 * HOUR)));
    shelf.save(&mut desk);
    // A restart in the night loses nothing.
    let mut desk = shelf.reopen(T0 + HOUR, limits(), |_, offset| Some(raised(offset, Priority::High, T0)));
    assert!(desk.take(T0 + 7 * HOUR - 1, &quiet).is_empty());
    assert!(desk.take(T0 + 7 * HOUR, &NOW).is_empty(), "the digest is saved first");
    shelf.save(&mut desk);
    let jobs = desk.take(T0 + 7 * HOUR, &NOW);
    assert_eq!(jobs.len(), 1);
    assert_eq!((jobs[0].digest, jobs[0].contents.len()), (true, 4));
    // A kill before it is confirmed: the same digest again, though more was held meanwhile.
    let mut again = shelf.reopen(T0 + 7 * HOUR, limits(), |_, offset| Some(raised(offset, Priority::High, T0)));
    let repeated = again.take(T0 + 7 * HOUR, &NOW);
    assert_eq!((repeated.len(), repeated[0].id), (1, jobs[0].id));
    again.done(T0 + 8 * HOUR, &repeated[0], &Outcome::Sent);
    assert_eq!((again.pending(), words(&mut again)), (0, vec![("sent", 4)]));
}

#[test]
fn one_that_waited_alone_goes_out_as_itself() {
    let (mut desk, mut shelf) = (Desk::new(limits()), Shelf::default());
    planned(&mut desk, &mut shelf, 1, "ann", Channel::Email);
    // Longer than a day: what was held is not dead.
    desk.take(T0, &Want(Verdict::Hold { until: T0 + 50 * HOUR, why: Held::Snooze }));
    desk.sweep(T0 + 49 * HOUR, &Want(Verdict::Hold { until: T0 + 50 * HOUR, why: Held::Snooze }));
    desk.take(T0 + 50 * HOUR, &NOW);
    shelf.save(&mut desk);
    let jobs = desk.take(T0 + 50 * HOUR, &NOW);
    assert_eq!((jobs.len(), jobs[0].digest), (1, false));
    assert_eq!(jobs[0].id, DeliveryId::of(RaisedId { shard: 0, seq: 0, index: 0 }, &place("ann", Channel::Email)));
}

#[test]
fn who_changed_their_mind_meanwhile_hears_nothing() {
    let (mut desk, mut shelf) = (Desk::new(limits()), Shelf::default());
    planned(&mut desk, &mut shelf, 2, "ann", Channel::Email);
    desk.take(T0, &Want(Verdict::Hold { until: T0 + HOUR, why: Held::Snooze }));
    desk.take(T0 + HOUR, &Want(Verdict::Never(Never::Disabled)));
    assert_eq!((desk.pending(), words(&mut desk)), (0, vec![("held", 2), ("unwanted", 2)]));
}

#[test]
fn a_storm_is_a_few_messages_and_one_summary() {
    let storm = Limits { storm_per_minute: 3, channel_in_flight: 100, ..limits() };
    let (mut desk, mut shelf) = (Desk::new(storm), Shelf::default());
    planned(&mut desk, &mut shelf, 50, "ann", Channel::Email);
    let jobs = desk.take(T0, &NOW);
    assert_eq!(jobs.len(), 3);
    jobs.iter().for_each(|job| desk.done(T0, job, &Outcome::Sent));
    assert!(desk.take(T0 + MINUTE - 1, &NOW).is_empty());
    desk.take(T0 + MINUTE, &NOW);
    shelf.save(&mut desk);
    let summary = desk.take(T0 + MINUTE, &NOW);
    assert_eq!((summary.len(), summary[0].contents.len()), (1, 47));
}

#[test]
fn old_news_are_gathered_into_one_digest_after_an_outage() {
    let (mut desk, mut shelf) = (Desk::new(limits()), Shelf::default());
    planned(&mut desk, &mut shelf, 30, "ann", Channel::Email);
    let jobs = desk.take(T0, &NOW);
    jobs.iter().for_each(|job| desk.done(T0, job, &Outcome::down("down")));
    let later = T0 + 2 * HOUR;
    desk.plan(later, 0, 30, Some(&raised(30, Priority::Urgent, later)), vec![place("ann", Channel::Email)]);
    shelf.save(&mut desk);
    let jobs = desk.take(later, &NOW);
    assert_eq!(jobs.iter().map(|job| job.contents[0].id.seq).collect::<Vec<_>>(), [30], "what is new goes as what it is");
    desk.done(later, &jobs[0], &Outcome::Sent);
    assert!(desk.take(later, &NOW).is_empty());
    desk.take(later + GATHER_MS, &NOW);
    shelf.save(&mut desk);
    let digest = desk.take(later + GATHER_MS, &NOW);
    assert_eq!((digest.len(), digest[0].contents.len()), (1, 30));
}

#[test]
fn what_is_urgent_overtakes_and_a_long_queue_does_not_keep_others_waiting() {
    let (mut desk, mut shelf) = (Desk::new(Limits { channel_in_flight: 2, ..limits() }), Shelf::default());
    planned(&mut desk, &mut shelf, 20, "ann", Channel::Email);
    desk.plan(T0, 0, 20, Some(&raised(20, Priority::Urgent, T0)), vec![place("bob", Channel::Email)]);
    desk.plan(T0, 0, 21, Some(&raised(21, Priority::Low, T0)), vec![place("ann", Channel::Webhook), place("bob", Channel::Webhook)]);
    shelf.save(&mut desk);
    let jobs = desk.take(T0, &NOW);
    assert_eq!(jobs.iter().filter(|job| job.place.channel == Channel::Email).map(|job| job.contents[0].id.seq).min(), Some(0));
    assert!(jobs.iter().any(|job| job.contents[0].id.seq == 20), "{jobs:?}");
    let webhooks: Vec<_> = jobs.iter().filter(|job| job.place.channel == Channel::Webhook).map(|job| &*job.place.user).collect();
    assert_eq!(webhooks.len(), 2, "one person's broken webhook is not another's");
}

#[test]
fn segments_fill_up_and_the_settled_ones_are_forgotten_but_never_the_newest() {
    let (mut desk, mut shelf) = (Desk::new(Limits { channel_in_flight: 10_000, ..limits() }), Shelf::default());
    planned(&mut desk, &mut shelf, 1_000, "ann", Channel::Email);
    assert_eq!(shelf.0.len(), 4);
    assert!(desk.outlived().is_empty());
    for job in desk.take(T0, &NOW) {
        desk.done(T0, &job, &Outcome::Sent);
    }
    shelf.save(&mut desk);
    let outlived: Vec<_> = desk.outlived().into_iter().map(|(key, _)| key.number).collect();
    assert_eq!(outlived, [0, 1], "one is kept to be shown, and the newest is the position");
    desk.forgotten(SegmentKey { partition: 0, number: 0 });
    assert_eq!(desk.position(0), Some(1_000));
}

#[test]
fn a_position_without_deliveries_is_saved_now_and_then_and_at_the_end() {
    let mut desk = Desk::new(limits());
    let mut shelf = Shelf::default();
    desk.begin_at(0, 500);
    shelf.save(&mut desk);
    for offset in 500..1_400 {
        desk.plan(T0, 0, offset, None, Vec::new());
    }
    assert!(desk.to_save().is_empty());
    assert_eq!(desk.to_save_at_the_end().len(), 1);
    for offset in 1_400..1_500 {
        desk.plan(T0, 0, offset, None, Vec::new());
    }
    assert_eq!(desk.to_save().len(), 1);
    shelf.save(&mut desk);
    assert_eq!(shelf.reopen(T0, limits(), |_, _| None).position(0), Some(1_500));
}

#[test]
fn a_notification_that_the_log_no_longer_has_is_lost_and_said_so() {
    let (mut desk, mut shelf) = (Desk::new(limits()), Shelf::default());
    planned(&mut desk, &mut shelf, 2, "ann", Channel::Email);
    let mut again = shelf.reopen(T0, limits(), |_, offset| (offset == 1).then(|| raised(1, Priority::High, T0)));
    assert_eq!((again.pending(), words(&mut again)), (1, vec![("lost", 1)]));
}

#[test]
fn a_snooze_that_is_taken_back_lets_go_what_it_held_and_nothing_else() {
    let (mut desk, mut shelf) = (Desk::new(limits()), Shelf::default());
    planned(&mut desk, &mut shelf, 3, "ann", Channel::Email);
    let snooze = Want(Verdict::Hold { until: T0 + 50 * HOUR, why: Held::Snooze });
    assert!(desk.take(T0, &snooze).is_empty());
    desk.look_again(T0 + 1, &snooze);
    assert_eq!((desk.held(), desk.wakes_at()), (3, Some(T0 + 50 * HOUR)), "it goes on");
    desk.look_again(T0 + MINUTE, &NOW);
    assert_eq!(desk.wakes_at(), Some(T0 + MINUTE));
    assert!(desk.take(T0 + MINUTE, &NOW).is_empty(), "the digest is saved first");
    shelf.save(&mut desk);
    let jobs = desk.take(T0 + MINUTE, &NOW);
    assert_eq!((jobs.len(), jobs[0].contents.len(), &jobs[0].reasons[..]), (1, 3, &[Held::Snooze][..]));
    // A storm is nobody's wish.
    let mut desk = Desk::new(Limits { storm_per_minute: 1, ..limits() });
    planned(&mut desk, &mut Shelf::default(), 3, "ann", Channel::Email);
    desk.take(T0, &NOW);
    desk.look_again(T0 + 1, &NOW);
    assert_eq!(desk.held(), 2);
    assert!(desk.take(T0 + 2, &NOW).is_empty());
}

#[test]
fn a_digest_asks_again_whether_it_may_go() {
    let (mut desk, mut shelf) = (Desk::new(limits()), Shelf::default());
    planned(&mut desk, &mut shelf, 2, "ann", Channel::Email);
    let until = |hours| Want(Verdict::Hold { until: T0 + hours * HOUR, why: Held::Snooze });
    desk.take(T0, &until(1));
    assert!(desk.take(T0 + HOUR, &NOW).is_empty());
    shelf.save(&mut desk);
    assert!(desk.take(T0 + HOUR, &until(9)).is_empty(), "a new snooze holds the digest");
    assert_eq!(desk.take(T0 + HOUR + MINUTE, &NOW).len(), 1, "and is taken back");
}

#[test]
fn what_was_held_is_one_digest_however_much_it_is_the_most_urgent_first() {
    let (mut desk, mut shelf) = (Desk::new(limits()), Shelf::default());
    for seq in 0..1_200 {
        let priority = if seq == 700 { Priority::Urgent } else { Priority::Low };
        desk.plan(T0, 0, seq, Some(&raised(seq, priority, T0)), vec![place("ann", Channel::Email)]);
    }
    shelf.save(&mut desk);
    desk.take(T0, &Want(Verdict::Hold { until: T0 + HOUR, why: Held::Snooze }));
    desk.take(T0 + HOUR, &NOW);
    shelf.save(&mut desk);
    let jobs = desk.take(T0 + HOUR, &NOW);
    assert_eq!((jobs.len(), jobs[0].contents.len()), (1, 1_200));
    assert_eq!(jobs[0].contents.iter().take(3).map(|raised| raised.id.seq).collect::<Vec<_>>(), [700, 0, 1]);
    desk.done(T0 + HOUR, &jobs[0], &Outcome::Sent);
    assert_eq!((desk.pending(), words(&mut desk)), (0, vec![("held", 1_200), ("sent", 1_200)]));
}

#[test]
fn a_storm_is_counted_by_person_not_by_channel_or_device() {
    let storm = Limits { storm_per_minute: 3, channel_in_flight: 100, place_in_flight: 100, ..limits() };
    let (mut desk, mut shelf) = (Desk::new(storm), Shelf::default());
    let phone = Place { target: "phone".into(), ..place("ann", Channel::Push) };
    let places = [place("ann", Channel::Email), place("ann", Channel::Webhook), phone];
    // The first two go out over all ways, the others over one each.
    for seq in 0..2 {
        desk.plan(T0, 0, seq, Some(&raised(seq, Priority::High, T0)), places.to_vec());
    }
    for seq in 2..5 {
        let at = usize::try_from(seq).unwrap() - 2;
        desk.plan(T0, 0, seq, Some(&raised(seq, Priority::High, T0)), vec![places[at].clone()]);
    }
    shelf.save(&mut desk);
    let jobs = desk.take(T0, &NOW);
    let seqs: BTreeSet<u64> = jobs.iter().map(|job| job.contents[0].id.seq).collect();
    assert_eq!((jobs.len(), seqs.len(), desk.held()), (7, 3, 2), "three notifications, two of them over three ways");
}

fn notice(seq: u64, priority: Priority) -> Arc<Raised> {
    let id = RaisedId { shard: super::super::notice::NO_SHARD, seq, index: 0 };
    Arc::new(Raised { id, account: None, owner: Some("ann".into()), ..raised(0, priority, T0).as_ref().clone() })
}

#[test]
fn a_notice_joins_the_digest_of_what_was_held_and_none_is_passed_over_for_the_next() {
    let (mut desk, mut shelf) = (Desk::new(limits()), Shelf::default());
    planned(&mut desk, &mut shelf, 2, "ann", Channel::Email);
    let snooze = Want(Verdict::Hold { until: T0 + 80 * HOUR, why: Held::Snooze });
    for (seq, day) in [(7, 0), (8, 2)] {
        let now = T0 + day * 24 * HOUR;
        for _ in 0..2 {
            desk.plan_notice(now, &notice(seq, Priority::High), vec![place("ann", Channel::Email)]);
        }
        assert!(!desk.has_saved_notices());
        shelf.save(&mut desk);
        assert!(desk.has_saved_notices());
        assert!(desk.take(now, &snooze).is_empty());
    }
    shelf.save(&mut desk);
    // The log does not have it: what it says is kept with it until it is settled.
    let log = |partition, offset| (partition == 0).then(|| raised(offset, Priority::High, T0));
    let mut desk = shelf.reopen(T0 + 79 * HOUR, limits(), log);
    desk.plan_notice(T0 + 79 * HOUR, &notice(8, Priority::High), vec![place("ann", Channel::Email)]);
    assert!(desk.wanted().iter().all(|(partition, _)| *partition == 0));
    desk.take(T0 + 80 * HOUR, &NOW);
    shelf.save(&mut desk);
    let jobs = desk.take(T0 + 80 * HOUR, &NOW);
    assert_eq!(jobs.iter().map(|job| job.contents.len()).collect::<Vec<_>>(), [4]);
    desk.done(T0 + 80 * HOUR, &jobs[0], &Outcome::Sent);
    shelf.save(&mut desk);
    assert!(shelf.0.values().all(|(_, body)| !String::from_utf8_lossy(body).contains("message")), "it is not kept for longer");
}

#[test]
fn a_notice_counts_in_a_storm() {
    let storm = Limits { storm_per_minute: 3, channel_in_flight: 100, ..limits() };
    let (mut desk, mut shelf) = (Desk::new(storm), Shelf::default());
    for seq in 0..5 {
        desk.plan_notice(T0, &notice(seq, Priority::High), vec![place("ann", Channel::Email)]);
    }
    planned(&mut desk, &mut shelf, 2, "ann", Channel::Email);
    assert_eq!((desk.take(T0, &NOW).len(), desk.held()), (3, 4));
}

#[test]
fn notices_fill_smaller_segments_since_what_they_say_is_in_them() {
    let (mut desk, mut shelf) = (Desk::new(limits()), Shelf::default());
    for seq in 0..100 {
        desk.plan_notice(T0, &notice(seq, Priority::High), vec![place("ann", Channel::Email)]);
    }
    shelf.save(&mut desk);
    assert_eq!(shelf.0.len(), 4);
}
