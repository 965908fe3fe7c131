//! The courier: reads notifications, lays them on the desk, carries out what the desk hands out, saves what the desk has to keep.
//!
//! Invariant: of several instances one delivers at a time. Who delivers has a lease in the directory, and hands out nothing when its own
//! clock says that the lease may be over; whatever it saves replaces the version that it knows, so one who was replaced is told so by the
//! first thing that it saves. One loop owns the desk; attempts are tasks of their own, bounded by the desk. Deliberately absent: any way for
//! a slow receiver to hold up this loop, and for this loop to hold up anyone else.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use metrics::{counter, gauge, histogram};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use super::delivery::Outcome;
use super::desk::{Desk, Job, Save, Told};
use super::follow::{Batch, Follower, extents, fetch};
use super::message::Message;
use super::notice::{Waiting, handed_over};
use super::people::Subscriptions;
use super::raised::RaisedId;
use super::segment::{SegmentKey, Stored};
use super::service::{Shared, pause};
use super::{Channel, UserId, now_ms};
use crate::control::directory::WriteError;
use crate::directory::Kind;
use crate::log::LogError;
use crate::telemetry::{NOTIFY_DELIVERIES, NOTIFY_DELIVERY_SECONDS, NOTIFY_DOWN, NOTIFY_HELD, NOTIFY_PENDING};

/// Records taken at once: the plans of so many are saved together.
const READ_MAX: usize = 64;
const LEADER: &str = "leader";
const PAUSE: Duration = Duration::from_secs(1);
const SWEEP_EVERY: Duration = Duration::from_secs(30);
/// A snooze or quiet hours that are taken back are noticed within this.
const LOOK_AGAIN_EVERY: Duration = Duration::from_secs(2);
/// The loop looks around at least this often.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Settled segments erased at once.
const FORGET_MAX: usize = 16;

/// Who delivers, and until when.
#[derive(Debug, Serialize, Deserialize)]
struct Lease {
    holder: String,
    until: i64,
}

/// Why delivering ended.
#[derive(Debug)]
enum End {
    /// The notifier stops.
    Stopped,
    /// Somebody else delivers.
    Deposed,
    /// The log cannot be read.
    Log(LogError),
}

/// What was saved, and why not all.
type Saved = (Vec<(Save, u64)>, Option<Unsaved>);

/// Why a segment was not saved.
#[derive(Debug)]
enum Unsaved {
    /// What stands there is an earlier state of ours, whose write was not confirmed: the next one replaces this version.
    Behind(SegmentKey, u64),
    /// The directory.
    Write(WriteError),
}

/// The courier.
pub(super) struct Courier {
    shared: Arc<Shared>,
    actor: String,
    lease_version: u64,
    lease_until: i64,
}

/// What a round of delivering works with.
struct Round {
    desk: Desk,
    follower: Follower,
    at_end: bool,
    jobs: JoinSet<(Job, Outcome)>,
    saving: Option<JoinHandle<Saved>>,
    save_at: Instant,
    look_at: Instant,
    sweep_at: Instant,
    renew_at: Instant,
    waiting: Waiting,
    /// Notices that are on the desk, and not noted as handed over.
    noticed: BTreeMap<UserId, Vec<RaisedId>>,
}

