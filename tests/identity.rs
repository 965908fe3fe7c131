//! People at a real daemon on the embedded log: who gets in, with what, and what others see of it.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test ends at what it did not expect")]

mod daemon;
#[path = "identity/house.rs"]
mod house;
#[path = "identity/rights.rs"]
mod rights;

use std::io::{Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use daemon::{Daemon, line, opening, order, ordergate};
use house::{Answer, GOOD, House, add_user, ask, house};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use tempfile::TempDir;

/// So that the tests themselves are not limited.
const UNLIMITED: &[(&str, &str)] = &[("auth.logins_per_minute", "10000"), ("auth.requests_per_second", "1000000")];

#[test]
fn one_logs_in_refreshes_and_a_second_use_of_a_refresh_token_ends_the_session() {
    let house = house(UNLIMITED);
    let first = house.login("alice");
    assert_eq!((first.status, first.body["token_type"].as_str(), first.body["expires_in"].as_i64()), (200, Some("Bearer"), Some(600)));
    assert_eq!(first.header("cache-control"), "no-store");
    let me = house.as_of(&first.text("access_token"), "GET", "/api/v1/auth/me", None);
    assert_eq!(
        me.body,
        json!({"name": "alice", "role": "user", "scopes": ["intents:write"], "accounts": {"all": false, "own": [], "view": []}, "proof": "session"})
    );
    let refresh = |token: &str| house.ask("POST", "/api/v1/auth/refresh", &[], Some(&json!({"refresh_token": token})));
    let second = refresh(&first.text("refresh_token"));
    assert_eq!(second.status, 200, "{}", second.body);
    assert_ne!(first.text("refresh_token"), second.text("refresh_token"));
    assert_eq!(refresh(&first.text("refresh_token")).code(), (401, "REFRESH_REUSED"));
    assert_eq!(refresh(&second.text("refresh_token")).code(), (401, "UNAUTHENTICATED"));
    let gone = house.as_of(&second.text("access_token"), "GET", "/api/v1/auth/me", None);
    assert_eq!((gone.code(), gone.header("www-authenticate")), ((401, "UNAUTHENTICATED"), "Bearer realm=\"ordergate\""));
    assert_eq!(gone.text("request_id"), gone.header("x-request-id"));
}

#[test]
fn a_logout_a_new_password_and_a_restart_end_what_they_should_and_nothing_else() {
    let house = house(UNLIMITED);
    let (kept, left) = (house.login("alice"), house.login("alice"));
    let long = json!({"refresh_token": "x".repeat(257)});
    for path in ["/api/v1/auth/logout", "/api/v1/auth/refresh"] {
        let refused = house.ask("POST", path, &[], Some(&long));
        assert_eq!((refused.code(), refused.body["field"].as_str()), ((422, "INVALID_FIELD"), Some("refresh_token")));
    }
    let out = house.as_of(&left.text("access_token"), "POST", "/api/v1/auth/logout", None);
    assert_eq!(out.status, 204, "{}", out.body);
    assert_eq!(house.as_of(&left.text("access_token"), "GET", "/api/v1/auth/me", None).status, 401);
    let House { dir, gate } = house;
    assert_eq!(gate.stop(), Some(0));
    let house = House { gate: Daemon::start(dir.path(), UNLIMITED), dir };
    let token = kept.text("access_token");
    assert_eq!(house.as_of(&token, "GET", "/api/v1/auth/me", None).status, 200, "a session outlives a restart");
    let change = |current: &str, new: &str| {
        house.as_of(&token, "POST", "/api/v1/auth/password", Some(&json!({"current_password": current, "new_password": new})))
    };
    let wrong = change("not that one at all", "another horse, another battery");
    assert_eq!((wrong.code(), wrong.body["field"].as_str()), ((422, "INVALID_FIELD"), Some("current_password")));
    assert_eq!(change(GOOD, "password1234").code(), (422, "WEAK_PASSWORD"));
    assert_eq!(change(GOOD, "another horse, another battery").status, 204);
    assert_eq!(house.as_of(&token, "GET", "/api/v1/auth/me", None).status, 401);
    assert_eq!(house.login("alice").code(), (401, "UNAUTHENTICATED"));
    assert_eq!(house.login("bob").status, 200);
}

/// Claims as the daemon's own key would sign them, and that key.
fn own_key(dir: &Path) -> EncodingKey {
    let pem = std::fs::read_to_string(dir.join("signing-key.pem")).unwrap();
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    EncodingKey::from_ed_der(&base64::prelude::BASE64_STANDARD.decode(body).unwrap())
}

#[test]
fn forged_tokens_are_refused_also_those_that_our_own_key_signed_wrongly() {
    let house = house(UNLIMITED);
    let token = house.token("root");
    let parts: Vec<&str> = token.split('.').collect();
    let decoded = |part: &str| serde_json::from_slice::<Value>(&BASE64_URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap();
    let encoded = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let (header, claims) = (decoded(parts[0]), decoded(parts[1]));
    let kid = header["kid"].as_str().unwrap();
    let me = |token: &str| house.as_of(token, "GET", "/api/v1/auth/me", None).status;
    assert_eq!(me(&token), 200);
    let key = own_key(house.dir.path());
    let sign = |algorithm, kid: &str, claims: &Value, key: &EncodingKey| {
        let mut header = Header::new(algorithm);
        (header.kid, header.typ) = (Some(kid.to_owned()), Some("at+jwt".to_owned()));
        encode(&header, claims, key).unwrap()
    };
    assert_eq!(me(&sign(Algorithm::EdDSA, kid, &claims, &key)), 200, "the test signs as the daemon does");
    let none = encoded(&json!({"typ": "at+jwt", "alg": "none", "kid": kid}));
    let changed = |name: &str, value: Value| {
        let mut claims = claims.clone();
        claims[name] = value;
        sign(Algorithm::EdDSA, kid, &claims, &key)
    };
    let without = |name: &str| {
        let mut claims = claims.clone();
        claims.as_object_mut().unwrap().remove(name);
        sign(Algorithm::EdDSA, kid, &claims, &key)
    };
    let now = claims["iat"].as_i64().unwrap();
    let public = public_key(house.dir.path());
    let mut forged = vec![
        ("alg none", format!("{none}.{}.", parts[1])),
        ("alg none with a signature", format!("{none}.{}.{}", parts[1], parts[2])),
        ("HS256 with the public key", sign(Algorithm::HS256, kid, &claims, &EncodingKey::from_secret(&public))),
        ("another kid", sign(Algorithm::EdDSA, "0123456789abcdef", &claims, &key)),
        ("no signature", format!("{}.{}.", parts[0], parts[1])),
        ("another's name under the same signature", format!("{}.{}.{}", parts[0], encoded(&json!({"sub": "root"})), parts[2])),
        ("expired", changed("exp", json!(now - 1))),
        ("of the future", changed("nbf", json!(now + 3_600))),
        ("made in the future", changed("iat", json!(now + 3_600))),
        ("good for a day", changed("exp", json!(now + 86_400))),
        ("of another issuer", changed("iss", json!("elsewhere"))),
        ("for another audience", changed("aud", json!("elsewhere"))),
        ("of nobody", changed("sub", json!("nobody"))),
        ("of somebody else's session", changed("sub", json!("alice"))),
        ("of no session", changed("sid", json!("root~0.00"))),
        ("with a claim more", changed("role", json!("admin"))),
        ("empty", String::new()),
        ("no token", "a.b.c".to_owned()),
        ("an API token that is none", "og_0123_secret".to_owned()),
    ];
    for name in ["iss", "aud", "sub", "exp", "nbf", "iat", "jti", "sid"] {
        forged.push((name, without(name)));
    }
    for (what, token) in forged {
        assert_eq!(me(&token), 401, "{what}");
    }
}

fn public_key(dir: &Path) -> Vec<u8> {
    openssl(dir, "pkey -in signing-key.pem -pubout -outform DER -out public.der");
    let der = std::fs::read(dir.join("public.der")).unwrap();
    der[der.len() - 32..].to_vec()
}

#[test]
fn an_unknown_name_takes_as_long_as_a_wrong_password() {
    let house = house(UNLIMITED);
    let time = |name: &str| {
        let begun = Instant::now();
        let answer = house.ask("POST", "/api/v1/auth/login", &[], Some(&json!({"name": name, "password": "not that one at all"})));
        assert_eq!(answer.body["detail"], "no such name with this password");
        begun.elapsed()
    };
    let median = |times: &mut Vec<Duration>| {
        times.sort();
        times[times.len() / 2]
    };
    let (mut known, mut unknown) = (Vec::new(), Vec::new());
    for number in 0..15 {
        known.push(time("alice"));
        unknown.push(time(&format!("nobody{number}")));
    }
    let (known, unknown) = (median(&mut known), median(&mut unknown));
    let ratio = known.as_secs_f64() / unknown.as_secs_f64();
    assert!((0.5..2.0).contains(&ratio), "known {known:?}, unknown {unknown:?}");
}

#[test]
fn who_tries_passwords_or_asks_too_often_is_told_when_to_come_again() {
    let house = house(&[("auth.logins_per_minute", "3"), ("auth.requests_per_second", "20")]);
    let token = house.token("alice");
    let tries: Vec<Answer> = (0..5).map(|_| house.login("bob")).collect();
    let refused = tries.iter().find(|answer| answer.status == 429).expect("a limit");
    assert_eq!(refused.code(), (429, "TOO_MANY_REQUESTS"));
    assert!(refused.header("retry-after").parse::<u64>().unwrap() >= 1, "{:?}", refused.headers);
    std::thread::sleep(Duration::from_millis(1_100));
    let begun = Instant::now();
    let asked: Vec<u16> = (0..60).map(|_| house.as_of(&token, "GET", "/api/v1/auth/me", None).status).collect();
    if begun.elapsed() < Duration::from_millis(1_500) {
        assert!(asked.contains(&429), "{asked:?}");
    }
    assert!(asked.contains(&200));
    std::thread::sleep(Duration::from_millis(1_100));
    assert_eq!(house.as_of(&token, "GET", "/api/v1/auth/me", None).status, 200);
}

#[test]
fn without_users_this_machine_is_the_admin_and_pages_of_others_are_not() {
    let dir = TempDir::new().unwrap();
    let gate = Daemon::start(dir.path(), &[]);
    let ready: Value = serde_json::from_str(&gate.get("/readyz").1).unwrap();
    assert_eq!(ready["access"], "no users exist: open to this machine only");
    let me = ask(&gate, "GET", "/api/v1/auth/me", &[], None);
    assert_eq!((me.status, me.body["name"].as_str(), me.body["proof"].as_str()), (200, Some("local"), Some("open")));
    assert_eq!(gate.records(&opening()).0, 200);
    let new = json!({"name": "eve", "role": "admin", "password": GOOD});
    assert_eq!(ask(&gate, "POST", "/api/v1/users", &[], Some(&new)).code(), (403, "FORBIDDEN"), "the first user is not made over HTTP");
    let evil = |headers: &[(&str, &str)]| ask(&gate, "POST", "/api/v1/intents", headers, Some(&json!({}))).code().1.to_owned();
    assert_eq!(evil(&[("host", "evil.example")]), "FOREIGN_HOST");
    assert_eq!(evil(&[("origin", "http://evil.example")]), "FOREIGN_ORIGIN");
    assert_eq!(evil(&[("origin", "null")]), "FOREIGN_ORIGIN");
    assert_eq!(evil(&[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "no-cors")]), "FOREIGN_ORIGIN");
    assert_eq!(evil(&[("content-type", "text/plain")]), "UNSUPPORTED_MEDIA_TYPE", "a form cannot send JSON");
    let preflight =
        ask(&gate, "OPTIONS", "/api/v1/intents", &[("origin", "http://evil.example"), ("access-control-request-method", "POST")], None);
    assert!(preflight.header("access-control-allow-origin").is_empty());
    let path = dir.path().to_str().unwrap();
    let (code, _, error) = ordergate(&["user", "list", "--data-dir", path]);
    assert_eq!(code, Some(3), "the log is the daemon's: {error}");
}

#[test]
fn without_users_nothing_but_loopback_without_a_proxy_is_listened_on() {
    let refused = |more: &[(&str, &str)]| {
        let dir = TempDir::new().unwrap();
        let child = daemon::spawn_with_errors(dir.path(), more);
        let output = child.wait_with_output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, error) = refused(&[("http.behind_proxy", "true")]);
    assert!(code == Some(2) && error.contains("OPEN_BEYOND_LOOPBACK") && error.contains("ordergate user add"), "{error}");
}

#[test]
fn with_users_nothing_is_told_without_a_proof() {
    let house = house(UNLIMITED);
    let ready: Value = serde_json::from_str(&house.gate.get("/readyz").1).unwrap();
    assert_eq!(ready["access"], "users only");
    // Each operation without a token is in the matrix: `tests/authorisation.rs`.
    assert_eq!(house.ask("GET", "/api/v1/auth/me", &[], None).code(), (401, "UNAUTHENTICATED"));
    assert_eq!(house.gate.get("/healthz").0, 200);
    let document = house.ask("GET", "/api/openapi.json", &[], None);
    assert_eq!((document.status, document.body["openapi"].as_str()), (200, Some("3.1.0")));
    let page = house.ask("GET", "/api/docs/", &[], None);
    assert_eq!(page.status, 200);
    assert!(page.header("content-security-policy").contains("script-src 'self';"), "{:?}", page.headers);
    assert!(page.body.as_str().unwrap().contains("swagger"));
}

#[test]
fn who_is_refused_before_the_body_was_read_hears_it_and_asks_on_over_the_same_connection() {
    let house = house(UNLIMITED);
    let body = "x".repeat(20_000);
    let request = format!(
        "POST /api/v1/intents HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        house.gate.http,
        body.len()
    );
    let mut stream = std::net::TcpStream::connect(&house.gate.http).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    for _ in 0..5 {
        stream.write_all(request.as_bytes()).unwrap();
        std::thread::sleep(Duration::from_millis(20));
        stream.write_all(body.as_bytes()).unwrap();
        let mut answer = [0; 64 * 1024];
        let read = stream.read(&mut answer).unwrap();
        assert!(answer[..read].starts_with(b"HTTP/1.1 401"), "{}", String::from_utf8_lossy(&answer[..read]));
    }
    let endless = request.replace(&format!("content-length: {}", body.len()), "content-length: 10000000");
    stream.write_all(endless.as_bytes()).unwrap();
    stream.write_all("x".repeat(200_000).as_bytes()).unwrap();
    let answer = daemon::read_some(&mut stream, 64 * 1024);
    assert!(answer.starts_with("HTTP/1.1 401") && answer.contains("connection: close"), "{answer}");
}

#[test]
fn a_token_makes_no_token_that_outlives_it() {
    let house = house(UNLIMITED);
    let make = |bearer: &str, ends: Option<&str>| {
        let mut body = json!({"name": "t", "scopes": ["intents:write"]});
        if let Some(ends) = ends {
            body["expires_at"] = ends.into();
        }
        house.as_of(bearer, "POST", "/api/v1/api-tokens", Some(&body))
    };
    let short = make(&house.token("alice"), Some("2098-01-01T00:00:00Z")).text("secret");
    for ends in [None, Some("2098-01-01T00:00:01Z")] {
        let refused = make(&short, ends);
        assert_eq!((refused.code(), refused.text("field").as_str()), ((403, "FORBIDDEN"), "expires_at"));
    }
    assert_eq!(make(&short, Some("2098-01-01T00:00:00Z")).status, 201);
    let endless = make(&house.token("alice"), None);
    let child = make(&endless.text("secret"), None);
    assert_eq!(child.status, 201);
    // Nor is it left behind when a leaked one is revoked.
    let me = || house.as_of(&child.text("secret"), "GET", "/api/v1/auth/me", None).status;
    assert_eq!(me(), 200);
    let path = format!("/api/v1/api-tokens/{}", endless.body["api_token"]["id"].as_str().unwrap());
    assert_eq!(house.as_of(&house.token("alice"), "DELETE", &path, None).status, 204);
    assert_eq!(me(), 401);
}

#[test]
fn whom_a_kill_switch_closes_does_not_end_the_closing() {
    let house = house(UNLIMITED);
    let (root, alice) = (house.token("root"), house.token("alice"));
    let order = order("I-1").replace("ACC1", "ALICE1");
    let fill = r#"{"event":"fill","exec_id":"E-1","client_order_id":"I-1","account":"ALICE1","symbol":"AAPL","side":"buy","qty":"1","price":"100"}"#;
    let lines = opening()
        + &line("gate.control", "ALICE1", r#"{"event":"account_opened","account":"ALICE1","owner":"alice","cash":"100000"}"#)
        + &line("orders.intents", "ALICE1", &order)
        + &line("orders.executions", "ALICE1", fill);
    let url = format!("http://{}/api/v1/records", house.gate.http);
    let request = house.gate.agent.post(url).header("content-type", "application/x-ndjson");
    assert_eq!(request.header("authorization", format!("Bearer {root}")).send(&lines).unwrap().status(), 200);
    let halt = |token: &str, more: &Value| {
        let mut body = json!({"state": "halted", "reason": "r"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        house.as_of(token, "POST", "/api/v1/accounts/ALICE1/state", Some(&body))
    };
    let flattening = || house.as_of(&root, "GET", "/api/v1/accounts/ALICE1/kill", None).body["flattening"].clone();
    let why = json!({"reason": "drill"});
    let begun = Instant::now();
    while house.as_of(&root, "POST", "/api/v1/accounts/ALICE1/kill", Some(&why)).status != 202 {
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
    assert_eq!(flattening(), true);
    assert_eq!(halt(&alice, &json!({})).code(), (403, "FORBIDDEN"));
    assert_eq!(halt(&alice, &json!({"symbol": "AAPL"})).status, 200, "another scope ends nothing");
    assert_eq!((halt(&alice, &json!({"flatten": true})).status, flattening()), (200, json!(true)));
    assert_eq!((halt(&root, &json!({})).status, flattening()), (200, json!(false)), "an administrator may");
    assert_eq!(halt(&root, &json!({"symbol": "AAPL", "flatten": true})).status, 200);
    assert_eq!(halt(&alice, &json!({"symbol": "AAPL"})).code(), (403, "FORBIDDEN"));
    assert_eq!(halt(&alice, &json!({"symbol": "NOBODYS"})).status, 200);
}

#[test]
fn a_foreign_account_does_not_exist_and_a_role_ends_where_it_ends() {
    let house = house(UNLIMITED);
    let (root, alice, bob, eye) = (house.token("root"), house.token("alice"), house.token("bob"), house.token("eye"));
    let lines = opening()
        + &line("gate.control", "ALICE1", r#"{"event":"account_opened","account":"ALICE1","owner":"alice","cash":"100000"}"#)
        + &line("gate.control", "BOB1", r#"{"event":"account_opened","account":"BOB1","owner":"bob","cash":"100000"}"#);
    let records = |token: &str| {
        let url = format!("http://{}/api/v1/records", house.gate.http);
        let request = house.gate.agent.post(url).header("content-type", "application/x-ndjson");
        request.header("authorization", format!("Bearer {token}")).send(&lines).unwrap().status().as_u16()
    };
    assert_eq!((records(&alice), records(&eye), records(&root)), (403, 403, 200));
    // Whose an account is, the fold knows, and it may be a moment behind the log.
    let begun = Instant::now();
    while house.as_of(&bob, "GET", "/api/v1/accounts/BOB1", None).status != 200 {
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
    let intent = |token: &str, account: &str, id: &str| {
        let body: Value = serde_json::from_str(&order(id).replace("ACC1", account)).unwrap();
        house.as_of(token, "POST", "/api/v1/intents", Some(&body))
    };
    assert_eq!(intent(&alice, "ALICE1", "I-1").body["verdict"], "allow");
    assert_eq!(intent(&root, "BOB1", "I-2").body["verdict"], "allow");
    assert_eq!(intent(&bob, "ALICE1", "I-3").code(), (404, "UNKNOWN_ACCOUNT"));
    assert_eq!(intent(&bob, "NOBODYS", "I-4").code(), (404, "UNKNOWN_ACCOUNT"), "as one that was never opened");
    assert_eq!(intent(&eye, "ALICE1", "I-5").code(), (403, "FORBIDDEN"));
    let account = |token: &str, account: &str| house.as_of(token, "GET", &format!("/api/v1/accounts/{account}"), None).status;
    for (token, alices, bobs) in [(&root, 200, 200), (&alice, 200, 404), (&bob, 404, 200), (&eye, 200, 404)] {
        assert_eq!((account(token, "ALICE1"), account(token, "BOB1")), (alices, bobs));
    }
    let topic = |token: &str, topic: &str| house.as_of(token, "GET", &format!("/api/v1/topics/{topic}/records"), None).status;
    assert_eq!((topic(&alice, "gate.decisions"), topic(&root, "gate.decisions")), (403, 200));
    assert_eq!((topic(&root, "gate.directory"), topic(&root, "gate.audit")), (404, 200), "nobody reads hashes of passwords");
    assert_eq!(house.as_of(&alice, "GET", "/api/v1/users", None).code(), (403, "FORBIDDEN"));
    assert_eq!(house.as_of(&alice, "GET", "/api/v1/users/bob", None).code(), (404, "UNKNOWN_OBJECT"));
    assert_eq!(house.as_of(&alice, "GET", "/api/v1/users/alice", None).body["name"], "alice");
}

#[test]
fn of_many_who_change_one_user_at_once_one_does_and_nothing_is_lost() {
    let house = house(UNLIMITED);
    let root = house.token("root");
    let seen = house.as_of(&root, "GET", "/api/v1/users/alice", None);
    let (tag, bearer) = (seen.header("etag").to_owned(), format!("Bearer {root}"));
    let change = |account: usize| {
        let body = json!({"role": "user", "scopes": [], "accounts": {"own": [format!("A{account}")]}, "disabled": false});
        house.ask("PUT", "/api/v1/users/alice", &[("authorization", &bearer), ("if-match", &tag)], Some(&body)).status
    };
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let asked: Vec<_> = (0..8).map(|account| scope.spawn(move || (account, change(account)))).collect();
        let answered: Vec<(usize, u16)> = asked.into_iter().map(|one| one.join().unwrap()).collect();
        let winner = answered.iter().find(|(_, status)| *status == 200).expect("one").0;
        let now = house.as_of(&root, "GET", "/api/v1/users/alice", None);
        assert_eq!(now.body["accounts"]["own"], json!([format!("A{winner}")]), "who was told 200 is what is there");
        answered.into_iter().map(|(_, status)| status).collect()
    });
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{statuses:?}");
    assert!(statuses.iter().all(|status| [200, 412].contains(status)), "{statuses:?}");
    let body = json!({"role": "user", "scopes": [], "accounts": {}, "disabled": false});
    assert_eq!(house.as_of(&root, "PUT", "/api/v1/users/alice", Some(&body)).code(), (428, "PRECONDITION_REQUIRED"));
    let odd = json!({"role": "user", "scopes": [], "accounts": [true, [], []], "disabled": false});
    let odd = house.ask("PUT", "/api/v1/users/alice", &[("authorization", &bearer), ("if-match", &tag)], Some(&odd));
    assert_eq!((odd.code(), odd.body["field"].as_str()), ((422, "INVALID_FIELD"), Some("accounts")));
}

#[test]
fn a_create_that_is_sent_again_with_its_key_makes_one_and_shows_no_secret_twice() {
    let house = house(UNLIMITED);
    let root = house.token("root");
    let bearer = format!("Bearer {root}");
    let create = |key: &str, body: &Value| {
        house.ask("POST", "/api/v1/api-tokens", &[("authorization", &bearer), ("idempotency-key", key)], Some(body))
    };
    let body = json!({"user": "bot", "name": "feed", "scopes": ["records:write"]});
    let (first, again) = (create("k-1", &body), create("k-1", &body));
    assert_eq!((first.status, again.status), (201, 201), "{}", first.body);
    assert_eq!(first.body["api_token"]["id"], again.body["api_token"]["id"]);
    assert!(first.body["secret"].is_string() && again.body["secret"].is_null());
    assert_eq!(create("k-1", &json!({"user": "bot", "name": "feed", "scopes": []})).code(), (422, "IDEMPOTENCY_KEY_REUSED"));
    assert_ne!(create("k-2", &body).body["api_token"]["id"], first.body["api_token"]["id"]);
    let ids: Vec<Value> = std::thread::scope(|scope| {
        let asked: Vec<_> = (0..6).map(|_| scope.spawn(|| create("k-3", &body))).collect();
        asked.into_iter().map(|one| one.join().unwrap()).map(|answer| answer.body["api_token"]["id"].clone()).collect()
    });
    assert!(ids.iter().all(|id| *id == ids[0] && id.is_string()), "{ids:?}");
    let user = json!({"name": "carol", "role": "user", "password": GOOD});
    let make = |key: &str| house.ask("POST", "/api/v1/users", &[("authorization", &bearer), ("idempotency-key", key)], Some(&user));
    assert_eq!((make("u-1").status, make("u-1").status), (201, 201));
    assert_eq!(make("u-2").code(), (409, "ALREADY_EXISTS"));
    assert_eq!(make("u-2").code(), (409, "ALREADY_EXISTS"), "a repeat does not claim what somebody else made");
    let other = json!({"name": "carol", "role": "user", "password": "another correct horse battery"});
    let again = house.ask("POST", "/api/v1/users", &[("authorization", &bearer), ("idempotency-key", "u-1")], Some(&other));
    assert_eq!(again.status, 201, "nothing that is kept tells of the password");
    assert_eq!(house.login("carol").status, 200, "it is still the first one");
    let secret = first.text("secret");
    let lines = opening();
    let url = format!("http://{}/api/v1/records", house.gate.http);
    let request = house.gate.agent.post(url).header("content-type", "application/x-ndjson");
    let sent = request.header("authorization", format!("Bearer {secret}")).send(&lines).unwrap();
    assert_eq!(sent.status().as_u16(), 200, "a program appends with its token");
    let id = first.body["api_token"]["id"].as_str().unwrap();
    assert_eq!(house.as_of(&secret, "GET", &format!("/api/v1/api-tokens/{id}"), None).body["user"], "bot");
    assert_eq!(house.as_of(&root, "DELETE", &format!("/api/v1/api-tokens/{id}"), None).status, 204);
    assert_eq!(house.as_of(&secret, "GET", "/api/v1/auth/me", None).status, 401);
}

#[test]
fn a_cookie_is_taken_from_our_own_pages_only() {
    let house = house(UNLIMITED);
    let body = json!({"name": "alice", "password": GOOD, "cookie": true});
    let login = house.ask("POST", "/api/v1/auth/login", &[], Some(&body));
    assert!(login.body.get("refresh_token").is_none(), "what is in a cookie is not in the answer");
    let cookie = login.header("set-cookie").to_owned();
    assert!(cookie.starts_with("__Host-ordergate-refresh=ogr_alice~"), "{cookie}");
    for wanted in ["; Path=/", "; HttpOnly", "; Secure", "; SameSite=Strict"] {
        assert!(cookie.contains(wanted), "{cookie}");
    }
    assert!(!cookie.contains("Domain"));
    let cookie = cookie.split(';').next().unwrap();
    let own = format!("http://{}", house.gate.http);
    let refresh = |headers: &[(&str, &str)]| house.ask("POST", "/api/v1/auth/refresh", headers, Some(&json!({})));
    assert_eq!(refresh(&[("cookie", cookie)]).code(), (403, "FOREIGN_ORIGIN"));
    assert_eq!(refresh(&[("cookie", cookie), ("origin", "http://evil.example")]).code(), (403, "FOREIGN_ORIGIN"));
    assert_eq!(refresh(&[("cookie", cookie), ("origin", &own), ("content-type", "text/plain")]).code(), (415, "UNSUPPORTED_MEDIA_TYPE"));
    let cross = [("cookie", cookie), ("origin", &*own), ("sec-fetch-site", "cross-site")];
    assert_eq!(refresh(&cross).code(), (403, "FOREIGN_ORIGIN"), "our own origin is no other site");
    let me = house.ask("GET", "/api/v1/auth/me", &[("cookie", cookie), ("origin", &own)], None);
    assert_eq!(me.status, 401, "a cookie proves nothing but at refresh and logout");
    let next = refresh(&[("cookie", cookie), ("origin", &own)]);
    assert_eq!(next.status, 200, "{}", next.body);
    let next_cookie = next.header("set-cookie").split(';').next().unwrap().to_owned();
    assert_ne!(next_cookie, cookie);
    let out = house.ask("POST", "/api/v1/auth/logout", &[("cookie", &next_cookie), ("origin", &own)], Some(&json!({})));
    assert_eq!((out.status, out.header("set-cookie").contains("Max-Age=0")), (204, true));
    assert_eq!(refresh(&[("cookie", &next_cookie), ("origin", &own)]).status, 401);
}

#[test]
fn the_command_line_administers_the_log_and_uses_the_api() {
    let house = house(UNLIMITED);
    let url = format!("http://{}", house.gate.http);
    let (session, password) = (house.dir.path().join("session.json"), house.dir.path().join("password"));
    let (session, password) = (session.to_str().unwrap(), password.to_str().unwrap());
    let at = ["--url", &url, "--token-file", session];
    let (code, out, error) = ordergate(&[&["login", "root", "--password-file", password], &at[..]].concat());
    assert_eq!(code, Some(0), "{out}{error}");
    let (code, secret, error) = ordergate(&[&["token", "create", "feed", "--user", "bot", "--scope", "records:write"], &at[..]].concat());
    assert!(code == Some(0) && secret.starts_with("og_"), "{error}");
    let (_, list, _) = ordergate(&[&["token", "list"], &at[..]].concat());
    assert!(list.starts_with("id ") && list.contains("bot") && list.contains("feed") && list.contains("records:write"), "{list}");
    let (_, json, _) = ordergate(&[&["token", "list", "--output", "json"], &at[..]].concat());
    let json: Value = serde_json::from_str(&json).unwrap();
    let id = json[0]["id"].as_str().unwrap();
    let (code, out, error) = ordergate(&[&["token", "revoke", id], &at[..]].concat());
    assert_eq!((code, out), (Some(0), format!("token {id} revoked\n")), "{error}");
    assert_eq!(house.as_of(secret.trim(), "GET", "/api/v1/auth/me", None).status, 401);
    let House { dir, gate } = house;
    assert_eq!(gate.stop(), Some(0));
    let data = ["--data-dir", dir.path().to_str().unwrap()];
    let (code, out, error) = ordergate(&[&["user", "disable", "alice"], &data[..]].concat());
    assert_eq!((code, out.as_str()), (Some(0), "user alice disabled\n"), "{error}");
    let (code, _, error) = ordergate(&[&["user", "disable", "root"], &data[..]].concat());
    assert!(code == Some(1) && error.contains("last admin"), "{error}");
    let (_, list, _) = ordergate(&[&["user", "list"], &data[..]].concat());
    assert!(list.lines().any(|line| line.starts_with("alice") && line.ends_with("disabled")), "{list}");
    let (_, in_the_log, _) = ordergate(&[&["user", "list", "--output", "json"], &data[..]].concat());
    std::fs::write(password, "twelve letters or more\n").unwrap();
    let (code, out, error) = ordergate(&[&["user", "password", "bob", "--password-file", password], &data[..]].concat());
    assert_eq!((code, out.as_str()), (Some(0), "password of bob set; all sessions ended\n"), "{error}");
    let house = House { gate: Daemon::start(dir.path(), UNLIMITED), dir };
    assert_eq!((house.login("alice").status, house.login("bob").status, house.login("root").status), (401, 401, 200));
    let body = json!({"name": "bob", "password": "twelve letters or more"});
    assert_eq!(house.ask("POST", "/api/v1/auth/login", &[], Some(&body)).status, 200);
    let over_the_api = house.as_of(&house.token("root"), "GET", "/api/v1/users", None).body["items"].clone();
    let of = |users: &Value, name: &str| users.as_array().unwrap().iter().find(|user| user["name"] == name).cloned().unwrap();
    let in_the_log: Value = serde_json::from_str(&in_the_log).unwrap();
    assert_eq!(of(&in_the_log, "alice"), of(&over_the_api, "alice"), "one shape, wherever it is asked for");
}

fn openssl(dir: &Path, arguments: &str) {
    let output = std::process::Command::new("openssl").args(arguments.split(' ')).current_dir(dir).output().expect("openssl is installed");
    assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// An authority, and a certificate of 127.0.0.1 with this serial number.
fn certificate(dir: &Path, serial: u32) {
    if !dir.join("ca.pem").exists() {
        openssl(dir, "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=ca -days 2 -keyout ca.key -out ca.pem");
    }
    std::fs::write(dir.join("san"), "subjectAltName=IP:127.0.0.1\n").unwrap();
    openssl(dir, "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=gate -keyout tls.key -out tls.csr");
    openssl(dir, &format!("x509 -req -in tls.csr -CA ca.pem -CAkey ca.key -set_serial {serial} -days 2 -extfile san -out tls.pem"));
}

/// The serial number of the certificate that a listener shows.
fn serial_at(at: &str) -> String {
    let asked = std::process::Command::new("sh")
        .args(["-c", &format!("openssl s_client -connect {at} </dev/null 2>/dev/null | openssl x509 -noout -serial")])
        .output()
        .unwrap();
    String::from_utf8(asked.stdout).unwrap().trim().to_owned()
}

#[test]
fn over_tls_the_certificate_is_read_again_on_sighup_and_a_broken_one_changes_nothing() {
    let dir = TempDir::new().unwrap();
    let data = dir.path().join("data");
    add_user(&data, "root", "admin", &[]);
    certificate(dir.path(), 17);
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let settings = [("tls.cert_file", path("tls.pem")), ("tls.key_file", path("tls.key"))];
    let settings: Vec<(&str, &str)> = settings.iter().map(|(key, value)| (*key, value.as_str())).collect();
    let (mut child, at) = daemon::listening(daemon::spawn(&data, &settings));
    assert_eq!(serial_at(&at), "serial=11");
    let (session, password, ca, url) = (path("session.json"), data.join("password"), path("ca.pem"), format!("https://{at}"));
    let login = ["login", "root", "--password-file", password.to_str().unwrap(), "--url", &url, "--token-file", &session, "--ca-file", &ca];
    let (code, out, error) = ordergate(&login);
    assert_eq!(code, Some(0), "{out}{error}");
    let (code, _, error) = ordergate(&["token", "list", "--url", &url, "--token-file", &session, "--ca-file", &ca]);
    assert_eq!(code, Some(0), "{error}");
    let (code, _, error) = ordergate(&login[..8]);
    assert!(code == Some(5) && error.contains("certificate"), "an authority that nobody named is not trusted: {error}");
    let hang_up = || assert!(std::process::Command::new("kill").args(["-HUP", &child.id().to_string()]).status().unwrap().success());
    std::fs::write(dir.path().join("tls.pem"), "no certificate").unwrap();
    hang_up();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(serial_at(&at), "serial=11");
    certificate(dir.path(), 18);
    hang_up();
    let begun = Instant::now();
    while serial_at(&at) != "serial=12" {
        assert!(begun.elapsed() < Duration::from_secs(10));
        std::thread::sleep(Duration::from_millis(50));
    }
    child.kill().unwrap();
    child.wait().unwrap();
}
