//! Days of trading, and what is put off to a later moment of them.
//!
//! Invariant: time never goes back; what is due at the same millisecond happens in the order in
//! which it was put off. A session ends after a number of events, since a demonstration has no day
//! to wait for; the clock then jumps to the next opening in New York.

use std::cmp::Ordering;

use crate::domain::{InputTopic, Millis};
use crate::market::calendar::DayRoll;

use super::opening::{DAY_MS, is_weekend};
use super::venue::Order;
use super::{Flow, Plan};

/// Something that happens later.
#[derive(Debug)]
pub(super) enum Action {
    /// A price of a symbol.
    Price(usize),
    /// A new order of a trader in a symbol.
    Intent(usize, usize),
    Accept(u64),
    Reject(u64),
    Fill(u64),
    Cancel(u64),
    /// The end of the day for an order.
    EndOfDay(u64),
    /// A command is carried out by an intent.
    CloseByIntent(Box<Order>),
    /// A command is carried out at the venue, or rejected there.
    CloseAtVenue(Box<Order>),
    /// The venue sends its last fill again.
    RepeatFill,
    /// The venue takes a fill back, or changes its price.
    Amendment,
    /// An operator sets an account active again.
    Activate(usize),
    /// An operator releases the drawdown latch of an account.
    Release(usize),
    /// The bar of a symbol's day.
    Bar(usize),
    Open,
}

/// An action and when it is due: the earliest is the greatest.
#[derive(Debug)]
pub(super) struct Due {
    pub at: Millis,
    pub number: u64,
    pub action: Action,
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Due {}

/// The session at hand.
#[derive(Debug)]
pub(super) struct Session {
    /// How many actions of traders and of the market a session has.
    pub events: u64,
    left: u64,
    open: bool,
    /// The longest pause, in milliseconds: more accounts have fewer of them.
    pause: i64,
    /// When the next of them happens.
    next: Millis,
    opens: DayRoll,
}

impl Session {
    pub(super) fn new(plan: &Plan) -> Self {
        let events = (plan.events / 8).clamp(150, 50_000);
        let opens = DayRoll::parse("09:30 America/New_York").unwrap_or_default();
        let pause = (1800 / i64::from(plan.accounts.max(20))).max(2);
        Self { events, left: events, open: false, pause, next: plan.start, opens }
    }
}

impl Flow {
    /// Writes the next record of the flow.
    pub(super) fn flow_next(&mut self) {
        if !self.session.open && self.due.is_empty() {
            self.open_session();
        }
        loop {
            let is_due = |due: &Due| !self.session.open || due.at <= self.session.next;
            let due = if self.due.peek().is_some_and(is_due) { self.due.pop() } else { None };
            let wrote = match due {
                Some(due) => {
                    self.now = self.now.max(due.at);
                    self.perform(due.action)
                }
                None => self.act(),
            };
            if wrote {
                return;
            }
        }
    }

    /// Does what was put off. False when nothing came of it.
    fn perform(&mut self, action: Action) -> bool {
        match action {
            Action::Price(place) => self.price(place),
            Action::Intent(trader, place) => self.intent(trader, place),
            Action::Accept(number) => self.accept(number),
            Action::Reject(number) => self.reject(number),
            Action::Fill(number) => self.fill(number),
            Action::Cancel(number) => self.canceled(number),
            Action::EndOfDay(number) => self.end_of_day(number),
            Action::CloseByIntent(order) => self.close_by_intent(*order),
            Action::CloseAtVenue(order) => self.close_at_venue(*order),
            Action::RepeatFill => self.repeat_fill(),
            Action::Amendment => self.amend_fill(),
            Action::Activate(trader) => self.activate(trader),
            Action::Release(trader) => self.release(trader),
            Action::Bar(place) => self.bar(place),
            Action::Open => {
                self.open_session();
                false
            }
        }
    }

