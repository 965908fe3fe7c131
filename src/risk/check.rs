//! The checks before the rules: SEMANTICS section 4, in its order.
//!
//! Invariant: a straight column. The first check that fails decides; an order that strictly reduces
//! is excused from most and only lists them.

use crate::book::{Account, Orders, Position, Status};
use crate::domain::{
    CollarMode, Currency, Factor, Field, Figure, Limits, Millis, Money, OrderPrices, OrderType, Patch, Price, Qty, Reason, ReasonCode,
    Side, TradingState, Verdict, exact_value, times_multiplier,
};
use crate::market::symbol::{Instrument, SymbolState};

use super::measure::Amount;

/// The limits that hold for one account, defaults applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields of domain::Limits; None = off")]
pub struct EffectiveLimits {
    pub max_order_qty: Option<Qty>,
    pub max_order_value: Option<Money>,
    pub price_collar_percent: Option<Factor>,
    pub price_collar_mode: CollarMode,
    pub max_price_age_ms: Option<Millis>,
    pub order_rate_limit: Option<u32>,
    pub order_rate_window_ms: Option<Millis>,
    pub duplicate_window_ms: Option<Millis>,
    pub self_trade_prevention: bool,
}

/// The age above which a mark is stale where nobody says otherwise.
pub const DEFAULT_MAX_PRICE_AGE_MS: Millis = 60_000;

/// The window of the order rate where nobody says otherwise.
pub const DEFAULT_ORDER_RATE_WINDOW_MS: Millis = 1_000;

impl EffectiveLimits {
    /// An account's own limits over the gate's defaults.
    #[must_use]
    pub fn of(own: &Limits, default: &Limits) -> Self {
        Self {
            max_order_qty: resolve(own.max_order_qty, default.max_order_qty, None),
            max_order_value: resolve(own.max_order_value, default.max_order_value, None),
            price_collar_percent: resolve(own.price_collar_percent, default.price_collar_percent, None),
            price_collar_mode: resolve(own.price_collar_mode, default.price_collar_mode, None).unwrap_or_default(),
            max_price_age_ms: resolve(own.max_price_age_ms, default.max_price_age_ms, Some(DEFAULT_MAX_PRICE_AGE_MS))
                .filter(|age| *age > 0),
            order_rate_limit: resolve(own.order_rate_limit, default.order_rate_limit, None),
            order_rate_window_ms: resolve(own.order_rate_window_ms, default.order_rate_window_ms, Some(DEFAULT_ORDER_RATE_WINDOW_MS)),
            duplicate_window_ms: resolve(own.duplicate_window_ms, default.duplicate_window_ms, None),
            self_trade_prevention: resolve(own.self_trade_prevention, default.self_trade_prevention, None).unwrap_or(false),
        }
    }
}

impl EffectiveLimits {
    /// How far back the rate and the duplicates look.
    #[must_use]
    pub fn longest_window_ms(&self) -> Millis {
        let rate = self.order_rate_limit.and(self.order_rate_window_ms);
        rate.max(self.duplicate_window_ms).unwrap_or(0)
    }
}

/// `EXPIRED`, with its figures, if an intent of this age is too old.
#[must_use]
pub fn expired(age: Option<Millis>, max_age: Millis) -> Option<Reason> {
    let age = age.filter(|age| max_age > 0 && *age > max_age)?;
    Some(with_figures(ReasonCode::Expired, whole(age), whole(max_age)))
}

fn resolve<T: Copy>(own: Patch<T>, default: Patch<T>, built_in: Option<T>) -> Option<T> {
    match (own, default) {
        (Patch::Set(value), _) | (Patch::Keep, Patch::Set(value)) => Some(value),
        (Patch::Clear, _) | (Patch::Keep, Patch::Clear) => None,
        (Patch::Keep, Patch::Keep) => built_in,
    }
}

