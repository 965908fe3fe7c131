//! The paths of notifications: inbox, preferences, addresses, subscriptions, as a client meets them.

use std::net::IpAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use axum::{Extension, Router};
use http_body_util::BodyExt;
use ordergate::api::caller::Caller;
use ordergate::api::v1::{notification_contacts, notification_preferences, notifications};
use ordergate::notify::Notifier;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::world::{World, now_ms, until};

/// What a caller meets.
struct Client(Router);

struct Answer {
    status: u16,
    etag: String,
    body: Value,
}

impl Client {
    fn new(notifier: Arc<Notifier>) -> Self {
        let inside = notifications::routes().merge(notification_preferences::routes()).merge(notification_contacts::routes());
        let (inside, document) = inside.with_state(notifier.clone()).split_for_parts();
        assert_eq!(document.paths.paths.len(), 15, "{:?}", document.paths.paths.keys());
        let outside = notification_contacts::public_routes().with_state(notifier).split_for_parts().0;
        Self(inside.merge(outside).layer(Extension(Caller::open(IpAddr::from([127, 0, 0, 1])))))
    }

    async fn ask(&self, method: &str, path: &str, if_match: &str, body: Option<Value>) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if !if_match.is_empty() {
            request = request.header(header::IF_MATCH, if_match);
        }
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        let response = self.0.clone().oneshot(request.body(body).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let etag = parts.headers.get(header::ETAG).map_or_else(String::new, |tag| tag.to_str().unwrap().to_owned());
        Answer { status: parts.status.as_u16(), etag, body: serde_json::from_slice(&bytes).unwrap_or(Value::Null) }
    }

