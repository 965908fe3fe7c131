//! `/api/v1/notification-contacts` and `/api/v1/push-subscriptions`: where one can be reached.
//!
//! Invariant: an address is one's own to set, and is used when it is proved; the secret that signs a webhook is told to its owner, and the
//! keys of browsers to nobody. The link in a mail leads to a page with a button, since programs that look at mail follow links.
//! Deliberately absent: other people's addresses.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::acts::{Act, note};
use super::json::{Json, answer, small};
use super::notification_desk::NotifyDesk;
use super::notifications::{change_problem, own, write_problem};
use super::page::{Page, PathId};
use super::versions;
use crate::api::caller::{Address, Caller, now};
use crate::api::problem::{ApiCode, Problem};
use crate::api::query::Query;
use crate::notify::contact::{Contact, Contacts, ProofError};
use crate::notify::people::Subscriptions;
use crate::notify::push::{self, Receiver, Subscription};
use crate::notify::template::moment;
use crate::notify::{Channel, Notifier, VerifyError};

/// The form of a mail's link.
const FORM_BYTES_MAX: usize = 1_024;
/// Browsers of one person.
const SUBSCRIPTIONS_MAX: usize = 10;

/// The paths.
pub fn routes() -> OpenApiRouter<Arc<NotifyDesk>> {
    let contacts = OpenApiRouter::new().routes(routes!(list)).routes(routes!(set, remove)).routes(routes!(verify)).routes(routes!(confirm));
    contacts.routes(routes!(subscriptions, subscribe)).routes(routes!(unsubscribe))
}

/// What anyone may ask who has the token of a link.
pub fn public_routes() -> OpenApiRouter<Arc<NotifyDesk>> {
    OpenApiRouter::new().routes(routes!(confirm_page, confirm_link))
}

/// An address.
#[derive(Serialize, ToSchema)]
#[schema(as = NotificationContact)]
pub struct ContactView {
    /// The channel.
    channel: Channel,
    /// The address, number or URL.
    address: String,
    /// Whether it is proved to be one's own; only then it is used.
    verified: bool,
    /// Since when (RFC 3339).
    verified_at: Option<String>,
    /// Of a webhook: what its messages are signed with, as Standard Webhooks have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
    /// Why it is no longer used, if that was found out.
    #[serde(skip_serializing_if = "String::is_empty")]
    detail: String,
}

/// A page of one's addresses.
#[derive(Serialize, ToSchema)]
pub struct NotificationContacts {
    /// One for each channel that has one.
    items: Vec<ContactView>,
    /// The `cursor` of the next page; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// An address to set.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ContactSet {
    /// An e-mail address, a number such as `+4915112345678`, or an `https` URL.
    #[schema(min_length = 1, max_length = 2048)]
    address: String,
}

/// What was sent to an address.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ContactConfirm {
    /// The code of a text message, or the token of a link.
    #[schema(min_length = 1, max_length = 512)]
    code: String,
}

/// What a browser gives when it subscribes (`PushSubscription.toJSON()`).
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PushSubscribe {
    /// Where to.
    #[schema(max_length = 2048)]
    endpoint: String,
    /// The browser's keys.
    #[serde(deserialize_with = "super::json::object")]
    keys: PushKeys,
    /// When it ends, as the browser has it; it is not looked at: the service says when it is gone.
    #[serde(rename = "expirationTime", default)]
    #[expect(dead_code, reason = "browsers send it, and what is unknown is refused")]
    expiration_time: Option<f64>,
}

/// A browser's keys.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PushKeys {
    /// Its public key, base64url.
    #[schema(max_length = 100)]
    p256dh: String,
    /// Its secret, base64url.
    #[schema(max_length = 32)]
    auth: String,
}

/// A subscription, without its keys.
#[derive(Serialize, ToSchema)]
pub struct SubscriptionView {
    /// Its id.
    id: String,
    /// The service that it goes through.
    service: String,
    /// When it was made (RFC 3339).
    created_at: String,
}

