//! What waits to be written to one client.
//!
//! Invariant: it holds a bounded number of messages and bytes. Who adds to it never waits; what does not fit ends the connection, and
//! from then on nothing is kept for it. Deliberately absent: dropping some of the messages and going on.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use axum::extract::ws::Utf8Bytes;
use tokio::sync::Notify;

use super::protocol::Close;

/// Messages that may wait.
pub const MESSAGES_MAX: usize = 4_096;
/// Bytes that may wait; one message may be longer than that.
pub const BYTES_MAX: usize = 4 << 20;
/// What is written at once.
const BATCH_MESSAGES: usize = 64;
const BATCH_BYTES: usize = 64 << 10;

/// A message, and since when it waits.
#[derive(Clone, Debug)]
pub struct Waiting {
    /// The message.
    pub message: Utf8Bytes,
    /// Since when.
    pub since: Instant,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    bytes: usize,
    cut: Option<Close>,
}

/// The queue of one client. One task reads it.
#[derive(Debug, Default)]
pub struct Outbox {
    queue: Mutex<Queue>,
    wake: Notify,
}

impl Outbox {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a message. Without room for it the client is cut off.
    pub fn push(&self, message: Utf8Bytes) {
        let mut queue = self.queue();
        if queue.cut.is_some() {
            return;
        }
        let is_full = queue.waiting.len() >= MESSAGES_MAX || queue.bytes + message.len() > BYTES_MAX;
        if is_full && !queue.waiting.is_empty() {
            *queue = Queue { cut: Some(Close::Slow), ..Queue::default() };
        } else {
            queue.bytes += message.len();
            queue.waiting.push_back(Waiting { message, since: Instant::now() });
        }
        drop(queue);
        self.wake.notify_one();
    }

    /// Whether so little waits that a client may ask for more.
    #[must_use]
    pub fn has_room(&self) -> bool {
        let queue = self.queue();
        queue.waiting.len() < MESSAGES_MAX / 4 && queue.bytes < BYTES_MAX / 4
    }

    /// What is to be written next, when there is something.
    ///
    /// # Errors
    /// The client is cut off.
    pub async fn next(&self) -> Result<Vec<Waiting>, Close> {
        loop {
            if let Some(batch) = self.take() {
                return batch;
            }
            self.wake.notified().await;
        }
    }

    fn take(&self) -> Option<Result<Vec<Waiting>, Close>> {
        let mut queue = self.queue();
        if let Some(close) = queue.cut {
            return Some(Err(close));
        }
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while batch.len() < BATCH_MESSAGES && bytes < BATCH_BYTES {
            let Some(waiting) = queue.waiting.pop_front() else { break };
            bytes += waiting.message.len();
            batch.push(waiting);
        }
        queue.bytes -= bytes;
        (!batch.is_empty()).then_some(Ok(batch))
    }

    /// Comes back when the client is cut off.
    pub async fn cut_off(&self) -> Close {
        loop {
            if let Some(close) = self.queue().cut {
                return close;
            }
            // A permit that is used up here is not missed: whoever reads looks before it waits.
            self.wake.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: usize) -> Utf8Bytes {
        "x".repeat(bytes).into()
    }

    fn now<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
    }

    #[test]
    fn gives_what_was_added_in_order_a_batch_at_a_time() {
        let outbox = Outbox::default();
        for n in 0..100 {
            outbox.push(n.to_string().into());
        }
        let mut seen = Vec::new();
        while seen.len() < 100 {
            let batch = now(outbox.next()).unwrap();
            assert!(batch.len() <= BATCH_MESSAGES);
            seen.extend(batch.into_iter().map(|waiting| waiting.message.as_str().parse::<u32>().unwrap()));
        }
        assert_eq!(seen, (0..100).collect::<Vec<_>>());
        assert!(outbox.take().is_none());
    }

    #[test]
    fn one_message_too_many_cuts_off_and_frees_what_waited() {
        let outbox = Outbox::default();
        for _ in 0..MESSAGES_MAX {
            outbox.push(text(1));
        }
        assert!(outbox.queue().cut.is_none());
        assert!(!outbox.has_room());
        outbox.push(text(1));
        assert_eq!(now(outbox.next()).unwrap_err(), Close::Slow);
        assert_eq!(now(outbox.cut_off()), Close::Slow);
        outbox.push(text(1));
        let queue = outbox.queue();
        assert_eq!((queue.waiting.len(), queue.bytes), (0, 0));
    }

    #[test]
    fn bytes_are_bounded_and_a_long_message_passes_alone() {
        let outbox = Outbox::default();
        outbox.push(text(2 * BYTES_MAX));
        assert!(outbox.queue().cut.is_none());
        outbox.push(text(1));
        assert_eq!(now(outbox.next()).unwrap_err(), Close::Slow);
        let outbox = Outbox::default();
        outbox.push(text(BYTES_MAX - 1));
        outbox.push(text(1));
        assert!(outbox.queue().cut.is_none());
        outbox.push(text(1));
        assert!(outbox.queue().cut.is_some());
    }

    #[test]
    fn who_waits_for_a_message_is_woken_by_it_and_by_the_cut() {
        now(async {
            let outbox = std::sync::Arc::new(Outbox::default());
            let reader = tokio::spawn({
                let outbox = outbox.clone();
                async move { outbox.next().await.map(|batch| batch.len()) }
            });
            tokio::task::yield_now().await;
            outbox.push(text(1));
            assert_eq!(reader.await.unwrap(), Ok(1));
            let watcher = tokio::spawn({
                let outbox = outbox.clone();
                async move { outbox.cut_off().await }
            });
            tokio::task::yield_now().await;
            (0..=MESSAGES_MAX).for_each(|_| outbox.push(text(1)));
            assert_eq!(watcher.await.unwrap(), Close::Slow);
        });
    }
}
