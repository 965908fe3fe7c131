//! Passwords: which are taken, and their hashes.
//!
//! Invariant: at most two are hashed at once and a few wait, since each takes 19 MiB and tens of milliseconds; whoever comes beyond
//! that is told to come again. A password is never kept, logged or compared as text. Deliberately absent: rules about kinds of
//! characters; length and not being known is what counts (NIST SP 800-63B).

use std::collections::HashSet;
use std::sync::{Arc, OnceLock};

use argon2::{Algorithm, Argon2, Params, Version};
use base64::Engine;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use subtle::ConstantTimeEq;
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use super::random;

/// At least so many characters.
pub const CHARACTERS_MIN: usize = 12;
/// At most so many bytes: what is hashed has a bound.
pub const BYTES_MAX: usize = 256;
const MEMORY_KIB: u32 = 19_456;
const PASSES: u32 = 2;
const LANES: u32 = 1;
const SALT_BYTES: usize = 16;
const HASH_BYTES: usize = 32;
const AT_ONCE: usize = 2;
const WAITING_MAX: usize = 16;
/// The most common passwords of 12 characters and more, in lower case (Mark Burnett's ten million, and the lists of Django and zxcvbn).
const COMMON: &str = include_str!("common-passwords.txt");

/// Why a password is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Weakness {
    /// Too short.
    #[error("a password has at least {CHARACTERS_MIN} characters")]
    Short,
    /// Too long.
    #[error("a password has at most {BYTES_MAX} bytes")]
    Long,
    /// In the list, or nearly.
    #[error("the password is one of the most common ones")]
    Common,
    /// One or few characters over and over, or a run of neighbours.
    #[error("the password is a repetition or a sequence")]
    Pattern,
    /// The user's own name.
    #[error("the password contains the user's name")]
    Name,
}

/// Why a password was not looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HashError {
    /// Too many wait.
    #[error("too many passwords are being checked")]
    Busy,
    /// No random bits, or no memory.
    #[error("the password cannot be hashed")]
    Failed,
}

/// Whether a password may be used by this user.
///
/// # Errors
/// What is wrong with it.
pub fn check(password: &str, user: &str) -> Result<(), Weakness> {
    if password.len() > BYTES_MAX {
        return Err(Weakness::Long);
    }
    if password.chars().count() < CHARACTERS_MIN {
        return Err(Weakness::Short);
    }
    let lower = Zeroizing::new(password.to_lowercase());
    let core = lower.trim_matches(|c: char| !c.is_alphabetic());
    if common().contains(lower.as_str()) || common().contains(lower.trim()) || (core.len() >= CHARACTERS_MIN && common().contains(core)) {
        return Err(Weakness::Common);
    }
    if is_pattern(&lower) {
        return Err(Weakness::Pattern);
    }
    if user.len() >= 4 && lower.contains(&user.to_lowercase()) {
        return Err(Weakness::Name);
    }
    Ok(())
}

fn common() -> &'static HashSet<&'static str> {
    static SET: OnceLock<HashSet<&'static str>> = OnceLock::new();
    SET.get_or_init(|| COMMON.lines().collect())
}

/// Fewer than five different characters, or each the neighbour of the one before.
fn is_pattern(password: &str) -> bool {
    let different: HashSet<char> = password.chars().collect();
    let codes: Vec<i64> = password.chars().map(|c| i64::from(u32::from(c))).collect();
    let steps = |step: i64| codes.windows(2).filter(|pair| pair[1] - pair[0] == step).count();
    different.len() < 5 || steps(1).max(steps(-1)) + 3 >= codes.len()
}

/// What hashes and compares.
pub struct Hasher {
    working: Arc<Semaphore>,
    places: Arc<Semaphore>,
    nobody: String,
}

