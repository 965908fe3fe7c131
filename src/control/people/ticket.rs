//! Tickets for the WebSocket: a browser cannot send a header with it, and a token has no place in an address.
//!
//! Invariant: a ticket is good once, for 30 seconds, at the instance that gave it, for as long as its session or token is.
//! Deliberately absent: the log; a ticket that is lost is asked for again.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use zeroize::Zeroizing;

use super::{People, PeopleError, Principal, Proof, random};
use crate::domain::Millis;

/// How long a ticket is good.
pub const GOOD_MS: Millis = 30_000;
const TICKETS_MAX: usize = 10_000;

/// The tickets that are out, by the hash of each.
#[derive(Default)]
pub(super) struct Tickets(Mutex<HashMap<String, Ticket>>);

struct Ticket {
    holder: Option<(String, Proof)>,
    until: Millis,
}

impl People {
    /// A ticket for someone; without a principal one of the open mode.
    ///
    /// # Errors
    /// Too many are out, or there are no random bits.
    pub fn ticket(&self, of: Option<(&str, &Proof)>, now: Millis) -> Result<Zeroizing<String>, PeopleError> {
        let secret = random::secret()?;
        let mut out = self.tickets.0.lock().unwrap_or_else(PoisonError::into_inner);
        if out.len() >= TICKETS_MAX {
            out.retain(|_, ticket| now < ticket.until);
        }
        if out.len() >= TICKETS_MAX {
            return Err(PeopleError::Busy);
        }
        let holder = of.map(|(user, proof)| (user.to_owned(), proof.clone()));
        out.insert(random::hash(&secret), Ticket { holder, until: now + GOOD_MS });
        Ok(secret)
    }

    /// Who a ticket is of, once: `None` of the open mode, as long as that lasts.
    ///
    /// # Errors
    /// It is not good, or not any more.
    pub fn redeem(&self, ticket: &str, now: Millis) -> Result<Option<Principal>, PeopleError> {
        let found = self.tickets.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&random::hash(ticket));
        let found = found.filter(|ticket| now < ticket.until).ok_or(PeopleError::Unauthenticated)?;
        match found.holder {
            Some((user, proof)) => self.principal(&user, proof, now).map(Some),
            None if self.has_users() => Err(PeopleError::Unauthenticated),
            None => Ok(None),
        }
    }
}
