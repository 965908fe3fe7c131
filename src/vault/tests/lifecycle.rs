//! A broker key from its making to its end.

use secrecy::ExposeSecret;

use super::world::{BY, MemoryLog, NOW, all_readable, filled, masters, new_key, options, runtime, secrets, vault, vault_with};
use crate::log::Topic;
use crate::vault::{Basis, Broker, Change, Environment, Filter, NewKey, Options, Outcome, Reminder, Standing, Status, Vault, VaultError};

const DAY: i64 = 86_400_000;

fn change(name: &str, status: Status, expires_at: Option<i64>) -> Change {
    Change { name: name.to_owned(), status, expires_at }
}

fn code<T>(done: Result<T, VaultError>) -> &'static str {
    done.err().map_or("done", |error| error.as_str())
}

#[test]
fn a_key_is_made_listed_revealed_and_its_secret_is_nowhere_in_the_log() {
    runtime().block_on(async {
        let log = MemoryLog::new();
        let vault = vault(&log, masters(1));
        let ids = filled(&vault, 6).await;
        let key = vault.get(&ids[2], NOW).unwrap();
        assert_eq!((key.stored.broker, key.stored.environment), (Broker::TdAmeritrade, Environment::Paper));
        assert_eq!((key.status, key.stored.last4.as_str(), key.stored.revision, key.stored.version()), (Status::Active, "0002", 1, 1));
        all_readable(&vault, &ids).await;
        let revealed = vault.reveal(BY, &ids[3], NOW).await.unwrap();
        assert_eq!(revealed.secret.expose_secret(), "secret-3-xxx");
        for (_, record) in log.records() {
            let text = String::from_utf8_lossy(&record.payload).into_owned();
            assert!(!text.contains("secret-") && !text.contains("PKABCDEFGH") && !text.contains("passphrase"), "{text}");
        }
    });
}

