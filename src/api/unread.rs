//! Bodies that nobody read: who is refused early still hears why.
//!
//! Invariant: after a refusal what is left of the body is thrown away, up to a bound in bytes and time; if there is more, the answer
//! says that the connection ends. Else a client that keeps its connection finds it closed under its next request, or never reads
//! the answer for the reset behind it; so what comes after the answer is heard out for a while (`serve.rs`). Nobody is asked for a body
//! that nobody wants. Deliberately absent: reading on for the sake of who sends without end.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use http_body_util::BodyExt;
use hyper::body::{Frame, SizeHint};

use super::body::announced;
use super::serve::Wire;

const BYTES_MAX: usize = 64 << 10;
const PATIENCE: Duration = Duration::from_secs(1);

/// A body that can be taken back from whoever stopped reading it.
#[derive(Clone)]
struct Lent(Arc<Mutex<Body>>);

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner)).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).size_hint()
    }
}

/// Middleware: throws away what a refusal left unread.
pub async fn drain(request: Request, next: Next) -> Response {
    if request.body().is_end_stream() {
        return next.run(request).await;
    }
    let (parts, body) = request.into_parts();
    let wire = parts.extensions.get::<Wire>().cloned();
    let is_little = is_little(&parts.headers);
    let lent = Lent(Arc::new(Mutex::new(body)));
    let mut response = next.run(Request::from_parts(parts, Body::new(lent.clone()))).await;
    let refused = response.status().is_client_error() || response.status().is_server_error();
    if !refused || lent.is_end_stream() {
        return response;
    }
    // Who was too slow was waited for.
    if response.status() == StatusCode::REQUEST_TIMEOUT
        || !is_little
        || !tokio::time::timeout(PATIENCE, read_away(lent)).await.unwrap_or(false)
    {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        if let Some(wire) = wire {
            wire.still_talking();
        }
    }
    response
}

/// Whether the rest is worth reading. Whoever asks first whether to send it is told so by what it reads instead of being asked for it.
fn is_little(headers: &HeaderMap) -> bool {
    announced(headers).is_none_or(|bytes| bytes <= BYTES_MAX) && !headers.contains_key(header::EXPECT)
}

/// Whether the body came to its end within the bound.
async fn read_away(mut body: Lent) -> bool {
    let mut seen = 0_usize;
    while let Some(frame) = body.frame().await {
        seen += frame.ok().and_then(|frame| frame.into_data().ok()).map_or(BYTES_MAX, |data| data.len());
        if seen >= BYTES_MAX {
            return body.is_end_stream();
        }
    }
    true
}
