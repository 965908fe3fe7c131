//! One WebSocket, from its opening to its end.
//!
//! Invariant: one task reads and writes it, and whatever it waits for has a bound: a write, an answer to a ping, the reading of what was
//! sent. Rights are looked up every few seconds and with every subscription, and when they are over so is the connection. Deliberately
//! absent: what channels carry.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket};
use futures_util::SinkExt;
use metrics::{counter, histogram};
use tokio::task::{JoinError, JoinHandle};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::catch_up::{self, Page};
use super::hub::Member;
use super::outbox::Waiting;
use super::protocol::{self, Channel, Close, Request, SUBSCRIPTIONS_MAX};
use super::subscription::{Held, Joined, Ready, prepare};
use super::{Live, Slot};
use crate::api::caller::Caller;
use crate::api::problem::{ApiCode, Problem};
use crate::api::stopped;
use crate::telemetry::{WS_CLOSED, WS_DELIVERY_SECONDS, WS_MESSAGES};

/// Rights are looked up this often, and the rest of what is done from time to time.
const TICK: Duration = Duration::from_secs(2);
/// A client is asked for a sign of life this often,
const PING_EVERY: Duration = Duration::from_secs(15);
/// and has to have given one within this.
const SILENCE_MAX: Duration = Duration::from_secs(40);
/// So much at once has to be written within this.
const WRITE_PATIENCE: Duration = Duration::from_secs(5);
/// A client may take so long to answer that we close.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);
/// And one that did not read what was sent to it may come back as late as this, and hears why. No more than that is kept for it.
const SLOW_PATIENCE: Duration = Duration::from_secs(30);
/// Messages of a client within a tick.
const MESSAGES_PER_TICK_MAX: u32 = 100;
/// Messages that are written between two looks at everything else.
const CHUNK: usize = 64;

type Opening = (Channel, JoinHandle<Result<Ready, Problem>>);
type Pages = JoinHandle<Result<Page, Problem>>;

/// Why a session ends.
enum End {
    /// We end it.
    Ours(Close),
    /// The client left, or is gone.
    Theirs,
}

/// What happened.
enum Step {
    Write(Vec<Waiting>),
    Heard(Option<Result<Message, axum::Error>>),
    Tick,
    Opened(Result<Result<Ready, Problem>, JoinError>),
    Paged(Result<Result<Page, Problem>, JoinError>),
}

struct Session {
    live: Arc<Live>,
    member: Arc<Member>,
    held: HashMap<Channel, Held>,
    /// The subscription that is being prepared: one after the other.
    opening: Option<Opening>,
    /// The next page of decisions for who resumes.
    pages: Option<Pages>,
    heard: Instant,
    pinged: Instant,
    messages: u32,
}

/// Serves a WebSocket to its end.
pub async fn run(mut socket: WebSocket, live: Arc<Live>, caller: Caller, slot: Slot) {
    let (member, now) = (Member::new(slot.number, caller), Instant::now());
    let held = HashMap::new();
    let mut session = Session { live, member, held, opening: None, pages: None, heard: now, pinged: now, messages: 0 };
    let end = session.serve(&mut socket).await;
    let mut stop = session.live.of.stop.clone();
    // Nobody has anything more for it while it is being closed.
    drop(session);
    match end {
        End::Theirs => counter!(WS_CLOSED, "reason" => "client").increment(1),
        End::Ours(close) => {
            counter!(WS_CLOSED, "reason" => close.label()).increment(1);
            tokio::select! {
                () = farewell(&mut socket, close) => {}
                // A stop waits for the others.
                () = stopped(&mut stop), if matches!(close, Close::Slow) => {}
            }
        }
    }
}

/// Says why it ends, and waits for the answer for a while.
async fn farewell(socket: &mut WebSocket, close: Close) {
    let frame = CloseFrame { code: close.code(), reason: Utf8Bytes::from_static(close.reason()) };
    let said = async {
        socket.send(Message::Close(Some(frame))).await?;
        while let Some(Ok(_)) = socket.recv().await {}
        Ok::<_, axum::Error>(())
    };
    // Who is gone or does not read does not hear it.
    let patience = if matches!(close, Close::Slow) { SLOW_PATIENCE } else { CLOSE_PATIENCE };
    let _ = timeout(patience, said).await;
}

/// What a task comes to; without one nothing ever.
async fn outcome<T>(task: Option<&mut JoinHandle<T>>) -> Result<T, JoinError> {
    match task {
        Some(task) => task.await,
        None => std::future::pending().await,
    }
}

