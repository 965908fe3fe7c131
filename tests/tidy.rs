//! Rules about code, held by a test: floors, lengths, forbidden words.
//!
//! Invariant: reads sources as text, with comments and literals blanked, so it needs no compiler and sees every cfg. Deliberately
//! absent: what clippy and rustc already refuse (unwrap, unsafe, wildcard arms).

use std::fs;
use std::path::{Path, PathBuf};

/// Every module at the top of the crate, with its floor. Nothing imports upward.
const FLOORS: &[(&str, u8)] = &[
    ("domain", 0),
    ("book", 1),
    ("market", 1),
    ("risk", 2),
    ("gate", 3),
    ("directory", 3),
    ("wire", 4),
    ("log", 4),
    ("telemetry", 4),
    ("engine", 5),
    ("generate", 5),
    ("kafka", 6),
    ("embedded", 6),
    ("simulated", 6),
    ("snapshot", 6),
    ("api", 6),
    ("control", 6),
    ("notify", 6),
    ("vault", 6),
    ("chart", 6),
    ("control", 6),
    ("app", 7),
    ("config", 7),
    ("cli", 7),
    ("main", 7),
    ("lib", 7),
];

/// The highest floor that is plain values and functions.
const PURE_FLOOR_MAX: u8 = 3;

/// What a pure floor does not know.
const IMPURE: &[&str] = &[
    "tokio::",
    "rdkafka::",
    "sled::",
    "rusqlite::",
    "serde_json::",
    "bincode::",
    "axum::",
    "reqwest::",
    "ureq::",
    "tracing::",
    "metrics::",
    "rand::",
    "getrandom::",
    "fastrand::",
    "SystemTime",
    "Instant",
    "Zoned::now",
    "Timestamp::now",
    "std::time",
    "std::fs",
    "std::net",
    "std::io",
    "std::env",
    "std::thread",
    "std::process",
    "Mutex",
    "RwLock",
    "println!",
    "eprintln!",
    "dbg!",
    "print!",
    "eprint!",
    "std::collections::HashMap",
    "std::collections::HashSet",
    "collections::{HashMap",
    "collections::{HashSet",
    "RandomState",
];

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;

