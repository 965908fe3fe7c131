//! Who asks, and what they may do.
//!
//! Invariant: a handler behind [`identify`] has a [`Caller`] or is never reached. Rights come from the directory with each request.
//! Without users, whoever reaches a loopback listener is the built-in admin, and nobody else is anybody. Deliberately absent:
//! decisions about single objects; a handler asks the caller, and answers 404 for what the caller may not know of.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::problem::{ApiCode, Problem};
use super::rate::Rates;
use crate::control::people::{People, PeopleError, Principal, Proof};
use crate::control::replica::Replicas;
use crate::domain::{AccountId, Millis, OwnerId};
use crate::engine::{Clock, SystemClock};

pub use crate::control::people::{Role, Scope};

/// The name that the built-in admin of the open mode has in records and in the audit.
pub const OPEN: &str = "local";

/// Who owns accounts, as a fold has it.
pub trait Owners: Send + Sync {
    /// The owner of an account that was opened, if it is known here.
    fn owner(&self, account: &str) -> Option<OwnerId>;
}

/// Whoever asks.
#[derive(Clone)]
pub struct Caller {
    /// What records and the audit call them: the user's name, or [`OPEN`].
    pub name: String,
    /// The user; nobody in the open mode.
    pub user: Option<String>,
    /// What they may do at most.
    pub role: Role,
    /// What they may do by name.
    pub scopes: Vec<Scope>,
    /// Which accounts they may know of.
    pub accounts: Accounts,
    /// From where they ask.
    pub address: IpAddr,
    /// How they proved who they are; nothing in the open mode.
    pub proof: Option<Proof>,
}

/// The accounts that someone may know of.
#[derive(Clone)]
pub enum Accounts {
    /// All.
    All,
    /// Those that they own, and those that were granted to them.
    Listed(Listed),
}

/// Accounts of someone who may not know of all.
#[derive(Clone)]
pub struct Listed {
    user: OwnerName,
    own: Arc<[String]>,
    view: Arc<[String]>,
    owners: Arc<dyn Owners>,
}

type OwnerName = String;

impl Listed {
    fn owns(&self, account: &str) -> bool {
        self.own.iter().any(|own| own == account) || self.owners.owner(account).is_some_and(|owner| owner.as_str() == self.user)
    }

    fn views(&self, account: &str) -> bool {
        self.view.iter().any(|view| view == account) || self.owns(account)
    }
}

impl Caller {
    /// The built-in admin of the open mode.
    #[must_use]
    pub fn open(address: IpAddr) -> Self {
        let scopes = Scope::ALL.to_vec();
        Self { name: OPEN.to_owned(), user: None, role: Role::Admin, scopes, accounts: Accounts::All, address, proof: None }
    }

    /// Someone who proved who they are.
    #[must_use]
    pub fn of(principal: Principal, owners: Arc<dyn Owners>, address: IpAddr) -> Self {
        let Principal { user, proof, scopes } = principal;
        let grants = user.body.accounts;
        let accounts = if user.body.role == Role::Admin || grants.all {
            Accounts::All
        } else {
            Accounts::Listed(Listed { user: user.id.clone(), own: grants.own.into(), view: grants.view.into(), owners })
        };
        Self { name: user.id.clone(), user: Some(user.id), role: user.body.role, scopes, accounts, address, proof: Some(proof) }
    }

    /// Whether they may know of this account.
    #[must_use]
    pub fn may_read(&self, account: &str) -> bool {
        match &self.accounts {
            Accounts::All => true,
            Accounts::Listed(listed) => listed.views(account),
        }
    }

    /// Whether they may act for this account, with the scope for what they do.
    #[must_use]
    pub fn may_write(&self, account: &str) -> bool {
        match (self.role, &self.accounts) {
            (Role::Viewer, _) => false,
            (Role::Admin | Role::User | Role::Service, Accounts::All) => true,
            (Role::Admin | Role::User | Role::Service, Accounts::Listed(listed)) => listed.owns(account),
        }
    }