impl Session {
    async fn serve(&mut self, socket: &mut WebSocket) -> End {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut stop = self.live.of.stop.clone();
        loop {
            // Who does not take what was asked for, or waits for an answer, is not asked what else they want.
            let listens = self.opening.is_none() && self.member.outbox.has_room();
            let step = tokio::select! {
                () = stopped(&mut stop) => return End::Ours(Close::GoingAway),
                batch = self.member.outbox.next() => match batch {
                    Ok(batch) => Step::Write(batch),
                    Err(close) => return End::Ours(close),
                },
                heard = socket.recv(), if listens => Step::Heard(heard),
                _ = ticks.tick() => Step::Tick,
                opened = outcome(self.opening.as_mut().map(|(_, task)| task)) => Step::Opened(opened),
                page = outcome(self.pages.as_mut()) => Step::Paged(page),
            };
            let done = match step {
                Step::Write(batch) => self.write(socket, batch).await,
                Step::Heard(heard) => self.on_message(socket, heard).await,
                Step::Tick => self.on_tick(socket).await,
                Step::Opened(opened) => self.on_opened(socket, opened).await,
                Step::Paged(page) => self.on_page(socket, page).await,
            };
            if let Err(end) = done {
                return end;
            }
        }
    }

    /// Writes what waited, and notes how long it did.
    async fn write(&mut self, socket: &mut WebSocket, batch: Vec<Waiting>) -> Result<(), End> {
        let since: Vec<Instant> = batch.iter().map(|waiting| waiting.since).collect();
        self.say(socket, batch.into_iter().map(|waiting| waiting.message).collect()).await?;
        since.iter().for_each(|since| histogram!(WS_DELIVERY_SECONDS).record(since.elapsed().as_secs_f64()));
        Ok(())
    }

    /// Writes messages, as long as the client reads and nothing ends it.
    async fn say(&mut self, socket: &mut WebSocket, messages: Vec<Utf8Bytes>) -> Result<(), End> {
        let mut stop = self.live.of.stop.clone();
        for chunk in messages.chunks(CHUNK) {
            let written = async {
                for message in chunk {
                    socket.feed(Message::Text(message.clone())).await?;
                }
                socket.flush().await
            };
            tokio::select! {
                written = timeout(WRITE_PATIENCE, written) => match written {
                    Ok(Ok(())) => counter!(WS_MESSAGES).increment(chunk.len() as u64),
                    Ok(Err(_)) => return Err(End::Theirs),
                    Err(_) => return Err(End::Ours(Close::Slow)),
                },
                close = self.member.outbox.cut_off() => return Err(End::Ours(close)),
                () = stopped(&mut stop) => return Err(End::Ours(Close::GoingAway)),
            }
        }
        Ok(())
    }

    async fn refuse(&mut self, socket: &mut WebSocket, channel: Option<&str>, problem: &Problem) -> Result<(), End> {
        self.say(socket, vec![protocol::error(channel, problem)]).await
    }

    async fn on_message(&mut self, socket: &mut WebSocket, heard: Option<Result<Message, axum::Error>>) -> Result<(), End> {
        let message = match heard {
            None => return Err(End::Theirs),
            Some(Err(error)) => return Err(end_of(&error)),
            Some(Ok(message)) => message,
        };
        self.heard = Instant::now();
        self.messages += 1;
        if self.messages > MESSAGES_PER_TICK_MAX {
            return Err(End::Ours(Close::Flood));
        }
        match message {
            Message::Text(text) => match protocol::read(text.as_str()) {
                Ok(Request::Subscribe { channel, resume }) => self.subscribe(socket, channel, resume).await,
                Ok(Request::Unsubscribe { channel }) => self.unsubscribe(socket, channel).await,
                Err(refused) => self.refuse(socket, refused.channel.as_deref(), &refused.problem).await,
            },
            Message::Binary(_) => {
                self.refuse(socket, None, &Problem::new(ApiCode::MalformedBody, "messages are JSON in text frames")).await
            }
            // The library answers pings.
            Message::Ping(_) | Message::Pong(_) => Ok(()),
            Message::Close(_) => {
                // It has put its answer on the way; that is all that there is to say.
                let _ = timeout(CLOSE_PATIENCE, socket.flush()).await;
                Err(End::Theirs)
            }
        }
    }

    async fn subscribe(&mut self, socket: &mut WebSocket, channel: Channel, resume: Option<String>) -> Result<(), End> {
        self.look_up_rights()?;
        let refused = if self.held.contains_key(&channel) {
            Some(Problem::new(ApiCode::AlreadySubscribed, "unsubscribe first").field("channel"))
        } else if self.held.len() >= SUBSCRIPTIONS_MAX {
            Some(Problem::new(ApiCode::TooManySubscriptions, format!("a connection has at most {SUBSCRIPTIONS_MAX}")))
        } else {
            None
        };
        if let Some(problem) = refused {
            return self.refuse(socket, Some(&channel.to_string()), &problem).await;
        }
        let ready = prepare(self.live.clone(), self.member.caller(), channel, resume);
        self.opening = Some((channel, tokio::spawn(ready)));
        Ok(())
    }

