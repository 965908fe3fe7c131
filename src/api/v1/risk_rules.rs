//! `/api/v1/risk-rules`: the rules that bind every order, with what they did and how full they are.
//!
//! Invariant: a rule exists when the gate has folded its record; the answer carries that position, and the
//! next intent behind it is held against the rule. Deliberately absent: versions in the log; an update
//! compares what the client saw with what holds, one update of a rule at a time, of all instances.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::books::{Books, command_problem, fresh_id, positioned, unknown_account, version_of, written};
use super::changing;
use super::json::{Json, answer};
use super::page::{Page, PathId};
use super::versions;
use super::words::{RuleBody, RuleShown, figure, rule_shown};
use crate::api::caller::{Accounts, Caller};
use crate::api::problem::{ApiCode, Problem};
use crate::api::query::Query;
use crate::control::commands::{Commands, ControlRecord};
use crate::control::decisions::Tally;
use crate::domain::{AccountId, ControlEvent, Figure, Millis, Rule, RuleId, RuleType};
use crate::gate::{Asking, Gate, RuleUse, Unmeasured};
use crate::risk::correlation::Pairs;
use crate::risk::rule::loosened;

/// Rules of one account, and states of its symbols and strategies, as far as others than administrators make them.
pub(super) const OWNERS_MAX: usize = 100;
/// More accounts than these are not measured for a list.
const MEASURED_MAX: usize = 1_000;

/// What stands where an id would: a rule of that name could not be asked for.
const OTHER_PATHS: [&str; 3] = ["test", "calculate-position-size", "portfolio-risk"];

/// The paths.
pub fn routes() -> OpenApiRouter<Arc<Books>> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(get, update, remove))
}

/// A rule, what it did, and how full it is now.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct RuleView {
    /// The rule, with its defaults filled in.
    #[serde(flatten)]
    rule: RuleShown,
    /// How often it was breached: `RULE_BREACH` notifications that are kept. `null` of a rule that covers accounts which you may not
    /// know of, as is what follows.
    breach_count: Option<u64>,
    /// When it was breached last, in ms since the epoch.
    last_breach_at: Option<Millis>,
    /// How many decisions cite a breach of it, exempt ones left out.
    decision_count: Option<u64>,
    /// When one did last.
    last_decision_at: Option<Millis>,
    /// Why there are no counts: `OTHER_ACCOUNTS`.
    #[serde(skip_serializing_if = "Option::is_none")]
    count_reason: Option<&'static str>,
    /// The fullest that it is now of any account that you may know of.
    utilization: Option<Fullest>,
    /// Why there is no utilisation.
    #[serde(skip_serializing_if = "Option::is_none")]
    utilization_reason: Option<&'static str>,
}

/// Where a rule is fullest.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Fullest {
    /// `current / limit`; `inf` of a limit that is nothing.
    utilization: String,
    /// What was measured.
    current: Option<String>,
    /// What it is held against.
    limit: Option<String>,
    /// The account.
    account: String,
    /// The symbol.
    #[serde(skip_serializing_if = "Option::is_none")]
    symbol: Option<String>,
    /// The sector.
    #[serde(skip_serializing_if = "Option::is_none")]
    sector: Option<String>,
    /// It breaches.
    breach: bool,
    /// It breached before, and stays so.
    latched: bool,
}

/// A page of rules, by id.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct RuleViews {
    /// The rules.
    items: Vec<RuleView>,
    /// The `cursor` of the next page; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

fn unknown() -> Problem {
    Problem::new(ApiCode::UnknownObject, "there is no such rule")
}

/// Rules of an account are for those who may know of it; the others cover everyone.
pub(super) fn may_read(caller: &Caller, rule: &Rule) -> bool {
    rule.scope.account.is_none_or(|account| caller.may_read(account.as_str()))
}

fn may_write(caller: &Caller, rule: &Rule) -> Result<(), Problem> {
    match rule.scope.account {
        Some(account) if caller.may_write(account.as_str()) => caller.require_to_act(),
        Some(account) if !caller.may_read(account.as_str()) => Err(unknown_account().field("scope.account")),
        Some(_) => Err(Problem::new(ApiCode::Forbidden, "the account may only be read")),
        None => caller.require_operator(),
    }
}

