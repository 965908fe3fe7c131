//! The venue: it works the orders that were allowed, and answers.
//!
//! Invariant: an order is here if and only if it was allowed and has neither been filled nor ended.
//! Nothing is filled at a price worse than its limit. Deliberately absent: other people's orders;
//! the touch of the generated market is where everything trades.

use crate::domain::{
    ClosePosition, Decision, InputTopic, Notification, NotificationCode, OrderType, Price, Qty, Side, TimeInForce, TradingState, Verdict,
};

use super::odd::Executed;
use super::session::Action;
use super::traders::Asked;
use super::{Flow, Payload};

/// The fee of a unit that took a quote, in units of 1e-8 money.
const FEE: i64 = 350_000;
/// What a unit gets that rested.
const REBATE: i64 = -200_000;
/// How many orders of one symbol rest; an older one is given up then.
const RESTING_MAX: usize = 64;

/// What an order is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Name {
    /// `I-n`, of our own making.
    Own(u64),
    /// `shard-seq-index`: it carries out that command.
    Command(u32, u64, u32),
}

impl Name {
    fn parse(text: &str) -> Option<Self> {
        if let Some(number) = text.strip_prefix("I-") {
            return number.parse().ok().map(Self::Own);
        }
        let mut parts = text.split('-');
        let command = Self::Command(parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        parts.next().is_none().then_some(command)
    }
}

/// An order at the venue, or one that is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Order {
    pub name: Name,
    pub trader: usize,
    pub place: usize,
    pub side: Side,
    pub order_type: OrderType,
    pub limit: i64,
    pub stop: i64,
    pub trail: i64,
    pub time_in_force: TimeInForce,
    pub whole: bool,
    pub qty: i64,
    pub filled: i64,
    pub triggered: bool,
    pub accepted: bool,
    /// A fill or an end of it is due.
    pub busy: bool,
    /// It carries out a command without an intent.
    pub direct: bool,
}

impl Order {
    /// Whether it would trade at the touch.
    fn meets(&self, bid: i64, ask: i64) -> bool {
        let within = match self.side {
            Side::Buy => self.limit >= ask,
            Side::Sell => self.limit <= bid,
        };
        match self.order_type {
            OrderType::Market => true,
            OrderType::Limit => within,
            OrderType::Stop | OrderType::TrailingStop => self.triggered,
            OrderType::StopLimit => self.triggered && within,
        }
    }

    /// Lets a trailing stop follow, and triggers what the touch has reached.
    fn follow(&mut self, bid: i64, ask: i64) {
        if self.triggered {
            return;
        }
        let (touch, buys) = match self.side {
            Side::Buy => (ask, true),
            Side::Sell => (bid, false),
        };
        if self.order_type == OrderType::TrailingStop {
            let (low, high) = (touch - self.trail, touch + self.trail);
            self.stop = if buys { self.stop.min(high) } else { self.stop.max(low) };
        }
        self.triggered = self.stop > 0 && if buys { touch >= self.stop } else { touch <= self.stop };
    }
}

impl Flow {
    pub(super) fn hear_decision(&mut self, decision: &Decision) {
        let allowed = match decision.verdict {
            Verdict::Allow | Verdict::AllowReduced => decision.approved_qty.0,
            Verdict::Block => return,
        };
        match std::mem::replace(&mut self.asked, Asked::Nothing) {
            Asked::Order(order) if Name::parse(decision.client_order_id.as_str()) == Some(order.name) => self.place(order, allowed),
            Asked::Amend { number, qty, limit, stop } => self.replace(number, qty.map(|_| allowed), limit, stop),
            Asked::Cancel(number) => {
                let delay = self.random.between(1, 8);
                self.later(delay, Action::Cancel(number));
            }
            Asked::Order(_) | Asked::Nothing => {}
        }
    }

    fn place(&mut self, mut order: Order, qty: i64) {
        self.counters.order += 1;
        let number = self.counters.order;
        order.qty = qty;
        if order.order_type == OrderType::TrailingStop {
            let instrument = &self.market.instruments[order.place];
            order.stop = if order.side == Side::Buy { instrument.ask + order.trail } else { instrument.bid - order.trail };
        }
        self.placed(number, order);
        let delay = self.random.between(1, 4);
        let action = if self.random.per_mille(8) { Action::Reject(number) } else { Action::Accept(number) };
        self.later(delay, action);
    }

    fn placed(&mut self, number: u64, order: Order) {
        self.orders.insert(number, order);
        self.numbers.insert(order.name, number);
        self.traders[order.trader].working.push(number);
    }