/// The order that is asked for: a new one, or a working one as an amendment would leave it.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Its account.
    pub account: &'a Account,
    /// The account's currency.
    pub currency: Currency,
    /// Its symbol, if it is known at all.
    pub state: Option<&'a SymbolState>,
    /// The position in it.
    pub position: &'a Position,
    /// The limits that hold.
    pub limits: EffectiveLimits,
    /// Its side.
    pub side: Side,
    /// Its type.
    pub order_type: OrderType,
    /// Its prices.
    pub prices: OrderPrices,
    /// Its total quantity; `None` while a `notional` has no price.
    pub qty: Option<i64>,
    /// What is wrong with its size or its change, beside what the column sees itself.
    pub size_objection: Option<Field>,
    /// The quantity of a `notional` leaves its type.
    pub overflows: bool,
    /// Whether it strictly reduces.
    pub reducing: bool,
    /// It is to be refused unless it does.
    pub reduce_only: bool,
    /// An amendment: which of its prices are new, and whether it has a quantity.
    pub amends: Option<Amends>,
    /// `received - at`, if it is known.
    pub age: Option<Millis>,
    /// The greatest age of an intent; 0 = any.
    pub max_age: Millis,
    /// The strictest trading state that covers it.
    pub trading: TradingState,
    /// A restricted list covers it.
    pub restricted: bool,
    /// An enforced rule needs a mark that is missing.
    pub rules_are_blind: bool,
    /// The record's time.
    pub at: Millis,
}

/// What an amendment changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Amends {
    /// It names a quantity.
    pub qty: bool,
    /// It names a limit price.
    pub limit: bool,
    /// It names a stop price.
    pub stop: bool,
}

/// Runs down the column. Failures that are excused go to `exempt`.
///
/// # Errors
/// The reason of the first check that refuses.
pub fn run(asked: &Asked<'_>, exempt: &mut Vec<Reason>) -> Result<(), Box<Reason>> {
    let mut column = Column { asked, exempt };
    if let Some(reason) = expired(asked.age, asked.max_age) {
        column.unless(true, || reason)?;
    }
    let Some((state, instrument)) = asked.state.and_then(|state| Some((state, state.instrument.as_ref()?))) else {
        return Err(Box::new(Reason { field: Some(Field::Symbol), ..Reason::of(ReasonCode::UnknownInstrument) }));
    };
    if instrument.currency != asked.currency {
        return Err(Box::new(Reason { field: Some(Field::Symbol), ..Reason::of(ReasonCode::CurrencyMismatch) }));
    }
    if asked.overflows {
        return Err(Box::new(Reason { field: Some(Field::Notional), ..Reason::of(ReasonCode::ValueOutOfRange) }));
    }
    if let Some(field) = invalid(asked, instrument) {
        return Err(Box::new(Reason { field: Some(field), ..Reason::of(ReasonCode::InvalidOrder) }));
    }
    column.unless(asked.trading == TradingState::Halted, || Reason::of(ReasonCode::Halted))?;
    column.unless(asked.trading == TradingState::ReduceOnly, || Reason::of(ReasonCode::ReduceOnly))?;
    column.unless(asked.restricted, || Reason { field: Some(Field::Symbol), ..Reason::of(ReasonCode::Restricted) })?;
    column.prices(state)?;
    column.sizes(state, instrument)?;
    column.conduct()
}

/// The price that an order is valued at: its limit, else its stop, else the opposite touch, else the mark.
#[must_use]
pub fn order_price(prices: &OrderPrices, side: Side, state: &SymbolState) -> Option<Price> {
    prices.limit.or(prices.stop).or_else(|| state.mark.opposite_touch(side)).or_else(|| state.mark.price())
}

struct Column<'a> {
    asked: &'a Asked<'a>,
    exempt: &'a mut Vec<Reason>,
}

