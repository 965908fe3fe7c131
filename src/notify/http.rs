//! HTTP to addresses that people gave us, and to those that the operator did.
//!
//! Invariant: a guarded request goes to an address that was judged, and all addresses of its name were: they are looked up and judged at
//! the moment of the connection, and the connection is made to what came out of that (so a name that changes its answer gains nothing).
//! Redirects and proxies are off. A request ends within its time, and of an answer only so much is read.
//! Deliberately absent: retries; the desk does them.

use std::error::Error as _;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Certificate, Client, RequestBuilder, StatusCode, Url, header};

use super::address;
use super::delivery::Outcome;

/// What is read of an answer.
const ANSWER_BYTES_MAX: usize = 16 * 1024;
/// The longest wait that a receiver may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3_600);

/// Addresses that are being looked up.
pub type Lookup = Pin<Box<dyn Future<Output = std::io::Result<Vec<IpAddr>>> + Send>>;

/// Addresses of names.
pub trait Names: Send + Sync {
    /// All addresses that a name has now.
    fn lookup(&self, name: String) -> Lookup;
}

/// The machine's own resolver.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemNames;

impl Names for SystemNames {
    fn lookup(&self, name: String) -> Lookup {
        Box::pin(async move { Ok(tokio::net::lookup_host((name, 0)).await?.map(|at| at.ip()).collect()) })
    }
}

/// Which addresses may be connected to.
#[derive(Clone)]
pub struct Guard {
    /// Whether this machine and private networks may; plain `http` too, then.
    pub allow_private: bool,
    /// Who knows the addresses.
    pub names: Arc<dyn Names>,
}

/// A URL that may not be connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// No URL.
    #[error("it is no URL of at most 2048 characters")]
    Unreadable,
    /// Another scheme.
    #[error("the scheme has to be https")]
    Scheme,
    /// A name and a password in it.
    #[error("a URL with a user name or password is not taken")]
    Credentials,
    /// An address that is not public.
    #[error("the address is not a public one")]
    Address,
    /// A name that has no address.
    #[error("the name has no address")]
    Unknown,
}

impl Guard {
    /// Public addresses only, or also private ones, by the machine's resolver.
    #[must_use]
    pub fn new(allow_private: bool) -> Self {
        Self { allow_private, names: Arc::new(SystemNames) }
    }

    /// Reads a URL that may be connected to as far as it can be told without asking for its name.
    ///
    /// # Errors
    /// See [`UrlError`].
    pub fn read(&self, text: &str) -> Result<Url, UrlError> {
        let url = Url::parse(text).ok().filter(|_| text.len() <= 2_048).ok_or(UrlError::Unreadable)?;
        if url.scheme() != "https" && !(url.scheme() == "http" && self.allow_private) {
            return Err(UrlError::Scheme);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(UrlError::Credentials);
        }
        // Parsing has already brought every spelling of a number (`0x7f.1`, `2130706433`) to one form.
        let host = url.host_str().ok_or(UrlError::Unreadable)?;
        match host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            Ok(literal) if !address::allowed(literal, self.allow_private) => Err(UrlError::Address),
            Ok(_) | Err(_) => Ok(url),
        }
    }

    /// The same, and looks at the addresses that its name has now: a mistake is told at once.
    ///
    /// # Errors
    /// See [`UrlError`].
    pub async fn look(&self, text: &str) -> Result<Url, UrlError> {
        let url = self.read(text)?;
        let host = url.host_str().unwrap_or_default().to_owned();
        if host.starts_with('[') || host.parse::<IpAddr>().is_ok() {
            return Ok(url);
        }
        let found = self.names.lookup(host).await.map_err(|_| UrlError::Unknown)?;
        if found.is_empty() {
            return Err(UrlError::Unknown);
        }
        if found.iter().all(|at| address::allowed(*at, self.allow_private)) { Ok(url) } else { Err(UrlError::Address) }
    }
}

/// An address that the guard does not let through; it is found again in the error of a request.
#[derive(Debug, thiserror::Error)]
#[error("the name has an address that is not a public one")]
struct Refused;

struct Judge(Guard);

impl Resolve for Judge {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.0.clone();
        let name = name.as_str().to_owned();
        Box::pin(async move {
            let found = guard.names.lookup(name).await?;
            if !found.iter().all(|at| address::allowed(*at, guard.allow_private)) {
                return Err(Refused.into());
            }
            let addresses: Addrs = Box::new(found.into_iter().map(|at| SocketAddr::new(at, 0)));
            Ok(addresses)
        })
    }
}