    /// Whether they may do this by name.
    #[must_use]
    pub fn has(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope)
    }

    /// Whether they administer.
    #[must_use]
    pub fn is_admin(&self) -> bool {
        self.role == Role::Admin
    }

    /// Refuses who lacks a scope.
    ///
    /// # Errors
    /// They lack it.
    pub fn require(&self, scope: Scope) -> Result<(), Problem> {
        if self.has(scope) {
            return Ok(());
        }
        Err(Problem::new(ApiCode::Forbidden, format!("this needs the scope {}", scope.as_str())).with("scope", scope.as_str()))
    }

    /// Refuses a token that was not given a right to write: to order, or to write records. Who logged in writes as their role says.
    ///
    /// # Errors
    /// It was given neither.
    pub fn require_to_act(&self) -> Result<(), Problem> {
        if self.is_token() && !self.has(Scope::RecordsWrite) { self.require(Scope::IntentsWrite) } else { Ok(()) }
    }

    /// Refuses who does not administer, and a token of an administrator's that may not write records.
    ///
    /// # Errors
    /// They do not, or it may not.
    pub fn require_operator(&self) -> Result<(), Problem> {
        self.require_admin()?;
        if self.is_token() { self.require(Scope::RecordsWrite) } else { Ok(()) }
    }

    fn is_token(&self) -> bool {
        matches!(self.proof, Some(Proof::Token(_)))
    }

    /// Refuses who does not administer.
    ///
    /// # Errors
    /// They do not.
    pub fn require_admin(&self) -> Result<(), Problem> {
        if self.is_admin() { Ok(()) } else { Err(Problem::new(ApiCode::Forbidden, "this needs the role admin")) }
    }
}

impl Owners for Replicas {
    fn owner(&self, account: &str) -> Option<OwnerId> {
        Self::owner(self, &AccountId::parse(account.as_bytes())?)
    }
}

/// Nobody owns anything.
impl Owners for () {
    fn owner(&self, _account: &str) -> Option<OwnerId> {
        None
    }
}

/// From where a connection comes; the listener says so of each request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(pub IpAddr);

/// What the door knows.
#[derive(Clone)]
pub struct Door {
    /// The people; without, there are no users and never will be.
    pub people: Option<Arc<People>>,
    /// Who owns accounts.
    pub owners: Arc<dyn Owners>,
    /// How often one may ask.
    pub rates: Arc<Rates>,
    /// Whether a proxy of ours stands before us, and says from where requests come.
    pub behind_proxy: bool,
    /// Whether the listener can be reached from this machine only.
    pub loopback: bool,
}

impl Door {
    /// A door without people, for a listener on loopback.
    #[must_use]
    pub fn open() -> Self {
        Self { people: None, owners: Arc::new(()), rates: Arc::default(), behind_proxy: false, loopback: true }
    }

