//! What connections, requests and bodies may cost.
//!
//! Invariant: every one of them has a bound; the bounds can change while the daemon runs and hold
//! for what comes after the change.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::http::Extensions;

/// All bounds of the HTTP face.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once; further ones wait in the listen queue.
    pub connections_max: usize,
    /// Headers of a request.
    pub headers_max: usize,
    /// Bytes of a request's head, at least 8192.
    pub header_bytes_max: usize,
    /// How long a head or a body may take to arrive, how long an answer may wait to be read, and how
    /// long an idle connection is kept.
    pub read_timeout: Duration,
    /// How long a write to the log may take.
    pub request_timeout: Duration,
    /// How long requests under way may take to end when the daemon stops.
    pub drain_timeout: Duration,
    /// Bytes of a body.
    pub body_bytes_max: usize,
    /// Bytes of all bodies that are being read or written to the log.
    pub bodies_bytes_max: usize,
    /// Bytes of a line of a batch.
    pub line_bytes_max: usize,
    /// Lines of a batch.
    pub lines_max: usize,
    /// How long an intent waits for its decision unless it says otherwise.
    pub decision_timeout_ms: u64,
    /// The longest wait that an intent may ask for.
    pub decision_timeout_ms_max: u64,
    /// Streams that follow a topic at once.
    pub streams_max: usize,
    /// Records of one answer that does not follow.
    pub read_max: usize,
    /// How long a frame may wait for its acknowledgement before the daemon says that it is not ready.
    pub commit_stall: Duration,
    /// Names that a `Host` may have beside the loopback ones.
    pub allowed_hosts: Vec<String>,
    /// Origins whose pages may ask.
    pub cors_origins: Vec<String>,
}

impl Limits {
    /// Those of the connection that a request came over.
    #[must_use]
    pub fn of(request: &Extensions) -> Self {
        request.get::<Arc<Self>>().map_or_else(Self::default, |limits| Self::clone(limits))
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 1_024,
            headers_max: 64,
            header_bytes_max: 16 * 1024,
            read_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(60),
            drain_timeout: Duration::from_secs(10),
            body_bytes_max: 16 << 20,
            bodies_bytes_max: 256 << 20,
            // A value may have 64 KiB, and JSON in a string up to six bytes for one.
            line_bytes_max: 512 << 10,
            lines_max: 10_000,
            decision_timeout_ms: 2_000,
            decision_timeout_ms_max: 30_000,
            streams_max: 64,
            read_max: 10_000,
            commit_stall: Duration::from_secs(5),
            allowed_hosts: Vec::new(),
            cors_origins: Vec::new(),
        }
    }
}

/// A count of what is in use.
#[derive(Clone, Debug, Default)]
pub struct Gauge(Arc<AtomicUsize>);

/// A share of a [`Gauge`], given back when it is dropped.
#[derive(Debug)]
pub struct Share {
    gauge: Gauge,
    amount: usize,
}

impl Gauge {
    /// An empty share.
    #[must_use]
    pub fn share(&self) -> Share {
        Share { gauge: self.clone(), amount: 0 }
    }
}

impl Share {
    /// Takes more, unless all shares together would then exceed `most`.
    pub fn grow(&mut self, amount: usize, most: usize) -> bool {
        let within = |used: usize| used.checked_add(amount).filter(|used| *used <= most);
        let grown = self.gauge.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, within).is_ok();
        if grown {
            self.amount += amount;
        }
        grown
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.gauge.0.fetch_sub(self.amount, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_together_stay_within_the_most_and_come_back() {
        let gauge = Gauge::default();
        let (mut one, mut other) = (gauge.share(), gauge.share());
        assert!(one.grow(6, 10));
        assert!(!other.grow(5, 10));
        assert!(other.grow(4, 10));
        drop(one);
        assert!(other.grow(6, 10));
        assert!(!other.grow(1, 10));
    }
}
