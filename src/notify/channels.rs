//! The channels that are set up, and how a message goes out over each.
//!
//! Invariant: the address is looked up when it is needed: whoever changed it meanwhile is not written to under the old one.
//! Deliberately absent: when, and how often; the desk knows.

use super::contact::Contacts;
use super::delivery::{Outcome, Place};
use super::email::Email;
use super::message::Message;
use super::people::{AddressBook, Subscriptions};
use super::push::{self, Push};
use super::sms::Sms;
use super::template::{TemplateError, Templates};
use super::webhook::{Target, Webhook};
use super::{Channel, UserId};

/// What is set up.
pub struct Channels {
    /// E-mail.
    pub email: Option<Email>,
    /// Web Push.
    pub push: Option<Push>,
    /// Text messages.
    pub sms: Option<Sms>,
    /// Webhooks.
    pub webhook: Option<Webhook>,
    /// What messages say.
    pub templates: Templates,
}

impl Channels {
    /// None but the inbox.
    #[must_use]
    pub const fn none(templates: Templates) -> Self {
        Self { email: None, push: None, sms: None, webhook: None, templates }
    }

    /// Those that are set up.
    #[must_use]
    pub fn ready(&self) -> Vec<Channel> {
        let there = [
            (Channel::Email, self.email.is_some()),
            (Channel::Push, self.push.is_some()),
            (Channel::Sms, self.sms.is_some()),
            (Channel::Webhook, self.webhook.is_some()),
        ];
        there.into_iter().filter(|(_, there)| *there).map(|(channel, _)| channel).collect()
    }

    /// Sends a message to a place.
    pub async fn send(&self, book: &AddressBook, message: &Message, place: &Place, now: i64) -> Outcome {
        let id = message.id.to_string();
        let sent = match place.channel {
            Channel::Email => self.mail(book, message, &place.user, &id).await,
            Channel::Sms => self.text(book, message, &place.user, &id).await,
            Channel::Webhook => self.hook(book, message, &place.user, &id, now).await,
            Channel::Push => self.push(book, message, place, &id, now).await,
        };
        sent.unwrap_or_else(|missing| missing)
    }

    async fn mail(&self, book: &AddressBook, message: &Message, user: &UserId, id: &str) -> Result<Outcome, Outcome> {
        let email = self.email.as_ref().ok_or_else(not_set_up)?;
        let to = address(book, user, Channel::Email)?;
        let rendered = self.templates.message(message).map_err(unwritable)?;
        Ok(email.send(&to, id, &rendered).await)
    }

    async fn text(&self, book: &AddressBook, message: &Message, user: &UserId, id: &str) -> Result<Outcome, Outcome> {
        let sms = self.sms.as_ref().ok_or_else(not_set_up)?;
        let to = address(book, user, Channel::Sms)?;
        let text = self.templates.short(message).map_err(unwritable)?;
        Ok(sms.send(&to, id, &text).await)
    }

    async fn hook(&self, book: &AddressBook, message: &Message, user: &UserId, id: &str, now: i64) -> Result<Outcome, Outcome> {
        let webhook = self.webhook.as_ref().ok_or_else(not_set_up)?;
        let url = address(book, user, Channel::Webhook)?;
        let generation = book.get::<Contacts>(user).0.generation;
        let body = message.to_json().to_string().into_bytes();
        Ok(webhook.send(&Target { user, url: &url, generation }, id, body, now / 1_000).await)
    }

    async fn push(&self, book: &AddressBook, message: &Message, place: &Place, id: &str, now: i64) -> Result<Outcome, Outcome> {
        let push = self.push.as_ref().ok_or_else(not_set_up)?;
        let (held, _) = book.get::<Subscriptions>(&place.user);
        let found = held.subscriptions.into_iter().find(|subscription| *subscription.id == *place.target);
        let to = found.ok_or_else(|| Outcome::Unwanted { why: "the subscription was removed".to_owned() })?;
        let rendered = self.templates.message(message).map_err(unwritable)?;
        let short = self.templates.short(message).map_err(unwritable)?;
        let plain = push::payload(message, &rendered.subject, &short, self.templates.public_url());
        Ok(push.send(&to, id, message.priority(), &plain, now / 1_000).await)
    }
}

fn not_set_up() -> Outcome {
    Outcome::Unwanted { why: "the channel is not set up any more".to_owned() }
}

fn unwritable(error: TemplateError) -> Outcome {
    Outcome::refused(error)
}

fn address(book: &AddressBook, user: &UserId, channel: Channel) -> Result<String, Outcome> {
    let (contacts, _) = book.get::<Contacts>(user);
    let verified = contacts.verified(channel).map(|contact| contact.address.clone());
    verified.ok_or_else(|| Outcome::Unwanted { why: "there is no verified address any more".to_owned() })
}
