//! Which part of a ledger is meant: by ledger sequence or by time.

use clap::builder::ValueParser;

use crate::domain::Millis;

/// From where to where. Both ends belong to it.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Range {
    /// First record to print: a ledger sequence (from 1) or an RFC 3339 time
    #[arg(long, value_name = "SEQ|TIME", value_parser = ValueParser::new(parse))]
    from: Option<Bound>,
    /// Last record to apply: a ledger sequence or an RFC 3339 time
    #[arg(long, value_name = "SEQ|TIME", value_parser = ValueParser::new(parse))]
    to: Option<Bound>,
}

/// One end of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bound {
    Seq(u64),
    At(Millis),
}

/// Where a record stands in the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stand {
    /// Its sequence.
    pub seq: u64,
    /// Its time.
    pub at: Millis,
}

impl Range {
    /// Whether the range has begun with this record.
    #[must_use]
    pub fn has_begun(&self, stand: Stand) -> bool {
        match self.from {
            None => true,
            Some(Bound::Seq(seq)) => stand.seq >= seq,
            Some(Bound::At(at)) => stand.at >= at,
        }
    }

    /// Whether the range ended before this record.
    #[must_use]
    pub fn is_over(&self, stand: Stand) -> bool {
        match self.to {
            None => false,
            Some(Bound::Seq(seq)) => stand.seq > seq,
            Some(Bound::At(at)) => stand.at > at,
        }
    }
}

fn parse(text: &str) -> Result<Bound, String> {
    if let Ok(seq) = text.parse() {
        return Ok(Bound::Seq(seq));
    }
    let wrong = || "give a ledger sequence such as 1842, or a time such as 2026-03-06T15:30:00Z".to_owned();
    text.parse::<jiff::Timestamp>().map(|time| Bound::At(time.as_millisecond())).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_sequences_and_times() {
        assert_eq!(parse("17"), Ok(Bound::Seq(17)));
        assert_eq!(parse("1970-01-01T00:00:01.5Z"), Ok(Bound::At(1500)));
        assert!(parse("yesterday").is_err());
    }

    #[test]
    fn both_ends_belong_to_it() {
        let range = Range { from: Some(Bound::Seq(2)), to: Some(Bound::At(30)) };
        assert!(!range.has_begun(Stand { seq: 1, at: 99 }));
        assert!(range.has_begun(Stand { seq: 2, at: 0 }));
        assert!(!range.is_over(Stand { seq: 9, at: 30 }));
        assert!(range.is_over(Stand { seq: 1, at: 31 }));
    }
}