    /// Whether everyone who can reach us may do everything.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.loopback && !self.behind_proxy && !self.has_users()
    }

    fn has_users(&self) -> bool {
        self.people.as_ref().is_some_and(|people| people.has_users())
    }

    /// From where a request comes.
    fn address(&self, request: &Request) -> IpAddr {
        let peer = request.extensions().get::<Peer>().map_or(IpAddr::from([0, 0, 0, 0]), |peer| peer.0);
        if !self.behind_proxy {
            return peer;
        }
        // The last entry is the one that our proxy wrote; what stands before it anyone can have made up.
        let said = request.headers().get_all("x-forwarded-for").iter().next_back().and_then(|value| value.to_str().ok());
        said.and_then(|list| list.rsplit(',').next()?.trim().parse().ok()).unwrap_or(peer)
    }

    /// Who holds a ticket for the WebSocket. It is good once.
    ///
    /// # Errors
    /// It is not good, or they ask too often.
    pub fn by_ticket(&self, ticket: &str, address: IpAddr) -> Result<Caller, Problem> {
        let people = self.people.as_ref().ok_or_else(|| Problem::new(ApiCode::Unauthenticated, "there are no tickets"))?;
        match people.redeem(ticket, now()).map_err(people_problem)? {
            Some(principal) => {
                let caller = Caller::of(principal, self.owners.clone(), address);
                self.rates.identity(&caller.name)?;
                Ok(caller)
            }
            None if self.is_open() => Ok(Caller::open(address)),
            None => Err(Problem::new(ApiCode::Unauthenticated, "the ticket is not good any more")),
        }
    }

    /// Whether someone who was let in may still go on: their session, token and rights are as they were. For what lasts longer than a
    /// request.
    #[must_use]
    pub fn may_go_on(&self, caller: &Caller) -> bool {
        match (&caller.user, &caller.proof, &self.people) {
            (Some(user), Some(proof), Some(people)) => {
                people.still(user, proof, now()).is_some_and(|now| (now.user.body.role, &now.scopes) == (caller.role, &caller.scopes))
            }
            _ => self.is_open(),
        }
    }

    /// The same someone with the rights that they have now, as long as they may go on: accounts that were granted or taken away meanwhile.
    #[must_use]
    pub fn renewed(&self, caller: &Caller) -> Option<Caller> {
        match (&caller.user, &caller.proof, &self.people) {
            (Some(user), Some(proof), Some(people)) => {
                let principal = people.still(user, proof, now())?;
                let now = Caller::of(principal, self.owners.clone(), caller.address);
                Some(now).filter(|now| (now.role, &now.scopes) == (caller.role, &caller.scopes))
            }
            _ => self.is_open().then(|| caller.clone()),
        }
    }

    fn caller(&self, headers: &HeaderMap, address: IpAddr, now: Millis) -> Result<Caller, Problem> {
        if self.is_open() {
            return Ok(Caller::open(address));
        }
        let Some(people) = self.people.as_ref().filter(|people| people.has_users()) else {
            let what = "no users exist; make the first one with `ordergate user add NAME --role admin`";
            return Err(Problem::new(ApiCode::Unauthenticated, what));
        };
        let bearer = bearer(headers).ok_or_else(|| Problem::new(ApiCode::Unauthenticated, "send Authorization: Bearer TOKEN"))?;
        let found = if People::is_api_token(bearer) { people.by_token(bearer, now) } else { people.by_access(bearer, now) };
        Ok(Caller::of(found.map_err(people_problem)?, self.owners.clone(), address))
    }
}

/// The one bearer token of a request.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut given = headers.get_all(header::AUTHORIZATION).iter();
    let (scheme, token) = given.next()?.to_str().ok()?.split_once(' ')?;
    (given.next().is_none() && scheme.eq_ignore_ascii_case("bearer")).then(|| token.trim())
}

