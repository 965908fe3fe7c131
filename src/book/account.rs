//! One account's whole book.
//!
//! Invariant: positions are sorted by symbol number and never removed; everything that decisions
//! about the account depend on, beside the market and the rules, is here.

use serde::{Deserialize, Serialize};

use super::closing::{Closing, Command, CommandState, Episode, Subject};
use super::fills::FillMemory;
use super::orders::Orders;
use super::position::Position;
use crate::domain::{AccountId, Currency, Limits, Millis, Money, OwnerId, Side, TradingState};

/// The place of an account, in the order of opening.
pub type AccountIx = u32;
/// The place of a symbol, in the order of its first mention.
pub type SymbolIx = u32;
/// The place of a strategy, likewise.
pub type StrategyIx = u32;
/// The place of a sector, likewise.
pub type SectorIx = u32;
/// The place of a rule.
pub type RuleIx = u32;

/// What a day's summary counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DayCounts {
    /// Intents and amends allowed in full.
    pub allowed: u64,
    /// Intents allowed in part.
    pub reduced: u64,
    /// Intents and amends blocked.
    pub blocked: u64,
    /// Fills.
    pub fills: u64,
}

/// One account.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Account {
    /// Its id.
    pub id: AccountId,
    /// The person that it belongs to.
    pub owner: OwnerId,
    /// Its currency.
    pub currency: Currency,
    /// Its cash.
    pub cash: Money,
    /// Its equity when the day began.
    pub sod: Money,
    /// Its high-water mark.
    pub hwm: Money,
    /// The day's net external flows.
    pub flows: Money,
    /// What it set of its limits.
    pub limits: Limits,
    /// Its place among the times at which days end.
    pub roll: u32,
    /// When a day ended whose equity is not known yet.
    pub missed_roll: Option<Millis>,
    /// It takes no more intents.
    pub closed: bool,
    /// Its own trading state.
    pub state: TradingState,
    /// It becomes halted when it is flat with nothing working.
    pub halts_when_flat: bool,
    /// The next boundary must look at it.
    pub due: bool,
    /// Its positions, sorted by symbol number.
    pub positions: Vec<Position>,
    /// Its ids and working orders.
    pub orders: Orders,
    /// Its fills.
    pub fills: FillMemory,
    /// Its episodes, in the order in which they began.
    pub episodes: Vec<Episode>,
    /// The closings that last.
    pub closings: Vec<Closing>,
    /// How many closings ever began.
    pub closings_begun: u64,
    /// Its close commands, the oldest first.
    pub commands: Vec<Command>,
    /// What its day's summary counts.
    pub counts: DayCounts,
}

impl Account {
    /// The position in a symbol, if it was ever traded.
    #[must_use]
    pub fn position(&self, symbol: SymbolIx) -> Option<&Position> {
        self.place(symbol).ok().and_then(|place| self.positions.get(place))
    }

    /// Where the position in a symbol stands, or would.
    ///
    /// # Errors
    /// The place where it would stand, if there is none.
    pub fn place(&self, symbol: SymbolIx) -> Result<usize, usize> {
        // Most accounts hold few symbols, and reading them in a row beats a search.
        if self.positions.len() <= 16 {
            return match self.positions.iter().position(|position| position.symbol >= symbol) {
                Some(place) if self.positions[place].symbol == symbol => Ok(place),
                Some(place) => Err(place),
                None => Err(self.positions.len()),
            };
        }
        self.positions.binary_search_by_key(&symbol, |position| position.symbol)
    }

    /// The place of the position in a symbol; made if there is none.
    pub fn place_or_new(&mut self, symbol: SymbolIx) -> usize {
        match self.place(symbol) {
            Ok(place) => place,
            Err(place) => {
                self.positions.insert(place, Position::new(symbol));
                place
            }
        }
    }

    /// Whether nothing is held and nothing works.
    #[must_use]
    pub fn is_flat(&self) -> bool {
        !self.positions.iter().any(Position::is_open)
    }

    /// The episode of a rule about a subject.
    #[must_use]
    pub fn episode(&self, rule: RuleIx, subject: Subject) -> Option<&Episode> {
        self.episodes.iter().find(|episode| episode.rule == rule && episode.subject == subject)
    }

    /// What is neither working to reduce the position nor commanded: may be 0.
    #[must_use]
    pub fn uncovered(&self, position: &Position) -> i64 {
        let Some(side) = position.reducing_side() else { return 0 };
        let held = i128::from(position.holding.qty).abs();
        let working = i128::from(position.leaves(side));
        let commanded: i128 = self.commands_of(position, side).map(|command| i128::from(command.covers())).sum();
        i64::try_from((held - working - commanded).max(0)).unwrap_or(i64::MAX)
    }

    fn commands_of<'a>(&'a self, position: &'a Position, side: Side) -> impl Iterator<Item = &'a Command> {
        self.commands.iter().filter(move |command| command.symbol == position.symbol && command.side == side)
    }

    /// Ends the commands of a symbol whose position no longer needs them: flat, or flipped.
    pub fn end_commands_that_reduce_nothing(&mut self, symbol: SymbolIx) {
        let reducing = self.position(symbol).and_then(Position::reducing_side);
        for command in self.commands.iter_mut().filter(|command| command.symbol == symbol && Some(command.side) != reducing) {
            command.state = CommandState::Ended;
        }
    }
}
