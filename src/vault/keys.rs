//! Broker keys: made, listed, changed, given a new secret, deleted.
//!
//! Invariant: a change is one record of the directory, made from the state that it replaces; whoever loses the race looks again, and
//! is told so when a user's change came between. Only deleting works while the vault is locked: it needs no key, and is the way to
//! get rid of secrets whose master key is lost. An idempotency key means one key for a day, whatever becomes of that one. Deliberately
//! absent: a way back from revoked.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::envelope::{Envelope, Fresh, Place, random};
use super::kek::Kek;
use super::secrets::{Refused, Secrets};
use super::stored::{Asked, Broker, Environment, Standing, Status, Stored};
use super::{By, Locked, Vault, VaultError, kek_id, object};
use crate::control::directory::WriteError;
use crate::directory::{Entity, Kind};

/// How often a write that lost its race is tried again.
const TRIES: usize = 8;
/// An idempotency key is remembered for so long.
const REMEMBERED_MS: i64 = 24 * 3_600_000;
/// The longest name.
const NAME_BYTES_MOST: usize = 100;
/// The end of the year 9999, in milliseconds since the epoch.
const TIME_MOST: i64 = 253_402_300_799_999;

/// A key to be made.
pub struct NewKey {
    /// Who may use it.
    pub owner: String,
    /// Whose customer.
    pub broker: Broker,
    /// Whether it moves money.
    pub environment: Environment,
    /// What its owner calls it.
    pub name: String,
    /// When it ends, in milliseconds since the epoch.
    pub expires_at: Option<i64>,
    /// The secrets.
    pub secrets: Secrets,
    /// What makes a repeated request the same one.
    pub idempotency_key: Option<String>,
}

/// What may be changed of a key; the whole of it is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What its owner calls it.
    pub name: String,
    /// What may be done with it. Revoked is final; expired only where it is so anyway.
    pub status: Status,
    /// When it ends, in milliseconds since the epoch.
    pub expires_at: Option<i64>,
}

/// A key as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Its id.
    pub id: String,
    /// What is stored of it.
    pub stored: Stored,
    /// What may be done with it now.
    pub status: Status,
}

/// Which keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of this owner.
    pub owner: Option<String>,
    /// Of this broker.
    pub broker: Option<Broker>,
    /// Of this environment.
    pub environment: Option<Environment>,
    /// With this status now.
    pub status: Option<Status>,
}

/// Some keys, by id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Those that were asked for.
    pub keys: Vec<Key>,
    /// The id after which there are more.
    pub next: Option<String>,
}

impl Filter {
    fn takes(&self, key: &Key) -> bool {
        self.owner.as_ref().is_none_or(|owner| *owner == key.stored.owner)
            && self.broker.is_none_or(|broker| broker == key.stored.broker)
            && self.environment.is_none_or(|environment| environment == key.stored.environment)
            && self.status.is_none_or(|status| status == key.status)
    }
}

impl Vault {
    /// Makes a key. With the idempotency key of an earlier request for the same, gives what that one made.
    ///
    /// # Errors
    /// The vault is locked, a field may not be so, the owner has too many, or the directory cannot be written.
    pub async fn create(&self, by: By<'_>, new: NewKey, now: i64) -> Result<Key, VaultError> {
        let id = match &new.idempotency_key {
            Some(given) => self.id_of_repeat(&new.owner, given, now),
            None => format!("key_{}", random::<16>()?.iter().map(|byte| format!("{byte:02x}")).collect::<String>()),
        };
        let about = json!({"owner": new.owner, "broker": new.broker, "environment": new.environment, "name": new.name});
        self.begun(by, "api_key.create", &object(&id), &about).await?;
        let done = self.create_as(by, &id, new, now).await;
        self.ended(by, "api_key.create", &object(&id), json!({}), done).await
    }

