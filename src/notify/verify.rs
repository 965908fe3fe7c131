//! How an address becomes a verified one: by link, by code, by challenge; and how a channel is tried.
//!
//! Invariant: an address is checked before it is kept, and nothing but its own proof is sent to it before it is verified. What is sent to
//! an address that somebody else may own is limited in number. Deliberately absent: HTTP.

use super::Channel;
use super::contact::{Contact, Contacts, ProofError, user_of};
use super::delivery::{DeliveryId, Outcome, Place};
use super::email;
use super::message::Message;
use super::people::ChangeError;
use super::raised::{Raised, RaisedId};
use super::service::Notifier;
use super::sms;
use super::template::TemplateError;
use super::webhook::{ChallengeError, Target};
use crate::control::directory::WriteError;
use crate::domain::{NotificationType, Priority};

/// Why an address was not taken or verified.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The operator has not set the channel up.
    #[error("the channel is not set up on this gate")]
    NotSetUp,
    /// It is no address of this channel.
    #[error("{0}")]
    Address(String),
    /// The channel has no address of its own.
    #[error("browsers are reached by push subscriptions, not by an address")]
    NoAddress,
    /// There is none to verify.
    #[error("there is no such address")]
    Unknown,
    /// The proof.
    #[error(transparent)]
    Proof(#[from] ProofError),
    /// What proves it could not be sent.
    #[error("the message that verifies it could not be sent: {0}")]
    Send(String),
    /// The webhook did not answer the challenge.
    #[error(transparent)]
    Challenge(#[from] ChallengeError),
    /// The message could not be written.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The directory.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// Too often.
    #[error("the channel was tried too often: wait a minute")]
    TooOften,
}

impl<E: Into<Self>> From<ChangeError<E>> for VerifyError {
    fn from(error: ChangeError<E>) -> Self {
        match error {
            ChangeError::Refused(error) => error.into(),
            ChangeError::Write(error) => Self::Write(error),
        }
    }
}

impl Notifier {
    /// Sets a person's address and sends what proves it; a webhook is asked at once. Gives the contacts' version.
    ///
    /// # Errors
    /// See [`VerifyError`].
    pub async fn set_contact(&self, user: &str, channel: Channel, address: &str, actor: &str) -> Result<u64, VerifyError> {
        let address = self.read_address(channel, address).await?;
        if !self.try_out(user, channel) {
            return Err(VerifyError::TooOften);
        }
        let made = self.book().change(user, actor, None, |contacts: &mut Contacts| {
            contacts.generation += u64::from(channel == Channel::Webhook);
            let slot = contacts.slot(channel).ok_or(VerifyError::NoAddress)?;
            // The same address again keeps its proof's age, so that asking again and again sends no more.
            let proof = slot.take().filter(|old| old.address == address && old.verified_at.is_none()).and_then(|old| old.proof);
            *slot = Some(Contact { proof, ..Contact::new(address.clone()) });
            Ok::<(), VerifyError>(())
        });
        made.await?;
        if channel == Channel::Webhook { self.challenge(user, actor).await } else { self.verify(user, channel, actor).await }
    }

    /// Sends what proves a person's address once more, or asks the webhook once more.
    ///
    /// # Errors
    /// See [`VerifyError`].
    pub async fn verify(&self, user: &str, channel: Channel, actor: &str) -> Result<u64, VerifyError> {
        self.needs(channel)?;
        if channel == Channel::Webhook {
            // The address may be somebody else's until it has answered.
            if !self.try_out(user, channel) {
                return Err(VerifyError::TooOften);
            }
            return self.challenge(user, actor).await;
        }
        let now = super::now_ms();
        let made = self.book().change(user, actor, None, |contacts: &mut Contacts| {
            let contact = contacts.slot(channel).ok_or(VerifyError::NoAddress)?.as_mut().ok_or(VerifyError::Unknown)?;
            Ok::<_, VerifyError>((contact.address.clone(), contact.prove(user, channel, now)?))
        });
        let ((address, secret), version) = made.await?;
        match self.send_proof(user, channel, &address, &secret).await? {
            Outcome::Sent => Ok(version),
            Outcome::Later { why, .. } | Outcome::Refused { why } | Outcome::Gone { why } | Outcome::Unwanted { why } => {
                Err(VerifyError::Send(why))
            }
        }
    }

    async fn send_proof(&self, user: &str, channel: Channel, address: &str, secret: &str) -> Result<Outcome, VerifyError> {
        let channels = self.channels();
        let id = DeliveryId::of_digest(&Place { user: user.into(), channel, target: secret.into() }, Vec::new()).to_string();
        match channel {
            Channel::Email => {
                let email = channels.email.as_ref().ok_or(VerifyError::NotSetUp)?;
                let link = format!("{}/api/v1/notification-contacts/confirm?token={secret}", channels.templates.public_url());
                Ok(email.send(address, &id, &channels.templates.verification(user, &link)?).await)
            }
            Channel::Sms => {
                let sms = channels.sms.as_ref().ok_or(VerifyError::NotSetUp)?;
                Ok(sms.send(address, &id, &channels.templates.code(secret)?).await)
            }
            Channel::Push | Channel::Webhook => Err(VerifyError::NoAddress),
        }
    }

    async fn challenge(&self, user: &str, actor: &str) -> Result<u64, VerifyError> {
        let webhook = self.channels().webhook.as_ref().ok_or(VerifyError::NotSetUp)?;
        let (contacts, version) = self.book().get::<Contacts>(user);
        let contact = contacts.webhook.ok_or(VerifyError::Unknown)?;
        let now = super::now_ms();
        let target = Target { user, url: &contact.address, generation: contacts.generation };
        webhook.challenge(&target, now / 1_000).await?;
        let made = self.book().change(user, actor, Some(version), |contacts: &mut Contacts| {
            let contact = contacts.webhook.as_mut().ok_or(VerifyError::Unknown)?;
            contact.verified_at = Some(now);
            Ok::<(), VerifyError>(())
        });
        Ok(made.await?.1)
    }

    /// Takes the code or token that was sent to a person's address.
    ///
    /// # Errors
    /// See [`VerifyError`].
    pub async fn confirm(&self, user: &str, channel: Channel, secret: &str, actor: &str) -> Result<u64, VerifyError> {
        self.needs(channel)?;
        let now = super::now_ms();
        let made = self.book().change(user, actor, None, |contacts: &mut Contacts| {
            let contact = contacts.slot(channel).ok_or(VerifyError::NoAddress)?.as_mut().ok_or(VerifyError::Unknown)?;
            if contact.proof.is_none() {
                return Err(VerifyError::Proof(ProofError::Wrong));
            }
            // A wrong one is written too: it counts.
            Ok(contact.confirm(user, channel, secret, now))
        });
        let (confirmed, version) = made.await?;
        confirmed?;
        Ok(version)
    }

    /// Takes the token of a link; whose it is stands in it.
    ///
    /// # Errors
    /// See [`VerifyError`].
    pub async fn confirm_link(&self, token: &str) -> Result<String, VerifyError> {
        let user = user_of(token).filter(|_| token.len() <= 512).ok_or(ProofError::Wrong)?;
        match self.confirm(&user, Channel::Email, token, &user).await {
            Ok(_) => Ok(user),
            // Who has no token does not hear who exists.
            Err(VerifyError::Unknown | VerifyError::NotSetUp) => Err(ProofError::Wrong.into()),
            Err(error) => Err(error),
        }
    }

    /// Forgets a person's address.
    ///
    /// # Errors
    /// There is none, or the directory does not take it.
    pub async fn remove_contact(&self, user: &str, channel: Channel, actor: &str) -> Result<u64, VerifyError> {
        let made = self.book().change(user, actor, None, |contacts: &mut Contacts| {
            contacts.slot(channel).ok_or(VerifyError::NoAddress)?.take().map(drop).ok_or(VerifyError::Unknown)
        });
        Ok(made.await?.1)
    }

    /// A channel that has to be set up for what is asked.
    fn needs(&self, channel: Channel) -> Result<(), VerifyError> {
        if self.channels().ready().contains(&channel) { Ok(()) } else { Err(VerifyError::NotSetUp) }
    }

    async fn read_address(&self, channel: Channel, address: &str) -> Result<String, VerifyError> {
        let channels = self.channels();
        match channel {
            Channel::Email => {
                channels.email.as_ref().ok_or(VerifyError::NotSetUp)?;
                email::read_address(address).map_err(|error| VerifyError::Address(error.to_string()))
            }
            Channel::Sms => {
                channels.sms.as_ref().ok_or(VerifyError::NotSetUp)?;
                let number = sms::read_number(address);
                number.ok_or_else(|| VerifyError::Address("a number is + and 7 to 15 digits, the country first".to_owned()))
            }
            Channel::Webhook => {
                let webhook = channels.webhook.as_ref().ok_or(VerifyError::NotSetUp)?;
                let url = webhook.guard().look(address).await.map_err(|error| VerifyError::Address(error.to_string()))?;
                Ok(url.to_string())
            }
            Channel::Push => Err(VerifyError::NoAddress),
        }
    }

    /// Sends a message that says that it is a test, to every place that a person has on a channel.
    ///
    /// # Errors
    /// The channel is not set up, there is no such place, or it was tried too often.
    pub async fn test(&self, user: &str, channel: Channel) -> Result<Vec<Outcome>, VerifyError> {
        self.needs(channel)?;
        let places = self.book().places_of(&user.into(), channel);
        if places.is_empty() {
            return Err(VerifyError::Unknown);
        }
        if !self.try_out(user, channel) {
            return Err(VerifyError::TooOften);
        }
        let now = super::now_ms();
        let raised = Raised {
            id: RaisedId { shard: 0, seq: 0, index: 0 },
            account: None,
            owner: None,
            kind: NotificationType::SystemAlert,
            code: "TEST".to_owned(),
            priority: Priority::Low,
            title: "Test notification".to_owned(),
            message: "This is a test: notifications arrive here.".to_owned(),
            data: serde_json::Map::new(),
            at: now,
        };
        let mut outcomes = Vec::new();
        for place in places {
            let unique = Place { target: format!("{} {now}", place.target).into(), ..place.clone() };
            let id = DeliveryId::of_digest(&unique, Vec::new());
            let (user, contents) = (place.user.clone(), vec![raised.clone().into()]);
            let message = Message { id, user, contents, more: 0, digest: false, reasons: Vec::new(), test: true };
            outcomes.push(self.channels().send(self.book(), &message, &place, now).await);
        }
        Ok(outcomes)
    }
}
