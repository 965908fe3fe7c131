//! What operations are about, and how whoever asks stands to it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::daemon::{line, order};
use crate::world::{Column, FOREIGN, GRANTED, Who, World};

/// What an operation is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Object {
    /// Nothing of anybody's.
    Nothing,
    Account,
    Rule,
    Key,
    /// A user, or in a body whose something will be.
    Person,
    Token,
    Preference,
    Contact,
    /// One's own webhook, proved; not named in the request.
    Webhook,
    Push,
    Notification,
    Decision,
    Symbol,
    Topic,
}

/// How one stands to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    Own,
    /// Granted to look at.
    Granted,
    Foreign,
    Absent,
    /// Everybody's.
    Common,
}

use Standing::{Absent, Common, Foreign, Granted, Own};

impl Object {
    /// The standings that there are, in the table's order.
    pub const fn standings(self) -> &'static [Standing] {
        match self {
            Self::Nothing => &[Common],
            Self::Account | Self::Notification | Self::Decision => &[Own, Granted, Foreign, Absent],
            Self::Rule => &[Own, Granted, Foreign, Absent, Common],
            Self::Key | Self::Person | Self::Token | Self::Preference | Self::Push => &[Own, Foreign, Absent],
            Self::Contact => &[Own, Absent],
            Self::Webhook => &[Own],
            Self::Symbol => &[Common, Absent],
            // The decisions, the audit trail, and the directory, which nobody reads.
            Self::Topic => &[Common, Foreign, Absent],
        }
    }
}

/// An object for one cell.
#[derive(Clone, Debug, Default)]
pub struct Made {
    pub id: String,
    pub tag: Option<String>,
    /// The account that it is of.
    pub account: String,
    /// The latch that is tripped on the account.
    pub latch: String,
}

impl Made {
    fn named(id: impl Into<String>) -> Self {
        Self { id: id.into(), ..Self::default() }
    }
}

/// Who asks in a cell, and how.
pub struct Asking<'a> {
    pub column: Column,
    pub who: &'a Who,
    pub standing: Standing,
    /// Nothing changes: what was made for another such cell will do.
    pub only_looks: bool,
    pub latched: bool,
}

/// Makes what cells are about.
#[derive(Default)]
pub struct Maker {
    looked_at: RefCell<BTreeMap<(Column, Standing), String>>,
}

impl Maker {
    pub fn make(&self, world: &World, object: Object, asking: &Asking<'_>) -> Made {
        let Asking { who, standing, .. } = *asking;
        match object {
            Object::Nothing => Made::default(),
            Object::Account => self.account(world, asking),
            Object::Rule => self.rule(world, asking),
            Object::Notification => notification(world, asking, self.account(world, asking)),
            Object::Decision => decision(world, asking, self.account(world, asking)),
            Object::Key => key(world, who, standing),
            Object::Person => person(world, who, standing),
            Object::Token => token(world, who, standing),
            Object::Preference => preference(world, &who.writing(), standing),
            Object::Contact if standing == Absent => Made::named("push"),
            Object::Contact | Object::Webhook => webhook(world, &who.writing()),
            Object::Push => push(world, &who.writing(), standing),
            Object::Symbol => Made::named(if standing == Absent { "NOPE" } else { "AAPL" }),
            Object::Topic => Made::named(match standing {
                Common | Own | Granted => "gate.decisions",
                Foreign => "gate.audit",
                Absent => "gate.directory",
            }),
        }
    }

    fn account(&self, world: &World, asking: &Asking<'_>) -> Made {
        let Asking { column, standing, .. } = *asking;
        let known = self.looked_at.borrow().get(&(column, standing)).filter(|_| asking.only_looks).cloned();
        let id = known.unwrap_or_else(|| match standing {
            Own | Common => opened(world, "OWN", &asking.who.name),
            // Who may change it all the same gets one to change.
            Granted if column == Column::Admin => opened(world, FOREIGN, "zoe"),
            Granted => GRANTED.to_owned(),
            Foreign => opened(world, FOREIGN, "zoe"),
            Absent => format!("NOBODY-{}", world.number()),
        });
        if asking.only_looks {
            self.looked_at.borrow_mut().insert((column, standing), id.clone());
        }
        let latch = if asking.latched && standing != Absent && id != GRANTED { tripped(world, &id) } else { "none".to_owned() };
        Made { account: id.clone(), id, latch, tag: None }
    }

