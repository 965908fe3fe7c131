//! `ordergate run`: the daemon.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::settings::ConfigFile;
use super::{Failure, say};
use crate::app::run_until_stopped;
use crate::config::Config;

/// Arguments of `run`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    file: ConfigFile,
    /// Directory of the log and the snapshots (data_dir)
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Where the API listens (http.bind)
    #[arg(long, value_name = "ADDR")]
    http: Option<SocketAddr>,
    /// Where /metrics is served (metrics.bind)
    #[arg(long, value_name = "ADDR")]
    metrics: Option<SocketAddr>,
    /// Run on topics that break a guarantee; for development only (kafka.force_unsafe)
    #[arg(long)]
    force_unsafe: bool,
}

impl Args {
    fn overrides(&self) -> Vec<(String, String)> {
        let dir = self.data_dir.as_ref().map(|dir| ("data_dir".to_owned(), dir.display().to_string()));
        let http = self.http.map(|at| ("http.bind".to_owned(), at.to_string()));
        let metrics = self.metrics.map(|at| ("metrics.bind".to_owned(), at.to_string()));
        let force = self.force_unsafe.then(|| ("kafka.force_unsafe".to_owned(), "true".to_owned()));
        [dir, http, metrics, force].into_iter().flatten().collect()
    }
}

/// Runs until it is told to stop.
pub fn run(args: &Args) -> Result<(), Failure> {
    let overrides = args.overrides();
    let file = args.file.config.clone();
    run_until_stopped(&|| Config::load(file.as_deref(), &overrides), |daemon| {
        let metrics = daemon.metrics.map(|at| format!(" metrics=http://{at}/metrics")).unwrap_or_default();
        // Whoever started it may not be reading; it runs all the same.
        let _ = say(&format!("listening http={}://{}{metrics}\n", daemon.scheme(), daemon.http));
    })
}
