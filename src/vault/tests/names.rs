//! What must not be printed has no way to be printed, and what must be overwritten is.

use std::fmt::{Debug, Display};
use std::marker::PhantomData;

use serde::Serialize;

use super::world::secrets;
use crate::vault::envelope::Fresh;
use crate::vault::kek::{Kek, MasterKey};
use crate::vault::keyring::{Keyring, Masters};
use crate::vault::{NewKey, Secrets};

struct Of<T>(PhantomData<T>);

/// What holds of every type, unless an inherent constant of a bounded `impl` comes first.
trait Otherwise {
    const PRINTED: bool = false;
    const SHOWN: bool = false;
    const WRITTEN: bool = false;
    const COPIED: bool = false;
}

impl<T> Otherwise for Of<T> {}

impl<T: Debug> Of<T> {
    const PRINTED: bool = true;
}

impl<T: Display> Of<T> {
    const SHOWN: bool = true;
}

impl<T: Serialize> Of<T> {
    const WRITTEN: bool = true;
}

impl<T: Clone> Of<T> {
    const COPIED: bool = true;
}

#[test]
fn what_holds_secrets_cannot_be_printed_shown_written_or_copied() {
    macro_rules! silent {
        ($($type:ty),+) => {
            $(assert_eq!(
                [Of::<$type>::PRINTED, Of::<$type>::SHOWN, Of::<$type>::WRITTEN, Of::<$type>::COPIED],
                [false; 4],
                stringify!($type)
            );)+
        };
    }
    silent!(Secrets, NewKey, MasterKey, Kek, Fresh, Masters, Keyring);
    // The test itself can fail.
    assert_eq!([Of::<String>::PRINTED, Of::<String>::SHOWN, Of::<String>::WRITTEN, Of::<String>::COPIED], [true; 4]);
}

#[test]
fn the_parts_of_secrets_are_overwritten_when_they_are_dropped() {
    fn overwrites_itself<T: zeroize::ZeroizeOnDrop>(_: &T) {}
    let secrets = secrets(0);
    overwrites_itself(&secrets.key);
    overwrites_itself(&secrets.secret);
    overwrites_itself(&secrets.encode());
    overwrites_itself(secrets.passphrase.as_ref().unwrap());
}

#[test]
fn secrets_come_back_from_their_sealed_form_and_from_nothing_else() {
    for n in 0..60_usize {
        let bytes = secrets(n).encode();
        let back = Secrets::decode(&bytes).unwrap();
        assert!(back.same_as(&secrets(n)) && !back.same_as(&secrets(n + 1)));
        assert_eq!(back.passphrase.is_some(), n.is_multiple_of(3));
        for cut in 0..bytes.len() {
            assert!(Secrets::decode(&bytes[..cut]).is_none_or(|less| !less.same_as(&secrets(n))), "{n} cut to {cut}");
        }
        let mut longer = bytes.to_vec();
        longer.push(0);
        assert!(Secrets::decode(&longer).is_none());
    }
    for bytes in [&b""[..], b"\x01", b"\x02\0\0\0\x01a\0\0\0\x01b", b"\x01\xff\xff\xff\xffa", b"\x01\0\0\0\x01\xff\0\0\0\x01b"] {
        assert!(Secrets::decode(bytes).is_none());
    }
}

#[test]
fn a_refusal_names_the_field_and_nothing_of_what_was_given() {
    let long = "canary-".repeat(2_000);
    for (key, secret, passphrase, field) in [
        ("", "s", None, "key"),
        ("canary with blanks", "s", None, "key"),
        ("canary\u{e9}", "s", None, "key"),
        (long.as_str(), "s", None, "key"),
        ("k", " \n", None, "secret"),
        ("k", "canary\u{7}", None, "secret"),
        ("k", long.as_str(), None, "secret"),
        ("k", "s", Some(""), "passphrase"),
        ("k", "s", Some("canary\n"), "passphrase"),
    ] {
        let refused = Secrets { key: key.into(), secret: secret.into(), passphrase: passphrase.map(Into::into) }.check().unwrap_err();
        assert_eq!(refused.field, field);
        assert!(!format!("{refused} {refused:?}").contains("canary"));
    }
}

#[test]
fn the_last_four_characters_are_shown_of_keys_that_are_long_enough() {
    let last4 = |key: &str| Secrets { key: key.into(), secret: "s".into(), passphrase: None }.last4();
    assert_eq!(last4("PKABCDEFGHIJ12345678"), "5678");
    assert_eq!(last4("ABCDEFGH"), "EFGH");
    assert_eq!(last4("ABCDEFG"), "");
}
