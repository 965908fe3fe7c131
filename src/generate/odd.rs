//! What does not go smoothly: repeats, conflicts, records that break the rules, operators at work.
//!
//! Invariant: nothing odd becomes an order at the venue, so that the rest of the flow stays sound.

use crate::domain::{InputTopic, Side};

use super::traders::Trader;
use super::venue::{Name, Order};
use super::{Flow, Head, Payload};

/// How many records of each kind are remembered.
const RING: usize = 32;

/// The last few of something, the oldest overwritten.
#[derive(Debug)]
pub(super) struct Ring<T> {
    items: Vec<T>,
    next: usize,
}

impl<T> Default for Ring<T> {
    fn default() -> Self {
        Self { items: Vec::new(), next: 0 }
    }
}

impl<T> Ring<T> {
    pub(super) fn push(&mut self, item: T) {
        match self.items.get_mut(self.next) {
            Some(old) => *old = item,
            None => self.items.push(item),
        }
        self.next = (self.next + 1) % RING;
    }

    fn get(&self, at: usize) -> Option<&T> {
        self.items.get(at)
    }

    fn take(&mut self, at: usize) -> Option<T> {
        if at >= self.items.len() {
            return None;
        }
        self.next = self.next.min(self.items.len() - 1);
        Some(self.items.swap_remove(at))
    }
}

/// A fill as it was told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Executed {
    pub number: u64,
    pub order: Order,
    pub qty: i64,
    pub price: i64,
    pub fee: i64,
}

/// What can be told again.
#[derive(Debug, Default)]
pub(super) struct Recent {
    /// Trader and value.
    pub intents: Ring<(usize, Box<[u8]>)>,
    pub fills: Ring<Executed>,
}

/// Ends of an intent that are refused, each for its own reason.
const FAULTY: [&str; 14] = [
    r#""order_type":"market","qty":"10000000.5""#,
    r#""order_type":"limit","qty":"100","limit_price":"10.001""#,
    r#""order_type":"market","qty":"0""#,
    r#""order_type":"market","qty":"-5""#,
    r#""order_type":"market","qty":"ten""#,
    r#""order_type":"market","qty":"0.000000001""#,
    r#""order_type":"market","qty":"92233720369""#,
    r#""order_type":"market""#,
    r#""order_type":"market","qty":"10","notional":"1000""#,
    r#""order_type":"limit","qty":"10""#,
    r#""order_type":"market","qty":"10","urgency":"high""#,
    r#""order_type":"market","qty":"10","qty":"10""#,
    r#""order_type":"iceberg","qty":"10""#,
    r#""order_type":"market","qty":"10000000""#,
];

impl Flow {
    /// An intent that is repeated or refused.
    pub(super) fn odd_intent(&mut self) -> bool {
        match self.random.below(10) {
            0..3 => self.repeat_intent(),
            3 => self.conflict(),
            4..8 => self.faulty_intent(),
            8 => self.stray_intent(),
            _ => self.broken_intent(),
        }
    }

    fn repeat_intent(&mut self) -> bool {
        let Some((trader, payload)) = self.recent.intents.get(self.random.place(RING)) else { return false };
        self.payload.replace(payload);
        self.head.set(InputTopic::Intents, &self.traders[*trader].account);
        true
    }

    /// Another order under the id of the last one.
    fn conflict(&mut self) -> bool {
        let Some((trader, _)) = self.recent.intents.get(0) else { return false };
        let trader = *trader;
        let Some(number) = self.traders[trader].working.last().copied() else { return false };
        let Some(order) = self.orders.get(&number).filter(|order| !order.direct).copied() else { return false };
        let place = self.any_symbol();
        let other = Order { name: order.name, ..self.draft(trader, place) };
        self.write_intent(&other);
        true
    }

    fn faulty_intent(&mut self) -> bool {
        let trader = self.random.place(self.traders.len());
        let rest = FAULTY[self.random.place(FAULTY.len())];
        let symbol = &self.market.instruments[0].symbol;
        odd_intent(&mut self.payload, &mut self.counters.intent, &self.traders[trader].account, symbol, rest);
        self.head.set(InputTopic::Intents, &self.traders[trader].account);
        true
    }

    /// An account or a symbol that nobody knows, or a cancel of an order that is gone.
    fn stray_intent(&mut self) -> bool {
        let account = &self.traders[0].account;
        let rest = r#""order_type":"market","qty":"1""#;
        let counter = &mut self.counters.intent;
        let key = match self.random.below(3) {
            0 => {
                odd_intent(&mut self.payload, counter, "NOBODY", &self.market.instruments[0].symbol, rest);
                "NOBODY"
            }
            1 => {
                odd_intent(&mut self.payload, counter, account, "NOTHING", rest);
                account
            }
            _ => {
                self.payload.event("order_cancel").text("client_order_id", "I-0").text("account", account).end();
                account
            }
        };
        self.head.set(InputTopic::Intents, key);
        true
    }

    fn broken_intent(&mut self) -> bool {
        let account = &self.traders[0].account;
        let (value, broken): (&[u8], bool) = match self.random.below(4) {
            0 => (b"{\"event\":\"order_intent\",\"client_order_id\":\"I-", true),
            1 => (b"not json", true),
            2 => (b"[1,2,3]", true),
            _ => (b"{\"event\":\"order_replace\"}", false),
        };
        self.payload.replace(value);
        self.head.set(InputTopic::Intents, account);
        self.head.broken = broken;
        true
    }

