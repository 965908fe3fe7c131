//! `ordergate config`: what the configuration is, and whether it is allowed.

use std::path::PathBuf;

use clap::Subcommand;

use super::{Exit, Failure, say};
use crate::config::{self, Config};

/// Arguments of `config`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Print every key with its value, from defaults, file and environment
    Print {
        #[command(flatten)]
        file: ConfigFile,
        /// Print the documented defaults instead
        #[arg(long, conflicts_with = "config")]
        defaults: bool,
    },
    /// Say all that is wrong with the configuration
    Check {
        #[command(flatten)]
        file: ConfigFile,
    },
}

/// Where the configuration is.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ConfigFile {
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE", env = "ORDERGATE_CONFIG", hide_env = true)]
    pub config: Option<PathBuf>,
}

impl ConfigFile {
    /// Reads the configuration with these keys laid over it.
    pub fn load(&self, overrides: &[(String, String)]) -> Result<Config, Failure> {
        Config::load(self.config.as_deref(), overrides).map_err(|error| Failure::new(Exit::Usage, error))
    }
}

/// Prints or checks.
pub fn run(args: &Args) -> Result<(), Failure> {
    match &args.action {
        Action::Print { defaults: true, .. } => say(&config::documented_toml()),
        Action::Print { file, defaults: false } => say(&file.load(&[])?.to_toml()),
        Action::Check { file } => {
            file.load(&[])?;
            say("the configuration is allowed\n")
        }
    }
}
