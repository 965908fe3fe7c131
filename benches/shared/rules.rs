//! The nine rules that everything is measured under.

/// The nine rules, none of which is near its limit. They cover everything unless a scope is added.
pub const RULES: [&str; 9] = [
    r#""type":"max_position_size","threshold":"50","unit":"percent","action":"reduce_size""#,
    r#""type":"max_daily_loss","threshold":"50","unit":"percent","action":"close_all""#,
    r#""type":"max_drawdown","threshold":"50","unit":"percent","action":"close_all""#,
    r#""type":"max_correlation","threshold":"1","unit":"ratio","action":"block","warn_at":"100""#,
    r#""type":"max_leverage","threshold":"4","unit":"ratio","action":"reduce_size""#,
    r#""type":"position_limit","threshold":"5000","unit":"count","action":"block""#,
    r#""type":"sector_limit","threshold":"90","unit":"percent","action":"reduce_size""#,
    r#""type":"stop_loss","threshold":"50","unit":"percent","action":"close_position""#,
    r#""type":"take_profit","threshold":"90","unit":"percent","action":"close_position""#,
];

/// So many rules, the nine kinds in turn, as the fields of a record but the id. They cover everything.
pub fn in_turn(count: usize) -> Vec<String> {
    (0..count).map(|place| RULES[place % RULES.len()].to_owned()).collect()
}
