//! One record's turn: what it says of itself, and the outputs that it causes.
//!
//! Invariant: commands and notifications are numbered apart, each from 0, in the order of output.

use crate::book::{Account, AccountIx, SymbolIx};
use crate::domain::{
    CancelOrders, ClientOrderId, ClosePosition, DeadLetter, Effects, Limits, Millis, Notification, NotificationCode, NotificationData,
    NotificationType, Output, Patch, Priority, Qty, RefusalCode, RuleId, Side, Source, Symbol,
};

/// One record's turn.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    pub(crate) out: &'a mut Effects,
    pub(crate) shard: u32,
    pub(crate) seq: u64,
    pub(crate) at: Millis,
    pub(crate) source: Source,
    /// Accounts that changed.
    pub(crate) touched: &'a mut Vec<AccountIx>,
    /// Positions that changed, and whether their stops must be told anew.
    pub(crate) moved: &'a mut Vec<(AccountIx, SymbolIx, bool)>,
    /// Another shard says what is to be said of this record for all that apply it.
    pub(crate) quiet: bool,
    pub(crate) commands: u32,
    notifications: u32,
}

impl<'a> Turn<'a> {
    pub(crate) fn new(
        out: &'a mut Effects,
        touched: &'a mut Vec<AccountIx>,
        moved: &'a mut Vec<(AccountIx, SymbolIx, bool)>,
        place: (u32, u64, Millis),
        source: Source,
    ) -> Self {
        let (shard, seq, at) = place;
        Self { out, shard, seq, at, source, touched, moved, quiet: false, commands: 0, notifications: 0 }
    }

    pub(crate) fn touch(&mut self, account: AccountIx) {
        if self.touched.last() != Some(&account) {
            self.touched.push(account);
        }
    }

    /// Raises a notification, if it always comes or the account asked for its type. Returns its
    /// place among the outputs.
    pub(crate) fn notify(
        &mut self,
        account: Option<&Account>,
        defaults: &Limits,
        code: NotificationCode,
        kind: NotificationType,
        data: NotificationData,
    ) -> Option<usize> {
        if !always(code) && !account.is_some_and(|account| wants(account, defaults, kind)) {
            return None;
        }
        self.out.outputs.push(Output::Notification(Notification {
            index: self.notifications,
            account: account.map(|account| account.id),
            owner: account.map(|account| account.owner),
            kind,
            code,
            priority: usual_priority(code),
            data,
            shard: self.shard,
            seq: self.seq,
            at: self.at,
        }));
        self.notifications += 1;
        Some(self.out.outputs.len() - 1)
    }

    /// Makes a notification urgent that was raised before what made it so.
    pub(crate) fn make_urgent(&mut self, place: Option<usize>) {
        if let Some(Output::Notification(notification)) = place.and_then(|place| self.out.outputs.get_mut(place)) {
            notification.priority = Priority::Urgent;
        }
    }

    /// Commands a cancel. Nothing is sent when there is nothing to cancel.
    pub(crate) fn cancel_orders(
        &mut self,
        account: &Account,
        symbol: Option<Symbol>,
        orders: impl Iterator<Item = ClientOrderId>,
        rule_id: Option<RuleId>,
    ) {
        let first = self.out.order_ids.len();
        self.out.order_ids.extend(orders);
        let client_order_ids = first..self.out.order_ids.len();
        if client_order_ids.is_empty() {
            return;
        }
        let (index, account) = (self.next_command(), account.id);
        let cancel = CancelOrders { index, account, symbol, client_order_ids, rule_id, shard: self.shard, seq: self.seq, at: self.at };
        self.out.outputs.push(Output::CancelOrders(cancel));
    }

    /// Commands a close; returns its number among the record's commands.
    pub(crate) fn close_position(&mut self, account: &Account, symbol: Symbol, side: Side, qty: Qty, rule_id: Option<RuleId>) -> u32 {
        let (index, account) = (self.next_command(), account.id);
        let close = ClosePosition { index, account, symbol, side, qty, rule_id, shard: self.shard, seq: self.seq, at: self.at };
        self.out.outputs.push(Output::ClosePosition(close));
        index
    }

    pub(crate) fn dead_letter(&mut self, code: RefusalCode, field: Option<&str>, message: &str) {
        self.out.outputs.push(Output::DeadLetter(DeadLetter { code, field: field.map(Into::into), message: message.into() }));
    }

    /// A dead letter whose reason is the same in every shard: one of them raises it.
    pub(crate) fn shared_dead_letter(&mut self, code: RefusalCode, field: Option<&str>, message: &str) {
        if !self.quiet {
            self.dead_letter(code, field, message);
        }
    }

    fn next_command(&mut self) -> u32 {
        self.commands += 1;
        self.commands - 1
    }
}

/// Whether notifications of a code come to everyone.
const fn always(code: NotificationCode) -> bool {
    match code {
        NotificationCode::RuleBreach
        | NotificationCode::RuleWarning
        | NotificationCode::RuleCleared
        | NotificationCode::ExecutionUnreadable
        | NotificationCode::CloseNotConfirmed
        | NotificationCode::UnknownOrderFill
        | NotificationCode::Overfill
        | NotificationCode::UnknownExecution
        | NotificationCode::UnknownAccount
        | NotificationCode::TradingStateChanged => true,
        NotificationCode::OrderRejected
        | NotificationCode::OrderFilled
        | NotificationCode::OrderCancelled
        | NotificationCode::PositionOpened
        | NotificationCode::PositionClosed
        | NotificationCode::StrategySignal
        | NotificationCode::DailySummary => false,
    }
}

const fn usual_priority(code: NotificationCode) -> Priority {
    match code {
        NotificationCode::ExecutionUnreadable | NotificationCode::CloseNotConfirmed => Priority::Urgent,
        NotificationCode::RuleBreach
        | NotificationCode::UnknownOrderFill
        | NotificationCode::Overfill
        | NotificationCode::UnknownExecution
        | NotificationCode::UnknownAccount
        | NotificationCode::TradingStateChanged => Priority::High,
        NotificationCode::RuleWarning | NotificationCode::OrderRejected => Priority::Medium,
        NotificationCode::RuleCleared
        | NotificationCode::OrderFilled
        | NotificationCode::OrderCancelled
        | NotificationCode::PositionOpened
        | NotificationCode::PositionClosed
        | NotificationCode::StrategySignal
        | NotificationCode::DailySummary => Priority::Low,
    }
}

fn wants(account: &Account, defaults: &Limits, kind: NotificationType) -> bool {
    match (&account.limits.notify, &defaults.notify) {
        (Patch::Set(types), _) | (Patch::Keep, Patch::Set(types)) => types.contains(&kind),
        (Patch::Clear, _) | (Patch::Keep, Patch::Clear | Patch::Keep) => false,
    }
}
