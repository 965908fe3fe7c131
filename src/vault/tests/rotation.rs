//! Rotations cut off at every write.

use std::sync::Arc;

use super::world::{BY, Death, MemoryLog, NOW, all_readable, filled, killed, master, masters, runtime, vault};
use crate::log::Topic;
use crate::vault::{Masters, VaultError};

const KEYS: usize = 30;

fn both() -> Masters {
    Masters::new(master(2), Some(master(1)))
}

async fn full() -> (Arc<MemoryLog>, Vec<String>) {
    let log = MemoryLog::new();
    let ids = filled(&vault(&log, masters(1)), KEYS).await;
    (log, ids)
}

/// What a process finds that starts after a kill.
fn restarted(log: &MemoryLog) -> Arc<MemoryLog> {
    MemoryLog::holding(log.records())
}

#[test]
fn a_rotation_killed_at_any_write_leaves_every_secret_readable_and_is_taken_up_to_its_end() {
    runtime().block_on(async {
        let (base, ids) = full().await;
        let mut kills = 0;
        for death in [Death::Before, Death::After] {
            for writes in 0..=KEYS {
                let log = restarted(&base);
                log.die_after(writes, death);
                let vault = super::world::vault(&log, both());
                let done = vault.rotate(BY, NOW).await;
                assert!(matches!(done, Err(VaultError::Write(_))), "killed {death:?} write {writes}: {done:?}");
                let log = restarted(&log);
                killed(vault);
                let vault = super::world::vault(&log, both());
                all_readable(&vault, &ids).await;
                let landed = writes + usize::from(death == Death::After);
                let status = vault.status().await;
                assert_eq!(status.keks.len(), if landed == 0 { 1 } else { 2 });
                let rotation = vault.rotate(BY, NOW).await.unwrap();
                // When everything had landed, nothing is left to take up, and asking again rotates again.
                assert_eq!(rotation.resumed, (1..=KEYS).contains(&landed), "{death:?} write {writes}");
                let to = if landed > KEYS { 3 } else { 2 };
                assert_eq!((rotation.to, rotation.is_complete(), vault.status().await.to_rewrap), (to, true, 0));
                all_readable(&super::world::vault(&log, masters(2)), &ids).await;
                kills += 1;
            }
        }
        assert!(kills >= 50, "{kills}");
        println!("{kills} kills");
    });
}

#[test]
fn a_rotation_killed_after_every_single_write_still_ends() {
    runtime().block_on(async {
        let (mut log, ids) = full().await;
        let mut kills = 0;
        loop {
            log.die_after(1, if kills % 2 == 0 { Death::Before } else { Death::After });
            let vault = super::world::vault(&log, both());
            let done = vault.rotate(BY, NOW).await;
            log = restarted(&log);
            killed(vault);
            match done {
                Ok(rotation) => break assert!(rotation.resumed && rotation.is_complete()),
                Err(error) => assert!(matches!(error, VaultError::Write(_)), "{error}"),
            }
            all_readable(&super::world::vault(&log, both()), &ids).await;
            kills += 1;
            assert!(kills <= KEYS + 1);
        }
        assert!(kills >= KEYS / 2, "{kills}");
        all_readable(&vault(&log, masters(2)), &ids).await;
    });
}

#[test]
fn at_every_prefix_of_the_log_of_a_rotation_every_secret_is_readable() {
    runtime().block_on(async {
        let (base, ids) = full().await;
        let begun = base.records().len();
        let log = restarted(&base);
        assert!(vault(&log, both()).rotate(BY, NOW).await.unwrap().is_complete());
        let records = log.records();
        let mut prefixes = 0;
        for end in begun..=records.len() {
            if end > begun && records[end - 1].0 != Topic::Directory {
                continue;
            }
            all_readable(&vault(&MemoryLog::holding(records[..end].to_vec()), both()), &ids).await;
            prefixes += 1;
        }
        assert_eq!(prefixes, KEYS + 2);
    });
}

#[test]
fn what_does_not_open_stays_as_it_is_and_keeps_its_kek() {
    runtime().block_on(async {
        let (log, ids) = full().await;
        let mut records = log.records();
        for (_, record) in &mut records {
            if record.key.as_ref().is_some_and(|key| String::from_utf8_lossy(key).contains(&ids[7])) {
                let text = String::from_utf8(record.payload.clone()).unwrap();
                record.payload = text.replace("\"owner\":\"alice\"", "\"owner\":\"mallory\"").into_bytes();
            }
        }
        let log = MemoryLog::holding(records);
        let options = crate::vault::Options { retired_kept_ms: 0, ..super::world::options() };
        let vault = super::world::vault_with(&log, both(), options);
        let rotation = vault.rotate(BY, NOW + 5).await.unwrap();
        assert_eq!((rotation.rewrapped, rotation.failed.len()), (KEYS as u64 - 1, 1));
        assert_eq!((rotation.failed[0].id.as_str(), rotation.failed[0].why), (ids[7].as_str(), "damaged"));
        assert_eq!((vault.status().await.keks.len(), vault.status().await.to_rewrap), (2, 1));
        vault.delete(BY, &ids[7], None, NOW).await.unwrap();
        vault.upkeep(BY, NOW + 10).await.unwrap();
        assert_eq!(vault.status().await.keks.len(), 1);
    });
}

#[test]
fn upkeep_ends_a_rotation_that_was_cut_off_and_begins_none() {
    runtime().block_on(async {
        let (log, ids) = full().await;
        let vault = vault(&log, both());
        assert_eq!(vault.upkeep(BY, NOW).await.unwrap(), None);
        log.die_after(10, Death::After);
        vault.rotate(BY, NOW).await.unwrap_err();
        let log = restarted(&log);
        killed(vault);
        let vault = super::world::vault(&log, both());
        let rotation = vault.upkeep(BY, NOW).await.unwrap().unwrap();
        assert_eq!((rotation.resumed, rotation.rewrapped, rotation.is_complete()), (true, KEYS as u64 - 10, true));
        all_readable(&vault, &ids).await;
        assert_eq!(vault.upkeep(BY, NOW).await.unwrap(), None);
    });
}
