//! When things last happened: what the shard's thread notes and a scrape reads.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Moments of a shard's life, in ms since the daemon began.
#[derive(Debug)]
pub struct Moments {
    began: Instant,
    snapshot_ms: AtomicU64,
}

impl Moments {
    /// Nothing happened yet.
    #[must_use]
    pub fn new() -> Self {
        Self { began: Instant::now(), snapshot_ms: AtomicU64::new(0) }
    }

    /// How long the daemon has been there, in seconds.
    #[must_use]
    pub fn uptime_seconds(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    /// A snapshot was taken.
    pub fn snapshot(&self) {
        let ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.snapshot_ms.store(ms, Ordering::Relaxed);
    }

    /// The time since the last snapshot, or since the start.
    #[must_use]
    pub fn snapshot_age_seconds(&self) -> f64 {
        self.uptime_seconds() - self.snapshot_ms.load(Ordering::Relaxed) as f64 / 1e3
    }
}
