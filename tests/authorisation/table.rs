//! What everyone is told: one row for each operation of the document, or several where what it is about makes a difference.
//!
//! Columns: nobody (no token), viewer, user, admin, service with every scope, service without one. Within a column the standings of the
//! row's object, in [`Object::standings`]' order; one entry stands for all of them. `+` is the row's own status: it was done.

use crate::objects::Object;

/// One row.
pub struct Row {
    /// `operationId`
    pub operation: &'static str,
    /// Which of several rows of that operation.
    pub case: &'static str,
    pub object: Object,
    /// The status of `+`.
    pub done: u16,
    pub told: &'static str,
}

impl Row {
    /// The status by column and standing.
    pub fn expected(&self) -> Vec<Vec<u16>> {
        let status = |entry: &str| if entry == "+" { self.done } else { entry.parse().unwrap() };
        let standings = self.object.standings().len();
        let column = |entries: &str| {
            let told: Vec<u16> = entries.split('/').map(status).collect();
            if told.len() == 1 { vec![told[0]; standings] } else { told }
        };
        let columns: Vec<Vec<u16>> = self.told.split_whitespace().map(column).collect();
        assert!(columns.len() == 6 && columns.iter().all(|column| column.len() == standings), "{}: {}", self.operation, self.told);
        columns
    }
}

const fn row(operation: &'static str, object: Object, done: u16, told: &'static str) -> Row {
    Row { operation, case: "", object, done, told }
}

const fn case(operation: &'static str, case: &'static str, object: Object, done: u16, told: &'static str) -> Row {
    Row { operation, case, object, done, told }
}

/// A row of its own: nobody comes in by a ticket that none was given.
pub const WRONG_TICKET: &str = "with a wrong ticket";

const PUBLIC: &str = "+ + + + + +";
const KNOWN: &str = "401 + + + + +";
/// What one changes of one's own; a token needs a scope for it.
const OWN_WRITES: &str = "401 + + + + 403";
const ADMINS: &str = "401 403 403 + 403 403";

// own/granted/foreign/absent
const READS: &str = "401 +/+/404/404 +/+/404/404 +/+/+/404 +/+/404/404 +/+/404/404";
const ACTS: &str = "401 403/403/404/404 +/403/404/404 +/+/+/404 +/403/404/404 403/403/404/404";
const RUNS: &str = "401 403/403/404/404 403/403/404/404 +/+/+/404 403/403/404/404 403/403/404/404";
/// An admin may search for, and order for, what was never opened: the decision says so.
const ADMIN_OF_ABSENT_TOO: &str = "401 +/+/404/404 +/+/404/404 + +/+/404/404 +/+/404/404";
const ORDERS: &str = "401 403 +/403/404/404 + +/403/404/404 403";
/// An admin may write a rule for an account before it is opened: the gate takes it (docs/SEMANTICS.md, section 5).
const NEW_RULE: &str = "401 403/403/404/404 +/403/404/404 + +/403/404/404 403/403/404/404";

// own/granted/foreign/absent/common
const RULE_READS: &str = "401 +/+/404/404/+ +/+/404/404/+ +/+/+/404/+ +/+/404/404/+ +/+/404/404/+";
const RULE_ACTS: &str = "401 403/403/404/404/403 +/403/404/404/403 +/+/+/404/+ +/403/404/404/403 403/403/404/404/403";
/// Whom a rule holds does not take it off.
const RULE_ENDS: &str = "401 403/403/404/404/403 403/403/404/404/403 +/+/+/404/+ 403/403/404/404/403 403/403/404/404/403";

// own/foreign/absent
const OWNED: &str = "401 +/404/404 +/404/404 +/+/404 +/404/404 +/404/404";
const OWN_ALONE: &str = "401 +/404/404 +/404/404 +/404/404 +/404/404 +/404/404";
const PEOPLE_RUN: &str = "401 403/404/404 403/404/404 +/+/404 403/404/404 403/404/404";
const KEY_ACTS: &str = "401 403/404/404 +/404/404 +/+/404 403/404/404 403/404/404";
const KEY_REVEALS: &str = "401 403/404/404 +/404/404 +/+/404 +/404/404 403/404/404";
const NEW_KEY: &str = "401 403 +/403/403 +/+/422 403 403";
const NEW_TOKEN: &str = "401 +/403/403 +/403/403 +/+/422 +/403/403 403/403/403";