impl Column<'_> {
    fn unless(&mut self, failed: bool, reason: impl FnOnce() -> Reason) -> Result<(), Box<Reason>> {
        if !failed {
            return Ok(());
        }
        let reason = reason();
        if self.asked.reducing {
            self.exempt.push(Reason { exempt: true, ..reason });
            return Ok(());
        }
        Err(Box::new(reason))
    }

    fn prices(&mut self, state: &SymbolState) -> Result<(), Box<Reason>> {
        let asked = self.asked;
        let mark = state.mark.price();
        let priceless = mark.is_none() && asked.prices.limit.is_none() && asked.prices.stop.is_none();
        let collar = asked.limits.price_collar_percent.zip(asked.prices.limit);
        let reference = state.mark.opposite_touch(asked.side).or(mark);
        let blind = priceless || asked.rules_are_blind || asked.qty.is_none() || (collar.is_some() && reference.is_none());
        self.unless(blind, || Reason::of(ReasonCode::PriceUnavailable))?;
        if let (Some(time), Some(_), Some(limit)) = (state.mark.time(), mark, asked.limits.max_price_age_ms) {
            let age = asked.at.saturating_sub(time);
            self.unless(age > limit, || with_figures(ReasonCode::PriceStale, whole(age), whole(limit)))?;
        }
        if let (Some((collar, limit)), Some(reference)) = (collar, reference) {
            let worse = i128::from(limit.0 - reference.0) * i128::from(asked.side.sign());
            let worse = if asked.limits.price_collar_mode == CollarMode::TwoSided { worse.abs() } else { worse };
            let (worse, reference) = (worse * 100, i128::from(reference.0));
            self.unless(worse * i128::from(Factor::ONE.0) > i128::from(collar.0) * reference, || Reason {
                field: Some(Field::LimitPrice),
                ..with_figures(ReasonCode::PriceCollar, Amount::over(worse, reference).figure(), Figure::Units(i128::from(collar.0)))
            })?;
        }
        Ok(())
    }

    fn sizes(&mut self, state: &SymbolState, instrument: &Instrument) -> Result<(), Box<Reason>> {
        let asked = self.asked;
        let Some(qty) = asked.qty else { return Ok(()) };
        if let Some(limit) = strictest(asked.limits.max_order_qty, instrument.max_order_qty) {
            self.unless(qty > limit.0, || Reason {
                field: Some(Field::Qty),
                ..with_figures(ReasonCode::MaxOrderQty, Figure::Units(i128::from(qty)), Figure::Units(i128::from(limit.0)))
            })?;
        }
        if let (Some(limit), Some(price)) =
            (strictest(asked.limits.max_order_value, instrument.max_order_value), order_price(&asked.prices, asked.side, state))
        {
            let Some(value) = times_multiplier(exact_value(qty, price), instrument.multiplier) else {
                return if asked.reducing { Ok(()) } else { Err(Box::new(Reason::of(ReasonCode::ValueOutOfRange))) };
            };
            self.unless(value > limit, || with_figures(ReasonCode::MaxOrderValue, money(value), money(limit)))?;
        }
        Ok(())
    }

    fn conduct(&mut self) -> Result<(), Box<Reason>> {
        let asked = self.asked;
        if let (Some(limit), Some(window)) = (asked.limits.order_rate_limit, asked.limits.order_rate_window_ms) {
            let full = rate(&asked.account.orders, asked.at, window, limit) >= limit;
            self.unless(full, || with_figures(ReasonCode::OrderRate, whole(Millis::from(limit) + 1), whole(Millis::from(limit))))?;
        }
        if let (Some(window), None) = (asked.limits.duplicate_window_ms, asked.amends) {
            self.unless(duplicates(asked, window), || Reason::of(ReasonCode::DuplicateOrder))?;
        }
        self.unless(asked.limits.self_trade_prevention && trades_with_itself(asked), || Reason::of(ReasonCode::SelfTrade))
    }
}

