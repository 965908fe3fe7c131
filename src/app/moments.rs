//! When things last happened: what the shard's thread notes and a scrape reads.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Moments of a shard's life, in ms since it was started.
#[derive(Debug)]
pub struct Moments {
    began: Instant,
    snapshot_ms: AtomicU64,
    claim_ms: AtomicU64,
}

impl Moments {
    /// Nothing happened yet.
    #[must_use]
    pub fn new() -> Self {
        Self { began: Instant::now(), snapshot_ms: AtomicU64::new(0), claim_ms: AtomicU64::new(0) }
    }

    /// How long it has been there, in seconds.
    #[must_use]
    pub fn uptime_seconds(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    /// A snapshot was taken.
    pub fn snapshot(&self) {
        self.snapshot_ms.store(self.now_ms(), Ordering::Relaxed);
    }

    /// The shard was claimed.
    pub fn claimed(&self) {
        self.claim_ms.store(self.now_ms(), Ordering::Relaxed);
    }

    /// The time since the claim.
    #[must_use]
    pub fn recovery_seconds(&self) -> f64 {
        self.now_ms().saturating_sub(self.claim_ms.load(Ordering::Relaxed)) as f64 / 1e3
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The time since the last snapshot, or since the start.
    #[must_use]
    pub fn snapshot_age_seconds(&self) -> f64 {
        self.uptime_seconds() - self.snapshot_ms.load(Ordering::Relaxed) as f64 / 1e3
    }
}
