//! How often one may ask.
//!
//! Invariant: who asks too often hears 429 and when to come again, and costs nothing more than that. An IPv6 customer has a /64, so
//! that is one address here. Deliberately absent: fairness between instances; each counts for itself.

use std::hash::Hash;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

use super::problem::{ApiCode, Problem};

/// Above so many keys, those that are at rest are forgotten.
const KEYS_MAX: usize = 10_000;

/// The limits of one listener.
pub struct Rates {
    identities: DefaultKeyedRateLimiter<String>,
    addresses: DefaultKeyedRateLimiter<IpAddr>,
    login_addresses: DefaultKeyedRateLimiter<IpAddr>,
    /// By their hashes: who types a password where a name belongs leaves none here.
    login_names: DefaultKeyedRateLimiter<[u8; 32]>,
}

impl Rates {
    /// So many requests a second of one identity (of one address twice as many), and so many logins a minute from one address or
    /// (three times as many) for one name.
    #[must_use]
    pub fn new(requests_per_second: u32, logins_per_minute: u32) -> Self {
        let at_least_one = |number: u32| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
        let second = |number: u32| Quota::per_second(at_least_one(number));
        let minute = |number: u32| Quota::per_minute(at_least_one(number));
        Self {
            identities: RateLimiter::keyed(second(requests_per_second)),
            addresses: RateLimiter::keyed(second(requests_per_second.saturating_mul(2))),
            login_addresses: RateLimiter::keyed(minute(logins_per_minute)),
            login_names: RateLimiter::keyed(minute(logins_per_minute.saturating_mul(3))),
        }
    }

    /// Counts a request of an identity.
    ///
    /// # Errors
    /// It asks too often.
    pub fn identity(&self, name: &str) -> Result<(), Problem> {
        check(&self.identities, &name.to_owned(), "requests of this identity")
    }

    /// Counts a request from an address.
    ///
    /// # Errors
    /// It asks too often.
    pub fn address(&self, address: IpAddr) -> Result<(), Problem> {
        check(&self.addresses, &network(address), "requests from this address")
    }

    /// Counts a try to prove who one is by a password, for that name.
    ///
    /// # Errors
    /// Too many tries.
    pub fn login(&self, address: IpAddr, name: &str) -> Result<(), Problem> {
        check(&self.login_addresses, &network(address), "logins from this address")?;
        check(&self.login_names, blake3::hash(name.as_bytes()).as_bytes(), "logins of this name")
    }
}

impl Default for Rates {
    fn default() -> Self {
        Self::new(1_000, 10)
    }
}

fn check<K: Hash + Eq + Clone>(limiter: &DefaultKeyedRateLimiter<K>, key: &K, of: &str) -> Result<(), Problem> {
    if limiter.len() > KEYS_MAX {
        limiter.retain_recent();
    }
    limiter.check_key(key).map_err(|not_until| {
        let wait = not_until.wait_time_from(DefaultClock::default().now());
        let seconds = wait.max(Duration::from_millis(1)).as_millis().div_ceil(1_000);
        let seconds = u64::try_from(seconds).unwrap_or(u64::MAX);
        Problem::new(ApiCode::TooManyRequests, format!("too many {of}")).with("retry_after_seconds", seconds)
    })
}

/// The address, or the /64 that it lies in.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(six) => match six.to_ipv4_mapped() {
            Some(four) => IpAddr::V4(four),
            None => IpAddr::V6((six.to_bits() >> 64 << 64).into()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_too_often_hears_when_to_come_again_and_others_do_not() {
        let rates = Rates::new(2, 1);
        let (here, there) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        assert!(rates.identity("alice").is_ok() && rates.identity("alice").is_ok());
        let refused = rates.identity("alice").unwrap_err();
        assert_eq!(refused.code(), ApiCode::TooManyRequests);
        assert_eq!(refused.body()["retry_after_seconds"], 1);
        assert!(rates.identity("bob").is_ok());
        assert!(rates.login(here, "alice").is_ok());
        assert!(rates.login(here, "bob").unwrap_err().body()["retry_after_seconds"].as_u64().unwrap() > 30);
        assert!(rates.login(there, "alice").is_ok());
    }

    #[test]
    fn a_name_that_is_tried_from_everywhere_is_limited_too() {
        let rates = Rates::new(1, 1);
        let tried: Vec<bool> = (0..5).map(|last| rates.login(IpAddr::from([10, 0, 0, last]), "alice").is_ok()).collect();
        assert_eq!(tried, [true, true, true, false, false]);
    }

    #[test]
    fn an_ipv6_customer_is_one_address() {
        let at = |text: &str| network(text.parse().unwrap());
        assert_eq!(at("2001:db8:1:2:3::4"), at("2001:db8:1:2:ffff::1"));
        assert_ne!(at("2001:db8:1:2::1"), at("2001:db8:1:3::1"));
        assert_eq!(at("::ffff:10.0.0.1"), at("10.0.0.1"));
    }
}
