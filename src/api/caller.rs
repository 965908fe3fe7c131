//! Who asks, and what they may do. (Stands in for the identity helper's file of this name until it is merged.)

use std::net::IpAddr;

use crate::domain::Millis;
use crate::engine::{Clock, SystemClock};

use super::problem::{ApiCode, Problem};

/// Whoever asks.
#[derive(Clone)]
pub struct Caller {
    /// What records and the audit call them.
    pub name: String,
    /// The accounts that they may know of; `None` = all.
    pub view: Option<Vec<String>>,
    /// The accounts that they may act for; `None` = all.
    pub own: Option<Vec<String>>,
    /// They administer.
    pub admin: bool,
    /// From where they ask.
    pub address: IpAddr,
}

impl Caller {
    /// The built-in admin of the open mode.
    #[must_use]
    pub fn open(address: IpAddr) -> Self {
        Self { name: "local".to_owned(), view: None, own: None, admin: true, address }
    }

    /// Whether they may know of this account.
    #[must_use]
    pub fn may_read(&self, account: &str) -> bool {
        self.view.as_ref().is_none_or(|view| view.iter().any(|other| other == account))
    }

    /// Whether they may act for this account.
    #[must_use]
    pub fn may_write(&self, account: &str) -> bool {
        self.own.as_ref().is_none_or(|own| own.iter().any(|other| other == account))
    }

    /// Whether they administer.
    #[must_use]
    pub fn is_admin(&self) -> bool {
        self.admin
    }

    /// Refuses who does not administer.
    ///
    /// # Errors
    /// They do not.
    pub fn require_admin(&self) -> Result<(), Problem> {
        if self.is_admin() { Ok(()) } else { Err(Problem::new(ApiCode::Forbidden, "this needs the role admin")) }
    }
}

/// The machine's clock.
#[must_use]
pub fn now() -> Millis {
    SystemClock::new().wall_ms()
}
