//! `/api/v1/risk-rules/test` and `/calculate-position-size`: what the gate would say, asked without asking it.
//!
//! Invariant: the code that answers is the code that decides, on a replica's book that is only read;
//! nothing is appended, reserved or remembered.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::books::{Books, unknown_account};
use super::json::{Json, answer, optional_object};
use super::risk_rules::{may_read, rule_of};
use super::words::{Binds, RuleBody, RuleUseView, SideWord};
use crate::api::caller::{Caller, now};
use crate::api::problem::{ApiCode, Problem};
use crate::api::query::Query;
use crate::domain::{
    AccountId, Decision, Effects, Event, Factor, InputTopic, IntentKind, Millis, OrderIntent, Output, Price, Qty, Rule, RuleId, Side,
    Source, Symbol, value,
};
use crate::gate::{Asking, Gate, Opinion, RuleList};
use crate::risk::correlation::Pairs;
use crate::risk::figures::equity;
use crate::risk::sizing::{self, Sizing, SizingInput, Stop};
use crate::wire::{self, Origin};

/// The paths.
pub fn routes() -> OpenApiRouter<Arc<Books>> {
    OpenApiRouter::new().routes(routes!(test)).routes(routes!(size))
}

/// What is tried. Without a rule: all as they are.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TestBody {
    /// The account whose book is looked at.
    #[schema(min_length = 1, max_length = 64)]
    account: String,
    /// Only this rule.
    #[serde(default)]
    rule_id: Option<String>,
    /// This rule in place of the one with its id, or besides the others.
    #[serde(default, deserialize_with = "optional_object")]
    rule: Option<RuleBody>,
    /// Only `rule`, without the others.
    #[serde(default)]
    alone: bool,
    /// An order that is held against the rules; without, only the book as it stands is.
    #[serde(default, deserialize_with = "optional_object")]
    intent: Option<TestIntent>,
}

/// An order as in `orders.intents`, without its ids.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TestIntent {
    /// Its symbol.
    symbol: String,
    /// Its side.
    side: SideWord,
    /// `market`, `limit`, `stop`, `stop_limit` or `trailing_stop`.
    order_type: String,
    /// How much; or `notional`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    qty: Option<String>,
    /// How much money; or `qty`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    notional: Option<String>,
    /// The worst price.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    limit_price: Option<String>,
    /// The price that triggers it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stop_price: Option<String>,
    /// The distance that a trailing stop keeps, in price.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    trail_price: Option<String>,
    /// The distance that a trailing stop keeps, in percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    trail_percent: Option<String>,
    /// `day`, `gtc`, `ioc`, `fok`, `opg` or `cls`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    time_in_force: Option<String>,
    /// Its strategy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    strategy: Option<String>,
    /// Refuse it unless it strictly reduces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reduce_only: Option<bool>,
    /// It may not be filled in part, nor resized.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    all_or_none: Option<bool>,
    /// It may work outside regular hours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    extended_hours: Option<bool>,
}

/// What the gate would say.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct TestView {
    /// The account.
    account: String,
    /// The ledger sequence of the book that was looked at.
    seq: u64,
    /// The time that ages and windows counted from, in ms since the epoch.
    at: Millis,
    /// The decision, as the gate would print it; absent without an intent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    decision: Option<Value>,
    /// What each rule that covers the intent measures after it.
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<Vec<RuleUseView>>,
    /// What each rule that covers the account measures of the book as it stands.
    now: Vec<RuleUseView>,
}

/// Which rules are asked.
enum Choice {
    All,
    Only(RuleId),
    With(Rule),
    OnlyWith(Rule),
}

impl Choice {
    fn of(body: &TestBody, caller: &Caller) -> Result<Self, Problem> {
        let wrong = |what: &str, field: &str| Problem::new(ApiCode::InvalidField, what).field(field);
        match (&body.rule_id, &body.rule) {
            (Some(_), Some(_)) => Err(wrong("give rule or rule_id, not both", "rule")),
            (None, None) if body.alone => Err(wrong("alone needs a rule", "alone")),
            (Some(_), None) if body.alone => Err(wrong("a rule_id is always alone", "alone")),
            (None, None) => Ok(Self::All),
            (Some(id), None) => RuleId::parse(id.as_bytes()).map(Self::Only).ok_or_else(|| wrong("no rule id", "rule_id")),
            (None, Some(rule)) => {
                let mut rule = rule.clone();
                rule.id.get_or_insert_with(|| "dry-run".to_owned());
                let rule = rule_of(&rule)?;
                if let Some((field, what)) = crate::risk::rule::objection(&rule) {
                    return Err(wrong(what, &format!("rule.{field}")));
                }
                if !may_read(caller, &rule) {
                    return Err(unknown_account().field("rule.scope.account"));
                }
                Ok(if body.alone { Self::OnlyWith(rule) } else { Self::With(rule) })
            }
        }
    }

