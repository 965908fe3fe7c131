//! Each channel by itself, against a receiver that behaves and misbehaves.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ordergate::domain::Priority;
use ordergate::notify::contact::Contacts;
use ordergate::notify::email::{Email, EmailOptions, Encryption};
use ordergate::notify::http::{Guard, Lookup, Names};
use ordergate::notify::people::Subscriptions;
use ordergate::notify::push::Subscription;
use ordergate::notify::template::Rendered;
use ordergate::notify::webhook::{ChallengeError, Target, Webhook};
use ordergate::notify::{Channel, Outcome, VerifyError};

use crate::receiver::Mood;
use crate::smtp;
use crate::world::{World, now_ms};

fn rendered() -> Rendered {
    Rendered { subject: "Stop löss reached".into(), text: "text\n.\nafter a dot".into(), html: "<p>html</p>".into() }
}

fn is_down(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Later { everyone: true, .. })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mail_goes_out_over_starttls_with_its_id_and_both_bodies() {
    let world = World::new().await;
    let email = Email::new(&world.email_options()).unwrap();
    assert_eq!(email.send("ann@example.com", "ID1", &rendered()).await, Outcome::Sent);
    let mails = world.smtp.mails();
    assert_eq!((mails.len(), mails[0].to.as_str(), mails[0].id.as_str()), (1, "ann@example.com", "<ID1@example.com>"));
    for part in ["Auto-Submitted: auto-generated", "text/plain", "text/html", "<p>html</p>", "after a dot", "<gate@example.com>"] {
        assert!(mails[0].text.contains(part), "{part} is not in\n{}", mails[0].text);
    }
    assert_eq!(world.smtp.logins().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mail_server_that_fails_is_told_from_one_that_refuses() {
    let world = World::new().await;
    let send = async |mood| {
        world.smtp.mood(mood);
        // A connection of its own for each: what was pooled would be in another mood.
        Email::new(&world.email_options()).unwrap().send("ann@example.com", &format!("{mood:?}"), &rendered()).await
    };
    assert!(is_down(&send(smtp::Mood::Down).await));
    assert!(is_down(&send(smtp::Mood::Silent).await));
    assert!(is_down(&send(smtp::Mood::Dropping).await));
    assert!(is_down(&send(smtp::Mood::Forgetful).await));
    let grey = send(smtp::Mood::Greylisting).await;
    assert!(matches!(&grey, Outcome::Later { everyone: false, why, .. } if why.contains("greylisted")), "{grey:?}");
    assert_eq!(send(smtp::Mood::Greylisting).await, Outcome::Sent);
    let refused = send(smtp::Mood::Refusing).await;
    assert!(matches!(&refused, Outcome::Refused { why } if why.contains("no such user")), "{refused:?}");
    assert!(matches!(send(smtp::Mood::Plain).await, Outcome::Later { .. }), "without STARTTLS nothing is sent");
    assert_eq!(world.smtp.mails().iter().filter(|mail| mail.id.contains("Plain")).count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mail_server_with_another_certificate_or_without_encryption_gets_nothing() {
    let world = World::new().await;
    let stranger = EmailOptions { ca_file: None, ..world.email_options() };
    assert!(matches!(Email::new(&stranger).unwrap().send("ann@example.com", "X", &rendered()).await, Outcome::Later { .. }));
    assert!(world.smtp.mails().is_empty() && world.smtp.logins().is_empty(), "the password went to a stranger");
    let plain = EmailOptions { encryption: Encryption::None, host: "mail.example.com".into(), ..world.email_options() };
    assert!(Email::new(&plain).is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_is_signed_so_that_another_library_verifies_it() {
    let world = World::new().await;
    world.tell_secret("ann", 1);
    let webhook = Webhook::new(World::webhook_options(Guard::new(true))).unwrap();
    let url = world.url_of("ann");
    let target = Target { user: "ann", url: &url, generation: 1 };
    let now = now_ms() / 1_000;
    assert_eq!(webhook.challenge(&target, now).await, Ok(()));
    assert_eq!(webhook.send(&target, "ID1", br#"{"type":"x"}"#.to_vec(), now).await, Outcome::Sent);
    assert_eq!(world.webhook.received()[0].id, "ID1");
    let other = Target { generation: 2, ..target };
    assert!(matches!(webhook.challenge(&other, now).await, Err(ChallengeError::Failed(_))), "another secret is refused");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn webhooks_that_hang_redirect_fail_or_are_gone() {
    let world = World::new().await;
    world.tell_secret("ann", 1);
    let webhook = Webhook::new(World::webhook_options(Guard::new(true))).unwrap();
    let url = world.url_of("ann");
    let send = async |mood| {
        world.webhook.mood(mood);
        webhook.send(&Target { user: "ann", url: &url, generation: 1 }, "ID", b"{}".to_vec(), now_ms() / 1_000).await
    };
    assert!(is_down(&send(Mood::Hanging).await));
    let redirected = send(Mood::Redirecting).await;
    assert!(matches!(&redirected, Outcome::Refused { why } if why.contains("redirects")), "{redirected:?}");
    for status in [429, 500, 503] {
        assert!(is_down(&send(Mood::Status(status)).await), "{status}");
    }
    assert!(matches!(send(Mood::Status(404)).await, Outcome::Refused { .. }));
    assert!(matches!(send(Mood::Status(410)).await, Outcome::Gone { .. }));
    let nobody = Target { user: "ann", url: "http://127.0.0.1:1/", generation: 1 };
    assert!(is_down(&webhook.send(&nobody, "ID", b"{}".to_vec(), 0).await));
}

/// Says a public address when it is asked first, and this machine's from then on.
struct Rebinding(AtomicUsize);

impl Names for Rebinding {
    fn lookup(&self, _: String) -> Lookup {
        let first = self.0.fetch_add(1, Ordering::SeqCst) == 0;
        let address: IpAddr = if first { [93, 184, 216, 34] } else { [127, 0, 0, 1] }.into();
        Box::pin(async move { Ok(vec![address]) })
    }
}

/// Always the same addresses.
struct Fixed(Vec<IpAddr>);

impl Names for Fixed {
    fn lookup(&self, _: String) -> Lookup {
        let found = self.0.clone();
        Box::pin(async move { Ok(found) })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_changes_its_address_between_check_and_connection_reaches_nobody() {
    let world = World::new().await;
    let url = format!("https://rebind.example:{}/ann", world.webhook.at.port());
    let names = Arc::new(Rebinding(AtomicUsize::new(0)));
    let guard = Guard { allow_private: false, names: names.clone() };
    assert!(guard.look(&url).await.is_ok(), "it looks public when it is set");
    let webhook = Webhook::new(World::webhook_options(guard)).unwrap();
    let outcome = webhook.send(&Target { user: "ann", url: &url, generation: 1 }, "ID", b"{}".to_vec(), 0).await;
    assert!(matches!(&outcome, Outcome::Refused { why } if why.contains("not a public one")), "{outcome:?}");
    assert!(names.0.load(Ordering::SeqCst) >= 2);
    assert_eq!(world.webhook.requests(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_private_address_among_public_ones_is_enough_to_refuse_and_the_judged_one_is_the_one_connected_to() {
    let world = World::new().await;
    world.tell_secret("ann", 1);
    let port = world.webhook.at.port();
    let mixed = Guard { allow_private: false, names: Arc::new(Fixed(vec![[93, 184, 216, 34].into(), [10, 0, 0, 1].into()])) };
    assert!(mixed.look("https://mixed.example/").await.is_err());
    // A name that no resolver of this machine knows: that it arrives shows that our answer was the one used.
    let fixed = Guard { allow_private: true, names: Arc::new(Fixed(vec![[127, 0, 0, 1].into()])) };
    let webhook = Webhook::new(World::webhook_options(fixed)).unwrap();
    let url = format!("http://only-we-know.invalid:{port}/x");
    webhook.send(&Target { user: "ann", url: &url, generation: 1 }, "ID", b"{}".to_vec(), 0).await;
    assert_eq!(world.webhook.requests(), 1);
    for literal in ["https://127.0.0.1/", "https://[::ffff:127.0.0.1]/", "https://169.254.169.254/"] {
        let closed = Webhook::new(World::webhook_options(Guard::new(false))).unwrap();
        let outcome = closed.send(&Target { user: "ann", url: literal, generation: 1 }, "ID", b"{}".to_vec(), 0).await;
        assert!(matches!(outcome, Outcome::Refused { .. }), "{literal}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_is_decrypted_by_another_library_and_its_service_verifies_who_we_are() {
    let world = World::new().await;
    world.person("ann").await;
    let channels = world.channels();
    let push = channels.push.as_ref().unwrap();
    let subscription = world.book().get::<Subscriptions>("ann").0.subscriptions.remove(0);
    let plain = br#"{"id":"TOPIC-1","body":"x"}"#;
    let send = async |to: &Subscription| push.send(to, "TOPIC-1", Priority::Urgent, plain, now_ms() / 1_000).await;
    assert_eq!(send(&subscription).await, Outcome::Sent);
    assert_eq!(world.push.received()[0].id, "TOPIC-1");
    for (status, gone) in [(404, true), (410, true), (413, false)] {
        world.push.mood(Mood::Status(status));
        assert_eq!(matches!(send(&subscription).await, Outcome::Gone { .. }), gone, "{status}");
    }
    world.push.mood(Mood::Status(429));
    assert!(is_down(&send(&subscription).await));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_text_message_goes_out_as_a_form_and_failures_are_for_now_or_for_good() {
    let world = World::new().await;
    let channels = world.channels();
    let sms = channels.sms.as_ref().unwrap();
    assert_eq!(sms.send("+491511234567", "ID1", "stop & go").await, Outcome::Sent);
    assert!(world.sms.received()[0].body.contains("Body=stop+%26+go"), "{:?}", world.sms.received());
    assert_eq!(world.sms.received()[0].id, "ID1");
    for status in [429, 500] {
        world.sms.mood(Mood::Status(status));
        assert!(is_down(&sms.send("+491511234567", "ID2", "x").await), "{status}");
    }
    world.sms.mood(Mood::Status(400));
    assert!(matches!(sms.send("+491511234567", "ID2", "x").await, Outcome::Refused { .. }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_is_used_only_when_it_is_proved() {
    let world = World::new().await;
    let notifier = world.start(&["ann"], World::options());
    let book = world.book();
    // By the link of a mail.
    notifier.set_contact("ann", Channel::Email, "ann@example.com", "ann").await.unwrap();
    assert!(book.places_of(&"ann".into(), Channel::Email).is_empty());
    let mail = world.smtp.mails().remove(0).text.replace("=\n", "").replace("=3D", "=");
    let token = mail.split("token=").nth(1).unwrap().split(|c: char| c.is_whitespace() || c == '"').next().unwrap().to_owned();
    assert!(matches!(notifier.confirm_link(&format!("{token}x")).await, Err(VerifyError::Proof(_))));
    assert_eq!(notifier.confirm_link(&token).await.unwrap(), "ann");
    assert_eq!(book.places_of(&"ann".into(), Channel::Email).len(), 1);
    // By the code of a text message.
    notifier.set_contact("ann", Channel::Sms, "+491511234567", "ann").await.unwrap();
    let body = world.sms.received().remove(0).body;
    let code: String = body.split("Body=ordergate%3A+").nth(1).unwrap().chars().take(6).collect();
    notifier.confirm("ann", Channel::Sms, &code, "ann").await.unwrap();
    // By a challenge; a webhook that does not know its secret yet has to be asked once more.
    let url = world.url_of("ann");
    let unanswered = notifier.set_contact("ann", Channel::Webhook, &url, "ann").await;
    assert!(matches!(unanswered, Err(VerifyError::Challenge(_))), "{unanswered:?}");
    assert!(book.places_of(&"ann".into(), Channel::Webhook).is_empty());
    world.tell_secret("ann", book.get::<Contacts>("ann").0.generation);
    notifier.verify("ann", Channel::Webhook, "ann").await.unwrap();
    assert_eq!(book.places_of(&"ann".into(), Channel::Webhook).len(), 1);
    assert!(matches!(notifier.set_contact("ann", Channel::Webhook, "file:///etc/passwd", "ann").await, Err(VerifyError::Address(_))));
    notifier.remove_contact("ann", Channel::Email, "ann").await.unwrap();
    assert!(book.places_of(&"ann".into(), Channel::Email).is_empty());
}
