//! The consumer group that spreads the shards: who is in it, and what each was given.
//!
//! Invariant: what the group says is its suggestion; who owns a shard is in the ledger (`doctor/ledger.rs`).

use rdkafka::error::KafkaResult;
use rdkafka::groups::{GroupInfo, GroupMemberInfo};
use rdkafka::producer::Producer;
use serde::Serialize;

use crate::domain::InputTopic;
use crate::log::Topic;

use super::cluster::Cluster;

/// A consumer group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// `Stable`, `Empty`, `PreparingRebalance`, ..
    pub state: String,
    /// How it assigns.
    pub protocol: String,
    /// Its members.
    pub members: Vec<Member>,
}

/// A member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Member {
    /// The group's name of it; begins with `kafka.instance`.
    pub id: String,
    /// `kafka.group`-`kafka.instance`.
    pub client: String,
    /// From where it connects.
    pub host: String,
    /// The shards that it was given; `null` while the group rebalances.
    pub shards: Option<Vec<u32>>,
}

impl Cluster {
    /// The consumer group, if the cluster knows it.
    pub(super) fn group(&self) -> KafkaResult<Option<Group>> {
        let name = &self.options().group;
        let list = self.admin().client().fetch_group_list(Some(name), self.patience())?;
        Ok(list
            .groups()
            .iter()
            .find(|group| group.name() == name)
            .map(|group| described(group, self.name(Topic::Input(InputTopic::Intents)))))
    }
}

fn described(group: &GroupInfo, intents: &str) -> Group {
    let member = |member: &GroupMemberInfo| Member {
        id: member.id().to_owned(),
        client: member.client_id().to_owned(),
        host: member.client_host().to_owned(),
        shards: member.assignment().and_then(|bytes| partitions_in(bytes, intents)),
    };
    let members = group.members().iter().map(member).collect();
    Group { name: group.name().to_owned(), state: group.state().to_owned(), protocol: group.protocol().to_owned(), members }
}

/// The partitions of a topic in an assignment as members get it (`ConsumerProtocolAssignment`): a version, then topics with
/// their partitions.
fn partitions_in(assignment: &[u8], topic: &str) -> Option<Vec<u32>> {
    let mut bytes = Bytes(assignment);
    bytes.take::<2>()?;
    let mut found = Vec::new();
    for _ in 0..bytes.count()? {
        let name = bytes.text()?;
        for _ in 0..bytes.count()? {
            let partition = i32::from_be_bytes(bytes.take::<4>()?);
            if name == topic.as_bytes() {
                found.push(u32::try_from(partition).ok()?);
            }
        }
    }
    found.sort_unstable();
    Some(found)
}

/// Bytes of Kafka's protocol that are still to be read.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    fn count(&mut self) -> Option<u32> {
        u32::try_from(i32::from_be_bytes(self.take::<4>()?)).ok()
    }

    fn text(&mut self) -> Option<&'a [u8]> {
        let length = usize::from(u16::from_be_bytes(self.take::<2>()?));
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assignment(topics: &[(&str, &[i32])]) -> Vec<u8> {
        let mut bytes = vec![0, 1];
        bytes.extend(i32::try_from(topics.len()).unwrap().to_be_bytes());
        for (topic, partitions) in topics {
            bytes.extend(u16::try_from(topic.len()).unwrap().to_be_bytes());
            bytes.extend(topic.as_bytes());
            bytes.extend(i32::try_from(partitions.len()).unwrap().to_be_bytes());
            partitions.iter().for_each(|partition| bytes.extend(partition.to_be_bytes()));
        }
        bytes.extend((-1_i32).to_be_bytes());
        bytes
    }

    #[test]
    fn the_shards_of_a_member_are_read_from_its_assignment() {
        let bytes = assignment(&[("other", &[9]), ("orders.intents", &[3, 1])]);
        assert_eq!(partitions_in(&bytes, "orders.intents"), Some(vec![1, 3]));
        assert_eq!(partitions_in(&assignment(&[]), "orders.intents"), Some(vec![]));
    }

    #[test]
    fn an_assignment_that_is_cut_short_is_none() {
        let bytes = assignment(&[("orders.intents", &[3, 1])]);
        let body = bytes.len() - 4;
        for length in 0..body {
            assert_eq!(partitions_in(&bytes[..length], "orders.intents"), None, "cut to {length}");
        }
    }
}
