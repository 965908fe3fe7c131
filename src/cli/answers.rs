//! What the commands that ask the API share: where and how, ids in paths, bodies from files, answers as tables.
//!
//! Invariant: JSON goes out as the daemon gave it; a table shows a choice of it and hides nothing silently: what is absent is `-`.
//! Deliberately absent: what the fields mean.

use std::io::Read;
use std::path::Path;

use serde_json::Value;

use super::remote::{Output, Remote, table};
use super::{Exit, Failure, OrExit, say};

/// A longer file is none of ours.
const FILE_BYTES_MAX: u64 = 256 << 10;

/// Of which daemon, as whom, and how to print.
#[derive(Debug, clap::Args)]
pub struct Asked {
    #[command(flatten)]
    pub remote: Remote,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
}

/// A key that makes a repeat harmless.
#[derive(Debug, clap::Args)]
pub struct Once {
    /// Idempotency-Key: the same key with the same words does it once only, however often the command is run
    #[arg(long = "key", value_name = "KEY")]
    key: Option<String>,
}

impl Once {
    /// As headers.
    pub fn headers(&self) -> Vec<(&str, &str)> {
        self.key.iter().map(|key| ("idempotency-key", key.as_str())).collect()
    }
}

/// An id as a segment of a path.
#[must_use]
pub fn segment(id: &str) -> String {
    let mut text = String::with_capacity(id.len());
    for byte in id.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~' | b':') {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

/// A query of those parameters that are given.
#[must_use]
pub fn query(parameters: &[(&str, Option<&str>)]) -> String {
    let given = parameters.iter().filter_map(|(name, value)| value.map(|value| format!("{name}={}", segment(value))));
    given.collect::<Vec<_>>().join("&")
}

/// A JSON object from a file; `-` is standard input.
pub fn object(path: &Path) -> Result<Value, Failure> {
    let doing = || format!("cannot read {}", path.display());
    let mut text = String::new();
    if path == Path::new("-") {
        std::io::stdin().take(FILE_BYTES_MAX).read_to_string(&mut text).or_exit(Exit::Io, doing)?;
    } else {
        let file = std::fs::File::open(path).or_exit(Exit::Io, doing)?;
        file.take(FILE_BYTES_MAX).read_to_string(&mut text).or_exit(Exit::Io, doing)?;
    }
    let value: Value = serde_json::from_str(&text).or_exit(Exit::Wrong, || format!("{} is no JSON", path.display()))?;
    if value.is_object() { Ok(value) } else { Err(Failure::new(Exit::Wrong, format!("{} is no JSON object", path.display()))) }
}

/// A field in words; a path with dots goes into objects.
#[must_use]
pub fn cell(value: &Value, path: &str) -> String {
    let found = path.split('.').filter(|name| !name.is_empty()).try_fold(value, |value, name| value.get(name));
    match found {
        Some(Value::String(text)) if !text.is_empty() => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        Some(Value::Bool(truth)) => (if *truth { "yes" } else { "no" }).to_owned(),
        Some(Value::Array(items)) if !items.is_empty() => items.iter().map(|item| cell(item, "")).collect::<Vec<_>>().join(","),
        Some(Value::Object(_)) => found.map(Value::to_string).unwrap_or_default(),
        Some(Value::Null | Value::String(_) | Value::Array(_)) | None => "-".to_owned(),
    }
}

/// Prints a list; columns are fields, under the last word of their path.
pub fn print_list(output: Output, items: Vec<Value>, columns: &[&str]) -> Result<(), Failure> {
    match output {
        Output::Json => say(&format!("{:#}\n", Value::Array(items))),
        Output::Table => say(&rows(&items, columns)),
    }
}

/// The same as text.
#[must_use]
pub fn rows(items: &[Value], columns: &[&str]) -> String {
    let headings: Vec<&str> = columns.iter().map(|path| path.rsplit('.').next().unwrap_or(path)).collect();
    let rows: Vec<Vec<String>> = items.iter().map(|item| columns.iter().map(|column| cell(item, column)).collect()).collect();
    table(&headings, &rows)
}

/// Prints one object, a field a line.
pub fn print_one(output: Output, answer: &Value) -> Result<(), Failure> {
    match output {
        Output::Json => say(&format!("{answer:#}\n")),
        Output::Table => {
            let fields = answer.as_object().into_iter().flatten();
            say(&fields.map(|(name, _)| format!("{name}: {}\n", cell(answer, name))).collect::<String>())
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_id_stays_one_segment_of_a_path_whatever_is_in_it() {
        assert_eq!(segment("ACC-1:a.b"), "ACC-1:a.b");
        assert_eq!(segment("a/../b?c#d é"), "a%2F..%2Fb%3Fc%23d%20%C3%A9");
        assert_eq!(query(&[("a", Some("x y")), ("b", None), ("c", Some("1"))]), "a=x%20y&c=1");
    }

    #[test]
    fn cells_are_words_and_what_is_absent_is_a_dash() {
        let value = json!({"a": {"b": "x"}, "n": 1, "yes": true, "list": ["p", "q"], "none": null, "empty": []});
        for (path, words) in [("a.b", "x"), ("n", "1"), ("yes", "yes"), ("list", "p,q"), ("none", "-"), ("empty", "-"), ("a.c", "-")] {
            assert_eq!(cell(&value, path), words, "{path}");
        }
        assert_eq!(rows(&[value], &["a.b", "n"]), "b  n\nx  1\n");
    }
}