/// A page of one's subscriptions.
#[derive(Serialize, ToSchema)]
pub struct PushSubscriptions {
    /// By their ids.
    items: Vec<SubscriptionView>,
    /// The `cursor` of the next page; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
    /// What a browser needs to subscribe (`applicationServerKey`); `null` where Web Push is not set up.
    application_server_key: Option<String>,
}

/// How a failure about addresses is told.
pub(super) fn verify_problem(error: VerifyError) -> Problem {
    let code = match &error {
        VerifyError::NotSetUp => ApiCode::ChannelNotSetUp,
        VerifyError::Unknown | VerifyError::NoAddress => ApiCode::UnknownObject,
        VerifyError::Address(_) => return Problem::new(ApiCode::InvalidField, error.to_string()).field("address"),
        VerifyError::Proof(ProofError::TooSoon) | VerifyError::TooOften => {
            return Problem::new(ApiCode::TooManyRequests, error.to_string()).with("retry_after_seconds", 30);
        }
        VerifyError::Proof(ProofError::Random) | VerifyError::Template(_) => ApiCode::Internal,
        VerifyError::Proof(ProofError::Wrong | ProofError::Expired) => {
            return Problem::new(ApiCode::InvalidField, error.to_string()).field("code");
        }
        VerifyError::Send(_) | VerifyError::Challenge(_) => return Problem::new(ApiCode::NotVerified, error.to_string()),
        VerifyError::Write(_) => ApiCode::Internal,
    };
    match error {
        VerifyError::Write(error) => write_problem(error),
        error => Problem::new(code, error.to_string()),
    }
}

fn channel_of(id: &str) -> Result<Channel, Problem> {
    let found = Channel::parse(id).filter(|channel| *channel != Channel::Push);
    found.ok_or_else(|| Problem::new(ApiCode::UnknownObject, "channels with an address: email, sms, webhook"))
}

fn view(notifier: &Notifier, user: &str, contacts: &Contacts, channel: Channel) -> Option<ContactView> {
    let Contact { address, verified_at, note, .. } = contacts.of(channel)?.clone();
    let webhook = notifier.channels().webhook.as_ref().filter(|_| channel == Channel::Webhook);
    let secret = webhook.map(|webhook| webhook.secret(user, &address, contacts.generation));
    Some(ContactView { channel, address, verified: verified_at.is_some(), verified_at: verified_at.map(moment), secret, detail: note })
}

fn shown(notifier: &Notifier, caller: &Caller, channel: Channel) -> Result<Response, Problem> {
    let (contacts, version) = notifier.book().get::<Contacts>(own(caller));
    let found = view(notifier, own(caller), &contacts, channel).ok_or_else(|| verify_problem(VerifyError::Unknown))?;
    Ok(versions::tagged(answer(StatusCode::OK, &found), version))
}

/// Lists one's addresses.
#[utoipa::path(get, path = "/notification-contacts", tag = "notification-contacts", params(
    ("limit" = Option<u32>, Query, description = "At most so many", minimum = 1, maximum = 500),
    ("cursor" = Option<String>, Query, description = "Where the last page ended"),
), responses(
    (status = 200, description = "Addresses", body = NotificationContacts),
))]
async fn list(State(notifier): State<Arc<NotifyDesk>>, Extension(caller): Extension<Caller>, uri: Uri) -> Result<Response, Problem> {
    let page = Page::read(&Query::read(uri.query(), &["limit", "cursor"])?)?;
    let (contacts, version) = notifier.book().get::<Contacts>(own(&caller));
    // In the order of their words.
    let all = Channel::ALL.into_iter().filter_map(|channel| view(&notifier, own(&caller), &contacts, channel));
    let (items, next_cursor) = page.cut(all, |view| view.channel.as_str());
    Ok(versions::tagged(answer(StatusCode::OK, &NotificationContacts { items, next_cursor }), version))
}

/// Sets one's address for a channel and sends what proves it: a link, a code, or a challenge, which a webhook answers at once.
#[utoipa::path(put, path = "/notification-contacts/{channel}", tag = "notification-contacts", request_body = ContactSet,
    params(("channel" = String, Path, description = "email, sms or webhook")),
    responses((status = 200, description = "The address", body = ContactView)))]
