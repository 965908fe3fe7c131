//! Where people can be reached: an e-mail address, a number, a webhook; each proved to be theirs before it is used.
//!
//! Invariant: only a verified address is sent anything but the message that verifies it. A proof is random, kept as its hash, good for
//! one address and a limited time, and a short one for a few tries. Another address begins unverified. Deliberately absent: the
//! subscriptions of browsers; whoever has one has proved it by having it.

use aws_lc_rs::{constant_time, rand};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use super::Channel;

/// A link is good for so long.
const LINK_MS: i64 = 24 * 3_600_000;
/// A code is good for so long.
const CODE_MS: i64 = 10 * 60_000;
/// And for so many tries.
const CODE_TRIES: u32 = 5;
/// A proof is not sent again within this.
const RESEND_MS: i64 = 30_000;

/// A person's addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contacts {
    /// E-mail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<Contact>,
    /// The number for text messages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sms: Option<Contact>,
    /// The webhook.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<Contact>,
    /// How many webhooks there were: each has a secret of its own.
    #[serde(default)]
    pub generation: u64,
}

impl Contacts {
    /// The address for a channel.
    #[must_use]
    pub const fn of(&self, channel: Channel) -> Option<&Contact> {
        match channel {
            Channel::Email => self.email.as_ref(),
            Channel::Sms => self.sms.as_ref(),
            Channel::Webhook => self.webhook.as_ref(),
            Channel::Push => None,
        }
    }

    /// The same, to change it; `None` for a channel that has no address.
    pub const fn slot(&mut self, channel: Channel) -> Option<&mut Option<Contact>> {
        match channel {
            Channel::Email => Some(&mut self.email),
            Channel::Sms => Some(&mut self.sms),
            Channel::Webhook => Some(&mut self.webhook),
            Channel::Push => None,
        }
    }

    /// The address that may be used.
    #[must_use]
    pub fn verified(&self, channel: Channel) -> Option<&Contact> {
        self.of(channel).filter(|contact| contact.verified_at.is_some())
    }
}

/// An address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contact {
    /// It.
    pub address: String,
    /// Since when it is verified, in ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified_at: Option<i64>,
    /// What proves it, as long as it is not proved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<Proof>,
    /// What the last attempt to verify it met.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// What proves an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// Of what was sent.
    pub hash: String,
    /// When, in ms.
    pub sent_at: i64,
    /// Tries that failed.
    #[serde(default)]
    pub tries: u32,
}

/// Why an address is not verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// Not what was sent, or nothing was, or too often wrong.
    #[error("this is not what was sent to the address")]
    Wrong,
    /// Too late.
    #[error("it is no longer good: ask for another one")]
    Expired,
    /// One was sent just now.
    #[error("one was sent less than 30 seconds ago")]
    TooSoon,
    /// No random numbers.
    #[error("no random number could be had")]
    Random,
}

impl Contact {
    /// An address that is not verified.
    #[must_use]
    pub const fn new(address: String) -> Self {
        Self { address, verified_at: None, proof: None, note: String::new() }
    }

    /// Makes a proof and gives what has to be sent: the token of a link for e-mail, six digits for a text message.
    ///
    /// # Errors
    /// One was sent just now, or no random numbers are to be had.
    pub fn prove(&mut self, user: &str, channel: Channel, now: i64) -> Result<String, ProofError> {
        if self.proof.as_ref().is_some_and(|proof| now.saturating_sub(proof.sent_at) < RESEND_MS) {
            return Err(ProofError::TooSoon);
        }
        let secret = match channel {
            Channel::Email => link_token(user)?,
            Channel::Sms | Channel::Push | Channel::Webhook => code()?,
        };
        self.proof = Some(Proof { hash: self.hash(user, channel, &secret), sent_at: now, tries: 0 });
        Ok(secret)
    }