    async fn create_as(&self, by: By<'_>, id: &str, new: NewKey, now: i64) -> Result<Key, VaultError> {
        new.secrets.check()?;
        check_name(&new.name)?;
        if new.expires_at.is_some_and(|end| !(now + 1..=TIME_MOST).contains(&end)) {
            return Err(Refused { field: "expires_at", allowed: "a time in the future, or left out" }.into());
        }
        if self.entity(id).is_some() {
            return self.repeated(id, &new, now).await;
        }
        if self.count_of(&new.owner) >= self.options.keys_per_owner {
            return Err(VaultError::TooMany { most: self.options.keys_per_owner });
        }
        let kek = self.newest_or_first(by, now).await?;
        let mut stored = Stored {
            owner: new.owner.clone(),
            broker: new.broker,
            environment: new.environment,
            name: new.name.clone(),
            standing: Standing::Active,
            expires_at: new.expires_at,
            last4: new.secrets.last4(),
            revision: 1,
            created_at: now,
            changed_at: now,
            versions: Vec::new(),
            sealed: None,
            asked: new.idempotency_key.as_ref().map(|_| Asked { name: new.name.clone(), expires_at: new.expires_at }),
            deleted_at: None,
            reminded: None,
            verified: None,
        };
        stored.next_version(by.actor, now);
        stored.sealed = Some(seal(&kek, stored.place(id), &new.secrets)?);
        match self.put(id, 0, &stored, by.actor).await {
            // Somebody else's request with the same idempotency key was faster.
            Err(VaultError::Write(WriteError::Conflict { .. })) => self.repeated(id, &new, now).await,
            Err(error) => Err(error),
            Ok(_) => self.caught_up(by, id, &kek, now).await,
        }
    }

    /// A rotation may have begun after the KEK was chosen and looked for old ones before the key was there: the key follows it here.
    async fn caught_up(&self, by: By<'_>, id: &str, used: &Kek, now: i64) -> Result<Key, VaultError> {
        if let Some(newest) = self.newest().await?
            && newest.version() > used.version()
        {
            self.rewrap(id, &newest, by.actor).await?;
        }
        self.get(id, now)
    }

    /// What an earlier request with this idempotency key made, if it asked for the same.
    async fn repeated(&self, id: &str, new: &NewKey, now: i64) -> Result<Key, VaultError> {
        let key = self.get(id, now).map_err(|_| VaultError::OtherRequest)?;
        let stored = &key.stored;
        let same = (&stored.owner, stored.broker, stored.environment) == (&new.owner, new.broker, new.environment);
        let words = stored.asked.as_ref().is_none_or(|asked| (&asked.name, asked.expires_at) == (&new.name, new.expires_at));
        if !same || !words {
            return Err(VaultError::OtherRequest);
        }
        // The ciphertext of a secret goes with it: once there is another, or none, the first cannot be compared any more.
        let is_first = stored.version() == 1 && stored.standing != Standing::Revoked;
        if is_first && !self.open_secrets(&key.id, stored).await?.same_as(&new.secrets) {
            return Err(VaultError::OtherRequest);
        }
        Ok(key)
    }

    /// The id of what a request with this idempotency key makes, or has made within a day. After that it makes another, whose id follows
    /// from the key as well, so that of two the log still decides which is the first.
    fn id_of_repeat(&self, owner: &str, given: &str, now: i64) -> String {
        let is_past = |id: &str| {
            let last = self.directory.get(Kind::ApiKey, id);
            last.is_some_and(|entity| {
                entity.is_erased() || about(&entity.body).is_some_and(|about| now - about.created_at >= REMEMBERED_MS)
            })
        };
        let mut round = 0;
        let mut id = repeatable_id(owner, given, round);
        while is_past(&id) {
            round += 1;
            id = repeatable_id(owner, given, round);
        }
        id
    }

    /// One key.
    ///
    /// # Errors
    /// There is none of this id, or what is stored of it cannot be read.
    pub fn get(&self, id: &str, now: i64) -> Result<Key, VaultError> {
        let (_, stored) = self.read(id)?;
        Ok(Key { id: id.to_owned(), status: stored.status(now), stored })
    }

    /// Whose key this is or was, deleted or not: who may see its trail.
    #[must_use]
    pub fn owner_of(&self, id: &str) -> Option<String> {
        about(&self.entity(id)?.body).map(|about| about.owner)
    }

    /// Keys by id, from after `after`.
    #[must_use]
    pub fn list(&self, filter: &Filter, after: Option<&str>, limit: usize, now: i64) -> Found {
        let mut found = Found { keys: Vec::new(), next: None };
        for entity in self.directory.list(Kind::ApiKey) {
            if after.is_some_and(|after| entity.id.as_str() <= after) {
                continue;
            }
            let Ok((entity, stored)) = readable(entity) else { continue };
            let key = Key { id: entity.id, status: stored.status(now), stored };
            if !filter.takes(&key) {
                continue;
            }
            if found.keys.len() == limit {
                found.next = found.keys.last().map(|last| last.id.clone());
                break;
            }
            found.keys.push(key);
        }
        found
    }