async fn set(
    State(notifier): State<Arc<NotifyDesk>>,
    Extension(caller): Extension<Caller>,
    PathId(channel): PathId,
    uri: Uri,
    body: Json<ContactSet>,
) -> Result<Response, Problem> {
    Query::read(uri.query(), &[])?;
    let channel = channel_of(&channel)?;
    let set = async {
        match notifier.set_contact(own(&caller), channel, &body.value.address, &caller.name).await {
            Ok(_) => shown(&notifier, &caller, channel),
            // The address is there, with its secret, which the webhook's owner needs before it can answer a challenge.
            Err(VerifyError::Challenge(_)) => shown(&notifier, &caller, channel),
            Err(error) => Err(verify_problem(error)),
        }
    };
    notifier.audited(&caller, ("contact.set", &contact(channel)), json!({"channel": channel}), set).await
}

/// What the audit calls an address.
fn contact(channel: Channel) -> String {
    format!("contact:{channel}")
}

/// Removes one's address for a channel.
#[utoipa::path(delete, path = "/notification-contacts/{channel}", tag = "notification-contacts",
    params(("channel" = String, Path, description = "email, sms or webhook")),
    responses((status = 204, description = "It is removed")))]
async fn remove(
    State(notifier): State<Arc<NotifyDesk>>,
    Extension(caller): Extension<Caller>,
    PathId(channel): PathId,
    uri: Uri,
) -> Result<Response, Problem> {
    Query::read(uri.query(), &[])?;
    let channel = channel_of(&channel)?;
    let removed = async { notifier.remove_contact(own(&caller), channel, &caller.name).await.map_err(verify_problem) };
    notifier.audited(&caller, ("contact.remove", &contact(channel)), json!({}), removed).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Sends what proves one's address once more, or asks the webhook once more.
#[utoipa::path(post, path = "/notification-contacts/{channel}/verify", tag = "notification-contacts",
    params(("channel" = String, Path, description = "email, sms or webhook")),
    responses((status = 200, description = "The address", body = ContactView)))]
async fn verify(
    State(notifier): State<Arc<NotifyDesk>>,
    Extension(caller): Extension<Caller>,
    PathId(channel): PathId,
    uri: Uri,
) -> Result<Response, Problem> {
    Query::read(uri.query(), &[])?;
    let channel = channel_of(&channel)?;
    let verified = async { notifier.verify(own(&caller), channel, &caller.name).await.map_err(verify_problem) };
    notifier.audited(&caller, ("contact.verify", &contact(channel)), json!({}), verified).await?;
    shown(&notifier, &caller, channel)
}

/// Takes the code that was sent to one's address.
#[utoipa::path(post, path = "/notification-contacts/{channel}/confirm", tag = "notification-contacts", request_body = ContactConfirm,
    params(("channel" = String, Path, description = "email or sms")),
    responses((status = 200, description = "The address", body = ContactView)))]
async fn confirm(
    State(notifier): State<Arc<NotifyDesk>>,
    Extension(caller): Extension<Caller>,
    PathId(channel): PathId,
    uri: Uri,
    body: Json<ContactConfirm>,
) -> Result<Response, Problem> {
    Query::read(uri.query(), &[])?;
    let channel = channel_of(&channel)?;
    let confirmed = async { notifier.confirm(own(&caller), channel, &body.value.code, &caller.name).await.map_err(verify_problem) };
    notifier.audited(&caller, ("contact.confirm", &contact(channel)), json!({}), confirmed).await?;
    shown(&notifier, &caller, channel)
}

