//! What is wrong before the first record: two clusters by mistake, a disk that is full, settings that break a guarantee.
//!
//! What must hold: what would break a guarantee is refused at start with its reason; what is only a cache is done without.

#[path = "support/kafka/mod.rs"]
mod kafka;

use std::process::Command;
use std::time::{Duration, Instant};

use kafka::Home;
use kafka::cluster::Cluster;
use kafka::desk::Desk;
use kafka::fleet::Fleet;

const SOON: Duration = Duration::from_secs(30);

#[test]
fn brokers_of_two_clusters_and_a_directory_of_another_one_are_refused() {
    let Some(home) = Home::find() else { return };
    let _turn = kafka::turn();
    let mut one = Cluster::single(&home);
    one.create_gate_topics(1);
    let mut fleet = Fleet::new(&one, 1, 1, &[]);
    fleet.start(0);
    fleet.wait_until_all_decide(1);
    assert_eq!(fleet.stop(0), Some(0));

    let mut other = Cluster::start(&home, 1, &[("cluster.id", "an-other-cluster-id-xx")]);
    other.create_gate_topics(1);
    let ours = other.read("gate.ledger").len();
    fleet.set("kafka.brokers", &format!("{},{}", one.brokers(), other.brokers()));
    let (code, said) = fleet.refusal(0, SOON);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("CLUSTERS_DIFFER"), "{said}");
    fleet.set("kafka.brokers", &other.brokers());
    let (code, said) = fleet.refusal(0, SOON);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("CLUSTER_CHANGED"), "{said}");
    assert_eq!(other.read("gate.ledger").len(), ours, "nothing is written to it");
    fleet.set("kafka.brokers", &one.brokers());
    fleet.start(0);
    fleet.wait_until_all_decide(1);
    fleet.stop_all();
}

#[test]
fn a_disk_that_is_full_at_the_snapshot_stops_no_decision() {
    let Some(home) = Home::find() else { return };
    let _turn = kafka::turn();
    let mut cluster = Cluster::single(&home);
    cluster.create_gate_topics(1);
    let desk = Desk::open(&cluster, 1);
    let mut fleet = Fleet::new(&cluster, 1, 1, &[("snapshot.every_seconds", "1")]);
    // No file of it may grow beyond 16 KiB: what a full disk says, EFBIG for ENOSPC. Its log goes through a pipe that has no end.
    fleet.limit(Some("trap '' XFSZ; ulimit -f 16"));
    fleet.start(0);
    fleet.wait_until_all_decide(1);
    let mut sent = desk.send(&cluster, 0..1, "first", 200);
    cluster.wait_for_decisions(&sent, SOON);
    let begun = Instant::now();
    while fleet.metric(0, "ordergate_snapshots_total{result=\"failed\"}").is_none_or(|failed| failed < 1.0) {
        assert!(begun.elapsed() < SOON, "no snapshot failed: {}", fleet.words(0));
        std::thread::sleep(Duration::from_millis(100));
    }
    sent.append(&mut desk.send(&cluster, 0..1, "second", 200));
    cluster.wait_for_decisions(&sent, SOON);
    fleet.wait_until_all_decide(1);
    let said = std::fs::read_to_string(fleet.log(0)).unwrap();
    assert!(said.contains("snapshots cannot be kept for now; the ledger is not affected"), "{said}");
    assert_eq!(fleet.stop(0), Some(0), "{}", fleet.words(0));
    fleet.limit(None);
    fleet.start(0);
    fleet.wait_until_all_decide(1);
    sent.append(&mut desk.send(&cluster, 0..1, "third", 10));
    cluster.wait_for_decisions(&sent, SOON);
    fleet.stop_all();
    cluster.audit_clean(&["--drained"]);
}

#[test]
fn settings_that_break_a_guarantee_are_refused_with_their_reason() {
    let dir = tempfile::tempdir().unwrap();
    for (property, why) in [
        ("\"enable.idempotence\" = \"false\"", "out of order"),
        ("\"enable.auto.commit\" = \"true\"", "the positions are in the ledger"),
        ("\"auto.offset.reset\" = \"latest\"", "must stop the shard"),
        ("\"acks\" = \"1\"", "can be lost"),
        ("\"isolation.level\" = \"read_uncommitted\"", "aborted"),
        ("\"message.timeout.ms\" = \"5000\"", "leaves a hole"),
        ("\"sasl.password\" = \"hunter2\"", "secret_files"),
    ] {
        let path = dir.path().join("config.toml");
        std::fs::write(&path, format!("[log]\nkind = \"kafka\"\n[kafka.properties]\n{property}\n")).unwrap();
        for command in [vec!["config", "check"], vec!["run"]] {
            let output = Command::new(kafka::fleet::program()).args(&command).arg("--config").arg(&path).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(2), "{property}: {said}");
            assert!(said.contains(why) && said.contains("refused"), "{property}: {said}");
            assert!(!said.contains("hunter2"), "{said}");
        }
    }
}
