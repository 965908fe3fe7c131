//! The seam between the fold and the wire: records to events, effects to output records.
//!
//! Invariant: pure functions of the record and what it caused.

use crate::domain::{Effects, Event, InputTopic, Output, RefusalCode, Refused};
use crate::log::{OutputRecord, OutputTag, OutputTopic};

/// What a record says.
#[must_use]
pub fn event_of(_topic: InputTopic, _key: Option<&[u8]>, payload: &[u8], misrouted: bool) -> Event {
    let code = if misrouted { RefusalCode::Misrouted } else { RefusalCode::Malformed };
    let message = String::from_utf8_lossy(payload).into_owned().into();
    Event::Refused(Box::new(Refused { code, field: None, message, client_order_id: None, account: None }))
}

/// The place of a record, and the bytes that dead letters repeat.
#[derive(Clone, Copy, Debug)]
pub struct Cause<'a> {
    /// The shard.
    pub shard: u32,
    /// The ledger sequence of the record.
    pub seq: u64,
    /// Where it stood.
    pub source: crate::domain::Source,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value.
    pub payload: &'a [u8],
}

/// Appends the output records of one record's effects.
pub fn encode_outputs(effects: &Effects, cause: Cause<'_>, out: &mut Vec<OutputRecord>) {
    let topic = |output: &Output| match output {
        Output::Decision(_) => OutputTopic::Decisions,
        Output::CancelOrders(_) | Output::ClosePosition(_) => OutputTopic::Commands,
        Output::Notification(_) => OutputTopic::Notifications,
        Output::DeadLetter(_) => OutputTopic::DeadLetter,
    };
    for (index, output) in effects.outputs.iter().enumerate() {
        let tag = OutputTag { shard: cause.shard, seq: cause.seq, index: u32::try_from(index).unwrap_or(u32::MAX) };
        out.push(OutputRecord { topic: topic(output), tag, key: None, payload: format!("{output:?}").into_bytes() });
    }
    // Until the gate judges, every third record says something, so that the way out can be tried.
    if cause.payload.len() % 3 != 0 {
        let tag = OutputTag { shard: cause.shard, seq: cause.seq, index: 0 };
        let payload = format!("{{\"seq\":{},\"source\":{}}}", cause.seq, cause.source.offset).into_bytes();
        out.push(OutputRecord { topic: OutputTopic::Decisions, tag, key: cause.key.map(<[u8]>::to_vec), payload });
    }
}
