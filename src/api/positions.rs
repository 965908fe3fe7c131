//! `X-Ordergate-Position`: where that stands which was written, and reads that are not older.
//!
//! Invariant: whoever was answered here reads here what was answered; whoever sends a position back reads what stands there at any
//! instance, or hears that it did not come in time. What stops trading waits for nothing. Deliberately absent: waiting for what nobody
//! was told of; an answer is as old as what it was read from.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::time::{Instant, timeout_at};

use super::problem::{ApiCode, Problem};
use super::v1::books::replica_problem;
use crate::chart::Charts;
use crate::control::commands::{Positions, directory_text, position_text};
use crate::control::directory::DirectoryService;
use crate::control::replica::{Listener, Reached, ReplicaError, Replicas};
use crate::domain::{InputTopic, Source};
use crate::log::{OutputRecord, OutputTopic, Placed, Topic};
use crate::notify::Notifier;

/// The header with the position of a record; of several, with commas between.
pub const POSITION: HeaderName = HeaderName::from_static("x-ordergate-position");
/// How long a request waits for the position that it brings.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a read waits for what was answered before it; then it answers with what there is.
pub(super) const FRESH_PATIENCE: Duration = Duration::from_secs(1);
/// How long after one that waited in vain nobody waits.
const LATE_FOR: Duration = Duration::from_secs(5);

/// The newest inputs of each partition that this process has answered.
#[derive(Default)]
pub struct Answered(Mutex<BTreeMap<(InputTopic, u32), u64>>);

impl Answered {
    /// Notes what is about to be answered; the places of the last record of each partition.
    pub fn note(&self, placed: &[Placed]) -> Vec<Source> {
        let mut last: BTreeMap<(InputTopic, u32), u64> = BTreeMap::new();
        for place in placed {
            let Topic::Input(topic) = place.topic else { continue };
            let offset = last.entry((topic, place.partition)).or_default();
            *offset = place.offset.max(*offset);
        }
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (at, offset) in &last {
            let newest = known.entry(*at).or_default();
            *newest = (*offset).max(*newest);
        }
        last.into_iter().map(source).collect()
    }

    fn all(&self) -> Vec<Source> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|(at, offset)| source((*at, *offset))).collect()
    }

    /// What was waited for in vain holds nobody else up.
    fn give_up(&self, late: Source) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.get(&(late.topic, late.partition)).is_some_and(|newest| *newest <= late.offset) {
            known.remove(&(late.topic, late.partition));
        }
    }
}

fn source(((topic, partition), offset): ((InputTopic, u32), u64)) -> Source {
    Source { topic, partition, offset }
}

/// Up to which record each shard is known to have raised a notification.
pub struct Raising(Vec<AtomicU64>);

impl Raising {
    /// Of so many shards.
    #[must_use]
    pub fn new(shards: u32) -> Arc<Self> {
        Arc::new(Self((0..shards).map(|_| AtomicU64::new(0)).collect()))
    }

    /// What does not come (retention has taken it, or the shard cannot publish it) holds nobody else up.
    fn give_up(&self, shard: u32, seq: u64) {
        if let Some(newest) = self.0.get(shard as usize) {
            let _ = newest.compare_exchange(seq, 0, Ordering::AcqRel, Ordering::Acquire);
        }
    }

    fn newest(&self) -> impl Iterator<Item = (u32, u64)> + '_ {
        (0..).zip(self.0.iter().map(|newest| newest.load(Ordering::Acquire)))
    }
}

impl Listener for Raising {
    fn folded(&self, shard: u32, _: &Reached, outputs: &[OutputRecord]) {
        let raised = outputs.iter().rev().find(|output| output.topic == OutputTopic::Notifications);
        if let (Some(raised), Some(newest)) = (raised, self.0.get(shard as usize)) {
            newest.store(raised.tag.seq, Ordering::Release);
        }
    }
}

