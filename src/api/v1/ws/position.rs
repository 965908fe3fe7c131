//! Positions: how far a client has seen a channel.
//!
//! Invariant: a position is the whole of what a subscription has said up to it, of all shards, so the last one alone resumes it. One
//! position has one spelling. Deliberately absent: what is still kept behind a position.

use std::collections::BTreeMap;

use crate::api::problem::{ApiCode, Problem};
use crate::domain::Millis;
use crate::notify::RaisedId;

/// A text that is no position of the channel.
fn none() -> Problem {
    Problem::new(ApiCode::InvalidField, "no position of this channel").field("resume")
}

/// Digits alone, without a leading zero.
fn number(text: &str) -> Option<u64> {
    let plain = text == "0" || (!text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit()));
    if plain { text.parse().ok() } else { None }
}

fn place(text: &str) -> Option<(u32, u64)> {
    let (shard, seq) = text.split_once(':')?;
    Some((u32::try_from(number(shard)?).ok()?, number(seq)?))
}

/// How many records of each shard: `0:1842,1:77`.
#[must_use]
pub fn of_seqs(seqs: &[u64]) -> String {
    let places: Vec<String> = seqs.iter().enumerate().map(|(shard, seq)| format!("{shard}:{seq}")).collect();
    places.join(",")
}

/// Reads [`of_seqs`], of so many shards.
///
/// # Errors
/// It is none.
pub fn seqs(text: &str, shards: usize) -> Result<Vec<u64>, Problem> {
    let places: Option<Vec<(u32, u64)>> = text.split(',').map(place).collect();
    let places = places.filter(|places| places.len() == shards).ok_or_else(none)?;
    let in_order = (0..).zip(&places).all(|(shard, (named, _))| shard == *named);
    if in_order { Ok(places.into_iter().map(|(_, seq)| seq).collect()) } else { Err(none()) }
}

/// The records of one shard: `1:77`.
#[must_use]
pub fn of_seq(shard: u32, seq: u64) -> String {
    format!("{shard}:{seq}")
}

/// Reads [`of_seq`] of a shard.
///
/// # Errors
/// It is none, or of another shard.
pub fn seq(text: &str, shard: u32) -> Result<u64, Problem> {
    place(text).filter(|(named, _)| *named == shard).map(|(_, seq)| seq).ok_or_else(none)
}

/// The newest notification of each shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heard(BTreeMap<u32, RaisedId>);

impl Heard {
    /// Whether a notification is behind it.
    #[must_use]
    pub fn lacks(&self, id: RaisedId) -> bool {
        self.0.get(&id.shard).is_none_or(|newest| *newest < id)
    }

    /// Goes on to a notification.
    pub fn take(&mut self, id: RaisedId) {
        if self.lacks(id) {
            self.0.insert(id.shard, id);
        }
    }

    /// The newest of a shard.
    #[must_use]
    pub fn of(&self, shard: u32) -> Option<RaisedId> {
        self.0.get(&shard).copied()
    }

    /// `0-1842-n0,1-77-n2`; empty before the first.
    #[must_use]
    pub fn text(&self) -> String {
        let ids: Vec<String> = self.0.values().map(ToString::to_string).collect();
        ids.join(",")
    }

    /// Reads its text.
    ///
    /// # Errors
    /// It is none.
    pub fn read(text: &str) -> Result<Self, Problem> {
        let mut heard = Self::default();
        for part in text.split(',').filter(|_| !text.is_empty()) {
            let id = RaisedId::parse(part).ok_or_else(none)?;
            if heard.0.last_key_value().is_some_and(|(shard, _)| *shard >= id.shard) {
                return Err(none());
            }
            heard.0.insert(id.shard, id);
        }
        Ok(heard)
    }
}

/// Reads where a bar begins, in ms since the epoch.
///
/// # Errors
/// It is none.
pub fn bar(text: &str) -> Result<Millis, Problem> {
    number(text).and_then(|start| Millis::try_from(start).ok()).ok_or_else(none)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_of_records_names_every_shard_once_and_in_order() {
        assert_eq!(of_seqs(&[1842, 77]), "0:1842,1:77");
        assert_eq!(seqs("0:1842,1:77", 2).unwrap(), [1842, 77]);
        for bad in
            ["", "0:1", "0:1,1:2,2:3", "1:1,0:2", "0:1,0:2", "0:01,1:2", "0:+1,1:2", "0:1;1:2", "0:1,1:", "0:1,1:18446744073709551616"]
        {
            assert_eq!(seqs(bad, 2).unwrap_err().code(), ApiCode::InvalidField, "{bad}");
        }
        assert_eq!(seq("1:77", 1).unwrap(), 77);
        assert!(seq("0:77", 1).is_err() && seq("77", 1).is_err() && seq("1:77,2:1", 1).is_err());
    }

    #[test]
    fn a_position_of_notifications_tells_what_is_new_by_shard() {
        let heard = Heard::read("0-10-n1,2-5-n0").unwrap();
        assert_eq!(heard.text(), "0-10-n1,2-5-n0");
        let id = |text: &str| RaisedId::parse(text).unwrap();
        assert!(!heard.lacks(id("0-10-n1")) && !heard.lacks(id("0-9-n7")) && !heard.lacks(id("2-5-n0")));
        assert!(heard.lacks(id("0-10-n2")) && heard.lacks(id("0-11-n0")) && heard.lacks(id("1-1-n0")));
        assert_eq!(Heard::read("").unwrap(), Heard::default());
        for bad in ["0-1", "0-1-n0,0-2-n0", "2-1-n0,1-1-n0", ",", "0-1-n0,"] {
            assert!(Heard::read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_position_of_bars_is_where_one_begins() {
        assert_eq!(bar("1772811000000").unwrap(), 1_772_811_000_000);
        assert_eq!(bar("0").unwrap(), 0);
        assert!(bar("-1").is_err() && bar("").is_err() && bar("1.5").is_err() && bar("99999999999999999999").is_err());
    }
}