    /// Changes what is no secret. `expected` is the revision that the caller saw.
    ///
    /// # Errors
    /// The key is revoked, was changed meanwhile, a field may not be so, the vault is locked, or the directory cannot be written.
    pub async fn change(&self, by: By<'_>, id: &str, expected: Option<u64>, change: Change, now: i64) -> Result<Key, VaultError> {
        check_name(&change.name)?;
        let about = differences(&self.read(id)?.1, &change, now);
        self.begun(by, "api_key.change", &object(id), &about).await?;
        let done = self.update(id, expected, by.actor, Lock::Matters, |stored, _| {
            let before = stored.clone();
            apply(stored, &change, now)?;
            if *stored != before {
                stored.revision += 1;
                stored.changed_at = now;
            }
            Ok(())
        });
        let done = done.await.and_then(|()| self.get(id, now));
        self.ended(by, "api_key.change", &object(id), json!({}), done).await
    }

    /// Gives the key a new secret; the ciphertext of the old one goes with it.
    ///
    /// # Errors
    /// As [`Vault::change`].
    pub async fn replace(&self, by: By<'_>, id: &str, expected: Option<u64>, secrets: &Secrets, now: i64) -> Result<Key, VaultError> {
        secrets.check()?;
        let about = json!({"secret_version": self.read(id)?.1.version() + 1});
        self.begun(by, "api_key.rotate", &object(id), &about).await?;
        let done = self.update(id, expected, by.actor, Lock::Matters, |stored, kek| {
            if stored.standing == Standing::Revoked {
                return Err(VaultError::Revoked);
            }
            let kek = kek.ok_or(Locked::KekMissing { version: 1 })?;
            stored.next_version(by.actor, now);
            stored.sealed = Some(seal(kek, stored.place(id), secrets)?);
            stored.last4 = secrets.last4();
            stored.revision += 1;
            stored.changed_at = now;
            Ok(())
        });
        let done = done.await.and_then(|()| self.get(id, now));
        self.ended(by, "api_key.rotate", &object(id), json!({}), done).await
    }

    /// Revokes the key, erases its ciphertext and hides it. Works while the vault is locked.
    ///
    /// # Errors
    /// There is none, it was changed meanwhile, or the directory cannot be written.
    pub async fn delete(&self, by: By<'_>, id: &str, expected: Option<u64>, now: i64) -> Result<(), VaultError> {
        self.read(id)?;
        let about = json!({"status": "revoked", "ciphertext": "erased"});
        self.begun(by, "api_key.delete", &object(id), &about).await?;
        let done = self.update(id, expected, by.actor, Lock::IsNothing, |stored, _| {
            stored.revoke();
            stored.deleted_at = Some(now);
            stored.revision += 1;
            stored.changed_at = now;
            Ok(())
        });
        let done = done.await;
        self.ended(by, "api_key.delete", &object(id), json!({}), done).await?;
        if let Err(error) = self.forget_deleted(id, by.actor).await {
            // The next one that is deleted takes them along.
            tracing::warn!(%error, "what is left of keys that were deleted long ago could not be erased");
        }
        Ok(())
    }

    /// Of the keys that an owner has deleted as many are kept, for their trails, as the owner may have: who makes and deletes without
    /// end fills nothing.
    async fn forget_deleted(&self, id: &str, actor: &str) -> Result<(), VaultError> {
        let Some(owner) = self.owner_of(id) else { return Ok(()) };
        let deleted = self.directory.list(Kind::ApiKey).into_iter().filter_map(|entity| {
            let about = about(&entity.body).filter(|about| about.owner == owner)?;
            Some((about.deleted_at?, entity))
        });
        let mut deleted: Vec<(i64, Entity)> = deleted.collect();
        deleted.sort_by_key(|(at, _)| *at);
        let over = deleted.len().saturating_sub(self.options.keys_per_owner);
        for (_, entity) in deleted.into_iter().take(over) {
            match self.directory.write(Kind::ApiKey, &entity.id, entity.version, None, actor).await {
                // Somebody else forgets it at this moment.
                Ok(_) | Err(WriteError::Conflict { .. }) => {}
                Err(error) => return Err(VaultError::Write(error)),
            }
        }
        Ok(())
    }

