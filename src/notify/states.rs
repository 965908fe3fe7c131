//! What became of deliveries, for who asks: read from the directory, so that every instance knows, whichever delivers.
//!
//! Invariant: a segment is read again only when it has another version. Deliberately absent: what is older than the segments that are kept.

use std::collections::{BTreeMap, HashMap};

use super::Channel;
use super::raised::RaisedId;
use super::segment::{Item, SegmentKey, Stored};
use crate::control::directory::DirectoryService;
use crate::directory::Kind;

/// How far one delivery is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// Over which channel.
    pub channel: Channel,
    /// `pending`, `held`, `sent`, or why it is dead.
    pub state: &'static str,
    /// Attempts so far.
    pub attempts: u32,
    /// What the last one met.
    pub note: String,
}

/// What is known of deliveries.
#[derive(Debug, Default)]
pub struct States {
    segments: HashMap<SegmentKey, (u64, Vec<Item>)>,
}

impl States {
    /// Reads what has changed.
    pub fn refresh(&mut self, directory: &DirectoryService) {
        let entities = directory.list(Kind::Delivery);
        let there: BTreeMap<SegmentKey, _> = entities.iter().filter_map(|entity| Some((SegmentKey::parse(&entity.id)?, entity))).collect();
        self.segments.retain(|key, _| there.contains_key(key));
        for (key, entity) in there {
            if self.segments.get(&key).is_some_and(|(version, _)| *version == entity.version) {
                continue;
            }
            match serde_json::from_slice::<Stored>(&entity.body) {
                Ok(stored) => drop(self.segments.insert(key, (entity.version, stored.items))),
                Err(error) => tracing::error!(%error, id = entity.id, "deliveries in the directory cannot be read"),
            }
        }
    }

    /// A person's deliveries by notification.
    #[must_use]
    pub fn of(&self, user: &str) -> HashMap<RaisedId, Vec<Delivered>> {
        let mut found: HashMap<RaisedId, Vec<Delivered>> = HashMap::new();
        for item in self.segments.values().flat_map(|(_, items)| items).filter(|item| &*item.place.user == user) {
            let (state, note) = (item.state.as_str(), item.note.clone());
            found.entry(item.raised).or_default().push(Delivered { channel: item.place.channel, state, attempts: item.attempts, note });
        }
        for deliveries in found.values_mut() {
            deliveries.sort_by_key(|delivered| delivered.channel);
        }
        found
    }

    /// How many of a person's deliveries are how far, by channel.
    #[must_use]
    pub fn count(&self, user: &str) -> BTreeMap<&'static str, BTreeMap<&'static str, usize>> {
        let mut counts: BTreeMap<&'static str, BTreeMap<&'static str, usize>> = BTreeMap::new();
        for item in self.segments.values().flat_map(|(_, items)| items).filter(|item| &*item.place.user == user) {
            *counts.entry(item.place.channel.as_str()).or_default().entry(item.state.as_str()).or_default() += 1;
        }
        counts
    }
}
