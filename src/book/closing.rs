//! Episodes of breach, the closings within them, and the commands that closings send.
//!
//! Invariant: plain records; what they mean is in the gate (SEMANTICS section 6).

use serde::{Deserialize, Serialize};

use super::account::{RuleIx, SectorIx, SymbolIx};
use crate::domain::{Millis, Side};

/// What an episode is about, within its rule and account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Subject {
    /// The account.
    Account,
    /// One symbol of it.
    Symbol(SymbolIx),
    /// One sector of it.
    Sector(SectorIx),
}

/// The state of one rule about one subject. Forgotten when nothing of it is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Episode {
    /// The rule.
    pub rule: RuleIx,
    /// What it is about.
    pub subject: Subject,
    /// A breach began it, and nothing ended it yet.
    pub open: bool,
    /// A warning was raised, or a breach.
    pub warned: bool,
    /// The breach stays.
    pub latched: bool,
    /// A closing began in it, or was tried.
    pub closing_begun: bool,
    /// When asking (or the book, at a boundary) last breached or warned.
    pub last_reached: Millis,
}

impl Episode {
    /// A quiet one.
    #[must_use]
    pub const fn new(rule: RuleIx, subject: Subject) -> Self {
        Self { rule, subject, open: false, warned: false, latched: false, closing_begun: false, last_reached: 0 }
    }
}

/// Who closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Owner {
    /// A rule's episode.
    Rule(RuleIx, Subject),
    /// An operator's trading state with `flatten`: its place among the gate's states.
    Scope(u32),
}

/// A closing that lasts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Closing {
    /// Who closes.
    pub owner: Owner,
    /// What is closed; `None` = everything.
    pub symbol: Option<SymbolIx>,
    /// Tells this closing from earlier ones of its owner.
    pub number: u64,
    /// How many commands each symbol has had.
    pub sent: Vec<(SymbolIx, u32)>,
    /// `CLOSE_NOT_CONFIRMED` was raised.
    pub unconfirmed: bool,
}

/// What became of a close command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CommandState {
    /// Neither intent nor execution has answered it.
    Unanswered,
    /// Executions came under its id.
    Executing,
    /// An intent took it over.
    TakenOver,
    /// It is over.
    Ended,
}

/// A close command that was sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Command {
    /// The ledger sequence of its record.
    pub seq: u64,
    /// Its number among that record's commands.
    pub index: u32,
    /// The number of the closing that sent it.
    pub closing: u64,
    /// The symbol.
    pub symbol: SymbolIx,
    /// The side that reduces.
    pub side: Side,
    /// What executions have left of it.
    pub rest: i64,
    /// When it was sent.
    pub at: Millis,
    /// What became of it.
    pub state: CommandState,
}

impl Command {
    /// Whether nothing more comes of it.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        matches!(self.state, CommandState::Ended | CommandState::TakenOver)
    }

    /// What it covers of its position.
    #[must_use]
    pub const fn covers(&self) -> i64 {
        match self.state {
            CommandState::Unanswered | CommandState::Executing => self.rest,
            CommandState::TakenOver | CommandState::Ended => 0,
        }
    }
}
