//! `GET /api/v1/accounts/{account}`: one book, as the live fold has it.

use axum::Extension;
use axum::extract::State;
use axum::http::Uri;
use axum::response::Response;

use super::Face;
use super::caller::{Caller, Owners};
use super::health::json_bytes;
use super::problem::{ApiCode, Problem};
use super::query::Query;
use super::v1::page::PathId;
use crate::domain::AccountId;
use crate::engine::Handle;
use crate::wire;

/// Shows an account's book: cash, equity, positions, working orders.
#[utoipa::path(get, path = "/accounts/{account}", tag = "log", params(("account" = String, Path, description = "The account's id")),
    responses((status = 200, description = "The book, all of it committed", body = Object)))]
pub async fn get(
    State(face): State<Face>,
    Extension(caller): Extension<Caller>,
    PathId(account): PathId,
    uri: Uri,
) -> Result<Response, Problem> {
    Query::read(uri.query(), &[])?;
    let account = AccountId::parse(account.as_bytes()).ok_or_else(unknown)?;
    face.refuse_foreign(&caller, account, Caller::may_read).await?;
    let shard = face.partitioner.partition(account.as_bytes(), face.shards);
    let elsewhere = || Problem::new(ApiCode::NotReady, format!("shard {shard} holds the account, and is on another instance"));
    let handle = face.gates.shard(shard).ok_or_else(elsewhere)?;
    book(&handle, account).await?.map(json_bytes).ok_or_else(unknown)
}

fn unknown() -> Problem {
    Problem::new(ApiCode::UnknownAccount, "the account was never opened").field("account")
}

impl Face {
    /// An account that the caller may not know of does not exist for them.
    pub(super) async fn refuse_foreign(&self, caller: &Caller, account: AccountId, may: fn(&Caller, &str) -> bool) -> Result<(), Problem> {
        if may(caller, account.as_str()) {
            return Ok(());
        }
        self.learn_owner(account).await;
        if may(caller, account.as_str()) {
            return Ok(());
        }
        // Who may look at it knows that it is there.
        if caller.may_read(account.as_str()) {
            Err(Problem::new(ApiCode::Forbidden, "the account may be looked at only"))
        } else {
            Err(unknown())
        }
    }

    /// Asks the fold once whose an account is; it stays theirs for ever.
    async fn learn_owner(&self, account: AccountId) {
        if self.owners.owner(account.as_str()).is_some() {
            return;
        }
        let shard = self.partitioner.partition(account.as_bytes(), self.shards);
        let Some(handle) = self.gates.shard(shard) else { return };
        if let Ok(Some(owner)) = handle.query(move |gate| gate.owner(account)).await {
            self.owners.learn(account, owner);
        }
    }
}

/// The account's book, if the shard has it, as it was between two records; everything in it is committed.
async fn book(shard: &Handle, account: AccountId) -> Result<Option<Vec<u8>>, Problem> {
    let asked = shard.query(move |gate| {
        gate.book(account).map(|book| {
            let mut json = Vec::new();
            wire::encode_account(&mut json, gate.seq(), &book);
            json
        })
    });
    asked.await.map_err(|_| Problem::new(ApiCode::NotReady, "the shard is starting or stopping"))
}