/// Middleware: finds out who asks, or refuses.
pub async fn identify(State(door): State<Door>, mut request: Request, next: Next) -> Response {
    let address = door.address(&request);
    match admitted(&door, request.headers(), address) {
        Ok(caller) => {
            request.extensions_mut().insert(Address(address));
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    }
}

fn admitted(door: &Door, headers: &HeaderMap, address: IpAddr) -> Result<Caller, Problem> {
    if door.is_open() {
        return Ok(Caller::open(address));
    }
    door.rates.address(address)?;
    let caller = door.caller(headers, address, now())?;
    door.rates.identity(&caller.name)?;
    Ok(caller)
}

/// Middleware: a token that was given no right to write changes nothing, also nothing of its user's own.
pub async fn acting(request: Request, next: Next) -> Response {
    let may = match request.extensions().get::<Caller>() {
        Some(caller) if !request.method().is_safe() => caller.require_to_act(),
        Some(_) | None => Ok(()),
    };
    match may {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

/// From where a request comes, also of one that nobody is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address(pub IpAddr);

/// Middleware for what anyone may ask: notes from where, and counts.
pub async fn locate(State(door): State<Door>, mut request: Request, next: Next) -> Response {
    let address = door.address(&request);
    if !door.is_open()
        && let Err(problem) = door.rates.address(address)
    {
        return problem.into_response();
    }
    request.extensions_mut().insert(Address(address));
    next.run(request).await
}

/// The machine's clock.
#[must_use]
pub fn now() -> Millis {
    SystemClock::new().wall_ms()
}

/// How a failure about people is told.
#[must_use]
pub fn people_problem(error: PeopleError) -> Problem {
    let code = match &error {
        PeopleError::Unauthenticated => ApiCode::Unauthenticated,
        PeopleError::Expired => ApiCode::TokenExpired,
        PeopleError::Reused => ApiCode::RefreshReused,
        PeopleError::Busy => ApiCode::TooBusy,
        PeopleError::Unknown => ApiCode::UnknownObject,
        PeopleError::Exists => ApiCode::AlreadyExists,
        PeopleError::Conflict { .. } => ApiCode::Conflict,
        PeopleError::Weak(_) => return Problem::new(ApiCode::WeakPassword, error.to_string()).field("password"),
        PeopleError::Invalid { field, why } => return Problem::new(ApiCode::InvalidField, *why).field(field),
        PeopleError::LastAdmin => ApiCode::LastAdmin,
        PeopleError::NoSecret => ApiCode::Internal,
        PeopleError::Log(error) => return super::records::log_problem(error),
        PeopleError::Timeout => ApiCode::AppendTimeout,
    };
    Problem::new(code, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::people::{Grants, Stored, User};

    struct Known;

    impl Owners for Known {
        fn owner(&self, account: &str) -> Option<OwnerId> {
            let owner: &[u8] = match account {
                "HERS" => b"alice",
                "HIS" => b"bob",
                _ => return None,
            };
            OwnerId::parse(owner)
        }
    }

    fn caller(role: Role, grants: Grants) -> Caller {
        let body = User { role, scopes: vec![], accounts: grants, disabled: false, password: None, password_at: 0, created_at: 0 };
        let scopes = body.all_scopes();
        let user = Stored { id: "alice".to_owned(), version: 1, body };
        let principal = Principal { user, proof: Proof::Token("t".to_owned()), scopes };
        Caller::of(principal, Arc::new(Known), IpAddr::from([127, 0, 0, 1]))
    }

    #[test]
    fn an_owner_writes_a_grantee_reads_and_the_rest_does_not_exist() {
        let none = Grants::default;
        let viewing = Grants { view: vec!["HIS".to_owned()], ..none() };
        let given = Grants { own: vec!["HIS".to_owned()], ..none() };
        let all = Grants { all: true, ..none() };
        for (role, grants, hers, his, unknown) in [
            (Role::Admin, none(), (true, true), (true, true), (true, true)),
            (Role::User, none(), (true, true), (false, false), (false, false)),
            (Role::User, viewing.clone(), (true, true), (true, false), (false, false)),
            (Role::Service, given, (true, true), (true, true), (false, false)),
            (Role::Service, all.clone(), (true, true), (true, true), (true, true)),
            (Role::Viewer, viewing, (true, false), (true, false), (false, false)),
            (Role::Viewer, all, (true, false), (true, false), (true, false)),
        ] {
            let caller = caller(role, grants);
            for (account, expected) in [("HERS", hers), ("HIS", his), ("NONE", unknown)] {
                assert_eq!((caller.may_read(account), caller.may_write(account)), expected, "{role:?} {account}");
            }
        }
    }

    #[test]
    fn one_bearer_is_read_and_two_are_none() {
        let mut headers = HeaderMap::new();
        assert_eq!(bearer(&headers), None);
        headers.append(header::AUTHORIZATION, "bearer abc".parse().unwrap());
        assert_eq!(bearer(&headers), Some("abc"));
        headers.append(header::AUTHORIZATION, "Bearer abc".parse().unwrap());
        assert_eq!(bearer(&headers), None);
        headers.clear();
        headers.append(header::AUTHORIZATION, "Basic abc".parse().unwrap());
        assert_eq!(bearer(&headers), None);
    }

    #[test]
    fn behind_a_proxy_only_what_the_proxy_wrote_counts() {
        let request = || {
            let mut request = Request::new(axum::body::Body::empty());
            request.extensions_mut().insert(Peer(IpAddr::from([127, 0, 0, 1])));
            request.headers_mut().append("x-forwarded-for", "6.6.6.6, 7.7.7.7".parse().unwrap());
            request.headers_mut().append("x-forwarded-for", "8.8.8.8, 203.0.113.9".parse().unwrap());
            request
        };
        assert_eq!(Door::open().address(&request()), IpAddr::from([127, 0, 0, 1]));
        let proxied = Door { behind_proxy: true, ..Door::open() };
        assert_eq!(proxied.address(&request()), IpAddr::from([203, 0, 113, 9]));
        assert!(Door::open().is_open());
        assert!(!proxied.is_open(), "what a proxy brings in is not of this machine");
        assert!(!Door { loopback: false, ..Door::open() }.is_open());
    }
}
