//! The day of a delivery, step by step.

use std::time::Duration;

use super::tests::{HOUR, MINUTE, NOW, Shelf, T0, Want, limits, planned, raised, words};
use super::*;

const QUIET: fn(i64) -> Want = |until| Want(Verdict::Hold { until, why: Held::QuietHours });

fn reopened(shelf: &Shelf, now: i64) -> Desk {
    shelf.reopen(now, limits(), |_, offset| Some(raised(offset, Priority::High, T0)))
}

#[test]
fn the_day_begins_at_the_hold_s_end_also_when_no_instance_ran_in_between() {
    let (mut desk, mut shelf) = (Desk::new(limits()), Shelf::default());
    planned(&mut desk, &mut shelf, 2, "ann", Channel::Email);
    desk.take(T0, &QUIET(T0 + HOUR));
    desk.take(T0 + HOUR, &NOW);
    shelf.save(&mut desk);
    // The digest is held once, and then nobody delivers until long after the hold's end.
    assert!(desk.take(T0 + 2 * HOUR, &QUIET(T0 + 60 * HOUR)).is_empty());
    shelf.save(&mut desk);
    let mut desk = reopened(&shelf, T0 + 100 * HOUR);
    desk.sweep(T0 + 100 * HOUR, &NOW);
    let jobs = desk.take(T0 + 100 * HOUR, &NOW);
    assert_eq!((jobs.len(), jobs.first().map(|job| job.contents.len())), (1, Some(2)));
    // From then on its day is counted, but for another time in which nobody delivers.
    desk.done(T0 + 100 * HOUR, &jobs[0], &Outcome::down("x"));
    shelf.save(&mut desk);
    let mut desk = reopened(&shelf, T0 + 120 * HOUR);
    shelf.save(&mut desk);
    let mut desk = reopened(&shelf, T0 + 120 * HOUR);
    // An hour of it was over before the second hold.
    desk.sweep(T0 + 143 * HOUR - 1, &NOW);
    assert_eq!(desk.pending(), 2);
    desk.sweep(T0 + 143 * HOUR, &NOW);
    assert_eq!((desk.pending(), words(&mut desk)), (0, vec![("expired", 2)]));
}

#[test]
fn one_that_was_held_alone_has_its_day_after_the_hold_also_when_no_instance_ran_in_between() {
    let (mut desk, mut shelf) = (Desk::new(limits()), Shelf::default());
    planned(&mut desk, &mut shelf, 1, "ann", Channel::Email);
    desk.take(T0, &QUIET(T0 + HOUR));
    shelf.save(&mut desk);
    let now = T0 + 50 * HOUR;
    let mut desk = reopened(&shelf, now);
    assert!(desk.take(now, &NOW).is_empty());
    shelf.save(&mut desk);
    assert_eq!(desk.take(now, &NOW).len(), 1);
}

#[test]
fn what_waits_while_nobody_delivers_does_not_expire_of_it() {
    let (mut desk, mut shelf) = (Desk::new(limits()), Shelf::default());
    planned(&mut desk, &mut shelf, 3, "ann", Channel::Email);
    // A snooze was made and ended meanwhile.
    let now = T0 + 70 * HOUR;
    let mut desk = reopened(&shelf, now);
    assert!(desk.take(now, &NOW).is_empty());
    desk.take(now + GATHER_MS, &NOW);
    shelf.save(&mut desk);
    let jobs = desk.take(now + GATHER_MS, &NOW);
    assert_eq!((jobs.len(), jobs.first().map(|job| job.contents.len())), (1, Some(3)), "it goes as old news");
}

#[test]
fn what_is_to_be_held_behind_a_way_that_is_down_does_not_expire_of_it() {
    let (mut desk, mut shelf) = (Desk::new(limits()), Shelf::default());
    planned(&mut desk, &mut shelf, 3, "ann", Channel::Webhook);
    // The receiver asks for an hour, in which the day ends and a snooze holds everything.
    let busy = Outcome::Later { why: "503".into(), everyone: true, after: Some(Duration::from_secs(3_600)) };
    let failed = T0 + 23 * HOUR + 30 * MINUTE;
    let jobs = desk.take(T0 + MINUTE, &NOW);
    jobs.iter().for_each(|job| desk.done(failed, job, &busy));
    let snooze = QUIET(T0 + 60 * HOUR);
    desk.sweep(T0 + 24 * HOUR, &snooze);
    assert_eq!((desk.pending(), desk.held()), (3, 3));
    desk.take(T0 + 60 * HOUR, &NOW);
    shelf.save(&mut desk);
    let jobs = desk.take(T0 + 60 * HOUR, &NOW);
    assert_eq!((jobs.len(), jobs.first().map(|job| job.contents.len())), (1, Some(3)));
}

