//! What traders ask: new orders, amends, cancels, signals.
//!
//! Invariant: what is asked here is well formed and meant to be allowed more often than not; what is
//! not is in `odd`. Sizes are heavy-tailed: most orders are small, a few are far too large.

use crate::domain::{InputTopic, Millis, OrderType, Side, TimeInForce, UNITS_PER_ONE};

use super::Flow;
use super::random::Random;
use super::session::Action;
use super::venue::{Name, Order};

const STRATEGIES: [&str; 5] = ["mean-rev", "momentum", "news", "pairs", "rebalance"];
/// A price that is older is renewed before somebody trades on it.
const OLD_PRICE_MS: Millis = 40_000;

/// Somebody with an account.
#[derive(Debug)]
pub(super) struct Trader {
    pub account: Box<str>,
    /// What the account was opened with, in whole money.
    pub cash: i64,
    /// Its positions as its own fills tell: `(symbol, quantity)`.
    pub positions: Vec<(usize, i64)>,
    /// Its working orders, oldest first.
    pub working: Vec<u64>,
}

impl Trader {
    pub(super) fn new(place: u32, random: &mut Random) -> Self {
        let account = format!("ACC{:04}", u64::from(place) + 1).into_boxed_str();
        let cash = (40_000_i64 << random.below(6)) + random.between(0, 200) * 100;
        Self { account, cash, positions: Vec::new(), working: Vec::new() }
    }

    /// Books a signed quantity.
    pub(super) fn book(&mut self, symbol: usize, qty: i64) {
        match self.positions.iter().position(|held| held.0 == symbol) {
            Some(at) => {
                self.positions[at].1 += qty;
                if self.positions[at].1 == 0 {
                    self.positions.remove(at);
                }
            }
            None => self.positions.push((symbol, qty)),
        }
    }

    fn held(&self, symbol: usize) -> i64 {
        self.positions.iter().find(|held| held.0 == symbol).map_or(0, |held| held.1)
    }
}

/// What the last record asked of the gate.
#[derive(Debug)]
pub(super) enum Asked {
    Nothing,
    Order(Order),
    Amend { number: u64, qty: Option<i64>, limit: Option<i64>, stop: Option<i64> },
    Cancel(u64),
}

impl Flow {
    /// A symbol: the first ones more often than the last.
    pub(super) fn any_symbol(&mut self) -> usize {
        let mut place = self.random.place(self.market.instruments.len());
        if self.random.per_mille(600) {
            place = self.random.place(place + 1);
        }
        place
    }

    fn any_trader(&mut self) -> usize {
        let place = self.random.place(self.traders.len());
        if self.random.per_mille(500) { self.random.place(place + 1) } else { place }
    }

    pub(super) fn any_intent(&mut self) -> bool {
        let trader = self.any_trader();
        let held = self.traders[trader].positions.len();
        let place = if held > 0 && self.random.per_mille(550) {
            let at = self.random.place(held);
            self.traders[trader].positions[at].0
        } else {
            self.any_symbol()
        };
        self.intent(trader, place)
    }

    /// A new order; before it a price, if the last one is old.
    pub(super) fn intent(&mut self, trader: usize, place: usize) -> bool {
        let priced_at = self.market.instruments[place].priced_at;
        if self.now - priced_at > OLD_PRICE_MS && !self.random.per_mille(30) {
            self.later(1, Action::Intent(trader, place));
            return self.price(place);
        }
        let order = self.draft(trader, place);
        self.write_intent(&order);
        self.recent.intents.push((order.trader, self.payload.bytes().into()));
        self.asked = Asked::Order(order);
        true
    }

