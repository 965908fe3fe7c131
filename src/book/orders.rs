//! The ids that an account used up, what was decided of each, and which orders work.
//!
//! Invariant: the legs of a position are linked from the oldest to the newest, and its leaves are
//! their sum. An amended order is its newest leg. Slots are used again, so nothing is allocated once
//! as many ids are remembered as ever will be.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::account::{StrategyIx, SymbolIx};
use super::position::{NONE, Position};
use crate::domain::{
    AmendId, ClientOrderId, IntentKind, Millis, Money, OrderPrices, OrderType, Price, Qty, Reason, Side, Size, Source, TimeInForce, Verdict,
};

/// What an order intent says, its names interned. Equal contents are repeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderContent {
    /// Its id.
    pub client_order_id: ClientOrderId,
    /// Its symbol.
    pub symbol: SymbolIx,
    /// Its strategy, or [`NONE`].
    pub strategy: StrategyIx,
    /// Its side.
    pub side: Side,
    /// Its type.
    pub order_type: OrderType,
    /// What it asks for.
    pub size: Size,
    /// Its prices.
    pub prices: OrderPrices,
    /// How long it works.
    pub time_in_force: TimeInForce,
    /// `reduce_only`
    pub reduce_only: bool,
    /// `all_or_none`
    pub all_or_none: bool,
    /// `extended_hours`
    pub extended_hours: bool,
}

/// What used an id up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Content {
    /// A new order.
    Order(OrderContent),
    /// An amendment; its ids are a space of their own.
    Amend {
        /// Its id.
        amend_id: AmendId,
        /// The order.
        client_order_id: ClientOrderId,
        /// The new total.
        qty: Option<Qty>,
        /// The new limit price.
        limit_price: Option<Price>,
        /// The new stop price.
        stop_price: Option<Price>,
    },
}

impl Content {
    /// The id that it uses up.
    #[must_use]
    pub const fn id(&self) -> &ClientOrderId {
        match self {
            Self::Order(order) => &order.client_order_id,
            Self::Amend { amend_id, .. } => amend_id,
        }
    }

    /// The space of that id.
    #[must_use]
    pub const fn kind(&self) -> IntentKind {
        match self {
            Self::Order(_) => IntentKind::Order,
            Self::Amend { .. } => IntentKind::Amend,
        }
    }
}

/// Whether an order works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    /// It never had a reservation (blocked, or an amendment).
    Unreserved,
    /// It works.
    Working,
    /// It ended.
    Done,
}

/// A remembered id: what was asked, what was decided, what became of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// What was asked.
    pub content: Content,
    /// The symbol, where it is known (of an amendment: the order's).
    pub symbol: Option<SymbolIx>,
    /// The side, likewise.
    pub side: Option<Side>,
    /// The time of the decision.
    pub at: Millis,
    /// Its ledger sequence.
    pub seq: u64,
    /// Where the intent stood.
    pub source: Source,
    /// The answer.
    pub verdict: Verdict,
    /// What was asked for.
    pub requested_qty: Option<Qty>,
    /// What was approved.
    pub approved_qty: Qty,
    /// The equity then.
    pub equity: Option<Money>,
    /// Why.
    pub reasons: Vec<Reason>,
    /// Whether the order works.
    pub status: Status,
    /// Its approved total now, after amendments and splits.
    pub total: i64,
    /// What is filled of it.
    pub filled: i64,
    /// Its prices now.
    pub prices: OrderPrices,
    /// Orders legs by age.
    pub leg: u64,
    next: u32,
    previous: u32,
    aged: bool,
}

impl Entry {
    /// A new one without a reservation.
    #[must_use]
    pub fn new(content: Content, at: Millis, seq: u64, source: Source) -> Self {
        Self {
            content,
            symbol: None,
            side: None,
            at,
            seq,
            source,
            verdict: Verdict::Block,
            requested_qty: None,
            approved_qty: Qty::ZERO,
            equity: None,
            reasons: Vec::new(),
            status: Status::Unreserved,
            total: 0,
            filled: 0,
            prices: OrderPrices::default(),
            leg: 0,
            next: NONE,
            previous: NONE,
            aged: false,
        }
    }

