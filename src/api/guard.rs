//! From where one may ask: programs, and pages of our own.
//!
//! Invariant: a request whose `Host` is not ours, or that a page of another origin sends, is refused before anything of it is read.
//! A page in a browser that rebinds its name to 127.0.0.1 sends its own name in `Host`; one that only sends a form names its
//! `Origin`; one that hides that says `Sec-Fetch-Site`. Deliberately absent: identities; `caller.rs` finds them.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::sync::watch;

use super::limits::Limits;
use super::problem::{ApiCode, Problem};
use super::serve::Listening;

/// Who we are.
#[derive(Clone, Debug)]
pub struct Hosts {
    /// Where we listen, and how.
    pub listening: Listening,
    /// Names that are ours beside the loopback ones, and origins of pages that may ask.
    pub limits: watch::Receiver<Arc<Limits>>,
}

/// Middleware: refuses foreign hosts and origins, and answers pages of origins that may ask.
pub async fn only_this_machine(State(hosts): State<Hosts>, request: Request, next: Next) -> Response {
    let limits = hosts.limits.borrow().clone();
    let us = Us { at: &hosts.listening, names: &limits.allowed_hosts, origins: &limits.cors_origins };
    let authority = request.uri().authority().map(axum::http::uri::Authority::as_str);
    if let Err(problem) = us.check(request.headers(), authority) {
        return problem.into_response();
    }
    let Some(origin) = us.shared_with(request.headers()) else { return next.run(request).await };
    let asks_first = request.method() == Method::OPTIONS && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = if asks_first { StatusCode::NO_CONTENT.into_response() } else { next.run(request).await };
    share(response.headers_mut(), origin, asks_first);
    response
}

/// What a page of another origin may send and read. No cookies: it sends its token in a header.
fn share(headers: &mut HeaderMap, origin: HeaderValue, asks_first: bool) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.append(header::VARY, HeaderValue::from_static("origin"));
    let exposed = "etag, location, retry-after, x-request-id, x-ordergate-position, x-ordergate-age-ms";
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(exposed));
    if asks_first {
        let fixed = [
            (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, PUT, DELETE"),
            (header::ACCESS_CONTROL_ALLOW_HEADERS, "authorization, content-type, if-match, idempotency-key, x-ordergate-position"),
            (header::ACCESS_CONTROL_MAX_AGE, "600"),
        ];
        for (name, value) in fixed {
            headers.insert(name, HeaderValue::from_static(value));
        }
    }
}

/// Where we listen, names that are ours beside the loopback ones, origins that may ask.
#[derive(Clone, Copy)]
struct Us<'a> {
    at: &'a Listening,
    names: &'a [String],
    origins: &'a [String],
}

impl Us<'_> {
    fn check(self, headers: &HeaderMap, authority: Option<&str>) -> Result<(), Problem> {
        let mut hosts = headers.get_all(header::HOST).iter();
        let host = hosts.next().and_then(|host| host.to_str().ok());
        if hosts.next().is_some() || !host.is_some_and(|host| self.is_named(host)) || !authority.is_none_or(|host| self.is_named(host)) {
            let what =
                "the Host header must name this listener: a loopback name or one of http.allowed_hosts, without a port or with its own";
            return Err(Problem::new(ApiCode::ForeignHost, what));
        }
        let origins: Vec<&HeaderValue> = headers.get_all(header::ORIGIN).iter().collect();
        let is_known = if origins.is_empty() {
            !is_another_sites(headers) || fetch_says(headers, "sec-fetch-mode", &["navigate"])
        } else {
            // A browser does not say of our own page that it is another site's: one of the two is not true.
            let may = |origin: &str| self.may_ask(origin) || (self.is_own(origin) && !is_another_sites(headers));
            origins.iter().all(|origin| origin.to_str().is_ok_and(may))
        };
        let foreign = "the request comes from a page of another origin than this listener";
        if is_known { Ok(()) } else { Err(Problem::new(ApiCode::ForeignOrigin, foreign)) }
    }

    /// Whether an origin is this listener. A proxy of ours may speak TLS for us.
    fn is_own(self, origin: &str) -> bool {
        let plain = origin.strip_prefix("http://").filter(|_| !self.at.tls).is_some_and(|host| self.is_us(host));
        let secured = || origin.strip_prefix("https://").filter(|_| self.at.tls || self.at.proxied).is_some_and(|host| self.is_us(host));
        plain || secured()
    }

    fn may_ask(self, origin: &str) -> bool {
        self.origins.iter().any(|allowed| allowed == origin)
    }

    /// The other origin that this request comes from and may come from.
    fn shared_with(self, headers: &HeaderMap) -> Option<HeaderValue> {
        let origin = headers.get(header::ORIGIN)?;
        origin.to_str().is_ok_and(|origin| !self.is_own(origin) && self.may_ask(origin)).then(|| origin.clone())
    }

    /// Whether a `Host` names us. What a page that rebinds its name cannot send is a name of ours, so one without a port is good enough:
    /// not every program names a port, and whoever names one has to name the right one.
    fn is_named(self, host: &str) -> bool {
        let (name, port) = parts(host);
        if port.is_none() { self.is_us(&format!("{name}:{}", self.at.address.port())) } else { self.is_us(host) }
    }

    /// Whether `host` (`name[:port]`) is a name of ours with this listener's port, as in an origin; a proxy's port is its own business.
    fn is_us(self, host: &str) -> bool {
        let (name, port) = parts(host);
        let Ok(port) = port.map_or(Ok(if self.at.tls { 443 } else { 80 }), str::parse::<u16>) else { return false };
        let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
        let own = self.at.address;
        let is_ours = |ip: IpAddr| ip.is_loopback() || (ip == own.ip() && !ip.is_unspecified());
        let numbered = name.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok_and(is_ours);
        let named = self.names.iter().any(|allowed| allowed.eq_ignore_ascii_case(name));
        (numbered && port == own.port()) || (named && (port == own.port() || self.at.proxied))
    }
}

