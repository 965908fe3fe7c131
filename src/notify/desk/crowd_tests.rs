//! What is too much to be kept one by one, step by step.

use super::tests::{HOUR, NOW, Shelf, T0, limits, place, planned, raised};
use super::*;
use crate::notify::segment::Stored;
use crate::notify::states::States;

#[test]
fn whoever_has_too_much_waiting_is_told_how_much_and_keeps_nobody_else_waiting() {
    let few = Limits { pending_max: 1_000, channel_in_flight: 10_000, place_in_flight: 10_000, storm_per_minute: 10_000, ..limits() };
    let (mut desk, mut shelf) = (Desk::new(few.clone()), Shelf::default());
    let snoozes = |user: &UserId| if &**user == "ann" { Verdict::Hold { until: T0 + HOUR, why: Held::Snooze } } else { Verdict::Now };
    struct ByUser<F>(F);
    impl<F: Fn(&UserId) -> Verdict> Wishes for ByUser<F> {
        fn verdict(&self, user: &UserId, _: Channel, _: NotificationType, _: Priority, _: i64) -> Verdict {
            (self.0)(user)
        }
    }
    for seq in 0..5_000 {
        desk.plan(T0, 0, seq, Some(&raised(seq, Priority::High, T0)), vec![place("ann", Channel::Email)]);
        if seq % 500 == 0 {
            shelf.save(&mut desk);
            desk.take(T0, &ByUser(snoozes));
        }
    }
    assert_eq!(desk.pending(), few.place_max() + 1, "what is beyond is counted with one");
    for seq in 5_000..5_010 {
        desk.plan(T0, 0, seq, Some(&raised(seq, Priority::Low, T0)), vec![place("bob", Channel::Email)]);
    }
    shelf.save(&mut desk);
    assert_eq!(desk.take(T0, &ByUser(snoozes)).len(), 10);
    // The number outlives a restart.
    let mut desk = shelf.reopen(T0, few, |_, offset| Some(raised(offset, Priority::High, T0)));
    let bobs = desk.take(T0, &ByUser(snoozes));
    bobs.iter().for_each(|job| desk.done(T0, job, &Outcome::Sent));
    desk.plan(T0, 0, 5_010, Some(&raised(5_010, Priority::High, T0)), vec![place("ann", Channel::Email)]);
    desk.take(T0 + HOUR, &NOW);
    shelf.save(&mut desk);
    let jobs = desk.take(T0 + HOUR, &NOW);
    assert_eq!(jobs.len(), 1);
    assert_eq!(jobs[0].contents.len() as u64 + jobs[0].more, 5_001, "one digest that stands for all");
    assert_eq!(jobs[0].reasons, [Held::Snooze, Held::Storm]);
    desk.done(T0 + HOUR, &jobs[0], &Outcome::Sent);
    assert_eq!((desk.pending(), desk.crowds.len()), (0, 0));
}

#[test]
fn when_all_together_have_too_much_who_has_little_is_still_heard_of_one_by_one() {
    let few = Limits { pending_max: 1_000, ..limits() };
    let mut desk = Desk::new(few.clone());
    let mut offset = 0;
    let mut plan = |desk: &mut Desk, user: &str, count: u64| {
        for _ in 0..count {
            desk.plan(T0, 0, offset, Some(&raised(offset, Priority::High, T0)), vec![place(user, Channel::Webhook)]);
            offset += 1;
        }
    };
    for user in 0..10 {
        plan(&mut desk, &format!("u{user}"), 300);
    }
    let before = desk.pending();
    assert!(before <= few.pending_max + 10 * (Limits::FEW + 1), "{before}");
    plan(&mut desk, "late", 50);
    assert_eq!(desk.pending(), before + 50);
}

#[test]
fn what_is_urgent_is_not_counted_with_what_waits_for_the_morning() {
    struct Night;
    impl Wishes for Night {
        fn verdict(&self, _: &UserId, _: Channel, _: NotificationType, priority: Priority, _: i64) -> Verdict {
            let until = T0 + 8 * HOUR;
            if priority == Priority::Urgent { Verdict::Now } else { Verdict::Hold { until, why: Held::QuietHours } }
        }
    }
    let (mut desk, mut shelf) = (Desk::new(Limits { pending_max: 1_000, channel_in_flight: 1_000, ..limits() }), Shelf::default());
    for seq in 0..600 {
        desk.plan(T0, 0, seq, Some(&raised(seq, Priority::Low, T0)), vec![place("ann", Channel::Email)]);
    }
    shelf.save(&mut desk);
    assert!(desk.take(T0, &Night).is_empty());
    desk.plan(T0, 0, 600, Some(&raised(600, Priority::Urgent, T0)), vec![place("ann", Channel::Email)]);
    desk.plan(T0, 0, 601, Some(&raised(601, Priority::Urgent, T0)), vec![place("ann", Channel::Email)]);
    desk.take(T0, &Night);
    shelf.save(&mut desk);
    let jobs = desk.take(T0, &Night);
    assert_eq!(jobs.iter().map(|job| job.contents.len() as u64 + job.more).sum::<u64>(), 2, "{jobs:?}");
    assert!(jobs.iter().all(|job| job.contents.iter().all(|raised| raised.priority == Priority::Urgent)), "{jobs:?}");
}

