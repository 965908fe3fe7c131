//! Orders, amendments and cancels as they come: looked up, and answered where nothing is to be judged.
//!
//! Invariant: an id that has a decision never gets another one.

use std::ops::Range;

use ethnum::I256;

use super::Gate;
use super::decide::Wanted;
use super::shared::Shared;
use super::turn::Turn;
use crate::book::{AccountIx, Content, Entry, NONE, OrderContent, Orders, Position, Status, StrategyIx, SymbolIx};
use crate::domain::{
    AccountId, ClientOrderId, Decision, Factor, Field, IntentKind, Millis, Money, NotificationCode, NotificationData, NotificationType,
    OrderAmend, OrderCancel, OrderIntent, OrderPrices, Output, Qty, Reason, ReasonCode, RefusalCode, Refused, Side, Size, Symbol,
    TimeInForce, Verdict,
};
use crate::risk::check::{self, Amends};
use crate::risk::figures::equity;

impl Gate {
    /// A new order.
    pub(super) fn on_intent(&mut self, intent: &OrderIntent, age: Option<Millis>, turn: &mut Turn<'_>) {
        let Some(ix) = self.index.account(&intent.account, &self.accounts) else {
            return refuse_unknown_account(
                turn,
                intent.account,
                intent.client_order_id,
                None,
                Some((intent.symbol, intent.side, intent.size)),
            );
        };
        self.forget_old(ix, turn);
        let content = self.content_of(intent);
        let content_kept = Content::Order(content);
        if self.repeats(ix, &content_kept, turn) {
            return;
        }
        if self.accounts[ix as usize].closed {
            refuse_unknown_account(turn, intent.account, intent.client_order_id, None, Some((intent.symbol, intent.side, intent.size)));
            return self.count_blocked(ix, intent.client_order_id, ReasonCode::UnknownAccount, turn);
        }
        let wanted = self.shared.wanted(ix, &content);
        self.decide(&wanted, content_kept, age, turn);
    }

    /// A change of a working order.
    pub(super) fn on_amend(&mut self, amend: &OrderAmend, age: Option<Millis>, turn: &mut Turn<'_>) {
        let Some(ix) = self.index.account(&amend.account, &self.accounts) else {
            return refuse_unknown_account(turn, amend.account, amend.client_order_id, Some(amend.amend_id), None);
        };
        self.forget_old(ix, turn);
        let content = Content::Amend {
            amend_id: amend.amend_id,
            client_order_id: amend.client_order_id,
            qty: amend.qty,
            limit_price: amend.limit_price,
            stop_price: amend.stop_price,
        };
        if self.repeats(ix, &content, turn) {
            return;
        }
        if self.accounts[ix as usize].closed {
            refuse_unknown_account(turn, amend.account, amend.client_order_id, Some(amend.amend_id), None);
            return self.count_blocked(ix, amend.client_order_id, ReasonCode::UnknownAccount, turn);
        }
        let Some((slot, order)) = self.working_order(ix, &amend.client_order_id) else {
            let unknown = Reason { field: Some(Field::ClientOrderId), ..Reason::of(ReasonCode::UnknownOrder) };
            let reason = check::expired(age, self.shared.settings.max_intent_age_ms).unwrap_or(unknown);
            return self.refuse_unplaced(ix, content, reason, turn);
        };
        let Some(original) = order.order().copied() else { return };
        let total = amend.qty.map_or(order.total, |qty| qty.0);
        let changes = amend.qty.is_some() || amend.limit_price.is_some() || amend.stop_price.is_some();
        let objection = if total <= order.filled || !changes { Some(Field::Qty) } else { None };
        let prices =
            OrderPrices { limit: amend.limit_price.or(order.prices.limit), stop: amend.stop_price.or(order.prices.stop), ..order.prices };
        let wanted = Wanted {
            ix,
            symbol: original.symbol,
            strategy: original.strategy,
            side: original.side,
            order_type: original.order_type,
            prices,
            qty: Some(total),
            size_objection: objection,
            overflows: false,
            reduce_only: original.reduce_only,
            resizable: false,
            replaces: Some((slot, order.filled)),
            amends: Some(Amends { qty: amend.qty.is_some(), limit: amend.limit_price.is_some(), stop: amend.stop_price.is_some() }),
            lowers: prices == order.prices && total < order.total,
        };
        self.decide(&wanted, content, age, turn);
    }

