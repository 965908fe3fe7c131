//! The seam between the fold and the wire: records to events, effects to output records.
//!
//! Invariant: pure functions of the record and what it caused.

use crate::domain::{AccountId, ClientOrderId, Effects, Event, Id, InputTopic, RefusalCode, Refused};
use crate::log::{OutputRecord, OutputTag};
use crate::wire::frame::Routing;
use crate::wire::{self, Origin};

/// What a record says to this shard. One in the wrong partition says only who it is about: the books
/// that it means are another shard's, as are those of a record that belongs elsewhere.
#[must_use]
pub fn event_of(topic: InputTopic, key: Option<&[u8]>, payload: &[u8], routing: Routing) -> Event {
    routed(wire::decode(topic, key, payload), routing)
}

/// What a decoded record says to this shard.
#[must_use]
pub fn routed(event: Event, routing: Routing) -> Event {
    match routing {
        Routing::Here | Routing::Quiet => event,
        Routing::Misrouted => misrouted_of(&event),
        Routing::Elsewhere => Event::Elsewhere,
    }
}

fn misrouted_of(event: &Event) -> Event {
    let (client_order_id, account) = ids_of(event);
    let message = "the record's key belongs to another partition".into();
    Event::Refused(Box::new(Refused { code: RefusalCode::Misrouted, field: None, message, client_order_id, account }))
}

fn ids_of(event: &Event) -> (Option<ClientOrderId>, Option<AccountId>) {
    let both = |order: Id, account: Id| (Some(order), Some(account));
    match event {
        Event::Intent(intent) => both(intent.client_order_id, intent.account),
        Event::Amend(amend) => both(amend.client_order_id, amend.account),
        Event::Cancel(cancel) => both(cancel.client_order_id, cancel.account),
        Event::Signal(signal) => (None, Some(signal.account)),
        Event::Fill(fill) => both(fill.client_order_id, fill.account),
        Event::Report(report) => both(report.client_order_id, report.account),
        Event::Busted(busted) => (None, Some(busted.account)),
        Event::Corrected(corrected) => (None, Some(corrected.account)),
        Event::Trade(_) | Event::Quote(_) | Event::Bar(_) | Event::Control(_) | Event::Elsewhere => (None, None),
        Event::Refused(refused) => (refused.client_order_id, refused.account),
    }
}

/// Appends the output records of what the record with ledger sequence `seq` caused.
pub fn encode_outputs(effects: &Effects, shard: u32, seq: u64, origin: &Origin<'_>, out: &mut Vec<OutputRecord>) {
    for (index, output) in (0..).zip(&effects.outputs) {
        let mut payload = Vec::with_capacity(512);
        wire::encode_output(&mut payload, output, effects, origin);
        let key = wire::key_of(output, origin).map(<[u8]>::to_vec);
        out.push(OutputRecord { topic: wire::topic_of(output), tag: OutputTag { shard, seq, index }, source: origin.source, key, payload });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misrouted_intent_keeps_its_ids_and_says_nothing_else() {
        let intent = br#"{"event":"order_cancel","client_order_id":"I-1","account":"ACC1"}"#;
        let Event::Refused(refused) = event_of(InputTopic::Intents, Some(b"ACC1"), intent, Routing::Misrouted) else {
            panic!("it was taken")
        };
        assert_eq!((refused.code, refused.account), (RefusalCode::Misrouted, Id::parse(b"ACC1")));
        assert_eq!(refused.client_order_id, Id::parse(b"I-1"));
    }
}
