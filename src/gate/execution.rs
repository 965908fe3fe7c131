//! Executions: fills, ends of orders, fills taken back (SEMANTICS section 2).
//!
//! Invariant: a fill is booked whole or not at all; one that cannot be booked leaves the book
//! unknown, and its account halted.

use super::Gate;
use super::desk::Desk;
use super::turn::Turn;
use crate::book::{AccountIx, CommandState, FillValues, Filled, Holding, Orders, RememberedFill, Status, SymbolIx};
use crate::domain::{
    ClientOrderId, ExecId, Fill, Id, IntentKind, Money, NotificationCode, NotificationData, NotificationType, Price, Qty, RefusalCode,
    Refused, Report, ReportKind, Side, TimeInForce, TradeBusted, TradeCorrected, TradingState, value,
};

/// What a fill is a fill of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fills {
    Order(u32),
    Command(usize),
    Nothing,
}

impl Fills {
    const fn kind(self) -> Filled {
        match self {
            Self::Order(_) => Filled::Order,
            Self::Command(_) => Filled::Command,
            Self::Nothing => Filled::Nothing,
        }
    }
}

/// A fill that can be booked: what the book will be.
struct Booking {
    ix: AccountIx,
    symbol: SymbolIx,
    holding: Holding,
    cash: Money,
}

impl Gate {
    /// A fill.
    pub(super) fn on_fill(&mut self, fill: &Fill, key: Option<Id>, turn: &mut Turn<'_>) {
        let Some(ix) = self.account_of_execution(fill.account, turn) else { return };
        self.forget_old(ix, turn);
        if self.index.fill(ix, &fill.exec_id, &self.accounts).is_some() {
            return;
        }
        let Some(booking) = self.booking(ix, fill) else {
            let message = "the fill cannot be booked: its instrument is not defined, or a result leaves its type";
            return self.unreadable(Some(ix), (key, None), message, turn);
        };
        self.enter(&booking, fill, turn);
    }

    fn booking(&self, ix: AccountIx, fill: &Fill) -> Option<Booking> {
        let symbol = self.index.symbol(&fill.symbol, &self.shared.symbols)?;
        let instrument = self.shared.symbols[symbol as usize].instrument?;
        let account = &self.accounts[ix as usize];
        let held = account.position(symbol).map_or_else(Holding::default, |position| position.holding);
        let holding = held.after_fill(fill.side, fill.qty.0, fill.price, instrument.multiplier)?;
        let amount = value(fill.side.sign().checked_mul(fill.qty.0)?, fill.price, instrument.multiplier)?;
        let cash = account.cash.minus(amount)?.minus(fill.fee)?;
        Some(Booking { ix, symbol, holding, cash })
    }

    fn enter(&mut self, booking: &Booking, fill: &Fill, turn: &mut Turn<'_>) {
        let &Booking { ix, symbol, holding, cash } = booking;
        let (kind, slot) = self.filled_thing(ix, fill, symbol, turn);
        let account = &mut self.accounts[ix as usize];
        let place = account.place_or_new(symbol);
        let before = account.positions[place].holding;
        let number = account.fills.push(RememberedFill {
            exec_id: fill.exec_id,
            client_order_id: fill.client_order_id,
            of: slot.kind(),
            symbol,
            side: fill.side,
            qty: fill.qty.0,
            price: fill.price,
            fee: fill.fee,
            at: turn.at,
            before,
            busted: false,
            merged: false,
        });
        self.index.add_fill(ix, number, &fill.exec_id);
        account.cash = cash;
        account.counts.fills += 1;
        let position = &mut account.positions[place];
        position.ever_filled = true;
        let completed = match slot {
            Fills::Order(slot) => {
                let worked = account.orders.get(slot).is_some_and(|order| order.status == Status::Working);
                account.orders.fill(position, slot, fill.qty.0);
                worked && account.orders.get(slot).is_some_and(|order| order.status == Status::Done)
            }
            Fills::Command(_) | Fills::Nothing => false,
        };
        let mut desk = Desk { shared: &self.shared, account, ix, turn };
        desk.say_fill(kind, fill);
        if completed {
            desk.say_order(NotificationCode::OrderFilled, NotificationType::OrderFilled, fill.client_order_id);
        }
        desk.set_holding(symbol, holding, Some(fill.price));
        if let Fills::Command(command) = slot {
            desk.fill_command(command, fill.qty.0);
        }
        desk.valuation_point(Some(symbol));
        desk.follow_up();
    }