    async fn on_opened(&mut self, socket: &mut WebSocket, opened: Result<Result<Ready, Problem>, JoinError>) -> Result<(), End> {
        let Some((channel, _)) = self.opening.take() else { return Ok(()) };
        let ready = opened.unwrap_or_else(|_| Err(Problem::new(ApiCode::Internal, "the subscription could not be prepared")));
        match ready.and_then(|ready| ready.join(&self.live, &self.member, channel)) {
            Ok(Joined { held, said, catching_up }) => {
                self.held.insert(channel, held);
                // What was prepared may be nothing to them any more.
                self.look_up_rights()?;
                self.pages = catching_up.map(|seen| self.next_page(seen)).or(self.pages.take());
                self.say(socket, said).await
            }
            Err(problem) => self.refuse(socket, Some(&channel.to_string()), &problem).await,
        }
    }

    async fn unsubscribe(&mut self, socket: &mut WebSocket, channel: Channel) -> Result<(), End> {
        if self.held.remove(&channel).is_none() {
            let problem = Problem::new(ApiCode::NotSubscribed, "there is no such subscription").field("channel");
            return self.refuse(socket, Some(&channel.to_string()), &problem).await;
        }
        if channel == Channel::Decisions {
            self.pages = None;
        }
        self.say(socket, vec![protocol::unsubscribed(channel)]).await
    }

    fn next_page(&self, seen: Vec<u64>) -> Pages {
        let of = &self.live.of;
        catch_up::read(&of.hub, &of.books.decisions, &self.member, seen)
    }

    /// A page of decisions for who resumes; when it was the last one, the rest and whatever comes.
    async fn on_page(&mut self, socket: &mut WebSocket, page: Result<Result<Page, Problem>, JoinError>) -> Result<(), End> {
        self.pages = None;
        let page = page.unwrap_or_else(|_| Err(Problem::new(ApiCode::Internal, "the decisions could not be read")));
        let Page { messages, seen, complete } = match page {
            Ok(page) => page,
            Err(problem) => {
                self.held.remove(&Channel::Decisions);
                return self.refuse(socket, Some(&Channel::Decisions.to_string()), &problem).await;
            }
        };
        self.say(socket, messages).await?;
        let rest = if complete { self.live.of.hub.catch_decisions(&self.member, &seen) } else { None };
        match rest {
            Some(rest) => self.say(socket, rest).await,
            None => {
                self.pages = Some(self.next_page(seen));
                Ok(())
            }
        }
    }

    async fn on_tick(&mut self, socket: &mut WebSocket) -> Result<(), End> {
        self.messages = 0;
        self.look_up_rights()?;
        let from_replicas = |channel: &Channel| matches!(channel, Channel::Decisions | Channel::Account(_));
        if self.held.keys().any(from_replicas) && !self.live.of.books.replicas.notes().is_empty() {
            return Err(End::Ours(Close::Broken));
        }
        if self.heard.elapsed() > SILENCE_MAX {
            return Err(End::Ours(Close::Slow));
        }
        if self.pinged.elapsed() < PING_EVERY {
            return Ok(());
        }
        self.pinged = Instant::now();
        match timeout(WRITE_PATIENCE, socket.send(Message::Ping(Bytes::new()))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(End::Theirs),
            Err(_) => Err(End::Ours(Close::Slow)),
        }
    }

    /// Takes over the rights of now, and ends where they do not reach any more what was subscribed to.
    fn look_up_rights(&self) -> Result<(), End> {
        let over = End::Ours(Close::RightsOver);
        let Some(caller) = self.live.of.door.renewed(&self.member.caller()) else { return Err(over) };
        let may = |channel: &Channel| match channel {
            Channel::Account(account) => caller.may_read(account.as_str()),
            Channel::System => caller.is_admin(),
            Channel::Decisions | Channel::Notifications | Channel::Bars(..) => true,
        };
        if !self.held.keys().all(may) {
            return Err(over);
        }
        self.member.renew(caller);
        Ok(())
    }
}

/// How a socket that cannot be read ends. The library's error is not of a type of ours; its text is held fast by a test.
fn end_of(error: &axum::Error) -> End {
    let text = error.to_string();
    if text.starts_with("Space limit exceeded") {
        return End::Ours(Close::TooBig);
    }
    if text.starts_with("UTF-8") {
        return End::Ours(Close::NoText);
    }
    // A connection that broke is a protocol error to the library.
    if text.starts_with("WebSocket protocol error") && !text.ends_with("without closing handshake") {
        return End::Ours(Close::Protocol);
    }
    End::Theirs
}
