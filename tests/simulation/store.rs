//! Snapshots on a simulated disk, which outlives its instance and is not always right.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use ordergate::engine::{Loaded, Offer, SnapshotStore};

/// What is wrong with the disk at the next load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DiskFault {
    #[default]
    None,
    /// Everything is gone, or was damaged and moved aside.
    Lost,
    /// The newest is gone.
    Stale,
    /// The newest is not of this ledger, and its checksums do not tell.
    Foreign,
}

#[derive(Default)]
pub struct Disk {
    generations: Vec<Kept>,
    pub fault: DiskFault,
    /// What is written fails.
    pub full: bool,
    /// The last write takes its time.
    pub busy: bool,
    failed: bool,
}

struct Kept {
    loaded: Loaded,
    foreign: bool,
}

#[derive(Clone, Default)]
pub struct SimStore(pub Arc<Mutex<Disk>>);

impl SimStore {
    /// The snapshots as they were taken.
    pub fn honest(&self) -> Vec<Loaded> {
        self.0.lock().unwrap().generations.iter().filter(|kept| !kept.foreign).map(|kept| kept.loaded.clone()).collect()
    }
}

impl SnapshotStore for SimStore {
    fn load(&mut self) -> Option<Loaded> {
        let mut disk = self.0.lock().unwrap();
        match std::mem::take(&mut disk.fault) {
            DiskFault::None => {}
            DiskFault::Lost => disk.generations.clear(),
            DiskFault::Stale => drop(disk.generations.pop()),
            DiskFault::Foreign => {
                if let Some(newest) = disk.generations.last_mut() {
                    // As taken in another ledger: another history led to the same place.
                    newest.foreign = true;
                    newest.loaded.standing.head[0] = newest.loaded.standing.head[0].wrapping_add(1);
                    newest.loaded.standing.inputs.iter_mut().for_each(|mark| mark.next += 1);
                }
            }
        }
        disk.generations.last().map(|kept| kept.loaded.clone())
    }

    fn reject(&mut self, _why: &str) -> Option<Loaded> {
        let mut disk = self.0.lock().unwrap();
        disk.generations.pop();
        disk.generations.last().map(|kept| kept.loaded.clone())
    }

    fn ready(&self) -> bool {
        !self.0.lock().unwrap().busy
    }

    fn wants_whole(&self) -> bool {
        let disk = self.0.lock().unwrap();
        disk.failed || disk.generations.is_empty()
    }

    fn offer(&mut self, offer: Offer) {
        let mut disk = self.0.lock().unwrap();
        disk.failed = disk.full;
        if disk.full {
            return;
        }
        let mut accounts =
            if offer.whole { Vec::new() } else { disk.generations.last().map(|last| last.loaded.accounts.clone()).unwrap_or_default() };
        for (place, account) in offer.touched {
            let place = place as usize;
            if place < accounts.len() { accounts[place] = account } else { accounts.push(account) }
        }
        assert_eq!(accounts.len(), offer.accounts, "an incremental snapshot lacks accounts");
        let loaded = Loaded { standing: offer.standing, shared: offer.shared, accounts };
        disk.generations.push(Kept { loaded, foreign: false });
        if disk.generations.len() > 2 {
            disk.generations.remove(0);
        }
    }

    fn finish(&mut self, _wait: Duration) -> bool {
        true
    }
}