/// Why a client could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Its certificates.
    #[error("the certificates of {path} cannot be read: {detail}")]
    Certificates {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// Anything else.
    #[error("the HTTP client cannot be made: {0}")]
    Client(#[from] reqwest::Error),
}

/// A client; with a guard for addresses that people gave us. `certificates` are trusted beside the system's.
///
/// # Errors
/// See [`ClientError`].
pub fn client(guard: Option<&Guard>, timeout: Duration, certificates: Option<&Path>) -> Result<Client, ClientError> {
    let mut builder = Client::builder()
        .user_agent(concat!("ordergate/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .no_proxy()
        .timeout(timeout)
        .connect_timeout(timeout)
        .pool_max_idle_per_host(2);
    if let Some(guard) = guard {
        builder = builder.dns_resolver(Arc::new(Judge(guard.clone()))).https_only(!guard.allow_private);
    }
    if let Some(path) = certificates {
        let told = |detail: String| ClientError::Certificates { path: path.to_owned(), detail };
        let pem = std::fs::read(path).map_err(|error| told(error.to_string()))?;
        let found = Certificate::from_pem_bundle(&pem).map_err(|error| told(error.to_string()))?;
        builder = builder.tls_certs_merge(found);
    }
    Ok(builder.build()?)
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// What the receiver asks us to wait.
    pub retry_after: Option<Duration>,
    /// The beginning of its body.
    pub body: Vec<u8>,
}

/// Sends a request.
///
/// # Errors
/// What to make of it that no answer came.
pub async fn send(request: RequestBuilder) -> Result<Answer, Outcome> {
    let mut response = request.send().await.map_err(|error| failure(&error))?;
    let status = response.status();
    let retry_after = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    let retry_after = retry_after.map(|seconds| Duration::from_secs(seconds).min(RETRY_AFTER_MAX));
    let mut body = Vec::new();
    // Whoever gave a status has decided; what it says beside that is for the note.
    while let Ok(Some(chunk)) = response.chunk().await {
        let room = ANSWER_BYTES_MAX - body.len();
        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if body.len() == ANSWER_BYTES_MAX {
            break;
        }
    }
    Ok(Answer { status, retry_after, body })
}

fn failure(error: &reqwest::Error) -> Outcome {
    let mut cause = error.source();
    while let Some(inner) = cause {
        if inner.is::<Refused>() {
            return Outcome::refused(inner);
        }
        cause = inner.source();
    }
    if error.is_builder() {
        return Outcome::refused("the URL cannot be requested");
    }
    if error.is_timeout() {
        return Outcome::down("no answer in time");
    }
    Outcome::down(root(error))
}

/// The innermost cause: the outer ones name the URL, which may hold a secret of its owner.
fn root(error: &reqwest::Error) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(inner) = innermost.source() {
        innermost = inner;
    }
    innermost.to_string()
}

/// What an answer means: 2xx is taken, 408, 425, 429 and 5xx are for now, the rest for good.
#[must_use]
pub fn outcome(answer: &Answer) -> Outcome {
    let status = answer.status;
    let for_now = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_EARLY, StatusCode::TOO_MANY_REQUESTS];
    if status.is_success() {
        Outcome::Sent
    } else if status.is_server_error() || for_now.contains(&status) {
        Outcome::Later { why: format!("HTTP {status}"), everyone: true, after: answer.retry_after }
    } else if status.is_redirection() {
        Outcome::refused(format!("HTTP {status}: redirects are not followed"))
    } else {
        Outcome::refused(format!("HTTP {status}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_public_and_https_unless_an_operator_says_otherwise() {
        let (public, private) = (Guard::new(false), Guard::new(true));
        for (url, refusal) in [
            ("https://example.com/hook?x=1", None),
            ("https://1.1.1.1/", None),
            ("http://example.com/", Some(UrlError::Scheme)),
            ("file:///etc/passwd", Some(UrlError::Scheme)),
            ("gopher://example.com/", Some(UrlError::Scheme)),
            ("not a url", Some(UrlError::Unreadable)),
            ("https://", Some(UrlError::Unreadable)),
            ("https://user:pass@example.com/", Some(UrlError::Credentials)),
            ("https://user@example.com/", Some(UrlError::Credentials)),
            ("https://127.0.0.1/", Some(UrlError::Address)),
            ("https://2130706433/", Some(UrlError::Address)),
            ("https://0x7f.1/", Some(UrlError::Address)),
            ("https://0177.0.0.1/", Some(UrlError::Address)),
            ("https://127.1/", Some(UrlError::Address)),
            ("https://[::1]/", Some(UrlError::Address)),
            ("https://[::ffff:7f00:1]/", Some(UrlError::Address)),
            ("https://169.254.169.254/latest/meta-data/", Some(UrlError::Address)),
            ("https://１２７.0.0.1/", Some(UrlError::Address)),
        ] {
            assert_eq!(public.read(url).err(), refusal, "{url}");
        }
        assert!(private.read("http://127.0.0.1:8080/").is_ok());
        assert_eq!(private.read("http://169.254.169.254/"), Err(UrlError::Address));
        assert_eq!(public.read(&format!("https://example.com/{}", "a".repeat(2_048))), Err(UrlError::Unreadable));
    }

    #[test]
    fn a_status_is_taken_for_now_or_for_good() {
        let of = |status: u16| outcome(&Answer { status: StatusCode::from_u16(status).unwrap(), retry_after: None, body: Vec::new() });
        for status in [200, 201, 202, 204] {
            assert_eq!(of(status), Outcome::Sent);
        }
        for status in [408, 425, 429, 500, 502, 503, 504] {
            assert!(matches!(of(status), Outcome::Later { everyone: true, .. }), "{status}");
        }
        for status in [301, 302, 307, 308, 400, 401, 403, 404, 410, 413, 422] {
            assert!(matches!(of(status), Outcome::Refused { .. }), "{status}");
        }
    }
}
