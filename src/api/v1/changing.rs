//! One change of an object at a time, of all instances: whoever changes what they have seen holds it meanwhile.
//!
//! Invariant: between the look at an object and the record that changes it no other instance writes one that was asked for in the same
//! way. The log decides who holds it: a claim in the directory, which the next one finds free, or old enough to have been left by a
//! process that died. The holder looks at the object when its replica has folded all that was in `gate.control` by then, so that it
//! sees what the one before has written, and what anybody else has. Clocks of instances agree within a minute. Deliberately absent: any hold on producers that write to
//! `gate.control` themselves; what they change in that moment is overwritten, and stands in the log.

use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};

use super::books::{Books, UNDER_WAY_MS, command_problem, fresh_id, replica_problem};
use super::idempotency::{Claim, busy, write};
use crate::api::caller::{Caller, now};
use crate::api::problem::Problem;
use crate::directory::Kind;

/// How long one waits for another who changes the same object.
const PATIENCE: Duration = Duration::from_secs(5);

/// Letting go is tried so often.
const LET_GO_TRIES: usize = 3;
/// No user has such a name, so that no claim of a caller's is here.
const PREFIX: &str = "~changing";
/// A claim that nobody holds any more says so in place of an object.
const FREE: &str = "free";

/// An object that one holds until it is let go.
#[must_use = "what is not let go is held for a minute"]
pub struct Held {
    place: String,
    claim: Claim,
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
        // No two claims say the same: whoever made one knows it again.
        let claim = Claim { key: key.clone(), body: fresh_id("hold"), object: object.to_owned(), at: now() };
        let version = there.map_or(0, |entity| entity.version);
        let held = Held { place: place.clone(), claim };
        match write(&books.directory, &caller.name, &place, version, &held.claim).await {
            Ok(Some(_)) => {}
            Ok(None) if Instant::now() < deadline => continue,
            Ok(None) => return Err(busy()),
            Err(problem) => {
                // It may have come to the log all the same.
                held.let_go(books, caller).await;
                return Err(problem);
            }
        }
        return match catch_up(books).await {
            Ok(()) => Ok(held),
            Err(problem) => {
                held.let_go(books, caller).await;
                Err(problem)
            }
        };
    }
}

/// Waits until the books have folded the newest record of `gate.control`.
async fn catch_up(books: &Books) -> Result<(), Problem> {
    let newest = timeout(PATIENCE, books.commands.newest()).await.map_err(|_| busy())?;
    match newest.map_err(command_problem)? {
        Some(newest) => books.replicas.wait_for(newest, PATIENCE).await.map_err(replica_problem),
        None => Ok(()),
    }
}

impl Held {
    /// Whether it is still held: who was put aside for a minute finds that another has taken it over.
    ///
    /// # Errors
    /// It is not.
    pub fn is_still_held(&self, books: &Books) -> Result<(), Problem> {
        if self.version(books).is_some() && now() - self.claim.at < UNDER_WAY_MS { Ok(()) } else { Err(busy()) }
    }

    fn version(&self, books: &Books) -> Option<u64> {
        let entity = books.directory.get(Kind::Idempotency, &self.place)?;
        let claim = serde_json::from_slice::<Claim>(&entity.body).ok()?;
        (claim == self.claim).then_some(entity.version)
    }

    /// Lets it go. When that fails the next one finds it a minute later.
    pub async fn let_go(self, books: &Books, caller: &Caller) {
        let free = Claim { object: FREE.to_owned(), ..self.claim.clone() };
        for _ in 0..LET_GO_TRIES {
            let Some(version) = self.version(books) else { return };
            match write(&books.directory, &caller.name, &self.place, version, &free).await {
                Ok(_) => {}
                Err(problem) => {
                    let (code, place) = (problem.code().as_str(), &self.place);
                    tracing::warn!(code, place, "what was changed could not be let go: in the end it is held for a minute");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