    /// Erases all keys of somebody who is no more, and what was left of deleted ones.
    ///
    /// # Errors
    /// The directory cannot be written; some may be erased then, and the rest when it is asked again.
    pub async fn erase_owner(&self, by: By<'_>, owner: &str) -> Result<usize, VaultError> {
        let mut erased = 0;
        for entity in self.directory.list(Kind::ApiKey) {
            if about(&entity.body).is_some_and(|about| about.owner == owner) {
                let (changes, object) = (json!({"owner": owner}), object(&entity.id));
                self.begun(by, "api_key.erase", &object, &changes).await?;
                let written = self.directory.write(Kind::ApiKey, &entity.id, entity.version, None, by.actor).await;
                let done = written.map(|_| ()).map_err(VaultError::Write);
                self.ended(by, "api_key.erase", &object, json!({}), done).await?;
                erased += 1;
            }
        }
        Ok(erased)
    }

    pub(super) fn entity(&self, id: &str) -> Option<Entity> {
        self.directory.get(Kind::ApiKey, id).filter(|entity| !entity.is_erased())
    }

    /// A key that is not deleted.
    pub(super) fn read(&self, id: &str) -> Result<(Entity, Stored), VaultError> {
        readable(self.entity(id).ok_or(VaultError::Unknown)?)
    }

    /// Writes one state of a key.
    pub(super) async fn put(&self, id: &str, expected: u64, stored: &Stored, actor: &str) -> Result<Entity, VaultError> {
        let body = serde_json::to_vec(stored).map_err(|_| VaultError::Unreadable)?;
        self.directory.write(Kind::ApiKey, id, expected, Some(body), actor).await.map_err(VaultError::Write)
    }

    /// Changes a key from the state that is there. Who lost a race to the vault's own notes looks again; who lost it to another user
    /// is told. A change that changes nothing writes nothing.
    pub(super) async fn update<F>(&self, id: &str, expected: Option<u64>, actor: &str, lock: Lock, change: F) -> Result<(), VaultError>
    where
        F: Fn(&mut Stored, Option<&Kek>) -> Result<(), VaultError>,
    {
        let mut seen = expected;
        for last in (0..TRIES).rev() {
            let (entity, mut stored) = self.read(id)?;
            if *seen.get_or_insert(stored.revision) != stored.revision {
                return Err(VaultError::Changed { current: stored.revision });
            }
            let kek = match lock {
                Lock::Matters => self.newest().await?,
                Lock::IsNothing => None,
            };
            let before = stored.clone();
            change(&mut stored, kek.as_deref())?;
            if stored == before {
                return Ok(());
            }
            match self.put(id, entity.version, &stored, actor).await {
                Err(VaultError::Write(WriteError::Conflict { .. })) if last > 0 => {}
                written => return written.map(|_| ()),
            }
        }
        Err(VaultError::Changed { current: seen.unwrap_or_default() })
    }

    /// The newest KEK, or the first one where there was none yet.
    async fn newest_or_first(&self, by: By<'_>, now: i64) -> Result<Arc<Kek>, VaultError> {
        if let Some(newest) = self.newest().await? {
            return Ok(newest);
        }
        // Secrets without any KEK: the records are lost, and a new first one would hide that.
        if let Some((version, _)) = self.uses().into_iter().next() {
            return Err(Locked::KekMissing { version }.into());
        }
        self.add_kek(by, 1, now).await?;
        self.newest().await?.ok_or(VaultError::Locked(Locked::KekMissing { version: 1 }))
    }

    /// Adds a KEK version under the current master key, unless somebody else did meanwhile.
    pub(super) async fn add_kek(&self, by: By<'_>, version: u32, now: i64) -> Result<(), VaultError> {
        let made = self.ring.create(version, now).await.ok_or_else(|| self.no_master())?;
        let (record, kek) = made.map_err(|_| Locked::WrongMasterKey { version })?;
        let body = serde_json::to_vec(&record).map_err(|_| VaultError::Unreadable)?;
        let (object, about) = (format!("kek:{version}"), json!({"version": version}));
        self.begun(by, "vault.kek", &object, &about).await?;
        let done = match self.directory.write(Kind::Kek, &kek_id(version), 0, Some(body), by.actor).await {
            Ok(_) => {
                self.ring.keep(record, Some(kek));
                Ok(())
            }
            // Somebody else's is as good.
            Err(WriteError::Conflict { .. }) => Ok(()),
            Err(error) => Err(VaultError::Write(error)),
        };
        self.ended(by, "vault.kek", &object, json!({}), done).await
    }

