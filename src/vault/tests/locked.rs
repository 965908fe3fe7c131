//! A vault without its master key, or with another one.

use super::world::{BY, MemoryLog, NOW, all_readable, filled, master, masters, new_key, options, runtime, secrets, vault, vault_with};
use crate::log::Topic;
use crate::vault::kek::MasterKey;
use crate::vault::{Change, Filter, Locked, Masters, Options, State, Status, Vault, VaultError};

fn locked<T>(done: Result<T, VaultError>) -> Locked {
    match done {
        Err(VaultError::Locked(why)) => why,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was done"),
    }
}

/// Everything that one may try with a key.
async fn try_everything(vault: &Vault, id: &str) -> Vec<Locked> {
    let change = Change { name: "other".to_owned(), status: Status::Revoked, expires_at: None };
    vec![
        locked(vault.create(BY, new_key("alice", 1), NOW).await),
        locked(vault.change(BY, id, None, change, NOW).await),
        locked(vault.replace(BY, id, None, &secrets(1), NOW).await),
        locked(vault.reveal(BY, id, NOW).await),
        locked(vault.verify_key(BY, id, NOW).await),
        locked(vault.rotate(BY, NOW).await),
    ]
}

#[test]
fn a_wrong_or_missing_master_key_changes_not_one_byte_of_the_directory() {
    runtime().block_on(async {
        let log = MemoryLog::new();
        let ids = filled(&vault(&log, masters(1)), 5).await;
        let before = log.directory();
        let not_random = MasterKey::parse(&"A".repeat(43)).err().unwrap();
        for (wrong, why) in [(Masters::none(), Locked::NoMasterKey), (masters(2), Locked::WrongMasterKey { version: 1 })] {
            let vault = vault(&log, wrong);
            assert!(try_everything(&vault, &ids[0]).await.into_iter().all(|locked| locked == why));
            assert_eq!((vault.status().await.state, vault.status().await.reason), (State::Locked, Some(why)));
            let verification = vault.verify().await;
            assert_eq!((verification.opened, verification.failed.len()), (0, 5));
            assert!(verification.failed.iter().all(|failure| failure.why == "locked"));
            let _ = vault.upkeep(BY, NOW + i64::from(u32::MAX)).await;
            // What needs no secret goes on.
            assert_eq!(vault.list(&Filter::default(), None, 50, NOW).keys.len(), 5);
            assert_eq!(vault.get(&ids[1], NOW).unwrap().stored.name, "key 1");
            assert_eq!(log.directory(), before, "{:?}", vault.status().await.reason);
        }
        assert!(!format!("{}", Locked::MasterKey(not_random)).contains("AAAA"));
        all_readable(&vault(&log, masters(1)), &ids).await;
    });
}

#[test]
fn a_locked_vault_seals_nothing_in_an_empty_directory_either() {
    runtime().block_on(async {
        let log = MemoryLog::new();
        let vault = vault(&log, Masters::none());
        assert_eq!(locked(vault.create(BY, new_key("alice", 1), NOW).await), Locked::NoMasterKey);
        assert_eq!(log.states(), 0);
        assert_eq!(vault.status().await.state, State::Locked);
        let vault = super::world::vault(&log, masters(1));
        assert_eq!(vault.status().await.state, State::Empty);
        filled(&vault, 1).await;
        assert_eq!(vault.status().await.state, State::Unlocked);
    });
}

#[test]
fn the_metric_says_locked_where_a_master_key_is_missed_or_was_to_be_and_is_none() {
    let recorder = crate::telemetry::local_recorder().unwrap();
    let (shown, _recording) = (recorder.handle(), metrics::set_default_local_recorder(&recorder));
    let reads = |locked: u8| {
        let text = shown.render();
        assert!(text.contains(&format!("\nordergate_vault_locked {locked}\n")), "{text}");
    };
    let not_random = || Masters::usable(Err(MasterKey::parse(&"A".repeat(43)).err().unwrap()));
    runtime().block_on(async {
        let log = MemoryLog::new();
        for (masters, locked) in [(Masters::none(), 0), (not_random(), 1), (masters(1), 0)] {
            vault(&log, masters).status().await;
            reads(locked);
        }
        filled(&vault(&log, masters(1)), 1).await;
        for (masters, locked) in [(Masters::none(), 1), (masters(1), 0), (masters(2), 1), (not_random(), 1)] {
            vault(&log, masters).status().await;
            reads(locked);
        }
    });
}

