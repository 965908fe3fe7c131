//! A request for each operation that would be done for whoever may: so that what is refused is refused for who asks.

use serde_json::{Value, json};

use crate::daemon::{line, order};
use crate::objects::{Made, rule, subscription};
use crate::table::{Row, WRONG_TICKET};
use crate::world::{PASSWORD, Who, World};

const ANOTHER: &str = "another horse, another battery";

/// Operations after which whoever asked, or was asked about, may not be let in any more.
pub const ENDS_A_SESSION: &[&str] =
    &["post_auth_logout", "post_auth_password", "post_auth_refresh", "put_users_name", "delete_users_name", "put_users_name_password"];

/// The path with its parameters.
pub fn path(world: &World, row: &Row, template: &str, made: &Made, who: &Who) -> String {
    let id = made.id.replace('/', "%2F");
    let parts = template.split('/').map(|part| match part {
        "{rule}" => made.latch.clone(),
        part if part.starts_with('{') => id.clone(),
        part => part.to_owned(),
    });
    let path = parts.collect::<Vec<_>>().join("/");
    let account = &made.account;
    let query = match row.operation {
        "get_decisions" | "get_risk_rules" if !account.is_empty() => format!("?account={account}"),
        "get_risk_rules_portfolio_risk" => format!("?account={account}"),
        "get_chart_symbol_ohlcv" => "?timeframe=1min".to_owned(),
        "get_chart_symbol_indicators" => "?timeframe=1min&indicator=sma".to_owned(),
        "get_notification_contacts_confirm" => "?token=abc".to_owned(),
        "get_ws" if row.case == WRONG_TICKET => "?ticket=ogw_none".to_owned(),
        "get_ws" if who.bearer.is_some() => format!("?ticket={}", world.ticket(who)),
        "get_notification_preferences_preview" => "?type=stop_loss&channel=email&priority=high".to_owned(),
        _ => String::new(),
    };
    path + &query
}

/// Content type and body; `None` for what has none.
pub fn body(world: &World, row: &Row, made: &Made, who: &Who) -> Option<(&'static str, String)> {
    match row.operation {
        "post_records" => {
            let price = r#"{"event":"trade","symbol":"AAPL","price":"100"}"#;
            Some(("application/x-ndjson", line("market.prices", "AAPL", price)))
        }
        "post_notification_contacts_confirm" => Some(("application/x-www-form-urlencoded", "token=abc".to_owned())),
        _ => json_body(world, row, made, who).map(|body| ("application/json", body.to_string())),
    }
}

fn json_body(world: &World, row: &Row, made: &Made, who: &Who) -> Option<Value> {
    let (id, number) = (made.id.as_str(), world.number());
    Some(match row.operation {
        "post_accounts" => json!({"account": format!("NEW-{number}"), "owner": "zoe", "cash": "1"}),
        "post_accounts_id_cash" => json!({"amount": "1", "reason": "a test"}),
        "post_accounts_id_close" | "post_accounts_id_kill" | "post_accounts_id_latches_rule_release" => json!({"reason": "a test"}),
        "post_accounts_id_limits" => json!({"max_order_qty": "5"}),
        "post_accounts_id_state" => json!({"state": if row.case.is_empty() { "halted" } else { row.case }, "reason": "a test"}),
        "post_intents" => serde_json::from_str(&order(&format!("I-{number}")).replace("ACC1", id)).unwrap(),
        "post_risk_rules_test" => json!({"account": id}),
        "post_risk_rules_calculate_position_size" => json!({"account": id, "symbol": "AAPL", "entry": "50"}),
        "post_risk_rules" => rule(&format!("r-{number}"), &made.account),
        "put_risk_rules_id" => rule(id, &made.account),
        "post_gate_settings" => json!({"sizing_percent": "2"}),
        "post_instruments" => json!({"symbol": format!("NEW{number}")}),
        "post_restricted_lists" => json!({"list": "FOREIGN-list", "symbols": ["SPLT"], "accounts": ["FOREIGN-0"]}),
        "post_splits" => json!({"symbol": "SPLT", "from": "1", "to": "2"}),
        "post_trading_states" => json!({"scope": {"symbol": "SPLT"}, "state": "reduce_only", "reason": "a test"}),
        _ => return of_people(world, row, made, who).or_else(|| of_keys(row, made)),
    })
}

fn of_people(world: &World, row: &Row, made: &Made, who: &Who) -> Option<Value> {
    Some(match row.operation {
        "post_auth_login" => json!({"name": "zoe", "password": PASSWORD}),
        "post_auth_logout" => json!({}),
        "post_auth_refresh" => json!({"refresh_token": if who.bearer.is_some() { &who.refresh } else { "ogr_none~0.none" }}),
        "post_auth_password" => json!({"current_password": PASSWORD, "new_password": ANOTHER}),
        "post_users" => json!({"name": format!("new-{}", world.number()), "role": "service"}),
        "put_users_name" => json!({"role": "service", "scopes": [], "accounts": {}, "disabled": false}),
        "put_users_name_password" => json!({"password": ANOTHER}),
        "post_api_tokens" => json!({"user": made.id, "name": "a token", "scopes": []}),
        "put_notification_contacts_channel" => json!({"address": world.hook}),
        "post_notification_contacts_channel_confirm" => json!({"code": "123456"}),
        "post_notification_preferences" => {
            json!({"type": "profit_target", "channel": "sms", "enabled": true, "min_priority": "low"})
        }
        "put_notification_preferences_id" => json!({"enabled": true, "min_priority": "high"}),
        "post_notification_preferences_test" => json!({"channel": "webhook"}),
        "post_push_subscriptions" => subscription(),
        _ => return None,
    })
}

fn of_keys(row: &Row, made: &Made) -> Option<Value> {
    Some(match row.operation {
        "post_api_keys" => {
            json!({"owner": made.id, "broker": "robinhood", "name": "a key", "environment": "paper", "key": "PKABCDEFGHIJ12345678", "secret": "s3cret"})
        }
        "put_api_keys_id" => json!({"name": "renamed", "status": "active"}),
        "post_api_keys_id_rotate" => json!({"key": "PKABCDEFGHIJ99990000", "secret": "another"}),
        _ => return None,
    })
}
