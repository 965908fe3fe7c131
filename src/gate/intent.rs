//! Orders, amendments and cancels: looked up, checked, judged, reserved, decided.
//!
//! Invariant: what is approved is reserved in the same step as the decision, and an id that has a
//! decision never gets another one.

use super::Gate;
use super::desk::Desk;
use super::turn::Turn;
use crate::book::{AccountIx, Content, Entry, Leg, NONE, OrderContent, Orders, Position, Status, StrategyIx, SymbolIx};
use crate::domain::{
    AccountId, ClientOrderId, Decision, Factor, Field, IntentKind, Millis, Mode, Money, NotificationCode, NotificationData,
    NotificationType, OrderAmend, OrderCancel, OrderIntent, OrderPrices, OrderType, Output, Qty, Reason, ReasonCode, Refused, Side, Size,
    TimeInForce, Verdict,
};
use crate::market::symbol::SymbolState;
use crate::risk::check::{self, Amends, Asked, EffectiveLimits};
use crate::risk::evaluate::{Finding, Findings, Proposal};
use crate::risk::figures::{Ask, equity};
use crate::risk::{action, measure::Amount};
use ethnum::I256;

/// An order as it would work if it were allowed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    ix: AccountIx,
    symbol: SymbolIx,
    strategy: StrategyIx,
    side: Side,
    order_type: OrderType,
    prices: OrderPrices,
    /// The total quantity; `None` while a `notional` has no price.
    qty: Option<i64>,
    size_objection: Option<Field>,
    reduce_only: bool,
    resizable: bool,
    /// The slot of the order that it replaces, and what is filled of that.
    replaces: Option<(u32, i64)>,
    amends: Option<Amends>,
    /// An amendment that changes nothing but the quantity, downwards.
    lowers: bool,
}

