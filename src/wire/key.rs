//! The names of fields, as one closed set.
//!
//! Invariant: a name has one [`Key`], found without comparing it with more than one other name.
//! Deliberately absent: which event has which fields; that is where the event is decoded.

/// A buildable, searchable list of names.
macro_rules! keys {
    ($($name:ident = $text:literal,)+) => {
        /// A field that some record knows.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(in crate::wire) enum Key { $($name,)+ }

        impl Key {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The field's name.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }
        }
    };
}

keys! {
    Event = "event",
    ClientOrderId = "client_order_id",
    Account = "account",
    Strategy = "strategy",
    Symbol = "symbol",
    Side = "side",
    OrderType = "order_type",
    Qty = "qty",
    Notional = "notional",
    LimitPrice = "limit_price",
    StopPrice = "stop_price",
    TrailPrice = "trail_price",
    TrailPercent = "trail_percent",
    TimeInForce = "time_in_force",
    ReduceOnly = "reduce_only",
    AllOrNone = "all_or_none",
    ExtendedHours = "extended_hours",
    Ts = "ts",
    AmendId = "amend_id",
    Signal = "signal",
    ExecId = "exec_id",
    Price = "price",
    Fee = "fee",
    Reason = "reason",
    Size = "size",
    Bid = "bid",
    Ask = "ask",
    BidSize = "bid_size",
    AskSize = "ask_size",
    Timeframe = "timeframe",
    OpenTime = "open_time",
    Open = "open",
    High = "high",
    Low = "low",
    Close = "close",
    Volume = "volume",
    Owner = "owner",
    Currency = "currency",
    Cash = "cash",
    DayRoll = "day_roll",
    Limits = "limits",
    MaxOrderQty = "max_order_qty",
    MaxOrderValue = "max_order_value",
    PriceCollarPercent = "price_collar_percent",
    PriceCollarMode = "price_collar_mode",
    MaxPriceAgeMs = "max_price_age_ms",
    OrderRateLimit = "order_rate_limit",
    OrderRateWindowMs = "order_rate_window_ms",
    DuplicateWindowMs = "duplicate_window_ms",
    SelfTradePrevention = "self_trade_prevention",
    Notify = "notify",
    MaxIntentAgeMs = "max_intent_age_ms",
    ValuationGridMs = "valuation_grid_ms",
    IdMemoryMs = "id_memory_ms",
    CommandTimeoutMs = "command_timeout_ms",
    EpisodeQuietMs = "episode_quiet_ms",
    SizingPercent = "sizing_percent",
    Amount = "amount",
    Sector = "sector",
    Multiplier = "multiplier",
    LotSize = "lot_size",
    TickSize = "tick_size",
    From = "from",
    To = "to",
    List = "list",
    Symbols = "symbols",
    Accounts = "accounts",
    Rule = "rule",
    Id = "id",
    Name = "name",
    Description = "description",
    Type = "type",
    Threshold = "threshold",
    Unit = "unit",
    Action = "action",
    Scope = "scope",
    Active = "active",
    Mode = "mode",
    Priority = "priority",
    WarnAt = "warn_at",
    Trailing = "trailing",
    Window = "window",
    MinObservations = "min_observations",
    OnMissing = "on_missing",
    Sectors = "sectors",
    State = "state",
    Actor = "actor",
    CancelOrders = "cancel_orders",
    Flatten = "flatten",
    RuleId = "rule_id",
    ResetHwm = "reset_hwm",
    Topic = "topic",
    Partition = "partition",
    Offset = "offset",
    Keyed = "key",
    Payload = "payload",
    Received = "received",
}

const PLACES: usize = 512;

/// A place for each name, found by trial so that no two share one; [`TABLE`] does not compile otherwise.
const fn place(name: &[u8]) -> usize {
    let (first, middle, last) = (name[0] as usize, name[name.len() / 2] as usize, name[name.len() - 1] as usize);
    (name.len() * 125 + first * 450 + last * 73 + middle * 91) % PLACES
}

static TABLE: [(&[u8], Key); PLACES] = {
    // No name is empty, so that an empty place answers no search.
    let mut table: [(&[u8], Key); PLACES] = [(b"", Key::Event); PLACES];
    let mut i = 0;
    while i < Key::ALL.len() {
        let name = Key::ALL[i].as_str().as_bytes();
        let at = place(name);
        assert!(table[at].0.is_empty(), "two names share a place: choose other factors");
        table[at] = (name, Key::ALL[i]);
        i += 1;
    }
    table
};

impl Key {
    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();

    /// Finds a name.
    #[inline]
    pub fn find(name: &[u8]) -> Option<Self> {
        if name.is_empty() {
            return None;
        }
        let (known, key) = TABLE[place(name)];
        (known == name).then_some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_every_name_and_no_other() {
        for key in Key::ALL {
            assert_eq!(Key::find(key.as_str().as_bytes()), Some(*key));
            assert_eq!(Key::find(format!("{}_", key.as_str()).as_bytes()), None);
            assert_eq!(Key::find(key.as_str().to_uppercase().as_bytes()), None);
        }
        assert_eq!(Key::find(b""), None);
        assert_eq!(Key::find("\u{e9}\u{e9}".as_bytes()), None);
    }
}