    /// A cancel: always passes for a working order, and releases nothing yet.
    pub(super) fn on_cancel(&mut self, cancel: &OrderCancel, turn: &mut Turn<'_>) {
        let ix = self.index.account(&cancel.account, &self.accounts).filter(|ix| !self.accounts[*ix as usize].closed);
        let Some(ix) = ix else {
            return refuse_unknown(
                turn,
                cancel.account,
                cancel.client_order_id,
                None,
                IntentKind::Cancel,
                None,
                ReasonCode::UnknownAccount,
            );
        };
        let equity = equity(&self.accounts[ix as usize], &self.shared.symbols).ok();
        let Some((_, order)) = self.working_order(ix, &cancel.client_order_id) else {
            push_reason(turn, Reason { field: Some(Field::ClientOrderId), ..Reason::of(ReasonCode::UnknownOrder) });
            push_decision(turn, cancel.account, cancel.client_order_id, None, IntentKind::Cancel, equity, 1);
            return self.say_rejected(ix, cancel.client_order_id, ReasonCode::UnknownOrder, turn);
        };
        let leaves = Qty(order.leaves());
        let (symbol, side) = (order.symbol.and_then(|symbol| self.shared.symbol_name(symbol)), order.side);
        let decision = push_decision(turn, cancel.account, cancel.client_order_id, None, IntentKind::Cancel, equity, 0);
        (decision.symbol, decision.side) = (symbol, side);
        (decision.verdict, decision.requested_qty, decision.approved_qty) = (Verdict::Allow, Some(leaves), leaves);
    }

    /// A record of `orders.intents` that could not be decoded: a dead letter, and a decision if its
    /// ids could be read.
    pub(super) fn on_refused_intent(&mut self, refused: &Refused, turn: &mut Turn<'_>) {
        if let (Some(client_order_id), Some(account)) = (refused.client_order_id, refused.account) {
            let code = match refused.code {
                RefusalCode::Misrouted => ReasonCode::Misrouted,
                RefusalCode::ValueOutOfRange => ReasonCode::ValueOutOfRange,
                _ => ReasonCode::Malformed,
            };
            let detail = Box::new((refused.field.clone(), refused.message.clone()));
            push_reason(turn, Reason { refused: Some(detail), ..Reason::of(code) });
            push_decision(turn, account, client_order_id, None, IntentKind::Order, None, 1).intent = None;
            if let Some(ix) = self.index.account(&account, &self.accounts) {
                self.count_blocked(ix, client_order_id, code, turn);
            }
        }
        turn.dead_letter(refused.code, refused.field.as_deref(), &refused.message);
    }

    fn content_of(&mut self, intent: &OrderIntent) -> OrderContent {
        let symbol = self.index.symbol_named(intent.symbol, &mut self.shared.symbols);
        let strategy = intent.strategy.map_or(NONE, |strategy| self.index.strategy_named(strategy, &mut self.shared.strategies));
        content(intent, symbol, strategy)
    }

    /// Publishes the decision of an id again if its content is equal, refuses it if not.
    fn repeats(&mut self, ix: AccountIx, content: &Content, turn: &mut Turn<'_>) -> bool {
        let Some(slot) = self.index.id(content.kind(), ix, content.id(), &self.accounts) else { return false };
        if self.remembered(content.kind(), ix, content.id()).is_none() {
            // Only the windows of the checks still know of it: its id is free again.
            self.index.forget_id(ix, slot, content);
            return false;
        }
        let account = &self.accounts[ix as usize];
        let Some(entry) = account.orders.get(slot) else { return false };
        let (client_order_id, amend_id) = ids_of(content);
        if entry.content == *content {
            let first = turn.out.reasons.len();
            turn.out.reasons.extend_from_slice(&entry.reasons);
            let reasons = first..turn.out.reasons.len();
            turn.out.outputs.push(Output::Decision(self.decision_of(ix, entry, reasons, turn.shard)));
            return true;
        }
        if account.closed {
            return false;
        }
        let equity = equity(account, &self.shared.symbols).ok();
        let id = account.id;
        let field = if amend_id.is_some() { Field::AmendId } else { Field::ClientOrderId };
        push_reason(turn, Reason { field: Some(field), ..Reason::of(ReasonCode::IntentIdConflict) });
        let symbol = match content {
            Content::Order(order) => self.shared.symbol_name(order.symbol).zip(Some(order.side)),
            Content::Amend { .. } => None,
        };
        let decision = push_decision(turn, id, client_order_id, amend_id, content.kind(), equity, 1);
        (decision.symbol, decision.side) = symbol.unzip();
        decision.requested_qty = requested_of(content);
        self.count_blocked(ix, client_order_id, ReasonCode::IntentIdConflict, turn);
        true
    }