#[test]
fn a_count_is_saved_with_the_position_that_it_belongs_to() {
    let few = Limits { pending_max: 500, ..limits() };
    let mut desk = Desk::new(few);
    let mut shelf = Shelf::default();
    let of = |seq| raised(seq, Priority::High, T0);
    // A place is crowded by partition 1; what comes in partition 0 is not counted there.
    for seq in 0..200 {
        desk.plan(T0, 1, seq, Some(&of(seq)), vec![place("ann", Channel::Email)]);
    }
    for seq in 200..300 {
        desk.plan(T0, 0, seq, Some(&of(seq)), vec![place("ann", Channel::Email)]);
    }
    shelf.save(&mut desk);
    for save in desk.to_save_at_the_end() {
        assert!(save.changes == 0, "all is saved: {save:?}");
    }
    for (key, (_, body)) in &shelf.0 {
        let stored: Stored = serde_json::from_slice(body).unwrap();
        let counted: u64 = stored.items.iter().map(|item| item.more + 1).sum();
        assert_eq!(counted, if key.partition == 1 { 200 } else { 100 }, "{key:?}");
        assert_eq!(stored.next, if key.partition == 1 { 200 } else { 300 });
    }
}

#[test]
fn a_kill_at_a_segment_s_end_counts_none_twice() {
    let few = Limits { pending_max: 500, ..limits() };
    let mut desk = Desk::new(few.clone());
    let mut shelf = Shelf::default();
    let of = |seq| raised(seq, Priority::High, T0);
    let total = |desk: &Desk| desk.segments.values().flat_map(|segment| &segment.items).map(|item| item.more + 1).sum::<u64>();
    // Ann is crowded, and the segment is full.
    for seq in 0..102 {
        desk.plan(T0, 0, seq, Some(&of(seq)), vec![place("ann", Channel::Email)]);
    }
    let mut last = 102;
    while desk.segments.len() == 1 {
        shelf.save(&mut desk);
        let places = [place("ann", Channel::Email), place(&format!("u{last}"), Channel::Email)];
        desk.plan(T0, 0, last, Some(&of(last)), places.to_vec());
        last += 1;
    }
    // Of the two segments that the last one has changed only the first is saved.
    let saves = desk.to_save();
    assert_eq!(saves.len(), 2);
    let held = shelf.0[&saves[0].key].0;
    shelf.0.insert(saves[0].key, (held + 1, saves[0].body.clone()));
    let expected = total(&desk);
    let mut again = shelf.reopen(T0, few, |_, offset| Some(of(offset)));
    let position = again.position(0).unwrap();
    assert_eq!(position, last - 1);
    let places = vec![place("ann", Channel::Email), place(&format!("u{position}"), Channel::Email)];
    again.plan(T0, 0, position, Some(&of(position)), places);
    assert_eq!(total(&again), expected);
    // And what comes then is counted.
    again.plan(T0, 0, last, Some(&of(last)), vec![place("ann", Channel::Email)]);
    assert_eq!(total(&again), expected + 1);
}

#[test]
fn who_asks_is_told_which_ones_are_counted_in_a_summary() {
    let few = Limits { pending_max: 100, ..limits() };
    let (mut desk, mut shelf) = (Desk::new(few), Shelf::default());
    planned(&mut desk, &mut shelf, 30, "ann", Channel::Email);
    let (_, body) = &shelf.0[&SegmentKey { partition: 0, number: 0 }];
    let states = States::holding(serde_json::from_slice::<Stored>(body).unwrap().items);
    let mut inbox: Vec<_> = (0..30).map(|seq| raised(seq, Priority::High, T0)).collect();
    inbox.push(raised(25, Priority::Low, T0));
    let of = states.of("ann", &inbox);
    let with = |state: &str| of.values().flatten().filter(|delivered| delivered.state == state).count();
    assert_eq!((with("pending"), with("held"), with("summarised")), (20, 1, 9));
    assert_eq!((of[&inbox[20].id].len(), of[&inbox[20].id][0].state, of[&inbox[21].id][0].state), (1, "held", "summarised"));
    assert_eq!(states.count("ann")["email"], [("pending", 20), ("held", 1), ("summarised", 9)].into());
    assert!(states.of("bob", &inbox).is_empty());
}

#[test]
fn a_restart_remembers_the_minute_of_a_storm() {
    let storm = Limits { storm_per_minute: 3, channel_in_flight: 100, ..limits() };
    let (mut desk, mut shelf) = (Desk::new(storm.clone()), Shelf::default());
    planned(&mut desk, &mut shelf, 2, "ann", Channel::Email);
    let jobs = desk.take(T0, &NOW);
    jobs.iter().for_each(|job| desk.done(T0 + 1_000, job, &Outcome::Sent));
    shelf.save(&mut desk);
    let mut again = shelf.reopen(T0 + 2_000, storm.clone(), |_, _| None);
    for seq in 2..5 {
        again.plan(T0 + 2_000, 0, seq, Some(&raised(seq, Priority::High, T0)), vec![place("ann", Channel::Email)]);
    }
    shelf.save(&mut again);
    let jobs = again.take(T0 + 2_000, &NOW);
    assert_eq!((jobs.len(), again.held()), (1, 2));
    again.done(T0 + 2_000, &jobs[0], &Outcome::Sent);
    assert_eq!(again.wakes_at(), Some(T0 + 61_000));
    // What went out in a digest is no storm.
    again.take(T0 + 61_000, &NOW);
    shelf.save(&mut again);
    let digest = again.take(T0 + 61_000, &NOW);
    digest.iter().for_each(|job| again.done(T0 + 61_000, job, &Outcome::Sent));
    shelf.save(&mut again);
    let mut again = shelf.reopen(T0 + 62_000, storm, |_, offset| Some(raised(offset, Priority::High, T0)));
    for seq in 5..8 {
        again.plan(T0 + 62_000, 0, seq, Some(&raised(seq, Priority::High, T0)), vec![place("ann", Channel::Email)]);
    }
    shelf.save(&mut again);
    again.take(T0 + 62_000, &NOW);
    assert_eq!(again.held(), 0);
}
