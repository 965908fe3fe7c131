//! `ordergate user`: people in the log itself, for whoever has the log, or over the API of the daemon at `--url`. The first one is made in
//! the log and nowhere else.
//!
//! Invariant: without `--url` it speaks to no daemon. On the embedded log none may run meanwhile; on a cluster running instances see the
//! change at once. Passwords come from a terminal without echo or from a file, never from an argument.

mod api;

use std::io::IsTerminal;
use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};
use serde_json::{Value, json};
use tokio::runtime::Builder;
use zeroize::Zeroizing;

use super::client::Client;
use super::place::Place;
use super::remote::{Output, Remote, table};
use super::{Exit, Failure, OrExit, say};
use crate::app::OpenLog;
use crate::control::audit::Audit;
use crate::control::directory::DirectoryService;
use crate::control::people::{Grants, NewUser, People, PeopleError, Role, Scope, Stored, User, UserChange};
use crate::engine::{Clock, SystemClock};

/// What a table of users shows.
const HEADINGS: [&str; 5] = ["name", "role", "scopes", "accounts", "state"];

/// Arguments of `user`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make a user; asks for the password on a terminal
    Add {
        /// The name to log in with, and the owner of accounts
        name: String,
        /// What they may do at most
        #[arg(long, value_name = "ROLE")]
        role: RoleName,
        /// A scope beyond those of the role (can be given again)
        #[arg(long = "scope", value_name = "SCOPE", value_parser = scope)]
        scopes: Vec<Scope>,
        /// An account to act for as if it were theirs (can be given again)
        #[arg(long, value_name = "ACCOUNT")]
        own: Vec<String>,
        /// An account to look at (can be given again)
        #[arg(long, value_name = "ACCOUNT")]
        view: Vec<String>,
        /// All accounts
        #[arg(long, conflicts_with_all = ["own", "view"])]
        all_accounts: bool,
        /// No password: a service has API tokens only
        #[arg(long, conflicts_with = "password_file")]
        no_password: bool,
        #[command(flatten)]
        password: PasswordFrom,
        #[command(flatten)]
        at: At,
    },
    /// List the users
    List {
        #[command(flatten)]
        at: At,
        /// How to print
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
    /// Lock a user out; their sessions end
    Disable {
        /// The user
        name: String,
        #[command(flatten)]
        at: At,
    },
    /// Let a user in again
    Enable {
        /// The user
        name: String,
        #[command(flatten)]
        at: At,
    },
    /// Set a user's password; their sessions end
    Password {
        /// The user
        name: String,
        #[command(flatten)]
        password: PasswordFrom,
        #[command(flatten)]
        at: At,
    },
}

/// Where the people are: in a log, or with a daemon.
#[derive(Debug, clap::Args)]
struct At {
    #[command(flatten)]
    log: Place,
    /// Ask the API of this daemon instead, as an administrator
    #[arg(long, value_name = "URL", conflicts_with_all = ["data_dir", "brokers"])]
    url: Option<String>,
    /// With --url: file with an API token, or the session that `ordergate login` wrote [default: that of login, if it is there]
    #[arg(long, value_name = "FILE", env = "ORDERGATE_TOKEN_FILE", hide_env = true)]
    token_file: Option<PathBuf>,
    /// With --url: certificates to trust (PEM) instead of the public ones
    #[arg(long, value_name = "FILE", env = "ORDERGATE_CA_FILE", hide_env = true)]
    ca_file: Option<PathBuf>,
}

