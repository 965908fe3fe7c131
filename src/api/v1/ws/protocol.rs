//! What is said over a WebSocket, and how it ends.
//!
//! Invariant: a message of a client is an object of one of two types and nothing more; whatever else it is, it is answered with a code and
//! changes nothing. A channel has one spelling. Deliberately absent: what a channel carries.

use std::fmt;

use axum::extract::ws::Utf8Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::problem::{ApiCode, Problem};
use crate::api::v1::books::unknown_account;
use crate::api::v1::json::parse;
use crate::chart::Timeframe;
use crate::domain::{AccountId, Symbol};

/// The longest message of a client. A longer one ends the connection.
pub const MESSAGE_BYTES_MAX: usize = 16 << 10;
/// Subscriptions of one connection.
pub const SUBSCRIPTIONS_MAX: usize = 16;
/// As much of a channel's name as is said back.
const ECHO_CHARS_MAX: usize = 120;

/// What can be subscribed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Channel {
    /// Every decision about accounts that one may read.
    Decisions,
    /// One's own inbox.
    Notifications,
    /// The book of an account.
    Account(AccountId),
    /// The bars of a symbol.
    Bars(Symbol, Timeframe),
    /// What `GET /system` shows.
    System,
}

impl Channel {
    /// The channel of a name.
    ///
    /// # Errors
    /// There is none.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        let what = "decisions, notifications, system, account:ID or bars:SYMBOL:TIMEFRAME";
        let unknown = || Problem::new(ApiCode::UnknownChannel, what).field("channel");
        match text {
            "decisions" => return Ok(Self::Decisions),
            "notifications" => return Ok(Self::Notifications),
            "system" => return Ok(Self::System),
            _ => {}
        }
        if let Some(id) = text.strip_prefix("account:") {
            return AccountId::parse(id.as_bytes()).map(Self::Account).ok_or_else(unknown_account);
        }
        // A symbol may hold colons, a timeframe never.
        let (symbol, timeframe) = text.strip_prefix("bars:").and_then(|rest| rest.rsplit_once(':')).ok_or_else(unknown)?;
        let timeframe = Timeframe::parse(timeframe).ok_or_else(unknown)?;
        Symbol::parse(symbol.as_bytes()).map(|symbol| Self::Bars(symbol, timeframe)).ok_or_else(unknown)
    }

    /// Its kind, as metrics label it.
    #[must_use]
    pub const fn kind(self) -> &'static str {
        match self {
            Self::Decisions => "decisions",
            Self::Notifications => "notifications",
            Self::Account(_) => "account",
            Self::Bars(..) => "bars",
            Self::System => "system",
        }
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Decisions | Self::Notifications | Self::System => f.write_str(self.kind()),
            Self::Account(account) => write!(f, "account:{account}"),
            Self::Bars(symbol, timeframe) => write!(f, "bars:{symbol}:{}", timeframe.as_str()),
        }
    }
}

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// To hear of a channel, from a position on if one is given.
    Subscribe {
        /// The channel.
        channel: Channel,
        /// The position of the last event that the client saw.
        resume: Option<String>,
    },
    /// To hear of it no more.
    Unsubscribe {
        /// The channel.
        channel: Channel,
    },
}

/// A message that is refused.
#[derive(Clone, Debug)]
pub struct Refused {
    /// The channel that it names, if it names one.
    pub channel: Option<String>,
    /// Why.
    pub problem: Box<Problem>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Subscribe,
    Unsubscribe,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    #[serde(rename = "type")]
    kind: Kind,
    channel: String,
    #[serde(default)]
    resume: Option<String>,
}

/// Reads a message.
///
/// # Errors
/// It is none.
pub fn read(text: &str) -> Result<Request, Refused> {
    let Said { kind, channel: name, resume } =
        parse(text.as_bytes()).map_err(|problem| Refused { channel: None, problem: Box::new(problem) })?;
    let refused = |problem| Refused { channel: Some(name.chars().take(ECHO_CHARS_MAX).collect()), problem: Box::new(problem) };
    let channel = Channel::parse(&name).map_err(refused)?;
    match (kind, resume) {
        (Kind::Subscribe, resume) => Ok(Request::Subscribe { channel, resume }),
        (Kind::Unsubscribe, None) => Ok(Request::Unsubscribe { channel }),
        (Kind::Unsubscribe, Some(_)) => Err(refused(Problem::new(ApiCode::InvalidField, "only a subscription resumes").field("resume"))),
    }
}

/// Something happened; `data` is JSON already.
#[must_use]
pub fn event(channel: Channel, position: &str, data: &str) -> Utf8Bytes {
    // Names of channels and positions hold nothing that JSON would escape.
    format!(r#"{{"type":"event","channel":"{channel}","position":"{position}","data":{data}}}"#).into()
}

/// A subscription begins behind this position.
#[must_use]
pub fn subscribed(channel: Channel, position: &str) -> Utf8Bytes {
    json!({"type": "subscribed", "channel": channel.to_string(), "position": position}).to_string().into()
}

/// A subscription is over, as asked.
#[must_use]
pub fn unsubscribed(channel: Channel) -> Utf8Bytes {
    json!({"type": "unsubscribed", "channel": channel.to_string()}).to_string().into()
}

/// Something was not done.
#[must_use]
pub fn error(channel: Option<&str>, problem: &Problem) -> Utf8Bytes {
    let mut said = json!({"type": "error"});
    if let Some(channel) = channel {
        said["channel"] = channel.into();
    }
    if let Value::Object(body) = problem.body() {
        for name in ["code", "detail", "field"] {
            if let Some(value) = body.get(name) {
                said[name] = value.clone();
            }
        }
    }
    said.to_string().into()
}

/// Why a connection is ended by us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// The daemon stops.
    GoingAway,
    /// What came is no WebSocket.
    Protocol,
    /// A text that is no UTF-8.
    NoText,
    /// Too many messages.
    Flood,
    /// A message above [`MESSAGE_BYTES_MAX`].
    TooBig,
    /// A replica that events come from is broken.
    Broken,
    /// The session, the token or the rights that let it in are over.
    RightsOver,
    /// The client does not read, or does not answer.
    Slow,
}