/// The field for which an order is `INVALID_ORDER`, if it is.
fn invalid(asked: &Asked<'_>, instrument: &Instrument) -> Option<Field> {
    if asked.size_objection.is_some() {
        return asked.size_objection;
    }
    if let Some(field) = misplaced_price(asked.order_type, &asked.prices) {
        return Some(field);
    }
    let (changes_qty, changes_limit, changes_stop) =
        asked.amends.map_or((true, true, true), |amends| (amends.qty, amends.limit, amends.stop));
    if let Some(qty) = asked.qty.filter(|_| changes_qty && !asked.reducing)
        && instrument.lot.0 > 0
        && qty % instrument.lot.0 != 0
    {
        return Some(Field::Qty);
    }
    if let Some(tick) = instrument.tick.filter(|tick| tick.0 > 0) {
        let off = |price: Option<Price>| price.is_some_and(|price| price.0 % tick.0 != 0);
        if changes_limit && off(asked.prices.limit) {
            return Some(Field::LimitPrice);
        }
        if changes_stop && off(asked.prices.stop) {
            return Some(Field::StopPrice);
        }
        if asked.amends.is_none() && off(asked.prices.trail_price) {
            return Some(Field::TrailPrice);
        }
    }
    (asked.reduce_only && !asked.reducing && asked.qty.is_some()).then_some(Field::ReduceOnly)
}

fn misplaced_price(order_type: OrderType, prices: &OrderPrices) -> Option<Field> {
    let (limit, stop, trail) = match order_type {
        OrderType::Market => (false, false, false),
        OrderType::Limit => (true, false, false),
        OrderType::Stop => (false, true, false),
        OrderType::StopLimit => (true, true, false),
        OrderType::TrailingStop => (false, false, true),
    };
    if prices.limit.is_some() != limit {
        return Some(Field::LimitPrice);
    }
    if prices.stop.is_some() != stop {
        return Some(Field::StopPrice);
    }
    match (prices.trail_price.is_some(), prices.trail_percent.is_some(), trail) {
        (true, false, true) | (false, true, true) | (false, false, false) => None,
        (true, _, _) | (false, false, true) => Some(Field::TrailPrice),
        (false, true, false) => Some(Field::TrailPercent),
    }
}

fn strictest<T: Ord>(a: Option<T>, b: Option<T>) -> Option<T> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// How many intents and amends were allowed in `(at - window, at]`, counted up to `limit`.
fn rate(orders: &Orders, at: Millis, window: Millis, limit: u32) -> u32 {
    let recent = orders.newest_first().take_while(|entry| at.saturating_sub(entry.at) < window);
    let allowed = recent.filter(|entry| entry.verdict != Verdict::Block);
    u32::try_from(allowed.take(limit as usize).count()).unwrap_or(u32::MAX)
}

fn duplicates(asked: &Asked<'_>, window: Millis) -> bool {
    let recent = asked.account.orders.newest_first().take_while(|entry| asked.at.saturating_sub(entry.at) < window);
    let allowed = recent.filter(|entry| entry.verdict != Verdict::Block);
    let mut orders = allowed.filter_map(|entry| Some((entry.order()?, entry.requested_qty)));
    orders.any(|(order, qty)| {
        order.symbol == asked.position.symbol
            && order.side == asked.side
            && order.order_type == asked.order_type
            && order.prices == asked.prices
            && qty.map(|qty| qty.0) == asked.qty
    })
}

fn trades_with_itself(asked: &Asked<'_>) -> bool {
    let reach = match asked.order_type {
        OrderType::Market => None,
        OrderType::Limit => asked.prices.limit,
        OrderType::Stop | OrderType::StopLimit | OrderType::TrailingStop => return false,
    };
    let limits = asked.account.orders.legs(asked.position).filter_map(|(_, entry)| {
        let resting = entry.status == Status::Working && entry.side == Some(asked.side.opposite());
        let limit = entry.order().filter(|order| order.order_type == OrderType::Limit && resting);
        limit.and(entry.prices.limit)
    });
    limits.into_iter().any(|resting| {
        reach.is_none_or(|reach| match asked.side {
            Side::Buy => reach >= resting,
            Side::Sell => reach <= resting,
        })
    })
}

fn with_figures(code: ReasonCode, current: Figure, limit: Figure) -> Reason {
    Reason { current, limit, ..Reason::of(code) }
}

/// A whole number as a figure.
fn whole(n: Millis) -> Figure {
    Figure::Units(i128::from(n) * i128::from(Factor::ONE.0))
}

fn money(amount: Money) -> Figure {
    Amount::over(amount.0, crate::domain::MONEY_UNITS_PER_ONE).figure()
}
