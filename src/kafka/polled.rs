//! A producer that a thread of its own serves.
//!
//! Invariant: reports, errors and tokens are served as they come, until the last owner lets go. Why not the client library's own: its
//! thread polls for 100 ms at a time, and the last millisecond of each poll it runs in a circle; a gate has dozens of producers.
//! Deliberately absent: a flush at the end; whoever wants one asks for it.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rdkafka::producer::BaseProducer;

use super::KafkaOptions;
use super::client::{Context, Receiver};
use super::error::{KafkaFailure, not_created};
use super::settings::{Role, client_config};

/// How long one poll takes when nothing happens, and so how long a producer is served after its end.
const POLL: Duration = Duration::from_secs(1);

/// A producer, and what tells its thread to end.
pub(super) struct Polled<R: Receiver> {
    producer: Arc<BaseProducer<Context<R>>>,
    ended: Arc<AtomicBool>,
}

impl<R: Receiver> Polled<R> {
    /// A producer for this.
    ///
    /// # Errors
    /// The settings are refused, or there is no thread.
    pub(super) fn new(options: &KafkaOptions, role: Role, context: Context<R>) -> Result<Self, KafkaFailure> {
        let made = client_config(options, role)?.create_with_context(context);
        let producer: Arc<BaseProducer<Context<R>>> = Arc::new(made.map_err(|error| not_created(&error))?);
        let ended = Arc::new(AtomicBool::new(false));
        let (served, is_over) = (producer.clone(), ended.clone());
        let serve = move || {
            while !is_over.load(Ordering::Acquire) {
                served.poll(POLL);
            }
        };
        let spawned = thread::Builder::new().name("kafka-producer".into()).spawn(serve);
        spawned.map_err(|error| KafkaFailure::Thread { detail: error.to_string() })?;
        Ok(Self { producer, ended })
    }
}

impl<R: Receiver> Deref for Polled<R> {
    type Target = BaseProducer<Context<R>>;

    fn deref(&self) -> &Self::Target {
        &self.producer
    }
}

impl<R: Receiver> Drop for Polled<R> {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
    }
}
