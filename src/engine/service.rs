//! A shard on a thread of its own.

use std::io;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::log::ShardLog;

use super::clock::{Clock, SystemClock};
use super::handle::Handle;
use super::observer::Observer;
use super::options::Options;
use super::shard::Shard;
use super::snapshots::SnapshotStore;

/// How long a shard waits for something to happen before it looks around.
const WAIT: Duration = Duration::from_millis(20);

/// A running shard.
pub struct Service {
    /// What the outside asks and learns.
    pub handle: Handle,
    thread: JoinHandle<()>,
}

impl Service {
    /// Asks the shard to stop and waits until it has. False when its thread panicked.
    #[must_use]
    pub fn stop(self) -> bool {
        self.handle.stop();
        self.thread.join().is_ok()
    }

    /// Whether the thread has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }
}

/// Starts a shard on a thread of its own, with the machine's clock.
///
/// # Errors
/// The thread cannot be started.
pub fn spawn<L: ShardLog + Send + 'static>(
    log: L,
    store: Box<dyn SnapshotStore>,
    observer: Box<dyn Observer>,
    options: Options,
) -> io::Result<Service> {
    let clock: Box<dyn Clock> = Box::new(SystemClock::new());
    let name = format!("shard-{}", log.layout().shard);
    let (mut shard, handle) = Shard::new(log, clock, store, observer, options);
    let thread = thread::Builder::new().name(name).spawn(move || while shard.step(WAIT) {})?;
    Ok(Service { handle, thread })
}
