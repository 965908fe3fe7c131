//! What the HTTP face answers when it does not do what it was asked: `application/problem+json`.
//!
//! Invariant: every refusal has one code of [`ApiCode`], and a code has one status. Deliberately
//! absent: what went wrong inside; that is logged where it is consumed, not sent to strangers.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

/// Why a request was refused. The order is frozen; new ones go to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ApiCode {
    /// The `Host` header names another machine: a page that rebinds its name reaches us like that.
    ForeignHost,
    /// The `Origin` header names a page of another origin.
    ForeignOrigin,
    /// No such path.
    NotFound,
    /// The path knows other methods.
    MethodNotAllowed,
    /// The body is of another type than asked for.
    UnsupportedMediaType,
    /// The body is too large.
    BodyTooLarge,
    /// The body did not arrive in time.
    BodyTimeout,
    /// The body could not be read to its end.
    BodyUnreadable,
    /// More lines than a batch may have.
    TooManyLines,
    /// A line longer than a line may be.
    LineTooLong,
    /// A line that is no record line.
    LineInvalid,
    /// A line for a topic that nobody may write to from outside.
    TopicNotInput,
    /// A batch without a line.
    EmptyBatch,
    /// A query parameter that the path does not know.
    UnknownParameter,
    /// A query parameter with a value that it may not have, or given twice.
    InvalidParameter,
    /// A topic that does not exist.
    UnknownTopic,
    /// A partition that the topic does not have.
    UnknownPartition,
    /// An account that was never opened.
    UnknownAccount,
    /// The body is no intent, amend or cancel.
    NotAnIntent,
    /// The decision did not come in time. The intent may be decided later: ask again with the same id.
    DecisionTimeout,
    /// The record was taken and no decision belongs to it.
    NoDecision,
    /// The log cannot take records now.
    LogUnavailable,
    /// The daemon is starting or not able to decide.
    NotReady,
    /// The daemon is stopping.
    ShuttingDown,
    /// Too many requests are under way.
    TooBusy,
    /// The log did not commit in time.
    AppendTimeout,
    /// A defect of ours.
    Internal,
    /// The request does not prove who sends it.
    Unauthenticated,
    /// The access token was good once: refresh.
    TokenExpired,
    /// The refresh token was used before. The session is over.
    RefreshReused,
    /// Whoever asks may not do this.
    Forbidden,
    /// Asked too often.
    TooManyRequests,
    /// The body is no JSON object.
    MalformedBody,
    /// A field that is absent, unknown or has a value that it may not have.
    InvalidField,
    /// The password is not taken.
    WeakPassword,
    /// An object that does not exist, or that whoever asks may not know of.
    UnknownObject,
    /// There is one of that name or id.
    AlreadyExists,
    /// Somebody else changed it at the same time.
    Conflict,
    /// The request does not say which version of the object it saw.
    PreconditionRequired,
    /// The object has another version than the request saw.
    PreconditionFailed,
    /// Nobody could administer any more.
    LastAdmin,
    /// The `Idempotency-Key` came before with something else.
    IdempotencyKeyReused,
    /// There is no master key, or not the right one.
    VaultLocked,
    /// The key-encryption key is being changed already.
    VaultRotating,
    /// The broker key is revoked, which is final.
    KeyRevoked,
    /// The broker key may not be used now.
    KeyNotActive,
    /// An owner has as many broker keys as one may have.
    TooManyKeys,
    /// A stored secret does not open.
    SecretDamaged,
    /// An account has as many rules as its owner may add.
    TooManyRules,
    /// More trading states of an account than its owner may set.
    TooManyStates,
    /// What proves an address could not be had from it.
    NotVerified,
    /// A channel of notifications that the operator has not set up.
    ChannelNotSetUp,
    /// The books refused an operator's record.
    RecordRefused,
    /// An operator's record is in the log, and not applied by every shard yet.
    NotApplied,
    /// A symbol that nobody ever said anything of.
    UnknownSymbol,
    /// Charts cannot be shown now: they are off, or being rebuilt from the log.
    ChartUnavailable,
    /// The path speaks WebSocket only.
    UpgradeRequired,
    /// A channel that does not exist.
    UnknownChannel,
    /// A connection has as many subscriptions as one may have.
    TooManySubscriptions,
    /// The connection has this subscription.
    AlreadySubscribed,
    /// The connection does not have this subscription.
    NotSubscribed,
    /// What came after a position is not all kept any more.
    PositionNotKept,
    /// What stands at the position that the request brings is not read here yet. Nothing was done.
    PositionNotReached,
}