    /// The decision that an entry remembers.
    fn decision_of(&self, ix: AccountIx, entry: &Entry, reasons: Range<usize>, shard: u32) -> Decision {
        let (client_order_id, amend_id) = ids_of(&entry.content);
        Decision {
            client_order_id,
            amend_id,
            account: self.accounts[ix as usize].id,
            intent: Some(entry.content.kind()),
            symbol: entry.symbol.and_then(|symbol| self.shared.symbol_name(symbol)),
            side: entry.side,
            verdict: entry.verdict,
            requested_qty: entry.requested_qty,
            approved_qty: entry.approved_qty,
            reasons,
            equity: entry.equity,
            shard,
            seq: entry.seq,
            at: entry.at,
            source: entry.source,
        }
    }

    fn working_order(&self, ix: AccountIx, id: &ClientOrderId) -> Option<(u32, &Entry)> {
        let slot = self.remembered(IntentKind::Order, ix, id)?;
        let order = self.accounts[ix as usize].orders.get(slot)?;
        (order.status == Status::Working).then_some((slot, order))
    }

    /// The decision goes out, its id is used up, and `reserve` gets the slot.
    pub(super) fn publish_and_remember(
        &mut self,
        ix: AccountIx,
        entry: Entry,
        reasons: Range<usize>,
        turn: &mut Turn<'_>,
        reserve: impl FnOnce(&mut Orders, &mut Vec<Position>, u32),
    ) {
        let decision = self.decision_of(ix, &entry, reasons.clone(), turn.shard);
        turn.out.outputs.push(Output::Decision(decision));
        let account = &mut self.accounts[ix as usize];
        match entry.verdict {
            Verdict::Allow => account.counts.allowed += 1,
            Verdict::AllowReduced => account.counts.reduced += 1,
            Verdict::Block => account.counts.blocked += 1,
        }
        if let Some(symbol) = entry.symbol.filter(|_| entry.verdict != Verdict::Block) {
            account.place_or_new(symbol);
            account.due = true;
            turn.moved.push((ix, symbol, false));
        }
        let uses_id = !turn.out.reasons[reasons.clone()].iter().any(|reason| reason.code == ReasonCode::ValueOutOfRange);
        if uses_id {
            let content = entry.content;
            let slot = account.orders.remember(entry, &turn.out.reasons[reasons]);
            self.index.add_id(ix, slot, &content);
            reserve(&mut account.orders, &mut account.positions, slot);
        }
        turn.touch(ix);
    }

    fn refuse_unplaced(&mut self, ix: AccountIx, content: Content, reason: Reason, turn: &mut Turn<'_>) {
        let first = turn.out.reasons.len();
        let code = reason.code;
        turn.out.reasons.push(reason);
        let mut entry = Entry::new(content, turn.at, turn.seq, turn.source);
        entry.requested_qty = requested_of(&content);
        entry.equity = equity(&self.accounts[ix as usize], &self.shared.symbols).ok();
        let reasons = first..turn.out.reasons.len();
        self.publish_and_remember(ix, entry, reasons, turn, |_, _, _| {});
        self.say_rejected(ix, ids_of(&content).0, code, turn);
    }

    /// A block that is no more than a block: counted, and said.
    fn count_blocked(&mut self, ix: AccountIx, client_order_id: ClientOrderId, reason: ReasonCode, turn: &mut Turn<'_>) {
        self.accounts[ix as usize].counts.blocked += 1;
        turn.touch(ix);
        self.say_rejected(ix, client_order_id, reason, turn);
    }

    pub(super) fn say_rejected(&mut self, ix: AccountIx, client_order_id: ClientOrderId, reason: ReasonCode, turn: &mut Turn<'_>) {
        let data = NotificationData { client_order_id: Some(client_order_id), reason: Some(reason), ..NotificationData::default() };
        let account = &self.accounts[ix as usize];
        let (code, kind) = (NotificationCode::OrderRejected, NotificationType::OrderRejected);
        turn.notify(Some(account), &self.shared.limits, code, kind, data);
    }
}

impl Shared {
    /// A new order as it would work if it were allowed.
    pub(super) fn wanted(&self, ix: AccountIx, content: &OrderContent) -> Wanted {
        let quantity = self.quantity(content);
        let (qty, size_objection) = quantity.unwrap_or_default();
        Wanted {
            ix,
            symbol: content.symbol,
            strategy: content.strategy,
            side: content.side,
            order_type: content.order_type,
            prices: content.prices,
            qty,
            size_objection,
            overflows: quantity.is_none(),
            reduce_only: content.reduce_only,
            resizable: content.time_in_force != TimeInForce::Fok && !content.all_or_none,
            replaces: None,
            amends: None,
            lowers: false,
        }
    }

