//! The thread that owns the store: loads, writes, and moves aside what it doubts.
//!
//! Invariant: after any failure but a condition of the machine the folder is out of the way and the next snapshot is whole; a panic
//! of sled never leaves this thread. Deliberately absent: retries of the same write, and waiting on the shard.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::{Duration, Instant};

use metrics::{counter, histogram};
use tracing::{error, info, warn};

use super::aside::{guarded, move_aside};
use super::load;
use super::store::{Generation, Store, StoreError};
use super::write::Job;
use super::{Options, Shared};
use crate::engine::{Loaded, Offer, Standing};
use crate::telemetry::{SNAPSHOT_BYTES, SNAPSHOT_SECONDS, SNAPSHOTS, SNAPSHOTS_BROKEN};
use crate::wire::snapshot::{EncodeError, Stamp, VERSION, decode_account, decode_shared, encode_account, encode_shared};

/// The first pause after a failed write; it doubles with each further one.
const PAUSE: Duration = Duration::from_secs(10);
const PAUSE_DOUBLINGS_MAX: u32 = 6;

/// What the shard asks for.
pub(super) enum Request {
    Load(SyncSender<Option<Loaded>>),
    Reject(String, SyncSender<Option<Loaded>>),
    Write(Box<Offer>),
}

/// The thread's state.
pub(super) struct Writer {
    options: Options,
    dir: PathBuf,
    shared: Arc<Shared>,
    store: Option<Store>,
    failures: u32,
}

impl Writer {
    pub(super) fn new(options: Options, shared: Arc<Shared>) -> Self {
        let dir = options.dir.join(format!("shard-{}", options.shard));
        Self { options, dir, shared, store: None, failures: 0 }
    }

    /// Answers requests until there are no more.
    pub(super) fn serve(mut self, requests: &Receiver<Request>) {
        while let Ok(request) = requests.recv() {
            match request {
                Request::Load(answer) => drop(answer.send(self.load())),
                Request::Reject(why, answer) => drop(answer.send(self.reject(&why))),
                Request::Write(offer) => self.write(*offer),
            }
        }
        self.close();
    }

    /// The newest whole snapshot. Anything doubtful on the way moves the folder aside, when what is whole in it has been read.
    fn load(&mut self) -> Option<Loaded> {
        if let Err(doubt) = self.open() {
            self.give_up_on(&doubt);
            return None;
        }
        let store = self.store.as_mut()?;
        let mut doubt = store.take_doubt();
        let generations = store.generations().to_vec();
        let mut loaded = None;
        for generation in generations.iter().rev() {
            let (number, read) = (generation.manifest.number, guarded(|| self.read(generation)));
            match read {
                Ok(whole) => {
                    info!(snapshot = number, accounts = whole.accounts.len(), n = whole.standing.n, "snapshot loaded");
                    loaded = Some((whole, generation.version));
                    break;
                }
                Err(error) => {
                    warn!(snapshot = number, %error, "snapshot cannot be used");
                    doubt.get_or_insert(error);
                }
            }
        }
        match &doubt {
            Some(doubt) => self.give_up_on(doubt),
            None => self.shared.state().wants_whole = loaded.as_ref().is_none_or(|(_, version)| *version != VERSION),
        }
        loaded.map(|(whole, _)| whole)
    }

    /// The newest snapshot contradicts the ledger: the next older one, if any, is given, and the newest is forgotten.
    fn reject(&mut self, why: &str) -> Option<Loaded> {
        warn!(why, "a snapshot does not fit the ledger");
        let store = self.store.as_mut()?;
        if store.generations().len() > 1
            && let Ok(()) = guarded(|| store.drop_newest())
        {
            return self.load();
        }
        self.move_aside("it does not fit the ledger");
        None
    }

    fn read(&mut self, generation: &Generation) -> Result<Loaded, StoreError> {
        let Some(store) = &mut self.store else { return Err(StoreError::Ended) };
        let Generation { version, stamp, manifest } = generation;
        let blob_error = |error| StoreError::Blob { what: format!("snapshot {}", manifest.number), error };
        let (shared_version, shared) = store.shared(manifest)?;
        let shared = decode_shared(shared_version, &shared).map_err(blob_error)?;
        let standing = Standing::of_bytes(*version, &manifest.standing).map_err(blob_error)?;
        if (standing.n, standing.head) != (stamp.frame, stamp.head) {
            return Err(StoreError::Missing { what: format!("standing of snapshot {}", manifest.number) });
        }
        let accounts = load::accounts(store, manifest, decode_account)?;
        store.hashes = Some(accounts.hashes);
        Ok(Loaded { standing, shared, accounts: accounts.accounts })
    }

