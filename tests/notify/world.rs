//! A gate's log and directory, people with addresses, and receivers of all four channels, on this machine.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ordergate::control::directory::DirectoryService;
use ordergate::domain::{InputTopic, Priority, Source};
use ordergate::embedded::{EmbeddedLog, EmbeddedOptions, EmbeddedShardLog};
use ordergate::log::{LogEvent, OutputRecord, OutputTag, OutputTopic, ShardLog};
use ordergate::notify::channels::Channels;
use ordergate::notify::contact::{Contact, Contacts};
use ordergate::notify::email::{Email, EmailOptions, Encryption};
use ordergate::notify::http::Guard;
use ordergate::notify::people::{AddressBook, Subscriptions};
use ordergate::notify::preference::{Preference, Preferences};
use ordergate::notify::push::{self, Push, PushOptions, Subscription, VapidKey};
use ordergate::notify::sms::{Sms, SmsOptions};
use ordergate::notify::template::Templates;
use ordergate::notify::webhook::{Webhook, WebhookOptions};
use ordergate::notify::{Audience, Backoff, Channel, Limits, Notifier, Options, UserId};
use secrecy::{SecretBox, SecretString};
use tempfile::TempDir;

use crate::receiver::{self, Browser, Receiver};
use crate::smtp::Smtp;

pub const TIMEOUT: Duration = Duration::from_millis(1_500);

/// Everybody hears of everything.
pub struct Everyone(pub Vec<UserId>);

impl Audience for Everyone {
    fn hears(&self, _: &str) -> Vec<UserId> {
        self.0.clone()
    }

    fn operators(&self) -> Vec<UserId> {
        self.0.clone()
    }
}

pub struct World {
    pub folder: TempDir,
    pub log: EmbeddedLog,
    shard: Mutex<EmbeddedShardLog>,
    pub directory: Arc<DirectoryService>,
    pub smtp: Smtp,
    pub webhook: Receiver,
    pub push: Receiver,
    pub sms: Receiver,
    secrets: Arc<Mutex<HashMap<String, String>>>,
    vapid: String,
    pub browser: (String, String),
}

