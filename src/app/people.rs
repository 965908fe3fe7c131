//! People as the daemon has them: the directory followed, the door of the API, who may listen where.
//!
//! Invariant: without users no socket is bound but on loopback, and no proxy is taken for this machine. What is over is erased once an
//! hour. Deliberately absent: rights; `control::people` has them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::control::Trails;
use crate::api::caller::{Door, Owners, now};
use crate::api::tls::Tls;
use crate::api::v1::{Desk, idempotency};
use crate::api::{Listening, Rates};
use crate::cli::{Exit, Failure, OrExit};
use crate::config::{Config, LogKind};
use crate::control::people::{Options, People, Terms};

/// The signing key that the daemon makes for itself.
const KEY_FILE: &str = "signing-key.pem";
const SWEEP_EVERY: Duration = Duration::from_secs(3_600);
const MS_PER_HOUR: i64 = 3_600_000;

/// What the API needs of people.
pub struct Entrance {
    /// The state of the handlers about people.
    pub desk: Arc<Desk>,
    /// Who is let in.
    pub door: Door,
    /// The certificate, if the listener speaks TLS.
    pub tls: Option<Arc<Tls>>,
    /// Where the API listens, and how.
    pub listening: Listening,
}

impl Entrance {
    /// Makes the door of a directory, and looks whether what is to be listened on may be. Nothing listens yet.
    ///
    /// # Errors
    /// The signing key or the certificate cannot be read; or it would be open to others than this machine.
    pub(super) fn open(trails: &Trails, config: &Config, owners: Arc<dyn Owners>) -> Result<Self, Failure> {
        let (at, tls) = (config.http.bind, tls(config)?);
        let Trails { directory, audit } = trails.clone();
        if config.log.kind == LogKind::Kafka && config.auth.signing_key_file.as_os_str().is_empty() {
            tracing::warn!("auth.signing_key_file is not set: access tokens of this instance are good at no other one");
        }
        let people = People::new(directory, options(config)).or_exit(Exit::Usage, || "people cannot log in".to_owned())?;
        let people = Arc::new(people);
        let vault = super::vault::open(people.directory().clone(), audit.clone(), config)?;
        let rates = Arc::new(Rates::new(config.auth.requests_per_second, config.auth.logins_per_minute));
        let listening = Listening { address: at, tls: tls.is_some(), proxied: config.http.behind_proxy };
        let door = Door {
            people: Some(people.clone()),
            owners,
            rates: rates.clone(),
            behind_proxy: config.http.behind_proxy,
            loopback: at.ip().is_loopback(),
        };
        let entrance = Self { desk: Arc::new(Desk { people, rates, audit, vault }), door, tls, listening };
        entrance.refuse_open_beyond_this_machine()?;
        Ok(entrance)
    }

    fn refuse_open_beyond_this_machine(&self) -> Result<(), Failure> {
        if self.door.is_open() || self.desk.people.has_users() {
            return Ok(());
        }
        let how = if self.listening.proxied { "behind a proxy" } else { "for other machines" };
        let what = format!(
            "OPEN_BEYOND_LOOPBACK: no users exist, and {} would be open {how}; stop here, run `ordergate user add NAME --role admin`, \
             and start again",
            self.listening.address
        );
        Err(Failure::new(Exit::Usage, what))
    }

    /// Takes note of where it listens: of port 0 the machine has made another.
    pub(super) fn listens(&mut self, at: SocketAddr) {
        self.listening.address = at;
        if self.door.is_open() {
            tracing::warn!(http = %at, "no users exist: open to this machine only; `ordergate user add` ends that");
        }
    }

    /// Reads the certificate again.
    pub fn reload(&self) {
        match self.tls.as_ref().map(|tls| tls.reload()) {
            None => {}
            Some(Ok(())) => tracing::info!("the certificate was read again"),
            Some(Err(error)) => tracing::error!(%error, "the certificate stays as it is"),
        }
    }
}

fn tls(config: &Config) -> Result<Option<Arc<Tls>>, Failure> {
    if !config.has_tls() {
        return Ok(None);
    }
    let tls = Tls::load(&config.tls.cert_file, &config.tls.key_file).or_exit(Exit::Usage, || "no TLS".to_owned())?;
    Ok(Some(Arc::new(tls)))
}

fn options(config: &Config) -> Options {
    let auth = &config.auth;
    let hours = |hours: u64| i64::try_from(hours).unwrap_or(i64::MAX / MS_PER_HOUR).saturating_mul(MS_PER_HOUR);
    let seconds = i64::try_from(auth.access_ttl_seconds).unwrap_or(i64::MAX);
    Options {
        terms: Terms { issuer: auth.issuer.clone(), audience: auth.audience.clone(), seconds },
        session_idle_ms: hours(auth.session_idle_hours),
        session_max_ms: hours(auth.session_max_hours),
        key_file: Some(auth.signing_key_file.clone()).filter(|path: &PathBuf| !path.as_os_str().is_empty()),
        own_key_file: config.data_dir.join(KEY_FILE),
    }
}

/// Erases what is over, now and then.
pub async fn sweep(people: Arc<People>) {
    let mut ticks = tokio::time::interval(SWEEP_EVERY);
    loop {
        ticks.tick().await;
        let claims = idempotency::sweep(people.directory(), now()).await;
        match people.sweep_sessions(now()).await {
            Ok(sessions) => tracing::debug!(sessions, claims, "what was over is erased"),
            Err(error) => tracing::warn!(%error, "what is over could not be erased"),
        }
    }
}
