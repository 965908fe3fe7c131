//! What the directory knows of people for our purposes: preferences, addresses, browsers' subscriptions, marks in the inbox.
//!
//! Invariant: one entity per person and kind, so that a person can be erased by four ids, and changes of one person's things never meet
//! those of another's. A change is made on the state that it was asked of, or not at all. Deliberately absent: copies; the directory is in
//! memory and is asked each time.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::contact::Contacts;
use super::delivery::Place;
use super::desk::Wishes;
use super::inbox::Marks;
use super::notice;
use super::preference::{Preferences, Verdict};
use super::push::Subscription;
use super::{Channel, UserId};
use crate::control::directory::{DirectoryService, WriteError};
use crate::directory::Kind;
use crate::domain::{NotificationType, Priority};

/// A change that nobody waited a version for is tried so often.
const TRIES: usize = 8;

/// A person's browsers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscriptions {
    /// Each once.
    #[serde(default)]
    pub subscriptions: Vec<Subscription>,
}

/// What is kept of a person under one kind.
pub trait Kept: Default + Serialize + DeserializeOwned {
    /// Under which.
    const KIND: Kind;
}

impl Kept for Preferences {
    const KIND: Kind = Kind::Preference;
}

impl Kept for Contacts {
    const KIND: Kind = Kind::Contact;
}

impl Kept for Subscriptions {
    const KIND: Kind = Kind::Push;
}

impl Kept for Marks {
    const KIND: Kind = Kind::Inbox;
}

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError<E> {
    /// It may not be made.
    #[error("{0}")]
    Refused(E),
    /// The directory did not take it.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// The address book.
#[derive(Clone)]
pub struct AddressBook {
    directory: Arc<DirectoryService>,
    channels: Arc<[Channel]>,
}

impl AddressBook {
    /// The people of a directory, who can be reached over these channels.
    #[must_use]
    pub fn new(directory: Arc<DirectoryService>, channels: Vec<Channel>) -> Self {
        Self { directory, channels: channels.into() }
    }

    /// What is kept of a person, with its version; 0 when there is nothing.
    #[must_use]
    pub fn get<T: Kept>(&self, user: &str) -> (T, u64) {
        let Some(entity) = self.directory.get(T::KIND, user) else { return (T::default(), 0) };
        match serde_json::from_slice(&entity.body) {
            Ok(kept) => (kept, entity.version),
            Err(error) => {
                tracing::error!(%error, kind = %T::KIND, user, "what the directory has cannot be read");
                (T::default(), entity.version)
            }
        }
    }

    /// Changes what is kept of a person; with `expected` only in that version.
    ///
    /// # Errors
    /// `make` refuses, the version is another one, or the directory does not take it.
    pub async fn change<T: Kept, R, E>(
        &self,
        user: &str,
        actor: &str,
        expected: Option<u64>,
        mut make: impl FnMut(&mut T) -> Result<R, E>,
    ) -> Result<(R, u64), ChangeError<E>> {
        let mut left = TRIES;
        loop {
            let (mut kept, version) = self.get::<T>(user);
            if let Some(expected) = expected.filter(|expected| *expected != version) {
                return Err(WriteError::Conflict { current: version.max(expected) }.into());
            }
            let made = make(&mut kept).map_err(ChangeError::Refused)?;
            let body = serde_json::to_vec(&kept).unwrap_or_default();
            left -= 1;
            match self.directory.write(T::KIND, user, version, Some(body), actor).await {
                Ok(entity) => return Ok((made, entity.version)),
                Err(WriteError::Conflict { .. }) if expected.is_none() && left > 0 => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Where a notification may go: over each channel that is set up, wanted, and has an address that is verified.
    #[must_use]
    pub fn places(&self, user: &UserId, kind: NotificationType, priority: Priority, now: i64) -> Vec<Place> {
        let mut places = Vec::new();
        let (preferences, _) = self.get::<Preferences>(user);
        for channel in self.channels.iter().copied() {
            if !matches!(preferences.of(kind, channel).verdict(priority, now), Verdict::Never(_)) {
                places.extend(self.places_of(user, channel));
            }
        }
        places
    }

    /// Where a person can be reached over a channel.
    #[must_use]
    pub fn places_of(&self, user: &UserId, channel: Channel) -> Vec<Place> {
        let at = |target: &str| Place { user: user.clone(), channel, target: target.into() };
        match channel {
            Channel::Push => self.get::<Subscriptions>(user).0.subscriptions.iter().map(|it| at(&it.id)).collect(),
            Channel::Email | Channel::Sms | Channel::Webhook => {
                self.get::<Contacts>(user).0.verified(channel).map(|_| at("")).into_iter().collect()
            }
        }
    }
}

/// Erases all that is kept of a person here: preferences, addresses, subscriptions, marks, notices. What goes out meanwhile finds no
/// address any more.
///
/// # Errors
/// The directory did not take it; some may be there still, and the same again erases the rest.
pub async fn erase(directory: &DirectoryService, user: &str, actor: &str) -> Result<(), WriteError> {
    let notices = notice::place_of(user);
    let kept =
        [(Preferences::KIND, user), (Contacts::KIND, user), (Subscriptions::KIND, user), (Marks::KIND, user), (Kind::Inbox, &*notices)];
    for (kind, id) in kept {
        let mut left = TRIES;
        while let Some(entity) = directory.get(kind, id) {
            left -= 1;
            match directory.write(kind, id, entity.version, None, actor).await {
                Ok(_) => break,
                Err(WriteError::Conflict { .. }) if left > 0 => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

impl Wishes for AddressBook {
    fn verdict(&self, user: &UserId, channel: Channel, kind: NotificationType, priority: Priority, now: i64) -> Verdict {
        self.get::<Preferences>(user).0.of(kind, channel).verdict(priority, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vault::tests::world::{MemoryLog, runtime};

    #[test]
    fn all_that_is_kept_of_a_person_is_erased_and_nothing_of_others() {
        runtime().block_on(async {
            let directory = DirectoryService::start(MemoryLog::new()).unwrap();
            let ids = |user: &str| {
                let own = [Kind::Preference, Kind::Contact, Kind::Push, Kind::Inbox].map(|kind| (kind, user.to_owned()));
                [own.to_vec(), vec![(Kind::Inbox, notice::place_of(user))]].concat()
            };
            for (kind, id) in ids("ann").into_iter().chain(ids("ann2")) {
                directory.write(kind, &id, 0, Some(b"{}".to_vec()), "test").await.unwrap();
            }
            erase(&directory, "ann", "root").await.unwrap();
            assert!(ids("ann").iter().all(|(kind, id)| directory.get(*kind, id).is_none()));
            assert!(ids("ann2").iter().all(|(kind, id)| directory.get(*kind, id).is_some()));
            erase(&directory, "ann", "root").await.unwrap();
        });
    }
}
