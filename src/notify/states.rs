//! What became of deliveries, for who asks: read from the directory, so that every instance knows, whichever delivers.
//!
//! Invariant: a segment is read again only when it has another version. Deliberately absent: what is older than the segments that are kept.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::Channel;
use super::delivery::Place;
use super::raised::{Raised, RaisedId};
use super::segment::{Item, SegmentKey, Stored};
use crate::control::directory::DirectoryService;
use crate::directory::Kind;

/// How far one delivery is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// Over which channel.
    pub channel: Channel,
    /// `pending`, `held`, `sent`, [`SUMMARISED`], or why it is dead.
    pub state: &'static str,
    /// Attempts so far.
    pub attempts: u32,
    /// What the last one met.
    pub note: String,
}

/// There were too many for one of its own: a digest says how many.
pub const SUMMARISED: &str = "summarised";

/// What is known of deliveries.
#[derive(Debug, Default)]
pub struct States {
    segments: HashMap<SegmentKey, (u64, Vec<Item>)>,
}

impl States {
    #[cfg(test)]
    pub(super) fn holding(items: Vec<Item>) -> Self {
        Self { segments: HashMap::from([(SegmentKey { partition: 0, number: 0 }, (1, items))]) }
    }

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

    /// A person's deliveries by notification; of those in the inbox also that they are counted in a summary.
    #[must_use]
    pub fn of(&self, user: &str, inbox: &[Arc<Raised>]) -> HashMap<RaisedId, Vec<Delivered>> {
        let mut found: HashMap<RaisedId, Vec<Delivered>> = HashMap::new();
        let own = |item: &&Item| &*item.place.user == user;
        let items = || self.segments.values().flat_map(|(_, items)| items).filter(own);
        let mut summaries = items().filter(|item| item.counted.is_some()).peekable();
        let one_by_one: HashSet<(RaisedId, &Place)> =
            if summaries.peek().is_some() { items().map(|item| (item.raised, &item.place)).collect() } else { HashSet::new() };
        for summary in summaries {
            let counted = inbox.iter().filter(|raised| summary.counts(raised) && !one_by_one.contains(&(raised.id, &summary.place)));
            for raised in counted {
                let delivered = Delivered { channel: summary.place.channel, state: SUMMARISED, attempts: 0, note: String::new() };
                found.entry(raised.id).or_default().push(delivered);
            }
        }
        for item in items() {
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
            let states = counts.entry(item.place.channel.as_str()).or_default();
            *states.entry(item.state.as_str()).or_default() += 1;
            if item.more > 0 {
                *states.entry(SUMMARISED).or_default() += usize::try_from(item.more).unwrap_or(usize::MAX);
            }
        }
        counts
    }
}