impl Close {
    /// The code, the metrics' word, the reason.
    const fn parts(self) -> (u16, &'static str, &'static str) {
        match self {
            Self::GoingAway => (1001, "going_away", "the daemon is stopping"),
            Self::Protocol => (1002, "protocol", "not the WebSocket protocol"),
            Self::NoText => (1007, "no_text", "not UTF-8"),
            Self::Flood => (1008, "flood", "too many messages"),
            Self::TooBig => (1009, "too_big", "the message is too long"),
            Self::Broken => (1011, "broken", "a replica is broken"),
            Self::RightsOver => (4001, "rights_over", "the rights that let you in are over"),
            Self::Slow => (4008, "slow", "you do not read what is sent"),
        }
    }

    /// The code of the close frame.
    #[must_use]
    pub const fn code(self) -> u16 {
        self.parts().0
    }

    /// What metrics call it.
    #[must_use]
    pub const fn label(self) -> &'static str {
        self.parts().1
    }

    /// The reason in the close frame.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        self.parts().2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_has_one_spelling() {
        for text in
            ["decisions", "notifications", "system", "account:ACC1", "account:a:b", "bars:AAPL:1min", "bars:BTC/USD:4hr", "bars:X:Y:1day"]
        {
            assert_eq!(Channel::parse(text).unwrap().to_string(), text);
        }
        for (text, code) in [
            ("", ApiCode::UnknownChannel),
            ("Decisions", ApiCode::UnknownChannel),
            ("account", ApiCode::UnknownChannel),
            ("account:", ApiCode::UnknownAccount),
            ("account:a b", ApiCode::UnknownAccount),
            ("bars:AAPL", ApiCode::UnknownChannel),
            ("bars:AAPL:2min", ApiCode::UnknownChannel),
            ("bars::1min", ApiCode::UnknownChannel),
        ] {
            assert_eq!(Channel::parse(text).unwrap_err().code(), code, "{text}");
        }
    }

    #[test]
    fn reads_what_it_knows_and_refuses_everything_else_with_a_code_and_the_channel() {
        let asked = read(r#"{"type":"subscribe","channel":"decisions","resume":"0:5"}"#).unwrap();
        assert_eq!(asked, Request::Subscribe { channel: Channel::Decisions, resume: Some("0:5".to_owned()) });
        assert_eq!(read(r#"{"type":"unsubscribe","channel":"system"}"#).unwrap(), Request::Unsubscribe { channel: Channel::System });
        for (text, code, channel) in [
            ("", ApiCode::MalformedBody, None),
            ("[]", ApiCode::MalformedBody, None),
            (r#"{"type":"subscribe"}"#, ApiCode::InvalidField, None),
            (r#"{"type":"publish","channel":"system"}"#, ApiCode::InvalidField, None),
            (r#"{"type":"subscribe","channel":"system","x":1}"#, ApiCode::InvalidField, None),
            (r#"{"type":"subscribe","channel":7}"#, ApiCode::InvalidField, None),
            (r#"{"type":"subscribe","channel":"nothing"}"#, ApiCode::UnknownChannel, Some("nothing")),
            (r#"{"type":"unsubscribe","channel":"system","resume":"0:1"}"#, ApiCode::InvalidField, Some("system")),
        ] {
            let refused = read(text).unwrap_err();
            assert_eq!((refused.problem.code(), refused.channel.as_deref()), (code, channel), "{text}");
        }
    }

    #[test]
    fn what_is_said_is_json_of_the_documented_shape() {
        let of = |text: Utf8Bytes| serde_json::from_str::<Value>(text.as_str()).unwrap();
        let bars = Channel::parse("bars:BTC/USD:1min").unwrap();
        assert_eq!(
            of(event(bars, "60000", r#"{"a":1}"#)),
            json!({"type": "event", "channel": "bars:BTC/USD:1min", "position": "60000", "data": {"a": 1}})
        );
        assert_eq!(of(subscribed(Channel::System, "0:7")), json!({"type": "subscribed", "channel": "system", "position": "0:7"}));
        assert_eq!(of(unsubscribed(Channel::System)), json!({"type": "unsubscribed", "channel": "system"}));
        let problem = Problem::new(ApiCode::UnknownChannel, "no \"such\" one").field("channel");
        assert_eq!(
            of(error(Some("a\"b"), &problem)),
            json!({"type": "error", "channel": "a\"b", "code": "UNKNOWN_CHANNEL", "detail": "no \"such\" one", "field": "channel"})
        );
    }
}