    fn replace(&mut self, number: u64, qty: Option<i64>, limit: Option<i64>, stop: Option<i64>) {
        let Some(order) = self.orders.get_mut(&number) else { return };
        order.qty = qty.unwrap_or(order.qty);
        order.limit = limit.unwrap_or(order.limit);
        order.stop = stop.unwrap_or(order.stop);
        let instrument = &self.market.instruments[order.place];
        if order.accepted && !order.busy && order.meets(instrument.bid, instrument.ask) {
            order.busy = true;
            self.later(3, Action::Fill(number));
        }
    }

    pub(super) fn accept(&mut self, number: u64) -> bool {
        let Some(order) = self.orders.get_mut(&number) else { return false };
        let instrument = &mut self.market.instruments[order.place];
        order.accepted = true;
        order.follow(instrument.bid, instrument.ask);
        let at_once = matches!(order.time_in_force, TimeInForce::Ioc | TimeInForce::Fok);
        let order = *order;
        if order.meets(instrument.bid, instrument.ask) {
            self.busy(number, Action::Fill(number));
        } else if at_once {
            self.busy(number, Action::Cancel(number));
        } else {
            instrument.resting.push(number);
            if instrument.resting.len() > RESTING_MAX {
                let oldest = instrument.resting.remove(0);
                self.busy(oldest, Action::Cancel(oldest));
            }
        }
        self.report("accepted", &order, None);
        true
    }

    fn busy(&mut self, number: u64, action: Action) {
        if let Some(order) = self.orders.get_mut(&number) {
            order.busy = true;
        }
        let delay = self.random.between(1, 12);
        self.later(delay, action);
    }

    pub(super) fn reject(&mut self, number: u64) -> bool {
        self.ended(number, "rejected", Some("too late to enter"))
    }

    pub(super) fn canceled(&mut self, number: u64) -> bool {
        self.ended(number, "canceled", None)
    }

    pub(super) fn end_of_day(&mut self, number: u64) -> bool {
        let Some(order) = self.orders.get(&number).copied() else { return false };
        match order.time_in_force {
            TimeInForce::Gtc => {
                self.report("done_for_day", &order, None);
                true
            }
            TimeInForce::Cls => self.ended(number, "done_for_day", None),
            TimeInForce::Day | TimeInForce::Ioc | TimeInForce::Fok | TimeInForce::Opg => self.ended(number, "expired", None),
        }
    }

    fn ended(&mut self, number: u64, event: &str, reason: Option<&str>) -> bool {
        let Some(order) = self.forget(number) else { return false };
        self.report(event, &order, reason);
        true
    }

    fn forget(&mut self, number: u64) -> Option<Order> {
        let order = self.orders.remove(&number)?;
        self.numbers.remove(&order.name);
        self.traders[order.trader].working.retain(|known| *known != number);
        self.market.instruments[order.place].resting.retain(|known| *known != number);
        Some(order)
    }

    fn report(&mut self, event: &str, order: &Order, reason: Option<&str>) {
        let account = &self.traders[order.trader].account;
        let payload = &mut self.payload;
        payload.event(event).named(order.name).text("account", account);
        payload.text("symbol", &self.market.instruments[order.place].symbol).text("side", order.side.as_str());
        if let Some(reason) = reason {
            payload.text("reason", reason);
        }
        payload.end();
        self.head.set(InputTopic::Executions, account);
    }

    /// Fills orders that a new touch meets, soon.
    pub(super) fn match_resting(&mut self, place: usize) {
        let instrument = &self.market.instruments[place];
        let (bid, ask) = (instrument.bid, instrument.ask);
        for at in 0..instrument.resting.len() {
            let Some(number) = self.market.instruments[place].resting.get(at).copied() else { break };
            let Some(order) = self.orders.get_mut(&number) else { continue };
            order.follow(bid, ask);
            if !order.busy && order.meets(bid, ask) {
                self.busy(number, Action::Fill(number));
            }
        }
    }

    /// Fills (a part of) an order. False when it is gone or no longer meets the touch.
    pub(super) fn fill(&mut self, number: u64) -> bool {
        let Some(order) = self.orders.get_mut(&number) else { return false };
        order.busy = false;
        let instrument = &mut self.market.instruments[order.place];
        let leaves = order.qty - order.filled;
        if leaves <= 0 {
            self.forget(number);
            return false;
        }
        let rested = instrument.resting.contains(&number);
        if !order.meets(instrument.bid, instrument.ask) {
            return self.missed(number, rested);
        }
        let lots = leaves / instrument.lot;
        let part =
            if order.whole || lots < 2 || self.random.per_mille(600) { leaves } else { self.random.between(1, lots - 1) * instrument.lot };
        order.filled += part;
        let order = *order;
        if part == leaves {
            self.forget(number);
        } else if order.time_in_force == TimeInForce::Ioc && self.random.per_mille(300) {
            self.busy(number, Action::Cancel(number));
        } else {
            self.busy(number, Action::Fill(number));
        }
        self.executed(&order, part, rested);
        true
    }

