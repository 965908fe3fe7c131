//! The notifier: fills the inboxes, and sees to it that what people want to hear is delivered.
//!
//! Invariant: it reads the log as anyone does and decides nothing, so a gate with a notifier that hangs decides as fast as one without.
//! Inboxes are filled on every instance; deliveries are made by one at a time (`courier.rs`). Deliberately absent: HTTP.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Notify, broadcast, watch};
use tokio::task::JoinHandle;

use super::channels::Channels;
use super::courier::Courier;
use super::follow::{Follower, extents};
use super::inbox::{Inboxes, Marks};
use super::notice::Seen;
use super::people::AddressBook;
use super::raised::Raised;
use super::schedule::Limits;
use super::states::{Delivered, States};
use super::{Audience, Channel, UserId, notice, now_ms};
use crate::control::directory::DirectoryService;
use crate::log::{LogError, Topics};

/// Records read at once.
const READ_MAX: usize = 256;
/// Notices are looked for at most so often.
const NOTICES_EVERY: Duration = Duration::from_millis(100);
/// Tasks that fill inboxes and show what is in them.
/// Who waits for the inboxes looks so often whether there is more.
const HURRY_EVERY: Duration = Duration::from_millis(2);
const FILLERS: usize = 2;
/// After an error of the log it is tried again.
const PAUSE: Duration = Duration::from_secs(1);
/// Messages to a listener that does not listen, before it is told that it missed some.
const LIVE_MAX: usize = 4_096;
/// Tests and verifications of one person over one channel within a minute.
const TRIALS_PER_MINUTE: u32 = 5;

/// How the notifier behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// How much, how often, how long.
    pub limits: Limits,
    /// With several instances on one log: for how long one of them delivers without saying so again. `None`: there is no other.
    pub lease: Option<Duration>,
    /// What this process is called in the directory; no other process may be called so.
    pub instance: String,
    /// What is to be sent and what became of it is gathered for so long before it is saved; the first after a while is saved at once.
    pub save_every: Duration,
    /// Attempts under way may end within this when it stops.
    pub stop_within: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            lease: None,
            instance: format!("notify-{}-{:x}", std::process::id(), now_ms()),
            save_every: Duration::from_millis(100),
            stop_within: Duration::from_secs(2),
        }
    }
}

/// What the notifier's tasks and everyone else both see.
pub(super) struct Shared {
    pub(super) topics: Arc<dyn Topics>,
    pub(super) directory: Arc<DirectoryService>,
    pub(super) audience: Arc<dyn Audience>,
    pub(super) channels: Arc<Channels>,
    pub(super) book: AddressBook,
    pub(super) options: Options,
    inboxes: RwLock<Inboxes>,
    states: Mutex<States>,
    trials: Mutex<HashMap<(String, Channel), (i64, u32)>>,
    live: broadcast::Sender<(UserId, Arc<Raised>)>,
    /// Whether the inboxes were read to the log's end once.
    filled: watch::Sender<bool>,
    /// Up to which ledger sequence they hold what each shard has raised.
    taken: watch::Sender<BTreeMap<u32, u64>>,
    /// Wakes who fills them.
    hurry: Notify,
}

impl Shared {
    /// Everyone who hears of it.
    pub(super) fn hearers(&self, raised: &Raised) -> Vec<UserId> {
        match &raised.account {
            Some(account) => self.audience.hears(account),
            None => self.audience.operators(),
        }
    }
}

/// A lock whose holder panicked still guards whole values.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The notifier. Dropped, it ends at once, as if killed; [`Notifier::stop`] ends it well.
pub struct Notifier {
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Notifier {
    /// Starts it in a runtime.
    #[must_use]
    pub fn start(
        runtime: &Handle,
        topics: Arc<dyn Topics>,
        directory: Arc<DirectoryService>,
        audience: Arc<dyn Audience>,
        channels: Channels,
        options: Options,
    ) -> Arc<Self> {
        let book = AddressBook::new(directory.clone(), channels.ready());
        let shared = Arc::new(Shared {
            topics,
            directory,
            audience,
            channels: Arc::new(channels),
            book,
            options,
            inboxes: RwLock::default(),
            states: Mutex::default(),
            trials: Mutex::default(),
            live: broadcast::channel(LIVE_MAX).0,
            filled: watch::channel(false).0,
            taken: watch::channel(BTreeMap::new()).0,
            hurry: Notify::new(),
        });
        let (stop, stopped) = watch::channel(false);
        let mut seen = Seen::default();
        seen.look(&shared.directory);
        let mut tasks = vec![runtime.spawn(fill(shared.clone())), runtime.spawn(show_notices(shared.clone(), seen))];
        // Without a channel there is nothing to deliver, and no position that would have to be kept.
        if !shared.channels.ready().is_empty() {
            tasks.push(runtime.spawn(Courier::new(shared.clone()).run(stopped)));
        }
        Arc::new(Self { shared, stop, tasks: Mutex::new(tasks) })
    }

    /// Ends it: attempts under way end, what they came to is saved.
    pub async fn stop(&self) {
        self.stop.send_replace(true);
        let mut tasks = std::mem::take(&mut *locked(&self.tasks));
        // What fills the inboxes and shows notices has nothing to save.
        for task in tasks.drain(..FILLERS.min(tasks.len())) {
            task.abort();
        }
        for task in tasks {
            if let Err(error) = task.await
                && !error.is_cancelled()
            {
                tracing::error!(%error, "the notifier ended badly");
            }
        }
    }

    /// Preferences, addresses, subscriptions and marks.
    #[must_use]
    pub fn book(&self) -> &AddressBook {
        &self.shared.book
    }

    /// The channels that are set up.
    #[must_use]
    pub fn channels(&self) -> &Channels {
        &self.shared.channels
    }

    /// Notifications as they come, each with who hears it; who does not keep up is told how many they missed.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<(UserId, Arc<Raised>)> {
        self.shared.live.subscribe()
    }

