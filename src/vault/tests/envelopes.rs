//! Envelopes swapped, patched together and flipped bit by bit.

use super::world::{CHEAP, NOW, master, secrets};
use crate::vault::envelope::{Envelope, Fresh, Place};
use crate::vault::kek::{Kek, KekRecord};

struct Sealed {
    place: Place<'static>,
    kek: u32,
    envelope: Envelope,
}

fn keks() -> [Kek; 2] {
    [1, 2].map(|version| KekRecord::create(version, &master(7), CHEAP, NOW).unwrap().1)
}

/// Two owners, two keys, two versions, two KEKs; under the second also the same secrets wrapped anew.
fn many(keks: &[Kek; 2]) -> Vec<Sealed> {
    let mut all = Vec::new();
    for (n, owner) in ["alice", "bob"].into_iter().enumerate() {
        for (m, key_id) in ["key_1", "key_2"].into_iter().enumerate() {
            for version in [1, 2] {
                let place = Place { owner, key_id, version };
                let secret = secrets(4 * n + 2 * m + version as usize).encode();
                for kek in keks {
                    let envelope = Envelope::seal(kek, place, &secret, Fresh::random().unwrap()).unwrap();
                    all.push(Sealed { place, kek: kek.version(), envelope });
                }
                let first = &all[all.len() - 2].envelope;
                let envelope = first.rewrap(&keks[0], &keks[1], place, [9; 12]).unwrap();
                all.push(Sealed { place, kek: 2, envelope });
            }
        }
    }
    all
}

/// `a` with some of its parts from `b`.
fn patched(a: &Envelope, b: &Envelope, parts: u8) -> Envelope {
    let mut patched = a.clone();
    if parts & 1 != 0 {
        patched.kek = b.kek;
    }
    if parts & 2 != 0 {
        patched.wrap_nonce = b.wrap_nonce;
    }
    if parts & 4 != 0 {
        patched.wrapped_key = b.wrapped_key;
    }
    if parts & 8 != 0 {
        patched.nonce = b.nonce;
    }
    if parts & 16 != 0 {
        patched.ciphertext.clone_from(&b.ciphertext);
    }
    patched
}

#[test]
fn every_envelope_opens_in_its_own_place_and_in_no_other() {
    let keks = keks();
    let all = many(&keks);
    let (mut opened, mut refused) = (0, 0);
    for one in &all {
        for other in &all {
            for kek in &keks {
                let is_its_own = one.place == other.place && one.kek == kek.version();
                assert_eq!(one.envelope.open(kek, other.place).is_ok(), is_its_own, "{:?} at {:?}", one.place, other.place);
                *(if is_its_own { &mut opened } else { &mut refused }) += 1;
            }
        }
    }
    assert_eq!((opened, refused), (72, 1_080));
}

#[test]
fn ten_thousand_envelopes_patched_from_two_are_all_refused() {
    let keks = keks();
    let all = many(&keks);
    let mut refused = 0;
    for one in &all {
        for other in &all {
            for parts in 1..31 {
                let patched = patched(&one.envelope, &other.envelope, parts);
                if all.iter().any(|known| known.envelope == patched) {
                    continue;
                }
                for place in [one.place, other.place] {
                    for kek in &keks {
                        assert!(patched.open(kek, place).is_err(), "{:?} with parts {parts:05b} of {:?}", one.place, other.place);
                        refused += 1;
                    }
                }
            }
        }
    }
    assert!(refused >= 10_000, "only {refused}");
    println!("{refused} swaps refused");
}

#[test]
fn ten_thousand_bit_flips_are_all_refused_in_the_bytes_and_in_their_text() {
    let keks = keks();
    let all = many(&keks);
    let mut refused = 0;
    for Sealed { place, kek, envelope } in &all {
        let kek = &keks[*kek as usize - 1];
        let text = serde_json::to_vec(envelope).unwrap();
        for bit in 0..text.len() * 8 {
            let mut flipped = text.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let opened = serde_json::from_slice::<Envelope>(&flipped).ok().and_then(|envelope| envelope.open(kek, *place).ok());
            assert!(opened.is_none(), "bit {bit} of {}", String::from_utf8_lossy(&text));
            refused += 1;
        }
        for bit in 0..(12 + 48 + 12 + envelope.ciphertext.len()) * 8 {
            let (mut flipped, byte, mask) = (envelope.clone(), bit / 8, 1 << (bit % 8));
            match byte {
                0..12 => flipped.wrap_nonce[byte] ^= mask,
                12..60 => flipped.wrapped_key[byte - 12] ^= mask,
                60..72 => flipped.nonce[byte - 60] ^= mask,
                _ => flipped.ciphertext[byte - 72] ^= mask,
            }
            assert!(flipped.open(kek, *place).is_err());
            refused += 1;
        }
    }
    assert!(refused >= 10_000, "only {refused}");
    println!("{refused} flips refused");
}

#[test]
fn cut_and_lengthened_ciphertexts_are_refused() {
    let keks = keks();
    for Sealed { place, kek, envelope } in &many(&keks) {
        let kek = &keks[*kek as usize - 1];
        for length in (0..envelope.ciphertext.len()).chain(envelope.ciphertext.len() + 1..envelope.ciphertext.len() + 20) {
            let mut cut = envelope.clone();
            cut.ciphertext.resize(length, 0);
            assert!(cut.open(kek, *place).is_err());
        }
    }
}

#[test]
fn names_that_join_to_the_same_text_are_still_different_places() {
    let keks = keks();
    let place = Place { owner: "ab", key_id: "c", version: 1 };
    let envelope = Envelope::seal(&keks[0], place, b"x", Fresh::random().unwrap()).unwrap();
    assert!(envelope.open(&keks[0], place).is_ok());
    for (owner, key_id) in [("a", "bc"), ("abc", ""), ("", "abc")] {
        assert!(envelope.open(&keks[0], Place { owner, key_id, version: 1 }).is_err());
    }
}

#[test]
fn the_same_secret_sealed_twice_shares_nothing() {
    let keks = keks();
    let place = Place { owner: "a", key_id: "k", version: 1 };
    let [one, other] = [0, 1].map(|_| Envelope::seal(&keks[0], place, b"the same", Fresh::random().unwrap()).unwrap());
    assert_ne!(one.nonce, other.nonce);
    assert_ne!(one.wrap_nonce, other.wrap_nonce);
    assert_ne!(one.wrapped_key, other.wrapped_key);
    assert_ne!(one.ciphertext, other.ciphertext);
}

#[test]
fn wrapping_anew_refuses_what_does_not_open_as_a_whole() {
    let keks = keks();
    for Sealed { place, envelope, .. } in many(&keks).iter().filter(|sealed| sealed.kek == 1) {
        let mut damaged = envelope.clone();
        damaged.ciphertext[0] ^= 1;
        assert!(damaged.rewrap(&keks[0], &keks[1], *place, [1; 12]).is_err());
        assert!(envelope.rewrap(&keks[1], &keks[0], *place, [1; 12]).is_err());
    }
}