/// What the checks and rules left of it.
struct Outcome {
    verdict: Verdict,
    approved: i64,
    equity: Option<Money>,
    /// The rules were asked, and may be told.
    judged: bool,
    reducing: bool,
}

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
        self.forget_old(ix, turn.at);
        let content = self.content_of(intent);
        let content_kept = Content::Order(content);
        if self.repeats(ix, &content_kept, turn) {
            return;
        }
        if self.accounts[ix as usize].closed {
            return refuse_unknown_account(
                turn,
                intent.account,
                intent.client_order_id,
                None,
                Some((intent.symbol, intent.side, intent.size)),
            );
        }
        let (qty, size_objection) = self.quantity(&content);
        let wanted = Wanted {
            ix,
            symbol: content.symbol,
            strategy: content.strategy,
            side: content.side,
            order_type: content.order_type,
            prices: content.prices,
            qty,
            size_objection,
            reduce_only: content.reduce_only,
            resizable: content.time_in_force != TimeInForce::Fok && !content.all_or_none,
            replaces: None,
            amends: None,
            lowers: false,
        };
        self.decide(&wanted, content_kept, age, turn);
    }

    /// A change of a working order.
    pub(super) fn on_amend(&mut self, amend: &OrderAmend, age: Option<Millis>, turn: &mut Turn<'_>) {
        let Some(ix) = self.index.account(&amend.account, &self.accounts) else {
            return refuse_unknown_account(turn, amend.account, amend.client_order_id, Some(amend.amend_id), None);
        };
        self.forget_old(ix, turn.at);
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
            return refuse_unknown_account(turn, amend.account, amend.client_order_id, Some(amend.amend_id), None);
        }
        let Some((slot, order)) = self.working_order(ix, &amend.client_order_id) else {
            let max_age = self.shared.settings.max_intent_age_ms;
            let expired = max_age > 0 && age.is_some_and(|age| age > max_age);
            let code = if expired { ReasonCode::Expired } else { ReasonCode::UnknownOrder };
            return self.refuse_unplaced(ix, content, code, turn);
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
                crate::domain::RefusalCode::Misrouted => ReasonCode::Misrouted,
                crate::domain::RefusalCode::ValueOutOfRange => ReasonCode::ValueOutOfRange,
                _ => ReasonCode::Malformed,
            };
            let detail = Box::new((refused.field.clone(), refused.message.clone()));
            push_reason(turn, Reason { refused: Some(detail), ..Reason::of(code) });
            let decision = push_decision(turn, account, client_order_id, None, IntentKind::Order, None, 1);
            decision.intent = None;
        }
        turn.dead_letter(refused.code, refused.field.as_deref(), &refused.message);
    }

    fn content_of(&mut self, intent: &OrderIntent) -> OrderContent {
        OrderContent {
            client_order_id: intent.client_order_id,
            symbol: self.index.symbol_named(intent.symbol, &mut self.shared.symbols),
            strategy: intent.strategy.map_or(NONE, |strategy| self.shared.strategy_named(strategy)),
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

    /// Publishes the decision of an id again if its content is equal, refuses it if not.
    fn repeats(&mut self, ix: AccountIx, content: &Content, turn: &mut Turn<'_>) -> bool {
        let Some(slot) = self.index.id(content.kind(), ix, content.id(), &self.accounts) else { return false };
        let account = &self.accounts[ix as usize];
        let Some(entry) = account.orders.get(slot) else { return false };
        let (client_order_id, amend_id) = ids_of(content);
        if entry.content == *content {
            let first = turn.out.reasons.len();
            turn.out.reasons.extend_from_slice(&entry.reasons);
            let symbol = entry.symbol.and_then(|symbol| self.shared.symbol_name(symbol));
            turn.out.outputs.push(Output::Decision(Decision {
                client_order_id,
                amend_id,
                account: account.id,
                intent: Some(content.kind()),
                symbol,
                side: entry.side,
                verdict: entry.verdict,
                requested_qty: entry.requested_qty,
                approved_qty: entry.approved_qty,
                reasons: first..turn.out.reasons.len(),
                equity: entry.equity,
                shard: turn.shard,
                seq: entry.seq,
                at: entry.at,
                source: entry.source,
            }));
            return true;
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
        self.say_rejected(ix, client_order_id, ReasonCode::IntentIdConflict, turn);
        true
    }

    fn working_order(&self, ix: AccountIx, id: &ClientOrderId) -> Option<(u32, &Entry)> {
        let slot = self.index.id(IntentKind::Order, ix, id, &self.accounts)?;
        let order = self.accounts[ix as usize].orders.get(slot)?;
        (order.status == Status::Working).then_some((slot, order))
    }

    /// The quantity of an order, and what is wrong with it.
    fn quantity(&self, content: &OrderContent) -> (Option<i64>, Option<Field>) {
        match content.size {
            Size::Qty(qty) => (Some(qty.0), None),
            Size::Unclear(qty, _) => (qty.map(|qty| qty.0), Some(Field::Qty)),
            Size::Notional(notional) => {
                let Some(state) = self.shared.symbols.get(content.symbol as usize) else { return (None, None) };
                let Some(instrument) = state.instrument else { return (None, None) };
                let Some(price) = check::order_price(&content.prices, content.side, state) else { return (None, None) };
                let lots = notional_lots(notional, price.0, instrument.multiplier, instrument.lot);
                match lots {
                    Some(0) => (Some(0), Some(Field::Notional)),
                    lots => (lots, if lots.is_none() { Some(Field::Notional) } else { None }),
                }
            }
        }
    }

    /// Checks and judges an order that was found to be new, and says what came of it.
    fn decide(&mut self, wanted: &Wanted, content: Content, age: Option<Millis>, turn: &mut Turn<'_>) {
        let first = turn.out.reasons.len();
        let mut findings = std::mem::take(&mut self.findings);
        let outcome = self.judge(wanted, age, &mut findings, turn);
        let mut entry = Entry::new(content, turn.at, turn.seq, turn.source);
        (entry.symbol, entry.side) = (Some(wanted.symbol), Some(wanted.side));
        (entry.verdict, entry.requested_qty) = (outcome.verdict, wanted.qty.map(Qty));
        (entry.approved_qty, entry.equity) = (Qty(outcome.approved), outcome.equity);
        let reasons = first..turn.out.reasons.len();
        self.publish_and_remember(wanted.ix, entry, reasons, turn, |orders, positions, slot| {
            if outcome.approved > 0 {
                reserve(orders, positions, wanted, slot, outcome.approved);
            }
        });
        self.follow_intent(wanted, &content, &outcome, &findings, turn);
        self.findings = findings;
    }

    /// The decision goes out, its id is used up, and `reserve` gets the slot.
    fn publish_and_remember(
        &mut self,
        ix: AccountIx,
        entry: Entry,
        reasons: std::ops::Range<usize>,
        turn: &mut Turn<'_>,
        reserve: impl FnOnce(&mut Orders, &mut Vec<Position>, u32),
    ) {
        let account = &mut self.accounts[ix as usize];
        let (client_order_id, amend_id) = ids_of(&entry.content);
        turn.out.outputs.push(Output::Decision(Decision {
            client_order_id,
            amend_id,
            account: account.id,
            intent: Some(entry.content.kind()),
            symbol: entry.symbol.and_then(|symbol| self.shared.symbol_name(symbol)),
            side: entry.side,
            verdict: entry.verdict,
            requested_qty: entry.requested_qty,
            approved_qty: entry.approved_qty,
            reasons: reasons.clone(),
            equity: entry.equity,
            shard: turn.shard,
            seq: turn.seq,
            at: turn.at,
            source: turn.source,
        }));
        match entry.verdict {
            Verdict::Allow => account.counts.allowed += 1,
            Verdict::AllowReduced => account.counts.reduced += 1,
            Verdict::Block => account.counts.blocked += 1,
        }
        if let Some(symbol) = entry.symbol.filter(|_| entry.verdict != Verdict::Block) {
            account.place_or_new(symbol);
            account.due = true;
            turn.moved.push((ix, symbol));
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

    fn refuse_unplaced(&mut self, ix: AccountIx, content: Content, code: ReasonCode, turn: &mut Turn<'_>) {
        let first = turn.out.reasons.len();
        push_reason(turn, Reason { field: Some(Field::ClientOrderId), ..Reason::of(code) });
        let mut entry = Entry::new(content, turn.at, turn.seq, turn.source);
        entry.requested_qty = requested_of(&content);
        entry.equity = equity(&self.accounts[ix as usize], &self.shared.symbols).ok();
        let reasons = first..turn.out.reasons.len();
        self.publish_and_remember(ix, entry, reasons, turn, |_, _, _| {});
        self.say_rejected(ix, ids_of(&content).0, code, turn);
    }

    fn judge(&mut self, wanted: &Wanted, age: Option<Millis>, findings: &mut Findings, turn: &mut Turn<'_>) -> Outcome {
        let account = &self.accounts[wanted.ix as usize];
        let (shared, symbols) = (&self.shared, &self.shared.symbols);
        let nothing = |equity| Outcome { verdict: Verdict::Block, approved: 0, equity, judged: false, reducing: false };
        let Some(ask) = Ask::new(account, symbols, wanted.symbol, wanted.replaces.map(|(slot, _)| slot)) else { return nothing(None) };
        let equity = ask.equity().ok();
        let filled = wanted.replaces.map_or(0, |(_, filled)| filled);
        let leg_qty = wanted.qty.and_then(|qty| qty.checked_sub(filled)).filter(|qty| *qty > 0);
        let position = *ask.position();
        let reducing = leg_qty.is_some_and(|qty| wanted.lowers || qty <= position.reducible(wanted.side, ask.working(wanted.side)));
        let leg = Leg { side: wanted.side, qty: leg_qty.unwrap_or(0), price_cap: wanted.prices.limit.max(wanted.prices.stop) };
        let proposal = Proposal {
            account,
            ix: wanted.ix,
            market: symbols,
            ask: &ask,
            symbol: wanted.symbol,
            strategy: wanted.strategy,
            leg,
            watched: symbols.get(wanted.symbol as usize).and_then(|state| super::valuation::watched(&position, state)),
        };
        match leg_qty {
            Some(_) => findings.evaluate(&proposal, shared.ordered_rules(), &mut self.correlations),
            None => findings.clear(),
        }
        let asked = asked(self.place_of(wanted), wanted, &proposal, (reducing, findings.blind, age), turn.at);
        if let Err(reason) = check::run(&asked, &mut self.exempt) {
            self.exempt.clear();
            turn.out.reasons.push(*reason);
            return nothing(equity);
        }
        let added = leg.qty - wanted.replaces.and_then(|(slot, _)| account.orders.get(slot)).map_or(0, Entry::leaves);
        if !reducing && (findings.overflow || !Orders::fits(&position, wanted.side, added)) {
            self.exempt.clear();
            turn.out.reasons.push(Reason::of(ReasonCode::ValueOutOfRange));
            return nothing(equity);
        }
        turn.out.reasons.append(&mut self.exempt);
        let approved = self.approve(wanted, &proposal, findings, reducing, turn);
        let total = wanted.qty.unwrap_or(0);
        let verdict = match approved {
            0 => Verdict::Block,
            part if part == leg.qty => Verdict::Allow,
            _ => Verdict::AllowReduced,
        };
        let approved = if verdict == Verdict::Allow { total } else { approved };
        Outcome { verdict, approved, equity, judged: true, reducing }
    }

    /// Lists what the rules found and returns what they leave of the leg.
    fn approve(&self, wanted: &Wanted, proposal: &Proposal<'_>, findings: &Findings, reducing: bool, turn: &mut Turn<'_>) -> i64 {
        let instrument = self.shared.symbols.get(wanted.symbol as usize).and_then(|state| state.instrument);
        let lot = instrument.map_or(Qty::ONE, |instrument| instrument.lot);
        let mut approved = proposal.leg.qty;
        for finding in &findings.list {
            let Some(state) = self.shared.rule(finding.rule) else { continue };
            let observed = state.rule.mode == Mode::Observe;
            let breach = finding.breach || finding.latched;
            if breach {
                let Some(measure) = finding.measure else { continue };
                turn.out.reasons.push(Reason {
                    rule: Some(state.cited()),
                    current: measure.current.figure(),
                    limit: measure.limit.figure(),
                    utilization: if measure.utilization == Amount::Unknown {
                        crate::domain::Figure::Unknown
                    } else {
                        measure.utilization.figure()
                    },
                    exempt: reducing,
                    observed,
                    latched: finding.latched,
                    ..Reason::of(ReasonCode::RuleBreach)
                });
                if !reducing && !observed {
                    approved = approved.min(action::approved(state, finding, proposal, lot, wanted.resizable));
                }
            }
            if finding.missing_pair && !reducing {
                turn.out.reasons.push(Reason { rule: Some(state.cited()), observed, ..Reason::of(ReasonCode::CorrelationUnavailable) });
            }
        }
        approved
    }

    /// What the gate knows of the place that an order would take.
    fn place_of(&self, wanted: &Wanted) -> Place {
        let account = &self.accounts[wanted.ix as usize];
        let own = account.position(wanted.symbol).map_or(account.state, |position| account.state.max(position.state));
        Place {
            limits: EffectiveLimits::of(&account.limits, &self.shared.limits),
            trading: own.max(self.shared.strictest(wanted.ix, wanted.strategy, wanted.symbol)),
            restricted: self.shared.restricts(account.id, wanted.symbol),
            max_age: self.shared.settings.max_intent_age_ms,
        }
    }

    /// What a decision raises beside itself: rejections, commands taken over, episodes.
    fn follow_intent(&mut self, wanted: &Wanted, content: &Content, outcome: &Outcome, findings: &Findings, turn: &mut Turn<'_>) {
        let blocked = outcome.verdict == Verdict::Block;
        let account = &mut self.accounts[wanted.ix as usize];
        let mut desk = Desk { shared: &self.shared, account, ix: wanted.ix, turn };
        if content.kind() == IntentKind::Order {
            desk.answer_command(content.id(), wanted.symbol, wanted.side, blocked);
        }
        if blocked {
            let code = desk.turn.out.reasons.last().map_or(ReasonCode::RuleBreach, |reason| reason.code);
            self.say_rejected(wanted.ix, ids_of(content).0, code, turn);
        }
        if !outcome.judged || outcome.reducing {
            return;
        }
        let mut desk = Desk { shared: &self.shared, account: &mut self.accounts[wanted.ix as usize], ix: wanted.ix, turn };
        for finding in &findings.list {
            desk.tell(finding);
        }
    }

    fn say_rejected(&mut self, ix: AccountIx, client_order_id: ClientOrderId, reason: ReasonCode, turn: &mut Turn<'_>) {
        let data = NotificationData { client_order_id: Some(client_order_id), reason: Some(reason), ..NotificationData::default() };
        let account = &self.accounts[ix as usize];
        let (code, kind) = (NotificationCode::OrderRejected, NotificationType::OrderRejected);
        turn.notify(Some(account), &self.shared.limits, code, kind, data);
    }
}

impl Desk<'_, '_> {
    /// Tells the episodes what a rule found of an intent that does not strictly reduce.
    fn tell(&mut self, finding: &Finding) {
        let Some((state, measure)) = self.shared.rule(finding.rule).filter(|state| state.enforced()).zip(finding.measure.as_ref()) else {
            return;
        };
        if state.judged_after() {
            let at = self.turn.at;
            self.judge_asked(finding.rule, finding.subject, measure, finding.stands, at);
        } else {
            self.judge_standing(finding.rule, finding.subject, measure);
        }
    }

    /// An intent with a command's id takes it over, or, if it is blocked, counts as its rejection.
    fn answer_command(&mut self, id: &ClientOrderId, symbol: SymbolIx, side: Side, blocked: bool) {
        use crate::book::CommandState::{Ended, Executing, TakenOver, Unanswered};
        let Some(place) = self.command_named(id) else { return };
        let command = &mut self.account.commands[place];
        match command.state {
            TakenOver | Ended => {}
            Unanswered | Executing if blocked => self.command_rejected(place),
            Unanswered | Executing => {
                let carries_out = command.symbol == symbol && command.side == side;
                command.state = if carries_out { TakenOver } else { Ended };
                self.turn.touch(self.ix);
            }
        }
    }
}

/// What the gate knows of the place that an order would take.
struct Place {
    limits: EffectiveLimits,
    trading: crate::domain::TradingState,
    restricted: bool,
    max_age: Millis,
}

fn asked<'a>(
    place: Place,
    wanted: &Wanted,
    proposal: &'a Proposal<'_>,
    (reducing, blind, age): (bool, bool, Option<Millis>),
    at: Millis,
) -> Asked<'a> {
    Asked {
        account: proposal.account,
        currency: proposal.account.currency,
        state: proposal.market.get(wanted.symbol as usize).filter(|state: &&SymbolState| state.instrument.is_some()),
        position: proposal.ask.position(),
        limits: place.limits,
        side: wanted.side,
        order_type: wanted.order_type,
        prices: wanted.prices,
        qty: wanted.qty,
        size_objection: wanted.size_objection,
        reducing,
        reduce_only: wanted.reduce_only,
        amends: wanted.amends,
        age,
        max_age: place.max_age,
        trading: place.trading,
        restricted: place.restricted,
        rules_are_blind: blind,
        at,
    }
}

fn reserve(orders: &mut Orders, positions: &mut [Position], wanted: &Wanted, slot: u32, approved: i64) {
    let Some(position) = positions.iter_mut().find(|position| position.symbol == wanted.symbol) else { return };
    match wanted.replaces {
        Some((replaced, _)) => {
            orders.release(position, replaced);
            orders.reserve(position, replaced, approved, wanted.prices);
        }
        None => orders.reserve(position, slot, approved, wanted.prices),
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

const fn ids_of(content: &Content) -> (ClientOrderId, Option<ClientOrderId>) {
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

type Shown = (crate::domain::Symbol, Side, Size);

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