/// Each order of the shard looks at its rules: who is no administrator adds so many to an account.
async fn has_room(books: &Books, caller: &Caller, rule: &Rule) -> Result<(), Problem> {
    let Some(account) = rule.scope.account.filter(|_| !caller.is_admin()) else { return Ok(()) };
    let id = rule.id;
    let of_account = move |gate: &Gate| {
        // One that is there already is not made again: its answer is told.
        let there = gate.find_rule(id).is_some();
        there || gate.rules().filter(|state| state.rule.scope.account == Some(account)).count() < OWNERS_MAX
    };
    if books.ask(books.shard_of(account), of_account).await? {
        return Ok(());
    }
    let what = format!("the account has {OWNERS_MAX} rules; an administrator may delete some, or add more");
    Err(Problem::new(ApiCode::TooManyRules, what).field("scope.account"))
}

/// Whom a rule holds does not take it off: owners add rules to their accounts and tighten them, an administrator does the rest.
fn may_loosen(caller: &Caller) -> Result<(), Problem> {
    let refused = |_| Problem::new(ApiCode::Forbidden, "owners may add and tighten rules; to loosen or to delete one needs the role admin");
    caller.require_admin().map_err(refused)?;
    caller.require_operator()
}

/// What is listed.
#[derive(Clone, Debug, Default)]
struct Wanted {
    account: Option<AccountId>,
    rule_type: Option<RuleType>,
    active: Option<bool>,
}

impl Wanted {
    fn read(query: &Query) -> Result<Self, Problem> {
        let wrong = |field: &str, what: &str| Problem::new(ApiCode::InvalidParameter, what).field(field);
        let account = query.text("account").map(|text| AccountId::parse(text.as_bytes()).ok_or_else(|| wrong("account", "no account id")));
        let rule_type = query.text("type").map(|text| RuleType::parse(text).ok_or_else(|| wrong("type", "no type of rule")));
        let active = query.text("active").map(|_| query.flag("active"));
        Ok(Self { account: account.transpose()?, rule_type: rule_type.transpose()?, active: active.transpose()? })
    }

    fn takes(&self, rule: &Rule) -> bool {
        self.account.is_none_or(|account| rule.scope.account.is_none_or(|only| only == account))
            && self.rule_type.is_none_or(|wanted| rule.rule_type == wanted)
            && self.active.is_none_or(|wanted| rule.active == wanted)
    }
}

/// Lists rules.
#[utoipa::path(get, path = "/risk-rules", tag = "risk-rules", params(
    ("account" = Option<String>, Query, description = "Rules that cover this account; utilisation is then its own"),
    ("type" = Option<String>, Query, description = "Rules of this type"),
    ("active" = Option<bool>, Query, description = "Rules that are active, or are not"),
    ("limit" = Option<u32>, Query, description = "At most so many", minimum = 1, maximum = 500),
    ("cursor" = Option<String>, Query, description = "Where the last page ended"),
), responses((status = 200, description = "Rules by id", body = RuleViews)))]
async fn list(State(books): State<Arc<Books>>, Extension(caller): Extension<Caller>, uri: Uri) -> Result<Response, Problem> {
    let query = Query::read(uri.query(), &["account", "type", "active", "limit", "cursor"])?;
    let (page, wanted) = (Page::read(&query)?, Wanted::read(&query)?);
    if let Some(account) = wanted.account {
        books.ask_of(&caller, account.as_str(), |gate, id| gate.account(id).map(|_| ())).await?;
    }
    let (asker, asked) = (caller.clone(), wanted.clone());
    let rules = books.ask(0, move |gate| rules_of(gate, |rule| may_read(&asker, rule) && asked.takes(rule))).await?;
    let (rules, next_cursor) = page.cut(rules, |rule| rule.id.as_str());
    let items = views(&books, &caller, rules, wanted.account).await?;
    Ok(answer(StatusCode::OK, &RuleViews { items, next_cursor }))
}

fn rules_of(gate: &Gate, wanted: impl Fn(&Rule) -> bool) -> Vec<Rule> {
    let mut rules: Vec<Rule> = gate.rules().map(|state| &state.rule).filter(|rule| wanted(rule)).cloned().collect();
    rules.sort_by_key(|rule| rule.id);
    rules
}

