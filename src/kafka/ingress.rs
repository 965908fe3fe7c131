//! Records that came by HTTP, on their way into the topics.
//!
//! Invariant: one record is durable when that is said; of several, all are or none: they go in one
//! transaction, and readers of committed records see none of it before its end. Deliberately absent:
//! order between requests.

use std::sync::mpsc::{self, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::log::{AppendDone, LogError, NewRecord, Placed, Topic};

use super::client::{Context, Listener, Receiver};
use super::cluster::{Cluster, offset};
use super::error::{KafkaFailure, log_error, not_created};
use super::polled::Polled;
use super::settings::{Role, client_config};

/// Batches that may wait for the one before them.
const BATCHES_MAX: usize = 64;
/// How long a new producer is served, so that it asks for its token.
const TOKEN_WAIT: Duration = Duration::from_millis(200);
/// How long a transaction's steps may take.
const STEP: Duration = Duration::from_secs(10);

/// A record with its partition settled.
pub(super) struct Routed {
    pub(super) record: NewRecord,
    pub(super) partition: u32,
}

/// The writers of what comes by HTTP.
pub(super) struct Ingress {
    cluster: Cluster,
    single: Mutex<Arc<Single>>,
    batches: SyncSender<(Vec<Routed>, AppendDone)>,
}

impl Ingress {
    pub(super) fn new(cluster: &Cluster) -> Result<Self, KafkaFailure> {
        let (batches, waiting) = sync_channel(BATCHES_MAX);
        let mut writer = Batches { cluster: cluster.clone(), producer: None };
        let run = move || writer.run(&waiting);
        let spawned = thread::Builder::new().name("kafka-batches".into()).spawn(run);
        spawned.map_err(|error| KafkaFailure::Settings { detail: error.to_string() })?;
        Ok(Self { cluster: cluster.clone(), single: Mutex::new(single(cluster)?), batches })
    }

    /// Writes one record, or several as one.
    pub(super) fn write(&self, mut records: Vec<Routed>, done: AppendDone) {
        if records.len() > 1 {
            match self.batches.try_send((records, done)) {
                Ok(()) => {}
                Err(TrySendError::Full((_, done))) => done(Err(LogError::Overloaded { waiting: BATCHES_MAX, limit: BATCHES_MAX })),
                Err(TrySendError::Disconnected((_, done))) => done(Err(LogError::Closed)),
            }
            return;
        }
        let Some(routed) = records.pop() else { return done(Ok(Vec::new())) };
        let topic = routed.record.topic;
        let answer = Answer::new(1, done);
        let opaque = Box::new(Report { answer: answer.clone(), place: 0, topic, partition: routed.partition });
        let record = with_payload(&self.cluster, &routed, opaque);
        if let Err((error, _)) = self.single().send(record) {
            answer.fail(log_error(&error, "sending a record"));
        }
    }

    /// Another one, when the last is of no use any more: what waits there fails as it ends.
    fn single(&self) -> Arc<Single> {
        let mut kept = self.single.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.context().is_useless()
            && let Ok(other) = single(&self.cluster)
        {
            *kept = other;
        }
        kept.clone()
    }
}

fn with_payload<'a>(cluster: &'a Cluster, routed: &'a Routed, opaque: Box<Report>) -> BaseRecord<'a, [u8], [u8], Box<Report>> {
    let partition = i32::try_from(routed.partition).unwrap_or(i32::MAX);
    let mut record = BaseRecord::with_opaque_to(cluster.name(routed.record.topic), opaque);
    record = record.partition(partition);
    // Without a value it is a tombstone; an empty value is none.
    if routed.record.topic != Topic::Directory || !routed.record.payload.is_empty() {
        record = record.payload(routed.record.payload.as_slice());
    }
    if let Some(key) = &routed.record.key {
        record = record.key(key.as_slice());
    }
    match routed.record.ts {
        Some(ts) => record.timestamp(ts),
        None => record,
    }
}

/// What is told when all of a request's records are reported.
#[derive(Clone)]
struct Answer {
    inner: Arc<Mutex<Pending>>,
}

struct Pending {
    placed: Vec<Option<Placed>>,
    left: usize,
    done: Option<AppendDone>,
}

impl Answer {
    fn new(count: usize, done: AppendDone) -> Self {
        Self { inner: Arc::new(Mutex::new(Pending { placed: vec![None; count], left: count, done: Some(done) })) }
    }

    fn place(&self, place: usize, placed: Placed) {
        let mut pending = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = pending.placed.get_mut(place) {
            *slot = Some(placed);
            pending.left = pending.left.saturating_sub(1);
        }
        if pending.left == 0
            && let Some(done) = pending.done.take()
        {
            let placed = pending.placed.iter().flatten().copied().collect();
            drop(pending);
            done(Ok(placed));
        }
    }

    fn fail(&self, error: LogError) {
        let done = self.inner.lock().unwrap_or_else(PoisonError::into_inner).done.take();
        if let Some(done) = done {
            done(Err(error));
        }
    }
}

/// Whom a report is for.
struct Report {
    answer: Answer,
    place: usize,
    topic: Topic,
    partition: u32,
}

/// Tells whoever waits for a record.
struct Reports;

impl Listener for Reports {}

impl Receiver for Reports {
    type Ticket = Report;

    fn reported(&self, report: &DeliveryResult<'_>, Report { answer, place, topic, partition }: Report) {
        match report {
            Ok(record) => answer.place(place, Placed { topic, partition, offset: offset(record.offset()) }),
            Err((error, _)) => answer.fail(log_error(error, "writing a record")),
        }
    }
}

type Single = Polled<Reports>;

fn single(cluster: &Cluster) -> Result<Arc<Single>, KafkaFailure> {
    Ok(Arc::new(Polled::new(cluster.options(), Role::Ingress, cluster.context(Reports))?))
}

/// Writes batches, one transaction each.
struct Batches {
    cluster: Cluster,
    producer: Option<BaseProducer<Context<Reports>>>,
}

impl Batches {
    fn run(&mut self, waiting: &mpsc::Receiver<(Vec<Routed>, AppendDone)>) {
        while let Ok((records, done)) = waiting.recv() {
            let written = self.write(&records);
            if written.is_err() {
                // The next batch begins with a new producer, which aborts what this one left open.
                self.producer = None;
            }
            done(written);
        }
    }

    fn write(&mut self, records: &[Routed]) -> Result<Vec<Placed>, LogError> {
        let (told, placed) = mpsc::channel();
        let answer = Answer::new(records.len(), Box::new(move |placed| drop(told.send(placed))));
        let cluster = self.cluster.clone();
        let producer = self.producer()?;
        let doing = |what: &'static str| move |error: KafkaError| log_error(&error, what);
        producer.begin_transaction().map_err(doing("beginning a transaction"))?;
        for (place, routed) in records.iter().enumerate() {
            let report = Report { answer: answer.clone(), place, topic: routed.record.topic, partition: routed.partition };
            if let Err((error, _)) = producer.send(with_payload(&cluster, routed, Box::new(report))) {
                abort(producer);
                return Err(log_error(&error, "sending a batch"));
            }
        }
        if let Err(error) = producer.flush(STEP).and_then(|()| producer.commit_transaction(STEP)) {
            abort(producer);
            return Err(log_error(&error, "committing a batch"));
        }
        placed.try_recv().unwrap_or(Err(LogError::Io { detail: "a batch was committed without its reports".into() }))
    }

    fn producer(&mut self) -> Result<&BaseProducer<Context<Reports>>, LogError> {
        let Self { cluster, producer } = self;
        // Nobody serves it between two batches: what it had to say waits.
        if let Some(made) = producer.as_ref() {
            made.poll(Duration::ZERO);
        }
        producer.take_if(|made| made.context().is_useless());
        match producer {
            Some(producer) => Ok(producer),
            None => {
                let made: BaseProducer<Context<Reports>> = client_config(cluster.options(), Role::Batches)?
                    .create_with_context(cluster.context(Reports))
                    .map_err(|error| LogError::from(not_created(&error)))?;
                if cluster.options().token_file.is_some() {
                    // The token is asked for when the client is served, and nobody else serves this one.
                    made.poll(TOKEN_WAIT);
                }
                made.init_transactions(STEP).map_err(|error| log_error(&error, "preparing batches"))?;
                Ok(producer.insert(made))
            }
        }
    }
}

fn abort(producer: &BaseProducer<Context<Reports>>) {
    if let Err(error) = producer.abort_transaction(STEP) {
        tracing::warn!(%error, "a batch that failed is aborted by the broker's timeout");
    }
}
