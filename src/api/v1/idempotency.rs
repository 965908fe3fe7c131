//! `Idempotency-Key`: a create that is sent again makes nothing twice.
//!
//! Invariant: the key is bound to the id of the object before the object is made, in the directory, so that a repeat, also after a
//! crash in between or at another instance, makes or finds the object of that same id. The same key with another body is refused.
//! Deliberately absent: stored answers. The object itself is the answer, and a secret that was shown once is not kept to be shown
//! again. A key is remembered for 24 hours and not a moment less: who has used as many as are remembered of one caller hears so, and
//! has to wait or to do without one.

use std::sync::Arc;

use axum::http::HeaderMap;
use serde::{Deserialize, Serialize};

use crate::api::caller::{Caller, now};
use crate::api::problem::{ApiCode, Problem};
use crate::api::records::log_problem;
use crate::control::directory::{DirectoryService, WriteError};
use crate::directory::{Entity, Kind};
use crate::domain::Millis;

/// A key is remembered for so long.
pub const REMEMBERED_MS: Millis = 24 * 3_600_000;
const KEY_BYTES_MAX: usize = 255;
/// So many keys of one caller are remembered.
const KEYS_MAX: usize = 10_000;

/// What a create is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begun {
    /// The id to make the object under.
    pub id: String,
    /// Whether this key came before: the object may be there already, and is the answer then.
    pub again: bool,
    /// When the key came first. An object of that id that is older was made by somebody else.
    pub at: Millis,
    /// What the key is called where nobody has to know it: the same for the same caller, operation and key. `None` without a key.
    pub mark: Option<String>,
    held: Option<Held>,
}

/// A claim as the directory has it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Held {
    place: String,
    claim: Claim,
    version: u64,
}

/// Kind `idempotency`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Claim {
    /// The hash of caller, what was asked, and key.
    pub key: String,
    /// The hash of the body.
    pub body: String,
    /// The id of the object.
    pub object: String,
    /// When it came first.
    pub at: Millis,
}

/// Binds the request's key, if it has one, to the id of what it makes. `what` names the operation; `fresh` is the id to use if it is
/// new.
///
/// # Errors
/// The key is none, came with another body, or the log.
pub async fn begin(
    directory: &Arc<DirectoryService>,
    caller: &Caller,
    what: &str,
    headers: &HeaderMap,
    body: &[u8],
    fresh: String,
) -> Result<Begun, Problem> {
    let Some(key) = key_of(headers)? else { return Ok(Begun { id: fresh, again: false, at: now(), mark: None, held: None }) };
    let key = blake3::hash(format!("{}\0{what}\0{key}", caller.name).as_bytes()).to_hex().to_string();
    let place = format!("{}~{}", caller.name, &key[..32]);
    let claim = Claim { key, body: blake3::hash(body).to_hex().to_string(), object: fresh, at: now() };
    for _ in 0..3 {
        let held = directory.get(Kind::Idempotency, &place);
        let old = held.as_ref().and_then(|entity| serde_json::from_slice::<Claim>(&entity.body).ok());
        if let Some(old) = old.filter(|old| old.key == claim.key && claim.at - old.at < REMEMBERED_MS) {
            if old.body != claim.body {
                return Err(Problem::new(ApiCode::IdempotencyKeyReused, "the Idempotency-Key came before with another body"));
            }
            return Ok(begun(true, place, old, held.map_or(0, |entity| entity.version)));
        }
        if held.is_none()
            && let Err(full) = room(directory, &caller.name, claim.at, KEYS_MAX)
        {
            // What stops trading waits for nothing: to kill twice is to kill.
            let goes_on = what.ends_with("/kill");
            return if goes_on { Ok(Begun { id: claim.object, again: false, at: claim.at, mark: None, held: None }) } else { Err(full) };
        }
        let version = held.map_or(0, |entity| entity.version);
        if let Some(entity) = write(directory, &caller.name, &place, version, &claim).await? {
            return Ok(begun(false, place, claim, entity.version));
        }
    }
    Err(busy())
}

/// Whether one more key of a caller may be remembered. Nothing that is younger than a day is forgotten for it.
fn room(directory: &DirectoryService, caller: &str, at: Millis, most: usize) -> Result<(), Problem> {
    let prefix = format!("{caller}~");
    if directory.read(|directory| directory.count_of(Kind::Idempotency, &prefix)) < most {
        return Ok(());
    }
    let claims = directory.list(Kind::Idempotency).into_iter().filter(|entity| entity.id.starts_with(&prefix));
    let mut young: Vec<Millis> = claims
        .filter_map(|entity| serde_json::from_slice::<Claim>(&entity.body).ok())
        .map(|claim| claim.at + REMEMBERED_MS)
        .filter(|until| *until > at)
        .collect();
    if young.len() < most {
        return Ok(());
    }
    young.sort_unstable();
    let wait = young.first().map_or(1, |until| (until - at).unsigned_abs().div_ceil(1_000));
    let what = format!("{most} Idempotency-Keys of this caller are remembered, each for 24 hours: come again later, or without one");
    Err(Problem::new(ApiCode::TooManyRequests, what).with("retry_after_seconds", wait))
}