/// The rules with what they did and how full they are.
async fn views(books: &Arc<Books>, caller: &Caller, rules: Vec<Rule>, only: Option<AccountId>) -> Result<Vec<RuleView>, Problem> {
    let index = books.decisions.clone();
    let tallies = tokio::task::spawn_blocking(move || index.tallies()).await.unwrap_or_default();
    let mut measured: Vec<(AccountId, RuleUse)> = Vec::new();
    let mut too_many = false;
    for shard in 0..books.replicas.count() {
        let ids: Vec<RuleId> = rules.iter().map(|rule| rule.id).collect();
        let scopes: Vec<Option<AccountId>> = rules.iter().map(|rule| rule.scope.account).collect();
        let (caller, pairs) = (caller.clone(), books.pairs.clone());
        let found = books
            .compute(shard, move |gate| Books::with_pairs(&pairs, shard, |pairs| measure(gate, &caller, (&ids, &scopes), only, pairs)))
            .await?;
        match found {
            Some(found) => measured.extend(found),
            None => too_many = true,
        }
    }
    // What a common rule did is told of all accounts together: to those who may know of all.
    let tally = |rule: &Rule| {
        let all = rule.scope.account.is_some() || matches!(caller.accounts, Accounts::All);
        all.then(|| tallies.get(&rule.id).copied().unwrap_or_default())
    };
    Ok(rules.iter().map(|rule| view(rule, tally(rule), &measured, too_many)).collect())
}

/// How full rules are of the accounts of a shard; `None` when there are too many accounts.
fn measure(
    gate: &Gate,
    caller: &Caller,
    (ids, scopes): (&[RuleId], &[Option<AccountId>]),
    only: Option<AccountId>,
    pairs: &mut Pairs,
) -> Option<Vec<(AccountId, RuleUse)>> {
    let mut rules = gate.rule_list(Asking::All)?;
    rules.retain(|rule| ids.contains(&rule.id));
    let everyone = scopes.iter().any(Option::is_none);
    let covered = |id: &AccountId| only.map_or(everyone || scopes.contains(&Some(*id)), |only| only == *id);
    let accounts = gate.accounts().iter().filter(|account| !account.closed && covered(&account.id) && caller.may_read(account.id.as_str()));
    let accounts: Vec<AccountId> = accounts.map(|account| account.id).take(MEASURED_MAX + 1).collect();
    if accounts.len() > MEASURED_MAX {
        return None;
    }
    Some(
        accounts
            .into_iter()
            .flat_map(|id| gate.uses(id, &rules, pairs).unwrap_or_default().into_iter().map(move |used| (id, used)))
            .collect(),
    )
}

fn fullness(figure: Figure) -> Option<i128> {
    match figure {
        Figure::Absent | Figure::Unknown => None,
        Figure::Infinite => Some(i128::MAX),
        Figure::Units(units) => Some(units),
    }
}

fn view(rule: &Rule, tally: Option<Tally>, measured: &[(AccountId, RuleUse)], too_many: bool) -> RuleView {
    let of = measured.iter().filter(|(_, used)| used.rule.id == rule.id);
    let fullest = of.clone().filter(|(_, used)| fullness(used.utilization).is_some()).max_by_key(|(_, used)| fullness(used.utilization));
    let utilization = fullest.map(|(account, used)| Fullest {
        utilization: figure(used.utilization).unwrap_or_default(),
        current: figure(used.current),
        limit: figure(used.limit),
        account: account.to_string(),
        symbol: used.symbol.map(|symbol| symbol.to_string()),
        sector: used.sector.map(|sector| sector.to_string()),
        breach: used.breach,
        latched: used.latched,
    });
    let why = || of.clone().find_map(|(_, used)| used.unmeasured).map_or("NO_ACCOUNT", Unmeasured::as_str);
    RuleView {
        rule: rule_shown(rule),
        breach_count: tally.map(|tally| tally.breaches),
        last_breach_at: tally.and_then(|tally| tally.last_breach),
        decision_count: tally.map(|tally| tally.decisions),
        last_decision_at: tally.and_then(|tally| tally.last_decision),
        count_reason: tally.is_none().then_some("OTHER_ACCOUNTS"),
        utilization_reason: utilization.is_none().then(|| if too_many { "TOO_MANY_ACCOUNTS" } else { why() }),
        utilization,
    }
}