#[test]
fn a_list_is_filtered_and_goes_on_after_its_last_id() {
    runtime().block_on(async {
        let vault = vault(&MemoryLog::new(), masters(1));
        for n in 0..12_usize {
            vault.create(BY, new_key(if n.is_multiple_of(4) { "bob" } else { "alice" }, n), NOW).await.unwrap();
        }
        let alice = Filter { owner: Some("alice".to_owned()), ..Filter::default() };
        let (mut after, mut seen) = (None::<String>, Vec::new());
        loop {
            let found = vault.list(&alice, after.as_deref(), 4, NOW);
            seen.extend(found.keys.into_iter().map(|key| key.id));
            after = found.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(seen.len(), 9);
        assert!(seen.windows(2).all(|pair| pair[0] < pair[1]));
        let live = Filter { environment: Some(Environment::Live), broker: Some(Broker::InteractiveBrokers), ..Filter::default() };
        assert_eq!(vault.list(&live, None, 50, NOW).keys.len(), 2);
        assert!(vault.list(&Filter { status: Some(Status::Revoked), ..Filter::default() }, None, 50, NOW).keys.is_empty());
    });
}

#[test]
fn the_status_follows_the_owner_and_the_time_and_revoked_is_final() {
    runtime().block_on(async {
        let vault = vault(&MemoryLog::new(), masters(1));
        let id = filled(&vault, 1).await.remove(0);
        let end = NOW + DAY;
        let key = vault.change(BY, &id, Some(1), change("a", Status::Inactive, Some(end)), NOW).await.unwrap();
        assert_eq!((key.status, key.stored.revision), (Status::Inactive, 2));
        assert_eq!(code(vault.reveal(BY, &id, NOW).await), "not_active");
        vault.change(BY, &id, Some(2), change("a", Status::Active, Some(end)), NOW).await.unwrap();
        assert_eq!(vault.get(&id, end - 1).unwrap().status, Status::Active);
        assert_eq!(vault.get(&id, end).unwrap().status, Status::Expired);
        assert_eq!(code(vault.reveal(BY, &id, end).await), "not_active");
        assert_eq!(code(vault.change(BY, &id, None, change("a", Status::Active, Some(end)), end).await), "refused");
        assert_eq!(code(vault.change(BY, &id, None, change("a", Status::Expired, Some(end + 1)), end).await), "refused");
        assert_eq!(vault.change(BY, &id, None, change("b", Status::Expired, Some(end)), end).await.unwrap().status, Status::Expired);
        assert_eq!(vault.change(BY, &id, None, change("b", Status::Active, Some(end + 9)), end).await.unwrap().status, Status::Active);
        let revoked = vault.change(BY, &id, None, change("b", Status::Revoked, Some(end + 9)), end).await.unwrap();
        assert_eq!((revoked.status, revoked.stored.sealed.is_none()), (Status::Revoked, true));
        for status in [Status::Active, Status::Inactive, Status::Revoked] {
            assert_eq!(code(vault.change(BY, &id, None, change("c", status, None), end).await), "revoked");
        }
        assert_eq!(code(vault.replace(BY, &id, None, &secrets(9), end).await), "revoked");
        assert_eq!(code(vault.reveal(BY, &id, end).await), "revoked");
        assert_eq!(code(vault.verify_key(BY, &id, end).await), "revoked");
    });
}

#[test]
fn a_new_secret_is_a_new_version_and_the_old_one_is_gone() {
    runtime().block_on(async {
        let log = MemoryLog::new();
        let vault = vault(&log, masters(1));
        let id = filled(&vault, 1).await.remove(0);
        let before = vault.get(&id, NOW).unwrap().stored.sealed.unwrap();
        vault.reveal(BY, &id, NOW + 5).await.unwrap();
        let key = vault.replace(BY, &id, Some(1), &secrets(77), NOW + 10).await.unwrap();
        assert_eq!((key.stored.version(), key.stored.last4.as_str(), key.stored.revision), (2, "0077", 2));
        assert_eq!(key.stored.versions[0].last_used_at, Some(NOW + 5));
        assert_eq!((key.stored.versions[1].last_used_at, key.stored.versions[1].created_at), (None, NOW + 10));
        assert!(vault.reveal(BY, &id, NOW + 11).await.unwrap().same_as(&secrets(77)));
        // The old ciphertext does not open as the new version, nor the new one as the old.
        let mut swapped = key.stored.clone();
        swapped.sealed = Some(before);
        assert_eq!(code(vault.open_secrets(&id, &swapped).await), "damaged");
    });
}

#[test]
fn a_use_is_noted_to_the_minute_and_changes_no_revision() {
    runtime().block_on(async {
        let log = MemoryLog::new();
        let vault = vault(&log, masters(1));
        let id = filled(&vault, 1).await.remove(0);
        let states = log.states();
        for second in 0..60 {
            vault.reveal(BY, &id, NOW + second * 1_000).await.unwrap();
        }
        assert_eq!(log.states(), states + 1);
        vault.reveal(BY, &id, NOW + 60_000).await.unwrap();
        let key = vault.get(&id, NOW).unwrap();
        assert_eq!((key.stored.versions[0].last_used_at, key.stored.revision), (Some(NOW + 60_000), 1));
        // Each of them is in the audit trail.
        let records = log.records();
        let audited = records.iter().filter(|(topic, _)| *topic == Topic::Audit);
        let reveals = audited.filter(|(_, record)| String::from_utf8_lossy(&record.payload).contains("api_key.reveal"));
        assert_eq!(reveals.count(), 61);
    });
}

#[test]
fn deleting_revokes_erases_and_hides_and_compaction_leaves_no_ciphertext() {
    runtime().block_on(async {
        let log = MemoryLog::new();
        let settled = crate::control::directory::Options { settle: std::time::Duration::ZERO, ..Default::default() };
        let directory = crate::control::directory::DirectoryService::start_with(log.clone(), settled).unwrap();
        let audit = crate::control::audit::Audit::start(log.clone()).unwrap();
        let vault = Vault::new(directory, audit, masters(1), options()).unwrap();
        let ids = filled(&vault, 2).await;
        let ciphertext =
            |key: &crate::vault::Key| serde_json::to_value(key.stored.sealed.as_ref().unwrap()).unwrap()["ciphertext"].to_string();
        let mut gone = vec![ciphertext(&vault.get(&ids[0], NOW).unwrap()), ciphertext(&vault.get(&ids[1], NOW).unwrap())];
        gone.push(ciphertext(&vault.replace(BY, &ids[0], None, &secrets(5), NOW).await.unwrap()));
        vault.delete(BY, &ids[0], Some(2), NOW).await.unwrap();
        let kept = ciphertext(&vault.replace(BY, &ids[1], None, &secrets(6), NOW).await.unwrap());
        assert_eq!(code(vault.get(&ids[0], NOW)), "unknown");
        assert_eq!(code(vault.delete(BY, &ids[0], None, NOW).await), "unknown");
        assert_eq!(vault.owner_of(&ids[0]).as_deref(), Some("alice"));
        assert_eq!(vault.list(&Filter::default(), None, 50, NOW).keys.len(), 1);
        for _ in 0..100 {
            let text: String = log.compacted().iter().map(|record| String::from_utf8_lossy(&record.payload).into_owned()).collect();
            assert!(text.contains(&kept));
            if !gone.iter().any(|gone| text.contains(gone)) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        panic!("an old ciphertext is still there after compaction");
    });
}

#[test]
fn all_keys_of_somebody_who_is_no_more_are_erased() {
    runtime().block_on(async {
        let log = MemoryLog::new();
        let vault = vault(&log, masters(1));
        let ids = filled(&vault, 3).await;
        let bobs = vault.create(BY, new_key("bob", 9), NOW).await.unwrap().id;
        vault.delete(BY, &ids[0], None, NOW).await.unwrap();
        assert_eq!(vault.erase_owner(BY, "alice").await.unwrap(), 3);
        assert!(ids.iter().all(|id| vault.owner_of(id).is_none()));
        assert!(vault.reveal(BY, &bobs, NOW).await.is_ok());
    });
}

#[test]
fn of_two_changes_of_one_revision_one_wins_and_the_other_is_told() {
    runtime().block_on(async {
        let vault = vault(&MemoryLog::new(), masters(1));
        let id = filled(&vault, 1).await.remove(0);
        for revision in 1..20 {
            let one = vault.change(BY, &id, Some(revision), change(&format!("one {revision}"), Status::Active, None), NOW);
            let fresh = secrets(100 + usize::try_from(revision).unwrap());
            let other = vault.replace(BY, &id, Some(revision), &fresh, NOW);
            // A reveal's note comes between and must not make either lose.
            let noted = vault.reveal(BY, &id, NOW + i64::try_from(revision).unwrap() * 120_000);
            let (one, other, _) = tokio::join!(one, other, noted);
            let mut codes = [code(one), code(other)];
            codes.sort_unstable();
            assert_eq!(codes, ["changed", "done"]);
            assert_eq!(vault.get(&id, NOW).unwrap().stored.revision, revision + 1);
        }
    });
}

#[test]
fn a_repeated_create_gives_what_the_first_made_and_another_request_is_refused() {
    runtime().block_on(async {
        let vault = vault(&MemoryLog::new(), masters(1));
        let repeated = |n: usize, owner: &str| NewKey { idempotency_key: Some("again".to_owned()), ..new_key(owner, n) };
        let (first, second) = tokio::join!(vault.create(BY, repeated(1, "alice"), NOW), vault.create(BY, repeated(1, "alice"), NOW));
        let (first, second) = (first.unwrap(), second.unwrap());
        assert_eq!(first.id, second.id);
        assert_eq!(vault.create(BY, repeated(1, "alice"), NOW + 50).await.unwrap().id, first.id);
        assert_ne!(vault.create(BY, repeated(1, "bob"), NOW).await.unwrap().id, first.id);
        let other_secret = NewKey { secrets: secrets(2), ..repeated(1, "alice") };
        assert_eq!(code(vault.create(BY, other_secret, NOW).await), "other_request");
        assert_eq!(code(vault.create(BY, repeated(2, "alice"), NOW).await), "other_request");
        assert_eq!(vault.list(&Filter::default(), None, 50, NOW).keys.len(), 2);
        vault.delete(BY, &first.id, None, NOW).await.unwrap();
        assert_eq!(code(vault.create(BY, repeated(1, "alice"), NOW).await), "other_request");
    });
}

#[test]
fn an_idempotency_key_means_one_key_for_a_day_whatever_becomes_of_it_and_then_another() {
    runtime().block_on(async {
        let vault = vault(&MemoryLog::new(), masters(1));
        let asked = |n: usize| NewKey { idempotency_key: Some("again".to_owned()), ..new_key("alice", n) };
        let first = vault.create(BY, asked(1), NOW).await.unwrap();
        vault.change(BY, &first.id, None, change("renamed", Status::Inactive, None), NOW + 1).await.unwrap();
        let repeated = vault.create(BY, asked(1), NOW + 2).await.unwrap();
        assert_eq!((&repeated.id, repeated.stored.name.as_str()), (&first.id, "renamed"));
        let others = [
            NewKey { name: "renamed".to_owned(), ..asked(1) },
            NewKey { expires_at: Some(NOW + DAY), ..asked(1) },
            NewKey { secrets: secrets(2), ..asked(1) },
        ];
        for other in others {
            assert_eq!(code(vault.create(BY, other, NOW + 3).await), "other_request", "a change makes no other request the same");
        }
        vault.replace(BY, &first.id, None, &secrets(9), NOW + 4).await.unwrap();
        assert_eq!(vault.create(BY, asked(1), NOW + 5).await.unwrap().id, first.id);
        assert_eq!(code(vault.create(BY, NewKey { name: "other".to_owned(), ..asked(1) }, NOW + 6).await), "other_request");
        assert_eq!(vault.create(BY, asked(1), NOW + DAY - 1).await.unwrap().id, first.id);
        // After a day it is a new request, and is then repeated for a day itself.
        let second = vault.create(BY, asked(2), NOW + DAY).await.unwrap();
        assert_ne!(second.id, first.id);
        assert_eq!(vault.create(BY, asked(2), NOW + DAY + 1).await.unwrap().id, second.id);
        assert_eq!(code(vault.create(BY, asked(1), NOW + 2 * DAY - 1).await), "other_request");
        vault.delete(BY, &second.id, None, NOW + DAY + 2).await.unwrap();
        assert_eq!(code(vault.create(BY, asked(2), NOW + DAY + 3).await), "other_request");
        let third = vault.create(BY, asked(2), NOW + 2 * DAY).await.unwrap();
        assert!(third.id != first.id && third.id != second.id);
        // Who bears the name of somebody who is no more repeats nothing of theirs.
        vault.erase_owner(BY, "alice").await.unwrap();
        assert_ne!(vault.create(BY, asked(2), NOW + 2 * DAY + 1).await.unwrap().id, third.id);
    });
}

#[test]
fn deleted_keys_count_for_nothing_and_as_many_of_them_are_remembered_as_an_owner_may_have() {
    runtime().block_on(async {
        let vault = vault_with(&MemoryLog::new(), masters(1), Options { keys_per_owner: 2, ..options() });
        let kept = vault.create(BY, new_key("alice", 0), NOW).await.unwrap().id;
        let mut deleted = Vec::new();
        for n in 1..6_usize {
            let id = vault.create(BY, new_key("alice", n), NOW).await.unwrap().id;
            assert_eq!(code(vault.create(BY, new_key("alice", 9), NOW).await), "too_many");
            vault.delete(BY, &id, None, NOW + i64::try_from(n).unwrap()).await.unwrap();
            deleted.push(id);
        }
        let known: Vec<bool> = deleted.iter().map(|id| vault.owner_of(id).is_some()).collect();
        assert_eq!(known, [false, false, false, true, true], "the latest have their trails still");
        assert_eq!(vault.get(&kept, NOW).unwrap().status, Status::Active);
    });
}

#[test]
fn what_may_not_be_is_refused_and_nothing_is_written() {
    runtime().block_on(async {
        let log = MemoryLog::new();
        let vault = vault_with(&log, masters(1), Options { keys_per_owner: 2, ..options() });
        let ids = filled(&vault, 2).await;
        let states = log.states();
        for new in [
            NewKey { name: " ".to_owned(), ..new_key("bob", 1) },
            NewKey { name: "x".repeat(101), ..new_key("bob", 1) },
            NewKey { name: "a\nb".to_owned(), ..new_key("bob", 1) },
            NewKey { expires_at: Some(NOW), ..new_key("bob", 1) },
            NewKey { expires_at: Some(i64::MAX), ..new_key("bob", 1) },
        ] {
            assert_eq!(code(vault.create(BY, new, NOW).await), "refused");
        }
        assert_eq!(code(vault.create(BY, new_key("alice", 3), NOW).await), "too_many");
        assert_eq!(code(vault.change(BY, &ids[0], Some(2), change("a", Status::Active, None), NOW).await), "changed");
        assert_eq!(code(vault.change(BY, "key_0", None, change("a", Status::Active, None), NOW).await), "unknown");
        assert_eq!(code(vault.change(BY, &ids[0], None, change("a", Status::Active, Some(-1)), NOW).await), "refused");
        // What changes nothing writes nothing.
        let same = vault.change(BY, &ids[0], Some(1), change("key 0", Status::Active, None), NOW).await.unwrap();
        assert_eq!((same.stored.revision, log.states()), (1, states));
    });
}

#[test]
fn without_an_audit_trail_nothing_is_revealed_and_nothing_changed() {
    runtime().block_on(async {
        let log = MemoryLog::new();
        let vault = vault(&log, masters(1));
        let id = filled(&vault, 1).await.remove(0);
        log.die();
        assert_eq!(code(vault.reveal(BY, &id, NOW).await), "not_audited");
        let states = log.states();
        assert_eq!(code(vault.change(BY, &id, None, change("b", Status::Active, None), NOW).await), "not_audited");
        assert_eq!(code(vault.delete(BY, &id, None, NOW).await), "not_audited");
        assert_eq!(log.states(), states);
        super::world::killed(vault);
    });
}

#[test]
fn reveals_and_verifications_have_a_rate_of_each_caller() {
    runtime().block_on(async {
        let vault = vault_with(&MemoryLog::new(), masters(1), Options { reveals_per_minute: 2, verifications_per_minute: 1, ..options() });
        let id = filled(&vault, 2).await.remove(1);
        let bob = crate::vault::By { actor: "bob", ..BY };
        assert_eq!([code(vault.reveal(BY, &id, NOW).await), code(vault.reveal(BY, &id, NOW).await)], ["done", "done"]);
        assert!(matches!(vault.reveal(BY, &id, NOW).await, Err(VaultError::TooOften { retry_after_s: 30 })));
        assert_eq!(code(vault.reveal(bob, &id, NOW).await), "done");
        assert_eq!([code(vault.verify_key(BY, &id, NOW).await), code(vault.verify_key(BY, &id, NOW).await)], ["done", "too_often"]);
    });
}

#[test]
fn brokers_that_are_not_asked_have_their_format_looked_at() {
    runtime().block_on(async {
        let vault = vault(&MemoryLog::new(), masters(1));
        let ids = filled(&vault, 6).await;
        for id in &ids[1..5] {
            let verified = vault.verify_key(BY, id, NOW).await.unwrap();
            assert_eq!((verified.checked.basis, verified.checked.outcome), (Basis::Format, Outcome::Unusual));
            let stored = vault.get(id, NOW).unwrap().stored;
            assert_eq!((stored.verified, stored.versions[0].last_used_at, stored.revision), (Some(verified), Some(NOW), 1));
        }
        vault.replace(BY, &ids[1], None, &secrets(8), NOW).await.unwrap();
        assert_eq!(vault.get(&ids[1], NOW).unwrap().stored.verified, None);
    });
}

#[test]
fn reminders_are_due_once_of_keys_in_use_and_begin_anew_with_another_end() {
    runtime().block_on(async {
        let log = MemoryLog::new();
        let vault = vault(&log, masters(1));
        let ids = filled(&vault, 4).await;
        let end = NOW + 20 * DAY;
        for (id, status) in ids.iter().zip([Status::Active, Status::Inactive, Status::Revoked, Status::Active]) {
            vault.change(BY, id, None, change("k", status, Some(end)), NOW).await.unwrap();
        }
        vault.delete(BY, &ids[3], None, NOW).await.unwrap();
        assert!(vault.reminders(end - 15 * DAY).is_empty());
        for (now, reminder) in [(end - 14 * DAY, Reminder::Days14), (end - 2 * DAY, Reminder::Days3), (end + 1, Reminder::Days0)] {
            let due = vault.reminders(now);
            assert_eq!(due.iter().map(|due| (due.id.as_str(), due.reminder)).collect::<Vec<_>>(), [(ids[0].as_str(), reminder)]);
            assert_eq!(vault.reminders(now), due, "due until it is noted");
            vault.reminded("ordergate", &due[0]).await.unwrap();
            assert!(vault.reminders(now).is_empty());
        }
        vault.change(BY, &ids[0], None, change("k", Status::Active, Some(end + 30 * DAY)), end).await.unwrap();
        assert!(vault.reminders(end).is_empty());
        assert_eq!(vault.reminders(end + 29 * DAY)[0].reminder, Reminder::Days3);
        assert_eq!(vault.get(&ids[0], NOW).unwrap().stored.standing, Standing::Active);
    });
}