    pub(super) fn repeat_fill(&mut self) -> bool {
        let Some(fill) = self.recent.fills.get(self.random.place(RING)).copied() else { return false };
        self.write_fill(&fill);
        true
    }

    /// The venue takes a fill back, or corrects its price.
    pub(super) fn amend_fill(&mut self) -> bool {
        // Told once: what was taken back is not told again.
        let Some(fill) = self.recent.fills.take(self.random.place(RING)) else { return false };
        let busted = self.random.per_mille(400);
        if busted {
            let sign = if fill.order.side == Side::Buy { 1 } else { -1 };
            self.traders[fill.order.trader].book(fill.order.place, -sign * fill.qty);
            // A working order has that much more to do again.
            if let Some(order) = self.numbers.get(&fill.order.name).and_then(|number| self.orders.get_mut(number)) {
                order.filled -= fill.qty;
            }
        }
        let account = &self.traders[fill.order.trader].account;
        let payload = &mut self.payload;
        payload.event(if busted { "trade_busted" } else { "trade_corrected" });
        payload.id("exec_id", "E-", fill.number).text("account", account);
        if !busted {
            let tick = self.market.instruments[fill.order.place].tick;
            payload.decimal("qty", fill.qty).decimal("price", fill.price + tick).decimal("fee", fill.fee);
        }
        payload.end();
        self.head.set(InputTopic::Executions, account);
        true
    }

    /// Something that an operator does.
    pub(super) fn operator(&mut self) -> bool {
        let trader = self.random.place(self.traders.len());
        match self.random.below(100) {
            0..60 => self.cash_flow(trader),
            60..75 => self.restrict(),
            75..85 => self.limits(trader),
            85..98 => self.tighten(),
            _ => self.unreadable(trader),
        }
        true
    }

    fn cash_flow(&mut self, trader: usize) {
        let Trader { account, cash, .. } = &self.traders[trader];
        let part = cash / 100 * self.random.between(-4, 8);
        let amount = if part == 0 { 100 } else { part };
        self.payload.event("cash_adjusted").text("account", account).number("amount", amount);
        self.payload.text("reason", if amount > 0 { "deposit" } else { "withdrawal" }).end();
        self.head.set(InputTopic::Control, account);
    }

    /// A restricted list of one symbol, another each time.
    fn restrict(&mut self) {
        let place = self.quiet_symbol();
        let symbols = format!("[\"{}\"]", self.market.instruments[place].symbol);
        self.payload.event("restricted_list_set").text("list", "earnings").json("symbols", &symbols).end();
        self.head.set(InputTopic::Control, "earnings");
    }

    /// One of the symbols that are traded less.
    fn quiet_symbol(&mut self) -> usize {
        let (one, other) = (self.any_symbol(), self.any_symbol());
        one.max(other)
    }

    fn limits(&mut self, trader: usize) {
        let account = &self.traders[trader].account;
        let value = self.random.between(1, 20) * 50_000;
        self.payload.event("account_limits_set").text("account", account).number("max_order_value", value).end();
        self.head.set(InputTopic::Control, account);
    }

    /// A symbol becomes reduce-only, and the next time active again.
    fn tighten(&mut self) {
        let (place, state) = match self.tightened.take() {
            Some(place) => (place, "active"),
            None => (self.quiet_symbol(), "reduce_only"),
        };
        if state == "reduce_only" {
            self.tightened = Some(place);
        }
        let symbol = &self.market.instruments[place].symbol;
        let scope = format!("{{\"symbol\":\"{symbol}\"}}");
        set_state(&mut self.payload, &mut self.head, symbol, &scope, state);
    }

    /// An execution that cannot be read: its account is halted until somebody has looked.
    fn unreadable(&mut self, trader: usize) {
        let account = &self.traders[trader].account;
        self.counters.exec += 1;
        let payload = &mut self.payload;
        payload.event("fill").id("exec_id", "E-", self.counters.exec).named(Name::Own(1)).text("account", account);
        payload.text("symbol", &self.market.instruments[0].symbol).text("side", "buy").text("qty", "?").text("price", "?").end();
        self.head.set(InputTopic::Executions, account);
    }

    pub(super) fn activate(&mut self, trader: usize) -> bool {
        let account = &self.traders[trader].account;
        let scope = format!("{{\"account\":\"{account}\"}}");
        set_state(&mut self.payload, &mut self.head, account, &scope, "active");
        true
    }

    pub(super) fn release(&mut self, trader: usize) -> bool {
        let account = &self.traders[trader].account;
        let payload = &mut self.payload;
        payload.event("latch_released").text("account", account).text("rule_id", "drawdown").text("actor", "ops");
        payload.text("reason", "looked at it").json("reset_hwm", "true").end();
        self.head.set(InputTopic::Control, account);
        true
    }
}

fn set_state(payload: &mut Payload, head: &mut Head, key: &str, scope: &str, state: &str) {
    payload.event("trading_state_set").json("scope", scope).text("state", state);
    payload.text("actor", "ops").text("reason", "operator").end();
    head.set(InputTopic::Control, key);
}

fn odd_intent(payload: &mut Payload, counter: &mut u64, account: &str, symbol: &str, rest: &str) {
    *counter += 1;
    payload.event("order_intent").named(Name::Own(*counter)).text("account", account).text("symbol", symbol).text("side", "buy");
    payload.members(rest).end();
}
