//! `GET /api/v1/system`: the shards, their owners, their lag, their ledgers' heads, the replicas, the index, the versions.
//!
//! Invariant: it only tells what others say of themselves. For administrators.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::books::Books;
use super::json::answer;
use crate::api::Gates;
use crate::api::caller::Caller;
use crate::api::problem::Problem;
use crate::api::query::Query;
use crate::control::replica::Reached;
use crate::engine::{Phase, Status};
use crate::market::calendar::tzdb_version;

/// The state of the handler.
#[derive(Clone)]
pub struct System {
    /// The books, and what was decided.
    pub books: Arc<Books>,
    /// The shards of this process.
    pub gates: Arc<dyn Gates>,
    /// What this instance is called.
    pub instance: String,
    /// What this process's claims call it.
    pub claimant: String,
}

/// The paths.
pub fn routes() -> OpenApiRouter<Arc<System>> {
    OpenApiRouter::new().routes(routes!(get))
}

/// The system as this instance sees it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct SystemView {
    instance: String,
    version: &'static str,
    /// The release of the time zone database.
    tzdb_version: &'static str,
    shards: Vec<ShardView>,
    /// How old answers may be, in ms; `null` before a replica has read its ledger.
    replica_age_ms: Option<u64>,
    decisions: IndexView,
    /// What an operator should know.
    notes: Vec<String>,
}

/// One shard.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ShardView {
    shard: u32,
    /// Who owns it, as the ledger tells; `null` before anyone claimed it.
    owner: Option<OwnerView>,
    /// What it does here; `null` where it runs elsewhere.
    here: Option<ShardHere>,
    replica: ReplicaView,
}

/// The owner of a shard: who made the last claim that counts in its ledger. One that died is shown until another claims.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct OwnerView {
    /// The name of its instance.
    instance: String,
    /// Its name as its claim has it: the instance's and the number of its process.
    claimant: String,
    /// Whether it is the process that answers.
    is_here: bool,
    /// The term that it began. Whoever claims later has a higher one.
    term: u64,
    /// When it claimed, by its clock, in ms since the epoch.
    since: i64,
}

/// A shard that runs on this instance.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ShardHere {
    /// `following`, `claiming`, `repairing`, `owning`, `draining`, `waiting`, `refusing` or `stopped`.
    phase: &'static str,
    /// Why, where there is a reason.
    why: Option<String>,
    term: u64,
    seq: u64,
    committed_seq: u64,
    frames_in_flight: usize,
    outputs_in_flight: usize,
    last_commit_ms: u64,
    ledger_lag: u64,
    /// The records behind each input partition's end that are not applied.
    lag: Vec<LagView>,
    snapshot_seq: u64,
    void_entries: u64,
}

/// One input partition.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct LagView {
    topic: &'static str,
    partition: u32,
    records: u64,
}

/// A replica.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ReplicaView {
    term: u64,
    seq: u64,
    /// The time of the last record, in ms since the epoch.
    at: i64,
    ledger_next: u64,
    /// The ledger's hash chain up to there, in hexadecimal.
    ledger_head: String,
    current: bool,
    /// Why it answers nothing any more.
    broken: Option<String>,
}

/// The index of decisions.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct IndexView {
    decisions: u64,
    /// Everything that is kept is indexed.
    complete: bool,
    bytes: u64,
}

/// Shows the system.
#[utoipa::path(get, path = "/system", tag = "system", responses((status = 200, description = "The system as this instance sees it", body = SystemView)))]
async fn get(State(system): State<Arc<System>>, Extension(caller): Extension<Caller>, uri: Uri) -> Result<Response, Problem> {
    Query::read(uri.query(), &[])?;
    caller.require_admin()?;
    Ok(answer(StatusCode::OK, &system.view().await))
}

impl System {
    /// The system as this instance sees it.
    pub(super) async fn view(&self) -> SystemView {
        let books = &self.books;
        let shards = (0..).zip(books.replicas.position()).map(|(shard, reached)| ShardView {
            shard,
            owner: self.owner(&reached),
            here: self.gates.shard(shard).map(|handle| here(&handle.status())),
            replica: replica(&reached),
        });
        let index = books.decisions.clone();
        let coverage = tokio::task::spawn_blocking(move || index.coverage()).await.unwrap_or_default();
        let mut notes = books.replicas.notes();
        notes.extend(self.gates.not_ready());
        SystemView {
            instance: self.instance.clone(),
            version: env!("CARGO_PKG_VERSION"),
            tzdb_version: tzdb_version(),
            shards: shards.collect(),
            replica_age_ms: books.replicas.age().and_then(|age| u64::try_from(age.as_millis()).ok()),
            decisions: IndexView { decisions: coverage.decisions, complete: coverage.complete, bytes: coverage.bytes },
            notes,
        }
    }
}

impl System {
    fn owner(&self, reached: &Reached) -> Option<OwnerView> {
        let owner = reached.owner.as_deref()?;
        let is_here = owner.name == self.claimant;
        let of_claim = || owner.name.rsplit_once('-').map_or(&*owner.name, |(instance, _process)| instance).to_owned();
        let instance = if is_here { self.instance.clone() } else { of_claim() };
        Some(OwnerView { instance, claimant: owner.name.clone(), is_here, term: reached.term, since: owner.since })
    }
}

fn here(status: &Status) -> ShardHere {
    let (phase, why) = match &status.phase {
        Phase::Following => ("following", None),
        Phase::Claiming => ("claiming", None),
        Phase::Repairing => ("repairing", None),
        Phase::Owning => ("owning", None),
        Phase::Draining => ("draining", None),
        Phase::Waiting { code, why } => ("waiting", Some(format!("{code}: {why}"))),
        Phase::Refusing { code, why } => ("refusing", Some(format!("{code}: {why}"))),
        Phase::Stopped => ("stopped", None),
    };
    ShardHere {
        phase,
        why,
        term: status.term,
        seq: status.seq,
        committed_seq: status.committed_seq,
        frames_in_flight: status.frames_in_flight,
        outputs_in_flight: status.outputs_in_flight,
        last_commit_ms: status.last_commit_ms,
        ledger_lag: status.ledger_lag,
        lag: status
            .lag
            .iter()
            .map(|(topic, partition, records)| LagView { topic: topic.as_str(), partition: *partition, records: *records })
            .collect(),
        snapshot_seq: status.snapshot_seq,
        void_entries: status.void_entries,
    }
}

fn replica(reached: &Reached) -> ReplicaView {
    ReplicaView {
        term: reached.term,
        seq: reached.seq,
        at: reached.at,
        ledger_next: reached.ledger_next,
        ledger_head: reached.head.iter().map(|byte| format!("{byte:02x}")).collect(),
        current: reached.current,
        broken: reached.broken.as_deref().map(str::to_owned),
    }
}
