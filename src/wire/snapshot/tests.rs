//! What a snapshot's bytes must hold against: flips, cuts, strangers, newer programs, and changes of the fold's structs.

use proptest::prelude::*;

use super::*;
use crate::domain::{Effects, Event, InputTopic, Record, Source};
use crate::wire::{decode as decode_record, key_as_id};

const STAMP: Stamp = Stamp { shard: 7, frame: 1_842, head: [9; 32] };

/// Records that leave something in every part of a state.
const SAMPLE: &[(InputTopic, &str)] = &[
    (
        InputTopic::Control,
        r#"{"event":"account_opened","account":"ACC1","owner":"u-1","cash":"100000","day_roll":"17:00 America/New_York","limits":{"max_order_qty":"500","price_collar_percent":"10","order_rate_limit":100,"order_rate_window_ms":1000,"duplicate_window_ms":500}}"#,
    ),
    (InputTopic::Control, r#"{"event":"account_opened","account":"ACC2","owner":"u-2","cash":"5000.25"}"#),
    (InputTopic::Control, r#"{"event":"instrument_defined","symbol":"AAPL","sector":"tech","lot_size":"1","tick_size":"0.01"}"#),
    (InputTopic::Control, r#"{"event":"instrument_defined","symbol":"ES","sector":"index","multiplier":"50"}"#),
    (InputTopic::Control, r#"{"event":"restricted_list_set","list":"grey","symbols":["TSLA"],"accounts":["ACC2"]}"#),
    (
        InputTopic::Prices,
        r#"{"event":"bar","symbol":"AAPL","timeframe":"1d","open_time":"2026-03-05T00:00:00Z","open":"99","high":"101","low":"98","close":"100","volume":"1200000"}"#,
    ),
    (InputTopic::Prices, r#"{"event":"trade","symbol":"AAPL","price":"100.02","size":"300","ts":1772811000001}"#),
    (InputTopic::Prices, r#"{"event":"quote","symbol":"ES","bid":"5000.25","ask":"5000.50","ts":1772811000002}"#),
    (
        InputTopic::Control,
        r#"{"event":"rule_created","rule":{"id":"r-1","scope":{"account":"ACC1"},"type":"max_position_size","threshold":"50","unit":"percent","action":"reduce_size"}}"#,
    ),
    (
        InputTopic::Intents,
        r#"{"event":"order_intent","client_order_id":"I-1","account":"ACC1","strategy":"mean-rev","symbol":"AAPL","side":"buy","order_type":"limit","qty":"100","limit_price":"100.00"}"#,
    ),
    (
        InputTopic::Intents,
        r#"{"event":"order_intent","client_order_id":"I-2","account":"ACC2","symbol":"AAPL","side":"sell","order_type":"trailing_stop","qty":"1","trail_percent":"5"}"#,
    ),
    (
        InputTopic::Executions,
        r#"{"event":"fill","exec_id":"E-1","client_order_id":"I-1","account":"ACC1","symbol":"AAPL","side":"buy","qty":"40","price":"99.98","fee":"0.20","ts":1772811000010}"#,
    ),
    (InputTopic::Control, r#"{"event":"trading_state_set","scope":{"account":"ACC2"},"state":"halted","actor":"op","reason":"test"}"#),
    (InputTopic::Control, r#"{"event":"cash_adjusted","account":"ACC1","amount":"-12.5","reason":"fee"}"#),
];

fn apply(gate: &mut Gate, records: &[(InputTopic, &str)]) {
    let mut effects = Effects::default();
    for (topic, payload) in records {
        let offset = gate.seq();
        let event = decode_record(*topic, None, payload.as_bytes());
        assert!(!matches!(event, Event::Refused(_)), "{payload}: {event:?}");
        let source = Source { topic: *topic, partition: 0, offset };
        let ts = 1_772_811_000_000 + offset as i64;
        gate.apply(&Record { source, ts, received: Some(ts), key: key_as_id(None), event, quiet: false }, &mut effects);
        effects.clear();
    }
}

fn sample() -> Gate {
    let mut gate = Gate::new(7);
    apply(&mut gate, SAMPLE);
    gate
}

fn resealed(blob: &mut [u8]) {
    let end = blob.len() - CHECKSUM_LEN;
    let checksum = crc32fast::hash(&blob[..end]);
    blob[end..].copy_from_slice(&checksum.to_le_bytes());
}

#[test]
fn a_sealed_blob_opens_as_what_it_was() {
    for kind in [BlobKind::Manifest, BlobKind::Shared, BlobKind::Accounts] {
        let blob = seal(kind, &STAMP, b"payload");
        let opened = open(kind, 7, &blob).unwrap();
        assert_eq!((opened.version, opened.stamp, opened.payload), (VERSION, STAMP, b"payload".as_slice()));
    }
}

#[test]
fn every_flipped_bit_and_every_cut_is_noticed() {
    let blob = seal(BlobKind::Shared, &STAMP, b"some payload of a snapshot");
    for bit in 0..blob.len() * 8 {
        let mut flipped = blob.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let error = open(BlobKind::Shared, 7, &flipped).unwrap_err();
        assert!(!matches!(error, DecodeError::Newer { .. }), "bit {bit} looks like a newer version");
    }
    for len in 0..blob.len() {
        assert!(open(BlobKind::Shared, 7, &blob[..len]).is_err(), "cut to {len}");
    }
    assert!(open(BlobKind::Shared, 7, &[blob.as_slice(), b"x"].concat()).is_err());
}

#[test]
fn tells_strangers_apart() {
    let blob = seal(BlobKind::Shared, &STAMP, b"x");
    assert_eq!(open(BlobKind::Accounts, 7, &blob).unwrap_err(), DecodeError::Kind { found: 2 });
    assert_eq!(open(BlobKind::Shared, 8, &blob).unwrap_err(), DecodeError::Shard { found: 7, expected: 8 });
    assert_eq!(open(BlobKind::Shared, 7, b"something else altogether").unwrap_err(), DecodeError::Magic);
    let mut longer = blob.clone();
    longer[55] = 2;
    resealed(&mut longer);
    assert_eq!(open(BlobKind::Shared, 7, &longer).unwrap_err(), DecodeError::Length { found: 1, named: 2 });
}

#[test]
fn a_newer_version_is_an_error_that_says_so() {
    let mut blob = seal(BlobKind::Shared, &STAMP, b"x");
    blob[8..10].copy_from_slice(&(VERSION + 1).to_le_bytes());
    resealed(&mut blob);
    let error = open(BlobKind::Shared, 7, &blob).unwrap_err();
    assert_eq!(error.to_string(), "snapshot version 2 is newer than 1, the newest that this program knows");
    blob[8..10].copy_from_slice(&[0, 0]);
    resealed(&mut blob);
    assert_eq!(open(BlobKind::Shared, 7, &blob).unwrap_err(), DecodeError::UnknownVersion { found: 0 });
    for version in [0, VERSION + 1, u16::MAX] {
        assert!(decode_account(version, &[]).is_err() && decode_shared(version, &[]).is_err());
        assert!(decode_value::<Vec<u8>>(version, &[0]).is_err());
    }
}

#[test]
fn payloads_give_back_their_accounts_and_refuse_cuts() {
    let accounts: [(u32, &[u8]); 3] = [(7, b"one"), (u32::MAX, b""), (0, &[7; 300])];
    let mut payload = Vec::new();
    for (place, account) in accounts {
        put_account(&mut payload, place, account).unwrap();
    }
    assert_eq!(accounts_in(&payload).unwrap(), accounts);
    assert_eq!(accounts_in(&[]).unwrap(), []);
    for len in (1..payload.len()).filter(|len| ![11, 19].contains(len)) {
        assert!(accounts_in(&payload[..len]).is_err(), "cut to {len}");
    }
    assert!(accounts_in(&[0xff; 9]).is_err());
}

#[test]
fn a_gate_comes_back_from_its_bytes_and_goes_on_alike() {
    let gate = sample();
    let accounts = gate.accounts().iter().map(|account| {
        let mut bytes = Vec::new();
        encode_account(account, &mut bytes).unwrap();
        decode_account(VERSION, &bytes).unwrap()
    });
    let shared = decode_shared(VERSION, &encode_shared(gate.shared()).unwrap()).unwrap();
    let mut restored = Gate::restore(shared, accounts.collect());
    let mut original = gate;
    assert_eq!(state_hash(&restored).unwrap(), state_hash(&original).unwrap());
    for gate in [&mut restored, &mut original] {
        apply(gate, &[(InputTopic::Control, r#"{"event":"account_opened","account":"ACC3","owner":"u-1","cash":"1"}"#)]);
        apply(gate, &[(InputTopic::Prices, r#"{"event":"trade","symbol":"AAPL","price":"90","ts":1772811000020}"#)]);
    }
    assert_eq!(state_hash(&restored).unwrap(), state_hash(&original).unwrap());
}

#[test]
fn bytes_after_an_account_are_refused() {
    let bytes = [encode_shared(sample().shared()).unwrap(), vec![0]].concat();
    assert_eq!(decode_shared(VERSION, &bytes).unwrap_err(), DecodeError::Trailing { bytes: 1 });
}

#[test]
fn the_hash_that_is_kept_along_the_way_is_the_hash_from_nothing() {
    let mut gate = Gate::new(7);
    let mut hasher = StateHasher::default();
    for record in SAMPLE {
        let before = state_hash(&gate).unwrap();
        apply(&mut gate, std::slice::from_ref(record));
        let touched = gate.take_touched();
        hasher.touch(&gate, &touched).unwrap();
        assert_eq!(hasher.hash(&gate).unwrap(), state_hash(&gate).unwrap(), "after {}", record.1);
        assert_ne!(before, state_hash(&gate).unwrap());
    }
    assert_eq!(StateHasher::of(&gate).unwrap().hash(&gate).unwrap(), hasher.hash(&gate).unwrap());
}

#[test]
fn the_sum_over_accounts_depends_on_places_and_not_on_order() {
    let (mut a, mut b, mut swapped) = (AccountsHash::default(), AccountsHash::default(), AccountsHash::default());
    a.plus(AccountsHash::of(0, b"x"));
    a.plus(AccountsHash::of(1, b"y"));
    b.plus(AccountsHash::of(1, b"y"));
    b.plus(AccountsHash::of(0, b"x"));
    swapped.plus(AccountsHash::of(0, b"y"));
    swapped.plus(AccountsHash::of(1, b"x"));
    assert_eq!(a, b);
    assert_ne!(a, swapped);
    assert_eq!(AccountsHash::from_bytes(&a.to_bytes()), a);
    assert_ne!(combine(a, 2, b"s"), combine(a, 3, b"s"));
}

/// The fold's structs are what a snapshot's bytes are made of. When this fails, either a field changed by accident, or `VERSION`
/// has to go up, the old structs stay as a decoding step, and a new file pins the new version.
#[test]
fn the_bytes_of_a_sample_are_pinned_to_the_version() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("src/wire/snapshot/pinned-{VERSION}.txt"));
    let gate = sample();
    let mut text = format!("shared {}\n", blake3::hash(&encode_shared(gate.shared()).unwrap()));
    for account in gate.accounts() {
        let mut bytes = Vec::new();
        encode_account(account, &mut bytes).unwrap();
        text += &format!("account {}\n", blake3::hash(&bytes));
    }
    text += &format!("state {}\n", blake3::Hash::from(state_hash(&gate).unwrap()));
    assert!(gate.accounts().len() == 2, "the sample opens two accounts");
    if std::env::var_os("ORDERGATE_BLESS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
}

proptest! {
    #[test]
    fn no_bytes_make_the_decoders_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = decode_account(VERSION, &bytes);
        let _ = decode_shared(VERSION, &bytes);
        let _ = decode_value::<Manifest>(VERSION, &bytes);
        let _ = accounts_in(&bytes);
        let _ = open(BlobKind::Manifest, 0, &bytes);
    }

    #[test]
    fn changed_bytes_of_a_state_never_panic(at in any::<prop::sample::Index>(), to in any::<u8>()) {
        let mut bytes = encode_shared(sample().shared()).unwrap();
        *at.get_mut(&mut bytes) = to;
        let _ = decode_shared(VERSION, &bytes);
    }

    #[test]
    fn what_was_added_can_be_taken_away(accounts in proptest::collection::vec((any::<u32>(), proptest::collection::vec(any::<u8>(), 0..50)), 1..20)) {
        let mut sum = AccountsHash::default();
        sum.plus(AccountsHash::of(1, b"base"));
        let base = sum;
        for (place, account) in &accounts {
            sum.plus(AccountsHash::of(*place, account));
        }
        prop_assert_ne!(sum, base);
        for (place, account) in accounts.iter().rev() {
            sum.minus(AccountsHash::of(*place, account));
        }
        prop_assert_eq!(sum, base);
    }
}