    /// What works of it.
    #[must_use]
    pub const fn leaves(&self) -> i64 {
        match self.status {
            Status::Working => self.total - self.filled,
            Status::Unreserved | Status::Done => 0,
        }
    }

    /// The order, if it is one.
    #[must_use]
    pub const fn order(&self) -> Option<&OrderContent> {
        match &self.content {
            Content::Order(order) => Some(order),
            Content::Amend { .. } => None,
        }
    }

    /// The larger of its limit and its stop price: what a working leg is valued at, at least.
    #[must_use]
    pub fn price_cap(&self) -> Option<Price> {
        self.prices.limit.max(self.prices.stop)
    }
}

/// All ids of one account.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Orders {
    entries: Vec<Entry>,
    free: Vec<u32>,
    by_time: VecDeque<u32>,
    next_leg: u64,
}

impl Orders {
    /// The entry in a slot. Slots are handed out by [`Orders::remember`].
    #[must_use]
    pub fn get(&self, slot: u32) -> Option<&Entry> {
        self.entries.get(slot as usize)
    }

    /// Likewise, to change what became of it.
    pub fn get_mut(&mut self, slot: u32) -> Option<&mut Entry> {
        self.entries.get_mut(slot as usize)
    }

    /// Remembers a decision and its reasons; returns its slot.
    pub fn remember(&mut self, mut entry: Entry, reasons: &[Reason]) -> u32 {
        let slot = match self.free.pop() {
            Some(slot) => {
                let place = &mut self.entries[slot as usize];
                entry.reasons = std::mem::take(&mut place.reasons);
                *place = entry;
                slot
            }
            None => {
                self.entries.push(entry);
                u32::try_from(self.entries.len() - 1).unwrap_or(NONE)
            }
        };
        let kept = &mut self.entries[slot as usize].reasons;
        kept.clear();
        kept.extend_from_slice(reasons);
        self.by_time.push_back(slot);
        slot
    }

    /// Forgets what is older than `horizon` and does not work. `forget` is told of each. Returns
    /// whether anything changed.
    pub fn expire(&mut self, horizon: Millis, mut forget: impl FnMut(u32, &Entry)) -> bool {
        let mut changed = false;
        while let Some(slot) = self.by_time.front().copied() {
            let entry = &mut self.entries[slot as usize];
            if entry.at >= horizon {
                break;
            }
            changed = true;
            self.by_time.pop_front();
            if entry.status == Status::Working {
                entry.aged = true;
            } else {
                forget(slot, entry);
                self.free.push(slot);
            }
        }
        changed
    }

    /// The decisions that are remembered, the newest first.
    pub fn newest_first(&self) -> impl Iterator<Item = &Entry> {
        self.by_time.iter().rev().map(|slot| &self.entries[*slot as usize])
    }

    /// All slots in use, for indexes.
    pub fn remembered(&self) -> impl Iterator<Item = (u32, &Entry)> {
        let aged = (0_u32..).zip(&self.entries).filter(|(_, entry)| entry.aged && entry.status == Status::Working);
        self.by_time.iter().map(|slot| (*slot, &self.entries[*slot as usize])).chain(aged)
    }

