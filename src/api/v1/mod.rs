//! Version 1 of the API: one file for each resource.

pub mod account_writes;
pub mod accounts;
pub mod books;
pub mod decisions;
pub mod instruments;
pub mod json;
pub mod page;
pub mod portfolio_risk;
pub mod risk_checks;
pub mod risk_rules;
pub mod system;
pub mod versions;
pub mod words;
