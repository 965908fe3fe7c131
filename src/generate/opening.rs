//! What stands before the flow: settings, instruments, accounts, rules, and bars of the past.
//!
//! Invariant: the list follows from the plan alone, and no record of it refers to a later one.

use crate::domain::{InputTopic, Millis, UNITS_PER_ONE};

use super::Flow;
use super::payload::Payload;

/// Milliseconds of a day.
pub(super) const DAY_MS: Millis = 86_400_000;

/// The rules, as `(id, the rest of the record)`: every type, every action, one that only observes.
const RULES: [(&str, &str); 12] = [
    (
        "position",
        r#""name":"One symbol at most a quarter of equity","type":"max_position_size","threshold":"25","unit":"percent","action":"reduce_size","priority":1"#,
    ),
    (
        "position-news",
        r#""name":"News trades stay small","type":"max_position_size","threshold":"60000","unit":"dollars","action":"block","scope":{"strategy":"news"},"priority":2"#,
    ),
    (
        "daily-loss",
        r#""name":"Stop for the day at 1.5 percent","type":"max_daily_loss","threshold":"1.5","unit":"percent","action":"block","priority":3"#,
    ),
    (
        "drawdown",
        r#""name":"Out at 3 percent below the peak","type":"max_drawdown","threshold":"3","unit":"percent","action":"close_all","priority":4"#,
    ),
    (
        "correlation",
        r#""name":"Tell when bets are the same bet","type":"max_correlation","threshold":"0.75","unit":"ratio","action":"alert","min_observations":20,"priority":5"#,
    ),
    (
        "leverage",
        r#""name":"Leverage at most 1.5","type":"max_leverage","threshold":"1.5","unit":"ratio","action":"reduce_size","warn_at":"90","priority":6"#,
    ),
    ("positions", r#""name":"At most 12 symbols","type":"position_limit","threshold":"12","unit":"count","action":"block","priority":7"#),
    (
        "sector-tech",
        r#""name":"Technology at most 60 percent","type":"sector_limit","threshold":"60","unit":"percent","action":"reduce_size","scope":{"sectors":["TECH"]},"priority":8"#,
    ),
    (
        "sector-shadow",
        r#""name":"Would 40 percent be too strict?","type":"sector_limit","threshold":"40","unit":"percent","action":"block","mode":"observe","priority":9"#,
    ),
    (
        "stop",
        r#""name":"Trailing stop","type":"stop_loss","threshold":"3","unit":"percent","action":"close_position","trailing":true,"priority":10"#,
    ),
    ("target", r#""name":"Take profits","type":"take_profit","threshold":"5","unit":"percent","action":"close_position","priority":11"#),
    (
        "stop-crypto",
        r#""name":"Warn about losses in crypto","type":"stop_loss","threshold":"2500","unit":"dollars","action":"alert","scope":{"sectors":["CRYPTO"]},"priority":12"#,
    ),
];

/// Where the opening has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opening {
    Settings,
    Instrument(usize),
    Rule(usize),
    Account(usize),
    /// So many days ago, of this symbol.
    Bar(u64, usize),
    Done,
}

impl Flow {
    /// Writes the next record of the opening. False when it is over.
    pub(super) fn open_next(&mut self) -> bool {
        let (symbols, accounts) = (self.market.instruments.len(), self.traders.len());
        let here = self.opening;
        self.opening = match here {
            Opening::Settings => Opening::Instrument(0),
            Opening::Instrument(place) if place + 1 < symbols => Opening::Instrument(place + 1),
            Opening::Instrument(_) => Opening::Rule(0),
            Opening::Rule(place) if place + 1 < RULES.len() => Opening::Rule(place + 1),
            Opening::Rule(_) => Opening::Account(0),
            Opening::Account(place) if place + 1 < accounts => Opening::Account(place + 1),
            Opening::Account(_) if self.history_days > 0 => Opening::Bar(self.history_days, 0),
            Opening::Account(_) | Opening::Done => Opening::Done,
            Opening::Bar(ago, place) if place + 1 < symbols => Opening::Bar(ago, place + 1),
            Opening::Bar(ago, _) if ago > 1 => Opening::Bar(ago - 1, 0),
            Opening::Bar(..) => Opening::Done,
        };
        match here {
            Opening::Settings => self.settings(),
            Opening::Instrument(place) => self.instrument(place),
            Opening::Rule(place) => self.rule(place),
            Opening::Account(place) => self.account(place),
            Opening::Bar(ago, place) => self.past_bar(ago, place),
            Opening::Done => return false,
        }
        true
    }

    fn settings(&mut self) {
        self.payload.event("gate_settings_set").number("max_intent_age_ms", 0).number("id_memory_ms", 5 * DAY_MS);
        self.payload.decimal("price_collar_percent", 5 * UNITS_PER_ONE).number("duplicate_window_ms", 250);
        self.payload.decimal("max_order_value", 2_000_000 * UNITS_PER_ONE).json("self_trade_prevention", "true").end();
        self.head.set(InputTopic::Control, "gate");
    }

    fn instrument(&mut self, place: usize) {
        let instrument = &self.market.instruments[place];
        let payload = &mut self.payload;
        payload.event("instrument_defined").text("symbol", &instrument.symbol).text("sector", instrument.sector_name());
        payload.decimal("lot_size", instrument.lot).decimal("tick_size", instrument.tick);
        if instrument.multiplier != 1 {
            payload.number("multiplier", instrument.multiplier);
        }
        payload.end();
        self.head.set(InputTopic::Control, &instrument.symbol);
    }

    fn rule(&mut self, place: usize) {
        let (id, rest) = RULES[place];
        self.payload.event("rule_created").json("rule", &format!("{{\"id\":\"{id}\",{rest}}}")).end();
        self.head.set(InputTopic::Control, id);
    }

    fn account(&mut self, place: usize) {
        let trader = &self.traders[place];
        let payload = &mut self.payload;
        payload.event("account_opened").text("account", &trader.account).id("owner", "U", place as u64 / 3 + 1);
        payload.number("cash", trader.cash);
        account_settings(payload, place);
        payload.end();
        self.head.set(InputTopic::Control, &trader.account);
    }

    fn past_bar(&mut self, ago: u64, place: usize) {
        self.market.daily_move(place, &mut self.random);
        let open_time = trading_day(self.plan.start, ago);
        let spread = self.random.between(1, 200);
        let instrument = &self.market.instruments[place];
        let close = instrument.middle();
        let (high, low) = (close + spread * instrument.tick, (close - spread * instrument.tick).max(instrument.tick));
        let payload = &mut self.payload;
        payload.event("bar").text("symbol", &instrument.symbol).text("timeframe", "1d").number("open_time", open_time);
        payload.decimal("open", close).decimal("high", high).decimal("low", low).decimal("close", close);
        payload.number("volume", 1000 * (spread + 10)).end();
        self.head.set(InputTopic::Prices, &instrument.symbol);
    }
}

fn account_settings(payload: &mut Payload, place: usize) {
    match place % 8 {
        0 => payload.text("day_roll", "00:00 UTC"),
        5 => payload.text("day_roll", "17:00 Europe/London"),
        _ => payload.text("day_roll", "17:00 America/New_York"),
    };
    match place % 10 {
        0 => payload.json("limits", r#"{"notify":["order_filled","position_opened","position_closed","daily_summary"]}"#),
        3 => payload.json("limits", r#"{"order_rate_limit":3,"order_rate_window_ms":1000,"max_order_value":"50000"}"#),
        7 => payload.json("limits", r#"{"price_collar_mode":"two_sided","price_collar_percent":"2"}"#),
        _ => payload,
    };
}

/// Midnight UTC of the weekday that was `ago` weekdays before the day of `at`.
fn trading_day(at: Millis, ago: u64) -> Millis {
    let mut day = at.div_euclid(DAY_MS);
    for _ in 0..ago {
        // Day 0 was a Thursday; 2 and 3 are the weekend.
        day -= match day.rem_euclid(7) {
            4 => 3,
            3 => 2,
            _ => 1,
        };
    }
    day * DAY_MS
}

/// Whether an instant is on a Saturday or Sunday, UTC.
pub(super) fn is_weekend(at: Millis) -> bool {
    matches!(at.div_euclid(DAY_MS).rem_euclid(7), 2 | 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn history_knows_weekdays_only() {
        // 2026-03-09 was a Monday.
        let monday = 1_773_014_400_000 + 5;
        assert_eq!(trading_day(monday, 0), 1_773_014_400_000);
        assert_eq!(trading_day(monday, 1), 1_773_014_400_000 - 3 * DAY_MS);
        assert!((1..40).all(|ago| !is_weekend(trading_day(monday, ago))));
    }
}
