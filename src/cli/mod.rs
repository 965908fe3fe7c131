//! The command line: what an operator types, and what the process ends with.
//!
//! Invariant: standard output carries only what was asked for, everything else goes to standard
//! error; every end has a documented exit code ([`Exit`]). Deliberately absent: colours and
//! progress where nobody watches, and any decision: commands call what does the work.

mod accounts;
mod answers;
mod audit;
mod client;
mod demo;
mod doctor;
mod exit;
mod generate;
mod kill;
mod ledger;
mod lines;
mod login;
mod place;
mod range;
mod remote;
mod replay;
mod rules;
mod run;
mod schema;
mod send;
mod settings;
mod shell;
mod tail;
mod token;
mod topics;
mod user;
mod vault;
mod verify;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use exit::{Exit, Failure, OrExit};

/// A deterministic order gate: folds intents, fills and prices, judges every order, explains each decision.
#[derive(Debug, Parser)]
#[command(name = "ordergate", version, propagate_version = true, after_help = exit::HELP, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon
    Run(run::Args),
    /// Replay an event log through a new gate and print what comes out
    Replay(replay::Args),
    /// Show the gate at work: a daemon, generated orders, decisions explained
    Demo(demo::Args),
    /// Fold a ledger again and prove that it gives what it recorded
    Verify(verify::Args),
    /// Look into a ledger
    Ledger(ledger::Args),
    /// Examine and list the audit trail
    Audit(audit::Args),
    /// Write deterministic, realistic order flow as an event log
    Generate(generate::Args),
    /// Send an event log to a running daemon, or to a cluster's topics
    Send(send::Args),
    /// Print a topic of a running daemon, or of a cluster
    Tail(tail::Args),
    /// Make and check the topics of a Kafka cluster
    Topics(topics::Args),
    /// Examine a Kafka cluster, its topics and ledgers, and this instance's snapshots
    Doctor(doctor::Args),
    /// Make, list and change users, in the log itself or over the API
    User(user::Args),
    /// Begin a session for the commands that use the API
    Login(login::Args),
    /// Make, list and revoke API tokens
    Token(token::Args),
    /// Look at, make, change and try risk rules
    Rules(rules::Args),
    /// Look at, open, pay into, halt and limit accounts
    Accounts(accounts::Args),
    /// Throw an account's kill switch: halt it, cancel its orders, close its positions
    Kill(kill::Args),
    /// Look at the vault of broker keys, and change its key-encryption key
    Vault(vault::Args),
    /// Print the JSON Schemas of all records and the OpenAPI document
    Schema(schema::Args),
    /// Print or check the configuration
    Config(settings::Args),
    /// Print completions for a shell
    Completions(shell::Args),
    /// Print the man page
    Man,
}

/// Reads the arguments, does what they ask, says how it ended.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors and go to standard output.
            let exit = if error.use_stderr() { Exit::Usage } else { Exit::Ok };
            // A closed terminal is no reason for another exit code.
            let _ = error.print();
            return exit.into();
        }
    };
    match run(cli.command) {
        Ok(()) => Exit::Ok.into(),
        Err(failure) if failure.is_broken_pipe() => Exit::Ok.into(),
        Err(failure) => {
            eprintln!("ordergate: {failure}");
            failure.exit().into()
        }
    }
}

fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Run(args) => run::run(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Ledger(args) => ledger::run(&args),
        Command::Audit(args) => audit::run(&args),
        Command::Generate(args) => generate::run(&args),
        Command::Send(args) => send::run(&args),
        Command::Tail(args) => tail::run(&args),
        Command::Topics(args) => topics::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::User(args) => user::run(&args),
        Command::Login(args) => login::run(&args),
        Command::Token(args) => token::run(&args),
        Command::Rules(args) => rules::run(&args),
        Command::Accounts(args) => accounts::run(&args),
        Command::Kill(args) => kill::run(&args),
        Command::Vault(args) => vault::run(&args),
        Command::Schema(args) => schema::run(&args),
        Command::Config(args) => settings::run(&args),
        Command::Completions(args) => shell::completions(&args),
        Command::Man => shell::man(),
    }
}

/// Prints to standard output.
fn say(text: &str) -> Result<(), Failure> {
    say_bytes(text.as_bytes())
}

/// Prints to standard output.
fn say_bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).or_exit(Exit::Io, || "cannot write to standard output".to_owned())
}
