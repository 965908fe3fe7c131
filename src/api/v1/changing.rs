//! One change of an object at a time, of all instances: whoever changes what they have seen holds it meanwhile.
//!
//! Invariant: between the look at an object and the record that changes it no other instance writes one that was asked for in the same
//! way. The log decides who holds it: a claim in the directory, which the next one finds free, or old enough to have been left by a
//! process that died. The holder looks at the object when its replica has folded all that was in `gate.control` by then, so that it
//! sees what the one before has written, and what anybody else has. Deliberately absent: any hold on producers that write to
//! `gate.control` themselves; what they change in that moment is overwritten, and stands in the log.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::books::{Books, UNDER_WAY_MS, command_problem, replica_problem};
use super::idempotency::{Claim, busy, write};
use crate::api::caller::{Caller, now};
use crate::api::problem::Problem;
use crate::directory::Kind;

/// How long one waits for another who changes the same object.
const PATIENCE: Duration = Duration::from_secs(5);

/// No user has such a name, so that no claim of a caller's is here.
const PREFIX: &str = "~changing";
/// A claim that nobody holds any more says so in place of an object.
const FREE: &str = "free";

/// An object that one holds until it is let go.
#[must_use = "what is not let go is held for a minute"]
pub struct Held {
    place: String,
    claim: Claim,
    version: u64,
}

/// Holds an object, and waits until the books have folded what was in the log by then.
///
/// # Errors
/// Somebody else holds it for long, or the log or the books do not answer.
pub async fn hold(books: &Books, caller: &Caller, object: &str) -> Result<Held, Problem> {
    let deadline = Instant::now() + PATIENCE;
    let key = blake3::hash(object.as_bytes()).to_hex().to_string();
    let place = format!("{PREFIX}~{}", &key[..32]);
    let mut changes = books.directory.changes();
    loop {
        changes.borrow_and_update();
        let there = books.directory.get(Kind::Idempotency, &place);
        let claim = there.as_ref().and_then(|entity| serde_json::from_slice::<Claim>(&entity.body).ok());
        if claim.is_some_and(|claim| claim.object != FREE && now() - claim.at < UNDER_WAY_MS) {
            timeout_at(deadline, changes.changed()).await.map_err(|_| busy())?.map_err(|_| busy())?;
            continue;
        }
        let claim = Claim { key: key.clone(), body: String::new(), object: object.to_owned(), at: now() };
        let version = there.map_or(0, |entity| entity.version);
        if let Some(entity) = write(&books.directory, &caller.name, &place, version, &claim).await? {
            let held = Held { place, claim, version: entity.version };
            return match catch_up(books).await {
                Ok(()) => Ok(held),
                Err(problem) => {
                    held.let_go(books, caller).await;
                    Err(problem)
                }
            };
        }
        if Instant::now() >= deadline {
            return Err(busy());
        }
    }
}

/// Waits until the books have folded the newest record of `gate.control`.
async fn catch_up(books: &Books) -> Result<(), Problem> {
    match books.commands.newest().await.map_err(command_problem)? {
        Some(newest) => books.replicas.wait_for(newest, PATIENCE).await.map_err(replica_problem),
        None => Ok(()),
    }
}

impl Held {
    /// Lets it go. When that fails the next one finds it a minute later.
    pub async fn let_go(self, books: &Books, caller: &Caller) {
        let Self { place, claim, version } = self;
        let free = Claim { object: FREE.to_owned(), ..claim };
        if let Err(problem) = write(&books.directory, &caller.name, &place, version, &free).await {
            tracing::warn!(code = problem.code().as_str(), place, "what was changed could not be let go: it is held for a minute");
        }
    }
}

#[cfg(test)]
mod tests;
