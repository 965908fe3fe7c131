//! `GET /api/v1/accounts/{account}`: one book, as the live fold has it.

use axum::extract::{Path, State};
use axum::http::Uri;
use axum::response::Response;

use super::Face;
use super::health::json_bytes;
use super::problem::{ApiCode, Problem};
use super::query::Query;
use crate::domain::AccountId;
use crate::engine::Handle;
use crate::wire;

/// `GET /api/v1/accounts/{account}`
pub async fn get(State(face): State<Face>, Path(account): Path<String>, uri: Uri) -> Result<Response, Problem> {
    Query::read(uri.query(), &[])?;
    let unknown = || Problem::new(ApiCode::UnknownAccount, "the account was never opened").field("account");
    let account = AccountId::parse(account.as_bytes()).ok_or_else(unknown)?;
    let shard = face.partitioner.partition(account.as_bytes(), face.shards);
    let elsewhere = || Problem::new(ApiCode::NotReady, format!("shard {shard} holds the account, and is on another instance"));
    let handle = face.gates.shard(shard).ok_or_else(elsewhere)?;
    book(&handle, account).await?.map(json_bytes).ok_or_else(unknown)
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
