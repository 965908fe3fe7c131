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
    Routing = "routing",
}

const PLACES: usize = 512;

/// A name as two numbers: its first eight bytes, filled up with zeros, and its last eight, which are the
/// first again where it is shorter. They tell names of up to 16 bytes apart.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Ends {
    head: u64,
    tail: u64,
}

impl Ends {
    /// A place for each name, found by trial so that no two share one; [`TABLE`] does not compile otherwise.
    #[inline]
    const fn place(self) -> usize {
        const FACTOR: u64 = 0xfed2_a29e_6d05_a9cf;
        const PLACE_BITS: u32 = PLACES.trailing_zeros();
        (self.head.wrapping_add(self.tail.rotate_left(7)).wrapping_mul(FACTOR) >> (u64::BITS - PLACE_BITS)) as usize
    }

    /// Of the name that stands at `start` of a text.
    #[inline]
    fn within(text: &[u8], start: usize, len: usize) -> Self {
        let eight = |at: usize| text.get(at..).and_then(|rest| rest.first_chunk::<8>());
        match (eight(start), len) {
            (Some(head), 8..) => {
                let head = u64::from_le_bytes(*head);
                Self { head, tail: eight(start + len - 8).map_or(head, |tail| u64::from_le_bytes(*tail)) }
            }
            (Some(head), 1..8) => {
                let head = u64::from_le_bytes(*head) & u64::MAX >> (64 - 8 * len);
                Self { head, tail: head }
            }
            (Some(_), 0) | (None, _) => Self::of(text.get(start..start + len).unwrap_or_default()),
        }
    }

    const fn of(name: &[u8]) -> Self {
        let mut head = [0; 8];
        let mut tail = [0; 8];
        let mut i = 0;
        while i < name.len() && i < 8 {
            head[i] = name[i];
            tail[i] = if name.len() < 8 { name[i] } else { name[name.len() - 8 + i] };
            i += 1;
        }
        Self { head: u64::from_le_bytes(head), tail: u64::from_le_bytes(tail) }
    }
}

#[derive(Clone, Copy)]
struct Place {
    ends: Ends,
    name: &'static str,
    key: Key,
}

static TABLE: [Place; PLACES] = {
    // No name is empty, so that an empty place answers no search.
    let mut table = [Place { ends: Ends { head: 0, tail: 0 }, name: "", key: Key::Event }; PLACES];
    let mut i = 0;
    while i < Key::ALL.len() {
        let name = Key::ALL[i].as_str();
        let ends = Ends::of(name.as_bytes());
        assert!(table[ends.place()].name.is_empty(), "two names share a place: choose another factor");
        table[ends.place()] = Place { ends, name, key: Key::ALL[i] };
        i += 1;
    }
    table
};

impl Key {
    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();

    /// Finds a name.
    pub fn find(name: &[u8]) -> Option<Self> {
        Self::find_at(name, 0, name.len())
    }

    /// Finds the name of `len` bytes that stands at `start` of a text.
    #[inline]
    pub fn find_at(text: &[u8], start: usize, len: usize) -> Option<Self> {
        const TOLD_APART: usize = 16;
        let ends = Ends::within(text, start, len);
        let known = &TABLE[ends.place() % PLACES];
        if known.ends != ends || known.name.len() != len || len == 0 {
            return None;
        }
        let same = len <= TOLD_APART || text.get(start..start + len) == Some(known.name.as_bytes());
        same.then_some(known.key)
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
        assert_eq!(Key::find(b"price_collar_percenT"), None);
        assert_eq!(Key::find(b"price_coLlar_percent"), None);
        assert_eq!(Key::find(b"qty\0"), None);
        for around in ["", "x", "xxxxxxxxxxxx"] {
            for key in Key::ALL {
                let text = format!("{around}{}{around}", key.as_str());
                assert_eq!(Key::find_at(text.as_bytes(), around.len(), key.as_str().len()), Some(*key));
            }
        }
        assert_eq!(Key::find("\u{e9}\u{e9}".as_bytes()), None);
    }
}
