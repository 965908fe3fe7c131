//! Query strings, read strictly.
//!
//! Invariant: a parameter that a path does not know, or that is given twice, is refused. A
//! misspelled `form=latest` must not silently read from the start. Deliberately absent: defaults
//! for what is given wrongly.

use std::str::FromStr;

use super::problem::{ApiCode, Problem};

/// The parameters of one request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    pairs: Vec<(String, String)>,
}

impl Query {
    /// Reads a query string whose parameters may only be `known`.
    pub fn read(text: Option<&str>, known: &[&str]) -> Result<Self, Problem> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        for part in text.unwrap_or("").split('&').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let (name, value) = (decoded(name)?, decoded(value)?);
            if !known.contains(&name.as_str()) {
                return Err(Problem::new(ApiCode::UnknownParameter, format!("known parameters: {}", known_list(known))).field(&name));
            }
            if pairs.iter().any(|(other, _)| *other == name) {
                return Err(Problem::new(ApiCode::InvalidParameter, "given twice").field(&name));
            }
            pairs.push((name, value));
        }
        Ok(Self { pairs })
    }

    /// The text of one parameter.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// One parameter's number, which must lie in `range`.
    pub fn number<T: FromStr + PartialOrd + std::fmt::Display>(&self, name: &str, least: T, most: T, default: T) -> Result<T, Problem> {
        let Some(text) = self.text(name) else { return Ok(default) };
        match text.parse::<T>() {
            Ok(number) if number >= least && number <= most => Ok(number),
            Ok(_) | Err(_) => {
                Err(Problem::new(ApiCode::InvalidParameter, format!("must be a whole number from {least} to {most}")).field(name))
            }
        }
    }

    /// One parameter's truth.
    pub fn flag(&self, name: &str) -> Result<bool, Problem> {
        match self.text(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(Problem::new(ApiCode::InvalidParameter, "must be true or false").field(name)),
        }
    }
}

fn known_list(known: &[&str]) -> String {
    if known.is_empty() { "none".to_owned() } else { known.join(", ") }
}

fn decoded(text: &str) -> Result<String, Problem> {
    let broken = || Problem::new(ApiCode::InvalidParameter, "the query string is not valid percent encoding of UTF-8");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => hex(rest.next()).zip(hex(rest.next())).map(|(high, low)| high << 4 | low).ok_or_else(broken)?,
            other => other,
        });
    }
    String::from_utf8(bytes).map_err(|_| broken())
}

fn hex(byte: Option<u8>) -> Option<u8> {
    let digit = char::from(byte?).to_digit(16)?;
    u8::try_from(digit).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> ApiCode {
        Query::read(Some(text), &["from", "limit"]).unwrap_err().code()
    }

    #[test]
    fn reads_what_it_knows() {
        let query = Query::read(Some("from=ear%6Ciest&limit=5"), &["from", "limit"]).unwrap();
        assert_eq!(query.text("from"), Some("earliest"));
        assert_eq!(query.number("limit", 1, 10, 3).unwrap(), 5);
        assert_eq!(Query::read(None, &[]).unwrap().number("limit", 1, 10, 3).unwrap(), 3);
    }

    #[test]
    fn refuses_unknown_doubled_and_broken_parameters() {
        assert_eq!(refusal("form=latest"), ApiCode::UnknownParameter);
        assert_eq!(refusal("from=1&from=2"), ApiCode::InvalidParameter);
        assert_eq!(refusal("from=%4"), ApiCode::InvalidParameter);
        assert_eq!(refusal("from=%ff"), ApiCode::InvalidParameter);
        let query = Query::read(Some("limit=11"), &["limit"]).unwrap();
        assert_eq!(query.number("limit", 1, 10, 3).unwrap_err().code(), ApiCode::InvalidParameter);
    }
}
