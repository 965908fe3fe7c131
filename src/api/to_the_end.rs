//! What a client asked to be done is done, though the client goes away meanwhile.
//!
//! Invariant: a request that writes runs to its end once its body is there: no note in the audit without the record that it speaks of, no
//! removed user whose leftovers stay. A client that goes away before its body is there has asked for nothing. Deliberately absent: a
//! bound of its own; what each step may take, and how many bodies there are at once, is bounded where it is done.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::problem::{ApiCode, Problem};
use super::serve::Running;

/// Middleware: runs what is not only looked at on a task of its own.
pub async fn run(request: Request, next: Next) -> Response {
    if request.method().is_safe() {
        return next.run(request).await;
    }
    // A stop of the daemon waits for it, also when the connection has ended.
    let running = request.extensions().get::<Running>().cloned();
    let answered = tokio::spawn(async move {
        let answer = next.run(request).await;
        drop(running);
        answer
    });
    let answered = answered.await;
    answered.unwrap_or_else(|error| {
        tracing::error!(%error, "a request ended without an answer");
        Problem::new(ApiCode::Internal, "the request ended without an answer; whether it was done is not known").into_response()
    })
}