    fn list<'a>(&'a self, gate: &'a Gate) -> Option<RuleList<'a>> {
        gate.rule_list(match self {
            Self::All => Asking::All,
            Self::Only(id) => Asking::Only(*id),
            Self::With(rule) => Asking::With(rule),
            Self::OnlyWith(rule) => Asking::OnlyWith(rule),
        })
    }
}

/// The intent, read as the gate would read it.
fn intent_of(intent: &TestIntent, account: &str) -> Result<OrderIntent, Problem> {
    let mut fields = Map::new();
    fields.extend([("event".to_owned(), "order_intent".into()), ("client_order_id".to_owned(), "dry-run".into())]);
    fields.insert("account".to_owned(), account.into());
    if let Ok(Value::Object(given)) = serde_json::to_value(intent) {
        fields.extend(given);
    }
    let read = wire::decode(InputTopic::Intents, None, Value::Object(fields).to_string().as_bytes());
    if let Event::Intent(intent) = read {
        return Ok(intent);
    }
    let Event::Refused(refused) = read else { return Err(Problem::new(ApiCode::Internal, "an intent was read as something else")) };
    let problem = Problem::new(ApiCode::InvalidField, refused.message).with("reason", refused.code.as_str());
    Err(match refused.field {
        Some(field) => problem.field(&format!("intent.{field}")),
        None => problem,
    })
}

/// Tries rules on a book, now or after an order. Nothing changes.
#[utoipa::path(post, path = "/risk-rules/test", tag = "risk-rules", request_body = TestBody,
    responses((status = 200, description = "What the gate would say", body = TestView)))]
async fn test(
    State(books): State<Arc<Books>>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
    body: Json<TestBody>,
) -> Result<Response, Problem> {
    Query::read(uri.query(), &[])?;
    let body = body.value;
    let choice = Choice::of(&body, &caller)?;
    let intent = body.intent.as_ref().map(|intent| intent_of(intent, &body.account)).transpose()?;
    let asked = now();
    let (asker, pairs) = (caller.clone(), books.pairs.clone());
    let tried = books
        .compute_of(&caller, &body.account, move |gate, account| {
            gate.account(account)?;
            let tried = |pairs: &mut Pairs| tried(gate, account, (&choice, intent.as_ref()), (&asker, asked), pairs);
            Some(Books::with_pairs(&pairs, gate.shard(), tried))
        })
        .await?;
    let view = tried.ok_or_else(|| Problem::new(ApiCode::UnknownObject, "there is no such rule").field("rule_id"))?;
    Ok(answer(StatusCode::OK, &view))
}

/// `None` when there is no such rule.
fn tried(
    gate: &Gate,
    account: AccountId,
    (choice, intent): (&Choice, Option<&OrderIntent>),
    (caller, asked): (&Caller, Millis),
    pairs: &mut Pairs,
) -> Option<TestView> {
    if let Choice::Only(id) = choice {
        gate.find_rule(*id).filter(|rule| may_read(caller, rule))?;
    }
    let rules = choice.list(gate)?;
    let at = asked.max(gate.at());
    let opinion = intent.and_then(|intent| gate.opinion(intent, &rules, at));
    let now = gate.uses(account, &rules, pairs)?;
    Some(TestView {
        account: account.to_string(),
        seq: gate.seq(),
        at,
        decision: opinion.as_ref().zip(intent).map(|(opinion, intent)| decision(gate, intent, opinion, at)),
        after: opinion.as_ref().map(|opinion| opinion.rules.iter().map(RuleUseView::from).collect()),
        now: now.iter().map(RuleUseView::from).collect(),
    })
}

