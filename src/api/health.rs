//! Health and metrics.
//!
//! Invariant: `/healthz` says that the process answers, `/readyz` that it decides; the first never
//! depends on the log, so that nothing restarts a daemon that only waits for its disk.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::Face;
use super::problem::{ApiCode, Problem};
use super::query::Query;
use crate::engine::{Phase, Status};

/// What renders the metrics in Prometheus' text format.
pub type Scrape = Arc<dyn Fn() -> String + Send + Sync>;

/// `GET /healthz`
pub async fn healthz(uri: Uri) -> Result<Response, Problem> {
    Query::read(uri.query(), &[])?;
    Ok(json_answer(&json!({"status": "ok", "version": env!("CARGO_PKG_VERSION")})))
}

/// `GET /readyz`
pub async fn readyz(State(face): State<Face>, uri: Uri) -> Result<Response, Problem> {
    Query::read(uri.query(), &[])?;
    let reasons = face.not_ready();
    if reasons.is_empty() {
        let note = if face.door.is_open() { "no users exist: open to this machine only" } else { "users only" };
        let mut answer = json!({"status": "ready", "access": note});
        if !face.given_up.is_empty() {
            answer["unsafe"] = json!(*face.given_up);
        }
        let notes = face.replicas.as_ref().map(|replicas| replicas.notes()).unwrap_or_default();
        if !notes.is_empty() {
            answer["replicas"] = json!(notes);
        }
        return Ok(json_answer(&answer));
    }
    Err(Problem::new(ApiCode::NotReady, reasons.join("; ")).with("reasons", reasons))
}

/// `GET /metrics`
pub async fn metrics(State(scrape): State<Scrape>, uri: Uri) -> Result<Response, Problem> {
    Query::read(uri.query(), &[])?;
    let text = tokio::task::spawn_blocking(move || scrape()).await;
    let text = text.map_err(|_| Problem::new(ApiCode::Internal, "the metrics could not be rendered"))?;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}

impl Face {
    /// Why nothing is decided now: the fold's reasons, the log's, and ours.
    pub(super) fn not_ready(&self) -> Vec<String> {
        let patience = self.limits().commit_stall;
        let mut reasons = self.gates.not_ready();
        reasons.extend(self.gates.here().iter().filter_map(|shard| why_not(&shard.status(), patience)));
        if let Some(error) = self.topics.refusing() {
            reasons.push(format!("{}: {error}; {}", error.code(), error.advice()));
        }
        if *self.stop.borrow() {
            reasons.push("STOPPING: the daemon is stopping".to_owned());
        }
        reasons
    }
}

/// Why a shard decides nothing, if so.
fn why_not(status: &Status, patience: Duration) -> Option<String> {
    let shard = status.shard;
    match &status.phase {
        Phase::Owning if status.is_ready(patience) => None,
        Phase::Owning => {
            Some(format!("COMMIT_STALLED: shard {shard} has waited {} ms for its log", status.waiting_ms.max(status.blind_ms)))
        }
        Phase::Following => Some(format!("FOLLOWING: shard {shard} folds its ledger (seq {})", status.seq)),
        Phase::Claiming => Some(format!("CLAIMING: shard {shard} reads up to its claim")),
        Phase::Repairing => Some(format!("REPAIRING: shard {shard} publishes what a stopped owner left")),
        Phase::Draining => Some(format!("DRAINING: shard {shard} finishes what is under way")),
        Phase::Stopped => Some(format!("STOPPED: shard {shard} has stopped")),
        Phase::Waiting { code, why } | Phase::Refusing { code, why } => Some(format!("{code}: shard {shard}: {why}")),
    }
}

/// A JSON answer of 200.
pub fn json_answer(value: &serde_json::Value) -> Response {
    json_bytes(value.to_string().into_bytes())
}

/// An answer of 200 whose body is JSON already.
pub fn json_bytes(body: Vec<u8>) -> Response {
    (StatusCode::OK, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}
