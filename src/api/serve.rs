//! The listener: HTTP/1.1, plain or over TLS, with every resource of a connection bounded.
//!
//! Invariant: a client that sends slowly, reads slowly, shakes hands slowly, sends too many headers or opens too many
//! connections costs a bounded amount of memory for a bounded time. Deliberately absent: HTTP/2.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use futures_util::FutureExt;
use futures_util::future::Either;
use hyper::body::Incoming;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics::gauge;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep, sleep};
use tower::ServiceExt;

use super::caller::Peer;
use super::limits::Limits;
use super::tls::Tls;
use super::to_the_end;
use crate::telemetry::HTTP_CONNECTIONS;

/// Where a listener is, and how it is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listening {
    /// Its address.
    pub address: SocketAddr,
    /// Whether it speaks TLS.
    pub tls: bool,
    /// Whether a proxy of ours stands before it.
    pub proxied: bool,
}

impl Listening {
    /// A plain listener for this machine.
    #[must_use]
    pub fn plain(address: SocketAddr) -> Self {
        Self { address, tls: false, proxied: false }
    }
}

/// Kept by what goes on though its connection may end.
#[derive(Clone, Debug)]
pub(super) struct Running {
    _alive: mpsc::Sender<()>,
}

/// Serves `router` until `stop` says so, then lets the requests under way end.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    tls: Option<Arc<Tls>>,
    limits: watch::Receiver<Arc<Limits>>,
    mut stop: watch::Receiver<bool>,
) {
    let mut connections = JoinSet::new();
    let (alive, mut all_over) = mpsc::channel(1);
    let running = Running { _alive: alive };
    let name = listener.local_addr().map(|at| at.port().to_string()).unwrap_or_default();
    loop {
        gauge!(HTTP_CONNECTIONS, "listener" => name.clone()).set(connections.len() as f64);
        let accepted = tokio::select! {
            biased;
            () = stopped(&mut stop) => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = accept(&listener), if connections.len() < limits.borrow().connections_max => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let (limits, router, stop) = (limits.borrow().clone(), router.clone(), stop.clone());
                let of = (peer, running.clone());
                match &tls {
                    None => connections.spawn(connection(stream, of, router, limits, stop)),
                    Some(tls) => connections.spawn(secured(stream, of, tls.clone(), router, limits, stop)),
                };
            }
            Err(error) => {
                // Out of file descriptors, most likely: nothing to do but to let some connections end.
                tracing::warn!(%error, "cannot accept a connection");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop((listener, running));
    let drained = async {
        while connections.join_next().await.is_some() {}
        // And what was asked for by those who went away: nobody ever sends, the last one to end is the end.
        let _ = all_over.recv().await;
    };
    let drain_timeout = limits.borrow().drain_timeout;
    if tokio::time::timeout(drain_timeout, drained).await.is_err() {
        tracing::warn!("connections did not end in time and are cut off");
    }
}

/// Comes back when the daemon stops.
pub async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error says that whoever could stop us is gone, which is a stop too.
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn accept(listener: &TcpListener) -> io::Result<(TcpStream, IpAddr)> {
    let (stream, peer) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, peer.ip().to_canonical()))
}

/// A connection over TLS. Who does not shake hands in time is cut off.
async fn secured(
    stream: TcpStream,
    of: (IpAddr, Running),
    tls: Arc<Tls>,
    router: Router,
    limits: Arc<Limits>,
    stop: watch::Receiver<bool>,
) {
    match tokio::time::timeout(limits.read_timeout, tls.acceptor().accept(stream)).await {
        Ok(Ok(stream)) => connection(stream, of, router, limits, stop).await,
        Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
        Err(_) => tracing::debug!("a TLS handshake took too long"),
    }
}

async fn connection<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    (peer, running): (IpAddr, Running),
    router: Router,
    limits: Arc<Limits>,
    mut stop: watch::Receiver<bool>,
) {
    let wire = Wire::default();
    let (of_requests, bounds) = (wire.clone(), limits.clone());
    let service = service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(Peer(peer));
        request.extensions_mut().insert(of_requests.clone());
        request.extensions_mut().insert(bounds.clone());
        let is_safe = request.method().is_safe();
        let answer = router.clone().oneshot(request);
        // What writes runs from here on: the connection asks for the answer only while its client is there.
        if is_safe { Either::Left(answer) } else { Either::Right(to_the_end::run(answer, running.clone()).map(Ok)) }
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits.read_timeout)
        .max_headers(limits.headers_max)
        .max_buf_size(limits.header_bytes_max);
    let connection = builder.serve_connection(Impatient::new(stream, limits.read_timeout, wire), service).with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopped(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// What those who answer know of their connection, each request finds it: how it is to end.
#[derive(Clone, Debug, Default)]
pub(super) struct Wire(Arc<Ends>);

#[derive(Debug, Default)]
struct Ends {
    /// Somebody else sees to it that the other side reads.
    is_upgraded: AtomicBool,
    /// The other side may still be sending what nobody wants.
    is_talking: AtomicBool,
}

impl Wire {
    /// From now on somebody else sees to it that the other side reads.
    pub fn upgraded(&self) {
        self.0.is_upgraded.store(true, Ordering::Relaxed);
    }

    /// The other side may still be sending: the connection is not closed under it before it could read the answer.
    pub fn still_talking(&self) {
        self.0.is_talking.store(true, Ordering::Relaxed);
    }
}

/// What is still sent after the answer is thrown away, so long and so much of it: a connection that is closed with something unread in it
/// takes the answer away from whoever has not read it yet.
const LINGER: Duration = Duration::from_secs(3);
const LINGER_BYTES_MAX: usize = 64 << 20;
const LINGER_BUFFER_BYTES: usize = 16 << 10;

/// A stream that fails when the other side does not read for a while, and hears out at the end who is still talking.
struct Impatient<S> {
    io: TokioIo<S>,
    patience: Duration,
    deadline: Option<Pin<Box<Sleep>>>,
    wire: Wire,
    lingers: Option<(Pin<Box<Sleep>>, usize)>,
}

impl<S> Impatient<S> {
    fn new(stream: S, patience: Duration, wire: Wire) -> Self {
        Self { io: TokioIo::new(stream), patience, deadline: None, wire, lingers: None }
    }

    /// Passes `written` on, unless it has been pending for too long.
    fn within<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() || self.wire.0.is_upgraded.load(Ordering::Relaxed) {
            self.deadline = None;
            return written;
        }
        let patience = self.patience;
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + patience)));
        ready!(deadline.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> Read for Impatient<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + Unpin> Impatient<S> {
    /// Reads what is still sent, for a while.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (until, seen) = self.lingers.get_or_insert_with(|| (Box::pin(sleep(LINGER)), 0));
        let mut buffer = [0; LINGER_BUFFER_BYTES];
        while *seen < LINGER_BYTES_MAX && until.as_mut().poll(cx).is_pending() {
            let mut read = ReadBuf::new(&mut buffer);
            match ready!(Pin::new(self.io.inner_mut()).poll_read(cx, &mut read)) {
                Ok(()) if !read.filled().is_empty() => *seen += read.filled().len(),
                Ok(()) | Err(_) => break,
            }
        }
        Poll::Ready(())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Write for Impatient<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, buf);
        self.within(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        self.within(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.lingers.is_none() {
            ready!(Pin::new(&mut self.io).poll_shutdown(cx))?;
        }
        if self.wire.0.is_talking.load(Ordering::Relaxed) {
            ready!(self.poll_linger(cx));
        }
        Poll::Ready(Ok(()))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.within(cx, written)
    }
}