    /// The touch went away: the order rests, or ends if it may not.
    fn missed(&mut self, number: u64, rested: bool) -> bool {
        let Some(order) = self.orders.get(&number) else { return false };
        if matches!(order.time_in_force, TimeInForce::Ioc | TimeInForce::Fok) {
            return self.canceled(number);
        }
        if !rested {
            self.market.instruments[order.place].resting.push(number);
        }
        false
    }

    /// Writes a fill at the touch, and books it with the trader.
    fn executed(&mut self, order: &Order, qty: i64, rested: bool) {
        self.counters.exec += 1;
        let instrument = &mut self.market.instruments[order.place];
        let (price, sign) = match order.side {
            Side::Buy => (instrument.ask, 1),
            Side::Sell => (instrument.bid, -1),
        };
        let per_unit = i128::from(if rested { REBATE } else { FEE });
        let fee = i64::try_from(i128::from(qty) * per_unit / i128::from(Qty::ONE.0)).unwrap_or(0);
        self.traders[order.trader].book(order.place, sign * qty);
        let fill = Executed { number: self.counters.exec, order: *order, qty, price, fee };
        self.write_fill(&fill);
        self.recent.fills.push(fill);
        if self.random.per_mille(3) {
            self.later(5, Action::RepeatFill);
        } else if self.random.per_mille(6) {
            self.later(400, Action::Amendment);
        }
    }

    pub(super) fn write_fill(&mut self, fill: &Executed) {
        let account = &self.traders[fill.order.trader].account;
        write_fill(&mut self.payload, fill, account, &self.market.instruments[fill.order.place].symbol);
        self.head.set(InputTopic::Executions, account);
    }

    pub(super) fn cancel_soon(&mut self, id: &str) {
        if let Some(number) = Name::parse(id).and_then(|name| self.numbers.get(&name).copied()) {
            let delay = self.random.between(2, 20);
            self.later(delay, Action::Cancel(number));
        }
    }

    /// Carries a command out: by an intent, straight at the venue, or (rarely) not at all.
    pub(super) fn hear_close(&mut self, close: &ClosePosition) {
        let (Some(trader), Some(place)) = (self.trader_of(close.account), self.places.get(&close.symbol).copied()) else { return };
        let order = Box::new(Order {
            name: Name::Command(close.shard, close.seq, close.index),
            trader,
            place,
            side: close.side,
            order_type: OrderType::Market,
            limit: 0,
            stop: 0,
            trail: 0,
            time_in_force: TimeInForce::Day,
            whole: false,
            qty: close.qty.0,
            filled: 0,
            triggered: false,
            accepted: true,
            busy: true,
            direct: true,
        });
        let delay = self.random.between(3, 40);
        match self.random.below(100) {
            0..2 => {}
            2..55 => self.later(delay, Action::CloseByIntent(order)),
            _ => self.later(delay, Action::CloseAtVenue(order)),
        }
    }

    pub(super) fn close_at_venue(&mut self, order: Order) -> bool {
        if self.random.per_mille(20) {
            self.report("rejected", &order, Some("try again"));
            return true;
        }
        self.counters.order += 1;
        let number = self.counters.order;
        self.placed(number, order);
        self.fill(number)
    }

    /// An operator looks after accounts that were stopped.
    pub(super) fn hear_notification(&mut self, notification: &Notification) {
        let Some(trader) = notification.account.and_then(|account| self.trader_of(account)) else { return };
        let data = &notification.data;
        let halted = data.state == Some(TradingState::Halted) && data.symbol.is_none();
        let drawdown = data.rule.is_some_and(|rule| rule.id.as_str() == "drawdown");
        if notification.code == NotificationCode::TradingStateChanged && halted {
            self.later(20_000, Action::Activate(trader));
        } else if notification.code == NotificationCode::RuleBreach && drawdown {
            self.later(19_000, Action::Release(trader));
        }
    }
}

fn write_fill(payload: &mut Payload, fill: &Executed, account: &str, symbol: &str) {
    payload.event("fill").id("exec_id", "E-", fill.number).named(fill.order.name);
    payload.text("account", account).text("symbol", symbol).text("side", fill.order.side.as_str());
    payload.decimal("qty", fill.qty).decimal("price", Price(fill.price).0);
    if fill.fee != 0 {
        payload.decimal("fee", fill.fee);
    }
    payload.end();
}
