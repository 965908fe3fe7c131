//! Requests as metrics.
//!
//! Invariant: labels are the paths that we serve, never what a stranger made up.

use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::middleware::Next;
use axum::response::Response;
use metrics::{counter, histogram};

use crate::telemetry::{HTTP_REQUEST_SECONDS, HTTP_REQUESTS};

/// Middleware: counts and times requests. A stream counts with its first byte.
pub async fn requests(request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>().map_or_else(|| "unknown".to_owned(), |path| path.as_str().to_owned());
    let method = match request.method().as_str() {
        "GET" => "GET",
        "POST" => "POST",
        _ => "other",
    };
    let begun = Instant::now();
    let response = next.run(request).await;
    let status = response.status().as_u16().to_string();
    counter!(HTTP_REQUESTS, "method" => method, "path" => path.clone(), "status" => status).increment(1);
    histogram!(HTTP_REQUEST_SECONDS, "path" => path).record(begun.elapsed().as_secs_f64());
    response
}