    async fn get(&self, path: &str) -> Value {
        let answer = self.ask("GET", path, "", None).await;
        assert_eq!(answer.status, StatusCode::OK.as_u16(), "{path}: {}", answer.body);
        answer.body
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_inbox_is_listed_filtered_read_and_deleted() {
    let world = World::new().await;
    let notifier = world.start(&["local"], World::options());
    world.raise(0..60, now_ms());
    until("the inbox", 10, || notifier.inbox("local").0.len() == 60).await;
    let client = Client::new(notifier.clone());
    let page = client.get("/notifications").await;
    assert_eq!((page["items"].as_array().unwrap().len(), &page["items"][0]["id"]), (50, &json!("0-59-n0")));
    let rest = client.get(&format!("/notifications?cursor={}", page["next_cursor"].as_str().unwrap())).await;
    assert_eq!((rest["items"].as_array().unwrap().len(), &rest["next_cursor"]), (10, &Value::Null));
    assert_eq!(client.ask("PUT", "/notifications/0-59-n0/read", "", None).await.status, 204);
    assert_eq!(client.ask("DELETE", "/notifications/0-58-n0", "", None).await.status, 204);
    assert_eq!(client.ask("DELETE", "/notifications/0-58-n0", "", None).await.status, 404);
    assert_eq!(client.ask("PUT", "/notifications/0-99-n0/read", "", None).await.status, 404);
    let unread = client.get("/notifications?unread=true&type=risk_breach&priority=high&limit=1").await;
    assert_eq!(unread["items"][0]["id"], "0-57-n0");
    let stats = client.get("/notifications/stats").await;
    assert_eq!((&stats["total"], &stats["unread"], &stats["by_type"]["risk_breach"]), (&59.into(), &58.into(), &59.into()));
    assert_eq!(client.ask("PUT", "/notifications/read-all", "", None).await.body["marked"], 58);
    assert_eq!(client.get("/notifications/stats").await["unread"], 0);
    for bad in
        ["/notifications?limit=0", "/notifications?limit=501", "/notifications?type=x", "/notifications?cursor=x", "/notifications?x=1"]
    {
        assert_eq!(client.ask("GET", bad, "", None).await.status, 400, "{bad}");
    }
    // Marks outlive the notifier.
    notifier.stop().await;
    let again = world.start(&["local"], World::options());
    again.filled().await;
    assert_eq!(Client::new(again).get("/notifications/stats").await["unread"], 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn preferences_are_made_once_changed_in_the_version_that_was_seen_and_previewed() {
    let world = World::new().await;
    world.person("local").await;
    let client = Client::new(world.start(&["local"], World::options()));
    let quiet = json!({"from": "00:00", "to": "23:59", "zone": "UTC"});
    let wish = json!({"type": "stop_loss", "channel": "email", "enabled": true, "min_priority": "low", "quiet_hours": quiet});
    let made = client.ask("POST", "/notification-preferences", "", Some(wish.clone())).await;
    assert_eq!((made.status, &made.body["id"]), (201, &json!("stop_loss-email")), "{}", made.body);
    assert_eq!(client.ask("POST", "/notification-preferences", "", Some(wish)).await.status, 409);
    let change = json!({"enabled": false, "min_priority": "high"});
    let path = "/notification-preferences/stop_loss-email";
    assert_eq!(client.ask("PUT", path, "", Some(change.clone())).await.status, 428);
    assert_eq!(client.ask("PUT", path, "\"1\"", Some(change.clone())).await.status, 412);
    let seen = client.ask("GET", path, "", None).await;
    let preview = client.get("/notification-preferences/preview?type=stop_loss&channel=email&priority=urgent").await;
    assert!(preview["reason"].as_str().unwrap().starts_with("at once"), "{preview}");
    let changed = client.ask("PUT", path, &seen.etag, Some(change)).await;
    assert_eq!((changed.status, &changed.body["enabled"]), (200, &json!(false)), "{}", changed.body);
    let preview = client.get("/notification-preferences/preview?type=stop_loss&channel=email&priority=urgent").await;
    assert_eq!((&preview["at"], &preview["preference"]), (&Value::Null, &json!("stop_loss-email")));
    assert_eq!(client.ask("DELETE", path, &changed.etag, None).await.status, 204);
    assert_eq!(client.ask("GET", path, "", None).await.status, 404);
    for bad in [
        json!({"channel": "email"}),
        json!({"channel": "in_app", "enabled": true, "min_priority": "low"}),
        json!({"channel": "email", "enabled": true, "min_priority": "huge"}),
        json!({"channel": "email", "enabled": true, "min_priority": "low", "type": "weather"}),
        json!({"channel": "email", "enabled": true, "min_priority": "low", "extra": 1}),
        json!({"channel": "email", "enabled": true, "min_priority": "low", "quiet_hours": ["00:00", "01:00", "UTC"]}),
        json!({"channel": "email", "enabled": true, "min_priority": "low", "quiet_hours": {"from": "24:00", "to": "01:00", "zone": "UTC"}}),
        json!({"channel": "email", "enabled": true, "min_priority": "low", "snooze_until": "2999-01-01T00:00:00Z"}),
    ] {
        let refused = client.ask("POST", "/notification-preferences", "", Some(bad.clone())).await;
        assert_eq!(refused.status, 422, "{bad}: {}", refused.body);
    }
    let tested = client.ask("POST", "/notification-preferences/test", "", Some(json!({"channel": "webhook"}))).await;
    assert_eq!(tested.body, json!({"results": [{"status": "sent"}]}));
    assert!(world.webhook.received()[0].body.contains("\"test\":true"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn addresses_and_subscriptions_are_set_shown_and_removed() {
    let world = World::new().await;
    let client = Client::new(world.start(&["local"], World::options()));
    let set = client.ask("PUT", "/notification-contacts/email", "", Some(json!({"address": "me@example.com"}))).await;
    assert_eq!((set.status, &set.body["verified"]), (200, &json!(false)), "{}", set.body);
    assert_eq!(client.ask("POST", "/notification-contacts/email/verify", "", None).await.status, 429);
    assert_eq!(client.ask("POST", "/notification-contacts/email/confirm", "", Some(json!({"code": "x"}))).await.status, 422);
    assert_eq!(client.ask("PUT", "/notification-contacts/email", "", Some(json!({"address": "none"}))).await.status, 422);
    assert_eq!(client.ask("PUT", "/notification-contacts/fax", "", Some(json!({"address": "1"}))).await.status, 404);
    assert_eq!(client.ask("GET", "/notification-contacts/confirm?token=%3Cscript%3E", "", None).await.status, 400);
    assert_eq!(client.ask("GET", "/notification-contacts/confirm?token=abc.def", "", None).await.status, 200);
    let hook = client.ask("PUT", "/notification-contacts/webhook", "", Some(json!({"address": world.url_of("local")}))).await;
    assert_eq!((hook.status, &hook.body["verified"]), (200, &json!(false)), "its owner has not had its secret yet: {}", hook.body);
    assert!(hook.body["secret"].as_str().unwrap().starts_with("whsec_"));
    world.tell_secret("local", 1);
    let proved = client.ask("POST", "/notification-contacts/webhook/verify", "", None).await;
    assert_eq!(proved.body["verified"], true, "{}", proved.body);
    assert_eq!(client.get("/notification-contacts").await["items"].as_array().unwrap().len(), 2);
    assert_eq!(client.ask("DELETE", "/notification-contacts/webhook", "", None).await.status, 204);
    assert_eq!(client.ask("DELETE", "/notification-contacts/webhook", "", None).await.status, 404);
    let keys = json!({"p256dh": world.browser.0, "auth": world.browser.1});
    let browser = json!({"endpoint": format!("http://{}/x", world.push.at), "keys": keys, "expirationTime": null});
    let made = client.ask("POST", "/push-subscriptions", "", Some(browser.clone())).await;
    assert_eq!(made.status, 201, "{}", made.body);
    client.ask("POST", "/push-subscriptions", "", Some(browser)).await;
    let listed = client.get("/push-subscriptions").await;
    assert_eq!(listed["items"].as_array().unwrap().len(), 1, "the same browser is one");
    assert!(listed["application_server_key"].is_string());
    let broken = json!({"endpoint": "https://push.example/", "keys": {"p256dh": "AAAA", "auth": "AAAA"}});
    assert_eq!(client.ask("POST", "/push-subscriptions", "", Some(broken)).await.status, 422);
    let path = format!("/push-subscriptions/{}", made.body["id"].as_str().unwrap());
    assert_eq!(client.ask("DELETE", &path, "", None).await.status, 204);
    assert_eq!(client.ask("DELETE", &path, "", None).await.status, 404);
}