impl Courier {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let actor = format!("ordergate/{}", shared.options.instance);
        // increase() does not see a counter's first event, so that those of the alarms are there before it.
        for channel in shared.channels.ready() {
            for result in ["expired", "lost", "dropped"] {
                counter!(NOTIFY_DELIVERIES, "channel" => channel.as_str(), "result" => result).absolute(0);
            }
        }
        Self { shared, actor, lease_version: 0, lease_until: i64::MAX }
    }

    pub(super) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        while !*stop.borrow() {
            if !self.claim().await {
                tokio::select! {
                    () = tokio::time::sleep(PAUSE) => {}
                    _ = stop.changed() => {}
                }
                continue;
            }
            match self.deliver(&mut stop).await {
                End::Stopped => break,
                End::Deposed => tracing::warn!("another instance delivers notifications now"),
                End::Log(error) => pause(&error).await,
            }
            rest();
        }
        rest();
        self.release().await;
    }

    /// Takes or renews the lease; whether it is ours.
    async fn claim(&mut self) -> bool {
        let Some(length) = self.shared.options.lease else { return true };
        let now = now_ms();
        let held = self.shared.directory.get(Kind::Delivery, LEADER);
        let lease = held.as_ref().and_then(|entity| serde_json::from_slice::<Lease>(&entity.body).ok());
        if lease.is_some_and(|lease| lease.holder != self.actor && lease.until > now) {
            return false;
        }
        let until = now.saturating_add(i64::try_from(length.as_millis()).unwrap_or(i64::MAX));
        self.write_lease(held.map_or(0, |entity| entity.version), until).await
    }

    async fn write_lease(&mut self, version: u64, until: i64) -> bool {
        let lease = Lease { holder: self.actor.clone(), until };
        let Ok(body) = serde_json::to_vec(&lease) else { return false };
        match self.shared.directory.write(Kind::Delivery, LEADER, version, Some(body), &self.actor).await {
            Ok(entity) => {
                (self.lease_version, self.lease_until) = (entity.version, until);
                true
            }
            Err(error) => {
                tracing::debug!(%error, "the lease to deliver notifications was not had");
                false
            }
        }
    }

    async fn release(&mut self) {
        if self.shared.options.lease.is_some() && self.lease_until > now_ms() && self.lease_version > 0 {
            self.write_lease(self.lease_version, 0).await;
        }
    }

    /// Whether what we hand out now will have ended when another one may begin; a part of the lease is left for that.
    fn may_hand_out(&self, now: i64) -> bool {
        let Some(length) = self.shared.options.lease else { return true };
        let margin = i64::try_from(length.as_millis() / 3).unwrap_or(i64::MAX);
        now < self.lease_until.saturating_sub(margin)
    }

    async fn deliver(&mut self, stop: &mut watch::Receiver<bool>) -> End {
        let mut round = match self.open().await {
            Ok(round) => round,
            Err(error) => return End::Log(error),
        };
        tracing::info!(pending = round.desk.pending(), "delivering notifications");
        loop {
            if let Err(end) = self.step(&mut round).await {
                if matches!(end, End::Log(_)) {
                    // What was delivered is saved, if it can be: it would be sent again.
                    self.finish(round).await;
                }
                return end;
            }
            tell(&mut round.desk);
            let wake = wakes_in(&round);
            tokio::select! {
                Some(done) = round.jobs.join_next() => self.take_outcome(&mut round.desk, done),
                saved = wait_for(&mut round.saving) => {
                    if let Err(end) = self.take_saved(&mut round, saved) { return end; }
                }
                () = round.follower.wait(), if round.at_end => round.at_end = false,
                () = tokio::time::sleep(wake) => {}
                _ = stop.changed() => {
                    self.finish(round).await;
                    return End::Stopped;
                }
            }
        }
    }

    /// What the directory has, on the desk, with its notifications.
    async fn open(&self) -> Result<Round, LogError> {
        let mut desk = Desk::new(self.shared.options.limits.clone());
        for entity in self.shared.directory.list(Kind::Delivery) {
            let Some(key) = SegmentKey::parse(&entity.id) else { continue };
            match serde_json::from_slice::<Stored>(&entity.body) {
                Ok(stored) => desk.load(key, entity.version, stored),
                Err(error) => tracing::error!(%error, id = entity.id, "deliveries in the directory cannot be read"),
            }
        }
        let contents = fetch(&self.shared.topics, &desk.wanted()).await?;
        desk.open(now_ms(), |partition, offset| contents.get(&(partition, offset)).cloned());
        let mut positions = BTreeMap::new();
        for extent in extents(&self.shared.topics).await? {
            // Who begins to deliver has not asked for the news of years: they are in the inbox.
            let position = desk.position(extent.partition).unwrap_or_else(|| {
                desk.begin_at(extent.partition, extent.next);
                extent.next
            });
            positions.insert(extent.partition, position);
        }
        let now = Instant::now();
        Ok(Round {
            desk,
            follower: Follower::new(self.shared.topics.clone(), positions, self.shared.audience.clone()),
            at_end: false,
            jobs: JoinSet::new(),
            saving: None,
            save_at: now,
            look_at: now,
            sweep_at: now + SWEEP_EVERY,
            renew_at: now + self.renew_every(),
            waiting: Waiting::default(),
            noticed: BTreeMap::new(),
        })
    }

    fn renew_every(&self) -> Duration {
        self.shared.options.lease.map_or(Duration::from_secs(3_600), |lease| lease / 4)
    }

    /// Everything that is due.
    async fn step(&mut self, round: &mut Round) -> Result<(), End> {
        if Instant::now() >= round.renew_at {
            round.renew_at = Instant::now() + self.renew_every();
            if !self.claim().await && now_ms() >= self.lease_until {
                return Err(End::Deposed);
            }
        }
        if !round.at_end {
            match round.follower.next(READ_MAX).await {
                Ok(Some(batch)) => self.plan(&mut round.desk, batch),
                Ok(None) => round.at_end = true,
                Err(error) => return Err(End::Log(error)),
            }
        }
        while let Some(done) = round.jobs.try_join_next() {
            self.take_outcome(&mut round.desk, done);
        }
        let now = now_ms();
        if self.may_hand_out(now) {
            for job in round.desk.take(now, &self.shared.book) {
                let shared = self.shared.clone();
                round.jobs.spawn(async move {
                    let outcome = attempt(&shared, &job).await;
                    (job, outcome)
                });
            }
        }
        if Instant::now() >= round.look_at {
            round.look_at = Instant::now() + LOOK_AGAIN_EVERY;
            round.desk.look_again(now, &self.shared.book);
            self.take_notices(round, now).await;
        }
        if Instant::now() >= round.sweep_at {
            round.sweep_at = Instant::now() + SWEEP_EVERY;
            round.desk.sweep(now, &self.shared.book);
            self.forget(&mut round.desk).await;
        }
        self.begin_saving(round);
        Ok(())
    }

    fn plan(&self, desk: &mut Desk, batch: Batch) {
        let now = now_ms();
        for (offset, raised) in batch.records {
            let places = raised.as_ref().map_or_else(Vec::new, |raised| {
                let hearers = self.shared.hearers(raised);
                hearers.iter().flat_map(|user| self.shared.book.places(user, raised.kind, raised.priority, now)).collect()
            });
            desk.plan(now, batch.partition, offset, raised.as_ref(), places);
        }
    }

    /// Lays notices on the desk, and notes of those that it has saved that they are handed over.
    async fn take_notices(&self, round: &mut Round, now: i64) {
        if !round.noticed.is_empty() && round.desk.has_saved_notices() {
            for (user, ids) in std::mem::take(&mut round.noticed) {
                if let Err(error) = handed_over(&self.shared.book, &user, &ids, &self.actor).await {
                    tracing::warn!(%error, %user, "that notices are being delivered could not be noted; it is tried again");
                }
            }
        }
        for (user, raised) in round.waiting.look(&self.shared.directory) {
            let places = self.shared.book.places(&user, raised.kind, raised.priority, now);
            round.desk.plan_notice(now, &raised, places);
            let noticed = round.noticed.entry(user).or_default();
            if !noticed.contains(&raised.id) {
                noticed.push(raised.id);
            }
        }
    }

    fn take_outcome(&self, desk: &mut Desk, done: Result<(Job, Outcome), tokio::task::JoinError>) {
        match done {
            Ok((job, outcome)) => {
                if let Outcome::Gone { why } = &outcome {
                    tokio::spawn(drop_address(self.shared.clone(), job.clone(), why.clone(), self.actor.clone()));
                }
                desk.done(now_ms(), &job, &outcome);
            }
            // Its way stays occupied until the next start; nothing is lost.
            Err(error) => tracing::error!(%error, "an attempt to deliver ended badly"),
        }
    }

    fn begin_saving(&self, round: &mut Round) {
        if round.saving.is_some() || Instant::now() < round.save_at {
            return;
        }
        let saves = round.desk.to_save();
        if !saves.is_empty() {
            round.saving = Some(tokio::spawn(save(self.shared.clone(), self.actor.clone(), saves)));
        }
    }

    fn take_saved(&self, round: &mut Round, saved: Saved) -> Result<(), End> {
        round.saving = None;
        let (done, error) = saved;
        for (save, version) in &done {
            round.desk.saved(save, *version);
        }
        // The first is saved at once, what comes soon after it together: on the embedded log decisions wait for the same disk.
        round.save_at = Instant::now() + self.shared.options.save_every;
        match error {
            None => Ok(()),
            Some(Unsaved::Write(WriteError::Conflict { .. })) => Err(End::Deposed),
            Some(Unsaved::Behind(key, version)) => {
                round.desk.adopt(key, version);
                Ok(())
            }
            Some(Unsaved::Write(error)) => {
                tracing::warn!(%error, "deliveries could not be saved; it is tried again");
                round.save_at = Instant::now() + PAUSE;
                Ok(())
            }
        }
    }

    async fn forget(&self, desk: &mut Desk) {
        for (key, version) in desk.outlived().into_iter().take(FORGET_MAX) {
            match self.shared.directory.write(Kind::Delivery, &key.entity(), version, None, &self.actor).await {
                Ok(_) => desk.forgotten(key),
                Err(error) => return tracing::warn!(%error, "settled deliveries could not be erased; it is tried again"),
            }
        }
    }

    /// Lets what is under way end and saves what it came to.
    async fn finish(&self, mut round: Round) {
        let deadline = Instant::now() + self.shared.options.stop_within;
        while let Ok(Some(done)) = tokio::time::timeout_at(deadline, round.jobs.join_next()).await {
            self.take_outcome(&mut round.desk, done);
        }
        if round.saving.is_some() {
            let saved = wait_for(&mut round.saving).await;
            if self.take_saved(&mut round, saved).is_err() {
                return;
            }
        }
        let saves = round.desk.to_save_at_the_end();
        if let (_, Some(error)) = save(self.shared.clone(), self.actor.clone(), saves).await {
            tracing::warn!(?error, "deliveries could not be saved at the end: some may be repeated");
        }
        tell(&mut round.desk);
    }
}

