//! The machine: `apply(record) -> effects`. (Skeleton: the public face is final, the inside is being built.)

mod view;

use serde::{Deserialize, Serialize};

use crate::domain::{AccountId, Effects, Millis, Record};

pub use view::{BookView, PositionView, WorkingView};

/// All state of a shard that belongs to no account.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Shared {
    shard: u32,
    seq: u64,
    at: Millis,
}

/// All state of one account.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Account {
    id: AccountId,
}

/// The state machine of one shard: no clock, no I/O, no locks.
#[derive(Clone, Debug)]
pub struct Gate {
    shared: Shared,
    accounts: Vec<Account>,
    touched: Vec<u32>,
}

impl Gate {
    /// A new gate for a shard: nothing applied, nothing known.
    #[must_use]
    pub fn new(shard: u32) -> Self {
        Self { shared: Shared { shard, seq: 0, at: 0 }, accounts: Vec::new(), touched: Vec::new() }
    }

    /// Applies the next record of the ledger and appends what it causes to `effects`.
    pub fn apply(&mut self, record: &Record, effects: &mut Effects) {
        self.shared.seq += 1;
        self.shared.at = self.shared.at.max(record.received.map_or(record.ts, |received| record.ts.min(received)));
        let _ = effects;
    }

    /// The number of records applied.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.shared.seq
    }

    /// The time of the last record.
    #[must_use]
    pub fn at(&self) -> Millis {
        self.shared.at
    }

    /// The shard.
    #[must_use]
    pub fn shard(&self) -> u32 {
        self.shared.shard
    }

    /// All books, in the order in which the accounts were opened.
    pub fn books(&self) -> impl Iterator<Item = BookView> + '_ {
        self.accounts.iter().filter_map(|account| self.book(account.id))
    }

    /// One account's book.
    #[must_use]
    pub fn book(&self, account: AccountId) -> Option<BookView> {
        let _ = account;
        None
    }

    /// What a snapshot keeps beside the accounts.
    #[must_use]
    pub fn shared(&self) -> &Shared {
        &self.shared
    }

    /// The accounts, in the order in which they were opened. An account never moves.
    #[must_use]
    pub fn accounts(&self) -> &[Account] {
        &self.accounts
    }

    /// The accounts (places in [`Gate::accounts`]) that records changed since the last call, ascending.
    pub fn take_touched(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.touched)
    }

    /// A gate as it was when `shared` and `accounts` were taken; indexes are rebuilt.
    #[must_use]
    pub fn restore(shared: Shared, accounts: Vec<Account>) -> Self {
        Self { shared, accounts, touched: Vec::new() }
    }
}