#[test]
fn days_of_which_half_is_quiet_make_one_day() {
    let (mut desk, mut shelf) = (Desk::new(limits()), Shelf::default());
    planned(&mut desk, &mut shelf, 2, "ann", Channel::Email);
    desk.take(T0, &QUIET(T0 + HOUR));
    desk.take(T0 + HOUR, &NOW);
    shelf.save(&mut desk);
    for hour in 1..48 {
        let now = T0 + hour * HOUR;
        let wishes = if hour % 24 >= 12 { QUIET(T0 + (hour / 24 + 1) * 24 * HOUR) } else { NOW };
        desk.sweep(now, &wishes);
        desk.take(now, &wishes).iter().for_each(|job| desk.done(now, job, &Outcome::down("x")));
        shelf.save(&mut desk);
        assert_eq!(desk.pending(), 2, "{hour}");
    }
    desk.sweep(T0 + 48 * HOUR, &NOW);
    desk.sweep(T0 + 49 * HOUR, &NOW);
    assert_eq!(desk.pending(), 0);
}

#[test]
fn a_hold_that_is_taken_back_gives_no_longer_day() {
    for count in [1, 2] {
        let (mut desk, mut shelf) = (Desk::new(limits()), Shelf::default());
        planned(&mut desk, &mut shelf, count, "ann", Channel::Email);
        desk.take(T0, &QUIET(T0 + 500 * HOUR));
        desk.look_again(T0 + HOUR, &NOW);
        desk.take(T0 + HOUR, &NOW);
        shelf.save(&mut desk);
        assert!(desk.take(T0 + HOUR, &QUIET(T0 + 500 * HOUR)).is_empty());
        desk.look_again(T0 + 2 * HOUR, &NOW);
        let mut jobs = desk.take(T0 + 2 * HOUR, &NOW);
        shelf.save(&mut desk);
        jobs.extend(desk.take(T0 + 2 * HOUR, &NOW));
        assert_eq!(jobs.len(), 1);
        desk.done(T0 + 2 * HOUR, &jobs[0], &Outcome::down("x"));
        desk.sweep(T0 + 26 * HOUR, &NOW);
        assert_eq!(desk.pending(), 0, "{count}");
    }
}

#[test]
fn a_digest_that_is_snoozed_for_days_does_not_expire_also_over_restarts() {
    let (mut desk, mut shelf) = (Desk::new(limits()), Shelf::default());
    planned(&mut desk, &mut shelf, 2, "ann", Channel::Email);
    let snooze = |until| Want(Verdict::Hold { until, why: Held::Snooze });
    desk.take(T0, &snooze(T0 + HOUR));
    desk.take(T0 + HOUR, &NOW);
    shelf.save(&mut desk);
    for hours in 1..70 {
        let now = T0 + hours * HOUR;
        for minute in 0..60 {
            assert!(desk.take(now + minute * MINUTE, &snooze(T0 + 70 * HOUR)).is_empty());
            desk.sweep(now + minute * MINUTE, &snooze(T0 + 70 * HOUR));
            shelf.save(&mut desk);
        }
        if hours % 7 == 0 {
            desk = shelf.reopen(now + HOUR, limits(), |_, offset| Some(raised(offset, Priority::High, T0)));
        }
    }
    let jobs = desk.take(T0 + 70 * HOUR, &NOW);
    assert_eq!((jobs.len(), jobs[0].contents.len()), (1, 2));
    // From then on it has its day.
    desk.done(T0 + 70 * HOUR, &jobs[0], &Outcome::down("x"));
    desk.sweep(T0 + 90 * HOUR, &NOW);
    assert_eq!(desk.pending(), 2);
    desk.sweep(T0 + 95 * HOUR, &NOW);
    assert_eq!(desk.pending(), 0);
}
