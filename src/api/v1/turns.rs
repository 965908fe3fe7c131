//! Turns at what takes a core for a while: portfolio risk, dry runs, sizes, lists of rules with how full they are.
//!
//! Invariant: no more of them are computed at once than there are turns, so that people's questions leave cores to the orders; who waits
//! longer than he would like to is told to come again. Deliberately absent: who asks. How often one may is another bound (`rate.rs`).

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::api::problem::{ApiCode, Problem};

/// How long a question waits for its turn.
const PATIENCE: Duration = Duration::from_secs(2);
const MOST: usize = 8;

/// The turns.
#[derive(Clone)]
pub struct Turns {
    free: Arc<Semaphore>,
    patience: Duration,
}

/// A turn: keep it until the answer is computed, also when nobody waits for that any more.
pub struct Turn {
    _permit: OwnedSemaphorePermit,
}

impl Turns {
    /// Half of the cores.
    #[must_use]
    pub fn of_this_machine() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self::new((cores / 2).clamp(1, MOST), PATIENCE)
    }

    fn new(count: usize, patience: Duration) -> Self {
        Self { free: Arc::new(Semaphore::new(count)), patience }
    }

    /// Waits for a turn.
    ///
    /// # Errors
    /// All are taken for too long.
    pub async fn take(&self) -> Result<Turn, Problem> {
        match tokio::time::timeout(self.patience, self.free.clone().acquire_owned()).await {
            Ok(Ok(permit)) => Ok(Turn { _permit: permit }),
            Ok(Err(_)) | Err(_) => Err(Problem::new(ApiCode::TooBusy, "too many such questions are asked at once; ask again")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_finds_all_turns_taken_waits_and_is_then_told_to_come_again() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let turns = Turns::new(2, Duration::from_millis(30));
            let (first, second) = (turns.take().await.ok().unwrap(), turns.take().await.ok().unwrap());
            assert_eq!(turns.take().await.err().unwrap().code(), ApiCode::TooBusy);
            let patient = Turns { patience: Duration::from_secs(20), ..turns.clone() };
            let waiting = patient.take();
            drop(first);
            assert!(waiting.await.is_ok());
            drop(second);
            assert!(turns.take().await.is_ok());
        });
    }
}
