//! `/api/v1/vault`: how the vault is, for administrators; opening everything, and a new key-encryption key.
//!
//! Invariant: a rotation goes on when whoever asked for it has gone. Deliberately absent: the master key; it comes from the daemon's
//! environment or a file, never over the network.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::api_keys::{Asking, VaultDesk, told};
use super::json::answer;
use super::users::moment;
use crate::api::caller::{Caller, now};
use crate::api::problem::{ApiCode, Problem};
use crate::api::query::Query;
use crate::vault::{Rotation, VaultStatus, Verification};

/// A rotation that takes longer than this is answered before it has ended.
const PATIENCE: Duration = Duration::from_secs(20);

/// The paths.
pub fn routes() -> OpenApiRouter<Arc<VaultDesk>> {
    OpenApiRouter::new().routes(routes!(status)).routes(routes!(verify)).routes(routes!(rotate))
}

/// How the vault is.
#[derive(Serialize, ToSchema)]
#[schema(as = VaultStatus)]
pub struct StatusView {
    /// `unlocked`, `empty` (nothing was ever sealed) or `locked`.
    state: &'static str,
    /// Why it is locked.
    reason: Option<String>,
    /// The versions of the key-encryption key.
    keks: Vec<KekView>,
    /// Secrets that are sealed.
    secrets: u64,
    /// Secrets that a rotation has still to move.
    to_rewrap: u64,
    /// Whether a rotation goes on here.
    rotating: bool,
}

/// A version of the key-encryption key.
#[derive(Serialize, ToSchema)]
#[schema(as = VaultKek)]
pub struct KekView {
    /// From 1.
    version: u32,
    /// When it was made (RFC 3339).
    created_at: String,
    /// Whether the master key opens it.
    opens: bool,
    /// Secrets that are sealed under it.
    secrets: u64,
}

/// What opening every secret showed.
#[derive(Serialize, ToSchema)]
#[schema(as = VaultVerification)]
pub struct VerificationView {
    /// How many open.
    opened: u64,
    /// Those that do not.
    failed: Vec<FailureView>,
}

/// A key whose secret does not open.
#[derive(Serialize, ToSchema)]
#[schema(as = VaultFailure)]
pub struct FailureView {
    /// The API key's id.
    id: String,
    /// Why: `damaged`, `locked`, `unreadable`.
    why: &'static str,
}

/// What a rotation did.
#[derive(Serialize, ToSchema)]
#[schema(as = VaultRotation)]
pub struct RotationView {
    /// Whether it has ended; else `GET /vault/status` says how far it is.
    ended: bool,
    /// The version of the key-encryption key under which everything is now.
    to: Option<u32>,
    /// Whether it took up one that was cut off.
    resumed: bool,
    /// How many secrets were wrapped anew.
    rewrapped: u64,
    /// Those that do not open and stay as they are.
    failed: Vec<FailureView>,
    /// Versions that nothing needed any more.
    erased: Vec<u32>,
}

impl From<VaultStatus> for StatusView {
    fn from(status: VaultStatus) -> Self {
        let keks = status.keks.into_iter().map(|kek| KekView {
            version: kek.version,
            created_at: moment(kek.created_at),
            opens: kek.opens,
            secrets: kek.secrets,
        });
        Self {
            state: status.state.as_str(),
            reason: status.reason.map(|reason| reason.to_string()),
            keks: keks.collect(),
            secrets: status.secrets,
            to_rewrap: status.to_rewrap,
            rotating: status.rotating,
        }
    }
}

impl From<Rotation> for RotationView {
    fn from(rotation: Rotation) -> Self {
        let Rotation { to, resumed, rewrapped, failed, erased } = rotation;
        let failed = failed.into_iter().map(|failed| FailureView { id: failed.id, why: failed.why }).collect();
        Self { ended: true, to: Some(to), resumed, rewrapped, failed, erased }
    }
}

/// How the vault is.
#[utoipa::path(get, path = "/vault/status", tag = "vault", responses((status = 200, description = "How it is", body = StatusView)))]
async fn status(State(desk): State<Arc<VaultDesk>>, Extension(caller): Extension<Caller>, uri: Uri) -> Result<Response, Problem> {
    Query::read(uri.query(), &[])?;
    caller.require_admin()?;
    Ok(answer(StatusCode::OK, &StatusView::from(desk.vault.status().await)))
}

/// Opens every secret and says which do not open.
#[utoipa::path(post, path = "/vault/verify", tag = "vault",
    responses((status = 200, description = "What it showed", body = VerificationView)))]
async fn verify(State(desk): State<Arc<VaultDesk>>, Extension(caller): Extension<Caller>, uri: Uri) -> Result<Response, Problem> {
    Query::read(uri.query(), &[])?;
    caller.require_admin()?;
    let verified = desk.vault.verify_for(Asking::of(&caller).by()).await;
    let Verification { opened, failed } = verified.map_err(|error| told(&error))?;
    let failed = failed.into_iter().map(|failure| FailureView { id: failure.id, why: failure.why }).collect();
    Ok(answer(StatusCode::OK, &VerificationView { opened, failed }))
}

/// A new key-encryption key, under which all secrets are wrapped anew; or the end of such a rotation that was cut off.
#[utoipa::path(post, path = "/vault/rotate", tag = "vault", responses(
    (status = 200, description = "It has ended", body = RotationView),
    (status = 202, description = "It goes on", body = RotationView),
))]
async fn rotate(State(desk): State<Arc<VaultDesk>>, Extension(caller): Extension<Caller>, uri: Uri) -> Result<Response, Problem> {
    Query::read(uri.query(), &[])?;
    caller.require_operator()?;
    let (vault, asking) = (desk.vault.clone(), Asking::of(&caller));
    let rotation = tokio::spawn(async move { vault.rotate(asking.by(), now()).await });
    match tokio::time::timeout(PATIENCE, rotation).await {
        Ok(Ok(done)) => Ok(answer(StatusCode::OK, &RotationView::from(done.map_err(|error| told(&error))?))),
        Ok(Err(_)) => Err(Problem::new(ApiCode::Internal, "the rotation ended badly; ask for it again and it is taken up")),
        Err(_) => {
            let going = RotationView { ended: false, to: None, resumed: false, rewrapped: 0, failed: Vec::new(), erased: Vec::new() };
            Ok(answer(StatusCode::ACCEPTED, &going))
        }
    }
}
