//! Floor 1, the books: positions, orders, fills, commands and episodes of one account.
//!
//! Invariant: a book changes only by its own methods, each of which either does all of its work or,
//! where a result would leave its type, none of it.

mod account;
mod closing;
mod exposure;
mod fills;
mod orders;
mod position;

pub use account::{Account, AccountIx, DayCounts, RuleIx, SectorIx, StrategyIx, SymbolIx};
pub use closing::{Closing, Command, CommandState, Episode, Owner, Subject};
pub use exposure::{Blind, Known, Leg, worst_case_quantity, worst_case_value};
pub use fills::{FillMemory, FillValues, Filled, RememberedFill};
pub use orders::{Content, Entry, Legs, OrderContent, Orders, Status};
pub use position::{Holding, NONE, Position, scale_quantity};
