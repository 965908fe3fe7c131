//! Which brokers answer us, each asked by itself.

use std::thread;
use std::time::Instant;

use serde::Serialize;

use super::super::KafkaOptions;
use super::super::admin::Seen;
use super::super::cluster::Cluster;

/// A broker as `kafka.brokers` names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Named {
    /// Its address.
    pub address: String,
    /// The id of its cluster; `null` when it does not answer.
    pub cluster_id: Option<String>,
}

/// A broker as the cluster tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Broker {
    /// Its number.
    pub id: i32,
    /// Where it says that clients find it.
    pub address: String,
    /// Whether it answers us there.
    pub reachable: bool,
    /// How long it took to connect and answer, in ms.
    pub took_ms: u64,
}

/// The brokers of the configuration.
pub(super) fn named(cluster: &Cluster) -> Vec<Named> {
    let addresses = cluster.options().brokers.split(',').map(str::trim).filter(|address| !address.is_empty());
    let asked = ask_each(cluster, addresses.map(str::to_owned).collect());
    asked.into_iter().map(|(address, cluster_id, _)| Named { address, cluster_id }).collect()
}

/// The brokers of the cluster.
pub(super) fn asked(cluster: &Cluster, seen: &Seen) -> Vec<Broker> {
    let address = |host: &str, port: i32| if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let asked = ask_each(cluster, seen.brokers.iter().map(|broker| address(&broker.host, broker.port)).collect());
    let told = seen.brokers.iter().zip(asked);
    let mut brokers: Vec<Broker> =
        told.map(|(broker, (address, answer, took_ms))| Broker { id: broker.id, address, reachable: answer.is_some(), took_ms }).collect();
    brokers.sort_by_key(|broker| broker.id);
    brokers
}

/// Asks all at once, each by a client that knows no other: its address, its cluster's id, and how long it took.
fn ask_each(cluster: &Cluster, addresses: Vec<String>) -> Vec<(String, Option<String>, u64)> {
    thread::scope(|scope| {
        let asking: Vec<_> = addresses.iter().map(|address| scope.spawn(move || ask(cluster, address))).collect();
        let answers = asking.into_iter().map(|thread| thread.join().unwrap_or((None, 0)));
        addresses.iter().cloned().zip(answers).map(|(address, (id, took_ms))| (address, id, took_ms)).collect()
    })
}

fn ask(cluster: &Cluster, address: &str) -> (Option<String>, u64) {
    let begun = Instant::now();
    let alone = KafkaOptions { brokers: address.to_owned(), ..cluster.options().clone() };
    let ids = Cluster::new(alone).ok().and_then(|alone| alone.ids().ok()).unwrap_or_default();
    (ids.into_iter().next().map(|(_, id)| id), u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX))
}
