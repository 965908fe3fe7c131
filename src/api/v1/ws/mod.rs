//! `GET /api/v1/ws`: what happens, as it happens (docs/WEBSOCKET.md).
//!
//! Invariant: who opens one proves who they are by a ticket, once; only where everyone may do everything anyway none is asked for. There
//! is a bounded number of them, each has a bounded queue, and the log is read once for all. Deliberately absent: any write; one sends
//! nothing over it but what one wants to hear.

mod bars_feed;
mod books_feed;
mod catch_up;
pub mod hub;
mod inbox_feed;
mod outbox;
mod position;
mod protocol;
mod session;
mod subscription;
mod system_feed;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::http::{HeaderValue, Uri, header};
use axum::response::{IntoResponse, Response};
use metrics::gauge;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::timeout;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::books::Books;
use super::system::System;
use crate::api::Limits;
use crate::api::caller::{Address, Caller, Door};
use crate::api::problem::{ApiCode, Problem};
use crate::api::query::Query;
use crate::api::serve::Wire;
use crate::chart::Charts;
use crate::notify::Notifier;
use crate::telemetry::WS_CONNECTIONS;

use bars_feed::BarsFeed;
use hub::Hub;
use inbox_feed::InboxFeed;
use protocol::MESSAGE_BYTES_MAX;
use system_feed::SystemFeed;

/// What is read ahead of a client, and gathered before it is written.
const BUFFER_BYTES: usize = 8 << 10;

/// The paths.
pub fn routes() -> OpenApiRouter<Arc<Live>> {
    OpenApiRouter::new().routes(routes!(open))
}

/// What is told over WebSockets, and to whom.
pub struct Sources {
    /// Decisions and books.
    pub hub: Arc<Hub>,
    /// What there was before.
    pub books: Arc<Books>,
    /// The system.
    pub system: Arc<System>,
    /// Notifications.
    pub notifier: Arc<Notifier>,
    /// Charts, if they are on.
    pub charts: Option<Arc<Charts>>,
    /// Who is let in.
    pub door: Door,
    /// How many at once.
    pub limits: watch::Receiver<Arc<Limits>>,
    /// Ends all of them.
    pub stop: watch::Receiver<bool>,
}

/// All WebSockets of the process.
pub struct Live {
    of: Sources,
    bars: Option<Arc<BarsFeed>>,
    inbox: Arc<InboxFeed>,
    system: Arc<SystemFeed>,
    open: watch::Sender<usize>,
    numbers: AtomicU64,
}

/// A place among the open ones, given back when it is dropped.
pub struct Slot {
    number: u64,
    open: watch::Sender<usize>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.open.send_modify(|open| *open = open.saturating_sub(1));
        gauge!(WS_CONNECTIONS).decrement(1.0);
    }
}

impl Live {
    /// None is open yet.
    #[must_use]
    pub fn new(of: Sources) -> Arc<Self> {
        let bars = of.charts.clone().map(|charts| Arc::new(BarsFeed::new(charts)));
        let inbox = Arc::new(InboxFeed::new(of.notifier.clone()));
        let system = Arc::new(SystemFeed::new(of.system.clone(), of.hub.clone()));
        Arc::new(Self { of, bars, inbox, system, open: watch::channel(0).0, numbers: AtomicU64::new(1) })
    }

    /// Starts what feeds them. It ends when the daemon stops.
    pub fn start(&self, runtime: &Handle) {
        let stop = || self.of.stop.clone();
        runtime.spawn(books_feed::run(self.of.hub.clone(), self.of.books.replicas.clone(), stop()));
        runtime.spawn(self.system.clone().run(stop()));
        if let Some(bars) = &self.bars {
            runtime.spawn(bars.clone().run(stop()));
        }
        runtime.spawn(self.inbox.clone().run(stop()));
    }

    /// Waits until all have ended, for so long.
    pub async fn ended(&self, patience: Duration) {
        let mut open = self.open.subscribe();
        // An error would say that nobody can open one any more.
        let ended = timeout(patience, async { drop(open.wait_for(|open| *open == 0).await) });
        if ended.await.is_err() {
            tracing::warn!(open = *self.open.borrow(), "WebSockets did not end in time and are cut off");
        }
    }

    fn slot(&self) -> Option<Slot> {
        let most = self.of.limits.borrow().connections_max;
        let mut is_free = false;
        self.open.send_if_modified(|open| {
            is_free = *open < most;
            *open += usize::from(is_free);
            is_free
        });
        if !is_free {
            return None;
        }
        gauge!(WS_CONNECTIONS).increment(1.0);
        Some(Slot { number: self.numbers.fetch_add(1, Ordering::Relaxed), open: self.open.clone() })
    }
}

/// Opens a WebSocket: subscribe to decisions, notifications, books, bars, the system.
#[utoipa::path(get, path = "/ws", tag = "live", security((), ("ticket" = [])), params(
    ("ticket" = Option<String>, Query, description = "From `POST /auth/ws-ticket`, good once; not needed where no users exist"),
), responses((status = 101, description = "It speaks as docs/WEBSOCKET.md says")))]
async fn open(
    State(live): State<Arc<Live>>,
    Extension(Address(address)): Extension<Address>,
    wire: Option<Extension<Wire>>,
    uri: Uri,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    let query = Query::read(uri.query(), &["ticket"])?;
    let (ticket, door) = (query.text("ticket"), &live.of.door);
    if ticket.is_none() && !door.is_open() {
        return Err(Problem::new(ApiCode::Unauthenticated, "bring a ticket of POST /auth/ws-ticket: /ws?ticket=.."));
    }
    // A ticket that cannot be used is not used up.
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(_) => {
            let mut refused = Problem::new(ApiCode::UpgradeRequired, "ask for a WebSocket (RFC 6455)").into_response();
            refused.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            return Ok(refused);
        }
    };
    let slot = live.slot().ok_or_else(|| Problem::new(ApiCode::TooBusy, "as many WebSockets as may be are open"))?;
    let caller = match ticket {
        Some(ticket) => door.by_ticket(ticket, address)?,
        None => Caller::open(address),
    };
    let upgrade = upgrade.read_buffer_size(BUFFER_BYTES).write_buffer_size(BUFFER_BYTES);
    if let Some(Extension(wire)) = wire {
        wire.upgraded();
    }
    let upgrade = upgrade.max_message_size(MESSAGE_BYTES_MAX).max_frame_size(MESSAGE_BYTES_MAX);
    Ok(upgrade.on_upgrade(move |socket| session::run(socket, live, caller, slot)))
}