/// The decision as the gate would print it, without what only a record has.
fn decision(gate: &Gate, intent: &OrderIntent, opinion: &Opinion, at: Millis) -> Value {
    let effects = Effects { reasons: opinion.reasons.clone(), ..Effects::default() };
    let source = Source { topic: InputTopic::Intents, partition: 0, offset: 0 };
    let output = Output::Decision(Decision {
        client_order_id: intent.client_order_id,
        amend_id: None,
        account: intent.account,
        intent: Some(IntentKind::Order),
        symbol: Some(intent.symbol),
        side: Some(intent.side),
        verdict: opinion.verdict,
        requested_qty: opinion.requested_qty,
        approved_qty: opinion.approved_qty,
        reasons: 0..effects.reasons.len(),
        equity: opinion.equity,
        shard: gate.shard(),
        seq: gate.seq(),
        at,
        source,
    });
    let mut json = Vec::new();
    wire::encode_output(&mut json, &output, &effects, &Origin { source, key: None, payload: &[] });
    let mut printed: Value = serde_json::from_slice(&json).unwrap_or_default();
    if let Value::Object(fields) = &mut printed {
        for only_of_records in ["event", "decision_id", "client_order_id", "shard", "seq", "at", "source"] {
            fields.remove(only_of_records);
        }
    }
    printed
}

/// What a position is sized from.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SizeBody {
    /// The account.
    #[schema(min_length = 1, max_length = 64)]
    account: String,
    /// The symbol.
    #[schema(min_length = 1, max_length = 32)]
    symbol: String,
    /// The side; where there is a stop it follows from it.
    #[serde(default)]
    side: Option<SideWord>,
    /// The price at which the position is opened.
    entry: String,
    /// The price at which the loss is taken: below the entry for a long, above it for a short.
    #[serde(default)]
    stop: Option<String>,
    /// Percent of equity that may be lost at the stop; needed with one.
    #[serde(default)]
    risk_percent: Option<String>,
}

/// A size.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct SizeView {
    /// The account.
    account: String,
    /// The symbol.
    symbol: String,
    /// The side.
    side: SideWord,
    /// The ledger sequence of the book that was looked at.
    seq: u64,
    /// The quantity, a multiple of the lot; `null` when it is not known. Zero is a legal answer.
    qty: Option<String>,
    /// Why it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    /// Its value at the entry.
    value: Option<String>,
    /// What it loses at the stop.
    risk: Option<String>,
    /// The equity that it was taken of.
    equity: Option<String>,
    /// What to mind.
    #[serde(skip_serializing_if = "Option::is_none")]
    warning: Option<&'static str>,
    /// The largest order at the entry that would be allowed now; `null` when nothing limits it.
    max_allowed_qty: Option<String>,
    /// What keeps it from being larger.
    binds: Option<Binds>,
}

/// The numbers of a body.
struct SizeAsked {
    symbol: Symbol,
    side: Side,
    entry: Price,
    stop: Option<Stop>,
}

impl SizeAsked {
    fn of(body: &SizeBody) -> Result<Self, Problem> {
        let wrong = |what: &str, field: &str| Problem::new(ApiCode::InvalidField, what).field(field);
        let above_zero =
            |text: &str, field: &str| units(text).ok_or_else(|| wrong("must be a decimal above 0 with at most 8 fractional digits", field));
        let symbol = Symbol::parse(body.symbol.as_bytes()).ok_or_else(|| wrong("no symbol", "symbol"))?;
        let entry = Price(above_zero(&body.entry, "entry")?);
        let stop = match (&body.stop, &body.risk_percent) {
            (None, None) => None,
            (Some(stop), Some(percent)) => {
                Some(Stop { price: Price(above_zero(stop, "stop")?), risk_percent: Factor(above_zero(percent, "risk_percent")?) })
            }
            (Some(_), None) => return Err(wrong("say how much may be lost at the stop", "risk_percent")),
            (None, Some(_)) => return Err(wrong("without a stop nothing limits the loss: leave risk_percent out", "risk_percent")),
        };
        let follows = stop.map(|stop| if stop.price < entry { SideWord::Buy } else { SideWord::Sell });
        if stop.is_some_and(|stop| stop.price == entry) {
            return Err(wrong("the stop is the entry: no quantity would ever lose", "stop"));
        }
        match (body.side, follows) {
            (Some(side), Some(follows)) if side != follows => Err(wrong("the stop is on the other side of the entry", "stop")),
            (side, follows) => Ok(Self { symbol, side: side.or(follows).unwrap_or(SideWord::Buy).into(), entry, stop }),
        }
    }
}

/// A decimal above zero as the gate reads one.
fn units(text: &str) -> Option<i64> {
    i64::try_from(wire::parse_units(text.as_bytes())?).ok().filter(|units| *units > 0)
}

/// Sizes a position by what may be lost at its stop (docs/SEMANTICS.md, section 8).
#[utoipa::path(post, path = "/risk-rules/calculate-position-size", tag = "risk-rules", request_body = SizeBody,
    responses((status = 200, description = "The size", body = SizeView)))]