impl At {
    /// A client of the daemon, if one is meant.
    fn client(&self) -> Result<Option<Client>, Failure> {
        let Some(url) = &self.url else { return Ok(None) };
        Remote::at(url.clone(), self.token_file.clone(), self.ca_file.clone()).client().map(Some)
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum RoleName {
    Admin,
    User,
    Viewer,
    Service,
}

impl From<RoleName> for Role {
    fn from(name: RoleName) -> Self {
        match name {
            RoleName::Admin => Self::Admin,
            RoleName::User => Self::User,
            RoleName::Viewer => Self::Viewer,
            RoleName::Service => Self::Service,
        }
    }
}

/// Reads a scope.
pub fn scope(text: &str) -> Result<Scope, String> {
    let names: Vec<&str> = Scope::ALL.into_iter().map(Scope::as_str).collect();
    Scope::ALL.into_iter().find(|scope| scope.as_str() == text).ok_or_else(|| format!("one of {}", names.join(", ")))
}

/// Where a password comes from.
#[derive(Debug, clap::Args)]
pub struct PasswordFrom {
    /// File with the password, whose last line break does not count
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

impl PasswordFrom {
    /// The password; asked for twice when it is a new one.
    pub fn read(&self, is_new: bool) -> Result<Zeroizing<String>, Failure> {
        if let Some(path) = &self.password_file {
            let text = Zeroizing::new(std::fs::read_to_string(path).or_exit(Exit::Io, || format!("cannot read {}", path.display()))?);
            let text = text.strip_suffix('\n').unwrap_or(&text);
            return Ok(Zeroizing::new(text.strip_suffix('\r').unwrap_or(text).to_owned()));
        }
        if !std::io::stdin().is_terminal() {
            return Err(Failure::new(Exit::Usage, "there is no terminal to ask on: name a --password-file"));
        }
        let ask = |prompt: &str| rpassword::prompt_password(prompt).or_exit(Exit::Io, || "cannot ask for the password".to_owned());
        let password = Zeroizing::new(ask("Password: ")?);
        if is_new && *Zeroizing::new(ask("The same again: ")?) != *password {
            return Err(Failure::new(Exit::Usage, "the two passwords differ"));
        }
        Ok(password)
    }
}

/// Does something with the people of a log, and closes it.
fn with<R>(place: &Place, act: impl AsyncFnOnce(&People, &Audit) -> Result<R, Failure>) -> Result<R, Failure> {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.or_exit(Exit::Io, || "cannot start threads".to_owned())?;
    let log = OpenLog::open(&place.config()?)?;
    runtime.block_on(async {
        let directory = DirectoryService::start(log.topics())?;
        let audit = Audit::start(log.topics())?;
        let people = People::to_administer(directory.clone()).or_exit(Exit::Io, || "cannot hash passwords".to_owned())?;
        let done = act(&people, &audit).await;
        audit.stop();
        directory.stop();
        done
    })
}

/// Who a command acts as.
fn actor() -> String {
    let user = std::env::var("USER").ok().filter(|user| crate::control::people::is_user_name(user));
    format!("cli:{}", user.as_deref().unwrap_or("unknown"))
}

/// Does it.
pub fn run(args: &Args) -> Result<(), Failure> {
    match &args.action {
        Action::Add { .. } => add(&args.action),
        Action::List { at, output } => list(at, *output),
        Action::Disable { name, at } => set_disabled(name, true, at),
        Action::Enable { name, at } => set_disabled(name, false, at),
        Action::Password { name, password, at } => set_password(name, password, at),
    }
}

fn add(action: &Action) -> Result<(), Failure> {
    let Action::Add { name, role, scopes, own, view, all_accounts, no_password, password, at } = action else { return Ok(()) };
    let password = if *no_password { None } else { Some(password.read(true)?) };
    let accounts = Grants { all: *all_accounts, own: own.clone(), view: view.clone() };
    let new = NewUser { role: (*role).into(), scopes: scopes.clone(), accounts, password };
    if let Some(client) = at.client()? {
        api::add(&client, name, &new)?;
        return say(&format!("user {name} added\n"));
    }
    with(&at.log, async |people, audit| {
        let changes = json!({"role": new.role, "scopes": new.scopes, "accounts": new.accounts});
        audited(audit, "user.create", name, changes, people.add_user(name, new, &actor(), now())).await
    })?;
    say(&format!("user {name} added\n"))
}

fn list(at: &At, output: Output) -> Result<(), Failure> {
    if let Some(client) = at.client()? {
        return api::list(&client, output);
    }
    let users = with(&at.log, async |people, _| Ok(people.users()))?;
    let shown: Vec<Value> = users.iter().map(show).collect();
    match output {
        Output::Json => say(&format!("{:#}\n", Value::Array(shown))),
        Output::Table => say(&table(&HEADINGS, &users.iter().map(row).collect::<Vec<_>>())),
    }
}

fn set_disabled(name: &str, disabled: bool, at: &At) -> Result<(), Failure> {
    let done = format!("user {name} {}\n", if disabled { "disabled" } else { "enabled" });
    if let Some(client) = at.client()? {
        api::set_disabled(&client, name, disabled)?;
        return say(&done);
    }
    with(&at.log, async |people, audit| {
        let old = people.user(name).ok_or_else(|| failed(PeopleError::Unknown))?;
        let changes = json!({"disabled": [old.body.disabled, disabled]});
        let User { role, scopes, accounts, .. } = old.body;
        let change = UserChange { role, scopes, accounts, disabled };
        audited(audit, "user.change", name, changes, people.change_user(name, old.version, change, &actor())).await
    })?;
    say(&done)
}

fn set_password(name: &str, password: &PasswordFrom, at: &At) -> Result<(), Failure> {
    let password = password.read(true)?;
    let done = format!("password of {name} set; all sessions ended\n");
    if let Some(client) = at.client()? {
        api::set_password(&client, name, &password)?;
        return say(&done);
    }
    with(&at.log, async |people, audit| {
        audited(audit, "user.password", name, json!({}), people.set_password(name, password, &actor(), now())).await
    })?;
    say(&done)
}

/// Notes that something is begun, does it, and notes how it ended. What could not be noted first is not done.
async fn audited<T>(
    audit: &Audit,
    action: &'static str,
    name: &str,
    changes: Value,
    act: impl Future<Output = Result<T, PeopleError>>,
) -> Result<(), Failure> {
    let object = format!("user:{name}");
    audit.record(&actor(), "local", action, &object, changes, "begun").await?;
    let done = act.await;
    let result = if done.is_ok() { "ok" } else { "refused" };
    audit.record(&actor(), "local", action, &object, json!({}), result).await?;
    done.map(drop).map_err(failed)
}

fn now() -> i64 {
    SystemClock::new().wall_ms()
}

fn failed(error: PeopleError) -> Failure {
    match error {
        PeopleError::Log(error) => error.into(),
        PeopleError::Timeout | PeopleError::NoSecret | PeopleError::Busy => Failure::new(Exit::Log, error.to_string()),
        PeopleError::Unknown => Failure::new(Exit::Wrong, "there is no such user"),
        PeopleError::Exists => Failure::new(Exit::Wrong, "there is a user of that name already"),
        PeopleError::LastAdmin => Failure::new(Exit::Wrong, "nobody could administer any more: it is the last admin who can log in"),
        PeopleError::Unauthenticated
        | PeopleError::Expired
        | PeopleError::Reused
        | PeopleError::Conflict { .. }
        | PeopleError::Weak(_)
        | PeopleError::Invalid { .. } => Failure::new(Exit::Wrong, error.to_string()),
    }
}

fn show(user: &Stored<User>) -> Value {
    let User { role, scopes, accounts, disabled, password, created_at, .. } = &user.body;
    json!({"name": user.id, "role": role, "scopes": scopes, "accounts": accounts, "disabled": disabled,
           "has_password": password.is_some(), "created_at": moment(*created_at), "version": user.version})
}

/// A time as the API says it.
fn moment(at: i64) -> String {
    jiff::Timestamp::from_millisecond(at).map(|at| at.to_string()).unwrap_or_default()
}

fn row(user: &Stored<User>) -> Vec<String> {
    let User { role, scopes, accounts, disabled, .. } = &user.body;
    cells(&user.id, *role, scopes, accounts, *disabled)
}

fn cells(name: &str, role: Role, scopes: &[Scope], accounts: &Grants, disabled: bool) -> Vec<String> {
    let scopes = scopes.iter().map(|scope| scope.as_str()).collect::<Vec<_>>().join(",");
    let held = accounts.own.iter().cloned().chain(accounts.view.iter().map(|account| format!("{account} (view)")));
    let accounts = if accounts.all { "all".to_owned() } else { held.collect::<Vec<_>>().join(",") };
    vec![name.to_owned(), role.as_str().to_owned(), scopes, accounts, if disabled { "disabled" } else { "active" }.to_owned()]
}
