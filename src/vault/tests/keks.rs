//! Master keys read, and KEKs derived.

use super::world::{CHEAP, NOW, master, master_text};
use crate::vault::Secrets;
use crate::vault::envelope::{Envelope, Place};
use crate::vault::kek::{Cost, DeriveError, Kek, KekRecord, MasterKey, MasterKeyError};

fn refusal(text: &str) -> MasterKeyError {
    MasterKey::parse(text).err().unwrap()
}

#[test]
fn a_master_key_is_base64_of_at_least_32_random_bytes() {
    let url_safe = master_text(1).replace('+', "-").replace('/', "_");
    for text in [master_text(1), format!("  {}\n", master_text(1)), master_text(1).replace('=', ""), url_safe] {
        let kek = KekRecord::create(1, &master(1), CHEAP, NOW).unwrap().0;
        assert!(kek.derive(&MasterKey::parse(&text).unwrap()).is_ok(), "{text}");
    }
    assert_eq!(refusal("not base64 at all!"), MasterKeyError::NotBase64);
    assert_eq!(refusal(""), MasterKeyError::Length { bytes: 0 });
    assert_eq!(refusal("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHg=="), MasterKeyError::Length { bytes: 31 });
    assert_eq!(refusal(&"A".repeat(43)), MasterKeyError::NotRandom);
    assert_eq!(refusal(&"QUJD".repeat(11)), MasterKeyError::NotRandom);
}

#[test]
fn a_refused_master_key_is_not_repeated() {
    for text in ["canary!", "Y2FuYXJ5", &"Y2FuYXJ5".repeat(10)] {
        let error = refusal(text);
        assert!(!format!("{error} {error:?}").to_lowercase().contains("canary"));
    }
}

#[test]
fn a_master_key_comes_from_a_file_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("master");
    assert_eq!(MasterKey::read(&path).err(), Some(MasterKeyError::File { kind: std::io::ErrorKind::NotFound }));
    std::fs::write(&path, format!("{}\n", master_text(3))).unwrap();
    let record = KekRecord::create(1, &master(3), CHEAP, NOW).unwrap().0;
    assert!(record.derive(&MasterKey::read(&path).unwrap()).is_ok());
    std::fs::write(&path, [0xff; 40]).unwrap();
    assert_eq!(MasterKey::read(&path).err(), Some(MasterKeyError::File { kind: std::io::ErrorKind::InvalidData }));
}

fn error(derived: Result<Kek, DeriveError>) -> DeriveError {
    derived.err().unwrap()
}

#[test]
fn only_the_right_master_key_and_the_whole_record_give_the_kek() {
    let (record, kek) = KekRecord::create(3, &master(1), CHEAP, NOW).unwrap();
    let again = record.derive(&master(1)).unwrap();
    assert_eq!((kek.version(), again.version()), (3, 3));
    assert!(kek.wrapping_key() == again.wrapping_key());
    assert_eq!(error(record.derive(&master(2))), DeriveError::WrongKey);
    let other_salt = {
        let mut salt = record.salt;
        salt[31] ^= 1;
        KekRecord { salt, ..record.clone() }
    };
    let other_check = {
        let mut check = record.check;
        check[0] ^= 128;
        KekRecord { check, ..record.clone() }
    };
    for changed in [
        KekRecord { version: 4, ..record.clone() },
        KekRecord { memory_kib: 16, ..record.clone() },
        KekRecord { passes: 2, ..record.clone() },
        other_salt,
        other_check,
    ] {
        assert_eq!(error(changed.derive(&master(1))), DeriveError::WrongKey);
    }
}

#[test]
fn a_record_that_costs_more_than_ours_or_less_than_argon2_takes_is_refused_before_it_costs_anything() {
    let (record, _) = KekRecord::create(1, &master(1), CHEAP, NOW).unwrap();
    for changed in [
        KekRecord { memory_kib: u32::MAX, ..record.clone() },
        KekRecord { passes: 65, ..record.clone() },
        KekRecord { lanes: 65, memory_kib: 1_000, ..record.clone() },
        KekRecord { passes: 0, ..record.clone() },
        KekRecord { memory_kib: 0, ..record.clone() },
    ] {
        assert_eq!(error(changed.derive(&master(1))), DeriveError::Parameters);
    }
}

#[test]
fn two_keks_of_one_master_key_have_nothing_in_common() {
    let (one, a) = KekRecord::create(1, &master(1), CHEAP, NOW).unwrap();
    let (other, b) = KekRecord::create(1, &master(1), CHEAP, NOW).unwrap();
    assert!(one.salt != other.salt && one.check != other.check && a.wrapping_key() != b.wrapping_key());
    assert!(one.check != *a.wrapping_key());
}

#[test]
fn the_derivation_and_the_envelope_are_as_another_implementation_makes_them() {
    assert_eq!(Cost::STANDARD, Cost { memory_kib: 65_536, passes: 3, lanes: 4 });
    // Made by tests/vault/known_answer.py.
    let mut made: serde_json::Value = serde_json::from_str(include_str!("known_answer.json")).unwrap();
    let record: KekRecord = serde_json::from_value(made["record"].take()).unwrap();
    let envelope: Envelope = serde_json::from_value(made["envelope"].take()).unwrap();
    let kek = record.derive(&MasterKey::parse("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").unwrap()).unwrap();
    let opened = envelope.open(&kek, Place { owner: "alice", key_id: "key_1", version: 2 }).unwrap();
    let secrets = Secrets { key: "PKABCDEFGHIJ12345678".into(), secret: "secret".into(), passphrase: Some("passphrase".into()) };
    assert!(Secrets::decode(&opened).unwrap().same_as(&secrets));
}