    /// What a fill is a fill of, and what is wrong with it.
    fn filled_thing(&mut self, ix: AccountIx, fill: &Fill, symbol: SymbolIx, turn: &mut Turn<'_>) -> (Option<NotificationCode>, Fills) {
        let slot = self.remembered(IntentKind::Order, ix, &fill.client_order_id);
        let account = &self.accounts[ix as usize];
        let reserved = slot
            .and_then(|slot| Some((slot, account.orders.get(slot)?)))
            .filter(|(_, order)| order.status != Status::Unreserved && order.symbol == Some(symbol) && order.side == Some(fill.side));
        if let Some((slot, order)) = reserved {
            let over = fill.qty.0 > order.leaves();
            return (over.then_some(NotificationCode::Overfill), Fills::Order(slot));
        }
        let desk = Desk { shared: &self.shared, account: &mut self.accounts[ix as usize], ix, turn };
        let named = desk.command_named(&fill.client_order_id);
        match named.map(|place| (place, &desk.account.commands[place])) {
            Some((place, command)) if command.symbol == symbol && command.side == fill.side => {
                let over = command.is_over() || fill.qty.0 > command.rest;
                (over.then_some(NotificationCode::Overfill), Fills::Command(place))
            }
            Some(_) | None => (Some(NotificationCode::UnknownOrderFill), Fills::Nothing),
        }
    }

    /// What became of an order or command.
    pub(super) fn on_report(&mut self, report: &Report, turn: &mut Turn<'_>) {
        let Some(ix) = self.account_of_execution(report.account, turn) else { return };
        self.forget_old(ix, turn);
        let slot = self.remembered(IntentKind::Order, ix, &report.client_order_id);
        let account = &mut self.accounts[ix as usize];
        let working = slot.and_then(|slot| Some((slot, account.orders.get(slot)?))).filter(|(_, order)| order.status == Status::Working);
        let ends = working.filter(|(_, order)| ends_order(report.kind, order.order().map(|order| order.time_in_force)));
        let ended = ends.and_then(|(slot, order)| Some((slot, order.symbol?)));
        let works = working.is_some();
        if let Some((slot, symbol)) = ended {
            let place = account.place_or_new(symbol);
            account.orders.release(&mut account.positions[place], slot);
            account.due = true;
            turn.touch(ix);
            turn.moved.push((ix, symbol, false));
        }
        let mut desk = Desk { shared: &self.shared, account, ix, turn };
        desk.report_command(report, works);
        if ended.is_some() {
            let (code, kind) = match report.kind {
                ReportKind::Rejected => (NotificationCode::OrderRejected, NotificationType::OrderRejected),
                ReportKind::Accepted | ReportKind::Canceled | ReportKind::Expired | ReportKind::DoneForDay => {
                    (NotificationCode::OrderCancelled, NotificationType::OrderCancelled)
                }
            };
            desk.say_order(code, kind, report.client_order_id);
        }
        desk.follow_up();
    }

    /// A fill is taken back.
    pub(super) fn on_bust(&mut self, bust: &TradeBusted, turn: &mut Turn<'_>) {
        let Some(ix) = self.account_of_execution(bust.account, turn) else { return };
        self.change_fill(ix, &bust.exec_id, None, turn);
    }

    /// A fill has other values.
    pub(super) fn on_correction(&mut self, correction: &TradeCorrected, turn: &mut Turn<'_>) {
        let Some(ix) = self.account_of_execution(correction.account, turn) else { return };
        let values = FillValues { qty: correction.qty.0, price: correction.price };
        self.change_fill(ix, &correction.exec_id, Some((values, correction.fee)), turn);
    }

