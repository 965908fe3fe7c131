//! What the handlers about books, rules and decisions share.
//!
//! Invariant: whoever may not know of an account gets the same answer as for one that does not exist.
//! A write is answered when every shard has folded its record, with the record's position; a request
//! that brings a position waits for it, within bounds. What came before under the same `Idempotency-Key` is
//! in the log under the key's mark, and is not written again.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use serde::Serialize;
use serde_json::Value;

use super::idempotency::{self, Begun, REMEMBERED_MS};
use super::json::answer;
use super::turns::Turns;
use crate::api::caller::{Caller, now};
use crate::api::positions::{self, FRESH_PATIENCE};
use crate::api::problem::{ApiCode, Problem};
use crate::api::records::log_problem;
use crate::control::commands::{By, CommandError, Commands, ControlRecord, position_text};
use crate::control::decisions::{Decisions, IndexError};
use crate::control::directory::DirectoryService;
use crate::control::replica::{ReplicaError, Replicas};
use crate::domain::{AccountId, Millis, Source};
use crate::engine::Partitioner;
use crate::gate::Gate;
use crate::risk::correlation::Pairs;

/// The header that says how old the books were that an answer comes from, in ms.
const AGE: &str = "x-ordergate-age-ms";
/// What was begun this long ago and is not in the log will not come there: a producer gives up earlier.
pub(super) const UNDER_WAY_MS: Millis = 60_000;

/// The ledger offset of a shard below which everything stands that this process has answered, if it can tell without asking anyone.
pub type Committed = Arc<dyn Fn(u32) -> Option<u64> + Send + Sync>;

/// The state of the handlers about books.
pub struct Books {
    /// The books.
    pub replicas: Arc<Replicas>,
    /// What writes operators' records.
    pub commands: Arc<Commands>,
    /// What was decided.
    pub decisions: Arc<Decisions>,
    /// Where `Idempotency-Key`s are kept.
    pub directory: Arc<DirectoryService>,
    /// How accounts are spread.
    pub partitioner: Partitioner,
    /// Correlations that were told before, by shard.
    pub pairs: Arc<Vec<Mutex<Pairs>>>,
    /// Turns at what takes a core for a while.
    pub turns: Turns,
    /// What is committed here: a read is never older than an answer that this process gave.
    pub committed: Committed,
}

/// Middleware: says how old the books may have been that an answer comes from: they held all that was on the log so long before the
/// answer. They are looked at after that, so they are younger, if anything.
pub async fn aged(State(books): State<Arc<Books>>, request: Request, next: Next) -> Response {
    let seen_all = books.replicas.seen_all();
    let mut answer = next.run(request).await;
    if let Some(seen_all) = seen_all {
        let age_ms = u64::try_from(seen_all.elapsed().as_millis()).unwrap_or(u64::MAX);
        answer.headers_mut().insert(AGE, HeaderValue::from(age_ms));
    }
    answer
}

fn readable(caller: &Caller, account: &str) -> Result<AccountId, Problem> {
    AccountId::parse(account.as_bytes()).filter(|id| caller.may_read(id.as_str())).ok_or_else(unknown_account)
}

impl Books {
    /// Lends the correlations of a shard's symbols to a question.
    pub fn with_pairs<R>(pairs: &[Mutex<Pairs>], shard: u32, question: impl FnOnce(&mut Pairs) -> R) -> R {
        match pairs.get(shard as usize) {
            Some(pairs) => question(&mut pairs.lock().unwrap_or_else(PoisonError::into_inner)),
            None => question(&mut Pairs::default()),
        }
    }

    /// The shard of an account.
    #[must_use]
    pub fn shard_of(&self, account: AccountId) -> u32 {
        self.partitioner.partition(account.as_bytes(), self.replicas.count())
    }

    /// Waits until a replica has folded what this process has answered. One that is late answers as it is.
    async fn freshen(&self, shard: u32) -> Result<(), Problem> {
        let Some(next) = (self.committed)(shard) else { return Ok(()) };
        match self.replicas.wait_for_ledger(shard, next, FRESH_PATIENCE).await {
            Ok(()) | Err(ReplicaError::Late { .. }) => Ok(()),
            Err(error) => Err(replica_problem(error)),
        }
    }