    /// The legs of a position, the oldest first.
    pub fn legs(&self, position: &Position) -> Legs<'_> {
        Legs { orders: self, next: position.first_leg }
    }

    /// Whether `add` more fits into the leaves of the position's side.
    #[must_use]
    pub fn fits(position: &Position, side: Side, add: i64) -> bool {
        let leaves = position.leaves(side).checked_add(add);
        // The worst-case quantity must stay in its type as well.
        leaves.is_some_and(|leaves| leaves.checked_add(position.holding.qty.saturating_abs()).is_some())
    }

    /// [`Orders::fits`] for a position that may not be there yet.
    #[must_use]
    pub fn fits_at(position: Option<&Position>, side: Side, add: i64) -> bool {
        position.is_none_or(|position| Self::fits(position, side, add))
    }

    /// Lets an order work for `total`: reserves it as the newest leg. The caller asked [`Orders::fits`].
    pub fn reserve(&mut self, position: &mut Position, slot: u32, total: i64, prices: OrderPrices) {
        let leg = self.next_leg;
        self.next_leg += 1;
        let last = position.last_leg;
        let entry = &mut self.entries[slot as usize];
        (entry.status, entry.total, entry.prices, entry.leg) = (Status::Working, total, prices, leg);
        (entry.previous, entry.next) = (last, NONE);
        let (leaves, side) = (entry.leaves(), entry.side);
        match self.entries.get_mut(last as usize) {
            Some(before) => before.next = slot,
            None => position.first_leg = slot,
        }
        position.last_leg = slot;
        add_leaves(position, side, leaves);
    }

    /// Ends a working order: releases what is left of it.
    pub fn release(&mut self, position: &mut Position, slot: u32) {
        let entry = &mut self.entries[slot as usize];
        let leaves = entry.leaves();
        if entry.status != Status::Working {
            return;
        }
        entry.status = Status::Done;
        let (previous, next, side) = (entry.previous, entry.next, entry.side);
        if entry.aged {
            self.by_time.push_front(slot);
            self.entries[slot as usize].aged = false;
        }
        match self.entries.get_mut(previous as usize) {
            Some(before) => before.next = next,
            None => position.first_leg = next,
        }
        match self.entries.get_mut(next as usize) {
            Some(after) => after.previous = previous,
            None => position.last_leg = previous,
        }
        add_leaves(position, side, -leaves);
    }

    /// Counts a fill of an order that has a reservation. Returns whether it was larger than what
    /// worked. An order whose leaves reach 0 ends.
    pub fn fill(&mut self, position: &mut Position, slot: u32, qty: i64) -> bool {
        let entry = &mut self.entries[slot as usize];
        let leaves = entry.leaves();
        if entry.status != Status::Working || qty >= leaves {
            self.release(position, slot);
            let entry = &mut self.entries[slot as usize];
            entry.filled = entry.filled.saturating_add(qty);
            return qty > leaves;
        }
        entry.filled += qty;
        let side = entry.side;
        add_leaves(position, side, -qty);
        false
    }

    /// Sets what is filled of an order (after a bust); a working order's leaves follow, and it ends
    /// where they reach 0. An order that is done stays done. The caller asked [`Orders::fits`].
    pub fn set_filled(&mut self, position: &mut Position, slot: u32, filled: i64) {
        let entry = &mut self.entries[slot as usize];
        let before = entry.leaves();
        entry.filled = filled;
        if entry.status != Status::Working {
            return;
        }
        let (after, side) = (entry.leaves(), entry.side);
        if after <= 0 {
            entry.filled = entry.total - before;
            self.release(position, slot);
            self.entries[slot as usize].filled = filled;
        } else {
            add_leaves(position, side, after - before);
        }
    }

    /// Gives a working order other quantities and prices in its place: a split.
    pub fn rescale(&mut self, position: &mut Position, slot: u32, total: i64, filled: i64, prices: OrderPrices) {
        let entry = &mut self.entries[slot as usize];
        let before = entry.leaves();
        (entry.total, entry.filled, entry.prices) = (total, filled, prices);
        let (after, side) = (entry.leaves(), entry.side);
        add_leaves(position, side, after - before);
    }
}

fn add_leaves(position: &mut Position, side: Option<Side>, leaves: i64) {
    match side {
        Some(Side::Buy) => position.buy_leaves += leaves,
        Some(Side::Sell) => position.sell_leaves += leaves,
        None => {}
    }
}

/// The legs of one position, the oldest first.
#[derive(Clone, Debug)]
pub struct Legs<'a> {
    orders: &'a Orders,
    next: u32,
}

impl<'a> Iterator for Legs<'a> {
    type Item = (u32, &'a Entry);

    fn next(&mut self) -> Option<Self::Item> {
        let slot = self.next;
        let entry = self.orders.entries.get(slot as usize)?;
        self.next = entry.next;
        Some((slot, entry))
    }
}