impl ApiCode {
    /// The code's name on the wire, its status and its title.
    const fn parts(self) -> (&'static str, StatusCode, &'static str) {
        match self {
            Self::ForeignHost => ("FOREIGN_HOST", StatusCode::MISDIRECTED_REQUEST, "The host is not this daemon"),
            Self::ForeignOrigin => ("FOREIGN_ORIGIN", StatusCode::FORBIDDEN, "Pages of other origins may not ask"),
            Self::NotFound => ("NOT_FOUND", StatusCode::NOT_FOUND, "No such path"),
            Self::MethodNotAllowed => ("METHOD_NOT_ALLOWED", StatusCode::METHOD_NOT_ALLOWED, "The path knows other methods"),
            Self::UnsupportedMediaType => ("UNSUPPORTED_MEDIA_TYPE", StatusCode::UNSUPPORTED_MEDIA_TYPE, "Another type is asked for"),
            Self::BodyTooLarge => ("BODY_TOO_LARGE", StatusCode::PAYLOAD_TOO_LARGE, "The body is too large"),
            Self::BodyTimeout => ("BODY_TIMEOUT", StatusCode::REQUEST_TIMEOUT, "The body did not arrive in time"),
            Self::BodyUnreadable => ("BODY_UNREADABLE", StatusCode::BAD_REQUEST, "The body could not be read"),
            Self::TooManyLines => ("TOO_MANY_LINES", StatusCode::PAYLOAD_TOO_LARGE, "The batch has too many lines"),
            Self::LineTooLong => ("LINE_TOO_LONG", StatusCode::PAYLOAD_TOO_LARGE, "A line is too long"),
            Self::LineInvalid => ("LINE_INVALID", StatusCode::BAD_REQUEST, "A line is no record"),
            Self::TopicNotInput => ("TOPIC_NOT_INPUT", StatusCode::BAD_REQUEST, "A line is not for an input topic"),
            Self::EmptyBatch => ("EMPTY_BATCH", StatusCode::BAD_REQUEST, "The batch is empty"),
            Self::UnknownParameter => ("UNKNOWN_PARAMETER", StatusCode::BAD_REQUEST, "The path does not know a query parameter"),
            Self::InvalidParameter => ("INVALID_PARAMETER", StatusCode::BAD_REQUEST, "A query parameter is not valid"),
            Self::UnknownTopic => ("UNKNOWN_TOPIC", StatusCode::NOT_FOUND, "No such topic"),
            Self::UnknownPartition => ("UNKNOWN_PARTITION", StatusCode::NOT_FOUND, "No such partition"),
            Self::UnknownAccount => ("UNKNOWN_ACCOUNT", StatusCode::NOT_FOUND, "No such account"),
            Self::NotAnIntent => ("NOT_AN_INTENT", StatusCode::UNPROCESSABLE_ENTITY, "The body asks for no decision"),
            Self::DecisionTimeout => ("DECISION_TIMEOUT", StatusCode::GATEWAY_TIMEOUT, "The decision did not come in time"),
            Self::NoDecision => ("NO_DECISION", StatusCode::UNPROCESSABLE_ENTITY, "The record got no decision"),
            Self::LogUnavailable => ("LOG_UNAVAILABLE", StatusCode::SERVICE_UNAVAILABLE, "The log cannot take records"),
            Self::NotReady => ("NOT_READY", StatusCode::SERVICE_UNAVAILABLE, "The daemon is not ready"),
            Self::ShuttingDown => ("SHUTTING_DOWN", StatusCode::SERVICE_UNAVAILABLE, "The daemon is stopping"),
            Self::TooBusy => ("TOO_BUSY", StatusCode::SERVICE_UNAVAILABLE, "Too many requests are under way"),
            Self::AppendTimeout => ("APPEND_TIMEOUT", StatusCode::GATEWAY_TIMEOUT, "The log did not commit in time"),
            Self::Internal => ("INTERNAL", StatusCode::INTERNAL_SERVER_ERROR, "A defect of the daemon"),
            Self::Unauthenticated => ("UNAUTHENTICATED", StatusCode::UNAUTHORIZED, "Who asks is not proved"),
            Self::TokenExpired => ("TOKEN_EXPIRED", StatusCode::UNAUTHORIZED, "The access token has expired"),
            Self::RefreshReused => ("REFRESH_REUSED", StatusCode::UNAUTHORIZED, "The refresh token was used before"),
            Self::Forbidden => ("FORBIDDEN", StatusCode::FORBIDDEN, "Whoever asks may not do this"),
            Self::TooManyRequests => ("TOO_MANY_REQUESTS", StatusCode::TOO_MANY_REQUESTS, "Asked too often"),
            Self::MalformedBody => ("MALFORMED_BODY", StatusCode::BAD_REQUEST, "The body is no JSON object"),
            Self::InvalidField => ("INVALID_FIELD", StatusCode::UNPROCESSABLE_ENTITY, "A field is not valid"),
            Self::WeakPassword => ("WEAK_PASSWORD", StatusCode::UNPROCESSABLE_ENTITY, "The password is not taken"),
            Self::UnknownObject => ("UNKNOWN_OBJECT", StatusCode::NOT_FOUND, "No such object"),
            Self::AlreadyExists => ("ALREADY_EXISTS", StatusCode::CONFLICT, "There is one already"),
            Self::Conflict => ("CONFLICT", StatusCode::CONFLICT, "Somebody else changed it"),
            Self::PreconditionRequired => ("PRECONDITION_REQUIRED", StatusCode::PRECONDITION_REQUIRED, "Say which version you saw"),
            Self::PreconditionFailed => ("PRECONDITION_FAILED", StatusCode::PRECONDITION_FAILED, "It has another version by now"),
            Self::LastAdmin => ("LAST_ADMIN", StatusCode::CONFLICT, "Nobody could administer any more"),
            Self::IdempotencyKeyReused => {
                ("IDEMPOTENCY_KEY_REUSED", StatusCode::UNPROCESSABLE_ENTITY, "The Idempotency-Key came with something else")
            }
            Self::VaultLocked => ("VAULT_LOCKED", StatusCode::SERVICE_UNAVAILABLE, "The vault is locked"),
            Self::VaultRotating => ("VAULT_ROTATING", StatusCode::CONFLICT, "The vault is being rotated"),
            Self::KeyRevoked => ("KEY_REVOKED", StatusCode::CONFLICT, "The key is revoked"),
            Self::KeyNotActive => ("KEY_NOT_ACTIVE", StatusCode::CONFLICT, "The key may not be used now"),
            Self::TooManyKeys => ("TOO_MANY_KEYS", StatusCode::CONFLICT, "The owner has too many keys"),
            Self::TooManyStates => ("TOO_MANY_STATES", StatusCode::CONFLICT, "The account has too many trading states"),
            Self::TooManyRules => ("TOO_MANY_RULES", StatusCode::CONFLICT, "The account has too many rules"),
            Self::SecretDamaged => ("SECRET_DAMAGED", StatusCode::INTERNAL_SERVER_ERROR, "A stored secret does not open"),
            Self::NotVerified => ("NOT_VERIFIED", StatusCode::UNPROCESSABLE_ENTITY, "The address is not verified"),
            Self::ChannelNotSetUp => ("CHANNEL_NOT_SET_UP", StatusCode::CONFLICT, "The operator has not set the channel up"),
            Self::RecordRefused => ("RECORD_REFUSED", StatusCode::UNPROCESSABLE_ENTITY, "The books refused the record"),
            Self::NotApplied => ("NOT_APPLIED", StatusCode::GATEWAY_TIMEOUT, "The record is in the log and not applied yet"),
            Self::UnknownSymbol => ("UNKNOWN_SYMBOL", StatusCode::NOT_FOUND, "No such symbol"),
            Self::ChartUnavailable => ("CHART_UNAVAILABLE", StatusCode::SERVICE_UNAVAILABLE, "Charts cannot be shown now"),
            Self::UpgradeRequired => ("UPGRADE_REQUIRED", StatusCode::UPGRADE_REQUIRED, "The path speaks WebSocket only"),
            Self::UnknownChannel => ("UNKNOWN_CHANNEL", StatusCode::NOT_FOUND, "No such channel"),
            Self::TooManySubscriptions => ("TOO_MANY_SUBSCRIPTIONS", StatusCode::CONFLICT, "The connection has too many subscriptions"),
            Self::AlreadySubscribed => ("ALREADY_SUBSCRIBED", StatusCode::CONFLICT, "The connection has this subscription"),
            Self::NotSubscribed => ("NOT_SUBSCRIBED", StatusCode::CONFLICT, "The connection does not have this subscription"),
            Self::PositionNotKept => ("POSITION_NOT_KEPT", StatusCode::GONE, "The position is not kept any more"),
            Self::PositionNotReached => ("POSITION_NOT_REACHED", StatusCode::GATEWAY_TIMEOUT, "The position is not reached yet"),
        }
    }

