//! Looking for a secret in whatever form: as it is, in base64 and in hexadecimal; in texts, in files, in another process's memory.
//!
//! Invariant: what is there is found, in any of the forms; `finds_every_form` shows it.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::prelude::{BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD};
use memchr::memmem::Finder;

const CHUNK: usize = 1 << 20;

/// A secret, and the forms in which it could lie around.
pub struct Canary {
    pub text: String,
    forms: Vec<Vec<u8>>,
}

impl Canary {
    /// A random one, of so many letters and digits.
    pub fn new(length: usize) -> Self {
        let mut bytes = vec![0_u8; length];
        getrandom::fill(&mut bytes).unwrap();
        const LETTERS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
        Self::of(bytes.iter().map(|byte| char::from(LETTERS[usize::from(byte % 32)])).collect())
    }

    fn of(text: String) -> Self {
        let bytes = text.as_bytes();
        let mut forms = vec![bytes.to_vec(), hex(bytes), hex(bytes).to_ascii_uppercase()];
        // Wherever in a text it begins, some of its letters are spelled the same in base64.
        for skipped in 0..3 {
            let whole = (bytes.len() - skipped) / 3 * 3;
            let part = &bytes[skipped..skipped + whole];
            forms.push(BASE64_STANDARD_NO_PAD.encode(part).into_bytes());
            forms.push(BASE64_URL_SAFE_NO_PAD.encode(part).into_bytes());
        }
        forms.push(bytes.iter().flat_map(|byte| [*byte, 0]).collect());
        forms.sort();
        forms.dedup();
        Self { text, forms }
    }

    /// How often it stands in these bytes.
    pub fn count(&self, bytes: &[u8]) -> usize {
        self.forms.iter().map(|form| Finder::new(form).find_iter(bytes).count()).sum()
    }

    fn longest(&self) -> usize {
        self.forms.iter().map(Vec::len).max().unwrap()
    }

    /// How often it stands in the memory of a process that can be written.
    pub fn count_in_memory(&self, process: u32) -> usize {
        self.look_in_memory(process, |_| ())
    }

    /// What stands before the first of it in each piece of memory, to find who holds it.
    pub fn before_it_in_memory(&self, process: u32) -> Vec<String> {
        const SHOWN: usize = 1_000;
        let mut found = Vec::new();
        self.look_in_memory(process, |chunk| {
            let first = self.forms.iter().filter_map(|form| Finder::new(form).find(chunk)).min();
            found.extend(first.map(|at| String::from_utf8_lossy(&chunk[at.saturating_sub(SHOWN)..at]).escape_debug().to_string()));
        });
        found
    }

    fn look_in_memory(&self, process: u32, mut seen: impl FnMut(&[u8])) -> usize {
        let maps = std::fs::read_to_string(format!("/proc/{process}/maps")).unwrap();
        let memory = File::open(format!("/proc/{process}/mem")).unwrap();
        let (overlap, mut found) = (self.longest() - 1, 0);
        let mut chunk = vec![0_u8; CHUNK + overlap];
        for line in maps.lines().filter(|line| line.contains(" rw")) {
            let (begin, end) = line.split(' ').next().unwrap().split_once('-').unwrap();
            let [mut at, end] = [begin, end].map(|hex| u64::from_str_radix(hex, 16).unwrap());
            while at < end {
                let wanted = usize::try_from(end - at).unwrap().min(chunk.len());
                // Some mappings, such as those of devices, cannot be read.
                let Ok(read) = memory.read_at(&mut chunk[..wanted], at) else { break };
                found += self.count(&chunk[..read]);
                seen(&chunk[..read]);
                if read <= overlap || at + read as u64 >= end {
                    break;
                }
                // What lies in the overlap is read again, and counted once.
                found -= self.count(&chunk[read - overlap..read]);
                at += (read - overlap) as u64;
            }
        }
        found
    }
}

fn hex(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().flat_map(|byte| format!("{byte:02x}").into_bytes()).collect()
}

/// All files below a folder.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

#[test]
fn finds_every_form_wherever_it_stands() {
    let canary = Canary::of("ABCDEFGHIJKLMNOPQRSTUVWX".to_owned());
    for before in 0..5 {
        let text = format!("{}{}tail", "x".repeat(before), canary.text);
        let wide: Vec<u8> = text.bytes().flat_map(|byte| [byte, 0]).collect();
        for bytes in [text.as_bytes().to_vec(), hex(text.as_bytes()), BASE64_STANDARD_NO_PAD.encode(&text).into_bytes(), wide] {
            assert!(canary.count(&bytes) >= 1, "{before}: {}", String::from_utf8_lossy(&bytes));
        }
    }
    assert_eq!(canary.count(b"nothing of it"), 0);
    let own = Canary::new(30);
    assert!(own.count_in_memory(std::process::id()) >= 1);
}