fn page(status: StatusCode, inside: &str) -> Response {
    let html = format!("<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>ordergate</title><body>{inside}</body></html>");
    let policy = "default-src 'none'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, policy),
        // The token stands in the page's address. With no-referrer a browser would send the form with `Origin: null`, which is refused.
        (header::REFERRER_POLICY, "same-origin"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (status, headers, html).into_response()
}

/// A token as we make them goes into the page; anything else does not.
fn token_of(query: &Query) -> Result<String, Problem> {
    let is_ours = |text: &&str| text.len() <= 512 && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    let token = query.text("token").filter(is_ours).filter(|text| !text.is_empty());
    token.map(str::to_owned).ok_or_else(|| Problem::new(ApiCode::InvalidParameter, "no token of ours").field("token"))
}

/// The page that a mail's link leads to: a button.
#[utoipa::path(get, path = "/notification-contacts/confirm", tag = "notification-contacts", security(()),
    params(("token" = String, Query, description = "The token of the link")),
    responses((status = 200, description = "A page with a button", body = String, content_type = "text/html")))]
async fn confirm_page(uri: Uri) -> Result<Response, Problem> {
    let token = token_of(&Query::read(uri.query(), &["token"])?)?;
    let form = format!(
        "<form method=\"post\" action=\"confirm\"><input type=\"hidden\" name=\"token\" value=\"{token}\">\
         <p>Send order notifications to this address?</p><button>Confirm</button></form>"
    );
    Ok(page(StatusCode::OK, &form))
}

/// Takes the token of a mail's link, from its page.
#[utoipa::path(post, path = "/notification-contacts/confirm", tag = "notification-contacts", security(()),
    request_body(content = String, content_type = "application/x-www-form-urlencoded", description = "token=.."),
    responses((status = 200, description = "A page that says so", body = String, content_type = "text/html")))]
async fn confirm_link(
    State(notifier): State<Arc<NotifyDesk>>,
    Extension(Address(address)): Extension<Address>,
    uri: Uri,
    request: Request,
) -> Result<Response, Problem> {
    Query::read(uri.query(), &[])?;
    let (parts, body) = request.into_parts();
    let form = small(&parts, body, FORM_BYTES_MAX).await?;
    let read = |text| Query::read(Some(text), &["token"]).and_then(|query| token_of(&query)).ok();
    // What stands in it is not repeated: it may be a secret in the wrong place.
    let token = std::str::from_utf8(&form).ok().and_then(read);
    let token = token.ok_or_else(|| Problem::new(ApiCode::MalformedBody, "the body is no form with a token"))?;
    match notifier.confirm_link(&token).await {
        // Whose it is stands in the link, so it cannot be noted before the link is looked at.
        Ok(user) => {
            let (address, object) = (address.to_string(), format!("user:{user}/{}", contact(Channel::Email)));
            let act = Act { actor: &user, address: &address, action: "contact.confirm", object: &object };
            // It is done; a trail that does not take it is told in the log.
            let _ = note(&notifier.audit, &act, json!({}), "ok").await;
            Ok(page(StatusCode::OK, "<p>Thank you: this address is confirmed.</p>"))
        }
        Err(VerifyError::Proof(ProofError::Wrong | ProofError::Expired)) => {
            Ok(page(StatusCode::UNPROCESSABLE_ENTITY, "<p>This link is not good any more. Ask for another one.</p>"))
        }
        Err(error) => Err(verify_problem(error)),
    }
}

impl From<&Subscription> for SubscriptionView {
    fn from(subscription: &Subscription) -> Self {
        let url = reqwest::Url::parse(&subscription.endpoint).ok();
        let service = url.and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default();
        Self { id: subscription.id.clone(), service, created_at: moment(subscription.created) }
    }
}

/// Lists one's push subscriptions, and what a browser needs to make one.
#[utoipa::path(get, path = "/push-subscriptions", tag = "push-subscriptions", params(
    ("limit" = Option<u32>, Query, description = "At most so many", minimum = 1, maximum = 500),
    ("cursor" = Option<String>, Query, description = "Where the last page ended"),
), responses(
    (status = 200, description = "Subscriptions", body = PushSubscriptions),
))]
async fn subscriptions(
    State(notifier): State<Arc<NotifyDesk>>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
) -> Result<Response, Problem> {
    let page = Page::read(&Query::read(uri.query(), &["limit", "cursor"])?)?;
    let (held, _) = notifier.book().get::<Subscriptions>(own(&caller));
    let mut all: Vec<_> = held.subscriptions.iter().map(SubscriptionView::from).collect();
    all.sort_by(|a, b| a.id.cmp(&b.id));
    let (items, next_cursor) = page.cut(all, |view| &view.id);
    let application_server_key = notifier.channels().push.as_ref().map(push::Push::public_key);
    Ok(answer(StatusCode::OK, &PushSubscriptions { items, next_cursor, application_server_key }))
}