#[test]
fn the_sources_are_tidy() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for folder in ["src", "tests", "benches", "examples"] {
        rust_files(&root.join(folder), &mut files);
    }
    assert!(files.len() > 10, "only {} files found", files.len());
    let mut faults = Vec::new();
    for path in files {
        let source = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().replace('\\', "/");
        faults.extend(faults_of(&name, &source));
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

fn rust_files(folder: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            rust_files(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
}

/// Everything untidy about one file, as `path:line: what`.
fn faults_of(name: &str, source: &str) -> Vec<String> {
    let code = blanked(source);
    let mut faults = Vec::new();
    let lines = source.lines().count();
    if lines > FILE_LINES_MAX {
        faults.push(format!("{name}:1: {lines} lines, at most {FILE_LINES_MAX}"));
    }
    if !source.starts_with("//!") {
        faults.push(format!("{name}:1: the first line does not say what the file is (`//!`)"));
    }
    if name.rsplit('/').next().is_some_and(|file| matches!(file, "utils.rs" | "util.rs" | "helpers.rs" | "misc.rs")) {
        faults.push(format!("{name}:1: a file is named for what it holds"));
    }
    for (line, _) in code.lines().enumerate().filter(|(_, text)| text.contains("#[allow(") || text.contains("#![allow(")) {
        faults.push(format!("{name}:{}: `allow` instead of `expect` with a reason", line + 1));
    }
    faults.extend(
        long_functions(&code)
            .into_iter()
            .map(|(line, function, lines)| format!("{name}:{line}: fn {function} has {lines} lines, at most {FUNCTION_LINES_MAX}")),
    );
    if let Some(inside) = name.strip_prefix("src/") {
        faults.extend(floor_faults(name, inside, &code));
    }
    faults
}

fn floor_of(module: &str) -> Option<u8> {
    FLOORS.iter().find(|(name, _)| *name == module).map(|(_, floor)| *floor)
}

fn floor_faults(name: &str, inside: &str, code: &str) -> Vec<String> {
    let module = inside.split(['/', '.']).next().unwrap_or(inside);
    let Some(floor) = floor_of(module) else {
        return vec![format!("{name}:1: module `{module}` has no floor: give it one in tests/tidy.rs")];
    };
    // Tests may look up: what they need to set up their case often lives above.
    if inside.ends_with("tests.rs") || inside.contains("/tests/") {
        return Vec::new();
    }
    let code = code.find("#[cfg(test)]\nmod tests {").map_or(code, |at| &code[..at]);
    let mut faults = Vec::new();
    for (line, used) in used_modules(code) {
        match floor_of(&used) {
            Some(other) if other > floor => {
                faults.push(format!("{name}:{line}: floor {floor} imports `{used}` of floor {other}"));
            }
            _ => {}
        }
    }
    if floor <= PURE_FLOOR_MAX {
        faults.extend(impurities(name, code));
    }
    faults
}

/// The modules that follow `crate::` or `ordergate::`, alone or in braces, with their lines.
fn used_modules(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for prefix in ["crate::", "ordergate::"] {
        for (at, _) in code.match_indices(prefix) {
            let line = code[..at].matches('\n').count() + 1;
            let rest = &code[at + prefix.len()..];
            match rest.strip_prefix('{') {
                None => found.push((line, leading_word(rest))),
                Some(group) => found.extend(words_of_group(group).into_iter().map(|word| (line, word))),
            }
        }
    }
    found
}

fn leading_word(text: &str) -> String {
    text.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
}

/// The first words of the members of a `{..}`, whose opening brace is behind us.
fn words_of_group(group: &str) -> Vec<String> {
    let (mut depth, mut fresh, mut words) = (0_usize, true, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => fresh = true,
            _ if fresh && !c.is_whitespace() => {
                words.push(leading_word(&group[at..]));
                fresh = false;
            }
            _ => {}
        }
    }
    words
}

fn impurities(name: &str, code: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let maps = hash_maps(code);
    for (line, text) in (1..).zip(code.lines()) {
        for word in IMPURE.iter().filter(|word| stands_alone(text, word)) {
            faults.push(format!("{name}:{line}: a pure floor knows no `{word}`"));
        }
        for map in maps.iter().filter(|map| iterates(text, map)) {
            faults.push(format!("{name}:{line}: the hash map `{map}` is iterated: its order is no input"));
        }
    }
    faults
}

fn stands_alone(text: &str, word: &str) -> bool {
    let part_of_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        let before = text[..at].chars().next_back().is_some_and(part_of_word);
        let after = word.ends_with(part_of_word) && text[at + word.len()..].chars().next().is_some_and(part_of_word);
        !before && !after
    })
}

/// The fields and variables that are declared as hash maps, sets or tables.
fn hash_maps(code: &str) -> Vec<String> {
    let mut names = Vec::new();
    for kind in ["HashMap<", "HashSet<", "HashTable<", "HashMap::", "HashSet::", "HashTable::"] {
        for (at, _) in code.match_indices(kind) {
            let before = code[..at].trim_end_matches("hashbrown::").trim_end();
            let declared = before.strip_suffix(':').or_else(|| before.strip_suffix('=')).map(str::trim_end);
            let Some(declared) = declared else { continue };
            let name: String = declared.chars().rev().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
            let name: String = name.chars().rev().collect();
            if !name.is_empty() && !names.contains(&name) {
                names.push(name);
            }
        }
    }
    names
}

fn iterates(line: &str, map: &str) -> bool {
    let calls =
        [".iter()", ".iter_mut()", ".keys()", ".values()", ".values_mut()", ".into_iter()", ".into_keys()", ".into_values()", ".drain("];
    let loops = ["in &", "in &mut ", "in &self.", "in &mut self.", "in self.", "in "];
    calls.iter().any(|call| stands_alone(line, &format!("{map}{call}")))
        || loops.iter().any(|start| line.contains(&format!("{start}{map} {{")) && line.trim_start().starts_with("for "))
}

/// Functions that are too long: line, name, lines from `fn` to the closing brace.
fn long_functions(code: &str) -> Vec<(usize, String, usize)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        if code[..at].chars().next_back().is_some_and(|c| c.is_ascii_alphanumeric() || c == '_') {
            continue;
        }
        let name = leading_word(&code[at + 3..]);
        if name.is_empty() {
            continue;
        }
        let Some(lines) = body_lines(&code[at..]) else { continue };
        if lines > FUNCTION_LINES_MAX {
            found.push((code[..at].matches('\n').count() + 1, name, lines));
        }
    }
    found
}

/// The lines of a function that begins here; `None` of one without a body.
fn body_lines(function: &str) -> Option<usize> {
    let open = function.find(['{', ';']).filter(|at| function[*at..].starts_with('{'))?;
    let mut depth = 0_usize;
    for (at, c) in function[open..].char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(function[..open + at].matches('\n').count() + 1);
        }
    }
    None
}

