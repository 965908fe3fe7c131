//! The KEKs that this process could open, and those that it could not.
//!
//! Invariant: a record is tried once with each master key, off the async threads and one at a time (64 MiB each), and what came of it
//! is kept until the record changes. Deliberately absent: the directory; whoever holds the ring brings the records.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::kek::{Cost, DeriveError, Kek, KekRecord, MasterKey, MasterKeyError};

/// The master keys of this process.
pub struct Masters {
    keys: Vec<Arc<MasterKey>>,
    trouble: Option<MasterKeyError>,
}

impl Masters {
    /// None: the vault stays locked.
    #[must_use]
    pub fn none() -> Self {
        Self { keys: Vec::new(), trouble: None }
    }

    /// The key, and the one before it while the vault moves from that to this.
    #[must_use]
    pub fn new(current: MasterKey, previous: Option<MasterKey>) -> Self {
        Self { keys: std::iter::once(current).chain(previous).map(Arc::new).collect(), trouble: None }
    }

    /// From the variables or their files. What cannot be used locks the vault and stops nothing else.
    #[must_use]
    pub fn from_environment() -> Self {
        let read = || -> Result<Self, MasterKeyError> {
            let current = MasterKey::from_environment(super::kek::MASTER_VARIABLE)?;
            let previous = MasterKey::from_environment(super::kek::PREVIOUS_VARIABLE)?;
            Ok(current.map_or_else(Self::none, |current| Self::new(current, previous)))
        };
        Self::usable(read())
    }

    /// None, and why, where they cannot be used.
    pub(super) fn usable(read: Result<Self, MasterKeyError>) -> Self {
        read.unwrap_or_else(|trouble| Self { keys: Vec::new(), trouble: Some(trouble) })
    }

    /// Why there is none, if so.
    #[must_use]
    pub fn trouble(&self) -> Option<&MasterKeyError> {
        self.trouble.as_ref()
    }

    /// The one that new KEKs are made with.
    #[must_use]
    pub fn current(&self) -> Option<Arc<MasterKey>> {
        self.keys.first().cloned()
    }
}

/// A record, and the KEK that came of it.
type Tried = (KekRecord, Option<Arc<Kek>>);

/// What was opened so far.
pub struct Keyring {
    masters: Masters,
    cost: Cost,
    tried: Mutex<BTreeMap<u32, Tried>>,
    deriving: tokio::sync::Mutex<()>,
}

impl Keyring {
    /// An empty ring.
    #[must_use]
    pub fn new(masters: Masters, cost: Cost) -> Self {
        Self { masters, cost, tried: Mutex::default(), deriving: tokio::sync::Mutex::default() }
    }

    /// The master keys.
    #[must_use]
    pub fn masters(&self) -> &Masters {
        &self.masters
    }

    /// The KEK of a record; `None` when no master key of ours fits.
    pub async fn open(&self, record: &KekRecord) -> Option<Arc<Kek>> {
        if let Some(known) = self.known(record) {
            return known;
        }
        let _alone = self.deriving.lock().await;
        if let Some(known) = self.known(record) {
            return known;
        }
        let (masters, wanted) = (self.masters.keys.clone(), record.clone());
        let derived = tokio::task::spawn_blocking(move || masters.iter().find_map(|master| wanted.derive(master).ok())).await;
        // A derivation that was cut off (the process ends) tells nothing about the key.
        let kek = derived.ok()?.map(Arc::new);
        self.keep(record.clone(), kek.clone());
        kek
    }

    /// A new version under the current master key; `None` without one.
    ///
    /// # Errors
    /// No randomness, or a cost that Argon2 does not take.
    pub async fn create(&self, version: u32, now: i64) -> Option<Result<(KekRecord, Arc<Kek>), DeriveError>> {
        let (master, cost) = (self.masters.current()?, self.cost);
        let _alone = self.deriving.lock().await;
        let made = tokio::task::spawn_blocking(move || KekRecord::create(version, &master, cost, now)).await.ok()?;
        Some(made.map(|(record, kek)| (record, Arc::new(kek))))
    }

    /// Takes in a version that was made here and is in the directory now.
    pub fn keep(&self, record: KekRecord, kek: Option<Arc<Kek>>) {
        let mut tried = self.tried.lock().unwrap_or_else(PoisonError::into_inner);
        tried.insert(record.version, (record, kek));
    }

    /// Forgets the versions that the directory no longer has.
    pub fn retain(&self, there: &[KekRecord]) {
        let mut tried = self.tried.lock().unwrap_or_else(PoisonError::into_inner);
        tried.retain(|version, _| there.iter().any(|record| record.version == *version));
    }

    fn known(&self, record: &KekRecord) -> Option<Option<Arc<Kek>>> {
        let tried = self.tried.lock().unwrap_or_else(PoisonError::into_inner);
        tried.get(&record.version).filter(|(known, _)| known == record).map(|(_, kek)| kek.clone())
    }
}