#[test]
fn deleting_works_while_locked_and_then_a_new_master_key_can_begin_anew() {
    runtime().block_on(async {
        let log = MemoryLog::new();
        let ids = filled(&vault(&log, masters(1)), 3).await;
        let vault = vault(&log, masters(2));
        assert_eq!(locked(vault.rotate(BY, NOW).await), Locked::WrongMasterKey { version: 1 });
        for id in &ids {
            vault.delete(BY, id, None, NOW).await.unwrap();
        }
        assert_eq!(vault.rotate(BY, NOW).await.unwrap().to, 2);
        let ids = filled(&vault, 2).await;
        all_readable(&vault, &ids).await;
    });
}

#[test]
fn lost_kek_records_lock_the_vault_instead_of_being_made_anew() {
    runtime().block_on(async {
        let log = MemoryLog::new();
        filled(&vault(&log, masters(1)), 2).await;
        let is_kek = |key: &Option<Vec<u8>>| key.as_ref().is_some_and(|key| key.starts_with(b"kek:"));
        let without = log.records().into_iter().filter(|(topic, record)| *topic == Topic::Directory && !is_kek(&record.key)).collect();
        let log = MemoryLog::holding(without);
        let before = log.directory();
        let vault = vault(&log, masters(1));
        assert_eq!(locked(vault.create(BY, new_key("alice", 1), NOW).await), Locked::KekMissing { version: 1 });
        assert_eq!(vault.status().await.reason, Some(Locked::KekMissing { version: 1 }));
        assert_eq!(log.directory(), before);
    });
}

#[test]
fn verify_names_every_secret_that_does_not_open() {
    let recorder = crate::telemetry::local_recorder().unwrap();
    let (shown, _recording) = (recorder.handle(), metrics::set_default_local_recorder(&recorder));
    runtime().block_on(async {
        let log = MemoryLog::new();
        let ids = filled(&vault(&log, masters(1)), 6).await;
        let mut records = log.records();
        for (_, record) in &mut records {
            let key = String::from_utf8_lossy(record.key.as_deref().unwrap_or_default()).into_owned();
            let text = String::from_utf8(record.payload.clone()).unwrap();
            if key.contains(&ids[1]) {
                record.payload = text.replace("\"owner\":\"alice\"", "\"owner\":\"mallory\"").into_bytes();
            }
            if key.contains(&ids[3]) {
                record.payload = text.replace("\"revision\":1", "\"revision\":\"1\"").into_bytes();
            }
            if key.contains(&ids[4]) {
                record.payload = text.replace("\"kek\":1,", "\"kek\":9,").into_bytes();
            }
        }
        let vault = vault(&MemoryLog::holding(records), masters(1));
        let verification = vault.verify().await;
        assert_eq!(verification.opened, 3);
        assert!(shown.render().contains("\nordergate_vault_unopened_secrets 3\n"), "{}", shown.render());
        let mut failed: Vec<_> = verification.failed.iter().map(|failure| (failure.id.clone(), failure.why)).collect();
        failed.sort();
        let mut expected = vec![(ids[1].clone(), "damaged"), (ids[3].clone(), "unreadable"), (ids[4].clone(), "locked")];
        expected.sort();
        assert_eq!(failed, expected);
    });
}

#[test]
fn a_master_key_is_exchanged_by_a_rotation_with_both_given() {
    runtime().block_on(async {
        let log = MemoryLog::new();
        let ids = filled(&vault(&log, masters(1)), 4).await;
        let both = || Masters::new(master(2), Some(master(1)));
        let rotation = vault(&log, both()).rotate(BY, NOW).await.unwrap();
        assert_eq!((rotation.to, rotation.rewrapped, rotation.is_complete()), (2, 4, true));
        all_readable(&vault(&log, masters(2)), &ids).await;
        assert_eq!(locked(vault(&log, masters(1)).reveal(BY, &ids[0], NOW).await), Locked::WrongMasterKey { version: 2 });
    });
}

#[test]
fn kek_records_that_nothing_needs_are_erased_when_nothing_can_be_under_way_any_more() {
    runtime().block_on(async {
        let log = MemoryLog::new();
        let vault = vault_with(&log, masters(1), Options { retired_kept_ms: 1_000, ..options() });
        let ids = filled(&vault, 3).await;
        assert!(vault.rotate(BY, NOW).await.unwrap().erased.is_empty());
        assert!(vault.upkeep(BY, NOW + 999).await.unwrap().is_none());
        assert_eq!(vault.status().await.keks.len(), 2);
        vault.upkeep(BY, NOW + 1_000).await.unwrap();
        assert_eq!(vault.status().await.keks.iter().map(|kek| kek.version).collect::<Vec<_>>(), [2]);
        all_readable(&vault, &ids).await;
        assert_eq!(vault.rotate(BY, NOW + 2_000).await.unwrap().to, 3);
        all_readable(&super::world::vault(&log, masters(1)), &ids).await;
    });
}
