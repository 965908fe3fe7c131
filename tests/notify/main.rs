//! Notifications over real protocols on loopback: SMTP with STARTTLS, signed webhooks, Web Push, an interface for text messages; each
//! receiver judges with somebody else's code. And all of it through outages, a kill and a restart.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test ends at what it did not expect")]

mod api;
mod channels;
#[path = "../daemon/mod.rs"]
mod daemon;
mod end_to_end;
mod house;
mod outage;
mod receiver;
mod smtp;
mod world;
