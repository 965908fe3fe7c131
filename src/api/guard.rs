//! Who may ask: only this machine's own programs.
//!
//! Invariant: a request whose `Host` is not a loopback name, or whose `Origin` is not this listener
//! itself, is refused before anything of it is read. A page in a browser that rebinds its name to
//! 127.0.0.1 sends its own name in `Host`. Deliberately absent: identities; they come later.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::sync::watch;

use super::limits::Limits;
use super::problem::{ApiCode, Problem};

/// Who we are.
#[derive(Clone, Debug)]
pub struct Hosts {
    /// Where we listen.
    pub listener: SocketAddr,
    /// Names that are ours beside the loopback ones.
    pub limits: watch::Receiver<Arc<Limits>>,
}

/// Middleware: refuses foreign hosts and origins.
pub async fn only_this_machine(State(hosts): State<Hosts>, request: Request, next: Next) -> Response {
    let limits = hosts.limits.borrow().clone();
    let authority = request.uri().authority().map(axum::http::uri::Authority::as_str);
    match check((hosts.listener, &limits.allowed_hosts), request.headers(), authority) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

fn check(us: Us<'_>, headers: &HeaderMap, authority: Option<&str>) -> Result<(), Problem> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = hosts.next().and_then(|host| host.to_str().ok());
    if hosts.next().is_some() || !host.is_some_and(|host| is_us(us, host)) || !authority.is_none_or(|host| is_us(us, host)) {
        return Err(Problem::new(ApiCode::ForeignHost, "the Host header must name the loopback address and the port of this listener"));
    }
    let own_origin = |origin: &str| origin.strip_prefix("http://").is_some_and(|host| is_us(us, host));
    for origin in headers.get_all(header::ORIGIN) {
        if !origin.to_str().is_ok_and(own_origin) {
            return Err(Problem::new(ApiCode::ForeignOrigin, "the Origin header names another origin than this listener"));
        }
    }
    Ok(())
}

/// Where we listen, and names that are ours beside the loopback ones.
type Us<'a> = (SocketAddr, &'a [String]);

/// Whether `host` (`name[:port]`) is a loopback or allowed name with this listener's port.
fn is_us((listener, allowed): Us<'_>, host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => match port.parse::<u16>() {
            Ok(port) => (name, port),
            Err(_) => return false,
        },
        Some(_) | None => (host, 80),
    };
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    let loopback = name.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    let named = allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(name));
    (loopback || named) && port == listener.port()
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

    fn verdict(host: &str, origin: Option<&str>) -> Option<ApiCode> {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, origin.parse().unwrap());
        }
        check(("127.0.0.1:8080".parse().unwrap(), &["gate.local".to_owned()]), &headers, None).err().map(|problem| problem.code())
    }

    #[test]
    fn takes_loopback_names_with_its_own_port_only() {
        for host in ["127.0.0.1:8080", "localhost:8080", "LOCALHOST:8080", "[::1]:8080", "127.0.0.2:8080", "gate.local:8080"] {
            assert_eq!(verdict(host, None), None, "{host}");
        }
        for host in [
            "evil.example:8080",
            "gate.local",
            "127.0.0.1",
            "127.0.0.1:81",
            "127.0.0.1.evil.example:8080",
            "localhost:x",
            "",
            "10.0.0.1:8080",
        ] {
            assert_eq!(verdict(host, None), Some(ApiCode::ForeignHost), "{host}");
        }
    }

    #[test]
    fn refuses_pages_of_other_origins() {
        assert_eq!(verdict("localhost:8080", Some("http://localhost:8080")), None);
        for origin in ["http://evil.example", "null", "https://localhost:8080", "http://localhost:3000"] {
            assert_eq!(verdict("localhost:8080", Some(origin)), Some(ApiCode::ForeignOrigin), "{origin}");
        }
    }

    #[test]
    fn refuses_a_request_without_a_host() {
        assert!(check(("127.0.0.1:8080".parse().unwrap(), &[]), &HeaderMap::new(), None).is_err());
    }
}