    /// The code's name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.parts().0
    }

    /// The HTTP status that goes with it.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        self.parts().1
    }
}

/// One refusal.
#[derive(Clone, Debug)]
pub struct Problem {
    code: ApiCode,
    detail: String,
    extra: Map<String, Value>,
    noted: bool,
}

impl Problem {
    /// A refusal with what is wrong, for people.
    #[must_use]
    pub fn new(code: ApiCode, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), extra: Map::new(), noted: false }
    }

    /// The line of the batch that is at fault, from 1.
    #[must_use]
    pub fn line(self, line: usize) -> Self {
        self.with("line", line)
    }

    /// The field or parameter that is at fault.
    #[must_use]
    pub fn field(self, field: &str) -> Self {
        self.with("field", field)
    }

    /// Another member of the answer.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.extra.insert(name.to_owned(), value.into());
        self
    }

    /// The same, of which the audit knows.
    #[must_use]
    pub fn noted(self) -> Self {
        Self { noted: true, ..self }
    }

    /// Whether the audit knows of it.
    #[must_use]
    pub fn is_noted(&self) -> bool {
        self.noted
    }

    /// Why.
    #[must_use]
    pub fn code(&self) -> ApiCode {
        self.code
    }

    /// The answer's body.
    #[must_use]
    pub fn body(&self) -> Value {
        let (name, status, title) = self.code.parts();
        let mut body = json!({
            "type": format!("urn:ordergate:problem:{}", name.to_ascii_lowercase().replace('_', "-")),
            "title": title,
            "status": status.as_u16(),
            "code": name,
            "detail": self.detail,
        });
        if let Value::Object(members) = &mut body {
            members.extend(self.extra.clone());
        }
        body
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.code.status(), self.body().to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        match self.code.status() {
            StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            StatusCode::TOO_MANY_REQUESTS => {
                let seconds = self.extra.get("retry_after_seconds").and_then(Value::as_u64).unwrap_or(1);
                headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
            }
            StatusCode::UNAUTHORIZED => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"ordergate\""));
            }
            _ => {}
        }
        // For whoever names the request.
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_its_code_its_status_and_the_line() {
        let body = Problem::new(ApiCode::LineInvalid, "no topic").line(7).body();
        assert_eq!(body["type"], "urn:ordergate:problem:line-invalid");
        assert_eq!(body["status"], 400);
        assert_eq!(body["code"], "LINE_INVALID");
        assert_eq!(body["line"], 7);
        assert_eq!(body["detail"], "no topic");
    }
}