    /// Makes up an order.
    pub(super) fn draft(&mut self, trader: usize, place: usize) -> Order {
        let held = self.traders[trader].held(place);
        let reduces = held != 0 && self.random.per_mille(550);
        let side = match (held > 0, reduces) {
            (true, true) | (false, false) if held != 0 => Side::Sell,
            (false, true) | (true, false) => Side::Buy,
            _ if self.random.per_mille(650) => Side::Buy,
            _ => Side::Sell,
        };
        let wanted = self.size(trader, place);
        let lot = self.market.instruments[place].lot;
        let qty = if reduces { wanted.min(held.abs() / lot * lot).max(lot) } else { wanted };
        let order_type = match self.random.below(100) {
            0..28 => OrderType::Market,
            28..86 => OrderType::Limit,
            86..92 => OrderType::Stop,
            92..96 => OrderType::StopLimit,
            _ => OrderType::TrailingStop,
        };
        let time_in_force = match self.random.below(100) {
            0..76 => TimeInForce::Day,
            76..84 => TimeInForce::Gtc,
            84..92 => TimeInForce::Ioc,
            92..96 => TimeInForce::Fok,
            96..98 => TimeInForce::Opg,
            _ => TimeInForce::Cls,
        };
        self.counters.intent += 1;
        let mut order = Order {
            name: Name::Own(self.counters.intent),
            trader,
            place,
            side,
            order_type,
            limit: 0,
            stop: 0,
            trail: 0,
            time_in_force,
            whole: time_in_force == TimeInForce::Fok || self.random.per_mille(10),
            qty,
            filled: 0,
            triggered: false,
            accepted: false,
            busy: false,
            direct: false,
        };
        self.set_prices(&mut order);
        order
    }

    /// From a five-hundredth of the account to a third of it, each doubling six times in ten; and
    /// at times ten times as much, by a finger that is too fat.
    fn size(&mut self, trader: usize, place: usize) -> i64 {
        let instrument = &self.market.instruments[place];
        let mut doublings = 0;
        while doublings < 7 && self.random.per_mille(600) {
            doublings += 1;
        }
        let fat = if self.random.per_mille(8) { 10 } else { 1 };
        let cash = i128::from(self.traders[trader].cash) * i128::from(UNITS_PER_ONE);
        let budget = cash * (1 << doublings) * fat * i128::from(self.random.between(700, 1300)) / 1000 / 500;
        let lot_price = i128::from(instrument.middle()) * i128::from(instrument.multiplier) * i128::from(instrument.lot);
        let lots = budget * i128::from(UNITS_PER_ONE) / lot_price.max(1);
        i64::try_from(lots * i128::from(instrument.lot)).unwrap_or(instrument.lot).max(instrument.lot)
    }

    fn set_prices(&mut self, order: &mut Order) {
        let instrument = &self.market.instruments[order.place];
        let (tick, middle, sign) = (instrument.tick, instrument.middle(), order.side.sign());
        let (bid, ask) = (instrument.bid, instrument.ask);
        let on_tick = |price: i64| (price / tick).max(1) * tick;
        let far = |random: &mut Random, low, high| middle / 10_000 * random.between(low, high);
        let limit = match self.random.below(100) {
            0..45 => (if sign > 0 { ask } else { bid }) + sign * tick * self.random.between(0, 3),
            45..85 => middle - sign * far(&mut self.random, 2, 60),
            85..98 => middle - sign * far(&mut self.random, 60, 300),
            _ => middle + sign * far(&mut self.random, 300, 900),
        };
        let stop = middle + sign * far(&mut self.random, 10, 150);
        match order.order_type {
            OrderType::Market => {}
            OrderType::Limit => order.limit = on_tick(limit),
            OrderType::Stop => order.stop = on_tick(stop),
            OrderType::StopLimit => {
                order.stop = on_tick(stop);
                order.limit = on_tick(stop + sign * far(&mut self.random, 5, 40));
            }
            OrderType::TrailingStop => order.trail = on_tick(far(&mut self.random, 20, 200)),
        }
    }