    /// Waits until the inboxes hold what the log holds.
    pub async fn filled(&self) {
        // It ends with the notifier, and then nobody waits.
        let _ = self.shared.filled.subscribe().wait_for(|filled| *filled).await;
    }

    /// Waits until the inboxes hold what a shard has raised with the record of this ledger sequence.
    pub async fn holds(&self, shard: u32, seq: u64) {
        let mut taken = self.shared.taken.subscribe();
        let is_there = |taken: &BTreeMap<u32, u64>| taken.get(&shard).is_some_and(|newest| *newest >= seq);
        while !is_there(&taken.borrow_and_update()) {
            // It rests between two looks, and the outputs of a record come a moment after the record.
            self.shared.hurry.notify_one();
            // It ends with the notifier, and then nobody waits.
            let _ = tokio::time::timeout(HURRY_EVERY, taken.changed()).await;
        }
    }

    /// Whether the inboxes hold what the log held when they were first read to its end.
    #[must_use]
    pub fn is_filled(&self) -> bool {
        *self.shared.filled.borrow()
    }

    /// A person's inbox, the newest first, and its marks.
    #[must_use]
    pub fn inbox(&self, user: &str) -> (Vec<Arc<Raised>>, Marks) {
        let inbox = self.shared.inboxes.read().unwrap_or_else(PoisonError::into_inner).of(user);
        let inbox = notice::among(inbox, notice::of(self.book(), user));
        (inbox, self.book().get::<Marks>(user).0)
    }

    /// What this process is called in the directory.
    pub(super) fn instance(&self) -> &str {
        &self.shared.options.instance
    }

    /// What became of a person's deliveries, by notification.
    #[must_use]
    pub fn deliveries(&self, user: &str) -> HashMap<super::RaisedId, Vec<Delivered>> {
        let (inbox, _) = self.inbox(user);
        let mut states = locked(&self.shared.states);
        states.refresh(&self.shared.directory);
        states.of(user, &inbox)
    }

    /// How many of a person's deliveries are how far, by channel.
    #[must_use]
    pub fn delivery_counts(&self, user: &str) -> BTreeMap<&'static str, BTreeMap<&'static str, usize>> {
        let mut states = locked(&self.shared.states);
        states.refresh(&self.shared.directory);
        states.count(user)
    }

    /// Whether a person may try out a channel once more in this minute.
    pub(super) fn try_out(&self, user: &str, channel: Channel) -> bool {
        let now = now_ms();
        let mut trials = locked(&self.shared.trials);
        trials.retain(|_, (begun, _)| now - *begun < 60_000);
        let (_, count) = trials.entry((user.to_owned(), channel)).or_insert((now, 0));
        *count += 1;
        *count <= TRIALS_PER_MINUTE
    }
}

impl Drop for Notifier {
    fn drop(&mut self) {
        for task in locked(&self.tasks).drain(..) {
            task.abort();
        }
    }
}

/// Shows whoever listens the notices that come into people's inboxes, also those that other instances write.
async fn show_notices(shared: Arc<Shared>, mut seen: Seen) {
    let mut changes = shared.directory.changes();
    changes.mark_changed();
    while changes.changed().await.is_ok() {
        for heard in seen.look(&shared.directory) {
            // Nobody may be listening.
            let _ = shared.live.send(heard);
        }
        tokio::time::sleep(NOTICES_EVERY).await;
    }
}

/// Fills the inboxes from the beginning of the log, and goes on.
async fn fill(shared: Arc<Shared>) {
    let mut follower = loop {
        match extents(&shared.topics).await {
            Ok(extents) => {
                let positions = extents.iter().map(|extent| (extent.partition, extent.first)).collect();
                break Follower::new(shared.topics.clone(), positions, shared.audience.clone());
            }
            Err(error) => pause(&error).await,
        }
    };
    loop {
        match follower.next(READ_MAX).await {
            Ok(Some(batch)) => {
                let mut newest = BTreeMap::new();
                for raised in batch.records.into_iter().filter_map(|(_, raised)| raised) {
                    take(&shared, &raised);
                    newest.insert(raised.id.shard, raised.id.seq);
                }
                shared.taken.send_modify(|taken| taken.extend(newest));
            }
            Ok(None) => {
                if !follower.is_held() {
                    shared.filled.send_replace(true);
                }
                tokio::select! {
                    () = follower.wait() => {}
                    () = shared.hurry.notified() => {}
                }
            }
            Err(error) => pause(&error).await,
        }
    }
}

fn take(shared: &Shared, raised: &Arc<Raised>) {
    let is_live = *shared.filled.borrow();
    for user in shared.hearers(raised) {
        let is_new = shared.inboxes.write().unwrap_or_else(PoisonError::into_inner).take(&user, raised);
        if is_new && is_live {
            // Nobody may be listening.
            let _ = shared.live.send((user, raised.clone()));
        }
    }
}

/// Tells of an error of the log and waits before it is asked again.
pub(super) async fn pause(error: &LogError) {
    tracing::warn!(code = error.code(), %error, "the notifier cannot read the log; it tries again");
    tokio::time::sleep(PAUSE).await;
}