    /// The next thing that traders or the market do. False when nothing came of it.
    fn act(&mut self) -> bool {
        self.now = self.now.max(self.session.next);
        let busy = self.random.per_mille(300);
        self.session.next = self.now + if busy { 0 } else { self.random.between(1, self.session.pause) };
        self.session.left = self.session.left.saturating_sub(1);
        if self.session.left == 0 {
            self.close_session();
            return false;
        }
        match self.random.below(1000) {
            0..400 => {
                let place = self.any_symbol();
                self.price(place)
            }
            400..850 => self.any_intent(),
            850..905 => self.any_cancel(),
            905..960 => self.any_amend(),
            960..970 => self.signal(),
            970..990 => self.odd_intent(),
            990..995 => self.operator(),
            _ => self.wild_price(),
        }
    }

    fn open_session(&mut self) {
        self.session.open = true;
        self.session.left = self.session.events;
        if self.written > 0 && self.session.next > self.plan.start {
            self.now = self.next_opening();
        }
        self.session.next = self.now + 1;
        for place in 0..self.market.instruments.len() {
            self.market.daily_move(place, &mut self.random);
            self.market.instruments[place].day = super::market::Day::default();
            self.later(0, Action::Price(place));
        }
    }

    fn next_opening(&self) -> Millis {
        let mut opening = self.now;
        loop {
            let Some(next) = self.session.opens.next_after(opening) else { return self.now + DAY_MS };
            opening = next;
            if !is_weekend(opening) {
                return opening;
            }
        }
    }

    fn close_session(&mut self) {
        self.session.open = false;
        let numbers: Vec<u64> = self.orders.keys().copied().collect();
        for (place, number) in numbers.into_iter().enumerate() {
            self.later(1000 + place as i64 / 50, Action::EndOfDay(number));
        }
        for place in 0..self.market.instruments.len() {
            self.later(600_000 + place as i64 / 50, Action::Bar(place));
        }
        self.later(1_200_000, Action::Open);
    }

    /// The bar of the day that ends. False for a symbol that did not trade.
    fn bar(&mut self, place: usize) -> bool {
        let instrument = &self.market.instruments[place];
        let day = instrument.day;
        if day.open == 0 {
            return false;
        }
        let payload = &mut self.payload;
        payload.event("bar").text("symbol", &instrument.symbol).text("timeframe", "1d");
        payload.number("open_time", self.now.div_euclid(DAY_MS) * DAY_MS);
        payload.decimal("open", day.open).decimal("high", day.high).decimal("low", day.low).decimal("close", day.close);
        payload.decimal("volume", day.volume).end();
        self.head.set(InputTopic::Prices, &instrument.symbol);
        true
    }

    /// A quote or a trade; orders that the touch now meets are filled soon.
    pub(super) fn price(&mut self, place: usize) -> bool {
        self.market.step(place, &mut self.random);
        self.tell_price(place)
    }

    /// A price that moves far at once.
    fn wild_price(&mut self) -> bool {
        let place = self.any_symbol();
        if self.random.per_mille(100) {
            self.market.daily_move(place, &mut self.random);
        }
        self.tell_price(place)
    }

    fn tell_price(&mut self, place: usize) -> bool {
        let instrument = &mut self.market.instruments[place];
        instrument.priced_at = self.now;
        let payload = &mut self.payload;
        if self.random.per_mille(550) && instrument.day.open != 0 {
            payload.event("quote").text("symbol", &instrument.symbol).decimal("bid", instrument.bid).decimal("ask", instrument.ask);
            let (bid_size, ask_size) = (self.random.between(1, 20), self.random.between(1, 20));
            payload.decimal("bid_size", bid_size * 100 * instrument.lot).decimal("ask_size", ask_size * 100 * instrument.lot);
        } else {
            let price = if self.random.per_mille(500) { instrument.bid } else { instrument.ask };
            let size = self.random.between(1, 400) * instrument.lot;
            instrument.traded(price, size);
            payload.event("trade").text("symbol", &instrument.symbol).decimal("price", price).decimal("size", size);
        }
        payload.end();
        self.head.set(InputTopic::Prices, &instrument.symbol);
        self.match_resting(place);
        true
    }
}