    fn rule(&self, world: &World, asking: &Asking<'_>) -> Made {
        if asking.standing == Absent {
            return Made { tag: Some("\"1\"".to_owned()), ..Made::named("none") };
        }
        let account = if asking.standing == Common { Made::default() } else { self.account(world, asking) };
        let id = format!("r-{}", world.number());
        let made = world.made("/risk-rules", &rule(&id, &account.account));
        Made { tag: made.tag, id, ..account }
    }
}

/// A rule that binds nobody, of an account or of all.
pub fn rule(id: &str, account: &str) -> Value {
    let mut rule = json!({"id": id, "type": "max_leverage", "threshold": "1000", "unit": "ratio", "action": "alert"});
    if !account.is_empty() {
        rule["scope"] = json!({"account": account});
    }
    rule
}

fn opened(world: &World, prefix: &str, owner: &str) -> String {
    let account = format!("{prefix}-{}", world.number());
    world.open(&account, owner);
    account
}

fn fill(world: &World, account: &str, qty: &str, price: &str) -> String {
    let (exec, order) = (world.number(), world.number());
    let payload = json!({"event": "fill", "exec_id": format!("E-{exec}"), "client_order_id": format!("X-{order}"), "account": account,
                         "symbol": "AAPL", "side": "buy", "qty": qty, "price": price});
    line("orders.executions", account, &payload.to_string())
}

/// Loses so much that a drawdown rule latches.
fn tripped(world: &World, account: &str) -> String {
    let id = format!("L-{account}");
    let rule =
        json!({"id": id, "type": "max_drawdown", "threshold": "100", "unit": "dollars", "action": "block", "scope": {"account": account}});
    world.made("/risk-rules", &rule);
    world.records(&fill(world, account, "10", "120"));
    let blocked = ordered(world, account);
    assert_eq!(blocked["verdict"], "block", "{blocked}");
    id
}

fn ordered(world: &World, account: &str) -> Value {
    let body: Value = serde_json::from_str(&order(&format!("I-{}", world.number())).replace("ACC1", account)).unwrap();
    world.made("/intents", &body).json()
}

fn decision(world: &World, asking: &Asking<'_>, account: Made) -> Made {
    if asking.standing == Absent {
        return Made::named("0-999999999");
    }
    let decided = ordered(world, &account.id);
    Made { id: decided["decision_id"].as_str().unwrap().to_owned(), ..account }
}