    /// The same, of all of them.
    ///
    /// # Errors
    /// A replica is broken.
    pub async fn freshen_all(&self) -> Result<(), Problem> {
        for shard in 0..self.replicas.count() {
            self.freshen(shard).await?;
        }
        Ok(())
    }

    /// Asks the gate of a shard, as it is after everything that this process has answered.
    ///
    /// # Errors
    /// The replica does not answer.
    pub async fn ask<R: Send + 'static>(&self, shard: u32, question: impl FnOnce(&Gate) -> R + Send + 'static) -> Result<R, Problem> {
        self.freshen(shard).await?;
        self.replicas.ask(shard, question).await.map_err(replica_problem)
    }

    /// Asks the gate of an account that the caller may know of; `None` of one that was never opened is told as unknown.
    ///
    /// # Errors
    /// There is no such account for this caller, or the replica does not answer.
    pub async fn ask_of<R: Send + 'static>(
        &self,
        caller: &Caller,
        account: &str,
        question: impl FnOnce(&Gate, AccountId) -> Option<R> + Send + 'static,
    ) -> Result<R, Problem> {
        let account = readable(caller, account)?;
        self.ask(self.shard_of(account), move |gate| question(gate, account)).await?.ok_or_else(unknown_account)
    }

    /// The same of a question that takes a core for a while: it waits for its turn.
    ///
    /// # Errors
    /// As [`Books::ask`], or all turns are taken for too long.
    pub async fn compute<R: Send + 'static>(&self, shard: u32, question: impl FnOnce(&Gate) -> R + Send + 'static) -> Result<R, Problem> {
        self.freshen(shard).await?;
        let turn = self.turns.take().await?;
        let question = move |gate: &Gate| {
            let _turn = turn;
            question(gate)
        };
        self.replicas.ask(shard, question).await.map_err(replica_problem)
    }

    /// The same of an account that the caller may know of.
    ///
    /// # Errors
    /// As [`Books::ask_of`], or all turns are taken for too long.
    pub async fn compute_of<R: Send + 'static>(
        &self,
        caller: &Caller,
        account: &str,
        question: impl FnOnce(&Gate, AccountId) -> Option<R> + Send + 'static,
    ) -> Result<R, Problem> {
        let account = readable(caller, account)?;
        self.compute(self.shard_of(account), move |gate| question(gate, account)).await?.ok_or_else(unknown_account)
    }

    /// The account, if the caller may act for it.
    ///
    /// # Errors
    /// It is unknown to the caller, or only to be read.
    pub async fn writable(&self, caller: &Caller, account: &str) -> Result<AccountId, Problem> {
        let known = self.ask_of(caller, account, |gate, id| gate.account(id).map(|account| account.id)).await?;
        if caller.may_write(known.as_str()) {
            return caller.require_to_act().map(|()| known);
        }
        Err(Problem::new(ApiCode::Forbidden, "the account may only be read"))
    }

    /// The account, if the caller may stop it. A replica that does not answer holds nobody up whose right does not come from it: the
    /// shard decides on what is written all the same.
    ///
    /// # Errors
    /// As [`Books::writable`].
    pub async fn stoppable(&self, caller: &Caller, account: &str) -> Result<AccountId, Problem> {
        match self.writable(caller, account).await {
            Err(problem) if problem.code() == ApiCode::NotReady => {
                let id = AccountId::parse(account.as_bytes()).filter(|id| caller.may_write(id.as_str())).ok_or(problem)?;
                caller.require_to_act().map(|()| id)
            }
            answered => answered,
        }
    }

    /// Writes an operator's record.
    ///
    /// # Errors
    /// It was refused, or is not applied yet.
    pub async fn write(&self, caller: &Caller, reason: Option<&str>, record: ControlRecord) -> Result<Source, Problem> {
        let by = by(caller, reason);
        self.commands.write(record, &by).await.map_err(command_problem)
    }

    /// Binds a request's key, if it has one, to what it makes; `fresh` is the id to use if it is new.
    ///
    /// # Errors
    /// The key is none, came with another body, or the log.
    pub async fn begin(&self, caller: &Caller, what: &str, headers: &HeaderMap, body: &[u8], fresh: String) -> Result<Begun, Problem> {
        idempotency::begin(&self.directory, caller, what, headers, body, fresh).await
    }

    /// Writes an operator's record once, however often it is asked for under the same key. A repeat ends as the first one did.
    ///
    /// # Errors
    /// It was refused, is not applied yet, or the first one may still be under way.
    pub async fn write_once(&self, caller: &Caller, begun: &Begun, reason: Option<&str>, record: ControlRecord) -> Result<Source, Problem> {
        Commands::read(&record.value).map_err(command_problem)?;
        let Some(mark) = &begun.mark else { return self.write(caller, reason, record).await };
        // What must not come twice is looked for also when the key seems new: the log knows of it whatever became of the directory.
        if begun.again || record.adds() {
            let since = now() - REMEMBERED_MS;
            if let Some(place) = self.commands.find(mark, since).await.map_err(command_problem)? {
                return self.commands.became(place, since).await.map_err(command_problem);
            }
        }
        // To stop twice is to stop.
        if begun.again && !record.stops() {
            if now() - begun.at < UNDER_WAY_MS {
                return Err(idempotency::busy());
            }
            idempotency::take_over(&self.directory, caller, begun).await?;
        }
        self.write(caller, reason, record.marked(mark.as_str())).await
    }
}