/// The source with comments, strings and characters replaced by blanks; line breaks stay.
fn blanked(source: &str) -> String {
    let bytes = source.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = literal_end(bytes, at);
        if end == at {
            at += 1;
            continue;
        }
        out[at..end].iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
        at = end;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Where the comment or literal that begins at `at` ends; `at` when none does.
fn literal_end(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    let in_word = at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
    let length = match rest {
        [b'/', b'/', ..] => rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len()),
        [b'/', b'*', ..] => find(rest, b"*/", 2).map_or(rest.len(), |end| end + 2),
        [b'r', b'"', ..] if !in_word => find(rest, b"\"", 2).map_or(rest.len(), |end| end + 1),
        [b'r', b'#', b'"', ..] if !in_word => find(rest, b"\"#", 3).map_or(rest.len(), |end| end + 2),
        [b'"', ..] => quoted(rest, b'"'),
        [b'\'', b'\\', ..] => quoted(rest, b'\''),
        [b'\'', _, b'\'', ..] => 3,
        _ => 0,
    };
    at + length
}

fn find(bytes: &[u8], what: &[u8], from: usize) -> Option<usize> {
    bytes.get(from..)?.windows(what.len()).position(|window| window == what).map(|at| at + from)
}

fn quoted(bytes: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < bytes.len() && bytes[at] != quote {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

fn only_fault(name: &str, source: &str) -> String {
    let faults = faults_of(name, source);
    assert_eq!(faults.len(), 1, "{faults:?}");
    faults.into_iter().next().unwrap_or_default()
}

#[test]
fn sees_an_upward_import_however_it_is_written() {
    for import in ["use crate::engine::Loop;", "use crate::{domain::Id, engine::{A, B}};", "fn f(x: crate::engine::X) {}"] {
        assert!(only_fault("src/gate/mod.rs", &format!("//! x\n{import}\n")).contains("floor 3 imports `engine` of floor 5"));
    }
    assert!(
        faults_of("src/gate/mod.rs", "//! x\nuse crate::domain::Id;\n// use crate::engine::X;\nconst A: &str = \"crate::engine\";\n")
            .is_empty()
    );
    assert!(faults_of("src/gate/a.rs", "//! x\n#[cfg(test)]\nmod tests {\nuse crate::wire::X;\n}\n").is_empty());
    assert!(only_fault("src/clever/mod.rs", "//! x\n").contains("has no floor"));
}

#[test]
fn sees_a_clock_a_store_and_an_iterated_hash_map_on_a_pure_floor() {
    assert!(only_fault("src/book/mod.rs", "//! x\nuse sled::Db;\n").contains("knows no `sled::`"));
    assert!(only_fault("src/risk/a.rs", "//! x\nfn f() { let t = Instant::now(); }\n").contains("knows no `Instant`"));
    assert!(faults_of("src/risk/a.rs", "//! x\nstruct Instantly;\n").is_empty());
    assert!(faults_of("src/wire/a.rs", "//! x\nuse bincode::config;\n").is_empty());
    let map = "//! x\nstruct S { seen: HashMap<u32, u32> }\n";
    assert!(faults_of("src/gate/a.rs", &format!("{map}fn f(s: &S) {{ s.seen.get(&1); }}\n")).is_empty());
    assert!(only_fault("src/gate/a.rs", &format!("{map}fn f(s: &S) {{ s.seen.values().sum() }}\n")).contains("`seen` is iterated"));
    assert!(only_fault("src/gate/a.rs", &format!("{map}for a in &self.seen {{}}\n")).contains("`seen` is iterated"));
}

#[test]
fn sees_what_is_too_long_or_says_nothing() {
    let long = format!("//! x\nfn long() {{\n{}}}\nfn short() {{\n}}\n", "    // a } brace\n".repeat(69));
    assert!(only_fault("tests/a.rs", &long).contains("fn long has 71 lines"));
    assert!(only_fault("tests/a.rs", &"//! x\n".repeat(601)).contains("601 lines"));
    assert!(only_fault("tests/a.rs", "fn f() {}\n").contains("does not say what the file is"));
    assert!(only_fault("src/api/utils.rs", "//! x\n").contains("named for what it holds"));
    assert!(only_fault("src/api/a.rs", "//! x\n#[allow(dead_code)]\nfn f() {}\n").contains("instead of `expect`"));
}
