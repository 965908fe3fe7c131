//! Two instances over one log with a shard that decides, for tests of what they do at the same moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use axum::{Extension, Router};
use http_body_util::BodyExt;
use serde_json::Value;
use tempfile::TempDir;
use tower::ServiceExt;

use super::books::Books;
use super::turns::Turns;
use super::{account_writes, accounts, risk_rules};
use crate::api::caller::Caller;
use crate::control::commands::Commands;
use crate::control::decisions::{Decisions, IndexOptions};
use crate::control::directory::DirectoryService;
use crate::control::replica::{ReplicaOptions, Replicas};
use crate::embedded::{EmbeddedLog, EmbeddedOptions};
use crate::engine::{NoObserver, NoSnapshots, Options, Partitioner, Phase, Service, spawn};
use crate::log::{AppendDone, Extent, LogError, NewRecord, StoredRecord, Topic, Topics};
use crate::wire::frame::{self, Entry};

/// The log as the first instance reads it: with another outcome of each record, once that is asked for.
struct Tampered {
    log: EmbeddedLog,
    tampers: Arc<AtomicBool>,
}

impl Topics for Tampered {
    fn append(&self, records: Vec<NewRecord>, done: AppendDone) {
        Topics::append(&self.log, records, done);
    }

    fn read(&self, topic: Topic, partition: u32, from: u64, limit: usize) -> Result<Vec<StoredRecord>, LogError> {
        let mut records = Topics::read(&self.log, topic, partition, from, limit)?;
        let tampers = topic == Topic::Ledger && self.tampers.load(Ordering::Acquire);
        for record in records.iter_mut().filter(|_| tampers) {
            if let Ok(Entry::Frame(mut frame)) = frame::decode(&record.payload) {
                frame.inputs.iter_mut().for_each(|input| input.outcome.outputs += 1);
                record.payload = frame::encode(&Entry::Frame(frame)).unwrap();
            }
        }
        Ok(records)
    }

    fn extents(&self) -> Result<Vec<Extent>, LogError> {
        self.log.extents()
    }

    fn changes(&self) -> tokio::sync::watch::Receiver<u64> {
        self.log.changes()
    }

    fn refusing(&self) -> Option<LogError> {
        self.log.refusing()
    }
}

/// An instance: its own directory, replicas and index over the log that all share.
fn instance(dir: &TempDir, name: &str, topics: &Arc<dyn Topics>) -> Arc<Books> {
    let decisions = Decisions::open(IndexOptions::new(dir.path().join(name), 1), topics.clone());
    let replicas = Replicas::start(topics, vec![Box::new(NoSnapshots)], vec![decisions.clone()], &ReplicaOptions::default()).unwrap();
    Arc::new(Books {
        commands: Arc::new(Commands::new(topics.clone(), replicas.clone(), Duration::from_secs(10))),
        replicas,
        decisions,
        directory: DirectoryService::start(topics.clone()).unwrap(),
        partitioner: Partitioner::default(),
        pairs: Arc::default(),
        turns: Turns::of_this_machine(),
        committed: Arc::new(|_| None),
    })
}

/// Two instances and the shard that decides.
pub struct World {
    pub instances: Vec<(Arc<Books>, Router)>,
    tampers: Arc<AtomicBool>,
    service: Service,
    _dir: TempDir,
}

impl World {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = EmbeddedLog::open(EmbeddedOptions::new(dir.path())).unwrap();
        let service = spawn(log.shard_log(), Box::new(NoSnapshots), Box::new(NoObserver), Options::default()).unwrap();
        while service.handle.status().phase != Phase::Owning {
            std::thread::sleep(Duration::from_millis(1));
        }
        let tampers = Arc::new(AtomicBool::new(false));
        let logs: [(&str, Arc<dyn Topics>); 2] =
            [("here", Arc::new(Tampered { log: log.clone(), tampers: tampers.clone() })), ("there", Arc::new(log))];
        let instances = logs.map(|(name, topics)| {
            let books = instance(&dir, name, &topics);
            let routes = risk_rules::routes().merge(accounts::routes()).merge(account_writes::routes());
            let (router, _) = routes.with_state(books.clone()).split_for_parts();
            (books, router.layer(Extension(Caller::open([127, 0, 0, 1].into()))))
        });
        Self { instances: instances.into(), tampers, service, _dir: dir }
    }

    pub async fn ask(&self, at: usize, method: &str, path: &str, tag: Option<&str>, body: &Value) -> (StatusCode, String, Value) {
        let mut request = Request::builder().method(method).uri(path).header(header::CONTENT_TYPE, "application/json");
        if let Some(tag) = tag {
            request = request.header(header::IF_MATCH, tag);
        }
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        let answer = self.instances[at].1.clone().oneshot(request.body(body).unwrap()).await.unwrap();
        let (status, tag) = (answer.status(), answer.headers().get(header::ETAG).map_or("", |tag| tag.to_str().unwrap()).to_owned());
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        (status, tag, serde_json::from_slice(&bytes).unwrap_or_default())
    }

    /// From the next record on the first instance's replica derives something else than was recorded, and answers nothing any more.
    pub async fn break_the_first_replica(&self) {
        self.tampers.store(true, Ordering::Release);
        while self.instances[0].0.replicas.notes().is_empty() {
            let state = serde_json::json!({"state": "reduce_only", "reason": "a record"});
            self.ask(1, "POST", "/accounts/A1/state", None, &state).await;
        }
    }

    pub fn stop(self) {
        for (books, _) in &self.instances {
            books.replicas.stop();
            books.decisions.stop();
            books.directory.stop();
        }
        assert!(self.service.stop());
    }
}