    fn count_of(&self, owner: &str) -> usize {
        let counts = |about: About| about.owner == owner && about.deleted_at.is_none();
        self.directory.list(Kind::ApiKey).iter().filter(|entity| about(&entity.body).is_some_and(counts)).count()
    }
}

/// Whether a locked vault refuses a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lock {
    /// It does.
    Matters,
    /// It does not: nothing is sealed.
    IsNothing,
}

fn readable(entity: Entity) -> Result<(Entity, Stored), VaultError> {
    let stored: Stored = serde_json::from_slice(&entity.body).map_err(|_| VaultError::Unreadable)?;
    if stored.deleted_at.is_some() { Err(VaultError::Unknown) } else { Ok((entity, stored)) }
}

/// What is known of a key, whatever else is there.
#[derive(Deserialize)]
struct About {
    owner: String,
    created_at: i64,
    #[serde(default)]
    deleted_at: Option<i64>,
}

fn about(body: &[u8]) -> Option<About> {
    serde_json::from_slice(body).ok()
}

/// The same id for the same request of the same owner. The log then decides which of two is the first.
fn repeatable_id(owner: &str, idempotency_key: &str, round: u64) -> String {
    let mut hasher = blake3::Hasher::new_derive_key("ordergate vault idempotency 2026-01 v1");
    hasher.update(&(owner.len() as u64).to_be_bytes()).update(owner.as_bytes()).update(idempotency_key.as_bytes());
    if round > 0 {
        // No idempotency key has a zero byte.
        hasher.update(&[0]).update(&round.to_be_bytes());
    }
    format!("key_{}", &hasher.finalize().to_hex()[..32])
}

fn seal(kek: &Kek, place: Place<'_>, secrets: &Secrets) -> Result<Envelope, VaultError> {
    Envelope::seal(kek, place, &secrets.encode(), Fresh::random()?).map_err(|_| VaultError::Damaged)
}

fn check_name(name: &str) -> Result<(), Refused> {
    let fine = !name.trim().is_empty() && name.len() <= NAME_BYTES_MOST && !name.chars().any(char::is_control);
    if fine { Ok(()) } else { Err(Refused { field: "name", allowed: "1 to 100 bytes without control characters, not blank" }) }
}

fn apply(stored: &mut Stored, change: &Change, now: i64) -> Result<(), VaultError> {
    if stored.standing == Standing::Revoked {
        return Err(VaultError::Revoked);
    }
    let ended = change.expires_at.is_some_and(|end| end <= now);
    if change.expires_at.is_some_and(|end| !(0..=TIME_MOST).contains(&end)) {
        return Err(Refused { field: "expires_at", allowed: "a time from 1970 to 9999, or left out" }.into());
    }
    change.name.clone_into(&mut stored.name);
    stored.expires_at = change.expires_at;
    match change.status {
        Status::Active if ended => {
            return Err(Refused { field: "expires_at", allowed: "a time in the future for a key that is to be active" }.into());
        }
        Status::Active => stored.standing = Standing::Active,
        Status::Inactive => stored.standing = Standing::Inactive,
        Status::Expired if ended => {}
        Status::Expired => {
            return Err(Refused { field: "status", allowed: "active, inactive or revoked; a key expires by its time" }.into());
        }
        Status::Revoked => stored.revoke(),
    }
    Ok(())
}

fn differences(stored: &Stored, change: &Change, now: i64) -> Value {
    let mut about = serde_json::Map::new();
    let mut differs = |field: &str, from: Value, to: Value| {
        if from != to {
            about.insert(field.to_owned(), json!({"from": from, "to": to}));
        }
    };
    differs("name", json!(stored.name), json!(change.name));
    differs("status", json!(stored.status(now)), json!(change.status));
    differs("expires_at", json!(stored.expires_at), json!(change.expires_at));
    Value::Object(about)
}
