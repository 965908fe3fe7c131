//! What every answer carries: its request's id, and what a browser must not do with it.
//!
//! Invariant: nothing of ours is framed, sniffed, cached or run from elsewhere; pages run scripts and styles of this origin only. A
//! refusal names the request's id, so that who reports it and who looks into the log speak of the same. Deliberately absent: ids
//! that clients make up.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::problem::Problem;
use crate::control::people::random_id;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Answers are data: nothing of them is run or shown.
const DATA_POLICY: &str = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";
/// Pages: what this origin serves, and images that a stylesheet holds.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; \
                           connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

/// Middleware: names the request, and sets the headers. `tls` says whether clients come over TLS.
pub async fn set(State(tls): State<bool>, request: Request, next: Next) -> Response {
    let id = random_id().unwrap_or_else(|_| "none".to_owned());
    let mut response = next.run(request).await;
    if response.status().is_server_error() {
        tracing::warn!(request_id = id, status = response.status().as_u16(), "a request failed");
    }
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        let (status, headers) = (response.status(), response.headers().clone());
        response = problem.with("request_id", id.as_str()).into_response();
        *response.status_mut() = status;
        keep(response.headers_mut(), &headers);
    }
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert(REQUEST_ID, id);
    }
    protect(headers, tls);
    response
}

/// What others set on a refusal, such as `Allow`, stays on it.
fn keep(headers: &mut HeaderMap, before: &HeaderMap) {
    for (name, value) in before {
        if name != header::CONTENT_LENGTH && !headers.contains_key(name) {
            headers.insert(name, value.clone());
        }
    }
}

fn protect(headers: &mut HeaderMap, tls: bool) {
    let is_page = headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"));
    let policy = if is_page { PAGE_POLICY } else { DATA_POLICY };
    let fixed = [
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ];
    for (name, value) in fixed {
        // A page of ours with a form says itself where it may be sent, and that it names its origin.
        if is_page && (name == header::CONTENT_SECURITY_POLICY || name == header::REFERRER_POLICY) && headers.contains_key(&name) {
            continue;
        }
        headers.insert(name, HeaderValue::from_static(value));
    }
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    if tls {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000"));
    }
}
