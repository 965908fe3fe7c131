//! `ordergate user --url`: the same acts, asked of a daemon.
//!
//! Invariant: a user is changed in the version that was read for it; who was changed by somebody else in between stays as that one made
//! them. Deliberately absent: the first user, whom the API makes for nobody.

use serde::Deserialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{HEADINGS, cells};
use crate::cli::answers::segment;
use crate::cli::client::Client;
use crate::cli::remote::{Output, table};
use crate::cli::{Exit, Failure, OrExit, say};
use crate::control::people::{Grants, NewUser, Role, Scope};

const PATH: &str = "/api/v1/users";

/// What is needed of a user; what else a newer daemon tells is passed over.
#[derive(Deserialize)]
struct Told {
    name: String,
    role: Role,
    scopes: Vec<Scope>,
    accounts: Grants,
    disabled: bool,
}

impl Told {
    fn read(user: &Value) -> Result<Self, Failure> {
        Self::deserialize(user).or_exit(Exit::Daemon, || "the daemon tells of a user in another way".to_owned())
    }
}

/// Makes a user.
pub fn add(client: &Client, name: &str, new: &NewUser) -> Result<(), Failure> {
    let mut body = json!({"name": name, "role": new.role, "scopes": new.scopes, "accounts": new.accounts});
    if let Some(password) = &new.password {
        body["password"] = password.as_str().into();
    }
    client.send("POST", PATH, Some(&body)).map(drop)
}

/// Lists the users.
pub fn list(client: &Client, output: Output) -> Result<(), Failure> {
    let users = client.list(PATH)?;
    if output == Output::Json {
        return say(&format!("{:#}\n", Value::Array(users)));
    }
    let row = |user: &Value| Told::read(user).map(|told| cells(&told.name, told.role, &told.scopes, &told.accounts, told.disabled));
    say(&table(&HEADINGS, &users.iter().map(row).collect::<Result<Vec<_>, _>>()?))
}

/// Locks a user out, or lets them in again.
pub fn set_disabled(client: &Client, name: &str, disabled: bool) -> Result<(), Failure> {
    let (user, tag) = client.seen(&at(name))?;
    let Told { role, scopes, accounts, .. } = Told::read(&user)?;
    let body = json!({"role": role, "scopes": scopes, "accounts": accounts, "disabled": disabled});
    client.send_with("PUT", &at(name), &[("if-match", &tag)], &body).map(drop)
}

/// Sets a user's password.
pub fn set_password(client: &Client, name: &str, password: &Zeroizing<String>) -> Result<(), Failure> {
    client.send("PUT", &format!("{}/password", at(name)), Some(&json!({"password": password.as_str()}))).map(drop)
}

fn at(name: &str) -> String {
    format!("{PATH}/{}", segment(name))
}
