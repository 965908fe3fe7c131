//! What a client asked to be done is done, though the client goes away meanwhile.
//!
//! Invariant: a request that writes runs to its end once its body is there: no note in the audit without the record that it speaks of, no
//! removed user whose leftovers stay. It runs from the moment on at which it was read: a connection that has seen its end asks for no answer
//! any more, also of what nobody has begun. A client that goes away before its body is there has asked for nothing. Deliberately absent: a
//! bound of its own; what each step may take, and how many bodies there are at once, is bounded where it is done.

use std::convert::Infallible;

use axum::response::{IntoResponse, Response};

use super::problem::{ApiCode, Problem};
use super::serve::Running;

/// Runs a request on a task of its own, at once, whoever waits for the answer. A stop of the daemon waits for it, also when the connection
/// has ended.
pub fn run(
    answer: impl Future<Output = Result<Response, Infallible>> + Send + 'static,
    running: Running,
) -> impl Future<Output = Response> {
    let answered = tokio::spawn(async move {
        let Ok(answer) = answer.await;
        drop(running);
        answer
    });
    async move {
        answered.await.unwrap_or_else(|error| {
            tracing::error!(%error, "a request ended without an answer");
            Problem::new(ApiCode::Internal, "the request ended without an answer; whether it was done is not known").into_response()
        })
    }
}
