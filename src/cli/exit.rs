//! How the process ends.
//!
//! Invariant: a number keeps its meaning for ever; scripts and service managers act on it.

use std::fmt;
use std::io;
use std::process::ExitCode;

use crate::log::LogError;

/// What every command's help says about exit codes.
pub const HELP: &str = "\
Exit codes:
  0  done
  1  the input or the ledger is wrong (the message says where)
  2  wrong usage or configuration
  3  another process owns the data directory
  4  the log cannot be opened, read or committed to
  5  the daemon cannot be reached, or refused what was sent
  6  a file, a port or standard output cannot be used";

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// The input or the ledger is wrong.
    Wrong = 1,
    /// Wrong usage or configuration.
    Usage = 2,
    /// Another process owns the data directory.
    Locked = 3,
    /// The log cannot be opened, read or committed to.
    Log = 4,
    /// The daemon cannot be reached, or refused what was sent.
    Daemon = 5,
    /// A file, a port or standard output cannot be used.
    Io = 6,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command failed, and the code that says so.
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    error: anyhow::Error,
}

impl Failure {
    /// A failure with a message for people.
    pub fn new(exit: Exit, message: impl fmt::Display + fmt::Debug + Send + Sync + 'static) -> Self {
        Self { exit, error: anyhow::Error::msg(message) }
    }

    /// The code.
    #[must_use]
    pub fn exit(&self) -> Exit {
        self.exit
    }

    /// The same failure with something more to say.
    #[must_use]
    pub fn also(self, more: impl fmt::Display) -> Self {
        let error = anyhow::anyhow!("{:#}; {more}", self.error);
        Self { exit: self.exit, error }
    }

    /// Whether whoever read our output went away, which is no failure of ours.
    #[must_use]
    pub fn is_broken_pipe(&self) -> bool {
        self.error.chain().any(|cause| cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.error)
    }
}

impl From<LogError> for Failure {
    fn from(error: LogError) -> Self {
        let exit = match error {
            LogError::Locked { .. } => Exit::Locked,
            LogError::Corrupt { .. } => Exit::Wrong,
            LogError::Busy { .. }
            | LogError::Full { .. }
            | LogError::ReadOnly { .. }
            | LogError::NewerVersion { .. }
            | LogError::OutOfRange { .. }
            | LogError::NoSuchPartition { .. }
            | LogError::TooLarge { .. }
            | LogError::Overloaded { .. }
            | LogError::Denied { .. }
            | LogError::Closed
            | LogError::Io { .. } => Exit::Log,
        };
        Self::new(exit, format!("{}: {error}; {}", error.code(), error.advice()))
    }
}

/// Gives an error its exit code and says what was being done.
pub trait OrExit<T> {
    /// The value, or a failure with this code and this context.
    fn or_exit(self, exit: Exit, doing: impl FnOnce() -> String) -> Result<T, Failure>;
}

impl<T, E: Into<anyhow::Error>> OrExit<T> for Result<T, E> {
    fn or_exit(self, exit: Exit, doing: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|error| Failure { exit, error: error.into().context(doing()) })
    }
}