/// Name and port of a host; a numbered one of IPv6 is in brackets.
fn parts(host: &str) -> (&str, Option<&str>) {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
        Some(_) | None => (host, None),
    }
}

/// Whether a browser says that another site is behind this: a page of it, or a link on one.
fn is_another_sites(headers: &HeaderMap) -> bool {
    fetch_says(headers, "sec-fetch-site", &["cross-site", "same-site"])
}

fn fetch_says(headers: &HeaderMap, name: &str, wanted: &[&str]) -> bool {
    headers.get_all(name).iter().any(|value| value.to_str().is_ok_and(|value| wanted.contains(&value.trim())))
}

/// Refuses a body that does not say that it is of one of `types` (parameters such as `charset` are not looked at).
pub fn require_content_type(headers: &HeaderMap, types: &[&str]) -> Result<(), Problem> {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let essence = given.split(';').next().unwrap_or("").trim();
    if types.iter().any(|wanted| wanted.eq_ignore_ascii_case(essence)) && headers.get_all(header::CONTENT_TYPE).iter().count() == 1 {
        return Ok(());
    }
    Err(Problem::new(ApiCode::UnsupportedMediaType, format!("send Content-Type: {}", types.join(" or "))))
}

/// The answer to a path that does not exist.
pub async fn unknown_path(request: Request) -> Problem {
    Problem::new(ApiCode::NotFound, format!("there is nothing at {}", request.uri().path()))
}

