//! People on a real log, in a directory of their own.

use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use zeroize::Zeroizing;

use super::*;
use crate::embedded::{EmbeddedLog, EmbeddedOptions};
use crate::log::{AppendDone, Extent, NewRecord, StoredRecord, Topic, Topics};

const NOW: Millis = 1_700_000_000_000;
const HOUR: Millis = 3_600_000;
const GOOD: &str = "correct horse battery staple";

struct House {
    _dir: tempfile::TempDir,
    log: EmbeddedLog,
    people: Arc<People>,
}

impl Drop for House {
    fn drop(&mut self) {
        self.people.directory.stop();
        self.log.close();
    }
}

fn house() -> House {
    let dir = tempfile::tempdir().unwrap();
    let log = EmbeddedLog::open(EmbeddedOptions::new(dir.path())).unwrap();
    let directory = DirectoryService::start(Arc::new(log.clone())).unwrap();
    let terms = Terms { issuer: "ordergate".into(), audience: "ordergate-api".into(), seconds: 600 };
    let own_key_file = dir.path().join("key.pem");
    let options = Options { terms, session_idle_ms: 2 * HOUR, session_max_ms: 5 * HOUR, key_file: None, own_key_file };
    let people = Arc::new(People::new(directory, options).unwrap());
    House { _dir: dir, log, people }
}

fn secret(text: &str) -> Zeroizing<String> {
    Zeroizing::new(text.to_owned())
}

