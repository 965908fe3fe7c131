//! Names to places: accounts, symbols, used ids, fills.
//!
//! Invariant: rebuilt from the state, never kept, never iterated.

use hashbrown::HashTable;

use crate::book::{Account, AccountIx, Content, Status, StrategyIx, SymbolIx};
use crate::domain::{AccountId, ClientOrderId, ExecId, IntentKind, Millis, StrategyId, Symbol};
use crate::market::symbol::SymbolState;

/// The indexes of one gate.
#[derive(Clone, Debug, Default)]
pub(crate) struct Index {
    accounts: HashTable<AccountIx>,
    symbols: HashTable<SymbolIx>,
    strategies: HashTable<StrategyIx>,
    ids: HashTable<(AccountIx, u32, u64)>,
    fills: HashTable<(AccountIx, u64, u64)>,
}

impl Index {
    /// Indexes all that is there; ids that were used before `horizon` are forgotten, unless they work.
    pub(crate) fn rebuild(accounts: &[Account], symbols: &[SymbolState], strategies: &[StrategyId], horizon: Millis) -> Self {
        let mut index = Self::default();
        for (ix, account) in (0..).zip(accounts) {
            index.add_account(ix, accounts);
            let remembered = account.orders.remembered().filter(|(_, entry)| entry.at >= horizon || entry.status == Status::Working);
            for (slot, entry) in remembered {
                index.add_id(ix, slot, &entry.content);
            }
            for (number, fill) in account.fills.numbered() {
                index.add_fill(ix, number, &fill.exec_id);
            }
        }
        for (ix, _) in (0..).zip(symbols) {
            index.add_symbol(ix, symbols);
        }
        for (ix, _) in (0..).zip(strategies) {
            index.add_strategy(ix, strategies);
        }
        index
    }

    pub(crate) fn account(&self, id: &AccountId, accounts: &[Account]) -> Option<AccountIx> {
        self.accounts.find(hash(0, id.as_bytes()), |ix| accounts[*ix as usize].id == *id).copied()
    }

    pub(crate) fn add_account(&mut self, ix: AccountIx, accounts: &[Account]) {
        let hash_of = |ix: &AccountIx| hash(0, accounts[*ix as usize].id.as_bytes());
        self.accounts.insert_unique(hash_of(&ix), ix, hash_of);
    }

    pub(crate) fn symbol(&self, symbol: &Symbol, symbols: &[SymbolState]) -> Option<SymbolIx> {
        self.symbols.find(hash(0, symbol.as_bytes()), |ix| symbols[*ix as usize].symbol == *symbol).copied()
    }

    /// The place of a symbol; it gets one with its first mention.
    pub(crate) fn symbol_named(&mut self, symbol: Symbol, symbols: &mut Vec<SymbolState>) -> SymbolIx {
        self.symbol(&symbol, symbols).unwrap_or_else(|| {
            let ix = SymbolIx::try_from(symbols.len()).unwrap_or(SymbolIx::MAX);
            symbols.push(SymbolState::named(symbol));
            self.add_symbol(ix, symbols);
            ix
        })
    }

    fn add_symbol(&mut self, ix: SymbolIx, symbols: &[SymbolState]) {
        let hash_of = |ix: &SymbolIx| hash(0, symbols[*ix as usize].symbol.as_bytes());
        self.symbols.insert_unique(hash_of(&ix), ix, hash_of);
    }

    pub(crate) fn strategy(&self, strategy: &StrategyId, strategies: &[StrategyId]) -> Option<StrategyIx> {
        self.strategies.find(hash(0, strategy.as_bytes()), |ix| strategies[*ix as usize] == *strategy).copied()
    }

    /// The place of a strategy; it gets one with its first mention.
    pub(crate) fn strategy_named(&mut self, strategy: StrategyId, strategies: &mut Vec<StrategyId>) -> StrategyIx {
        self.strategy(&strategy, strategies).unwrap_or_else(|| {
            let ix = StrategyIx::try_from(strategies.len()).unwrap_or(StrategyIx::MAX);
            strategies.push(strategy);
            self.add_strategy(ix, strategies);
            ix
        })
    }

    fn add_strategy(&mut self, ix: StrategyIx, strategies: &[StrategyId]) {
        let hash_of = |ix: &StrategyIx| hash(0, strategies[*ix as usize].as_bytes());
        self.strategies.insert_unique(hash_of(&ix), ix, hash_of);
    }

    /// The slot of a used id.
    pub(crate) fn id(&self, kind: IntentKind, account: AccountIx, id: &ClientOrderId, accounts: &[Account]) -> Option<u32> {
        let wanted = |content: &Content| content.kind() == kind && content.id() == id;
        let book = &accounts[account as usize].orders;
        let same =
            |(owner, slot, _): &(AccountIx, u32, u64)| *owner == account && book.get(*slot).is_some_and(|entry| wanted(&entry.content));
        self.ids.find(id_hash(account, kind, id), same).map(|(_, slot, _)| *slot)
    }

    pub(crate) fn add_id(&mut self, account: AccountIx, slot: u32, content: &Content) {
        let hash = id_hash(account, content.kind(), content.id());
        self.ids.insert_unique(hash, (account, slot, hash), |(_, _, hash)| *hash);
    }

    pub(crate) fn forget_id(&mut self, account: AccountIx, slot: u32, content: &Content) {
        let hash = id_hash(account, content.kind(), content.id());
        if let Ok(entry) = self.ids.find_entry(hash, |other| (other.0, other.1) == (account, slot)) {
            entry.remove();
        }
    }

    /// The number of a remembered fill.
    pub(crate) fn fill(&self, account: AccountIx, exec_id: &ExecId, accounts: &[Account]) -> Option<u64> {
        let fills = &accounts[account as usize].fills;
        let same = |(owner, number, _): &(AccountIx, u64, u64)| {
            *owner == account && fills.get(*number).is_some_and(|fill| fill.exec_id == *exec_id)
        };
        self.fills.find(hash(u64::from(account) + 1, exec_id.as_bytes()), same).map(|(_, number, _)| *number)
    }

    pub(crate) fn add_fill(&mut self, account: AccountIx, number: u64, exec_id: &ExecId) {
        let hash = hash(u64::from(account) + 1, exec_id.as_bytes());
        self.fills.insert_unique(hash, (account, number, hash), |(_, _, hash)| *hash);
    }

    pub(crate) fn forget_fill(&mut self, account: AccountIx, number: u64, exec_id: &ExecId) {
        let hash = hash(u64::from(account) + 1, exec_id.as_bytes());
        if let Ok(entry) = self.fills.find_entry(hash, |other| (other.0, other.1) == (account, number)) {
            entry.remove();
        }
    }
}

fn id_hash(account: AccountIx, kind: IntentKind, id: &ClientOrderId) -> u64 {
    hash(u64::from(account) << 1 | u64::from(kind == IntentKind::Amend), id.as_bytes())
}

/// Fixed, so that growth happens at the same record in every run; the seed is no secret, since ids
/// come from producers that were let in.
fn hash(seed: u64, bytes: &[u8]) -> u64 {
    use std::hash::{BuildHasher, Hasher};
    let mut hasher = foldhash::fast::FixedState::with_seed(seed).build_hasher();
    hasher.write(bytes);
    hasher.finish()
}