/// Adds a browser's subscription, or renews its keys.
#[utoipa::path(post, path = "/push-subscriptions", tag = "push-subscriptions", request_body = PushSubscribe, params(
    ("Idempotency-Key" = Option<String>, Header, description = "The same key subscribes once only", min_length = 1, max_length = 255),
), responses(
    (status = 201, description = "The subscription", body = SubscriptionView),
))]
async fn subscribe(
    State(notifier): State<Arc<NotifyDesk>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    uri: Uri,
    body: Json<PushSubscribe>,
) -> Result<Response, Problem> {
    Query::read(uri.query(), &[])?;
    let PushSubscribe { endpoint, keys, .. } = body.value;
    let push = notifier.channels().push.as_ref().ok_or_else(|| verify_problem(VerifyError::NotSetUp))?;
    let invalid = |field: &'static str| move |why: String| Problem::new(ApiCode::InvalidField, why).field(field);
    push.guard().look(&endpoint).await.map_err(|error| error.to_string()).map_err(invalid("endpoint"))?;
    Receiver::read(&keys.p256dh, &keys.auth).map_err(|error| error.to_string()).map_err(invalid("keys"))?;
    let made = Subscription { id: push::id_of(&endpoint), endpoint, p256dh: keys.p256dh, auth: keys.auth, created: now() };
    let begun = notifier.begin(&caller, "POST /push-subscriptions", &headers, &body.bytes, made.id.clone()).await?;
    let (held, _) = notifier.book().get::<Subscriptions>(own(&caller));
    if let Some(there) = held.subscriptions.iter().find(|there| begun.again && there.id == made.id && there.created >= begun.at) {
        return Ok(answer(StatusCode::CREATED, &SubscriptionView::from(there)));
    }
    let changed = notifier.book().change(own(&caller), &caller.name, None, |held: &mut Subscriptions| {
        held.subscriptions.retain(|other| other.id != made.id);
        if held.subscriptions.len() >= SUBSCRIPTIONS_MAX {
            return Err(Problem::new(ApiCode::Conflict, format!("there are {SUBSCRIPTIONS_MAX} subscriptions: delete one first")));
        }
        held.subscriptions.push(made.clone());
        Ok(())
    });
    let act = async { changed.await.map_err(change_problem) };
    notifier.audited(&caller, ("push.subscribe", &format!("push:{}", made.id)), json!({}), act).await?;
    Ok(answer(StatusCode::CREATED, &SubscriptionView::from(&made)))
}

/// Deletes a subscription.
#[utoipa::path(delete, path = "/push-subscriptions/{id}", tag = "push-subscriptions", params(("id" = String, Path, description = "Its id")),
    responses((status = 204, description = "It is deleted")))]
async fn unsubscribe(
    State(notifier): State<Arc<NotifyDesk>>,
    Extension(caller): Extension<Caller>,
    PathId(id): PathId,
    uri: Uri,
) -> Result<Response, Problem> {
    Query::read(uri.query(), &[])?;
    let (held, _) = notifier.book().get::<Subscriptions>(own(&caller));
    if !held.subscriptions.iter().any(|subscription| subscription.id == id) {
        return Err(Problem::new(ApiCode::UnknownObject, "there is no such subscription"));
    }
    let changed = notifier.book().change(own(&caller), &caller.name, None, |held: &mut Subscriptions| {
        held.subscriptions.retain(|subscription| subscription.id != id);
        Ok::<(), Infallible>(())
    });
    let act = async {
        changed.await.map_err(|error| match error {
            crate::notify::people::ChangeError::Refused(never) => match never {},
            crate::notify::people::ChangeError::Write(error) => write_problem(error),
        })
    };
    notifier.audited(&caller, ("push.unsubscribe", &format!("push:{id}")), json!({}), act).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
