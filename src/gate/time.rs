//! A record first moves time: boundaries of the valuation grid, ends of trading days (SEMANTICS section 2).
//!
//! Invariant: everything here sees the prices before the record. Accounts come in the order in which
//! they were opened, and only those with something to look at.

use super::Gate;
use super::desk::Desk;
use super::turn::Turn;
use crate::book::AccountIx;
use crate::domain::Millis;

impl Gate {
    /// Moves time from the previous record's to this one's.
    pub(super) fn move_time(&mut self, before: Millis, turn: &mut Turn<'_>) {
        let at = turn.at;
        let grid = self.shared.settings.valuation_grid_ms.max(1);
        let last = at.div_euclid(grid).saturating_mul(grid);
        let crossed = last > before;
        let rolled = self.shared.rolls.iter().any(|roll| roll.next.is_some_and(|next| next <= at));
        if before == Millis::MIN || !(crossed || rolled) {
            return;
        }
        let mut who = self.accounts_due(crossed, rolled, at);
        for ix in who.drain(..) {
            self.is_due[ix as usize] = false;
            let account = &mut self.accounts[ix as usize];
            let roll = self.shared.rolls.get(account.roll as usize).and_then(|roll| roll.next).filter(|next| *next <= at);
            let mut desk = Desk { shared: &self.shared, account, ix, turn };
            let earlier = roll.map(|roll| (roll, (roll - 1).div_euclid(grid).saturating_mul(grid)));
            if let Some((roll, boundary)) = earlier {
                if boundary > before {
                    desk.boundary(boundary);
                }
                desk.roll_day(roll);
            }
            if crossed && earlier.is_none_or(|(roll, _)| last >= roll) {
                desk.boundary(last);
            }
        }
        self.spare = who;
        for roll in self.shared.rolls.iter_mut().filter(|roll| roll.next.is_some_and(|next| next <= at)) {
            roll.next = roll.roll.next_after(at);
        }
        if crossed {
            for rule in self.shared.rules.iter_mut().flatten() {
                rule.fresh = false;
            }
        }
    }

    /// The accounts that a boundary or a roll must look at, in the order of opening.
    fn accounts_due(&mut self, crossed: bool, rolled: bool, at: Millis) -> Vec<AccountIx> {
        let mut who = std::mem::take(&mut self.spare);
        if crossed {
            who.append(&mut self.due);
            for symbol in self.moved_symbols.drain(..) {
                let state = &mut self.shared.symbols[symbol as usize];
                state.moved = false;
                for ix in &state.holders {
                    if !std::mem::replace(&mut self.is_due[*ix as usize], true) {
                        who.push(*ix);
                    }
                }
            }
        }
        if rolled {
            let ended: Vec<bool> = self.shared.rolls.iter().map(|roll| roll.next.is_some_and(|next| next <= at)).collect();
            let rolling = |account: &&crate::book::Account| ended.get(account.roll as usize).copied().unwrap_or(false);
            who.extend((0..).zip(&self.accounts).filter(|(_, account)| rolling(account)).map(|(ix, _): (AccountIx, _)| ix));
            self.due.retain(|ix| !rolling(&&self.accounts[*ix as usize]));
        }
        who.sort_unstable();
        who.dedup();
        who
    }
}