async fn size(
    State(books): State<Arc<Books>>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
    body: Json<SizeBody>,
) -> Result<Response, Problem> {
    Query::read(uri.query(), &[])?;
    let asked = SizeAsked::of(&body.value)?;
    let at = now();
    let view = books.compute_of(&caller, &body.value.account, move |gate, account| sized(gate, account, &asked, at)).await?;
    Ok(answer(StatusCode::OK, &view))
}

fn sized(gate: &Gate, account: AccountId, asked: &SizeAsked, at: Millis) -> Option<SizeView> {
    let book = gate.account(account)?;
    let instrument = gate.symbol(asked.symbol).and_then(|state| state.instrument);
    let equity = equity(book, gate.symbols());
    let rules = gate.rule_list(Asking::All)?;
    let headroom = gate.headroom(account, (asked.symbol, asked.side), Some(asked.entry), &rules, (at, &mut Pairs::default()))?;
    let sizing = match (equity, instrument) {
        (_, None) => Err("UNKNOWN_INSTRUMENT"),
        (Err(blind), _) => Err(crate::gate::Unmeasured::from(blind).as_str()),
        (Ok(equity), Some(instrument)) => Ok(sizing::size(&SizingInput {
            equity,
            entry: asked.entry,
            stop: asked.stop,
            sizing_percent: gate.settings().sizing_percent,
            multiplier: instrument.multiplier,
            lot: instrument.lot,
        })),
    };
    let (qty, reason, warning) = match sizing {
        Err(reason) => (None, Some(reason), None),
        Ok(Sizing::Sized { qty, without_stop }) => {
            (Some(qty), None, without_stop.then_some("nothing limits the loss: the quantity follows from sizing_percent of equity alone"))
        }
        Ok(Sizing::StopIsEntry | Sizing::NotPositive | Sizing::OutOfRange) => (None, Some("VALUE_OUT_OF_RANGE"), None),
    };
    let worth = |price: i64| {
        let instrument = instrument?;
        qty.and_then(|Qty(qty)| value(qty, Price(price), instrument.multiplier)).map(|money| money.to_string())
    };
    Some(SizeView {
        account: account.to_string(),
        symbol: asked.symbol.to_string(),
        side: if asked.side == Side::Buy { SideWord::Buy } else { SideWord::Sell },
        seq: gate.seq(),
        qty: qty.map(|qty| qty.to_string()),
        reason,
        value: worth(asked.entry.0),
        risk: asked.stop.and_then(|stop| worth((asked.entry.0 - stop.price.0).abs())),
        equity: equity.ok().map(|equity| equity.to_string()),
        warning,
        max_allowed_qty: headroom.qty.map(|qty| qty.to_string()),
        binds: headroom.binds.as_ref().map(Binds::from),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn body(side: Option<SideWord>, stop: Option<&str>, risk: Option<&str>) -> SizeBody {
        let (stop, risk_percent) = (stop.map(str::to_owned), risk.map(str::to_owned));
        SizeBody { account: "A".into(), symbol: "AAPL".into(), side, entry: "50".into(), stop, risk_percent }
    }

    #[test]
    fn the_side_follows_from_the_stop_and_may_not_contradict_it() {
        let side = |body: &SizeBody| SizeAsked::of(body).map(|asked| asked.side).map_err(|problem| problem.body()["field"].clone());
        assert_eq!(side(&body(None, Some("48"), Some("1"))), Ok(Side::Buy));
        assert_eq!(side(&body(None, Some("52"), Some("1"))), Ok(Side::Sell));
        assert_eq!(side(&body(Some(SideWord::Sell), None, None)), Ok(Side::Sell));
        assert_eq!(side(&body(None, None, None)), Ok(Side::Buy));
        assert_eq!(side(&body(Some(SideWord::Sell), Some("48"), Some("1"))), Err(json!("stop")));
        assert_eq!(side(&body(None, Some("50"), Some("1"))), Err(json!("stop")));
        assert_eq!(side(&body(None, Some("48"), None)), Err(json!("risk_percent")));
        assert_eq!(side(&body(None, None, Some("1"))), Err(json!("risk_percent")));
        assert_eq!(side(&body(None, Some("0"), Some("1"))), Err(json!("stop")));
        assert_eq!(side(&body(None, Some("48"), Some("0.000000001"))), Err(json!("risk_percent")));
    }
}