    /// The quantity of an order, and what is wrong with it. `None` when it leaves its type.
    fn quantity(&self, content: &OrderContent) -> Option<(Option<i64>, Option<Field>)> {
        match content.size {
            Size::Qty(qty) => Some((Some(qty.0), None)),
            Size::Unclear(qty, _) => Some((qty.map(|qty| qty.0), Some(Field::Qty))),
            Size::Notional(notional) => {
                let state = self.symbols.get(content.symbol as usize);
                let defined = state.and_then(|state| Some((state, state.instrument?)));
                let priced =
                    defined.and_then(|(state, instrument)| Some((check::order_price(&content.prices, content.side, state)?, instrument)));
                let Some((price, instrument)) = priced else { return Some((None, None)) };
                let units = notional_lots(notional, price.0, instrument.multiplier, instrument.lot)?;
                Some((Some(units), (units == 0).then_some(Field::Notional)))
            }
        }
    }
}

/// What an order says, its names interned.
pub(super) const fn content(intent: &OrderIntent, symbol: SymbolIx, strategy: StrategyIx) -> OrderContent {
    OrderContent {
        client_order_id: intent.client_order_id,
        symbol,
        strategy,
        side: intent.side,
        order_type: intent.order_type,
        size: intent.size,
        prices: intent.prices,
        time_in_force: intent.time_in_force,
        reduce_only: intent.reduce_only,
        all_or_none: intent.all_or_none,
        extended_hours: intent.extended_hours,
    }
}

/// `notional / (price x multiplier)`, rounded down to the lot. `None` when it leaves its type.
fn notional_lots(notional: Money, price: i64, multiplier: Factor, lot: Qty) -> Option<i64> {
    // 1e-16 money x 1e8 over 1e-8 price x 1e-8 multiplier gives 1e-8 units of quantity.
    let numerator = I256::from(notional.0) * I256::from(Factor::ONE.0);
    let denominator = I256::from(price) * I256::from(multiplier.0);
    let units = numerator.checked_div(denominator)?;
    let lot = I256::from(lot.0.max(1));
    i64::try_from(units - units % lot).ok()
}

pub(super) const fn ids_of(content: &Content) -> (ClientOrderId, Option<ClientOrderId>) {
    match content {
        Content::Order(order) => (order.client_order_id, None),
        Content::Amend { amend_id, client_order_id, .. } => (*client_order_id, Some(*amend_id)),
    }
}

const fn requested_of(content: &Content) -> Option<Qty> {
    match content {
        Content::Order(order) => match order.size {
            Size::Qty(qty) => Some(qty),
            Size::Notional(_) => None,
            Size::Unclear(qty, _) => qty,
        },
        Content::Amend { qty, .. } => *qty,
    }
}

fn push_reason(turn: &mut Turn<'_>, reason: Reason) {
    turn.out.reasons.push(reason);
}

/// A decision that blocks, for its caller to complete, with the last `reasons` reasons.
fn push_decision<'a>(
    turn: &'a mut Turn<'_>,
    account: AccountId,
    client_order_id: ClientOrderId,
    amend_id: Option<ClientOrderId>,
    intent: IntentKind,
    equity: Option<Money>,
    reasons: usize,
) -> &'a mut Decision {
    let end = turn.out.reasons.len();
    turn.out.outputs.push(Output::Decision(Decision {
        client_order_id,
        amend_id,
        account,
        intent: Some(intent),
        symbol: None,
        side: None,
        verdict: Verdict::Block,
        requested_qty: None,
        approved_qty: Qty::ZERO,
        reasons: end - reasons..end,
        equity,
        shard: turn.shard,
        seq: turn.seq,
        at: turn.at,
        source: turn.source,
    }));
    match turn.out.outputs.last_mut() {
        Some(Output::Decision(decision)) => decision,
        _ => unreachable!("a decision was just pushed"),
    }
}

type Shown = (Symbol, Side, Size);

fn refuse_unknown_account(
    turn: &mut Turn<'_>,
    account: AccountId,
    id: ClientOrderId,
    amend_id: Option<ClientOrderId>,
    shown: Option<Shown>,
) {
    let kind = if amend_id.is_some() { IntentKind::Amend } else { IntentKind::Order };
    refuse_unknown(turn, account, id, amend_id, kind, shown, ReasonCode::UnknownAccount);
}

fn refuse_unknown(
    turn: &mut Turn<'_>,
    account: AccountId,
    id: ClientOrderId,
    amend_id: Option<ClientOrderId>,
    kind: IntentKind,
    shown: Option<Shown>,
    code: ReasonCode,
) {
    push_reason(turn, Reason { field: Some(Field::Account), ..Reason::of(code) });
    let decision = push_decision(turn, account, id, amend_id, kind, None, 1);
    if let Some((symbol, side, size)) = shown {
        (decision.symbol, decision.side) = (Some(symbol), Some(side));
        decision.requested_qty = match size {
            Size::Qty(qty) => Some(qty),
            Size::Notional(_) | Size::Unclear(..) => None,
        };
    }
}