    /// Takes what was sent as the proof. A wrong one is counted: keep the contact either way.
    ///
    /// # Errors
    /// It is not what was sent, or no longer good.
    pub fn confirm(&mut self, user: &str, channel: Channel, secret: &str, now: i64) -> Result<(), ProofError> {
        let hash = self.hash(user, channel, secret);
        let Some(proof) = &mut self.proof else { return Err(ProofError::Wrong) };
        let (good_for, tries_max) = if channel == Channel::Email { (LINK_MS, u32::MAX) } else { (CODE_MS, CODE_TRIES) };
        if now.saturating_sub(proof.sent_at) >= good_for || proof.tries >= tries_max {
            return Err(ProofError::Expired);
        }
        if constant_time::verify_slices_are_equal(hash.as_bytes(), proof.hash.as_bytes()).is_err() {
            proof.tries = proof.tries.saturating_add(1);
            return Err(ProofError::Wrong);
        }
        (self.proof, self.verified_at) = (None, Some(now));
        Ok(())
    }

    fn hash(&self, user: &str, channel: Channel, secret: &str) -> String {
        let mut hasher = blake3::Hasher::new_derive_key("ordergate 2026 notify contact proof");
        for part in [user, channel.as_str(), &self.address, secret] {
            hasher.update(&(part.len() as u64).to_be_bytes());
            hasher.update(part.as_bytes());
        }
        hasher.finalize().to_hex().to_string()
    }
}

/// Whose a link's token says that it is.
#[must_use]
pub fn user_of(token: &str) -> Option<String> {
    let (user, _) = token.split_once('.')?;
    String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(user).ok()?).ok()
}

fn link_token(user: &str) -> Result<String, ProofError> {
    let mut random = [0; 32];
    rand::fill(&mut random).map_err(|_| ProofError::Random)?;
    Ok(format!("{}.{}", BASE64_URL_SAFE_NO_PAD.encode(user), BASE64_URL_SAFE_NO_PAD.encode(random)))
}

/// Six digits, all alike likely to within 2^-40.
fn code() -> Result<String, ProofError> {
    let mut random = [0; 8];
    rand::fill(&mut random).map_err(|_| ProofError::Random)?;
    Ok(format!("{:06}", u64::from_be_bytes(random) % 1_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000;

    #[test]
    fn a_link_verifies_the_address_that_it_was_sent_to_and_only_once() {
        let mut contact = Contact::new("ann@example.com".into());
        let token = contact.prove("ann", Channel::Email, 0).unwrap();
        assert_eq!(user_of(&token).as_deref(), Some("ann"));
        let mut other = Contact { address: "eve@example.com".into(), ..contact.clone() };
        assert_eq!(other.confirm("ann", Channel::Email, &token, 1), Err(ProofError::Wrong));
        assert_eq!(contact.clone().confirm("bob", Channel::Email, &token, 1), Err(ProofError::Wrong));
        assert_eq!(contact.clone().confirm("ann", Channel::Email, &token, 24 * 60 * MINUTE), Err(ProofError::Expired));
        assert_eq!(contact.confirm("ann", Channel::Email, &token, 24 * 60 * MINUTE - 1), Ok(()));
        assert!(contact.verified_at.is_some());
        assert_eq!(contact.confirm("ann", Channel::Email, &token, 5), Err(ProofError::Wrong));
    }

    #[test]
    fn a_code_is_good_for_five_tries_and_ten_minutes() {
        let mut contact = Contact::new("+491511234567".into());
        let code = contact.prove("ann", Channel::Sms, 0).unwrap();
        assert!(code.len() == 6 && code.bytes().all(|b| b.is_ascii_digit()));
        assert_eq!(contact.clone().confirm("ann", Channel::Sms, &code, 10 * MINUTE), Err(ProofError::Expired));
        assert_eq!(contact.clone().confirm("ann", Channel::Sms, &code, 10 * MINUTE - 1), Ok(()));
        for _ in 0..5 {
            assert_eq!(contact.confirm("ann", Channel::Sms, "x", 1), Err(ProofError::Wrong));
        }
        assert_eq!(contact.confirm("ann", Channel::Sms, &code, 1), Err(ProofError::Expired), "guessing has to end");
    }

    #[test]
    fn proofs_are_not_sent_in_a_row_and_are_kept_as_hashes() {
        let mut contact = Contact::new("ann@example.com".into());
        let token = contact.prove("ann", Channel::Email, 0).unwrap();
        assert_eq!(contact.prove("ann", Channel::Email, 29_999), Err(ProofError::TooSoon));
        assert!(!serde_json::to_string(&contact).unwrap().contains(token.split_once('.').unwrap().1));
        assert!(contact.prove("ann", Channel::Email, 30_000).is_ok());
    }
}