async fn attempt(shared: &Shared, job: &Job) -> Outcome {
    let (user, contents) = (job.place.user.clone(), job.contents.clone());
    let message = Message { id: job.id, user, contents, more: job.more, digest: job.digest, reasons: job.reasons.clone(), test: false };
    shared.channels.send(&shared.book, &message, &job.place, now_ms()).await
}

/// Saves segments in order, up to the first that is not taken.
async fn save(shared: Arc<Shared>, actor: String, saves: Vec<Save>) -> Saved {
    let mut done = Vec::with_capacity(saves.len());
    for save in saves {
        let id = save.key.entity();
        match shared.directory.write(Kind::Delivery, &id, save.version, Some(save.body.clone()), &actor).await {
            Ok(entity) => done.push((save, entity.version)),
            Err(error) => {
                // A write that was not confirmed may have counted all the same: then what stands there is ours.
                let held = shared.directory.get(Kind::Delivery, &id);
                match held.filter(|entity| entity.actor == actor && entity.version > save.version) {
                    Some(entity) if *entity.body == *save.body => done.push((save, entity.version)),
                    Some(entity) => return (done, Some(Unsaved::Behind(save.key, entity.version))),
                    None => return (done, Some(Unsaved::Write(error))),
                }
            }
        }
    }
    (done, None)
}

