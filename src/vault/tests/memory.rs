//! What is left of a secret in this process's memory, looked for in the memory itself.

use std::fs::File;
use std::os::unix::fs::FileExt;

use zeroize::Zeroizing;

use super::world::{BY, MemoryLog, NOW, masters, new_key, options, runtime, vault_with};
use crate::vault::{Broker, Masters, NewKey, Secrets};

const CHUNK: usize = 1 << 20;

/// A random text, and the same with every bit turned: only that one may lie around.
fn canary() -> (Zeroizing<String>, Vec<u8>) {
    let bytes = crate::vault::envelope::random::<24>().unwrap();
    let mut text = Zeroizing::new(String::with_capacity(64));
    bytes.iter().for_each(|byte| {
        text.push(char::from(b'a' + byte / 16));
        text.push(char::from(b'a' + byte % 16));
    });
    let turned = text.bytes().map(|byte| !byte).collect();
    (text, turned)
}

/// How often it stands in memory that can be written.
pub fn copies(turned: &[u8]) -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let memory = File::open("/proc/self/mem").unwrap();
    let finder = memchr::memmem::Finder::new(turned);
    let mut chunk = vec![0_u8; CHUNK + turned.len()];
    let mut found = 0;
    for line in maps.lines().filter(|line| line.contains(" rw")) {
        let range = line.split(' ').next().unwrap();
        let (begin, end) = range.split_once('-').unwrap();
        let [mut at, end] = [begin, end].map(|hex| u64::from_str_radix(hex, 16).unwrap());
        // What is read must not be read again out of the buffer that it was read into.
        let own = chunk.as_ptr() as u64..chunk.as_ptr() as u64 + chunk.len() as u64;
        while at < end {
            if own.contains(&at) {
                at = own.end;
                continue;
            }
            let until = if at < own.start { end.min(own.start) } else { end };
            let wanted = usize::try_from(until - at).unwrap().min(chunk.len());
            // Some mappings, such as those of devices, cannot be read.
            let Ok(read) = memory.read_at(&mut chunk[..wanted], at) else { break };
            chunk[..read].iter_mut().for_each(|byte| *byte = !*byte);
            found += finder.find_iter(&chunk[..read]).count();
            // The next one begins within this one, so that nothing is missed between them.
            let is_last = at + read as u64 >= until || read < turned.len();
            at = if is_last { until } else { at + (read - turned.len() + 1) as u64 };
        }
    }
    chunk.fill(0);
    found
}

fn of(text: &str, n: usize) -> NewKey {
    let secrets = Secrets { key: format!("PKABCDEFGH{n:010}").into(), secret: text.into(), passphrase: None };
    NewKey { secrets, broker: Broker::Robinhood, ..new_key("alice", n) }
}

#[test]
fn after_sealing_opening_verifying_and_rotating_no_copy_of_a_secret_is_left_in_memory() {
    let (text, turned) = canary();
    assert!(copies(&turned) >= 1, "what is there is found");
    runtime().block_on(async {
        let log = MemoryLog::new();
        let vault = vault_with(&log, masters(1), options());
        let id = vault.create(BY, of(&text, 1), NOW).await.unwrap().id;
        vault.reveal(BY, &id, NOW).await.unwrap();
        vault.verify_key(BY, &id, NOW).await.unwrap();
        vault.replace(BY, &id, None, &of(&text, 2).secrets, NOW).await.unwrap();
        assert_eq!(vault.verify().await.opened, 1);
        vault.rotate(BY, NOW).await.unwrap();
        assert!(vault.create(BY, NewKey { name: String::new(), ..of(&text, 3) }, NOW).await.is_err());
        let locked = vault_with(&log, Masters::none(), options());
        assert!(locked.create(BY, of(&text, 4), NOW).await.is_err());
        let held = vault.reveal(BY, &id, NOW).await.unwrap();
        assert_eq!(copies(&turned), 2, "the one that we made, and the one that is revealed");
        drop(held);
        assert_eq!(copies(&turned), 1, "what is dropped is overwritten");
        drop(text);
        assert_eq!(copies(&turned), 0);
        drop(vault);
    });
}