    fn change_fill(&mut self, ix: AccountIx, exec_id: &ExecId, values: Option<(FillValues, Money)>, turn: &mut Turn<'_>) {
        self.forget_old(ix, turn);
        let number = self.index.fill(ix, exec_id, &self.accounts);
        let account = &mut self.accounts[ix as usize];
        let known = number.and_then(|number| Some((number, account.fills.get(number)?.clone()))).filter(|(_, fill)| !fill.merged);
        let Some((number, fill)) = known else {
            turn.dead_letter(RefusalCode::UnknownExecution, Some("exec_id"), "no fill with this exec_id can be taken back any more");
            let data = NotificationData { exec_id: Some(*exec_id), ..NotificationData::default() };
            let mut desk = Desk { shared: &self.shared, account, ix, turn };
            desk.halt(NotificationCode::UnknownExecution, data);
            return desk.follow_up();
        };
        if fill.busted && values.is_none() {
            return;
        }
        let multiplier = self.shared.symbols[fill.symbol as usize].multiplier();
        let changed = account.fills.holding_with(number, values.map(|(values, _)| values), multiplier);
        let cash = changed_cash(account.cash, &fill, values, multiplier);
        let was = if fill.busted { 0 } else { fill.qty };
        let difference = values.map_or(0, |(values, _)| values.qty).saturating_sub(was);
        let fits = Orders::fits_at(account.position(fill.symbol), fill.side, difference.saturating_neg());
        let Some(((holding, opened), cash)) = changed.zip(cash).filter(|_| fits) else {
            let message = "the position without, or with, this fill leaves its type";
            return self.unreadable(Some(ix), (None, None), message, turn);
        };
        account.fills.change(number, values, multiplier);
        account.cash = cash;
        let (over, completed) = self.change_filled(ix, &fill, difference, turn);
        let account = &mut self.accounts[ix as usize];
        let mut desk = Desk { shared: &self.shared, account, ix, turn };
        if over {
            desk.say_order(NotificationCode::Overfill, NotificationType::SystemAlert, fill.client_order_id);
        }
        if completed {
            desk.say_order(NotificationCode::OrderFilled, NotificationType::OrderFilled, fill.client_order_id);
        }
        desk.set_holding(fill.symbol, holding, opened);
        desk.valuation_point(Some(fill.symbol));
        desk.follow_up();
    }

    /// What is filled of the order or command that a fill was counted against follows it. Returns
    /// what is to be said of an order: that it is filled beyond its total, that it is filled.
    fn change_filled(&mut self, ix: AccountIx, fill: &RememberedFill, difference: i64, turn: &mut Turn<'_>) -> (bool, bool) {
        let slot = self.remembered(IntentKind::Order, ix, &fill.client_order_id);
        let account = &mut self.accounts[ix as usize];
        match fill.of {
            Filled::Order => {
                let order = slot.and_then(|slot| Some((slot, account.orders.get(slot)?)));
                let reserved = order.filter(|(_, order)| order.status != Status::Unreserved);
                let Some((slot, filled, worked)) =
                    reserved.map(|(slot, order)| (slot, order.filled.saturating_add(difference), order.status == Status::Working))
                else {
                    return (false, false);
                };
                let place = account.place_or_new(fill.symbol);
                account.orders.set_filled(&mut account.positions[place], slot, filled);
                let order = account.orders.get(slot);
                let over = difference > 0 && order.is_some_and(|order| order.filled > order.total);
                (over, worked && order.is_some_and(|order| order.status == Status::Done))
            }
            Filled::Command => {
                let desk = Desk { shared: &self.shared, account, ix, turn };
                if let Some(place) = desk.command_named(&fill.client_order_id) {
                    let command = &mut desk.account.commands[place];
                    if command.state == CommandState::Executing {
                        command.rest = command.rest.saturating_sub(difference).max(0);
                    }
                }
                (false, false)
            }
            Filled::Nothing => (false, false),
        }
    }

