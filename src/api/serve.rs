//! The listener: HTTP/1.1 on loopback with every resource of a connection bounded.
//!
//! Invariant: a client that sends slowly, reads slowly, sends too many headers or opens too many
//! connections costs a bounded amount of memory for a bounded time. Deliberately absent: TLS and
//! HTTP/2; nothing but this machine may connect.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use metrics::gauge;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep, sleep};
use tower::ServiceExt;

use super::limits::Limits;
use crate::telemetry::HTTP_CONNECTIONS;

/// Serves `router` until `stop` says so, then lets the requests under way end.
pub async fn serve(listener: TcpListener, router: Router, limits: watch::Receiver<Arc<Limits>>, mut stop: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
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
            Ok(stream) => {
                let limits = limits.borrow().clone();
                connections.spawn(connection(stream, router.clone(), limits, stop.clone()));
            }
            Err(error) => {
                // Out of file descriptors, most likely: nothing to do but to let some connections end.
                tracing::warn!(%error, "cannot accept a connection");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    let drained = async { while connections.join_next().await.is_some() {} };
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

async fn accept(listener: &TcpListener) -> io::Result<TcpStream> {
    let (stream, _) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn connection(stream: TcpStream, router: Router, limits: Arc<Limits>, mut stop: watch::Receiver<bool>) {
    let service = TowerToHyperService::new(router.map_request(|request: Request<Incoming>| request.map(axum::body::Body::new)));
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits.read_timeout)
        .max_headers(limits.headers_max)
        .max_buf_size(limits.header_bytes_max);
    let connection = builder.serve_connection(Impatient::new(stream, limits.read_timeout), service);
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

/// A stream that fails when the other side does not read for a while.
struct Impatient {
    io: TokioIo<TcpStream>,
    patience: Duration,
    deadline: Option<Pin<Box<Sleep>>>,
}

impl Impatient {
    fn new(stream: TcpStream, patience: Duration) -> Self {
        Self { io: TokioIo::new(stream), patience, deadline: None }
    }

    /// Passes `written` on, unless it has been pending for too long.
    fn within<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.deadline = None;
            return written;
        }
        let patience = self.patience;
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + patience)));
        ready!(deadline.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl Read for Impatient {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl Write for Impatient {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, buf);
        self.within(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        self.within(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.within(cx, written)
    }
}