fn new(role: Role) -> NewUser {
    NewUser { role, scopes: vec![], accounts: Grants::default(), password: Some(secret(GOOD)) }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

async fn with_alice() -> House {
    let house = house();
    house.people.add_user("root", new(Role::Admin), "cli", NOW).await.unwrap();
    house.people.add_user("alice", new(Role::User), "root", NOW).await.unwrap();
    house
}

fn outcome<T>(result: Result<T, PeopleError>) -> String {
    match result {
        Ok(_) => "ok".to_owned(),
        Err(error) => format!("{error:?}"),
    }
}

#[test]
fn a_login_gives_tokens_and_a_wrong_name_or_password_does_not() {
    runtime().block_on(async {
        let house = with_alice().await;
        let people = &house.people;
        let granted = people.login("alice", secret(GOOD), "here", NOW).await.unwrap();
        let principal = people.by_access(&granted.access, NOW).unwrap();
        assert_eq!((principal.user.id.as_str(), principal.user.body.role), ("alice", Role::User));
        for (name, password) in [("alice", "another horse battery"), ("nobody", GOOD), ("", ""), ("alice~0", GOOD)] {
            assert_eq!(outcome(people.login(name, secret(password), "here", NOW).await), "Unauthenticated", "{name}");
        }
    });
}

#[test]
fn a_refresh_token_is_good_once_and_a_second_use_ends_the_family() {
    runtime().block_on(async {
        let house = with_alice().await;
        let people = &house.people;
        let first = people.login("alice", secret(GOOD), "here", NOW).await.unwrap();
        let other = people.login("alice", secret(GOOD), "there", NOW).await.unwrap();
        let second = people.refresh(&first.refresh, NOW + HOUR).await.unwrap();
        assert_ne!(*first.refresh, *second.refresh);
        assert_eq!(outcome(people.refresh(&first.refresh, NOW + HOUR).await), "Reused");
        assert_eq!(outcome(people.refresh(&second.refresh, NOW + HOUR).await), "Unauthenticated", "the family is over");
        assert!(people.by_access(&second.access, NOW + HOUR).is_err(), "and so are its access tokens");
        assert!(people.refresh(&other.refresh, NOW + HOUR).await.is_ok(), "other sessions go on");
    });
}

#[test]
fn a_second_use_ends_the_family_also_while_the_newest_token_is_used() {
    runtime().block_on(async {
        let house = with_alice().await;
        let people = &house.people;
        for round in 0..40 {
            let first = people.login("alice", secret(GOOD), "here", NOW).await.unwrap();
            let second = people.refresh(&first.refresh, NOW).await.unwrap();
            let (newest, reused) = tokio::join!(people.refresh(&second.refresh, NOW), people.refresh(&first.refresh, NOW));
            assert!(matches!(reused, Err(PeopleError::Reused)), "round {round}");
            let third = newest.map_or(second.refresh, |granted| granted.refresh);
            assert!(people.refresh(&third, NOW).await.is_err(), "round {round}: the family goes on");
        }
    });
}

#[test]
fn of_many_who_use_one_refresh_token_at_once_one_goes_on() {
    runtime().block_on(async {
        let house = with_alice().await;
        let granted = house.people.login("alice", secret(GOOD), "here", NOW).await.unwrap();
        let token = granted.refresh.clone();
        let refresh = |people: Arc<People>, token: Zeroizing<String>| async move { people.refresh(&token, NOW + 1).await.is_ok() };
        let tries: Vec<_> = (0..8).map(|_| tokio::spawn(refresh(house.people.clone(), token.clone()))).collect();
        let mut went_on = 0;
        for one in tries {
            went_on += usize::from(one.await.unwrap());
        }
        assert!(went_on <= 1, "{went_on} have a session");
    });
}

#[test]
fn sessions_end_idle_old_logged_out_and_with_the_password() {
    runtime().block_on(async {
        let house = with_alice().await;
        let people = &house.people;
        let login = || async { people.login("alice", secret(GOOD), "here", NOW).await.unwrap() };
        let idle = login().await;
        assert_eq!(outcome(people.refresh(&idle.refresh, NOW + 2 * HOUR).await), "Unauthenticated");
        let mut kept = login().await;
        for hours in 1..5 {
            kept = people.refresh(&kept.refresh, NOW + hours * HOUR).await.unwrap();
        }
        assert_eq!(outcome(people.refresh(&kept.refresh, NOW + 5 * HOUR).await), "Unauthenticated");
        let left = login().await;
        let Proof::Session(session) = people.by_access(&left.access, NOW).unwrap().proof else { panic!("a session") };
        people.logout(&session).await.unwrap();
        assert_eq!(outcome(people.by_access(&left.access, NOW)), "Unauthenticated");
        let changed = login().await;
        people.set_password("alice", secret("another horse, another battery"), "alice", NOW).await.unwrap();
        assert_eq!(outcome(people.by_access(&changed.access, NOW)), "Unauthenticated");
        assert_eq!(outcome(people.refresh(&changed.refresh, NOW).await), "Unauthenticated");
        assert_eq!(outcome(people.login("alice", secret(GOOD), "here", NOW).await), "Unauthenticated");
        assert!(people.login("alice", secret("another horse, another battery"), "here", NOW).await.is_ok());
        people.sweep_sessions(NOW + 10 * HOUR).await.unwrap();
        assert!(people.directory.list(Kind::Session).is_empty());
    });
}

#[test]
fn one_more_session_than_a_user_may_have_replaces_the_one_that_rested_longest() {
    runtime().block_on(async {
        let house = with_alice().await;
        let people = &house.people;
        let user = people.user("alice").unwrap();
        let mut granted = Vec::new();
        for number in 0..33 {
            granted.push(people.begin(&user, "here", NOW + number).await.unwrap());
        }
        assert_eq!(people.directory.list(Kind::Session).len(), 32);
        assert!(people.by_access(&granted[0].access, NOW + 40).is_err());
        assert!(granted[1..].iter().all(|granted| people.by_access(&granted.access, NOW + 40).is_ok()));
    });
}

#[test]
fn who_is_locked_out_is_out_at_once_with_everything_they_hold() {
    runtime().block_on(async {
        let house = with_alice().await;
        let people = &house.people;
        let granted = people.login("alice", secret(GOOD), "here", NOW).await.unwrap();
        let token =
            NewToken { user: "alice".into(), name: "bot".into(), scopes: vec![Scope::IntentsWrite], expires_at: None, made_by: None };
        let shown = people.add_token("t1", token, "alice", NOW).await.unwrap();
        assert!(people.by_token(&shown.secret, NOW).is_ok());
        let user = people.user("alice").unwrap();
        let change = |disabled| UserChange { role: Role::User, scopes: vec![], accounts: Grants::default(), disabled };
        let changed = people.change_user("alice", user.version, change(true), "root").await.unwrap();
        assert_eq!(outcome(people.by_access(&granted.access, NOW)), "Unauthenticated");
        assert_eq!(outcome(people.by_token(&shown.secret, NOW)), "Unauthenticated");
        assert_eq!(outcome(people.login("alice", secret(GOOD), "here", NOW).await), "Unauthenticated");
        people.change_user("alice", changed.version, change(false), "root").await.unwrap();
        assert!(people.by_token(&shown.secret, NOW).is_ok(), "a token of one who is let in again is good again");
        assert_eq!(outcome(people.by_access(&granted.access, NOW)), "Unauthenticated", "a session is over for good");
    });
}

#[test]
fn a_token_may_do_what_it_was_made_for_and_its_user_still_may() {
    runtime().block_on(async {
        let house = with_alice().await;
        let people = &house.people;
        let token = |scopes: &[Scope], expires_at| NewToken {
            user: "root".into(),
            name: "bot".into(),
            scopes: scopes.to_vec(),
            expires_at,
            made_by: None,
        };
        let shown = people.add_token("t1", token(&[Scope::RecordsWrite], Some(NOW + HOUR)), "root", NOW).await.unwrap();
        assert!(shown.secret.starts_with("og_t1_") && shown.secret.len() > 45);
        assert_eq!(people.by_token(&shown.secret, NOW).unwrap().scopes, [Scope::RecordsWrite]);
        assert_eq!(outcome(people.by_token(&shown.secret, NOW + HOUR)), "Unauthenticated");
        assert_eq!(outcome(people.by_token(&format!("{}x", *shown.secret), NOW)), "Unauthenticated");
        assert!(outcome(people.add_token("t2", token(&[Scope::VaultReveal], None), "root", NOW).await).contains("scopes"));
        assert_eq!(outcome(people.add_token("t1", token(&[], None), "root", NOW).await), "Exists");
        people.revoke_token("t1", "root").await.unwrap();
        assert_eq!(outcome(people.by_token(&shown.secret, NOW)), "Unauthenticated");
        assert_eq!(outcome(people.revoke_token("t1", "root").await), "Unknown");
    });
}

#[test]
fn whatever_ends_a_token_ends_those_that_it_made() {
    runtime().block_on(async {
        let house = with_alice().await;
        let people = &house.people;
        let token = |made_by: Option<&str>| NewToken {
            user: "alice".into(),
            name: "bot".into(),
            scopes: vec![],
            expires_at: None,
            made_by: made_by.map(str::to_owned),
        };
        let first = people.add_token("t1", token(None), "alice", NOW).await.unwrap();
        let other = people.add_token("o1", token(None), "alice", NOW).await.unwrap();
        let mut made = vec![first];
        for number in 2..=5 {
            let maker = format!("t{}", number - 1);
            made.push(people.add_token(&format!("t{number}"), token(Some(&maker)), "alice", NOW).await.unwrap());
        }
        assert!(outcome(people.add_token("t6", token(Some("t5")), "alice", NOW).await).contains("log in"));
        assert!(made.iter().all(|token| people.by_token(&token.secret, NOW).is_ok()));
        // Erased by an instance that knows nothing of what it made.
        people.erase_token("t3", "alice").await.unwrap();
        let good: Vec<bool> = made.iter().map(|token| people.by_token(&token.secret, NOW).is_ok()).collect();
        assert_eq!(good, [true, true, false, false, false]);
        people.revoke_token("t1", "alice").await.unwrap();
        assert!(people.token("t2").is_none(), "what it made is erased");
        assert!(made.iter().all(|token| people.by_token(&token.secret, NOW).is_err()));
        assert!(people.by_token(&other.secret, NOW).is_ok());
    });
}

#[test]
fn the_first_user_is_one_who_can_administer() {
    runtime().block_on(async {
        let house = house();
        for role in [Role::Viewer, Role::User, Role::Service] {
            assert!(outcome(house.people.add_user("first", new(role), "cli", NOW).await).contains("nobody could administer"), "{role:?}");
        }
        assert!(!house.people.has_users());
        house.people.add_user("first", new(Role::Admin), "cli", NOW).await.unwrap();
        house.people.add_user("second", new(Role::Viewer), "cli", NOW).await.unwrap();
    });
}

#[test]
fn a_token_of_before_is_not_the_next_users_of_that_name() {
    runtime().block_on(async {
        let house = with_alice().await;
        let people = &house.people;
        let token = || NewToken { user: "alice".into(), name: "bot".into(), scopes: vec![], expires_at: None, made_by: None };
        let left = people.add_token("t1", token(), "alice", NOW + 5).await.unwrap();
        assert!(people.by_token(&left.secret, NOW + 6).is_ok());
        // It was written while she was removed: nobody has seen it.
        let alice = people.user("alice").unwrap();
        people.directory.write(Kind::User, "alice", alice.version, None, "root").await.unwrap();
        assert_eq!(outcome(people.by_token(&left.secret, NOW + 7)), "Unauthenticated");
        people.add_user("alice", new(Role::User), "root", NOW + 50).await.unwrap();
        assert_eq!(outcome(people.by_token(&left.secret, NOW + 60)), "Unauthenticated");
        let hers = people.add_token("t2", token(), "alice", NOW + 40).await.unwrap();
        assert!(people.by_token(&hers.secret, NOW + 60).is_ok(), "by a clock that is behind");
    });
}

#[test]
fn the_use_of_a_token_is_written_at_most_once_a_minute() {
    runtime().block_on(async {
        let house = with_alice().await;
        let people = &house.people;
        let token = NewToken { user: "alice".into(), name: "bot".into(), scopes: vec![], expires_at: None, made_by: None };
        let shown = people.add_token("t1", token, "alice", NOW).await.unwrap();
        let mut changes = people.directory.changes();
        let before = *changes.borrow_and_update();
        for at in [0, 1, 59_999, 60_000, 60_001] {
            people.by_token(&shown.secret, NOW + at).unwrap();
            if at % 60_000 == 0 {
                let noted = async {
                    while people.token("t1").unwrap().body.last_used_at != Some(NOW + at) {
                        changes.changed().await.unwrap()
                    }
                };
                tokio::time::timeout(std::time::Duration::from_secs(5), noted).await.unwrap();
            }
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        assert_eq!(people.token("t1").unwrap().version, 3, "made, and used twice");
        assert!(*changes.borrow() > before);
    });
}

#[test]
fn somebody_who_can_administer_remains() {
    runtime().block_on(async {
        let house = with_alice().await;
        let people = &house.people;
        let root = people.user("root").unwrap();
        let change = |role, disabled| UserChange { role, scopes: vec![], accounts: Grants::default(), disabled };
        assert_eq!(outcome(people.change_user("root", root.version, change(Role::Admin, true), "root").await), "LastAdmin");
        assert_eq!(outcome(people.change_user("root", root.version, change(Role::User, false), "root").await), "LastAdmin");
        assert_eq!(outcome(people.remove_user("root", root.version, "root").await), "LastAdmin");
        people.add_user("second", new(Role::Admin), "root", NOW).await.unwrap();
        assert_eq!(outcome(people.remove_user("root", root.version + 1, "second").await), "Conflict { current: 1 }");
        assert_eq!(outcome(people.remove_user("root", root.version, "second").await), "ok");
        assert!(people.user("root").is_none());
    });
}

#[test]
fn of_two_admins_who_lock_each_other_out_on_two_instances_one_remains() {
    runtime().block_on(async {
        let house = with_alice().await;
        let directory = DirectoryService::start(Arc::new(house.log.clone())).unwrap();
        let other = Arc::new(People::new(directory, house.people.options.clone()).unwrap());
        house.people.add_user("second", new(Role::Admin), "root", NOW).await.unwrap();
        let change = |disabled| UserChange { role: Role::Admin, scopes: vec![], accounts: Grants::default(), disabled };
        while other.user("second").is_none() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let both = |people: &Arc<People>| ["root", "second"].map(|name| people.user(name).unwrap());
        for round in 0..20 {
            // Both are admins again, and both instances have seen it.
            loop {
                let (here, there) = (both(&house.people), both(&other));
                for user in here.iter().filter(|user| user.body.disabled) {
                    // The other instance may just have done so.
                    let _ = house.people.change_user(&user.id, user.version, change(false), "cli").await;
                }
                if here.iter().zip(&there).all(|(here, there)| here.version == there.version && !here.body.disabled) {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            let versions = both(&other).map(|user| user.version);
            let (first, second) = tokio::join!(
                house.people.change_user("root", versions[0], change(true), "second"),
                other.change_user("second", versions[1], change(true), "root"),
            );
            let ends = [outcome(first), outcome(second)];
            assert!(ends.iter().any(|end| end != "ok"), "round {round}: {ends:?}");
            let refused = |end: &String| end == "ok" || end == "LastAdmin" || end.starts_with("Conflict");
            assert!(ends.iter().all(refused), "round {round}: {ends:?}");
            // What was answered is folded here or there: nobody is brought back afterwards.
            let locked_out = |people: &Arc<People>| both(people).iter().all(|user| user.body.disabled);
            assert!(!locked_out(&house.people) && !locked_out(&other), "round {round}: nobody is left: {ends:?}");
        }
        other.directory.stop();
    });
}

/// The log of an instance that dies after so many writes of users: what it sends then never arrives, and it hears nothing.
struct Dying {
    log: EmbeddedLog,
    left: AtomicUsize,
}

impl Topics for Dying {
    fn append(&self, records: Vec<NewRecord>, done: AppendDone) {
        let is_user = |record: &NewRecord| !record.payload.is_empty() && record.key.as_ref().is_some_and(|key| key.starts_with(b"user:"));
        let fewer = |left: usize| if records.iter().any(is_user) { left.checked_sub(1) } else { Some(left) };
        match self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fewer) {
            Ok(_) => self.log.append(records, done),
            Err(_) => std::mem::forget(done),
        }
    }

    fn read(&self, topic: Topic, partition: u32, from: u64, limit: usize) -> Result<Vec<StoredRecord>, LogError> {
        Topics::read(&self.log, topic, partition, from, limit)
    }

    fn extents(&self) -> Result<Vec<Extent>, LogError> {
        Topics::extents(&self.log)
    }

    fn changes(&self) -> tokio::sync::watch::Receiver<u64> {
        Topics::changes(&self.log)
    }

    fn refusing(&self) -> Option<LogError> {
        None
    }
}

#[test]
fn an_instance_that_dies_between_its_writes_leaves_an_admin_too() {
    runtime().block_on(async {
        let house = with_alice().await;
        house.people.add_user("second", new(Role::Admin), "root", NOW).await.unwrap();
        let change = |disabled| UserChange { role: Role::Admin, scopes: vec![], accounts: Grants::default(), disabled };
        for round in 0..12 {
            let dying = Dying { log: house.log.clone(), left: AtomicUsize::new(round % 3) };
            let directory = DirectoryService::start(Arc::new(dying)).unwrap();
            let other = People::new(directory, house.people.options.clone()).unwrap();
            let versions = ["root", "second"].map(|name| house.people.user(name).unwrap().version);
            let seen = || ["root", "second"].map(|name| other.user(name).map_or(0, |user| user.version)) == versions;
            until(seen).await;
            // Who hears nothing is dead: it does nothing more.
            let dies = tokio::time::timeout(Duration::from_millis(300), other.change_user("second", versions[1], change(true), "root"));
            let (first, second) = tokio::join!(house.people.change_user("root", versions[0], change(true), "second"), dies);
            other.directory.stop();
            let ends = (outcome(first), second.map(outcome));
            let fresh = DirectoryService::start(Arc::new(house.log.clone())).unwrap();
            let admins = People::new(fresh.clone(), house.people.options.clone()).unwrap().users();
            fresh.stop();
            let left = admins.iter().filter(|user| user.body.role == Role::Admin && !user.body.disabled).count();
            assert!(left > 0, "round {round}: nobody is left: {ends:?}");
            for name in ["root", "second"] {
                let now = admins.iter().find(|user| user.id == name).unwrap().version;
                until(|| house.people.user(name).is_some_and(|user| user.version >= now)).await;
                let user = house.people.user(name).unwrap();
                if user.body.disabled {
                    house.people.change_user(name, user.version, change(false), "cli").await.unwrap();
                }
            }
        }
    });
}

async fn until(reached: impl Fn() -> bool) {
    let begun = std::time::Instant::now();
    while !reached() {
        assert!(begun.elapsed() < Duration::from_secs(20), "it takes too long");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[test]
fn a_name_that_is_given_again_finds_nothing_of_before() {
    runtime().block_on(async {
        let house = with_alice().await;
        let people = &house.people;
        let granted = people.login("alice", secret(GOOD), "here", NOW).await.unwrap();
        let token = NewToken { user: "alice".into(), name: "bot".into(), scopes: vec![], expires_at: None, made_by: None };
        let shown = people.add_token("t1", token, "alice", NOW).await.unwrap();
        let version = people.user("alice").unwrap().version;
        people.remove_user("alice", version, "root").await.unwrap();
        people.add_user("alice", new(Role::Viewer), "root", NOW).await.unwrap();
        assert_eq!(outcome(people.by_access(&granted.access, NOW)), "Unauthenticated");
        assert_eq!(outcome(people.refresh(&granted.refresh, NOW).await), "Unauthenticated");
        assert_eq!(outcome(people.by_token(&shown.secret, NOW)), "Unauthenticated");
        assert_eq!(people.user("alice").unwrap().version, version + 2, "an erased id goes on");
    });
}

#[test]
fn users_are_made_with_what_they_may_have_only() {
    runtime().block_on(async {
        let house = with_alice().await;
        let people = &house.people;
        let add = |name: &'static str, new: NewUser| people.add_user(name, new, "root", NOW);
        assert_eq!(outcome(add("alice", new(Role::User)).await), "Exists");
        assert!(outcome(add("a:b", new(Role::User)).await).contains("name"));
        assert!(outcome(add("v", NewUser { scopes: vec![Scope::IntentsWrite], ..new(Role::Viewer) }).await).contains("scopes"));
        assert!(outcome(add("v", NewUser { scopes: vec![Scope::VaultReveal; 2], ..new(Role::User) }).await).contains("scopes"));
        let own = Grants { own: vec!["A".into()], ..Grants::default() };
        assert!(outcome(add("v", NewUser { accounts: own, ..new(Role::Viewer) }).await).contains("accounts"));
        let odd = Grants { view: vec!["A B".into()], ..Grants::default() };
        assert!(outcome(add("v", NewUser { accounts: odd, ..new(Role::Viewer) }).await).contains("accounts"));
        assert!(outcome(add("v", NewUser { password: None, ..new(Role::Viewer) }).await).contains("password"));
        assert_eq!(outcome(add("v", NewUser { password: Some(secret("password1234")), ..new(Role::User) }).await), "Weak(Common)");
        assert_eq!(outcome(add("robot", NewUser { password: None, ..new(Role::Service) }).await), "ok");
        assert_eq!(outcome(people.login("robot", secret(GOOD), "here", NOW).await), "Unauthenticated");
    });
}

#[test]
fn a_ticket_is_good_once_and_for_30_seconds_and_no_longer_than_its_session() {
    runtime().block_on(async {
        let house = with_alice().await;
        let people = &house.people;
        let granted = people.login("alice", secret(GOOD), "here", NOW).await.unwrap();
        let proof = people.by_access(&granted.access, NOW).unwrap().proof;
        let ticket = || people.ticket(Some(("alice", &proof)), NOW).unwrap();
        let once = ticket();
        assert_eq!(people.redeem(&once, NOW + 29_999).unwrap().unwrap().user.id, "alice");
        assert_eq!(outcome(people.redeem(&once, NOW)), "Unauthenticated");
        assert_eq!(outcome(people.redeem(&ticket(), NOW + 30_000)), "Unauthenticated");
        let after = ticket();
        let Proof::Session(session) = &proof else { panic!("a session") };
        people.logout(session).await.unwrap();
        assert_eq!(outcome(people.redeem(&after, NOW)), "Unauthenticated");
        assert_eq!(outcome(people.redeem(&people.ticket(None, NOW).unwrap(), NOW)), "Unauthenticated", "it is not open any more");
    });
}

#[test]
fn it_is_open_until_there_is_a_user_and_never_again() {
    runtime().block_on(async {
        let house = house();
        assert!(!house.people.has_users());
        assert!(house.people.redeem(&house.people.ticket(None, NOW).unwrap(), NOW).unwrap().is_none());
        house.people.add_user("root", new(Role::Admin), "cli", NOW).await.unwrap();
        assert!(house.people.has_users());
        house.people.directory.write(Kind::User, "root", 1, None, "cli").await.unwrap();
        assert!(house.people.has_users());
    });
}

#[test]
fn no_secret_is_in_the_log() {
    runtime().block_on(async {
        let house = with_alice().await;
        let people = &house.people;
        let granted = people.login("alice", secret(GOOD), "here", NOW).await.unwrap();
        let token = NewToken { user: "alice".into(), name: "bot".into(), scopes: vec![], expires_at: None, made_by: None };
        let shown = people.add_token("t1", token, "alice", NOW).await.unwrap();
        let topics: Arc<dyn crate::log::Topics> = Arc::new(house.log.clone());
        let records = topics.read(crate::log::Topic::Directory, 0, 0, 1_000).unwrap();
        assert!(records.len() >= 4);
        let secrets = [GOOD, granted.refresh.rsplit('.').next().unwrap(), shown.secret.splitn(3, '_').nth(2).unwrap(), &granted.access];
        for record in records {
            let text = String::from_utf8_lossy(&record.payload).into_owned();
            assert!(!secrets.iter().any(|secret| text.contains(secret)), "{text}");
        }
    });
}