fn begun(again: bool, place: String, claim: Claim, version: u64) -> Begun {
    let (id, at, mark) = (claim.object.clone(), claim.at, Some(claim.key.clone()));
    Begun { id, again, at, mark, held: Some(Held { place, claim, version }) }
}

/// Takes over what was begun before and never done: of several who do, one goes on, and the key is as young as that.
///
/// # Errors
/// Somebody else goes on, or the log.
pub async fn take_over(directory: &Arc<DirectoryService>, caller: &Caller, begun: &Begun) -> Result<(), Problem> {
    let Some(Held { place, claim, version }) = begun.held.clone() else { return Ok(()) };
    match write(directory, &caller.name, &place, version, &Claim { at: now(), ..claim }).await? {
        Some(_) => Ok(()),
        None => Err(busy()),
    }
}

/// Writes a claim in the place of this version of it; `None` when somebody else did.
pub(super) async fn write(
    directory: &DirectoryService,
    caller: &str,
    place: &str,
    version: u64,
    claim: &Claim,
) -> Result<Option<Entity>, Problem> {
    let json = serde_json::to_vec(claim).map_err(|_| Problem::new(ApiCode::Internal, "the claim could not be noted"))?;
    match directory.write(Kind::Idempotency, place, version, Some(json), caller).await {
        Ok(entity) => Ok(Some(entity)),
        Err(WriteError::Conflict { .. }) => Ok(None),
        Err(WriteError::Log(error)) => Err(log_problem(&error)),
        Err(WriteError::Timeout) => Err(Problem::new(ApiCode::AppendTimeout, "the directory did not answer in time")),
    }
}

/// Another request is at it.
#[must_use]
pub fn busy() -> Problem {
    Problem::new(ApiCode::TooBusy, "the same is being done at this moment: ask again")
}

/// The request's key, if it has one.
///
/// # Errors
/// It is none.
pub fn key_of(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let mut given = headers.get_all("idempotency-key").iter();
    let Some(value) = given.next() else { return Ok(None) };
    let key = value.to_str().ok().filter(|key| !key.is_empty() && key.len() <= KEY_BYTES_MAX && given.next().is_none());
    let wrong = || Problem::new(ApiCode::InvalidParameter, "Idempotency-Key is one text of 1 to 255 visible characters");
    key.ok_or_else(wrong).map(Some).map_err(|problem| problem.field("Idempotency-Key"))
}

/// Erases the claims that are older than a day.
pub async fn sweep(directory: &Arc<DirectoryService>, at: Millis) -> usize {
    let mut swept = 0;
    for entity in directory.list(Kind::Idempotency) {
        let old = serde_json::from_slice::<Claim>(&entity.body).is_ok_and(|claim| at - claim.at >= REMEMBERED_MS);
        if old && directory.write(Kind::Idempotency, &entity.id, entity.version, None, "ordergate").await.is_ok() {
            swept += 1;
        }
    }
    swept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedded::{EmbeddedLog, EmbeddedOptions};

    #[test]
    fn as_many_keys_as_are_remembered_of_a_caller_are_remembered_for_a_day_and_the_next_is_told_when() {
        let dir = tempfile::tempdir().unwrap();
        let log = EmbeddedLog::open(EmbeddedOptions::new(dir.path())).unwrap();
        let directory = DirectoryService::start(Arc::new(log.clone())).unwrap();
        let begun = now();
        tokio::runtime::Runtime::new().unwrap().block_on(async {
            for number in 0..3_i64 {
                let claim = Claim { key: format!("{number}"), body: String::new(), object: String::new(), at: begun + number * 10_000 };
                let json = serde_json::to_vec(&claim).unwrap();
                directory.write(Kind::Idempotency, &format!("ann~{number}"), 0, Some(json), "ann").await.unwrap();
            }
        });
        assert!(room(&directory, "ann", begun, 4).is_ok() && room(&directory, "an", begun, 1).is_ok(), "each caller for itself");
        let refused = room(&directory, "ann", begun + 1, 3).unwrap_err();
        assert_eq!((refused.code(), refused.body()["retry_after_seconds"].as_u64()), (ApiCode::TooManyRequests, Some(86_400)));
        assert!(room(&directory, "ann", begun + REMEMBERED_MS - 1, 3).is_err());
        assert!(room(&directory, "ann", begun + REMEMBERED_MS, 3).is_ok(), "what is older than a day needs no room");
        directory.stop();
        log.close();
    }
}
