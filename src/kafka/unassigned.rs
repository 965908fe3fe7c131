//! Shards that the group has forgotten: no member has them, and no rebalance is on its way.
//!
//! Kafka keeps the place of a member with a name (`group.instance.id`) when it comes back, and gives the
//! last assignment to it without a rebalance. In a cooperative rebalance a shard that moves is in nobody's
//! assignment until its old owner has joined a second time: an owner that dies in between and comes back leaves
//! it there, for as long as nobody else joins or leaves.
//!
//! Invariant: whoever looks changes nothing but by joining the group for a moment, which makes it assign
//! anew. Deliberately absent: any choice of who gets a shard.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use metrics::counter;
use rdkafka::consumer::{BaseConsumer, Consumer, Rebalance};

use crate::domain::InputTopic;
use crate::log::Topic;
use crate::telemetry;

use super::KafkaOptions;
use super::client::{Context, Listener};
use super::cluster::Cluster;
use super::error::not_created;
use super::group::{Group, Member};
use super::membership::GroupError;
use super::settings::{Role, client_config};

/// How often the group is asked.
const LOOK: Duration = Duration::from_secs(3);
/// Looks in a row that find the same shards without a member, before anything is done: a shard that is handed over
/// has none for as long as that takes.
const LOOKS: u32 = 3;
/// How long a rebalance may take.
const REBALANCE_MAX: Duration = Duration::from_secs(30);

/// Looks until `stop` is closed.
pub(super) fn watch(cluster: &Cluster, stop: &Receiver<()>) {
    let mut forgotten = (BTreeSet::new(), 0);
    while matches!(stop.recv_timeout(LOOK), Err(RecvTimeoutError::Timeout)) {
        let found = match cluster.group() {
            Ok(Some(group)) if is_ours_to_mend(&group, cluster.options()) => without_member(&group, cluster.options().shards),
            Ok(_) => BTreeSet::new(),
            Err(error) => {
                tracing::debug!(%error, "the group cannot be asked");
                continue;
            }
        };
        let looks = if found == forgotten.0 { forgotten.1 + 1 } else { 1 };
        forgotten = (found, looks);
        if forgotten.0.is_empty() || looks < LOOKS {
            continue;
        }
        tracing::warn!(shards = ?forgotten.0, "the group gives these shards to nobody: it is made to assign anew");
        counter!(telemetry::KAFKA_REBALANCES_FORCED).increment(1);
        if let Err(error) = rebalance(cluster) {
            tracing::warn!(%error, "the group could not be made to assign anew yet");
        }
        forgotten = (BTreeSet::new(), 0);
    }
}

/// The member whose id comes first mends, so that not all do at once.
fn is_ours_to_mend(group: &Group, options: &KafkaOptions) -> bool {
    let first = group.members.iter().min_by(|a, b| a.id.cmp(&b.id));
    group.state == "Stable" && first.is_some_and(|first| first.client == options.client_id())
}

fn without_member(group: &Group, shards: u32) -> BTreeSet<u32> {
    let given: BTreeSet<u32> = group.members.iter().filter_map(|Member { shards, .. }| shards.as_deref()).flatten().copied().collect();
    (0..shards).filter(|shard| !given.contains(shard)).collect()
}

/// Joins without a name, is given something, and leaves. It asks for no shard: it would take it from somebody.
fn rebalance(cluster: &Cluster) -> Result<(), GroupError> {
    let joined = Arc::new(AtomicBool::new(false));
    let config = client_config(&KafkaOptions { is_static: false, ..cluster.options().clone() }, Role::Membership)?;
    let consumer: BaseConsumer<Context<Joined>> =
        config.create_with_context(cluster.context(Joined(joined.clone()))).map_err(|error| not_created(&error))?;
    consumer.subscribe(&[cluster.name(Topic::Input(InputTopic::Control))]).map_err(GroupError::Join)?;
    let until = Instant::now() + REBALANCE_MAX;
    while !joined.load(Ordering::Relaxed) && Instant::now() < until && !consumer.context().is_useless() {
        drop(consumer.poll(Duration::from_millis(100)));
    }
    Ok(())
}

struct Joined(Arc<AtomicBool>);

impl Listener for Joined {
    fn rebalanced(&self, _consumer: &BaseConsumer<Context<Self>>, what: &Rebalance<'_>) {
        if matches!(what, Rebalance::Assign(_)) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(members: &[(&str, Option<&[u32]>)]) -> Group {
        let member = |(name, shards): &(&str, Option<&[u32]>)| Member {
            id: format!("{name}-4711"),
            client: format!("ordergate-{name}"),
            host: "/127.0.0.1".into(),
            shards: shards.map(<[u32]>::to_vec),
        };
        Group {
            name: "ordergate".into(),
            state: "Stable".into(),
            protocol: "cooperative-sticky".into(),
            members: members.iter().map(member).collect(),
        }
    }

    #[test]
    fn shards_that_no_member_has_are_found() {
        let found = without_member(&group(&[("gate-1", Some(&[2, 3])), ("gate-2", Some(&[])), ("gate-3", None)]), 5);
        assert_eq!(found, BTreeSet::from([0, 1, 4]));
        assert!(without_member(&group(&[("gate-1", Some(&[1])), ("gate-2", Some(&[0]))]), 2).is_empty());
    }

    #[test]
    fn one_member_mends_and_none_while_the_group_rebalances() {
        let ours = |instance: &str| KafkaOptions { instance: instance.into(), ..KafkaOptions::default() };
        let mut stable = group(&[("gate-2", None), ("gate-1", None)]);
        assert!(is_ours_to_mend(&stable, &ours("gate-1")));
        assert!(!is_ours_to_mend(&stable, &ours("gate-2")));
        stable.state = "PreparingRebalance".into();
        assert!(!is_ours_to_mend(&stable, &ours("gate-1")));
    }
}
