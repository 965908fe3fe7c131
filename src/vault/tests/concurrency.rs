//! Several instances over one log.

use std::sync::Arc;

use super::world::{BY, MemoryLog, NOW, all_readable, filled, masters, new_key, runtime, secrets, vault};
use crate::control::directory::WriteError;
use crate::vault::{Vault, VaultError};

#[test]
fn two_instances_that_seal_the_first_secret_at_once_agree_on_one_kek() {
    runtime().block_on(async {
        for _ in 0..10 {
            let log = MemoryLog::new();
            let (one, other) = (vault(&log, masters(1)), vault(&log, masters(1)));
            let (a, b) = tokio::join!(one.create(BY, new_key("alice", 0), NOW), other.create(BY, new_key("alice", 1), NOW));
            let ids = [a.unwrap().id, b.unwrap().id];
            let fresh = vault(&log, masters(1));
            assert_eq!(fresh.status().await.keks.len(), 1);
            all_readable(&fresh, &ids).await;
        }
    });
}

async fn rotate_until_done(vault: Arc<Vault>) {
    loop {
        match vault.rotate(BY, NOW).await {
            Ok(_) => return,
            Err(VaultError::Rotating) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn keys_made_and_given_new_secrets_while_others_rotate_are_not_lost() {
    runtime().block_on(async {
        let log = MemoryLog::new();
        let instances: Vec<Arc<Vault>> = (0..3).map(|_| Arc::new(vault(&log, masters(1)))).collect();
        let old = filled(&instances[0], 10).await;
        let rotations: Vec<_> = instances.iter().map(|instance| tokio::spawn(rotate_until_done(instance.clone()))).collect();
        let mut ids = old.clone();
        for n in 10..40 {
            ids.push(instances[n % 3].create(BY, new_key("alice", n), NOW).await.unwrap().id);
            // The same secret again, as a new version, from wherever.
            let at = n % old.len();
            match instances[(n + 1) % 3].replace(BY, &ids[at], None, &secrets(at), NOW).await {
                Ok(_) | Err(VaultError::Changed { .. } | VaultError::Write(WriteError::Conflict { .. })) => {}
                Err(error) => panic!("{error}"),
            }
        }
        for rotation in rotations {
            rotation.await.unwrap();
        }
        let fresh = vault(&log, masters(1));
        let last = fresh.rotate(BY, NOW).await.unwrap();
        assert!(last.is_complete());
        all_readable(&fresh, &ids).await;
        assert_eq!(fresh.verify().await.opened, 40);
        assert_eq!(fresh.status().await.to_rewrap, 0);
    });
}

#[test]
fn two_rotations_of_one_instance_do_not_run_at_once() {
    runtime().block_on(async {
        let log = MemoryLog::new();
        let vault = vault(&log, masters(1));
        filled(&vault, 20).await;
        let (one, other) = tokio::join!(vault.rotate(BY, NOW), vault.rotate(BY, NOW));
        let (done, refused) = if one.is_ok() { (one, other) } else { (other, one) };
        assert!(done.is_ok() && matches!(refused, Err(VaultError::Rotating)));
    });
}