    fn write(&mut self, offer: Offer) {
        let (begun, whole, seq) = (Instant::now(), offer.whole, offer.standing.seq);
        let result = self.job(offer).and_then(|job| self.store_job(&job));
        let mut failed = true;
        match result {
            Ok(bytes) => {
                (failed, self.failures) = (false, 0);
                counter!(SNAPSHOTS, "result" => "written").increment(1);
                counter!(SNAPSHOT_BYTES).increment(bytes);
                histogram!(SNAPSHOT_SECONDS).record(begun.elapsed());
                info!(seq, whole, bytes, ms = begun.elapsed().as_millis(), "snapshot written");
            }
            Err(doubt) => {
                counter!(SNAPSHOTS, "result" => "failed").increment(1);
                self.failures += 1;
                self.give_up_on(&doubt);
            }
        }
        let mut state = self.shared.state();
        (state.busy, state.failed, state.wants_whole) = (false, failed, failed);
        let pause = PAUSE * 2_u32.pow(self.failures.saturating_sub(1).min(PAUSE_DOUBLINGS_MAX));
        state.not_before = failed.then(|| Instant::now() + pause);
        drop(state);
        self.shared.idle.notify_all();
    }

    fn job(&self, offer: Offer) -> Result<Job, StoreError> {
        let too_many = |_| StoreError::Encode(EncodeError::TooLong { bytes: offer.accounts });
        let mut touched = BTreeMap::new();
        // Each account is dropped once it is encoded, so that a whole state is not held twice.
        for (place, account) in offer.touched {
            let mut bytes = Vec::new();
            encode_account(&account, &mut bytes)?;
            touched.insert(place, bytes);
        }
        Ok(Job {
            stamp: Stamp { shard: self.options.shard, frame: offer.standing.n, head: offer.standing.head },
            standing: offer.standing.to_bytes()?,
            shared: encode_shared(&offer.shared)?,
            accounts: u32::try_from(offer.accounts).map_err(too_many)?,
            touched,
            whole: offer.whole,
        })
    }

    fn store_job(&mut self, job: &Job) -> Result<u64, StoreError> {
        self.open()?;
        let Some(store) = &mut self.store else { return Err(StoreError::Ended) };
        match store.take_doubt() {
            Some(doubt) => Err(doubt),
            None => guarded(|| store.write(job)),
        }
    }

    fn open(&mut self) -> Result<(), StoreError> {
        if self.store.is_none() {
            let (dir, options) = (&self.dir, &self.options);
            self.store = Some(guarded(|| Store::open(dir, options.shard, options.cache_bytes))?);
        }
        Ok(())
    }

    /// Says what is wrong and does what it calls for: a newer program's snapshots stay, a full disk is waited out, a doubt is moved aside.
    fn give_up_on(&mut self, doubt: &StoreError) {
        self.shared.state().wants_whole = true;
        if doubt.is_newer() {
            error!(error = %doubt, dir = %self.dir.display(), "snapshots of a newer program are left alone; none are taken by this one");
            self.close();
            self.shared.state().off = true;
        } else if doubt.is_condition() {
            error!(error = %doubt, dir = %self.dir.display(), "snapshots cannot be kept for now; the ledger is not affected");
            self.close();
        } else {
            self.move_aside(&doubt.to_string());
        }
    }

    fn move_aside(&mut self, why: &str) {
        self.close();
        self.shared.state().wants_whole = true;
        match move_aside(Path::new(&self.dir), self.options.broken_kept_max) {
            Ok(Some(to)) => {
                counter!(SNAPSHOTS_BROKEN).increment(1);
                warn!(why, to = %to.display(), "snapshots are in doubt and moved aside; the state is folded from the ledger instead");
            }
            Ok(None) => {}
            Err(error) => error!(%error, dir = %self.dir.display(), "doubtful snapshots cannot be moved aside: remove the folder"),
        }
    }

    fn close(&mut self) {
        if let Some(store) = self.store.take()
            && let Err(error) = guarded(|| {
                drop(store);
                Ok(())
            })
        {
            warn!(%error, "the snapshot store did not close cleanly");
        }
    }
}