impl World {
    pub async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = EmbeddedLog::open(EmbeddedOptions::new(folder.path().join("data"))).unwrap();
        let directory = DirectoryService::start(Arc::new(log.clone())).unwrap();
        let smtp = Smtp::start(folder.path()).await;
        let (webhook, push, sms) = (Receiver::start().await, Receiver::start().await, Receiver::start().await);
        let secrets = Arc::new(Mutex::new(HashMap::new()));
        webhook.judged_by(receiver::webhook(secrets.clone()));
        let browser = Browser::new(7);
        let keys = (browser.p256dh.clone(), browser.auth.clone());
        push.judged_by(browser.judge());
        sms.judged_by(receiver::twilio());
        let shard = Mutex::new(log.shard_log());
        let vapid = push::generate_key().unwrap();
        Self { folder, log, shard, directory, smtp, webhook, push, sms, secrets, vapid, browser: keys }
    }

    pub fn email_options(&self) -> EmailOptions {
        EmailOptions {
            host: "localhost".into(),
            port: self.smtp.at.port(),
            encryption: Encryption::StartTls,
            login: Some(("gate".into(), SecretString::from("secret"))),
            from: "Order gate <gate@example.com>".into(),
            ca_file: Some(self.folder.path().join("ca.pem")),
            timeout: TIMEOUT,
            connections_max: 8,
        }
    }

    pub fn webhook_options(guard: Guard) -> WebhookOptions {
        let key = Arc::new(SecretBox::new(vec![9_u8; 32].into_boxed_slice()));
        WebhookOptions { key, guard, timeout: TIMEOUT, ca_file: None }
    }

    pub fn channels(&self) -> Channels {
        let guard = Guard::new(true);
        let sms = SmsOptions {
            url: format!("http://{}", self.sms.at).parse().unwrap(),
            account: "AC1".into(),
            token: SecretString::from("token"),
            from: "+15550001".into(),
            timeout: TIMEOUT,
        };
        let push = PushOptions {
            key: VapidKey::from_pem(&self.vapid).unwrap(),
            subject: "mailto:ops@example.com".into(),
            guard: guard.clone(),
            timeout: TIMEOUT,
            ca_file: None,
        };
        Channels {
            email: Some(Email::new(&self.email_options()).unwrap()),
            push: Some(Push::new(push).unwrap()),
            sms: Some(Sms::new(sms).unwrap()),
            webhook: Some(Webhook::new(Self::webhook_options(guard)).unwrap()),
            templates: Templates::load(None, "https://gate.example").unwrap(),
        }
    }

    pub fn book(&self) -> AddressBook {
        AddressBook::new(self.directory.clone(), Channel::ALL.to_vec())
    }

    pub fn url_of(&self, user: &str) -> String {
        format!("http://{}/{user}", self.webhook.at)
    }

    /// Tells the receiver a webhook's secret, as its owner would.
    pub fn tell_secret(&self, user: &str, generation: u64) {
        let webhook = Webhook::new(Self::webhook_options(Guard::new(true))).unwrap();
        let secret = webhook.secret(user, &self.url_of(user), generation);
        self.secrets.lock().unwrap().insert(format!("/{user}"), secret);
    }

    /// A person with verified addresses on all channels, who wants everything.
    pub async fn person(&self, user: &str) {
        let book = self.book();
        let verified = |address: String| Some(Contact { verified_at: Some(1), ..Contact::new(address) });
        let made = book.change(user, "test", None, |contacts: &mut Contacts| {
            contacts.email = verified(format!("{user}@example.com"));
            contacts.sms = verified("+491511234567".into());
            contacts.webhook = verified(self.url_of(user));
            contacts.generation = 1;
            Ok::<_, ()>(())
        });
        made.await.unwrap();
        self.tell_secret(user, 1);
        let endpoint = format!("http://{}/{user}", self.push.at);
        let subscription =
            Subscription { id: push::id_of(&endpoint), endpoint, p256dh: self.browser.0.clone(), auth: self.browser.1.clone(), created: 0 };
        let made = book.change(user, "test", None, |held: &mut Subscriptions| {
            held.subscriptions = vec![subscription.clone()];
            Ok::<_, ()>(())
        });
        made.await.unwrap();
        let everything = |channel| Preference { min_priority: Priority::Low, ..Preference::default_of(channel) };
        let made = book.change(user, "test", None, |held: &mut Preferences| {
            held.preferences = Channel::ALL.map(everything).to_vec();
            Ok::<_, ()>(())
        });
        made.await.unwrap();
    }

    pub fn options() -> Options {
        let backoff = Backoff { first: Duration::from_millis(100), most: Duration::from_secs(1) };
        let limits = Limits { backoff, storm_per_minute: 1_000_000, place_in_flight: 8, channel_in_flight: 16, ..Limits::default() };
        Options { limits, ..Options::default() }
    }

    pub fn start(&self, users: &[&str], options: Options) -> Arc<Notifier> {
        let audience = Arc::new(Everyone(users.iter().map(|user| (*user).into()).collect()));
        let runtime = tokio::runtime::Handle::current();
        Notifier::start(&runtime, Arc::new(self.log.clone()), self.directory.clone(), audience, self.channels(), options)
    }

    /// Puts notifications onto the log, as a shard does.
    pub fn raise(&self, seqs: std::ops::Range<u64>, at: i64) {
        let mut shard = self.shard.lock().unwrap();
        let count = seqs.end - seqs.start;
        for seq in seqs {
            let payload = serde_json::json!({
                "event": "notification", "notification_id": format!("0-{seq}-n0"), "account": "ACC1", "owner": "ann", "type": "risk_breach",
                "code": "RULE_BREACH", "priority": "high", "title": "Risk rule breached",
                "message": format!("Account ACC1: a risk rule is breached; order O-{seq}."),
                "data": {"rule_id": "r-1", "current": "12.5"}, "shard": 0, "seq": seq, "at": at,
            });
            let output = OutputRecord {
                topic: OutputTopic::Notifications,
                tag: OutputTag { shard: 0, seq, index: 0 },
                source: Source { topic: InputTopic::Intents, partition: 0, offset: seq },
                key: Some(b"ACC1".to_vec()),
                payload: payload.to_string().into_bytes(),
            };
            shard.publish(seq, output).unwrap();
        }
        let (mut events, mut published, begun) = (Vec::new(), 0, Instant::now());
        while published < count {
            assert!(begun.elapsed() < Duration::from_secs(60), "{published} of {count} were published");
            shard.poll(&mut events, 0, Duration::from_millis(50)).unwrap();
            published += events.drain(..).filter(|event| matches!(event, LogEvent::Published { .. })).count() as u64;
        }
    }

    /// What is not settled of a person's deliveries.
    pub fn counts(notifier: &Notifier, user: &str) -> HashMap<String, usize> {
        let counts = notifier.delivery_counts(user);
        let flat =
            counts.iter().flat_map(|(channel, states)| states.iter().map(move |(state, count)| (format!("{channel} {state}"), *count)));
        flat.collect()
    }
}

pub fn now_ms() -> i64 {
    i64::try_from(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// Waits until something is so.
pub async fn until(what: &str, seconds: u64, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(seconds), "{what} takes longer than {seconds} s");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