    /// A record of `orders.executions` that could not be decoded.
    pub(super) fn on_refused_execution(&mut self, refused: &Refused, key: Option<Id>, turn: &mut Turn<'_>) {
        let named = key.or(refused.account);
        let ix = named.and_then(|id| self.index.account(&id, &self.accounts));
        self.refuse_execution(ix, named, (refused.code, refused.field.as_deref(), &refused.message), turn);
    }

    fn unreadable(&mut self, ix: Option<AccountIx>, (key, account): (Option<Id>, Option<Id>), message: &str, turn: &mut Turn<'_>) {
        self.refuse_execution(ix, key.or(account), (RefusalCode::ExecutionUnreadable, None, message), turn);
    }

    fn refuse_execution(
        &mut self,
        ix: Option<AccountIx>,
        named: Option<Id>,
        (code, field, message): (RefusalCode, Option<&str>, &str),
        turn: &mut Turn<'_>,
    ) {
        match (ix, named) {
            (Some(ix), _) => {
                turn.dead_letter(code, field, message);
                let account = &mut self.accounts[ix as usize];
                let mut desk = Desk { shared: &self.shared, account, ix, turn };
                desk.halt_unreadable(NotificationData::default());
                desk.follow_up();
            }
            (None, Some(id)) if code == RefusalCode::Misrouted => {
                turn.dead_letter(code, field, message);
                self.notify_unknown_account(id, turn);
            }
            (None, Some(id)) => self.refuse_unknown_account(id, turn),
            (None, None) => {
                turn.dead_letter(code, field, message);
                self.halt_shard(turn);
            }
        }
    }

    /// Nobody knows whose book is unknown: everything halts until an operator says otherwise.
    fn halt_shard(&mut self, turn: &mut Turn<'_>) {
        let data = NotificationData::default();
        turn.notify(None, &self.shared.limits, NotificationCode::ExecutionUnreadable, NotificationType::SystemAlert, data);
        self.set_scope_state(super::shared::ScopeKey { account: None, strategy: None, symbol: None }, TradingState::Halted, turn);
    }

    fn account_of_execution(&mut self, account: Id, turn: &mut Turn<'_>) -> Option<AccountIx> {
        let ix = self.index.account(&account, &self.accounts);
        if ix.is_none() {
            self.refuse_unknown_account(account, turn);
        }
        ix
    }

    fn refuse_unknown_account(&mut self, account: Id, turn: &mut Turn<'_>) {
        turn.dead_letter(RefusalCode::UnknownAccount, Some("account"), "the account is not open here");
        self.notify_unknown_account(account, turn);
    }

    fn notify_unknown_account(&self, account: Id, turn: &mut Turn<'_>) {
        let place = turn.notify(
            None,
            &self.shared.limits,
            NotificationCode::UnknownAccount,
            NotificationType::SystemAlert,
            NotificationData::default(),
        );
        if let Some(crate::domain::Output::Notification(notification)) = place.and_then(|place| turn.out.outputs.get_mut(place)) {
            notification.account = Some(account);
        }
    }
}

impl Desk<'_, '_> {
    /// Puts a holding in its place: says what opened and closed, ends what belonged to what closed.
    fn set_holding(&mut self, symbol: SymbolIx, holding: Holding, opened: Option<Price>) {
        let place = self.account.place_or_new(symbol);
        let marks = self.shared.symbols.get(symbol as usize).map_or(0, |state| state.extremes.position());
        let position = &mut self.account.positions[place];
        let before = std::mem::replace(&mut position.holding, holding);
        let turned = before.qty.signum() != holding.qty.signum();
        if turned && holding.qty != 0 {
            position.opened_price = opened.unwrap_or(position.opened_price);
            position.opened_index = marks;
        }
        self.turn.moved.push((self.ix, symbol, true));
        self.turn.touch(self.ix);
        if !turned {
            return;
        }
        self.account.end_commands_that_reduce_nothing(symbol);
        if before.qty != 0 {
            self.say_position(NotificationCode::PositionClosed, NotificationType::PositionClosed, symbol, before.qty);
            self.end_position_episodes(symbol);
        }
        if holding.qty != 0 {
            self.say_position(NotificationCode::PositionOpened, NotificationType::PositionOpened, symbol, holding.qty);
        }
    }

