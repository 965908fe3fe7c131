//! The daemon's runtime: workers that serve requests, and threads beside them that give way.
//!
//! Invariant: whatever computes or reads for long on behalf of a question (passwords, searches, portfolio risk, scrapes) runs by
//! `spawn_blocking`, on threads that leave a core to those that take orders and decide whenever they want one. Deliberately absent:
//! higher priorities for the others; that would need a privilege.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};

/// Threads that serve requests.
const WORKERS: usize = 2;
/// They begin at once, or there is no machine to run on.
const START_PATIENCE: Duration = Duration::from_secs(5);
/// How much the others give way: at 10 a thread gets a tenth of what one that does not gets, where both want the same core.
#[cfg(target_os = "linux")]
const GIVES_WAY: i32 = 10;

/// Starts it.
///
/// # Errors
/// There are no threads to be had.
pub fn start() -> io::Result<Runtime> {
    let started = Arc::new(AtomicUsize::new(0));
    let counted = started.clone();
    let begin = move || {
        if counted.fetch_add(1, Ordering::AcqRel) >= WORKERS {
            give_way();
        }
    };
    let runtime = Builder::new_multi_thread().worker_threads(WORKERS).thread_name("http").on_thread_start(begin).enable_all().build()?;
    // Its workers are the first that begin, as long as nobody asks it for another thread before they have.
    let until = Instant::now() + START_PATIENCE;
    while started.load(Ordering::Acquire) < WORKERS && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(runtime)
}

/// Of this thread alone, which only Linux knows; what does not come about costs speed and nothing else.
fn give_way() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::nice(GIVES_WAY) {
        tracing::debug!(%error, "a thread does not give way");
    }
}

#[cfg(all(test, target_os = "linux"))]
#[expect(clippy::expect_used, reason = "a test ends at what it did not expect")]
mod tests {
    use super::*;

    fn niceness() -> i32 {
        rustix::process::getpriority_process(None).expect("a process has a priority")
    }

    #[test]
    fn what_takes_long_gives_way_to_what_serves() {
        let (own, runtime) = (niceness(), start().expect("threads"));
        let given = runtime.block_on(async {
            let mut given = Vec::new();
            for _ in 0..8 {
                let serving = tokio::spawn(async { niceness() });
                let (serving, beside) = tokio::join!(serving, tokio::task::spawn_blocking(niceness));
                given.push((serving.expect("an answer"), beside.expect("an answer")));
            }
            given
        });
        assert!(given.iter().all(|pair| *pair == (own, (own + GIVES_WAY).min(19))), "{given:?}");
        assert_eq!(niceness(), own);
    }
}