    pub(super) fn write_intent(&mut self, order: &Order) {
        let account = &self.traders[order.trader].account;
        let payload = &mut self.payload;
        payload.event("order_intent").named(order.name).text("account", account);
        if self.random.per_mille(900) {
            payload.text("strategy", STRATEGIES[(order.trader + self.random.place(2)) % STRATEGIES.len()]);
        }
        payload.text("symbol", &self.market.instruments[order.place].symbol).text("side", order.side.as_str());
        payload.text("order_type", order.order_type.as_str());
        if order.order_type == OrderType::Market && self.random.per_mille(60) {
            payload.number("notional", self.random.between(2, 200) * 100);
        } else {
            payload.decimal("qty", order.qty);
        }
        for (name, price) in [("limit_price", order.limit), ("stop_price", order.stop), ("trail_price", order.trail)] {
            if price > 0 {
                payload.decimal(name, price);
            }
        }
        if order.time_in_force != TimeInForce::Day {
            payload.text("time_in_force", order.time_in_force.as_str());
        }
        if order.whole {
            payload.json("all_or_none", "true");
        }
        payload.end();
        self.head.set(InputTopic::Intents, account);
    }

    /// A working order, the younger the likelier among the many that have ended.
    fn any_order(&mut self) -> Option<(u64, Order)> {
        let (first, last) = (*self.orders.first_key_value()?.0, *self.orders.last_key_value()?.0);
        let from = first + self.random.below(last - first + 1);
        self.orders.range(from..).next().map(|(number, order)| (*number, *order))
    }

    pub(super) fn any_cancel(&mut self) -> bool {
        let Some((number, order)) = self.any_order() else { return false };
        let account = &self.traders[order.trader].account;
        let payload = &mut self.payload;
        payload.event("order_cancel").named(order.name).text("account", account).end();
        self.head.set(InputTopic::Intents, account);
        self.asked = Asked::Cancel(number);
        true
    }

    pub(super) fn any_amend(&mut self) -> bool {
        let Some((number, order)) = self.any_order() else { return false };
        let instrument = &self.market.instruments[order.place];
        let (lot, tick) = (instrument.lot, instrument.tick);
        let percent = self.random.between(30, 170);
        let leaves = i128::from(order.qty - order.filled) * i128::from(percent) / 100 / i128::from(lot);
        let leaves = i64::try_from(leaves).unwrap_or(1).max(1).saturating_mul(lot);
        let ticks = self.random.between(-20, 20) * tick;
        let moved = |price: i64| (price > 0).then(|| (price + ticks).max(tick));
        let trailing = order.order_type == OrderType::TrailingStop;
        let (limit, stop) = (moved(order.limit), moved(order.stop).filter(|_| !trailing));
        let resize = (limit.is_none() && stop.is_none()) || self.random.per_mille(500);
        let qty = resize.then(|| order.filled.saturating_add(leaves));
        self.counters.amend += 1;
        let account = &self.traders[order.trader].account;
        let payload = &mut self.payload;
        payload.event("order_amend").named(order.name).id("amend_id", "A-", self.counters.amend);
        payload.text("account", account);
        for (name, units) in [("qty", qty), ("limit_price", limit), ("stop_price", stop)] {
            if let Some(units) = units {
                payload.decimal(name, units);
            }
        }
        payload.end();
        self.head.set(InputTopic::Intents, account);
        self.asked = Asked::Amend { number, qty, limit, stop };
        true
    }

    pub(super) fn signal(&mut self) -> bool {
        let (trader, place) = (self.any_trader(), self.any_symbol());
        let account = &self.traders[trader].account;
        let word = ["buy", "sell", "hold"][self.random.place(3)];
        let payload = &mut self.payload;
        payload.event("signal").text("account", account).text("strategy", STRATEGIES[trader % STRATEGIES.len()]);
        payload.text("symbol", &self.market.instruments[place].symbol).text("signal", word).end();
        self.head.set(InputTopic::Intents, account);
        true
    }

    /// Carries a command out by an intent under its id.
    pub(super) fn close_by_intent(&mut self, order: Order) -> bool {
        let account = &self.traders[order.trader].account;
        let payload = &mut self.payload;
        payload.event("order_intent").named(order.name).text("account", account);
        payload.text("symbol", &self.market.instruments[order.place].symbol).text("side", order.side.as_str());
        payload.text("order_type", "market").decimal("qty", order.qty).json("reduce_only", "true").end();
        self.head.set(InputTopic::Intents, account);
        self.asked = Asked::Order(Order { accepted: false, busy: false, direct: false, ..order });
        true
    }
}
