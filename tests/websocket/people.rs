//! Who may open a WebSocket, what they may hear, and how it ends when their rights do.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use ureq::http::Request;

use crate::client::{Client, open};
use crate::daemon::{Daemon, line, opening, order, ordergate};
use crate::eventually;

const GOOD: &str = "correct horse battery staple";
const UNLIMITED: &[(&str, &str)] = &[("auth.logins_per_minute", "10000"), ("auth.requests_per_second", "1000000")];

/// `root` (admin), `alice` (user), `bob` (user), `eye` (viewer of ALICE1), with an account of alice's and one of bob's.
struct House {
    _dir: TempDir,
    gate: Daemon,
}

fn house() -> House {
    let dir = TempDir::new().unwrap();
    let password = dir.path().join("password");
    std::fs::write(&password, format!("{GOOD}\n")).unwrap();
    for (name, role, more) in
        [("root", "admin", &[][..]), ("alice", "user", &[]), ("bob", "user", &[]), ("eye", "viewer", &["--view", "ALICE1"])]
    {
        let (data, file) = (dir.path().to_str().unwrap(), password.to_str().unwrap());
        let mut args = vec!["user", "add", name, "--role", role, "--data-dir", data, "--password-file", file];
        args.extend(more);
        let (code, _, error) = ordergate(&args);
        assert_eq!(code, Some(0), "{error}");
    }
    let house = House { gate: Daemon::start(dir.path(), UNLIMITED), _dir: dir };
    let opened = |account: &str, owner: &str| {
        line("gate.control", account, &format!(r#"{{"event":"account_opened","account":"{account}","owner":"{owner}","cash":"100000"}}"#))
    };
    let root = house.token("root");
    let url = format!("http://{}/api/v1/records", house.gate.http);
    let lines = opening() + &opened("ALICE1", "alice") + &opened("BOB1", "bob");
    let request = house.gate.agent.post(url).header("content-type", "application/x-ndjson");
    assert_eq!(request.header("authorization", format!("Bearer {root}")).send(&lines).unwrap().status().as_u16(), 200);
    let bob = house.token("bob");
    eventually("bob's account", || house.ask(&bob, "GET", "/accounts/BOB1", &[], None).0 == 200);
    house
}

impl House {
    /// Status, body and ETag.
    fn ask(&self, token: &str, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&Value>) -> (u16, Value, String) {
        let mut request = Request::builder().method(method).uri(format!("http://{}/api/v1{path}", self.gate.http));
        request = request.header("authorization", format!("Bearer {token}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = match body {
            Some(body) => self.gate.agent.run(request.header("content-type", "application/json").body(body.to_string()).unwrap()),
            None => self.gate.agent.run(request.body(()).unwrap()),
        };
        let mut answer = answer.unwrap();
        let etag = answer.headers().get("etag").map_or_else(String::new, |tag| tag.to_str().unwrap().to_owned());
        let text = answer.body_mut().read_to_string().unwrap();
        (answer.status().as_u16(), serde_json::from_str(&text).unwrap_or(Value::Null), etag)
    }

    fn token(&self, name: &str) -> String {
        let (status, answer) =
            self.gate.post("/api/v1/auth/login", "application/json", &json!({"name": name, "password": GOOD}).to_string());
        assert_eq!(status, 200, "{answer}");
        answer["access_token"].as_str().unwrap().to_owned()
    }

    fn ticket(&self, token: &str) -> String {
        let (status, answer, _) = self.ask(token, "POST", "/auth/ws-ticket", &[], None);
        assert_eq!((status, &answer["expires_in"]), (201, &json!(30)), "{answer}");
        answer["ticket"].as_str().unwrap().to_owned()
    }

    fn open(&self, ticket: &str) -> Result<Client, (u16, Value)> {
        open(&self.gate.http, &format!("?ticket={ticket}"), &[])
    }

    fn client(&self, token: &str) -> Client {
        self.open(&self.ticket(token)).expect("it opens")
    }

    fn decide(&self, token: &str, account: &str, id: &str) {
        let intent: Value = serde_json::from_str(&order(id).replace("ACC1", account)).unwrap();
        let (status, answer, _) = self.ask(token, "POST", "/intents", &[], Some(&intent));
        assert_eq!(status, 200, "{answer}");
    }
}

#[test]
fn a_ticket_is_good_once_for_half_a_minute_and_there_is_no_other_way_in() {
    let house = house();
    let alice = house.token("alice");
    let (old, taken) = (house.ticket(&alice), Instant::now());
    let code = |refused: Result<Client, (u16, Value)>| {
        let (status, body) = refused.err().expect("it is refused");
        (status, body["code"].as_str().unwrap().to_owned())
    };
    let refused = (401, "UNAUTHENTICATED".to_owned());
    assert_eq!(code(open(&house.gate.http, "", &[])), refused);
    assert_eq!(code(house.open("made-up")), refused);
    let bearer = format!("Bearer {alice}");
    assert_eq!(code(open(&house.gate.http, "", &[("authorization", &bearer)])), refused);
    assert_eq!(code(house.open(&alice)), refused, "an access token is no ticket");
    let ticket = house.ticket(&alice);
    let mut client = house.open(&ticket).unwrap();
    assert_eq!(code(house.open(&ticket)), refused, "a ticket was used twice");
    client.subscribe("account:ALICE1");
    // A request that cannot become a WebSocket uses no ticket up.
    let ticket = house.ticket(&alice);
    assert_eq!(house.gate.get(&format!("/api/v1/ws?ticket={ticket}")).0, 426);
    assert!(house.open(&ticket).is_ok());
    std::thread::sleep(Duration::from_secs(31).saturating_sub(taken.elapsed()));
    assert_eq!(code(house.open(&old)), refused, "a ticket was good for more than 30 s");
    house.decide(&alice, "ALICE1", "I-1");
    assert_eq!(client.of("event", "account:ALICE1")["data"]["account"], "ALICE1", "the connection outlives its ticket");
}

#[test]
fn what_one_may_not_know_of_does_not_exist_and_its_decisions_are_not_told() {
    let house = house();
    let (root, alice, bob, eye) = (house.token("root"), house.token("alice"), house.token("bob"), house.token("eye"));
    let (mut of_bob, mut of_eye, mut of_root) = (house.client(&bob), house.client(&eye), house.client(&root));
    for account in ["ALICE1", "NOBODYS"] {
        assert_eq!(of_bob.refused_subscription(&format!("account:{account}"), None), "UNKNOWN_ACCOUNT", "{account}");
        assert_eq!(of_bob.refused_subscription(&format!("account:{account}"), Some("0:99999")), "UNKNOWN_ACCOUNT", "{account}");
    }
    assert_eq!(of_bob.refused_subscription("system", None), "FORBIDDEN");
    let begin = of_bob.subscribe("decisions");
    for client in [&mut of_eye, &mut of_root] {
        client.subscribe("decisions");
        client.subscribe("account:ALICE1");
    }
    house.decide(&alice, "ALICE1", "I-1");
    house.decide(&bob, "BOB1", "I-2");
    house.decide(&alice, "ALICE1", "I-3");
    let accounts = |client: &mut Client, count: usize| {
        let told = (0..count).map(|_| client.of("event", "decisions")["data"]["account"].as_str().unwrap().to_owned());
        told.collect::<Vec<_>>()
    };
    assert_eq!(accounts(&mut of_root, 3), ["ALICE1", "BOB1", "ALICE1"]);
    assert_eq!(accounts(&mut of_eye, 2), ["ALICE1", "ALICE1"]);
    assert_eq!(accounts(&mut of_bob, 1), ["BOB1"]);
    assert!(of_bob.is_silent(Duration::from_millis(500)));
    let mut again = house.client(&bob);
    again.resume("decisions", &begin);
    assert_eq!(accounts(&mut again, 1), ["BOB1"], "what is caught up with is filtered too");
    assert!(again.is_silent(Duration::from_millis(500)));
}

#[test]
fn a_logout_a_lock_and_a_grant_that_is_taken_away_end_the_connection() {
    let house = house();
    let (root, alice, bob, eye) = (house.token("root"), house.token("alice"), house.token("bob"), house.token("eye"));
    let (mut of_alice, mut of_bob, mut of_eye) = (house.client(&alice), house.client(&bob), house.client(&eye));
    let mut stays = house.client(&root);
    of_alice.subscribe("account:ALICE1");
    of_bob.subscribe("decisions");
    of_eye.subscribe("account:ALICE1");
    let begun = Instant::now();
    assert_eq!(house.ask(&alice, "POST", "/auth/logout", &[], Some(&json!({}))).0, 204);
    house.change(&root, "bob", "user", true, &json!({}));
    house.change(&root, "eye", "viewer", false, &json!({}));
    assert_eq!((of_alice.closed(), of_bob.closed(), of_eye.closed()), (4001, 4001, 4001));
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    stays.subscribe("decisions");
}

impl House {
    /// Changes a user, as `root` may.
    fn change(&self, root: &str, name: &str, role: &str, disabled: bool, accounts: &Value) {
        let path = format!("/users/{name}");
        let (_, _, tag) = self.ask(root, "GET", &path, &[], None);
        let body = json!({"role": role, "scopes": [], "accounts": accounts, "disabled": disabled});
        let (status, answer, _) = self.ask(root, "PUT", &path, &[("if-match", &tag)], Some(&body));
        assert_eq!(status, 200, "{answer}");
    }
}

#[test]
fn a_revoked_token_another_role_and_an_account_that_is_another_owners_end_the_connection() {
    let house = house();
    let (root, alice, bob, eye) = (house.token("root"), house.token("alice"), house.token("bob"), house.token("eye"));
    let (_, made, _) = house.ask(&alice, "POST", "/api-tokens", &[], Some(&json!({"name": "watcher", "scopes": []})));
    let secret = made["secret"].as_str().unwrap().to_owned();
    house.change(&root, "eye", "user", false, &json!({"own": ["ALICE1"]}));
    let (mut by_token, mut of_bob, mut of_eye) = (house.client(&secret), house.client(&bob), house.client(&eye));
    let mut stays = house.client(&alice);
    by_token.subscribe("account:ALICE1");
    of_bob.subscribe("account:BOB1");
    of_eye.subscribe("account:ALICE1");
    stays.subscribe("account:ALICE1");
    let begun = Instant::now();
    let id = made["api_token"]["id"].as_str().unwrap();
    assert_eq!(house.ask(&alice, "DELETE", &format!("/api-tokens/{id}"), &[], None).0, 204);
    house.change(&root, "bob", "viewer", false, &json!({}));
    house.change(&root, "eye", "user", false, &json!({"own": ["BOB1"]}));
    assert_eq!((by_token.closed(), of_bob.closed(), of_eye.closed()), (4001, 4001, 4001));
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    stays.subscribe("decisions");
}

#[test]
fn a_new_grant_reaches_who_is_connected_and_one_that_is_gone_silences_its_decisions() {
    let house = house();
    let (root, alice, bob, eye) = (house.token("root"), house.token("alice"), house.token("bob"), house.token("eye"));
    let mut client = house.client(&eye);
    client.subscribe("decisions");
    assert_eq!(client.refused_subscription("account:BOB1", None), "UNKNOWN_ACCOUNT");
    house.change(&root, "eye", "viewer", false, &json!({"view": ["BOB1"]}));
    client.subscribe("account:BOB1");
    assert_eq!(client.of("event", "account:BOB1")["data"]["account"], "BOB1");
    house.decide(&alice, "ALICE1", "I-1");
    house.decide(&bob, "BOB1", "I-2");
    assert_eq!(client.of("event", "decisions")["data"]["account"], "BOB1");
}
