//! Noting in the audit what programs append to `gate.control` by themselves, past the paths that operators use.
//!
//! Invariant: a batch with operators' records is noted before it is appended, and with where it came to stand; what cannot be noted is not
//! appended, but for what stops trading. Deliberately absent: the records. The log keeps them at the positions that the note names.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::caller::Caller;
use super::problem::Problem;
use crate::control::audit::Audit;
use crate::control::commands::{self, By, CommandError};
use crate::domain::InputTopic;
use crate::log::{NewRecord, Placed, Topic};

const ACTION: &str = "records.append";
const OBJECT: &str = "topic:gate.control";
/// So many kinds of event are told apart, and so much of a name is.
const EVENTS_MAX: usize = 32;
const NAME_BYTES_MAX: usize = 64;
const CONTROL: Topic = Topic::Input(InputTopic::Control);

/// The operators' records of a batch.
#[derive(Debug, PartialEq, Eq)]
pub struct Operated {
    records: usize,
    events: BTreeMap<String, usize>,
    stops: bool,
}

/// What is looked at of a record.
#[derive(Deserialize)]
struct Peek {
    event: String,
    #[serde(default)]
    state: Value,
}

impl Operated {
    /// What a batch has of them, if it has any.
    pub fn of(batch: &[NewRecord]) -> Option<Self> {
        let mut found = Self { records: 0, events: BTreeMap::new(), stops: false };
        for record in batch.iter().filter(|record| record.topic == CONTROL) {
            let peek = serde_json::from_slice::<Peek>(&record.payload).ok().filter(|peek| peek.event.len() <= NAME_BYTES_MAX);
            found.stops |= peek.as_ref().is_some_and(|peek| peek.event == "trading_state_set" && peek.state == "halted");
            let name = peek.map_or_else(|| "unreadable".to_owned(), |peek| peek.event);
            let is_room = found.events.len() < EVENTS_MAX || found.events.contains_key(&name);
            *found.events.entry(if is_room { name } else { "other".to_owned() }).or_default() += 1;
            found.records += 1;
        }
        (found.records > 0).then_some(found)
    }

    /// Notes that they are about to be appended.
    ///
    /// # Errors
    /// The audit did not take it.
    pub async fn begin(&self, audit: &Arc<Audit>, caller: &Caller) -> Result<(), Problem> {
        let by = By { actor: caller.name.clone(), address: caller.address, reason: String::new() };
        let changes = json!({"records": self.records, "events": self.events});
        let begun = commands::begin(audit, &by, (ACTION, OBJECT), changes, self.stops).await;
        begun.map_err(|error: CommandError| super::v1::books::command_problem(error))
    }

    /// Notes how it ended.
    pub async fn end(audit: &Arc<Audit>, caller: &Caller, appended: &Result<Vec<Placed>, Problem>) {
        let (changes, result) = match appended {
            Ok(placed) => (stretch(placed), "ok"),
            Err(problem) => (json!({}), problem.code().as_str()),
        };
        if let Err(error) = audit.record(&caller.name, &caller.address.to_string(), ACTION, OBJECT, changes, result).await {
            // That it was begun is noted already, and what it came to stands in the log itself.
            tracing::error!(%error, action = ACTION, result, "how an action ended could not be noted");
        }
    }
}

/// The first and the last place on `gate.control`.
fn stretch(placed: &[Placed]) -> Value {
    let mut places: Vec<(u32, u64)> = placed.iter().filter(|place| place.topic == CONTROL).map(|at| (at.partition, at.offset)).collect();
    places.sort_unstable();
    let text = |(partition, offset): &(u32, u64)| format!("gate.control:{partition}:{offset}");
    json!({"position": places.first().map(text), "last_position": places.last().map(text)})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(topic: InputTopic, payload: &str) -> NewRecord {
        NewRecord { topic: Topic::Input(topic), partition: None, ts: None, key: None, payload: payload.as_bytes().to_vec() }
    }

    #[test]
    fn only_operators_records_are_noted_by_the_names_of_their_events() {
        assert_eq!(Operated::of(&[record(InputTopic::Prices, r#"{"event":"trade"}"#)]), None);
        let halt = r#"{"event":"trading_state_set","state":"halted","scope":{}}"#;
        let batch = [
            record(InputTopic::Control, r#"{"event":"split","symbol":"A"}"#),
            record(InputTopic::Prices, r#"{"event":"trade"}"#),
            record(InputTopic::Control, r#"{"event":"split","symbol":"B"}"#),
            record(InputTopic::Control, "not json"),
        ];
        let events: BTreeMap<String, usize> = [("split".to_owned(), 2), ("unreadable".to_owned(), 1)].into();
        assert_eq!(Operated::of(&batch), Some(Operated { records: 3, events, stops: false }));
        assert!(Operated::of(&[record(InputTopic::Control, halt)]).is_some_and(|found| found.stops));
    }

    #[test]
    fn a_note_stays_small_whatever_is_sent() {
        let strange = (0..500).map(|n| record(InputTopic::Control, &format!(r#"{{"event":"e-{n}"}}"#)));
        let long = record(InputTopic::Control, &format!(r#"{{"event":"{}"}}"#, "x".repeat(1_000)));
        let found = Operated::of(&strange.chain([long]).collect::<Vec<_>>()).unwrap();
        assert_eq!((found.records, found.events.len(), found.events["other"]), (501, EVENTS_MAX + 1, 469));
    }
}
