//! The paths of notifications: inbox, preferences, addresses, subscriptions, as a client meets them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use axum::{Extension, Router};
use http_body_util::BodyExt;
use ordergate::api::caller::{Address, Caller};
use ordergate::api::v1::{NotifyDesk, notification_contacts, notification_preferences, notifications};
use ordergate::control::audit::{self, Audit};
use ordergate::domain::Priority;
use ordergate::notify::{Notice, Notifier, Options};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::receiver::Mood;
use crate::world::{World, now_ms, until};

/// What a caller meets.
struct Client(Router);

struct Answer {
    status: u16,
    etag: String,
    body: Value,
}

impl Client {
    fn new(world: &World, notifier: Arc<Notifier>) -> Self {
        let audit = Audit::start(Arc::new(world.log.clone())).unwrap();
        let desk = Arc::new(NotifyDesk { notifier, directory: world.directory.clone(), audit });
        let address = IpAddr::from([127, 0, 0, 1]);
        let inside = notifications::routes().merge(notification_preferences::routes()).merge(notification_contacts::routes());
        let (inside, document) = inside.with_state(desk.clone()).split_for_parts();
        assert_eq!(document.paths.paths.len(), 15, "{:?}", document.paths.paths.keys());
        let outside = notification_contacts::public_routes().with_state(desk).split_for_parts().0;
        Self(inside.merge(outside).layer(Extension(Caller::open(address))).layer(Extension(Address(address))))
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

    async fn create(&self, path: &str, key: &str, body: &Value) -> Answer {
        let request = Request::builder().method("POST").uri(path).header(header::CONTENT_TYPE, "application/json");
        let request = request.header("idempotency-key", key).body(Body::from(body.to_string())).unwrap();
        let response = self.0.clone().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        Answer { status, etag: String::new(), body: serde_json::from_slice(&bytes).unwrap_or(Value::Null) }
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
    let client = Client::new(&world, notifier.clone());
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
    let read = client.get("/notifications?unread=false").await;
    assert_eq!((read["items"].as_array().unwrap().len(), &read["items"][0]["id"]), (1, &json!("0-59-n0")), "{read}");
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
    assert_eq!(Client::new(&world, again).get("/notifications/stats").await["unread"], 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn preferences_are_made_once_changed_in_the_version_that_was_seen_and_previewed() {
    let world = World::new().await;
    world.person("local").await;
    let client = Client::new(&world, world.start(&["local"], World::options()));
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
    let client = Client::new(&world, world.start(&["local"], World::options()));
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wishes_addresses_and_browsers_come_a_page_at_a_time() {
    let world = World::new().await;
    let client = Client::new(&world, world.start(&["local"], World::options()));
    for kind in ["stop_loss", "risk_breach", "system_alert"] {
        let wish = json!({"type": kind, "channel": "email", "enabled": true, "min_priority": "low"});
        assert_eq!(client.ask("POST", "/notification-preferences", "", Some(wish)).await.status, 201, "{kind}");
    }
    for (channel, address) in [("email", "me@example.com"), ("sms", "+491511234567"), ("webhook", &*world.url_of("local"))] {
        let path = format!("/notification-contacts/{channel}");
        assert_eq!(client.ask("PUT", &path, "", Some(json!({"address": address}))).await.status, 200, "{channel}");
    }
    for name in ["c", "a", "b"] {
        let keys = json!({"p256dh": world.browser.0, "auth": world.browser.1});
        let browser = json!({"endpoint": format!("http://{}/{name}", world.push.at), "keys": keys});
        assert_eq!(client.ask("POST", "/push-subscriptions", "", Some(browser)).await.status, 201, "{name}");
    }
    for (path, id) in [("/notification-preferences", "id"), ("/notification-contacts", "channel"), ("/push-subscriptions", "id")] {
        let ids = |page: &Value| page["items"].as_array().unwrap().iter().map(|item| item[id].clone()).collect::<Vec<_>>();
        let all = client.get(path).await;
        assert_eq!((ids(&all).len(), all.get("next_cursor")), (3, None), "{path}: {all}");
        let first = client.get(&format!("{path}?limit=2")).await;
        let rest = client.get(&format!("{path}?limit=2&cursor={}", first["next_cursor"].as_str().unwrap())).await;
        assert_eq!((ids(&first).len(), rest.get("next_cursor")), (2, None), "{path}");
        assert_eq!([ids(&first), ids(&rest)].concat(), ids(&all), "{path}");
        for bad in ["limit=0", "cursor=!", "from=1"] {
            assert_eq!(client.ask("GET", &format!("{path}?{bad}"), "", None).await.status, 400, "{path}?{bad}");
        }
    }
}

/// What the audit says, the oldest first: action, object, result.
fn acts(world: &World) -> Vec<(String, String, String)> {
    let page = audit::page(&world.log, None, 500, &|entry| entry.link.action != "audit.heads").unwrap();
    page.entries.into_iter().rev().map(|entry| (entry.link.action, entry.link.object, entry.link.result)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_changes_of_ones_wishes_and_addresses_is_in_the_audit_and_a_repeated_create_makes_one() {
    let world = World::new().await;
    let client = Client::new(&world, world.start(&["local"], World::options()));
    let wish = json!({"type": "stop_loss", "channel": "email", "enabled": true, "min_priority": "low"});
    let made = client.create("/notification-preferences", "k-1", &wish).await;
    assert_eq!((made.status, &made.body["id"]), (201, &json!("stop_loss-email")), "{}", made.body);
    let again = client.create("/notification-preferences", "k-1", &wish).await;
    assert_eq!((again.status, again.body), (201, made.body), "the same key makes one");
    let mut other = wish.clone();
    other["enabled"] = json!(false);
    let reused = client.create("/notification-preferences", "k-1", &other).await;
    assert_eq!((reused.status, &reused.body["code"]), (422, &json!("IDEMPOTENCY_KEY_REUSED")));
    assert_eq!(client.create("/notification-preferences", "k-2", &wish).await.status, 409, "another key is another request");
    let (endpoint, keys) = (format!("http://{}/local", world.push.at), json!({"p256dh": world.browser.0, "auth": world.browser.1}));
    let subscription = json!({"endpoint": endpoint, "keys": keys});
    let first = client.create("/push-subscriptions", "k-3", &subscription).await;
    assert_eq!(first.status, 201, "{}", first.body);
    assert_eq!(client.create("/push-subscriptions", "k-3", &subscription).await.body, first.body);
    assert_eq!(client.ask("PUT", "/notification-contacts/email", "", Some(json!({"address": "no address"}))).await.status, 422);
    let push = format!("user:local/push:{}", first.body["id"].as_str().unwrap());
    let (preference, contact) = ("user:local/preference:stop_loss-email", "user:local/contact:email");
    let expected = [
        ("preference.create", preference, "begun"),
        ("preference.create", preference, "ok"),
        ("preference.create", preference, "begun"),
        ("preference.create", preference, "ALREADY_EXISTS"),
        ("push.subscribe", &*push, "begun"),
        ("push.subscribe", &*push, "ok"),
        ("contact.set", contact, "begun"),
        ("contact.set", contact, "INVALID_FIELD"),
    ];
    assert_eq!(acts(&world), expected.map(|(action, object, result)| (action.into(), object.into(), result.into())));
    let trail = audit::page(&world.log, None, 500, &|_| true).unwrap();
    let all = trail.entries.iter().map(|entry| entry.link.changes.to_string()).collect::<String>();
    assert!(!all.contains(&world.browser.1) && !all.contains("no address"), "keys and addresses are nobody else's business: {all}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_notice_is_in_the_inbox_of_its_owner_and_goes_out_once_however_often_it_is_told() {
    let world = World::new().await;
    world.person("ann").await;
    let options = || Options { lease: Some(Duration::from_secs(600)), ..World::options() };
    let notifier = world.start(&["ann"], options());
    let notice = |key: &'static str| Notice {
        key,
        user: "ann",
        code: "API_KEY_EXPIRES",
        priority: Priority::High,
        title: "A broker key ends within 3 days".to_owned(),
        message: "The key \"main\" ends.".to_owned(),
        data: serde_json::Map::new(),
    };
    notifier.tell(&notice("key_1:3")).await.unwrap();
    notifier.tell(&notice("key_1:3")).await.unwrap();
    let (inbox, _) = notifier.inbox("ann");
    assert_eq!((inbox.len(), inbox[0].owner.as_deref(), inbox[0].code.as_str()), (1, Some("ann"), "API_KEY_EXPIRES"));
    assert!(notifier.inbox("bob").0.is_empty());
    let sent = |count| move |counts: HashMap<String, usize>| counts.get("webhook sent") == Some(&count);
    until("the notice", 20, || sent(1)(World::counts(&notifier, "ann"))).await;
    assert_eq!(notifier.deliveries("ann")[&inbox[0].id].len(), 4, "what became of it is shown");
    // Another instance, or the same after a restart, knows of it by the directory.
    let other = world.start(&["ann"], options());
    assert_eq!(other.inbox("ann").0[0].id, inbox[0].id);
    other.tell(&notice("key_1:3")).await.unwrap();
    let mut listening = [notifier.subscribe(), other.subscribe()];
    world.webhook.mood(Mood::Status(503));
    let before = world.webhook.requests();
    other.tell(&notice("key_1:0")).await.unwrap();
    until("an attempt that fails", 20, || world.webhook.requests() > before).await;
    world.webhook.mood(Mood::Well);
    until("the second notice", 20, || sent(2)(World::counts(&notifier, "ann"))).await;
    assert_eq!((world.webhook.received().len(), other.inbox("ann").0.len()), (2, 2));
    let newest = other.inbox("ann").0[0].id;
    for (name, live) in ["the one that did not write it", "the one that did"].iter().zip(&mut listening) {
        // The notice of before may still be on its way to the one that told it.
        let (mut heard, mut ids) = (None, std::collections::BTreeSet::new());
        while heard != Some(newest) {
            let (user, raised) = tokio::time::timeout(Duration::from_secs(10), live.recv()).await.expect(name).unwrap();
            assert!(&*user == "ann" && ids.insert(raised.id), "{name}");
            heard = Some(raised.id);
        }
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(listening.iter_mut().all(|live| live.try_recv().is_err()), "once each");
}