async fn find(books: &Arc<Books>, caller: &Caller, id: &str) -> Result<Rule, Problem> {
    let id = RuleId::parse(id.as_bytes()).ok_or_else(unknown)?;
    let rule = books.ask(0, move |gate| gate.find_rule(id).cloned()).await?;
    rule.filter(|rule| may_read(caller, rule)).ok_or_else(unknown)
}

/// The rule of a body, read as the gate will read it.
pub(super) fn rule_of(body: &RuleBody) -> Result<Rule, Problem> {
    let value = json!({"event": "rule_created", "rule": body});
    let read = Commands::read(&value).map_err(command_problem)?;
    let ControlEvent::RuleCreated(rule) = read else { return Err(Problem::new(ApiCode::Internal, "a rule was read as something else")) };
    Ok(rule)
}

/// A refusal of the record, as one of the body: the record holds the rule in a field, and the body is the rule.
fn of_the_body(problem: Problem) -> Problem {
    match problem.body()["field"].as_str().and_then(|field| field.strip_prefix("rule.")) {
        Some(field) => problem.field(field),
        None => problem,
    }
}

fn version(rule: &Rule) -> u64 {
    version_of(&serde_json::to_value(rule_shown(rule)).unwrap_or_default())
}

async fn shown(books: &Arc<Books>, caller: &Caller, rule: Rule) -> Result<Response, Problem> {
    let version = version(&rule);
    let view = views(books, caller, vec![rule], None).await?.pop().ok_or_else(unknown)?;
    Ok(versions::tagged(answer(StatusCode::OK, &view), version))
}

/// Creates a rule. It binds every intent behind the position in the answer.
#[utoipa::path(post, path = "/risk-rules", tag = "risk-rules", request_body = RuleBody, params(
    ("Idempotency-Key" = Option<String>, Header, description = "The same key makes one rule, once only", min_length = 1, max_length = 255),
), responses((status = 201, description = "The rule", body = RuleView), (status = 422, description = "It is no rule, or its id is taken")))]
async fn create(
    State(books): State<Arc<Books>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    uri: Uri,
    body: Json<RuleBody>,
) -> Result<Response, Problem> {
    Query::read(uri.query(), &[])?;
    let Json { value: mut body, bytes } = body;
    let fresh = fresh_id("rule");
    let named = body.id.is_some();
    body.id.get_or_insert_with(|| fresh.clone());
    let asked = rule_of(&body).map_err(of_the_body)?;
    if OTHER_PATHS.contains(&asked.id.as_str()) {
        return Err(Problem::new(ApiCode::InvalidField, "the word is a path of its own").field("id"));
    }
    may_write(&caller, &asked)?;
    let begun = books.begin(&caller, "POST /risk-rules", &headers, &bytes, fresh).await?;
    if !named {
        body.id = Some(begun.id.clone());
    }
    let rule = rule_of(&body).map_err(of_the_body)?;
    has_room(&books, &caller, &rule).await?;
    let record = ControlRecord::new("rule.create", format!("rule:{}", rule.id), "rule_created", json!({"rule": body}));
    let source = books.write_once(&caller, &begun, None, record).await.map_err(of_the_body)?;
    let mut response = shown(&books, &caller, rule).await?;
    *response.status_mut() = StatusCode::CREATED;
    Ok(positioned(response, source))
}

/// Shows a rule.
#[utoipa::path(get, path = "/risk-rules/{id}", tag = "risk-rules", params(("id" = String, Path, description = "The rule's id")),
    responses((status = 200, description = "The rule, with its ETag", body = RuleView)))]
async fn get(
    State(books): State<Arc<Books>>,
    Extension(caller): Extension<Caller>,
    PathId(id): PathId,
    uri: Uri,
) -> Result<Response, Problem> {
    Query::read(uri.query(), &[])?;
    let rule = find(&books, &caller, &id).await?;
    shown(&books, &caller, rule).await
}