    fn fill_command(&mut self, place: usize, qty: i64) {
        let command = &mut self.account.commands[place];
        command.rest = command.rest.saturating_sub(qty).max(0);
        if !command.is_over() {
            command.state = if command.rest == 0 { CommandState::Ended } else { CommandState::Executing };
        }
    }

    /// An execution report under a command's id.
    fn report_command(&mut self, report: &Report, works: bool) {
        let Some(place) = self.command_named(&report.client_order_id) else { return };
        let state = self.account.commands[place].state;
        match report.kind {
            ReportKind::Accepted if state == CommandState::Unanswered => self.account.commands[place].state = CommandState::Executing,
            ReportKind::Accepted => return,
            ReportKind::Rejected if works || matches!(state, CommandState::Unanswered | CommandState::Executing) => {
                self.command_rejected(place)
            }
            ReportKind::Rejected => return,
            ReportKind::Canceled | ReportKind::Expired | ReportKind::DoneForDay => match state {
                CommandState::Unanswered | CommandState::Executing => self.account.commands[place].state = CommandState::Ended,
                CommandState::TakenOver | CommandState::Ended => return,
            },
        }
        self.turn.touch(self.ix);
    }

    fn say_fill(&mut self, code: Option<NotificationCode>, fill: &Fill) {
        let Some(code) = code else { return };
        let data = NotificationData {
            symbol: Some(fill.symbol),
            client_order_id: Some(fill.client_order_id),
            exec_id: Some(fill.exec_id),
            side: Some(fill.side),
            qty: Some(fill.qty),
            price: Some(fill.price),
            ..NotificationData::default()
        };
        self.turn.notify(Some(self.account), &self.shared.limits, code, NotificationType::SystemAlert, data);
    }

    fn say_order(&mut self, code: NotificationCode, kind: NotificationType, client_order_id: ClientOrderId) {
        let data = NotificationData { client_order_id: Some(client_order_id), ..NotificationData::default() };
        self.turn.notify(Some(self.account), &self.shared.limits, code, kind, data);
    }

    fn say_position(&mut self, code: NotificationCode, kind: NotificationType, symbol: SymbolIx, qty: i64) {
        let side = if qty > 0 { Side::Buy } else { Side::Sell };
        let held = Some(Qty(qty.saturating_abs()));
        let data = NotificationData { symbol: self.shared.symbol_name(symbol), side: Some(side), qty: held, ..NotificationData::default() };
        self.turn.notify(Some(self.account), &self.shared.limits, code, kind, data);
    }
}

fn ends_order(kind: ReportKind, time_in_force: Option<TimeInForce>) -> bool {
    match kind {
        ReportKind::Accepted => false,
        ReportKind::Canceled | ReportKind::Rejected | ReportKind::Expired => true,
        ReportKind::DoneForDay => time_in_force != Some(TimeInForce::Gtc),
    }
}

/// The cash without an old fill and with a new one, fees included.
fn changed_cash(cash: Money, old: &RememberedFill, new: Option<(FillValues, Money)>, multiplier: crate::domain::Factor) -> Option<Money> {
    let mut cash = cash;
    if !old.busted {
        cash = cash.plus(value(old.side.sign().checked_mul(old.qty)?, old.price, multiplier)?)?.plus(old.fee)?;
    }
    if let Some((values, fee)) = new {
        cash = cash.minus(value(old.side.sign().checked_mul(values.qty)?, values.price, multiplier)?)?.minus(fee)?;
    }
    Some(cash)
}