/// What inputs are read into, and shown from.
#[derive(Clone)]
pub enum Reader {
    /// The books.
    Books(Arc<Replicas>),
    /// The charts.
    Charts(Arc<Charts>),
    /// The inboxes: what the books have caused comes to them over the log.
    Inboxes(Arc<Replicas>, Arc<Raising>, Arc<Notifier>),
}

impl Reader {
    async fn wait_for(&self, source: Source, patience: Duration) -> Result<(), ReplicaError> {
        match self {
            Self::Books(replicas) | Self::Inboxes(replicas, ..) => replicas.wait_for(source, patience).await,
            Self::Charts(charts) => match tokio::time::timeout(patience, charts.wait_for(source)).await {
                Ok(()) => Ok(()),
                Err(_) => Err(ReplicaError::Late { shard: source.partition }),
            },
        }
    }
}

/// The state of [`arrived`].
pub struct Inputs {
    /// What answers.
    pub reader: Reader,
    /// What this process has answered.
    pub answered: Arc<Answered>,
    /// When it was last waited for in vain.
    late_at: Mutex<Option<Instant>>,
}

/// Middleware of what is read out of inputs: a request is handled when what it brings the position of, and what was answered here, is
/// read.
pub async fn arrived(State(inputs): State<Arc<Inputs>>, request: Request, next: Next) -> Response {
    if stops(&request) {
        return next.run(request).await;
    }
    match inputs.arrive(request.headers()).await {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

/// Whether it stops trading.
fn stops(request: &Request) -> bool {
    let stops = ["/kill", "/state", "/trading-states"].iter().any(|end| request.uri().path().ends_with(end));
    stops && !request.method().is_safe()
}

impl Inputs {
    /// What answers, and what this process has answered.
    #[must_use]
    pub fn new(reader: Reader, answered: Arc<Answered>) -> Arc<Self> {
        Arc::new(Self { reader, answered, late_at: Mutex::default() })
    }

    async fn arrive(&self, headers: &HeaderMap) -> Result<(), Problem> {
        for source in asked(headers)?.inputs {
            self.reader.wait_for(source, PATIENCE).await.map_err(|error| match error {
                ReplicaError::Late { .. } => not_reached(&position_text(source)),
                error => replica_problem(error),
            })?;
        }
        self.freshen().await;
        Ok(())
    }

    /// Waits for what was answered here, for a second in all. Where that was in vain a moment ago nobody waits: then the books are behind,
    /// and say how far (`X-Ordergate-Age-Ms`).
    async fn freshen(&self) {
        let now = Instant::now();
        if self.late_at().is_some_and(|late_at| now - late_at < LATE_FOR) {
            return;
        }
        let until = now + FRESH_PATIENCE;
        for source in self.answered.all() {
            match self.reader.wait_for(source, until.saturating_duration_since(Instant::now())).await {
                Ok(()) => {}
                Err(ReplicaError::Late { .. }) => {
                    self.answered.give_up(source);
                    return self.is_late();
                }
                // The books say so themselves, to who asks for what they cannot show.
                Err(_) => return,
            }
        }
        let Reader::Inboxes(_, raising, notifier) = &self.reader else { return };
        for (shard, seq) in raising.newest().filter(|(_, seq)| *seq > 0) {
            if timeout_at(until, notifier.holds(shard, seq)).await.is_err() {
                raising.give_up(shard, seq);
                return self.is_late();
            }
        }
    }

    fn late_at(&self) -> Option<Instant> {
        *self.late_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_late(&self) {
        *self.late_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }
}

fn asked(headers: &HeaderMap) -> Result<Positions, Problem> {
    let wrong =
        || Problem::new(ApiCode::InvalidParameter, "X-Ordergate-Position is no position that we gave").field("X-Ordergate-Position");
    let mut found = Positions::default();
    for value in headers.get_all(POSITION) {
        found.read(value.to_str().map_err(|_| wrong())?).map_err(|_| wrong())?;
    }
    Ok(found)
}

/// The answer to a position that is not reached in time. Nothing was done.
fn not_reached(position: &str) -> Problem {
    Problem::new(ApiCode::PositionNotReached, "what stands at the position that the request brings is not read here yet; nothing was done")
        .with("position", position)
}

/// What a request brings the position of has not come in time.
#[derive(Clone, Copy)]
struct Unreached(u64);

/// Middleware of everything: who brings a position in the directory is known, and handled, as the directory is there. It comes before
/// it is asked who they are, so that a token which another instance made is good here; and it refuses nobody, so that strangers learn
/// nothing of it.
pub async fn directory_arrived(State(directory): State<Arc<DirectoryService>>, mut request: Request, next: Next) -> Response {
    let position = asked(request.headers()).ok().and_then(|asked| asked.directory).filter(|_| !stops(&request));
    if let Some(offset) = position {
        let mut folded = directory.changes();
        // It ends with the service, and then nothing is answered.
        if tokio::time::timeout(PATIENCE, folded.wait_for(|next| *next > offset)).await.is_err() {
            request.extensions_mut().insert(Unreached(offset));
        }
    }
    next.run(request).await
}

/// Middleware behind the one that knows who asks: refuses a position that is none, or is not reached.
pub async fn directory_reached(request: Request, next: Next) -> Response {
    if stops(&request) {
        return next.run(request).await;
    }
    match (asked(request.headers()), request.extensions().get::<Unreached>()) {
        (Err(problem), _) => problem.into_response(),
        (Ok(_), Some(Unreached(offset))) => not_reached(&directory_text(*offset)).into_response(),
        (Ok(_), None) => next.run(request).await,
    }
}

/// Middleware of what is written to the directory: the answer says up to where it was read, which is behind the record.
pub async fn directory_placed(State(directory): State<Arc<DirectoryService>>, request: Request, next: Next) -> Response {
    let writes = !request.method().is_safe();
    let mut answer = next.run(request).await;
    let last = directory.read(|directory| directory.next()).checked_sub(1);
    if let Some(last) = last.filter(|_| writes && answer.status().is_success())
        && let Ok(position) = HeaderValue::from_str(&directory_text(last))
    {
        answer.headers_mut().insert(POSITION, position);
    }
    answer
}

/// The same answer with the positions of what was written.
#[must_use]
pub fn positioned(mut answer: Response, sources: &[Source]) -> Response {
    let texts: Vec<String> = sources.iter().map(|source| position_text(*source)).collect();
    if let Ok(position) = HeaderValue::from_str(&texts.join(",")) {
        answer.headers_mut().insert(POSITION, position);
    }
    answer
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use axum::extract::Path;
    use axum::http::StatusCode;
    use axum::middleware::{from_fn, from_fn_with_state};
    use axum::routing::{get, post};
    use tower::ServiceExt;

    use super::*;
    use crate::control::replica::ReplicaOptions;
    use crate::directory::Kind;
    use crate::embedded::{EmbeddedLog, EmbeddedOptions};
    use crate::engine::NoSnapshots;
    use crate::log::Topics;

    #[test]
    fn what_one_instance_wrote_to_the_directory_another_reads_that_is_told_where_it_stands() {
        let dir = tempfile::tempdir().unwrap();
        let log = EmbeddedLog::open(EmbeddedOptions::new(dir.path())).unwrap();
        let topics: Arc<dyn Topics> = Arc::new(log.clone());
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let [here, there] = [0, 1].map(|_| DirectoryService::start(topics.clone()).unwrap());
        let write = {
            let here = here.clone();
            async move |Path(id): Path<String>| {
                here.write(Kind::User, &id, 0, Some(b"{}".to_vec()), "t").await.unwrap();
                StatusCode::CREATED
            }
        };
        let read = {
            let there = there.clone();
            async move |Path(id): Path<String>| there.get(Kind::User, &id).map_or(StatusCode::NOT_FOUND, |_| StatusCode::OK)
        };
        let here_routes = Router::new().route("/{id}", post(write)).layer(from_fn_with_state(here.clone(), directory_placed));
        let there_routes = Router::new().route("/{id}", get(read)).layer(from_fn(directory_reached));
        let there_routes = there_routes.layer(from_fn_with_state(there.clone(), directory_arrived));
        let ask = |routes: &Router, method: &str, id: &str, position: Option<HeaderValue>| {
            let mut request = Request::builder().method(method).uri(format!("/{id}")).body(Body::empty()).unwrap();
            request.headers_mut().extend(position.map(|position| (POSITION, position)));
            runtime.block_on(routes.clone().oneshot(request)).unwrap()
        };
        for number in 0..50 {
            let id = format!("u{number}");
            let made = ask(&here_routes, "POST", &id, None);
            assert_eq!(made.status(), StatusCode::CREATED);
            let position = made.headers().get(POSITION).unwrap().clone();
            assert_eq!(ask(&there_routes, "GET", &id, Some(position)).status(), StatusCode::OK, "{id}");
        }
        let nonsense = HeaderValue::from_static("gate.directory:0:x");
        assert_eq!(ask(&there_routes, "GET", "u1", Some(nonsense)).status(), StatusCode::BAD_REQUEST);
        let never = HeaderValue::from_static("gate.directory:0:9999");
        assert_eq!(ask(&there_routes, "GET", "u1", Some(never)).status(), StatusCode::GATEWAY_TIMEOUT);
        [here, there].iter().for_each(|service| service.stop());
        log.close();
    }

    #[test]
    fn who_waited_in_vain_keeps_nobody_else_waiting() {
        let dir = tempfile::tempdir().unwrap();
        let log = EmbeddedLog::open(EmbeddedOptions::new(dir.path())).unwrap();
        let topics: Arc<dyn Topics> = Arc::new(log.clone());
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        // No shard decides: what is appended is never applied.
        let replicas = Replicas::start(&topics, vec![Box::new(NoSnapshots)], vec![], &ReplicaOptions::default()).unwrap();
        let (answered, none) = (Arc::new(Answered::default()), HeaderMap::new());
        let inputs = Inputs::new(Reader::Books(replicas.clone()), answered.clone());
        let wait = || {
            let begun = Instant::now();
            runtime.block_on(inputs.arrive(&none)).unwrap();
            begun.elapsed()
        };
        assert!(wait() < FRESH_PATIENCE / 2, "nothing was answered");
        let appended = |offset| answered.note(&[placed(Topic::Input(InputTopic::Intents), 0, offset)]);
        appended(0);
        assert!(wait() >= FRESH_PATIENCE);
        for offset in 1..20 {
            appended(offset);
            assert!(wait() < FRESH_PATIENCE / 2);
        }
        // Who asks for it by its position waits all the same, and hears that it was in vain.
        let position = HeaderMap::from_iter([(POSITION, HeaderValue::from_static("orders.intents:0:0"))]);
        assert_eq!(runtime.block_on(inputs.arrive(&position)).unwrap_err().code(), ApiCode::PositionNotReached);
        replicas.stop();
        log.close();
    }

    fn placed(topic: Topic, partition: u32, offset: u64) -> Placed {
        Placed { topic, partition, offset }
    }

    #[test]
    fn the_newest_of_each_partition_is_waited_for_until_it_was_waited_for_in_vain() {
        let answered = Answered::default();
        let (prices, intents) = (Topic::Input(InputTopic::Prices), Topic::Input(InputTopic::Intents));
        let told = answered.note(&[placed(prices, 0, 7), placed(prices, 0, 8), placed(intents, 1, 3)]);
        let texts: Vec<String> = told.iter().map(|source| position_text(*source)).collect();
        assert_eq!(texts, ["orders.intents:1:3", "market.prices:0:8"]);
        answered.note(&[placed(prices, 0, 5)]);
        assert_eq!(answered.all(), told, "an older one changes nothing");
        let (of_prices, of_intents) = (told[1], told[0]);
        answered.note(&[placed(prices, 0, 9)]);
        answered.give_up(of_prices);
        assert_eq!(answered.all().len(), 2, "a newer one is still waited for");
        answered.give_up(of_intents);
        assert_eq!(answered.all(), [Source { offset: 9, ..of_prices }]);
    }
}