/// The answer to a method that a path does not know.
pub async fn unknown_method(method: Method) -> Problem {
    Problem::new(ApiCode::MethodNotAllowed, format!("the path does not know {method}; the Allow header says which it knows"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listening(address: &str) -> Listening {
        Listening { address: address.parse().unwrap(), tls: false, proxied: false }
    }

    fn at(listening: &Listening, host: &str, origin: Option<&str>) -> Option<ApiCode> {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, origin.parse().unwrap());
        }
        let us = Us { at: listening, names: &["gate.local".to_owned()], origins: &["https://console.example".to_owned()] };
        us.check(&headers, None).err().map(|problem| problem.code())
    }

    fn verdict(host: &str, origin: Option<&str>) -> Option<ApiCode> {
        at(&listening("127.0.0.1:8080"), host, origin)
    }

    #[test]
    fn takes_names_of_ours_without_a_port_or_with_its_own() {
        let with = ["127.0.0.1:8080", "localhost:8080", "LOCALHOST:8080", "[::1]:8080", "127.0.0.2:8080", "gate.local:8080"];
        for host in with.into_iter().chain(["127.0.0.1", "localhost", "[::1]", "gate.local"]) {
            assert_eq!(verdict(host, None), None, "{host}");
        }
        for host in [
            "evil.example:8080",
            "evil.example",
            "127.0.0.1.evil.example",
            "127.0.0.1:81",
            "localhost:80",
            "127.0.0.1.evil.example:8080",
            "localhost:x",
            "localhost:",
            "",
            "10.0.0.1:8080",
            "10.0.0.1",
        ] {
            assert_eq!(verdict(host, None), Some(ApiCode::ForeignHost), "{host}");
        }
    }

    #[test]
    fn refuses_pages_of_other_origins() {
        assert_eq!(verdict("localhost:8080", Some("http://localhost:8080")), None);
        assert_eq!(verdict("localhost", Some("http://localhost:8080")), None);
        for origin in ["http://evil.example", "null", "https://localhost:8080", "http://localhost:3000", "http://localhost"] {
            assert_eq!(verdict("localhost:8080", Some(origin)), Some(ApiCode::ForeignOrigin), "{origin}");
        }
    }

    #[test]
    fn refuses_a_request_without_a_host() {
        let us = Us { at: &listening("127.0.0.1:8080"), names: &[], origins: &[] };
        assert!(us.check(&HeaderMap::new(), None).is_err());
    }

    #[test]
    fn a_page_of_an_origin_that_may_ask_is_let_in_and_told_so_and_no_other() {
        assert_eq!(verdict("localhost:8080", Some("https://console.example")), None);
        assert_eq!(verdict("localhost:8080", Some("https://console.example.evil")), Some(ApiCode::ForeignOrigin));
        let listening = listening("127.0.0.1:8080");
        let us = Us { at: &listening, names: &[], origins: &["https://console.example".to_owned()] };
        let mut headers = HeaderMap::new();
        assert_eq!(us.shared_with(&headers), None);
        headers.insert(header::ORIGIN, HeaderValue::from_static("http://localhost:8080"));
        assert_eq!(us.shared_with(&headers), None, "our own needs no sharing");
        headers.insert(header::ORIGIN, HeaderValue::from_static("https://console.example"));
        assert_eq!(us.shared_with(&headers), Some(HeaderValue::from_static("https://console.example")));
    }

    #[test]
    fn a_request_that_a_foreign_page_sends_without_an_origin_is_refused_unless_somebody_followed_a_link() {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_static("localhost:8080"));
        headers.insert("sec-fetch-site", HeaderValue::from_static("cross-site"));
        let listening = listening("127.0.0.1:8080");
        let us = Us { at: &listening, names: &[], origins: &[] };
        assert!(us.check(&headers, None).is_err());
        headers.insert("sec-fetch-mode", HeaderValue::from_static("navigate"));
        assert!(us.check(&headers, None).is_ok());
        headers.insert("sec-fetch-mode", HeaderValue::from_static("no-cors"));
        headers.insert("sec-fetch-site", HeaderValue::from_static("same-origin"));
        assert!(us.check(&headers, None).is_ok());
    }

    #[test]
    fn a_page_that_says_to_be_our_own_and_of_another_site_is_refused() {
        let listening = listening("127.0.0.1:8080");
        let asked = |origin: &'static str, site: &'static str, mode: &'static str| {
            let us = Us { at: &listening, names: &[], origins: &["https://console.example".to_owned()] };
            let mut headers = HeaderMap::new();
            let named = [("host", "localhost:8080"), ("origin", origin), ("sec-fetch-site", site), ("sec-fetch-mode", mode)];
            for (name, value) in named {
                headers.insert(name, HeaderValue::from_static(value));
            }
            us.check(&headers, None).is_ok()
        };
        assert!(asked("http://localhost:8080", "same-origin", "cors"));
        assert!(asked("https://console.example", "cross-site", "cors"), "it may ask, and another site it is");
        for (site, mode) in [("cross-site", "cors"), ("same-site", "no-cors"), ("cross-site", "navigate")] {
            assert!(!asked("http://localhost:8080", site, mode), "{site} {mode}");
        }
    }

    #[test]
    fn with_tls_pages_come_over_tls_and_behind_a_proxy_names_have_its_port() {
        let secured = Listening { tls: true, ..listening("10.0.0.5:8443") };
        assert_eq!(at(&secured, "10.0.0.5:8443", Some("https://10.0.0.5:8443")), None);
        assert_eq!(at(&secured, "10.0.0.5:8443", Some("http://10.0.0.5:8443")), Some(ApiCode::ForeignOrigin));
        assert_eq!(at(&secured, "10.0.0.6:8443", None), Some(ApiCode::ForeignHost));
        assert_eq!(at(&Listening { tls: true, ..listening("0.0.0.0:443") }, "gate.local", Some("https://gate.local")), None);
        assert_eq!(at(&listening("0.0.0.0:8080"), "0.0.0.0:8080", None), Some(ApiCode::ForeignHost));
        let proxied = Listening { proxied: true, ..listening("127.0.0.1:8080") };
        assert_eq!(at(&proxied, "gate.local", Some("https://gate.local")), None);
        assert_eq!(at(&proxied, "evil.example", None), Some(ApiCode::ForeignHost));
    }
}