/// A fill of an order that nobody knows raises a notification to everyone who may look at the account.
fn notification(world: &World, asking: &Asking<'_>, account: Made) -> Made {
    if asking.standing == Absent {
        return Made::named("0-999999-n0");
    }
    let newest = |who: &Who| -> Option<String> {
        let inbox = world.ask(who, "GET", "/api/v1/notifications?limit=500", &[], None).json();
        let found = inbox["items"].as_array().unwrap().iter().find(|item| item["account"] == account.id.as_str())?;
        Some(found["id"].as_str().unwrap().to_owned())
    };
    let before = newest(&world.keeper);
    world.records(&fill(world, &account.id, "1", "100"));
    let hears = asking.standing != Foreign || asking.column == Column::Admin;
    let begun = Instant::now();
    loop {
        assert!(begun.elapsed() < Duration::from_secs(20), "no notification about {}", account.id);
        let raised = newest(&world.keeper).filter(|id| before.as_ref() != Some(id));
        if let Some(id) = raised
            && (!hears || newest(asking.who).as_ref() == Some(&id))
        {
            return Made { id, ..account };
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn key(world: &World, who: &Who, standing: Standing) -> Made {
    let (owner, name) = match standing {
        Absent => return Made { tag: Some("\"1\"".to_owned()), ..Made::named("key_0123") },
        Own | Granted | Common => (&who.name, "a key"),
        Foreign => (&world.zoe.name, "FOREIGN key"),
    };
    let body = json!({"owner": owner, "broker": "robinhood", "name": name, "environment": "paper", "key": "PKABCDEFGHIJ12345678", "secret": "s3cret"});
    let made = world.made("/api-keys", &body);
    Made { id: made.text_of("id"), tag: made.tag, ..Made::default() }
}

fn person(world: &World, who: &Who, standing: Standing) -> Made {
    let name = match standing {
        Own | Granted | Common => who.name.clone(),
        Foreign => {
            let name = format!("foreign-{}", world.number());
            world.made("/users", &json!({"name": name, "role": "service"}));
            name
        }
        Absent => return Made { tag: Some("\"1\"".to_owned()), ..Made::named("nobody") },
    };
    let seen = world.ask(&world.keeper, "GET", &format!("/api/v1/users/{name}"), &[], None);
    Made { tag: seen.tag, ..Made::named(name) }
}

fn token(world: &World, who: &Who, standing: Standing) -> Made {
    let (user, name) = match standing {
        Absent => return Made::named("0123456789abcdef"),
        Own | Granted | Common => (&who.name, "a token"),
        Foreign => (&world.zoe.name, "FOREIGN token"),
    };
    let made = world.made("/api-tokens", &json!({"user": user, "name": name, "scopes": []})).json();
    Made::named(made["api_token"]["id"].as_str().unwrap())
}

fn preference(world: &World, who: &Who, standing: Standing) -> Made {
    let id = match standing {
        Own | Granted | Common => "order_filled-email",
        // Zoe has it.
        Foreign => "daily_summary-webhook",
        Absent => "order_cancelled-sms",
    };
    let wish = json!({"type": "order_filled", "channel": "email", "enabled": true, "min_priority": "low"});
    let made = world.ask(who, "POST", "/api/v1/notification-preferences", &[], Some(wish.to_string()));
    assert!(matches!(made.status, 201 | 409), "{}", made.text);
    let seen = world.ask(who, "GET", "/api/v1/notification-preferences/order_filled-email", &[], None);
    Made { tag: seen.tag, ..Made::named(id) }
}

fn webhook(world: &World, who: &Who) -> Made {
    let held = world.ask(who, "GET", "/api/v1/notification-contacts", &[], None).json();
    if held["items"].as_array().unwrap().is_empty() {
        let body = json!({"address": world.hook}).to_string();
        let set = world.ask(who, "PUT", "/api/v1/notification-contacts/webhook", &[], Some(body));
        assert!(set.status == 200 && set.json()["verified"] == true, "{}", set.text);
    }
    Made::named("webhook")
}

/// A browser's subscription, with the keys of RFC 8291's example.
pub fn subscription() -> Value {
    let keys = json!({"auth": "BTBZMqHH6r4Tts7J_aSIgg",
                      "p256dh": "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4"});
    json!({"endpoint": "http://127.0.0.1:9/push", "keys": keys})
}

fn push(world: &World, who: &Who, standing: Standing) -> Made {
    let (of, endpoint) = match standing {
        Absent => return Made::named("0123456789abcdef"),
        Own | Granted | Common => (who, "http://127.0.0.1:9/push"),
        Foreign => (&world.zoe, "http://127.0.0.1:9/zoe"),
    };
    let mut body = subscription();
    body["endpoint"] = endpoint.into();
    let made = world.ask(of, "POST", "/api/v1/push-subscriptions", &[], Some(body.to_string()));
    assert_eq!(made.status, 201, "{}", made.text);
    Made::named(made.text_of("id"))
}