impl Hasher {
    /// A hasher with an empty queue.
    ///
    /// # Errors
    /// There are no random bits.
    pub fn new() -> Result<Self, HashError> {
        let salt = random::bytes::<SALT_BYTES>().map_err(|_| HashError::Failed)?;
        let phc = phc(&Cost::OURS, &salt, &[0; HASH_BYTES]);
        Ok(Self { working: Arc::new(Semaphore::new(AT_ONCE)), places: Arc::new(Semaphore::new(AT_ONCE + WAITING_MAX)), nobody: phc })
    }

    /// The hash of a new password, as a PHC string.
    ///
    /// # Errors
    /// Too many wait, or there are no random bits.
    pub async fn hash(&self, password: Zeroizing<String>) -> Result<String, HashError> {
        self.work(move || hash_now(&password)).await?
    }

    /// Whether this is the password of that hash. Without a hash it takes as long, and it is not.
    ///
    /// # Errors
    /// Too many wait.
    pub async fn verify(&self, password: Zeroizing<String>, hash: Option<&str>) -> Result<bool, HashError> {
        let known = hash.is_some();
        let hash = hash.unwrap_or(&self.nobody).to_owned();
        let same = self.work(move || verify_now(&password, &hash)).await?;
        Ok(same && known)
    }

    async fn work<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, HashError> {
        let place = self.places.clone().try_acquire_owned().map_err(|_| HashError::Busy)?;
        let turn = self.working.clone().acquire_owned().await.map_err(|_| HashError::Failed)?;
        let done = tokio::task::spawn_blocking(move || {
            // Held until the work ends, also when whoever asked has gone.
            let (_place, _turn) = (place, turn);
            work()
        });
        done.await.map_err(|_| HashError::Failed)
    }
}

/// The hash of a new password, here and now.
///
/// # Errors
/// There are no random bits or no memory.
pub fn hash_now(password: &str) -> Result<String, HashError> {
    let salt = random::bytes::<SALT_BYTES>().map_err(|_| HashError::Failed)?;
    let hash = Cost::OURS.derive(password, &salt).ok_or(HashError::Failed)?;
    Ok(phc(&Cost::OURS, &salt, &*hash))
}