const OWN_ALONE_WRITES: &str = "401 +/404/404 +/404/404 +/404/404 +/404/404 403";
const OWNED_WRITES: &str = "401 +/404/404 +/404/404 +/+/404 +/404/404 403/404/404";
const MARKS: &str = "401 +/+/404/404 +/+/404/404 +/+/+/404 +/+/404/404 403";

// own/absent, common/absent
const THERE_WRITES: &str = "401 +/404 +/404 +/404 +/404 403";
const THERE: &str = "401 +/404 +/404 +/404 +/404 +/404";
// decisions/audit/directory
const TOPICS: &str = "401 403 403 +/+/404 +/404/404 403";
/// Who logged in; programs have no session.
const SESSIONS: &str = "401 + + + 401 401";
const PASSWORDS: &str = "401 + + + 403 403";

use Object::{Account, Contact, Decision, Key, Nothing, Notification, Person, Preference, Push, Rule, Symbol, Token, Topic, Webhook};

/// All rows.
pub const TABLE: &[Row] = &[
    row("get_accounts", Nothing, 200, KNOWN),
    row("post_accounts", Nothing, 201, ADMINS),
    row("get_accounts_id", Account, 200, READS),
    row("get_accounts_id_orders", Account, 200, READS),
    row("get_accounts_id_positions", Account, 200, READS),
    row("get_accounts_id_decisions", Account, 200, READS),
    row("get_accounts_id_limits", Account, 200, READS),
    row("get_accounts_id_kill", Account, 200, READS),
    row("post_accounts_id_kill", Account, 202, ACTS),
    row("post_accounts_id_state", Account, 200, ACTS),
    case("post_accounts_id_state", "active", Account, 200, RUNS),
    row("post_accounts_id_cash", Account, 200, RUNS),
    row("post_accounts_id_close", Account, 200, RUNS),
    row("post_accounts_id_limits", Account, 200, RUNS),
    row("post_accounts_id_latches_rule_release", Account, 200, RUNS),
    row("get_api_keys", Nothing, 200, KNOWN),
    row("post_api_keys", Person, 201, NEW_KEY),
    row("get_api_keys_id", Key, 200, OWNED),
    row("get_api_keys_id_audit_logs", Key, 200, OWNED),
    row("put_api_keys_id", Key, 200, KEY_ACTS),
    row("post_api_keys_id_rotate", Key, 200, KEY_ACTS),
    row("post_api_keys_id_verify", Key, 200, KEY_ACTS),
    row("post_api_keys_id_reveal", Key, 200, KEY_REVEALS),
    row("delete_api_keys_id", Key, 204, KEY_ACTS),
    row("get_api_tokens", Nothing, 200, KNOWN),
    row("post_api_tokens", Person, 201, NEW_TOKEN),
    row("get_api_tokens_id", Token, 200, OWNED),
    row("delete_api_tokens_id", Token, 204, OWNED_WRITES),
    row("post_auth_login", Nothing, 200, PUBLIC),
    row("post_auth_refresh", Nothing, 200, SESSIONS),
    row("post_auth_logout", Nothing, 204, SESSIONS),
    row("get_audit", Nothing, 200, ADMINS),
    row("get_auth_me", Nothing, 200, KNOWN),
    row("post_auth_password", Nothing, 204, PASSWORDS),
    row("post_auth_ws_ticket", Nothing, 201, KNOWN),
    row("get_chart_symbol_ohlcv", Symbol, 200, THERE),
    row("get_chart_symbol_indicators", Symbol, 200, THERE),
    row("get_decisions", Nothing, 200, KNOWN),
    case("get_decisions", "of one account", Account, 200, ADMIN_OF_ABSENT_TOO),
    row("get_decisions_id", Decision, 200, READS),
    row("get_gate_settings", Nothing, 200, KNOWN),
    row("post_gate_settings", Nothing, 200, ADMINS),
    row("get_instruments", Nothing, 200, KNOWN),
    row("post_instruments", Nothing, 201, ADMINS),
    row("get_instruments_symbol", Symbol, 200, THERE),
    row("post_intents", Account, 200, ORDERS),
    row("get_notification_contacts", Nothing, 200, KNOWN),
    // The token is the proof; this one is not good.
    row("get_notification_contacts_confirm", Nothing, 200, PUBLIC),
    row("post_notification_contacts_confirm", Nothing, 422, PUBLIC),
    row("put_notification_contacts_channel", Contact, 200, THERE_WRITES),
    row("post_notification_contacts_channel_verify", Contact, 200, THERE_WRITES),
    // A webhook has no code: whatever is sent is wrong.
    row("post_notification_contacts_channel_confirm", Contact, 422, THERE_WRITES),
    row("delete_notification_contacts_channel", Contact, 204, THERE_WRITES),
    row("get_notification_preferences", Nothing, 200, KNOWN),
    row("post_notification_preferences", Nothing, 201, OWN_WRITES),
    row("get_notification_preferences_preview", Nothing, 200, KNOWN),
    row("post_notification_preferences_test", Webhook, 200, OWN_WRITES),
    row("get_notification_preferences_id", Preference, 200, OWN_ALONE),
    row("put_notification_preferences_id", Preference, 200, OWN_ALONE_WRITES),
    row("delete_notification_preferences_id", Preference, 204, OWN_ALONE_WRITES),
    row("get_notifications", Nothing, 200, KNOWN),
    row("get_notifications_stats", Nothing, 200, KNOWN),
    row("put_notifications_read_all", Nothing, 200, OWN_WRITES),
    row("put_notifications_id_read", Notification, 204, MARKS),
    row("delete_notifications_id", Notification, 204, MARKS),
    row("get_push_subscriptions", Nothing, 200, KNOWN),
    row("post_push_subscriptions", Nothing, 201, OWN_WRITES),
    row("delete_push_subscriptions_id", Push, 204, OWN_ALONE_WRITES),
    row("post_records", Nothing, 200, "401 403 403 + + 403"),
    row("get_restricted_lists", Nothing, 200, KNOWN),
    row("post_restricted_lists", Nothing, 201, ADMINS),
    row("get_risk_rules", Nothing, 200, KNOWN),
    case("get_risk_rules", "of one account", Account, 200, READS),
    row("post_risk_rules", Nothing, 201, ADMINS),
    case("post_risk_rules", "of one account", Account, 201, NEW_RULE),
    row("get_risk_rules_id", Rule, 200, RULE_READS),
    row("put_risk_rules_id", Rule, 200, RULE_ACTS),
    row("delete_risk_rules_id", Rule, 200, RULE_ENDS),
    row("post_risk_rules_test", Account, 200, READS),
    row("post_risk_rules_calculate_position_size", Account, 200, READS),
    row("get_risk_rules_portfolio_risk", Account, 200, READS),
    row("post_splits", Nothing, 201, ADMINS),
    row("get_system", Nothing, 200, ADMINS),
    row("get_topics_topic_records", Topic, 200, TOPICS),
    row("get_trading_states", Nothing, 200, KNOWN),
    row("post_trading_states", Nothing, 201, ADMINS),
    row("get_users", Nothing, 200, ADMINS),
    row("post_users", Nothing, 201, ADMINS),
    row("get_users_name", Person, 200, OWNED),
    row("put_users_name", Person, 200, PEOPLE_RUN),
    row("put_users_name_password", Person, 204, PEOPLE_RUN),
    row("delete_users_name", Person, 204, PEOPLE_RUN),
    row("get_vault_status", Nothing, 200, ADMINS),
    row("post_vault_verify", Nothing, 200, ADMINS),
    row("post_vault_rotate", Nothing, 200, ADMINS),
    row("get_ws", Nothing, 101, KNOWN),
    case("get_ws", WRONG_TICKET, Nothing, 401, PUBLIC),
];
