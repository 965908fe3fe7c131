//! Brokers on this machine that check signatures, refuse, redirect, hang and talk too much.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::world::{NOW, runtime};
use crate::vault::broker::{Options, may_be_asked};
use crate::vault::{Basis, Broker, Brokers, BrokersError, Environment, Outcome, Secrets};

/// What a broker was asked: path with query, and headers.
type Asked = Arc<Mutex<Vec<(String, BTreeMap<String, String>)>>>;

#[derive(Clone, Copy)]
enum Manner {
    Takes,
    Answers(u16, &'static str),
    Redirects,
    Hangs,
    Echoes,
    Floods,
}

async fn answer(State((manner, asked)): State<(Manner, Asked)>, request: Request) -> Response {
    let headers = request.headers().iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
    let seen = (request.uri().to_string(), headers.collect::<BTreeMap<_, _>>());
    asked.lock().unwrap().push(seen.clone());
    match manner {
        Manner::Takes => "{}".into_response(),
        Manner::Answers(status, body) => (StatusCode::from_u16(status).unwrap(), body).into_response(),
        Manner::Redirects => (StatusCode::FOUND, [(header::LOCATION, "/elsewhere")]).into_response(),
        Manner::Hangs => {
            tokio::time::sleep(Duration::from_secs(60)).await;
            "{}".into_response()
        }
        Manner::Echoes => (StatusCode::BAD_REQUEST, format!("{seen:?}")).into_response(),
        Manner::Floods => (StatusCode::BAD_REQUEST, format!("{{\"code\":-2014,\"msg\":\"{}\"}}", "x".repeat(1 << 20))).into_response(),
    }
}

async fn broker(manner: Manner) -> (Brokers, Asked) {
    let asked = Asked::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = format!("http://{}/", listener.local_addr().unwrap());
    let router = Router::new().fallback(answer).with_state((manner, asked.clone()));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let urls = ["alpaca", "alpaca_paper", "binance", "binance_paper"].map(|name| (name.to_owned(), at.clone()));
    let options = Options { urls: urls.into(), timeout: Duration::from_millis(1_500) };
    (Brokers::new(&options).unwrap(), asked)
}

fn canaries() -> Secrets {
    Secrets { key: "canarykey".into(), secret: "canarysecret".into(), passphrase: None }
}

#[test]
fn alpaca_is_asked_for_the_account_with_both_headers() {
    runtime().block_on(async {
        let (brokers, asked) = broker(Manner::Takes).await;
        let checked = brokers.check(Broker::Alpaca, Environment::Paper, &canaries(), NOW).await;
        assert_eq!((checked.basis, checked.outcome), (Basis::Broker, Outcome::Accepted));
        let (path, headers) = asked.lock().unwrap().remove(0);
        assert_eq!(path, "/v2/account");
        assert_eq!((headers["apca-api-key-id"].as_str(), headers["apca-api-secret-key"].as_str()), ("canarykey", "canarysecret"));
    });
}

#[test]
fn binance_is_asked_with_a_signed_query() {
    runtime().block_on(async {
        let (brokers, asked) = broker(Manner::Takes).await;
        let secrets = Secrets {
            key: "vmPUZE6mv9SD5VNHk4HlWFsOr6aKE2zvsw0MuIgwCIPy6utIco14y7Ju91duEh8A".into(),
            secret: "NhqPtmdSJYdKjVHjA7PZj4Mge3R5YNiP1e3UZjInClVN65XAbvqqM6A7H5fATj0j".into(),
            passphrase: None,
        };
        let checked = brokers.check(Broker::Binance, Environment::Live, &secrets, 1_499_827_319_559).await;
        assert_eq!(checked.outcome, Outcome::Accepted);
        let (path, headers) = asked.lock().unwrap().remove(0);
        // HMAC-SHA256 computed with Python's hmac.
        let signature = "82f4e72e95e63d666b6da651e82a701722ad8a785a169318d91f36f279c55821";
        assert_eq!(path, format!("/api/v3/account?recvWindow=5000&timestamp=1499827319559&signature={signature}"));
        assert_eq!(headers["x-mbx-apikey"], "vmPUZE6mv9SD5VNHk4HlWFsOr6aKE2zvsw0MuIgwCIPy6utIco14y7Ju91duEh8A");
    });
}

#[test]
fn what_a_broker_says_is_judged_by_its_status_and_number_and_never_repeated() {
    runtime().block_on(async {
        let cases = [
            (Broker::Alpaca, Manner::Answers(401, "canary"), Outcome::Refused),
            (Broker::Alpaca, Manner::Answers(403, "canary"), Outcome::Refused),
            (Broker::Alpaca, Manner::Answers(429, "canary"), Outcome::Unknown),
            (Broker::Alpaca, Manner::Answers(500, "canary"), Outcome::Unknown),
            (Broker::Alpaca, Manner::Answers(204, ""), Outcome::Unknown),
            (Broker::Binance, Manner::Answers(400, r#"{"code":-2014,"msg":"canary"}"#), Outcome::Refused),
            (Broker::Binance, Manner::Answers(400, r#"{"code":-1021,"msg":"canary: clock"}"#), Outcome::Unknown),
            (Broker::Binance, Manner::Answers(418, "canary"), Outcome::Unknown),
            (Broker::Binance, Manner::Redirects, Outcome::Unknown),
            (Broker::Alpaca, Manner::Redirects, Outcome::Unknown),
            (Broker::Alpaca, Manner::Echoes, Outcome::Unknown),
            (Broker::Binance, Manner::Echoes, Outcome::Unknown),
            (Broker::Binance, Manner::Floods, Outcome::Unknown),
            (Broker::Alpaca, Manner::Hangs, Outcome::Unknown),
        ];
        for (of, manner, outcome) in cases {
            let (brokers, asked) = broker(manner).await;
            let checked = brokers.check(of, Environment::Live, &canaries(), NOW).await;
            assert_eq!((checked.basis, checked.outcome), (Basis::Broker, outcome), "{checked:?}");
            assert!(!format!("{checked:?}").contains("canary"), "{checked:?}");
            assert_eq!(asked.lock().unwrap().len(), 1, "nothing is asked twice, and no redirect followed");
        }
    });
}

#[test]
fn a_broker_that_is_not_there_is_told_without_the_signature_that_was_meant_for_it() {
    runtime().block_on(async {
        let urls = BTreeMap::from([("binance".to_owned(), "http://127.0.0.1:1".to_owned())]);
        let brokers = Brokers::new(&Options { urls, timeout: Duration::from_secs(2) }).unwrap();
        let checked = brokers.check(Broker::Binance, Environment::Live, &canaries(), NOW).await;
        assert_eq!((checked.outcome, checked.detail.as_str()), (Outcome::Unknown, "the broker could not be reached"));
        let unsendable = Secrets { key: "a".into(), secret: "canary\nline".into(), passphrase: None };
        let checked = brokers.check(Broker::Alpaca, Environment::Live, &unsendable, NOW).await;
        assert_eq!((checked.basis, checked.outcome), (Basis::Format, Outcome::Unusual));
    });
}

#[test]
fn secrets_go_over_tls_or_stay_on_this_machine() {
    for fine in ["https://api.alpaca.markets", "https://x.example/base", "http://127.0.0.1:8", "http://localhost", "http://[::1]:8"] {
        assert!(may_be_asked(fine), "{fine}");
    }
    let wrong =
        ["http://api.alpaca.markets", "http://127.0.0.1.example", "ftp://127.0.0.1", "https://u@x.example", "https://u:p@x.example"];
    for wrong in wrong.into_iter().chain(["https://x.example/?a=b", "https://x.example/#f", "x.example", "", "file:///etc"]) {
        assert!(!may_be_asked(wrong), "{wrong}");
    }
    let named =
        |name: &str, at: &str| Brokers::new(&Options { urls: [(name.to_owned(), at.to_owned())].into(), ..Options::default() }).err();
    assert_eq!(named("coinbase", "https://x.example"), Some(BrokersError::Name { name: "coinbase".to_owned() }));
    assert_eq!(named("alpaca", "http://x.example"), Some(BrokersError::Address { name: "alpaca".to_owned() }));
    assert_eq!(named("alpaca", "https://x.example"), None);
}