/// Changes a rule: the body is the whole rule. Its latches and episodes stay, and so must its type.
#[utoipa::path(put, path = "/risk-rules/{id}", tag = "risk-rules", request_body = RuleBody, params(
    ("id" = String, Path, description = "The rule's id"),
    ("If-Match" = String, Header, description = "The ETag of the rule that you saw"),
), responses((status = 200, description = "The rule as it is now", body = RuleView), (status = 412, description = "Somebody else changed it")))]
async fn update(
    State(books): State<Arc<Books>>,
    Extension(caller): Extension<Caller>,
    PathId(id): PathId,
    headers: HeaderMap,
    uri: Uri,
    body: Json<RuleBody>,
) -> Result<Response, Problem> {
    Query::read(uri.query(), &[])?;
    let mut body = body.value;
    if body.id.get_or_insert_with(|| id.clone()) != &id {
        return Err(Problem::new(ApiCode::InvalidField, "a rule keeps its id").field("id"));
    }
    let seen = versions::wanted(&headers)?;
    let rule = rule_of(&body).map_err(of_the_body)?;
    may_change(&caller, &find(&books, &caller, &id).await?, &rule)?;
    let record = ControlRecord::new("rule.update", format!("rule:{}", rule.id), "rule_updated", json!({"rule": body}));
    let held = changing::hold(&books, &caller, &format!("rule:{id}")).await?;
    let changed = async {
        let before = find(&books, &caller, &id).await?;
        is_as_seen(seen, &before)?;
        may_change(&caller, &before, &rule)?;
        held.is_still_held(&books)?;
        books.write(&caller, None, record.replacing(serde_json::to_value(rule_shown(&before)).unwrap_or_default())).await
    };
    let changed = changed.await;
    held.let_go(&books, &caller).await;
    let source = changed.map_err(of_the_body)?;
    Ok(positioned(shown(&books, &caller, rule).await?, source))
}

/// Whether a caller may make the one rule out of the other.
fn may_change(caller: &Caller, before: &Rule, after: &Rule) -> Result<(), Problem> {
    may_write(caller, before)?;
    may_write(caller, after)?;
    match loosened(before, after) {
        Some(field) => may_loosen(caller).map_err(|problem| problem.field(field)),
        None => Ok(()),
    }
}

/// Whether a rule is still as whoever changes it saw it.
fn is_as_seen(seen: u64, rule: &Rule) -> Result<(), Problem> {
    if seen == version(rule) {
        return Ok(());
    }
    Err(Problem::new(ApiCode::PreconditionFailed, "the rule was changed by somebody else: read it again"))
}

/// Deletes a rule, with its latches and episodes. With `If-Match` only as it was seen.
#[utoipa::path(delete, path = "/risk-rules/{id}", tag = "risk-rules", params(
    ("id" = String, Path, description = "The rule's id"),
    ("If-Match" = Option<String>, Header, description = "The ETag of the rule that you saw"),
), responses((status = 200, description = "The rule as it was", body = RuleShown), (status = 412, description = "Somebody else changed it")))]
async fn remove(
    State(books): State<Arc<Books>>,
    Extension(caller): Extension<Caller>,
    PathId(id): PathId,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Problem> {
    Query::read(uri.query(), &[])?;
    let seen = versions::wanted_if_any(&headers)?;
    may_write(&caller, &find(&books, &caller, &id).await?)?;
    may_loosen(&caller)?;
    let held = changing::hold(&books, &caller, &format!("rule:{id}")).await?;
    let deleted = async {
        let before = find(&books, &caller, &id).await?;
        may_write(&caller, &before)?;
        seen.map_or(Ok(()), |seen| is_as_seen(seen, &before))?;
        let record = ControlRecord::new("rule.delete", format!("rule:{}", before.id), "rule_deleted", json!({"id": before.id.as_str()}));
        let record = record.replacing(serde_json::to_value(rule_shown(&before)).unwrap_or_default());
        held.is_still_held(&books)?;
        Ok((books.write(&caller, None, record).await?, before))
    };
    let deleted: Result<_, Problem> = deleted.await;
    held.let_go(&books, &caller).await;
    let (source, before) = deleted?;
    Ok(written(StatusCode::OK, source, &rule_shown(&before)))
}