/// Whether this is the password of that PHC string.
fn verify_now(password: &str, hash: &str) -> bool {
    let Some((cost, salt, expected)) = parse_phc(hash) else { return false };
    cost.derive(password, &salt).is_some_and(|derived| derived.as_slice().ct_eq(expected.as_slice()).into())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cost {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

impl Cost {
    const OURS: Self = Self { memory_kib: MEMORY_KIB, passes: PASSES, lanes: LANES };
    /// A record may not make us work for ever.
    const MOST: Self = Self { memory_kib: 65_536, passes: 8, lanes: 4 };

    fn derive(self, password: &str, salt: &[u8]) -> Option<Zeroizing<[u8; HASH_BYTES]>> {
        let params = Params::new(self.memory_kib, self.passes, self.lanes, Some(HASH_BYTES)).ok()?;
        let mut out = Zeroizing::new([0; HASH_BYTES]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params).hash_password_into(password.as_bytes(), salt, out.as_mut()).ok()?;
        Some(out)
    }

    fn within(self, most: Self) -> bool {
        self.memory_kib <= most.memory_kib && self.passes <= most.passes && self.lanes <= most.lanes
    }
}

fn phc(cost: &Cost, salt: &[u8], hash: &[u8]) -> String {
    let Cost { memory_kib, passes, lanes } = cost;
    let (salt, hash) = (BASE64_STANDARD_NO_PAD.encode(salt), BASE64_STANDARD_NO_PAD.encode(hash));
    format!("$argon2id$v=19$m={memory_kib},t={passes},p={lanes}${salt}${hash}")
}

fn parse_phc(text: &str) -> Option<(Cost, Vec<u8>, Vec<u8>)> {
    let mut parts = text.strip_prefix("$argon2id$v=19$")?.split('$');
    let (costs, salt, hash) = (parts.next()?, parts.next()?, parts.next()?);
    let mut costs = costs.split(',');
    let mut number = |name: &str| costs.next()?.strip_prefix(name)?.parse::<u32>().ok();
    let cost = Cost { memory_kib: number("m=")?, passes: number("t=")?, lanes: number("p=")? };
    let (salt, hash) = (BASE64_STANDARD_NO_PAD.decode(salt).ok()?, BASE64_STANDARD_NO_PAD.decode(hash).ok()?);
    (parts.next().is_none() && hash.len() == HASH_BYTES && cost.within(Cost::MOST)).then_some((cost, salt, hash))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_is_short_long_common_patterned_or_the_name() {
        for (password, weakness) in [
            ("elevenchars", Weakness::Short),
            ("ünfzehn", Weakness::Short),
            (&*"long pass ".repeat(26), Weakness::Long),
            ("password1234", Weakness::Common),
            ("PassWord1234", Weakness::Common),
            ("qwertyuiop123", Weakness::Common),
            ("kkkkkkkkkkkkkkkkkkkkkkkkkk", Weakness::Pattern),
            ("xyxyxyxyxyxyxyxz", Weakness::Pattern),
            ("bcdefghijklmnop", Weakness::Pattern),
            ("my name is alice!", Weakness::Name),
        ] {
            assert_eq!(check(password, "Alice"), Err(weakness), "{password}");
        }
        for password in ["correct horse battery staple", "käse mit brot 7", "b9-tRq.2+xLm"] {
            assert_eq!(check(password, "alice"), Ok(()), "{password}");
        }
    }

    #[test]
    fn the_list_is_lower_case_sorted_and_long_enough() {
        let lines: Vec<&str> = COMMON.lines().collect();
        assert!(lines.len() >= 10_000);
        assert!(lines.iter().all(|line| line.len() >= CHARACTERS_MIN && *line == line.to_lowercase()));
        assert!(lines.windows(2).all(|pair| pair[0] < pair[1]));
    }

    #[test]
    fn a_hash_is_of_its_password_only_and_says_what_it_cost() {
        let hash = hash_now("correct horse battery staple").unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert!(verify_now("correct horse battery staple", &hash));
        assert!(!verify_now("correct horse battery stapl", &hash));
        assert_ne!(hash, hash_now("correct horse battery staple").unwrap());
        for broken in ["", "x", &hash[..hash.len() - 1], &hash.replace("argon2id", "argon2i"), &hash.replace("m=19456", "m=4000000")] {
            assert!(!verify_now("correct horse battery staple", broken), "{broken}");
        }
    }

    /// The vector of RFC 9106 has other costs; this one was made with the reference implementation (`argon2 -id -t 2 -k 19456 -p 1`).
    #[test]
    fn the_hash_is_that_of_the_reference_implementation() {
        let derived = Cost::OURS.derive("correct horse battery staple", b"somesaltsomesalt").unwrap();
        let hex: String = derived.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, REFERENCE);
    }

    const REFERENCE: &str = "2123bb924bc5ce1d7d18cf2a07ba5ab4ddc2dd8f471ec8e55537c467d4fad346";

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn who_comes_when_the_queue_is_full_is_told_so_and_the_others_are_served() {
        let hasher = Arc::new(Hasher::new().unwrap());
        let ask = |hasher: Arc<Hasher>| async move { hasher.verify(Zeroizing::new("a password".to_owned()), None).await };
        let asked: Vec<_> = (0..AT_ONCE + WAITING_MAX + 6).map(|_| tokio::spawn(ask(hasher.clone()))).collect();
        let mut told = Vec::new();
        for answer in asked {
            told.push(answer.await.unwrap());
        }
        assert!(told.iter().all(|answer| matches!(answer, Ok(false) | Err(HashError::Busy))));
        assert!(told.iter().filter(|answer| answer.is_ok()).count() >= AT_ONCE + WAITING_MAX);
        assert!(told.contains(&Err(HashError::Busy)));
        assert_eq!(ask(hasher).await, Ok(false));
    }
}