/// A subscription or webhook that is gone is not used again.
async fn drop_address(shared: Arc<Shared>, job: Job, why: String, actor: String) {
    let user = &*job.place.user;
    let changed = match job.place.channel {
        Channel::Push => shared.book.change(user, &actor, None, |held: &mut Subscriptions| {
            held.subscriptions.retain(|subscription| *subscription.id != *job.place.target);
            Ok::<(), std::convert::Infallible>(())
        }),
        Channel::Webhook | Channel::Email | Channel::Sms => {
            return close_contact(&shared, &job, &why, &actor).await;
        }
    };
    if let Err(error) = changed.await {
        tracing::warn!(%error, user, "a subscription that is gone could not be removed");
    }
}

async fn close_contact(shared: &Shared, job: &Job, why: &str, actor: &str) {
    let (user, channel) = (&*job.place.user, job.place.channel);
    let changed = shared.book.change(user, actor, None, |contacts: &mut super::contact::Contacts| {
        if let Some(Some(contact)) = contacts.slot(channel) {
            contact.verified_at = None;
            why.clone_into(&mut contact.note);
        }
        Ok::<(), std::convert::Infallible>(())
    });
    if let Err(error) = changed.await {
        tracing::warn!(%error, user, %channel, "an address that is gone could not be closed");
    }
}

async fn wait_for(saving: &mut Option<JoinHandle<Saved>>) -> Saved {
    match saving {
        Some(task) => task.await.unwrap_or_else(|_| (Vec::new(), Some(Unsaved::Write(WriteError::Timeout)))),
        None => std::future::pending().await,
    }
}

fn wakes_in(round: &Round) -> Duration {
    if !round.at_end {
        return Duration::ZERO;
    }
    let due = round.desk.wakes_at().map_or(LOOK_EVERY, |at| Duration::from_millis(u64::try_from(at - now_ms()).unwrap_or(0)));
    let save = if round.saving.is_none() && round.desk.has_changes() {
        round.save_at.saturating_duration_since(Instant::now())
    } else {
        LOOK_EVERY
    };
    due.min(save).min(LOOK_EVERY)
}

/// Who does not deliver has nothing pending, and knows of nobody who is down.
fn rest() {
    gauge!(NOTIFY_PENDING).set(0.0);
    gauge!(NOTIFY_HELD).set(0.0);
    for channel in Channel::ALL {
        gauge!(NOTIFY_DOWN, "channel" => channel.as_str()).set(0.0);
    }
}

fn tell(desk: &mut Desk) {
    for Told { channel, what, count, took_ms } in desk.told() {
        counter!(NOTIFY_DELIVERIES, "channel" => channel.as_str(), "result" => what).increment(count as u64);
        if what == "sent" {
            histogram!(NOTIFY_DELIVERY_SECONDS, "channel" => channel.as_str()).record(took_ms as f64 / 1_000.0);
        }
    }
    gauge!(NOTIFY_PENDING).set(desk.pending() as f64);
    gauge!(NOTIFY_HELD).set(desk.held() as f64);
    for channel in Channel::ALL {
        gauge!(NOTIFY_DOWN, "channel" => channel.as_str()).set(desk.down().filter(|down| *down == channel).count() as f64);
    }
}
