//! `Idempotency-Key`: a create that is sent again makes nothing twice.
//!
//! Invariant: the key is bound to the id of the object before the object is made, in the directory, so that a repeat, also after a
//! crash in between or at another instance, makes or finds the object of that same id. The same key with another body is refused.
//! Deliberately absent: stored answers. The object itself is the answer, and a secret that was shown once is not kept to be shown
//! again. A key is remembered for 24 hours, about 4,000 of each caller.

use std::sync::Arc;

use axum::http::HeaderMap;
use serde::{Deserialize, Serialize};

use crate::api::caller::{Caller, now};
use crate::api::problem::{ApiCode, Problem};
use crate::api::records::log_problem;
use crate::control::directory::{DirectoryService, WriteError};
use crate::directory::Kind;
use crate::domain::Millis;

/// A key is remembered for so long.
pub const REMEMBERED_MS: Millis = 24 * 3_600_000;
const KEY_BYTES_MAX: usize = 255;

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
struct Claim {
    /// The hash of caller, what was asked, and key.
    key: String,
    /// The hash of the body.
    body: String,
    /// The id of the object.
    object: String,
    /// When it came first.
    at: Millis,
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
    // So many places, each used again: keys that clients make up do not fill the directory for ever.
    let place = format!("{}~{}", caller.name, &key[..3]);
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
        let json = serde_json::to_vec(&claim).map_err(|_| Problem::new(ApiCode::Internal, "the key could not be noted"))?;
        let version = held.map_or(0, |entity| entity.version);
        match directory.write(Kind::Idempotency, &place, version, Some(json), &caller.name).await {
            Ok(entity) => return Ok(begun(false, place, claim, entity.version)),
            Err(WriteError::Conflict { .. }) => {}
            Err(WriteError::Log(error)) => return Err(log_problem(&error)),
            Err(WriteError::Timeout) => return Err(Problem::new(ApiCode::AppendTimeout, "the directory did not answer in time")),
        }
    }
    Err(busy())
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
    let json = serde_json::to_vec(&Claim { at: now(), ..claim });
    let json = json.map_err(|_| Problem::new(ApiCode::Internal, "the key could not be noted"))?;
    match directory.write(Kind::Idempotency, &place, version, Some(json), &caller.name).await {
        Ok(_) => Ok(()),
        Err(WriteError::Conflict { .. }) => Err(busy()),
        Err(WriteError::Log(error)) => Err(log_problem(&error)),
        Err(WriteError::Timeout) => Err(Problem::new(ApiCode::AppendTimeout, "the directory did not answer in time")),
    }
}

/// The key is being used by another request.
#[must_use]
pub fn busy() -> Problem {
    Problem::new(ApiCode::TooBusy, "the Idempotency-Key is being used at this moment: ask again")
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