/// Who asks, for the record and the audit.
#[must_use]
pub fn by(caller: &Caller, reason: Option<&str>) -> By {
    By { actor: caller.name.clone(), address: caller.address, reason: reason.unwrap_or_default().to_owned() }
}

/// An account that is not there, or that the caller may not know of.
#[must_use]
pub fn unknown_account() -> Problem {
    Problem::new(ApiCode::UnknownAccount, "the account was never opened").field("account")
}

/// An answer with the position of what was written.
#[must_use]
pub fn written(status: StatusCode, source: Source, value: &impl Serialize) -> Response {
    positioned(answer(status, value), source)
}

/// The same answer with a position.
#[must_use]
pub fn positioned(response: Response, source: Source) -> Response {
    positions::positioned(response, &[source])
}

/// How a replica that does not answer is told.
#[must_use]
pub fn replica_problem(error: ReplicaError) -> Problem {
    let code = match error {
        ReplicaError::NoSuchShard { .. } | ReplicaError::Starting { .. } | ReplicaError::Broken { .. } | ReplicaError::Stopped => {
            ApiCode::NotReady
        }
        ReplicaError::Late { .. } => ApiCode::NotApplied,
    };
    Problem::new(code, error.to_string())
}

/// How an index that does not answer is told.
#[must_use]
pub fn index_problem(error: &IndexError) -> Problem {
    tracing::warn!(%error, "decisions cannot be searched");
    Problem::new(ApiCode::NotReady, "the index of decisions is being made anew")
}

/// How a record that has not become what was asked is told.
#[must_use]
pub fn command_problem(error: CommandError) -> Problem {
    match error {
        CommandError::Unreadable { code, field, message } => {
            let problem = Problem::new(ApiCode::InvalidField, message).with("reason", code);
            match field {
                Some(field) => problem.field(&field),
                None => problem,
            }
        }
        CommandError::Refused { refusal, place } => {
            let problem = Problem::new(ApiCode::RecordRefused, refusal.message).with("reason", refusal.code);
            let problem = problem.with("position", position_text(place));
            match refusal.field {
                Some(field) => problem.field(&field),
                None => problem,
            }
        }
        CommandError::Log(error) => log_problem(&error),
        CommandError::Unaudited(cause) => {
            tracing::error!(%cause, "an action could not be noted in the audit");
            Problem::new(ApiCode::LogUnavailable, "the audit could not be written, and what it does not say is not done")
        }
        CommandError::NotDurable => Problem::new(ApiCode::AppendTimeout, error.to_string()),
        CommandError::NotApplied { place, .. } => {
            Problem::new(ApiCode::NotApplied, error.to_string()).with("position", position_text(place))
        }
    }
}

/// An id that nobody has used: time, process and a count, hashed.
#[must_use]
pub fn fresh_id(prefix: &str) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let nanos = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_nanos();
    let text = format!("{nanos}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    format!("{prefix}-{}", &blake3::hash(text.as_bytes()).to_hex()[..16])
}

/// A version of something that has none of its own: what it says, hashed.
#[must_use]
pub fn version_of(value: &Value) -> u64 {
    let hash = blake3::hash(value.to_string().as_bytes());
    hash.as_bytes().first_chunk::<8>().map_or(0, |bytes| u64::from_le_bytes(*bytes) >> 11)
}
